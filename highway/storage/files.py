"""Reads and writes whole files."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from highway._core.jpeg import codec as jpeg
from highway.errors import DatasetError, HighwayError, ReadError, StorageError, WriteError
from highway.storage.outages import Outages, ask

__all__ = [
    "LARGEST_FILE",
    "check_same",
    "first_bytes",
    "read_once",
    "read_whole",
    "scanned",
    "status_of",
    "unreadable",
    "write_whole",
]

LARGEST_FILE = 1 << 30
"""Largest picture or mask in bytes."""

_unique = itertools.count()


def read_whole(path: bytes, most: int, owner: str) -> bytes:
    """Return the contents of a regular file of up to `most` bytes; waits during storage outages.

    For reads before the pipeline starts: only Ctrl-C can interrupt the wait. `owner` is the name of the reader, for
    errors.

    Raises
    ------
    ReadError
        Its text follows the name of the file.
    StorageError
        The storage failed for longer than the reader waits.
    OSError
        The machine has no memory or file handles left.
    """

    def once() -> bytes:
        try:
            return read_once(path, most)
        except StorageError as error:
            raise StorageError(f"{owner}: {os.fsdecode(path)} {error}") from error

    return Outages(owner).patiently(once)


def read_once(path: bytes, most: int) -> bytes:
    """Return the contents of a regular file of up to `most` bytes.

    Raises
    ------
    ReadError, StorageError
        Its text follows the name of the file; after a StorageError the caller may try again.
    OSError
        The machine has no memory or file handles left.
    """
    try:
        with _opened(path) as (file, size):
            if size > most:
                raise ReadError(f"has {size} bytes; allowed are {most}")
            return _contents(file, size)
    except ReadError:
        raise
    except OSError as error:
        raise unreadable(error) from None


def unreadable(error: OSError) -> ReadError | StorageError:
    """Return the error of a file that the system cannot read; its text follows the name of the file.

    Raises
    ------
    OSError
        The error itself, if the machine has no memory or file handles left.
    """
    kind = jpeg.failure(error.errno or 0)
    if kind == jpeg.NO_HANDLE:
        raise error
    return (StorageError if kind == jpeg.STORAGE else ReadError)(f"cannot be read: {error.strerror}")


def first_bytes(path: bytes, count: int) -> bytes:
    """Return the first `count` bytes of a file; b"" if it is not a regular file or cannot be read."""
    try:
        with _opened(path) as (file, _):
            return os.read(file, count)
    except OSError:
        return b""


@contextmanager
def _opened(path: bytes) -> Iterator[tuple[int, int]]:
    """Yield descriptor and size of a regular file; raises ReadError if it is not regular, and OSError."""
    # Opening a pipe must not wait for a writer; it is refused below.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise ReadError("is no regular file")
        yield file, found.st_size
    finally:
        os.close(file)


def scanned(path: bytes, owner: str) -> list[os.DirEntry[bytes]]:
    """Return what `os.scandir` yields; waits during storage outages; raises OSError and StorageError."""

    def whole() -> list[os.DirEntry[bytes]]:
        with os.scandir(path) as entries:
            return list(entries)

    return ask(owner, path, whole)


def status_of(path: bytes, owner: str) -> os.stat_result | None:
    """Return `os.stat` of a path; waits during storage outages; None if the path cannot be reached.

    Raises
    ------
    StorageError
    """
    try:
        return ask(owner, path, lambda: os.stat(path))
    except StorageError:
        raise
    except (OSError, ValueError):
        return None


def check_same(owner: str, path: str, size: int, changed: int, found: os.stat_result) -> None:
    """Raise DatasetError if a file is not as it was: `size` in bytes, and modification time `changed` in ns."""
    if (found.st_size, found.st_mtime_ns) != (size, changed):
        raise DatasetError(
            f"{owner}: {path!r} was changed while it was in use: it has {found.st_size} bytes, before it had {size}; "
            "make a new reader"
        )


def _contents(file: int, size: int) -> bytes:
    contents = os.read(file, size)
    while len(contents) < size:
        more = os.read(file, size - len(contents))
        if not more:
            break
        contents += more
    return contents


def write_whole(path: str, write: Callable[[BinaryIO], object], owner: str) -> None:
    """Write a file atomically, and create its folders: the file is complete or does not exist.

    Parameters
    ----------
    path : str
        An existing file is replaced.
    write : callable
        Writes to the open file that it gets.
    owner : str
        Name of the writer, for errors.

    Raises
    ------
    WriteError
    """
    folder = os.path.dirname(path) or "."
    # A short name: the file name may have the maximal length. Unique: other processes may write here too.
    beside = os.path.join(folder, f".highway-{os.getpid()}-{next(_unique)}")
    try:
        os.makedirs(folder, exist_ok=True)
        try:
            with open(beside, "xb") as file:
                write(file)
            os.replace(beside, path)
        except BaseException:
            if os.path.lexists(beside):
                os.unlink(beside)
            raise
    except HighwayError:
        raise
    except OSError as error:
        raise WriteError(f"{owner}: {path!r} cannot be written: {error.strerror or error}") from error
