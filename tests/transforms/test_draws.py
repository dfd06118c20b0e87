"""What transforms draw: whole numbers are equally likely over the closed range, by a chi-square test of each."""

import itertools
import math

import numpy as np
import pytest

from highway.batch import Batch
from highway.modules import Augmentations
from highway.sampling.rng import SampleRandom
from highway.transforms import (
    Affine,
    ColorJitter,
    CutMix,
    FlipX,
    OneOf,
    PadCrop,
    Perspective,
    RandAugment,
    RandomCrop,
    RandomErasing,
    RandomResizedCrop,
    Shift,
    SomeOf,
    TrivialAugmentWide,
)

COUNT = 40_000
HEIGHT, WIDTH = 20, 30


def rng(count=COUNT, seed=11):
    return SampleRandom(seed, 0, np.arange(count), 3)


def chosen(transform, height=HEIGHT, width=WIDTH):
    return transform.choose(rng(), (COUNT, height, width, 3))


def drawn(transform, height=HEIGHT, width=WIDTH):
    images = np.broadcast_to(np.zeros((1, 1, 1, 1), np.uint8), (COUNT, height, width, 3))
    return transform.draw(rng(), Batch({"images": images, "labels": np.zeros(COUNT, np.int64)}))


def assert_equally_likely(found, outcomes):
    """Pearson's test at about 1 in 30 000, by the limit of Wilson and Hilferty."""
    counts = [int(np.sum(np.asarray(found) == outcome)) for outcome in outcomes]
    assert sum(counts) == len(found), "something else came up"
    expected = len(found) / len(counts)
    statistic = sum((count - expected) ** 2 for count in counts) / expected
    freedom = len(counts) - 1
    limit = freedom * (1 - 2 / (9 * freedom) + 4 * math.sqrt(2 / (9 * freedom))) ** 3
    assert statistic < limit, (counts, statistic, limit)


def test_the_test_sees_ends_of_half_weight():
    """What rounding a uniform real gives."""
    with pytest.raises(AssertionError):
        assert_equally_likely(np.rint(rng().uniform(-3, 3)), range(-3, 4))
    assert_equally_likely(rng().integers(-3, 4), range(-3, 4))


@pytest.mark.parametrize(
    ("transform", "across", "down"),
    [
        (Shift(0.1, 0.1), range(-3, 4), range(-2, 3)),
        (Shift((0.1, 0.2), (-0.4, -0.25)), range(3, 7), range(-8, -4)),
        (Shift(0.29, 1 / 3), range(-8, 9), range(-6, 7)),
        (Shift(0, 1), range(1), range(-20, 21)),
        (Affine(translate=(0.1, 0.2)), range(-3, 4), range(-4, 5)),
    ],
    ids=repr,
)
def test_moves(transform, across, down):
    matrices = chosen(transform)
    for column, outcomes in ((0, across), (1, down)):
        if len(outcomes) == 1:
            assert (matrices[:, column, 2] == outcomes[0]).all()
        else:
            assert_equally_likely(matrices[:, column, 2], outcomes)


@pytest.mark.parametrize(
    ("part", "side", "most"), [(0.29, 100, 29), (0.57, 100, 57), (0.07, 100, 7), (0.1, 39, 3)]
)
def test_the_last_whole_number_of_a_range_is_in_it(part, side, most):
    moves = Shift((0, part), 0).choose(rng(20 * side), (20 * side, 4, side, 1))[:, 0, 2]
    assert (moves.min(), moves.max()) == (0, most)


def test_a_range_without_a_whole_number_is_the_nearest_to_its_middle():
    moves = Shift((0.31, 0.34), (0.5, 0.5)).choose(rng(50), (50, 3, 5, 1))[:, :2, 2]
    assert (moves == (2, 2)).all()


@pytest.mark.parametrize(
    ("transform", "tops", "lefts"),
    [
        (RandomCrop((15, 27)), range(6), range(4)),
        (RandomCrop((19, 30)), range(2), range(1)),
        (PadCrop((20, 30), padding=4), range(-4, 5), range(-4, 5)),
    ],
    ids=repr,
)
def test_crops(transform, tops, lefts):
    windows = chosen(transform)
    for found, outcomes in ((windows.tops, tops), (windows.lefts, lefts)):
        if len(outcomes) > 1:
            assert_equally_likely(found, outcomes)
        else:
            assert (found == outcomes[0]).all()


def test_corners_of_a_perspective():
    matrices = chosen(Perspective(0.4, p=1))
    corners = np.array([(0, 0, 1), (WIDTH, 0, 1), (WIDTH, HEIGHT, 1), (0, HEIGHT, 1)])
    for corner in corners:
        moved = matrices @ corner
        steps = np.rint(np.abs(moved[:, :2] / moved[:, 2:] - corner[:2])).astype(int)
        assert_equally_likely(steps[:, 0], range(int(0.4 * 15) + 1))
        assert_equally_likely(steps[:, 1], range(int(0.4 * 10) + 1))


def test_places_of_what_is_erased():
    erased = drawn(RandomErasing(p=1, scale=(0.5, 0.5), ratio=(1, 1))).boxes
    side = round(math.sqrt(0.5 * HEIGHT * WIDTH))
    assert_equally_likely(erased[:, 1], range(HEIGHT - side + 1))
    assert_equally_likely(erased[:, 0], range(WIDTH - side + 1))


def test_places_of_windows_that_are_resized():
    fit = RandomResizedCrop(8, scale=(0.25, 0.25), ratio=(1, 1))
    windows = fit.place(rng(), np.full(COUNT, HEIGHT), np.full(COUNT, WIDTH), (8, 8)).windows
    side = round(math.sqrt(0.25 * HEIGHT * WIDTH))
    assert_equally_likely(windows[:, 1], range(HEIGHT - side + 1))
    assert_equally_likely(windows[:, 0], range(WIDTH - side + 1))


def test_centres_of_cutmix():
    # With nearly nothing left of its own an image is replaced on both sides of the center, to the edges.
    boxes = drawn(CutMix(1000.0, num_classes=2), 201, 301).boxes
    across = boxes[:, [0, 2]].sum(axis=1) // 2
    inside = (boxes[:, 0] > 0) & (boxes[:, 2] < 301)
    # Half of an area is a side of 0.71: whole ones have their center from 107 to 194.
    middle = across[inside & (across >= 120) & (across < 180)]
    assert_equally_likely(middle, range(120, 180))


def test_operations_and_magnitudes_of_policies():
    operations = RandAugment(num_ops=1).operations(HEIGHT, WIDTH)
    assert_equally_likely(rng().integers(0, len(operations)), range(14))
    assert_equally_likely(TrivialAugmentWide().bins(rng()), range(31))


def test_choices_of_compositions():
    three = [FlipX(), FlipX(), FlipX()]
    assert_equally_likely(OneOf(three).choose(rng()) @ [0, 1, 2], range(3))
    pairs = SomeOf(three, 2).choose(rng()) @ [1, 2, 4]
    assert_equally_likely(pairs, (3, 5, 6))
    assert_equally_likely(SomeOf(three, (0, 3)).choose(rng()).sum(axis=1), range(4))


def test_orders_of_colors():
    jitter = ColorJitter(0.1, 0.1, 0.1, 0.1)
    ops = jitter.program(rng(), COUNT, 3)[0]
    orders = list(itertools.permutations(sorted({*ops[0].tolist()})))
    assert len(orders) == 24
    numbers = np.array([orders.index(tuple(row)) for row in ops.tolist()])
    assert_equally_likely(numbers, range(24))


def test_a_shift_shows_what_it_draws():
    images = np.random.default_rng(0).integers(1, 256, (200, 20, 20, 1), dtype=np.uint8)
    out = Augmentations([Shift(0.1, 0, fill=0)]).process(Batch({"images": images}, seq=0)).images
    moves = []
    for before, after in zip(images, out, strict=True):
        found = [
            move
            for move in range(-2, 3)
            if np.array_equal(
                after[:, max(move, 0) : 20 + min(move, 0)], before[:, max(-move, 0) : 20 + min(-move, 0)]
            )
        ]
        assert len(found) == 1
        moves += found
    assert_equally_likely(np.array(moves), range(-2, 3))
