"""Measures how fast decoded pictures become training input: random crop, flip and normalize of uint8 batches, on one
core.

    python benchmarks/arrays.py --python PEERS/torch/bin/python

Every participant gets the same pictures, in its own layout, and the same windows and flips, in a separate process on
the same core, and writes float32 NCHW. First, each result must agree with NumPy's within 1e-5. Then all are measured in
turns; the median of the rounds counts.

highway      Augmentations([RandomCrop, FlipX, Normalize]); which also draws its windows and flips
numpy        sample by sample, in reused buffers that stay in the cache
numpy batch  windows and flips sample by sample into one array, then the whole batch
torchvision  v2.functional on uint8 tensors: crop and horizontal_flip sample by sample, then to_dtype and normalize of
             the whole batch, one thread
memcpy       a copy of the bytes of the result

"x slower" is a participant's time divided by Highway's; for memcpy, that is the share of its speed that Highway
reaches.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np
from served import Participant, answer, has_packages

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Make = Callable[[], Any]


class Work:
    """The task: pictures, a window of each, and flags of mirrored ones."""

    def __init__(self, folder: Path) -> None:
        found = np.load(folder / "work.npz")
        self.images, self.corners = found["images"], found["corners"].tolist()
        self.flags, self.crop = found["flags"].tolist(), int(found["crop"])
        self.scale = (1 / (255 * np.array(STD))).astype(np.float32)
        self.bias = (-np.array(MEAN) / np.array(STD)).astype(np.float32)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the result."""
        return len(self.images), 3, self.crop, self.crop

    def windows(self) -> Any:
        """Return each window as a view, mirrored if flagged."""
        for image, (top, left), flag in zip(self.images, self.corners, self.flags, strict=True):
            window = image[top : top + self.crop, left : left + self.crop]
            yield window[:, ::-1] if flag else window


def draws(images: Any, crop: int) -> tuple[Any, Any]:
    """Return the corners and flips that Highway draws, for the other participants."""
    from highway.batch import Batch
    from highway.sampling.rng import SampleRandom
    from highway.transforms import FlipX, RandomCrop

    batch = Batch({"images": images}, seq=0)
    windows, flags = (
        step.draw(SampleRandom(0, 0, batch.indices, place), batch)
        for place, step in enumerate((RandomCrop(crop), FlipX()))
    )
    return np.stack([windows.tops, windows.lefts], axis=1), flags


def highway(work: Work) -> Make:
    from highway._core.pool import BufferPool
    from highway.batch import Batch
    from highway.modules import Augmentations
    from highway.transforms import FlipX, Normalize, RandomCrop

    # As in a worker of a pipeline: results reuse memory.
    BufferPool(max_free_bytes=1 << 32).use()
    stage = Augmentations([RandomCrop(work.crop), FlipX(), Normalize(MEAN, STD)])
    batch = Batch({"images": work.images}, seq=0)
    return lambda: stage.process(batch).images


def numpy(work: Work) -> Make:
    out = np.empty(work.shape, np.float32)
    values = np.empty((work.crop, work.crop, 3), np.float32)

    def make() -> Any:
        for window, target in zip(work.windows(), out, strict=True):
            np.multiply(window, work.scale, out=values)
            np.add(values, work.bias, out=values)
            np.copyto(target, values.transpose(2, 0, 1))
        return out

    return make


def numpy_batch(work: Work) -> Make:
    count, channels, height, width = work.shape
    windows = np.empty((count, height, width, channels), np.uint8)
    values, out = np.empty(windows.shape, np.float32), np.empty(work.shape, np.float32)

    def make() -> Any:
        for window, target in zip(work.windows(), windows, strict=True):
            target[:] = window
        np.multiply(windows, work.scale, out=values)
        np.add(values, work.bias, out=values)
        np.copyto(out, values.transpose(0, 3, 1, 2))
        return out

    return make


def torchvision(work: Work) -> Make:
    import torch
    from torchvision.transforms.v2 import functional

    torch.set_num_threads(1)
    tensors = torch.from_numpy(np.ascontiguousarray(work.images.transpose(0, 3, 1, 2)))

    def window(tensor: Any, top: int, left: int, flag: bool) -> Any:
        cut = functional.crop(tensor, top, left, work.crop, work.crop)
        return functional.horizontal_flip(cut) if flag else cut

    def make() -> Any:
        cut = [
            window(tensor, top, left, flag)
            for tensor, (top, left), flag in zip(tensors, work.corners, work.flags, strict=True)
        ]
        batch = functional.to_dtype(torch.stack(cut), torch.float32, scale=True)
        return functional.normalize(batch, MEAN, STD, inplace=True)

    return make


def memcpy(work: Work) -> Make:
    source, target = np.ones(work.shape, np.float32), np.ones(work.shape, np.float32)

    def make() -> Any:
        np.copyto(target, source)
        return target

    return make


PARTICIPANTS: dict[str, Callable[[Work], Make]] = {
    "highway": highway,
    "numpy": numpy,
    "numpy batch": numpy_batch,
    "torchvision": torchvision,
    "memcpy": memcpy,
}


def serve(name: str, folder: Path) -> None:
    """Run the process of a participant: write its result to a file, then answer each line with seconds."""
    make = PARTICIPANTS[name](Work(folder))
    np.save(folder / f"{name}.npy", np.asarray(make()))
    print(json.dumps(version(name)), flush=True)
    answer(make)


def version(name: str) -> str:
    if name == "torchvision":
        import torch
        import torchvision

        return f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    if name == "highway":
        import highway
        from highway._core import simd

        return f"highway {highway.__version__} ({simd.in_use()} kernels)"
    return f"numpy {np.__version__}"


def check(name: str, found: Any, expected: Any) -> None:
    """End the benchmark unless a participant's result equals NumPy's."""
    apart = np.abs(found - expected).max() if found.shape == expected.shape else np.inf
    if found.dtype != np.float32 or not apart <= 1e-5:
        raise SystemExit(
            f"{name} gives {found.dtype} {found.shape}, {apart:g} apart from NumPy's {expected.shape}; "
            "expected float32 of the same shape within 1e-5"
        )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64, help="images in the batch (default: 64)")
    parser.add_argument("--size", type=int, default=256, help="height and width of the images (default: 256)")
    parser.add_argument("--crop", type=int, default=224, help="height and width of crops (default: 224)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds; the median counts (default: 9)")
    parser.add_argument(
        "--seconds", type=float, default=0.2, help="how long each is measured in each round (default: 0.2)"
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter with torch and torchvision (default: this one, without them if it has none)",
    )
    parser.add_argument(
        "--core",
        type=int,
        default=min(os.sched_getaffinity(0)),
        help="the core that all run on (default: the first that may be used)",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--serve", choices=list(PARTICIPANTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.batch, options.size, options.crop, options.rounds) < 1:
        parser.error("--batch, --size, --crop and --rounds must be 1 or more")
    if options.crop > options.size:
        parser.error("--crop must not be larger than --size")
    if options.core not in os.sched_getaffinity(0):
        parser.error(f"--core must be one of {sorted(os.sched_getaffinity(0))}")
    return options


def main() -> None:
    options = parsed()
    if options.serve:
        serve(options.serve, options.folder)
        return
    facts = machine.describe()
    os.sched_setaffinity(0, {options.core})
    pythons = dict.fromkeys(PARTICIPANTS, sys.executable)
    if has_packages(options.python, "torch", "torchvision"):
        pythons["torchvision"] = options.python
    elif options.python != sys.executable:
        raise SystemExit(f"--python: {options.python} has no torch and torchvision; install both there")
    else:
        del pythons["torchvision"]

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (options.batch, options.size, options.size, 3), dtype=np.uint8)
    corners, flags = draws(images, options.crop)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "work.npz", images=images, corners=corners, flags=flags, crop=options.crop)
        running = [
            Participant(name, python, __file__, ["--folder", str(folder)]) for name, python in pythons.items()
        ]
        versions = {one.name: json.loads(one.greeting) for one in running}
        expected = np.load(folder / "numpy.npy")
        for one in running:
            if one.name != "memcpy":
                check(one.name, np.load(folder / f"{one.name}.npy"), expected)
    rounds: dict[str, list[float]] = {one.name: [] for one in running}
    for number in range(options.rounds):
        for one in running:
            rounds[one.name].append(one.seconds(options.seconds))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    for one in running:
        one.close()

    medians = {name: statistics.median(times) for name, times in rounds.items()}
    ratios = {name: seconds / medians["highway"] for name, seconds in medians.items()}
    print(machine.describe_line(facts))
    print(f"Python {facts['python']}, " + ", ".join(dict.fromkeys(versions.values())))
    print(
        f"{options.batch} images, {options.size} x {options.size} x 3 uint8 to 3 x {options.crop} x {options.crop} "
        f"float32, core {options.core}, {options.rounds} rounds\n"
    )
    print(f"{'':<14}{'ms':>9}{'images/s':>11}{'GB/s out':>10}{'x slower':>10}")
    for name, seconds in medians.items():
        print(
            f"{name:<14}{seconds * 1e3:>9.2f}{options.batch / seconds:>11.0f}"
            f"{expected.nbytes / seconds / 1e9:>10.2f}{ratios[name]:>10.2f}"
        )
    if "torchvision" not in medians:
        print("\ntorchvision: not installed here; --python names an interpreter that has it")
    if options.json is not None:
        record = {"machine": facts, "versions": versions}
        options.json.write_text(json.dumps(record | {"seconds": rounds, "x slower": ratios}, indent=2) + "\n")


if __name__ == "__main__":
    main()
