"""Lists the pictures of a folder of class folders, with the class of each."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.arguments import class_names
from highway.errors import ArgumentError, DatasetError, EmptyDatasetError, StorageError
from highway.modules.readers.listing.class_names import looks, remarks
from highway.modules.readers.listing.leftovers import is_skipped
from highway.modules.readers.listing.numeric_names import order_remark
from highway.modules.readers.listing.skipped_files import SkippedFiles
from highway.storage.access import Access
from highway.storage.file_names import EXTENSIONS
from highway.storage.file_tree import Entry, Tree
from highway.storage.folders import folder_at
from highway.storage.urls import is_url

__all__ = ["ClassFolders", "list_class_folders"]

_LOCAL = Access()

_OWNER = "ImageFileReader"


class ClassFolders(NamedTuple):
    """Result of `list_class_folders`.

    Attributes
    ----------
    root : bytes
        The folder or its URL, with a separator at its end.
    tree : Tree
        Reads the folder.
    classes : list of str
        Names of the classes, in the order of their labels: as given, or the names of the class folders, sorted.
    names : list of bytes
        Every picture relative to `root`, sorted within its class.
    labels : int64 (N,)
        Class number of every picture.
    skipped : SkippedFiles
        Everything else in the folder.
    """

    root: bytes
    tree: Tree
    classes: list[str]
    names: list[bytes]
    labels: NDArray[np.int64]
    skipped: SkippedFiles

    def identity(self) -> list[bytes]:
        """Identify the data: the pictures, and the classes if these do not follow from the pictures."""
        if self.classes == sorted(self.classes) and len(np.unique(self.labels)) == len(self.classes):
            return self.names
        return [*self.names, b"", *map(os.fsencode, self.classes)]

    def remarks(self, given: bool = False) -> list[str]:
        """Warnings about the classes, which are `given` or found: sentences without a full stop."""
        numbers = None if given else order_remark(self.classes)
        pictures = [name for name in self.classes if _has_ending(os.fsencode(name))]
        return [
            *remarks(self.root, self.classes, self.names),
            *([numbers] if numbers else []),
            *(f"the class {name!r} is a folder that is named like a picture" for name in pictures),
        ]


def list_class_folders(
    data_dir: str | bytes | os.PathLike[str],
    classes: Sequence[str] | None = None,
    access: Access = _LOCAL,
) -> ClassFolders:
    """List ``data_dir/CLASS/.../picture``.

    Class folders are searched to any depth. Links to files and folders are followed, loops are not. Names that begin
    with a dot are skipped, and so are files and folders that systems create (`leftovers.py`), except class folders that
    are in `classes`. Anything else with the ending of a picture is listed, even if it is not a file: reading it
    raises. A folder is a folder whatever its ending; a link is a picture if it has the ending of one.

    Parameters
    ----------
    data_dir : path or URL
    classes : sequence of str, optional
        The class folders in the order of their labels; some of them may be missing, or have no pictures.
    access : Access
        For a URL.

    Raises
    ------
    ArgumentError
        `classes` is not a list of folder names, each once, or lacks one of the folders.
    EmptyDatasetError
        There is no such folder, it has no class folder, or, without `classes`, one has no picture.
    DatasetError
        `data_dir` is not a folder, or it or a folder in it cannot be read.
    StorageError
        The storage failed for more than 30 s.
    """
    wanted = None if classes is None else _wanted(classes)
    root, tree = folder_at(_OWNER, "data_dir", data_dir, access)
    try:
        return _list(root, tree, wanted)
    except FileNotFoundError as error:
        if isinstance(error, EmptyDatasetError):
            raise
        raise EmptyDatasetError(
            f"{_OWNER}: {os.fsdecode(error.filename)!r} does not exist; data_dir must be a folder with one "
            "folder for each class"
        ) from None
    except StorageError:
        raise
    except OSError as error:
        if isinstance(error, DatasetError):
            raise
        others = " (TarReader reads tars, TableReader tables, ListReader lists of pictures)"
        raise DatasetError(
            f"{_OWNER}: {os.fsdecode(error.filename)!r} cannot be listed: {error.strerror}; data_dir must be a "
            "folder with one folder for each class, all of which may be read"
            f"{others if isinstance(error, NotADirectoryError) else ''}"
        ) from None


def _wanted(classes: Sequence[str]) -> list[bytes]:
    names = class_names(_OWNER, classes)
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ArgumentError(f"{_OWNER}: classes has {name!r}; expected names of folders of data_dir")
    return [os.fsencode(name) for name in names]


def _list(root: bytes, tree: Tree, wanted: list[bytes] | None) -> ClassFolders:
    inside = tree.scanned(root)
    skipped = SkippedFiles()
    folders = []
    for entry in inside:
        if not tree.is_folder(entry):
            _skip_loose(tree, entry, skipped)
        elif is_skipped(entry.name) and entry.name not in (wanted or ()):
            skipped.add_by_name(entry.name, folder=True)
        else:
            folders.append(entry.name)
    folders.sort()
    if not folders:
        raise EmptyDatasetError(_without_folders(root, inside))
    if {b"Annotations", b"JPEGImages"} <= set(folders):
        raise EmptyDatasetError(
            f"{_OWNER}: {os.fsdecode(root)!r} is a set in the format of Pascal VOC, and has no class folders; "
            "VOCReader reads it (in the shell: --voc)"
        )
    if wanted is not None:
        _check_known(root, folders, wanted)
    names: list[bytes] = []
    labels: list[NDArray[np.int64]] = []
    there = frozenset(folders)
    for label, folder in enumerate(folders if wanted is None else wanted):
        found_in_class = sorted(_pictures(root, tree, folder, skipped)) if folder in there else []
        if not found_in_class and wanted is None:
            raise EmptyDatasetError(_without_pictures(root, tree, folder))
        names += found_in_class
        labels.append(np.full(len(found_in_class), label, dtype=np.int64))
    if not names:
        raise EmptyDatasetError(
            f"{_OWNER}: {os.fsdecode(root)!r} has no pictures in the folders that classes names"
            + (f"; {skipped}" if len(skipped) else "")
        )
    skipped.look(root)
    classes = [os.fsdecode(folder) for folder in (folders if wanted is None else wanted)]
    return ClassFolders(root, tree, classes, names, np.concatenate(labels), skipped)


def _check_known(root: bytes, folders: list[bytes], wanted: list[bytes]) -> None:
    """Raise if a folder is not one of the classes."""
    known = frozenset(wanted)
    unknown = [folder for folder in folders if folder not in known]
    if not unknown:
        return
    names = [os.fsdecode(folder) for folder in unknown]
    alike = {looks(os.fsdecode(name)): os.fsdecode(name) for name in wanted}
    twin = next((name for name in names if looks(name) in alike), None)
    hint = f"; {twin!a} is there, and classes has {alike[looks(twin)]!a}, which looks alike" if twin else ""
    raise ArgumentError(
        f"{_OWNER}: {os.fsdecode(root)!r} has {'folders' if names[1:] else 'a folder'} that classes lacks: "
        f"{', '.join(map(repr, names[:10]))}{', ...' if names[10:] else ''}{hint}; add classes to the list, and move "
        "other folders, or begin their names with a dot, so that they are skipped"
    )


def _without_folders(root: bytes, inside: Sequence[Entry]) -> str:
    if any(entry.name == b"CURRENT" for entry in inside):
        return (
            f"{_OWNER}: {os.fsdecode(root)!r} is a store, and has no class folders; LevelDBImageReader "
            "reads encoded pictures, LevelDBSource arrays"
        )
    loose = [entry.name for entry in inside if _is_picture(entry.name)]
    found, instead = "it has neither folders nor pictures", ""
    if loose:
        found = f"{len(loose)} pictures are directly in it"
        endings = sorted(os.path.splitext(name)[1] for name in loose)
        pattern = os.fsdecode(glob.escape(root) + b"*" + max(endings, key=endings.count))
        paths = "[...]" if is_url(root) else f"sorted(glob.glob({pattern!r}))"
        instead = f". Without classes, ListReader reads them: ListReader({paths}, None, batch_size, shape)"
    return (
        f"{_OWNER}: {os.fsdecode(root)!r} has no class folders ({found}); expected one folder for each "
        f"class, with the pictures of that class inside{instead}"
    )


def _without_pictures(root: bytes, tree: Tree, folder: bytes) -> str:
    skipped = SkippedFiles()
    _pictures(root, tree, folder, skipped)
    skipped.look(root)
    said = f" ({skipped})" if len(skipped) else ""
    return (
        f"{_OWNER}: class folder {os.fsdecode(root + folder)!r} has no pictures "
        f"({', '.join(sorted(os.fsdecode(e) for e in EXTENSIONS))}){said}; remove it or add some, or name all classes "
        "with classes=, which may have some without pictures"
    )


def _has_ending(name: bytes) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def _is_picture(name: bytes) -> bool:
    return _has_ending(name) and not is_skipped(name)


def _skip_loose(tree: Tree, entry: Entry, skipped: SkippedFiles) -> None:
    """Count a file outside of the class folders as skipped."""
    if _is_picture(entry.name):
        skipped.add(entry.name, "in no class folder")
    else:
        _skip(entry.name, tree, entry, skipped)


def _skip(name: bytes, tree: Tree, entry: Entry, skipped: SkippedFiles) -> None:
    if entry.is_symlink() and not is_skipped(entry.name) and not tree.exists(entry.path):
        skipped.add(name, "linked to nothing")
    else:
        skipped.add_by_name(name)


def _pictures(root: bytes, tree: Tree, folder: bytes, skipped: SkippedFiles) -> list[bytes]:
    """Names of the pictures in `folder`, at any depth, relative to `root`."""
    found = []
    named_alike = []
    for name, entry, is_inner_folder in tree.walk(root, folder, _is_left, _is_picture_by_name):
        if not is_inner_folder:
            if _is_picture(entry.name):
                found.append(name)
            else:
                _skip(name, tree, entry, skipped)
        elif is_skipped(entry.name):
            skipped.add_by_name(name, folder=True)
        elif _has_ending(entry.name):
            named_alike.append(name)
    if named_alike:
        holding = {name[: at.start()] for name in found for at in re.finditer(b"/", name)}
        for name in named_alike:
            if name not in holding:
                skipped.add(name, "named like a picture, with none inside", folder=True)
    return found


def _is_left(name: bytes, entry: Entry) -> bool:
    return is_skipped(entry.name)


def _is_picture_by_name(entry: Entry) -> bool:
    return _is_picture(entry.name)
