"""ReadAhead: fetches the samples of the next tasks of a reader, whose order is known."""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from highway.arguments.limits import MOST_WORKERS
from highway.modules.readers.samples import Samples
from highway.sampling.sampler import Task
from highway.storage.fetching import Fetcher

if TYPE_CHECKING:
    from highway.storage.cache import Cache

__all__ = ["ReadAhead"]

# Bytes of a file whose size is not known yet, and most files that are announced at a time.
_UNKNOWN_SIZE = 256 << 10
_MOST_AHEAD = 1 << 14


class _Group:
    """Tasks whose samples were announced together: with which ticket, and how many of them are not done."""

    __slots__ = ("tasks", "ticket")

    def __init__(self, ticket: int, tasks: int) -> None:
        self.ticket, self.tasks = ticket, tasks


class ReadAhead:
    """The fetcher of one run of a reader, and what it fetches next.

    Parameters
    ----------
    owner : str
        Name of the reader, for errors.
    samples : Samples
        With `ranges`.
    ticket_of : callable
        Number of a task, which grows with the order.
    max_bytes : int
        Most bytes that are fetched and not taken yet.
    group_of : callable, optional
        Group of a task: the samples of adjacent tasks of one group are announced at once, so that ranges that touch are
        fetched together.
    cache : Cache, optional

    Attributes
    ----------
    samples : Samples
        Those of the run.
    """

    def __init__(
        self,
        owner: str,
        samples: Samples,
        ticket_of: Callable[[Task], int],
        max_bytes: int,
        group_of: Callable[[Task], object] | None = None,
        cache: Cache | None = None,
    ) -> None:
        assert samples.ranges is not None
        self._ranges = samples.ranges
        self._ticket_of = ticket_of
        self._group_of = group_of or ticket_of
        self._max_bytes = max_bytes
        self._fetcher = Fetcher(owner, samples.ranges, max_bytes=max_bytes, cache=cache)
        self.samples = samples.fetching(self._fetcher)
        # An item for each worker: appending and popping are atomic.
        self._workers: list[None] = []
        # The group of each task that was announced and is not done, by its ticket.
        self._open: dict[int, _Group] = {}
        self._lock = threading.Lock()

    def over(self, tasks: Iterator[Task]) -> Iterator[Task]:
        """Yield the tasks, and announce the samples of those that follow; drops what was announced before."""
        self._drop(math.inf)
        ahead: deque[tuple[Task, int, int]] = deque()
        nbytes = count = 0
        for _, group in itertools.groupby(tasks, self._group_of):
            for task, size, needed in self._announced([*group]):
                ahead.append((task, size, needed))
                nbytes, count = nbytes + size, count + needed
            while ahead and (nbytes >= self._max_bytes or count >= _MOST_AHEAD):
                first, size, samples = ahead.popleft()
                nbytes, count = nbytes - size, count - samples
                yield self._begun(first)
        while ahead:
            yield self._begun(ahead.popleft()[0])

    def _begun(self, task: Task) -> Task:
        """Drop what was announced for tasks that were passed over long before this one."""
        self._drop(self._ticket_of(task) - MOST_WORKERS)
        return task

    def _drop(self, before: float) -> None:
        """Drop what was announced with tickets before this one: a data machine may pass over tasks."""
        with self._lock:
            passed = [ticket for ticket in self._open if ticket < before]
        for ticket in passed:
            self.done(ticket)

    def _announced(self, tasks: list[Task]) -> Iterator[tuple[Task, int, int]]:
        """Announce the samples of some tasks; yields each task with their bytes and their number."""
        needed = [self.samples.needed(task.numbers) for task in tasks]
        tickets = [self._ticket_of(task) for task in tasks]
        group = _Group(tickets[-1], len(tasks))
        with self._lock:
            self._open |= dict.fromkeys(tickets, group)
        self._fetcher.announce(group.ticket, np.concatenate(needed))
        for task, ranges in zip(tasks, needed, strict=True):
            yield task, self._ranges.nbytes(ranges, _UNKNOWN_SIZE), len(ranges)

    def done(self, ticket: int) -> None:
        """Drop what was fetched for the group of a task and not used, once all tasks of the group are done."""
        with self._lock:
            group = self._open.pop(ticket, None)
            if group is None:
                return
            group.tasks -= 1
            if group.tasks:
                # Other workers may not have taken their samples yet.
                return
        self._fetcher.release(group.ticket)

    def open(self) -> None:
        """Count a worker."""
        self._workers.append(None)

    def close(self) -> None:
        """Uncount a worker; the last one ends the fetcher."""
        self._workers.pop()
        if not self._workers:
            self._fetcher.close()

    def interrupt(self) -> None:
        """Wake the workers that wait for samples. Takes no lock."""
        self._fetcher.interrupt()

    def measures(self) -> dict[str, int]:
        """See `Fetcher.measures`."""
        return self._fetcher.measures()
