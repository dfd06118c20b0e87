"""A pipeline as a dataset of Keras, on its three backends, each in a process of its own."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from framework_programs import programs, run
from pictures import class_folders

from highway.engine import Pipeline
from highway.modules import ArrayReader

PROGRAM = Path(__file__).with_name("keras_fit.py")
BACKENDS = ("jax", "torch", "tensorflow")
COUNT = 50


def run_with(backend, *arguments, **options):
    """Run Python with this backend of Keras, and return its output."""
    for name in ("keras", backend):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install keras {backend}")
    return run(*arguments, KERAS_BACKEND=backend, **options)


@pytest.fixture(scope="module", params=BACKENDS)
def trained(request):
    return json.loads(run_with(request.param, str(PROGRAM)))


@pytest.fixture(scope="module")
def epochs():
    """The samples of each epoch, batch by batch."""
    labels = np.arange(COUNT)
    with Pipeline([ArrayReader(labels.astype(np.uint8), labels, 4)]) as pipeline:
        return [[batch.labels.tolist() for batch in pipeline] for _ in range(6)]


def test_training_sees_the_epochs_of_the_pipeline_in_order(trained, epochs):
    assert len(trained["fits"]) == 4
    for fit in trained["fits"]:
        assert fit["fit"] == [batch for epoch in epochs[:3] for batch in epoch]
        assert fit["again"] == epochs[3]


def test_validation_is_whole_every_time(trained):
    whole = [list(range(first, min(first + 7, COUNT))) for first in range(0, COUNT, 7)]
    for fit in trained["fits"]:
        assert fit["validation"] == 3 * whole


def test_evaluate_and_predict_see_the_next_epochs(trained, epochs):
    for fit in trained["fits"]:
        assert fit["evaluate"] == epochs[4]
        assert fit["predict"] == epochs[5]


def test_steps_per_epoch_continue_in_the_data(trained, epochs):
    assert trained["steps"] == epochs[0][:10]


def test_a_pass_that_ends_early_is_over(trained, epochs):
    assert trained["after_an_early_end"] == epochs[1][:6] + epochs[2]


CHECKS = """
import numpy as np
import pytest
import keras
from highway.batch import Batch
from highway.engine import Pipeline, Source, Stage
from highway.errors import (
    ArgumentError, EndOfData, FieldError, PipelineStateError, StateMismatchError, UnknownLengthError
)
from highway.keras import Dataset
from highway.modules import ArrayReader, PadBoxes
from highway.sampling import schedule

def reader(batch_size=4, **options):
    images = np.zeros((10, 4, 4, 3), np.uint8)
    fields = {"weights": np.ones(10, np.float32), "other": np.arange(10)}
    return ArrayReader(images, np.arange(10), batch_size, fields=fields, **options)

class Boxes(Source):
    def __len__(self):
        return 2
    def tasks(self):
        return iter(range(2))
    def load(self, task):
        fields = {"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.ones(3, np.int64)}
        return Batch(fields, offsets=[0, 1, 3], ragged=["labels"])

class Endless(Source):
    def tasks(self):
        return iter(range(2))
    def load(self, task):
        return Batch({"images": np.zeros((2, 4), np.uint8)})

with Pipeline([reader(epochs=2)]) as pipeline:
    data = Dataset(pipeline, x=["images", "other"], y="labels", sample_weight="weights")
    assert isinstance(data, keras.utils.PyDataset)
    assert (len(data), data.num_batches, data.workers, data.use_multiprocessing) == (3, 3, 1, False)
    x, y, weights = data[0]
    assert list(x) == ["images", "other"]
    assert y.shape == weights.shape == (4,)
    assert [len(y) for _, y, _ in data] == [4, 4, 2]
    for index in (-1, 3):
        with pytest.raises(IndexError, match="expected 0 to 2"):
            data[index]
    list(data)
    with pytest.raises(EndOfData, match="no epoch 2|all batches were delivered"):
        data[0]

with Pipeline([reader()]) as pipeline:
    assert [len(part) for part in Dataset(pipeline, y=None)[0]] == [4]
    for wrong in ({"x": None}, {"x": 5}, {"y": []}, {"sample_weight": [1]}, {"y": None, "sample_weight": "weights"}):
        with pytest.raises(ArgumentError, match="Dataset: "):
            Dataset(pipeline, **wrong)
    with pytest.raises(FieldError, match="no field 'masks'"):
        Dataset(pipeline, y="masks")[0]
    with pytest.raises(ArgumentError, match="expected a Pipeline"):
        Dataset([reader()])

with Pipeline([Boxes()]) as pipeline:
    with pytest.raises(ArgumentError, match="labels: samples have different numbers of rows.*PadBoxes"):
        Dataset(pipeline)[0]
with Pipeline([Boxes(), PadBoxes(3)]) as pipeline:
    assert [part.shape for part in Dataset(pipeline)[0]] == [(2, 4, 4, 3), (2, 3)]
with Pipeline([Endless()]) as pipeline, pytest.raises(UnknownLengthError):
    Dataset(pipeline)

with Pipeline([reader(schedule({0: 4, 1: 10, 2: 1}), epochs=3)]) as pipeline:
    data = Dataset(pipeline)
    for count in (3, 1, 10):
        assert len(data) == count
        assert sum(len(data[index][1]) for index in range(count)) == 10

class Drops(Stage):
    def process(self, batch):
        return None if batch.seq == 6 else batch

with Pipeline([reader(1), Drops()]) as pipeline:
    data = Dataset(pipeline)
    assert len([data[index] for index in range(9)]) == 9
    with pytest.raises(PipelineStateError, match="ended after 9 batches; expected 10"):
        data[9]
    del data

def labels(data, count):
    return [data[index][1].tolist() for index in range(count)]

def place(data):
    state = data.state_dict()
    return state["epoch"], state["position"]

with Pipeline([reader(1)]) as pipeline:
    data = Dataset(pipeline)
    epochs = [labels(data, 10) for _ in range(4)]
    assert len(data) == data.num_batches == 10
    with pytest.raises(PipelineStateError, match="give fit callbacks="):
        data.state_dict()
    callback = data.callback()
    assert isinstance(callback, keras.callbacks.Callback)
    # Two batches to build the model, which come again.
    building = labels(data, 2)
    callback.on_train_begin()
    assert place(data) == (4, 0)
    assert data.num_batches == 10
    assert labels(data, 7)[:2] == building
    for batch, position in ((0, 1), (1, 2), (4, 5)):
        callback.on_train_batch_end(batch)
        assert place(data) == (4, position)
    state = data.state_dict()

with Pipeline([reader(1)]) as pipeline:
    data = Dataset(pipeline)
    # Batches to look at, before there is a callback, come again.
    seen = labels(data, 2)
    callback = data.callback()
    assert place(data) == (0, 0)
    callback.on_train_begin()
    assert data.num_batches == 10
    assert labels(data, 4)[:2] == seen
    assert place(data) == (0, 0)
    for batch in range(3):
        callback.on_train_batch_end(batch)
        assert place(data) == (0, batch + 1)

with Pipeline([reader(1)]) as pipeline, Pipeline([reader(1)]) as other:
    data = Dataset(other)
    callback = data.callback()
    assert data.state_dict() == other.state_dict()
    labels(data, 3)
    for rest in (5, 1, 2):
        data.load_state_dict({**state, "position": 10 - rest})
        assert len(data) == data.num_batches == rest
        # Those that build the model come again, also if they are the whole rest.
        building = labels(data, min(rest, 2))
        assert place(data) == (4, 10 - rest)
        assert data.num_batches == 10 if rest <= 2 else rest
        callback.on_train_begin()
        assert len(data) == data.num_batches == rest
        callback.on_epoch_begin(4)
        expected = [batch.labels.tolist() for batch in pipeline.epoch(4)][10 - rest :]
        assert labels(data, rest) == expected
        assert building == expected[:2]
        # A step of Keras may be several batches, also where fewer are left.
        callback.on_train_batch_end(7)
        assert place(data) == (5, 0)
        # A fit of a model that is built.
        callback.on_train_begin()
        assert data.num_batches == 10
        with pytest.raises(IndexError, match="there is no batch 10; expected 0 to 9"):
            data[10]
        assert labels(data, 10) == [batch.labels.tolist() for batch in pipeline.epoch(5)]
    with pytest.raises(StateMismatchError):
        data.load_state_dict({**state, "seed": 5})

with Pipeline([reader(1)], ordered=False) as pipeline:
    data = Dataset(pipeline)
    callback = data.callback()
    assert len(labels(data, 10)) == 10
    callback.on_train_batch_end(9)
    with pytest.raises(PipelineStateError):
        data.state_dict()
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_arguments_and_errors(backend):
    run_with(backend, "-c", CHECKS)


def test_a_missing_backend_is_named():
    program = """
import sys
sys.modules["tensorflow"] = None
from highway.errors import MissingPackageError
try:
    import highway.keras
except MissingPackageError as error:
    print(error)
"""
    if find_spec("keras") is None:
        pytest.skip("keras is not installed: pip install keras")
    output = run("-c", program, KERAS_BACKEND="tensorflow")
    assert "tensorflow" in output
    assert "set KERAS_BACKEND to one that is installed" in output


@pytest.mark.parametrize("backend", BACKENDS)
def test_program_of_the_document(backend, tmp_path):
    class_folders(tmp_path / "demo-output" / "photos", classes=4, each=20)
    shown = programs("docs/keras.md")
    assert list(shown) == ["train_keras.py", "resume_keras.py", "train_tensorflow.py"]
    output = run_with(backend, "-c", shown["train_keras.py"], folder=tmp_path)
    assert len(re.findall(r"val_loss: \d", output)) == 2
