"""Window: a stage that crops sequences, such as tokens or audio: one window of each by random numbers, or all."""

from __future__ import annotations

from typing import Any

import numpy as np

from highway.arguments import chosen_seed
from highway.batch import Batch
from highway.engine import Module, Stage
from highway.engine.spec import Spec
from highway.errors import ArgumentError
from highway.modules.stages.ragged_rows import choice, field_name, joined, length_of, sample_of
from highway.sampling.identity import COPY_BITS, identities
from highway.sampling.rng import SampleRandom

__all__ = ["Window"]


class Window(Stage):
    """Crops the sequences of a ragged field to at most `length` rows.

    All fields that share the offsets of `field` are cropped to the same rows, such as the labels of tokens. Shorter
    sequences stay as they are; `PadRagged` pads them. It is one copy of each field, without the GIL.

    A random window is drawn from the seed and the identity of the sample (epoch and index), as the draws of
    `Augmentations` are: any number of workers, ranks or machines gives the same windows, also after resuming, and each
    epoch others. A Window counts as one transform.

    With `stride`, a sample becomes all of its windows, in their order: they begin at row 0, `stride`, 2 * `stride` and
    so on, and the last one ends with the sequence, so that no row at the end is missing. Each is a sample of the new
    batch, with the other fields and the key of its sample; its index has the number of the window as that of the copy
    (``batch.indices >> 32``). Batches keep their numbers and differ in size; `Rebatch` makes them equal.

    Parameters
    ----------
    field : str
        A ragged field or extra.
    length : int
        Most rows of a sample, 1 to 2**31 - 1.
    at : {"random", "start", "center", "end"}
        Where in longer sequences the window lies. "random": all places are equally likely. Not with `stride`.
    stride : int, optional
        Return all windows, so many rows apart: 1 to 2**31 - 1.
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
        An argument is out of range. While the pipeline runs, with `stride`: samples come several times in an epoch, by
        `repeats` or `weights` of the reader or another Window, so that the numbers of copies are in use.
    FieldError
        While the pipeline runs: the batch has no such field, or it is not ragged.

    Examples
    --------
    >>> batch = Batch({"tokens": np.arange(7)}, ragged={"tokens": [0, 5, 7]})
    >>> found = Window("tokens", 3, at="center").process(batch)
    >>> found.rows_of("tokens", 0).tolist(), found.rows_of("tokens", 1).tolist()
    ([1, 2, 3], [5, 6])
    >>> found = Window("tokens", 3, stride=1).process(batch)
    >>> [found.rows_of("tokens", row).tolist() for row in range(found.size)]
    [[0, 1, 2], [1, 2, 3], [2, 3, 4], [5, 6]]
    """

    def __init__(
        self,
        field: str,
        length: int,
        *,
        at: str = "random",
        stride: int | None = None,
        seed: int | None = 0,
        workers: int | None = None,
        queue_size: int | None = None,
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        self.field = field_name(self.name, field)
        self.length = length_of(self.name, "length", length)
        self.at = choice(self.name, "at", at, ("random", "start", "center", "end"))
        self.stride = None if stride is None else length_of(self.name, "stride", stride)
        if stride is not None and self.at != "random":
            raise ArgumentError(
                f"{self.name}: at is {at!r}, and stride {stride}; expected one of them: stride= returns all windows"
            )
        self.seed = chosen_seed(self.name, seed)
        self.seed_drawn = seed is None

    def __repr__(self) -> str:
        if self.stride is not None:
            return f"Window({self.field!r}, {self.length}, stride={self.stride})"
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
        if self.stride is not None:
            return self._all(batch, self.stride)
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

    def _all(self, batch: Batch, stride: int) -> Batch:
        """Return all windows of the sequences."""
        offsets = batch.offsets_of(self.field)
        copies = np.flatnonzero(batch.indices >> COPY_BITS)
        if len(copies):
            raise ArgumentError(
                f"{self.name}: {sample_of(batch, int(copies[0]))} of batch {batch.seq} is a copy in its epoch, and "
                "stride numbers windows as copies; expected each sample once: no repeats= or weights= of the reader, "
                "and no other Window with stride= before"
            )
        counts = np.diff(offsets)
        spare = counts - np.minimum(counts, self.length)
        windows = -(-spare // stride) + 1
        rows = np.repeat(np.arange(batch.size), windows)
        numbers = np.arange(len(rows)) - np.repeat(np.cumsum(windows) - windows, windows)
        starts = offsets[:-1][rows] + np.minimum(numbers * stride, spare[rows])
        kept = np.minimum(counts, self.length)[rows]
        beside = batch.ragged_with(self.field)
        # Without rows in these fields: whole sequences would be copied for each window.
        none = np.zeros_like(offsets)
        empty: dict[str, Any] = {name: batch[name][:0] for name in beside}
        ragged = {name: none if name in beside else batch.offsets_of(name) for name in batch.ragged}
        taken = batch.replace(**empty, ragged=ragged).take(rows)
        ends = np.concatenate(([0], np.cumsum(kept)))
        cropped: dict[str, Any] = {name: joined(batch[name], starts, kept) for name in beside}
        return taken.replace(
            **cropped,
            ragged={name: ends if name in beside else taken.offsets_of(name) for name in taken.ragged},
            indices=identities(taken.indices, numbers),
            keys=taken.keys or None,
            applied=batch.applied + 1,
        )
