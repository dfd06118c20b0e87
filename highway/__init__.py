"""Highway feeds neural networks: compiled threads decode and augment samples, one batch at a time."""

import importlib

from highway._core import installation  # first: checks that Highway is compiled
from highway.batch import Batch
from highway.engine import Module, Pipeline, Sink, Source, Stage
from highway.errors import EndOfData, HighwayError

__all__ = [
    "Batch",
    "EndOfData",
    "HighwayError",
    "Module",
    "Pipeline",
    "Sink",
    "Source",
    "Stage",
    "__version__",
]

__version__: str


def __getattr__(name: str) -> object:
    if name == "__version__":
        return installation.version()
    # Imported on first use: `import highway` alone stays fast.
    if name in ("modules", "transforms"):
        return importlib.import_module(f"highway.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
