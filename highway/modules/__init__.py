"""Modules: readers, stages and sinks, the parts of a pipeline."""

from typing import TYPE_CHECKING

from highway.modules.readers.arrays import ArrayReader
from highway.modules.readers.combined import Concat, Mix
from highway.modules.readers.datasets.reader import DatasetReader
from highway.modules.readers.encoded import Encoded
from highway.modules.readers.image_files import ImageFileReader
from highway.modules.readers.lists import ListReader
from highway.modules.readers.synthetic import Noise
from highway.modules.readers.voc.reader import VOCReader
from highway.modules.sinks.image_saver import ImageSaver
from highway.modules.stages.augmentations import Augmentations
from highway.modules.stages.filter import Filter
from highway.modules.stages.map import Map
from highway.modules.stages.pack import Pack
from highway.modules.stages.pad_boxes import PadBoxes
from highway.modules.stages.pad_ragged import PadRagged
from highway.modules.stages.rebatch import Rebatch
from highway.modules.stages.window import Window

if TYPE_CHECKING:
    from highway.modules.readers.leveldb import LevelDBSource
    from highway.modules.readers.leveldb_images import LevelDBImageReader
    from highway.modules.readers.tables.table_reader import TableReader
    from highway.modules.readers.tar import TarReader
    from highway.modules.sinks.leveldb import LevelDBSink
    from highway.modules.sinks.tar import TarSink
    from highway.network import Load, Tasks, ZMQSink, ZMQSource

__all__ = [
    "ArrayReader",
    "Augmentations",
    "Concat",
    "DatasetReader",
    "Encoded",
    "Filter",
    "ImageFileReader",
    "ImageSaver",
    "LevelDBImageReader",
    "LevelDBSink",
    "LevelDBSource",
    "ListReader",
    "Load",
    "Map",
    "Mix",
    "Noise",
    "Pack",
    "PadBoxes",
    "PadRagged",
    "Rebatch",
    "TableReader",
    "TarReader",
    "TarSink",
    "Tasks",
    "VOCReader",
    "Window",
    "ZMQSink",
    "ZMQSource",
]

if not TYPE_CHECKING:
    # Type checkers would accept every name.
    def __getattr__(name: str) -> object:
        if name in ("Load", "Tasks", "ZMQSink", "ZMQSource"):
            # Imported on first use: zmq takes as long to import as everything else.
            from highway import network

            return getattr(network, name)
        if name == "LevelDBSink":
            from highway.modules.sinks.leveldb import LevelDBSink

            return LevelDBSink
        if name == "LevelDBSource":
            from highway.modules.readers.leveldb import LevelDBSource

            return LevelDBSource
        if name == "LevelDBImageReader":
            from highway.modules.readers.leveldb_images import LevelDBImageReader

            return LevelDBImageReader
        if name == "TarReader":
            from highway.modules.readers.tar import TarReader

            return TarReader
        if name == "TarSink":
            from highway.modules.sinks.tar import TarSink

            return TarSink
        if name == "TableReader":
            from highway.modules.readers.tables.table_reader import TableReader

            return TableReader
        from highway.arguments.foreign_names import missing_name

        raise missing_name(__name__, name)
