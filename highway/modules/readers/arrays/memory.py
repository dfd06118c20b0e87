"""MemoryRows: copies rows and windows of an array in memory, or of a mapped file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway._core.records.gather import gather, gather_planar
from highway.batch import empty
from highway.modules.readers.arrays.windows import Places

__all__ = ["MemoryRows", "channels_last"]

_ONE = np.zeros(1, np.int64)


class MemoryRows:
    """An array whose rows and windows are copied into batches.

    Parameters
    ----------
    array : ndarray (M, ...)
        Of any dtype but object.

    Attributes
    ----------
    array : ndarray (M, ...)
    shape, dtype
        Those of the array.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array
        self.shape = array.shape
        self.dtype = array.dtype
        # By number of axes of the windows.
        self._bytes: dict[int, NDArray[np.uint8] | None] = {}
        self._runs: tuple[tuple[int, ...], NDArray[np.int64], int] = ((), _ONE, 1)

    def take_rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Copy rows of the array into memory from the pool: (N, ...), in C order."""
        rows = self._flat(1)
        if rows is None or not len(indices):
            return self.take(Places.of_rows(indices))
        out = empty((len(indices), *self.shape[1:]), self.dtype)
        gather(rows, indices, _ONE, 1, out.reshape(len(out), -1).view(np.uint8))
        return out

    def take(self, places: Places) -> NDArray[Any]:
        """Copy blocks of the array into memory from the pool.

        Returns
        -------
        ndarray (N, *sides, ...)
            In C order.
        """
        array, axes = self.array, places.axes
        out = empty((len(places), *places.sides, *array.shape[axes:]), array.dtype)
        if not out.nbytes:
            return out
        rows = self._flat(axes)
        if rows is not None:
            firsts = self._numbers(places.corners)
            parts, run = self._parts(places.sides)
            gather(rows, firsts, parts, run, out.reshape(len(out), -1).view(np.uint8))
        elif array.ndim == 1 and not places.sides:
            out[:] = array[places.corners[:, 0]]
        else:
            for block, corner in zip(out, places.corners.tolist(), strict=True):
                if places.sides:
                    ends = zip(corner, places.sides, strict=True)
                    block[...] = array[tuple(slice(at, at + side) for at, side in ends)]
                else:
                    block[...] = array[corner[0]]
        return out

    def take_channels_last(self, places: Places) -> NDArray[Any]:
        """Copy blocks of planar images (..., C, H, W) as (N, *sides, H, W, C)."""
        array = self.array
        if not places.sides and array.ndim == 4 and array.flags.c_contiguous:
            return channels_last(array, places.corners[:, 0])
        return channels_last(self.take(places))

    def _flat(self, axes: int) -> NDArray[np.uint8] | None:
        """Return the array as bytes, a row for each place along its first `axes` axes; None if that needs a copy."""
        if axes not in self._bytes:
            self._bytes[axes] = _as_bytes(self.array, axes)
        return self._bytes[axes]

    def _numbers(self, corners: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the number of the row at each corner."""
        numbers = corners[:, 0]
        for axis in range(1, corners.shape[1]):
            numbers = numbers * self.shape[axis] + corners[:, axis]
        return np.ascontiguousarray(numbers)

    def _parts(self, sides: tuple[int, ...]) -> tuple[NDArray[np.int64], int]:
        """Return what `gather` copies for a window: the first row of each run, after that of the window; and rows of a
        run.
        """
        known, parts, run = self._runs
        if known == sides:
            return parts, run
        parts, run = _ONE, sides[-1]
        for axis, side in enumerate(sides[:-1]):
            step = math.prod(self.shape[axis + 1 : len(sides)])
            parts = (parts[:, None] + np.arange(side, dtype=np.int64) * step).reshape(-1)
        self._runs = sides, parts, run
        return parts, run


def channels_last(images: NDArray[Any], indices: NDArray[np.int64] | None = None) -> NDArray[Any]:
    """Copy planar images with the channels of each pixel side by side.

    Parameters
    ----------
    images : ndarray (..., C, H, W)
        In C order.
    indices : int64 (N,), optional
        Which of the images (M, C, H, W); by default all.

    Returns
    -------
    ndarray (..., H, W, C) or (N, H, W, C)
    """
    *first, channels, height, width = images.shape
    if indices is not None:
        first = [len(indices)]
    out = empty((*first, height, width, channels), images.dtype)
    if not out.nbytes:
        return out
    kind = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}.get(images.dtype.itemsize)
    if kind is None or not images.flags.aligned:
        np.copyto(out, np.moveaxis(images if indices is None else images[indices], -3, -1))
        return out
    planes = images.reshape(-1, channels, height * width).view(kind)
    chosen = np.arange(len(planes), dtype=np.int64) if indices is None else np.ascontiguousarray(indices)
    gather_planar(planes, chosen, out.reshape(-1, height * width, channels).view(kind))
    return out


def _as_bytes(array: NDArray[Any], axes: int) -> NDArray[np.uint8] | None:
    if not array.nbytes:
        return None
    size = math.prod(array.shape[axes:])
    if array.flags.c_contiguous:
        return array.reshape(-1, size).view(np.uint8)
    # Rows that are apart, each in one piece.
    if axes > 1 or size < 2 or not array[:1].flags.c_contiguous:
        return None
    return array.reshape(len(array), size).view(np.uint8)
