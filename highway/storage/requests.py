"""Requests: makes requests of a store; retries what fails, hedges what is slow, and slows down when the store does."""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from highway.errors import StorageError
from highway.storage import outages
from highway.storage.object_store import ObjectStore
from highway.storage.objects import Object

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Priority", "Requests"]

logger = logging.getLogger("highway.modules")

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
# Before all others.
_FIRST: Priority = ()


class Requests:
    """Makes requests of one store, each in a thread of its own while it lasts.

    A thread that has an answer makes the next request. With an event loop, or a thread that hands out the work, a
    request needs up to twice the processor time.

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
    lock : RLock
        Held during the calls of `room` and `free`, which may change what the caller guards with it too.
    made, retried, hedged : int
        Requests, and those among them that were made after a failure, or beside a slow one.
    """

    def __init__(
        self,
        store: ObjectStore,
        most: int,
        room: Callable[[int], bool],
        free: Callable[[int], object],
    ) -> None:
        self._store = store
        self._most = most
        self.lock = threading.RLock()
        self._room, self._free = room, free
        self._allowed = float(most)
        self._active = 0
        # (priority, number, call, number of its try for hedges, else 0)
        self._waiting: list[tuple[Priority, int, _Call, int]] = []
        self._numbers = itertools.count()
        # Threads that wait for a request, and those that will look for one without being woken.
        self._work = threading.Condition(self.lock)
        self._idle = self._looking = 0
        # One thread waits for the end of a pause.
        self._pause = threading.Condition(self.lock)
        self._pausing = False
        # Threads that make a request, with those whose answer nobody needs.
        self._quiet = threading.Condition(self.lock)
        self._busy = 0
        self._under_way: set[_Attempt] = set()
        self._stopped = False
        self._failures = 0
        self._failed_at = self._paused_until = 0.0
        self._outage: float | None = None
        self._told = False
        self._seconds: dict[int, _Durations] = {}
        self.made = self.retried = self.hedged = 0

    def head(
        self, name: str, priority: Priority, then: Callable[[Any, BaseException | None], object]
    ) -> None:
        """Ask for size and etag of an object; returns at once.

        Parameters
        ----------
        name : str
        priority : tuple of int
        then : callable
            Called once, in another thread, which does not have the lock, with the `Object` and None, or with None and
            the error: a ReadError, or a StorageError if requests failed for 30 s. Not called after `stop`.
        """
        self._submit(_Call(partial(self._store.ask_now, name), name, 0, priority, then))

    def get(
        self,
        object: Object,
        start: int,
        stop: int,
        priority: Priority,
        then: Callable[[Any, BaseException | None], object],
    ) -> None:
        """Ask for bytes [start, stop) of an object, as `head` does; the error may be an ObjectChangedError too."""
        read = partial(self._store.read_now, object, start, stop)
        self._submit(_Call(read, object.name, stop - start, priority, then))

    def look(self) -> None:
        """Hedge what is slow, and give up what takes too long. To be called many times a second."""
        settled = []
        with self.lock:
            now = time.monotonic()
            for attempt in [*self._under_way]:
                call = attempt.call
                if not call.attempts or attempt is not call.attempts[0]:
                    continue
                seconds, limit = now - call.began, _PATIENCE + call.size / _SLOWEST
                if seconds >= limit:
                    error = self._store.failed(call.name, f"no answer within {limit:.3g} s")
                    self._note_failure(error, call.began, now)
                    if self._failed(call, error, now):
                        settled.append(call)
                elif seconds >= self._durations(call.size).slow:
                    self._hedge(call)
            self._wake()
        for call in settled:
            call.then(None, call.error)

    def stop(self) -> None:
        """Begin no request any more, and drop the answers of those that are under way; they end by themselves."""
        with self.lock:
            self._stopped = True
            self._waiting.clear()
            self._work.notify_all()
            self._pause.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait until no request is under way, after `stop`; return whether none is."""
        with self._quiet:
            return self._quiet.wait_for(lambda: not self._busy, seconds)

    # Threads

    def _submit(self, call: _Call, tries: int = 0) -> None:
        with self.lock:
            if self._stopped:
                return
            priority = _FIRST if tries else call.priority
            heapq.heappush(self._waiting, (priority, next(self._numbers), call, tries))
            self._wake()

    def _wake(self) -> None:
        """Have a thread for each request that may begin."""
        if self._pausing or self._stopped:
            return
        startable = min(len(self._waiting), int(self._allowed) - self._active)
        while self._looking < startable:
            if self._idle:
                self._idle -= 1
                self._work.notify()
            else:
                try:
                    threading.Thread(target=self._run, name="highway-request", daemon=True).start()
                except RuntimeError:
                    # The system allows no more threads: those that there are make all requests.
                    if not (self._looking or self._active):
                        raise
                    return
            self._looking += 1

    def _run(self) -> None:
        going_on = True
        while going_on:
            with self.lock:
                # This thread takes one of the requests that may begin.
                self._wake()
                attempt = self._next()
            if attempt is None:
                return
            going_on = self._made(attempt)
            # An answer must not stay in memory while this thread waits.
            del attempt

    def _next(self) -> _Attempt | None:
        """Return the next request that may begin, after waiting for it; None at the end. The caller has the lock."""
        self._looking -= 1
        while not self._stopped:
            if self._waiting and self._active < int(self._allowed):
                now = time.monotonic()
                if now >= self._paused_until:
                    found = self._begun(now)
                    if found is not None:
                        return found
                    continue
                if not self._pausing:
                    self._pausing = True
                    self._pause.wait(self._paused_until - now)
                    self._pausing = False
                    self._looking += 1
                    self._wake()
                    self._looking -= 1
                    continue
            self._idle += 1
            self._work.wait()
            self._looking -= 1
        return None

    def _begun(self, now: float) -> _Attempt | None:
        """Take the first request that waits; None if nobody needs it any more."""
        _, _, call, tries = heapq.heappop(self._waiting)
        if tries and not (call.attempts and call.tries == tries):
            return None
        attempt = _Attempt(call, now)
        if not tries:
            call.began = now
            call.tries += 1
            self.retried += call.tries > 1
        call.attempts.append(attempt)
        self._under_way.add(attempt)
        self._active += 1
        self._busy += 1
        self.made += 1
        return attempt

    def _made(self, attempt: _Attempt) -> bool:
        """Make a request; return whether its thread makes more: others have replaced one that was given up."""
        answer, error = None, None
        try:
            answer = attempt.call.ask()
        except BaseException as raised:
            error = raised
        call = attempt.call
        with self.lock:
            self._busy -= 1
            if self._stopped and not self._busy:
                self._quiet.notify_all()
            if attempt not in call.attempts:
                return False
            self._looking += 1
            settled = self._ended(attempt, error) and not self._stopped
        if settled:
            call.then(answer, call.error)
        return True

    def _ended(self, attempt: _Attempt, error: BaseException | None) -> bool:
        """Note how an attempt ended; return whether its call is over."""
        call, now = attempt.call, time.monotonic()
        if isinstance(error, StorageError):
            self._note_failure(error, attempt.began, now)
            if len(call.attempts) > 1:
                # The other one may have an answer.
                self._leave(attempt)
                return False
            return self._failed(call, error, now)
        if error is None:
            self._note_success(now)
            self._durations(call.size).add(now - call.began)
        self._give_up(call)
        call.error = error
        return True

    def _failed(self, call: _Call, error: StorageError, now: float) -> bool:
        """Try again after a failure; return False, or True if a call has failed for too long."""
        first = call.failing_since = call.began if call.failing_since is None else call.failing_since
        self._give_up(call)
        if now - first < outages.LIMIT:
            self._submit(call)
            return False
        call.error = StorageError(
            f"{error}; the storage failed: {call.tries} tries in {now - first:.1f} s. Check the server and the "
            "network, and start again when they work; no sample was counted as bad"
        )
        call.error.__cause__ = error
        return True

    def _give_up(self, call: _Call) -> None:
        """End a try: the answers of what is still under way do not count."""
        for attempt in [*call.attempts]:
            self._leave(attempt)
        if call.hedged:
            call.hedged = False
            self._free(call.size)

    def _leave(self, attempt: _Attempt) -> None:
        attempt.call.attempts.remove(attempt)
        self._under_way.discard(attempt)
        self._active -= 1

    # How many at a time

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

    def _durations(self, size: int) -> _Durations:
        return self._seconds.setdefault((size >> 18).bit_length(), _Durations())

    def _hedge(self, call: _Call) -> None:
        """Make a slow request once more, if there is room for it; the first answer counts."""
        if (
            not call.hedged
            and self._outage is None
            and not self._waiting
            and self._active < int(self._allowed)
            and self.hedged < _FIRST_HEDGES + _HEDGES * self.made
            and self._room(call.size)
        ):
            call.hedged = True
            self.hedged += 1
            self._submit(call, call.tries)


class _Call:
    """What is asked for, until it is answered.

    Attributes
    ----------
    tries : int
        Without hedges.
    began : float
        When the latest try began.
    attempts : list of _Attempt
        Those under way whose answers count.
    hedged : bool
        Whether the try has a hedge, for which room is reserved.
    failing_since : float or None
        When the first try that failed began.
    error : BaseException or None
        How the call ended.
    """

    __slots__ = (
        "ask",
        "attempts",
        "began",
        "error",
        "failing_since",
        "hedged",
        "name",
        "priority",
        "size",
        "then",
        "tries",
    )

    def __init__(
        self,
        ask: Callable[[], Object | Buffer],
        name: str,
        size: int,
        priority: Priority,
        then: Callable[[Any, BaseException | None], object],
    ) -> None:
        self.ask, self.name, self.size, self.priority, self.then = ask, name, size, priority, then
        self.tries = 0
        self.began = 0.0
        self.attempts: list[_Attempt] = []
        self.hedged = False
        self.failing_since: float | None = None
        self.error: BaseException | None = None


class _Attempt:
    """A request under way, and when it began."""

    __slots__ = ("began", "call")

    def __init__(self, call: _Call, began: float) -> None:
        self.call, self.began = call, began


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
