"""What all formats have in common: a picture as its file has it, before it becomes 8 bits of gray or RGB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Still"]


class Still(NamedTuple):
    """The one picture of a file that is read: the first.

    Attributes
    ----------
    format : str
        As PIL calls it.
    height, width : int
        As stored.
    decode : callable
        A PIL image, which may decode its pixels only when they are used. Nothing has been decoded before.
    bits : int
        Of a gray value, where PIL has more than 8 of them.
    negative : bool
        Whether such a value has white at 0, which PIL does not turn round.
    numbers : str
        Why the values that PIL has are not the numbers that are stored, which matters to masks; empty where they are.
    layout : str
        How the pixels are stored, for errors.
    exif, xmp : bytes, optional
        Where the orientation may be stated; of a PNG it is looked for elsewhere.
    tile : (int, int), optional
        Height and width of the parts that are decoded at once, which may be larger than the picture.
    """

    format: str
    height: int
    width: int
    decode: Callable[[], Any]
    bits: int = 16
    negative: bool = False
    numbers: str = ""
    layout: str = ""
    exif: bytes | None = None
    xmp: bytes | None = None
    tile: tuple[int, int] | None = None
