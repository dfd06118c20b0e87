"""Ranges: where the bytes of samples lie, as ranges of the objects of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from highway.storage.objects import ObjectStore

__all__ = ["PREFETCH_BYTES", "UNKNOWN", "Object", "ObjectTable", "Ranges"]

PREFETCH_BYTES = 256 << 20
"""Bytes that are fetched ahead, unless the user says otherwise."""

UNKNOWN = -1
"""Size of an object before anybody has asked for it."""


class Object(NamedTuple):
    """An object of a store, or a local file.

    Attributes
    ----------
    name : str
        Its name in the store, or its path.
    size : int
        In bytes; `UNKNOWN` if it is not known yet.
    etag : str
        Identifies its contents; empty where the store has none.
    """

    name: str
    size: int = UNKNOWN
    etag: str = ""


class ObjectTable(Sequence[Object]):
    """Objects of a store in little memory.

    Parameters
    ----------
    folder : str
        Before every name; empty, or ends with a slash.
    names : sequence of bytes
        Names in the folder; kept, not copied.
    sizes : int64 (N,)
    etags : sequence of str
        Empty if there are none.
    """

    def __init__(
        self, folder: str, names: Sequence[bytes], sizes: NDArray[np.int64], etags: Sequence[str] = ()
    ) -> None:
        assert len(names) == len(sizes) and len(etags) in (0, len(names))
        self.folder, self.names, self.sizes = folder, names, sizes
        # Of fixed width, since those of one store have the same length, or nearly.
        self._etags = np.array([etag.encode() for etag in etags], np.bytes_) if any(etags) else None

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, number: int) -> Object: ...
    @overload
    def __getitem__(self, number: slice) -> list[Object]: ...
    def __getitem__(self, number: int | slice) -> Object | list[Object]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        etag = "" if self._etags is None else self._etags[number].decode()
        name = self.names[number].decode("utf-8", "surrogateescape")
        return Object(self.folder + name, int(self.sizes[number]), etag)


class _Both(Sequence[Object]):
    """Two sequences as one."""

    def __init__(self, first: Sequence[Object], second: Sequence[Object]) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    @overload
    def __getitem__(self, number: int) -> Object: ...
    @overload
    def __getitem__(self, number: slice) -> list[Object]: ...
    def __getitem__(self, number: int | slice) -> Object | list[Object]:
        if isinstance(number, slice):
            return [self[one] for one in range(*number.indices(len(self)))]
        first = len(self._first)
        return self._first[number] if number < first else self._second[number - first]


class Ranges:
    """Where the bytes of N samples lie: sample i is bytes [start, stop) of object number ``which[i]``.

    Parameters
    ----------
    store : ObjectStore
    objects : sequence of Object
    which : int32 (N,)
    start, stop : int64 (N,)
        In bytes. A `stop` of `UNKNOWN` is the end of an object whose size is not known.
    """

    def __init__(
        self,
        store: ObjectStore,
        objects: Sequence[Object],
        which: NDArray[np.int32],
        start: NDArray[np.int64],
        stop: NDArray[np.int64],
    ) -> None:
        assert len(which) == len(start) == len(stop)
        self.store, self.objects = store, objects
        self.which, self.start, self.stop = which, start, stop

    @classmethod
    def of_objects(cls, store: ObjectStore, objects: Sequence[Object]) -> Ranges:
        """Ranges of samples that are whole objects."""
        count = len(objects)
        if isinstance(objects, ObjectTable):
            sizes = objects.sizes
        else:
            sizes = np.fromiter((each.size for each in objects), np.int64, count)
        return cls(store, objects, np.arange(count, dtype=np.int32), np.zeros(count, np.int64), sizes)

    def __len__(self) -> int:
        return len(self.which)

    def followed_by(self, other: Ranges) -> Ranges:
        """Return these ranges and, after them, those of other objects of the same store."""
        return Ranges(
            self.store,
            _Both(self.objects, other.objects),
            np.concatenate([self.which, other.which + len(self.objects)], dtype=np.int32),
            np.concatenate([self.start, other.start]),
            np.concatenate([self.stop, other.stop]),
        )

    def nbytes(self, indices: NDArray[np.int64], unknown: int) -> int:
        """Bytes of some samples; those of unknown size count as `unknown` each."""
        sizes = self.stop[indices] - self.start[indices]
        return int(np.where(sizes < 0, unknown, sizes).sum())
