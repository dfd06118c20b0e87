"""Weights: how often samples are drawn, the same for any number of ranks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highway.errors import ArgumentError
from highway.modules import ArrayReader
from highway.sampling.identity import numbers_of
from highway.sampling.plan import Data, Plan
from highway.sampling.sampler import Sampler
from highway.sampling.weights import alias_table, draw


class Labels:
    def __init__(self, labels):
        self._labels = labels

    def known_keys(self):
        return None

    def known_labels(self):
        return self._labels

    def unlabeled(self):
        return ()


def plan(weights, labels=None, size=10, **options):
    size = size if labels is None else len(labels)
    return Plan(Data("Reader", size, Labels(labels)), weights=weights, **options)


def probabilities(table):
    """Probability of each sample, which a table has exactly."""
    found = table.kept.copy()
    np.add.at(found, table.alias, 1 - table.kept)
    return found / len(found)


@given(
    st.lists(
        st.one_of(st.just(0.0), st.floats(1e-6, 1e6), st.sampled_from([1.0, 1.0, 3.0])),
        min_size=1,
        max_size=60,
    ).filter(any)
)
def test_table_has_the_weights(given):
    weights = np.array(given)
    table = alias_table(weights)
    assert ((table.kept >= 0) & (table.kept <= 1)).all()
    np.testing.assert_allclose(probabilities(table), weights / weights.sum(), rtol=1e-9, atol=1e-13)
    # What has no weight is never drawn.
    assert not table.kept[weights == 0].any()
    assert not np.isin(np.flatnonzero(weights == 0), table.alias[table.kept < 1]).any()


def test_table_of_many_and_of_extreme_weights():
    rng = np.random.default_rng(5)
    weights = rng.pareto(1.1, 300_000)
    np.testing.assert_allclose(probabilities(alias_table(weights)), weights / weights.sum(), rtol=1e-6)
    np.testing.assert_allclose(probabilities(alias_table(np.array([1e308, 1e308, 0]))), [0.5, 0.5, 0])


def test_million_draws_follow_the_weights():
    weights = np.random.default_rng(1).random(500) ** 3
    weights[::7] = 0
    count = 1_000_000
    found = draw(alias_table(weights), 11, 3, np.arange(count, dtype=np.int64))
    counts = np.bincount(found, minlength=500)
    expected = weights / weights.sum() * count
    some = expected > 0
    assert not counts[~some].any()
    chi_square = ((counts[some] - expected[some]) ** 2 / expected[some]).sum()
    # With 427 degrees of freedom: 5 standard deviations about the mean.
    degrees = some.sum() - 1
    assert abs(chi_square - degrees) < 5 * np.sqrt(2 * degrees)


def test_neighboring_draws_are_independent():
    found = draw(alias_table(np.array([1.0, 1.0, 2.0])), 0, 0, np.arange(400_000, dtype=np.int64))
    pairs = np.bincount(found[:-1] * 3 + found[1:], minlength=9)
    expected = np.outer([0.25, 0.25, 0.5], [0.25, 0.25, 0.5]).ravel() * 399_999
    assert ((pairs - expected) ** 2 / expected).sum() < 40


def test_balanced_is_exact_in_expectation():
    labels = np.repeat([3, 9, 5], [1, 890, 109])
    of_all = probabilities(plan("balanced", labels).weights.at(0).table)
    for label in (3, 9, 5):
        assert of_all[labels == label].sum() == pytest.approx(1 / 3, rel=1e-9)
    subset = np.flatnonzero(labels != 5)
    of_some = probabilities(plan("balanced", labels, subset=subset).weights.at(0).table)
    assert of_some[labels[subset] == 3].sum() == pytest.approx(1 / 2, rel=1e-9)


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_balanced_on_every_rank(world):
    labels = np.repeat([0, 1], [9000, 1000])
    order = plan("balanced", labels)
    whole = Sampler(10_000, 100, seed=2, plan=order)
    places = np.concatenate([whole.indices(0, seq) for seq in range(len(whole))])
    for rank in range(world):
        mine = Sampler(10_000, 100, seed=2, plan=order, shard=(rank, world))
        found = np.concatenate([mine.indices(0, seq) for seq in range(len(mine))])
        turns = (np.arange(len(found)) * world + rank) % 10_000
        assert found.tolist() == places[turns].tolist()
        # 5 standard deviations of a fair coin.
        assert abs(labels[numbers_of(found)].mean() - 0.5) < 2.5 / np.sqrt(len(found))


def test_every_draw_of_an_epoch_has_its_own_index():
    order = Sampler(10, 4, plan=plan([1] + [0] * 9))
    found = np.concatenate([order.indices(0, seq) for seq in range(len(order))])
    assert len(np.unique(found)) == 10
    assert not numbers_of(found).any()


def test_weights_of_an_epoch():
    asked = []

    def weights(epoch):
        asked.append(epoch)
        return np.eye(10)[epoch]

    order = Sampler(10, 4, plan=plan(weights))
    for epoch in (0, 1, 0, 7, 1, 7, 2):
        assert set(numbers_of(order.indices(epoch, 1)).tolist()) == {epoch}
    assert asked == [0, 1, 7, 2]


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ([1, 2, float("nan")], r"weights\[2\] is nan; expected finite numbers of 0 or more"),
        ([1, -2, 1], r"weights\[1\] is -2.0"),
        ([1, float("inf"), 1], r"weights\[1\] is inf"),
        ([0, 0, 0], "weights sums to 0; expected a positive weight"),
        ([1, 2], r"weights has shape \(2,\); expected one number for each of the 3 samples"),
        ([[1], [2], [3]], r"weights has shape \(3, 1\)"),
        ("even", "weights is 'even'; expected 'balanced'"),
        (["a", "b", "c"], "weights is of type list"),
        ({"a": 1}, "weights is of type dict"),
        (lambda epoch: [1, 2], r"weights\(0\) has shape \(2,\)"),
    ],
)
def test_bad_weights(weights, named):
    with pytest.raises(ArgumentError, match=f"Reader: {named}"):
        plan(weights, np.arange(3))


def test_weights_of_the_chosen_samples_sum_to_nothing():
    with pytest.raises(ArgumentError, match="weights sums to 0 over the 2 chosen samples"):
        plan([1, 0, 0], np.arange(3), subset=[1, 2])


def test_samples_that_an_epoch_may_have():
    chosen = [1, 3, 4, 8]
    weights = np.array([5, 0, 5, 2, 1e-3, 5, 5, 5, 0, 5])
    options = {"subset": chosen, "weights": weights}
    order = Sampler(10, 3, plan=Plan(Data("R", 10, None), **options))
    assert order.candidates(0).tolist() == [3, 4]
    assert order.reached() == 2
    options["weights"] = lambda epoch: weights if epoch else np.ones(10)
    order = Sampler(10, 3, plan=Plan(Data("R", 10, None), **options))
    assert [order.candidates(epoch).tolist() for epoch in (0, 1)] == [chosen, [3, 4]]
    assert order.reached() == 4
    assert Sampler(10, 3).candidates(0) is None


@given(st.lists(st.sampled_from([0.0, 1e-300, 0.5, 1.0, 1e300]), min_size=1, max_size=8).filter(any))
def test_what_a_table_may_give(weights):
    table = alias_table(np.array(weights))
    drawn = draw(table, 3, 0, np.arange(2000))
    assert table.possible()[drawn].all()
    assert not table.possible()[np.array(weights) == 0].any()


def test_bad_weights_of_a_later_epoch():
    order = Sampler(3, 1, plan=plan(lambda epoch: [1, 1, 1 - epoch], np.arange(3)))
    order.indices(1, 0)
    with pytest.raises(ArgumentError, match=r"Reader: weights\(2\)\[2\] is -1.0"):
        order.indices(2, 0)


def test_balanced_needs_labels():
    with pytest.raises(ArgumentError, match="weights='balanced' needs one label for each sample"):
        plan("balanced")
    with pytest.raises(ArgumentError, match="ArrayReader: weights='balanced' needs one label"):
        ArrayReader(np.zeros((5, 1)), None, 2, weights="balanced")


def test_draws_have_no_order():
    with pytest.raises(ArgumentError, match="weights is given with shuffle=False"):
        plan([1] * 10, shuffle=False)
