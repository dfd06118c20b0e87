"""Contact sheets: every image in its place with its label, and what cannot be drawn is refused."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageFont

from highway.batch import Batch
from highway.errors import ArgumentError, MissingPackageError
from highway.sheet import contact_sheet, save_contact_sheet


def plain(colours, height=100, width=120, **more):
    """A batch of images of one colour each."""
    images = np.zeros((len(colours), height, width, 3), np.uint8) + np.array(colours, np.uint8)[:, None, None]
    return Batch({"images": images, **more})


COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0), (0, 200, 200)]


def places(sheet, colour):
    """Rows and columns between which pixels of a colour lie, and how many there are."""
    found = np.argwhere((np.asarray(sheet) == colour).all(axis=2))
    (top, left), (bottom, right) = found.min(axis=0), found.max(axis=0)
    return top, left, bottom + 1 - top, right + 1 - left, len(found)


def test_every_image_is_shown_whole_and_in_reading_order():
    sheet = contact_sheet(plain(COLOURS), columns=2)
    corners = []
    for colour in COLOURS:
        top, left, height, width, count = places(sheet, colour)
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
    sheet = contact_sheet(plain(COLOURS[:1], labels=labels), classes)
    assert sheet.tobytes() == contact_sheet(plain(COLOURS[:1], labels=np.array([0])), same_as).tobytes()


def test_large_images_are_reduced_and_small_ones_enlarged_by_whole_factors():
    wide = contact_sheet(plain(COLOURS[:1], height=300, width=1200))
    assert places(wide, COLOURS[0])[2:4] == (80, 320)
    small = plain(COLOURS[:1], height=20, width=32)
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
    batch = plain(COLOURS)
    save_contact_sheet(path, batch, columns=5)
    with Image.open(path) as back:
        assert back.format == "PNG"
        assert np.array_equal(np.asarray(back), np.asarray(contact_sheet(batch, columns=5)))


@pytest.mark.parametrize("name", ["sheet", "sheet.xyz"])
def test_name_of_the_file_must_say_its_format(tmp_path, name):
    with pytest.raises(ArgumentError, match=r"sheet.*use \.png"):
        save_contact_sheet(tmp_path / name, plain(COLOURS))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 3, 8, 8), np.float32),
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 8, 8, 4), np.uint8),
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
        contact_sheet(plain(COLOURS), columns=0)


def test_missing_pil_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingPackageError, match="pip install Pillow-SIMD"):
        contact_sheet(plain(COLOURS))
