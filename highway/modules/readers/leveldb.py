"""LevelDBSource: reads the samples of a store in any order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.arguments import flag
from highway.arguments.options import completed, takes
from highway.batch import Batch
from highway.engine.spec import Spec, array_spec
from highway.errors import (
    ArgumentError,
    EmptyDatasetError,
)
from highway.modules.readers.bad_samples import BadSamples
from highway.modules.readers.fused_transforms import FusedWindows
from highway.modules.readers.listing.class_names import stored_classes
from highway.modules.readers.options import OnError, SourceOptions
from highway.modules.readers.ordered import OrderedSource
from highway.sampling.identity import numbers_of
from highway.sampling.sampler import Task
from highway.sampling.schedules import BatchSize
from highway.store.reading import StoreReader
from highway.store.records import BatchBuffers, Records
from highway.store.sharing import SharedStore
from highway.transforms.transform import Transform

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["LevelDBSource"]


class _Found(NamedTuple):
    """Records that were read without error.

    Attributes
    ----------
    rows : int64 (K,)
        Their rows in the batch.
    records : Records of K
    """

    rows: NDArray[np.int64]
    records: Records


@takes(SourceOptions)
class LevelDBSource(OrderedSource):
    """Reads the samples of a store that `LevelDBSink` or the first Highway wrote, in any order.

    Batches have the same fields, extras, keys and boxes as the batches that were packed; `indices` are the numbers of
    the samples in the store, and transforms draw the same random numbers as after the packed reader. The checksum of
    every record is verified. Any number of sources, in any number of processes, may read a store at the same time; a
    store that is being read cannot be written. Reading needs no write permission.

    Parameters
    ----------
    path : path
        Folder of the store.
    batch_size : int or Schedule
        Samples in a batch; the last batch of an epoch may have fewer, unless `drop_last`.
    on_error : {"raise", "skip", "replace"}
        Policy for a damaged record: raise, skip it, or replace it by a random other one. If the storage fails, reading
        is retried for up to 30 s; after that the source raises StorageError under any policy.
    max_errors : int or float, optional
        With "skip" and "replace": most damaged records, as a count or as a fraction (0.0 to 1.0) of the store.
    fields : sequence of str, optional
        Fields and extras to read; all by default.
    classes : sequence of str, optional
        Expected class names in the order of their labels, such as those of the training set: a store with other classes
        or another order raises an ArgumentError.
    allow_incomplete : bool
        Also read a store whose writing was interrupted: the samples that were written.
    shuffle, seed, epochs, shard, drop_last, workers, queue_size
        See `SourceOptions`.

    Raises
    ------
    ArgumentError
        An argument is out of range, or the store has no such field.
    StoreError, StoreLockedError, CorruptStoreError, IncompleteStoreError
        There is no store, it is being written, is damaged, or was not finished.
    EmptyDatasetError
        The store has no samples. With a batch: no record could be read.
    CorruptStoreError, TooManyErrors
        With a batch: a record is damaged, or too many are.
    StorageError
        The storage failed for more than 30 s.
    MissingPackageError
        plyvel is not installed.

    Attributes
    ----------
    classes : list of str, int or None
        The `classes` of the reader that the store was written from.
    """

    hands_over = True
    _bad_samples: BadSamples

    def __init__(
        self,
        path: str | os.PathLike[str],
        batch_size: BatchSize,
        *,
        on_error: OnError = "raise",
        max_errors: int | float | None = None,
        classes: Sequence[str] | None = None,
        fields: Sequence[str] | None = None,
        allow_incomplete: bool = False,
        **options: Unpack[SourceOptions],
    ) -> None:
        options = completed(SourceOptions, options)
        super().__init__(workers=options["workers"], queue_size=options["queue_size"])
        self.on_error = on_error
        self.max_errors = max_errors
        self._shared = SharedStore(path, self.name, flag(self.name, "allow_incomplete", allow_incomplete))
        try:
            if not len(self._store):
                raise EmptyDatasetError(f"{self.name}: {self._store.path!r} has no samples")
            self.classes = stored_classes(self.name, self._store.path, self._store.mark.classes, classes)
            self._fields = self._chosen(fields)
            self.order = self._ordered(len(self._store), batch_size, options)
            self._bad_samples = BadSamples(
                self.name, self.order, on_error, max_errors, "record", f"in {self._store.path!r}"
            )
        except BaseException:
            self._shared.interrupt()
            raise
        self.path = self._store.path
        self._column, self.image_shape = self._images()
        self._windows = FusedWindows()

    def __repr__(self) -> str:
        return f"LevelDBSource({self.path!r}, {self.order.batch_size}{self._drawn()})"

    @property
    def _store(self) -> StoreReader:
        return self._shared.reader

    @property
    def size(self) -> int:
        """Number of samples in the store."""
        return self.order.data_size

    @property
    def errors(self) -> list[tuple[str, str]]:
        """(number, reason) of every damaged record found so far, once each."""
        return [(str(index), str(error)) for index, error in self._bad_by_index().items()]

    def contents(self) -> Iterator[bytes]:
        names = sorted(self._fields) if self._fields is not None else []
        yield b"LevelDBSource"
        yield from self._shared.contents()
        yield repr(names).encode("utf-8", "backslashreplace")

    def out_spec(self, before: Spec | None) -> Spec:
        rows = {name: group[0] for group in self._store.schema.groups for name in group}
        return {
            column.name: array_spec(object)
            if column.encoded
            else array_spec(column.dtype, *column.shape, ragged=column.ragged, rows=rows.get(column.name, ""))
            for column in self._store.schema.columns
            if not column.extra and (self._fields is None or column.name in self._fields)
        }

    def separate(self) -> None:
        super().separate()
        self._shared = self._shared.for_run()

    def prepare(self) -> None:
        self._shared.reopen()

    def open(self) -> None:
        self._shared.open()

    def close(self) -> None:
        self._shared.close()

    def interrupt(self) -> None:
        self._shared.interrupt()

    def load(self, task: Task) -> Batch | None:
        """Read one batch; None if all of its samples were skipped."""
        indices = task.indices.copy()
        if not len(indices):
            self._bad_samples.count(indices)
            return None
        with self._store:
            first, bad = self._read(np.arange(len(indices)), indices)
            found = [first]
            if len(bad) and self.on_error == "replace":
                found += self._replacements(bad, task, indices)
                self.count_replaced(len(bad))
            elif len(bad):
                indices = np.delete(indices, bad)
                found = [first._replace(rows=np.arange(len(indices)))]
            self._bad_samples.count(indices)
            return self._batch(task, indices, found) if len(indices) else None

    def _read(self, rows: NDArray[np.int64], indices: NDArray[np.int64]) -> tuple[_Found, NDArray[np.int64]]:
        """Read records for these rows of a batch; also returns the rows whose records are damaged."""
        numbers = numbers_of(indices)
        records = self._store.read(numbers)
        if records.errors:
            self._bad_samples.note({int(numbers[row]): error for row, error in records.errors.items()})
        return _Found(rows[records.rows], records), rows[[*records.errors]]

    def _replacements(
        self, bad: NDArray[np.int64], task: Task, indices: NDArray[np.int64]
    ) -> Iterator[_Found]:
        """Read other records for the bad rows; writes their numbers to `indices`."""
        first, places = bad, np.arange(len(bad))
        for tried in self._bad_samples.replacements(task.epoch, indices[first], self.skipped_samples(task)):
            indices[bad] = tried[places]
            found, bad = self._read(bad, indices[bad])
            yield found
            if not len(bad):
                return
            places = np.flatnonzero(np.isin(first, bad))
        self._bad_samples.refuse_all(next(iter(self._bad_samples.errors().values())))

    def _batch(self, task: Task, indices: NDArray[np.int64], found: Sequence[_Found]) -> Batch:
        """Make a batch from these records; it is as large as they are, so their size bounds its memory."""
        schema = self._store.schema
        names = self._fields or frozenset(column.name for column in schema.columns)
        windows, apart = self._windows, {}
        if windows.count:
            assert self.image_shape is not None
            names -= {"images"}
            apart["images"] = windows.room(len(indices), self.image_shape)
        buffers = BatchBuffers(schema, len(indices), names)
        for rows, records in found:
            buffers.put(rows, records)
            if windows.count:
                assert self.image_shape is not None
                view = windows.view(task.epoch, indices[rows], schema.applied, self.image_shape)
                windows.put(apart["images"], rows, view, records.spans, records.byte_offsets(self._column))
        batch = buffers.batch(apart, epoch=task.epoch, seq=task.seq, indices=indices)
        return batch.replace(applied=batch.applied + windows.count) if windows.count else batch

    def _images(self) -> tuple[int, tuple[int, int, int] | None]:
        """Column of the images and their shape; -1 and None if the store has no uint8 images (H, W, C)."""
        for number, column in enumerate(self._store.schema.columns):
            shape = column.shape
            wanted = column.name == "images" and (self._fields is None or column.name in self._fields)
            if (
                wanted
                and column.dtype == np.uint8
                and len(shape) == 3
                and not (column.ragged or column.encoded)
            ):
                return number, (shape[0], shape[1], shape[2])
        return -1, None

    def _chosen(self, fields: Sequence[str] | None) -> frozenset[str] | None:
        columns = self._store.schema.columns
        if fields is None:
            encoded = [column.name for column in columns if column.encoded]
            if encoded:
                raise ArgumentError(
                    f"{self.name}: in {self._store.path!r} {' and '.join(encoded)} are encoded; "
                    "LevelDBImageReader(path, batch_size, shape) decodes them (fields=[...] reads them as bytes)"
                )
            return None
        known = [column.name for column in columns]
        if isinstance(fields, str) or not fields or not {*fields} <= {*known}:
            raise ArgumentError(
                f"{self.name}: fields is {fields!r}; expected some of {', '.join(map(repr, known))}"
            )
        return frozenset(fields)

    def fuse(self, steps: Sequence[Transform | None], seed: int) -> int:
        """Fuse the first flips and crops of the Augmentations after this source, and a Normalize after those.

        Returns
        -------
        int
            Number of fused steps.
        """
        columns = self._store.schema.columns
        rows = {
            column.name: column.shape for column in columns if column.name in (self._fields or {column.name})
        }
        self._windows = FusedWindows.of(steps, seed, rows, self.image_shape)
        return self._windows.count
