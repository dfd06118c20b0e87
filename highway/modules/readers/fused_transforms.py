"""Transforms that are fused into a source: it applies the first transforms after it while it writes the images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway._core.records import span_windows
from highway._core.records.spans import Spans
from highway.batch import empty
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms.along import GO_ALONG, is_spatial
from highway.transforms.fit import Fit
from highway.transforms.flip import FlipX, FlipY
from highway.transforms.transform import Transform, keeps, looks_planar
from highway.transforms.values import Values
from highway.transforms.view import Moving, View, is_moving, unchanged
from highway.transforms.warps import Warp

__all__ = ["FusedTransforms", "FusedWindows"]

# By the `look` of a flip: the column of `FusedTransforms.mirrored`.
_AXES: dict[object, int] = {FlipX.look: 0, FlipY.look: 1}


_BYTES = np.dtype(np.uint8)

# Methods whose work on boxes and masks the reader does itself.
_ANNOTATIONS = ("geometry", "apply_boxes", "apply_masks", "apply_keypoints", "apply_labels")


def _plain(step: Transform, family: type[Transform]) -> bool:
    """Whether it changes annotations exactly as its family does; a subclass may, for example, swap labels."""
    return keeps(step, family, *_ANNOTATIONS)


def _is_flip(step: Transform) -> bool:
    return isinstance(step, (FlipX, FlipY)) and is_moving(step) and type(step).look in _AXES


def _is_window(step: Transform) -> bool:
    """Whether it shows a window of each image, which lies inside the image."""
    return isinstance(step, Moving) and is_moving(step) and step.stays_inside and step.positions == 1


def _window_within(shape: tuple[int, int, int]) -> Callable[[Transform], bool]:
    """Return a predicate for consecutive steps: whether they show windows inside of images of shape (H, W, C)."""
    seen: tuple[int, int, int] | None = shape

    def takes(step: Transform) -> bool:
        nonlocal seen
        if seen is None or not _is_window(step) or cast(Moving, step).reaches_out(*seen[:2]):
            return False
        try:
            seen = step.out_shape(seen)
        except ArgumentError:
            # Not fused, so that the step itself raises.
            return False
        return True

    return takes


def _is_resampled(steps: Sequence[Transform | None]) -> bool:
    """Whether a fit or a warp follows the first steps that move pixels: it absorbs them, to resample and round once."""
    following = next((step for step in steps if step is not None and not isinstance(step, Moving)), None)
    return isinstance(following, (Fit, Warp))


class _First:
    """The first transforms of the Augmentations after a source: some that move pixels, and a Normalize after them.

    Attributes
    ----------
    count : int
        Number of these steps.
    moving : list of (int, Moving)
        Numbers of the steps that move pixels, and the steps.
    values : Values or None
    """

    def __init__(self, steps: Sequence[Transform | None], takes: Callable[[Transform], bool]) -> None:
        self.count = 0
        self.moving: list[tuple[int, Any]] = []
        self.values: Values | None = None
        if _is_resampled(steps):
            return
        for step in steps:
            if isinstance(step, Values):
                if step.needs_images and unchanged(step, Values) and _plain(step, Values):
                    self.values = step
                    self.count += 1
                return
            if step is not None:
                if not takes(step):
                    return
                family = next(kind for kind in type(step).__mro__ if "look" in vars(kind))
                if not _plain(step, family):
                    return
                self.moving.append((self.count, step))
            self.count += 1

    def fits(self, channels: int) -> bool:
        """Whether images of so many channels can be normalized; if not, nothing is fused and the step raises."""
        return self.values is None or self.values.channels in (1, channels)


class FusedTransforms:
    """Fuses the first transforms of the Augmentations after a reader into the writing of its images.

    Images are written once, in their final form, with the same bits as without fusion.

    Parameters
    ----------
    steps : sequence of Transform or None
        All transforms of the Augmentations; None for steps that do nothing.
    seed : int
        Seed of the Augmentations.
    dtype : dtype
        Type of the images: uint8 or uint16.

    Attributes
    ----------
    count : int
        Number of fused steps: flips from the first step on, and a Normalize of uint8 images after them.
    """

    def __init__(
        self, steps: Sequence[Transform | None] = (), seed: int = 0, dtype: np.dtype[Any] = _BYTES
    ) -> None:
        if dtype != np.uint8:
            steps = list(takewhile(lambda step: not isinstance(step, Values), steps))
        first = _First(steps, _is_flip)
        self._dtype = dtype
        self.count = first.count
        self.takes = first.fits
        self._seed = seed
        self._flips = first.moving
        self._normalize = first.values

    def mirrored(self, position: int, rng: SampleRandom, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Choose which samples are mirrored left to right, and top to bottom: bool (N, 2).

        Parameters
        ----------
        position : int
            Position of the first step.
        rng : SampleRandom
            Random numbers of the samples, at any position.
        shape : (int, int, int)
            H, W and C of the images.
        """
        mirrored = np.zeros((len(rng), 2), np.bool_)
        for number, flip in self._flips:
            chosen = flip.choose(rng.at(position + number, self._seed), (len(rng), *shape))
            mirrored[:, _AXES[type(flip).look]] ^= chosen
        return mirrored

    @property
    def itemsize(self) -> int:
        """Bytes of a number in the finished images."""
        if self._normalize is None:
            return self._dtype.itemsize
        return 4 if self._normalize.dtype == "float32" else 2

    def room(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Allocate the finished images, from images of shape (N, H, W, C); with views, nothing is normalized."""
        if self._normalize is None:
            return empty(shape, self._dtype)
        count, height, width, channels = shape
        return self._normalize.room((count, height, width, channels))

    def images(self, room: NDArray[Any]) -> jpeg.Images:
        """Describe `room` for the decoder."""
        if self._normalize is None:
            return jpeg.Images(room)
        planar = self._normalize.layout == "NCHW"
        scale, bias = self._normalize.factors(room.shape[1 if planar else 3])
        return jpeg.Images(self._normalize.bits(room), scale, bias, planar)

    def done(self, images: NDArray[Any], mirrored: NDArray[np.bool_]) -> NDArray[Any]:
        """Apply the fused steps to complete images (N, H, W, C); see `mirrored` for the argument `mirrored`."""
        # Any dtype is moved as bytes.
        source = images.view(np.uint8)
        view = replace(View.whole(source.shape), mirrored=mirrored)
        if self._normalize is not None:
            return self._normalize.apply_view(source, view)
        return view.copied(source).view(images.dtype)


class FusedWindows:
    """Fuses the first transforms of the Augmentations after a source with images in memory into the copy of its images.

    Images are written once, in their final form, with the same bits as without fusion.

    Parameters
    ----------
    steps, seed
        See `FusedTransforms`.
    shape : (int, int, int)
        H, W and C of the images.

    Attributes
    ----------
    count : int
        Number of fused steps: flips and crops from the first step on, and a Normalize after them.
    """

    def __init__(
        self, steps: Sequence[Transform | None] = (), seed: int = 0, shape: tuple[int, int, int] = (0, 0, 0)
    ) -> None:
        first = _First(steps, _window_within(shape))
        self.count = first.count
        self.takes = first.fits
        self._seed = seed
        self._moving: list[tuple[int, Moving]] = first.moving
        self._values = first.values

    @classmethod
    def of(
        cls,
        steps: Sequence[Transform | None],
        seed: int,
        rows: Mapping[str, tuple[int, ...]],
        shape: tuple[int, int, int] | None,
    ) -> FusedWindows:
        """Fuse the steps that a source with images of `shape` can do; no steps if it cannot, as with a shape of None.

        Parameters
        ----------
        steps, seed
            See `FusedWindows`.
        rows : mapping of str to tuple of int
            Names of the fields and extras of its batches, and their shapes for one sample. Nothing is fused if some of
            them would have to follow the images.
        shape : (int, int, int) or None
            H, W and C of the images.
        """
        # Images that look wrong are not fused, so that the step itself raises.
        if (
            shape is None
            or looks_planar(shape)
            or any(name in rows for name in GO_ALONG)
            or any(is_spatial(row, shape[:2]) for name, row in rows.items() if name != "images")
        ):
            return cls()
        windows = cls(steps, seed, shape)
        return windows if windows.takes(shape[2]) else cls()

    def view(
        self, epoch: int, indices: NDArray[np.int64], position: int, shape: tuple[int, int, int]
    ) -> View:
        """Choose the view of the images of some samples.

        Parameters
        ----------
        epoch, indices
            Identity of the samples.
        position : int
            Position of the first step.
        shape : (int, int, int)
            H, W and C of the images.
        """
        view = View.whole((len(indices), *shape))
        for number, step in self._moving:
            rng = SampleRandom(self._seed, epoch, indices, position + number)
            seen = step.look(view, step.choose(rng, view.shape))
            assert seen is not None, "nothing reaches out"
            view = seen
        return view

    def room(self, count: int, shape: tuple[int, int, int]) -> NDArray[Any]:
        """Allocate the finished images of `count` samples, from images of shape (H, W, C)."""
        height, width = self.view(0, np.zeros(1, np.int64), 0, shape).shape[1:3]
        room = (count, height, width, shape[2])
        return empty(room) if self._values is None else self._values.room(room)

    def put(
        self,
        images: NDArray[Any],
        rows: NDArray[np.int64],
        view: View,
        spans: Spans,
        offsets: NDArray[np.int64],
    ) -> None:
        """Write `view` of stored images into these rows of `images`.

        Parameters
        ----------
        images : ndarray
            From `room`.
        rows : int64 (N,)
        view : View
            View of N images.
        spans : Spans of N
        offsets : int64 (N,)
            Offset of each image in its span.
        """
        shape, windows, fill = view.images[1:], view.windows(), view.fill_pixel()
        if self._values is None:
            span_windows.copy(spans, offsets, shape, windows, fill, images, rows)
            return
        scale, bias = self._values.factors(shape[2])
        planar = self._values.layout == "NCHW"
        bits = self._values.bits(images)
        span_windows.normalize(spans, offsets, shape, windows, fill, scale, bias, planar, bits, rows)
