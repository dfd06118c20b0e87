"""What pictures that are no JPEGs cost, what is looked at before they are decoded, and what nobody says meanwhile."""

import io
import logging
import struct
import subprocess
import sys
import textwrap
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
import rasters
from PIL import Image, ImageFile, PngImagePlugin

from highway.errors import DecodeError
from highway.modules.readers.pictures.other_picture import OtherPicture

SMOOTH = np.add.outer(np.arange(24), np.arange(36)).astype(np.uint8)


def decoded(contents, max_pixels=10**6):
    return OtherPicture(contents, gray=False, oriented=True, max_pixels=max_pixels).pixels()


def saved(picture, format_, **options):
    file = io.BytesIO()
    picture.save(file, format_, **options)
    return file.getvalue()


def kinds():
    """A file of every format, 24 x 36 pixels."""
    picture = Image.fromarray(np.stack([SMOOTH, SMOOTH, SMOOTH], axis=2))
    exif = Image.Exif()
    exif[0x0112] = 3
    table = [[k, 0, 0] for k in range(256)]
    return {
        "PNG": saved(picture, "PNG"),
        "PNG, turned": saved(picture, "PNG", exif=exif),
        "WebP": saved(picture, "WEBP", lossless=True),
        "WebP, lossy": saved(picture, "WEBP"),
        "WebP, alpha": saved(picture.convert("RGBA"), "WEBP", exif=exif),
        "BMP": saved(picture, "BMP"),
        "BMP, palette": rasters.bmp(rasters.bmp_rows(SMOOTH, 8), 24, 36, 8, palette=table),
        "GIF": rasters.gif(SMOOTH, table, disposal=2),
        "GIF, beyond its screen": rasters.gif(SMOOTH, table, screen=(1, 1), disposal=3, transparent=4),
        "TIFF": saved(picture, "TIFF"),
        "TIFF, packed": saved(picture, "TIFF", compression="tiff_lzw"),
        "TIFF, turned": saved(picture, "TIFF", exif=exif),
    }


KINDS = kinds()


@pytest.mark.parametrize("kind", KINDS)
def test_max_pixels_alone_decides(kind, monkeypatch):
    expected = decoded(KINDS[kind])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3)
    np.testing.assert_array_equal(decoded(KINDS[kind], 24 * 36), expected)
    with pytest.raises(DecodeError, match=r"has 24 x 36 pixels, allowed are 863 in total \(max_pixels\)"):
        decoded(KINDS[kind], 24 * 36 - 1)
    assert Image.MAX_IMAGE_PIXELS == 3


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_decoded_before_the_size_is_looked_at(kind, monkeypatch):
    """WebP makes room for the whole picture when it is opened, and a GIF for a second frame."""

    def opened(*args, **options):
        raise AssertionError("PIL was asked")

    monkeypatch.setattr(ImageFile.ImageFile, "__init__", opened)
    monkeypatch.setattr(Image.core, "fill", opened)
    monkeypatch.setattr(Image.core, "new", opened)
    monkeypatch.setattr("PIL._webp.WebPAnimDecoder", opened)
    with pytest.raises(DecodeError, match="24 x 36 pixels"):
        decoded(KINDS[kind], 100)


def test_parts_that_are_larger_than_the_picture():
    contents = rasters.tiff(SMOOTH[:9, :9, None], 8, 1, tile=(16, 16), compression=8)
    for tag in (322, 323):
        head = struct.pack("<HHL", tag, 4, 1)
        contents = contents.replace(head + struct.pack("<L", 16), head + struct.pack("<L", 1 << 14))
    with pytest.raises(DecodeError, match="has parts of 16384 x 16384 pixels, allowed are 1000000"):
        decoded(contents)


LONG = b"a" * (PngImagePlugin.MAX_TEXT_CHUNK + 1)
CHUNKS = {
    "zTXt": (b"zTXt", b"Comment\0\0" + zlib.compress(LONG)),
    "iTXt": (b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(LONG)),
    "XMP": (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(LONG)),
    "ICC": (b"iCCP", b"profile\0\0" + zlib.compress(LONG)),
    "text": (b"tEXt", b"Comment\0" + LONG),
    "resolution": (b"pHYs", b"\0"),
    "rendering": (b"sRGB", b""),
    "animation": (b"acTL", bytes(8)),
    "frame": (b"fcTL", bytes(26)),
    "unknown": (b"abCd", b"?"),
}


@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize("chunk", CHUNKS)
def test_chunks_that_do_not_matter_to_pixels(chunk, place):
    values = SMOOTH[:, :, None]
    contents = rasters.png(values, 8, 0, **{place: [CHUNKS[chunk]] * 3})
    np.testing.assert_array_equal(decoded(contents)[:, :, :1], values)


def big_tiff(start=16, count=0, entries=b""):
    """A little-endian BigTIFF whose first directory is at `start`."""
    return b"II+\0" + struct.pack("<HHQ", 8, 0, start) + struct.pack("<Q", count) + entries


@pytest.mark.parametrize(
    ("contents", "says"),
    [
        *((big_tiff(start), "is cut off") for start in (25, 2**32, 2**63 - 1, 2**63, 2**64 - 1)),
        *((big_tiff(count=count), "is damaged: a TIFF with [0-9]+ tags") for count in (2**16, 2**64 - 1)),
        (big_tiff(count=2**16 - 1), "is cut off"),
        # The values of a tag begin beyond all that a file may have.
        (big_tiff(count=1, entries=struct.pack("<HHQQQ", 258, 3, 5, 2**64 - 1, 0)), "is cut off"),
    ],
)
def test_places_and_numbers_that_no_file_has(contents, says):
    with pytest.raises(DecodeError, match=says):
        decoded(contents)


def test_an_animated_png_gives_the_picture_that_stands_for_it():
    first, second = (Image.fromarray(SMOOTH + k) for k in (0, 9))
    for default in (False, True):
        contents = saved(first, "PNG", save_all=True, append_images=[second], default_image=default)
        np.testing.assert_array_equal(decoded(contents)[:, :, 0], SMOOTH)


# Tags that make PIL or libtiff talk when they see them.
TALK = {
    "unknown": [(65000, 3, [1])],
    "beyond": [(270, 4, [1 << 20] * 3)],
    "many resolutions": [(296, 3, [2, 2])],
    "private": [(34665, 4, [1 << 30])],
    "many": [(tag, 2, b"text\0\0") for tag in (269, 270, 271, 272, 305)],
}


@pytest.mark.parametrize("talk", TALK)
@pytest.mark.parametrize("compression", [1, 8])
def test_tags_that_do_not_matter_to_pixels(talk, compression, capfd, caplog):
    values = SMOOTH[:, :, None]
    contents = rasters.tiff(values, 8, 1, compression=compression, more=TALK[talk])
    # Values beyond the end of the file.
    place = struct.pack("<HHL", 270, 4, 3)
    if place in contents:
        at = contents.index(place) + 8
        contents = contents[:at] + struct.pack("<L", 1 << 29) + contents[at + 4 :]
    # Warnings are errors in the tests.
    np.testing.assert_array_equal(decoded(contents)[:, :, :1], values)
    assert capfd.readouterr() == ("", "") and not caplog.records


def damaged_tiff(mode="L", compression="tiff_adobe_deflate"):
    """With some bytes of its only strip changed."""
    noise = np.random.default_rng(1).integers(0, 256, (64, 64)).astype(np.uint8)
    contents = saved(Image.fromarray(noise).convert(mode), "TIFF", compression=compression)
    with Image.open(io.BytesIO(contents)) as picture:
        (start,), (size,) = picture.tag_v2[273], picture.tag_v2[279]
    middle = start + size // 2
    return contents[:middle] + b"U" * 20 + contents[middle + 20 :]


def test_what_libtiff_says_belongs_to_the_error(capfd):
    with pytest.raises(
        DecodeError, match=r"cannot be decoded: OSError: decoder error -2; ZIPDecode: .*scanline"
    ):
        decoded(damaged_tiff())
    assert capfd.readouterr() == ("", "")


def test_pixels_that_libtiff_warns_of_are_damaged(capfd):
    """Fax data goes on after an error; PIL says nothing of it."""
    with pytest.raises(DecodeError, match="Fax4Decode"):
        decoded(damaged_tiff("1", "group4"))
    assert capfd.readouterr() == ("", "")


def test_pil_logs_nothing(caplog):
    """Without any logging set up, what PIL logs as an error would go to stderr."""
    contents = rasters.tiff(np.zeros((2, 2, 9), int), 8, 2, extra=(0,) * 6)
    with caplog.at_level(logging.WARNING), pytest.raises(DecodeError, match="has 9 samples a pixel"):
        decoded(contents)
    assert not caplog.records


SCRIPT = """
import io, sys, threading
from PIL import Image
from highway.engine import Pipeline
from highway.modules import ListReader

def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))
"""


def run(script, *arguments):
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT + textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert answer.returncode == 0, answer.stderr
    return answer


def test_threads_beside_keep_what_libtiff_says_to_them(tmp_path):
    """Highway's threads print nothing; a user's own use of PIL is as it was."""
    path = tmp_path / "damaged.tif"
    path.write_bytes(damaged_tiff())
    answer = run(
        """
        path = sys.argv[1]
        with Pipeline([ListReader([path] * 20, None, 4, (8, 8), on_error="skip", epochs=1, workers=2)]) as p:
            try:
                p.dequeue(timeout=60)
            except Exception as error:
                print(error)
        print("--", file=sys.stderr, flush=True)
        def own():
            try:
                Image.open(path).load()
            except OSError:
                pass
        own()
        """,
        path,
    )
    before, after = answer.stderr.split("--\n")
    assert before == "" and "ZIPDecode" in after
    assert "ZIPDecode" in answer.stdout


MEASURED = """
paths = [sys.argv[1]] * int(sys.argv[2])
with Pipeline([ListReader(paths[:1], None, 1, (8, 8), epochs=1, workers=1)]) as p:
    p.dequeue(timeout=60)
before = status("VmRSS")
with Pipeline([ListReader(paths, None, len(paths), (8, 8), epochs=1, workers=1)]) as p:
    p.dequeue(timeout=60)
print(status("VmHWM") - before)
"""


@pytest.mark.once  # sanitizers keep what was freed
@pytest.mark.parametrize("format_", ["PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_one_decoded_picture_for_each_worker(format_, tmp_path):
    """However many are in a batch."""
    path = tmp_path / "picture"
    height, width = 1500, 2000
    path.write_bytes(saved(Image.new("RGB", (width, height), (9, 99, 199)), format_))
    grown = int(run(MEASURED, path, 12).stdout)
    assert grown * 1024 < 20 * height * width


NOISY = {
    **{kind: contents for kind, contents in KINDS.items() if "turned" not in kind and "alpha" not in kind},
    "TIFF, fax": damaged_tiff("1", "group4"),
    "TIFF, jpeg": damaged_tiff("L", "jpeg"),
    "TIFF, lzw": damaged_tiff("CMYK", "tiff_lzw"),
    "PNG, packed": rasters.png(SMOOTH[:, :, None], 8, 0, before=CHUNKS.values()),
}


@pytest.mark.parametrize("kind", NOISY)
def test_of_damaged_files_errors_alone_speak(kind, capfd, caplog):
    """Bytes changed at random, mostly where the header and the tags are."""
    contents = NOISY[kind]
    rng = np.random.default_rng(5)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(400):
            changed = bytearray(contents)
            for _ in range(rng.integers(1, 4)):
                near = min(len(changed), 200)
                place = rng.choice(
                    [rng.integers(near), len(changed) - 1 - rng.integers(near), rng.integers(len(changed))]
                )
                changed[place] = rng.choice([0, 1, 2, 255, rng.integers(256)])
            with suppress(DecodeError):
                decoded(bytes(changed))
    assert not said, said[0]
    assert capfd.readouterr() == ("", "") and not caplog.records
