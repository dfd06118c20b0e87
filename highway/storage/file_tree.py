"""Folders below folders: links are followed, loops are not, and storage that fails is waited for."""

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
    """Yield all that is below a folder, in no order.

    Parameters
    ----------
    root : bytes
        With a separator at its end.
    folder : bytes
        Relative to `root`; empty for `root` itself.
    owner : str
        Who asks, for errors.
    left : callable
        Whether a folder, by its name relative to `root` and its entry, is yielded but not entered.
    is_file : callable
        Whether a link counts as one to a file by its name; others are followed, which takes as long as opening them.

    Yields
    ------
    name : bytes
        Relative to `root`.
    entry : os.DirEntry
    is_folder : bool

    Raises
    ------
    StorageError
        The storage failed for as long as is waited.
    OSError
    """
    # Each folder with the identities of those it lies in: a link back to one of them would be a loop.
    waiting = [(folder, frozenset({_identity(root, owner), _identity(root + folder, owner)}))]
    while waiting:
        here, above = waiting.pop()
        inside = here + b"/" if here else here
        for entry in scanned(root + here, owner):
            name = inside + entry.name
            # The system has told of most already.
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
    """Whether an entry is a folder or a link to one.

    Raises
    ------
    StorageError, OSError
        As `walk`.
    """
    try:
        return ask(owner, entry.path, entry.is_dir)
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link that leads to itself leads nowhere
            return False
        raise


def _is_plain(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_file(follow_symlinks=False)
    except OSError:  # of a system that has not told; `is_folder` waits for the storage
        return False


def _identity(path: bytes, owner: str) -> tuple[int, int]:
    status = ask(owner, path, lambda: os.stat(path))
    return status.st_dev, status.st_ino
