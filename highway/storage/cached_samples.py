"""CachedSamples: which samples of a fetcher lie in the cache, and their bytes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from highway.storage.ranges import Object

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from highway.storage.cache import Cache

__all__ = ["CachedSamples", "Place"]

Place = tuple[str, Object, int, int]
"""Identity of the store, the object, and bytes [start, stop) of it."""


class CachedSamples:
    """Samples that are read from the cache, by the threads that need them, and not fetched.

    A sample that was announced to the fetcher since the cache lacked it is taken from the fetcher, even if it is in the
    cache by then: otherwise the fetcher would keep its bytes.

    Parameters
    ----------
    cache : Cache
    place : callable
        Returns where the bytes of a sample are, None as long as their number is not known.

    Attributes
    ----------
    nbytes : int
        Bytes that were read from the cache.
    """

    def __init__(self, cache: Cache, place: Callable[[int], Place | None]) -> None:
        self._cache, self._place = cache, place
        self.nbytes = 0
        # How often each sample was announced to the fetcher, and not taken yet.
        self._announced: Counter[int] = Counter()
        self._counting = threading.Lock()

    def announced(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the samples that the cache lacks: they will be announced to the fetcher."""
        lacking = indices[[not self._has(index) for index in indices.tolist()]]
        with self._counting:
            self._announced.update(lacking.tolist())
        return lacking

    def read(self, indices: NDArray[np.int64]) -> list[Buffer | None]:
        """Return the bytes of samples; None for those that the fetcher has to give."""
        found = [self._one(index) for index in indices.tolist()]
        with self._counting:
            self.nbytes += sum(len(one) for one in found if one is not None)
        return list(found)

    def _has(self, index: int) -> bool:
        place = self._place(index)
        return place is not None and self._cache.has(*place)

    def _one(self, index: int) -> memoryview | None:
        with self._counting:
            announced = self._announced.pop(index, 0)
            if announced > 1:
                self._announced[index] = announced - 1
        place = None if announced else self._place(index)
        return None if place is None else self._cache.get(*place)
