"""What is said of the classes that a reader has: how many, where they come from, and names that look alike."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Sequence

from highway.modules.class_names import looks

__all__ = ["log_classes", "shown_names", "warn_of_alike"]

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


def _shown_apart(names: Sequence[str]) -> str:
    """Names so that one sees in what they differ."""
    composed = {unicodedata.normalize("NFC", name) for name in names}
    return " and ".join(map(repr if len(composed) == len(names) else ascii, names))
