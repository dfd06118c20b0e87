"""Still: the header of a picture in any format, before it is decoded to gray or RGB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Still"]


class Still(NamedTuple):
    """The first picture of a file, the only one that is read.

    Attributes
    ----------
    format : str
        PIL's name of the format.
    height, width : int
        Size as stored.
    decode : callable
        Returns a PIL image, which may decode its pixels only when they are used. Nothing is decoded before the call.
    bits : int
        Bits of a gray value, if PIL reads more than 8.
    negative : bool
        Whether such a value has white at 0, which PIL does not invert.
    numbers : str
        Why PIL's values are not the stored numbers, which matters for masks; empty if they are.
    layout : str
        How the pixels are stored, for errors.
    exif, xmp : bytes, optional
        Metadata that may state the orientation; that of a PNG is read by `stated_orientation`.
    tile : (int, int), optional
        Height and width of the parts that are decoded at once, which may be larger than the picture.
    decode_wide : callable, optional
        Returns all bits of RGB of 16 bits, of which `decode` has the upper 8: uint16 (height, width, 3).
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
    decode_wide: Callable[[], NDArray[np.uint16]] | None = None
