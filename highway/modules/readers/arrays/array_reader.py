"""ArrayReader: reads the rows of arrays, or windows of them, in memory or in files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway._core.records.spans import spans_of_rows
from highway.arguments.options import split, takes
from highway.arguments.signatures import refuse_unknown
from highway.batch import Batch, is_field_name
from highway.engine.spec import Spec, array_spec
from highway.errors import ArgumentError, EmptyDatasetError
from highway.modules.readers.arrays.fields import LAYOUTS, ArrayField, Rows, rows_of
from highway.modules.readers.arrays.files import check_path, has_array_ending, is_archive, members
from highway.modules.readers.arrays.requested import is_hdf5, place_of
from highway.modules.readers.arrays.windows import Windows
from highway.modules.readers.fused_transforms import FusedWindows
from highway.modules.readers.options import SourceOptions
from highway.modules.readers.ordered import OrderedSource
from highway.sampling.sampler import Task
from highway.sampling.schedules import BatchSize
from highway.transforms.transform import Transform

__all__ = ["ArrayReader"]

# As after a reader of pictures, whose fit draws at position 0.
_APPLIED = 1


@takes(SourceOptions, more="arrays")
class ArrayReader(OrderedSource):
    """Reads arrays with one row for each sample, or windows of arrays, and yields batches with a field for each array.

    The arrays are given by their names, as a mapping or as arguments, or as `images` and `labels`. An array is

    - anything that NumPy takes as an array, of any dtype but object, and any number of dimensions from 1 on; numbers in
      the byte order of another machine are delivered in that of this one;
    - the path of a ``.npy`` or ``.npz`` file, which is memory-mapped, so that it may be larger than the memory;
      compressed members of ``.npz`` files are loaded;
    - a dataset of h5py, or a path that ends with ``.h5``, ``.hdf5`` or ``.hdf`` (extra ``hdf5``);
    - an array of zarr, or a path that ends with ``.zarr`` (extra ``zarr``).

    ``"x.npz:/name"`` names one of several arrays in a file; ``ArrayReader("x.npz", batch_size=32)`` reads all of
    them. Of HDF5 and zarr, each batch is read with one request.

    The rows of a batch are copied into new memory without the GIL. Flips and crops right after the reader, and a
    `Normalize` after those, are fused into this copy for uint8 images in memory or in mapped files. Do not write into
    the arrays, or shorten the files, while the reader is in use. If the storage fails while rows of a memory-mapped
    file are read, or the file was shortened, the operating system ends the process (SIGBUS), which no program can turn
    into an error.

    Parameters
    ----------
    images : mapping of str to array, or array (N, ...)
        All fields by their names, in order; or the field `images`. Arrays whose rows are not contiguous are read
        several times slower.
    labels : array_like (N,) or (N, K), or path, or None
        Field `labels`: whole numbers, which become int64, or floats, which become float32. Other arrays are not
        changed.
    batch_size : int or Schedule
        Samples in a batch; the last batch of an epoch may have fewer, unless `drop_last`. After a mapping it may be the
        second argument: ``ArrayReader({"x": x, "y": y}, 32)``.
    fields : mapping of str to array, optional
        Further fields, after the others, such as those that are named as an argument. Fields with a value for each
        pixel can follow the images through `Augmentations`: see its argument `fields`.
    keys : sequence of str, optional
        Key of every sample.
    window : int or tuple of int, optional
        Rows of a sample: sample i has the rows from ``i * stride`` to ``i * stride + window`` (exclusive), as an array
        (window, ...). A tuple is the size of a patch along the first axes; patches are numbered in C order.
    stride : int or tuple of int
        Distance from one window to the next.
    windowed : sequence of str, optional
        Names of the arrays that are cut into windows; all others have one row for each window. By default all are cut.
    layout : {"NHW", "NHWC", "NCHW"}, or mapping of str to these, optional
        Layout of the array `images`, or of the arrays with these names; the field is (N, H, W, C), as transforms of
        images take it. By default arrays are not changed.
    **arrays : array
        Further fields by name: ``ArrayReader(x=x, y=y, batch_size=32)``.
    shuffle, seed, epochs, shard, drop_last, workers, queue_size
        See `SourceOptions`.

    Raises
    ------
    ArgumentError
        An argument is out of range; an array holds objects, or is masked, or its number of rows is not that of the
        first one; or, with a batch, a label is beyond int64.
    EmptyDatasetError
        There are no rows.
    ReadError
        A file cannot be opened; or, with a batch, a dataset of HDF5 or zarr cannot be read.
    StorageError
        The storage failed for more than 30 s while a file was opened.
    DecodeError
        A file is not of its format, or shorter than its header says.
    MissingPackageError
        h5py or zarr is not installed.

    Notes
    -----
    The fingerprint, which ties a saved state to its data, covers names, shapes, dtypes, windows and layouts, but not
    the contents. A reader with datasets of h5py pickles as their paths, and opens them again.

    Examples
    --------
    >>> import numpy as np
    >>> from highway.engine import Pipeline
    >>> images = np.zeros((10, 8, 8, 3), np.uint8)
    >>> with Pipeline([ArrayReader(images, range(10), 4, shuffle=False, epochs=1)]) as pipeline:
    ...     [(images.shape, labels.tolist()) for images, labels in pipeline]
    [((4, 8, 8, 3), [0, 1, 2, 3]), ((4, 8, 8, 3), [4, 5, 6, 7]), ((2, 8, 8, 3), [8, 9])]

    A time series of 100 steps with 3 values, in windows of 24 steps:

    >>> series = np.arange(300.0).reshape(100, 3)
    >>> with Pipeline([ArrayReader(x=series, batch_size=8, window=24, shuffle=False)]) as pipeline:
    ...     batch = pipeline.dequeue()
    >>> batch.x.shape, batch.x[2, 0].tolist()
    ((8, 24, 3), [6.0, 7.0, 8.0])
    """

    hands_over = True

    def __init__(
        self,
        images: Any = None,
        labels: Any = None,
        batch_size: BatchSize | None = None,
        *,
        fields: Mapping[str, Any] | None = None,
        keys: Sequence[str] | None = None,
        window: int | Sequence[int] | None = None,
        stride: int | Sequence[int] = 1,
        windowed: Sequence[str] | None = None,
        layout: str | Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        options, arrays = split(SourceOptions, more)
        strangers = [word for word, value in arrays.items() if not _may_be_array(value)]
        for word in strangers:
            check_path(self.name, word, arrays[word])
        if strangers or (batch_size is None and not _is_whole(labels)):
            refuse_unknown(self, strangers, () if batch_size is not None else ("batch_size",))
        super().__init__(workers=options["workers"], queue_size=options["queue_size"])
        given, labels, batch_size = self._given(images, labels, batch_size, arrays, fields)
        rows = {name: rows_of(self.name, name, value) for name, value in given.items()}
        dtypes = {} if labels is None else {"labels": self._label_dtype(rows["labels"])}
        windows = self._windows_of(rows, window, stride, windowed)
        layouts = self._layouts(rows, layout)
        self._fields = {
            name: ArrayField(self.name, name, found, windows.get(name), layouts.get(name), dtypes.get(name))
            for name, found in rows.items()
        }
        size = self._size()
        self._keys = self._checked_keys(keys, size)
        # Raises now if a name is not allowed for a field.
        Batch({name: field.take(np.zeros(0, np.int64)) for name, field in self._fields.items()})
        self.order = self._ordered(size, batch_size, options)
        self._fused = FusedWindows()
        pictures = self._fields.get("images")
        if pictures is not None and len(pictures.shape) == 3:
            # As `is_planar` says of arrays.
            deep = pictures.dtype == np.uint16 and pictures.shape[2] <= 4
            if deep or pictures.dtype == np.uint8:
                self.image_shape, self.image_dtype = pictures.shape, pictures.dtype.name

    def __repr__(self) -> str:
        fields = ", ".join(field.told() for field in self._fields.values())
        return f"<ArrayReader of {fields}, {self.order.batch_size}{self._drawn()}>"

    def known_keys(self) -> Sequence[str] | None:
        return self._keys

    def known_labels(self) -> NDArray[Any] | None:
        labels = self._fields.get("labels")
        return None if labels is None else labels.take(np.arange(math.prod(labels.counts)))

    def contents(self) -> tuple[bytes, list[bytes]]:
        parts = [part for field in self._fields.values() for part in field.identity()]
        return b"ArrayReader", [part.encode() for part in parts]

    def fuse(self, steps: Sequence[Transform | None], seed: int) -> int:
        """Fuse the first flips and crops of the Augmentations after this reader, and a Normalize after those.

        Returns
        -------
        int
            Number of fused steps.
        """
        if "images" not in self._fields:
            return 0
        pictures = self._fields["images"]
        # Other arrays need a copy first.
        shape = self.image_shape if pictures.images is not None and pictures.dtype == np.uint8 else None
        rows = {name: field.shape for name, field in self._fields.items()}
        self._fused = FusedWindows.of(steps, seed, rows, shape)
        return self._fused.count

    def out_spec(self, before: Spec | None) -> Spec:
        return {name: array_spec(field.dtype, *field.shape) for name, field in self._fields.items()}

    def load(self, task: Task) -> Batch | None:
        """Copy the rows of a batch; None if all of its samples are skipped."""
        if not len(task.indices):
            return None
        keys, numbers = self._keys, task.numbers
        finished = self._finished(task)
        return Batch(
            {
                name: finished[name] if name in finished else field.take(numbers)
                for name, field in self._fields.items()
            },
            epoch=task.epoch,
            seq=task.seq,
            indices=task.indices,
            keys=None if keys is None else [keys[number] for number in numbers.tolist()],
            applied=_APPLIED + self._fused.count,
        )

    def _finished(self, task: Task) -> dict[str, NDArray[Any]]:
        """The images after the fused transforms; nothing if none are fused."""
        if not self._fused.count:
            return {}
        images, count, shape = self._fields["images"].images, len(task.indices), self.image_shape
        assert shape is not None and images is not None
        view = self._fused.view(task.epoch, task.indices, _APPLIED, shape)
        room = self._fused.room(count, shape)
        spans = spans_of_rows(images.reshape(len(images), math.prod(shape)), task.numbers)
        self._fused.put(room, np.arange(count), view, spans, np.zeros(count, np.int64))
        return {"images": room}

    def _specification(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        arguments, keywords = super()._specification()
        return tuple(map(self._named, arguments)), {
            name: self._named(value) for name, value in keywords.items()
        }

    def _named(self, value: Any) -> Any:
        """Return an argument for a pickle: the paths of datasets of HDF5, which cannot be pickled."""
        if isinstance(value, Mapping):
            return {name: self._named(one) for name, one in value.items()}
        return place_of(self.name, value) if is_hdf5(value) else value

    # Arguments

    def _given(
        self, images: Any, labels: Any, batch_size: Any, arrays: dict[str, Any], fields: object
    ) -> tuple[dict[str, Any], Any, Any]:
        """Return the arrays by name, the labels among them that become those of other readers, and the batch size."""
        if fields is not None and not isinstance(fields, Mapping):
            raise ArgumentError(
                f"{self.name}: fields is a {type(fields).__name__}; expected arrays by their names"
            )
        if batch_size is None:
            labels, batch_size = None, labels
            if not (images is None or isinstance(images, Mapping) or is_archive(images)):
                raise ArgumentError(
                    f"{self.name}: batch_size is missing; expected ArrayReader(images, labels, batch_size), or a "
                    "mapping of arrays first"
                )
        if labels is None and is_archive(images):
            images = members(self.name, images)
        given = dict(images) if isinstance(images, Mapping) else {} if images is None else {"images": images}
        if labels is not None:
            self._add(given, "labels", {"labels": labels})
        self._add(given, "arguments", arrays)
        if isinstance(fields, Mapping):
            for name in ("images", "labels"):
                if name in fields:
                    raise ArgumentError(f"{self.name}: fields has {name!r}, which is a separate argument")
            self._add(given, "fields", fields)
        if not given:
            raise ArgumentError(f"{self.name}: there are no arrays; expected one or more, by their names")
        for name in given:
            if not is_field_name(name):
                # With the message of every batch.
                Batch({name: np.zeros(0)})
        return given, labels, batch_size

    def _add(self, given: dict[str, Any], what: str, further: Mapping[str, Any]) -> None:
        for name, value in further.items():
            if name in given:
                raise ArgumentError(
                    f"{self.name}: {name} is given twice, the second time in the {what}; expected once"
                )
            given[name] = value

    def _windows_of(
        self, rows: Mapping[str, Rows], window: object, stride: object, windowed: object
    ) -> dict[str, Windows]:
        """Return the windows of each array that is cut."""
        if window is None:
            for name, value, unset in (
                ("stride", stride, _is_whole(stride) and stride == 1),
                ("windowed", windowed, windowed is None),
            ):
                if not unset:
                    raise ArgumentError(
                        f"{self.name}: {name} is {value!r}, but there is no window; expected both"
                    )
            return {}
        windows = Windows.checked(self.name, window, stride)
        if windowed is None:
            return dict.fromkeys(rows, windows)
        names = list(windowed) if isinstance(windowed, (tuple, list, set, frozenset)) else []
        if not names or not all(name in rows for name in names):
            raise ArgumentError(
                f"{self.name}: windowed is {windowed!r}; expected a list of names of arrays: {', '.join(rows)}"
            )
        return dict.fromkeys(names, windows)

    def _layouts(self, rows: Mapping[str, Rows], layout: object) -> dict[str, str]:
        if layout is None:
            return {}
        named: dict[Any, Any] = dict(layout) if isinstance(layout, Mapping) else {"images": layout}
        for name, value in named.items():
            if name not in rows:
                raise ArgumentError(
                    f"{self.name}: layout is for {name!r}; expected one of the arrays, {', '.join(rows)}: "
                    f'layout={{"{next(iter(rows))}": "NHW"}}'
                )
            if not isinstance(value, str) or value not in LAYOUTS:
                raise ArgumentError(
                    f"{self.name}: layout of {name} is {value!r}; expected {', '.join(map(repr, LAYOUTS))}"
                )
        return named

    def _size(self) -> int:
        """Return the number of samples, which all arrays must have."""
        fields = list(self._fields.values())
        first = next((field for field in fields if field.windows is not None), fields[0])
        size = math.prod(first.counts)
        if not size:
            raise EmptyDatasetError(f"{self.name}: {first.name} has no rows; expected one or more")
        for field in fields:
            if field.windows is None and first.windows is not None and field.counts[0] != size:
                raise ArgumentError(
                    f"{self.name}: {field.name} has {field.counts[0]} rows, and {first.name} {size} windows of "
                    f"{first.windows}; expected one row for each window, or {field.name} in windowed"
                )
            if field.counts != first.counts and field.windows is first.windows:
                if len(first.counts) == 1:
                    raise ArgumentError(
                        f"{self.name}: {field.name} has {field.rows.shape[0]} rows, {first.name} "
                        f"{first.rows.shape[0]}; expected as many"
                        + (
                            ""
                            if first.windows is None
                            else f", or, not in windowed, {size}: one for each window"
                        )
                    )
                raise ArgumentError(
                    f"{self.name}: {field.name} has shape {field.rows.shape}, {first.name} {first.rows.shape}; "
                    f"expected the same first {len(first.counts)} sizes, since both are cut into windows"
                )
        return size

    def _label_dtype(self, labels: Rows) -> type[np.int64 | np.float32]:
        if len(labels.shape) > 2 or labels.dtype.kind not in "iufb":
            raise ArgumentError(
                f"{self.name}: labels is an array of {labels.dtype} and shape {labels.shape}; expected whole numbers "
                "or floats, (N,) or (N, K); numpy.unique(names, return_inverse=True) numbers names of classes; give "
                "other arrays as fields"
            )
        return np.float32 if labels.dtype.kind == "f" else np.int64

    def _checked_keys(self, keys: Any, size: int) -> list[str] | None:
        if keys is None:
            return None
        names = [] if isinstance(keys, (str, bytes)) else list(keys)
        if len(names) != size or not all(isinstance(name, str) for name in names):
            raise ArgumentError(
                f"{self.name}: keys is a {type(keys).__name__} with {len(names)} names; expected {size}, one for "
                "each sample"
            )
        return names


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _may_be_array(value: object) -> bool:
    """Whether an argument with a name of its own may be an array; others are misspelled options."""
    if isinstance(value, (str, bytes)):
        return has_array_ending(value)
    scalar = value is None or isinstance(value, (bool, int, float, complex, np.generic))
    return not scalar and not callable(value)
