"""Names of picture files: their endings, and the names of those that are written for samples, no two alike."""

from __future__ import annotations

import itertools
import os
import posixpath
import sys
import unicodedata
from collections.abc import Iterable

from highway.errors import ArgumentError
from highway.storage.files import write_whole

__all__ = ["EXTENSIONS", "Claims", "FoldingFolder", "alike", "folded", "name_of"]

EXTENSIONS = frozenset(
    (b".jpg", b".jpeg", b".jpe", b".jfif", b".png", b".webp", b".bmp", b".gif", b".tif", b".tiff")
)
"""Endings of the names that count as pictures, in any case. What a file holds is decided by its first bytes."""

# Longer paths than systems have.
_LONGEST_KEY = 4096

_unique = itertools.count()


def folded(name: str) -> str:
    """What names have in common that a file system may take for one: case and Unicode normalization do not count."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name.casefold())


def name_of(key: str, owner: str) -> tuple[str, str]:
    """Where a sample is written to, below a folder, by its key.

    Returns
    -------
    stem, ending : str
        One stem for all ways to write a path. The ending is that of a picture, or empty.

    Raises
    ------
    ArgumentError
        The key would lead out of the folder.
    """
    # Of a list of absolute paths: below the folder as well.
    relative = key.lstrip("/")
    parts = relative.split("/")
    if len(relative) > _LONGEST_KEY or not relative or parts[-1] in ("", ".") or ".." in parts or "\0" in key:
        raise ArgumentError(
            f"{owner}: key {key!r} names no file inside of the folder; expected a path without '..' "
            "(os.path.abspath, where it is from a list of yours)"
        )
    relative = posixpath.normpath(relative)
    stem, ending = os.path.splitext(relative)
    return (stem, ending) if os.fsencode(ending.lower()) in EXTENSIONS else (relative, "")


def alike(keys: Iterable[str]) -> frozenset[str]:
    """The stems, as `name_of` gives them, of keys that differ in the ending alone."""
    found = set()
    endings: dict[int, str] = {}
    for key in keys:
        try:
            stem, ending = name_of(key, "")
        except ArgumentError:  # told when it is to be written
            continue
        if endings.setdefault(hash(stem), sys.intern(ending)) != ending:
            found.add(stem)
    return frozenset(found)


class FoldingFolder:
    """A folder that is written to, and whether its file system takes names of other case or normalization for one.

    Parameters
    ----------
    folder : str
        Made if need be, when it is asked first.
    owner : str
        Who writes, for errors.
    """

    def __init__(self, folder: str, owner: str) -> None:
        self._folder, self._owner = folder, owner
        self._folds: bool | None = None

    def name(self, name: str) -> str:
        """The name, or where the file system takes several for one, what is the same for those.

        Raises
        ------
        WriteError
        """
        if self._folds is None:
            self._folds = self._found()
        return folded(name) if self._folds else name

    def _found(self) -> bool:
        unique = f"{os.getpid()}-{next(_unique)}"
        path = os.path.join(self._folder, f".highway-names-\u00e9-{unique}")
        others = (".highway-names-e\u0301-", ".HIGHWAY-NAMES-\u00c9-")
        write_whole(path, lambda file: None, self._owner)
        try:
            return any(os.path.lexists(os.path.join(self._folder, other + unique)) for other in others)
        finally:
            os.unlink(path)


class Claims:
    """Which sample each file was written for, so that no other sample is written over it."""

    def __init__(self) -> None:
        # Numbers alone, about 200 bytes a file: there may be millions.
        self._keys: dict[int, int] = {}
        self._indices: dict[int, tuple[int, int]] = {}

    def claim(self, name: str, key: str, epoch: int, index: int | None) -> bool:
        """Note a file, which is written in every epoch; False where it is another sample's.

        Parameters
        ----------
        name, key : str
        epoch : int
        index : int or None
            Of the sample; two samples of one epoch may have one key. None where that is not known.
        """
        number = hash(name)
        if self._keys.setdefault(number, hash(key)) != hash(key):
            return False
        if index is None:
            return True
        before = self._indices.get(number)
        self._indices[number] = epoch, index
        return before is None or before[0] != epoch or before[1] == index

    def __contains__(self, name: str) -> bool:
        return hash(name) in self._keys
