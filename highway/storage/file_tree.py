"""Tree: folders and files. LocalTree: those of this machine; walks follow links but not loops, and wait."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from highway.errors import HighwayError, ReadError
from highway.storage.files import read_whole, scanned, status_of
from highway.storage.outages import ask

if TYPE_CHECKING:
    from highway.storage.ranges import Ranges

__all__ = ["Entry", "LocalTree", "Tree", "is_folder", "walk"]


class Entry(Protocol):
    """A file or folder in a folder; `os.DirEntry` is one."""

    @property
    def name(self) -> bytes: ...
    @property
    def path(self) -> bytes: ...
    def is_symlink(self) -> bool: ...


class Tree(Protocol):
    """Folders and files, of this machine or of a store. Paths are absolute: those of the system, or URLs."""

    def scanned(self, path: bytes) -> Sequence[Entry]:
        """Return the entries of a folder; raises OSError and StorageError."""

    def is_folder(self, entry: Any) -> bool:
        """Return whether an entry is a folder or a link to one; raises OSError and StorageError."""

    def walk(
        self, root: bytes, folder: bytes, left: Callable[[bytes, Any], bool], is_file: Callable[[Any], bool]
    ) -> Iterator[tuple[bytes, Entry, bool]]:
        """Yield all files and folders in a folder; see `walk`."""

    def exists(self, path: bytes) -> bool:
        """Return whether a path can be reached; raises StorageError."""

    def is_directory(self, path: bytes) -> bool:
        """Return whether a path is a folder; raises StorageError."""

    def read(self, path: bytes, most: int) -> bytes:
        """Return the contents of a file of up to `most` bytes; see `read_whole`."""

    def contents(self, paths: Sequence[bytes], most: int) -> Iterator[bytes | HighwayError]:
        """Yield the contents of files, or the ReadError of `read`."""

    def ranges(self, paths: Sequence[bytes]) -> Ranges:
        """Return where files lie in a store; one that was not listed has no known size. Only for URLs."""


class LocalTree(Tree):
    """The folders and files of this machine; waits during storage outages.

    Parameters
    ----------
    owner : str
        Name of the reader, for errors.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner

    def scanned(self, path: bytes) -> Sequence[Entry]:
        return scanned(path, self._owner)

    def is_folder(self, entry: Any) -> bool:
        return is_folder(entry, self._owner)

    def walk(
        self, root: bytes, folder: bytes, left: Callable[[bytes, Any], bool], is_file: Callable[[Any], bool]
    ) -> Iterator[tuple[bytes, Entry, bool]]:
        return walk(root, folder, self._owner, left, is_file)

    def exists(self, path: bytes) -> bool:
        return status_of(path, self._owner) is not None

    def is_directory(self, path: bytes) -> bool:
        found = status_of(path, self._owner)
        return found is not None and stat.S_ISDIR(found.st_mode)

    def read(self, path: bytes, most: int) -> bytes:
        return read_whole(path, most, self._owner)

    def contents(self, paths: Sequence[bytes], most: int) -> Iterator[bytes | HighwayError]:
        for path in paths:
            try:
                yield self.read(path, most)
            except ReadError as error:
                yield error

    def ranges(self, paths: Sequence[bytes]) -> Ranges:
        raise TypeError("local files are read by their paths")


def walk(
    root: bytes,
    folder: bytes,
    owner: str,
    left: Callable[[bytes, os.DirEntry[bytes]], bool],
    is_file: Callable[[os.DirEntry[bytes]], bool],
) -> Iterator[tuple[bytes, os.DirEntry[bytes], bool]]:
    """Yield all files and folders in a folder, recursively, in no particular order.

    Parameters
    ----------
    root : bytes
        Ends with a separator.
    folder : bytes
        Relative to `root`; empty for `root` itself.
    owner : str
        Name of the reader, for errors.
    left : callable
        Whether to yield a folder (its name relative to `root`, its entry) without entering it.
    is_file : callable
        Whether a link counts as a link to a file by its name; other links are followed, which is as slow as opening.

    Yields
    ------
    name : bytes
        Relative to `root`.
    entry : os.DirEntry
    is_folder : bool

    Raises
    ------
    StorageError
        The storage failed for longer than the reader waits.
    OSError
    """
    # Each folder with the identities of its parents: a link back to one of them is a loop.
    waiting = [(folder, frozenset({_identity(root, owner), _identity(root + folder, owner)}))]
    while waiting:
        here, above = waiting.pop()
        inside = here + b"/" if here else here
        for entry in scanned(root + here, owner):
            name = inside + entry.name
            # For most entries the system has already reported the type.
            if _is_plain(entry) or (entry.is_symlink() and is_file(entry)) or not is_folder(entry, owner):
                yield name, entry, False
            elif left(name, entry):
                yield name, entry, True
            else:
                identity = _identity(root + name, owner)
                if identity not in above:
                    waiting.append((name, above | {identity}))
                    yield name, entry, True


def is_folder(entry: os.DirEntry[bytes], owner: str) -> bool:
    """Return whether an entry is a folder or a link to one.

    Raises
    ------
    StorageError, OSError
        As for `walk`.
    """
    try:
        return ask(owner, entry.path, entry.is_dir)
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise


def _is_plain(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:  # the type was not reported yet; `is_folder` waits for the storage
        return False


def _identity(path: bytes, owner: str) -> tuple[int, int]:
    status = ask(owner, path, lambda: os.stat(path))
    return status.st_dev, status.st_ino
