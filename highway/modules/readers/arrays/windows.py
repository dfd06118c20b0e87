"""Windows: where the windows of arrays lie, and the places of their parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from highway.arguments import whole
from highway.errors import ArgumentError

__all__ = ["Places", "Windows"]


class Places:
    """Where blocks of an array are.

    Attributes
    ----------
    corners : int64 (N, A)
        Where each block begins, along the first A axes.
    sides : tuple of int
        Lengths of a block along these axes; empty for single rows.
    """

    def __init__(self, corners: NDArray[np.int64], sides: tuple[int, ...] = ()) -> None:
        self.corners = corners
        self.sides = sides

    @classmethod
    def of_rows(cls, indices: NDArray[np.int64]) -> Places:
        return cls(indices[:, None])

    @property
    def axes(self) -> int:
        count: int = self.corners.shape[1]
        return count

    def __len__(self) -> int:
        return len(self.corners)


@dataclass(frozen=True)
class Windows:
    """The windows of an array, along its first axes, in C order.

    Attributes
    ----------
    sides : tuple of int
        Length of a window along each of these axes.
    steps : tuple of int
        Distance from one window to the next.
    """

    sides: tuple[int, ...]
    steps: tuple[int, ...]

    @classmethod
    def checked(cls, owner: str, window: object, stride: object) -> Windows:
        """Return the windows of the arguments `window` and `stride`.

        Raises
        ------
        ArgumentError
            They are not whole numbers from 1 on, or differ in length.
        """
        several = isinstance(window, (tuple, list))
        sides = _sizes(owner, "window", window)
        steps = _sizes(owner, "stride", stride)
        if not isinstance(stride, (tuple, list)):
            steps *= len(sides)
        if len(steps) != len(sides) or (not several and isinstance(stride, (tuple, list))):
            raise ArgumentError(
                f"{owner}: stride is {stride!r} for window {window!r}; expected one number, or one for each axis of "
                "the window"
            )
        return cls(sides, steps)

    def counts(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the number of windows along each axis of an array; 0 where it is shorter than a window."""
        return tuple(
            max(0, (length - side) // step + 1)
            for length, side, step in zip(shape, self.sides, self.steps, strict=False)
        )

    def places(self, indices: NDArray[np.int64], counts: tuple[int, ...]) -> Places:
        """Return the places of some windows among `counts` along each axis."""
        if len(counts) == 1:
            return Places((indices * self.steps[0])[:, None], self.sides)
        corners = np.empty((len(indices), len(counts)), np.int64)
        rest = indices
        for axis in range(len(counts) - 1, -1, -1):
            rest, place = np.divmod(rest, counts[axis])
            corners[:, axis] = place * self.steps[axis]
        return Places(corners, self.sides)

    def __str__(self) -> str:
        return " x ".join(map(str, self.sides))


def _sizes(owner: str, name: str, value: object) -> tuple[int, ...]:
    given = list(value) if isinstance(value, (tuple, list)) else [value]
    if not given:
        raise ArgumentError(f"{owner}: {name} is {value!r}; expected a whole number, or one for each axis")
    sizes = tuple(whole(owner, name, one, 1) for one in given)
    if math.prod(sizes) >= 1 << 62:
        raise ArgumentError(f"{owner}: {name} is {value!r}; expected less than 2**62 values")
    return sizes
