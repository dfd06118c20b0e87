"""ArrayReader: reads the rows of arrays in memory, or of .npy files."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from highway._core.records.spans import spans_of_rows
from highway.arguments import expanded
from highway.arguments.options import completed, takes
from highway.batch import Batch, empty
from highway.engine.spec import Spec, array_spec
from highway.errors import ArgumentError, DecodeError, EmptyDatasetError, ReadError, StorageError
from highway.modules.readers.fused_transforms import FusedWindows
from highway.modules.readers.options import SourceOptions
from highway.modules.readers.ordered import OrderedSource
from highway.sampling.sampler import Task
from highway.storage.outages import ask
from highway.transforms.transform import Transform

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ArrayReader"]

# As after a reader of pictures, whose fit draws at position 0.
_APPLIED = 1


@takes(SourceOptions)
class ArrayReader(OrderedSource):
    """Reads arrays with one row for each sample and yields batches ``images, labels``, and further fields.

    The rows of a batch are copied into new memory without the GIL. Flips and crops right after the reader, and a
    `Normalize` after those, are fused into this copy. Do not write into the arrays, or shorten the files, while the
    reader is in use. Files are memory-mapped: if the storage fails while rows are read, or a file was shortened, the
    operating system ends the process (SIGBUS), which no program can turn into an error.

    Parameters
    ----------
    images : array (N, ...) or path
        Of any dtype but object; or a ``.npy`` file, which is memory-mapped, so that it may be larger than the memory.
        Arrays whose rows are not contiguous are read several times slower.
    labels : array_like (N,) or (N, K), or path, or None
        Whole numbers, which become int64, or floats, which become float32; None for no labels.
    batch_size : int
        Samples in a batch; the last batch of an epoch may have fewer, unless `drop_last`.
    fields : mapping of str to array (N, ...) or path, optional
        Further fields of the batches, in this order, after `images` and `labels`; their values are not changed. Fields
        with a value for each pixel can follow the images through `Augmentations`: see its argument `fields`.
    keys : sequence of str, optional
        Key of every sample.
    shuffle, seed, epochs, shard, drop_last, workers, queue_size
        See `SourceOptions`.

    Raises
    ------
    ArgumentError
        An argument is out of range, holds objects, or its number of rows is not that of `images`.
    EmptyDatasetError
        There are no rows.
    ReadError
        A file cannot be opened.
    StorageError
        The storage failed for more than 30 s while a file was opened.
    DecodeError
        A file is not a ``.npy`` file, or shorter than its header says.

    Notes
    -----
    The fingerprint, which ties a saved state to its data, covers names, shapes and dtypes, but not the contents.

    Examples
    --------
    >>> import numpy as np
    >>> from highway.engine import Pipeline
    >>> images = np.zeros((10, 8, 8, 3), np.uint8)
    >>> with Pipeline([ArrayReader(images, range(10), 4, shuffle=False, epochs=1)]) as pipeline:
    ...     [(images.shape, labels.tolist()) for images, labels in pipeline]
    [((4, 8, 8, 3), [0, 1, 2, 3]), ((4, 8, 8, 3), [4, 5, 6, 7]), ((2, 8, 8, 3), [8, 9])]
    """

    hands_over = True

    def __init__(
        self,
        images: Any,
        labels: Any,
        batch_size: int,
        *,
        fields: Mapping[str, Any] | None = None,
        keys: Sequence[str] | None = None,
        **options: Unpack[SourceOptions],
    ) -> None:
        options = completed(SourceOptions, options)
        super().__init__(workers=options["workers"], queue_size=options["queue_size"])
        if fields is not None and not isinstance(fields, Mapping):
            raise ArgumentError(
                f"{self.name}: fields is a {type(fields).__name__}; expected arrays by their names"
            )
        given = {"images": images, "labels": labels, **(fields or {})}
        for name in ("images", "labels"):
            if fields and name in fields:
                raise ArgumentError(f"{self.name}: fields has {name!r}, which is a separate argument")
        if labels is None:
            del given["labels"]
        self._arrays = {name: self._array(name, value) for name, value in given.items()}
        # The dtype of the labels in batches.
        self._label = None if labels is None else self._label_dtype(self._arrays["labels"])
        self._windows = FusedWindows()
        size = len(self._arrays["images"])
        for name, array in self._arrays.items():
            if len(array) != size:
                raise ArgumentError(
                    f"{self.name}: {name} has {len(array)} rows, images {size}; expected as many"
                )
        if not size:
            raise EmptyDatasetError(f"{self.name}: images has no rows; expected one or more")
        self._keys = self._checked_keys(keys, size)
        # Raises now if a name is not allowed for a field.
        Batch(self._rows(np.zeros(0, np.int64)))
        self.order = self._ordered(size, batch_size, options)
        shape, dtype = self._arrays["images"].shape[1:], self._arrays["images"].dtype
        if len(shape) == 3 and dtype == np.uint8:
            self.image_shape = shape

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={a.dtype}{list(a.shape)}" for name, a in self._arrays.items())
        return f"<ArrayReader of {fields}, {self.order.batch_size}{self._drawn()}>"

    def known_keys(self) -> Sequence[str] | None:
        return self._keys

    def known_labels(self) -> NDArray[Any] | None:
        return self._arrays.get("labels")

    def contents(self) -> tuple[bytes, list[bytes]]:
        shapes = [repr((name, array.dtype.str, array.shape)) for name, array in self._arrays.items()]
        return b"ArrayReader", [shape.encode() for shape in shapes]

    def fuse(self, steps: Sequence[Transform | None], seed: int) -> int:
        """Fuse the first flips and crops of the Augmentations after this reader, and a Normalize after those.

        Returns
        -------
        int
            Number of fused steps.
        """
        # Arrays that are not contiguous need a copy first.
        shape = self.image_shape if self._arrays["images"].flags.c_contiguous else None
        rows = {name: array.shape[1:] for name, array in self._arrays.items()}
        self._windows = FusedWindows.of(steps, seed, rows, shape)
        return self._windows.count

    def out_spec(self, before: Spec | None) -> Spec:
        spec = {name: array_spec(array.dtype, *array.shape[1:]) for name, array in self._arrays.items()}
        if self._label is not None:
            spec["labels"] = array_spec(self._label, *self._arrays["labels"].shape[1:])
        return spec

    def load(self, task: Task) -> Batch | None:
        """Copy the rows of a batch; None if all of its samples are skipped."""
        if not len(task.indices):
            return None
        keys = self._keys
        return Batch(
            self._finished(task) | self._rows(task.numbers),
            epoch=task.epoch,
            seq=task.seq,
            indices=task.indices,
            keys=None if keys is None else [keys[number] for number in task.numbers.tolist()],
            applied=_APPLIED + self._windows.count,
        )

    def _finished(self, task: Task) -> dict[str, NDArray[Any]]:
        """The images after the fused transforms; nothing if none are fused."""
        if not self._windows.count:
            return {}
        images, count, shape = self._arrays["images"], len(task.indices), self.image_shape
        assert shape is not None
        view = self._windows.view(task.epoch, task.indices, _APPLIED, shape)
        room = self._windows.room(count, shape)
        spans = spans_of_rows(images.reshape(len(images), math.prod(shape)), task.numbers)
        self._windows.put(room, np.arange(count), view, spans, np.zeros(count, np.int64))
        return {"images": room}

    def _rows(self, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        rows = {
            name: _taken(array, indices)
            for name, array in self._arrays.items()
            if not (name == "images" and self._windows.count)
        }
        if self._label is not None:
            rows["labels"] = rows["labels"].astype(self._label, copy=False)
        return rows

    # Arguments

    def _array(self, name: str, value: Any) -> NDArray[Any]:
        if isinstance(value, (str, bytes, os.PathLike)):
            value = self._mapped(name, value)
        try:
            array = np.asarray(value)
        except ValueError:
            raise ArgumentError(f"{self.name}: {name} is not an array; its rows differ in shape") from None
        if array.dtype.hasobject:
            raise ArgumentError(
                f"{self.name}: {name} is an array of {array.dtype}; expected numbers, not objects"
            )
        if not array.ndim:
            raise ArgumentError(f"{self.name}: {name} is {value!r}; expected an array of rows, or a path")
        return array

    def _mapped(self, name: str, path: str | bytes | os.PathLike[Any]) -> NDArray[Any]:
        where = expanded(self.name, name, path)
        try:
            return ask(self.name, where, lambda: _opened(where))
        except StorageError:
            raise
        except OSError as error:
            raise ReadError(f"{self.name}: {where} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            # Files of objects cannot be mapped; NumPy's message says so.
            raise DecodeError(f"{self.name}: {where} cannot be mapped as a .npy file: {error}") from error

    def _label_dtype(self, labels: NDArray[Any]) -> type[np.int64 | np.float32]:
        if labels.ndim > 2 or labels.dtype.kind not in "iufb":
            raise ArgumentError(
                f"{self.name}: labels is an array of {labels.dtype} and shape {labels.shape}; expected whole numbers "
                "or floats, (N,) or (N, K); give other arrays as fields"
            )
        return np.float32 if labels.dtype.kind == "f" else np.int64

    def _checked_keys(self, keys: Any, size: int) -> list[str] | None:
        if keys is None:
            return None
        names = [] if isinstance(keys, (str, bytes)) else list(keys)
        if len(names) != size or not all(isinstance(name, str) for name in names):
            raise ArgumentError(
                f"{self.name}: keys is a {type(keys).__name__} with {len(names)} names; expected {size}, one for "
                "each row of images"
            )
        return names


def _opened(where: str) -> NDArray[Any]:
    with open(where, "rb") as file:
        version = np.lib.format.read_magic(file)
    if version[0] > 3:
        raise ValueError(f"version {version[0]} of the format is not known")
    found: NDArray[Any] = np.lib.format.open_memmap(where, mode="r")
    return found


def _taken(array: NDArray[Any], indices: NDArray[np.int64]) -> NDArray[Any]:
    """Copy rows of an array into memory from the pool."""
    out = empty((len(indices), *array.shape[1:]), array.dtype)
    if array.flags.c_contiguous and array.flags.aligned:
        # "clip" avoids a buffer, and no index needs clipping. An array that is not contiguous would be copied whole.
        return np.take(array, indices, axis=0, out=out, mode="clip")
    if array.ndim == 1:
        out[:] = array[indices]
        return out
    for row, index in zip(out, indices.tolist(), strict=True):
        row[...] = array[index]
    return out
