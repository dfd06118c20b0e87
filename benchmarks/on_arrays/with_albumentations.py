"""Albumentations: its classes, image by image, with their own draws; results are copied into one batch."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations
import cv2
import numpy as np
from numpy.typing import NDArray
from on_arrays import jobs
from on_arrays.jobs import Drawn, Own, Sizes

cv2.setNumThreads(1)


def version() -> str:
    return f"albumentations {albumentations.__version__}"


def ways(size: int) -> dict[str, dict[str, Any]]:
    sizes = Sizes(size)
    crop, margin, same = sizes.crop, sizes.margin, (size, size)
    a = albumentations
    alike = {
        "FlipX": (a.HorizontalFlip(p=1), same),
        "FlipY": (a.VerticalFlip(p=1), same),
        "Transpose": (a.Transpose(p=1), same),
        "Pad": (a.Pad(margin), (size + 2 * margin, size + 2 * margin)),
        "CenterCrop": (a.CenterCrop(crop, crop), (crop, crop)),
        "Slice": (a.Crop(margin, margin, margin + crop, margin + crop), (crop, crop)),
        "Resize": (
            a.Resize(sizes.smaller, sizes.smaller, interpolation=cv2.INTER_AREA),
            (sizes.smaller, sizes.smaller),
        ),
        "Resize shorter": (a.SmallestMaxSize(sizes.larger), (sizes.larger, sizes.larger)),
        "Grayscale": (a.ToGray(p=1), same),
        "Invert": (a.InvertImg(p=1), same),
        "Solarize": (a.Solarize((jobs.THRESHOLD / 255, jobs.THRESHOLD / 255), p=1), same),
        "Posterize": (a.Posterize(jobs.BITS, p=1), same),
        "AutoContrast": (a.AutoContrast(method="pil", p=1), same),
        "Equalize": (a.Equalize(mode="cv", p=1), same),
    }
    own = {
        "RandomCrop": (a.RandomCrop(crop, crop), (crop, crop)),
        "RandomResizedCrop": (a.RandomResizedCrop(same), same),
        "Shift": (
            a.Affine(translate_percent=(-0.1, 0.1), interpolation=cv2.INTER_NEAREST, p=1),
            same,
        ),
        "Rotate": (a.Rotate((-30, 30), p=1), same),
        "Zoom": (a.Affine(scale=(0.8, 1.25), keep_ratio=True, p=1), same),
        "Affine": (
            a.Affine(scale=(0.9, 1.1), translate_percent=(-0.1, 0.1), rotate=(-15, 15), shear=(-10, 10), p=1),
            same,
        ),
        "Perspective": (a.Perspective((0.05, 0.15), p=1), same),
        "ColorJitter": (
            a.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1), p=1),
            same,
        ),
        "Sharpness": (a.Sharpen((0.2, 0.5), p=1), same),
        "Gamma": (a.RandomGamma((80, 125), p=1), same),
        "GaussianBlur": (a.GaussianBlur((jobs.KERNEL, jobs.KERNEL), (0.1, 2.0), p=1), same),
        "GaussianNoise": (a.GaussNoise((jobs.NOISE, jobs.NOISE), p=1), same),
        "RandomErasing": (a.Erasing(p=1), same),
    }
    found: dict[str, dict[str, Any]] = {
        **{name: {"albumentations": _each(*both)} for name, both in alike.items()},
        **{name: {"albumentations": Own(_each(*both))} for name, both in own.items()},
    }
    found["Normalize"] = {"albumentations": _planes(a.Normalize(jobs.MEAN, jobs.STD))}
    found["ToFloat"] = {"albumentations": _planes(a.ToFloat(255))}
    return found


def _each(transform: Any, sides: tuple[int, int]) -> Callable[..., Any]:
    room: list[NDArray[Any]] = []

    def make(images: NDArray[np.uint8], drawn: Drawn) -> Any:
        if not room:
            room.append(np.empty((len(images), *sides, 3), np.uint8))
        for image, target in zip(images, room[0], strict=True):
            target[:] = transform(image=image)["image"]
        return room[0]

    return make


def _planes(transform: Any) -> Callable[..., Any]:
    room: list[NDArray[Any]] = []

    def make(images: NDArray[np.uint8], drawn: Drawn) -> Any:
        count, height, width, channels = images.shape
        if not room:
            room.append(np.empty((count, channels, height, width), np.float32))
        for image, target in zip(images, room[0], strict=True):
            target[:] = transform(image=image)["image"].transpose(2, 0, 1)
        return room[0]

    return make
