"""Modules: what a pipeline is made of."""

from typing import TYPE_CHECKING

from highway.modules.arrays import ArrayReader
from highway.modules.augmentations import Augmentations
from highway.modules.boxes import PadBoxes
from highway.modules.encoded import Encoded
from highway.modules.image_files import ImageFileReader
from highway.modules.lists import ListReader
from highway.modules.noise import Noise
from highway.modules.saver import ImageSaver
from highway.modules.voc import VOCReader

if TYPE_CHECKING:
    from highway.modules.leveldb import LevelDBSink, LevelDBSource
    from highway.modules.leveldb_images import LevelDBImageReader
    from highway.modules.network import ZMQSink, ZMQSource

__all__ = [
    "ArrayReader",
    "Augmentations",
    "Encoded",
    "ImageFileReader",
    "ImageSaver",
    "LevelDBImageReader",
    "LevelDBSink",
    "LevelDBSource",
    "ListReader",
    "Noise",
    "PadBoxes",
    "VOCReader",
    "ZMQSink",
    "ZMQSource",
]


def __getattr__(name: str) -> object:
    if name in ("ZMQSink", "ZMQSource"):
        # Asked for late: importing zmq takes as long as all the rest.
        from highway.modules import network

        return getattr(network, name)
    if name in ("LevelDBSink", "LevelDBSource"):
        from highway.modules import leveldb

        return getattr(leveldb, name)
    if name == "LevelDBImageReader":
        from highway.modules.leveldb_images import LevelDBImageReader

        return LevelDBImageReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
