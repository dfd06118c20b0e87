"""Measures whether resident memory stays flat: RSS after every epoch, each job in a fresh interpreter.

Prints for each job: memory before the first batch (start), the median over the epochs from the third on (settled: the
first ones fill the pool of buffers), the maximum (peak), and the growth per epoch: the slope of a line fitted to the
epochs from the third on, and of one fitted to the second half of all.

With --hold N the consumer keeps the last N batches, like a training loop with its own queue; with --step SECONDS it
pauses for each batch, like a training step, and the queues fill up.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import machine
import numpy as np
from participants.jobs import JOBS, list_files

RESIDENT = Path(__file__).resolve().parent / "participants" / "resident.py"
SETTLED = 2


def growth(megabytes: list[float]) -> float:
    """Return the slope of a line through the epochs, in 10**6 bytes per epoch."""
    return float(np.polyfit(np.arange(len(megabytes)), megabytes, 1)[0])


def summary(found: dict) -> dict[str, float]:
    """Figures in 10**6 bytes, of what `participants/resident.py` found."""
    epochs = found["epochs"]
    settled = epochs[SETTLED:]
    late = epochs[max(SETTLED, len(epochs) // 2) :]
    return {
        "start": found["start"],
        "settled": statistics.median(settled),
        "peak": found["peak"],
        "growth": growth(settled),
        "late_growth": growth(late),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", metavar="DIR", help="folder of class folders of JPEGs")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter that has highway (default: this)"
    )
    parser.add_argument("--threads", type=int, default=machine.usable_cores(), help="default: usable cores")
    parser.add_argument("--epochs", type=int, default=50, help="epochs of each job (default: %(default)s)")
    parser.add_argument(
        "--hold", type=int, default=0, help="batches the consumer keeps (default: %(default)s)"
    )
    parser.add_argument(
        "--step", type=float, default=0.0, help="seconds between batches (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    if options.threads < 1 or options.epochs < SETTLED + 2 or options.hold < 0 or options.step < 0:
        parser.error(
            f"expected --threads 1 or more, --epochs {SETTLED + 2} or more, --hold and --step 0 or more"
        )
    try:
        list_files(options.dir)
    except (OSError, ValueError) as error:
        raise SystemExit(f"memory.py: {error}") from None
    facts = machine.describe()
    jobs = {}
    print(machine.describe_line(facts))
    print(
        f"{options.threads} threads; the consumer holds {options.hold} batches, steps take {options.step} s"
    )
    for name, job in JOBS.items():
        numbers = map(str, (options.threads, options.epochs, options.hold, options.step))
        command = [options.python, str(RESIDENT), os.path.abspath(options.dir), name, *numbers]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"memory.py: {options.python} failed:\n{done.stderr.strip()}")
        found = jobs[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"\n{name}: {job.text}")
        for first in range(0, options.epochs, 10):
            line = " ".join(f"{value:7.1f}" for value in found["epochs"][first : first + 10])
            print(f"after epoch {first + 1:3d} on: {line} MB")
        figures = summary(found)
        found["summary"] = figures
        print(
            f"start {figures['start']:.1f} MB, settled {figures['settled']:.1f} MB, peak {figures['peak']:.1f} MB; "
            f"growth {figures['growth']:+.3f} MB an epoch after epoch {SETTLED}, "
            f"{figures['late_growth']:+.3f} in the second half"
        )
    if options.json:
        record = {"machine": facts, "threads": options.threads, "hold": options.hold, "step": options.step}
        options.json.write_text(json.dumps(record | {"jobs": jobs}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
