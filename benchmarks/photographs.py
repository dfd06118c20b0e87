"""Writes numbered photographs in the formats that loaders read: class folders, tar shards, Parquet."""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
from participants.jobs import list_files

JPEG = (".jpg", ".jpeg")
IN_A_FOLDER = 1000
IN_A_ROW_GROUP = 100


def copied(directory: str, count: int, to: Path) -> list[Path]:
    """Copy the JPEGs of class folders, repeatedly, until there are `count`; return the copies, whose names are numbers.

    Raises
    ------
    ValueError
        There are no JPEGs.
    """
    originals = [path for path in list_files(directory)[0] if path.lower().endswith(JPEG)]
    if not originals:
        raise ValueError(f"{directory}: found no JPEG; expected class folders of pictures")
    copies = []
    for number in range(count):
        copies.append(to / f"{number // IN_A_FOLDER:04}" / f"{number:07}.jpg")
        copies[-1].parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(originals[number % len(originals)], copies[-1])
    return copies


def write_colors(paths: list[Path], file: Path) -> None:
    """Write the mean of each channel of each photograph, 0 to 1, as float64 (photographs, 3)."""
    from PIL import Image

    colors = np.empty((len(paths), 3))
    for number, path in enumerate(paths):
        with Image.open(path) as picture:
            picture.draft("RGB", (64, 64))
            colors[number] = np.asarray(picture.convert("RGB")).mean(axis=(0, 1)) / 255
    np.save(file, colors)


def write_tars(paths: list[Path], folder: Path, shards: int) -> str:
    """Write the photographs and their numbers, `.jpg` and `.cls`, to tars; return their name, with braces."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard, numbers in enumerate(np.array_split(np.arange(len(paths)), shards)):
        with tarfile.open(folder / f"photos-{shard:04}.tar", "w") as tar:
            for number in numbers.tolist():
                for ending, contents in (
                    ("jpg", paths[number].read_bytes()),
                    ("cls", str(number).encode()),
                ):
                    member = tarfile.TarInfo(f"{number:07}.{ending}")
                    member.size = len(contents)
                    tar.addfile(member, io.BytesIO(contents))
    return str(folder / f"photos-{{0000..{shards - 1:04}}}.tar")


def write_parquet(paths: list[Path], file: Path) -> None:
    """Write the photographs, as structs of bytes and path as `datasets` does, and their numbers to a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    schema = pyarrow.schema({"image": kind, "label": pyarrow.int64()})
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for begin in range(0, len(paths), IN_A_ROW_GROUP):
            group = range(begin, min(begin + IN_A_ROW_GROUP, len(paths)))
            pictures = [{"bytes": paths[number].read_bytes(), "path": paths[number].name} for number in group]
            columns = {"image": pyarrow.array(pictures, kind), "label": list(group)}
            writer.write_table(pyarrow.table(columns, schema), row_group_size=IN_A_ROW_GROUP)
