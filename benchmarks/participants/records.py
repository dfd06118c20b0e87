"""The folder of records of store.py, and checks of the batches made from them.

It has the same random pictures in three forms, with their numbers as labels:

images.npy  uint8 (N, 256, 256, 3)
store       as LevelDBSink writes it
lmdb        as records_lmdb.py writes it, if measured
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from jobs import MEAN, STD, Job
from proof import Proof

SIZE = 256
APART = 1e-5


def images_of(folder: str) -> Any:
    """Map the pictures, copy-on-write: torch would warn of read-only memory."""
    return np.load(os.path.join(folder, "images.npy"), mmap_mode="c")


class RecordProof(Proof):
    """Checks as `Proof` does, and that every image is a window of the record of its label.

    Parameters
    ----------
    job : Job
    folder : str
    """

    def __init__(self, job: Job, folder: str):
        self.records = images_of(folder)
        super().__init__(job, list(range(len(self.records))))
        self.windows: set[tuple[int, int]] = set()

    def look(self, images: np.ndarray, labels: np.ndarray) -> None:
        super().look(images, labels)
        for image, label in zip(images, labels, strict=True):
            self.find(image, label)

    def find(self, image: np.ndarray, label: int) -> None:
        """Find an image in its record: upright or mirrored, and equal up to rounding."""
        record = self.records[label]
        height, width = image.shape[1:]
        down, right = record.shape[0] - height + 1, record.shape[1] - width + 1
        first = np.rint((image[:, 0, 0] * np.array(STD) + MEAN) * 255)
        for flip, ends in ((False, record[:down, :right]), (True, record[:down, width - 1 :])):
            for top, left in np.argwhere((ends == first).all(axis=2)).tolist():
                window = record[top : top + height, left : left + width, :]
                expected = (window[:, :: -1 if flip else 1] / 255 - MEAN) / STD
                if np.abs(image - expected.transpose(2, 0, 1)).max() <= APART:
                    self.mirrored += flip
                    self.windows.add((top, left))
                    return
        raise ValueError(f"an image with label {label} is no window of that record within {APART:g}")

    def conclude(self) -> None:
        super().conclude()
        if not 0.3 < self.mirrored / self.looked_at < 0.7:
            raise ValueError(f"{self.mirrored} of {self.looked_at} images are mirrored; expected half")
        if len(self.windows) < min(self.looked_at, 100) / 2:
            raise ValueError(
                f"found {len(self.windows)} windows among {self.looked_at}; expected one for each"
            )


class ValueProof:
    """Checks that values are the records of their numbers: batches are (total bytes, one value), numbers."""

    mean = None

    def __init__(self, job: Job, folder: str):
        self.records = images_of(folder)
        self.looked_at = 0
        self.numbers: set[int] = set()

    def check(self, read: tuple[int, bytes], numbers: list[int]) -> int:
        """Check one batch at little cost; return the number of values in it."""
        nbytes, last = read
        if nbytes != len(numbers) * len(last) or len(last) < SIZE * SIZE * 3:
            raise ValueError(f"{len(numbers)} values have {nbytes} bytes, and one has {len(last)}")
        self.numbers.update(numbers)
        return len(numbers)

    def look(self, read: tuple[int, bytes], numbers: list[int]) -> None:
        """Check that the record is in the value."""
        if self.records[numbers[-1]].tobytes() not in read[1]:
            raise ValueError(f"record {numbers[-1]} is not in the value under its number")
        self.looked_at += len(numbers)

    def conclude(self) -> None:
        if len(self.numbers) < min(self.looked_at, len(self.records)) / 2:
            raise ValueError(f"found {len(self.numbers)} values among {self.looked_at}")


class CountProof:
    """Checks only that arrays have the right size: for a copy."""

    looked_at, mean = 1 << 30, None

    def __init__(self, job: Job, folder: str):
        self.job = job

    def check(self, images: np.ndarray, labels: None) -> int:
        if images.shape != self.job.batch_shape(len(images)) or images.dtype != self.job.dtype:
            raise ValueError(f"found {images.dtype} {images.shape}")
        return len(images)

    def look(self, images: np.ndarray, labels: None) -> None:
        pass

    def conclude(self) -> None:
        pass
