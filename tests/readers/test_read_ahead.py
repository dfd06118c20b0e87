"""ReadAhead: what it announces, and when it drops what was not used."""

import numpy as np
import pytest

from highway.modules.readers import read_ahead
from highway.modules.readers.read_ahead import ReadAhead
from highway.sampling.sampler import Task


class Recorder:
    """Stands for a Fetcher; notes the calls."""

    def __init__(self, *_, **__):
        self.announced, self.released = [], []

    def announce(self, ticket, indices):
        self.announced.append((ticket, indices.tolist()))

    def release(self, ticket):
        self.released.append(ticket)


class Samples:
    """Samples of 10 bytes each."""

    class ranges:
        @staticmethod
        def nbytes(indices, unknown):
            return 10 * len(indices)

    def fetching(self, fetcher):
        self.fetcher = fetcher
        return self

    def needed(self, indices):
        return indices


@pytest.fixture
def ahead(monkeypatch):
    """Read-ahead of 60 bytes, in groups of two tasks."""
    monkeypatch.setattr(read_ahead, "Fetcher", Recorder)
    return ReadAhead("Reader", Samples(), lambda task: task.seq, 60, lambda task: task.seq // 2)


def tasks(count):
    return iter(Task(0, seq, np.array([2 * seq, 2 * seq + 1])) for seq in range(count))


def test_a_group_is_announced_at_once_and_dropped_when_all_of_its_tasks_are_done(ahead):
    fetcher = ahead.samples.fetcher
    assert [task.seq for task in ahead.over(tasks(4))] == [0, 1, 2, 3]
    assert fetcher.announced == [(1, [0, 1, 2, 3]), (3, [4, 5, 6, 7])]
    # The workers of a reader finish its tasks in any order.
    ahead.done(1)
    assert fetcher.released == []
    ahead.done(0)
    assert fetcher.released == [1]
    ahead.done(0)
    ahead.done(3)
    assert fetcher.released == [1]
    ahead.done(2)
    assert fetcher.released == [1, 3]


def test_tasks_that_are_passed_over_are_dropped(ahead, monkeypatch):
    monkeypatch.setattr(read_ahead, "MOST_WORKERS", 2)
    fetcher = ahead.samples.fetcher
    row = ahead.over(tasks(8))
    for seq in range(6):
        assert next(row).seq == seq
    # Task 5 has begun: 0, 1 and 2 are long past.
    assert fetcher.released == [1]
    # Another run begins: nothing of the first is needed.
    next(ahead.over(tasks(2)))
    assert sorted(fetcher.released) == [1, 3, 5, 7]
