"""The commands serve and work: run a data machine or a worker until it is done or you end it."""

from __future__ import annotations

import logging
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType

from highway.cli.terminal import status_line
from highway.engine import Module, Pipeline
from highway.engine.stats import PipelineStats
from highway.errors import InsecureWarning, UndeliveredError, WaitTimeout
from highway.modules import ZMQSink
from highway.network.pool import PoolSink
from highway.network.transport import Transport

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


def run(
    modules: Sequence[Module],
    title: str,
    ending: Ending,
    drain_timeout: float,
    *,
    ordered: bool = True,
    exit_when_idle: float | None = None,
    health: tuple[str, int] | None = None,
) -> int:
    """Run a pipeline that ends in a `ZMQSink` or a `PoolSink` until it is done or ended, and print its statistics.

    Parameters
    ----------
    modules : sequence of Module
    title : str
        Start of the line that reports the start.
    ending : Ending
        Already entered.
    drain_timeout : float
        Most seconds to finish the batches in progress, once an end is requested.
    ordered : bool
        See `Pipeline`.
    exit_when_idle : float, optional
        Seconds after which it ends while a machine upstream or downstream is missing.
    health : (str, int), optional
        Host and port at which to serve the state of the pipeline over HTTP.

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
    with ExitStack() as stack:
        stack.enter_context(_log_on_stderr())
        pipeline = stack.enter_context(Pipeline(modules, ordered=ordered))
        transport = _transport_of(modules)
        try:
            where = ""
            if health is not None:
                from highway.metrics import serve

                server = stack.enter_context(serve(pipeline, health[1], host=health[0]))
                where = f"; health at {server.address}"
            # Automatically chosen ports are known only now.
            print(f"{title}: {' -> '.join(map(repr, modules))}{where}", flush=True)
            idle = _wait(pipeline, ending, transport, exit_when_idle)
            if idle is not None:
                print(f"Ending: {idle} for {exit_when_idle:g} s (--exit-when-idle).", flush=True)
            if idle is not None or ending.asked:
                _end(pipeline, transport, drain_timeout)
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


def _transport_of(modules: Sequence[Module]) -> Transport:
    sink = modules[-1]
    assert isinstance(sink, (ZMQSink, PoolSink))
    return sink.transport


def _end(pipeline: Pipeline, transport: Transport, drain_timeout: float) -> None:
    """Finish the batches in progress while a receiver is connected; without one there is nothing to wait for."""
    began = time.perf_counter()
    told = False
    while True:
        if not transport.links()[1]:
            count = transport.unfinished()
            again = "the data machines make them again, for others" if count else "nothing is lost"
            print(f"Ending: no receiver is connected; {_batches(count)} not received, {again}.", flush=True)
            pipeline.stop()
            return
        if not told:
            told = True
            print(f"Ending: at most {drain_timeout:g} s to finish the batches in progress.", flush=True)
        left = began + drain_timeout - time.perf_counter()
        try:
            pipeline.drain(max(0.0, min(LOOK, left)))
            return
        except WaitTimeout:
            if left <= LOOK:
                raise


def _batches(count: int) -> str:
    return "1 batch was" if count == 1 else f"{count or 'no'} batches were"


def _missing(transport: Transport) -> str | None:
    """Return which machine is missing, in words; None where none is."""
    upstream, downstream = transport.links()
    if upstream == 0 and downstream == 0:
        return "no data machine and no receiver was connected"
    if upstream == 0:
        return "no data machine was connected"
    return "no receiver was connected" if downstream == 0 else None


def _wait(
    pipeline: Pipeline, ending: Ending, transport: Transport, exit_when_idle: float | None
) -> str | None:
    """Wait until the pipeline is done, or an end is requested; return what was missing for too long, if anything."""
    last, then = None, time.perf_counter()
    complete = then
    with status_line() as show:
        while not ending.asked:
            try:
                pipeline.wait(LOOK)
                return None
            except WaitTimeout:
                now = time.perf_counter()
            missing = _missing(transport)
            if missing is None:
                complete = now
            elif exit_when_idle is not None and now - complete >= exit_when_idle:
                return missing
            if last is None or now - then >= SPAN:
                stats = pipeline.stats()
                show(str(_Figures(stats, now - then, last)))
                last, then = stats, now
    return None


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
def _log_on_stderr() -> Iterator[None]:
    """Print what machines join, leave and die to stderr, with the time, also where it is no terminal."""
    logger = logging.getLogger("highway")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


@contextmanager
def brief_warnings() -> Iterator[None]:
    """Print an `InsecureWarning` in one line, like an error."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InsecureWarning)
        yield
    for warning in caught:
        print(f"highway: {warning.message}", file=sys.stderr)
