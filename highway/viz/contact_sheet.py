"""Contact sheet: the images of a batch in a grid with their labels, to check the input of the network."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from highway.arguments import expanded
from highway.arguments.signatures import explained
from highway.errors import ArgumentError, MissingPackageError
from highway.viz.drawing import draw_boxes, draw_points, overlay_mask, write

if TYPE_CHECKING:
    from PIL.Image import Image


__all__ = ["captions", "contact_sheet", "save_sheet"]

# Pixels.
_LARGEST = 320
_SMALLEST = 96
_GAP, _PAIR_GAP = 16, 4
_TITLE, _LABEL, _KEY = 18, 15, 12
_PAPER, _INK, _FAINT, _FRAME = (255, 255, 255), (24, 24, 27), (113, 113, 122), (212, 212, 216)
# Approximate width : height of a sheet.
_ASPECT = 4 / 3


class Samples(Protocol):
    """A batch to draw: its arrays by name, and the identity of its samples."""

    ragged: frozenset[str]

    @property
    def keys(self) -> Sequence[str]:
        """Name of each sample; empty without names."""

    @property
    def size(self) -> int:
        """Number of samples."""

    @property
    def indices(self) -> NDArray[np.int64]:
        """Number of each sample in the data, int64 (N,)."""

    def __getitem__(self, name: str) -> NDArray[Any]: ...

    def __contains__(self, name: object) -> bool: ...

    def rows_of(self, name: str, i: int) -> NDArray[Any]:
        """Return the part of an array that belongs to sample `i`."""


class Numbers(Protocol):
    """The parameters of a `Normalize`."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel, or of all, in units of 0 to 1."""

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel, or of all."""

    @property
    def layout(self) -> str:
        """NCHW or NHWC."""


@explained("sheet")
def contact_sheet(
    batch: Samples,
    classes: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    title: str | None = None,
    normalize: Numbers | None = None,
    original: Samples | None = None,
) -> Image:
    """Draw every image of a batch with its annotations, and its label and key below.

    Images of more than 320 pixels are reduced; small ones are enlarged by a whole factor, so that every pixel is
    visible. Boxes have a color for each class, and dashed lines if the batch marks them as `difficult`; masks have the
    colors of PASCAL VOC, nothing for 0 and hatching for 255; keypoints are crosses.

    Parameters
    ----------
    batch : Samples
        Has `images`, uint8 (N, H, W, C), or float32 or float16 (N, H, W, C) or (N, C, H, W) from 0 to 1, where C is 3
        or 1. Optional, drawn too: `labels`, numbers (N,) or one-hot (N, K) or one per box; `boxes`, float
        (total, 4), x0, y0, x1, y1 in pixels; `masks`, uint8 (N, H, W); `keypoints`, float (N, K, 2) or (total, K, 2).
    classes : sequence of str, optional
        Names of the labels, such as ``reader.classes``; by default the numbers are shown.
    columns : int, optional
        Images, or pairs, per row; by default the sheet is about 4 : 3.
    title : str, optional
        A line at the top.
    normalize : Normalize, optional
        The `Normalize` of the pipeline, to undo it.
    original : Samples, optional
        The same samples before augmentation: each is drawn to the left of its augmented image.

    Returns
    -------
    PIL.Image.Image
        RGB; use its ``save(path)``, or show it in a notebook.

    Raises
    ------
    ArgumentError
        The images are of another kind, or there are none; or `original` has other samples.
    MissingPackageError
        PIL is not installed.
    """
    given: object = classes
    if given is not None and (isinstance(given, str) or not isinstance(given, (Sequence, np.ndarray))):
        raise ArgumentError(f"contact sheet: classes is {classes!r}; expected names, such as reader.classes")
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise MissingPackageError(
            "contact sheet: needs PIL, which is not installed: pip install Pillow-SIMD (or Pillow, if other packages "
            "need it)"
        ) from None
    if columns is not None and columns < 1:
        raise ArgumentError(f"contact sheet: columns is {columns!r}; expected a whole number of 1 or more")
    panels = [_panel(batch, normalize)]
    if original is not None:
        _check_same_samples(original, batch)
        panels.insert(0, _panel(original, normalize))
    count = len(panels[-1].images)
    tiles_width = sum(panel.width for panel in panels) + (len(panels) - 1) * _PAIR_GAP
    tiles_height = max(panel.height for panel in panels)
    caption_width = max(tiles_width, _SMALLEST)
    cell_width, cell_height = caption_width + _GAP, tiles_height + _GAP + _LABEL + _KEY + 10
    if columns is None:
        columns = round(math.sqrt(count * _ASPECT * cell_height / cell_width))
    columns = min(max(columns, 1), count)
    rows = math.ceil(count / columns)
    top = _GAP if title is None else _GAP + _TITLE + 14
    sheet = Image.new("RGB", (columns * cell_width + _GAP, top + rows * cell_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title is not None:
        write(draw, (_GAP, _GAP), title, sheet.width - 2 * _GAP, _TITLE, _INK)
    for i in range(count):
        x, y = _GAP + i % columns * cell_width, top + i // columns * cell_height
        at = x
        for panel in panels:
            draw.rectangle((at - 1, y - 1, at + panel.width, y + panel.height), outline=_FRAME)
            sheet.paste(_tile(panel, i, classes), (at, y))
            at += panel.width + _PAIR_GAP
        label, key = captions(batch, i, classes)
        write(draw, (x, y + tiles_height + 5), label, caption_width, _LABEL, _INK)
        # The end of a path is more specific than its start.
        write(draw, (x, y + tiles_height + 5 + _LABEL + 4), key, caption_width, _KEY, _FAINT, keep_end=True)
    return sheet


def save_sheet(path: str | os.PathLike[str], sheet: Image) -> None:
    """Write a sheet to a file, in the format of its extension (.png).

    Raises
    ------
    ArgumentError
        PIL does not write the format of the extension.
    OSError
        The file cannot be written.
    """
    name = expanded("contact sheet", "path", path)
    try:
        sheet.save(name)
    except ValueError:
        raise ArgumentError(
            f"contact sheet: {name!r} does not have the extension of an image format; use .png"
        ) from None


def captions(batch: Samples, i: int, classes: Sequence[str] | None) -> tuple[str, str]:
    """Return the label and the key of a sample as text; without labels, the key and an empty text."""
    key = batch.keys[i] if batch.keys else f"sample {batch.indices[i]}"
    if "labels" not in batch:
        return key, ""
    of_boxes = _box_labels(batch, i)
    if of_boxes is not None:
        counted = sorted(Counter(of_boxes).items(), key=lambda item: (-item[1], item[0]))
        return ", ".join(f"{count} {_name(label, classes)}" for label, count in counted) or "no boxes", key
    label: Any = batch["labels"][i]
    if label.ndim == 0:
        return _name(int(label), classes), key
    parts = [int(k) for k in np.argsort(-label, kind="stable") if label[k] >= 0.005]
    if label.dtype.kind == "f" and len(parts) > 1:
        return ", ".join(f"{label[k]:.0%} {_name(k, classes)}" for k in parts), key
    return _name(int(label.argmax()), classes), key


class _Panel(NamedTuple):
    """A batch, its images for display, uint8 (N, H, W, C), and the size of each drawn image."""

    batch: Samples
    images: NDArray[np.uint8]
    width: int
    height: int


def _panel(batch: Samples, normalize: Numbers | None) -> _Panel:
    images = _shown(batch["images"], normalize)
    count, height, width = images.shape[:3]
    if "masks" in batch and (
        batch["masks"].dtype != np.uint8 or batch["masks"].shape != (count, height, width)
    ):
        raise ArgumentError(
            f"contact sheet: masks are {batch['masks'].dtype} of shape {batch['masks'].shape}; expected uint8 "
            f"({count}, {height}, {width}), like the images"
        )
    for name, last in (("boxes", 4), ("keypoints", 2)):
        if name in batch and batch[name].shape[-1:] != (last,):
            raise ArgumentError(
                f"contact sheet: {name} have shape {batch[name].shape}; expected a last axis of {last}"
            )
    return _Panel(batch, images, *_tile_size(width, height))


def _shown(images: NDArray[Any], normalize: Numbers | None) -> NDArray[np.uint8]:
    """Return the images as uint8 (N, H, W, C)."""
    if not images.size:
        raise ArgumentError(f"contact sheet: images of shape {images.shape} are empty")
    if images.ndim == 4 and images.dtype == np.uint8 and images.shape[3] in (1, 3):
        return images
    if images.ndim == 4 and images.dtype in (np.float32, np.float16):
        channels_last = images.shape[3] in (1, 3) if normalize is None else normalize.layout == "NHWC"
        real = (images if channels_last else images.transpose(0, 2, 3, 1)).astype(np.float32)
        if real.shape[3] in (1, 3):
            if normalize is not None:
                real = _undone(real, normalize)
            elif not (real.min() >= 0 and real.max() <= 1):
                raise ArgumentError(
                    f"contact sheet: images are {images.dtype} from {real.min():g} to {real.max():g}; expected 0 to 1; "
                    "set normalize= to the Normalize that made them"
                )
            shown: NDArray[np.uint8] = np.rint(real.clip(0, 1) * 255).astype(np.uint8)
            return shown
    way = "; the upper bits of uint16 are (images >> 8).astype(np.uint8)" if images.dtype == np.uint16 else ""
    raise ArgumentError(
        f"contact sheet: images are {images.dtype} of shape {images.shape}; expected uint8 or float (N, H, W, 3) or "
        f"(N, H, W, 1), or float (N, 3, H, W) or (N, 1, H, W){way}"
    )


def _undone(real: NDArray[np.float32], normalize: Numbers) -> NDArray[np.float32]:
    mean, std = np.array(normalize.mean, np.float32), np.array(normalize.std, np.float32)
    channels = real.shape[3]
    if len(mean) not in (1, channels) or len(std) not in (1, channels):
        raise ArgumentError(
            f"contact sheet: normalize is {normalize!r}, for images with {channels} channels; expected the one that "
            "made them"
        )
    undone: NDArray[np.float32] = real * std + mean
    return undone


def _check_same_samples(original: Samples, batch: Samples) -> None:
    if original.keys and batch.keys:
        same = original.keys == batch.keys
    else:
        same = np.array_equal(original.indices, batch.indices)
    if not same:
        raise ArgumentError(
            f"contact sheet: original has other samples than the batch; expected the same {batch.size}, in the same "
            "order"
        )


def _tile_size(width: int, height: int) -> tuple[int, int]:
    largest = max(width, height)
    if largest > _LARGEST:
        factor = _LARGEST / largest
        return max(1, round(width * factor)), max(1, round(height * factor))
    whole = max(1, _LARGEST // 2 // largest) if largest < _SMALLEST else 1
    return width * whole, height * whole


def _tile(panel: _Panel, i: int, classes: Sequence[str] | None) -> Image:
    from PIL import Image

    batch, image = panel.batch, panel.images[i]
    height, width, channels = image.shape
    tile = Image.fromarray(np.ascontiguousarray(image if channels == 3 else image[:, :, 0])).convert("RGB")
    if tile.size != (panel.width, panel.height):
        enlarge = panel.width > width
        resampling = Image.Resampling.NEAREST if enlarge else Image.Resampling.LANCZOS
        tile = tile.resize((panel.width, panel.height), resampling)
    factors = np.array([panel.width / width, panel.height / height])
    if "masks" in batch:
        tile = overlay_mask(tile, batch["masks"][i])
    if "boxes" in batch:
        boxes = _rows(batch, "boxes", i).reshape(-1, 4)
        labels = _box_labels(batch, i)
        dashed = _rows(batch, "difficult", i) if "difficult" in batch else np.zeros(len(boxes), np.bool_)
        names = [] if labels is None else [_name(label, classes) for label in labels]
        draw_boxes(
            tile, boxes * np.tile(factors, 2), labels or [0] * len(boxes), names or [""] * len(boxes), dashed
        )
    if "keypoints" in batch:
        points = batch.rows_of("keypoints", i)
        draw_points(tile, points.reshape(-1, points.shape[-2], 2) * factors)
    return tile


def _box_labels(batch: Samples, i: int) -> list[int] | None:
    """Return the class of each box of a sample; None if the labels do not belong to boxes."""
    if "labels" not in batch.ragged and not _is_padded(batch):
        return None
    labels = _rows(batch, "labels", i)
    # Ragged labels may follow something else than the boxes.
    return [int(label) for label in labels] if len(labels) == len(_rows(batch, "boxes", i)) else None


def _is_padded(batch: Samples) -> bool:
    """Return whether the boxes are padded to the same number per sample, with `counts` of valid ones."""
    return "counts" in batch and "boxes" in batch and batch["boxes"].ndim == 3


def _rows(batch: Samples, name: str, i: int) -> NDArray[Any]:
    """Return the rows of the boxes of a sample, ragged or padded."""
    rows = batch.rows_of(name, i)
    return rows[: int(batch["counts"][i])] if _is_padded(batch) else rows


def _name(label: int, classes: Sequence[str] | None) -> str:
    return str(label) if classes is None or not 0 <= label < len(classes) else classes[label]
