"""Composition: which samples go through which transforms, and that each draws by itself."""

import numpy as np
import pytest
from test_annotations_follow import one_each

from highway.batch import Batch
from highway.engine import Pipeline, Source
from highway.errors import ArgumentError, ContractError
from highway.modules import Augmentations, Noise
from highway.transforms import (
    CenterCrop,
    ColorJitter,
    CutMix,
    FlipX,
    FlipY,
    GaussianNoise,
    Invert,
    Lambda,
    Mixup,
    Normalize,
    OneOf,
    RandAugment,
    RandomApply,
    RandomCrop,
    RandomErasing,
    Rotate,
    Sequential,
    SomeOf,
    ToFloat,
    Transform,
)


class Add(Transform):
    """Adds a number to the first value of each image: which ones it has seen."""

    def __init__(self, number):
        self.number = number

    def apply_images(self, images, params):
        out = images.copy()
        out[:, 0, 0, 0] += self.number
        return out

    def deterministic(self):
        return None


def zeros(count=64):
    return Batch({"images": np.zeros((count, 4, 4, 3), np.uint8), "labels": np.arange(count)}, seq=0)


def seen(transform, count=1000, seed=0):
    out = Augmentations([transform], seed=seed).process(zeros(count))
    assert out.labels.tolist() == list(range(count))
    return out.images[:, 0, 0, 0].tolist()


def test_one_of_takes_one():
    found = seen(OneOf([Add(1), Add(2), Add(4)]))
    assert {found.count(k) > 280 for k in (1, 2, 4)} == {True}
    assert set(found) == {1, 2, 4}


def test_weights():
    found = seen(OneOf([Add(1), Add(2), Add(4)], weights=[1, 0, 3]))
    assert set(found) == {1, 4}
    assert 680 < found.count(4) < 820


def test_some_of_takes_as_many_as_asked_for():
    found = seen(SomeOf([Add(1), Add(2), Add(4), Add(8)], n=2))
    assert {bin(k).count("1") for k in found} == {2}
    assert len(set(found)) == 6
    found = seen(SomeOf([Add(1), Add(2), Add(4)], n=(0, 3)))
    assert {bin(k).count("1") for k in found} == {0, 1, 2, 3}


def test_random_apply_takes_all_or_none():
    found = seen(RandomApply([Add(1), Add(2)], p=0.3))
    assert set(found) == {0, 3}
    assert 230 < found.count(3) < 370
    assert set(seen(RandomApply([Add(1)], p=0))) == {0}
    assert set(seen(RandomApply([Add(1)], p=1))) == {1}


def test_sequential_is_a_row():
    assert set(seen(Sequential([Add(1), Sequential([Add(2), Add(4)])]))) == {7}


NESTED = [
    OneOf(
        [Sequential([FlipX(), Rotate(20)]), RandomApply([FlipY(), Invert()]), SomeOf([FlipX(), FlipY()], n=1)]
    ),
    RandomCrop(3),
]


def test_samples_draw_the_same_in_any_batch():
    stage = Augmentations(NESTED, seed=4)
    whole = one_each(24)
    together = stage.process(whole)
    for n in range(24):
        alone = stage.process(whole.take([n]))
        assert np.array_equal(alone.images[0], together.images[n])
        assert np.array_equal(alone.boxes, together.boxes_of(n))
        assert np.array_equal(alone.labels, together.rows_of("labels", n))
        assert np.array_equal(alone.masks[0], together.masks[n])


def test_one_chain_or_two_draw_the_same():
    whole = Augmentations([*NESTED, FlipX()], seed=3).process(one_each(16))
    first = Augmentations(NESTED, seed=3).process(one_each(16))
    parted = Augmentations([FlipX()], seed=3).process(first)
    assert np.array_equal(whole.images, parted.images)
    assert whole.applied == parted.applied


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_any_number_of_threads_gives_the_same(workers):
    def images(workers):
        stage = Augmentations(NESTED, seed=1, workers=workers)
        with Pipeline([Noise(8, (6, 6), epochs=1, size=64), stage]) as pipeline:
            return [batch.images for batch in pipeline]

    assert all(map(np.array_equal, images(workers), images(3)))


def test_sizes_that_differ_are_refused_when_the_pipeline_is_built():
    stage = Augmentations([OneOf([RandomCrop(3), CenterCrop(4)])])
    with pytest.raises(ArgumentError, match=r"become \(3, 3, 3\) and \(4, 4, 3\)"):
        Pipeline([Noise(8, (6, 6)), stage])
    with pytest.raises(ArgumentError, match="become"):
        Pipeline([Noise(8, (6, 6)), Augmentations([RandomApply([CenterCrop(4)])])])
    Pipeline([Noise(8, (6, 6)), Augmentations([RandomApply([CenterCrop(4)], p=1)])]).stop()


def test_what_differs_is_refused_where_nothing_is_known_before():
    half = RandomApply([Lambda(lambda images: images[:, :2])])
    with pytest.raises(ContractError, match="depending on the chosen branch"):
        Augmentations([half]).process(zeros())
    with pytest.raises(ContractError, match="float64"):
        Augmentations([RandomApply([Lambda(lambda images: images / 2)])]).process(zeros())


@pytest.mark.parametrize("changes", [Normalize(), ToFloat()], ids=repr)
def test_what_changes_dtypes_is_for_all_samples(changes):
    for make in (
        lambda: RandomApply([FlipX(), changes]),
        lambda: OneOf([changes, FlipX()]),
        lambda: SomeOf([FlipX(), Sequential([changes])], 1),
        lambda: RandomApply([Sequential([changes])]),
    ):
        with pytest.raises(ArgumentError, match="changes the dtype of images"):
            make()
    RandomApply([changes], p=1)
    Sequential([FlipX(), changes])


def pictures(count=64, labels=None, dtype=np.uint8):
    images = np.random.default_rng(2).integers(0, 256, (count, 12, 10, 3)).astype(dtype)
    return Batch({"images": images, "labels": np.arange(count) % 10 if labels is None else labels}, seq=0)


def mixed_alone(transform, batch, position, seed=0):
    """What one transform makes of the whole batch, at that position."""
    return Augmentations([transform], seed=seed).process(batch.replace(applied=position))


MIXING = [CutMix(num_classes=10), Mixup(num_classes=10)]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_one_of_mixing_transforms_is_what_each_makes_of_the_whole_batch(dtype):
    batch = pictures(dtype=dtype)
    out = Augmentations([OneOf(MIXING)]).process(batch)
    assert out.labels.dtype == np.float32 and out.labels.shape == (64, 10)
    # A OneOf draws at its own position, the first of its transforms at the next.
    each = [mixed_alone(one, batch, 1 + k) for k, one in enumerate(MIXING)]
    found = []
    for n in range(64):
        matches = [k for k in (0, 1) if np.array_equal(out.images[n], each[k].images[n])]
        assert matches
        assert any(np.array_equal(out.labels[n], each[k].labels[n]) for k in matches)
        found.append(matches[0])
    assert 18 < sum(found) < 46


@pytest.mark.parametrize(
    "labels", [None, np.eye(10, dtype=np.float32)[np.arange(64) % 10]], ids=["numbers", "one-hot"]
)
@pytest.mark.parametrize(
    "make",
    [
        lambda mixup, cutmix: RandomApply([mixup], 0.5),
        lambda mixup, cutmix: RandomApply([OneOf([mixup, cutmix], [1, 3])], 0.4),
        lambda mixup, cutmix: OneOf([mixup, FlipX(1)]),
        lambda mixup, cutmix: OneOf([Sequential([FlipX(), cutmix]), Sequential([])]),
        lambda mixup, cutmix: SomeOf([mixup, FlipY(), cutmix], (0, 2)),
        lambda mixup, cutmix: Sequential([FlipX(), RandomApply([Sequential([cutmix])])]),
        lambda mixup, cutmix: RandomApply([mixup], 0.0),
        lambda mixup, cutmix: RandomApply([mixup], 1.0),
    ],
)
def test_mixing_in_any_composition(make, labels):
    classes = None if labels is not None else 10
    transform = make(Mixup(num_classes=classes), CutMix(num_classes=classes))
    batch = pictures(labels=labels)
    out = Augmentations([transform], seed=5).process(batch)
    if classes is None or "p=0.0" not in repr(transform):
        assert out.labels.dtype == np.float32 and out.labels.shape == (64, 10)
    assert np.allclose(out.labels.sum(axis=1), 1, atol=1e-6)
    own = np.arange(64) % 10
    # What a sample has of others is of the next one, or of what that was mixed with before.
    for n in range(64):
        parts = set(np.flatnonzero(out.labels[n]))
        assert parts <= {own[(n + k) % 64] for k in range(3)}
    again = Augmentations([transform], seed=5).process(batch)
    assert np.array_equal(again.images, out.images) and np.array_equal(again.labels, out.labels)
    other = Augmentations([transform], seed=6).process(batch)
    chance = "p=0.0" not in repr(transform)
    assert (not np.array_equal(other.labels, out.labels)) == chance


def test_how_many_are_mixed():
    batch = pictures(1000)
    labels = Augmentations([RandomApply([OneOf(MIXING)], 0.3)]).process(batch).labels
    # CutMix may have a rectangle without area.
    assert 0.68 < (labels.max(axis=1) == 1).mean() < 0.78


def test_samples_that_are_not_mixed_are_as_they_were():
    batch = pictures(40)
    transform = RandomApply([Mixup(num_classes=10)], 0.5)
    out = Augmentations([transform]).process(batch)
    whole = mixed_alone(Mixup(num_classes=10), batch, 1)
    kept = [np.array_equal(out.images[n], batch.images[n]) for n in range(40)]
    assert 8 < sum(kept) < 32
    for n, same in enumerate(kept):
        expected = np.eye(10)[n % 10] if same else whole.labels[n]
        assert np.array_equal(out.labels[n], expected.astype(np.float32))
        assert same or np.array_equal(out.images[n], whole.images[n])


def test_mixing_behind_numbers():
    batch = pictures(16)
    out = Augmentations([Normalize(), OneOf(MIXING)]).process(batch)
    assert out.images.shape == (16, 3, 12, 10) and out.images.dtype == np.float32
    assert np.allclose(out.labels.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("workers", [1, 4])
def test_mixed_pipelines_have_the_same_bits(workers):
    def run(workers):
        stage = Augmentations([FlipX(), OneOf(MIXING), RandomApply([CutMix()], 0.5)], seed=1, workers=workers)
        reader = Noise(8, (6, 6), epochs=2, size=60)
        with Pipeline([reader, stage]) as pipeline:
            return [(batch.images, batch.labels) for batch in pipeline.forever()]

    for ours, theirs in zip(run(workers), run(2), strict=True):
        assert all(map(np.array_equal, ours, theirs))


def test_what_cannot_be_mixed_is_refused_whatever_is_drawn():
    never = RandomApply([Mixup(num_classes=10)], 1e-9)
    with pytest.raises(ArgumentError, match="Mixup: the batch has masks"):
        Augmentations([never]).process(one_each(2))
    with pytest.raises(ArgumentError, match="labels run from 0 to 9; expected 0 to 4"):
        Augmentations([RandomApply([Mixup(num_classes=5)], 1e-9)]).process(pictures())
    with pytest.raises(ArgumentError, match="CutMix: labels are class numbers; expected num_classes"):
        Augmentations([OneOf([CutMix(), FlipX()], [0, 1])]).process(pictures())
    for make in (
        lambda: OneOf([Mixup(num_classes=3), CutMix(num_classes=4)]),
        lambda: RandomApply([Mixup(num_classes=3), OneOf([CutMix(num_classes=4)])]),
    ):
        with pytest.raises(ArgumentError, match=r"num_classes of .* differ"):
            make()
    assert OneOf(MIXING).deterministic() is None


def test_what_does_not_fit_is_refused_when_the_pipeline_is_built():
    with pytest.raises(ArgumentError, match=r"RandomCrop: size is \(8, 8\), but the images are \(6, 6\)"):
        Pipeline([Noise(8, (6, 6)), Augmentations([FlipX(), Sequential([RandomCrop(8)])])])
    with pytest.raises(ArgumentError, match="images with 4 channels"):
        Pipeline([Noise(8, (6, 6, 4)), Augmentations([FlipX(), Normalize()])])


def test_deterministic_forms():
    assert repr(Sequential([RandomCrop(3), FlipX(), Normalize()]).deterministic()) == repr(
        Sequential([CenterCrop(3), Normalize()])
    )
    assert RandomApply([FlipX(), RandomCrop(3)]).deterministic() is None
    assert repr(RandomApply([RandomCrop(3)], p=1).deterministic()) == repr(Sequential([CenterCrop(3)]))
    assert OneOf([FlipX(), Rotate(9)]).deterministic() is None
    with pytest.raises(ArgumentError, match="OneOf has no deterministic form"):
        OneOf([FlipX(), RandomCrop(3)]).deterministic()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OneOf([]), "OneOf: transforms is empty"),
        (lambda: OneOf([FlipX], None), "OneOf: transforms\\[0\\] is the class FlipX"),
        (lambda: OneOf([FlipX()], [0]), "OneOf: weights is"),
        (lambda: OneOf([FlipX()], [1, 2]), "OneOf: weights is"),
        (lambda: SomeOf([FlipX()], 2), "SomeOf: n is 2"),
        (lambda: SomeOf([FlipX(), FlipY()], (2, 1)), "SomeOf: n is 2; expected a whole number from 0 to 1"),
        (lambda: RandomApply([FlipX()], 1.5), "RandomApply: p is 1.5"),
        (lambda: Sequential(FlipX()), "Sequential: transforms is FlipX"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_they_show_how_to_build_them_again():
    for transform in (
        OneOf([FlipX(p=0.5), Sequential([FlipY(p=1)])], weights=(1, 2)),
        SomeOf([FlipX(), FlipY()], (0, 2)),
        RandomApply([Rotate((10, 20))], 0.25),
    ):
        names = {"OneOf": OneOf, "FlipX": FlipX, "FlipY": FlipY, "Sequential": Sequential, "SomeOf": SomeOf}
        again = eval(repr(transform), {**names, "RandomApply": RandomApply, "Rotate": Rotate})
        assert repr(again) == repr(transform)
        count = 40
        ours, theirs = (Augmentations([one]).process(one_each(count)).images for one in (transform, again))
        assert np.array_equal(ours, theirs)


class Kept(Source):
    """Hands out one array again and again, and keeps it."""

    def __init__(self):
        super().__init__(workers=1)
        self.images = np.full((6, 8, 8, 3), 100, np.uint8)

    def tasks(self):
        return iter(range(4))

    def load(self, task):
        return Batch({"images": self.images}, seq=task)


@pytest.mark.parametrize(
    "first",
    [
        RandomApply([FlipX()], p=0.0),
        RandomApply([FlipX()], p=0.5),
        Sequential([]),
        SomeOf([FlipX(), FlipY()], n=0),
        Sequential([Rotate(10, p=0)]),
        OneOf([FlipX(0), Sequential([])]),
        Lambda(lambda images: images),
        RandAugment(magnitude=0),
    ],
    ids=repr,
)
@pytest.mark.parametrize("second", [Invert(1.0), FlipX(1.0), RandomErasing(1.0), GaussianNoise()], ids=repr)
def test_what_a_source_keeps_is_never_written_into(first, second):
    source = Kept()
    with Pipeline([source, Augmentations([first, second])]) as pipeline:
        batches = [batch.images.copy() for batch in pipeline]
    assert (source.images == 100).all()
    assert len(batches) == 4


def test_what_a_batch_holds_is_never_written_into():
    """Any chain, in any nesting: who holds a batch holds what it held."""
    parts = [Invert(), FlipX(), Rotate(9, p=0.5), GaussianNoise(p=0.5), RandomErasing(), RandAugment()]
    for seed in range(150):
        rng = np.random.default_rng(seed)
        chain = []
        for _ in range(rng.integers(1, 5)):
            inner = [parts[k] for k in rng.integers(0, len(parts), rng.integers(0, 3))]
            kinds = [Sequential(inner), RandomApply(inner, p=float(rng.choice([0, 0.2, 1])))]
            kinds += [OneOf(inner)] if inner else []
            chain.append(kinds[rng.integers(0, len(kinds))])
        batch = one_each(3)
        before = {name: batch[name].copy() for name in (*batch.fields, *batch.extras)}
        out = Augmentations(chain, seed=seed).process(batch)
        for name, array in before.items():
            assert np.array_equal(batch[name], array), (chain, name)
        held = out.images.copy()
        Augmentations(chain, seed=seed + 1).process(out)
        assert np.array_equal(out.images, held)


@pytest.mark.parametrize(
    ("chain", "what"),
    [
        ([Normalize(), ColorJitter(0.4)], "ColorJitter"),
        ([ToFloat(), Normalize()], "Normalize"),
        ([Normalize(), RandomCrop(4)], "RandomCrop"),
        ([Normalize(), Rotate(9)], "Rotate"),
        ([Normalize(layout="NHWC"), RandAugment()], "RandAugment"),
        ([Normalize(dtype="bfloat16"), RandomErasing()], "RandomErasing"),
        ([ToFloat("NHWC", "bfloat16"), FlipX(), Mixup(0.2)], "Mixup"),
    ],
    ids=repr,
)
def test_what_stands_behind_numbers_is_refused_when_the_pipeline_is_built(chain, what):
    with pytest.raises(ArgumentError, match=rf"{what}.* comes after .*put it before"):
        Pipeline([Noise(8, (6, 6)), Augmentations(chain)])


def test_what_takes_numbers_stands_behind_them():
    for chain in (
        [Normalize(), RandomErasing(), GaussianNoise()],
        [Normalize(layout="NHWC"), FlipX(), RandomCrop(4)],
    ):
        with Pipeline([Noise(8, (6, 6), epochs=1), Augmentations(chain)]) as pipeline:
            assert pipeline.dequeue().images.dtype == np.float32
