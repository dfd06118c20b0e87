"""Measures single kernels: flips, crop, pad, normalize and resample of a batch, on one thread.

Participants besides Highway: NumPy, OpenCV (opencv-python-headless) and Pillow or Pillow-SIMD, if installed, each in
the fastest documented way. First, the results are compared: equal for
integers, within rounding for floats, within 1 level in the mean for Pillow's resampling (OpenCV's is not antialiased
and therefore not compared).

"of copy" is the time that copying the result's bytes takes (memcpy), divided by Highway's time: 1.00 is memory speed.
The other ratios are the participant's time divided by Highway's: at 2.0 Highway is twice as fast. All are measured in
turns; the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, describe_line
from numpy.typing import NDArray

import highway
from highway._core import simd
from highway._core.pool import BufferPool
from highway.batch import Batch, empty
from highway.modules import Augmentations
from highway.sampling.rng import SampleRandom
from highway.transforms import CenterFit, FlipX, FlipY, Normalize, Pad, RandomCrop, Stretch
from highway.transforms.crop import CropWindows

try:
    import cv2

    cv2.setNumThreads(1)
except ImportError:
    cv2 = None
try:
    import PIL
    from PIL import Image, ImageOps
except ImportError:
    PIL = None

Case = dict[str, Callable[[], Any]]
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SCALE, BIAS = (1 / (255 * STD)).astype(np.float32), (-MEAN / STD).astype(np.float32)


class Job:
    """The input batch, and its conversion for each library."""

    def __init__(self, count: int, side: int, crop: int) -> None:
        rng = np.random.default_rng(0)
        self.count, self.side, self.crop = count, side, crop
        # Smooth like photographs, so that agreement of resampled pixels means something.
        coarse = rng.integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
        self.images = apply(Stretch(side, "bicubic"), coarse)
        self.images += rng.integers(0, 16, self.images.shape, dtype=np.uint8)
        self.tops, self.lefts = rng.integers(0, side - crop + 1, (2, count))
        self.flags = np.ones(count, bool)
        self.pictures = [Image.fromarray(image) for image in self.images] if PIL else []

    def cases(self) -> dict[str, Case]:
        return {
            "flip x": self.flip(FlipX(1), 2, 1, "FLIP_LEFT_RIGHT"),
            "flip x in place": self.flip_in_place(FlipX(1), 2, 1),
            "flip y": self.flip(FlipY(1), 1, 0, "FLIP_TOP_BOTTOM"),
            "flip y in place": self.flip_in_place(FlipY(1), 1, 0),
            f"crop to {self.crop}": self.windows(),
            "pad by 4": self.pad(),
            "normalize f32 NCHW": self.normalize("NCHW", "float32"),
            "normalize f32 NHWC": self.normalize("NHWC", "float32"),
            "normalize f16 NCHW": self.normalize("NCHW", "float16"),
            f"resample to {self.crop}": self.resample(),
            f"crop {self.crop}, flip, f32 NCHW": self.chain(),
        }

    def flip(self, flip: FlipX | FlipY, axis: int, code: int, method: str) -> Case:
        out, theirs = empty(self.images.shape), empty(self.images.shape)

        def opencv() -> NDArray[Any]:
            for image, target in zip(self.images, theirs, strict=True):
                cv2.flip(image, code, target)
            return theirs

        def numpy() -> NDArray[Any]:
            np.copyto(out, np.flip(self.images, axis))
            return out

        return {
            "highway": lambda: flip.apply_images(self.images, self.flags),
            "numpy": numpy,
            "opencv": opencv,
            "pillow": lambda: [
                picture.transpose(getattr(Image.Transpose, method)) for picture in self.pictures
            ],
        }

    def flip_in_place(self, flip: FlipX | FlipY, axis: int, code: int) -> Case:
        # A copy for each: an even number of flips may have come before.
        mine, numpys, opencvs = self.images.copy(), self.images.copy(), self.images.copy()

        def numpy() -> NDArray[Any]:
            numpys[:] = np.flip(numpys, axis)
            return numpys

        def opencv() -> NDArray[Any]:
            for image in opencvs:
                cv2.flip(image, code, image)
            return opencvs

        return {
            "highway": lambda: flip.apply_images(mine, self.flags, out=mine),
            "numpy": numpy,
            "opencv": opencv,
        }

    def windows(self) -> Case:
        crop = RandomCrop(self.crop)
        places = CropWindows(self.tops, self.lefts, self.crop, self.crop)
        out = empty((self.count, self.crop, self.crop, 3))
        corners = list(zip(self.tops.tolist(), self.lefts.tolist(), strict=True))

        def numpy() -> NDArray[Any]:
            for image, target, (top, left) in zip(self.images, out, corners, strict=True):
                target[:] = image[top : top + self.crop, left : left + self.crop]
            return out

        def opencv() -> NDArray[Any]:
            for image, target, (top, left) in zip(self.images, out, corners, strict=True):
                cv2.copyTo(image[top : top + self.crop, left : left + self.crop], None, target)
            return out

        def pillow() -> list[Any]:
            boxes = [(left, top, left + self.crop, top + self.crop) for top, left in corners]
            return [picture.crop(box) for picture, box in zip(self.pictures, boxes, strict=True)]

        return {
            "highway": lambda: crop.apply_images(self.images, places),
            "numpy": numpy,
            "opencv": opencv,
            "pillow": pillow,
        }

    def pad(self) -> Case:
        out = empty((self.count, self.side + 8, self.side + 8, 3))

        def opencv() -> NDArray[Any]:
            for image, target in zip(self.images, out, strict=True):
                cv2.copyMakeBorder(image, 4, 4, 4, 4, cv2.BORDER_CONSTANT, target, (114, 114, 114))
            return out

        def numpy() -> NDArray[Any]:
            out[:] = 114
            out[:, 4:-4, 4:-4] = self.images
            return out

        return {
            "highway": lambda: apply(Pad(4, fill=114), self.images),
            "numpy": numpy,
            "opencv": opencv,
            "pillow": lambda: [ImageOps.expand(picture, 4, (114, 114, 114)) for picture in self.pictures],
        }

    def normalize(self, layout: str, dtype: str) -> Case:
        normalize = Normalize(layout=layout, dtype=dtype)
        planar = layout == "NCHW"
        channels = (self.count, 3, self.side, self.side) if planar else self.images.shape
        out = empty(channels, dtype)
        work = empty(self.images.shape, "float32")
        table = np.ascontiguousarray((np.arange(256, dtype=np.float32)[:, None] * SCALE + BIAS)[None])

        def numpy() -> NDArray[Any]:
            np.multiply(self.images, SCALE, out=work)
            np.add(work, BIAS, out=work)
            np.copyto(out, work.transpose(0, 3, 1, 2) if planar else work, casting="same_kind")
            return out

        def opencv() -> NDArray[Any]:
            # The table of all 256 results: one look-up for each value, in one pass.
            for image, target in zip(self.images, out, strict=True):
                if planar:
                    cv2.split(cv2.LUT(image, table), tuple(target))
                else:
                    cv2.LUT(image, table, target)
            return out

        case: Case = {"highway": lambda: normalize.apply_images(self.images, None), "numpy": numpy}
        # OpenCV has no tables of float16.
        return case if dtype == "float16" else {**case, "opencv": opencv}

    def resample(self) -> Case:
        fit = CenterFit(self.crop)
        size = (self.crop, self.crop)
        out = empty((self.count, *size, 3))

        def opencv() -> NDArray[Any]:
            for image, target in zip(self.images, out, strict=True):
                cv2.resize(image, size, target, interpolation=cv2.INTER_LINEAR)
            return out

        return {
            "highway": lambda: apply(fit, self.images),
            "opencv": opencv,
            "pillow": lambda: [picture.resize(size, Image.Resampling.BILINEAR) for picture in self.pictures],
        }

    def chain(self) -> Case:
        stage = Augmentations([RandomCrop(self.crop), FlipX(), Normalize()])
        batch = Batch({"images": self.images}, seq=0)
        windows, flags = (
            transform.draw(SampleRandom(0, 0, batch.indices, place), batch)
            for place, transform in enumerate(stage.transforms[:2])
        )
        corners = list(zip(windows.tops.tolist(), windows.lefts.tolist(), flags.tolist(), strict=True))
        out = empty((self.count, 3, self.crop, self.crop), "float32")
        table = np.ascontiguousarray((np.arange(256, dtype=np.float32)[:, None] * SCALE + BIAS)[None])

        def numpy() -> NDArray[Any]:
            for image, target, (top, left, flag) in zip(self.images, out, corners, strict=True):
                window = image[top : top + self.crop, left : left + self.crop]
                window = window[:, ::-1] if flag else window
                np.copyto(target, (window * SCALE + BIAS).transpose(2, 0, 1))
            return out

        def opencv() -> NDArray[Any]:
            for image, target, (top, left, flag) in zip(self.images, out, corners, strict=True):
                window = image[top : top + self.crop, left : left + self.crop]
                window = cv2.flip(window, 1) if flag else window
                cv2.split(cv2.LUT(window, table), tuple(target))
            return out

        return {"highway": lambda: stage.process(batch).images, "numpy": numpy, "opencv": opencv}


def apply(transform: Any, images: NDArray[Any]) -> NDArray[Any]:
    """Run one transform on a batch, with arbitrary draws."""
    batch = Batch({"images": images}, seq=0)
    rng = SampleRandom(0, 0, batch.indices, 0)
    return transform.apply_images(images, transform.draw(rng, batch))


def check(name: str, case: Case) -> int:
    """Check that all results agree; return the bytes of the result."""
    ours = np.array(case["highway"]())
    for who, call in case.items():
        if who == "highway" or (who == "opencv" and name.startswith("resample")):
            continue
        theirs = call()
        theirs = (
            np.stack([np.asarray(one) for one in theirs]) if isinstance(theirs, list) else np.array(theirs)
        )
        if ours.shape != theirs.shape:
            raise SystemExit(f"{name}: {who} gives {theirs.shape}, highway {ours.shape}")
        differences = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        if name.startswith("resample"):
            apart, allowed = differences.mean(), 1.0
        else:
            apart = differences.max()
            allowed = 0.0 if ours.dtype == np.uint8 else 1e-5 if ours.dtype == np.float32 else 4e-3
        if apart > allowed:
            raise SystemExit(
                f"{name}: {who} and highway are {apart:g} apart; at most {allowed:g} is rounding"
            )
    return ours.nbytes


def copying(size: int) -> Callable[[], None]:
    """Copy this many bytes between arrays in memory."""
    source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)
    return lambda: np.copyto(target, source)


def seconds(call: Callable[[], Any], calls: int) -> float:
    """Return the seconds per call of `calls` calls, all writing to the same memory."""
    call()
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls


def measure(cases: dict[str, Case], rounds: int, enough: float) -> dict[str, dict[str, float]]:
    """Median seconds of every operation and participant, in turns."""
    found: dict[str, dict[str, list[float]]] = {
        name: {who: [] for who in case} for name, case in cases.items()
    }
    calls = {
        name: {who: max(1, round(enough / seconds(call, 1))) for who, call in case.items()}
        for name, case in cases.items()
    }
    for number in range(rounds):
        for name, case in cases.items():
            for who, call in case.items():
                found[name][who].append(seconds(call, calls[name][who]))
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return {
        name: {who: statistics.median(times) for who, times in case.items()} for name, case in found.items()
    }


def versions() -> dict[str, str]:
    facts = {"highway": highway.__version__, "numpy": np.__version__}
    facts["opencv"] = cv2.__version__ if cv2 else "not installed"
    facts["pillow"] = PIL.__version__ if PIL else "not installed"
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64, help="images in the batch (default: 64)")
    parser.add_argument("--size", type=int, default=256, help="height and width of the images (default: 256)")
    parser.add_argument("--crop", type=int, default=224, help="height and width of crops (default: 224)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds; the median counts (default: 9)")
    parser.add_argument(
        "--seconds", type=float, default=0.05, help="how long each is measured in each round (default: 0.05)"
    )
    parser.add_argument(
        "--simd",
        choices=list(simd.VARIANTS),
        default=simd.in_use(),
        help="variant of Highway's kernels (default: the best here)",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    if min(arguments.batch, arguments.size, arguments.crop, arguments.rounds) < 1:
        parser.error("--batch, --size, --crop and --rounds must be 1 or more")
    if arguments.crop > arguments.size:
        parser.error("--crop must not be larger than --size")

    variant = simd.use(arguments.simd)
    # As in a worker of a pipeline: results reuse memory.
    BufferPool(max_free_bytes=1 << 32).use()
    job = Job(arguments.batch, arguments.size, arguments.crop)
    missing = {who for who, library in (("opencv", cv2), ("pillow", PIL)) if library is None}
    cases = {
        name: {who: call for who, call in case.items() if who not in missing}
        for name, case in job.cases().items()
    }
    sizes = {name: check(name, case) for name, case in cases.items()}
    for name, case in cases.items():
        case["copy"] = copying(sizes[name])
    medians = measure(cases, arguments.rounds, arguments.seconds)

    facts = {**describe(), **versions(), "variant": variant}
    print(describe_line(facts))
    print(
        f"Python {facts['python']}, "
        + ", ".join(f"{name} {version}" for name, version in versions().items())
        + f"; {variant} kernels, one thread, {arguments.rounds} rounds"
    )
    print(f"batch of {arguments.batch} images, {arguments.size} x {arguments.size} x 3, uint8\n")
    others = ["numpy", "opencv", "pillow"]
    print(f"{'':<28}{'ms':>8}{'GB/s':>8}{'of copy':>9}" + "".join(f"{'x ' + who:>10}" for who in others))
    rows = {}
    for name, times in medians.items():
        ours = times["highway"]
        ratios = {who: times[who] / ours for who in others if who in times}
        rows[name] = {
            "seconds": times,
            "bytes": sizes[name],
            "of copy": times["copy"] / ours,
            "times faster": ratios,
        }
        print(
            f"{name:<28}{ours * 1e3:>8.3f}{sizes[name] / ours / 1e9:>8.1f}{times['copy'] / ours:>9.2f}"
            + "".join(f"{ratios[who]:>10.1f}" if who in ratios else f"{'-':>10}" for who in others)
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": facts, "operations": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
