"""Tunes the number of workers of each module while the pipeline runs.

Maps figures to numbers of workers, without threads, queues or a clock, so that a test can simulate any pipeline.

The method is hill climbing in few, measured steps. Figures are cut into blocks of enough batches; a few
consecutive blocks are a window. A window in which a module is the bottleneck, not the consumer, suggests one
change: more workers for the bottleneck, while the process leaves cores idle; fewer for a module whose workers
mostly wait, or seem busy but wait for a lock or a core in the middle of their work. The change is kept if the
rate of delivered batches rises (or, for fewer workers, does not fall), and undone otherwise; the result is
remembered. So tuning settles, and starts again only when the rate has changed markedly.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["ModuleReading", "Reading", "Trial", "Tuner"]

# A block lasts at least this many seconds and has at least this many batches, or two for each busy worker:
# workers may all finish at about the same time.
BLOCK_SECONDS = 0.25
BLOCK_BATCHES = 8
# Blocks for a judgment, and the most to wait for while the difference is within their noise.
BLOCKS = 3
MOST_BLOCKS = 8
# More workers must raise the rate by at least GAIN; fewer may lower it by at most LOSS.
GAIN = 0.05
LOSS = 0.03
# Largest relative standard error of a rate that is good enough for comparison.
LEAST_DOUBT = 0.01
# A trial that loses this share of the rate ends at once: it costs time. For fewer workers LITTLE is enough,
# since keeping the numbers is always safe.
MUCH = 1 / 3
LITTLE = 0.1
# A change of the rate by this share starts new trials.
MARKED = 1 / 3
# A consumer that waits less than this share of the time is slower than the pipeline.
CONSUMER_LIMITS = 0.1
# With a lower busy share than this, no module is the bottleneck.
HARDLY_BUSY = 0.5
# Cores count as full from this share of them on, or with less than SPARE of one left. `stats.py` compares busy workers
# with the same share, although not all of them need be on a core: with a lower share its verdict would call more
# workers useless while the tuner still adds some.
CORES_FULL = 0.95
SPARE = 0.2
# When fewer workers are tried, the remaining ones must be busy at most this share of the time.
BUSY_ENOUGH = 0.8
# Workers that are busy but not on a core, as a number and as a share of the busy ones: from here on it is contention.
FIGHT = 0.5
FIGHT_SHARE = 0.2
# Seconds before trials start again; doubled every time.
PATIENCE = 10.0


@dataclass(frozen=True)
class ModuleReading:
    """Figures of a module since the pipeline started.

    Attributes
    ----------
    workers : int
        Number of active workers.
    allowed : int
        Most workers that memory allows.
    busy : float
        Seconds at work, summed over all workers.
    waited_tasks : float
        Seconds that the workers of a source waited for its tasks.
    """

    workers: int
    allowed: int
    busy: float
    waited_tasks: float = 0.0


@dataclass(frozen=True)
class Reading:
    """Figures of a pipeline since it started.

    Attributes
    ----------
    seconds : float
        Time since the start.
    delivered : int
        Batches that were delivered or skipped.
    cpu : float
        CPU time of the process in seconds; only differences count.
    consumer_waited : float or None
        Seconds that the consumer waited; None where a sink consumes.
    modules : tuple of ModuleReading
    delayed : float or None
        Seconds that workers were ready to run but waited for a core; None if the system does not report it, or
        if it was not requested (`Tuner.asks_for_delay`).
    """

    seconds: float
    delivered: int
    cpu: float
    consumer_waited: float | None
    modules: tuple[ModuleReading, ...]
    delayed: float | None = None


@dataclass
class Trial:
    """A change of the number of workers of one module, or of several together, and its result.

    Attributes
    ----------
    rate, doubt : float
        Batches per second before the change, and its relative standard error.
    before, after : dict of int to int
        Place of every changed module, with its number of workers.
    gain : float
        Relative rise of the rate.
    kept : bool or None
        None while the trial runs.
    """

    rate: float
    doubt: float
    before: dict[int, int]
    after: dict[int, int]
    gain: float = 0.0
    kept: bool | None = None
    discarded: int = 0

    @property
    def grows(self) -> bool:
        """Whether workers were added."""
        return any(count > self.before[place] for place, count in self.after.items())


@dataclass(frozen=True)
class _Block:
    """Differences between two readings."""

    seconds: float
    delivered: int
    cpu: float
    consumer_waited: float | None
    busy: tuple[float, ...]
    waited_tasks: tuple[float, ...]
    delayed: float | None

    @classmethod
    def between(cls, first: Reading, last: Reading) -> _Block:
        pairs = list(zip(first.modules, last.modules, strict=True))
        return cls(
            last.seconds - first.seconds,
            last.delivered - first.delivered,
            last.cpu - first.cpu,
            _difference(first.consumer_waited, last.consumer_waited),
            tuple(after.busy - before.busy for before, after in pairs),
            tuple(after.waited_tasks - before.waited_tasks for before, after in pairs),
            _difference(first.delayed, last.delayed),
        )

    @property
    def rate(self) -> float:
        return self.delivered / self.seconds

    @property
    def least(self) -> float:
        """Number of batches that the block needs."""
        return max(BLOCK_BATCHES, 2 * max(self.busy) / self.seconds)

    @property
    def consumer_limits(self) -> bool:
        return self.consumer_waited is not None and self.consumer_waited < CONSUMER_LIMITS * self.seconds


@dataclass
class _Window:
    """Consecutive blocks with the same numbers of workers."""

    blocks: list[_Block] = field(default_factory=list)

    def add(self, block: _Block) -> None:
        self.blocks.append(block)
        del self.blocks[:-MOST_BLOCKS]

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def seconds(self) -> float:
        return sum(block.seconds for block in self.blocks)

    @property
    def rate(self) -> float:
        """Batches per second."""
        return sum(block.delivered for block in self.blocks) / self.seconds

    @property
    def doubt(self) -> float:
        """Relative standard error of the rate, estimated from the differences between the blocks."""
        count, mean = len(self.blocks), self.rate
        if count < 2 or mean <= 0:
            return 0.0
        spread = sum((block.rate - mean) ** 2 for block in self.blocks) / (count - 1)
        return math.sqrt(spread / count) / mean

    @property
    def cpu(self) -> float:
        """Average number of cores in use."""
        return sum(block.cpu for block in self.blocks) / self.seconds

    @property
    def delayed(self) -> float | None:
        """Average number of workers that waited for a core; None if unknown."""
        known = [block.delayed for block in self.blocks if block.delayed is not None]
        return sum(known) / self.seconds if len(known) == len(self.blocks) else None

    def busy(self, place: int) -> float:
        """Average number of busy workers of a module."""
        return sum(block.busy[place] for block in self.blocks) / self.seconds

    def waiting_for_tasks(self, place: int) -> float:
        """Average number of workers of a source that waited for its tasks."""
        return sum(block.waited_tasks[place] for block in self.blocks) / self.seconds


class Tuner:
    """Decides how many workers each module has.

    Parameters
    ----------
    names : sequence of str
        Names of the modules, for the report.
    ceilings : sequence of (int or None)
        Most workers of each; None for a module whose number is fixed.
    cores : int
        Cores that the process may use.
    """

    def __init__(self, names: Sequence[str], ceilings: Sequence[int | None], cores: int) -> None:
        self._names = tuple(names)
        self._ceilings = tuple(ceilings)
        self._cores = cores
        self._mark: Reading | None = None
        self._window = _Window()
        # The first block after the start, and after every change, is not typical.
        self._skip = True
        self._trial: Trial | None = None
        self._trials: deque[Trial] = deque(maxlen=32)
        self._standing = "measuring"
        # Reading how long threads waited for cores is expensive: requested only where it decides, and once.
        self.asks_for_delay = False
        self._asked = False
        # Remaining trials, and their results: numbers of workers outside of these bounds do not help.
        self._left = 0
        self._least: list[int] = []
        self._most: list[int] = []
        self._forget()
        # Name of the module that has no memory for another worker.
        self._barred = ""
        # The last undone trial of more workers, until it is known whether undoing was right.
        self._undone: Trial | None = None
        self._settled_rate: float | None = None
        self._patience = PATIENCE
        self._not_before = 0.0

    @property
    def settled(self) -> bool:
        """Whether every promising change was tried."""
        return self._settled_rate is not None

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The last finished trials, 32 at most."""
        return tuple(self._trials)

    @property
    def report(self) -> str:
        """One sentence: the last trials and the state of tuning."""
        tried = [
            f"{self._changes(trial)} ({round(100 * trial.gain):+d}%{'' if trial.kept else ', undone'})"
            for trial in self.trials[-4:]
        ]
        return f"Tuning: {'; '.join([*tried, self._standing])}."

    def observe(self, reading: Reading) -> tuple[int, ...] | None:
        """Take new figures; call it several times a second.

        Returns
        -------
        tuple of int or None
            New number of workers of every module; None for no change.
        """
        mark = self._mark
        if mark is None:
            self._mark = reading
            return None
        block = _Block.between(mark, reading)
        if block.seconds < BLOCK_SECONDS or block.delivered < block.least:
            return None
        self._mark = reading
        if self._trial is not None:
            return self._judge(self._trial, block, reading)
        if self._skip:
            self._skip = False
            return None
        if block.consumer_limits:
            self._window = _Window()
            self._standing = "the consumer is the bottleneck, so nothing is tried"
            return None
        self._window.add(block)
        blocks = len(self._window)
        if blocks < BLOCKS or (blocks < MOST_BLOCKS and self._window.doubt > LEAST_DOUBT):
            return None
        self._review(reading)
        change = self._suggestion(reading)
        if change is not None:
            return self._begin(*change, reading)
        if self.asks_for_delay:
            return None
        if self._settled_rate is None:
            self._settled_rate = self._window.rate
            self._not_before = reading.seconds + self._patience
        self._standing = "settled"
        if self._barred:
            self._standing += f", with no room in max_bytes for another worker of {self._barred}"
        return None

    # What to try

    def _suggestion(self, reading: Reading) -> tuple[int, int] | None:
        """Return the place of a module and the number of workers to try; None for no change."""
        if self._left <= 0:
            return None
        window, modules = self._window, reading.modules
        self._barred = ""
        limiter = self._limiter(reading)
        more = self._more(limiter, reading)
        if more is not None:
            return limiter, more
        places = [
            place for place, ceiling in enumerate(self._ceilings) if ceiling and modules[place].workers > 1
        ]
        for place in places:
            enough = max(1, math.ceil(window.busy(place) / BUSY_ENOUGH))
            if self._least[place] <= enough < modules[place].workers:
                return place, enough
        # The bottleneck first: its workers are always busy.
        places.sort(key=lambda place: (place != limiter, -window.busy(place)))
        halves = [(place, (modules[place].workers + 1) // 2) for place in places]
        halves = [(place, half) for place, half in halves if half >= self._least[place]]
        return halves[0] if halves and self._fight() else None

    def _fight(self) -> bool:
        """Whether busy workers wait for each other, not for cores that other processes use.

        Other processes free their cores sooner or later, and the removed workers would then be missing.
        """
        window = self._window
        asked, self.asks_for_delay = self.asks_for_delay, False
        busy = sum(window.busy(place) for place in range(len(self._names)))
        idle, many = busy - window.cpu, max(FIGHT, FIGHT_SHARE * busy)
        if asked:
            return window.delayed is not None and idle - window.delayed >= many
        if idle >= many and not self._asked:
            self._asked = self.asks_for_delay = True
            self._window = _Window()
            self._skip = True
        return False

    def _limiter(self, reading: Reading) -> int:
        """Return the place of the module whose workers are idle least."""
        window = self._window
        return max(
            range(len(reading.modules)),
            key=lambda place: (
                (window.busy(place) + window.waiting_for_tasks(place)) / reading.modules[place].workers
            ),
        )

    def _more(self, place: int, reading: Reading) -> int | None:
        """Return a larger number of workers for the module, if it may help and is allowed; else None.

        A step adds a quarter: the effect of one worker in thirty would be lost in noise.
        """
        window, module, ceiling = self._window, reading.modules[place], self._ceilings[place]
        if (
            ceiling is None
            # A source that waits for its tasks is not busy: more workers would only wait too.
            or window.busy(place) < HARDLY_BUSY * module.workers
            or window.cpu > min(CORES_FULL * self._cores, self._cores - SPARE)
        ):
            return None
        step = max(1, module.workers // 4)
        more = min(module.workers + step, ceiling, self._most[place])
        if module.allowed <= module.workers < more:
            self._barred = self._names[place]
        more = min(more, module.allowed)
        return more if more > module.workers else None

    # Trials

    def _begin(self, place: int, count: int, reading: Reading) -> tuple[int, ...]:
        window = self._window
        self._left -= 1
        self._settled_rate = None
        trial = Trial(window.rate, window.doubt, {}, {})
        return self._change(trial, place, count, reading)

    def _change(self, trial: Trial, place: int, count: int, reading: Reading) -> tuple[int, ...]:
        trial.before[place] = reading.modules[place].workers
        trial.after[place] = count
        self._trial = trial
        self._standing = f"trying {self._changes(trial)}"
        self._window = _Window()
        self._skip = True
        return tuple(
            count if other == place else module.workers for other, module in enumerate(reading.modules)
        )

    def _judge(self, trial: Trial, block: _Block, reading: Reading) -> tuple[int, ...] | None:
        if self._skip:
            self._skip = False
            return None
        if block.consumer_limits and block.rate < trial.rate:
            # The consumer paused, or the change made it slower: undo the change if this persists.
            trial.discarded += 1
            return self._end(trial, False, reading) if trial.discarded >= MOST_BLOCKS else None
        self._window.add(block)
        trial.gain = self._window.rate / trial.rate - 1
        if trial.gain < -(MUCH if trial.grows else LITTLE):
            return self._end(trial, False, reading)
        if len(self._window) < BLOCKS:
            return None
        needed = GAIN if trial.grows else -LOSS
        if (
            abs(trial.gain - needed) < math.hypot(self._window.doubt, trial.doubt)
            and len(self._window) < MOST_BLOCKS
        ):
            return None
        if trial.gain >= needed:
            return self._end(trial, True, reading)
        if trial.grows:
            # Two modules may be the bottleneck in turn: then only more workers for both help.
            limiter = self._limiter(reading)
            more = None if limiter in trial.after else self._more(limiter, reading)
            if more is not None:
                return self._change(trial, limiter, more, reading)
        return self._end(trial, False, reading)

    def _end(self, trial: Trial, kept: bool, reading: Reading) -> tuple[int, ...] | None:
        trial.kept = kept
        self._trials.append(trial)
        self._trial = None
        self._standing = "measuring"
        self._asked = False
        grows = trial.grows
        for place, count in trial.after.items():
            if kept == grows:
                self._least[place] = max(self._least[place], count if kept else count + 1)
            if grows and not kept:
                self._most[place] = min(self._most[place], count - 1)
        if kept:
            if grows:
                # More workers may help the other modules now.
                for place, ceiling in enumerate(self._ceilings):
                    if place not in trial.after:
                        self._most[place] = ceiling or 0
            return None
        self._undone = trial if grows else None
        self._window = _Window()
        self._skip = True
        return tuple(trial.before.get(place, module.workers) for place, module in enumerate(reading.modules))

    # Results of trials, and how long they are valid

    def _review(self, reading: Reading) -> None:
        """Forget results that are no longer valid."""
        rate = self._window.rate
        undone, self._undone = self._undone, None
        if undone is not None and rate * (1 + GAIN) < undone.rate * (1 + undone.gain):
            # Everything has become slower since: the trial was compared with an outdated rate.
            for place in undone.after:
                self._most[place] = self._ceilings[place] or 0
        settled = self._settled_rate
        if settled is None or reading.seconds < self._not_before:
            return
        if not settled * (1 - MARKED) <= rate <= settled / (1 - MARKED):
            self._forget()
            self._settled_rate = None
            self._patience *= 2

    def _forget(self) -> None:
        self._asked = False
        self._least = [1 for _ in self._ceilings]
        self._most = [ceiling or 0 for ceiling in self._ceilings]
        self._left = sum(4 + _steps(ceiling) for ceiling in self._ceilings if ceiling)

    def _changes(self, trial: Trial) -> str:
        return " with ".join(
            f"{self._names[place]} {trial.before[place]} -> {count}" for place, count in trial.after.items()
        )


def _difference(first: float | None, last: float | None) -> float | None:
    return None if first is None or last is None else last - first


def _steps(ceiling: int) -> int:
    """Return the number of steps from one worker to the ceiling."""
    count = steps = 0
    while count < ceiling:
        count += max(1, count // 4)
        steps += 1
    return steps
