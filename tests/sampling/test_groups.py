"""GroupedSampler: batches of one group, the same group on all ranks; seekable and resumable."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest

from highway.errors import ArgumentError, StateMismatchError
from highway.sampling.grouped import GroupedSampler
from highway.sampling.grouping import grouping
from highway.sampling.identity import numbers_of
from highway.sampling.mixture import ConcatSampler
from highway.sampling.plan import Data, Plan
from highway.sampling.sampler import Position, Sampler
from highway.sampling.skips import Skips

RNG = np.random.default_rng(5)
# Group 3 has no sample, and group 4 has two.
OF_SAMPLES = RNG.choice([0, 1, 2], 180, p=[0.6, 0.3, 0.1])
OF_SAMPLES[[40, 90]] = 4
SIZES = (4, 3, 7, 2, 5)
WORLDS = (1, 2, 3, 7)


def order(sizes=SIZES, of_samples=OF_SAMPLES, **options):
    return GroupedSampler(grouping("Test", of_samples, sizes), **{"epochs": 2, **options})


def plan(**options):
    return Plan(Data("Test", len(OF_SAMPLES), None), **options)


def ranks(world, **options):
    return [order(shard=(rank, world), **options) for rank in range(world)]


def members(group):
    return [index for index, one in enumerate(OF_SAMPLES.tolist()) if one == group]


def steps(samplers, begun=None):
    """The indices of every rank, by step."""
    tasks = [list(one.tasks() if begun is None else one.tasks_after(begun)) for one in samplers]
    assert len({len(each) for each in tasks}) == 1
    return list(zip(*tasks, strict=True))


def as_saved(sampler, place):
    state = json.loads(json.dumps(sampler.state_of(place)))
    return sampler.place_of(state, state["epoch"], state["position"])


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("world", WORLDS)
def test_each_step_has_one_group_and_each_epoch_all_samples(world, shuffle):
    samplers = ranks(world, shuffle=shuffle)
    counts = np.bincount(OF_SAMPLES, minlength=5)
    for epoch in (0, 1):
        found = Counter()
        for step in steps(samplers):
            if step[0].epoch == epoch:
                every = np.concatenate([task.indices for task in step])
                groups = {*OF_SAMPLES[every].tolist()}
                assert len(groups) == 1
                assert len({len(task.indices) for task in step}) == 1
                assert 0 < len(step[0].indices) <= SIZES[groups.pop()]
                found.update(every.tolist())
        # Each once, but for those that fill the last places of the ranks.
        assert set(found) == set(range(len(OF_SAMPLES)))
        more = Counter(OF_SAMPLES[[*found.elements()]].tolist())
        assert more == {
            group: -(-count // world) * world for group, count in enumerate(counts.tolist()) if count
        }


@pytest.mark.parametrize("world", WORLDS)
def test_drop_last_leaves_full_batches_only(world):
    sampler = order(shard=(0, world), drop_last=True, sizes=(2, 3, 1, 1, 1))
    found = Counter(int(OF_SAMPLES[task.indices[0]]) for task in sampler if task.epoch == 0)
    assert all(len(task.indices) == (2, 3, 1, 1, 1)[OF_SAMPLES[task.indices[0]]] for task in sampler)
    counts = np.bincount(OF_SAMPLES, minlength=5) // world // np.array((2, 3, 1, 1, 1))
    assert found == {group: count for group, count in enumerate(counts.tolist()) if count}
    with pytest.raises(ArgumentError, match="drop_last leaves nothing"):
        order(sizes=(500,) * 5, drop_last=True)


def test_without_shuffling_samples_come_in_order():
    tasks = [task.indices.tolist() for task in order(shuffle=False) if task.epoch == 0]
    assert tasks[0] == members(OF_SAMPLES[0])[: SIZES[OF_SAMPLES[0]]]
    firsts = [indices[0] for indices in tasks]
    assert firsts == sorted(firsts)
    for group in range(5):
        of_group = [index for indices in tasks for index in indices if OF_SAMPLES[index] == group]
        assert of_group == members(group)


def test_any_batch_is_computed_directly():
    sampler = order(shard=(1, 3))
    tasks = list(sampler)
    for number, task in enumerate(tasks):
        assert np.array_equal(sampler.indices(task.epoch, task.seq), task.indices)
        assert np.array_equal(sampler.task_at(task.epoch, task.seq).indices, task.indices)
        assert divmod(number, len(sampler)) == (task.epoch, task.seq)
    for start in (0, 5, len(sampler), len(tasks) - 1):
        assert np.array_equal(next(sampler.tasks(start)).indices, tasks[start].indices)


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"plan": plan(repeats=2)}, {"drop_last": True}])
@pytest.mark.parametrize("world", [1, 3])
def test_the_rest_is_the_same_as_without_the_interruption(world, options):
    sampler = order(shard=(world - 1, world), **options)
    every = [(task.epoch, task.seq, task.indices.tolist()) for task in sampler]
    for number in range(len(every)):
        place = as_saved(sampler, sampler.place_at(number))
        assert sampler.number_after(place) == number
        rest = [(task.epoch, task.seq, task.indices.tolist()) for task in sampler.tasks_after(place)]
        assert rest == every[number:]
        # Also of the batches before the place, and of the places after it.
        assert sampler.task_at(*every[0][:2], place).indices.tolist() == every[0][2]
        assert sampler.place_at(len(every) - 1, place) == sampler.place_at(len(every) - 1)


def test_an_epoch_has_all_places_after_resuming_with_other_sizes_and_worlds():
    rng = np.random.default_rng(0)
    counts = np.bincount(OF_SAMPLES, minlength=5)
    for turn in range(100):
        place, had = Position(0, 0), Counter()
        for part in range(3):
            world = int(rng.choice(WORLDS))
            sizes = tuple(rng.integers(1, 9, 5).tolist())
            samplers = ranks(world, sizes=sizes, seed=turn, epochs=1)
            taken = steps(samplers, place)
            stop = len(taken) if part == 2 else int(rng.integers(0, len(taken) + 1))
            begun = samplers[0].number_after(place)
            for step in taken[:stop]:
                every = np.concatenate([task.indices for task in step])
                assert len({*OF_SAMPLES[every].tolist()}) == 1
                assert len({len(task.indices) for task in step}) == 1
                had.update(every.tolist())
            # All ranks are at the same place.
            places = {
                (one.place_at(begun + stop, place), *one.state_of(one.place_at(begun + stop, place))["done"])
                for one in samplers
            }
            assert len(places) == 1
            place = as_saved(samplers[0], samplers[0].place_at(begun + stop, place))
            if place.epoch:
                break
        assert set(had) == set(range(len(OF_SAMPLES)))
        # Only samples that wrapped around come more than once: fewer than a world for each part and group.
        assert had.total() - len(OF_SAMPLES) < 3 * 7 * np.count_nonzero(counts)


def test_resuming_with_a_world_that_divides_the_groups_repeats_nothing():
    of_samples = np.repeat([0, 1], [48, 24])
    rng = np.random.default_rng(1)
    for turn in range(30):
        first = ranks(2, of_samples=of_samples, sizes=(2, 3), seed=turn, epochs=1)
        stop = int(rng.integers(1, len(first[0])))
        place = first[0].place_at(stop)
        had = [index for step in steps(first)[:stop] for task in step for index in task.indices.tolist()]
        second = ranks(1, of_samples=of_samples, sizes=(5, 4), seed=turn, epochs=1)
        had += [index for step in steps(second, place) for task in step for index in task.indices.tolist()]
        assert sorted(had) == list(range(72))


def test_groups_are_mixed_evenly_in_every_part_of_an_epoch():
    of_samples = np.repeat([0, 1, 2], [4000, 2000, 200])
    seqs = {group: [] for group in range(3)}
    sampler = order((10, 5, 2), of_samples, epochs=20, seed=3)
    following = Counter()
    for epoch in range(20):
        groups = [int(of_samples[sampler.indices(epoch, seq)[0]]) for seq in range(len(sampler))]
        following.update(itertools.pairwise(groups))
        for group in seqs:
            places = np.flatnonzero(np.array(groups) == group)
            seqs[group] += (places * 10 // len(groups)).tolist()
            if epoch == 0:
                # No tenth of an epoch is without a group, or has much more of it than another.
                parts = np.bincount(seqs[group], minlength=10)
                assert parts.min() >= 0.7 * parts.mean() and parts.max() <= 1.3 * parts.mean()
    # And no fixed rotation: each of two groups with the same number of steps follows itself, and the other.
    of_first = sum(count for (group, _), count in following.items() if group == 0)
    assert min(following[0, 0], following[0, 1]) > 0.1 * of_first


def test_samples_of_a_group_are_in_random_order():
    of_samples = np.tile([0, 1], 500)
    sampler = order((10, 10), of_samples, epochs=30)
    tenths = np.zeros((10, 10))
    for epoch in range(30):
        found = np.concatenate([task.indices for task in sampler if task.epoch == epoch])
        for group in (0, 1):
            inside = found[of_samples[found] == group] // 2
            np.add.at(tenths, (np.arange(500) * 10 // 500, inside * 10 // 500), 1)
    # 99 degrees of freedom at most: a value above 160 has a probability below 1e-4.
    assert ((tenths - 300) ** 2 / 300).sum() < 160
    first = [task.indices.tolist() for task in order(epochs=1)]
    assert first != [task.indices.tolist() for task in order(epochs=1, seed=1)]
    assert first != [task.indices.tolist() for task in sampler if task.epoch == 1]


def test_subsets_splits_and_repeats():
    sampler = order(plan=plan(subset=np.arange(100, 160), split=("train", 0.5), repeats=3), epochs=1)
    found = np.concatenate([task.indices for task in sampler])
    assert sorted(Counter(numbers_of(found).tolist()).values()) == [3] * 30
    assert sorted({*(found >> 32).tolist()}) == [0, 1, 2]
    assert numbers_of(found).min() >= 100
    for task in sampler:
        assert len({*OF_SAMPLES[numbers_of(task.indices)].tolist()}) == 1


@pytest.mark.parametrize("options", [{"weights": np.ones(180)}, {"max_samples": 50}])
def test_plans_that_do_not_keep_groups_are_refused(options):
    with pytest.raises(
        ArgumentError, match=f"{next(iter(options))} is given, and batches have samples of one group"
    ):
        order(plan=plan(**options))


def test_mixtures_refuse_groups():
    with pytest.raises(ArgumentError, match=r"sources\[1\] has batches of one group"):
        ConcatSampler([Sampler(5, 2), order()], 2)


@pytest.mark.parametrize("world", [1, 3])
def test_skipped_samples_and_steps(world):
    plain = steps(ranks(world))
    gone = [index for task in plain[4] for index in task.indices.tolist()]
    skips = Skips().added(Position(0, 0), gone[:2] if world == 1 else gone, [(0, 2)])
    samplers = [one.skipping(skips) for one in ranks(world)]
    again = [
        one.skipping(Skips.of_state("Test", json.loads(json.dumps(skips.state(one))), one))
        for one in ranks(world)
    ]
    found = steps(samplers)
    for before, after, resumed in zip(plain, found, steps(again), strict=True):
        for one, two, three in zip(before, after, resumed, strict=True):
            gone_now = gone[:2] if world == 1 else gone
            if len(after[0].indices):
                assert two.indices.tolist() == [
                    index for index in one.indices.tolist() if index not in gone_now
                ]
            assert np.array_equal(two.indices, three.indices)
    assert all(not len(task.indices) for task in found[2])
    # A batch that is empty on one rank is on all.
    assert all(len({bool(len(task.indices)) for task in step}) == 1 for step in found)
    state = skips.state(samplers[0])
    with pytest.raises(StateMismatchError, match="skips steps of batch_size"):
        Skips.of_state("Test", state, order(sizes=(4, 3, 7, 2, 6)))


def test_states_of_other_groups_differ():
    assert order().planned() != order(of_samples=np.roll(OF_SAMPLES, 1)).planned()
    # Batch sizes may change.
    assert order().planned() == order(sizes=(1, 2, 3, 4, 5)).planned()
    assert order().fingerprint() != order(sizes=(1, 2, 3, 4, 5)).fingerprint()
    for done in ([1, 0, 0, 0], [200, 0, 0, 0, 0], [1.0, 0, 0, 0, 0], [2, 0, 0, 0, 0], None):
        assert order().place_of({"done": done}, 0, 1) is None


def test_batches_before_a_state_of_other_sizes_are_refused():
    place = order(sizes=(1, 1, 1, 1, 1)).place_at(11)
    sampler = order()
    numbered = sampler.number_after(place)
    assert sampler.task_at(0, numbered, place).seq == numbered
    with pytest.raises(ArgumentError, match="lies between two batches"):
        sampler.task_at(0, numbered - 1, place)


def test_batch_counts_are_those_of_the_batches():
    for world in WORLDS:
        for drop_last in (False, True):
            sampler = order(sizes=(4, 3, 2, 2, 1), shard=(0, world), drop_last=drop_last)
            found = {len(task.indices) for task in sampler}
            assert sampler.batch_counts() == found


@pytest.mark.parametrize(
    ("of_samples", "sizes", "message"),
    [
        ([0, 2], (1, 1), "one number from 0 to 1"),
        ([-1], (1,), "one number from 0 to 0"),
        ([[0]], (1,), "have shape"),
        ([0], (), "number of groups is 0"),
        ([0], (0,), "batch size of a group is 0"),
    ],
)
def test_bad_groupings_are_refused(of_samples, sizes, message):
    with pytest.raises(ArgumentError, match=message):
        grouping("Test", np.array(of_samples), sizes)
