"""Measures how closely decoded photographs agree with Pillow: every photograph of a folder, every fit.

    python benchmarks/agreement.py DIR

Pillow decodes the whole photograph, turns it upright and resizes the same window with the same filter
(`Image.resize(box=...)`, no reducing gap). Prints the mean absolute difference in levels (0 to 255) of an image: median
and maximum over the folder, separately for photographs decoded at full and at reduced scale.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from machine import describe, describe_line
from PIL import Image, ImageOps

from highway.engine import Pipeline
from highway.modules import ImageFileReader
from highway.sampling.rng import SampleRandom
from highway.transforms import CenterFit, Fit, Letterbox, RandomResizedCrop, Stretch

SHAPE = (240, 320)


def reference(path: Path, fit: Fit, index: int) -> tuple[np.ndarray, bool]:
    """Return Pillow's image, and whether the window is large enough for decoding at a reduced scale."""
    with Image.open(path) as stored:
        picture = ImageOps.exif_transpose(stored).convert("RGB")
    rng = SampleRandom(0, 0, [index], 0)
    window, target = (
        part[0] for part in fit.place(rng, np.array([picture.height]), np.array([picture.width]), SHAPE)
    )
    width, height = int(target[2] - target[0]), int(target[3] - target[1])
    image = np.zeros((*SHAPE, 3), np.uint8)
    filter_ = Image.Resampling[fit.interpolation.upper()]
    resized = picture.resize((width, height), filter_, box=tuple(window))
    image[target[1] : target[3], target[0] : target[2]] = np.asarray(resized)
    reducible = window[2] - window[0] >= 4 * width and window[3] - window[1] >= 4 * height
    return image, reducible and fit.interpolation not in ("nearest", "box")


def measure(folder: Path, fit: Fit, exact: bool) -> dict[bool, list[float]]:
    found: dict[bool, list[float]] = {False: [], True: []}
    with Pipeline([ImageFileReader(folder, 16, SHAPE, fit=fit, exact=exact, epochs=1)]) as pipeline:
        for batch in pipeline:
            for image, key, index in zip(batch.images, batch.keys, batch.indices, strict=True):
                expected, reduced = reference(folder / key, fit, int(index))
                found[reduced and not exact].append(float(np.abs(image.astype(int) - expected).mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of class folders of photographs")
    folder = parser.parse_args().folder
    print(describe_line(describe()))
    print(f"{'fit':<20}{'filter':<10}{'decoding':<15}{'photographs':>12}{'median':>9}{'max':>9}")
    for kind in (CenterFit, Stretch, Letterbox, RandomResizedCrop):
        for filter_ in ("bilinear", "bicubic", "lanczos", "box", "nearest"):
            for exact in (False, True):
                for reduced, means in measure(folder, kind(interpolation=filter_), exact).items():
                    if means:
                        how = "reduced scale" if reduced else "exact=True" if exact else "full scale"
                        print(
                            f"{kind.__name__:<20}{filter_:<10}{how:<15}{len(means):>12}"
                            f"{np.median(means):>9.3f}{max(means):>9.3f}"
                        )


if __name__ == "__main__":
    main()
