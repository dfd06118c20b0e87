"""BoxTable: the boxes of all samples of a reader, with their labels and extras."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.errors import HighwayError
from highway.modules.readers.picture_mapping import PictureMapping

__all__ = ["BoxTable"]


class BoxTable:
    """Boxes of N samples in one array, and further arrays with a row for each box.

    Parameters
    ----------
    counts : int64 (N,)
        Number of boxes of each sample.
    boxes : float32 (M, 4)
        x0, y0, x1, y1 in pixels of the picture, sample after sample; coordinates are continuous: the first pixel
        covers 0 to 1.
    labels : ndarray (M, ...), optional
        The field `labels`.
    extras : mapping of str to ndarray (M, ...)
        Extras of the batches.
    sizes : int64 (N, 2), optional
        Height and width of the picture that the boxes were made for; 0 if unknown.
    upright : bool
        Whether all boxes are in pixels of the upright pictures; excludes `sizes`.
    files : sequence of bytes
        File of the boxes of each sample, for errors; needed with `sizes`.
    bad : mapping of int to (type, str)
        Samples whose boxes could not be read, with the type and text of the error.

    Notes
    -----
    Boxes are in pixels of the picture as it is stored, unless they are `upright`, or the stated size is that of the
    upright picture.
    """

    def __init__(
        self,
        counts: NDArray[np.int64],
        boxes: NDArray[np.float32],
        labels: NDArray[Any] | None = None,
        extras: Mapping[str, NDArray[Any]] | None = None,
        *,
        sizes: NDArray[np.int64] | None = None,
        upright: bool = False,
        files: Sequence[bytes] = (),
        bad: Mapping[int, tuple[type[HighwayError], str]] | None = None,
    ) -> None:
        self.counts = counts
        self.boxes = boxes
        self.labels = labels
        self.extras = dict(extras or {})
        self.files = files
        self.bad = dict(bad or {})
        self._first = np.cumsum(counts) - counts
        self._sizes = sizes
        self._upright = upright

    def __len__(self) -> int:
        """Number of boxes."""
        return len(self.boxes)

    def of(self, indices: NDArray[np.int64]) -> BoxTable:
        """Boxes of some samples: sample i of the result is ``indices[i]``."""
        counts = self.counts[indices]
        before = np.cumsum(counts) - counts
        rows = np.arange(counts.sum()) + np.repeat(self._first[indices] - before, counts)
        listed = indices.tolist()
        return BoxTable(
            counts,
            self.boxes[rows],
            None if self.labels is None else self.labels[rows],
            {name: array[rows] for name, array in self.extras.items()},
            sizes=None if self._sizes is None else self._sizes[indices],
            upright=self._upright,
            files=[self.files[index] for index in listed] if self.files else (),
            bad={row: self.bad[index] for row, index in enumerate(listed) if index in self.bad},
        )

    def error(self, index: int, owner: str) -> HighwayError:
        """Error of a bad sample; `owner` is the name of the reader."""
        kind, text = self.bad[index]
        return kind(f"{owner}: {text}")

    def turns(
        self, sizes: NDArray[np.int64], orientations: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], dict[int, str]]:
        """Find how to turn the boxes, and check the sizes of the pictures that they were made for.

        Parameters
        ----------
        sizes : int64 (N, 2)
            Height and width of the upright pictures.
        orientations : int64 (N,)
            EXIF orientations, 1 to 8, by which the pictures were turned upright.

        Returns
        -------
        turns : int64 (N,)
            Orientation still to be applied to the boxes. If the size is wrong, the boxes are taken to belong to the
            stored or the upright picture, whichever size is nearer.
        wrong : dict of int to str
            Texts of errors, by row.
        """
        if self._upright:
            return np.ones_like(orientations), {}
        if self._sizes is None:
            return orientations, {}
        stated = self._sizes
        stored = np.where((orientations >= 5)[:, None], sizes[:, ::-1], sizes)
        fits = ((stated == stored) | (stated == 0)).all(axis=1)
        wrong = {}
        others = np.flatnonzero(~(fits | (stated == sizes).all(axis=1)))
        if len(others):
            off, off_upright = (np.abs(stated - found).sum(axis=1)[others] for found in (stored, sizes))
            fits[others] = off <= off_upright
        turns = np.where(fits, orientations, 1)
        for row in others.tolist():
            height, width = stored[row].tolist()
            wrong[row] = (
                f"has {height} x {width} pixels (height x width), <size> in {os.fsdecode(self.files[row])} "
                f"says {stated[row, 0]} x {stated[row, 1]}; expected the same"
            )
        return turns, wrong

    def swapped(self, sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the boxes were made for a picture with height and width swapped: bool (N,)."""
        if self._sizes is None:
            return np.zeros(len(sizes), np.bool_)
        swapped: NDArray[np.bool_] = (self._sizes == sizes[:, ::-1]).all(axis=1)
        return swapped

    def mapped(
        self, mapping: PictureMapping, shape: tuple[int, int], min_visible: float
    ) -> tuple[NDArray[np.float32], NDArray[Any] | None, dict[str, NDArray[Any]], NDArray[np.int64]]:
        """Map the boxes to the images, and drop those that are not shown.

        Parameters
        ----------
        mapping : PictureMapping
            Mapping of the N samples.
        shape : (int, int)
            Height and width of the images.
        min_visible : float
            Boxes are dropped if less than this fraction of their area, 0 to 1, or nothing is shown.

        Returns
        -------
        boxes : float32 (K, 4)
            x0, y0, x1, y1 in pixels of the image.
        labels : ndarray (K, ...) or None
        extras : dict of str to ndarray (K, ...)
        offsets : int64 (N + 1,)
            Rows of sample i: ``offsets[i]`` up to ``offsets[i + 1]``.
        """
        count = len(self.counts)
        owners = np.repeat(np.arange(count), self.counts)
        boxes, kept = mapping.boxes(self.boxes, owners, shape, min_visible)
        offsets = np.zeros(count + 1, np.int64)
        np.cumsum(np.bincount(owners[kept], minlength=count), out=offsets[1:])
        labels = None if self.labels is None else self.labels[kept]
        return boxes[kept], labels, {name: array[kept] for name, array in self.extras.items()}, offsets
