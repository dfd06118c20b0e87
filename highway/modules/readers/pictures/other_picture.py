"""OtherPicture: decodes pictures with PIL (Pillow-SIMD or Pillow)."""

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
# Pictures are converted to arrays in bands of about so many pixels, which keeps the intermediate images small.
_BAND = 1 << 20
# Parts of libtiff whose warnings mean that pixels could not be decoded.
_DECODERS = re.compile("Decode|JPEGLib")
_MOST_MESSAGES = 3


class OtherPicture:
    """A picture in any format but JPEG: reads its size at once, and decodes its pixels on demand.

    Alpha is dropped, palettes are resolved, 12 and 16 bits are reduced to the upper 8 unless they are kept, and only
    the first frame is read: docs/formats.md has a table.

    Parameters
    ----------
    contents : bytes
        The whole file.
    gray : bool
        One channel (ITU-R 601 luma) instead of RGB.
    wide : bool
        16 bits instead of 8: ``value * 257`` of 8 bits.
    oriented : bool
        Whether to turn the picture upright by its `stated_orientation`; otherwise it is as stored.
    max_pixels : int
        Largest picture, checked before decoding. PIL's own limit does not apply.
    owner : str
        Name of the reader, for errors.

    Raises
    ------
    MissingPackageError
        PIL, or a part of it, is not installed.
    MemoryError
    DecodeError
        States what was found and what was expected; the text continues the name of the file.

    Attributes
    ----------
    height, width : int
        Size of the upright picture; of the stored picture unless `oriented`.
    orientation : int
        EXIF orientation, 1 to 8, by which it is turned upright; 1 unless `oriented`.
    """

    def __init__(
        self,
        contents: bytes,
        *,
        gray: bool,
        oriented: bool,
        max_pixels: int,
        wide: bool = False,
        owner: str = "OtherPicture",
    ) -> None:
        pillow(owner)
        self._gray = gray
        self._wide = wide
        self._still: Still | None = opened(contents, max_pixels)
        self.height, self.width = self._still.height, self._still.width
        self.orientation = stated_orientation(self._still, contents) if oriented else 1
        if self.orientation >= 5:
            self.height, self.width = self.width, self.height

    def release(self) -> None:
        """Free the file; the values of the header stay."""
        self._still = None

    @property
    def released(self) -> bool:
        """Whether the file was freed."""
        return self._still is None

    def pixels(self) -> NDArray[Any]:
        """Decode the picture. Call it once: it frees the file, and does not keep the pixels.

        Returns
        -------
        uint8 or, if `wide`, uint16 (height, width, C), C-contiguous

        Raises
        ------
        MemoryError
        DecodeError
            See the class.
        """
        still, self._still = self._still, None
        assert still is not None
        with named_errors(still.layout):
            if self._wide and still.decode_wide is not None:
                array = _luma(still.decode_wide()) if self._gray else still.decode_wide()
            else:
                array = _to_array(still.decode(), self._gray, still, self._wide)
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
    known: str = "JPEG, PNG, WebP, BMP, GIF, TIFF, PGM",
) -> Still:
    """Read the header of a file and check the size of its picture.

    Raises
    ------
    DecodeError
        The file has none of the formats, is damaged, not supported, or too large; the text continues its name.
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
        PIL is not installed; `owner` is the name of the reader.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingPackageError(
            f"{owner}: the data has files that only PIL reads, and PIL is not installed: pip install Pillow-SIMD (or "
            "Pillow, if other packages need it)"
        ) from None
    return Image


@contextmanager
def named_errors(layout: str = "") -> Iterator[None]:
    """Turn any error of PIL for a bad file into a DecodeError, whose text continues the name of the file.

    If a part of PIL is missing, it raises MissingPackageError.

    Messages of libtiff become part of the error instead of going to stderr. Its errors, and warnings of its decoders,
    raise even if PIL continues.
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
        messages = [
            f"{type(error).__name__}: {error}",
            *(f"{part}: {text}" for _, part, text in said[:_MOST_MESSAGES]),
        ]
        raise DecodeError(f"cannot be decoded: {'; '.join(messages)}{layout and f' ({layout})'}") from error
    lost = [f"{part}: {text}" for is_error, part, text in said if is_error or _DECODERS.search(part)]
    if lost:
        raise DecodeError(f"is damaged: {'; '.join(lost[:_MOST_MESSAGES])}{layout and f' ({layout})'}")


@functools.cache
def _listening() -> bool:
    """Whether the messages of PIL's libtiff can be kept: not if it is linked into PIL with hidden symbols."""
    from PIL import _imaging

    return tiff_messages.listen(os.fsencode(str(_imaging.__file__)))


def _luma(pixels: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """ITU-R 601 luma of uint16 (height, width, 3), with the weights that PIL has for 8 bits."""
    red, green, blue = np.moveaxis(pixels.astype(np.uint32), 2, 0)
    luma: NDArray[np.uint16] = ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint16)
    return luma[:, :, None]


def _to_array(image: Any, gray: bool, still: Still, wide: bool) -> NDArray[Any]:
    """Convert a PIL image to uint8, or uint16 if `wide`, (height, width, 1 or 3), band by band."""
    from PIL import Image

    image.load()
    # Alpha is dropped, so PIL does not need to handle a transparent color.
    image.info.pop("transparency", None)
    width, height = image.size
    array = np.empty((height, width, 1 if gray else 3), np.uint16 if wide else np.uint8)
    converted = _converter(image, gray, still, wide)
    widened = wide and not _is_sixteen(image)
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        # Pasted, not cropped, because PIL has a limit for crops.
        band = image if bottom - top == height else Image.new(image.mode, (width, bottom - top))
        if band is not image:
            band.paste(image, (0, -top))
        array[top:bottom] = converted(band)
        if widened:
            array[top:bottom] *= 257
    return array


def _is_sixteen(image: Any) -> bool:
    """Whether PIL has gray values of 12 or 16 bits."""
    return bool(image.mode.startswith("I;16"))


def _converter(image: Any, gray: bool, still: Still, wide: bool) -> Callable[[Any], NDArray[Any]]:
    """Return the function that converts a band of this image to (rows, width, 1 or 3).

    The result is uint8; or uint16 if `wide` and the image `_is_sixteen`.
    """
    mode = "L" if gray else "RGB"
    if _is_sixteen(image):
        if wide:
            return lambda band: _all_bits(np.asarray(band), still.bits, still.negative)
        shift = still.bits - 8
        return lambda band: _upper_bits(np.asarray(band), shift, still.negative)
    if image.mode in ("P", "PA"):
        return _lookup(image, mode)
    if image.mode in ("1", "L", "LA", "La", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"):
        return lambda band: _channels(band, mode)
    raise DecodeError(f"has pixels that PIL reads as mode {image.mode}, which has no 8 bits ({still.layout})")


def _upper_bits(pixels: NDArray[Any], shift: int, negative: bool) -> NDArray[np.uint8]:
    """The upper 8 bits of wider gray values, as PIL reduces wider colors."""
    upper = (pixels >> shift).astype(np.uint8)[:, :, None]
    return 255 - upper if negative else upper


def _all_bits(pixels: NDArray[Any], bits: int, negative: bool) -> NDArray[np.uint16]:
    """Gray values of 12 or 16 bits in the range of 16: the upper bits of 12 are repeated below them."""
    values = pixels.astype(np.uint16)[:, :, None]
    if bits < 16:
        np.bitwise_or(values << (16 - bits), values >> (2 * bits - 16), out=values)
    return 65535 - values if negative else values


def _lookup(image: Any, mode: str) -> Callable[[Any], NDArray[np.uint8]]:
    """Return the function that resolves the palette of this image."""
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
    # Gray stays one channel: assigning it to three channels repeats it.
    wanted = "L" if band.mode in ("1", "L", "LA") else mode
    pixels = np.asarray(band if band.mode == wanted else band.convert(wanted))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]
