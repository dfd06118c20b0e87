"""Fetching through the cache: equal bytes, and no request for what lies on the local disk, in whatever order."""

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from cache_users import in_folder
from concurrency import LIMIT, Task, eventually
from object_server import HANG, Fault, ObjectServer

from highway.storage import fetching
from highway.storage.cache import Cache
from highway.storage.fetching import Fetcher
from highway.storage.object_store import ObjectStore
from highway.storage.objects import UNKNOWN, Object
from highway.storage.opening import open_store
from highway.storage.ranges import Ranges

pytest.importorskip("obstore")

# They count requests.
pytestmark = pytest.mark.usefixtures("no_hedges")

COUNT = 40
BODIES = [os.urandom(2000 + 10 * number) for number in range(COUNT)]
KEYS = [f"a/{number:02}.jpg" for number in range(COUNT)]
# In one object, without gaps.
CUTS = np.cumsum([0, *map(len, BODIES)])


@pytest.fixture
def server():
    objects = {f"data/{key}": body for key, body in zip(KEYS, BODIES, strict=True)}
    with ObjectServer(objects | {"data/tar": b"".join(BODIES)}) as running:
        yield running


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", 50e6, "Reader")


def pictures(server):
    store = open_store("s3://data", "Reader", server.options)
    return Ranges.of_objects(store, list(store.list("a")))


def unlisted(server):
    store = open_store("s3://data", "Reader", server.options)
    return Ranges.of_objects(store, [Object(key) for key in KEYS])


def members(server):
    store = open_store("s3://data", "Reader", server.options)
    return Ranges(store, [store.head("tar")], np.zeros(COUNT, np.int32), CUTS[:-1], CUTS[1:])


@pytest.fixture
def fetchers(cache):
    made = []

    def make(ranges):
        made.append(Fetcher("Reader", ranges, max_bytes=64 << 20, cache=cache))
        return made[-1]

    yield make
    for one in made:
        one.close()


def files_of(cache):
    return sorted(path for path in Path(cache.directory).rglob("*") if len(path.name) == 30)


def epoch(fetcher, seed, size=7, first=0):
    """Take all samples in an order, announced before; the bytes must be right."""
    order = np.random.default_rng(seed).permutation(COUNT)
    batches = [order[at : at + size] for at in range(0, COUNT, size)]
    for ticket, batch in enumerate(batches):
        fetcher.announce(first + ticket, batch)
    for ticket, batch in enumerate(batches):
        contents, errors = fetcher.take(first + ticket, batch)
        assert not errors
        assert [bytes(data) for data in contents] == [BODIES[index] for index in batch]
    # Written to the cache, too.
    eventually(lambda: fetcher.measures()["held"] == 0)


@pytest.mark.parametrize("kind", [pictures, members])
def test_second_epoch_in_another_order_makes_no_request(server, cache, fetchers, kind):
    first = fetchers(kind(server))
    epoch(first, 1)
    fetched = first.measures()["fetched"]
    assert fetched >= sum(map(len, BODIES)) and first.measures()["cached"] == 0
    ranges = kind(server)
    server.requests.clear()
    epoch(first, 2, 5, first=100)
    again = fetchers(ranges)
    epoch(again, 3, 9)
    assert server.requests == []
    assert first.measures()["fetched"] == fetched
    assert again.measures()["fetched"] == again.measures()["requests"] == 0
    assert again.measures()["cached"] == sum(map(len, BODIES))
    eventually(lambda: first.measures()["held"] == 0)
    assert len(files_of(cache)) == COUNT


def test_objects_of_unknown_size_are_asked_for_once(server, fetchers):
    fetcher = fetchers(unlisted(server))
    epoch(fetcher, 1)
    server.requests.clear()
    epoch(fetcher, 2, first=100)
    assert server.requests == []
    # Another run must ask for the etag, but not for the bytes.
    another = fetchers(unlisted(server))
    epoch(another, 3)
    assert server.count("HEAD") == COUNT and server.count() == 0
    assert another.measures()["cached"] == sum(map(len, BODIES))


def test_what_was_not_announced_comes_from_the_cache_too(server, fetchers):
    fetcher = fetchers(pictures(server))
    epoch(fetcher, 1)
    server.requests.clear()
    contents, errors = fetcher.take(50, np.array([3, 3, 1]))
    assert [bytes(data) for data in contents] == [BODIES[3], BODIES[3], BODIES[1]] and not errors
    assert server.requests == []


def test_entry_that_leaves_after_the_announcement_is_fetched(server, cache, fetchers):
    ranges = pictures(server)
    epoch(fetchers(ranges), 1)
    fetcher = fetchers(ranges)
    fetcher.announce(0, np.arange(COUNT))
    for path in files_of(cache):
        path.unlink()
    server.requests.clear()
    contents, errors = fetcher.take(0, np.arange(COUNT))
    assert [bytes(data) for data in contents] == BODIES and not errors
    assert server.count() == COUNT


def test_damaged_entries_are_fetched_again(server, cache, fetchers, caplog):
    ranges = pictures(server)
    epoch(fetchers(ranges), 1)
    for path in files_of(cache)[:5]:
        damaged = bytearray(path.read_bytes())
        damaged[-1] ^= 4
        path.write_bytes(damaged)
    server.requests.clear()
    epoch(fetchers(ranges), 2)
    assert server.count() == 5
    assert len(caplog.records) == 1
    server.requests.clear()
    epoch(fetchers(ranges), 3)
    assert server.requests == []


def test_another_version_of_an_object_is_not_taken_from_the_cache(server, fetchers):
    epoch(fetchers(pictures(server)), 1)
    server.put("data/a/07.jpg", b"x" * len(BODIES[7]))
    contents, errors = fetchers(pictures(server)).take(0, np.array([7, 8]))
    assert [bytes(data) for data in contents] == [b"x" * len(BODIES[7]), BODIES[8]] and not errors


def test_what_others_cache_meanwhile_is_not_kept_in_memory(server, cache, fetchers):
    ranges = pictures(server)
    fetcher = fetchers(ranges)
    fetcher.announce(0, np.arange(COUNT))
    store = ranges.store.identity
    for number, body in enumerate(BODIES):
        assert cache.put(store, ranges.objects[number], 0, len(body), body)
    contents, errors = fetcher.take(0, np.arange(COUNT))
    assert [bytes(data) for data in contents] == BODIES and not errors
    eventually(lambda: fetcher.measures()["held"] == 0)


def test_sample_that_was_announced_twice_is_let_go(server, fetchers):
    fetcher = fetchers(pictures(server))
    for ticket in range(2):
        fetcher.announce(ticket, np.array([3]))
    for ticket in range(2):
        (data,), _ = fetcher.take(ticket, np.array([3]))
        assert bytes(data) == BODIES[3]
    eventually(lambda: fetcher.measures()["held"] == 0)


def test_what_was_announced_and_released_comes_from_the_cache(server, fetchers):
    ranges = pictures(server)
    epoch(fetchers(ranges), 1)
    fetcher = fetchers(unlisted(server))
    fetcher.announce(0, np.array([3]))
    fetcher.release(0)
    fetcher.take(1, np.array([4]))
    # Its size is known now; the announcement no longer counts.
    eventually(lambda: not fetcher._cached._announced)
    fetcher.take(2, np.array([3]))
    server.requests.clear()
    (data,), _ = fetcher.take(3, np.array([3]))
    assert bytes(data) == BODIES[3] and server.requests == []


class Disk:
    """Writes of a cache, which wait until it is opened."""

    def __init__(self, monkeypatch):
        self.gate = threading.Event()
        self.waiting = 0
        put = Cache.put

        def slow(*arguments):
            self.waiting += 1
            assert self.gate.wait(LIMIT)
            return put(*arguments)

        monkeypatch.setattr(Cache, "put", slow)


@pytest.fixture
def disk(monkeypatch):
    disk = Disk(monkeypatch)
    yield disk
    disk.gate.set()


def test_nobody_waits_for_the_disk(server, cache, fetchers, disk):
    fetcher = fetchers(pictures(server))
    server.requests.clear()
    for seed in range(2):
        # In the second epoch, what is not written yet comes from the memory.
        order = np.random.default_rng(seed).permutation(COUNT)
        fetcher.announce(seed, order)
        contents, errors = fetcher.take(seed, order)
        assert [bytes(data) for data in contents] == [BODIES[index] for index in order] and not errors
    assert server.count() == COUNT and in_folder(cache.directory)[0] == 0
    assert fetcher.measures()["held"] == sum(map(len, BODIES))
    disk.gate.set()
    eventually(lambda: fetcher.measures()["held"] == 0)
    assert len(files_of(cache)) == COUNT


def test_what_waits_for_the_disk_is_bounded(server, cache, disk):
    # Four bodies, and what their connections and the notes cost.
    limit = 12 * len(BODIES[-1])
    fetcher = Fetcher("Reader", pictures(server), max_bytes=limit, cache=cache)
    server.requests.clear()
    fetcher.announce(0, np.arange(COUNT))
    task = Task(fetcher.take, 0, np.arange(COUNT))
    eventually(lambda: disk.waiting == 4)
    assert server.count() < 10 and task.is_alive()
    disk.gate.set()
    contents, errors = task.result()
    assert [bytes(data) for data in contents] == BODIES and not errors
    assert fetcher.measures()["most_held"] <= limit
    fetcher.close()
    assert len(files_of(cache)) == COUNT


@pytest.mark.parametrize("how", ["close", "interrupt"])
def test_a_disk_that_hangs_ends_with_its_fetcher(server, cache, fetchers, disk, monkeypatch, how):
    """What is being written then is complete, what is not is dropped."""
    for name in ("_FINISH", "_WRITE"):
        monkeypatch.setattr(fetching, name, 0.1)
    fetcher = fetchers(pictures(server))
    order = np.arange(COUNT)
    contents, _ = fetcher.take(0, order)
    assert [bytes(data) for data in contents] == BODIES
    eventually(lambda: disk.waiting == 4)
    thread = fetcher._thread
    task = Task(getattr(fetcher, how))
    if how == "interrupt":
        task.result()
    # Only then the threads of the disk are waited for.
    eventually(lambda: fetcher._window._cache._writers._shutdown)
    disk.gate.set()
    task.result()
    thread.join(LIMIT)
    assert not thread.is_alive() and len(files_of(cache)) == 4
    there, counted = in_folder(cache.directory)
    assert there == counted
    assert not any("highway cache" in thread.name for thread in threading.enumerate())
    # The rest is fetched again.
    server.requests.clear()
    epoch(fetchers(pictures(server)), 1)
    assert server.count() == COUNT - 4


def test_a_mistake_in_a_write_is_reported(server, fetchers, monkeypatch):
    monkeypatch.setattr(Cache, "put", lambda *_: 1 / 0)
    fetcher = fetchers(pictures(server))
    server.fault = lambda request: None if request.key.endswith("00.jpg") else Fault(delay=HANG)
    with pytest.raises(ZeroDivisionError):
        fetcher.take(0, np.arange(COUNT))


def test_full_disk_changes_no_byte(server, cache, fetchers, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    fetcher = fetchers(pictures(server))
    monkeypatch.setattr(os, "rename", full)
    epoch(fetcher, 1)
    epoch(fetcher, 2, first=100)
    monkeypatch.undo()
    assert len(caplog.records) == 1 and "No space left on device" in caplog.text
    there, counted = in_folder(cache.directory)
    assert there == counted == 0


def test_small_cache_changes_no_byte(server, tmp_path):
    """A cache that holds some of the samples."""
    cache = Cache(tmp_path / "small", 1 << 20, "Reader")
    filler = 900_000
    assert cache.put("other", Object("filler", filler), 0, filler, bytes(filler))
    fetcher = Fetcher("Reader", pictures(server), max_bytes=64 << 20, cache=cache)
    for number in range(3):
        epoch(fetcher, number, first=100 * number)
    fetcher.close()
    assert fetcher.measures()["cached"] > 0
    assert in_folder(cache.directory)[0] <= 1 << 20


def test_what_has_no_place_in_a_cache():
    class Store(ObjectStore):
        def is_cached(self, name):
            return name != "c"

    store = Store("x", "Reader")
    ranges = Ranges.of_objects(store, [Object("a"), Object("b", 5, "e"), Object("c", 5, "e")])
    window = Fetcher("Reader", ranges, max_bytes=1)._window
    assert ranges.stop[0] == UNKNOWN and window.place(0) is window.place(2) is None
    assert window.place(1) == ("x", Object("b", 5, "e"), 0, 5)
