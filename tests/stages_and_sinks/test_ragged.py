"""PadRagged, Window and Pack: every row of a sample at its place, the same for any number of threads and rows."""

import pickle

import numpy as np
import pytest
from concurrency import LIMIT

from highway.batch import Batch
from highway.engine import Pipeline
from highway.engine.module import Source
from highway.errors import ArgumentError, FieldError
from highway.modules import DatasetReader, Pack, PadRagged, Rebatch, Window


def texts(counts=(2, 0, 5), dtype=np.int64, **identity):
    """Tokens with weights of the same rows, words of others, and a number for each sample."""
    total = sum(counts)
    rows = np.cumsum([0, *counts])
    return Batch(
        {"tokens": np.arange(1, total + 1).astype(dtype), "scores": np.arange(len(counts))},
        seq=2,
        indices=np.arange(len(counts)) + 7,
        keys=[f"k{number}" for number in range(len(counts))],
        extras={"weights": np.arange(3.0 * total).reshape(-1, 3), "words": np.arange(4 * len(counts))},
        ragged={"tokens": rows, "weights": rows, "words": np.arange(len(counts) + 1) * 4},
        **identity,
    )


def only_tokens(batch):
    rows = batch.offsets_of("tokens")
    return Batch(
        {"tokens": batch.tokens},
        epoch=batch.epoch,
        seq=batch.seq,
        indices=batch.indices,
        keys=batch.keys,
        extras={"weights": batch.weights},
        ragged={"tokens": rows, "weights": rows},
    )


class Documents(Source):
    """Twelve batches of documents of differing length."""

    def tasks(self):
        return iter(range(12))

    def __len__(self):
        return 6

    def load(self, task):
        epoch, seq = divmod(task, 6)
        counts = np.random.default_rng(seq).integers(0, 40, 5)
        batch = only_tokens(texts(tuple(counts.tolist()), epoch=epoch))
        batch.seq = seq
        return batch.replace(indices=np.arange(5) + 5 * seq, keys=batch.keys)


# PadRagged


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float16", "float32", "complex128"])
@pytest.mark.parametrize("counts", [(2, 0, 5), (0, 0), (3,), ()])
def test_padding(counts, dtype):
    before = texts(counts, dtype)
    after = PadRagged("tokens", 6, value=1).process(before)
    assert list(after.fields) == ["tokens", "scores", "tokens_lengths"]
    assert after.tokens.shape == (len(counts), 6) and after.tokens.dtype == dtype
    assert after.tokens_lengths.tolist() == list(counts)
    for i, count in enumerate(counts):
        assert after.tokens[i, :count].tolist() == before.rows_of("tokens", i).tolist()
        assert (after.tokens[i, count:] == 1).all()
    assert after.ragged == {"weights", "words"}
    assert after.indices.tolist() == before.indices.tolist() and after.keys == before.keys


def test_extras_are_padded_as_extras():
    after = PadRagged("weights", value=-1).process(texts())
    assert after.weights.shape == (3, 5, 3)
    assert after.weights[0, 2:].tolist() == [[-1] * 3] * 3
    assert list(after.extras) == ["weights", "words", "weights_lengths"]


@pytest.mark.parametrize(("multiple", "length"), [(None, 5), (1, 5), (4, 8), (5, 5), (64, 64)])
def test_lengths_are_multiples(multiple, length):
    assert PadRagged("tokens", multiple_of=multiple).process(texts()).tokens.shape == (3, length)
    assert PadRagged("tokens", multiple_of=multiple).process(texts((0, 0))).tokens.shape == (2, 0)


def test_samples_that_are_too_long():
    with pytest.raises(ArgumentError, match=r"tokens of sample 9 \('k2'\) has 5 rows, to is 3"):
        PadRagged("tokens", 3).process(texts())
    after = PadRagged("tokens", 3, truncate=True).process(texts())
    assert after.tokens.tolist() == [[1, 2, 0], [0, 0, 0], [3, 4, 5]]
    assert after.tokens_lengths.tolist() == [2, 0, 3]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (-1, "uint8"),
        (300, "uint8"),
        (0.5, "int64"),
        (float("nan"), "int32"),
        (2, "bool"),
        (1e9, "float16"),
        (1j, "float32"),
    ],
)
def test_values_that_the_field_cannot_have(value, dtype):
    with pytest.raises(ArgumentError, match=rf"value is .*, and field 'tokens' is {dtype}"):
        PadRagged("tokens", value=value).process(texts(dtype=dtype))


def test_numbers_that_the_field_rounds_are_values():
    assert np.isnan(PadRagged("tokens", value=float("nan")).process(texts(dtype="float32")).tokens[1]).all()
    assert (PadRagged("tokens", value=0.1).process(texts(dtype="float32")).tokens[1] == np.float32(0.1)).all()


@pytest.mark.parametrize("stage", [PadRagged("nothing"), Window("nothing", 3), Pack("nothing", 3)])
def test_fields_that_are_missing(stage):
    with pytest.raises(FieldError, match="no field 'nothing'; it has tokens"):
        stage.process(texts())


@pytest.mark.parametrize("stage", [PadRagged("scores"), Window("scores", 3), Pack("scores", 3)])
def test_fields_that_are_not_ragged(stage):
    with pytest.raises(
        FieldError, match=r"'scores', of shape \(3,\), is not ragged; expected one of tokens, w"
    ):
        stage.process(texts())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PadRagged(5), "field is 5; expected the name of a ragged field"),
        (lambda: PadRagged("a b"), "field is 'a b'"),
        (lambda: PadRagged("tokens", 0), "to is 0"),
        (lambda: PadRagged("tokens", 3, multiple_of=2), "expected one of both"),
        (lambda: PadRagged("tokens", multiple_of=0), "multiple_of is 0"),
        (lambda: PadRagged("tokens", value="x"), "value is 'x'; expected a number"),
        (lambda: PadRagged("tokens", truncate=True), "truncate is True without to"),
        (lambda: Window("tokens", 0), "length is 0"),
        (lambda: Window("tokens", 3, at="middle"), "at is 'middle'; expected one of 'random', 'start'"),
        (lambda: Window("tokens", 3, seed=-1), "seed is -1"),
        (lambda: Pack("tokens", 0), "length is 0"),
        (lambda: Pack("tokens", 3, remainder="keep"), "remainder is 'keep'; expected one of 'pad', 'drop'"),
        (lambda: Pack("tokens", 3, value={"labels": None}), r"value\['labels'\] is None"),
        (lambda: Pack("tokens", 3, drop="scores"), "drop is 'scores'; expected a list"),
    ],
)
def test_arguments_are_checked(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    "stage", [PadRagged("tokens", 6, value=2), Window("tokens", 3), Pack("tokens", 4, drop=["a"])]
)
def test_stages_are_specifications(stage):
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert type(stage).__name__ in repr(stage)


# Window


@pytest.mark.parametrize(("at", "rows"), [("start", [3, 4, 5]), ("center", [4, 5, 6]), ("end", [5, 6, 7])])
def test_windows(at, rows):
    after = Window("tokens", 3, at=at).process(texts())
    assert after.rows_of("tokens", 2).tolist() == rows
    assert after.rows_of("weights", 2)[:, 0].tolist() == [3.0 * (row - 1) for row in rows]
    assert after.rows_of("tokens", 0).tolist() == [1, 2] and len(after.rows_of("tokens", 1)) == 0
    assert after.ragged_with("tokens") == {"tokens", "weights"}
    assert after.offsets_of("words").tolist() == [0, 4, 8, 12]
    assert after.applied == texts().applied + 1


def test_every_window_is_drawn_and_each_as_often():
    batch = Batch({"tokens": np.tile(np.arange(8), 4000)}, seq=0, ragged={"tokens": np.arange(4001) * 8})
    first = Window("tokens", 5).process(batch).tokens.reshape(4000, 5)
    assert (np.diff(first, axis=1) == 1).all()
    counts = np.bincount(first[:, 0], minlength=4)
    assert len(counts) == 4 and (abs(counts - 1000) < 150).all()


def test_windows_belong_to_samples():
    batch = only_tokens(texts((30, 40, 50, 60)))
    whole = Window("tokens", 7, seed=3).process(batch)
    part = Window("tokens", 7, seed=3).process(batch.take([3, 1]))
    assert part.rows_of("tokens", 0).tolist() == whole.rows_of("tokens", 3).tolist()
    assert part.rows_of("tokens", 1).tolist() == whole.rows_of("tokens", 1).tolist()
    batch.epoch = 1
    assert Window("tokens", 7, seed=3).process(batch).tokens.tolist() != whole.tokens.tolist()
    # Shorter samples count as a transform too: what follows draws the same numbers whatever the lengths.
    assert Window("tokens", 100).process(batch).applied == Window("tokens", 7).process(batch).applied


def test_windows_of_objects():
    files = np.array([b"a", b"bc", b"", b"d\0", b"e"], object)
    batch = Batch({"files": files}, indices=[1, 2, 3], ragged={"files": [0, 3, 3, 5]})
    found = Window("files", 2, at="end").process(batch)
    assert found.files.tolist() == [b"bc", b"", b"d\0", b"e"]
    assert found.offsets.tolist() == [0, 2, 2, 4]


def sequences(**options):
    """Ten sequences of 0 to 20 values, each with its number."""
    samples = [{"values": np.arange(100 * n, 100 * n + size), "n": n} for n, size in enumerate(SIZES)]
    return DatasetReader(samples, 4, ragged=["values"], **{"epochs": 2, "seed": 3, **options})


SIZES = [5, 0, 12, 20, 3, 7, 1, 13, 8, 9]


def windows_of(size, length, stride):
    last = max(0, size - length)
    return [(begin, min(size, begin + length)) for begin in sorted({*range(0, last, stride), last})]


def told(batch):
    rows = [batch.rows_of("values", row).tolist() for row in range(batch.size)]
    return batch.epoch, batch.seq, batch.indices.tolist(), batch.n.tolist(), rows


@pytest.mark.parametrize(("length", "stride"), [(4, 1), (4, 3), (4, 4), (4, 9), (30, 2), (1, 1)])
def test_all_windows_of_each_sequence(length, stride):
    with Pipeline([sequences(), Window("values", length, stride=stride)]) as pipeline:
        for epoch in range(2):
            found = {}
            for number, batch in enumerate(pipeline):
                assert (batch.epoch, batch.seq, batch.applied) == (epoch, number, 2)
                for row in range(batch.size):
                    n, copy = batch.n[row], batch.indices[row] >> 32
                    assert batch.indices[row] & 2**32 - 1 == n
                    found[n, copy] = (batch.rows_of("values", row) - 100 * n).tolist()
            assert len(pipeline) == number + 1
            assert found == {
                (n, copy): list(range(*window))
                for n, size in enumerate(SIZES)
                for copy, window in enumerate(windows_of(size, length, stride))
            }


@pytest.mark.parametrize("after", [[], [Rebatch(5)]])
def test_all_windows_after_a_state(after):
    stages = [Window("values", 4, stride=2), *after]
    with Pipeline([sequences(), *stages]) as pipeline:
        whole = [told(batch) for batch in pipeline.forever()]
    for done in range(1, len(whole)):
        with Pipeline([sequences(), *stages]) as pipeline:
            for _ in range(done):
                pipeline.dequeue(timeout=LIMIT)
            state = pipeline.state_dict()
        with Pipeline([sequences(), *stages]) as resumed:
            resumed.load_state_dict(state)
            assert [told(batch) for batch in resumed.forever()] == whole[done:]


def test_fields_that_share_the_offsets_have_the_same_windows():
    batch = texts()
    found = Window("tokens", 2, stride=1).process(batch)
    for name in batch.ragged_with("tokens"):
        for row, (index, window) in enumerate(
            zip(found.indices & 2**32 - 1, found.indices >> 32, strict=True)
        ):
            place = batch.indices.tolist().index(index)
            assert (found.rows_of(name, row) == batch.rows_of(name, place)[window : window + 2]).all()


@pytest.mark.parametrize("options", [{"repeats": 2}, {"weights": np.ones(10)}])
def test_windows_of_copies_are_refused(options):
    with (
        Pipeline([sequences(**options), Window("values", 4, stride=2)]) as pipeline,
        pytest.raises(ArgumentError, match=r"Window: sample \d+ .*is a copy in its epoch"),
    ):
        list(pipeline)


def test_a_stride_has_no_place():
    with pytest.raises(ArgumentError, match="at is 'end', and stride 2; expected one of them"):
        Window("tokens", 3, at="end", stride=2)
    with pytest.raises(ArgumentError, match="stride is 0"):
        Window("tokens", 3, stride=0)
    assert repr(Window("tokens", 3, stride=2)) == "Window('tokens', 3, stride=2)"


# Pack


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 100])
def test_no_token_is_lost(length):
    batch = only_tokens(texts((2, 0, 5, 9, 1)))
    after = Pack("tokens", length, value=-1).process(batch)
    flat = after.tokens.reshape(-1)
    assert flat[:17].tolist() == batch.tokens.tolist()
    assert (flat[17:] == -1).all() and len(flat) - 17 < length
    assert after.weights.reshape(-1, 3)[:17].tolist() == batch.weights.tolist()
    assert not after.weights.reshape(-1, 3)[17:].any()
    assert not after.segments.reshape(-1)[17:].any() and (after.segments.reshape(-1)[:17] > 0).all()
    owners = np.repeat(batch.indices, np.diff(batch.offsets_of("tokens")))
    assert after.indices.tolist() == owners[::length].tolist()
    assert after.keys == [f"k{index - 7}" for index in after.indices]
    dropped = Pack("tokens", length, remainder="drop").process(batch)
    if length > 17:
        assert dropped is None
    else:
        assert dropped.tokens.reshape(-1).tolist() == batch.tokens[: 17 // length * length].tolist()


def test_documents_have_boundaries():
    after = Pack("tokens", 4).process(only_tokens(texts((2, 0, 5, 1))))
    assert after.tokens.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert after.positions.tolist() == [[0, 1, 0, 1], [0, 1, 2, 0]]
    assert after.segments.tolist() == [[1, 1, 2, 2], [1, 1, 1, 2]]
    assert list(after.fields) == ["tokens", "positions", "segments"] and list(after.extras) == ["weights"]


def test_fields_of_whole_documents_are_dropped_only_on_request():
    with pytest.raises(
        FieldError, match=r"scores, words have other rows than tokens.*drop=\['scores', 'words'\]"
    ):
        Pack("tokens", 4).process(texts())
    after = Pack("tokens", 4, drop=["scores", "words"], value={"weights": 9}).process(texts())
    assert [*after.fields, *after.extras] == ["tokens", "positions", "segments", "weights"]
    assert after.weights[1, 3].tolist() == [9, 9, 9] and after.tokens[1, 3] == 0
    with pytest.raises(FieldError, match="value has wieghts, and tokens, weights are packed"):
        Pack("tokens", 4, value={"wieghts": 9}).process(only_tokens(texts()))


def test_batches_without_tokens_are_skipped():
    assert Pack("tokens", 4).process(only_tokens(texts((0, 0)))) is None


def test_names_that_stages_add_are_free():
    with pytest.raises(ArgumentError, match="has segments already, which Pack adds"):
        Pack("tokens", 4).process(only_tokens(texts()).replace(segments=np.zeros(3)))
    with pytest.raises(ArgumentError, match="has tokens_lengths already"):
        PadRagged("tokens").process(texts().replace(tokens_lengths=np.zeros(3)))


# In pipelines


def contents(workers):
    stages = [Window("tokens", 25, workers=workers), Pack("tokens", 8, workers=workers)]
    with Pipeline([Documents(workers=workers), *stages]) as pipeline:
        return [
            (batch.epoch, batch.seq, *(array.tobytes() for array in (*batch, *batch.extras.values())))
            for batch in pipeline.forever()
        ]


def test_any_number_of_workers_gives_the_same_bits():
    one = contents(1)
    assert len(one) == 12
    assert contents(3) == one


def test_specs_are_those_of_the_batches():
    from highway.engine.spec import array_spec

    class Specified(Documents):
        def out_spec(self, before):
            return {"tokens": array_spec(np.int64, ragged=True)}

    with Pipeline([Specified(), Window("tokens", 25), PadRagged("tokens", 30)]) as pipeline:
        assert pipeline.spec["tokens"] == array_spec(np.int64, 30)
        assert list(pipeline.spec) == ["tokens", "tokens_lengths"]
    with Pipeline([Specified(), Pack("tokens", 8)]) as pipeline:
        assert pipeline.spec["positions"] == array_spec(np.int32, 8)
        batch = pipeline.dequeue(timeout=60)
        assert {name: batch[name].dtype for name in pipeline.spec} == {
            name: spec.dtype for name, spec in pipeline.spec.items()
        }
