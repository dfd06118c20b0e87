"""Measures photographs in an S3-compatible store with latency against the same photographs in a local folder.

A server on this machine, in a process of its own, answers each request after --latency seconds. It needs a part of
a core, which the reader then lacks: on a machine with few cores, compare the CPU time per image. --prefetch is kept
smaller than the photographs, so that every epoch fetches them again. The job is RandomResizedCrop to 224 x 224,
batches of 64. Both take turns; ratios are medians of the rounds' ratios.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import machine
from participants.jobs import list_files

from highway.engine import Pipeline
from highway.modules import ImageFileReader
from highway.transforms import RandomResizedCrop

SERVER = Path(__file__).resolve().parents[1] / "tests" / "helpers" / "object_server.py"
BATCH = 64


def measure(where: str, options: argparse.Namespace, **arguments: Any) -> dict[str, Any]:
    """Return figures of one reader: seconds to make it and to the first batch, rate, CPU time per image."""
    began = time.perf_counter()
    reader = ImageFileReader(
        where,
        BATCH,
        224,
        fit=RandomResizedCrop(),
        workers=options.threads,
        prefetch_bytes=options.prefetch,
        **arguments,
    )
    made = time.perf_counter()
    with Pipeline([reader]) as pipeline:
        pipeline.dequeue()
        first = time.perf_counter()
        warm = first + options.seconds / 4
        while time.perf_counter() < warm:
            pipeline.dequeue()
        images, start, cpu = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() < start + options.seconds:
            images += len(pipeline.dequeue().images)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        fetched = reader.fetched()
    return {
        "listing": made - began,
        "first batch": first - made,
        "images/s": images / seconds,
        "cpu ms/image": 1000 * cpu / images,
        "fetched": fetched,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", metavar="DIR", help="folder of class folders of JPEGs")
    parser.add_argument("--threads", type=int, default=machine.usable_cores(), help="default: usable cores")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds (default: %(default)s)")
    parser.add_argument(
        "--prefetch", type=int, metavar="BYTES", default=10 << 20, help="default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument(
        "--seconds", type=float, default=8.0, help="of one measurement (default: %(default)s)"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all rounds to this file")
    options = parser.parse_args()
    if (
        min(options.threads, options.rounds, options.prefetch) < 1
        or options.latency < 0
        or options.seconds <= 0
    ):
        parser.error("--threads, --rounds and --prefetch must be 1 or more, --seconds more than 0")
    try:
        list_files(options.dir)
    except (OSError, ValueError) as error:
        raise SystemExit(f"remote.py: {error}") from None

    facts = machine.describe()
    rounds = []
    command = [sys.executable, str(SERVER), options.dir, "--latency", str(options.latency)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        endpoint = server.stdout.readline().strip()
        if not endpoint:
            raise SystemExit("remote.py: the server did not start")
        keys = {"access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1"}
        store = {"endpoint": endpoint, **keys}
        for _ in range(options.rounds):
            local = measure(options.dir, options)
            rounds.append({"local": local, "s3": measure("s3://data", options, storage_options=store)})
        server.stdin.close()

    print(machine.describe_line(facts))
    print(
        f"{options.threads} threads, {1000 * options.latency:g} ms latency, medians of {options.rounds} rounds"
    )
    for name, unit in (
        ("images/s", "images/s"),
        ("cpu ms/image", "ms"),
        ("listing", "s"),
        ("first batch", "s"),
    ):
        local, remote = (statistics.median(one[kind][name] for one in rounds) for kind in ("local", "s3"))
        ratio = statistics.median(one["s3"][name] / one["local"][name] for one in rounds)
        print(f"{name:12}  local {local:9.3f} {unit:8}  s3 {remote:9.3f} {unit:8}  s3/local {ratio:7.3f}")
    if options.json:
        record = {"machine": facts, "threads": options.threads, "latency": options.latency, "rounds": rounds}
        options.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
