"""Folders in the format of Pascal VOC for the tests."""

from __future__ import annotations

import os
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from pictures import jpeg_bytes, photograph

from highway.engine import Pipeline

CELLS = Path(os.environ.get("HIGHWAY_VOC", "no folder"))
"""A real set, BCCD (blood cells, shenggan 2017), where somebody has it."""

needs_cells = pytest.mark.skipif(not CELLS.is_dir(), reason="HIGHWAY_VOC names no folder with blood cells")


def thing(name="dog", box=(11, 21, 30, 50), **more):
    """An <object>."""
    inner = "".join(f"<{tag}>{value}</{tag}>" for tag, value in more.items())
    sides = "".join(
        f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    return f"<object><name>{escape(name)}</name>{inner}<bndbox>{sides}</bndbox></object>"


def annotation(*things, size=(60, 80)):
    """An annotation; `size` is height and width, None for none."""
    said = (
        ""
        if size is None
        else f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    )
    return f"<annotation><folder>x</folder>{said}{''.join(things)}</annotation>"


def voc_folder(
    root: Path, annotations: dict[str, str | bytes], size=(60, 80), splits=True, **jpeg_options
) -> Path:
    """A folder with a picture of `size` for each annotation, all of them in the split "train"."""
    for name in ("JPEGImages", "Annotations", *(["ImageSets/Main"] if splits else [])):
        (root / name).mkdir(parents=True)
    for seed, (name, text) in enumerate(annotations.items()):
        contents = text.encode() if isinstance(text, str) else text
        (root / "Annotations" / f"{name}.xml").write_bytes(contents)
        picture = jpeg_bytes(photograph(*size, seed), **jpeg_options)
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(picture)
    if splits:
        (root / "ImageSets/Main/train.txt").write_text("".join(f"{name}\n" for name in annotations))
    return root


def only_batch(reader, *modules):
    """The only batch of a reader."""
    with Pipeline([reader, *modules]) as pipeline:
        (batch,) = pipeline
    return batch
