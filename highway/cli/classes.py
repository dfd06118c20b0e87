"""The classes of a data set: how many samples or objects each has, printed and read back."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from highway.engine import Pipeline
from highway.errors import DatasetError
from highway.modules import ImageFileReader, LevelDBSource, VOCReader
from highway.storage.printing import printable

__all__ = ["line", "of_reader", "of_store", "read_file"]

_BATCH = 256


def of_reader(reader: ImageFileReader | VOCReader) -> list[tuple[str, int | None]]:
    """Name and count of every class, in the order of their labels."""
    return list(zip(reader.classes, reader.class_counts().tolist(), strict=True))


def of_store(path: str | os.PathLike[str], classes: list[str] | None = None) -> list[tuple[str, int | None]]:
    """The same of a store, whose labels are read; None for a count where they are no whole numbers.

    Raises
    ------
    ArgumentError
        The store has other classes than those that are given, or no labels.
    DatasetError
        It does not know the names of its classes.
    StoreError, CorruptStoreError
    """
    source = LevelDBSource(
        path, _BATCH, shuffle=False, epochs=1, fields=["labels"], classes=classes, allow_incomplete=True
    )
    names = source.classes
    if not isinstance(names, list):
        source.interrupt()
        raise DatasetError(f"classes: {os.fspath(path)!r} does not know the names of its classes")
    counts = np.zeros(len(names), np.int64)
    with Pipeline([source]) as pipeline:
        for batch in pipeline:
            labels = batch.labels
            if labels.dtype.kind not in "iu" or labels.ndim != 1:
                return [(name, None) for name in names]
            counts += np.bincount(labels, minlength=len(names))[: len(names)]
    return list(zip(names, counts.tolist(), strict=True))


def line(number: int, name: str, count: int | None) -> str:
    """A class as a line: its label, its name and how many there are, with tabs between."""
    return f"{number}\t{printable(name)}\t{'-' if count is None else count}"


def read_file(path: Path) -> list[str]:
    """Names in a file: one a line, or as `line` makes them.

    Raises
    ------
    DatasetError
        The file cannot be read, or its lines are numbered otherwise than from 0 on.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DatasetError(f"--classes: {os.fspath(path)!r} cannot be read: {reason}") from None
    names: list[str] = []
    for each in text.splitlines():
        parts = each.split("\t")
        if len(parts) == 3:
            if parts[0] != str(len(names)):
                raise DatasetError(
                    f"--classes: {os.fspath(path)!r} has the label {parts[0]!r} where {len(names)} is expected: the "
                    "lines are those of all classes, in the order of their labels"
                )
            each = parts[1]
        if each.strip():
            names.append(each.strip())
    return names
