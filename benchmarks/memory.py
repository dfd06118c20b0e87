"""Measures whether resident memory stays flat: RSS after every epoch, each job in a fresh interpreter.

The growth that is printed is a line fitted through the epochs from the third on: the first ones fill the
pool of buffers. With --hold N the consumer keeps the last N batches, as a training loop with a queue of its
own does.
"""

import argparse
import json
import os
import subprocess
import sys
from collections import deque
from pathlib import Path

import machine
import numpy as np
from participants.jobs import JOBS, list_files

PARTICIPANTS = Path(__file__).resolve().parent / "participants"
SETTLED = 2


def epochs_here(directory: str, job_name: str, threads: int, epochs: int, hold: int) -> list[float]:
    """RSS in 10**6 bytes before the first batch and after each epoch, in this process."""
    sys.path.insert(0, str(PARTICIPANTS))
    from highway_pipeline import batches
    from process_tree import resident_megabytes

    files = len(list_files(directory)[0])
    held: deque = deque(maxlen=hold)
    found = [resident_megabytes()]
    made = batches(directory, JOBS[job_name], threads, "", 0)
    samples = 0
    while len(found) <= epochs:
        images, labels = next(made)
        held.append((images, labels))
        samples += len(images)
        if samples >= files * len(found):
            found.append(resident_megabytes())
    made.close()
    return found


def growth(megabytes: list[float]) -> float:
    """Slope, in 10**6 bytes an epoch, of the epochs after the first ones."""
    settled = megabytes[1 + SETTLED :]
    return float(np.polyfit(np.arange(len(settled)), settled, 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", metavar="DIR", help="folder of class folders of JPEGs")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter that has highway (default: this)"
    )
    parser.add_argument("--threads", type=int, default=machine.usable_cores(), help="default: usable cores")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each job (default: %(default)s)")
    parser.add_argument(
        "--hold", type=int, default=0, help="batches the consumer keeps (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures to this file")
    parser.add_argument("--here", choices=JOBS, help="run one job in this interpreter and print a list of MB")
    options = parser.parse_args()
    if options.threads < 1 or options.epochs < SETTLED + 2 or options.hold < 0:
        parser.error(f"expected --threads 1 or more, --epochs {SETTLED + 2} or more, --hold 0 or more")
    try:
        list_files(options.dir)
    except (OSError, ValueError) as error:
        raise SystemExit(f"memory.py: {error}") from None
    if options.here:
        found = epochs_here(options.dir, options.here, options.threads, options.epochs, options.hold)
        print(json.dumps(found))
        return

    facts = machine.describe()
    record: dict[str, object] = {
        "machine": facts,
        "threads": options.threads,
        "hold": options.hold,
        "jobs": {},
    }
    print(machine.describe_line(facts))
    for name, job in JOBS.items():
        command = [options.python, os.path.abspath(__file__), options.dir, "--here", name]
        command += [
            "--threads",
            str(options.threads),
            "--epochs",
            str(options.epochs),
            "--hold",
            str(options.hold),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"memory.py: {options.python} failed:\n{done.stderr.strip()}")
        megabytes = json.loads(done.stdout.splitlines()[-1])
        record["jobs"][name] = megabytes
        print(f"\n{name}: {job.text}, {options.threads} threads, consumer holds {options.hold} batches")
        print(f"before the first batch: {megabytes[0]:.1f} MB")
        for start in range(1, len(megabytes), 10):
            line = " ".join(f"{value:7.1f}" for value in megabytes[start : start + 10])
            print(f"after epoch {start:3d} on: {line} MB")
        print(
            f"highest {max(megabytes):.1f} MB, "
            f"growth {growth(megabytes):+.3f} MB an epoch after epoch {SETTLED}"
        )
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
