"""Boxes, masks and keypoints go where the images go: against numbers computed otherwise, and against burnt-in boxes."""

import numpy as np
import pytest

from highway.batch import Batch
from highway.errors import ArgumentError, ContractError
from highway.modules import Augmentations, PadBoxes
from highway.transforms import (
    Affine,
    CenterCrop,
    CenterFit,
    FlipX,
    FlipY,
    Lambda,
    Letterbox,
    Normalize,
    OneOf,
    Pad,
    PadCrop,
    Perspective,
    RandAugment,
    RandomCrop,
    RandomErasing,
    RandomResizedCrop,
    Resize,
    Rotate,
    Shift,
    Slice,
    Stretch,
    Transform,
    Transpose,
    Zoom,
)

SIZE = (96, 128)


def detection(boxes, size=SIZE, **identity):
    """A batch whose images are black, with every box burnt in: box k of sample i is white where it is."""
    images = np.zeros((len(boxes), *size, 3), np.uint8)
    for image, rows in zip(images, boxes, strict=True):
        for x0, y0, x1, y1 in rows:
            image[y0:y1, x0:x1] = 255
    values = np.array([box for rows in boxes for box in rows], np.float32).reshape(-1, 4)
    offsets = np.cumsum([0, *map(len, boxes)])
    return Batch(
        {"images": images, "labels": np.arange(len(values)), "boxes": values, "masks": images[..., 0].copy()},
        seq=0,
        indices=np.arange(len(boxes)),
        extras={"difficult": np.arange(len(values)) % 2 == 0},
        offsets=offsets,
        ragged=("labels", "boxes", "difficult"),
        **identity,
    )


def one_each(count=32, seed=0, size=SIZE):
    rng = np.random.default_rng(seed)
    boxes = []
    for _ in range(count):
        x, y = rng.integers(8, size[1] - 56), rng.integers(8, size[0] - 48)
        boxes.append([(x, y, x + rng.integers(16, 48), y + rng.integers(16, 40))])
    return detection(boxes, size)


def burnt(image):
    """The box around what is bright."""
    rows, columns = np.where(image.max(axis=-1) > 127) if image.ndim == 3 else np.where(image > 127)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


CHAINS = [
    [FlipX(p=1)],
    [FlipY()],
    [RandomCrop((64, 80))],
    [PadCrop(96, padding=16)],
    [Pad((3, 5, 7, 11))],
    [Slice(8, 16, 80, 96)],
    [CenterCrop(80), FlipX()],
    [CenterFit((60, 60))],
    [Stretch((50, 200))],
    [Letterbox((128, 128))],
    [Resize(64)],
    [RandomResizedCrop((64, 64), scale=(0.3, 1))],
    [FlipX(), RandomResizedCrop((80, 80), scale=(0.5, 1)), FlipY(), RandomCrop(64)],
    [Shift(0.2, 0.2)],
    [Zoom((0.7, 1.4))],
    [Transpose(p=1)],
    [Transpose(p=1), FlipX(), CenterCrop(80)],
]


@pytest.mark.parametrize("chain", CHAINS, ids=repr)
def test_boxes_and_masks_are_where_burnt_in_boxes_are(chain):
    batch = one_each()
    out = Augmentations(chain, seed=3).process(batch)
    assert out.boxes.dtype == np.float32
    seen = 0
    for i in range(batch.size):
        if not len(out.boxes_of(i)):
            continue
        seen += 1
        box = out.boxes_of(i)[0]
        if min(box[2] - box[0], box[3] - box[1]) < 2:
            continue
        # A pixel at half brightness is the edge: a pixel off at most, where the image is resampled.
        assert np.abs(box - burnt(out.images[i])).max() <= 1.01, (i, box, burnt(out.images[i]))
        assert np.abs(box - burnt(out.masks[i])).max() <= 1.01
    assert seen > batch.size // 2
    assert out.masks.shape == out.images.shape[:3]


@pytest.mark.parametrize(
    "warp", [Rotate(30), Affine(20, (0.1, 0.1), (0.8, 1.2), 10), Perspective(0.3, p=1)], ids=repr
)
def test_boxes_of_warps_hold_what_is_burnt_in(warp):
    batch = one_each()
    out = Augmentations([warp], seed=5).process(batch)
    for i in range(batch.size):
        for box in out.boxes_of(i):
            x0, y0, x1, y1 = burnt(out.images[i])
            # The box around the four corners: what is bright touches it, within a pixel, unless cut off.
            assert x0 >= box[0] - 1
            assert y0 >= box[1] - 1
            assert x1 <= box[2] + 1
            assert y1 <= box[3] + 1
            tight = np.abs(box - [x0, y0, x1, y1]).max()
            cut = box[0] <= 0 or box[1] <= 0 or box[2] >= SIZE[1] or box[3] >= SIZE[0]
            assert tight <= 1.6 or cut, (i, box, (x0, y0, x1, y1))


def test_numbers_of_a_chain():
    """A chain with chosen parameters, computed by hand for every corner."""
    boxes = [[(10, 20, 40, 60), (100, 80, 128, 96)], [], [(0, 0, 128, 96)]]
    chain = [
        FlipX(p=1),
        Slice(10, 20, 80, 100),
        Stretch((160, 50)),
        FlipY(p=1),
        Pad(5),
    ]
    out = Augmentations(chain).process(detection(boxes))

    def by_hand(box):
        x0, y0, x1, y1 = box
        x0, x1 = 128 - x1, 128 - x0
        x0, x1, y0, y1 = (max(x0, 20) - 20, min(x1, 120) - 20, max(y0, 10) - 10, min(y1, 90) - 10)
        if x1 <= x0 or y1 <= y0:
            return None
        x0, x1, y0, y1 = x0 * 0.5, x1 * 0.5, y0 * 2, y1 * 2
        y0, y1 = 160 - y1, 160 - y0
        return [x0 + 5, y0 + 5, x1 + 5, y1 + 5]

    for i, rows in enumerate(boxes):
        expected = [found for found in map(by_hand, rows) if found is not None]
        assert np.allclose(out.boxes_of(i), np.reshape(expected, (-1, 4)), atol=1e-3)
    assert out.labels.tolist() == [0, 1, 2]


def test_rotation_by_hand():
    batch = detection([[(40, 30, 60, 50)]], (96, 96))
    out = Augmentations([Rotate((90, 90))]).process(batch)
    # Counter-clockwise about (48, 48): what was at the top goes to the left.
    assert np.allclose(out.boxes_of(0), [[30, 96 - 60, 50, 96 - 40]], atol=1e-3)


def test_dropped_boxes_take_their_labels_along():
    boxes = [[(0, 0, 10, 10), (60, 40, 80, 60)], [(100, 80, 120, 90)], [(62, 46, 66, 50)]]
    out = Augmentations([CenterCrop(20)]).process(detection(boxes))
    assert out.offsets.tolist() == [0, 1, 1, 2]
    assert out.labels.tolist() == [1, 3]
    assert out.difficult.tolist() == [False, False]
    assert out.rows_of("labels", 2).tolist() == [3]


@pytest.mark.parametrize(("least", "kept"), [(0.0, 2), (0.24, 2), (0.26, 1), (0.51, 0)])
def test_min_visible(least, kept):
    boxes = [[(0, 0, 8, 8), (0, 16, 8, 24)]]
    # A quarter of the first is left, and half of the second.
    out = Augmentations([Slice(4, 4, 40, 40, min_visible=least)]).process(detection(boxes))
    assert len(out.boxes_of(0)) == kept


def test_keypoints_follow():
    points = np.array([[[10.5, 20.5], [127.5, 0.5]], [[0.0, 0.0], [64.0, 48.0]]], np.float32)
    batch = Batch({"images": np.zeros((2, *SIZE, 3), np.uint8), "keypoints": points}, seq=0)
    out = Augmentations([FlipX(p=1), Slice(0, 28, 96, 100)]).process(batch)
    assert np.allclose(out.keypoints, [[[89.5, 20.5], [-27.5, 0.5]], [[100, 0], [36, 48]]])
    assert out.keypoints.dtype == np.float32


def test_ragged_keypoints_follow_their_sample():
    points = np.array([[[10, 20]], [[30, 40]], [[50, 60]]], np.float32)
    batch = detection([[(0, 0, 10, 10), (5, 5, 10, 10)], [(0, 0, 20, 20)]])
    batch = batch.replace(keypoints=points, ragged=(*batch.ragged, "keypoints"))
    results = (Augmentations([FlipX(0.5)], seed=seed).process(batch) for seed in range(50))
    flips = (
        (out, [bool(box[0] > 64) for box in (out.boxes_of(0)[0], out.boxes_of(1)[0])]) for out in results
    )
    out, flipped = next((out, flipped) for out, flipped in flips if flipped == [False, True])
    x = [128 - 10 if flipped[0] else 10, 128 - 30 if flipped[0] else 30, 128 - 50 if flipped[1] else 50]
    assert out.keypoints[:, 0, 0].tolist() == x


def test_what_is_not_there_of_an_image():
    masks = np.full((1, 4, 6), 7, np.uint8)
    batch = Batch({"images": np.zeros((1, 4, 6, 3), np.uint8), "masks": masks}, seq=0)
    for fill in (0, 255):
        out = Augmentations([Pad(1)], mask_fill=fill).process(batch)
        assert out.masks[0, 1:-1, 1:-1].tolist() == masks[0].tolist()
        assert (out.masks[0, 0] == fill).all()
        out = Augmentations([Letterbox((6, 6))], mask_fill=fill).process(batch)
        assert (out.masks[0, 0] == fill).all()
        assert (out.masks[0, 1:5] == 7).all()


def test_masks_keep_their_values():
    masks = np.random.default_rng(0).choice([0, 3, 200, 255], (8, *SIZE)).astype(np.uint8)
    batch = Batch({"images": np.zeros((8, *SIZE, 3), np.uint8), "masks": masks}, seq=0)
    chain = [RandomResizedCrop((64, 64)), Rotate(40), FlipX(), RandAugment()]
    out = Augmentations(chain, mask_fill=3).process(batch)
    assert set(np.unique(out.masks)) <= {0, 3, 200, 255}


def test_what_moves_nothing_leaves_them():
    batch = one_each(4)
    out = Augmentations([RandomErasing(p=1), Lambda(lambda images: images)]).process(batch)
    assert out.boxes is batch.boxes
    assert out.masks is batch.masks


class Left(Transform):
    """A user's own: moves the image to the left by one column."""

    def apply_images(self, images, params):
        return np.concatenate((images[:, :, 1:], images[:, :, :1]), axis=2)

    def apply_boxes(self, boxes, owners, params, shape):
        return boxes - np.float32([1, 0, 1, 0]), boxes[:, 0] >= 1


def test_a_transform_of_one_s_own_says_what_becomes_of_boxes():
    batch = detection([[(0, 0, 5, 5), (10, 10, 20, 20)]])
    out = Augmentations([Left()]).process(batch)
    assert out.boxes.tolist() == [[9, 10, 19, 20]]
    assert out.labels.tolist() == [1]


def test_ten_thousand_boxes_and_none():
    boxes = [[(k % 100, k % 90, k % 100 + 3, k % 90 + 3) for k in range(10_000)], []]
    out = Augmentations([FlipX(p=1), CenterCrop(80)]).process(detection(boxes))
    assert 0 < len(out.boxes_of(0)) < 10_000
    assert out.boxes_of(1).shape == (0, 4)
    empty = Augmentations([FlipX(p=1), Rotate(20)]).process(detection([[], []]))
    assert empty.boxes.shape == (0, 4)
    assert empty.offsets.tolist() == [0, 0, 0]


def test_padded_boxes_cannot_follow():
    padded = PadBoxes(3).process(one_each(4))
    with pytest.raises(ContractError, match="put PadBoxes after the Augmentations"):
        Augmentations([FlipX()]).process(padded)
    # What moves nothing does no harm.
    assert Augmentations([RandomErasing()]).process(padded).boxes is padded.boxes


class Half(Transform):
    """A user's own, that forgets to say where pixels go."""

    def apply_images(self, images, params):
        return images[:, ::2]


def test_a_new_size_without_a_word_of_the_boxes_is_refused():
    batch = one_each(2)
    with pytest.raises(ContractError, match=r"Half\.geometry, or apply_boxes"):
        Augmentations([Half()]).process(batch)
    images = Batch({"images": batch.images}, seq=0)
    assert Augmentations([Half()]).process(images).images.shape == (2, 48, 128, 3)


class Mistaken(Transform):
    def __call__(self, images):
        raise AssertionError("nobody calls this")


def test_a_transform_that_would_do_nothing_is_refused():
    with pytest.raises(ArgumentError, match=r"Mistaken\(\), overrides no method that does work"):
        Augmentations([Mistaken()])


@pytest.mark.parametrize("side", [25, 41, 43, 50, 51, 97])
def test_what_is_wholly_visible_meets_a_part_of_one(side):
    batch = detection([[(0, 0, side, 30)]], (30, side))
    out = Augmentations([Stretch((8, 224), min_visible=1.0)]).process(batch)
    assert len(out.boxes) == 1


def test_fields_of_another_form_are_refused():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    for field, array in (
        ("masks", np.zeros((2, 8, 8), np.int64)),
        ("keypoints", np.zeros((2, 5, 3), np.float32)),
        ("keypoints", np.zeros((2, 5, 2), np.int64)),
    ):
        with pytest.raises(ContractError, match=f"{field} are"):
            Augmentations([FlipX()]).process(Batch({"images": images, field: array}, seq=0))


def test_methods_of_a_subclass_are_called_wherever_it_stands():
    class Counted(Normalize):
        def apply_labels(self, labels, params):
            return labels + 100

    class Mine(FlipX):
        def apply_images(self, images, params):
            return images[:, :, ::-1].copy()

    batch = Batch({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.arange(2)}, seq=0)
    replaced = FlipX()
    replaced.apply_labels = lambda labels, params: labels + 100
    for chain in ([Counted()], [CenterCrop(4), Counted()], [replaced]):
        assert Augmentations(chain).process(batch).labels.tolist() == [100, 101]
    stage = Augmentations([Mine()])
    stage.input_handed_over = True
    assert stage.process(batch).images.shape == (2, 8, 8, 3)


def texts_beside_boxes():
    """Of each sample one box at the left and one at the right, and five tokens."""
    batch = detection([[(0, 0, 8, 8), (100, 40, 120, 60)]] * 4)
    boxes, tokens = batch.offsets, np.arange(5) * 5
    return batch.replace(
        tokens=np.arange(20), ragged={**dict.fromkeys(batch.ragged, boxes), "tokens": tokens}
    )


def test_tokens_stay_where_boxes_are_dropped():
    found = Augmentations([Slice(0, 64, 96, 64)]).process(texts_beside_boxes())
    assert found.offsets_of("boxes").tolist() == [0, 1, 2, 3, 4]
    assert found.ragged_with("boxes") == {"boxes", "labels", "difficult"}
    assert found.labels.tolist() == [1, 3, 5, 7]
    assert found.tokens.tolist() == [*range(20)]
    assert found.offsets_of("tokens").tolist() == [0, 5, 10, 15, 20]


def test_tokens_stay_with_their_samples_in_branches():
    batch = texts_beside_boxes()
    found = Augmentations([OneOf([FlipX(1), Shift((-0.5, -0.5), 0, p=1), FlipY(1)])]).process(batch)
    for i in range(4):
        assert found.rows_of("tokens", i).tolist() == batch.rows_of("tokens", i).tolist()


def test_boxes_are_padded_and_tokens_stay_ragged():
    found = PadBoxes(3).process(texts_beside_boxes())
    assert found.boxes.shape == (4, 3, 4) and found.counts.tolist() == [2] * 4
    assert found.ragged == {"tokens"} and found.rows_of("tokens", 1).tolist() == [5, 6, 7, 8, 9]
