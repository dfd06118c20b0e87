"""Transforms of uint16 images: those that move pixels, the conversions to floats, and refusals."""

import re

import numpy as np
import pytest
import rasters

from highway import transforms as T
from highway.batch import Batch
from highway.engine import Pipeline
from highway.errors import ArgumentError
from highway.modules import ArrayReader, Augmentations, Concat, ImageFileReader
from highway.transforms.geometry import Geometry

RNG = np.random.default_rng(2)
IMAGES = RNG.integers(0, 65536, (5, 12, 12, 3), dtype=np.uint16)
IMAGES[0, 0], IMAGES[0, 1] = 0, 65535


def augmented(images, transforms, seed=1):
    batch = Batch(
        {"images": images, "labels": np.arange(len(images))}, indices=np.arange(len(images)), epoch=0, seq=0
    )
    return Augmentations(transforms, seed=seed).process(batch).images


MOVES = [
    [T.FlipX()],
    [T.FlipY()],
    [T.Transpose(1.0)],
    [T.Transpose(0.5), T.FlipX(1.0)],
    [T.RandomCrop(7)],
    [T.CenterCrop(7)],
    [T.CenterCrop(16, fill=7)],
    [T.PadCrop(12)],
    [T.Slice(1, 2, 5, 6)],
    [T.Pad((1, 2, 3, 4), fill=9)],
    [T.FlipX(), T.RandomCrop(9), T.FlipY(), T.Pad(2)],
    [T.RandomErasing(1.0, value=3)],
    [T.CutMix(num_classes=5)],
    [T.OneOf([T.FlipX(1.0), T.FlipY(1.0)])],
]


@pytest.mark.parametrize("transforms", MOVES, ids=repr)
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_move_as_those_of_float32(transforms, channels):
    images = np.ascontiguousarray(IMAGES[..., :channels])
    found = augmented(images, transforms)
    assert found.dtype == np.uint16
    # float32 has all numbers of 16 bits.
    np.testing.assert_array_equal(found, augmented(images.astype(np.float32), transforms))


FITS = [
    [T.Resize((9, 20))],
    [T.Resize(8)],
    [T.RandomResizedCrop(10)],
    [T.RandomResizedCrop(10, interpolation="bicubic"), T.FlipX()],
    [T.FlipX(), T.CenterFit((6, 9))],
    [T.Letterbox((9, 20), fill=(1, 40000, 65535))],
    [T.Stretch((30, 31), interpolation="nearest")],
]


@pytest.mark.parametrize("transforms", FITS, ids=repr)
def test_fits_agree_with_float32(transforms):
    """Weights of floats have 14 bits: at most 2 levels of 65536 for each weight."""
    found = augmented(IMAGES, transforms)
    assert found.dtype == np.uint16
    expected = augmented(IMAGES.astype(np.float32), transforms).clip(0, 65535)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 16


def test_ends_of_the_range():
    ends = np.array([0, 1, 65534, 65535], np.uint16).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(
        augmented(ends, [T.ToFloat()]).ravel(),
        np.array([0, 1, 65534, 65535], np.float32) * np.float32(1 / 65535),
    )
    assert augmented(ends, [T.ToFloat()]).max() == 1
    assert augmented(ends, [T.Rescale(2 / 255, -1)])[0, 0, 0, 0] == -1
    assert abs(augmented(ends, [T.Rescale(2 / 255, -1)]).max() - 1) < 1e-6
    np.testing.assert_array_equal(augmented(ends, [T.Rescale(257)]).ravel(), ends.ravel().astype(np.float32))
    flat = augmented(np.full((1, 2, 2, 1), 65535, np.uint16), [T.Normalize(0.5, 0.5)])
    assert np.abs(flat - 1).max() < 1e-6


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_conversions_are_exact(layout, dtype):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = {
        T.Normalize: (1 / (255 * std) / 257, -mean / std),
        T.ToFloat: (np.full(3, 1 / 65535), np.zeros(3)),
        T.Rescale: (np.full(3, 0.25 / 257), np.full(3, 3.0)),
    }
    for kind, (scale, bias) in expected.items():
        step = T.Rescale(0.25, 3, layout, dtype) if kind is T.Rescale else kind(layout=layout, dtype=dtype)
        wanted = IMAGES.astype(np.float32) * scale.astype(np.float32) + bias.astype(np.float32)
        wanted = wanted.astype(dtype)
        if layout == "NCHW":
            wanted = wanted.transpose(0, 3, 1, 2)
        for images in (IMAGES, np.ascontiguousarray(IMAGES[::-1])[::-1], np.asfortranarray(IMAGES)):
            np.testing.assert_array_equal(step.apply_images(images, None), wanted)
        moved = augmented(IMAGES, [T.FlipX(1.0), step])
        mirrored = wanted[:, :, :, ::-1] if layout == "NCHW" else wanted[:, :, ::-1]
        np.testing.assert_array_equal(moved, mirrored)


def test_random_erasing_fills_the_range_with_noise():
    images = np.zeros((200, 12, 12, 1), np.uint16)
    found = augmented(images, [T.RandomErasing(1.0, value="random")])
    noise = found[found > 0]
    assert noise.size > 1000
    assert noise.max() > 60000
    assert abs(noise.mean() - 32768) < 2000


REFUSED = [
    T.ColorJitter(0.1, 0.1, 0.1, 0.1),
    T.Sharpness(0.5),
    T.AutoContrast(),
    T.Invert(),
    T.Grayscale(),
    T.Equalize(),
    T.GaussianBlur(3),
    T.GaussianNoise(),
    T.Rotate(10),
    T.Perspective(0.5),
    T.Shift(0.1),
    T.RandAugment(),
    T.TrivialAugmentWide(),
    T.Mixup(num_classes=5),
]


@pytest.mark.parametrize("step", REFUSED, ids=repr)
def test_transforms_of_bytes_say_what_to_do(step):
    message = rf'{type(step).__name__}: images are uint16; expected uint8.*dtype="uint8"'
    with pytest.raises(ArgumentError, match=message):
        augmented(IMAGES, [step])
    with pytest.raises(ArgumentError, match=message):
        augmented(IMAGES, [T.FlipX(), T.RandomApply([step], 1.0)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("deep")
    (root / "a").mkdir()
    for k in range(3):
        (root / "a" / f"{k}.png").write_bytes(rasters.png(IMAGES[k], 16, 2))
    return root


@pytest.mark.parametrize("step", REFUSED, ids=repr)
def test_they_are_refused_when_the_pipeline_is_built(folder, step):
    reader = ImageFileReader(folder, 3, 12, dtype="uint16")
    with pytest.raises(ArgumentError, match=f"{type(step).__name__}: images are uint16"):
        Pipeline([reader, Augmentations([T.FlipX(), step])])
    with pytest.raises(ArgumentError, match=f"{type(step).__name__}: images are uint16"):
        Pipeline([reader, Augmentations([T.FlipX()]), Augmentations([T.Sequential([step])])])


def test_fills_are_numbers_of_the_images(folder):
    def built(dtype, *transforms):
        reader = ImageFileReader(folder, 3, 12, dtype=dtype, epochs=1)
        with Pipeline([reader, Augmentations(transforms)]) as pipeline:
            return pipeline.dequeue().images

    for step in (T.Pad(2, fill=40000), T.Letterbox((12, 20), fill=40000), T.CenterCrop(20, fill=40000)):
        assert (built("uint16", step)[:, 0, 0] == 40000).all()
        with pytest.raises(ArgumentError, match=re.escape("fill is 40000, for images of uint8; expected")):
            built("uint8", step)
    with pytest.raises(ArgumentError, match="fill is 70000, for images of uint16"):
        built("uint16", T.Pad(2, fill=70000))
    with pytest.raises(ArgumentError, match=r"value is \(70000.0,\), for images of uint16"):
        built("uint16", T.RandomErasing(value=70000))


def test_bits_of_bfloat16_are_not_converted_again(folder):
    reader = ImageFileReader(folder, 3, 12)
    first = Augmentations([T.Normalize(layout="NHWC", dtype="bfloat16")])
    with pytest.raises(ArgumentError, match=r"ToFloat.* comes after Augmentations that convert to bfloat16"):
        Pipeline([reader, first, Augmentations([T.FlipX()]), Augmentations([T.ToFloat()])])


COMPUTE = [
    T.ToFloat(),
    T.Stretch(5),
    T.RandomResizedCrop(5),
    T.RandomErasing(1.0),
    T.CutMix(num_classes=5),
    T.Pad(2, fill=1),
    T.RandomApply([T.RandomErasing(1.0)], 1.0),
]


@pytest.mark.parametrize("step", COMPUTE, ids=repr)
def test_bits_of_bfloat16_are_no_numbers_of_16_bits(step):
    inner = step.transforms[0] if isinstance(step, T.RandomApply) else step
    message = rf"{type(inner).__name__}.* comes after .*bfloat16.*put it before"
    bits = T.Normalize(layout="NHWC", dtype="bfloat16")
    for steps in ([bits, step], [T.Sequential([bits]), T.FlipX(), step]):
        with pytest.raises(ArgumentError, match=message):
            Augmentations(steps)
    for images in (IMAGES, (IMAGES >> 8).astype(np.uint8)):
        reader = ArrayReader(images, np.arange(5), 5)
        with pytest.raises(ArgumentError, match=message):
            Pipeline([reader, Augmentations([bits]), Augmentations([step])])


def test_bits_of_bfloat16_move():
    bits = T.Normalize(layout="NHWC", dtype="bfloat16")
    moves = [T.FlipX(1.0), T.Transpose(1.0), T.CenterCrop(16)]
    expected = augmented(IMAGES, [*moves, bits])
    inside = np.s_[:, 2:-2, 2:-2]
    found = augmented(IMAGES, [bits, *moves])
    np.testing.assert_array_equal(found[inside], expected[inside])
    assert not found[:, :2].any()


def test_arrays_are_checked_when_the_pipeline_is_built():
    reader = ArrayReader(IMAGES, np.arange(5), 5, epochs=1)
    with pytest.raises(ArgumentError, match="Invert: images are uint16"):
        Pipeline([reader, Augmentations([T.FlipX(), T.Invert()])])
    with Pipeline([reader, Augmentations([T.Pad(2, fill=40000), T.ToFloat("NHWC")])]) as pipeline:
        (batch,) = list(pipeline)
    expected = np.pad(IMAGES[batch.indices], ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=40000)
    np.testing.assert_array_equal(batch.images, expected * np.float32(1 / 65535))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_arrays_in_another_byte_order(layout):
    stored = IMAGES.astype(">u2")
    reader = ArrayReader(
        stored.transpose(0, 3, 1, 2) if layout == "NCHW" else stored, None, 5, layout=layout, epochs=1
    )
    for steps in ([T.Normalize()], [T.Stretch(7), T.ToFloat()], [T.FlipX(1.0)]):
        with Pipeline([reader, Augmentations(steps)]) as pipeline:
            (batch,) = list(pipeline)
        np.testing.assert_array_equal(batch.images, augmented(IMAGES[batch.indices], steps))


def test_several_readers_keep_the_dtype(folder):
    def both():
        return Concat([ImageFileReader(folder, 3, 12, dtype="uint16") for _ in range(2)], epochs=1)

    with Pipeline([both(), Augmentations([T.Pad(2, fill=40000)])]) as pipeline:
        assert all((batch.images[:, 0] == 40000).all() for batch in pipeline)
    with pytest.raises(ArgumentError, match="Invert: images are uint16"):
        Pipeline([both(), Augmentations([T.Invert()])])


@pytest.mark.parametrize(
    "transforms", [[T.FlipX()], [T.RandomCrop(7)], [T.RandomResizedCrop(9)], [T.Transpose()]]
)
def test_fields_of_pictures_follow(transforms):
    batch = Batch({"images": IMAGES, "more": IMAGES.copy()}, indices=np.arange(5), epoch=0, seq=0)
    found = Augmentations(transforms, fields={"more": "image"}, seed=3).process(batch)
    np.testing.assert_array_equal(found.more, found.images)


class Half(T.Transform):
    """Moves further pictures to the left by half a pixel, with the default `apply_pictures`; and no images."""

    def apply_images(self, images, params):
        return images

    def geometry(self, params, shape):
        matrices = np.tile(np.eye(3), (shape[0], 1, 1))
        matrices[:, 0, 2] = -0.5
        return Geometry(matrices, *shape[1:])


def test_fields_of_pictures_are_rounded_to_nearest():
    batch = Batch({"images": IMAGES, "more": IMAGES.copy()}, indices=np.arange(5), epoch=0, seq=0)
    found = Augmentations([Half()], fields={"more": "image"}).process(batch).more
    mean = (IMAGES[:, :, :-1].astype(float) + IMAGES[:, :, 1:]) / 2
    assert found.dtype == np.uint16
    assert np.abs(found[:, :, :-1] - mean).max() <= 0.5


@pytest.mark.parametrize(
    "step", [T.Rotate(30), T.Rotate(30, interpolation="nearest", fill=255), T.Perspective(0.5, 1.0)]
)
def test_fields_of_pictures_are_warped_beside_bytes(step):
    fields = {"images": (IMAGES >> 8).astype(np.uint8), "deep": IMAGES, "floats": IMAGES.astype(np.float32)}
    batch = Batch(fields, indices=np.arange(5), epoch=0, seq=0)
    found = Augmentations([step], fields={"deep": "image", "floats": "image"}, seed=3).process(batch)
    assert found.deep.dtype == np.uint16
    assert (found.deep != IMAGES).any()
    np.testing.assert_array_equal(found.deep, np.rint(found.floats))
