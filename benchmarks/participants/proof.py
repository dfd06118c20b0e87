"""Checks that a participant returns the images that are counted."""

import numpy as np
from jobs import Job

# While measuring, one value in this many is read: enough to notice an empty batch, at no cost.
STRIDE = 1009
# levels that the mean colors of an image may be away from its file's; other filters and decoders stay within
# 3
SAME = 6.0


class Proof:
    """Checks every batch; an error raises ValueError with what was found and what was expected.

    Parameters
    ----------
    job : Job
        Gives shape and dtype.
    file_labels : list of int
        Label of every file.
    grids : ndarray or None
        float (files, 4, 5, 3): mean colors of a grid over every file's centered window, in the order of
        `file_labels`. With them, each checked image of the job "fit" must be one of the files,
        under its label, upright or mirrored.
    """

    def __init__(self, job: Job, file_labels: list[int], grids: np.ndarray | None = None):
        self.job = job
        self.file_labels = np.array(file_labels)
        self.grids = grids if job.name == "fit" else None
        self.labels: set[int] = set()
        self.distinct: set[float] = set()
        self.looked_at = 0
        self.strange = 0
        self.mirrored = 0
        self._sum = 0.0
        self._values = 0

    def check(self, images: np.ndarray, labels: np.ndarray) -> int:
        """Check one batch at little cost; return the number of samples in it."""
        samples = len(images)
        expected = self.job.batch_shape(samples)
        if images.shape != expected or not 0 < samples <= self.job.batch_size:
            raise ValueError(
                f"images have shape {images.shape}; "
                f"expected {self.job.batch_shape(self.job.batch_size)} or fewer"
            )
        if images.dtype != self.job.dtype or not images.flags.c_contiguous:
            raise ValueError(
                f"images are {images.dtype}, contiguous {images.flags.c_contiguous}; "
                f"expected {self.job.dtype}, True"
            )
        if np.shape(labels) != (samples,):
            raise ValueError(f"labels have shape {np.shape(labels)}; expected ({samples},)")
        sample = images.reshape(-1)[::STRIDE]
        if sample.min() == sample.max():
            raise ValueError(f"all pixels of a batch are {sample[0]}; expected photographs")
        self._sum += float(sample.sum(dtype=np.float64))
        self._values += sample.size
        self.labels.update(np.asarray(labels).tolist())
        return samples

    def look(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Read every pixel: no sample is constant, samples differ, and each is the file of its label."""
        flat = images.reshape(len(images), -1)
        if np.any(flat.min(axis=1) == flat.max(axis=1)):
            raise ValueError("an image is of one color; expected photographs")
        self.distinct.update(np.round(flat.mean(axis=1, dtype=np.float64), 4).tolist())
        self.looked_at += len(images)
        if self.grids is not None:
            for image, label in zip(images, labels, strict=True):
                self.recognize(image, label)

    def recognize(self, image: np.ndarray, label: int) -> None:
        """Search for an image among the files of its label."""
        rows, columns = self.grids.shape[1:3]
        height, width = image.shape[0] // rows, image.shape[1] // columns
        grid = image.reshape(rows, height, columns, width, 3).mean(axis=(1, 3))
        candidates = self.grids[self.file_labels == label]
        upright, mirrored = (
            np.abs(candidates - seen).mean(axis=(1, 2, 3)).min(initial=256) for seen in (grid, grid[:, ::-1])
        )
        self.strange += min(upright, mirrored) > SAME
        self.mirrored += mirrored < upright

    @property
    def mean(self) -> float:
        """Return the mean of the sampled pixels."""
        return self._sum / self._values

    def conclude(self) -> None:
        """Check the whole run; raise ValueError if a check fails."""
        low, high = (20.0, 235.0) if self.job.dtype == "uint8" else (-1.8, 2.2)
        if not low < self.mean < high:
            raise ValueError(f"mean pixel is {self.mean:.3f}; photographs have one between {low} and {high}")
        files = len(self.file_labels)
        if len(self.distinct) < min(files, self.looked_at) / 2:
            raise ValueError(
                f"found {len(self.distinct)} different images among {self.looked_at}, from {files} files"
            )
        known = set(self.file_labels.tolist())
        if not self.labels <= known or len(self.labels) < min(len(known), 2):
            raise ValueError(
                f"found the labels {sorted(self.labels)[:10]}; expected those of {len(known)} classes"
            )
        if self.grids is not None:
            if self.strange > self.looked_at / 20:
                raise ValueError(
                    f"{self.strange} of {self.looked_at} images are none of the files of their label"
                )
            if not 0.3 < self.mirrored / self.looked_at < 0.7:
                raise ValueError(f"{self.mirrored} of {self.looked_at} images are mirrored; expected half")
