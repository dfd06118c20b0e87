"""LevelDBImageReader: reads encoded pictures from a store and decodes them as those in files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway.arguments import flag, number
from highway.arguments.options import completed, takes
from highway.engine.spec import Spec, array_spec
from highway.errors import ArgumentError, EmptyDatasetError, HighwayError
from highway.modules.readers.box_table import BoxTable
from highway.modules.readers.image_reader import ImageReader
from highway.modules.readers.listing.class_names import stored_classes
from highway.modules.readers.masks import Masks
from highway.modules.readers.options import PictureOptions
from highway.modules.readers.samples import SampleReader, Samples
from highway.sampling.schedules import BatchSize, Shape
from highway.store.records import Column, Records, Schema
from highway.store.sharing import SharedStore
from highway.transforms.fit import CenterFit, Fit, Letterbox
from highway.transforms.views import Views

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["LevelDBImageReader"]

# The column that `Encoded` adds.
_SIZES = Column("picture_sizes", np.dtype(np.int64), True, False, (2,))


@takes(PictureOptions)
class LevelDBImageReader(ImageReader):
    """Reads the encoded pictures of a store that `highway pack` made, or `Encoded` and `LevelDBSink`.

    Batches are those of the packed reader, with any shape and fit: ``images, labels``, with `boxes` and `masks` if the
    store has them, and their extras. With the encoding "original" they have the same bits as batches read from the
    files; boxes of turned pictures are equal up to the rounding of float32. Pictures are decoded as by
    `ImageFileReader`. The checksum of every record is verified; a damaged record is a bad sample. The key of a sample
    without a key is the number of its record.

    Parameters
    ----------
    path : path
        Folder of the store.
    batch_size : int or Schedule
        Samples in a batch; the last batch of an epoch may have fewer, unless `drop_last`.
    shape : int, (int, int) or Schedule, optional
        Height and width of the images in pixels; a number alone is a square. Not with `Views` and `Buckets`, which have
        their own.
    fit : Fit or Views, optional
        Which window of a picture becomes the image; by default ``CenterFit()``, with boxes ``Letterbox()``.
    min_visible : float
        0 to 1: a box is dropped if less than this fraction of its area is shown. A box with nothing shown is always
        dropped.
    mask_fill : int
        0 to 255: value of mask pixels that the fit leaves uncovered.
    placement : bool
        Adds the extras `placement` and `picture_sizes` (see `VOCReader`). They refer to the upright pictures that were
        packed, even if the store has smaller ones.
    classes : sequence of str, optional
        Expected class names in the order of their labels, such as those of the training set: a store with other classes
        or another order raises an ArgumentError.
    allow_incomplete : bool
        Also read a store whose writing was interrupted: the samples that were written.
    shuffle, seed, epochs, shard, drop_last, workers, queue_size, color, dtype, on_error, max_errors, exact, max_pixels
        See `PictureOptions`.

    Raises
    ------
    ArgumentError
        An argument is out of range, or the store has images as arrays, which `LevelDBSource` reads.
    StoreError, StoreLockedError, CorruptStoreError, IncompleteStoreError
        There is no store, it is being written, is damaged, or was not finished.
    EmptyDatasetError
        The store has no samples.
    MissingPackageError
        plyvel is not installed.

    Attributes
    ----------
    classes : list of str, int or None
        The `classes` of the reader that the store was written from.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        batch_size: BatchSize,
        shape: Shape | None = None,
        *,
        fit: Fit | Views | None = None,
        min_visible: float = 0.0,
        mask_fill: int = 0,
        placement: bool = False,
        classes: Sequence[str] | None = None,
        allow_incomplete: bool = False,
        **options: Unpack[PictureOptions],
    ) -> None:
        options = completed(PictureOptions, options)
        min_visible = number(self.name, "min_visible", min_visible, 0.0, 1.0)
        placement = flag(self.name, "placement", placement)
        allow_incomplete = flag(self.name, "allow_incomplete", allow_incomplete)
        self._store = SharedStore(path, self.name, allow_incomplete)
        try:
            reader = self._store.reader
            self.classes = stored_classes(self.name, self._store.path, reader.mark.classes, classes)
            samples = _Records(
                self._store, self.name, min_visible, placement, mask_fill, options["max_pixels"]
            )
            super().__init__(
                samples,
                batch_size,
                shape,
                fit=(Letterbox() if samples.boxed else CenterFit()) if fit is None else fit,
                **options,
            )
        except BaseException:
            self._store.interrupt()
            raise
        self.path = self._store.path

    def __repr__(self) -> str:
        own = f"{self.path!r}, {self.order.batch_size}, {self.shapes.plain}"
        return f"LevelDBImageReader({own}, fit={self.fit!r}{self._drawn()})"

    def contents(self) -> Iterable[bytes | Iterable[bytes]]:
        return b"LevelDBImageReader", *self._store.contents()

    def open(self) -> None:
        super().open()
        self._store.open()

    def close(self) -> None:
        self._store.close()
        super().close()

    def interrupt(self) -> None:
        super().interrupt()
        self._store.interrupt()

    def separate(self) -> None:
        super().separate()
        self._store = self._store.for_run()
        samples = copy(self.samples)
        assert isinstance(samples, _Records)
        samples.store = self._store
        self.samples = samples

    def prepare(self) -> None:
        self._store.reopen()
        super().prepare()


class _Records(Samples):
    """Samples that are the records of a store."""

    noun = "record"
    in_files = False

    def __init__(
        self,
        store: SharedStore,
        owner: str,
        min_visible: float,
        placement: bool,
        mask_fill: int,
        max_pixels: int,
    ) -> None:
        self.store = store
        self.size = len(store.reader)
        self.where = f"in {store.path!r}"
        self.min_visible, self.placement = min_visible, placement
        if not self.size:
            raise EmptyDatasetError(f"{owner}: {store.path!r} has no samples")
        schema = store.reader.schema
        columns = {column.name: column for column in schema.columns}
        images = columns.get("images")
        if images is None or not images.encoded:
            raise ArgumentError(
                f"{owner}: {store.path!r} has {schema}; expected encoded pictures, as highway pack makes them "
                "(LevelDBSource reads arrays)"
            )
        if "labels" in columns and columns["labels"].encoded:
            raise ArgumentError(f"{owner}: {store.path!r} has {schema}; expected labels that are numbers")
        boxes = columns.get("boxes")
        if boxes is not None and (
            not boxes.ragged or boxes.apart or boxes.dtype != np.float32 or boxes.shape != (4,)
        ):
            raise ArgumentError(f"{owner}: {store.path!r} has {schema}; expected boxes of float32 (rows, 4)")
        # Masks that are arrays belong to pictures of one size; encoded pictures differ in size.
        self.masked = "masks" in columns and columns["masks"].encoded
        self.boxed = boxes is not None
        self._owner, self._mask_fill, self._max_pixels = owner, mask_fill, max_pixels

    def spec(self) -> Spec:
        columns = {column.name: column for column in self.store.reader.schema.columns}
        found = (columns[name] for name in ("labels", "boxes") if name in columns)
        return {
            column.name: array_spec(column.dtype, *column.shape, ragged=column.ragged) for column in found
        }

    def begin(self) -> SampleReader:
        return _RecordPart(self, self._owner, self._mask_fill, self._max_pixels)

    def describe(self, index: int) -> str:
        return f"record {index} of {self.store.path!r}"

    def name(self, index: int) -> str:
        return str(index)


class _RecordPart(SampleReader):
    """The records of a batch."""

    def __init__(self, samples: _Records, owner: str, mask_fill: int, max_pixels: int) -> None:
        self._samples = samples
        self._schema: Schema = samples.store.reader.schema
        # By index: the records that were read together, and the place of this one among them.
        self._found: dict[int, tuple[Records, int]] = {}
        self._readings: list[Records] = []
        self._mask_files: dict[int, memoryview] = {}
        self._place = {column.name: place for place, column in enumerate(self._schema.columns)}
        self._masks = _StoredMasks(self, mask_fill, max_pixels, owner) if samples.masked else None

    def describe(self, index: int) -> str:
        """Name of a sample in errors."""
        return self._samples.describe(index)

    def mask(self, index: int) -> bytes:
        """Encoded mask of a sample."""
        return bytes(self._mask_files[index])

    def read(
        self, decoder: jpeg.BatchDecoder, indices: NDArray[np.int64], oriented: bool, turn: int
    ) -> tuple[NDArray[np.int64], dict[int, HighwayError]]:
        files: list[bytes | memoryview | None] = [None] * len(indices)
        with self._samples.store.reader as reader:
            records = reader.read(indices)
        self._readings.append(records)
        pictures = records.files(self._place["images"])
        masks = records.files(self._place["masks"]) if self._samples.masked else []
        self._mask_files.update(zip(indices[records.rows].tolist(), masks, strict=False))
        for place, row in enumerate(records.rows.tolist()):
            self._found[int(indices[row])] = records, place
            files[row] = pictures[place]
        return decoder.read_contents(files, oriented, turn), {**records.errors}

    def keys(self, indices: NDArray[np.int64]) -> list[str]:
        # The keys of records that were read together are decoded together.
        keys = {id(records): records.keys() for records in self._readings}
        found = [(index, *self._found[index]) for index in indices.tolist()]
        return [keys[id(records)][place] or str(index) for index, records, place in found]

    def labels(self, indices: NDArray[np.int64]) -> NDArray[Any] | None:
        place = self._place.get("labels")
        if place is None or self._schema.columns[place].ragged:
            return None
        return self._column(indices, place)

    def picture_sizes(self, indices: NDArray[np.int64]) -> NDArray[np.int64] | None:
        place = self._place.get("picture_sizes")
        if place is None or self._schema.columns[place] != _SIZES:
            return None
        sizes: NDArray[np.int64] = np.maximum(self._column(indices, place), 1)
        return sizes

    def objects(self, indices: NDArray[np.int64]) -> BoxTable | None:
        if not self._samples.boxed:
            return None
        # Damaged records have no boxes.
        known = np.array([index in self._found for index in indices.tolist()], np.bool_)
        counts = np.zeros(len(indices), np.int64)
        found = [self._found[index] for index in indices[known].tolist()]
        counts[known] = [records.counts()[place] for records, place in found]
        columns = {
            column.name: self._column(indices[known], place)
            for place, column in enumerate(self._schema.columns)
            if column.ragged and not column.apart
        }
        boxes = columns.pop("boxes")
        return BoxTable(counts, boxes, columns.pop("labels", None), columns, upright=True)

    def _column(self, indices: NDArray[np.int64], place: int) -> NDArray[Any]:
        """Rows of a column, sample after sample."""
        column = self._schema.columns[place]
        if not column.ragged:
            whole = {id(records): records.array(place) for records in self._readings}
            found = [
                (whole[id(records)], at) for records, at in map(self._found.__getitem__, indices.tolist())
            ]
            return np.array([rows[at] for rows, at in found], column.dtype).reshape(-1, *column.shape)
        rows = [records.view(at, place) for records, at in map(self._found.__getitem__, indices.tolist())]
        return np.concatenate([np.empty((0, *column.shape), column.dtype), *rows], dtype=column.dtype)

    @property
    def masks(self) -> Masks | None:
        return self._masks


class _StoredMasks(Masks):
    """Masks of the records of a batch, stored upright."""

    def __init__(self, part: _RecordPart, fill: int, max_pixels: int, owner: str) -> None:
        super().__init__(fill, max_pixels, owner, False, of_upright=True)
        self._part = part

    def contents(self, index: int) -> bytes:
        return self._part.mask(index)

    def describe(self, index: int) -> str:
        return f"of {self._part.describe(index)}"
