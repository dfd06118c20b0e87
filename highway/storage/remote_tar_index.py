"""The indexes of tars in stores: kept on this machine, published beside the tars, or made by reading their headers."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from highway._core.records.checksum import crc32c
from highway._core.tar import members
from highway.errors import ObjectChangedError, ReadError
from highway.storage.kept_indexes import KeptIndexes, number_of
from highway.storage.object_store import ObjectStore
from highway.storage.objects import Object
from highway.storage.tar_index import TarIndex, check_format, complete

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["indexed_objects"]

_logger = logging.getLogger("highway.storage")

# Tars that are searched at a time: the more, the less the latency of the store counts, and the more threads contend.
_TOGETHER = 96
# After the name of a tar: the name of its published index.
_ENDING = ".index"

# Bytes of a request for headers: few where members are large, more where they are small.
_SMALLEST = 4 << 10
_LARGEST = 1 << 20


def indexed_objects(
    store: ObjectStore, names: Sequence[str], owner: str, index_dir: str | None = None
) -> tuple[list[TarIndex], list[Object]]:
    """Return the index of each tar of a store, and the tars as objects.

    An index is taken from `index_dir`, by default ``highway/tars`` in the user's folder for caches, if it was made of
    the object as it is now, by size and etag; from the object ``NAME.index`` beside the tar, if it is of the same
    size, and the last header that it states is there; or made by reading the headers. It is then kept in the folder.

    Parameters
    ----------
    store : ObjectStore
    names : sequence of str
    owner : str
        Name of the reader, for errors.
    index_dir : str, optional

    Raises
    ------
    TarError, ReadError, StorageError, WriteError
        As for `indexed`.
    """
    known = store.listed([*names, *(name + _ENDING for name in names)])
    kept = KeptIndexes([store.where(name) for name in names], owner, index_dir)

    def one(place: int) -> tuple[TarIndex, Object]:
        name = names[place]
        found = known.get(name) or store.head(name)
        index = kept.find(place, found)
        if index is None:
            changed = number_of(found.etag)
            index = _published(store, known.get(name + _ENDING) or Object(name + _ENDING), found, changed)
            published = index is not None
            if index is None:
                index = _made(store, found, changed, owner)
            kept.keep(place, index, published=published)
        return index, found

    with ThreadPoolExecutor(min(_TOGETHER, len(names)), "highway-index") as pool:
        both = list(pool.map(one, range(len(names))))
    kept.write()
    return [index for index, _ in both], [found for _, found in both]


def _published(store: ObjectStore, beside: Object, found: Object, changed: int) -> TarIndex | None:
    """Return the index in the object beside a tar, if there is one, and it is of this tar."""
    try:
        contents = memoryview(store.read(beside))
    except (ReadError, ObjectChangedError):
        return None
    stated = int.from_bytes(contents[16:24], "little", signed=True)
    index = TarIndex.unpacked(store.where(found.name), found.size, stated, contents)
    if index is None or not len(index):
        return None
    # One header tells most other tars; the headers of the samples are checked when they are read.
    start = int(index.starts[-1]) - members.HEADER
    if start < 0 or crc32c(store.read(found, start, start + members.HEADER), 0) != index.checks[-1]:
        return None
    _logger.info("%s: the index is that of %s.index", store.owner, store.where(found.name))
    return replace(index, changed=changed)


def _made(store: ObjectStore, found: Object, changed: int, owner: str) -> TarIndex:
    path = store.where(found.name)
    blocks = _Blocks(store, found)
    check_format(path, owner, bytes(blocks.read(0, 1024)))
    return complete(path, found.size, changed, members.Members(blocks.read, found.size), owner)


class _Blocks:
    """Reads an object from its front to its end, in blocks whose size suits the distance between the reads."""

    def __init__(self, store: ObjectStore, found: Object) -> None:
        self._store, self._found = store, found
        self._start = 0
        self._block = memoryview(b"")
        self._size = _SMALLEST

    def read(self, start: int, size: int) -> Buffer:
        """Return a range; shorter at the end of the object."""
        stop = min(start + size, self._found.size)
        if start >= stop:
            return b""
        end = self._start + len(self._block)
        if not self._start <= start <= stop <= end:
            near = self._start <= start < end + 4 * self._size
            self._size = min(2 * self._size, _LARGEST) if near else max(self._size // 2, _SMALLEST)
            last = min(max(stop, start + self._size), self._found.size)
            self._block = memoryview(self._store.read(self._found, start, last))
            self._start = start
        return self._block[start - self._start : stop - self._start]
