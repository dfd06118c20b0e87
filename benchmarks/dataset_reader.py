"""Measures data sets in Python: a Dataset of photographs with transforms of torchvision in two worker processes, and
NumPy items in threads, against a DataLoader of torch with two workers.

    python benchmarks/dataset_reader.py DIR --python PEERS/torch/bin/python

DIR is a folder of class folders of JPEGs, which is repeated to `--samples` samples. Each participant runs alone, in a
process of its own; the rounds are interleaved and the median counts.

photographs  PIL opens a file; RandomResizedCrop(224), RandomHorizontalFlip, ToTensor and Normalize of torchvision
arrays       rows of a uint8 array (64, 64, 3), cropped, mirrored and scaled to float32 in NumPy

"first" is the time from the first call until the first batch, with torch imported and the data set made. "rate" is
samples per second from the first batch to the last one of an epoch. "memory" is the largest sum of the proportional set
sizes (pages that processes share count once) of the process and its children, and of shared memory that waits in a
queue without being mapped, less that of the process before.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import machine
import numpy as np

BATCH = 32
WORKERS = 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def jpegs(folder: str) -> list[Path]:
    """Return the JPEGs of a folder of class folders."""
    found = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not found:
        raise SystemExit(f"dataset_reader.py: {folder} has no JPEGs; expected class folders of pictures")
    return found


class Photographs:
    """A Dataset of torch: pictures of a folder, with transforms of torchvision."""

    def __init__(self, folder: str, samples: int) -> None:
        from torchvision import transforms

        paths = jpegs(folder)
        classes = sorted({path.parent.name for path in paths})
        chosen = [paths[number % len(paths)] for number in range(samples)]
        self.samples = [(str(path), classes.index(path.parent.name)) for path in chosen]
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(224),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        path, label = self.samples[index]
        with Image.open(path) as picture:
            return self.transform(picture.convert("RGB")), label


class Arrays:
    """Rows of an array, cropped, mirrored and scaled in NumPy."""

    def __init__(self, folder: str, samples: int) -> None:
        self.rows = np.random.default_rng(0).integers(0, 256, (samples, 64, 64, 3), np.uint8)
        self.mean = np.array(MEAN, np.float32) * 255
        self.scale = 1 / (np.array(STD, np.float32) * 255)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        row = self.rows[index]
        top, left, mirrored = index % 8, index % 7, index % 2
        window = row[top : top + 56, left : left + 56, :: -1 if mirrored else 1]
        return (window.astype(np.float32) - self.mean) * self.scale, index % 10


def with_highway(dataset: Any, how: str) -> Iterator[Any]:
    from highway.engine import Pipeline
    from highway.modules import DatasetReader

    options: Any = {} if how == "threads" else {"processes": WORKERS, "start_method": how}
    with Pipeline([DatasetReader(dataset, BATCH, epochs=1, drop_last=True, **options)]) as pipeline:
        yield from pipeline


def with_torch(dataset: Any, how: str) -> Iterator[Any]:
    from torch.utils.data import DataLoader

    loader = DataLoader(
        dataset, BATCH, shuffle=True, num_workers=WORKERS, drop_last=True, multiprocessing_context=how
    )
    yield from loader


PARTICIPANTS = {
    "photographs": [("highway", "fork"), ("torch", "fork"), ("highway", "spawn"), ("torch", "spawn")],
    "arrays": [("highway", "threads"), ("torch", "fork")],
}
WORK = {"photographs": Photographs, "arrays": Arrays}


class Memory(threading.Thread):
    """Notes the largest memory of this process and its children, in bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        import psutil

        self._self = psutil.Process()
        self._over = threading.Event()
        self._lost = psutil.Error
        self.before = self.now()
        self.most = self.before

    def now(self) -> int:
        total, mapped = 0, set()
        waiting: dict[int, int] = {}
        for process in (self._self, *self._self.children(recursive=True)):
            folder = f"/proc/{process.pid}"
            try:
                total += process.memory_full_info().pss
                with open(f"{folder}/maps", encoding="utf-8", errors="replace") as maps:
                    mapped |= {int(line.split()[4]) for line in maps}
                for name in os.listdir(f"{folder}/fd"):
                    if os.readlink(f"{folder}/fd/{name}").startswith(("/dev/shm/", "/memfd:")):
                        facts = os.stat(f"{folder}/fd/{name}")
                        waiting[facts.st_ino] = facts.st_blocks * 512
            except (self._lost, OSError):
                # It ended in the meantime.
                continue
        return total + sum(size for number, size in waiting.items() if number not in mapped)

    def run(self) -> None:
        while not self._over.wait(0.25):
            self.most = max(self.most, self.now())

    def stop(self) -> int:
        self._over.set()
        self.join()
        return self.most - self.before


def measured(work: str, loader: str, how: str, folder: str, samples: int) -> dict[str, float]:
    """Run a participant in this process."""
    dataset = WORK[work](folder, samples)
    # Not a part of the measurement.
    importlib.import_module("highway.modules" if loader == "highway" else "torch.utils.data")
    make = with_highway if loader == "highway" else with_torch
    memory = Memory()
    memory.start()
    began = time.perf_counter()
    batches = make(dataset, how)
    next(batches)
    first = time.perf_counter()
    count = 0
    for values, labels in batches:
        assert len(values) == len(labels) == BATCH
        # As a training does, which reads them.
        float(values[0, 0, 0, 0])
        count += len(labels)
    ended = time.perf_counter()
    return {"first": first - began, "rate": count / (ended - first), "memory": memory.stop() / 2**20}


def asked(python: str, arguments: list[str]) -> dict[str, float]:
    """Run a participant in a process of its own."""
    here = Path(__file__).resolve()
    paths = os.pathsep.join([str(here.parent.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [python, str(here), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=900,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="DIR")
    parser.add_argument(
        "--python", default=sys.executable, help="an interpreter with torch, torchvision, psutil"
    )
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=[*WORK], help="one of the two kinds of work")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(measured(*options.run, options.folder, options.samples)))
        return
    jpegs(options.folder)
    print(machine.describe_line(machine.describe()))
    for work in [options.only] if options.only else WORK:
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for name, how in PARTICIPANTS[work]:
                arguments = [options.folder, "--samples", str(options.samples), "--run", work, name, how]
                found.setdefault((name, how), []).append(asked(options.python, arguments))
        print(f"\n{work}: {options.samples} samples, batches of {BATCH}, median of {options.rounds}")
        print(f"{'':20} {'first s':>8} {'rate /s':>9} {'memory MiB':>11}")
        for (name, how), results in found.items():
            first, rate, memory = (
                statistics.median(result[key] for result in results) for key in ("first", "rate", "memory")
            )
            print(f"{name + ' ' + how:20} {first:8.2f} {rate:9.0f} {memory:11.0f}")


if __name__ == "__main__":
    main()
