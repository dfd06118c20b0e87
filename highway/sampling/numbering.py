"""Numbering: which batch of which epoch has a number that is counted from the start of the first epoch."""

from __future__ import annotations

from bisect import bisect_right

from highway.sampling.schedules import Schedule

__all__ = ["Numbering"]


class Numbering:
    """Numbers the batches of all epochs, where epochs may have different numbers of batches.

    Parameters
    ----------
    counts : Schedule of int
        Batches in each epoch, 1 or more.

    Examples
    --------
    >>> from highway.sampling.schedules import schedule
    >>> numbering = Numbering(schedule({0: 10, 2: 5}))
    >>> [numbering.number_of(epoch) for epoch in range(4)]
    [0, 10, 20, 25]
    >>> numbering.at(27)
    (3, 2)
    """

    def __init__(self, counts: Schedule[int]) -> None:
        self.counts = counts
        # The number of the first batch of each epoch where the count changes.
        self._firsts = [0]
        for before, epoch, count in zip(counts.epochs, counts.epochs[1:], counts.stages, strict=False):
            self._firsts.append(self._firsts[-1] + (epoch - before) * count)

    @property
    def constant(self) -> bool:
        """Whether all epochs have the same number of batches."""
        return self.counts.constant

    def batches_in(self, epoch: int) -> int:
        """Return the number of batches in an epoch, 0 or more."""
        return self.counts.at(epoch)

    def number_of(self, epoch: int, seq: int = 0) -> int:
        """Return the number of batch `seq` of an epoch."""
        part = bisect_right(self.counts.epochs, epoch) - 1
        return self._firsts[part] + (epoch - self.counts.epochs[part]) * self.counts.stages[part] + seq

    def at(self, number: int) -> tuple[int, int]:
        """Return the epoch of a batch, and its number in this epoch."""
        part = bisect_right(self._firsts, number) - 1
        epochs, seq = divmod(number - self._firsts[part], self.counts.stages[part])
        return self.counts.epochs[part] + epochs, seq
