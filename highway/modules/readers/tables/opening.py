"""Opens tables: files, or what is in memory, with their rows and columns."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from highway.modules.readers.tables.arrow import column, features_of, paths_of, table_of
from highway.modules.readers.tables.parquet import ParquetFiles, files_of, is_parquet, mapped

__all__ = ["Data", "GroupedData", "WholeData", "opened"]


class Data(Protocol):
    """A table.

    Attributes
    ----------
    size : int
        Number of rows.
    where, folder : str
        Name of the table in errors; the folder of its files.
    names : list of str
        Columns, and fields of structs in them.
    features : mapping
        See `features_of`.
    """

    size: int
    where: str
    folder: str
    names: list[str]
    features: Mapping[str, Any]

    def type_of(self, owner: str, argument: str, name: str) -> Any:
        """Return the type of a column; raises ArgumentError if there is none."""

    def read(self, owner: str, columns: Sequence[tuple[str, str]]) -> list[Any]:
        """Read columns, each given by the argument that names it and its name, as arrays."""

    def describe(self, index: int) -> str:
        """Name of a row in errors."""


class WholeData(Data):
    """A table in memory, or memory-mapped.

    Attributes
    ----------
    table : pyarrow.Table
    rows : int64 (N,), or None
        Rows of the table that count, in the order of the data; None for all.
    """

    def __init__(self, table: Any, rows: Any, where: str, folder: str, features: Mapping[str, Any]) -> None:
        self.table = table
        self._rows = rows
        self.rows: NDArray[np.int64] | None = None
        if rows is not None:
            self.rows = np.asarray(rows.to_numpy(zero_copy_only=False), np.int64)
        self.size = len(table) if rows is None else len(rows)
        self.where, self.folder, self.features = where, folder, features
        self.names = paths_of(table.schema)

    def type_of(self, owner: str, argument: str, name: str) -> Any:
        return column(owner, self.where, self.table.slice(0, 0), argument, name).type

    def read(self, owner: str, columns: Sequence[tuple[str, str]]) -> list[Any]:
        found = [column(owner, self.where, self.table, argument, name) for argument, name in columns]
        return found if self._rows is None else [array.take(self._rows) for array in found]

    def describe(self, index: int) -> str:
        return f"row {index} of {self.where}"


class GroupedData(Data):
    """Parquet files.

    Attributes
    ----------
    files : ParquetFiles
    """

    def __init__(self, files: ParquetFiles, where: str, folder: str) -> None:
        self.files = files
        self.size = int(files.sizes.sum())
        self.where, self.folder = where, folder
        self.features = features_of(files.schema)
        self.names = paths_of(files.schema)

    def type_of(self, owner: str, argument: str, name: str) -> Any:
        return column(owner, self.where, self.files.schema.empty_table(), argument, name).type

    def read(self, owner: str, columns: Sequence[tuple[str, str]]) -> list[Any]:
        for argument, name in columns:
            self.type_of(owner, argument, name)
        if not columns:
            return []
        table = self.files.columns([*dict.fromkeys(name for _, name in columns)])
        return [column(owner, self.where, table, argument, name) for argument, name in columns]

    def describe(self, index: int) -> str:
        return self.files.place(index)


def opened(owner: str, table: Any, options: Mapping[str, Any] | None) -> Data:
    """Open the argument `table` of `TableReader`; `options` are its `storage_options`.

    Raises
    ------
    ArgumentError, DecodeError, EmptyDatasetError, ReadError, StorageError
        See `TableReader`.
    """
    listed = isinstance(table, Sequence) and not isinstance(table, (str, bytes))
    if not (listed or isinstance(table, (str, bytes, os.PathLike))):
        found, rows = table_of(owner, table)
        features: Any = getattr(table, "features", None)
        stated = features.to_dict() if hasattr(features, "to_dict") else features_of(found.schema)
        return WholeData(found, rows, "the table", "", stated)
    files = files_of(owner, table, options)
    more = f" and {len(files) - 1} more" if files[1:] else ""
    where, folder = f"{files[0]!r}{more}", os.path.dirname(files[0])
    if is_parquet(owner, files):
        return GroupedData(ParquetFiles(owner, files, options), where, folder)
    found = mapped(owner, files)
    return WholeData(found, None, where, folder, features_of(found.schema))
