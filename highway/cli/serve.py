"""The commands serve and work: run a data machine or a worker until it is done or you end it."""

from __future__ import annotations

import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from highway.cli.terminal import status_line
from highway.engine import Module, Pipeline
from highway.engine.stats import PipelineStats
from highway.errors import InsecureWarning, UndeliveredError, WaitTimeout

__all__ = ["Ending", "brief_warnings", "run"]

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
