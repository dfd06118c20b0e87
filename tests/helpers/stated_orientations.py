"""Picture files that state an orientation, in every place and way that there is; written here, byte by byte."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from pictures import jpeg_bytes, segment
from PIL import Image

# Layout of a value of each type of TIFF 6.0 (and of BigTIFF's 16), as `struct` has it.
LAYOUTS = dict(
    zip(
        (*range(1, 14), 16),
        ("B", "B", "H", "L", "LL", "b", "B", "h", "l", "ll", "f", "d", "L", "Q"),
        strict=True,
    )
)
BYTE = 1
TEXTS = (2, 7)
HEIGHT, WIDTH = 16, 32
# The bright corner of the stored picture: x0, y0, x1, y1.
CORNER = (0, 0, 16, 8)


def corner(height=HEIGHT):
    """A black picture with a bright corner; no two orientations show it alike."""
    pixels = np.zeros((height, WIDTH, 3), np.uint8)
    pixels[CORNER[1] : CORNER[3], CORNER[0] : CORNER[2]] = 240
    return Image.fromarray(pixels)


def packed_values(type_, values, order):
    """Values of an entry: text as it is; a number n of a rational type as 3n / 3."""
    if type_ in (5, 10):
        values = [part for value in values for part in (3 * value, 3)]
    if type_ == 2:
        return "".join(map(str, values)).encode()
    return b"".join(struct.pack(order + LAYOUTS[type_][0], value) for value in values)


def directory(entries, order, at, picture=b""):
    """A directory that begins at offset `at`, what does not fit into it, and the strip of a picture.

    Entries are (tag, type, count, data); data None stands for the offset of the strip.
    """
    behind = at + 2 + 12 * len(entries) + 4
    rows, room = b"", b""
    strip = behind + sum(len(data) for *_, data in entries if data is not None and len(data) > 4)
    for tag, type_, count, data in sorted(entries, key=lambda entry: entry[0]):
        if data is None:
            data = struct.pack(order + "L", strip)
        if len(data) > 4:
            data, room = struct.pack(order + "L", behind + len(room)), room + data
        rows += struct.pack(order + "HHL", tag, type_, count) + data.ljust(4, b"\0")
    return struct.pack(order + "H", len(entries)) + rows + bytes(4) + room + picture


def stated(type_, values, order):
    """The entry of an orientation."""
    data = packed_values(type_, values, order)
    count = len(data) // struct.calcsize("=" + LAYOUTS[type_])
    return 0x0112, type_, count, data


def exif_data(type_=3, values=(6,), order="<", at=8, others=()):
    """EXIF data, without its mark; `type_` None for data without an orientation."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", at)
    entries = [*others, *([] if type_ is None else [stated(type_, values, order)])]
    return head + bytes(at - 8) + directory(entries, order, at)


def xmp_data(value, element=False):
    """XMP data, with something before the property that looks like it."""
    said = f"<tiff:Orientation>{value}</tiff:Orientation>" if element else f'tiff:Orientation="{value}"'
    return (
        f"<x:xmpmeta>tiff:Orientation tiff:Orientation='2' {said} tiff:Orientation=\"4\"</x:xmpmeta>".encode()
    )


# JPEG


def app1(data):
    return b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data


def exif_segment(exif):
    return app1(b"Exif\0\0" + exif)


def xmp_segment(xmp):
    return app1(b"http://ns.adobe.com/xap/1.0/\0" + xmp)


def jpeg_with(*segments, behind_frame=(), picture=None):
    """A JPEG with segments at its beginning, and behind the header of its frame."""
    plain = jpeg_bytes(corner() if picture is None else picture, quality=100, subsampling=0)
    at = segment(plain, 0xC0) - 4
    end = at + 2 + int.from_bytes(plain[at + 2 : at + 4], "big")
    return plain[:2] + b"".join(segments) + plain[2:end] + b"".join(behind_frame) + plain[end:]


# PNG


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def exif_chunk(exif):
    return chunk(b"eXIf", exif)


def text_chunk(kind, keyword, text, compressed=False):
    """A chunk of text; `compressed` is for iTXt."""
    if kind == b"zTXt":
        return chunk(kind, keyword + b"\0\0" + zlib.compress(text))
    if kind == b"iTXt":
        text = zlib.compress(text) if compressed else text
        return chunk(kind, keyword + bytes([0, compressed, 0, 0, 0]) + text)
    return chunk(kind, keyword + b"\0" + text)


def raw_profile(exif):
    """EXIF data as ImageMagick writes it into a chunk of text."""
    digits = (b"Exif\0\0" + exif).hex()
    lines = [digits[i : i + 72] for i in range(0, len(digits), 72)]
    return f"\nexif\n{len(exif) + 6:8}\n{chr(10).join(lines)}\n".encode()


def png_with(*before, behind=(), picture=None):
    """A PNG with chunks before its pixels, and behind them."""
    buffer = io.BytesIO()
    (corner() if picture is None else picture).save(buffer, "PNG")
    plain = buffer.getvalue()
    at, end = plain.index(b"IDAT") - 4, len(plain) - 12
    return plain[:at] + b"".join(before) + plain[at:end] + b"".join(behind) + plain[end:]


# WebP and TIFF


def webp_with(exif=b"", xmp=b"", picture=None):
    buffer = io.BytesIO()
    (corner() if picture is None else picture).save(buffer, "WEBP", lossless=True, exif=exif, xmp=xmp)
    return buffer.getvalue()


def tiff_with(type_=None, values=(6,), order="<", at=8, xmp=None, picture=None):
    """An uncompressed TIFF; its pixels are RGB, or gray where `picture` is."""
    picture = corner() if picture is None else picture
    channels, pixels = len(picture.getbands()), picture.tobytes()

    def entry(tag, kind, *numbers):
        return tag, kind, len(numbers), packed_values(kind, numbers, order)

    entries = [
        entry(256, 3, picture.width),
        entry(257, 3, picture.height),
        entry(258, 3, *[8] * channels),
        entry(259, 3, 1),
        entry(262, 3, 2 if channels == 3 else 1),
        (273, 4, 1, None),
        entry(277, 3, channels),
        entry(278, 3, picture.height),
        entry(279, 4, len(pixels)),
    ]
    if type_ is not None:
        entries.append(stated(type_, values, order))
    if xmp is not None:
        entries.append((700, 1, len(xmp), xmp))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", at)
    return head + bytes(at - 8) + directory(entries, order, at, pixels)
