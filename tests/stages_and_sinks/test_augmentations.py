"""Augmentations: draws by identity and position, ownership of arrays, deterministic forms, wrong transforms."""

import itertools
import sys
import threading

import numpy as np
import pytest

from highway.batch import Batch
from highway.engine import Pipeline, Source
from highway.errors import ArgumentError, ContractError, FieldError
from highway.modules import Augmentations, Noise
from highway.sampling.rng import SampleRandom
from highway.transforms import CenterCrop, FlipX, FlipY, Lambda, Normalize, Pad, RandomCrop, Transform


def random(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def batch_of(count, **identity):
    fields = {"images": random((count, 6, 8, 3)), "labels": np.arange(count)}
    return Batch(fields, **{"seq": 0, "indices": np.arange(count), **identity})


class Draws(Transform):
    """Writes the number that a sample draws into its first pixels."""

    def draw(self, rng, batch):
        return rng.uniform()

    def apply_images(self, images, params):
        out = images.copy()
        out[:, 0, 0, 0] = params * 256
        out[:, 0, 0, 1] = params * 65536 % 256
        return out


def mark(batch):
    return [tuple(pixel) for pixel in batch.images[:, 0, 0, :2].tolist()]


def drawn(seed, epoch, indices, position):
    values = SampleRandom(seed, epoch, indices, position).uniform()
    return [(int(value * 256), int(value * 65536 % 256)) for value in values]


def test_position_is_that_of_the_transform_in_the_life_of_the_batch():
    indices = np.array([3, 9, 2**32 - 1])
    batch = batch_of(3, indices=indices, epoch=5, applied=4)
    out = Augmentations([Lambda(lambda x: x), FlipX(), Draws()], seed=8).process(batch)
    assert mark(out) == drawn(8, 5, indices, 6)
    assert out.applied == 7
    again = Augmentations([Draws()], seed=8).process(out)
    assert mark(again) == drawn(8, 5, indices, 7)
    assert again.applied == 8


def test_one_chain_or_two_draw_the_same():
    whole = Augmentations([FlipX(), Draws(), RandomCrop(4)], seed=3).process(batch_of(9))
    first = Augmentations([FlipX()], seed=3).process(batch_of(9))
    parted = Augmentations([Draws(), RandomCrop(4)], seed=3).process(first)
    assert np.array_equal(whole.images, parted.images)
    assert whole.applied == parted.applied


def test_samples_draw_the_same_in_any_batch():
    stage = Augmentations([FlipX(), RandomCrop(4), Draws()])
    whole = batch_of(9)
    together = stage.process(whole).images
    for n in range(9):
        alone = Batch({"images": whole.images[n : n + 1]}, seq=n, indices=[n])
        assert np.array_equal(stage.process(alone).images[0], together[n])


def test_two_transforms_of_a_kind_draw_differently():
    twice = Augmentations([FlipX(), FlipX()]).process(batch_of(64))
    once = Augmentations([FlipX()]).process(batch_of(64))
    assert not np.array_equal(twice.images, batch_of(64).images)
    assert not np.array_equal(twice.images, once.images)


def test_flip_x_flips_half_of_the_samples_independently():
    images = np.zeros((4096, 1, 2, 1), np.uint8)
    images[:, :, 1] = 1
    flipped = Augmentations([FlipX()]).process(Batch({"images": images}, seq=0)).images[:, 0, 0, 0]
    assert abs(flipped.mean() - 0.5) < 0.036
    changes = (flipped[1:] != flipped[:-1]).mean()
    assert abs(changes - 0.5) < 0.036


def test_seeds_and_epochs_differ():
    results = {
        Augmentations([FlipX()], seed=seed).process(batch_of(64, epoch=epoch)).images.tobytes()
        for seed, epoch in itertools.product(range(3), range(3))
    }
    assert len(results) == 9


def test_everything_else_passes_through():
    batch = batch_of(4, epoch=2, seq=7, keys=list("abcd"))
    out = Augmentations([FlipX(), Normalize()]).process(batch)
    assert out.labels is batch.labels
    assert (out.epoch, out.seq, out.keys) == (2, 7, list("abcd"))
    assert out.indices.tolist() == [0, 1, 2, 3]
    assert out.images.shape == (4, 3, 6, 8)
    assert list(out.fields) == ["images", "labels"]


def test_no_transforms_change_nothing():
    batch = batch_of(4)
    out = Augmentations([]).process(batch)
    assert out.images is batch.images
    assert out.applied == 0


# Whose the arrays are


def test_input_that_is_not_ours_is_not_written_into():
    for chain in ([FlipX(1)], [FlipX(1), FlipY(1)], [FlipX(), Normalize()], [Lambda(lambda x: x), FlipY(1)]):
        batch = batch_of(4)
        before = batch.images.copy()
        out = Augmentations(chain).process(batch)
        assert np.array_equal(batch.images, before)
        assert not np.shares_memory(out.images, batch.images)


def test_input_that_was_handed_over_is_used():
    batch = batch_of(4)
    expected = batch.images[:, ::-1, ::-1].copy()
    stage = Augmentations([FlipX(1), FlipY(1)])
    stage.input_handed_over = True
    out = stage.process(batch)
    assert out.images is batch.images
    assert np.array_equal(out.images, expected)


def test_arrays_of_earlier_transforms_are_used():
    seen = []

    class Watched(FlipX):
        def apply_images(self, images, params, out=None):
            seen.append(out is images)
            return super().apply_images(images, params, out)

    Augmentations([Watched(), Watched(), Pad(1), Watched()]).process(batch_of(4))
    assert seen == [False, True, True]


def test_arrays_of_a_users_transform_are_not_written_into():
    kept = random((4, 6, 8, 3), seed=1)
    before = kept.copy()
    out = Augmentations([Pad(1), Lambda(lambda images: kept), FlipX(1)]).process(batch_of(4))
    assert np.array_equal(kept, before)
    assert np.array_equal(out.images, kept[:, :, ::-1])


def test_what_a_users_function_kept_of_its_input_is_not_written_into():
    """Also where the function returns its input, which the stage may have owned before."""
    kept = []

    def keep(images):
        kept.append(images)
        return images

    for chain in ([Lambda(keep), FlipX(1.0)], [FlipY(1.0), Lambda(keep), FlipX(1.0)]):
        stage = Augmentations(chain)
        stage.input_handed_over = True
        out = stage.process(batch_of(4))
        assert np.array_equal(out.images, kept[-1][:, :, ::-1])
        assert not np.shares_memory(out.images, kept[-1])


def test_what_is_handed_over():
    def handed(chain, from_input):
        stage = Augmentations(chain)
        stage.input_handed_over = from_input
        return stage.hands_over

    assert handed([FlipX(), Normalize()], True)
    assert handed([], True)
    assert not handed([FlipX(), Normalize()], False)
    assert not handed([FlipX(), Lambda(lambda x: x)], True)


def test_a_source_that_keeps_its_arrays_keeps_them_unchanged():
    kept = random((4, 6, 8, 3))
    before = kept.copy()

    class Keeps(Source):
        def tasks(self):
            return iter(range(5))

        def load(self, task):
            return Batch({"images": kept})

    with Pipeline([Keeps(workers=1), Augmentations([FlipX(1)]), Augmentations([FlipY(1)])]) as pipeline:
        for (images,) in pipeline:
            assert np.array_equal(images, before[:, ::-1, ::-1])
    assert np.array_equal(kept, before)


# Deterministic


def test_deterministic_has_nothing_random():
    chain = [FlipX(1), RandomCrop((4, 6)), FlipY(), CenterCrop(4), Lambda(lambda x: x + 1)]
    stage = Augmentations(chain, deterministic=True)
    batch = batch_of(4)
    out = stage.process(batch)
    assert np.array_equal(out.images, batch.images[:, 1:5, 2:6] + 1)
    assert out.applied == 5
    assert stage.transforms == tuple(chain)


def test_deterministic_refuses_what_has_no_such_form():
    Augmentations([Draws()])
    with pytest.raises(ArgumentError, match=r"Draws\(\) draws random numbers and has no deterministic form"):
        Augmentations([Draws()], deterministic=True)


# In a pipeline


def epoch_of(workers, chain, seed=0):
    source = Noise(16, (20, 30), size=100, epochs=2, seed=1, workers=workers)
    with Pipeline([source, Augmentations(chain, seed=seed, workers=workers)]) as pipeline:
        return [
            (batch.epoch, batch.seq, batch.applied, batch.images, batch.labels)
            for batch in pipeline.forever()
        ]


def test_any_number_of_workers_gives_equal_bits():
    chain = [FlipX(), FlipY(0.3), RandomCrop((16, 24), padding=2), Lambda(lambda x: x[:, ::-1]), Normalize()]
    one = epoch_of(1, chain)
    assert len(one) == 14
    assert {batch[2] for batch in one} == {6}
    for workers in (2, 8):
        other = epoch_of(workers, chain)
        assert [batch[:3] for batch in other] == [batch[:3] for batch in one]
        for mine, theirs in zip(one, other, strict=True):
            assert np.array_equal(mine[3], theirs[3])
            assert np.array_equal(mine[4], theirs[4])
    assert not all(np.array_equal(a[3], b[3]) for a, b in zip(one, epoch_of(1, chain, seed=1), strict=True))


def test_workers_are_found_unless_told():
    assert Augmentations([FlipX()]).workers is None
    assert Augmentations([FlipX()], workers=3).workers == 3


def test_errors_of_a_transform_reach_the_user_and_name_it():
    def fail(images):
        raise KeyError("mine")

    with Pipeline([Noise(4, (8, 8), size=8), Augmentations([FlipX(), Lambda(fail)])]) as pipeline:
        with pytest.raises(KeyError, match="mine") as raised:
            pipeline.dequeue(timeout=60)
        if sys.version_info >= (3, 11):
            assert any("transform 2 of 2, Lambda(fn=" in note for note in raised.value.__notes__)


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda x: None, "None"),
        (lambda x: x[:-1], r"an array of shape \(3, 6, 8, 3\)"),
        (lambda x: np.concatenate([x, x]), r"an array of shape \(8, 6, 8, 3\)"),
        (lambda x: x.sum(), "a uint64"),
        (lambda x: np.array(3), r"an array of shape \(\)"),
        (lambda x: list(x), "a list"),
    ],
)
def test_what_a_transform_returns_is_checked(function, found):
    stage = Augmentations([FlipX(), Lambda(function)])
    with pytest.raises(
        ContractError, match=rf"transform 2 of 2, Lambda\(.*\), returned {found} for 4 images"
    ):
        stage.process(batch_of(4))


def test_a_batch_without_images_is_refused():
    with pytest.raises(FieldError, match="needs the field 'images'; the batch has pictures"):
        Augmentations([FlipX()]).process(Batch({"pictures": random((2, 3, 3, 3))}))


@pytest.mark.parametrize(
    ("transforms", "arguments", "named"),
    [
        (FlipX(), {}, r"transforms is FlipX\(p=0.5\); expected a list of transforms"),
        ([FlipX], {}, r"transforms\[0\] is the class FlipX; expected FlipX\(\)"),
        ([FlipX(), len], {}, r"transforms\[1\] is <built-in function len>; .* put a function into Lambda"),
        ([3], {}, r"transforms\[0\] is 3; expected a Transform"),
        ("ab", {}, "transforms is 'ab'"),
        (None, {}, "transforms is None"),
        ([], {"seed": -1}, "seed is -1"),
        ([], {"seed": 2**64}, "seed is 18446744073709551616"),
        ([], {"workers": 0}, "workers"),
        ([], {"queue_size": 0}, "queue_size"),
    ],
)
def test_wrong_arguments_are_named(transforms, arguments, named):
    with pytest.raises(ArgumentError, match=named):
        Augmentations(transforms, **arguments)


def test_repr_builds_it_again():
    stage = Augmentations([FlipX(), RandomCrop(4, padding=1)], deterministic=True, seed=9)
    assert repr(stage) == (
        "Augmentations([FlipX(p=0.5), RandomCrop(size=(4, 4), padding=1, fill=0)], deterministic=True, seed=9)"
    )
    assert repr(eval(repr(stage))) == repr(stage)


def test_one_stage_serves_many_threads():
    stage = Augmentations([FlipX(), RandomCrop(4), Normalize()])
    expected = stage.process(batch_of(8)).images
    wrong = []

    def work():
        for _ in range(50):
            if not np.array_equal(stage.process(batch_of(8)).images, expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not wrong
