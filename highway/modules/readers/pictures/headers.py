"""Finds the format of a file and reads its header."""

from __future__ import annotations

import functools
from collections.abc import Callable, Container

from highway.modules.readers.pictures import bmp, gif, pgm, plugin_formats, png, tiff, webp
from highway.modules.readers.pictures.still import Still
from highway.storage.sniffing import FIRST_BYTES, sniff

__all__ = ["NAMES", "header"]

NAMES = ("PNG", "WebP", "BMP", "GIF", "TIFF", "PGM", *plugin_formats.NAMES)
_FORMATS: dict[str, tuple[Callable[[bytes], bool], Callable[[bytes], Still]]] = {
    "PNG": (lambda contents: contents.startswith(png.MAGIC), png.read),
    "WebP": (webp.is_webp, webp.read),
    "BMP": (lambda contents: contents.startswith(bmp.MAGIC), bmp.read),
    "GIF": (lambda contents: contents.startswith(gif.MAGICS), gif.read),
    "TIFF": (tiff.is_tiff, tiff.read),
    "PGM": (lambda contents: sniff(contents[:FIRST_BYTES]) == "PGM", pgm.read),
} | {
    name: (
        functools.partial(plugin_formats.is_one, name=name),
        functools.partial(plugin_formats.read, name=name),
    )
    for name in plugin_formats.NAMES
}


def header(contents: bytes, formats: Container[str] = NAMES) -> Still | None:
    """Read the header of a file without decoding pixels; None if the file has none of the formats.

    Raises
    ------
    MissingPackageError
        PIL needs a plug-in for the format.
    DecodeError
        The header is damaged or not supported; the text continues the name of the file.
    """
    for name, (is_one, read) in _FORMATS.items():
        if name in formats and is_one(contents):
            return read(contents)
    return None
