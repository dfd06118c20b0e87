"""torchvision v2 on uint8 tensors (N, C, H, W), one thread: image by image, and a whole batch at once.

With a whole batch, all images share the draw of the first. Only that image is compared then; the time counts, although
it is less work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from on_arrays import jobs
from on_arrays.jobs import Drawn, Own, Sizes
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional

torch.set_num_threads(1)

POLICIES = ("RandAugment", "TrivialAugmentWide")
BILINEAR, NEAREST = InterpolationMode.BILINEAR, InterpolationMode.NEAREST


class First(Own):
    """An implementation in which all images share the draw of the first."""


def version() -> str:
    return f"torch {torch.__version__}, torchvision {torchvision.__version__}"


def ways(size: int) -> dict[str, dict[str, Any]]:
    sizes = Sizes(size)
    f, crop, margin = functional, sizes.crop, sizes.margin
    before = (sizes.box[1] - sizes.box[0]) // 2
    after = sizes.box[1] - sizes.box[0] - before

    def window(x: Any, top: int, left: int, height: int, width: int) -> Any:
        return f.resized_crop(x, top, left, height, width, [size, size], BILINEAR, antialias=True)

    def boxed(x: Any) -> Any:
        return f.pad(f.resize(x, [crop, crop], BILINEAR, antialias=True), [before, 0, after, 0])

    def affine(x: Any, angle: float, right: int, down: int, scale: float, shear: float) -> Any:
        return f.affine(x, angle, [right, down], scale, [shear, 0.0], BILINEAR)

    def perspective(x: Any, ends: list[list[int]]) -> Any:
        begins = [[0, 0], [size, 0], [size, size], [0, size]]
        return f.perspective(x, begins, ends, BILINEAR)

    def jittered(
        x: Any, brightness: float, contrast: float, saturation: float, hue: float, order: list[int]
    ) -> Any:
        for step in order:
            if step == 0:
                x = f.adjust_brightness(x, brightness)
            elif step == 1:
                x = f.adjust_contrast(x, contrast)
            elif step == 2:
                x = f.adjust_saturation(x, saturation)
            else:
                x = f.adjust_hue(x, hue)
        return x

    def erased(x: Any, left: int, top: int, right: int, bottom: int) -> Any:
        return f.erase(x, top, left, bottom - top, right - left, black)

    black = torch.zeros((1, 1, 1), dtype=torch.uint8)
    functions: dict[str, Callable[..., Any]] = {
        "FlipX": f.horizontal_flip,
        "FlipY": f.vertical_flip,
        "Transpose": lambda x: x.transpose(-1, -2).contiguous(),
        "Pad": lambda x: f.pad(x, [margin]),
        "RandomCrop": lambda x, top, left: f.crop(x, top, left, crop, crop),
        "CenterCrop": lambda x: f.center_crop(x, [crop]).contiguous(),
        "PadCrop": lambda x, top, left: f.crop(f.pad(x, [margin]), top, left, size, size),
        "Slice": lambda x: f.crop(x, margin, margin, crop, crop).contiguous(),
        "RandomResizedCrop": window,
        "Resize": lambda x: f.resize(x, [sizes.smaller, sizes.smaller], BILINEAR, antialias=True),
        "Resize shorter": lambda x: f.resize(x, [sizes.larger], BILINEAR, antialias=True),
        "Letterbox": boxed,
        "Shift": lambda x, right, down: f.affine(x, 0.0, [right, down], 1.0, [0.0, 0.0], NEAREST),
        "Rotate": lambda x, angle: f.rotate(x, angle, BILINEAR),
        "Zoom": lambda x, scale: f.affine(x, 0.0, [0, 0], scale, [0.0, 0.0], BILINEAR),
        "Affine": affine,
        "Perspective": perspective,
        "ColorJitter": jittered,
        "Grayscale": lambda x: f.rgb_to_grayscale(x, 3),
        "Invert": f.invert,
        "Solarize": lambda x: f.solarize(x, jobs.THRESHOLD),
        "Posterize": lambda x: f.posterize(x, jobs.BITS),
        "Sharpness": lambda x: f.adjust_sharpness(x, jobs.SHARP),
        "AutoContrast": f.autocontrast,
        "Equalize": f.equalize,
        "Gamma": f.adjust_gamma,
        "GaussianBlur": lambda x, sigma: f.gaussian_blur(x, [jobs.KERNEL, jobs.KERNEL], [sigma, sigma]),
        "GaussianNoise": lambda x: f.gaussian_noise(x, 0.0, jobs.NOISE),
        "RandomErasing": erased,
        "Normalize": lambda x: f.normalize(
            f.to_dtype(x, torch.float32, scale=True), jobs.MEAN, jobs.STD, inplace=True
        ),
        "Rescale": lambda x: f.to_dtype(x, torch.float32).mul_(2 / 255).sub_(1),
        "ToFloat": lambda x: f.to_dtype(x, torch.float32, scale=True),
        "RandAugment": v2.RandAugment(),
        "TrivialAugmentWide": v2.TrivialAugmentWide(),
    }
    found: dict[str, dict[str, Any]] = {}
    own = ("GaussianNoise", *POLICIES)
    for name, function in functions.items():
        kind: Any = Own if name in own else _same
        random = jobs.jobs(size)[name].draw is not jobs.nothing
        batch: Any = First if random else kind
        found[name] = {"images": kind(_each(function))}
        if name not in POLICIES:
            found[name]["batch"] = batch(_at_once(function))
    found["Mixup"] = {"images": _mixed, "batch": First(_mixed_at_once)}
    found["CutMix"] = {"images": _patched, "batch": First(_patched_at_once)}
    return found


def _same(make: Callable[..., Any]) -> Callable[..., Any]:
    return make


_tensors: dict[int, Any] = {}


def tensors(images: NDArray[np.uint8]) -> Any:
    """Return the batch in the layout of torchvision; made once."""
    if id(images) not in _tensors:
        _tensors[id(images)] = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return _tensors[id(images)]


def _each(function: Callable[..., Any]) -> Callable[..., Any]:
    def make(images: NDArray[np.uint8], drawn: Drawn) -> Any:
        return torch.stack([function(x, *numbers) for x, numbers in zip(tensors(images), drawn, strict=True)])

    return make


def _at_once(function: Callable[..., Any]) -> Callable[..., Any]:
    def make(images: NDArray[np.uint8], drawn: Drawn) -> Any:
        return function(tensors(images), *drawn[0]).contiguous()

    return make


def _mixed(images: NDArray[np.uint8], drawn: Drawn) -> Any:
    x = tensors(images)
    own = torch.tensor(drawn, dtype=torch.float32)[:, :, None, None]
    return torch.lerp(x.roll(-1, 0).float(), x.float(), own).round_().to(torch.uint8)


def _mixed_at_once(images: NDArray[np.uint8], drawn: Drawn) -> Any:
    x, own = tensors(images).float(), drawn[0][0]
    return x.roll(-1, 0).mul_(1 - own).add_(x.mul(own)).round_().to(torch.uint8)


def _patched(images: NDArray[np.uint8], drawn: Drawn) -> Any:
    x = tensors(images)
    out = x.clone()
    for row, (left, top, right, bottom) in enumerate(drawn):
        out[row, :, top:bottom, left:right] = x[(row + 1) % len(x), :, top:bottom, left:right]
    return out


def _patched_at_once(images: NDArray[np.uint8], drawn: Drawn) -> Any:
    x = tensors(images)
    left, top, right, bottom = drawn[0]
    out = x.clone()
    out[..., top:bottom, left:right] = x.roll(-1, 0)[..., top:bottom, left:right]
    return out
