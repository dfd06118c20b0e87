"""Pictures that are no JPEGs, through PIL (Pillow-SIMD or Pillow)."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway._core.tiff import tiff_messages
from highway.errors import DecodeError, MissingPackageError
from highway.modules.readers import pictures
from highway.modules.readers.pictures import Still
from highway.modules.readers.pictures.missing_parts import missing_part
from highway.modules.readers.pictures.orientation import stated_orientation, upright
from highway.storage.sniffing import unknown

__all__ = ["OtherPicture", "named_errors", "opened", "pillow"]

_LONGEST_SIDE = 1 << 24
# A picture becomes an array in bands of about so many pixels: what is between the two stays small.
_BAND = 1 << 20
# Parts of libtiff that warn of pixels that they could not decode.
_DECODERS = re.compile("Decode|JPEGLib")
_MOST_MESSAGES = 3


class OtherPicture:
    """A PNG, WebP, BMP, GIF or TIFF: its size at once, its pixels when they are asked for.

    Alpha is dropped, palettes are resolved, of 12 and 16 bits the upper 8 are kept, of several frames the first is
    taken: docs/formats.md has a table.

    Parameters
    ----------
    contents : bytes
        The whole file.
    gray : bool
        One channel (ITU-R 601 luma) instead of RGB.
    oriented : bool
        Whether the picture is turned upright, as `stated_orientation` says; otherwise it is as stored.
    max_pixels : int
        Largest picture, checked before anything is decoded. PIL's own limit does not count.
    owner : str
        Who reads, for errors.

    Raises
    ------
    MissingPackageError
        PIL, or a part of it, is not installed.
    MemoryError
    DecodeError
        Text that follows the name of the file: what was found and what was expected.

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
        pillow(owner)
        self._gray = gray
        self._still: Still | None = opened(contents, max_pixels)
        self.height, self.width = self._still.height, self._still.width
        self.orientation = stated_orientation(self._still, contents) if oriented else 1
        if self.orientation >= 5:
            self.height, self.width = self.width, self.height

    def release(self) -> None:
        """Keep no file; what the header says stays."""
        self._still = None

    def same(self, other: OtherPicture) -> bool:
        """Whether the header of another file says the same."""
        return (self.height, self.width, self.orientation) == (other.height, other.width, other.orientation)

    @property
    def released(self) -> bool:
        """Whether the file is not kept any more."""
        return self._still is None

    def pixels(self) -> NDArray[np.uint8]:
        """Decode, once: neither the file nor the picture is kept after that.

        Returns
        -------
        uint8 (height, width, C), C-contiguous

        Raises
        ------
        MemoryError
        DecodeError
            As the class.
        """
        still, self._still = self._still, None
        assert still is not None
        with named_errors(still.layout):
            array = _to_array(still.decode(), self._gray, still)
        if array.shape[:2] != (still.height, still.width):
            raise DecodeError(
                f"is damaged: {array.shape[0]} x {array.shape[1]} pixels, its header says {still.height} x "
                f"{still.width}"
            )
        return np.ascontiguousarray(upright(array, self.orientation))


def opened(
    contents: bytes,
    max_pixels: int,
    formats: Sequence[str] = pictures.NAMES,
    known: str = "JPEG, PNG, WebP, BMP, GIF, TIFF",
) -> Still:
    """What a file says before its pixels.

    Raises
    ------
    DecodeError
        Text that follows the name of the file: it has none of the formats, is damaged, not read, or too large.
    """
    still = pictures.header(contents, formats)
    if still is None:
        raise DecodeError(unknown(contents, known))
    for what, (height, width) in (("", (still.height, still.width)), ("parts of ", still.tile or (1, 1))):
        if max(height, width) > _LONGEST_SIDE or height * width > max_pixels:
            raise DecodeError(
                f"has {what}{height} x {width} pixels, allowed are {max_pixels} in total (max_pixels) and "
                f"{_LONGEST_SIDE} on a side"
            )
    return still


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
def named_errors(layout: str = "") -> Iterator[None]:
    """Whatever PIL raises for a bad file as DecodeError: text for behind the name of the file.

    Where a part of PIL is missing it is a MissingPackageError.

    What libtiff says meanwhile belongs to the error, instead of stderr; its errors, and what its decoders warn of, are
    errors even where PIL goes on.
    """
    listening = _listening()
    if listening:
        tiff_messages.keep()
    said: list[tuple[bool, str, str]] = []
    try:
        try:
            yield
        finally:
            if listening:
                said = tiff_messages.kept()
    except (DecodeError, MemoryError):
        raise
    except Exception as error:  # hostile files make PIL's plugins raise nearly anything
        part = missing_part(error, [text for _, _, text in said])
        if part is not None:
            raise MissingPackageError(
                f"PIL is installed without a part that a picture needs: {part}; install a "
                "Pillow-SIMD, or a Pillow, that was built with it"
            ) from error
        told = [
            f"{type(error).__name__}: {error}",
            *(f"{part}: {text}" for _, part, text in said[:_MOST_MESSAGES]),
        ]
        raise DecodeError(f"cannot be decoded: {'; '.join(told)}{layout and f' ({layout})'}") from error
    lost = [f"{part}: {text}" for is_error, part, text in said if is_error or _DECODERS.search(part)]
    if lost:
        raise DecodeError(f"is damaged: {'; '.join(lost[:_MOST_MESSAGES])}{layout and f' ({layout})'}")


@functools.cache
def _listening() -> bool:
    """Whether the messages of PIL's libtiff can be kept: not where PIL has it, with its names hidden, inside."""
    from PIL import _imaging

    return tiff_messages.listen(os.fsencode(str(_imaging.__file__)))


def _to_array(image: Any, gray: bool, still: Still) -> NDArray[np.uint8]:
    """A PIL image as uint8 (height, width, 1 or 3), band by band."""
    from PIL import Image

    image.load()
    # Alpha is dropped: PIL need not look for a color that stands for it.
    image.info.pop("transparency", None)
    width, height = image.size
    array = np.empty((height, width, 1 if gray else 3), np.uint8)
    eight_bits = _converter(image, gray, still)
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        # Pasted, not cropped: PIL has a limit on what it crops.
        band = image if bottom - top == height else Image.new(image.mode, (width, bottom - top))
        if band is not image:
            band.paste(image, (0, -top))
        array[top:bottom] = eight_bits(band)
    return array


def _converter(image: Any, gray: bool, still: Still) -> Callable[[Any], NDArray[np.uint8]]:
    """What makes a band of this image uint8 (rows, width, 1 or 3)."""
    mode = "L" if gray else "RGB"
    if image.mode.startswith("I;16"):
        shift = still.bits - 8
        return lambda band: _upper_bits(np.asarray(band), shift, still.negative)
    if image.mode in ("P", "PA"):
        return _lookup(image, mode)
    if image.mode in ("1", "L", "LA", "La", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
        return lambda band: _channels(band, mode)
    raise DecodeError(f"has pixels that PIL reads as mode {image.mode}, which has no 8 bits ({still.layout})")


def _upper_bits(pixels: NDArray[Any], shift: int, negative: bool) -> NDArray[np.uint8]:
    """The upper 8 bits of wider gray values, as PIL has them of wider colors."""
    upper = (pixels >> shift).astype(np.uint8)[:, :, None]
    return 255 - upper if negative else upper


def _lookup(image: Any, mode: str) -> Callable[[Any], NDArray[np.uint8]]:
    """What resolves the palette of this image."""
    from PIL import Image

    every = Image.frombytes("P", (256, 1), bytes(range(256)))
    every.putpalette(image.getpalette("RGB"))
    colors: NDArray[np.uint8] = np.asarray(every.convert(mode)).reshape(256, -1)

    def resolve(band: Any) -> NDArray[np.uint8]:
        indices = np.asarray(band)
        resolved: NDArray[np.uint8] = colors[indices[:, :, 0] if indices.ndim == 3 else indices]
        return resolved

    return resolve


def _channels(band: Any, mode: str) -> NDArray[np.uint8]:
    if band.mode == "La":
        band = band.convert("LA")
    if band.mode == "RGBX":
        band = band.convert("RGB")
    # Gray stays one channel: who fills three from it repeats it.
    wanted = "L" if band.mode in ("1", "L", "LA") else mode
    pixels = np.asarray(band if band.mode == wanted else band.convert(wanted))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]
