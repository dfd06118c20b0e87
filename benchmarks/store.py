r"""Measures reading records from a store as training input, and writing them, against plyvel, LMDB and torch.

    python benchmarks/store.py photos --python PEERS/lmdb/bin/python --python PEERS/torch/bin/python \
        --markdown benchmarks/results/store.md

Records are pictures of 256 x 256 x 3 bytes with a label. Measurements:

stored   batches of 64 in random order, RandomCrop(224), FlipX, Normalize to float32 NCHW, on two cores, out of a store
  highway  LevelDBSource and Augmentations, with automatic numbers of threads
  plyvel   two threads that read the same records in random order with verify_checksums, and do nothing else
  lmdb     two threads: values of LMDB in place, OpenCV, directly into the batch
  torch    DataLoader with two worker processes over a mapped .npy file
memory   the same from an array in memory, on one core
  highway  ArrayReader and Augmentations
  memcpy   a copy of the bytes of the batch
  torch    DataLoader over the same array, without or with a worker process
writing  LevelDBSink after ArrayReader, against plyvel with the same options, the same bytes in a synced write
states   state_dict() of a running pipeline of each reader
photos   with DIR, a folder of class folders of JPEGs: packing them, and reading them from a store against the files

Each participant runs in a separate process and is checked: each image is a window of the record of its label, equal up
to rounding, half of them mirrored. The fastest variant of each peer is found first. Then all take turns.
Ratios are medians of the rounds' ratios. Files are in the page cache. The C library keeps freed memory for reuse in all
processes, unless --plain-memory is given; Highway does so by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import machine
import numpy as np
import subject
from cold import ColdError, copy_files, make_warm
from participants.jobs import RECORD_JOBS, list_files
from participants.registry import HIGHWAY as FILES
from participants.registry import OPENCV, PARTICIPANTS, Participant
from peers import Row, say
from transforms import KEPT_MEMORY

HERE = Path(__file__).resolve().parent / "participants"
ENCODINGS = ("original", "jpeg:512:90", "raw:256")
MOST_MICROSECONDS = 1000

HIGHWAY = Participant(
    "highway",
    "records_highway",
    ("highway", "plyvel"),
    ("highway-loader", "plyvel"),
    (),
    {"stored": ("",), "memory": ("",)},
    "Highway",
)
PLYVEL = Participant(
    "plyvel", "records_plyvel", HIGHWAY.needs, ("plyvel",), (), {"stored": ("",)}, "plyvel alone"
)
MEMCPY = Participant("memcpy", "records_memcpy", ("numpy",), ("numpy",), (), {"memory": ("",)}, "memcpy")
LMDB = Participant(
    "lmdb",
    "records_lmdb",
    ("lmdb", "cv2"),
    ("lmdb", "opencv-python-headless"),
    ("lmdb==3.0.0", OPENCV, "numpy"),
    {"stored": ("lut", "blob", "numpy")},
    "LMDB + OpenCV in threads",
)
TORCH = Participant(
    "torch",
    "records_torch",
    ("torch", "torchvision"),
    ("torch", "torchvision"),
    PARTICIPANTS["torch"].requirements,
    {
        "stored": ("functional/2", "tensor/2", "batch/2"),
        "memory": ("functional/0", "tensor/0", "batch/0", "tensor/1", "batch/1"),
    },
    "torch DataLoader",
)

SHOULD = {
    ("stored", "plyvel"): 0.7,
    ("stored", "lmdb"): 3,
    ("stored", "torch"): 2,
    ("memory", "memcpy"): 0.5,
    ("memory", "torch"): 4,
    ("writing", "plyvel"): 0.7,
    ("photos", "files"): 1,
}
"""Ratios of Highway to others that are wanted at least."""

WHAT = {
    "stored": "stored records, {} cores",
    "memory": "array in memory, 1 core",
    "writing": "writing, {} cores",
    "photos": "photographs as they were, {} cores",
}


class Line(NamedTuple):
    """One line of the table; rates are per second."""

    what: str
    against: str
    ours: float
    theirs: float
    ratio: float
    should: float

    def cells(self) -> tuple[str, ...]:
        met = f"{self.ratio:.2f}" if self.ratio >= self.should else f"**{self.ratio:.2f}**"
        return (
            self.what,
            self.against,
            f"{self.ours:.0f}",
            f"{self.theirs:.0f}",
            met,
            f"{self.should:g} or more",
        )


@contextlib.contextmanager
def only(cores: list[int]) -> Any:
    """Run processes started within on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run_script(python: str, name: str, *arguments: object) -> str:
    """Return the output of a script of the participants."""
    done = subprocess.run(
        [python, str(HERE / name), *map(str, arguments)], capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        raise SystemExit(f"store.py: {name} failed:\n{done.stderr.strip()}")
    return done.stdout


# Records


def prepare(folder: Path, count: int, lmdb: str | None) -> None:
    """Create the folder that `participants/records.py` describes, and read it into memory."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 256, 256, 3), dtype=np.uint8)
    # Of different brightness, so that `Proof` can distinguish them.
    images >>= 1
    images += rng.integers(0, 128, (count, 1, 1, 1), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    del images
    run_script(sys.executable, "records_writing.py", "highway", folder, count, folder / "store")
    if lmdb is not None:
        run_script(lmdb, "records_lmdb.py", folder)
    warm(folder)


def warm(folder: Path) -> None:
    make_warm([str(path) for path in folder.rglob("*") if path.is_file() and path.stat().st_size])


class Turns:
    """The participants of a job on the given cores, in turns in every round.

    Parameters
    ----------
    job : str
    directory : str
        What they work on.
    pythons : dict of str to str
        Interpreter by the name of the participant.
    participants : list of Participant
        Highway first.
    cores : list of int
    options : Namespace
    """

    def __init__(
        self,
        job: str,
        directory: str,
        pythons: dict[str, str],
        participants: list[Participant],
        cores: list[int],
        options: argparse.Namespace,
    ) -> None:
        self.job, self.directory, self.pythons, self.cores = job, directory, pythons, cores
        self.seconds = options.seconds
        self.rows = [Row(one.name, one, one.variants[job]) for one in participants]

    def run(self, row: Row, variant: str, seconds: float) -> dict[str, Any]:
        participant = row.participant
        assert participant is not None
        with only(self.cores):
            result = subject.measure(
                participant,
                self.pythons[participant.name],
                self.directory,
                self.job,
                variant=variant,
                threads=len(self.cores),
                warmup=min(0.5, seconds),
                seconds=seconds,
                seed=len(row.results),
            )
        if result["status"] != "ok":
            raise SystemExit(
                f"store.py: {row.label} ({variant or participant.module}): "
                + result.get("traceback", result["reason"])
            )
        return result

    def settle(self) -> None:
        """Find the fastest variant of each."""
        for row in self.rows:
            row.variant = row.variants[0]
            if len(row.variants) > 1:
                for variant in row.variants:
                    found = self.run(row, variant, self.seconds / 2)
                    row.trials[variant] = found["images_per_second"]
                    say(f"{self.job} trial: {row.label} as {variant}: {row.trials[variant]:.0f} a second")
                row.variant = max(row.trials, key=row.trials.__getitem__)

    def round(self) -> None:
        for row in self.rows:
            row.results.append(self.run(row, row.variant, self.seconds))
            say(f"{self.job}: {row.label}: {row.rates()[-1]:.0f} a second")

    def lines(self) -> list[Line]:
        """Return the ratios of Highway to each of the others."""
        ours, *others = self.rows
        return [
            _line(self.job, other.label, other.variant, ours.rates(), other.rates(), len(self.cores))
            for other in others
        ]

    def notes(self) -> list[str]:
        """Return the processor time, and the load by other processes."""
        costs = ", ".join(f"{row.label} {1e3 * row.cpu_milliseconds():.0f}" for row in self.rows)
        busy = [result["others_cores"] for row in self.rows for result in row.results]
        told = f"{self.job}: microseconds of processor time a record: {costs}."
        if max(busy) > 0.1:
            told += f" Other processes kept {statistics.mean(busy):.2f} cores busy (at most {max(busy):.2f})."
        return ["", told]

    def record(self) -> dict[str, Any]:
        return {
            row.label: {"variant": row.variant, "trials": row.trials, "rounds": row.results}
            for row in self.rows
        }


def _line(job: str, name: str, variant: str, ours: list[float], theirs: list[float], cores: int) -> Line:
    return Line(
        WHAT[job].format(cores),
        f"{name}, {variant}" if variant else name,
        statistics.median(ours),
        statistics.median(theirs),
        statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True)),
        SHOULD[job, name],
    )


class Writing:
    """Measures writing records, in every round into a new store."""

    def __init__(self, folder: Path, count: int, cores: list[int]) -> None:
        self.folder, self.count, self.cores = folder, count, cores
        self.rounds: dict[str, list[dict[str, float]]] = {"highway": [], "bare": []}

    def round(self) -> None:
        for who, rounds in self.rounds.items():
            store = self.folder / "written"
            with only(self.cores):
                told = run_script(sys.executable, "records_writing.py", who, self.folder, self.count, store)
            shutil.rmtree(store)
            rounds.append(json.loads(told))
            say(f"writing: {who}: {self.count / rounds[-1]['seconds']:.0f} a second")

    def lines(self) -> list[Line]:
        ours, theirs = (
            [one["records"] / one["seconds"] for one in self.rounds[who]] for who in ("highway", "bare")
        )
        return [_line("writing", "plyvel", "", ours, theirs, len(self.cores))]

    def record(self) -> dict[str, Any]:
        return dict(self.rounds)


# States


def states(folder: Path, photos: Path | None) -> dict[str, float]:
    """Measure `state_dict()` of a running pipeline, in microseconds by reader."""
    from highway.modules import ArrayReader, ImageFileReader, LevelDBSource, ListReader, VOCReader

    images = np.load(folder / "images.npy", mmap_mode="r")
    readers: dict[str, Any] = {
        "ArrayReader": lambda: ArrayReader(images, np.arange(len(images)), 16),
        "LevelDBSource": lambda: LevelDBSource(folder / "store", 16),
    }
    if photos is not None:
        paths, labels, _ = list_files(str(photos))
        shape = (64, 64)
        voc = folder / "voc"
        write_voc(voc, paths)
        readers |= {
            "ImageFileReader": lambda: ImageFileReader(photos, 16, shape),
            "ListReader": lambda: ListReader(paths, labels, 16, shape),
            "VOCReader": lambda: VOCReader(voc, 16, shape, split=None),
        }
    return {name: state_microseconds(make()) for name, make in readers.items()}


def state_microseconds(reader: Any) -> float:
    """Return the median over positions of a running pipeline."""
    from highway.engine import Pipeline
    from highway.modules import Augmentations
    from highway.transforms import FlipX

    found = []
    with Pipeline([reader, Augmentations([FlipX()])]) as pipeline:
        for _ in range(20):
            pipeline.dequeue()
            for _ in range(10):
                began = time.perf_counter()
                pipeline.state_dict()
                found.append(time.perf_counter() - began)
    return 1e6 * statistics.median(found)


def write_voc(folder: Path, paths: list[str]) -> None:
    """Create a folder in the format of Pascal VOC with these photographs, one box in each."""
    for name in ("JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True)
    for number, path in enumerate(paths):
        (folder / "JPEGImages" / f"{number:06}.jpg").symlink_to(os.path.abspath(path))
        (folder / "Annotations" / f"{number:06}.xml").write_text(
            f"<annotation><filename>{number:06}.jpg</filename><object><name>cat</name><bndbox><xmin>1</xmin>"
            "<ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
        )


# Photographs


class Photographs:
    """Measure reading photographs from stores against their files, and packing them.

    Parameters
    ----------
    photos : Path
        Class folders of JPEGs, which are copied until they are `options.megabytes`.
    folder : Path
        For the copies and the stores.
    cores : list of int
    options : Namespace
    """

    def __init__(self, photos: Path, folder: Path, cores: list[int], options: argparse.Namespace) -> None:
        self.copies, self.folder, self.cores = folder / "photos", folder, cores
        self.copies.mkdir()
        self.paths = copy_files(list_files(str(photos))[0], self.copies, options.megabytes)
        self.packed: dict[str, list[dict[str, float]]] = {encoding: [] for encoding in ENCODINGS}
        store = folder / "original"
        self.pack("original", store)
        warm(self.copies)
        warm(store)
        self.turns = Turns(
            "rrc", str(self.copies), {"highway": sys.executable}, [FILES, FILES], cores, options
        )
        stored, files = self.turns.rows
        stored.variants, files.variants, files.label = (str(store),), ("",), "files"

    def pack(self, encoding: str, store: Path) -> dict[str, float]:
        """Measure `highway pack`: seconds, processor seconds, peak resident memory, and size of the store."""
        with only(self.cores):
            told = run_script(sys.executable, "packing.py", self.copies, store, encoding)
        found: dict[str, float] = json.loads(told)
        return found | {"megabytes": sum(path.stat().st_size for path in store.iterdir()) / 1e6}

    def settle(self) -> None:
        self.turns.settle()

    def round(self) -> None:
        self.turns.round()
        for encoding, rounds in self.packed.items():
            store = self.folder / "packed"
            rounds.append(self.pack(encoding, store))
            shutil.rmtree(store)
            say(f"packing {encoding}: {len(self.paths) / rounds[-1]['seconds']:.0f} a second")

    def lines(self) -> list[Line]:
        stored, files = self.turns.rows
        return [_line("photos", files.label, "", stored.rates(), files.rates(), len(self.cores))]

    def notes(self) -> list[str]:
        size = sum(os.path.getsize(path) for path in self.paths) / 1e6
        told = [
            "",
            f"Packing {len(self.paths)} photographs of {size:.0f} MB, {len(self.cores)} cores:",
            "",
            "| encoding | photographs/s | cores busy | peak memory, MB | MB of the store |",
            "| --- | --: | --: | --: | --: |",
        ]
        for encoding, rounds in self.packed.items():
            middle = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
            told.append(
                f"| {encoding} | {len(self.paths) / middle['seconds']:.0f} | "
                f"{middle['cpu_seconds'] / middle['seconds']:.2f} | {middle['peak_megabytes']:.0f} | "
                f"{middle['megabytes']:.0f} |"
            )
        return self.turns.notes() + told

    def record(self) -> dict[str, Any]:
        rates = {row.label: row.results for row in self.turns.rows}
        return {"reading": rates, "packing": self.packed}


# The whole


def found_in(pythons: list[str]) -> dict[str, str]:
    """Return the interpreter of each participant that has one."""
    peers = (LMDB, TORCH)
    names = sorted({name for one in peers for name in one.needs})
    found = {"highway": sys.executable, "plyvel": sys.executable, "memcpy": sys.executable}
    for python in [*pythons, sys.executable]:
        has = subject.importable(python, names)
        here = [one.name for one in peers if has.issuperset(one.needs)]
        if not here and python != sys.executable:
            raise SystemExit(f"--python: {python} has neither lmdb and cv2 nor torch and torchvision")
        for name in here:
            found.setdefault(name, python)
    return found


def table(lines: list[Line]) -> list[str]:
    """Markdown."""
    heads = ("what", "against", "Highway, a second", "the other", "ratio", "should be")
    rows = ["| " + " | ".join(heads) + " |", "| --- | --- | --: | --: | --: | --: |"]
    return rows + ["| " + " | ".join(line.cells()) + " |" for line in lines]


def measure(options: argparse.Namespace, folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Return the report and all figures."""
    pythons = found_in(options.python)
    cores = options.cores
    prepare(folder, options.records, pythons.get("lmdb"))
    parts: dict[str, Any] = {}
    for job, on, participants in (
        ("stored", cores, (HIGHWAY, PLYVEL, LMDB, TORCH)),
        ("memory", cores[:1], (HIGHWAY, MEMCPY, TORCH)),
    ):
        here = [one for one in participants if one.name in pythons]
        parts[job] = Turns(job, str(folder), pythons, here, on, options)
    parts["writing"] = Writing(folder, options.written, cores)
    microseconds = states(folder, options.dir)
    if options.dir is not None and not options.no_photos:
        parts["photos"] = Photographs(options.dir, folder, cores, options)
    for part in parts.values():
        getattr(part, "settle", lambda: None)()
    for number in range(options.rounds):
        for part in parts.values():
            part.round()
        say(f"round {number + 1} of {options.rounds}")

    told = [
        f"{options.records} records; {', '.join(_versions(parts))}; cores {cores}, medians of {options.rounds} rounds, "
        + ("memory as the C library has it" if options.plain_memory else "freed memory is used again"),
        "",
        *table([line for part in parts.values() for line in part.lines()]),
        "",
        f"state_dict() of a running pipeline, microseconds (should be below {MOST_MICROSECONDS}): "
        + ", ".join(f"{name} {found:.0f}" for name, found in microseconds.items())
        + ".",
    ]
    missing = [one.title for one in (LMDB, TORCH) if one.name not in pythons]
    if missing:
        told += ["", f"Not measured: {', '.join(missing)}; --python names interpreters that have them."]
    for part in parts.values():
        told += getattr(part, "notes", list)()
    figures = {name: part.record() for name, part in parts.items()}
    return told, figures | {"states": microseconds}


def _versions(parts: dict[str, Any]) -> list[str]:
    found: dict[str, str] = {}
    for part in parts.values():
        for row in getattr(part, "rows", ()):
            found |= row.results[0]["versions"]
    return [f"{name} {version}" for name, version in found.items()]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=Path, nargs="?", metavar="DIR", help="class folders of JPEGs")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PATH",
        help="interpreter with lmdb and cv2, or torch and torchvision; may be given several times",
    )
    parser.add_argument(
        "--records",
        type=int,
        default=2800,
        help="records of 0.2 MB, three times on the disk (default: %(default)s)",
    )
    parser.add_argument(
        "--written", type=int, default=1000, help="records written per round (default: %(default)s)"
    )
    parser.add_argument(
        "--megabytes",
        type=float,
        default=60.0,
        help="number of photographs, copied from DIR (default: %(default)s)",
    )
    parser.add_argument("--no-photos", action="store_true", help="use DIR only for state_dict()")
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds; the median counts (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        help="how long each is measured in each round (default: %(default)s)",
    )
    parser.add_argument(
        "--cores",
        type=lambda text: [int(core) for core in text.split(",")],
        default=sorted(os.sched_getaffinity(0))[:2],
        metavar="N,N",
        help="cores of all measurements; those on one core use the first (default: the first two)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="folder on a disk for 2 GB of temporary files (default: the folder of temporary files)",
    )
    parser.add_argument(
        "--plain-memory", action="store_true", help="keep the default memory settings of the C library"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--markdown", type=Path, help="write what is printed to this file as well")
    options = parser.parse_args()
    batch = RECORD_JOBS["stored"].batch_size
    if options.rounds < 1 or options.seconds <= 0 or options.megabytes <= 0:
        parser.error("expected --rounds 1 or more, --seconds and --megabytes above 0")
    if options.records < batch or not batch <= options.written <= options.records:
        parser.error(f"expected --records and --written {batch} or more, and no more written than there are")
    if not set(options.cores) <= os.sched_getaffinity(0):
        parser.error(f"--cores must be some of {sorted(os.sched_getaffinity(0))}")
    return options


def main() -> None:
    options = parsed()
    if options.dir is not None:
        try:
            list_files(str(options.dir))
        except (OSError, ValueError) as error:
            raise SystemExit(f"store.py: {error}") from None
    facts = machine.describe()
    if not options.plain_memory:
        os.environ.update(KEPT_MEMORY)
    try:
        with tempfile.TemporaryDirectory(prefix="highway-store-bench-", dir=options.folder) as folder:
            told, figures = measure(options, Path(folder))
    except (ColdError, OSError) as error:
        raise SystemExit(f"store.py: {error}") from None
    told = [machine.describe_line(facts), "", *told]
    print("\n".join(told))
    if options.markdown is not None:
        options.markdown.write_text("\n".join(told) + "\n", encoding="utf-8")
    if options.json is not None:
        record = {"machine": facts, "figures": figures, "told": told}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
