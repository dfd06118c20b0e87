"""TIFF: reads the tags of the first picture, and keeps those that the pixels depend on."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.errors import DecodeError
from highway.modules.readers.pictures.plugins import tiff_plugin
from highway.modules.readers.pictures.still import Still

__all__ = ["is_tiff", "read"]

_VERSIONS = {b"\x2a\0": False, b"\0\x2a": False, b"\x2b\0": True, b"\0\x2b": True}
# Struct codes by type; rationals and text are not numbers here.
_NUMBERS = {1: "B", 3: "H", 4: "L", 6: "b", 8: "h", 9: "l", 16: "Q"}
_TYPE_BYTES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _STRIP_ROWS, _PLANAR = 273, 274, 277, 278, 284
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS = 322, 323, 324
_PREDICTOR = 317
_INK_SET, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _XMP = 332, 338, 339, 700
# Besides the named ones: fax options, old-style JPEG, positions of YCbCr samples.
_ONE_NUMBER = {
    _WIDTH,
    _HEIGHT,
    _COMPRESSION,
    _PHOTOMETRIC,
    _FILL_ORDER,
    _SAMPLES,
    _STRIP_ROWS,
    _PLANAR,
}
_ONE_NUMBER |= {_TILE_WIDTH, _TILE_HEIGHT, _INK_SET, _PREDICTOR, 292, 293, 512, 513, 514, 515, 531}
# Byte counts, palette, tables of JPEG, YCbCr and LERC.
_KEPT = {_BITS, _STRIP_OFFSETS, _TILE_OFFSETS, _EXTRA_SAMPLES, _SAMPLE_FORMAT, *_ONE_NUMBER}
_KEPT |= {279, 320, 325, 347, 517, 518, 519, 520, 521, 529, 530, 532, 50674}

# The limit of a classic TIFF, also applied to BigTIFF.
_MOST_ENTRIES = 0xFFFF
_RAW, _PREMULTIPLIED = 1, 1
# Raw, LZW, Deflate (two numbers), PackBits, LZMA, Zstandard: compress bytes, whatever samples these are.
_ANY_SAMPLES = (_RAW, 5, 8, 32946, 32773, 34925, 50000)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_PHOTOMETRICS = {
    _WHITE_IS_ZERO: "gray with white at 0",
    _BLACK_IS_ZERO: "gray",
    _RGB: "RGB",
    _PALETTE: "a palette",
    4: "a transparency mask",
    _CMYK: "CMYK",
    _YCBCR: "YCbCr",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "a color filter array",
    32844: "CIE Log L",
    32845: "CIE Log Luv",
    34892: "linear raw",
}
_DEPTHS = {
    _WHITE_IS_ZERO: (1, 2, 4, 8, 16),
    _BLACK_IS_ZERO: (1, 2, 4, 8, 12, 16),
    _RGB: (8, 16),
    _PALETTE: (1, 2, 4, 8),
    _CMYK: (8, 16),
    _YCBCR: (8,),
}
_ONE_SAMPLE = (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE)
_SAMPLE_FORMATS = {2: "signed", 3: "floating point", 4: "untyped", 5: "complex integer", 6: "complex"}


class _Entry(NamedTuple):
    kind: int
    values: int
    raw: bytes
    place: int


class _Page:
    """The tags of the first picture of a TIFF."""

    def __init__(self, contents: bytes) -> None:
        self.contents = contents
        self.order = "<" if contents[:2] == b"II" else ">"
        self.big = _VERSIONS[contents[2:4]]
        if self.big and (self.order, contents[2:4]) != ("<", b"\x2b\0"):
            raise DecodeError("is a big-endian BigTIFF, which PIL does not read")
        # Of a directory: count, entry, offset of the next; of an entry: number of values.
        self._formats = ("Q", "HHQ8s", "Q") if self.big else ("H", "HHL4s", "L")
        try:
            self.start = self._unpack(self._formats[2], 8 if self.big else 4)[0]
            self.entries, self.rest = self._directory(self.start)
        except struct.error:
            raise DecodeError("is cut off: a TIFF without the directory of its first picture") from None
        self.height, self.width = self.number(_HEIGHT, 0), self.number(_WIDTH, 0)
        self.compression = self.number(_COMPRESSION, _RAW)
        old_jpeg = self.compression == 6
        self.photometric = _YCBCR if old_jpeg else self.number(_PHOTOMETRIC, _WHITE_IS_ZERO)
        self.samples = self.number(_SAMPLES, 3 if old_jpeg else 1)
        self.bits = self.numbers(_BITS) or [1]
        self.planes = self.samples if self.number(_PLANAR, 1) == 2 else 1
        if self.samples == 1 and _PLANAR in self.entries:
            # With one sample a pixel it has no meaning, but PIL would unpack the pixels in another way.
            del self.entries[_PLANAR]
            self.rest = True
        self.fill_order = self.number(_FILL_ORDER, 1)

    def _unpack(self, code: str, at: int) -> tuple[Any, ...]:
        # An offset beyond the largest file would raise OverflowError.
        if at > len(self.contents):
            raise struct.error
        return struct.unpack_from(self.order + code, self.contents, at)

    def _directory(self, at: int) -> tuple[dict[int, _Entry], bool]:
        """The first entry of each tag; and whether there are entries or pictures that are not kept."""
        count_code, entry_code, next_code = self._formats
        count = self._unpack(count_code, at)[0]
        if count > _MOST_ENTRIES:
            raise DecodeError(f"is damaged: a TIFF with {count} tags; expected {_MOST_ENTRIES} or fewer")
        at += struct.calcsize(self.order + count_code)
        size = struct.calcsize(self.order + entry_code)
        # Repeated tags, or tags out of order, would make PIL and libtiff print warnings.
        self.stated: dict[int, _Entry] = {}
        entries: dict[int, _Entry] = {}
        last, rest = -1, False
        for place in range(at, at + count * size, size):
            tag, kind, values, raw = self._unpack(entry_code, place)
            if tag not in _KEPT or tag in entries or tag < last:
                rest = True
            if tag in (_ORIENTATION, _XMP):
                self.stated.setdefault(tag, _Entry(kind, values, raw, place))
            if tag in _KEPT and tag not in entries:
                entries[tag] = _Entry(kind, values, raw, place)
            last = tag
        return entries, rest or self._unpack(next_code, at + count * size)[0] != 0

    def _data(self, tag: int) -> bytes:
        entry = self.entries.get(tag) or self.stated[tag]
        size = _TYPE_BYTES.get(entry.kind, 0) * entry.values
        if size <= len(entry.raw):
            return entry.raw[:size]
        start = self._unpack("Q" if self.big else "L", entry.place + (12 if self.big else 8))[0]
        if start + size > len(self.contents):
            raise DecodeError(
                f"is cut off: {size} bytes of tag {tag} begin at byte {start}, the file has {len(self.contents)}"
            )
        return self.contents[start : start + size]

    def numbers(self, tag: int) -> list[int]:
        """The values of a tag; an empty list if there is no such tag."""
        if tag not in self.entries:
            return []
        kind, count = self.entries[tag][:2]
        if kind not in _NUMBERS:
            raise DecodeError(f"is damaged: tag {tag} has values of type {kind}; expected whole numbers")
        return list(struct.unpack(f"{self.order}{count}{_NUMBERS[kind]}", self._data(tag)))

    def number(self, tag: int, absent: int) -> int:
        found = self.numbers(tag)
        if len(found) > 1 or (tag in self.entries and not found):
            raise DecodeError(f"is damaged: tag {tag} has {len(found)} values; expected 1")
        return found[0] if found else absent

    def check(self) -> None:
        """Raise for values outside of the file, more values than it can have, and several if only one is allowed."""
        size = sum(len(self._data(tag)) for tag in self.entries)
        for tag in _ONE_NUMBER:
            self.number(tag, 0)
        if size > len(self.contents):
            raise DecodeError(f"is damaged: {size} bytes of tags in a file of {len(self.contents)}")

    def exif(self) -> bytes | None:
        """The orientation as EXIF data, which is a complete small TIFF."""
        data = self._stated(_ORIENTATION)
        if data is None:
            return None
        kind, count = self.stated[_ORIENTATION][:2]
        place = data.ljust(4, b"\0") if len(data) <= 4 else struct.pack(self.order + "L", 26)
        directory = struct.pack(self.order + "HHHL", 1, _ORIENTATION, kind, count) + place + bytes(4)
        return self.contents[:2] + struct.pack(self.order + "HL", 42, 8) + directory + data

    def xmp(self) -> bytes | None:
        """XMP data."""
        return self._stated(_XMP)

    def _stated(self, tag: int) -> bytes | None:
        if tag not in self.stated:
            return None
        try:
            return self._data(tag)
        except DecodeError:
            # The pixels do not depend on it.
            return None

    def alone(self, changes: Mapping[int, int | None] | None = None) -> bytes:
        """The file with only the tags of this picture that its pixels depend on.

        `changes` are other values of tags that are there; None drops one.

        PIL and libtiff then print no warnings for other tags, and read nothing but pixels. The new directory overwrites
        the old one: appended to the file, it would be read as the missing pixels of a cut file.
        """
        if not self.rest and not changes:
            return self.contents
        changes = changes or {}
        count_code, _, next_code = self._formats
        entry_bytes = 20 if self.big else 12
        entries = [
            self._entry(tag, changes[tag])
            if tag in changes
            else self.contents[entry.place : entry.place + entry_bytes]
            for tag, entry in sorted(self.entries.items())
        ]
        entries = [entry for entry in entries if entry]
        directory = b"".join(
            [
                struct.pack(self.order + count_code, len(entries)),
                *entries,
                struct.pack(self.order + next_code, 0),
            ]
        )
        whole = memoryview(self.contents)
        return b"".join([whole[: self.start], directory, whole[self.start + len(directory) :]])

    def _entry(self, tag: int, value: int | None) -> bytes:
        """The bytes of an entry with one value; none if it is None."""
        if value is None:
            return b""
        kind, code, rest = (3, "H", 2) if value < 1 << 16 else (4, "L", 0)
        head = struct.pack(self.order + ("HHQ" if self.big else "HHL"), tag, kind, 1)
        return head + struct.pack(self.order + code, value) + bytes(rest + (4 if self.big else 0))

    @property
    def tile(self) -> tuple[int, int] | None:
        """Height and width of the tiles; None for strips."""
        if _STRIP_OFFSETS in self.entries or _TILE_OFFSETS not in self.entries:
            return None
        return self.number(_TILE_HEIGHT, 0), self.number(_TILE_WIDTH, 0)

    def __str__(self) -> str:
        kind = _PHOTOMETRICS.get(self.photometric, f"photometric interpretation {self.photometric}")
        bits = "/".join(map(str, sorted(set(self.bits[: self.samples]))))
        forms = {_SAMPLE_FORMATS[form] for form in self.numbers(_SAMPLE_FORMAT) if form in _SAMPLE_FORMATS}
        more = [f"{self.samples} samples a pixel", *sorted(forms)]
        if self.numbers(_EXTRA_SAMPLES):
            more.append(f"extra samples {self.numbers(_EXTRA_SAMPLES)}")
        if self.planes > 1:
            more.append("in planes")
        if self.fill_order != 1:
            more.append(f"fill order {self.fill_order}")
        more.append("little-endian" if self.order == "<" else "big-endian")
        more.append(f"compression {self.compression}")
        return f"TIFF, {kind}, {bits} bits a sample, {', '.join(more)}"


def is_tiff(contents: bytes) -> bool:
    """Whether a file begins like a TIFF."""
    return contents[:2] in (b"II", b"MM") and contents[2:4] in _VERSIONS


def read(contents: bytes) -> Still:
    """Read the header of the first picture of a TIFF.

    Raises
    ------
    DecodeError
        The text continues the name of the file.
    """
    page = _Page(contents)
    if page.height <= 0 or page.width <= 0:
        raise DecodeError(f"is damaged: a TIFF of {page.height} x {page.width} pixels")
    page.check()
    _refuse(page)

    def decode() -> Any:
        return tiff_plugin()(io.BytesIO(page.alone()))

    gray = page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)
    bits = page.bits[0]
    numbers = ""
    if gray and page.photometric == _WHITE_IS_ZERO:
        numbers = "gray with white at 0 (WhiteIsZero), which PIL does not read as the stored numbers"
    elif gray and bits in (2, 4):
        numbers = "2 or 4 bits of gray, which PIL does not read as the stored numbers"
    return Still(
        "TIFF",
        page.height,
        page.width,
        decode,
        bits,
        negative=gray and page.photometric == _WHITE_IS_ZERO and bits == 16,
        numbers=numbers,
        layout=str(page),
        exif=page.exif(),
        xmp=page.xmp(),
        tile=page.tile,
        decode_wide=(lambda: _wide(page)) if page.photometric == _RGB and bits == 16 else None,
    )


def _wide(page: _Page) -> NDArray[np.uint16]:
    """Decode RGB of 16 bits, of which PIL keeps 8: as gray of 16 bits, a column for each sample."""
    if page.samples < 3:
        raise DecodeError(f"is damaged: colors of {page.samples} numbers ({page}); expected 3 or more")
    if page.planes > 1 or page.compression not in _ANY_SAMPLES:
        raise DecodeError(
            f"has colors of 16 bits in planes, or in a compression that PIL reads with 8 bits ({page}); with "
            'dtype="uint8", it may be read'
        )
    changes: dict[int, int | None] = {
        _WIDTH: page.width * page.samples,
        _BITS: 16,
        _PHOTOMETRIC: _BLACK_IS_ZERO,
        _SAMPLES: 1,
        _PLANAR: None,
        _PREDICTOR: None,
        _EXTRA_SAMPLES: None,
        _SAMPLE_FORMAT: None,
    }
    columns = page.width
    if page.tile:
        columns = page.tile[1]
        changes[_TILE_WIDTH] = columns * page.samples
    image = tiff_plugin()(io.BytesIO(page.alone(changes)))
    image.load()
    numbers = np.asarray(image).astype(np.uint16).reshape(page.height, page.width, page.samples)
    if page.number(_PREDICTOR, 1) == 2:
        # Differences of neighbors, in each strip or tile.
        for left in range(0, page.width, columns):
            part = numbers[:, left : left + columns]
            np.cumsum(part, axis=1, dtype=np.uint16, out=part)
    colors = numbers[:, :, :3]
    if page.samples > 3 and page.numbers(_EXTRA_SAMPLES)[:1] == [_PREMULTIPLIED]:
        alpha = np.maximum(numbers[:, :, 3:4], 1).astype(np.uint32)
        colors = np.minimum(colors.astype(np.uint32) * 65535 // alpha, 65535).astype(np.uint16)
    return np.ascontiguousarray(colors)


def _refuse(page: _Page) -> None:
    """Raise for pixels that PIL reads wrong, or does not read."""
    formats = set(page.numbers(_SAMPLE_FORMAT)) - {1}
    if formats:
        what = _SAMPLE_FORMATS.get(min(formats), f"of sample format {min(formats)}")
        raise DecodeError(
            f"has {what} pixels, whose range is not known; expected unsigned whole numbers ({page})"
        )
    depths = _DEPTHS.get(page.photometric)
    if depths is None:
        kind = _PHOTOMETRICS.get(page.photometric, f"of photometric interpretation {page.photometric}")
        raise DecodeError(f"has colors in {kind}; expected gray, RGB, a palette, CMYK or YCbCr ({page})")
    if page.samples not in range(1, 7):
        raise DecodeError(f"has {page.samples} samples a pixel; expected 1 to 6 ({page})")
    bits = set(page.bits[: page.samples])
    if len(bits) > 1 or not bits <= set(depths):
        expected = ", ".join(map(str, depths))
        raise DecodeError(f"has {max(bits)} bits a sample; expected {expected}, the same for all ({page})")
    if page.planes > 1 and page.photometric in _ONE_SAMPLE and 0 in page.numbers(_EXTRA_SAMPLES):
        # PIL reads such a sample as part of the color.
        raise DecodeError(f"has an unspecified sample in a plane of its own, which PIL reads wrong ({page})")
    if page.number(_INK_SET, 1) != 1:
        raise DecodeError(f"has other inks than CMYK ({page})")
    _refuse_raw(page, max(bits))


def _refuse_raw(page: _Page, bits: int) -> None:
    """Raise for uncompressed pixels that PIL unpacks wrong, or for missing rows."""
    if page.compression != _RAW:
        return
    if page.photometric == _YCBCR and page.samples > 1:
        raise DecodeError(f"has YCbCr without compression, which PIL does not read ({page})")
    if page.number(_PREDICTOR, 1) != 1:
        # Some readers apply it; PIL and libtiff do not.
        raise DecodeError(f"has a predictor without compression, which can be read in two ways ({page})")
    if page.planes > 1 and (bits != 8 or page.fill_order != 1):
        raise DecodeError(f"has planes of {bits} bits without compression, which PIL does not read ({page})")
    found = len(page.numbers(_STRIP_OFFSETS) or page.numbers(_TILE_OFFSETS))
    rows, columns = page.tile or (page.number(_STRIP_ROWS, page.height), page.width)
    if rows <= 0 or columns <= 0:
        raise DecodeError(f"is damaged: strips or tiles of {rows} x {columns} pixels")
    expected = -(-page.height // rows) * -(-page.width // columns) * page.planes
    if found < expected:
        raise DecodeError(
            f"is damaged: {found} strips or tiles of {rows} x {columns} pixels, expected {expected}"
        )
