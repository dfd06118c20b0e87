"""The waits of a consumer: how long it was blocked between two batches, measured per batch in constant memory."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from math import log2

from highway.batch import Batch

__all__ = ["WaitStats", "Waits"]

# The bins of waits: bin 0 up to the shortest, then so many in each doubling, as far as the last.
SHORTEST = 1e-6
BINS_PER_DOUBLING = 16
LAST_BIN = 32 * BINS_PER_DOUBLING
BIN_OF_A_SECOND = 1 - BINS_PER_DOUBLING * log2(SHORTEST)
# Number of epochs whose figures are kept; the totals cover all.
KEPT_EPOCHS = 8
# Batches that are noted before they are added up.
MOST_NOTED = 64


@dataclass(frozen=True)
class WaitStats:
    """Exposed wait: how long a consumer was blocked, as a share of the time between two batches.

    The time between two batches is the wait and the consumer's own time, such as the training step. Each thread that
    takes batches has its own. The first batch has no other before it: its time is its wait.

    Attributes
    ----------
    epoch : int or None
        The epoch of these batches; None for all batches.
    batches, samples : int
        Taken by the consumer.
    waited : float
        Seconds that the consumer was blocked.
    seconds : float
        Time between two batches, summed over all batches.
    first, last : float
        When the first of these batches was due to be requested, and when the last was taken, in seconds of
        ``time.perf_counter``.
    bins : tuple of int
        Number of batches by wait. Bin 0 counts waits of at most 1 µs, bin b those of at most 2**(b / 16) µs.
    """

    epoch: int | None = None
    batches: int = 0
    samples: int = 0
    waited: float = 0.0
    seconds: float = 0.0
    first: float = 0.0
    last: float = 0.0
    bins: tuple[int, ...] = ()

    @property
    def share(self) -> float:
        """Exposed wait, 0 to 1: `waited` as a share of `seconds`; 0 without a batch."""
        return min(1.0, self.waited / self.seconds) if self.seconds > 0 else 0.0

    @property
    def p50(self) -> float:
        """Median wait for a batch in seconds; see `quantile`."""
        return self.quantile(0.5)

    @property
    def p99(self) -> float:
        """Wait in seconds that 99 % of the batches do not exceed; see `quantile`."""
        return self.quantile(0.99)

    @property
    def samples_per_second(self) -> float:
        """Samples per second between `first` and `last`, the consumer's own time included; 0 without a batch."""
        return self.samples / (self.last - self.first) if self.last > self.first else 0.0

    def __str__(self) -> str:
        return f"waits: p50 {_in_words(self.p50)}, p99 {_in_words(self.p99)}"

    def quantile(self, share: float) -> float:
        """Return the wait in seconds that this share of the batches does not exceed.

        It comes from a histogram with 16 bins per doubling: within 2.2 % of the exact value for waits of more than 1 µs
        and less than 71 minutes. Waits up to 1 µs count as 0. Without a batch it is 0.
        """
        rank, below = share * self.batches, 0
        for bin_, count in enumerate(self.bins):
            below += count
            if count and below >= rank:
                return SHORTEST * 2 ** ((bin_ - 0.5) / BINS_PER_DOUBLING) if bin_ else 0.0
        return 0.0

    def since(self, earlier: WaitStats) -> WaitStats:
        """Return the figures of the batches after `earlier`, which has the same first batch."""
        before = (*earlier.bins, *[0] * (len(self.bins) - len(earlier.bins)))
        return WaitStats(
            self.epoch,
            self.batches - earlier.batches,
            self.samples - earlier.samples,
            self.waited - earlier.waited,
            self.seconds - earlier.seconds,
            earlier.last if earlier.batches else self.first,
            self.last,
            tuple(count - old for count, old in zip(self.bins, before, strict=True)),
        )


def _in_words(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.2f} ms"


class _Figures:
    """Figures of some batches, as `WaitStats`, while they change; the bins have the number of batches."""

    __slots__ = ("bins", "first", "last", "samples", "seconds", "waited")

    def __init__(self, first: float = math.inf) -> None:
        self.samples = 0
        self.waited = self.seconds = 0.0
        self.first, self.last = first, -math.inf
        self.bins = [0] * (LAST_BIN + 1)

    def add(self, other: _Figures) -> None:
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)
        self.samples += other.samples
        self.waited += other.waited
        self.seconds += other.seconds
        self.bins = [count + more for count, more in zip(self.bins, other.bins, strict=True)]

    def stats(self, epoch: int | None) -> WaitStats:
        batches = sum(self.bins)
        if not batches:
            return WaitStats(epoch)
        used = next(bin_ for bin_ in range(LAST_BIN, -1, -1) if self.bins[bin_]) + 1
        bins = tuple(self.bins[:used])
        return WaitStats(epoch, batches, self.samples, self.waited, self.seconds, self.first, self.last, bins)


class _Consumer:
    """A thread that takes batches: when it took the last one, and how long it was blocked since then."""

    __slots__ = ("blocked", "last")

    def __init__(self) -> None:
        self.last: float | None = None
        self.blocked = 0.0


class _Calling(threading.local):
    """The consumer of the calling thread."""

    def __init__(self) -> None:
        self.consumer = _Consumer()


class Waits:
    """Measures the waits of the threads that take batches from a pipeline.

    Thread-safe. It keeps the figures of the latest epochs, and the sum of the earlier ones.
    """

    def __init__(self) -> None:
        # Reentrant: a signal handler that runs in `_add_up` may ask for the figures.
        self._lock = threading.RLock()
        self._calling = _Calling()
        # What the threads have noted and nobody has added up yet, oldest first: consumer, epoch or None where it got no
        # batch, samples, and the time when it began and ended to wait. Adding up many at once is much cheaper.
        self._noted: list[tuple[_Consumer, int | None, int, float, float]] = []
        self._earlier = _Figures()
        self._epochs: dict[int, _Figures] = {}

    def blocked(self, seconds: float) -> None:
        """Count seconds in which the calling thread was blocked and got no batch: they belong to its next one."""
        self._noted.append((self._calling.consumer, None, 0, 0.0, seconds))
        if len(self._noted) >= MOST_NOTED:
            self._add_up()

    def took(self, batch: Batch, asked: float, now: float) -> None:
        """Count a batch that the calling thread requested and took at these times."""
        noted = self._noted
        # Appending is atomic.
        noted.append((self._calling.consumer, batch.epoch, batch.size, asked, now))
        if len(noted) >= MOST_NOTED:
            self._add_up()

    def _add_up(self) -> None:
        with self._lock:
            noted = self._noted
            # One by one, with what is complete in between, for a signal handler. Other threads append.
            for _ in range(len(noted)):
                if not noted:
                    break
                consumer, epoch, size, asked, now = noted.pop(0)
                wait = now - asked + consumer.blocked
                if epoch is None:
                    consumer.blocked = wait
                    continue
                before = now - wait if consumer.last is None else consumer.last
                consumer.last = now
                consumer.blocked = 0.0
                bin_ = int(BINS_PER_DOUBLING * log2(wait) + BIN_OF_A_SECOND) if wait > SHORTEST else 0
                figures = self._epochs.get(epoch) or self._begin(epoch, before)
                # Threads note in any order.
                figures.last = max(figures.last, now)
                figures.samples += size
                figures.waited += wait
                figures.seconds += now - before
                figures.bins[min(bin_, LAST_BIN)] += 1

    def _begin(self, epoch: int, first: float) -> _Figures:
        if len(self._epochs) == KEPT_EPOCHS:
            self._earlier.add(self._epochs.pop(next(iter(self._epochs))))
        figures = self._epochs[epoch] = _Figures(first)
        return figures

    def stats(self) -> tuple[WaitStats, tuple[WaitStats, ...]]:
        """Return the figures of all batches, and those of each of the latest epochs, the latest last."""
        self._add_up()
        total = _Figures()
        with self._lock:
            latest = list(self._epochs.items())
            epochs = tuple(figures.stats(epoch) for epoch, figures in latest)
            for figures in (self._earlier, *(figures for _, figures in latest)):
                total.add(figures)
        return total.stats(None), epochs
