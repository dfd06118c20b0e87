"""A participant of cluster.py: ``on_workers.py WHAT JSON`` prints its figures as JSON.

WHAT is "photographs" (with or without workers), "tasks", "tiny" or "idle". Processes that it starts are "worker" and
"data".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Any

import numpy as np
from process_tree import TICKS

from highway.engine import Pipeline
from highway.modules import ArrayReader, Augmentations, ImageFileReader, ZMQSink, ZMQSource
from highway.network import Remote, worker_pipeline
from highway.transforms import FlipX, Normalize, RandomResizedCrop

SIDE, BATCH = 224, 64
# Batches before the clock starts.
WARM = 20


def modules(job: dict[str, Any]) -> list[Any]:
    """Return the modules of a job: equal in all processes."""
    if job["what"] == "photographs":
        reader = ImageFileReader(job["dir"], BATCH, (SIDE, SIDE), fit=RandomResizedCrop(), seed=1)
        return [
            reader,
            Augmentations([FlipX(), Normalize()] if job["dtype"] == "float32" else [FlipX()], seed=1),
        ]
    # One row for each task: nothing but the path of a task costs anything.
    return [ArrayReader({"x": np.zeros((4096, 1), np.uint8)}, 1, seed=1, workers=1)]


def cpu_of(processes: list[int]) -> float:
    """User and system time of processes, in seconds."""
    total = 0
    for pid in processes:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


@contextmanager
def started(what: str, job: dict[str, Any], cores: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """Start this script as another process; it ends when its input does."""
    environment = dict(os.environ) if cores is None else {**os.environ, "HIGHWAY_CORES": str(cores)}
    process = subprocess.Popen(
        [sys.executable, __file__, what, json.dumps(job)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def measured(pipeline: Pipeline, seconds: float, others: list[int]) -> dict[str, float]:
    """Take batches for some time: rates, and processor time here and of the other processes."""
    batches = pipeline.forever()
    for _ in islice(batches, WARM):
        pass
    here, there, begin = time.process_time(), cpu_of(others), time.perf_counter()
    count = samples = 0
    while (elapsed := time.perf_counter() - begin) < seconds:
        # Not each time: the clock is not what is measured.
        for batch in islice(batches, 16):
            count += 1
            samples += batch.size
    return {
        "batches": count / elapsed,
        "samples": samples / elapsed,
        "here": (time.process_time() - here) / count,
        "others": (cpu_of(others) - there) / count,
    }


def photographs(job: dict[str, Any]) -> dict[str, float]:
    with ExitStack() as stack:
        remote = Remote(window=job.get("window", 8)) if job["workers"] else None
        pipeline = stack.enter_context(Pipeline(modules(job), on=remote))
        others = []
        for _ in range(job["workers"]):
            assert remote is not None
            others.append(
                stack.enter_context(
                    started("worker", {**job, "addresses": remote.addresses}, job["cores"])
                ).pid
            )
        return measured(pipeline, job["seconds"], others)


def tiny(job: dict[str, Any]) -> dict[str, float]:
    with started("data", job) as process:
        source = ZMQSource(line_of(process), window=64)
        with Pipeline([source]) as pipeline:
            return measured(pipeline, job["seconds"], [process.pid])


def idle(job: dict[str, Any]) -> dict[str, float]:
    """Processor time of a training process that takes nothing, with many workers and with none."""
    found = {}
    for name, workers in (("with", job["workers"]), ("without", 0)):
        with ExitStack() as stack:
            remote = Remote(window=1, timeout=None)
            pipeline = stack.enter_context(Pipeline(modules(job), on=remote))
            if workers:
                many = {**job, "addresses": remote.addresses, "count": workers}
                process = stack.enter_context(started("worker", many))
                assert line_of(process) == "ready"
                for _ in range(WARM):
                    pipeline.dequeue()
            # Until what it had made ahead is there.
            time.sleep(2)
            here, begin = time.process_time(), time.perf_counter()
            time.sleep(job["seconds"])
            found[name] = (time.process_time() - here) / (time.perf_counter() - begin)
    return found


def worker(job: dict[str, Any]) -> None:
    with ExitStack() as stack:
        for _ in range(job.get("count", 1)):
            stack.enter_context(worker_pipeline(modules(job), *job["addresses"], window=job.get("window", 8)))
        print("ready", flush=True)
        sys.stdin.read()


def data(job: dict[str, Any]) -> None:
    sink = ZMQSink("tcp://127.0.0.1:*", window=64)
    images = np.zeros((4096, 8, 8, 3), np.uint8)
    with Pipeline([ArrayReader({"images": images}, 1, seed=1, workers=1), sink]):
        print(sink.address, flush=True)
        sys.stdin.read()


MEASURES = {"photographs": photographs, "tasks": photographs, "tiny": tiny, "idle": idle}


def main() -> None:
    what, job = sys.argv[1], json.loads(sys.argv[2])
    if what in MEASURES:
        print(json.dumps(MEASURES[what](job)), flush=True)
    else:
        {"worker": worker, "data": data}[what](job)


if __name__ == "__main__":
    main()
