"""Sizes of all pictures of a reader, before they are read: given, or read from their headers in several threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg.codec import BatchDecoder
from highway.arguments import whole
from highway.engine import usable_cores
from highway.errors import ArgumentError, HighwayError
from highway.modules.readers.pictures.other_picture import OtherPicture
from highway.modules.readers.samples import Samples
from highway.sampling.grouping import Grouping, grouping
from highway.sampling.schedules import BatchSize, Schedule
from highway.storage.outages import Outages
from highway.transforms.buckets import Buckets

__all__ = ["SizeReader", "bucket_grouping", "checked_sizes", "read_sizes"]

# Headers that a thread reads at a time.
_TOGETHER = 32
_START_BYTES = 1 << 16
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


class SizeReader:
    """Reads sizes of pictures from their headers, in one thread.

    Parameters
    ----------
    samples : Samples
    decoder : BatchDecoder
    exif : bool
        Whether the orientation of the EXIF data counts.
    other : callable
        Opens a picture for PIL, by its row in the decoder and the number of its sample; or returns its error.
    outages : Outages
        Repeats reads that failed with the storage.
    """

    def __init__(
        self,
        samples: Samples,
        decoder: BatchDecoder,
        exif: bool,
        other: Callable[[int, int], OtherPicture | HighwayError],
        outages: Outages,
    ) -> None:
        self._samples = samples
        self._decoder = decoder
        self._exif = exif
        self._other = other
        self._outages = outages

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return height and width of some pictures, int64 (N, 2); (0, 0) for those that are bad."""
        heads = self._by_starts(indices)
        sizes = heads[:, 1:]
        rest = np.flatnonzero(heads[:, 0])
        if not len(rest):
            return sizes

        def again(rows: NDArray[np.int64]) -> dict[int, HighwayError]:
            sizes[rest[rows]], found = self._in_full(indices[rest[rows]])
            return {int(rows[row]): error for row, error in found.items()}

        failures = again(np.arange(len(rest)))
        if failures:
            self._outages.retried(failures, again)
        return sizes

    def _by_starts(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return status, height and width of each picture by its first bytes."""
        starts = self._samples.starts(indices, _START_BYTES)
        try:
            return self._decoder.read_contents(_headers_in(starts), self._exif, 0).copy()
        finally:
            self._decoder.leave()

    def _in_full(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], dict[int, HighwayError]]:
        """Return height and width of each picture by its whole file, and the errors of bad ones by row."""
        try:
            heads, failures = self._samples.begin().read(self._decoder, indices, self._exif, 0)
            for row in np.flatnonzero(heads[:, 0]).tolist():
                found = failures.get(row) or self._other(row, indices[row])
                if isinstance(found, OtherPicture):
                    heads[row, 1:] = found.height, found.width
                else:
                    failures[row], heads[row, 1:] = found, 0
            return heads[:, 1:].copy(), failures
        finally:
            self._decoder.leave()


def read_sizes(owner: str, samples: Samples, reader: Callable[[], SizeReader]) -> NDArray[np.int64]:
    """Return height and width of all pictures, int64 (N, 2), read in several threads.

    Parameters
    ----------
    owner : str
        For errors.
    samples : Samples
    reader : callable
        Returns the reader of the calling thread.

    Raises
    ------
    ArgumentError
        The headers are not at hand.
    """
    if not samples.at_hand:
        raise ArgumentError(
            f"{owner}: sizes is missing: Buckets need height and width of each picture before it is read; "
            "expected them as an array of int (N, 2), since those of data at URLs and of pictures in Parquet files "
            "are not read from their headers"
        )
    found = np.zeros((samples.size, 2), np.int64)
    # Shared by the threads: each takes the next samples.
    firsts = iter(range(0, samples.size, _TOGETHER))

    def work(_: int) -> None:
        own = reader()
        for first in firsts:
            indices = np.arange(first, min(first + _TOGETHER, samples.size))
            found[indices] = own.read(indices)

    threads = min(usable_cores(), -(-samples.size // _TOGETHER))
    with ThreadPoolExecutor(threads, thread_name_prefix="highway sizes") as pool:
        # Raises what a thread raises.
        list(pool.map(work, range(threads)))
    return found


def _headers_in(starts: Sequence[bytes | None]) -> list[bytes | memoryview | None]:
    """Return those of the first bytes of pictures that may have the whole header; None for the others.

    PNGs and WebPs may have their orientation at the end.
    """
    return [
        start if start and (len(start) < _START_BYTES or start.startswith(b"\xff\xd8")) else None
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
