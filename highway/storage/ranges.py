"""Ranges: where the bytes of samples lie, as ranges of the objects of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from highway.storage.objects import JoinedObjects, Object, ObjectTable

if TYPE_CHECKING:
    from highway.storage.object_store import ObjectStore

__all__ = ["PREFETCH_BYTES", "Ranges"]

PREFETCH_BYTES = 256 << 20
"""Bytes that are fetched ahead, unless the user says otherwise."""


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
            JoinedObjects(self.objects, other.objects),
            np.concatenate([self.which, other.which + len(self.objects)], dtype=np.int32),
            np.concatenate([self.start, other.start]),
            np.concatenate([self.stop, other.stop]),
        )

    def nbytes(self, indices: NDArray[np.int64], unknown: int) -> int:
        """Bytes of some samples; those of unknown size count as `unknown` each."""
        sizes = self.stop[indices] - self.start[indices]
        return int(np.where(sizes < 0, unknown, sizes).sum())
