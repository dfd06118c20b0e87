"""CachedSamples: which samples of a fetcher lie in the cache, and their bytes."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from highway._core.pool import BufferPool
from highway.storage.write_behind import Place, WriteBehind

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["CachedSamples"]


class CachedSamples:
    """Samples that are read from the cache, by the threads that need them, and not fetched.

    A sample that was announced to the fetcher since the cache lacked it is taken from the fetcher, even if it is in the
    cache by then: otherwise the fetcher would keep its bytes.

    Parameters
    ----------
    cache : WriteBehind
    count : int
        Number of samples.
    place : callable
        Returns where the bytes of a sample are, None as long as their number is not known.

    Attributes
    ----------
    nbytes : int
        Bytes that were read from the cache.
    """

    def __init__(self, cache: WriteBehind, count: int, place: Callable[[int], Place | None]) -> None:
        self._cache, self._place = cache, place
        # What was read is likely to be there in the next epoch too: not to look saves a third of the time of reading.
        self._seen = bytearray(count)
        # Made by the first worker: it must not take special memory, as pools of a torch loader do.
        self._pool: BufferPool | None = None
        self.nbytes = 0
        # How often each sample was announced to the fetcher, and not taken yet.
        self._announced: Counter[int] = Counter()
        self._counting = threading.Lock()

    def announced(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the samples that the cache lacks: they will be announced to the fetcher."""
        lacking = indices[[not self._seen[index] and not self._has(index) for index in indices.tolist()]]
        with self._counting:
            self._announced.update(lacking.tolist())
        return lacking

    def forget(self, index: int) -> None:
        """Take back an announcement: the fetcher has dropped the sample."""
        with self._counting:
            self._taken_back(index)

    def read(self, indices: NDArray[np.int64]) -> list[Buffer | None]:
        """Return the bytes of samples; None for those that the fetcher has to give.

        Those of one call lie in one buffer, which the next calls use again when nobody needs it any more: new memory
        costs as much as reading into it.
        """
        numbers = indices.tolist()
        with self._counting:
            rows = [row for row, index in enumerate(numbers) if not self._taken_back(index)]
        placed = [(row, place) for row in rows if (place := self._place(numbers[row])) is not None]
        ends = [*itertools.accumulate(place[3] - place[2] for _, place in placed)]
        at = [0, *ends][:-1]
        with self._counting:
            if self._pool is None:
                self._pool = BufferPool()
            view = self._pool.empty(ends[-1] if ends else 0).data
        there = self._cache.read([place for _, place in placed], at, view)
        contents: list[Buffer | None] = [None] * len(numbers)
        nbytes = 0
        for (row, _), found, start, end in zip(placed, there, at, ends, strict=True):
            if found:
                contents[row] = view[start:end]
                nbytes += end - start
        for index, data in zip(numbers, contents, strict=True):
            self._seen[index] = data is not None
        with self._counting:
            self.nbytes += nbytes
        return contents

    def _has(self, index: int) -> bool:
        place = self._place(index)
        return place is not None and self._cache.has(place)

    def _taken_back(self, index: int) -> bool:
        """Count one announcement less; return whether there was one."""
        announced = self._announced.pop(index, 0)
        if announced > 1:
            self._announced[index] = announced - 1
        return announced > 0
