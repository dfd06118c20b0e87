"""Cache: keeps bytes that were fetched on the local disk, up to a limit."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from highway._core.records import cache_entries
from highway.arguments import expanded, number
from highway.errors import ArgumentError, HighwayError, WriteError
from highway.storage.cache.entries import LARGEST, cost_of, head, head_size, key_of, path_of
from highway.storage.cache.ledger import Ledger
from highway.storage.cache.room import Draft, Room
from highway.storage.cache.whole_files import WholeFiles

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from highway.storage.objects import Object

__all__ = ["ENTRIES", "Cache"]

logger = logging.getLogger("highway.modules")

ENTRIES = "entries"
"""Name of the folder of entries in that of the cache."""

# Seconds to wait for other processes; after that nothing is cached for the next `_PAUSE` seconds: the one that has the
# lock may be stopped, and each wait would delay a sample.
_PATIENCE = 10.0
_PAUSE = 60.0

_DISK, _ENTRY, _LOCK = "disk", "entry", "lock"

# The smallest limit; one entry must fit in.
_LEAST = 1 << 20


class Cache:
    """Bytes of objects on the local disk; all processes of the machine may use it at the same time.

    Entries have checksums, which every read compares; a damaged entry is removed, and fetched again. Files are complete
    or do not exist, whenever a process is killed. All entries together, also those that are being written, never take
    more than the limit; those that were not used for the longest time leave first: of all entries of a small cache,
    otherwise of a random sample of 2,048. A use is noted once a minute.

    Parameters
    ----------
    directory : path
        Folder of the cache, on a local disk; it is made if it does not exist.
    max_bytes : int or float, optional
        Most bytes on the disk, 1 MiB or more, for all processes; None for the limit that the folder has already. Each
        entry takes whole blocks of 4 KiB; the folders themselves are not counted.
    owner : str
        Name of the reader, for errors and the log.

    Raises
    ------
    ArgumentError
        The limit is too small, or missing for a new folder; the file system has no locks.
    StoreError
        The folder belongs to another version of Highway.
    WriteError
        The folder cannot be made or written.

    Attributes
    ----------
    whole_files : WholeFiles
        Larger files, which are not read as a whole.
    """

    def __init__(self, directory: str | os.PathLike[str], max_bytes: int | float | None, owner: str) -> None:
        self.directory = expanded(owner, "cache", directory)
        self._owner = owner
        limit = None
        if max_bytes is not None:
            limit = int(number(owner, "cache_bytes", max_bytes, _LEAST, 2**62))
        self._folder = os.path.join(self.directory, ENTRIES)
        self._room = Room(self._folder, Ledger(self.directory, owner), _PATIENCE)
        self.whole_files = WholeFiles(self.directory, self._folder, self._room, owner)
        self._stopped = False
        self._paused_until = 0.0
        # Each of these is logged once; `set.remove` tells the threads that come at the same time apart.
        self._untold = {_DISK, _ENTRY, _LOCK}
        self.max_bytes = self._limited(limit)

    def _limited(self, limit: int | None) -> int:
        """Set the limit and return it, or return that of the folder."""
        try:
            if limit is not None:
                os.makedirs(self._folder, exist_ok=True)
            found = self._room.set_limit(limit, create=limit is not None)
        except HighwayError:
            raise
        except FileNotFoundError:
            found = 0
        except OSError as error:
            raise WriteError(
                f"{self._owner}: cache={self.directory!r} cannot be written: {error.strerror or error}"
            ) from error
        if not found:
            raise ArgumentError(
                f"{self._owner}: cache_bytes is missing: {self.directory!r} is no cache yet, and a new one needs a "
                "limit, such as cache_bytes=100e9"
            )
        return found

    def has(self, store: str, object: Object, start: int, stop: int) -> bool:
        """Return whether bytes are there; they may leave before they are read. Arguments as for `get`."""
        return os.path.lexists(path_of(self._folder, key_of(store, object, start, stop))[1])

    def get(self, store: str, object: Object, start: int, stop: int) -> memoryview | None:
        """Return bytes [start, stop) of a version of an object; None if they are not there, or damaged.

        Parameters
        ----------
        store : str
            Identity of the store.
        object : Object
            Of known size.
        start, stop : int
            As for `put`: entries are not parts of each other.
        """
        contents = memoryview(bytearray(stop - start))
        (found,) = self.read([(store, object, start, stop)], [0], contents)
        return contents if found else None

    def read(
        self, places: Sequence[tuple[str, Object, int, int]], at: Sequence[int], into: memoryview
    ) -> list[bool]:
        """Read several ranges into memory, the first byte of each to its place, with one call of compiled code.

        Returns
        -------
        list of bool
            Whether each was there, undamaged; as `get` otherwise.
        """
        keys = [key_of(*place) for place in places]
        shards = [path_of(self._folder, key) for key in keys]
        sizes = np.array([stop - start for _, _, start, stop in places], np.int64)
        starts = np.array(at, np.int64)
        statuses = cache_entries.read(
            [os.fsencode(path) for _, path in shards], keys, np.stack([starts, starts + sizes], axis=1), into
        ).tolist()
        for status, (shard, path) in zip(statuses, shards, strict=True):
            if status == cache_entries.DAMAGED:
                self._tell(f"{path} is damaged")
                self._remove(path, shard)
            elif status not in (0, errno.ENOENT):
                self._tell(f"{path} cannot be read: {os.strerror(status)}")
        return [not status for status in statuses]

    def put(self, store: str, object: Object, start: int, stop: int, contents: Buffer) -> bool:
        """Add bytes, and return whether they are there now. Arguments as for `get`.

        Bytes that do not fit are not added. If the disk is full or cannot be written, that is logged once, and this
        object adds nothing from then on.
        """
        if self._stopped or self._paused:
            return False
        view = memoryview(contents).cast("B")
        if view.nbytes != stop - start:
            raise ValueError(
                f"bytes {start} to {stop} of {object} are {stop - start} bytes, not {view.nbytes}"
            )
        if view.nbytes > LARGEST:
            return False
        key = key_of(store, object, start, stop)
        shard, path = path_of(self._folder, key)
        try:
            with self._room.draft(shard, cost_of(head_size(key) + view.nbytes)) as draft:
                if draft is None:
                    return False
                _write(draft, head(key, view), view)
                self._room.keep(draft, path)
            return True
        except TimeoutError as error:
            self._pause(error)
            return False
        except OSError as error:
            self._stopped = True
            if self._first(_DISK):
                logger.warning(
                    "%s: the cache %r cannot be written: %s; from now on this process does not add to it, and reads "
                    "from the store what it does not hold. Free some space on its disk, or set a smaller cache_bytes",
                    self._owner,
                    self.directory,
                    error.strerror or error,
                )
            return False

    @property
    def _paused(self) -> bool:
        """Whether another process kept the lock a short time ago."""
        return time.monotonic() < self._paused_until

    def _pause(self, error: TimeoutError) -> None:
        self._paused_until = time.monotonic() + _PAUSE
        if self._first(_LOCK):
            logger.warning(
                "%s: cache: %s; for %g s nothing is added to it. Look whether a process that uses it was stopped",
                self._owner,
                error,
                _PAUSE,
            )

    def _remove(self, path: str, shard: int) -> None:
        if self._paused:
            return
        try:
            self._room.remove(path, shard)
        except TimeoutError as error:
            self._pause(error)
        except OSError as error:
            self._tell(f"{path} cannot be removed: {error.strerror or error}")

    def _first(self, fault: str) -> bool:
        """Return True once for each fault."""
        try:
            self._untold.remove(fault)
        except KeyError:
            return False
        return True

    def _tell(self, what: str) -> None:
        """Log a fault of an entry, the first time only."""
        if self._first(_ENTRY):
            logger.warning(
                "%s: cache: %s; such entries are fetched again (highway cache verify %s finds all of them)",
                self._owner,
                what,
                self.directory,
            )


def _write(draft: Draft, *parts: Buffer) -> None:
    for part in parts:
        left = memoryview(part)
        while left:
            left = left[os.write(draft.file, left) :]
