"""Compares the formats that photographs are kept in: a folder, tar shards of the same files, and peers on the shards.

The job is RandomResizedCrop to 224 x 224, flip and normalize, in batches of 64, from files that are in memory. Every
participant runs in a process of its own, in turns; the table has the median of the rounds, and ratios to the folder and
to the fastest peer. A peer needs an interpreter with webdataset, torch, torchvision and Pillow (--python); it is
skipped without one. Participants are checked as those of peers.py are.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import describe, describe_line

from highway.engine import Pipeline
from highway.modules import Encoded, ImageFileReader, TarReader, TarSink

HERE = Path(__file__).resolve().parent


def packed(folder: str, to: Path, shard_bytes: int) -> str:
    """Write the files of class folders to tar shards; return their name, with braces."""
    source = Encoded(ImageFileReader(folder, 1, 1, epochs=1, shuffle=False), "original")
    with Pipeline([source, TarSink(to / "photos-{0000..}.tar", shard_bytes=shard_bytes)]) as pipeline:
        pipeline.wait()
    last = len(list(to.glob("photos-*.tar"))) - 1
    name = str(to / f"photos-{{0000..{last:04}}}.tar")
    # The index is made once, like the shards.
    TarReader(name, 1, 1)
    return name


def run(python: str, module: str, variant: str, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Run one participant once; return its figures."""
    command = [python, str(HERE / "participants" / "run.py"), module, "--job", "rrc", "--dir", options.dir]
    command += ["--variant", variant, "--threads", str(options.threads), "--seed", str(seed)]
    command += ["--seconds", str(options.seconds), "--warmup", str(options.warmup)]
    for name in ("webdataset", "torch", "torchvision"):
        command += ["--distribution", name]
    answer = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=600
    )
    try:
        found: dict[str, Any] = json.loads(answer.stdout)
    except ValueError:
        return {"status": "failed", "reason": f"exit code {answer.returncode}"}
    return found


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the rates, and their ratios to the folder and to the fastest peer, as Markdown."""
    rates = {
        name: statistics.median(one["images_per_second"] for one in rounds)
        for name, rounds in results.items()
        if rounds and all(one["status"] == "ok" for one in rounds)
    }
    cpu = {
        name: statistics.median(1e6 * one["cpu_seconds"] / one["images"] for one in results[name])
        for name in rates
    }
    peers = [rate for name, rate in rates.items() if name.startswith("webdataset")]
    lines = [
        "| participant | images/s | of the folder | of the fastest peer | CPU us/image |",
        "| --- | --: | --: | --: | --: |",
    ]
    for name, rounds in results.items():
        if name not in rates:
            bad = next((one for one in rounds if one["status"] != "ok"), {"status": "missing", "reason": ""})
            lines.append(f"| {name} | {bad['status']}: {bad.get('reason', '')} | | | |")
            continue
        peer = f"{rates[name] / max(peers):.2f}" if peers else ""
        lines.append(
            f"| {name} | {rates[name]:.0f} | {rates[name] / rates['folder']:.3f} | {peer} | {cpu[name]:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", help="folder of class folders of JPEGs")
    parser.add_argument("--python", metavar="PYTHON", help="interpreter of the peers")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--shard-mib", type=int, default=64, help="size of the tar shards")
    options = parser.parse_args()

    facts = describe()
    with tempfile.TemporaryDirectory() as folder:
        shards = packed(options.dir, Path(folder), options.shard_mib << 20)
        participants = {
            "folder": (sys.executable, "highway_pipeline", ""),
            "tar": (sys.executable, "highway_pipeline", shards),
        }
        if options.python:
            for kind in ("decode_jpeg", "pil"):
                participants[f"webdataset ({kind})"] = (
                    options.python,
                    "webdataset_torch",
                    f"{kind}:{shards}",
                )
        results: dict[str, list[dict[str, Any]]] = {name: [] for name in participants}
        for number in range(options.rounds):
            for name, (python, module, variant) in participants.items():
                results[name].append(run(python, module, variant, options, number))
                print(f"round {number + 1}: {name}: {results[name][-1]['status']}", file=sys.stderr)
    print(describe_line(facts))
    print()
    print(table(results))


if __name__ == "__main__":
    main()
