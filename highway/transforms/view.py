"""Views: describe the needed pixels of a batch, so that several transforms in a row copy them once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway._core.pixels import geometry as kernels
from highway.batch import Batch, empty
from highway.sampling.rng import SampleRandom
from highway.transforms.geometry import Geometry, as_bytes
from highway.transforms.placement import Placement, axis_matrices, mirror_ends
from highway.transforms.transform import Transform, keeps, pixels

__all__ = ["Moving", "View", "is_moving", "unchanged"]


@dataclass(frozen=True)
class View:
    """One window per image, optionally mirrored; beyond the image it shows `fill`.

    Attributes
    ----------
    images : (int, int, int, int)
        Shape (N, H, W, C) of the images.
    tops, lefts : int64 (N,)
        First row and column of the window in the image.
    height, width : int
        Size of the window.
    mirrored : bool (N, 2)
        Whether the window is mirrored left to right, and top to bottom.
    fill : uint8 (C,) or None
        Fill pixel; None if no window reaches beyond its image.
    """

    images: tuple[int, int, int, int]
    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
    height: int
    width: int
    mirrored: NDArray[np.bool_]
    fill: NDArray[np.uint8] | None = None

    @classmethod
    def whole(cls, images: tuple[int, int, int, int]) -> View:
        """Return a view of the whole images."""
        count, height, width, _ = images
        zeros = np.zeros(count, np.int64)
        return cls(images, zeros, zeros, height, width, np.zeros((count, 2), np.bool_))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape (N, h, w, C) of the view."""
        return self.images[0], self.height, self.width, self.images[3]

    def flipped(self, samples: NDArray[np.bool_], axis: int) -> View:
        """Return the view with these samples, bool (N,), mirrored left to right (axis 0) or top to bottom (axis 1)."""
        mirrored = self.mirrored.copy()
        mirrored[:, axis] ^= np.asarray(samples, np.bool_)
        return replace(self, mirrored=mirrored)

    def cropped(
        self,
        tops: NDArray[np.int64],
        lefts: NDArray[np.int64],
        height: int,
        width: int,
        fill: NDArray[np.uint8],
    ) -> View | None:
        """Return a window of the view, which shows `fill` beyond it.

        Returns
        -------
        View or None
            None if one view cannot express it: the window reaches beyond a view that is only a part of the
            image, or that already shows a border.
        """
        reaches_out = bool(
            (tops < 0).any()
            or (lefts < 0).any()
            or (tops + height > self.height).any()
            or (lefts + width > self.width).any()
        )
        if reaches_out and (self.fill is not None or self.shape != self.images):
            return None
        return replace(
            self,
            tops=self.tops + np.where(self.mirrored[:, 1], self.height - tops - height, tops),
            lefts=self.lefts + np.where(self.mirrored[:, 0], self.width - lefts - width, lefts),
            height=height,
            width=width,
            fill=fill if reaches_out else self.fill,
        )

    def matrices(self) -> NDArray[np.float64]:
        """Return the matrices from image to output coordinates, float64 (N, 3, 3), as in `Geometry`."""
        return axis_matrices((1, 1), (-self.lefts, -self.tops), self.mirrored, (self.height, self.width))

    def placed(self, placement: Placement, size: tuple[int, int]) -> Placement:
        """Return the placement of the images that equals `placement` of the view, which must lie within them.

        Parameters
        ----------
        placement : Placement
        size : (int, int)
            Height and width of its images.
        """
        sides = np.array((self.width, self.height))
        windows = mirror_ends(placement.windows.reshape(-1, 2, 2), self.mirrored, sides).reshape(-1, 4)
        if self.shape != self.images:
            windows += np.stack((self.lefts, self.tops) * 2, axis=1)
        # A window that is mirrored within its target: the target moves, and the whole image is mirrored.
        targets = Placement(windows, placement.targets, self.mirrored).mirrored_targets(size)
        return Placement(windows, targets, placement.mirrored ^ self.mirrored)

    def cut(self, placement: Placement) -> Placement:
        """Return the placement that shows this view of the images, given that of the images, with whole targets."""
        mirrored = placement.mirrored ^ self.mirrored
        if self.shape == self.images:
            return placement._replace(mirrored=mirrored)
        windows, targets = placement.windows.copy(), np.zeros_like(placement.targets)
        targets[:, 2:] = self.width, self.height
        for axis, begin, length, whole in (
            (0, self.lefts, self.width, self.images[2]),
            (1, self.tops, self.height, self.images[1]),
        ):
            low, high = placement.windows[:, axis], placement.windows[:, 2 + axis]
            # The images may show the window mirrored.
            first = np.where(placement.mirrored[:, axis], whole - begin - length, begin)
            scale = (high - low) / whole
            windows[:, axis] = low + first * scale
            windows[:, 2 + axis] = np.minimum(low + (first + length) * scale, high)
        return Placement(windows, targets, mirrored)

    def windows(self) -> NDArray[np.int64]:
        """Return the kernel argument: top, left, mirrored in x and in y of each window, int64 (N, 4)."""
        windows = np.empty((len(self.tops), 4), np.int64)
        windows[:, 0], windows[:, 1], windows[:, 2:] = self.tops, self.lefts, self.mirrored
        return windows

    def fill_pixel(self) -> NDArray[np.uint8]:
        """Return the kernel argument: the fill pixel, uint8 (C,)."""
        return np.zeros(self.images[3], np.uint8) if self.fill is None else self.fill

    def copied(self, images: NDArray[np.uint8], owner: Transform | None = None) -> NDArray[np.uint8]:
        """Copy the view of the images.

        Parameters
        ----------
        images : uint8 (N, H, W, C)
        owner : Transform, optional
            Transform that error messages name. Without it, the layout is not checked.

        Returns
        -------
        uint8 (N, h, w, C)
            A new array.
        """
        result = empty(self.shape)
        source = images if owner is None else pixels(images, owner)
        kernels.windows(source, self.windows(), self.fill_pixel(), result)
        return result


class Moving(Transform):
    """Base of transforms that move whole pixels: their result is a view of the image.

    Several of them in a row, and a `Normalize` after them, are one view and copy the pixels once. `apply_images`
    gives the same result, and runs if the transform stands alone.
    """

    takes = "pixels"

    def draw(self, rng: SampleRandom, batch: Batch) -> Any:
        """Draw the random parameters of every sample of the batch.

        Raises
        ------
        ArgumentError
            The images are not in this layout, or the transform does not fit their size.
        """
        images = batch["images"]
        pixels(images, self)
        return self.choose(rng, images.shape)

    def choose(self, rng: SampleRandom, shape: tuple[int, ...]) -> Any:
        """Draw the parameters for images of this shape, (N, H, W, C).

        Raises
        ------
        ArgumentError
            The transform does not fit images of this size.
        """
        raise NotImplementedError

    def geometry(self, params: Any, shape: tuple[int, int, int]) -> Geometry:
        """Return the matrix of each sample, from image to output coordinates."""
        view = self.moved(View.whole((*shape, 1)), params)
        assert view is not None, "a whole image has all windows"
        return Geometry(view.matrices(), view.height, view.width)

    def apply_masks(self, masks: NDArray[Any], params: Any, fill: int) -> NDArray[Any]:
        """Return the view of the masks, (N, h, w) or (N, h, w, C)."""
        source, pixel = as_bytes(masks, fill)
        view = self.moved(View.whole(source.shape), params)
        assert view is not None, "a whole image has all windows"
        if view.fill is not None:
            view = replace(view, fill=pixel)
        return view.copied(source).view(masks.dtype).reshape(*view.shape[:3], *masks.shape[3:])

    def apply_pictures(self, pictures: NDArray[Any], params: Any) -> NDArray[Any]:
        """Return the view of the pictures."""
        return self.apply_images(pictures, params)

    def out_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int] | None:
        """Return the output shape (H, W, C) for images of this shape (H, W, C)."""
        return self._shown(shape, self.look)

    def _shown(
        self, shape: tuple[int, int, int], look: Callable[[View, Any], View | None]
    ) -> tuple[int, int, int] | None:
        if not unchanged(self, next(kind for kind in type(self).__mro__ if "look" in vars(kind))):
            return None
        view = View.whole((1, *shape))
        seen = look(view, self.choose(SampleRandom(0, 0, [0], 0), view.shape))
        assert seen is not None, "a whole image has all windows"
        return seen.shape[1:]

    @property
    def stays_inside(self) -> bool:
        """Whether the result shows only pixels of the image, for all parameters, unless `reaches_out` is true."""
        raise NotImplementedError

    def reaches_out(self, height: int, width: int) -> bool:
        """Whether a transform with `stays_inside` still reaches beyond images of this size."""
        return False

    def look(self, view: View, params: Any) -> View | None:
        """Apply the transform to a view; None if one view cannot express the result.

        Parameters
        ----------
        view : View
            A view of uint8 images.
        params : object
            Result of `choose` for ``view.shape``.
        """
        raise NotImplementedError

    def moved(self, view: View, params: Any) -> View | None:
        """As `look`, for the positions of pixels only: the border may have any content."""
        return self.look(view, params)


def is_moving(step: Transform) -> bool:
    """Whether `look` describes the transform completely: no subclass overrides `draw` or `apply_images`."""
    if not isinstance(step, Moving):
        return False
    return unchanged(step, next(kind for kind in type(step).__mro__ if "look" in vars(kind)))


def unchanged(step: Transform, family: type[Transform]) -> bool:
    """Whether a transform uses `draw` and `apply_images` of its family."""
    return keeps(step, family, "draw", "apply_images")
