"""PNG: reads the header, and keeps the chunks that the pixels depend on."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg import codec
from highway.errors import DecodeError, MissingPackageError
from highway.modules.readers.pictures.still import Still

__all__ = ["MAGIC", "read"]

MAGIC = b"\x89PNG\r\n\x1a\n"
# Of an image that the decoder writes.
_LONGEST_SIDE = 1 << 16
_COLORS = {0: "gray", 2: "RGB", 3: "a palette", 4: "gray and alpha", 6: "RGB and alpha"}
_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}


def read(contents: bytes) -> Still:
    """Read the header of a PNG.

    Raises
    ------
    DecodeError
        The text continues the name of the file.
    """
    if len(contents) < 29 or contents[12:16] != b"IHDR":
        raise DecodeError("is damaged: a PNG without a header (IHDR)")
    width, height = int.from_bytes(contents[16:20], "big"), int.from_bytes(contents[20:24], "big")
    bits, color = contents[24], contents[25]
    if bits not in _BITS.get(color, ()):
        raise DecodeError(
            f"is damaged: a PNG of color type {color} with {bits} bits, which PNG does not have"
        )
    numbers = (
        ""
        if color != 0 or bits in (1, 8, 16)
        else "2 or 4 bits of gray, which PIL does not read as the stored numbers"
    )

    def decode() -> Any:
        from PIL import PngImagePlugin

        return PngImagePlugin.PngImageFile(io.BytesIO(_needed(contents)))

    return Still(
        "PNG",
        height,
        width,
        decode,
        bits,
        numbers=numbers,
        layout=f"PNG, {_COLORS[color]}, {bits} bits a sample",
        decode_wide=(lambda: _wide(contents, height, width)) if bits == 16 and color != 0 else None,
    )


def _wide(contents: bytes, height: int, width: int) -> NDArray[np.uint16]:
    """Decode 16 bits with Highway's decoder, without the metadata that it does not read: PIL has only 8 of them."""
    if codec.library_versions()["PNG"] is None:
        raise MissingPackageError("PIL reads 8 of the 16 bits of this PNG: compile Highway with libdeflate")
    decoder = codec.BatchDecoder(max_pixels=height * width)
    try:
        if max(height, width) > _LONGEST_SIDE:
            raise DecodeError(f"has {height} x {width} pixels, allowed are {_LONGEST_SIDE} on a side")
        status = int(decoder.read_contents([_needed(contents)], False)[0, 0])
        if status == codec.OK:
            first, whole = np.zeros(1, np.int64), (0, 0, width, height)
            windows, targets = np.array([whole], np.float64), np.array([whole], np.int32)
            size = height, width, 3
            decoder.begin(first, windows, targets, np.zeros((1, 2), np.bool_), 0, True, size, wide=True)
            pixels = np.empty((1, *size), np.uint16)
            (status,) = decoder.finish(first, codec.Images(pixels))
            if status == codec.OK:
                decoded: NDArray[np.uint16] = pixels[0]
                return decoded
        if status == codec.NO_MEMORY:
            raise MemoryError(decoder.message(0))
        raise DecodeError(f'{decoder.message(0)} (with dtype="uint8", PIL may read it)')
    finally:
        decoder.close()


def _needed(contents: bytes) -> bytes:
    """The file with only the chunks that its pixels depend on.

    Dropped are text and color profiles, which PIL would unpack, and refuses if they are large; animation, whose frames
    PIL would search, because only the default image is read; and transparency, because alpha is dropped.
    """
    whole = memoryview(contents)
    kept, start = [], 0
    for name, at, end in _chunks(contents):
        if name[0] & 0x20:
            kept.append(whole[start:at])
            start = end
    if not kept:
        return contents
    return b"".join([*kept, whole[start:]])


def _chunks(contents: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of the chunks, up to the first one that is cut off or invalid, which PIL handles."""
    at = len(MAGIC)
    while at + 12 <= len(contents):
        name = contents[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(contents[at : at + 4], "big")
        if end > len(contents) or not name.isalpha():
            return
        yield name, at, end
        at = end
