"""Sources whose images lie in memory do the first crops, flips and Normalize behind them: with equal bits."""

import struct

import numpy as np
import pytest
from voc_folders import annotation, thing, voc_folder

from highway.engine import Pipeline, Stage
from highway.errors import ArgumentError, ContractError
from highway.modules import ArrayReader, Augmentations, LevelDBSink, LevelDBSource, VOCReader
from highway.transforms import (
    CenterCrop,
    ColorJitter,
    FlipX,
    FlipY,
    Normalize,
    Pad,
    RandomCrop,
    Rescale,
    Resize,
    Rotate,
    Slice,
    ToFloat,
    Transpose,
)

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 19, 17, 3), np.uint8)
LABELS = np.arange(23)
LIMIT = 60

CHAINS = {
    "crop, flip, normalize": ([RandomCrop((11, 12)), FlipX(), Normalize()], 3),
    "only normalize": ([Normalize(dtype="float16", layout="NHWC")], 1),
    "only crops": ([FlipY(), RandomCrop(9), Slice(1, 2, 5, 4), FlipX()], 4),
    "half planar": ([CenterCrop(8), ToFloat(dtype="float16")], 2),
    "bfloat16": ([CenterCrop(8), Normalize(layout="NHWC", dtype="bfloat16")], 2),
    "numbers apart": ([FlipX(0.3), Rescale(2, layout="NHWC"), FlipX()], 2),
    "color behind": ([RandomCrop(12), ColorJitter(0.4), FlipX(), Normalize()], 1),
    "padding first": ([Pad(3), RandomCrop(12), Normalize()], 0),
    "padding behind": ([FlipX(), RandomCrop(12, padding=2), Normalize()], 1),
    "crop of a warp": ([RandomCrop(12), Rotate(20)], 0),
    "flip of a warp": ([FlipX(), Rotate(20)], 0),
    "crops of a fit": ([FlipX(), RandomCrop(12), Pad(1), Resize((9, 8))], 0),
    "center of less": ([CenterCrop((30, 8), fill=9), FlipX(), Normalize()], 0),
    "center of a crop that is less": ([RandomCrop(9), CenterCrop(12), FlipY(), Normalize()], 1),
    "odd margins": ([RandomCrop((18, 16)), CenterCrop((11, 9)), FlipX(), Normalize()], 4),
    "other first": ([Transpose(1), FlipX()], 0),
}


class Apart(Stage):
    """Hands every batch on, and keeps the source from doing what stands behind."""

    def process(self, batch):
        return batch


class Swapping(FlipX):
    """A flip that changes labels: nobody else can do it."""

    def apply_labels(self, labels, params):
        return np.where(params, -labels, labels)


def arrays(**more):
    return ArrayReader(IMAGES, LABELS, 5, **{"seed": 3, "epochs": 2, **more})


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    pytest.importorskip(
        "plyvel", reason="plyvel is not installed; it has no wheels for Python 3.13 and later"
    )
    path = tmp_path_factory.mktemp("ready") / "s"
    with Pipeline([arrays(epochs=1, shuffle=False), LevelDBSink(path)]) as pipeline:
        pipeline.wait(LIMIT)
    return path


@pytest.fixture(params=["arrays", "store"])
def source(request):
    if request.param == "arrays":
        return arrays
    path = request.getfixturevalue("path")
    return lambda **more: LevelDBSource(path, 5, **{"seed": 3, "epochs": 2, **more})


def batches(*modules):
    return batches_and_stage(*modules)[0]


def batches_and_stage(*modules):
    """The batches of a pipeline, and its last module, with what it has left to do."""
    with Pipeline(modules) as pipeline:
        return list(pipeline.forever()), pipeline.modules[-1]


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (*one.fields,) == (*other.fields,) and one.applied == other.applied
        assert one.indices.tolist() == other.indices.tolist() and one.keys == other.keys
        for name in other.fields:
            np.testing.assert_array_equal(one[name], other[name], strict=True, err_msg=name)


@pytest.mark.parametrize("chain", CHAINS)
def test_same_bits_as_behind(source, chain):
    transforms, done = CHAINS[chain]
    reader = source()
    for workers in (1, 3):
        reader = source(workers=workers)
        found, together = batches_and_stage(reader, Augmentations(transforms, seed=7))
        assert together.fused == done
        assert_equal(found, batches(source(), Apart(), Augmentations(transforms, seed=7)))


def test_deterministic_forms_are_done_too(source):
    transforms = [RandomCrop(10), FlipX(), Normalize()]
    expected = batches(source(), Apart(), Augmentations(transforms, deterministic=True))
    assert_equal(batches(source(), Augmentations(transforms, deterministic=True)), expected)


@pytest.mark.parametrize(("size", "crop"), [((224, 224), 224), ((236, 240), 229), ((64, 1100), (60, 1048))])
def test_large_batches_have_the_same_bits(simd_variant, size, crop):
    """Of numbers that go past the caches, in rows that are longer than what is written at once, and of any length."""
    rows = np.random.default_rng(1).integers(0, 256, (40, *size, 3), np.uint8)
    transforms = [RandomCrop(crop), FlipX()]
    reader = ArrayReader(rows, None, 40, epochs=1)
    (found,) = batches(reader, Augmentations([*transforms, Normalize()]))
    assert found.images.nbytes > 16 << 20
    (plain,) = batches(ArrayReader(rows, None, 40, epochs=1), Apart(), Augmentations(transforms))
    scale, bias = Normalize().factors(3)
    expected = plain.images.astype(np.float32) * scale + bias
    np.testing.assert_array_equal(found.images, expected.transpose(0, 3, 1, 2))


def test_what_only_the_transform_can_do_is_left_to_it(source):
    found, together = batches_and_stage(source(), Augmentations([Swapping(), Normalize()]))
    assert together.fused == 0
    assert_equal(found, batches(source(), Apart(), Augmentations([Swapping(), Normalize()])))
    assert any((batch.labels < 0).any() for batch in found)


def test_images_that_are_no_bytes_in_one_piece_are_left():
    for images in (IMAGES.astype(np.float32), IMAGES[:, ::2]):
        reader = ArrayReader(images, LABELS, 5, epochs=1)
        found, together = batches_and_stage(reader, Augmentations([FlipX()]))
        assert together.fused == 0
        assert_equal(
            found, batches(ArrayReader(images, LABELS, 5, epochs=1), Apart(), Augmentations([FlipX()]))
        )


def test_fields_with_something_for_each_pixel_keep_the_source_from_moving_images():
    depth = np.broadcast_to(np.arange(23, dtype=np.float32)[:, None, None], (23, 19, 17))

    def made(name, array, kinds, *between):
        reader = ArrayReader(IMAGES, LABELS, 5, epochs=1, fields={name: array})
        return batches_and_stage(reader, *between, Augmentations([FlipX(), RandomCrop(9)], fields=kinds))

    for name, array, kinds, done in (
        ("depth", depth, {"depth": "mask"}, 0),
        ("depth", depth, {"depth": None}, 0),
        ("scores", depth[:, :4], None, 2),
    ):
        found, together = made(name, array, kinds)
        assert together.fused == done
        assert_equal(found, made(name, array, kinds, Apart())[0])
    with pytest.raises(ContractError, match="the per-pixel field 'flow'"):
        made("flow", depth[:, None], None)


def test_planar_bytes_are_refused():
    images = np.zeros((8, 3, 32, 32), np.uint8)
    for transforms in (
        [FlipY(p=1)],
        [RandomCrop(2), ToFloat()],
        [Resize(10)],
    ):
        with pytest.raises(ArgumentError, match=r"expected \(N, H, W, C\): images.transpose\(0, 2, 3, 1\)"):
            batches(ArrayReader(images, np.arange(8), 4, epochs=1), Augmentations(transforms))


def test_lines_of_many_channels_are_images():
    images = np.random.default_rng(0).integers(0, 256, (8, 3, 64, 12), np.uint8)
    chain = Augmentations([FlipX(p=1), RandomCrop((1, 30)), FlipY(p=1)])
    for batch in batches(ArrayReader(images, np.arange(8), 4, epochs=1), chain):
        assert batch.images.shape == (4, 1, 30, 12)


def test_images_without_pixels_come_as_they_are():
    images = np.zeros((7, 0, 4, 3), np.uint8)
    found = batches(ArrayReader(images, None, 3, epochs=1), Augmentations([FlipX()]))
    assert [batch.images.shape for batch in found] == [(3, 0, 4, 3), (3, 0, 4, 3), (1, 0, 4, 3)]


def test_crops_that_do_not_fit_are_refused_when_the_pipeline_is_made(source):
    with pytest.raises(ArgumentError, match="RandomCrop: size is"):
        Pipeline([source(), Augmentations([RandomCrop(30)])])


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_damaged_records_leave_or_are_replaced(tmp_path, path, on_error):
    import shutil

    import plyvel

    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    with plyvel.DB(str(copy), compression=None) as db:
        for number in (2, 11, 12):
            value = bytearray(db.get(struct.pack(">Q", number)))
            value[-1] ^= 1
            db.put(struct.pack(">Q", number), bytes(value))
    transforms = [RandomCrop((11, 12)), FlipX(), Normalize()]

    def made(*between):
        reader = LevelDBSource(copy, 5, seed=3, epochs=1, on_error=on_error)
        found = batches(reader, *between, Augmentations(transforms, seed=7))
        assert len(reader.errors) == 3
        return found

    assert_equal(made(), made(Apart()))


def test_boxes_go_with_their_images(tmp_path):
    pytest.importorskip(
        "plyvel", reason="plyvel is not installed; it has no wheels for Python 3.13 and later"
    )
    dogs = annotation(thing("dog", (11, 21, 30, 50)), thing("dog", (1, 1, 80, 60)))
    root = voc_folder(tmp_path / "voc", {"a": dogs, "b": dogs})
    with Pipeline([VOCReader(root, 2, (60, 80), epochs=1), LevelDBSink(tmp_path / "s")]) as pipeline:
        pipeline.wait(LIMIT)
    transforms = [RandomCrop((30, 40)), FlipX()]
    (found,) = batches(LevelDBSource(tmp_path / "s", 2, epochs=1), Augmentations(transforms))
    (expected,) = batches(LevelDBSource(tmp_path / "s", 2, epochs=1), Apart(), Augmentations(transforms))
    assert_equal([found], [expected])
    reader = LevelDBSource(tmp_path / "s", 2, epochs=1, fields=["images"])
    _, together = batches_and_stage(reader, Augmentations(transforms))
    assert together.fused == 2
