"""When a pool of workers grows and shrinks: how long the training waits decides, and how busy the workers are.

Plain arithmetic, without Ray and without a clock of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Change", "Figures", "Scaling"]

# Seconds of one measurement.
SPAN = 10.0
# Shares of the time that the training waits: more than the first is worth a worker, less than the second is none.
WAITS, HARDLY_WAITS = 0.05, 0.01
# Successive measurements without a wait before the pool shrinks.
CALM = 3
# Share of its cores that a worker should be busy after the pool has shrunk.
FULL = 0.8
# Share of the gain that more workers promise, below which they were no use.
WORTH = 0.25
# Seconds for which a change that did not help is not tried again.
MEMORY = 300.0


@dataclass(frozen=True)
class Figures:
    """What was measured since the last decision.

    Attributes
    ----------
    waited : float
        Share of its time that the training waited for a batch, 0 to 1.
    rate : float
        Batches per second that the training took; 0 while it takes none.
    cores : float
        Cores that the workers used together.
    """

    waited: float
    rate: float
    cores: float


@dataclass(frozen=True)
class Change:
    """A decision: how many workers there should be, and the reason for the log."""

    workers: int
    reason: str


@dataclass(frozen=True)
class _Trial:
    """A growth that has to prove its worth: the workers and the rate before it."""

    workers: int
    rate: float


class Scaling:
    """Decides how many workers there should be.

    The pool grows while the training waits. Workers that did not make it faster are given back, since then the network
    or the training process is the bottleneck. The pool shrinks to the cores that it uses after the training has not
    waited for some time; if it waits afterwards, the pool does not shrink that far again for five minutes.

    Parameters
    ----------
    low, high : int
        Fewest and most workers.
    cpus : float
        Cores of each worker.
    """

    def __init__(self, low: int, high: int, cpus: float) -> None:
        self.low = low
        self.high = high
        self._cpus = cpus
        self._calm = 0
        self._trial: _Trial | None = None
        # Bounds that experience sets, and until when they hold.
        self._ceiling, self._ceiling_until = high, 0.0
        self._floor, self._floor_until = low, 0.0
        self._shrunk_from: int | None = None

    def decide(self, now: float, running: int, figures: Figures) -> Change | None:
        """Return a change of the number of workers, or None.

        Parameters
        ----------
        now : float
            Time in seconds, of a clock that only grows.
        running : int
            Workers that work; none is on its way.
        figures : Figures
        """
        if figures.rate <= 0 or running < 1:
            # The training is paused, or has not begun.
            self._calm = 0
            return None
        trial, self._trial = self._trial, None
        if trial is not None and figures.waited > WAITS:
            promised = running / trial.workers - 1
            if figures.rate < trial.rate * (1 + WORTH * promised):
                self._ceiling, self._ceiling_until = trial.workers, now + MEMORY
                return Change(
                    trial.workers,
                    f"{running} workers gave {figures.rate:.3g} batches/s and {trial.workers} gave {trial.rate:.3g}: "
                    "the network or the training process is the bottleneck",
                )
        if figures.waited > WAITS:
            return self._grown(now, running, figures)
        self._shrunk_from = None
        self._calm = self._calm + 1 if figures.waited < HARDLY_WAITS else 0
        return self._shrunk(now, running, figures) if self._calm >= CALM else None

    def _grown(self, now: float, running: int, figures: Figures) -> Change | None:
        self._calm = 0
        if self._shrunk_from is not None:
            self._floor, self._floor_until = min(self._shrunk_from, self.high), now + MEMORY
            self._shrunk_from = None
        most = self._ceiling if now < self._ceiling_until else self.high
        # As many as the training could use if each adds the same, and at most twice as many at once.
        wanted = math.ceil(running / max(1 - figures.waited, 0.5))
        wanted = min(max(wanted, running + 1), most)
        if wanted <= running:
            return None
        self._trial = _Trial(running, figures.rate)
        return Change(
            wanted, f"the workers are the bottleneck: the training waited {figures.waited:.0%} of the time"
        )

    def _shrunk(self, now: float, running: int, figures: Figures) -> Change | None:
        least = self._floor if now < self._floor_until else self.low
        wanted = max(math.ceil(figures.cores / (FULL * self._cpus)), math.ceil(running / 2), least, 1)
        if wanted >= running:
            return None
        self._calm = 0
        self._shrunk_from = running
        return Change(
            wanted,
            f"the consumer is the bottleneck: {running} workers used {figures.cores:.1f} of their "
            f"{running * self._cpus:g} cores",
        )
