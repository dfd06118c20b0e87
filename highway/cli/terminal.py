"""Terminal output of the commands: facts in two columns, and a running pipeline with its rate.

On a terminal, rich formats tables and tqdm draws progress bars, where they are installed; otherwise the output is plain
text.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from highway.engine import Module, Pipeline
from highway.engine.stats import PipelineStats

__all__ = ["Run", "facts", "heading", "progress", "run_pipeline", "status_line"]


@dataclass(frozen=True)
class Run:
    """The result of running a pipeline.

    Attributes
    ----------
    images, batches : int
        Number received.
    seconds : float
        From the start of the pipeline until the last batch.
    first : float
        Seconds until the first batch.
    stats : PipelineStats
    interrupted : bool
        Whether Ctrl-C ended it.
    """

    images: int
    batches: int
    seconds: float
    first: float
    stats: PipelineStats
    interrupted: bool

    @property
    def rate(self) -> float:
        """Images per second, including the start."""
        return self.images / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        rate = (
            f"{self.rate:,.0f} images/s: {self.images:,} images in {self.batches:,} batches, {self.seconds:.1f} s; "
            f"the first batch after {self.first:.2f} s"
        )
        return "\n".join(filter(None, (rate, self.stats.table, self.stats.tuning, self.stats.advice)))


def run_pipeline(modules: Sequence[Module], *, total: int | None = None, seconds: float | None = None) -> Run:
    """Run a pipeline until its data ends, `seconds` are over, or Ctrl-C; with a progress bar on a terminal.

    Parameters
    ----------
    modules : sequence of Module
    total : int, optional
        Expected number of images, for the bar.
    seconds : float, optional
        When to end; checked after every batch.
    """
    first = 0.0
    images = batches = 0
    interrupted = False
    with progress(total) as advance:
        start = last = time.perf_counter()
        with Pipeline(modules) as pipeline:
            try:
                for batch in pipeline.forever():
                    last = time.perf_counter()
                    first = first or last - start
                    images += batch.size
                    batches += 1
                    advance(batch.size)
                    if seconds is not None and last - start >= seconds:
                        break
            except KeyboardInterrupt:
                interrupted = True
            stats = pipeline.stats()
    return Run(images, batches, last - start, first, stats, interrupted)


@contextmanager
def progress(total: int | None, done: int = 0) -> Iterator[Callable[[int], object]]:
    """Show a progress bar on stderr, from `done` images on; does nothing where stderr is not a terminal."""
    if sys.stderr.isatty():
        try:
            from tqdm import tqdm
        except ImportError:
            print("No progress bar: it needs tqdm (pip install tqdm).", file=sys.stderr)
        else:
            with tqdm(total=total, initial=done, unit=" images", leave=False, dynamic_ncols=True) as bar:
                yield bar.update
            return
    yield lambda count: None


@contextmanager
def status_line() -> Iterator[Callable[[str], object]]:
    """Show a line on stderr that each text replaces; without tqdm one line per text, nothing without a terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda text: print(text, file=sys.stderr)
    else:
        with tqdm(bar_format="{desc}", leave=False, dynamic_ncols=True) as line:
            yield line.set_description_str


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Print (name, value) in two columns."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table
            from rich.text import Text
        except ImportError:
            pass
        else:
            table = Table.grid(padding=(0, 2))
            for name, value in rows:
                table.add_row(Text(name, style="cyan"), Text(value))
            Console().print(table)
            sys.stdout.flush()
            return
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"{name:<{width}}  {value}".rstrip(), flush=True)


def heading(text: str) -> None:
    """Print a heading after an empty line; bold on a terminal."""
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)
