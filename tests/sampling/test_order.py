"""Sampler: every sample once an epoch, on any number of ranks, the same everywhere."""

import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import class_folders

from highway.errors import ArgumentError
from highway.modules import ImageFileReader, Noise
from highway.sampling.sampler import Sampler


def samples(order, epoch=0):
    return np.concatenate([order.indices(epoch, seq) for seq in range(len(order))]).tolist()


@given(
    size=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    world=st.sampled_from([1, 2, 3, 7]),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**32 - 1),
)
def test_every_sample_arrives(size, batch_size, world, shuffle, seed, epoch):
    orders = [
        Sampler(size, batch_size, shuffle=shuffle, seed=seed, shard=(rank, world)) for rank in range(world)
    ]
    shares = [samples(order, epoch) for order in orders]
    assert {len(order) for order in orders} == {-(-len(shares[0]) // batch_size)}
    assert {len(share) for share in shares} == {-(-size // world)}
    counts = Counter(itertools.chain(*shares))
    assert set(counts) == set(range(size))
    extra = sum(counts.values()) - size
    assert extra <= world - 1
    if size >= world:
        assert sum(count == 2 for count in counts.values()) == extra


@given(
    size=st.integers(1, 60),
    batch_size=st.integers(1, 6),
    world=st.sampled_from([1, 2, 3, 7]),
    shuffle=st.booleans(),
    seed=st.integers(0, 2**64 - 1),
)
def test_drop_last_leaves_out_and_repeats_nothing(size, batch_size, world, shuffle, seed):
    def make(rank):
        return Sampler(size, batch_size, shuffle=shuffle, seed=seed, shard=(rank, world), drop_last=True)

    if size // world < batch_size:
        with pytest.raises(ArgumentError, match="drop_last leaves nothing"):
            make(0)
        return
    orders = [make(rank) for rank in range(world)]
    batches = size // world // batch_size
    assert [len(order) for order in orders] == [batches] * world
    sizes = {len(order.indices(3, seq)) for order in orders for seq in range(batches)}
    assert sizes == {batch_size}
    counts = Counter(itertools.chain(*(samples(order, 3) for order in orders)))
    assert set(counts.values()) == {1}
    if (size // world) % batch_size == 0:
        assert size - len(counts) <= world - 1


def test_ranks_take_turns_at_the_permutation():
    whole = samples(Sampler(23, 5, seed=4), epoch=2)
    for world in (2, 3, 7):
        for rank in range(world):
            share = samples(Sampler(23, 5, seed=4, shard=(rank, world)), epoch=2)
            places = [(rank + i * world) % 23 for i in range(-(-23 // world))]
            assert share == [whole[place] for place in places]


def test_unshuffled_is_the_order_of_the_data():
    order = Sampler(7, 3, shuffle=False, epochs=2)
    assert [(task.epoch, task.seq, task.indices.tolist()) for task in order] == [
        (0, 0, [0, 1, 2]),
        (0, 1, [3, 4, 5]),
        (0, 2, [6]),
        (1, 0, [0, 1, 2]),
        (1, 1, [3, 4, 5]),
        (1, 2, [6]),
    ]
    assert order.indices(0, 2).dtype == np.int64


def test_epochs_and_seeds_differ():
    orders = {tuple(samples(Sampler(50, 7, seed=seed), epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25
    assert tuple(range(50)) not in orders


def test_the_batch_size_does_not_change_the_order():
    assert (
        samples(Sampler(50, 7, seed=1)) == samples(Sampler(50, 50, seed=1)) == samples(Sampler(50, 1, seed=1))
    )


def test_tasks_start_anywhere():
    order = Sampler(10, 4, seed=2, epochs=3)
    everything = [(task.epoch, task.seq, task.indices.tolist()) for task in order.tasks()]
    assert len(everything) == 9
    for start in range(12):
        rest = [(task.epoch, task.seq, task.indices.tolist()) for task in order.tasks(start)]
        assert rest == everything[start:]


@pytest.mark.parametrize("batch_size", [1, 100, 1500])
def test_tasks_are_what_their_numbers_say(batch_size):
    """Also where many are found at once, and where the epochs end in between."""
    order = Sampler(3001, batch_size, epochs=2, shard=(1, 2))
    tasks = list(order.tasks(len(order) // 3))
    assert len(tasks) == 2 * len(order) - len(order) // 3
    for epoch, seq, indices in tasks:
        np.testing.assert_array_equal(indices, order.indices(epoch, seq))


def test_without_epochs_there_is_no_end():
    order = Sampler(3, 2, epochs=None)
    epochs = [task.epoch for task in itertools.islice(order, 2001)]
    assert epochs[-1] == 1000
    far = next(order.tasks(2 * (2**32 - 1)))
    assert (far.epoch, far.seq) == (2**32 - 1, 0)


def test_no_epochs_is_no_batches():
    assert list(Sampler(3, 2, epochs=0)) == []


def test_a_place_costs_nothing_that_grows_with_the_data():
    order = Sampler(2**32, 64, seed=1)
    assert len(order) == 2**26
    last = order.indices(7, len(order) - 1)
    assert len(set(last.tolist())) == 64
    assert 0 <= last.min() <= last.max() < 2**32


def test_another_process_gives_the_same():
    code = (
        "from highway.sampling.sampler import Sampler; o = Sampler(1000, 64, seed=3, shard=(1, 3));"
        "print([o.indices(5, s).tolist() for s in range(len(o))])"
    )
    answers = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        for _ in range(2)
    }
    order = Sampler(1000, 64, seed=3, shard=(1, 3))
    assert answers == {f"{[order.indices(5, seq).tolist() for seq in range(len(order))]}\n"}


def test_the_order_is_the_same_in_every_version():
    """Positions in the data are saved and loaded: this sequence is a promise."""
    assert samples(Sampler(20, 20, seed=1), epoch=2) == [
        6,
        11,
        2,
        10,
        15,
        13,
        3,
        14,
        8,
        17,
        9,
        7,
        5,
        1,
        16,
        4,
        19,
        0,
        18,
        12,
    ]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"size": 0}, "size is 0; expected a whole number from 1 to 4294967296"),
        ({"size": 2**32 + 1}, "size is 4294967297"),
        ({"size": 2.0}, "size is 2.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": True}, "batch_size is True"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"seed": "a"}, "seed is 'a'"),
        ({"epochs": -1}, "epochs is -1"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"shard": (0, 0)}, r"shard\[1\] \(world\) is 0"),
        ({"shard": (2, 2)}, r"shard\[0\] \(rank\) is 2; expected a whole number from 0 to 1"),
        ({"shard": (-1, 2)}, r"shard\[0\] \(rank\) is -1"),
        ({"shard": 3}, r"shard is 3; expected \(rank, world\)"),
        ({"shard": (0, 1, 2)}, r"shard is \(0, 1, 2\)"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(ArgumentError, match=named):
        Sampler(**{"size": 10, "batch_size": 2, **arguments})


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"epochs": -1}, "epochs is -1"),
        ({"shard": 3}, "shard is 3"),
        ({"shard": (0, 0)}, r"shard\[1\] \(world\) is 0"),
        ({"shard": (2, 2)}, r"shard\[0\] \(rank\) is 2"),
        ({"batch_size": 10, "drop_last": True}, "drop_last leaves nothing"),
    ],
)
def test_errors_name_what_the_user_made(arguments, named, tmp_path):
    picture = tmp_path / "class" / "picture.jpg"
    picture.parent.mkdir()
    picture.write_bytes(b"")
    arguments = {"batch_size": 2, **arguments}
    with pytest.raises(ArgumentError, match=f"^ImageFileReader: {named}"):
        ImageFileReader(tmp_path, shape=(2, 2), **arguments)
    with pytest.raises(ArgumentError, match=f"^Noise: {named}"):
        Noise(shape=(2, 2), size=3, **arguments)
    with pytest.raises(ArgumentError, match=f"^Sampler: {named}"):
        Sampler(3, **arguments)


def test_batches_that_are_not_there():
    order = Sampler(10, 4, epochs=2)
    for epoch, seq, named in (
        (2, 0, "epoch is 2"),
        (-1, 0, "epoch is -1"),
        (0, 3, "seq is 3"),
        (0, -1, "seq is -1"),
    ):
        with pytest.raises(ArgumentError, match=named):
            order.indices(epoch, seq)
    with pytest.raises(ArgumentError, match="start is -1"):
        order.tasks(-1)


def test_repr_builds_it_again():
    order = Sampler(10, 4, shuffle=False, seed=3, epochs=2, shard=(1, 2), drop_last=True)
    assert [t.indices.tolist() for t in eval(repr(order))] == [t.indices.tolist() for t in order]


def test_fingerprint_tells_data_from_data_and_not_the_rank_or_the_epochs():
    arguments = {"size": 10, "batch_size": 4, "seed": 1}
    known = Sampler(**arguments).fingerprint(b"x", [b"a", b"bc"])
    for same in ({"epochs": 3}, {"shard": (0, 2)}, {"shard": (1, 2)}):
        assert Sampler(**{**arguments, **same}).fingerprint(b"x", [b"a", b"bc"]) == known
    for other in ({"size": 11}, {"batch_size": 5}, {"seed": 2}, {"shuffle": False}, {"drop_last": True}):
        assert Sampler(**{**arguments, **other}).fingerprint(b"x", [b"a", b"bc"]) != known
    for parts in ([b"x", [b"ab", b"c"]], [b"x", [b"a"], [b"bc"]], [b"y", [b"a", b"bc"]], [b"x"]):
        assert Sampler(**arguments).fingerprint(*parts) != known


def test_sources_tell_their_part_and_start_anywhere(tmp_path):
    folder = class_folders(tmp_path, classes=2, each=5, size=(8, 8))

    def noise(**arguments):
        return Noise(2, (2, 2), size=10, **arguments)

    def reader(**arguments):
        return ImageFileReader(folder, 2, (2, 2), **arguments)

    for make in (noise, reader):
        source = make(epochs=2, shard=(1, 3), seed=4)
        assert source.shard == (1, 3)
        every = [(task.epoch, task.seq, task.indices.tolist()) for task in source.tasks()]
        for start in range(len(every) + 1):
            found = [(task.epoch, task.seq, task.indices.tolist()) for task in source.tasks_from(start)]
            assert found == every[start:]
        assert source.fingerprint() == make(shard=(0, 3), seed=4).fingerprint()
        assert source.fingerprint() != make(seed=5).fingerprint()


def test_shard_may_be_an_array():
    order = Sampler(10, 2, shard=np.array([1, 2]))
    assert (order.rank, order.world) == (1, 2) and type(order.rank) is int
