"""Window: a stage that crops sequences, such as tokens or audio, by random numbers of their samples."""

from __future__ import annotations

from typing import Any

import numpy as np

from highway.arguments import chosen_seed
from highway.batch import Batch
from highway.engine import Module, Stage
from highway.engine.spec import Spec
from highway.modules.stages.ragged_rows import choice, field_name, joined, length_of
from highway.sampling.rng import SampleRandom

__all__ = ["Window"]


class Window(Stage):
    """Crops the sequences of a ragged field to at most `length` rows.

    All fields that share the offsets of `field` are cropped to the same rows, such as the labels of tokens. Shorter
    sequences stay as they are; `PadRagged` pads them. It is one copy of each field, without the GIL.

    A random window is drawn from the seed and the identity of the sample (epoch and index), as the draws of
    `Augmentations` are: any number of workers, ranks or machines gives the same windows, also after resuming, and each
    epoch others. A Window counts as one transform.

    Parameters
    ----------
    field : str
        A ragged field or extra.
    length : int
        Most rows of a sample, 1 to 2**31 - 1.
    at : {"random", "start", "center", "end"}
        Where in longer sequences the window lies. "random": all places are equally likely.
    seed : int or None
        0 to 2**64 - 1. None draws a seed, if no other machine needs the same one; the attribute `seed` has it, and it
        is logged.
    workers : int, optional
        Number of threads; by default set automatically, up to one for each core that the process may use.
    queue_size : int, optional
        Most batches that may wait after this module; by default 4, or more of small ones.

    Raises
    ------
    ArgumentError
        An argument is out of range.
    FieldError
        While the pipeline runs: the batch has no such field, or it is not ragged.

    Examples
    --------
    >>> batch = Batch({"tokens": np.arange(7)}, ragged={"tokens": [0, 5, 7]})
    >>> found = Window("tokens", 3, at="center").process(batch)
    >>> found.rows_of("tokens", 0).tolist(), found.rows_of("tokens", 1).tolist()
    ([1, 2, 3], [5, 6])
    """

    def __init__(
        self,
        field: str,
        length: int,
        *,
        at: str = "random",
        seed: int | None = 0,
        workers: int | None = None,
        queue_size: int | None = None,
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        self.field = field_name(self.name, field)
        self.length = length_of(self.name, "length", length)
        self.at = choice(self.name, "at", at, ("random", "start", "center", "end"))
        self.seed = chosen_seed(self.name, seed)
        self.seed_drawn = seed is None

    def __repr__(self) -> str:
        return f"Window({self.field!r}, {self.length}, at={self.at!r}, seed={self.seed})"

    @property
    def hands_over(self) -> bool:  # type: ignore[override]
        """Whether the next module may write into the arrays; some pass through, so the input decides."""
        return self.input_handed_over

    def for_run(self) -> Module:
        return self.copied()

    def out_spec(self, before: Spec | None) -> Spec | None:
        return before

    def process(self, batch: Batch) -> Batch:
        """Crop the sequences of a batch; see the class for what raises."""
        offsets = batch.offsets_of(self.field)
        counts = np.diff(offsets)
        kept = np.minimum(counts, self.length)
        spare = counts - kept
        if self.at == "random":
            random = SampleRandom(self.seed, batch.epoch, batch.indices, batch.applied)
            skipped = random.integers(0, spare + 1)
        else:
            skipped = {"start": 0 * spare, "center": spare // 2, "end": spare}[self.at]
        if not spare.any():
            return batch.replace(applied=batch.applied + 1)
        starts, ends = offsets[:-1] + skipped, np.concatenate(([0], np.cumsum(kept)))
        beside = batch.ragged_with(self.field)
        cropped: dict[str, Any] = {name: joined(batch[name], starts, kept) for name in beside}
        return batch.replace(
            **cropped,
            ragged={name: ends if name in beside else batch.offsets_of(name) for name in batch.ragged},
            applied=batch.applied + 1,
        )
