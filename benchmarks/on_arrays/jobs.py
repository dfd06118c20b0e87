"""The jobs of transforms.py, sizes, and the random draws of a batch.

A participant is a module of this folder with a function ``ways(size)``. It returns, for each job that it supports, its
implementations by name: ``make(images, drawn) -> batch``, or such a function in `Own` if it draws its own numbers or
defines the job differently.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Drawn = list[tuple[Any, ...]]
"""For each image what was drawn for it, as plain numbers."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BITS, THRESHOLD, SHARP, KERNEL, NOISE, CLASSES = 4, 128, 2.0, 5, 0.1, 10


class Sizes:
    """Sizes of the results, for images of height and width `size`.

    Attributes
    ----------
    crop, margin, smaller, larger : int
        Sides of crops, width of borders, and sides that images are resized to.
    box : (int, int)
        Height and width of a letterbox.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.crop, self.margin = size * 6 // 7, size // 14
        self.smaller, self.larger = size * 5 // 7, size * 8 // 7
        self.box = (self.crop, self.larger)


class Job(NamedTuple):
    """A transform of Highway, and the tolerance for the others.

    Attributes
    ----------
    shown : str
        Its arguments in the table.
    draw : callable
        (Generator, images, Sizes) to the draws of every image.
    apart : float
        Maximum mean difference of other results from Highway's, in levels.
    """

    shown: str
    draw: Callable[[np.random.Generator, int, Sizes], Drawn]
    apart: float = 0.0


class Own(NamedTuple):
    """An implementation with its own draws or definition; only the size of its change is checked."""

    make: Callable[[NDArray[Any], Drawn], Any]


def pictures(count: int, size: int) -> NDArray[np.uint8]:
    """Return waves with a little noise, uint8 (count, size, size, 3), with an uneven histogram."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = rng.uniform(-2, 2, (2, count, 3))[..., None, None] * np.stack((y, x))[:, None, None]
    values = 125 + 80 * np.sin(2 * np.pi * waves.sum(axis=0) + rng.uniform(0, 6, (count, 3, 1, 1)))
    values += rng.normal(0, 4, values.shape)
    return np.ascontiguousarray(np.clip(values, 10, 240).astype(np.uint8).transpose(0, 2, 3, 1))


def nothing(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    return [()] * count


def corners(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    """Draw top and left of a crop."""
    return _rows(*rng.integers(0, sizes.size - sizes.crop + 1, (2, count)))


def padded_corners(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    """Draw top and left in the padded image."""
    return _rows(*rng.integers(0, 2 * sizes.margin + 1, (2, count)))


def windows(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    """Draw top, left, height and width, of 8 to 100 percent of the area."""
    areas = rng.uniform(0.08, 1, count) * sizes.size**2
    ratios = np.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3), count))
    widths = np.clip(np.rint(np.sqrt(areas * ratios)), 1, sizes.size).astype(np.int64)
    heights = np.clip(np.rint(np.sqrt(areas / ratios)), 1, sizes.size).astype(np.int64)
    tops, lefts = rng.integers(0, sizes.size - heights + 1), rng.integers(0, sizes.size - widths + 1)
    return _rows(tops, lefts, heights, widths)


def moves(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    """Draw whole pixels to the right and down, up to a tenth of the size."""
    return _rows(*np.rint(rng.uniform(-0.1, 0.1, (2, count)) * sizes.size).astype(np.int64))


def turns(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    """Draw degrees counter-clockwise."""
    return _rows(rng.uniform(-30, 30, count))


def zooms(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    """Factors."""
    return _rows(rng.uniform(0.8, 1.25, count))


def affines(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    """Draw degrees clockwise, pixels right and down, factor, and degrees of the shear along x."""
    x, y = np.rint(rng.uniform(-0.1, 0.1, (2, count)) * sizes.size).astype(np.int64)
    return _rows(rng.uniform(-15, 15, count), x, y, rng.uniform(0.9, 1.1, count), rng.uniform(-10, 10, count))


def quadrilaterals(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    """Draw the new corners, clockwise from the top left."""
    inwards = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    ends = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * sizes.size
    steps = rng.integers(0, int(0.3 * (sizes.size // 2)) + 1, (count, 4, 2))
    return [(quadrilateral,) for quadrilateral in (ends + steps * inwards).tolist()]


def jitters(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    """Draw factors of brightness, contrast and saturation, turns of hue, and the order of the four."""
    orders = np.argsort(rng.random((count, 4)), axis=1).tolist()
    factors = rng.uniform(0.6, 1.4, (count, 3)).tolist()
    hues = rng.uniform(-0.1, 0.1, count).tolist()
    return [(*three, hue, order) for three, hue, order in zip(factors, hues, orders, strict=True)]


def gammas(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    return _rows(rng.uniform(0.8, 1.25, count))


def sigmas(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    return _rows(rng.uniform(0.1, 2.0, count))


def parts(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    """Draw the weight of the image itself."""
    return _rows(rng.beta(1.0, 1.0, count))


def rectangles(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    """Draw left, top, right and bottom: 2 to 33 percent of the area."""
    areas = rng.uniform(0.02, 0.33, count) * sizes.size**2
    ratios = np.exp(rng.uniform(math.log(0.3), math.log(3.3), count))
    heights = np.clip(np.rint(np.sqrt(areas * ratios)), 1, sizes.size - 1).astype(np.int64)
    widths = np.clip(np.rint(np.sqrt(areas / ratios)), 1, sizes.size - 1).astype(np.int64)
    tops, lefts = rng.integers(0, sizes.size - heights + 1), rng.integers(0, sizes.size - widths + 1)
    return _rows(lefts, tops, lefts + widths, tops + heights)


def mixed_rectangles(rng: np.random.Generator, count: int, sizes: Sizes) -> Drawn:
    """Draw left, top, right and bottom of a uniformly drawn area about any point."""
    half = (0.5 * np.sqrt(rng.random(count)) * sizes.size).astype(np.int64)
    x, y = rng.integers(0, sizes.size, (2, count))
    low, high = np.maximum((x - half, y - half), 0), np.minimum((x + half, y + half), sizes.size)
    return _rows(*low, *high)


def matrices(name: str, columns: list[NDArray[Any]], size: int) -> NDArray[np.float64]:
    """Return the matrices of Shift, Rotate, Zoom, Affine or Perspective from their draws, float64 (N, 3, 3).

    The corner of the first pixel is (0, 0), and its center (0.5, 0.5).
    """
    found = np.zeros((len(columns[0]), 3, 3))
    found[:, 2, 2] = 1
    if name == "Perspective":
        return _perspectives(columns[0], size)
    if name == "Shift":
        found[:, 0, 0] = found[:, 1, 1] = 1
        found[:, 0, 2], found[:, 1, 2] = columns
        return found
    zeros, ones = np.zeros(len(found)), np.ones(len(found))
    if name == "Rotate":
        angles, x, y, scales, shears = -columns[0], zeros, zeros, ones, zeros
    elif name == "Zoom":
        angles, x, y, scales, shears = zeros, zeros, zeros, columns[0], zeros
    else:
        angles, x, y, scales, shears = columns
    cosines, sines, slants = (
        np.cos(np.radians(angles)),
        np.sin(np.radians(angles)),
        np.tan(np.radians(shears)),
    )
    found[:, 0, 0], found[:, 0, 1] = scales * cosines, scales * (-cosines * slants - sines)
    found[:, 1, 0], found[:, 1, 1] = scales * sines, scales * (-sines * slants + cosines)
    middle = size / 2
    found[:, 0, 2] = middle + x - middle * (found[:, 0, 0] + found[:, 0, 1])
    found[:, 1, 2] = middle + y - middle * (found[:, 1, 0] + found[:, 1, 1])
    return found


def _perspectives(ends: NDArray[Any], size: int) -> NDArray[np.float64]:
    """Solve for the maps of the corners of an image to these (N, 4, 2): eight equations each."""
    begins = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * float(size)
    count = len(ends)
    left, right = np.zeros((count, 8, 8)), ends.reshape(count, 8).astype(np.float64)
    for corner, (x, y) in enumerate(begins):
        for axis in (0, 1):
            row = left[:, 2 * corner + axis]
            row[:, 3 * axis : 3 * axis + 3] = x, y, 1
            row[:, 6], row[:, 7] = -x * ends[:, corner, axis], -y * ends[:, corner, axis]
    solved = np.linalg.solve(left, right[..., None])[..., 0]
    return np.concatenate((solved, np.ones((count, 1))), axis=1).reshape(count, 3, 3)


def _rows(*columns: NDArray[Any]) -> Drawn:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def jobs(size: int) -> dict[str, Job]:
    """Return all jobs, in the order of the table."""
    sizes = Sizes(size)
    crop, margin, box = sizes.crop, sizes.margin, sizes.box
    return {
        "FlipX": Job("p=1", nothing),
        "FlipY": Job("p=1", nothing),
        "Transpose": Job("p=1", nothing),
        "Pad": Job(f"{margin}", nothing),
        "RandomCrop": Job(f"{crop}", corners),
        "CenterCrop": Job(f"{crop}", nothing),
        "PadCrop": Job(f"{size}, padding={margin}", padded_corners),
        "Slice": Job(f"{margin}, {margin}, {crop}, {crop}", nothing),
        "RandomResizedCrop": Job(f"{size}", windows, 2),
        "Resize": Job(f"({sizes.smaller}, {sizes.smaller})", nothing, 2),
        "Resize shorter": Job(f"{sizes.larger}", nothing, 2),
        "Letterbox": Job(f"{box}", nothing, 2),
        "Shift": Job("0.1, 0.1", moves),
        "Rotate": Job("30", turns, 2),
        "Zoom": Job("(0.8, 1.25)", zooms, 2),
        "Affine": Job("15, (0.1, 0.1), (0.9, 1.1), 10", affines, 2),
        "Perspective": Job("0.3, p=1", quadrilaterals, 2),
        "ColorJitter": Job("0.4, 0.4, 0.4, 0.1", jitters, 3),
        "Grayscale": Job("", nothing, 1),
        "Invert": Job("p=1", nothing),
        "Solarize": Job(f"{THRESHOLD}, p=1", nothing),
        "Posterize": Job(f"{BITS}, p=1", nothing),
        "Sharpness": Job(f"{SHARP}, p=1", nothing, 1),
        "AutoContrast": Job("p=1", nothing, 1),
        "Equalize": Job("p=1", nothing, 2),
        "Gamma": Job("(0.8, 1.25)", gammas, 1),
        "GaussianBlur": Job(f"{KERNEL}, (0.1, 2.0)", sigmas, 1),
        "GaussianNoise": Job(f"sigma={NOISE}", nothing),
        "RandomErasing": Job("p=1", rectangles),
        "Mixup": Job("", parts, 1),
        "CutMix": Job("", mixed_rectangles),
        "Normalize": Job("", nothing, 1e-5),
        "Rescale": Job("2 / 255, -1", nothing, 1e-5),
        "ToFloat": Job("", nothing, 1e-5),
        "RandAugment": Job("", nothing),
        "TrivialAugmentWide": Job("", nothing),
    }
