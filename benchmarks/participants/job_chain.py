"""Measures the processor time of a training job (random crop, flip, normalize) in one process, or spread over four.

Decode in one process, augment in two, receive in one. In one process, a stage that does nothing prevents fusion into
the reader, so that the same kernels run. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from highway.engine import Pipeline, Stage
from highway.modules import Augmentations, ImageFileReader, ZMQSink, ZMQSource
from highway.transforms import FlipX, Normalize, RandomResizedCrop


class Apart(Stage):
    """Passes every batch on."""

    def process(self, batch):
        return batch


def reader(directory: str, epochs: int) -> ImageFileReader:
    return ImageFileReader(directory, 64, (224, 224), fit=RandomResizedCrop(), epochs=epochs)


def augmentations() -> Augmentations:
    return Augmentations([FlipX(), Normalize()])


def used(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dir")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--spread", action="store_true")
    parser.add_argument("--role", choices=("data", "worker"))
    parser.add_argument("--at", help="folder for the sockets")
    options = parser.parse_args()
    one, two = f"ipc://{options.at}/one", f"ipc://{options.at}/two"
    if options.role == "data":
        with Pipeline([reader(options.dir, options.epochs), ZMQSink(one)]) as pipeline:
            pipeline.wait()
        return
    if options.role == "worker":
        with Pipeline([ZMQSource(one), augmentations(), ZMQSink(two, bind=False)]) as pipeline:
            pipeline.wait()
        return
    images = wire = 0
    # The start of Python and its packages is not part of the job.
    if not options.spread:
        began = used(resource.RUSAGE_SELF)
        with Pipeline([reader(options.dir, options.epochs), Apart(), augmentations()]) as pipeline:
            for batch in pipeline.forever():
                images += batch.size
        cpu = used(resource.RUSAGE_SELF) - began
    else:
        start = float(
            subprocess.run(
                [
                    sys.executable,
                    "-c",
                    "import highway.network, highway.modules, resource as r;"
                    "u = r.getrusage(r.RUSAGE_SELF); print(u.ru_utime + u.ru_stime)",
                ],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                str(Path(__file__)),
                options.dir,
                "--epochs",
                str(options.epochs),
                "--at",
                folder,
            ]
            before = used(resource.RUSAGE_CHILDREN)
            children = [
                subprocess.Popen(
                    [*command, "--role", role], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
                )
                for role in ("data", "worker", "worker")
            ]
            began = used(resource.RUSAGE_SELF)
            with Pipeline([ZMQSource(f"ipc://{folder}/two", bind=True)]) as pipeline:
                for batch in pipeline.forever():
                    images += batch.size
                    wire += batch.images.nbytes + batch.images.nbytes // 4
            cpu = used(resource.RUSAGE_SELF) - began
            children[0].wait(60)
            for child in children[1:]:
                try:
                    child.wait(2)
                except subprocess.TimeoutExpired:
                    # It started when all was done, and waits for a data machine.
                    child.terminate()
                    child.wait(10)
            cpu += used(resource.RUSAGE_CHILDREN) - before - len(children) * start
    print(json.dumps({"cpu": cpu, "images": images, "wire": wire}))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
