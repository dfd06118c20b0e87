"""Statistics: what is counted, and which module the verdict names."""

from __future__ import annotations

import threading

import pytest
from concurrency import LIMIT, eventually, pretend_cores
from workbench import Collect, Drop, Gate, Numbers, Pass, numbers_of

from highway.engine import Pipeline
from highway.stats import ModuleStats, PipelineStats


def module(
    name, kind="stage", workers=1, busy=0.0, waited_input=0.0, waited_room=0.0, seconds=10.0, **tuning
):
    return ModuleStats(
        name=name,
        kind=kind,
        workers=workers,
        batches=100,
        samples=1600,
        nbytes=5_000_000,
        busy=busy,
        waited_input=waited_input,
        waited_room=waited_room,
        occupancy=1.5,
        capacity=0 if kind == "sink" else 4,
        seconds=seconds,
        **tuning,
    )


def pipeline(*modules, consumer_waited=5.0, delivered=100, cores=4, **tuning):
    return PipelineStats(modules, 10.0, delivered, consumer_waited, cores, **tuning)


# What a pipeline counts


def test_counts_of_modules():
    modules = [Numbers(20, holes=[3], workers=2), Drop(lambda ticket: ticket < 10, workers=3), Pass()]
    with Pipeline(modules) as running:
        assert len(numbers_of(running)) == 10
        stats = running.stats()
    assert [each.name for each in stats.modules] == ["Numbers", "Drop", "Pass"]
    assert [each.kind for each in stats.modules] == ["source", "stage", "stage"]
    assert [each.workers for each in stats.modules] == [2, 3, 1]
    assert [each.batches for each in stats.modules] == [19, 10, 10]
    assert [each.samples for each in stats.modules] == [76, 40, 40]
    assert [each.nbytes for each in stats.modules] == [19 * 32, 320, 320]
    assert [each.capacity for each in stats.modules] == [4, 6, 4]
    assert stats.delivered == 10
    assert all(each.busy > 0 for each in stats.modules)


def test_time_at_work_and_waiting_is_told_apart():
    gate = Gate()
    with Pipeline([Numbers(50, workers=1), gate, Pass()]) as running:
        assert gate.entered.wait(LIMIT)
        # The gate is shut: who stands in front waits for room, who stands behind waits for batches.
        begun = running.stats().modules[0].waited_room
        eventually(lambda: running.stats().modules[0].waited_room > begun + 0.02)
        eventually(lambda: running.stats().modules[2].waited_input > 0.02)
        gate.gate.set()
        running.dequeue(timeout=LIMIT)
        source, gated, behind = running.stats().modules
        assert gated.busy > 0.02
        assert behind.waited_input > 0.02
        assert source.occupancy > 0
        eventually(lambda: running.stats().modules[2].waited_room > 0.01)


def test_source_counts_waiting_for_its_tasks():
    class Slow(Numbers):
        def tasks(self):
            threading.Event().wait(0.03)
            yield from super().tasks()

    with Pipeline([Slow(3, workers=1)]) as running:
        list(running)
        stats = running.stats()
    assert stats.modules[0].waited_input >= 0.03
    assert stats.limiter == "Slow"
    assert "What gives out its tasks is slow" in stats.verdict


def test_time_ends_with_the_data_and_with_the_stop():
    with Pipeline([Numbers(3)]) as running:
        list(running)
        assert running.stats() == running.stats()
    assert running.stats() == running.stats()
    with Pipeline([Numbers(10_000), Pass()]) as running:
        eventually(lambda: running._last.measures()["reserving"])
        assert running.stats().seconds < running.stats().seconds
    assert running.stats() == running.stats()


def test_sink_is_the_consumer():
    sink = Collect()
    with Pipeline([Numbers(5), sink]) as running:
        running.wait(LIMIT)
        stats = running.stats()
    assert stats.consumer_waited is None
    assert stats.delivered == 5
    assert (stats.modules[1].kind, stats.modules[1].batches, stats.modules[1].capacity) == ("sink", 5, 0)


def test_consumer_that_does_not_ask_limits():
    with Pipeline([Numbers(1000, workers=1)]) as running:
        running.dequeue()
        eventually(lambda: running.stats().limiter == "consumer")


def test_time_of_workers_that_come_and_go(monkeypatch):
    """Shares are of the time that workers were there, not of what the last number of them would have had."""
    pretend_cores(monkeypatch, 8)
    gate = Gate()
    with Pipeline([Numbers(50, workers=1), gate]) as running:
        running._tuning.due = float("inf")
        assert gate.entered.wait(LIMIT)
        alone = running.stats().modules[1]
        assert alone.worker_seconds == pytest.approx(alone.seconds)
        before = 0.0
        for workers in (8, 1):
            running._tuning.give([1, workers])
            begun = running.stats()
            eventually(lambda begun=begun: running.stats().seconds > begun.seconds + 0.02)
            end = running.stats()
            passed = end.modules[1].worker_seconds - begun.modules[1].worker_seconds
            assert passed == pytest.approx(workers * (end.seconds - begun.seconds))
            assert begun.modules[1].worker_seconds > before
            before = end.modules[1].worker_seconds
        gate.gate.set()
        list(running)
        assert running.stats() == running.stats()
        assert running.stats().modules[0].worker_seconds == pytest.approx(running.stats().seconds)


# What the verdict says


def test_shares():
    reader = module("Reader", "source", workers=4, busy=20.0, waited_input=4.0)
    assert reader.busy_share == 0.5
    assert reader.engaged == pytest.approx(0.6)
    assert module("Stage", busy=4.0, waited_input=6.0).engaged == 0.4
    assert module("Stage", busy=40.0).busy_share == 1.0
    assert module("Stage", busy=1.0, seconds=0.0).busy_share == 0.0


def test_busiest_module_limits_and_more_workers_help():
    stats = pipeline(module("Reader", "source", 2, busy=6.0), module("Augment", busy=9.5))
    assert stats.limiter == "Augment"
    assert (
        stats.verdict == "Augment limits: its worker was busy 95% of the time. More workers help: workers=2."
    )


def test_advice_does_not_go_beyond_the_cores():
    stats = pipeline(module("Reader", "source", 3, busy=27.0))
    assert stats.verdict.endswith("More workers help: workers=4.")
    stats = pipeline(module("Reader", "source", 4, busy=28.0))
    assert stats.verdict.endswith("It has a worker for each of the 4 cores: only a cheaper Reader helps.")


def test_cores_that_are_all_in_use_are_named():
    stats = pipeline(module("Reader", "source", 3, busy=29.0), module("Augment", busy=9.0))
    assert stats.limiter == "Reader"
    assert (
        "As many are busy as there are cores, 4: only a cheaper Reader, or more cores, help; "
        in stats.verdict
    )


def test_verdict_on_a_module_that_is_tuned():
    limiting = module("Augment", busy=9.5, tuned=True)
    reader = module("Reader", "source", 2, busy=6.0, tuned=True)
    assert pipeline(reader, limiting, settled=False).verdict == (
        "Augment limits: its worker was busy 95% of the time. "
        "How many workers it deserves is still being found out."
    )
    assert pipeline(reader, limiting).verdict == (
        "Augment limits: its worker was busy 95% of the time. "
        "More of them did not help, or have no room in max_bytes: only a cheaper Augment helps."
    )
    everywhere = module("Augment", workers=4, busy=28.0, tuned=True)
    assert "a worker for each of the 4 cores" in pipeline(everywhere).verdict
    # A number that the user gave is the user's to change, also beside tuned ones.
    assert "More workers help: workers=2." in pipeline(reader, module("Augment", busy=9.5)).verdict


def test_consumer_limits_where_it_hardly_waits():
    stats = pipeline(module("Reader", "source", busy=9.0), consumer_waited=0.3)
    assert stats.limiter == "consumer"
    assert "waited for batches 3% of the time" in stats.verdict


def test_source_that_waits_for_tasks_is_not_sent_more_workers():
    stats = pipeline(module("Receiver", "source", 2, busy=1.0, waited_input=18.0))
    assert stats.limiter == "Receiver"
    assert "waited for tasks 90% of the time" in stats.verdict
    assert "workers=" not in stats.verdict


def test_nothing_stands_out():
    stats = pipeline(module("Reader", "source", 2, busy=3.0), module("Augment", busy=2.0))
    assert stats.limiter is None
    assert "queue_size" in stats.verdict
    assert "max_bytes" in stats.verdict


def test_no_verdict_before_anything_came_out():
    stats = pipeline(module("Reader", "source", busy=9.0), delivered=0)
    assert stats.limiter is None
    assert stats.verdict == "Nothing was handed out yet."


def test_sink_can_limit():
    stats = pipeline(
        module("Reader", "source", busy=2.0), module("Send", "sink", busy=9.0), consumer_waited=None
    )
    assert stats.limiter == "Send"


def test_table():
    stats = pipeline(
        module("Reader", "source", 2, busy=6.0, waited_room=4.0),
        module("Send", "sink", busy=9.5, waited_input=0.5),
    )
    assert str(stats).splitlines() == [
        "module  workers  batches  samples   MB  busy  no input  no room  queue",
        "Reader        2      100     1600  5.0   30%        0%      20%  1.5/4",
        "Send          1      100     1600  5.0   95%        5%       0%      -",
        "100 batches in 10.0 s, 160 samples/s",
        "Send limits: its worker was busy 95% of the time. More workers help: workers=2.",
    ]


def test_table_of_tuned_modules():
    stats = pipeline(
        module("Reader", "source", 2, busy=6.0, waited_room=4.0),
        module("Augment", workers=3, busy=9.5, waited_input=1.0, tuned=True, worker_seconds=12.5),
        tuning="Tuning: Augment 2 -> 3 (+40%); settled.",
    )
    assert str(stats).splitlines() == [
        "module    workers  batches  samples   MB  busy  no input  no room  queue",
        "Reader          2      100     1600  5.0   30%        0%      20%  1.5/4",
        "Augment  3 (auto)      100     1600  5.0   76%        8%       0%  1.5/4",
        "100 batches in 10.0 s, 160 samples/s",
        "Tuning: Augment 2 -> 3 (+40%); settled.",
        stats.verdict,
    ]
