"""Highway feeds neural networks: samples are decoded and augmented in compiled threads, a batch at a time."""

from highway._core import built  # noqa: F401  # before anything that needs what it looks for
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
        # Asked for late: importlib.metadata takes longer to import than the rest of this package.
        from highway.cli.environment import version

        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
