"""Decompresses gzip files piece by piece, and says where they are damaged."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from highway.errors import TarError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["PIECE", "gunzipped"]

PIECE = 1 << 20
"""Most bytes that are decompressed at a time."""

# For zlib: the header and checksum of gzip, with the largest window.
_GZIP = 31


def gunzipped(
    read: Callable[[int, int], Buffer], size: int, name: str, request: int = PIECE
) -> Iterator[bytes]:
    """Yield the contents of a gzip file, up to `PIECE` bytes at a time; its members one after the other.

    The checksum and the length of each member (RFC 1952) are compared. Zeros after the last member are ignored.

    Parameters
    ----------
    read : callable
        Returns up to so many bytes from a place on, at least one.
    size : int
        Bytes of the file.
    name : str
        Owner and name of the file, for errors.
    request : int
        Bytes to read at a time.

    Raises
    ------
    TarError
        The file is no gzip file, cut off or damaged; the text states the byte.
    """
    member: zlib._Decompress | None = None
    # Places in the file: of the member, of the next byte, and after the last byte that was read.
    began = at = end = 0
    block = memoryview(b"")
    while True:
        if at == end:
            block = memoryview(read(at, min(request, size - at)) if at < size else b"")
            end += len(block)
            if at == end:
                break
        data = block[len(block) - (end - at) :][:PIECE]
        if member is None:
            zeros = len(data) - len(bytes(data).lstrip(b"\0")) if at else 0
            if zeros:
                at += zeros
                continue
            member, began = zlib.decompressobj(_GZIP), at
        before = member.copy()
        try:
            found = member.decompress(data, PIECE)
        except zlib.error as error:
            raise _damaged(name, before, bytes(data), at, began, error) from None
        at += len(data) - len(member.unused_data if member.eof else member.unconsumed_tail)
        if found:
            yield found
        if member.eof:
            member = None
    while member is not None and not member.eof:
        # What zlib has taken in and not given out yet.
        found = member.decompress(b"", PIECE)
        if not found and not member.eof:
            raise TarError(
                f"{name} is cut off: it ends after {size} bytes, within the gzip data that begin at byte {began}; copy "
                "or make it again"
            )
        yield found
    if not size:
        raise TarError(f"{name} is empty (0 bytes); expected a gzip'ed tar file")


def _damaged(
    name: str, before: zlib._Decompress, data: bytes, at: int, began: int, error: zlib.error
) -> TarError:
    """Return the error of data that zlib refuses."""
    good, bad = 0, len(data)
    while bad - good > 1:
        middle = (good + bad) // 2
        try:
            before.copy().decompress(data[:middle], PIECE)
            good = middle
        except zlib.error:
            bad = middle
    place = at + bad - 1
    if place - began < 2:
        if not began:
            return TarError(
                f"{name} is not compressed by gzip, as its name says: it begins with {data[:4]!r}; rename a plain tar "
                "to .tar, or make the file again"
            )
        return TarError(f"{name} has more at byte {began}, after its gzip data; copy or make it again")
    # Such as "Error -3 while decompressing data: incorrect data check".
    reason = str(error).rpartition(": ")[2]
    return TarError(
        f"{name} is damaged: its gzip data are wrong at byte {place} ({reason}); copy or make it again"
    )
