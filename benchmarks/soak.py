"""Measures whether the memory of every process of a chain stays flat, at full speed, with a consumer that pauses.

A source, two workers and a sink in separate processes, batches of 2.8 MB. The sink repeatedly takes batches at full
speed, then pauses for a tenth of that time. Prints the resident memory of each process over time, and its growth in the
second half, from a fitted line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path

import numpy as np
from machine import describe, describe_line
from transport import Process, addresses


def resident(process: Process) -> float:
    """Return the megabytes of private physical memory of the process."""
    for line in Path(f"/proc/{process.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--pause", type=float, default=3.0, help="seconds of a pause (default: 3)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    if options.minutes <= 0 or options.pause <= 0:
        parser.error("--minutes and --pause must be above 0")

    facts = describe()
    print(describe_line(facts), flush=True)
    with addresses("ipc") as (one, two), contextlib.ExitStack() as stack:
        start = {
            "source": ("source", "--to", one),
            "sink": ("sink", "--from", two, "--bind", "--pause", str(options.pause)),
            "worker 1": ("worker", "--from", one, "--to", two),
            "worker 2": ("worker", "--from", one, "--to", two),
        }
        processes = {name: stack.enter_context(Process("highway", *words)) for name, words in start.items()}
        print(f"{'seconds':>8}" + "".join(f"{name:>12}" for name in processes), flush=True)
        times: list[float] = []
        seen: dict[str, list[float]] = {name: [] for name in processes}
        interval = max(1.0, options.minutes * 60 / 60)
        began = time.monotonic()
        while (now := time.monotonic() - began) < options.minutes * 60:
            time.sleep(interval)
            now = time.monotonic() - began
            times.append(now)
            for name, process in processes.items():
                seen[name].append(resident(process))
            print(f"{now:>8.0f}" + "".join(f"{seen[name][-1]:>12.1f}" for name in processes), flush=True)
        cpu = {name: process.cpu() for name, process in processes.items()}
    half = len(times) // 2
    print(f"\n{'process':<12}{'median MB':>12}{'peak MB':>10}{'MB/minute':>12}{'CPU s':>8}")
    figures = {}
    for name, values in seen.items():
        slope = float(np.polyfit(times[half:], values[half:], 1)[0]) * 60 if len(times) - half > 1 else 0.0
        figures[name] = {"median": float(np.median(values)), "peak": max(values), "growth": slope}
        print(f"{name:<12}{np.median(values):>12.1f}{max(values):>10.1f}{slope:>+12.2f}{cpu[name]:>8.0f}")
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": facts, "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
