"""Transforms: what happens to images between reading and training."""

from highway.transforms.crop import CenterCrop, RandomCrop
from highway.transforms.fit import CenterFit, Fit, Letterbox, RandomResizedCrop, Stretch
from highway.transforms.flip import FlipX, FlipY
from highway.transforms.function import Lambda
from highway.transforms.pad import Pad
from highway.transforms.transform import Transform
from highway.transforms.values import Normalize
from highway.transforms.warps import Affine, Perspective, Rotate, Shift, Transpose, Warp, Zoom

__all__ = [
    "Affine",
    "CenterCrop",
    "CenterFit",
    "Fit",
    "FlipX",
    "FlipY",
    "Lambda",
    "Letterbox",
    "Normalize",
    "Pad",
    "Perspective",
    "RandomCrop",
    "RandomResizedCrop",
    "Rotate",
    "Shift",
    "Stretch",
    "Transform",
    "Transpose",
    "Warp",
    "Zoom",
]
