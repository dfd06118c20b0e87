"""Turns columns of Arrow tables into labels, boxes and fields of batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from highway.arguments import class_names
from highway.errors import ArgumentError
from highway.modules.readers.tables.arrow import is_list

__all__ = [
    "Bad",
    "Labels",
    "Place",
    "Texts",
    "boxes_of",
    "field_of",
    "labels_of",
    "lists_of",
    "of_one_length",
]

Bad = dict[int, str]
"""What is wrong with samples, by row."""


class Place(NamedTuple):
    """A column, for errors."""

    owner: str
    where: str
    name: str

    def error(self, text: str) -> ArgumentError:
        return ArgumentError(f"{self.owner}: column {self.name!r} of {self.where} {text}")


class Labels(NamedTuple):
    """Labels of all samples, or of all boxes.

    Attributes
    ----------
    values : ndarray (N, ...)
        int64 or float32.
    counts : int64 (N,), or None
        Labels of each sample, if each box has one.
    classes : list of str, or None
    """

    values: NDArray[Any]
    counts: NDArray[np.int64] | None
    classes: list[str] | None


class Texts:
    """A column of texts or bytes.

    Parameters
    ----------
    array : pyarrow.Array
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        texts = not (pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type))
        self._kind = np.str_ if texts else np.bytes_
        lengths = pc.utf8_length(array) if texts else pc.binary_length(array)
        longest = pc.max(lengths).as_py() if len(array) else 0
        self.dtype = np.dtype((self._kind, max(longest or 0, 1)))

    def at(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return some rows, str or bytes (K,); None is an empty one."""
        found = [value or self._kind() for value in self._array.take(pa.array(rows)).to_pylist()]
        return np.array(found, self.dtype)


def labels_of(
    place: Place, array: Any, given: Sequence[str] | None, known: list[str] | None, boxed: bool, bad: Bad
) -> Labels:
    """Return the labels in a column, and add the rows without any to `bad`.

    Parameters
    ----------
    place : Place
    array : pyarrow.Array
    given : sequence of str or None
        Classes that the user gave.
    known : list of str or None
        Classes that the table states for numbers in this column.
    boxed : bool
        Whether each box has a label: the column has lists.
    bad : dict of int to str
    """
    kind = array.type
    if boxed and not is_list(kind):
        raise place.error(f"is of type {kind}; expected lists, with a label for each box")
    _note_nulls(place, array, "label", bad)
    if not is_list(kind):
        values, classes = _numbers(place, array, given, known)
        return Labels(values, None, classes)
    counts = _counts(array)
    inner = array.flatten()
    if inner.null_count:
        rows = np.repeat(np.arange(len(counts)), counts)[inner.is_null().to_numpy(zero_copy_only=False)]
        for row in rows.tolist():
            bad.setdefault(row, f"has no label for one of its boxes: null in a list in column {place.name!r}")
    if boxed:
        values, classes = _numbers(place, inner, given, known)
        return Labels(values, counts, classes)
    named = _is_text(inner.type) or known is not None or given is not None
    if pa.types.is_integer(inner.type) and not named and not pa.types.is_fixed_size_list(kind):
        raise place.error(
            f"is of type {kind}; if these are numbers of classes, give classes=, their names; K numbers for each "
            "sample are lists of a fixed size, or of floats"
        )
    if named and (_is_text(inner.type) or pa.types.is_integer(inner.type)):
        numbers, classes = _numbers(place, inner, given, known)
        assert classes is not None
        return Labels(_many_hot(counts, numbers, len(classes)), None, classes)
    values, classes = _numbers(place, inner, None, None)
    if not len(counts) or (counts == counts[0]).all():
        return Labels(values.reshape(len(counts), -1), None, None if given is None else list(given))
    row = int(np.flatnonzero(counts != counts[0])[0])
    raise place.error(
        f"has {counts[0]} numbers in row 0, {counts[row]} in row {row}; expected as many in all rows"
    )


def _many_hot(counts: NDArray[np.int64], numbers: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    labels = np.zeros((len(counts), classes), np.float32)
    labels[np.repeat(np.arange(len(counts)), counts), numbers] = 1.0
    return labels


def _numbers(
    place: Place, array: Any, given: Sequence[str] | None, known: list[str] | None
) -> tuple[NDArray[Any], list[str] | None]:
    """Labels as int64 or float32, 0 for nulls, and their classes."""
    array = _decoded(array)
    if pa.types.is_null(array.type) and not len(array):
        # Lists that are all empty.
        array = array.cast(pa.int64())
    kind = array.type
    if _is_text(kind):
        return _classes_of(place, array, given)
    if given is not None:
        classes: list[str] | None = class_names(place.owner, given, repeated=True)
    else:
        classes = known
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind):
        if kind == pa.uint64() and len(array) and (pc.max(array).as_py() or 0) >= 2**63:
            raise place.error(f"has {pc.max(array)}; expected labels below 2**63")
        values = _filled(array).astype(np.int64)
        if classes is not None and array.null_count < len(array):
            low, high = pc.min(array.cast(pa.int64())).as_py(), pc.max(array.cast(pa.int64())).as_py()
            if low < 0 or high >= len(classes):
                raise place.error(
                    f"has labels from {low} to {high}; expected 0 to {len(classes) - 1}, numbers of classes "
                    "(label=None reads no labels)"
                )
        return values, classes
    if pa.types.is_floating(kind):
        with np.errstate(over="ignore"):
            return _filled(array).astype(np.float32), classes
    raise place.error(f"is of type {kind}; expected labels: numbers, names of classes, or lists of either")


def _classes_of(place: Place, array: Any, given: Sequence[str] | None) -> tuple[NDArray[np.int64], list[str]]:
    array = array.cast(pa.large_string())
    found = [name for name in pc.unique(array).to_pylist() if name is not None]
    classes = sorted(found) if given is None else class_names(place.owner, given)
    missing = sorted({*found}.difference(classes))
    if missing:
        row = pc.index(array, missing[0]).as_py()
        shown = f"{', '.join(classes[:30])}{', ...' if classes[30:] else ''}"
        raise place.error(f"has {missing[0]!r} (value {row}); expected one of the classes: {shown}")
    if not classes:
        raise place.error("has no label in any row")
    numbers = pc.index_in(array, pa.array(classes, pa.large_string()))
    return _filled(numbers).astype(np.int64), classes


def boxes_of(
    place: Place, arrays: Sequence[Any], form: str, bad: Bad
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the number of boxes of each sample, and all boxes as x0, y0, x1, y1, float32 (M, 4).

    Rows with bad boxes are added to `bad`.

    Parameters
    ----------
    place : Place
    arrays : sequence of pyarrow.Array
        One, of lists of 4 numbers (a box) or lists of such lists; or 4, with the coordinates of one box, or null.
    form : {"xyxy", "xywh"}
    bad : dict of int to str
    """
    if len(arrays) == 4:
        counts, table = _of_sides(place, arrays, bad)
    else:
        counts, table = _of_lists(place, arrays[0], bad)
    if form == "xywh":
        table[:, 2:] += table[:, :2]
    with np.errstate(over="ignore"):
        found = table.astype(np.float32)
    wrong = ~np.isfinite(found).all(axis=1) | (table[:, :2] > table[:, 2:]).any(axis=1)
    if wrong.any():
        owners = np.repeat(np.arange(len(counts)), counts)
        for number in np.flatnonzero(wrong).tolist():
            box = table[number].tolist()
            bad.setdefault(
                int(owners[number]),
                f"has the box {box} (x0, y0, x1, y1) in column {place.name!r}; expected finite numbers, the smaller "
                f"first (box_format is {form!r})",
            )
    return counts, found


def _of_sides(place: Place, arrays: Sequence[Any], bad: Bad) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    for array in arrays:
        if not _is_number(array.type):
            raise place.error(f"is of type {array.type}; expected numbers, coordinates of a box")
    missing = np.stack([array.is_null().to_numpy(zero_copy_only=False) for array in arrays], axis=1)
    for row in np.flatnonzero(missing.any(axis=1) & ~missing.all(axis=1)).tolist():
        bad[row] = (
            f"has a part of a box: null in one of the columns {place.name}; expected null in all or none"
        )
    table = np.stack([_filled(array).astype(np.float64) for array in arrays], axis=1)
    there = np.asarray(~missing.any(axis=1), np.bool_)
    return there.astype(np.int64), table[there]


def _of_lists(place: Place, array: Any, bad: Bad) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    kind = array.type
    if not is_list(kind):
        raise place.error(f"is of type {kind}; expected boxes: lists of 4 numbers, or lists of such lists")
    _note_nulls(place, array, "boxes", bad)
    counts: NDArray[np.int64] = _counts(array)
    boxes = array.flatten()
    if not is_list(kind.value_type):
        # A row is one box, or empty.
        if not np.isin(counts, (0, 4)).all():
            row = int(np.flatnonzero(~np.isin(counts, (0, 4)))[0])
            raise place.error(f"has {counts[row]} numbers in row {row}; expected 4, x0, y0, x1, y1, or none")
        numbers = boxes
        counts = np.right_shift(counts, 2)
    else:
        sides = _counts(boxes)
        if (sides != 4).any():
            owners = np.repeat(np.arange(len(counts)), counts)
            number = int(np.flatnonzero(sides != 4)[0])
            raise place.error(f"has a box of {sides[number]} numbers in row {owners[number]}; expected 4")
        numbers = boxes.flatten()
    if not (_is_number(numbers.type) or pa.types.is_null(numbers.type)):
        raise place.error(f"is of type {kind}; expected boxes of numbers")
    table: NDArray[np.float64] = np.array(numbers.cast(pa.float64()).to_numpy(zero_copy_only=False))
    return counts, table.reshape(-1, 4)


def field_of(
    place: Place, array: Any, bad: Bad
) -> NDArray[Any] | Texts | tuple[NDArray[np.int64], NDArray[Any]]:
    """Return a field: one row for each sample, texts, or counts and rows of lists of different lengths.

    Rows that are null are added to `bad`.
    """
    array = _decoded(array)
    kind = array.type
    _note_nulls(place, array, f"value of {place.name!r}", bad)
    if _is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_view(kind):
        return Texts(_without_views(array))
    if not is_list(kind):
        return _plain(place, array, kind)
    counts, inner = _counts(array), array.flatten()
    sizes: tuple[int, ...] = ()
    while pa.types.is_fixed_size_list(inner.type):
        sizes += (inner.type.list_size,)
        inner = inner.flatten()
    if inner.null_count:
        raise place.error(f"has null in a list; expected numbers in lists of type {kind}")
    rows = _plain(place, inner, kind).reshape(-1, *sizes)
    if pa.types.is_fixed_size_list(kind):
        # Rows that are null have no values.
        whole = np.zeros((len(array), kind.list_size, *sizes), rows.dtype)
        whole[counts > 0] = rows.reshape(-1, kind.list_size, *sizes)
        return whole
    return counts, rows


def of_one_length(counts: NDArray[np.int64], rows: NDArray[Any]) -> NDArray[Any] | None:
    """Return lists of one length as an array (N, K, ...); None if their lengths differ."""
    if not len(counts) or (counts != counts[0]).any():
        return None
    return rows.reshape(len(counts), int(counts[0]), *rows.shape[1:])


def lists_of(counts: NDArray[np.int64], rows: NDArray[Any], indices: NDArray[np.int64]) -> NDArray[Any]:
    """Return the rows of some samples of ragged `rows`, sample after sample."""
    chosen = counts[indices]
    first = (np.cumsum(counts) - counts)[indices]
    before = np.cumsum(chosen) - chosen
    found: NDArray[Any] = rows[np.arange(chosen.sum()) + np.repeat(first - before, chosen)]
    return found


def _plain(place: Place, array: Any, kind: Any) -> NDArray[Any]:
    """Numbers as they are, 0 for nulls."""
    if not (pa.types.is_boolean(array.type) or _is_number(array.type)):
        raise place.error(
            f"is of type {kind}; expected numbers, texts, bytes, or lists of numbers of one length or one level"
        )
    return _filled(array)


def _filled(array: Any) -> NDArray[Any]:
    """Numbers of an array, 0 for nulls, in memory of its own."""
    if array.null_count:
        array = array.fill_null(False if pa.types.is_boolean(array.type) else 0)
    return np.array(array.to_numpy(zero_copy_only=False))


def _counts(array: Any) -> NDArray[np.int64]:
    """Lengths of lists; 0 for nulls."""
    return _filled(array.value_lengths()).astype(np.int64)


def _decoded(array: Any) -> Any:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_text(kind: Any) -> bool:
    types = pa.types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_view(kind: Any) -> bool:
    return bool(pa.types.is_binary_view(kind))


def _without_views(array: Any) -> Any:
    if pa.types.is_string_view(array.type):
        return array.cast(pa.large_string())
    return array.cast(pa.large_binary()) if _is_view(array.type) else array


def _note_nulls(place: Place, array: Any, noun: str, bad: Bad) -> None:
    if array.null_count:
        for row in np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)).tolist():
            bad.setdefault(row, f"has no {noun}: null in column {place.name!r}")
