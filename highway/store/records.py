r"""Convert samples to records and back: format 1 of a store.

The key of a record is its number, 8 bytes, big-endian. The record is, little-endian::

     0  b"HWR\x01"
     4  uint32  CRC-32C of all that follows
     8  uint64  its number
    16  uint32  bytes of the description of the columns
    20  uint32  bytes of the key, 2**32 - 1 for none
    24  uint32  rows of the ragged columns
    28  uint32  0
    32  the description, msgpack: [applied, keyed, offset, [[name, dtype, kind, extents of a row ...] ...]]
        the key, UTF-8
        the columns, C order, each from a multiple of 16 on

`kind` is the sum of 1 for an extra, 2 for a ragged column, and 4 for encoded files: their column is a uint64, the
number of bytes, followed by the bytes. All records of a store have the same description.

Where ragged columns have different numbers of rows, `offset` is a list of lists of names instead of a flag: the columns
that have the same number. They have kind 2 + 4, a number of bytes before their rows; the other ragged columns have the
number of rows that the header has. Versions that cannot read this raise CorruptStoreError.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core.records import layout
from highway._core.records.checksum import crc32c
from highway._core.records.layout import ALIGNMENT, ENCODED, EXTRA, LENGTH_BYTES, MAGIC, RAGGED, check_records
from highway._core.records.spans import Spans, copy_rows
from highway._core.wire import codec as wire
from highway._core.wire import packing
from highway.batch import Batch, empty, is_field_name, ragged_groups
from highway.errors import ContractError, CorruptStoreError, MessageTooLargeError, ProtocolError, StoreError

__all__ = ["BatchBuffers", "Column", "Records", "Schema", "key_of", "number_of", "schema_in"]

# The header after the magic bytes and the checksum.
_CHECKED = struct.Struct("<QIIII")
# A value of LevelDB is shorter; an array of NumPy 1 has one dimension more, that of the samples.
_LARGEST = 2**32 - 1
_DIMENSIONS = 31
_PADDING = bytes(ALIGNMENT)
# A lookup by name: a dtype from a file is never passed to numpy.
_DTYPES = {
    np.dtype(name).newbyteorder("<").str: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
}


def key_of(number: int) -> bytes:
    """Return the key of a record."""
    return number.to_bytes(8, "big")


def number_of(key: bytes) -> int:
    """Return the number of the record under a key."""
    return int.from_bytes(key[:8], "big")


class Column(NamedTuple):
    """A field, or an extra, of the batches of a store.

    Attributes
    ----------
    name : str
    dtype : dtype
        In native byte order.
    extra, ragged : bool
    shape : tuple of int
        Shape of a sample, or of a row of a ragged column.
    encoded : bool
        Whether a sample is a whole file, such as a JPEG, as bytes; a batch holds them as an array of objects.
    apart : bool
        Whether a ragged column has another number of rows than the header of the record says.
    """

    name: str
    dtype: np.dtype[Any]
    extra: bool
    ragged: bool
    shape: tuple[int, ...]
    encoded: bool = False
    apart: bool = False

    @property
    def kind(self) -> int:
        """What it is, as a number in the description of a record."""
        return EXTRA * self.extra + RAGGED * self.ragged + ENCODED * (self.encoded or self.apart)

    @property
    def nbytes(self) -> int:
        """Bytes of a sample, or of a row of a ragged column."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        shape = ("rows", *self.shape) if self.ragged else self.shape
        kind = ", extra" if self.extra else ""
        if self.encoded:
            return f"{self.name}: encoded files{kind}"
        return f"{self.name}: {self.dtype} ({', '.join(map(str, shape))}){kind}"


class Schema:
    """What all samples of a store have in common.

    Parameters
    ----------
    columns : sequence of Column
        In order, fields before extras.
    applied : int
        Number of transforms that were applied.
    keyed, offset : bool
        Whether they have keys, and whether their batches had offsets.
    groups : sequence of sequence of str
        Names of the columns that are apart: those with the same number of rows together.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        applied: int,
        keyed: bool,
        offset: bool,
        groups: Sequence[Sequence[str]] = (),
    ) -> None:
        self.columns = tuple(columns)
        self.applied = applied
        self.keyed = keyed
        self.offset = offset
        self.groups = tuple(map(tuple, groups))
        table = [
            [
                column.name,
                column.dtype.newbyteorder("<").str,
                column.kind,
                *column.shape,
            ]
            for column in self.columns
        ]
        self.packed = packing.pack([applied, keyed, [*map(list, groups)] or offset, table])
        self._header_bytes = layout.HEADER_BYTES + len(self.packed)
        self._sizes = np.array([column.nbytes for column in self.columns], np.int64)
        self._kinds = np.array([column.kind for column in self.columns], np.uint8)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.packed == other.packed

    def __hash__(self) -> int:
        return hash(self.packed)

    def __str__(self) -> str:
        return "; ".join(map(str, self.columns))

    @classmethod
    def of(cls, batch: Batch, owner: str) -> Schema:
        """Return the schema of a batch.

        Raises
        ------
        StoreError
            A field cannot be stored; the message names it.
        """
        columns = []
        groups = _groups_apart(batch)
        names_apart = {name for group in groups for name in group}
        for name, array in (*batch.fields.items(), *batch.extras.items()):
            if name not in batch.ragged and _is_of_files(array, batch.size):
                columns.append(Column(name, np.dtype(np.uint8), name in batch.extras, False, (), True))
                continue
            code = array.dtype.newbyteorder("<").str
            if code not in _DTYPES:
                raise StoreError(
                    f"{owner}: field {name!r} has dtype {array.dtype}; expected one of {wire.ALLOWED}"
                )
            ragged = name in batch.ragged
            if not ragged and (not array.ndim or len(array) != batch.size):
                raise StoreError(
                    f"{owner}: field {name!r} has shape {array.shape} in a batch of {batch.size} samples; expected a "
                    "row for each"
                )
            apart = name in names_apart
            column = Column(name, _DTYPES[code], name in batch.extras, ragged, array.shape[1:], apart=apart)
            if apart and not column.nbytes:
                raise StoreError(
                    f"{owner}: field {name!r} has rows of shape {column.shape}, without values; expected rows with "
                    "values where ragged fields have different offsets"
                )
            if not _is_storable(column):
                raise StoreError(
                    f"{owner}: field {name!r} has samples of shape {column.shape}; expected less than 4 GiB and up to "
                    f"{_DIMENSIONS} dimensions"
                )
            columns.append(column)
        try:
            offset = batch.offsets is not None or bool(groups)
            return cls(columns, batch.applied, bool(batch.keys), offset, groups)
        except (ContractError, MessageTooLargeError) as error:
            raise StoreError(f"{owner}: the batches have too many fields for a record: {error}") from None

    @classmethod
    def unpacked(cls, packed: bytes) -> Schema:
        """Return the schema of a packed description.

        Raises
        ------
        CorruptStoreError
            The description is invalid.
        """
        try:
            applied, keyed, offset, table = packing.unpack(packed)
            columns = []
            groups = offset if isinstance(offset, list) else []
            offset = offset is True or bool(groups)
            names_apart = [name for group in groups for name in group]
            for name, code, kind, *shape in table:
                extra, ragged, encoded = (bool(kind & bit) for bit in (EXTRA, RAGGED, ENCODED))
                known = 0 <= kind <= EXTRA + RAGGED + ENCODED
                apart = ragged and encoded and names_apart.count(name) == 1
                encoded = encoded and not apart
                if not is_field_name(name) or not known or (encoded and (ragged or shape)):
                    raise ValueError(f"a column is {name!r} of kind {kind!r}")
                if not all(type(extent) is int and extent >= 0 for extent in shape):
                    raise ValueError(f"column {name!r} has shape {shape}")
                column = Column(name, _DTYPES[code], extra, ragged, tuple(shape), encoded, apart)
                if not _is_storable(column) or (ragged and not offset) or (apart and not column.nbytes):
                    raise ValueError(f"column {name!r} has shape {shape}, offsets {offset!r}")
                columns.append(column)
            if len({column.name for column in columns}) < len(columns):
                raise ValueError("two columns have the same name")
            if {column.name for column in columns if column.apart} != {*names_apart}:
                raise ValueError(f"the groups of ragged columns are {groups!r}")
            if type(applied) is not int or applied < 0:
                raise ValueError(f"{applied!r} transforms were applied")
            return cls(columns, applied, keyed is True, offset, groups)
        except (ProtocolError, ValueError, TypeError, KeyError) as error:
            raise CorruptStoreError(f"a description of columns is damaged: {error}") from None

    def records(self, batch: Batch, first: int, rows: Sequence[int]) -> list[bytes]:
        """Return the records of some samples of a batch, numbered from `first` on."""
        arrays = [(column, _as_stored(batch[column.name], column)) for column in self.columns]
        return [self._record(batch, arrays, first + i, row) for i, row in enumerate(rows)]

    def _record(
        self, batch: Batch, arrays: Sequence[tuple[Column, NDArray[Any]]], number: int, row: int
    ) -> bytes:
        keys = batch.keys
        key = keys[row].encode("utf-8", "surrogateescape") if keys else b""
        begin = end = 0
        shared = self._offsets_in_header(batch)
        if shared is not None:
            begin, end = shared[row : row + 2].tolist()
        checked = _CHECKED.pack(number, len(self.packed), len(key) if keys else layout.NO_KEY, end - begin, 0)
        pieces: list[Any] = [checked, self.packed, key]
        at = self._header_bytes + len(key)
        for column, array in arrays:
            pieces.append(_PADDING[: -at % ALIGNMENT])
            at += -at % ALIGNMENT
            if column.encoded:
                file: bytes = array[row]
                pieces += (len(file).to_bytes(LENGTH_BYTES, "little"), file)
                at += LENGTH_BYTES + len(file)
                continue
            if column.apart:
                first, last = batch.offsets_of(column.name)[row : row + 2].tolist()
                taken = array[first:last]
                pieces.append(taken.nbytes.to_bytes(LENGTH_BYTES, "little"))
                at += LENGTH_BYTES
            else:
                taken = array[begin:end] if column.ragged else array[row : row + 1]
            if taken.nbytes:
                pieces.append(taken.reshape(-1).view(np.uint8))
                at += taken.nbytes
        crc = 0
        for piece in pieces:
            crc = crc32c(piece, crc)
        return b"".join([MAGIC, crc.to_bytes(4, "little"), *pieces])

    def _offsets_in_header(self, batch: Batch) -> NDArray[np.int64] | None:
        """Return the offsets of the ragged columns that are not apart; None if there are none."""
        if not self.groups:
            return batch.offsets
        return batch.offsets_of(
            next(column.name for column in self.columns if column.ragged and not column.apart)
        )

    def check(self, spans: Spans, numbers: NDArray[np.int64]) -> Records:
        """Check records in memory: header, number, columns, size and checksum.

        Parameters
        ----------
        spans : Spans of N
            An empty span is a missing record.
        numbers : int64 (N,)
        """
        errors = {row: CorruptStoreError("it is gone") for row in spans.missing()}
        rows = np.delete(np.arange(len(numbers)), [*errors])
        if errors:
            spans = spans.take(rows)
        table = np.empty((len(rows), layout.CHECKED + len(self.columns)), np.int64)
        check_records(spans, numbers[rows], self.packed, self._sizes, self._kinds, table)
        bad = np.flatnonzero(table[:, 0])
        if len(bad):
            for position in bad.tolist():
                errors[int(rows[position])] = _error_of(spans[position], table[position])
            good = np.flatnonzero(table[:, 0] == layout.SOUND)
            rows, spans, table = rows[good], spans.take(good), table[good]
        records = Records(self, rows, spans, table, errors)
        if self.groups:
            good = records.sound_groups()
            wrong = CorruptStoreError("its ragged columns do not have the same number of whole rows")
            errors |= dict.fromkeys(np.delete(rows, good).tolist(), wrong)
            records = Records(self, rows[good], spans.take(good), table[good], errors)
        records.errors = dict(sorted(errors.items()))
        return records


def _error_of(value: memoryview | None, found: NDArray[np.int64]) -> CorruptStoreError:
    """Return the error of a record that `check_records` refused."""
    assert value is not None
    status, _, _, detail = found[:4].tolist()
    if status == layout.NO_MAGIC:
        return CorruptStoreError(f"it begins with {bytes(value[:8])!r}; expected {MAGIC!r}")
    if status == layout.WRONG_CHECKSUM:
        return CorruptStoreError("its checksum is wrong")
    if status == layout.WRONG_NUMBER:
        return CorruptStoreError(f"it is number {detail}")
    if status == layout.WRONG_COLUMNS:
        return CorruptStoreError("its columns are not those of the store")
    return CorruptStoreError(f"it has {len(value)} bytes; expected {detail} for its columns")


def schema_in(value: bytes, number: int) -> Schema:
    """Return the schema in a record; raises CorruptStoreError where the record is damaged."""
    found = np.empty((1, layout.CHECKED), np.int64)
    nothing = np.empty(0, np.int64)
    check_records(Spans([value]), np.array([number]), None, nothing, nothing.astype(np.uint8), found)
    if found[0, 0]:
        raise _error_of(memoryview(value), found[0])
    return Schema.unpacked(value[layout.HEADER_BYTES : int(found[0, 1])])


class Records:
    """Checked records, in place.

    Attributes
    ----------
    rows : int64 (K,)
        Positions of the sound records among the requested numbers.
    errors : dict of int to CorruptStoreError
        The error of each other position, in ascending order.
    spans : Spans of K
    """

    def __init__(
        self,
        schema: Schema,
        rows: NDArray[np.int64],
        spans: Spans,
        table: NDArray[np.int64],
        errors: dict[int, CorruptStoreError],
    ) -> None:
        self._schema = schema
        self.rows = rows
        self.spans = spans
        self.errors = errors
        self._table = table

    def counts(self) -> NDArray[np.int64]:
        """Return the number of rows in the ragged columns of each record, int64 (K,)."""
        return self._table[:, 3]

    def counts_of(self, column: int) -> NDArray[np.int64]:
        """Return the number of rows of a ragged column in each record, int64 (K,)."""
        found = self._schema.columns[column]
        return self._lengths(column) // found.nbytes if found.apart else self.counts()

    def sound_groups(self) -> NDArray[np.intp]:
        """Return which records have whole rows, as many in all columns of a group: ascending positions."""
        sound = np.ones(len(self.rows), np.bool_)
        first: dict[str, NDArray[np.int64]] = {}
        group_of = {name: group[0] for group in self._schema.groups for name in group}
        for number, column in enumerate(self._schema.columns):
            if column.apart:
                counts, rest = np.divmod(self._lengths(number), column.nbytes)
                sound &= (rest == 0) & (counts == first.setdefault(group_of[column.name], counts))
        return np.flatnonzero(sound)

    def _lengths(self, column: int) -> NDArray[np.int64]:
        """Return the number of bytes that a column has in each record, where it begins with this number."""
        lengths = np.empty((len(self.rows), LENGTH_BYTES), np.uint8)
        copy_rows(self.spans, self.byte_offsets(column), lengths, np.arange(len(lengths)))
        return lengths.view("<i8")[:, 0].astype(np.int64)

    def keys(self) -> list[str | None]:
        """Return the key of each record; None where it has none."""
        if not self._schema.keyed:
            return [None] * len(self.rows)
        sizes = self._table[:, 2]
        texts = self.spans.texts(np.ascontiguousarray(self._table[:, 1]), np.maximum(sizes, 0))
        return [
            None if size < 0 else text.decode("utf-8", "surrogateescape")
            for text, size in zip(texts, sizes.tolist(), strict=True)
        ]

    def byte_offsets(self, column: int) -> NDArray[np.int64]:
        """Return the byte offset of a column in each record, int64 (K,)."""
        return np.ascontiguousarray(self._table[:, layout.CHECKED + column])

    def view(self, record: int, column: int) -> NDArray[Any]:
        """Return a read-only view of a column of a record: its rows where it is ragged, else one row."""
        found = self._schema.columns[column]
        count = int(self._table[record, 3]) if found.ragged else 1
        place = int(self._table[record, layout.CHECKED + column])
        value = self._value(record)
        if found.apart:
            count = int.from_bytes(value[place : place + LENGTH_BYTES], "little") // found.nbytes
            place += LENGTH_BYTES
        shape = (count, *found.shape)
        flat = np.frombuffer(value, _stored(found.dtype), math.prod(shape), place)
        return flat.reshape(shape)

    def files(self, column: int) -> list[memoryview]:
        """Return the encoded file in a column of each record."""
        return self.spans.parts(self.byte_offsets(column) + LENGTH_BYTES, self._lengths(column))

    def array(self, column: int) -> NDArray[Any]:
        """Return a column that is neither ragged nor encoded, as an array of K rows."""
        found = self._schema.columns[column]
        rows = np.empty((len(self.rows), *found.shape), _stored(found.dtype))
        flat = rows.reshape(-1).view(np.uint8).reshape(len(rows), found.nbytes)
        copy_rows(self.spans, self.byte_offsets(column), flat, np.arange(len(rows)))
        return rows

    def _value(self, record: int) -> memoryview:
        value = self.spans[record]
        assert value is not None
        return value


class BatchBuffers:
    """The buffers of a batch, filled record by record in any order.

    Parameters
    ----------
    schema : Schema
    size : int
        Number of samples.
    names : collection of str, optional
        Columns to read; all of them by default.
    """

    def __init__(self, schema: Schema, size: int, names: frozenset[str] | None = None) -> None:
        self._schema = schema
        self._keys: list[str | None] = [None] * size
        self._counts = np.zeros(size, np.int64)
        self._whole: list[tuple[int, Column, NDArray[Any], NDArray[np.uint8]]] = []
        self._ragged: list[tuple[int, Column, list[NDArray[Any]]]] = []
        self._encoded: list[tuple[int, Column, NDArray[Any]]] = []
        # By the name of each column that is apart: the number of rows of each sample.
        self._counts_apart = {
            name: counts for group in schema.groups for counts in [np.zeros(size, np.int64)] for name in group
        }
        for position, column in enumerate(schema.columns):
            if names is not None and column.name not in names:
                continue
            if column.encoded:
                self._encoded.append((position, column, np.full(size, b"", object)))
            elif column.ragged:
                nothing = np.empty((0, *column.shape), _stored(column.dtype))
                self._ragged.append((position, column, [nothing] * size))
            else:
                array = empty((size, *column.shape), column.dtype)
                flat = array.reshape(-1).view(np.uint8).reshape(size, column.nbytes)
                self._whole.append((position, column, array, flat))

    def put(self, rows: NDArray[np.int64], records: Records) -> None:
        """Copy records into rows of the batch, one record per row."""
        self._counts[rows] = records.counts()
        listed = rows.tolist()
        for row, key in zip(listed, records.keys(), strict=True):
            self._keys[row] = key
        for number, _, _, out in self._whole:
            copy_rows(records.spans, records.byte_offsets(number), out, rows)
        for number, _, files in self._encoded:
            for row, file in zip(listed, records.files(number), strict=True):
                files[row] = bytes(file)
        for number, column, parts in self._ragged:
            if column.apart:
                self._counts_apart[column.name][rows] = records.counts_of(number)
            for record, row in enumerate(listed):
                parts[row] = records.view(record, number)

    def batch(self, apart: Mapping[str, NDArray[Any]] | None = None, **identity: Any) -> Batch:
        """Return the batch.

        Parameters
        ----------
        apart : mapping of str to ndarray, optional
            Columns that were filled elsewhere.
        **identity
            Epoch, seq and indices of the batch.
        """
        found: dict[str, NDArray[Any]] = {column.name: array for _, column, array, _ in self._whole}
        found |= apart or {}
        found.update({column.name: files for _, column, files in self._encoded})
        for _, column, parts in self._ragged:
            counts = self._counts_apart.get(column.name, self._counts)
            joined = empty((int(counts.sum()), *column.shape), column.dtype)
            if joined.size:
                np.concatenate(parts, out=joined)
            found[column.name] = joined
        columns = [column for column in self._schema.columns if column.name in found]
        shared = np.concatenate(([0], np.cumsum(self._counts))) if self._schema.offset else None
        ragged: Any = [column.name for column in columns if column.ragged]
        if any(column.apart for column in columns):
            made = {
                id(counts): np.concatenate(([0], np.cumsum(counts))) for counts in self._counts_apart.values()
            }
            apart = {name: made[id(counts)] for name, counts in self._counts_apart.items()}
            ragged, shared = {name: apart.get(name, shared) for name in ragged}, None
        keys = [key for key in self._keys if key is not None]
        return Batch(
            {column.name: found[column.name] for column in columns if not column.extra},
            keys=keys if self._schema.keyed else None,
            applied=self._schema.applied,
            extras={column.name: found[column.name] for column in columns if column.extra},
            offsets=shared,
            ragged=ragged,
            **identity,
        )


def _groups_apart(batch: Batch) -> list[list[str]]:
    """Return the names of ragged arrays, those that share their offsets together, without one group: that of boxes.

    Without boxes, it is the group of the first ragged array. Empty where all share their offsets.
    """
    if batch.offsets is not None or not batch.ragged:
        return []
    named = [name for name in (*batch.fields, *batch.extras) if name in batch.ragged]
    left = batch.ragged_with("boxes" if "boxes" in batch.ragged else named[0])
    return [group for group in ragged_groups(batch) if group[0] not in left]


def _is_storable(column: Column) -> bool:
    extents = [max(extent, 1) for extent in column.shape]
    return len(extents) <= _DIMENSIONS and math.prod(extents) * column.dtype.itemsize <= _LARGEST


def _is_of_files(array: NDArray[Any], size: int) -> bool:
    return array.dtype == object and array.shape == (size,) and all(type(file) is bytes for file in array)


def _as_stored(array: NDArray[Any], column: Column) -> NDArray[Any]:
    if column.encoded:
        return array
    return np.ascontiguousarray(array).astype(_stored(column.dtype), copy=False)


def _stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype.newbyteorder("<")
