"""Crops, pads, flips and Normalize in a row touch the pixels once, and give what they give one by one."""

import itertools
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from highway.batch import Batch
from highway.errors import ArgumentError
from highway.modules import Augmentations
from highway.sampling.rng import SampleRandom
from highway.transforms import CenterCrop, FlipX, FlipY, Lambda, Normalize, Pad, RandomCrop, Transform
from highway.transforms.crop import CropOrPad
from highway.transforms.flip import Flip
from highway.transforms.values import Values

MOVES = (
    RandomCrop((8, 9), padding=2, fill=7),
    RandomCrop((6, 5)),
    CenterCrop((7, 6), 1),
    Pad((1, 2, 0, 3), fill=9),
    FlipX(),
    FlipY(),
)
ENDS = (
    (),
    (Normalize(0.4, 0.2),),
    (Normalize(0.4, 0.2, "NHWC", "float16"),),
    (Normalize(0.4, 0.2, "NHWC", "bfloat16"), FlipY()),
    (Normalize(0.4, 0.2), FlipY(0)),
)


def random(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def one_by_one(chain, batch, seed=0, deterministic=False):
    """What the transforms are documented to do, each for itself."""
    for position, transform in enumerate(chain, batch.applied):
        step = transform.deterministic() if deterministic else transform
        if step is None:
            continue
        rng = SampleRandom(seed, batch.epoch, batch.indices, position)
        batch = batch.replace(images=step.apply_images(batch.images, step.draw(rng, batch)))
    return batch.images


def check(chain, images, **identity):
    batch = Batch({"images": images}, **{"seq": 3, "epoch": 2, "applied": 5, **identity})
    before = images.copy()
    for deterministic in (False, True):
        expected = one_by_one(chain, batch, 11, deterministic)
        out = Augmentations(chain, seed=11, deterministic=deterministic).process(batch)
        assert out.applied == batch.applied + len(chain)
        assert out.images.dtype == expected.dtype
        assert out.images.shape == expected.shape
        assert out.images.tobytes() == expected.tobytes(), chain
    assert np.array_equal(images, before)


@pytest.fixture
def passes(monkeypatch):
    """The transforms whose own pass was taken, in order."""
    taken = []
    for family in (Flip, CropOrPad, Values):
        own = family.apply_images

        def counted(self, *arguments, _own=own, **options):
            taken.append(type(self).__name__)
            return _own(self, *arguments, **options)

        monkeypatch.setattr(family, "apply_images", counted)
    return taken


# The same bits


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.usefixtures("simd_variant")
def test_every_chain_of_up_to_three_moves_gives_the_same_bits(channels):
    images = random((4, 11, 13, channels), channels)
    for length in (1, 2, 3):
        for moves, end in itertools.product(itertools.product(MOVES, repeat=length), ENDS[:3]):
            check([*moves, *end], images)


@given(
    st.integers(0, 4),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 6),
    st.data(),
)
def test_any_chain_gives_the_same_bits(count, height, width, channels, data):
    """Sizes follow the images, so that nothing is refused."""
    chain, size = [], [height, width]
    for _ in range(data.draw(st.integers(2, 5))):
        kind = data.draw(st.sampled_from([RandomCrop, CenterCrop, Pad, FlipX, FlipY]))
        margin, fill = data.draw(st.integers(0, 3)), data.draw(st.integers(0, 255))
        if kind in (FlipX, FlipY):
            chain.append(kind(0.5))
            continue
        size = [side + 2 * margin for side in size]
        if kind is Pad:
            chain.append(Pad(margin, fill))
            continue
        size = [data.draw(st.integers(margin + 1, side)) for side in size]
        chain.append(kind(tuple(size), margin, fill))
    check([*chain, *data.draw(st.sampled_from(ENDS[:3]))], random((count, height, width, channels), count))


@pytest.mark.parametrize("end", ENDS)
def test_images_wherever_they_lie(end):
    base = random((6, 20, 31, 6))
    base.setflags(write=False)
    chain = [RandomCrop((8, 9)), FlipX(), FlipY(), *(step for step in end if isinstance(step, Normalize))]
    for images in (
        base[::2],
        base[::-2],
        base[:, ::-1],
        base[:, 3:14, 2:20],
        base[:, :, ::-1],
        base[:, :, ::2],
        base[..., :3],
        base[..., ::2],
        np.asfortranarray(base),
    ):
        check(chain, images)


@pytest.mark.parametrize("shape", [(0, 11, 13, 3), (1, 1, 1, 3), (3, 1, 40, 1), (3, 40, 1, 4)])
def test_small_shapes(shape):
    for end in ENDS[:3]:
        check([RandomCrop(1), FlipX(), *end], random(shape))
        check([Pad(1, 5), FlipX(), FlipY(1), *end], random(shape))


@pytest.mark.parametrize("shape", [(2, 0, 5, 3), (2, 5, 0, 3), (2, 5, 4, 0)])
def test_images_without_pixels(shape):
    for end in ENDS[:3]:
        check([Pad(1, 5), FlipX(), *end], random(shape))


def test_images_of_other_dtypes():
    images = random((3, 11, 13, 3))
    for dtype in (np.float32, np.int16, np.float64):
        check([RandomCrop(6), FlipX(), Pad(1), FlipY()], images.astype(dtype))


def test_large_images():
    check([RandomCrop((900, 1201), 7, 3), FlipX(), FlipY(), Normalize()], random((2, 1000, 1300, 3)))


def test_samples_keep_what_they_draw():
    """Alone or together, one view or one by one, at any position and in any epoch."""
    chain = [FlipX(), RandomCrop((6, 5), 1), FlipY(), Normalize()]
    images = random((5, 11, 13, 3))
    for identity in ({"applied": 0}, {"applied": 2**20}, {"epoch": 9, "indices": [7, 7, 0, 2**32 - 1, 4]}):
        check(chain, images, **identity)


# One pass


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        ([RandomCrop(6), FlipX(), Normalize()], []),
        ([FlipX(), FlipY(), Normalize()], []),
        ([FlipX(), RandomCrop(6)], []),
        ([Pad(2), RandomCrop(11), FlipX(), CenterCrop(9), Normalize()], []),
        ([RandomCrop(11, padding=2), FlipX(), FlipY()], []),
        # In place, or in no company.
        ([FlipX(), FlipY()], ["FlipX", "FlipY"]),
        ([RandomCrop(6)], ["RandomCrop"]),
        ([Normalize()], ["Normalize"]),
        ([Normalize(layout="NHWC"), FlipX()], ["Normalize", "FlipX"]),
        # Something else in between.
        ([RandomCrop(6), Lambda(lambda x: x), FlipX()], ["RandomCrop", "FlipX"]),
        ([RandomCrop(6), FlipX(), Lambda(lambda x: x), FlipY(), Normalize()], []),
    ],
)
def test_what_takes_passes_of_its_own(passes, chain, expected):
    Augmentations(chain).process(Batch({"images": random((4, 11, 13, 3))}, seq=0))
    assert passes == expected


def test_what_is_left_out_parts_nothing(passes):
    chain = [RandomCrop(6), FlipX(), CenterCrop(5), FlipY(), Normalize()]
    Augmentations(chain, deterministic=True).process(Batch({"images": random((4, 11, 13, 3))}, seq=0))
    assert passes == []


class TurnsAround(FlipX):
    """What is no flip any more."""

    def apply_images(self, images, params, out=None):
        return images[:, ::-1, ::-1].copy()


class FlipsTheDark(FlipX):
    """Draws by what it sees."""

    def draw(self, rng, batch):
        return batch.images.reshape(len(batch.images), -1).mean(axis=1) < 128


class Brightens(Normalize):
    def apply_images(self, images, params):
        return super().apply_images(images, params) + 1


class Scales(Normalize):
    def draw(self, rng, batch):
        return rng.uniform()

    def deterministic(self):
        return Normalize()

    def apply_images(self, images, params):
        return super().apply_images(images, None) * params[:, None, None, None].astype(np.float32)


class Corner(CenterCrop):
    """Replaces only where the window is; may take part."""

    def choose(self, rng, shape):
        windows = super().choose(rng, shape)
        return windows._replace(tops=windows.tops * 0, lefts=windows.lefts * 0)


@pytest.mark.parametrize("own", [TurnsAround(), FlipsTheDark(), Brightens(), Scales(), Corner(4)])
def test_a_users_subclass_does_what_it_says(own):
    images = random((6, 11, 13, 3))
    images[::2] //= 3
    end = [] if isinstance(own, Normalize) else [Normalize()]

    class Random(type(own)):
        """Without a deterministic form that is another class."""

        def deterministic(self):
            return Normalize() if isinstance(self, Normalize) else None

    own.__class__ = Random
    check([RandomCrop(8), FlipX(), own, *end], images)
    check([RandomCrop(8), own, FlipX(), *end] if end else [FlipX(), own], images)


def test_a_method_of_a_single_object_counts_too():
    flip, crop = FlipX(1), RandomCrop(6)
    flip.apply_images = lambda images, params, out=None: 255 - images
    batch = Batch({"images": random((4, 11, 13, 3))}, seq=0)
    assert np.array_equal(
        Augmentations([crop, flip]).process(batch).images, 255 - Augmentations([crop]).process(batch).images
    )


def test_transforms_in_company_take_and_hand_over_arrays_as_alone():
    batch = Batch({"images": random((4, 11, 13, 3))}, seq=0)
    for chain in ([RandomCrop(6), FlipX()], [RandomCrop((11, 13)), FlipX(0)], [FlipX(), Normalize()]):
        stage = Augmentations(chain)
        assert not stage.hands_over
        for ours in (False, True):
            stage.input_handed_over = ours
            assert stage.hands_over == ours
            out = stage.process(batch).images
            assert out.flags.c_contiguous and out.flags.writeable
            assert not np.shares_memory(out, batch.images)


# Errors


@pytest.mark.parametrize(
    ("chain", "images", "message", "place"),
    [
        (
            [FlipX(), CenterCrop(6), RandomCrop(7), Normalize()],
            random((2, 11, 13, 3)),
            r"RandomCrop: size is \(7, 7\), but the images are \(6, 6\)",
            "transform 3 of 4, RandomCrop",
        ),
        (
            [FlipX(), RandomCrop(6), Normalize()],
            random((2, 11, 13, 4)),
            "Normalize: mean is .* for images with 4 channels",
            "transform 3 of 3, Normalize",
        ),
        (
            [FlipX(), Pad(1, (1, 2)), Normalize()],
            random((2, 11, 13, 3)),
            r"Pad: fill is \(1, 2\), for images with 3 channels",
            "transform 2 of 3, Pad",
        ),
        (
            [FlipX(), Pad(1, 0.5), Normalize()],
            random((2, 11, 13, 3)),
            "Pad: fill is 0.5, for images of uint8",
            "transform 2 of 3, Pad",
        ),
        (
            [RandomCrop(6), FlipX(), Normalize()],
            random((2, 11, 13)),
            r"RandomCrop: images are uint8 of shape \(2, 11, 13\); expected uint8 \(N, H, W, C\)",
            "transform 1 of 3, RandomCrop",
        ),
        (
            [RandomCrop(6), FlipX(), Normalize()],
            random((2, 11, 13, 3)).astype(np.float32),
            "Normalize: images are float32",
            "transform 3 of 3, Normalize",
        ),
    ],
)
def test_errors_name_the_transform(chain, images, message, place):
    with pytest.raises(ArgumentError, match=message) as raised:
        Augmentations(chain).process(Batch({"images": images}, seq=0))
    if sys.version_info >= (3, 11):
        assert any(place in note for note in raised.value.__notes__)
    with pytest.raises(ArgumentError, match=message):
        one_by_one(chain, Batch({"images": images}, seq=0))


def test_a_transform_of_the_base_class_is_left_alone():
    class Nothing(Transform):
        def apply_images(self, images, params):
            return images

    check([RandomCrop(6), Nothing(), FlipX(), Normalize()], random((2, 11, 13, 3)))
