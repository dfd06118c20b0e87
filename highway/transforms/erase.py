"""RandomErasing: fills a random rectangle of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core.pixels import mix
from highway.arguments import number, numbers, positive_range
from highway.batch import Batch, empty
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms.crop import fill_pixel
from highway.transforms.transform import Transform, is_planar, pixels

__all__ = ["RandomErasing"]

_ATTEMPTS = 10
"""Rectangles drawn before the image is left unchanged, as in torchvision."""


class Erased(NamedTuple):
    """Rectangles to fill.

    Attributes
    ----------
    boxes : int64 (N, 4)
        x0, y0, x1, y1 in pixels; empty for images that stay unchanged.
    rng : SampleRandom
        Source of the noise, for a random fill.
    """

    boxes: NDArray[np.int64]
    rng: SampleRandom


class RandomErasing(Transform):
    """Fill a rectangle of random area, aspect ratio and position, drawn per sample.

    Boxes, masks and keypoints stay unchanged.

    Deterministic form: None (the transform is skipped).

    Parameters
    ----------
    p : float
        Probability that a sample is changed, 0 to 1; drawn independently for each sample.
    scale : (float, float)
        Smallest and largest area, as fractions of the image area, above 0 and up to 1.
    ratio : (float, float)
        Smallest and largest aspect ratio (height / width); its logarithm is drawn uniformly.
    value : float, sequence of float or "random"
        Fill value: one number or one per channel, in units of the images. "random" fills each value with noise:
        uniform over the range of uint8 and uint16 images, otherwise normal with mean 0 and standard deviation 1.

    Raises
    ------
    ArgumentError
        An argument is out of range.

    Notes
    -----
    Matches torchvision's ``v2.RandomErasing``. Takes uint8 and uint16 (N, H, W, C) and floats (N, H, W, C) or
    (N, C, H, W) with at most 4 channels. Z. Zhong et al., "Random erasing data augmentation", AAAI 2020.
    """

    in_place = True
    hands_over = True

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float | Sequence[float] | Literal["random"] = 0,
    ) -> None:
        self.p = number("RandomErasing", "p", p, 0, 1)
        self.scale = positive_range("RandomErasing", "scale", scale, 1.0)
        self.ratio = positive_range("RandomErasing", "ratio", ratio)
        if isinstance(value, str) and value != "random":
            raise ArgumentError(f"RandomErasing: value is {value!r}; expected numbers or 'random'")
        self.value = value
        self._values = None if isinstance(value, str) else numbers("RandomErasing", "value", value)

    @property
    def positions(self) -> int:
        """Number of random positions: 1, or 2 with noise."""
        return 2 if self._values is None else 1

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape unchanged."""
        return self.shape_after(shape, np.dtype(np.uint8))

    def shape_after(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> tuple[int, int, int]:
        """Return the shape unchanged, and check that the images can hold the value."""
        if self._values is not None:
            fill_pixel(self, self._values, shape[2], dtype, "value")
        return shape

    def draw(self, rng: SampleRandom, batch: Batch) -> Erased:
        """Draw the rectangles."""
        images = batch["images"]
        height, width = _sides(images)
        areas = rng.uniform(*self.scale, size=_ATTEMPTS) * (height * width)
        ratios = np.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), size=_ATTEMPTS))
        heights = np.rint(np.sqrt(areas * ratios)).astype(np.int64)
        widths = np.rint(np.sqrt(areas / ratios)).astype(np.int64)
        fits = (heights < height) & (widths < width) & (heights > 0) & (widths > 0)
        rows, first = np.arange(len(images)), np.argmax(fits, axis=1)
        erased = fits[rows, first] & rng.bernoulli(self.p)
        tall, wide = heights[rows, first], widths[rows, first]
        top = rng.integers(0, np.maximum(height - tall, 0) + 1)
        left = rng.integers(0, np.maximum(width - wide, 0) + 1)
        boxes = np.stack((left, top, left + wide, top + tall), axis=1)
        boxes[~erased] = 0
        return Erased(boxes, rng)

    def apply_images(
        self, images: NDArray[Any], params: Erased, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Fill the rectangles.

        Parameters
        ----------
        images : ndarray (N, H, W, C) or (N, C, H, W)
        params : Erased
        out : ndarray, optional
            Output array: `images` itself to work in place.

        Returns
        -------
        ndarray
            `out`, or a new array.
        """
        planar = is_planar(images)
        channels = images.shape[1 if planar else -1]
        if out is None:
            out = empty(images.shape, images.dtype)
        if self._values is not None and not planar and out.flags.c_contiguous:
            pixel = fill_pixel(self, self._values, channels, images.dtype, "value")
            boxes, source = np.ascontiguousarray(params.boxes, np.int64), np.ascontiguousarray(images)
            mix.paint(pixels(source, self), boxes, pixel.view(np.uint8), pixels(out, self))
            return out
        if out is not images:
            np.copyto(out, images)
        for row, (left, top, right, bottom) in enumerate(params.boxes.tolist()):
            if left == right:
                continue
            where = out[row, :, top:bottom, left:right] if planar else out[row, top:bottom, left:right]
            if self._values is None:
                where[...] = self._noise(params.rng, row, where.shape, images.dtype)
            else:
                values = fill_pixel(self, self._values, channels, images.dtype, "value")
                where[...] = values[:, None, None] if planar else values
        return out

    def _noise(
        self, rng: SampleRandom, row: int, shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        sample, count = rng.at(rng.position + 1).of(row), math.prod(shape)
        if dtype in (np.uint8, np.uint16):
            return sample.bytes(count * dtype.itemsize).view(dtype).reshape(shape)
        return sample.normal(size=count).reshape(shape).astype(dtype)

    def deterministic(self) -> None:
        """Return None: images stay as they are."""


def _sides(images: NDArray[Any]) -> tuple[int, int]:
    if images.ndim != 4:
        raise ArgumentError(
            f"RandomErasing: images are {images.dtype} of shape {images.shape}; expected (N, H, W, C) or (N, C, H, W)"
        )
    return images.shape[2:4] if is_planar(images) else images.shape[1:3]
