"""IterableSource: the samples of an iterable, in its order."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.batch import Batch
from highway.engine import Source
from highway.errors import EmptyDatasetError, PipelineStateError, SampleError
from highway.modules.readers.datasets.collation import Collator, Schema, Unfit
from highway.modules.readers.datasets.making import batch_of, filled
from highway.sampling.launchers import shard_of

__all__ = ["IterableSource"]


class _Portion(NamedTuple):
    """The samples of one batch, and their places in the iterable."""

    epoch: int
    seq: int
    indices: NDArray[np.int64]
    samples: list[Any]


class IterableSource(Source):
    """Runs a `DatasetReader` of an iterable. One worker at a time iterates; all of them collate.

    Rank r of `world` takes the samples r, r + world, ...: every rank iterates over all of them. The last samples are
    dropped if they are fewer than ranks, so that every rank has as many.

    Parameters
    ----------
    dataset : iterable
        Iterated anew in each epoch.
    batch_size : int
    epochs : int or None
    shard : object
    drop_last : bool
    collator : Collator
    workers, queue_size
        See `SourceOptions`.
    """

    name = "DatasetReader"
    hands_over = True

    def __init__(
        self,
        dataset: Iterable[Any],
        batch_size: int,
        epochs: int | None,
        shard: object,
        drop_last: bool,
        collator: Collator,
        workers: int | None,
        queue_size: int | None,
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        self._dataset = dataset
        self.batch_size = batch_size
        self.epochs = epochs
        self._shard = shard
        self._drop_last = drop_last
        self._collator = collator
        self._schema: Schema | None = None

    def __repr__(self) -> str:
        return f"<DatasetReader of a {type(self._dataset).__name__}, {self.batch_size}>"

    @property
    def shard(self) -> tuple[int, int]:
        return shard_of(self.name, self._shard)

    def state_dict(self) -> dict[str, Any]:
        raise PipelineStateError(_no_state(self.name, "save"))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        raise PipelineStateError(_no_state(self.name, "load"))

    def tasks(self) -> Iterator[_Portion]:
        for epoch in itertools.count() if self.epochs is None else range(self.epochs):
            found = 0
            for portion in self._portions(epoch):
                found += 1
                yield portion
            if not found:
                raise EmptyDatasetError(
                    f"{self.name}: the iterable gave too few samples for a batch in epoch {epoch}; expected some in "
                    "every epoch, so an object whose iter() begins again"
                )

    def _portions(self, epoch: int) -> Iterator[_Portion]:
        rank, world = self.shard
        indices: list[int] = []
        samples: list[Any] = []
        mine = None
        numbers = itertools.count()
        for index, sample in enumerate(self._samples()):
            if index % world == rank:
                mine = index, sample
            if index % world < world - 1:
                continue
            # All ranks have one more.
            assert mine is not None
            indices.append(mine[0])
            samples.append(mine[1])
            if len(samples) == self.batch_size:
                yield self._portion(epoch, next(numbers), indices, samples)
                indices, samples = [], []
        if samples and not self._drop_last:
            yield self._portion(epoch, next(numbers), indices, samples)

    def _portion(self, epoch: int, seq: int, indices: list[int], samples: list[Any]) -> _Portion:
        """Return the samples of a batch; the first good one of the first batch determines the schema."""
        wrong: SampleError | None = None
        for index, sample in zip(indices, samples, strict=True):
            if self._schema is not None or self._collator.collate is not None:
                break
            try:
                self._schema = self._collator.learn(index, sample)
            except Unfit as error:
                wrong = wrong or self._error(index, error)
        else:
            if wrong is not None and self._schema is None:
                raise wrong
        return _Portion(epoch, seq, np.array(indices, np.int64), samples)

    def _error(self, index: int, unfit: Unfit) -> SampleError:
        error = SampleError(f"{self.name}: sample {index} of the iterable {unfit}")
        error.__cause__ = unfit.__cause__
        return error

    def _samples(self) -> Iterator[Any]:
        index = 0
        try:
            for sample in self._dataset:
                yield sample
                index += 1
        except (Exception, SystemExit) as error:
            raise SampleError(
                f"{self.name}: the iterable raised {type(error).__name__} in place of sample {index}: {error}"
            ) from error

    def samples_in(self, task: _Portion) -> int:
        return len(task.samples)

    def load(self, task: _Portion) -> Batch:
        if self._collator.collate is not None:
            planned = self._collator.collated(task.samples)
        else:
            assert self._schema is not None
            planned, _, wrong = self._collator.plan(self._schema, task.samples)
            for row, error in wrong.items():
                raise self._error(int(task.indices[row]), error)
        return batch_of(*filled(planned), epoch=task.epoch, seq=task.seq, indices=task.indices)


def _no_state(name: str, verb: str) -> str:
    return (
        f"{name} has no state to {verb}: its dataset is an iterable, whose samples come in its own order and cannot be "
        "sought; expected a dataset with __len__ and __getitem__"
    )
