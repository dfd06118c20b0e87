"""Lambda: a function as a transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from highway.errors import ArgumentError
from highway.transforms.transform import Transform

__all__ = ["Lambda"]


class Lambda(Transform):
    """Apply a function to the images of a whole batch.

    Deterministic form: itself. If your function draws random numbers, write a `Transform` instead; its random
    numbers come from the seed.

    Parameters
    ----------
    fn : callable
        Takes the images, uint8 (N, H, W, C) unless an earlier transform changes that, and returns an array of
        the same length, in the same order. It must not write into its input. It may run in several threads at
        once, unless the Augmentations have ``workers=1``.

    Raises
    ------
    ArgumentError
        `fn` is not callable.

    Examples
    --------
    >>> import numpy as np
    >>> Lambda(np.flipud)
    Lambda(fn=flipud)
    """

    def __init__(self, fn: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        if not callable(fn):
            raise ArgumentError(f"Lambda: fn is {fn!r}; expected a function that takes the images of a batch")
        self.fn = fn

    def apply_images(self, images: NDArray[Any], params: None) -> NDArray[Any]:
        """Return the result of the function."""
        return self.fn(images)

    def __repr__(self) -> str:
        return f"Lambda(fn={getattr(self.fn, '__qualname__', None) or repr(self.fn)})"
