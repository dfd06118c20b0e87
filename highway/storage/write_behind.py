"""WriteBehind: adds samples to a cache after they were delivered, so that nobody waits for its disk."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from highway.storage.objects import Object

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from highway.storage.cache import Cache

__all__ = ["Place", "WriteBehind"]

Place = tuple[str, Object, int, int]
"""Identity of the store, the object, and bytes [start, stop) of it."""

_THREADS = 4


class WriteBehind:
    """A cache that also has what is still being written to it.

    What was not written when the process ends is not in the cache, and is fetched again. The caller bounds the bytes.

    Parameters
    ----------
    cache : Cache
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        # Reads do not wait for writes.
        self._readers, self._writers = (ThreadPoolExecutor(_THREADS, "highway cache") for _ in range(2))
        self._lock = threading.Lock()
        self._writing: dict[Place, memoryview] = {}

    def has(self, place: Place) -> bool:
        """Return whether bytes are there; they may leave before they are read."""
        with self._lock:
            if place in self._writing:
                return True
        return self._cache.has(*place)

    def read(self, places: Sequence[Place], at: Sequence[int], into: memoryview) -> list[bool]:
        """Copy several ranges into memory, the first byte of each to its place; return whether each was there."""
        with self._lock:
            writing = [self._writing.get(place) for place in places] if self._writing else []
        found = [False] * len(places)
        for number, data in enumerate(writing):
            if data is not None:
                into[at[number] : at[number] + len(data)] = data
                found[number] = True
        rest = [number for number, there in enumerate(found) if not there]
        if rest:
            there = self._cache.read(
                [places[number] for number in rest], [at[number] for number in rest], into
            )
            for number, one in zip(rest, there, strict=True):
                found[number] = one
        return found

    def get(self, place: Place) -> Future[Buffer | None]:
        """Read bytes in another thread; None if they are not there."""
        return self._readers.submit(self._get, place)

    def _get(self, place: Place) -> Buffer | None:
        with self._lock:
            found = self._writing.get(place)
        return self._cache.get(*place) if found is None else found

    def put(self, samples: Sequence[tuple[Place, memoryview]]) -> Future[None]:
        """Add samples, in another thread; returns at once. They are there from now on."""
        with self._lock:
            self._writing.update(samples)
        return self._writers.submit(self._put, samples)

    def _put(self, samples: Sequence[tuple[Place, memoryview]]) -> None:
        for place, contents in samples:
            try:
                self._cache.put(*place, contents)
            finally:
                with self._lock:
                    self._writing.pop(place, None)

    def close(self) -> None:
        """Drop what nobody writes yet, and wait for the samples that are being written."""
        for pool in (self._writers, self._readers):
            pool.shutdown(cancel_futures=True)
