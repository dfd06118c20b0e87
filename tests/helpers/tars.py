"""Tar files for the tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write_tar(
    path: Path, members: Iterable[tuple[str, bytes]], format: int = tarfile.GNU_FORMAT, **options: Any
) -> Path:
    """Write members, as name and contents, with Python's tarfile."""
    with tarfile.open(path, "w", format=format, **options) as tar:
        for name, contents in members:
            info = tarfile.TarInfo(name)
            info.size = len(contents)
            tar.addfile(info, io.BytesIO(contents))
    return path


def members_of(sample: str, fields: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    return [(f"{sample}.{ending}", contents) for ending, contents in fields.items()]


def shards_of_folder(root: Path, keys: list[str], folder: Path, count: int) -> list[str]:
    """Write the files of class folders to `count` tars, in the order of their keys, with ``.cls``; return the paths."""
    classes = sorted({key.split("/")[0] for key in keys})
    folder.mkdir(exist_ok=True)
    paths = []
    each = -(-len(keys) // count)
    for number in range(count):
        members = []
        for key in keys[number * each : (number + 1) * each]:
            stem, _, ending = key.rpartition(".")
            label = classes.index(key.split("/")[0])
            members += members_of(stem, {ending: (root / key).read_bytes(), "cls": b"%d" % label})
        paths.append(str(write_tar(folder / f"part-{number:02}.tar", members)))
    return paths
