"""Measures the stages for sequences: packing, padding and cropping of tokens, on one thread.

"of copy" is the time that copying the result's bytes takes (memcpy), divided by Highway's time: 1.00 is memory speed.
"as NumPy" is the time that the fastest loop over samples in NumPy takes, divided by Highway's; its result is compared
first. All are measured in turns; the median of the rounds counts. Memory comes from the pool, as in a pipeline.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from machine import describe, describe_line
from numpy.typing import NDArray

import highway
from highway._core.pool import BufferPool
from highway.batch import Batch
from highway.engine import Stage
from highway.modules import Pack, PadRagged, Window

Arrays = list[NDArray[np.generic]]


def packed(batch: Batch, length: int) -> Arrays:
    """Pack in NumPy, with positions and segments."""
    offsets = batch.offsets_of("tokens")
    rows = -(-int(offsets[-1]) // length)
    tokens, positions, segments = (
        np.zeros(rows * length, dtype) for dtype in (batch.tokens.dtype, "i4", "i4")
    )
    tokens[: offsets[-1]] = batch.tokens
    starts = np.union1d(offsets[:-1][np.diff(offsets) > 0], np.arange(0, offsets[-1], length))
    counts = np.diff(starts, append=offsets[-1])
    first = np.searchsorted(starts, starts // length * length)
    positions[: offsets[-1]] = np.arange(offsets[-1]) - np.repeat(starts, counts)
    segments[: offsets[-1]] = np.repeat(np.arange(len(starts)) - first + 1, counts)
    return [found.reshape(rows, length) for found in (tokens, positions, segments)]


def padded(batch: Batch, length: int) -> Arrays:
    """Pad in NumPy."""
    out = np.zeros((batch.size, length), batch.tokens.dtype)
    for row in range(batch.size):
        rows = batch.rows_of("tokens", row)
        out[row, : len(rows)] = rows
    return [out, np.diff(batch.offsets_of("tokens"))]


def cropped(batch: Batch, length: int) -> Arrays:
    """Crop in NumPy."""
    return [np.concatenate([batch.rows_of("tokens", row)[:length] for row in range(batch.size)])]


def measured(stage: Stage, batch: Batch, plain: Callable[[], Arrays], rounds: int) -> dict[str, float]:
    """Return the milliseconds of Highway, of a copy of its result and of NumPy."""
    result = stage.process(batch)
    assert isinstance(result, Batch)
    for mine, other in zip(result, plain(), strict=True):
        if not np.array_equal(mine, other):
            raise SystemExit(f"{stage!r} and NumPy differ")
    given, taken = np.ones(result.nbytes, np.uint8), np.empty(result.nbytes, np.uint8)
    nbytes = result.nbytes
    del result
    calls: dict[str, Callable[[], object]] = {
        "highway": lambda: stage.process(batch),
        "copy": lambda: np.copyto(taken, given),
        "numpy": plain,
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            found = call()
            ended = time.perf_counter()
            # Not in the time: the buffers go back to the pool.
            del found
            if turn:
                times[name].append(1000 * (ended - began))
    return {"mb": nbytes / 1e6, **{name: statistics.median(found) for name, found in times.items()}}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=4096, help="documents in the batch")
    parser.add_argument("--longest", type=int, default=2000, help="tokens of the longest document")
    parser.add_argument("--length", type=int, default=2048, help="tokens of a row")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if min(options.documents, options.longest, options.length, options.rounds) < 1:
        parser.error("--documents, --longest, --length and --rounds are 1 or more")
    BufferPool(max_free_bytes=2**32).use()
    machine = {
        **describe(),
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "highway": highway.__version__,
    }
    print(describe_line(machine))
    print(f"{options.documents} documents of up to {options.longest} tokens, rows of {options.length}\n")
    print(f"{'':26}{'MB':>8}{'ms':>9}{'of copy':>9}{'as NumPy':>10}")
    found: dict[str, dict[str, float]] = {}
    rng = np.random.default_rng(0)
    offsets = np.cumsum([0, *rng.integers(1, options.longest + 1, options.documents)])
    for dtype in ("uint16", "int32", "int64"):
        tokens = rng.integers(1, 30_000, offsets[-1]).astype(dtype)
        batch = Batch({"tokens": tokens}, seq=0, ragged={"tokens": offsets})
        length, most = options.length, int(np.diff(offsets).max())
        window = length // 4 or 1
        cases: dict[str, tuple[Stage, Callable[[], Arrays]]] = {
            "pack": (Pack("tokens", length), partial(packed, batch, length)),
            "pad": (PadRagged("tokens", most), partial(padded, batch, most)),
            "crop": (Window("tokens", window, at="start"), partial(cropped, batch, window)),
        }
        for name, (stage, plain) in cases.items():
            times = found[f"{name} {dtype}"] = measured(stage, batch, plain, options.rounds)
            times["of_copy"], times["as_numpy"] = (times[one] / times["highway"] for one in ("copy", "numpy"))
            print(
                f"{name + ' ' + dtype:26}{times['mb']:>8.1f}{times['highway']:>9.2f}{times['of_copy']:>9.2f}"
                f"{times['as_numpy']:>10.1f}"
            )
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine, "cases": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
