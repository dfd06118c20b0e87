"""Makes room in a cache: no file is written before its bytes are counted, and the least recently used entries leave.

A file that is being written is a draft, named ``COST.RANDOM.new`` with its bytes on the disk in hexadecimal; the
process that writes it holds a lock on it. The draft of a process that was killed has no lock, and is removed. An entry
that is in use for longer than a read, an unpacked tar, has a lock too, and does not leave.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

from highway.storage.cache.entries import READ, SHARDS, cost_of, shard_folder
from highway.storage.cache.ledger import Counts, Ledger
from highway.storage.locks import not_for_children

__all__ = ["Draft", "Entry", "Room", "Shard"]

# Seconds that one call works on counting or evicting, beyond which it gives up.
_BUDGET = 0.2
# Entries among which the oldest are found; fewer only if the cache has fewer.
_SAMPLE = 2048
# A sixteenth of them, or of their bytes, leaves at once: of the bytes, most may be those of unpacked tars in use.
_PART = 16

_ENTRY = re.compile("[0-9a-f]{30}")
_DRAFT = re.compile("([0-9a-f]{1,12})\\.[0-9a-f]{16}\\.new")


class Entry(NamedTuple):
    """A complete file of the cache.

    Attributes
    ----------
    used : int
        When it was last used, in nanoseconds.
    cost : int
        Bytes on the disk.
    path : str
    shard : int
    """

    used: int
    cost: int
    path: str
    shard: int


class Shard(NamedTuple):
    """What a shard holds.

    Attributes
    ----------
    entries : list of Entry
    drafts : int
        Bytes on the disk that files may take which are being written now.
    """

    entries: list[Entry]
    drafts: int

    @property
    def cost(self) -> int:
        """Bytes on the disk."""
        return self.drafts + sum(entry.cost for entry in self.entries)


@dataclass
class Draft:
    """A file to write, whose bytes are counted.

    Attributes
    ----------
    file : int
        Its descriptor.
    path : str
    shard : int
    cost : int
        Most bytes on the disk.
    """

    file: int
    path: str
    shard: int
    cost: int


class Room:
    """The space that a cache may take.

    Parameters
    ----------
    folder : str
        Folder of the entries.
    ledger : Ledger
    patience : float
        Seconds to wait for other processes.
    """

    def __init__(self, folder: str, ledger: Ledger, patience: float) -> None:
        self._folder, self._ledger, self._patience = folder, ledger, patience
        # For a ledger that is damaged later.
        self._limit = 0

    def set_limit(self, limit: int | None, *, create: bool) -> int:
        """Set the limit, if one is given, remove what exceeds it, and return it; 0 where none was ever set."""
        with self._ledger.changing(self._patience, create=create) as counts:
            self._limit = counts.limit = counts.limit if limit is None else limit
            end = time.monotonic() + _BUDGET
            if counts.limit and self._count(counts, end):
                self._evict(counts, 0, end)
            return counts.limit

    def counted(self) -> bool:
        """Count for a while what is not counted yet, as after a boot; return whether all is counted now.

        Raises
        ------
        TimeoutError, OSError
            As for `draft`.
        """
        with self._ledger.changing(self._patience) as counts:
            return self._count(counts, time.monotonic() + _BUDGET)

    @contextmanager
    def draft(self, shard: int, cost: int) -> Iterator[Draft | None]:
        """Yield a file for an entry, which is removed after an error; None if there is no room for it now.

        Raises
        ------
        TimeoutError
            Other processes kept the cache locked.
        OSError
            The disk is full, or fails.
        """
        draft = None
        try:
            with self._ledger.changing(self._patience) as counts:
                counts.limit = counts.limit or self._limit
                end = time.monotonic() + _BUDGET
                if self._count(counts, end) and self._evict(counts, cost, end):
                    draft = self._begun(shard, cost)
                    counts.add(shard, cost)
        except BaseException:
            if draft is not None:
                # It has no bytes yet.
                os.close(draft.file)
                os.unlink(draft.path)
            raise
        if draft is None:
            yield None
            return
        with not_for_children(draft.file):
            try:
                yield draft
            except BaseException:
                with suppress(OSError):
                    self._drop(draft)
                raise

    def grow(self, draft: Draft, cost: int) -> bool:
        """Let a draft take more bytes on the disk, `cost` in all; return False if there is no room for them now.

        Raises
        ------
        TimeoutError, OSError
            As for `draft`.
        """
        with self._ledger.changing(self._patience) as counts:
            end = time.monotonic() + _BUDGET
            if not (self._count(counts, end) and self._evict(counts, cost - draft.cost, end)):
                return False
            path = _new_path(self._folder, draft.shard, cost)
            counts.add(draft.shard, cost - draft.cost)
            os.rename(draft.path, path)
            draft.path, draft.cost = path, cost
            return True

    def keep(self, draft: Draft, path: str) -> None:
        """Make a draft an entry, unless another process has written the same."""
        with self._ledger.changing(self._patience) as counts:
            if os.path.lexists(path):
                os.unlink(draft.path)
                counts.add(draft.shard, -draft.cost)
                return
            # Others may use it now; it does not leave until its descriptor is closed.
            fcntl.flock(draft.file, fcntl.LOCK_SH)
            os.rename(draft.path, path)
            counts.add(draft.shard, cost_of(os.fstat(draft.file).st_size) - draft.cost)

    def use(self, path: str) -> int | None:
        """Open an entry, which does not leave until the descriptor is closed; None if it is not there.

        Raises
        ------
        TimeoutError, OSError
            As for `draft`.
        """
        with self._ledger.changing(self._patience):
            try:
                file = os.open(path, READ)
            except FileNotFoundError:
                return None
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                os.utime(file)
            except BaseException:
                os.close(file)
                raise
            return file

    def remove(self, path: str, shard: int) -> None:
        """Remove an entry, if it is still there."""
        with self._ledger.changing(self._patience) as counts, suppress(FileNotFoundError):
            size = os.lstat(path).st_size
            os.unlink(path)
            counts.add(shard, -cost_of(size))

    def count(self, shard: int) -> Shard:
        """Count a shard again, and remove the drafts of processes that were killed."""
        with self._ledger.changing(self._patience) as counts:
            found = self._scan(shard)
            counts.set(shard, found.cost)
            return found

    def clear(self, shard: int) -> list[Entry]:
        """Remove all entries of a shard, and return them."""
        with self._ledger.changing(self._patience) as counts:
            found = self._scan(shard)
            for entry in found.entries:
                os.unlink(entry.path)
            counts.set(shard, found.drafts)
            with suppress(OSError):
                os.rmdir(shard_folder(self._folder, shard))
            return found.entries

    def _begun(self, shard: int, cost: int) -> Draft:
        path = _new_path(self._folder, shard, cost)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            file = os.open(path, flags, 0o666)
        except FileNotFoundError:
            os.makedirs(shard_folder(self._folder, shard), exist_ok=True)
            file = os.open(path, flags, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise
        return Draft(file, path, shard, cost)

    def _drop(self, draft: Draft) -> None:
        with self._ledger.changing(self._patience) as counts:
            os.unlink(draft.path)
            counts.add(draft.shard, -draft.cost)

    def _count(self, counts: Counts, end: float) -> bool:
        """Count shards whose bytes are not known; return whether all are known."""
        while not counts.complete:
            if time.monotonic() >= end:
                return False
            shard = counts.first_unknown()
            counts.set(shard, self._scan(shard).cost)
        return True

    def _evict(self, counts: Counts, cost: int, end: float) -> bool:
        """Remove the entries that were not used for the longest time; return whether `cost` bytes fit in then."""
        looked = 0
        if cost > counts.limit:
            return False
        while counts.total + cost > counts.limit:
            if looked >= SHARDS or time.monotonic() >= end:
                return False
            sample: list[Entry] = []
            while len(sample) < _SAMPLE and looked < SHARDS:
                found = self._scan(counts.turn)
                counts.set(counts.turn, found.cost)
                sample += found.entries
                counts.turn = (counts.turn + 1) % SHARDS
                looked += 1
            sample.sort()
            needed = counts.total + cost - counts.limit
            part, most = sum(entry.cost for entry in sample) // _PART, len(sample) // _PART
            for entry in sample:
                if needed <= 0 and (part <= 0 or most <= 0):
                    break
                if _has_left(entry.path):
                    counts.add(entry.shard, -entry.cost)
                    needed, part, most = needed - entry.cost, part - entry.cost, most - 1
        return True

    def _scan(self, shard: int) -> Shard:
        """Look through a shard; called with the lock."""
        try:
            files = os.scandir(shard_folder(self._folder, shard))
        except FileNotFoundError:
            return Shard([], 0)
        entries, drafts = [], 0
        with files:
            for file in files:
                draft = _DRAFT.fullmatch(file.name)
                if draft is not None:
                    drafts += 0 if _removed(file.path) else int(draft[1], 16)
                elif _ENTRY.fullmatch(file.name):
                    status = file.stat(follow_symlinks=False)
                    entries.append(Entry(status.st_mtime_ns, cost_of(status.st_size), file.path, shard))
        return Shard(entries, drafts)


def _new_path(folder: str, shard: int, cost: int) -> str:
    return f"{shard_folder(folder, shard)}/{cost:x}.{os.urandom(8).hex()}.new"


def _has_left(path: str) -> bool:
    """Remove an entry that no reader has locked; return whether it is gone."""
    try:
        return _removed(path)
    except OSError:
        # A link, or a file of somebody else.
        os.unlink(path)
        return True


def _removed(path: str) -> bool:
    """Remove a draft that nobody writes; return whether it is gone."""
    file = os.open(path, READ)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except BlockingIOError:
        return False
    finally:
        os.close(file)
    return True
