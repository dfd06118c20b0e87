"""Measures how fast PNGs and WebPs become batches: Highway against Pillow or Pillow-SIMD in threads.

DIR is a folder of class folders of JPEGs. Its pictures are written again in each format into a temporary folder; then
Highway and Pillow make the same batches of them, in turns, with the same number of threads. The median of the rounds
counts. On a busy machine, compare the CPU times.

The jobs are those of peers.py: "fit" scales the largest centered window to 240x320, and flips; "rrc" is
RandomResizedCrop to 224, flip and normalize.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from machine import describe, describe_line
from PIL import Image

from highway._core.jpeg import codec as jpeg

sys.path.insert(0, str(Path(__file__).resolve().parent / "participants"))

import highway_pipeline
import pillow_threads
from jobs import JOBS, Job, list_files

# Ending and options of PIL's save.
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "PNG": (".png", {}),
    "PNG, 16 bits of gray": (".png", {}),
    "WebP, lossy": (".webp", {"quality": 85}),
    "WebP, lossless": (".webp", {"lossless": True}),
}
Batches = Iterator[tuple[np.ndarray, np.ndarray]]
MAKERS: dict[str, Callable[..., Batches]] = {
    "highway": highway_pipeline.batches,
    "pillow": pillow_threads.batches,
}


def convert(paths: list[str], labels: list[int], format_: str, target: Path) -> int:
    """Write the pictures in a format into class folders of `target`; returns the size of all files in bytes."""
    ending, options = FORMATS[format_]
    total = 0
    for number, (path, label) in enumerate(zip(paths, labels, strict=True)):
        file = target / str(label) / f"{number}{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        if "gray" in format_:
            picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
        picture.save(file, **options)
        total += file.stat().st_size
    return total


def one_round(
    make: Callable[..., Batches], folder: Path, job: Job, threads: int, seconds: float
) -> list[float]:
    """Pictures a second, and milliseconds of CPU a picture."""
    batches = make(str(folder), job, threads, "", 1)
    try:
        for _ in range(2 * threads + 1):
            next(batches)
        begun, used, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() < begun + seconds:
            count += len(next(batches)[0])
        elapsed, used = time.perf_counter() - begun, time.process_time() - used
    finally:
        batches.close()
    return [count / elapsed, 1e3 * used / count]


def measure(folder: Path, job: Job, threads: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Median of the rounds for each participant, as `one_round` gives them."""
    found: dict[str, list[list[float]]] = {who: [] for who in MAKERS}
    for _ in range(rounds):
        for who, make in MAKERS.items():
            found[who].append(one_round(make, folder, job, threads, seconds))
    return {
        who: [statistics.median(column) for column in zip(*each, strict=True)] for who, each in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder of class folders of JPEGs")
    parser.add_argument("--threads", type=int, default=2, help="threads of each participant (default: 2)")
    parser.add_argument("--pictures", type=int, default=400, help="most pictures of DIR (default: 400)")
    parser.add_argument(
        "--format", choices=list(FORMATS), action="append", help="only this one; may be repeated"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts (default: 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each is measured in each round")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    if min(arguments.threads, arguments.pictures, arguments.rounds) < 1:
        parser.error("--threads, --pictures and --rounds must be 1 or more")
    paths, labels, _ = list_files(str(arguments.directory))
    step = -(-len(paths) // arguments.pictures)
    paths, labels = paths[::step], labels[::step]

    facts = {**describe(), "pil": PIL.__version__, "libraries": jpeg.library_versions()}
    print(describe_line(facts))
    print(
        f"PIL {PIL.__version__}; {jpeg.library_versions()}; {len(paths)} pictures, {arguments.threads} threads\n"
    )
    print(
        f"{'':<32}{'KB each':>8}{'highway/s':>11}{'pillow/s':>10}{'ratio':>7}{'CPU ms':>8}{'pillow':>8}{'ratio':>7}"
    )
    rows = {}
    for format_ in arguments.format or FORMATS:
        with tempfile.TemporaryDirectory() as scratch:
            size = convert(paths, labels, format_, Path(scratch)) / len(paths)
            for job in JOBS.values():
                found = measure(Path(scratch), job, arguments.threads, arguments.rounds, arguments.seconds)
                (rate, cpu), (its_rate, its_cpu) = found["highway"], found["pillow"]
                rows[f"{format_}, {job.name}"] = {"bytes": size, **found}
                print(
                    f"{format_ + ', ' + job.name:<32}{size / 1e3:>8.0f}{rate:>11.0f}{its_rate:>10.0f}"
                    f"{rate / its_rate:>7.2f}{cpu:>8.2f}{its_cpu:>8.2f}{its_cpu / cpu:>7.2f}",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(str(error))
