r"""How many bytes the entries of a cache take, in a file that all processes share and lock.

The file is ``b"HWCACHE\x01"``, the CRC-32C of the rest (uint32), four zero bytes, the identity of the boot of the
machine (16 bytes), the limit, the shard that is next for eviction, and the bytes of each shard (uint64,
little-endian). A shard whose bytes are not known has `UNKNOWN`: all of them after a boot, since what was written last
before a power cut may be missing from the file, or in a file that is damaged.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import struct
import sys
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from highway._core.records.checksum import crc32c
from highway.errors import ArgumentError, StoreError
from highway.storage.cache.entries import SHARDS
from highway.storage.locks import WITHOUT_LOCKS, not_for_children

__all__ = ["UNKNOWN", "Counts", "Ledger"]

UNKNOWN = 2**64 - 1

NAME = "cache.state"

_MAGIC = b"HWCACHE"
_VERSION = 1
_HEADER = struct.Struct("<8sI4x")
_SETTINGS = struct.Struct("<16sQQ")
_SIZE = _HEADER.size + _SETTINGS.size + 8 * SHARDS

# Seconds between two attempts to lock; doubled each time.
_SHORTEST = 0.0005
_LONGEST = 0.005


class Counts:
    """The contents of the file.

    Attributes
    ----------
    limit : int
        Most bytes that the entries may take; 0 if none was set.
    turn : int
        Shard that is next for eviction.
    """

    def __init__(self, limit: int = 0, turn: int = 0, shards: array[int] | None = None) -> None:
        self.limit, self.turn = limit, turn
        self._shards = array("Q", [UNKNOWN]) * SHARDS if shards is None else shards

    @property
    def complete(self) -> bool:
        """Whether the bytes of all shards are known."""
        return UNKNOWN not in self._shards

    def first_unknown(self) -> int:
        """Return the first shard that must be counted; ValueError if there is none."""
        return self._shards.index(UNKNOWN)

    @property
    def total(self) -> int:
        """Bytes of all shards; more than any limit as long as some are not known."""
        return sum(self._shards)

    def set(self, shard: int, size: int) -> None:
        """Set the bytes of a shard, as counted."""
        self._shards[shard] = size

    def add(self, shard: int, size: int) -> None:
        """Add bytes to a shard, or take some away."""
        if self._shards[shard] == UNKNOWN:
            return
        # Fewer than none: someone else has removed files.
        left = self._shards[shard] + size
        self._shards[shard] = left if 0 <= left < UNKNOWN else UNKNOWN

    @classmethod
    def unpacked(cls, file: bytes, path: str) -> Counts:
        """Return the counts in a file, unknown ones if it is damaged; raises StoreError for another version."""
        if file[: len(_MAGIC)] == _MAGIC and file[len(_MAGIC) : len(_MAGIC) + 1] != bytes([_VERSION]):
            raise StoreError(
                f"{path}: the cache has version {file[len(_MAGIC) :][:1].hex()} of its format; this Highway knows "
                f"version {_VERSION:02x}: install a newer Highway, or give another folder"
            )
        if len(file) != _SIZE or file[: len(_MAGIC)] != _MAGIC:
            return cls()
        if crc32c(memoryview(file)[_HEADER.size :], 0) != _HEADER.unpack_from(file)[1]:
            return cls()
        boot, limit, turn = _SETTINGS.unpack_from(file, _HEADER.size)
        if boot != _boot():
            return cls(limit)
        shards = array("Q", file[_HEADER.size + _SETTINGS.size :])
        if sys.byteorder == "big":
            shards.byteswap()
        return cls(limit, turn % SHARDS, shards)

    def packed(self) -> bytes:
        """The bytes of the file."""
        shards = array("Q", self._shards)
        if sys.byteorder == "big":
            shards.byteswap()
        rest = _SETTINGS.pack(_boot(), self.limit, self.turn) + shards.tobytes()
        return _HEADER.pack(_MAGIC + bytes([_VERSION]), crc32c(rest, 0)) + rest


class Ledger:
    """The file, which processes and threads change one after the other.

    Parameters
    ----------
    folder : str
        Folder of the cache.
    owner : str
        Name of the reader, for errors.
    """

    def __init__(self, folder: str, owner: str) -> None:
        self.path = os.path.join(folder, NAME)
        self._owner = owner

    @contextmanager
    def changing(self, seconds: float, *, create: bool = False) -> Iterator[Counts]:
        """Yield the counts, and write them at the end, whatever happens.

        Killed before that, a process leaves counts that are too high, never too low: count bytes before you write
        them, and remove files before you subtract theirs.

        Parameters
        ----------
        seconds : float
            How long to wait for other processes.
        create : bool
            Make the file if it is not there.

        Raises
        ------
        TimeoutError
            Others had the lock all the time.
        ArgumentError
            The file system has no locks.
        StoreError
            The file has another version.
        OSError
            The file cannot be read or written.
        """
        # In the folder of somebody else it may be a link to another file, which must not be written.
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
        file = os.open(self.path, flags, 0o666)
        with not_for_children(file):
            self._lock(file, seconds)
            try:
                before = os.pread(file, 2 * _SIZE, 0)
                counts = Counts.unpacked(before, self.path)
                try:
                    yield counts
                finally:
                    after = counts.packed()
                    if after != before:
                        if len(before) > _SIZE:
                            os.ftruncate(file, _SIZE)
                        _write(file, after)
            finally:
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)

    def _lock(self, file: int, seconds: float) -> None:
        end, delay = time.monotonic() + seconds, _SHORTEST
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise TimeoutError(
                        f"{self.path} is locked by another process since {seconds:g} s"
                    ) from None
            except OSError as error:
                if error.errno in WITHOUT_LOCKS:
                    raise ArgumentError(
                        f"{self._owner}: cache={os.path.dirname(self.path)!r}: its file system has no locks (flock: "
                        f"{error.strerror}), so its limit cannot be kept; give a folder on a local disk"
                    ) from error
                raise
            time.sleep(delay)
            delay = min(2 * delay, _LONGEST)


def _write(file: int, contents: bytes) -> None:
    """Write the file; raises OSError, and leaves a file that is counted again, if the disk fails."""
    try:
        if os.pwrite(file, contents, 0) == len(contents):
            return
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        os.ftruncate(file, 0)
        raise


@functools.cache
def _boot() -> bytes:
    """Return what identifies the time since the machine was started; zeros where the system does not say."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return bytes.fromhex(file.read(64).decode("ascii").strip().replace("-", ""))[:16].ljust(16, b"\0")
    except (OSError, ValueError):
        return bytes(16)
