"""Pad: adds a border of one color around images."""

from __future__ import annotations

import numpy as np

from highway.sampling.rng import SampleRandom
from highway.transforms.crop import CropOrPad, CropWindows, Fill, Margins

__all__ = ["Pad"]


class Pad(CropOrPad):
    """Add a border around every image.

    Deterministic form: itself.

    Parameters
    ----------
    padding : int, (int, int) or (int, int, int, int)
        Width in pixels: all sides; (left and right, top and bottom); or (left, top, right, bottom).
    fill : float or tuple of float
        Value of border pixels: one number, or one per channel; 0 to 255 for uint8 images.

    Raises
    ------
    ArgumentError
        An argument is out of range. Checks that depend on the images raise at the first batch.
    """

    def __init__(self, padding: Margins, fill: Fill = 0) -> None:
        super().__init__(padding, fill, 0.0)

    def choose(self, rng: SampleRandom, shape: tuple[int, ...]) -> CropWindows:
        """Return windows that are larger than the images; nothing is random."""
        count, height, width = shape[:3]
        left, top, right, bottom = self._margins
        return CropWindows(
            np.full(count, -top), np.full(count, -left), height + top + bottom, width + left + right
        )

    def deterministic(self) -> Pad:
        """Return the transform itself."""
        return self
