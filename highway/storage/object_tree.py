"""ObjectTree: the objects of a store as folders and files, listed once."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.errors import ArgumentError, DatasetError, HighwayError, ReadError, StorageError
from highway.storage.access import Access
from highway.storage.bucket_index import listed
from highway.storage.fetching import Fetcher
from highway.storage.file_tree import Entry, Tree
from highway.storage.objects import UNKNOWN, ObjectTable
from highway.storage.opening import open_store
from highway.storage.ranges import Ranges
from highway.storage.urls import split

__all__ = ["ObjectTree"]

# Files that `contents` reads are fetched ahead, so many at a time.
_AHEAD = 256
_AHEAD_BYTES = 64 << 20


class _ObjectEntry(NamedTuple):
    """A file or folder; as `os.DirEntry`, as far as readers use it."""

    name: bytes
    path: bytes
    folder: bool

    def is_symlink(self) -> bool:
        return False


class ObjectTree(Tree):
    """The folders and files in a folder of a store.

    An empty object with the name of a folder, by which some programs create folders, is none of its files.

    Parameters
    ----------
    url : str
        The folder.
    owner : str
        Name of the reader, for errors.
    access : Access

    Raises
    ------
    DatasetError
        The store cannot be listed.
    ArgumentError, MissingPackageError, StorageError
        See `open_store` and `ObjectStore.list`.
    """

    def __init__(self, url: str, owner: str, access: Access) -> None:
        self._owner, self._cache = owner, access.cache
        place = split(url, owner)
        self.store = open_store(place.root, owner, access.options)
        self._root = os.path.join(os.fsencode(url), b"")
        folder = place.name.strip("/")
        self._prefix = f"{folder}/" if folder else ""
        self._rows: dict[bytes, int] = {}
        sizes: list[int] = []
        self._etags: list[str] = []
        self._folders: dict[bytes, set[bytes]] = {b"": set()}
        try:
            for found in listed(self.store, folder, access):
                name = found.name.removeprefix(self._prefix).encode("utf-8", "surrogateescape")
                self._rows[name] = len(sizes)
                sizes.append(found.size)
                self._etags.append(found.etag)
                self._add(name)
        except StorageError:
            raise
        except ReadError as error:
            raise DatasetError(f"{error}; expected a folder of a store that can be listed") from error
        self._sizes = np.array(sizes, np.int64)

    def _add(self, name: bytes) -> None:
        """Add a name to its folder, and the folder to its own."""
        while name:
            folder, _, base = name.rpartition(b"/")
            inside = self._folders.setdefault(folder, set())
            if base in inside:
                return
            inside.add(base)
            name = folder

    def relative(self, path: bytes) -> bytes:
        """Name of a path of the tree, relative to its root.

        Raises
        ------
        ArgumentError
            The path is not inside of the tree.
        """
        whole = os.path.join(path, b"")
        found = posixpath.normpath(whole.removeprefix(self._root).rstrip(b"/") or b".")
        if not whole.startswith(self._root) or found.startswith((b"../", b"/")) or found == b"..":
            raise ArgumentError(
                f"{self._owner}: {os.fsdecode(path)!r} is not inside of {os.fsdecode(self._root)!r}; expected a folder "
                "relative to it, since it is a URL"
            )
        return b"" if found == b"." else found

    # As every tree

    def scanned(self, path: bytes) -> Sequence[Entry]:
        folder = self.relative(path)
        if folder not in self._folders or (not folder and not self._rows):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        inside = folder + b"/" if folder else b""
        beside = os.path.join(path, b"")
        found = []
        for base in sorted(self._folders[folder]):
            name = inside + base
            is_folder = name in self._folders
            found.append(_ObjectEntry(base, beside + base, is_folder))
            if is_folder and name in self._rows and self._sizes[self._rows[name]]:
                found.append(_ObjectEntry(base, beside + base, False))
        return found

    def is_folder(self, entry: Entry) -> bool:
        assert isinstance(entry, _ObjectEntry)
        return entry.folder

    def walk(
        self,
        root: bytes,
        folder: bytes,
        left: Callable[[bytes, Entry], bool],
        is_file: Callable[[Entry], bool],
    ) -> Iterator[tuple[bytes, Entry, bool]]:
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            inside = here + b"/" if here else here
            for entry in self.scanned(root + here):
                name = inside + entry.name
                folder_here = self.is_folder(entry)
                if folder_here and not left(name, entry):
                    waiting.append(name)
                yield name, entry, folder_here

    def exists(self, path: bytes) -> bool:
        name = self.relative(path)
        return name in self._rows or name in self._folders

    def is_directory(self, path: bytes) -> bool:
        name = self.relative(path)
        return name in self._folders and bool(self._rows)

    def read(self, path: bytes, most: int) -> bytes:
        return _contents(next(self.contents([path], most)))

    def contents(self, paths: Sequence[bytes], most: int) -> Iterator[bytes | HighwayError]:
        ranges = self.ranges(paths)
        fetcher = Fetcher(self._owner, ranges, max_bytes=_AHEAD_BYTES, cache=self._cache)
        try:
            numbers = np.arange(len(paths))
            fetcher.announce(0, numbers[:_AHEAD])
            for number in range(len(paths)):
                fetcher.announce(number + 1, numbers[number + _AHEAD : number + _AHEAD + 1])
                (data,), errors = fetcher.take(number, numbers[number : number + 1])
                where = self.store.where(ranges.objects[number].name)
                if errors:
                    # As for local files, the text follows the name.
                    yield ReadError(str(errors[0]).removeprefix(f"{self._owner}: {where} "))
                    continue
                assert data is not None
                size = len(memoryview(data))
                yield bytes(data) if size <= most else ReadError(f"has {size} bytes; allowed are {most}")
        finally:
            fetcher.close()

    # Objects

    def ranges(self, paths: Sequence[bytes]) -> Ranges:
        names = [self.relative(path) for path in paths]
        known = [self._rows.get(name, -1) for name in names]
        rows: NDArray[np.int64] = np.array(known, np.int64)
        sizes = np.append(self._sizes, UNKNOWN)[rows]
        etags = [self._etags[row] if row >= 0 else "" for row in known]
        return Ranges.of_objects(self.store, ObjectTable(self._prefix, names, sizes, etags))


def _contents(found: bytes | HighwayError) -> bytes:
    if isinstance(found, HighwayError):
        raise found
    return found
