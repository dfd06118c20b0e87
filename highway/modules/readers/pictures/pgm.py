"""PGM, binary gray of Netpbm: reads the header and the pixels."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from highway.errors import DecodeError
from highway.modules.readers.pictures.still import Still

__all__ = ["read"]

# Three numbers after white space or comments, then one white space.
_HEAD = re.compile(rb"P5" + rb"(?:\s|#[^\n\r]*[\n\r])+(\d{1,10})" * 3 + rb"\s")
_HEAD_BYTES = 1024


def read(contents: bytes) -> Still:
    """Read the header of a PGM; it is within the first 1024 bytes.

    Raises
    ------
    DecodeError
        The text continues the name of the file.
    """
    head = _HEAD.match(contents[:_HEAD_BYTES])
    if head is None:
        raise DecodeError("is damaged: a PGM without width, height and largest value")
    width, height, most = map(int, head.groups())
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31 and 0 < most < 1 << 16):
        raise DecodeError(
            f"is damaged: a PGM of {height} x {width} pixels up to {most}; expected 1 or more, up to 1 to 65535"
        )
    start, size = head.end(), height * width * (1 if most < 256 else 2)
    if start + size > len(contents):
        raise DecodeError(
            f"is cut off: {size} bytes of pixels begin at byte {start}, the file has {len(contents)}"
        )
    bits = 8 if most < 256 else 16

    def decode() -> Any:
        from PIL import Image

        stored = np.frombuffer(contents, ">u2" if bits == 16 else np.uint8, height * width, start)
        if stored.max() > most:
            raise DecodeError(f"is damaged: a value of {stored.max()} in a PGM of values up to {most}")
        largest = (1 << bits) - 1
        if most != largest:
            stored = (stored.astype(np.uint32) * largest + most // 2) // most
        pixels = stored.astype("<u2" if bits == 16 else np.uint8).tobytes()
        mode = "I;16" if bits == 16 else "L"
        return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)

    return Still("PPM", height, width, decode, bits, layout=f"PGM of values up to {most}")
