"""Contact sheets: every image in its place with what is known about it, and what cannot be drawn is refused."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageFont

from highway.batch import Batch
from highway.errors import ArgumentError, MissingPackageError
from highway.modules import PadBoxes
from highway.transforms import Normalize
from highway.viz.contact_sheet import contact_sheet
from highway.viz.drawing import class_color, overlay_mask, voc_palette


def plain(colors, height=100, width=120, **more):
    """A batch of images of one color each."""
    images = np.zeros((len(colors), height, width, 3), np.uint8) + np.array(colors, np.uint8)[:, None, None]
    return Batch({"images": images, **more})


COLORS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]


def places(sheet, color):
    """Rows and columns between which pixels of a color lie, and how many there are."""
    found = np.argwhere((np.asarray(sheet) == color).all(axis=2))
    (top, left), (bottom, right) = found.min(axis=0), found.max(axis=0)
    return top, left, bottom + 1 - top, right + 1 - left, len(found)


@pytest.mark.parametrize("classes", [3, "ab", {"cat": 0}])
def test_classes_are_names(classes):
    with pytest.raises(
        ArgumentError, match=r"contact sheet: classes is .*; expected names, such as reader.classes"
    ):
        Batch({"images": np.zeros((1, 8, 8, 3), np.uint8), "labels": np.zeros(1, np.int64)}).sheet(
            classes=classes
        )


def test_every_image_is_shown_whole_and_in_reading_order():
    sheet = contact_sheet(plain(COLORS), columns=2)
    corners = []
    for color in COLORS:
        top, left, height, width, count = places(sheet, color)
        assert (height, width, count) == (100, 120, 100 * 120)
        corners.append((top, left))
    assert corners == sorted(corners)
    assert len({top for top, _ in corners}) == 3
    assert len({left for _, left in corners}) == 2


def ink(sheet):
    """Whether anything is written: dark pixels that no image has."""
    return (np.asarray(sheet).max(axis=2) < 100).sum()


def test_labels_and_keys_stand_below_the_images():
    bare = Batch({"images": np.full((2, 100, 120, 3), 255, np.uint8)}, keys=["", ""])
    named = bare.replace(labels=np.array([0, 1]))
    assert ink(contact_sheet(bare)) == 0
    dark = np.argwhere(np.asarray(contact_sheet(named, ["mouse", "horse"])).max(axis=2) < 100)
    assert len(dark)
    assert dark[:, 0].min() > 100
    assert ink(contact_sheet(bare, title="What this is")) > 0


@pytest.mark.parametrize(
    ("labels", "classes", "same_as"),
    [
        (np.eye(3, dtype=np.float32)[[2]], ["a", "b", "other"], ["other"]),
        (np.array([7]), ["a", "b"], ["7"]),
        (np.array([7]), None, ["7"]),
        (np.array([-1]), ["a", "b"], ["-1"]),
    ],
)
def test_caption_is_the_name_of_the_class_or_else_its_number(labels, classes, same_as):
    sheet = contact_sheet(plain(COLORS[:1], labels=labels), classes)
    assert sheet.tobytes() == contact_sheet(plain(COLORS[:1], labels=np.array([0])), same_as).tobytes()


def test_large_images_are_reduced_and_small_ones_enlarged_by_whole_factors():
    wide = contact_sheet(plain(COLORS[:1], height=300, width=1200))
    assert places(wide, COLORS[0])[2:4] == (80, 320)
    small = plain(COLORS[:1], height=20, width=32)
    small.images[0, 3, 5] = (255, 0, 255)
    sheet = contact_sheet(small)
    assert sheet.width >= 5 * 32
    assert places(sheet, (255, 0, 255))[2:] == (5, 5, 25)


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 3), (1, 1, 5000, 3), (1, 5000, 1, 1), (3, 7, 9, 1), (40, 30, 40, 3)]
)
def test_any_shape_gives_a_sheet(shape):
    sheet = contact_sheet(Batch({"images": np.full(shape, 7, np.uint8)}))
    assert (np.asarray(sheet) == 7).all(axis=2).any()
    assert max(sheet.size) < 2500


@pytest.mark.parametrize("name", ["猫", "x" * 500, "not UTF-8: \udcff", "two\nlines", ""])
def test_any_name_can_be_written(name):
    batch = Batch({"images": np.full((1, 40, 40, 3), 7, np.uint8), "labels": np.array([0])}, keys=[name])
    width = contact_sheet(batch, ["short"]).width
    assert contact_sheet(batch, [name], title=name).width == width


@pytest.mark.parametrize("name", ["cat", "猫", "not UTF-8: \udcff", "x" * 500])
def test_pil_without_freetype_writes_with_its_small_font(monkeypatch, name):
    small = ImageFont.load_default_imagefont()
    asked = []

    def load_default(size=None):
        asked.append(size)
        if size is not None:
            raise ImportError("The _imagingft C module is not installed")
        return small

    monkeypatch.setattr(ImageFont, "load_default", load_default)
    batch = Batch({"images": np.full((1, 40, 40, 3), 255, np.uint8), "labels": np.array([0])}, keys=[name])
    assert ink(contact_sheet(batch, [name], title=name)) > 0
    assert None in asked


def test_sheet_is_written_and_read_back(tmp_path):
    path = tmp_path / "sheet.png"
    batch = plain(COLORS)
    batch.sheet(path, columns=5)
    with Image.open(path) as back:
        assert back.format == "PNG"
        assert np.array_equal(np.asarray(back), np.asarray(contact_sheet(batch, columns=5)))


@pytest.mark.parametrize("name", ["sheet", "sheet.xyz"])
def test_name_of_the_file_must_say_its_format(tmp_path, name):
    with pytest.raises(ArgumentError, match=r"sheet.*use \.png"):
        plain(COLORS).sheet(tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((2, 4, 8, 8), np.float32),
        np.zeros((2, 8, 8, 3), np.float64),
        np.full((2, 8, 8, 3), -0.01, np.float32),
        np.full((2, 3, 8, 8), 1.01, np.float32),
        np.full((2, 3, 8, 8), np.nan, np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((2, 0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_refused(images):
    with pytest.raises(ArgumentError, match="contact sheet: images"):
        contact_sheet(Batch({"images": images}))


def test_columns_must_be_a_number_of_images():
    with pytest.raises(ArgumentError, match="columns is 0"):
        contact_sheet(plain(COLORS), columns=0)


def test_missing_pil_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingPackageError, match="pip install Pillow-SIMD"):
        contact_sheet(plain(COLORS))


# Images of real numbers


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("channels", [1, 3])
def test_real_numbers_from_0_to_1_are_shown_as_they_are(dtype, channels):
    images = np.random.default_rng(0).integers(0, 256, (2, 50, 60, channels), np.uint8)
    expected = contact_sheet(Batch({"images": images})).tobytes()
    real = (images / 255).astype(dtype)
    assert contact_sheet(Batch({"images": real})).tobytes() == expected
    assert contact_sheet(Batch({"images": real.transpose(0, 3, 1, 2)})).tobytes() == expected


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("mean", [(0.485, 0.456, 0.406), 0.5])
def test_normalize_is_undone(layout, mean):
    images = np.random.default_rng(0).integers(0, 256, (2, 50, 60, 3), np.uint8)
    normalize = Normalize(mean, layout=layout)
    batch = Batch({"images": normalize.apply_images(images, None)})
    expected = contact_sheet(Batch({"images": images})).tobytes()
    assert contact_sheet(batch, normalize=normalize).tobytes() == expected
    with pytest.raises(ArgumentError, match="set normalize="):
        contact_sheet(batch)
    # Bytes have not been through it.
    assert contact_sheet(Batch({"images": images}), normalize=normalize).tobytes() == expected


def test_normalize_of_other_images_is_refused():
    batch = Batch({"images": np.zeros((1, 1, 8, 8), np.float32)})
    with pytest.raises(ArgumentError, match="1 channels"):
        contact_sheet(batch, normalize=Normalize())


# Boxes


def detection(boxes, labels, *, height=100, width=120, difficult=None, ground=7, counts=None):
    """A batch of plain images with boxes; all in the first image unless `counts` says otherwise."""
    counts = [len(boxes)] if counts is None else counts
    extras = {} if difficult is None else {"difficult": np.array(difficult)}
    return Batch(
        {
            "images": np.full((len(counts), height, width, 3), ground, np.uint8),
            "labels": np.array(labels, np.int64),
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        },
        offsets=np.cumsum([0, *counts]),
        ragged=("labels", "boxes", *extras),
        extras=extras,
    )


def tile_of(sheet, height, width, nth=0):
    """The pixels of an image of a sheet in one row whose tiles are no narrower than captions."""
    left = 16 + nth * (width + 16)
    return np.asarray(sheet)[16 : 16 + height, left : left + width]


def lines(tile, label):
    """First and last row and column, in which lines of a class are longest; names are narrower."""
    found = (tile == class_color(label)).all(axis=2)
    rows = np.flatnonzero(found.sum(axis=1) > 0.8 * found.sum(axis=1).max())
    columns = np.flatnonzero(found.sum(axis=0) > 0.8 * found.sum(axis=0).max())
    return rows[0], rows[-1], columns[0], columns[-1]


@pytest.mark.parametrize(
    ("size", "drawn"),
    [((100, 120), (100, 120)), ((50, 60), (100, 120)), ((600, 800), (240, 320)), ((600, 400), (320, 213))],
)
def test_boxes_go_with_the_image_when_it_is_reduced_or_enlarged(size, drawn):
    height, width = size
    box = (0.25 * width, 0.3 * height, 0.75 * width, 0.9 * height)
    sheet = contact_sheet(detection([box], [1], height=height, width=width))
    top, bottom, left, right = lines(tile_of(sheet, *drawn), 1)
    assert abs(left - 0.25 * drawn[1]) <= 0.5
    assert abs(top - 0.3 * drawn[0]) <= 0.5
    assert abs(right + 1 - 0.75 * drawn[1]) <= 0.5
    assert abs(bottom + 1 - 0.9 * drawn[0]) <= 0.5


def test_a_box_is_drawn_within_the_pixels_that_it_covers():
    tile = tile_of(contact_sheet(detection([(20, 30, 100, 90)], [0])), 100, 120)
    color = class_color(0)
    for row in (30, 31, 88, 89):
        assert (tile[row, 20:100] == color).all()
    for column in (20, 21, 98, 99):
        assert (tile[30:90, column] == color).all()
    assert (tile[33:87, 23:97] == 7).all()
    # A light line on both sides tells it from a ground of its color.
    assert (tile[90, 19:101] > 100).all()
    assert (tile[87, 22:98] > 100).all()


def test_the_name_of_a_box_stays_inside_of_the_image():
    boxes = [(100, 2, 120, 60), (0, 0, 120, 100), (-30, 60, 30, 130), (2, 98, 30, 100)]
    for box in boxes:
        batch = detection([box], [2])
        outside = np.ones((1, 1), np.bool_)
        named = np.asarray(contact_sheet(batch, ["", "", "bicycle"]))
        silent = np.asarray(contact_sheet(batch, ["", "", ""]))
        differing = (named != silent).any(axis=2)
        tile = tile_of(differing[..., None], 100, 120)
        assert tile.sum() >= 14 * 30, box
        outside = differing[:, :136].sum() - differing[16:116, 16:136].sum()
        assert differing[116:].any()  # the caption
        assert outside == differing[116:, :136].sum()


def test_names_that_would_cover_each_other_are_left_out():
    one = contact_sheet(detection([(10, 20, 60, 50)], [0]), ["person"])
    many = contact_sheet(detection([(10, 20, 60, 50)] * 20, [0] * 20), ["person"])
    badges = [(tile_of(sheet, 100, 120) == class_color(0)).all(axis=2).sum() for sheet in (one, many)]
    # There is room for a few beside the box, and no more.
    assert badges[0] < badges[1] < 4 * badges[0]


def test_difficult_boxes_are_dashed():
    boxes = [(10, 20, 110, 90)]
    solid, dashed = (
        (
            tile_of(contact_sheet(detection(boxes, [0], difficult=[value]), [""]), 100, 120) == class_color(0)
        ).all(axis=2)[20, 10:110]
        for value in (False, True)
    )
    assert solid.all()
    assert 0.4 < dashed.mean() < 0.7


@pytest.mark.parametrize("ground", [0, 90, 255])
@pytest.mark.parametrize("label", range(12))
def test_lines_are_legible_on_any_ground(ground, label):
    """The line, or the lighter one beside it, differs clearly from the image in brightness."""
    tile = tile_of(contact_sheet(detection([(20, 30, 100, 90)], [label], ground=ground), [""] * 12), 100, 120)
    brightness = tile[:, 60].astype(int) @ [299, 587, 114] // 1000
    assert abs(brightness[29:34] - ground).max() > 60


@pytest.mark.parametrize(
    ("labels", "counts", "captions"),
    [
        ([1, 0, 0, 0], [4], ["3 RBC, 1 WBC"]),
        ([2, 1, 0], [1, 2], ["1 Platelets", "1 RBC, 1 WBC"]),
        ([7], [1], ["1 7"]),
        ([], [0], ["no boxes"]),
    ],
)
def test_caption_counts_what_the_boxes_hold(labels, counts, captions):
    boxes = [(-9, -9, -5, -5)] * len(labels)
    names = ["RBC", "WBC", "Platelets"]
    batch = detection(boxes, labels, counts=counts, width=200)
    bare = Batch({"images": batch.images, "labels": np.arange(len(counts))})
    sheet, expected = (
        np.asarray(contact_sheet(one, classes))[116:] for one, classes in ((batch, names), (bare, captions))
    )
    assert np.array_equal(sheet, expected)


def test_soft_labels_are_told_in_parts():
    soft = plain(COLORS[:1], width=300, labels=np.array([[0.3, 0, 0.7]], np.float32))
    hard = plain(COLORS[:1], width=300, labels=np.array([0]))
    assert contact_sheet(soft, ["a", "b", "c"]).tobytes() == contact_sheet(hard, ["70% c, 30% a"]).tobytes()


@pytest.mark.parametrize(
    "box", [(np.nan, 0, 5, 5), (0, 0, 0, 0), (50, 50, 40, 40), (-1e9, -1e9, 1e9, 1e9), (500, 500, 900, 900)]
)
def test_any_box_can_be_drawn(box):
    sheet = contact_sheet(detection([box], [0]), ["person"])
    assert (tile_of(sheet, 100, 120)[50:60, 80:90] == 7).all()


def test_images_of_a_pixel_have_no_room_for_names():
    sheet = contact_sheet(detection([(0, 0, 1, 1)], [0], height=1, width=4), ["person"])
    assert sheet.width < 300


# Masks


def definition_of_the_voc_palette(index):
    """As VOC's devkit has it (VOClabelcolormap): bit by bit."""
    red = green = blue = 0
    for place in range(8):
        red |= (index & 1) << (7 - place)
        green |= (index >> 1 & 1) << (7 - place)
        blue |= (index >> 2 & 1) << (7 - place)
        index >>= 3
    return red, green, blue


def test_palette_is_that_of_voc():
    palette = voc_palette()
    assert [tuple(color) for color in palette.tolist()] == [
        definition_of_the_voc_palette(index) for index in range(256)
    ]
    # What every picture of VOC's classes shows: background, aeroplane, person, tv monitor, void.
    known = {0: (0, 0, 0), 1: (128, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert {index: tuple(palette[index].tolist()) for index in known} == known


def test_masks_are_half_transparent_and_background_is_the_image():
    batch = plain([(200, 100, 50)])
    mask = np.zeros((1, 100, 120), np.uint8)
    mask[0, 20:60, 30:90] = 15
    tile = tile_of(contact_sheet(batch.replace(masks=mask)), 100, 120)
    assert (tile[21:59, 31:89] == (196, 114, 89)).all()
    assert (tile[20, 30:90] == (192, 128, 128)).all()
    inside = np.zeros((100, 120), np.bool_)
    inside[20:60, 30:90] = True
    assert (tile[~inside] == (200, 100, 50)).all()


def test_void_is_hatched():
    image = Image.new("RGB", (40, 40), (0, 0, 0))
    drawn = np.asarray(overlay_mask(image, np.full((40, 40), 255, np.uint8)))
    gray = (drawn == 159).all(axis=2)
    assert gray.mean() == 0.25
    assert (drawn[~gray] == 0).all()


def test_masks_go_with_the_image_when_it_is_reduced_or_enlarged():
    for size, drawn in (((50, 60), (100, 120)), ((600, 800), (240, 320))):
        batch = plain([(0, 0, 0)], *size)
        mask = np.zeros((1, *size), np.uint8)
        mask[0, : size[0] // 2] = 4
        tile = tile_of(contact_sheet(batch.replace(masks=mask)), *drawn)
        assert (tile[: drawn[0] // 2, :, 2] >= 64).all()
        assert (tile[drawn[0] // 2 :] == 0).all()


# Keypoints


def test_keypoints_are_crosses_at_their_places():
    points = np.array([[[30.5, 40.5], [90.0, 70.0], [np.nan, 5]]], np.float32)
    batch = Batch({"images": np.full((1, 100, 120, 3), 7, np.uint8), "keypoints": points})
    tile = tile_of(contact_sheet(batch), 100, 120)
    for k, (x, y) in enumerate([(30, 40), (90, 70)]):
        cross = np.argwhere((tile == class_color(k)).all(axis=2))
        assert cross.mean(axis=0).tolist() == [y, x]
        assert len(cross) == 13
    assert not (tile == class_color(2)).all(axis=2).any()


def test_keypoints_of_objects_go_with_the_image():
    points = np.array([[[30, 40]], [[90, 70]], [[10, 10]]], np.float32)
    batch = Batch(
        {"images": np.full((2, 480, 640, 3), 7, np.uint8), "keypoints": points * 4},
        offsets=[0, 2, 3],
        ragged=("keypoints",),
    )
    sheet = contact_sheet(batch, columns=2)
    for nth, expected in enumerate([[(60, 80), (180, 140)], [(20, 20)]]):
        tile = tile_of(sheet, 240, 320, nth)
        color = (tile == class_color(0)).all(axis=2)
        for x, y in expected:
            assert color[y, x - 3 : x + 4].all()
        assert color.sum() == 13 * len(expected)


@pytest.mark.parametrize(
    ("field", "array"),
    [
        ("masks", np.zeros((1, 100, 119), np.uint8)),
        ("masks", np.zeros((1, 100, 120), np.int64)),
        ("boxes", np.zeros((1, 5), np.float32)),
        ("keypoints", np.zeros((1, 4, 3), np.float32)),
    ],
)
def test_what_does_not_belong_to_the_images_is_refused(field, array):
    with pytest.raises(ArgumentError, match=f"contact sheet: {field} "):
        contact_sheet(plain(COLORS[:1], **{field: array}))


# The original beside it


def test_originals_are_drawn_to_the_left_of_what_became_of_them():
    batch = Batch({"images": plain(COLORS).images}, keys=list("abcde"))
    original = batch.replace(images=np.full((5, 200, 300, 3), 250, np.uint8) - batch.images[:, :1, :1])
    sheet = contact_sheet(batch, original=original, columns=2)
    for color in COLORS:
        top, left, height, width, _ = places(sheet, color)
        assert (height, width) == (100, 120)
        before = places(sheet, tuple(250 - value for value in color))
        assert before[:4] == (top, left - 304, 200, 300)


def test_originals_have_boxes_of_their_own():
    batch = detection([(20, 30, 60, 90)], [0])
    original = batch.replace(boxes=np.array([(60, 30, 100, 90)], np.float32))
    sheet = np.asarray(contact_sheet(batch, [""], original=original))
    assert lines(sheet[16:116, 16:136], 0)[2:] == (60, 99)
    assert lines(sheet[16:116, 140:260], 0)[2:] == (20, 59)


def test_originals_may_be_bytes_where_the_batch_is_normalized():
    images = np.random.default_rng(0).integers(0, 256, (2, 50, 60, 3), np.uint8)
    normalize = Normalize()
    original = Batch({"images": images})
    batch = original.replace(images=normalize.apply_images(images, None))
    expected = contact_sheet(original, original=original).tobytes()
    assert contact_sheet(batch, original=original, normalize=normalize).tobytes() == expected


@pytest.mark.parametrize("more", [{"keys": ["a", "c"]}, {"indices": [0, 2]}])
def test_originals_of_other_samples_are_refused(more):
    images = plain(COLORS[:2]).images
    batch = Batch({"images": images}, keys=["a", "b"] if "keys" in more else None)
    with pytest.raises(ArgumentError, match="original has other samples"):
        contact_sheet(batch, original=Batch({"images": images}, **more))


# Batch.sheet


def test_a_batch_draws_itself(tmp_path):
    batch = plain(COLORS, labels=np.arange(5))
    expected = contact_sheet(batch, list("abcde"), columns=3, title="Five")
    assert batch.sheet(classes=list("abcde"), columns=3, title="Five").tobytes() == expected.tobytes()
    path = tmp_path / "sheet.png"
    drawn = batch.sheet(path, classes=list("abcde"), columns=3, title="Five")
    assert drawn.tobytes() == expected.tobytes()
    with Image.open(path) as back:
        assert back.tobytes() == expected.tobytes()
    with pytest.raises(ArgumentError, match=r"use \.png"):
        batch.sheet(tmp_path / "sheet")


def test_padded_boxes_are_drawn_as_ragged_ones():
    boxes = np.array([[10, 10, 40, 30], [50, 20, 90, 80], [5, 5, 60, 60]], np.float32)
    ragged = Batch(
        {"images": np.full((2, 100, 100, 3), 90, np.uint8), "labels": np.array([0, 2, 1]), "boxes": boxes},
        seq=0,
        offsets=[0, 2, 3],
        ragged=("labels", "boxes", "difficult"),
        extras={"difficult": np.array([True, False, False])},
    )
    padded = PadBoxes(5).process(ragged)
    ours, theirs = (np.asarray(contact_sheet(batch, ["a", "b", "c"])) for batch in (padded, ragged))
    assert np.array_equal(ours, theirs)
