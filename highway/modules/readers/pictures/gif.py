"""GIF: reads the screen and the first frame."""

from __future__ import annotations

import io
import struct
from typing import Any

from highway.errors import DecodeError
from highway.modules.readers.pictures.still import Still

__all__ = ["MAGICS", "read"]

MAGICS = (b"GIF87a", b"GIF89a")
_CONTROL = 0xF9


def read(contents: bytes) -> Still:
    """Read the header of a GIF, up to the pixels of its first frame.

    Raises
    ------
    DecodeError
        The text continues the name of the file.
    """
    try:
        at = 13 + _palette_bytes(contents[10])
        head, control = contents[:at], b""
        while (kind := contents[at]) != 0x2C:
            if kind == 0x3B:
                raise DecodeError("is damaged: a GIF without a frame")
            if kind != 0x21:
                # Some writers put extra bytes between blocks.
                at += 1
                continue
            end = at + 2
            while size := contents[end]:
                end += 1 + size
            if contents[at + 1] == _CONTROL and contents[at + 2] >= 4:
                control = contents[at : end + 1]
            at = end + 1
        left, top, width, height = struct.unpack_from("<4H", contents, at + 1)
    except (IndexError, struct.error):
        raise DecodeError("is cut off before its first frame") from None
    screen = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    whole_width, whole_height = max(screen[0], left + width), max(screen[1], top + height)
    covered = (left, top) == (0, 0) and (width, height) == (whole_width, whole_height)

    def decode() -> Any:
        from PIL import GifImagePlugin

        # The screen is enlarged to the frame, and no disposal prepares a second frame: PIL would check the first frame
        # against its own limit, and make another picture for the second.
        sides = whole_width.to_bytes(2, "little") + whole_height.to_bytes(2, "little")
        still = control and b"".join([control[:3], bytes([control[3] & ~0x1C]), control[4:]])
        needed = b"".join([head[:6], sides, head[10:], still, memoryview(contents)[at:]])
        return GifImagePlugin.GifImageFile(io.BytesIO(needed))

    if not (whole_width < 1 << 16 and whole_height < 1 << 16):
        raise DecodeError(f"is damaged: its first frame ends at {left + width} x {top + height}")
    return Still(
        "GIF",
        whole_height,
        whole_width,
        decode,
        numbers="" if covered else "a first frame that leaves a part of the picture open",
        layout=f"GIF, a first frame of {height} x {width} pixels",
    )


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
