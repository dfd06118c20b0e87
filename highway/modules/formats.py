"""Pictures that are no JPEGs, through PIL (Pillow-SIMD or Pillow)."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.errors import DecodeError, MissingPackageError
from highway.modules.missing_parts import missing_part, refuse_without_webp
from highway.modules.orientation import stated_orientation, stored_size, turn_of_decoded
from highway.modules.shown import upright
from highway.modules.sniffing import unknown

__all__ = ["OtherPicture", "named_errors", "pillow"]

# These alone: PIL hands others to programs outside (EPS), or knows them by nothing but their name.
_FORMATS = ("PNG", "WEBP", "BMP", "GIF", "TIFF")
_LONGEST_SIDE = 1 << 24


class OtherPicture:
    """A PNG, WebP, BMP, GIF or TIFF: its size at once, its pixels when they are asked for.

    Alpha is dropped, palettes are resolved, 16 bits are scaled to 8, of several frames the first is taken.

    Parameters
    ----------
    contents : bytes
        The whole file.
    gray : bool
        One channel (ITU-R 601 luma) instead of RGB.
    oriented : bool
        Whether the picture is turned upright, as `stated_orientation` says; otherwise it is as stored.
    max_pixels : int
        Largest picture, checked before it is decoded.
    owner : str
        Who reads, for errors.

    Raises
    ------
    MissingPackageError
        PIL, or a part of it, is not installed.
    MemoryError
    DecodeError
        Text for behind the name of the file: what was found and what was expected.

    Attributes
    ----------
    height, width : int
        Of the upright picture; of the stored one unless `oriented`.
    orientation : int
        EXIF, 1 to 8, by which it is turned upright; 1 unless `oriented`.
    """

    def __init__(
        self, contents: bytes, *, gray: bool, oriented: bool, max_pixels: int, owner: str = "OtherPicture"
    ) -> None:
        pil_image = pillow(owner)
        self._gray = gray
        with named_errors(contents):
            refuse_without_webp(contents)
            self._image = pil_image.open(io.BytesIO(contents), formats=_FORMATS)
            self.height, self.width = stored_size(self._image)
            stated = stated_orientation(self._image, contents)
            self._turn = turn_of_decoded(self._image, stated, oriented)
            self.orientation = stated if oriented else 1
            if self.orientation >= 5:
                self.height, self.width = self.width, self.height
        if max(self.height, self.width) > _LONGEST_SIDE or self.height * self.width > max_pixels:
            raise DecodeError(
                f"has {self.height} x {self.width} pixels, allowed are {max_pixels} in total (max_pixels) and "
                f"{_LONGEST_SIDE} on a side"
            )

    def pixels(self) -> NDArray[np.uint8]:
        """Decode, once.

        Returns
        -------
        uint8 (height, width, C), C-contiguous

        Raises
        ------
        MemoryError
        DecodeError
            As the class.
        """
        with named_errors(), self._image as image:
            image.load()
            array = np.ascontiguousarray(upright(_to_array(image, self._gray), self._turn))
        if array.shape[:2] != (self.height, self.width):
            raise DecodeError(
                f"is damaged: {array.shape[0]} x {array.shape[1]} pixels, its header says {self.height} x {self.width}"
            )
        return array


def pillow(owner: str) -> Any:
    """PIL.Image, imported when it is needed.

    Raises
    ------
    MissingPackageError
        PIL is not installed; `owner` is who reads.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingPackageError(
            f"{owner}: the data has files that are no JPEGs, and PIL, which reads the other formats, is not "
            "installed: pip install Pillow-SIMD (or Pillow, beside packages that need it)"
        ) from None
    return Image


@contextmanager
def named_errors(contents: bytes = b"", formats: str = "JPEG, PNG, WebP, BMP, GIF, TIFF") -> Iterator[None]:
    """Whatever PIL raises for a bad file as DecodeError: text for behind the name of the file, with these contents.

    Where a part of PIL is missing it is a MissingPackageError.
    """
    from PIL import UnidentifiedImageError

    try:
        yield
    except (DecodeError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise DecodeError(unknown(contents, formats)) from None
    except Exception as error:  # hostile files make PIL's plugins raise nearly anything
        part = missing_part(error)
        if part is not None:
            raise MissingPackageError(
                f"PIL is installed without a part that a picture needs: {part}; install a "
                "Pillow-SIMD, or a Pillow, that was built with it"
            ) from error
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
