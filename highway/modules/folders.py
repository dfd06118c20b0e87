"""A folder of class folders of pictures: which files there are, and which class each belongs to."""

from __future__ import annotations

import errno
import glob
import os
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.arguments import expanded
from highway.errors import DatasetError, EmptyDatasetError

__all__ = ["EXTENSIONS", "ClassFolders", "list_class_folders"]

EXTENSIONS = frozenset(
    (b".jpg", b".jpeg", b".jpe", b".jfif", b".png", b".webp", b".bmp", b".gif", b".tif", b".tiff")
)
"""Endings of the names that count as pictures, in any case. What a file holds is decided by its first bytes."""


class ClassFolders(NamedTuple):
    """What `list_class_folders` found.

    Attributes
    ----------
    root : bytes
        The folder, with a separator at its end.
    classes : list of str
        Names of the class folders, sorted.
    names : list of bytes
        Every picture relative to `root`, sorted within its class.
    labels : int64 (N,)
        Number of the class of every picture.
    """

    root: bytes
    classes: list[str]
    names: list[bytes]
    labels: NDArray[np.int64]


def list_class_folders(data_dir: str | bytes | os.PathLike[str]) -> ClassFolders:
    """List ``data_dir/CLASS/.../picture``.

    Class folders are searched to any depth. Links to files and folders are followed, loops are not; names that begin
    with a dot are left out. Anything with the ending of a picture is listed, even if it turns out not to be a file:
    reading it says so.

    Raises
    ------
    EmptyDatasetError
        There is no such folder, no class folder in it, or one without a picture.
    DatasetError
        `data_dir` is no folder, or it or a folder in it may not be read.
    """
    root = os.path.join(os.fsencode(expanded("ImageFileReader", "data_dir", data_dir)), b"")
    try:
        return _list(root)
    except FileNotFoundError as error:
        if isinstance(error, EmptyDatasetError):
            raise
        raise EmptyDatasetError(
            f"ImageFileReader: {os.fsdecode(error.filename)!r} does not exist; data_dir must be a folder with one "
            "folder for each class"
        ) from None
    except OSError as error:
        raise DatasetError(
            f"ImageFileReader: {os.fsdecode(error.filename)!r} cannot be listed: {error.strerror}; data_dir must be a "
            "folder with one folder for each class, all of which may be read"
        ) from None


def _list(root: bytes) -> ClassFolders:
    with os.scandir(root) as entries:
        inside = list(entries)
    folders = sorted(entry.name for entry in inside if _is_folder(entry))
    if not folders:
        if any(entry.name == b"CURRENT" for entry in inside):
            raise EmptyDatasetError(
                f"ImageFileReader: {os.fsdecode(root)!r} is a store, and has no class folders; LevelDBImageReader "
                "reads encoded pictures, LevelDBSource arrays"
            )
        loose = [entry.name for entry in inside if _is_picture(entry.name)]
        found, instead = "it is empty of both folders and pictures", ""
        if loose:
            found = f"{len(loose)} pictures lie directly in it"
            endings = sorted(os.path.splitext(name)[1] for name in loose)
            pattern = os.fsdecode(glob.escape(root) + b"*" + max(endings, key=endings.count))
            instead = (
                ". Without classes, ListReader reads them: "
                f"ListReader(sorted(glob.glob({pattern!r})), None, batch_size, shape)"
            )
        raise EmptyDatasetError(
            f"ImageFileReader: {os.fsdecode(root)!r} has no class folders ({found}); expected one folder for each "
            f"class, with the pictures of that class inside{instead}"
        )
    if {b"Annotations", b"JPEGImages"} <= set(folders):
        raise EmptyDatasetError(
            f"ImageFileReader: {os.fsdecode(root)!r} is a set in the format of Pascal VOC, and has no class folders; "
            "VOCReader reads it (in the shell: --voc)"
        )
    names: list[bytes] = []
    labels: list[NDArray[np.int64]] = []
    for label, folder in enumerate(folders):
        found_in_class = sorted(_pictures(root, folder))
        if not found_in_class:
            raise EmptyDatasetError(
                f"ImageFileReader: class folder {os.fsdecode(root + folder)!r} has no pictures "
                f"({', '.join(sorted(os.fsdecode(e) for e in EXTENSIONS))}); remove it or add some"
            )
        names += found_in_class
        labels.append(np.full(len(found_in_class), label, dtype=np.int64))
    return ClassFolders(root, [os.fsdecode(folder) for folder in folders], names, np.concatenate(labels))


def _hidden(name: bytes) -> bool:
    return name.startswith(b".")


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir() and not _hidden(entry.name)
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link that leads to itself leads nowhere
            return False
        raise


def _is_picture(name: bytes) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS and not _hidden(name)


def _pictures(root: bytes, folder: bytes) -> list[bytes]:
    """Names relative to `root` of the pictures below `folder`."""
    found = []
    # Each folder with the identities of those it lies in: a link back to one of them would be a loop.
    waiting = [(folder, frozenset({_identity(root), _identity(root + folder)}))]
    while waiting:
        here, above = waiting.pop()
        with os.scandir(root + here) as entries:
            for entry in entries:
                name = os.path.join(here, entry.name)
                if _is_picture(entry.name):
                    found.append(name)
                elif _is_folder(entry):
                    identity = _identity(root + name)
                    if identity not in above:
                        waiting.append((name, above | {identity}))
    return found


def _identity(path: bytes) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
