"""WindowedSampler: an order for data in shards that reads few shards at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core import philox
from highway.arguments import whole
from highway.sampling.position import Position
from highway.sampling.rng import SHARD_POSITION, WINDOW_POSITION
from highway.sampling.sampler import Sampler
from highway.sampling.schedules import BatchSize

__all__ = ["WindowedSampler"]

_MOST_SHARDS = 2**30


class _Epoch(NamedTuple):
    """The order of the shards in an epoch.

    Attributes
    ----------
    epoch : int
    shards : int64 (S,)
    ends : int64 (S,)
        Places of the epoch up to the end of each of them.
    window_ends : int64 (W,)
        The same for the windows.
    """

    epoch: int
    shards: NDArray[np.int64]
    ends: NDArray[np.int64]
    window_ends: NDArray[np.int64]


class WindowedSampler(Sampler):
    """Determines the order of samples that are in shards: shards at random, and samples at random within a window.

    An epoch is a permutation of the shards. Every `window` shards of it are a window, and the samples of a window are
    permuted. So samples of the same window come close to each other in an epoch, and samples of different windows are
    never mixed; the windows have other shards in every epoch. Everything else is as in `Sampler`: any place of any
    epoch is computed directly, from the sizes of the shards.

    Parameters
    ----------
    sizes : int64 (S,)
        Number of samples in each shard; sample numbers go through the shards in turn.
    window : int
        Shards in a window, 1 or more; the last window of an epoch may have fewer.
    batch_size, options
        See `Sampler`. A plan has no weights: draws do not stay within a window.

    Raises
    ------
    ArgumentError
        As `Sampler`.

    Examples
    --------
    >>> order = WindowedSampler(np.array([3, 2, 3]), 1, 8, epochs=1)
    >>> [sorted(order.indices(0, 0)[part].tolist()) for part in (slice(3), slice(3, 6), slice(6, 8))]
    [[5, 6, 7], [0, 1, 2], [3, 4]]
    """

    def __init__(self, sizes: NDArray[np.int64], window: int, batch_size: BatchSize, **options: Any) -> None:
        owner = options.get("owner", "WindowedSampler")
        super().__init__(int(sizes.sum()), batch_size, **options)
        whole(owner, "number of shards", len(sizes), 1, _MOST_SHARDS)
        self.window: int = whole(owner, "window", window, 1)
        self.sizes = sizes
        # Of the samples that are read: how many each shard has; shards without any are left away.
        self._counts = sizes
        if self._chosen is not None:
            self._chosen = np.sort(self._chosen)
            shards = np.searchsorted(np.cumsum(sizes), self._chosen, "right")
            self._counts = np.bincount(shards, minlength=len(sizes))
            self._counts = self._counts[self._counts > 0]
        self._firsts = np.cumsum(self._counts) - self._counts
        self._epoch: _Epoch | None = None

    def __repr__(self) -> str:
        return f"Windowed{super().__repr__()[:-1]}, window={self.window} of {len(self.sizes)} shards)"

    def fingerprint(self, *parts: Any) -> str:
        return super().fingerprint(
            repr((self.window, len(self.sizes))).encode(), self.sizes.tobytes(), *parts
        )

    def parts(self) -> tuple[bytes, ...]:
        return (self.sizes.tobytes(),)

    def _of_shard(self, shard: object, owner: str) -> Sampler:
        return WindowedSampler(self.sizes, self.window, self.batch_size, **self._options(shard, owner))

    def _shuffled(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        _, shards, ends, window_ends = self._shards_of(epoch)
        windows = np.searchsorted(window_ends, places, "right")
        for window in np.unique(windows).tolist():
            rows = np.flatnonzero(windows == window)
            first = int(window_ends[window - 1]) if window else 0
            inside = places[rows] - first
            size = int(window_ends[window]) - first
            philox.permute(self.seed, epoch, WINDOW_POSITION + window, size, inside, inside)
            places[rows] = inside + first
        # From places in the order of the shards to samples.
        turns = np.searchsorted(ends, places, "right")
        chosen = shards[turns]
        places += self._firsts[chosen] + self._counts[chosen] - ends[turns]
        return places

    def window_at(self, place: Position) -> int:
        """Return the number of the window of a place, in its epoch; 0 without shuffling."""
        if not self.shuffle:
            return 0
        position = place.position if self.plan is None else place.position // self.plan.repeats
        return int(np.searchsorted(self._shards_of(place.epoch).window_ends, position, "right"))

    def _shards_of(self, epoch: int) -> _Epoch:
        """Return the order of the shards in an epoch; that of the last one is kept."""
        found = self._epoch
        if found is None or found.epoch != epoch:
            shards = np.arange(len(self._counts), dtype=np.int64)
            philox.permute(self.seed, epoch, SHARD_POSITION, len(shards), shards, shards)
            ends = np.cumsum(self._counts[shards])
            last = np.minimum(np.arange(self.window, len(ends) + self.window, self.window), len(ends)) - 1
            self._epoch = found = _Epoch(epoch, shards, ends, ends[last])
        return found
