"""Checks a participant whose labels are the numbers of the photographs: each comes once in every epoch."""

import numpy as np
from jobs import MEAN, STD, Job
from proof import Proof

# Least correlation of the mean colors of windows with those of their photographs; windows of 8 to 100 % of the area
# have 0.8 or more, and those of other photographs about 0.
ALIKE = 0.5
# The range of normalized pixels, with room for the rounding of float32.
LOWEST, HIGHEST = ((value - np.array(MEAN)) / np.array(STD) for value in (-1e-4, 1 + 1e-4))


class NumberedProof(Proof):
    """Checks what `Proof` does, and that each photograph comes once an epoch and under its number.

    Parameters
    ----------
    job : Job
        "rrc".
    colors : ndarray
        float (files, 3): mean of each channel of each photograph, 0 to 1.
    """

    def __init__(self, job: Job, colors: np.ndarray):
        super().__init__(job, list(range(len(colors))))
        self.colors = (colors - np.array(MEAN)) / np.array(STD)
        self.times = np.zeros(len(colors), np.int64)
        self.seen = 0
        self._looked: list[tuple[np.ndarray, np.ndarray]] = []

    @property
    def epoch(self) -> int:
        """Number of samples in an epoch."""
        return len(self.times)

    def check(self, images: np.ndarray, labels: np.ndarray) -> int:
        """Check one batch, and count its samples."""
        samples = super().check(images, labels)
        numbers = np.asarray(labels)
        if numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() >= self.epoch:
            raise ValueError(f"found the labels {numbers[:10]}; expected numbers from 0 to {self.epoch - 1}")
        np.add.at(self.times, numbers, 1)
        self.seen += samples
        # The samples of all epochs so far, of which the last may be under way, add up to `seen`: if none comes too
        # often, none is missing at the end of an epoch.
        most = -(-self.seen // self.epoch)
        if self.times[numbers].max() > most:
            number = numbers[self.times[numbers].argmax()]
            raise ValueError(
                f"sample {number} came {self.times[number]} times among the first {self.seen}; "
                f"expected each of {self.epoch} once an epoch"
            )
        return samples

    def look(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Read every pixel: also their range, and the colors of each image."""
        super().look(images, labels)
        low, high = images.min(axis=(0, 2, 3)), images.max(axis=(0, 2, 3))
        if not (np.all(low >= LOWEST) and np.all(high <= HIGHEST)):
            raise ValueError(
                f"channels are from {low} to {high}; expected {LOWEST.round(3)} to {HIGHEST.round(3)} or less"
            )
        self._looked.append((np.array(labels), images.mean(axis=(2, 3), dtype=np.float64)))

    def conclude(self) -> None:
        """Check the whole run."""
        super().conclude()
        numbers, found = (np.concatenate(parts) for parts in zip(*self._looked, strict=True))
        alike = np.corrcoef(found.ravel(), self.colors[numbers].ravel())[0, 1]
        # Not alike either if all colors are equal, which has no correlation.
        if not alike >= ALIKE:
            raise ValueError(
                f"the colors of images and of the photographs of their labels have correlation {alike:.2f}; "
                f"expected {ALIKE} or more: the labels belong to other photographs"
            )
