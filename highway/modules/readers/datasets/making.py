"""Maker: reads samples of a data set and plans a batch of them, in the process where it is called."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.batch import Batch, empty
from highway.modules.readers.datasets.collation import Collator, Field, Planned, Schema, Unfit, samples_of
from highway.modules.readers.datasets.items import Items
from highway.modules.readers.datasets.seeding import seed_libraries, seeds_of
from highway.sampling.identity import numbers_of

__all__ = ["COLLATING", "Answer", "Failed", "Maker", "Plan", "Request", "batch_of", "filled"]

COLLATING = -2
"""Progress while samples are joined, or read with one call."""

# As after a reader of pictures, whose fit draws at position 0.
_APPLIED = 1
_OF_THE_MACHINE = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))

RowsFor = Callable[[Sequence[Field], int], Mapping[str, NDArray[Any]]]


class Request(NamedTuple):
    """What to make a batch of.

    Attributes
    ----------
    epoch : int
    indices : int64 (N,)
        Identities of the samples; `numbers` are their numbers in the data set.
    schema : Schema or None
        None: of one sample, which is the reference.
    singly : bool
        Whether to read every sample with a call of its own, in any case.
    """

    epoch: int
    indices: NDArray[np.int64]
    schema: Schema | None
    singly: bool = False

    @property
    def numbers(self) -> NDArray[np.int64]:
        return numbers_of(self.indices)


class Failed(NamedTuple):
    """Why a sample is bad: a text that follows "sample 7", and the exception that the data set raised, if any."""

    text: str
    cause: BaseException | None


class Plan(NamedTuple):
    """A batch before it has memory.

    Attributes
    ----------
    arrays : list of Planned
    failures : dict of int to Failed
        The samples that are not in it, by row of the request.
    schema : Schema or None
        None where the user's function collates, or if the reference is bad.
    """

    arrays: list[Planned]
    failures: dict[int, Failed]
    schema: Schema | None


class Answer(NamedTuple):
    """A batch that a process made.

    Attributes
    ----------
    arrays : dict of str to ndarray
        In memory of the pool.
    offsets : dict of str to int64 (N + 1,)
        Of the ragged ones.
    failures : dict of int to Failed
    schema : Schema or None
    """

    arrays: dict[str, NDArray[Any]]
    offsets: dict[str, NDArray[np.int64]]
    failures: dict[int, Failed]
    schema: Schema | None


class Maker:
    """Reads samples and plans batches. Pickles with its data set.

    Parameters
    ----------
    items : Items
    collator : Collator
    seed : int or None
        Seed of the random numbers of Python's libraries, which are then set before each sample; None leaves them alone.
    """

    def __init__(self, items: Items, collator: Collator, seed: int | None) -> None:
        self.items = items
        self.collator = collator
        self._seed = seed

    def make(self, request: Request) -> Answer:
        """Make a batch, in memory of the pool; raises as `plan`."""
        plan = self.plan(request)
        return Answer(*filled(plan.arrays), plan.failures, plan.schema)

    def plan(
        self, request: Request, mark: Callable[[int], None] | None = None, rows_for: RowsFor | None = None
    ) -> Plan:
        """Read the samples of a request.

        Parameters
        ----------
        request : Request
        mark : callable, optional
            Called with the row of the request before its sample is read, and with `COLLATING` afterwards.
        rows_for : callable, optional
            Returns arrays for the rows of fields, and so many samples. Large values are moved there as they are read,
            so that no second copy of the batch waits for its end.

        Raises
        ------
        ContractError
            The data set has another length; or the user's function returned something else than arrays.
        ArgumentError
            Names do not fit the samples.
        MemoryError, OSError
            The machine has no memory or file handles left.
        """
        self.items.check_length()
        together = self.items.batched and not request.singly and request.schema is not None
        if together:
            plan = self._together(request, mark)
            if plan is not None:
                return plan
        seeds = None if self._seed is None else seeds_of(self._seed, request.epoch, request.indices)
        samples: list[Any] = []
        rows, failures = [], {}
        one, schema = self.items.one, request.schema
        places: Mapping[str, NDArray[Any]] = {}
        if rows_for is not None and schema is not None:
            places = rows_for(self.collator.large_fields(schema), len(request.indices))
        for row, index in enumerate(request.numbers.tolist()):
            if mark is not None:
                mark(row)
            if seeds is not None:
                seed_libraries(seeds[row])
            try:
                sample = one(index)
            except (Exception, SystemExit) as error:
                # A `sys.exit` would end the program without a word about the sample.
                if isinstance(error, MemoryError) or getattr(error, "errno", None) in _OF_THE_MACHINE:
                    raise
                failures[row] = Failed(_raised(error), error)
                continue
            if places and schema is not None:
                sample = self.collator.moved(schema, sample, places, len(samples))
            samples.append(sample)
            rows.append(row)
        if mark is not None:
            mark(COLLATING)
        return self._collated(request, samples, rows, failures)

    def _together(self, request: Request, mark: Callable[[int], None] | None) -> Plan | None:
        """Read all samples with one call; None if it raised: then each is read by itself."""
        if mark is not None:
            mark(COLLATING)
        if self._seed is not None:
            seed_libraries(seeds_of(self._seed, request.epoch, request.indices[:1])[0])
        try:
            found = self.items.some(request.numbers)
        except MemoryError:
            raise
        except (Exception, SystemExit):
            # The calls for the single samples raise again, and show which one is bad.
            return None
        rows = list(range(len(request.indices)))
        if isinstance(found, Mapping) and self.collator.collate is None:
            assert request.schema is not None
            arrays, _, wrong = self.collator.plan_columns(request.schema, found, len(rows))
            return Plan(arrays, _failed(wrong, rows), request.schema)
        if isinstance(found, Mapping):
            found = samples_of(found, len(rows))
        if len(found) != len(rows):
            # Which ones are missing, nobody knows.
            return None
        return self._collated(request, list(found), rows, {})

    def _collated(
        self, request: Request, samples: list[Any], rows: list[int], failures: dict[int, Failed]
    ) -> Plan:
        schema = request.schema
        if self.collator.collate is not None:
            return Plan(self.collator.collated(samples) if samples else [], failures, schema)
        if schema is None and samples:
            try:
                schema = self.collator.learn(int(request.numbers[rows[0]]), samples[0])
            except Unfit as error:
                failures[rows[0]] = Failed(str(error), error.__cause__)
        if schema is None or not samples:
            return Plan([], failures, schema)
        arrays, _, wrong = self.collator.plan(schema, samples)
        return Plan(arrays, {**failures, **_failed(wrong, rows)}, schema)


def filled(arrays: list[Planned]) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.int64]]]:
    """Return planned arrays by name, in memory of the pool, and the offsets of those that are ragged."""
    made, offsets = {}, {}
    for planned in arrays:
        out = empty(planned.shape, planned.dtype)
        planned.fill(out)
        made[planned.name] = out
        if planned.offsets is not None:
            offsets[planned.name] = planned.offsets
    return made, offsets


def batch_of(
    arrays: dict[str, NDArray[Any]],
    offsets: dict[str, NDArray[np.int64]],
    *,
    epoch: int,
    seq: int,
    indices: NDArray[np.int64],
    keys: list[str] | None = None,
) -> Batch:
    """Return arrays as a batch."""
    return Batch(arrays, epoch=epoch, seq=seq, indices=indices, keys=keys, applied=_APPLIED, ragged=offsets)


def _failed(wrong: Mapping[int, Unfit], rows: list[int]) -> dict[int, Failed]:
    return {rows[place]: Failed(str(error), error.__cause__) for place, error in wrong.items()}


def _raised(error: BaseException) -> str:
    text = str(error)
    shown = text if len(text) <= 500 else f"{text[:497]}..."
    return f"raised {type(error).__name__}" + (f": {shown}" if shown else "")
