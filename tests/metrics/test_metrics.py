"""Health, readiness and metrics of a pipeline over HTTP."""

import sys
import urllib.error
import urllib.request
from importlib.util import find_spec

import pytest
from concurrency import LIMIT, eventually
from machines import Machines, noise
from rank_pools import Ranks, arrays, told
from small_modules import Call

from highway import metrics
from highway.engine import Pipeline
from highway.errors import AddressError, AddressInUseError, ArgumentError, MissingPackageError
from highway.metrics.state import role
from highway.modules import ZMQSink

ANY = "tcp://127.0.0.1:*"

needs_client = pytest.mark.skipif(
    find_spec("prometheus_client") is None, reason="the extra metrics is not installed"
)


@pytest.fixture
def machines():
    with Machines() as stack:
        yield stack


def get(server, path):
    try:
        with urllib.request.urlopen(f"{server.address}{path}", timeout=LIMIT) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(server):
    from prometheus_client.parser import text_string_to_metric_families

    status, text = get(server, "/metrics")
    assert status == 200
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@needs_client
def test_every_role_counts_what_it_does(machines):
    sink = ZMQSink(ANY)
    data = machines.add(noise(), sink)
    trainer, source = machines.trainer()
    worker = machines.worker(sink, source)
    with (
        metrics.serve(data, 0) as of_data,
        metrics.serve(worker, 0) as of_worker,
        metrics.serve(trainer, 0) as of_trainer,
    ):
        taken = [trainer.dequeue(timeout=LIMIT) for _ in range(5)]
        found = {
            name: samples(server)
            for name, server in (("data", of_data), ("worker", of_worker), ("trainer", of_trainer))
        }
        assert get(of_worker, "/readyz") == (200, "ok\n")
        for name, figures in found.items():
            labels = ("role", name)
            assert figures["highway_up", labels] == figures["highway_ready", labels] == 1
            assert figures["highway_lost_peers_total", labels] == 0
        assert found["worker"]["highway_peers", ("direction", "upstream"), ("role", "worker")] == 1
        assert found["worker"]["highway_peers", ("direction", "downstream"), ("role", "worker")] == 1
        assert ("highway_peers", ("direction", "upstream"), ("role", "data")) not in found["data"]
        augmented = [
            value
            for (metric, *labels), value in found["worker"].items()
            if metric == "highway_module_batches_total" and ("kind", "stage") in labels
        ]
        assert len(augmented) == 1 and augmented[0] >= len(taken)
        assert found["trainer"]["highway_exposed_wait_seconds_total", ("role", "trainer")] > 0
        name = "highway_machine_busy_ratio"
        eventually(
            lambda: any(key[0] == name and ("machine_role", "worker") in key for key in samples(of_trainer))
        )
        data.stop()
        eventually(lambda: get(of_worker, "/readyz") == (503, "no machine is connected upstream\n"))


@needs_client
def test_a_pool_is_one_worker():
    """What it counts is of all of its ranks, also of those that have ended."""
    with Ranks(arrays) as ranks:
        pool = ranks.pool(lasting=True)
        with metrics.serve(pool.pipeline, 0) as server:
            of = ("role", "worker")
            eventually(lambda: samples(server)["highway_peers", ("direction", "downstream"), of] == 2)
            assert get(server, "/readyz") == (200, "ok\n")
            count = sum(len(told(pipeline.forever())) for pipeline in ranks.pipelines)
            assert samples(server)["highway_link_batches_total", of] >= count
            ranks.pipelines[0].stop()
            eventually(lambda: len(pool.ranks) == 1)
            assert samples(server)["highway_link_batches_total", of] >= count
            ranks.stop()
            eventually(lambda: get(server, "/readyz")[0] == 503)


@needs_client
def test_a_training_with_workers_elsewhere_is_ready_once_one_is_there():
    with Ranks(arrays, world=1) as ranks, metrics.serve(ranks.pipelines[0], 0) as server:
        assert role(ranks.pipelines[0]) == "trainer"
        assert get(server, "/readyz") == (503, "no machine is connected upstream\n")
        ranks.pool(lasting=True)
        eventually(lambda: get(server, "/readyz") == (200, "ok\n"))
        assert samples(server)["highway_peers", ("direction", "upstream"), ("role", "trainer")] == 1
        count = len(told(ranks.pipelines[0].forever()))
        eventually(lambda: samples(server)["highway_link_batches_total", ("role", "trainer")] >= count)


@needs_client
def test_pipeline_that_failed_is_not_healthy():
    def fail(batch):
        raise ValueError("no such\nthing")

    with Pipeline([noise(), Call(fail)]) as pipeline, metrics.serve(pipeline, 0) as server:
        assert role(pipeline) == "local"
        assert get(server, "/healthz") == (200, "ok\n")
        with pytest.raises(ValueError):
            pipeline.dequeue(timeout=LIMIT)
        status, text = get(server, "/healthz")
        assert (status, text.startswith("ValueError: no such thing")) == (503, True)
        assert samples(server)["highway_up", ("role", "local")] == 0
        assert get(server, "/")[0] == 404


@needs_client
def test_addresses_that_cannot_be_used():
    with Pipeline([noise()]) as pipeline:
        server = metrics.serve(pipeline, 0)
        with pytest.raises(AddressInUseError, match=f"127.0.0.1:{server.port} is in use"):
            metrics.serve(pipeline, server.port)
        server.close()
        server.close()
        with pytest.raises(AddressError, match=r"203\.0\.113\.1:0 cannot be used"):
            metrics.serve(pipeline, 0, host="203.0.113.1")
        with pytest.raises(ArgumentError):
            metrics.serve(pipeline, -1)
    with pytest.raises(ArgumentError, match="expected a Pipeline"):
        metrics.serve(5, 0)


def test_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    extra = r"pip install highway-loader\[metrics\]"
    with Pipeline([noise()]) as pipeline, pytest.raises(MissingPackageError, match=extra):
        metrics.serve(pipeline, 0)
