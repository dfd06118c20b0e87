"""Names of picture files: their extensions, and unique names of files that are written for samples."""

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
    b".jpg .jpeg .jpe .jfif .png .webp .bmp .gif .tif .tiff .pgm .avif .heic .heif .jxl".split()
)
"""Extensions of picture files, in any case. The first bytes of a file decide its format."""

# Systems do not allow longer paths.
_LONGEST_KEY = 4096

_unique = itertools.count()


def folded(name: str) -> str:
    """Return the name without differences of case and Unicode normalization, which a file system may ignore."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name.casefold())


def name_of(key: str, owner: str) -> tuple[str, str]:
    """Return the path of the file of a sample, relative to a folder, by its key.

    Returns
    -------
    stem, ending : str
        The stem of the normalized path. The ending is an extension of pictures, or empty.

    Raises
    ------
    ArgumentError
        The key leads out of the folder.
    """
    # Keys may be absolute paths: make them relative.
    relative = key.lstrip("/")
    parts = relative.split("/")
    if len(relative) > _LONGEST_KEY or not relative or parts[-1] in ("", ".") or ".." in parts or "\0" in key:
        raise ArgumentError(
            f"{owner}: key {key!r} is not a file inside of the folder; expected a path without '..' "
            "(use os.path.abspath in your list of files)"
        )
    relative = posixpath.normpath(relative)
    stem, ending = os.path.splitext(relative)
    return (stem, ending) if os.fsencode(ending.lower()) in EXTENSIONS else (relative, "")


def alike(keys: Iterable[str]) -> frozenset[str]:
    """Return the stems (see `name_of`) of keys that differ only in the ending."""
    found = set()
    endings: dict[int, str] = {}
    for key in keys:
        try:
            stem, ending = name_of(key, "")
        except ArgumentError:  # raised again when the file is written
            continue
        if endings.setdefault(hash(stem), sys.intern(ending)) != ending:
            found.add(stem)
    return frozenset(found)


class FoldingFolder:
    """A folder for output, and whether its file system ignores case or Unicode normalization in names.

    Parameters
    ----------
    folder : str
        Created at the first call of `name`, if needed.
    owner : str
        Name of the writer, for errors.
    """

    def __init__(self, folder: str, owner: str) -> None:
        self._folder, self._owner = folder, owner
        self._folds: bool | None = None

    def name(self, name: str) -> str:
        """Return the name, folded if the file system treats several names as the same.

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
    """Remembers the sample of each written file, so that no other sample overwrites it."""

    def __init__(self) -> None:
        # Only hashes, about 200 bytes per file: there may be millions of files.
        self._keys: dict[int, int] = {}
        self._indices: dict[int, tuple[int, int]] = {}

    def claim(self, name: str, key: str, epoch: int, index: int | None) -> bool:
        """Claim a file for a sample, once per epoch; return False if it belongs to another sample.

        Parameters
        ----------
        name, key : str
        epoch : int
        index : int or None
            Index of the sample; two samples of an epoch may have the same key. None if unknown.
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
