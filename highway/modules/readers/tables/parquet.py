"""Files of tables: Parquet, whose row groups are decoded one at a time, and Arrow files, which are memory-mapped."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway.errors import (
    ArgumentError,
    DecodeError,
    EmptyDatasetError,
    HighwayError,
    ReadError,
    StorageError,
)
from highway.modules.readers.tables.arrow import paths_of
from highway.modules.readers.tables.endings import ENDINGS
from highway.modules.readers.tables.pictures import Pictures
from highway.storage.files import check_same, first_bytes
from highway.storage.objects import Object
from highway.storage.outages import ask
from highway.storage.ranges import Ranges
from highway.storage.shard_names import shard_paths
from highway.storage.urls import is_url, located

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from highway.storage.object_store import ObjectStore

__all__ = ["ParquetFiles", "files_of", "is_parquet", "mapped"]

Answer = TypeVar("Answer")
Item = TypeVar("Item")

# Objects that are asked for at a time, before the pipeline starts.
_TOGETHER = 32

_ARROW = b"ARROW1"


def files_of(owner: str, paths: Any, options: Mapping[str, Any] | None) -> list[str]:
    """Return the files that paths and URLs name: see `shard_paths`; of a local folder, the tables in it.

    Raises
    ------
    ArgumentError, EmptyDatasetError, ReadError, StorageError
        See `shard_paths`.
    """
    given = paths if isinstance(paths, Sequence) and not isinstance(paths, (str, bytes)) else [paths]
    found: list[Any] = []
    for number, path in enumerate(given):
        where = located(owner, f"table[{number}]" if given is paths else "table", path)
        if is_url(where) or not os.path.isdir(where):
            found.append(where)
            continue
        inside = sorted(name for name in os.listdir(where) if name.endswith(ENDINGS))
        inside = [os.path.join(where, name) for name in inside if not name.startswith((".", "_"))]
        if not inside:
            raise EmptyDatasetError(f"{owner}: {where!r} has no files of tables ({', '.join(ENDINGS)})")
        found += inside
    return shard_paths(found, owner, "table", options)


def is_parquet(owner: str, files: Sequence[str]) -> bool:
    """Return whether files are Parquet files, rather than Arrow files; those at URLs are.

    Raises
    ------
    ArgumentError
        There are both.
    """
    if is_url(files[0]):
        return True
    begins = [first_bytes(os.fsencode(file), 6) for file in files]
    arrow = [begin[:6] == _ARROW or begin[:4] == b"\xff\xff\xff\xff" for begin in begins]
    if any(arrow) and not all(arrow):
        raise ArgumentError(
            f"{owner}: {files[arrow.index(True)]!r} is an Arrow file, and {files[arrow.index(False)]!r} is none; "
            "expected files of one format"
        )
    return not arrow[0]


def mapped(owner: str, files: Sequence[str]) -> Any:
    """Return the table of memory-mapped Arrow files.

    Raises
    ------
    ArgumentError
        The files have different columns.
    ReadError, DecodeError, StorageError
    """
    tables = []
    for file in files:
        try:
            tables.append(ask(owner, file, lambda file=file: _mapped(file)))  # type: ignore[misc]
        except HighwayError:
            raise
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            raise error_of(owner, repr(file), error) from error
    _check_schemas(owner, files, [table.schema for table in tables])
    return pa.concat_tables(tables)


def _mapped(file: str) -> Any:
    source = pa.memory_map(file)
    if first_bytes(os.fsencode(file), 6) == _ARROW:
        return pa.ipc.open_file(source).read_all()
    return pa.ipc.open_stream(source).read_all()


def error_of(owner: str, where: str, error: Exception) -> HighwayError:
    """Return the error for a failure of Arrow to read a file."""
    text = " ".join(str(error).split())
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        return DecodeError(
            f"{owner}: {where} is damaged, or no file of a table: {text} (ListReader reads CSV and JSONL)"
        )
    if jpeg.failure(number) == jpeg.STORAGE:
        return StorageError(f"{owner}: {where} cannot be read: {os.strerror(number)}")
    return ReadError(f"{owner}: {where} cannot be read: {os.strerror(number)}")


def _check_schemas(owner: str, files: Sequence[str], schemas: Sequence[Any]) -> None:
    for file, schema in zip(files, schemas, strict=True):
        if not schema.equals(schemas[0]):
            raise ArgumentError(
                f"{owner}: {file!r} has the columns {_shown(schema)}, {files[0]!r} {_shown(schemas[0])}; expected the "
                "same, in the same order"
            )


def _shown(schema: Any) -> str:
    shown = [f"{field.name} ({field.type})" for field in schema]
    return ", ".join(shown[:20]) + (", ..." if len(shown) > 20 else "")


class _File(NamedTuple):
    """A Parquet file; size and time of its last change show whether a local one is still the same.

    `leaves` are the paths of the columns without fields, such as "image.bytes".
    """

    path: str
    metadata: Any
    leaves: list[str]
    size: int
    changed: int

    def chunks(self, group: int, name: str) -> list[Any]:
        """Return the metadata of a column, or of all of its fields, in a row group."""
        part = self.metadata.row_group(group)
        places = [k for k, leaf in enumerate(self.leaves) if leaf == name or leaf.startswith(f"{name}.")]
        return [part.column(place) for place in places]


class _ObjectFile(io.RawIOBase):
    """An object of a store as a file."""

    def __init__(self, store: ObjectStore, found: Object) -> None:
        super().__init__()
        self._store, self._object = store, found
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._object.size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._object.size if size < 0 else min(self._at + size, self._object.size)
        contents = self.range(self._at, stop) if stop > self._at else b""
        self._at += len(contents)
        return contents

    def range(self, start: int, stop: int) -> bytes:
        """Return bytes [start, stop)."""
        return bytes(self._store.read(self._object, start, stop))


class _FetchedFile(_ObjectFile):
    """A part of an object, which was fetched, as a file of the size of the object."""

    def __init__(self, store: ObjectStore, found: Object, start: int, contents: Buffer) -> None:
        super().__init__(store, found)
        self._start, self._contents = start, memoryview(contents).cast("B")

    def range(self, start: int, stop: int) -> bytes:
        first = start - self._start
        if first < 0 or stop - self._start > len(self._contents):
            raise OSError(f"bytes {start} to {stop} of {self._object.name} do not belong to the row group")
        return bytes(self._contents[first : stop - self._start])


class ParquetFiles:
    """Parquet files, and their row groups, which are numbered through all files.

    Parameters
    ----------
    owner : str
        Name of the reader, for errors.
    files : sequence of str
        Paths and URLs.
    options : mapping or None
        `storage_options`.

    Attributes
    ----------
    store : ObjectStore or None
        Reads the files if there are URLs among them.
    schema : pyarrow.Schema
    sizes : int64 (G,)
        Number of rows of each row group.

    Raises
    ------
    ArgumentError
        The files have different columns.
    DecodeError, ReadError, StorageError
        A file is damaged, or cannot be read.
    """

    def __init__(self, owner: str, files: Sequence[str], options: Mapping[str, Any] | None) -> None:
        self._owner = owner
        self.store: ObjectStore | None = None
        if any(map(is_url, files)):
            # Late: only URLs need it.
            from highway.storage.many_stores import ManyStores

            stores = ManyStores(owner, options)
            stores.open(files)
            self.store = stores
        self._objects = [] if self.store is None else self._each(files, self.store.head)
        # First bytes of the columns of pictures, by name.
        self._starts: dict[str, NDArray[np.int64]] = {}
        opened = self._each(range(len(files)), lambda number: self._opened(number, files[number]))
        self._files = [file for file, _ in opened]
        _check_schemas(owner, files, [schema for _, schema in opened])
        self.schema = opened[0][1]
        # Of each row group: its file, and its number there.
        self._places = [
            (number, group)
            for number, file in enumerate(self._files)
            for group in range(file.metadata.num_row_groups)
        ]
        self.sizes = np.array(
            [self._files[number].metadata.row_group(group).num_rows for number, group in self._places],
            np.int64,
        )
        self._first = np.cumsum(self.sizes) - self.sizes
        before = np.cumsum([0, *(file.metadata.num_rows for file in self._files)])
        self._before: NDArray[np.int64] = before.astype(np.int64)

    def _each(self, items: Sequence[Item], call: Callable[[Item], Answer]) -> list[Answer]:
        """Call a function with each item, several at a time if it makes requests of a store; raises its first error."""
        if self.store is None:
            return [call(item) for item in items]
        pool = ThreadPoolExecutor(_TOGETHER, "highway-parquet")
        try:
            return list(pool.map(call, items))
        finally:
            pool.shutdown(cancel_futures=True)

    def nbytes(self, name: str) -> NDArray[np.int64]:
        """Return the bytes of a column in each row group, before compression: int64 (G,)."""
        found = [
            sum(one.total_uncompressed_size for one in self._files[number].chunks(group, name))
            for number, group in self._places
        ]
        return np.array(found, np.int64)

    def ranges(self, name: str) -> Ranges:
        """Return where a column lies, in the object of each row group."""
        assert self.store is not None
        bounds = []
        for number, group in self._places:
            parts = [
                (min(one.data_page_offset, one.dictionary_page_offset or one.data_page_offset), one)
                for one in self._files[number].chunks(group, name)
            ]
            bounds.append(
                (
                    min(start for start, _ in parts),
                    max(start + one.total_compressed_size for start, one in parts),
                )
            )
        which = np.array([number for number, _ in self._places], np.int32)
        start, stop = np.array(bounds, np.int64).reshape(-1, 2).T
        return Ranges(self.store, self._objects, which, start.copy(), stop.copy())

    def place(self, index: int) -> str:
        """Return the name of a row in errors."""
        number = int(np.searchsorted(self._before, index, "right")) - 1
        return f"row {index - int(self._before[number])} of {self._files[number].path!r}"

    def groups(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row group of each row."""
        return np.searchsorted(self._first, indices, "right") - 1

    def within(self, indices: NDArray[np.int64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of rows within their row groups."""
        return indices - self._first[groups]

    def columns(self, names: Sequence[str]) -> Any:
        """Read columns of all files; "a.b" reads the field b of the structs in a.

        Raises
        ------
        DecodeError, ReadError, StorageError
        """

        def one(number: int) -> Any:
            path = self._files[number].path
            with self._named(path):
                return ask(self._owner, path, lambda: self._columns(number, names))

        return pa.concat_tables(self._each(range(len(self._files)), one))

    def pictures(self, group: int, name: str, contents: Buffer | None = None) -> Pictures:
        """Decode the column of pictures of a row group.

        Parameters
        ----------
        group : int
        name : str
        contents : buffer, optional
            The bytes of `ranges`, if the files are objects.

        Raises
        ------
        DecodeError, ReadError
            The row group cannot be read.
        StorageError
            The storage failed; a later call may succeed.
        DatasetError
            The file was changed.
        OSError, MemoryError
            The machine has no file handles or memory left.
        """
        number, inside = self._places[group]
        file = self._files[number]
        where = f"row group {inside} of {file.path!r}"
        try:
            source: Any = file.path
            if contents is None:
                check_same(self._owner, file.path, file.size, file.changed, os.stat(file.path))
            else:
                assert self.store is not None
                source = _FetchedFile(self.store, self._objects[number], self._start(group, name), contents)
            with pq.ParquetFile(source, metadata=file.metadata, page_checksum_verification=True) as opened:
                table = opened.read_row_group(inside, columns=[name], use_threads=False)
            if len(table) != self.sizes[group]:
                raise DecodeError(
                    f"{self._owner}: {where} has {len(table)} rows; its file says {self.sizes[group]}"
                )
            return Pictures(table.column(0))
        except HighwayError:
            raise
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            if isinstance(error, OSError) and jpeg.failure(error.errno or 0) == jpeg.NO_HANDLE:
                raise
            if isinstance(error, MemoryError):
                raise
            raise error_of(self._owner, where, error) from error

    def _start(self, group: int, name: str) -> int:
        starts = self._starts.get(name)
        if starts is None:
            starts = self._starts[name] = self.ranges(name).start
        return int(starts[group])

    def _opened(self, number: int, path: str) -> tuple[_File, Any]:
        with self._named(path):
            if self.store is None:
                return ask(self._owner, path, lambda: _local(path))
            found = self._objects[number]
            with pq.ParquetFile(_ObjectFile(self.store, found)) as opened:
                return _File(path, opened.metadata, _leaves(opened), found.size, 0), opened.schema_arrow

    @contextmanager
    def _named(self, path: str) -> Iterator[None]:
        """Raise errors of Arrow about a file as those of Highway."""
        try:
            yield
        except HighwayError:
            raise
        except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
            raise error_of(self._owner, repr(path), error) from error

    def _columns(self, number: int, names: Sequence[str]) -> Any:
        file = self._files[number]
        known = {*paths_of(file.metadata.schema.to_arrow_schema())}
        source = file.path if self.store is None else _ObjectFile(self.store, self._objects[number])
        with pq.ParquetFile(
            source, metadata=file.metadata, page_checksum_verification=True, pre_buffer=self.store is not None
        ) as opened:
            return opened.read(columns=[name for name in names if name in known])


def _local(path: str) -> tuple[_File, Any]:
    status = os.stat(path)
    with pq.ParquetFile(path) as opened:
        file = _File(path, opened.metadata, _leaves(opened), status.st_size, status.st_mtime_ns)
        return file, opened.schema_arrow


def _leaves(opened: Any) -> list[str]:
    schema = opened.schema
    return [schema.column(place).path for place in range(len(schema))]
