"""Whole files, read or written by Python."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from highway._core.jpeg import codec as jpeg
from highway.errors import HighwayError, ReadError, StorageError, WriteError
from highway.storage.outages import Outages, ask

__all__ = ["LARGEST_FILE", "first_bytes", "read_once", "read_whole", "scanned", "status_of", "write_whole"]

LARGEST_FILE = 1 << 30
"""Bytes of a picture or a mask; a larger one is none."""

_unique = itertools.count()


def read_whole(path: bytes, most: int, owner: str) -> bytes:
    """The contents of a regular file of up to `most` bytes; waits while the storage fails.

    For what is read before there is a pipeline: nobody but Ctrl-C can end the wait. `owner` is who reads, for errors.

    Raises
    ------
    ReadError
        Text that follows the name of the file.
    StorageError
        The storage failed for as long as is waited.
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
    """The contents of a regular file of up to `most` bytes.

    Raises
    ------
    ReadError, StorageError
        Text that follows the name of the file; with a StorageError it may be tried again.
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
        kind = jpeg.failure(error.errno or 0)
        if kind == jpeg.NO_HANDLE:
            raise
        text = f"cannot be read: {error.strerror}"
        raise (StorageError if kind == jpeg.STORAGE else ReadError)(text) from None


def first_bytes(path: bytes, count: int) -> bytes:
    """So many bytes of a file from its beginning; none of what is no regular file, or cannot be read."""
    try:
        with _opened(path) as (file, _):
            return os.read(file, count)
    except OSError:
        return b""


@contextmanager
def _opened(path: bytes) -> Iterator[tuple[int, int]]:
    """Descriptor and size of a regular file; ReadError where it is none, OSError where the system says so."""
    # A pipe is opened at once, and refused, instead of waiting for who writes into it.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise ReadError("is no regular file")
        yield file, found.st_size
    finally:
        os.close(file)


def scanned(path: bytes, owner: str) -> list[os.DirEntry[bytes]]:
    """What `os.scandir` yields, but waits while the storage fails; raises what that raises, and StorageError."""

    def whole() -> list[os.DirEntry[bytes]]:
        with os.scandir(path) as entries:
            return list(entries)

    return ask(owner, path, whole)


def status_of(path: bytes, owner: str) -> os.stat_result | None:
    """As `os.stat`, but waits while the storage fails; None where nothing can be reached there.

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


def _contents(file: int, size: int) -> bytes:
    contents = os.read(file, size)
    while len(contents) < size:
        more = os.read(file, size - len(contents))
        if not more:
            break
        contents += more
    return contents


def write_whole(path: str, write: Callable[[BinaryIO], object], owner: str) -> None:
    """Have a file written, and the folders that it is in: it is there whole or not at all.

    Parameters
    ----------
    path : str
        What is there is replaced.
    write : callable
        Writes to the file that it is given.
    owner : str
        Who writes, for errors.

    Raises
    ------
    WriteError
    """
    folder = os.path.dirname(path)
    # Short, since the name of the file may be as long as the disk allows; other processes may write here too.
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
