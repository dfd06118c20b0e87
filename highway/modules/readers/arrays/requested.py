"""RequestedRows: reads rows and windows of arrays of HDF5 and zarr, a batch with one request."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.batch import empty
from highway.errors import ArgumentError, HighwayError, ReadError
from highway.modules.readers.arrays.memory import MemoryRows, channels_last
from highway.modules.readers.arrays.windows import Places

__all__ = ["RequestedRows", "is_hdf5", "is_zarr", "place_of"]


class RequestedRows:
    """A dataset of HDF5, or an array of zarr, whose rows and windows are read for each batch.

    The rows of a batch are sorted, each once, and read with one request, so that each chunk is decoded once. Windows
    along several axes are read one by one.

    Parameters
    ----------
    owner, name : str
        The reader and the field, for errors.
    array : h5py.Dataset or zarr.Array

    Attributes
    ----------
    array : h5py.Dataset or zarr.Array
    shape, dtype
        Those of the array.
    """

    def __init__(self, owner: str, name: str, array: Any) -> None:
        self._place = place_of(owner, array)
        self.array = array
        self.shape: tuple[int, ...] = tuple(array.shape)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self._named = f"{owner}: {name}"
        self._lock: AbstractContextManager[Any] = (
            _lock_of(array.file.filename) if is_hdf5(array) else nullcontext()
        )
        self._rows: Callable[[Any], Any] = array.__getitem__ if is_hdf5(array) else array.oindex.__getitem__

    def take_rows(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Read rows of the array, (N, ...); see `take`."""
        return self.take(Places.of_rows(indices))

    def take(self, places: Places) -> NDArray[Any]:
        """Read blocks of the array.

        Returns
        -------
        ndarray (N, *sides, ...)
            In C order.

        Raises
        ------
        ReadError
            The library cannot read them.
        """
        out_shape = (len(places), *places.sides, *self.shape[places.axes :])
        if not len(places) or 0 in out_shape:
            return empty(out_shape, self.dtype)
        if places.axes > 1:
            corners, back = np.unique(places.corners, axis=0, return_inverse=True)
            blocks = empty((len(corners), *out_shape[1:]), self.dtype)
            for block, corner in zip(blocks, corners.tolist(), strict=True):
                ends = zip(corner, places.sides, strict=True)
                block[...] = self._read(tuple(slice(at, at + side) for at, side in ends))
        else:
            wanted = places.corners
            if places.sides:
                wanted = wanted + np.arange(places.sides[0], dtype=np.int64)
            rows, back = np.unique(wanted, return_inverse=True)
            blocks = self._read_rows(rows)
        back = back.reshape(-1).astype(np.int64, copy=False)
        if len(back) == len(blocks) and (back == np.arange(len(back))).all():
            return blocks.reshape(out_shape)
        return MemoryRows(blocks).take(Places.of_rows(back)).reshape(out_shape)

    def take_channels_last(self, places: Places) -> NDArray[Any]:
        """Read blocks of planar images (..., C, H, W) as (N, *sides, H, W, C); see `take`."""
        return channels_last(self.take(places))

    def _read_rows(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Read rows, ascending, each once."""
        first, last = int(rows[0]), int(rows[-1])
        if last - first + 1 == len(rows):
            return self._read(slice(first, last + 1))
        return self._read(rows, self._rows)

    def _read(self, chosen: Any, read: Callable[[Any], Any] | None = None) -> NDArray[Any]:
        try:
            with self._lock:
                found = (read or self.array.__getitem__)(chosen)
        except HighwayError:
            raise
        except Exception as error:
            # Both libraries, and their filters, raise errors of many types.
            text = " ".join(str(error).split()) or type(error).__name__
            raise ReadError(
                f"{self._named}: rows of {self._place} cannot be read: {text}; expected an open, undamaged "
                "file"
            ) from error
        return np.ascontiguousarray(found)


def is_hdf5(value: object) -> bool:
    """Whether a value is a dataset of h5py; without importing h5py."""
    # Of its class: a dataset of a closed file raises.
    return hasattr(type(value), "read_direct") and hasattr(type(value), "file")


def is_zarr(value: object) -> bool:
    """Whether a value is an array of zarr; without importing zarr."""
    return hasattr(type(value), "oindex") and hasattr(type(value), "store")


def place_of(owner: str, array: Any) -> str:
    """Return where a dataset or array is, a dataset of HDF5 as for the argument of `ArrayReader`.

    Raises
    ------
    ArgumentError
        The file of a dataset was closed.
    """
    if is_hdf5(array):
        if not array:
            raise ArgumentError(
                f"{owner}: an array is a dataset of a closed file; expected one of an open file, or its path, as in "
                "'x.h5:/name'"
            )
        return f"{array.file.filename}:{array.name}"
    return str(getattr(array, "store_path", array))


_locks: weakref.WeakValueDictionary[str, _Lock] = weakref.WeakValueDictionary()
_locks_guard = threading.Lock()


class _Lock:
    """A lock that all readers of a file share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _lock_of(path: str) -> _Lock:
    """Return the lock of a file of HDF5: requests of several threads would only wait for each other inside HDF5."""
    key = os.path.realpath(path)
    with _locks_guard:
        lock = _locks.get(key)
        if lock is None:
            lock = _locks[key] = _Lock()
        return lock
