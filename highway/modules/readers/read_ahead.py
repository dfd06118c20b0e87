"""ReadAhead: fetches the samples of the next tasks of a reader, whose order is known."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator

from highway.arguments.limits import MOST_WORKERS
from highway.modules.readers.samples import Samples
from highway.sampling.sampler import Task
from highway.storage.fetching import Fetcher, RangeCache

__all__ = ["ReadAhead"]

# Bytes of a file whose size is not known yet, and most files that are announced at a time.
_UNKNOWN_SIZE = 256 << 10
_MOST_AHEAD = 1 << 14


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
    cache : RangeCache, optional

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
        cache: RangeCache | None = None,
    ) -> None:
        assert samples.ranges is not None
        self._ranges = samples.ranges
        self._ticket_of = ticket_of
        self._max_bytes = max_bytes
        self._fetcher = Fetcher(owner, samples.ranges, max_bytes=max_bytes, cache=cache)
        self.samples = samples.fetching(self._fetcher)
        # An item for each worker: appending and popping are atomic.
        self._workers: list[None] = []
        # Tickets that were announced, and whose tasks are not done.
        self._open: set[int] = set()

    def over(self, tasks: Iterator[Task]) -> Iterator[Task]:
        """Yield the tasks, and announce the samples of those that follow; drops what was announced before."""
        self._drop(math.inf)
        ahead: deque[tuple[Task, int, int]] = deque()
        nbytes = count = 0
        for task in tasks:
            needed = self.samples.needed(task.indices)
            size = self._ranges.nbytes(needed, _UNKNOWN_SIZE)
            self._open.add(self._ticket_of(task))
            self._fetcher.announce(self._ticket_of(task), needed)
            ahead.append((task, size, len(needed)))
            nbytes, count = nbytes + size, count + len(needed)
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
        # Other threads remove theirs meanwhile.
        for ticket in [*self._open]:
            if ticket < before:
                self.done(ticket)

    def done(self, ticket: int) -> None:
        """Drop what was fetched for a task and not used."""
        self._open.discard(ticket)
        self._fetcher.release(ticket)

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
