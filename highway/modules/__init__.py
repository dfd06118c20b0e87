"""Modules: what a pipeline is made of."""

from typing import TYPE_CHECKING

from highway.modules.augmentations import Augmentations
from highway.modules.images import ImageFileReader
from highway.modules.noise import Noise
from highway.modules.saver import ImageSaver

if TYPE_CHECKING:
    from highway.modules.network import ZMQSink, ZMQSource

__all__ = ["Augmentations", "ImageFileReader", "ImageSaver", "Noise", "ZMQSink", "ZMQSource"]


def __getattr__(name: str) -> object:
    if name in ("ZMQSink", "ZMQSource"):
        # Asked for late: importing zmq takes as long as all the rest.
        from highway.modules import network

        return getattr(network, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
