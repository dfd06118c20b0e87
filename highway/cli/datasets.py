"""Describe data: class folders, a VOC set, tar shards, a table or a manifest; their samples and classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from highway.modules import ListReader, TarReader, VOCReader
from highway.modules.readers.listing.class_folders import list_class_folders
from highway.modules.readers.manifests import columns_in
from highway.modules.readers.tables.endings import is_table
from highway.modules.readers.tables.table_reader import need_pyarrow
from highway.modules.readers.tar_samples import TarSamples
from highway.storage.printing import printable
from highway.storage.tar_index import compression_of
from highway.storage.unpacked_tars import is_gzipped
from highway.storage.urls import is_url, split
from highway.storage.wids_lists import is_wids_list

__all__ = ["describe", "is_manifest", "is_store", "is_tar", "is_voc", "manifest_reader"]

# Endings of manifests: of CSV files with their delimiters, None where it is to be found out, and of JSONL files.
_DELIMITERS = {".csv": None, ".tsv": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")

_CLASSES_SHOWN = 100
_NAME_SHOWN = 200  # letters


def is_store(path: str) -> bool:
    """Whether a path is the folder of a store."""
    try:
        names = os.listdir(path)
    except OSError:
        return False
    # Every LevelDB has a manifest; a folder of pictures may have files of the other LevelDB names.
    return any(name.startswith("MANIFEST-") for name in names)


def is_tar(path: str) -> bool:
    """Whether a path, brace list, wildcard or URL names tar shards, or the list of them."""
    plain = path.lower().endswith(".tar")
    return plain or is_gzipped(path) or is_wids_list(path) or compression_of(path) is not None


def is_manifest(path: str) -> bool:
    """Whether a path or URL names a CSV or JSONL file that lists pictures."""
    return path.lower().endswith((*_DELIMITERS, *_JSON_LINES))


def manifest_reader(path: str, batch_size: int, size: tuple[int, int], **arguments: Any) -> ListReader:
    """Return a reader of the pictures that a CSV or JSONL file lists."""
    ending = os.path.splitext(path)[1].lower()
    if ending in _JSON_LINES:
        return ListReader.from_jsonl(path, batch_size, size, **arguments)
    return ListReader.from_csv(path, batch_size, size, delimiter=_DELIMITERS[ending], **arguments)


def is_voc(
    path: str | os.PathLike[str], images: str = "JPEGImages", annotations: str = "Annotations"
) -> bool:
    """Whether a folder, or a folder at a URL, contains the two folders of a VOC set: pictures and annotations."""
    if is_url(os.fspath(path)):
        from highway.storage.opening import open_store

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
        The data cannot be read, or have no samples.
    """
    name = os.fspath(path)
    if is_tar(name):
        return _tar(name)
    if is_table(name):
        return _table(name)
    if is_manifest(name):
        return _manifest(name)
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


def _tar(path: str) -> list[tuple[str, str]]:
    reader = TarReader(path, 1, (1, 1), label=None)
    samples = reader.samples
    assert isinstance(samples, TarSamples)
    without = reader.without_picture
    endings = Counter(name.rpartition(b"/")[2].partition(b".")[2] for name in samples.member_names())
    return [
        ("kind", "tar shards"),
        ("tars", f"{len(reader.paths)}, {sum(samples.nbytes):,} bytes"),
        ("samples", f"{reader.size}" + (f", and {without} without a picture" if without else "")),
        ("endings", _counted(endings)),
    ]


def _table(path: str) -> list[tuple[str, str]]:
    need_pyarrow("info")
    # Late: they need pyarrow.
    from highway.modules.readers.tables.arrow import names_of
    from highway.modules.readers.tables.opening import GroupedData, opened

    data = opened("info", path, None)
    facts = [("kind", "a table"), ("rows", str(data.size))]
    if isinstance(data, GroupedData):
        facts.append(("row groups", str(len(data.files.sizes))))
    for name in data.names:
        kind, classes = str(data.type_of("info", "column", name)), names_of(data.features, name)
        known = "" if classes is None else f"; {len(classes)} classes: {', '.join(classes)}"
        facts.append((f"column {printable(name)}", printable(_cut(" ".join(kind.split()) + known))))
    return facts


def _manifest(path: str) -> list[tuple[str, str]]:
    ending = os.path.splitext(path)[1].lower()
    names, rows = columns_in(path, lines_of_json=ending in _JSON_LINES, delimiter=_DELIMITERS.get(ending))
    return [
        ("kind", "a manifest"),
        ("rows", str(rows)),
        *((f"column {number}", printable(_cut(name))) for number, name in enumerate(names)),
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _NAME_SHOWN else f"{text[: _NAME_SHOWN - 3]}..."


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
    return _counted(Counter(os.path.splitext(name)[1].removeprefix(b".") for name in names))


def _counted(endings: Counter[bytes]) -> str:
    """Endings without their dots, and how often each comes."""
    return ", ".join(
        f"{count} .{printable(ending)}" if ending else f"{count} without"
        for ending, count in endings.most_common()
    )
