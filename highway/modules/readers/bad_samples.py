"""BadSamples: records the samples that a source could not read, and chooses replacements or raises."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from highway.arguments import number, whole
from highway.errors import ArgumentError, EmptyDatasetError, HighwayError, TooManyErrors
from highway.sampling.identity import numbers_of
from highway.sampling.rng import REPLACEMENT_POSITION, SampleRandom
from highway.sampling.sampler import Sampler
from highway.sampling.skips import Intervals

__all__ = ["BadSamples"]

_RANDOM_REPLACEMENTS = 8
"""Random replacements for a bad sample before the samples after the last one are tried in turn."""


class BadSamples:
    """Applies the policy for bad samples, for all threads of a source.

    Parameters
    ----------
    owner : str
        Name of the source, for errors.
    order : Sampler
    on_error : {"raise", "skip", "replace"}
    max_errors : int, float or None
        Most bad samples, as a count or as a fraction of all; None for no limit.
    noun, where : str
        Noun and place of samples in errors: "file" or "record", and "in FOLDER".

    Raises
    ------
    ArgumentError
        An argument is out of range.
    """

    def __init__(
        self,
        owner: str,
        order: Sampler,
        on_error: str,
        max_errors: int | float | None,
        noun: str,
        where: str,
    ) -> None:
        if on_error not in ("raise", "skip", "replace"):
            raise ArgumentError(f"{owner}: on_error is {on_error!r}; expected 'raise' or 'skip' or 'replace'")
        self._owner = owner
        self._order = order
        self._on_error = on_error
        self._max_errors = max_errors
        self._most = _most(owner, on_error, max_errors, order.count)
        self._noun, self._where = noun, where
        self._lock = threading.Lock()
        # All bad samples so far; those that were not read successfully since; counts of the batches so far.
        self._bad: dict[int, HighwayError] = {}
        self._lost: set[int] = set()
        self._batches = 0
        self._any_good = False
        self._counts_elsewhere = False

    def another(self, order: Sampler) -> BadSamples:
        """Return one with the same policy, for this order, that has counted nothing."""
        return BadSamples(self._owner, order, self._on_error, self._max_errors, self._noun, self._where)

    def count_elsewhere(self) -> None:
        """Leave limits of the number of bad samples to another process, which knows those of its part of the data."""
        self._counts_elsewhere = True

    def forget(self, start: int) -> None:
        """Reset all counts, to begin at batch number `start`."""
        with self._lock:
            self._bad, self._lost = {}, set()
            self._any_good = False
        self.seek(start)

    def seek(self, start: int) -> None:
        """Go on at batch number `start`."""
        with self._lock:
            self._batches = start
            # Assume that an earlier batch had a good sample.
            self._any_good = self._any_good or start > 0

    def errors(self) -> dict[int, HighwayError]:
        """Errors of all bad samples so far, by index."""
        with self._lock:
            return dict(self._bad)

    def note(self, bad: Mapping[int, HighwayError]) -> None:
        """Record bad samples, by their number in the data; raises if the policy or `max_errors` does not allow them."""
        with self._lock:
            for index, error in bad.items():
                self._bad.setdefault(index, error)
            self._lost.update(bad)
            count, all_lost = len(self._bad), len(self._lost) >= self._reachable
        error = next(iter(bad.values()))
        if self._on_error == "raise":
            raise error
        if self._counts_elsewhere:
            return
        if count > self._most:
            raise TooManyErrors(
                f"{self._owner}: {count} of {self._order.count} {self._noun}s are bad, more than max_errors="
                f"{self._max_errors} allows; one of them: {error} (all so far: Pipeline.errors)"
            )
        if all_lost:
            self.refuse_all(error)

    def count(self, indices: NDArray[np.int64]) -> None:
        """Count a batch of these samples; raises if it is the last one and no batch had a sample."""
        order = self._order
        with self._lock:
            self._lost.difference_update(numbers_of(indices).tolist() if self._lost else ())
            self._batches += 1
            self._any_good = self._any_good or len(indices) > 0
            over = order.epochs is not None and self._batches == order.numbering.number_of(order.epochs)
            in_vain = over and not self._any_good and not self._counts_elsewhere
            error = next(reversed(self._bad.values())) if in_vain else None
        if error is not None:
            self.refuse_all(error)

    def replacements(
        self, epoch: int, indices: NDArray[np.int64], skipped: Intervals | None = None
    ) -> Iterator[NDArray[np.int64]]:
        """Yield samples to try instead of these: some at random, then all in turn.

        They are among those that the epoch may have, and none is skipped.
        """
        order = self._order
        draws = SampleRandom(order.seed, epoch, indices, REPLACEMENT_POSITION)
        # A replacement has the number of the copy of the bad sample.
        copies = indices - numbers_of(indices)
        candidates = order.substitutes(epoch, indices)
        count = order.count if candidates is None else len(candidates)

        def numbers(turns: NDArray[np.int64]) -> NDArray[np.int64]:
            return turns if candidates is None else candidates[turns]

        if skipped is not None and skipped.hold(numbers(np.arange(count))).all():
            # In a mixture, the bad ones may be of another epoch of their source.
            return

        def not_skipped(turns: NDArray[np.int64]) -> NDArray[np.int64]:
            """Return each turn, or the next one after it that is not skipped."""
            while skipped is not None and (held := skipped.hold(numbers(turns))).any():
                turns = np.where(held, (turns + 1) % count, turns)
            return turns

        for _ in range(_RANDOM_REPLACEMENTS):
            turns = not_skipped(draws.integers(0, count))
            yield numbers(turns) + copies
        for _ in range(count):
            turns = not_skipped((turns + 1) % count)
            yield numbers(turns) + copies

    @property
    def _reachable(self) -> int:
        """Number of samples that the source may read in all epochs."""
        order = self._order
        weighted = order.plan is not None and order.plan.weights is not None
        return order.reached() if weighted or self._on_error != "replace" else order.count

    def refuse_all(self, error: HighwayError) -> None:
        """Raise EmptyDatasetError: nothing can be read."""
        rank, world = self._order.rank, self._order.world
        part = f", of which this is rank {rank} of {world}," if world > 1 else ""
        raise EmptyDatasetError(
            f"{self._owner}: none of the {self._noun}s that were tried {self._where}{part} could be read, and none is "
            f"left ({len(self._bad)} of {self._order.count} {self._noun}s); one of them: {error}"
        ) from error


def _most(owner: str, on_error: str, value: object, size: int) -> float:
    """Most bad samples that are allowed."""
    if value is None:
        return float("inf")
    if on_error == "raise":
        raise ArgumentError(
            f"{owner}: max_errors is {value!r}; expected None with on_error='raise', which ends at the first error"
        )
    if isinstance(value, (float, np.floating)):
        return number(owner, "max_errors", value, 0.0, 1.0) * size
    return float(whole(owner, "max_errors", value, 0))
