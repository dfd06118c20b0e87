"""BMP: reads the header, and the pixels of files with a palette, run-length encoded or not."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.errors import DecodeError
from highway.modules.readers.pictures.still import Still

__all__ = ["MAGIC", "read"]

MAGIC = b"BM"
_RAW, _RLE8, _RLE4 = 0, 1, 2
_HEADERS = (12, 40, 52, 56, 64, 108, 124)


class _Header:
    def __init__(self, contents: bytes) -> None:
        try:
            self.offset, size = struct.unpack_from("<LL", contents, 10)
            if size not in _HEADERS:
                raise DecodeError(
                    f"is damaged: a BMP with a header of {size} bytes; expected one of {_HEADERS}"
                )
            if size == 12:
                self.width, height, _, self.bits = struct.unpack_from("<HHHH", contents, 18)
                self.compression, self.colors, color_bytes = _RAW, 0, 3
            else:
                self.width, height, _, self.bits, self.compression = struct.unpack_from(
                    "<LlHHL", contents, 18
                )
                self.colors, color_bytes = struct.unpack_from("<L", contents, 46)[0], 4
        except struct.error:
            raise DecodeError("is cut off: a BMP without a header") from None
        self.height, self.upward = abs(height), height > 0
        self.colors = self.colors or 1 << min(self.bits, 8)
        start = 14 + size
        end = start + color_bytes * self.colors
        self.palette = contents[start:end], color_bytes
        # Some writers store the offset of the palette, or 0, as the offset of the pixels.
        if self.offset in (0, start):
            self.offset = end

    def __str__(self) -> str:
        return f"BMP, {self.bits} bits a pixel, compression {self.compression}"


def read(contents: bytes) -> Still:
    """Read the header of a BMP.

    Raises
    ------
    DecodeError
        The text continues the name of the file.
    """
    header = _Header(contents)
    if not (0 < header.height < 1 << 31 and 0 < header.width < 1 << 31):
        raise DecodeError(f"is damaged: a BMP of {header.height} x {header.width} pixels")

    def decode() -> Any:
        if header.bits <= 8:
            return _with_palette(contents, header)
        from PIL import BmpImagePlugin

        return BmpImagePlugin.BmpImageFile(io.BytesIO(contents))

    return Still("BMP", header.height, header.width, decode, layout=str(header))


def _with_palette(contents: bytes, header: _Header) -> Any:
    """Decode to a PIL image of mode P.

    PIL's own decoder takes some palettes for gray and then reads each byte as a pixel, and decodes some runs wrong.
    """
    from PIL import Image

    indices = _indices(contents, header)
    image = Image.frombuffer("P", (header.width, header.height), indices, "raw", "P", 0, 1)
    colors, color_bytes = header.palette
    count = min(len(colors) // color_bytes, 256)
    bgr = np.frombuffer(colors, np.uint8, count * color_bytes).reshape(count, color_bytes)
    image.putpalette(np.ascontiguousarray(bgr[:, 2::-1]).tobytes(), "RGB")
    return image


def _indices(contents: bytes, header: _Header) -> NDArray[np.uint8]:
    """The stored palette indices, uint8 (height, width), upright."""
    if (header.compression, header.bits) in ((_RLE8, 8), (_RLE4, 4)):
        rows = _from_runs(contents, header)
    elif header.compression == _RAW and header.bits in (1, 2, 4, 8):
        rows = _from_rows(contents, header)
    else:
        raise DecodeError(
            f"has {header.bits} bits a pixel in compression {header.compression}, which is not read"
        )
    return np.ascontiguousarray(rows[::-1] if header.upward else rows)


def _from_rows(contents: bytes, header: _Header) -> NDArray[np.uint8]:
    used = (header.width * header.bits + 7) // 8
    stride = (used + 3) & ~3
    size = stride * (header.height - 1) + used
    if header.offset + size > len(contents):
        raise DecodeError(
            f"is cut off: {size} bytes of pixels begin at byte {header.offset}, the file has {len(contents)}"
        )
    stored = np.frombuffer(contents, np.uint8, size, header.offset)
    packed = np.lib.stride_tricks.as_strided(stored, (header.height, used), (stride, 1), writeable=False)
    if header.bits == 8:
        return packed
    pixels = np.empty((header.height, used * 8 // header.bits), np.uint8)
    each = 8 // header.bits
    for place in range(each):
        shift = 8 - header.bits * (place + 1)
        pixels[:, place::each] = packed >> shift & (1 << header.bits) - 1
    return pixels[:, : header.width]


def _from_runs(contents: bytes, header: _Header) -> NDArray[np.uint8]:
    """Decode rows of RLE8 or RLE4, in stored order.

    Pixels that a move or the end of a row skips are 0. A run of one color that is longer than its row is cut.
    """
    height, width, four_bits = header.height, header.width, header.bits == 4
    pixels = bytearray(height * width)
    x = y = 0
    at = header.offset
    try:
        while True:
            count, code = contents[at], contents[at + 1]
            at += 2
            if count:
                if x >= width or y >= height:
                    raise _beyond(x, y, header)
                count = min(count, width - x)
                colors = bytes([code >> 4, code & 15]) * 128 if four_bits else bytes([code]) * count
                pixels[y * width + x : y * width + x + count] = colors[:count]
                x += count
            elif code == 0:
                x, y = 0, y + 1
            elif code == 1:
                break
            elif code == 2:
                x, y = x + contents[at], y + contents[at + 1]
                at += 2
            else:
                if x + code > width or y >= height:
                    raise _beyond(x + code, y, header)
                size = (code + 1) // 2 if four_bits else code
                stored = contents[at : at + size]
                if len(stored) < size:
                    raise IndexError
                colors = bytes(k for byte in stored for k in (byte >> 4, byte & 15)) if four_bits else stored
                pixels[y * width + x : y * width + x + code] = colors[:code]
                x += code
                at += size + (size & 1)
    except IndexError:
        # Only the end marker is missing, and no pixel.
        if not (y >= height or (y == height - 1 and x >= width)):
            raise DecodeError(f"is cut off: its runs end in row {y + 1} of {height}") from None
    # The last row may end with an end-of-row marker.
    if y < height - 1 or (y == height - 1 and x == 0):
        raise DecodeError(f"is damaged: its runs end after row {y if x == 0 else y + 1} of {height}")
    return np.frombuffer(pixels, np.uint8).reshape(height, width)


def _beyond(x: int, y: int, header: _Header) -> DecodeError:
    return DecodeError(
        f"is damaged: a run to column {x} of row {y + 1}, the picture has {header.height} x {header.width} pixels"
    )
