"""Flips and windows against NumPy, byte for byte: every variant, layout, size of pixel and number of threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highway._core.pixels import geometry

pytestmark = pytest.mark.usefixtures("simd_variant")

# Rows shorter than, as long as and longer than the registers, for every size of pixel that has its own code.
WIDTHS = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 15, 16, 17, 31, 32, 33, 47, 64, 101]
SIZES = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17]


def random(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def mirrored(images, flags, axis):
    out = images.copy()
    out[flags != 0] = np.flip(images, axis)[flags != 0]
    return out


def places(tops, lefts, mirrored_x=0, mirrored_y=0):
    """What `windows` takes, of columns or numbers."""
    columns = np.broadcast_arrays(*map(np.asarray, (tops, lefts, mirrored_x, mirrored_y)))
    return np.stack(columns, axis=1).astype(np.int64)


def windowed(images, places, fill, height, width):
    """Pixel after pixel; mirrored at the end."""
    out = np.empty((len(images), height, width, images.shape[3]), np.uint8)
    rows, columns = images.shape[1:3]
    for n, (top, left, mirrored_x, mirrored_y) in enumerate(places.tolist()):
        for y in range(height):
            for x in range(width):
                inside = 0 <= top + y < rows and 0 <= left + x < columns
                out[n, y, x] = images[n, top + y, left + x] if inside else fill
        out[n] = out[n, :: -1 if mirrored_y else 1, :: -1 if mirrored_x else 1]
    return out


def flips():
    return [
        (geometry.flip_x, geometry.flip_x_in_place, 2),
        (geometry.flip_y, geometry.flip_y_in_place, 1),
    ]


def check_flips(images, flags):
    for copying, in_place, axis in flips():
        expected = mirrored(images, flags, axis)
        out = np.full(images.shape, 170, np.uint8)
        copying(images, flags, out)
        assert np.array_equal(out, expected)
        # In the middle of something larger, which must stay as it is.
        frame = np.full(
            (len(images), images.shape[1] + 2, images.shape[2] + 2, images.shape[3]), 85, np.uint8
        )
        inner = frame[:, 1:-1, 1:-1]
        inner[:] = images
        in_place(inner, flags)
        assert np.array_equal(inner, expected)
        inner[:] = 85
        assert (frame == 85).all()


@pytest.mark.parametrize("size", SIZES)
def test_flips_of_every_width_and_pixel(size):
    for width in WIDTHS:
        check_flips(random((2, 3, width, size), width), np.array([1, 0], np.uint8))


@pytest.mark.parametrize(
    "shape", [(0, 2, 3, 3), (1, 0, 3, 3), (1, 1, 1, 1), (3, 1, 40, 3), (2, 7, 1, 3), (1, 2, 0, 3)]
)
def test_flips_of_small_shapes(shape):
    check_flips(random(shape), np.ones(shape[0], np.uint8))


@given(
    st.integers(0, 4),
    st.integers(0, 6),
    st.integers(0, 70),
    st.integers(0, 9),
    st.integers(0, 2**32 - 1),
)
def test_flips_of_any_shape(count, height, width, size, seed):
    flags = random((count,), seed) % 3
    check_flips(random((count, height, width, size), seed), flags)


def test_flips_write_nothing_outside():
    """Rows in the middle of a canvas: what is left and right of `out` stays."""
    for width in WIDTHS:
        for size in (1, 3, 4, 6):
            images = random((1, 1, width, size))
            memory = np.full(width * size + 64, 7, np.uint8)
            out = memory[32 : 32 + width * size].reshape(images.shape)
            geometry.flip_x(images, np.ones(1, np.uint8), out)
            assert np.array_equal(out, images[:, :, ::-1])
            assert (memory[:32] == 7).all()
            assert (memory[32 + width * size :] == 7).all()


def test_flips_take_rows_wherever_they_lie():
    base = random((6, 12, 40, 3))
    frozen = base.copy()
    frozen.setflags(write=False)
    flags = np.array([1, 0, 1], np.uint8)
    for images in (
        base[::2],
        base[::-2],
        base[1:4, ::-1],
        base[:3, 2:9, 5:30],
        frozen[:3],
        base[:3, ::3, 1:2],
    ):
        for copying, _, axis in flips():
            out = np.empty(images.shape, np.uint8)
            copying(images, flags, out)
            assert np.array_equal(out, mirrored(images, flags, axis))
    inner = base[::-2, ::-1, 5:30]
    expected = mirrored(inner.copy(), flags, 2)
    geometry.flip_x_in_place(inner, flags)
    assert np.array_equal(inner, expected)


def test_a_single_channel_may_have_any_stride():
    column = random((2, 3, 1, 5))[..., :1]
    out = np.empty(column.shape, np.uint8)
    geometry.flip_y(column, np.ones(2, np.uint8), out)
    assert np.array_equal(out, column[:, ::-1])


def test_big_flip():
    images = random((1, 1, 70_000_001, 3))
    out = np.empty_like(images)
    geometry.flip_x(images, np.ones(1, np.uint8), out)
    assert np.array_equal(out, images[:, :, ::-1])
    geometry.flip_x_in_place(out, np.ones(1, np.uint8))
    assert np.array_equal(out, images)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 12])
def test_windows_inside_and_outside(size):
    images = random((9, 5, 7, size))
    fill = np.arange(10, 10 + size, dtype=np.uint8)
    for height, width in ((1, 1), (3, 4), (5, 7), (9, 11), (0, 3), (3, 0)):
        # The nine: inside, over every border, just outside and far away.
        tops = np.array([0, 1, -2, 4, 5, -height, 0, 2**31, -(2**31)])
        lefts = np.array([0, 2, -3, 6, 7, 0, -width, -(2**31), 2**31])
        for mirrored_x, mirrored_y in ((0, 0), (1, 0), (0, -7), (2**40, 1)):
            at = places(tops, lefts, mirrored_x, mirrored_y)
            out = np.full((9, height, width, size), 99, np.uint8)
            geometry.windows(images, at, fill, out)
            assert np.array_equal(out, windowed(images, at, fill, height, width))


@given(
    st.integers(0, 3),
    st.tuples(st.integers(0, 6), st.integers(0, 40)),
    st.tuples(st.integers(0, 8), st.integers(0, 44)),
    st.integers(0, 5),
    st.integers(0, 2**32 - 1),
)
def test_windows_of_any_shape(count, shape, window, size, seed):
    rng = np.random.default_rng(seed)
    images = random((count, *shape, size), seed)
    at = places(*rng.integers(-9, 9, (2, count)), *rng.integers(0, 2, (2, count)))
    fill = random((size,), seed)
    out = np.full((count, *window, size), 99, np.uint8)
    geometry.windows(images, at, fill, out)
    assert np.array_equal(out, windowed(images, at, fill, *window))


def test_windows_of_strided_and_read_only_images():
    base = random((6, 12, 40, 3))
    base.setflags(write=False)
    fill = np.zeros(3, np.uint8)
    at = places([0, 2, -1], [3, -2, 8], [0, 1, 1], [1, 0, 1])
    for images in (base[::2], base[::-2], base[:3, ::-1, 4:20], base[:3, ::3]):
        out = np.empty((3, 5, 6, 3), np.uint8)
        geometry.windows(images, at, fill, out)
        assert np.array_equal(out, windowed(images, at, fill, 5, 6))


def test_threads_give_equal_bits():
    images = random((16, 33, 101, 3))
    flags = random((16,)) % 2
    expected = mirrored(images, flags, 2)

    def flip(sample):
        out = np.empty_like(images[sample])
        geometry.flip_x(images[sample], flags[sample], out)
        return out

    for threads in (1, 2, 8):
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(flip, [slice(n, n + 1) for n in range(16)]))
        assert np.array_equal(np.concatenate(parts), expected)


def test_entries_refuse_what_does_not_fit():
    images = np.zeros((2, 4, 5, 3), np.uint8)
    flags = np.ones(2, np.uint8)
    at = np.zeros((2, 4), np.int64)
    fill = np.zeros(3, np.uint8)
    out = np.zeros_like(images)
    window = np.zeros((2, 2, 2, 3), np.uint8)
    wrong = []
    for copying, in_place, _ in flips():
        wrong += [
            (lambda f=copying: f(images, flags, out[:1].copy()), "expected the same"),
            (lambda f=copying: f(images, flags, np.zeros((2, 4, 5, 4), np.uint8)), "expected the same"),
            (lambda f=copying: f(images, flags[:1], out), "1 flags for 2 images"),
            (lambda f=copying: f(images, flags, images), "share memory"),
            (lambda f=copying: f(images[:, ::-1], flags, images), "share memory"),
            (lambda f=copying: f(images[:1], flags[:1], images[:1]), "share memory"),
            (lambda f=copying: f(images[:, :, ::-1], flags, out), "packed rows"),
            (lambda f=copying: f(np.zeros((2, 4, 5, 6), np.uint8)[..., ::2], flags, out), "packed rows"),
            (lambda f=copying: f(np.zeros((2, 4, 5, 6), np.uint8)[..., :3], flags, out), "packed rows"),
            (lambda f=copying: f(images.astype(np.int8), flags, out), "Buffer dtype mismatch"),
            (lambda f=copying: f(images[0], flags, out), "wrong number of dimensions"),
            (lambda f=in_place: f(images, flags[:1]), "1 flags for 2 images"),
            (lambda f=in_place: f(images[:, :, ::-1], flags), "packed rows"),
        ]
    far, near = at + 2**31 + 1, at.copy()
    near[1, 1] = -(2**63)
    wrong += [
        (lambda: geometry.windows(images, at, fill, window[:1].copy()), "but out has 1 of 3"),
        (lambda: geometry.windows(images, at, fill, np.zeros((2, 2, 2, 4), np.uint8)), "out has 2 of 4"),
        (lambda: geometry.windows(images, at[:1], fill, window), r"places are \(1, 4\) for 2 images"),
        (lambda: geometry.windows(images, at[:, :2].copy(), fill, window), r"places are \(2, 2\) for 2"),
        (lambda: geometry.windows(images, at, fill[:2], window), "fill of 2 bytes"),
        (lambda: geometry.windows(images, far, fill, window), "window 0 at"),
        (lambda: geometry.windows(images, near, fill, window), "window 1 at"),
        (lambda: geometry.windows(images, at, fill, images), "share memory"),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message):
            call()
    frozen = images.copy()
    frozen.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        geometry.flip_x_in_place(frozen, flags)
    with pytest.raises(TypeError):
        geometry.flip_x(None, flags, out)


def test_neighbors_in_one_array_do_not_share_memory():
    images = random((4, 3, 5, 3))
    expected = images[:2, :, ::-1].copy()
    geometry.flip_x(images[:2], np.ones(2, np.uint8), images[2:])
    assert np.array_equal(images[2:], expected)


@pytest.mark.parametrize("size", SIZES)
def test_transposes(size):
    """Squares, stripes and what is between, whatever the strides; images without a flag are copied."""
    for height in (0, 1, 2, 3, 4, 5, 6, 7, 8, 33):
        for width in (0, 1, 2, 3, 4, 5, 6, 9, 35):
            base = random((3, height, width, size), height)
            for images in (base, base[:, ::-1], base[::2]):
                memory = np.full(images.size + 128, 170, np.uint8)
                out = memory[64 : 64 + images.size].reshape(len(images), width, height, size)
                geometry.transpose(images, np.ones(len(images), np.uint8), out)
                assert np.array_equal(out, images.swapaxes(1, 2))
                assert (memory[:64] == 170).all() and (memory[64 + images.size :] == 170).all()
    square = random((3, 11, 11, size))
    out = np.empty_like(square)
    geometry.transpose(square, np.array([0, 1, 0], np.uint8), out)
    assert np.array_equal(out[::2], square[::2]) and np.array_equal(out[1], square[1].swapaxes(0, 1))


def test_transposes_that_do_not_fit_are_refused():
    images, flags, out = random((2, 4, 5, 3)), np.ones(2, np.uint8), np.empty((2, 5, 4, 3), np.uint8)
    for match, arguments in (
        ("expected height and width exchanged", (images, flags, np.empty_like(images))),
        ("1 flags for 2 images", (images, flags[:1], out)),
        ("image 1 is .4, 5. and has no flag", (images, np.array([1, 0], np.uint8), out)),
        ("packed rows", (images[:, :, ::-1], flags, out)),
    ):
        with pytest.raises(ValueError, match=match):
            geometry.transpose(*arguments)
    square = random((2, 4, 4, 3))
    with pytest.raises(ValueError, match="share memory"):
        geometry.transpose(square, flags, square)
