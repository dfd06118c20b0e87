"""Locks files by `flock`, if the file system supports it."""

from __future__ import annotations

import errno
import fcntl
import logging

__all__ = ["flock"]

# Errors of file systems without locks, or without a lock service.
_NONE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)

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
        if error.errno not in _NONE:
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
