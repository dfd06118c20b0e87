"""Point-wise color operations: against NumPy and PIL, alone and in programs, and as transforms."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from highway import transforms
from highway._core import simd
from highway._core.pixels import color
from highway.batch import Batch
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms.color import Pointwise
from highway.transforms.color import run as run_programs

CODES = [
    color.BRIGHTNESS,
    color.CONTRAST,
    color.SATURATION,
    color.HUE,
    color.GRAYSCALE,
    color.INVERT,
    color.SOLARIZE,
    color.POSTERIZE,
    color.AUTOCONTRAST,
    color.EQUALIZE,
    color.GAMMA,
]


def random(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def dull(shape, seed=0):
    """Images that do not reach from 0 to 255, other in every channel."""
    return (random(shape, seed) // 3 + np.arange(shape[3], dtype=np.uint8) * 20 + 30).astype(np.uint8)


def program(*operations, count=1):
    """The same operations for every image: (code, argument, argument)."""
    codes = np.array([[code for code, *_ in operations]] * count, np.int32).reshape(count, len(operations))
    arguments = np.zeros((count, len(operations), 2), np.float32)
    for k, (_, *values) in enumerate(operations):
        arguments[:, k, : len(values)] = values
    return codes, arguments


def run(images, *operations):
    """Run a program; nothing around the result is touched."""
    memory = np.full(images.size + 128, 77, np.uint8)
    out = memory[64 : 64 + images.size].reshape(images.shape)
    color.run(images, *program(*operations, count=len(images)), out)
    assert (memory[:64] == 77).all()
    assert (memory[64 + images.size :] == 77).all()
    return out


def rounded(values):
    return np.floor(np.clip(values, 0, 255) + 0.5).astype(np.uint8)


def gray(images):
    weights = np.array([9794, 19235, 3736])
    return ((images.astype(np.int64) @ weights + 16384) >> 15)[..., None]


def fixed(factor):
    """Scale and factor of the kernels' fixed point."""
    scale = 1
    while int(float(factor) * (32768 // scale) + 0.5) > 32767:
        scale *= 2
    return scale, int(float(factor) * (32768 // scale) + 0.5)


def saturated(images, factor):
    scale, part = fixed(factor)
    base = gray(images)
    return np.clip(base + (((images - base) * scale * part + 16384) >> 15), 0, 255).astype(np.uint8)


def turned(images, turns):
    """Through HSV in float64; the kernel does it in 1 / 4096 sextants."""
    values = images.astype(np.float64)
    r, g, b = np.moveaxis(values, -1, 0)
    high, low = values.max(-1), values.min(-1)
    spread = np.where(high > low, high - low, 1)
    hue = np.where(
        high == r, (g - b) / spread, np.where(high == g, 2 + (b - r) / spread, 4 + (r - g) / spread)
    )
    hue = (hue + 6 * turns) % 6
    sector, part = np.floor(hue).astype(int) % 6, hue - np.floor(hue)
    saturation = (high - low) / np.maximum(high, 1)
    p, q, t = (
        high * (1 - saturation),
        high * (1 - saturation * part),
        high * (1 - saturation * (1 - part)),
    )
    order = [(high, t, p), (q, high, p), (p, high, t), (p, q, high), (t, p, high), (high, p, q)]
    return np.stack([np.choose(sector, [o[c] for o in order]) for c in range(3)], axis=-1)


def mean_of(image):
    means = image.reshape(-1, image.shape[-1]).astype(np.float64)
    if image.shape[-1] == 1:
        return means.mean()
    sums = means.sum(0)
    return (0.2989 * sums[0] + 0.587 * sums[1] + 0.114 * sums[2]) / len(means)


def on_line(image, factor, offset=0.0):
    """A line through bytes, as the kernels do it in fixed point."""
    factor = float(np.float32(factor))
    if factor >= 4:
        return rounded(image * factor + offset)
    scale, part = fixed(factor)
    unit = 128 // scale
    products = (image.astype(np.int64) * 128 * part + 16384) >> 15
    return np.clip((products + int(np.floor((offset + 0.5) * unit + 0.5))) // unit, 0, 255).astype(np.uint8)


def contrasted(images, factor):
    wide = float(np.float32(factor))
    return np.stack([on_line(image, factor, mean_of(image) * (1 - wide)) for image in images])


def stretched(images):
    low, high = images.min((1, 2), keepdims=True).astype(int), images.max((1, 2), keepdims=True).astype(int)
    span = high - low
    result = (2 * 255 * (images - low) + span) // np.maximum(2 * span, 1)
    return np.where(span == 0, images, result).astype(np.uint8)


def through_pil(images, function):
    results = []
    for image in images:
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        results.append(np.asarray(function(picture)).reshape(image.shape))
    return np.stack(results)


def shapes():
    return [
        (2, 5, 7, 3),
        (1, 1, 1, 3),
        (3, 1, 2, 1),
        (1, 33, 65, 1),
        (2, 50, 83, 3),
        (1, 70, 61, 3),
        (0, 4, 4, 3),
    ]


@pytest.fixture(params=shapes(), ids=str)
def images(request):
    return dull(request.param)


@pytest.mark.usefixtures("simd_variant")
class TestOperations:
    @pytest.mark.parametrize("factor", [0, 0.3, 0.5, 0.99999, 1, 1.7, 2, 3.9999, 4, 100])
    def test_brightness(self, images, factor):
        result = run(images, (color.BRIGHTNESS, factor))
        assert np.array_equal(result, on_line(images, factor))
        assert np.abs(result - np.clip(images * float(factor), 0, 255)).max(initial=0) < 0.55

    def test_brightness_of_every_byte(self):
        images = np.resize(np.arange(256, dtype=np.uint8), (1, 61, 67, 3))
        for factor in np.linspace(0, 4.2, 200):
            result = run(images, (color.BRIGHTNESS, factor))
            assert np.array_equal(result, on_line(images, factor))
            assert np.abs(result - np.clip(images * float(factor), 0, 255)).max() < 0.55

    @pytest.mark.parametrize("factor", [0, 0.3, 0.99999, 1, 1.7, 2, 3.9999, 4, 100])
    def test_contrast(self, images, factor):
        result = run(images, (color.CONTRAST, factor))
        if len(images):
            assert np.array_equal(result, contrasted(images, factor))
            wide = float(np.float32(factor))
            exact = np.stack([image * wide + mean_of(image) * (1 - wide) for image in images])
            assert np.abs(result - np.clip(exact, 0, 255)).max() < 0.55

    @pytest.mark.parametrize("value", [0, 1, 255])
    @pytest.mark.parametrize("factor", [0, 0.5, 0.99999, 1.99999, 2, 3.99999, 4, 100])
    def test_contrast_at_the_ends_of_its_fixed_point(self, value, factor):
        images = np.full((1, 20, 20, 3), value, np.uint8)
        # Weights of gray have a sum of 0.9999.
        assert np.abs(run(images, (color.CONTRAST, factor)) - images.astype(int)).max() <= (factor > 4) * 3
        images[0, 0, 0] = 255 - value
        assert np.array_equal(run(images, (color.CONTRAST, factor)), contrasted(images, factor))

    @pytest.mark.parametrize("factor", [0, 0.3, 0.9999, 1, 1.7, 2, 3, 50, 100])
    def test_saturation(self, images, factor):
        result = run(images, (color.SATURATION, factor))
        if images.shape[-1] == 1:
            assert np.array_equal(result, images)
            return
        assert np.array_equal(result, saturated(images, np.float32(factor)))
        exact = np.clip(gray(images) + factor * (images - gray(images).astype(np.float64)), 0, 255)
        assert np.abs(result - exact).max(initial=0) < (0.53 if factor < 4 else 1)

    def test_saturation_of_every_gray_difference(self):
        images = random((1, 300, 300, 3))
        images[0, :5, :256] = np.arange(256, dtype=np.uint8)[:, None] * np.array([1, 0, 0], np.uint8)
        for factor in (0.1, 1.5, 7.3):
            assert np.array_equal(
                run(images, (color.SATURATION, factor)), saturated(images, np.float32(factor))
            )

    @pytest.mark.parametrize("turns", [-0.5, -0.21, -1 / 6, 0, 0.05, 1 / 3, 0.5])
    def test_hue(self, images, turns):
        result = run(images, (color.HUE, turns))
        if images.shape[-1] == 1 or turns == 0:
            assert np.array_equal(result, images)
            return
        assert np.abs(result - turned(images, turns)).max(initial=0) < 0.565

    def test_hue_of_many_colors(self):
        images = random((1, 256, 256, 3))
        images[0, :64] //= 32
        for turns in (-0.4, 0.017, 0.25):
            result = run(images, (color.HUE, turns))
            assert np.abs(result - turned(images, turns)).max() < 0.565
            # Value and the least channel stay.
            assert np.array_equal(result.max(-1), images.max(-1))
            assert np.array_equal(result.min(-1), images.min(-1))

    def test_hue_by_thirds_moves_channels(self):
        images = random((1, 40, 40, 3))
        assert np.array_equal(run(images, (color.HUE, np.float32(1 / 3))), np.roll(images, 1, axis=-1))

    def test_grayscale(self, images):
        expected = images if images.shape[-1] == 1 else np.repeat(gray(images), 3, -1)
        result = run(images, (color.GRAYSCALE,))
        assert np.array_equal(result, expected)
        if images.shape[-1] == 3:
            exact = images @ np.array([0.2989, 0.587, 0.114])
            assert np.abs(result[..., 0] - exact).max(initial=0) < 0.51

    def test_invert(self, images):
        assert np.array_equal(run(images, (color.INVERT,)), 255 - images)

    @pytest.mark.parametrize("threshold", [-3, 0, 0.5, 1, 99.5, 128, 255, 256, 1000])
    def test_solarize(self, images, threshold):
        expected = np.where(images >= threshold, 255 - images, images)
        assert np.array_equal(run(images, (color.SOLARIZE, threshold)), expected)

    @pytest.mark.parametrize("bits", range(9))
    def test_posterize(self, images, bits):
        expected = images & (0xFF & ~(2 ** (8 - bits) - 1))
        assert np.array_equal(run(images, (color.POSTERIZE, bits)), expected)

    def test_autocontrast(self, images):
        result = run(images, (color.AUTOCONTRAST,))
        if not len(images):
            return
        assert np.array_equal(result, stretched(images))
        if images.shape[1] > 1:
            pil = through_pil(images, ImageOps.autocontrast)
            assert np.abs(result.astype(int) - pil).max() <= 1

    def test_autocontrast_of_one_value(self):
        images = np.full((1, 9, 9, 3), 80, np.uint8)
        images[0, 0, 0, 1] = 81
        result = run(images, (color.AUTOCONTRAST,))
        assert np.array_equal(result[..., 0], images[..., 0])
        assert result[0, 0, 0, 1] == 255
        assert result[0, 1, 1, 1] == 0

    def test_autocontrast_of_every_lowest_and_highest_value(self):
        low, high = (ends.astype(np.uint8)[:, None] for ends in np.triu_indices(256))
        images = np.clip(np.arange(256, dtype=np.uint8), low, high)[:, None, :, None]
        assert np.array_equal(run(images, (color.AUTOCONTRAST,)), stretched(images))
        # Other ends in each channel, as pixels lie and as planes.
        images = np.concatenate([np.roll(images[::7], 1001 * k, axis=0) for k in range(3)], axis=3)
        assert np.array_equal(run(images, (color.AUTOCONTRAST,)), stretched(images))
        result = run(images, (color.AUTOCONTRAST,), (color.SATURATION, 1.5))
        assert np.array_equal(result, saturated(stretched(images), 1.5))

    @pytest.mark.parametrize("place", [0, 1, 95, 96, 5758, 5760, 11998, 11999])
    @pytest.mark.parametrize("before", [(), ((color.HUE, 1 / 3),)], ids=["alone", "behind hue"])
    def test_autocontrast_finds_its_ends_wherever_they_are(self, place, before):
        for value in (3, 250):
            images = np.random.default_rng(place).integers(100, 110, (1, 40, 100, 3), dtype=np.uint8)
            images.reshape(-1)[place] = value
            assert np.array_equal(
                run(images, *before, (color.AUTOCONTRAST,)),
                stretched(np.roll(images, len(before), axis=-1)),
            )

    def test_equalize(self, images):
        if len(images):
            assert np.array_equal(run(images, (color.EQUALIZE,)), through_pil(images, ImageOps.equalize))

    def test_equalize_where_pil_clamps_or_gives_up(self):
        for seed in range(20):
            images = (random((2, 17, 31, 3), seed) >> (seed % 8)).astype(np.uint8)
            assert np.array_equal(run(images, (color.EQUALIZE,)), through_pil(images, ImageOps.equalize))

    @pytest.mark.parametrize(
        ("gamma", "gain"), [(1, 1), (0.5, 1), (2.2, 1), (0, 1), (0.8, 1.7), (100, 1), (1, 0)]
    )
    def test_gamma(self, images, gamma, gain):
        wide = (np.float64(np.float32(gamma)), np.float64(np.float32(gain)))
        expected = rounded(255 * wide[1] * (images / 255) ** wide[0])
        assert np.array_equal(run(images, (color.GAMMA, gamma, gain)), expected)

    def test_every_byte_through_any_table(self):
        images = np.resize(np.arange(256, dtype=np.uint8), (1, 61, 67, 3))
        for gamma in np.linspace(0.1, 4, 30, dtype=np.float32):
            expected = rounded(255 * (images / 255) ** np.float64(gamma))
            assert np.array_equal(run(images, (color.GAMMA, gamma, 1)), expected)

    def test_gamma_where_results_lie_in_the_middle(self):
        images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
        for gamma in (0, 1e-6, 0.25, 0.5, 1, 2, 3, 60, 100):
            for gain in (0, 0.125, 0.5, 1.5, 100):
                wide = np.float64(np.float32(gamma))
                expected = rounded(255 * gain * (images / 255) ** wide)
                assert np.array_equal(run(images, (color.GAMMA, gamma, gain)), expected)

    def test_none_copies(self, images):
        assert np.array_equal(run(images, (color.NONE,), (color.NONE, 7, 7)), images)
        assert np.array_equal(run(images), images)


def operations():
    def arguments(code):
        first = st.floats(0, 3, width=32)
        if code == color.HUE:
            first = st.floats(-0.5, 0.5, width=32)
        elif code in (color.BRIGHTNESS, color.CONTRAST, color.SATURATION):
            # Most where there is fixed point, some beyond it.
            first = st.one_of(st.floats(0, 3, width=32), st.floats(0, 100, width=32))
        elif code == color.SOLARIZE:
            first = st.integers(0, 256)
        elif code == color.POSTERIZE:
            first = st.integers(0, 8)
        return st.tuples(st.just(code), first, st.floats(0, 2, width=32))

    return st.sampled_from([color.NONE, *CODES]).flatmap(arguments)


@settings(max_examples=150)
@given(
    st.integers(1, 5).flatmap(
        lambda length: st.lists(
            st.lists(operations(), min_size=length, max_size=length), min_size=1, max_size=3
        )
    ),
    st.tuples(st.integers(1, 60), st.integers(1, 90)),
    st.sampled_from([1, 3]),
    st.integers(0, 2**32 - 1),
)
def test_programs_are_their_operations_one_by_one_in_every_variant(programs, size, channels, seed):
    """Each image its own program; in place and apart; the same bits from every variant."""
    images = random((len(programs), *size, channels), seed)
    codes = np.array([[code for code, _, _ in each] for each in programs], np.int32)
    arguments = np.array([[values for _, *values in each] for each in programs], np.float32)
    before = simd.in_use()
    results = []
    try:
        for variant in sorted(simd.VARIANTS):
            simd.use(variant)
            together = np.empty_like(images)
            color.run(images, codes, arguments, together)
            single = images.copy()
            for k in range(codes.shape[1]):
                color.run(single, codes[:, k : k + 1].copy(), arguments[:, k : k + 1].copy(), single)
            in_place = images.copy()
            color.run(in_place, codes, arguments, in_place)
            assert np.array_equal(together, single)
            assert np.array_equal(together, in_place)
            results.append(together)
    finally:
        simd.use(before)
    assert all(np.array_equal(results[0], result) for result in results)


@pytest.mark.parametrize(
    "step",
    [
        (color.GRAYSCALE,),
        (color.SATURATION, 0.6),
        (color.SATURATION, 70),
        (color.HUE, 0.117),
        (color.HUE, -0.29),
    ],
    ids=str,
)
def test_every_color_has_the_same_bits_in_every_variant(step):
    green, blue = np.divmod(np.arange(1 << 16), 256)
    before = simd.in_use()
    try:
        for red in range(256):
            pixels = np.stack([np.full(1 << 16, red), green, blue], axis=-1)
            images = pixels.astype(np.uint8).reshape(1, 256, 256, 3)
            results = []
            for variant in sorted(simd.VARIANTS):
                simd.use(variant)
                results.append(run(images, step))
            assert all(np.array_equal(results[0], result) for result in results)
    finally:
        simd.use(before)


@pytest.mark.usefixtures("simd_variant")
def test_a_big_image_is_not_cut_at_its_blocks():
    images = random((1, 500, 701, 3))
    steps = [(color.BRIGHTNESS, 0.9), (color.CONTRAST, 1.5), (color.SATURATION, 1.2), (color.EQUALIZE,)]
    expected = saturated(contrasted(on_line(images, 0.9), 1.5), np.float32(1.2))
    expected = through_pil(expected, ImageOps.equalize)
    assert np.array_equal(run(images, *steps), expected)


@pytest.mark.usefixtures("simd_variant")
def test_rows_wherever_they_lie():
    base = dull((6, 12, 40, 3))
    base.setflags(write=False)
    steps = [(color.CONTRAST, 1.5), (color.HUE, 0.2), (color.AUTOCONTRAST,), (color.EQUALIZE,)]
    for images in (base[::2], base[::-2], base[1:4, ::-1], base[:3, 2:9, 5:30], base[:3, ::3, 1:2]):
        assert np.array_equal(run(images, *steps), run(np.ascontiguousarray(images), *steps))
        assert np.array_equal(run(images), images)
    single = dull((2, 3, 1, 5))[..., :1]
    assert np.array_equal(run(single, (color.INVERT,)), 255 - single)


def test_threads_and_batches_give_equal_bits():
    images = dull((16, 33, 41, 3))
    steps = [(color.CONTRAST, 1.5), (color.SATURATION, 0.4), (color.EQUALIZE,)]
    expected = run(images, *steps)
    for threads in (1, 2, 8):
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(lambda n: run(images[n : n + 1], *steps), range(16)))
        assert np.array_equal(np.concatenate(parts), expected)


def test_entry_refuses_what_does_not_fit():
    images = np.zeros((2, 4, 5, 3), np.uint8)
    out = np.zeros_like(images)
    codes, arguments = program((color.BRIGHTNESS, 1), count=2)
    wrong = [
        ((images, codes, arguments, out[:1].copy()), "expected one shape"),
        (
            (np.zeros((2, 4, 5, 4), np.uint8), codes, arguments, np.zeros((2, 4, 5, 4), np.uint8)),
            "4 channels",
        ),
        ((images[:, :, ::-1], codes, arguments, out), "packed rows"),
        ((np.zeros((2, 4, 5, 6), np.uint8)[..., ::2], codes, arguments, out), "packed rows"),
        ((images, codes[:1], arguments, out), "for 2 images"),
        ((images, codes, arguments[:1], out), "for 2 images"),
        ((images, codes, arguments[:, :, :1].copy(), out), "for 2 images"),
        ((images, codes + 11, arguments, out), "operation 0 of image 0 is 12"),
        ((images, codes - 2, arguments, out), "operation 0 of image 0 is -1"),
        ((out[::-1], codes, arguments, out), "share memory"),
        ((out[:, ::-1], codes, arguments, out), "share memory"),
        ((images.astype(np.int8), codes, arguments, out), "Buffer dtype mismatch"),
    ]
    for given_arguments, message in wrong:
        with pytest.raises(ValueError, match=message):
            color.run(*given_arguments)
    for step in [
        (color.BRIGHTNESS, -1),
        (color.BRIGHTNESS, np.nan),
        (color.CONTRAST, 101),
        (color.SATURATION, np.inf),
        (color.HUE, 0.51),
        (color.SOLARIZE, np.nan),
        (color.POSTERIZE, 9),
        (color.GAMMA, -0.1, 1),
        (color.GAMMA, 1, np.nan),
    ]:
        with pytest.raises(ValueError, match="out of the range"):
            color.run(images, *program(step, count=2), out)
    overlapping = np.zeros(images.size + 3, np.uint8)
    with pytest.raises(ValueError, match="share memory"):
        color.run(
            overlapping[: images.size].reshape(images.shape),
            codes,
            arguments,
            overlapping[3:].reshape(images.shape),
        )


# The transforms

TRANSFORMS = [
    transforms.ColorJitter(0.4, 0.4, 0.4, 0.1),
    transforms.ColorJitter((0.5, 0.9), p=0.5),
    transforms.Grayscale(0.5),
    transforms.Invert(),
    transforms.Solarize(100.5),
    transforms.Posterize(3),
    transforms.AutoContrast(),
    transforms.Equalize(),
    transforms.Gamma(),
    transforms.Gamma(0.7, 1.2, p=0.3),
]


def batch_of(images, first=0):
    return Batch({"images": images}, indices=np.arange(first, first + len(images)), epoch=3)


def applied(transform, images, first=0, out=None):
    batch = batch_of(images, first)
    params = transform.draw(SampleRandom(5, 3, batch.indices, 2), batch)
    return (
        transform.apply_images(images, params) if out is None else transform.apply_images(images, params, out)
    )


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_transforms_do_not_depend_on_the_batch(transform, channels):
    images = dull((12, 9, 11, channels))
    kept = images.copy()
    whole = applied(transform, images)
    assert np.array_equal(images, kept)
    parts = [applied(transform, images[n : n + 1], n) for n in range(12)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert not np.shares_memory(whole, images)
    assert transform.out_shape((9, 11, channels)) == (9, 11, channels)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_transforms_in_place_and_elsewhere(transform):
    images = dull((6, 9, 11, 3))
    expected = applied(transform, images)
    for out in (np.empty_like(images), np.empty((6, 9, 22, 3), np.uint8)[:, :, ::2]):
        assert applied(transform, images, out=out) is out
        assert np.array_equal(out, expected)
    same = images.copy()
    assert applied(transform, same, out=same) is same
    assert np.array_equal(same, expected)
    gaps = np.zeros((6, 9, 22, 3), np.uint8)[:, :, ::2]
    gaps[...] = images
    assert applied(transform, gaps, out=gaps) is gaps
    assert np.array_equal(gaps, expected)
    memory = np.zeros(images.size + 5, np.uint8)
    source = memory[: images.size].reshape(images.shape)
    source[...] = images
    shifted = memory[5:].reshape(images.shape)
    applied(transform, source, out=shifted)
    assert np.array_equal(shifted, expected)
    with pytest.raises(ArgumentError, match=r"out is uint8 of shape \(5, "):
        applied(transform, images, out=np.empty((5, 9, 11, 3), np.uint8))
    with pytest.raises(ArgumentError, match="out is int8"):
        applied(transform, images, out=np.empty(images.shape, np.int8))


def test_programs_of_neighbors_run_in_one_go():
    images = dull((8, 13, 9, 3))
    batch = batch_of(images)
    params = [
        transform.draw(SampleRandom(5, 3, batch.indices, n), batch) for n, transform in enumerate(TRANSFORMS)
    ]
    expected = images
    for transform, each in zip(TRANSFORMS, params, strict=True):
        expected = transform.apply_images(expected, each)
    assert np.array_equal(run_programs(images, params), expected)
    assert np.array_equal(run_programs(images, []), images)
    same = images.copy()
    assert run_programs(same, params, same) is same
    assert np.array_equal(same, expected)
    with pytest.raises(ArgumentError, match="float32"):
        run_programs(images.astype(np.float32), params)


@pytest.mark.parametrize(
    "transform",
    [
        transforms.Grayscale,
        transforms.Invert,
        transforms.Solarize,
        transforms.Posterize,
        transforms.AutoContrast,
        transforms.Equalize,
        transforms.Gamma,
        lambda p: transforms.ColorJitter(brightness=(0.2, 0.4), p=p),
    ],
)
def test_chances(transform):
    images = dull((1, 20, 20, 3)).repeat(1000, axis=0)
    changed = {
        p: (applied(transform(p=p), images) != images).any(axis=(1, 2, 3)).mean() for p in (0.0, 0.3, 1.0)
    }
    assert changed[0.0] == 0
    assert changed[1.0] == 1 or (transform is transforms.Gamma and changed[1.0] > 0.95)
    assert 0.24 < changed[0.3] < 0.36


def test_jitter_draws_factors_in_range_and_every_order():
    jitter = transforms.ColorJitter(0.4, (0.2, 0.3), 2, hue=(-0.1, 0.3))
    operations, arguments = jitter.program(SampleRandom(1, 0, np.arange(2400), 4), 2400, 3)
    ranges = {
        color.BRIGHTNESS: (0.6, 1.4),
        color.CONTRAST: (0.2, 0.3),
        color.SATURATION: (0, 3),
        color.HUE: (-0.1, 0.3),
    }
    assert {tuple(sorted(row)) for row in operations.tolist()} == {tuple(sorted(ranges))}
    orders, counts = np.unique(operations, axis=0, return_counts=True)
    assert len(orders) == 24
    assert 60 < counts.min() <= counts.max() < 140
    for code, (low, high) in ranges.items():
        drawn = arguments[..., 0][operations == code]
        assert low <= drawn.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < drawn.max() <= np.float32(high)
        assert abs(drawn.mean() - (low + high) / 2) < 0.03 * (high - low)


def test_parts_that_change_nothing_are_left_out():
    operations, arguments = transforms.ColorJitter(contrast=0.5).program(SampleRandom(1, 0, [3, 4], 0), 2, 3)
    assert operations.tolist() == [[color.CONTRAST], [color.CONTRAST]]
    assert arguments.shape == (2, 1, 2)
    assert transforms.ColorJitter().program(SampleRandom(1, 0, [3], 0), 1, 3)[0].shape == (1, 0)


def test_gamma_of_a_range_differs_from_sample_to_sample():
    _, arguments = transforms.Gamma((0.5, 2.0), 1.5).program(SampleRandom(1, 0, np.arange(500), 0), 500, 3)
    assert 0.5 <= arguments[:, 0, 0].min() < 0.52
    assert 1.98 < arguments[:, 0, 0].max() <= 2
    assert (arguments[:, 0, 1] == 1.5).all()


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda: transforms.ColorJitter(brightness=-0.1), "brightness"),
        (lambda: transforms.ColorJitter(contrast=(1, 0.5)), "contrast"),
        (lambda: transforms.ColorJitter(saturation=(-1, 1)), r"saturation\[0\]"),
        (lambda: transforms.ColorJitter(saturation=1000), "saturation"),
        (lambda: transforms.ColorJitter(hue=0.6), "hue"),
        (lambda: transforms.ColorJitter(hue=(0, 0.6)), r"hue\[1\]"),
        (lambda: transforms.ColorJitter(hue=(0, 0.1, 0.2)), "hue"),
        (lambda: transforms.ColorJitter(p=1.1), "p"),
        (lambda: transforms.Grayscale(p=-0.1), "p"),
        (lambda: transforms.Invert(p="1"), "p"),
        (lambda: transforms.Solarize(threshold=-1), "threshold"),
        (lambda: transforms.Solarize(threshold=257), "threshold"),
        (lambda: transforms.Solarize(p=2), "p"),
        (lambda: transforms.Posterize(bits=9), "bits"),
        (lambda: transforms.Posterize(bits=2.5), "bits"),
        (lambda: transforms.Posterize(p=None), "p"),
        (lambda: transforms.AutoContrast(p=2), "p"),
        (lambda: transforms.Equalize(p=2), "p"),
        (lambda: transforms.Gamma(gamma=-1), "gamma"),
        (lambda: transforms.Gamma(gamma=(2, 1)), "gamma"),
        (lambda: transforms.Gamma(gain=-1), "gain"),
        (lambda: transforms.Gamma(p=7), "p"),
    ],
)
def test_arguments_out_of_range_are_named(build, name):
    with pytest.raises(ArgumentError, match=rf"^\w+: {name} is "):
        build()


@pytest.mark.parametrize("transform", TRANSFORMS, ids=repr)
def test_repr_builds_it_again(transform):
    again = eval(repr(transform), {name: getattr(transforms, name) for name in transforms.__all__})
    assert repr(again) == repr(transform)
    images = dull((4, 5, 6, 3))
    assert np.array_equal(applied(again, images), applied(transform, images))


def test_deterministic_forms():
    for fixed_one in (
        transforms.Grayscale(),
        transforms.Invert(1),
        transforms.Solarize(p=1),
        transforms.Posterize(p=1),
        transforms.AutoContrast(1.0),
        transforms.Equalize(1.0),
        transforms.Gamma(2.0),
        transforms.Gamma((2.0, 2.0)),
    ):
        assert fixed_one.deterministic() is fixed_one
    for transform in [*TRANSFORMS, transforms.ColorJitter((2, 2)), transforms.Gamma()]:
        assert transform.deterministic() is None


def test_images_that_are_none_are_refused():
    for images, message in (
        (np.zeros((2, 4, 4, 3), np.float32), "float32"),
        (np.zeros((2, 4, 4), np.uint8), r"shape \(2, 4, 4\)"),
        (np.zeros((2, 4, 4, 4), np.uint8), "4 channels"),
    ):
        with pytest.raises(ArgumentError, match=message):
            applied(transforms.Invert(), images)
    with pytest.raises(ArgumentError, match="Equalize: images have 2 channels; expected 1"):
        transforms.Equalize().out_shape((4, 4, 2))


def test_a_program_of_ones_own():
    class Negative(Pointwise):
        def program(self, rng, count, channels):
            return np.full((count, 1), color.INVERT, np.int64), np.zeros((count, 1, 2))

    images = dull((2, 5, 5, 3))
    assert np.array_equal(applied(Negative(), images), 255 - images)
