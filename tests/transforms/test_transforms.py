"""Transforms on arrays: what each does, what it draws, what it refuses, how it is written down."""

import re

import numpy as np
import pytest

from highway.batch import Batch
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms import (
    CenterCrop,
    CenterFit,
    FlipX,
    FlipY,
    Lambda,
    Letterbox,
    Normalize,
    Pad,
    PadCrop,
    RandomCrop,
    RandomResizedCrop,
    Stretch,
    Transform,
)


def random(shape, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, shape, dtype=np.uint8).astype(dtype)


def rng_of(count, seed=0):
    return SampleRandom(seed, 0, np.arange(count), 1)


def apply(transform, images, seed=0):
    batch = Batch({"images": images, "labels": np.zeros(len(images), np.int64)})
    return transform.apply_images(images, transform.draw(rng_of(len(images), seed), batch))


def drawn(transform, images, seed=0):
    return transform.draw(rng_of(len(images), seed), Batch({"images": images}))


# Flips


@pytest.mark.parametrize(("flip", "axis"), [(FlipX, 2), (FlipY, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32, np.float64])
def test_flips_mirror_those_that_were_drawn(flip, axis, dtype):
    images = random((40, 5, 7, 3), dtype)
    before = images.copy()
    flags = drawn(flip(), images)
    assert 0 < flags.sum() < 40
    expected = images.copy()
    expected[flags] = np.flip(images, axis)[flags]
    out = apply(flip(), images)
    assert out.dtype == dtype
    assert np.array_equal(out, expected)
    assert np.array_equal(images, before)
    assert not np.shares_memory(out, images)


@pytest.mark.parametrize("flip", [FlipX, FlipY])
def test_flips_work_in_place_when_told_to(flip):
    images = random((20, 5, 7, 3))
    params = drawn(flip(), images)
    expected = flip().apply_images(images.copy(), params)
    assert flip().apply_images(images, params, out=images) is images
    assert np.array_equal(images, expected)


@pytest.mark.parametrize("flip", [FlipX, FlipY])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_flips_write_to_out_whatever_its_layout(flip, dtype):
    base = random((20, 5, 7, 3)).astype(dtype)
    params = drawn(flip(), base)
    for images, out in (
        (base.copy(), np.zeros_like(base)),
        (base.copy(), np.zeros((20, 5, 14, 3), dtype)[:, :, ::2]),
        (base.copy()[:, :, ::-1], np.zeros_like(base)),
        (packed := base.copy(), packed[:, ::-1]),
        (mirrored := base.copy()[:, :, ::-1], mirrored),
    ):
        expected = flip().apply_images(images.copy(), params)
        assert flip().apply_images(images, params, out=out) is out
        assert np.array_equal(out, expected)


@pytest.mark.parametrize("flip", [FlipX, FlipY])
def test_flips_refuse_an_out_that_does_not_fit(flip):
    images = random((4, 5, 7, 3))
    for out in (np.zeros((4, 5, 7, 4), np.uint8), np.zeros((1, 5, 7, 3), np.uint8), images.astype(np.int8)):
        message = re.escape(f"{flip.__name__}: out is {out.dtype} of shape {out.shape}; expected uint8 of ")
        with pytest.raises(ArgumentError, match=message):
            flip().apply_images(images, np.ones(4, bool), out=out)
    frozen = images.copy()
    frozen.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        flip().apply_images(images, np.ones(4, bool), out=frozen)


def test_flips_take_p():
    images = random((4000, 1, 2, 1))
    assert not drawn(FlipX(0), images).any()
    assert drawn(FlipX(1), images).all()
    assert abs(drawn(FlipX(), images).mean() - 0.5) < 0.036
    assert abs(drawn(FlipX(p=0.2), images).mean() - 0.2) < 0.029


def test_flips_take_many_channels_and_odd_shapes():
    for shape in ((3, 4, 5, 1), (3, 4, 5, 9), (0, 4, 5, 3), (3, 0, 5, 3), (1, 1, 1, 1)):
        images = random(shape)
        assert np.array_equal(apply(FlipX(1), images), images[:, :, ::-1])


# Crops and pads


def test_random_crop_takes_every_place():
    images = random((2000, 6, 8, 3))
    crop = RandomCrop((4, 5))
    windows = drawn(crop, images)
    assert (windows.height, windows.width) == (4, 5)
    tops, lefts = windows.tops, windows.lefts
    counts = np.zeros((3, 4))
    np.add.at(counts, (tops, lefts), 1)
    # 11 degrees of freedom: above 46 is a 1 in 100 000 event.
    assert ((counts - 2000 / 12) ** 2 / (2000 / 12)).sum() < 46
    out = apply(crop, images)
    for n in range(50):
        assert np.array_equal(out[n], images[n, tops[n] : tops[n] + 4, lefts[n] : lefts[n] + 5])


@pytest.mark.parametrize("padding", [2, (3, 1), (1, 0, 2, 4)])
@pytest.mark.parametrize("fill", [7, (1, 2, 3)])
def test_crops_reach_into_their_padding(padding, fill):
    left, top, right, bottom = {2: (2, 2, 2, 2), (3, 1): (3, 1, 3, 1), (1, 0, 2, 4): (1, 0, 2, 4)}[padding]
    images = random((300, 6, 8, 3))
    canvas = np.empty((300, 6 + top + bottom, 8 + left + right, 3), np.uint8)
    canvas[:] = fill
    canvas[:, top : top + 6, left : left + 8] = images
    assert np.array_equal(apply(Pad(padding, fill), images), canvas)
    crop = RandomCrop((5, 6), padding, fill)
    windows = drawn(crop, images)
    assert windows.tops.min() == -top
    assert windows.tops.max() == 6 + bottom - 5
    assert windows.lefts.min() == -left
    assert windows.lefts.max() == 8 + right - 6
    out = apply(crop, images)
    for n in range(300):
        y, x = windows.tops[n] + top, windows.lefts[n] + left
        assert np.array_equal(out[n], canvas[n, y : y + 5, x : x + 6])
    y, x = round((canvas.shape[1] - 5) / 2), round((canvas.shape[2] - 6) / 2)
    center = canvas[:, y : y + 5, x : x + 6]
    assert np.array_equal(apply(CenterCrop((5, 6), padding, fill), images), center)
    assert np.array_equal(apply(crop.deterministic(), images), center)


def centre_cropped(images, size, fill):
    """By the formulas of torchvision.transforms.v2.functional.center_crop."""
    (height, width), (rows, columns) = size, images.shape[1:3]
    if height > rows or width > columns:
        left, right = ((width - columns) // 2, (width - columns + 1) // 2) if width > columns else (0, 0)
        top, bottom = ((height - rows) // 2, (height - rows + 1) // 2) if height > rows else (0, 0)
        padded = np.full((len(images), rows + top + bottom, columns + left + right, 3), fill, images.dtype)
        padded[:, top : top + rows, left : left + columns] = images
        images, (rows, columns) = padded, padded.shape[1:3]
    # Python rounds halves to even numbers.
    top, left = round((rows - height) / 2.0), round((columns - width) / 2.0)
    return images[:, top : top + height, left : left + width]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_centre_is_where_torchvision_has_it(dtype):
    images = random((2, 12, 9, 3), dtype, 5)
    for height in range(1, 18):
        for width in range(1, 15):
            out = apply(CenterCrop((height, width), fill=7), images)
            assert np.array_equal(out, centre_cropped(images, (height, width), 7)), (height, width)


def test_crops_of_the_whole_image_are_copies():
    images = random((3, 6, 8, 3))
    for crop in (RandomCrop((6, 8)), CenterCrop((6, 8)), Pad(0)):
        out = apply(crop, images)
        assert np.array_equal(out, images)
        assert not np.shares_memory(out, images)


@pytest.mark.parametrize("dtype", [np.int16, np.float16, np.float32, np.float64])
def test_crops_and_pads_of_other_dtypes(dtype):
    images = random((3, 6, 8, 3), dtype)
    out = apply(Pad((1, 2), (-3, 4, 500)), images)
    assert out.dtype == dtype
    assert np.array_equal(out[:, 2:-2, 1:-1], images)
    assert (out[:, :2] == np.array([-3, 4, 500], dtype)).all()
    assert np.array_equal(apply(CenterCrop(4), images), images[:, 1:5, 2:6])


def test_one_number_is_a_square():
    assert RandomCrop(3).size == (3, 3)
    assert apply(CenterCrop(np.int64(3)), random((2, 6, 8, 1))).shape == (2, 3, 3, 1)


def test_strided_and_read_only_images():
    base = random((6, 12, 40, 3))
    base.setflags(write=False)
    for images in (
        base[::2],
        base[:, :, ::-1],
        base[..., ::-1],
        base[:, 2:9, 5:30],
        base[..., 1:2],
        base[:, :, ::3],
    ):
        plain = images.copy()
        for transform in (FlipX(1), FlipY(1), CenterCrop(4), Pad(3), Normalize(0.5, 0.5)):
            assert np.array_equal(apply(transform, images), apply(transform, plain))


# Normalize


def test_normalize_is_what_it_says():
    images = random((2, 5, 7, 3))
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    exact = ((images / 255 - mean) / std).transpose(0, 3, 1, 2)
    out = apply(Normalize(), images)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert np.abs(out - exact).max() < 1e-6
    scale = (1 / (255 * std)).astype(np.float32)
    bias = (-mean / std).astype(np.float32)
    to_the_bit = images.astype(np.float32) * scale + bias
    assert np.array_equal(out, to_the_bit.transpose(0, 3, 1, 2))
    assert np.array_equal(apply(Normalize(layout="NHWC"), images), to_the_bit)
    half = apply(Normalize(layout="NHWC", dtype="float16"), images)
    assert half.dtype == np.float16
    assert np.array_equal(half, to_the_bit.astype(np.float16))
    assert np.array_equal(apply(Normalize(dtype=np.float16), images), half.transpose(0, 3, 1, 2))


def test_normalize_takes_one_number_for_all_channels():
    for channels in (1, 2, 3, 5):
        images = random((2, 5, 7, channels))
        out = apply(Normalize(0, 1), images)
        np.testing.assert_allclose(out, images.transpose(0, 3, 1, 2) / 255, rtol=1e-6)
    three = random((2, 5, 7, 3))
    assert np.array_equal(
        apply(Normalize((0.1, 0.2, 0.3), 0.5), three), apply(Normalize([0.1, 0.2, 0.3], [0.5] * 3), three)
    )
    assert np.array_equal(
        apply(Normalize(0.5, np.full(3, 0.25)), three), apply(Normalize([0.5] * 3, 0.25), three)
    )


# Lambda and a transform of the user's own


def test_lambda_gets_the_whole_batch():
    seen = []

    def halve(images):
        seen.append(images.shape)
        return images // 2

    images = random((4, 3, 3, 1))
    assert np.array_equal(apply(Lambda(halve), images), images // 2)
    assert seen == [(4, 3, 3, 1)]
    assert repr(Lambda(halve)).endswith("halve)")
    assert repr(Lambda(len)) == "Lambda(fn=len)"


class Brighter(Transform):
    def __init__(self, by=10, *, wrap=True):
        self.by = by
        self.wrap = wrap

    def apply_images(self, images, params):
        return images + np.uint8(self.by)


class Shaky(Brighter):
    def draw(self, rng, batch):
        return rng.uniform()


def test_a_transform_of_your_own_overrides_one_method():
    images = random((4, 3, 3, 1))
    assert np.array_equal(apply(Brighter(3), images), images + np.uint8(3))
    assert Brighter().deterministic().by == 10
    assert apply(Transform(), images) is images


def test_deterministic_forms():
    assert FlipX().deterministic() is None
    assert FlipY().deterministic() is None
    for transform in (
        CenterCrop(3),
        Pad(1),
        Normalize(),
        Lambda(len),
        CenterFit(3),
        Stretch(3),
        Letterbox(3),
        Transform(),
    ):
        assert transform.deterministic() is transform
    crop = RandomCrop((3, 4), padding=1, fill=2).deterministic()
    assert (type(crop), crop.size, crop.padding, crop.fill) == (CenterCrop, (3, 4), 1, 2)
    fit = RandomResizedCrop((3, 4), interpolation="bicubic").deterministic()
    assert (type(fit), fit.size, fit.interpolation) == (CenterFit, (3, 4), "bicubic")
    with pytest.raises(
        ArgumentError, match=r"Shaky\(by=10, wrap=True\) draws random numbers .* override Shaky.deterministic"
    ):
        Shaky().deterministic()


@pytest.mark.parametrize(
    "transform",
    [
        FlipX(),
        FlipY(p=0.25),
        RandomCrop((3, 4), padding=(1, 2), fill=(1, 2, 3)),
        CenterCrop(5),
        Pad((1, 2, 3, 4), fill=7),
        Normalize(),
        Normalize(0.5, (0.1, 0.2, 0.3), "NHWC", np.float16),
        Brighter(3, wrap=False),
    ],
)
def test_repr_builds_it_again(transform):
    again = eval(repr(transform))
    assert repr(again) == repr(transform)
    assert type(again) is type(transform)
    images = random((5, 9, 9, 3))
    assert np.array_equal(apply(again, images), apply(transform, images))


def test_repr_as_written():
    assert repr(FlipX()) == "FlipX(p=0.5)"
    assert repr(RandomCrop(3)) == "RandomCrop(size=(3, 3), padding=0, fill=0)"
    assert repr(Brighter()) == "Brighter(by=10, wrap=True)"


# Refusals


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: FlipX(1.5), "FlipX: p is 1.5; expected a number from 0 to 1"),
        (lambda: FlipX(-0.1), "FlipX: p is -0.1"),
        (lambda: FlipY(float("nan")), "FlipY: p is nan"),
        (lambda: FlipX("a"), "FlipX: p is 'a'"),
        (lambda: FlipX(True), "FlipX: p is True"),
        (lambda: RandomCrop(0), "RandomCrop: size is 0; expected a whole number from 1"),
        (lambda: RandomCrop((3, 0)), r"RandomCrop: size\[1\] is 0"),
        (
            lambda: RandomCrop((3, 4, 5)),
            r"RandomCrop: size is \(3, 4, 5\); expected a whole number or \(height, width\)",
        ),
        (lambda: CenterCrop(2.5), "CenterCrop: size is 2.5"),
        (lambda: RandomCrop(3, padding=-1), "RandomCrop: padding is -1"),
        (
            lambda: RandomCrop(3, 3),
            r"RandomCrop: padding is 3 and size is \(3, 3\): .* RandomCrop\(\(height, width\)\)",
        ),
        (lambda: PadCrop(4), r"PadCrop: padding is 4 and size is \(4, 4\)"),
        (lambda: CenterCrop(224, 320), r"CenterCrop: padding is 320 and size is \(224, 224\)"),
        (lambda: RandomCrop((3, 9), (0, 3)), r"RandomCrop: padding is \(0, 3\) and size is \(3, 9\)"),
        (lambda: RandomCrop((9, 3), (0, 0, 3, 0)), r"RandomCrop: padding is \(0, 0, 3, 0\)"),
        (lambda: Pad((1, 2, 3)), r"Pad: padding is \(1, 2, 3\); expected a whole number, \(left and right"),
        (lambda: Pad((1, -2)), r"Pad: padding\[1\] is -2"),
        (lambda: Pad(1, fill="red"), "Pad: fill is 'red'; expected a number"),
        (lambda: Pad(1, fill=()), r"Pad: fill is \(\); expected one number or more"),
        (lambda: Pad(1, fill=(1, float("inf"))), r"Pad: fill\[1\] is inf"),
        (
            lambda: Normalize(std=(0.1, 0, 0.2)),
            r"Normalize: std is \(0.1, 0, 0.2\); expected numbers above 0",
        ),
        (lambda: Normalize(std=-1), "Normalize: std is -1; expected a number of 0 or more"),
        (lambda: Normalize(std=1e-45), "std is 1e-45; expected 1 / std and mean / std within float32"),
        (lambda: Normalize(mean=1, std=1e-39), "Normalize: mean is 1 and std is 1e-39"),
        (
            lambda: Normalize((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
            r"Normalize: mean is \(123.675, .*\); expected .* values from 0 to 1; divide by 255",
        ),
        (lambda: Normalize(std=(0.2, 58.4, 0.2)), r"Normalize: std is \(0.2, 58.4, 0.2\); .* divide by 255"),
        (lambda: Normalize(1.001, 0.5), "Normalize: mean is 1.001; .* divide by 255"),
        (lambda: Normalize(mean=-0.1), "Normalize: mean is -0.1; expected a number of 0 or more"),
        (lambda: Normalize(mean=(0.1, 0.2)), "Normalize: mean has 2 numbers and std has 3"),
        (lambda: Normalize(mean="a"), "Normalize: mean is 'a'"),
        (lambda: Normalize(layout="CHW"), "Normalize: layout is 'CHW'; expected 'NCHW' or 'NHWC'"),
        (
            lambda: Normalize(dtype="float64"),
            "Normalize: dtype is 'float64'; expected 'float32', 'float16' or 'bfloat16'",
        ),
        (lambda: Normalize(dtype="nonsense"), "Normalize: dtype is 'nonsense'"),
        (lambda: Lambda(3), "Lambda: fn is 3; expected a function"),
    ],
)
def test_wrong_arguments_are_named(build, named):
    with pytest.raises(ArgumentError, match=named):
        build()


@pytest.mark.parametrize(
    ("transform", "images", "named"),
    [
        (
            FlipX(),
            np.zeros((2, 3, 4), np.uint8),
            r"FlipX: images are uint8 of shape \(2, 3, 4\); expected .*; images\[..., None\] adds a channel",
        ),
        (
            FlipX(),
            np.zeros((2, 3, 24, 24), np.float32),
            "FlipX: images are float32 .* put it before Normalize",
        ),
        (RandomCrop(3), np.zeros((2, 3, 24, 24), np.float32), "RandomCrop: images are float32"),
        (Pad(1), np.full((2, 3, 4, 1), None), "Pad: images are object"),
        (
            RandomCrop(5),
            np.zeros((2, 4, 9, 3), np.uint8),
            r"RandomCrop: size is \(5, 5\), but the images are \(4, 9\); expected",
        ),
        (RandomCrop(9, 1), np.zeros((2, 7, 4, 3), np.uint8), r"the images are \(9, 6\) with their padding"),
        (
            Pad(1, fill=(1, 2)),
            np.zeros((2, 4, 9, 3), np.uint8),
            r"Pad: fill is \(1, 2\), for images with 3 channels",
        ),
        (
            Pad(1, fill=256),
            np.zeros((2, 4, 9, 3), np.uint8),
            "Pad: fill is 256, for images of uint8; .* from 0 to 255",
        ),
        (Pad(1, fill=0.5), np.zeros((2, 4, 9, 3), np.uint8), "Pad: fill is 0.5, for images of uint8"),
        (Normalize(), np.zeros((2, 4, 9, 1), np.uint8), "Normalize: mean is .* for images with 1 channels"),
        (Normalize(), np.zeros((2, 4, 9, 3), np.float32), "Normalize: images are float32"),
        (Normalize(), np.zeros((2, 4, 3), np.uint8), r"Normalize: images are uint8 of shape \(2, 4, 3\)"),
        (
            Normalize(),
            np.zeros((2, 4, 3), np.uint8),
            r"Normalize: .*; images\[..., None\] adds a channel axis",
        ),
        (
            Normalize(),
            np.zeros((2, 4), np.float32),
            r"Normalize: .* ArrayReader\(x=...\) and Normalize\(..., field='x'\)",
        ),
    ],
)
def test_images_that_do_not_fit_are_refused(transform, images, named):
    with pytest.raises(ArgumentError, match=named):
        apply(transform, images)
