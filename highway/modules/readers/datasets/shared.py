"""Memory that processes share: unnamed files in memory, so that none is ever left."""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd, recv_handle, send_handle
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.modules.readers.datasets.collation import Planned

__all__ = ["Event", "Packed", "Placed", "Room", "received", "views_of"]

_ALIGNMENT = 64
_LEAST = 1 << 16


class Placed(NamedTuple):
    """Where an array of a batch is in shared memory.

    Attributes
    ----------
    name : str
    dtype : dtype
    shape : tuple of int
    at : int
        First byte.
    offsets_at, offsets_count : int
        First byte and number of the offsets of a ragged field; the number is 0 for others.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    at: int
    offsets_at: int
    offsets_count: int


class Room:
    """The memory of one batch at a time, in the process that writes it; it grows with the batches.

    Attributes
    ----------
    free : int
        Descriptor of an event: 1 if the memory may be written. The parent sets it when it has copied a batch.
    """

    def __init__(self) -> None:
        self._map: mmap.mmap | None = None
        self._file = -1
        self._size = 0
        self.free = os.eventfd(1, os.EFD_CLOEXEC | os.EFD_SEMAPHORE)

    def write(self, arrays: Sequence[Planned]) -> tuple[list[Placed], bool]:
        """Write the arrays of a batch, once the parent has copied the last one.

        Returns
        -------
        list of Placed
        bool
            Whether the memory is new: the parent needs it, see `send`.
        """
        placed, end = [], 0
        for array in arrays:
            at = end
            end = _aligned(at + array.dtype.itemsize * int(np.prod(array.shape, dtype=np.int64)))
            count = 0 if array.offsets is None else len(array.offsets)
            placed.append(Placed(array.name, array.dtype, array.shape, at, end, count))
            end = _aligned(end + 8 * count)
        if not placed:
            return placed, False
        os.eventfd_read(self.free)
        try:
            if self._map is None or end > self._size:
                # Batches that grow once may grow again.
                self._make(max(_LEAST, end + end // 4 if self._size else end))
            assert self._map is not None
            for array, place in zip(arrays, placed, strict=True):
                out, offsets = views_of(self._map, place)
                array.fill(out)
                if offsets is not None and array.offsets is not None:
                    offsets[:] = array.offsets
        except BaseException:
            # The parent gets no batch, so it would never say that it has copied it.
            os.eventfd_write(self.free, 1)
            raise
        # Also if it was made for a batch that was not sent.
        return placed, self._file >= 0

    def _make(self, size: int) -> None:
        self._map, self._size = None, 0
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._file = file_in_memory(size)
        self._map = mmap.mmap(self._file, size)
        self._size = size

    def send(self, connection: Connection, parent: int) -> None:
        """Send the memory to the parent."""
        send_handle(connection, self._file, parent)
        os.close(self._file)
        self._file = -1


class Event:
    """The parent's end of `Room.free`.

    Parameters
    ----------
    file : int
        Its descriptor, which is closed with this object.
    """

    def __init__(self, file: int) -> None:
        self._file = file

    def set(self) -> None:
        """Note that the batch was copied."""
        os.eventfd_write(self._file, 1)

    def __del__(self) -> None:
        os.close(self._file)


class Packed:
    """An object as its pickle, in memory that all processes share.

    The pickle is sent to a new process as a descriptor: `multiprocessing` writes arguments into a pipe, and waits for
    ever if they are long and the process ends before it reads them.

    Parameters
    ----------
    value : object
    """

    _file = -1

    def __init__(self, value: object) -> None:
        self._file = os.memfd_create("highway", os.MFD_CLOEXEC)
        with open(self._file, "wb", closefd=False) as file:
            pickle.dump(value, file, pickle.HIGHEST_PROTOCOL)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received_packed, (DupFd(self._file),)

    def value(self) -> Any:
        """Return a new object."""
        with mmap.mmap(self._file, 0, access=mmap.ACCESS_READ) as packed:
            return pickle.loads(packed)

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


def _received_packed(sent: Any) -> Packed:
    packed = Packed.__new__(Packed)
    packed._file = sent.detach()
    return packed


def file_in_memory(size: int) -> int:
    """Return the descriptor of a new unnamed file in memory."""
    file = os.memfd_create("highway", os.MFD_CLOEXEC)
    try:
        os.ftruncate(file, size)
    except BaseException:
        os.close(file)
        raise
    return file


def received(connection: Connection) -> mmap.mmap:
    """Return the memory that the other process sends; it lives as long as the map."""
    file = recv_handle(connection)
    try:
        return mmap.mmap(file, os.fstat(file).st_size)
    finally:
        os.close(file)


def views_of(memory: mmap.mmap, place: Placed) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Return an array in shared memory, and its offsets if it is ragged, as views."""
    array: NDArray[Any] = np.ndarray(place.shape, place.dtype, buffer=memory, offset=place.at)
    if not place.offsets_count:
        return array, None
    return array, np.ndarray((place.offsets_count,), np.int64, buffer=memory, offset=place.offsets_at)


def _aligned(number: int) -> int:
    return -(-number // _ALIGNMENT) * _ALIGNMENT
