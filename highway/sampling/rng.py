"""Random draws per sample: the same for any number of threads, machines and batches.

Every draw depends only on (seed, epoch, index of the sample, position of the transform, number of the
draw): Philox4x32-10 with the seed as key and the rest as counter (J. Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from highway._core import philox
from highway.arguments import whole
from highway.errors import ArgumentError
from highway.sampling.identity import draw_numbers

__all__ = [
    "GROUP_POSITION",
    "ORDER_POSITION",
    "REPLACEMENT_POSITION",
    "SEED_POSITION",
    "SHARD_POSITION",
    "SPLIT_POSITION",
    "STEP_POSITION",
    "WEIGHT_POSITION",
    "WINDOW_POSITION",
    "SampleRandom",
]

ORDER_POSITION = 2**32 - 1
"""Position of the draws for the order of the data; no transform has it."""

REPLACEMENT_POSITION = 2**32 - 2
"""Position of the draws for replacements of bad samples; no transform has it."""

SHARD_POSITION = 2**32 - 3
"""Position of the draws for the order of shards; no transform has it."""

WEIGHT_POSITION = 2**32 - 4
"""Position of the draws of samples by their weights; no transform has it."""

SPLIT_POSITION = 2**32 - 5
"""Position of the draws for the parts of a split; no transform has it."""

SEED_POSITION = 2**32 - 16
"""Position of the draws that seed the random numbers of Python's libraries; no transform has it."""

WINDOW_POSITION = 2**31
"""Position of the draws for the order within the first window of shards; the other windows count on from there."""

GROUP_POSITION = 2**31 + 2**30
"""Position of the draws for the order within the first group of samples; the other groups count on from there."""

STEP_POSITION = GROUP_POSITION + 2**16
"""Position of the draws that mix the steps of the first group with those of others, which count on from there."""


class SampleRandom:
    """Random draws for every sample of a batch.

    Each call takes the next draws of every sample, the same number for all of them, so the draws of a sample
    do not depend on the other samples of its batch.

    Parameters
    ----------
    seed : int
        0 to 2**64 - 1.
    epoch : int
        0 to 2**32 - 1.
    indices : array_like of int, (N,)
        Index of each sample, as ``batch.indices``: its number in the data, 0 to 2**32 - 1, plus 2**32 times the number
        of its copy in the epoch. Copies of a sample have different draws.
    position : int
        Number of the transform in the pipeline, 0 to 2**32 - 1: the reader's fit is 0, later transforms count
        on from there. Those from 2**31 on are reserved for orders and replacements (`ORDER_POSITION`).

    Raises
    ------
    ArgumentError
        A number is out of range, or `indices` is not a 1-D array of integers.

    Examples
    --------
    >>> rng = SampleRandom(seed=0, epoch=0, indices=[4, 7], position=1)
    >>> rng.integers(0, 10)
    array([2, 4])
    >>> SampleRandom(seed=0, epoch=0, indices=[7], position=1).integers(0, 10)
    array([4])
    """

    def __init__(self, seed: int, epoch: int, indices: ArrayLike, position: int) -> None:
        self.seed = whole("SampleRandom", "seed", seed, 0, 2**64 - 1)
        self.epoch = whole("SampleRandom", "epoch", epoch, 0, 2**32 - 1)
        self.position = whole("SampleRandom", "position", position, 0, 2**32 - 1)
        found = np.asarray(indices)
        if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
            raise ArgumentError(
                f"SampleRandom: indices has shape {found.shape} and dtype {found.dtype}; "
                "expected integers, one per sample"
            )
        # The bitwise or is negative if an index is, and at least as large as the largest index.
        if found.size and not 0 <= (bits := int(np.bitwise_or.reduce(found))) < 2**32:
            if not 0 <= bits < 2**63:
                raise ArgumentError(
                    f"SampleRandom: indices run from {found.min()} to {found.max()}; "
                    "expected numbers from 0 to 2**63 - 1"
                )
            found = draw_numbers(found.astype(np.int64))
        # Shared by all objects that draw for these samples.
        self._indices: NDArray[np.uint32] = np.array(found, dtype=np.uint32)
        self._indices.flags.writeable = False
        self._taken = 0

    def at(self, position: int, seed: int | None = None) -> SampleRandom:
        """Return the draws of the same samples at another position, and optionally with another seed."""
        other = SampleRandom.__new__(SampleRandom)
        other.seed = self.seed if seed is None else whole("SampleRandom", "seed", seed, 0, 2**64 - 1)
        other.epoch = self.epoch
        other.position = whole("SampleRandom", "position", position, 0, 2**32 - 1)
        other._indices = self._indices
        other._taken = 0
        return other

    @property
    def indices(self) -> NDArray[np.uint32]:
        """Number by which each sample draws, its index unless it is a copy: uint32 (N,); read-only."""
        return self._indices

    def of(self, rows: ArrayLike) -> SampleRandom:
        """Return the draws of some of the samples, by their rows here, starting with the first draw."""
        other = self.at(self.position)
        other._indices = self._indices[np.asarray(rows)].reshape(-1)
        other._indices.flags.writeable = False
        return other

    def bytes(self, count: int) -> NDArray[np.uint8]:
        """Return random bytes, uint8 (N, count): the same in every call, and independent of the first two draws.

        Take no more than two draws at a position that you take bytes from.
        """
        found = np.empty((len(self), count), np.uint8)
        philox.noise(self.seed, self.epoch, self.position, self._indices, found)
        return found

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._indices)

    def __repr__(self) -> str:
        return (
            f"<SampleRandom of {len(self)} samples: seed {self.seed}, epoch {self.epoch}, "
            f"position {self.position}>"
        )

    def uniform(
        self, low: ArrayLike = 0.0, high: ArrayLike = 1.0, size: int | tuple[int, ...] | None = None
    ) -> NDArray[np.float64]:
        """Return uniformly distributed numbers between `low` and `high`, with 53 random bits.

        Parameters
        ----------
        low, high : float or array_like of float, (N,)
            `low` can occur; `high` only by rounding.
        size : int or tuple of int, optional
            Numbers per sample. By default one, and the result has no second axis.

        Returns
        -------
        float64 (N,) or (N, *size)
        """
        values = self._draw(size)
        unit = (values >> np.uint64(11)).astype(np.float64) * 2.0**-53
        least: object = low
        most: object = high
        if isinstance(least, (int, float)) and isinstance(most, (int, float)) and (least, most) == (0, 1):
            return unit
        lows = self._each("low", low, unit.ndim)
        highs = self._each("high", high, unit.ndim)
        return lows + (highs - lows) * unit

    def integers(self, low: ArrayLike, high: ArrayLike) -> NDArray[np.int64]:
        """Return uniformly distributed integers from `low` to `high` - 1 (to within their count / 2**64).

        Parameters
        ----------
        low, high : int or array_like of int, (N,)
            `high` is larger than `low` for every sample.

        Returns
        -------
        int64 (N,)

        Raises
        ------
        ArgumentError
            A bound is not a whole number, or the range of a sample is empty.
        """
        least: object = low
        end: object = high
        if type(least) is int and type(end) is int and -(2**63) <= least < end < 2**63:
            values = self._draw(None)
            philox.scale(values, np.full(len(self), end - least, np.uint64), values)
            return (values + np.uint64(least % 2**64)).astype(np.int64)
        lows = self._bounds("low", low)
        highs = self._bounds("high", high)
        if np.any(lows >= highs):
            row = int(np.argmax(lows >= highs))
            raise ArgumentError(
                f"SampleRandom.integers: low {lows[row]} and high {highs[row]} (sample {row} of the batch); "
                "expected low < high"
            )
        # Modulo 2**64: spans of more than 2**63 fit too.
        spans = highs.astype(np.uint64) - lows.astype(np.uint64)
        values = self._draw(None)
        philox.scale(values, spans, values)
        return (lows.astype(np.uint64) + values).astype(np.int64)

    def bernoulli(self, p: ArrayLike = 0.5) -> NDArray[np.bool_]:
        """Return True with probability `p`, independently for each sample.

        Parameters
        ----------
        p : float or array_like of float, (N,)
            0 to 1.

        Returns
        -------
        bool (N,)

        Raises
        ------
        ArgumentError
            `p` is outside of 0 to 1.
        """
        one: object = p
        if isinstance(one, float) and 0.0 <= one <= 1.0:
            return self.uniform() < one
        chances = self._each("p", p, 1)
        if not np.all((chances >= 0) & (chances <= 1)):
            raise ArgumentError(f"SampleRandom.bernoulli: p is {p!r}; expected probabilities from 0 to 1")
        return self.uniform() < chances

    def normal(
        self, loc: ArrayLike = 0.0, scale: ArrayLike = 1.0, size: int | tuple[int, ...] | None = None
    ) -> NDArray[np.float64]:
        """Return normally distributed numbers.

        Uses inversion (Algorithm AS 241) with exactly rounded operations, so the bits do not depend on the C
        library.

        Parameters
        ----------
        loc, scale : float or array_like of float, (N,)
            Mean and standard deviation.
        size : int or tuple of int, optional
            Numbers per sample. By default one, and the result has no second axis.

        Returns
        -------
        float64 (N,) or (N, *size)
        """
        values = self._draw(size)
        standard = np.empty(values.shape, dtype=np.float64)
        philox.normals(values.reshape(-1), standard.reshape(-1))
        return self._each("loc", loc, standard.ndim) + self._each("scale", scale, standard.ndim) * standard

    def _draw(self, size: int | tuple[int, ...] | None) -> NDArray[np.uint64]:
        shape = () if size is None else (size,) if isinstance(size, int) else tuple(size)
        count = math.prod(whole("SampleRandom", "size", length, 0) for length in shape)
        if self._taken + count > 2**33:
            raise ArgumentError(
                f"SampleRandom: {self._taken + count} draws per sample; expected at most 2**33 at one position"
            )
        values = np.empty((len(self), count), dtype=np.uint64)
        philox.draws(self.seed, self.epoch, self.position, self._indices, self._taken, values)
        self._taken += count
        return values.reshape(len(self), *shape)

    def _each(self, name: str, value: ArrayLike, ndim: int) -> NDArray[np.float64]:
        """Return `value` as an array that broadcasts with results of `ndim` axes, per sample."""
        values = np.asarray(value, dtype=np.float64)
        if values.ndim and values.shape != (len(self),):
            raise ArgumentError(
                f"SampleRandom: {name} has shape {values.shape}; "
                f"expected a number, or one for each of the {len(self)} samples"
            )
        return values.reshape(-1, *[1] * (ndim - 1)) if values.ndim else values

    def _bounds(self, name: str, value: ArrayLike) -> NDArray[np.int64]:
        values = np.asarray(value)
        if values.dtype.kind not in "iu" or values.shape not in ((), (len(self),)):
            raise ArgumentError(
                f"SampleRandom.integers: {name} is {value!r}; "
                f"expected a whole number, or one for each of the {len(self)} samples"
            )
        if values.size and int(values.max()) > 2**63 - 1:
            raise ArgumentError(f"SampleRandom.integers: {name} is {value!r}; expected at most 2**63 - 1")
        values = values.astype(np.int64)
        return values if values.ndim else np.full(len(self), values)
