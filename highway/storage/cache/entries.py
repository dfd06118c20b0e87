r"""Entries of a cache: one file each, named by a digest of what it holds, in one of 256 shards.

An entry is ``b"HWENTRY\x01"``, the CRC-32C of all that follows, the length of the key (both uint32, little-endian), the
key, and the contents: a range of an object, or an unpacked tar.
"""

from __future__ import annotations

import os
import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, BinaryIO

from highway._core.records.checksum import crc32c

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from highway.storage.objects import Object

__all__ = [
    "LARGEST",
    "READ",
    "SHARDS",
    "HeadOfMany",
    "cost_of",
    "head",
    "head_size",
    "key_in",
    "key_of",
    "path_of",
    "shard_folder",
    "sound_key",
]

SHARDS = 256
"""Number of folders that entries are spread over, evenly, by their digests."""

LARGEST = 1 << 30
"""Most bytes of a range that an entry may hold. Larger files are not pictures."""

READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""How files are opened: in the folder of somebody else there may be links to other files, and pipes."""

# Files take whole blocks of so many bytes on a disk.
_BLOCK = 4096
_MAGIC = b"HWENTRY\x01"
_CHECKSUM = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
_KEY = len(_MAGIC) + _CHECKSUM.size + _LENGTH.size
_DIGEST = 32
_LONGEST_KEY = 1 << 16
# Bytes of a file that are read at a time.
_PIECE = 1 << 20


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


def sound_key(file: BinaryIO) -> bytes | None:
    """Return the key of an entry, of which it reads all; None if the file is damaged, or none."""
    key = key_in(file)
    if key is None or not _has_room(key, os.fstat(file.fileno()).st_size):
        return None
    after = _LENGTH.pack(len(key)) + key
    checksum = crc32c(after, 0)
    while piece := file.read(_PIECE):
        checksum = crc32c(piece, checksum)
    file.seek(len(_MAGIC))
    return key if file.read(_CHECKSUM.size) == _CHECKSUM.pack(checksum) else None


def _has_room(key: bytes, size: int) -> bool:
    """Whether a file has as many bytes as the range in its key; those of an unpacked tar are not known."""
    try:
        start, stop = map(int, key.split(b" ", 3)[1:3])
    except ValueError:
        return False
    return start == stop or size == head_size(key) + stop - start


def key_in(file: BinaryIO) -> bytes | None:
    """Return the key that an entry states, and stop after it; None if the file begins as no entry does."""
    beginning = file.read(_KEY)
    if len(beginning) < _KEY or not beginning.startswith(_MAGIC):
        return None
    (length,) = _LENGTH.unpack_from(beginning, _KEY - _LENGTH.size)
    key = file.read(length) if length <= _LONGEST_KEY else b""
    return key if len(key) == length else None


class HeadOfMany:
    """The bytes of an entry before its contents, which come in pieces.

    Parameters
    ----------
    key : bytes
    """

    def __init__(self, key: bytes) -> None:
        self._after = _LENGTH.pack(len(key)) + key
        self._checksum = crc32c(self._after, 0)

    def add(self, piece: Buffer) -> None:
        """Count a piece of the contents."""
        self._checksum = crc32c(piece, self._checksum)

    def packed(self) -> bytes:
        """Return the bytes; of a wrong checksum until all contents are counted."""
        return _MAGIC + _CHECKSUM.pack(self._checksum) + self._after
