"""Flips: mirror images at random, drawn per sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from highway._core.pixels import geometry as kernels
from highway.arguments import number
from highway.batch import empty
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms.transform import pixels
from highway.transforms.view import Moving, View

__all__ = ["FlipX", "FlipY"]


class Flip(Moving):
    in_place = True
    hands_over = True

    _copying: ClassVar[Callable[..., None]]
    _in_place: ClassVar[Callable[..., None]]

    def __init__(self, p: float = 0.5) -> None:
        self.p = number(type(self).__name__, "p", p, 0, 1)

    @property
    def stays_inside(self) -> bool:
        """True: a mirrored image has no border."""
        return True

    def choose(self, rng: SampleRandom, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Draw which samples are mirrored, bool (N,)."""
        return rng.bernoulli(self.p)

    def apply_images(
        self, images: NDArray[Any], params: NDArray[np.bool_], out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Mirror the images whose `params` is true.

        Parameters
        ----------
        images : ndarray (N, H, W, C)
        params : bool (N,)
        out : ndarray (N, H, W, C), optional
            Output array: `images` itself to work in place, or another array of the same shape and dtype. The
            result is copied if `images` has no packed rows, or if another array is not C-contiguous or
            overlaps `images`.

        Returns
        -------
        ndarray (N, H, W, C)
            `out`, or a new array.

        Raises
        ------
        ArgumentError
            The images are not in this layout, or `out` has another shape or dtype.
        """
        if out is not None and (out.shape != images.shape or out.dtype != images.dtype):
            raise ArgumentError(
                f"{type(self).__name__}: out is {out.dtype} of shape {out.shape}; "
                f"expected {images.dtype} of shape {images.shape}, like images"
            )
        source = pixels(images, self)
        flags = np.ascontiguousarray(params, dtype=np.bool_).view(np.uint8)
        if out is images and np.shares_memory(source, images):
            type(self)._in_place(source, flags)
            return images
        result = out
        if result is None or not result.flags.c_contiguous or np.may_share_memory(source, result):
            result = empty(images.shape, images.dtype)
        type(self)._copying(source, flags, pixels(result, self))
        if out is None or result is out:
            return result
        out[...] = result
        return out

    def deterministic(self) -> None:
        """Return None: images stay as they are."""


class FlipX(Flip):
    """Mirror images left to right at random.

    Deterministic form: None (the transform is skipped).

    Parameters
    ----------
    p : float
        Probability that a sample is mirrored, 0 to 1; drawn independently for each sample.

    Raises
    ------
    ArgumentError
        `p` is outside 0 to 1.
    """

    _copying = kernels.flip_x
    _in_place = kernels.flip_x_in_place

    def look(self, view: View, params: NDArray[np.bool_]) -> View:
        """Return the view mirrored left to right."""
        return view.flipped(params, 0)


class FlipY(Flip):
    """Mirror images top to bottom at random.

    Deterministic form: None (the transform is skipped).

    Parameters
    ----------
    p : float
        Probability that a sample is mirrored, 0 to 1; drawn independently for each sample.

    Raises
    ------
    ArgumentError
        `p` is outside 0 to 1.
    """

    _copying = kernels.flip_y
    _in_place = kernels.flip_y_in_place

    def look(self, view: View, params: NDArray[np.bool_]) -> View:
        """Return the view mirrored top to bottom."""
        return view.flipped(params, 1)
