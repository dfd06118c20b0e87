"""Transforms: what happens to images between reading and training."""

from highway.transforms.crop import CenterCrop, RandomCrop
from highway.transforms.fit import CenterFit, Fit, Letterbox, RandomResizedCrop, Stretch
from highway.transforms.flip import FlipX, FlipY
from highway.transforms.function import Lambda
from highway.transforms.pad import Pad
from highway.transforms.transform import Transform
from highway.transforms.values import Normalize

__all__ = [
    "CenterCrop",
    "CenterFit",
    "Fit",
    "FlipX",
    "FlipY",
    "Lambda",
    "Letterbox",
    "Normalize",
    "Pad",
    "RandomCrop",
    "RandomResizedCrop",
    "Stretch",
    "Transform",
]
