"""What belongs to the images and has no name of its own goes with them as it is told, or is refused."""

import math

import numpy as np
import pytest
from test_annotations_follow import detection, one_each

from highway.batch import Batch
from highway.engine import Pipeline, Stage
from highway.errors import ArgumentError, ContractError, FieldError
from highway.modules import ArrayReader, Augmentations, LevelDBSink, LevelDBSource
from highway.transforms import (
    Affine,
    CenterCrop,
    CenterFit,
    ColorJitter,
    CutMix,
    FlipX,
    FlipY,
    Lambda,
    Letterbox,
    Mixup,
    Normalize,
    OneOf,
    Pad,
    Perspective,
    RandAugment,
    RandomApply,
    RandomCrop,
    RandomErasing,
    RandomResizedCrop,
    Resize,
    Rotate,
    Sequential,
    Shift,
    Slice,
    Stretch,
    Transform,
    Transpose,
    TrivialAugmentWide,
    Zoom,
)
from highway.transforms.geometry import Geometry

MOVING = [
    FlipX(),
    FlipY(1),
    Transpose(1),
    CenterCrop(31),
    CenterCrop((60, 90)),
    RandomCrop(30, padding=4),
    Slice(1, 2, 30, 20),
    Pad(3),
    Resize(24),
    CenterFit((20, 20)),
    Stretch((20, 33)),
    Letterbox((30, 30)),
    RandomResizedCrop((24, 24)),
    Rotate(30),
    Shift(0.3, 0.3),
    Zoom(),
    Affine(20, (0.1, 0.1)),
    Perspective(p=1),
    RandAugment(3),
    TrivialAugmentWide(),
    OneOf([Rotate(20), Sequential([FlipX(), Shift()])]),
    RandomApply([FlipX()]),
]
CHAINS = [
    *([one] for one in MOVING),
    [FlipX(), RandomCrop(32), Rotate(20), Affine(10), FlipY()],
    [FlipX(), RandomCrop(32), RandomResizedCrop((20, 20)), FlipY()],
    [RandomCrop(36), Pad(4), FlipX(), Normalize()],
    [ColorJitter(0.3, hue=0.2), RandAugment(), CenterCrop(50), FlipX()],
]
COUNT, HEIGHT, WIDTH = 12, 40, 48


def batch_of(**fields):
    """A batch with these fields, as a stage leaves it that writes into `fields`."""
    images = np.random.default_rng(0).integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8)
    batch = Batch({"images": images, "labels": np.arange(COUNT)}, seq=0)
    batch.fields.update(fields)
    return batch


def numbers(*shape, dtype=np.uint8):
    return np.random.default_rng(1).integers(0, 120, shape).astype(dtype)


def moved(chain, kinds, seed=3, **fields):
    return Augmentations(chain, fields=kinds, seed=seed).process(batch_of(**fields))


@pytest.mark.parametrize("chain", CHAINS, ids=repr)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float16", "float32", "float64", "int64"])
def test_a_field_that_is_a_mask_goes_as_masks_do(chain, dtype):
    masks = numbers(COUNT, HEIGHT, WIDTH)
    expected = moved(chain, None, masks=masks)
    out = moved(chain, {"depth": "mask"}, depth=masks.astype(dtype), masks=masks)
    assert out.depth.dtype == dtype
    assert np.array_equal(out.depth, out.masks)
    assert np.array_equal(out.masks, expected.masks)
    assert np.array_equal(out.images, expected.images)


@pytest.mark.parametrize("chain", CHAINS, ids=repr)
def test_channels_and_planes_are_moved_as_one_by_one(chain):
    flow = numbers(COUNT, HEIGHT, WIDTH, 2, dtype=np.float32)
    out = moved(
        chain,
        dict.fromkeys(("last", "first", "pairs"), "mask"),
        last=flow,
        first=flow.transpose(0, 3, 1, 2),
        pairs=flow[..., None].repeat(3, axis=4),
    )
    for k in range(2):
        one = moved(chain, {"depth": "mask"}, depth=flow[..., k]).depth
        assert np.array_equal(out.last[..., k], one)
        assert np.array_equal(out.first[:, k], one)
        assert np.array_equal(out.pairs[..., k, 2], one)


GEOMETRIC = [
    chain
    for chain in CHAINS
    if not any("Augment" in repr(one) or isinstance(one, Normalize) for one in chain)
]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("transform", [chain[0] for chain in GEOMETRIC if len(chain) == 1], ids=repr)
def test_a_field_that_is_an_image_goes_as_images_do(transform, dtype):
    images = batch_of().images
    out = moved(
        [transform], {"other": "image", "gray": "image"}, other=images.astype(dtype), gray=images[..., 1]
    )
    assert np.abs(out.other - out.images.astype(np.float64)).max() <= 1
    assert dtype != np.uint8 or np.array_equal(out.other, out.images)
    assert np.array_equal(out.gray, out.images[..., 1])


def test_an_image_keeps_its_colors():
    images = batch_of().images
    out = moved(
        [ColorJitter(0.5), FlipX(1), RandAugment(1, magnitude=0), Normalize()],
        {"other": "image"},
        other=images,
    )
    assert np.array_equal(out.other, images[:, :, ::-1])


@pytest.mark.parametrize("transform", MOVING, ids=repr)
@pytest.mark.parametrize(
    "shape", [(HEIGHT, WIDTH), (HEIGHT, WIDTH, 1), (2, HEIGHT, WIDTH), (HEIGHT, WIDTH, 2, 2)], ids=repr
)
def test_a_field_of_which_nothing_is_said_is_refused(transform, shape):
    field = numbers(COUNT, *shape)
    with pytest.raises(
        ContractError, match=r"the per-pixel field 'depth', uint8 of shape .*fields=\{\"depth\": \"mask\"\}"
    ):
        moved([transform], None, depth=field)
    with pytest.raises(ContractError, match="the per-pixel field 'depth'"):
        Augmentations([transform]).process(Batch(batch_of().fields, extras={"depth": field}, seq=0))
    out = moved([transform], {"depth": None}, depth=field)
    assert out.depth is field or np.array_equal(out.depth, field)


@pytest.mark.parametrize("chain", [[ColorJitter(0.3), RandomErasing()], [Normalize()], [Lambda(np.copy)]])
def test_what_moves_nothing_takes_any_field(chain):
    field = numbers(COUNT, HEIGHT, WIDTH)
    assert np.array_equal(moved(chain, None, depth=field).depth, field)


def test_fields_of_other_shapes_stay():
    scores, table, cube = numbers(COUNT), numbers(COUNT, 7), numbers(COUNT, 7, WIDTH)
    out = moved([FlipX(1), Rotate(20)], None, scores=scores, table=table, cube=cube)
    for name, array in (("scores", scores), ("table", table), ("cube", cube)):
        assert np.array_equal(out[name], array)


@pytest.mark.parametrize("mixing", [Mixup(num_classes=12), CutMix(num_classes=12)], ids=repr)
def test_what_mixes_refuses_fields_with_something_for_each_pixel(mixing):
    field = numbers(COUNT, HEIGHT, WIDTH)
    for kinds in (None, {"depth": "mask"}):
        for chain in ([mixing], [OneOf([mixing])], [Normalize(), mixing], [Normalize(layout="NHWC"), mixing]):
            with pytest.raises(
                ContractError,
                match=r"cannot mix .* field .*, uint8 .*; .* or Augmentations\(fields=\{\"depth\": None\}\) to",
            ):
                moved(chain, kinds, depth=field)
    assert np.array_equal(moved([mixing], {"depth": None}, depth=field).depth, field)


def test_a_new_size_without_a_word_of_where_pixels_go_is_refused():
    half = Lambda(lambda images: images[:, ::2])
    field = numbers(COUNT, HEIGHT, WIDTH)
    for kinds in (None, {"depth": "mask"}):
        with pytest.raises(ContractError, match=r"does not transform the depth; override Lambda\.geometry"):
            moved([half], kinds, depth=field)
    moved([half], {"depth": None}, depth=field)


class HalfTurn(Transform):
    """Of a user: colors and places."""

    def apply_images(self, images, params):
        return 255 - images[:, ::-1, ::-1]

    def geometry(self, params, shape):
        count, height, width = shape
        return Geometry(np.tile([[-1.0, 0, width], [0, -1, height], [0, 0, 1]], (count, 1, 1)), height, width)


def test_fields_go_with_a_transform_of_a_user():
    depth, other = (
        numbers(COUNT, HEIGHT, WIDTH, dtype=np.int32),
        numbers(COUNT, HEIGHT, WIDTH, 2, dtype=np.float32),
    )
    out = moved([HalfTurn()], {"depth": "mask", "other": "image"}, depth=depth, other=other)
    assert np.array_equal(out.depth, depth[:, ::-1, ::-1])
    assert np.array_equal(out.other, other[:, ::-1, ::-1])


def test_what_is_filled():
    fields = {
        "depth": numbers(COUNT, HEIGHT, WIDTH, dtype=np.float32),
        "other": numbers(COUNT, HEIGHT, WIDTH),
    }
    stage = Augmentations(
        [Pad(2, fill=(1, 2, 3)), Pad(1)], mask_fill=9, fields={"depth": "mask", "other": None}
    )
    depth = stage.process(batch_of(**fields)).depth
    assert (depth[:, :3] == 9).all() and np.array_equal(depth[:, 3:-3, 3:-3], fields["depth"])
    image = moved([Pad(2, fill=7)], {"other": "image", "depth": None}, **fields).other
    assert (image[:, :2] == 7).all()
    with pytest.raises(ArgumentError, match="fill is \\(1, 2, 3\\), for images with 1 channels"):
        moved([Pad(2, fill=(1, 2, 3))], {"other": "image", "depth": None}, **fields)
    for dtype, fill in ((np.int8, 255), (np.bool_, 2)):
        stage = Augmentations([Pad(2)], mask_fill=fill, fields={"depth": "mask"})
        with pytest.raises(ContractError, match=f"mask_fill is {fill}, which the field 'depth'"):
            stage.process(batch_of(depth=fields["depth"].astype(dtype)))


@pytest.mark.parametrize(
    ("kind", "field", "message"),
    [
        (
            "mask",
            numbers(COUNT, 20, 24),
            r"the kind 'mask' for 'depth', but the field is uint8 of shape \(12, 20, 24\), with",
        ),
        ("image", numbers(COUNT, 5), "the kind 'image' for 'depth'"),
        ("mask", numbers(3, HEIGHT, WIDTH), "one per sample"),
        (
            "image",
            numbers(COUNT, HEIGHT, WIDTH, dtype=np.int32),
            'the field is int32 .*"mask" takes any',
        ),
        ("image", numbers(COUNT, HEIGHT, WIDTH, 5, dtype=np.float32), "float32 with at most 4 channels"),
    ],
)
def test_fields_that_are_not_what_they_are_said_to_be(kind, field, message):
    with pytest.raises(ContractError, match=message):
        moved([FlipX()], {"depth": kind}, depth=field)


def test_wrong_arguments():
    with pytest.raises(FieldError, match=r"fields has 'dpeth'; expected names .* has images, labels, depth"):
        moved([ColorJitter()], {"dpeth": "mask"}, depth=numbers(COUNT, HEIGHT, WIDTH))
    for wrong, message in (
        ({"depth": "masks"}, "fields\\['depth'\\] is 'masks'; expected 'image', 'mask' or None"),
        ({"masks": "mask"}, "fields has 'masks'; expected names of fields other than images"),
        ({"images": None}, "fields has 'images'"),
        ({3: None}, "fields has 3"),
        (["depth"], "fields is \\['depth'\\]; expected kinds"),
    ):
        with pytest.raises(ArgumentError, match=message):
            Augmentations([FlipX()], fields=wrong)
    reader = ArrayReader(batch_of().images, None, 4)
    with (
        pytest.raises(FieldError, match="fields has 'depth'"),
        Pipeline([reader, Augmentations([FlipX()], fields={"depth": "mask"})]) as pipeline,
    ):
        pipeline.dequeue(timeout=60)
    assert "fields={'depth': 'mask'}" in repr(Augmentations([], fields={"depth": "mask"}))


class Kept(Stage):
    """Keeps what stands behind from being done by the source."""

    def process(self, batch):
        return batch


@pytest.mark.parametrize("where", ["arrays", "store"])
def test_sources_move_fields_as_augmentations_do(tmp_path, where):
    depth = numbers(COUNT, HEIGHT, WIDTH, dtype=np.float32)

    def arrays():
        return ArrayReader(batch_of().images, np.arange(COUNT), 4, fields={"depth": depth}, epochs=1)

    source = arrays
    if where == "store":
        pytest.importorskip(
            "plyvel", reason="plyvel is not installed; it has no wheels for Python 3.13 and later"
        )
        with Pipeline([arrays(), LevelDBSink(tmp_path / "s")]) as pipeline:
            pipeline.wait(60)

        def source():
            return LevelDBSource(tmp_path / "s", 4, epochs=1)

    def run(*between):
        stage = Augmentations([FlipX(), RandomCrop(20), Normalize()], fields={"depth": "mask"})
        with Pipeline([source(), *between, stage]) as pipeline:
            return list(pipeline)

    for ours, theirs in zip(run(), run(Kept()), strict=True):
        assert np.array_equal(ours.images, theirs.images) and np.array_equal(ours.depth, theirs.depth)
        assert ours.depth.shape == (4, 20, 20)
    with (
        pytest.raises(ContractError, match="the per-pixel field 'depth'"),
        Pipeline([source(), Augmentations([FlipX(), Normalize()])]) as pipeline,
    ):
        pipeline.dequeue(timeout=60)


# Masks, keypoints and boxes


@pytest.mark.parametrize(
    "chain", [[FlipX()], [Rotate(9)], [CenterCrop(9)], [FlipX(), RandomCrop(20), Rotate(9)]], ids=repr
)
def test_masks_that_do_not_fit_the_images_are_named(chain):
    def process(**arrays):
        return Augmentations(chain).process(batch_of(**arrays))

    with pytest.raises(ContractError, match=r"masks are uint8 of shape \(12, 20, 24\), for images of shape"):
        process(masks=numbers(COUNT, 20, 24))
    with pytest.raises(ContractError, match="expected one mask per image"):
        process(masks=numbers(COUNT - 1, HEIGHT, WIDTH))
    with pytest.raises(ContractError, match=r"expected uint8 \(N, H, W\)"):
        process(masks=numbers(COUNT, HEIGHT, WIDTH, 1))
    with pytest.raises(ContractError, match=r"expected uint8 \(N, H, W\)"):
        process(masks=numbers(COUNT, HEIGHT, WIDTH, dtype=np.int64))


def test_masks_that_are_ragged_are_named():
    batch = detection([[(0, 0, 9, 9), (3, 3, 8, 8)], [(1, 1, 5, 5)], []], (HEIGHT, WIDTH))
    for more in ({}, {"boxes": None}):
        fields = {**batch.fields, "masks": numbers(3, HEIGHT, WIDTH)} | more
        fields = {name: array for name, array in fields.items() if array is not None}
        ragged = [name for name in ("labels", "boxes", "masks") if name in fields]
        one = Batch(fields, offsets=[0, 2, 3, 3], ragged=ragged, seq=0)
        for chain in ([FlipX()], [FlipX(), Rotate(9)], [OneOf([FlipX(), FlipY()])], [Letterbox((20, 20))]):
            with pytest.raises(ContractError, match=r"masks are ragged, uint8 of shape .*one per sample"):
                Augmentations(chain).process(one)


def test_a_transform_that_spoils_masks_is_named_by_the_next():
    class Halving(Transform):
        def apply_images(self, images, params):
            return images

        def apply_masks(self, masks, params, fill):
            return masks[:, ::2]

    with pytest.raises(ContractError, match=r"masks are uint8 of shape \(12, 20, 48\), for images of shape"):
        moved([Halving(), FlipX()], None, masks=numbers(COUNT, HEIGHT, WIDTH))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda masks: [mask[: k + 1] for k, mask in enumerate(masks)], "a list"),
        (lambda masks: masks[:-1], r"uint8 of shape \(11, 40, 48\)"),
        (lambda masks: masks[..., None], r"uint8 of shape \(12, 40, 48, 1\)"),
        (lambda masks: np.array([*masks[:2, 0], None], object), r"object of shape \(3,\)"),
        (lambda masks: None, "a NoneType"),
    ],
)
def test_masks_that_a_transform_cannot_have_made_are_named(spoil, found):
    class Spoiling(Transform):
        def apply_masks(self, masks, params, fill):
            return spoil(masks)

    with pytest.raises(
        ContractError, match=rf"Spoiling\(\): apply_masks returned {found} for 12 masks; expected"
    ):
        moved([Spoiling()], None, masks=numbers(COUNT, HEIGHT, WIDTH))
    ragged = np.empty(COUNT, object)
    ragged[:] = [np.zeros((k + 1, 5), np.uint8) for k in range(COUNT)]
    with pytest.raises(ContractError, match=r"masks are object of shape \(12,\); expected uint8 \(N, H, W\)"):
        moved([FlipX()], None, masks=ragged)


def test_keypoints_of_another_number_of_samples_are_named():
    with pytest.raises(ContractError, match=r"keypoints are float32 of shape \(11, 5, 2\), for 12 samples"):
        moved([FlipX()], None, keypoints=np.zeros((COUNT - 1, 5, 2), np.float32))


@pytest.mark.parametrize(
    "chain", [[FlipX()], [RandomCrop(20)], [FlipX(), Rotate(9)], [ColorJitter(0.1)]], ids=repr
)
def test_boxes_that_end_before_they_begin_are_named(chain):
    """As x, y, width, height do, where they are further from the corner than they are long."""
    batch = detection([[(0, 0, 9, 9)], [(30, 20, 8, 9), (3, 3, 8, 8), (9, 9, 9, 9)]], (HEIGHT, WIDTH))
    message = r"box 0 of sample 1, \[30.0, 20.0, 8.0, 9.0\], has x1 < x0 or y1 < y0, like 1 of 4 boxes; .* x, y, width"
    with pytest.raises(ContractError, match=message):
        Augmentations(chain).process(batch)


@pytest.mark.parametrize("chain", [[FlipX()], [RandomCrop(20)], [Rotate(9)], [ColorJitter(0.1)]], ids=repr)
@pytest.mark.parametrize("place", range(4))
def test_boxes_that_are_no_numbers_are_named(chain, place):
    """No box is larger than one of nan: it would be left out as one that is not shown."""
    batch = detection([[(0, 0, 9, 9)], [(3, 3, 8, 8), (1, 2, 8, 9)]], (HEIGHT, WIDTH))
    batch.boxes[2, place] = math.nan
    with pytest.raises(ContractError, match=r"box 1 of sample 1, \[.*nan.*\], contains NaN"):
        Augmentations(chain).process(batch)


def test_boxes_with_more_columns_are_named():
    batch = one_each(3)
    scored = batch.replace(boxes=np.concatenate((batch.boxes, np.ones((3, 1), np.float32)), axis=1))
    with pytest.raises(
        ContractError, match=r"boxes are float32 of shape \(3, 5\); expected float32 \(total, 4\)"
    ):
        Augmentations([FlipX()]).process(scored)
