"""Position: a place in the order of the data, which a saved state holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["FRONT", "GroupedPosition", "Position"]


class Position(NamedTuple):
    """A position in the data.

    Attributes
    ----------
    epoch : int
    position : int
        Number of places of the epoch's permutation that are done, on all ranks together.
    """

    epoch: int
    position: int


class GroupedPosition(Position):
    """A position where samples are in groups.

    Attributes
    ----------
    done : tuple of int
        Number of places of each group that are done, on all ranks together; `position` is their sum.
    """

    done: tuple[int, ...]

    @classmethod
    def of(cls, epoch: int, done: Iterable[int]) -> GroupedPosition:
        """Return the position after places of each group."""
        done = tuple(done)
        found = cls(epoch, sum(done))
        found.done = done
        return found


FRONT = Position(0, 0)
"""The first batch of all."""
