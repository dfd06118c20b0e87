"""Whole files in memory, for what is read by Python."""

from __future__ import annotations

import errno
import os
import stat

from highway.errors import ReadError

__all__ = ["read_whole"]

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
