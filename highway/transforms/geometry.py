"""Geometry: where pixels go, and with them boxes, masks and keypoints."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core.pixels import warp
from highway.batch import empty

__all__ = ["Geometry", "as_bytes", "inside", "inverse", "product"]


class Geometry(NamedTuple):
    """Where the pixels of N images go.

    Coordinates are continuous: the pixel in column x and row y covers x to x + 1 and y to y + 1.

    Attributes
    ----------
    matrices : float64 (N, 3, 3)
        Take homogeneous coordinates (x, y, 1) of the image to those of the output.
    height, width : int
        Of the output.
    targets : float64 (N, 4), optional
        x0, y0, x1, y1: outside of it the output shows nothing of the image; by default it is the whole output.
    """

    matrices: NDArray[np.float64]
    height: int
    width: int
    targets: NDArray[np.float64] | None = None

    def points(self, points: NDArray[Any], owners: NDArray[np.int64]) -> NDArray[np.float64]:
        """Points, moved, wherever that is.

        Parameters
        ----------
        points : (M, ..., 2)
            x and y.
        owners : int64 (M,)
            Which image each row belongs to.

        Returns
        -------
        float64 (M, ..., 2)
        """
        matrices = self.matrices[owners].reshape(len(points), *[1] * (points.ndim - 2), 3, 3)
        x, y = points[..., 0].astype(np.float64), points[..., 1].astype(np.float64)
        # Written out: the same bits on every CPU.
        right, down, scale = (
            matrices[..., row, 0] * x + matrices[..., row, 1] * y + matrices[..., row, 2] for row in range(3)
        )
        found: NDArray[np.float64] = np.stack((right / scale, down / scale), axis=-1)
        return found

    def boxes(
        self, boxes: NDArray[np.float32], owners: NDArray[np.int64], min_visible: float
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """The smallest upright boxes around moved ones, clipped to what the output shows.

        Parameters
        ----------
        boxes : float32 (M, 4)
            x0, y0, x1, y1.
        owners : int64 (M,)
            Which image each belongs to.
        min_visible : float
            0 to 1.

        Returns
        -------
        boxes : float32 (M, 4)
        kept : bool (M,)
            False for those with less than this part of their area, or nothing, left after clipping.
        """
        corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
        moved = self.points(corners, owners)
        low, high = moved.min(axis=1), moved.max(axis=1)
        if self.targets is None:
            low_end: Any = 0.0
            high_end: Any = (self.width, self.height)
        else:
            targets = self.targets[owners]
            low_end, high_end = targets[:, :2], targets[:, 2:]
        clipped_low = np.clip(low, low_end, high_end)
        clipped_high = np.clip(high, low_end, high_end)
        area, left = (high - low).prod(axis=1), (clipped_high - clipped_low).prod(axis=1)
        found = np.concatenate((clipped_low, clipped_high), axis=1).astype(np.float32)
        # Of what is returned: rounded to float32, thin boxes may be nothing.
        there = (found[:, 2:] > found[:, :2]).all(axis=1)
        # A part of 1 is met by what is shown whole, however its corners were rounded.
        kept: NDArray[np.bool_] = there & (left >= min_visible * area * (1 - 1e-9))
        return found, kept

    def masks(self, masks: NDArray[Any], fill: int) -> NDArray[Any]:
        """Masks, moved: each pixel is that of the image whose area its center comes from, or `fill`.

        Parameters
        ----------
        masks : (N, H, W) or (N, H, W, C)
            Of any dtype that can hold `fill`.
        fill : int
            Where there is nothing of the image.

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
        """Pictures, moved.

        Parameters
        ----------
        pictures : uint8 or float32 (N, H, W, C)
        interpolation : int
            `warp.NEAREST` or `warp.BILINEAR`.
        fill : as pictures, (C,), optional
            Where there is nothing of the picture; by default 0.

        Returns
        -------
        as pictures, (N, height, width, C)
        """
        pixel = np.zeros(pictures.shape[3], pictures.dtype) if fill is None else fill
        return self._sampled(np.ascontiguousarray(pictures), interpolation, pixel)

    def _sampled(self, source: NDArray[Any], interpolation: int, pixel: NDArray[Any]) -> NDArray[Any]:
        count, channels = len(source), source.shape[3]
        out = empty((count, self.height, self.width, channels), source.dtype)
        bounds = np.zeros((count, 0, 3)) if self.targets is None else inside(self.targets)
        warp.sample(source, inverse(self.matrices), bounds, pixel, interpolation, out)
        return out


def as_bytes(masks: NDArray[Any], fill: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Masks of any dtype as the kernels take pixels that they only move.

    Parameters
    ----------
    masks : (N, H, W) or (N, H, W, C)
    fill : int

    Returns
    -------
    source : uint8 (N, H, W, B)
        B bytes a pixel.
    pixel : uint8 (B,)
        One that is filled.
    """
    channels = math.prod(masks.shape[3:])
    source = np.ascontiguousarray(masks).reshape(*masks.shape[:3], channels)
    return source.view(np.uint8), np.full(channels, fill, masks.dtype).view(np.uint8)


def inside(rectangles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half planes whose intersection is a rectangle.

    Parameters
    ----------
    rectangles : float64 (N, 4)
        x0, y0, x1, y1.

    Returns
    -------
    float64 (N, 4, 3)
        a, b and c of each: a point is inside where ``a * x + b * y + c >= 0``.
    """
    planes = np.zeros((len(rectangles), 4, 3))
    planes[:, 0, 0] = planes[:, 1, 1] = 1
    planes[:, 2, 0] = planes[:, 3, 1] = -1
    planes[:, :2, 2] = -rectangles[:, :2]
    planes[:, 2:, 2] = rectangles[:, 2:]
    return planes


def product(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Product of each pair of matrices: the same bits on every CPU, which a library for matrices does not give.

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
    """Inverse of each matrix, in closed form: exact for moves by whole pixels, the same bits on every CPU.

    Parameters
    ----------
    matrices : float64 (N, 3, 3)
        None of them singular.

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
