"""Highway feeds neural networks: compiled threads decode and augment samples, one batch at a time."""

import importlib
from typing import TYPE_CHECKING

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

if not TYPE_CHECKING:
    # Type checkers would accept every name.
    def __getattr__(name: str) -> object:
        if name == "__version__":
            return installation.version()
        # Imported on first use: `import highway` alone stays fast.
        if name in ("modules", "transforms"):
            return importlib.import_module(f"highway.{name}")
        from highway.arguments.foreign_names import missing_name

        raise missing_name(__name__, name)
