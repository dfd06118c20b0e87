"""Write the samples of a store to files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from highway.arguments import expanded
from highway.batch import Batch
from highway.cli.terminal import progress
from highway.errors import CorruptStoreError, StoreError
from highway.modules.readers.pictures.other_picture import pillow
from highway.storage.file_names import FoldingFolder, name_of
from highway.storage.files import write_whole
from highway.store.reading import StoreReader
from highway.store.records import BatchBuffers

__all__ = ["export"]

_LISTED = "samples.jsonl"
_OWNER = "export"
# First bytes of a file, and its matching extensions.
_ENDINGS = ((b"\xff\xd8", (".jpg", ".jpeg")), (b"\x89PNG", (".png",)))


def export(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> tuple[int, bool]:
    """Write the samples of a store to files; with a progress bar on a terminal.

    Pictures go to ``images/KEY``: encoded ones unchanged, pixels as PNG. Masks go to ``masks/KEY.png``. Other fields
    with two or more dimensions per sample, or complex values, go to ``FIELD/KEY.npy``. Each line of ``samples.jsonl``
    holds the number, key, labels, boxes and file names of a sample. Boxes and masks refer to the upright picture, also
    where a file states an orientation. Where two keys differ only in their extension, the file of the second keeps that
    extension before its own: ``masks/cat/1.jpg.png``. An incomplete store is exported as far as it was written.

    Parameters
    ----------
    path : path
        The store.
    folder : path
        Created if it is missing; must be empty.

    Returns
    -------
    samples : int
        Number of samples.
    complete : bool
        Whether the writing of the store was finished.

    Raises
    ------
    StoreError
        As raised by `LevelDBSource`; or the folder is not empty, or two samples have the same key, or keys that are
        equal for the file system.
    ArgumentError
        A key is not a valid file name.
    MissingPackageError
        PIL, which writes PNG, is not installed.
    WriteError
    """
    target = expanded(_OWNER, "folder", folder)
    if os.path.lexists(target) and (not os.path.isdir(target) or os.listdir(target)):
        raise StoreError(
            f"{_OWNER}: {target!r} exists and is not an empty folder; remove it, or use another path"
        )
    reader = StoreReader(path, _OWNER, allow_incomplete=True)
    try:
        # The list appears only after every file that it names.
        write_whole(os.path.join(target, _LISTED), lambda file: _write_all(reader, target, file), _OWNER)
        return len(reader), reader.mark.complete
    finally:
        reader.close()


class _Files:
    """The files of samples in a folder; every name is used once.

    Parameters
    ----------
    target : str
        The folder.
    source : str
        The store, for errors.
    """

    def __init__(self, target: str, source: str) -> None:
        self._target, self._source = target, source
        self._folder = FoldingFolder(target, _OWNER)
        self._taken: set[str] = set()
        self._keys: set[str] = set()

    def begin(self, key: str) -> None:
        """Begin the files of a sample; raises StoreError where another sample has its key."""
        if key in self._keys:
            raise self._several(key)
        self._keys.add(key)

    def path(self, name: str) -> str:
        return os.path.join(self._target, name)

    def take(self, field: str, stem: str, ending: str, ending_of_key: str) -> str:
        """Return an unused name within the folder for the file of a field."""
        for more in ("", ending_of_key):
            name = f"{field}/{stem}{more}{ending}"
            one = self._folder.name(name)
            if one not in self._taken:
                self._taken.add(one)
                return name
        raise self._several(stem + ending_of_key)

    def _several(self, key: str) -> StoreError:
        return StoreError(
            f"{_OWNER}: {self._source!r} has several samples named {key!r} (from several epochs, or the same name for "
            "the file system); their files would overwrite each other"
        )


def _write_all(reader: StoreReader, target: str, listed: BinaryIO) -> None:
    files = _Files(target, os.fspath(reader.path))
    with progress(len(reader)) as advance:
        for batch in _samples(reader):
            key = batch.keys[0] if batch.keys else f"{batch.indices[0]:08}"
            stem, ending = name_of(key, _OWNER)
            files.begin(stem + ending)
            facts: dict[str, Any] = {"number": int(batch.indices[0]), "key": key}
            for name, array in (*batch.fields.items(), *batch.extras.items()):
                facts |= _written(files, name, array if name in batch.ragged else array[0], stem, ending)
            classes = reader.mark.classes
            if isinstance(classes, list) and "labels" in facts and batch["labels"].dtype == np.int64:
                facts["class"] = _named(facts["labels"], classes)
            listed.write(json.dumps(facts).encode() + b"\n")
            advance(1)


def _samples(reader: StoreReader) -> Iterator[Batch]:
    """Yield every sample as a batch of one."""
    with reader:
        for number in range(len(reader)):
            found = reader.read([number])
            for error in found.errors.values():
                raise CorruptStoreError(f"{error} (highway store repair saves the other records)")
            buffers = BatchBuffers(reader.schema, 1)
            buffers.put(found.rows, found)
            yield buffers.batch(epoch=0, seq=0, indices=np.array([number]))


def _written(files: _Files, name: str, value: Any, stem: str, ending: str) -> dict[str, Any]:
    """Write a field of a sample; return its entry in the list: its value, or the name of its file."""
    if isinstance(value, bytes):
        file = files.take(name, stem, _fitting(value, ending), ending)
        write_whole(files.path(file), lambda opened: opened.write(value), _OWNER)
    elif _is_picture(name, value):
        file = files.take(name, stem, ".png", ending)
        _write_picture(files.path(file), value)
    elif (name != "boxes" and value.ndim > 1) or value.dtype.kind == "c":
        file = files.take(name, stem, ".npy", ending)
        write_whole(files.path(file), lambda opened: np.save(opened, value, allow_pickle=False), _OWNER)
    else:
        return {name: value.tolist()}
    return {name: file}


def _named(label: Any, classes: list[str]) -> Any:
    """Return the class name of a label, or of each label in a list; None where the label is out of range."""
    if isinstance(label, list):
        return [_named(each, classes) for each in label]
    return classes[label] if 0 <= label < len(classes) else None


def _is_picture(name: str, value: NDArray[Any]) -> bool:
    if value.dtype != np.uint8 or not value.size:
        return False
    return (name == "images" and value.ndim == 3 and value.shape[2] in (1, 3)) or (
        name == "masks" and value.ndim == 2
    )


def _write_picture(path: str, pixels: NDArray[np.uint8]) -> None:
    image = pillow(_OWNER).fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels)
    write_whole(path, lambda file: image.save(file, "PNG"), _OWNER)


def _fitting(contents: bytes, ending: str) -> str:
    """Return the extension of a file: that of its key, unless the contents have another format."""
    for begin, endings in _ENDINGS:
        if contents.startswith(begin):
            return ending if ending.lower() in endings else endings[0]
    return ending
