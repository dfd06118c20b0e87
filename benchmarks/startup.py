"""Measures how long `import highway` and the first batch take, each time in a fresh interpreter.

The first batch is counted from the end of the import: it includes the import of the modules that are used
(and of NumPy, if `import highway` does not import it), listing the folder, starting the threads, and the batch. `import
numpy` alone is the comparison.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import machine
from participants.jobs import JOBS, list_files

PARTICIPANTS = Path(__file__).resolve().parent / "participants"
IMPORT = """
import json, time
began = time.perf_counter()
import {}
print(json.dumps(time.perf_counter() - began))
"""
FIRST_BATCH = """
import json, sys, time
import highway
began = time.perf_counter()
from jobs import JOBS
from highway_pipeline import batches
directory, job, threads = sys.argv[1:]
made = batches(directory, JOBS[job], int(threads), "", 0)
images, labels = next(made)
seconds = time.perf_counter() - began
if images.shape != JOBS[job].batch_shape(len(images)):
    raise SystemExit(f"images have shape {images.shape}")
made.close()
print(json.dumps(seconds))
"""


def seconds(python: str, code: str, *arguments: str) -> float:
    """Return the output of a fresh interpreter, run in the participants' folder."""
    done = subprocess.run(
        [python, "-c", code, *arguments], cwd=PARTICIPANTS, capture_output=True, text=True, timeout=120
    )
    if done.returncode:
        raise SystemExit(f"startup.py: {python} failed:\n{done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", metavar="DIR", help="folder of class folders of JPEGs")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter that has highway (default: this)"
    )
    parser.add_argument("--threads", type=int, default=machine.usable_cores(), help="default: usable cores")
    parser.add_argument(
        "--rounds", type=int, default=7, help="fresh interpreters a figure (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all rounds to this file")
    options = parser.parse_args()
    if min(options.threads, options.rounds) < 1:
        parser.error("--threads and --rounds must be 1 or more")
    try:
        list_files(options.dir)
    except (OSError, ValueError) as error:
        raise SystemExit(f"startup.py: {error}") from None

    directory = os.path.abspath(options.dir)
    questions = {
        "import numpy": (IMPORT.format("numpy"),),
        "import highway": (IMPORT.format("highway"),),
        **{
            f"first batch, {job.text}": (FIRST_BATCH, directory, name, str(options.threads))
            for name, job in JOBS.items()
        },
    }
    facts = machine.describe()
    times: dict[str, list[float]] = {name: [] for name in questions}
    for code in questions.values():
        # Once without counting, to read the packages and photographs into memory.
        seconds(options.python, *code)
    for _ in range(options.rounds):
        for name, code in questions.items():
            times[name].append(seconds(options.python, *code))

    print(machine.describe_line(facts))
    print(f"{options.threads} threads, medians of {options.rounds} fresh interpreters")
    width = max(map(len, times))
    for name, values in times.items():
        print(
            f"{name.ljust(width)}  {statistics.median(values):6.3f} s  ({min(values):.3f}-{max(values):.3f})"
        )
    if options.json:
        record = {"machine": facts, "threads": options.threads, "seconds": times}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
