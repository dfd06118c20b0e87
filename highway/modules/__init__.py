"""Modules: what a pipeline is made of."""

from typing import TYPE_CHECKING

from highway.modules.augmentations import Augmentations
from highway.modules.image_files import ImageFileReader
from highway.modules.noise import Noise

if TYPE_CHECKING:
    from highway.modules.network import ZMQSink, ZMQSource

__all__ = ["Augmentations", "ImageFileReader", "Noise", "ZMQSink", "ZMQSource"]


def __getattr__(name: str) -> object:
    if name in ("ZMQSink", "ZMQSource"):
        # Asked for late: importing zmq takes as long as all the rest.
        from highway.modules import network

        return getattr(network, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
