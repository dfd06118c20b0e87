"""Orders over several sources: exact proportions, each source in its own epochs, any rank, resumed anywhere."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from concurrency import LIMIT

from highway.errors import ArgumentError
from highway.sampling.identity import numbers_of
from highway.sampling.mixture import ConcatSampler, MixSampler
from highway.sampling.plan import Data, Plan
from highway.sampling.position import Position
from highway.sampling.sampler import Sampler

SIZES = (31, 12, 7)


def members():
    return [
        Sampler(31, 1, seed=1),
        Sampler(12, 1, seed=2, plan=Plan(Data("R", 12, None), weights=np.arange(12))),
        Sampler(7, 1, seed=3, plan=Plan(Data("R", 7, None), repeats=2, subset=[0, 2, 4, 5])),
    ]


def schedule(epoch):
    return [(3, 1, 1), (1, 1, 0), (1, 2, 2)][epoch % 3]


# Within the first epochs of 77 samples, at the end of one, and for a single sample.
SECTIONS = {0: (3, 1, 1), 30: (1, 1, 0), 77: (1, 2, 2), 120: (1, 0, 0), 121: (2, 1, 1)}

MIXES = {
    "first": ((3, 1, 1), "first", "stream"),
    "all": ((3, 1, 1), "all", "stream"),
    "samples": ((0.5, 0.25, 0.25), 83, "stream"),
    "schedule": (schedule, 77, "stream"),
    "sections": (SECTIONS, 77, "stream"),
    "batch first": ((3, 1, 1), "first", "batch"),
    "batch all": ((3, 1, 1), "all", "batch"),
    "batch samples": ((3, 1, 1), 145, "batch"),
}
ORDERS = [*MIXES, "concat", "concat in order"]


def make(name, batch_size, shard=(0, 1), **options):
    if name.startswith("concat"):
        return ConcatSampler(members(), batch_size, shuffle=name == "concat", seed=7, shard=shard, **options)
    return MixSampler(members(), *MIXES[name], batch_size, shard=shard, **options)


def batch_sizes(name):
    return (5, 10, 15) if name.startswith("batch") else (1, 2, 3, 5, 8, 11)


def whole(name, epoch):
    order = make(name, batch_sizes(name)[0])
    return np.concatenate([order.indices(epoch, seq) for seq in range(len(order))])


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("name", ORDERS)
def test_ranks_share_the_epoch_and_go_on_anywhere(name, world):
    rng = random.Random(f"{name}{world}")
    expected = {epoch: whole(name, epoch).tolist() for epoch in (0, 2)}
    assert all(len(set(found)) == len(found) for found in expected.values())
    for _ in range(100):
        epoch, batch_size, other_size = rng.choice([0, 2]), *rng.choices(batch_sizes(name), k=2)
        other_world = rng.choice([1, 2, 3, 7])
        first = [make(name, batch_size, (rank, world), epochs=3) for rank in range(world)]
        done = rng.randrange(len(first[0]))
        seen = [int(index) for order in first for seq in range(done) for index in order.indices(epoch, seq)]
        place = first[0].place_at(epoch * len(first[0]) + done)
        rest = [make(name, other_size, (rank, other_world), epochs=epoch + 1) for rank in range(other_world)]
        tasks = [list(order.tasks_after(place)) for order in rest]
        assert len({tuple(len(task.indices) for task in mine) for mine in tasks}) == 1
        seen += [int(index) for mine in tasks for task in mine for index in task.indices]
        assert set(seen) == set(expected[epoch])
        assert 0 <= len(seen) - len(expected[epoch]) <= other_world - 1


@pytest.mark.parametrize("name", MIXES)
def test_each_source_goes_through_its_own_epochs(name):
    order = make(name, 5)
    alone = members()
    turns = [0, 0, 0]
    for epoch in range(4):
        found = np.concatenate([order.indices(epoch, seq) for seq in range(len(order))])
        assert len(set(found.tolist())) == len(found) == order.size
        for member, first in enumerate(order.firsts.tolist()):
            numbers = numbers_of(found[order.members_of(numbers_of(found)) == member]) - first
            expected = []
            for _ in range(len(numbers)):
                own, place = divmod(turns[member], alone[member].size)
                expected.append(int(numbers_of(alone[member].samples_at(own, np.array([place])))[0]))
                turns[member] += 1
            # One rank: in its own order.
            assert numbers.tolist() == expected


def test_where_epochs_stop():
    sizes = [member.size for member in members()]
    for name in ("first", "all", "batch first", "batch all"):
        order = make(name, 5)
        counts = np.bincount(order.members_of(numbers_of(whole(name, 0))), minlength=3)
        reached = counts >= sizes
        assert reached.all() if "all" in name else (counts <= sizes).all()
        # Not a turn longer, or shorter.
        one = (3, 1, 1) if "batch" in name else (1, 1, 1)
        assert ((counts - one < sizes) if "all" in name else (counts + one > sizes)).any()
    assert [make(name, 5).size for name in ("samples", "schedule", "batch samples")] == [83, 77, 145]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_batch_of_every_rank_is_exact(world):
    for batch_size in (5, 10, 15):
        for rank in range(world):
            order = make("batch samples", batch_size, (rank, world), epochs=2)
            for task in order.tasks():
                counts = np.bincount(order.members_of(task.numbers), minlength=3).tolist()
                if task.seq < 145 // (batch_size * world):
                    assert counts == [batch_size * 3 // 5, batch_size // 5, batch_size // 5]


def test_a_schedule_changes_the_proportions():
    order = make("schedule", 5)
    for epoch in (0, 1, 2, 4):
        counts = np.bincount(order.members_of(numbers_of(whole("schedule", epoch))), minlength=3)
        shares = np.array(schedule(epoch)) / sum(schedule(epoch))
        assert (np.abs(counts - shares * 77) <= 1).all()


def test_weights_change_after_a_number_of_samples():
    order = make("sections", 5)
    for epoch in range(3):
        members_at = order.members_of(numbers_of(whole("sections", epoch)))
        for start, end in zip(SECTIONS, [*list(SECTIONS)[1:], 10**6], strict=True):
            weights = np.array(SECTIONS[start])
            section = members_at[max(0, start - 77 * epoch) : max(0, end - 77 * epoch)]
            for first in range(max(0, len(section) - weights.sum() + 1)):
                counts = np.bincount(section[first : first + weights.sum()], minlength=3)
                assert (np.abs(counts - weights) <= 1).all()
            shares = len(section) * weights / weights.sum()
            assert (np.abs(np.bincount(section, minlength=3) - shares) <= 1).all()
    assert (whole("sections", 4) >> 32).any()
    state = order.planned(1)["weights"]
    assert state == order.planned(7)["weights"] == [[start, [*parts]] for start, parts in SECTIONS.items()]


def test_threads_ask_for_an_epoch_at_once():
    """Pipelines and replays of one mixture share its order."""
    both = threading.Barrier(2)

    def together(epoch):
        if order is not None and epoch == 0:
            both.wait(LIMIT)
        return schedule(epoch)

    order = None
    order = MixSampler(members(), together, 77, "stream", 5)
    with ThreadPoolExecutor(2) as pool:
        found = [*pool.map(order.before, (1, 1), timeout=LIMIT)]
    expected = make("schedule", 5)
    assert found[0].tolist() == found[1].tolist() == expected.before(1).tolist()
    assert order.before(3).tolist() == expected.before(3).tolist()


def test_concat_has_every_sample_of_all_each_epoch():
    alone = members()
    for epoch in (0, 3):
        found = numbers_of(whole("concat", epoch))
        expected = np.concatenate(
            [
                numbers_of(order.samples_at(epoch, np.arange(order.size))) + first
                for order, first in zip(alone, (0, 31, 43), strict=True)
            ]
        )
        assert Counter(found.tolist()) == Counter(expected.tolist())
        assert numbers_of(whole("concat in order", epoch)).tolist() == expected.tolist()
        assert found.tolist() != expected.tolist()


def test_far_epochs_are_computed_directly():
    order = make("first", 5)
    assert len(set(order.indices(2**31, 1).tolist())) == 5
    assert order.before(2**31).tolist() == (order.before(1) * 2**31).tolist()


def test_skips_leave_ranks_alike():
    from highway.sampling.skips import Skips

    for name in ("batch samples", "first"):
        orders = [make(name, 5, (rank, 2)) for rank in range(2)]
        gone = numbers_of(orders[1].indices(0, 1))
        skips = Skips({(0, 0): [(number, number) for number in gone.tolist()]})
        batches = [
            [len(order.skipping(skips).task_at(0, seq).indices) > 0 for seq in range(len(order))]
            for order in orders
        ]
        assert batches[0] == batches[1]
        assert not batches[1][1]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            ((1, 1, 1), "last", "stream", 5),
            "stop is 'last'; expected 'first', 'all', or the number of samples",
        ),
        (((1, 1, 1), 0, "stream", 5), "stop is 0"),
        (((1, 1, 1), "all", "row", 5), "exact is 'row'; expected 'batch' or 'stream'"),
        (
            ((3, 1, 1), "all", "batch", 32),
            "sums to 5 in lowest terms, which does not divide batch_size 32; .* such as 30",
        ),
        (
            ((3, 1, 1), 144, "batch", 5),
            "stop is 144 samples; .* a multiple of 5, the sum of the weights, such as 145",
        ),
        (((40, 1, 1), "first", "batch", 42), "a source has fewer samples than its weight"),
        ((schedule, "all", "stream", 5), "stop is 'all', and weights is not the same for all epochs"),
        ((SECTIONS, "all", "stream", 5), "stop is 'all', and weights is not the same for all epochs"),
        ((SECTIONS, 75, "batch", 5), "changes after numbers of samples, and exact is 'batch'"),
        (({}, 75, "stream", 5), "without weights for the first sample"),
        (({5: (1, 1, 1)}, 75, "stream", 5), "without weights for the first sample"),
        (({0: (1, 1, 1), 0.5: (1, 1, 1)}, 75, "stream", 5), "a number of samples in weights is 0.5"),
        (({0: (1, 1, 1), 9: (1, 1)}, 75, "stream", 5), r"weights\[9\] has 2 numbers"),
        (((1, 1), "all", "stream", 5), "weights has 2 numbers"),
        ((lambda epoch: (0, 0, 0), 5, "stream", 5), r"weights\(0\) sums to 0"),
    ],
)
def test_bad_mixtures(arguments, named):
    with pytest.raises(ArgumentError, match=f"Mix: .*{named}"):
        MixSampler(members(), *arguments, owner="Mix")


def test_too_many_places():
    half = Sampler(5, 1, plan=Plan(Data("R", 5, None), repeats=2**29))
    with pytest.raises(
        ArgumentError, match=r"Concat: number of samples of an epoch is 5368709120; .* 4294967296"
    ):
        ConcatSampler([half, half], 5, owner="Concat")


def test_drawn_seeds_of_sources(monkeypatch):
    """Each rank would have drawn others."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    order = ConcatSampler([Sampler(5, 1), Sampler(5, 1, seed=None)], 5, shard="auto", owner="Concat")
    assert order.current() is order
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ArgumentError, match="Concat: seed is None, and each of the 2 ranks"):
        order.current()


def test_drop_last():
    order = ConcatSampler(members(), 50, drop_last=True)
    assert len(order) == 1
    with pytest.raises(
        ArgumentError, match="drop_last leaves nothing of size 51: a rank of 1 has 51 samples"
    ):
        ConcatSampler(members(), 52, drop_last=True)


def test_places_after_the_end():
    order = make("first", 5, epochs=1)
    assert order.place_at(len(order)) == Position(1, 0)
