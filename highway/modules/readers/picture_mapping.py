"""PictureMapping: maps pictures to images (EXIF orientation, crop, scale, mirror), for boxes and masks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.modules.readers.pictures.orientation import MIRRORS, SWAPS

__all__ = ["PictureMapping"]


class PictureMapping(NamedTuple):
    """Maps N pictures to N images: EXIF, crop, scale, mirror.

    Attributes
    ----------
    sizes : int64 (N, 2)
        Height and width of the upright pictures.
    turns : int64 (N,)
        EXIF orientation, 1 to 8, still to be applied to coordinates of the picture.
    windows : float64 (N, 4)
        x0, y0, x1, y1 of the crop window, in pixels of the upright picture.
    targets : int32 (N, 4)
        x0, y0, x1, y1 of the window in the image, in pixels, before the image is mirrored.
    mirrored : bool (N, 2)
        Whether the image is mirrored left to right, and top to bottom.
    """

    sizes: NDArray[np.int64]
    turns: NDArray[np.int64]
    windows: NDArray[np.float64]
    targets: NDArray[np.int32]
    mirrored: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> PictureMapping:
        """The mapping of some of the pictures."""
        return PictureMapping(*(array[rows] for array in self))  # type: ignore[arg-type]

    def put(self, slots: NDArray[np.int64], others: PictureMapping) -> None:
        """Replace the pictures in these slots by others."""
        mine: Any
        for mine, theirs in zip(self, others, strict=True):
            mine[slots] = theirs

    def placement(self, shape: tuple[int, int]) -> NDArray[np.float64]:
        """Matrices from pixels of the upright pictures to pixels of the images.

        Parameters
        ----------
        shape : (int, int)
            Height and width of the images.

        Returns
        -------
        float64 (N, 3, 3)
            For homogeneous coordinates (x, y, 1).
        """
        matrices = np.zeros((len(self.windows), 3, 3))
        matrices[:, 2, 2] = 1
        for axis, size in enumerate(shape[::-1]):
            low, high = self.windows[:, axis], self.windows[:, 2 + axis]
            begin, end = self.targets[:, axis], self.targets[:, 2 + axis]
            scale = (end - begin) / (high - low)
            moved = begin - low * scale
            turned = self.mirrored[:, axis]
            matrices[:, axis, axis] = np.where(turned, -scale, scale)
            matrices[:, axis, 2] = np.where(turned, size - moved, moved)
        return matrices

    def boxes(
        self,
        boxes: NDArray[np.float32],
        owners: NDArray[np.int64],
        shape: tuple[int, int],
        min_visible: float,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Map boxes of the pictures to the images, clipped to the windows.

        Parameters
        ----------
        boxes : float32 (M, 4)
            x0, y0, x1, y1 in pixels of the pictures; clipped to the pictures first.
        owners : int64 (M,)
            Picture of each box.
        shape : (int, int)
            Height and width of the images.
        min_visible : float
            0 to 1.

        Returns
        -------
        boxes : float32 (M, 4)
        kept : bool (M,)
            False for those of which nothing, or less than `min_visible` of their area in the picture, is shown.
        """
        ends = boxes.astype(np.float64).reshape(-1, 2, 2)
        sizes = self.sizes[:, None, ::-1][owners]
        turned = np.flatnonzero((self.turns != 1)[owners])
        if len(turned):
            turns = self.turns[owners[turned]]
            ends[turned] = np.where(SWAPS[turns][:, None, None], ends[turned, :, ::-1], ends[turned])
            ends[turned] = _mirrored(ends[turned], MIRRORS[turns], sizes[turned])
        ends = np.clip(ends, 0, sizes)
        windows = self.windows.reshape(-1, 2, 2)
        targets = self.targets.reshape(-1, 2, 2)
        scales = (targets[:, 1] - targets[:, 0]) / (windows[:, 1] - windows[:, 0])
        ends -= windows[:, :1][owners]
        ends *= scales[:, None][owners]
        ends += targets[:, :1][owners]
        shown = np.clip(ends, targets[:, :1][owners], targets[:, 1:][owners])
        found = shown.astype(np.float32)
        # Sides of the returned boxes: thin ones may round to zero in float32.
        sides = found[:, 1] - found[:, 0]
        area, left = (ends[:, 1] - ends[:, 0]).prod(axis=1), (shown[:, 1] - shown[:, 0]).prod(axis=1)
        # With min_visible=1, a box that is shown whole is kept, however its corners were rounded.
        kept: NDArray[np.bool_] = (sides > 0).all(axis=1) & (left >= min_visible * area * (1 - 1e-9))
        if self.mirrored.any():
            # Mirrored after rounding, as in the transforms, for the same bits.
            size = np.array((shape[1], shape[0]), np.float64)
            found = _mirrored(found.astype(np.float64), self.mirrored[owners], size).astype(np.float32)
        return found.reshape(-1, 4), kept


def _mirrored(ends: NDArray[np.float64], axes: NDArray[np.bool_], sizes: NDArray[Any]) -> NDArray[np.float64]:
    """Mirror ends of boxes (M, 2, 2) along the axes (M, 2) that are True."""
    return np.where(axes[:, None], sizes - ends[:, ::-1], ends)
