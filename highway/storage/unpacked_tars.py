"""Unpacks gzip'ed tars once, so that their members can be read in any order."""

from __future__ import annotations

import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from highway._core.tar import members
from highway.errors import PipelineStateError, ReadError, StorageError, TarError, WriteError
from highway.storage.files import unreadable
from highway.storage.gunzip import PIECE, gunzipped
from highway.storage.objects import Object
from highway.storage.outages import Outages
from highway.storage.tar_index import (
    TarIndex,
    check_format,
    complete,
    keep_index,
    kept_index,
    place_of_index,
    state_of,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from highway.storage.cache import Cache
    from highway.storage.object_store import ObjectStore

__all__ = ["UnpackedTar", "is_gzipped", "unpacked_tars"]

_logger = logging.getLogger("highway.storage")

# Tars that are unpacked at a time.
_TOGETHER = 8
# Bytes of a request to a store.
_REQUEST = 8 << 20

# What was made of an object, in a cache.
_MADE = "gunzip "


def is_gzipped(path: str) -> bool:
    """Return whether a name is that of a gzip'ed tar."""
    return path.lower().endswith((".tar.gz", ".tgz"))


class _File:
    """An open file, which is closed with the last reference to it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # At the end of the interpreter the module may have lost its names.
        close(self.descriptor)


@dataclass(frozen=True)
class UnpackedTar:
    """A gzip'ed tar, and where its contents lie.

    Attributes
    ----------
    index : TarIndex
        Of the contents; its path is that of the gzip'ed tar.
    file : _File
        Open file with the contents; in no folder, or kept by a cache as long as it is open.
    start : int
        First byte of the contents.
    nbytes : int
        Bytes of the gzip'ed tar.
    """

    index: TarIndex
    file: _File
    start: int
    nbytes: int

    @property
    def path(self) -> bytes:
        """Path by which this process can open the file."""
        return b"/dev/fd/%d" % self.file.descriptor


class _Packed(NamedTuple):
    """A gzip'ed tar as it is now.

    Attributes
    ----------
    path : str
        Path or URL, for errors.
    store : str
        Identity of the store.
    object : Object
        Name, size, and a text that changes with the contents, or is empty.
    changed : int
        A number that does so, for the index.
    read : callable
        Returns up to so many bytes from a place on; retries while the storage fails.
    check : callable
        Raises if the tar has changed.
    """

    path: str
    store: str
    object: Object
    changed: int
    read: Callable[[int, int], Buffer]
    check: Callable[[], None]


def unpacked_tars(
    paths: Sequence[str],
    owner: str,
    *,
    store: ObjectStore | None = None,
    cache: Cache | None = None,
    index_dir: str | None = None,
) -> list[UnpackedTar]:
    """Unpack gzip'ed tars into a cache, or into temporary files, and index them.

    Every tar is read once from its beginning to its end, in pieces. In a cache its contents stay for later runs and
    other processes. Temporary files have no name, so that they end with the process; they lie in the folder
    `tempfile.gettempdir()`, and take as many bytes as all contents together. The index is kept as for plain tars.

    Parameters
    ----------
    paths : sequence of str
        Local files; with `store`, URLs.
    owner : str
        Name of the reader, for errors.
    store : ObjectStore, optional
    cache : Cache, optional
    index_dir : str, optional
        Folder for the indexes.

    Raises
    ------
    TarError
        A tar is damaged or cut off, within the gzip data or the tar in them; the text states the byte.
    ReadError, StorageError
        A tar cannot be read.
    WriteError
        There is no space for the contents, or `index_dir` cannot be written to.
    """
    unpacking = _Unpacking(owner, store, cache, index_dir)
    pool = ThreadPoolExecutor(min(_TOGETHER, len(paths)), "highway-unpack")
    try:
        return list(pool.map(unpacking.one, paths))
    finally:
        # After an error, or Ctrl-C, tars that are half unpacked are of no use.
        unpacking.stop()
        pool.shutdown(cancel_futures=True)


class _Unpacking:
    """Unpacks tars in several threads."""

    def __init__(
        self, owner: str, store: ObjectStore | None, cache: Cache | None, index_dir: str | None
    ) -> None:
        self._owner, self._store, self._cache, self._index_dir = owner, store, cache, index_dir
        # A temporary file of each thread: a descriptor for every tar would be too many.
        self._local = threading.local()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let the threads raise PipelineStateError."""
        self._stopped.set()

    def _wait(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise PipelineStateError(f"{self._owner}: unpacking was stopped")

    def one(self, path: str) -> UnpackedTar:
        """Unpack a tar, or find what was unpacked before."""
        packed = self._local_file(path) if self._store is None else self._object(path, self._store)
        begun = time.monotonic()
        if self._cache is None:
            file, start, size = self._into_temporary_file(packed)
        else:
            descriptor, start, size = self._cache.whole_files.kept(
                _MADE + packed.store, packed.object, lambda: self._pieces(packed), self._wait
            )
            file = _File(descriptor)
        _logger.info(
            "%s: %r: %d bytes, unpacked %d, after %.1f s",
            self._owner,
            path,
            packed.object.size,
            size,
            time.monotonic() - begun,
        )
        index = self._index(packed, file, start, size)
        return UnpackedTar(index, file, start, packed.object.size)

    def _local_file(self, path: str) -> _Packed:
        size, changed = state_of(path, self._owner)

        def check() -> None:
            if state_of(path, self._owner) != (size, changed):
                raise TarError(
                    f"{self._owner}: {path!r} was changed while it was unpacked; wait until it is complete"
                )

        found = Object(os.path.abspath(path), size, str(changed))
        return _Packed(path, "file", found, changed, _LocalFile(path, self._owner).read, check)

    def _object(self, url: str, store: ObjectStore) -> _Packed:
        # It brings OpenSSL with it.
        from highway.storage.kept_indexes import number_of

        found = store.head(url)
        return _Packed(
            url,
            store.identity_of(url),
            found,
            number_of(found.etag),
            # An object that changes raises.
            lambda start, size: store.read(found, start, start + size),
            lambda: None,
        )

    def _pieces(self, packed: _Packed) -> Iterator[bytes]:
        name = f"{self._owner}: {packed.path!r}"
        request = PIECE if self._store is None else _REQUEST
        for piece in gunzipped(packed.read, packed.object.size, name, request):
            self._wait(0)
            yield piece
        packed.check()

    def _into_temporary_file(self, packed: _Packed) -> tuple[_File, int, int]:
        """Append the contents to the temporary file of this thread; returns it, the first byte and their number."""
        try:
            file: _File | None = getattr(self._local, "file", None)
            if file is None:
                with tempfile.TemporaryFile(prefix="highway-") as made:
                    self._local.file = file = _File(os.dup(made.fileno()))
            start = end = os.lseek(file.descriptor, 0, os.SEEK_END)
        except OSError as error:
            raise self._unwritten(packed, error) from error
        for piece in self._pieces(packed):
            left = memoryview(piece)
            while left:
                try:
                    written = os.pwrite(file.descriptor, left, end)
                except OSError as error:
                    raise self._unwritten(packed, error) from error
                left, end = left[written:], end + written
        return file, start, end - start

    def _unwritten(self, packed: _Packed, error: OSError) -> WriteError:
        with suppress(OSError):
            return WriteError(
                f"{self._owner}: {packed.path!r} cannot be unpacked into a temporary file in "
                f"{tempfile.gettempdir()!r}: {error.strerror or error}; set TMPDIR to a folder with space for the "
                "contents of all tars, give cache=, or unpack the tars yourself"
            )
        return WriteError(
            f"{self._owner}: {packed.path!r} cannot be unpacked: there is no folder for temporary files; set TMPDIR"
        )

    def _index(self, packed: _Packed, file: _File, start: int, size: int) -> TarIndex:
        """Return the index of the contents, as it is kept, or made now."""
        kept = self._place(packed)
        found = kept_index(kept, packed.path, size, packed.changed, self._owner) if kept else None
        if found is not None:
            return found

        def read(at: int, count: int) -> bytes:
            return os.pread(file.descriptor, max(0, min(count, size - at)), start + at)

        check_format(packed.path, self._owner, read(0, 1024))
        found_members = members.Members(read, size)
        made = complete(packed.path, size, packed.changed, found_members, self._owner)
        if kept:
            keep_index(kept, made, self._owner, self._index_dir is not None)
        return made

    def _place(self, packed: _Packed) -> str:
        """Return the file of the index of a tar; empty if it cannot be told when it is outdated."""
        if self._store is None:
            return place_of_index(packed.path, self._index_dir)
        # It brings OpenSSL with it.
        from highway.storage import kept_indexes

        where = self._store.where(packed.object.name)
        return kept_indexes.place_of_index(where, self._index_dir) if packed.object.etag else ""


class _LocalFile:
    """Reads a local file; waits during storage outages."""

    def __init__(self, path: str, owner: str) -> None:
        self._path, self._owner = path, owner
        self._file: _File | None = None

    def read(self, start: int, size: int) -> bytes:
        """Return up to `size` bytes from `start` on."""

        def once() -> bytes:
            try:
                if self._file is None:
                    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
                    self._file = _File(os.open(self._path, flags))
                return os.pread(self._file.descriptor, size, start)
            except OSError as error:
                # A stale handle stays stale.
                self._file = None
                found = unreadable(error)
                kind = StorageError if isinstance(found, StorageError) else ReadError
                raise kind(f"{self._owner}: {self._path!r} {found}") from None

        return Outages(self._owner).patiently(once)
