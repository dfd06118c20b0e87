"""The demo: runs the main job on real photographs, to show that Highway works and how fast.

The photographs come with the package scikit-image. The demo cuts them into overlapping tiles, one class for each
photograph, and reads them as it would read your own class folders.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from highway.cli import environment
from highway.cli.terminal import facts, heading, run_pipeline
from highway.engine import Module, Pipeline
from highway.errors import MissingPackageError
from highway.modules import Augmentations, ImageFileReader
from highway.transforms import FlipX, Normalize, RandomResizedCrop

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["cut_photographs", "find_photographs", "run"]

PHOTOGRAPHS = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "cameraman": "camera.png",
    "cat": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "galaxies": "hubble_deep_field.jpg",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "moon": "moon.png",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "tissue": "ihc.png",
}
"""File name in scikit-image's data, by class name."""

# A photograph is cut into GRID x GRID evenly spread tiles of TILE times its height and width.
_GRID = 4
_TILE = 5 / 8
_JPEG_QUALITY = 90


def find_photographs() -> dict[str, Path]:
    """Return class and file of every photograph of `PHOTOGRAPHS` that the installed scikit-image has.

    scikit-image is not imported, because the demo installs it without its dependencies.

    Raises
    ------
    MissingPackageError
        scikit-image is not installed, or has fewer than two of them.
    """
    found: dict[str, Path] = {}
    specification = importlib.util.find_spec("skimage")
    for place in (specification and specification.submodule_search_locations) or ():
        data = Path(place) / "data"
        found.update({label: data / name for label, name in PHOTOGRAPHS.items() if (data / name).is_file()})
    if len(found) < 2:
        state = "is installed without them" if specification else "is not installed"
        raise MissingPackageError(
            f"demo: the photographs come with scikit-image, which {state}: "
            f"{environment.install_command('scikit-image')}"
        )
    return found


def cut_photographs(photographs: dict[str, Path], folder: Path) -> None:
    """Write the tiles of every photograph as JPEGs: ``folder/CLASS/ROW-COLUMN.jpg``; files of an earlier run are
    replaced.

    Raises
    ------
    MissingPackageError
        PIL is not installed.
    OSError
        A photograph cannot be read, or a tile cannot be written.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingPackageError(
            "demo: PIL, which cuts the photographs, is not installed: pip install Pillow-SIMD"
        ) from None
    for label, path in photographs.items():
        into = folder / label
        into.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as opened:
            photograph = opened if opened.mode in ("L", "RGB") else opened.convert("RGB")
            for row in range(_GRID):
                for column in range(_GRID):
                    tile = _tile(photograph, row, column)
                    tile.save(into / f"{row}-{column}.jpg", quality=_JPEG_QUALITY)


def _tile(photograph: Image, row: int, column: int) -> Image:
    width, height = round(photograph.width * _TILE), round(photograph.height * _TILE)
    left = (photograph.width - width) * column // (_GRID - 1)
    top = (photograph.height - height) * row // (_GRID - 1)
    return photograph.crop((left, top, left + width, top + height))


def _describe_pictures(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Return formats, sizes and bytes of picture files, read from their headers, as facts."""
    from PIL import Image

    formats: Counter[str] = Counter()
    sizes: list[tuple[int, int]] = []
    for path in paths:
        with Image.open(path) as image:
            formats[f"{image.format}, {'gray' if image.mode == 'L' else 'color'}"] += 1
            sizes.append((image.height, image.width))
    smallest, largest = min(sizes, key=_area), max(sizes, key=_area)
    return [
        ("formats", "; ".join(f"{count} {name}" for name, count in formats.most_common())),
        ("sizes", f"{smallest[0]} × {smallest[1]} to {largest[0]} × {largest[1]} pixels"),
        ("bytes", f"{sum(path.stat().st_size for path in paths) / 1e6:.1f} MB"),
    ]


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def run(output: Path, *, epochs: int = 20, workers: int | None = None) -> int:
    """Run the demo and print its results.

    Parameters
    ----------
    output : Path
        Folder for ``photos/`` and ``contact-sheet.png``; created if it is missing.
    epochs : int
        Passes of each job over the photographs.
    workers : int, optional
        Threads that read and decode; tuned automatically by default, up to one per usable core.

    Returns
    -------
    int
        Exit code: 0, or 130 after Ctrl-C.

    Raises
    ------
    HighwayError, OSError
        The photographs are missing, or something cannot be read or written.
    """
    photos = output / "photos"
    photographs = find_photographs()
    heading("Photographs")
    cut_photographs(photographs, photos)
    reader = ImageFileReader(photos, 16, (240, 320), epochs=epochs, workers=workers)
    facts(
        [
            ("from", f"scikit-image {environment.installed('scikit-image') or ''}".rstrip()),
            ("cut into", f"{reader.size} files in {len(reader.classes)} classes, in {photos}"),
            ("classes", ", ".join(reader.classes)),
            *_describe_pictures(sorted(photos.glob("*/*.jpg"))),
        ]
    )

    jobs: list[tuple[str, ImageFileReader, list[Module]]] = [
        (
            "240 × 320, flipped at random, batches of 16",
            reader,
            [Augmentations([FlipX()])],
        ),
        (
            "224 × 224 random crops, flipped at random, normalized to float32 NCHW, batches of 64",
            ImageFileReader(photos, 64, (224, 224), fit=RandomResizedCrop(), epochs=epochs, workers=workers),
            [Augmentations([FlipX(), Normalize()])],
        ),
    ]
    for title, source, stages in jobs:
        heading(title)
        result = run_pipeline([source, *stages], total=epochs * source.size)
        print(result)
        if result.interrupted:
            print("\nInterrupted.", file=sys.stderr)
            return 130

    sheet = output / "contact-sheet.png"
    modules = [
        ImageFileReader(photos, 16, (240, 320), fit=RandomResizedCrop(scale=(0.3, 1.0)), epochs=1),
        Augmentations([FlipX()]),
    ]
    with Pipeline(modules) as pipeline:
        batch = pipeline.dequeue()
    title = "One augmented batch: RandomResizedCrop to 240 x 320, then FlipX"
    batch.sheet(sheet, reader.classes, title=title)
    heading("Contact sheet")
    print(f"{sheet}: an augmented batch with its labels", flush=True)
    return 0
