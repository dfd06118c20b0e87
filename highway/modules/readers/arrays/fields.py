"""ArrayField: an array of a reader as a field of its batches."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from highway.errors import ArgumentError
from highway.modules.readers.arrays.files import is_path, opened
from highway.modules.readers.arrays.memory import MemoryRows
from highway.modules.readers.arrays.requested import RequestedRows, is_hdf5, is_zarr
from highway.modules.readers.arrays.windows import Places, Windows

__all__ = ["LAYOUTS", "ArrayField", "Rows", "rows_of"]

LAYOUTS = {"NHW": 3, "NHWC": 4, "NCHW": 4}
"""Layouts of images, and the number of their dimensions."""

_MOST = np.iinfo(np.int64).max

Rows: TypeAlias = MemoryRows | RequestedRows


def rows_of(owner: str, name: str, value: Any) -> Rows:
    """Return the rows of an array, or of an array in a file.

    Raises
    ------
    ArgumentError
        It is not an array of numbers with at least one dimension.
    ReadError, StorageError, DecodeError, MissingPackageError
        Its file cannot be opened.
    """
    found: Rows
    if is_path(value):
        value = opened(owner, name, value)
    if is_hdf5(value) or is_zarr(value):
        # None: a dataset of HDF5 without a dataspace.
        if not value.shape:
            raise ArgumentError(f"{owner}: {name} has no dimensions; expected an array of rows")
        found = RequestedRows(owner, name, value)
    else:
        try:
            array = np.asarray(value)
        except ValueError:
            raise ArgumentError(
                f"{owner}: {name} is not an array; its rows differ in shape (DatasetReader "
                "reads such samples)"
            ) from None
        except Exception as error:
            # Of other libraries, such as of a tensor on a GPU.
            raise ArgumentError(
                f"{owner}: {name} is a {type(value).__name__}, which NumPy cannot take as an array: {error}"
            ) from error
        if np.ma.is_masked(value):
            raise ArgumentError(
                f"{owner}: {name} is an array with masked values, which batches cannot have; expected an array "
                "without, such as x.filled(0), and perhaps x.mask as another field"
            )
        if not array.ndim and not array.dtype.hasobject:
            raise ArgumentError(f"{owner}: {name} is {value!r}; expected an array of rows, or a path")
        found = MemoryRows(array)
    # Strings of variable length are objects too.
    if found.dtype.hasobject or found.dtype.kind == "T":
        raise ArgumentError(
            f"{owner}: {name} is an array of {found.dtype}; expected numbers, not objects; "
            "numpy.unique(names, return_inverse=True) numbers names"
        )
    return found


class ArrayField:
    """A field of the batches of an `ArrayReader`.

    Parameters
    ----------
    owner, name : str
        The reader and the field, for errors.
    rows : MemoryRows or RequestedRows
    windows : Windows, optional
        How the array is cut into samples; None for one sample a row.
    layout : {"NHW", "NHWC", "NCHW"}, optional
        Of images, which become (H, W, C) for each sample, or for each row of a window.
    dtype : dtype, optional
        Of the field; by default that of the array, in the byte order of this machine.

    Attributes
    ----------
    name : str
    rows : MemoryRows or RequestedRows
    counts : tuple of int
        Samples along each of the first axes of the array.
    shape : tuple of int
        Shape of one sample.
    dtype : dtype

    Raises
    ------
    ArgumentError
        The array has too few dimensions for the windows, or is shorter, or has not those of the layout.
    """

    def __init__(
        self,
        owner: str,
        name: str,
        rows: Rows,
        windows: Windows | None = None,
        layout: str | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.name, self.rows, self.windows, self.layout = name, rows, windows, layout
        self.dtype = rows.dtype.newbyteorder("=") if dtype is None else np.dtype(dtype)
        self._owner = owner
        shape, sides = rows.shape, () if windows is None else windows.sides
        if layout is not None and len(shape) != LAYOUTS[layout]:
            raise ArgumentError(
                f"{owner}: {name} has shape {shape}, for layout {layout!r}; expected {LAYOUTS[layout]} dimensions"
            )
        if len(shape) < len(sides):
            raise ArgumentError(
                f"{owner}: {name} has shape {shape}, for windows of {windows}; expected {len(sides)} dimensions or more"
            )
        if layout is not None and len(sides) > 1:
            raise ArgumentError(
                f"{owner}: {name} has a layout, {layout!r}, and windows of {windows}; expected windows along the "
                "first axis, or no layout"
            )
        self.counts = shape[:1] if windows is None else windows.counts(shape)
        if windows is not None and shape[0] and 0 in self.counts:
            raise ArgumentError(
                f"{owner}: {name} has shape {shape}, shorter than a window of {windows}; expected a window within it"
            )
        rest = shape[max(1, len(sides)) :]
        if layout == "NHW":
            rest = (*rest, 1)
        elif layout == "NCHW":
            rest = (*rest[1:], rest[0])
        self.shape: tuple[int, ...] = (*sides, *rest)

    @property
    def images(self) -> NDArray[Any] | None:
        """The array itself, (N, *shape) in C order, if its samples lie so in memory."""
        if self.windows is not None or self.layout == "NCHW" or not isinstance(self.rows, MemoryRows):
            return None
        array = self.rows.array
        return array.reshape(len(array), *self.shape) if array.flags.c_contiguous else None

    def take(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """Return some samples, (N, *shape), in new memory."""
        if self.windows is None and self.layout != "NCHW":
            found = self.rows.take_rows(indices)
        else:
            places = (
                Places.of_rows(indices) if self.windows is None else self.windows.places(indices, self.counts)
            )
            found = self.rows.take_channels_last(places) if self.layout == "NCHW" else self.rows.take(places)
        if self.layout == "NHW":
            found = found[..., None]
        if found.dtype == self.dtype:
            return found
        if found.dtype == np.uint64 and self.dtype == np.int64 and found.max(initial=0) > _MOST:
            raise ArgumentError(
                f"{self._owner}: {self.name} has {found.max()}, which {self.dtype} cannot hold; give the array in a "
                "mapping, where its dtype does not change"
            )
        return found.astype(self.dtype)

    def told(self) -> str:
        """Text for the repr of the reader."""
        return f"{self.name}={self.rows.dtype}{list(self.rows.shape)}"

    def identity(self) -> list[str]:
        """Parts that identify the data; of a plain array its name, dtype and shape only."""
        parts = [repr((self.name, self.rows.dtype.str, self.rows.shape))]
        if self.layout is not None:
            parts.append(repr(("layout", self.layout)))
        if self.windows is not None:
            parts.append(repr(("windows", self.windows.sides, self.windows.steps)))
        return parts
