"""Grouping: which samples may share a batch, and the batch size of each group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.arguments import whole
from highway.errors import ArgumentError
from highway.sampling.digests import digest

__all__ = ["MOST_GROUPS", "Grouping", "grouping"]

MOST_GROUPS = 2**16
"""Most groups of an order."""


class Grouping(NamedTuple):
    """The group of each sample, and the batch size of each group.

    Attributes
    ----------
    of_samples : int64 (N,)
        Number of the group of each sample of the data, from 0 to G - 1; a group may have no sample.
    batch_sizes : tuple of int, of length G
        Samples in a batch of each group, on each rank.
    hash : str
        Digest of `of_samples`, without the batch sizes, which may differ from those of a saved state.
    ascending: bool
        Whether a batch may have samples of lower groups, but none of higher ones, in place of bad samples; False for
        any.
    """

    of_samples: NDArray[np.int64]
    batch_sizes: tuple[int, ...]
    hash: str
    ascending: bool


def grouping(
    owner: str, of_samples: NDArray[np.int64], batch_sizes: Sequence[int], *, ascending: bool = False
) -> Grouping:
    """Return a checked grouping; see its attributes.

    Raises
    ------
    ArgumentError
        There are no groups or more than 65536, a batch size is below 1, or a number is that of no group.
    """
    count = whole(owner, "number of groups", len(batch_sizes), 1, MOST_GROUPS)
    sizes = tuple(whole(owner, "batch size of a group", size, 1, 2**32) for size in batch_sizes)
    found = np.array(of_samples, np.int64)
    if found.ndim != 1 or (len(found) and not 0 <= found.min() <= found.max() < count):
        raise ArgumentError(
            f"{owner}: the groups of the samples have shape {found.shape}; expected one number from 0 to {count - 1} "
            "for each sample"
        )
    found.flags.writeable = False
    return Grouping(found, sizes, digest(found.astype("<i8").tobytes()), ascending)
