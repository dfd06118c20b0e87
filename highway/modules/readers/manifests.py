"""Manifests: CSV and JSONL files that list pictures with their labels, boxes and masks."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from highway.arguments import class_names
from highway.arguments.synonyms import nearest
from highway.errors import ArgumentError, DecodeError, EmptyDatasetError, HighwayError, ReadError
from highway.storage.files import read_whole
from highway.storage.objects import Object
from highway.storage.urls import is_url, located, split

__all__ = ["Columns", "Manifest", "box_of", "columns_in", "listed_csv", "listed_jsonl", "missing_column"]

_OWNER = "ListReader"
_LARGEST = 1 << 36
_DELIMITERS = ",;\t|"
_SNIFFED = 1 << 16
# Python refuses to read numbers of some thousand digits.
_LONGEST_NUMBER = 40
_LARGEST_NUMBER = sys.float_info.max
_WHOLE = re.compile(r"[+-]?[0-9]+")
_ARGUMENT = "image=, label=, boxes= and masks= name the columns"

Path = str | bytes | os.PathLike[str]


class Columns(NamedTuple):
    """Which columns of a manifest have what; see `ListReader.from_csv` and `ListReader.from_jsonl`."""

    image: str
    pairs: Mapping[str, str]
    label: str | Sequence[str] | None
    boxes: str | Sequence[str] | None
    box_format: str
    masks: str | None
    classes: Sequence[str] | None

    def labels(self) -> list[str]:
        """The label columns; one, if `label` is a text."""
        return _names(self.label)

    def sides(self) -> list[str]:
        """The columns of the coordinates of a box, or the column of all boxes; none without boxes."""
        return _names(self.boxes)

    def all(self) -> list[str]:
        """All columns that are read."""
        return [*self.files(), *self.labels(), *self.sides()]

    def files(self) -> list[str]:
        """The columns of paths: the pictures first."""
        return [self.image, *self.pairs.values(), *([] if self.masks is None else [self.masks])]

    def check(self, lists: bool) -> None:
        """Raise ArgumentError if the arguments are not allowed; `lists` says whether a column may have all boxes."""
        masks: Any = self.masks
        if masks is not None and not isinstance(masks, str):
            raise ArgumentError(f"{_OWNER}: masks is {masks!r}; expected the name of a column")
        labels: list[Any] = self.labels()
        sides: list[Any] = self.sides()
        if self.label is not None and not (labels and all(isinstance(name, str) for name in labels)):
            raise ArgumentError(
                f"{_OWNER}: label is {self.label!r}; expected the name of a column, or several"
            )
        if self.box_format not in ("xyxy", "xywh"):
            raise ArgumentError(f"{_OWNER}: box_format is {self.box_format!r}; expected 'xyxy' or 'xywh'")
        if self.boxes is None:
            return
        whole = lists and isinstance(self.boxes, str)
        if not whole and not (
            not isinstance(self.boxes, str)
            and len(sides) == 4
            and all(isinstance(name, str) for name in sides)
        ):
            one = "the name of a column, or " if lists else ""
            raise ArgumentError(f"{_OWNER}: boxes is {self.boxes!r}; expected {one}the names of 4 columns")
        if len(labels) > 1:
            raise ArgumentError(f"{_OWNER}: label is {self.label!r}; expected one column, with boxes")


def _names(columns: Any) -> list[str]:
    """Names of columns in a list; what is neither a name nor names stays, for the checks."""
    if columns is None:
        return []
    return [columns] if isinstance(columns, str) or not isinstance(columns, Sequence) else list(columns)


class Manifest(NamedTuple):
    """Arguments of `ListReader` that a manifest has.

    Attributes
    ----------
    folder : str
        The folder of the manifest.
    paths : list of str
    labels : list or None
    boxes : list of (list of box), or None
    masks : list of str, or None
    pairs : dict of str to (list of str)
        Paths of further pictures, by their fields.
    """

    folder: str
    paths: list[str]
    labels: list[Any] | None
    boxes: list[list[Any]] | None
    masks: list[str] | None
    pairs: dict[str, list[str]]


class _Rows(NamedTuple):
    """The rows of a manifest.

    Attributes
    ----------
    where : str
        The manifest, for errors.
    values : dict of str to list
        Value of every row, by column.
    lines : list of int
        Line of every row, from 1.
    """

    where: str
    values: dict[str, list[Any]]
    lines: list[int]

    def error(self, row: int, text: str, kind: type[HighwayError] = ArgumentError) -> HighwayError:
        return kind(f"{_OWNER}: {self.where}, line {self.lines[row]}: {text}")


def listed_csv(
    path: Path, columns: Columns, separator: Any, delimiter: Any, options: Mapping[str, Any] | None
) -> Manifest:
    """Read a CSV file; see `ListReader.from_csv`."""
    columns.check(lists=False)
    if separator is not None and not (isinstance(separator, str) and separator):
        raise ArgumentError(f"{_OWNER}: separator is {separator!r}; expected a text, such as ';'")
    if separator is not None and (columns.boxes is not None or len(columns.labels()) != 1):
        raise ArgumentError(
            f"{_OWNER}: separator is {separator!r}; expected None, with boxes or without one label column"
        )
    if delimiter is not None and not (isinstance(delimiter, str) and len(delimiter) == 1):
        raise ArgumentError(
            f"{_OWNER}: delimiter is {delimiter!r}; expected one character, or None to find it out"
        )
    where, text = _opened(path, options)
    rows = _csv_rows(repr(where), text, columns.all(), delimiter)
    _check_texts(rows, columns)
    if columns.boxes is not None:
        return _grouped(where, rows, columns, texts=True)
    labels: list[Any] | None = None
    names = columns.labels()
    if separator is not None:
        labels = [value.split(separator) if value else [] for value in rows.values[names[0]]]
        _check_names(rows, labels, columns)
    elif len(names) == 1:
        labels = _text_labels(rows, names[0], columns.classes)
    elif names:
        labels = _vectors(rows, names, texts=True)
    return _listed(where, rows, columns, labels)


def listed_jsonl(path: Path, columns: Columns, options: Mapping[str, Any] | None) -> Manifest:
    """Read a file of JSON objects; see `ListReader.from_jsonl`."""
    columns.check(lists=True)
    where, text = _opened(path, options)
    rows = _json_rows(repr(where), text, columns.all())
    _check_texts(rows, columns)
    if columns.boxes is not None:
        if isinstance(columns.boxes, str):
            return _with_lists(where, rows, columns)
        return _grouped(where, rows, columns, texts=False)
    names = columns.labels()
    labels: list[Any] | None = None
    if len(names) == 1:
        labels = rows.values[names[0]]
        _check_json_labels(rows, names[0], columns)
    elif names:
        labels = _vectors(rows, names, texts=False)
    return _listed(where, rows, columns, labels)


def columns_in(path: Path, lines_of_json: bool, delimiter: str | None) -> tuple[list[str], int]:
    """Return the names of the columns of a manifest, of JSON those of its first line, and the number of its rows.

    Raises
    ------
    DecodeError, EmptyDatasetError, ReadError, StorageError
        See `ListReader.from_csv`.
    """
    where, text = _opened(path, None)
    if lines_of_json:
        rows = _json_rows(repr(where), text, [])
        text.seek(0)
        first = next(line for line in text if line.strip())
        return list(json.loads(first)), len(rows.lines)
    rows = _csv_rows(repr(where), text, [], delimiter)
    text.seek(0)
    chosen = _delimiter(where, text) if delimiter is None else delimiter
    return next(row for row in csv.reader(text, delimiter=chosen) if row), len(rows.lines)


def missing_column(owner: str, where: str, argument: str, name: str, known: Sequence[str]) -> ArgumentError:
    """Return the error for a column that is not there: it lists those that are, and the most similar one."""
    similar = nearest(name, known)
    shown = ", ".join(map(repr, known[:30])) + (", ..." if len(known) > 30 else "")
    hint = f"; did you mean {similar!r}?" if similar else ""
    return ArgumentError(f"{owner}: {where} has no column {name!r} ({argument}); it has {shown}{hint}")


def box_of(sides: Sequence[float], form: str) -> list[float]:
    """Return x0, y0, x1, y1 of a box in the format "xyxy" or "xywh"."""
    x, y, right, bottom = sides
    return [x, y, x + right, y + bottom] if form == "xywh" else [x, y, right, bottom]


# Files


def _opened(path: Path, options: Mapping[str, Any] | None) -> tuple[str, io.TextIOWrapper]:
    """Return the name of a manifest, and its text."""
    where = located(_OWNER, "path", path)
    if is_url(where):
        # Late: only URLs need it.
        from highway.storage.opening import open_store

        root, name = split(where, _OWNER)
        contents = bytes(open_store(root, _OWNER, options).read(Object(name)))
    else:
        try:
            contents = read_whole(os.fsencode(where), _LARGEST, _OWNER)
        except ReadError as error:
            raise ReadError(f"{_OWNER}: {where} {error}") from error
    encoding = "utf-16" if contents[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return where, io.TextIOWrapper(io.BytesIO(contents), encoding=encoding, newline="")


def _csv_rows(where: str, text: io.TextIOWrapper, names: Sequence[str], delimiter: str | None) -> _Rows:
    reader = csv.reader(
        text, delimiter=_delimiter(where, text) if delimiter is None else delimiter, strict=True
    )
    try:
        header = next((row for row in reader if row), None)
        if header is None:
            raise EmptyDatasetError(
                f"{_OWNER}: {where} is empty; expected a line with the names of the columns"
            )
        places = _places(where, header, names)
        values: dict[str, list[Any]] = {name: [] for name in names}
        lines: list[int] = []
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise DecodeError(
                    f"{_OWNER}: {where}, line {reader.line_num}: {len(row)} fields; expected {len(header)}, as in "
                    "the first line (quote fields that have the delimiter or a line break)"
                )
            for name, place in places.items():
                values[name].append(row[place])
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DecodeError(f"{_OWNER}: {where}, line {reader.line_num}: not CSV: {error}") from error
    except UnicodeDecodeError as error:
        raise _not_text(where, error) from error
    if not lines:
        raise EmptyDatasetError(
            f"{_OWNER}: {where} has no samples; expected a line for each, after the first line"
        )
    return _Rows(where, values, lines)


def _delimiter(where: str, text: io.TextIOWrapper) -> str:
    """Return the delimiter of a CSV file, and return to its start."""
    try:
        first = text.read(_SNIFFED)
    except UnicodeDecodeError as error:
        raise _not_text(where, error) from error
    text.seek(0)
    line = next((line for line in first.splitlines() if line), "")
    counts = {mark: line.count(mark) for mark in _DELIMITERS}
    likely = max(_DELIMITERS, key=lambda mark: counts[mark])
    if counts[likely] and sum(count == counts[likely] for count in counts.values()) > 1:
        raise DecodeError(
            f"{_OWNER}: {where}: the first line has several delimiters as often: {line!r}; expected one of them: give "
            "delimiter="
        )
    return likely


def _places(where: str, header: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    places = {}
    for name in names:
        if name not in header:
            argument = _ARGUMENT
            if len(header) == 1 and any(mark in header[0] for mark in _DELIMITERS):
                argument += "; delimiter= is the character between them, and None finds it out"
            raise missing_column(_OWNER, where, argument, name, header)
        if header.count(name) > 1:
            raise ArgumentError(f"{_OWNER}: {where} has {header.count(name)} columns {name!r}; expected one")
        places[name] = header.index(name)
    return places


def _json_rows(where: str, text: io.TextIOWrapper, names: Sequence[str]) -> _Rows:
    values: dict[str, list[Any]] = {name: [] for name in names}
    lines: list[int] = []
    try:
        for line, row in enumerate(text, 1):
            if not row.strip():
                continue
            try:
                found = json.loads(row)
            except (ValueError, RecursionError) as error:
                raise DecodeError(f"{_OWNER}: {where}, line {line}: not JSON: {error}") from error
            if not isinstance(found, dict):
                raise DecodeError(
                    f"{_OWNER}: {where}, line {line}: a {type(found).__name__}; expected an object, {{...}}"
                )
            for name in names:
                values[name].append(_member(where, line, found, name))
            lines.append(line)
    except UnicodeDecodeError as error:
        raise _not_text(where, error) from error
    if not lines:
        raise EmptyDatasetError(f"{_OWNER}: {where} has no samples; expected a JSON object in each line")
    return _Rows(where, values, lines)


def _member(where: str, line: int, found: dict[str, Any], name: str) -> Any:
    if name in found:
        return found[name]
    inner: Any = found
    for part in name.split("."):
        if not isinstance(inner, dict) or part not in inner:
            known = list(inner) if isinstance(inner, dict) else list(found)
            raise missing_column(_OWNER, f"{where}, line {line}", _ARGUMENT, name, known)
        inner = inner[part]
    return inner


def _not_text(where: str, error: UnicodeDecodeError) -> DecodeError:
    return DecodeError(
        f"{_OWNER}: {where} is not {error.encoding.upper()}: byte {error.object[error.start]:#04x}; expected UTF-8, or "
        "UTF-16 with a byte order mark: convert it"
    )


# Values


def _check_texts(rows: _Rows, columns: Columns) -> None:
    """Raise if a path is not a text, or is empty."""
    for name in columns.files():
        for row, value in enumerate(rows.values[name]):
            if not isinstance(value, str) or not value or "\0" in value:
                raise rows.error(row, f"{name!r} is {value!r}; expected a path")


def _listed(where: str, rows: _Rows, columns: Columns, labels: list[Any] | None) -> Manifest:
    masks = None if columns.masks is None else rows.values[columns.masks]
    pairs = {name: rows.values[column] for name, column in columns.pairs.items()}
    return Manifest(
        os.path.dirname(where) or os.curdir, rows.values[columns.image], labels, None, masks, pairs
    )


def _text_labels(rows: _Rows, name: str, classes: Sequence[str] | None) -> list[Any]:
    """Labels of a column of text: numbers if all are, or else names of classes."""
    values: list[str] = rows.values[name]
    if classes is not None and {*class_names(_OWNER, classes, repeated=True)}.issuperset(values):
        return values
    if all(map(_WHOLE.fullmatch, values)):
        for row, value in enumerate(values):
            if len(value) > _LONGEST_NUMBER:
                raise rows.error(row, f"{name!r} is {value[:40]!r}...; expected a number of 64 bits")
        return list(map(int, values))
    if all(map(_is_number, values)):
        return list(map(float, values))
    for row, value in enumerate(values):
        if not value:
            raise rows.error(row, f"{name!r} is empty; expected a number or the name of a class")
    _check_names(rows, [[value] for value in values], Columns("", {}, name, None, "xyxy", None, classes))
    return values


def _is_number(value: str) -> bool:
    """Whether a text is a finite number; Python's separator "_" is none of its characters."""
    try:
        return "_" not in value and math.isfinite(float(value))
    except ValueError:
        return False


def _check_names(rows: _Rows, labels: Iterable[Sequence[Any]], columns: Columns) -> None:
    """Raise if a label is not one of the classes, where these are given."""
    known = None if columns.classes is None else class_names(_OWNER, columns.classes)
    for row, names in enumerate(labels):
        for name in names:
            if name == "":
                raise rows.error(row, f"{columns.label!r} has an empty name; expected the name of a class")
            if known is not None and name not in known:
                shown = f"{', '.join(known[:30])}{', ...' if known[30:] else ''}"
                raise rows.error(row, f"{columns.label!r} is {name!r}; expected one of the classes: {shown}")


def _vectors(rows: _Rows, names: Sequence[str], texts: bool) -> list[list[float]]:
    """Labels of several columns of numbers."""
    return [
        [_number(rows, row, name, value, texts) for name, value in zip(names, values, strict=True)]
        for row, values in enumerate(zip(*(rows.values[name] for name in names), strict=True))
    ]


def _number(rows: _Rows, row: int, name: str, value: Any, texts: bool) -> float:
    if texts and _is_number(value):
        return float(value)
    if not texts and type(value) in (int, float) and abs(value) <= _LARGEST_NUMBER:
        return float(value)
    raise rows.error(row, f"{name!r} is {value!r}; expected a number")


def _check_json_labels(rows: _Rows, name: str, columns: Columns) -> None:
    """Raise if the labels are not all numbers, names, lists of numbers of one length, or lists of names."""
    values = rows.values[name]
    kinds = {int: "numbers", float: "numbers", str: "names", list: "lists"}
    first = kinds.get(type(values[0]))
    for row, value in enumerate(values):
        kind = kinds.get(type(value))
        if kind is None or kind != first:
            raise rows.error(
                row,
                f"{name!r} is {value!r}; expected a number, the name of a class or a list of either, of one kind in "
                f"all lines ({first or 'none'} in line {rows.lines[0]})",
            )
        if type(value) is float and not math.isfinite(value):
            raise rows.error(row, f"{name!r} is {value!r}; expected a finite number")
    if first == "names":
        _check_names(rows, [[value] for value in values], columns)
    elif first == "lists":
        inner = [label for value in values for label in value]
        if all(isinstance(label, str) for label in inner):
            _check_names(rows, values, columns)
            return
        for row, value in enumerate(values):
            for label in value:
                _number(rows, row, name, label, texts=False)
            if len(value) != len(values[0]):
                raise rows.error(
                    row,
                    f"{name!r} has {len(value)} numbers, and {len(values[0])} in line {rows.lines[0]}; expected as "
                    "many in all lines (a list of classes has their names, not numbers)",
                )


# Boxes


def _with_lists(where: str, rows: _Rows, columns: Columns) -> Manifest:
    """Samples whose rows have all of their boxes."""
    (name,) = columns.sides()
    boxes = []
    for row, value in enumerate(rows.values[name]):
        if not isinstance(value, list) or not all(isinstance(box, list) and len(box) == 4 for box in value):
            raise rows.error(row, f"{name!r} is {value!r}; expected a list of boxes, of 4 numbers each")
        boxes.append([_checked_box(rows, row, name, box, columns, texts=False) for box in value])
    labels = None
    if columns.label is not None:
        (label,) = columns.labels()
        labels = rows.values[label]
        for row, value in enumerate(labels):
            if not isinstance(value, list) or len(value) != len(boxes[row]):
                raise rows.error(
                    row, f"{label!r} is {value!r}; expected a list of {len(boxes[row])}, a label for each box"
                )
        if all(isinstance(one, str) for value in labels for one in value):
            _check_names(rows, labels, columns)
        else:
            for row, value in enumerate(labels):
                for one in value:
                    _number(rows, row, label, one, texts=False)
    return _listed(where, rows, columns, labels)._replace(boxes=boxes)


def _grouped(where: str, rows: _Rows, columns: Columns, texts: bool) -> Manifest:
    """Samples whose rows have one box each, or none."""
    sides, labels = columns.sides(), columns.labels()
    flat: list[Any] = []
    if labels:
        flat = rows.values[labels[0]]
    boxed = [_has_box(rows, row, sides) for row in range(len(rows.lines))]
    if labels:
        given = [row for row, there in enumerate(boxed) if there]
        part = _Rows(
            rows.where, {labels[0]: [flat[row] for row in given]}, [rows.lines[row] for row in given]
        )
        if texts:
            found = _text_labels(part, labels[0], columns.classes) if given else []
        else:
            found = part.values[labels[0]]
            if given:
                _check_json_labels(part, labels[0], columns)
        flat = list(itertools.repeat(None, len(boxed)))
        for row, value in zip(given, found, strict=True):
            flat[row] = value
    places: dict[str, int] = {}
    paths: list[str] = []
    others = columns.files()[1:]
    files: dict[str, list[str]] = {name: [] for name in others}
    boxes_of: list[list[Any]] = []
    labels_of: list[list[Any]] = []
    for row, path in enumerate(rows.values[columns.image]):
        place = places.setdefault(path, len(paths))
        if place == len(paths):
            paths.append(path)
            for name, listed in files.items():
                listed.append(rows.values[name][row])
            boxes_of.append([])
            labels_of.append([])
        for name, listed in files.items():
            if rows.values[name][row] != listed[place]:
                raise rows.error(
                    row,
                    f"{name!r} is {rows.values[name][row]!r}; expected {listed[place]!r}, as before for {path!r}",
                )
        if boxed[row]:
            values = [rows.values[name][row] for name in sides]
            boxes_of[place].append(_checked_box(rows, row, ", ".join(sides), values, columns, texts))
            labels_of[place].append(flat[row] if labels else None)
    return Manifest(
        os.path.dirname(where) or os.curdir,
        paths,
        labels_of if labels else None,
        boxes_of,
        None if columns.masks is None else files[columns.masks],
        {name: files[column] for name, column in columns.pairs.items()},
    )


def _has_box(rows: _Rows, row: int, sides: Sequence[str]) -> bool:
    missing = [name for name in sides if rows.values[name][row] in ("", None)]
    if missing and len(missing) < len(sides):
        raise rows.error(row, f"{missing[0]!r} is empty; expected all four coordinates of a box, or none")
    return not missing


def _checked_box(
    rows: _Rows, row: int, name: str, values: Sequence[Any], columns: Columns, texts: bool
) -> list[float]:
    box = box_of([_number(rows, row, name, value, texts) for value in values], columns.box_format)
    if box[0] > box[2] or box[1] > box[3]:
        expected = (
            "x0, y0, x1, y1 with the smaller first (box_format='xywh' reads x, y, width, height)"
            if columns.box_format == "xyxy"
            else "x, y, width, height without negative sizes"
        )
        raise rows.error(row, f"the box {list(values)!r} ({name}); expected {expected}")
    return box
