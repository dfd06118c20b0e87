"""Pictures in a column: their files as bytes, which are read in place, or as paths."""

from __future__ import annotations

import bisect
import itertools
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from highway.errors import ArgumentError

__all__ = ["Pictures", "check_type", "has_paths_only"]

_EXPECTED = "bytes or paths of pictures, or structs of both (bytes, path)"


def check_type(owner: str, where: str, name: str, kind: Any) -> None:
    """Raise ArgumentError if a column of a type has no pictures."""
    inner = [kind.field(name).type for name in _parts(kind)] if pa.types.is_struct(kind) else [kind]
    if not inner or not all(_is_bytes(one) or _is_text(one) for one in map(_plain, inner)):
        raise ArgumentError(f"{owner}: column {name!r} of {where} is of type {kind}; expected {_EXPECTED}")


def has_paths_only(kind: Any) -> bool:
    """Whether a column of pictures has only paths."""
    return _is_text(_plain(kind)) or (pa.types.is_struct(kind) and _parts(kind) == ["path"])


def _parts(kind: Any) -> list[str]:
    """The fields of a struct that can have a picture."""
    return [name for name in ("bytes", "path") if kind.get_field_index(name) >= 0]


def _plain(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_bytes(kind: Any) -> bool:
    types = pa.types
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
    )


def _is_text(kind: Any) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


class _Values(NamedTuple):
    """Byte strings in the memory of an Arrow array.

    Attributes
    ----------
    offsets : int (N + 1,)
        Value i has the bytes from ``offsets[i]`` to ``offsets[i + 1]``.
    data : memoryview of uint8
    valid : bool (N,), or None
        Which values are there; None for all.
    """

    offsets: NDArray[Any]
    data: memoryview
    valid: NDArray[np.bool_] | None

    def at(self, row: int) -> memoryview | None:
        if self.valid is not None and not self.valid[row]:
            return None
        return self.data[self.offsets[row] : self.offsets[row + 1]]


class Pictures:
    """The files of the pictures of a column.

    Bytes are not copied, except those of a column of views (`pyarrow.binary_view`), of a fixed size, or with a
    dictionary.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        Its type is one that `check_type` accepts.
    """

    def __init__(self, column: Any) -> None:
        self._first = [0, *itertools.accumulate(map(len, column.chunks))]
        self._chunks = [_opened(chunk) for chunk in column.chunks]

    def __len__(self) -> int:
        return self._first[-1]

    def at(self, row: int) -> memoryview | str | None:
        """Return the bytes of a picture, or its path; None if it has neither."""
        chunk = bisect.bisect_right(self._first, row) - 1
        row -= self._first[chunk]
        contents, paths = self._chunks[chunk]
        found = None if contents is None else contents.at(row)
        if found is not None or paths is None:
            return found
        path = paths.at(row)
        return None if path is None else bytes(path).decode("utf-8", "surrogateescape")


def _opened(array: Any) -> tuple[_Values | None, _Values | None]:
    """The bytes and the paths in an array."""
    if pa.types.is_struct(array.type):
        inner = array.flatten()
        parts = {name: inner[array.type.get_field_index(name)] for name in _parts(array.type)}
        return (
            _values(parts["bytes"]) if "bytes" in parts else None,
            _values(parts["path"]) if "path" in parts else None,
        )
    values = _values(array)
    return (None, values) if _is_text(_plain(array.type)) else (values, None)


def _values(array: Any) -> _Values:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        array = array.cast(pa.large_binary())
    elif pa.types.is_string_view(kind):
        array = array.cast(pa.large_string())
    large = pa.types.is_large_binary(array.type) or pa.types.is_large_string(array.type)
    _, places, data = array.buffers()
    dtype = np.dtype(np.int64 if large else np.int32)
    if places is None or not len(array):
        offsets = np.zeros(len(array) + 1, dtype)
    else:
        offsets = np.frombuffer(places, dtype, len(array) + 1, array.offset * dtype.itemsize)
    valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    view = memoryview(b"") if data is None else memoryview(data).cast("B")
    return _Values(offsets, view.toreadonly(), valid)
