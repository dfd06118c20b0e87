"""Measures what `highway.torch.Loader` adds to a pipeline, and checks and measures its copies to a CUDA device.

On the CPU: microseconds that a loop waits for a batch that is ready in the queue, as arrays (the baseline), as arrays
that the loop itself gives to `torch.from_numpy`, and as tensors, in turns, and whether the tensors have the addresses
of the arrays. The loop pauses between two batches, so that the next one is ready.

Where torch finds a CUDA device: every batch on the device is compared with the one on the CPU, while the device
computes and memory is used again; and images per second in a loop whose step keeps the device busy for `--step-ms`,
with a loader, and with arrays that are copied with and without page-locked memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, describe_line

import highway
from highway.batch import Batch, empty
from highway.engine import Pipeline, Source
from highway.modules import ArrayReader, Augmentations
from highway.torch import Loader
from highway.transforms import FlipX, Normalize

SHAPE = (16, 8, 8, 3)


class Small(Source):
    """Small batches, whose addresses it notes."""

    def __init__(self, count: int) -> None:
        super().__init__(workers=1, queue_size=8)
        self.count = count
        self.addresses: list[int] = []

    def __len__(self) -> int:
        return self.count

    def tasks(self) -> Iterator[int]:
        return iter(range(10 * self.count))

    def load(self, task: int) -> Batch:
        images = empty(SHAPE)
        self.addresses.append(images.ctypes.data)
        return Batch({"images": images, "labels": np.zeros(SHAPE[0], np.int64)})


def wait(batches: Iterator[Any], count: int, pause: float) -> float:
    """Median microseconds of taking a batch that is ready."""
    times = []
    for _ in range(count):
        time.sleep(pause)
        began = time.perf_counter_ns()
        batch = next(batches)
        times.append(time.perf_counter_ns() - began)
        del batch
    return statistics.median(times) / 1e3


def as_arrays(count: int, pause: float) -> float:
    with Pipeline([Small(count)]) as pipeline:
        return wait(iter(pipeline), count, pause)


def by_hand(count: int, pause: float) -> float:
    from torch import from_numpy

    with Pipeline([Small(count)]) as pipeline:
        return wait((tuple([from_numpy(array) for array in batch]) for batch in pipeline), count, pause)


def as_tensors(count: int, pause: float) -> float:
    with Loader([Small(count)]) as loader:
        return wait(iter(loader), count, pause)


def as_dicts(count: int, pause: float) -> float:
    with Loader([Small(count)], as_dict=True, channels_last=True) as loader:
        return wait(iter(loader), count, pause)


def are_shared(count: int) -> bool:
    """Whether every tensor has the address of its array."""
    source = Small(count)
    with Loader([source]) as loader:
        found = [images.data_ptr() for images, _ in loader]
    return found == source.addresses[:count]


def photographs(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


CHAINS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "bytes": ([FlipX()], {}),
    "float32": ([FlipX(), Normalize()], {}),
    "bfloat16, channels last": ([FlipX(), Normalize(dtype="bfloat16")], {"channels_last": True}),
    "normalized on the device": ([FlipX(), Normalize()], {"normalize": "device"}),
}


def wrong_batches(device: str, images: np.ndarray, batch_size: int, epochs: int) -> dict[str, int]:
    """Number of batches on the device that differ from those on the CPU, of each chain."""
    import torch

    wrong = {}
    for name, (transforms, options) in CHAINS.items():
        modules = [
            ArrayReader(images, np.arange(len(images)), batch_size, epochs=epochs),
            Augmentations(transforms),
        ]
        wrong[name] = 0
        with (
            Loader(modules, device=device, prefetch=3, **options) as loader,
            Loader(modules, **options) as plain,
        ):
            for _ in range(epochs):
                for found, expected in zip(loader, plain, strict=True):
                    # Work that is still in progress when the next batch is copied.
                    work = torch.ones(256, 256, device=found[0].device)
                    for _ in range(20):
                        work = work @ work / 256
                    pairs = zip(found, expected, strict=True)
                    tolerance = 1e-5 if options.get("normalize") else 0
                    close = [torch.allclose(one.cpu(), other, 0, tolerance) for one, other in pairs]
                    wrong[name] += not all(close)
    return wrong


def rate(device: str, images: np.ndarray, batch_size: int, step: Callable[[], None], way: str) -> float:
    """Images per second of one epoch, after one to warm up."""
    import torch

    modules = [ArrayReader(images, np.arange(len(images)), batch_size), Augmentations([FlipX(), Normalize()])]

    def batches(source: Any) -> Iterator[Any]:
        for batch in source:
            tensors = [torch.from_numpy(array) for array in batch]
            if way == "page-locked":
                yield [tensor.pin_memory().to(device, non_blocking=True) for tensor in tensors]
            else:
                yield [tensor.to(device) for tensor in tensors]

    options = {"normalize": "device"} if way == "loader, normalized there" else {}
    loads = way.startswith("loader")
    with Loader(modules, device=device, **options) if loads else Pipeline(modules) as source:
        for timed in (False, True):
            began = time.perf_counter()
            count = 0
            for tensors in source if loads else batches(source):
                step()
                count += len(tensors[1])
            torch.cuda.synchronize()
            if timed:
                return count / (time.perf_counter() - began)
    raise AssertionError


def busy_step(device: str, milliseconds: float) -> Callable[[], None]:
    """A function that keeps the device busy for so long, and returns at once."""
    import torch

    matrix = torch.ones(2048, 2048, device=device)

    def work(count: int) -> None:
        for _ in range(count):
            torch.mm(matrix, matrix)

    work(10)
    torch.cuda.synchronize()
    began = time.perf_counter()
    work(100)
    torch.cuda.synchronize()
    each = (time.perf_counter() - began) / 100
    count = max(1, round(milliseconds / 1e3 / each))
    return lambda: work(count)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=500, help="batches per measurement (default: 500)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts (default: 5)")
    parser.add_argument("--pause-ms", type=float, default=1, help="pause between two batches (default: 1)")
    parser.add_argument("--step-ms", type=float, default=20, help="step of the device (default: 20)")
    parser.add_argument(
        "--images", type=int, default=2048, help="images of a CUDA measurement (default: 2048)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    if arguments.count < 1 or arguments.rounds < 1 or arguments.images < 64:
        parser.error("--count and --rounds must be 1 or more, --images 64 or more")
    try:
        import torch
    except ImportError:
        parser.error("torch is not installed")

    ways = {
        "arrays": as_arrays,
        "arrays, torch.from_numpy in the loop": by_hand,
        "tensors": as_tensors,
        "a dict, channels last": as_dicts,
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.rounds):
        for name, measure in ways.items():
            found[name].append(measure(arguments.count, arguments.pause_ms / 1e3))
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
    medians = {name: statistics.median(times) for name, times in found.items()}
    facts = {**describe(), "highway": highway.__version__, "torch": torch.__version__}
    figures: dict[str, Any] = {"machine": facts, "microseconds": medians}
    figures["shared"] = are_shared(arguments.count)
    print(describe_line(facts))
    print(f"Python {facts['python']}, torch {facts['torch']}, highway {facts['highway']}")
    print(f"\n{'microseconds a ready batch':<40}{'':>10}{'ratio':>8}")
    for name, median in medians.items():
        print(f"{name:<40}{median:>10.2f}{median / medians['arrays']:>8.2f}")
    print(f"tensors have the addresses of the arrays: {'yes' if figures['shared'] else 'NO'}")
    if torch.cuda.is_available():
        figures["wrong"] = wrong_batches("cuda", photographs(arguments.images, 224), 64, 3)
        print(f"\n{'batches on the device that differ from the CPU':<48}")
        for name, count in figures["wrong"].items():
            print(f"{name:<48}{count:>6}")
        step = busy_step("cuda", arguments.step_ms)
        rows = ("arrays, copied", "page-locked", "loader", "loader, normalized there")
        images = photographs(arguments.images, 224)
        rates = {way: rate("cuda", images, 64, step, way) for way in rows}
        figures["images_per_second"] = rates
        print(f"\n{f'images per second, steps of {arguments.step_ms:g} ms':<32}{'':>10}{'ratio':>8}")
        for way, value in rates.items():
            print(f"{way:<32}{value:>10.0f}{value / rates[rows[0]]:>8.2f}")
    else:
        print("torch finds no CUDA device: copies were not measured")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if figures["shared"] and not any(figures.get("wrong", {}).values()) else 1


if __name__ == "__main__":
    sys.exit(main())
