"""Measures what several views of a picture cost, compared with one: `Views` of a reader.

DIR is a folder of class folders of pictures. "one" is RandomResizedCrop to 224 x 224; "two" are two such views of each
picture, as for SimCLR and BYOL; "ten" are the views of DINO, two of 224 x 224 and eight of 96 x 96. Batches are
made in one process, in turns. "time" and "CPU" are the ratios to "one" of the same round; the median of
the rounds counts. On a busy machine, compare the CPU times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from machine import describe, describe_line

import highway
from highway.engine import Pipeline
from highway.modules import ImageFileReader
from highway.transforms import RandomResizedCrop, Views

GLOBAL, LOCAL = RandomResizedCrop(scale=(0.32, 1.0)), RandomResizedCrop(scale=(0.05, 0.32))
VIEWS = {
    "one": None,
    "two": Views({"images_a": (RandomResizedCrop(), 224), "images_b": (RandomResizedCrop(), 224)}),
    "ten": Views({"global": (2, GLOBAL, 224), "local": (8, LOCAL, 96)}),
}


def reader(directory: Path, batch: int, views: Views | None, threads: int) -> ImageFileReader:
    """Return the reader of a participant."""
    if views is None:
        return ImageFileReader(
            directory, batch, 224, fit=RandomResizedCrop(), workers=threads, drop_last=True
        )
    return ImageFileReader(directory, batch, fit=views, workers=threads, drop_last=True)


def one_round(source: ImageFileReader, threads: int, seconds: float) -> tuple[float, float]:
    """Milliseconds, and milliseconds of CPU, for a picture with all of its views."""
    with Pipeline([source]) as pipeline:
        for _ in range(2 * threads + 1):
            pipeline.dequeue()
        begun, used, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() < begun + seconds:
            count += pipeline.dequeue().size
        elapsed, used = time.perf_counter() - begun, time.process_time() - used
    return 1e3 * elapsed / count, 1e3 * used / count


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder of class folders of pictures")
    parser.add_argument("--batch", type=int, default=64, help="pictures in a batch (default: 64)")
    parser.add_argument("--threads", type=int, default=2, help="workers of the reader (default: 2)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts (default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each is measured in each round")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    if min(options.batch, options.threads, options.rounds) < 1:
        parser.error("--batch, --threads and --rounds are 1 or more")
    machine = {**describe(), "highway": highway.__version__}
    print(describe_line(machine))
    sources = {
        name: reader(options.directory, options.batch, views, options.threads)
        for name, views in VIEWS.items()
    }
    print(f"{sources['one'].size} pictures, {options.threads} workers\n")
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in VIEWS}
    for _ in range(options.rounds):
        for name, source in sources.items():
            times[name].append(one_round(source, options.threads, options.seconds))
    print(f"{'views':<8}{'pictures/s':>12}{'CPU ms':>9}{'time':>8}{'CPU':>8}")
    figures: dict[str, dict[str, float]] = {}
    for name, found in times.items():
        pairs = list(zip(found, times["one"], strict=True))
        figures[name] = {
            "milliseconds": statistics.median(wall for wall, _ in found),
            "cpu": statistics.median(cpu for _, cpu in found),
            "time_ratio": statistics.median(mine[0] / one[0] for mine, one in pairs),
            "cpu_ratio": statistics.median(mine[1] / one[1] for mine, one in pairs),
        }
        row = figures[name]
        print(
            f"{name:<8}{1e3 / row['milliseconds']:>12.0f}{row['cpu']:>9.2f}{row['time_ratio']:>8.2f}"
            f"{row['cpu_ratio']:>8.2f}"
        )
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine, "views": figures}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
