"""Workers that fail where others do not: no batch is lost for it, and they are named."""

import logging
import threading

import pytest
from concurrency import LIMIT, eventually
from machines import FAST, Machines, assert_once, noise, told, undisturbed

from highway.engine import Pipeline
from highway.errors import RemoteError
from highway.modules import Map
from highway.network import Remote, worker_pipeline
from highway.network import exactly_once as exact


class Work:
    """What a worker does; on a sick one it fails, and on all of them for certain batches. Equal on all of them."""

    def __init__(self, sick=False, broken=()):
        self.sick, self.broken = sick, broken
        self.tried = []
        self.lock = threading.Lock()

    def __call__(self, batch):
        with self.lock:
            self.tried.append((batch.epoch, batch.seq))
        if self.sick:
            raise MemoryError("no memory here")
        if (batch.epoch, batch.seq) in self.broken:
            raise ValueError("nobody can do this")
        batch.images[:] = 255 - batch.images
        return batch


@pytest.fixture
def machines(monkeypatch):
    monkeypatch.setattr(exact, "TIMING", FAST)
    with Machines() as stack:
        yield stack


def chain(machines, works, epochs=2, **arguments):
    sink = machines.data(noise(epochs=epochs))
    pipeline, source = machines.trainer(**arguments)
    for work in works:
        machines.worker(sink, source, Map(work))
    return pipeline


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_sick_worker_costs_no_batch_and_is_named(machines, on_error, caplog):
    caplog.set_level(logging.WARNING, "highway.network")
    works = [Work(sick=True), Work(), Work()]
    pipeline = chain(machines, works, epochs=10, on_error=on_error)
    assert_once(told(pipeline.forever()), undisturbed(noise(epochs=10), Map(Work())))
    assert pipeline.errors == []
    assert works[0].tried
    assert sum(len(work.tried) for work in works[1:]) == 10 * len(noise())
    named = [line for line in caplog.messages if "fails at what others can do: 3 times by now" in line]
    assert len(named) == 1 and "worker " in named[0] and "no batches for 10 s" in named[0]
    # Only as many as were on their way.
    assert len(works[0].tried) < 60


def test_benched_workers_are_counted(machines):
    pipeline = chain(machines, [Work(sick=True), Work()], epochs=200)

    def benched():
        pipeline.dequeue(timeout=LIMIT)
        return [machine.benched for machine in pipeline.stats().machines if machine.role == "data"] == [1]

    eventually(benched)


@pytest.mark.parametrize("workers", [1, 3])
def test_error_of_every_worker_arrives_after_the_second(machines, workers):
    works = [Work(broken=[(0, 3)]) for _ in range(workers)]
    pipeline = chain(machines, works)
    with pytest.raises(RemoteError, match="raised ValueError: nobody can do this"):
        list(pipeline.forever())
    tried = [work.tried.count((0, 3)) for work in works]
    assert sum(tried) == 2
    assert workers == 1 or max(tried) == 1


def test_error_of_every_worker_is_skipped_once(machines):
    works = [Work(broken=[(0, 3), (1, 5)]) for _ in range(2)]
    pipeline = chain(machines, works, on_error="skip")
    found = told(pipeline.forever())
    expected = undisturbed(noise(), Map(Work()))
    left = {key: sha for key, sha in expected.items() if key[:2] not in [(0, 3), (1, 5)]}
    assert_once(found, left)
    assert sorted(key for key, _ in pipeline.errors) == [
        "epoch 0, batch 3, stream 0",
        "epoch 1, batch 5, stream 0",
    ]


def test_sick_worker_of_a_remote_pipeline(machines, caplog):
    """There it reads too: a full disk or a lost mount is its own."""
    caplog.set_level(logging.WARNING, "highway.network")
    with Pipeline([noise(epochs=10), Map(Work())], on=(remote := Remote())) as pipeline:
        for sick in (True, False):
            work = Work(sick=sick)
            machines.enter_context(worker_pipeline([noise(epochs=10), Map(work)], *remote.addresses))
        assert_once(told(pipeline.forever()), undisturbed(noise(epochs=10), Map(Work())))
    assert any("fails at what others can do" in line for line in caplog.messages)
