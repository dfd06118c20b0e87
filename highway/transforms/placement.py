"""Placement: resizes windows of pictures to targets in images and mirrors them; its matrices and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.arguments.signatures import explain_new
from highway.transforms.geometry import clipped

__all__ = ["Placement", "axis_matrices", "mirror_ends"]

_NOT_MIRRORED = np.zeros((1, 2), np.bool_)
_NOT_MIRRORED.setflags(write=False)


@explain_new
class Placement(NamedTuple):
    """Maps N pictures to N images: a window of each picture is resized to a target; then the image may be mirrored.

    Attributes
    ----------
    windows : float64 (N, 4)
        x0, y0, x1, y1 in pixels of the upright picture; may be fractional.
    targets : int32 (N, 4)
        x0, y0, x1, y1 in pixels of the image, before it is mirrored.
    mirrored : bool (N, 2) or (1, 2)
        Whether the image is mirrored left to right, and top to bottom; one row for all images. By default none is.
    """

    windows: NDArray[np.float64]
    targets: NDArray[np.int32]
    mirrored: NDArray[np.bool_] = _NOT_MIRRORED

    def take(self, rows: NDArray[np.int64] | slice) -> Placement:
        """Return the placement of some of the pictures; `mirrored` must have a row for each."""
        return Placement(self.windows[rows], self.targets[rows], self.mirrored[rows])

    def matrices(self, size: tuple[int, int]) -> NDArray[np.float64]:
        """Return the matrices from pixels of the pictures to pixels of the images.

        Parameters
        ----------
        size : (int, int)
            Height and width of the images.

        Returns
        -------
        float64 (N, 3, 3)
            For homogeneous coordinates (x, y, 1).
        """
        scales, moves = [], []
        for axis in (0, 1):
            low, high = self.windows[:, axis], self.windows[:, 2 + axis]
            begin, end = self.targets[:, axis], self.targets[:, 2 + axis]
            scales.append((end - begin) / (high - low))
            moves.append(begin - low * scales[axis])
        return axis_matrices(scales, moves, self.mirrored, size)

    def boxes(
        self,
        boxes: NDArray[np.float64],
        owners: NDArray[np.int64],
        size: tuple[int, int],
        min_visible: float,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Map boxes of the pictures to the images, clipped to the targets.

        Parameters
        ----------
        boxes : float64 (M, 4)
            x0, y0, x1, y1 in pixels of the upright pictures.
        owners : int64 (M,)
            Picture of each box.
        size : (int, int)
            Height and width of the images.
        min_visible : float
            Smallest visible fraction of the area of a box that is kept, 0 to 1.

        Returns
        -------
        boxes : float32 (M, 4)
        kept : bool (M,)
            False for boxes with less than `min_visible` of their area, or no area, after clipping.
        """
        windows, targets = self.windows, self.targets
        scales = ((targets[:, 2:] - targets[:, :2]) / (windows[:, 2:] - windows[:, :2]))[owners]
        low, begin, end = windows[owners, :2], targets[owners, :2], targets[owners, 2:]
        first, last = ((corner - low) * scales + begin for corner in (boxes[:, :2], boxes[:, 2:]))
        found, kept = clipped(first, last, begin, end, min_visible)
        if self.mirrored.any():
            # Mirrored after rounding, as in the transforms, for the same bits.
            mirrored = np.broadcast_to(self.mirrored, (len(windows), 2))[owners]
            ends = found.astype(np.float64).reshape(-1, 2, 2)
            found = mirror_ends(ends, mirrored, np.array(size[::-1])).astype(np.float32).reshape(-1, 4)
        return found, kept

    def mirrored_targets(self, size: tuple[int, int]) -> NDArray[np.int32]:
        """Return the targets after the images of this height and width are mirrored, int32 (N, 4)."""
        if not self.mirrored.any():
            return self.targets
        ends = mirror_ends(self.targets.reshape(-1, 2, 2), self.mirrored, np.array(size[::-1], np.int32))
        return ends.reshape(-1, 4)


def mirror_ends(ends: NDArray[Any], axes: NDArray[np.bool_], sides: NDArray[Any]) -> NDArray[Any]:
    """Mirror boxes within images.

    Parameters
    ----------
    ends : (M, 2, 2)
        Upper left and lower right corners, (x, y).
    axes : bool (M, 2)
        Whether each is mirrored left to right, and top to bottom.
    sides : (2,) or (M, 2)
        Width and height of the images.

    Returns
    -------
    as ends, (M, 2, 2)
    """
    found = ends.copy()
    for axis in (0, 1):
        mirrored, side = axes[:, axis], sides[..., axis]
        if mirrored.any():
            low, high = ends[:, 0, axis], ends[:, 1, axis]
            found[:, 0, axis] = np.where(mirrored, side - high, low)
            found[:, 1, axis] = np.where(mirrored, side - low, high)
    return found


def axis_matrices(
    scales: Sequence[Any], moves: Sequence[NDArray[Any]], mirrored: NDArray[np.bool_], size: tuple[int, int]
) -> NDArray[np.float64]:
    """Return matrices that scale and move along x and y, then mirror the images.

    Parameters
    ----------
    scales, moves : two of (N,)
        Along x, and along y; one number for all images is enough for a scale.
    mirrored : bool (N, 2) or (1, 2)
        Whether the images are mirrored left to right, and top to bottom.
    size : (int, int)
        Height and width of the images.

    Returns
    -------
    float64 (N, 3, 3)
        For homogeneous coordinates (x, y, 1).
    """
    matrices = np.zeros((len(moves[0]), 3, 3))
    matrices[:, 2, 2] = 1
    for axis, (scale, move, side) in enumerate(zip(scales, moves, size[::-1], strict=True)):
        chosen = mirrored[:, axis]
        if chosen.any():
            scale, move = np.where(chosen, -scale, scale), np.where(chosen, side - move, move)
        matrices[:, axis, axis], matrices[:, axis, 2] = scale, move
    return matrices
