"""ImageFields: the fields of images of a reader of pictures, and where each view of a picture is in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway._core.pixels import resample
from highway._core.pool import waiting
from highway.engine.spec import Spec, array_spec
from highway.modules.readers.fused_transforms import FusedTransforms
from highway.sampling.rng import SampleRandom
from highway.transforms.fit import Fit
from highway.transforms.placement import Placement
from highway.transforms.views import FieldViews, Views

__all__ = ["DrawnView", "ImageFields"]


class DrawnView(NamedTuple):
    """One view of each picture.

    Attributes
    ----------
    field : str
        Name of the field with the images.
    number : int or None
        Index in the second axis of the field; None if it has none.
    fit : Fit
    size : (int, int)
        Height and width in pixels.
    """

    field: str
    number: int | None
    fit: Fit
    size: tuple[int, int]

    @property
    def filter(self) -> int:
        """Index of the filter in `resample.FILTERS`."""
        return resample.FILTERS.index(self.fit.interpolation)

    def of(self, images: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the images of this view in the fields, without copying them."""
        return images[self.field] if self.number is None else images[self.field][:, self.number]


class ImageFields:
    """The fields of images of a reader: `images`, or those of `Views`.

    Parameters
    ----------
    fit : Fit or Views
    shape : (int, int) or None
        Height and width of `images`; None with `Views`, which have their own.
    channels : int
    dtype : dtype
        Type of the images: uint8 or uint16.

    Raises
    ------
    ArgumentError
        The images cannot have the fill of a fit.

    Attributes
    ----------
    views : tuple of DrawnView
        All views of a picture, by their random position.
    """

    def __init__(
        self,
        fit: Fit | Views,
        shape: tuple[int, int] | None,
        channels: int,
        dtype: np.dtype[Any],
    ) -> None:
        self._fit, self.channels, self._dtype = fit, channels, dtype
        self.shape = shape
        if isinstance(fit, Views):
            self._by_name: Mapping[str, FieldViews] = fit.fields
        else:
            assert shape is not None
            self._by_name = {"images": FieldViews(None, fit, shape)}
        self.views = tuple(
            DrawnView(name, None if count is None else number, one, sides)
            for name, (count, one, sides) in self._by_name.items()
            for number in range(count or 1)
        )
        for view in self.views:
            view.fit.color(channels, dtype)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields, in their order."""
        return tuple(self._by_name)

    @property
    def min_visible(self) -> float:
        """Smallest visible fraction of the area of a box that is kept; views have no boxes."""
        return 0.0 if self.shape is None else self.views[0].fit.min_visible

    def making(self) -> Sequence[object]:
        """Return what determines the images of a picture."""
        return self._fit, *(self.shape or ()), self.channels

    def spec(self) -> Spec:
        """Return the fields of the batches."""
        return {name: array_spec(self._dtype, *self._sizes(name)) for name in self._by_name}

    def nbytes(self, count: int, itemsize: int) -> int:
        """Return the bytes of all images of `count` pictures, with numbers of `itemsize` bytes."""
        return count * itemsize * sum(math.prod(self._sizes(name)) for name in self._by_name)

    def have_room(self, count: int, itemsize: int) -> bool:
        """Whether the memory for all images of `count` pictures waits for reuse."""
        return all(waiting(count * itemsize * math.prod(self._sizes(name))) for name in self._by_name)

    def room(self, count: int, finish: FusedTransforms) -> dict[str, NDArray[Any]]:
        """Allocate the finished images of `count` pictures."""
        return {name: finish.room((count, *self._sizes(name))) for name in self._by_name}

    def placements(
        self,
        rng: SampleRandom,
        heights: NDArray[np.int64],
        widths: NDArray[np.int64],
        finish: FusedTransforms,
    ) -> list[Placement]:
        """Choose the windows of all views, their targets in the images, and which images are mirrored.

        Parameters
        ----------
        rng : SampleRandom
            Random numbers of the samples, at position 0; view number p draws at position p.
        heights, widths : int64 (N,)
            Sizes of the upright pictures in pixels.
        finish : FusedTransforms
            Mirrors the images; it draws after the views.
        """
        found = []
        for position, view in enumerate(self.views):
            placement = view.fit.choose(rng.at(position), heights, widths, view.size)
            mirrored = finish.mirrored(len(self.views), rng, (*view.size, self.channels))
            found.append(placement._replace(mirrored=placement.mirrored ^ mirrored))
        return found

    def begin(
        self,
        decoder: jpeg.BatchDecoder,
        rows: NDArray[np.int64],
        placements: Sequence[Placement],
        exact: bool,
        nbytes: int,
    ) -> bool:
        """Begin to decode some pictures, as `BatchDecoder.begin_views` does; `placements` are of these."""
        views = [
            (*placement, view.filter, (*view.size, self.channels))
            for view, placement in zip(self.views, placements, strict=True)
        ]
        return decoder.begin_views(rows, views, exact, nbytes, self._dtype == np.uint16)

    def paint(
        self,
        images: Mapping[str, NDArray[Any]],
        slots: NDArray[np.int64],
        placements: Sequence[Placement],
        finish: FusedTransforms,
    ) -> None:
        """Fill the images that their targets do not cover with the color of their fit."""
        for view, placement in zip(self.views, placements, strict=True):
            color = view.fit.color(self.channels, self._dtype)
            pixels = np.ascontiguousarray(np.broadcast_to(color, (1, 1, 1, self.channels)))
            uncovered = view.fit.uncovered(placement.targets, view.size)
            view.of(images)[slots[uncovered]] = finish.done(pixels, np.zeros((1, 2), np.bool_))

    def draw(
        self,
        pixels: NDArray[Any],
        placements: Sequence[Placement],
        row: int,
        images: Mapping[str, NDArray[Any]],
        slot: int,
        finish: FusedTransforms,
    ) -> None:
        """Make all images of one decoded picture, uint8 or uint16 (H, W, C): those of row `row` of `placements`."""
        upright = np.zeros((1, 2), np.uint8)
        for view, placement in zip(self.views, placements, strict=True):
            windows, targets, mirrored = placement.take(slice(row, row + 1))
            whole = np.empty((1, *view.size, self.channels), self._dtype)
            if view.fit.uncovered(targets, view.size)[0]:
                whole[0] = view.fit.color(self.channels, self._dtype)
            resample.resize_batch(pixels[None], windows, targets, upright, view.filter, whole)
            view.of(images)[slot] = finish.done(whole, mirrored)[0]

    def refuse(
        self, placements: Sequence[Placement], heights: NDArray[np.int64], widths: NDArray[np.int64]
    ) -> None:
        """Raise ContractError where a fit chose windows or targets that are not allowed."""
        for view, placement in zip(self.views, placements, strict=True):
            view.fit.refuse(placement, heights, widths, view.size)

    def _sizes(self, name: str) -> tuple[int, ...]:
        """Sizes of the images of one picture in a field."""
        count, _, (height, width) = self._by_name[name]
        return (*(() if count is None else (count,)), height, width, self.channels)
