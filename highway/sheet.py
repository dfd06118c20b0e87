"""Contact sheet: the images of a batch in a grid with their labels, so that a person sees what the network gets."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from highway.batch import Batch
from highway.errors import ArgumentError, MissingPackageError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

__all__ = ["contact_sheet", "save_contact_sheet"]

# Pixels.
_LARGEST = 320
_SMALLEST = 96
_GAP = 16
_TITLE, _LABEL, _KEY = 18, 15, 12
_PAPER, _INK, _FAINT, _FRAME = (255, 255, 255), (24, 24, 27), (113, 113, 122), (212, 212, 216)
# Width : height that a sheet comes near to.
_ASPECT = 4 / 3


def contact_sheet(
    batch: Batch,
    classes: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    title: str | None = None,
) -> Image:
    """Draw every image of a batch, with its label and its key below.

    Images of more than 320 pixels are reduced; small ones are enlarged by a whole factor, so that every pixel can be
    seen.

    Parameters
    ----------
    batch : Batch
        With `images`, uint8 (N, H, W, 3) or (N, H, W, 1), and possibly `labels`, numbers (N,) or one-hot (N, K).
    classes : sequence of str, optional
        Names of the labels; without them their numbers are shown. A reader has them in ``reader.classes``.
    columns : int, optional
        Images in a row; by default as many as make the sheet about 4 : 3.
    title : str, optional
        A line at the top.

    Returns
    -------
    PIL.Image.Image
        RGB. It has ``save(path)``, and a notebook shows it.

    Raises
    ------
    ArgumentError
        The images are not of that kind, or there are none.
    MissingPackageError
        PIL is not installed.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise MissingPackageError(
            "contact sheet: PIL is not installed, which draws it: pip install Pillow-SIMD (or Pillow, beside packages "
            "that need it)"
        ) from None
    images = _checked(batch)
    count, height, width = images.shape[:3]
    if columns is not None and columns < 1:
        raise ArgumentError(f"contact sheet: columns is {columns!r}; expected a whole number of 1 or more")
    tile_width, tile_height = _tile_size(width, height)
    caption_width = max(tile_width, _SMALLEST)
    cell_width, cell_height = caption_width + _GAP, tile_height + _GAP + _LABEL + _KEY + 10
    if columns is None:
        columns = round(math.sqrt(count * _ASPECT * cell_height / cell_width))
    columns = min(max(columns, 1), count)
    rows = math.ceil(count / columns)
    top = _GAP if title is None else _GAP + _TITLE + 14
    sheet = Image.new("RGB", (columns * cell_width + _GAP, top + rows * cell_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title is not None:
        _write(draw, (_GAP, _GAP), title, sheet.width - 2 * _GAP, _TITLE, _INK)
    enlarge = tile_width > width
    for i in range(count):
        x, y = _GAP + i % columns * cell_width, top + i // columns * cell_height
        tile = Image.fromarray(images[i] if images.shape[3] == 3 else images[i, :, :, 0])
        if tile.size != (tile_width, tile_height):
            resampling = Image.Resampling.NEAREST if enlarge else Image.Resampling.LANCZOS
            tile = tile.resize((tile_width, tile_height), resampling)
        draw.rectangle((x - 1, y - 1, x + tile_width, y + tile_height), outline=_FRAME)
        sheet.paste(tile, (x, y))
        label, key = _captions(batch, i, classes)
        _write(draw, (x, y + tile_height + 5), label, caption_width, _LABEL, _INK)
        # The end of a path says more than its beginning.
        _write(draw, (x, y + tile_height + 5 + _LABEL + 4), key, caption_width, _KEY, _FAINT, keep_end=True)
    return sheet


def save_contact_sheet(
    path: str | os.PathLike[str],
    batch: Batch,
    classes: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    title: str | None = None,
) -> None:
    """Write `contact_sheet` to a file, in the format that its name ends in (.png).

    Raises
    ------
    ArgumentError
        As `contact_sheet`; or the name does not end in a format that PIL writes.
    OSError
        The file cannot be written.
    """
    sheet = contact_sheet(batch, classes, columns=columns, title=title)
    try:
        sheet.save(path)
    except ValueError:
        raise ArgumentError(
            f"contact sheet: {os.fspath(path)!r} does not end in the name of an image format; use .png"
        ) from None


def _checked(batch: Batch) -> NDArray[np.uint8]:
    images = batch["images"]
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[3] not in (1, 3):
        raise ArgumentError(
            f"contact sheet: images are {images.dtype} of shape {images.shape}; expected uint8 (N, H, W, 3) or "
            "(N, H, W, 1) - take the batch before Normalize"
        )
    if not images.size:
        raise ArgumentError(f"contact sheet: images of shape {images.shape} have nothing to show")
    return images


def _tile_size(width: int, height: int) -> tuple[int, int]:
    largest = max(width, height)
    if largest > _LARGEST:
        factor = _LARGEST / largest
        return max(1, round(width * factor)), max(1, round(height * factor))
    whole = max(1, _LARGEST // 2 // largest) if largest < _SMALLEST else 1
    return width * whole, height * whole


def _captions(batch: Batch, i: int, classes: Sequence[str] | None) -> tuple[str, str]:
    key = batch.keys[i] if batch.keys is not None else f"sample {batch.indices[i]}"
    if "labels" not in batch.fields:
        return key, ""
    label: Any = batch["labels"][i]
    number = int(label) if label.ndim == 0 else int(label.argmax())
    if classes is None or not 0 <= number < len(classes):
        return str(number), key
    return classes[number], key


def _write(
    draw: ImageDraw,
    at: tuple[int, int],
    text: str,
    width: int,
    size: int,
    colour: tuple[int, int, int],
    *,
    keep_end: bool = False,
) -> None:
    """One line, shortened to what fits."""
    font = _font(size)
    # Names that are not UTF-8 come with lone surrogates, and PIL's small font knows Latin-1 only.
    encoding = "utf-8" if hasattr(font, "path") else "latin-1"
    text = " ".join(text.split()).encode(encoding, "replace").decode(encoding)
    shown = text
    while text and draw.textlength(shown, font=font) > width:
        text = text[1:] if keep_end else text[:-1]
        shown = f"...{text}" if keep_end else f"{text}..."
    draw.text(at, shown, fill=colour, font=font)


def _font(size: int) -> Any:
    from PIL import ImageFont

    try:
        return ImageFont.load_default(size)
    except (ImportError, TypeError):
        # PIL without FreeType, or from before 10.1: a small font in one size.
        return ImageFont.load_default()
