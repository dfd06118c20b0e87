"""Describe a folder of pictures: class folders or a VOC set, its classes, its samples and its skipped files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from highway.modules import VOCReader
from highway.modules.readers.listing.class_folders import list_class_folders
from highway.storage.printing import printable
from highway.storage.urls import is_url, split

__all__ = ["describe", "is_voc"]

_CLASSES_SHOWN = 100


def is_voc(
    path: str | os.PathLike[str], images: str = "JPEGImages", annotations: str = "Annotations"
) -> bool:
    """Whether a folder, or a folder at a URL, contains the two folders of a VOC set: pictures and annotations."""
    if is_url(os.fspath(path)):
        from highway.storage.objects import open_store

        place = split(os.fspath(path), "DIR")
        store = open_store(place.root, "DIR")
        folders = (f"{place.name.strip('/')}/{name}".strip("/") for name in (images, annotations))
        return all(next(store.list(folder), None) is not None for folder in folders)
    return all(os.path.isdir(os.path.join(path, name)) for name in (images, annotations))


def describe(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Return every fact as (name, value), in display order.

    Raises
    ------
    HighwayError
        The folder cannot be read, or has no samples.
    """
    return _voc(path) if is_voc(path) else _class_folders(path)


def _class_folders(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    found = list_class_folders(path)
    counts = np.bincount(found.labels, minlength=len(found.classes)).tolist()
    return [
        ("kind", "class folders"),
        ("samples", str(len(found.names))),
        ("endings", _endings(found.names)),
        ("skipped", _skipped(found.skipped)),
        *(("remark", remark) for remark in found.remarks()),
        ("classes", str(len(found.classes))),
        *_classes(found.classes, counts),
    ]


def _voc(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    reader = VOCReader(path, 1, (1, 1), split=None)
    return [
        ("kind", "a set in the format of Pascal VOC"),
        ("samples", f"{reader.size}, which have an annotation"),
        ("endings", _endings(map(os.fsencode, reader.known_keys() or ()))),
        ("skipped", _skipped(reader.skipped)),
        ("classes", f"{len(reader.classes)}, {reader.classes_origin}; with the number of their objects"),
        *_classes(reader.classes, reader.class_counts().tolist()),
    ]


def _skipped(skipped: object) -> str:
    return str(skipped).removeprefix("skipped ") or "nothing"


def _classes(classes: Sequence[str], counts: Sequence[int]) -> list[tuple[str, str]]:
    """Return a line for each of the first `_CLASSES_SHOWN` classes."""
    both = list(zip(classes, counts, strict=True))
    shown = [
        (f"class {label}", f"{printable(name)}: {count}")
        for label, (name, count) in enumerate(both[:_CLASSES_SHOWN])
    ]
    return [*shown, ("", f"and {len(both) - _CLASSES_SHOWN} more")] if both[_CLASSES_SHOWN:] else shown


def _endings(names: Iterable[bytes]) -> str:
    counts = Counter(os.path.splitext(name)[1] for name in names)
    return ", ".join(f"{count} {printable(ending) or 'without'}" for ending, count in counts.most_common())
