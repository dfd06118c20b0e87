"""Parses and checks annotations of Pascal VOC: one XML file for each picture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple
from xml.etree import ElementTree

from highway.errors import DecodeError
from highway.modules.readers.voc.xml_text import xml_text

__all__ = ["LARGEST_FILE", "Annotation", "object_names", "parse_annotation"]

LARGEST_FILE = 8 << 20
"""Bytes; a file with 10 000 objects has about a fifth of this."""

# Coordinates are clipped to this range: no picture is larger, and float32 is exact to less than a pixel inside.
_FARTHEST = float(1 << 20)
_LONGEST_SIDE = 1 << 24
_SIDES = ("xmin", "ymin", "xmax", "ymax")
# Words that tools write for <difficult> and <truncated>; unknown means no.
_WORDS = {
    **dict.fromkeys(("true", "t", "yes", "y"), True),
    **dict.fromkeys(("", "false", "f", "no", "n", "none", "null", "unspecified", "unknown"), False),
}


class Annotation(NamedTuple):
    """A parsed annotation.

    Attributes
    ----------
    height, width : int
        Stated size of the picture; 0 if the file has none.
    names : list of str
        Class of every object.
    boxes : list of (float, float, float, float)
        xmin, ymin, xmax, ymax of every object as written, with xmin <= xmax and ymin <= ymax.
    difficult, truncated : list of bool
        Flags of every object.
    """

    height: int
    width: int
    names: list[str]
    boxes: list[tuple[float, float, float, float]]
    difficult: list[bool]
    truncated: list[bool]


def parse_annotation(contents: bytes) -> Annotation:
    """Parse the XML of an annotation, in the encoding that it declares.

    Objects are all <object> elements at any depth. Namespaces and the case of tags are ignored, and so are <part>
    elements of objects.

    Raises
    ------
    DecodeError
        Names the element, what was found and what was expected; the text continues the name of the file.
    """
    root = _root(contents)
    height, width = _size(root)
    found = Annotation(height, width, [], [], [], [])
    for number, parts in enumerate(_objects(root), 1):
        try:
            found.names.append(_name(_one("name", parts)))
            found.boxes.append(_box(_one("bndbox", parts)))
            found.difficult.append(_flag("difficult", _one("difficult", parts)))
            found.truncated.append(_flag("truncated", _one("truncated", parts)))
        except DecodeError as error:
            raise DecodeError(f"object {number}: {error}") from None
    return found


def object_names(contents: bytes) -> list[str]:
    """Class of every object of an annotation, even if other elements are bad.

    Raises
    ------
    DecodeError
        The text continues the name of the file.
    """
    names = []
    for number, parts in enumerate(_objects(_root(contents)), 1):
        try:
            names.append(_name(_one("name", parts)))
        except DecodeError as error:
            raise DecodeError(f"object {number}: {error}") from None
    return names


def _root(contents: bytes) -> ElementTree.Element:
    text = xml_text(contents).lstrip()
    if "<!DOCTYPE" in text:
        raise DecodeError(
            "declares a document type (<!DOCTYPE>), whose entities can take any memory and read any file; "
            "annotations have none: remove it"
        )
    try:
        # For text, the parser ignores the declared encoding.
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise DecodeError(f"is not XML: {error}") from None
    if _tag(root) != "annotation":
        raise DecodeError(f"holds <{root.tag[:100]}>; expected <annotation>")
    return root


def _tag(element: ElementTree.Element) -> str:
    """Name of an element in lower case, without its namespace."""
    return element.tag.rpartition("}")[2].lower()


def _objects(root: ElementTree.Element) -> Iterator[dict[str, list[ElementTree.Element]]]:
    """Yield the child elements of every object, by tag."""
    for element in root.iter():
        if _tag(element) == "object":
            parts: dict[str, list[ElementTree.Element]] = {}
            for part in element:
                parts.setdefault(_tag(part), []).append(part)
            yield parts


def _one(tag: str, parts: dict[str, list[ElementTree.Element]]) -> ElementTree.Element | None:
    found = parts.get(tag, [None])
    if len(found) > 1:
        raise DecodeError(f"has <{tag}> {len(found)} times; expected it once")
    return found[0]


def _size(root: ElementTree.Element) -> tuple[int, int]:
    size = next((element for element in root if _tag(element) == "size"), None)
    if size is None:
        return 0, 0
    sides = {_tag(side): side.text for side in size}
    height, width = (_side(sides, side) for side in ("height", "width"))
    if (height == 0) != (width == 0):
        raise DecodeError(
            f"<size> says {height} x {width}; expected 1 or more for both, or 0 for both if unknown"
        )
    return height, width


def _side(sides: dict[str, str | None], tag: str) -> int:
    text = (sides.get(tag) or "").strip()
    try:
        side = float(text)
    except ValueError:
        side = math.nan
    # Some tools write 320.0.
    if 0 <= side <= _LONGEST_SIDE and side == int(side):
        return int(side)
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
    sides = {_tag(side): side.text for side in element}
    try:
        # The fast path for valid boxes; the errors of all others are found below.
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


def _flag(tag: str, element: ElementTree.Element | None) -> bool:
    text = None if element is None else element.text
    if text is None or text == "0":
        return False
    text = text.strip()
    word = _WORDS.get(text.lower())
    if word is not None:
        return word
    try:
        part = float(text)
    except ValueError:
        part = math.nan
    # A fraction is how much of the object is cut off; -1 means unknown.
    if part == -1 or 0 <= part <= 1:
        return part > 0
    raise DecodeError(
        f"<{tag}> is {text[:100]!r}; expected 0 or 1, yes or no, true or false, or a part from 0 to 1"
    )
