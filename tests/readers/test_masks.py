"""Masks: numbers of classes that go where the pixels of their pictures go."""

import struct
import zlib

import numpy as np
import pytest
from pictures import class_folders, jpeg_bytes, opened
from PIL import Image, ImageOps
from stated_orientations import (
    corner,
    exif_chunk,
    exif_data,
    exif_segment,
    jpeg_with,
    png_with,
    tiff_with,
    webp_with,
    xmp_data,
)
from voc_folders import annotation, only_batch, thing, voc_folder

from highway.engine import Pipeline
from highway.errors import ArgumentError, DatasetError, DecodeError, ReadError
from highway.modules import Augmentations, ImageFileReader, ListReader, VOCReader
from highway.modules.readers import masks
from highway.transforms import CenterFit, FlipX, FlipY, Letterbox, Normalize, RandomResizedCrop, Stretch

# A class of nearly black and one of nearly white: the picture says what the mask must be.
HEIGHT, WIDTH = 48, 80


def scene(seed):
    """A mask of large rectangles, and the picture of it."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(3):
        y, x = rng.integers(0, HEIGHT - 16), rng.integers(0, WIDTH - 16)
        mask[y : y + 24, x : x + 24] = 1
    return mask, Image.fromarray(np.repeat((mask * 250)[:, :, None], 3, axis=2))


def palette(mask):
    image = Image.fromarray(mask).convert("P")
    image.putdata(mask.ravel().tolist())
    image.putpalette([200, 10, 10, 10, 200, 10] + [77] * 762)
    return image


@pytest.fixture
def scenes(tmp_path):
    """Folders of pictures and of their masks."""
    for number in range(6):
        mask, picture = scene(number)
        name = f"class{number % 2}/{number}"
        for folder in ("pictures", "masks"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pictures" / f"{name}.jpg").write_bytes(jpeg_bytes(picture, quality=98, subsampling=0))
        palette(mask).save(tmp_path / "masks" / f"{name}.png")
    return tmp_path / "pictures", tmp_path / "masks"


def assert_alike(batch, off=0.02):
    """Masks are 1 where the images are white, but for a few pixels at the edges."""
    assert batch.masks.dtype == np.uint8 and batch.masks.shape == batch.images.shape[:3]
    for image, mask in zip(batch.images[..., 0], batch.masks, strict=True):
        sure = (image < 60) | (image > 190)
        assert ((image > 128) == mask)[sure].mean() > 1 - off
        assert 0 < mask.mean() < 1


@pytest.mark.parametrize(
    "fit", [CenterFit(), Stretch(), RandomResizedCrop(scale=(0.4, 1))], ids=lambda fit: type(fit).__name__
)
@pytest.mark.parametrize("flips", [[], [FlipX(), FlipY()]], ids=["", "flips"])
@pytest.mark.parametrize("shape", [(96, 160), (40, 40), (31, 57)])
def test_masks_go_with_their_pictures(scenes, fit, flips, shape):
    reader = ImageFileReader(scenes[0], 6, shape, fit=fit, masks_dir=scenes[1], epochs=1)
    batch = only_batch(reader, *([Augmentations(flips)] if flips else []))
    assert list(batch.fields) == ["images", "labels", "masks"]
    assert batch.masks.flags.c_contiguous and batch.masks.flags.writeable
    assert_alike(batch)


def test_nearest_as_pillow_does(scenes):
    reader = ImageFileReader(scenes[0], 1, (31, 57), fit=Stretch(), masks_dir=scenes[1], epochs=1)
    with Pipeline([reader]) as pipeline:
        for batch in pipeline:
            with Image.open(scenes[1] / batch.keys[0].replace("jpg", "png")) as mask:
                expected = np.asarray(mask.resize((57, 31), Image.Resampling.NEAREST))
            np.testing.assert_array_equal(batch.masks[0], expected)


@pytest.mark.parametrize("fill", [0, 255])
def test_what_is_not_covered_is_filled(scenes, fill):
    reader = ImageFileReader(
        scenes[0], 6, (80, 80), fit=Letterbox(), masks_dir=scenes[1], mask_fill=fill, epochs=1
    )
    masks = only_batch(reader, Augmentations([FlipX(), Normalize()])).masks
    assert (masks[:, :16] == fill).all() and (masks[:, 64:] == fill).all()
    assert np.isin(masks[:, 16:64], (0, 1)).all() and masks[:, 16:64].any()


@pytest.mark.parametrize(
    "orientation, turned",
    [(orientation, False) for orientation in range(1, 9)] + [(k, True) for k in range(5, 9)],
)
def test_masks_turn_with_their_pictures(tmp_path, orientation, turned):
    """Masks of the picture as it is stored; and, told by their size, of the upright one."""
    mask, picture = scene(3)
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(picture, quality=98, subsampling=0, orientation=orientation))
    if turned:
        with Image.open(tmp_path / "a.jpg") as stored:
            upright = np.asarray(ImageOps.exif_transpose(stored))[:, :, 0]
        mask = (upright > 128).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "a.png")
    reader = ListReader(
        [tmp_path / "a.jpg"], None, 1, (90, 70), masks=[tmp_path / "a.png"], fit=Stretch(), epochs=1
    )
    assert_alike(only_batch(reader, Augmentations([FlipX(1)])))


def masked(tmp_path, picture, mask, shape, **options):
    """The image and the mask that a reader gives, of files of a picture and of its mask."""
    (tmp_path / "picture").write_bytes(picture)
    (tmp_path / "mask").write_bytes(mask)
    reader = ListReader(
        [tmp_path / "picture"], None, 1, shape, masks=[tmp_path / "mask"], fit=Stretch(), epochs=1, **options
    )
    batch = only_batch(reader)
    return batch.images[0, :, :, 0], batch.masks[0]


# Files of a picture that state an orientation; the first three keep the numbers of a mask too.
STATED = {
    "TIFF": lambda number, picture: tiff_with(4, (number,), picture=picture),
    "TIFF, XMP": lambda number, picture: tiff_with(xmp=xmp_data(number), picture=picture),
    "PNG": lambda number, picture: png_with(behind=[exif_chunk(exif_data(3, (number,)))], picture=picture),
    "WebP": lambda number, picture: webp_with(exif_data(3, (number,)), picture=picture),
    "JPEG": lambda number, picture: jpeg_with(exif_segment(exif_data(4, (number,))), picture=picture),
}
MASKS = ("TIFF", "TIFF, XMP", "PNG")


def mask_of(picture):
    return Image.fromarray((np.asarray(picture)[:, :, 0] > 128).astype(np.uint8))


@pytest.mark.parametrize("height", [16, 32])
@pytest.mark.parametrize("format_", STATED)
@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_masks_turn_with_pictures_of_every_format(tmp_path, format_, orientation, height):
    """Those that state nothing, or 1, or what their pictures state; none with ``exif=False``. 32 is a square."""
    contents = STATED[format_](orientation, corner(height))
    mask = mask_of(corner(height))
    masks = [png_with(picture=mask), *(STATED[name](k, mask) for name in MASKS for k in (1, orientation))]
    for of_mask in masks:
        for exif in (True, False):
            shape = mask.size if exif and orientation >= 5 else mask.size[::-1]
            image, shown = masked(tmp_path, contents, of_mask, shape, exif=exif)
            np.testing.assert_array_equal(image > 128, shown)
            assert shown.any() and not shown.all()


@pytest.mark.parametrize("mask_format", MASKS)
@pytest.mark.parametrize("of_picture, own", [(1, 6), (1, 3), (6, 8), (6, 3), (3, 6), (3, 4)])
def test_masks_with_an_orientation_of_their_own(tmp_path, mask_format, of_picture, own):
    """They are turned upright by it, and must have the size of the upright picture."""
    contents = tiff_with(3, (of_picture,))
    mask, make = mask_of(opened(contents)), STATED[mask_format]
    back = {3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM}
    back |= {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    image, shown = masked(tmp_path, contents, make(own, mask.transpose(back[own])), mask.size[::-1])
    np.testing.assert_array_equal(image > 128, shown)
    if own >= 5:
        with pytest.raises(
            DecodeError, match=f"once turned by its own orientation {own}, its upright picture"
        ):
            masked(tmp_path, contents, make(own, mask), mask.size)
    # It does not count where nothing is turned.
    stored = mask_of(corner())
    image, shown = masked(tmp_path, contents, make(own, stored), stored.size[::-1], exif=False)
    np.testing.assert_array_equal(image > 128, shown)


@pytest.mark.parametrize("mode", ["P", "L", "1"])
@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "gif"])
def test_kinds_of_masks(tmp_path, mode, ending):
    mask, picture = scene(1)
    picture.save(tmp_path / "a.jpg")
    values = mask * (1 if mode != "L" else 7)
    image = {
        "P": palette,
        "L": Image.fromarray,
        "1": lambda array: Image.fromarray(array * 255).convert("1"),
    }[mode](values)
    image.save(tmp_path / f"m.{ending}")
    reader = ListReader(
        [tmp_path / "a.jpg"], [3], 1, (HEIGHT, WIDTH), masks=[tmp_path / f"m.{ending}"], epochs=1
    )
    batch = only_batch(reader)
    with Image.open(tmp_path / f"m.{ending}") as stored:
        if stored.mode == mode:
            np.testing.assert_array_equal(batch.masks[0], values)
    assert len(np.unique(batch.masks)) == 2


BAD_MASKS = {
    "RGB": lambda mask: Image.fromarray(mask).convert("RGB"),
    "RGBA": lambda mask: Image.fromarray(mask).convert("RGBA"),
    "16 bits": lambda mask: Image.fromarray(mask.astype(np.uint16)),
    "size": lambda mask: Image.fromarray(mask[:-1]),
    "swapped": lambda mask: Image.fromarray(np.ascontiguousarray(mask.T)),
}
MESSAGES = {
    "RGB": "mode RGB; expected numbers of classes",
    "RGBA": "mode RGBA",
    "16 bits": "mode I",
    "size": "has 47 x 80 pixels .*, its picture 48 x 80",
    "swapped": "has 80 x 48 pixels .*, its picture 48 x 80",
    "missing": "cannot be read: No such file",
    "folder": "is no regular file",
    "no picture": "is no picture of a known format",
    "JPEG": "is no picture of a known format .PNG, BMP, GIF or TIFF",
    "cut": "cannot be decoded",
    "large": "has 9000 x 9000 pixels, allowed are 4000",
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_bad_masks(scenes, kind):
    pictures, masks = scenes
    path = masks / "class0" / "2.png"
    mask, picture = scene(2)
    good = path.read_bytes()
    path.unlink()
    if kind in BAD_MASKS:
        BAD_MASKS[kind](mask).save(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "no picture":
        path.write_bytes(b"nothing")
    elif kind == "JPEG":
        picture.save(path, "JPEG")
    elif kind == "cut":
        path.write_bytes(good[: len(good) // 2])
    elif kind == "large":
        Image.new("1", (9000, 9000)).save(path)
    options = {"masks_dir": masks, "epochs": 1, "max_pixels": 4000}
    with (
        Pipeline([ImageFileReader(pictures, 6, (40, 40), **options)]) as pipeline,
        pytest.raises((DecodeError, ReadError), match=f"ImageFileReader: mask {path} .*{MESSAGES[kind]}"),
    ):
        pipeline.dequeue()
    for policy, size in (("skip", 5), ("replace", 6)):
        reader = ImageFileReader(pictures, 6, (40, 40), on_error=policy, **options)
        batch = only_batch(reader)
        assert batch.size == size and [key for key, _ in reader.errors] == ["class0/2.jpg"]
        assert_alike(batch)


def test_masks_of_voc(tmp_path):
    mask, picture = scene(0)
    folder = voc_folder(tmp_path, dict.fromkeys("ab", annotation(thing(), size=None)), size=(HEIGHT, WIDTH))
    with pytest.raises(DatasetError, match="SegmentationClass' cannot be listed"):
        VOCReader(folder, 2, (96, 160), masks=True)
    (folder / "SegmentationClass").mkdir()
    (folder / "ImageSets/Segmentation").mkdir()
    for name in "ab":
        picture.save(folder / "JPEGImages" / f"{name}.jpg", quality=98)
        palette(np.where(mask, 255, 3).astype(np.uint8)).save(folder / "SegmentationClass" / f"{name}.png")
    options = {"fit": Stretch(), "epochs": 1, "masks": True}
    images, labels, boxes, masks = batch = only_batch(VOCReader(folder, 2, (96, 160), **options))
    assert {*np.unique(masks)} == {3, 255} and batch.ragged == {"labels", "boxes", "difficult", "truncated"}
    assert len(labels) == len(boxes) == 2 and len(images) == 2
    np.testing.assert_array_equal(masks[0], np.where(mask, 255, 3).repeat(2, axis=0).repeat(2, axis=1))
    (folder / "ImageSets/Segmentation/train.txt").write_text("b\n")
    assert only_batch(VOCReader(folder, 2, (96, 160), **options)).keys == ["b.jpg"]
    assert len(only_batch(VOCReader(folder, 2, (96, 160), **{**options, "masks": False})).keys) == 2


def test_equal_bits_for_any_number_of_threads(scenes):
    def run(workers):
        reader = ImageFileReader(
            scenes[0], 2, (33, 44), fit=RandomResizedCrop(), masks_dir=scenes[1], epochs=3, workers=workers
        )
        with Pipeline([reader, Augmentations([FlipX()])]) as pipeline:
            return [
                (batch.keys, batch.masks.tobytes(), batch.images.tobytes()) for batch in pipeline.forever()
            ]

    assert run(8) == run(2) == run(1)


def test_arguments(scenes):
    with pytest.raises(DatasetError, match=r"masks_dir is .*expected a folder of masks"):
        ImageFileReader(scenes[0], 2, (8, 8), masks_dir=scenes[0] / "nowhere")
    with pytest.raises(ArgumentError, match="mask_fill is 256"):
        ImageFileReader(scenes[0], 2, (8, 8), masks_dir=scenes[1], mask_fill=256)


def test_pictures_without_masks_are_read_as_before(tmp_path):
    folder = class_folders(tmp_path, classes=1, each=2)
    assert list(only_batch(ImageFileReader(folder, 2, (8, 8), epochs=1)).fields) == ["images", "labels"]


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_is_refused(bits):
    """PIL would spread it over 0 to 255."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(bits) for _ in range(2))
    head = struct.pack(">IIBBBBB", 8, 2, bits, 0, 0, 0, 0)
    contents = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(DecodeError, match="2 or 4 bits of gray"):
        masks._pixels(contents, 100, "M")


def copied(path, name):
    path.with_name(name).write_bytes(path.read_bytes())


@pytest.mark.parametrize("ending", [".png", ".JPG", ".tiff"])
def test_two_pictures_never_have_one_mask(scenes, ending):
    pictures, masks = scenes
    copied(pictures / "class0" / "2.jpg", f"2{ending}")
    with pytest.raises(
        DatasetError, match=r"'class0/2\.jpg'.* both have the mask '.*class0/2\.png'"
    ) as refused:
        ImageFileReader(pictures, 2, (8, 8), masks_dir=masks)
    assert f"'class0/2{ending}'" in str(refused.value)


def test_pictures_that_differ_in_case_have_masks_of_their_own_unless_the_disk_takes_them_for_one(scenes):
    pictures, masks = scenes
    copied(pictures / "class1" / "3.jpg", "a.jpg")
    copied(pictures / "class1" / "3.jpg", "A.jpg")
    for name in ("a.png", "A.png"):
        copied(masks / "class1" / "3.png", name)
    assert_alike(only_batch(ImageFileReader(pictures, 8, (24, 40), epochs=1, masks_dir=masks)))
    (masks / "class1" / "a.png").unlink()
    (masks / "class1" / "a.png").hardlink_to(masks / "class1" / "A.png")
    with pytest.raises(DatasetError, match=r"'class1/A\.jpg' and 'class1/a\.jpg' both have the mask"):
        ImageFileReader(pictures, 8, (24, 40), epochs=1, masks_dir=masks)
