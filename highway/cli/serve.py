"""The commands serve and work: run a data machine or a worker until it is done or you end it."""

from __future__ import annotations

import importlib.util
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import FrameType, ModuleType

from highway.cli.terminal import status_line
from highway.engine import Module, Pipeline, Stage
from highway.engine.stats import PipelineStats
from highway.errors import ArgumentError, InsecureWarning, UndeliveredError, WaitTimeout
from highway.modules import Augmentations
from highway.transforms import Transform

__all__ = ["Ending", "augmentations", "brief_warnings", "run", "stages_in"]

# Seconds between two checks for SIGTERM, and between two status lines.
LOOK = 0.25
SPAN = 3.0


class Ending:
    """Context manager for SIGTERM: the first signal requests an orderly end, the second ends at once, like Ctrl-C.

    Attributes
    ----------
    asked : bool
        Whether a signal has arrived.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Ending:
        self._before = signal.signal(signal.SIGTERM, self._on_sigterm)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def run(modules: Sequence[Module], title: str, ending: Ending, drain_timeout: float) -> int:
    """Run a pipeline that ends in a `ZMQSink` until it is done or ended, and print its statistics.

    Parameters
    ----------
    modules : sequence of Module
    title : str
        Start of the line that reports the start.
    ending : Ending
        Already entered.
    drain_timeout : float
        Most seconds to finish the batches in progress, once an end is requested.

    Returns
    -------
    int
        Exit code: 0, or 130 after Ctrl-C or a second signal.

    Raises
    ------
    UndeliveredError
        The batches in progress were not received in time.
    """
    began = time.perf_counter()
    interrupted = False
    with Pipeline(modules) as pipeline:
        try:
            # Automatically chosen ports are known only now.
            print(f"{title}: {' -> '.join(map(repr, modules))}", flush=True)
            _wait(pipeline, ending)
            if ending.asked:
                print(f"Ending: at most {drain_timeout:g} s to finish the batches in progress.", flush=True)
                pipeline.drain(drain_timeout)
        except WaitTimeout:
            raise UndeliveredError(
                f"The batches in progress were not received within {drain_timeout:g} s (--drain-timeout); nothing is "
                "lost: a data machine makes them again, for another worker or after a restart"
            ) from None
        except KeyboardInterrupt:
            interrupted = True
        stats = pipeline.stats()
    seconds = time.perf_counter() - began
    print(f"\n{_Figures(stats, seconds)} in {seconds:.1f} s")
    print("\n".join(filter(None, (stats.table, stats.tuning))), flush=True)
    if interrupted:
        print("Interrupted: other machines take over the batches in progress.", file=sys.stderr)
        return 130
    return 0


def _wait(pipeline: Pipeline, ending: Ending) -> None:
    """Wait until the pipeline is done, or an end is requested."""
    last, then = None, time.perf_counter()
    with status_line() as show:
        while not ending.asked:
            try:
                pipeline.wait(LOOK)
                return
            except WaitTimeout:
                now = time.perf_counter()
            if last is None or now - then >= SPAN:
                stats = pipeline.stats()
                show(str(_Figures(stats, now - then, last)))
                last, then = stats, now


class _Figures:
    """What the sink of a pipeline sent: the totals, and the rates since the previous figures."""

    def __init__(self, stats: PipelineStats, seconds: float, before: PipelineStats | None = None) -> None:
        sink = stats.modules[-1]
        self.batches, self.samples = sink.batches, sink.samples
        was = (before.modules[-1].batches, before.modules[-1].nbytes) if before else (0, 0)
        self.rate = (sink.batches - was[0]) / max(seconds, 1e-9)
        self.megabytes = (sink.nbytes - was[1]) / max(seconds, 1e-9) / 1e6

    def __str__(self) -> str:
        return (
            f"{self.batches:,} batches ({self.samples:,} samples) sent, {self.rate:,.1f} batches/s, "
            f"{self.megabytes:,.1f} MB/s"
        )


@contextmanager
def brief_warnings() -> Iterator[None]:
    """Print an `InsecureWarning` in one line, like an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InsecureWarning)
        yield
    for warning in caught:
        print(f"highway: {warning.message}", file=sys.stderr)


# The stages of a worker, from a file


def augmentations(transforms: Sequence[Transform], seed: int | None, workers: int | None) -> list[Stage]:
    """Return the stage of a worker that applies transforms."""
    return [Augmentations(transforms, seed=seed or 0, workers=workers)]


def stages_in(path: Path, name: str, seed: int | None, workers: int | None) -> list[Stage]:
    """Return the stages of a worker: a list of transforms, a Stage, or a list of Stages, by its name in a Python file.

    Parameters
    ----------
    path : Path
        The file; it is executed.
    name : str
    seed, workers : int, optional
        For the `Augmentations` that applies the transforms.

    Raises
    ------
    ArgumentError
        The file is missing or fails, or the name is missing in it or has another type.
    """
    module = _executed(path)
    if not hasattr(module, name):
        there = [each for each, value in vars(module).items() if each[:1] != "_" and _is_usable(value)]
        found = f"found {', '.join(there)}" if there else "it has no list of transforms"
        raise ArgumentError(f"{path}: the file has no {name!r}; {found}")
    value = getattr(module, name)
    things = list(value) if isinstance(value, (list, tuple)) else [value]
    if all(isinstance(thing, Stage) for thing in things):
        if things and (seed is not None or workers is not None):
            raise ArgumentError(
                f"{path}: {name} holds Stages, which have their own seed and workers; --seed and --workers are for "
                "transforms"
            )
        return things
    if all(isinstance(thing, Transform) for thing in things):
        return augmentations(things, seed, workers)
    raise ArgumentError(
        f"{path}: {name} is {_shown(value)}; expected a list of transforms, a Stage, or a list of Stages"
    )


def _is_usable(value: object) -> bool:
    things = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(thing, (Stage, Transform)) for thing in things)


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        kinds = [_class(thing) if isinstance(thing, type) else type(thing).__name__ for thing in value]
        return f"a {type(value).__name__} of {' and '.join(dict.fromkeys(kinds))}"
    return _class(value) if isinstance(value, type) else f"of type {type(value).__name__}"


def _class(kind: type) -> str:
    return f"the class {kind.__name__} itself"


def _executed(path: Path) -> ModuleType:
    if not path.is_file():
        raise ArgumentError(f"{path}: there is no such file; expected a Python file with the transforms")
    loader = SourceFileLoader(path.stem, str(path))
    spec = importlib.util.spec_from_loader(path.stem, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # Like a script, it may import modules from its folder.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        loader.exec_module(module)
    except Exception as error:
        # Every error of the user's file is reported.
        raise ArgumentError(
            f"{path}{_line(error, path)}: {type(error).__name__}: {error}; the file must run without an error"
        ) from error
    return module


def _line(error: Exception, path: Path) -> str:
    if isinstance(error, SyntaxError):
        return ""
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    return f", line {lines[-1]}" if lines else ""
