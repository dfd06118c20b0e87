"""AVIF, HEIC and JPEG XL: read with PIL's plug-ins where they are installed, and named where they are not."""

import importlib.util
import io
import sys

import numpy as np
import pytest
from pictures import photograph
from PIL import Image, features

from highway.engine import Pipeline
from highway.errors import DecodeError, MissingPackageError
from highway.modules import ImageFileReader
from highway.modules.readers.pictures import plugin_formats
from highway.modules.readers.pictures.other_picture import OtherPicture

MODULES = {"AVIF": "pillow_avif", "HEIF": "pillow_heif", "JXL": "pillow_jxl"}
BEGINNINGS = {
    "AVIF": (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", "pillow-avif-plugin"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow-heif"),
    "JPEG XL": (b"\xff\x0a\xfa\x1f\x01", "pillow-jxl-plugin"),
}


def written(format_, picture, **options):
    """A file in this format; skips the test where its plug-in is not installed."""
    own = format_ == "AVIF" and features.check("avif")
    if not own and importlib.util.find_spec(MODULES[format_]) is None:
        pytest.skip(f"{MODULES[format_]}, PIL's plug-in for {format_}, is not installed")
    if not own:
        module = importlib.import_module(MODULES[format_])
        if format_ == "HEIF":
            module.register_heif_opener()
    file = io.BytesIO()
    picture.save(file, format_, **options)
    return file.getvalue()


def decode(contents, *, gray=False, oriented=True, max_pixels=10**6):
    return OtherPicture(contents, gray=gray, oriented=oriented, max_pixels=max_pixels)


@pytest.mark.parametrize("format_", MODULES)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_pixels_are_those_of_the_plug_in(format_, mode):
    picture = photograph(24, 36, 2).convert(mode)
    contents = written(format_, picture)
    found = decode(contents)
    assert (found.height, found.width) == (24, 36)
    expected = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
    np.testing.assert_array_equal(found.pixels(), expected)
    assert np.abs(expected.astype(int) - np.asarray(picture.convert("RGB"))).mean() < 12


@pytest.mark.parametrize("format_", MODULES)
def test_limits_and_damage(format_):
    contents = written(format_, photograph(24, 36, 2))
    with pytest.raises(DecodeError, match="has 24 x 36 pixels, allowed are 863"):
        decode(contents, max_pixels=863)
    for length in range(12, len(contents), max(1, len(contents) // 40)):
        try:
            shape = decode(contents[:length]).pixels().shape
        except DecodeError:
            continue
        # What follows the pixels may be missing.
        assert shape == (24, 36, 3)


@pytest.mark.parametrize("format_", MODULES)
def test_a_turned_picture_is_shown_upright(format_):
    exif = Image.Exif()
    exif[0x0112] = 6
    black = Image.new("RGB", (32, 16))
    black.paste((240, 240, 240), (0, 0, 16, 8))
    contents = written(format_, black, exif=exif.tobytes())
    picture = decode(contents)
    if format_ == "JXL":
        # JPEG XL has its own orientation, and that of EXIF does not count.
        assert (picture.height, picture.width) == (16, 32)
        return
    assert (picture.height, picture.width) == (32, 16)
    pixels = picture.pixels()
    assert pixels[2:14, 10:15].min() > 150 and pixels[18:].max() < 90 and pixels[:, :6].max() < 90


@pytest.mark.parametrize("name", BEGINNINGS)
@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_a_missing_plug_in_is_named_under_any_policy(tmp_path, monkeypatch, name, policy):
    contents, package = BEGINNINGS[name]
    for module in (*MODULES.values(), "pillow_jxl.JpegXLImagePlugin"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(features, "get_supported_modules", list)
    ending = {"AVIF": "avif", "HEIC": "heic", "JPEG XL": "jxl"}[name]
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / f"1.{ending}").write_bytes(contents)
    with Pipeline([ImageFileReader(tmp_path, 1, (8, 8), epochs=1, on_error=policy)]) as pipeline:
        with pytest.raises(MissingPackageError) as caught:
            pipeline.dequeue()
        assert pipeline.errors == []
    assert str(caught.value).startswith(f"ImageFileReader: this is {name}, which PIL reads with a plug-in")
    assert f"pip install {package} " in str(caught.value) and f"1.{ending}" in str(caught.value)


def jpeg_xl_header(height, width, *, ratio=0, orientation=None, container=None):
    """The beginning of a JPEG XL, bit by bit, the lowest first."""
    bits = ""

    def put(value, count):
        nonlocal bits
        bits += f"{value:0{count}b}"[::-1]

    def put_side(side):
        number = next(k for k, count in enumerate((9, 13, 18, 30)) if side <= 1 << count)
        put(number, 2)
        put(side - 1, (9, 13, 18, 30)[number])

    small = height % 8 == 0 and height <= 256 and (ratio or (width % 8 == 0 and width <= 256))
    put(int(bool(small)), 1)
    put(height // 8 - 1, 5) if small else put_side(height)
    put(ratio, 3)
    if not ratio:
        put(width // 8 - 1, 5) if small else put_side(width)
    put(int(orientation is None), 1)
    if orientation is not None:
        put(1, 1)
        put(orientation - 1, 3)
    stream = b"\xff\x0a" + int(bits[::-1], 2).to_bytes(-(-len(bits) // 8), "little") + bytes(40)
    if container is None:
        return stream
    data = {b"jxlc": stream, b"jxlp": bytes(4) + stream}[container]
    boxes = [(b"JXL ", b"\r\n\x87\n"), (b"ftyp", b"jxl \0\0\0\0jxl "), (b"Exif", bytes(9)), (container, data)]
    return b"".join((8 + len(body)).to_bytes(4, "big") + kind + body for kind, body in boxes)


@pytest.mark.parametrize("container", [None, b"jxlc", b"jxlp"])
@pytest.mark.parametrize(
    ("height", "width", "ratio"),
    [
        (8, 256, 0),
        (256, 8, 0),
        (1, 1, 0),
        (513, 9000, 0),
        (70_000, 300_000, 0),
        (90, 160, 5),
        (120, 160, 3),
        (64, 64, 1),
    ],
)
@pytest.mark.parametrize("orientation", [None, 1, 4, 5, 8])
def test_the_size_of_a_jpeg_xl(height, width, ratio, orientation, container):
    contents = jpeg_xl_header(height, width, ratio=ratio, orientation=orientation, container=container)
    upright = (width, height) if orientation in (5, 8) else (height, width)
    assert plugin_formats._jpeg_xl_size(contents) == upright


def test_a_jpeg_xl_without_a_codestream():
    for contents in (b"\0\0\0\x0cJXL \r\n\x87\n", b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\0jxlc", b"\xff\x0b"):
        with pytest.raises(DecodeError, match="without a codestream"):
            plugin_formats._jpeg_xl_size(contents)
