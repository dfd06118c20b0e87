"""Map: a stage that calls a function with every batch, or with every sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.arguments import flag
from highway.batch import Batch, concatenated, is_field_name
from highway.engine import Stage
from highway.errors import ArgumentError, ContractError
from highway.modules.stages.ragged_rows import field_name, sample_of
from highway.modules.stages.sample_functions import function_of, naming, samples

__all__ = ["Map"]


class Map(Stage):
    """Calls a Python function with every batch, or with every sample of it.

    The function runs in the threads of the stage, several at once: it shares nothing that it writes, or the stage has
    ``workers=1``. It holds the GIL, except in NumPy and other code that releases it. The pipeline is as reproducible
    as the function: draw random numbers with `highway.sampling.rng.SampleRandom`, of ``batch.epoch`` and
    ``batch.indices``.

    An exception of the function ends the pipeline as it is; a note names the batch, or index and key of the sample.

    Parameters
    ----------
    function : callable
        Called with a `Batch`. It returns a `Batch`; or a dict of arrays by name, which replace fields of these names or
        become new ones; or None to drop the batch.
        With `per_sample`, called with a dict of the fields and extras of a sample: rows of ragged ones, elements of the
        others. It returns a dict of numbers, arrays, str or bytes by name, the same names for every sample. Fields that
        are not in it stay.
    per_sample : bool
        Call it for every sample.
    ragged : sequence of str or of tuples of str
        With `per_sample`: names in the result whose arrays (also str or bytes) differ in length from sample to sample.
        They become ragged fields; those in one tuple have the same lengths, and share their offsets. All other
        arrays of a name have the same dtype and shape.
    workers : int, optional
        Number of threads; by default set automatically, up to one for each core that the process may use.
    queue_size : int, optional
        Most batches that may wait after this module; by default 4, or more of small ones.

    Raises
    ------
    ArgumentError
        An argument is not of its type.
    ContractError
        While the pipeline runs: the function returned something else, or results that do not fit together.

    Examples
    --------
    >>> batch = Batch({"a": np.array([1, 2]), "b": np.array([3, 4])}, seq=0)
    >>> Map(lambda batch: {"sums": batch.a + batch.b}).process(batch).sums.tolist()
    [4, 6]
    >>> counted = Map(lambda sample: {"ones": np.ones(sample["a"])}, per_sample=True, ragged=["ones"]).process(batch)
    >>> counted.offsets.tolist()
    [0, 1, 3]
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        per_sample: bool = False,
        ragged: Sequence[str | tuple[str, ...]] = (),
        workers: int | None = None,
        queue_size: int | None = None,
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        self.function = function_of(self.name, function)
        self.per_sample = flag(self.name, "per_sample", per_sample)
        if isinstance(ragged, str) or not isinstance(ragged, Sequence):
            raise ArgumentError(f"{self.name}: ragged is {ragged!r}; expected a list of names of fields")
        self.ragged = tuple(
            tuple(field_name(self.name, name) for name in (part if isinstance(part, tuple) else (part,)))
            for part in ragged
        )
        names = [name for group in self.ragged for name in group]
        if len({*names}) < len(names):
            raise ArgumentError(f"{self.name}: ragged is {ragged!r}; expected each name once")
        if self.ragged and not self.per_sample:
            raise ArgumentError(
                f"{self.name}: ragged is {ragged!r} without per_sample; expected per_sample=True, or a function that "
                "returns a Batch with its offsets"
            )

    def __repr__(self) -> str:
        return f"Map({self.function!r}, per_sample={self.per_sample})"

    def process(self, batch: Batch) -> Batch | None:
        """Return what the function makes of a batch; see the class for what raises."""
        if self.per_sample:
            return self._collated(batch)
        with naming(self.name, batch):
            found = self.function(batch)
        if found is None or isinstance(found, Batch):
            return found
        if not isinstance(found, Mapping):
            raise ContractError(
                f"Map: the function returned {type(found).__name__}; expected a Batch, a dict of arrays, or None "
                "(per_sample=True calls it for each sample)"
            )
        with naming(self.name, batch):
            return batch.replace(**found)

    def _collated(self, batch: Batch) -> Batch:
        found: list[Mapping[str, Any]] = []
        for row, sample in enumerate(samples(batch)):
            with naming(self.name, batch, row):
                result = self.function(sample)
            if not isinstance(result, Mapping):
                raise ContractError(
                    f"Map: the function returned {type(result).__name__} for {sample_of(batch, row)}; expected a dict "
                    "by name (Filter drops samples)"
                )
            if found and result.keys() != found[0].keys():
                raise ContractError(
                    f"Map: the function returned {', '.join(result) or 'nothing'} for {sample_of(batch, row)}, and "
                    f"{', '.join(found[0]) or 'nothing'} for {sample_of(batch, 0)}; expected the same names for all"
                )
            found.append(result)
        if not found:
            return batch
        wrong = [name for name in found[0] if not is_field_name(name)]
        if wrong:
            raise ContractError(
                f"Map: the function returned {', '.join(map(repr, wrong))} for {sample_of(batch, 0)}; expected names "
                "of fields: identifiers without a leading underscore that are no attributes of Batch"
            )
        made: dict[str, Any] = {}
        offsets = {name: batch.offsets_of(name) for name in batch.ragged if name not in found[0]}
        for group in self.ragged:
            made |= self._joined(batch, found, group, offsets)
        for name in found[0]:
            if name not in made:
                made[name] = self._stacked(batch, name, [result[name] for result in found])
        with naming(self.name, batch):
            return batch.replace(**made, ragged=offsets)

    def _joined(
        self,
        batch: Batch,
        found: Sequence[Mapping[str, Any]],
        group: Iterable[str],
        offsets: dict[str, NDArray[np.int64]],
    ) -> dict[str, NDArray[Any]]:
        """Return the values of ragged fields that share their offsets, and add these to `offsets`."""
        made: dict[str, NDArray[Any]] = {}
        first = shared = None
        for name in group:
            if name not in found[0]:
                raise ContractError(
                    f"Map: ragged has {name!r}, and the function returned {', '.join(found[0]) or 'nothing'}; "
                    "expected a value for it"
                )
            with naming(self.name, batch):
                made[name], ends = concatenated([result[name] for result in found])
            if shared is None:
                first, shared = name, ends
            elif not np.array_equal(ends, shared):
                row = int(np.argmax(np.diff(ends) != np.diff(shared)))
                raise ContractError(
                    f"Map: {first} and {name} of {sample_of(batch, row)} have {np.diff(shared)[row]} and "
                    f"{np.diff(ends)[row]} rows; expected as many, since ragged has them in one tuple"
                )
            offsets[name] = shared
        return made

    def _stacked(self, batch: Batch, name: str, values: Sequence[Any]) -> NDArray[Any]:
        """Return one array with the value of each sample."""
        if all(isinstance(value, str) for value in values):
            return np.array(values)
        if all(isinstance(value, bytes) for value in values):
            # As encoded files; an array of bytes would drop zeros at their ends.
            files = np.empty(len(values), object)
            files[:] = values
            return files
        arrays: list[NDArray[Any]] = []
        for row, value in enumerate(values):
            try:
                array = np.asarray(value)
            except ValueError as error:
                raise ContractError(f"Map: {name} of {sample_of(batch, row)} is no array: {error}") from None
            arrays.append(array)
            if array.dtype.hasobject or array.dtype.kind in "US":
                raise ContractError(
                    f"Map: {name} of {sample_of(batch, row)} is {type(value).__name__}; expected numbers, or str "
                    "or bytes for all samples"
                )
            if array.dtype != arrays[0].dtype or array.shape != arrays[0].shape:
                raise ContractError(
                    f"Map: {name} of {sample_of(batch, row)} is {array.dtype} of shape {array.shape}, that of "
                    f"{sample_of(batch, 0)} is {arrays[0].dtype} of shape {arrays[0].shape}; expected the same for all "
                    f"samples (ragged=[{name!r}] for arrays of differing length)"
                )
        return np.stack(arrays)
