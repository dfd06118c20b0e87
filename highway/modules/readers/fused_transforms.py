"""What a source does with its images on their way into the batch: the first of the transforms behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway._core.records.spans import Spans, normalize_windows, place_windows
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

# By what a flip makes of a view: the column of `FusedTransforms.mirrored`.
_AXES: dict[object, int] = {FlipX.look: 0, FlipY.look: 1}


# What a reader does to boxes and masks itself.
_ANNOTATIONS = ("geometry", "apply_boxes", "apply_masks", "apply_keypoints", "apply_labels")


def _plain(step: Transform, family: type[Transform]) -> bool:
    """Whether it does to what belongs to the images what its family does: a subclass may swap labels, say."""
    return keeps(step, family, *_ANNOTATIONS)


def _is_flip(step: Transform) -> bool:
    return isinstance(step, (FlipX, FlipY)) and is_moving(step) and type(step).look in _AXES


def _is_window(step: Transform) -> bool:
    """Whether it shows a window of each image, all of it inside."""
    return isinstance(step, Moving) and is_moving(step) and step.stays_inside and step.positions == 1


def _window_within(shape: tuple[int, int, int]) -> Callable[[Transform], bool]:
    """What tells of steps in a row whether they show windows that are inside of images of shape (H, W, C)."""
    seen: tuple[int, int, int] | None = shape

    def takes(step: Transform) -> bool:
        nonlocal seen
        if seen is None or not _is_window(step) or cast(Moving, step).reaches_out(*seen[:2]):
            return False
        try:
            seen = step.out_shape(seen)
        except ArgumentError:
            # What does not fit is left to raise where it stands.
            return False
        return True

    return takes


def _is_resampled(steps: Sequence[Transform | None]) -> bool:
    """Whether a fit or a warp takes in what moves pixels in front of it: it sees beyond a crop, and rounds once."""
    behind = next((step for step in steps if step is not None and not isinstance(step, Moving)), None)
    return isinstance(behind, (Fit, Warp))


class _First:
    """The first transforms of the Augmentations behind a source: some that move pixels, and a Normalize behind them.

    Attributes
    ----------
    count : int
        How many of the steps they are.
    moving : list of (int, Moving)
        With their numbers.
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
                if unchanged(step, Values) and _plain(step, Values):
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
        """Whether images of so many channels can be normalized: what cannot is left to raise where it stands."""
        return self.values is None or self.values.channels in (1, channels)


class FusedTransforms:
    """The first transforms of the Augmentations behind a reader, done while its images are written.

    Images are then written once, as they leave the Augmentations; they have the same bits as without.

    Parameters
    ----------
    steps : sequence of Transform or None
        All transforms of the Augmentations, None for what does nothing.
    seed : int
        Of the Augmentations.

    Attributes
    ----------
    count : int
        How many of the steps are done here: flips from the first step on, and a Normalize behind them.
    """

    def __init__(self, steps: Sequence[Transform | None] = (), seed: int = 0) -> None:
        first = _First(steps, _is_flip)
        self.count = first.count
        self.takes = first.fits
        self._seed = seed
        self._flips = first.moving
        self._normalize = first.values

    def mirrored(self, position: int, rng: SampleRandom, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
        """Which samples are mirrored left to right, and top to bottom, bool (N, 2).

        Parameters
        ----------
        position : int
            Of the first step.
        rng : SampleRandom
            Of the samples, at any position.
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
        return 1 if self._normalize is None else np.dtype(self._normalize.dtype).itemsize

    def room(self, shape: tuple[int, int, int, int]) -> NDArray[Any]:
        """For the finished images of shape (N, H, W, C)."""
        return empty(shape) if self._normalize is None else self._normalize.room(shape)

    def images(self, room: NDArray[Any]) -> jpeg.Images:
        """What the decoder takes for `room`."""
        if self._normalize is None:
            return jpeg.Images(room)
        planar = self._normalize.layout == "NCHW"
        scale, bias = self._normalize.factors(room.shape[1 if planar else 3])
        return jpeg.Images(room.view(np.uint16) if room.itemsize == 2 else room, scale, bias, planar)

    def done(self, images: NDArray[np.uint8], mirrored: NDArray[np.bool_]) -> NDArray[Any]:
        """Finished images of (N, H, W, C) that are whole; `mirrored` as `mirrored` says."""
        view = View.whole(images.shape).mirrored(mirrored[:, 0], mirrored[:, 1])
        if self._normalize is not None:
            return self._normalize.apply_view(images, view)
        return view.copied(images)


class FusedWindows:
    """The first transforms of the Augmentations behind a source whose images lie in memory, done as they are copied.

    Images are then written once, as they leave the Augmentations; they have the same bits as without.

    Parameters
    ----------
    steps, seed
        As `FusedTransforms` says.
    shape : (int, int, int)
        H, W and C of the images.

    Attributes
    ----------
    count : int
        How many of the steps are done here: flips and crops from the first step on, and a Normalize behind them.
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
    def behind(
        cls,
        steps: Sequence[Transform | None],
        seed: int,
        rows: Mapping[str, tuple[int, ...]],
        shape: tuple[int, int, int] | None,
    ) -> FusedWindows:
        """Those that a source of images of `shape` takes over; none where it cannot, as with a shape of None.

        Parameters
        ----------
        steps, seed
            As `FusedWindows` says.
        rows : mapping of str to tuple of int
            What its batches have, and of which shape for one sample: what belongs to the images would have to go with
            them.
        shape : (int, int, int) or None
            H, W and C of the images.
        """
        # What looks wrong is left to raise where it stands.
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
        """What of the images of some samples is wanted.

        Parameters
        ----------
        epoch, indices
            Of the samples.
        position : int
            Of the first step.
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
        """For the finished images of `count` samples, of shape (H, W, C) before."""
        height, width = self.view(0, np.zeros(1, np.int64), 0, shape).shape[1:3]
        room = (count, height, width, shape[2])
        return empty(room) if self._values is None else self._values.room(room)

    def put(
        self,
        images: NDArray[Any],
        rows: NDArray[np.int64],
        view: View,
        spans: Spans,
        places: NDArray[np.int64],
    ) -> None:
        """Write what `view` shows of images into these rows of `images`.

        Parameters
        ----------
        images : ndarray
            As `room` makes it.
        rows : int64 (N,)
        view : View
            Of N images.
        spans : Spans of N
        places : int64 (N,)
            Where in its span each image begins.
        """
        shape, wanted, fill = view.images[1:], view.places(), view.filling()
        if self._values is None:
            place_windows(spans, places, shape, wanted, fill, images, rows)
            return
        scale, bias = self._values.factors(shape[2])
        planar = self._values.layout == "NCHW"
        bits = images.view(np.uint16) if images.itemsize == 2 else images
        normalize_windows(spans, places, shape, wanted, fill, scale, bias, planar, bits, rows)
