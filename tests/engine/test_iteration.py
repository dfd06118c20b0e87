"""Iteration: what each way to iterate returns, for every kind of source; threads, stops and failures meanwhile."""

from __future__ import annotations

import itertools
import sys
import threading

import pytest
from concurrency import LIMIT, Task, eventually, pretend_cores, within
from leaks import assert_nothing_left
from pictures import class_folders
from small_modules import Call, Collect, Gate, Numbers, NumbersWithEpochs, Pass, SizedNumbers, numbers_of

from highway.engine import Pipeline
from highway.engine.inspection import inspected
from highway.errors import (
    ArgumentError,
    EmptyEpochError,
    EndOfData,
    PipelineStateError,
    UnknownLengthError,
)
from highway.modules import ImageFileReader, Noise

# Batches in an epoch of every source here.
LENGTH = 5


def noise(epochs=None, **options):
    return Noise(2, (2, 2), size=2 * LENGTH, **{"epochs": epochs, "workers": 2, **options})


def sized(epochs=None):
    return SizedNumbers(LENGTH, epochs=epochs, workers=2)


def numbered(epochs=None):
    return NumbersWithEpochs(LENGTH, epochs=epochs, workers=2)


# What has epochs, and whether it is ordered: `sized` cannot seek, and `numbered` has no length either.
KINDS = pytest.mark.parametrize(
    ("make", "ordered"),
    [(noise, True), (noise, False), (sized, True), (sized, False), (numbered, True)],
    ids=["seekable", "seekable-unordered", "sized", "sized-unordered", "numbered"],
)
SEEKABLE = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


def places(batches):
    """Epoch and number of every batch, sorted: the order is another test's."""
    return sorted((batch.epoch, batch.seq) for batch in batches)


def epoch(n, start=0):
    return [(n, seq) for seq in range(start, LENGTH)]


def pipeline_of(make, ordered, epochs=None):
    return Pipeline([make(epochs), Pass()], ordered=ordered)


class Fault(Exception):
    """Raised by the modules under test."""


# One epoch after the other


@KINDS
def test_for_is_one_epoch_the_next_one_each_time(make, ordered):
    with pipeline_of(make, ordered) as pipeline:
        for n in range(4):
            assert places(pipeline) == epoch(n)
        assert places(pipeline.epoch()) == epoch(4)


@KINDS
def test_for_after_a_break_begins_the_next_epoch(make, ordered):
    with pipeline_of(make, ordered) as pipeline:
        for n, taken in enumerate([1, LENGTH - 1, LENGTH, 2]):
            found = places(itertools.islice(pipeline, taken))
            assert len(set(found)) == taken
            assert {each for each, _ in found} == {n}
        assert places(pipeline) == epoch(4)


@KINDS
def test_iterator_that_is_not_used_takes_no_epoch(make, ordered):
    with pipeline_of(make, ordered) as pipeline:
        for _ in range(3):
            iter(pipeline)
        assert places(pipeline) == epoch(0)


@KINDS
@pytest.mark.parametrize("taken", [1, 3, LENGTH, LENGTH + 1])
def test_for_after_dequeue_begins_the_epoch_after_that_of_the_last_batch(make, ordered, taken):
    with pipeline_of(make, ordered) as pipeline:
        last = [pipeline.dequeue(timeout=LIMIT) for _ in range(taken)][-1]
        assert places(pipeline) == epoch(last.epoch + 1)
        # Between two iterations too.
        pipeline.dequeue(timeout=LIMIT)
        assert places(pipeline) == epoch(last.epoch + 3)


@KINDS
@pytest.mark.parametrize("broken", [False, True])
def test_there_are_as_many_epochs_as_the_source_has(make, ordered, broken):
    with pipeline_of(make, ordered, epochs=2) as pipeline:
        assert places(pipeline) == epoch(0)
        if broken and make is not numbered:
            next(iter(pipeline))
        else:
            assert places(pipeline) == epoch(1)
        for call in (iter, Pipeline.epoch):
            with pytest.raises(EndOfData, match="epochs="):
                next(call(pipeline))


@KINDS
def test_forever_goes_on_from_one_epoch_to_the_next(make, ordered):
    with pipeline_of(make, ordered) as pipeline:
        assert places(itertools.islice(pipeline.forever(), 2 * LENGTH)) == epoch(0) + epoch(1)
        next(iter(pipeline))
        # From the current position: after one batch of epoch 2.
        found = places(itertools.islice(pipeline.forever(), 2 * LENGTH - 1))
        assert len(found) == len(set(found)) == 2 * LENGTH - 1
        assert {n for n, _ in found} == {2, 3}
        assert places(pipeline) == epoch(4)


@KINDS
def test_forever_ends_with_the_data(make, ordered):
    with pipeline_of(make, ordered, epochs=2) as pipeline:
        assert places(pipeline.forever()) == epoch(0) + epoch(1)
        with pytest.raises(EndOfData, match="all batches were delivered, 10 of epoch"):
            next(pipeline.forever())


def test_batches_without_numbers_are_one_epoch():
    for ordered in (True, False):
        with Pipeline([Numbers(8), Pass()], ordered=ordered) as pipeline:
            first = numbers_of(itertools.islice(pipeline, 3))
            # After a break, the remaining ones.
            assert sorted(first + numbers_of(pipeline)) == list(range(8))
            with pytest.raises(EndOfData):
                iter(pipeline)


def test_batches_without_numbers_have_no_other_epoch():
    for ordered in (True, False):
        with Pipeline([Numbers(8), Pass()], ordered=ordered) as pipeline:
            with pytest.raises(
                PipelineStateError, match="Numbers cannot go to epoch 1: it sets no epoch numbers"
            ):
                next(pipeline.epoch(1))
            first = numbers_of(itertools.islice(pipeline.epoch(0), 2))
            with pytest.raises(PipelineStateError, match="Numbers cannot go to epoch 0"):
                next(pipeline.epoch(0))
            assert sorted(first + numbers_of(pipeline)) == list(range(8))


# A certain epoch


@KINDS
def test_epoch_n_is_that_epoch_from_its_start(make, ordered):
    with pipeline_of(make, ordered) as pipeline:
        assert places(pipeline.epoch(2)) == epoch(2)
        assert places(pipeline) == epoch(3)
        next(iter(pipeline))
        assert places(pipeline.epoch(6)) == epoch(6)
        assert places(pipeline.epoch(7)) == epoch(7)
        assert places(pipeline) == epoch(8)


@SEEKABLE
def test_seekable_source_goes_back_to_any_epoch(ordered):
    with pipeline_of(noise, ordered, epochs=4) as pipeline:
        for n in (3, 0, 2, 2, 1, 0):
            assert places(pipeline.epoch(n)) == epoch(n)
            assert places(itertools.islice(pipeline.epoch(n), 2))[0][0] == n
            assert places(pipeline.epoch(n)) == epoch(n)
        assert places(pipeline) == epoch(1)


def test_every_way_to_an_epoch_gives_the_same_batches():
    def bits(batches):
        return [(batch.indices.tolist(), batch.images.tobytes(), batch.labels.tolist()) for batch in batches]

    with pipeline_of(noise, True) as pipeline:
        whole = [bits(pipeline) for _ in range(4)]
        assert [bits(pipeline.epoch(n)) for n in (3, 1, 1, 0)] == [whole[n] for n in (3, 1, 1, 0)]
        next(iter(pipeline))
        assert bits(pipeline) == whole[2]
        pipeline.load_state_dict(pipeline.state_dict())
        assert bits(pipeline) == whole[3]


@pytest.mark.parametrize("make", [sized, numbered])
def test_source_that_cannot_seek_does_not_go_back(make):
    with pipeline_of(make, True) as pipeline:
        assert places(pipeline) == epoch(0)
        next(iter(pipeline))
        for n in (0, 1):
            with pytest.raises(
                PipelineStateError, match=rf"{pipeline.modules[0].name} cannot go back to epoch {n}"
            ):
                next(pipeline.epoch(n))
        # Nothing was lost.
        assert places(pipeline) == epoch(2)


@pytest.mark.parametrize("make", [noise, sized])
def test_epoch_beyond_the_last_is_refused(make):
    with pipeline_of(make, True, epochs=2) as pipeline:
        for n in (2, 100):
            with pytest.raises(EndOfData, match=rf"there is no epoch {n}: \w+ has epochs=2, counted from 0"):
                pipeline.epoch(n)
        assert places(pipeline) == epoch(0)


def test_epoch_beyond_the_last_of_a_source_without_a_length():
    with pipeline_of(numbered, True, epochs=2) as pipeline, pytest.raises(EndOfData):
        next(pipeline.epoch(2))


@pytest.mark.parametrize("n", [-1, 0.5, "1", True, 2**32])
def test_number_of_an_epoch_is_checked(n):
    with pipeline_of(noise, True) as pipeline, pytest.raises(ArgumentError, match=r"Pipeline\.epoch: n is"):
        pipeline.epoch(n)


@pytest.mark.parametrize("make", [noise, sized])
def test_epoch_that_is_skipped_is_over(make):
    """An empty epoch raises; the next iteration begins the next one."""
    drop = Call(lambda batch: None if batch.epoch == 1 else batch)
    with Pipeline([make(3), drop]) as pipeline:
        assert places(pipeline) == epoch(0)
        with pytest.raises(EmptyEpochError, match="all 5 batches of epoch 1 were skipped"):
            next(iter(pipeline))
        assert places(pipeline) == epoch(2)


# States


@SEEKABLE
@pytest.mark.parametrize("begun", ["new", "in the middle", "after the end"])
def test_for_after_loading_a_state_is_the_rest_of_its_epoch(ordered, begun):
    with pipeline_of(noise, True, epochs=3) as other:
        list(itertools.islice(other.epoch(1), 2))
        state = other.state_dict()
    with pipeline_of(noise, ordered, epochs=3) as pipeline:
        if begun == "in the middle":
            next(iter(pipeline))
        elif begun == "after the end":
            list(pipeline.forever())
        for _ in range(2):
            pipeline.load_state_dict(state)
            batches = iter(pipeline)
            assert len(batches) == LENGTH - 2
            assert places(batches) == epoch(1, 2)
            assert places(pipeline) == epoch(2)
            with pytest.raises(EndOfData):
                iter(pipeline)
            pipeline.load_state_dict(state)
            next(iter(pipeline))
            assert places(pipeline) == epoch(2)
            pipeline.load_state_dict(state)
            pipeline.dequeue()
            assert places(pipeline) == epoch(2)
            # From its start.
            pipeline.load_state_dict(state)
            assert places(pipeline.epoch(1)) == epoch(1)
            pipeline.load_state_dict(state)
            assert places(pipeline.forever()) == epoch(1, 2) + epoch(2)


def test_for_after_the_state_of_the_end_of_an_epoch_is_the_next_epoch():
    with pipeline_of(noise, True) as pipeline:
        list(pipeline)
        state = pipeline.state_dict()
    with pipeline_of(noise, True) as pipeline:
        pipeline.load_state_dict(state)
        assert len(iter(pipeline)) == LENGTH
        assert pipeline.resumed_epoch is None
        assert places(pipeline) == epoch(1)


@pytest.mark.parametrize("take", [Pipeline.dequeue, lambda pipeline: next(iter(pipeline))])
def test_epoch_is_resumed_until_a_batch_of_it_is_taken(take):
    with pipeline_of(noise, True) as pipeline:
        list(itertools.islice(pipeline.epoch(1), 2))
        assert pipeline.resumed_epoch is None
        pipeline.load_state_dict(pipeline.state_dict())
        assert pipeline.resumed_epoch == 1
        iter(pipeline)
        assert pipeline.resumed_epoch == 1
        take(pipeline)
        assert pipeline.resumed_epoch is None


def test_ready_says_whether_dequeue_would_wait():
    gate = Gate(workers=1)
    with Pipeline([Numbers(2, workers=1), gate]) as pipeline:
        assert (pipeline.ready(), pipeline.started) == (False, False)
        pipeline.start()
        assert gate.entered.wait(LIMIT)
        assert (pipeline.ready(), pipeline.started) == (False, True)
        gate.gate.set()
        # It takes none.
        eventually(pipeline.ready)
        assert pipeline.ready()
        assert numbers_of(pipeline.forever()) == [0, 1]
        # The end of the data is there too, and the end of the threads.
        assert pipeline.ready()
    assert (pipeline.ready(), pipeline.started) == (True, True)
    with Pipeline([Numbers(2), Collect()]) as pipeline, pytest.raises(PipelineStateError, match="ends in"):
        pipeline.ready()


def test_what_a_source_that_follows_skips_does_not_make_a_pipeline_ready():
    class Following(Numbers):
        follows_delivery = True

        def delivered(self, ticket):
            told.append(ticket)
            return True

    told, gate = [], Gate(workers=1)
    with Pipeline([Following(3, holes=[0, 2], workers=1), gate]) as pipeline:
        pipeline.start()
        eventually(lambda: inspected(pipeline).queue.measures()["holes"])
        assert gate.entered.wait(LIMIT)
        assert (pipeline.ready(), told) == (False, [0])
        gate.gate.set()
        eventually(pipeline.ready)
        assert (numbers_of([pipeline.dequeue(timeout=LIMIT)]), told) == ([1], [0, 1])
        # The end of the data is ready too.
        eventually(pipeline.ready)
        assert told == [0, 1, 2]
        with pytest.raises(EndOfData):
            pipeline.dequeue(timeout=LIMIT)


def test_state_in_an_epoch_that_was_sought():
    """The position counts from the start of the data, wherever the pipeline began."""
    with pipeline_of(noise, True) as pipeline:
        list(itertools.islice(pipeline.epoch(4), 3))
        list(itertools.islice(pipeline.epoch(2), 3))
        state = pipeline.state_dict()
    with pipeline_of(noise, True) as pipeline:
        pipeline.load_state_dict(state)
        assert places(pipeline) == epoch(2, 3)


def test_state_of_another_batch_size_goes_on_and_back():
    with Pipeline([noise(), Pass()]) as pipeline:
        list(itertools.islice(pipeline, 3))
        state = pipeline.state_dict()
    with Pipeline([Noise(4, (2, 2), size=2 * LENGTH, epochs=3), Pass()]) as pipeline:
        pipeline.load_state_dict(state)
        batches = iter(pipeline)
        # 4 samples remain.
        assert len(batches) == 1
        assert [batch.size for batch in batches] == [4]
        assert [batch.size for batch in pipeline] == [4, 4, 2]
        assert [(batch.epoch, batch.size) for batch in pipeline.epoch(0)] == [(0, 4), (0, 4), (0, 2)]
        assert [(batch.epoch, batch.size) for batch in pipeline] == [(1, 4), (1, 4), (1, 2)]


# Lengths


def test_lengths_of_iterators():
    for make in (noise, sized):
        with pipeline_of(make, True, epochs=2) as pipeline:
            assert len(pipeline) == len(iter(pipeline)) == len(pipeline.epoch(1)) == LENGTH
            batches = iter(pipeline)
            next(batches)
            assert len(batches) == LENGTH
            list(batches)
            assert len(batches) == LENGTH
            assert batches.epoch == 0
    with pipeline_of(numbered, True) as pipeline:
        for call in (lambda: len(pipeline), lambda: len(iter(pipeline))):
            with pytest.raises(UnknownLengthError):
                call()


@KINDS
def test_iterator_stays_at_its_end(make, ordered):
    with pipeline_of(make, ordered) as pipeline:
        batches = iter(pipeline)
        assert places(batches) == epoch(0)
        assert list(batches) == []
        assert repr(batches) == "<EpochIterator, epoch 0>"
        assert places(pipeline) == epoch(1)


# Several iterators and threads


@KINDS
def test_iterator_ends_when_another_begins(make, ordered):
    with pipeline_of(make, ordered) as pipeline:
        old = iter(pipeline)
        next(old)
        new = iter(pipeline)
        # Not before its first batch.
        next(old)
        first = next(new)
        for _ in range(2):
            with pytest.raises(PipelineStateError, match="another iteration of this pipeline has begun"):
                next(old)
        assert places([first, *new]) == epoch(1)


@pytest.mark.usefixtures("restless")
@KINDS
def test_threads_that_share_an_iterator_get_every_batch_once(make, ordered):
    with pipeline_of(make, ordered) as pipeline:
        for n in range(20):
            batches = iter(pipeline) if n % 3 else pipeline.epoch(n)
            tasks = [Task(list, batches) for _ in range(4)]
            assert places(itertools.chain(*(task.result() for task in tasks))) == epoch(n)


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("source", [SizedNumbers, NumbersWithEpochs, Numbers])
def test_threads_that_share_an_epoch_of_one_batch_see_no_empty_epoch(source):
    for _ in range(50):
        with Pipeline([source(1), Pass()]) as pipeline:
            batches = iter(pipeline)
            found = [task.result() for task in [Task(list, batches) for _ in range(4)]]
            assert numbers_of(itertools.chain(*found)) == [0]


@pytest.mark.usefixtures("restless")
@SEEKABLE
def test_threads_that_share_an_iterator_wait_for_its_seek(ordered):
    with pipeline_of(noise, ordered) as pipeline:
        for n in (7, 0, 3, 3, 9) * 4:
            batches = pipeline.epoch(n)
            tasks = [Task(list, batches) for _ in range(4)]
            assert places(itertools.chain(*(task.result() for task in tasks))) == epoch(n)


@pytest.mark.usefixtures("restless")
@SEEKABLE
def test_threads_go_on_together_where_the_rest_of_an_epoch_was_skipped(ordered):
    with pipeline_of(noise, True) as pipeline:
        list(itertools.islice(pipeline, 3))
        state = pipeline.state_dict()
    drop = Call(lambda batch: None if batch.epoch == 0 and batch.seq >= 3 else batch, workers=2)
    for _ in range(30):
        with Pipeline([noise(), drop], ordered=ordered) as pipeline:
            pipeline.load_state_dict(state)
            batches = iter(pipeline)
            tasks = [Task(list, batches) for _ in range(4)]
            assert places(itertools.chain(*(task.result() for task in tasks))) == epoch(1)
            assert places(pipeline) == epoch(2)


@pytest.mark.parametrize("make", [noise, sized, numbered])
def test_thread_that_waits_in_an_older_iterator_takes_no_batch_of_the_next(make):
    gate = Gate()
    with Pipeline([make(), gate]) as pipeline:
        old = pipeline.epoch(0)
        waiting = [Task(next, old) for _ in range(3)]
        eventually(lambda: inspected(pipeline).queue.measures()["getting"] == 3)
        new = Task(list, pipeline.epoch(0))
        for task in waiting:
            with pytest.raises(PipelineStateError, match="another iteration"):
                task.result()
        gate.gate.set()
        assert places(new.result()) == epoch(0)


@pytest.mark.usefixtures("restless")
def test_dequeue_goes_on_with_the_batches_after_a_seek():
    """A thread in `dequeue` sees no end of the data where another one seeks."""
    with pipeline_of(noise, True) as pipeline:
        over = threading.Event()

        def take():
            taken = 0
            while not over.is_set():
                pipeline.dequeue(timeout=LIMIT)
                taken += 1
            return taken

        taking = Task(take)
        for n in range(30):
            # The other thread may take all of them.
            assert {batch.epoch for batch in pipeline.epoch(n % 3)} <= {n % 3}
        over.set()
        assert taking.result() > 0


@KINDS
def test_epoch_of_which_another_took_the_batches_is_over(make, ordered):
    with pipeline_of(make, ordered, epochs=2) as pipeline:
        batches = iter(pipeline)
        first = next(batches)
        others = [pipeline.dequeue(timeout=LIMIT) for _ in range(LENGTH - 1)]
        assert list(batches) == []
        assert places([first, *others]) == epoch(0)
        assert places(pipeline) == epoch(1)


@pytest.mark.usefixtures("restless")
def test_threads_that_begin_at_once_start_one_run():
    for _ in range(20):
        with Pipeline([noise(2), Pass()]) as pipeline:
            start = threading.Barrier(4)

            def take(pipeline=pipeline, start=start):
                start.wait(LIMIT)
                return [pipeline.dequeue(timeout=LIMIT) for _ in range(2)]

            found = [task.result() for task in [Task(take) for _ in range(4)]]
            assert places(itertools.chain(*found)) == (epoch(0) + epoch(1))[:8]


# Stops, failures and figures


class Entering(Pass):
    """Waits in `enter` until it is interrupted."""

    def __init__(self):
        super().__init__()
        self.entered, self.gate = threading.Event(), threading.Event()

    def enter(self, modules, stats):
        self.entered.set()
        assert self.gate.wait(LIMIT)

    def interrupt(self):
        self.gate.set()


def test_stop_while_the_pipeline_starts():
    entering = Entering()
    pipeline = Pipeline([noise(), entering])
    starting = [Task(pipeline.dequeue) for _ in range(2)]
    assert entering.entered.wait(LIMIT)
    with within(2):
        pipeline.stop()
    for task in starting:
        with pytest.raises(PipelineStateError, match="was stopped"):
            task.result()
    with pytest.raises(PipelineStateError, match="was stopped"):
        pipeline.start()


def at_a_seek(*, after):
    """A pipeline of which a thread seeks, and waits for a stage that stands in front of a gate."""
    gate = Gate()
    pipeline = Pipeline([noise(), gate, *after])
    gate.gate.set()
    list(itertools.islice(pipeline, 2))
    gate.gate.clear()
    moves = inspected(pipeline).moves
    seeking = Task(lambda: next(pipeline.epoch(0)))
    eventually(lambda: inspected(pipeline).moves > moves)
    return pipeline, gate, seeking


def test_stop_while_another_thread_seeks():
    for _ in range(10):
        pipeline, _, seeking = at_a_seek(after=[Pass()])
        with within(2):
            pipeline.stop()
        with pytest.raises(PipelineStateError, match="was stopped"):
            seeking.result()
        with pytest.raises(PipelineStateError, match="was stopped"):
            iter(pipeline)


@pytest.mark.usefixtures("restless")
def test_stop_at_any_moment_of_many_seeks():
    for turn in range(20):
        pipeline = pipeline_of(noise, turn % 2 == 0)

        def seek(pipeline=pipeline):
            while True:
                next(pipeline.epoch(0))

        seeking = Task(seek)
        for _ in range(turn):
            moves = inspected(pipeline).moves
            eventually(lambda moves=moves, pipeline=pipeline: inspected(pipeline).moves > moves)
        with within(2):
            pipeline.stop()
        with pytest.raises(PipelineStateError, match="was stopped"):
            seeking.result()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("highway ")]


def test_module_that_fails_while_another_thread_seeks():
    error, cause = Fault("broken"), ValueError("why")
    armed = threading.Event()

    class Fails(Gate):
        def process(self, batch):
            super().process(batch)
            if armed.is_set():
                raise error from cause
            return batch

    gate = Fails()
    with Pipeline([noise(), gate]) as pipeline:
        gate.gate.set()
        list(itertools.islice(pipeline, 2))
        gate.gate.clear()
        gate.entered.clear()
        # Room after the gate: it takes another batch, and stands there.
        for _ in range(inspected(pipeline).queue.measures()["held"]):
            pipeline.dequeue(timeout=LIMIT)
        assert gate.entered.wait(LIMIT)
        moves = inspected(pipeline).moves
        seeking = Task(lambda: next(pipeline.epoch(0)))
        eventually(lambda: inspected(pipeline).moves > moves)
        armed.set()
        gate.gate.set()
        with pytest.raises(Fault) as caught:
            seeking.result()
        assert caught.value is error
        assert error.__cause__ is cause
        for call in (lambda: next(iter(pipeline)), pipeline.dequeue):
            with pytest.raises(Fault) as caught:
                call()
            assert caught.value is error
            assert error.__cause__ is cause


def test_source_that_fails_to_seek_ends_the_pipeline():
    class Lost(Noise):
        def seek(self, place):
            if place.epoch == 5:
                raise OSError("the disk is gone")
            return super().seek(place)

    with Pipeline([Lost(2, (2, 2), size=2 * LENGTH), Pass()]) as pipeline:
        next(iter(pipeline))
        with pytest.raises(OSError, match="the disk is gone"):
            next(pipeline.epoch(5))
        # Not the end of the data.
        for call in (pipeline.dequeue, lambda: next(iter(pipeline)), lambda: next(pipeline.forever())):
            with pytest.raises(PipelineStateError, match="was stopped"):
                call()


@SEEKABLE
def test_statistics_go_on_over_a_seek(ordered):
    with pipeline_of(noise, ordered) as pipeline:
        returned, before = 0, None
        for n in (0, 3, 1, 1, 0):
            returned += len(list(itertools.islice(pipeline.epoch(n), 3)))
            stats = pipeline.stats()
            assert stats.delivered == returned
            if before is not None:
                assert stats.seconds > before.seconds
                for module, earlier in zip(stats.modules, before.modules, strict=True):
                    assert module.batches > earlier.batches
                    assert module.busy > earlier.busy
                    assert module.worker_seconds > earlier.worker_seconds
            before = stats


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_errors_go_on_over_a_seek(policy, tmp_path):
    folder = class_folders(tmp_path, classes=1, each=12, size=(8, 8))
    files = sorted(each for each in folder.rglob("*") if each.is_file())
    for file in files[:2]:
        file.write_bytes(b"no picture")
    reader = ImageFileReader(folder, 4, (8, 8), shuffle=False, on_error=policy, workers=1)
    with Pipeline([reader]) as pipeline:
        for turn in range(1, 5):
            # The bad samples are in the first of three batches.
            assert next(pipeline.epoch(turn % 2)).size == (2 if policy == "skip" else 4)
            assert len(pipeline.errors) == 2
            stats = pipeline.stats()
            assert stats.skipped_samples + stats.replaced_samples >= 2 * turn
        assert len(list(pipeline)) == 3


def test_numbers_of_workers_are_kept_over_a_seek(monkeypatch):
    pretend_cores(monkeypatch, 8)
    with Pipeline([noise(workers=None), Pass(), Pass(workers=3)]) as pipeline:
        pipeline.start()
        inspected(pipeline).tuning.due = float("inf")
        inspected(pipeline).tuning.give([8, 5, 3])
        inspected(pipeline).tuning.give([4, 5, 3])
        for n in (0, 3, 0):
            next(pipeline.epoch(n))
            assert [module.workers for module in pipeline.stats().modules] == [4, 5, 3]
            # Parked workers too.
            assert [len(runner.workers) for runner in inspected(pipeline).runners] == [8, 5, 3]
        assert places(pipeline) == epoch(1)


@SEEKABLE
def test_no_thread_and_no_memory_is_left_after_many_breaks(ordered):
    with pipeline_of(noise, ordered) as pipeline:
        # Memory that is kept for reuse reaches its size first: it does not grow with the rounds.
        assert_nothing_left(lambda: next(iter(pipeline)), times=100, warm=300)
        # Those of the last run end or work.
        assert len(inspected(pipeline).control.threads) == len(inspected(pipeline).control.workers) == 3


@pytest.mark.parametrize("epochs", [None, 1000])
@pytest.mark.parametrize(
    "way",
    [
        lambda pipeline: pipeline.dequeue,
        lambda pipeline: iter(pipeline).__next__,
        lambda pipeline: pipeline.forever().__next__,
    ],
    ids=["dequeue", "iter", "forever"],
)
def test_a_batch_takes_few_calls(epochs, way):
    """Where megabytes move, the caches are cold, and each call costs microseconds."""
    count = 20
    with Pipeline([Noise(1, (2, 2), size=100, epochs=epochs, workers=1)]) as pipeline:
        take = way(pipeline)
        for _ in range(5):
            take()
        found = []
        sys.setprofile(
            lambda frame, event, _: found.append(frame.f_code.co_name) if event == "call" else None
        )
        try:
            for _ in range(count):
                take()
        finally:
            sys.setprofile(None)
        assert len(found) <= 4 * count, found
