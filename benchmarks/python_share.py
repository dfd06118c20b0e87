"""Profiles Python's share of the processor time of either job, and the rest by category.

Highway runs the job and discards the batches, while `perf` (event cpu-clock, which also works in virtual machines)
samples its threads. Every sample belongs to one place:

  libjpeg        the JPEG library
  kernels        Highway's compiled code
  C library      memory copies and mathematics, which the compiled code calls
  reading files  the operating system opening, reading and closing them
  other system   page faults, interrupts, changes of threads
and, together Python's share:
  interpreter    Python itself and its extension modules
  NumPy          all of it, also without the GIL
  wrappers       Cython's entry functions, which hold the GIL
  allocation     malloc, locks and clocks of the C library, whoever calls them
  waiting        the operating system making threads wait and waking them: the GIL, queues

So the share is an upper estimate. scaling.py measures the time that the GIL is held in another way.
"""

import argparse
import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import machine
from participants.jobs import JOBS, list_files
from subject import Steady, SteadyError

PYTHONS = ("interpreter", "NumPy", "wrappers", "allocation", "waiting")
PLACES = ("libjpeg", "kernels", "C library", "reading files", "other system", *PYTHONS)
FREQUENCY = 1999
MISSING = (
    "perf was not found; install it (Debian: apt-get install linux-perf, Ubuntu: linux-tools-generic). "
    "Without it, scaling.py tells how long the GIL is held"
)

FRAME = re.compile(r"^\s+[0-9a-f]+ (?P<symbol>.*) \((?P<object>[^()]*(?:\([^()]*\))?)\)$")
FILE_CALLS = re.compile(r"sys_(open|read|pread|close|newfstat|fstat|stat|lstat|fadvise|readahead|mmap|lseek)")
WAIT_CALLS = re.compile(r"sys_(futex|clock_nanosleep|nanosleep|sched_yield|epoll|poll|ppoll|select)")
C_LIBRARY = re.compile(
    r"^(libc|libm|libpthread|libdl|librt|ld-linux[\w-]*|libgcc_s|linux-vdso)[-.\d]|^\[vdso\]"
)
COPIES = re.compile(r"^_*(mem|str|wcs|tls_get_addr)|^__tls_get_addr")
WRAPPER = re.compile(r"^(__pyx_(pw|pf|tp|getprop|setprop|pymod|module)|__Pyx|PyInit_|_?Py[A-Z])")


class ProfileError(RuntimeError):
    """No profile was made; the message says why and what helps."""


def place_of(frames: list[tuple[str, str]]) -> str:
    """Return the place that a sample belongs to.

    Parameters
    ----------
    frames : list of (symbol, object)
        The sample's own place first, then its callers; objects are paths. Callers are known inside of the
        operating system only.
    """
    symbol, path = frames[0]
    name = path.rpartition("/")[2]
    if path.startswith(("[kernel", "[guest.kernel")) or path.endswith(".ko"):
        calls = " ".join(symbol for symbol, _ in frames)
        if WAIT_CALLS.search(calls):
            return "waiting"
        return "reading files" if FILE_CALLS.search(calls) else "other system"
    if name.startswith(("libjpeg", "libturbojpeg")):
        return "libjpeg"
    if "/highway/_core/" in path:
        return "wrappers" if WRAPPER.match(symbol) else "kernels"
    if C_LIBRARY.match(name):
        mathematics = name.startswith(("libm.", "libm-"))
        return "C library" if mathematics or COPIES.match(symbol) else "allocation"
    if "/numpy/" in path or "/numpy.libs/" in path:
        return "NumPy"
    return "interpreter"


def read_samples(text: str) -> collections.Counter:
    """Count the samples of `perf script` by (place, symbol, name of the object)."""
    counts: collections.Counter = collections.Counter()
    for block in text.split("\n\n"):
        frames = [
            (found["symbol"].removesuffix("@plt"), found["object"])
            for found in map(FRAME.match, block.splitlines())
            if found
        ]
        if frames:
            counts[place_of(frames), frames[0][0], frames[0][1].rpartition("/")[2]] += 1
    return counts


def profile(steady: Steady, seconds: float) -> collections.Counter:
    """Samples of a running process, counted as by `read_samples`.

    Raises
    ------
    ProfileError
        perf is missing, not permitted, or recorded nothing.
    """
    perf = shutil.which("perf")
    if perf is None:
        raise ProfileError(MISSING)
    with tempfile.TemporaryDirectory(prefix="highway-bench-") as folder:
        data = os.path.join(folder, "perf.data")
        command = [perf, "record", "-q", "-g", "-e", "cpu-clock", "-F", str(FREQUENCY), "-p", str(steady.pid)]
        done = subprocess.run(
            [*command, "-o", data, "--", "sleep", str(seconds)],
            capture_output=True,
            text=True,
            timeout=seconds + 120,
        )
        if done.returncode:
            words = " ".join(done.stderr.split())[-300:]
            raise ProfileError(
                f"perf record failed: {words} (as root, or with kernel.perf_event_paranoid at 1)"
            )
        command = [perf, "script", "-i", data, "-F", "tid,ip,sym,dso"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600)
    counts = read_samples(done.stdout)
    if done.returncode or not counts:
        raise ProfileError(f"perf script shows no samples: {' '.join(done.stderr.split())[-300:]}")
    return counts


def shares(counts: collections.Counter) -> dict[str, float]:
    """Return the share of the samples of each place."""
    total = sum(counts.values())
    found = dict.fromkeys(PLACES, 0.0)
    for (place, _, _), count in counts.items():
        found[place] += count / total
    return found


def python_share(by_place: dict[str, float]) -> float:
    """Return Python's share of all samples."""
    return sum(by_place[place] for place in PYTHONS)


def counts_of(counts: collections.Counter, place: str, symbol: str) -> int:
    """Return the samples of one symbol in one place."""
    return sum(count for (where, name, _), count in counts.items() if (where, name) == (place, symbol))


def table(counts: collections.Counter, symbols: int) -> str:
    """Return the table of places, with the symbols of most samples."""
    total = sum(counts.values())
    by_place = shares(counts)
    lines = []
    for place in sorted(PLACES, key=lambda place: (place in PYTHONS, -by_place[place])):
        inside: collections.Counter = collections.Counter()
        for (where, symbol, name), count in counts.items():
            if where == place:
                inside[name if symbol == "[unknown]" else symbol] += count
        top = ", ".join(f"{name} {100 * count / total:.1f}" for name, count in inside.most_common(symbols))
        mark = "+" if place in PYTHONS else " "
        lines.append(f"{mark} {place:14} {100 * by_place[place]:6.2f} %   {top}".rstrip())
    nameless = counts_of(counts, "kernels", "[unknown]")
    if nameless > by_place["kernels"] * total / 2:
        lines.append(
            "Highway's extensions have no names in them (stripped): wrappers are counted among the kernels"
        )
    lines.append(f"= {'Python (+)':14} {100 * python_share(by_place):6.2f} %   of {total} samples")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", metavar="DIR", help="folder of class folders of JPEGs")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter that has highway (default: this)"
    )
    parser.add_argument("--threads", type=int, default=machine.usable_cores(), help="default: usable cores")
    parser.add_argument("--job", choices=[*JOBS, "all"], default="all", help="which job (default: all)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="length of a profile (default: %(default)s)"
    )
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds of warm-up (default: %(default)s)")
    parser.add_argument(
        "--symbols", type=int, default=3, help="symbols to show per place (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    if options.threads < 1 or options.seconds <= 0 or options.warmup < 0 or options.symbols < 0:
        parser.error("expected --threads 1 or more, --seconds above 0, --warmup and --symbols 0 or more")
    try:
        list_files(options.dir)
    except (OSError, ValueError) as error:
        raise SystemExit(f"python_share.py: {error}") from None
    if shutil.which("perf") is None:
        raise SystemExit(f"python_share.py: {MISSING}")

    facts = machine.describe()
    print(machine.describe_line(facts))
    record: dict[str, object] = {"machine": facts, "threads": options.threads, "jobs": {}}
    for job in JOBS if options.job == "all" else [options.job]:
        try:
            with Steady(options.python, options.dir, job, options.threads, options.warmup) as steady:
                counts = profile(steady, options.seconds)
                found = steady.end()
        except (ProfileError, SteadyError) as error:
            raise SystemExit(f"python_share.py: {error}") from None
        cpu = found["user_seconds"] + found["system_seconds"]
        print(
            f"\n{job}: {JOBS[job].text}, {options.threads} threads, "
            f"{1e3 * cpu / found['images']:.2f} ms of processor time an image\n{table(counts, options.symbols)}"
        )
        by_place = shares(counts)
        record["jobs"][job] = found | {
            "samples": sum(counts.values()),
            "shares": by_place,
            "python": python_share(by_place),
        }
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
