"""Requests: makes requests of a store; retries what fails, hedges what is slow, and slows down when the store does."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from highway.errors import StorageError
from highway.storage import outages
from highway.storage.object_store import ObjectStore
from highway.storage.objects import Object

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

__all__ = ["Priority", "Requests"]

logger = logging.getLogger("highway.modules")

Answer = TypeVar("Answer")
Priority = tuple[int, ...]
"""Of two requests, the smaller one is made first."""

# Seconds of the first pause after a failure; doubled with each failure in a row.
_SHORTEST, _LONGEST = 0.05, 2.0
# A request fails after so many seconds, and one more for so many bytes.
_PATIENCE, _SLOWEST = 20.0, 256 << 10
# A request is slow if it takes longer than so many times the 95th percentile of others of its size, at least and, as
# long as few are known, at most so many seconds.
_SLOW, _LEAST, _FEW_KNOWN = 3.0, 0.25, 2.0
_KNOWN, _MOST_KNOWN = 16, 128
# Hedges beyond the first few, as a fraction of all requests.
_HEDGES, _FIRST_HEDGES = 0.05, 4
# Outages longer than so many seconds are logged.
_TOLD_AFTER = 1.0


class Requests:
    """Makes requests of one store, in one event loop.

    Random jitter spreads retries, also over machines. After a failure, half as many requests are made at a time; after
    two without a success between them, one, and after pauses of up to 2 s. Each success allows one more.

    Parameters
    ----------
    store : ObjectStore
    most : int
        Most requests at the same time.
    room : callable
        Reserves a connection and memory for a number of bytes if there is room, and returns whether there was. Called
        for hedges: the caller has reserved those of the request itself.
    free : callable
        Frees what `room` has reserved, a number of bytes.

    Attributes
    ----------
    made, retried, hedged : int
        Requests, and those among them that were made after a failure, or beside a slow one.
    """

    def __init__(
        self, store: ObjectStore, most: int, room: Callable[[int], bool], free: Callable[[int], object]
    ) -> None:
        self._store = store
        self._most = most
        self._room, self._free = room, free
        self._allowed = float(most)
        self._active = 0
        self._waiting: list[tuple[Priority, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._failures = 0
        self._failed_at = self._paused_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._outage: float | None = None
        self._told = False
        self._seconds: dict[int, _Durations] = {}
        self.made = self.retried = self.hedged = 0

    async def head(self, name: str, priority: Priority) -> Object:
        """Return size and etag of an object.

        Raises
        ------
        ReadError
        StorageError
            Requests failed for 30 s.
        """
        return await self._retried(lambda: self._store.ask(name), name, 0, priority)

    async def get(self, object: Object, start: int, stop: int, priority: Priority) -> Buffer:
        """Return bytes [start, stop) of an object.

        Raises
        ------
        ReadError, ObjectChangedError
        StorageError
            Requests failed for 30 s.
        """
        return await self._retried(
            lambda: self._store.fetch(object, start, stop), object.name, stop - start, priority
        )

    async def _retried(
        self, call: Callable[[], Coroutine[Any, Any, Answer]], name: str, size: int, priority: Priority
    ) -> Answer:
        loop = asyncio.get_running_loop()
        first: float | None = None
        for tries in itertools.count(1):
            await self._turn(priority)
            self.retried += tries > 1
            began = loop.time()
            try:
                answer = await self._hedged(call, name, size, began)
            except StorageError as error:
                now = loop.time()
                first = began if first is None else first
                self._note_failure(error, began, now)
                if now - first >= outages.LIMIT:
                    raise StorageError(
                        f"{error}; the storage failed: {tries} tries in {now - first:.1f} s. Check the server and the "
                        "network, and start again when they work; no sample was counted as bad"
                    ) from error
            else:
                self._note_success(loop.time())
                return answer
            finally:
                self._leave()
        raise AssertionError

    # How many at a time

    async def _turn(self, priority: Priority) -> None:
        """Wait until this request may be made."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._numbers), turn))
        self._grant()
        await turn

    def _grant(self) -> None:
        """Let the requests that are next begin, as far as they may; after a pause, at its end."""
        loop = asyncio.get_running_loop()
        while self._waiting and self._active < int(self._allowed):
            if loop.time() < self._paused_until:
                if self._timer is None or self._timer.when() < self._paused_until:
                    self._timer = loop.call_at(self._paused_until, self._grant)
                return
            turn = heapq.heappop(self._waiting)[-1]
            if not turn.done():
                self._active += 1
                turn.set_result(None)

    def _leave(self) -> None:
        self._active -= 1
        self._grant()

    def _note_failure(self, error: StorageError, began: float, now: float) -> None:
        if self._outage is None:
            self._outage = now
        if now - self._outage >= _TOLD_AFTER and not self._told:
            self._told = True
            logger.warning("%s; the storage failed; retrying for up to %g s", error, outages.LIMIT)
        # Requests that were under way at the last failure belong to it.
        if began >= self._failed_at:
            self._failures += 1
            self._failed_at = now
            under_way = min(self._allowed, float(self._active))
            # Failures without a success between them: one request finds out when the store is back.
            self._allowed = max(1.0, under_way / 2) if self._failures == 1 else 1.0
        pause = min(_LONGEST, _SHORTEST * 2 ** min(self._failures - 1, 16))
        self._paused_until = max(self._paused_until, now + pause * random.uniform(0.5, 1.0))

    def _note_success(self, now: float) -> None:
        if self._outage is not None:
            if self._told:
                logger.warning(
                    "%s: %s is back after %.1f s", self._store.owner, self._store.url, now - self._outage
                )
            self._outage, self._told = None, False
        self._failures = 0
        self._allowed = min(float(self._most), self._allowed + 1)

    # Slow requests

    async def _hedged(
        self, call: Callable[[], Coroutine[Any, Any, Answer]], name: str, size: int, began: float
    ) -> Answer:
        """Make a request; if it is slow, make it once more, and return the first answer."""
        loop = asyncio.get_running_loop()
        durations = self._seconds.setdefault((size >> 18).bit_length(), _Durations())
        limit = _PATIENCE + size / _SLOWEST
        self.made += 1
        tasks: list[asyncio.Future[Answer]] = [asyncio.ensure_future(call())]
        try:
            await asyncio.wait(tasks, timeout=min(durations.slow, limit))
            if not tasks[0].done():
                with self._second(size) as allowed:
                    if allowed:
                        self.made += 1
                        self.hedged += 1
                        tasks.append(asyncio.ensure_future(call()))
                    await self._first_answer(tasks, began + limit)
            done = [task for task in tasks if task.done()]
            if not done:
                raise self._store.failed(name, f"no answer within {limit:.3g} s")
            answered = [task for task in done if task.exception() is None]
            if answered:
                durations.add(loop.time() - began)
            return (answered or done)[0].result()
        finally:
            for task in tasks:
                if not task.done():
                    task.cancel()
                elif not task.cancelled():
                    # Mark it as seen.
                    task.exception()

    @contextmanager
    def _second(self, size: int) -> Iterator[bool]:
        """Reserve what a hedge needs; yields whether one may be made."""
        allowed = (
            self._outage is None
            and not self._waiting
            and self._active < int(self._allowed)
            and self.hedged < _FIRST_HEDGES + _HEDGES * self.made
            and self._room(size)
        )
        self._active += allowed
        try:
            yield allowed
        finally:
            if allowed:
                self._free(size)
                self._leave()

    async def _first_answer(self, tasks: list[asyncio.Future[Answer]], deadline: float) -> None:
        """Wait until a task has an answer, all have failed, or the time is over."""
        loop = asyncio.get_running_loop()
        waiting: set[Awaitable[Answer]] = {*tasks}
        while waiting and (rest := deadline - loop.time()) > 0:
            done, pending = await asyncio.wait(
                [task for task in tasks if task in waiting],
                timeout=rest,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if any(task.exception() is None for task in done):
                return
            waiting = {*pending}


class _Durations:
    """How long requests of about one size took."""

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=_MOST_KNOWN)
        self._count = 0
        self.slow = _FEW_KNOWN

    def add(self, seconds: float) -> None:
        self._last.append(seconds)
        self._count += 1
        if self._count % _KNOWN == 0:
            usual = sorted(self._last)[len(self._last) * 95 // 100]
            self.slow = max(_LEAST, _SLOW * usual)
