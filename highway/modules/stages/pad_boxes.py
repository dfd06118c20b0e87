"""PadBoxes: as many rows of boxes for every sample, for what takes no ragged arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.arguments import flag, whole
from highway.batch import Batch
from highway.engine import Stage
from highway.errors import ArgumentError, FieldError

__all__ = ["PadBoxes"]


class PadBoxes(Stage):
    """Gives every sample of a batch `most` boxes, where batches have ragged ones.

    Ragged arrays (M, ...) become (N, most, ...), in the order of the batch, and the field `counts`, int64 (N,), comes
    behind the others: what is beyond the count of a sample is 0 in `boxes`, -1 in `labels` and other whole numbers with
    a sign, 0 in any other numbers, False in flags.

    Parameters
    ----------
    most : int
        1 to 2**31 - 1.
    truncate : bool
        Leave out the last boxes of samples that have more; otherwise that is an error.
    workers : int, optional
        Threads; by default as many as help, up to one for each core that the process may use.
    queue_size : int
        Most batches that may be outstanding behind this module.

    Raises
    ------
    ArgumentError
        An argument is outside of what is allowed; or, while the pipeline runs, a sample has more boxes than `most`.

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
        self, most: int, *, truncate: bool = False, workers: int | None = None, queue_size: int = 4
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        self.most = whole(self.name, "most", most, 1, 2**31 - 1)
        self.truncate = flag(self.name, "truncate", truncate)

    @property
    def hands_over(self) -> bool:  # type: ignore[override]
        """Whether the next module may write into the arrays: some pass through."""
        return self.input_handed_over

    def __repr__(self) -> str:
        return f"PadBoxes({self.most}, truncate={self.truncate})"

    def process(self, batch: Batch) -> Batch:
        """A batch without ragged arrays.

        Raises
        ------
        FieldError
            The batch has no ragged arrays.
        ArgumentError
            A sample has too many boxes, or the batch has something called `counts` already.
        """
        if batch.offsets is None or not batch.ragged:
            raise FieldError(f"PadBoxes: {batch!r} has no boxes of differing number; expected ragged fields")
        if "counts" in batch:
            raise ArgumentError(
                f"PadBoxes: {batch!r} has counts already, which PadBoxes adds; expected no such field or extra: "
                "rename it"
            )
        counts = np.diff(batch.offsets)
        if not self.truncate and counts.max(initial=0) > self.most:
            row = int(np.argmax(counts))
            key = batch.keys[row] if batch.keys is not None else f"sample {batch.indices[row]}"
            raise ArgumentError(
                f"PadBoxes: {key} has {counts[row]} boxes, most is {self.most}; expected no more: use a larger one, or "
                "truncate=True"
            )
        owners = np.repeat(np.arange(batch.size), counts)
        places = np.arange(len(owners)) - batch.offsets[:-1][owners]
        kept = places < self.most
        counts = np.minimum(counts, self.most)

        def padded(name: str, array: NDArray[Any]) -> NDArray[Any]:
            if name not in batch.ragged:
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
        )
