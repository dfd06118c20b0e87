"""Position: a place in the order of the data, which a saved state holds."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FRONT", "Position"]


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


FRONT = Position(0, 0)
"""The first batch of all."""
