"""Fetcher: has the bytes of samples in memory when they are needed, by fetching those that are announced.

Each request has a thread while it lasts, which gives the bytes to the calls of `take` that wait for them, by a queue
for each, and goes on with the next request. One more thread looks at what is slow, and ends all when `interrupt` says
so: that needs no lock, and may run anywhere. Threads are started in the process that runs the pipeline. What a cache
holds is not fetched: the caller of `take` reads it.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

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
# Seconds between two looks of `take` whether all was interrupted, and of the thread at what is slow.
_LOOK = 0.5
_TICK = 0.1
# Longest wait of `close` for the thread, and of the thread for the requests that are under way, in seconds.
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
        self._window.interrupt()

    def close(self) -> None:
        """End the thread, and wait for its end; what was fetched is written to the cache before."""
        with self._starting:
            thread = self._thread
        other = thread is not None and thread is not threading.current_thread()
        if thread is not None and other and not self._interrupted:
            self._window.finish()
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

    def _call(self, method: Callable[..., object], *arguments: object) -> None:
        """Call a method of the window, whose thread is started if needed."""
        if self._thread is None:
            self._start()
        with self._window.lock:
            method(*arguments)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._window.run, name=f"highway fetcher of {self._owner}", daemon=True
                )
                self._thread.start()

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
    """What is held and asked for.

    Attributes
    ----------
    lock : RLock
        Guards all of it.
    released : callable
        Called with each sample that was announced and released.
    """

    def __init__(
        self, owner: str, ranges: Ranges, max_bytes: int, most: int, cache: WriteBehind | None
    ) -> None:
        self._owner, self._ranges, self._cache = owner, ranges, cache
        self._memory, self._most = SampleMemory(max_bytes), most
        self._longest = min(_LARGEST_REQUEST, max_bytes // _REQUESTS_IN_WINDOW)
        self._requests = Requests(ranges.store, most, self._reserve, self._free)
        self.lock = self._requests.lock
        self._known: dict[int, Object] = {}
        self._entries: dict[int, _Entry] = {}
        self._by_ticket: dict[int, list[int]] = {}
        # (whether nobody waits for it, priority, number): the order in which requests are made.
        self._heap: list[tuple[bool, Priority, int, _Request]] = []
        self._numbers = itertools.count()
        self._held: dict[int, _Request] = {}
        self._asked = 0
        self._writes: set[Future[None]] = set()
        self._takers: set[_Taker] = set()
        self._ends: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopped = self._finishing = False
        self._fetched = self._cached = self._evicted = 0
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

    # Calls of the fetcher, with the lock

    def announce(self, ticket: int, indices: NDArray[np.int64]) -> None:
        self._by_ticket.setdefault(ticket, []).extend(indices.tolist())
        self._need(ticket, indices)
        self._pump()

    def take(self, taker: _Taker, ticket: int, indices: NDArray[np.int64]) -> None:
        self._takers = {one for one in self._takers if not one.over} | {taker}
        if self._stopped:
            taker.end(self._interruption())
            return
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

    # The end

    def finish(self) -> None:
        """Let `run` end as soon as everything is written; nothing more is fetched."""
        with self.lock:
            self._finishing = True
            self._requests.stop()
            if not self._writes:
                self._ends.put(None)

    def interrupt(self) -> None:
        """Let `run` end, and wake those who wait; takes no lock."""
        self._stopped = True
        for taker in [*self._takers]:
            taker.end(self._interruption())
        self._ends.put(None)

    def _interruption(self) -> PipelineStateError:
        return PipelineStateError(f"{self._owner}: the pipeline was stopped while it fetched samples")

    def run(self) -> None:
        """Look at what is slow, until `interrupt` is called or all is finished; wakes everybody at the end."""
        try:
            while not self._stopped:
                with suppress(queue.Empty):
                    self._ends.get(timeout=_TICK)
                    break
                self._requests.look()
        except BaseException as error:
            self._report(error)
            raise
        finally:
            with self.lock:
                self._stopped = True
                self._requests.stop()
                for taker in self._takers:
                    taker.end(self._interruption())
                writes = [*self._writes]
            self._requests.join(_CANCEL)
            wait_for(writes, timeout=_WRITE)
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
        while self._heap and self._asked < self._most and not (self._stopped or self._finishing):
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
        self._asked += 1
        known = self._known.get(request.number) or self._ranges.objects[request.number]
        if request.stop == UNKNOWN or known.size == UNKNOWN:
            # Or somebody states the range, but not the size of the object.
            self._requests.head(known.name, request.priority, partial(self._sized, request))
        else:
            self._get(request, known)

    def _sized(self, request: _Request, found: Object | None, error: BaseException | None) -> None:
        """Note how long an object is, and ask for its bytes."""
        with self._answering(request):
            if found is None:
                self._fail(request, error)
                return
            self._known[request.number] = found
            if request.stop != UNKNOWN:
                self._asked += 1
                self._memory.begin(0)
                self._get(request, found)
                return
            request.stop = found.size
            request.asked_size = True
            urgent = False
            for entry in request.entries.values():
                entry.stop = found.size
                urgent = urgent or bool(entry.waiters)
            request.state = "waits"
            self._push(request, urgent=urgent)

    def _get(self, request: _Request, object: Object) -> None:
        """Ask for the bytes of a range: the cache, if nobody has yet, or the store."""
        try:
            self._check(request, object)
        except HighwayError as error:
            with self._answering(request):
                self._fail(request, error)
            return
        if not request.size:
            self._answered(request, object, [], b"", None)
        elif request.asked_size and self._caches(object):
            assert self._cache is not None
            found = self._cache.get(self._place(object, request.start, request.stop))
            found.add_done_callback(partial(self._looked_up, request, object))
        else:
            self._fetch(request, object)

    def _looked_up(self, request: _Request, object: Object, found: Future[Buffer | None]) -> None:
        """Take bytes that lay in the cache, or fetch them."""
        if found.cancelled():
            return
        with self.lock:
            error, data = found.exception(), None if found.exception() else found.result()
            if error is None and data is None:
                self._fetch(request, object)
                return
            self._cached += 0 if data is None else request.size
        self._answered(request, object, [], data, error)

    def _fetch(self, request: _Request, object: Object) -> None:
        entries = [*request.entries.values()]
        then = partial(self._answered, request, object, entries)
        self._requests.get(object, request.start, request.stop, request.priority, then)

    def _answered(
        self,
        request: _Request,
        object: Object,
        fetched: list[_Entry],
        data: Buffer | None,
        error: BaseException | None,
    ) -> None:
        """Give a range to those who wait for it; to the cache the samples that were fetched."""
        with self._answering(request):
            if data is None:
                self._fail(request, error)
                return
            if fetched:
                self._fetched += request.size
                if self._caches(object):
                    view, start = memoryview(data), request.start
                    self._keep(
                        request,
                        [
                            (
                                self._place(object, entry.start, entry.stop),
                                view[entry.start - start : entry.stop - start],
                            )
                            for entry in fetched
                        ],
                    )
            request.data = memoryview(data)
            request.state = "held"
            self._held[id(request)] = request
            for entry in [*request.entries.values()]:
                if entry.waiters:
                    self._deliver(entry)
            if not request.entries and id(request) in self._held:
                self._let_go(request)

    @contextmanager
    def _answering(self, request: _Request) -> Iterator[None]:
        """Take up an answer with the lock, and make the requests that are next; no answer counts after the end."""
        with self.lock:
            self._asked -= 1
            self._memory.end()
            try:
                yield
                self._pump()
            except BaseException as error:
                # Nobody else would hear of it.
                self._report(error)

    def _report(self, error: BaseException) -> None:
        """Pass on a mistake of Highway, or that there is no memory."""
        with self.lock:
            for taker in self._takers:
                taker.end(error)

    def _caches(self, object: Object) -> bool:
        return self._cache is not None and self._ranges.store.is_cached(object.name)

    def _check(self, request: _Request, object: Object) -> None:
        store = self._ranges.store
        if request.stop > object.size:
            raise store.unreadable(
                object.name, f"it has {object.size} bytes; bytes {request.start} to {request.stop} are needed"
            )
        longest = max((entry.stop - entry.start for entry in request.entries.values()), default=0)
        if longest > LARGEST_FILE:
            raise store.unreadable(object.name, f"has {longest} bytes; allowed are {LARGEST_FILE}")

    def _keep(self, request: _Request, samples: list[tuple[Place, memoryview]]) -> None:
        """Give the samples of a request to the cache, and count its bytes until they are written."""
        assert self._cache is not None
        write = request.write = _Write()
        written = self._cache.put(samples)
        self._writes.add(written)
        written.add_done_callback(partial(self._written, request, write))

    def _written(self, request: _Request, write: _Write, done: Future[None]) -> None:
        with self.lock:
            self._writes.discard(done)
            self._memory.use(-write.owed)
            if request.write is write:
                request.write = None
            if self._finishing and not self._writes:
                self._ends.put(None)
            try:
                if not done.cancelled():
                    done.result()
                self._pump()
            except BaseException as error:
                self._report(error)

    def _fail(self, request: _Request, error: BaseException | None) -> None:
        if not isinstance(error, HighwayError):
            assert error is not None
            raise error
        self._memory.use(-request.size)
        request.state, request.error = "failed", error
        for entry in [*request.entries.values()]:
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
