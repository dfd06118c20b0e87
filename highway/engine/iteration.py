"""EpochIterator: iterates over one epoch of a pipeline."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol

from highway.batch import Batch
from highway.errors import EndOfData, PipelineStateError, QueueClosed

__all__ = ["EpochIterator", "superseded"]


class Epochs(Protocol):
    """What an iterator asks of the epochs of its pipeline; see `highway.engine.epochs`."""

    iteration: int

    def begin(self, iteration: EpochIterator) -> None: ...
    def take(self, *, before: int | None, reader: int | None) -> Batch: ...
    def take_uncounted(self, iteration: EpochIterator) -> Batch: ...
    def check_current(self, iteration: EpochIterator) -> None: ...
    def continue_empty(self, iteration: EpochIterator) -> bool: ...
    def length_of(self, iteration: EpochIterator) -> int: ...
    def stopped(self) -> BaseException: ...


class EpochIterator(Iterator[Batch]):
    """Yields the batches of one epoch of a pipeline; `Pipeline.epoch` and ``iter(pipeline)`` make it.

    The epoch begins with the first batch. Several threads may share one iterator: each batch goes to one of them.
    When another iterator of the same pipeline begins, this one ends and raises PipelineStateError.

    ``len()`` is the number of batches of the epoch; after `Pipeline.load_state_dict`, of those that remain. Batches
    whose samples were all skipped count too.

    Attributes
    ----------
    epoch : int or None
        Number of the epoch; None before the first batch if it is not known.
    over : bool
        Whether all of its batches were taken.
    """

    def __init__(self, epochs: Epochs, epoch: int | None) -> None:
        self._epochs = epochs
        self._lock = threading.Lock()
        self.over = False
        # The epoch that the user asked for, if any; `epoch` is known later.
        self.wanted = self.epoch = epoch
        # Set when the iteration begins: its number, whether the source knows its length, the ticket where it ends
        # (None: where the epoch number of the batches changes, or the data ends), the number of batches, whether it is
        # the rest of an epoch, and the epoch whose remaining batches it drops first.
        self.number: int | None = None
        self.is_counted = False
        self.end: int | None = None
        self.length: int | None = None
        self.resumed = False
        self.begin_after: int | None = None
        # Whether a thread has seen a batch of the epoch, and whether one has returned it.
        self.seen = self.yielded = False

    def __iter__(self) -> EpochIterator:
        return self

    def __len__(self) -> int:
        return self._epochs.length_of(self)

    def __next__(self) -> Batch:
        epochs = self._epochs
        if self.number is None:
            self._begin()
        while not self.over:
            end, batch = self.end, None
            try:
                if self.is_counted:
                    batch = epochs.take(before=end, reader=self.number)
                else:
                    batch = epochs.take_uncounted(self)
            except EndOfData:
                epochs.check_current(self)
                with self._lock:
                    # Another thread may have gone on with the next epoch in the meantime.
                    if self.end != end or (not self.yielded and epochs.continue_empty(self)):
                        continue
                    self.over = True
                break
            except QueueClosed:
                pass
            if self.number != epochs.iteration:
                raise superseded()
            if batch is None:
                raise epochs.stopped()
            self.yielded = True
            return batch
        raise StopIteration

    def _begin(self) -> None:
        with self._lock:
            # Another thread may have begun it in the meantime.
            if self.number is None:
                self._epochs.begin(self)

    def __repr__(self) -> str:
        return f"<EpochIterator, {'next epoch' if self.epoch is None else f'epoch {self.epoch}'}>"


def superseded() -> PipelineStateError:
    """Return the error of an iterator after another one has begun."""
    return PipelineStateError(
        "Pipeline: another iteration of this pipeline has begun, or a state was loaded, so this one has ended; threads "
        "that share an epoch share one iterator: epoch = iter(pipeline)"
    )
