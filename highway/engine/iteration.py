"""EpochIterator: iterates over one epoch of a pipeline."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from highway.batch import Batch
from highway.errors import EndOfData, PipelineStateError, QueueClosed

if TYPE_CHECKING:
    from highway.engine.pipeline import Pipeline

__all__ = ["EpochIterator"]


class EpochIterator(Iterator[Batch]):
    """Yields the batches of one epoch of a pipeline; `Pipeline.epoch` and ``iter(pipeline)`` make it.

    The epoch begins with the first batch. Several threads may share one iterator: each batch goes to one of them.
    An iterator ends when another one of the same pipeline begins, and then raises PipelineStateError.

    ``len()`` is the number of batches of the epoch; after `Pipeline.load_state_dict`, of those that remain. Batches
    whose samples were all skipped count too.

    Attributes
    ----------
    epoch : int or None
        Number of the epoch; None before the first batch if it is not known.
    """

    def __init__(self, pipeline: Pipeline, epoch: int | None) -> None:
        self._pipeline = pipeline
        self._lock = threading.Lock()
        self.epoch = epoch
        # Set by the pipeline when the iteration begins: its number, the ticket where it ends (None: where the epoch
        # number of the batches changes, or the data ends), the number of batches, whether it is the rest of an epoch,
        # and the epoch whose batches it drops first.
        self.number: int | None = None
        self.end: int | None = None
        self.length: int | None = None
        self.resumed = False
        self.begin_after: int | None = None
        self.yielded = False
        self._over = False

    def __iter__(self) -> EpochIterator:
        return self

    def __len__(self) -> int:
        return self._pipeline._length_of(self)

    def __next__(self) -> Batch:
        pipeline = self._pipeline
        if self.number is None:
            with self._lock:
                if self.number is None:
                    pipeline._begin_iteration(self)
        while not self._over:
            try:
                batch = pipeline._next_of(self)
            except EndOfData:
                pipeline._check_current(self)
                if not self.yielded:
                    with self._lock:
                        if not self.yielded and not self._over and pipeline._continues(self):
                            # The rest of a resumed epoch was skipped: the iterator has the next epoch.
                            continue
                self._over = True
                break
            except QueueClosed:
                pipeline._check_current(self)
                raise pipeline._outcome.error("iteration") from None
            self.yielded = True
            return batch
        raise StopIteration

    def __repr__(self) -> str:
        which = "next epoch" if self.epoch is None else f"epoch {self.epoch}"
        return f"<EpochIterator of {self._pipeline!r}, {which}>"


def superseded() -> PipelineStateError:
    """Return the error of an iterator after another one has begun."""
    return PipelineStateError(
        "Pipeline: another iteration of this pipeline has begun, or a state was loaded, so this one has ended; threads "
        "that share an epoch share one iterator: epoch = iter(pipeline)"
    )
