"""Pictures that are not JPEGs."""

import io
import struct
import sys
from contextlib import suppress

import numpy as np
import pytest
from pictures import opened, photograph
from PIL import Image, PngImagePlugin

from highway.engine import Pipeline
from highway.errors import DecodeError, MissingPackageError
from highway.modules import Augmentations, ListReader
from highway.modules.readers.pictures.other_picture import OtherPicture
from highway.transforms import CenterFit, FlipX, FlipY, Letterbox, Normalize, RandomResizedCrop


def saved(picture, format_, **options):
    buffer = io.BytesIO()
    picture.save(buffer, format_, **options)
    return buffer.getvalue()


def decode(contents, *, gray=False, oriented=True, max_pixels=10**6):
    picture = OtherPicture(contents, gray=gray, oriented=oriented, max_pixels=max_pixels)
    array = picture.pixels()
    assert array.shape == (picture.height, picture.width, 1 if gray else 3)
    return array


PICTURE = photograph(24, 36, 2)
RGB = np.asarray(PICTURE)


@pytest.mark.parametrize(
    "format_, options",
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats(format_, options):
    array = decode(saved(PICTURE, format_, **options))
    np.testing.assert_array_equal(array, RGB)
    assert array.dtype == np.uint8 and array.flags.c_contiguous


def test_lossy_webp():
    assert np.abs(decode(saved(PICTURE, "WEBP", quality=90)).astype(int) - RGB).mean() < 10


def test_gif_gives_its_first_frame():
    contents = saved(PICTURE, "GIF", save_all=True, append_images=[Image.new("RGB", PICTURE.size, "red")])
    np.testing.assert_array_equal(
        decode(contents), np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
    )


def test_palette():
    palette = PICTURE.quantize(32)
    np.testing.assert_array_equal(decode(saved(palette, "PNG")), np.asarray(palette.convert("RGB")))
    with_transparency = saved(palette, "PNG", transparency=bytes(range(32)))
    np.testing.assert_array_equal(decode(with_transparency), np.asarray(palette.convert("RGB")))


def test_alpha_is_dropped():
    picture = PICTURE.copy()
    picture.putalpha(Image.linear_gradient("L").resize(PICTURE.size))
    np.testing.assert_array_equal(decode(saved(picture, "PNG")), RGB)
    gray = picture.convert("LA")
    np.testing.assert_array_equal(decode(saved(gray, "PNG"), gray=True)[:, :, 0], np.asarray(gray)[:, :, 0])


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_of_sixteen_bits_the_upper_eight_are_kept(format_):
    wide = np.linspace(0, 65535, 24 * 36).astype(np.uint16).reshape(24, 36)
    array = decode(saved(Image.fromarray(wide), format_))
    assert array.shape == (24, 36, 3)
    np.testing.assert_array_equal(array[:, :, 0], wide >> 8)
    np.testing.assert_array_equal(array[:, :, 0], array[:, :, 2])


@pytest.mark.parametrize("mode", ["L", "1", "CMYK"])
def test_other_modes(mode):
    picture = PICTURE.convert(mode)
    array = decode(saved(picture, "TIFF"))
    np.testing.assert_array_equal(array, np.asarray(picture.convert("RGB")))


def test_grey():
    array = decode(saved(PICTURE, "PNG"), gray=True)
    np.testing.assert_array_equal(array[:, :, 0], np.asarray(PICTURE.convert("L")))
    assert array.shape == (24, 36, 1)


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(format_, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    contents = saved(PICTURE, format_, exif=exif)
    expected = np.asarray(opened(contents))
    np.testing.assert_array_equal(decode(contents), expected)
    assert expected.shape[:2] == ((36, 24) if orientation >= 5 else (24, 36))
    np.testing.assert_array_equal(decode(contents, oriented=False), RGB)


def test_only_the_header_is_read_until_pixels_are_asked_for():
    contents = saved(PICTURE, "PNG")
    picture = OtherPicture(contents[:100], gray=False, oriented=True, max_pixels=10**6)
    assert (picture.height, picture.width) == (24, 36)
    with pytest.raises(DecodeError, match="cannot be decoded"):
        picture.pixels()


@pytest.mark.parametrize(
    ("format_", "options"),
    [
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("GIF", {}),
        *(
            ("TIFF", {"compression": compression, **more})
            for compression in (None, "packbits", "tiff_lzw", "tiff_adobe_deflate")
            for more in (
                {},
                {"description": "a tag that is not kept"},
                {"save_all": True, "append_images": [PICTURE]},
            )
        ),
    ],
)
def test_cut_files_are_errors_and_nothing_else(format_, options):
    contents = saved(PICTURE, format_, **options)
    whole = decode(contents)
    read = 0
    for length in range(0, len(contents), max(1, len(contents) // 60)):
        with suppress(DecodeError):
            np.testing.assert_array_equal(decode(contents[:length]), whole)
            read += 1
    # The second page, and tags that do not matter, may be missing.
    assert read <= (35 if options.get("save_all") else 2)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
def test_a_directory_anywhere(order, big):
    """Offsets that no file has, whatever their size."""
    code, magic = ("HHHQ", (43, 8, 0)) if big else ("HL", (42,))
    for offset in (0, 9, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 64) - 1):
        if offset < 1 << 32 or big:
            contents = (
                (b"II" if order == "<" else b"MM") + struct.pack(order + code, *magic, offset) + bytes(3)
            )
            with pytest.raises(DecodeError, match=r"cut off|0 x 0|BigTIFF|tags"):
                decode(contents)


def test_what_is_refused():
    with pytest.raises(DecodeError, match="no picture of a known format"):
        decode(b"only text")
    with pytest.raises(DecodeError, match="24 x 36 pixels, allowed are 863 in total"):
        decode(saved(PICTURE, "PNG"), max_pixels=863)
    with pytest.raises(DecodeError, match="floating point"):
        decode(saved(Image.fromarray(np.ones((3, 4), np.float32)), "TIFF"))
    with pytest.raises(DecodeError, match="signed"):
        decode(saved(Image.fromarray(np.full((3, 4), -1, np.int32)), "TIFF"))


def test_other_formats_are_not_tried():
    """PIL would hand PostScript to Ghostscript, and take much else for a picture."""
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    for contents in (
        postscript,
        saved(PICTURE, "PPM"),
        saved(PICTURE, "ICO"),
        saved(PICTURE, "SGI"),
        saved(PICTURE, "PCX"),
    ):
        with pytest.raises(
            DecodeError, match=r"no picture of a known format|does not read; convert it to one of JPEG, PNG"
        ):
            decode(contents)


def test_a_side_that_no_kernel_takes():
    tall = saved(Image.new("L", (1, (1 << 24) + 1)), "PNG")
    with pytest.raises(DecodeError, match="16777216 on a side"):
        decode(tall, max_pixels=1 << 40)


def test_lack_of_memory_is_not_the_file_s_fault(monkeypatch):
    def no_memory(*args, **options):
        raise MemoryError

    monkeypatch.setattr(PngImagePlugin, "PngImageFile", no_memory)
    with pytest.raises(MemoryError):
        decode(saved(PICTURE, "PNG"))


def test_without_pil_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingPackageError, match="pip install Pillow-SIMD"):
        decode(b"\x89PNG")


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        (b"\0\0\0\x0cjP  \r\n\x87\n", "is JPEG 2000, which"),
        (b"%PDF-1.7\n", "is PDF, which"),
        (b"<?xml version='1.0'?><svg/>", "is SVG, which"),
        (b"<!DOCTYPE html><title>Not found</title>", "is HTML, which"),
        (b"8BPS\0\1", "is PSD, which"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"is a pointer of Git LFS \(git lfs pull"),
        (b"hello", r"is no picture of a known format \(JPEG, PNG, WebP, BMP, GIF, TIFF, PGM\)$"),
        (b"", "is no picture of a known format .*: it is empty"),
        (bytes(5000), "is no picture of a known format .*: it has no bytes but zeros"),
    ],
)
def test_what_a_file_is_instead_is_said(contents, says):
    with pytest.raises(DecodeError, match=f"^{says}"):
        decode(contents)


@pytest.mark.parametrize("fit", [RandomResizedCrop(), Letterbox(), CenterFit()])
@pytest.mark.parametrize("color", ["rgb", "gray"])
@pytest.mark.parametrize("normalized", [False, True])
def test_batches_of_pngs_and_webps_have_the_bits_of_other_formats(tmp_path, fit, color, normalized):
    """BMPs of the same pixels are decoded by PIL, and their windows are resampled after that."""
    pictures = [photograph(30 + 7 * k, 60 - 5 * k, k) for k in range(9)]
    if color == "gray":
        # Gray already: Pillow-SIMD rounds luma in another way than Pillow.
        pictures = [picture.convert("L") for picture in pictures]
    images = {}
    for format_, options in (("BMP", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        paths = [tmp_path / f"{k}.{format_}" for k in range(len(pictures))]
        for path, picture in zip(paths, pictures, strict=True):
            picture.save(path, **options)
        reader = ListReader(paths, None, 5, (24, 32), fit=fit, color=color, seed=4, epochs=2, workers=2)
        steps = [FlipX(), FlipY()]
        if normalized:
            steps.append(Normalize(0.4, 0.2) if color == "gray" else Normalize())
        with Pipeline([reader, Augmentations(steps, seed=4)]) as pipeline:
            images[format_] = np.concatenate([batch.images.copy() for batch in pipeline.forever()])
    assert images["BMP"].shape[0] == 18
    np.testing.assert_array_equal(images["PNG"], images["BMP"])
    np.testing.assert_array_equal(images["WEBP"], images["BMP"])
