"""ObjectFiles: samples whose pictures or masks are objects of a store, fetched before they are needed."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway.errors import ArgumentError, HighwayError
from highway.modules.readers.masks import MaskFiles
from highway.modules.readers.samples import FileParts, Files, joined
from highway.storage.file_tree import LocalTree, Tree
from highway.storage.objects import UNKNOWN, ObjectTable
from highway.storage.ranges import Ranges
from highway.storage.urls import is_url

if TYPE_CHECKING:
    from typing_extensions import Buffer, Unpack

    from highway.storage.fetching import Fetcher
    from highway.storage.many_stores import ManyStores

__all__ = ["Listed", "MaskObjects", "ObjectFiles", "files_of", "masks_of"]

# A ticket before all others: masks are read one by one when the pictures are decoded.
_NOW = -1


class MaskObjects(MaskFiles):
    """Masks that are objects.

    Parameters
    ----------
    paths : sequence of bytes
        URLs, for errors.
    ranges : Ranges
        Mask i is range i.
    fill, max_pixels, owner, oriented
        See `Masks`.
    """

    _fetcher: Fetcher | None = None
    _first = 0

    def __init__(
        self,
        paths: Sequence[bytes],
        ranges: Ranges,
        fill: int,
        max_pixels: int,
        owner: str,
        oriented: bool,
    ) -> None:
        super().__init__(paths, fill, max_pixels, owner, oriented)
        self.ranges = ranges

    def fetching(self, fetcher: Fetcher, first: int) -> MaskObjects:
        """Return a copy that takes its masks from a fetcher; mask 0 is its range number `first`."""
        run = copy.copy(self)
        run._fetcher, run._first = fetcher, first
        return run

    def contents(self, index: int) -> bytes:
        assert self._fetcher is not None
        (data,), errors = self._fetcher.take(_NOW, np.array([self._first + index]))
        if errors:
            # The text follows the name.
            raise type(errors[0])(_after_name(errors[0], self.describe(index)))
        assert data is not None
        return bytes(data)


class ObjectFiles(Files):
    """Samples whose pictures, masks or both are objects.

    Parameters
    ----------
    root, names, where
        See `Files`; with `pictures`, `root` and `names` are parts of URLs.
    owner : str
        Name of the reader, for errors.
    pictures : Ranges or None
        Picture i is range i; None if the pictures are local files.
    **parts
        See `FileParts`.

    Raises
    ------
    ArgumentError
        Pictures and masks are in different stores.
    """

    _fetcher: Fetcher | None = None

    def __init__(
        self,
        root: bytes,
        names: Sequence[bytes],
        where: str,
        owner: str,
        pictures: Ranges | None,
        **parts: Unpack[FileParts],
    ) -> None:
        super().__init__(root, names, where, **parts)
        masks = self._masks
        of_masks = masks.ranges if isinstance(masks, MaskObjects) else None
        both = [ranges for ranges in (pictures, of_masks) if ranges is not None]
        if len(both) == 2 and both[0].store.url != both[1].store.url:
            raise ArgumentError(
                f"{owner}: the pictures are in {both[0].store.url}, the masks in {both[1].store.url}; expected the "
                "same store, or local masks"
            )
        self.ranges = both[0] if len(both) == 1 else both[0].followed_by(both[1])
        self._pictures = pictures
        self._first_mask = 0 if pictures is None else len(pictures)

    def needed(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        parts = [] if self._pictures is None else [indices]
        if isinstance(self.masks, MaskObjects):
            parts.append(indices + self._first_mask)
        return np.concatenate(parts)

    def fetching(self, fetcher: Fetcher) -> ObjectFiles:
        run = copy.copy(self)
        run._fetcher = fetcher
        if isinstance(self.masks, MaskObjects):
            run._masks = self.masks.fetching(fetcher, self._first_mask)
        return run

    def read(
        self, decoder: jpeg.BatchDecoder, indices: NDArray[np.int64], oriented: bool, turn: int
    ) -> tuple[NDArray[np.int64], dict[int, HighwayError]]:
        if self._pictures is None:
            return super().read(decoder, indices, oriented, turn)
        contents, errors = self._taken(indices, turn)
        return decoder.read_contents(contents, oriented, turn), errors

    def contents(
        self, indices: NDArray[np.int64], turn: int, owner: str
    ) -> tuple[list[bytes | memoryview | None], dict[int, HighwayError]]:
        return (
            super().contents(indices, turn, owner) if self._pictures is None else self._taken(indices, turn)
        )

    def sizes(self, indices: NDArray[np.int64], owner: str) -> NDArray[np.int64]:
        if self._pictures is None:
            return super().sizes(indices, owner)
        return np.maximum(self._pictures.stop[indices], 0)

    def _taken(
        self, indices: NDArray[np.int64], turn: int
    ) -> tuple[list[bytes | memoryview | None], dict[int, HighwayError]]:
        assert self._fetcher is not None
        contents, errors = self._fetcher.take(turn, indices)
        return [None if one is None else _viewed(one) for one in contents], errors


def _viewed(data: Buffer) -> bytes | memoryview:
    return data if isinstance(data, (bytes, memoryview)) else memoryview(data)


def _after_name(error: HighwayError, name: str) -> str:
    """Return the text of an error after the name of its file."""
    return str(error).partition(f"{name} ")[2] or str(error)


def masks_of(
    tree: Tree, paths: Sequence[bytes], fill: int, max_pixels: int, owner: str, oriented: bool
) -> MaskFiles:
    """Return masks in a tree of folders, local or of a store; see `MaskFiles`."""
    if isinstance(tree, LocalTree):
        return MaskFiles(paths, fill, max_pixels, owner, oriented)
    return MaskObjects(paths, tree.ranges(paths), fill, max_pixels, owner, oriented)


def files_of(
    tree: Tree,
    root: bytes,
    names: Sequence[bytes],
    owner: str,
    **parts: Unpack[FileParts],
) -> Files:
    """Return samples whose pictures lie in a tree of folders, local or of a store.

    Parameters
    ----------
    tree : Tree
    root : bytes
        Folder of the pictures.
    names : sequence of bytes
        See `Files`.
    owner : str
        Name of the reader, for errors.
    **parts
        See `FileParts`.
    """
    where = f"in {os.fsdecode(root)!r}"
    local = isinstance(tree, LocalTree)
    if local and not isinstance(parts.get("masks"), MaskObjects):
        return Files(root, names, where, **parts)
    pictures = None if local else tree.ranges([root + name for name in names])
    return ObjectFiles(root, names, where, owner, pictures, **parts)


class Listed:
    """Makes the samples of lists of paths and URLs, which may be mixed.

    Parameters
    ----------
    owner : str
        Name of the reader, for errors.
    root : bytes
        Folder of the paths that are relative, with a slash at its end; empty for the working directory.
    options : mapping or None
        `storage_options`.
    """

    def __init__(self, owner: str, root: bytes, options: Mapping[str, Any] | None) -> None:
        self._owner, self._root, self._options = owner, root, options
        self._store: ManyStores | None = None

    def _ranges(self, paths: Sequence[bytes]) -> Ranges | None:
        """Return where files lie; None if all of them are local."""
        if not any(map(is_url, paths)):
            return None
        if self._store is None:
            # Only URLs need it.
            from highway.storage.many_stores import ManyStores

            self._store = ManyStores(self._owner, self._options)
        self._store.open(map(os.fsdecode, paths))
        unknown = np.full(len(paths), UNKNOWN, np.int64)
        return Ranges.of_objects(self._store, ObjectTable("", paths, unknown))

    def masks(self, paths: Sequence[bytes], fill: int, max_pixels: int, oriented: bool) -> MaskFiles:
        """Return the masks of a list; see `MaskFiles`."""
        paths = [joined(self._root, path) for path in paths]
        ranges = self._ranges(paths)
        if ranges is None:
            return MaskFiles(paths, fill, max_pixels, self._owner, oriented)
        return MaskObjects(paths, ranges, fill, max_pixels, self._owner, oriented)

    def pictures(self, paths: Sequence[bytes]) -> Files:
        """Return samples that have only pictures."""
        return self.files(paths)

    def files(self, paths: Sequence[bytes], **parts: Unpack[FileParts]) -> Files:
        """Return the samples of a list; see `Files`."""
        ranges, where = self._ranges([joined(self._root, path) for path in paths]), "of the list"
        if ranges is None and not isinstance(parts.get("masks"), MaskObjects):
            return Files(self._root, paths, where, **parts)
        return ObjectFiles(self._root, paths, where, self._owner, ranges, **parts)
