"""A copy of the bytes of a batch into memory that is used again."""

from collections.abc import Iterator

import numpy as np
from jobs import Job
from records import CountProof as proof

__all__ = ["batches", "proof"]


def batches(
    directory: str, job: Job, threads: int, variant: str, seed: int
) -> Iterator[tuple[np.ndarray, None]]:
    """Endless (images, None); there is one variant."""
    shape = job.batch_shape(job.batch_size)
    source, target = np.ones(shape, job.dtype), np.ones(shape, job.dtype)
    while True:
        np.copyto(target, source)
        yield target, None
