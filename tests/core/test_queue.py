"""BatchQueue: tickets, bounds, holes, the end, closing; against a plain Python model; under contention."""

from __future__ import annotations

import gc
import math
import random
import signal
import subprocess
import sys
import threading
import weakref

import pytest
from concurrency import LIMIT, Task, eventually
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from repository import HELPERS

from highway._core.queue import BatchQueue
from highway.errors import ArgumentError, EndOfData, QueueClosed, WaitTimeout


def put(queue, ticket, item=None, nbytes=0):
    queue.reserve(ticket, block=False)
    queue.put(ticket, f"item {ticket}" if item is None else item, nbytes)


def tickets(queue, **arguments):
    """Tickets of all that can be got now."""
    found = []
    while True:
        try:
            found.append(queue.get(block=False, **arguments)[0])
        except (EndOfData, WaitTimeout):
            return found


class Thing:
    """Something that weak references and reference counts can watch."""


# Order


def test_items_come_in_order_of_tickets_whatever_order_they_arrive_in():
    queue = BatchQueue(4)
    for ticket in (2, 0, 3, 1):
        put(queue, ticket)
    assert [queue.get() for _ in range(4)] == [(ticket, f"item {ticket}") for ticket in range(4)]


def test_ordered_queue_holds_back_what_is_not_due():
    queue = BatchQueue(4)
    put(queue, 1)
    with pytest.raises(WaitTimeout):
        queue.get(block=False)
    put(queue, 0)
    assert tickets(queue) == [0, 1]


def test_unordered_queue_hands_out_what_is_there_lowest_first():
    queue = BatchQueue(4, ordered=False)
    put(queue, 3)
    put(queue, 1)
    assert tickets(queue) == [1, 3]
    put(queue, 0)
    put(queue, 2)
    assert tickets(queue) == [0, 2]
    assert queue.next_ticket == 4


def test_unordered_queue_does_not_cross_groups():
    queue = BatchQueue(8, ordered=False, group=3)
    for ticket in (4, 2, 3, 1):
        put(queue, ticket)
    assert tickets(queue) == [1, 2]
    put(queue, 0)
    assert tickets(queue) == [0, 3, 4]


def test_groups_are_counted_from_ticket_zero_wherever_the_queue_starts():
    queue = BatchQueue(8, ordered=False, group=3, start=5)
    put(queue, 6)
    assert tickets(queue) == []
    put(queue, 5)
    assert tickets(queue) == [5, 6]


def test_start_is_the_first_ticket():
    queue = BatchQueue(2, start=10**12)
    with pytest.raises(ArgumentError, match="used before"):
        queue.reserve(10**12 - 1)
    put(queue, 10**12)
    assert queue.get()[0] == 10**12


# Room


def test_ordered_ticket_is_admitted_while_less_than_capacity_ahead():
    queue = BatchQueue(3)
    queue.reserve(2, block=False)
    with pytest.raises(WaitTimeout):
        queue.reserve(3, block=False)
    put(queue, 0)
    with pytest.raises(WaitTimeout):
        queue.reserve(3, block=False)
    queue.get()
    queue.reserve(3, block=False)


def test_unordered_room_counts_batches():
    queue = BatchQueue(2, ordered=False)
    put(queue, 5)
    queue.reserve(3, block=False)
    with pytest.raises(WaitTimeout):
        queue.reserve(4, block=False)
    assert queue.get() == (5, "item 5")
    queue.reserve(4, block=False)


def test_due_ticket_is_always_admitted():
    for queue in (BatchQueue(2, ordered=False), BatchQueue(2, ordered=False, max_bytes=1)):
        for ticket in (1, 2):
            queue.reserve(ticket, block=False)
            queue.put(ticket, "", 0)
        queue.reserve(0, block=False)


def test_unordered_window_bounds_how_far_ahead_a_ticket_is():
    queue = BatchQueue(1, ordered=False, window=3)
    put(queue, 2)
    queue.get()
    with pytest.raises(WaitTimeout):
        queue.reserve(3, block=False)
    put(queue, 0)
    queue.get()
    put(queue, 3)
    assert tickets(queue) == [3]
    assert BatchQueue(2, ordered=False).reserve(7, block=False) is None
    with pytest.raises(WaitTimeout):
        BatchQueue(2, ordered=False).reserve(8, block=False)


def test_bytes_bound_what_waits_and_what_is_in_the_making():
    queue = BatchQueue(10, max_bytes=100)
    put(queue, 0, nbytes=30)
    put(queue, 1, nbytes=30)
    queue.reserve(2, block=False)
    with pytest.raises(WaitTimeout):
        queue.reserve(3, block=False)
    queue.put(2, "", 10)
    # The last one was smaller: 70 bytes wait, and there is room for three more of its size.
    for ticket in (3, 4, 5):
        queue.reserve(ticket, block=False)
    with pytest.raises(WaitTimeout):
        queue.reserve(6, block=False)


def test_bytes_never_refuse_the_floor():
    queue = BatchQueue(10, max_bytes=1, floor=3)
    put(queue, 0, nbytes=50)
    put(queue, 1, nbytes=50)
    queue.reserve(2, block=False)
    with pytest.raises(WaitTimeout):
        queue.reserve(3, block=False)


def test_room_comes_back_with_the_bytes():
    queue = BatchQueue(10, max_bytes=100)
    put(queue, 0, nbytes=100)
    waiting = Task(queue.reserve, 1)
    eventually(lambda: queue.measures()["reserving"] == 1)
    queue.get()
    waiting.result()


def test_lowest_waiting_ticket_gets_the_room():
    queue = BatchQueue(10, max_bytes=100)
    put(queue, 0, nbytes=50)
    put(queue, 1, nbytes=50)
    third = Task(queue.reserve, 3)
    eventually(lambda: queue.measures()["reserving"] == 1)
    second = Task(queue.reserve, 2)
    eventually(lambda: queue.measures()["reserving"] == 2)
    queue.get()
    second.result()
    assert queue.measures()["reserving"] == 1
    queue.get()
    third.result()


def test_higher_ticket_does_not_push_in():
    """Not even in the moment between the coming of room and the waking of the lower ticket that waits for it."""
    for _ in range(50):
        queue = BatchQueue(10, max_bytes=100)
        put(queue, 0, nbytes=50)
        put(queue, 1, nbytes=50)
        waiting = Task(queue.reserve, 2)
        eventually(lambda queue=queue: queue.measures()["reserving"] == 1)
        queue.get()
        with pytest.raises(WaitTimeout):
            queue.reserve(3, block=False)
        waiting.result()


@pytest.mark.parametrize("ordered", [True, False])
def test_larger_capacity_lets_those_in_who_wait(ordered):
    queue = BatchQueue(2, ordered=ordered, largest=4)
    for ticket in range(2):
        put(queue, ticket)
    waiting = [Task(queue.reserve, ticket) for ticket in (2, 3, 4)]
    eventually(lambda: queue.measures()["reserving"] == 3)
    queue.resize(4, 1)
    for task in waiting[:2]:
        task.result()
    assert (queue.measures()["reserving"], queue.measures()["reserved"]) == (1, 2)
    queue.get()
    waiting[2].result()


def test_higher_floor_lets_those_in_who_wait():
    queue = BatchQueue(4, max_bytes=1)
    put(queue, 0, nbytes=100)
    waiting = Task(queue.reserve, 1)
    eventually(lambda: queue.measures()["reserving"])
    queue.resize(4, 2)
    waiting.result()


def test_smaller_capacity_keeps_what_is_there():
    queue = BatchQueue(4)
    for ticket in range(4):
        put(queue, ticket)
    queue.resize(1, 1)
    for ticket in range(4):
        with pytest.raises(WaitTimeout):
            queue.reserve(4, block=False)
        assert queue.get(block=False)[0] == ticket
    queue.reserve(4, block=False)
    with pytest.raises(WaitTimeout):
        queue.reserve(5, block=False)


@pytest.mark.parametrize(
    ("capacity", "floor", "name"), [(0, 1, "capacity"), (5, 1, "capacity"), (1, 0, "floor")]
)
def test_resize_refuses_what_cannot_be(capacity, floor, name):
    with pytest.raises(ArgumentError, match=f"resize: {name} must be"):
        BatchQueue(2, largest=4).resize(capacity, floor)


# Holes


def test_hole_moves_the_ring_on():
    queue = BatchQueue(1)
    queue.reserve(0)
    queue.skip(0)
    put(queue, 1)
    assert queue.get() == (1, "item 1")
    assert queue.measures()["holes"] == 1


def test_hole_before_waiting_items_sets_them_free():
    queue = BatchQueue(3)
    put(queue, 1)
    put(queue, 2)
    getting = Task(queue.get)
    eventually(lambda: queue.measures()["getting"] == 1)
    queue.reserve(0)
    queue.skip(0)
    assert getting.result()[0] == 1


def test_holes_are_handed_out_where_asked_for():
    queue = BatchQueue(3, hand_out_holes=True)
    put(queue, 0)
    queue.reserve(1)
    queue.skip(1)
    put(queue, 2)
    assert [queue.get() for _ in range(3)] == [(0, "item 0"), (1, None), (2, "item 2")]


# The end


def test_end_comes_when_everything_was_handed_out():
    queue = BatchQueue(4)
    put(queue, 0)
    queue.reserve(1)
    queue.finish(2)
    assert queue.get()[0] == 0
    with pytest.raises(WaitTimeout):
        queue.get(block=False)
    queue.put(1, "", 0)
    assert queue.get()[0] == 1
    for _ in range(2):
        with pytest.raises(EndOfData):
            queue.get()
    assert queue.last_total == 2


def test_end_after_holes():
    queue = BatchQueue(4)
    queue.finish(2)
    for ticket in range(2):
        queue.reserve(ticket)
        queue.skip(ticket)
    with pytest.raises(EndOfData):
        queue.get()


def test_finish_wakes_every_getter():
    queue = BatchQueue(4)
    getters = [Task(queue.get) for _ in range(3)]
    eventually(lambda: queue.measures()["getting"] == 3)
    queue.finish(0)
    for getter in getters:
        with pytest.raises(EndOfData):
            getter.result()


def test_last_item_wakes_every_getter():
    queue = BatchQueue(4)
    queue.finish(1)
    getters = [Task(queue.get) for _ in range(3)]
    eventually(lambda: queue.measures()["getting"] == 3)
    put(queue, 0)
    outcomes = []
    for getter in getters:
        try:
            outcomes.append(getter.result()[0])
        except EndOfData:
            outcomes.append("end")
    assert sorted(map(str, outcomes)) == ["0", "end", "end"]


def test_no_ticket_beyond_the_end():
    queue = BatchQueue(1)
    put(queue, 0)
    waiting = Task(queue.reserve, 1)
    eventually(lambda: queue.measures()["reserving"] == 1)
    assert queue.last_total is None
    queue.finish(1)
    with pytest.raises(ArgumentError, match="finish set the total to 1"):
        waiting.result()
    with pytest.raises(ArgumentError, match="no ticket 5"):
        queue.reserve(5)


def test_finish_refuses_what_cannot_be():
    queue = BatchQueue(4)
    put(queue, 0)
    queue.reserve(2)
    with pytest.raises(ArgumentError, match="2 cannot be the total"):
        queue.finish(2)
    queue.finish(3)
    queue.finish(3)
    with pytest.raises(ArgumentError, match="4 cannot be the total"):
        queue.finish(4)
    queue.get()
    with pytest.raises(ArgumentError, match="0 cannot be the total"):
        BatchQueue(4, start=1).finish(0)


def test_get_before_ends_at_the_ticket_and_leaves_the_rest():
    queue = BatchQueue(4)
    for ticket in range(3):
        put(queue, ticket)
    assert tickets(queue, before=2) == [0, 1]
    with pytest.raises(EndOfData):
        queue.get(before=2)
    assert queue.get()[0] == 2


def test_get_before_does_not_wait_for_what_comes_after():
    queue = BatchQueue(4)
    put(queue, 0)
    queue.get()
    ending = Task(lambda: queue.get(before=2))
    other = Task(queue.get)
    eventually(lambda: queue.measures()["getting"] == 2)
    queue.reserve(1)
    queue.skip(1)
    with pytest.raises(EndOfData):
        ending.result()
    put(queue, 2)
    assert other.result()[0] == 2


def test_wake_up_reaches_the_one_who_can_use_it():
    """Among several that wait, those who stop at ticket 1 must not swallow the wake-up for ticket 1."""
    queue = BatchQueue(4, ordered=False)
    limited = [Task(lambda: queue.get(before=1)) for _ in range(3)]
    eventually(lambda: queue.measures()["getting"] == 3)
    free = Task(queue.get)
    eventually(lambda: queue.measures()["getting"] == 4)
    put(queue, 1)
    assert free.result()[0] == 1
    put(queue, 0)
    outcomes = []
    for task in limited:
        try:
            outcomes.append(task.result()[0])
        except EndOfData:
            outcomes.append("end")
    assert sorted(map(str, outcomes)) == ["0", "end", "end"]


# Peeking


def test_peek_leaves_the_item_and_take_takes_it():
    queue = BatchQueue(4)
    put(queue, 0)
    assert queue.peek() == queue.peek() == (0, "item 0")
    assert queue.take(0)
    assert not queue.take(0)
    assert not queue.take(1)
    assert queue.next_ticket == 1


def test_take_refuses_what_is_not_next():
    queue = BatchQueue(4)
    put(queue, 1)
    assert not queue.take(1)
    put(queue, 0)
    assert not queue.take(1)
    assert queue.take(0)
    assert queue.take(1)


def test_peek_waits_and_ends_as_get_does():
    queue = BatchQueue(4)
    with pytest.raises(WaitTimeout):
        queue.peek(block=False)
    with pytest.raises(WaitTimeout):
        queue.peek(timeout=0.001)
    peeking = Task(queue.peek)
    eventually(lambda: queue.measures()["getting"] == 1)
    put(queue, 0)
    assert peeking.result() == (0, "item 0")
    queue.finish(1)
    queue.take(0)
    with pytest.raises(EndOfData):
        queue.peek()


def test_peek_hands_the_wake_up_on():
    queue = BatchQueue(4)
    peeking = [Task(queue.peek) for _ in range(3)]
    eventually(lambda: queue.measures()["getting"] == 3)
    put(queue, 0)
    assert [task.result()[0] for task in peeking] == [0, 0, 0]


# Readers


def test_only_the_admitted_reader_takes():
    queue = BatchQueue(4)
    for ticket in range(3):
        put(queue, ticket)
    assert queue.get(reader=0) == (0, "item 0")
    queue.admit(7)
    for call in (queue.get, queue.peek):
        with pytest.raises(EndOfData):
            call(reader=0)
    assert not queue.take(1, 0)
    assert queue.peek(reader=7) == (1, "item 1")
    assert queue.take(1, 7)
    # Who gives no number takes any item.
    assert queue.get() == (2, "item 2")


@pytest.mark.parametrize("before", [None, 2])
def test_readers_that_wait_end_when_another_is_admitted(before):
    queue = BatchQueue(4)
    late = [Task(lambda: queue.get(before=before, reader=0)) for _ in range(3)]
    late.append(Task(lambda: queue.peek(reader=0)))
    eventually(lambda: queue.measures()["getting"] == 4)
    queue.admit(1)
    for task in late:
        with pytest.raises(EndOfData):
            task.result()
    taking = Task(lambda: queue.get(reader=1))
    put(queue, 0)
    assert taking.result() == (0, "item 0")


# Closing


def test_close_wakes_everybody():
    queue = BatchQueue(2)
    queue.reserve(0)
    tasks = [
        Task(queue.get),
        Task(queue.peek),
        Task(lambda: queue.get(timeout=LIMIT)),
        Task(queue.reserve, 2),
    ]
    eventually(lambda: queue.measures()["getting"] == 3 and queue.measures()["reserving"] == 1)
    queue.close()
    for task in tasks:
        with pytest.raises(QueueClosed):
            task.result()


@pytest.mark.parametrize(
    "call",
    [
        lambda queue: queue.get(),
        lambda queue: queue.get(block=False),
        lambda queue: queue.peek(),
        lambda queue: queue.take(0),
        lambda queue: queue.reserve(5),
        lambda queue: queue.reserve(0),
        lambda queue: queue.put(1, "", 0),
        lambda queue: queue.skip(1),
        lambda queue: queue.finish(9),
        lambda queue: queue.resize(2, 1),
    ],
)
def test_closed_queue_refuses_every_method(call):
    queue = BatchQueue(4)
    put(queue, 0)
    queue.reserve(1)
    queue.close()
    queue.close()
    with pytest.raises(QueueClosed, match="was closed"):
        call(queue)
    assert queue.measures()["held"] == 0
    assert "BatchQueue" in repr(queue)


def test_close_drops_the_items():
    queue = BatchQueue(4)
    thing = Thing()
    watch = weakref.ref(thing)
    put(queue, 0, thing)
    del thing
    assert watch() is not None
    queue.close()
    assert watch() is None


def test_destructor_of_an_item_may_call_the_closing_queue():
    queue = BatchQueue(4)
    seen = []

    class Caller:
        def __del__(self):
            queue.close()
            seen.append(queue.measures()["held"])

    put(queue, 0, Caller())
    put(queue, 1, Caller())
    queue.close()
    assert seen == [0, 0]


def test_queue_that_is_dropped_drops_its_items():
    queue = BatchQueue(4)
    thing = Thing()
    watch = weakref.ref(thing)
    put(queue, 0, thing)
    del thing, queue
    gc.collect()
    assert watch() is None


def test_reference_counts_are_right():
    thing = Thing()
    before = sys.getrefcount(thing)
    queue = BatchQueue(4)
    put(queue, 0, thing)
    assert sys.getrefcount(thing) == before + 1
    queue.peek()
    assert sys.getrefcount(thing) == before + 1
    queue.get()
    assert sys.getrefcount(thing) == before
    put(queue, 1, thing)
    queue.take(1)
    assert sys.getrefcount(thing) == before
    with pytest.raises(ArgumentError):
        queue.put(1, thing, 0)
    assert sys.getrefcount(thing) == before
    put(queue, 2, thing)
    queue.close()
    with pytest.raises(QueueClosed):
        queue.put(3, thing, 0)
    assert sys.getrefcount(thing) == before


# Misuse and limits of waiting


def test_every_ticket_goes_through_once():
    queue = BatchQueue(4)
    queue.reserve(0)
    for wrong in (lambda: queue.reserve(0), lambda: queue.put(1, "", 0), lambda: queue.skip(1)):
        with pytest.raises(ArgumentError):
            wrong()
    queue.put(0, "", 0)
    for wrong in (lambda: queue.reserve(0), lambda: queue.put(0, "", 0), lambda: queue.skip(0)):
        with pytest.raises(ArgumentError):
            wrong()
    queue.get()
    for wrong in (lambda: queue.reserve(0), lambda: queue.put(0, "", 0), lambda: queue.put(10**15, "", 0)):
        with pytest.raises(ArgumentError):
            wrong()


def test_ticket_that_passes_while_its_twin_waits_is_an_error_not_a_hang():
    queue = BatchQueue(1)
    put(queue, 0)
    twins = [Task(queue.reserve, 1) for _ in range(2)]
    eventually(lambda: queue.measures()["reserving"] == 2)
    queue.get()
    outcomes = []
    for twin in twins:
        try:
            outcomes.append(twin.result())
        except ArgumentError:
            outcomes.append("refused")
    assert sorted(map(str, outcomes)) == ["None", "refused"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"capacity": 0},
        {"capacity": 1, "max_bytes": -1},
        {"capacity": 1, "floor": 0},
        {"capacity": 1, "start": -1},
        {"capacity": 1, "group": -1},
        {"capacity": 4, "window": 3},
        {"capacity": 4, "largest": 3},
        {"capacity": 1, "largest": -1},
        {"capacity": 2, "largest": 6, "window": 5},
    ],
)
def test_arguments_out_of_range_are_named(arguments):
    name = list(arguments)[-1]
    with pytest.raises(ArgumentError, match=f"{name} must be"):
        BatchQueue(**arguments)


def test_negative_size_is_refused():
    queue = BatchQueue(4)
    queue.reserve(0)
    with pytest.raises(ArgumentError, match="nbytes"):
        queue.put(0, "", -1)


def test_timeouts():
    queue = BatchQueue(1)
    put(queue, 0)
    assert queue.peek(timeout=math.inf) == queue.get(timeout=1e300) == (0, "item 0")
    put(queue, 1)
    for wrong in (-1, math.nan):
        with pytest.raises(ArgumentError, match="timeout"):
            queue.get(timeout=wrong)
    for timeout in (0, 0.001):
        with pytest.raises(WaitTimeout, match=f"reserve: nothing arrived within {timeout} s"):
            queue.reserve(2, timeout=timeout)
        with pytest.raises(WaitTimeout):
            Task(lambda timeout=timeout: queue.reserve(2, timeout=timeout)).result()
    queue.get()
    for timeout in (0, 0.001):
        with pytest.raises(WaitTimeout, match=f"get: nothing arrived within {timeout} s"):
            queue.get(timeout=timeout)
        with pytest.raises(WaitTimeout):
            Task(lambda timeout=timeout: queue.get(timeout=timeout)).result()


def test_control_c_ends_the_wait_and_loses_nothing():
    """In the main thread, where pytest runs: at get and at reserve."""
    queue = BatchQueue(1)
    main = threading.main_thread().ident
    assert threading.get_ident() == main

    def interrupt_when(measure):
        eventually(lambda: queue.measures()[measure] == 1)
        signal.pthread_kill(main, signal.SIGINT)

    killer = Task(interrupt_when, "getting")
    with pytest.raises(KeyboardInterrupt):
        queue.get(timeout=LIMIT)
    killer.result()
    put(queue, 0)
    killer = Task(interrupt_when, "reserving")
    with pytest.raises(KeyboardInterrupt):
        queue.reserve(1, timeout=LIMIT)
    killer.result()
    assert queue.measures()["reserved"] == queue.measures()["reserving"] == 0
    assert queue.get() == (0, "item 0")
    put(queue, 1)
    assert queue.get() == (1, "item 1")


FORKED = """
import os, signal, threading
from concurrency import eventually
from highway._core.queue import BatchQueue

def interrupt(queue):
    eventually(lambda: queue.measures()["getting"])
    os.kill(os.getpid(), signal.SIGINT)

def fork():
    child = os.fork()
    if child:
        status[:] = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]
        return
    queue = BatchQueue(1)
    threading.Thread(target=interrupt, args=(queue,), daemon=True).start()
    try:
        queue.get(timeout=20)
    except KeyboardInterrupt:
        os._exit(7)
    os._exit(8)

status = []
thread = threading.Thread(target=fork)
thread.start()
thread.join()
print(status)
"""


def test_control_c_ends_the_wait_in_a_child_that_another_thread_forked():
    """What forks is the main thread of the child."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        stdin=subprocess.DEVNULL,
        cwd=HELPERS,
    )
    assert (done.stdout, done.stderr) == ("[7]\n", "")


# Measures


def test_measures_count():
    queue = BatchQueue(4)
    put(queue, 0, nbytes=10)
    put(queue, 1, nbytes=20)
    queue.reserve(2)
    queue.get()
    measures = queue.measures()
    expected = {
        "batches": 1,
        "held": 1,
        "reserved": 1,
        "held_bytes": 20,
        "holes": 0,
        "getting": 0,
        "reserving": 0,
    }
    assert {name: measures[name] for name in expected} == expected
    assert 0 < measures["occupancy"] <= 2


def test_measures_of_waits_grow_while_threads_wait():
    queue = BatchQueue(1)
    getting = Task(queue.get)
    eventually(lambda: queue.measures()["waited_items"] > 0.01)
    put(queue, 0)
    getting.result()
    put(queue, 1)
    reserving = Task(queue.reserve, 2)
    eventually(lambda: queue.measures()["waited_room"] > 0.01)
    queue.get()
    reserving.result()
    waited = queue.measures()
    assert queue.measures()["waited_items"] == waited["waited_items"]
    assert queue.measures()["waited_room"] == waited["waited_room"]
    assert waited["waited_items"] + waited["waited_room"] <= waited["seconds"]


def test_measures_end_with_the_data():
    queue = BatchQueue(1)
    put(queue, 0)
    queue.finish(1)
    assert queue.measures()["seconds"] < queue.measures()["seconds"]
    queue.get()
    assert queue.measures() == queue.measures()


# Against a model


class Model:
    """What a BatchQueue should do, said as plainly as possible."""

    def __init__(self, capacity, max_bytes, floor, ordered, group, window, holes, start, largest):
        self.capacity, self.max_bytes, self.floor, self.ordered = capacity, max_bytes, floor, ordered
        self.group, self.holes = group, holes
        self.window = None if ordered else window or 4 * (largest or capacity)
        self.start = start
        self.reserved = set()
        self.items = {}
        self.gone = set()
        self.last = 0
        self.total = None

    @property
    def base(self):
        ticket = self.start
        while ticket in self.gone:
            ticket += 1
        return ticket

    def ready(self):
        return {ticket: item for ticket, item in self.items.items() if item is not None}

    def admits(self, ticket):
        outstanding = len(self.reserved) + len(self.ready())
        held = sum(nbytes for _, nbytes in self.ready().values())
        if ticket == self.base:
            return True
        if ticket >= self.base + (self.window or self.capacity) or outstanding >= self.capacity:
            return False
        return (
            not self.max_bytes
            or outstanding < self.floor
            or held + (len(self.reserved) + 1) * self.last <= self.max_bytes
        )

    def used(self, ticket):
        return ticket < self.start or ticket in self.gone or ticket in self.items or ticket in self.reserved

    def put(self, ticket, item):
        self.reserved.remove(ticket)
        if item is None and not self.holes:
            self.gone.add(ticket)
        else:
            self.items[ticket] = item
            if item is not None:
                self.last = item[1]

    def next(self, before):
        """Ticket that is handed out next, "end" or "wait"."""
        allowed = [ticket for ticket in self.items if before is None or ticket < before]
        if self.ordered:
            allowed = [ticket for ticket in allowed if ticket == self.base]
        elif self.group:
            allowed = [ticket for ticket in allowed if ticket // self.group == self.base // self.group]
        if allowed:
            return min(allowed)
        ends = [end for end in (before, self.total) if end is not None]
        return "end" if ends and self.base >= min(ends) else "wait"

    def take(self, ticket):
        self.gone.add(ticket)
        item = self.items.pop(ticket)
        return item and item[0]


class QueueMachine(RuleBasedStateMachine):
    @initialize(
        capacity=st.integers(1, 4),
        max_bytes=st.sampled_from([0, 1, 10, 30]),
        floor=st.integers(1, 3),
        ordered=st.booleans(),
        group=st.sampled_from([0, 1, 2, 5]),
        window=st.sampled_from([0, 6, 8]),
        holes=st.booleans(),
        start=st.sampled_from([0, 7]),
        largest=st.sampled_from([0, 4, 6]),
    )
    def begin(self, capacity, max_bytes, floor, ordered, group, window, holes, start, largest):
        self.queue = BatchQueue(
            capacity,
            max_bytes=max_bytes,
            floor=floor,
            ordered=ordered,
            start=start,
            group=group,
            window=window,
            hand_out_holes=holes,
            largest=largest,
        )
        self.largest = largest or capacity
        self.model = Model(capacity, max_bytes, floor, ordered, group, window, holes, start, largest)
        self.things = []

    @rule(ahead=st.integers(-2, 12))
    def reserve(self, ahead):
        ticket = self.model.base + ahead
        beyond = self.model.total is not None and ticket >= self.model.total
        if beyond or self.model.used(ticket):
            with pytest.raises(ArgumentError):
                self.queue.reserve(ticket, block=False)
        elif self.model.admits(ticket):
            self.queue.reserve(ticket, block=False)
            self.model.reserved.add(ticket)
        else:
            with pytest.raises(WaitTimeout):
                self.queue.reserve(ticket, block=False)

    @precondition(lambda self: self.model.reserved)
    @rule(which=st.integers(0, 100), nbytes=st.integers(0, 12), hole=st.booleans())
    def hand_in(self, which, nbytes, hole):
        ticket = sorted(self.model.reserved)[which % len(self.model.reserved)]
        if hole:
            self.queue.skip(ticket)
            self.model.put(ticket, None)
        else:
            thing = Thing()
            self.things.append(weakref.ref(thing))
            self.queue.put(ticket, thing, nbytes)
            self.model.put(ticket, (thing, nbytes))

    @rule(ahead=st.integers(-2, 12))
    def hand_in_what_is_not_reserved(self, ahead):
        ticket = self.model.base + ahead
        if ticket not in self.model.reserved:
            with pytest.raises(ArgumentError):
                self.queue.put(ticket, "", 0)
            with pytest.raises(ArgumentError):
                self.queue.skip(ticket)

    @rule(before=st.none() | st.integers(-1, 6))
    def get(self, before):
        before = None if before is None else self.model.base + before
        expected = self.model.next(before)
        if expected == "wait":
            with pytest.raises(WaitTimeout):
                self.queue.get(block=False, before=before)
        elif expected == "end":
            with pytest.raises(EndOfData):
                self.queue.get(block=False, before=before)
        else:
            ticket, thing = self.queue.get(block=False, before=before)
            assert ticket == expected
            assert thing is self.model.take(ticket)

    @rule(ahead=st.integers(-1, 6))
    def peek_and_take(self, ahead):
        expected = self.model.next(None)
        if expected == "wait":
            with pytest.raises(WaitTimeout):
                self.queue.peek(block=False)
        elif expected == "end":
            with pytest.raises(EndOfData):
                self.queue.peek(block=False)
        else:
            assert self.queue.peek(block=False)[0] == expected
        ticket = self.model.base + ahead
        assert self.queue.take(ticket) == (ticket == expected)
        if ticket == expected:
            self.model.take(ticket)

    @rule(capacity=st.integers(1, 6), floor=st.integers(1, 3))
    def resize(self, capacity, floor):
        if capacity <= self.largest:
            self.queue.resize(capacity, floor)
            self.model.capacity, self.model.floor = capacity, floor
        else:
            with pytest.raises(ArgumentError):
                self.queue.resize(capacity, floor)

    @rule(ahead=st.integers(-1, 6))
    def finish(self, ahead):
        total = self.model.base + ahead
        used = self.model.reserved | set(self.model.items) | self.model.gone
        if (
            total < self.model.base
            or any(ticket >= total for ticket in used)
            or self.model.total not in (None, total)
        ):
            with pytest.raises(ArgumentError):
                self.queue.finish(total)
        else:
            self.queue.finish(total)
            self.model.total = total

    @invariant()
    def counts_agree(self):
        if not hasattr(self, "queue"):
            return
        measures = self.queue.measures()
        ready = self.model.ready()
        assert self.queue.next_ticket == self.model.base
        assert self.queue.last_total == self.model.total
        assert measures["held"] == len(ready)
        assert measures["reserved"] == len(self.model.reserved)
        assert measures["held_bytes"] == sum(nbytes for _, nbytes in ready.values())

    def teardown(self):
        if hasattr(self, "queue"):
            self.queue.close()
            self.model.items.clear()
            assert all(watch() is None for watch in self.things)


QueueMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60)
test_queue_does_what_the_model_does = QueueMachine.TestCase


# Under contention


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("seed", range(8))
def test_queues_in_a_row_lock_up_never_and_lose_nothing(seed):
    """Producers, two queues with workers between them, and consumers; tiny bounds, holes, random pace."""
    draw = random.Random(seed)
    ordered = bool(seed % 2)
    group = draw.choice([0, 7])
    count = 600
    sizes = [draw.randint(1, 4) for _ in range(2)]
    window = 0 if ordered else 4 * max(sizes)
    queues = [
        BatchQueue(
            size,
            max_bytes=draw.choice([0, 5, 20]),
            floor=draw.randint(1, 2),
            ordered=ordered,
            group=group,
            window=window,
            hand_out_holes=place == 0,
        )
        for place, size in enumerate(sizes)
    ]
    first, second = queues
    lock = threading.Lock()
    numbers = iter(range(count))
    holes = {ticket for ticket in range(count) if draw.random() < 0.2}

    def produce():
        while True:
            with lock:
                ticket = next(numbers, None)
            if ticket is None:
                return
            first.reserve(ticket)
            if ticket in holes and ticket % 2:
                first.skip(ticket)
            else:
                first.put(ticket, ticket, ticket % 7)

    def work():
        while True:
            try:
                ticket, item = first.get()
            except EndOfData:
                second.finish(count)
                return
            second.reserve(ticket)
            if item is None or item in holes:
                second.skip(ticket)
            else:
                second.put(ticket, item, item % 5)

    got = []

    def consume():
        mine = []
        while True:
            try:
                ticket, item = second.get()
            except EndOfData:
                return mine
            assert ticket == item
            mine.append(ticket)
            got.append(ticket)

    workers = [Task(work) for _ in range(draw.randint(1, 4))]
    consumers = [Task(consume) for _ in range(draw.randint(1, 3))]
    producers = [Task(produce) for _ in range(draw.randint(1, 4))]
    for task in producers:
        task.result()
    first.finish(count)
    for task in workers:
        task.result()
    found = [task.result() for task in consumers]
    expected = [ticket for ticket in range(count) if ticket not in holes]
    assert sorted(ticket for mine in found for ticket in mine) == expected
    for mine in found:
        if ordered:
            assert mine == sorted(mine)
        elif group:
            assert [ticket // group for ticket in mine] == sorted(ticket // group for ticket in mine)
    assert len(got) == len(expected)


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("seed", range(20))
def test_close_at_any_moment_frees_everybody(seed):
    draw = random.Random(seed)
    queue = BatchQueue(draw.randint(1, 3), ordered=bool(seed % 2), max_bytes=draw.choice([0, 10]))
    numbers = iter(range(10**9))
    lock = threading.Lock()
    passed = threading.Semaphore(0)

    def produce():
        while True:
            with lock:
                ticket = next(numbers)
            queue.reserve(ticket)
            queue.put(ticket, Thing(), 4)

    def consume():
        while True:
            queue.get()
            passed.release()

    def peek():
        while True:
            queue.take(queue.peek()[0])
            passed.release()

    tasks = [Task(function) for function in (produce, produce, produce, consume, consume, peek)]
    for _ in range(draw.randint(0, 200)):
        assert passed.acquire(timeout=LIMIT)
    queue.close()
    for task in tasks:
        with pytest.raises(QueueClosed):
            task.result()


# Small batches


def small(**arguments):
    """A queue for 2 batches, or for 8 that have 80 bytes together; one of 10 bytes was there."""
    queue = BatchQueue(2, ahead=8, ahead_bytes=80, **arguments)
    put(queue, 0, nbytes=10)
    assert queue.get()[0] == 0
    return queue


@pytest.mark.parametrize("ordered", [True, False])
def test_small_batches_may_be_further_ahead(ordered):
    queue = small(ordered=ordered)
    assert queue.room == 8
    for ticket in range(1, 9):
        put(queue, ticket, nbytes=10)
    with pytest.raises(WaitTimeout):
        queue.reserve(9, block=False)
    assert tickets(queue) == list(range(1, 9))


def test_large_batches_are_not_further_ahead():
    queue = BatchQueue(2, ahead=8, ahead_bytes=80)
    # Nothing is known of them yet.
    assert queue.room == 2
    put(queue, 0, nbytes=10)
    put(queue, 1, nbytes=50)
    assert queue.room == 2
    with pytest.raises(WaitTimeout):
        queue.reserve(2, block=False)


def test_a_large_batch_among_small_ones_counts():
    queue = small()
    put(queue, 1, nbytes=60)
    put(queue, 2, nbytes=10)
    put(queue, 3, nbytes=10)
    with pytest.raises(WaitTimeout):
        queue.reserve(4, block=False)


def test_max_bytes_holds_for_small_batches_too():
    queue = small(max_bytes=40)
    for ticket in range(1, 5):
        put(queue, ticket, nbytes=10)
    with pytest.raises(WaitTimeout):
        queue.reserve(5, block=False)


def test_who_waits_for_room_is_woken_when_a_quarter_is_free():
    queue = small()
    for ticket in range(1, 9):
        put(queue, ticket, nbytes=10)
    waiting = Task(lambda: queue.reserve(9))
    eventually(lambda: queue.measures()["reserving"] == 1)
    queue.get()
    assert queue.measures()["reserving"] == 1
    queue.get()
    waiting.result()


def test_an_ahead_beyond_the_window_is_refused():
    with pytest.raises(ArgumentError, match=r"window must be 0, or 8 \(ahead\) or more, but is 4"):
        BatchQueue(2, window=4, ahead=8, ordered=False)
