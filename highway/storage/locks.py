"""Locks files by `flock`, if the file system supports it."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["WITHOUT_LOCKS", "flock", "not_for_children"]

WITHOUT_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
"""Errors of file systems without locks, or without a lock service."""

# Paths with a logged warning.
_told: set[str] = set()


def flock(file: int, operation: int, path: str, logger: logging.Logger, owner: str) -> bool:
    """Lock an open file; if its file system has no locks, log a warning once per path and continue.

    Parameters
    ----------
    file, operation : int
        As for `fcntl.flock`.
    path : str
        Path that the lock protects.
    logger : logging.Logger
    owner : str
        Name of the owner of the lock.

    Returns
    -------
    bool
        Whether the file is locked.

    Raises
    ------
    OSError
        The file is locked already, or `fcntl.flock` failed otherwise.
    """
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        if path not in _told:
            _told.add(path)
            logger.warning(
                "%s: %s is not locked, since its file system has no locks (flock: %s): make sure that no other process "
                "uses it while it is written",
                owner,
                path,
                error.strerror,
            )
        return False
    return True


# Descriptors that a forked child would share with the process that locked them.
_own: set[int] = set()


@contextmanager
def not_for_children(file: int) -> Iterator[None]:
    """Close a descriptor in children that are forked meanwhile, and here at the end.

    A lock by `flock` lasts as long as any process has the descriptor: without this, a child could keep the lock of a
    parent that was killed.
    """
    _own.add(file)
    try:
        yield
    finally:
        _own.discard(file)
        os.close(file)


def _close_all() -> None:
    while _own:
        os.close(_own.pop())


os.register_at_fork(after_in_child=_close_all)
