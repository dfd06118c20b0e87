"""Schedules of batch sizes: which values they take, and that every epoch has exactly its samples in its batches."""

import copy
import pickle

import numpy as np
import pytest

from highway.errors import ArgumentError, StateMismatchError
from highway.sampling import Schedule, schedule
from highway.sampling.mixture import MixSampler
from highway.sampling.numbering import Numbering
from highway.sampling.plan import Data, Plan
from highway.sampling.sampler import Position, Sampler
from highway.sampling.skips import Skips
from highway.sampling.windows import WindowedSampler

EPOCHS = 6
SCHEDULES = [
    schedule({0: 4, 1: 7, 3: 2}),
    schedule({0: 64, 2: 1}),
    schedule({0: 3, 4: 5}),
    schedule({0: 6}),
]


def samples(order, epoch):
    return np.concatenate([order.indices(epoch, seq) for seq in range(order.batches_in(epoch))]).tolist()


def orders(size, batch_size, world, **options):
    return [
        Sampler(size, batch_size, shard=(rank, world), epochs=EPOCHS, seed=3, **options)
        for rank in range(world)
    ]


def test_a_value_holds_until_the_next_one():
    sizes = schedule({0: 128, 30: [160, 192], 60: np.int64(224)})
    assert [sizes.at(epoch) for epoch in (0, 29, 30, 59, 60, 2**32 - 1)] == [
        *(128, 128),
        *((160, 192), (160, 192)),
        *(224, 224),
    ]
    assert dict(sizes.values) == {0: 128, 30: (160, 192), 60: 224}
    assert not sizes.constant
    assert repr(sizes) == "schedule({0: 128, 30: (160, 192), 60: 224})"
    assert eval(repr(sizes)) == sizes


def test_schedules_are_values():
    sizes = schedule({30: 64, 0: 32})
    same = schedule({0: 32, 10: 32, 30: 64})
    assert isinstance(sizes, Schedule)
    assert sizes == same and hash(sizes) == hash(same)
    assert sizes != schedule({0: 32, 31: 64}) and sizes != 32
    assert pickle.loads(pickle.dumps(sizes)) == copy.deepcopy(sizes) == sizes
    assert schedule({0: 8, 5: 8}).constant
    with pytest.raises(AttributeError):
        sizes.epochs = (0,)
    with pytest.raises(TypeError):
        sizes.values[0] = 1


@pytest.mark.parametrize(
    "values, match",
    [
        ({}, "values is empty; expected a value for epoch 0"),
        ({1: 32}, "the first epoch is 1; expected a value for epoch 0"),
        ({-1: 32, 0: 32}, "epoch is -1; expected a whole number from 0 to 4294967295"),
        ({0: 32, 2**32: 32}, "epoch is 4294967296"),
        ({0: 32, 1.5: 32}, "epoch is 1.5"),
        ({0: 32, True: 32}, "epoch is True"),
        ({0: 32, 3: 0}, "value of epoch 3 is 0; expected a whole number of 1 or more"),
        ({0: 32, 3: 1.5}, "value of epoch 3 is 1.5"),
        ({0: (1, 2, 3)}, r"value of epoch 0 is \(1, 2, 3\); expected a whole number, or a pair of them"),
        ({0: (1, "2")}, "value of epoch 0 is '2'"),
        ([(0, 32)], "values is .*; expected a dict of epochs"),
        (32, "values is 32; expected a dict of epochs"),
    ],
)
def test_bad_schedules_are_refused(values, match):
    with pytest.raises(ArgumentError, match=f"schedule: {match}"):
        schedule(values)


def test_numbers_of_batches_go_both_ways():
    for counts in SCHEDULES:
        numbering = Numbering(counts)
        number = 0
        for epoch in range(EPOCHS):
            assert numbering.batches_in(epoch) == counts.at(epoch)
            for seq in range(counts.at(epoch)):
                assert numbering.number_of(epoch, seq) == number
                assert numbering.at(number) == (epoch, seq)
                number += 1
    # Far away, without a walk through the epochs.
    far = Numbering(schedule({0: 10, 2**31: 3}))
    assert far.at(10 * 2**31 + 3 * 2**30 + 1) == (2**31 + 2**30, 1)
    assert far.number_of(2**31 + 2**30, 1) == 10 * 2**31 + 3 * 2**30 + 1


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("drop_last", [False, True])
def test_every_epoch_has_its_samples_in_batches_of_its_size(world, drop_last):
    for size, sizes in ((50, SCHEDULES[0]), (53, SCHEDULES[2]), (44, SCHEDULES[3])):
        ranks = orders(size, sizes, world, drop_last=drop_last)
        constant = {each: orders(size, each, world, drop_last=drop_last) for each in sizes.stages}
        for epoch in range(EPOCHS):
            # As with this batch size all the time.
            for order, alone in zip(ranks, constant[sizes.at(epoch)], strict=True):
                assert order.batches_in(epoch) == len(alone)
                for seq in range(len(alone)):
                    assert order.indices(epoch, seq).tolist() == alone.indices(epoch, seq).tolist()
            found = sorted(index for order in ranks for index in samples(order, epoch))
            if drop_last:
                assert len({*found}) == len(found) == ranks[0].batches_in(epoch) * sizes.at(epoch) * world
            else:
                assert sorted({*found}) == [*range(size)] and len(found) < size + world


def test_tasks_go_through_all_epochs_from_any_number():
    for sizes in SCHEDULES:
        (order,) = orders(31, sizes, 1)
        tasks = [*order]
        assert len(tasks) == order.numbering.number_of(EPOCHS)
        for number in range(0, len(tasks), 5):
            rest = [*order.tasks(number)]
            assert [task[:2] for task in rest] == [task[:2] for task in tasks[number:]]
            assert rest[0].indices.tolist() == tasks[number].indices.tolist()
            assert order.task_at(*rest[0][:2]).indices.tolist() == rest[0].indices.tolist()


def test_a_training_resumes_with_another_schedule_and_world():
    random = np.random.default_rng(5)
    for _ in range(100):
        size = int(random.integers(20, 80))
        before, after = (SCHEDULES[number] for number in random.integers(0, len(SCHEDULES), 2))
        worlds = random.choice([1, 2, 3, 7], 2).tolist()
        first, rest = (
            orders(size, sizes, world) for sizes, world in zip((before, after), worlds, strict=True)
        )
        total = first[0].numbering.number_of(EPOCHS)
        done = int(random.integers(0, total))
        epoch, seq = first[0].numbering.at(done)
        place = first[0].place_at(done)
        seen = [
            index for order in first for each in range(seq) for index in order.indices(epoch, each).tolist()
        ]
        tasks = [[*order.tasks_after(place)] for order in rest]
        # The same batches everywhere: numbers, sizes but for a shorter last one, and ends.
        assert len({tuple(task[:2] for task in each) for each in tasks}) == 1
        number = rest[0].number_after(place)
        assert [rest[0].numbering.number_of(*task[:2]) for task in tasks[0]] == [
            *range(number, rest[0].numbering.number_of(EPOCHS))
        ]
        for step in zip(*tasks, strict=True):
            assert len({len(task.indices) for task in step}) == 1
            assert len(step[0].indices) <= after.at(step[0].epoch)
        # The rest of the epoch has exactly the samples that were not seen; at its end some come twice.
        left = [
            index for each in tasks for task in each if task.epoch == epoch for index in task.indices.tolist()
        ]
        assert {*seen} | {*left} == {*range(size)}
        assert size <= len(seen) + len(left) < size + worlds[0] + worlds[1]
        if len(tasks[0]) > 1:
            # And again, as often as one likes, with what was begun.
            again = rest[0].place_at(number + 1, place)
            follower = next(rest[0].tasks_after(again))
            assert follower.indices.tolist() == tasks[0][1].indices.tolist()
            task = rest[0].task_at(*tasks[0][1][:2], place)
            assert task.indices.tolist() == tasks[0][1].indices.tolist()


def test_the_last_position_of_all():
    (order,) = orders(50, SCHEDULES[0], 1)
    total = order.numbering.number_of(EPOCHS)
    assert order.place_at(total) == Position(EPOCHS, 0)
    assert [*order.tasks_after(Position(EPOCHS, 0))] == []


def test_drop_last_that_leaves_an_epoch_without_batches():
    with pytest.raises(
        ArgumentError, match=r"leaves nothing of size 50 in epoch 30: a rank of 2 .* batch_size is 26"
    ):
        Sampler(50, schedule({0: 4, 30: 26, 60: 8}), drop_last=True, shard=(0, 2))
    assert len(Sampler(50, schedule({0: 4, 30: 25}), drop_last=True, shard=(0, 2))) == 6


@pytest.mark.parametrize("bad", [schedule({0: 4, 2: (3, 3)}), {0: 4}, schedule({0: 2**32 + 1})])
def test_a_batch_size_is_a_number_in_every_epoch(bad):
    with pytest.raises(ArgumentError, match="Sampler: batch_size is"):
        Sampler(50, bad)


def test_a_schedule_of_one_size_is_that_size():
    one, other = Sampler(50, schedule({0: 4, 9: 4})), Sampler(50, 4)
    assert one.batch_size == 4 and one.fingerprint() == other.fingerprint()
    assert Sampler(50, SCHEDULES[0]).fingerprint() != other.fingerprint()


def test_how_many_samples_are_read_in_all_epochs():
    order = Sampler(50, schedule({0: 20, 5: 49}), shuffle=False, drop_last=True)
    assert order.reached() == 49


def test_windows_plans_and_skips_hold_in_every_epoch():
    sizes = schedule({0: 4, 2: 9})
    windowed = WindowedSampler(np.array([20, 13, 17]), 2, sizes, epochs=4, seed=1)
    planned = Sampler(50, sizes, epochs=4, plan=Plan(Data("Test", 50, None), repeats=2))
    for order, expected in ((windowed, [*range(50)]), (planned, sorted([*range(50)] * 2))):
        other = order.of_shard((0, 1))
        for epoch in range(4):
            numbers = [index % 2**32 for index in samples(order, epoch)]
            assert sorted(numbers) == expected
            assert samples(other, epoch) == samples(order, epoch)


def test_skipped_steps_belong_to_a_schedule():
    sizes = schedule({0: 4, 2: 10})
    order = Sampler(50, sizes, epochs=4)
    skips = Skips().added(Position(0, 0), [7], [(0, 12), (2, 4)])
    state = skips.state(order)
    assert state["batch_size"] == [[0, 4], [2, 10]]
    skipping = order.skipping(Skips.of_state("Test", state, order))
    for epoch, seq in ((0, 12), (2, 4)):
        assert not len(skipping.task_at(epoch, seq).indices)
    kept = [index for task in skipping for index in task.indices.tolist()]
    assert 7 not in kept and len(kept) == 4 * 49 - sum(
        len({*order.indices(epoch, seq).tolist()} - {7}) for epoch, seq in ((0, 12), (2, 4))
    )
    with pytest.raises(StateMismatchError, match=r"skips steps of batch_size=\[\[0, 4\], \[2, 10\]\]"):
        Skips.of_state("Test", state, Sampler(50, 4, epochs=4))
    # Epoch 2 has 5 batches, although epoch 0 has 13.
    state["steps"].append([2, 5, 5])
    with pytest.raises(StateMismatchError, match="the skipped steps of the state are not valid here"):
        Skips.of_state("Test", state, order)


@pytest.mark.parametrize("exact", ["stream", "batch"])
def test_mixtures_have_exact_parts_in_every_epoch(exact):
    members = [Sampler(60, 8), Sampler(40, 8, seed=1)]
    sizes = schedule({0: 4, 1: 8, 3: 12})
    for world in (1, 2, 3):
        ranks = [
            MixSampler(members, (3, 1), "first", exact, sizes, epochs=4, shard=(rank, world))
            for rank in range(world)
        ]
        alone = {
            each: [
                MixSampler(members, (3, 1), "first", exact, each, epochs=4, shard=(rank, world))
                for rank in range(world)
            ]
            for each in sizes.stages
        }
        for epoch in range(4):
            for order, other in zip(ranks, alone[sizes.at(epoch)], strict=True):
                assert samples(order, epoch) == samples(other, epoch)
    with pytest.raises(ArgumentError, match="does not divide batch_size 10"):
        MixSampler(members, (3, 1), "first", "batch", schedule({0: 4, 1: 10}))
