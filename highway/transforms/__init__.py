"""Transforms: what happens to images between reading and training."""

from highway.transforms.fit import CenterFit, Fit, Letterbox, RandomResizedCrop, Stretch
from highway.transforms.transform import Transform

__all__ = ["CenterFit", "Fit", "Letterbox", "RandomResizedCrop", "Stretch", "Transform"]
