"""Crops: windows of images, at random places or in the center, over a padded border if wanted."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.arguments import number, numbers, whole
from highway.arguments import size as checked_size
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms.transform import Transform, pixels
from highway.transforms.view import Moving, View

__all__ = ["CenterCrop", "Fill", "PadCrop", "RandomCrop", "Slice", "Windows", "filling", "plain_fill"]

Margins = int | tuple[int, int] | tuple[int, int, int, int]
Fill = float | tuple[float, ...]


class Windows(NamedTuple):
    """A window of each image, in pixels; it may reach beyond the image.

    Attributes
    ----------
    tops, lefts : int64 (N,)
        Row and column of the image where the window begins.
    height, width : int
    """

    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
    height: int
    width: int


class _Window(Moving):
    """What crops and pads share: a window, the border around the image, and what the border holds."""

    hands_over = True

    def __init__(self, padding: Margins, fill: Fill, min_visible: float) -> None:
        name = type(self).__name__
        self.min_visible = number(name, "min_visible", min_visible, 0, 1)
        self.padding = padding
        self._margins = _margins(name, padding)
        self.fill = plain_fill(name, fill)

    def apply_images(self, images: NDArray[Any], params: Windows) -> NDArray[Any]:
        """Copy the windows.

        Parameters
        ----------
        images : ndarray (N, H, W, C)
        params : Windows

        Returns
        -------
        ndarray (N, params.height, params.width, C)
        """
        source = pixels(images, self)
        # As bytes, whatever the dtype.
        view = View.whole(source.shape).window(*params, self._pixel(images.shape[3], images.dtype))
        assert view is not None, "a whole image has all windows"
        return view.copied(source, self).view(images.dtype)

    @property
    def stays_inside(self) -> bool:
        """Without a border a window is within the image."""
        return not any(self._margins)

    def look(self, view: View, params: Windows) -> View | None:
        """The windows of what is seen."""
        return view.window(*params, self._pixel(view.shape[3], np.dtype(np.uint8)))

    def moved(self, view: View, params: Windows) -> View | None:
        """The windows of what is seen, whatever the border holds."""
        return view.window(*params, np.zeros(view.shape[3], np.uint8))

    def _pixel(self, channels: int, dtype: np.dtype[Any]) -> NDArray[np.uint8]:
        """The fill as the bytes of one pixel."""
        return filling(self, self.fill, channels, dtype).view(np.uint8)


class _Crop(_Window):
    def __init__(
        self,
        size: int | tuple[int, int],
        padding: Margins = 0,
        fill: Fill = 0,
        min_visible: float = 0.0,
    ) -> None:
        super().__init__(padding, fill, min_visible)
        name = type(self).__name__
        self.size = checked_size(name, "size", size)
        left, top, right, bottom = self._margins
        if max(left, right) >= self.size[1] or max(top, bottom) >= self.size[0]:
            raise ArgumentError(
                f"{name}: padding is {padding!r} and size is {self.size}: a window would fit into the border alone; "
                f"expected less padding, or for a height and a width {name}((height, width))"
            )

    def _room(self, height: int, width: int) -> tuple[int, int]:
        """How many rows and columns of images of this size the window can move over."""
        left, top, right, bottom = self._margins
        rows = height + top + bottom - self.size[0]
        columns = width + left + right - self.size[1]
        if rows < 0 or columns < 0:
            padded = " with their padding" if any(self._margins) else ""
            raise ArgumentError(
                f"{type(self).__name__}: size is {self.size}, but the images are "
                f"({height + top + bottom}, {width + left + right}){padded}; "
                "expected a size that fits into them, or padding"
            )
        return rows, columns


class RandomCrop(_Crop):
    """A window at a random place, for each sample its own, all places equally likely.

    Deterministic form: `CenterCrop` of the same size, padding and fill.

    Parameters
    ----------
    size : int or (int, int)
        Height and width in pixels; one number for a square. Images with their padding are at least as large.
    padding : int, (int, int) or (int, int, int, int)
        Border around the image that the window may reach into, in pixels: all sides; (left and right, top
        and bottom); or (left, top, right, bottom). Less than the width or height of the window.
    fill : float or tuple of float
        What the border holds: one number, or one for each channel. For uint8 images 0 to 255.
    min_visible : float
        Boxes with less than this part of their area in the window are dropped, 0 to 1.

    Raises
    ------
    ArgumentError
        An argument is out of range; with the first batch, if it is about the images.
    """

    def choose(self, rng: SampleRandom, shape: tuple[int, ...]) -> Windows:
        """Places of the windows."""
        rows, columns = self._room(shape[1], shape[2])
        left, top = self._margins[:2]
        return Windows(rng.integers(0, rows + 1) - top, rng.integers(0, columns + 1) - left, *self.size)

    def deterministic(self) -> CenterCrop:
        """The window in the center."""
        return CenterCrop(self.size, self.padding, self.fill, self.min_visible)


class CenterCrop(_Crop):
    """The window in the center, as torchvision's ``v2.CenterCrop``.

    Top and left margins are half of what is cut off; a half pixel is rounded to the even number, so of 1, 3, 5 and 7
    rows 0, 2, 2 and 4 are cut off at the top. Smaller images get a border of `fill`, whose odd pixel is at the right
    and below.

    Deterministic form: itself.

    Parameters
    ----------
    size : int or (int, int)
        Height and width in pixels; one number for a square.
    padding : int, (int, int) or (int, int, int, int)
        Border around the image that the window may reach into, in pixels: all sides; (left and right, top
        and bottom); or (left, top, right, bottom). Less than the width or height of the window.
    fill : float or tuple of float
        What the border holds: one number, or one for each channel. For uint8 images 0 to 255.
    min_visible : float
        Boxes with less than this part of their area in the window are dropped, 0 to 1.

    Raises
    ------
    ArgumentError
        An argument is out of range; with the first batch, if it is about the images.
    """

    def choose(self, rng: SampleRandom, shape: tuple[int, ...]) -> Windows:
        """Places of the windows; nothing about them is random."""
        left, top, right, bottom = self._margins
        first_row = _centered(shape[1] + top + bottom, self.size[0]) - top
        first_column = _centered(shape[2] + left + right, self.size[1]) - left
        return Windows(np.full(shape[0], first_row), np.full(shape[0], first_column), *self.size)

    def reaches_out(self, height: int, width: int) -> bool:
        """Whether images of this size, with their padding, are smaller than the window."""
        left, top, right, bottom = self._margins
        return height + top + bottom < self.size[0] or width + left + right < self.size[1]

    def deterministic(self) -> CenterCrop:
        """The transform itself."""
        return self


class PadCrop(RandomCrop):
    """A border on all sides, then a window at a random place: `RandomCrop` as networks for CIFAR are trained with.

    Deterministic form: `CenterCrop` of the same size, padding and fill.

    Parameters
    ----------
    size : int or (int, int)
        Height and width in pixels; one number for a square.
    padding, fill, min_visible
        See `RandomCrop`.

    Notes
    -----
    K. He et al., "Deep residual learning for image recognition", CVPR 2016, section 4.2.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        padding: Margins = 4,
        fill: Fill = 0,
        min_visible: float = 0.0,
    ) -> None:
        super().__init__(size, padding, fill, min_visible)


class Slice(_Window):
    """The window at a given place, the same for every image.

    Deterministic form: itself.

    Parameters
    ----------
    top, left : int
        Row and column where it begins.
    height, width : int
        In pixels; the window lies within the images.
    min_visible : float
        Boxes with less than this part of their area in the window are dropped, 0 to 1.

    Raises
    ------
    ArgumentError
        An argument is out of range; with the first batch, or the pipeline, if the window does not fit the images.
    """

    def __init__(self, top: int, left: int, height: int, width: int, min_visible: float = 0.0) -> None:
        super().__init__(0, 0, min_visible)
        self.top = whole("Slice", "top", top, 0, 65536)
        self.left = whole("Slice", "left", left, 0, 65536)
        self.height = whole("Slice", "height", height, 1, 65536)
        self.width = whole("Slice", "width", width, 1, 65536)

    def choose(self, rng: SampleRandom, shape: tuple[int, ...]) -> Windows:
        """The same window for all."""
        if self.top + self.height > shape[1] or self.left + self.width > shape[2]:
            raise ArgumentError(
                f"{self!r}: rows {self.top} to {self.top + self.height} and columns {self.left} to "
                f"{self.left + self.width} are not all in images of {shape[1]} x {shape[2]} pixels"
            )
        count = shape[0]
        return Windows(np.full(count, self.top), np.full(count, self.left), self.height, self.width)

    def deterministic(self) -> Slice:
        """The transform itself."""
        return self


def _centered(length: int, size: int) -> int:
    """Where a window in the center begins; below 0 where it is longer than the image."""
    room = length - size
    return round(room / 2) if room >= 0 else -(-room // 2)


def _margins(owner: str, padding: object) -> tuple[int, int, int, int]:
    """Left, top, right and bottom."""
    if not isinstance(padding, (tuple, list)):
        side = whole(owner, "padding", padding, 0, 65536)
        return side, side, side, side
    sides = [whole(owner, f"padding[{i}]", side, 0, 65536) for i, side in enumerate(padding)]
    if len(sides) == 2:
        return sides[0], sides[1], sides[0], sides[1]
    if len(sides) == 4:
        return sides[0], sides[1], sides[2], sides[3]
    raise ArgumentError(
        f"{owner}: padding is {padding!r}; expected a whole number, (left and right, top and bottom), or "
        "(left, top, right, bottom)"
    )


def plain_fill(owner: str, fill: object) -> Fill:
    """One number, or a tuple of them: nobody can change them later, and `repr` shows them."""
    found = tuple(int(value) if value.is_integer() else value for value in numbers(owner, "fill", fill))
    return found[0] if np.shape(np.asarray(fill)) == () else found


def filling(
    owner: Transform, fill: Fill, channels: int, dtype: np.dtype[Any], name: str = "fill"
) -> NDArray[Any]:
    """One pixel of what a transform shows where there is no image.

    Parameters
    ----------
    owner : Transform
        Whose error it is.
    fill : float or tuple of float
    channels : int
    dtype : dtype
    name : str
        What the transform calls it.

    Returns
    -------
    ndarray (channels,)

    Raises
    ------
    ArgumentError
        Such images cannot hold it.
    """
    values = numbers(type(owner).__name__, name, fill)
    if len(values) not in (1, channels):
        raise ArgumentError(
            f"{type(owner).__name__}: {name} is {fill!r}, for images with {channels} channels; "
            "expected one number, or one for each channel"
        )
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if not all(value.is_integer() and limits.min <= value <= limits.max for value in values):
            raise ArgumentError(
                f"{type(owner).__name__}: {name} is {fill!r}, for images of {dtype}; "
                f"expected whole numbers from {limits.min} to {limits.max}"
            )
    pixel = np.empty(channels, dtype=dtype)
    pixel[:] = values
    return pixel
