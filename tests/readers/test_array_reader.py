"""ArrayReader: rows of arrays and of mapped files, every one once, in memory of its own; what it refuses."""

from __future__ import annotations

import gc
import itertools
import pickle
import weakref

import numpy as np
import pytest
from concurrency import LIMIT

from highway.engine import Pipeline
from highway.errors import (
    ArgumentError,
    DecodeError,
    EmptyDatasetError,
    FieldError,
    ReadError,
    SignatureError,
    StateMismatchError,
)
from highway.modules import ArrayReader, Augmentations
from highway.sampling.sampler import Sampler
from highway.transforms import FlipX, FlipY, Normalize

N = 11


def images_of(dtype=np.uint8, shape=(5, 7, 3), count=N):
    return np.random.default_rng(1).integers(0, 200, (count, *shape)).astype(dtype)


def batches(*arguments, **options):
    with Pipeline([ArrayReader(*arguments, **{"epochs": 1, **options})]) as pipeline:
        return list(pipeline.forever())


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
def test_rows_in_the_order_of_the_seed(workers, shuffle, drop_last):
    images, labels = images_of(), np.arange(N) * 10
    options = {"shuffle": shuffle, "seed": 3, "epochs": 2, "shard": (1, 2), "drop_last": drop_last}
    order = list(Sampler(N, 2, **options))
    found = batches(images, labels, 2, workers=workers, **options)
    assert len(found) == len(order)
    for batch, task in zip(found, order, strict=True):
        assert (batch.epoch, batch.seq) == (task.epoch, task.seq)
        assert batch.indices.tolist() == task.indices.tolist()
        assert (batch.images == images[task.indices]).all()
        assert batch.labels.tolist() == (task.indices * 10).tolist()
        assert list(batch.fields) == ["images", "labels"]


@pytest.mark.parametrize(
    "dtype",
    ["u1", "<i2", ">i4", "f2", "<f4", ">f8", "c8", "?", "S3", "U2", "M8[s]", [("a", "i4"), ("b", "f8")]],
)
def test_any_dtype_but_object(dtype):
    images = images_of("u1", (3,)).astype(dtype)
    for batch in batches(images, None, 4):
        # The byte order is that of this machine.
        assert batch.images.dtype == np.dtype(dtype).newbyteorder("=")
        assert batch.images.tolist() == images[batch.indices].tolist()


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (1, 1, 1, 1), (2, 3, 4, 5)])
def test_any_shape(shape):
    images = images_of(np.int32, shape)
    for batch in batches(images, None, 3):
        assert (batch.images == images[batch.indices]).all()
        assert batch.images.shape == (batch.size, *shape)


def test_arrays_that_do_not_lie_in_one_piece():
    whole = images_of(count=2 * N, shape=(5, 7, 4))
    for images in (
        whole[::2],
        whole[N - 1 :: -1],
        whole[:N, :, ::-1, :3],
        np.asfortranarray(whole[:N]),
        whole[:N].transpose(0, 3, 1, 2),
        np.broadcast_to(whole[0], (N, 5, 7, 4)),
        whole[:N, 0, 0, 0],
        whole.reshape(-1)[1 : 1 + 4 * N].view(np.int32),
    ):
        for batch in batches(images, None, 4):
            assert batch.images.flags.c_contiguous
            assert (batch.images == images[batch.indices]).all()


def test_the_arrays_are_read_only_and_the_batches_are_not():
    images = images_of()
    images.flags.writeable = False
    before = images.copy()
    with Pipeline([ArrayReader(images, None, 4, epochs=1), Augmentations([FlipX(p=1)])]) as pipeline:
        for batch in pipeline:
            assert batch.images.flags.writeable
            assert not np.shares_memory(batch.images, images)
            assert (batch.images == images[batch.indices][:, :, ::-1]).all()
            batch.images[:] = 0
    assert (images == before).all()


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        (range(N), np.int64),
        (np.arange(N, dtype=np.uint8), np.int64),
        (np.arange(N) % 2 == 0, np.int64),
        (np.arange(N, dtype=">i4"), np.int64),
        (np.linspace(0, 1, N), np.float32),
        (np.eye(N, dtype=np.float16), np.float32),
        (np.arange(3 * N).reshape(N, 3), np.int64),
    ],
)
def test_labels_are_those_of_the_other_readers(labels, dtype):
    for batch in batches(images_of(), labels, 4):
        assert batch.labels.dtype == dtype
        assert (batch.labels == np.asarray(labels)[batch.indices].astype(dtype)).all()


def test_fields_and_keys():
    masks, weights = images_of(shape=(5, 7)), np.linspace(0, 1, N)
    keys = [f"sample {n}" for n in range(N)]
    for batch in batches(images_of(), None, 4, fields={"masks": masks, "weights": weights}, keys=keys):
        assert list(batch.fields) == ["images", "masks", "weights"]
        assert (batch.masks == masks[batch.indices]).all()
        assert batch.weights.dtype == np.float64
        assert batch.keys == [keys[index] for index in batch.indices]
    assert batches(images_of(), None, 4)[0].keys == []


def test_flips_and_normalize_behind_it():
    images = images_of()
    steps = [FlipX(), FlipY(), Normalize()]
    with Pipeline([ArrayReader(images, None, 4, epochs=1), Augmentations(steps, seed=2)]) as pipeline:
        found = {
            int(index): row
            for batch in pipeline
            for index, row in zip(batch.indices, batch.images, strict=True)
        }
    other = images[::-1].copy()[::-1]
    with Pipeline([ArrayReader(other, None, 1, epochs=1), Augmentations(steps, seed=2)]) as pipeline:
        for batch in pipeline:
            assert (found[int(batch.indices[0])] == batch.images[0]).all()


def test_the_shape_of_images_is_known():
    assert ArrayReader(images_of(), None, 2).image_shape == (5, 7, 3)
    assert ArrayReader(images_of(np.float32), None, 2).image_shape is None
    assert ArrayReader(images_of(shape=(5, 7)), None, 2).image_shape is None
    assert len(ArrayReader(images_of(), None, 2)) == 6


def test_the_arrays_are_held_as_long_as_the_pipeline():
    images = images_of()
    reference = weakref.ref(images)
    pipeline = Pipeline([ArrayReader(images, None, 4, epochs=1)])
    del images
    batch = pipeline.dequeue(timeout=LIMIT)
    pipeline.stop()
    del pipeline
    gc.collect()
    assert reference() is None
    assert batch.images.shape == (4, 5, 7, 3)


# Files


@pytest.mark.parametrize("fortran", [False, True])
def test_mapped_files(tmp_path, fortran):
    images, labels = images_of(), np.arange(N)
    np.save(tmp_path / "images.npy", np.asfortranarray(images) if fortran else images)
    np.save(tmp_path / "labels.npy", labels)
    for names in (lambda name: tmp_path / name, lambda name: str(tmp_path / name)):
        found = batches(names("images.npy"), names("labels.npy"), 3, fields={"again": names("images.npy")})
        assert sorted(label for batch in found for label in batch.labels) == list(range(N))
        for batch in found:
            assert (batch.images == images[batch.indices]).all()
            assert (batch.again == batch.images).all()
            assert type(batch.images) is np.ndarray


def test_files_that_cannot_be_mapped(tmp_path):
    good = tmp_path / "good.npy"
    np.save(good, images_of())
    whole = good.read_bytes()
    for contents in (
        b"",
        whole[:5],
        whole[:40],
        whole[:-1],
        whole[:128],
        b"PK" + whole,
        whole.replace(b"NUMPY\x01", b"NUMPY\x09"),
        whole.replace(b"'shape': (", b"'shape':  "),
        whole.replace(b"'descr'", b"b'desc'"),
    ):
        bad = tmp_path / "bad.npy"
        bad.write_bytes(contents)
        with pytest.raises(DecodeError, match=r"^ArrayReader: .*bad\.npy cannot be mapped as a \.npy file"):
            ArrayReader(bad, None, 2)
    np.save(tmp_path / "objects.npy", np.array([{}, 1], object), allow_pickle=True)
    with pytest.raises(DecodeError, match="objects"):
        ArrayReader(tmp_path / "objects.npy", None, 2)
    for name, named in (("none.npy", "No such file"), (".", "Is a directory")):
        with pytest.raises(ReadError, match=f"^ArrayReader: .* cannot be read: {named}"):
            ArrayReader(tmp_path / name, None, 2)


# What is refused


class OnAnotherDevice:
    def __array__(self, *arguments, **options):
        raise TypeError("on cuda:0")


def test_labels_beyond_int64_are_named():
    labels = np.array([2**63 - 1, 2**63], np.uint64)
    assert batches(images_of(count=1), labels[:1], 1)[0].labels.tolist() == [2**63 - 1]
    with pytest.raises(ArgumentError, match=r"^ArrayReader: labels has 9223372036854775808, .*in a mapping"):
        batches(images_of(count=2), labels, 2)
    assert {batch.labels[0] for batch in batches({"labels": labels}, 1)} == {*labels}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (
            {"images": np.array([{}], object)},
            "images is an array of object; .*, not objects; numpy.unique",
        ),
        ({"images": [[1], [1, 2]]}, "images is not an array; its rows differ"),
        ({"images": 3}, "images is 3; expected an array of rows"),
        ({"images": np.ma.masked_equal(np.arange(N), 3)}, "images is an array with masked values"),
        ({"images": OnAnotherDevice()}, "images is a OnAnotherDevice, which NumPy cannot take .*: on cuda:0"),
        ({"stride": np.array([1, 2])}, r"stride is array\(\[1, 2\]\), but there is no window"),
        ({"images": np.zeros(2, [("a", "i4"), ("b", object)])}, "expected numbers, not objects"),
        ({"labels": range(N - 1)}, "labels has 10 rows, images 11; expected as many"),
        ({"labels": ["a"] * N}, "labels is an array of <U1"),
        (
            {"labels": np.zeros((N, 2, 2))},
            r"labels is an array of float64 and shape \(11, 2, 2\); .*as fields",
        ),
        ({"fields": {"more": np.zeros(3)}}, "more has 3 rows, images 11"),
        ({"fields": {"more": None}}, "more is an array of object"),
        ({"fields": [np.zeros(N)]}, "fields is a list; expected arrays by their names"),
        ({"fields": {"images": np.zeros(N)}}, "fields has 'images', which is a separate argument"),
        ({"keys": ["a"]}, "keys is a list with 1 names; expected 11"),
        ({"keys": "abcdefghijk"}, "keys is a str"),
        ({"keys": range(N)}, "keys is a range"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"shuffle": 1}, "shuffle is of type int"),
        ({"workers": 0}, "workers is 0"),
        ({"batch_size": 12, "drop_last": True}, "drop_last leaves nothing"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(ArgumentError, match=f"^ArrayReader: .*{named}"):
        ArrayReader(**{"images": images_of(), "labels": None, "batch_size": 2, **arguments})


def test_names_that_cannot_be_fields():
    for name in ("size", "_x", "a b"):
        with pytest.raises(ArgumentError, match=f"'{name}' cannot name a field"):
            ArrayReader(images_of(), None, 2, fields={name: np.zeros(N)})


def test_no_rows():
    with pytest.raises(EmptyDatasetError, match=r"^ArrayReader: images has no rows"):
        ArrayReader(np.zeros((0, 2, 2, 3), np.uint8), None, 2)


def test_there_is_no_field_without_labels():
    with pytest.raises(FieldError):
        _ = batches(images_of(), None, 4)[0].labels


# Its state


def test_the_fingerprint_is_that_of_names_shapes_and_dtypes(tmp_path):
    images, labels = images_of(), np.arange(N)
    known = ArrayReader(images, labels, 4).fingerprint()
    np.save(tmp_path / "a.npy", images)
    for same in (
        ArrayReader(images + 1, labels[::-1], 4),
        ArrayReader(tmp_path / "a.npy", labels, 4),
        ArrayReader(images, labels, 4, keys=["x"] * N, epochs=3),
    ):
        assert same.fingerprint() == known
    for other in (
        ArrayReader(images[:, 1:], labels, 4),
        ArrayReader(images.astype(np.int16), labels, 4),
        ArrayReader(images, None, 4),
        ArrayReader(images, labels.astype(np.int32), 4),
        ArrayReader(images, labels, 4, fields={"more": labels}),
        ArrayReader(images, labels, 4, seed=1),
        ArrayReader(images, labels, 5),
    ):
        assert other.fingerprint() != known


def test_other_arrays_are_another_state():
    with Pipeline([ArrayReader(images_of(), None, 4)]) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
    assert state["kind"] == "ArrayReader"
    with Pipeline([ArrayReader(images_of()[:, 1:], None, 4)]) as pipeline:
        with pytest.raises(StateMismatchError, match="fingerprint"):
            pipeline.load_state_dict(state)
        assert pipeline.dequeue(timeout=LIMIT).seq == 0
    with Pipeline([ArrayReader(images_of(), None, 3, epochs=1)]) as pipeline:
        pipeline.load_state_dict(state)
        assert [batch.size for batch in pipeline] == [3, 3, 1]


# Arrays by name


TABLE = np.random.default_rng(4).random((N, 6), np.float32)
TARGET = np.arange(N, dtype=np.uint8)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (({"x": TABLE, "y": TARGET}, 4), {}),
        (({"x": TABLE, "y": TARGET},), {"batch_size": 4}),
        ((), {"x": TABLE, "y": TARGET, "batch_size": 4}),
        ((), {"x": TABLE, "fields": {"y": TARGET}, "batch_size": 4}),
        (({"x": TABLE}, 4), {"y": TARGET}),
    ],
)
def test_any_arrays_by_name_as_they_are(arguments, options):
    found = batches(*arguments, **options, shuffle=False)
    assert [batch.size for batch in found] == [4, 4, 3]
    for batch in found:
        assert list(batch.fields) == ["x", "y"]
        x, y = batch
        assert (x == TABLE[batch.indices]).all()
        assert y.dtype == np.uint8
        assert y.tolist() == batch.indices.tolist()


def test_labels_are_converted_as_an_argument_and_not_in_a_mapping():
    (batch,) = batches(x=TABLE, labels=TARGET, batch_size=N)
    assert batch.labels.dtype == np.int64
    assert list(batch.fields) == ["labels", "x"]
    (batch,) = batches({"labels": TARGET, "x": TABLE}, N)
    assert batch.labels.dtype == np.uint8


def test_arrays_by_name_have_the_order_and_state_of_the_others():
    one = ArrayReader({"images": images_of(), "labels": np.arange(N)}, 4, seed=5)
    other = ArrayReader(images_of(), np.arange(N), 4, seed=5)
    assert one.fingerprint() == other.fingerprint()
    tasks = zip(itertools.islice(one.order, 9), other.order, strict=False)
    assert all((one.indices == other.indices).all() for one, other in tasks)
    assert one.image_shape == (5, 7, 3)


def test_a_reader_of_named_arrays_is_a_specification():
    reader = ArrayReader(x=TABLE, y=TARGET, batch_size=4, seed=3)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy == reader
    assert copy != ArrayReader(x=TABLE + 1, y=TARGET, batch_size=4, seed=3)
    assert repr(copy) == "<ArrayReader of x=float32[11, 6], y=uint8[11], 4>"


@pytest.mark.parametrize(
    ("call", "error", "named"),
    [
        (lambda: ArrayReader(TABLE, 4), ArgumentError, "batch_size is missing"),
        (lambda: ArrayReader(TABLE, TARGET), SignatureError, "'batch_size' is missing"),
        (lambda: ArrayReader({"x": TABLE}), SignatureError, "'batch_size' is missing"),
        (lambda: ArrayReader(batch_size=4), ArgumentError, "there are no arrays"),
        (lambda: ArrayReader({}, 4), ArgumentError, "there are no arrays"),
        (
            lambda: ArrayReader(x=TABLE, batch_size=4, shufle=True),
            SignatureError,
            "unknown argument 'shufle': did you mean 'shuffle'",
        ),
        (lambda: ArrayReader(x=TABLE, batch_size=4, mode="gray"), SignatureError, "unknown argument 'mode'"),
        # Paths, not arguments.
        (
            lambda: ArrayReader(x="a.npz:x", batch_size=4),
            ArgumentError,
            "x is 'a.npz:x'; expected an array, or",
        ),
        (lambda: ArrayReader(x="a.bin", batch_size=4), ArgumentError, "ends in .npy, .npz, .zarr, .h5"),
        (
            lambda: ArrayReader([[1, 2], [3]], [0, 1], 2),
            ArgumentError,
            "differ in shape .DatasetReader reads such",
        ),
        (lambda: ArrayReader(x=TABLE, batch_size=4, layout="NHW"), ArgumentError, r'layout=\{"x": "NHW"\}'),
        (lambda: ArrayReader({"x": TABLE}, 4, x=TABLE), ArgumentError, "x is given twice"),
        (lambda: ArrayReader({"x": TABLE}, 4, fields={"x": TABLE}), ArgumentError, "x is given twice"),
        (lambda: ArrayReader(x=TABLE, y=TARGET[:5], batch_size=4), ArgumentError, "y has 5 rows, x 11;"),
        (lambda: ArrayReader(x=TABLE, y=[{}] * N, batch_size=4), ArgumentError, "y is an array of object"),
        (lambda: ArrayReader(x=TABLE[:0], batch_size=4), EmptyDatasetError, "x has no rows"),
        (lambda: ArrayReader({"x": 3}, 4), ArgumentError, "x is 3; expected an array of rows"),
    ],
)
def test_wrong_arrays_by_name(call, error, named):
    with pytest.raises(error, match=f"^ArrayReader: .*{named}"):
        call()


# Layouts


def test_gray_images_pass_transforms_of_images():
    digits = images_of(shape=(28, 28))
    reader = ArrayReader(digits, np.arange(N), 4, layout="NHW", epochs=1)
    assert reader.image_shape == (28, 28, 1)
    with Pipeline([reader, Augmentations([FlipX(p=1), Normalize(0.13, 0.31)])]) as pipeline:
        for batch in pipeline:
            expected = (digits[batch.indices][:, None, :, ::-1] / 255 - 0.13) / 0.31
            np.testing.assert_allclose(batch.images, expected, atol=1e-5)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">f4", "f8", "c16"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_planar_images_become_channels_last(dtype, channels):
    images = images_of(dtype, (channels, 6, 4))
    for given in (images, np.asfortranarray(images), images[:, ::-1]):
        reader = ArrayReader(given, None, 4, layout="NCHW", epochs=1)
        spec = reader.out_spec(None)["images"]
        assert spec.shape == (None, 6, 4, channels)
        with Pipeline([reader]) as pipeline:
            for batch in pipeline:
                assert batch.images.dtype == spec.dtype == np.dtype(dtype).newbyteorder("=")
                assert batch.images.flags.c_contiguous
                assert (batch.images == given[batch.indices].transpose(0, 2, 3, 1)).all()


def test_layouts_of_named_arrays():
    depth = images_of(np.float32, (5, 7))
    found = batches({"images": images_of(), "depth": depth}, 4, layout={"images": "NHWC", "depth": "NHW"})
    for batch in found:
        assert (batch.depth == depth[batch.indices][..., None]).all()
        assert (batch.images == images_of()[batch.indices]).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"layout": "NHWC"}, "images has shape \\(11, 5, 7\\), for layout 'NHWC'; expected 4 dimensions"),
        ({"layout": "HWC"}, "layout of images is 'HWC'"),
        ({"layout": 3}, "layout of images is 3"),
        ({"layout": {"depth": "NHW"}}, "layout is for 'depth'; expected one of the arrays, images"),
        ({"layout": "NHW", "window": (2, 2)}, "images has a layout, 'NHW', and windows of 2 x 2"),
    ],
)
def test_wrong_layouts(options, named):
    with pytest.raises(ArgumentError, match=f"^ArrayReader: {named}"):
        ArrayReader(images_of(shape=(5, 7)), None, 4, **options)
