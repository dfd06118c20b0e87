"""What a folder of pictures is: class folders or a VOC set; its classes, its samples and what is skipped in it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

import numpy as np

from highway.modules import VOCReader
from highway.modules.folders import list_class_folders
from highway.modules.skipped_files import printable

__all__ = ["describe"]

_CLASSES_SHOWN = 100


def describe(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Every fact as (what, value), in the order to be shown.

    Raises
    ------
    HighwayError
        As the reader of such a folder: it cannot be read, or has no samples.
    """
    if all(os.path.isdir(os.path.join(path, name)) for name in ("JPEGImages", "Annotations")):
        return _voc(path)
    return _class_folders(path)


def _class_folders(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    found = list_class_folders(path)
    counts = np.bincount(found.labels, minlength=len(found.classes)).tolist()
    return [
        ("kind", "class folders"),
        ("samples", str(len(found.names))),
        ("endings", _endings(found.names)),
        ("skipped", str(found.skipped).removeprefix("skipped ") or "nothing"),
        *(("remark", remark) for remark in found.remarks()),
        ("classes", str(len(found.classes))),
        *(
            (f"class {label}", f"{printable(os.fsencode(name))}: {count}")
            for label, (name, count) in enumerate(zip(found.classes[:_CLASSES_SHOWN], counts, strict=False))
        ),
        *(
            [("", f"and {len(found.classes) - _CLASSES_SHOWN} more")]
            if found.classes[_CLASSES_SHOWN:]
            else []
        ),
    ]


def _voc(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    reader = VOCReader(path, 1, (1, 1), split=None)
    names = [os.fsencode(name) for name in os.listdir(os.path.join(path, "JPEGImages"))]
    return [
        ("kind", "a set in the format of Pascal VOC"),
        ("samples", f"{reader.size}, which have an annotation"),
        ("endings", f"{_endings(names)}, of {len(names)} files in JPEGImages"),
        ("reader", repr(reader)),
        ("classes", f"{len(reader.classes)}: {', '.join(reader.classes)}"),
    ]


def _endings(names: Iterable[bytes]) -> str:
    counts = Counter(os.path.splitext(name)[1] for name in names)
    return ", ".join(f"{count} {printable(ending) or 'without'}" for ending, count in counts.most_common())
