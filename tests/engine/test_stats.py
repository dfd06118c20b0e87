"""Statistics: what is counted, and which module the verdict names."""

from __future__ import annotations

import copy
import dataclasses
import threading

import numpy as np
import pytest
from concurrency import LIMIT, eventually, pretend_cores
from pictures import class_folders
from small_modules import Call, Collect, Drop, Gate, Numbers, Pass, numbers_of

from highway.engine import Pipeline, stats
from highway.engine import autotune as tuning
from highway.engine.inspection import inspected
from highway.engine.stats import ModuleStats, PipelineStats
from highway.errors import CorruptStoreError
from highway.modules import ImageFileReader, LevelDBSink, LevelDBSource, Noise


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
    assert [each.capacity for each in stats.modules] == [32, 32, 32]
    assert stats.delivered == 10
    assert all(each.busy > 0 for each in stats.modules)


def skips(stats):
    return [(each.skipped_batches, each.skipped_samples, each.replaced_samples) for each in stats.modules]


def test_skipped_batches_and_samples():
    thin = Call(lambda batch: batch.take([0, 3]) if batch.seq % 2 else batch)
    modules = [
        Numbers(20, holes=[3, 7], workers=2),
        Drop(lambda ticket: ticket < 10, workers=3),
        thin,
        Pass(),
    ]
    for ordered in (True, False):
        with Pipeline([copy.deepcopy(module) for module in modules], ordered=ordered) as running:
            assert len(list(running)) == 10
            stats = running.stats()
        # Nobody knows how many samples a batch has that a source like this one skips.
        assert skips(stats) == [(2, 0, 0), (8, 32, 0), (0, 10, 0), (0, 0, 0)]
        assert (stats.skipped_batches, stats.skipped_samples, stats.replaced_samples) == (10, 42, 0)
        assert stats.modules[1].batches == 10
        assert str(stats).splitlines()[5:8] == [
            "Numbers: 0 samples skipped (2 whole batches).",
            "Drop: 32 samples skipped (8 whole batches).",
            "Call: 10 samples skipped.",
        ]
        told = dataclasses.asdict(stats)["modules"]
        assert [each["skipped_samples"] for each in told] == [0, 32, 10, 0]


def test_with_a_sink_too():
    with Pipeline([Numbers(20, holes=[3]), Drop(lambda ticket: ticket < 10), Collect()]) as running:
        running.wait(LIMIT)
        assert skips(running.stats()) == [(1, 0, 0), (9, 36, 0), (0, 0, 0)]


def pictures(path, policy, **options):
    folder = class_folders(path, classes=1, each=12, size=(8, 8))
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    for file in (files[0], *files[4:8]):
        file.write_bytes(b"no picture")
    return ImageFileReader(folder, 4, (8, 8), shuffle=False, on_error=policy, **options)


def records(path, policy, **options):
    with Pipeline([Noise(4, (4, 4), size=12, epochs=1), LevelDBSink(path)]) as pipeline:
        pipeline.wait(LIMIT)
    source = LevelDBSource(path, 4, shuffle=False, on_error=policy, **options)
    read = source._store.read

    def damaged(numbers):
        records = read(numbers)
        bad = [row for row, number in enumerate(numbers.tolist()) if number == 0 or 4 <= number < 8]
        if not bad:
            return records
        good = [row for row in range(len(numbers)) if row not in bad]
        found = read(numbers[good])
        rows = np.array(good, np.int64)[found.rows]
        found.rows = rows
        found.errors |= {row: CorruptStoreError("damaged") for row in bad}
        return found

    source._store.read = damaged
    return source


@pytest.mark.parametrize("make", [pictures, records])
@pytest.mark.parametrize("workers", [1, 3])
def test_bad_samples_of_a_reader_count_in_every_epoch(make, workers, tmp_path):
    with Pipeline([make(tmp_path / "a", "skip", epochs=3, workers=workers)]) as running:
        batches = list(running.forever())
        assert sum(batch.size for batch in batches) == 3 * 7
        assert skips(running.stats()) == [(3, 15, 0)]
        assert len(running.errors) == 5
        assert running.stats().modules[0].skips.endswith(": 15 samples skipped (3 whole batches).")
    with Pipeline([make(tmp_path / "b", "replace", epochs=3, workers=workers), Pass()]) as running:
        assert sum(batch.size for batch in running.forever()) == 3 * 12
        assert skips(running.stats()) == [(0, 0, 15), (0, 0, 0)]
        assert running.stats().modules[0].skips.endswith(": 15 samples replaced.")


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_skips_begin_anew_with_a_state(policy, tmp_path):
    with Pipeline([pictures(tmp_path / "a", policy, epochs=2, workers=1)]) as running:
        running.start()
        eventually(lambda: any(map(any, skips(running.stats()))))
        state = running.state_dict()
        everything = len(list(running.forever())), skips(running.stats())
    with Pipeline([pictures(tmp_path / "b", policy, epochs=2, workers=1)]) as running:
        running.start()
        eventually(lambda: any(map(any, skips(running.stats()))))
        running.load_state_dict(state)
        assert (len(list(running.forever())), skips(running.stats())) == everything


def test_nothing_is_said_of_nothing():
    with Pipeline([Numbers(20), Pass()]) as running:
        list(running)
        assert skips(running.stats()) == [(0, 0, 0)] * 2
        assert "skipped" not in str(running.stats())
    assert dataclasses.replace(module("A"), skipped_batches=1, skipped_samples=1).skips == (
        "A: 1 sample skipped (1 whole batch)."
    )
    assert dataclasses.replace(module("A"), skipped_samples=2, replaced_samples=1).skips == (
        "A: 2 samples skipped, 1 sample replaced."
    )


def test_time_at_work_and_waiting_is_told_apart():
    gate = Gate()
    with Pipeline([Numbers(50, workers=1), gate, Pass()]) as running:
        running.start()
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
    assert "Its tasks come slowly" in stats.verdict


def test_time_ends_with_the_data_and_with_the_stop():
    with Pipeline([Numbers(3)]) as running:
        list(running)
        assert running.stats() == running.stats()
    assert running.stats() == running.stats()
    with Pipeline([Numbers(10_000), Pass()]) as running:
        running.start()
        eventually(lambda: inspected(running).queue.measures()["reserving"])
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
        running.start()
        inspected(running).tuning.due = float("inf")
        assert gate.entered.wait(LIMIT)
        alone = running.stats().modules[1]
        assert alone.worker_seconds == pytest.approx(alone.seconds)
        before = 0.0
        for workers in (8, 1):
            inspected(running).tuning.give([1, workers])
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
        stats.verdict
        == "Augment is the bottleneck: its worker was busy 95% of the time. More workers help: workers=2."
    )


def test_advice_does_not_go_beyond_the_cores():
    stats = pipeline(module("Reader", "source", 3, busy=27.0))
    assert stats.verdict.endswith("More workers help: workers=4.")
    stats = pipeline(module("Reader", "source", 4, busy=28.0))
    assert stats.verdict.endswith("It has a worker for each of the 4 cores: make Reader cheaper.")


def test_cores_that_are_all_in_use_are_named():
    stats = pipeline(module("Reader", "source", 3, busy=29.0), module("Augment", busy=9.0))
    assert stats.limiter == "Reader"
    assert (
        "All 4 cores are busy: make Reader cheaper or add cores. If it waits more than it computes, "
        in stats.verdict
    )
    stats = pipeline(module("Reader", "source", 1, busy=9.9), cores=1)
    assert "The only core is busy: make Reader cheaper" in stats.verdict


def test_verdict_and_tuner_agree_on_when_the_cores_are_full():
    for name in ("CORES_FULL", "CONSUMER_LIMITS", "HARDLY_BUSY"):
        assert vars(stats)[name] is vars(tuning)[name]
    for busy, full in ((tuning.CORES_FULL - 0.01, False), (tuning.CORES_FULL + 0.01, True)):
        found = pipeline(module("Reader", "source", 3, busy=busy * 40))
        assert ("All 4 cores are busy" in found.verdict) == full


def test_verdict_on_a_module_that_is_tuned():
    limiting = module("Augment", busy=9.5, tuned=True)
    reader = module("Reader", "source", 2, busy=6.0, tuned=True)
    assert pipeline(reader, limiting, settled=False).verdict == (
        "Augment is the bottleneck: its worker was busy 95% of the time. "
        "Tuning still looks for the best number of workers."
    )
    assert pipeline(reader, limiting).verdict == (
        "Augment is the bottleneck: its worker was busy 95% of the time. "
        "More workers did not help, or max_bytes has no room for them: make Augment cheaper."
    )
    everywhere = module("Augment", workers=4, busy=28.0, tuned=True)
    assert "a worker for each of the 4 cores" in pipeline(everywhere).verdict
    # A number that the user gave is the user's to change, also beside tuned ones.
    assert "More workers help: workers=2." in pipeline(reader, module("Augment", busy=9.5)).verdict


def test_consumer_limits_where_it_hardly_waits():
    stats = pipeline(module("Reader", "source", busy=9.0), consumer_waited=0.3)
    assert stats.limiter == "consumer"
    assert stats.verdict == (
        "The consumer is the bottleneck: the pipeline is fast enough; fewer workers suffice."
    )


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
    assert stats.verdict == "No batch was delivered yet."


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
        "Send is the bottleneck: its worker was busy 95% of the time. More workers help: workers=2.",
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
