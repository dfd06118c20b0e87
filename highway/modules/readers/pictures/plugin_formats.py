"""AVIF, HEIC and JPEG XL, which PIL reads with plug-ins: finds the plug-in, and reads headers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

from highway.errors import DecodeError, MissingPackageError
from highway.modules.readers.pictures.still import Still
from highway.storage.sniffing import FIRST_BYTES, sniff

__all__ = ["NAMES", "is_one", "read"]

NAMES = ("AVIF", "HEIC", "HEIF", "JPEG XL")


def is_one(contents: bytes, name: str) -> bool:
    """Whether a file begins like one of this format."""
    return sniff(contents[:FIRST_BYTES]) == name


def read(contents: bytes, name: str) -> Still:
    """Read the header of a file of the format `name`, one of `NAMES`.

    Raises
    ------
    MissingPackageError
        The plug-in is not installed.
    DecodeError
        The text continues the name of the file.
    """
    return _READERS[name](contents)


def _avif(contents: bytes) -> Still:
    image = _opened("AVIF", _avif_class(), contents)
    # The plug-in puts the orientation of the container into the EXIF data.
    return Still("AVIF", image.height, image.width, lambda: image, layout="AVIF", exif=image.info.get("exif"))


def _avif_class() -> Any:
    from PIL import features

    if "avif" in features.get_supported_modules():
        from PIL import AvifImagePlugin

        return AvifImagePlugin.AvifImageFile
    try:
        from pillow_avif import AvifImagePlugin as Plugin
    except ImportError:
        raise _missing("AVIF", "pillow-avif-plugin") from None
    return Plugin.AvifImageFile


def _heif(contents: bytes) -> Still:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise _missing("HEIC", "pillow-heif") from None
    image = _opened("HEIC", HeifImageFile, contents)
    # libheif has turned it.
    return Still("HEIF", image.height, image.width, lambda: image, layout="HEIC")


def _jpeg_xl(contents: bytes) -> Still:
    try:
        from pillow_jxl.JpegXLImagePlugin import JXLImageFile
    except ImportError:
        raise _missing("JPEG XL", "pillow-jxl-plugin") from None
    # The plug-in decodes when it opens a file. libjxl turns the picture.
    height, width = _jpeg_xl_size(contents)
    return Still("JXL", height, width, lambda: _opened("JPEG XL", JXLImageFile, contents), layout="JPEG XL")


_READERS: dict[str, Callable[[bytes], Still]] = {
    "AVIF": _avif,
    "HEIC": _heif,
    "HEIF": _heif,
    "JPEG XL": _jpeg_xl,
}


def _missing(name: str, package: str) -> MissingPackageError:
    return MissingPackageError(
        f"this is {name}, which PIL reads with a plug-in: pip install {package} (with --no-deps next to Pillow-SIMD), "
        "or convert the file"
    )


def _opened(name: str, plugin: Any, contents: bytes) -> Any:
    try:
        return plugin(io.BytesIO(contents))
    except MemoryError:
        raise
    except Exception as error:  # hostile files make plug-ins raise nearly anything
        raise DecodeError(f"cannot be decoded: {type(error).__name__}: {error} ({name})") from error


def _jpeg_xl_size(contents: bytes) -> tuple[int, int]:
    """Height and width of an upright JPEG XL (ISO/IEC 18181-1, SizeHeader and ImageMetadata)."""
    start = _codestream(contents)
    if start is None or contents[start : start + 2] != b"\xff\x0a":
        raise DecodeError("is damaged: a JPEG XL without a codestream")
    bits = _Bits(contents[start + 2 : start + 34])
    small = bits.take(1)
    height = 8 * (bits.take(5) + 1) if small else bits.number()
    ratio = bits.take(3)
    if ratio:
        numerator, denominator = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))[ratio - 1]
        width = height * numerator // denominator
    else:
        width = 8 * (bits.take(5) + 1) if small else bits.number()
    all_default = bits.take(1)
    orientation = bits.take(3) + 1 if not all_default and bits.take(1) else 1
    return (width, height) if orientation >= 5 else (height, width)


class _Bits:
    """Takes bits of bytes, the lowest first; zeros after the end."""

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data, "little")

    def take(self, count: int) -> int:
        value = self._bits & (1 << count) - 1
        self._bits >>= count
        return value

    def number(self) -> int:
        """A side in pixels of up to 9, 13, 18 or 30 bits."""
        return self.take((9, 13, 18, 30)[self.take(2)]) + 1


def _codestream(contents: bytes) -> int | None:
    """Offset of the first part of the codestream."""
    if contents.startswith(b"\xff\x0a"):
        return 0
    return next((at for kind, at in _boxes(contents) if kind == b"jxlc"), None) or next(
        (at + 4 for kind, at in _boxes(contents) if kind == b"jxlp"), None
    )


def _boxes(contents: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield type and offset of the data of the boxes of a container."""
    at = 0
    while at + 8 <= len(contents):
        size, head = int.from_bytes(contents[at : at + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(contents[at + 8 : at + 16], "big"), 16
        yield contents[at + 4 : at + 8], at + head
        if size < head:
            # 0: to the end of the file.
            return
        at += size
