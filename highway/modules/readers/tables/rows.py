"""Rows: the rows of a table as the samples of a reader of pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway.engine.spec import Spec, array_spec
from highway.errors import DecodeError, HighwayError, ReadError, StorageError
from highway.modules.readers.box_table import BoxTable
from highway.modules.readers.remote_files import Listed
from highway.modules.readers.samples import Files, SampleReader, Samples
from highway.modules.readers.tables.arrow import names_of
from highway.modules.readers.tables.columns import (
    Bad,
    Labels,
    Place,
    Texts,
    boxes_of,
    field_of,
    labels_of,
    lists_of,
    of_one_length,
)
from highway.modules.readers.tables.opening import Data, GroupedData, WholeData
from highway.modules.readers.tables.pictures import Pictures, check_type, has_paths_only
from highway.modules.readers.tables.row_groups import RowGroups
from highway.sampling.sampler import Task
from highway.storage.files import LARGEST_FILE, read_once

if TYPE_CHECKING:
    from highway.modules.readers.masks import Masks
    from highway.storage.cache import Cache
    from highway.storage.fetching import Fetcher

__all__ = ["Rows", "Wanted"]

# A ticket before all others: of row groups that a worker waits for.
_NOW = -1

Picture = memoryview | str | None | HighwayError
"""A picture as bytes, or its path, or None if there is none; or the error of its row group."""


class Wanted(NamedTuple):
    """Which columns have what: see `TableReader`."""

    image: str
    label: str | None
    key: str | None
    fields: Mapping[str, str]
    boxes: Sequence[str]
    box_format: str
    classes: Sequence[str] | None
    folder: str
    storage_options: Mapping[str, Any] | None
    further: bool = False

    def files_in(self, column: str) -> Wanted:
        """Return the wish for nothing but the files in another column."""
        return Wanted(column, None, None, {}, [], "xyxy", None, self.folder, self.storage_options, True)


class Rows(Samples, SampleReader):
    """Samples that are the rows of a table.

    Parameters
    ----------
    owner : str
        Name of the reader, for errors.
    data : Data
    wanted : Wanted
    window_bytes, prefetch_bytes : int
        See `TableReader`.

    Attributes
    ----------
    classes : list of str or None
    origin : str
        Where the classes come from.
    cache : Cache or None
        Keeps what runs fetch.
    """

    noun = "row"
    masked = False
    masks: Masks | None = None
    cache: Cache | None = None
    min_visible = 0.0
    placement = False

    def __init__(
        self,
        owner: str,
        data: Data,
        wanted: Wanted,
        window_bytes: int,
        prefetch_bytes: int,
    ) -> None:
        self.size = data.size
        self.where = f"in {data.where}"
        self._owner, self._data, self._wanted = owner, data, wanted
        self._bad: Bad = {}
        self._unlabeled: list[int] = []
        kind = data.type_of(owner, "image=", wanted.image)
        check_type(owner, data.where, wanted.image, kind)
        self._folder = os.path.join(os.fsencode(wanted.folder), b"")
        paths_only = has_paths_only(kind)
        columns = [
            (f"{name}=", column) for name, column in (("label", wanted.label), ("key", wanted.key)) if column
        ]
        columns += [("boxes=", name) for name in wanted.boxes]
        columns += [("fields=", name) for name in wanted.fields.values()]
        columns += [("image=", wanted.image)] if paths_only else []
        found = iter(data.read(owner, columns))
        labels = None if wanted.label is None else self._labels(next(found))
        self._keys = None if wanted.key is None else _texts(next(found))
        boxes = None
        if wanted.boxes:
            place = Place(owner, data.where, ", ".join(wanted.boxes))
            boxes = boxes_of(place, [next(found) for _ in wanted.boxes], wanted.box_format, self._bad)
        self.boxed = boxes is not None
        self._fields: dict[str, NDArray[Any] | Texts] = {}
        lists: dict[str, tuple[NDArray[np.int64], NDArray[Any]]] = {}
        for name, column in wanted.fields.items():
            field = field_of(Place(owner, data.where, column), next(found), self._bad)
            if isinstance(field, tuple):
                lists[name] = field
            else:
                self._fields[name] = field
        self._files = self._listed(_texts(next(found))) if paths_only else None
        self.ranges = None if self._files is None else self._files.ranges
        self._sort_lists(lists, None if boxes is None else boxes[0])
        self._fields = {name: self._fields[name] for name in wanted.fields if name in self._fields}
        self._labels_of = None if labels is None or labels.counts is not None else labels.values
        self._objects = None if boxes is None else self._boxes(*boxes, labels, lists)
        self._lists = {} if self.boxed else lists
        self._window_bytes, self._prefetch_bytes = window_bytes, prefetch_bytes
        self._fetcher: Fetcher | None = None
        self._workers: list[None] = []
        self._groups: RowGroups[Pictures] | None = None
        self._pictures: Pictures | None = None
        self._with: list[Rows] = []
        if paths_only:
            pass
        elif isinstance(data, GroupedData):
            self._nbytes = data.files.nbytes(wanted.image)
            self._ranges = None if data.files.store is None else data.files.ranges(wanted.image)
            self._begin_run(data)
        elif isinstance(data, WholeData):
            self._pictures = Pictures(_chunks(owner, data, wanted.image))

    def _listed(self, paths: Any) -> Files:
        """The pictures whose paths are in a column."""
        names = []
        for row, path in enumerate(paths.to_pylist()):
            if not path or "\0" in path:
                found = "no path" if not path else repr(path)
                self._bad.setdefault(row, f"has no picture: {found} in column {self._wanted.image!r}")
                path = ""
            names.append(os.fsencode(path))
        return Listed(self._owner, self._folder, self._wanted.storage_options).files(
            names, labels=None, objects=None, masks=None, min_visible=0.0, placement=False
        )

    def _labels(self, array: Any) -> Labels:
        data, wanted = self._data, self._wanted
        assert wanted.label is not None
        place = Place(self._owner, data.where, wanted.label)
        known = names_of(data.features, wanted.label)
        without: Bad = {}
        found = labels_of(place, array, wanted.classes, known, bool(wanted.boxes), without)
        self._unlabeled = sorted(without)
        for row, reason in without.items():
            self._bad.setdefault(row, reason)
        self.classes = found.classes
        self.origin = (
            "given"
            if wanted.classes is not None
            else "stated by the table"
            if found.classes is not None and found.classes == known
            else "found in the labels"
        )
        return found

    classes: list[str] | None = None
    origin = ""

    def _sort_lists(
        self, lists: dict[str, tuple[NDArray[np.int64], NDArray[Any]]], counts: NDArray[np.int64] | None
    ) -> None:
        """Move lists of one length from `lists` to the fields; those that stay must have the same lengths."""
        good = np.ones(self.size, np.bool_)
        good[list(self._bad)] = False
        for name in list(lists):
            own, rows = lists[name]
            if counts is not None and (own == counts)[good].all():
                continue
            whole = of_one_length(own, rows)
            if whole is not None:
                self._fields[name] = whole
                del lists[name]
                continue
            if counts is None:
                counts = own
                continue
            row = int(np.flatnonzero((own != counts) & good)[0])
            place = Place(self._owner, self._data.where, self._wanted.fields[name])
            raise place.error(
                f"has {own[row]} values in row {row}, and {counts[row]} others are there; expected as many as "
                f"{'boxes' if self._wanted.boxes else 'in the other lists'}, or lists of one length"
            )

    def _boxes(
        self,
        counts: NDArray[np.int64],
        boxes: NDArray[np.float32],
        labels: Labels | None,
        lists: Mapping[str, tuple[NDArray[np.int64], NDArray[Any]]],
    ) -> BoxTable:
        """The boxes with what belongs to them, without those of bad rows."""
        of_boxes = None
        if labels is not None:
            assert labels.counts is not None
            for row in np.flatnonzero(labels.counts != counts).tolist():
                self._bad.setdefault(
                    row, f"has {labels.counts[row]} labels and {counts[row]} boxes; expected as many"
                )
        good = np.ones(self.size, np.bool_)
        good[list(self._bad)] = False
        kept = np.where(good, counts, 0)
        rows = np.flatnonzero(good)
        if labels is not None and labels.counts is not None:
            of_boxes = lists_of(labels.counts, labels.values, rows)
        extras = {name: lists_of(own, values, rows) for name, (own, values) in lists.items()}
        return BoxTable(kept, lists_of(counts, boxes, rows), of_boxes, extras)

    # Row groups

    def _begin_run(self, data: GroupedData) -> None:
        """Begin with nothing fetched and nothing decoded."""
        files, name = data.files, self._wanted.image
        fetcher = None
        self._workers = []
        if self._ranges is not None:
            # Late: only URLs need it.
            from highway.storage.fetching import Fetcher

            fetcher = Fetcher(self._owner, self._ranges, max_bytes=self._prefetch_bytes, cache=self.cache)
        self._fetcher = fetcher

        def decode(group: int) -> Pictures:
            if fetcher is None:
                return files.pictures(group, name)
            (contents,), errors = fetcher.take(_NOW, np.array([group]))
            if errors:
                raise errors[0]
            assert contents is not None
            return files.pictures(group, name, contents)

        self._groups = RowGroups(
            self._owner,
            self._nbytes,
            files.groups,
            decode,
            None if fetcher is None else fetcher.announce,
            2 * max(self._window_bytes, int(self._nbytes.max(initial=0))),
            None if fetcher is None else fetcher.release,
        )

    def together_with(self, others: Sequence[Rows]) -> None:
        """Fit windows to the row groups of further columns of files too, and share what is fetched ahead with them."""
        self._with = [*others]
        grouped = [(rows, int(rows._nbytes.sum())) for rows in (self, *others) if rows._groups is not None]
        together, total = self._prefetch_bytes, sum(nbytes for _, nbytes in grouped)
        for rows, nbytes in grouped:
            rows._prefetch_bytes = max(1, together * nbytes // max(total, 1))

    def windows(self) -> tuple[NDArray[np.int64], int] | None:
        """Rows of each row group, and row groups in a window; None if the whole table can be shuffled."""
        grouped = [rows._nbytes for rows in (self, *self._with) if rows._groups is not None]
        if not isinstance(self._data, GroupedData) or not grouped:
            return None
        largest = max(int(nbytes.max()) for nbytes in grouped)
        together = max(1, self._window_bytes // max(largest, 1))
        return None if together >= len(grouped[0]) else (self._data.files.sizes, together)

    def for_run(self) -> Rows:
        """Return the same rows with nothing decoded."""
        other = copy(self)
        if isinstance(self._data, GroupedData) and self._groups is not None:
            other._begin_run(self._data)
        return other

    @property
    def decodes(self) -> int:
        """How often a row group was decoded."""
        return 0 if self._groups is None else self._groups.decodes

    def announced(self, tasks: Iterator[Task]) -> Iterator[Task]:
        """Yield tasks, and read ahead what they need."""
        return tasks if self._groups is None else self._groups.announced(tasks)

    def begin_task(self, task: Task) -> None:
        """Decode a part of what later tasks need."""
        if self._groups is not None:
            self._groups.begin(task)

    def finish_task(self, task: Task) -> None:
        """Free what only this task needed."""
        if self._groups is not None:
            self._groups.finish(task)

    def open(self) -> None:
        """Count a worker; appending and popping are atomic."""
        self._workers.append(None)

    def close(self) -> None:
        """Uncount a worker; the last one ends the thread that fetches."""
        self._workers.pop()
        if not self._workers and self._fetcher is not None:
            self._fetcher.close()

    def interrupt(self) -> None:
        """Wake the workers that wait; takes no lock."""
        if self._groups is not None:
            self._groups.interrupt()
        if self._fetcher is not None:
            self._fetcher.interrupt()

    def fetched(self) -> dict[str, int] | None:
        """Figures of the requests; None if nothing is fetched."""
        return None if self._fetcher is None else self._fetcher.measures()

    # All samples

    @property
    def at_hand(self) -> bool:
        return self.ranges is None and self._groups is None

    def starts(self, indices: NDArray[np.int64], nbytes: int) -> list[bytes | None]:
        return super().starts(indices, nbytes) if self._files is None else self._files.starts(indices, nbytes)

    def begin(self) -> Rows:
        return self

    def needed(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        assert self._files is not None
        return self._files.needed(indices)

    def fetching(self, fetcher: Fetcher) -> Rows:
        assert self._files is not None
        run = copy(self)
        files = self._files.fetching(fetcher)
        assert isinstance(files, Files)
        run._files = files
        return run

    def contents(self) -> Iterator[bytes | Iterable[bytes]]:
        """Yield what identifies the data."""
        yield [str(self.size).encode(), self._wanted.image.encode(), str(self._wanted.label).encode()]
        if self._labels_of is not None:
            yield self._labels_of.tobytes()
        if self._objects is not None:
            yield self._objects.counts.tobytes()
            yield self._objects.boxes.tobytes()
            yield b"" if self._objects.labels is None else self._objects.labels.tobytes()
        keys = self.known_keys()
        if self._keys is not None or self._files is not None:
            yield [key.encode("utf-8", "surrogateescape") for key in keys]

    def known_labels(self) -> NDArray[Any] | None:
        return self._labels_of

    def unlabeled(self) -> Sequence[int]:
        """Samples without a label, by their numbers; `known_labels` has any value for them."""
        return self._unlabeled

    def all_labels(self) -> NDArray[Any] | None:
        """Labels of all rows, or of all boxes; bad rows have none."""
        if self._objects is not None:
            return self._objects.labels
        if self._labels_of is None or not self._bad:
            return self._labels_of
        return np.delete(self._labels_of, sorted(self._bad), axis=0)

    def known_keys(self) -> Iterable[str]:
        if self._keys is not None:
            return (str(row) if text is None else text for row, text in enumerate(self._keys.to_pylist()))
        if self._files is not None:
            return self._files.known_keys()
        return map(str, range(self.size))

    def spec(self) -> Spec:
        spec = {}
        labels = self._labels_of if self._objects is None else self._objects.labels
        if labels is not None:
            spec["labels"] = array_spec(labels.dtype, *labels.shape[1:], ragged=self.boxed)
        if self.boxed:
            spec["boxes"] = array_spec(np.float32, 4, ragged=True)
        return spec

    def columns_spec(self) -> Spec:
        return {
            name: array_spec(field.dtype, *(() if isinstance(field, Texts) else field.shape[1:]))
            for name, field in self._fields.items()
        }

    def describe(self, index: int) -> str:
        row = self._data.describe(index)
        if self._wanted.further:
            row = f"column {self._wanted.image!r} of {row}"
        return row if self._files is None else f"{self._files.describe(index)} ({row})"

    def name(self, index: int) -> str:
        (key,) = self.keys(np.array([index], np.int64))
        return key

    # Samples of a batch

    def read(
        self, decoder: jpeg.BatchDecoder, indices: NDArray[np.int64], oriented: bool, turn: int
    ) -> tuple[NDArray[np.int64], dict[int, HighwayError]]:
        wrong: dict[int, HighwayError] = {}
        listed = indices.tolist()
        if self._bad:
            for row, index in enumerate(listed):
                if index in self._bad:
                    wrong[row] = self._error(index, self._bad[index])
        if self._files is not None:
            heads, errors = self._files.read(decoder, indices, oriented, turn)
            return heads, errors | wrong
        files: list[bytes | memoryview | None] = []
        away = False
        for row, found in enumerate(self._pictures_of(indices)):
            contents: bytes | memoryview | None = None
            if row in wrong:
                pass
            elif isinstance(found, HighwayError):
                wrong[row] = found
            elif isinstance(found, str):
                try:
                    contents = self._file(found, away)
                except (ReadError, StorageError) as error:
                    away = isinstance(error, StorageError)
                    wrong[row] = type(error)(f"{self._owner}: {found} ({self.describe(listed[row])}) {error}")
            elif found is None:
                wrong[row] = self._no_picture(listed[row])
            else:
                contents = found
            files.append(contents)
        return decoder.read_contents(files, oriented, turn), wrong

    def _file(self, path: str, away: bool) -> bytes:
        """Contents of a picture whose path is in a struct; nothing is read if the storage is `away`."""
        if away:
            # Every attempt on a dead server may take a minute to fail.
            raise StorageError("was not tried after another one failed")
        if "\0" in path:
            raise ReadError("cannot be read: a path has no zero bytes")
        return read_once(os.path.join(self._folder, os.fsencode(path)), LARGEST_FILE)

    def _pictures_of(self, indices: NDArray[np.int64]) -> list[Picture]:
        data = self._data
        if self._groups is not None and isinstance(data, GroupedData):
            groups = data.files.groups(indices)
            decoded = self._groups.take(indices)
            rows = data.files.within(indices, groups).tolist()
            found: list[Picture] = []
            for group, row in zip(groups.tolist(), rows, strict=True):
                one = decoded[group]
                found.append(one if isinstance(one, HighwayError) else one.at(row))
            return found
        assert self._pictures is not None and isinstance(data, WholeData)
        chosen = indices if data.rows is None else data.rows[indices]
        return [self._pictures.at(row) for row in chosen.tolist()]

    def contents_of(self, index: int) -> bytes:
        """Return the contents of the file of one picture.

        Raises
        ------
        ReadError, StorageError, DecodeError
            The text continues `describe`.
        """
        if self._files is not None:
            if index in self._bad:
                raise DecodeError(self._bad[index])
            (found,), wrong = self._files.contents(np.array([index], np.int64), _NOW, self._owner)
            if found is not None:
                return bytes(found)
            name = f"{self._files.describe(index)} "
            raise type(wrong[0])(str(wrong[0]).partition(name)[2] or str(wrong[0]))
        (one,) = self._pictures_of(np.array([index], np.int64))
        if isinstance(one, HighwayError):
            raise type(one)(f"cannot be read: {str(one).removeprefix(f'{self._owner}: ')}") from one
        if one is None:
            raise DecodeError(f"is null in column {self._wanted.image!r}")
        return self._file(one, False) if isinstance(one, str) else bytes(one)

    def masked_by(self, masks: Masks) -> Rows:
        """Return the same rows with masks."""
        other = copy(self)
        other.masked, other.masks = True, masks
        return other

    def _error(self, index: int, text: str) -> DecodeError:
        return DecodeError(f"{self._owner}: {self._data.describe(index)} {text}")

    def _no_picture(self, index: int) -> DecodeError:
        return self._error(index, f"has no picture: null in column {self._wanted.image!r}")

    def keys(self, indices: NDArray[np.int64]) -> list[str]:
        listed = indices.tolist()
        if self._keys is not None:
            found = self._keys.take(pa.array(indices)).to_pylist()
            return [str(index) if text is None else text for index, text in zip(listed, found, strict=True)]
        return list(map(str, listed)) if self._files is None else self._files.keys(indices)

    def labels(self, indices: NDArray[np.int64]) -> NDArray[Any] | None:
        return None if self._labels_of is None else self._labels_of[indices]

    def objects(self, indices: NDArray[np.int64]) -> BoxTable | None:
        return None if self._objects is None else self._objects.of(indices)

    def columns(self, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        return {
            name: field.at(indices) if isinstance(field, Texts) else field[indices]
            for name, field in self._fields.items()
        }

    def lists(self, indices: NDArray[np.int64]) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]] | None:
        if not self._lists:
            return None
        found = {name: lists_of(counts, rows, indices) for name, (counts, rows) in self._lists.items()}
        counts, _ = next(iter(self._lists.values()))
        return found, np.concatenate(([0], np.cumsum(counts[indices])))


def _texts(array: Any) -> Any:
    """A column as texts."""
    kind = array.type
    if pa.types.is_struct(kind):
        array = array.flatten()[kind.get_field_index("path")]
    return array.cast(pa.large_string())


def _chunks(owner: str, data: WholeData, name: str) -> Any:
    """A column of a table without joining its chunks."""
    if name in data.table.column_names:
        found = data.table.column(name)
        try:
            found.validate()
        except pa.ArrowInvalid as error:
            raise DecodeError(f"{owner}: column {name!r} of {data.where} is damaged: {error}") from error
        return found
    (array,) = data.read(owner, [("image=", name)])
    return pa.chunked_array([array])
