"""Map and Filter: functions of a user for batches and samples, and errors that name them."""

import sys

import numpy as np
import pytest
from concurrency import LIMIT
from small_modules import Numbers

from highway.batch import Batch
from highway.engine import Pipeline
from highway.errors import ArgumentError, ContractError
from highway.modules import DatasetReader, Filter, Map, Noise, Pack, Rebatch


def batch():
    rows = np.array([0, 2, 2, 5])
    return Batch(
        {"labels": np.array([5, 6, 7]), "tokens": np.arange(5)},
        epoch=1,
        seq=2,
        indices=[30, 10, 20],
        keys=["a", "b", "c"],
        extras={"weights": np.ones((5, 2)), "loss": np.array(0.5)},
        ragged={"tokens": rows, "weights": rows},
    )


def noted(error):
    """The message with its notes, which Python 3.10 has as the cause."""
    return " ".join([str(error), *getattr(error, "__notes__", ()), str(error.__cause__)])


# Map


def test_functions_of_batches():
    assert Map(lambda given: None).process(batch()) is None
    assert Map(lambda given: given).process(batch()).keys == ["a", "b", "c"]
    found = Map(lambda given: {"labels": given.labels * 2, "more": given.labels}).process(batch())
    assert list(found.fields) == ["labels", "tokens", "more"]
    assert found.labels.tolist() == [10, 12, 14] and found.indices.tolist() == [30, 10, 20]


def test_functions_of_samples():
    seen = []

    def function(sample):
        seen.append({name: np.asarray(value).tolist() for name, value in sample.items()})
        return {
            "labels": sample["labels"] + 1,
            "counted": len(sample["tokens"]),
            "name": "x" * len(sample["tokens"]),
        }

    found = Map(function, per_sample=True).process(batch())
    assert seen[0] == {"labels": 5, "tokens": [0, 1], "weights": [[1, 1], [1, 1]]}
    assert found.labels.tolist() == [6, 7, 8] and found.labels.dtype == np.int64
    assert found.counted.tolist() == [2, 0, 3] and found["name"].tolist() == ["xx", "", "xxx"]
    assert found.ragged == {"tokens", "weights"}


def test_ragged_results():
    def function(sample):
        count = int(sample["labels"]) - 4
        return {
            "tokens": np.full(count, count),
            "marks": np.zeros(count, bool),
            "text": "ä" * count,
            "raw": b"\0",
        }

    found = Map(function, per_sample=True, ragged=[("tokens", "marks"), "text"]).process(batch())
    assert found.tokens.tolist() == [1, 2, 2, 3, 3, 3]
    assert found.ragged_with("tokens") == {"tokens", "marks"}
    assert found.text_of("text", 1) == "ää" and found.raw.tolist() == [b"\0"] * 3
    assert found.offsets_of("weights").tolist() == [0, 2, 2, 5]
    assert found.ragged == {"tokens", "marks", "text", "weights"}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Map(lambda given: [1]),
            "the function returned list; expected a Batch, a dict of arrays, or None",
        ),
        (
            lambda: Map(lambda sample: None, per_sample=True),
            r"returned NoneType for sample 30 \('a'\).*Filter drops",
        ),
        (
            lambda: Map(lambda sample: {f"l{sample['labels']}": 1}, per_sample=True),
            r"returned l6 for sample 10 \('b'\), and l5 for sample 30",
        ),
        (
            lambda: Map(lambda sample: {"t": sample["tokens"]}, per_sample=True),
            r"t of sample 10 \('b'\) is int64 of shape \(0,\), that of sample 30 .* \(2,\).*ragged=\['t'\]",
        ),
        (
            lambda: Map(lambda sample: {"t": 1 if sample["labels"] < 7 else 1.5}, per_sample=True),
            r"t of sample 20 \('c'\) is float64",
        ),
        (lambda: Map(lambda s: {"t": [[1], [1, 2]]}, per_sample=True), r"t of sample 30 \('a'\) is no array"),
        (
            lambda: Map(lambda s: {"applied": 1}, per_sample=True),
            r"'applied' for sample 30 .*names of fields",
        ),
        (lambda: Map(lambda s: {5: 1}, per_sample=True), "returned 5 for sample 30 .*names of fields"),
        (lambda: Map(lambda sample: {"t": None}, per_sample=True), r"t of sample 30 \('a'\) is NoneType"),
        (
            lambda: Map(lambda sample: {"t": [1]}, per_sample=True, ragged=["s"]),
            "ragged has 's', and the function returned t",
        ),
        (
            lambda: Map(lambda s: {"t": [1], "u": [1] * s["labels"]}, per_sample=True, ragged=[("t", "u")]),
            r"t and u of sample 30 \('a'\) have 1 and 5 rows; expected as many",
        ),
    ],
)
def test_results_that_do_not_fit(make, message):
    with pytest.raises(ContractError, match=message):
        make().process(batch())


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda function: Map(function), "In Map, batch 2 of epoch 1."),
        (lambda function: Map(function, per_sample=True), "In Map, sample 10 ('b') of batch 2 of epoch 1."),
        (lambda function: Filter(function), "In Filter, sample 10 ('b') of batch 2 of epoch 1."),
        (lambda function: Filter(function, per_sample=False), "In Filter, batch 2 of epoch 1."),
    ],
)
def test_exceptions_name_the_sample(make, where):
    def failing(given):
        if isinstance(given, Batch) or given["labels"] == 6:
            raise ZeroDivisionError("six")
        return True if "Filter" in where else {}

    with pytest.raises(ZeroDivisionError, match="six") as caught:
        make(failing).process(batch())
    assert where in noted(caught.value)


def test_errors_name_samples_by_their_number_in_the_data():
    """The index of a second copy of a sample has more bits than its number."""
    copies = batch().replace(indices=np.array([30, 2**32 + 10, 5 * 2**32 + 20]), keys=[])
    with pytest.raises(ContractError, match="returned 5 for sample 20; expected True or False"):
        Filter(lambda sample: 5 if sample["labels"] == 7 else True).process(copies)


def test_fields_that_do_not_fit_name_the_batch():
    with pytest.raises(ArgumentError, match="field 'labels' has 2 rows") as caught:
        Map(lambda given: {"labels": np.zeros(2)}).process(batch())
    assert "In Map, batch 2 of epoch 1." in noted(caught.value)


def test_exceptions_reach_the_user():
    def failing(sample):
        raise ValueError("bad sample")

    with (
        Pipeline([Noise(4, (2, 2), size=10), Map(failing, per_sample=True)]) as pipeline,
        pytest.raises(ValueError, match="bad sample") as caught,
    ):
        pipeline.dequeue(timeout=LIMIT)
    if sys.version_info >= (3, 11):
        assert "In Map, sample" in noted(caught.value)


# Filter


def test_samples_are_dropped():
    given = batch().replace()
    del given.extras["loss"]
    found = Filter(lambda sample: len(sample["tokens"]) > 0, refill=False).process(given)
    assert found.keys == ["a", "c"] and found.tokens.tolist() == [0, 1, 2, 3, 4]
    assert found.offsets.tolist() == [0, 2, 5] and found.seq == 2
    found = Filter(lambda given: given.labels == 6, per_sample=False).process(given)
    assert found.indices.tolist() == [10]
    assert Filter(lambda sample: np.True_).process(given) is given
    assert Filter(lambda sample: False).process(given) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Filter(lambda sample: None), r"returned None for sample 30 \('a'\); expected True or False"),
        (lambda: Filter(lambda sample: 1), "returned 1 for sample 30"),
        (
            lambda: Filter(lambda given: [True] * 3, per_sample=False),
            "returned list for batch 2 of 3 samples",
        ),
        (lambda: Filter(lambda given: given.labels, per_sample=False), r"ndarray of shape \(3,\) and int64"),
        (
            lambda: Filter(lambda given: np.ones(2, bool), per_sample=False),
            r"ndarray of shape \(2,\) and bool",
        ),
    ],
)
def test_answers_that_are_not_bool(make, message):
    with pytest.raises(ContractError, match=message):
        make().process(batch())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Map(5), "function is 5; expected a function"),
        (lambda: Map(dict), "function is <class 'dict'>"),
        (lambda: Map(len, ragged=["a"]), "ragged is .* without per_sample"),
        (lambda: Map(len, per_sample=True, ragged="a"), "ragged is 'a'; expected a list"),
        (lambda: Map(len, per_sample=True, ragged=[5]), "field is 5; expected the name"),
        (lambda: Map(len, per_sample=True, ragged=[("a", "b"), "a"]), "expected each name once"),
        (lambda: Filter(None), "function is None"),
        (lambda: Filter(len, refill=False, batch_size=3), "refill is False, with batch_size=3"),
        (lambda: Filter(len, refill=False, drop_last=True), "drop_last=True"),
        (lambda: Filter(len, workers=2), "workers is 2; expected 1 with refill=True"),
        (lambda: Filter(len, batch_size=0), "batch_size is 0"),
        (lambda: Rebatch(0), "batch_size is 0"),
        (lambda: Rebatch(3, drop_last=2), "drop_last is of type int"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_the_size_of_batches_has_to_be_known():
    with (
        Pipeline([Numbers(), Filter(lambda sample: True)]) as pipeline,
        pytest.raises(ArgumentError, match="batch_size is None, and Numbers does not say"),
    ):
        pipeline.dequeue(timeout=LIMIT)
    with Pipeline([Numbers(), Filter(lambda sample: sample["numbers"] % 2 == 0, batch_size=5)]) as pipeline:
        assert [batch.numbers.tolist() for batch in pipeline][:2] == [[0, 2, 4, 6, 8], [10, 12, 14, 16, 18]]


def test_a_batch_stays_smaller_without_refill():
    even = Filter(lambda sample: sample["labels"] % 2 == 0, refill=False, workers=3)
    with Pipeline([Noise(4, (2, 2), size=40, epochs=1), even]) as pipeline:
        found = list(pipeline)
    assert len(found) <= 10 and {batch.size for batch in found} - {4}
    assert [batch.seq for batch in found] == sorted(batch.seq for batch in found)
    assert all((batch.labels % 2 == 0).all() for batch in found)


def test_packed_rows_become_equal_batches():
    def tokens(sample):
        return {"tokens": np.full(int(sample["labels"]) % 7 + 1, sample["labels"])}

    def only(given):
        return Batch(
            {"tokens": given.tokens},
            epoch=given.epoch,
            seq=given.seq,
            indices=given.indices,
            ragged={"tokens": given.offsets_of("tokens")},
        )

    def modules(workers):
        return [
            Noise(16, (2, 2), size=100, epochs=1),
            Map(tokens, per_sample=True, ragged=["tokens"], workers=workers),
            Map(only, workers=workers),
            Pack("tokens", 8, workers=workers),
            Rebatch(4, drop_last=True),
        ]

    found = []
    for workers in (1, 3):
        with Pipeline(modules(workers)) as pipeline:
            found.append([batch.tokens.tolist() for batch in pipeline])
    assert found[0] == found[1] and len(found[0]) > 5
    assert {np.shape(rows) for rows in found[0]} == {(4, 8)}


def test_the_size_of_batches_of_an_iterable():
    reader = DatasetReader(Counted(), 4, shuffle=False, epochs=1)
    with Pipeline([reader, Filter(lambda sample: sample["number"] % 2 == 1)]) as pipeline:
        assert [batch.number.tolist() for batch in pipeline] == [[1, 3, 5, 7], [9]]


class Counted:
    def __iter__(self):
        return iter([{"number": number} for number in range(10)])
