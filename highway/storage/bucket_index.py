r"""BucketIndex: the listing of a bucket or of a folder in it, in one file.

The file is ``b"HWINDEX\x01"``, the CRC-32C of all that follows, the length of a description (both uint32,
little-endian), the description in JSON, and three blocks that zlib compressed: the names, the etags (both UTF-8, with
zero bytes between them), and the sizes (int64; first the lowest bytes of all, then the next ones). The names are sorted
by their bytes.
"""

from __future__ import annotations

import bisect
import json
import logging
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core.records.checksum import crc32c
from highway.errors import BucketIndexError, ReadError, WriteError
from highway.storage.files import LARGEST_FILE, read_whole, write_whole
from highway.storage.objects import UNKNOWN, LazySequence, Object

if TYPE_CHECKING:
    from highway.storage.access import Access
    from highway.storage.object_store import ObjectStore

__all__ = ["FOLDER", "BucketIndex", "indexed", "listed", "path_in_cache"]

logger = logging.getLogger("highway.modules")

FOLDER = "indexes"
"""Name of the folder of indexes in that of a cache."""

_MAGIC = b"HWINDEX"
_VERSION = 1
_HEAD = struct.Struct("<8sII")
_LEVEL = 6
_TOLD_EVERY = 10_000
# A file has a byte or more for each object, and at most so many times its size once decompressed, or so many bytes: an
# index may come from somebody else.
_MOST_TIMES, _FEW_BYTES = 200, 1 << 20
# Times after the year 9999 cannot be shown.
_LATEST = 250_000_000_000


class _Description(NamedTuple):
    url: str
    prefix: str
    made: float
    objects: int
    # Of each block: compressed, and as it was.
    names: tuple[int, int]
    etags: tuple[int, int]
    sizes: tuple[int, int]


class BucketIndex(LazySequence[Object]):
    """Objects of a store, sorted by the bytes of their names.

    Make one with `of` or `load`.

    Parameters
    ----------
    url : str
        URL of the store.
    prefix : str
        Folder in the store that was listed, without slashes at its ends; empty for the whole store.
    made : float
        When it was listed: seconds since 1970.
    names, etags : _Texts
    sizes : int64 (N,)
        In bytes.

    Attributes
    ----------
    url, prefix, made
    sizes : int64 (N,)
    """

    def __init__(
        self, url: str, prefix: str, made: float, names: _Texts, etags: _Texts, sizes: NDArray[np.int64]
    ) -> None:
        self.url, self.prefix, self.made, self.sizes = url, prefix, made, sizes
        self._names, self._etags = names, etags

    @classmethod
    def of(cls, url: str, prefix: str, objects: Iterable[Object]) -> BucketIndex:
        """Return the index of objects, in any order, which were listed now.

        Raises
        ------
        BucketIndexError
            A name has a zero byte.
        """
        made = time.time()
        rows = [(_bytes(name), size, _bytes(etag)) for name, size, etag in objects]
        rows.sort(key=itemgetter(0))
        for name, _, etag in rows:
            if b"\0" in name or b"\0" in etag:
                raise BucketIndexError(
                    f"{url} has an object {name!r}; expected no zero byte in names and etags"
                )
        return cls(
            url,
            prefix,
            made,
            _Texts.of([name for name, _, _ in rows]),
            _Texts.of([etag for _, _, etag in rows]),
            np.array([size for _, size, _ in rows], np.int64),
        )

    @classmethod
    def load(cls, path: str, owner: str) -> BucketIndex:
        """Return the index in a file.

        Raises
        ------
        BucketIndexError
            The file is no index, is damaged or cut off, or has another version.
        ReadError, StorageError
            It cannot be read.
        """
        try:
            file = read_whole(os.fsencode(path), LARGEST_FILE, owner)
        except ReadError as error:
            raise ReadError(f"{owner}: the index {path} {error}") from error
        if len(file) < _HEAD.size or not file.startswith(_MAGIC):
            raise BucketIndexError(
                f"{owner}: {path} is no index of Highway; expected one that highway index wrote"
            )
        magic, checksum, length = _HEAD.unpack_from(file)
        if magic[-1] != _VERSION:
            raise BucketIndexError(
                f"{owner}: {path} has version {magic[-1]} of its format; this Highway knows version {_VERSION}: "
                "install a newer Highway, or make it again with highway index --refresh"
            )
        view = memoryview(file)
        if crc32c(view[_HEAD.size - 4 :], 0) != checksum:
            raise BucketIndexError(
                f"{owner}: {path} is damaged or cut off; make it again with highway index --refresh"
            )
        try:
            described = _Description(**json.loads(bytes(view[_HEAD.size : _HEAD.size + length])))
            _check_sizes(described, len(file))
            blocks, at = [], _HEAD.size + length
            for compressed, whole in (described.names, described.etags, described.sizes):
                blocks.append(_decompressed(view[at : at + compressed], whole))
                at += compressed
            sizes = np.frombuffer(blocks[2], np.uint8).reshape(8, described.objects).T.copy()
            places: list[object] = [described.url, described.prefix]
            if not all(isinstance(place, str) for place in places):
                raise ValueError("its URL is no text")
            if not 0 <= described.made < _LATEST or (sizes.reshape(-1).view("<i8") < UNKNOWN).any():
                raise ValueError("its time or a size is out of range")
            names, etags = (_Texts.joined(block, described.objects) for block in blocks[:2])
            return cls(
                described.url,
                described.prefix,
                described.made,
                names,
                etags,
                sizes.reshape(-1).view("<i8").astype(np.int64, copy=False),
            )
        except (ValueError, TypeError, RecursionError, zlib.error) as error:
            # The checksum is right: somebody else has made the file.
            raise BucketIndexError(
                f"{owner}: {path} is no valid index: {error}; make it again with highway index"
            ) from error

    def save(self, path: str, owner: str) -> None:
        """Write the index to a file, which is replaced as a whole.

        Raises
        ------
        WriteError
        """
        planes = np.ascontiguousarray(self.sizes.astype("<i8").view(np.uint8).reshape(-1, 8).T).tobytes()
        wholes = (self._names.text, self._etags.text, planes)
        blocks = [zlib.compress(whole, _LEVEL) for whole in wholes]
        if not _is_plausible(len(self), sum(map(len, wholes)), sum(map(len, blocks))):
            blocks = [*map(_stored, wholes)]
        lengths = [(len(block), len(whole)) for block, whole in zip(blocks, wholes, strict=True)]
        described = json.dumps(
            _Description(self.url, self.prefix, self.made, len(self), *lengths)._asdict()
        ).encode()
        rest = b"".join([struct.pack("<I", len(described)), described, *blocks])
        head = _MAGIC + bytes([_VERSION]) + struct.pack("<I", crc32c(rest, 0))
        write_whole(path, lambda file: (file.write(head), file.write(rest)), owner)

    def __len__(self) -> int:
        return len(self.sizes)

    def at(self, number: int) -> Object:
        return Object(_text(self._names[number]), int(self.sizes[number]), _text(self._etags[number]))

    def __iter__(self) -> Iterator[Object]:
        columns = map(_text, self._names), self.sizes.tolist(), map(_text, self._etags)
        return map(Object, *columns)

    def within(self, prefix: str) -> range:
        """Return the numbers of the objects in a folder, recursively; of all objects if it is empty."""
        if not prefix:
            return range(len(self))
        folder = _bytes(prefix.strip("/")) + b"/"
        # The byte after a slash is a zero.
        return range(
            bisect.bisect_left(self._names, folder), bisect.bisect_left(self._names, folder[:-1] + b"0")
        )

    def covers(self, url: str, prefix: str) -> bool:
        """Return whether all objects of a folder of a store are here."""
        return url == self.url and f"{prefix.strip('/')}/".startswith(
            f"{self.prefix}/" if self.prefix else ""
        )


class _Texts(LazySequence[bytes]):
    """Byte strings without zero bytes in one, with zero bytes between them."""

    def __init__(self, text: bytes, starts: NDArray[np.int64]) -> None:
        self.text, self._starts = text, starts

    @classmethod
    def of(cls, parts: Sequence[bytes]) -> _Texts:
        return cls.joined(b"\0".join(parts), len(parts))

    @classmethod
    def joined(cls, text: bytes, count: int) -> _Texts:
        """Raise ValueError if there are not so many."""
        ends = np.flatnonzero(np.frombuffer(text, np.uint8) == 0)
        starts = np.concatenate([[0], ends + 1, [len(text) + 1]]) if count else np.zeros(1, np.int64)
        if len(starts) != count + 1 or (not count and text):
            raise ValueError(f"{len(starts) - 1} texts, and {count} were announced")
        return cls(text, starts.astype(np.int64, copy=False))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def at(self, number: int) -> bytes:
        return self.text[self._starts[number] : self._starts[number + 1] - 1]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.text.split(b"\0") if len(self) else ())


def indexed(
    store: ObjectStore,
    prefix: str,
    path: str,
    *,
    refresh: bool = False,
    told: Callable[[int], object] = lambda count: None,
) -> BucketIndex:
    """Return the index in a file; lists the store and writes the file if there is none.

    Parameters
    ----------
    store : ObjectStore
    prefix : str
        Folder in the store; empty for all of it.
    path : str
        File of the index, which may cover more than the folder.
    refresh : bool
        List the store again, whatever is there.
    told : callable
        Called with the number of objects now and then, while they are listed.

    Raises
    ------
    BucketIndexError
        The file is no index, is damaged, or is that of other objects.
    ReadError, StorageError
        The store, or the file, cannot be read.
    WriteError
        The file cannot be written.
    """
    prefix = prefix.strip("/")
    if not refresh and os.path.lexists(path):
        return _loaded(store, prefix, path)
    index = BucketIndex.of(store.url, prefix, _told(store.list(prefix), told))
    index.save(path, store.owner)
    return index


def _loaded(store: ObjectStore, prefix: str, path: str) -> BucketIndex:
    """Return the index in a file, which has to cover a folder."""
    index = BucketIndex.load(path, store.owner)
    if not index.covers(store.url, prefix):
        raise BucketIndexError(
            f"{store.owner}: {path} is the index of {_where(index.url, index.prefix)}; expected one of "
            f"{_where(store.url, prefix)}"
        )
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(index.made))
    logger.info("%s: %s: as it was listed on %s (%s)", store.owner, _where(store.url, prefix), when, path)
    return index


def listed(store: ObjectStore, prefix: str, access: Access) -> Iterator[Object]:
    """Yield the objects in a folder of a store, from the index that a reader was given, or from that in its cache.

    An index in a cache that is damaged, or cannot be written, is no error: the store is listed.

    Raises
    ------
    BucketIndexError, ReadError, StorageError, WriteError
        See `indexed`.
    """
    if access.index_file is not None:
        return _within(indexed(store, prefix, access.index_file), prefix)
    if access.cache is None:
        return store.list(prefix)
    prefix = prefix.strip("/")
    path = path_in_cache(access.cache.directory, store, prefix)
    if os.path.lexists(path):
        try:
            return _within(_loaded(store, prefix, path), prefix)
        except (BucketIndexError, ReadError) as error:
            logger.warning("%s; the store is listed", error)
    index = BucketIndex.of(store.url, prefix, store.list(prefix))
    try:
        index.save(path, store.owner)
    except WriteError as error:
        logger.warning("%s; the next reader will list the store again", error)
    return iter(index)


def _within(index: BucketIndex, prefix: str) -> Iterator[Object]:
    numbers = index.within(prefix.strip("/"))
    return iter(index) if len(numbers) == len(index) else map(index.__getitem__, numbers)


def path_in_cache(directory: str, store: ObjectStore, prefix: str) -> str:
    """Return the path of the index of a folder of a store in the folder of a cache."""
    key = f"{store.identity}\0{prefix.strip('/')}"
    return os.path.join(directory, FOLDER, f"{blake2b(_bytes(key), digest_size=16).hexdigest()}.index")


def _told(objects: Iterable[Object], told: Callable[[int], object]) -> Iterator[Object]:
    for count, each in enumerate(objects, 1):
        if count % _TOLD_EVERY == 0:
            told(count)
        yield each


def _where(url: str, prefix: str) -> str:
    return f"{url}/{prefix}" if prefix else url


def _is_plausible(objects: int, whole: int, size: int) -> bool:
    """Return whether an index in so many bytes may have so many objects, and so many bytes once decompressed."""
    return whole <= _FEW_BYTES or (objects <= size and whole <= _MOST_TIMES * size)


def _check_sizes(described: _Description, size: int) -> None:
    """Raise ValueError if a description asks for more memory than a file of its size can hold."""
    wholes = [whole for _, whole in (described.names, described.etags, described.sizes)]
    numbers: list[object] = [described.objects, *wholes]
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError("a number of objects or bytes is none")
    if wholes[2] != 8 * described.objects:
        raise ValueError(f"{described.objects} objects have {wholes[2]} bytes of sizes")
    if not _is_plausible(described.objects, sum(wholes), size):
        raise ValueError(f"{described.objects} objects with {sum(wholes)} bytes do not fit in {size} bytes")


def _stored(whole: bytes) -> bytes:
    return zlib.compress(whole, 0)


def _decompressed(block: memoryview, size: int) -> bytes:
    """Decompress a block of `size` bytes; no more, whatever it holds."""
    found = zlib.decompressobj().decompress(block, size + 1)
    if len(found) != size:
        raise ValueError(f"a block has {len(found)} bytes; expected {size}")
    return found


# Names of local files may not be UTF-8.
def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
