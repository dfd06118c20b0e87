"""Turns what users have tables in into Arrow tables, and finds columns and class names in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from highway.errors import ArgumentError, DecodeError
from highway.modules.readers.manifests import missing_column

__all__ = ["column", "features_of", "is_list", "names_of", "paths_of", "table_of"]

_LARGE = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
_MOST_BYTES = 2**31 - 1
"""Bytes of a column that offsets of 32 bits reach."""

_HUGGING_FACE = b"huggingface"
"""Key of the metadata of a schema in which the package datasets writes the types of its columns, as JSON."""


def table_of(owner: str, data: Any) -> tuple[Any, Any]:
    """Return the Arrow table of a table in memory, and the rows of it that count.

    Parameters
    ----------
    owner : str
    data : pyarrow.Table, datasets.Dataset, or data frame
        A data frame of pandas, or anything that exports itself by ``__arrow_c_stream__``, as those of polars do.

    Returns
    -------
    table : pyarrow.Table
    rows : pyarrow.Array of int, or None
        Rows of the table in the order of the data; None for all of them in turn.

    Raises
    ------
    ArgumentError
        It is something else.
    """
    if isinstance(data, pa.Table):
        return data, None
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data]), None
    kind = type(data)
    if kind.__module__.partition(".")[0] == "datasets" and hasattr(data, "_indices"):
        # A Dataset is a table and, after `select` or `shuffle`, the numbers of its rows; both stay where they are.
        rows = data._indices
        return data.data.table, None if rows is None else rows.column(0).combine_chunks()
    if hasattr(data, "__arrow_c_stream__"):
        return pa.table(data), None
    if kind.__module__.partition(".")[0] == "pandas" and kind.__name__ == "DataFrame":
        return pa.Table.from_pandas(data, preserve_index=False), None
    raise ArgumentError(
        f"{owner}: table is a {kind.__module__}.{kind.__qualname__}; expected paths, a pyarrow.Table, a "
        "datasets.Dataset (one split of a DatasetDict), or a data frame of pandas or polars"
    )


def column(owner: str, where: str, table: Any, argument: str, name: str) -> Any:
    """Return a column of a table as a pyarrow.Array; "a.b" is the field b of the structs, or lists of structs, in a.

    Raises
    ------
    ArgumentError
        There is no such column; the error lists those that there are. Or it has lists or structs of more bytes than
        offsets of 32 bits reach.
    DecodeError
        Its memory is damaged, or a text is not UTF-8.
    """
    try:
        found = _found(owner, where, table, argument, name)
    except pa.ArrowInvalid as error:
        raise ArgumentError(
            f"{owner}: column {name!r} of {where} cannot be joined ({error}); use large_string, large_binary and "
            "large_list in it"
        ) from error
    try:
        found.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DecodeError(f"{owner}: column {name!r} of {where} is damaged: {error}") from error
    return found


def _found(owner: str, where: str, table: Any, argument: str, name: str) -> Any:
    if name in table.column_names:
        return _whole(table.column(name))
    first, *inner = name.split(".")
    if not inner or first not in table.column_names:
        raise missing_column(owner, where, argument, name, paths_of(table.schema))
    found = _whole(table.column(first))
    for part in inner:
        found = _field(found, part)
        if found is None:
            raise missing_column(owner, where, argument, name, paths_of(table.schema))
    return found


def paths_of(schema: Any) -> list[str]:
    """Return the names of the columns, and of the fields of those that are structs or lists of structs."""
    found = []
    for field in schema:
        kind = field.type
        while is_list(kind):
            kind = kind.value_type
        inner = (
            [kind.field(place).name for place in range(kind.num_fields)] if pa.types.is_struct(kind) else []
        )
        found += [field.name, *(f"{field.name}.{name}" for name in inner)]
    return found


def is_list(kind: Any) -> bool:
    """Whether a type is a list, of any length or of one length."""
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _whole(chunked: Any) -> Any:
    """A chunked array as one array, which begins at the start of its memory."""
    if chunked.type in _LARGE and chunked.nbytes > _MOST_BYTES:
        chunked = chunked.cast(_LARGE[chunked.type])
    found = pa.concat_arrays(chunked.chunks) if chunked.num_chunks else pa.array([], chunked.type)
    return found if not found.offset else pa.concat_arrays([found, found[:0]])


def _field(array: Any, name: str) -> Any:
    """A field of an array of structs, or of lists of structs; None if there is none."""
    if pa.types.is_struct(array.type):
        place = array.type.get_field_index(name)
        return None if place < 0 else array.flatten()[place]
    if pa.types.is_fixed_size_list(array.type):
        return None
    if is_list(array.type) and pa.types.is_struct(array.type.value_type):
        inner = _field(array.values, name)
        if inner is None:
            return None
        mask = array.is_null() if array.null_count else None
        kind = pa.LargeListArray if pa.types.is_large_list(array.type) else pa.ListArray
        return kind.from_arrays(array.offsets, inner, mask=mask)
    return None


def features_of(schema: Any) -> Mapping[str, Any]:
    """Return the types that the package datasets wrote into a schema, by column; empty if it wrote none."""
    written = (schema.metadata or {}).get(_HUGGING_FACE)
    try:
        found = json.loads(written)["info"]["features"] if written is not None else {}
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, Mapping) else {}


def names_of(features: Any, name: str) -> list[str] | None:
    """Return the class names that `features_of` has for a column, in the order of their numbers, or None."""
    found = features.get(name) if isinstance(features, Mapping) else None
    if found is None and "." in name:
        first, _, rest = name.partition(".")
        return names_of(_unwrapped(features.get(first)), rest) if isinstance(features, Mapping) else None
    found = _unwrapped(found)
    names = found.get("names") if isinstance(found, Mapping) else None
    if isinstance(names, Sequence) and not isinstance(names, str) and found.get("_type") == "ClassLabel":
        return [str(one) for one in names]
    return None


def _unwrapped(feature: Any) -> Any:
    """The type of the elements of a list, or the type itself."""
    while True:
        if isinstance(feature, Mapping) and "feature" in feature:
            feature = feature["feature"]
        elif isinstance(feature, Iterable) and not isinstance(feature, (str, Mapping)):
            (feature,) = [*feature][:1] or [None]
        else:
            return feature
