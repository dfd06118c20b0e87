"""What is said of the classes that a reader has: how many, where they come from, and names that look alike."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Sequence

from highway.arguments import class_names
from highway.errors import ArgumentError
from highway.modules.class_names import looks

__all__ = ["log_classes", "shown_names", "stored_classes", "warn_of_alike"]

_logger = logging.getLogger("highway.modules")

_SHOWN = 12
_LONGEST = 60


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
    """Log a warning where names differ in upper and lower case, spaces or Unicode normalization alone.

    Parameters
    ----------
    owner, where : str
        Who reads, and where the names stand.
    names : iterable of str
    """
    groups: dict[str, list[str]] = {}
    for name in sorted({*names}):
        groups.setdefault(looks(name), []).append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    if alike:
        _logger.warning(
            "%s: names of classes that look alike %s: %s; they differ in upper and lower case, spaces or Unicode "
            "normalization alone, and are different classes: if they are one, correct the name",
            owner,
            where,
            "; ".join(map(_shown_apart, alike[:_SHOWN])),
        )


def stored_classes(
    owner: str, path: str, stored: list[str] | int | None, wanted: object
) -> list[str] | int | None:
    """Classes of a store, whose labels are numbers already; `wanted` are those that a user gave, or None.

    Raises
    ------
    ArgumentError
        They are not those that the store has, in its order.
    """
    if wanted is None:
        return stored
    names = class_names(owner, wanted)
    if names == stored:
        return stored
    if not isinstance(stored, list):
        raise ArgumentError(
            f"{owner}: classes is given, and {path!r} does not know the names of its classes; expected none"
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


def _shown_apart(names: Sequence[str]) -> str:
    """Names so that one sees in what they differ."""
    composed = {unicodedata.normalize("NFC", name) for name in names}
    return " and ".join(map(repr if len(composed) == len(names) else ascii, names))
