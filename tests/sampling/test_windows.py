"""WindowedSampler: shards at random, samples at random within windows of shards."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highway.errors import ArgumentError
from highway.sampling.sampler import Position
from highway.sampling.windows import WindowedSampler

SIZES = np.array([5, 0, 3, 8, 1, 4, 4, 7, 2])


def order(window=3, batch_size=4, sizes=SIZES, **options):
    return WindowedSampler(sizes, window, batch_size, **{"epochs": 2, **options})


def shards_of(indices, sizes=SIZES):
    return np.searchsorted(np.cumsum(sizes), indices, "right")


def whole_epoch(sampler, epoch=0):
    return np.concatenate([sampler.indices(epoch, seq) for seq in range(len(sampler))])


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    st.integers(1, 14),
    st.integers(1, 7),
    st.integers(0, 2**64 - 1),
)
def test_every_sample_comes_once(sizes, window, batch_size, seed):
    sampler = order(window, batch_size, np.array(sizes), seed=seed)
    for epoch in (0, 1):
        assert sorted(whole_epoch(sampler, epoch)) == list(range(sum(sizes)))


@pytest.mark.parametrize("window", [1, 2, 3, 9, 50])
def test_a_window_has_few_shards(window):
    sampler = order(window, 1)
    places = whole_epoch(sampler)
    shards = shards_of(places)
    _, turns, ends, _ = sampler._shards_of(0)
    begin = 0
    for first in range(0, len(SIZES), window):
        last = min(first + window, len(SIZES)) - 1
        inside = set(shards[begin : ends[last]].tolist())
        assert inside == {int(shard) for shard in turns[first : last + 1] if SIZES[shard]}
        begin = ends[last]


def test_epochs_seeds_and_windows_differ():
    sizes = np.full(20, 30)
    first = whole_epoch(order(4, 10, sizes))
    assert first.tolist() != whole_epoch(order(4, 10, sizes), 1).tolist()
    assert first.tolist() != whole_epoch(order(4, 10, sizes, seed=1)).tolist()
    assert first.tolist() != sorted(first)
    # Windows of one size do not have the same order inside.
    _, turns, _, _ = order(4, 10, sizes)._shards_of(0)
    place = {int(shard): turn for turn, shard in enumerate(turns)}
    places = [
        place[int(shard)] * 30 + int(sample) % 30
        for shard, sample in zip(shards_of(first, sizes), first, strict=True)
    ]
    inside = [[one % 120 for one in places[at : at + 120]] for at in (0, 120)]
    assert sorted(inside[0]) == sorted(inside[1]) == list(range(120))
    assert inside[0] != inside[1]


def test_shards_are_shuffled():
    sampler = order(sizes=np.full(20, 30))
    found = [sampler._shards_of(epoch).shards.tolist() for epoch in (0, 1, 0)]
    assert found[0] == found[2] != found[1]
    assert all(sorted(each) == list(range(20)) != each for each in found)


def test_one_window_of_all_shards_mixes_all():
    first = whole_epoch(order(len(SIZES), 1))
    assert len(set(shards_of(first[:12]))) > 4


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_ranks_share_an_epoch(world):
    ranks = [whole_epoch(order(shard=(rank, world))) for rank in range(world)]
    assert len({len(each) for each in ranks}) == 1
    found = np.concatenate(ranks)
    assert set(found.tolist()) == set(range(SIZES.sum()))
    assert len(found) - SIZES.sum() < world


@pytest.mark.parametrize("position", [0, 1, 13, 33])
@pytest.mark.parametrize(("batch_size", "world"), [(4, 1), (3, 2), (5, 3)])
def test_rest_of_an_epoch_in_other_batches(position, batch_size, world):
    all_places = whole_epoch(order(batch_size=1))
    ranks = [
        np.concatenate(
            [
                task.indices
                for task in order(batch_size=batch_size, shard=(rank, world), epochs=1).tasks_after(
                    Position(0, position)
                )
            ]
        )
        for rank in range(world)
    ]
    assert set(np.concatenate(ranks).tolist()) >= set(all_places[position:].tolist())
    if world == 1:
        assert ranks[0].tolist() == all_places[position:].tolist()


def test_without_shuffle_the_order_is_that_of_the_data():
    assert whole_epoch(order(shuffle=False)).tolist() == list(range(SIZES.sum()))


def test_another_shard_has_the_same_windows():
    sampler = order().of_shard((1, 2), "Test")
    assert isinstance(sampler, WindowedSampler)
    assert (sampler.window, sampler.rank, sampler.world) == (3, 1, 2)
    assert "window=3 of 9 shards" in repr(sampler)
    both = sampler, order(shard=(0, 2))
    assert both[0].fingerprint() == both[1].fingerprint() != order(window=4).fingerprint()


def test_window_is_checked():
    with pytest.raises(ArgumentError, match="window is 0; expected"):
        order(window=0)
