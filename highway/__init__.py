"""Highway feeds neural networks: compiled threads decode and augment samples, one batch at a time."""

from highway._core import built  # noqa: F401  # first: checks that the compiled modules are built
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
        # Late: importlib.metadata takes longer to import than the rest of this package.
        from highway.cli.environment import version

        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
