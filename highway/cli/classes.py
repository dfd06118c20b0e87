"""The classes of a dataset: count the samples or objects of each, print them, and read a printed list."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from highway.engine import Pipeline
from highway.errors import DatasetError
from highway.modules import (
    ImageFileReader,
    LevelDBSource,
    ListReader,
    TableReader,
    TarReader,
    VOCReader,
)
from highway.storage.printing import printable

__all__ = ["line", "of_reader", "of_store", "read_file"]

_BATCH = 256


def of_reader(
    reader: ImageFileReader | VOCReader | TarReader | TableReader | ListReader,
) -> list[tuple[str, int | None]]:
    """Return name and count of every class, in the order of their labels; classes without a name have their number.

    Raises
    ------
    ArgumentError
        The labels are no classes.
    """
    counts = reader.class_counts().tolist()
    names = map(str, range(len(counts))) if reader.classes is None else reader.classes
    return list(zip(names, counts, strict=True))


def of_store(path: str | os.PathLike[str], classes: list[str] | None = None) -> list[tuple[str, int | None]]:
    """Return name and count of every class of a store; the count is None where its labels are not one integer each.

    Raises
    ------
    ArgumentError
        The classes of the store differ from `classes`, or it has no labels.
    DatasetError
        The store has no names of its classes.
    StoreError, CorruptStoreError
    """
    source = LevelDBSource(
        path, _BATCH, shuffle=False, epochs=1, fields=["labels"], classes=classes, allow_incomplete=True
    )
    names = source.classes
    if not isinstance(names, list):
        source.interrupt()
        raise DatasetError(f"classes: {os.fspath(path)!r} has no names of its classes")
    counts = np.zeros(len(names), np.int64)
    with Pipeline([source]) as pipeline:
        for batch in pipeline:
            labels = batch.labels
            if labels.dtype.kind not in "iu" or labels.ndim != 1:
                return [(name, None) for name in names]
            counts += np.bincount(labels, minlength=len(names))[: len(names)]
    return list(zip(names, counts.tolist(), strict=True))


def line(number: int, name: str, count: int | None) -> str:
    """Format a class as a line: label, name and count, separated by tabs."""
    return f"{number}\t{printable(name)}\t{'-' if count is None else count}"


def read_file(path: Path) -> list[str]:
    """Return the class names in a file: one per line, or in the format of `line`.

    Raises
    ------
    DatasetError
        The file cannot be read, or its lines are not numbered from 0 on.
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
                    f"--classes: {os.fspath(path)!r} has the label {parts[0]!r}; expected {len(names)}: a line for "
                    "every class, in the order of their labels"
                )
            each = parts[1]
        if each.strip():
            names.append(each.strip())
    return names
