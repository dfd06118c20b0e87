"""Files of tables: Parquet, whose row groups are decoded one at a time, and Arrow files, which are memory-mapped."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway.arguments import expanded
from highway.errors import (
    ArgumentError,
    DatasetError,
    DecodeError,
    EmptyDatasetError,
    HighwayError,
    ReadError,
    StorageError,
)
from highway.modules.readers.tables.arrow import paths_of
from highway.modules.readers.tables.pictures import Pictures
from highway.storage.files import first_bytes
from highway.storage.outages import ask

__all__ = ["ParquetFiles", "files_of", "is_parquet", "mapped"]

_PARQUET = b"PAR1"
_ARROW = b"ARROW1"
_ENDINGS = (".parquet", ".pq", ".arrow", ".feather")


def files_of(owner: str, paths: Any) -> list[str]:
    """Return the files that paths name: files, patterns with ``*``, ``?`` or ``[``, or folders of tables.

    Raises
    ------
    ArgumentError
        There is something else than paths.
    EmptyDatasetError
        A pattern or a folder has no file.
    """
    given = paths if isinstance(paths, Sequence) and not isinstance(paths, (str, bytes)) else [paths]
    found: list[str] = []
    for number, path in enumerate(given):
        where = expanded(owner, f"table[{number}]" if given is paths else "table", path)
        if os.path.isdir(where):
            inside = sorted(name for name in os.listdir(where) if name.endswith(_ENDINGS))
            listed = [os.path.join(where, name) for name in inside if not name.startswith((".", "_"))]
        elif glob.has_magic(where) and not os.path.exists(where):
            listed = sorted(glob.glob(where))
        else:
            listed = [where]
        if not listed:
            raise EmptyDatasetError(f"{owner}: {where!r} has no files of tables ({', '.join(_ENDINGS)})")
        found += listed
    if not found:
        raise EmptyDatasetError(f"{owner}: table is an empty list; expected one path or more")
    return found


def is_parquet(owner: str, files: Sequence[str]) -> bool:
    """Return whether files are Parquet files, rather than Arrow files.

    Raises
    ------
    ArgumentError
        There are both.
    """
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
        except (OSError, pa.ArrowException) as error:
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
        return DecodeError(f"{owner}: {where} is damaged, or no file of a table: {text}")
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
    """A Parquet file; size and time of its last change show whether it is still the same."""

    path: str
    metadata: Any
    size: int
    changed: int


class ParquetFiles:
    """Parquet files, and their row groups, which are numbered through all files.

    Parameters
    ----------
    owner : str
        Name of the reader, for errors.
    files : sequence of str

    Attributes
    ----------
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

    def __init__(self, owner: str, files: Sequence[str]) -> None:
        self._owner = owner
        self._files: list[_File] = []
        schemas = []
        for file in files:
            try:
                found, schema = ask(owner, file, lambda file=file: _opened(file))  # type: ignore[misc]
            except HighwayError:
                raise
            except (OSError, pa.ArrowException) as error:
                raise error_of(owner, repr(file), error) from error
            self._files.append(found)
            schemas.append(schema)
        _check_schemas(owner, files, schemas)
        self.schema = schemas[0]
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

    def nbytes(self, name: str) -> NDArray[np.int64]:
        """Return the bytes of a column in each row group, before compression: int64 (G,)."""
        found = []
        for number, group in self._places:
            part = self._files[number].metadata.row_group(group)
            columns = (part.column(place) for place in range(part.num_columns))
            found.append(
                sum(
                    one.total_uncompressed_size
                    for one in columns
                    if one.path_in_schema == name or one.path_in_schema.startswith(f"{name}.")
                )
            )
        return np.array(found, np.int64)

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
        tables = []
        for file in self._files:
            try:
                tables.append(ask(self._owner, file.path, lambda file=file: _columns(file, names)))  # type: ignore[misc]
            except HighwayError:
                raise
            except (OSError, pa.ArrowException) as error:
                raise error_of(self._owner, repr(file.path), error) from error
        return pa.concat_tables(tables)

    def pictures(self, group: int, name: str) -> Pictures:
        """Decode the column of pictures of a row group.

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
            self._check_same(file)
            with pq.ParquetFile(file.path, metadata=file.metadata, page_checksum_verification=True) as opened:
                table = opened.read_row_group(inside, columns=[name], use_threads=False)
            if len(table) != self.sizes[group]:
                raise DecodeError(
                    f"{self._owner}: {where} has {len(table)} rows; its file says {self.sizes[group]}"
                )
            return Pictures(table.column(0))
        except HighwayError:
            raise
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, OSError) and jpeg.failure(error.errno or 0) == jpeg.NO_HANDLE:
                raise
            if isinstance(error, MemoryError):
                raise
            raise error_of(self._owner, where, error) from error

    def _check_same(self, file: _File) -> None:
        found = os.stat(file.path)
        if (found.st_size, found.st_mtime_ns) != (file.size, file.changed):
            raise DatasetError(
                f"{self._owner}: {file.path!r} was changed while it was in use: it has {found.st_size} bytes, before "
                f"it had {file.size}; make a new reader"
            )


def _opened(path: str) -> tuple[_File, Any]:
    status = os.stat(path)
    with pq.ParquetFile(path) as opened:
        return _File(path, opened.metadata, status.st_size, status.st_mtime_ns), opened.schema_arrow


def _columns(file: _File, names: Sequence[str]) -> Any:
    known = {*paths_of(file.metadata.schema.to_arrow_schema())}
    with pq.ParquetFile(file.path, metadata=file.metadata, page_checksum_verification=True) as opened:
        return opened.read(columns=[name for name in names if name in known], use_threads=True)
