"""Highway, as in its README."""

from collections.abc import Iterator

import numpy as np
from jobs import Job

from highway.engine import Pipeline
from highway.modules import Augmentations, ImageFileReader
from highway.transforms import CenterFit, FlipX, Normalize, RandomResizedCrop


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels); the variant "" reads the files, others a store of them."""
    shape, fit, steps = (job.height, job.width), CenterFit(), [FlipX()]
    if job.name == "rrc":
        fit, steps = RandomResizedCrop(), [FlipX(), Normalize()]
    if variant:
        from highway.modules import LevelDBImageReader as Reader
    else:
        Reader = ImageFileReader
    reader = Reader(variant or directory, job.batch_size, shape, fit=fit, seed=seed, workers=threads)
    with Pipeline([reader, Augmentations(steps, seed=seed)]) as pipeline:
        yield from pipeline.forever()
