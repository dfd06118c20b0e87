"""Makes batches in a thread pool, for peers that are not loaders: one task fills one batch."""

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.pool import ThreadPool
from typing import TypeVar

import numpy as np
from jobs import Job, list_files

FillSample = Callable[[str, random.Random, np.ndarray], None]
DecodedBatch = TypeVar("Made")


def index_batches(count: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Yield the tasks of endless epochs, each in a new random order; the last batch of an epoch may be smaller."""
    rng = random.Random(seed)
    order = list(range(count))
    while True:
        rng.shuffle(order)
        for start in range(0, count, batch_size):
            yield order[start : start + batch_size]


def thread_batches(
    directory: str, job: Job, threads: int, seed: int, fill: FillSample
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield endless (images, labels) batches from `threads` threads, at most 2 * `threads` tasks ahead.

    `fill(path, rng, out)` decodes one file and writes the finished sample into `out`, its place in the batch.
    """
    paths, labels, _ = list_files(directory)
    label_array = np.array(labels, np.int64)

    def make(number: int, indices: list[int]) -> tuple[np.ndarray, np.ndarray]:
        rng = random.Random(seed * 1_000_003 + number)
        images = np.empty(job.batch_shape(len(indices)), job.dtype)
        for index, out in zip(indices, images, strict=True):
            fill(paths[index], rng, out)
        return images, label_array[indices]

    return pooled(make, index_batches(len(paths), job.batch_size, seed), threads)


def pooled(
    make: Callable[[int, list[int]], DecodedBatch], tasks: Iterable[list[int]], threads: int
) -> Iterator[DecodedBatch]:
    """Yield the result of `make(number, task)` for each task, in order; at most 2 * `threads` tasks ahead."""
    pool = ThreadPool(threads)
    ahead = deque()
    try:
        for task in enumerate(tasks):
            ahead.append(pool.apply_async(make, task))
            if len(ahead) >= 2 * threads:
                yield ahead.popleft().get()
    finally:
        # Wait for running tasks: if the interpreter ends first, it aborts.
        pool.close()
        pool.join()
