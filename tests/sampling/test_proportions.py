"""Proportions of mixtures: within one sample in every window of the sum of the weights, on any number of ranks."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highway.errors import ArgumentError
from highway.sampling.proportions import MOST_PATTERN, Pattern, pattern_of

PARTS = st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any)


@given(parts=PARTS, turning=st.booleans(), begin=st.integers(0, 2**31))
def test_every_window_has_the_shares_to_within_one(parts, turning, begin):
    pattern = Pattern(parts, turning)
    length = pattern.length
    members, _ = pattern.at(np.arange(begin, begin + 12 * length, dtype=np.int64))
    hits = members[:, None] == np.arange(len(parts))
    sums = np.concatenate((np.zeros((1, len(parts)), int), np.cumsum(hits, axis=0)))
    apart = np.abs(sums[length:] - sums[:-length] - parts)
    assert apart.max() <= (1 if turning else 0)


@given(parts=PARTS, turning=st.booleans(), begin=st.integers(0, 2**31))
def test_ordinals_and_counts_agree(parts, turning, begin):
    pattern = Pattern(parts, turning)
    places = np.arange(begin, begin + 40, dtype=np.int64)
    members, ordinals = pattern.at(places)
    counts = [pattern.counts(int(place)) for place in places]
    for place, member, ordinal, before in zip(places.tolist(), members, ordinals, counts, strict=True):
        assert before[member] == ordinal
        assert before.sum() == place
        assert pattern.place_of(int(member), int(ordinal)) == place


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5, 7, 8, 10, 16, 25, 64])
@pytest.mark.parametrize("parts", [(1, 1), (3, 1, 1), (1, 3), (5, 2, 1), (7, 1)])
def test_every_rank_has_the_proportions_in_the_long_run(parts, world):
    pattern = Pattern(parts, turning=True)
    places = np.arange(20_000 * world, dtype=np.int64)
    members, _ = pattern.at(places)
    for rank in range(world):
        shares = np.bincount(members[rank::world], minlength=len(parts)) / 20_000
        np.testing.assert_allclose(shares, np.array(parts) / sum(parts), atol=0.003)


def parts_of(weights):
    return pattern_of("Mix", "weights", weights, len(weights), turning=True).parts.tolist()


def test_weights_become_whole_numbers():
    assert parts_of([3, 1, 1]) == parts_of([0.6, 0.2, 0.2]) == parts_of((6, 2, 2)) == [3, 1, 1]
    assert parts_of(np.array([0.1, 0.9])) == [1, 9]
    assert parts_of([0, 5]) == [0, 1]
    assert parts_of([30_000, 35_536]) == [1875, 2221]


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=6).filter(lambda weights: sum(weights) > 0.01))
def test_other_weights_are_rounded(weights):
    parts = parts_of(weights)
    assert sum(parts) <= MOST_PATTERN
    for part, weight in zip(parts, weights, strict=True):
        assert (part > 0) == (weight > 0)
        assert abs(part / sum(parts) - weight / sum(weights)) < 6 / 4096


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ([1, 2], "weights has 2 numbers; expected one for each of the 3 sources"),
        ([1, float("nan"), 1], r"weights\[1\] is nan; expected finite numbers of 0 or more"),
        ([1, float("inf"), 1], r"weights\[1\] is inf"),
        ([1, -1, 1], r"weights\[1\] is -1.0"),
        ([0, 0, 0], "weights sums to 0"),
        ("abc", "weights is 'abc'; expected one number for each of the 3 sources"),
        (3, "weights is 3"),
        ({0: 1, 1: 2, 2: 3}, "weights is {0: 1, 1: 2, 2: 3}; expected one number for each"),
        ({1, 2, 3}, "weights is {1, 2, 3}"),
    ],
)
def test_bad_weights(weights, named):
    with pytest.raises(ArgumentError, match=f"Mix: {named}"):
        pattern_of("Mix", "weights", weights, 3, turning=True)


def test_memory_does_not_depend_on_the_number_of_sources():
    tracemalloc.start()
    try:
        pattern = Pattern([60] * 1000, turning=True)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100 * pattern.length
    assert pattern.counts(60_000 * 3 + 1).sum() == 60_000 * 3 + 1
