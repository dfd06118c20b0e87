"""Fetcher: has the bytes of samples in memory when they are needed, by fetching those that are announced.

One thread with an event loop, started in the process that runs the pipeline, does everything; other threads talk to it
through calls that it takes up, and through a queue for each `take`. So `interrupt` needs no lock, and may run anywhere.
What a cache holds is not fetched, and the thread has nothing to do with it: the caller of `take` reads it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from highway.errors import HighwayError, PipelineStateError, ReadError
from highway.storage.cached_samples import CachedSamples
from highway.storage.files import LARGEST_FILE
from highway.storage.objects import UNKNOWN, Object
from highway.storage.ranges import PREFETCH_BYTES, Ranges
from highway.storage.requests import Priority, Requests
from highway.storage.sample_memory import SampleMemory
from highway.storage.write_behind import Place, WriteBehind

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from highway.storage.cache import Cache

__all__ = ["Fetcher"]

# Ranges of one object with no more bytes between them are fetched together, up to so many bytes.
_GAP = 64 << 10
_LARGEST_REQUEST = 8 << 20
# As many of these fit into the window at least.
_REQUESTS_IN_WINDOW = 4
# Seconds between two looks whether the thread still runs.
_LOOK = 0.5
# Longest wait of `close` for the thread, and of the thread for its requests, in seconds.
_CLOSE = 5.0
_CANCEL = 0.5
# Longest wait for the disk of the cache, before what was not written is dropped: of `close`, and after `interrupt`.
_FINISH = 5.0
_WRITE = 1.0


class Fetcher:
    """Fetches ranges before they are needed; one for each run of a source.

    `announce` says what is needed next, `take` returns it, and waits if it is not there yet. What is fetched or asked
    for but not taken needs at most `max_bytes`, as `SampleMemory` counts; a single range may need more. Samples are
    fetched in the order of their tickets. What was not announced, `take` fetches at once.

    Parameters
    ----------
    owner : str
        Name of the reader, for errors.
    ranges : Ranges
    max_bytes : int
    max_requests : int, optional
        Most requests at the same time; by default as many as the store allows.
    cache : Cache, optional
        Gets each sample that is fetched, by itself: so a later epoch finds it, whatever its order. It is written after
        the sample was delivered; until then its bytes count as fetched but not taken.
    """

    def __init__(
        self,
        owner: str,
        ranges: Ranges,
        *,
        max_bytes: int = PREFETCH_BYTES,
        max_requests: int | None = None,
        cache: Cache | None = None,
    ) -> None:
        self._owner = owner
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._interrupted = False
        behind = None if cache is None else WriteBehind(cache)
        self._window = _Window(owner, ranges, max_bytes, max_requests or ranges.store.most_requests, behind)
        self._cached: CachedSamples | None = None
        if behind is not None:
            self._cached = CachedSamples(behind, len(ranges), self._window.place)
            self._window.released = self._cached.forget

    def announce(self, ticket: int, indices: NDArray[np.int64]) -> None:
        """Fetch these samples, after those of smaller tickets; returns at once.

        A sample that is announced twice must be taken twice, or released.
        """
        if self._interrupted:
            return
        if self._cached is not None:
            indices = self._cached.announced(indices)
        if len(indices):
            self._call(self._window.announce, ticket, indices.copy())

    def take(
        self, ticket: int, indices: NDArray[np.int64]
    ) -> tuple[list[Buffer | None], dict[int, HighwayError]]:
        """Return the bytes of samples; waits until they are there.

        Parameters
        ----------
        ticket : int
            Of the batch that needs them; they may have been announced with another one.
        indices : int64 (N,)

        Returns
        -------
        contents : list of buffer or None
            None where there is an error.
        errors : dict of int to HighwayError
            ReadErrors, by row, of what cannot be read however often one tries.

        Raises
        ------
        StorageError
            The store failed for more than 30 s.
        ObjectChangedError
            An object is not the one that was listed.
        PipelineStateError
            `interrupt` was called.
        """
        contents: list[Buffer | None] = [None] * len(indices)
        if self._cached is not None:
            contents = self._cached.read(indices)
        rows = [row for row, data in enumerate(contents) if data is None]
        if not rows:
            return contents, {}
        taker = _Taker(len(rows))
        if not self._interrupted:
            self._call(self._window.take, taker, ticket, indices[rows])
        self._wait(taker)
        for row, data in zip(rows, taker.contents, strict=True):
            contents[row] = data
        return contents, {rows[row]: error for row, error in taker.errors.items()}

    def release(self, ticket: int) -> None:
        """Drop what was announced with a ticket and not taken."""
        if not self._interrupted:
            self._call(self._window.release, ticket)

    def interrupt(self) -> None:
        """End the thread, and wake everybody who waits in `take`. Takes no lock, and does not wait."""
        self._interrupted = True
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(self._window.stop)

    def close(self) -> None:
        """End the thread, and wait for its end; what was fetched is written to the cache before."""
        with self._starting:
            thread, loop = self._thread, self._loop
        other = thread is not None and thread is not threading.current_thread()
        if thread is not None and loop is not None and other and not self._interrupted:
            with suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(self._window.finish)
            thread.join(_FINISH)
        self.interrupt()
        if thread is not None and other:
            thread.join(_CLOSE)

    def measures(self) -> dict[str, int]:
        """Return figures of this run.

        Returns
        -------
        dict
            "requests", and those among them that were "retried" or "hedged"; "fetched" and "cached": bytes from the
            store and from the cache; "held" and "most_held": bytes in memory or asked for, now and at most; "evicted":
            bytes that were dropped before they were taken, to make room for others; "waiting": calls of `take` that
            wait.
        """
        found = self._window.measures()
        if self._cached is not None:
            found["cached"] += self._cached.nbytes
        return found

    def _call(self, method: object, *arguments: object) -> None:
        """Run a method of the window in the thread, which is started if needed."""
        loop = self._loop or self._started()
        with suppress(RuntimeError):  # it has ended
            loop.call_soon_threadsafe(method, *arguments)  # type: ignore[arg-type]

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run,
                    args=(loop, self._window),
                    name=f"highway fetcher of {self._owner}",
                    daemon=True,
                )
                self._thread.start()
                self._loop = loop
            loop = self._loop
        # `interrupt` may have found no loop yet.
        if self._interrupted:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._window.stop)
        return loop

    def _wait(self, taker: _Taker) -> None:
        while not self._interrupted:
            try:
                error = taker.ready.get(timeout=_LOOK)
            except queue.Empty:
                continue
            if error is None:
                return
            raise error
        raise PipelineStateError(f"{self._owner}: the pipeline was stopped while it fetched samples")


class _Taker:
    """A call of `take`.

    Attributes
    ----------
    missing : int
        Samples that are not there yet.
    ready : SimpleQueue
        Gets None when all are there, or the error to raise.
    over : bool
        Whether it got either.
    """

    def __init__(self, count: int) -> None:
        self.contents: list[Buffer | None] = [None] * count
        self.errors: dict[int, HighwayError] = {}
        self.missing = count
        self.ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self.over = False

    def put(self, row: int, data: Buffer | None, error: BaseException | None) -> None:
        if self.over:
            return
        if error is not None and not isinstance(error, ReadError):
            self.end(error)
            return
        self.contents[row] = data
        if isinstance(error, ReadError):
            self.errors[row] = error
        self.missing -= 1
        if not self.missing:
            self.end(None)

    def end(self, error: BaseException | None) -> None:
        if not self.over:
            self.over = True
            self.ready.put(error)


class _Entry:
    """A sample that is needed: with the tickets that announced it, and the calls that wait for it."""

    __slots__ = ("index", "request", "start", "stop", "tickets", "waiters")

    def __init__(self, index: int, start: int, stop: int, ticket: int) -> None:
        self.index, self.start, self.stop = index, start, stop
        self.tickets = [ticket]
        self.waiters: list[tuple[_Taker, int]] = []
        self.request: _Request


class _Request:
    """A range that is fetched at once, for one sample or more.

    It waits (in the heap), is asked for, then held, until all of its entries are taken; or it has failed.
    """

    __slots__ = (
        "asked_size",
        "data",
        "entries",
        "error",
        "number",
        "priority",
        "start",
        "state",
        "stop",
        "write",
    )

    def __init__(self, number: int, start: int, stop: int, priority: Priority, entries: list[_Entry]) -> None:
        self.number, self.start, self.stop = number, start, stop
        self.priority = priority
        self.entries = {entry.index: entry for entry in entries}
        self.state = "waits"
        self.asked_size = False
        self.data: memoryview | None = None
        self.error: HighwayError | None = None
        self.write: _Write | None = None
        for entry in entries:
            entry.request = self

    @property
    def size(self) -> int:
        return max(0, self.stop - self.start)

    def fit(self) -> None:
        """Shrink the range to the entries that are still needed."""
        self.start = min(entry.start for entry in self.entries.values())
        self.stop = max(entry.stop for entry in self.entries.values())


class _Write:
    """Bytes of a request that are being written to the cache.

    Attributes
    ----------
    owed : int
        Bytes to free at the end, since the request was let go before.
    """

    __slots__ = ("owed",)

    def __init__(self) -> None:
        self.owed = 0


class _Window:
    """What is held and asked for. All of it belongs to the thread."""

    def __init__(
        self, owner: str, ranges: Ranges, max_bytes: int, most: int, cache: WriteBehind | None
    ) -> None:
        self._owner, self._ranges, self._cache = owner, ranges, cache
        self._memory, self._most = SampleMemory(max_bytes), most
        self._longest = min(_LARGEST_REQUEST, max_bytes // _REQUESTS_IN_WINDOW)
        self._requests = Requests(ranges.store, most, self._reserve, self._free)
        self._known: dict[int, Object] = {}
        self._entries: dict[int, _Entry] = {}
        self._by_ticket: dict[int, list[int]] = {}
        # (whether nobody waits for it, priority, number): the order in which requests are made.
        self._heap: list[tuple[bool, Priority, int, _Request]] = []
        self._numbers = itertools.count()
        self._held: dict[int, _Request] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writes: set[asyncio.Future[None]] = set()
        self._takers: set[_Taker] = set()
        self._end: asyncio.Future[None] | None = None
        self._stopped = self._finishing = False
        self._fetched = self._cached = self._evicted = 0
        # Called with each sample that was announced and released.
        self.released: Callable[[int], object] = lambda index: None

    def measures(self) -> dict[str, int]:
        made = self._requests
        return {
            "requests": made.made,
            "retried": made.retried,
            "hedged": made.hedged,
            "fetched": self._fetched,
            "cached": self._cached,
            "held": self._memory.used,
            "most_held": self._memory.most_used,
            "evicted": self._evicted,
            "waiting": sum(not taker.over for taker in [*self._takers]),
        }

    def place(self, index: int) -> Place | None:
        """Return what the cache calls a sample, None if it has no place there; any thread may ask."""
        ranges = self._ranges
        number = int(ranges.which[index])
        object = self._known.get(number) or ranges.objects[number]
        start, stop = int(ranges.start[index]), int(ranges.stop[index])
        if object.size == UNKNOWN or not ranges.store.is_cached(object.name):
            return None
        return self._place(object, start, object.size if stop == UNKNOWN else stop)

    def _place(self, object: Object, start: int, stop: int) -> Place:
        return self._ranges.store.identity_of(object.name), object, start, stop

    # Calls from other threads

    def announce(self, ticket: int, indices: NDArray[np.int64]) -> None:
        self._by_ticket.setdefault(ticket, []).extend(indices.tolist())
        self._need(ticket, indices)
        self._pump()

    def take(self, taker: _Taker, ticket: int, indices: NDArray[np.int64]) -> None:
        self._takers = {one for one in self._takers if not one.over} | {taker}
        # A sample that comes twice here needs two announcements.
        wanted: dict[int, int] = {}
        for index in indices.tolist():
            wanted[index] = wanted.get(index, 0) + 1
        lacking = [
            index
            for index, count in wanted.items()
            for _ in range(count - (len(self._entries[index].tickets) if index in self._entries else 0))
        ]
        if lacking:
            self._need(ticket, np.array(lacking, np.int64))
        for row, index in enumerate(indices.tolist()):
            self._wait_for(self._entries[index], taker, row, ticket)
        self._pump()

    def release(self, ticket: int) -> None:
        for index in self._by_ticket.pop(ticket, ()):
            entry = self._entries.get(index)
            if entry is not None and ticket in entry.tickets:
                entry.tickets.remove(ticket)
                self._drop_if_unneeded(entry)
                self.released(index)
        self._pump()

    def fail(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle an error of Highway itself in a call from another thread: nobody waits any longer."""
        error = context.get("exception")
        if error is None or "handle" not in context:
            loop.default_exception_handler(context)
            return
        for taker in self._takers:
            taker.end(error)

    def finish(self) -> None:
        """Let `run` end as soon as everything is written; nothing more is fetched."""
        self._finishing = True
        for task in self._tasks:
            task.cancel()
        if not self._writes:
            self.stop()

    def stop(self) -> None:
        """Let `run` end."""
        self._stopped = True
        if self._end is not None and not self._end.done():
            self._end.set_result(None)

    async def run(self) -> None:
        """Run until `stop` is called; wakes everybody at the end."""
        self._end = asyncio.get_running_loop().create_future()
        try:
            if not self._stopped:
                await self._end
        finally:
            stopped = PipelineStateError(f"{self._owner}: the pipeline was stopped while it fetched samples")
            for taker in self._takers:
                taker.end(stopped)
            for task in self._tasks:
                task.cancel()
            # With the requests of these tasks, which they cancel themselves.
            end = time.monotonic() + _CANCEL
            while (left := asyncio.all_tasks() - {asyncio.current_task()}) and time.monotonic() < end:
                await asyncio.wait(left, timeout=_CANCEL)
            if self._writes:
                await asyncio.wait(self._writes, timeout=_WRITE)
            if self._cache is not None:
                self._cache.close()

    # Entries

    def _need(self, ticket: int, indices: NDArray[np.int64]) -> None:
        """Add samples, and requests for those that are new."""
        ranges = self._ranges
        new: list[tuple[int, _Entry, int]] = []
        columns = (indices, ranges.which[indices], ranges.start[indices], ranges.stop[indices])
        for place, (index, number, start, stop) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True)
        ):
            entry = self._entries.get(index)
            if entry is not None:
                entry.tickets.append(ticket)
                continue
            if stop == UNKNOWN and number in self._known:
                stop = self._known[number].size
            entry = self._entries[index] = _Entry(index, start, stop, ticket)
            new.append((number, entry, place))
        for request in _joined(new, ticket, self._longest):
            self._push(request)

    def _push(self, request: _Request, *, urgent: bool = False) -> None:
        heapq.heappush(self._heap, (not urgent, request.priority, next(self._numbers), request))

    def _wait_for(self, entry: _Entry, taker: _Taker, row: int, ticket: int) -> None:
        entry.tickets.remove(ticket if ticket in entry.tickets else entry.tickets[0])
        entry.waiters.append((taker, row))
        request = entry.request
        if request.state == "held" or (request.state == "failed" and isinstance(request.error, ReadError)):
            self._deliver(entry)
        elif request.state == "failed":
            # It failed while nobody waited; the storage may be back.
            request.state, request.error = "waits", None
            self._push(request, urgent=True)
        elif request.state == "waits":
            self._push(request, urgent=True)

    def _deliver(self, entry: _Entry) -> None:
        """Give a sample to everybody who waits for it."""
        request = entry.request
        data = None
        if request.data is not None:
            data = request.data[entry.start - request.start : entry.stop - request.start]
            if len(request.data) > len(data):
                # A view would keep the whole range in memory, uncounted, until its batch is made.
                data = memoryview(bytes(data))
        for taker, row in entry.waiters:
            taker.put(row, data, request.error)
        entry.waiters.clear()
        self._drop_if_unneeded(entry)

    def _drop_if_unneeded(self, entry: _Entry) -> None:
        if entry.tickets or entry.waiters:
            return
        request = entry.request
        del self._entries[entry.index], request.entries[entry.index]
        if not request.entries and request.state == "held":
            self._let_go(request)

    def _let_go(self, request: _Request) -> None:
        del self._held[id(request)]
        if request.write is None:
            self._memory.use(-request.size)
        else:
            request.write.owed, request.write = request.size, None
        request.data = None

    # Requests

    def _reserve(self, nbytes: int) -> bool:
        """Count a hedge, if there is room for it."""
        memory = self._memory
        if not (memory.may_connect() and memory.has_room(nbytes, len(self._entries))):
            return False
        memory.begin(nbytes)
        return True

    def _free(self, nbytes: int) -> None:
        """Take a hedge back that was counted."""
        self._memory.use(-nbytes)
        self._memory.end()

    def _pump(self) -> None:
        """Make the requests that are next, as far as there is room."""
        while self._heap and len(self._tasks) < self._most:
            patient, _, _, request = self._heap[0]
            if request.state != "waits" or not request.entries:
                heapq.heappop(self._heap)
                continue
            if not self._memory.may_connect():
                return
            if not patient and not self._has_room(request):
                self._evict(request)
            if not self._has_room(request):
                return
            heapq.heappop(self._heap)
            self._ask(request)

    def _has_room(self, request: _Request) -> bool:
        return self._memory.has_room(request.size, len(self._entries))

    def _evict(self, wanted: _Request) -> None:
        """Drop what is held for the latest tickets, and fetch it again later, until a request has room."""
        for request in sorted(self._held.values(), key=lambda one: one.priority, reverse=True):
            if self._has_room(wanted):
                return
            if request.write is not None:
                # It would free nothing now.
                continue
            self._evicted += request.size
            self._let_go(request)
            request.fit()
            request.state = "waits"
            self._push(request)

    def _ask(self, request: _Request) -> None:
        request.state = "asked"
        self._memory.begin(request.size)
        task = asyncio.get_running_loop().create_task(self._answered(request))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._memory.end()
        if task.cancelled() or self._finishing:
            return
        self._report(task.exception())
        self._pump()

    def _report(self, error: BaseException | None) -> None:
        """Pass on a mistake of Highway, or that there is no memory."""
        if error is not None:
            for taker in self._takers:
                taker.end(error)

    async def _answered(self, request: _Request) -> None:
        """Fetch a range, and give it to those who wait for it."""
        number = request.number
        known = self._known.get(number) or self._ranges.objects[number]
        try:
            if request.stop == UNKNOWN:
                await self._ask_size(request, known)
                return
            if known.size == UNKNOWN:
                # Somebody states the range, but not the size.
                known = self._known[number] = await self._requests.head(known.name, request.priority)
            self._check(request, known)
            data = await self._bytes(request, known) if request.size else b""
        except HighwayError as error:
            self._fail(request, error)
            return
        request.data = memoryview(data)
        request.state = "held"
        self._held[id(request)] = request
        for entry in list(request.entries.values()):
            if entry.waiters:
                self._deliver(entry)
        if not request.entries and id(request) in self._held:
            self._let_go(request)

    async def _ask_size(self, request: _Request, known: Object) -> None:
        """Find how long an object is, and make a request for its bytes."""
        found = self._known[request.number] = await self._requests.head(known.name, request.priority)
        request.stop = found.size
        request.asked_size = True
        urgent = False
        for entry in request.entries.values():
            entry.stop = found.size
            urgent = urgent or bool(entry.waiters)
        request.state = "waits"
        self._push(request, urgent=urgent)

    def _check(self, request: _Request, object: Object) -> None:
        store = self._ranges.store
        if request.stop > object.size:
            raise store.unreadable(
                object.name, f"it has {object.size} bytes; bytes {request.start} to {request.stop} are needed"
            )
        longest = max((entry.stop - entry.start for entry in request.entries.values()), default=0)
        if longest > LARGEST_FILE:
            raise store.unreadable(object.name, f"has {longest} bytes; allowed are {LARGEST_FILE}")

    async def _bytes(self, request: _Request, object: Object) -> Buffer:
        start, stop = request.start, request.stop
        entries = list(request.entries.values())
        caches = self._cache is not None and self._ranges.store.is_cached(object.name)
        if caches and request.asked_size:
            # It can be found only now.
            assert self._cache is not None
            kept = await asyncio.wrap_future(self._cache.get(self._place(object, start, stop)))
            if kept is not None:
                self._cached += stop - start
                return kept
        data = await self._requests.get(object, start, stop, request.priority)
        self._fetched += stop - start
        if caches:
            view = memoryview(data)
            self._keep(
                request,
                [
                    (
                        self._place(object, entry.start, entry.stop),
                        view[entry.start - start : entry.stop - start],
                    )
                    for entry in entries
                ],
            )
        return data

    def _keep(self, request: _Request, samples: list[tuple[Place, memoryview]]) -> None:
        """Give the samples of a request to the cache, and count its bytes until they are written."""
        assert self._cache is not None
        write = request.write = _Write()
        written = asyncio.wrap_future(self._cache.put(samples))
        self._writes.add(written)
        written.add_done_callback(lambda done: self._written(done, request, write))

    def _written(self, done: asyncio.Future[None], request: _Request, write: _Write) -> None:
        self._writes.discard(done)
        self._memory.use(-write.owed)
        if request.write is write:
            request.write = None
        if not done.cancelled():
            self._report(done.exception())
        if not self._finishing:
            self._pump()
        elif not self._writes:
            self.stop()

    def _fail(self, request: _Request, error: HighwayError) -> None:
        self._memory.use(-request.size)
        request.state, request.error = "failed", error
        for entry in list(request.entries.values()):
            if entry.waiters:
                self._deliver(entry)


def _joined(new: Iterable[tuple[int, _Entry, int]], ticket: int, longest: int) -> list[_Request]:
    """Requests of up to `longest` bytes for samples: (number of the object, entry, place in the announcement)."""
    requests: list[_Request] = []
    parts: list[_Entry] = []
    number, place, stop = -1, 0, 0

    def close() -> None:
        if parts:
            requests.append(_Request(number, parts[0].start, stop, (ticket, place), list(parts)))

    for object_number, entry, at in sorted(new, key=lambda one: (one[0], one[1].start)):
        known = entry.stop != UNKNOWN
        if (
            parts
            and known
            and object_number == number
            and entry.start <= stop + _GAP
            and max(stop, entry.stop) - parts[0].start <= longest
        ):
            parts.append(entry)
            place, stop = min(place, at), max(stop, entry.stop)
            continue
        close()
        parts.clear()
        parts.append(entry)
        number, place, stop = object_number, at, entry.stop
    close()
    return requests


def _run(loop: asyncio.AbstractEventLoop, window: _Window) -> None:
    """Run the event loop of a fetcher until it is stopped."""
    asyncio.set_event_loop(loop)
    loop.set_exception_handler(window.fail)
    try:
        loop.run_until_complete(window.run())
    finally:
        loop.close()
