"""ReadAhead: fetches the samples of the next tasks of a reader, whose order is known."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

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

    def over(self, tasks: Iterator[Task]) -> Iterator[Task]:
        """Yield the tasks, and announce the samples of those that follow."""
        ahead: deque[tuple[Task, int, int]] = deque()
        nbytes = count = 0
        for task in tasks:
            needed = self.samples.needed(task.indices)
            size = self._ranges.nbytes(needed, _UNKNOWN_SIZE)
            self._fetcher.announce(self._ticket_of(task), needed)
            ahead.append((task, size, len(needed)))
            nbytes, count = nbytes + size, count + len(needed)
            while ahead and (nbytes >= self._max_bytes or count >= _MOST_AHEAD):
                first, size, samples = ahead.popleft()
                nbytes, count = nbytes - size, count - samples
                yield first
        while ahead:
            yield ahead.popleft()[0]

    def done(self, ticket: int) -> None:
        """Drop what was fetched for a task and not used."""
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
