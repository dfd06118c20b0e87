"""Exposed wait: what `stats()` says of the time that the training waits for batches."""

import copy
import json
import math
import pickle
import re
import statistics
import threading
import time
import tracemalloc

import numpy as np
import pytest
from clocks import Clock, Slow, notice_waits
from concurrency import LIMIT, Task
from hypothesis import given
from hypothesis import strategies as st
from pictures import class_folders
from small_modules import Collect, Gate, Numbers, NumbersWithEpochs, Pass, SizedNumbers

from highway.batch import Batch
from highway.engine import Pipeline
from highway.engine.stats import MachineStats, PipelineStats, WaitStats
from highway.engine.waits import KEPT_EPOCHS, Waits
from highway.errors import ArgumentError, WaitTimeout
from highway.modules import ImageFileReader


def batch(epoch=0, size=2):
    return Batch({"x": np.zeros(size)}, epoch=epoch)


def waits_of(*pairs, epoch=0):
    """Waits of one consumer: (wait, own time before it) of each batch."""
    waits, now = Waits(), 100.0
    for wait, own in pairs:
        waits.took(batch(epoch), now + own, now + own + wait)
        now += own + wait
    return waits


# What is measured


def test_share_of_the_time_between_two_batches():
    total, (epoch,) = waits_of((0.5, 7.0), (0.1, 0.9), (0.4, 0.6)).stats()
    # The time before the first batch belongs to no batch.
    assert total.seconds == pytest.approx(2.5)
    assert total.waited == pytest.approx(1.0)
    assert total.share == pytest.approx(0.4)
    assert (total.batches, total.samples) == (3, 6)
    assert total.samples_per_second == pytest.approx(6 / 2.5)
    assert (total.epoch, epoch.epoch) == (None, 0)
    assert epoch.share == total.share


def test_blocked_time_without_a_batch_belongs_to_the_next():
    waits = Waits()
    waits.blocked(0.25)
    waits.took(batch(), 10.0, 10.5)
    assert waits.stats()[0].waited == pytest.approx(0.75)
    assert waits.stats()[0].seconds == pytest.approx(0.75)
    waits.blocked(0.25)
    waits.took(batch(), 11.0, 11.5)
    assert waits.stats()[0].waited == pytest.approx(1.5)
    assert waits.stats()[0].seconds == pytest.approx(1.75)


def test_every_thread_has_its_own_time_between_batches():
    waits = waits_of((0.5, 0.0), (0.5, 0.5))
    thread = threading.Thread(target=lambda: waits.took(batch(), 101.0, 102.0))
    thread.start()
    thread.join(LIMIT)
    total, _ = waits.stats()
    assert (total.batches, total.waited, total.seconds) == (3, pytest.approx(2.0), pytest.approx(2.5))
    assert (total.first, total.last) == (100.0, 102.0)


def test_no_batch_is_lost_where_many_threads_take_them():
    with Pipeline([Numbers(400, workers=2)]) as pipeline:
        threads = [
            threading.Thread(target=lambda: [pipeline.dequeue(timeout=LIMIT) for _ in range(50)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        waits = pipeline.stats().waits
    assert (waits.batches, waits.samples, sum(waits.bins)) == (400, 1600, 400)


def test_nothing_was_taken():
    total, epochs = Waits().stats()
    assert (total, epochs) == (WaitStats(), ())
    assert (total.share, total.p50, total.p99, total.samples_per_second) == (0, 0, 0, 0)
    with Pipeline([Numbers()]) as pipeline:
        stats = pipeline.stats()
    assert (stats.exposed_wait, stats.samples, stats.samples_per_second) == (0, 0, 0)
    assert "waited" not in stats.verdict


@given(st.lists(st.floats(2e-6, 4000.0), min_size=1, max_size=200))
def test_quantiles_are_within_the_stated_error(durations):
    total, _ = waits_of(*((duration, 0.0) for duration in durations)).stats()
    # The times are sums: what is counted differs from the durations by rounding.
    for share, found in ((0.5, total.p50), (0.99, total.p99), (1.0, total.quantile(1.0))):
        exact = sorted(durations)[max(0, int(np.ceil(share * len(durations) - 1e-9)) - 1)]
        assert found == pytest.approx(exact, rel=0.023, abs=1e-7)


def test_quantiles_of_the_shortest_and_longest_waits():
    total, _ = waits_of(*[(0.0, 1.0)] * 98, (1e6, 0.0), (1e9, 0.0)).stats()
    assert total.p50 == 0
    assert total.p99 == total.quantile(1.0) == pytest.approx(2**32 * 1e-6, rel=0.03)
    assert len(total.bins) == 513
    assert total.bins[0] == 98


def test_latest_epochs_are_kept_and_all_are_counted():
    waits = Waits()
    for epoch in range(50):
        for number in range(4):
            waits.took(batch(epoch), epoch * 10.0 + number, epoch * 10.0 + number + 0.5)
    total, epochs = waits.stats()
    assert [each.epoch for each in epochs] == list(range(50 - KEPT_EPOCHS, 50))
    assert (total.batches, sum(total.bins), total.waited) == (200, 200, pytest.approx(100.0))
    assert (total.first, total.last) == (0.0, 493.5)


def test_memory_does_not_grow():
    waits, one = Waits(), batch()

    def took(count):
        for number in range(count):
            one.epoch = number // 10
            waits.took(one, float(number), number + 0.5)
            # Nor of threads that get nothing.
            waits.blocked(0.5)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = took(1000)
        assert took(10_000) < before + 10_000
    finally:
        tracemalloc.stop()


def test_figures_are_there_in_a_signal_handler(monkeypatch):
    """It runs in the thread that adds up, and gets the figures so far."""
    waits, seen = Waits(), []

    def interrupted(wait):
        if not seen:
            seen.append(None)
            seen.append(waits.stats()[0].batches)
        return math.log2(wait)

    monkeypatch.setattr("highway.engine.waits.log2", interrupted)

    def took():
        for number in range(64):
            waits.took(batch(), float(number), number + 0.5)
        return waits.stats()[0]

    total = Task(took).result()
    assert (total.batches, total.waited, total.seconds) == (64, pytest.approx(32.0), pytest.approx(63.5))
    assert total.last == 63.5
    # All but the one that was being added.
    assert seen == [None, 63]


def test_measuring_is_cheap():
    """The limit is far from what it takes (about 1 µs), because other programs run too."""
    waits, one, count = Waits(), batch(), 2000

    def took():
        begin = time.thread_time()
        for number in range(count):
            waits.took(one, float(number), number + 0.5)
        return (time.thread_time() - begin) / count

    assert min(took() for _ in range(20)) < 10e-6


# Figures of a pipeline


@pytest.fixture
def clock(monkeypatch):
    """The clock by which pipelines measure."""
    return Clock().run_pipelines(monkeypatch)


def test_wait_for_a_slow_pipeline_is_exposed(clock):
    slow = Slow(clock, 0.01)
    with Pipeline([SizedNumbers(10, workers=1), slow]) as pipeline:
        slow.follow_consumer(pipeline)
        for _ in pipeline:
            clock.advance(0.001)
        stats = pipeline.stats()
    assert stats.waits.waited == pytest.approx(0.1)
    # The step after the last batch belongs to no batch.
    assert stats.exposed_wait == pytest.approx(0.1 / 0.109)
    assert stats.waits.p50 == pytest.approx(0.01, rel=0.022)
    assert stats.samples == stats.waits.samples == 40
    # Slow waits for the consumer within its work, before or during the step.
    expected = (
        r"Your training waited 91\.7% of the time\. Slow is the bottleneck: its worker was busy (9\d|100)% "
    )
    assert re.match(expected, stats.verdict)
    assert f"{40 / 0.109:.0f} samples/s; waits: p50 " in str(stats)


def test_slow_training_hardly_waits(clock):
    with Pipeline([SizedNumbers(10, workers=1)]) as pipeline:
        for _ in pipeline:
            clock.advance(0.02)
        stats = pipeline.stats()
    assert stats.exposed_wait == 0
    assert stats.waits.seconds == pytest.approx(9 * 0.02)


@pytest.mark.parametrize(
    ("source", "ordered"), [(SizedNumbers, True), (SizedNumbers, False), (NumbersWithEpochs, True)]
)
def test_figures_per_epoch(source, ordered):
    class Named(source):
        def load(self, task):
            made = super().load(task)
            made.epoch, made.seq = divmod(task, self.length)
            return made

    with Pipeline([Named(5, epochs=3, workers=1)], ordered=ordered) as pipeline:
        for epoch in range(3):
            for _ in pipeline:
                pass
            assert [each.epoch for each in pipeline.stats().epochs] == list(range(epoch + 1))
        stats = pipeline.stats()
    assert [each.batches for each in stats.epochs] == [5, 5, 5]
    assert sum(each.waited for each in stats.epochs) == pytest.approx(stats.waits.waited)
    assert stats.to_dict()["epoch"] == 2


@pytest.mark.parametrize("source", [SizedNumbers, Numbers])
@pytest.mark.parametrize("take", [lambda pipeline: next(iter(pipeline)), Pipeline.dequeue])
def test_start_of_the_threads_counts_as_a_wait(clock, source, take):
    class Late(source):
        def enter(self, *arguments):
            clock.advance(0.05)
            return super().enter(*arguments)

    with Pipeline([Late()]) as pipeline:
        take(pipeline)
        assert pipeline.stats().waits.waited == pytest.approx(0.05)


def test_waits_that_end_without_a_batch_count(clock):
    gate = Gate()
    with Pipeline([Numbers(), gate]) as pipeline:
        notice_waits(pipeline, clock, lambda: clock.advance(0.02))
        for _ in range(3):
            with pytest.raises(WaitTimeout) as error:
                pipeline.dequeue(timeout=0.001)
            # A training that got nothing yet has no share.
            assert "Your training" not in str(error.value)
        gate.gate.set()
        pipeline.dequeue(timeout=LIMIT)
        assert pipeline.stats().waits.waited == pytest.approx(4 * 0.02)
        assert pipeline.stats().waits.batches == 1


def test_sink_has_no_exposed_wait():
    with Pipeline([Numbers(5), Collect()]) as pipeline:
        pipeline.wait(LIMIT)
        stats = pipeline.stats()
        assert (stats.waits, stats.exposed_wait, stats.epochs) == (None, None, ())
        assert stats.samples == 20
        assert stats.samples_per_second == 20 / stats.seconds
        assert not [key for key in stats.to_dict() if "wait" in key or "epoch" in key]
        assert pipeline.stats(since=stats).samples == 0


# Since earlier statistics


def test_figures_since_earlier_ones():
    with Pipeline([SizedNumbers(6, epochs=None, workers=1), Pass(workers=1)]) as pipeline:
        list(pipeline)
        first = pipeline.stats()
        begin = pipeline.stats(since=first)
        assert (begin.delivered, begin.waits.batches, begin.epochs) == (0, 0, ())
        list(pipeline)
        list(pipeline)
        second, total = pipeline.stats(since=first), pipeline.stats()
    assert (second.delivered, second.samples, total.delivered) == (12, 48, 18)
    assert second.waits.batches == sum(second.waits.bins) == 12
    assert second.waits.waited == pytest.approx(total.waits.waited - first.waits.waited)
    assert second.waits.first == first.waits.last
    assert 0 < second.seconds < total.seconds
    for before, now, since in zip(first.modules, total.modules, second.modules, strict=True):
        assert since.batches <= now.batches - before.batches
        assert 0 <= since.busy_share <= 1
        assert 0 <= since.occupancy <= since.capacity


def test_interval_may_begin_with_an_interval():
    """As in a loop: stats = pipeline.stats(since=stats)."""
    with Pipeline([SizedNumbers(6, epochs=None, workers=1)]) as pipeline:
        stats = pipeline.stats()
        for _ in range(5):
            list(pipeline)
            stats = pipeline.stats(since=stats)
            assert (stats.delivered, stats.waits.batches) == (6, 6)
            assert (stats.whole or stats).whole is None


def test_statistics_begin_anew_with_a_state(tmp_path):
    folder = class_folders(tmp_path / "photos", classes=1, each=12, size=(8, 8))
    with Pipeline([ImageFileReader(folder, 4, (8, 8), workers=1)]) as pipeline:
        list(pipeline)
        before = pipeline.stats()
        pipeline.load_state_dict(pipeline.state_dict())
        assert pipeline.stats().waits == WaitStats()
        list(pipeline)
        # What was before the state does not count, and nothing is negative.
        assert pipeline.stats(since=before).delivered == 3
        assert pipeline.stats(since=before).waits == pipeline.stats().waits
        assert pipeline.stats(since=before).modules[0].busy > 0


def test_statistics_before_the_start_are_a_beginning():
    with Pipeline([Numbers(5)]) as pipeline:
        before = pipeline.stats()
        list(pipeline.forever())
        assert pipeline.stats(since=before).delivered == 5


@pytest.mark.parametrize("wrong", [{}, 5, "x"])
def test_since_must_be_statistics(wrong):
    with (
        Pipeline([Numbers()]) as pipeline,
        pytest.raises(ArgumentError, match=r"Pipeline\.stats: since is .*; expected what stats\(\)"),
    ):
        pipeline.stats(since=wrong)


def test_since_must_be_of_this_pipeline():
    with Pipeline([Numbers()]) as pipeline, Pipeline([Numbers()]) as other:
        for stats in (other.stats(), other.stats(since=other.stats()), PipelineStats((), 1.0, 1, None, 1)):
            with pytest.raises(ArgumentError, match="since is of another pipeline"):
                pipeline.stats(since=stats)


# Other forms


def documented_keys():
    table = PipelineStats.to_dict.__doc__
    return set(re.findall(r"``([a-z_0-9/]+)``", table.partition("\n\n")[2].partition("bottleneck")[0]))


def test_dict_is_flat_and_goes_through_json():
    machine = MachineStats("host:1", "worker", rate=2.0)
    with Pipeline([Numbers(5, workers=1), Pass(workers=1)]) as pipeline:
        list(pipeline.forever())
        stats = pipeline.stats()
    told = PipelineStats(
        **{**{name: getattr(stats, name) for name in stats.__dataclass_fields__}, "machines": (machine,)}
    ).to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert {type(value) for value in told.values()} <= {int, float, str}
    assert [key for key, value in told.items() if isinstance(value, str)] == ["bottleneck", "verdict"]
    assert told["batches"] == told["epoch/batches"] == 5
    assert told["samples"] == told["epoch/samples"] == 20
    assert told["exposed_wait"] == stats.exposed_wait
    assert told["exposed_wait_seconds"] == stats.waits.waited
    assert told["exposed_wait_p50"] <= told["exposed_wait_p99"]
    assert told["modules/0.Numbers/samples"] == told["modules/1.Pass/samples"] == 20
    assert told["machines/0.worker/rate"] == 2.0
    assert told["verdict"] == stats.verdict
    documented = documented_keys()
    for key in told:
        assert key.rpartition("/")[2] in documented | {"bottleneck", "verdict"}


def test_dict_before_the_first_batch():
    with Pipeline([Numbers()]) as pipeline:
        told = pipeline.stats().to_dict()
    assert json.dumps(told, allow_nan=False)
    assert (told["exposed_wait"], told["bottleneck"]) == (0, "")
    assert "epoch" not in told


def test_html_has_the_report():
    gated = Pass()
    gated.name = "<b>&"
    with Pipeline([Numbers(5), gated]) as pipeline:
        list(pipeline.forever())
        stats = pipeline.stats()
    html = stats._repr_html_()
    assert html.startswith("<p><b>Your training waited ")
    assert html.count("<tr>") == 3
    assert "<td>&lt;b&gt;&amp;</td>" in html
    assert "samples/s; waits: p50 " in html
    both = PipelineStats(stats.modules, 1.0, 5, 0.5, 2, machines=(MachineStats("host:1", "data"),))
    assert both._repr_html_().count("<table>") == 2


def test_statistics_copy_and_pickle():
    with Pipeline([Numbers(5)]) as pipeline:
        list(pipeline.forever())
        stats = pipeline.stats()
        for other in (copy.deepcopy(stats), pickle.loads(pickle.dumps(stats))):
            assert other == stats
            assert pipeline.stats(since=other).delivered == 0


def test_measured_quantiles_are_those_of_the_waits(clock):
    """Of a pipeline, whose waits are measured from outside too."""
    outside = []
    slow = Slow(clock, 0.003, 0.001, 0.02, 0.007, 0.0005)
    with Pipeline([SizedNumbers(30, workers=1), slow]) as pipeline:
        slow.follow_consumer(pipeline)
        for _ in range(30):
            begin = clock()
            pipeline.dequeue(timeout=LIMIT)
            outside.append(clock() - begin)
            clock.advance(0.002)
        waits = pipeline.stats().waits
    assert waits.waited == pytest.approx(sum(outside)) == pytest.approx(6 * 0.0315)
    assert waits.p50 == pytest.approx(statistics.median_high(outside), rel=0.022)
    assert waits.p99 == pytest.approx(max(outside), rel=0.022)
