r"""Entries of a cache: one file each, named by a digest of what it holds, in one of 256 shards.

An entry is ``b"HWENTRY\x01"``, the CRC-32C of all that follows, the length of the key (both uint32, little-endian), the
key, and the contents.
"""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from highway._core.records.checksum import crc32c

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["SHARDS", "Key", "contents_of", "cost_of", "head", "key_in", "path_of", "shard_folder", "size_of"]

SHARDS = 256
"""Number of folders that entries are spread over, evenly, by their digests."""

# Files take whole blocks of so many bytes on a disk.
_BLOCK = 4096
_MAGIC = b"HWENTRY\x01"
_CHECKSUM = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
_KEY = len(_MAGIC) + _CHECKSUM.size + _LENGTH.size
_DIGEST = 32


class Key(NamedTuple):
    """Bytes of one version of an object.

    Attributes
    ----------
    store : str
        URL of the store.
    name : str
        Name of the object in its store.
    etag : str
        Version of the object; "" if the store has none.
    size : int
        Bytes of the whole object.
    start, stop : int
        First byte, and the byte after the last one.
    """

    store: str
    name: str
    etag: str
    size: int
    start: int
    stop: int

    @property
    def packed(self) -> bytes:
        """The key as bytes; other keys give other bytes."""
        store, name, etag, *numbers = self
        lengths = (*numbers, len(store), len(name))
        return f"{' '.join(map(str, lengths))} {store}{name}{etag}".encode("utf-8", "surrogatepass")


def path_of(folder: str, packed: bytes) -> tuple[int, str]:
    """Return the shard of a key and the path of its entry."""
    digest = blake2b(packed, digest_size=_DIGEST // 2).hexdigest()
    return int(digest[:2], 16), f"{folder}/{digest[:2]}/{digest[2:]}"


def shard_folder(folder: str, shard: int) -> str:
    """Return the path of a shard."""
    return f"{folder}/{shard:02x}"


def cost_of(size: int) -> int:
    """Return how many bytes a file of `size` bytes takes on the disk."""
    return -(-size // _BLOCK) * _BLOCK


def size_of(packed: bytes, contents: int) -> int:
    """Return the bytes of an entry with so many bytes of contents."""
    return _KEY + len(packed) + contents


def head(packed: bytes, contents: Buffer) -> bytes:
    """Return the bytes of an entry before its contents."""
    after = _LENGTH.pack(len(packed)) + packed
    return _MAGIC + _CHECKSUM.pack(crc32c(contents, crc32c(after, 0))) + after


def contents_of(entry: bytes, packed: bytes | None = None) -> memoryview | None:
    """Return the contents of an entry, as a view of it; None if it is damaged.

    Parameters
    ----------
    entry : bytes
        The whole file.
    packed : bytes, optional
        The key it should have; by default any.
    """
    if len(entry) < _KEY or not entry.startswith(_MAGIC):
        return None
    view = memoryview(entry)
    first = _KEY + _LENGTH.unpack_from(entry, _KEY - _LENGTH.size)[0]
    if packed is not None and view[_KEY:first] != packed:
        return None
    if crc32c(view[_KEY - _LENGTH.size :], 0) != _CHECKSUM.unpack_from(entry, len(_MAGIC))[0]:
        return None
    return view[first:]


def key_in(entry: bytes) -> bytes:
    """Return the packed key of an undamaged entry."""
    return entry[_KEY : _KEY + _LENGTH.unpack_from(entry, _KEY - _LENGTH.size)[0]]
