"""Highway feeds neural networks: compiled threads decode and augment samples, one batch at a time."""

<<<<<<< HEAD
from typing import TYPE_CHECKING
=======
import importlib
>>>>>>> main

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
        from highway.arguments.foreign_names import missing_name

<<<<<<< HEAD
        raise missing_name(__name__, name)
=======
def __getattr__(name: str) -> object:
    if name == "__version__":
        return installation.version()
    # Imported on first use: `import highway` alone stays fast.
    if name in ("modules", "transforms"):
        return importlib.import_module(f"highway.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
>>>>>>> main
