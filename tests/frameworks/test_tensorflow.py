"""A pipeline as a dataset of TensorFlow."""

import os

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install tensorflow")

from framework_programs import programs, run  # noqa: E402
from pictures import class_folders  # noqa: E402

from highway.batch import Batch  # noqa: E402
from highway.engine import Pipeline, Source  # noqa: E402
from highway.errors import ArgumentError  # noqa: E402
from highway.modules import ArrayReader, Augmentations, DatasetReader, Noise, PadBoxes  # noqa: E402
from highway.tensorflow import dataset  # noqa: E402
from highway.transforms import FlipX, Normalize, Transform  # noqa: E402

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 6, 8, 3), np.uint8)
LABELS = np.arange(10)


def reader(**options):
    return ArrayReader(IMAGES, LABELS, 4, **options)


class Boxes(Source):
    def tasks(self):
        return iter(range(2))

    def load(self, task):
        fields = {"images": IMAGES[:2], "boxes": np.ones((3, 4), np.float32)}
        return Batch(fields, offsets=[0, 1, 3], ragged=["boxes"])

    def out_spec(self, before):
        with Pipeline([ArrayReader(IMAGES, None, 1)]) as pipeline:
            images = pipeline.spec["images"]
        return {"images": images, "boxes": type(images)(np.dtype(np.float32), (None, 4), ragged=True)}


def test_an_iteration_is_the_next_epoch():
    with Pipeline([reader(epochs=3)]) as pipeline, Pipeline([reader(epochs=3)]) as expected:
        found = dataset(pipeline)
        assert found.element_spec == (
            tf.TensorSpec((None, 6, 8, 3), tf.uint8, "images"),
            tf.TensorSpec((None,), tf.int64, "labels"),
        )
        for _ in range(3):
            for (images, labels), batch in zip(found, expected, strict=True):
                assert np.array_equal(images, batch.images)
                assert np.array_equal(labels, batch.labels)
        with pytest.raises(tf.errors.OpError, match=r"there is no epoch 3|all batches were delivered"):
            next(iter(found))


def test_a_break_ends_the_epoch():
    with Pipeline([reader()]) as pipeline, Pipeline([reader()]) as expected:
        found = dataset(pipeline)
        next(iter(found))
        wanted = [batch.labels.tolist() for batch in expected.epoch(1)]
        assert [labels.numpy().tolist() for _, labels in found] == wanted


def test_methods_of_tensorflow_follow():
    with Pipeline([reader()]) as pipeline, Pipeline([reader()]) as expected:
        found = dataset(pipeline).repeat(2).map(lambda images, labels: labels).prefetch(2)
        wanted = [batch.labels.tolist() for _ in range(2) for batch in expected]
        assert [labels.numpy().tolist() for labels in found] == wanted


def test_dicts():
    stages = [Augmentations([FlipX(), Normalize(dtype="float16")])]
    with Pipeline([reader(), *stages]) as pipeline:
        found = dataset(pipeline, as_dict=True)
        assert found.element_spec["images"] == tf.TensorSpec((None, 3, 6, 8), tf.float16, "images")
        assert [element["images"].shape[0] for element in found] == [4, 4, 2]


def test_the_rest_of_an_epoch():
    with Pipeline([reader()]) as pipeline, Pipeline([reader()]) as resumed:
        next(iter(pipeline))
        resumed.load_state_dict(pipeline.state_dict())
        found = dataset(resumed)
        assert [sum(1 for _ in found) for _ in range(2)] == [2, 3]


class Unknown(Transform):
    def apply_images(self, images, params):
        return images[:, ::2]


def test_fields_that_are_not_known_are_given():
    with Pipeline([reader(), Augmentations([Unknown()])]) as pipeline:
        with pytest.raises(ArgumentError, match=r"field 'images' is FieldSpec\(.*expected spec={'images'"):
            dataset(pipeline)
        spec = {"images": ("uint8", (None, None, 8, 3)), "labels": ("int64", (None,))}
        assert [images.shape[1] for images, _ in dataset(pipeline, spec=spec)] == [3, 3, 3]
        with pytest.raises(
            tf.errors.OpError, match="has the fields images, labels; expected those of the spec: images"
        ):
            next(iter(dataset(pipeline, spec={"images": spec["images"]})))


@pytest.mark.parametrize("spec", [5, {"images": 5}, {"images": ("uint8",)}, {"images": ("uint8", None)}])
def test_a_spec_that_is_none_is_refused(spec):
    with Pipeline([reader()]) as pipeline, pytest.raises(ArgumentError, match=r"expected spec=\{'images'"):
        dataset(pipeline, spec=spec)


def test_what_is_no_pipeline_is_refused():
    with pytest.raises(ArgumentError, match=r"pipeline is \[Noise.*\]; expected a Pipeline"):
        dataset([Noise(4, 8)])


def test_ragged_fields_are_ragged_tensors():
    with Pipeline([Boxes()]) as pipeline:
        found = dataset(pipeline, as_dict=True)
        assert found.element_spec["boxes"] == tf.RaggedTensorSpec(
            (None, None, 4), tf.float32, ragged_rank=1, row_splits_dtype=tf.int64
        )
        boxes = next(iter(found))["boxes"]
        assert isinstance(boxes, tf.RaggedTensor)
        assert boxes.row_splits.numpy().tolist() == [0, 1, 3]
        assert boxes.to_tensor().shape == (2, 2, 4)
    with Pipeline([Boxes(), PadBoxes(3)]) as pipeline:
        _, boxes, counts = next(iter(dataset(pipeline)))
        assert boxes.shape == (2, 3, 4)
        assert counts.numpy().tolist() == [1, 2]


def test_each_ragged_field_has_its_own_rows():
    samples = [
        {"tokens": np.arange(n), "words": np.arange(2.0 * n).reshape(-1, 2)[: n // 2], "n": n}
        for n in range(9)
    ]
    reader = DatasetReader(samples, 4, ragged=["tokens", "words"], seed=2)
    spec = {
        "tokens": ("int64", (None,), True),
        "words": ("float64", (None, 2), True),
        "n": ("int64", (None,)),
    }
    with Pipeline([reader]) as pipeline, Pipeline([reader]) as expected:
        for elements, batch in zip(dataset(pipeline, spec=spec, as_dict=True), expected, strict=True):
            for row in range(batch.size):
                for name in ("tokens", "words"):
                    assert np.array_equal(elements[name][row], batch.rows_of(name, row))
        counts = dataset(pipeline, spec=spec).map(
            lambda tokens, words, n: tf.reduce_all(tokens.row_lengths() == n)
        )
        assert all(counts)


@pytest.mark.parametrize("ragged", [True, False])
def test_a_field_is_ragged_in_all_batches_or_in_none(ragged):
    samples = [{"tokens": np.arange(5 if ragged else n)} for n in range(4)]
    spec = {"tokens": ("int64", (None, *((None,) if not ragged else ())), ragged)}
    found = "is not ragged, and ragged in the spec" if ragged else "is ragged, and not ragged in the spec"
    with Pipeline([DatasetReader(samples, 4)]) as pipeline, pytest.raises(tf.errors.OpError, match=found):
        next(iter(dataset(pipeline, spec=spec)))


def test_keras_trains_on_it():
    os.environ["KERAS_BACKEND"] = "tensorflow"
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras was imported with another backend")
    layers = [keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    model = keras.Sequential(layers)
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy")
    with Pipeline([reader(epochs=2)]) as pipeline, Pipeline([reader()]) as validation:
        counted = tf.data.experimental.assert_cardinality(len(pipeline))
        training, validating = dataset(pipeline).apply(counted), dataset(validation).apply(counted)
        history = model.fit(training, validation_data=validating, epochs=2, shuffle=False, verbose=0)
        assert len(history.history["val_loss"]) == 2


def test_program_of_the_document(tmp_path):
    class_folders(tmp_path / "demo-output" / "photos", classes=4, each=20)
    output = run("-c", programs("docs/keras.md")["train_tensorflow.py"], folder=tmp_path)
    assert output.count("(16, 64, 64, 3) (16,)") == 10
