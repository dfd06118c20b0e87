"""Walks folders recursively: follows links but not loops, and waits during storage outages."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from highway.storage.files import scanned
from highway.storage.outages import ask

__all__ = ["is_folder", "walk"]


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
