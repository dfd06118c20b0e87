"""Names of classes: where they come from, what is said of them, and names that only look different."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable, Sequence

from highway.errors import ArgumentError

__all__ = ["checked_classes", "log_classes", "shown_names", "warn_of_alike"]

_logger = logging.getLogger("highway.modules")

_SHOWN = 12
_LONGEST = 60


def checked_classes(owner: str, classes: object) -> list[str]:
    """Names of classes that a user gave, in their order.

    Raises
    ------
    ArgumentError
        They are no names, there are none, or one is there twice.
    """
    if isinstance(classes, Sequence) and not isinstance(classes, str):
        names = list(classes)
        if names and all(isinstance(name, str) for name in names) and len({*names}) == len(names):
            return [str(name) for name in names]
    raise ArgumentError(f"{owner}: classes is {classes!r}; expected names, each once")


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
        groups.setdefault(_folded(name), []).append(name)
    alike = [group for group in groups.values() if len(group) > 1]
    if alike:
        _logger.warning(
            "%s: classes with nearly the same name %s: %s; they differ in upper and lower case, spaces or Unicode "
            "normalization alone, and are read as different classes: correct one if they are one class",
            owner,
            where,
            "; ".join(map(_shown_apart, alike[:_SHOWN])),
        )


def _folded(name: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(folded.split())


def _shown_apart(names: Sequence[str]) -> str:
    """Names so that one sees in what they differ."""
    looks = {unicodedata.normalize("NFC", name) for name in names}
    return " and ".join(map(repr if len(looks) == len(names) else ascii, names))
