"""Measures how Highway's rate grows with threads, and models the limit on machines with more cores.

First it measures Highway and the bare JPEG loop with 1 thread up to the usable cores. Rounds are interleaved over all
numbers of threads; ratios are medians of the rounds' ratios. The bare loop shows the scaling of the machine itself:
cores that share caches or belong to a virtual machine do not scale perfectly.

Then the cost of an image is measured stage by stage with the highest number of threads: the bare loop for reading only,
entropy decoding only, and full decoding; Highway's total processor time; the time that the GIL is held, by a thread
that requests it at random times (gil_probe.c); the memory bandwidth, by copying.

The end of --help describes the model.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import machine
import scaling_model
import subject
from limit import MODES, Limit, LimitError
from participants.jobs import JOBS, list_files
from participants.registry import HIGHWAY


def table(job: str, rates: dict[str, dict[int, list[float]]]) -> str:
    """Rates and ratios of one job, by participant, threads and round."""
    lines = [f"{job}: {JOBS[job].text}", f"{'':24}  threads  images/s  of 1 thread  of the limit"]
    for who, by_threads in rates.items():
        first = by_threads[min(by_threads)]
        for threads, values in by_threads.items():
            speedup = statistics.median(mine / one for mine, one in zip(values, first, strict=True))
            limit = rates["bare libjpeg-turbo"][threads]
            share = statistics.median(mine / most for mine, most in zip(values, limit, strict=True))
            lines.append(
                f"{who:24}  {threads:7}  {statistics.median(values):8.0f}  {speedup:11.2f}  {share:12.2f}"
            )
    return "\n".join(lines)


def measured_bandwidth(threads: int, options: argparse.Namespace) -> float:
    """Return the bytes per second, median over the rounds."""
    seconds = min(1.0, options.seconds)
    return statistics.median(scaling_model.memory_bandwidth(threads, seconds) for _ in range(options.rounds))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=scaling_model.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dir", metavar="DIR", help="folder of class folders of JPEGs")
    parser.add_argument(
        "--python", default=sys.executable, help="interpreter that has highway (default: this)"
    )
    parser.add_argument(
        "--threads",
        metavar="N,...",
        type=lambda text: [int(number) for number in text.split(",")],
        default=list(range(1, machine.usable_cores() + 1)),
        help="numbers of threads; the first ratio is to the lowest (default: 1 to the usable cores)",
    )
    parser.add_argument("--job", choices=[*JOBS, "all"], default="all", help="which job (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="timed part of a run (default: %(default)s)"
    )
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds of warm-up (default: %(default)s)")
    parser.add_argument(
        "--cores",
        metavar="N,...",
        type=lambda text: [int(number) for number in text.split(",")],
        default=[4, 8, 16, 32, 64],
        help="numbers of cores for the model (default: 4,8,16,32,64)",
    )
    parser.add_argument(
        "--bandwidth",
        metavar="GB/S",
        type=float,
        default=200.0,
        help="of the memory of a machine with many cores, in 10**9 bytes a second (default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all rounds to this file")
    options = parser.parse_args()
    if min(*options.threads, *options.cores, options.rounds) < 1:
        parser.error("--threads, --cores and --rounds must be 1 or more")
    if options.bandwidth <= 0:
        parser.error("--bandwidth must be above 0")
    try:
        paths, _, _ = list_files(options.dir)
    except (OSError, ValueError) as error:
        raise SystemExit(f"scaling.py: {error}") from None

    facts = machine.describe()
    record: dict[str, object] = {"machine": facts, "files": len(paths), "jobs": {}, "model": {}}
    print(machine.describe_line(facts))
    most = max(options.threads)
    cores = sorted({*options.threads, *options.cores})
    memory = scaling_model.Memory(measured_bandwidth(most, options) / most, 1e9 * options.bandwidth)
    timing = {"warmup": options.warmup, "seconds": options.seconds}
    with tempfile.TemporaryDirectory(prefix="highway-bench-") as folder:
        try:
            limit = Limit(Path(folder), paths)
            for job in JOBS if options.job == "all" else [options.job]:
                rates: dict[str, dict[int, list[float]]] = {
                    who: {threads: [] for threads in sorted(set(options.threads))}
                    for who in ("bare libjpeg-turbo", "highway")
                }
                for _ in range(options.rounds):
                    for threads in sorted(set(options.threads)):
                        found = limit.measure(MODES[job], threads, **timing)
                        rates["bare libjpeg-turbo"][threads].append(found["images_per_second"])
                        found = subject.measure(
                            HIGHWAY, options.python, options.dir, job, threads=threads, **timing
                        )
                        if found["status"] != "ok":
                            raise SystemExit(f"scaling.py: highway {found['status']}: {found['reason']}")
                        rates["highway"][threads].append(found["images_per_second"])
                costs = scaling_model.measure_costs(
                    limit,
                    options.python,
                    options.dir,
                    job,
                    threads=most,
                    rounds=options.rounds,
                    **timing,
                )
                record["jobs"][job] = rates
                record["model"][job] = scaling_model.record(costs, memory, cores)
                print(f"\n{table(job, rates)}\n{scaling_model.table(costs, memory, cores)}")
        except (LimitError, subject.SteadyError) as error:
            raise SystemExit(f"scaling.py: {error}") from None
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
