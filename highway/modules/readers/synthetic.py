"""Noise: generates random images, to measure a pipeline without a disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from highway._core import philox
from highway.arguments import size, whole
from highway.arguments.options import completed, takes
from highway.batch import Batch, empty
from highway.engine.spec import Spec, array_spec
from highway.errors import ArgumentError
from highway.modules.readers.options import SourceOptions
from highway.modules.readers.ordered import OrderedSource
from highway.sampling.rng import SampleRandom
from highway.sampling.sampler import Task
from highway.sampling.schedules import BatchSize

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Noise"]


@takes(SourceOptions)
class Noise(OrderedSource):
    """Generates batches ``images, labels`` of random bytes and random classes.

    Sample i has the same image and the same label in every epoch, in any batch and with any number of workers; they
    depend on the seed alone.

    Parameters
    ----------
    batch_size : int or Schedule
        Samples in a batch; the last batch of an epoch may have fewer, unless `drop_last`.
    shape : int, (int, int) or (int, int, int)
        Height, width and channels of the images; without channels there are 3. A number alone is a square.
    classes : int
        Labels are 0 to `classes` - 1.
    size : int
        Number of samples, 1 to 2**32.
    shuffle, seed, epochs, shard, drop_last, workers, queue_size
        See `SourceOptions`.

    Raises
    ------
    ArgumentError
        An argument is out of range.

    Examples
    --------
    >>> from highway.engine import Pipeline
    >>> with Pipeline([Noise(4, (2, 2), epochs=1, size=10)]) as pipeline:
    ...     [images.shape for images, labels in pipeline]
    [(4, 2, 2, 3), (4, 2, 2, 3), (2, 2, 2, 3)]
    """

    hands_over = True

    def __init__(
        self,
        batch_size: BatchSize,
        shape: int | tuple[int, int] | tuple[int, int, int],
        *,
        classes: int = 10,
        size: int = 1024,
        **options: Unpack[SourceOptions],
    ) -> None:
        options = completed(SourceOptions, options)
        super().__init__(workers=options["workers"], queue_size=options["queue_size"])
        self.shape = self.image_shape = _shape(shape)
        self.classes = whole("Noise", "classes", classes, 1, 2**32)
        self._size, self._given = whole("Noise", "size", size, 1, 2**32), options["seed"]
        self.order = self._ordered(size, batch_size, options)

    def __repr__(self) -> str:
        own = f"{self.order.batch_size}, {self.shape}, classes={self.classes}, size={self.order.data_size}"
        return f"Noise({own}{self._drawn()})"

    def contents(self) -> tuple[bytes, bytes]:
        return b"Noise", repr((self.shape, self.classes)).encode()

    def known_labels(self) -> NDArray[np.int64] | None:
        # A seed that is drawn is not known before the order.
        return None if self._given is None else self._labels(self._given, np.arange(self._size))

    def _labels(self, seed: int, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        # Position 0, where a reader draws its fit. Labels use block 0 of a sample, the image uses the others.
        return SampleRandom(seed, 0, numbers, 0).integers(0, self.classes)

    def out_spec(self, before: Spec | None) -> Spec:
        return {"images": array_spec(np.uint8, *self.shape), "labels": array_spec(np.int64)}

    def load(self, task: Task) -> Batch | None:
        """Generate a batch.

        Returns
        -------
        Batch or None
            images uint8 (n, H, W, C) and labels int64 (n,); None if all samples are skipped.
        """
        if not len(task.indices):
            return None
        count = len(task.indices)
        labels = self._labels(self.order.seed, task.numbers)
        images = empty((count, *self.shape), np.uint8)
        philox.noise(self.order.seed, 0, 0, task.numbers.astype(np.uint32), images.reshape(count, -1))
        return Batch(
            {"images": images, "labels": labels},
            epoch=task.epoch,
            seq=task.seq,
            indices=task.indices,
            applied=1,
        )


def _shape(shape: object) -> tuple[int, int, int]:
    values = shape.tolist() if isinstance(shape, np.ndarray) else shape
    if isinstance(values, (tuple, list)) and len(values) == 3:
        channels = whole("Noise", "shape[2]", values[2], 1, 65536)
        values = values[:2]
    else:
        channels = 3
    if isinstance(values, (tuple, list)) and len(values) != 2:
        raise ArgumentError(
            f"Noise: shape is {shape!r}; expected a whole number, (height, width) or (height, width, channels)"
        )
    height, width = size("Noise", "shape", values)
    if height * width * channels >= 2**35:
        raise ArgumentError(f"Noise: shape is {shape!r}; expected fewer than 2**35 values in an image")
    return height, width, channels
