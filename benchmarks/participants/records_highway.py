"""Highway on records: from a store, or from an array in memory."""

import os
from collections.abc import Iterator

import numpy as np
from jobs import Job
from records import images_of

from highway.engine import Pipeline
from highway.modules import ArrayReader, Augmentations, LevelDBSource
from highway.transforms import FlipX, Normalize, RandomCrop


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels); variants: "" (automatic threads) and "fixed" (in each module)."""
    workers = threads if variant == "fixed" else None
    if job.name == "stored":
        reader = LevelDBSource(os.path.join(directory, "store"), job.batch_size, seed=seed, workers=workers)
    else:
        images = np.array(images_of(directory))
        reader = ArrayReader(images, np.arange(len(images)), job.batch_size, seed=seed, workers=workers)
    steps = [RandomCrop((job.height, job.width)), FlipX(), Normalize()]
    with Pipeline([reader, Augmentations(steps, seed=seed, workers=workers)]) as pipeline:
        yield from pipeline.forever()
