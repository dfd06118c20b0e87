"""Filters: sharpness, blur and noise, drawn per sample."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core.pixels import color
from highway.arguments import flag, number, size, span
from highway.batch import Batch, empty
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms.color import Range, check_bytes, check_channels, chosen, delivered, drawn, room
from highway.transforms.transform import Transform, pixels

__all__ = ["GaussianBlur", "GaussianNoise", "Noise", "Sharpness"]


class _Filter(Transform):
    """Base of the filters with one parameter, drawn per sample from a range.

    Attributes
    ----------
    p : float
        Probability that a sample is changed.
    """

    hands_over = True
    takes = "bytes"
    p: float
    _range: Range
    _neutral: ClassVar[float]
    """The parameter that changes nothing."""

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape unchanged; ArgumentError unless there are 1 or 3 channels."""
        check_channels(self, shape[2])
        return shape

    def draw(self, rng: SampleRandom, batch: Batch) -> NDArray[np.float32]:
        """Draw the parameter of each sample, float32 (N,)."""
        changed = chosen(rng, self.p)
        return np.where(changed, drawn(rng, self._range), np.float32(self._neutral))

    def apply_images(self, images: NDArray[Any], params: NDArray[np.float32]) -> NDArray[Any]:
        """Filter the images.

        Parameters
        ----------
        images : uint8 (N, H, W, C)
        params : float32 (N,)

        Returns
        -------
        uint8 (N, H, W, C)
            A new array.
        """
        check_bytes(self, images)
        out = empty(images.shape, np.uint8)
        self._filter(pixels(images, self), np.ascontiguousarray(params, np.float32), out)
        return out

    def _filter(self, source: NDArray[np.uint8], params: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
        """Write the filtered images to `out`."""
        raise NotImplementedError

    def deterministic(self) -> Transform | None:
        """Return the transform itself if nothing is random, otherwise None."""
        return self if self.p == 1.0 and self._range[0] == self._range[1] else None


class Sharpness(_Filter):
    """Sharpen or smooth: scale the difference from the smoothed image by a factor, as in torchvision and PIL.

    The smoothed image is the mean of 3 by 3 pixels, with a weight of 5 for the center; pixels at the border stay
    unchanged. Results are rounded to nearest; torchvision truncates.

    Deterministic form: itself if `p` is 1 and `factor` is one number, otherwise None.

    Parameters
    ----------
    factor : float or (float, float)
        0 to 100: 0 smooths, 1 changes nothing, 2 sharpens. With a range, each sample draws its own value.
    p : float
        Probability that a sample is changed, 0 to 1; drawn independently for each sample.

    Raises
    ------
    ArgumentError
        An argument is out of range. Images other than uint8 with 1 or 3 channels raise at the first batch.
    """

    _neutral = 1.0

    def __init__(self, factor: float | Range = 2.0, p: float = 0.5) -> None:
        self._range = span("Sharpness", "factor", factor, 0, color.MOST_FACTOR)
        self.factor = self._range if isinstance(factor, (tuple, list)) else self._range[0]
        self.p = number("Sharpness", "p", p, 0, 1)

    def _filter(self, source: NDArray[np.uint8], params: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
        color.sharpen(source, params, out)


class GaussianBlur(_Filter):
    """Blur with a Gaussian, as torchvision's gaussian_blur: borders are reflected.

    Results are within 1 of exact arithmetic, and nearly always equal.

    Deterministic form: itself if `p` is 1 and `sigma` is one number, otherwise None.

    Parameters
    ----------
    kernel_size : int or (int, int)
        Odd, 1 to 201: one number for a square, or (height, width).
    sigma : float or (float, float)
        Standard deviation in pixels, above 0 to 1e6. With a range, each sample draws its own value.
    p : float
        Probability that a sample is changed, 0 to 1; drawn independently for each sample.

    Raises
    ------
    ArgumentError
        An argument is out of range. Images other than uint8 with 1 or 3 channels raise at the first batch.
    """

    _neutral = 0.0

    def __init__(
        self, kernel_size: int | tuple[int, int], sigma: float | Range = (0.1, 2.0), p: float = 1.0
    ) -> None:
        self.kernel_size = size("GaussianBlur", "kernel_size", kernel_size)
        if any(side % 2 == 0 or side > color.MOST_KERNEL for side in self.kernel_size):
            raise ArgumentError(
                f"GaussianBlur: kernel_size is {kernel_size!r}; expected odd numbers from 1 to {color.MOST_KERNEL}"
            )
        self._range = span("GaussianBlur", "sigma", sigma, 0, 1e6)
        if self._range[0] == 0:
            raise ArgumentError(f"GaussianBlur: sigma is {sigma!r}; expected numbers above 0")
        self.sigma = self._range if isinstance(sigma, (tuple, list)) else self._range[0]
        self.p = number("GaussianBlur", "p", p, 0, 1)

    def _filter(self, source: NDArray[np.uint8], params: NDArray[np.float32], out: NDArray[np.uint8]) -> None:
        color.blur(source, params, *self.kernel_size, out)


class Noise(NamedTuple):
    """Noise parameters of N samples.

    Attributes
    ----------
    seed, epoch, position : int
    indices : uint32 (N,)
        Indices of the samples.
    means, sigmas : float32 (N,)
        In units of 0 to 1; both 0 for unchanged samples.
    """

    seed: int
    epoch: int
    position: int
    indices: NDArray[np.uint32]
    means: NDArray[np.float32]
    sigmas: NDArray[np.float32]


class GaussianNoise(Transform):
    """Add normally distributed noise to every value, as torchvision's gaussian_noise.

    The noise of a sample depends only on the seed, the epoch, the sample's index and the position of the transform.
    uint8 results are rounded to nearest and clamped.

    Deterministic form: None (the transform is skipped).

    Parameters
    ----------
    mean, sigma : float
        In units of 0 to 1; mean from -100 to 100, sigma from 0 to 100.
    p : float
        Probability that a sample is changed, 0 to 1; drawn independently for each sample.
    clip : bool
        Clamp float32 images to 0 to 1. Use False for normalized images.

    Raises
    ------
    ArgumentError
        An argument is out of range. Images other than uint8 or float32 raise at the first batch.
    """

    in_place = True
    hands_over = True
    dtypes = ("uint8", "float32")

    def __init__(self, mean: float = 0.0, sigma: float = 0.1, p: float = 1.0, clip: bool = True) -> None:
        self.mean = number("GaussianNoise", "mean", mean, -100, 100)
        self.sigma = number("GaussianNoise", "sigma", sigma, 0, 100)
        self.p = number("GaussianNoise", "p", p, 0, 1)
        self.clip = flag("GaussianNoise", "clip", clip)

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape unchanged."""
        return shape

    def draw(self, rng: SampleRandom, batch: Batch) -> Noise:
        """Draw the noise parameters of each sample."""
        changed = chosen(rng, self.p)
        means = np.where(changed, self.mean, 0).astype(np.float32)
        sigmas = np.where(changed, self.sigma, 0).astype(np.float32)
        return Noise(rng.seed, rng.epoch, rng.position, rng.indices, means, sigmas)

    def apply_images(
        self, images: NDArray[Any], params: Noise, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Add the noise.

        Parameters
        ----------
        images : uint8 or float32 (N, ...)
            Any layout; the noise of a value depends on its place in the array.
        params : Noise
        out : as images, optional
            Output array: `images` itself to work in place, or another array of the same shape and dtype. If it
            is not C-contiguous or overlaps `images`, the result is copied into it.

        Returns
        -------
        uint8 or float32 (N, ...)
            `out`, or a new array.

        Raises
        ------
        ArgumentError
            The images have another dtype, or `out` has another shape or dtype.
        """
        if images.dtype not in (np.uint8, np.float32) or images.ndim < 2:
            raise ArgumentError(
                f"GaussianNoise: images are {images.dtype} of shape {images.shape}; "
                "expected uint8 or float32 (N, ...)"
            )
        result = room(self, images, out)
        unit = np.float32(255 if images.dtype == np.uint8 else 1)
        low, high = (0.0, 1.0) if self.clip else (-np.inf, np.inf)
        length = int(np.prod(images.shape[1:]))
        color.add_noise(
            np.ascontiguousarray(images).reshape(len(images), length),
            params.seed,
            params.epoch,
            params.position,
            params.indices,
            params.means * unit,
            params.sigmas * unit,
            low,
            high,
            result.reshape(len(images), length),
        )
        return delivered(result, out)

    def deterministic(self) -> None:
        """Return None: images stay as they are."""
