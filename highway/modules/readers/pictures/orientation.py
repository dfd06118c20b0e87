"""Finds the orientation that a picture file states, with PIL's rule (`ImageOps.exif_transpose`) for every format.

Unlike PIL, it also accepts an entry of type BYTE, which PIL reads as bytes and ignores.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway.modules.readers.pictures import Still

__all__ = ["MIRRORS", "SWAPS", "mirrored", "stated_orientation", "upright"]

# By EXIF orientation: whether the axes are swapped; then whether to mirror left to right, and top to bottom.
SWAPS = np.array([False] * 5 + [True] * 4)
MIRRORS = np.array(
    [(0, 0), (0, 0), (1, 0), (1, 1), (0, 1), (0, 0), (1, 0), (1, 1), (0, 1)],
    dtype=np.bool_,
)

_CHUNK = re.compile(rb"\w{4}")
_RAW_EXIF, _XMP = b"Raw profile type exif", b"XML:com.adobe.xmp"
# Most bytes to decompress of a text in a PNG; the orientation is near its beginning.
_MOST_TEXT = 16 << 20


def stated_orientation(still: Still, contents: bytes) -> int:
    """EXIF orientation, 1 to 8, by which a picture is turned upright; found without decoding it.

    EXIF data comes first: its entry may have any type of number, and the first of several values is used; text and
    untyped bytes are not numbers. XMP (``tiff:Orientation``) is used only if EXIF has no such entry. All else is 1: no
    entry, another value, damaged data.

    Parameters
    ----------
    still : Still
        Header of the file.
    contents : bytes
        The file.
    """
    if still.format == "PNG":
        return jpeg.orientation(*_png_metadata(contents))
    return jpeg.orientation(still.exif, still.xmp)


def _png_metadata(contents: bytes) -> tuple[bytes | None, bytes | None]:
    """EXIF and XMP data of a PNG, before or after its pixels, as PIL finds them after decoding."""
    exif = raw_exif = xmp = international_xmp = None
    for kind, data in _png_chunks(contents):
        if kind == b"eXIf":
            exif = data
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, _, rest = data.partition(b"\0")
            if keyword not in (b"exif", _RAW_EXIF, _XMP):
                continue
            text, decodes = _png_text(kind, rest)
            if text is None:
                continue
            if keyword == b"exif" and kind == b"tEXt":
                exif = text
            elif keyword == _RAW_EXIF and decodes:
                raw_exif = text
            elif keyword == _XMP:
                # PIL also keeps the text of iTXt as bytes, and uses them if the text is empty.
                international_xmp = text if kind == b"iTXt" else international_xmp
                xmp = text if decodes else xmp
    if exif is None and raw_exif is not None:
        exif = _from_hex(raw_exif)
    return exif, xmp or international_xmp


def _png_chunks(contents: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield type and data of each chunk of the first frame, without copying pixels."""
    at, frames, framed, pixels = 8, 0, False, False
    while at + 8 <= len(contents):
        length, kind = struct.unpack_from(">I4s", contents, at)
        end = at + 8 + length
        if kind == b"IEND" or end > len(contents) or not _CHUNK.fullmatch(kind):
            return
        if kind in (b"IDAT", b"fdAT"):
            pixels = True
        elif kind == b"acTL" and not pixels and length >= 8:
            (count,) = struct.unpack_from(">I", contents, at + 8)
            # A second acTL chunk, or one that is out of range, means no animation.
            frames = count if not frames and count <= 1 << 31 else 0
        elif kind == b"fcTL":
            # If the first frame is not part of the animation, the next one begins here.
            if pixels and frames and frames + (not framed) > 1:
                return
            framed = framed or not pixels
        else:
            yield kind, contents[at + 8 : end]
        at = end + 4


def _png_text(kind: bytes, rest: bytes) -> tuple[bytes | None, bool]:
    """Text of a chunk after its keyword, None if it cannot be read; and whether its encoding is valid."""
    if kind == b"tEXt":
        return rest, True
    if kind == b"zTXt":
        return (_inflated(rest[1:]) or b"") if rest[:1] in (b"", b"\0") else None, True
    parts = rest[2:].split(b"\0", 2)
    if len(parts) < 3:
        return None, False
    compressed, method = rest[:2]
    text: bytes | None = parts[2]
    if compressed:
        text = _inflated(parts[2]) if method == 0 else None
    try:
        for part in (parts[0], parts[1], text or b""):
            part.decode()
    except UnicodeDecodeError:
        return text, False
    return text, True


def _inflated(data: bytes) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(data, _MOST_TEXT)
    except zlib.error:
        return None


def _from_hex(profile: bytes) -> bytes | None:
    """Decode a profile of ImageMagick: an empty line, a name, a length, and lines of hexadecimal digits."""
    try:
        return bytes.fromhex("".join(profile.decode("latin-1").split("\n")[3:]))
    except ValueError:
        return None


def upright(picture: NDArray[Any], orientation: int) -> NDArray[Any]:
    """A view of a stored picture (H, W, ...), turned by its EXIF orientation."""
    if SWAPS[orientation]:
        picture = picture.swapaxes(0, 1)
    return mirrored(picture, MIRRORS[orientation])


def mirrored(picture: NDArray[Any], axes: NDArray[np.bool_]) -> NDArray[Any]:
    """A view of a picture (H, W, ...), mirrored left to right if ``axes[0]``, top to bottom if ``axes[1]``."""
    left_right, top_bottom = axes
    return picture[:: -1 if top_bottom else 1, :: -1 if left_right else 1]
