"""Token batches: sequences of about the same length together, as many as a limit of values allows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from highway.arguments import number, whole
from highway.errors import ArgumentError
from highway.sampling.grouping import Grouping, grouping

__all__ = ["TokenBatches", "tokens"]

_NAME = "tokens"


class TokenBatches:
    """How sequences are batched by their lengths; `tokens` makes it.

    Attributes
    ----------
    limit : int
    lengths : int64 (N,), read-only
    width : float
    """

    def __init__(self, limit: int, lengths: NDArray[np.int64], width: float) -> None:
        self.limit, self.lengths, self.width = limit, lengths, width

    def __repr__(self) -> str:
        return f"tokens({self.limit}, <lengths of {len(self.lengths)} samples>, width={self.width})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenBatches) and (self.limit, self.width, self.lengths.tobytes()) == (
            other.limit,
            other.width,
            other.lengths.tobytes(),
        )

    def __hash__(self) -> int:
        return hash((self.limit, self.width, len(self.lengths)))

    def grouping(self, owner: str, size: int) -> Grouping:
        """Return the groups of `size` samples, numbered by their lengths.

        Raises
        ------
        ArgumentError
            There is another number of lengths.
        """
        if len(self.lengths) != size:
            raise ArgumentError(
                f"{owner}: batch_by has {len(self.lengths)} lengths; expected {size}, one for each sample of the data, "
                "also for those that subset or split drop"
            )
        bounds = _bounds(int(self.lengths.max()), self.width)
        groups = np.searchsorted(bounds, self.lengths)
        longest = np.zeros(len(bounds), np.int64)
        np.maximum.at(longest, groups, self.lengths)
        sizes = (self.limit // np.maximum(longest, 1)).tolist()
        return grouping(owner, groups, sizes, ascending=True)


def tokens(limit: int, lengths: ArrayLike, *, width: float = 1.12) -> TokenBatches:
    """Batch sequences by their lengths, the argument `batch_by` of a reader.

    A batch has samples of about the same length, and so many that the batch, padded to its longest sample, has at most
    `limit` values. All ranks have the same number of samples at each step, of the same group of lengths.

    Parameters
    ----------
    limit : int
        Most values in a batch of one rank, 1 or more: its number of samples times the longest length.
    lengths : array_like of int, (N,)
        Length of each sample of the data, 0 to `limit`.
    width : float
        1.01 to 16: ratio of the lengths in a group, the longest to the shortest. Smaller ones pad less, and leave more
        groups with an incomplete last batch.

    Returns
    -------
    TokenBatches

    Raises
    ------
    ArgumentError
        An argument is out of range, or a sample is longer than `limit`.

    Examples
    --------
    >>> from highway.engine import Pipeline
    >>> from highway.modules import DatasetReader
    >>> texts = [[1] * length for length in (3, 9, 3, 8, 3, 3, 9)]
    >>> by = tokens(18, [len(text) for text in texts])
    >>> with Pipeline([DatasetReader(texts, batch_by=by, shuffle=False, epochs=1)]) as pipeline:
    ...     [batch.indices.tolist() for batch in pipeline]
    [[0, 2, 4, 5], [1, 6], [3]]
    """
    limit = whole(_NAME, "limit", limit, 1, 2**32)
    width = number(_NAME, "width", width, 1.01, 16)
    given: Any = lengths
    try:
        found = np.asarray(given)
    except ValueError:
        found = np.zeros((0, 0))
    if found.ndim != 1 or not len(found) or found.dtype.kind not in "iu":
        raise ArgumentError(
            f"{_NAME}: lengths is a {type(given).__name__} of shape {found.shape} and dtype {found.dtype}; expected "
            "one whole number for each sample"
        )
    wrong = np.flatnonzero((found < 0) | (found > limit))
    if len(wrong):
        index = int(wrong[0])
        raise ArgumentError(
            f"{_NAME}: lengths[{index}] is {found[index]}, as are {len(wrong) - 1} others out of range; expected 0 to "
            f"the limit, {limit}: raise the limit, cut the sample, or drop it from the data"
        )
    found = found.astype(np.int64)
    found.flags.writeable = False
    return TokenBatches(limit, found, width)


def _bounds(longest: int, width: float) -> NDArray[np.int64]:
    """Return the longest length of each group, ascending; they depend on `width` alone, and end with `longest`."""
    bounds = [1]
    while bounds[-1] < longest:
        # The shortest length of the next group is one more.
        bounds.append(math.floor((bounds[-1] + 1) * width))
    return np.array(bounds)
