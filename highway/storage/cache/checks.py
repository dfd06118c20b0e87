"""Describes, verifies and clears the folder of a cache; for the commands."""

from __future__ import annotations

import errno
import glob
import os
import time
from collections.abc import Callable
from contextlib import suppress

from highway.errors import ArgumentError
from highway.storage.bucket_index import FOLDER
from highway.storage.cache.cache import ENTRIES
from highway.storage.cache.entries import READ, SHARDS, path_of, sound_key
from highway.storage.cache.ledger import NAME, Ledger
from highway.storage.cache.room import Entry, Room

__all__ = ["clear", "describe", "verify"]

_OWNER = "cache"

# Seconds to wait for the processes that use the cache.
_PATIENCE = 60.0


def describe(directory: str) -> list[tuple[str, str]]:
    """Return facts about a cache as (name, value), and count its bytes again.

    Raises
    ------
    ArgumentError
        The folder is not a cache.
    StoreError
        It belongs to another version of Highway.
    OSError
        It cannot be read.
    """
    room, limit = _opened(directory)
    number, size, drafts, used = 0, 0, 0, []
    for shard in range(SHARDS):
        found = room.count(shard)
        number += len(found.entries)
        size += found.cost
        drafts += found.drafts
        if found.entries:
            used += [min(found.entries).used, max(found.entries).used]
    indexes = _indexes(directory)
    facts = [
        ("kind", "a cache"),
        ("entries", f"{number:,}"),
        ("size", _size(size) + (f", of which {_size(drafts)} are being written" if drafts else "")),
        ("limit", f"{_size(limit)} ({size / limit:.1%} in use)" if limit else "none yet"),
    ]
    if used:
        facts += [("least recent use", _ago(min(used))), ("last use", _ago(max(used)))]
    if indexes:
        facts.append(("indexes", f"{len(indexes)}, {_size(sum(map(os.path.getsize, indexes)))}"))
    return facts


def verify(directory: str, bad: Callable[[str], object]) -> tuple[int, int]:
    """Read every entry, and remove damaged ones; return the number of entries, and how many of them were damaged.

    Parameters
    ----------
    directory : str
    bad : callable
        Called with a description of each damaged entry.

    Raises
    ------
    ArgumentError, StoreError, OSError
        As for `describe`.
    """
    room, _ = _opened(directory)
    folder = os.path.join(directory, ENTRIES)
    number = damaged = 0
    for shard in range(SHARDS):
        for entry in room.count(shard).entries:
            try:
                # Links are not followed.
                with open(os.open(entry.path, READ), "rb") as file:
                    key = sound_key(file)
            except FileNotFoundError:
                # It has left meanwhile.
                continue
            except OSError as error:
                if error.errno != errno.ELOOP:
                    raise
                key = None
            number += 1
            if key is None or path_of(folder, key)[1] != entry.path:
                damaged += 1
                bad(entry.path)
                room.remove(entry.path, shard)
    return number, damaged


def clear(directory: str) -> tuple[int, int]:
    """Remove all entries and indexes, and return how many entries there were, and their bytes on the disk.

    Processes may go on using the cache; its limit stays.

    Raises
    ------
    ArgumentError, StoreError, OSError
        As for `describe`.
    """
    room, _ = _opened(directory)
    removed: list[Entry] = []
    for shard in range(SHARDS):
        removed += room.clear(shard)
    for index in _indexes(directory):
        os.unlink(index)
    for folder in (ENTRIES, FOLDER):
        with suppress(OSError):
            os.rmdir(os.path.join(directory, folder))
    return len(removed), sum(entry.cost for entry in removed)


def _opened(directory: str) -> tuple[Room, int]:
    ledger = Ledger(directory, _OWNER)
    if not os.path.lexists(directory):
        raise ArgumentError(f"{directory!r} does not exist; expected the folder of a cache")
    if not os.path.isfile(ledger.path):
        raise ArgumentError(f"{directory!r} is no cache of Highway: it has no file {NAME}")
    room = Room(os.path.join(directory, ENTRIES), ledger, _PATIENCE)
    return room, room.set_limit(None, create=False)


def _indexes(directory: str) -> list[str]:
    """Return the paths of the indexes of buckets."""
    return sorted(glob.glob(os.path.join(glob.escape(directory), FOLDER, "*.index")))


def _size(number: int) -> str:
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if number >= 10**power:
            return f"{number / 10**power:.1f} {unit}"
    return f"{number} bytes"


def _ago(used: int) -> str:
    seconds = max(0, time.time_ns() - used) // 10**9
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} seconds ago"
