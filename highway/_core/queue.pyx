"""A bounded queue addressed by ticket: it passes batches between the stages of a pipeline.

Every batch has a ticket, assigned once, in order, at the source. A worker reserves the ticket's cell *before*
it makes the batch, so the bounds include batches in progress. The queue cannot deadlock: the ticket that is
due next is always admitted, and every earlier ticket belongs to a worker that can proceed.

A pthread mutex guards the state. A thread holds it for a few instructions, never while it waits for the GIL
or runs Python code; threads wait without the GIL.
"""

import math
import os
import threading

from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport calloc, free

from highway.errors import ArgumentError, EndOfData, QueueClosed, WaitTimeout


cdef extern from *:
    """
    #include <errno.h>
    #include <pthread.h>
    #include <time.h>

    static double highway_now(void) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    }

    /* Waits use the monotonic clock: a change of the wall clock neither ends nor prolongs them. */
    static int highway_cond_init(pthread_cond_t *cond) {
    #ifdef __APPLE__
        return pthread_cond_init(cond, NULL);
    #else
        pthread_condattr_t attributes;
        int status = pthread_condattr_init(&attributes);
        if (status == 0) {
            status = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
            if (status == 0) status = pthread_cond_init(cond, &attributes);
            pthread_condattr_destroy(&attributes);
        }
        return status;
    #endif
    }

    /* Waits until `until` (seconds of highway_now; negative: no limit); returns 0 on timeout. */
    static int highway_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, double until) {
        if (until < 0) {
            pthread_cond_wait(cond, mutex);
            return 1;
        }
        struct timespec t;
    #ifdef __APPLE__
        double left = until - highway_now();
        if (left <= 0) return 0;
        t.tv_sec = (time_t)left;
        t.tv_nsec = (long)((left - (double)t.tv_sec) * 1e9);
        return pthread_cond_timedwait_relative_np(cond, mutex, &t) != ETIMEDOUT;
    #else
        t.tv_sec = (time_t)until;
        t.tv_nsec = (long)((until - (double)t.tv_sec) * 1e9);
        return pthread_cond_timedwait(cond, mutex, &t) != ETIMEDOUT;
    #endif
    }
    """
    double highway_now() nogil
    int highway_cond_init(pthread_cond_t *cond) nogil
    int highway_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, double until) nogil


cdef extern from "pthread.h" nogil:
    int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)
    int pthread_cond_destroy(pthread_cond_t *cond)
    int pthread_cond_signal(pthread_cond_t *cond)
    int pthread_cond_broadcast(pthread_cond_t *cond)


# States of a cell. GONE: delivered before lower tickets (unordered).
cdef enum:
    FREE = 0
    RESERVED
    READY
    HOLE
    GONE

# Outcomes of a wait.
cdef enum:
    DONE = 0
    TIMED_OUT
    CLOSED
    ENDED
    USED
    BEYOND
    NO_MEMORY

cdef long long NEVER = 0x7fffffffffffffff
# A getter that gives no number.
cdef long long ANYONE = -1
cdef double FOREVER = -1
# Longest time the main thread waits before it checks for signals (Ctrl-C), in seconds.
cdef double SLICE = 0.05
# A longer timeout, in seconds, means no limit: time specifications stay within range.
cdef double LONGEST = 1e9


cdef unsigned long main_thread = threading.main_thread().ident


def _begin_child():
    global main_thread
    main_thread = PyThread_get_thread_ident()


os.register_at_fork(after_in_child=_begin_child)


cdef bint on_main_thread():
    return PyThread_get_thread_ident() == main_thread


cdef class BatchQueue:
    """Ring of batches addressed by ticket, bounded in batches and bytes.

    Parameters
    ----------
    capacity : int
        Maximum number of batches reserved or waiting at a time, 1 or more.
    max_bytes : int
        Maximum bytes of batches that wait or are in progress (estimated by the size of the last batch); 0 for
        no bound. The ticket that is due next is always admitted, and so is any ticket while the queue has
        fewer than `floor` batches.
    floor : int
        See `max_bytes`.
    ordered : bool
        Deliver in order of tickets. If False, deliver whatever is ready, the lowest ticket first.
    start : int
        The first ticket.
    group : int
        Unordered: tickets of one group (`ticket // group`) are delivered before any of the next; 0 for no
        groups.
    window : int
        Unordered: a ticket is admitted while it is less than this far from the lowest undelivered one; at
        least `capacity` and `largest`, 0 for four times that. Consecutive queues need the same window;
        otherwise a batch admitted here could wait for one that is not admitted there.
    hand_out_holes : bool
        `get` returns a hole as ``(ticket, None)`` instead of skipping it, for a getter that forwards holes.
    largest : int
        Maximum capacity for `resize`; 0 for the given capacity.
    ahead : int
        Maximum number of small batches: beyond `capacity`, a ticket is admitted while the queue has fewer than this,
        and at most `ahead_bytes` with it. Threads then wake each other seldom, which costs more than a small batch.
        0 for none.
    ahead_bytes : int
        See `ahead`.

    Raises
    ------
    ArgumentError
        An argument is out of its range.

    Notes
    -----
    Every method may be called from any thread. Signals end waits in the main thread: Ctrl-C raises
    KeyboardInterrupt, without losing a batch. A queue holds references that the garbage collector does
    not follow; `close` drops them.
    """

    def __cinit__(self, capacity, *, max_bytes=0, floor=1, ordered=True, start=0, group=0, window=0,
                  hand_out_holes=False, largest=0, ahead=0, ahead_bytes=0):
        for name, value, least in (
            ("capacity", capacity, 1), ("max_bytes", max_bytes, 0), ("floor", floor, 1), ("start", start, 0),
            ("group", group, 0), ("window", window, 0), ("largest", largest, 0), ("ahead", ahead, 0),
            ("ahead_bytes", ahead_bytes, 0),
        ):
            if value < least:
                raise ArgumentError(f"BatchQueue: {name} must be {least} or more, but is {value}")
        for name, value in (("largest", largest), ("window", window)):
            if 0 < value < capacity:
                raise ArgumentError(
                    f"BatchQueue: {name} must be 0, or {capacity} (capacity) or more, but is {value}"
                )
        for name, value in (("largest", largest), ("ahead", ahead)):
            if 0 < window < value:
                raise ArgumentError(
                    f"BatchQueue: window must be 0, or {value} ({name}) or more, but is {window}"
                )
        largest = max(largest or capacity, ahead)
        self.capacity = capacity
        self.largest = largest
        self.ahead = ahead
        self.ahead_bytes = ahead_bytes
        self.max_bytes = max_bytes
        self.floor = floor
        self.ordered = ordered
        self.base = self.highest = start
        self.total = NEVER
        self.group = group
        self.window = largest if ordered else window or 4 * largest
        self.hand_out_holes = hand_out_holes
        self.cells = <Cell *> calloc(self.window, sizeof(Cell))
        if self.cells == NULL:
            raise MemoryError(f"BatchQueue: no memory for {self.window} cells")
        if pthread_mutex_init(&self.mutex, NULL) or highway_cond_init(&self.items):
            free(self.cells)
            self.cells = NULL
            raise MemoryError("BatchQueue: the system has no mutex or condition variable left")
        self.started = self.clock = highway_now()

    def __dealloc__(self):
        cdef long long i
        if self.cells == NULL:
            return
        for i in range(self.window):
            if self.cells[i].item != NULL:
                Py_DECREF(<object> self.cells[i].item)
        free(self.cells)
        pthread_cond_destroy(&self.items)
        pthread_mutex_destroy(&self.mutex)

    # The methods from here to `wait_room` are called with the mutex held.

    cdef Cell *cell(self, long long ticket) noexcept nogil:
        return &self.cells[ticket % self.window]

    cdef void tick(self) noexcept nogil:
        """Update the statistics before a count that they sum changes. They stop at the end of the data."""
        if self.base >= self.total:
            return
        cdef double now = highway_now()
        cdef double passed = now - self.clock
        self.clock = now
        self.sum_ready += passed * self.ready
        self.sum_waiting_items += passed * self.waiting_items
        self.sum_waiting_room += passed * self.waiting_room

    cdef long long room_now(self) noexcept nogil:
        """Return the bound in batches; more than `capacity` where the last batch was small."""
        if self.ahead <= self.capacity or self.last_nbytes == 0:
            return self.capacity
        return max(self.capacity, min(self.ahead, self.ahead_bytes // self.last_nbytes))

    cdef bint admissible(self, long long ticket) noexcept nogil:
        cdef long long outstanding = self.reserved + self.ready
        cdef long long room = self.room_now()
        cdef long long reach = room if self.ordered else self.window
        # With the batch of this ticket.
        cdef long long nbytes = self.held_bytes + (self.reserved + 1) * self.last_nbytes
        if ticket <= self.base:
            return True
        if ticket >= self.base + reach or outstanding >= room:
            return False
        if outstanding >= self.capacity or (self.ordered and ticket >= self.base + self.capacity):
            if nbytes > self.ahead_bytes:
                return False
        if self.max_bytes == 0 or outstanding < self.floor:
            return True
        return nbytes <= self.max_bytes

    cdef bint first_in_line(self, long long ticket) noexcept nogil:
        """Whether no lower ticket waits for room: a higher one must not take what the lower one waits for."""
        cdef Waiter *waiter = self.waiters
        while waiter != NULL:
            if waiter.ticket < ticket:
                return False
            waiter = waiter.next
        return True

    cdef bint available(self, long long limit, long long *ticket) noexcept nogil:
        """Find the ticket below `limit` that is delivered next."""
        cdef long long t, end = min(limit, self.base + (1 if self.ordered else self.window))
        cdef int state
        if self.group and not self.ordered:
            end = min(end, (self.base // self.group + 1) * self.group)
        for t in range(self.base, end):
            state = self.cell(t).state
            if state == READY or (state == HOLE and self.hand_out_holes):
                ticket[0] = t
                return True
        return False

    cdef bint ended(self, long long limit) noexcept nogil:
        return self.base >= limit or self.base >= self.total

    cdef void advance(self) noexcept nogil:
        """Advance past delivered tickets and holes."""
        cdef Cell *cell = self.cell(self.base)
        while cell.state == GONE or (cell.state == HOLE and not self.hand_out_holes):
            cell.state = FREE
            self.base += 1
            cell = self.cell(self.base)

    cdef void notify_items(self) noexcept nogil:
        """Wake threads that can proceed. A thread that ends its wait calls this too: no wake-up is lost."""
        cdef long long ticket
        if self.waiting_items == 0:
            return
        if self.waiting_limited or self.ended(NEVER):
            pthread_cond_broadcast(&self.items)
        elif self.available(NEVER, &ticket):
            pthread_cond_signal(&self.items)

    cdef void notify_room(self, bint at_once) noexcept nogil:
        """Wake the lowest ticket that waits for room, if there is room; it then wakes the next.

        Unless `at_once`, beyond `capacity` only where a quarter of the room is free: it then makes several batches
        before it waits again.
        """
        cdef Waiter *waiter = self.waiters
        cdef Waiter *lowest = waiter
        cdef long long outstanding = self.reserved + self.ready
        if waiter == NULL:
            return
        while waiter != NULL:
            if waiter.ticket < lowest.ticket:
                lowest = waiter
            waiter = waiter.next
        if not at_once and lowest.ticket > self.base and outstanding >= self.capacity:
            if 4 * outstanding > 3 * self.room_now():
                return
        if self.admissible(lowest.ticket):
            pthread_cond_signal(&lowest.woken)

    cdef PyObject *hand_out(self, long long ticket) noexcept nogil:
        """Take the item, and with it its reference, out of its cell; NULL for a hole."""
        cdef Cell *cell = self.cell(ticket)
        cdef PyObject *item = cell.item
        self.tick()
        if cell.state == READY:
            self.ready -= 1
            self.held_bytes -= cell.nbytes
            self.batches += 1
        self.highest = max(self.highest, ticket + 1)
        cell.item = NULL
        cell.state = GONE
        self.advance()
        self.notify_room(False)
        return item

    cdef int wait_item(self, long long limit, long long reader, double until, bint take, long long *ticket,
                       PyObject **item) noexcept nogil:
        """Wait until an item is ready, and take it if requested."""
        cdef int status
        cdef bint limited = limit != NEVER
        cdef bint more = True
        pthread_mutex_lock(&self.mutex)
        while True:
            if self.closed:
                status = CLOSED
                break
            if reader != ANYONE and reader != self.reader:
                status = ENDED
                break
            if self.available(limit, ticket):
                status = DONE
                if take:
                    item[0] = self.hand_out(ticket[0])
                break
            if self.ended(limit):
                status = ENDED
                break
            if until == 0 or not more:
                status = TIMED_OUT
                break
            self.tick()
            self.waiting_items += 1
            self.waiting_limited += limited
            more = highway_cond_wait(&self.items, &self.mutex, until)
            self.tick()
            self.waiting_items -= 1
            self.waiting_limited -= limited
        self.notify_items()
        pthread_mutex_unlock(&self.mutex)
        return status

    cdef int wait_room(self, long long ticket, double until) noexcept nogil:
        """Wait until the ticket is admitted, and reserve its cell."""
        cdef Waiter waiter
        cdef Waiter **link
        cdef bint more = True
        cdef int status
        pthread_mutex_lock(&self.mutex)
        if not self.closed and not (self.admissible(ticket) and self.first_in_line(ticket)) and until != 0:
            if highway_cond_init(&waiter.woken):
                pthread_mutex_unlock(&self.mutex)
                return NO_MEMORY
            waiter.ticket = ticket
            waiter.next = self.waiters
            self.waiters = &waiter
            self.tick()
            self.waiting_room += 1
            while (
                more
                and not self.closed
                and ticket < self.total
                and not (self.admissible(ticket) and self.first_in_line(ticket))
            ):
                more = highway_cond_wait(&waiter.woken, &self.mutex, until)
            self.tick()
            self.waiting_room -= 1
            link = &self.waiters
            while link[0] != &waiter:
                link = &link[0].next
            link[0] = waiter.next
            pthread_cond_destroy(&waiter.woken)
        if self.closed:
            status = CLOSED
        elif ticket >= self.total:
            status = BEYOND
        elif ticket < self.base or (ticket < self.base + self.window and self.cell(ticket).state != FREE):
            status = USED
        elif self.admissible(ticket) and self.first_in_line(ticket):
            status = DONE
            self.cell(ticket).state = RESERVED
            self.reserved += 1
        else:
            status = TIMED_OUT
        self.notify_room(True)
        pthread_mutex_unlock(&self.mutex)
        return status

    cdef int next_item(self, long long limit, long long reader, double until, bint take, long long *ticket,
                       PyObject **item) except -1:
        """Call `wait_item` for Python: the main thread checks for signals between slices of the wait."""
        cdef int status = self.wait_item(limit, reader, 0, take, ticket, item)
        cdef double step
        cdef bint main
        if status != TIMED_OUT or until == 0:
            return status
        main = on_main_thread()
        while True:
            step = slice_of(until) if main else until
            with nogil:
                status = self.wait_item(limit, reader, step, take, ticket, item)
            if status != TIMED_OUT:
                return status
            if main:
                PyErr_CheckSignals()
            if until > 0 and highway_now() >= until:
                return TIMED_OUT

    cdef int settle(self, long long ticket, int state, PyObject *item, long long nbytes) except -1:
        """Fill the reserved cell of the ticket."""
        cdef Cell *cell
        cdef bint closed
        cdef bint known = False
        pthread_mutex_lock(&self.mutex)
        closed = self.closed
        if not closed and self.base <= ticket < self.base + self.window:
            cell = self.cell(ticket)
            known = cell.state == RESERVED
            if known:
                self.tick()
                self.reserved -= 1
                cell.state = state
                cell.item = item
                cell.nbytes = nbytes
                if state == READY:
                    self.ready += 1
                    self.held_bytes += nbytes
                    self.last_nbytes = nbytes
                else:
                    self.holes += 1
                self.advance()
                self.notify_items()
                self.notify_room(False)
        pthread_mutex_unlock(&self.mutex)
        what = "put" if state == READY else "skip"
        if closed:
            refuse_closed(what)
        if not known:
            raise ArgumentError(
                f"BatchQueue.{what}: ticket {ticket} is not reserved; reserve it, and use it once"
            )
        return 0

    def reserve(self, ticket, block=True, timeout=None):
        """Wait for room for the ticket and reserve it.

        Parameters
        ----------
        ticket : int
            Not yet reserved or delivered, and below the total given to `finish`.
        block : bool
            Wait until there is room.
        timeout : float, optional
            Longest wait in seconds.

        Raises
        ------
        WaitTimeout
            No room within the timeout.
        QueueClosed
        ArgumentError
            The ticket was used before, or is beyond the total.
        """
        cdef long long t = ticket
        cdef double until = deadline(block, timeout)
        cdef int status = self.wait_room(t, 0)
        cdef double step
        cdef bint main
        if status == TIMED_OUT and until != 0:
            main = on_main_thread()
            while True:
                step = slice_of(until) if main else until
                with nogil:
                    status = self.wait_room(t, step)
                if status != TIMED_OUT:
                    break
                if main:
                    PyErr_CheckSignals()
                if until > 0 and highway_now() >= until:
                    break
        if status == USED:
            raise ArgumentError(
                f"BatchQueue.reserve: ticket {t} was used before; every ticket goes through once"
            )
        if status == BEYOND:
            raise ArgumentError(
                f"BatchQueue.reserve: there is no ticket {t}; finish set the total to {self.last_total}"
            )
        if status == NO_MEMORY:
            raise MemoryError("BatchQueue.reserve: the system has no condition variable left")
        if status != DONE:
            refuse(status, "reserve", timeout)

    def put(self, ticket, item, nbytes):
        """Put the item of a reserved ticket; never waits.

        Parameters
        ----------
        ticket : int
        item : object
        nbytes : int
            Size of the item, for the bound in bytes.

        Raises
        ------
        QueueClosed
        ArgumentError
            The ticket is not reserved, or `nbytes` is negative.
        """
        cdef long long size = nbytes
        if size < 0:
            raise ArgumentError(f"BatchQueue.put: nbytes must be 0 or more, but is {size}")
        Py_INCREF(item)
        try:
            self.settle(ticket, READY, <PyObject *> item, size)
        except BaseException:
            Py_DECREF(item)
            raise

    def skip(self, ticket):
        """Skip a reserved ticket: its cell becomes a hole without an item; never waits.

        Raises
        ------
        QueueClosed
        ArgumentError
            The ticket is not reserved.
        """
        self.settle(ticket, HOLE, NULL, 0)

    def finish(self, total):
        """Set the total: the data ends when all tickets below `total` are delivered.

        Raises
        ------
        QueueClosed
        ArgumentError
            A ticket from `total` on was used, or another total was set before.
        """
        cdef long long end = total
        cdef long long t
        cdef bint closed, wrong
        cdef Waiter *waiter
        pthread_mutex_lock(&self.mutex)
        closed = self.closed
        wrong = end < self.base or (self.total != NEVER and self.total != end)
        for t in range(max(end, self.base), self.base + self.window):
            wrong = wrong or self.cell(t).state != FREE
        if not closed and not wrong:
            self.total = end
            self.notify_items()
            waiter = self.waiters
            while waiter != NULL:
                if waiter.ticket >= end:
                    pthread_cond_signal(&waiter.woken)
                waiter = waiter.next
        pthread_mutex_unlock(&self.mutex)
        if closed:
            refuse_closed("finish")
        if wrong:
            raise ArgumentError(
                f"BatchQueue.finish: {end} cannot be the total; tickets from there on were used, or "
                "another total was set"
            )

    def get(self, block=True, timeout=None, before=None, reader=None):
        """Return the next item.

        Parameters
        ----------
        block : bool
            Wait until there is one.
        timeout : float, optional
            Longest wait in seconds.
        before : int, optional
            Take only tickets below this; the end is reached when all of them are delivered.
        reader : int, optional
            Take only while this reader is admitted, see `admit`; the end is reached when another one is.

        Returns
        -------
        ticket : int
        item : object
            None for a hole, only with `hand_out_holes`.

        Raises
        ------
        EndOfData
            Everything (below `before`) is delivered.
        WaitTimeout
            Nothing arrived within the timeout.
        QueueClosed
        """
        cdef PyObject *item = NULL
        cdef long long ticket = 0
        cdef int status = self.next_item(
            NEVER if before is None else <long long> before,
            ANYONE if reader is None else <long long> reader,
            deadline(block, timeout), True, &ticket, &item,
        )
        if status != DONE:
            refuse(status, "get", timeout)
        if item == NULL:
            return ticket, None
        found = <object> item
        Py_DECREF(found)
        return ticket, found

    def peek(self, block=True, timeout=None, reader=None):
        """As `get`, but leave the item in the queue; `take` then takes it unless another thread is faster."""
        cdef PyObject *item = NULL
        cdef long long ticket = 0
        cdef int status
        cdef double until = deadline(block, timeout)
        while True:
            status = self.next_item(
                NEVER, ANYONE if reader is None else <long long> reader, until, False, &ticket, &item
            )
            if status != DONE:
                refuse(status, "peek", timeout)
            # Takes the reference with both locks held: without the GIL, another thread could drop the item
            # first.
            pthread_mutex_lock(&self.mutex)
            if not self.closed and self.available(NEVER, &ticket):
                item = self.cell(ticket).item
                found = None if item == NULL else <object> item
                pthread_mutex_unlock(&self.mutex)
                return ticket, found
            pthread_mutex_unlock(&self.mutex)

    def take(self, ticket, reader=None):
        """Take the item of the ticket that `peek` returned, if it is still the next.

        Returns
        -------
        bool
            False where another thread was faster, or another reader was admitted.

        Raises
        ------
        QueueClosed
        """
        cdef PyObject *item = NULL
        cdef long long t = ticket
        cdef long long asking = ANYONE if reader is None else <long long> reader
        cdef long long following = -1
        cdef bint closed, found
        pthread_mutex_lock(&self.mutex)
        closed = self.closed
        found = not closed and (asking == ANYONE or asking == self.reader)
        found = found and self.base <= t and self.available(t + 1, &following) and following == t
        if found:
            item = self.hand_out(t)
            self.notify_items()
        pthread_mutex_unlock(&self.mutex)
        if closed:
            refuse_closed("take")
        if item != NULL:
            Py_DECREF(<object> item)
        return found

    def admit(self, reader):
        """Admit one reader instead of another: `get` and `peek` end for all other readers, also for those that wait.

        Parameters
        ----------
        reader : int
            0 or more. Before the first call it is 0.
        """
        cdef long long admitted = reader
        pthread_mutex_lock(&self.mutex)
        self.reader = admitted
        pthread_cond_broadcast(&self.items)
        pthread_mutex_unlock(&self.mutex)

    def resize(self, capacity, floor):
        """Change the bounds; items already in the queue stay, even if they exceed the new bounds.

        Parameters
        ----------
        capacity : int
            1 to `largest`.
        floor : int
            1 or more.

        Raises
        ------
        QueueClosed
        ArgumentError
            A bound is out of its range.
        """
        cdef long long most = capacity
        cdef long long least = floor
        cdef bint closed
        if not 1 <= most <= self.largest:
            raise ArgumentError(
                f"BatchQueue.resize: capacity must be 1 to {self.largest} (largest), but is {most}"
            )
        if least < 1:
            raise ArgumentError(f"BatchQueue.resize: floor must be 1 or more, but is {least}")
        pthread_mutex_lock(&self.mutex)
        closed = self.closed
        if not closed:
            self.capacity = most
            self.floor = least
            self.notify_room(True)
        pthread_mutex_unlock(&self.mutex)
        if closed:
            refuse_closed("resize")

    def restart(self, start):
        """Continue with other tickets, where everything was delivered; the statistics go on.

        The time between the end of the data and the restart does not count.

        Parameters
        ----------
        start : int
            The first ticket.

        Raises
        ------
        QueueClosed
        ArgumentError
            `start` is negative, `finish` was not called, or a ticket is still reserved or waits.
        """
        cdef long long first = start
        cdef long long i
        cdef bint closed, over
        cdef double now
        pthread_mutex_lock(&self.mutex)
        closed = self.closed
        over = first >= 0 and self.base >= self.total and self.reserved == 0 and self.waiters == NULL
        if not closed and over:
            for i in range(self.window):
                self.cells[i].state = FREE
            now = highway_now()
            self.started += now - self.clock
            self.clock = now
            self.base = self.highest = first
            self.total = NEVER
        pthread_mutex_unlock(&self.mutex)
        if closed:
            refuse_closed("restart")
        if not over:
            raise ArgumentError(
                f"BatchQueue.restart: {start} cannot be the first ticket now; expected 0 or more, after the end of "
                "the data"
            )

    def close(self):
        """Drop all items and wake all threads with QueueClosed; may be called again."""
        cdef Waiter *waiter
        cdef PyObject *item
        cdef long long i
        cdef bint first
        pthread_mutex_lock(&self.mutex)
        first = not self.closed
        if first:
            self.tick()
            self.closed = True
            self.ready = 0
            self.reserved = 0
            self.held_bytes = 0
            waiter = self.waiters
            while waiter != NULL:
                pthread_cond_signal(&waiter.woken)
                waiter = waiter.next
            pthread_cond_broadcast(&self.items)
        pthread_mutex_unlock(&self.mutex)
        if not first:
            return
        # No thread reads the cells of a closed queue, so they need no mutex; destructors that run here may
        # call its methods.
        for i in range(self.window):
            item = self.cells[i].item
            self.cells[i].item = NULL
            if item != NULL:
                Py_DECREF(<object> item)

    def measures(self):
        """Return the statistics of the queue; also after `close`.

        Returns
        -------
        dict
            `seconds` from when the queue was made to the end of the data, or to now; `waited_room` and
            `waited_items`, seconds that threads waited to reserve and to get (of all threads together);
            `occupancy`, batches that waited on average over time; `batches` delivered; `holes`; `held`
            and `reserved`, batches now; `held_bytes`; `reserving` and `getting`, threads that wait now.
        """
        cdef double seconds, room, items, ready
        cdef long long batches, holes, held, reserved, held_bytes, waiting_room, waiting_items
        # Copied first: creating Python objects may run the garbage collector, and with it code that calls
        # this queue.
        pthread_mutex_lock(&self.mutex)
        if not self.closed:
            self.tick()
        seconds = self.clock - self.started
        room, items, ready = self.sum_waiting_room, self.sum_waiting_items, self.sum_ready
        batches, holes = self.batches, self.holes
        held, reserved, held_bytes = self.ready, self.reserved, self.held_bytes
        waiting_room, waiting_items = self.waiting_room, self.waiting_items
        pthread_mutex_unlock(&self.mutex)
        return {
            "seconds": seconds,
            "waited_room": room,
            "waited_items": items,
            "occupancy": ready / seconds if seconds > 0 else 0.0,
            "batches": batches,
            "holes": holes,
            "held": held,
            "reserved": reserved,
            "held_bytes": held_bytes,
            "reserving": waiting_room,
            "getting": waiting_items,
        }

    @property
    def room(self):
        """Number of batches that it may have now: `capacity`, or more of small ones."""
        cdef long long room
        pthread_mutex_lock(&self.mutex)
        room = self.room_now()
        pthread_mutex_unlock(&self.mutex)
        return room

    @property
    def next_ticket(self):
        """Lowest ticket that is not delivered yet and not known to be a hole."""
        cdef long long base
        pthread_mutex_lock(&self.mutex)
        base = self.base
        pthread_mutex_unlock(&self.mutex)
        return base

    @property
    def reached(self):
        """One past the highest delivered ticket; the first ticket while none is delivered."""
        cdef long long highest
        pthread_mutex_lock(&self.mutex)
        highest = self.highest
        pthread_mutex_unlock(&self.mutex)
        return highest

    @property
    def last_total(self):
        """The total given to `finish`, or None."""
        cdef long long total
        pthread_mutex_lock(&self.mutex)
        total = self.total
        pthread_mutex_unlock(&self.mutex)
        return None if total == NEVER else total

    def __repr__(self):
        order = "ordered" if self.ordered else "unordered"
        return f"<BatchQueue {order}, {self.ready} of {self.capacity}, next ticket {self.next_ticket}>"


cdef double slice_of(double until) noexcept:
    """Return the end of the next slice of a wait."""
    cdef double end = highway_now() + SLICE
    return end if until < 0 else min(end, until)


cdef double deadline(block, timeout) except? -2:
    """Return the time until which a call may wait: 0 for no wait, -1 for no limit."""
    cdef double seconds
    if not block:
        return 0
    if timeout is None:
        return FOREVER
    seconds = timeout
    if math.isnan(seconds) or seconds < 0:
        raise ArgumentError(f"timeout must be 0 seconds or more, or None, but is {timeout}")
    if seconds == 0:
        return 0
    return FOREVER if seconds > LONGEST else highway_now() + seconds


cdef int refuse_closed(what) except -1:
    raise QueueClosed(f"BatchQueue.{what}: the queue was closed; its pipeline has stopped or failed")


cdef int refuse(int status, what, timeout) except -1:
    """Raise the error for the outcome of a wait."""
    if status == CLOSED:
        refuse_closed(what)
    if status == ENDED:
        raise EndOfData(f"BatchQueue.{what}: everything was delivered")
    raise WaitTimeout(f"BatchQueue.{what}: nothing arrived within {timeout or 0:g} s")
