"""Transforms: augment and normalize images, with their boxes, masks and keypoints."""

from typing import TYPE_CHECKING

from highway.transforms.buckets import Buckets
from highway.transforms.color import (
    AutoContrast,
    ColorJitter,
    Equalize,
    Gamma,
    Grayscale,
    Invert,
    Posterize,
    Solarize,
)
from highway.transforms.color import Equalize as RandomEqualize
from highway.transforms.color import Invert as RandomInvert
from highway.transforms.compose import OneOf, RandomApply, Sequential, SomeOf
from highway.transforms.crop import CenterCrop, PadCrop, RandomCrop, Slice
from highway.transforms.erase import RandomErasing
from highway.transforms.filters import GaussianBlur, GaussianNoise, Sharpness
from highway.transforms.fit import CenterFit, Fit, Letterbox, RandomFit, RandomResizedCrop, Resize, Stretch
from highway.transforms.flip import FlipX, FlipY
from highway.transforms.flip import FlipX as RandomHorizontalFlip
from highway.transforms.flip import FlipY as RandomVerticalFlip
from highway.transforms.function import Lambda
from highway.transforms.mix import CutMix, Mixup
from highway.transforms.pad import Pad
from highway.transforms.placement import Placement
from highway.transforms.policies import RandAugment, TrivialAugmentWide
from highway.transforms.transform import Transform
from highway.transforms.values import Normalize, Rescale, ToFloat
from highway.transforms.views import Views
from highway.transforms.warps import Affine, Perspective, Rotate, Shift, Transpose, Warp, Zoom
from highway.transforms.wrappers import Albumentations, TorchVision

__all__ = [
    "Affine",
    "Albumentations",
    "AutoContrast",
    "Buckets",
    "CenterCrop",
    "CenterFit",
    "ColorJitter",
    "CutMix",
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
    "Mixup",
    "Normalize",
    "OneOf",
    "Pad",
    "PadCrop",
    "Perspective",
    "Placement",
    "Posterize",
    "RandAugment",
    "RandomApply",
    "RandomCrop",
    "RandomEqualize",
    "RandomErasing",
    "RandomFit",
    "RandomHorizontalFlip",
    "RandomInvert",
    "RandomResizedCrop",
    "RandomVerticalFlip",
    "Rescale",
    "Resize",
    "Rotate",
    "Sequential",
    "Sharpness",
    "Shift",
    "Slice",
    "Solarize",
    "SomeOf",
    "Stretch",
    "ToFloat",
    "TorchVision",
    "Transform",
    "Transpose",
    "TrivialAugmentWide",
    "Views",
    "Warp",
    "Zoom",
]

if not TYPE_CHECKING:
    # Type checkers would accept every name.
    def __getattr__(name: str) -> object:
        from highway.arguments.foreign_names import missing_name

        raise missing_name(__name__, name)
