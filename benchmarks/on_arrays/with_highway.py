"""Highway: ``Augmentations([transform]).process``, with its own draws; and copies of the same number of bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from on_arrays import jobs
from on_arrays.jobs import Drawn, Own, Sizes

from highway import transforms
from highway._core.pixels import color
from highway._core.pool import BufferPool
from highway.batch import Batch
from highway.modules import Augmentations
from highway.transforms.crop import CropWindows
from highway.transforms.mix import Mixed
from highway.transforms.placement import Placement
from highway.transforms.transform import Transform

COPIES = ("FlipX", "FlipY", "Pad", "RandomCrop", "CenterCrop", "PadCrop", "Slice")
"""Jobs compared with a plain copy of the bytes of the result."""


def version() -> str:
    import highway
    from highway._core import simd

    return f"Highway {highway.__version__} ({simd.in_use()} kernels)"


def transform_of(name: str, sizes: Sizes) -> Transform:
    """Return the transform of a job."""
    size, crop, margin = sizes.size, sizes.crop, sizes.margin
    made = {
        "FlipX": lambda: transforms.FlipX(1),
        "FlipY": lambda: transforms.FlipY(1),
        "Transpose": lambda: transforms.Transpose(1),
        "Pad": lambda: transforms.Pad(margin),
        "RandomCrop": lambda: transforms.RandomCrop(crop),
        "CenterCrop": lambda: transforms.CenterCrop(crop),
        "PadCrop": lambda: transforms.PadCrop(size, margin),
        "Slice": lambda: transforms.Slice(margin, margin, crop, crop),
        "RandomResizedCrop": lambda: transforms.RandomResizedCrop(size),
        "Resize": lambda: transforms.Resize((sizes.smaller, sizes.smaller)),
        "Resize shorter": lambda: transforms.Resize(sizes.larger),
        "Letterbox": lambda: transforms.Letterbox(sizes.box),
        "Shift": lambda: transforms.Shift(0.1, 0.1),
        "Rotate": lambda: transforms.Rotate(30),
        "Zoom": lambda: transforms.Zoom((0.8, 1.25)),
        "Affine": lambda: transforms.Affine(15, (0.1, 0.1), (0.9, 1.1), 10),
        "Perspective": lambda: transforms.Perspective(0.3, 1),
        "ColorJitter": lambda: transforms.ColorJitter(0.4, 0.4, 0.4, 0.1),
        "Grayscale": lambda: transforms.Grayscale(),
        "Invert": lambda: transforms.Invert(1),
        "Solarize": lambda: transforms.Solarize(jobs.THRESHOLD, 1),
        "Posterize": lambda: transforms.Posterize(jobs.BITS, 1),
        "Sharpness": lambda: transforms.Sharpness(jobs.SHARP, 1),
        "AutoContrast": lambda: transforms.AutoContrast(1),
        "Equalize": lambda: transforms.Equalize(1),
        "Gamma": lambda: transforms.Gamma((0.8, 1.25)),
        "GaussianBlur": lambda: transforms.GaussianBlur(jobs.KERNEL, (0.1, 2.0)),
        "GaussianNoise": lambda: transforms.GaussianNoise(sigma=jobs.NOISE),
        "RandomErasing": lambda: transforms.RandomErasing(1),
        "Mixup": lambda: transforms.Mixup(num_classes=jobs.CLASSES),
        "CutMix": lambda: transforms.CutMix(num_classes=jobs.CLASSES),
        "Normalize": lambda: transforms.Normalize(jobs.MEAN, jobs.STD),
        "Rescale": lambda: transforms.Rescale(2 / 255, -1),
        "ToFloat": lambda: transforms.ToFloat(),
        "RandAugment": lambda: transforms.RandAugment(),
        "TrivialAugmentWide": lambda: transforms.TrivialAugmentWide(),
    }
    return made[name]()


def chains() -> dict[str, list[Transform]]:
    """Return chains of five color transforms: of single values, with one of whole pixels, and of whole images."""
    return {
        "five of single values": [
            transforms.ColorJitter(brightness=0.4),
            transforms.Solarize(jobs.THRESHOLD, 1),
            transforms.Gamma((0.8, 1.25)),
            transforms.Posterize(5, 1),
            transforms.Invert(1),
        ],
        "five with whole pixels": [
            transforms.ColorJitter(brightness=0.4),
            transforms.ColorJitter(saturation=0.4),
            transforms.Gamma((0.8, 1.25)),
            transforms.Posterize(5, 1),
            transforms.Invert(1),
        ],
        "five of the whole image": [
            transforms.ColorJitter(contrast=0.4),
            transforms.ColorJitter(saturation=0.4),
            transforms.ColorJitter(hue=0.1),
            transforms.AutoContrast(1),
            transforms.Solarize(jobs.THRESHOLD, 1),
        ],
    }


def everything(sizes: Sizes) -> list[Transform]:
    """Return a chain of all transforms that can follow each other."""
    names = [name for name in jobs.jobs(sizes.size) if name not in ("Rescale", "ToFloat")]
    # No other transform accepts the output of Normalize.
    names.append(names.pop(names.index("Normalize")))
    same = ("Pad", "RandomCrop", "CenterCrop", "PadCrop", "Slice", "Resize shorter", "Letterbox")
    return [transform_of(name, sizes) for name in names if name not in same]


def batch_of(images: NDArray[np.uint8], epoch: int = 0) -> Batch:
    labels = np.arange(len(images)) % jobs.CLASSES
    return Batch({"images": images, "labels": labels}, epoch=epoch, seq=0)


def ways(size: int) -> dict[str, dict[str, Any]]:
    sizes = Sizes(size)
    # As in a worker of a pipeline: results reuse memory.
    BufferPool(max_free_bytes=1 << 32).use()
    found: dict[str, dict[str, Any]] = {
        name: {"highway": _process([transform_of(name, sizes)])} for name in jobs.jobs(size)
    }
    for name in COPIES:
        found[name]["memcpy"] = Own(_copy(transform_of(name, sizes)))
    for chain, steps in chains().items():
        found[chain] = {"highway": _process(steps)}
        for number, step in enumerate(steps):
            found[f"{chain}: {number + 1}"] = {"highway": _process([step])}
    return found


def result(name: str, images: NDArray[np.uint8], drawn: Drawn, sizes: Sizes) -> NDArray[Any]:
    """Apply the transform with given draws, for the comparison."""
    transform = transform_of(name, sizes)
    if name not in _PARAMETERS:
        return Augmentations([transform]).process(batch_of(images)).images
    columns = [np.array(column) for column in zip(*drawn, strict=True)]
    return transform.apply_images(images, _PARAMETERS[name](columns, sizes))


def _process(steps: list[Transform]) -> Callable[..., Any]:
    stage, batches = Augmentations(steps), {}

    def make(images: NDArray[np.uint8], drawn: Drawn) -> Any:
        if id(images) not in batches:
            batches[id(images)] = batch_of(images)
        return stage.process(batches[id(images)]).images

    return make


def _copy(transform: Transform) -> Callable[..., Any]:
    made: list[NDArray[np.uint8]] = []

    def make(images: NDArray[np.uint8], drawn: Drawn) -> Any:
        if not made:
            like = Augmentations([transform]).process(batch_of(images)).images
            made.extend((like.copy(), like.copy()))
        np.copyto(*made)
        return made[0]

    return make


def _windows(columns: list[NDArray[Any]], height: int, width: int, margin: int = 0) -> CropWindows:
    return CropWindows(columns[0] - margin, columns[1] - margin, height, width)


def _placement(columns: list[NDArray[Any]], sizes: Sizes) -> Placement:
    tops, lefts, heights, widths = columns
    windows = np.stack((lefts, tops, lefts + widths, tops + heights), axis=1).astype(np.float64)
    targets = np.tile(np.array([0, 0, sizes.size, sizes.size], np.int32), (len(tops), 1))
    return Placement(windows, targets)


def _jitter(columns: list[NDArray[Any]], sizes: Sizes) -> Any:
    codes = np.array([color.BRIGHTNESS, color.CONTRAST, color.SATURATION, color.HUE], np.int32)
    order = columns[4]
    arguments = np.zeros((*order.shape, 2), np.float32)
    arguments[..., 0] = np.take_along_axis(np.stack(columns[:4], axis=1), order, axis=1)
    return codes[order], arguments


def _program(code: int) -> Callable[..., Any]:
    def program(columns: list[NDArray[Any]], sizes: Sizes) -> Any:
        arguments = np.ones((len(columns[0]), 1, 2), np.float32)
        arguments[:, 0, 0] = columns[0]
        return np.full((len(columns[0]), 1), code, np.int32), arguments

    return program


def _mixed(columns: list[NDArray[Any]], sizes: Sizes) -> Mixed:
    left, top, right, bottom = columns
    return Mixed(1 - (right - left) * (bottom - top) / sizes.size**2, np.stack(columns, axis=1))


def _erased(columns: list[NDArray[Any]], sizes: Sizes) -> Any:
    from highway.sampling.rng import SampleRandom
    from highway.transforms.erase import Erased

    boxes = np.stack(columns, axis=1)
    return Erased(boxes, SampleRandom(0, 0, np.arange(len(boxes)), 0))


def _matrices(name: str) -> Callable[..., Any]:
    def matrices(columns: list[NDArray[Any]], sizes: Sizes) -> NDArray[np.float64]:
        return jobs.matrices(name, columns, sizes.size)

    return matrices


_PARAMETERS: dict[str, Callable[[list[NDArray[Any]], Sizes], Any]] = {
    "RandomCrop": lambda columns, sizes: _windows(columns, sizes.crop, sizes.crop),
    "PadCrop": lambda columns, sizes: _windows(columns, sizes.size, sizes.size, sizes.margin),
    "RandomResizedCrop": _placement,
    **{name: _matrices(name) for name in ("Shift", "Rotate", "Zoom", "Affine", "Perspective")},
    "ColorJitter": _jitter,
    "Gamma": _program(color.GAMMA),
    "GaussianBlur": lambda columns, sizes: columns[0].astype(np.float32),
    "RandomErasing": _erased,
    "Mixup": lambda columns, sizes: Mixed(columns[0], None),
    "CutMix": _mixed,
}
