"""Columns of Arrow tables as the values of samples."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from highway.modules.readers.tables.arrow import is_list
from highway.modules.readers.tables.columns import Place, field_of

__all__ = ["Lists", "columns_of", "is_plain"]


class Lists(NamedTuple):
    """A column of lists of numbers.

    Attributes
    ----------
    rows : ndarray (M, ...)
        The values of all lists, one list after the other.
    offsets : int64 (N + 1,)
    """

    rows: NDArray[Any]
    offsets: NDArray[np.int64]


def is_plain(kind: Any) -> bool:
    """Whether a column of this type needs no decoding: numbers, texts, bytes, or lists of numbers."""
    types = pa.types
    if _is_words(kind) or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return True
    if not is_list(kind):
        return False
    inner = kind.value_type
    while types.is_fixed_size_list(inner):
        inner = inner.value_type
    return bool(types.is_boolean(inner) or types.is_integer(inner) or types.is_floating(inner))


def columns_of(owner: str, table: Any) -> dict[str, Any]:
    """Return the columns of a table by name: lists of str, bytes and None, arrays (N, ...), or `Lists`.

    Columns with nulls are lists, where None stands for a null.
    """
    found = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        array = column.combine_chunks()
        if array.null_count or _is_words(array.type):
            found[name] = array.to_pylist()
            continue
        value = field_of(Place(owner, "the dataset", name), array, {})
        if isinstance(value, tuple):
            counts, rows = value
            offsets = np.zeros(len(counts) + 1, np.int64)
            np.cumsum(counts, out=offsets[1:])
            found[name] = Lists(rows, offsets)
        else:
            found[name] = value
    return found


def _is_words(kind: Any) -> bool:
    types = pa.types
    return bool(
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_binary(kind)
        or types.is_large_binary(kind)
    )
