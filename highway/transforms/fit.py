"""Fits: resize a window of each picture to the output; on arrays, or in a reader before decoding."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from highway._core.pixels import resample
from highway.arguments import number, positive_range, whole
from highway.arguments import size as checked_size
from highway.batch import Batch, empty
from highway.errors import ArgumentError, ContractError
from highway.sampling.rng import SampleRandom
from highway.transforms.geometry import Geometry
from highway.transforms.placement import Placement
from highway.transforms.transform import Transform

__all__ = ["CenterFit", "Fit", "Letterbox", "RandomFit", "RandomResizedCrop", "Resize", "Stretch"]

Filter: TypeAlias = Literal["bilinear", "bicubic", "lanczos", "box", "nearest"]

_ATTEMPTS = 10
"""Windows that RandomResizedCrop draws before it falls back to the center, as in torchvision."""

_BYTES = np.dtype(np.uint8)


class Fit(Transform):
    """Base of the fits: resizes a window of each picture to the output. Override `place` in your own fit.

    Parameters
    ----------
    size : int or (int, int), optional
        Height and width of the output in pixels; one number for a square. Required on arrays; a reader uses its own
        `shape` instead.
    interpolation : {"bilinear", "bicubic", "lanczos", "box", "nearest"}
        Filters as in Pillow: antialiased (wider when a picture shrinks), except nearest.
    min_visible : float
        Drop boxes with less than this fraction of their area in the window, 0 to 1.

    Attributes
    ----------
    covers : bool
        Whether every target is the whole output.
    fill : int or sequence of int
        Value of output pixels that the picture does not cover, in units of the images: 0 to 255, or 0 to 65535 for
        uint16. One number, or one per channel.

    Examples
    --------
    >>> class LeftHalf(Fit):
    ...     def place(self, rng, heights, widths, size):
    ...         zeros = np.zeros(len(heights))
    ...         windows = np.stack((zeros, zeros, widths / 2, heights), axis=1)
    ...         targets = np.tile((0, 0, size[1], size[0]), (len(heights), 1))
    ...         return Placement(windows, targets)
    >>> LeftHalf((224, 224))
    LeftHalf((224, 224), interpolation='bilinear')
    """

    hands_over = True
    takes = "pixels"
    covers: ClassVar[bool] = False
    fill: int | tuple[int, ...] = 0

    def __init__(
        self,
        size: int | tuple[int, int] | None = None,
        interpolation: Filter = "bilinear",
        min_visible: float = 0.0,
    ) -> None:
        self.min_visible = number(self._name, "min_visible", min_visible, 0, 1)
        self.size = None if size is None else checked_size(self._name, "size", size)
        if interpolation not in resample.FILTERS:
            raise ArgumentError(
                f"{self._name}: interpolation is {interpolation!r}; expected one of {', '.join(resample.FILTERS)}"
            )
        self.interpolation = interpolation

    @property
    def _name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        return self._shown()

    def _shown(self, **arguments: object) -> str:
        parts = [] if self.size is None else [f"{self.size}"]
        parts += [f"{name}={value!r}" for name, value in arguments.items()]
        parts.append(f"interpolation={self.interpolation!r}")
        if self.min_visible:
            parts.append(f"min_visible={self.min_visible}")
        return f"{self._name}({', '.join(parts)})"

    def place(
        self, rng: SampleRandom, heights: NDArray[np.int64], widths: NDArray[np.int64], size: tuple[int, int]
    ) -> Placement:
        """Choose the windows for N pictures.

        Parameters
        ----------
        rng : SampleRandom
            Random numbers of these N samples.
        heights, widths : int64 (N,)
            Sizes of the upright pictures in pixels.
        size : (int, int)
            Height and width of the output.

        Returns
        -------
        Placement
            Windows lie within the pictures, targets within the output.
        """
        raise NotImplementedError(f"{self._name} has no place(rng, heights, widths, size)")

    def choose(
        self, rng: SampleRandom, heights: NDArray[np.int64], widths: NDArray[np.int64], size: tuple[int, int]
    ) -> Placement:
        """Return the result of `place` in the form that the kernels take. They check the bounds; see `refuse`.

        Raises
        ------
        ContractError
            `place` does not return windows and targets for these pictures.
        """
        placement = Placement(*self.place(rng, heights, widths, size))
        count = len(heights)
        windows = np.ascontiguousarray(placement.windows, dtype=np.float64)
        targets = np.ascontiguousarray(placement.targets, dtype=np.int32)
        mirrored = np.asarray(placement.mirrored, dtype=np.bool_)
        if windows.shape != (count, 4) or targets.shape != (count, 4):
            raise ContractError(
                f"{self._name}: place returned windows of shape {windows.shape} and targets of shape {targets.shape}; "
                f"expected ({count}, 4) for both"
            )
        if mirrored.shape not in ((count, 2), (1, 2)):
            raise ContractError(
                f"{self._name}: place returned mirrored of shape {mirrored.shape}; expected ({count}, 2) or (1, 2)"
            )
        return Placement(windows, targets, mirrored)

    def refuse(
        self,
        placement: Placement,
        heights: NDArray[np.int64],
        widths: NDArray[np.int64],
        size: tuple[int, int],
    ) -> None:
        """Raise the error for a placement that a kernel rejected.

        Raises
        ------
        ContractError
            Some of the windows or targets are empty or lie outside.
        """
        windows, targets, _ = placement
        # Written so that NaN counts as outside.
        inside = (windows[:, :2] >= 0).all(axis=1) & (
            windows[:, 2:] <= np.stack((widths, heights), axis=1)
        ).all(axis=1)
        inside &= (windows[:, :2] < windows[:, 2:]).all(axis=1) & (targets[:, :2] < targets[:, 2:]).all(
            axis=1
        )
        inside &= (targets[:, :2] >= 0).all(axis=1) & (targets[:, 2:] <= size[::-1]).all(axis=1)
        if not inside.all():
            row = int(np.argmin(inside))
            raise ContractError(
                f"{self._name}: place returned window {windows[row].tolist()} for a picture of {heights[row]} x "
                f"{widths[row]} pixels and target {targets[row].tolist()} in an output of {size[0]} x {size[1]}; "
                "expected x0 < x1, y0 < y1, both inside"
            )

    def uncovered(self, targets: NDArray[np.int32], size: tuple[int, int]) -> NDArray[np.bool_]:
        """Return which outputs the targets (N, 4) do not cover completely, bool (N,)."""
        uncovered: NDArray[np.bool_] = (targets != (0, 0, size[1], size[0])).any(axis=1)
        return uncovered

    def draw(self, rng: SampleRandom, batch: Batch) -> Placement:
        """Draw windows for images of shape (N, H, W, C)."""
        images = batch["images"]
        if images.ndim != 4 or not (
            images.dtype == np.uint8 or (images.dtype in (np.uint16, np.float32) and images.shape[3] <= 4)
        ):
            raise ArgumentError(
                f"{self._name}: images are {images.dtype} of shape {images.shape}; expected uint8 (N, H, W, C), or "
                "uint16 or float32 with at most 4 channels; put it before Normalize"
            )
        count, height, width = images.shape[:3]
        return self.choose(
            rng, np.full(count, height), np.full(count, width), self.output_size(height, width)
        )

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the output for images of this size.

        Raises
        ------
        ArgumentError
            `size` is None.
        """
        if self.size is None:
            raise ArgumentError(
                f"{self._name}: size is missing; arrays require it: {self._name}(size=(height, width))"
            )
        return self.size

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the output shape (H, W, C) for images of this shape (H, W, C)."""
        self.color(shape[2])
        return (*self.output_size(*shape[:2]), shape[2])

    def shape_after(self, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> tuple[int, int, int]:
        """Return the output shape (H, W, C), and check that the images can hold the fill."""
        if dtype == np.uint8:
            return self.out_shape(shape)
        self.color(shape[2], dtype)
        return (*self.output_size(*shape[:2]), shape[2])

    def apply_images(self, images: NDArray[Any], params: Placement) -> NDArray[Any]:
        """Resample the windows: uint8, uint16 or float32 (N, H, W, C) to (N, height, width, C)."""
        return self.resampled(images, params)

    def apply_pictures(self, pictures: NDArray[Any], params: Placement) -> NDArray[Any]:
        """Resample the windows as for images."""
        return self.resampled(pictures, params)

    def resampled(
        self,
        images: NDArray[Any],
        placement: Placement,
        size: tuple[int, int] | None = None,
    ) -> NDArray[Any]:
        """Resample windows of images to their targets, and mirror the results.

        Returns
        -------
        as images, (N, *size, C)
            `size` defaults to `output_size`.
        """
        count, height, width, channels = images.shape
        size = self.output_size(height, width) if size is None else size
        out = empty((count, *size, channels), images.dtype)
        targets = placement.targets
        uncovered = self.uncovered(targets, size)
        if uncovered.any():
            out[uncovered] = self.color(channels, images.dtype)
            # The kernel mirrors each window within its target.
            targets = placement.mirrored_targets(size)
        filter_ = resample.FILTERS.index(self.interpolation)
        flags = np.empty((count, 2), np.uint8)
        flags[:] = placement.mirrored
        try:
            resample.resize_batch(
                np.ascontiguousarray(images), placement.windows, targets, flags, filter_, out
            )
        except ValueError:
            self.refuse(placement, np.full(count, height), np.full(count, width), size)
            raise
        return out

    def geometry(self, params: Placement, shape: tuple[int, int, int]) -> Geometry:
        """Return the matrices that map windows to targets."""
        size = self.output_size(*shape[1:])
        targets = None if self.covers else params.mirrored_targets(size).astype(np.float64)
        return Geometry(params.matrices(size), *size, targets)

    def color(self, channels: int, dtype: np.dtype[Any] = _BYTES) -> NDArray[Any]:
        """Return `fill` for images of this number of channels and dtype; ArgumentError if it does not match."""
        color = np.asarray(self.fill)
        if dtype.kind == "u" and color.size and not 0 <= color.min() <= color.max() <= np.iinfo(dtype).max:
            raise ArgumentError(
                f"{self._name}: fill is {self.fill!r}, for images of {dtype}; expected 0 to {np.iinfo(dtype).max}"
            )
        color = color.astype(dtype)
        if color.ndim and len(color) not in (1, channels):
            raise ArgumentError(
                f"{self._name}: fill has {len(color)} values for images of {channels} channels; expected one, or one "
                "per channel"
            )
        return color


class CenterFit(Fit):
    """Resize the largest centered window with the aspect ratio of the output, as ``PIL.ImageOps.fit``.

    Deterministic form: itself.

    Parameters
    ----------
    size : int or (int, int), optional
        Height and width in pixels. Required on arrays; a reader uses its own `shape` instead.
    interpolation : {"bilinear", "bicubic", "lanczos", "box", "nearest"}
    min_visible : float
        Drop boxes with less than this fraction of their area visible, 0 to 1.
    """

    covers = True

    def place(
        self, rng: SampleRandom, heights: NDArray[np.int64], widths: NDArray[np.int64], size: tuple[int, int]
    ) -> Placement:
        """Return centered windows; nothing is random."""
        windows = np.empty((len(heights), 4))
        resample.center_windows(heights, widths, *size, windows)
        return Placement(windows, _whole_targets(len(heights), size))

    def deterministic(self) -> CenterFit:
        """Return the transform itself: nothing is random."""
        return self


class RandomFit(CenterFit):
    """Resize the largest window with the aspect ratio of the output, at a random place of the picture.

    Deterministic form: `CenterFit` of the same size.

    Parameters
    ----------
    size : int or (int, int), optional
        Height and width in pixels. Required on arrays; a reader uses its own `shape` instead.
    interpolation : {"bilinear", "bicubic", "lanczos", "box", "nearest"}
    min_visible : float
        Drop boxes with less than this fraction of their area visible, 0 to 1.
    """

    def place(
        self, rng: SampleRandom, heights: NDArray[np.int64], widths: NDArray[np.int64], size: tuple[int, int]
    ) -> Placement:
        """Move the centered windows; one side of each is that of the picture."""
        windows, targets, _ = super().place(rng, heights, widths, size)
        sides = windows[:, 2:] - windows[:, :2]
        room = np.stack((widths, heights), axis=1) - sides
        windows[:, :2] = room * rng.uniform()[:, None]
        windows[:, 2:] = np.minimum(windows[:, :2] + sides, np.stack((widths, heights), axis=1))
        return Placement(windows, targets)

    def deterministic(self) -> CenterFit:
        """Return the `CenterFit` of the same size."""
        return CenterFit(self.size, self.interpolation, self.min_visible)


class Stretch(Fit):
    """Resize the whole picture to the output, without keeping its aspect ratio.

    Deterministic form: itself.

    Parameters
    ----------
    size : int or (int, int), optional
        Height and width in pixels. Required on arrays; a reader uses its own `shape` instead.
    interpolation : {"bilinear", "bicubic", "lanczos", "box", "nearest"}
    min_visible : float
        Drop boxes with less than this fraction of their area visible, 0 to 1.
    """

    covers = True

    def place(
        self, rng: SampleRandom, heights: NDArray[np.int64], widths: NDArray[np.int64], size: tuple[int, int]
    ) -> Placement:
        """Return whole pictures; nothing is random."""
        zeros = np.zeros(len(heights))
        return Placement(
            np.stack((zeros, zeros, widths, heights), axis=1), _whole_targets(len(heights), size)
        )

    def deterministic(self) -> Stretch:
        """Return the transform itself: nothing is random."""
        return self


class Resize(Stretch):
    """Resize images to a height and width, or one side with the aspect ratio kept, as torchvision's ``v2.Resize``.

    Deterministic form: itself.

    Parameters
    ----------
    size : (int, int) or int, optional
        Height and width in pixels; or the length of the shorter side.
    max_size : int, optional
        With a shorter side: limit of the longer side, more than `size`; where it applies, the shorter side becomes
        less than `size`. Without `size`: length of the longer side.
    interpolation : {"bilinear", "bicubic", "lanczos", "box", "nearest"}

    Raises
    ------
    ArgumentError
        Neither `size` nor `max_size` is given, or they contradict each other.
    """

    def __init__(
        self,
        size: int | tuple[int, int] | None = None,
        max_size: int | None = None,
        interpolation: Filter = "bilinear",
    ) -> None:
        both = isinstance(size, (tuple, list))
        super().__init__(size if both else None, interpolation)
        self._shorter = None if both or size is None else whole("Resize", "size", size, 1, 65536)
        self.max_size = None if max_size is None else whole("Resize", "max_size", max_size, 1, 65536)
        if both and max_size is not None:
            raise ArgumentError(
                f"Resize: size is {size!r} and max_size is {max_size!r}; expected one of them"
            )
        if size is None and max_size is None:
            raise ArgumentError("Resize: size and max_size are None; expected one of them, or both")
        if None not in (self._shorter, self.max_size) and self.max_size <= self._shorter:  # type: ignore[operator]
            raise ArgumentError(
                f"Resize: max_size is {max_size!r}; expected more than size, the shorter side, which is {size!r}; "
                "for a height and a width, use Resize((height, width))"
            )

    def __repr__(self) -> str:
        size = self._shorter if self.size is None else self.size
        return f"Resize({size}, max_size={self.max_size}, interpolation={self.interpolation!r})"

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the output for images of this size, truncated to whole pixels."""
        if self.size is not None:
            return self.size
        short, long = min(height, width), max(height, width)
        if self._shorter is None:
            assert self.max_size is not None
            new_short, new_long = int(self.max_size * short / long), self.max_size
        else:
            new_short, new_long = self._shorter, int(self._shorter * long / short)
            if self.max_size is not None and new_long > self.max_size:
                new_short, new_long = int(self.max_size * new_short / new_long), self.max_size
        new_short = max(new_short, 1)
        return (new_short, new_long) if height <= width else (new_long, new_short)


class Letterbox(Fit):
    """Resize the whole picture to fit at its own aspect ratio, centered on a filled output.

    If the margins differ, the left or top one is a pixel smaller, as in ultralytics' ``LetterBox`` and
    ``PIL.ImageOps.pad``.

    Deterministic form: itself.

    Parameters
    ----------
    size : int or (int, int), optional
        Height and width in pixels. Required on arrays; a reader uses its own `shape` instead.
    fill : int or sequence of int
        Value of the margins, in units of the images: 0 to 255, or 0 to 65535 for uint16. One number, or one per
        channel.
    interpolation : {"bilinear", "bicubic", "lanczos", "box", "nearest"}
    """

    def __init__(
        self,
        size: int | tuple[int, int] | None = None,
        fill: int | tuple[int, ...] = 0,
        interpolation: Filter = "bilinear",
    ) -> None:
        super().__init__(size, interpolation)
        for color in fill if isinstance(fill, (tuple, list)) else (fill,):
            whole(self._name, "fill", color, 0, 65535)
        self.fill = fill

    def __repr__(self) -> str:
        return self._shown(fill=self.fill)

    def place(
        self, rng: SampleRandom, heights: NDArray[np.int64], widths: NDArray[np.int64], size: tuple[int, int]
    ) -> Placement:
        """Return whole pictures with rounded sides; the right or bottom margin is larger by an odd pixel."""
        scale = np.minimum(size[0] / heights, size[1] / widths)
        out_heights = np.clip(np.rint(heights * scale), 1, size[0]).astype(np.int64)
        out_widths = np.clip(np.rint(widths * scale), 1, size[1]).astype(np.int64)
        top, left = (size[0] - out_heights) // 2, (size[1] - out_widths) // 2
        zeros = np.zeros(len(heights))
        return Placement(
            np.stack((zeros, zeros, widths, heights), axis=1),
            np.stack((left, top, left + out_widths, top + out_heights), axis=1).astype(np.int32),
        )

    def deterministic(self) -> Letterbox:
        """Return the transform itself: nothing is random."""
        return self


class RandomResizedCrop(Fit):
    """Resize a window of random area, aspect ratio and position: the training crop of Inception and ResNet.

    Deterministic form: `CenterFit` of the same size.

    Parameters
    ----------
    size : int or (int, int), optional
        Height and width in pixels. Required on arrays; a reader uses its own `shape` instead.
    scale : (float, float)
        Smallest and largest area of the window, as fractions of the picture area, above 0 and up to 1.
    ratio : (float, float)
        Smallest and largest aspect ratio (width / height) of the window; its logarithm is drawn uniformly.
    interpolation : {"bilinear", "bicubic", "lanczos", "box", "nearest"}
    min_visible : float
        Drop boxes with less than this fraction of their area visible, 0 to 1.

    Notes
    -----
    Matches torchvision's ``v2.RandomResizedCrop``: windows of whole pixels; ten attempts, then the largest centered
    window with an allowed aspect ratio. C. Szegedy et al., "Going deeper with convolutions", CVPR 2015. The filter also
    reads the pixels around the window, so the edge of the window is not repeated.
    """

    covers = True

    def __init__(
        self,
        size: int | tuple[int, int] | None = None,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: Filter = "bilinear",
        min_visible: float = 0.0,
    ) -> None:
        super().__init__(size, interpolation, min_visible)
        self.scale = positive_range(self._name, "scale", scale, 1.0)
        self.ratio = positive_range(self._name, "ratio", ratio)

    def __repr__(self) -> str:
        return self._shown(scale=self.scale, ratio=self.ratio)

    def place(
        self, rng: SampleRandom, heights: NDArray[np.int64], widths: NDArray[np.int64], size: tuple[int, int]
    ) -> Placement:
        """Draw windows of whole pixels."""
        count = len(heights)
        areas = rng.uniform(*self.scale, size=_ATTEMPTS) * (heights * widths)[:, None]
        ratios = np.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), size=_ATTEMPTS))
        tried_widths = np.rint(np.sqrt(areas * ratios)).astype(np.int64)
        tried_heights = np.rint(np.sqrt(areas / ratios)).astype(np.int64)
        fits = (
            (tried_widths > 0)
            & (tried_heights > 0)
            & (tried_widths <= widths[:, None])
            & (tried_heights <= heights[:, None])
        )
        rows, first = np.arange(count), np.argmax(fits, axis=1)
        found = fits[rows, first]
        # If none fits: the whole picture, cut to the nearest allowed ratio.
        shape = widths / heights
        fallback_widths = np.where(shape > self.ratio[1], np.rint(heights * self.ratio[1]), widths).astype(
            np.int64
        )
        fallback_heights = np.where(shape < self.ratio[0], np.rint(widths / self.ratio[0]), heights).astype(
            np.int64
        )
        window_widths = np.maximum(np.where(found, tried_widths[rows, first], fallback_widths), 1)
        window_heights = np.maximum(np.where(found, tried_heights[rows, first], fallback_heights), 1)
        top = rng.integers(0, heights - window_heights + 1)
        left = rng.integers(0, widths - window_widths + 1)
        top = np.where(found, top, (heights - window_heights) // 2)
        left = np.where(found, left, (widths - window_widths) // 2)
        windows = np.stack((left, top, left + window_widths, top + window_heights), axis=1).astype(np.float64)
        return Placement(windows, _whole_targets(count, size))

    def deterministic(self) -> CenterFit:
        """Return the `CenterFit` of the same size."""
        return CenterFit(self.size, self.interpolation, self.min_visible)


@lru_cache(maxsize=16)
def _whole_targets(count: int, size: tuple[int, int]) -> NDArray[np.int32]:
    targets = np.zeros((count, 4), dtype=np.int32)
    targets[:, 2] = size[1]
    targets[:, 3] = size[0]
    targets.setflags(write=False)
    return targets
