"""Sampling through maps against float64 NumPy and Pillow: every variant, dtype and number of channels."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from highway._core import simd
from highway._core.pixels import warp

pytestmark = pytest.mark.usefixtures("simd_variant")

INTERPOLATIONS = [warp.NEAREST, warp.BILINEAR]
SHAPES = [(1, 1), (1, 9), (9, 1), (2, 2), (2, 3), (3, 2), (7, 8), (31, 17), (40, 40)]
FILL = 7


def random(shape, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, shape, dtype=np.uint8) if dtype == np.uint8 else rng.random(shape, np.float32)


def maps(count, projective=False, seed=0):
    """Turned, sheared, zoomed, moved, so that a part of the image is in view."""
    rng = np.random.default_rng(seed)
    matrices = np.eye(3) + rng.normal(size=(count, 3, 3)) * [[0.4, 0.4, 5], [0.4, 0.4, 5], [0, 0, 0]]
    if projective:
        matrices[:, 2, :2] = rng.normal(size=(count, 2)) * 0.02
    return matrices


def sample(images, matrices, interpolation, shape=None, bounds=None, fill=None):
    count, height, width, channels = images.shape
    height, width = shape or (height, width)
    bounds = np.empty((count, 0, 3)) if bounds is None else bounds
    fill = np.full(channels, FILL, images.dtype) if fill is None else fill
    size = count * height * width * channels
    memory = np.full(size + 128, 77, images.dtype)
    out = memory[64 : 64 + size].reshape(count, height, width, channels)
    warp.sample(images, np.ascontiguousarray(matrices), bounds, fill, interpolation, out)
    # Nothing before or behind was touched.
    assert (memory[:64] == 77).all() and (memory[64 + size :] == 77).all()
    return out


def sources(matrices, shape):
    """Source points, float64 (N, H', W', 2), and their third coordinates."""
    rows, columns = np.mgrid[: shape[0], : shape[1]] + 0.5
    centers = np.stack((columns, rows, np.ones(shape)), axis=-1)
    x, y, z = np.moveaxis(np.einsum("nij,hwj->nhwi", matrices, centers), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack((x / z, y / z), axis=-1), z, centers


def reference(images, matrices, interpolation, shape=None, bounds=None):
    """The definition in float64; and where rounding alone decides, which is where nothing is checked."""
    count, height, width, _ = images.shape
    shape = shape or (height, width)
    points, z, centers = sources(matrices, shape)
    x, y = points[..., 0], points[..., 1]
    with np.errstate(invalid="ignore"):
        visible = (z > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
        unsure = (np.abs(z) < 1e-9) | (np.abs(x) < 1e-7) | (np.abs(y) < 1e-7)
        unsure |= (np.abs(x - width) < 1e-7) | (np.abs(y - height) < 1e-7)
        if interpolation == warp.NEAREST:
            unsure |= (np.abs(points - np.rint(points)) < 1e-7).any(axis=3)
    if bounds is not None:
        inside = np.einsum("nkj,hwj->nkhw", bounds, centers)
        visible &= (inside >= 0).all(axis=1)
        unsure |= (np.abs(inside) < 1e-9).any(axis=1)
    x, y = np.where(visible, x, 0.5), np.where(visible, y, 0.5)
    sample = np.arange(count)[:, None, None]
    if interpolation == warp.NEAREST:
        found = images[sample, y.astype(int), x.astype(int)].astype(np.float64)
    else:
        left, top = np.floor(x - 0.5), np.floor(y - 0.5)
        across, down = (x - 0.5 - left)[..., None], (y - 0.5 - top)[..., None]

        def tap(row, column):
            row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
            return images[sample, row.astype(int), column.astype(int)].astype(np.float64)

        upper = tap(top, left) * (1 - across) + tap(top, left + 1) * across
        lower = tap(top + 1, left) * (1 - across) + tap(top + 1, left + 1) * across
        found = upper * (1 - down) + lower * down
    found[~visible] = FILL
    return found, unsure


def check(images, matrices, interpolation, shape=None, bounds=None):
    out = sample(images, matrices, interpolation, shape, bounds)
    expected, unsure = reference(images, matrices, interpolation, shape, bounds)
    if interpolation == warp.NEAREST:
        limit = 0.0
    else:
        limit = 1.0 if images.dtype == np.uint8 else 1e-4
        expected = np.rint(expected) if images.dtype == np.uint8 else expected
    assert unsure.mean() < 0.05
    assert np.abs(out - expected)[~unsure].max(initial=0) <= limit
    return out, expected


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("projective", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_against_the_definition(channels, dtype, projective, interpolation):
    for seed, (height, width) in enumerate(SHAPES):
        images = random((4, height, width, channels), dtype, seed)
        for shape in ((height, width), (5, 19), (33, 6)):
            check(images, maps(4, projective, seed), interpolation, shape)


def test_bytes_are_rounded_not_cut():
    """Of a large image: the mean error is that of rounding twice, without a bias."""
    images = random((2, 120, 130, 3))
    out, expected = check(images, maps(2, seed=4), warp.BILINEAR)
    exact, _ = reference(images, maps(2, seed=4), warp.BILINEAR)
    shown = (expected != FILL).any(axis=3)
    assert shown.sum() > 2000
    assert abs((out - exact)[shown].mean()) < 0.02
    assert (out != expected)[shown].mean() < 0.1


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("projective", [False, True])
def test_against_pillow(projective, interpolation):
    method = Image.Transform.PERSPECTIVE if projective else Image.Transform.AFFINE
    resample = Image.Resampling.NEAREST if interpolation == warp.NEAREST else Image.Resampling.BILINEAR
    for seed, (height, width) in enumerate(SHAPES):
        images = random((8, height, width, 3), seed=seed)
        matrices = maps(8, projective, seed)
        out = sample(images, matrices, interpolation, (21, 30))
        points, z, _ = sources(matrices, (21, 30))
        for image, matrix, found, point, depth in zip(images, matrices, out, points, z, strict=True):
            numbers = matrix.ravel()[: 8 if projective else 6].tolist()
            pillow = Image.fromarray(image).transform(
                (30, 21), method, numbers, resample, fillcolor=(FILL, FILL, FILL)
            )
            # Pillow's affine positions are rounded to 1/65536, and it sees what is behind the eye as well.
            sure = (np.abs(point - np.rint(point)) > 1e-3).all(axis=2) & (depth > 1e-9)
            differences = np.abs(found.astype(int) - np.asarray(pillow))[sure]
            assert differences.max(initial=0) <= (0 if interpolation == warp.NEAREST else 1)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_whole_pixels_are_exact(interpolation, dtype):
    images = random((1, 13, 22, 3), dtype)
    image = images[0]
    turns = {
        "same": (np.eye(3), image),
        "scaled matrix": (np.eye(3) * 2.5, image),
        "flip x": ([[-1, 0, 22], [0, 1, 0], [0, 0, 1]], image[:, ::-1]),
        "flip y": ([[1, 0, 0], [0, -1, 13], [0, 0, 1]], image[::-1]),
        "both": ([[-1, 0, 22], [0, -1, 13], [0, 0, 1]], image[::-1, ::-1]),
        "transpose": ([[0, 1, 0], [1, 0, 0], [0, 0, 1]], image.swapaxes(0, 1)),
        "quarter": ([[0, -1, 22], [1, 0, 0], [0, 0, 1]], np.rot90(image)),
    }
    for name, (matrix, expected) in turns.items():
        matrix = np.array([matrix], np.float64)
        assert np.array_equal(sample(images, matrix, interpolation, expected.shape[:2])[0], expected), name


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_shifts_by_whole_pixels_are_exact(interpolation):
    images = random((1, 13, 22, 3))
    for x in (-30, -22, -21, -1, 0, 1, 5, 21, 22, 2**29, -(2**40)):
        for y in (-13, -12, 0, 1, 12, 13):
            matrix = np.array([[[1, 0, x], [0, 1, y], [0, 0, 1]]], np.float64)
            padded = np.full((15 + 40, 24 + 60, 3), FILL, np.uint8)
            padded[20:33, 30:52] = images[0]
            expected = np.full((15, 24, 3), FILL, np.uint8)
            if abs(x) <= 30:
                expected = padded[20 + y : 35 + y, 30 + x : 54 + x]
            assert np.array_equal(sample(images, matrix, interpolation, (15, 24))[0], expected)


def test_constant_images_stay_constant():
    for value in range(256):
        images = np.full((1, 9, 10, 3), value, np.uint8)
        out = sample(images, maps(1, seed=value), warp.BILINEAR, fill=np.full(3, value, np.uint8))
        assert (out == value).all()


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("projective", [False, True])
def test_half_planes(projective, interpolation):
    images = random((6, 30, 28, 3))
    for count in (1, 4, 12):
        bounds = np.random.default_rng(count).normal(size=(6, count, 3)) * [1, 1, 5] + [0, 0, 20]
        out, expected = check(images, maps(6, projective, 3), interpolation, None, bounds)
        assert (out != sample(images, maps(6, projective, 3), interpolation)).any()
        assert (expected != FILL).any()
    never = np.zeros((6, 1, 3))
    never[..., 2] = -1e-300
    assert (sample(images, maps(6), interpolation, None, never) == FILL).all()
    always = np.zeros((6, 1, 3))
    assert np.array_equal(
        sample(images, maps(6), interpolation, None, always), sample(images, maps(6), interpolation)
    )


def test_half_planes_at_whole_pixels_are_exact():
    """A rectangle with edges between pixels, also where the image is only moved, or nothing of it is left."""
    images = random((1, 16, 16, 1))
    left, top, right, bottom = 3, 5, 11, 14
    bounds = np.array([[[1, 0, -left], [0, 1, -top], [-1, 0, right], [0, -1, bottom]]], np.float64)
    expected = np.full((16, 16, 1), FILL, np.uint8)
    expected[top:bottom, left:right] = images[0, top:bottom, left:right]
    for interpolation in INTERPOLATIONS:
        assert np.array_equal(sample(images, np.eye(3)[None], interpolation, None, bounds)[0], expected)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_maps_without_sense_stay_inside_of_the_image(interpolation):
    """Singular, huge and tiny numbers, horizons, everything behind the eye: some output, and no crash."""
    images = random((1, 20, 21, 3))
    numbers = [0.0, -0.0, 1.0, -1.0, 1e-300, 1e-12, 1e12, -1e18, 1e300, -1e300]
    rng = np.random.default_rng(0)
    for _ in range(400):
        matrix = rng.choice(numbers, (1, 3, 3))
        bounds = rng.choice([*numbers, np.nan, np.inf], (1, 2, 3))
        sample(images, matrix, interpolation)
        sample(images, matrix, interpolation, (9, 30), bounds)
    for last in (0.0, -1.0):
        matrix = np.diag((1.0, 1.0, last))[None]
        assert (sample(images, matrix, interpolation) == FILL).all()


@settings(max_examples=150)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from(INTERPOLATIONS),
    st.sampled_from([np.uint8, np.float32]),
    st.integers(0, 2**32 - 1),
)
def test_every_variant_gives_the_same_bits(height, width, channels, projective, interpolation, dtype, seed):
    images = random((2, height, width, channels), dtype, seed)
    bounds = np.random.default_rng(seed).normal(size=(2, seed % 3, 3)) * [1, 1, 9] + [0, 0, 9]
    arguments = (images, maps(2, projective, seed), interpolation, (17, 1 + seed % 35), bounds)
    found = sample(*arguments)
    before = simd.in_use()
    try:
        simd.use("plain")
        expected = sample(*arguments)
    finally:
        simd.use(before)
    assert np.array_equal(found, expected)


def test_sizes_beyond_what_vectors_can_count():
    """Wider than 32767: other code, the same definition."""
    images = random((1, 2, 40000, 1))
    matrix = np.array([[[-1.0, 0, 40000], [0, 1, 0.25], [0, 0, 1]]])
    for interpolation in INTERPOLATIONS:
        check(images, matrix, interpolation)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (2, 0, 4, 3), (2, 4, 0, 3), (2, 4, 4, 0), (2, 0, 0, 1)])
def test_empty_images(shape, interpolation):
    images = random(shape)
    out = sample(images, maps(shape[0]), interpolation, (3, 5))
    if shape[1] * shape[2] == 0:
        assert (out == FILL).all()
    assert sample(images, maps(shape[0]), interpolation, (0, 5)).size == 0


def test_each_channel_has_its_own_fill():
    for dtype in (np.uint8, np.float32):
        images = random((1, 4, 4, 3), dtype)
        fill = np.array([1, 2, 3], dtype)
        far = np.array([[[1, 0, 50], [0, 1, 0], [0, 0, 1]]], np.float64)
        assert (sample(images, far, warp.BILINEAR, fill=fill) == fill).all()


def test_read_only_inputs_and_threads():
    images = random((16, 60, 70, 3))
    images.setflags(write=False)
    matrices = maps(16)
    matrices.setflags(write=False)
    expected = sample(images, matrices, warp.BILINEAR)
    with ThreadPoolExecutor(8) as pool:
        for out in pool.map(lambda _: sample(images, matrices, warp.BILINEAR), range(16)):
            assert np.array_equal(out, expected)


def test_what_does_not_fit_is_refused():
    images, matrices, bounds = random((2, 4, 5, 3)), maps(2), np.zeros((2, 0, 3))
    fill, out = np.zeros(3, np.uint8), np.zeros((2, 4, 5, 3), np.uint8)

    def refused(match, **changed):
        arguments = {"images": images, "matrices": matrices, "bounds": bounds, "fill": fill}
        arguments |= {"interpolation": warp.NEAREST, "out": out, **changed}
        with pytest.raises((ValueError, TypeError), match=match):
            warp.sample(*arguments.values())

    refused("2 images of 3 channels, but out has 3", out=np.zeros((3, 4, 5, 3), np.uint8))
    refused("out has 2 of 1", out=np.zeros((2, 4, 5, 1), np.uint8))
    refused("fill 2", fill=np.zeros(2, np.uint8))
    refused(r"matrices are \(1, 3, 3\)", matrices=matrices[:1])
    refused(r"matrices are \(2, 2, 3\)", matrices=np.zeros((2, 2, 3)))
    refused(r"bounds are \(1, 0, 3\)", bounds=bounds[:1])
    refused(r"bounds are \(2, 1, 4\)", bounds=np.zeros((2, 1, 4)))
    refused("interpolation is 2", interpolation=2)
    refused("matrix 1 is not finite", matrices=np.array([np.eye(3), np.full((3, 3), np.nan)]))
    refused("matrix 0 is not finite", matrices=np.full((2, 3, 3), np.inf))
    refused("shares memory", out=images)
    refused("shares memory", fill=out.reshape(-1)[:3])
    refused("[Ii]ncompatible|mismatch|[Nn]o matching", out=np.zeros((2, 4, 5, 3), np.float32))
    refused("contiguous", images=images[:, ::-1])
