"""Normalizing kernels against NumPy, bit for bit: every variant, layout, type and number of channels.

Of windows: against windows that were copied first.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from highway._core.pixels import geometry, values

pytestmark = pytest.mark.usefixtures("simd_variant")

CHANNELS = [0, 1, 2, 3, 4, 5, 7, 16, 64, 65]


def random(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def factors(channels, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=channels).astype(np.float32) / 50, rng.normal(size=channels).astype(np.float32)


# The type of an array that a kernel takes, by the type of its numbers.
TYPES = {"float32": np.float32, "float16": np.uint16, "bfloat16": np.int16}


def rounded(numbers, dtype):
    """Return the bits of float32 numbers in another type, rounded to nearest, ties to even."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return numbers.astype(dtype).view(np.uint32 if dtype == "float32" else np.uint16)
    bits = numbers.view(np.uint32).astype(np.int64)
    low, high = bits & 0xFFFF, bits >> 16
    return (high + ((low > 0x8000) | ((low == 0x8000) & (high % 2 == 1)))).astype(np.uint16)


def reference(images, scale, bias, planar, dtype):
    """NumPy multiplies and adds in two steps, each rounded to float32."""
    out = images.astype(np.float32) * scale + bias
    assert out.dtype == np.float32
    out = rounded(out, dtype)
    return np.moveaxis(out, 3, 1) if planar else out


def normalize(images, scale, bias, planar, dtype):
    shape = images.shape[:1] + images.shape[3:] + images.shape[1:3] if planar else images.shape
    memory = np.full(int(np.prod(shape)) + 64, 77, TYPES[dtype])
    out = memory[32 : 32 + int(np.prod(shape))].reshape(shape)
    values.normalize(images, scale, bias, planar, out)
    # Nothing before or behind was touched.
    assert (memory[:32] == 77).all()
    assert (memory[32 + out.size :] == 77).all()
    return out


def check(images, scale, bias):
    for planar in (False, True):
        for dtype in TYPES:
            expected = reference(images, scale, bias, planar, dtype)
            assert np.array_equal(
                normalize(images, scale, bias, planar, dtype).view(expected.dtype), expected
            )


@pytest.mark.parametrize("channels", CHANNELS)
def test_every_number_of_channels_and_width(channels):
    for width in (0, 1, 2, 7, 8, 9, 15, 16, 17, 33, 100):
        check(random((2, 3, width, channels), width), *factors(channels))


@pytest.mark.parametrize(
    "shape", [(0, 2, 3, 3), (1, 0, 3, 3), (1, 1, 1, 1), (3, 1, 40, 3), (2, 7, 1, 3), (1, 2, 0, 3)]
)
def test_small_shapes(shape):
    check(random(shape), *factors(shape[3]))


@given(
    st.integers(0, 3),
    st.integers(0, 4),
    st.integers(0, 40),
    st.integers(1, 6),
    st.lists(st.floats(-1e5, 1e5, width=32), min_size=12, max_size=12),
    st.integers(0, 2**32 - 1),
)
def test_any_shape_and_factors(count, height, width, channels, factors, seed):
    scale = np.array(factors[:channels], np.float32)
    bias = np.array(factors[6 : 6 + channels], np.float32)
    check(random((count, height, width, channels), seed), scale, bias)


def test_every_byte():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    for seed in range(200):
        check(images, *factors(1, seed))


def test_half_precision_rounds_to_nearest_even_everywhere():
    """Ties, overflow to infinity, the smallest normal number, subnormal ones and both zeros."""
    images = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1)
    for exponent in range(-40, 12):
        for bias in (0.0, 1.0, -1.0, 2.0**-25, 2048.0, 65504.0):
            for factor in (1.0, 1.5, -1.0, 1 + 2.0**-12):
                scale = np.array([2.0**exponent * factor], np.float32)
                check(images, scale, np.array([bias], np.float32))


def test_no_fused_multiply_add():
    """A product whose rounding shows: fused, the result would be another number."""
    images = np.full((1, 4, 8, 3), 255, np.uint8)
    scale = np.full(3, 1 / 3, np.float32)
    bias = np.full(3, -85, np.float32)
    fused = np.float32(np.float64(255) * np.float64(scale[0]) - 85)
    two_steps = np.float32(255) * scale[0] + bias[0]
    assert fused != two_steps
    for planar in (False, True):
        assert (normalize(images, scale, bias, planar, "float32") == two_steps).all()


def test_rows_wherever_they_lie():
    base = random((6, 12, 40, 3))
    base.setflags(write=False)
    for images in (base[::2], base[::-2], base[1:4, ::-1], base[:3, 2:9, 5:30], base[:3, ::3, 1:2]):
        check(images, *factors(3))
    check(random((2, 3, 1, 5))[..., :1], *factors(1))


def check_windows(images, places, fill, shape):
    scale, bias = factors(images.shape[3])
    copied = np.empty((len(images), *shape, images.shape[3]), np.uint8)
    geometry.windows(images, places, fill, copied)
    for planar in (False, True):
        for dtype in TYPES:
            expected = reference(copied, scale, bias, planar, dtype)
            memory = np.full(expected.size + 64, 77, TYPES[dtype])
            out = memory[32 : 32 + expected.size].reshape(expected.shape)
            values.normalize_windows(images, places, fill, scale, bias, planar, out)
            assert (memory[:32] == 77).all()
            assert (memory[32 + out.size :] == 77).all()
            assert np.array_equal(out.view(expected.dtype), expected)


@settings(max_examples=60)
@given(
    st.integers(0, 3),
    st.tuples(st.integers(0, 8), st.integers(0, 50)),
    st.tuples(st.integers(0, 9), st.integers(0, 50)),
    st.integers(0, 6),
    st.integers(0, 40),
    st.integers(0, 2**32 - 1),
)
def test_windows_of_any_shape(count, shape, window, channels, reach, seed):
    rng = np.random.default_rng(seed)
    places = np.stack([*rng.integers(-reach, reach + 1, (2, count)), *rng.integers(0, 2, (2, count))], axis=1)
    check_windows(random((count, *shape, channels), seed), places, random((channels,), seed), window)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_windows_wherever_the_rows_lie(channels):
    """Also rows without gaps, and images of more rows than are rearranged at once."""
    base = random((6, 150, 120, channels))
    base.setflags(write=False)
    fill = random((channels,))
    at = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [9, 7, 1, 0], [-3, 0, 1, 1], [1, 3, 1, 1], [9, 20, 0, 1]])
    for images in (base, base[::-1], base[:, ::-1], base[:, :, 5:]):
        check_windows(images, at, fill, (140, images.shape[2]))
    check_windows(base, at, fill, (150, 120))


@pytest.mark.parametrize("width", [5461, 8192, 20000])
def test_windows_of_rows_longer_than_what_is_rearranged_at_once(width):
    at = np.array([[0, 0, 1, 0], [-1, 2, 1, 1]])
    check_windows(random((2, 3, width, 3)), at, random((3,)), (3, width))


def test_big_images():
    check(random((1, 3000, 3001, 3)), *factors(3))


def test_threads_give_equal_bits():
    images = random((16, 33, 101, 3))
    scale, bias = factors(3)
    expected = reference(images, scale, bias, True, "float32")

    def normalized(sample):
        return normalize(images[sample], scale, bias, True, "float32").view(np.uint32)

    for threads in (1, 2, 8):
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(normalized, [slice(n, n + 1) for n in range(16)]))
        assert np.array_equal(np.concatenate(parts), expected)


def inside(array, shape):
    """Bytes of the given shape at the end of the memory of an array."""
    memory = array.reshape(-1).view(np.uint8)
    return memory[memory.size - int(np.prod(shape)) :].reshape(shape)


def test_neighbors_in_one_array_do_not_share_memory():
    images = random((2, 4, 5, 3))
    memory = np.zeros(2 * images.size + 5 * images.size, np.uint8)
    for first in (0, 6 * images.size):
        memory[first : first + images.size] = images.reshape(-1)
        source = memory[first : first + images.size].reshape(images.shape)
        out = memory[2 * images.size : 6 * images.size].view(np.float32).reshape(images.shape)
        if first == 0:
            out = memory[images.size : 5 * images.size].view(np.float32).reshape(images.shape)
        values.normalize(source, *factors(3), False, out)
        assert np.array_equal(out.view(np.uint32), reference(images, *factors(3), False, "float32"))


def test_entries_refuse_what_does_not_fit():
    images = np.zeros((2, 4, 5, 3), np.uint8)
    scale, bias = factors(3)
    out = np.zeros((2, 4, 5, 3), np.float32)
    planes = np.zeros((2, 3, 4, 5), np.float32)
    for planar, good in ((False, out), (True, planes)):

        def kernel(*arguments, planar=planar):
            values.normalize(*arguments[:-1], planar, arguments[-1])

        wrong = [
            ((images, scale, bias, good[:1].copy()), "but out|out has"),
            ((images, scale, bias, np.zeros((2, 6, 5, 2), np.float32)), "out has"),
            ((images, scale[:2], bias, good), "scale of 2 and bias of 3 for 3 channels"),
            ((images, scale, bias[:2], good), "scale of 3 and bias of 2 for 3 channels"),
            ((images[:, :, ::-1], scale, bias, good), "packed rows"),
            ((np.zeros((2, 4, 5, 6), np.uint8)[..., :3], scale, bias, good), "packed rows"),
            ((np.zeros((2, 4, 5, 6), np.uint8)[..., ::2], scale, bias, good), "packed rows"),
            ((images.astype(np.int8), scale, bias, good), "Buffer dtype mismatch"),
            ((images, scale.astype(np.float64), bias, good), "Buffer dtype mismatch"),
            ((images[0], scale, bias, good), "wrong number of dimensions"),
            ((inside(good, images.shape), scale, bias, good), "images and out share memory"),
            ((inside(good, images.shape)[:, ::-1], scale, bias, good), "images and out share memory"),
            ((inside(good, images.shape)[::-1], scale, bias, good), "images and out share memory"),
            ((images, good.reshape(-1)[-3:], bias, good), "scale or bias shares memory with out"),
            ((images, scale, good.reshape(-1)[:3], good), "scale or bias shares memory with out"),
        ]
        for arguments, message in wrong:
            with pytest.raises(ValueError, match=message):
                kernel(*arguments)
        with pytest.raises(TypeError):
            kernel(images, scale, bias, good.astype(np.float64))
        frozen = good.copy()
        frozen.setflags(write=False)
        with pytest.raises(ValueError, match="read-only"):
            kernel(images, scale, bias, frozen)
    with pytest.raises(ValueError, match="out has"):
        values.normalize(images, scale, bias, False, planes)
    with pytest.raises(ValueError, match="out has"):
        values.normalize(images, scale, bias, True, out)


def test_entries_for_windows_refuse_what_does_not_fit():
    images = np.zeros((2, 4, 5, 3), np.uint8)
    at, fill = np.zeros((2, 4), np.int64), np.zeros(3, np.uint8)
    scale, bias = factors(3)
    for planar, shape in ((False, (2, 6, 7, 3)), (True, (2, 3, 6, 7))):
        good = np.zeros(shape, np.float32)

        def kernel(*arguments, planar=planar):
            values.normalize_windows(*arguments[:-1], planar, arguments[-1])

        wrong = [
            ((images, at, fill, scale, bias, good[:1].copy()), "2 images of 3 channels, but out has 1 of 3"),
            ((images, at, fill, scale, bias, np.zeros((2, 4, 6, 4), np.float32)), "but out has 2 of 4"),
            ((images, at[:1], fill, scale, bias, good), r"places are \(1, 4\) for 2 images"),
            ((images, at[:, :3].copy(), fill, scale, bias, good), r"expected \(2, 4\): top, left"),
            ((images, at + 2**31 + 1, fill, scale, bias, good), "window 0 at"),
            ((images, at - 2**31 - 1, fill, scale, bias, good), "window 0 at"),
            ((images, at, fill[:2], scale, bias, good), "fill of 2 bytes for pixels of 3"),
            ((images, at, fill, scale[:2], bias, good), "scale of 2 and bias of 3 for 3 channels"),
            ((images[:, :, ::-1], at, fill, scale, bias, good), "packed rows"),
            ((inside(good, images.shape), at, fill, scale, bias, good), "images and out share memory"),
            (
                (inside(good, images.shape)[:, ::-1], at, fill, scale, bias, good),
                "images and out share memory",
            ),
            ((images, at, fill, good.reshape(-1)[-3:], bias, good), "scale or bias shares memory with out"),
        ]
        for arguments, message in wrong:
            with pytest.raises(ValueError, match=message):
                kernel(*arguments)
        with pytest.raises(TypeError):
            kernel(images, at, fill, scale, bias, good.astype(np.float64))
        frozen = good.copy()
        frozen.setflags(write=False)
        with pytest.raises(ValueError, match="read-only"):
            kernel(images, at, fill, scale, bias, frozen)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
def test_numbers_of_sixteen_bits(channels, planar, dtype):
    images = np.random.default_rng(channels).integers(0, 65536, (3, 5, 7, channels), dtype=np.uint16)
    images[0, 0], images[0, 1] = 0, 65535
    scale, bias = factors(channels)
    scale /= 257
    expected = reference(images, scale, bias, planar, dtype)
    out = np.full(expected.shape, 77, TYPES[dtype])
    values.normalize16(images, scale, bias, planar, out)
    np.testing.assert_array_equal(out.view(expected.dtype), expected)


def test_numbers_of_sixteen_bits_are_checked():
    images, ones = np.zeros((2, 4, 5, 3), np.uint16), np.ones(3, np.float32)
    for shape, planar in (((2, 4, 5, 3), True), ((2, 3, 4, 5), False), ((1, 4, 5, 3), False)):
        with pytest.raises(ValueError, match=r"images are \(2, 4, 5, 3\), out is"):
            values.normalize16(images, ones, ones, planar, np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match="scale of 2 and bias of 3 for 3 channels"):
        values.normalize16(images, ones[:2], ones, False, np.zeros(images.shape, np.float32))
    with pytest.raises(ValueError, match="shares memory"):
        values.normalize16(images, ones, ones, False, images)
    values.normalize16(images[:0], ones, ones, False, np.zeros((0, 4, 5, 3), np.float32))
