"""Measures what decoding in worker processes costs, compared with the same pipeline in one process.

Photographs: RandomResizedCrop to 224 and flip, batches of 64, as uint8; and normalized, as float32. The training
process keeps the order and takes the batches, `--workers` processes of one core each read, decode and transform. All
share the cores of this machine, so processor time is compared: images for each second of it, of all processes
together. Rounds are interleaved, and ratios are medians of the rounds' ratios.

The path of a task: batches of one byte through one training process and one worker. Tiny batches: of one picture of
8 x 8, from a data machine to a training machine. Idle workers: processor time of a training process that takes nothing,
with 64 workers connected.

The model says how many workers one training process can feed: each batch costs it so much processor time, and a
worker makes so many batches. It leaves out the network.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import machine

RUNNER = Path(__file__).resolve().parent / "participants" / "on_workers.py"
LIMIT = 300
DTYPES = ("uint8", "float32")


def measured(python: str, what: str, **job: Any) -> dict[str, float]:
    """Run a participant, and return its figures."""
    command = [python, str(RUNNER), what, json.dumps({"what": what, **job})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        raise SystemExit(f"{what} failed:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def photographs(options: argparse.Namespace) -> None:
    """Print the table of the photographs, and the model."""
    rounds: list[dict[tuple[str, int], dict[str, float]]] = []
    for _ in range(options.rounds):
        rounds.append(
            {
                (dtype, workers): measured(
                    options.python,
                    "photographs",
                    dir=str(Path(options.dir).resolve()),
                    dtype=dtype,
                    workers=workers,
                    cores=1,
                    seconds=options.seconds,
                )
                for dtype in DTYPES
                for workers in (0, options.workers)
            }
        )
    print(f"{'':9}{'':20}  images/s  CPU ms/image  of local  share of the training process")
    for dtype in DTYPES:
        for workers in (0, options.workers):
            runs = [figures[dtype, workers] for figures in rounds]
            locals_ = [figures[dtype, 0] for figures in rounds]
            ratio = statistics.median(
                (local["here"] + local["others"]) / (run["here"] + run["others"])
                for run, local in zip(runs, locals_, strict=True)
            )
            cost = statistics.median((run["here"] + run["others"]) / 64 for run in runs)
            share = statistics.median(run["here"] / (run["here"] + run["others"]) for run in runs)
            rate = statistics.median(run["samples"] for run in runs)
            name = f"{workers} workers" if workers else "in one process"
            print(f"{dtype:9}{name:20}  {rate:8.0f}  {cost * 1e3:12.3f}  {ratio:8.2f}  {share:.1%}")
    for dtype in DTYPES:
        runs = [figures[dtype, options.workers] for figures in rounds]
        here = statistics.median(run["here"] for run in runs)
        others = statistics.median(run["others"] for run in runs)
        print(
            f"{dtype}: a batch costs the training process {here * 1e3:.2f} ms, and a worker {others * 1e3:.1f} ms: one "
            f"core there feeds on {others / here:.0f} cores of workers, {64 / here:.0f} images/s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", metavar="DIR", help="folder of class folders of JPEGs")
    parser.add_argument("--python", default=sys.executable, help="interpreter with highway (default: this)")
    parser.add_argument("--workers", type=int, default=machine.usable_cores(), help="default: usable cores")
    parser.add_argument("--idle", type=int, default=64, help="idle workers (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="timed part of a run (default: %(default)s)"
    )
    options = parser.parse_args()
    facts = machine.describe()
    print(f"{options.rounds} rounds of {options.seconds:g} s; batches of 64 photographs")
    photographs(options)
    common = {"seconds": options.seconds}
    for what, title in (("tasks", "tasks of one byte"), ("tiny", "tiny batches")):
        runs = [
            measured(options.python, what, workers=1, cores=1, window=256, **common)
            for _ in range(options.rounds)
        ]
        rate = statistics.median(run["batches"] for run in runs)
        here = statistics.median(run["here"] for run in runs)
        others = statistics.median(run["others"] for run in runs)
        print(
            f"{title}: {rate:.0f} a second, {here * 1e6:.0f} us of processor time in the training process and "
            f"{others * 1e6:.0f} us in the other one"
        )
    found = measured(options.python, "idle", workers=options.idle, window=1, **common)
    print(
        f"a training process that waits: {found['with']:.2%} of a core with {options.idle} workers, "
        f"{found['without']:.2%} with none"
    )
    print(machine.describe_line(facts))


if __name__ == "__main__":
    main()
