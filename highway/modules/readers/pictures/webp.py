"""WebP: reads the header and the first frame."""

from __future__ import annotations

import struct
from typing import Any

from highway.errors import DecodeError
from highway.modules.readers.pictures.still import Still

__all__ = ["is_webp", "read"]


def is_webp(contents: bytes) -> bool:
    """Whether a file begins like a WebP."""
    return contents[:4] == b"RIFF" and contents[8:12] == b"WEBP"


def read(contents: bytes) -> Still:
    """Read the header of a WebP.

    Raises
    ------
    DecodeError
        The text continues the name of the file.
    """
    height, width = _size(contents)

    def decode() -> Any:
        from PIL import Image, _webp

        # PIL's plugin has its own limit, and copies every pixel once more.
        decoder = _webp.WebPAnimDecoder(contents)
        if decoder is None:
            raise DecodeError("is damaged: a WebP that libwebp does not open")
        size, _, _, _, mode = decoder.get_info()
        frame = decoder.get_next()
        if frame is None:
            raise DecodeError("is damaged: a WebP whose first frame libwebp does not decode")
        return Image.frombuffer(mode, size, frame[0], "raw", mode, 0, 1)

    return Still(
        "WEBP",
        height,
        width,
        decode,
        layout="WebP",
        exif=_chunk(contents, b"EXIF"),
        xmp=_chunk(contents, b"XMP "),
    )


def _size(contents: bytes) -> tuple[int, int]:
    kind, data = contents[12:16], contents[20:30]
    if kind == b"VP8X" and len(data) == 10:
        return int.from_bytes(data[7:10], "little") + 1, int.from_bytes(data[4:7], "little") + 1
    if kind == b"VP8 " and len(data) == 10 and data[3:6] == b"\x9d\x01\x2a":
        width, height = struct.unpack("<HH", data[6:10])
        return height & 0x3FFF, width & 0x3FFF
    if kind == b"VP8L" and len(data) >= 5 and data[0] == 0x2F:
        packed = int.from_bytes(data[1:5], "little")
        return (packed >> 14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1
    raise DecodeError("is damaged: a WebP without a header (VP8, VP8L or VP8X)")


def _chunk(contents: bytes, name: bytes) -> bytes | None:
    """The data of the first chunk of this name."""
    at = 12
    while at + 8 <= len(contents):
        size = int.from_bytes(contents[at + 4 : at + 8], "little")
        if contents[at : at + 4] == name:
            return contents[at + 8 : at + 8 + size]
        at += 8 + size + (size & 1)
    return None
