"""Highway, as its README shows it."""

from collections.abc import Iterator

import numpy as np
from jobs import Job

from highway.engine import Pipeline
from highway.modules import Augmentations, ImageFileReader
from highway.transforms import FlipX, Normalize, RandomResizedCrop


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless (images, labels); there is one variant."""
    shape = (job.height, job.width)
    if job.name == "fit":
        reader = ImageFileReader(directory, job.batch_size, shape, seed=seed, workers=threads)
        augmentations = Augmentations([FlipX()], seed=seed)
    else:
        reader = ImageFileReader(
            directory, job.batch_size, shape, fit=RandomResizedCrop(), seed=seed, workers=threads
        )
        augmentations = Augmentations([FlipX(), Normalize()], seed=seed)
    with Pipeline([reader, augmentations]) as pipeline:
        yield from pipeline
