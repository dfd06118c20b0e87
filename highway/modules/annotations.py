"""Annotations of Pascal VOC: the XML file of a picture, parsed and checked."""

from __future__ import annotations

import math
from typing import NamedTuple
from xml.etree import ElementTree

from highway.errors import DecodeError
from highway.modules.files import read_whole

__all__ = ["LARGEST_FILE", "Annotation", "parse_annotation", "read_annotation"]

LARGEST_FILE = 8 << 20
"""Bytes; a file of 10 000 objects has about a fifth."""

# What lies outside of this is outside of any picture, and float32 holds what is inside to less than a pixel.
_FARTHEST = float(1 << 20)
_LONGEST_SIDE = 1 << 24
_SIDES = ("xmin", "ymin", "xmax", "ymax")


class Annotation(NamedTuple):
    """What an annotation says.

    Attributes
    ----------
    height, width : int
        Of the picture; 0 where the file does not say.
    names : list of str
        Class of every object.
    boxes : list of (float, float, float, float)
        xmin, ymin, xmax, ymax of every object as written, none above its other end.
    difficult, truncated : list of bool
        Of every object.
    """

    height: int
    width: int
    names: list[str]
    boxes: list[tuple[float, float, float, float]]
    difficult: list[bool]
    truncated: list[bool]


def read_annotation(path: bytes) -> Annotation:
    """Read and parse a file.

    Raises
    ------
    ReadError, DecodeError
        Text for behind the name of the file.
    """
    return parse_annotation(read_whole(path, LARGEST_FILE))


def parse_annotation(contents: bytes) -> Annotation:
    """Parse the XML of an annotation, in the encoding that it declares.

    Parts of objects are not looked at.

    Raises
    ------
    DecodeError
        Text for behind the name of the file: which element, what was found and what was expected.
    """
    # In every encoding that the parser knows, these are the same bytes, with zeros between them in UTF-16.
    if b"<!DOCTYPE" in (contents.replace(b"\0", b"") if b"\0" in contents else contents):
        raise DecodeError(
            "declares a document type (<!DOCTYPE>), whose entities can take any memory and read any file; "
            "annotations have none: remove it"
        )
    try:
        root = ElementTree.fromstring(contents)
    # ValueError: an encoding of several bytes a character; LookupError: an unknown one.
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DecodeError(f"is no XML in the encoding that it declares: {error}") from None
    if root.tag != "annotation":
        raise DecodeError(f"holds <{root.tag[:100]}>; expected <annotation>")
    height, width = _size(root)
    found = Annotation(height, width, [], [], [], [])
    for number, element in enumerate(root.iterfind("object"), 1):
        parts = {part.tag: part for part in element}
        try:
            found.names.append(_name(parts.get("name")))
            found.boxes.append(_box(parts.get("bndbox")))
            found.difficult.append(_flag(parts.get("difficult")))
            found.truncated.append(_flag(parts.get("truncated")))
        except DecodeError as error:
            raise DecodeError(f"object {number}: {error}") from None
    return found


def _size(root: ElementTree.Element) -> tuple[int, int]:
    size = root.find("size")
    if size is None:
        return 0, 0
    height, width = (_side(size, side) for side in ("height", "width"))
    if (height == 0) != (width == 0):
        raise DecodeError(
            f"<size> says {height} x {width}; expected 1 or more for both, or 0 for both if unknown"
        )
    return height, width


def _side(size: ElementTree.Element, tag: str) -> int:
    text = (size.findtext(tag) or "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= _LONGEST_SIDE:
        return int(text)
    raise DecodeError(
        f"<size>, <{tag}> is {text[:100]!r}; expected a whole number of pixels up to {_LONGEST_SIDE}"
    )


def _name(element: ElementTree.Element | None) -> str:
    name = "" if element is None else (element.text or "").strip()
    if not name:
        raise DecodeError("has no <name>; expected that of its class")
    return name


def _box(element: ElementTree.Element | None) -> tuple[float, float, float, float]:
    if element is None:
        raise DecodeError("has no <bndbox>; expected one with <xmin>, <ymin>, <xmax> and <ymax>")
    sides = {side.tag: side.text for side in element}
    try:
        # As nearly all are; what is to be said of the others is found below.
        x0, y0 = float(sides["xmin"]), float(sides["ymin"])  # type: ignore[arg-type]
        x1, y1 = float(sides["xmax"]), float(sides["ymax"])  # type: ignore[arg-type]
        if -_FARTHEST < x0 <= x1 < _FARTHEST and -_FARTHEST < y0 <= y1 < _FARTHEST:
            return x0, y0, x1, y1
    except (KeyError, TypeError, ValueError):
        pass
    x0, y0, x1, y1 = (_coordinate(sides, side) for side in _SIDES)
    if x0 > x1 or y0 > y1:
        low, high, tags = (x0, x1, "<xmin>, <xmax>") if x0 > x1 else (y0, y1, "<ymin>, <ymax>")
        raise DecodeError(f"<bndbox>, {tags} are {low:g} and {high:g}; expected the smaller one first")
    return x0, y0, x1, y1


def _coordinate(sides: dict[str, str | None], tag: str) -> float:
    if tag not in sides:
        raise DecodeError(f"<bndbox> has no <{tag}>")
    text = sides[tag] or ""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise DecodeError(f"<bndbox>, <{tag}> is {text[:100]!r}; expected a number of pixels")
    return max(-_FARTHEST, min(found, _FARTHEST))


def _flag(element: ElementTree.Element | None) -> bool:
    text = None if element is None else element.text

    if text is None or text == "0":
        return False
    if text.strip() in ("", "0", "1"):
        return text.strip() == "1"
    assert element is not None
    raise DecodeError(f"<{element.tag}> is {text[:100]!r}; expected 0 or 1")
