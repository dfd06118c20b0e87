"""The resampling of 16-bit numbers against float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highway._core import simd
from highway._core.pixels import resample

WEIGHS = {
    "box": (0.5, lambda x: ((x > -0.5) & (x <= 0.5)).astype(float)),
    "bilinear": (1.0, lambda x: np.maximum(1 - np.abs(x), 0)),
    "bicubic": (
        2.0,
        lambda x: np.where(
            np.abs(x) < 1,
            (1.5 * np.abs(x) - 2.5) * x**2 + 1,
            np.where(np.abs(x) < 2, ((np.abs(x) - 5) * np.abs(x) + 8) * np.abs(x) * -0.5 + 2, 0),
        ),
    ),
    "lanczos": (3.0, lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)),
}


def weights_of(filter_, size, begin, end, out_size):
    """Weights of Pillow's definition, float64 (out_size, size)."""
    scale = (end - begin) / out_size
    if filter_ == "nearest":
        # Added as in Pillow, so that halves round the same way.
        places = np.cumsum([begin + 0.5 * scale, *[scale] * (out_size - 1)]).astype(int).clip(0, size - 1)
        return np.eye(size)[places]
    support, weigh = WEIGHS[filter_]
    stretch = max(scale, 1.0)
    centers = begin + (np.arange(out_size) + 0.5) * scale
    weights = weigh((np.arange(size) + 0.5 - centers[:, None]) / stretch)
    first = (centers - support * stretch + 0.5).astype(int).clip(0, size - 1)
    last = np.maximum((centers + support * stretch + 0.5).astype(int).clip(0, size), first + 1)
    numbers = np.arange(size)
    weights[(numbers < first[:, None]) | (numbers >= last[:, None])] = 0
    weights[np.arange(out_size), first] += weights.sum(axis=1) == 0
    return weights / weights.sum(axis=1, keepdims=True)


def reference(image, window, size, filter_):
    x0, y0, x1, y1 = window
    down = weights_of(filter_, image.shape[0], y0, y1, size[0])
    right = weights_of(filter_, image.shape[1], x0, x1, size[1])
    return np.einsum("ah,hwc,bw->abc", down, image.astype(float), right).clip(0, 65535)


def resized(image, window, size, filter_, mirrored=(0, 0)):
    out = np.full((1, *size, image.shape[2]), 777, np.uint16)
    resample.resize_batch(
        image[None],
        np.array([window], float),
        np.array([[0, 0, size[1], size[0]]], np.int32),
        np.array([mirrored], np.uint8),
        resample.FILTERS.index(filter_),
        out,
    )
    return out[0]


def noise(height, width, channels, seed=0):
    """Numbers of the whole range, with both of its ends."""
    image = np.random.default_rng(seed).integers(0, 65536, (height, width, channels), dtype=np.uint16)
    image[: height // 3] = 65535
    image[height // 3 : height // 2] = 0
    return image


@settings(max_examples=200, deadline=None)
@given(
    filter_=st.sampled_from(resample.FILTERS),
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    channels=st.sampled_from([1, 2, 3, 4]),
    part=st.sampled_from([0.0, 0.25]),
    seed=st.integers(0, 1000),
)
def test_agrees_with_float64_within_a_level(filter_, height, width, size, channels, part, seed):
    image = noise(height, width, channels, seed)
    window = (part, part, width - part, height - part / 2)
    found = resized(image, window, size, filter_).astype(float)
    expected = reference(image, window, size, filter_)
    assert np.abs(found - expected).max() <= (0.51 if filter_ != "nearest" else 0)


def test_long_sums_stay_within_a_level():
    image = noise(3000, 2001, 1)
    found = resized(image, (0, 0, 2001, 3000), (2, 3), "bilinear").astype(float)
    assert np.abs(found - reference(image, (0, 0, 2001, 3000), (2, 3), "bilinear")).max() <= 0.51


@pytest.mark.parametrize("filter_", resample.FILTERS)
@pytest.mark.parametrize("value", [0, 1, 257, 32768, 65534, 65535])
def test_even_areas_keep_their_value(filter_, value):
    image = np.full((37, 53, 3), value, np.uint16)
    for size in ((1, 1), (16, 100), (37, 53), (90, 20)):
        assert (resized(image, (0.3, 0.7, 50.1, 36.9), size, filter_) == value).all()


@pytest.mark.parametrize("filter_", resample.FILTERS)
def test_the_same_size_copies(filter_):
    image = noise(40, 33, 3)
    np.testing.assert_array_equal(resized(image, (0, 0, 33, 40), (40, 33), filter_), image)
    np.testing.assert_array_equal(resized(image, (3, 5, 20, 25), (20, 17), filter_), image[5:25, 3:20])
    both = resized(image, (0, 0, 33, 40), (40, 33), filter_, (1, 1))
    np.testing.assert_array_equal(both, image[::-1, ::-1])


def test_variants_give_the_same_bits():
    image = noise(71, 130, 3)
    before, found = simd.in_use(), []
    try:
        for variant in simd.VARIANTS:
            simd.use(variant)
            found.append(resized(image, (1.5, 2.25, 120, 70), (33, 47), "lanczos"))
    finally:
        simd.use(before)
    assert len(found) > 1
    assert all(np.array_equal(one, found[0]) for one in found)
