"""What the first bytes of a file say that it is."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from highway.storage.files import first_bytes
from highway.storage.sniffing import FIRST_BYTES, READ, sniff

pytestmark = pytest.mark.python


def box(brand, *compatible):
    content = brand + bytes(4) + b"".join(compatible)
    return (8 + len(content)).to_bytes(4, "big") + b"ftyp" + content + b"\0\0\0\x20meta"


PLUGINS = frozenset(("AVIF", "HEIC", "HEIF", "JPEG XL"))


@pytest.mark.parametrize("format", sorted(READ - PLUGINS))
def test_formats_that_are_read(format):
    file = io.BytesIO()
    if format == "PGM":
        Image.new("L", (5, 4)).save(file, "PPM")
    else:
        Image.new("RGB", (5, 4)).save(file, format)
    assert sniff(file.getvalue()[:FIRST_BYTES]) == format


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (box(b"avif", b"mif1"), "AVIF"),
        (box(b"mif1", b"mif1", b"avif"), "AVIF"),
        (box(b"heic"), "HEIC"),
        (box(b"mif1", b"heic"), "HEIC"),
        (box(b"mif1"), "HEIF"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n\0", "JPEG XL"),
    ],
)
def test_formats_that_plug_ins_read(first, name):
    assert sniff(first) == name
    assert name in PLUGINS <= READ


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (box(b"isom", b"mp42"), "MP4 or QuickTime video"),
        (b"\0\0\0\x0cjP  \r\n\x87\n\0", "JPEG 2000"),
        (b"\xff\x4f\xff\x51\0", "JPEG 2000"),
        (b"%PDF-1.4\n", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- made by -->\n<svg>", "SVG"),
        ("<?xml version='1.0'?><svg>".encode("utf-16"), "SVG"),
        (b"\r\n\n<!DOCTYPE html><html><head>", "HTML"),
        (b"<HTML><BODY>404", "HTML"),
        (b"<?xml version='1.0'?><annotation>", "XML"),
        (b"8BPS\0\1", "PSD"),
        (b"P6\n3 4\n255\n", "PNM"),
        (b"P2 3 4 255 ", "PNM"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"PK\3\4\x14\0", "ZIP"),
        (b"\x93NUMPY\1\0", "NumPy"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:",
            "a pointer of Git LFS (git lfs pull fetches the file)",
        ),
        (b"II*\0\x10\0\0\0CR\2\0", "a raw file of a camera (CR2)"),
        (b"RIFF\0\0\0\0AVI ", "AVI video"),
    ],
)
def test_formats_that_are_not(first, name):
    assert sniff(first) == name
    assert name not in READ


@pytest.mark.parametrize(
    "first", [b"", b"BM", b"BMW is a car, and this is a text", b"P7x", b"hello", b"RIFF", b"<3", bytes(999)]
)
def test_what_says_nothing(first):
    assert sniff(first) is None


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda rest: b"\0\0\0\x18ftyp" + rest))
def test_any_bytes_are_no_error(first):
    assert sniff(first) is None or isinstance(sniff(first), str)


def test_first_bytes_of_a_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    assert first_bytes(str(path).encode(), FIRST_BYTES) == b"x" * FIRST_BYTES
    assert first_bytes(str(tmp_path).encode(), 9) == b""
    assert first_bytes(b"/nowhere/at/all", 9) == b""
