"""RandAugment and TrivialAugmentWide: the published operations and strengths, and what becomes of boxes."""

import numpy as np
import pytest
from test_annotations_follow import burnt, one_each

from highway._core.pixels import color
from highway.batch import Batch
from highway.engine import Pipeline
from highway.errors import ArgumentError
from highway.modules import Augmentations, Noise
from highway.sampling.rng import SampleRandom
from highway.transforms import RandAugment, TrivialAugmentWide

# Of torchvision.transforms.v2: name, least and greatest magnitude of 31 bins for images of 331 x 331, and sign.
RAND = [
    ("Identity", 0, 0, False),
    ("ShearX", 0, 0.3, True),
    ("ShearY", 0, 0.3, True),
    ("TranslateX", 0, 150, True),
    ("TranslateY", 0, 150, True),
    ("Rotate", 0, 30, True),
    ("Brightness", 0, 0.9, True),
    ("Color", 0, 0.9, True),
    ("Contrast", 0, 0.9, True),
    ("Sharpness", 0, 0.9, True),
    ("Posterize", 8, 4, False),
    ("Solarize", 255, 0, False),
    ("AutoContrast", 0, 0, False),
    ("Equalize", 0, 0, False),
]
WIDE = {"ShearX": 0.99, "ShearY": 0.99, "TranslateX": 32, "TranslateY": 32, "Rotate": 135}
WIDE |= {"Brightness": 0.99, "Color": 0.99, "Contrast": 0.99, "Sharpness": 0.99, "Posterize": 2}


@pytest.mark.parametrize("policy", [RandAugment(), TrivialAugmentWide()], ids=repr)
def test_operations_and_strengths_are_the_published_ones(policy):
    found = policy.operations(331, 331)
    assert [operation.name for operation in found] == [name for name, *_ in RAND]
    for operation, (name, least, greatest, signed) in zip(found, RAND, strict=True):
        if isinstance(policy, TrivialAugmentWide):
            greatest = WIDE.get(name, greatest)
        assert operation.signed == signed, name
        assert len(operation.magnitudes) == 31
        assert operation.magnitudes[0] == pytest.approx(least)
        assert operation.magnitudes[-1] == pytest.approx(greatest)
        assert (np.sign(np.diff(operation.magnitudes)) * np.sign(greatest - least) >= 0).all()
    # Bits are whole, and halves are rounded as torch does.
    assert found[10].magnitudes[9] == (7 if isinstance(policy, RandAugment) else 6)


def draw(policy, count=4000, size=(96, 128)):
    images = np.zeros((count, *size, 3), np.uint8)
    rng = SampleRandom(5, 0, np.arange(count), 3)
    return policy.draw(rng, Batch({"images": images}, seq=0))


def changed(drawn):
    """How many things a round changes, for each sample."""
    return (
        (drawn.matrices != np.eye(3)).any(axis=(1, 2)).astype(int)
        + (drawn.ops[:, 0] != color.NONE)
        + (drawn.sharpness != 1)
    )


def test_every_round_has_one_operation_and_all_are_equally_likely():
    rounds = draw(RandAugment(num_ops=3))
    assert len(rounds) == 3
    for drawn in rounds:
        count = changed(drawn)
        assert set(count) == {0, 1}
        # One of 14 does nothing.
        assert abs((count == 0).mean() - 1 / 14) < 0.02
        for code in (color.POSTERIZE, color.EQUALIZE, color.SATURATION):
            assert abs((drawn.ops == code).mean() - 1 / 14) < 0.02
        assert abs((drawn.matrices[:, 0, 1] == -drawn.matrices[:, 1, 0]).mean() - 12 / 14) < 0.03


def test_strength_is_that_of_the_bin():
    drawn = draw(RandAugment(num_ops=1, magnitude=9))[0]
    shear = drawn.matrices[(drawn.matrices[:, 0, 1] != 0) & (drawn.matrices[:, 0, 0] == 1), 0, 1]
    assert set(np.round(np.abs(shear), 9)) == {0.09}
    assert 0.4 < (shear > 0).mean() < 0.6
    moves = drawn.matrices[(drawn.matrices[:, 0, 2] != 0) & (drawn.matrices[:, 0, 0] == 1), 0, 2]
    assert set(np.abs(moves)) == {int(150 / 331 * 128 * 9 / 30)}
    factors = drawn.arguments[drawn.ops[:, 0] == color.BRIGHTNESS, 0, 0]
    assert set(np.round(factors, 6)) == {np.float32(0.73), np.float32(1.27)}
    turned = drawn.matrices[drawn.matrices[:, 0, 0] != 1]
    assert set(np.round(turned[:, 0, 0], 9)) == {round(np.cos(np.radians(9)), 9)}
    wide = draw(TrivialAugmentWide())[0]
    factors = wide.arguments[wide.ops[:, 0] == color.CONTRAST, 0, 0]
    assert len(set(factors)) > 40
    assert factors.min() >= 0.0099
    assert factors.max() <= 1.9901


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", [RandAugment(magnitude=30), TrivialAugmentWide()], ids=repr)
def test_a_thousand_seeds(policy, channels):
    images = np.random.default_rng(0).integers(0, 256, (2, 17, 23, channels), dtype=np.uint8)
    batch = Batch({"images": images}, seq=0)
    different = set()
    for seed in range(1000):
        out = Augmentations([policy], seed=seed).process(batch).images
        assert out.shape == images.shape
        assert out.dtype == np.uint8
        different.add(out.tobytes())
    assert len(different) > 600
    assert np.array_equal(batch.images, images)


@pytest.mark.parametrize("policy", [RandAugment(num_ops=3, magnitude=15), TrivialAugmentWide()], ids=repr)
def test_boxes_hold_what_is_burnt_in(policy):
    batch = one_each(64)
    out = Augmentations([policy], seed=1).process(batch)
    checked = 0
    for i in range(batch.size):
        for box in out.boxes_of(i):
            if (out.masks[i] > 127).sum() < 50:
                continue
            x0, y0, x1, y1 = burnt(out.masks[i])
            assert x0 >= box[0] - 1
            assert y0 >= box[1] - 1
            assert x1 <= box[2] + 1
            assert y1 <= box[3] + 1
            checked += 1
    assert checked > 40


@pytest.mark.parametrize("workers", [1, 8])
def test_any_number_of_threads_gives_the_same(workers):
    def images(count):
        stage = Augmentations([RandAugment(), TrivialAugmentWide()], seed=1, workers=count)
        with Pipeline([Noise(8, (24, 24), epochs=1, size=64), stage]) as pipeline:
            return [batch.images for batch in pipeline]

    assert all(map(np.array_equal, images(workers), images(2)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandAugment(num_ops=0), "RandAugment: num_ops is 0"),
        (
            lambda: RandAugment(magnitude=31),
            "RandAugment: magnitude is 31; expected a whole number from 0 to 30",
        ),
        (lambda: RandAugment(num_magnitude_bins=1), "RandAugment: num_magnitude_bins is 1"),
        (lambda: TrivialAugmentWide(interpolation="cubic"), "TrivialAugmentWide: interpolation is 'cubic'"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_images_that_it_cannot_take_are_refused_when_the_pipeline_is_built():
    with pytest.raises(ArgumentError, match="4 channels; expected 1 or 3"):
        Pipeline([Noise(8, (24, 24, 4)), Augmentations([RandAugment()])])
    batch = Batch({"images": np.zeros((1, 8, 8, 3), np.float32)}, seq=0)
    with pytest.raises(ArgumentError, match="expected uint8"):
        Augmentations([RandAugment()]).process(batch)


def test_what_one_round_pushes_out_the_next_does_not_bring_back():
    policy = RandAugment(2, 30)
    images = np.full((300, 64, 64, 3), 255, np.uint8)
    boxes = np.tile(np.float32([40, 0, 60, 20]), (300, 1))
    batch = Batch(
        {
            "images": images,
            "labels": np.arange(300),
            "boxes": boxes,
            "masks": np.ones((300, 64, 64), np.uint8),
        },
        seq=0,
        offsets=np.arange(301),
        ragged=("labels", "boxes"),
    )
    rng = SampleRandom(0, 0, np.arange(300), 0)
    rounds = policy.draw(rng, batch)
    out = Augmentations([policy]).process(batch)
    there_and_back = 0
    for i in range(300):
        first, second = (drawn.matrices[i] for drawn in rounds)
        both = (first != np.eye(3)).any() and (second != np.eye(3)).any()
        there_and_back += both
        if both:
            # Where the mask shows nothing, the image does not either; colors were not changed.
            assert np.array_equal(out.masks[i] == 0, (out.images[i] == 0).all(axis=2))
    assert there_and_back > 20
