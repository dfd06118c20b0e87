"""Whole files, read or written by Python."""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable
from typing import BinaryIO

from highway.errors import HighwayError, ReadError, WriteError

__all__ = ["LARGEST_FILE", "read_whole", "write_whole"]

LARGEST_FILE = 1 << 30
"""Bytes of a picture or a mask; a larger one is none."""

_unique = itertools.count()

# What is wrong with the machine, and not with the file.
_MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def read_whole(path: bytes, most: int) -> bytes:
    """The contents of a regular file of up to `most` bytes.

    Raises
    ------
    ReadError
        Text for behind the name of the file.
    OSError
        The machine has no memory or file handles left.
    """
    try:
        # A pipe is opened at once, and refused, instead of waiting for who writes into it.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode):
                raise ReadError("is no regular file")
            if found.st_size > most:
                raise ReadError(f"has {found.st_size} bytes; allowed are {most}")
            return _contents(file, found.st_size)
        finally:
            os.close(file)
    except ReadError:
        raise
    except OSError as error:
        if error.errno in _MACHINE:
            raise
        raise ReadError(f"cannot be read: {error.strerror}") from None


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
