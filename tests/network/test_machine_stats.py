"""What the training machine tells of the other machines, and which of them it says is slow."""

import numpy as np
import pytest
from concurrency import LIMIT, eventually
from pictures import class_folders
from small_modules import Call

from highway.engine import Pipeline, Stage
from highway.engine.stats import MachineStats, ModuleStats, PipelineStats
from highway.modules import ImageFileReader, Noise, ZMQSink, ZMQSource
from highway.network.reports import machines_of

REPORT = {
    "name": "host:1", "role": "worker", "batches": 7, "rate": 2.5, "wire": 3e6, "cpu": 0.5, "queue": 3, "room": 18,
    "busy": 0.9, "limiter": "Slow", "duplicates": 1, "resent": 2, "deaths": 3,
    "skipped": 4, "replaced": 5,
}  # fmt: skip


def source(waited=9.0, busy=0.1):
    return ModuleStats("ZMQSource", "source", 1, 10, 160, 10**6, busy, waited, 0.0, 0.5, 4, 10.0)


def stats(*machines, waited=9.0):
    return PipelineStats((source(),), 10.0, 10, waited, 2, machines=machines)


def test_newest_report_of_every_machine_counts_and_data_machines_come_first():
    older = {**REPORT, "batches": 1}
    data = {**REPORT, "name": "host:2", "role": "data"}
    found = machines_of([(5.0, older), (0.5, REPORT), (0.5, data)])
    assert [(machine.name, machine.batches, machine.age) for machine in found] == [
        ("host:2", 7, 0.5),
        ("host:1", 7, 0.5),
    ]


@pytest.mark.parametrize("report", [{}, {"name": "x"}, {"name": 5, "role": "worker"}, {"role": "worker"}])
def test_what_names_no_machine_is_left_out(report):
    assert machines_of([(0.0, report)]) == ()


def test_what_is_no_figure_is_left_out():
    (machine,) = machines_of([(0.0, {**REPORT, "cpu": "much", "batches": True, "unknown": 1, "age": -5.0})])
    assert (machine.cpu, machine.batches, machine.age, machine.rate) == (0.0, 0, 0.0, 2.5)


def test_busiest_machine_limits():
    worker = MachineStats("a:1", "worker", rate=5.0, busy=0.97, limiter="Augmentations")
    data = MachineStats("b:2", "data", busy=0.6, limiter="ImageFileReader")
    found = stats(data, worker)
    assert found.slowest_machine is worker
    assert found.verdict == (
        "The worker a:1 is the bottleneck: its Augmentations was busy 97% of the time. Start another worker, on any "
        "machine."
    )
    found = stats(MachineStats("b:2", "data", busy=0.99, limiter="ImageFileReader"), worker)
    assert found.verdict.startswith("The data machine b:2 is the bottleneck: its ImageFileReader")
    assert "stream=" in found.verdict


def test_nobody_limits_where_nobody_is_busy():
    found = stats(MachineStats("a:1", "worker", rate=5.0, busy=0.3, limiter="Augmentations"))
    assert found.slowest_machine is None
    assert "the network" in found.verdict


def test_nothing_is_said_before_there_are_figures():
    found = stats(MachineStats("a:1", "worker", busy=0.9, limiter="Augmentations"))
    assert "Too early" in found.verdict


def test_slow_consumer_limits_whatever_the_machines_do():
    found = stats(MachineStats("a:1", "worker", busy=0.97, limiter="Augmentations"), waited=0.1)
    assert found.verdict.startswith("The consumer is the bottleneck")


def test_table_has_a_line_for_every_machine():
    (machine,) = machines_of([(0.0, REPORT)])
    header, line = stats(machine).machine_table.splitlines()
    assert (
        " ".join(header.split())
        == "machine role batches/s MB/s cores queue busiest busy twice again lost skipped replaced"
    )
    assert " ".join(line.split()) == "host:1 worker 2.5 3.0 0.50 3/18 Slow 90% 1 2 3 4 5"
    assert line in str(stats(machine))
    assert stats().machine_table == ""


class Slow(Stage):
    """Keeps a processor busy for each batch."""

    def process(self, batch):
        numbers = np.ones(200_000)
        for _ in range(20):
            numbers = np.sqrt(numbers + 1)
        return batch


def test_whole_chain_is_shown(tmp_path):
    data, work = f"ipc://{tmp_path}/data", f"ipc://{tmp_path}/work"
    with (
        Pipeline([Noise(4, (8, 8)), ZMQSink(data)]),
        Pipeline([ZMQSource(data), Slow(), ZMQSink(work, bind=False)]),
        Pipeline([ZMQSource(work, bind=True)]) as trainer,
    ):

        def complete():
            trainer.dequeue(timeout=LIMIT)
            found = trainer.stats().machines
            return len(found) == 2 and all(machine.rate > 0 for machine in found)

        eventually(complete)
        data_machine, worker = trainer.stats().machines
        assert (data_machine.role, worker.role) == ("data", "worker")
        assert worker.limiter == "Slow"
        assert data_machine.limiter == "Noise"
        assert worker.busy > data_machine.busy
        assert worker.wire > 0 and worker.cpu > 0 and worker.batches > 0
        assert 0 <= worker.queue <= worker.room == 2 * 8 + Slow().most_workers()
        assert (worker.skipped, worker.replaced) == (0, 0)


def test_what_other_machines_skip_is_told(tmp_path):
    folder = class_folders(tmp_path / "pictures", classes=1, each=8, size=(8, 8))
    next(file for file in sorted(folder.rglob("*")) if file.is_file()).write_bytes(b"no picture")
    data, work = f"ipc://{tmp_path}/data", f"ipc://{tmp_path}/work"
    reader = ImageFileReader(folder, 4, (8, 8), on_error="skip")
    some = Call(lambda batch: batch.take(range(batch.size - 1)))
    with (
        Pipeline([reader, ZMQSink(data)]),
        Pipeline([ZMQSource(data), some, ZMQSink(work, bind=False)]),
        Pipeline([ZMQSource(work, bind=True)]) as trainer,
    ):

        def complete():
            trainer.dequeue(timeout=20)
            found = trainer.stats().machines
            return len(found) == 2 and all(machine.skipped > 0 for machine in found)

        eventually(complete)
