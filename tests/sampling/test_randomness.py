"""SampleRandom: draws belong to samples, not to batches; their distributions; refused arguments."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highway._core import philox
from highway.errors import ArgumentError
from highway.sampling.rng import ORDER_POSITION, REPLACEMENT_POSITION, SampleRandom

MANY = 40_000


def many(position=1):
    return SampleRandom(5, 0, np.arange(MANY), position)


def raw(seed, epoch, position, index, first, count):
    out = np.empty((1, count), dtype=np.uint64)
    philox.draws(seed, epoch, position, np.array([index], dtype=np.uint32), first, out)
    return out[0]


@given(
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6),
)
def test_a_sample_draws_the_same_in_any_batch(seed, epoch, position, indices):
    def all_draws(indices):
        rng = SampleRandom(seed, epoch, indices, position)
        return [
            rng.uniform(),
            rng.integers(-3, 9),
            rng.bernoulli(0.3),
            rng.uniform(2, 3, size=3),
            rng.normal(),
            rng.normal(1, 2, size=(2, 2)),
            rng.uniform(),
        ]

    together = all_draws(indices)
    for row, index in enumerate(indices):
        for whole, alone in zip(together, all_draws([index]), strict=True):
            assert np.array_equal(whole[row], alone[0])


def test_nobody_changes_whose_draws_they_are():
    indices = np.array([7, 8], np.uint32)
    rng = SampleRandom(0, 0, indices, 0)
    indices[:] = 0
    for each in (rng, rng.at(1), rng.of([1])):
        assert each.indices[-1] == 8
        with pytest.raises(ValueError, match="read-only"):
            each.indices[0] = 1


def test_calls_take_consecutive_draws():
    rng = SampleRandom(3, 4, [6], 5)
    words = raw(3, 4, 5, 6, 0, 6)
    unit = (words >> np.uint64(11)) * 2.0**-53
    assert rng.uniform()[0] == unit[0]
    assert rng.uniform(size=2).tolist() == [unit[1:3].tolist()]
    assert rng.integers(0, 1000)[0] == int(words[3]) * 1000 >> 64
    assert rng.bernoulli(0.5)[0] == (unit[4] < 0.5)
    assert rng.uniform(10, 20)[0] == 10 + 10 * unit[5]


def test_every_part_of_the_identity_matters():
    base = SampleRandom(1, 2, [3], 4).uniform()
    others = [
        SampleRandom(2, 2, [3], 4),
        SampleRandom(1 + 2**32, 2, [3], 4),
        SampleRandom(1, 3, [3], 4),
        SampleRandom(1, 2, [4], 4),
        SampleRandom(1, 2, [3], 5),
    ]
    assert all(other.uniform() != base for other in others)
    assert SampleRandom(1, 2, [3], 4).uniform() == base


def test_shapes_and_dtypes():
    rng = SampleRandom(0, 0, [1, 2, 3], 1)
    assert (rng.uniform().shape, rng.uniform().dtype) == ((3,), np.float64)
    assert rng.uniform(size=2).shape == (3, 2)
    assert rng.uniform(size=(2, 4)).shape == (3, 2, 4)
    assert rng.uniform(size=()).shape == (3,)
    assert rng.uniform(size=0).shape == (3, 0)
    assert (rng.integers(0, 2).shape, rng.integers(0, 2).dtype) == ((3,), np.int64)
    assert (rng.bernoulli().shape, rng.bernoulli().dtype) == ((3,), np.bool_)
    assert (rng.normal(size=5).shape, rng.normal().dtype) == ((3, 5), np.float64)
    empty = SampleRandom(0, 0, np.array([], dtype=np.int64), 1)
    draws = (empty.uniform(), empty.integers(0, 2), empty.bernoulli(), empty.normal())
    assert [len(draw) for draw in draws] == [0] * 4


def test_bounds_for_each_sample():
    rng = SampleRandom(0, 0, np.arange(300), 1)
    low = np.arange(300) * 10
    whole = rng.integers(low, low + 3)
    assert set((whole - low).tolist()) == {0, 1, 2}
    real = rng.uniform(low, low + 1.0, size=4)
    assert np.array_equal(np.floor(real), np.repeat(low, 4).reshape(300, 4))
    assert rng.bernoulli(np.arange(300) % 2).tolist() == [bool(i % 2) for i in range(300)]
    normal = rng.normal(low, 0.0, size=2)
    assert np.array_equal(normal, np.repeat(low, 2).reshape(300, 2))


def test_uniform_is_uniform():
    values = many().uniform(-2, 6)
    assert -2 <= values.min() < -1.99
    assert 5.99 < values.max() < 6
    counts, _ = np.histogram(values, 64, (-2, 6))
    expected = MANY / 64
    # 63 degrees of freedom: 120 is a 1 in 50 000 event.
    assert ((counts - expected) ** 2 / expected).sum() < 120


def test_integers_are_uniform():
    values = many().integers(-3, 61)
    counts = np.bincount(values + 3, minlength=64)
    assert len(counts) == 64
    expected = MANY / 64
    assert ((counts - expected) ** 2 / expected).sum() < 120


def test_integers_over_everything():
    rng = many()
    values = rng.integers(-(2**63), 2**63 - 1)
    assert values.min() < -(2**62)
    assert values.max() > 2**62
    assert rng.integers(2**63 - 2, 2**63 - 1).tolist() == [2**63 - 2] * MANY


def test_bernoulli_frequency():
    rng = many()
    assert not rng.bernoulli(0).any()
    assert rng.bernoulli(1).all()
    for p in (0.1, 0.5, 0.9):
        # 4.5 standard deviations.
        assert abs(rng.bernoulli(p).mean() - p) < 4.5 * np.sqrt(p * (1 - p) / MANY)


def test_normal_moments():
    values = many().normal(3, 2)
    assert abs(values.mean() - 3) < 4.5 * 2 / np.sqrt(MANY)
    assert abs(values.std() - 2) < 4.5 * 2 / np.sqrt(2 * MANY)
    assert abs(((values - 3) ** 3).mean()) < 4.5 * 8 * np.sqrt(15 / MANY)
    assert abs((np.abs(values - 3) < 2).mean() - 0.6827) < 0.0115


def test_positions_and_neighbors_are_independent():
    columns = np.stack([many(position).uniform() for position in (0, 1, 2)] + [many(0).uniform(size=2)[:, 1]])
    correlation = np.corrcoef(np.concatenate([columns, columns[:, ::-1], np.roll(columns, 1, axis=1)]))
    assert np.abs(correlation - np.eye(12)).max() < 4.8 / np.sqrt(MANY)


def test_reserved_positions_are_the_highest():
    assert (ORDER_POSITION, REPLACEMENT_POSITION) == (2**32 - 1, 2**32 - 2)
    SampleRandom(0, 0, [0], ORDER_POSITION).uniform()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((-1, 0, [0], 0), "seed is -1; expected a whole number from 0 to 18446744073709551615"),
        ((2**64, 0, [0], 0), "seed is 18446744073709551616"),
        ((0.5, 0, [0], 0), "seed is 0.5"),
        ((True, 0, [0], 0), "seed is True"),
        ((0, 2**32, [0], 0), "epoch is 4294967296"),
        ((0, -1, [0], 0), "epoch is -1"),
        ((0, 0, [0], 2**32), "position is 4294967296"),
        ((0, 0, np.array([0, 2**63], np.uint64), 0), "indices run from 0 to 9223372036854775808"),
        ((0, 0, [-1, 3], 0), "indices run from -1 to 3"),
        ((0, 0, [0.5], 0), "dtype float64"),
        ((0, 0, 3, 0), r"shape \(\)"),
        ((0, 0, [[1, 2]], 0), r"shape \(1, 2\)"),
    ],
)
def test_identities_out_of_range(arguments, named):
    with pytest.raises(ArgumentError, match=named):
        SampleRandom(*arguments)


def test_arguments_of_draws_out_of_range():
    rng = SampleRandom(0, 0, [1, 2, 3], 1)
    wrong = [
        (lambda: rng.integers(3, 3), "low 3 and high 3 .sample 0"),
        (lambda: rng.integers(0, [1, 0, 1]), "low 0 and high 0 .sample 1"),
        (lambda: rng.integers(0.0, 3), "low is 0.0"),
        (lambda: rng.integers(0, [1, 2]), "one for each of the 3 samples"),
        (lambda: rng.integers(0, 2**63), r"at most 2\*\*63 - 1"),
        (lambda: rng.bernoulli(1.5), "p is 1.5"),
        (lambda: rng.bernoulli([0, 1, -0.1]), "p is"),
        (lambda: rng.bernoulli(float("nan")), "p is nan"),
        (lambda: rng.uniform([1, 2]), r"low has shape \(2,\)"),
        (lambda: rng.uniform(size=-1), "size is -1"),
        (lambda: rng.normal(size=(2, 0.5)), "size is 0.5"),
        (lambda: rng.normal(scale=np.ones((3, 1))), "scale has shape"),
    ]
    before = rng.uniform()
    for call, named in wrong:
        with pytest.raises(ArgumentError, match=named):
            call()
    assert not np.array_equal(before, rng.uniform())


def test_draws_run_out_instead_of_repeating():
    rng = SampleRandom(0, 0, np.array([], dtype=np.int64), 1)
    rng.uniform(size=2**33)
    with pytest.raises(ArgumentError, match="8589934593 draws per sample"):
        rng.uniform()


def test_repr():
    assert repr(SampleRandom(1, 2, [3, 4], 5)) == "<SampleRandom of 2 samples: seed 1, epoch 2, position 5>"


def test_the_same_samples_at_another_position():
    rng = SampleRandom(3, 5, [4, 7, 1], 0)
    rng.uniform()
    for position, seed in ((0, None), (2, None), (2, 9)):
        expected = SampleRandom(3 if seed is None else seed, 5, [4, 7, 1], position)
        np.testing.assert_array_equal(rng.at(position, seed).uniform(size=3), expected.uniform(size=3))
    with pytest.raises(ArgumentError, match="position"):
        rng.at(-1)
    with pytest.raises(ArgumentError, match="seed"):
        rng.at(0, 2**64)
