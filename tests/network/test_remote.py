"""Pipelines whose modules run on workers: the batches, order, states and errors of a pipeline in one process."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from concurrency import LIMIT, eventually
from machines import FAST, digest, nothing_left
from pictures import class_folders

import highway
from highway import replay
from highway.engine import Pipeline
from highway.errors import (
    ArgumentError,
    DecodeError,
    PeerLostError,
    PipelineStateError,
    RemoteError,
    TooManyErrors,
)
from highway.modules import (
    ArrayReader,
    Augmentations,
    ImageFileReader,
    Load,
    Map,
    Mix,
    Noise,
    Rebatch,
    Tasks,
    ZMQSink,
    ZMQSource,
)
from highway.network import Remote, worker_pipeline
from highway.network import exactly_once as exact
from highway.transforms import FlipX, Normalize, RandomResizedCrop


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("photographs"), each=8)


def photographs(folder, batch_size=4, **options):
    options = {"seed": 5, "epochs": 3, "fit": RandomResizedCrop(), **options}
    return [
        ImageFileReader(folder, batch_size, (20, 24), **options),
        Augmentations([FlipX(), Normalize()], seed=6),
    ]


def arrays(size=50, **options):
    rows = np.arange(size * 3, dtype=np.float32).reshape(size, 3)
    return [ArrayReader({"x": rows, "y": np.arange(size)}, 4, **{"seed": 2, "epochs": 2, **options})]


def mixture(folder):
    parts = [photographs(folder, epochs=None, seed=seed)[0] for seed in (1, 2)]
    return [Mix(parts, weights=(2, 1), epochs=2), photographs(folder)[1]]


class Rank(ExitStack):
    """A pipeline on workers in this process, which are stopped after it."""

    def __init__(self, modules, workers=2, window=8, timeout=LIMIT, **options):
        super().__init__()
        self.remote = Remote(window=window, timeout=timeout)
        self.pipeline = Pipeline(modules, on=self.remote, **options)
        self.modules = modules
        for _ in range(workers):
            self.worker()
        self.enter_context(self.pipeline)

    def worker(self, modules=None):
        return self.enter_context(worker_pipeline(modules or self.modules, *self.remote.addresses))


def told(batches):
    return [digest(batch) for batch in batches]


def local(modules, state=None):
    with Pipeline(modules) as pipeline:
        if state is not None:
            pipeline.load_state_dict(state)
        return told(pipeline.forever())


@pytest.mark.parametrize("kind", [photographs, mixture, lambda folder: arrays()])
@pytest.mark.parametrize("ordered", [True, False])
def test_the_batches_of_one_process(folder, kind, ordered):
    modules = kind(folder)
    expected = local(modules)
    with nothing_left(), Rank(modules, ordered=ordered) as rank:
        assert len(rank.pipeline) == len(Pipeline(modules))
        assert rank.pipeline.spec == Pipeline(modules).spec
        found = told(rank.pipeline.forever())
    assert (found if ordered else sorted(found)) == (expected if ordered else sorted(expected))


def test_what_regroups_runs_here(folder):
    def here(batch):
        return {"images": batch.images * 2, "labels": batch.labels}

    modules = [*photographs(folder), Rebatch(5), Map(here)]
    with Rank(modules) as rank:
        assert [module.name for module in rank.pipeline.modules] == ["ImageFileReader", "Rebatch", "Map"]
        assert told(rank.pipeline.forever()) == local(modules)


def test_states_load_locally_and_from_there(folder):
    modules, others = photographs(folder), photographs(folder, batch_size=3, shard=(1, 2))
    with Rank(modules) as rank:
        for _ in range(8):
            rank.pipeline.dequeue()
        state = json.loads(json.dumps(rank.pipeline.state_dict()))
    with Pipeline(modules) as pipeline:
        for _ in range(8):
            pipeline.dequeue()
        assert pipeline.state_dict() == state
    # Before any worker is there.
    with Rank(others, workers=0) as rank:
        rank.pipeline.load_state_dict(state)
        rank.worker()
        assert told(rank.pipeline.forever()) == local(others, state)
    epoch, step = divmod(8, len(Pipeline(modules)))
    assert digest(replay.batch(modules, epoch=epoch, step=step)) == local(modules, state)[0]


def test_epochs_breaks_and_skips(folder):
    modules = photographs(folder)
    with Pipeline(modules) as pipeline, Rank(modules) as rank:
        for one in (pipeline, rank.pipeline):
            for _ in one:
                break
        assert told(rank.pipeline) == told(pipeline)
        assert told(rank.pipeline.epoch(0)) == told(pipeline.epoch(0))
        for one in (pipeline, rank.pipeline):
            one.skip(samples=[3, 7], steps=[(1, 2)])
        assert told(rank.pipeline) == told(pipeline)


def test_skipped_samples_and_replacements(folder):
    def skipping(rank):
        rank.pipeline.skip(samples=[3])
        return told(rank.pipeline.forever())

    # The threads may come before the second line.
    with (
        Rank(photographs(folder, on_error="replace")) as rank,
        pytest.raises(PipelineStateError, match="on_error='replace'"),
    ):
        skipping(rank)


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_bad_samples_are_known_here(tmp_path, on_error):
    root = class_folders(tmp_path, each=6)
    bad = sorted(root.rglob("*.jpg"))[::5]
    for path in bad:
        path.write_bytes(path.read_bytes()[:200])
    modules = photographs(root, on_error=on_error)
    with Pipeline(modules) as pipeline:
        expected, errors, stats = told(pipeline.forever()), pipeline.errors, pipeline.stats().modules[0]
    with Rank(modules) as rank:
        assert told(rank.pipeline.forever()) == expected
        assert sorted(rank.pipeline.errors) == sorted(errors) and len(errors) == len(bad)
        found = rank.pipeline.stats().modules[0]
        assert (found.skipped_samples, found.replaced_samples) == (
            stats.skipped_samples,
            stats.replaced_samples,
        )
    limited = photographs(root, on_error=on_error, max_errors=1)
    with Rank(limited, workers=1) as rank, pytest.raises((TooManyErrors, RemoteError), match="max_errors"):
        told(rank.pipeline.forever())


def test_a_batch_without_a_good_sample(tmp_path):
    root = class_folders(tmp_path, each=6)
    for path in sorted(root.rglob("*.jpg"))[:4]:
        path.write_bytes(path.read_bytes()[:200])
    modules = photographs(root, batch_size=2, on_error="skip", shuffle=False)
    with Rank(modules) as rank, Pipeline(modules) as pipeline:
        assert told(rank.pipeline.forever()) == told(pipeline.forever())
        assert sorted(rank.pipeline.errors) == sorted(pipeline.errors)
        assert len(pipeline.errors) == 4


def test_an_error_of_a_worker_is_raised_here(tmp_path):
    root = class_folders(tmp_path)
    next(root.rglob("*.jpg")).write_bytes(b"\xff\xd8\xff")
    with Rank(photographs(root)) as rank, pytest.raises((DecodeError, RemoteError), match="does not end"):
        told(rank.pipeline.forever())


def test_nobody_connects(folder):
    with Rank(photographs(folder), workers=0, timeout=0.3) as rank:
        tasks, batches = rank.remote.addresses
        with pytest.raises(PeerLostError, match=f"highway work --from {tasks} --to {batches} --pipeline"):
            rank.pipeline.dequeue()


RANK = """
import json

from highway.engine import Pipeline
from highway.modules import Noise
from highway.network import Remote

remote = Remote()
with Pipeline([Noise(2, 4, size=10, seed=1)], on=remote) as pipeline:
    print(json.dumps(remote.addresses), flush=True)
    for batch in pipeline.forever():
        print(batch.seq, flush=True)
"""


@pytest.mark.machines
def test_a_worker_gives_up_where_the_training_machine_never_comes_or_is_gone(monkeypatch):
    monkeypatch.setattr(exact, "TIMING", FAST)
    environment = {**os.environ, "PYTHONPATH": str(Path(highway.__file__).parents[1])}
    command = [sys.executable, "-c", RANK]
    modules = [Noise(2, 4, size=10, seed=1)]
    rank = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        addresses = json.loads(rank.stdout.readline())
        with worker_pipeline(modules, *addresses, timeout=0.5) as worker:
            rank.stdout.readline()
            rank.kill()
            rank.wait(LIMIT)
            with pytest.raises(PeerLostError, match=r"no training machine was connected for 0\.5 s"):
                worker.wait(LIMIT)
    finally:
        rank.kill()
        rank.stdout.close()
    with (
        worker_pipeline(modules, *addresses, timeout=0.5) as worker,
        pytest.raises(PeerLostError, match=r"no training machine was connected for 0\.5 s"),
    ):
        worker.wait(LIMIT)


def test_a_worker_of_another_definition_is_refused(folder):
    modules = photographs(folder)
    other = [modules[0], Augmentations([FlipX(0.25), Normalize()], seed=6)]
    with Rank(modules, workers=0) as rank:
        rank.worker(other)
        with pytest.raises(RemoteError, match="another definition"):
            rank.pipeline.dequeue()


def test_large_batches_bound_how_many_are_out(monkeypatch):
    monkeypatch.setattr("highway.network.remote.MOST_OUT_BYTES", 1 << 20)
    rows = np.zeros((400, 1 << 16), np.uint8)
    with Rank([ArrayReader({"x": rows}, 4, epochs=1)], workers=1) as rank:
        out = rank.pipeline.modules[0]._out
        # One batch is 256 KiB: four fit in.
        found = [rank.pipeline.dequeue()]
        eventually(lambda: not out._waiting)
        assert found[0].nbytes == 1 << 18 and out.most == 4
        found += [rank.pipeline.dequeue() for _ in range(40)]
        eventually(lambda: not out._waiting)
        # Those in the queue of the pipeline, and four that wait for their turn.
        assert out._next - len(found) <= 4 + 8 + 4
        assert len(found) + len(told(rank.pipeline.forever())) == 100


def test_stop_ends_what_waits_for_workers(folder):
    with nothing_left():
        rank = Rank(photographs(folder), workers=0)
        began = time.monotonic()
        rank.close()
        assert time.monotonic() - began < 2
        with pytest.raises(PipelineStateError):
            rank.pipeline.dequeue()


@pytest.mark.parametrize("taken", [3, None])
def test_workers_end_with_the_training(folder, taken):
    modules, remote = photographs(folder, epochs=20), Remote()
    with Pipeline(modules, on=remote) as pipeline:
        worker = worker_pipeline(modules, *remote.addresses)
        for _, _ in zip(pipeline.forever(), range(taken or 10**6), strict=False):
            pass
    with worker:
        worker.wait(LIMIT)


def test_refused_modules():
    class Bare(Noise):
        seekable = False

    with pytest.raises(ArgumentError, match="cannot be read on other machines"):
        Pipeline([Bare(2, (3, 3))], on=Remote())
    with pytest.raises(ArgumentError, match="on is 3"):
        Pipeline([Noise(2, (3, 3))], on=3)
    with pytest.raises(PipelineStateError, match="no pipeline runs with it"):
        Remote().addresses  # noqa: B018


def test_one_pipeline_at_a_time(folder):
    modules, remote = photographs(folder), Remote()
    with Pipeline(modules, on=remote), pytest.raises(PipelineStateError, match="another pipeline uses it"):
        Pipeline(modules, on=remote)
    with Pipeline(modules, on=remote) as pipeline, worker_pipeline(modules, *remote.addresses):
        assert told(pipeline.forever()) == local(modules)


def test_specifications(folder):
    remote = Remote("tcp://127.0.0.1:*", "tcp://127.0.0.1:*", window=3, timeout=None)
    copy = pickle.loads(pickle.dumps(remote))
    assert repr(copy) == repr(remote) and (copy.window, copy.timeout) == (3, None)
    reader = photographs(folder)[0]
    for module in (Tasks(reader), Load(reader)):
        assert pickle.loads(pickle.dumps(module)) == module


def test_tasks_and_load_in_a_chain(folder):
    reader, *stages = photographs(folder)
    with nothing_left(), ExitStack() as stack:
        sink, source = ZMQSink("tcp://127.0.0.1:*"), ZMQSource("tcp://127.0.0.1:*", bind=True, ordered=True)
        stack.enter_context(Pipeline([Tasks(reader), sink]))
        trainer = stack.enter_context(Pipeline([source]))
        worker = [ZMQSource(sink.address), Load(reader), *stages, ZMQSink(source.address, bind=False)]
        stack.enter_context(Pipeline(worker))
        assert told(trainer.forever()) == local([reader, *stages])


PROGRAM = """
from highway.modules import Augmentations, ImageFileReader
from highway.transforms import FlipX, Normalize, RandomResizedCrop

def modules():
    return [
        ImageFileReader({folder!r}, 4, (20, 24), seed=5, epochs=3, fit=RandomResizedCrop()),
        Augmentations([FlipX(), Normalize()], seed=6),
    ]
"""


def test_processes_that_are_killed(folder, tmp_path):
    (tmp_path / "training.py").write_text(PROGRAM.format(folder=os.fspath(folder)))
    modules = photographs(folder)
    expected = local(modules)
    with Rank(modules, workers=0, window=2) as rank:
        command = [
            sys.executable,
            "-m",
            "highway",
            "work",
            "--pipeline",
            "training.py:modules",
            "--workers",
            "1",
        ]
        command += ["--from", rank.remote.addresses[0], "--to", rank.remote.addresses[1]]
        # Where this process has found the package.
        environment = {**os.environ, "PYTHONPATH": str(Path(highway.__file__).parents[1])}
        workers = [
            subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
            for _ in range(2)
        ]
        try:
            found = told([rank.pipeline.dequeue() for _ in range(3)])
            os.kill(workers[0].pid, signal.SIGKILL)
            found += told(rank.pipeline.forever())
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    assert found == expected
