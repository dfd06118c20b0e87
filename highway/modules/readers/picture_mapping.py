"""PictureMapping: maps pictures to images (EXIF orientation, crop, scale, mirror), for boxes and masks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.modules.readers.pictures.orientation import MIRRORS, SWAPS
from highway.transforms.placement import Placement, mirror_ends

__all__ = ["PictureMapping"]


class PictureMapping(NamedTuple):
    """Maps N pictures to N images: EXIF, crop, scale, mirror.

    Attributes
    ----------
    sizes : int64 (N, 2)
        Height and width of the upright pictures.
    turns : int64 (N,)
        EXIF orientation, 1 to 8, still to be applied to coordinates of the picture.
    placement : Placement
        Maps the upright pictures to the images; each image has its own row of `mirrored`.
    """

    sizes: NDArray[np.int64]
    turns: NDArray[np.int64]
    placement: Placement

    def take(self, rows: NDArray[np.int64]) -> PictureMapping:
        """The mapping of some of the pictures."""
        return PictureMapping(self.sizes[rows], self.turns[rows], self.placement.take(rows))

    def put(self, slots: NDArray[np.int64], others: PictureMapping) -> None:
        """Replace the pictures in these slots by others."""
        self.sizes[slots], self.turns[slots] = others.sizes, others.turns
        mine: Any
        for mine, theirs in zip(self.placement, others.placement, strict=True):
            mine[slots] = theirs

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
        sides = self.sizes[owners, ::-1]
        turned = np.flatnonzero((self.turns != 1)[owners])
        if len(turned):
            turns = self.turns[owners[turned]]
            ends[turned] = np.where(SWAPS[turns][:, None, None], ends[turned, :, ::-1], ends[turned])
            ends[turned] = mirror_ends(ends[turned], MIRRORS[turns], sides[turned])
        ends = np.clip(ends, 0, sides[:, None])
        return self.placement.boxes(ends.reshape(-1, 4), owners, shape, min_visible)
