"""Subsets and splits: which samples they choose, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highway.errors import ArgumentError
from highway.modules import ArrayReader
from highway.sampling.plan import Data, Plan
from highway.sampling.weights import draw

LABELS = np.repeat([4, 0, 7], [50, 30, 20])


class Source:
    """Keys and labels of 100 samples."""

    def __init__(self, keys=True, labels=LABELS, unlabeled=()):
        self._keys, self._labels, self._unlabeled = keys, labels, unlabeled

    def known_keys(self):
        return [f"{index}.jpg" for index in range(100)] if self._keys else None

    def known_labels(self):
        return self._labels

    def unlabeled(self):
        return self._unlabeled


def chosen(source=None, size=100, **options):
    found = Plan(Data("Reader", size, source or Source()), **options).chosen
    return None if found is None else found.tolist()


def test_no_choice_is_the_default():
    assert chosen() is None
    assert Plan(Data("Reader", 100, Source())).is_default
    assert Plan(Data("Reader", 100, Source()), max_samples=100, repeats=1).is_default


@pytest.mark.parametrize("kind", [list, tuple, np.array, iter, lambda rows: np.array(rows, np.uint8)])
def test_indices_keep_their_order(kind):
    assert chosen(subset=kind([9, 3, 99, 0])) == [9, 3, 99, 0]
    assert chosen(subset=range(5, 1, -1)) == [5, 4, 3, 2]


def test_mask():
    mask = LABELS == 7
    assert chosen(subset=mask) == chosen(subset=mask.tolist()) == [*range(80, 100)]


def test_predicate_gets_key_and_label():
    assert chosen(subset=lambda key, label: key.startswith("4") and label == 4) == [4, *range(40, 50)]
    assert chosen(Source(keys=False), subset=lambda key, label: key == 3 and type(label) is int) == [3]
    assert chosen(Source(labels=None), subset=lambda key, label: label is None and key == "8.jpg") == [8]


@pytest.mark.parametrize(
    ("subset", "named"),
    [
        ([], "subset has no sample"),
        (np.zeros(100, bool), "subset has no sample"),
        (lambda key, label: False, "subset returned a false value for each of the 100 samples"),
        ([3, 100], r"subset\[1\] is 100; expected indices from 0 to 99"),
        ([-1], r"subset\[0\] is -1"),
        ([5, 3, 5], "subset has the index 5 twice"),
        ([True] * 99, "subset has 99 bools; expected 100"),
        ([1.0, 2.0], "subset is an array of float64"),
        ([[1], [2]], r"subset is an array of int64 and shape \(2, 1\)"),
        ("train", "subset is an array of <U1"),
        (3, "subset is of type int; expected indices of samples"),
    ],
)
def test_bad_subsets(subset, named):
    with pytest.raises(ArgumentError, match=f"Reader: {named}"):
        chosen(subset=subset)


FRACTIONS = {"train": 0.7, "validation": 0.2, "test": 0.1}


@given(
    size=st.integers(4, 300),
    fraction=st.floats(0.5, 0.75),
    seed=st.integers(0, 2**64 - 1),
    stratify=st.booleans(),
    subset=st.booleans(),
)
def test_train_and_validation_cover_and_never_overlap(size, fraction, seed, stratify, subset):
    source = Source(labels=np.arange(size) % 3 // 2)
    whole = [*range(0, size, 2)] if subset and size > 40 else [*range(size)]
    options = {"split_seed": seed, "stratify": stratify and size > 40, "subset": whole}
    parts = [chosen(source, size, split=(name, fraction), **options) for name in ("train", "validation")]
    assert sorted(parts[0] + parts[1]) == whole
    assert parts == [sorted(part) for part in parts]
    assert abs(len(parts[0]) - fraction * len(whole)) <= 1


def test_parts_by_name_and_by_label():
    parts = {name: chosen(split=(name, FRACTIONS), stratify=True, split_seed=3) for name in FRACTIONS}
    assert sorted(index for part in parts.values() for index in part) == [*range(100)]
    counts = {
        name: np.bincount(LABELS[part], minlength=8)[[4, 0, 7]].tolist() for name, part in parts.items()
    }
    assert counts == {"train": [35, 21, 14], "validation": [10, 6, 4], "test": [5, 3, 2]}


def test_the_order_of_the_names_does_not_matter():
    """Else two readers that write the same fractions in another order would share samples."""
    other = dict(reversed(FRACTIONS.items()))
    for name in FRACTIONS:
        assert chosen(split=(name, FRACTIONS)) == chosen(split=(name, other))
    assert chosen(split=("train", 0.9)) == chosen(split=("train", {"validation": 0.1, "train": 0.9}))


def test_labels_of_several_numbers_are_classes():
    rows = np.eye(4, dtype=np.float32)[np.arange(100) % 4]
    part = chosen(Source(labels=rows), split=("validation", 0.8), stratify=True)
    assert rows[part].sum(axis=0).tolist() == [5, 5, 5, 5]


@pytest.mark.parametrize("how", [{"weights": "balanced"}, {"split": ("train", 0.5), "stratify": True}])
@pytest.mark.parametrize("kind", ["null", "NaN"])
def test_samples_without_a_label_belong_to_no_class(how, kind):
    """Labels of nulls are numbers too: they must not count as a class."""
    labels = (np.arange(100) % 2).astype(np.float32)
    if kind == "NaN":
        labels[[30, 70]] = np.nan
    source = Source(labels=labels, unlabeled=[70, 30] if kind == "null" else [])
    wanted = "weights='balanced'" if "weights" in how else "stratify=True"
    with pytest.raises(
        ArgumentError, match=f"Reader: {wanted} needs a label for each sample, and 2 have none, .* sample 30"
    ):
        Plan(Data("Reader", 100, source), **how)
    labeled = [index for index in range(100) if index not in (30, 70)]
    plan = Plan(Data("Reader", 100, source), subset=labeled, **how)
    if plan.weights is None:
        assert np.bincount(np.array(plan.chosen) % 2).tolist() == [24, 25]
    else:
        # 48 even and 50 odd ones.
        drawn = plan.weights.at(0).table
        numbers = np.array(labeled)[draw(drawn, 0, 0, np.arange(20_000))]
        assert abs((numbers % 2).mean() - 0.5) < 0.02


def test_split_is_random_and_fixed_by_its_seed():
    first = chosen(split=("train", 0.5), split_seed=1)
    assert first == chosen(split=("train", 0.5), split_seed=1)
    assert first != chosen(split=("train", 0.5), split_seed=2)
    # About half of either half.
    assert 15 <= sum(index < 50 for index in first) <= 35


def test_two_readers_share_nothing():
    values = np.arange(40)
    readers = [
        ArrayReader(values[:, None], values % 4, 8, split=(name, 0.75), stratify=True, seed=seed)
        for seed, name in enumerate(("train", "validation"))
    ]
    seen = [np.concatenate([reader.order.indices(0, n) for n in range(len(reader))]) for reader in readers]
    assert [len(part) for part in seen] == [32, 8]
    assert sorted(np.concatenate(seen).tolist()) == values.tolist()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"split": "train"}, r"split is 'train'; expected \('train', 0.9\)"),
        ({"split": ("train",)}, "split is"),
        ({"split": ("train", 1)}, "split has the fraction 1; expected a number between 0 and 1"),
        ({"split": ("train", float("nan"))}, "split has the fraction nan"),
        ({"split": ("test", 0.9)}, "split has no part 'test'; expected one of 'train', 'validation'"),
        ({"split": ("validation", 0.1)}, r"give \('validation', 0.9\)"),
        ({"split": ("a", {"a": 0.5, "b": 0.4})}, "the fractions of split sum to 0.9; expected 1"),
        ({"split": ("a", {"a": 1.5, "b": -0.5})}, "split has the part 'a' with 1.5"),
        ({"split": ("validation", 0.999)}, "split leaves 'validation' none of the 100 samples; expected one"),
        (
            {"split": ("train", 0.99), "stratify": True},
            "split leaves 'validation' none of the 30 samples of the class of sample 50",
        ),
        ({"stratify": True}, "stratify is True without split"),
        ({"split": ("train", 0.9), "split_seed": -1}, "split_seed is -1"),
    ],
)
def test_bad_splits(options, named):
    with pytest.raises(ArgumentError, match=f"Reader: .*{named}"):
        chosen(**options)


def test_stratify_needs_labels():
    with pytest.raises(
        ArgumentError, match=r"stratify=True needs one label for each sample.*; give subset= as"
    ):
        chosen(Source(labels=None), split=("train", 0.9), stratify=True)
