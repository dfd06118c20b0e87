"""When a pool of workers grows and shrinks; the time and the measurements are made up."""

import pytest

from highway.ray.scaling import CALM, MEMORY, SPAN, Figures, Scaling

# What a training takes that waits half of its time, and one that never waits; in batches a second.
HUNGRY = Figures(waited=0.5, rate=10.0, cores=2.0)
FED = Figures(waited=0.0, rate=20.0, cores=1.0)


class Pool:
    """A pool that follows each decision at once."""

    def __init__(self, low, high, workers, cpus=1):
        self.plan = Scaling(low, high, cpus)
        self.workers = workers
        self.now = 0.0
        self.reasons = []

    def measure(self, figures):
        self.now += SPAN
        change = self.plan.decide(self.now, self.workers, figures)
        if change is not None:
            self.workers = change.workers
            self.reasons.append(change.reason)
        return self.workers


def test_it_grows_to_what_the_training_could_use():
    pool = Pool(1, 64, workers=4)
    # 4 workers make 80 % of what the training could take, so that 5 make all of it.
    assert pool.measure(Figures(waited=0.2, rate=8.0, cores=4.0)) == 5
    assert pool.reasons == ["the workers are the bottleneck: the training waited 20% of the time"]


@pytest.mark.parametrize(("high", "expected"), [(64, 8), (6, 6), (4, 4)])
def test_it_grows_to_twice_as_many_at_most(high, expected):
    pool = Pool(1, high, workers=4)
    assert pool.measure(Figures(waited=0.9, rate=1.0, cores=4.0)) == expected


def test_workers_that_did_not_help_are_given_back():
    pool = Pool(1, 64, workers=4)
    assert pool.measure(HUNGRY) == 8
    assert pool.measure(Figures(waited=0.49, rate=10.2, cores=4.0)) == 4
    assert "8 workers gave 10.2 batches/s and 4 gave 10: the network" in pool.reasons[-1]
    # Nor are they tried again soon.
    for _ in range(int(MEMORY / SPAN) - 1):
        assert pool.measure(HUNGRY) == 4
    assert pool.measure(HUNGRY) == 8


def test_workers_that_helped_stay():
    pool = Pool(1, 64, workers=4)
    assert pool.measure(HUNGRY) == 8
    assert pool.measure(Figures(waited=0.2, rate=16.0, cores=8.0)) == 10


def test_it_shrinks_to_the_cores_that_it_uses_once_the_training_is_fed():
    pool = Pool(2, 64, workers=20, cpus=2)
    fed = Figures(waited=0.0, rate=20.0, cores=19.0)
    for _ in range(CALM - 1):
        assert pool.measure(fed) == 20
    # 12 workers of two cores, busy to 80 %.
    assert pool.measure(fed) == 12
    assert pool.reasons == ["the consumer is the bottleneck: 20 workers used 19.0 of their 40 cores"]


@pytest.mark.parametrize(("low", "expected"), [(1, 4), (6, 6), (8, 8)])
def test_it_shrinks_to_half_at_most_and_not_below_min(low, expected):
    pool = Pool(low, 64, workers=8)
    for _ in range(CALM):
        workers = pool.measure(FED)
    assert workers == expected


def test_a_wait_begins_the_calm_anew():
    pool = Pool(1, 64, workers=8)
    for waited in [0.0] * (CALM - 1) + [0.03] + [0.0] * (CALM - 1):
        assert pool.measure(Figures(waited, rate=20.0, cores=1.0)) == 8
    assert pool.measure(FED) == 4


def test_it_does_not_swing():
    """Workers that read slowly use few cores; the pool that was too small is remembered."""
    pool = Pool(1, 64, workers=8)
    for _ in range(CALM):
        pool.measure(FED)
    assert pool.workers == 4
    assert pool.measure(HUNGRY) == 8
    for _ in range(int(MEMORY / SPAN) - 1):
        assert pool.measure(FED) == 8
    for _ in range(CALM):
        pool.measure(FED)
    assert pool.workers == 4


def test_nothing_changes_while_the_training_is_paused():
    pool = Pool(1, 64, workers=8)
    for _ in range(2 * CALM):
        assert pool.measure(Figures(waited=0.0, rate=0.0, cores=0.0)) == 8
    assert pool.measure(FED) == 8
