"""Flips and Normalize that a reader does while it writes its images: the same bits as done afterwards."""

import numpy as np
import pytest
from pictures import class_folders, jpeg_bytes, photograph

from highway._core import simd
from highway.engine import Pipeline
from highway.errors import ArgumentError
from highway.modules import Augmentations, ImageFileReader
from highway.sampling import schedule
from highway.transforms import (
    Buckets,
    CenterFit,
    FlipX,
    FlipY,
    Lambda,
    Letterbox,
    Normalize,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    Rotate,
    Stretch,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """JPEGs of every orientation, and pictures of other formats."""
    folder = class_folders(tmp_path_factory.mktemp("photos"), classes=2, each=4)
    for orientation in range(1, 9):
        picture = photograph(50 + orientation, 70, orientation)
        name = folder / "class0" / f"turned{orientation}.jpg"
        name.write_bytes(jpeg_bytes(picture, orientation=orientation, subsampling=orientation % 3))
    photograph(40, 90, 3).save(folder / "class1" / "other.png")
    photograph(90, 40, 4).convert("L").save(folder / "class1" / "gray.bmp")
    return folder


def together(folder, transforms, *, deterministic=False, shape=(24, 32), **options):
    """The batches of a pipeline, and what the Augmentations have left to do."""
    augmentations = Augmentations(transforms, seed=7, deterministic=deterministic)
    reader = ImageFileReader(folder, 5, shape, epochs=2, **options)
    with Pipeline([reader, augmentations]) as pipeline:
        return list(pipeline.forever()), pipeline.modules[1]


def one_by_one(folder, transforms, *, deterministic=False, shape=(24, 32), **options):
    augmentations = Augmentations(transforms, seed=7, deterministic=deterministic)
    with Pipeline([ImageFileReader(folder, 5, shape, epochs=2, **options)]) as pipeline:
        return [augmentations.process(batch) for batch in pipeline.forever()]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine.epoch, mine.seq, mine.keys, mine.applied) == (
            theirs.epoch,
            theirs.seq,
            theirs.keys,
            theirs.applied,
        )
        assert mine.images.dtype == theirs.images.dtype
        np.testing.assert_array_equal(mine.images, theirs.images)
        np.testing.assert_array_equal(mine.labels, theirs.labels)


FINISHED = {
    "flip": [FlipX()],
    "both flips": [FlipX(), FlipY(0.3), FlipX(0.2)],
    "normalize": [Normalize()],
    "flip, normalize": [FlipX(), Normalize()],
    "flip, NHWC": [FlipY(), Normalize(layout="NHWC")],
    "flip, half": [FlipX(), Normalize(dtype="float16")],
    "flip, half, NHWC": [FlipX(), Normalize(0.4, 0.2, layout="NHWC", dtype="float16")],
    "flip, bfloat16": [FlipX(), Normalize(dtype="bfloat16")],
    "more behind": [FlipX(), Normalize(), Lambda(np.negative)],
    "crop behind": [FlipX(), RandomCrop(20), FlipY(), Normalize()],
}


@pytest.mark.parametrize("transforms", FINISHED.values(), ids=FINISHED)
@pytest.mark.parametrize(
    "fit",
    [CenterFit(), RandomResizedCrop(), Letterbox(fill=(9, 120, 250)), Stretch()],
    ids=lambda fit: type(fit).__name__,
)
def test_bits_are_the_same_as_one_by_one(folder, transforms, fit):
    found, augmentations = together(folder, transforms, fit=fit)
    assert augmentations.fused > 0
    assert_same(found, one_by_one(folder, transforms, fit=fit))


@pytest.mark.parametrize("transforms", FINISHED.values(), ids=FINISHED)
@pytest.mark.parametrize(
    "options",
    [
        {"shape": schedule({0: (24, 32), 1: 28}), "fit": RandomResizedCrop()},
        {"shape": None, "fit": Buckets([(24, 32), (24, 24), (40, 30)], Letterbox(fill=(9, 120, 250)))},
    ],
    ids=["schedule", "buckets"],
)
def test_bits_are_the_same_where_the_shape_changes(folder, transforms, options):
    found, augmentations = together(folder, transforms, **options)
    assert augmentations.fused > 0
    assert_same(found, one_by_one(folder, transforms, **options))


@pytest.mark.parametrize("transforms", [[FlipX(), Rotate(20)], [FlipY(), FlipX(), Resize((9, 8))]])
def test_flips_that_are_sampled_with_a_warp_are_left_to_it(folder, transforms):
    found, augmentations = together(folder, transforms)
    assert augmentations.fused == 0
    assert_same(found, one_by_one(folder, transforms))


@pytest.mark.parametrize("variant", simd.VARIANTS)
@pytest.mark.parametrize("width", [1, 5, 8, 17, 33])
def test_bits_are_the_same_in_every_variant_and_width(folder, variant, width):
    before = simd.in_use()
    transforms = [FlipX(), Normalize()]
    simd.use("plain")
    expected = one_by_one(folder, transforms, shape=(7, width))
    try:
        simd.use(variant)
        assert_same(together(folder, transforms, shape=(7, width))[0], expected)
    finally:
        simd.use(before)


def test_grey_images(folder):
    transforms = [FlipX(), Normalize(0.5, 0.25)]
    fit = Letterbox(fill=99)
    found, _ = together(folder, transforms, color="gray", fit=fit)
    assert found[0].images.shape == (5, 1, 24, 32)
    assert_same(found, one_by_one(folder, transforms, color="gray", fit=fit))


def test_deterministic_flips_do_nothing(folder):
    transforms = [FlipX(), Normalize()]
    found, augmentations = together(folder, transforms, deterministic=True)
    assert augmentations.fused == 2
    assert_same(found, one_by_one(folder, transforms, deterministic=True))


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_bad_files_change_nothing_about_the_others(folder, tmp_path, on_error):
    spoilt = class_folders(tmp_path / "photos", classes=2, each=6)
    good = (spoilt / "class0" / "0.jpg").read_bytes()
    (spoilt / "class0" / "1.jpg").write_bytes(good[: len(good) // 2] + b"\xff\xd9")
    (spoilt / "class1" / "2.jpg").write_bytes(b"nothing")
    (spoilt / "class1" / "3.jpg").write_bytes(b"")
    transforms = [FlipX(), Normalize()]
    found, _ = together(spoilt, transforms, on_error=on_error)
    assert_same(found, one_by_one(spoilt, transforms, on_error=on_error))


def test_what_is_not_the_library_s_own_is_left_where_it_is(folder):
    class Other(FlipX):
        def draw(self, rng, batch):
            return ~super().draw(rng, batch)

    class Brighter(Normalize):
        def apply_images(self, images, params):
            return super().apply_images(images, params) + 1

    class Unseen(FlipX):
        def look(self, view, params):
            return view

    for transforms, count in (
        ([Other(), Normalize()], 0),
        ([Unseen(), Normalize()], 0),
        ([Brighter()], 0),
        ([FlipX(), Brighter()], 1),
        ([Lambda(np.copy), FlipX()], 0),
        ([RandomCrop(20), FlipX()], 0),
    ):
        found, augmentations = together(folder, transforms)
        assert augmentations.fused == count
        assert_same(found, one_by_one(folder, transforms))


def test_channels_that_do_not_fit_are_refused_by_the_transform(folder):
    with pytest.raises(ArgumentError, match="for images with 1 channels"):
        together(folder, [FlipX(), Normalize()], color="gray")


def test_only_a_reader_right_in_front_takes_over(folder):
    stages = Augmentations([FlipX()], seed=7), Augmentations([FlipX(), Normalize()], seed=7)
    with Pipeline([ImageFileReader(folder, 5, (24, 32), epochs=2), *stages]) as pipeline:
        found = list(pipeline.forever())
    assert [stage.fused for stage in pipeline.modules[1:]] == [1, 0]
    assert_same(found, one_by_one(folder, [FlipX(), FlipX(), Normalize()]))


def test_a_module_that_has_nothing_left_is_left_out(folder):
    reader = ImageFileReader(folder, 5, (24, 32), epochs=1)
    with Pipeline([reader, Augmentations([FlipX(), Normalize()])]) as pipeline:
        batches = list(pipeline)
        stats = pipeline.stats()
    assert [batch.applied for batch in batches] == [3] * len(batches)
    assert [module.name for module in stats.modules] == ["ImageFileReader"]
    assert stats.left_out == ("Augmentations",)
    assert "Augmentations: fused into the reader." in str(stats)


def test_what_is_behind_a_module_that_is_left_out_may_write(folder):
    class Darker(Lambda):
        hands_over = True

    behind = Augmentations([Darker(np.negative)])
    with Pipeline(
        [ImageFileReader(folder, 5, (24, 32), epochs=1), Augmentations([FlipX()]), behind]
    ) as pipeline:
        assert pipeline.modules[2].input_handed_over
        assert len(list(pipeline)) == len(pipeline)
