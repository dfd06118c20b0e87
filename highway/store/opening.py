"""Open LevelDB for one writer or for any number of readers.

LevelDB allows one process to open a store, and its lock is lost when that process tries twice. So Highway has its own
lock, which a writer holds alone and readers share. Each reader opens a private folder, with links to the tables, which
never change, and copies of the few small files that LevelDB changes on every open. So several processes can read a
store at once, also from a read-only file system.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import tempfile
import weakref
from typing import Any

from highway.errors import (
    CorruptStoreError,
    HighwayError,
    MissingPackageError,
    StorageError,
    StoreError,
    StoreLockedError,
)
from highway.storage.locks import flock
from highway.storage.outages import may_pass

__all__ = [
    "LOCK_NAME",
    "MOST_TABLES",
    "Lock",
    "StoreView",
    "error_text",
    "names_in",
    "open_leveldb",
    "plyvel_for",
    "private_view",
    "read_error",
    "storage_failed",
]

logger = logging.getLogger("highway.store")

LOCK_NAME = "highway.lock"
_CHANGED = ("CURRENT", "MANIFEST-")
_LEFT = ("LOCK", "LOG", LOCK_NAME)
MOST_TABLES = 16384
"""Most tables, of 32 MB each, that are open at once. They are mapped, and Linux allows a process 65530 mappings."""

# LevelDB reports the error texts of the system, not the error numbers.
_PASSING = tuple(f": {os.strerror(number)}" for number in errno.errorcode if may_pass(number))
_NO_LOCKS = tuple(
    f"/LOCK: {os.strerror(number)}" for number in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
)


def plyvel_for(owner: str) -> Any:
    """Import the package plyvel.

    Raises
    ------
    MissingPackageError
        plyvel is not installed.
    """
    try:
        import plyvel
    except ImportError:
        raise MissingPackageError(
            f"{owner}: the package plyvel is not installed: pip install plyvel (it has wheels for "
            "Python 3.12 and older; newer versions need LevelDB's headers)"
        ) from None
    return plyvel


def error_text(error: Exception) -> str:
    """Return the text of an error of LevelDB, in one line."""
    return " ".join(str(error).replace("b'", "'").split()) or type(error).__name__


def storage_failed(error: Exception) -> bool:
    """Whether LevelDB raised this because the storage failed; the store itself may be sound."""
    return error_text(error).rstrip("'\"").endswith(_PASSING)


def read_error(owner: str, name: str, error: Exception, text: str | None = None) -> HighwayError:
    """Convert a read error of LevelDB to StorageError or CorruptStoreError; `text` replaces its text."""
    text = error_text(error) if text is None else text
    if storage_failed(error):
        return StorageError(f"{owner}: {name!r} cannot be read: {text}")
    return CorruptStoreError(f"{owner}: {name!r} is damaged: {text}")


def _refused(owner: str, path: str, what: str, error: OSError, hint: str = "") -> HighwayError:
    """Convert an error of the system to StorageError or StoreError."""
    kind = StorageError if may_pass(error.errno) else StoreError
    return kind(f"{owner}: {path!r} cannot be {what}: {error.strerror}{hint}")


class Lock:
    """A lock on a store until it is released, respected by threads and processes.

    On a file system without `flock` there is no lock, and a warning is logged.

    Parameters
    ----------
    path : str
        Folder of the store.
    shared : bool
        True for a shared lock, False for an exclusive one.
    owner : str

    Raises
    ------
    StoreLockedError
        The lock is held by another user.
    StoreError
        The folder cannot be written to, and the lock is exclusive.
    StorageError
        The storage failed.
    """

    def __init__(self, path: str, *, shared: bool, owner: str) -> None:
        self._file: int | None = None
        name = os.path.join(path, LOCK_NAME)
        try:
            file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if not shared:
                raise _refused(owner, path, "written to", error) from None
            try:
                file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as refused:
                if may_pass(refused.errno):
                    raise _refused(owner, path, "locked", refused) from None
                # No process that respects the lock can write there.
                return
        try:
            # The lock belongs to this open file, not to the process: a second open in this process conflicts.
            operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
            if not flock(file, operation, path, logger, owner):
                os.close(file)
                return
        except OSError as error:
            os.close(file)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise _refused(owner, path, "locked", error) from None
            who = "is being written" if shared else "is being read or written"
            raise StoreLockedError(
                f"{owner}: {path!r} {who}, by this or another process; wait until it is done"
            ) from None
        self._file = file
        self._finalizer = weakref.finalize(self, _unlock, file, os.getpid())

    def release(self) -> None:
        if self._file is not None:
            self._file = None
            self._finalizer()


def _unlock(file: int, process: int) -> None:
    # A forked child inherits the file: it must neither release the lock of its parent nor keep it.
    if os.getpid() == process:
        fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


def _remove(folder: str, process: int) -> None:
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


class StoreView:
    """A private folder with the contents of a store; see `private_view`."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._finalizer = weakref.finalize(self, _remove, folder, os.getpid())

    def remove(self) -> None:
        self._finalizer()


def names_in(path: str, owner: str) -> list[str]:
    """Return the names of the files of a LevelDB.

    Raises
    ------
    StoreError
        The path is not a folder with a LevelDB, or cannot be read.
    StorageError
        The storage failed.
    """
    try:
        names = os.listdir(path)
    except OSError as error:
        hint = "; a store is a folder" if error.errno == errno.ENOTDIR else ""
        raise _refused(owner, path, "opened", error, hint) from None
    if not any(name == "CURRENT" or name.startswith("MANIFEST-") for name in names):
        raise StoreError(f"{owner}: {path!r} is not a store: it has no LevelDB; `highway pack` makes a store")
    return names


def private_view(path: str, owner: str) -> StoreView:
    """Make a temporary folder that LevelDB may change, with the contents of a locked store.

    Raises
    ------
    StoreError
        As raised by `names_in`; or the folder cannot be made.
    StorageError
        The storage failed.
    """
    names = names_in(path, owner)
    path = os.path.abspath(path)
    try:
        view = StoreView(tempfile.mkdtemp(prefix="highway-store-"))
    except OSError as error:
        raise StoreError(f"{owner}: no temporary folder can be made: {error.strerror}") from None
    try:
        for name in names:
            source, target = os.path.join(path, name), os.path.join(view.folder, name)
            if name.startswith(_CHANGED) or name.endswith(".log"):
                shutil.copyfile(source, target)
            elif not name.startswith(_LEFT):
                os.symlink(source, target)
    except OSError as error:
        view.remove()
        raise _refused(owner, path, "read", error) from None
    except BaseException:
        view.remove()
        raise
    return view


def open_leveldb(path: str, owner: str, *, shown: str | None = None, create: bool = False) -> Any:
    """Open a `plyvel.DB` with paranoid checks: LevelDB verifies the checksums of its own reads.

    Parameters
    ----------
    path : str
    owner : str
    shown : str, optional
        Path for errors; `path` by default.
    create : bool

    Raises
    ------
    StoreLockedError, CorruptStoreError
    StoreError
        It cannot be created, or its file system has no locks.
    StorageError
        The storage failed.
    """
    plyvel = plyvel_for(owner)
    try:
        return plyvel.DB(
            path,
            create_if_missing=create,
            paranoid_checks=True,
            # Tables have the size of the write buffer.
            write_buffer_size=32 << 20,
            max_file_size=32 << 20,
            max_open_files=MOST_TABLES,
            # Pictures do not compress further, and uncompressed tables are read in place.
            compression=None,
        )
    except plyvel.Error as error:
        name = shown or path
        text = error_text(error).replace(path, name)
        if text.rstrip("'\"").endswith(_NO_LOCKS):
            raise StoreError(
                f"{owner}: {name!r} cannot be opened: its file system has no locks (fcntl), which LevelDB needs to "
                f"write: use a path on another file system, and copy the finished store: {text}"
            ) from None
        if "/LOCK: " in text:
            raise StoreLockedError(f"{owner}: {name!r} is open in another program: {text}") from None
        if storage_failed(error):
            raise StorageError(f"{owner}: {name!r} cannot be opened: {text}") from None
        if not create or isinstance(error, plyvel.CorruptionError):
            raise CorruptStoreError(
                f"{owner}: {name!r} is damaged: {text} (highway store repair saves the sound records)"
            ) from None
        raise StoreError(f"{owner}: {name!r} cannot be opened: {text}") from None
