"""Crops: random, centered or fixed windows of images, with optional padding."""

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

__all__ = ["CenterCrop", "CropWindows", "Fill", "PadCrop", "RandomCrop", "Slice", "fill_pixel", "plain_fill"]

Margins = int | tuple[int, int] | tuple[int, int, int, int]
Fill = float | tuple[float, ...]


class CropWindows(NamedTuple):
    """One window per image, in pixels; a window may reach beyond its image.

    Attributes
    ----------
    tops, lefts : int64 (N,)
        First row and column of the window in the image.
    height, width : int
    """

    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
    height: int
    width: int


class CropOrPad(Moving):
    """Base of crops and pads: a window, the border around the image and the fill of the border."""

    hands_over = True

    def __init__(self, padding: Margins, fill: Fill, min_visible: float) -> None:
        name = type(self).__name__
        self.min_visible = number(name, "min_visible", min_visible, 0, 1)
        self.padding = padding
        self._margins = _margins(name, padding)
        self.fill = plain_fill(name, fill)

    def apply_images(self, images: NDArray[Any], params: CropWindows) -> NDArray[Any]:
        """Copy the windows.

        Parameters
        ----------
        images : ndarray (N, H, W, C)
        params : CropWindows

        Returns
        -------
        ndarray (N, params.height, params.width, C)
        """
        source = pixels(images, self)
        # Any dtype is copied as bytes.
        view = View.whole(source.shape).cropped(*params, self._pixel(images.shape[3], images.dtype))
        assert view is not None, "a whole image has all windows"
        return view.copied(source, self).view(images.dtype)

    @property
    def stays_inside(self) -> bool:
        """Whether the window stays within the image: true without a border."""
        return not any(self._margins)

    def shape_after(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> tuple[int, int, int] | None:
        """Return the output shape (H, W, C), and check that the images can hold the fill."""
        if dtype == np.uint8:
            return self.out_shape(shape)
        self._pixel(shape[2], dtype)
        return self._shown(shape, self.moved)

    def look(self, view: View, params: CropWindows) -> View | None:
        """Return the windows of the view."""
        return view.cropped(*params, self._pixel(view.shape[3], np.dtype(np.uint8)))

    def moved(self, view: View, params: CropWindows) -> View | None:
        """Return the windows of the view; the border has any content."""
        return view.cropped(*params, np.zeros(view.shape[3], np.uint8))

    def _pixel(self, channels: int, dtype: np.dtype[Any]) -> NDArray[np.uint8]:
        """Return the fill as the bytes of one pixel."""
        return fill_pixel(self, self.fill, channels, dtype).view(np.uint8)


class _Crop(CropOrPad):
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
                f"{name}: padding is {padding!r} and size is {self.size}: the window would fit inside the border; "
                f"expected less padding, or {name}((height, width)) for a height and a width"
            )

    def _slack(self, height: int, width: int) -> tuple[int, int]:
        """Return how many rows and columns the window can move in images of this size."""
        left, top, right, bottom = self._margins
        rows = height + top + bottom - self.size[0]
        columns = width + left + right - self.size[1]
        if rows < 0 or columns < 0:
            padded = " with their padding" if any(self._margins) else ""
            raise ArgumentError(
                f"{type(self).__name__}: size is {self.size}, but the images are "
                f"({height + top + bottom}, {width + left + right}){padded}; "
                "expected a size that fits into the images, or padding"
            )
        return rows, columns


class RandomCrop(_Crop):
    """Crop a window at a random position, uniform and drawn per sample.

    Deterministic form: `CenterCrop` of the same size, padding and fill.

    Parameters
    ----------
    size : int or (int, int)
        Height and width in pixels; one number for a square. Images with their padding must be at least this size.
    padding : int, (int, int) or (int, int, int, int)
        Border around the image that the window may reach into, in pixels: all sides; (left and right, top
        and bottom); or (left, top, right, bottom). Must be less than the width or height of the window.
    fill : float or tuple of float
        Value of border pixels: one number, or one per channel; 0 to 255 for uint8 images.
    min_visible : float
        Drop boxes with less than this fraction of their area in the window, 0 to 1.

    Raises
    ------
    ArgumentError
        An argument is out of range. Checks that depend on the images raise at the first batch.
    """

    def choose(self, rng: SampleRandom, shape: tuple[int, ...]) -> CropWindows:
        """Draw the positions of the windows."""
        rows, columns = self._slack(shape[1], shape[2])
        left, top = self._margins[:2]
        return CropWindows(rng.integers(0, rows + 1) - top, rng.integers(0, columns + 1) - left, *self.size)

    def deterministic(self) -> CenterCrop:
        """Return the `CenterCrop` of the same size, padding and fill."""
        return CenterCrop(self.size, self.padding, self.fill, self.min_visible)


class CenterCrop(_Crop):
    """Crop the center window, as torchvision's ``v2.CenterCrop``.

    The top and left margins are half of the removed rows and columns; a half is rounded to the even number, so of 1,
    3, 5 and 7 removed rows 0, 2, 2 and 4 are at the top. Smaller images get a border of `fill`; its odd pixel is at
    the right and bottom.

    Deterministic form: itself.

    Parameters
    ----------
    size : int or (int, int)
        Height and width in pixels; one number for a square.
    padding : int, (int, int) or (int, int, int, int)
        Border around the image that the window may reach into, in pixels: all sides; (left and right, top
        and bottom); or (left, top, right, bottom). Must be less than the width or height of the window.
    fill : float or tuple of float
        Value of border pixels: one number, or one per channel; 0 to 255 for uint8 images.
    min_visible : float
        Drop boxes with less than this fraction of their area in the window, 0 to 1.

    Raises
    ------
    ArgumentError
        An argument is out of range. Checks that depend on the images raise at the first batch.
    """

    def choose(self, rng: SampleRandom, shape: tuple[int, ...]) -> CropWindows:
        """Return the positions of the windows; nothing is random."""
        left, top, right, bottom = self._margins
        first_row = _centered(shape[1] + top + bottom, self.size[0]) - top
        first_column = _centered(shape[2] + left + right, self.size[1]) - left
        return CropWindows(np.full(shape[0], first_row), np.full(shape[0], first_column), *self.size)

    def reaches_out(self, height: int, width: int) -> bool:
        """Whether images of this size, with their padding, are smaller than the window."""
        left, top, right, bottom = self._margins
        return height + top + bottom < self.size[0] or width + left + right < self.size[1]

    def deterministic(self) -> CenterCrop:
        """Return the transform itself."""
        return self


class PadCrop(RandomCrop):
    """Pad all sides, then crop a random window: `RandomCrop` with the usual padding for CIFAR.

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


class Slice(CropOrPad):
    """Crop the same fixed window from every image.

    Deterministic form: itself.

    Parameters
    ----------
    top, left : int
        First row and column of the window.
    height, width : int
        Size in pixels; the window must lie within the images.
    min_visible : float
        Drop boxes with less than this fraction of their area in the window, 0 to 1.

    Raises
    ------
    ArgumentError
        An argument is out of range. A window that does not fit the images raises when the pipeline is built or at
        the first batch.
    """

    def __init__(self, top: int, left: int, height: int, width: int, min_visible: float = 0.0) -> None:
        super().__init__(0, 0, min_visible)
        self.top = whole("Slice", "top", top, 0, 65536)
        self.left = whole("Slice", "left", left, 0, 65536)
        self.height = whole("Slice", "height", height, 1, 65536)
        self.width = whole("Slice", "width", width, 1, 65536)

    def choose(self, rng: SampleRandom, shape: tuple[int, ...]) -> CropWindows:
        """Return the same window for all samples."""
        if self.top + self.height > shape[1] or self.left + self.width > shape[2]:
            raise ArgumentError(
                f"{self!r}: the window of rows {self.top} to {self.top + self.height} and columns {self.left} to "
                f"{self.left + self.width} does not fit into images of {shape[1]} x {shape[2]} pixels"
            )
        count = shape[0]
        return CropWindows(np.full(count, self.top), np.full(count, self.left), self.height, self.width)

    def deterministic(self) -> Slice:
        """Return the transform itself."""
        return self


def _centered(length: int, size: int) -> int:
    """Return the start of a centered window; negative if it is longer than the image."""
    room = length - size
    return round(room / 2) if room >= 0 else -(-room // 2)


def _margins(owner: str, padding: object) -> tuple[int, int, int, int]:
    """Return the margins left, top, right and bottom."""
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
    """Return the fill as one number or a tuple: immutable, and plain in `repr`."""
    found = tuple(int(value) if value.is_integer() else value for value in numbers(owner, "fill", fill))
    return found[0] if np.shape(np.asarray(fill)) == () else found


def fill_pixel(
    owner: Transform, fill: Fill, channels: int, dtype: np.dtype[Any], name: str = "fill"
) -> NDArray[Any]:
    """Return one pixel of the value that a transform shows outside the image.

    Parameters
    ----------
    owner : Transform
        Transform that error messages name.
    fill : float or tuple of float
    channels : int
    dtype : dtype
    name : str
        Name of the argument in error messages.

    Returns
    -------
    ndarray (channels,)

    Raises
    ------
    ArgumentError
        Images of this dtype and number of channels cannot hold `fill`.
    """
    values = numbers(type(owner).__name__, name, fill)
    if len(values) not in (1, channels):
        raise ArgumentError(
            f"{type(owner).__name__}: {name} is {fill!r}, for images with {channels} channels; "
            "expected one number, or one per channel"
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
