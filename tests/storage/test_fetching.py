"""Fetching: the right bytes in time, within the limits, whatever the server does."""

import os
import threading
import time

import numpy as np
import pytest
from concurrency import LIMIT, Task, eventually
from object_server import HANG, Fault, ObjectServer

from highway.errors import ObjectChangedError, PipelineStateError, ReadError, StorageError
from highway.storage import fetching, outages, requests
from highway.storage.fetching import Fetcher
from highway.storage.objects import UNKNOWN, Object
from highway.storage.opening import open_store
from highway.storage.ranges import Ranges

# They count requests.
pytestmark = pytest.mark.usefixtures("no_hedges")

HEDGES = {name: getattr(requests, name) for name in ("_FIRST_HEDGES", "_HEDGES")}
COUNT = 60
BODIES = [os.urandom(2000 + 10 * number) for number in range(COUNT)]
KEYS = [f"a/{number:02}.jpg" for number in range(COUNT)]
ALL = np.arange(COUNT)


@pytest.fixture
def server():
    with ObjectServer({f"data/{key}": body for key, body in zip(KEYS, BODIES, strict=True)}) as running:
        yield running


@pytest.fixture
def make(server):
    """Make fetchers of all objects, or of given ranges of objects."""
    made = []

    def fetcher(ranges=None, **arguments):
        if ranges is None:
            store = open_store("s3://data", "Reader", server.options)
            ranges = Ranges.of_objects(store, list(store.list("")))
            server.requests.clear()
        made.append(Fetcher("Reader", ranges, **{"max_bytes": 256 << 20, **arguments}))
        return made[-1]

    yield fetcher
    for one in made:
        one.close()


def parts(server, cuts):
    """Ranges of one object that is cut at these places."""
    store = open_store("s3://data", "Reader", server.options)
    start, stop = np.array(cuts[:-1]), np.array(cuts[1:])
    return Ranges(store, [store.head("tar")], np.zeros(len(start), np.int32), start, stop)


def taken(fetcher, ticket, indices):
    contents, errors = fetcher.take(ticket, np.asarray(indices))
    assert not errors
    return [bytes(one) for one in contents]


def test_what_is_announced_is_there_once(server, make):
    fetcher = make()
    for ticket in range(6):
        fetcher.announce(ticket, ALL[10 * ticket : 10 * ticket + 10])
    for ticket in (1, 0, 2, 5, 4, 3):
        assert taken(fetcher, ticket, ALL[10 * ticket : 10 * ticket + 10]) == BODIES[10 * ticket :][:10]
    assert server.per_key() == {f"data/{key}": 1 for key in KEYS}
    eventually(lambda: fetcher.measures()["held"] == 0)
    assert fetcher.measures()["fetched"] == sum(map(len, BODIES))


def test_what_was_not_announced_is_fetched(server, make):
    fetcher = make()
    assert taken(fetcher, 3, [7, 7, 2]) == [BODIES[7], BODIES[7], BODIES[2]]
    assert taken(fetcher, 3, []) == []
    assert server.count() == 2


def test_requests_are_made_in_the_order_of_the_tickets(server, make):
    fetcher = make(max_requests=1)
    gate = threading.Event()
    server.fault = lambda request: None if gate.wait(LIMIT) else Fault(status=500)
    for ticket in (2, 0, 1):
        fetcher.announce(ticket, np.array([ticket + 10, ticket]))
    task = Task(taken, fetcher, 1, [11, 1])
    eventually(lambda: fetcher.measures()["waiting"] == 1)
    gate.set()
    assert task.result() == [BODIES[11], BODIES[1]]
    eventually(lambda: server.count() == 6)
    # The first one was under way; then what somebody waits for.
    assert [int(request.key[-6:-4]) for request in server.requests] == [12, 11, 1, 10, 0, 2]


def test_a_sample_announced_twice_is_fetched_once(server, make):
    fetcher = make()
    fetcher.announce(0, np.array([5]))
    fetcher.announce(1, np.array([5]))
    assert taken(fetcher, 0, [5]) == taken(fetcher, 1, [5]) == [BODIES[5]]
    assert server.count() == 1
    assert taken(fetcher, 2, [5]) == [BODIES[5]]
    assert server.count() == 2


def test_what_is_released_frees_its_room(server, make):
    # Room for two of them, with what a connection and notes cost.
    fetcher = make(max_bytes=9000)
    fetcher.announce(0, ALL[:2])
    eventually(lambda: server.count() == 2)
    fetcher.announce(1, ALL[2:4])
    assert taken(fetcher, 0, [0]) == [BODIES[0]]
    fetcher.release(0)
    assert taken(fetcher, 1, [2, 3]) == BODIES[2:4]
    eventually(lambda: fetcher.measures()["held"] == 0)
    assert fetcher.measures()["evicted"] == 0


def test_adjacent_ranges_are_joined(server, make):
    body = os.urandom(400_000)
    server.put("data/tar", body)
    cuts = np.arange(0, 400_001, 1000)
    fetcher = make(parts(server, cuts))
    before = server.count()
    order = np.random.default_rng(3).permutation(400)
    fetcher.announce(0, order)
    for ticket in range(8):
        chosen = order[50 * ticket :][:50]
        assert taken(fetcher, ticket, chosen) == [body[1000 * one :][:1000] for one in chosen]
    assert server.count() == before + 1
    # Ranges far apart are not.
    fetcher.announce(9, np.array([0, 399]))
    assert taken(fetcher, 9, [399, 0]) == [body[399_000:], body[:1000]]
    assert server.count() == before + 3
    eventually(lambda: fetcher.measures()["held"] == 0)


def test_a_range_that_is_cut_short_is_fetched_again(server, make):
    server.put("data/tar", b"x" * 5000)
    fetcher = make(parts(server, [0, 1000, 5000]))
    server.fault = first(2, Fault(short=1))
    assert taken(fetcher, 0, [0]) == [b"x" * 1000]
    assert fetcher.measures()["retried"] == 2


def test_a_sample_does_not_keep_its_whole_range_in_memory(server, make):
    body = os.urandom(400_000)
    server.put("data/tar", body)
    fetcher = make(parts(server, np.arange(0, 400_001, 1000)))
    fetcher.announce(0, np.arange(400))
    (data,), _ = fetcher.take(0, np.array([7]))
    assert data == body[7000:8000] and len(data.obj) == 1000
    fetcher.release(0)
    # Alone, it is not copied.
    (data,), _ = fetcher.take(1, np.array([7]))
    assert data == body[7000:8000]


def test_joined_requests_have_a_limit(server, make, monkeypatch):
    monkeypatch.setattr(fetching, "_LARGEST_REQUEST", 10_000)
    body = os.urandom(100_000)
    server.put("data/tar", body)
    fetcher = make(parts(server, np.arange(0, 100_001, 1000)))
    before = server.count()
    fetcher.announce(0, np.arange(100))
    assert b"".join(taken(fetcher, 0, np.arange(100))) == body
    assert server.count() == before + 10


@pytest.mark.parametrize("max_bytes", [1, 3000, 10_000, 50_000])
def test_memory_is_bounded(server, make, max_bytes):
    fetcher = make(max_bytes=max_bytes)
    rng = np.random.default_rng(1)
    order = [rng.permutation(ALL).reshape(6, 10) for _ in range(3)]
    batches = np.concatenate(order)
    for ticket, indices in enumerate(batches):
        fetcher.announce(ticket, indices)
    # Several take at the same time, and not in order.
    tasks = [Task(taken, fetcher, ticket, batches[ticket]) for ticket in range(len(batches))]
    for task, indices in zip(tasks, batches, strict=True):
        assert task.result() == [BODIES[index] for index in indices]
    assert fetcher.measures()["most_held"] <= max(max_bytes, len(BODIES[-1]))


def test_a_window_larger_than_the_memory_is_fetched_in_parts(server, make, monkeypatch):
    monkeypatch.setattr(fetching, "_LARGEST_REQUEST", 10_000)
    body = os.urandom(100_000)
    server.put("data/tar", body)
    fetcher = make(parts(server, np.arange(0, 100_001, 1000)), max_bytes=25_000)
    order = np.random.default_rng(1).permutation(100)
    fetcher.announce(0, order)
    for ticket in range(10):
        chosen = order[10 * ticket :][:10]
        assert taken(fetcher, ticket, chosen) == [body[1000 * one :][:1000] for one in chosen]
    figures = fetcher.measures()
    assert figures["most_held"] <= 25_000
    assert figures["evicted"] > 0
    eventually(lambda: fetcher.measures()["held"] == 0)


@pytest.mark.parametrize("known", ["size and etag", "size", "nothing"])
def test_objects_of_unknown_size_are_asked_for(server, make, known):
    store = open_store(server.endpoint, "Reader")
    sizes = [UNKNOWN if known == "nothing" else len(body) for body in BODIES]
    objects = [
        Object(f"data/{key}", size, server.etags[f"data/{key}"] if "etag" in known else "")
        for key, size in zip(KEYS, sizes, strict=True)
    ]
    fetcher = make(Ranges.of_objects(store, objects), max_bytes=10_000)
    for ticket in range(2):
        fetcher.announce(ticket, ALL)
        assert taken(fetcher, ticket, ALL) == BODIES
    assert server.count() == 2 * COUNT
    assert server.count("HEAD") == (COUNT if known == "nothing" else 0)
    assert fetcher.measures()["most_held"] <= 10_000


# Faults


def first(times, fault):
    """A fault of the first requests for every object."""
    seen = {}

    def of(request):
        seen[request.key] = seen.get(request.key, 0) + 1
        return fault if seen[request.key] <= times else None

    return of


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503),
        Fault(status=429),
        Fault(status=500),
        Fault(status=408),
        Fault(reset=True),
        Fault(cut=0),
        Fault(cut=1000),
        Fault(short=1),
        Fault(delay=0.2),
    ],
    ids=str,
)
@pytest.mark.parametrize("times", [1, 2])
def test_what_fails_for_a_while_is_fetched(server, make, monkeypatch, fault, times):
    monkeypatch.setattr(requests, "_SHORTEST", 0.001)
    fetcher = make()
    chosen = ALL[:20]
    server.fault = first(times, fault)
    fetcher.announce(0, chosen)
    assert taken(fetcher, 0, chosen) == BODIES[:20]
    figures = fetcher.measures()
    assert server.count() == figures["requests"] == 20 + figures["retried"] + figures["hedged"]
    if fault.delay == 0:
        assert figures["retried"] == 20 * times


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_lasts_is_an_error_of_the_sample_and_asked_for_once(server, make, status):
    fetcher = make()
    server.fault = lambda request: Fault(status=status) if request.key.endswith("03.jpg") else None
    fetcher.announce(0, ALL)
    contents, errors = fetcher.take(0, ALL)
    assert [*errors] == [3] and isinstance(errors[3], ReadError)
    assert f"Reader: s3://data/a/03.jpg cannot be read: the server answered {status}" in str(errors[3])
    assert contents[3] is None and [bytes(one) for one in contents[4:]] == BODIES[4:]
    assert server.count() == COUNT
    eventually(lambda: fetcher.measures()["held"] == 0)


@pytest.mark.parametrize("fault", [Fault(body=os.urandom(len(BODIES[3]))), Fault(body=b"small")])
def test_another_object_is_never_mixed_in(server, make, fault):
    fetcher = make()
    server.fault = lambda request: fault if request.key.endswith("03.jpg") else None
    fetcher.announce(0, ALL)
    with pytest.raises(ObjectChangedError, match=r"s3://data/a/03.jpg changed after it was listed: its etag"):
        fetcher.take(0, ALL)


def test_without_etags_the_size_tells(server, make):
    store = open_store(server.endpoint, "Reader")
    fetcher = make(Ranges.of_objects(store, [Object(f"data/{KEYS[3]}", len(BODIES[3]))]))
    server.put(f"data/{KEYS[3]}", BODIES[4])
    with pytest.raises(ObjectChangedError, match="it had 2030 bytes, and has 2040"):
        fetcher.take(0, np.array([0]))


def test_an_object_that_shrank_is_an_error(server, make):
    server.put("data/tar", b"x" * 100)
    ranges = parts(server, [0, 50, 200])
    with pytest.raises(AssertionError):
        taken(make(ranges), 0, [0, 1])
    _, errors = make(ranges).take(0, np.array([1]))
    assert "it has 100 bytes; bytes 50 to 200 are needed" in str(errors[0])


@pytest.fixture
def hedges(no_hedges, monkeypatch):
    for name, value in HEDGES.items():
        monkeypatch.setattr(requests, name, value)


def test_a_request_that_hangs_is_hedged_once(server, make, monkeypatch, hedges):
    monkeypatch.setattr(requests, "_FEW_KNOWN", 0.1)
    fetcher = make()
    server.fault = first(1, Fault(delay=HANG))
    assert taken(fetcher, 0, [3]) == [BODIES[3]]
    assert server.count() == 2
    figures = fetcher.measures()
    assert (figures["requests"], figures["hedged"], figures["retried"]) == (2, 1, 0)


def test_hedges_leave_nothing_counted(server, make, monkeypatch, hedges):
    """Also where the size is asked for, which takes a connection but no bytes."""
    monkeypatch.setattr(requests, "_FEW_KNOWN", 0.1)
    store = open_store("s3://data", "Reader", server.options)
    fetcher = make(Ranges.of_objects(store, [Object(key, UNKNOWN) for key in KEYS[:2]]))
    server.fault = first(1, Fault(delay=HANG))
    assert taken(fetcher, 0, [0, 1]) == BODIES[:2]
    assert fetcher.measures()["hedged"] == 2
    memory = fetcher._window._memory
    eventually(lambda: memory._active == memory.used == 0)


def test_hedges_are_few(server, make, monkeypatch, hedges):
    """A server that is slow as a whole does not get twice the requests."""
    monkeypatch.setattr(requests, "_FEW_KNOWN", 0.01)
    fetcher = make()
    server.fault = lambda request: Fault(delay=0.1)
    assert taken(fetcher, 0, ALL) == BODIES
    assert server.count() <= COUNT + requests._FIRST_HEDGES + COUNT * requests._HEDGES + 1


def test_requests_that_are_given_up_leave_their_place(server, make, monkeypatch):
    """Their threads still wait for the server; others make the requests that follow."""
    monkeypatch.setattr(requests, "_PATIENCE", 0.2)
    monkeypatch.setattr(requests, "_SHORTEST", 0.001)
    fetcher = make(max_requests=2)
    server.fault = first(1, Fault(delay=HANG))
    assert taken(fetcher, 0, ALL[:4]) == BODIES[:4]
    figures = fetcher.measures()
    assert (figures["requests"], figures["retried"]) == (8, 4)
    memory = fetcher._window._memory
    eventually(lambda: memory._active == memory.used == 0)


def test_no_more_requests_than_allowed_are_under_way(server, make):
    gate = threading.Event()
    most, under_way = 0, 0
    lock = threading.Lock()
    store = open_store("s3://data", "Reader", server.options)
    ranges = Ranges.of_objects(store, list(store.list("")))
    read_now = store.read_now

    def counted(*arguments):
        nonlocal most, under_way
        with lock:
            under_way += 1
            most = max(most, under_way)
            if under_way == 3:
                gate.set()
        assert gate.wait(LIMIT)
        try:
            return read_now(*arguments)
        finally:
            with lock:
                under_way -= 1

    store.read_now = counted
    assert taken(make(ranges, max_requests=3), 0, ALL) == BODIES
    assert most == 3


def test_a_server_that_is_away_for_a_time_loses_nothing(server, make, caplog):
    monotonic = time.monotonic
    fetcher = make()
    for ticket in range(6):
        fetcher.announce(ticket, ALL[10 * ticket :][:10])
    assert taken(fetcher, 0, ALL[:10]) == BODIES[:10]
    eventually(lambda: server.count() == COUNT)
    for ticket in range(1, 6):
        taken(fetcher, ticket, ALL[10 * ticket :][:10])
    server.away = True
    before = len(server.requests)
    connections = server.accepted
    fetcher.announce(7, ALL)
    began = monotonic()
    task = Task(taken, fetcher, 7, ALL)
    eventually(lambda: monotonic() - began > 2)
    assert task.is_alive()
    server.away = False
    assert task.result() == BODIES
    # Those that were under way when it went, half as many, one at a time, and then all; each on a new connection.
    storm = len(server.requests) - before + server.accepted - connections
    assert storm <= 3 * COUNT + 20, storm
    assert any("the storage failed; retrying" in line for line in caplog.messages)
    assert any("is back after" in line for line in caplog.messages)


@pytest.mark.parametrize("kind", ["away", "hangs", "refuses"])
def test_a_server_that_stays_away_is_an_error(server, make, monkeypatch, kind):
    monkeypatch.setattr(outages, "LIMIT", 0.5)
    monkeypatch.setattr(requests, "_PATIENCE", 0.2)
    fetcher = make()
    if kind == "away":
        server.away = True
    else:
        server.fault = lambda request: Fault(delay=HANG) if kind == "hangs" else Fault(status=503)
    fetcher.announce(0, ALL)
    before, connections = len(server.requests), server.accepted
    with pytest.raises(
        StorageError, match=r"the storage failed: \d+ tries in .* no sample was counted as bad"
    ):
        fetcher.take(0, ALL)
    assert len(server.requests) - before + server.accepted - connections <= 3 * COUNT + 20


def test_others_go_on_while_one_object_fails(server, make, monkeypatch):
    monkeypatch.setattr(requests, "_SHORTEST", 0.001)
    fetcher = make()
    server.fault = lambda request: Fault(status=500) if request.key.endswith("03.jpg") else None
    fetcher.announce(0, ALL)
    assert taken(fetcher, 0, ALL[4:]) == BODIES[4:]
    server.fault = lambda request: None
    assert taken(fetcher, 0, [3]) == [BODIES[3]]


# The end


def test_interrupt_wakes_those_who_wait(server, make):
    server.fault = lambda request: Fault(delay=HANG)
    store = open_store("s3://data", "Reader", server.options | {"client_options": {"read_timeout": "2s"}})
    objects = [
        Object(key, len(body), server.etags[f"data/{key}"]) for key, body in zip(KEYS, BODIES, strict=True)
    ]
    fetcher = make(Ranges.of_objects(store, objects))
    fetcher.announce(0, ALL)
    tasks = [Task(fetcher.take, 0, ALL[k : k + 3]) for k in range(0, 12, 3)]
    eventually(lambda: server.count() == COUNT)
    began = time.monotonic()
    fetcher.interrupt()
    for task in tasks:
        with pytest.raises(PipelineStateError, match="Reader: the pipeline was stopped"):
            task.result()
    fetcher.close()
    assert time.monotonic() - began < 2
    assert not any(thread.name.startswith("highway fetcher") for thread in threading.enumerate())
    # Requests that nobody needs any more end by themselves, and are not made again.
    eventually(lambda: len(server.open_connections) == 0)
    assert server.count() == COUNT
    with pytest.raises(PipelineStateError):
        fetcher.take(0, ALL)


def test_nothing_runs_before_it_is_used(make):
    fetcher = make()
    assert not any(thread.name.startswith("highway fetcher") for thread in threading.enumerate())
    fetcher.interrupt()
    with pytest.raises(PipelineStateError):
        fetcher.take(0, ALL)


def test_fetchers_leave_no_descriptors(server, make):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    store = open_store("s3://data", "Reader", server.options)
    ranges = Ranges.of_objects(store, list(store.list("")))

    def once():
        fetcher = make(ranges, max_requests=4)
        assert taken(fetcher, 0, ALL) == BODIES
        fetcher.close()

    once()
    before = descriptors()
    for _ in range(5):
        once()
    # Connections of the store are kept for the next one.
    eventually(lambda: descriptors() <= before + 4)


@pytest.mark.parametrize("where", ["_check", "_need", "_ask"])
def test_errors_of_highway_itself_end_the_wait(server, make, monkeypatch, where):
    fetcher = make()
    monkeypatch.setattr(
        fetching._Window, where, lambda *_: (_ for _ in ()).throw(ZeroDivisionError("a mistake"))
    )
    task = Task(fetcher.take, 0, ALL)
    with pytest.raises(ZeroDivisionError):
        task.result()
