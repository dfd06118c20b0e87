"""Buckets: fits each picture to that of several shapes whose aspect ratio is nearest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.arguments import size as checked_size
from highway.arguments import whole
from highway.errors import ArgumentError
from highway.sampling.rng import SampleRandom
from highway.transforms.fit import CenterFit, Fit, Resize
from highway.transforms.placement import Placement

__all__ = ["Buckets"]

_MOST_BUCKETS = 4096


class Buckets(Fit):
    """Give each picture the shape whose aspect ratio is nearest, for batches of one shape each: the fit of a reader.

    The reader plans its batches by the sizes of the pictures: each batch has pictures of one bucket, and all ranks have
    the same bucket at each step. Within its bucket, a picture is fitted by another fit. The argument `shape` of the
    reader is not given.

    Deterministic form: the same buckets with the deterministic form of `fit`.

    Parameters
    ----------
    shapes : sequence of (int, int)
        Height and width of the images of each bucket, in pixels, each once, 1 to 4096 buckets. A bucket that is nearest
        to no picture is not used.
    fit : Fit, optional
        How pictures are fitted to the shape of their bucket, without a size; `CenterFit` by default. `RandomFit` crops
        at random places.
    batch_sizes : sequence of int, optional
        Samples in a batch of each bucket; by default `batch_size` of the reader for all. It may be smaller for larger
        images.

    Raises
    ------
    ArgumentError
        An argument is out of range, or `fit` has a size, or none that depends on the shape alone.

    Examples
    --------
    >>> buckets = Buckets([(64, 64), (48, 80), (80, 48)])
    >>> buckets.nearest(np.array([100, 60, 300]), np.array([110, 200, 200])).tolist()
    [0, 1, 2]
    """

    def __init__(
        self,
        shapes: Iterable[tuple[int, int]],
        fit: Fit | None = None,
        batch_sizes: Sequence[int] | None = None,
    ) -> None:
        given: Any = [] if isinstance(shapes, (int, str)) else [*shapes]
        if given and all(isinstance(shape, int) for shape in given):
            raise ArgumentError(
                f"{self._name}: shapes is {shapes!r}; expected a sequence of (height, width), such as "
                "[(224, 224), (192, 256)]"
            )
        whole(self._name, "number of shapes", len(given), 1, _MOST_BUCKETS)
        self.shapes = tuple(checked_size(self._name, "a shape", shape) for shape in given)
        if len({*self.shapes}) < len(self.shapes):
            raise ArgumentError(f"{self._name}: shapes is {given!r}; expected each shape once")
        inner: Any = CenterFit() if fit is None else fit
        if not isinstance(inner, Fit) or isinstance(inner, (Buckets, Resize)) or inner.size is not None:
            raise ArgumentError(
                f"{self._name}: fit is {inner!r}; expected a fit without a size, such as CenterFit() or RandomFit()"
            )
        self.fit: Fit = inner
        super().__init__(None, inner.interpolation, inner.min_visible)
        self.covers = inner.covers  # type: ignore[misc]
        self.fill = inner.fill
        self.batch_sizes = batch_sizes
        if batch_sizes is not None:
            self.batch_sizes = tuple(
                whole(self._name, "a batch size", one, 1, 2**32) for one in [*batch_sizes]
            )
            if len(self.batch_sizes) != len(self.shapes):
                raise ArgumentError(
                    f"{self._name}: batch_sizes has {len(self.batch_sizes)} numbers; expected {len(self.shapes)}, one "
                    "for each shape"
                )

    def __repr__(self) -> str:
        sizes = "" if self.batch_sizes is None else f", batch_sizes={[*self.batch_sizes]}"
        return f"{self._name}({[*self.shapes]}, {self.fit!r}{sizes})"

    def nearest(self, heights: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the bucket of each picture, int64 (N,), by heights and widths in pixels, int64 (N,), 1 or more.

        The distance is that of the logarithms of the aspect ratios. Among buckets at the same distance, the one whose
        area is nearest to that of the picture is chosen, then the first one.
        """
        ratios = np.log(widths / heights)
        areas = np.log(widths.astype(np.float64) * heights)
        shapes = np.array(self.shapes, np.float64)
        best = np.zeros(len(ratios), np.int64)
        nearest, closest = np.full(len(ratios), np.inf), np.full(len(ratios), np.inf)
        for bucket, (height, width) in enumerate(shapes.tolist()):
            # Rounded: the ratios of 48 x 80 and 96 x 160 are equal, up to the last bits of their logarithms.
            distances = np.round(np.abs(ratios - np.log(width / height)), 9)
            apart = np.abs(areas - np.log(width * height))
            better = (distances < nearest) | ((distances == nearest) & (apart < closest))
            best[better], nearest[better], closest[better] = bucket, distances[better], apart[better]
        return best

    def place(
        self, rng: SampleRandom, heights: NDArray[np.int64], widths: NDArray[np.int64], size: tuple[int, int]
    ) -> Placement:
        """Return what `fit` chooses for this size, that of a bucket."""
        return self.fit.place(rng, heights, widths, size)

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        raise ArgumentError(
            f"{self._name}: there is no size for arrays, whose images all have one shape; expected it as the fit of a "
            "reader of pictures"
        )

    def deterministic(self) -> Buckets:
        """Return the same buckets with the deterministic form of `fit`."""
        fit: Any = self.fit.deterministic()
        return Buckets(self.shapes, fit, self.batch_sizes)
