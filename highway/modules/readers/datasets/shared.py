"""Memory that processes share: unnamed files in memory, so that none is ever left."""

from __future__ import annotations

import itertools
import mmap
import os
import pickle
from collections import deque
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import DupFd, recv_handle
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from highway.modules.readers.datasets.collation import Field, Planned

__all__ = ["Packed", "Placed", "Room", "Slot", "Slots", "received", "views_of"]

_ALIGNMENT = 64
_LEAST = 1 << 16
# Most batches that are held without a copy.
_MOST_HELD = 64


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


class Slot:
    """Memory for one batch at a time, in the parent, which says what process writes into it, and when.

    Parameters
    ----------
    number : int

    Attributes
    ----------
    file : int
        Its descriptor, which is closed with this object.
    """

    file = -1

    def __init__(self, number: int) -> None:
        self.number = number
        self._map: mmap.mmap | None = None
        self.file = file_in_memory(0)

    @property
    def size(self) -> int:
        """Bytes, as many as the largest batch so far needed."""
        return os.fstat(self.file).st_size

    def memory(self) -> mmap.mmap:
        """Return the memory, to copy from it."""
        size = self.size
        if self._map is None or len(self._map) < size:
            self._map = mmap.mmap(self.file, size)
        return self._map

    def handed_over(self) -> mmap.mmap:
        """Return the memory, which lives as long as any array over it; nobody may write another batch there."""
        # Mapped at once: a fault for each page costs more.
        return mmap.mmap(self.file, self.size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)

    def __del__(self) -> None:
        if self.file >= 0:
            os.close(self.file)


class Slots:
    """The slots of a reader. Several threads may use it at once."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._free: deque[Slot] = deque()
        self._closed = False
        self._held: WeakSet[mmap.mmap] = WeakSet()

    @property
    def may_hand_over(self) -> bool:
        """Whether more memory may be handed over: a map keeps a descriptor, of which a process has few."""
        return len(self._held) < _MOST_HELD

    def hand_over(self, slot: Slot) -> mmap.mmap:
        """Return the memory of a slot, as `Slot.handed_over`."""
        memory = slot.handed_over()
        self._held.add(memory)
        return memory

    def take(self) -> Slot:
        """Return a slot that is free, or a new one."""
        try:
            return self._free.pop()
        except IndexError:
            return Slot(next(self._numbers))

    def give(self, slot: Slot) -> None:
        """Take back a slot whose batch was copied."""
        self._free.append(slot)
        if self._closed:
            self._free.clear()

    def close(self) -> None:
        """Keep no slot: an error that is kept may keep this object. Takes no lock."""
        self._closed = True
        self._free.clear()


class Room:
    """A slot in the process that writes a batch into it; it grows with the batches.

    Parameters
    ----------
    file : int
        Descriptor of the slot, which is closed with this object.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._map: mmap.mmap | None = None
        self._rows: dict[str, Placed] = {}
        self._end = 0

    def rows_for(self, fields: Sequence[Field], count: int) -> Mapping[str, NDArray[Any]]:
        """Return arrays in the slot for the rows of a batch, to write samples there as they are read.

        Parameters
        ----------
        fields : sequence of Field
        count : int
            Most samples.

        Returns
        -------
        dict of str to ndarray
            Of shape (count, ...), by the name of the field.
        """
        self._rows, self._end = {}, 0
        for field in fields:
            place = self._place(field.name, field.dtype, (count, *field.shape), 0)
            self._rows[field.name] = place
        memory = self._large_enough()
        return {name: views_of(memory, place)[0] for name, place in self._rows.items()}

    def write(self, arrays: Sequence[Planned]) -> list[Placed]:
        """Write the arrays of a batch, except for those that are there since `rows_for`."""
        placed, others = [], []
        for array in arrays:
            there = self._rows.get(array.name)
            if there is not None and self._has(there, array):
                placed.append(there._replace(shape=array.shape))
                continue
            count = 0 if array.offsets is None else len(array.offsets)
            placed.append(self._place(array.name, array.dtype, array.shape, count))
            others.append((array, placed[-1]))
        if others:
            memory = self._large_enough()
            for array, place in others:
                out, offsets = views_of(memory, place)
                array.fill(out)
                if offsets is not None and array.offsets is not None:
                    offsets[:] = array.offsets
        self._rows, self._end = {}, 0
        return placed

    def _place(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], offsets: int) -> Placed:
        """Return a place after all others."""
        at = self._end
        end = _aligned(at + dtype.itemsize * int(np.prod(shape, dtype=np.int64)))
        self._end = _aligned(end + 8 * offsets)
        return Placed(name, dtype, shape, at, end, offsets)

    def _has(self, place: Placed, array: Planned) -> bool:
        """Whether the parts of an array are the first rows at a place."""
        if array.parts is None or array.offsets is not None or array.shape[1:] != place.shape[1:]:
            return False
        assert self._map is not None
        rows, _ = views_of(self._map, place)
        start, step = _address(rows), rows.strides[0]
        return all(_address(part) == start + number * step for number, part in enumerate(array.parts))

    def _large_enough(self) -> mmap.mmap:
        """Return the memory with all places."""
        size = 0 if self._map is None else len(self._map)
        if self._map is None or self._end > size:
            # Batches that grow once may grow again. Arrays over the map before keep it, and are of the same file.
            size = max(_LEAST, self._end + self._end // 4 if size else self._end)
            os.ftruncate(self._file, max(size, os.fstat(self._file).st_size))
            self._map = mmap.mmap(self._file, size)
        return self._map

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


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _aligned(number: int) -> int:
    return -(-number // _ALIGNMENT) * _ALIGNMENT
