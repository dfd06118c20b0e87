"""Policies: random operations from a published list, drawn per sample."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core.pixels import color as kernels
from highway.arguments import number, whole
from highway.batch import Batch, empty
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms import color
from highway.transforms.crop import Fill, fill_pixel, plain_fill
from highway.transforms.geometry import Geometry, product
from highway.transforms.transform import Transform, pixels
from highway.transforms.warps import INTERPOLATIONS, ComposedWarp, Interpolation, checked_interpolation

__all__ = ["RandAugment", "TrivialAugmentWide"]


class Operation(NamedTuple):
    """An operation of a policy.

    Attributes
    ----------
    name : str
    magnitudes : float64 (bins,)
        From weak to strong.
    signed : bool
        Whether the magnitude is negative for half of the samples.
    """

    name: str
    magnitudes: NDArray[np.float64]
    signed: bool = False


class Drawn(NamedTuple):
    """Parameters of one round for N images; each image has one operation, the other parameters are neutral.

    Attributes
    ----------
    matrices : float64 (N, 3, 3)
        From image to output coordinates.
    ops, arguments : int32 (N, 1), float32 (N, 1, 2)
        Color program.
    sharpness : float32 (N,)
        Factors; 1 leaves an image unchanged.
    """

    matrices: NDArray[np.float64]
    ops: NDArray[np.int32]
    arguments: NDArray[np.float32]
    sharpness: NDArray[np.float32]


_CODES = {
    "Brightness": kernels.BRIGHTNESS,
    "Color": kernels.SATURATION,
    "Contrast": kernels.CONTRAST,
    "Posterize": kernels.POSTERIZE,
    "Solarize": kernels.SOLARIZE,
    "AutoContrast": kernels.AUTOCONTRAST,
    "Equalize": kernels.EQUALIZE,
}
# Their factor is 1 plus the magnitude.
_FACTORS = ("Brightness", "Color", "Contrast")


class Policy(Transform):
    """Base of the policies: rounds of one operation each, drawn per sample.

    Attributes
    ----------
    rounds : int
    """

    hands_over = True
    takes = "bytes"
    rounds: int = 1

    def __init__(
        self,
        num_magnitude_bins: int = 31,
        interpolation: Interpolation = "nearest",
        fill: Fill = 0,
        min_visible: float = 0.0,
    ) -> None:
        name = type(self).__name__
        self.num_magnitude_bins = whole(name, "num_magnitude_bins", num_magnitude_bins, 2, 1000)
        self.interpolation = checked_interpolation(name, interpolation)
        self.fill = plain_fill(name, fill)
        self.min_visible = number(name, "min_visible", min_visible, 0, 1)

    def operations(self, height: int, width: int) -> list[Operation]:
        """Return the available operations for images of this size."""
        raise NotImplementedError

    def bins(self, rng: SampleRandom) -> NDArray[np.int64]:
        """Return the index of the magnitude of each sample, int64 (N,)."""
        raise NotImplementedError

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the shape unchanged."""
        fill_pixel(self, self.fill, shape[2], np.dtype(np.uint8))
        self._check(shape[2])
        return shape

    def _check(self, channels: int) -> None:
        if channels not in (1, 3):
            raise ArgumentError(f"{self!r}: images have {channels} channels; expected 1 or 3")

    def draw(self, rng: SampleRandom, batch: Batch) -> list[Drawn]:
        """Draw operations and magnitudes."""
        images = batch["images"]
        pixels(images, self)
        if images.dtype != np.uint8:
            raise ArgumentError(f"{self!r}: images are {images.dtype}; expected uint8 (N, H, W, C)")
        self._check(images.shape[3])
        operations = self.operations(*images.shape[1:3])
        table = np.stack([operation.magnitudes for operation in operations])
        signed = np.array([operation.signed for operation in operations])
        rounds = []
        for _ in range(self.rounds):
            chosen = rng.integers(0, len(operations))
            found = table[chosen, self.bins(rng)]
            negative = rng.bernoulli(0.5) & signed[chosen]
            rounds.append(_drawn(operations, chosen, np.where(negative, -found, found), images.shape))
        return rounds

    def apply_images(self, images: NDArray[np.uint8], params: list[Drawn]) -> NDArray[np.uint8]:
        """Apply the rounds: uint8 (N, H, W, C) to uint8 (N, H, W, C)."""
        count, height, width, channels = images.shape
        may_overwrite = False
        for drawn in params:
            if (drawn.matrices != np.eye(3)).any():
                composed = ComposedWarp(count, height, width)
                composed.then(drawn.matrices, height, width)
                fill = fill_pixel(self, self.fill, channels, images.dtype)
                images, may_overwrite = (
                    composed.sampled(images, INTERPOLATIONS[self.interpolation], fill),
                    True,
                )
            if drawn.ops.any():
                images = color.run(images, [(drawn.ops, drawn.arguments)], images if may_overwrite else None)
                may_overwrite = True
            rows = np.flatnonzero(drawn.sharpness != 1)
            if len(rows):
                if not may_overwrite:
                    images, may_overwrite = images.copy(), True
                sharp = empty((len(rows), *images.shape[1:]))
                kernels.sharpen(np.ascontiguousarray(images[rows]), drawn.sharpness[rows], sharp)
                images[rows] = sharp
        return images

    def apply_boxes(
        self,
        boxes: NDArray[np.float32],
        owners: NDArray[np.int64],
        params: list[Drawn],
        shape: tuple[int, int, int],
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """Move boxes round by round: a later round does not restore what an earlier one moves out."""
        kept = np.ones(len(boxes), np.bool_)
        for drawn in params:
            boxes, remain = Geometry(drawn.matrices, *shape[1:]).boxes(boxes, owners, self.min_visible)
            kept &= remain
        return boxes, kept

    def apply_masks(self, masks: NDArray[Any], params: list[Drawn], fill: int) -> NDArray[Any]:
        """Move masks round by round."""
        for drawn in params:
            if (drawn.matrices != np.eye(3)).any():
                masks = Geometry(drawn.matrices, *masks.shape[1:3]).masks(masks, fill)
        return masks

    def apply_pictures(self, pictures: NDArray[Any], params: list[Drawn]) -> NDArray[Any]:
        """Move pictures round by round like the images; their colors stay unchanged."""
        fill = fill_pixel(self, self.fill, pictures.shape[3], pictures.dtype)
        for drawn in params:
            if (drawn.matrices != np.eye(3)).any():
                geometry = Geometry(drawn.matrices, *pictures.shape[1:3])
                pictures = geometry.pictures(pictures, INTERPOLATIONS[self.interpolation], fill)
        return pictures

    def geometry(self, params: list[Drawn], shape: tuple[int, int, int]) -> Geometry:
        """Return the matrices of all rounds together, without the areas that a round moves out."""
        matrices = params[0].matrices
        for drawn in params[1:]:
            matrices = product(drawn.matrices, matrices)
        return Geometry(matrices, shape[1], shape[2])

    def deterministic(self) -> None:
        """Return None: images stay as they are."""


class RandAugment(Policy):
    """Apply random operations of one fixed strength to each image; all are equally likely.

    Deterministic form: None (the transform is skipped).

    Parameters
    ----------
    num_ops : int
        Number of operations per image.
    magnitude : int
        Strength of the operations, 0 to `num_magnitude_bins` - 1.
    num_magnitude_bins : int
        Number of strength levels.
    interpolation : {"nearest", "bilinear"}
        Interpolation of operations that move pixels.
    fill : float or tuple of float
        Value of pixels outside the image, 0 to 255: one number, or one per channel.
    min_visible : float
        Drop boxes with less than this fraction of their area visible, 0 to 1.

    Raises
    ------
    ArgumentError
        An argument is out of range. Images other than uint8 (N, H, W, 1) or (N, H, W, 3) raise when the pipeline is
        built or at the first batch.

    Notes
    -----
    Operations and strengths match torchvision's ``v2.RandAugment``. E. Cubuk et al., "RandAugment: practical
    automated data augmentation with a reduced search space", CVPR 2020.
    """

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: int = 9,
        num_magnitude_bins: int = 31,
        interpolation: Interpolation = "nearest",
        fill: Fill = 0,
        min_visible: float = 0.0,
    ) -> None:
        super().__init__(num_magnitude_bins, interpolation, fill, min_visible)
        self.num_ops = self.rounds = whole("RandAugment", "num_ops", num_ops, 1, 100)
        self.magnitude = whole("RandAugment", "magnitude", magnitude, 0, self.num_magnitude_bins - 1)

    def operations(self, height: int, width: int) -> list[Operation]:
        """Return the 14 operations."""
        bins = self.num_magnitude_bins
        return _operations(
            bins,
            0.3,
            150 / 331 * width,
            150 / 331 * height,
            30.0,
            0.9,
            8 - np.rint(np.arange(bins) * 4 / (bins - 1)),
        )

    def bins(self, rng: SampleRandom) -> NDArray[np.int64]:
        """Return the same magnitude for all samples."""
        return np.full(len(rng), self.magnitude)


class TrivialAugmentWide(Policy):
    """Apply one random operation of random strength to each image; all are equally likely.

    Deterministic form: None (the transform is skipped).

    Parameters
    ----------
    num_magnitude_bins : int
        Number of strength levels.
    interpolation : {"nearest", "bilinear"}
        Interpolation of operations that move pixels.
    fill : float or tuple of float
        Value of pixels outside the image, 0 to 255: one number, or one per channel.
    min_visible : float
        Drop boxes with less than this fraction of their area visible, 0 to 1.

    Raises
    ------
    ArgumentError
        An argument is out of range. Images other than uint8 (N, H, W, 1) or (N, H, W, 3) raise when the pipeline is
        built or at the first batch.

    Notes
    -----
    Operations and strengths match torchvision's ``v2.TrivialAugmentWide``. S. Müller and F. Hutter,
    "TrivialAugment: tuning-free yet state-of-the-art data augmentation", ICCV 2021.
    """

    def operations(self, height: int, width: int) -> list[Operation]:
        """Return the 14 operations."""
        bins = self.num_magnitude_bins
        return _operations(bins, 0.99, 32.0, 32.0, 135.0, 0.99, 8 - np.rint(np.arange(bins) * 6 / (bins - 1)))

    def bins(self, rng: SampleRandom) -> NDArray[np.int64]:
        """Draw a magnitude per sample, uniformly."""
        return rng.integers(0, self.num_magnitude_bins)


def _operations(
    bins: int,
    shear: float,
    across: float,
    down: float,
    degrees: float,
    factor: float,
    bits: NDArray[np.float64],
) -> list[Operation]:
    """Return the operations of both policies, up to the given strengths."""

    def upto(most: float) -> NDArray[np.float64]:
        return np.linspace(0, most, bins)

    none = np.zeros(bins)
    return [
        Operation("Identity", none),
        Operation("ShearX", upto(shear), True),
        Operation("ShearY", upto(shear), True),
        Operation("TranslateX", upto(across), True),
        Operation("TranslateY", upto(down), True),
        Operation("Rotate", upto(degrees), True),
        Operation("Brightness", upto(factor), True),
        Operation("Color", upto(factor), True),
        Operation("Contrast", upto(factor), True),
        Operation("Sharpness", upto(factor), True),
        Operation("Posterize", bits),
        Operation("Solarize", np.linspace(255, 0, bins)),
        Operation("AutoContrast", none),
        Operation("Equalize", none),
    ]


def _drawn(
    operations: list[Operation],
    chosen: NDArray[np.int64],
    magnitudes: NDArray[np.float64],
    shape: tuple[int, ...],
) -> Drawn:
    count, height, width = shape[:3]
    matrices = np.tile(np.eye(3), (count, 1, 1))
    ops = np.zeros((count, 1), np.int32)
    arguments = np.zeros((count, 1, 2), np.float32)
    sharpness = np.ones(count, np.float32)
    for place, operation in enumerate(operations):
        rows = np.flatnonzero(chosen == place)
        strength, name = magnitudes[rows], operation.name
        if name in _CODES:
            ops[rows] = _CODES[name]
            arguments[rows, 0, 0] = strength + (1 if name in _FACTORS else 0)
        elif name == "Sharpness":
            sharpness[rows] = 1 + strength
        elif name == "ShearX":
            matrices[rows, 0, 1] = -strength
        elif name == "ShearY":
            matrices[rows, 1, 0] = -strength
        elif name == "TranslateX":
            matrices[rows, 0, 2] = np.trunc(strength)
        elif name == "TranslateY":
            matrices[rows, 1, 2] = np.trunc(strength)
        elif name == "Rotate":
            # Counter-clockwise about the center; y points down.
            cos, sin = np.cos(np.radians(strength)), np.sin(np.radians(strength))
            x, y = width / 2, height / 2
            matrices[rows, 0, 0] = matrices[rows, 1, 1] = cos
            matrices[rows, 0, 1], matrices[rows, 1, 0] = sin, -sin
            matrices[rows, 0, 2] = x - cos * x - sin * y
            matrices[rows, 1, 2] = y + sin * x - cos * y
    return Drawn(matrices, ops, arguments, sharpness)
