"""Ranks whose batches workers make, and pools of workers for all of them; a training that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from concurrency import LIMIT
from machines import digest

import highway
from highway.engine import Pipeline, Stage
from highway.modules import ArrayReader, Augmentations, ImageFileReader
from highway.network import Remote, worker_pool
from highway.transforms import FlipX, Normalize, RandomResizedCrop


def photographs(folder, shard=(0, 1), **options):
    options = {"seed": 5, "epochs": 3, "fit": RandomResizedCrop(), **options}
    return [
        ImageFileReader(folder, 2, (20, 24), shard=shard, **options),
        Augmentations([FlipX(), Normalize()], seed=6),
    ]


def arrays(shard=(0, 1), size=400, gated=False, **options):
    rows = np.arange(size * 3, dtype=np.float32).reshape(size, 3)
    reader = ArrayReader({"x": rows}, 4, **{"seed": 2, "epochs": 1, "shard": shard, **options})
    return [reader, Gate()] if gated else [reader]


class Gate(Stage):
    """Lets batches pass once it is open."""

    opened = threading.Event()

    def __init__(self):
        super().__init__(workers=2)

    def process(self, batch):
        assert self.opened.wait(LIMIT)
        return batch


def told(batches):
    return [digest(batch) for batch in batches]


def local(modules, state=None):
    with Pipeline(modules) as pipeline:
        if state is not None:
            pipeline.load_state_dict(state)
        return told(pipeline.forever())


class Ranks(ExitStack):
    """Pipelines of so many ranks, and workers for all of them."""

    def __init__(self, make, world=2, window=8):
        super().__init__()
        self.window = window
        self.make, self.world = make, world
        self.remotes, self.pipelines = [], []
        for rank in range(world):
            self.rank(make((rank, world)))

    def rank(self, modules):
        remote = Remote(timeout=LIMIT, window=self.window)
        pipeline = self.enter_context(Pipeline(modules, on=remote))
        self.remotes.append(remote)
        self.pipelines.append(pipeline)
        return pipeline

    def stop(self):
        """End the training of all ranks."""
        for pipeline in self.pipelines:
            pipeline.stop()

    def pool(self, ranks=None, **options):
        addresses = [remote.addresses for remote in self.remotes] if ranks is None else ranks
        return self.enter_context(worker_pool(self.make((0, self.world)), addresses, **options))


class Training(ExitStack):
    """A process that trains with `arrays`, on workers: it takes a batch for each line that it gets."""

    def __init__(self, **options):
        super().__init__()
        paths = [Path(highway.__file__).parents[1], Path(__file__).parent]
        self.process = self.enter_context(
            subprocess.Popen(
                [sys.executable, __file__, json.dumps(options)],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        self.callback(self.process.kill)
        self.addresses = tuple(json.loads(self.process.stdout.readline()))

    def take(self):
        """Digest of its next batch, and its state."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def kill(self):
        self.process.kill()
        self.process.wait(LIMIT)


def main(options):
    remote = Remote(timeout=LIMIT)
    with Pipeline(arrays(**options), on=remote) as pipeline:
        print(json.dumps(remote.addresses), flush=True)
        for _ in sys.stdin:
            batch = pipeline.dequeue()
            print(json.dumps([digest(batch), pipeline.state_dict()]), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
