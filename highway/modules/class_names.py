"""What is odd about the names of class folders: names of splits, and names that look alike."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence

__all__ = ["looks", "remarks"]

_WORD = r"(train(ing|val)?|val(id(ation)?)?|test(ing)?|dev|eval(uation)?|holdout|unlabell?ed)"
_SPLIT = re.compile(_WORD + r"([-_ ]?(set|data|\d+))?")
# In a longer name; folds of a cross validation have no other one.
_INNER_WORD = re.compile(rf"(?<![a-z]){_WORD}(?![a-z])|^fold[-_ ]?\d+$")


def looks(name: str) -> str:
    """What names have in common that look the same: case, Unicode normalization and spaces do not count."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def remarks(root: bytes, classes: Sequence[str], names: Sequence[bytes]) -> list[str]:
    """What a user should know of class folders that were found.

    Parameters
    ----------
    root : bytes
        The folder that they are in.
    classes : sequence of str
    names : sequence of bytes
        The pictures, relative to `root`.

    Returns
    -------
    list of str
        Sentences without a dot.
    """
    said = []
    first: dict[str, int] = {}
    for label, name in enumerate(classes):
        other = first.setdefault(looks(name), label)
        if other != label:
            said.append(
                f"{classes[other]!a} (label {other}) and {name!a} (label {label}) are two classes whose names look "
                "alike; if they are one, put their pictures into one folder"
            )
    deeper = all(name.count(b"/") > 1 for name in names)
    inner = os.path.join(os.fsdecode(root), classes[0])
    if all(_SPLIT.fullmatch(looks(name)) for name in classes):
        said.append(
            f"the classes are {', '.join(map(repr, classes))}, which are names of splits"
            + (f"; to read one split, whose folders are the classes, use {inner!r}" if deeper else "")
        )
    elif len(classes) == 1 and deeper:
        said.append(
            f"{classes[0]!r} is the one class, and all of its pictures lie in folders of it; if those are the classes, "
            f"use {inner!r}"
        )
    else:
        splits = _parts_of_one(classes, names)
        if splits:
            said.append(
                f"the classes {', '.join(map(repr, splits))} are named like splits of one set, and all their pictures "
                f"lie in folders of them; if those are the classes, use {os.path.join(os.fsdecode(root), splits[0])!r}"
            )
    return said


def _parts_of_one(classes: Sequence[str], names: Sequence[bytes]) -> list[str]:
    """Classes without pictures of their own, but in folders, that differ in the name of a split: a_train and a_test."""
    shallow = {name.partition(b"/")[0] for name in names if name.count(b"/") == 1}
    groups: dict[str, list[str]] = {}
    for name in classes:
        rest, found = _INNER_WORD.subn("", looks(name), count=1)
        if found and os.fsencode(name) not in shallow:
            groups.setdefault(rest, []).append(name)
    return max(groups.values(), key=len) if any(len(group) > 1 for group in groups.values()) else []
