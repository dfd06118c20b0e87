"""Plans: the samples of an epoch are exactly what they say, on any number of ranks, also after resuming anywhere."""

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highway.errors import ArgumentError
from highway.sampling.identity import draw_numbers, identities, numbers_of
from highway.sampling.plan import Data, Plan
from highway.sampling.position import Position
from highway.sampling.sampler import Sampler
from highway.sampling.windows import WindowedSampler

SIZE = 61
SHARDS = np.array([7, 0, 20, 4, 1, 13, 16])
PLANS = {
    "subset": {"subset": [*range(3, 50, 2)]},
    "split": {"split": ("train", 0.7), "stratify": True},
    "weights": {"weights": np.arange(SIZE)},
    "balanced": {"weights": "balanced", "subset": np.arange(SIZE) % 3 > 0, "repeats": 2},
    "by epoch": {"weights": lambda epoch: np.arange(SIZE) + epoch},
    "repeats": {"repeats": 3},
    "most": {"max_samples": 40},
    "all": {
        "subset": [*range(SIZE - 1, 5, -1)],
        "split": ("validation", 0.6),
        "repeats": 2,
        "max_samples": 31,
    },
}


class Source:
    def known_keys(self):
        return None

    def known_labels(self):
        return np.arange(SIZE) % 4

    def unlabeled(self):
        return ()


def plan(name):
    return Plan(Data("Reader", SIZE, Source()), **PLANS[name])


def sampler(name, batch_size, shard=(0, 1), windowed=False, **options):
    if windowed:
        return WindowedSampler(SHARDS, 2, batch_size, plan=plan(name), shard=shard, **options)
    return Sampler(SIZE, batch_size, plan=plan(name), shard=shard, **options)


def places(name, epoch, seed, windowed):
    """The samples of an epoch, place by place."""
    order = sampler(name, 1, seed=seed, windowed=windowed)
    return [int(order.indices(epoch, seq)[0]) for seq in range(len(order))]


@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("name", PLANS)
def test_an_epoch_is_what_the_plan_says(name, windowed):
    windowed = windowed and "weights" not in PLANS[name]
    chosen = plan(name).chosen
    chosen = np.arange(SIZE) if chosen is None else chosen
    for epoch in (0, 5):
        found = places(name, epoch, 9, windowed)
        numbers = Counter(numbers_of(np.array(found)).tolist())
        assert len(set(found)) == len(found) == plan(name).size
        assert set(numbers) <= set(chosen.tolist())
        if name in ("subset", "split"):
            assert sorted(found) == sorted(chosen.tolist())
        if name == "repeats":
            assert numbers == Counter(dict.fromkeys(chosen.tolist(), 3))
            # The copies are neighbors.
            neighbors = numbers_of(np.array(found)).reshape(-1, 3)
            assert (neighbors == neighbors[:, :1]).all()
    assert places(name, 0, 9, windowed) != places(name, 1, 9, windowed)


# Draws by weights do not stay in windows.
@pytest.mark.parametrize(
    ("name", "windowed"),
    [(name, windowed) for name in PLANS for windowed in (False, True)[: 1 + ("weights" not in PLANS[name])]],
)
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_ranks_share_the_epoch_and_go_on_anywhere(name, world, windowed):
    rng = random.Random(f"{name}{world}")
    expected = places(name, 3, 4, windowed)
    for _ in range(100):
        batch_size, other_size = rng.randrange(1, 12), rng.randrange(1, 12)
        other_world = rng.choice([1, 2, 3, 7])
        first = [
            sampler(name, batch_size, (rank, world), windowed, seed=4, epochs=4) for rank in range(world)
        ]
        done = rng.randrange(len(first[0]) + 1)
        seen = [int(index) for order in first for seq in range(done) for index in order.indices(3, seq)]
        place = first[0].place_at(3 * len(first[0]) + done)
        if done == len(first[0]):
            place = Position(4, 0)
        rest = [
            sampler(name, other_size, (rank, other_world), windowed, seed=4, epochs=4)
            for rank in range(other_world)
        ]
        tasks = [list(order.tasks_after(place)) for order in rest]
        # Equal batches on all ranks.
        assert len({tuple(len(task.indices) for task in mine) for mine in tasks}) == 1
        seen += [int(index) for mine in tasks for task in mine for index in task.indices]
        assert set(seen) == set(expected)
        # What comes twice fills the last batches of the ranks.
        assert 0 <= len(seen) - len(expected) <= max(world, other_world) - 1


@pytest.mark.parametrize("name", PLANS)
def test_every_task_is_a_function_of_its_place(name):
    order = sampler(name, 5, (1, 2), seed=8)
    tasks = order.tasks()
    for epoch in range(3):
        for seq in range(len(order)):
            task = next(tasks)
            assert (task.epoch, task.seq) == (epoch, seq)
            assert task.indices.tolist() == sampler(name, 5, (1, 2), seed=8).indices(epoch, seq).tolist()
            assert task.numbers.tolist() == (task.indices % 2**32).tolist()


def test_without_shuffling_the_order_is_that_of_the_subset():
    order = Sampler(
        10, 4, shuffle=False, plan=Plan(Data("R", 10, None), subset=[7, 2, 5], repeats=2, shuffle=False)
    )
    assert order.indices(0, 0).tolist() == [7, 7 + 2**32, 2, 2 + 2**32]
    assert order.indices(9, 1).tolist() == [5, 5 + 2**32]


def test_the_first_samples_differ_between_epochs():
    order = Sampler(1000, 10, plan=Plan(Data("R", 1000, None), max_samples=10))
    assert len(order) == 1
    assert not set(order.indices(0, 0)) & set(order.indices(1, 0))


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**31 - 1)), min_size=1, max_size=9))
def test_identities(pairs):
    numbers, copies = np.array(pairs, np.int64).T
    found = identities(numbers, copies)
    assert (found >= 0).all()
    assert numbers_of(found).tolist() == numbers.tolist()
    assert draw_numbers(numbers).tolist() == numbers.tolist()
    expected = [(number + copy * 0x9E3779B1) % 2**32 for number, copy in pairs]
    assert draw_numbers(found).tolist() == expected


def test_copies_draw_with_other_numbers():
    copies = np.arange(100_000, dtype=np.int64)
    found = draw_numbers(identities(np.full(100_000, 5, np.int64), copies))
    assert len(np.unique(found)) == 100_000


@given(
    samples=st.integers(1, 30), repeats=st.integers(1, 4), world=st.integers(1, 5), most=st.integers(1, 90)
)
@settings(max_examples=60)
def test_reached(samples, repeats, world, most):
    options = {"repeats": repeats, "max_samples": most, "shuffle": False}
    for rank in range(world):
        order = Sampler(
            samples, 3, shuffle=False, shard=(rank, world), plan=Plan(Data("R", samples, None), **options)
        )
        seen = np.concatenate([order.indices(0, seq) for seq in range(len(order))])
        assert order.reached() == len(np.unique(numbers_of(seen)))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"repeats": 0}, "repeats is 0; expected a whole number from 1"),
        ({"repeats": 1.5}, "repeats is 1.5"),
        ({"max_samples": 0}, "max_samples is 0"),
        ({"repeats": 2**31}, "repeats is 2147483648, of 61 samples; expected at most 4294967296 samples"),
        ({"stratify": 1}, "stratify is of type int"),
    ],
)
def test_bad_options(options, named):
    with pytest.raises(ArgumentError, match=f"Reader: {named}"):
        Plan(Data("Reader", SIZE, Source()), **options)
