"""Blending and painting kernels against NumPy, bit for bit, in every variant."""

import numpy as np
import pytest

from highway._core.pixels import mix
from highway.batch import Batch
from highway.modules import Augmentations
from highway.transforms import CutMix, Mixup, RandomErasing

pytestmark = pytest.mark.usefixtures("simd_variant")

LENGTHS = (0, 1, 15, 16, 17, 31, 32, 33, 64, 100)
PARTS = (0.0, 1.0, 0.5, 1 / 3, 1 / 32768, 1 - 1 / 32768, 1e-6, 1 - 1e-6, 0.123456)


def random(shape, seed=0, dtype=np.uint8):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, 256, shape, dtype=np.uint8)
        if dtype == np.uint8
        else rng.normal(size=shape).astype(dtype)
    )


def guarded(shape, dtype, kernel):
    """What `kernel` writes; nothing around the result is touched."""
    size = int(np.prod(shape))
    memory = np.full(size + 128, 77, dtype)
    kernel(memory[64 : 64 + size].reshape(shape))
    assert (memory[:64] == 77).all() and (memory[64 + size :] == 77).all()
    return memory[64 : 64 + size].reshape(shape)


def blended(images, own):
    """The definition, in whole numbers."""
    weights = np.rint(own * 32768).astype(np.int64)[:, None]
    other = np.roll(images, -1, axis=0).astype(np.int64)
    return ((images * weights + other * (32768 - weights) + 16384) >> 15).astype(np.uint8)


@pytest.mark.parametrize("length", LENGTHS)
def test_bytes_are_blended(length):
    own = np.array(PARTS)
    images = random((len(own), length), length)
    out = guarded(images.shape, np.uint8, lambda out: mix.blend(images, own, out))
    assert np.array_equal(out, blended(images, own))


def test_all_pairs_of_bytes():
    left, right = np.meshgrid(np.arange(256), np.arange(256))
    images = np.stack((left.reshape(-1), right.reshape(-1))).astype(np.uint8)
    for weight in (1, 2, 255, 16383, 16384, 16385, 32766, 32767):
        own, out = np.full(2, weight / 32768), np.empty_like(images)
        mix.blend(images, own, out)
        assert np.array_equal(out, blended(images, own))


@pytest.mark.parametrize("length", LENGTHS)
def test_floats_are_blended(length):
    own = np.array(PARTS)
    images = random((len(own), length), length, np.float32)
    left, right = own.astype(np.float32)[:, None], (1 - own).astype(np.float32)[:, None]
    out = guarded(images.shape, np.float32, lambda out: mix.blend(images, own, out))
    assert np.array_equal(out, images * left + np.roll(images, -1, axis=0) * right)


def test_a_float_image_that_is_its_own_does_not_see_the_other():
    images = np.array([[1.0], [np.inf]], np.float32)
    out = np.empty_like(images)
    mix.blend(images, np.array([1.0, 1.0]), out)
    assert np.array_equal(out, images)


@pytest.mark.parametrize("shape", [(3, 5, 7, 3), (1, 1, 1, 1), (4, 33, 20, 4), (2, 9, 8, 12)])
def test_boxes_are_pasted_and_painted(shape):
    count, height, width, size = shape
    images, pixel = random(shape), random(size, 5)
    boxes = np.array([[0, 0, width, height], [1, 2, 3, 4], [2, 2, 2, 5], [width, height, width, height]])[
        :count
    ]
    pasted, painted = images.copy(), images.copy()
    for n, (left, top, right, bottom) in enumerate(boxes):
        pasted[n, top:bottom, left:right] = images[(n + 1) % count, top:bottom, left:right]
        painted[n, top:bottom, left:right] = pixel
    assert np.array_equal(guarded(shape, np.uint8, lambda out: mix.paste(images, boxes, out)), pasted)
    assert np.array_equal(guarded(shape, np.uint8, lambda out: mix.paint(images, boxes, pixel, out)), painted)
    mix.paint(images, boxes, pixel, images)
    assert np.array_equal(images, painted)


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (2, 0, 4, 3), (2, 4, 0, 3), (2, 4, 4, 0)])
def test_empty_images(shape):
    images, boxes = np.zeros(shape, np.uint8), np.zeros((shape[0], 4), np.int64)
    mix.paste(images, boxes, np.empty_like(images))
    mix.paint(images, boxes, np.zeros(shape[3], np.uint8), np.empty_like(images))
    mix.blend(
        images.reshape(shape[0], -1) if shape[0] else np.zeros((0, 5), np.uint8),
        np.ones(shape[0]),
        np.empty_like(images.reshape(shape[0], -1) if shape[0] else np.zeros((0, 5), np.uint8)),
    )


def test_what_does_not_fit_is_refused():
    images, boxes, pixel = random((2, 4, 5, 3)), np.zeros((2, 4), np.int64), np.zeros(3, np.uint8)
    out = np.empty_like(images)
    rows = images.reshape(2, -1)
    for part in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="part 1 is"):
            mix.blend(rows, np.array([0.5, part]), out.reshape(2, -1))
    with pytest.raises(ValueError, match="3 parts"):
        mix.blend(rows, np.ones(3), out.reshape(2, -1))
    with pytest.raises(ValueError, match="share memory"):
        mix.blend(rows, np.ones(2), rows)
    with pytest.raises(ValueError, match="share memory"):
        mix.paste(images, boxes, images)
    with pytest.raises(ValueError, match="one shape"):
        mix.paste(images, boxes, out[:1])
    with pytest.raises(ValueError, match="pixel of 2 bytes"):
        mix.paint(images, boxes, pixel[:2], out)
    with pytest.raises(ValueError, match=r"boxes are \(1, 4\)"):
        mix.paint(images, boxes[:1], pixel, out)
    for box in ((-1, 0, 1, 1), (0, -1, 1, 1), (0, 0, 6, 1), (0, 0, 1, 5), (2, 0, 1, 1), (0, 2, 1, 1)):
        with pytest.raises(ValueError, match="box 1 is"):
            mix.paste(images, np.array([(0, 0, 1, 1), box]), out)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize(
    "transform", [Mixup(num_classes=3), CutMix(num_classes=3), RandomErasing(1, value=(1, 2, 3))]
)
def test_transforms_take_images_of_any_strides(transform, dtype):
    images = random((5, 13, 11, 3), dtype=dtype)
    found = []
    for given in (
        images,
        images[:, ::-1].copy()[:, ::-1],
        images.transpose(2, 0, 1, 3).copy().transpose(1, 2, 0, 3),
    ):
        before = given.copy()
        batch = Batch({"images": given, "labels": np.arange(5) % 3}, seq=0)
        found.append(Augmentations([transform]).process(batch).images)
        assert np.array_equal(given, before)
    assert not np.array_equal(found[0], images)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
