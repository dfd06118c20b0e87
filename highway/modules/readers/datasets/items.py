"""Items: the samples of a data set by their index, whatever kind of data set it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.arguments import whole
from highway.errors import ArgumentError, ContractError
from highway.modules.readers.datasets.collation import samples_of

__all__ = ["Items", "only_iterates"]


def only_iterates(dataset: Any) -> bool:
    """Whether a data set has no samples by index, and can be iterated."""
    if not hasattr(type(dataset), "__iter__"):
        return False
    # torch's class has a __getitem__, which raises.
    if any(
        base.__name__ == "IterableDataset" and base.__module__.startswith("torch.")
        for base in type(dataset).__mro__
    ):
        return True
    return not (hasattr(type(dataset), "__getitem__") and hasattr(type(dataset), "__len__"))


class Items:
    """The samples of a data set, by index.

    Parameters
    ----------
    owner : str
        For errors.
    dataset : object
        Has ``__len__`` and ``__getitem__``, or is a function of an index.
    length : int, optional
        Number of samples of a function.
    batched : bool, optional
        Whether to read all samples of a batch with one call of ``__getitems__``; None: only where that returns columns,
        as `datasets.Dataset` does.

    Attributes
    ----------
    size : int
        Number of samples, when it was made.
    batched : bool

    Raises
    ------
    ArgumentError
        It is no data set, or `length` or `batched` does not fit it.
    """

    def __init__(self, owner: str, dataset: Any, length: int | None, batched: bool | None) -> None:
        self._owner = owner
        self._dataset = dataset
        indexed = hasattr(type(dataset), "__getitem__")
        # Data frames and tables have columns by name.
        table = hasattr(dataset, "columns") and (
            hasattr(dataset, "to_numpy") or hasattr(dataset, "to_pandas")
        )
        if table or isinstance(dataset, Mapping):
            raise ArgumentError(
                f"{owner}: dataset is a {type(dataset).__name__}, which has no samples by index; expected an object "
                "that has, such as one split of a DatasetDict; columns of numbers are for ArrayReader({name: values}, "
                "batch_size), pictures in tables for TableReader"
            )
        if isinstance(dataset, (str, bytes)) or not (indexed or callable(dataset)):
            raise ArgumentError(
                f"{owner}: dataset is a {type(dataset).__name__}; expected an object with __len__ and __getitem__ "
                "(index from 0), such as a list or a Dataset of torch, a function of the index with length=, or an "
                "iterable"
            )
        self._one: Callable[[int], Any] = dataset.__getitem__ if indexed else dataset
        self._length = None if length is None else whole(owner, "length", length, 0, 2**32)
        if length is None and not hasattr(type(dataset), "__len__"):
            raise ArgumentError(
                f"{owner}: dataset is a {type(dataset).__name__} without a length; expected length=, the "
                "number of samples"
            )
        if length is not None and hasattr(type(dataset), "__len__"):
            raise ArgumentError(
                f"{owner}: length is {length}, and the dataset has a length, {len(dataset)}; expected length= only for "
                "functions and for objects without __len__"
            )
        self.size = len(dataset) if self._length is None else self._length
        self._is_hugging_face = _is_hugging_face(dataset)
        self.batched = self._is_hugging_face if batched is None else batched
        if self.batched and not (self._is_hugging_face or hasattr(dataset, "__getitems__")):
            raise ArgumentError(
                f"{owner}: batched is True, and a {type(dataset).__name__} has no __getitems__; expected a dataset "
                "that has it, or batched=None"
            )
        self._arrow = self._as_arrow() if self.batched and self._is_hugging_face else None

    def _as_arrow(self) -> Any:
        """The data set of Hugging Face with its batches as Arrow tables; None if their values need decoding."""
        if self._dataset.format["type"] is not None:
            return None
        from highway.modules.readers.datasets.arrow_columns import is_plain

        if not all(is_plain(kind) for kind in self._dataset.features.arrow_schema.types):
            return None
        return self._dataset.with_format("arrow")

    def one(self, index: int) -> Any:
        """Return one sample."""
        if self._is_hugging_face:
            # With the types of a batch.
            columns = self.some(np.array([index]))
            assert isinstance(columns, Mapping)
            return samples_of(columns, 1)[0]
        return self._one(index)

    def some(self, indices: NDArray[np.int64]) -> Sequence[Any] | Mapping[str, Any]:
        """Return samples with one call: a list of them, or columns: a sequence of values by name.

        A column is a list of values, an array with a row for each sample, or a `highway.modules.readers.datasets.
        arrow_columns.Lists`.
        """
        rows = indices.tolist()
        if self._arrow is not None:
            from highway.modules.readers.datasets.arrow_columns import columns_of

            return columns_of(self._owner, self._arrow[rows])
        if self._is_hugging_face:
            return self._dataset[rows]  # type: ignore[no-any-return]
        return self._dataset.__getitems__(rows)  # type: ignore[no-any-return]

    def check_length(self) -> None:
        """Raise ContractError if the data set has another number of samples than when it was made."""
        if self._length is not None:
            return
        found = len(self._dataset)
        if found != self.size:
            raise ContractError(
                f"{self._owner}: the dataset has {found} samples now, and had {self.size} when the reader was made; "
                "expected a data set that does not change: make another reader for the new samples"
            )


def _is_hugging_face(dataset: Any) -> bool:
    kind = type(dataset)
    return kind.__module__.partition(".")[0] == "datasets" and hasattr(dataset, "with_format")
