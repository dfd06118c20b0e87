"""The resampling kernel against Pillow."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import photograph
from PIL import Image

from highway._core import simd
from highway._core.pixels import resample

PIL_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def as_is(count):
    """Nothing is mirrored."""
    return np.zeros((count, 2), np.uint8)


def resized(image, window, size, filter_):
    """One window of one image (H, W, C) through the kernel."""
    out = np.full((1, *size, image.shape[2]), 201, np.uint8)
    windows = np.array([window], dtype=np.float64)
    targets = np.array([[0, 0, size[1], size[0]]], dtype=np.int32)
    resample.resize_batch(image[None], windows, targets, as_is(1), resample.FILTERS.index(filter_), out)
    return out[0]


def with_pillow(image, window, size, filter_):
    picture = Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])
    result = np.asarray(picture.resize((size[1], size[0]), PIL_FILTERS[filter_], box=tuple(window)))
    return result if image.shape[2] == 3 else result[:, :, None]


@st.composite
def cases(draw):
    height, width = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    part = draw(st.sampled_from([0.0, 0.25, 0.5]))
    window = (x0 + part, y0 + part, x1 - part / 2, y1 - part / 2)
    size = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    return (
        height,
        width,
        window,
        size,
        draw(st.sampled_from(sorted(PIL_FILTERS))),
        draw(st.sampled_from([1, 3])),
    )


@settings(max_examples=300)
@given(cases())
def test_agrees_with_pillow(case):
    height, width, window, size, filter_, channels = case
    image = np.ascontiguousarray(np.asarray(photograph(height, width))[:, :, :channels])
    ours = resized(image, window, size, filter_).astype(int)
    theirs = with_pillow(image, window, size, filter_).astype(int)
    if filter_ == "nearest":
        np.testing.assert_array_equal(ours, theirs)
    else:  # rounding between and after the two passes, which have the other order in Pillow
        assert np.abs(ours - theirs).max() <= 2
        assert np.abs(ours - theirs).mean() <= 1


@pytest.mark.parametrize("filter_", resample.FILTERS)
@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_even_areas_keep_their_value(filter_, value):
    image = np.full((37, 53, 3), value, np.uint8)
    for size in ((1, 1), (16, 100), (37, 53), (90, 20)):
        assert np.all(resized(image, (0.3, 0.7, 50.1, 36.9), size, filter_) == value)


@pytest.mark.parametrize("filter_", resample.FILTERS)
def test_same_size_is_a_copy(filter_):
    image = np.asarray(photograph(31, 47))
    np.testing.assert_array_equal(resized(image, (0, 0, 47, 31), (31, 47), filter_), image)
    np.testing.assert_array_equal(resized(image, (5, 3, 25, 13), (10, 20), filter_), image[3:13, 5:25])


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_channels_do_not_mix(channels):
    image = np.ascontiguousarray(np.tile(np.asarray(photograph(40, 50)), 2)[:, :, :channels])
    whole = resized(image, (1.5, 2.5, 44, 38), (23, 31), "bilinear")
    for c in range(channels):
        single = resized(
            np.ascontiguousarray(image[:, :, c : c + 1]), (1.5, 2.5, 44, 38), (23, 31), "bilinear"
        )
        np.testing.assert_array_equal(whole[:, :, c : c + 1], single)


def test_targets_leave_the_rest_alone():
    images = np.stack([np.asarray(photograph(30, 40, seed)) for seed in range(3)])
    out = np.full((3, 20, 25, 3), 9, np.uint8)
    windows = np.tile(np.array([0.0, 0, 40, 30]), (3, 1))
    targets = np.array([[0, 0, 25, 20], [3, 4, 10, 12], [24, 19, 25, 20]], np.int32)
    resample.resize_batch(images, windows, targets, as_is(len(images)), 2, out)
    for i, (x0, y0, x1, y1) in enumerate(targets):
        expected = np.full((20, 25, 3), 9, np.uint8)
        expected[y0:y1, x0:x1] = resized(images[i], (0, 0, 40, 30), (y1 - y0, x1 - x0), "bilinear")
        np.testing.assert_array_equal(out[i], expected)


@pytest.mark.parametrize("filter_", ["box", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("length", [300, 3000, 40000])
def test_strong_reduction(filter_, length):
    """Weights far below the precision of a single one still sum up right."""
    rng = np.random.default_rng(length)
    image = np.repeat(rng.integers(0, 256, (length // 100, 1, 3), dtype=np.uint8), 100, axis=0)
    for picture in (image, np.ascontiguousarray(image.transpose(1, 0, 2))):
        window = (0, 0, picture.shape[1], picture.shape[0])
        for size in (1, 3):
            size = (size, 1) if picture is image else (1, size)
            ours = resized(picture, window, size, filter_).astype(int)
            assert np.abs(ours - with_pillow(picture, window, size, filter_)).max() <= 1


def test_no_images():
    empty = np.zeros((0, 5, 5, 3), np.uint8)
    resample.resize_batch(
        empty, np.zeros((0, 4)), np.zeros((0, 4), np.int32), as_is(0), 2, np.zeros((0, 3, 3, 3), np.uint8)
    )


@pytest.mark.parametrize(
    "window, target",
    [
        ((-0.1, 0, 5, 5), (0, 0, 4, 4)),
        ((0, 0, 10.01, 5), (0, 0, 4, 4)),
        ((0, 0, 5, 8.5), (0, 0, 4, 4)),
        ((3, 0, 3, 5), (0, 0, 4, 4)),
        ((float("nan"), 0, 3, 5), (0, 0, 4, 4)),
        ((0, 0, 5, float("inf")), (0, 0, 4, 4)),
        ((0, 0, 5, 5), (0, 0, 5, 4)),
        ((0, 0, 5, 5), (-1, 0, 4, 4)),
        ((0, 0, 5, 5), (2, 0, 2, 4)),
    ],
)
def test_rectangles_outside_are_refused(window, target):
    images, out = np.zeros((1, 8, 10, 3), np.uint8), np.zeros((1, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="empty or not inside"):
        resample.resize_batch(
            images, np.array([window], float), np.array([target], np.int32), as_is(1), 2, out
        )


@pytest.mark.parametrize(
    "images, windows, targets, filter_, out, message",
    [
        ((2, 8, 8, 3), (1, 4), (2, 4), 2, (2, 4, 4, 3), "must be equal"),
        ((1, 8, 8, 3), (1, 3), (1, 4), 2, (1, 4, 4, 3), "expected 4"),
        ((1, 8, 8, 3), (1, 4), (1, 4), 2, (1, 4, 4, 1), "channels"),
        ((1, 8, 8, 3), (1, 4), (1, 4), 5, (1, 4, 4, 3), "filter 5"),
        ((1, 8, 8, 3), (1, 4), (1, 4), -1, (1, 4, 4, 3), "filter -1"),
    ],
)
def test_shapes_are_checked(images, windows, targets, filter_, out, message):
    with pytest.raises(ValueError, match=message):
        resample.resize_batch(
            np.zeros(images, np.uint8),
            np.zeros(windows),
            np.zeros(targets, np.int32),
            as_is(images[0]),
            filter_,
            np.zeros(out, np.uint8),
        )


def same_bits(image, window, size, filter_):
    """All variants give the bits of the plain code, which are returned."""
    before = simd.in_use()
    results = {}
    for variant in simd.VARIANTS:
        results[simd.use(variant)] = resized(image, window, size, filter_)
    simd.use(before)
    for variant, result in results.items():
        assert np.array_equal(result, results["plain"]), (variant, image.shape, window, size, filter_)
    return results["plain"]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_variants_give_the_same_bits(channels):
    rng = np.random.default_rng(0)
    for height, width in [(1, 1), (2, 3), (17, 9), (64, 64), (101, 250)]:
        image = rng.integers(0, 256, (height, width, channels), dtype=np.uint8)
        window = width * 0.1, height * 0.05, width * 0.95, height
        for size in [(1, 1), (3, 2), (5, 7), (40, 33), (150, 161)]:
            for filter_ in resample.FILTERS:
                same_bits(image, window, size, filter_)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("filter_", ["bilinear", "lanczos"])
def test_variants_give_the_same_bits_for_every_width(channels, filter_):
    """Rows shorter than, as long as and longer than registers, and 1 to 9 groups of weights for an output."""
    rng = np.random.default_rng(1)
    # Only the darkest and the brightest: sums go as far as they can, beyond both ends with lanczos.
    image = rng.choice(np.array([0, 255], np.uint8), (7, 130, channels))
    for width in [*range(1, 36), 63, 64, 65]:
        for begin, end in ((0, 130), (3.7, 60.1), (100.25, 130), (129, 130), (0, 9)):
            same_bits(image, (begin, 0.5, end, 6.3), (3, width), filter_)


@settings(max_examples=150)
@given(cases(), st.integers(0, 2**32 - 1))
def test_variants_give_the_same_bits_for_any_case(case, seed):
    height, width, window, size, filter_, channels = case
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    same_bits(image, window, size, filter_)


# Centered windows


@pytest.mark.parametrize("size", [(240, 320), (1, 1), (224, 224), (1, 65536), (7, 3)])
def test_centred_windows_are_those_of_numpy(size):
    rng = np.random.default_rng(3)
    # Columns of one array, as a decoder gives them.
    heights, widths = rng.integers(1, 5000, (1000, 2)).T
    windows = np.empty((1000, 4))
    resample.center_windows(heights, widths, *size, windows)
    ratio = size[1] / size[0]
    out_widths, out_heights = np.minimum(widths, heights * ratio), np.minimum(heights, widths * (1 / ratio))
    left, top = (widths - out_widths) / 2, (heights - out_heights) / 2
    right, bottom = np.minimum(left + out_widths, widths), np.minimum(top + out_heights, heights)
    np.testing.assert_array_equal(windows, np.stack((left, top, right, bottom), axis=1))


@pytest.mark.parametrize("shapes", [(3, 2, (3, 4)), (3, 3, (2, 4)), (3, 3, (3, 2))])
def test_shapes_of_centred_windows_must_agree(shapes):
    heights, widths = (np.ones(count, np.int64) for count in shapes[:2])
    with pytest.raises(ValueError, match="center_windows: 3 heights"):
        resample.center_windows(heights, widths, 1, 1, np.empty(shapes[2]))


@pytest.mark.parametrize("filter_", resample.FILTERS)
@pytest.mark.parametrize("window", [(0, 0, 70, 50), (3.5, 2.25, 60, 41)])
def test_floats_agree_with_pillow(filter_, window):
    image = np.random.default_rng(1).normal(0, 3, (50, 70, 3)).astype(np.float32)
    for size in ((20, 30), (75, 100)):
        out = np.zeros((1, *size, 3), np.float32)
        target = np.array([[0, 0, size[1], size[0]]], np.int32)
        number = resample.FILTERS.index(filter_)
        resample.resize_batch(image[None], np.array([window], float), target, as_is(1), number, out)
        for channel in range(3):
            picture = Image.fromarray(image[:, :, channel])
            expected = picture.resize((size[1], size[0]), PIL_FILTERS[filter_], box=window)
            # Weights have 14 bits.
            assert np.abs(out[0, :, :, channel] - np.asarray(expected)).max() < 0.005


def test_mirrored_images_are_mirror_images():
    images = np.random.default_rng(2).integers(0, 256, (4, 33, 47, 3), dtype=np.uint8)
    flags = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.uint8)
    windows, targets = np.array([[4, 3, 40.5, 30]] * 4), np.array([[2, 1, 22, 19]] * 4, np.int32)
    for dtype in (np.uint8, np.float32):
        plain, mirrored = (np.full((4, 20, 25, 3), 9, dtype) for _ in range(2))
        resample.resize_batch(images.astype(dtype), windows, targets, as_is(4), 2, plain)
        resample.resize_batch(images.astype(dtype), windows, targets, flags, 2, mirrored)
        for i, (x, y) in enumerate(flags):
            expected = plain[i].copy()
            inside = expected[1:19, 2:22]
            expected[1:19, 2:22] = inside[:: -1 if y else 1, :: -1 if x else 1]
            difference = np.abs(mirrored[i].astype(float) - expected)
            assert difference.max() <= (0 if dtype == np.uint8 else 1e-3), i
