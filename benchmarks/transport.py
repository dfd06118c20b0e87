"""Measures a chain of processes, source, worker and sink over ZMQ, against bare pyzmq with the same frames.

Each participant runs as three processes on this machine (two without a worker). The batches repeat the same arrays, so
only the transport is measured; the sink counts. "bare" is PUSH and PULL of pyzmq with the frames
of a batch, without inspecting them or resending lost ones. "msgpack-numpy" packs and unpacks each batch into one
message, as the first Highway did, if that package is installed. All take turns in every round; medians, and medians
of the rounds' ratios.

Then it measures the cost of killing one of three workers at full speed.

With DIR, also the processor time of a training job that is spread over four processes (decode in one, augment in two,
receive in one) and of the same work in one process.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe, describe_line

import highway

CHAIN = Path(__file__).resolve().parent / "participants" / "chain.py"
BATCH = 3 * 320 * 240 * 3 * 4
MEGABYTE = 1_000_000
LIMIT = 300
# Of the training job: enough that connecting the processes does not count.
EPOCHS = 40
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """One process of a chain; ends with the block, after its usage was read."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(CHAIN), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", f"{arguments} did not start"

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def kill(self) -> None:
        """Kill the process, like a crash."""
        self.process.kill()

    def cpu(self) -> float:
        """Return the processor seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def result(self) -> dict[str, Any]:
        """Return the result of a sink."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the sink ended without a result"
        found: dict[str, Any] = json.loads(line)
        return found


@contextlib.contextmanager
def addresses(scheme: str) -> Iterator[tuple[str, str]]:
    """Yield two free addresses."""
    if scheme == "tcp":
        import socket

        with socket.socket() as one, socket.socket() as two:
            for each in (one, two):
                each.bind(("127.0.0.1", 0))
            ports = [each.getsockname()[1] for each in (one, two)]
        yield f"tcp://127.0.0.1:{ports[0]}", f"tcp://127.0.0.1:{ports[1]}"
        return
    with tempfile.TemporaryDirectory() as folder:
        yield f"ipc://{folder}/one", f"ipc://{folder}/two"


def chain(
    who: str,
    scheme: str,
    count: int,
    *,
    hops: int = 1,
    secret: str = "",
    nbytes: int = BATCH,
    pace: float = 0.0,
) -> dict[str, Any]:
    """Run a chain; return the result of its sink, and the processor time of all processes."""
    rest = ["--nbytes", str(nbytes), *(["--secret", secret] if secret else [])]
    counted = ["--count", str(count), "--warm-up", str(max(1, count // 5))]
    with addresses(scheme) as (one, two), contextlib.ExitStack() as stack:
        processes = [stack.enter_context(Process(who, "source", "--to", one, "--pace", str(pace), *rest))]
        if hops:
            # The sink starts first: it binds, and the worker connects.
            sink = stack.enter_context(Process(who, "sink", "--from", two, "--bind", *counted, *rest))
            processes.append(stack.enter_context(Process(who, "worker", "--from", one, "--to", two, *rest)))
        else:
            sink = stack.enter_context(Process(who, "sink", "--from", one, *counted, *rest))
        result = sink.result()
        used = result["used"] + sum(process.cpu() for process in processes)
        return {**result, "used": used}


def with_three_workers(count: int, kill_after: float | None) -> dict[str, Any]:
    """Return the result of the sink of a chain over ipc while one of three workers is killed."""
    with addresses("ipc") as (one, two), contextlib.ExitStack() as stack:
        stack.enter_context(Process("highway", "source", "--to", one))
        workers = [
            stack.enter_context(Process("highway", "worker", "--from", one, "--to", two)) for _ in range(3)
        ]
        counted = ["--count", str(count), "--warm-up", str(max(1, count // 5))]
        sink = stack.enter_context(Process("highway", "sink", "--from", two, "--bind", *counted))
        if kill_after is not None:
            time.sleep(kill_after)
            workers[0].kill()
        return sink.result()


def header_microseconds() -> float:
    """Measure packing and unpacking the header of a batch together, in microseconds."""
    from highway.network.protocol.messages import Data, Item, Key, Kind
    from highway.network.protocol.wire import decode, encode

    arrays = (np.zeros((3, 320, 240, 3), np.float32), np.zeros(3, np.int64))
    item = Item(Kind.BATCH, [["images", "labels"], 0, 7, 1, False, False], arrays)
    data = Data(bytes(16), bytes(16), 9, Key(0, 7, 0), 1, "fingerprint", item)
    frames = [bytes(frame) if isinstance(frame, bytes) else frame for frame in encode(data)]
    times = []
    for _ in range(2000):
        began = time.perf_counter()
        encode(data)
        decode(frames)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def job_cpu(directory: Path, spread: bool, epochs: int) -> tuple[float, float]:
    """Measure the processor seconds per image of the training job, and the megabytes per image on the wire."""
    command = [sys.executable, str(CHAIN.with_name("job_chain.py")), str(directory), "--epochs", str(epochs)]
    answer = subprocess.run(
        [*command, *(["--spread"] if spread else [])],
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
        stdin=subprocess.DEVNULL,
    )
    found = json.loads(answer.stdout.splitlines()[-1])
    return found["cpu"] / found["images"], found["wire"] / found["images"] / MEGABYTE


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", type=Path, nargs="?", metavar="DIR", help="class folders of JPEGs")
    parser.add_argument(
        "--count",
        type=int,
        default=2000,
        help="batches of a measurement, a tenth of it with CURVE (default: 2000)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the median counts (default: 5)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    options = parser.parse_args()
    if options.count < 10 or options.rounds < 1:
        parser.error("--count must be 10 or more, and --rounds 1 or more")

    facts = {**describe(), "highway": highway.__version__, "numpy": np.__version__}
    print(describe_line(facts), flush=True)
    participants = ["highway", "bare"]
    if importlib.util.find_spec("msgpack_numpy") is not None:
        participants.append("packed")
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder, "secret")
        with open(os.open(secret, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        cases: dict[tuple[str, str], Any] = {}
        for scheme in ("ipc", "tcp"):
            for who in participants:
                count = options.count // 4 if who == "packed" else options.count
                cases[scheme, who] = lambda w=who, s=scheme, c=count: chain(w, s, c)["rate"] / MEGABYTE
        for who in ("highway", "bare"):
            count = max(10, options.count // 10)
            cases["tcp with CURVE", who] = lambda w=who, c=count: (
                chain(w, "tcp", c, secret=str(secret))["rate"] / MEGABYTE
            )
        found: dict[tuple[str, str], list[float]] = {case: [] for case in cases}
        hops: dict[int, list[float]] = {0: [], 1: []}
        whole, killed = [], []
        for number in range(options.rounds):
            for case, measure in cases.items():
                found[case].append(measure())
            for count in hops:
                delay = chain("highway", "ipc", 100, hops=count, nbytes=MEGABYTE, pace=0.005)["delay"]
                hops[count].append(1e3 * delay)
            whole.append(with_three_workers(3 * options.count, None))
            # In the middle of the measurement.
            killed.append(with_three_workers(3 * options.count, 0.6 * whole[-1]["seconds"]))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)

    print(f"\n{'MB/s':<18}{'highway':>10}{'bare':>8}{'ratio':>8}{'msgpack-numpy':>16}{'ratio':>8}")
    figures: dict[str, Any] = {}
    for name in dict.fromkeys(name for name, _ in cases):
        ours = found[name, "highway"]
        row = {"highway": statistics.median(ours)}
        text = f"{name:<18}{row['highway']:>10.0f}"
        for who in participants[1:]:
            if (name, who) not in found:
                continue
            row[who] = statistics.median(found[name, who])
            row[f"of {who}"] = statistics.median(
                mine / theirs for mine, theirs in zip(ours, found[name, who], strict=True)
            )
            text += f"{row[who]:>{8 if who == 'bare' else 16}.0f}{row[f'of {who}']:>8.2f}"
        figures[name] = row
        print(text)
    delays = {count: statistics.median(times) for count, times in hops.items()}
    figures["milliseconds of a hop"] = delays[1] - delays[0]
    figures["microseconds of a header"] = header_microseconds()
    print(
        f"\n1 MB a batch, one at a time over ipc: {delays[0]:.2f} ms without a worker, {delays[1]:.2f} ms with one: "
        f"{figures['milliseconds of a hop']:.2f} ms for the hop"
    )
    print(
        f"packing and unpacking the header of a batch: {figures['microseconds of a header']:.1f} microseconds"
    )
    loss = {
        "seconds": statistics.median(run["seconds"] for run in whole),
        "killed": statistics.median(run["seconds"] for run in killed),
        "longest wait": statistics.median(run["longest"] for run in killed),
    }
    figures["one of three workers killed"] = loss
    print(
        f"{3 * options.count} batches through three workers over ipc: {loss['seconds']:.1f} s, "
        f"and {loss['killed']:.1f} s where one of them is killed; the longest wait for a batch is "
        f"{loss['longest wait']:.1f} s then"
    )
    if options.dir is not None:
        job(options.dir, options.rounds, figures)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": facts, "figures": figures}, indent=2) + "\n")


def hop_cpu(nbytes: int) -> float:
    """Measure the processor seconds per batch of this many bytes between two processes, by bare pyzmq."""
    few, many = 40, 240
    # The start of the processes is in both.
    return (
        chain("bare", "ipc", many, hops=0, nbytes=nbytes)["used"]
        - chain("bare", "ipc", few, hops=0, nbytes=nbytes)["used"]
    ) / (1.2 * (many - few))


def job(directory: Path, rounds: int, figures: dict[str, Any]) -> None:
    """Report the processor time of a training job, in one process and spread over four."""
    one, four, carried, wire = [], [], [], 0.0
    image = 224 * 224 * 3
    for _ in range(rounds):
        one.append(job_cpu(directory, False, EPOCHS)[0])
        cpu, wire = job_cpu(directory, True, EPOCHS)
        four.append(cpu)
        carried.append((hop_cpu(64 * image) + hop_cpu(4 * 64 * image)) / 64)
    together, spread, byte = map(statistics.median, (one, four, carried))
    figures["job"] = {"one process": together, "spread": spread, "bytes": byte, "MB an image": wire}
    print(
        f"\ntraining job, milliseconds of processor time an image: {1e3 * together:.2f} in one process, "
        f"{1e3 * spread:.2f} spread over four; {1e3 * byte:.2f} to carry its {wire:.2f} MB by bare pyzmq. "
        f"Spread is {spread / (together + byte):.2f} of the two together"
    )


if __name__ == "__main__":
    main()
