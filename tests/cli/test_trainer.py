"""`highway bench --step-ms`: a simulated trainer, and the smallest number of cores that feeds it."""

import os
import re

import pytest
from clocks import Clock, Slow
from commands import run
from pictures import class_folders
from small_modules import Call, Numbers

from highway.cli import trainer
from highway.cli.trainer import Feeding, fewest, report
from highway.engine import Pipeline
from highway.engine.stats import ModuleStats, PipelineStats
from highway.engine.waits import WaitStats


def feeding(cores, wait, needed=1.0, consumer_waited=5.0):
    source = ModuleStats("Reader", "source", 1, 100, 1600, 10, 9.5, 0.0, 0.0, 1.0, 4, 10.0)
    waits = WaitStats(None, 100, 1600, 10 * wait, 10.0, 0.0, 10.0, (0, 100))
    stats = PipelineStats((source,), 10.0, 100, consumer_waited, cores, waits=waits)
    return Feeding(cores, stats, needed, [])


def plan(monkeypatch, cores, enough, needed=None):
    """Pretend that so many cores are there and so many feed the trainer; returns which are measured, in order."""
    monkeypatch.setattr(trainer, "usable_cores", lambda: cores)
    monkeypatch.setattr(
        trainer,
        "measure",
        lambda modules, count, *_: feeding(count, 0.0 if count >= enough else 0.5, needed or enough),
    )
    seen = []
    found = trainer.feedings([], 0.037, 1.0, seen.append)
    assert found == seen
    best = fewest(found)
    return [each.cores for each in found], best and best.cores


def test_smallest_number_of_cores_is_found_whatever_the_estimate(monkeypatch):
    for cores in (1, 2, 3, 8, 64):
        for enough in range(1, cores + 1):
            for needed in (0.1, enough - 0.5, enough, enough + 3, 1000):
                measured, best = plan(monkeypatch, cores, enough, needed)
                assert best == enough
                assert len(set(measured)) == len(measured) <= 14


def test_right_estimate_takes_three_measurements(monkeypatch):
    assert plan(monkeypatch, 64, 20) == ([64, 20, 19], 20)
    assert plan(monkeypatch, 8, 1) == ([8, 1], 1)


def test_cores_that_do_not_feed_the_trainer_are_measured_once(monkeypatch):
    assert plan(monkeypatch, 8, 11) == ([8], None)


def test_without_binding_only_all_cores_are_measured(monkeypatch):
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    assert plan(monkeypatch, 8, 2) == ([8], 8)
    assert "fewer were not measured" in report([feeding(8, 0.0)], 0.037)


def test_report():
    found = [feeding(8, 0.001), feeding(2, 0.003), feeding(1, 0.4)]
    assert report(found, 0.037) == "A trainer with steps of 37 ms is fed by 2 of 8 cores; exposed wait 0.3%."
    assert str(found[1]).startswith("exposed wait 0.3%; waits: p50 0.00 ms, p99 0.00 ms; 160 images/s")
    assert report([feeding(1, 0.01)], 0.0005).startswith(
        "A trainer with steps of 0.5 ms is fed by 1 of 1 core;"
    )


def test_report_says_why_the_trainer_is_not_fed():
    begin = "A trainer with steps of 37 ms is not fed by 4 cores; exposed wait 20.0%: a batch arrives every 100.0 ms. "
    assert report([feeding(4, 0.2, needed=5.1)], 0.037) == (
        begin + "By the processor time of its batches, it needs about 6 cores."
    )
    assert report([feeding(4, 0.2, needed=2)], 0.037).startswith(begin + "Reader is the bottleneck")
    assert report([feeding(4, 0.2, needed=2, consumer_waited=0.0)], 0.037).startswith(begin + "On average")


@pytest.fixture
def clock(monkeypatch):
    """The clock of the trainer and of its pipelines."""
    return Clock().run_pipelines(monkeypatch)


def trained(clock, pipeline, step, seconds=None):
    return trainer.train(pipeline, 1, step, seconds, now=clock, sleep=clock.advance)


def test_measures_what_the_trainer_waits_for(clock):
    """Loading takes 20 ms after the trainer asks for a batch, the step 5 ms."""
    slow = Slow(clock, 0.02)
    with Pipeline([Numbers(60, workers=1), slow]) as pipeline:
        slow.follow_consumer(pipeline)
        result = trained(clock, pipeline, 0.005)
    assert result.exposed_wait == pytest.approx(0.02 / 0.025)
    assert not result.fed
    with Pipeline([Numbers(60, workers=1)]) as pipeline:
        fast = trained(clock, pipeline, 0.005)
    assert fast.exposed_wait == 0
    assert fast.fed
    # The first batch is the warm-up.
    assert fast.stats.delivered == 59


def test_a_single_batch_is_measured_without_a_warm_up():
    assert trainer.measure([Numbers(1, workers=1)], 1, 1e-3, None).stats.delivered == 1


def test_ends_after_the_time(clock):
    with Pipeline([Numbers(epochs=None, workers=1)]) as pipeline:
        result = trained(clock, pipeline, 0.25, 5.0)
    # The warm-up takes another second.
    assert clock() == 106.0
    assert result.stats.delivered == 20


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system cannot bind threads to cores")
def test_threads_are_bound_for_the_time_of_a_measurement():
    before, seen = os.sched_getaffinity(0), set()

    def look(batch):
        seen.add(len(os.sched_getaffinity(0)))
        return batch

    trainer.measure([Numbers(3), Call(look)], 1, 0.001, None)
    assert seen == {1}
    assert os.sched_getaffinity(0) == before
    trainer.measure([Numbers(3), Call(look)], len(before), 0.001, None)
    assert seen == {1, len(before)}


def test_bench_says_how_many_cores_feed_a_trainer(tmp_path, capsys):
    photos = class_folders(tmp_path / "photos", classes=2, each=6)
    (photos / "class1" / "bad.jpg").write_bytes(b"no picture")
    code, output, errors = run(
        capsys,
        *("bench", photos, "--step-ms", 1, "--epochs", 4, "--size", 16, "--batch-size", 4),
        *("--on-error", "skip"),
    )
    assert code == 0
    line = r"^\d+ cores? +exposed wait \d+\.\d%; waits: p50 [\d.]+ m?s, p99 [\d.]+ m?s; [\d,]+ images/s$"
    assert re.search(line, output, re.MULTILINE)
    assert re.search(r"^A trainer with steps of 1 ms is (?:not )?fed by \d", output.splitlines()[-1])
    assert errors.startswith("13 files, of which 1 could not be read; skipped:\n")
    assert "bad.jpg" in errors


def test_at_most_one_percent_is_fed():
    assert feeding(2, 0.01).fed
    assert not feeding(2, 0.0101).fed
