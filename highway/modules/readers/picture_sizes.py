"""Sizes of all pictures of a reader, before they are read: given, or read from their headers in several threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.arguments import whole
from highway.engine import usable_cores
from highway.errors import ArgumentError
from highway.sampling.grouping import Grouping, grouping
from highway.sampling.schedules import BatchSize, Schedule
from highway.transforms.buckets import Buckets

__all__ = ["START_BYTES", "bucket_grouping", "checked_sizes", "headers_in", "read_sizes"]

# Headers that a thread reads at a time.
_TOGETHER = 32
START_BYTES = 1 << 16
"""Most of the headers of JPEGs are shorter, with EXIF data and a preview."""


def checked_sizes(owner: str, sizes: Any, count: int) -> NDArray[np.int64]:
    """Return the argument `sizes`: height and width of each of `count` pictures, int64 (N, 2).

    Raises
    ------
    ArgumentError
        It is no such array, or has negative numbers.
    """
    try:
        found = np.asarray(sizes)
    except ValueError:
        # Of rows that differ in length.
        found = np.zeros(0)
    if found.shape != (count, 2) or found.dtype.kind not in "iu" or found.min() < 0:
        raise ArgumentError(
            f"{owner}: sizes has shape {found.shape} and dtype {found.dtype}; expected whole numbers of 0 or more, "
            f"({count}, 2): height and width of each picture of the data, 0 where they are not known"
        )
    return found.astype(np.int64)


def read_sizes(
    count: int, reading: Callable[[], Callable[[NDArray[np.int64]], NDArray[np.int64]]]
) -> NDArray[np.int64]:
    """Return height and width of `count` pictures, int64 (N, 2).

    Parameters
    ----------
    count : int
    reading : callable
        Returns, in each thread, a function that reads the sizes of some samples, by their numbers.
    """
    found = np.zeros((count, 2), np.int64)
    # Shared by the threads: each takes the next samples.
    firsts = iter(range(0, count, _TOGETHER))

    def work(_: int) -> None:
        read = reading()
        for first in firsts:
            indices = np.arange(first, min(first + _TOGETHER, count))
            found[indices] = read(indices)

    threads = min(usable_cores(), -(-count // _TOGETHER))
    with ThreadPoolExecutor(threads, thread_name_prefix="highway sizes") as pool:
        # Raises what a thread raises.
        list(pool.map(work, range(threads)))
    return found


def headers_in(starts: Sequence[bytes | None]) -> list[bytes | memoryview | None]:
    """Return those of the first `START_BYTES` bytes of pictures that may have the whole header; None for the others.

    PNGs and WebPs may have their orientation at the end.
    """
    return [
        start if start and (len(start) < START_BYTES or start.startswith(b"\xff\xd8")) else None
        for start in starts
    ]


def bucket_grouping(
    owner: str, buckets: Buckets, sizes: NDArray[np.int64], batch_size: BatchSize
) -> Grouping:
    """Return the groups of the pictures: their buckets.

    A picture of unknown size is in the bucket of the most pictures, where it fails like any other bad sample.

    Raises
    ------
    ArgumentError
        The batch size is a schedule, or out of range.
    """
    if isinstance(batch_size, Schedule):
        raise ArgumentError(
            f"{owner}: batch_size is {batch_size!r}, with Buckets; expected a number, or batch_sizes= of Buckets"
        )
    # Also checked where the buckets have their own.
    size = whole(owner, "batch_size", batch_size, 1, 2**32)
    known = (sizes > 0).all(axis=1)
    groups = np.zeros(len(sizes), np.int64)
    groups[known] = buckets.nearest(*sizes[known].T)
    groups[~known] = np.argmax(np.bincount(groups[known], minlength=len(buckets.shapes)))
    of_buckets: Any = buckets.batch_sizes
    return grouping(owner, groups, [size] * len(buckets.shapes) if of_buckets is None else of_buckets)
