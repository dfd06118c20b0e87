"""Transforms that touch the pixels once: what they make is what one by one would make, but for one resampling less."""

import numpy as np
import pytest
from test_annotations_follow import one_each

from highway._core.pixels import warp
from highway.batch import Batch
from highway.errors import ArgumentError
from highway.modules import Augmentations
from highway.sampling.rng import SampleRandom
from highway.transforms import (
    Affine,
    CenterCrop,
    CenterFit,
    ColorJitter,
    FlipX,
    FlipY,
    Gamma,
    Invert,
    Lambda,
    Letterbox,
    Normalize,
    Pad,
    Perspective,
    Posterize,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    Rotate,
    Slice,
    Solarize,
    Stretch,
    Zoom,
)
from highway.transforms.fit import Fit
from highway.transforms.geometry import product


def smooth(count=6, size=(90, 120), dtype=np.uint8):
    """Images without sharp edges, so that resampling twice is little worse than once."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(x / 17 + k) + np.cos(y / 13 - k) + np.sin((x + y) / 23) for k in range(count * 3)]
    images = np.stack(waves).reshape(count, 3, *size).transpose(0, 2, 3, 1)
    return Batch(
        {"images": (images * 40 + 128).astype(np.uint8).astype(dtype), "labels": np.arange(count)}, seq=0
    )


def apart(chain, batch, seed=4):
    """One by one: what does nothing stands between them."""
    between = Lambda(lambda images: images)
    for position, step in enumerate(chain):
        # A Lambda takes a position too, so each is given the one that it has in the chain.
        out = Augmentations([step, between], seed=seed).process(batch.replace(applied=position))
        batch = out
    return batch


def together(chain, batch, seed=4):
    return Augmentations(chain, seed=seed).process(batch.replace(applied=0))


@pytest.fixture
def passes(monkeypatch):
    """How often pixels were resampled."""
    taken = []
    for owner, name in ((Fit, "resampled"), (warp, "sample")):
        own = getattr(owner, name)

        def counted(*arguments, _own=own, _name=name, **options):
            taken.append(_name)
            return _own(*arguments, **options)

        monkeypatch.setattr(owner, name, counted)
    return taken


FITTED = [
    [FlipX(), RandomResizedCrop((64, 64))],
    [RandomResizedCrop((64, 64), scale=(0.3, 1)), FlipX(), FlipY()],
    [RandomCrop((70, 80)), FlipX(), CenterFit((40, 40)), FlipY()],
    [Stretch((60, 60)), RandomCrop(48)],
    [FlipX(), Slice(10, 5, 70, 100), Stretch((64, 70)), FlipX(), CenterCrop((50, 40)), FlipY()],
    [FlipY(), Resize(60), RandomCrop(50)],
    [FlipX(), Letterbox((100, 100))],
]


DTYPES = pytest.mark.parametrize("dtype", [np.uint8, np.float32])


@DTYPES
@pytest.mark.parametrize("chain", FITTED, ids=repr)
def test_a_fit_takes_in_the_flips_and_crops_around_it(passes, chain, dtype):
    ours = together(chain, smooth(dtype=dtype))
    assert passes == ["resampled"]
    theirs = apart(chain, smooth(dtype=dtype))
    assert ours.images.shape == theirs.images.shape and ours.images.dtype == dtype
    difference = np.abs(ours.images.astype(float) - theirs.images)
    # At the edge of a crop the filter sees what is beyond, and rounds at another place elsewhere.
    assert difference.mean() < 0.25
    assert np.quantile(difference, 0.98) <= 2


WARPED = [
    [Rotate(30), FlipX()],
    [FlipX(), FlipY(), Rotate(30)],
    [RandomCrop((70, 80)), Rotate(20), CenterCrop(60)],
    [Rotate(20), Affine(10, scale=(1, 1.2)), Zoom((0.8, 1.2)), FlipX()],
    [Pad(8), Rotate(45), Perspective(0.2, p=1)],
]


@DTYPES
@pytest.mark.parametrize("chain", WARPED, ids=repr)
def test_warps_and_what_is_around_them_are_sampled_once(passes, chain, dtype):
    ours = together(chain, smooth(dtype=dtype))
    assert passes == ["sample"]
    theirs = apart(chain, smooth(dtype=dtype))
    assert ours.images.shape == theirs.images.shape and ours.images.dtype == dtype
    difference = np.abs(ours.images.astype(float) - theirs.images)
    assert np.median(difference) <= 1
    # Borders are at the same places: what is cut off by one is not brought back by the next.
    assert (difference > 24).mean() < 0.03


@pytest.mark.parametrize(
    "chain",
    [
        *FITTED,
        *WARPED,
        [Rotate(30, fill=114), Rotate((-20, -5), fill=114), Zoom((0.5, 0.7), fill=114)],
        [Rotate(30, interpolation="nearest"), FlipX(), Affine(10, interpolation="nearest")],
        [CenterCrop((100, 200), fill=9), Rotate(30, fill=9)],
        [Rotate(30), CenterCrop((100, 200), fill=9), FlipX()],
    ],
    ids=repr,
)
@pytest.mark.parametrize("channels", [1, 3])
def test_floats_are_what_bytes_are_but_for_rounding(chain, channels):
    """The same steps are taken together, so nothing but the last rounding differs."""
    batch = smooth()
    batch = batch.replace(images=np.ascontiguousarray(batch.images[..., :channels]))
    floats = batch.replace(images=batch.images.astype(np.float32))
    difference = together(chain, floats).images - together(chain, batch).images
    # Bytes are within one level of real arithmetic.
    assert np.abs(difference).max() <= 1
    assert together(chain, floats).images.dtype == np.float32


def test_floats_behind_normalize_are_sampled_once(passes):
    chain = [
        Normalize(layout="NHWC"),
        Rotate(20, fill=0.25),
        Pad(3, fill=0.25),
        FlipX(),
        Affine(10, fill=0.25),
    ]
    batch = one_each(6)
    out = together(chain, batch)
    # Masks are sampled too, step by step.
    assert passes.count("sample") - len(["Rotate", "Affine"]) == 1
    assert np.isclose(out.images, 0.25).any()
    bare = Batch({"images": batch.images}, seq=0)
    assert np.array_equal(together(chain, bare).images, out.images)


def test_a_fill_of_floats_stands_around_fits_and_warps():
    for chain in (
        [RandomCrop(60, fill=0.5), Stretch((40, 40))],
        [RandomCrop(60, fill=0.5), Rotate(20, fill=0.5)],
    ):
        out = together(chain, smooth(dtype=np.float32)).images
        assert out.dtype == np.float32
        with pytest.raises(ArgumentError, match=r"fill is 0\.5, for images of uint8"):
            together(chain, smooth())


@DTYPES
@pytest.mark.parametrize(
    "chain",
    [
        [CenterCrop((100, 130)), Stretch((40, 50))],
        [FlipX(1), CenterCrop((90, 121), fill=7), FlipY(1), Resize(60)],
        [Stretch((40, 50)), FlipX(), CenterCrop((41, 51), fill=3)],
        [CenterCrop((100, 130), fill=5), Rotate(30)],
        [RandomCrop((60, 60)), CenterCrop(70, fill=5), Zoom((1.2, 1.5))],
        [FlipX(), CenterCrop(200), FlipY(), CenterCrop(71)],
    ],
    ids=repr,
)
def test_centres_of_smaller_images_have_the_bits_of_one_by_one(chain, dtype):
    batch = smooth(dtype=dtype)
    assert np.array_equal(together(chain, batch).images, apart(chain, batch).images)


def test_what_was_cut_off_stays_so():
    white = Batch({"images": np.full((1, 60, 60, 3), 255, np.uint8)}, seq=0)
    out = together([CenterCrop(40), Rotate((45, 45)), Pad(0)], white).images[0]
    # The corners of the crop are turned; what the crop left out would fill the picture.
    assert out[0, 0].tolist() == [0, 0, 0]
    assert out[20, 20].tolist() == [255, 255, 255]
    covered = (out[..., 0] > 0).mean()
    assert 0.8 < covered < 0.86


@pytest.mark.parametrize(
    ("chain", "count"),
    [
        ([Rotate(9, fill=1), Rotate(9, fill=2)], 2),
        ([Rotate(9), Rotate(9, interpolation="nearest")], 2),
        ([Pad(4, fill=7), Rotate(9)], 1),
        ([Rotate(9), RandomResizedCrop(50)], 2),
        ([RandomResizedCrop(50), FlipX(), Rotate(9), FlipY()], 2),
        ([Letterbox((100, 100)), FlipX()], 1),
        ([RandomCrop(90, padding=4), Stretch((30, 30))], 1),
    ],
)
def test_what_takes_passes_of_its_own(passes, chain, count):
    together(chain, smooth())
    assert len(passes) == count


def test_which_go_together_depends_on_nothing_that_is_drawn():
    """A sample alone has the bits that it has among others, whatever those draw."""
    chain = [FlipX(), RandomCrop(80, padding=6), Rotate(40), Perspective(0.4), FlipY(), RandomResizedCrop(40)]
    batch = one_each(24)
    out = Augmentations(chain, seed=9).process(batch)
    for n in range(24):
        alone = Augmentations(chain, seed=9).process(batch.take([n]))
        assert np.array_equal(alone.images[0], out.images[n])
        assert np.array_equal(alone.boxes, out.boxes_of(n))


COLORS = [ColorJitter(0.4, 0.4, 0.4, 0.1), Invert(), Gamma(), Solarize(100), Posterize(5)]


def test_colors_in_a_row_have_the_same_bits_as_one_by_one():
    for chain in (COLORS, COLORS[::-1], [*COLORS, *COLORS]):
        batch = smooth()
        assert np.array_equal(together(chain, batch).images, apart(chain, batch).images)


def test_colors_in_a_row_leave_their_input_alone_unless_it_is_theirs():
    batch = smooth()
    before = batch.images.copy()
    stage = Augmentations(COLORS)
    out = stage.process(batch)
    assert np.array_equal(batch.images, before)
    stage.input_handed_over = True
    assert stage.process(batch).images is batch.images
    assert np.array_equal(batch.images, out.images)


@pytest.mark.usefixtures("simd_variant")
def test_variants_give_the_same_bits():
    chain = [RandomResizedCrop((60, 61)), FlipX(), *COLORS, Rotate(30), RandomCrop(48), FlipY()]
    from highway._core import simd

    ours = together(chain, smooth()).images
    before = simd.in_use()
    simd.use("plain")
    try:
        plain = together(chain, smooth()).images
    finally:
        simd.use(before)
    assert np.array_equal(ours, plain)


def test_boxes_of_a_row_are_those_of_one_by_one():
    for chain in (*FITTED, *WARPED):
        batch = one_each(16)
        ours, theirs = together(chain, batch), apart(chain, batch)
        assert np.allclose(ours.boxes, theirs.boxes, atol=1e-3)
        assert np.array_equal(ours.labels, theirs.labels)


def test_boxes_of_warps_against_products_of_matrices():
    """Without anything cut off, keypoints of a chain are those of the product of its matrices."""
    chain = [Rotate(20), Zoom((0.5, 0.7)), FlipX(p=1), Affine(10, shear=8)]
    count, (height, width) = 12, (96, 128)
    points = np.random.default_rng(1).uniform(20, 70, (count, 5, 2)).astype(np.float32)
    batch = Batch({"images": np.zeros((count, height, width, 3), np.uint8), "keypoints": points}, seq=0)
    matrices = np.tile(np.eye(3), (count, 1, 1))
    for position, step in enumerate(chain):
        rng = SampleRandom(4, 0, np.arange(count), position)
        params = step.choose(rng, batch.images.shape)
        matrices = product(step.geometry(params, (count, height, width)).matrices, matrices)
    homogeneous = np.concatenate((points, np.ones((count, 5, 1))), axis=2)
    expected = np.einsum("nij,nkj->nki", matrices, homogeneous)[..., :2]
    assert np.allclose(together(chain, batch).keypoints, expected, atol=1e-3)
