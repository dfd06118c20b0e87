"""RandomErasing, Mixup and CutMix: what is drawn, what becomes of pixels and labels."""

import numpy as np
import pytest

from highway.batch import Batch
from highway.engine import Pipeline
from highway.errors import ArgumentError
from highway.modules import Augmentations, Noise
from highway.sampling.rng import SampleRandom
from highway.transforms import CutMix, FlipX, Mixup, Normalize, RandomErasing


def batch_of(count, dtype=np.uint8, size=(32, 40), **fields):
    images = np.random.default_rng(0).integers(1, 255, (count, *size, 3)).astype(dtype)
    return Batch({"images": images, "labels": np.arange(count) % 10, **fields}, seq=0)


# Erasing


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_rectangles_are_painted_and_nothing_else_is(dtype):
    batch = batch_of(200, dtype)
    out = Augmentations([RandomErasing(p=1, scale=(0.1, 0.3), ratio=(0.5, 2), value=(0, 0, 0))]).process(
        batch
    )
    painted = (out.images == 0).all(axis=3)
    assert np.array_equal(out.images[~painted], batch.images[~painted])
    for one in painted:
        rows, columns = np.flatnonzero(one.any(axis=1)), np.flatnonzero(one.any(axis=0))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert one.sum() == height * width
        assert 0.08 < height * width / 1280 < 0.33
        assert 0.4 < height / width < 2.5
    # Any place: each corner is reached by some.
    assert painted[:, 0, 0].any()
    assert painted[:, -1, -1].any()


def test_how_many_are_erased():
    batch = batch_of(1000)
    out = Augmentations([RandomErasing(p=0.25, value=0)]).process(batch)
    changed = (out.images != batch.images).any(axis=(1, 2, 3)).sum()
    assert 200 < changed < 300
    assert np.array_equal(Augmentations([RandomErasing(p=0)]).process(batch).images, batch.images)


def test_noise_is_random_for_each_pixel_and_belongs_to_the_sample():
    batch = batch_of(64)
    stage = Augmentations([FlipX(p=0), RandomErasing(p=1, scale=(0.3, 0.3), value="random"), FlipX()], seed=2)
    out = stage.process(batch)
    changed = out.images != batch.images
    assert changed.any(axis=(1, 2, 3)).all()
    for n in (0, 5, 63):
        alone = stage.process(batch.take([n]))
        assert np.array_equal(alone.images[0], out.images[n])
    one = RandomErasing(p=1, scale=(0.9, 0.9), ratio=(1, 1), value="random")
    noise = Augmentations([one]).process(batch_of(4, size=(100, 100))).images
    assert 120 < noise.mean() < 135
    assert 65 < noise.std() < 80


def test_noise_on_floats_is_normal():
    batch = batch_of(4, np.float32, (100, 100))
    out = Augmentations([RandomErasing(p=1, scale=(0.9, 0.9), ratio=(1, 1), value="random")]).process(batch)
    noise = out.images[out.images != batch.images]
    assert abs(noise.mean()) < 0.05
    assert 0.95 < noise.std() < 1.05


def test_planar_floats():
    batch = batch_of(16)
    after = Augmentations([Normalize(), RandomErasing(p=1, value=(7, 8, 9))]).process(batch).images
    assert after.shape == (16, 3, 32, 40)
    painted = after[:, 0] == 7
    assert painted.any(axis=(1, 2)).all()
    assert (after[:, 2][painted] == 9).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p": 2}, "RandomErasing: p is 2"),
        ({"scale": (0, 0.5)}, "RandomErasing: scale is"),
        ({"scale": (0.5, 1.5)}, "RandomErasing: scale is"),
        ({"ratio": (3, 1)}, "RandomErasing: ratio is"),
        ({"value": "noise"}, "RandomErasing: value is 'noise'"),
    ],
)
def test_wrong_arguments_of_erasing(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        RandomErasing(**arguments)


def test_colors_that_do_not_fit():
    with pytest.raises(ArgumentError, match="for images with 3 channels"):
        Augmentations([RandomErasing(p=1, value=(1, 2))]).process(batch_of(1))


# Mixing


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_is_the_weighted_mean_of_images_and_labels(dtype, alpha):
    batch = batch_of(64, dtype)
    out = Augmentations([Mixup(alpha, num_classes=10)]).process(batch)
    assert out.images.dtype == dtype
    assert out.labels.dtype == np.float32
    assert out.labels.shape == (64, 10)
    assert np.allclose(out.labels.sum(axis=1), 1, atol=1e-6)
    for n in range(64):
        other = (n + 1) % 64
        part = out.labels[n, batch.labels[n]]
        expected = part * batch.images[n].astype(np.float64) + (1 - part) * batch.images[other]
        assert np.abs(out.images[n] - expected).max() < (0.51 if dtype == np.uint8 else 0.001)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0, 2.0, 20.0])
def test_parts_have_the_distribution_that_they_should(alpha):
    draw = Mixup(alpha, num_classes=10).draw
    batch = batch_of(20_000, size=(1, 1))
    own = draw(SampleRandom(1, 0, np.arange(20_000), 0), batch).own
    # Mean and variance of Beta(alpha, alpha), and how much lies below a quarter, against NumPy's own.
    assert abs(own.mean() - 0.5) < 0.015
    assert abs(own.var() - 1 / (4 * (2 * alpha + 1))) < 0.01
    reference = np.random.default_rng(0).beta(alpha, alpha, 200_000)
    for limit in (0.01, 0.1, 0.25, 0.6, 0.9):
        assert abs((own < limit).mean() - (reference < limit).mean()) < 0.015


def test_cutmix_replaces_a_rectangle_and_counts_it():
    batch = batch_of(64)
    out = Augmentations([CutMix(num_classes=10)]).process(batch)
    for n in range(64):
        other = batch.images[(n + 1) % 64]
        replaced = (out.images[n] != batch.images[n]).any(axis=2)
        assert np.array_equal(out.images[n][replaced], other[replaced])
        part = 1 - out.labels[n, batch.labels[n]]
        box = np.flatnonzero(replaced.any(axis=1)), np.flatnonzero(replaced.any(axis=0))
        area = np.ptp(box[0]) + 1, np.ptp(box[1]) + 1
        assert abs(part - (area[0] * area[1] / 1280 if replaced.any() else 0)) < 0.05


def test_one_hot_labels_need_no_number_of_classes():
    labels = np.eye(4, dtype=np.float32)
    batch = batch_of(4).replace(labels=labels)
    out = Augmentations([Mixup()]).process(batch)
    assert np.allclose(out.labels.sum(axis=1), 1)
    assert (out.labels > 0).sum() == 8


def test_p_of_mixing():
    batch = batch_of(1000, size=(2, 2))
    for transform in (Mixup(num_classes=10, p=0.3), CutMix(0.01, num_classes=10, p=0)):
        labels = Augmentations([transform]).process(batch).labels
        untouched = (labels.max(axis=1) == 1).mean()
        assert 0.65 < untouched < 0.75 if transform.p else untouched == 1


def test_a_batch_of_one_is_mixed_with_itself_and_of_none_is_none():
    for transform in (Mixup(num_classes=10), CutMix(num_classes=10)):
        out = Augmentations([transform]).process(batch_of(1))
        assert np.array_equal(out.images, batch_of(1).images)
        assert Augmentations([transform]).process(batch_of(0)).labels.shape == (0, 10)


def test_what_cannot_be_mixed():
    with pytest.raises(ArgumentError, match="num_classes"):
        Augmentations([Mixup()]).process(batch_of(2))
    with pytest.raises(ArgumentError, match="labels run from 0 to 9; expected 0 to 4"):
        Augmentations([Mixup(num_classes=5)]).process(batch_of(10))
    boxes = batch_of(2).replace(
        boxes=np.zeros((2, 4), np.float32), offsets=[0, 1, 2], ragged=("labels", "boxes")
    )
    with pytest.raises(ArgumentError, match="CutMix: the batch has boxes"):
        Augmentations([CutMix()]).process(boxes)
    masks = batch_of(2).replace(masks=np.zeros((2, 32, 40), np.uint8))
    with pytest.raises(ArgumentError, match="Mixup: the batch has masks"):
        Augmentations([Mixup(num_classes=10)]).process(masks)
    for wrong in (0, -1, "a", 1e9):
        with pytest.raises(ArgumentError, match="Mixup: alpha is"):
            Mixup(wrong)


def test_nothing_of_it_is_deterministic():
    assert [one.deterministic() for one in (Mixup(), CutMix(), RandomErasing())] == [None] * 3


@pytest.mark.parametrize("value", [300, -1, 0.5, (1.5, 2, 3)])
def test_values_that_bytes_cannot_hold(value):
    with pytest.raises(ArgumentError, match=r"RandomErasing: value is .*for images of uint8"):
        Augmentations([RandomErasing(p=1, value=value)]).process(batch_of(1))
    with pytest.raises(ArgumentError, match="RandomErasing: value is"):
        Pipeline([Noise(2, (8, 8)), Augmentations([RandomErasing(p=0.01, value=value)])])


def test_labels_that_cannot_be_mixed():
    for labels in (np.zeros(4, np.float32), np.zeros((4, 3), np.int64)):
        with pytest.raises(ArgumentError, match="Mixup: labels are"):
            Augmentations([Mixup(num_classes=3)]).process(batch_of(4).replace(labels=labels))
