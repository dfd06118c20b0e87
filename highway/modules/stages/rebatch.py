"""Rebatch: a stage that makes batches of another size."""

from __future__ import annotations

from highway.arguments import flag, whole
from highway.batch import Batch
from highway.engine import Module, Stage
from highway.engine.spec import Spec

__all__ = ["Rebatch"]


class Rebatch(Stage):
    """Makes batches of `batch_size` samples, in their order, of batches of any size.

    An epoch ends with a smaller batch, unless `drop_last`; no batch has samples of two epochs. A batch has the epoch of
    its samples, its number in that epoch, and their indices and keys. Batches that lie within one that arrives are
    views of it; others are one copy.

    The number of batches in an epoch is known only at its end: ``len()`` of the pipeline raises UnknownLengthError.
    `Pipeline.state_dict` is exact: it has the samples of a batch that were used already, and its number. With several
    ranks, a state belongs to the rank that saved it.

    Parameters
    ----------
    batch_size : int
        1 to 2**32.
    drop_last : bool
        Drop a smaller batch at the end of an epoch.
    queue_size : int, optional
        Most batches that may wait after this module; by default 4, or more of small ones.

    Raises
    ------
    ArgumentError
        An argument is out of range. In a pipeline: it is unordered, begins with a ZMQSource, or ends in a ZMQSink or a
        sink that stores samples, which all count the batches of the reader.
    ContractError
        While the pipeline runs: batches have different fields, so that their samples do not fit into one batch.

    Examples
    --------
    >>> from highway.engine import Pipeline
    >>> from highway.modules import Noise
    >>> with Pipeline([Noise(4, (2, 2), size=10, epochs=1), Rebatch(6)]) as pipeline:
    ...     [batch.size for batch in pipeline]
    [6, 4]
    """

    regroups = True

    def __init__(self, batch_size: int, *, drop_last: bool = False, queue_size: int | None = None) -> None:
        super().__init__(workers=1, queue_size=queue_size)
        self.batch_size = whole(self.name, "batch_size", batch_size, 1, 2**32)
        self.drop_last = flag(self.name, "drop_last", drop_last)

    def __repr__(self) -> str:
        return f"Rebatch({self.batch_size}, drop_last={self.drop_last})"

    @property
    def hands_over(self) -> bool:  # type: ignore[override]
        """Whether the next module may write into the arrays; some are views of the input, which decides."""
        return self.input_handed_over

    def for_run(self) -> Module:
        return self.copied()

    def out_spec(self, before: Spec | None) -> Spec | None:
        return before

    def process(self, batch: Batch) -> Batch:
        """Return the batch; the pipeline divides and joins what this returns."""
        return batch
