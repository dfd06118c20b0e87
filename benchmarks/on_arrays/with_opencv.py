"""OpenCV: cv2's functions, image by image, into the batch of the result; NumPy draws for the whole batch.

If NumPy alone is faster on the whole batch or on views, that is another implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from on_arrays import jobs
from on_arrays.jobs import Drawn, Own, Sizes

cv2.setNumThreads(1)

LEVELS = np.arange(256)


def version() -> str:
    return f"OpenCV {cv2.__version__}"


def ways(size: int) -> dict[str, dict[str, Any]]:
    sizes = Sizes(size)
    crop, margin, smaller, larger = sizes.crop, sizes.margin, sizes.smaller, sizes.larger
    same = (size, size)

    def cut(image: Any, out: Any, top: int, left: int) -> None:
        out[:] = image[top : top + crop, left : left + crop]

    def padded_cut(image: Any, out: Any, top: int, left: int) -> None:
        _moved(image, out, margin - left, margin - top)

    def padded(image: Any, out: Any) -> None:
        cv2.copyMakeBorder(image, margin, margin, margin, margin, cv2.BORDER_CONSTANT, dst=out)

    def window(image: Any, out: Any, top: int, left: int, height: int, width: int) -> None:
        cv2.resize(
            image[top : top + height, left : left + width], same, dst=out, interpolation=cv2.INTER_LINEAR
        )

    def shrunk(image: Any, out: Any) -> None:
        cv2.resize(image, (smaller, smaller), dst=out, interpolation=cv2.INTER_AREA)

    def grown(image: Any, out: Any) -> None:
        cv2.resize(image, (larger, larger), dst=out, interpolation=cv2.INTER_LINEAR)

    first = (sizes.box[1] - sizes.box[0]) // 2

    def boxed(image: Any, out: Any) -> None:
        out[:, :first] = 0
        out[:, first + crop :] = 0
        out[:, first : first + crop] = cv2.resize(image, (crop, crop), interpolation=cv2.INTER_AREA)

    def blended(images: Any, drawn: Drawn) -> Any:
        out = _kept(images.shape)
        for row, (own,) in enumerate(drawn):
            cv2.addWeighted(images[row], own, images[(row + 1) % len(images)], 1 - own, 0, dst=out[row])
        return out

    def patched(images: Any, drawn: Drawn) -> Any:
        out = _kept(images.shape)
        np.copyto(out, images)
        for row, (left, top, right, bottom) in enumerate(drawn):
            out[row, top:bottom, left:right] = images[(row + 1) % len(images), top:bottom, left:right]
        return out

    def erased(images: Any, drawn: Drawn) -> Any:
        out = _kept(images.shape)
        np.copyto(out, images)
        for row, (left, top, right, bottom) in enumerate(drawn):
            out[row, top:bottom, left:right] = 0
        return out

    crops = (crop, crop)
    deviations = np.array(jobs.STD) * 255
    return {
        "FlipX": {"cv2": _each(lambda image, out: cv2.flip(image, 1, dst=out), same)},
        "FlipY": {"cv2": _each(lambda image, out: cv2.flip(image, 0, dst=out), same)},
        "Transpose": {"cv2": _each(lambda image, out: cv2.transpose(image, dst=out), same)},
        "Pad": {"cv2": _each(padded, (size + 2 * margin, size + 2 * margin))},
        "RandomCrop": {"numpy": _each(cut, crops)},
        "CenterCrop": {"numpy": _each(lambda image, out: cut(image, out, *_center(sizes)), crops)},
        "PadCrop": {"numpy": _each(padded_cut, same)},
        "Slice": {"numpy": _each(lambda image, out: cut(image, out, margin, margin), crops)},
        "RandomResizedCrop": {"cv2": _each(window, same)},
        "Resize": {"cv2": _each(shrunk, (smaller, smaller))},
        "Resize shorter": {"cv2": _each(grown, (larger, larger))},
        "Letterbox": {"cv2": _each(boxed, sizes.box)},
        "Shift": {"numpy": _each(_moved, same)},
        **{name: {"cv2": _affine(name, size)} for name in ("Rotate", "Zoom", "Affine")},
        "Perspective": {"cv2": _perspective(size)},
        "ColorJitter": {"cv2": _each(_jittered, same)},
        "Grayscale": {"cv2": _each(_gray, same)},
        "Invert": {
            "cv2": _whole(lambda image, out: cv2.bitwise_not(image, dst=out)),
            "numpy": _whole(lambda images, out: np.bitwise_not(images, out=out)),
        },
        "Solarize": {
            "cv2": _whole(lambda images, out: cv2.LUT(images, _SOLARIZE, dst=out)),
        },
        "Posterize": {
            "cv2": _whole(lambda images, out: cv2.LUT(images, _POSTERIZE, dst=out)),
            "numpy": _whole(lambda images, out: np.bitwise_and(images, _MASK, out=out)),
        },
        "Sharpness": {"cv2": _each(_sharp, same)},
        "AutoContrast": {"cv2": _each(_stretched, same)},
        "Equalize": {"cv2": _each(_equalized, same)},
        "Gamma": {"cv2": _each(_corrected, same)},
        "GaussianBlur": {"cv2": _each(_blurred, same)},
        "GaussianNoise": {"cv2": Own(_each(_noisy, same))},
        "RandomErasing": {"numpy": erased},
        "Mixup": {"cv2": blended},
        "CutMix": {"numpy": patched},
        "Normalize": {
            "cv2.dnn": _blob(1 / deviations, np.array(jobs.MEAN) * 255),
            "numpy": _planes(1 / deviations, -np.array(jobs.MEAN) / np.array(jobs.STD)),
        },
        "Rescale": {
            "cv2.dnn": _blob(np.full(3, 2 / 255), np.full(3, 127.5)),
            "numpy": _planes(np.full(3, 2 / 255), np.full(3, -1.0)),
        },
        "ToFloat": {
            "cv2.dnn": _blob(np.full(3, 1 / 255), np.zeros(3)),
            "numpy": _planes(np.full(3, 1 / 255), np.zeros(3)),
        },
    }


_SOLARIZE = np.where(LEVELS < jobs.THRESHOLD, LEVELS, 255 - LEVELS).astype(np.uint8)
_MASK = np.uint8(256 - 2 ** (8 - jobs.BITS))
_POSTERIZE = LEVELS.astype(np.uint8) & _MASK
_room: dict[Any, NDArray[Any]] = {}


def _kept(shape: tuple[int, ...], dtype: Any = np.uint8) -> NDArray[Any]:
    """Return reused memory, as Highway's pool does."""
    if (shape, dtype) not in _room:
        _room[shape, dtype] = np.empty(shape, dtype)
    return _room[shape, dtype]


def _each(function: Callable[..., Any], sides: tuple[int, int]) -> Callable[..., Any]:
    def make(images: NDArray[np.uint8], drawn: Drawn) -> Any:
        out = _kept((len(images), *sides, 3))
        for image, target, numbers in zip(images, out, drawn, strict=True):
            function(image, target, *numbers)
        return out

    return make


def _whole(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a view of a batch as one tall image."""

    def make(images: NDArray[np.uint8], drawn: Drawn) -> Any:
        out = _kept(images.shape)
        function(images.reshape(-1, *images.shape[2:]), out.reshape(-1, *images.shape[2:]))
        return out

    return make


def _center(sizes: Sizes) -> tuple[int, int]:
    first = (sizes.size - sizes.crop) // 2
    return first, first


def _moved(image: Any, out: Any, x: int, y: int) -> None:
    """Move to the right and down; the border is 0."""
    height, width = image.shape[:2]
    top, bottom, left, right = max(y, 0), height + min(y, 0), max(x, 0), width + min(x, 0)
    out[:top] = 0
    out[bottom:] = 0
    out[top:bottom, :left] = 0
    out[top:bottom, right:] = 0
    out[top:bottom, left:right] = image[top - y : bottom - y, left - x : right - x]


def _centered(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the matrices for pixel centers at whole numbers."""
    to, back = np.eye(3), np.eye(3)
    to[:2, 2], back[:2, 2] = 0.5, -0.5
    return np.asarray(back @ matrices @ to)


def _affine(name: str, size: int) -> Callable[..., Any]:
    def make(images: NDArray[np.uint8], drawn: Drawn) -> Any:
        out = _kept(images.shape)
        columns = [np.array(column) for column in zip(*drawn, strict=True)]
        matrices = _centered(jobs.matrices(name, columns, size))[:, :2]
        for image, matrix, target in zip(images, matrices, out, strict=True):
            cv2.warpAffine(image, matrix, (size, size), dst=target, flags=cv2.INTER_LINEAR)
        return out

    return make


def _perspective(size: int) -> Callable[..., Any]:
    def make(images: NDArray[np.uint8], drawn: Drawn) -> Any:
        out = _kept(images.shape)
        matrices = _centered(jobs.matrices("Perspective", [np.array([ends for (ends,) in drawn])], size))
        for image, matrix, target in zip(images, matrices, out, strict=True):
            cv2.warpPerspective(image, matrix, (size, size), dst=target, flags=cv2.INTER_LINEAR)
        return out

    return make


def _jittered(
    image: Any, out: Any, brightness: float, contrast: float, saturation: float, hue: float, order: list[int]
) -> None:
    for step in order:
        if step == 0:
            cv2.convertScaleAbs(image, dst=out, alpha=brightness)
        elif step == 1:
            mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
            table = np.clip(LEVELS * contrast + (mean * (1 - contrast) + 0.5), 0, 255).astype(np.uint8)
            cv2.LUT(image, table, dst=out)
        elif step == 2:
            gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            cv2.addWeighted(image, saturation, gray, 1 - saturation, 0, dst=out)
        else:
            hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
            turned = cv2.LUT(cv2.extractChannel(hsv, 0), ((LEVELS + round(hue * 256)) % 256).astype(np.uint8))
            cv2.cvtColor(cv2.insertChannel(turned, hsv, 0), cv2.COLOR_HSV2RGB_FULL, dst=out)
        image = out


def _gray(image: Any, out: Any) -> None:
    cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB, dst=out)


_SMOOTH = (np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13).astype(np.float32)


def _sharp(image: Any, out: Any) -> None:
    out[:] = image
    inside = out[1:-1, 1:-1]
    smooth = cv2.filter2D(image, -1, _SMOOTH)[1:-1, 1:-1]
    inside[:] = cv2.addWeighted(image[1:-1, 1:-1], jobs.SHARP, smooth, 1 - jobs.SHARP, 0)


def _stretched(image: Any, out: Any) -> None:
    tables = np.empty((1, 256, 3), np.uint8)
    for channel, values in enumerate(cv2.split(image)):
        low, high, _, _ = cv2.minMaxLoc(values)
        stretched = (LEVELS - low) * (255 / max(high - low, 1)) if high > low else LEVELS
        tables[0, :, channel] = np.clip(stretched + 0.5, 0, 255)
    cv2.LUT(image, tables, dst=out)


def _equalized(image: Any, out: Any) -> None:
    cv2.merge([cv2.equalizeHist(values) for values in cv2.split(image)], dst=out)


def _corrected(image: Any, out: Any, gamma: float) -> None:
    table = ((LEVELS / 255) ** gamma * 255 + 0.5).astype(np.uint8)
    cv2.LUT(image, table, dst=out)


def _blurred(image: Any, out: Any, sigma: float) -> None:
    cv2.GaussianBlur(image, (jobs.KERNEL, jobs.KERNEL), sigma, dst=out, borderType=cv2.BORDER_REFLECT_101)


def _noisy(image: Any, out: Any) -> None:
    noise = _kept(image.shape, np.int16)
    cv2.randn(noise, (0, 0, 0), (jobs.NOISE * 255,) * 3)
    cv2.add(image, noise, dst=out, dtype=cv2.CV_8U)


def _blob(scale: NDArray[np.float64], mean: NDArray[np.float64]) -> Callable[..., Any]:
    parameters = cv2.dnn.Image2BlobParams()
    parameters.scalefactor = (*scale.tolist(), 1.0)
    parameters.mean = (*mean.tolist(), 0.0)

    def make(images: NDArray[np.uint8], drawn: Drawn) -> Any:
        return cv2.dnn.blobFromImagesWithParams(list(images), parameters)

    return make


def _planes(scale: NDArray[np.float64], bias: NDArray[np.float64]) -> Callable[..., Any]:
    """Process image by image in buffers that stay in the cache."""
    factors, offsets = scale.astype(np.float32), bias.astype(np.float32)

    def make(images: NDArray[np.uint8], drawn: Drawn) -> Any:
        count, height, width, channels = images.shape
        out = _kept((count, channels, height, width), np.float32)
        values = _kept((height, width, channels), np.float32)
        for image, target in zip(images, out, strict=True):
            np.multiply(image, factors, out=values)
            np.add(values, offsets, out=values)
            np.copyto(target, values.transpose(2, 0, 1))
        return out

    return make
