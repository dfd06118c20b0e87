"""Pipelines whose workers are actors of Ray, on a cluster of four nodes on this machine."""

import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from concurrency import LIMIT, eventually
from framework_programs import programs, run
from ray_clusters import kill

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'highway-loader[ray]'")
import ray_driver  # noqa: E402
from ray_pipelines import SIZE, Failing, Paced, Poison, arrays, boxes, make_data, pictures, told  # noqa: E402

from highway.engine import Pipeline  # noqa: E402
from highway.errors import ArgumentError, PipelineStateError, PoisonItemError, RemoteError  # noqa: E402
from highway.ray import Workers, scaling  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def no_actor_is_left():
    yield
    gc.collect()
    eventually(lambda: not workers_on_this_machine())
    # Those of the network end soon after the pipeline.
    eventually(lambda: not [each for each in threading.enumerate() if each.name.startswith("highway ")])


def workers_on_this_machine():
    """Processes of actors of Highway: Ray puts the name of the class into their title."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            title = Path("/proc", entry, "cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::WorkerActor"):
            found.append(int(entry))
    return found


def local(modules, **options):
    with Pipeline(modules, **options) as pipeline:
        return told(pipeline.forever())


def works(workers, count):
    eventually(lambda: len(workers.places) == count)
    return workers.places


# The same batches


@pytest.mark.parametrize("make", [pictures, boxes, arrays])
@pytest.mark.parametrize("ordered", [True, False])
def test_same_batches_as_without_it(nodes, data, make, ordered):
    expected = local(make(data))
    with Pipeline(make(data), ordered=ordered, on=Workers(2)) as pipeline:
        found = told(pipeline.forever())
    if not ordered:
        assert [epoch for epoch, *_ in found] == sorted(epoch for epoch, *_ in found)
        found.sort()
    assert found == expected


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_bad_samples_are_counted_here(nodes, data, on_error):
    def modules():
        return pictures(data, folder="damaged", on_error=on_error)

    with Pipeline(modules()) as pipeline:
        expected, errors = told(pipeline.forever()), pipeline.errors
    assert len(errors) == 1
    with Pipeline(modules(), on=Workers(2)) as pipeline:
        assert told(pipeline.forever()) == expected
        assert pipeline.errors == errors


def test_nothing_goes_through_the_object_store(nodes, data):
    def free():
        return ray.available_resources()["object_store_memory"]

    before = free()
    with Pipeline(arrays(data, epochs=None), on=Workers(2)) as pipeline:
        for _ in islice(pipeline.forever(), 100):
            pass
        assert before - free() < 1e6


def test_the_program_of_the_page(nodes, data, tmp_path):
    (tmp_path / "demo-output").mkdir()
    (tmp_path / "demo-output" / "photos").symlink_to(data / "photos")
    (tmp_path / "on_ray.py").write_text(programs("docs/ray.md")["on_ray.py"])
    printed = run("on_ray.py", folder=tmp_path, RAY_ADDRESS=nodes.address)
    assert printed.count("(16, 224, 224, 3) [") == SIZE // 16


# Exactly once


def test_actors_are_killed_every_second(nodes, data):
    """For 30 s; the training then takes the rest of its epochs."""
    workers = Workers(3)
    epochs = 40
    expected = local([*arrays(data, epochs=epochs)])
    found = []
    chance = random.Random(0)
    over = threading.Event()
    killed = []

    def murders():
        for _ in range(30):
            if over.wait(1):
                return
            if workers.places:
                killed.append(chance.choice(workers.places).process)
                kill(killed[-1])

    thread = threading.Thread(target=murders)
    with Pipeline([*arrays(data, epochs=epochs), Paced(0.1)], on=workers) as pipeline:
        thread.start()
        try:
            found = told(pipeline.forever())
        finally:
            over.set()
            thread.join()
    assert len(killed) > 5
    assert found == expected


def test_a_node_is_lost(nodes, data):
    workers = Workers(3)
    expected = local(arrays(data, epochs=4))
    with Pipeline([*arrays(data, epochs=4), Paced(0.05)], on=workers) as pipeline:
        batches = pipeline.forever()
        found = told([next(batches)])
        used = {place.node for place in works(workers, 3)}
        nodes.remove(next(node for node in nodes.nodes if node.node_id in used))
        found += told(batches)
    nodes.add()
    assert found == expected


def test_all_nodes_are_lost_and_others_come(nodes, data):
    workers = Workers(2, timeout=120)
    expected = local(arrays(data, epochs=4))
    with Pipeline([*arrays(data, epochs=4), Paced(0.05)], on=workers) as pipeline:
        batches = pipeline.forever()
        found = told([next(batches)])
        count = len(nodes.nodes)
        for node in list(nodes.nodes):
            nodes.remove(node)
        nodes.add(count)
        found += told(batches)
    assert found == expected


def test_the_head_is_unreachable(nodes, data):
    expected = local(arrays(data, epochs=4))
    workers = Workers(2)
    with Pipeline([*arrays(data, epochs=4), Paced(0.05)], on=workers) as pipeline:
        batches = pipeline.forever()
        found = told([next(batches)])
        works(workers, 2)
        with nodes.headless():
            found += told(next(batches) for _ in range(SIZE // 4))
        found += told(batches)
    assert found == expected


def test_the_pool_grows_and_shrinks_under_load(nodes, data, monkeypatch):
    monkeypatch.setattr(scaling, "SPAN", 1e9)
    workers = Workers(1, 4)
    expected = local(arrays(data, epochs=12))
    with Pipeline([*arrays(data, epochs=12), Paced(0.05)], on=workers) as pipeline:
        batches = pipeline.forever()
        found = told([next(batches)])
        for count in (4, 2):
            workers._fleet.wanted = count
            works(workers, count)
            found += told(next(batches) for _ in range(SIZE // 4))
        found += told(batches)
    assert found == expected


def test_the_pool_grows_by_itself(nodes, data, monkeypatch, caplog):
    monkeypatch.setattr(scaling, "SPAN", 1.0)
    caplog.set_level("INFO", "highway.ray")
    workers = Workers(1, 4)
    with Pipeline([*arrays(data, epochs=None), Paced(0.05)], on=workers) as pipeline:
        batches = pipeline.forever()
        eventually(lambda: next(batches) and len(workers.places) > 1)
    assert "from 1 to 2 workers: the workers are the bottleneck: the training waited" in caplog.text


def test_a_poisonous_sample_is_named_and_does_not_storm(nodes, data, tmp_path):
    """It kills every worker that gets it; everything before it arrives."""
    note = tmp_path / "deaths"
    modules = arrays(data, epochs=1, shuffle=False)
    expected = local(modules)
    with Pipeline([*modules, Poison(26, str(note))], on=Workers(3)) as pipeline:
        batches = pipeline.forever()
        assert told(islice(batches, 6)) == expected[:6]
        with pytest.raises(PoisonItemError, match="batch 6"):
            next(batches)
    assert len(note.read_text().split()) <= 6


# Errors


def test_workers_of_another_pipeline(nodes, data):
    workers = Workers(1)
    with (
        Pipeline(arrays(data), on=workers),
        pytest.raises(PipelineStateError, match="these workers run another pipeline"),
    ):
        Pipeline(arrays(data), on=workers)
    with Pipeline(arrays(data, epochs=1), on=workers) as pipeline:
        assert len(told(pipeline.forever())) == SIZE // 4


def test_an_error_of_a_worker_is_raised_here(nodes, data):
    with (
        pytest.raises(RemoteError, match="13 is not allowed"),
        Pipeline([*arrays(data), Failing(13)], on=Workers(2)) as pipeline,
    ):
        told(pipeline.forever())


def test_workers_that_cannot_start(nodes, data):
    with (
        pytest.raises(
            RemoteError, match=r"could not start, and none has worked: .*No module named 'only_here'"
        ),
        Pipeline([*arrays(data), only_here()], on=Workers(1)) as pipeline,
    ):
        pipeline.dequeue()


def only_here():
    """A stage of a module that no node has."""
    name = "only_here"
    module = type(sys)(name)
    exec("from highway.engine import Stage\nclass Here(Stage):\n    pass\n", vars(module))
    sys.modules[name] = module
    module.Here.__module__ = name
    return module.Here()


def test_modules_that_cannot_be_sent(nodes, data):
    class Locked(Paced):
        def __init__(self, lock):
            super().__init__(0)
            self.lock = lock

    with pytest.raises(ArgumentError, match=r"modules\[2\], Locked, cannot be sent to another process"):
        Pipeline([*arrays(data), Locked(threading.Lock())], on=Workers(1))


# The end


class Driver:
    """`ray_driver.py` as a process, and what it has printed."""

    def __init__(self, nodes, data, **options):
        self.process = subprocess.Popen(
            [sys.executable, ray_driver.__file__, nodes.address, str(data), json.dumps(options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []

    def read(self, count=None):
        """Read so many lines, or all."""
        while count is None or len(self.lines) < count:
            line = self.process.stdout.readline()
            if not line:
                break
            self.lines.append(json.loads(line))
        return self.lines

    def end(self, number=None):
        """Send a signal, and return the code with which it ends."""
        if number is not None:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, errors


@pytest.fixture
def driver(nodes, data):
    made = []

    def make(**options):
        made.append(Driver(nodes, data, **options))
        return made[-1]

    yield make
    for each in made:
        each.process.kill()
        each.process.communicate()


def listening():
    """Ports at which processes of this machine listen."""
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, address, _, state, *_ = line.split()
            if state == "0A":
                ports.add(int(address.rpartition(":")[2], 16))
    return ports


@pytest.mark.parametrize(
    ("options", "number", "codes"),
    [
        ({"epochs": 1}, None, {0}),
        ({"epochs": 1, "failing": 13}, None, {1}),
        # By the exception, or by the signal.
        ({"epochs": 1000, "pace": 0.02}, signal.SIGINT, {1, -signal.SIGINT}),
        ({"epochs": 1000, "pace": 0.02}, signal.SIGKILL, {-signal.SIGKILL}),
    ],
    ids=["success", "failure", "Ctrl-C", "kill -9"],
)
def test_nothing_is_left_after_the_driver(driver, options, number, codes):
    ports = listening()
    process = driver(**options)
    lines = process.read(4 if number else None)
    if number:
        eventually(lambda: workers_on_this_machine())
    found, errors = process.end(number)
    assert found in codes, errors
    assert lines
    if "failing" in options:
        assert "13 is not allowed" in errors
    eventually(lambda: not workers_on_this_machine())
    eventually(lambda: len(listening() - ports) <= len(ports))


def test_a_killed_training_is_resumed_with_another_world(driver, data):
    process = driver(epochs=1, pace=0.02)
    begun = list(process.read(5))
    process.end(signal.SIGKILL)
    counts = Counter(index for line in begun for index in line["indices"])
    for rank in range(2):
        with Pipeline(arrays(data, epochs=1, batch_size=3, shard=(rank, 2)), on=Workers(1)) as pipeline:
            pipeline.load_state_dict(begun[-1]["state"])
            counts.update(index for batch in pipeline.forever() for index in batch.indices.tolist())
    assert counts == Counter(range(SIZE))
