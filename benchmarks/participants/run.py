"""Runs one participant on one job in this interpreter and prints one line of JSON.

The line has "status": "ok", "missing" or "failed". When ok it has the figures of the timed part: images,
seconds, images_per_second, cpu_seconds (worker processes included), others_cores (cores that other processes
kept busy meanwhile); and peak_megabytes, import_seconds, first_batch_seconds, mean, versions, and facts that the
participant states. With --whole-epoch also first_epoch_seconds, from the start to the last sample of the first epoch.
Otherwise it has a "reason". The timed part begins and ends at the arrival of a batch, after a warm-up that empties what
was prefetched.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator

import numpy as np
from jobs import JOBS, RECORD_JOBS, Job, list_files
from numbered import NumberedProof
from process_tree import cpu_seconds, machine_seconds, peak_megabytes
from proof import Proof
from records import RecordProof

LOOKED_AT = 256


def measure(
    batches: Iterator[tuple[np.ndarray, np.ndarray]],
    job: Job,
    proof: Proof,
    warmup: float,
    seconds: float,
    whole_epoch: int = 0,
) -> dict:
    """Return the figures of the timed part.

    `batches` has not started yet; it begins with an epoch of `whole_epoch` samples, unless that is 0.
    """
    began = time.perf_counter()
    images, labels = next(batches)
    first_batch = time.perf_counter() - began
    taken = proof.check(images, labels)
    first_epoch = {}
    if whole_epoch:
        del images, labels
        while taken < whole_epoch:
            taken += proof.check(*next(batches))
        first_epoch["first_epoch_seconds"] = time.perf_counter() - began
        images, labels = next(batches)
        proof.check(images, labels)
    proof.look(images, labels)
    while proof.looked_at < LOOKED_AT:
        images, labels = next(batches)
        proof.check(images, labels)
        proof.look(images, labels)
    # A batch kept here would count as the participant's memory.
    del images, labels
    warm = time.perf_counter() + warmup
    while time.perf_counter() < warm:
        proof.check(*next(batches))

    count = 0
    proof.check(*next(batches))
    cpu, everything = cpu_seconds(), machine_seconds()
    began = ended = time.perf_counter()
    while ended - began < seconds:
        count += proof.check(*next(batches))
        ended = time.perf_counter()
    cpu = cpu_seconds() - cpu
    others = max(0.0, machine_seconds() - everything - cpu) / (ended - began)
    proof.conclude()
    return {
        "images": count,
        "seconds": ended - began,
        "images_per_second": count / (ended - began),
        "cpu_seconds": cpu,
        "others_cores": others,
        "peak_megabytes": peak_megabytes(),
        "first_batch_seconds": first_batch,
        "mean": proof.mean,
    } | first_epoch


def versions(distributions: list[str]) -> dict[str, str]:
    """Return the versions of the installed ones of these distributions, and of Python and NumPy."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for name in distributions:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def attempt(options: argparse.Namespace) -> dict:
    """Return the result of the whole run; failures of a participant are results too."""
    began = time.perf_counter()
    try:
        participant = importlib.import_module(options.module)
    except ModuleNotFoundError as error:
        return {"status": "missing", "reason": str(error)}
    except Exception as error:  # Report any failure of a peer's import under its name.
        return {"status": "failed", "reason": f"import: {error!r}", "traceback": traceback.format_exc()}
    imported = time.perf_counter() - began
    result = {"versions": versions(options.distribution), "import_seconds": imported}
    try:
        job = (JOBS | RECORD_JOBS)[options.job]
        if options.job in RECORD_JOBS:
            # A participant without images defines its own check.
            proof = getattr(participant, "proof", RecordProof)(job, options.dir)
        elif options.colors:
            proof = NumberedProof(job, np.load(options.colors))
        else:
            paths, labels, _ = list_files(options.dir)
            grids = np.loadtxt(options.grids).reshape(len(paths), 4, 5, 3) if options.grids else None
            proof = Proof(job, labels, grids)
        made = participant.batches(options.dir, job, options.threads, options.variant, options.seed)
        whole_epoch = proof.epoch if options.whole_epoch else 0
        with contextlib.closing(made):
            result |= measure(made, job, proof, options.warmup, options.seconds, whole_epoch)
        result["facts"] = getattr(participant, "FACTS", {})
    except Exception as error:  # likewise
        return result | {
            "status": "failed",
            "reason": f"{type(error).__name__}: {error}",
            "traceback": traceback.format_exc(),
        }
    return result | {"status": "ok"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("module", help="module of this folder, for instance opencv_threads")
    parser.add_argument("--job", choices=[*JOBS, *RECORD_JOBS], required=True)
    parser.add_argument("--dir", required=True, help="folder of class folders of JPEGs, or of records")
    parser.add_argument("--threads", type=int, required=True, help="threads or worker processes")
    parser.add_argument("--variant", default="", help="one of the variants in the module's docstring")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the timed part")
    parser.add_argument(
        "--warmup", type=float, default=1.0, help="seconds before the timed part, after the first 256 images"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--grids", help="output of `bare_decode grid` for the files in sorted order, to compare images with"
    )
    parser.add_argument(
        "--colors", help="file of mean colors: labels are the numbers of photographs, each once an epoch"
    )
    parser.add_argument(
        "--whole-epoch", action="store_true", help="begin with a whole epoch, with --colors; it is timed"
    )
    parser.add_argument(
        "--distribution", action="append", default=[], help="package whose version to record; repeatable"
    )
    options = parser.parse_args()
    if options.whole_epoch and not options.colors:
        parser.error("--whole-epoch needs --colors")

    # Peers print on standard output too: keep the original for the result.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    result = attempt(options)
    answer.write(json.dumps(result) + "\n")
    answer.close()
    sys.exit(0)


if __name__ == "__main__":
    main()
