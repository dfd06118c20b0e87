"""Pictures that are no JPEGs, through PIL (Pillow-SIMD or Pillow)."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.errors import DecodeError, MissingPackageError

__all__ = ["decode_other"]

_FORMATS = ("PNG", "WEBP", "BMP", "GIF", "TIFF")
_LONGEST_SIDE = 1 << 24


def decode_other(contents: bytes, *, gray: bool, oriented: bool, max_pixels: int) -> NDArray[np.uint8]:
    """Decode PNG, WebP, BMP, GIF and TIFF.

    Alpha is dropped, palettes are resolved, 16 bits are scaled to 8, of several frames the first is taken.

    Parameters
    ----------
    contents : bytes
        The whole file.
    gray : bool
        One channel (ITU-R 601 luma) instead of RGB.
    oriented : bool
        Whether the EXIF orientation counts.
    max_pixels : int
        Largest picture, checked before it is decoded.

    Returns
    -------
    uint8 (H, W, C), C-contiguous

    Raises
    ------
    MissingPackageError
        PIL is not installed.
    MemoryError
    DecodeError
        Text for behind the name of the file: what was found and what was expected.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise MissingPackageError(
            "ImageFileReader: the data has files that are no JPEGs, and PIL, which reads the other formats, is not "
            "installed: pip install Pillow-SIMD (or Pillow, beside packages that need it)"
        ) from None
    try:
        # These alone: others hand the file to programs outside (EPS), or are known by nothing but their name.
        with Image.open(io.BytesIO(contents), formats=_FORMATS) as image:
            if max(image.size) > _LONGEST_SIDE:
                raise DecodeError(
                    f"has {image.height} x {image.width} pixels, allowed are {_LONGEST_SIDE} on a side"
                )
            if image.width * image.height > max_pixels:
                raise DecodeError(
                    f"has {image.height} x {image.width} pixels, allowed are {max_pixels} in total"
                )
            upright = ImageOps.exif_transpose(image) if oriented else image
            return _to_array(upright, gray)
    except (DecodeError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise DecodeError("is no picture of a known format (JPEG, PNG, WebP, BMP, GIF, TIFF)") from None
    except Exception as error:  # hostile files make PIL's plugins raise nearly anything
        raise DecodeError(f"cannot be decoded: {type(error).__name__}: {error}") from error


def _to_array(image: Any, gray: bool) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        return _from_sixteen_bits(np.asarray(image), gray)
    if image.mode == "F":
        raise DecodeError("has floating point pixels, whose range is not known; expected 8 or 16 bits")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    array = np.ascontiguousarray(image.convert("L" if gray else "RGB"))
    return array[:, :, None] if gray else array


def _from_sixteen_bits(pixels: NDArray[Any], gray: bool) -> NDArray[np.uint8]:
    wide = pixels.astype(np.int64)
    if wide.min(initial=0) < 0 or wide.max(initial=0) > 0xFFFF:
        raise DecodeError(f"has pixels from {wide.min()} to {wide.max()}; expected 0 to 65535 for 16 bits")
    luma = ((wide * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8)[:, :, None]
    return luma if gray else np.repeat(luma, 3, axis=2)
