r"""Measures each transform on batches of decoded pictures, on one core, against OpenCV, torchvision and others.

    python benchmarks/transforms.py --python PEERS/albumentations/bin/python --python PEERS/torch/bin/python \
        --markdown benchmarks/results/transforms.md

Every participant gets the same uint8 pictures, in its own layout, in a separate process on the same core, with one
thread, and returns a contiguous batch; memory is reused. The pictures are never written to. Random numbers are drawn
for each picture, within the measured time. First, results are compared with Highway's: they differ by a few levels on
average at most (0 for moves of whole pixels). A participant that defines a transform differently must change the
pictures at least half as much. Then all are measured in turns, and the median of the rounds counts. Chains of colors
and their parts take turns batch by batch.

highway         Augmentations([transform]).process(batch)
opencv          cv2's functions image by image, or NumPy if that suffices; numbers drawn by NumPy
albumentations  its class, image by image
torchvision     v2.functional on uint8 tensors (C, H, W) image by image, and on the whole batch, where all images get
                the same random numbers (policies, where they would get the same operation, only image by image)
dali            NVIDIA DALI's operators on the CPU, through external_source
memcpy          a copy of the bytes of the result, for moves of whole pixels

The fastest implementation of a participant counts. "times as fast" is the time of the fastest peer divided by
Highway's.
--memory and --detection run other measurements instead.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import numpy as np
from on_arrays import jobs

PEERS = {
    "opencv": "cv2",
    "albumentations": "albumentations",
    "torchvision": "torchvision",
    "dali": "nvidia.dali",
}
"""Participants beside Highway, and what has to be installed for each."""

KEPT_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""Settings of the C library with which memory of large arrays is used again, instead of being asked for each time."""

CHAINED = 30
"""Turns of a round in which chains and their parts are measured, one batch each: ratios of times so close are steady
where the speed of the machine is not."""

Times = dict[tuple[str, str, str], list[float]]
"""Seconds of each round, or turn, by job, participant and way."""


class Server:
    """Runs in the process of a participant and answers lines of its input."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._images = np.load(folder / "images.npy")
        size = self._images.shape[1]
        self._sizes, self._jobs = jobs.Sizes(size), jobs.jobs(size)
        self._module = importlib.import_module(f"on_arrays.with_{name}")
        self._ways = self._module.ways(size)
        self._rng = np.random.default_rng(1)
        self._compared = {
            job: one.draw(np.random.default_rng(2), len(self._images), self._sizes)
            for job, one in self._jobs.items()
        }

    def run(self) -> None:
        """Print the version and the implementations, then answer each line."""
        ways = {
            job: {way: type(make).__name__ for way, make in found.items()}
            for job, found in self._ways.items()
        }
        self._answer({"version": self._module.version(), "ways": ways})
        for line in sys.stdin:
            task = json.loads(line)
            self._answer(self._seconds(**task) if "enough" in task else self._result(**task))

    def _answer(self, value: object) -> None:
        print(json.dumps(value), flush=True)

    def _result(self, job: str, way: str) -> str:
        """Write the reference results; return the name of the file."""
        drawn, make = self._compared[job], self._ways[job][way]
        if self._name == "highway":
            found = self._module.result(job, self._images, drawn, self._sizes)
        else:
            found = np.asarray(getattr(make, "make", make)(self._images, drawn))
        if self._name == "torchvision" and found.dtype == np.uint8:
            found = found.transpose(0, 2, 3, 1)
        name = f"{self._name} {job} {way}.npy"
        np.save(self._folder / name, found)
        return name

    def _seconds(self, job: str, way: str, enough: float) -> float:
        """Return the seconds per batch, measured over this many seconds."""
        given = self._ways[job][way]
        images, count = self._images, len(self._images)
        make, draws = getattr(given, "make", given), self._name != "highway" and not hasattr(given, "make")
        drawn = self._compared.get(job, [()] * count)
        make(images, drawn)
        calls, began = 0, time.perf_counter()
        while calls == 0 or time.perf_counter() - began < enough:
            if draws:
                drawn = self._jobs[job].draw(self._rng, count, self._sizes)
            make(images, drawn)
            calls += 1
        return (time.perf_counter() - began) / calls


class Participant:
    """A process of participants, and its implementations by job: "function", or "Own" or "First" of `on_arrays`."""

    def __init__(self, name: str, python: str, folder: Path) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [python, os.path.abspath(__file__), "--serve", name, "--folder", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **KEPT_MEMORY},
        )
        told = self._line()
        self.version: str = told["version"]
        self.ways: dict[str, dict[str, str]] = told["ways"]

    def ask(self, **task: object) -> Any:
        """Return the answer to one line."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return self._line()

    def close(self) -> None:
        self._process.communicate()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"transforms.py: {self.name} ended; see its error above")
        return json.loads(line)


def found_in(pythons: list[str]) -> dict[str, str]:
    """Return the interpreters by the first participant of each."""
    code = (
        "import importlib.util as u, json, sys\n"
        "def has(name):\n"
        "    try: return u.find_spec(name) is not None\n"
        "    except ImportError: return False\n"
        "print(json.dumps([name for name in sys.argv[1:] if has(name)]))"
    )
    found: dict[str, str] = {}
    for python in pythons:
        try:
            done = subprocess.run(
                [python, "-c", code, *PEERS.values()],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise SystemExit(f"--python: {python} cannot be run ({error}); expected an interpreter") from None
        packages = json.loads(done.stdout)
        for name, package in PEERS.items():
            if package in packages:
                found.setdefault(name, python)
        if not packages and python != sys.executable:
            raise SystemExit(f"--python: {python} has none of {', '.join(PEERS.values())}")
    return {name: found[name] for name in PEERS if name in found}


def difference(job: jobs.Job, kind: str, found: Any, expected: Any, images: Any) -> str | None:
    """Return the error of a result, or None.

    Parameters
    ----------
    job : Job
    kind : str
        "Own" if only the size of the change is checked; "First" if only the first image counts.
    found, expected, images : ndarray
        The result, Highway's result, and the input of both.
    """
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return f"{found.dtype} {found.shape}; expected {expected.dtype} {expected.shape}"
    if kind == "Own":
        if found.shape != images.shape:
            return None
        change, usual = _apart(found, images), _apart(expected, images)
        if not change >= usual / 2:
            return f"changed by {change:.3g} levels on average; Highway by {usual:.3g}"
        return None
    if kind == "First":
        found, expected = found[:1], expected[:1]
    apart = _apart(found, expected)
    if not apart <= job.apart:
        return f"{apart:.3g} levels apart from Highway's on average; expected {job.apart:g} at most"
    return None


def _apart(left: Any, right: Any) -> float:
    return float(np.abs(left.astype(np.float32) - right).mean(dtype=np.float64))


def compare(running: list[Participant], size: int, chosen: list[str], folder: Path) -> None:
    """End the benchmark if a result differs from Highway's."""
    images, wrong = np.load(folder / "images.npy"), []
    by_name = {one.name: one for one in running}
    for name in chosen:
        expected = np.load(folder / by_name["highway"].ask(job=name, way="highway"))
        if expected.shape == images.shape and _apart(expected, images) == 0:
            wrong.append(f"{name}: highway changes nothing")
        for one in running:
            for way, kind in one.ways.get(name, {}).items():
                if way in ("highway", "memcpy"):
                    continue
                path = folder / one.ask(job=name, way=way)
                fault = difference(jobs.jobs(size)[name], kind, np.load(path), expected, images)
                path.unlink()
                if fault is not None:
                    wrong.append(f"{name}: {one.name} ({way}) is {fault}")
    if wrong:
        raise SystemExit("Results are not alike:\n" + "\n".join(wrong))


def measure(running: list[Participant], names: list[str], seconds: float, times: Times) -> None:
    """Measure all implementations of all participants in turns."""
    for name in names:
        for one in running:
            for way in one.ways.get(name, {}):
                found = one.ask(job=name, way=way, enough=seconds)
                times.setdefault((name, one.name, way), []).append(found)


class Line:
    """The times of a job, in milliseconds per batch.

    Attributes
    ----------
    highway : float
    peers : dict of str to (float, str)
        The fastest implementation of each participant, and its name.
    memcpy : float or None
    """

    def __init__(self, name: str, times: Times) -> None:
        self.name = name
        medians = {key[1:]: statistics.median(found) * 1e3 for key, found in times.items() if key[0] == name}
        self.highway = medians.pop(("highway", "highway"))
        self.memcpy = medians.pop(("highway", "memcpy"), None)
        self.peers: dict[str, tuple[float, str]] = {}
        for (peer, way), median in sorted(medians.items(), key=lambda one: one[1]):
            self.peers.setdefault(peer, (median, way))

    @property
    def fastest(self) -> str | None:
        """Return the fastest peer."""
        return next(iter(self.peers), None)

    @property
    def ratio(self) -> float:
        """Return the time of the fastest peer divided by Highway's; NaN without any."""
        return min((median for median, _ in self.peers.values()), default=math.nan) / self.highway


def table(lines: list[Line], shown: dict[str, jobs.Job], peers: list[str]) -> list[str]:
    """Markdown."""
    heads = ["transform", "Highway", *peers, "times as fast", "fastest peer", "of memcpy"]
    rows = ["| " + " | ".join(heads) + " |", "| --- |" + " --: |" * (len(peers) + 2) + " --- | --: |"]
    for line in lines:
        cells = [f"{line.name.split()[0]}({shown[line.name].shown})", f"{line.highway:.2f}"]
        cells += [f"{line.peers[peer][0]:.2f}" if peer in line.peers else "" for peer in peers]
        ratio = "" if math.isnan(line.ratio) else f"{line.ratio:.2f}"
        cells.append(f"**{ratio}**" if line.ratio < 1 else ratio)
        way = "" if line.fastest is None else line.peers[line.fastest][1]
        cells.append(line.fastest if line.fastest in (None, way) else f"{line.fastest}, {way}")
        cells.append("" if line.memcpy is None else f"{line.memcpy / line.highway:.2f}")
        rows.append("| " + " | ".join(cell or "" for cell in cells) + " |")
    return rows


def summary(lines: list[Line]) -> list[str]:
    """Return the geometric mean, and the transforms that are slower than a peer."""
    ratios = {line.name: line.ratio for line in lines if not math.isnan(line.ratio)}
    if not ratios:
        return ["No peer was measured; --python names interpreters that have some."]
    mean = math.exp(statistics.fmean(math.log(ratio) for ratio in ratios.values()))
    told = [
        f"Highway is {mean:.2f} times as fast as the fastest peer of each transform, in the geometric mean of "
        f"{len(ratios)}."
    ]
    for limit, what in ((1.0, "Slower than the fastest peer"), (0.5, "Less than half as fast")):
        slower = [
            f"{name} ({ratio:.2f})"
            for name, ratio in sorted(ratios.items(), key=lambda one: one[1])
            if ratio < limit
        ]
        told.append(f"{what}: {', '.join(slower) or 'none'}.")
    return told


def chain_lines(times: Times) -> list[str]:
    """Measure chains of colors against their parts."""
    told = []
    chains: dict[str, list[float]] = {}
    for (name, _, _), found in times.items():
        chain, colon, _ = name.partition(": ")
        if colon:
            chains.setdefault(chain, []).append(statistics.median(found) * 1e3)
    for chain, parts in chains.items():
        whole = statistics.median(times[chain, "highway", "highway"]) * 1e3
        told.append(
            f"Colors in a row, {chain}: {whole:.2f} ms; the dearest alone {max(parts):.2f} "
            f"({whole / max(parts):.2f} times), one on average {statistics.fmean(parts):.2f} "
            f"({whole / statistics.fmean(parts):.2f} times), all one by one {sum(parts):.2f}."
        )
    return told


def memory(batches: int) -> list[str]:
    """Measure resident memory over this many batches of a chain of all transforms."""
    from on_arrays import with_highway

    from highway.modules import Augmentations

    images = jobs.pictures(8, 64)
    stage = Augmentations(with_highway.everything(jobs.Sizes(64)))
    sizes = []
    for number in range(batches):
        # Another epoch has other draws.
        stage.process(with_highway.batch_of(images, epoch=number))
        if number % max(batches // 20, 1) == 0:
            sizes.append(resident())
    sizes.append(resident())
    half = sizes[len(sizes) // 2 :]
    return [
        f"Resident memory over {batches} batches of {len(stage.transforms)} transforms in a row: {sizes[0]:.1f} MB "
        f"after the first, {half[0]:.1f} at the half, {sizes[-1]:.1f} at the end, {max(sizes):.1f} at most."
    ]


def resident() -> float:
    """Return the resident megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


def detection(folder: Path, batch: int, rounds: int) -> list[str]:
    """Measure the processor time of pictures with boxes against the same pictures without."""
    from highway.engine import Pipeline
    from highway.modules import Augmentations, ListReader, VOCReader
    from highway.transforms import ColorJitter, FlipX, Letterbox, Normalize, RandomResizedCrop

    def steps() -> Any:
        row = [RandomResizedCrop(224), FlipX(), ColorJitter(0.4, 0.4, 0.4, 0.1), Normalize()]
        return Augmentations(row, workers=1)

    shape, arguments = (320, 320), {"fit": Letterbox(), "epochs": None, "workers": 1}
    paths = sorted(
        str(folder / "JPEGImages" / f"{path.stem}.jpg") for path in (folder / "Annotations").glob("*.xml")
    )

    def plain() -> Any:
        return ListReader(paths, np.zeros(len(paths), np.int64), batch, shape, **arguments)

    def boxed() -> Any:
        return VOCReader(folder, batch, shape, split=None, **arguments)

    boxes = 0
    per_image: dict[str, list[float]] = {"decoding alone": [], "with boxes": []}
    for _round in range(rounds):
        for name, make in (("decoding alone", plain), ("with boxes", boxed)):
            with Pipeline([make(), steps()]) as pipeline:
                for _ in itertools.islice(pipeline.forever(), 4):
                    pass
                began, images = time.process_time(), 0
                for found in itertools.islice(pipeline.forever(), max(2 * len(paths) // batch, 8)):
                    images += len(found.images)
                    boxes = max(boxes, len(found.fields.get("boxes", ())))
                per_image[name].append((time.process_time() - began) / images * 1e3)
    medians = {name: statistics.median(found) for name, found in per_image.items()}
    more = statistics.median(
        both / alone - 1
        for both, alone in zip(per_image["with boxes"], per_image["decoding alone"], strict=True)
    )
    return [
        f"{len(paths)} pictures with annotations, batches of {batch}, letterboxed to {shape[0]} x {shape[1]}, "
        "then RandomResizedCrop(224), FlipX, ColorJitter, Normalize; processor time of an image, median of "
        f"{rounds} rounds:",
        f"{medians['decoding alone']:.3f} ms without annotations, {medians['with boxes']:.3f} ms with boxes, up to "
        f"{boxes} in a batch: {more:+.1%}.",
    ]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64, help="images in the batch (default: 64)")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images (default: 224)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts (default: 5)")
    parser.add_argument(
        "--seconds", type=float, default=0.1, help="how long each is measured in each round (default: 0.1)"
    )
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="interpreter with peers; may be given several times (this one is searched too)",
    )
    parser.add_argument(
        "--only", default="", metavar="NAMES", help="only these transforms, as in FlipX,Mixup (default: all)"
    )
    parser.add_argument(
        "--core",
        type=int,
        default=min(os.sched_getaffinity(0)),
        help="core of all measurements (default: the first that may be used)",
    )
    parser.add_argument("--memory", type=int, metavar="BATCHES", help="measure memory over this many batches")
    parser.add_argument(
        "--detection", type=Path, metavar="DIR", help="measure reading with boxes; DIR is a PASCAL VOC folder"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--markdown", type=Path, help="write what is printed to this file as well")
    parser.add_argument("--serve", choices=["highway", *PEERS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.batch, options.rounds) < 1 or options.size < 14:
        parser.error("--batch and --rounds must be 1 or more, and --size 14 or more")
    if options.core not in os.sched_getaffinity(0):
        parser.error(f"--core must be one of {sorted(os.sched_getaffinity(0))}")
    unknown = set(filter(None, options.only.split(","))) - set(jobs.jobs(options.size))
    if unknown:
        parser.error(f"--only: {', '.join(sorted(unknown))}; expected some of {', '.join(jobs.jobs(14))}")
    return options


def main() -> None:
    options = parsed()
    if options.serve:
        Server(options.serve, options.folder).run()
        return
    facts = machine.describe()
    told = [machine.describe_line(facts)]
    record: dict[str, Any] = {"machine": facts}
    os.sched_setaffinity(0, {options.core})
    if options.memory is not None or options.detection is not None:
        if options.memory is not None:
            told += ["", *memory(options.memory)]
        if options.detection is not None:
            told += ["", *detection(options.detection, options.batch, options.rounds)]
    else:
        measured, times, lines, versions = everybody(options)
        told += ["", measured, "", *lines]
        seconds = {" / ".join(key): found for key, found in times.items()}
        record |= {"versions": versions, "seconds": seconds}
    print("\n".join(told))
    if options.markdown is not None:
        options.markdown.write_text("\n".join(told) + "\n", encoding="utf-8")
    if options.json is not None:
        options.json.write_text(json.dumps(record | {"told": told}, indent=2) + "\n", encoding="utf-8")


def everybody(options: argparse.Namespace) -> tuple[str, Times, list[str], dict[str, str]]:
    """Measure the transforms; return the jobs, the times, remarks and versions."""
    pythons = {"highway": sys.executable} | found_in([*options.python, sys.executable])
    shown = jobs.jobs(options.size)
    names = [name for name in shown if not options.only or name in options.only.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "images.npy", jobs.pictures(options.batch, options.size))
        running = [Participant(name, python, folder) for name, python in pythons.items()]
        compare(running, options.size, names, folder)
    chained = [] if options.only else [name for name in running[0].ways if name not in shown]
    times: Times = {}
    for number in range(options.rounds):
        measure(running, names, options.seconds, times)
        for _ in range(CHAINED):
            measure(running[:1], chained, 0, times)
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    for one in running:
        one.close()
    versions = {one.name: one.version for one in running}
    measured = (
        f"{', '.join(versions.values())}; {options.batch} images, {options.size} x {options.size} x 3 uint8, core "
        f"{options.core}, medians of {options.rounds} rounds, milliseconds of a batch"
    )
    lines = [Line(name, times) for name in names]
    return (
        measured,
        times,
        [
            *table(lines, shown, [name for name in versions if name != "highway"]),
            "",
            *summary(lines),
            "",
            *chain_lines(times),
        ],
        versions,
    )


if __name__ == "__main__":
    main()
