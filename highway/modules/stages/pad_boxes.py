"""PadBoxes: a stage that pads ragged boxes to the same number for every sample."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.arguments import flag, whole
from highway.batch import Batch
from highway.engine import Module, Stage
from highway.engine.spec import FieldSpec, Spec, array_spec
from highway.errors import ArgumentError, FieldError
from highway.modules.stages.ragged_rows import sample_of

__all__ = ["PadBoxes"]


class PadBoxes(Stage):
    """Pads the ragged boxes of a batch to `most` boxes for every sample.

    Ragged arrays (M, ...) become (N, most, ...), in the order of the batch, and the field `counts`, int64 (N,), is
    added after the others. Padding is 0 in `boxes`, -1 in `labels` and other signed integers, 0 in other numbers, False
    in flags. Where ragged arrays have different offsets, those that do not share the offsets of `boxes` stay ragged;
    `PadRagged` pads them.

    Parameters
    ----------
    most : int
        Number of boxes of every sample, 1 to 2**31 - 1.
    truncate : bool
        Drop the last boxes of samples that have more than `most`; by default these samples raise.
    workers : int, optional
        Number of threads; by default set automatically, up to one for each core that the process may use.
    queue_size : int, optional
        Most batches that may wait after this module; by default 4, or more of small ones.

    Raises
    ------
    ArgumentError
        An argument is out of range; or, while the pipeline runs, a sample has more boxes than `most`.

    Examples
    --------
    >>> batch = Batch(
    ...     {"labels": np.array([5, 6, 7]), "boxes": np.ones((3, 4), np.float32)},
    ...     offsets=[0, 1, 3],
    ...     ragged=("labels", "boxes"),
    ... )
    >>> labels, boxes, counts = PadBoxes(3).process(batch)
    >>> labels.tolist(), boxes.shape, counts.tolist()
    ([[5, -1, -1], [6, 7, -1]], (2, 3, 4), [1, 2])
    """

    def __init__(
        self, most: int, *, truncate: bool = False, workers: int | None = None, queue_size: int | None = None
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        self.most = whole(self.name, "most", most, 1, 2**31 - 1)
        self.truncate = flag(self.name, "truncate", truncate)

    @property
    def hands_over(self) -> bool:  # type: ignore[override]
        """Whether the next module may write into the arrays; some pass through, so the input decides."""
        return self.input_handed_over

    def __repr__(self) -> str:
        return f"PadBoxes({self.most}, truncate={self.truncate})"

    def for_run(self) -> Module:
        return self.copied()

    def out_spec(self, before: Spec | None) -> Spec | None:
        if before is None:
            return None
        boxes = before.get("boxes")
        spec = {
            name: FieldSpec(field.dtype, (None, self.most, *field.shape[1:]))
            if field.ragged and field.shape is not None and (boxes is None or field.rows == boxes.rows)
            else field
            for name, field in before.items()
        }
        return {**spec, "counts": array_spec(np.int64)}

    def process(self, batch: Batch) -> Batch:
        """Pad the ragged arrays of a batch.

        Raises
        ------
        FieldError
            The batch has no ragged arrays, or several with different offsets and no boxes.
        ArgumentError
            A sample has too many boxes, or the batch already has a field or extra `counts`.
        """
        if not batch.ragged:
            raise FieldError(f"PadBoxes: {batch!r} has no boxes of differing number; expected ragged fields")
        if batch.offsets is None and "boxes" not in batch.ragged:
            raise FieldError(
                f"PadBoxes: {batch!r} has no boxes, and its ragged fields have different offsets; expected boxes: use "
                "PadRagged(field) for each field"
            )
        names = batch.ragged if "boxes" not in batch.ragged else batch.ragged_with("boxes")
        offsets = batch.offsets_of(min(names))
        if "counts" in batch:
            raise ArgumentError(
                f"PadBoxes: {batch!r} has counts already, which PadBoxes adds; expected no such field or extra: "
                "rename it"
            )
        counts = np.diff(offsets)
        if not self.truncate and counts.max(initial=0) > self.most:
            row = int(np.argmax(counts))
            raise ArgumentError(
                f"PadBoxes: {sample_of(batch, row)} has {counts[row]} boxes, most is {self.most}; expected no more: "
                "use a larger one, or truncate=True"
            )
        owners = np.repeat(np.arange(batch.size), counts)
        places = np.arange(len(owners)) - offsets[:-1][owners]
        kept = places < self.most
        counts = np.minimum(counts, self.most)

        def padded(name: str, array: NDArray[Any]) -> NDArray[Any]:
            if name not in names:
                return array
            out = np.zeros((batch.size, self.most, *array.shape[1:]), array.dtype)
            if array.dtype.kind == "i":
                out.fill(-1)
            out[owners[kept], places[kept]] = array[kept]
            return out

        return Batch(
            {**{name: padded(name, array) for name, array in batch.fields.items()}, "counts": counts},
            epoch=batch.epoch,
            seq=batch.seq,
            indices=batch.indices,
            keys=batch.keys,
            applied=batch.applied,
            extras={name: padded(name, array) for name, array in batch.extras.items()},
            ragged={name: batch.offsets_of(name) for name in batch.ragged - names},
        )
