"""A simulated trainer: measures how long it waits for batches, and how many cores are enough to feed it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from highway.engine import Module, Pipeline, usable_cores
from highway.engine.stats import PipelineStats

__all__ = ["FED", "Feeding", "feedings", "fewest", "measure", "report", "train"]

FED = 0.01
"""Largest exposed wait of a trainer that counts as fed."""

# Share of the measured time that passes before it, while the queues fill and the workers are tuned.
WARM_UP = 0.2


@dataclass(frozen=True)
class Feeding:
    """What a simulated trainer measured.

    Attributes
    ----------
    cores : int
        Cores that the pipeline could use.
    stats : PipelineStats
        Of the measured time, without the warm-up.
    needed : float
        Cores that the batches need at the speed of the trainer, by the processor time that a batch took.
    errors : list of (str, str)
        The bad samples, as in `Pipeline.errors`.
    """

    cores: int
    stats: PipelineStats
    needed: float
    errors: list[tuple[str, str]]

    @property
    def exposed_wait(self) -> float:
        """Exposed wait of the trainer, 0 to 1."""
        return self.stats.exposed_wait or 0.0

    @property
    def fed(self) -> bool:
        """Whether the trainer waits at most `FED` of the time."""
        return self.exposed_wait <= FED

    def __str__(self) -> str:
        rate = self.stats.samples_per_second
        return f"exposed wait {self.exposed_wait:.1%}; {self.stats.waits}; {rate:,.0f} images/s"


def feedings(
    modules: Sequence[Module], step: float, seconds: float | None, seen: Callable[[Feeding], object]
) -> list[Feeding]:
    """Measure a trainer with all cores, and with fewer until the smallest number that feeds it is known.

    Where the system cannot bind threads to cores, only all cores are measured.

    Parameters
    ----------
    modules : sequence of Module
        Without a sink.
    step : float
        Seconds that the trainer takes for a batch.
    seconds : float, optional
        How long to measure each number of cores; by default until the data ends.
    seen : callable
        Called with each result as soon as it is measured.
    """

    def measured(cores: int) -> Feeding:
        result = measure(modules, cores, step, seconds)
        seen(result)
        return result

    most = usable_cores()
    found = [measured(most)]
    if not found[0].fed or not hasattr(os, "sched_setaffinity"):
        return found
    # The smallest number lies above `low` and is at most `high`; the processor time says where to look first.
    low, high, guess, gap = 0, most, math.ceil(found[0].needed), 1
    while high - low > 1:
        cores = min(max(guess, low + 1), high - 1)
        found.append(measured(cores))
        if found[-1].fed:
            high, guess = cores, cores - gap
        else:
            low, guess = cores, cores + gap
        gap *= 2
        if low > 0 and high < most:
            guess = (low + high) // 2
    return found


def fewest(found: Sequence[Feeding]) -> Feeding | None:
    """Return the result with the smallest number of cores that feeds the trainer; None where none does."""
    return min((each for each in found if each.fed), key=lambda each: each.cores, default=None)


def report(found: Sequence[Feeding], step: float) -> str:
    """Return one sentence: how many cores feed the trainer, or why they do not."""
    best, everything = fewest(found), found[0]
    name = f"A trainer with steps of {1e3 * step:g} ms"
    of = f"{everything.cores} core{'' if everything.cores == 1 else 's'}"
    if best is not None:
        few = (
            "" if len(found) > 1 or best.cores == 1 else " (fewer were not measured: threads cannot be bound)"
        )
        return f"{name} is fed by {best.cores} of {of}; exposed wait {best.exposed_wait:.1%}{few}."
    waits = everything.stats.waits
    assert waits is not None
    period = waits.seconds / max(1, waits.batches)
    needed = math.ceil(everything.needed)
    if needed > everything.cores:
        why = f"By the processor time of its batches, it needs about {needed} cores."
    elif everything.stats.limiter == "consumer":
        why = (
            "On average the pipeline is fast enough, but its batches come unevenly: other programs use the cores, or a "
            "larger queue_size= helps."
        )
    else:
        why = everything.stats.advice
    return (
        f"{name} is not fed by {of}; exposed wait {everything.exposed_wait:.1%}: a batch arrives every "
        f"{1e3 * period:.1f} ms. {why}"
    )


def measure(modules: Sequence[Module], cores: int, step: float, seconds: float | None) -> Feeding:
    """Measure a trainer whose pipeline may use so many cores; see `feedings`."""
    with _on_cores(cores), Pipeline(modules) as pipeline:
        return train(pipeline, cores, step, seconds)


def train(
    pipeline: Pipeline,
    cores: int,
    step: float,
    seconds: float | None,
    *,
    now: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], object] = time.sleep,
) -> Feeding:
    """Take batches as a trainer does, by a clock `now` on which `sleep` is a step."""
    begin = None
    start, cpu = now(), time.process_time()
    for _ in pipeline.forever():
        sleep(step)
        passed = now() - start
        if begin is None and passed >= WARM_UP * (seconds or 0.0):
            begin, cpu = pipeline.stats(), time.process_time()
        elif seconds is not None and passed >= (1 + WARM_UP) * seconds:
            break
    cpu = time.process_time() - cpu
    stats = pipeline.stats(since=begin)
    if not stats.delivered:
        stats = pipeline.stats()
    batches = max(1, stats.delivered)
    return Feeding(cores, stats, cpu / batches / step, pipeline.errors)


@contextmanager
def _on_cores(count: int) -> Iterator[None]:
    """Bind this thread, and those that it starts, to so many of its cores; nothing if it has no more."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else set()
    if len(before) <= count:
        yield
        return
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
