"""Modules: what a pipeline is made of."""

from highway.modules.augmentations import Augmentations
from highway.modules.images import ImageFileReader
from highway.modules.noise import Noise

__all__ = ["Augmentations", "ImageFileReader", "Noise"]
