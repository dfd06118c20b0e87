"""Transforms: what happens to images between reading and training."""

from highway.transforms.colour import (
    AutoContrast,
    ColorJitter,
    Equalize,
    Gamma,
    Grayscale,
    Invert,
    Posterize,
    Solarize,
)
from highway.transforms.crop import CenterCrop, RandomCrop
from highway.transforms.filters import GaussianBlur, GaussianNoise, Sharpness
from highway.transforms.fit import CenterFit, Fit, Letterbox, RandomResizedCrop, Stretch
from highway.transforms.flip import FlipX, FlipY
from highway.transforms.function import Lambda
from highway.transforms.pad import Pad
from highway.transforms.transform import Transform
from highway.transforms.values import Normalize

__all__ = [
    "AutoContrast",
    "CenterCrop",
    "CenterFit",
    "ColorJitter",
    "Equalize",
    "Fit",
    "FlipX",
    "FlipY",
    "Gamma",
    "GaussianBlur",
    "GaussianNoise",
    "Grayscale",
    "Invert",
    "Lambda",
    "Letterbox",
    "Normalize",
    "Pad",
    "Posterize",
    "RandomCrop",
    "RandomResizedCrop",
    "Sharpness",
    "Solarize",
    "Stretch",
    "Transform",
]
