"""Measures the cost of one more module per batch, in microseconds.

Stages forward every batch unchanged, with one thread each. The cost of a stage is the slope of the time per batch over
the number of stages, once with full queues (effect on the rate) and once with a single batch in the pipeline (added
latency: each batch wakes a thread). Also measured is the bare queue: put and get by one thread, and transfer from one
thread to another. The baseline is the same with `queue.Queue`, measured in turns in the same run; the ratio is
Highway's time to it.
"""

from __future__ import annotations

import argparse
import json
import queue
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from machine import describe, describe_line

import highway
from highway._core.queue import BatchQueue
from highway.batch import Batch
from highway.engine import Pipeline, Source, Stage

SIZE = 4
BATCH = Batch({"images": np.zeros((16, 8, 8, 3), np.uint8), "labels": np.zeros(16, np.int64)}, seq=0)


class Same(Source):
    """Yields the same batch repeatedly; with a semaphore, once per release."""

    def __init__(self, permits: threading.Semaphore | None = None) -> None:
        super().__init__(workers=1, queue_size=SIZE)
        self.permits = permits

    def tasks(self) -> Iterator[int]:
        while True:
            yield 0

    def load(self, task: int) -> Batch:
        if self.permits is not None:
            self.permits.acquire()
        return BATCH

    def interrupt(self) -> None:
        if self.permits is not None:
            self.permits.release()


class Identity(Stage):
    def process(self, batch: Batch) -> Batch:
        return batch


def time_per_call(call: Callable[[], object], count: int) -> float:
    """Return the microseconds per call, after a tenth of the calls as warm-up."""
    for _ in range(count // 10):
        call()
    began = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - began) / count * 1e6


def pipeline(stages: int, count: int, single: bool) -> float:
    """Return the microseconds per batch of a Highway pipeline."""
    permits = threading.Semaphore(0) if single else None
    with Pipeline([Same(permits), *(Identity(queue_size=SIZE) for _ in range(stages))]) as running:
        if permits is None:
            return time_per_call(running.dequeue, count)

        def once() -> None:
            permits.release()
            running.dequeue()

        return time_per_call(once, count)


def threads_and_queues(stages: int, count: int, single: bool) -> float:
    """Return the microseconds per batch of threads with a `queue.Queue` between each two."""
    queues: list[queue.Queue[Batch | None]] = [queue.Queue(SIZE) for _ in range(stages + 1)]
    permits = threading.Semaphore(0)
    over = threading.Event()

    def begin() -> None:
        while not over.is_set():
            if single:
                permits.acquire()
            queues[0].put(BATCH)
        queues[0].put(None)

    def hand_on(place: int) -> None:
        while True:
            batch = queues[place].get()
            queues[place + 1].put(batch)
            if batch is None:
                return

    threads = [threading.Thread(target=begin)]
    threads += [threading.Thread(target=hand_on, args=(place,)) for place in range(stages)]
    for thread in threads:
        thread.start()

    def once() -> None:
        if single:
            permits.release()
        queues[-1].get()

    taken = time_per_call(once, count)
    over.set()
    permits.release()
    while queues[-1].get() is not None:
        pass
    for thread in threads:
        thread.join()
    return taken


def one_thread_highway(count: int) -> float:
    ring = BatchQueue(SIZE)
    tickets = iter(range(2 * count))

    def once() -> None:
        ticket = next(tickets)
        ring.reserve(ticket)
        ring.put(ticket, BATCH, 1)
        ring.get()

    return time_per_call(once, count)


def one_thread_queue(count: int) -> float:
    line: queue.Queue[Batch] = queue.Queue(SIZE)

    def once() -> None:
        line.put(BATCH)
        line.get()

    return time_per_call(once, count)


def two_threads_highway(count: int) -> float:
    ring = BatchQueue(SIZE)

    def produce() -> None:
        for ticket in range(count + count // 10):
            ring.reserve(ticket)
            ring.put(ticket, BATCH, 1)

    thread = threading.Thread(target=produce)
    thread.start()
    taken = time_per_call(ring.get, count)
    thread.join()
    return taken


def two_threads_queue(count: int) -> float:
    line: queue.Queue[Batch] = queue.Queue(SIZE)

    def produce() -> None:
        for _ in range(count + count // 10):
            line.put(BATCH)

    thread = threading.Thread(target=produce)
    thread.start()
    taken = time_per_call(line.get, count)
    thread.join()
    return taken


def slope(stages: list[int], times: list[float]) -> float:
    """Return the microseconds per additional stage, by least squares."""
    return float(np.polyfit(stages, times, 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=5000, help="batches per measurement (default: 5000)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds; the median counts (default: 9)")
    parser.add_argument(
        "--stages",
        type=int,
        nargs="+",
        default=[0, 1, 2, 4, 8],
        help="numbers of stages (default: 0 1 2 4 8)",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    if len(set(arguments.stages)) < 2 or min(arguments.stages) < 0:
        parser.error("--stages needs two different numbers or more, none of them negative")
    if arguments.count < 10 or arguments.rounds < 1:
        parser.error("--count must be 10 or more, and --rounds 1 or more")

    cases: dict[tuple[str, str], Callable[[], float]] = {}
    ways = {"queues full": (arguments.count, False), "one under way": (max(10, arguments.count // 4), True)}
    for way, (count, single) in ways.items():
        for stages in arguments.stages:
            name = f"{way}, {stages} stages"
            cases[name, "highway"] = lambda s=stages, c=count, o=single: pipeline(s, c, o)
            cases[name, "queue.Queue"] = lambda s=stages, c=count, o=single: threads_and_queues(s, c, o)
    many = 10 * arguments.count
    cases["queue alone, one thread", "highway"] = lambda: one_thread_highway(many)
    cases["queue alone, one thread", "queue.Queue"] = lambda: one_thread_queue(many)
    cases["queue alone, two threads", "highway"] = lambda: two_threads_highway(many)
    cases["queue alone, two threads", "queue.Queue"] = lambda: two_threads_queue(many)

    found: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
    for number in range(arguments.rounds):
        for case, measure in cases.items():
            found[case].append(measure())
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
    medians = {case: statistics.median(times) for case, times in found.items()}
    rows = {name: (medians[name, "highway"], medians[name, "queue.Queue"]) for name, _ in cases}
    for way in ways:
        columns = {
            who: [found[f"{way}, {stages} stages", who] for stages in arguments.stages]
            for who in ("highway", "queue.Queue")
        }
        # A slope for each round, then their median: one disturbed measurement spoils one round only.
        rows[f"{way}, one more stage"] = tuple(
            statistics.median(slope(arguments.stages, list(times)) for times in zip(*column, strict=True))
            for column in columns.values()
        )

    facts = {
        **describe(),
        "highway": highway.__version__,
        "numpy": np.__version__,
        "switch interval": sys.getswitchinterval(),
    }
    print(describe_line(facts))
    print(
        f"Python {facts['python']}, numpy {facts['numpy']}, highway {facts['highway']}; {arguments.rounds} rounds"
    )
    print(f"\n{'microseconds a batch':<32}{'highway':>10}{'queue.Queue':>13}{'ratio':>8}")
    for name, (ours, theirs) in sorted(rows.items()):
        print(f"{name:<32}{ours:>10.2f}{theirs:>13.2f}{ours / theirs:>8.2f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": facts, "microseconds": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
