r"""Entries of a cache: one file each, named by a digest of what it holds, in one of 256 shards.

An entry is ``b"HWENTRY\x01"``, the CRC-32C of all that follows, the length of the key (both uint32, little-endian), the
key, and the contents.
"""

from __future__ import annotations

import os
import struct
from hashlib import blake2b
from typing import TYPE_CHECKING

from highway._core.records.checksum import crc32c

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from highway.storage.objects import Object

__all__ = [
    "LARGEST",
    "READ",
    "SHARDS",
    "cost_of",
    "head",
    "head_size",
    "is_sound",
    "key_in",
    "key_of",
    "path_of",
    "shard_folder",
]

SHARDS = 256
"""Number of folders that entries are spread over, evenly, by their digests."""

LARGEST = 1 << 30
"""Most bytes that an entry may hold. Larger files are not pictures."""

READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""How files are opened: in the folder of somebody else there may be links to other files, and pipes."""

# Files take whole blocks of so many bytes on a disk.
_BLOCK = 4096
_MAGIC = b"HWENTRY\x01"
_CHECKSUM = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
_KEY = len(_MAGIC) + _CHECKSUM.size + _LENGTH.size
_DIGEST = 32


def key_of(store: str, object: Object, start: int, stop: int) -> bytes:
    """Return the key of bytes [start, stop) of a version of an object; other bytes have other keys.

    Parameters
    ----------
    store : str
        Identity of the store.
    object : Object
        Of known size.
    start, stop : int
    """
    numbers = object.size, start, stop, len(store), len(object.name)
    return f"{' '.join(map(str, numbers))} {store}{object.name}{object.etag}".encode("utf-8", "surrogatepass")


def path_of(folder: str, key: bytes) -> tuple[int, str]:
    """Return the shard of a key and the path of its entry."""
    digest = blake2b(key, digest_size=_DIGEST // 2).hexdigest()
    return int(digest[:2], 16), f"{folder}/{digest[:2]}/{digest[2:]}"


def shard_folder(folder: str, shard: int) -> str:
    """Return the path of a shard."""
    return f"{folder}/{shard:02x}"


def cost_of(size: int) -> int:
    """Return how many bytes a file of `size` bytes takes on the disk."""
    return -(-size // _BLOCK) * _BLOCK


def head_size(key: bytes) -> int:
    """Return the number of bytes of an entry before its contents."""
    return _KEY + len(key)


def head(key: bytes, contents: Buffer) -> bytes:
    """Return the bytes of an entry before its contents."""
    after = _LENGTH.pack(len(key)) + key
    return _MAGIC + _CHECKSUM.pack(crc32c(contents, crc32c(after, 0))) + after


def is_sound(entry: bytes) -> bool:
    """Return whether a whole file is an undamaged entry, of any key."""
    if len(entry) < _KEY:
        return False
    key = key_in(entry)
    contents = memoryview(entry)[head_size(key) :]
    return entry[: head_size(key)] == head(key, contents)


def key_in(entry: bytes) -> bytes:
    """Return the key in an entry, or what lies in its place."""
    return entry[_KEY : _KEY + _LENGTH.unpack_from(entry, _KEY - _LENGTH.size)[0]]
