"""One worker for many ranks: each has its own stream, batches and end, and none holds up another."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import numpy as np
import pytest
from concurrency import LIMIT, Task, eventually
from machines import digest, nothing_left
from pictures import class_folders

from highway.engine import Pipeline, Stage
from highway.modules import ArrayReader, Augmentations, ImageFileReader
from highway.network import Remote, worker_pool
from highway.transforms import FlipX, Normalize, RandomResizedCrop


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("photographs"), each=8)


def photographs(folder, shard=(0, 1), **options):
    options = {"seed": 5, "epochs": 3, "fit": RandomResizedCrop(), **options}
    return [
        ImageFileReader(folder, 2, (20, 24), shard=shard, **options),
        Augmentations([FlipX(), Normalize()], seed=6),
    ]


def told(batches):
    return [digest(batch) for batch in batches]


def local(modules):
    with Pipeline(modules) as pipeline:
        return told(pipeline.forever())


class Ranks(ExitStack):
    """Pipelines of so many ranks, and workers for all of them."""

    def __init__(self, make, world=2):
        super().__init__()
        self.make, self.world = make, world
        self.remotes, self.pipelines = [], []
        for rank in range(world):
            self.rank(make((rank, world)))

    def rank(self, modules):
        remote = Remote(timeout=LIMIT)
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


@pytest.mark.parametrize(("world", "workers"), [(2, 1), (4, 2)])
def test_the_batches_of_local_ranks(folder, world, workers):
    def make(shard):
        return photographs(folder, shard)

    with nothing_left(), Ranks(make, world) as ranks:
        pools = [ranks.pool() for _ in range(workers)]
        tasks = [Task(lambda one: told(one.forever()), pipeline) for pipeline in ranks.pipelines]
        for rank, task in enumerate(tasks):
            assert task.result() == local(make((rank, world)))
        ranks.stop()
        for pool in pools:
            pool.wait(LIMIT)
            assert pool.ranks == ()
