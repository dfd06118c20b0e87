"""DatasetReader in threads: samples of every kind become fields; order, errors, resuming, and what it refuses."""

from __future__ import annotations

import collections
import sys
import threading

import numpy as np
import pytest
from concurrency import LIMIT

from highway import replay
from highway.engine import Pipeline
from highway.errors import (
    ArgumentError,
    ContractError,
    EmptyDatasetError,
    PipelineStateError,
    SampleError,
    StateMismatchError,
    TooManyErrors,
    UnknownLengthError,
)
from highway.modules import Augmentations, DatasetReader
from highway.sampling.sampler import Sampler
from highway.transforms import FlipX

N = 11


class Numbers:
    """Samples (float32 vector, label); `bad` maps indices to what they are instead, or to an error to raise."""

    def __init__(self, count=N, bad=()):
        self.count, self.bad = count, dict(bad)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        assert type(index) is int
        if index in self.bad:
            found = self.bad[index]
            if isinstance(found, Exception):
                raise found
            return found
        return np.full(3, index, np.float32), index * 10


def batches(dataset, batch_size=4, **options):
    with Pipeline([DatasetReader(dataset, batch_size, **{"epochs": 1, **options})]) as pipeline:
        return list(pipeline.forever())


def only(dataset, **options):
    """Return the one batch of all samples, in the order of the data."""
    (batch,) = batches(dataset, 100, shuffle=False, **options)
    return batch


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("drop_last", [True, False])
def test_samples_in_the_order_of_the_seed(workers, drop_last):
    options = {"shuffle": True, "seed": 3, "epochs": 2, "shard": (1, 2), "drop_last": drop_last}
    order = list(Sampler(N, 2, **options))
    found = batches(Numbers(), 2, workers=workers, **options)
    assert len(found) == len(order)
    for batch, task in zip(found, order, strict=True):
        assert (batch.epoch, batch.seq) == (task.epoch, task.seq)
        assert batch.indices.tolist() == task.indices.tolist()
        assert list(batch.fields) == ["inputs", "labels"]
        assert batch.inputs.dtype == np.float32 and batch.labels.dtype == np.int64
        assert (batch.inputs == task.indices[:, None]).all() and batch.inputs.shape == (batch.size, 3)
        assert batch.labels.tolist() == (task.indices * 10).tolist()


Point = collections.namedtuple("Point", "x y")


class Tensor:
    """Converts like a tensor of another library."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


@pytest.mark.parametrize(
    "samples, names, fields",
    [
        ([1, 2], None, {"inputs": np.array([1, 2])}),
        ([1.5, 2.5], None, {"inputs": np.array([1.5, 2.5], np.float32)}),
        ([True, False], None, {"inputs": np.array([True, False])}),
        ([np.float64(1), np.float64(2)], None, {"inputs": np.array([1.0, 2.0])}),
        ([np.int8(1), np.int8(2)], None, {"inputs": np.array([1, 2], np.int8)}),
        ([[1, 2], [3, 4]], None, {"inputs": np.array([[1, 2], [3, 4]])}),
        ([[1.0], [3.0]], ("x",), {"x": np.array([[1], [3]], np.float32)}),
        (
            [Tensor(np.eye(2)), Tensor(np.ones((2, 2)))],
            None,
            {"inputs": np.stack([np.eye(2), np.ones((2, 2))])},
        ),
        ([Point(1, 2.0), Point(3, 4.0)], None, {"x": np.array([1, 3]), "y": np.array([2, 4], np.float32)}),
        ([{"a": 1, "b": [2]}, {"b": [4], "a": 3}], None, {"a": np.array([1, 3]), "b": np.array([[2], [4]])}),
        ([{"a": 1, "b": 2}, {"a": 3, "b": 4}], ("b",), {"b": np.array([2, 4])}),
        ([{"a b": 1, "c": 2}, {"a b": 3, "c": 4}], {"a b": "d"}, {"d": np.array([1, 3])}),
        (
            [(1, 2, 3), (4, 5, 6)],
            ("a", "b", "c"),
            {"a": np.array([1, 4]), "b": np.array([2, 5]), "c": np.array([3, 6])},
        ),
        ([(1, {}, 3), (4, {}, 6)], {2: "c", 0: "a"}, {"c": np.array([3, 6]), "a": np.array([1, 4])}),
        (
            [(np.zeros((2, 3, 3), np.uint8), 5), (np.ones((2, 3, 3), np.uint8), 6)],
            None,
            {
                "images": np.stack([np.zeros((2, 3, 3), np.uint8), np.ones((2, 3, 3), np.uint8)]),
                "labels": np.array([5, 6]),
            },
        ),
        ([np.zeros((0, 2)), np.zeros((0, 2))], None, {"inputs": np.zeros((2, 0, 2))}),
        ([np.zeros((2, 0)), np.zeros((2, 0))], None, {"inputs": np.zeros((2, 2, 0))}),
        ([np.datetime64(1, "s"), np.datetime64(2, "s")], None, {"inputs": np.array([1, 2], "M8[s]")}),
    ],
)
def test_fields(samples, names, fields):
    batch = only(samples, names=names)
    assert list(batch.fields) == list(fields)
    for name, expected in fields.items():
        assert batch[name].dtype == expected.dtype
        assert batch[name].shape == expected.shape
        assert (batch[name] == expected).all()
        assert batch[name].flags.writeable and batch[name].flags.c_contiguous
    assert not batch.ragged


def test_lists_of_different_lengths_are_ragged():
    samples = [
        {
            "tokens": [*range(index)],
            "points": np.full((2 * index, 2), index, np.float32),
            "name": b"x" * index,
            "text": "ä" * index,
        }
        for index in range(4)
    ]
    batch = only(samples)
    for index in range(4):
        assert batch.rows_of("tokens", index).tolist() == [*range(index)]
        assert (batch.rows_of("points", index) == index).all()
        assert batch.rows_of("points", index).shape == (2 * index, 2)
        assert batch.rows_of("name", index).tobytes() == b"x" * index
        assert batch.text_of("text", index) == "ä" * index
    # An empty list alone says nothing about its type.
    assert batch.tokens.dtype == np.int64 and batch.ragged == {"tokens", "points", "name", "text"}


def test_ragged_as_the_user_says():
    same = [[1, 2], [3, 4]]
    assert not only(same).ragged
    batch = only(same, ragged=("inputs",))
    assert batch.ragged == {"inputs"} and batch.rows_of("inputs", 1).tolist() == [3, 4]
    with pytest.raises(
        SampleError, match=r"sample 1 .* 'inputs' .*\(3,\).*\(2,\).*sample 0 .*ragged=\('inputs',\)"
    ):
        only([[1, 2], [3, 4, 5]], ragged=())
    pictures = [np.zeros((2, 2, 3), np.uint8), np.zeros((4, 2, 3), np.uint8)]
    with pytest.raises(SampleError, match=r"sample 1 .* 'images' .*\(4, 2, 3\)"):
        only(pictures)
    assert only(pictures, ragged=["images"]).images.shape == (6, 2, 3)


@pytest.mark.parametrize(
    "other, text",
    [
        ((np.zeros(3, np.float64), 1), r"'inputs' that is float64 of shape \(3,\); expected float32"),
        ((np.zeros((3, 1), np.float32), 1), r"'inputs' that is float32 of shape \(3, 1\)"),
        ((np.zeros(3, np.float32), 1.5), r"'labels' that is float32 of shape \(\); expected int64"),
        ((np.zeros(3, np.float32), "1"), r"'labels' that is a str"),
        ((np.zeros(3, np.float32), None), r"'labels' that is None"),
        ((np.zeros(3, np.float32), 2**70), r"'labels' that is"),
        ((np.zeros(3, np.float32), {}), r"'labels' that is a dict"),
        (("text", 1), r"'inputs' that is a str"),
        (([[1], [1, 2]], 1), r"'inputs' that is a list that is no array"),
        ((np.zeros(3, np.float32),), r"is a tuple of 1; expected a tuple of 2, as sample 0 is"),
        ({"inputs": 1}, r"is a dict; expected a tuple of 2"),
        (5, r"is a int; expected a tuple of 2"),
    ],
)
def test_a_sample_that_differs_is_named_and_the_others_arrive(other, text):
    dataset = Numbers(bad={7: other})
    keys = [f"key {index}" for index in range(N)]
    with pytest.raises(SampleError, match=f"DatasetReader: sample 7 .'key 7'. of the dataset .*{text}"):
        batches(dataset, keys=keys)
    found = batches(dataset, on_error="skip", keys=keys)
    assert sorted(np.concatenate([batch.indices for batch in found]).tolist()) == [*range(7), *range(8, N)]
    for batch in found:
        assert batch.labels.tolist() == (batch.indices * 10).tolist()
        assert batch.keys == [f"key {index}" for index in batch.indices]


def test_the_first_sample_of_a_subset_is_the_reference():
    bad = {index: ValueError("bad") for index in range(20)}
    bad[20] = np.zeros(5), 1
    (batch,) = batches(Numbers(24, bad), subset=[23, 21, 22], shuffle=False)
    assert batch.labels.tolist() == [230, 210, 220]
    (batch,) = batches(Numbers(24, bad), subset=[20], shuffle=False)
    assert batch.inputs.shape == (1, 5)


def test_a_sample_that_is_a_list_of_texts():
    with pytest.raises(SampleError, match=r"sample 0 .* value at 'words' that is a list of texts; .* names="):
        batches([{"words": ["a", "b"], "label": 1}])
    (batch,) = batches([{"words": ["a", "b"], "label": 1}], names=["label"])
    assert batch.label.tolist() == [1]


def test_a_sample_that_exits_is_a_bad_one():
    def exits(index):
        if index == 2:
            sys.exit("no such option")
        return index

    with pytest.raises(SampleError, match="sample 2 of the dataset raised SystemExit: no such option"):
        batches(exits, length=5)
    (batch,) = batches(exits, length=4, on_error="skip", shuffle=False)
    assert batch.inputs.tolist() == [0, 1, 3]
    with pytest.raises(SampleError, match="raised SystemExit in place of sample 2: no such option"):
        batches(map(exits, range(5)), shuffle=False)


def test_a_mapping_without_a_key():
    samples = [{"a": 1}, {"a": 2}, {"b": 3}]
    with pytest.raises(SampleError, match="sample 2 of the dataset has no 'a', as sample 0 has; it has 'b'"):
        batches(samples)


def test_exceptions_keep_their_cause_and_name_the_sample():
    with pytest.raises(SampleError, match="sample 4 of the dataset raised KeyError: 'gone'") as caught:
        batches(Numbers(bad={4: KeyError("gone")}))
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("workers", [1, 3])
def test_skip_and_replace(workers):
    dataset = Numbers(bad={2: ValueError("no"), 5: (1, 2, 3), 0: OSError("disk")})
    with Pipeline([DatasetReader(dataset, 4, epochs=1, on_error="skip", workers=workers)]) as pipeline:
        found = np.concatenate([batch.indices for batch in pipeline])
        assert sorted(found.tolist()) == [1, 3, 4, 6, 7, 8, 9, 10]
        assert sorted(key for key, _ in pipeline.errors) == ["0", "2", "5"]
    runs = []
    for _ in range(2):
        with Pipeline([DatasetReader(dataset, 4, epochs=3, on_error="replace", workers=workers)]) as pipeline:
            found = list(pipeline.forever())
            assert pipeline.stats().modules[0].replaced_samples == 9
        for batch in found:
            assert (batch.inputs == batch.indices[:, None]).all() and {0, 2, 5}.isdisjoint(
                batch.indices.tolist()
            )
        assert [batch.size for batch in found] == [4, 4, 3] * 3
        runs.append([batch.indices.tolist() for batch in found])
    assert runs[0] == runs[1]


def test_max_errors_and_data_that_are_all_bad():
    with pytest.raises(TooManyErrors, match="2 of 11 samples are bad"):
        batches(Numbers(bad={2: ValueError(), 5: ValueError()}), on_error="skip", max_errors=1)
    bad = {index: ValueError(f"bad {index}") for index in range(N)}
    for policy in ("skip", "replace"):
        with pytest.raises(EmptyDatasetError, match="none of the samples"):
            batches(Numbers(bad=bad), on_error=policy)
    with pytest.raises(SampleError, match=r"sample 0 .*bad 0"):
        batches(Numbers(bad=bad))


def test_a_lack_of_memory_or_handles_raises_under_any_policy():
    with pytest.raises(MemoryError):
        batches(Numbers(bad={3: MemoryError()}), on_error="skip")
    with pytest.raises(OSError, match="Too many"):
        batches(Numbers(bad={3: OSError(24, "Too many open files")}), on_error="skip")


def test_recorded_errors_keep_no_samples():
    with Pipeline(
        [DatasetReader(Numbers(bad={3: ValueError("x")}), 4, epochs=1, on_error="skip")]
    ) as pipeline:
        list(pipeline)
        (error,) = pipeline.modules[0]._bad_by_index().values()
    assert error.__cause__.__traceback__ is None


def test_resuming_with_another_batch_size_and_replay():
    def reader(batch_size):
        return DatasetReader(Numbers(40), batch_size, epochs=2, seed=5)

    whole = np.concatenate([batch.indices for batch in batches(Numbers(40), 4, epochs=2, seed=5)])
    with Pipeline([reader(4)]) as pipeline:
        for _ in range(3):
            pipeline.dequeue()
        state = pipeline.state_dict()
    with Pipeline([reader(7)]) as pipeline:
        pipeline.load_state_dict(state)
        rest = list(pipeline.forever())
    assert np.concatenate([batch.indices for batch in rest]).tolist() == whole[12:].tolist()
    again = replay.batch([reader(4)], epoch=1, step=2)
    assert again.indices.tolist() == whole[48:52].tolist() and (again.inputs == again.indices[:, None]).all()
    with (
        Pipeline([DatasetReader(Numbers(41), 4)]) as pipeline,
        pytest.raises(StateMismatchError, match="size"),
    ):
        pipeline.load_state_dict(state)


def test_a_function_of_the_index():
    batch = only(lambda index: {"x": index}, length=6)
    assert batch.x.tolist() == [*range(6)]


def test_collate_of_the_user():
    def collate(samples):
        return {"x": np.stack([vector for vector, _ in samples]) * 2, "count": np.int64(len(samples))}

    batch = only(Numbers(5), collate=collate)
    assert (batch.x == 2 * batch.indices[:, None]).all() and batch["count"] == 5
    named = only(
        Numbers(5), collate=lambda samples: tuple(map(np.array, zip(*samples, strict=True))), names=("a", "b")
    )
    assert named.b.tolist() == (named.indices * 10).tolist()
    with pytest.raises(ContractError, match="collate returned 'inputs' with 1 rows for 5 samples"):
        only(Numbers(5), collate=lambda samples: [1])
    with pytest.raises(ContractError, match="collate returned a NoneType"):
        only(Numbers(5), collate=lambda samples: None)


class Batched(Numbers):
    """Reads all samples of a batch at once, and counts the calls."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.calls = 0

    def __getitems__(self, indices):
        self.calls += 1
        return [self[index] for index in indices]


def test_getitems_if_the_user_says_so():
    dataset = Batched()
    whole = only(dataset)
    assert dataset.calls == 0
    batch = only(dataset, batched=True)
    assert dataset.calls == 1 and (batch.inputs == whole.inputs).all()
    dataset = Batched(bad={3: ValueError("x")})
    with pytest.raises(SampleError, match=r"sample 3 .*ValueError: x"):
        only(dataset, batched=True)


def test_a_data_set_that_changes_its_length():
    dataset = Numbers()
    with Pipeline([DatasetReader(dataset, 4)]) as pipeline:
        pipeline.dequeue()
        dataset.count = 5
        with pytest.raises(ContractError, match="has 5 samples now, and had 11"):
            list(zip(range(200), pipeline.forever(), strict=False))


class Frame:
    """What a data frame has: its items are columns."""

    columns = ("a", "b")

    def __len__(self):
        return 3

    def __getitem__(self, name):
        raise KeyError(name)

    def to_numpy(self):
        raise NotImplementedError


@pytest.mark.parametrize(
    "options, text",
    [
        ({"dataset": 5}, "dataset is a int"),
        (
            {"dataset": {"a": 1}},
            "dataset is a dict, which .* one split of a DatasetDict",
        ),
        ({"dataset": Frame()}, "dataset is a Frame, which .*; columns of numbers are for ArrayReader"),
        ({"dataset": "text"}, "dataset is a str"),
        ({"dataset": abs}, "expected length="),
        ({"length": 5}, "length is 5, and the dataset has a length, 11"),
        ({"batched": True}, "has no __getitems__"),
        ({"keys": ["a"]}, "expected 11, one for each sample"),
        ({"names": ("a", "a")}, "a name twice"),
        ({"names": "ab"}, "names is 'ab'"),
        ({"names": ("keys", "b")}, "names is"),
        ({"collate": 5}, "collate is 5"),
        ({"timeout": 5}, "timeout is 5; expected None with processes=0"),
        ({"processes": -1}, "processes is -1"),
        ({"start_method": "thread"}, "start_method is 'thread'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"max_errors": 1}, "max_errors is 1"),
        ({"dataset": iter([1])}, "shuffle is True; expected False with an iterable"),
        ({"dataset": iter([1]), "shuffle": False}, "epochs is None; expected 1 with an iterator"),
        (
            {"dataset": {1, 2}, "shuffle": False, "processes": 2},
            "processes is 2; expected 0 with an iterable",
        ),
        *(
            (
                {"dataset": {1, 2}, "shuffle": False, name: value},
                f"{name} is .*; expected .* with an iterable",
            )
            for name, value in {
                "seed": 5,
                "subset": [0],
                "split": ("train", 0.5),
                "stratify": True,
                "split_seed": 5,
                "weights": np.ones(2),
                "repeats": 2,
                "max_samples": 1,
                "keys": np.array(["a", "b"]),
            }.items()
        ),
        ({"weights": "balanced"}, r"needs one label for each sample, .*; give weights= as an array"),
    ],
)
def test_refused_arguments(options, text):
    with pytest.raises(ArgumentError, match=text):
        DatasetReader(**{"dataset": Numbers(), "batch_size": 4, **options})


def test_names_that_do_not_fit_the_samples():
    for options, text in (
        ({"names": ("a",)}, "names has 1 names, a, and the samples of the dataset have 2 values"),
        ({"names": {5: "a"}}, "sample 0 of the dataset has no value at 5; it has 2"),
        ({"ragged": ("x",)}, "ragged has 'x', and sample 0 has no such field"),
        ({"ragged": ("labels",)}, "ragged has 'labels', and sample 0 has one value"),
    ):
        with pytest.raises((ArgumentError, SampleError), match=text):
            only(Numbers(), **options)
    with pytest.raises(ArgumentError, match="tuples of 3 values; expected names="):
        only([(1, 2, 3)])
    with pytest.raises(ArgumentError, match="key 'a b'"):
        only([{"a b": 1}])


def test_no_samples():
    with pytest.raises(EmptyDatasetError, match="no samples"):
        DatasetReader([], 4)


def test_transforms_after_it():
    images = [np.arange(24, dtype=np.uint8).reshape(2, 4, 3) + index for index in range(4)]
    modules = [DatasetReader(images, 4, shuffle=False, epochs=1), Augmentations([FlipX(p=1)])]
    with Pipeline(modules) as pipeline:
        (batch,) = pipeline
    assert (batch.images == np.stack(images)[:, :, ::-1]).all()


class Stream:
    """Can only be iterated; counts how often."""

    def __init__(self, count=10, error=None):
        self.count, self.error, self.begun = count, error, 0

    def __iter__(self):
        self.begun += 1
        for index in range(self.count):
            yield {"x": index}
        if self.error is not None:
            raise self.error


def test_iterables_come_in_their_order_and_begin_again():
    stream = Stream()
    with Pipeline([DatasetReader(stream, 4, shuffle=False, epochs=2)]) as pipeline:
        for epoch in range(2):
            found = list(pipeline)
            assert [batch.x.tolist() for batch in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
            assert [(batch.epoch, batch.seq) for batch in found] == [(epoch, 0), (epoch, 1), (epoch, 2)]
            assert found[2].indices.tolist() == [8, 9]
        with pytest.raises(PipelineStateError, match="iterable"):
            pipeline.state_dict()
    assert stream.begun == 2
    with pytest.raises(UnknownLengthError, match="iterable"):
        len(DatasetReader(stream, 4, shuffle=False))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_rank_has_as_many_samples_of_an_iterable(world):
    found = [
        np.concatenate([b.x for b in batches(Stream(11), 2, shuffle=False, shard=(rank, world))])
        for rank in range(world)
    ]
    assert {len(part) for part in found} == {11 // world}
    assert sorted(np.concatenate(found).tolist()) == [*range(11 // world * world)]


def test_iterables_that_fail():
    with pytest.raises(SampleError, match="raised ValueError in place of sample 10: broken"):
        batches(Stream(error=ValueError("broken")), shuffle=False)
    with pytest.raises(EmptyDatasetError, match="too few samples"):
        batches(Stream(0), shuffle=False)
    with pytest.raises(SampleError, match="sample 1 of the iterable is a int; expected a mapping"):
        batches(iter([{"x": 1}, 5]), shuffle=False)
    with pytest.raises(ArgumentError, match=r"begins with .*DatasetReader"):
        replay.batch([DatasetReader(Stream(), 4, shuffle=False)], epoch=0, step=0)
    assert [batch.x.tolist() for batch in batches(iter([{"x": 1}, {"x": 2}]), shuffle=False)] == [[1, 2]]


def test_batches_do_not_share_memory_with_samples():
    samples = [np.zeros(100, np.float32) for _ in range(4)]
    batch = only(samples)
    batch.inputs[:] = 1
    assert not any(sample.any() for sample in samples)


def test_workers_read_at_the_same_time():
    meeting = threading.Barrier(2, timeout=LIMIT)

    class Meeting(Numbers):
        def __getitem__(self, index):
            # Not the reference, which is read alone.
            if index:
                meeting.wait()
            return super().__getitem__(index)

    found = batches(Meeting(5), 1, workers=2, shuffle=False, drop_last=False, epochs=1)
    assert len(found) == 5


def test_arrow_batches_of_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    table = pa.table(
        {
            "tokens": pa.array([[*range(index)] for index in range(N)], pa.list_(pa.int32())),
            "pair": pa.array([[index, index + 0.5] for index in range(N)], pa.list_(pa.float32(), 2)),
            "text": [f"text {index}" for index in range(N)],
            "label": pa.array(range(N), pa.int8()),
        }
    )
    pq.write_table(table, tmp_path / "data.parquet")
    data = datasets.Dataset.from_parquet(str(tmp_path / "data.parquet"), cache_dir=str(tmp_path / "cache"))
    for dataset in (data, data.with_format("numpy"), data.select(range(N))):
        batch = only(dataset)
        assert [batch.text_of("text", index) for index in range(N)] == table["text"].to_pylist()
        assert batch.label.tolist() == [*range(N)]
        assert (batch.pair == np.array([[index, index + 0.5] for index in range(N)])).all()
        for index in range(N):
            assert batch.rows_of("tokens", index).tolist() == [*range(index)]
    whole = only(data)
    assert whole.tokens.dtype == np.int32 and whole.pair.dtype == np.float32 and whole.label.dtype == np.int8


def test_texts_are_ragged_also_if_their_lengths_are_equal():
    batch = only(["ab", "cd"], names=("text",), ragged=())
    assert batch.ragged == {"text"} and batch.text_of("text", 1) == "cd"
    with pytest.raises(SampleError, match=r"sample 1 .* that is a bytes; expected a text"):
        only(["ab", b"cd"])
    with pytest.raises(SampleError, match=r"sample 1 .* that UTF-8 does not have"):
        only(["ab", "\ud800"])
