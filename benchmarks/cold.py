"""Measures an epoch over files on disk, and over the same files in memory (the page cache).

The photographs are copied to a folder on a disk until they have --megabytes. Before a cold epoch their pages are
evicted from memory (fsync, posix_fadvise), before a warm one they are read; `mincore` verifies this. The names and
locations of files stay in memory, and the disk cache of a virtual machine's host.

The baseline is a loop in C, with the same number of threads and also in random order: it only reads the files, or reads
and decodes them with only the JPEG library. Reading with eight times as many threads shows the disk's rate for many
requests at once. All take turns, cold and warm; ratios are medians of the rounds' ratios.

--other CHECKOUT also measures another built checkout of Highway in the same rounds, to see the effect of a change on
cold files. --shards N also measures the same photographs in N tars, and in a Parquet file where there is pyarrow, in
the job rrc.
"""

import argparse
import ctypes
import json
import mmap
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import machine
from limit import MODES, Limit, LimitError
from participants.jobs import JOBS, list_files
from participants.registry import HIGHWAY, HIGHWAY_READERS, Participant
from photographs import write_parquet, write_tars

from highway.modules import TarReader

ONE_EPOCH = Path(__file__).resolve().parent / "participants" / "one_epoch.py"
IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
MANY = 8
STRAY = 0.01
LIMIT_SECONDS = 1800
# The job of the participant that reads shards.
SHARDS_JOB = "rrc"


class ColdError(RuntimeError):
    """A cold epoch cannot be measured; the message says why and what helps."""


def filesystem(folder: Path) -> str:
    """Return the type of the file system of a folder."""
    place, kind = "", ""
    target = os.path.realpath(folder)
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            mounted, this_kind = line.split()[1:3]
            mounted = mounted.replace("\\040", " ")
            inside = target == mounted or target.startswith(mounted.rstrip("/") + "/")
            if inside and len(mounted) >= len(place):
                place, kind = mounted, this_kind
    return kind


def copy_files(paths: list[str], folder: Path, megabytes: float) -> list[str]:
    """Copy the files, in folders of the same names, up to the size; all copies are written to the disk.

    Raises
    ------
    ColdError
        The folder is in memory, or has no space.
    """
    kind = filesystem(folder)
    if kind in IN_MEMORY:
        raise ColdError(f"{folder} is in memory ({kind}); give --folder on a disk")
    once = sum(os.path.getsize(path) for path in paths)
    copies = max(1, round(megabytes * 1e6 / once))
    free = shutil.disk_usage(folder).free
    if free < 1.1 * copies * once + 1e8:
        raise ColdError(
            f"{folder} has {free / 1e6:.0f} MB free, and {copies * once / 1e6:.0f} MB are to be written; "
            "give another --folder or fewer --megabytes"
        )
    made = []
    for path in paths:
        parent, name = os.path.split(path)
        target = folder / os.path.basename(parent)
        target.mkdir(exist_ok=True)
        content = Path(path).read_bytes()
        for number in range(copies):
            made.append(str(target / f"{number:04}-{name}"))
            with open(made[-1], "wb") as file:
                file.write(content)
    for path in made:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    return sorted(made)


def resident_share(paths: list[str]) -> float:
    """Return the fraction of the pages of these files that is in memory."""
    c = ctypes.CDLL(None, use_errno=True)
    c.mmap.restype = ctypes.c_void_p
    c.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    c.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    c.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    resident = pages = 0
    for path in paths:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                continue
            place = c.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
            if place == ctypes.c_void_p(-1).value:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
            count = -(-size // mmap.PAGESIZE)
            states = ctypes.create_string_buffer(count)
            failed = c.mincore(place, size, states)
            c.munmap(place, size)
            if failed:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
            resident += sum(state & 1 for state in states.raw[:count])
            pages += count
    return resident / max(1, pages)


def make_cold(paths: list[str]) -> None:
    """Evict the files from memory; raise ColdError if they stay."""
    for path in paths:
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    share = resident_share(paths)
    if share > STRAY:
        raise ColdError(
            f"{100 * share:.0f} % of the files' pages stay in memory on this file system "
            f"({filesystem(Path(paths[0]).parent)}); give --folder on another"
        )


def make_warm(paths: list[str]) -> None:
    """Read all files; raise ColdError if they do not fit in memory."""
    for path in paths:
        Path(path).read_bytes()
    share = resident_share(paths)
    if share < 1 - STRAY:
        raise ColdError(f"memory keeps only {100 * share:.0f} % of the files; take fewer --megabytes")


def write_shards(paths: list[str], folder: Path, shards: int) -> dict[str, tuple[str, str, list[str]]]:
    """Pack the files; return the reader, its first argument and the files of each format, by the name of its row."""
    if shards > len(paths):
        raise ColdError(f"--shards is {shards}, for {len(paths)} files; give fewer, or more --megabytes")
    pictures = [Path(path) for path in paths]
    folder.mkdir()
    tars = write_tars(pictures, folder / "tars", shards)
    # The index is made once, like the shards.
    TarReader(tars, 1, 1)
    files = sorted(map(str, (folder / "tars").glob("*.tar")))
    formats = {f"{SHARDS_JOB}: highway, {shards} tars": ("TarReader", tars, list(files))}
    parquet = str(folder / "photographs.parquet")
    try:
        write_parquet(pictures, Path(parquet))
    except ImportError as error:
        print(f"cold.py: without Parquet: {error}; pip install pyarrow", file=sys.stderr)
    else:
        files.append(parquet)
        formats[f"{SHARDS_JOB}: highway, Parquet"] = ("TableReader", parquet, [parquet])
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    return formats


def highway_epoch(
    python: str,
    checkout: str | None,
    folder: Path,
    job: str,
    threads: int,
    seed: int,
    participant: Participant = HIGHWAY,
    variant: str = "",
) -> dict:
    """Measure one epoch of Highway in a fresh interpreter; with `checkout`, of that checkout."""
    command = [python, str(ONE_EPOCH), participant.module, "--job", job, "--dir", str(folder)]
    command += ["--threads", str(threads), "--seed", str(seed), "--variant", variant]
    environment = dict(os.environ)
    if checkout:
        environment["PYTHONPATH"] = os.path.abspath(checkout)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise ColdError(f"Highway failed: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return json.loads(done.stdout.splitlines()[-1])


class Comparison:
    """Measures all participants in turn, cold and warm; `shards` are those of `write_shards`."""

    def __init__(
        self,
        options: argparse.Namespace,
        limit: Limit,
        folder: Path,
        paths: list[str],
        shards: dict[str, tuple[str, str, list[str]]],
    ):
        self.options = options
        self.limit = limit
        self.folder = folder
        self.paths = paths
        self.shards = shards
        self.bytes = sum(os.path.getsize(path) for path in paths)
        self.rows: dict[str, list[tuple[dict, dict]]] = {}

    def runs(self, number: int) -> dict:
        """Return the runs of a round by name; each a function without arguments."""
        options, threads = self.options, self.options.threads
        order = list(self.paths)
        random.Random(number).shuffle(order)
        found = {
            f"only reading, {count} threads": lambda count=count: self.limit.measure_once(
                "read", count, order
            )
            for count in (threads, MANY * threads)
        }
        for job in JOBS if options.job == "all" else [options.job]:
            mode = MODES[job]
            found[f"{job}: bare libjpeg-turbo"] = lambda mode=mode: self.limit.measure_once(
                mode, threads, order
            )
            checkouts = {"highway": None} | ({"highway of --other": options.other} if options.other else {})
            for name, checkout in checkouts.items():
                found[f"{job}: {name}"] = lambda job=job, checkout=checkout: highway_epoch(
                    options.python, checkout, self.folder, job, threads, number
                )
        for name, (reader, source, _) in self.shards.items():
            variant = json.dumps({"reader": reader, "source": source})
            found[name] = lambda variant=variant: highway_epoch(
                options.python, None, self.folder, SHARDS_JOB, threads, number, HIGHWAY_READERS, variant
            )
        return found

    def measure(self) -> None:
        """Run all rounds."""
        for number in range(self.options.rounds):
            runs = list(self.runs(number).items())
            shift = number % len(runs)
            for name, run in runs[shift:] + runs[:shift]:
                files = self.shards[name][2] if name in self.shards else self.paths
                make_cold(files)
                cold = run()
                make_warm(files)
                self.rows.setdefault(name, []).append((cold, run()))
                print(
                    f"round {number + 1} of {self.options.rounds}: {name}: {cold['seconds']:.2f} s cold",
                    file=sys.stderr,
                    flush=True,
                )

    def rate(self, run: dict) -> float:
        """Return the images per second of one epoch."""
        return run["images"] / run["seconds"]

    def table(self) -> str:
        """Return the results as text."""
        width = max(map(len, self.rows))
        lines = [
            f"{'':{width}}  cold images/s   MB/s  warm images/s   MB/s  cold of warm  of only reading, cold"
        ]
        reading = self.rows[f"only reading, {self.options.threads} threads"]
        megabytes = self.bytes / len(self.paths) / 1e6
        for name, rounds in self.rows.items():
            cold = statistics.median(self.rate(cold) for cold, _ in rounds)
            warm = statistics.median(self.rate(warm) for _, warm in rounds)
            of_warm = statistics.median(self.rate(cold) / self.rate(warm) for cold, warm in rounds)
            of_reading = statistics.median(
                self.rate(mine) / self.rate(disk)
                for (mine, _), (disk, _) in zip(rounds, reading, strict=True)
            )
            lines.append(
                f"{name:{width}}  {cold:13.0f}  {cold * megabytes:5.0f}  {warm:13.0f}  {warm * megabytes:5.0f}  "
                f"{of_warm:12.2f}  {of_reading:21.2f}"
            )
        return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", metavar="DIR", help="folder of class folders of JPEGs")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter that has highway (default: this)"
    )
    parser.add_argument("--other", metavar="CHECKOUT", help="another built checkout for comparison")
    parser.add_argument("--threads", type=int, default=machine.usable_cores(), help="default: usable cores")
    parser.add_argument("--job", choices=[*JOBS, "all"], default="all", help="which job (default: all)")
    parser.add_argument("--shards", type=int, metavar="N", help="also measure N tars, and a Parquet file")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--megabytes", type=float, default=400.0, help="size of an epoch's files (default: %(default)s)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="folder on a disk for the copies, which are removed at the end (default: the folder of temporary files)",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all rounds to this file")
    options = parser.parse_args()
    if min(options.threads, options.rounds) < 1 or options.megabytes <= 0:
        parser.error("expected --threads and --rounds 1 or more, --megabytes above 0")
    if options.shards is not None and (options.job == "fit" or not 1 <= options.shards <= 10000):
        parser.error("expected --shards from 1 to 10000, and --job rrc or all with it")
    if options.other and not (Path(options.other) / "highway" / "__init__.py").is_file():
        parser.error(f"--other: {options.other} has no highway/; expected a built checkout")
    try:
        paths, _, _ = list_files(options.dir)
    except (OSError, ValueError) as error:
        raise SystemExit(f"cold.py: {error}") from None

    facts = machine.describe()
    print(machine.describe_line(facts))
    try:
        with (
            tempfile.TemporaryDirectory(prefix="highway-bench-") as built,
            tempfile.TemporaryDirectory(prefix="highway-cold-", dir=options.folder) as folder,
        ):
            photographs = Path(folder) / "photographs"
            photographs.mkdir()
            copies = copy_files(paths, photographs, options.megabytes)
            shards = {}
            if options.shards is not None:
                shards = write_shards(copies, Path(folder) / "shards", options.shards)
            comparison = Comparison(options, Limit(Path(built), copies), photographs, copies, shards)
            kind = filesystem(Path(folder))
            comparison.measure()
    except (ColdError, LimitError, OSError) as error:
        raise SystemExit(f"cold.py: {error}") from None
    print(f"{len(copies)} files, {comparison.bytes / 1e6:.0f} MB, on {kind}; {options.threads} threads\n")
    print(comparison.table())
    if options.json:
        record = {
            "machine": facts,
            "files": len(copies),
            "bytes": comparison.bytes,
            "filesystem": kind,
            "threads": options.threads,
            "rounds": {
                name: [{"cold": cold, "warm": warm} for cold, warm in rounds]
                for name, rounds in comparison.rows.items()
            },
        }
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
