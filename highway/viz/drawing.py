"""Draws annotations over an image: boxes with the names of their classes, masks, keypoints; and lines of text.

Coordinates are continuous, as everywhere: the pixel in column x and row y covers x to x + 1 and y to y + 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

__all__ = ["VOID", "draw_boxes", "draw_points", "overlay_mask", "voc_palette", "write"]

Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]

VOID = 255
"""Index of mask pixels without a class, which loss functions ignore."""

# White text is legible on each of these, and adjacent colors are distinct.
_CLASS_COLORS: tuple[Color, ...] = (
    *((37, 99, 235), (220, 38, 38), (22, 130, 62), (147, 51, 234)),
    *((194, 65, 12), (13, 124, 116), (219, 39, 119), (133, 96, 6)),
    *((3, 105, 161), (77, 110, 15), (162, 28, 175), (71, 85, 105)),
)
_WHITE = (255, 255, 255)
# On both sides of every line, so that it is visible on a background of its own color.
_HALO = (255, 255, 255, 150)
# Pixels.
_DASH, _SPACE = 5, 4
_NAME_SIZE, _NAME_HEIGHT, _NAME_MARGIN = 11, 14, 4
_ARM = 3


def class_color(number: int) -> Color:
    """Return the color of the boxes of a class; 12 colors repeat."""
    return _CLASS_COLORS[number % len(_CLASS_COLORS)]


def voc_palette() -> NDArray[np.uint8]:
    """Return the colors of mask indices, as PASCAL VOC defines them, uint8 (256, 3).

    Bits 0, 1 and 2 of the index are the highest bits of red, green and blue, bits 3, 4 and 5 the next ones, and so on.
    """
    index = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for channel in range(3):
        for place in range(3):
            bit = index >> (3 * place + channel) & 1
            palette[:, channel] |= (bit << (7 - place)).astype(np.uint8)
    return palette


def overlay_mask(tile: Image, mask: NDArray[np.uint8]) -> Image:
    """Return an image with the colors of a mask over it.

    Parameters
    ----------
    tile : Image
        RGB.
    mask : uint8 (H, W)
        Of any size; 0 is transparent, 255 (void) is hatched in gray, other indices have the color of `voc_palette` at
        half opacity, and opaque at their edges.

    Returns
    -------
    Image
        RGB, as large as `tile`.
    """
    from PIL import Image

    nearest = Image.Resampling.NEAREST
    index = np.asarray(Image.fromarray(np.ascontiguousarray(mask)).resize(tile.size, nearest))
    pixels = np.array(tile, np.uint16)
    colors = voc_palette().astype(np.uint16)[index]
    shown = (index != 0) & (index != VOID)
    pixels[shown] = (pixels[shown] + colors[shown] + 1) // 2
    ends = shown & _ends(index)
    pixels[ends] = colors[ends]
    y, x = np.indices(index.shape)
    hatched = (index == VOID) & ((x + y) % 4 == 0)
    pixels[hatched] = (pixels[hatched] + 3 * 212) // 4
    return Image.fromarray(pixels.astype(np.uint8))


def _ends(index: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels have a neighbor with another index to the left, right, above or below."""
    ends = np.zeros(index.shape, np.bool_)
    rows, columns = index[1:] != index[:-1], index[:, 1:] != index[:, :-1]
    ends[1:] |= rows
    ends[:-1] |= rows
    ends[:, 1:] |= columns
    ends[:, :-1] |= columns
    return ends


def draw_boxes(
    tile: Image,
    boxes: NDArray[Any],
    labels: Sequence[int],
    names: Sequence[str],
    dashed: Sequence[bool] | NDArray[np.bool_],
) -> None:
    """Draw boxes in the colors of their classes, each with a name inside of the image.

    If names would overlap, names of classes that are already shown are skipped.

    Parameters
    ----------
    tile : Image
        RGB; drawn into.
    boxes : (n, 4)
        x0, y0, x1, y1 in pixels of `tile`. Boxes outside of it, or with a number that is not finite, are skipped.
    labels : sequence of int
        Class of each box.
    names : sequence of str
        Name of each box; "" for none.
    dashed : sequence of bool
        Which boxes have dashed lines.
    """
    from PIL import ImageDraw

    draw = ImageDraw.Draw(tile, "RGBA")
    sizes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    # Large boxes first, so that they do not cover others.
    order = [int(i) for i in np.argsort(-sizes, kind="stable") if np.isfinite(boxes[i]).all()]
    places = {i: _whole_pixels(boxes[i]) for i in order}
    whole = (0, 0, tile.width - 1, tile.height - 1)
    order = [i for i in order if _overlap(places[i], whole)]
    for i in order:
        _draw_box(draw, places[i], class_color(labels[i]), dashed=bool(dashed[i]))
    taken: list[Rectangle] = []
    named: set[str] = set()
    for i in order:
        if names[i]:
            _draw_name(draw, tile.size, places[i], names[i], class_color(labels[i]), taken, named)


def _whole_pixels(box: NDArray[Any]) -> Rectangle:
    """Return the first and last column and row of a box, at least one of each."""
    left, top, right, bottom = (math.floor(value + 0.5) for value in box.tolist())
    return left, top, max(right - 1, left), max(bottom - 1, top)


def _draw_box(draw: ImageDraw, place: Rectangle, color: Color, *, dashed: bool) -> None:
    left, top, right, bottom = place
    thick = 2 if min(right - left, bottom - top) > 8 else 1
    draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=_HALO)
    if min(right - left, bottom - top) > 2 * thick:
        draw.rectangle((left + thick, top + thick, right - thick, bottom - thick), outline=_HALO)
    if not dashed:
        draw.rectangle(place, outline=color, width=thick)
        return
    inset = thick - 1
    for first, last in _dashes(left, right):
        draw.rectangle((first, top, last, top + inset), fill=color)
        draw.rectangle((first, bottom - inset, last, bottom), fill=color)
    for first, last in _dashes(top, bottom):
        draw.rectangle((left, first, left + inset, last), fill=color)
        draw.rectangle((right - inset, first, right, last), fill=color)


def _dashes(first: int, last: int) -> Iterator[tuple[int, int]]:
    for start in range(first, last + 1, _DASH + _SPACE):
        yield start, min(start + _DASH - 1, last)


def _draw_name(
    draw: ImageDraw,
    size: tuple[int, int],
    place: Rectangle,
    name: str,
    color: Color,
    taken: list[Rectangle],
    named: set[str],
) -> None:
    """Draw the name above, in, or below the box, wherever it fits."""
    width, height = size
    text = shortened(draw, name, width - 2 * _NAME_MARGIN, _NAME_SIZE)
    long = math.ceil(draw.textlength(text, font=font(_NAME_SIZE))) + 2 * _NAME_MARGIN
    if not text or long > width or height < _NAME_HEIGHT:
        return
    left, top, right, bottom = place
    inside = min(max(top, 0), height - _NAME_HEIGHT)
    spots = [
        (left, top - _NAME_HEIGHT),
        (left, inside),
        (left, bottom + 1),
        (right + 1 - long, bottom + 1 - _NAME_HEIGHT),
    ]
    for x, y in spots:
        spot = _spot(x, y, long, width)
        if 0 <= y <= height - _NAME_HEIGHT and not any(_overlap(spot, other) for other in taken):
            break
    else:
        if name in named:
            return
        spot = _spot(left, inside, long, width)
    taken.append(spot)
    named.add(name)
    draw.rectangle(spot, fill=color)
    draw.text((spot[0] + _NAME_MARGIN, spot[1]), text, fill=_WHITE, font=font(_NAME_SIZE))


def _spot(x: int, y: int, long: int, width: int) -> Rectangle:
    x = min(max(x, 0), width - long)
    return x, y, x + long - 1, y + _NAME_HEIGHT - 1


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]


def draw_points(tile: Image, points: NDArray[Any]) -> None:
    """Draw keypoints as small crosses, the k-th of every object in the same color.

    Parameters
    ----------
    tile : Image
        RGB; drawn into.
    points : (n, K, 2)
        x and y in pixels of `tile`. Points with a number that is not finite are skipped.
    """
    from PIL import ImageDraw

    draw = ImageDraw.Draw(tile, "RGBA")
    for one in points:
        for k, (x, y) in enumerate(one.tolist()):
            if math.isfinite(x) and math.isfinite(y):
                column, row = math.floor(x), math.floor(y)
                across = (column - _ARM, row, column + _ARM, row)
                upright = (column, row - _ARM, column, row + _ARM)
                for place in (across, upright):
                    draw.rectangle(_wider(place), fill=_HALO)
                for place in (across, upright):
                    draw.rectangle(place, fill=class_color(k))


def _wider(place: Rectangle) -> Rectangle:
    return place[0] - 1, place[1] - 1, place[2] + 1, place[3] + 1


def write(
    draw: ImageDraw,
    at: tuple[int, int],
    text: str,
    width: int,
    size: int,
    color: Color,
    *,
    keep_end: bool = False,
) -> None:
    """Write one line of text, shortened to fit.

    Parameters
    ----------
    draw : ImageDraw
    at : (int, int)
        Upper left corner of the text.
    text : str
        Any text, also with characters that the font lacks.
    width, size : int
        Largest length and font size in pixels.
    color : (int, int, int)
    keep_end : bool
        Shorten the text at its start.
    """
    draw.text(at, shortened(draw, text, width, size, keep_end=keep_end), fill=color, font=font(size))


def shortened(draw: ImageDraw, text: str, width: int, size: int, *, keep_end: bool = False) -> str:
    """Return a text as one line, shortened to fit."""
    letters = font(size)
    # Names that are not UTF-8 contain lone surrogates, and PIL's small font supports Latin-1 only.
    encoding = "utf-8" if hasattr(letters, "path") else "latin-1"
    text = " ".join(text.split()).encode(encoding, "replace").decode(encoding)
    shown = text
    while text and draw.textlength(shown, font=letters) > width:
        text = text[1:] if keep_end else text[:-1]
        shown = f"...{text}" if keep_end else f"{text}..."
    return shown


def font(size: int) -> Any:
    """Return PIL's default font; a small one of fixed size if it has no other."""
    from PIL import ImageFont

    try:
        return ImageFont.load_default(size)
    except (ImportError, TypeError):
        # PIL without FreeType, or from before 10.1.
        return ImageFont.load_default()
