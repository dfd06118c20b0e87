"""Filter: a stage that drops samples by a predicate, and fills the batches up again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from highway.arguments import flag, whole
from highway.batch import Batch
from highway.engine import Module, Stage
from highway.engine.spec import Spec
from highway.engine.stats import PipelineStats
from highway.errors import ArgumentError, ContractError
from highway.modules.stages.ragged_rows import sample_of
from highway.modules.stages.sample_functions import function_of, naming, samples
from highway.sampling.grouped import GroupedSampler
from highway.sampling.schedules import Schedule, constant

__all__ = ["Filter"]


class Filter(Stage):
    """Keeps the samples for which a Python function returns True, and fills the batches up again.

    With `refill`, the samples that remain become batches of the size that the reader has, as by a `Rebatch` after it;
    see there for the last batch of an epoch, ``len()`` and saved states. Without it, a batch keeps its number and gets
    smaller, or is skipped if no sample remains: ``len()`` then counts all batches of the reader, as it does for skipped
    ones, and the pipeline may be unordered, and send or receive batches over the network.

    The function must return the same for the same sample, or a saved state does not continue at the same sample. It
    runs in one thread with `refill`; for one that takes long, put ``Filter(function, refill=False)`` and `Rebatch` into
    the pipeline. An exception of the function ends the pipeline as it is; a note names the batch, or index and key of
    the sample.

    Parameters
    ----------
    function : callable
        Called with a dict of the fields and extras of a sample: rows of ragged ones, elements of the others. Returns
        whether to keep it. Without `per_sample`, called with a `Batch`, and returns bool (N,).
    per_sample : bool
        Call it for every sample.
    refill : bool
        Fill the batches up again.
    batch_size : int, optional
        Samples of the refilled batches, 1 to 2**32. By default that of the reader, in each epoch, or of a stage between
        it and this one that regroups; it is needed where the source does not tell.
    drop_last : bool
        With `refill`: drop a smaller batch at the end of an epoch.
    workers : int, optional
        Number of threads, without `refill`; by default set automatically, up to one for each core that the process may
        use.
    queue_size : int, optional
        Most batches that may wait after this module; by default 4, or more of small ones.

    Raises
    ------
    ArgumentError
        An argument is out of range, or belongs to the other value of `refill`. In a pipeline with `refill`: as
        `Rebatch`; or the size of the batches is not known.
    ContractError
        While the pipeline runs: the function returned something else; or as `Rebatch`.

    Examples
    --------
    >>> from highway.engine import Pipeline
    >>> from highway.modules import Noise
    >>> odd = Filter(lambda sample: sample["labels"] % 2 == 1)
    >>> with Pipeline([Noise(4, (2, 2), size=20, epochs=1), odd]) as pipeline:
    ...     [(batch.size, set((batch.labels % 2).tolist())) for batch in pipeline]
    [(4, {1}), (2, {1})]
    """

    _sizes: Schedule[int] | None = None
    """Sizes of the batches of the reader, where `batch_size` is None."""

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        per_sample: bool = True,
        refill: bool = True,
        batch_size: int | None = None,
        drop_last: bool = False,
        workers: int | None = None,
        queue_size: int | None = None,
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        self.function = function_of(self.name, function)
        self.per_sample = flag(self.name, "per_sample", per_sample)
        self.regroups = flag(self.name, "refill", refill)
        self.drop_last = flag(self.name, "drop_last", drop_last)
        self.batch_size = None if batch_size is None else whole(self.name, "batch_size", batch_size, 1, 2**32)
        if not self.regroups and (self.drop_last or batch_size is not None):
            raise ArgumentError(
                f"{self.name}: refill is False, with batch_size={batch_size} and drop_last={drop_last}; expected these "
                "only with refill=True, which makes batches of other samples"
            )
        if self.regroups and self.workers not in (None, 1):
            raise ArgumentError(
                f"{self.name}: workers is {self.workers}; expected 1 with refill=True: use refill=False, and Rebatch "
                "after it"
            )

    def __repr__(self) -> str:
        return f"Filter({self.function!r}, per_sample={self.per_sample}, refill={self.regroups})"

    @property
    def hands_over(self) -> bool:  # type: ignore[override]
        """Whether the next module may write into the arrays; the function may keep them."""
        return False

    def for_run(self) -> Module:
        return self.copied()

    def most_workers(self) -> int:
        return 1 if self.regroups else super().most_workers()

    def out_spec(self, before: Spec | None) -> Spec | None:
        return before

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        """Find the size of the batches that the reader makes, unless it was given."""
        super().enter(modules, stats)
        if not self.regroups or self.batch_size is not None:
            return
        for module in modules:
            if module is self:
                break
            order = getattr(module, "order", module)
            found = getattr(order, "batch_size", None)
            # The largest of all groups would exceed the limit of `tokens`.
            if isinstance(found, (int, Schedule)) and not isinstance(order, GroupedSampler):
                self._sizes = constant(found) if isinstance(found, int) else found
        if self._sizes is None:
            grouped = isinstance(getattr(modules[0], "order", None), GroupedSampler)
            reason = (
                "has batches of one group each (Buckets or tokens)"
                if grouped
                else "does not say how large its batches are"
            )
            raise ArgumentError(
                f"{self.name}: batch_size is None, and {modules[0].name} {reason}; expected "
                f"{'' if grouped else 'batch_size=, or '}refill=False to leave the batches smaller"
            )

    def batch_size_in(self, epoch: int) -> int | None:
        return self.batch_size if self._sizes is None else self._sizes.at(epoch)

    def process(self, batch: Batch) -> Batch | None:
        """Return the samples that remain; None without any. See the class for what raises."""
        kept = self._kept(batch)
        if kept.all():
            return batch
        return batch.take(np.flatnonzero(kept)) if kept.any() else None

    def _kept(self, batch: Batch) -> Any:
        if not self.per_sample:
            with naming(self.name, batch):
                found = self.function(batch)
            if not isinstance(found, np.ndarray) or found.dtype != np.bool_ or found.shape != (batch.size,):
                shape = f" of shape {found.shape} and {found.dtype}" if isinstance(found, np.ndarray) else ""
                raise ContractError(
                    f"Filter: the function returned {type(found).__name__}{shape} for batch {batch.seq} of "
                    f"{batch.size} samples; expected an array of bool, one for each"
                )
            return found
        kept = np.zeros(batch.size, np.bool_)
        for row, sample in enumerate(samples(batch)):
            with naming(self.name, batch, row):
                answer = self.function(sample)
            if not isinstance(answer, (bool, np.bool_)):
                raise ContractError(
                    f"Filter: the function returned {answer!r} for {sample_of(batch, row)}; expected True or False"
                )
            kept[row] = answer
        return kept
