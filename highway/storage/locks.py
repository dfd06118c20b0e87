"""Locks of files by `flock`, and file systems that have none."""

from __future__ import annotations

import errno
import fcntl
import logging

__all__ = ["flock"]

# What systems say where the file system has no such locks, or nobody who keeps them.
_NONE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)

# Paths that were told of.
_told: set[str] = set()


def flock(file: int, operation: int, path: str, logger: logging.Logger, owner: str) -> bool:
    """Lock an open file, or do without where its file system has no such locks; then the log says so, once for a path.

    Parameters
    ----------
    file, operation : int
        As `fcntl.flock`.
    path : str
        What is locked by it.
    logger : logging.Logger
    owner : str
        Who locks.

    Returns
    -------
    bool
        Whether it is locked.

    Raises
    ------
    OSError
        Somebody else has it, or anything else that `fcntl.flock` raises.
    """
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno not in _NONE:
            raise
        if path not in _told:
            _told.add(path)
            logger.warning(
                "%s: %s is not locked, since its file system has no locks (flock: %s): take care that nobody else uses "
                "it while it is written",
                owner,
                path,
                error.strerror,
            )
        return False
    return True
