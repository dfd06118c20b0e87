"""Geometry: maps pixels of images to the output, and transforms boxes, masks and keypoints accordingly."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core.pixels import warp
from highway.batch import empty

__all__ = ["Geometry", "as_bytes", "clipped", "inside", "inverse", "product"]


class Geometry(NamedTuple):
    """Maps pixels of N images to the output.

    Coordinates are continuous: the pixel in column x and row y covers x to x + 1 and y to y + 1.

    Attributes
    ----------
    matrices : float64 (N, 3, 3)
        Map homogeneous coordinates (x, y, 1) of the image to those of the output.
    height, width : int
        Size of the output.
    targets : float64 (N, 4), optional
        x0, y0, x1, y1 of the output area that shows the image; by default the whole output.
    """

    matrices: NDArray[np.float64]
    height: int
    width: int
    targets: NDArray[np.float64] | None = None

    def points(self, points: NDArray[Any], owners: NDArray[np.int64]) -> NDArray[np.float64]:
        """Move points; they may end outside the output.

        Parameters
        ----------
        points : (M, ..., 2)
            x and y.
        owners : int64 (M,)
            Index of the image of each row.

        Returns
        -------
        float64 (M, ..., 2)
        """
        matrices = self.matrices[owners].reshape(len(points), *[1] * (points.ndim - 2), 3, 3)
        x, y = points[..., 0].astype(np.float64), points[..., 1].astype(np.float64)
        # Written out so that every CPU gives the same bits.
        right, down, scale = (
            matrices[..., row, 0] * x + matrices[..., row, 1] * y + matrices[..., row, 2] for row in range(3)
        )
        found: NDArray[np.float64] = np.stack((right / scale, down / scale), axis=-1)
        return found

    def boxes(
        self, boxes: NDArray[np.float32], owners: NDArray[np.int64], min_visible: float
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the smallest axis-aligned boxes around the moved boxes, clipped to the visible output.

        Parameters
        ----------
        boxes : float32 (M, 4)
            x0, y0, x1, y1.
        owners : int64 (M,)
            Index of the image of each box.
        min_visible : float
            Smallest visible fraction of the area of a box that is kept, 0 to 1.

        Returns
        -------
        boxes : float32 (M, 4)
        kept : bool (M,)
            False for boxes with less than `min_visible` of their area, or no area, after clipping.
        """
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
        moved = self.points(corners, owners)
        low, high = moved.min(axis=1), moved.max(axis=1)
        if self.targets is None:
            return clipped(low, high, 0.0, (self.width, self.height), min_visible)
        targets = self.targets[owners]
        return clipped(low, high, targets[:, :2], targets[:, 2:], min_visible)

    def masks(self, masks: NDArray[Any], fill: int) -> NDArray[Any]:
        """Move masks: each output pixel takes the nearest source pixel, or `fill` outside the image.

        Parameters
        ----------
        masks : (N, H, W) or (N, H, W, C)
            Any dtype that can hold `fill`.
        fill : int
            Value outside the image.

        Returns
        -------
        as masks, (N, height, width) or (N, height, width, C)
        """
        source, pixel = as_bytes(masks, fill)
        out = self._sampled(source, warp.NEAREST, pixel)
        return out.view(masks.dtype).reshape(*out.shape[:3], *masks.shape[3:])

    def pictures(
        self, pictures: NDArray[Any], interpolation: int = warp.BILINEAR, fill: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Move pictures.

        Parameters
        ----------
        pictures : uint8, uint16 or float32 (N, H, W, C)
        interpolation : int
            `warp.NEAREST` or `warp.BILINEAR`.
        fill : as pictures, (C,), optional
            Value outside the picture; by default 0.

        Returns
        -------
        as pictures, (N, height, width, C)
        """
        pixel = np.zeros(pictures.shape[3], pictures.dtype) if fill is None else fill
        if pictures.dtype == np.uint16:
            # float32 has all numbers of 16 bits.
            numbers = self._sampled(pictures.astype(np.float32), interpolation, pixel.astype(np.float32))
            rounded: NDArray[np.uint16] = np.rint(numbers, out=numbers).astype(np.uint16)
            return rounded
        return self._sampled(np.ascontiguousarray(pictures), interpolation, pixel)

    def _sampled(self, source: NDArray[Any], interpolation: int, pixel: NDArray[Any]) -> NDArray[Any]:
        count, channels = len(source), source.shape[3]
        out = empty((count, self.height, self.width, channels), source.dtype)
        bounds = np.zeros((count, 0, 3)) if self.targets is None else inside(self.targets)
        warp.sample(source, inverse(self.matrices), bounds, pixel, interpolation, out)
        return out


def clipped(
    low: NDArray[np.float64], high: NDArray[np.float64], area_low: Any, area_high: Any, min_visible: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Clip boxes to areas, and find those to keep.

    Parameters
    ----------
    low, high : float64 (M, 2)
        Upper left and lower right corners of the boxes, (x, y).
    area_low, area_high : (M, 2) or (2,)
        Corners of the area of each box.
    min_visible : float
        Smallest visible fraction of the area of a box that is kept, 0 to 1.

    Returns
    -------
    boxes : float32 (M, 4)
    kept : bool (M,)
        False for boxes with less than `min_visible` of their area, or no area, after clipping.
    """
    shown_low, shown_high = np.clip(low, area_low, area_high), np.clip(high, area_low, area_high)
    boxes = np.concatenate((shown_low, shown_high), axis=1).astype(np.float32)
    sides, shown_sides = high - low, shown_high - shown_low
    # Checked on the float32 result: rounding may make thin boxes empty.
    there = boxes[:, 2:] > boxes[:, :2]
    # With min_visible=1, fully visible boxes pass despite rounded corners.
    least = min_visible * (sides[:, 0] * sides[:, 1]) * (1 - 1e-9)
    kept: NDArray[np.bool_] = there[:, 0] & there[:, 1] & (shown_sides[:, 0] * shown_sides[:, 1] >= least)
    return boxes, kept


def as_bytes(masks: NDArray[Any], fill: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """View masks of any dtype as bytes, for kernels that only move pixels.

    Parameters
    ----------
    masks : (N, H, W) or (N, H, W, C)
    fill : int

    Returns
    -------
    source : uint8 (N, H, W, B)
        B bytes per pixel.
    pixel : uint8 (B,)
        Fill pixel.
    """
    channels = math.prod(masks.shape[3:])
    source = np.ascontiguousarray(masks).reshape(*masks.shape[:3], channels)
    return source.view(np.uint8), np.full(channels, fill, masks.dtype).view(np.uint8)


def inside(rectangles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return half planes whose intersection is a rectangle.

    Parameters
    ----------
    rectangles : float64 (N, 4)
        x0, y0, x1, y1.

    Returns
    -------
    float64 (N, 4, 3)
        a, b and c of each half plane: a point is inside where ``a * x + b * y + c >= 0``.
    """
    planes = np.zeros((len(rectangles), 4, 3))
    planes[:, 0, 0] = planes[:, 1, 1] = 1
    planes[:, 2, 0] = planes[:, 3, 1] = -1
    planes[:, :2, 2] = -rectangles[:, :2]
    planes[:, 2:, 2] = rectangles[:, 2:]
    return planes


def product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Multiply each pair of matrices, with the same bits on every CPU, unlike BLAS.

    Parameters
    ----------
    left, right : float64 (N, I, 3) and (N, 3, J)

    Returns
    -------
    float64 (N, I, J)
    """
    found: NDArray[np.float64] = left[:, :, :1] * right[:, :1]
    found += left[:, :, 1:2] * right[:, 1:2]
    found += left[:, :, 2:] * right[:, 2:]
    return found


def inverse(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Invert each matrix in closed form: exact for shifts by whole pixels, same bits on every CPU.

    Parameters
    ----------
    matrices : float64 (N, 3, 3)
        Not singular.

    Returns
    -------
    float64 (N, 3, 3)
    """
    # Each row is orthogonal to two columns.
    first, second, third = matrices[:, :, 0], matrices[:, :, 1], matrices[:, :, 2]
    found = np.stack((_cross(second, third), _cross(third, first), _cross(first, second)), axis=1)
    terms = found[:, 0] * first
    found /= (terms[:, 0] + terms[:, 1] + terms[:, 2])[:, None, None]
    return np.ascontiguousarray(found)


def _cross(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    order, after = [1, 2, 0], [2, 0, 1]
    found: NDArray[np.float64] = left[:, order] * right[:, after] - left[:, after] * right[:, order]
    return found
