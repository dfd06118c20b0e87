"""Tuning: which numbers of workers are found for pipelines that are played, without threads and clocks."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import pytest

from highway.engine.autotune import ModuleReading, Reading, Tuner

SEEDS = pytest.mark.parametrize("seed", range(5))
STEP = 0.1


@dataclass
class Part:
    """A module: seconds a batch on a processor, with Python's lock, and waiting for a disk."""

    cpu: float = 0.0
    python: float = 0.0
    wait: float = 0.0
    workers: int = 1
    ceiling: int | None = None
    allowed: int = 1024
    # Several of its workers are of no use beyond this number: they fill the memory bus, say.
    useful: float = math.inf
    # Waiting for tasks, a batch.
    tasks: float = 0.0

    @property
    def work(self):
        return self.cpu + self.python + self.wait


@dataclass
class Played:
    """A pipeline that exists in numbers only, and the tuner that tunes it."""

    parts: list[Part]
    cores: int = 4
    consumer: float = 1e-9
    sink: bool = False
    noise: float = 0.0
    # Processors that other processes take, and whether the system tells who waits for one.
    taken: float = 0.0
    tells: bool = True
    delayed: float = 0.0
    seed: int = 0
    seconds: float = 0.0
    delivered: float = 0.0
    cpu: float = 0.0
    waited: float = 0.0
    changes: list[tuple[float, tuple[int, ...]]] = field(default_factory=list)

    def __post_init__(self):
        names = [f"Part {place}" for place in range(len(self.parts))]
        self.tuner = Tuner(names, [part.ceiling for part in self.parts], self.cores)
        self.busy = [0.0 for _ in self.parts]
        self.tasks = [0.0 for _ in self.parts]
        self.random = random.Random(self.seed)

    def alone(self):
        """Batches a second that each part could make by itself."""
        alone = [min(part.workers, part.useful) / part.work if part.work else math.inf for part in self.parts]
        for place, part in enumerate(self.parts):
            if part.tasks:
                alone[place] = min(alone[place], 1 / part.tasks)
        return alone

    def together(self):
        """Batches a second that the processors and Python's lock allow."""
        python = sum(part.python for part in self.parts)
        cpu = sum(part.cpu + part.python for part in self.parts)
        return min(1 / python if python else math.inf, (self.cores - self.taken) / cpu if cpu else math.inf)

    @property
    def rate(self):
        return min(*self.alone(), self.together(), 1 / self.consumer)

    @property
    def workers(self):
        return tuple(part.workers for part in self.parts)

    def play(self, seconds=60.0):
        until = self.seconds + seconds
        while self.seconds < until:
            alone = self.alone()
            rate = self.rate * max(0.1, 1 + self.noise * self.random.gauss(0, 1))
            self.seconds += STEP
            self.delivered += rate * STEP
            self.cpu += rate * STEP * sum(part.cpu + part.python for part in self.parts)
            # The consumer waits for what it does not do itself.
            self.waited += max(0.0, 1 - rate * self.consumer) * STEP
            slowest = alone.index(min(alone))
            starved = self.rate < 1 / self.consumer
            crowded = self.taken and self.rate < min(*alone, math.inf)
            for place, part in enumerate(self.parts):
                busy = min(part.workers, rate * part.work)
                # Who limits is always at work, or seems to be: waiting for a lock or a processor counts.
                if place == slowest and starved and not part.tasks:
                    self.delayed += (part.workers - busy) * STEP if crowded else 0
                    busy = part.workers
                self.busy[place] += busy * STEP
                if part.tasks:
                    self.tasks[place] += (part.workers - busy) * STEP
            counts = self.tuner.observe(self.reading())
            if counts is not None:
                assert len(counts) == len(self.parts)
                for part, count in zip(self.parts, counts, strict=True):
                    assert count >= 1
                    if part.ceiling is None:
                        assert count == part.workers, "a fixed number was changed"
                    else:
                        assert count <= part.ceiling
                        assert count <= max(part.allowed, part.workers)
                    part.workers = count
                self.changes.append((self.seconds, self.workers))
        return self

    def reading(self):
        return Reading(
            self.seconds,
            int(self.delivered),
            self.cpu,
            None if self.sink else self.waited,
            tuple(
                ModuleReading(part.workers, part.allowed, busy, tasks)
                for part, busy, tasks in zip(self.parts, self.busy, self.tasks, strict=True)
            ),
            self.delayed if self.tells and self.tuner.asks_for_delay else None,
        )

    def settles(self, seconds=120.0):
        """Play, and assert that the last half of the time nothing is changed any more."""
        begun = self.seconds
        self.play(seconds)
        late = [when for when, _ in self.changes if when > begun + seconds / 2]
        assert not late, self.changes
        return self


# Who gets more


def test_module_that_limits_gets_what_it_can_use():
    played = Played([Part(cpu=0.002, workers=4, ceiling=4), Part(cpu=0.02, ceiling=4)], cores=8).settles()
    assert played.parts[1].workers == 4
    assert played.tuner.settled
    assert all(trial.kept for trial in played.tuner.trials if trial.grows)


def test_growth_ends_where_another_module_limits():
    played = Played([Part(cpu=0.01, workers=2), Part(cpu=0.02, ceiling=8)], cores=8).settles()
    # Two fixed workers make 200 a second, so four of 20 ms do.
    assert played.workers == (2, 4)


def test_growth_ends_at_the_processors():
    played = Played([Part(cpu=0.001, ceiling=4, workers=4), Part(cpu=0.03, ceiling=4)], cores=4).settles()
    assert played.parts[1].workers in (3, 4)
    assert played.rate > 0.9 * 4 / 0.031 or played.parts[1].workers == 4


def test_processors_that_are_in_use_already_are_not_tried_for():
    played = Played([Part(cpu=0.019, workers=2, ceiling=2), Part(cpu=0.001, ceiling=2)], cores=2).play(60)
    assert played.changes == []
    assert played.tuner.settled
    assert played.tuner.report == "Tuning: settled."


def test_processors_that_are_in_use_are_not_tried_for_where_one_thread_limits():
    played = Played([Part(cpu=0.02, workers=2), Part(cpu=0.02, ceiling=2)], cores=2).play(60)
    assert played.changes == []


def test_workers_that_wait_for_a_disk_may_be_more_than_processors_in_use():
    played = Played([Part(cpu=0.001, wait=0.05, ceiling=8), Part(cpu=0.001, ceiling=8)], cores=8).settles()
    assert played.workers == (8, 1)


def test_steps_grow_with_the_number():
    played = Played([Part(cpu=0.0001, workers=64), Part(cpu=0.1, ceiling=64)], cores=64).settles(300)
    assert played.parts[1].workers >= 58
    assert len(played.tuner.trials) < 25


def test_two_modules_that_limit_by_turns_both_grow():
    parts = [Part(cpu=0.001, workers=4), Part(cpu=0.02, ceiling=4), Part(cpu=0.0201, ceiling=4)]
    played = Played(parts, cores=8).settles()
    assert played.workers[1:] == (4, 4) or played.rate > 0.9 * 8 / 0.0411
    assert any(len(trial.after) == 2 for trial in played.tuner.trials)


def test_sink_may_limit():
    played = Played(
        [Part(cpu=0.001, workers=2), Part(cpu=0.01, wait=0.05, ceiling=4)], sink=True, cores=4
    ).settles()
    assert played.workers == (2, 4)


# Who does not


def test_consumer_that_limits_changes_nothing():
    played = Played([Part(cpu=0.001, workers=4, ceiling=4), Part(cpu=0.02, ceiling=4)], consumer=0.1).play()
    assert played.changes == []
    assert "the consumer is the bottleneck" in played.tuner.report


def test_growth_ends_where_the_consumer_limits():
    played = Played(
        [Part(cpu=0.001, workers=2), Part(cpu=0.03, ceiling=8)], cores=8, consumer=0.012
    ).settles()
    assert played.workers == (2, 3)


def test_stage_in_python_gets_no_more_workers():
    played = Played([Part(cpu=0.002, workers=4), Part(python=0.02, ceiling=4)]).settles()
    assert played.workers == (4, 1)
    (trial,) = [trial for trial in played.tuner.trials if trial.grows]
    assert (trial.before, trial.after, trial.kept) == ({1: 1}, {1: 2}, False)
    assert "Part 1 1 -> 2 (+0%, undone)" in played.tuner.report


def test_memory_bus_that_is_full_ends_growth():
    parts = [Part(cpu=0.001, workers=2), Part(cpu=0.02, ceiling=8, useful=3)]
    assert Played(parts, cores=8).settles().workers == (2, 3)


def test_memory_for_batches_ends_growth():
    parts = [Part(cpu=0.001, workers=2), Part(cpu=0.02, ceiling=8, allowed=2)]
    played = Played(parts, cores=8).settles()
    assert played.workers == (2, 2)
    assert played.tuner.report.endswith("settled, with no room in max_bytes for another worker of Part 1.")
    # Only as long as that is so.
    parts[1].allowed = 8
    assert played.settles().tuner.report.endswith("); settled.")


def test_source_whose_tasks_come_slowly_gets_no_more_workers():
    played = Played([Part(cpu=0.001, tasks=0.02, workers=1, ceiling=8)], cores=8).settles()
    assert played.workers == (1,)


def test_fixed_numbers_stay():
    played = Played([Part(cpu=0.002, workers=3), Part(cpu=0.02, workers=1)]).play()
    assert played.changes == []


# Who has to give some up


def test_workers_that_only_wait_are_taken_away():
    played = Played([Part(cpu=0.001, workers=8, ceiling=8), Part(cpu=0.02, workers=2)], cores=8).settles()
    assert played.workers == (1, 2)
    assert [trial.kept for trial in played.tuner.trials] == [True]
    assert not played.tuner.asks_for_delay


def test_workers_that_wait_for_tasks_are_taken_away():
    played = Played([Part(cpu=0.001, tasks=0.02, workers=8, ceiling=8)], cores=8).settles()
    assert played.workers == (1,)


def test_workers_that_were_taken_away_come_back_when_another_module_has_grown():
    parts = [Part(cpu=0.004, workers=8, ceiling=8), Part(cpu=0.02, ceiling=8, allowed=1)]
    played = Played(parts, cores=16).settles()
    assert played.workers == (1, 1)
    # There is room for more batches now.
    parts[1].allowed = 8
    assert played.settles().workers == (2, 8)


def test_workers_that_fight_for_pythons_lock_are_taken_away():
    played = Played([Part(python=0.02, workers=4, ceiling=4)]).settles()
    assert played.workers == (1,)


def test_workers_that_wait_for_processors_of_other_processes_are_left():
    """They do not look different, but are needed once the others are done."""
    played = Played([Part(cpu=0.02, workers=2, ceiling=2)], cores=2, taken=1.0).settles()
    assert played.changes == []
    assert played.tuner.settled
    assert not played.tuner.asks_for_delay


def test_fight_is_not_made_out_where_the_system_does_not_tell_who_waits():
    played = Played([Part(python=0.02, workers=4, ceiling=4)], tells=False).settles()
    assert played.changes == []
    assert played.tuner.settled


def test_workers_that_were_taken_away_by_mistake_come_back():
    parts = [Part(python=0.02, workers=4, ceiling=4)]
    played = Played(parts)
    while played.workers != (1,):
        played.play(STEP)
    # The lock is no longer held, and nothing else has changed.
    parts[0].python, parts[0].cpu = 0.0, 0.02
    # Not 4, perhaps: 3 may have been tried before.
    assert played.settles().workers[0] >= 2


def test_workers_that_are_busy_waiting_for_a_disk_are_left():
    played = Played([Part(cpu=0.001, wait=0.05, workers=4, ceiling=4)]).settles()
    assert played.workers == (4,)
    assert [trial.kept for trial in played.tuner.trials] == [False]
    # Which was soon found: after a block that does not count and another.
    (begun, _), (ended, _) = played.changes
    assert ended - begun < 7 * STEP


# Noise, and how it ends


@SEEDS
@pytest.mark.parametrize("noise", [0.05, 0.15])
def test_noise_does_not_hide_what_helps(seed, noise):
    parts = [Part(cpu=0.002, workers=4, ceiling=4), Part(cpu=0.02, ceiling=4)]
    played = Played(parts, cores=8, noise=noise, seed=seed).settles()
    assert played.parts[1].workers >= 3


@SEEDS
@pytest.mark.parametrize("noise", [0.05, 0.15])
def test_noise_does_not_make_python_parallel(seed, noise):
    parts = [Part(cpu=0.002, workers=4), Part(python=0.02, ceiling=16)]
    played = Played(parts, cores=16, noise=noise, seed=seed).settles()
    assert played.parts[1].workers <= 2


def test_noise_is_measured_out():
    """Who looks longer where the difference is within the noise is hardly ever wrong."""
    wrong = kept = 0
    for seed in range(100):
        played = Played([Part(python=0.01, ceiling=2)], cores=4, noise=0.1, seed=seed).play(15)
        wrong += any(trial.kept for trial in played.tuner.trials if trial.grows)
        played = Played([Part(cpu=0.01, ceiling=2, useful=1.15)], cores=4, noise=0.1, seed=seed).play(15)
        kept += any(trial.kept for trial in played.tuner.trials if trial.grows)
    assert wrong <= 12
    assert kept >= 95


@pytest.mark.parametrize("seed", range(20))
def test_any_pipeline_settles(seed):
    draw = random.Random(seed)
    cores = draw.choice([1, 2, 4, 16, 64])
    parts = [
        Part(
            cpu=draw.choice([0.0001, 0.001, 0.01]),
            python=draw.choice([0, 0, 0.002]),
            wait=draw.choice([0, 0, 0.02]),
            workers=cores if place == 0 else 1,
            ceiling=draw.choice([cores, cores, cores, None]),
            useful=draw.choice([math.inf, 3.0]),
        )
        for place in range(draw.randint(1, 4))
    ]
    played = Played(parts, cores, consumer=draw.choice([1e-9, 0.005]), noise=0.1, seed=seed)
    before = played.rate
    played.settles(400)
    assert played.rate > 0.9 * before


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_trials_are_bounded_however_noisy(noise):
    parts = [Part(cpu=0.01, wait=0.01, workers=2, ceiling=2), Part(cpu=0.01, wait=0.01, ceiling=2)]
    played = Played(parts, cores=4, noise=noise).play(2000)
    in_the_end = [when for when, _ in played.changes if when > 1000]
    assert len(played.changes) < 60
    assert len(in_the_end) < 20


def test_trials_end_also_where_conditions_always_speak_for_another():
    """More workers gain a little, which is not enough, and then everything becomes slower than that."""
    played = Played([Part(cpu=0.0001, workers=2), Part(python=0.002, ceiling=2)])
    growths = 0
    for _ in range(6000):
        before = played.workers
        played.play(STEP / 2)
        if played.workers != before:
            grown = played.workers > before
            growths += grown
            played.parts[1].python *= 1 / 1.02 if grown else 1.1
    # 4 for the module, and a step for each of the 2.
    assert growths == 6
    assert not any(trial.kept for trial in played.tuner.trials)


def test_block_is_long_enough_for_slow_batches():
    """Nothing is concluded from a few batches: at one in two seconds, a block lasts 16."""
    played = Played([Part(wait=2.0, ceiling=4)]).play(4 * 16 - 1)
    assert played.changes == []
    played.play(3)
    assert played.workers == (2,)


# When it begins anew


def test_marked_fall_of_the_rate_begins_anew():
    played = Played([Part(cpu=0.001, workers=2), Part(cpu=0.01, ceiling=8)], cores=8, consumer=0.004)
    played.settles()
    before, changes = played.workers, len(played.changes)
    # The pictures become four times as large.
    played.parts[1].cpu = 0.04
    played.settles()
    assert played.workers[1] > before[1]
    assert len(played.changes) > changes


def test_small_change_of_the_rate_does_not():
    played = Played([Part(cpu=0.001, workers=2), Part(python=0.01, ceiling=8)], cores=8).settles()
    changes = len(played.changes)
    played.parts[1].python = 0.012
    played.play(120)
    assert len(played.changes) == changes


def test_rate_that_goes_up_and_down_is_followed_more_and_more_rarely():
    played = Played([Part(cpu=0.001, workers=2), Part(python=0.01, ceiling=8)], cores=8)
    times = []
    for turn in range(60):
        played.parts[1].python = 0.01 if turn % 2 else 0.03
        changes = len(played.changes)
        played.play(20)
        times += [turn] if len(played.changes) > changes else []
    assert 2 <= len(times) <= 8
    assert times[-1] - times[-2] > 3 * (times[1] - times[0])


def test_trial_that_was_judged_by_a_rate_that_no_longer_held_is_tried_again():
    parts = [Part(cpu=0.001, workers=2), Part(cpu=0.02, wait=0.02, ceiling=2)]
    played = Played(parts, cores=4)
    while not played.changes:
        played.play(STEP)
    assert played.workers == (2, 2)
    # In the midst of the trial everything becomes half as fast.
    parts[1].cpu = parts[1].wait = 0.045
    played.play(60)
    assert [trial.kept for trial in played.tuner.trials if trial.grows] == [False, True]
    assert played.workers == (2, 2)


def test_consumer_that_pauses_does_not_spoil_a_trial():
    played = Played([Part(cpu=0.001, workers=2), Part(cpu=0.02, ceiling=2)], cores=4)
    while not played.changes:
        played.play(STEP)
    played.consumer = 0.5
    played.play(20)
    played.consumer = 1e-9
    played.play(20)
    assert [trial.kept for trial in played.tuner.trials if trial.grows] == [True]


def test_consumer_that_stays_slow_ends_a_trial():
    played = Played([Part(cpu=0.001, workers=2), Part(cpu=0.02, ceiling=2)], cores=4)
    while not played.changes:
        played.play(STEP)
    played.consumer = 0.1
    played.play(60)
    assert played.workers == (2, 1)


def test_threads_that_are_not_to_be_had_end_a_trial():
    class Stubborn(Part):
        def __setattr__(self, name, value):
            super().__setattr__(name, min(value, 2) if name == "workers" else value)

    played = Played([Part(cpu=0.001, workers=2), Stubborn(cpu=0.02, ceiling=8)], cores=8).settles()
    assert played.workers == (2, 2)


# What is told


def test_report():
    played = Played([Part(cpu=0.002, workers=4), Part(cpu=0.02, ceiling=2)], cores=4)
    assert played.tuner.report == "Tuning: measuring."
    assert not played.tuner.settled
    while not played.changes:
        played.play(STEP)
    assert played.tuner.report == "Tuning: trying Part 1 1 -> 2."
    played.play(20)
    assert played.tuner.report == "Tuning: Part 1 1 -> 2 (+100%); settled."
    assert played.tuner.settled


def test_report_stays_short():
    played = Played([Part(cpu=0.0001, workers=64), Part(cpu=0.1, ceiling=64)], cores=64).settles(300)
    assert len(played.tuner.report) < 200
