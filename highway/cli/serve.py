"""The commands serve and work: a data machine and a worker that run until their work is done or somebody ends them."""

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

# Seconds between two looks whether somebody wants an end, and between two lines of figures.
LOOK = 0.25
SPAN = 3.0


class Ending:
    """While it is entered, the first SIGTERM asks for an orderly end, and the second ends at once, as Ctrl-C does.

    Attributes
    ----------
    asked : bool
        Whether there was one.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Ending:
        self._before = signal.signal(signal.SIGTERM, self._told)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def _told(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def run(modules: Sequence[Module], title: str, ending: Ending, drain_timeout: float) -> int:
    """Run a pipeline that ends in a `ZMQSink` until it is done or ended, and tell how it does.

    Parameters
    ----------
    modules : sequence of Module
    title : str
        What the line begins with that says that it is up.
    ending : Ending
        Entered.
    drain_timeout : float
        Most seconds to finish what was begun, once an end is asked for.

    Returns
    -------
    int
        Exit code: 0, or 130 after Ctrl-C or a second signal.

    Raises
    ------
    UndeliveredError
        What was begun was not received in time.
    """
    began = time.perf_counter()
    interrupted = False
    with Pipeline(modules) as pipeline:
        try:
            # Only now are ports known that were left open.
            print(f"{title}: {' -> '.join(map(repr, modules))}", flush=True)
            _wait(pipeline, ending)
            if ending.asked:
                print(f"Ending: at most {drain_timeout:g} s to finish what was begun.", flush=True)
                pipeline.drain(drain_timeout)
        except WaitTimeout:
            raise UndeliveredError(
                f"What was begun was not received within {drain_timeout:g} s (--drain-timeout); nothing is lost "
                "by that: a data machine makes it again, for another worker, or when it is started again"
            ) from None
        except KeyboardInterrupt:
            interrupted = True
        stats = pipeline.stats()
    seconds = time.perf_counter() - began
    print(f"\n{_Figures(stats, seconds)} in {seconds:.1f} s")
    print("\n".join(filter(None, (stats.table, stats.tuning))), flush=True)
    if interrupted:
        print("Interrupted: what was begun is left to others.", file=sys.stderr)
        return 130
    return 0


def _wait(pipeline: Pipeline, ending: Ending) -> None:
    """Wait until all is done, or an end is asked for."""
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
    """What the sink of a pipeline sent: all in all, and a second, since the figures before."""

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
    """Show `InsecureWarning` in one line, as errors are."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InsecureWarning)
        yield
    for warning in caught:
        print(f"highway: {warning.message}", file=sys.stderr)


# The stages of a worker, out of a file


def augmentations(transforms: Sequence[Transform], seed: int | None, workers: int | None) -> list[Stage]:
    """The stage of a worker that applies transforms."""
    return [Augmentations(transforms, seed=seed or 0, workers=workers)]


def stages_in(path: Path, name: str, seed: int | None, workers: int | None) -> list[Stage]:
    """What a worker does: a list of transforms, a Stage, or a list of Stages, by its name in a Python file.

    Parameters
    ----------
    path : Path
        The file; it is run.
    name : str
    seed, workers : int, optional
        Of the `Augmentations` that transforms are put into.

    Raises
    ------
    ArgumentError
        There is no such file, it fails, there is no such name in it, or it is something else.
    """
    module = _executed(path)
    if not hasattr(module, name):
        there = [each for each, value in vars(module).items() if each[:1] != "_" and _is_usable(value)]
        found = f"it has {', '.join(there)}" if there else "nor any other list of transforms"
        raise ArgumentError(f"{path}: there is no {name!r} in it; {found}")
    value = getattr(module, name)
    things = list(value) if isinstance(value, (list, tuple)) else [value]
    if all(isinstance(thing, Stage) for thing in things):
        if things and (seed is not None or workers is not None):
            raise ArgumentError(
                f"{path}: {name} holds Stages, which have a seed and workers of their own; --seed and --workers are "
                "for transforms"
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
        raise ArgumentError(
            f"{path}: there is no such file; expected a Python file with the transforms in it"
        )
    loader = SourceFileLoader(path.stem, str(path))
    spec = importlib.util.spec_from_loader(path.stem, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # It may import its neighbors, as a script may.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        loader.exec_module(module)
    except Exception as error:
        # Whatever the file does wrong is its user's to know.
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
