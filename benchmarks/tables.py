"""Measures how fast random rows of a table in memory become batches.

    python benchmarks/tables.py --python PEERS/torch/bin/python

Every participant has the same table, float32 (rows, columns) and a label for each row, in a process of its own, and
makes batches of rows in a new random order each epoch. All are measured in turns; the median of the rounds counts.
First, each must return every row of an epoch once, with its label.

highway        Pipeline([ArrayReader({"x": x, "y": y}, batch)]): threads, a queue, dequeue()
highway alone  the same reader without a pipeline, in one thread: its order and its copies
numpy          rows of a permutation, by fancy indexing
torch          DataLoader(TensorDataset(x, y), batch, shuffle=True), in the process
torch 2        the same with num_workers=2
memcpy         a copy of the bytes of a batch from places in the table that are not in the caches

"of memcpy" is the time of memcpy divided by that of the participant.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import machine
import numpy as np
from served import Participant, answer, has_packages

Batches = Iterator[tuple[Any, Any]]


class Table:
    """The table: a row begins with its own number."""

    def __init__(self, rows: int, columns: int, batch: int) -> None:
        self.rows, self.batch = rows, batch
        self.x = np.random.default_rng(0).random((rows, columns), np.float32)
        self.y = np.arange(rows)
        self.x[:, 0] = self.y


def highway(table: Table) -> Batches:
    from highway.engine import Pipeline
    from highway.modules import ArrayReader

    with Pipeline([ArrayReader({"x": table.x, "y": table.y}, table.batch)]) as pipeline:
        while True:
            yield pipeline.dequeue().as_tuple()


def highway_alone(table: Table) -> Batches:
    from highway._core.pool import BufferPool
    from highway.modules import ArrayReader

    # As in a worker of a pipeline: batches reuse memory.
    BufferPool(max_free_bytes=1 << 32).use()
    reader = ArrayReader({"x": table.x, "y": table.y}, table.batch)
    for task in reader.order:
        yield reader.load(task).as_tuple()


def numpy(table: Table) -> Batches:
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(table.rows)
        for first in range(0, table.rows, table.batch):
            taken = order[first : first + table.batch]
            yield table.x[taken], table.y[taken]


def torch(table: Table, workers: int = 0) -> Batches:
    from torch import from_numpy
    from torch.utils.data import DataLoader, TensorDataset

    dataset = TensorDataset(from_numpy(table.x), from_numpy(table.y))
    loader = DataLoader(
        dataset, table.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    while True:
        for x, y in loader:
            yield x.numpy(), y.numpy()


def torch_2(table: Table) -> Batches:
    return torch(table, 2)


def memcpy(table: Table) -> Batches:
    x, y = np.empty_like(table.x[: table.batch]), np.empty_like(table.y[: table.batch])
    while True:
        for first in range(0, table.rows - table.batch + 1, table.batch):
            np.copyto(x, table.x[first : first + table.batch])
            np.copyto(y, table.y[first : first + table.batch])
            yield x, y


PARTICIPANTS: dict[str, Callable[[Table], Batches]] = {
    "highway": highway,
    "highway alone": highway_alone,
    "numpy": numpy,
    "torch": torch,
    "torch 2": torch_2,
    "memcpy": memcpy,
}


def check(name: str, batches: Batches, table: Table) -> None:
    """End the benchmark unless an epoch has every row once, with its label."""
    found = []
    for x, y in itertools.islice(batches, -(-table.rows // table.batch)):
        if not (x[:, 0] == y).all():
            raise SystemExit(f"{name}: rows and labels do not belong together")
        found.append(y.copy())
    if name != "memcpy" and (np.sort(np.concatenate(found)) != table.y).any():
        raise SystemExit(f"{name}: an epoch does not have every row once")


def serve(name: str, table: Table) -> None:
    """Run the process of a participant: answer each line with seconds per batch."""
    # Few rows: the loop of torch takes minutes for an epoch of the others.
    few = Table(table.batch * 5, table.x.shape[1], table.batch)
    check(name, PARTICIPANTS[name](few), few)
    batches = PARTICIPANTS[name](table)
    next(batches)
    print("ready", flush=True)
    answer(partial(next, batches))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table (default: 1000000)")
    parser.add_argument("--columns", type=int, default=64, help="columns of the table (default: 64)")
    parser.add_argument("--batch", type=int, default=1024, help="rows of a batch (default: 1024)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds; the median counts (default: 9)")
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="how long each is measured in each round (default: 0.5)"
    )
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="PATH",
        help="interpreter with torch (default: this one, without it if it has none)",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.add_argument("--serve", choices=list(PARTICIPANTS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if min(options.rows, options.columns, options.batch, options.rounds) < 1:
        parser.error("--rows, --columns, --batch and --rounds must be 1 or more")
    if options.batch > options.rows:
        parser.error("--batch must not be larger than --rows")
    return options


def main() -> None:
    options = parsed()
    if options.serve:
        serve(options.serve, Table(options.rows, options.columns, options.batch))
        return
    facts = machine.describe()
    pythons = dict.fromkeys(PARTICIPANTS, sys.executable)
    for name in ("torch", "torch 2"):
        if has_packages(options.python, "torch"):
            pythons[name] = options.python
        elif options.python != sys.executable:
            raise SystemExit(f"--python: {options.python} has no torch; install it there")
        else:
            del pythons[name]
    sizes = [f"--{word}={getattr(options, word)}" for word in ("rows", "columns", "batch")]
    running = [Participant(name, python, __file__, sizes) for name, python in pythons.items()]
    rounds: dict[str, list[float]] = {one.name: [] for one in running}
    for number in range(options.rounds):
        for one in running:
            rounds[one.name].append(one.seconds(options.seconds))
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    for one in running:
        one.close()

    medians = {name: statistics.median(times) for name, times in rounds.items()}
    ratios = {name: medians["memcpy"] / seconds for name, seconds in medians.items()}
    print(machine.describe_line(facts))
    print(
        f"Python {facts['python']}; {options.rows} rows of {options.columns} float32 and a label, batches of "
        f"{options.batch}, {options.rounds} rounds\n"
    )
    print(f"{'':<15}{'us/batch':>10}{'million rows/s':>16}{'of memcpy':>11}")
    for name, seconds in medians.items():
        print(f"{name:<15}{seconds * 1e6:>10.1f}{options.batch / seconds / 1e6:>16.2f}{ratios[name]:>11.3f}")
    if "torch" not in medians:
        print("\ntorch: not installed here; --python names an interpreter that has it")
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": facts, "seconds": rounds, "of memcpy": ratios}))


if __name__ == "__main__":
    main()
