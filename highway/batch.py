"""Batch: named arrays in order, and the identity of the samples in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from keyword import iskeyword
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway._core.pool import empty
from highway.errors import ArgumentError, FieldError

__all__ = ["Batch", "empty"]


class Batch:
    """Arrays of a batch by name, and which samples they are.

    Iterating a batch, or unpacking it, gives the arrays in order: ``images, labels = batch``.

    Parameters
    ----------
    fields : mapping of str to ndarray
        In order. A name is an identifier, without a leading underscore, that is no attribute of Batch.
    epoch : int
        Pass over the data that the samples belong to, from 0.
    seq : int, optional
        Number of the batch in its epoch, from 0. Without it, the engine numbers the batch when it leaves
        its source.
    indices : int64 array of shape (N,), optional
        Number of every sample in the data set: with the epoch, the identity of the sample. Without it,
        ``seq * N + arange(N)``, which is right where every batch of an epoch has N samples. Batches of 4, 4
        and 2 would be 0 to 3, 4 to 7, and 4 and 5 again, and two samples that have the same number draw the
        same random numbers: give `indices` where batches differ in size.
    keys : sequence of str, optional
        What every sample is called where it comes from (a file name, a key of a store).
    applied : int
        How many transforms the batch has been through; the next one draws at this position.

    Raises
    ------
    ArgumentError
        A field that is no ndarray, a name that cannot be used, or counts that disagree.

    Attributes
    ----------
    fields : dict of str to ndarray

    Examples
    --------
    >>> import numpy as np
    >>> batch = Batch({"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.array([0, 1])}, seq=3)
    >>> images, labels = batch
    >>> batch.size, batch.indices.tolist()
    (2, [6, 7])
    """

    __slots__ = ("__weakref__", "_indices", "applied", "epoch", "fields", "keys", "seq")

    fields: dict[str, NDArray[Any]]
    epoch: int
    seq: int | None
    keys: list[str] | None
    applied: int
    _indices: NDArray[np.int64] | None

    def __init__(
        self,
        fields: Mapping[str, NDArray[Any]],
        *,
        epoch: int = 0,
        seq: int | None = None,
        indices: NDArray[np.int64] | Sequence[int] | None = None,
        keys: Sequence[str] | None = None,
        applied: int = 0,
    ) -> None:
        self.fields = dict(fields)
        for name, array in self.fields.items():
            if not _usable(name):
                raise ArgumentError(
                    f"Batch: {name!r} cannot name a field; a name is an identifier that does not begin with "
                    f"an underscore, is no keyword and none of {', '.join(sorted(_TAKEN))}"
                )
            if not isinstance(array, np.ndarray):
                raise ArgumentError(
                    f"Batch: field {name!r} must be a numpy array, but is {type(array).__name__}; "
                    "use numpy.asarray"
                )
        self.epoch = epoch
        self.seq = seq
        self.applied = applied
        self._indices = None if indices is None else _as_indices(indices)
        self.keys = None if keys is None else list(keys)
        if self.keys is not None and len(self.keys) != self.size:
            raise ArgumentError(
                f"Batch: {len(self.keys)} keys for {self.size} samples; every sample needs one"
            )

    @property
    def indices(self) -> NDArray[np.int64]:
        """Number of every sample in the data set, int64 of shape (N,)."""
        if self._indices is None:
            size = self.size
            first = (self.seq or 0) * size
            made = np.arange(first, first + size, dtype=np.int64)
            if self.seq is None:
                return made
            self._indices = made
        return self._indices

    @property
    def size(self) -> int:
        """Number of samples: as many as there are indices, or else the length of the first field."""
        if self._indices is not None:
            return len(self._indices)
        for array in self.fields.values():
            return len(array) if array.ndim else 0
        return 0

    @property
    def nbytes(self) -> int:
        """Bytes of all fields."""
        return sum(array.nbytes for array in self.fields.values())

    def replace(
        self,
        *,
        indices: NDArray[np.int64] | Sequence[int] | None = None,
        keys: Sequence[str] | None = None,
        applied: int | None = None,
        **fields: NDArray[Any],
    ) -> Batch:
        """A batch with other arrays and the same identity.

        Parameters
        ----------
        indices, keys : optional
            Given together where samples were left out: those that remain.
        applied : int, optional
            How many transforms the new batch has been through.
        **fields : ndarray
            Arrays that take the place of those of the same name; others come after them.

        Returns
        -------
        Batch
        """
        kept_indices = self._indices if indices is None else indices
        kept_keys = self.keys if keys is None and indices is None else keys
        return Batch(
            {**self.fields, **fields},
            epoch=self.epoch,
            seq=self.seq,
            indices=kept_indices,
            keys=kept_keys,
            applied=self.applied if applied is None else applied,
        )

    def adopt(self, other: Batch) -> None:
        """Take the identity of `other`: what the engine does with a batch that a stage made without one."""
        self.epoch = other.epoch
        self.seq = other.seq
        self.applied = max(self.applied, other.applied)
        if self.size == other.size:
            if self._indices is None:
                self._indices = other.indices
            if self.keys is None:
                self.keys = other.keys

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter(self.fields.values())

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, name: str) -> NDArray[Any]:
        try:
            return self.fields[name]
        except KeyError:
            raise FieldError(
                f"Batch has no field {name!r}; it has {', '.join(self.fields) or 'none'}"
            ) from None

    def __getattr__(self, name: str) -> NDArray[Any]:
        # Only names that are no attributes come here; private ones are asked for by copy and pickle before
        # `fields` is.
        if name[0] != "_" and name not in _TAKEN and name in self.fields:
            return self.fields[name]
        known = (
            "" if name[0] == "_" or name in _TAKEN else f"; its fields are {', '.join(self.fields) or 'none'}"
        )
        raise FieldError(f"Batch has no attribute {name!r}{known}")

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={array.dtype}{list(array.shape)}" for name, array in self.fields.items())
        return f"<Batch {fields}, epoch={self.epoch}, seq={self.seq}>"


_TAKEN = frozenset(name for name in dir(Batch) if not name.startswith("_"))


@lru_cache(maxsize=256)
def _usable(name: object) -> bool:
    if not isinstance(name, str) or name in _TAKEN:
        return False
    return name.isidentifier() and name[0] != "_" and not iskeyword(name)


def _as_indices(indices: NDArray[np.int64] | Sequence[int]) -> NDArray[np.int64]:
    array = np.asarray(indices)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ArgumentError(
            f"Batch: indices must be one whole number a sample, but have shape {array.shape} and dtype "
            f"{array.dtype}"
        )
    return np.ascontiguousarray(array, dtype=np.int64)
