"""Placement: the way from the picture to the image, and back, through reader, transforms and machines."""

import numpy as np
import pytest
from pictures import jpeg_bytes, photograph
from PIL import Image, ImageOps
from voc_folders import annotation, only_batch, thing, voc_folder

from highway.batch import Batch
from highway.engine import Pipeline, Stage
from highway.errors import ArgumentError, ContractError, FieldError
from highway.modules import Augmentations, ListReader, PadBoxes, VOCReader, ZMQSink, ZMQSource
from highway.transforms import (
    Affine,
    CenterCrop,
    CenterFit,
    ColorJitter,
    FlipX,
    FlipY,
    GaussianBlur,
    Lambda,
    Letterbox,
    Normalize,
    OneOf,
    Pad,
    Perspective,
    RandAugment,
    RandomApply,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    Rotate,
    Sequential,
    Shift,
    SomeOf,
    Stretch,
    Transform,
    Transpose,
    TrivialAugmentWide,
    Zoom,
)
from highway.transforms.wrappers import Wrapper

SIZES = [(60, 80), (80, 60), (51, 97), (64, 64), (30, 100)]
BOXES = [
    [(30, 20, 44, 29), (32.5, 22.25, 35, 28)],
    [(25, 35, 33, 45)],
    [],
    [(20, 20, 40, 44)],
    [(45, 8, 55, 21)],
]


class Pass(Stage):
    """Nothing, so that no reader does what is behind it."""

    def process(self, batch):
        return batch


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    found = []
    for number, size in enumerate(SIZES):
        found.append(folder / f"{number}.jpg")
        found[-1].write_bytes(jpeg_bytes(photograph(*size, number)))
    return found


def reader_of(paths, shape=(70, 90), boxes=BOXES, **options):
    return ListReader(
        paths, None, 5, shape, **{"boxes": boxes, "placement": True, "epochs": 1, "shuffle": False, **options}
    )


def forward(matrix, boxes):
    """Upright boxes around boxes (n, 4) of the picture, in the image."""
    found = []
    for x0, y0, x1, y1 in boxes:
        corners = np.array([(x0, y0, 1), (x1, y0, 1), (x1, y1, 1), (x0, y1, 1)]) @ matrix.T
        corners = corners[:, :2] / corners[:, 2:]
        found.append((*corners.min(axis=0), *corners.max(axis=0)))
    return np.array(found, np.float64).reshape(-1, 4)


FITS = [Letterbox(), Stretch(), CenterFit(), RandomResizedCrop(scale=(0.8, 1))]
CHAINS = {
    "nothing": [],
    "flips": [FlipX(), FlipY()],
    "fit": [FlipX(), Letterbox((99, 64)), FlipY()],
    "resize": [Resize((31, 47)), ColorJitter(0.2), FlipX(1), Pad((3, 5, 7, 11)), Normalize()],
    "crops": [Pad(8), RandomCrop((80, 100)), FlipX(), GaussianBlur(3), Normalize()],
    "fit and crop": [CenterCrop((66, 86)), CenterFit((40, 50)), FlipX(1)],
    "transposed": [Stretch((64, 64)), Transpose(1), Shift(0.02, 0.02)],
    "chosen": [RandomApply([FlipX(1)]), OneOf([FlipY(1), Zoom((0.9, 0.9)), Shift(0.03, 0.03)])],
}


class MirroredLetterbox(Letterbox):
    """Mirrors every image left to right, after it is placed."""

    def place(self, rng, heights, widths, size):
        return super().place(rng, heights, widths, size)._replace(mirrored=np.array([[True, False]]))


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("before", [[], [Pass]], ids=["fused", "apart"])
def test_a_fit_that_mirrors_is_a_flip_after_it(tmp_path, kind, before):
    paths = [tmp_path / f"{number}.{kind}" for number in range(len(SIZES))]
    for number, size in enumerate(SIZES):
        photograph(*size, number).save(paths[number])

    def made(fit, *chain):
        stages = [stage() for stage in before] if chain else []
        return only_batch(reader_of(paths, fit=fit), *stages, Augmentations(chain, seed=3))

    for batch, expected in (
        (made(MirroredLetterbox()), made(Letterbox(), FlipX(1))),
        (made(MirroredLetterbox(), FlipX(1)), made(Letterbox())),
    ):
        np.testing.assert_array_equal(batch.images, expected.images)
        np.testing.assert_allclose(batch.boxes, expected.boxes, atol=1e-4)
        np.testing.assert_allclose(batch.placement, expected.placement, atol=1e-9)


@pytest.mark.parametrize("fit", FITS, ids=lambda fit: type(fit).__name__)
@pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
@pytest.mark.parametrize("between", [[], [Pass]], ids=["", "apart"])
def test_it_agrees_with_the_boxes_there_and_back(paths, fit, chain, between):
    batch = only_batch(
        reader_of(paths, fit=fit), *(stage() for stage in between), Augmentations(chain, seed=3)
    )
    height, width = (
        batch.images.shape[2:] if isinstance((chain or [0])[-1], Normalize) else batch.images.shape[1:3]
    )
    assert batch.placement.dtype == np.float64 and batch.placement.shape == (5, 3, 3)
    assert batch.picture_sizes.tolist() == [list(size) for size in SIZES]
    whole = 0
    for i, of_picture in enumerate(BOXES):
        expected = forward(batch.placement[i], of_picture)
        inside = (expected >= 0).all() and (expected <= (width, height, width, height)).all()
        if inside:
            whole += len(of_picture)
            np.testing.assert_allclose(batch.boxes_of(i), expected, atol=1e-3)
            np.testing.assert_allclose(
                batch.boxes_in_picture(i), np.array(of_picture).reshape(-1, 4), atol=1e-3
            )
    assert whole >= 3


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_rotation_makes_boxes_around_boxes(paths, deterministic):
    chain = [FlipX(1), Rotate((20, 20)), ColorJitter(0.3)]
    batch = only_batch(
        reader_of(paths, fit=Letterbox()), Augmentations(chain, deterministic=deterministic, seed=3)
    )
    for i, of_picture in enumerate(BOXES):
        expected = forward(batch.placement[i], of_picture)
        np.testing.assert_allclose(batch.boxes_of(i), expected, atol=1e-3)
        around = batch.boxes_in_picture(i)
        for box, (x0, y0, x1, y1) in zip(around, of_picture, strict=True):
            if deterministic:
                np.testing.assert_allclose(box, (x0, y0, x1, y1), atol=1e-3)
            else:
                assert box[0] < x0 and box[1] < y0 and box[2] > x1 and box[3] > y1


class WithPoints(Stage):
    """Keypoints, which are never clipped, where the placement says that points of the picture are."""

    points = np.array([(0, 0), (10, 3), (25.5, 40), (90, 7)], np.float64)

    def process(self, batch):
        found = [moved(matrix, self.points) for matrix in batch.placement]
        return batch.replace(keypoints=np.array(found).reshape(batch.size, -1, 2))


def moved(matrix, points):
    homogeneous = np.concatenate((points, np.ones((len(points), 1))), axis=1) @ matrix.T
    return homogeneous[:, :2] / homogeneous[:, 2:]


@pytest.mark.parametrize(
    "chain",
    [
        [Rotate(30), FlipX(), Affine(20, (0.1, 0.2), (0.7, 1.2), 10), RandomCrop(50), Perspective(p=1)],
        [RandAugment(3), TrivialAugmentWide(), Resize((33, 44)), Normalize()],
        [SomeOf([Rotate(30), FlipX(1), FlipY(1), Zoom()], (0, 4)), RandomApply([Rotate(9), Shift()], 0.5)],
        [Sequential([RandomResizedCrop((40, 40)), OneOf([Rotate(90), FlipX(1), ColorJitter(0.5)])])],
    ],
    ids=["warps", "policies", "some", "sequential"],
)
def test_it_goes_where_the_keypoints_go(paths, chain):
    batch = only_batch(reader_of(paths, fit=RandomResizedCrop()), WithPoints(), Augmentations(chain, seed=5))
    assert not np.allclose(batch.placement[0], batch.placement[1])
    for matrix, found in zip(batch.placement, batch.keypoints, strict=True):
        np.testing.assert_allclose(moved(matrix, WithPoints.points), found, atol=1e-6)


@pytest.mark.parametrize("exif", [True, False])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_of_the_upright_picture(tmp_path, orientation, exif):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_bytes(photograph(60, 80), orientation=orientation))
    stored = (10, 20, 40, 33)
    shown = Image.new("L", (80, 60))
    shown.paste(255, stored)
    tag = shown.getexif()
    tag[0x0112] = orientation
    upright = ImageOps.exif_transpose(shown) if exif else shown
    reader = reader_of([path], boxes=[[stored]], fit=Letterbox(), exif=exif)
    batch = only_batch(reader, Augmentations([FlipX(1)]))
    assert batch.picture_sizes.tolist() == [[upright.height, upright.width]]
    np.testing.assert_allclose(batch.boxes_in_picture(0), [upright.getbbox()], atol=1e-3)
    np.testing.assert_allclose(batch.boxes, forward(batch.placement[0], [upright.getbbox()]), atol=1e-3)


def test_boxes_that_a_network_found_are_clipped_to_the_picture(paths):
    # 60 x 80 in 100 x 100: scaled by 1.25, 12 and 13 rows above and below.
    batch = only_batch(reader_of(paths[:1], (100, 100), boxes=None, fit=Letterbox()))
    assert list(batch) == [batch.images] and batch.extras.keys() == {"placement", "picture_sizes"}
    assert batch.placement[0].tolist() == [[1.25, 0, 0], [0, 1.25, 12], [0, 0, 1]]
    found = batch.boxes_in_picture(0, [(12.5, 24.5, 25, 37), (-5, 0, 200, 13.25)])
    assert found.dtype == np.float32
    assert found.tolist() == [[10, 10, 20, 20], [0, 0, 80, 1]]
    assert batch.boxes_in_picture(0, []).shape == batch.boxes_in_picture(-1, np.zeros((0, 4))).shape == (0, 4)
    with pytest.raises(ArgumentError, match=r"boxes have shape \(4,\); expected \(n, 4\)"):
        batch.boxes_in_picture(0, [1, 2, 3, 4])
    with pytest.raises(FieldError, match="no field 'boxes'"):
        batch.boxes_in_picture(0)


def test_a_picture_that_is_left_out_or_replaced(paths, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no")
    mixed = [paths[0], bad, *paths[1:]]
    boxes = [BOXES[0], [], *BOXES[1:]]
    sizes = np.array([SIZES[0], (0, 0), *SIZES[1:]])
    for on_error, count in (("skip", 5), ("replace", 6)):
        options = {"on_error": on_error, "shuffle": True, "fit": Stretch()}
        batch = only_batch(
            ListReader(mixed, None, 6, (70, 90), boxes=boxes, placement=True, epochs=1, **options)
        )
        assert batch.size == count and batch.picture_sizes.tolist() == sizes[batch.indices].tolist()
        for i, index in enumerate(batch.indices):
            np.testing.assert_allclose(
                batch.boxes_in_picture(i), np.array(boxes[index]).reshape(-1, 4), atol=1e-3
            )


def test_voc_through_a_hop_and_padding(tmp_path):
    folder = voc_folder(
        tmp_path, {"a": annotation(thing(), thing(box=(5, 6, 70, 60))), "b": annotation(thing())}
    )
    reader = VOCReader(folder, 2, (64, 64), epochs=1, shuffle=False, placement=True)
    data = Pipeline([reader, ZMQSink("inproc://placed")])
    try:
        batch = only_batch(
            ZMQSource("inproc://placed", ordered=True), Augmentations([FlipX(1), Normalize()]), PadBoxes(3)
        )
        data.wait(30)
    finally:
        data.stop()
    assert {"difficult", "truncated", "placement", "picture_sizes"} == batch.extras.keys()
    np.testing.assert_allclose(
        batch.boxes_in_picture(0, batch.boxes[0, : batch.counts[0]]),
        [(10, 20, 30, 50), (4, 5, 70, 60)],
        atol=1e-3,
    )
    np.testing.assert_allclose(batch.take([1]).boxes_in_picture(0)[:1], [(10, 20, 30, 50)], atol=1e-3)
    batch.sheet(tmp_path / "sheet.png", normalize=Normalize())


def test_without_it_there_is_none(paths):
    batch = only_batch(reader_of(paths, placement=False))
    assert not batch.extras
    with pytest.raises(FieldError, match=r"does not know its pictures; .*placement=True"):
        batch.boxes_in_picture(0)
    with pytest.raises(ArgumentError, match="ListReader: placement is of type int"):
        reader_of(paths, placement=1)


class Sideways(Transform):
    """Moves boxes, and says of nothing else where it goes."""

    def apply_images(self, images, params):
        return np.roll(images, 3, axis=2)

    def apply_boxes(self, boxes, owners, params, shape):
        return boxes + np.float32(3), None


class Foreign(Wrapper):
    """Another library's."""


@pytest.mark.parametrize(
    ("transform", "error", "says"),
    [
        (
            Sideways(),
            ContractError,
            "Sideways.* overrides apply_boxes but not geometry, .*override Sideways.geometry",
        ),
        (Lambda(lambda images: images[:, ::2]), ContractError, "does not transform the (boxes|placement)"),
        (Foreign(abs), ArgumentError, "Foreign: the batch has a placement"),
    ],
)
@pytest.mark.parametrize("boxes", [BOXES, None], ids=["boxes", "alone"])
def test_what_does_not_say_where_pixels_go_is_refused(paths, transform, error, says, boxes):
    batch = only_batch(reader_of(paths, boxes=boxes))
    with pytest.raises(error, match=says):
        Augmentations([transform]).process(batch)


def test_a_field_of_that_name_must_be_one():
    batch = Batch({"images": np.zeros((2, 8, 8, 3), np.uint8), "placement": np.zeros((2, 2, 3))})
    with pytest.raises(
        ContractError, match=r"placement is float64 of shape \(2, 2, 3\); expected .*\(N, 3, 3\)"
    ):
        Augmentations([FlipX()]).process(batch)
