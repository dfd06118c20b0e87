"""What is odd about the names of class folders: names of splits, and names that look alike."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence

__all__ = ["looks", "remarks"]

_SPLIT = re.compile(
    r"(train(ing|val)?|val(id(ation)?)?|test(ing)?|dev|eval(uation)?|holdout|unlabell?ed)([-_ ]?(set|data|\d+))?"
)


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
    return said
