"""RowGroups: each row group is decoded once, before it is needed, and freed after its last use."""

import threading

import numpy as np
import pytest
from concurrency import Task as Thread
from concurrency import eventually

from highway.arguments.limits import MOST_WORKERS
from highway.errors import DatasetError, DecodeError, QueueClosed, StorageError
from highway.modules.readers.tables.row_groups import RowGroups
from highway.sampling.sampler import Sampler, Task

ROWS = 10
"""Rows of each row group."""


class Decoder:
    """Decodes row group n to its number, and counts."""

    def __init__(self, groups=6, most_bytes=1000, fetch=None, release=None):
        self.decoded = []
        self.errors = {}
        self.groups = RowGroups(
            "Reader", np.full(groups, 100), lambda rows: rows // ROWS, self, fetch, most_bytes, release
        )

    def __call__(self, group):
        self.decoded.append(group)
        if group in self.errors:
            raise self.errors[group]
        return group

    @property
    def held(self):
        return sorted(self.groups._decoded)


def task(seq, *groups):
    return Task(0, seq, np.array([group * ROWS for group in groups], np.int64))


def load(decoder, one):
    decoder.groups.begin(one)
    found = decoder.groups.take(one.indices)
    decoder.groups.finish(one)
    return found


def test_every_row_group_is_decoded_once_and_freed():
    decoder = Decoder()
    order = Sampler(60, 4, shuffle=False, epochs=1)
    most = 0
    for one in decoder.groups.announced(order):
        assert load(decoder, one) == {group: group for group in {*(one.indices // ROWS).tolist()}}
        most = max(most, len(decoder.held))
    assert decoder.decoded == [*range(6)] and decoder.groups.decodes == 6
    assert most <= 6 and len(decoder.held) <= 2


def test_row_groups_are_decoded_evenly_before_they_are_needed():
    decoder = Decoder()
    # Ten tasks need row group 0, and then one needs the other five.
    tasks = [task(seq, 0) for seq in range(10)] + [task(10, 1, 2, 3, 4, 5)]
    counts = []
    for one in decoder.groups.announced(iter(tasks)):
        before = len(decoder.decoded)
        load(decoder, one)
        counts.append(len(decoder.decoded) - before)
    assert sum(counts) == 6 and max(counts[1:]) == 1 and counts[-1] <= 1


def test_no_more_is_announced_than_fits():
    decoder = Decoder(groups=100, most_bytes=400)
    announced = decoder.groups.announced(task(seq, seq) for seq in range(100))
    for seq, one in enumerate(announced):
        load(decoder, one)
        # What is decoded ahead, what was just used, and two more.
        assert len(decoder.held) <= 4 + 2, seq
    assert decoder.decoded == [*range(100)]


def test_an_endless_source_is_not_read_to_its_end():
    decoder = Decoder(groups=1)
    taken = []

    def endless():
        seq = 0
        while True:
            taken.append(seq)
            yield task(seq, 0)
            seq += 1

    announced = decoder.groups.announced(endless())
    for _ in range(5):
        load(decoder, next(announced))
    assert len(taken) < 2000 and decoder.decoded == [0]


def test_what_was_not_announced_is_decoded_too():
    decoder = Decoder(most_bytes=300)
    for group in (5, 3, 5, 0, 1, 2):
        assert decoder.groups.take(np.array([group * ROWS])) == {group: group}
        assert len(decoder.held) <= 3
    list(decoder.groups.announced([task(0, 1)]))
    assert load(decoder, task(7, 4)) == {4: 4}


def test_a_damaged_row_group_is_decoded_once():
    decoder = Decoder()
    decoder.errors[1] = DecodeError("damaged")
    for one in decoder.groups.announced(iter([task(0, 0, 1), task(1, 1, 2), task(2, 1)])):
        assert isinstance(load(decoder, one)[1], DecodeError)
    assert decoder.decoded.count(1) == 1


def test_failures_of_the_storage_are_tried_again():
    decoder = Decoder()
    decoder.errors[0] = StorageError("away")
    assert isinstance(decoder.groups.take(np.array([0]))[0], StorageError)
    decoder.errors.clear()
    assert decoder.groups.take(np.array([0])) == {0: 0}


def test_failures_that_are_final():
    decoder = Decoder(fetch=lambda number, groups: None)
    for error in (StorageError("away"), DatasetError("changed"), MemoryError()):
        decoder.errors[0] = error
        with pytest.raises(type(error)):
            decoder.groups.take(np.array([0]))
    decoder.errors.clear()
    assert decoder.groups.take(np.array([0])) == {0: 0}


def test_row_groups_are_fetched_once_and_before_they_are_decoded():
    fetched = []
    decoder = Decoder(groups=8, most_bytes=400, fetch=lambda number, groups: fetched.extend(groups.tolist()))
    for one in decoder.groups.announced(task(seq, seq // 2) for seq in range(16)):
        assert {*(one.indices // ROWS).tolist()} <= {*fetched}
        load(decoder, one)
    assert fetched == decoder.decoded == [*range(8)]


class Blocked(Decoder):
    """A decoder that waits."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()

    def __call__(self, group):
        found = super().__call__(group)
        assert self.gate.wait(60)
        return found


def test_workers_share_what_one_of_them_decodes():
    decoder = Blocked()
    threads = [Thread(lambda: decoder.groups.take(np.array([0]))) for _ in range(3)]
    eventually(lambda: decoder.decoded == [0])
    # Another row group is not waited for.
    other = Thread(lambda: decoder.groups.take(np.array([0, ROWS])))
    eventually(lambda: decoder.decoded == [0, 1])
    decoder.gate.set()
    assert [thread.result() for thread in threads] == [{0: 0}] * 3
    assert other.result() == {0: 0, 1: 1} and decoder.decoded == [0, 1]


def test_workers_that_wait_are_woken():
    decoder = Blocked()
    first = Thread(lambda: decoder.groups.take(np.array([0])))
    eventually(lambda: decoder.decoded == [0])
    second = Thread(lambda: decoder.groups.take(np.array([0])))
    decoder.groups.interrupt()
    with pytest.raises(QueueClosed, match=r"^Reader: the pipeline was stopped"):
        second.result()
    decoder.gate.set()
    assert first.result() == {0: 0}
    with pytest.raises(QueueClosed):
        decoder.groups.take(np.array([ROWS]))


def test_tasks_that_are_passed_over_are_forgotten():
    """A data machine makes only the batches that its training machine lacks."""
    fetched, released = [], []
    decoder = Decoder(
        groups=5000,
        most_bytes=400,
        fetch=lambda number, groups: fetched.append(number),
        release=released.append,
    )
    for seq, one in enumerate(decoder.groups.announced(task(seq, seq) for seq in range(4000))):
        if seq % 3 == 0:
            load(decoder, one)
    assert len(decoder.groups._tasks) <= MOST_WORKERS + 4
    assert len(decoder.groups._uses) <= MOST_WORKERS + 4
    # From another place: what was announced before is not needed.
    tasks = decoder.groups.announced(iter([task(7, 4500), task(8, 4501)]))
    next(tasks)
    assert sorted(decoder.groups._uses) == [4500, 4501] and decoder.groups._bytes == 200
    assert {*fetched} - {*released} == {4000, 4001}
