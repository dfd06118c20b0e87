"""Color transforms: change each pixel value; parameters are drawn per sample."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from highway._core.pixels import color
from highway.arguments import number, span, whole
from highway.batch import Batch, empty
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms.transform import Transform, pixels, way_to_pixels

__all__ = [
    "AutoContrast",
    "ColorJitter",
    "Equalize",
    "Gamma",
    "Grayscale",
    "Invert",
    "Pointwise",
    "Posterize",
    "Program",
    "Solarize",
    "chosen",
    "drawn",
]

Program = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Operations (N, K) of `highway._core.pixels.color` and their arguments (N, K, 2), one row per sample."""

Range = tuple[float, float]


class Pointwise(Transform, abc.ABC):
    """Base of point-wise transforms: runs a short program of operations on each sample.

    Subclasses override `program`. Images are uint8 with 1 or 3 channels (gray or RGB).
    """

    in_place = True
    hands_over = True
    takes = "bytes"

    @abc.abstractmethod
    def program(self, rng: SampleRandom, count: int, channels: int) -> Program:
        """Choose the operations of each sample.

        Parameters
        ----------
        rng : SampleRandom
        count : int
            Number of samples.
        channels : int
            1 or 3.

        Returns
        -------
        operations : int32 (count, K)
            Codes of `highway._core.pixels.color`; NONE leaves the sample unchanged.
        arguments : float32 (count, K, 2)
        """

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape unchanged; ArgumentError unless there are 1 or 3 channels."""
        check_channels(self, shape[2])
        return shape

    def draw(self, rng: SampleRandom, batch: Batch) -> Program:
        """Return the program of each sample, from `program`."""
        images = batch["images"]
        check_bytes(self, images)
        return self.program(rng, len(images), images.shape[3])

    def apply_images(
        self, images: NDArray[Any], params: Program, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Run the programs.

        Parameters
        ----------
        images : uint8 (N, H, W, C)
            C is 1 or 3.
        params : (int32 (N, K), float32 (N, K, 2))
        out : uint8 (N, H, W, C), optional
            Output array: `images` itself to work in place, or another array of the same shape. If it is not
            C-contiguous or overlaps `images`, the result is copied into it.

        Returns
        -------
        uint8 (N, H, W, C)
            `out`, or a new array.

        Raises
        ------
        ArgumentError
            The images are not in this layout, or `out` has another shape or dtype.
        """
        return run(images, [params], out, self)


def run(
    images: NDArray[Any],
    programs: Sequence[Program],
    out: NDArray[Any] | None = None,
    owner: Transform | None = None,
) -> NDArray[Any]:
    """Run the programs of several transforms in one pass, in order.

    Parameters
    ----------
    images : uint8 (N, H, W, C)
        C is 1 or 3.
    programs : sequence of (int32 (N, K), float32 (N, K, 2))
        Results of `Pointwise.draw`.
    out : uint8 (N, H, W, C), optional
        As for `Pointwise.apply_images`.
    owner : Transform, optional
        Transform that error messages name.

    Returns
    -------
    uint8 (N, H, W, C)
        `out`, or a new array. Equals running the programs one by one.

    Raises
    ------
    ArgumentError
        The images are not in this layout, or `out` has another shape or dtype.
    """
    check_bytes(owner, images)
    if len(programs) == 1:
        operations, arguments = programs[0]
    elif programs:
        operations = np.concatenate([operations for operations, _ in programs], axis=1)
        arguments = np.concatenate([arguments for _, arguments in programs], axis=1)
    else:
        operations = np.zeros((len(images), 0), np.int32)
        arguments = np.zeros((len(images), 0, 2), np.float32)
    operations = np.ascontiguousarray(operations, np.int32)
    arguments = np.ascontiguousarray(arguments, np.float32)
    result = room(owner, images, out)
    source = images if result is images else pixels(images, owner or _ANY)
    color.run(source, operations, arguments, result)
    return delivered(result, out)


def check_bytes(owner: Transform | None, images: NDArray[Any]) -> None:
    """Raise ArgumentError unless the images are uint8 (N, H, W, C), with 1 or 3 channels."""
    if images.ndim != 4 or images.dtype != np.uint8:
        raise ArgumentError(
            f"{type(owner or _ANY).__name__}: images are {images.dtype} of shape {images.shape}; "
            f"expected uint8 (N, H, W, C); {way_to_pixels(images)}"
        )
    check_channels(owner, images.shape[3])


def check_channels(owner: Transform | None, channels: int) -> None:
    """Raise ArgumentError unless there are 1 or 3 channels."""
    if channels not in (1, 3):
        raise ArgumentError(
            f"{type(owner or _ANY).__name__}: images have {channels} channels; expected 1 (gray) or 3 (RGB)"
        )


def room(
    owner: Transform | None, images: NDArray[Any], out: NDArray[Any] | None, in_place: bool = True
) -> NDArray[Any]:
    """Return the array that a kernel writes to: `out` if possible, otherwise a new array.

    Raises
    ------
    ArgumentError
        `out` has another shape or dtype than `images`.
    """
    if out is None:
        return empty(images.shape, images.dtype)
    if out.shape != images.shape or out.dtype != images.dtype:
        raise ArgumentError(
            f"{type(owner or _ANY).__name__}: out is {out.dtype} of shape {out.shape}; "
            f"expected {images.dtype} of shape {images.shape}, like images"
        )
    if out.flags.c_contiguous and ((in_place and out is images) or not np.may_share_memory(images, out)):
        return out
    return empty(images.shape, images.dtype)


def delivered(result: NDArray[Any], out: NDArray[Any] | None) -> NDArray[Any]:
    """Return the result, copied into `out` if that is given."""
    if out is None or result is out:
        return result
    out[...] = result
    return out


def drawn(rng: SampleRandom, limits: Range) -> NDArray[np.float32]:
    """Draw a number in the range for each sample; a range of one number draws nothing."""
    low, high = limits
    if low == high:
        return np.full(len(rng), low, np.float32)
    # These two calls take half the time of `clip`.
    values = rng.uniform(low, high).astype(np.float32)
    return np.minimum(np.maximum(values, np.float32(low)), np.float32(high))


def chosen(rng: SampleRandom, p: float) -> NDArray[np.bool_]:
    """Draw which samples are changed; a probability of 0 or 1 draws nothing."""
    if p in (0.0, 1.0):
        return np.full(len(rng), p == 1.0)
    return rng.bernoulli(p)


class _Single(Pointwise):
    """Apply one operation to randomly chosen samples."""

    _operation: ClassVar[int]

    def __init__(self, p: float = 0.5) -> None:
        self.p = number(type(self).__name__, "p", p, 0, 1)

    def _arguments(self, rng: SampleRandom) -> tuple[Any, Any]:
        """Return both arguments, each a number or one per sample."""
        return 0.0, 0.0

    def program(self, rng: SampleRandom, count: int, channels: int) -> Program:
        operations = np.where(chosen(rng, self.p), self._operation, color.NONE).astype(np.int32)
        arguments = np.zeros((count, 1, 2), np.float32)
        arguments[:, 0, 0], arguments[:, 0, 1] = self._arguments(rng)
        return operations.reshape(count, 1), arguments

    def _fixed(self) -> bool:
        return self.p == 1.0

    def deterministic(self) -> Transform | None:
        """Return the transform itself if nothing is random, otherwise None."""
        return self if self._fixed() else None


class ColorJitter(Pointwise):
    """Change brightness, contrast, saturation and hue by random amounts, in a random order per sample.

    Matches torchvision.transforms.v2.ColorJitter: brightness multiplies all values by a factor; contrast scales
    the difference from the mean gray value, saturation the difference from the gray value of the pixel; hue
    rotates on the color wheel. Results are rounded to nearest; torchvision truncates. Saturation
    and hue do not apply to images with one channel.

    Deterministic form: None (the transform is skipped).

    Parameters
    ----------
    brightness, contrast, saturation : float or (float, float)
        Factors are drawn from max(0, 1 - x) to 1 + x, or from the given range, within 0 to 100. The number 0
        changes nothing.
    hue : float or (float, float)
        Shifts are drawn from -x to x, where x is at most 0.5, or from the given range, within -0.5 to 0.5.
        1 is a full turn of the color wheel.
    p : float
        Probability that a sample is changed, 0 to 1; drawn independently for each sample.

    Raises
    ------
    ArgumentError
        An argument is out of range.

    Examples
    --------
    >>> ColorJitter(brightness=0.4, hue=0.1)
    ColorJitter(brightness=0.4, contrast=0.0, saturation=0.0, hue=0.1, p=1.0)
    """

    def __init__(
        self,
        brightness: float | Range = 0,
        contrast: float | Range = 0,
        saturation: float | Range = 0,
        hue: float | Range = 0,
        p: float = 1.0,
    ) -> None:
        self.brightness, bright = _jitter("brightness", brightness)
        self.contrast, contrasting = _jitter("contrast", contrast)
        self.saturation, saturated = _jitter("saturation", saturation)
        self.hue, turned = _jitter("hue", hue)
        self.p = number("ColorJitter", "p", p, 0, 1)
        each = (
            (color.BRIGHTNESS, bright, 1.0),
            (color.CONTRAST, contrasting, 1.0),
            (color.SATURATION, saturated, 1.0),
            (color.HUE, turned, 0.0),
        )
        # Skip operations that change nothing.
        self._parts = [(code, limits) for code, limits, neutral in each if limits != (neutral, neutral)]

    def program(self, rng: SampleRandom, count: int, channels: int) -> Program:
        length = len(self._parts)
        operations = np.zeros((count, length), np.int32)
        arguments = np.zeros((count, length, 2), np.float32)
        changed = chosen(rng, self.p)
        places: list[Any] = [(slice(None), 0)] * length
        if length > 1:
            samples = np.arange(count)
            order = np.argsort(rng.uniform(size=length), axis=1, kind="stable")
            places = [(samples, order[:, part]) for part in range(length)]
        for place, (code, limits) in zip(places, self._parts, strict=True):
            operations[place] = np.where(changed, code, color.NONE)
            arguments[(*place, 0)] = drawn(rng, limits)
        return operations, arguments

    def deterministic(self) -> None:
        """Return None: images stay as they are."""


def _jitter(name: str, value: object) -> tuple[Any, Range]:
    """Check the argument; return it and the range to draw from."""
    middle, lowest, highest = (0.0, -0.5, 0.5) if name == "hue" else (1.0, 0.0, color.MOST_FACTOR)
    if isinstance(value, (tuple, list)):
        limits = span("ColorJitter", name, value, lowest, highest)
        return limits, limits
    one = number("ColorJitter", name, value, 0, highest - middle)
    return one, (max(middle - one, lowest), middle + one)


class Grayscale(_Single):
    """Convert to gray: 0.2989 R + 0.587 G + 0.114 B, rounded, in all channels. Keeps the number of channels.

    Matches torchvision's Grayscale and RandomGrayscale. Images with one channel stay unchanged.

    Deterministic form: itself if `p` is 1, otherwise None.

    Parameters
    ----------
    p : float
        Probability that a sample is changed, 0 to 1; drawn independently for each sample.

    Raises
    ------
    ArgumentError
        `p` is outside 0 to 1.
    """

    _operation = color.GRAYSCALE

    def __init__(self, p: float = 1.0) -> None:
        super().__init__(p)


class Invert(_Single):
    """Invert each value to 255 - value.

    Deterministic form: itself if `p` is 1, otherwise None.

    Parameters
    ----------
    p : float
        Probability that a sample is changed, 0 to 1; drawn independently for each sample.

    Raises
    ------
    ArgumentError
        `p` is outside 0 to 1.
    """

    _operation = color.INVERT


class Solarize(_Single):
    """Invert values of `threshold` or more.

    Deterministic form: itself if `p` is 1, otherwise None.

    Parameters
    ----------
    threshold : float
        0 to 256: 0 inverts all values, 256 none.
    p : float
        Probability that a sample is changed, 0 to 1; drawn independently for each sample.

    Raises
    ------
    ArgumentError
        An argument is out of range.
    """

    _operation = color.SOLARIZE

    def __init__(self, threshold: float = 128, p: float = 0.5) -> None:
        self.threshold = number("Solarize", "threshold", threshold, 0, 256)
        super().__init__(p)

    def _arguments(self, rng: SampleRandom) -> tuple[Any, Any]:
        return self.threshold, 0.0


class Posterize(_Single):
    """Keep only the upper bits of each value.

    Deterministic form: itself if `p` is 1, otherwise None.

    Parameters
    ----------
    bits : int
        Number of bits to keep, 0 to 8.
    p : float
        Probability that a sample is changed, 0 to 1; drawn independently for each sample.

    Raises
    ------
    ArgumentError
        An argument is out of range.
    """

    _operation = color.POSTERIZE

    def __init__(self, bits: int = 4, p: float = 0.5) -> None:
        self.bits = whole("Posterize", "bits", bits, 0, 8)
        super().__init__(p)

    def _arguments(self, rng: SampleRandom) -> tuple[Any, Any]:
        return self.bits, 0.0


class AutoContrast(_Single):
    """Stretch each channel of each image so that its lowest value becomes 0 and its highest 255.

    Matches torchvision's autocontrast, but rounds to nearest. A channel with a single value stays unchanged.

    Deterministic form: itself if `p` is 1, otherwise None.

    Parameters
    ----------
    p : float
        Probability that a sample is changed, 0 to 1; drawn independently for each sample.

    Raises
    ------
    ArgumentError
        `p` is outside 0 to 1.
    """

    _operation = color.AUTOCONTRAST


class Equalize(_Single):
    """Equalize the histogram of each channel of each image, as PIL.ImageOps.equalize and torchvision do.

    Deterministic form: itself if `p` is 1, otherwise None.

    Parameters
    ----------
    p : float
        Probability that a sample is changed, 0 to 1; drawn independently for each sample.

    Raises
    ------
    ArgumentError
        `p` is outside 0 to 1.
    """

    _operation = color.EQUALIZE


class Gamma(_Single):
    """Apply gamma correction: ``255 * gain * (value / 255) ** gamma``.

    A gamma below 1 lightens shadows, above 1 darkens them. Matches torchvision's adjust_gamma, but rounds to nearest.

    Deterministic form: itself if `p` is 1 and `gamma` is one number, otherwise None.

    Parameters
    ----------
    gamma : float or (float, float)
        0 to 100. With a range, each sample draws its own value.
    gain : float
        0 to 100.
    p : float
        Probability that a sample is changed, 0 to 1; drawn independently for each sample.

    Raises
    ------
    ArgumentError
        An argument is out of range.
    """

    _operation = color.GAMMA

    def __init__(self, gamma: float | Range = (0.8, 1.25), gain: float = 1, p: float = 1.0) -> None:
        self._range = span("Gamma", "gamma", gamma, 0, color.MOST_FACTOR)
        self.gamma = self._range if isinstance(gamma, (tuple, list)) else self._range[0]
        self.gain = number("Gamma", "gain", gain, 0, color.MOST_FACTOR)
        super().__init__(p)

    def _arguments(self, rng: SampleRandom) -> tuple[Any, Any]:
        return drawn(rng, self._range), self.gain

    def _fixed(self) -> bool:
        return self.p == 1.0 and self._range[0] == self._range[1]


# Named in errors when a program runs without its transform.
_ANY = Grayscale()
