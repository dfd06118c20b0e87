"""StoringSink: writes batches to storage and resumes an interrupted run; base of the sinks that store samples."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from highway.batch import Batch
from highway.engine import Failure, Module, Outlet, Source
from highway.engine.stats import PipelineStats
from highway.errors import PipelineStateError
from highway.sampling.sampler import Task

__all__ = ["SampleWriter", "StoringSink"]


class SampleWriter(Protocol):
    """What a `StoringSink` writes to, from one thread.

    Attributes
    ----------
    count : int
        Number of samples that are stored or wait to be written.
    before : int
        Number of samples that were stored before this writer.
    """

    count: int
    before: int

    def has(self, epoch: int, index: int) -> bool:
        """Whether a sample is stored, or waits to be written."""

    def add(self, batch: Batch) -> None:
        """Add the samples of a batch that are not stored yet."""

    def finish(self) -> None:
        """Write everything, and mark it as complete."""

    def close(self) -> None:
        """Write what was added, and close; a second call does nothing."""


class StoringSink(Outlet):
    """Gives the samples of every batch to a `SampleWriter`; neither reads nor writes samples that it has already.

    A subclass defines `make_writer`.
    """

    def __init__(self) -> None:
        super().__init__(workers=1)
        self._writer: SampleWriter | None = None
        self._source: Source | None = None
        self._length: int | None = None
        self._exhausted = False
        self._latest: StoringSink | None = None
        # Numbers of the running tasks, by ticket.
        self._numbers: dict[int, int] = {}
        # The thread that acquires it closes the writer: the worker, or an interrupt before there is a worker. No thread
        # waits for it, because a finalizer may interrupt.
        self._closer = threading.Lock()

    def make_writer(self, source: Source) -> SampleWriter:
        """Open the storage for the samples of a source. Runs when the pipeline is made."""
        raise NotImplementedError(f"{self.name} must define make_writer(source)")

    def for_run(self) -> Module:
        self._latest = run = self.copied()
        run._latest = None
        return run

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        source = modules[0]
        assert isinstance(source, Source)
        self._source = source
        self._numbers = {}
        # A pipeline that failed to start has interrupted this module, and so acquired the lock.
        self._closer = threading.Lock()
        self._writer = self.make_writer(source)

    @property
    def stored(self) -> int:
        """Number of samples that are stored or wait to be written; 0 before the pipeline is made."""
        writer = (self._latest or self)._writer
        return 0 if writer is None else writer.count

    @property
    def begun_with(self) -> int:
        """Number of samples that were stored when the pipeline was made."""
        writer = (self._latest or self)._writer
        return 0 if writer is None else writer.before

    @property
    def _open_writer(self) -> SampleWriter:
        assert self._writer is not None
        return self._writer

    def tasks_of(self, source: Source, length: int | None) -> Iterator[Any]:
        self._length = length
        ticket = 0
        for place, task in enumerate(source.tasks()):
            if isinstance(task, Task) and self._there(task):
                continue
            self._numbers[ticket] = place
            ticket += 1
            yield task
        self._exhausted = True

    def _there(self, task: Task) -> bool:
        writer = self._open_writer
        return all(writer.has(task.epoch, index) for index in task.indices.tolist())

    def identity(self, ticket: int) -> tuple[int, int]:
        place = self._numbers[ticket]
        assert self._source is not None
        return self._source.batch_at(place) if self._length else (0, place)

    def carry(self, ticket: int, outcome: Batch | Failure | None) -> None:
        del self._numbers[ticket]
        if isinstance(outcome, Failure):
            if sys.version_info >= (3, 11):
                outcome.error.add_note(f"In module {outcome.module}, upstream of this one:")
            raise outcome.error
        source = self._source
        assert source is not None
        if source.follows_delivery and not source.delivered(ticket):
            return
        if outcome is not None:
            self._open_writer.add(outcome)

    def drain(self) -> None:
        # If `Pipeline.drain` ended the tasks early, the storage is not complete.
        if self._exhausted:
            self._open_writer.finish()

    def open(self) -> None:
        if not self._closer.acquire(blocking=False):
            raise PipelineStateError(f"{self.name}: the pipeline was stopped")

    def interrupt(self) -> None:
        if self._closer.acquire(blocking=False) and self._writer is not None:
            self._writer.close()

    def close(self) -> None:
        self._open_writer.close()
