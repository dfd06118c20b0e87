"""KeptIndexes: the indexes of tars in stores that are kept on this machine."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import BinaryIO

from highway.errors import ReadError, StorageError
from highway.storage.files import LARGEST_FILE, read_whole
from highway.storage.object_store import plain_etag
from highway.storage.objects import Object
from highway.storage.outages import ask
from highway.storage.tar_index import TarIndex, keep_index, keep_written

__all__ = ["KeptIndexes", "number_of", "place_of_index"]

# Before each index in a file of many: place of the tar in the list, and bytes of the index.
_ENTRY = struct.Struct("<qq")
_MAGIC = b"HWTARS\0\1"
# So many published indexes are kept in one file: to create a file may take as long as to fetch an index.
_MANY = 16


class KeptIndexes:
    """The indexes of a list of tars in stores, as files in a folder of this machine.

    An index that was made by reading the headers has a file of its own, which serves every list with its tar. Many
    published indexes are kept in one file, which serves the same list only: they are quickly fetched again.
    Several threads may use it.

    Parameters
    ----------
    urls : sequence of str
        Of the tars.
    owner : str
        Name of the reader, for errors.
    index_dir : str, optional
        Folder; by default ``highway/tars`` in the user's folder for caches.

    Raises
    ------
    StorageError
        The folder cannot be read for longer than a reader waits.
    """

    def __init__(self, urls: Sequence[str], owner: str, index_dir: str | None) -> None:
        self._urls, self._owner, self._index_dir = urls, owner, index_dir
        self._together = place_of_index("\n".join(urls), index_dir, ending=".indexes")
        self._names = self._listed()
        self._entries = dict(self._read())
        self._used: dict[int, TarIndex] = {}
        self._published: dict[int, TarIndex] = {}

    def find(self, place: int, found: Object) -> TarIndex | None:
        """Return the index of a tar of the list; None if none is kept of the object as it is now."""
        # Without an etag, an object of the same size may be another one.
        if not found.etag:
            return None
        state = self._urls[place], found.size, number_of(found.etag)
        if place in self._entries:
            index = TarIndex.unpacked(*state, self._entries[place])
            if index is not None:
                self._used[place] = index
                return index
        own = self._own(place)
        if os.path.basename(own) not in self._names:
            return None
        with suppress(ReadError):
            return TarIndex.unpacked(*state, read_whole(os.fsencode(own), LARGEST_FILE, self._owner))
        return None

    def keep(self, place: int, index: TarIndex, *, published: bool) -> None:
        """Keep the index of a tar; a published one when `write` is called."""
        if published:
            self._published[place] = index
        else:
            keep_index(self._own(place), index, self._owner, self._index_dir is not None)

    def write(self) -> None:
        """Write the published indexes.

        Raises
        ------
        WriteError
            `index_dir` was given, and cannot be written to.
        """
        new, self._entries = self._published, {}
        both = {**self._used, **new}
        nbytes = len(_MAGIC) + sum(_ENTRY.size + index.nbytes for index in both.values())
        if len(new) < _MANY or nbytes > LARGEST_FILE:
            for place, index in new.items():
                keep_index(self._own(place), index, self._owner, self._index_dir is not None)
            return

        def write(file: BinaryIO) -> None:
            file.write(_MAGIC)
            for place, index in both.items():
                file.write(_ENTRY.pack(place, index.nbytes))
                file.write(index.packed())

        what = f"the indexes of {self._urls[0]!r} and {len(both) - 1} more are"
        keep_written(self._together, write, what, self._owner, self._index_dir is not None)

    def _own(self, place: int) -> str:
        return place_of_index(self._urls[place], self._index_dir)

    def _listed(self) -> frozenset[str]:
        """Names of the files in the folder: to try to open a thousand takes longer."""
        folder = os.path.dirname(self._together)
        try:
            return frozenset(ask(self._owner, folder, lambda: os.listdir(folder)))
        except StorageError:
            raise
        except OSError:
            return frozenset()

    def _read(self) -> Iterator[tuple[int, memoryview]]:
        """Yield what the file of many indexes has, as far as it is whole: place of the tar, and contents."""
        if os.path.basename(self._together) not in self._names:
            return
        try:
            contents = memoryview(read_whole(os.fsencode(self._together), LARGEST_FILE, self._owner))
        except ReadError:
            return
        if contents[: len(_MAGIC)] != _MAGIC:
            return
        at = len(_MAGIC)
        while at + _ENTRY.size <= len(contents):
            place, nbytes = _ENTRY.unpack_from(contents, at)
            at += _ENTRY.size
            if not 0 <= nbytes <= len(contents) - at:
                return
            yield place, contents[at : at + nbytes]
            at += nbytes


def place_of_index(url: str, index_dir: str | None, *, ending: str = ".index") -> str:
    """Return the file of the index of a tar in a store."""
    folder = index_dir or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "highway", "tars"
    )
    return os.path.join(folder, blake2b(url.encode(), digest_size=16).hexdigest() + ending)


def number_of(etag: str) -> int:
    """Return a number for an etag, in place of the modification time of a local tar."""
    return int.from_bytes(blake2b(plain_etag(etag).encode(), digest_size=7).digest(), "big")
