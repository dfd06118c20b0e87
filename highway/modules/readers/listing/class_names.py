"""Logs the classes of a reader, and warns of suspicious names."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.arguments import class_names
from highway.errors import ArgumentError

__all__ = ["counts_of", "log_classes", "looks", "remarks", "shown_names", "stored_classes", "warn_of_alike"]

_logger = logging.getLogger("highway.modules")

_WORD = r"(train(ing|val)?|val(id(ation)?)?|test(ing)?|dev|eval(uation)?|holdout|unlabell?ed)"
_SPLIT = re.compile(_WORD + r"([-_ ]?(set|data|\d+))?")
# As a part of a longer name; folds of a cross-validation only as the whole name.
_INNER_WORD = re.compile(rf"(?<![a-z]){_WORD}(?![a-z])|^fold[-_ ]?\d+$")

_MOST_CLASSES = 1 << 24
_SHOWN = 12
_LONGEST = 60


def looks(name: str) -> str:
    """Normalize a name so that names that look the same are equal: case, Unicode normalization and spaces."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def counts_of(owner: str, labels: NDArray[Any] | None, classes: Sequence[str] | None) -> NDArray[np.int64]:
    """Return how often each class is a label: int64 (number of classes,).

    Parameters
    ----------
    owner : str
        Name of the reader, for errors.
    labels : ndarray or None
        Class numbers (N,); or ones for the classes of a sample, float32 (N, number of classes).
    classes : sequence of str or None
        None where only numbers are known; the largest one is then the last class.

    Raises
    ------
    ArgumentError
        The labels are something else.
    """
    if labels is not None and classes is not None and labels.shape[1:] == (len(classes),):
        counts: NDArray[np.int64] = np.count_nonzero(labels, axis=0).astype(np.int64)
        return counts
    if labels is not None and labels.ndim == 1 and (labels.dtype.kind in "iu" or not labels.size):
        least, most = (int(labels.min()), int(labels.max())) if labels.size else (0, -1)
        if least >= 0 and most < _MOST_CLASSES:
            return np.bincount(labels.astype(np.int64), minlength=len(classes or ())).astype(np.int64)
        found = f"numbers from {least} to {most}"
    else:
        found = "missing" if labels is None else f"{labels.dtype} of shape {labels.shape}"
    raise ArgumentError(f"{owner}: the labels are {found}; expected numbers of classes, from 0 on")


def shown_names(names: Sequence[str]) -> str:
    """The first names, as one line."""
    shown = [
        name if name.isprintable() and len(name) <= _LONGEST else repr(name[:_LONGEST])
        for name in names[:_SHOWN]
    ]
    return ", ".join([*shown, "..."] if len(names) > _SHOWN else shown)


def log_classes(owner: str, classes: Sequence[str], origin: str) -> None:
    """Log how many classes there are, where they come from, and the first names."""
    noun = "class" if len(classes) == 1 else "classes"
    _logger.info("%s: %d %s, %s: %s", owner, len(classes), noun, origin, shown_names(classes))


def warn_of_alike(owner: str, names: Iterable[str], where: str) -> None:
    """Log a warning if names differ only in case, spaces or Unicode normalization.

    Parameters
    ----------
    owner, where : str
        Name of the reader, and the place of the names.
    names : iterable of str
    """
    alike = _alike(sorted({*names}))
    if alike:
        _logger.warning(
            "%s: names of classes that look alike %s: %s; they differ in upper and lower case, spaces or Unicode "
            "normalization alone, and are different classes: if they are one, correct the name",
            owner,
            where,
            "; ".join(map(_shown_apart, alike[:_SHOWN])),
        )


def remarks(root: bytes, classes: Sequence[str], names: Sequence[bytes]) -> list[str]:
    """Warnings about class folders that were found.

    Parameters
    ----------
    root : bytes
        The folder of the class folders.
    classes : sequence of str
    names : sequence of bytes
        The pictures, relative to `root`.

    Returns
    -------
    list of str
        Sentences without a full stop.
    """
    said = []
    for group in _alike(classes):
        first, *others = (f"{name!a} (label {classes.index(name)})" for name in group)
        said += [
            f"{first} and {other} are two classes whose names look alike; if they are one, put their pictures into one "
            "folder"
            for other in others
        ]
    deeper = all(name.count(b"/") > 1 for name in names)
    inner = os.path.join(os.fsdecode(root), classes[0])
    if all(_SPLIT.fullmatch(looks(name)) for name in classes):
        said.append(
            f"the classes are {', '.join(map(repr, classes))}, which are names of splits"
            + (f"; to read one split, whose folders are the classes, use {inner!r}" if deeper else "")
        )
    elif len(classes) == 1 and deeper:
        said.append(
            f"{classes[0]!r} is the only class, and all of its pictures are in its sub-folders; if those are the "
            f"classes, use {inner!r}"
        )
    else:
        splits = _parts_of_one(classes, names)
        if splits:
            said.append(
                f"the classes {', '.join(map(repr, splits))} are named like splits of one set, and all pictures are "
                f"in their sub-folders; if those are the classes, use {os.path.join(os.fsdecode(root), splits[0])!r}"
            )
    return said


def _parts_of_one(classes: Sequence[str], names: Sequence[bytes]) -> list[str]:
    """Classes that have pictures only in sub-folders and differ only in the name of a split: a_train and a_test."""
    shallow = {name.partition(b"/")[0] for name in names if name.count(b"/") == 1}
    groups: dict[str, list[str]] = {}
    for name in classes:
        rest, found = _INNER_WORD.subn("", looks(name), count=1)
        if found and os.fsencode(name) not in shallow:
            groups.setdefault(rest, []).append(name)
    return max(groups.values(), key=len) if any(len(group) > 1 for group in groups.values()) else []


def stored_classes(
    owner: str, path: str, stored: list[str] | int | None, wanted: object
) -> list[str] | int | None:
    """Classes of a store, whose labels are already numbers; `wanted` are the classes that the user gave, or None.

    Raises
    ------
    ArgumentError
        `wanted` are not the classes of the store, in its order.
    """
    if wanted is None:
        return stored
    names = class_names(owner, wanted)
    if names == stored:
        return stored
    if not isinstance(stored, list):
        raise ArgumentError(
            f"{owner}: classes is given, and {path!r} does not have the names of its classes; expected None"
        )
    both = zip(names, stored, strict=False)
    first = next(
        (number for number, (one, other) in enumerate(both) if one != other), min(len(names), len(stored))
    )
    mine, other = (repr(each[first]) if first < len(each) else "none" for each in (names, stored))
    raise ArgumentError(
        f"{owner}: label {first} is {mine} in classes ({len(names)}), {other} in {path!r} ({len(stored)}), whose "
        "labels are numbers already; expected the same names in the same order: pack again with these classes"
    )


def _alike(names: Iterable[str]) -> list[list[str]]:
    """Groups of different names that look the same, in their order."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(looks(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _shown_apart(names: Sequence[str]) -> str:
    """Names in a form that shows how they differ."""
    composed = {unicodedata.normalize("NFC", name) for name in names}
    return " and ".join(map(repr if len(composed) == len(names) else ascii, names))
