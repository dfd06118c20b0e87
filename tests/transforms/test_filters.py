"""Sharpness, blur and noise: kernels against NumPy and PIL, and as transforms."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from highway import transforms
from highway._core import philox, simd
from highway._core.pixels import color
from highway.batch import Batch
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom

SHAPES = [
    (2, 5, 7, 3),
    (1, 1, 1, 3),
    (1, 2, 5, 1),
    (1, 5, 2, 3),
    (1, 3, 3, 1),
    (2, 3, 3, 3),
    (1, 33, 65, 1),
    (2, 50, 83, 3),
    (1, 9, 12, 3),
    (0, 4, 4, 3),
]


def random(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def guarded(images, kernel):
    """What `kernel` writes; nothing around the result is touched."""
    memory = np.full(images.size + 128, 77, np.uint8)
    out = memory[64 : 64 + images.size].reshape(images.shape)
    kernel(out)
    assert (memory[:64] == 77).all()
    assert (memory[64 + images.size :] == 77).all()
    return out


def sharpen(images, *factors):
    values = np.resize(np.array(factors, np.float32), len(images))
    return guarded(images, lambda out: color.sharpen(images, values, out))


def blur(images, sigma, rows, columns):
    values = np.resize(np.array(sigma, np.float32), len(images))
    return guarded(images, lambda out: color.blur(images, values, rows, columns, out))


def smooth(images):
    """Exact mean of 3 by 3 with five times the middle, rounded; the border as it is."""
    wide = images.astype(int)
    result = wide.copy()
    height, width = images.shape[1:3]
    if height > 2 and width > 2:
        total = 4 * wide[:, 1:-1, 1:-1]
        for dy in range(3):
            for dx in range(3):
                total = total + wide[:, dy : height - 2 + dy, dx : width - 2 + dx]
        result[:, 1:-1, 1:-1] = (2 * total + 13) // 26
    return result


def gaussian(size, sigma):
    places = np.arange(size) - size // 2
    weights = np.exp(-0.5 * (places / sigma) ** 2)
    return weights / weights.sum()


def blurred(images, sigma, rows, columns):
    """In float64, not rounded."""
    values = images.astype(np.float64)
    for axis, size in ((1, rows), (2, columns)):
        reach = size // 2
        length = values.shape[axis]
        places = np.pad(np.arange(length), reach, mode="reflect" if length > 1 else "edge")
        weights = gaussian(size, sigma)
        values = sum(
            weight * values.take(places[k : k + length], axis=axis) for k, weight in enumerate(weights)
        )
    return values


@pytest.fixture(params=SHAPES, ids=str)
def images(request):
    return random(request.param)


@pytest.mark.usefixtures("simd_variant")
class TestSharpen:
    @pytest.mark.parametrize("factor", [0, 1, 2, 3, 7, 64, 100])
    def test_whole_factors_are_exact(self, images, factor):
        base = smooth(images)
        expected = np.clip(base + factor * (images - base), 0, 255).astype(np.uint8)
        assert np.array_equal(sharpen(images, factor), expected)

    @pytest.mark.parametrize("factor", [0.3, 0.99, 1.5, 2.7])
    def test_any_factor(self, images, factor):
        base = smooth(images)
        exact = np.clip(base + float(np.float32(factor)) * (images - base), 0, 255)
        assert np.abs(sharpen(images, factor) - exact).max(initial=0) < 0.53

    def test_pil_smooths_alike(self, images):
        result = sharpen(images, 0)
        for image, found in zip(images, result, strict=True):
            picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            pil = np.asarray(ImageEnhance.Sharpness(picture).enhance(0.0)).reshape(image.shape)
            if min(image.shape[:2]) > 2:
                assert np.abs(found.astype(int) - pil).max() <= 1

    def test_each_image_by_its_own_factor(self):
        images = random((3, 9, 11, 3))
        result = sharpen(images, 1, 2, 0.5)
        assert np.array_equal(result[0], images[0])
        for n, factor in ((1, 2), (2, 0.5)):
            assert np.array_equal(result[n], sharpen(images[n : n + 1], factor)[0])


@pytest.mark.usefixtures("simd_variant")
class TestBlur:
    @pytest.mark.parametrize("sigma", [0.1, 0.8, 2.0, 50.0])
    @pytest.mark.parametrize("size", [(1, 1), (3, 3), (5, 1), (1, 7), (23, 23), (9, 201)])
    def test_against_exact_arithmetic(self, images, size, sigma):
        exact = blurred(images, float(np.float32(sigma)), *size)
        assert np.abs(blur(images, sigma, *size) - exact).max(initial=0) < 0.75

    def test_smooth_pictures_are_nearly_always_rounded_right(self):
        picture = Image.fromarray(random((1, 12, 12, 3))[0]).resize((100, 90), Image.Resampling.BICUBIC)
        images = np.asarray(picture)[None]
        for size, sigma in ((5, 1.0), (23, 2.0)):
            exact = blurred(images, sigma, size, size)
            wrong = blur(images, sigma, size, size) != np.floor(exact + 0.5)
            assert wrong.mean() < 0.05

    @pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
    def test_one_value_stays(self, value):
        images = np.full((1, 20, 21, 3), value, np.uint8)
        for size in (3, 23, 63):
            for sigma in (0.1, 1.3, 40):
                assert np.array_equal(blur(images, sigma, size, size), images)

    def test_black_and_white_stay_in_range(self):
        images = random((1, 40, 260, 1)) // 128 * 255
        for size in (3, 201):
            for sigma in (0.5, 30, 1000):
                exact = blurred(images, sigma, size, size)
                assert np.abs(blur(images, sigma, size, size) - exact).max() < 1

    def test_each_image_by_its_own_sigma(self):
        images = random((3, 9, 11, 3))
        result = blur(images, [0, 2, 0.5], 5, 3)
        assert np.array_equal(result[0], images[0])
        for n, sigma in ((1, 2), (2, 0.5)):
            assert np.array_equal(result[n], blur(images[n : n + 1], sigma, 5, 3)[0])


def test_filters_have_the_same_bits_in_every_variant():
    before = simd.in_use()
    results = []
    try:
        for variant in sorted(simd.VARIANTS):
            simd.use(variant)
            found = []
            for shape in SHAPES:
                images = random(shape)
                found += [sharpen(images, 1.7, 0.2), blur(images, [1.1, 3.0], 7, 5)]
            results.append(np.concatenate([each.reshape(-1) for each in found]))
    finally:
        simd.use(before)
    assert all(np.array_equal(results[0], result) for result in results)


@pytest.mark.usefixtures("simd_variant")
def test_rows_wherever_they_lie():
    base = random((6, 12, 40, 3))
    base.setflags(write=False)
    for images in (base[::2], base[::-2], base[1:4, ::-1], base[:3, 2:9, 5:30], base[:3, ::3, 1:2]):
        packed = np.ascontiguousarray(images)
        for factor in (1, 2):
            assert np.array_equal(sharpen(images, factor), sharpen(packed, factor))
        for sigma in (0, 2):
            assert np.array_equal(blur(images, sigma, 5, 7), blur(packed, sigma, 5, 7))


def test_threads_and_batches_give_equal_bits():
    images = random((16, 33, 41, 3))
    expected = sharpen(blur(images, 1.5, 5, 5), 2.5)
    for threads in (1, 2, 8):
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(lambda n: sharpen(blur(images[n : n + 1], 1.5, 5, 5), 2.5), range(16)))
        assert np.array_equal(np.concatenate(parts), expected)


# Noise


def normals(words):
    """Both numbers of words of 32 bits, by Box and Muller in float64."""
    words = words.astype(np.int64)
    radius = np.sqrt(-2 * np.log(((words >> 12) + 0.5) / 2**20))
    angle = ((words & 511) + 0.5) / 512 * np.pi / 4
    exchange = (words >> 9 & 1).astype(bool)
    first = np.where(exchange, np.sin(angle), np.cos(angle)) * np.where(words >> 10 & 1, -1, 1)
    second = np.where(exchange, np.cos(angle), np.sin(angle)) * np.where(words >> 11 & 1, -1, 1)
    return radius * first, radius * second


def expected_noise(seed, epoch, position, index, count):
    """Of groups of 32 blocks: the first numbers of words 0 of all blocks, the second, those of words 1, ..."""
    groups = -(-count // 256)
    counters = np.zeros((32 * groups, 4), np.uint32)
    counters[:] = index, epoch, position, 0
    counters[:, 3] = np.arange(1, 32 * groups + 1)
    words = np.empty_like(counters)
    philox.blocks(counters, seed, words)
    pairs = np.stack(normals(words.reshape(groups, 32, 4)), axis=0)
    return pairs.transpose(1, 3, 0, 2).reshape(-1)[:count]


def noise(images, offset, scale, low=-np.inf, high=np.inf, seed=7, epoch=2, position=3, indices=None):
    count = len(images)
    indices = np.arange(10, 10 + count, dtype=np.uint32) if indices is None else np.array(indices, np.uint32)
    out = np.empty_like(images)
    offsets, scales = (np.resize(np.array(each, np.float32), count) for each in (offset, scale))
    color.add_noise(images, seed, epoch, position, indices, offsets, scales, low, high, out)
    return out


@pytest.mark.usefixtures("simd_variant")
class TestNoise:
    @pytest.mark.parametrize("length", [0, 1, 255, 256, 257, 5000])
    def test_numbers_are_those_of_philox(self, length):
        zeros = np.zeros((2, length), np.float32)
        seed = 2**63 + 12345
        found = noise(zeros, 0, 1, seed=seed, epoch=9, position=2**32 - 5, indices=[5, 2**32 - 1])
        for row, index in zip(found, (5, 2**32 - 1), strict=True):
            exact = expected_noise(seed, 9, 2**32 - 5, index, length)
            assert np.abs(row - exact).max(initial=0) < 3e-6

    def test_bytes_are_rounded_and_clamped(self):
        images = random((3, 1000))
        offsets, scales = [10, -3.5, 0], [5, 60, 0.25]
        result = noise(images, offsets, scales)
        for n in range(3):
            exact = images[n].astype(float) + offsets[n] + scales[n] * expected_noise(7, 2, 3, 10 + n, 1000)
            assert np.abs(result[n] - np.clip(exact, 0, 255)).max() < 0.501

    def test_reals_are_clamped_to_what_is_asked_for(self):
        images = random((1, 1000)).astype(np.float32) / 255
        free = noise(images, 0.1, 0.5)
        assert free.min() < -0.5
        assert np.array_equal(noise(images, 0.1, 0.5, 0, 1), np.clip(free, 0, 1))

    def test_neither_offset_nor_scale_copies(self):
        images = random((2, 300))
        result = noise(images, [0, 0], [0, 9])
        assert np.array_equal(result[0], images[0])
        assert (result[1] != images[1]).any()
        assert np.array_equal(noise(images, [3], [0]), np.minimum(images.astype(int) + 3, 255))

    def test_in_place(self):
        for images in (random((3, 777)), random((3, 777)).astype(np.float32)):
            expected = noise(images, 1, 9)
            indices = np.arange(10, 13, dtype=np.uint32)
            one, nine = np.ones(3, np.float32), np.full(3, 9, np.float32)
            color.add_noise(images, 7, 2, 3, indices, one, nine, -np.inf, np.inf, images)
            assert np.array_equal(images, expected)


def test_noise_has_the_same_bits_in_every_variant():
    before = simd.in_use()
    results = []
    try:
        for variant in sorted(simd.VARIANTS):
            simd.use(variant)
            zeros = np.zeros((1, 100_000), np.float32)
            results.append(noise(zeros, 0.5, 1.5).view(np.uint32))
    finally:
        simd.use(before)
    assert all(np.array_equal(results[0], result) for result in results)


def test_noise_is_normally_distributed():
    values = noise(np.zeros((1, 4_000_000), np.float32), 0, 1)[0].astype(np.float64)
    count = values.size
    # Five standard errors each.
    assert abs(values.mean()) < 5 / math.sqrt(count)
    assert abs(values.var() - 1) < 5 * math.sqrt(2 / count)
    assert abs((values**3).mean()) < 5 * math.sqrt(15 / count)
    assert abs((values**4).mean() - 3) < 5 * math.sqrt(96 / count)
    for place in (-3, -2, -1, -0.3, 0, 0.1, 1.5, 2.5, 4):
        share = 0.5 * math.erfc(-place / math.sqrt(2))
        assert abs((values < place).mean() - share) < 5 * math.sqrt(share * (1 - share) / count)
    for distance in (1, 2, 32, 64, 256, 3 * 224):
        related = (values[:-distance] * values[distance:]).mean()
        squares = ((values[:-distance] ** 2 - 1) * (values[distance:] ** 2 - 1)).mean()
        assert abs(related) < 5 / math.sqrt(count)
        assert abs(squares) < 10 / math.sqrt(count)


def test_all_words_have_the_right_moments():
    """All 2**20 radii and 4096 angles: what the docstring of the kernel says."""
    middles = (np.arange(2**20) + 0.5) / 2**20
    squares = -2 * np.log(middles)
    assert abs(squares.mean() / 2 - 1) < 1e-5
    first, second = normals(np.arange(4096))
    for values in (first, second):
        assert abs(values.sum()) < 1e-9
        assert abs((values**2).mean() / (squares[0]) - 0.5) < 1e-6
    assert abs((first * second).sum()) < 1e-6
    assert math.sqrt(squares[0]) < 5.4


def test_noise_differs_by_everything_it_is_a_function_of():
    images = np.zeros((1, 500), np.float32)
    seen = [
        noise(images, 0, 1).tobytes(),
        noise(images, 0, 1, seed=8).tobytes(),
        noise(images, 0, 1, epoch=3).tobytes(),
        noise(images, 0, 1, position=4).tobytes(),
        noise(images, 0, 1, indices=[11]).tobytes(),
    ]
    assert len(set(seen)) == 5


def test_entries_refuse_what_does_not_fit():
    images = np.zeros((2, 4, 5, 3), np.uint8)
    out, ones = np.zeros_like(images), np.ones(2, np.float32)
    wrong = [
        (lambda: color.sharpen(images, ones, out[:1].copy()), "expected one shape"),
        (lambda: color.sharpen(images, ones[:1], out), "1 factors for 2 images"),
        (lambda: color.sharpen(images, -ones, out), r"factors\[0\] is -1"),
        (lambda: color.sharpen(images, np.nan * ones, out), r"factors\[0\] is nan"),
        (lambda: color.sharpen(images, 101 * ones, out), r"factors\[0\] is 101"),
        (lambda: color.sharpen(out, ones, out), "share memory"),
        (lambda: color.sharpen(images[:, :, ::-1], ones, out), "packed rows"),
        (lambda: color.blur(images, ones[:1], 3, 3, out), "1 sigmas for 2 images"),
        (lambda: color.blur(images, -ones, 3, 3, out), r"sigmas\[0\] is -1"),
        (lambda: color.blur(images, ones, 4, 3, out), "kernel of 4 rows and 3 columns"),
        (lambda: color.blur(images, ones, 3, 203, out), "kernel of 3 rows and 203 columns"),
        (lambda: color.blur(images, ones, -1, 3, out), "kernel of -1 rows"),
        (lambda: color.blur(out, ones, 3, 3, out), "share memory"),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message):
            call()
    rows, other = np.zeros((2, 60), np.float32), np.zeros((2, 60), np.float32)
    indices = np.zeros(2, np.uint32)
    overlapping = np.zeros(121, np.float32)
    wrong = [
        ((rows, 0, 0, 0, indices, ones, ones, 0, 1, other[:1]), "expected one shape"),
        ((rows, 0, 0, 0, indices[:1], ones, ones, 0, 1, other), "1 indices for 2 images"),
        ((rows, 0, 0, 0, indices, ones[:1], ones, 0, 1, other), "1 offsets"),
        ((rows, 0, 0, 0, indices, ones, ones[:1], 0, 1, other), "1 scales"),
        ((rows, 0, 0, 0, indices, ones, -ones, 0, 1, other), r"scales\[0\] is -1"),
        ((rows, 0, 0, 0, indices, ones * np.nan, ones, 0, 1, other), r"offsets\[0\] is nan"),
        (
            (
                overlapping[:120].reshape(2, 60),
                0,
                0,
                0,
                indices,
                ones,
                ones,
                0,
                1,
                overlapping[1:].reshape(2, 60),
            ),
            "share memory",
        ),
    ]
    for arguments, message in wrong:
        with pytest.raises(ValueError, match=message):
            color.add_noise(*arguments)
    with pytest.raises((TypeError, ValueError)):
        color.add_noise(rows, 0, 0, 0, indices, ones, ones, 0, 1, other.astype(np.uint8))


# The transforms

TRANSFORMS = [
    transforms.Sharpness(),
    transforms.Sharpness((0.2, 3), p=1),
    transforms.GaussianBlur(5),
    transforms.GaussianBlur((3, 7), sigma=2.5, p=0.5),
    transforms.GaussianNoise(),
    transforms.GaussianNoise(mean=0.1, sigma=0.3, p=0.4, clip=False),
]


def applied(transform, images, first=0, epoch=3, **options):
    batch = Batch({"images": images}, indices=np.arange(first, first + len(images)), epoch=epoch)
    params = transform.draw(SampleRandom(5, epoch, batch.indices, 2), batch)
    return transform.apply_images(images, params, **options)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_transforms_do_not_depend_on_the_batch(transform, channels):
    images = random((12, 9, 11, channels))
    kept = images.copy()
    whole = applied(transform, images)
    assert np.array_equal(images, kept)
    assert not np.shares_memory(whole, images)
    parts = [applied(transform, images[n : n + 1], n) for n in range(12)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert (whole != images).any()
    assert transform.out_shape((9, 11, channels)) == (9, 11, channels)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_noise_in_place_and_elsewhere(dtype):
    images = random((6, 9, 11, 3)).astype(dtype)
    transform = transforms.GaussianNoise(p=0.6, clip=False)
    expected = applied(transform, images)
    assert expected.dtype == dtype
    assert np.array_equal(applied(transform, images[:, ::-1]), applied(transform, images[:, ::-1].copy()))
    for out in (np.empty_like(images), np.empty((6, 9, 22, 3), dtype)[:, :, ::2]):
        assert applied(transform, images, out=out) is out
        assert np.array_equal(out, expected)
    assert applied(transform, images, out=images) is images
    assert np.array_equal(images, expected)
    with pytest.raises(ArgumentError, match="out is"):
        applied(transform, images, out=np.empty(3, dtype))


def test_noise_in_its_units():
    gray = np.full((2, 64, 64, 3), 128, np.uint8)
    added = applied(transforms.GaussianNoise(0.05, 0.1), gray) - 128.0
    assert abs(added.mean() - 0.05 * 255) < 0.6
    assert abs(added.std() - 0.1 * 255) < 0.6
    planes = np.full((2, 3, 64, 64), 0.5, np.float32)
    added = applied(transforms.GaussianNoise(0.05, 0.1), planes) - 0.5
    assert abs(added.mean() - 0.05) < 0.003
    assert abs(added.std() - 0.1) < 0.003
    wild = applied(transforms.GaussianNoise(0, 3.0), planes)
    assert wild.min() == 0
    assert wild.max() == 1
    assert applied(transforms.GaussianNoise(0, 3.0, clip=False), planes).max() > 2
    assert not np.array_equal(
        applied(transforms.GaussianNoise(), gray, epoch=4), applied(transforms.GaussianNoise(), gray)
    )


@pytest.mark.parametrize(
    "transform",
    [
        lambda p: transforms.Sharpness(3.0, p=p),
        lambda p: transforms.GaussianBlur(3, 1.0, p=p),
        lambda p: transforms.GaussianNoise(p=p),
    ],
)
def test_chances(transform):
    images = random((1, 5, 5, 3)).repeat(1000, axis=0)
    for p, low, high in ((0.0, 0, 0), (0.3, 0.24, 0.36), (1.0, 1, 1)):
        changed = (applied(transform(p), images) != images).any(axis=(1, 2, 3)).mean()
        assert low <= changed <= high


def test_ranges_are_drawn_from():
    batch = Batch({"images": random((1000, 2, 2, 1))}, indices=np.arange(1000))
    rng = SampleRandom(1, 0, batch.indices, 0)
    for transform, low, high in (
        (transforms.Sharpness((0.5, 2.5), p=1), 0.5, 2.5),
        (transforms.GaussianBlur(3), 0.1, 2.0),
    ):
        drawn = transform.draw(rng, batch)
        assert np.float32(low) <= drawn.min() < low + 0.02
        assert high - 0.02 < drawn.max() <= np.float32(high)


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: transforms.Sharpness(-1), "factor"),
        (lambda: transforms.Sharpness((2, 1)), "factor"),
        (lambda: transforms.Sharpness((1, 200)), r"factor\[1\]"),
        (lambda: transforms.Sharpness(p=-1), "p"),
        (lambda: transforms.GaussianBlur(4), "kernel_size"),
        (lambda: transforms.GaussianBlur(203), "kernel_size"),
        (lambda: transforms.GaussianBlur((3, 0)), r"kernel_size\[1\]"),
        (lambda: transforms.GaussianBlur(3, 0), "sigma"),
        (lambda: transforms.GaussianBlur(3, (-1, 2)), r"sigma\[0\]"),
        (lambda: transforms.GaussianBlur(3, p=2), "p"),
        (lambda: transforms.GaussianNoise(mean="x"), "mean"),
        (lambda: transforms.GaussianNoise(sigma=-1), "sigma"),
        (lambda: transforms.GaussianNoise(p=2), "p"),
        (lambda: transforms.GaussianNoise(clip=1), "clip"),
    ],
)
def test_arguments_out_of_range_are_named(build, name):
    with pytest.raises(ArgumentError, match=rf"^\w+: {name} is "):
        build()


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_repr_builds_it_again(transform):
    again = eval(repr(transform), {name: getattr(transforms, name) for name in transforms.__all__})
    assert repr(again) == repr(transform)
    images = random((4, 5, 6, 3))
    assert np.array_equal(applied(again, images), applied(transform, images))


def test_deterministic_forms():
    for fixed in (
        transforms.Sharpness(3, p=1),
        transforms.GaussianBlur(3, 1.0),
        transforms.GaussianBlur(3, (2, 2)),
    ):
        assert fixed.deterministic() is fixed
    for transform in TRANSFORMS:
        assert transform.deterministic() is None


def test_images_that_are_none_are_refused():
    for transform in TRANSFORMS[:4]:
        for images, message in (
            (np.zeros((2, 4, 4, 3), np.float32), "float32"),
            (np.zeros((2, 4, 4, 2), np.uint8), "2 channels"),
        ):
            with pytest.raises(ArgumentError, match=message):
                applied(transform, images)
        with pytest.raises(ArgumentError, match="4 channels"):
            transform.out_shape((3, 3, 4))
    with pytest.raises(ArgumentError, match="GaussianNoise: images are int16"):
        applied(TRANSFORMS[4], np.zeros((2, 4, 4, 3), np.int16))
