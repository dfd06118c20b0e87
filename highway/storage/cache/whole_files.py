"""WholeFiles: files of any size in a cache, which are written piece by piece and read where they lie."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from highway.errors import HighwayError, WriteError
from highway.storage.cache.entries import HeadOfMany, head_size, key_in, key_of, path_of
from highway.storage.locks import not_for_children

if TYPE_CHECKING:
    from highway.storage.cache.room import Draft, Room
    from highway.storage.objects import Object

__all__ = ["KeptFile", "WholeFiles"]

logger = logging.getLogger("highway.modules")

# A file gets room in steps, each of as many bytes as it has already, between these.
_FIRST_STEP = 1 << 20
_LARGEST_STEP = 64 << 20
# Seconds to wait for another process that writes the same file; after that this one writes it too.
_PATIENCE = 600.0
# Seconds to make room for a step: one attempt may not be enough where many small entries have to leave.
_MAKING_ROOM = 10.0
_DELAY = 0.05

_WAYS_ON = {
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT), "; free some space on its disk, or set a smaller cache_bytes"
    ),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE), "; every unpacked tar needs a descriptor: raise the limit (ulimit -n)"
    ),
}


class KeptFile(NamedTuple):
    """A file in a cache.

    Attributes
    ----------
    file : int
        Descriptor, for reading; the caller closes it. Until then the file does not leave the cache.
    start, size : int
        The contents are so many bytes from `start` on.
    """

    file: int
    start: int
    size: int


class WholeFiles:
    """Files of any size in a cache.

    A file counts against the limit while it is written, and does not leave while a reader has it open. Its checksum
    covers all of it, and is compared by `highway cache verify` only; the file is on the disk before it gets its name.

    Parameters
    ----------
    directory : str
        Folder of the cache.
    folder : str
        That of its entries.
    room : Room
    owner : str
        Name of the reader, for errors.
    """

    def __init__(self, directory: str, folder: str, room: Room, owner: str) -> None:
        self._directory, self._folder, self._room, self._owner = directory, folder, room, owner

    def kept(
        self,
        store: str,
        object: Object,
        pieces: Callable[[], Iterable[bytes]],
        wait: Callable[[float], object] = time.sleep,
    ) -> KeptFile:
        """Return a file that was made from an object, and make it if it is not there.

        Parameters
        ----------
        store : str
            Identity of the store, and of what was made.
        object : Object
            Of known size.
        pieces : callable
            Returns the contents.
        wait : callable
            Waits so many seconds, while another process makes the file, or there is no room; may raise.

        Raises
        ------
        WriteError
            The limit is too small, or the disk is full or fails.
        """
        key = key_of(store, object, 0, 0)
        shard, path = path_of(self._folder, key)
        try:
            found = self._used(key, shard, path)
            if found is not None:
                return found
            with self._alone(shard, wait):
                found = self._used(key, shard, path)
                if found is not None:
                    return found
                while not self._room.counted():
                    wait(0)
                end = time.monotonic() + _MAKING_ROOM
                while found is None:
                    with self._room.draft(shard, _FIRST_STEP) as draft:
                        if draft is not None:
                            self._write(draft, key, pieces, wait)
                            self._room.keep(draft, path)
                            found = self._used(key, shard, path)
                            break
                    self._wait_for_room(end, wait)
        except HighwayError:
            raise
        except OSError as error:
            raise WriteError(
                f"{self._owner}: cache={self._directory!r} cannot be written: {error.strerror or error}"
                f"{_WAYS_ON.get(error.errno or 0, '')}"
            ) from error
        if found is None:
            raise self._without_room()
        return found

    def _used(self, key: bytes, shard: int, path: str) -> KeptFile | None:
        """Open an entry; None if it is not there, or of something else."""
        file = self._room.use(path)
        if file is None:
            return None
        size = os.fstat(file).st_size - head_size(key)
        with open(file, "rb", closefd=False) as beginning:
            if key_in(beginning) == key and size >= 0:
                return KeptFile(file, head_size(key), size)
        os.close(file)
        logger.warning("%s: cache: %s is damaged; it is made again", self._owner, path)
        self._room.remove(path, shard)
        return None

    def _write(
        self,
        draft: Draft,
        key: bytes,
        pieces: Callable[[], Iterable[bytes]],
        wait: Callable[[float], object],
    ) -> None:
        head = HeadOfMany(key)
        size = _written(draft.file, head.packed())
        for piece in pieces():
            if size + len(piece) > draft.cost:
                self._grow(draft, wait)
            head.add(piece)
            size += _written(draft.file, piece)
        os.pwrite(draft.file, head.packed(), 0)
        os.fsync(draft.file)

    def _grow(self, draft: Draft, wait: Callable[[float], object]) -> None:
        end = time.monotonic() + _MAKING_ROOM
        while not self._room.grow(draft, draft.cost + min(draft.cost, _LARGEST_STEP)):
            self._wait_for_room(end, wait)

    def _wait_for_room(self, end: float, wait: Callable[[float], object]) -> None:
        if time.monotonic() >= end:
            raise self._without_room()
        wait(_DELAY)

    def _without_room(self) -> WriteError:
        return WriteError(
            f"{self._owner}: cache={self._directory!r} has no room for an unpacked tar: what is in use reaches its "
            "limit. Set a larger cache_bytes, for all tars and up to 64 MiB for each that is being unpacked; without "
            "cache= they are unpacked into temporary files"
        )

    @contextmanager
    def _alone(self, shard: int, wait: Callable[[float], object]) -> Iterator[None]:
        """Let one process at a time make the files of a shard, so that each is made once."""
        path = os.path.join(self._directory, f"unpacking-{shard:02x}.lock")
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        with not_for_children(file):
            end = time.monotonic() + _PATIENCE
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= end:
                        break
                wait(_DELAY)
            yield


def _written(file: int, contents: bytes) -> int:
    left = memoryview(contents)
    while left:
        left = left[os.write(file, left) :]
    return len(contents)
