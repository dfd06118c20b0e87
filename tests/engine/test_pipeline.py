"""Pipeline: what comes out, in which order, with which identity; epochs; ends; failures."""

from __future__ import annotations

import itertools
import math
import os
import random
import sys
import threading
import time
import traceback
import weakref

import numpy as np
import pytest
from concurrency import LIMIT, Task, eventually, pretend_cores, within
from small_modules import (
    Call,
    Collect,
    Drop,
    Gate,
    Numbers,
    NumbersWithEpochs,
    Pass,
    SizedNumbers,
    numbers_of,
)

from highway.batch import Batch
from highway.engine import Module, Pipeline, Sink, Source, Stage, usable_cores, workers
from highway.engine.inspection import inspected
from highway.errors import (
    ArgumentError,
    ContractError,
    EmptyEpochError,
    EndOfData,
    HighwayError,
    PipelineStateError,
    QueueClosed,
    UnknownLengthError,
    WaitTimeout,
)
from highway.transforms import FlipX

WORKERS = pytest.mark.parametrize("workers", [1, 2, 8])
ORDER = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])


# What comes out


@WORKERS
def test_every_batch_once_and_in_order(workers):
    modules = [Numbers(200, workers=workers), Pass(workers=workers), Pass()]
    with Pipeline(modules) as pipeline:
        assert numbers_of(pipeline) == list(range(200))


@WORKERS
def test_unordered_every_batch_once(workers):
    modules = [Numbers(200, workers=workers), Pass(workers=workers), Pass(workers=workers)]
    with Pipeline(modules, ordered=False) as pipeline:
        assert sorted(numbers_of(pipeline)) == list(range(200))


def test_order_holds_whichever_worker_is_faster():
    draw = random.Random(1)
    pauses = [draw.random() * 0.002 for _ in range(60)]
    pause = threading.Event()

    def dawdle(batch):
        pause.wait(pauses[batch.seq])
        return batch

    with Pipeline([Numbers(60, workers=4), Call(dawdle, workers=4), Call(dawdle, workers=3)]) as pipeline:
        assert numbers_of(pipeline) == list(range(60))


def test_unordered_does_not_wait_for_a_slow_one():
    gate = threading.Event()

    def stop_at_first(batch):
        if batch.seq == 0:
            assert gate.wait(LIMIT)
        return batch

    with Pipeline([Numbers(5), Call(stop_at_first, workers=2)], ordered=False) as pipeline:
        assert sorted(numbers_of(pipeline.dequeue(timeout=LIMIT) for _ in range(4))) == [1, 2, 3, 4]
        gate.set()
        assert numbers_of(pipeline) == [0]


@WORKERS
@ORDER
def test_batches_that_modules_leave_out_do_not_stop_the_rest(workers, ordered):
    modules = [
        Numbers(100, holes=[0, 1, 2, 50, 98, 99], workers=workers),
        Drop(lambda ticket: ticket % 3 == 0, workers=workers),
        Pass(workers=workers),
        Drop(lambda ticket: 20 <= ticket < 40, workers=workers),
    ]
    expected = [n for n in range(100) if n not in (0, 1, 2, 50, 98, 99) and n % 3 and not 20 <= n < 40]
    with Pipeline(modules, ordered=ordered) as pipeline:
        found = numbers_of(pipeline)
        assert (found if ordered else sorted(found)) == expected


def test_unordered_queues_of_different_sizes_do_not_lock_up():
    """A batch that may go far ahead in a large queue must not stand before the last worker of a small one."""
    gate = threading.Event()

    class LateFirst(Numbers):
        def load(self, task):
            if task == 0:
                assert gate.wait(LIMIT)
            return super().load(task)

    source = LateFirst(100, workers=2, queue_size=16)
    with Pipeline([source, Pass(queue_size=1)], ordered=False) as pipeline:
        found = numbers_of(pipeline.dequeue(timeout=LIMIT) for _ in range(7))
        eventually(lambda: inspected(pipeline).runners[0].output.measures()["reserving"])
        gate.set()
        while len(found) < 100:
            found += numbers_of([pipeline.dequeue(timeout=LIMIT)])
        assert sorted(found) == list(range(100))


def test_held_batches_never_change():
    with Pipeline([Numbers(300, workers=4), Pass(workers=2)], max_bytes=256) as pipeline:
        held = list(itertools.islice(pipeline, 200))
        views = [batch.numbers[::-1] for batch in held]
        for _ in range(100):
            pipeline.dequeue()
    del pipeline
    assert numbers_of(held) == list(range(200))
    del held
    assert [int(view[-1]) for view in views] == list(range(0, 800, 4))


def test_arrays_come_from_a_pool_of_the_pipeline_and_go_back():
    with Pipeline([Numbers(50, workers=1, queue_size=4)]) as pipeline:
        for batch in pipeline:
            assert type(batch.numbers.base).__name__ == "PooledBuffer"
        del batch
        pool = inspected(pipeline).control.pool.stats()
        assert pool["handed_out"] == 50
        assert pool["reused"] > 30
        assert pool["used_bytes"] == 0
        assert pool["free_bytes"] > 0
    assert inspected(pipeline).control.pool.stats()["free_bytes"] == 0


def test_nobody_keeps_a_batch_that_its_user_dropped():
    """Workers that wait for the next batch would keep the last one's memory from being used again."""

    class OneAtATime(Numbers):
        def __init__(self):
            super().__init__(workers=1)
            self.gate = threading.Event()

        def tasks(self):
            yield 0
            assert self.gate.wait(LIMIT)

        def interrupt(self):
            self.gate.set()

    def renew(batch):
        return Batch(batch.fields)

    with Pipeline([OneAtATime(), Pass(), Call(renew), Pass()]) as pipeline:
        batch = pipeline.dequeue(timeout=LIMIT)
        watches = [weakref.ref(batch), weakref.ref(batch.numbers)]
        del batch
        eventually(lambda: [watch() for watch in watches] == [None, None])
        assert inspected(pipeline).control.pool.stats()["used_bytes"] == 0
    with Pipeline([OneAtATime(), sink := Collect()]) as pipeline:
        eventually(lambda: sink.batches)
        watches = [weakref.ref(sink.batches.pop())]
        eventually(lambda: watches[0]() is None)


@ORDER
def test_several_threads_share_the_batches(ordered):
    with Pipeline([SizedNumbers(200, workers=2), Pass()], ordered=ordered) as pipeline:
        epoch = iter(pipeline)
        found = [task.result() for task in [Task(numbers_of, epoch) for _ in range(4)]]
    assert sorted(itertools.chain(*found)) == list(range(200))
    if ordered:
        assert all(mine == sorted(mine) for mine in found)


def test_worker_threads_only_run_ahead_as_far_as_the_queues_allow():
    taken = []

    class Counting(Numbers):
        def load(self, task):
            taken.append(task)
            return super().load(task)

    source = Counting(1000, workers=2, queue_size=5)
    with Pipeline([source]) as pipeline:
        pipeline.start()
        eventually(lambda: inspected(pipeline).queue.measures()["reserving"] == 2)
        assert sorted(taken) == list(range(5))
        pipeline.dequeue()
        eventually(lambda: len(taken) == 6 and inspected(pipeline).queue.measures()["reserving"] == 2)


def test_bytes_bound_what_is_outstanding():
    with Pipeline([Numbers(1000, workers=1, queue_size=100)], max_bytes=32 * 10) as pipeline:
        pipeline.start()
        eventually(lambda: inspected(pipeline).queue.measures()["reserving"] == 1)
        assert inspected(pipeline).queue.measures()["held_bytes"] == 320


def test_large_batches_pass_a_small_bound():
    with Pipeline([Numbers(20, workers=2), Pass(workers=2)], max_bytes=1) as pipeline:
        assert numbers_of(pipeline) == list(range(20))


def test_bound_below_a_byte_for_each_queue_is_still_a_bound():
    modules = [Numbers(1000, workers=1, queue_size=100), Pass(queue_size=100)]
    with Pipeline(modules, max_bytes=1) as pipeline:
        pipeline.start()
        for runner in inspected(pipeline).runners:

            def settled(queue=runner.output):
                measures = queue.measures()
                return measures["reserving"] == measures["held"] == 1

            eventually(settled)


# Identity


def test_engine_numbers_what_its_source_does_not():
    with Pipeline([Numbers(3, epochs=2)]) as pipeline:
        batches = list(pipeline)
    assert [(batch.epoch, batch.seq) for batch in batches] == [(0, seq) for seq in range(6)]
    assert batches[5].indices.tolist() == [20, 21, 22, 23]


def test_engine_counts_epochs_where_the_source_has_a_length():
    with Pipeline([SizedNumbers(3, epochs=2)]) as pipeline:
        batches = list(pipeline.forever())
    assert [(batch.epoch, batch.seq) for batch in batches] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert batches[4].indices.tolist() == [4, 5, 6, 7]


def test_numbers_of_the_source_stand():
    with Pipeline([NumbersWithEpochs(2, epochs=2)]) as pipeline:
        for epoch in range(2):
            assert [(batch.epoch, batch.seq) for batch in pipeline] == [(epoch, 0), (epoch, 1)]


def test_batch_that_a_stage_makes_takes_the_identity_of_its_input():
    def make(batch):
        return Batch({"sums": batch.numbers * 2})

    with Pipeline([SizedNumbers(2, epochs=2), Call(make)]) as pipeline:
        last = list(pipeline.forever())[-1]
    assert (last.epoch, last.seq, last.indices.tolist()) == (1, 1, [4, 5, 6, 7])


def test_modules_know_whether_their_input_is_theirs():
    source, first, second = Numbers(1), Pass(), Pass()
    with Pipeline([source, first, second]):
        assert (first.input_handed_over, second.input_handed_over) == (True, False)
        assert not source.input_handed_over


# Epochs


@WORKERS
@ORDER
def test_epochs_end_where_they_end(workers, ordered):
    modules = [SizedNumbers(10, epochs=3, workers=workers), Pass(workers=workers)]
    with Pipeline(modules, ordered=ordered) as pipeline:
        assert len(pipeline) == 10
        for epoch in range(3):
            found = numbers_of(pipeline.epoch())
            assert sorted(found) == list(range(10 * epoch, 10 * epoch + 10))


@ORDER
@pytest.mark.parametrize("holes", [[9], [0], [7, 8, 9], [9, 10], range(10), range(5, 15), range(10, 20)])
def test_epochs_end_right_when_batches_are_left_out(ordered, holes):
    modules = [SizedNumbers(10, epochs=3, holes=holes, workers=2), Pass(workers=2)]
    with Pipeline(modules, ordered=ordered) as pipeline:
        for epoch in range(3):
            expected = [n for n in range(10 * epoch, 10 * epoch + 10) if n not in holes]
            if not expected:
                with pytest.raises(EmptyEpochError, match=f"all 10 batches of epoch {epoch} were skipped"):
                    list(pipeline.epoch())
                continue
            assert sorted(numbers_of(pipeline.epoch())) == expected
        with pytest.raises(EndOfData):
            list(pipeline.epoch())


def test_epoch_after_a_break_is_the_next_one():
    with Pipeline([SizedNumbers(5, epochs=3)]) as pipeline:
        for batch in pipeline.epoch():
            if batch.seq == 1:
                break
        assert numbers_of([pipeline.dequeue()]) == [2]
        assert numbers_of(pipeline.epoch()) == [5, 6, 7, 8, 9]
        assert numbers_of([pipeline.dequeue()]) == [10]
        with pytest.raises(EndOfData, match=r"there is no epoch 3: SizedNumbers has epochs=3"):
            pipeline.epoch()


class LateHole(SizedNumbers):
    """Learns only when the test says so that it leaves out what ends its first epoch."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.gate = threading.Event()

    def load(self, task):
        if task == min(self.holes):
            assert self.gate.wait(LIMIT)
        return super().load(task)

    def interrupt(self):
        self.gate.set()


@ORDER
@pytest.mark.parametrize("known", [True, False])
def test_epoch_of_which_only_holes_are_left_is_over(ordered, known):
    source = LateHole(3, epochs=3, holes=[2], workers=2)
    with Pipeline([source], ordered=ordered) as pipeline:
        assert sorted(numbers_of(pipeline.dequeue(timeout=LIMIT) for _ in range(2))) == [0, 1]
        if known:
            source.gate.set()
            eventually(lambda: inspected(pipeline).queue.next_ticket == 3)
        batches = pipeline.epoch()
        source.gate.set()
        assert sorted(numbers_of(batches)) == [3, 4, 5]
        assert sorted(numbers_of(pipeline.epoch())) == [6, 7, 8]
        with pytest.raises(EndOfData):
            list(pipeline.epoch())


@ORDER
def test_epoch_of_nothing_but_holes_is_told_also_after_one_that_ends_in_holes(ordered):
    source = SizedNumbers(3, epochs=3, holes=range(2, 6), workers=2)
    with Pipeline([source], ordered=ordered) as pipeline:
        for _ in range(2):
            pipeline.dequeue(timeout=LIMIT)
        with pytest.raises(EmptyEpochError, match="epoch 1"):
            list(pipeline.epoch())
        assert sorted(numbers_of(pipeline.epoch())) == [6, 7, 8]


def test_data_that_ends_in_holes_ends():
    with Pipeline([SizedNumbers(3, holes=[2])]) as pipeline:
        for _ in range(2):
            pipeline.dequeue(timeout=LIMIT)
        for _ in range(2):
            with pytest.raises(EndOfData, match="2 of epoch 0; 1 more were skipped"):
                Task(lambda: numbers_of(pipeline.forever())).result()


@ORDER
def test_epoch_whose_rest_another_took_is_not_followed_by_the_next(ordered):
    for taken in (2, 3):
        with Pipeline([SizedNumbers(3, epochs=3)], ordered=ordered) as pipeline:
            batches = pipeline.epoch()
            next(batches)
            for _ in range(taken):
                pipeline.dequeue(timeout=LIMIT)
            assert numbers_of(batches) == []
            assert {batch.epoch for batch in pipeline.epoch()} == {taken - 1}


@ORDER
@pytest.mark.usefixtures("restless")
def test_several_threads_pass_over_the_holes_together(ordered):
    source = LateHole(100, epochs=3, holes=range(2, 100))
    with Pipeline([source, Pass()], ordered=ordered) as pipeline:
        for _ in range(2):
            pipeline.dequeue(timeout=LIMIT)
        batches = pipeline.epoch()
        start = threading.Barrier(3)

        def consume():
            first = next(batches)
            start.wait(LIMIT)
            return [first, *batches]

        tasks = [Task(consume) for _ in range(3)]
        # One of them drops the rest of the first epoch; the others wait for it.
        eventually(lambda: inspected(pipeline).queue.measures()["getting"] == 1)
        source.gate.set()
        found = [task.result() for task in tasks]
        assert sorted(numbers_of(itertools.chain(*found))) == list(range(100, 200))
        assert sorted(numbers_of(pipeline.epoch())) == list(range(200, 300))


def test_epoch_does_not_wait_for_the_next():
    class Stuck(SizedNumbers):
        def __init__(self):
            super().__init__(4, epochs=2, holes=[2, 3], workers=1)
            self.gate = threading.Event()

        def load(self, task):
            if task == 4:
                assert self.gate.wait(LIMIT)
            return super().load(task)

        interrupt = property(lambda self: self.gate.set)

    with Pipeline([Stuck()]) as pipeline:
        assert Task(lambda: numbers_of(pipeline.epoch())).result() == [0, 1]


def test_epoch_by_the_batches_where_no_length_is_known():
    with Pipeline([NumbersWithEpochs(4, epochs=3, holes=[3, 4, 5, 6, 7], workers=2), Pass()]) as pipeline:
        assert numbers_of(pipeline.epoch()) == [0, 1, 2]
        # All of the second epoch was left out, so the next batch belongs to the third.
        assert numbers_of(pipeline.epoch()) == [8, 9, 10, 11]
        with pytest.raises(EndOfData, match="7 of epochs 0 to 2; 5 more were skipped"):
            list(pipeline.epoch())


@pytest.mark.usefixtures("restless")
def test_several_threads_share_an_epoch():
    for source in (NumbersWithEpochs(100, epochs=2), SizedNumbers(100, epochs=2)):
        with Pipeline([source, Pass()]) as pipeline:
            batches, start = pipeline.epoch(), threading.Barrier(3)

            def consume(batches=batches, start=start):
                first = next(batches)
                start.wait(LIMIT)
                return [first, *batches]

            found = [task.result() for task in [Task(consume) for _ in range(3)]]
            assert sorted(numbers_of(itertools.chain(*found))) == list(range(100))
            assert numbers_of(pipeline.epoch()) == list(range(100, 200))


def test_epoch_gives_no_batch_that_another_thread_took_meanwhile():
    class Overtaken:
        """Between the look at a batch and the taking of it, somebody else takes every second one."""

        def __init__(self, queue):
            self.queue, self.taken = queue, []

        def peek(self, **arguments):
            ticket, batch = self.queue.peek(**arguments)
            if ticket % 2:
                self.taken.append(self.queue.get()[0])
            return ticket, batch

        def __getattr__(self, name):
            return getattr(self.queue, name)

    with Pipeline([NumbersWithEpochs(10)]) as pipeline:
        pipeline.start()
        inspected(pipeline).queue = overtaken = Overtaken(inspected(pipeline).queue)
        assert numbers_of(pipeline.epoch()) == [0, 2, 4, 6, 8]
        assert overtaken.taken == [1, 3, 5, 7, 9]


def test_epoch_of_unordered_batches_needs_a_length():
    with Pipeline([NumbersWithEpochs(4)], ordered=False) as pipeline:
        for call in (pipeline.epoch, lambda: iter(pipeline)):
            with pytest.raises(PipelineStateError, match="NumbersWithEpochs does not know the number"):
                next(call())
        # Nothing was lost.
        assert sorted(numbers_of(pipeline.forever())) == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(10))
def test_unordered_batches_stay_in_their_epoch(seed):
    """Also where the workers of a later stage overtake each other across the end of an epoch."""
    draw = random.Random(seed)
    pause = threading.Event()
    pauses = [draw.random() * 0.002 if draw.random() < 0.3 else 0 for _ in range(60)]

    def dawdle(batch):
        if pauses[batch.epoch * 6 + batch.seq]:
            pause.wait(pauses[batch.epoch * 6 + batch.seq])
        return batch

    modules = [
        SizedNumbers(6, epochs=10, workers=draw.randint(1, 4), queue_size=draw.randint(1, 5)),
        Call(dawdle, workers=draw.randint(1, 4), queue_size=draw.randint(1, 5)),
        Call(dawdle, workers=draw.randint(1, 4), queue_size=draw.randint(1, 5)),
    ]
    with Pipeline(modules, ordered=False, max_bytes=draw.choice([1, 500, None])) as pipeline:
        epochs = [batch.epoch for batch in pipeline.forever()]
    assert epochs == sorted(epochs)
    assert len(epochs) == 60


def test_length():
    with Pipeline([Numbers(3)]) as pipeline:
        with pytest.raises(UnknownLengthError, match="Numbers does not know"):
            len(pipeline)
        assert pipeline
        assert len(list(pipeline)) == 3


# Waiting


def test_timeouts_of_dequeue():
    gate = Gate()
    with Pipeline([Numbers(1), gate]) as pipeline:
        for arguments in ({"timeout": 0.001}, {"timeout": 0}, {"block": False}):
            with pytest.raises(WaitTimeout, match="no batch arrived within"):
                pipeline.dequeue(**arguments)
        with pytest.raises(ArgumentError, match="timeout"):
            pipeline.dequeue(timeout=-1)
        gate.gate.set()
        assert pipeline.dequeue(timeout=LIMIT).seq == 0


# Sinks


@WORKERS
def test_pipeline_that_ends_in_a_sink(workers):
    sink = Collect(workers=workers)
    with Pipeline([Numbers(100, holes=[3, 99], workers=workers), Pass(workers=workers), sink]) as pipeline:
        pipeline.wait(timeout=LIMIT)
        pipeline.wait()
        assert sorted(numbers_of(sink.batches)) == [n for n in range(100) if n not in (3, 99)]
    pipeline.wait()


def test_wait_has_a_timeout():
    gate = Gate()
    with Pipeline([Numbers(1), gate, Collect()]) as pipeline:
        with pytest.raises(WaitTimeout, match=r"sink was not done within 0\.001 s"):
            pipeline.wait(timeout=0.001)
        gate.gate.set()
        pipeline.wait(timeout=LIMIT)


@pytest.mark.parametrize("block", [5, 0.5, 0, None, "no"])
def test_number_in_the_place_of_block_is_no_timeout(block):
    with (
        Pipeline([Numbers(1)]) as pipeline,
        pytest.raises(
            ArgumentError, match=r"dequeue: block is .*; expected True or False; timeout= is for seconds"
        ),
    ):
        pipeline.dequeue(block)


def test_timeout_is_a_number():
    with Pipeline([Numbers(1)]) as pipeline:
        with pytest.raises(ArgumentError, match=r"Pipeline.dequeue: timeout is '5'; expected seconds"):
            pipeline.dequeue(timeout="5")
        assert pipeline.dequeue(np.True_, np.float32(LIMIT)).seq == 0
        for wrong in (-1, -0.5, float("nan")):
            with pytest.raises(
                ArgumentError, match=rf"^Pipeline.dequeue: timeout is {wrong}; expected seconds"
            ):
                pipeline.dequeue(timeout=wrong)
    with Pipeline([Numbers(1), Collect()]) as pipeline:
        with pytest.raises(ArgumentError, match=r"Pipeline.wait: timeout is \[1\]; expected seconds"):
            pipeline.wait([1])
        pipeline.wait(LIMIT)


@pytest.mark.parametrize("wrong", ["5", -1, float("nan")])
def test_drain_with_a_wrong_timeout_changes_nothing(wrong):
    gate, sink = Gate(), Collect()
    with Pipeline([Numbers(50), gate, sink]) as pipeline:
        assert gate.entered.wait(LIMIT)
        with pytest.raises(ArgumentError, match=r"^Pipeline.drain: timeout is .*; expected seconds"):
            pipeline.drain(wrong)
        gate.gate.set()
        pipeline.wait(LIMIT)
    assert len(sink.batches) == 50


def test_ordered_is_a_flag():
    with pytest.raises(ArgumentError, match="Pipeline: ordered is of type str; expected True or False"):
        Pipeline([Numbers(1)], ordered="no")


def test_module_alone_is_told_to_go_into_a_list():
    with pytest.raises(
        ArgumentError, match=r"modules must be a list .*; put it into a list: \[Numbers\(...\)\]"
    ):
        Pipeline(Numbers(1))


def test_sink_and_dequeue_exclude_each_other():
    with Pipeline([Numbers(1), Collect()]) as pipeline:
        for call in (pipeline.dequeue, pipeline.epoch, lambda: iter(pipeline)):
            with pytest.raises(PipelineStateError, match=r"ends in Collect.*wait\(\)"):
                call()
        pipeline.wait(LIMIT)
    with Pipeline([Numbers(1)]) as pipeline, pytest.raises(PipelineStateError, match=r"dequeue\(\)"):
        pipeline.wait()


# Failures


class Fault(Exception):
    """Raised by the modules under test."""


class FailsWhereTold:
    """For a module: raises `error` at the place that `where` names."""

    def __init__(self, where, error, **arguments):
        super().__init__(**arguments)
        self.where, self.error = where, error

    def fail(self, where):
        if where == self.where:
            raise self.error

    def open(self):
        self.fail("open")

    def close(self):
        self.fail("close")


class Failing(FailsWhereTold, Source):
    def tasks(self):
        self.fail("tasks")
        return self

    def __iter__(self):
        self.fail("iter")
        self.left = 5
        return self

    def __next__(self):
        self.left -= 1
        if self.left < 0:
            raise StopIteration
        if self.left == 0:
            self.fail("next")
        return self.left

    def load(self, task):
        if task == 0:
            self.fail("load")
        return Batch({"numbers": np.arange(4)})


class FailingStage(FailsWhereTold, Stage):
    def process(self, batch):
        if batch.seq == 3:
            self.fail("process")
        return batch


class FailingSink(FailsWhereTold, Sink):
    def consume(self, batch):
        if batch.seq == 3:
            self.fail("consume")


def drain(pipeline):
    while True:
        pipeline.dequeue(timeout=LIMIT)


def expect(pipeline, error, module, call=drain):
    """The pipeline raises that very exception, now and later, and says where it comes from."""
    depths = []
    for _ in range(3):
        with pytest.raises(type(error)) as caught:
            call(pipeline)
        assert caught.value is error
        depths.append(len(traceback.extract_tb(error.__traceback__)))
    assert depths[1] == depths[2], "the traceback must not grow"
    told = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert f"Raised in module {module}, thread 'highway {module} " in told
    assert "in fail" in told, "the traceback must show where it was raised"


@WORKERS
@pytest.mark.parametrize("where", ["open", "tasks", "iter", "next", "load", "close"])
def test_failure_of_a_source_reaches_dequeue(where, workers):
    error = Fault("broken")
    with Pipeline([Failing(where, error, workers=workers), Pass()]) as pipeline:
        expect(pipeline, error, "Failing")
        assert "failed" in repr(pipeline)


@WORKERS
@pytest.mark.parametrize("where", ["open", "process", "close"])
def test_failure_of_a_stage_reaches_dequeue(where, workers):
    error = Fault("broken")
    with Pipeline([Numbers(10), Pass(), FailingStage(where, error, workers=workers), Pass()]) as pipeline:
        expect(pipeline, error, "FailingStage")


@WORKERS
@pytest.mark.parametrize("where", ["open", "consume", "close"])
def test_failure_of_a_sink_reaches_wait(where, workers):
    error = Fault("broken")
    with Pipeline([Numbers(10), FailingSink(where, error, workers=workers)]) as pipeline:
        expect(pipeline, error, "FailingSink", lambda pipeline: pipeline.wait(LIMIT))


@pytest.mark.parametrize(
    "error",
    [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), MemoryError("no more"), QueueClosed("mine")],
)
def test_every_kind_of_exception_is_handed_over(error):
    with Pipeline([Numbers(10), FailingStage("process", error)]) as pipeline:
        expect(pipeline, error, "FailingStage")


@pytest.mark.parametrize(
    "error", [EndOfData("mine"), EmptyEpochError("mine"), WaitTimeout("mine"), StopIteration("mine")]
)
@pytest.mark.parametrize(
    "iterate",
    [list, lambda pipeline: list(pipeline.epoch()), lambda pipeline: [*iter(pipeline.dequeue, None)]],
)
def test_failure_that_looks_like_the_end_does_not_end_iteration_silently(error, iterate):
    """It is a failure, whatever its class."""
    with Pipeline([SizedNumbers(10), FailingStage("process", error)]) as pipeline:
        with pytest.raises(
            ContractError, match=rf"^FailingStage raised {type(error).__name__} \(mine\)"
        ) as caught:
            iterate(pipeline)
        assert caught.value.__cause__ is error


@pytest.mark.parametrize("place", ["stage", "source", "sink"])
def test_a_pipeline_within_a_module_that_ends_first_does_not_end_the_outer_one(place):
    """Whoever takes batches until EndOfData would lose the rest without a word."""
    with Pipeline([Numbers(2)]) as inner:

        def both(batch):
            inner.dequeue(timeout=LIMIT)
            return batch

        class Inner(Numbers):
            def load(self, task):
                return both(super().load(task))

        class Ends(Collect):
            def consume(self, batch):
                both(batch)

        modules = {
            "stage": [Numbers(10), Call(both)],
            "source": [Inner(10, workers=1)],
            "sink": [Numbers(10), Ends()],
        }[place]
        with Pipeline(modules) as pipeline:
            take = pipeline.wait if place == "sink" else lambda: drain(pipeline)
            name = {"stage": "Call", "source": "Inner", "sink": "Ends"}[place]
            for _ in range(2):
                with pytest.raises(ContractError, match=f"^{name} raised EndOfData .Pipeline.dequeue"):
                    take()


def test_failure_reaches_every_kind_of_caller():
    for call in (lambda p: list(p), lambda p: list(p.epoch()), drain):
        for source in (SizedNumbers(10), Numbers(10)):
            error = Fault("broken")
            with Pipeline([source, FailingStage("process", error)]) as pipeline:
                with pytest.raises(Fault) as caught:
                    call(pipeline)
                assert caught.value is error


def test_failure_reaches_who_waits_already():
    gate = Gate()
    error = Fault("broken")
    with Pipeline(
        [Numbers(10), gate, Call(lambda batch: FailingStage("process", error).fail("process"))]
    ) as pipeline:
        waiting = [Task(pipeline.dequeue) for _ in range(3)]
        eventually(lambda: inspected(pipeline).queue.measures()["getting"] == 3)
        gate.gate.set()
        for task in waiting:
            with pytest.raises(Fault) as caught:
                task.result()
            assert caught.value is error


def test_failure_does_not_wait_for_what_is_stuck_elsewhere():
    """Another module that never ends must not keep the failure from the caller."""
    stuck = threading.Event()

    def stick(batch):
        assert stuck.wait(LIMIT)
        return batch

    error = Fault("broken")
    pipeline = Pipeline([Failing("next", error, workers=1), Call(stick)])
    with within(1), pytest.raises(Fault):
        pipeline.dequeue(timeout=LIMIT)
    stuck.set()
    pipeline.stop()


def test_first_failure_counts():
    gate = threading.Barrier(4)

    def fail(batch):
        gate.wait(LIMIT)
        raise Fault(batch.seq)

    with Pipeline([Numbers(10), Call(fail, workers=4)]) as pipeline:
        with pytest.raises(Fault) as first:
            pipeline.dequeue()
        eventually(lambda: not any(thread.is_alive() for thread, _ in inspected(pipeline).control.threads))
        with pytest.raises(Fault) as later:
            pipeline.dequeue()
        assert later.value is first.value


def test_failure_while_another_is_handled_does_not_chain_the_engine_s_own():
    error = Fault("broken")
    with Pipeline([Numbers(10), FailingStage("process", error)]) as pipeline, pytest.raises(Fault):
        drain(pipeline)
    assert error.__context__ is None
    assert error.__cause__ is None or sys.version_info < (3, 11)


@pytest.mark.parametrize("result", [(1, 2), np.zeros(3), "batch"])
def test_module_that_returns_something_else_is_named(result):
    pipeline = Pipeline([Numbers(3), Call(lambda batch: result)])
    with (
        pipeline,
        pytest.raises(ContractError, match=f"Call.process returned {type(result).__name__}; it must"),
    ):
        pipeline.dequeue()

    class Odd(Numbers):
        def load(self, task):
            return result

    with Pipeline([Odd(3)]) as pipeline, pytest.raises(ContractError, match=r"Odd\.load returned"):
        pipeline.dequeue()


def test_methods_that_a_module_forgot_are_named():
    with (
        Pipeline([Source()]) as pipeline,
        pytest.raises(NotImplementedError, match=r"Source must define tasks"),
    ):
        pipeline.dequeue()

    class NoLoad(Source):
        def tasks(self):
            return iter([1])

    for modules, name in (
        ([NoLoad()], "NoLoad must define load"),
        ([Numbers(1), Stage()], "Stage must define process"),
    ):
        with Pipeline(modules) as pipeline, pytest.raises(NotImplementedError, match=name):
            pipeline.dequeue()
    with (
        Pipeline([Numbers(1), Sink()]) as pipeline,
        pytest.raises(NotImplementedError, match="Sink must define"),
    ):
        pipeline.wait()


def test_errors_are_those_of_the_source():
    class Careless(Numbers):
        def __init__(self):
            super().__init__(3)
            self.errors = []

        def load(self, task):
            self.errors.append((f"sample {task}", "bad"))
            return super().load(task)

    with Pipeline([Careless()]) as pipeline:
        list(pipeline)
        assert sorted(pipeline.errors) == [(f"sample {n}", "bad") for n in range(3)]
        pipeline.errors.clear()
        assert len(pipeline.errors) == 3
    with Pipeline([Numbers(1)]) as pipeline:
        assert pipeline.errors == []


# Workers


@WORKERS
def test_every_worker_opens_and_closes_in_its_own_thread(workers):
    events = []

    class Watched(Stage):
        def open(self):
            events.append(("open", threading.get_ident()))

        def close(self):
            events.append(("close", threading.get_ident()))

        def process(self, batch):
            assert ("open", threading.get_ident()) in events
            return batch

    with Pipeline([Numbers(50), Watched(workers=workers)]) as pipeline:
        list(pipeline)
        # The end of the data comes after every worker has closed.
        assert sorted(kind for kind, _ in events) == ["close"] * workers + ["open"] * workers
    assert len({thread for _, thread in events}) == workers


def test_end_of_the_data_waits_for_the_last_worker_to_close():
    """Else a failure to close would come too late to be seen."""
    first, second, gate = threading.Event(), threading.Event(), threading.Event()
    order = iter([first, second])

    class Watched(Stage):
        def close(self):
            mine = next(order)
            mine.set()
            if mine is second:
                assert gate.wait(LIMIT)

    with Pipeline([Numbers(0), Watched(workers=2)]) as pipeline:
        pipeline.start()
        assert first.wait(LIMIT)
        assert second.wait(LIMIT)
        eventually(lambda: len(inspected(pipeline).runners[1].present) == 1)
        with pytest.raises(WaitTimeout):
            pipeline.dequeue(timeout=0.02)
        gate.set()
        with pytest.raises(EndOfData):
            pipeline.dequeue(timeout=LIMIT)


def test_close_is_not_called_where_open_failed():
    closed = []

    class Watched(Stage):
        def open(self):
            raise Fault

        def close(self):
            closed.append(1)

    with Pipeline([Numbers(50), Watched()]) as pipeline, pytest.raises(Fault):
        pipeline.dequeue()
    assert closed == []


def test_workers_by_default():
    source, stage, sink = Numbers(1), Pass(), Collect()
    assert source.workers is stage.workers is sink.workers is None
    assert source.default_workers() == usable_cores() >= 1
    assert stage.default_workers() == sink.default_workers() == 1
    assert source.most_workers() == stage.most_workers() == usable_cores()
    assert sink.most_workers() == 1
    with Pipeline([source, stage, sink]) as pipeline:
        assert [module.workers for module in pipeline.stats().modules] == [usable_cores(), 1, 1]


# Workers that come and go


@pytest.fixture
def eight_cores(monkeypatch):
    pretend_cores(monkeypatch, 8)


def give(pipeline, *counts):
    """Have so many workers at work in each module; what the pipeline finds by itself does not count any more."""
    pipeline.start()
    tuning = inspected(pipeline).tuning
    # Who has the lock may be about to say when it looks again.
    with tuning.lock:
        tuning.due = math.inf
        tuning.give(counts)


class Meeting(Stage):
    """Works on a batch when `guests` workers have one each, and notes who did; `leave` lets everybody pass."""

    def __init__(self, **arguments):
        super().__init__(**{"queue_size": 4, **arguments})
        self.guests = 1
        self.leave = threading.Event()
        self.opened, self.closed, self.seen = [], [], []
        # Who has come since the last `expect`, or was at work then; who is at work now.
        self.present, self.inside = set(), set()
        self.changed = threading.Condition()

    def open(self):
        self.opened.append(threading.get_ident())

    def close(self):
        self.closed.append(threading.get_ident())

    def process(self, batch):
        me = threading.get_ident()
        with self.changed:
            self.seen.append(me)
            self.present.add(me)
            self.inside.add(me)
            self.changed.notify_all()
            assert self.changed.wait_for(
                lambda: len(self.present) >= self.guests or self.leave.is_set(), LIMIT
            )
            self.inside.discard(me)
        return batch

    def expect(self, guests):
        with self.changed:
            # Who waits inside now may be the only one that will ever come.
            self.present = set(self.inside)
            self.guests = guests
            self.changed.notify_all()

    def interrupt(self):
        self.leave.set()


@pytest.mark.usefixtures("eight_cores")
def test_workers_are_started_when_they_are_needed_and_not_before():
    stage = Meeting()
    with Pipeline([Numbers(10_000), stage]) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
        inspected(pipeline).tuning.due = math.inf
        assert len(stage.opened) == 1
        assert [thread.name for thread, _ in inspected(pipeline).control.threads][8:] == ["highway Meeting 0"]
        stage.expect(3)
        give(pipeline, 8, 3)
        # Three can only pass together.
        batches = [pipeline.dequeue(timeout=LIMIT) for _ in range(12)]
        assert numbers_of(batches) == list(range(1, 13))
        assert len(stage.opened) == len(set(stage.opened)) == 3
        assert pipeline.stats().modules[1].workers == 3
    assert sorted(stage.closed) == sorted(stage.opened)


@pytest.mark.usefixtures("eight_cores")
def test_parked_workers_take_nothing_until_they_are_needed_again():
    stage = Meeting()
    with Pipeline([Numbers(10_000), stage]) as pipeline:
        give(pipeline, 8, 4)
        stage.expect(4)
        pipeline.dequeue(timeout=LIMIT)
        give(pipeline, 8, 1)
        stage.expect(1)
        # Whatever was begun is finished, by whoever began it.
        for _ in range(20):
            pipeline.dequeue(timeout=LIMIT)
        del stage.seen[:]
        for _ in range(50):
            pipeline.dequeue(timeout=LIMIT)
        assert set(stage.seen) == {stage.opened[0]}
        give(pipeline, 8, 4)
        stage.expect(4)
        found = numbers_of(pipeline.dequeue(timeout=LIMIT) for _ in range(20))
        assert found == list(range(71, 91))
        assert len(stage.opened) == 4
        assert set(stage.seen) == set(stage.opened)


@pytest.mark.usefixtures("eight_cores")
def test_parked_workers_of_a_source_take_no_tasks():
    loaders = []

    class Watched(Numbers):
        def load(self, task):
            loaders.append(threading.current_thread().name)
            return super().load(task)

    with Pipeline([Watched(10_000)]) as pipeline:
        give(pipeline, 1)
        for _ in range(40):
            pipeline.dequeue(timeout=LIMIT)
        del loaders[:]
        found = numbers_of(pipeline.dequeue(timeout=LIMIT) for _ in range(40))
        assert found == list(range(40, 80))
        assert set(loaders) == {"highway Watched 0"}


@ORDER
@pytest.mark.usefixtures("eight_cores")
def test_end_of_the_data_comes_after_parked_workers_have_closed(ordered):
    source, stage, sink = SizedNumbers(500), Meeting(), Meeting()
    with Pipeline([source, stage, sink], ordered=ordered) as pipeline:
        give(pipeline, 8, 8, 3)
        pipeline.dequeue(timeout=LIMIT)
        give(pipeline, 2, 1, 1)
        assert sorted(numbers_of(pipeline.forever())) == list(range(1, 500))
        for module, count in ((stage, 8), (sink, 3)):
            assert len(module.opened) == len(module.closed) == count
        # Nobody comes back after the end.
        give(pipeline, 8, 8, 8)
        assert len(sink.opened) == 3
        with pytest.raises(EndOfData):
            pipeline.dequeue(timeout=LIMIT)
    assert pipeline.stats().seconds > 0


@ORDER
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("eight_cores", "restless")
def test_batches_are_the_same_while_numbers_of_workers_change(ordered, seed):
    draw = random.Random(seed)
    for length in (3, 40, 400):
        modules = [
            Numbers(length, holes=[1, 5]),
            Drop(lambda ticket: ticket % 7 == 3),
            Pass(queue_size=draw.randint(1, 9)),
            Collect(),
        ]
        modules[3].most_workers = lambda: 8
        with Pipeline(modules, ordered=ordered, max_bytes=draw.choice([1, 500, None])) as pipeline:

            def change(pipeline=pipeline):
                while inspected(pipeline).control.ended is None:
                    give(pipeline, *(draw.choice([1, 2, 8]) for _ in range(4)))

            changing = Task(change)
            pipeline.wait(LIMIT)
            changing.result()
            found = sorted(numbers_of(modules[3].batches))
            assert found == [n for n in range(length) if n not in (1, 5) and n % 7 != 3]


@pytest.mark.usefixtures("eight_cores", "restless")
def test_order_holds_while_numbers_of_workers_change():
    draw = random.Random(1)
    with Pipeline([Numbers(1500), Pass(), Pass()], max_bytes=400) as pipeline:
        for number in range(1500):
            if number % 10 == 0:
                give(pipeline, *(draw.choice([1, 2, 8]) for _ in range(3)))
            assert numbers_of([pipeline.dequeue(timeout=LIMIT)]) == [number]
        with pytest.raises(EndOfData):
            pipeline.dequeue(timeout=LIMIT)


@pytest.mark.usefixtures("eight_cores")
@pytest.mark.parametrize("where", ["open", "process", "close"])
def test_failure_of_a_worker_that_came_later_reaches_dequeue(where):
    error = Fault("broken")

    class Late(Meeting):
        def fail(self, here):
            if here == where and threading.get_ident() != self.opened[0]:
                raise error

        def open(self):
            super().open()
            self.fail("open")

        def process(self, batch):
            super().process(batch)
            self.fail("process")
            return batch

        def close(self):
            self.fail("close")

    stage = Late()
    with Pipeline([Numbers(100), stage, Pass()]) as pipeline:
        give(pipeline, 8, 2, 1)
        if where == "process":
            stage.expect(2)
        expect(pipeline, error, "Late")
        assert_threads_end(pipeline)


def assert_threads_end(pipeline):
    eventually(lambda: not any(thread.is_alive() for thread, _ in inspected(pipeline).control.threads))


@pytest.mark.usefixtures("eight_cores")
def test_failure_wakes_parked_workers():
    stage = Meeting()
    failing = FailingStage("process", Fault("broken"))
    gate = Gate()
    with Pipeline([Numbers(100), stage, gate, failing]) as pipeline:
        give(pipeline, 8, 8, 1, 1)
        give(pipeline, 1, 1, 1, 1)
        gate.gate.set()
        with pytest.raises(Fault):
            drain(pipeline)
        assert_threads_end(pipeline)
    assert len(stage.closed) == len(stage.opened) == 8


@pytest.mark.usefixtures("eight_cores")
def test_thread_that_is_not_to_be_had_is_done_without(monkeypatch):
    stage = Pass()
    with Pipeline([Numbers(100), stage]) as pipeline:
        start = threading.Thread.start

        def limited(thread):
            if thread.name == "highway Pass 2":
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", limited)
        give(pipeline, 8, 5)
        runner = inspected(pipeline).runners[1]
        assert (runner.active, runner.most, len(runner.workers)) == (2, 2, 2)
        assert inspected(pipeline).tuning.reading(0).modules[1].allowed == 2
        assert numbers_of(pipeline) == list(range(100))


def held_and_reserving(queue):
    measures = queue.measures()
    return [measures["held"], measures["reserving"]]


@pytest.mark.usefixtures("eight_cores")
def test_bounds_follow_the_workers_that_are_at_work():
    """Neither more batches nor more bytes than the workers need: here a batch each, and two."""
    for max_bytes, batches in ((1, 1), (None, 2)):
        with Pipeline([Numbers(10_000, queue_size=1)], max_bytes=max_bytes) as pipeline:
            pipeline.start()
            queue = inspected(pipeline).queue
            for workers in (8, 3, 1, 3):
                give(pipeline, workers)
                # Each of the eight may be about to hand in one more than it is to.
                for _ in range(8 * batches + 8):
                    pipeline.dequeue(timeout=LIMIT)

                expected = [batches * workers, workers]
                eventually(lambda queue=queue, expected=expected: held_and_reserving(queue) == expected)
                assert pipeline.stats().modules[0].capacity == 2 * workers


@pytest.mark.usefixtures("eight_cores")
def test_memory_for_batches_bounds_the_workers():
    def allowed(max_bytes, workers=1, **queue):
        modules = [Numbers(100, workers=workers, **queue), Pass(**queue), Pass(**queue)]
        with Pipeline(modules, max_bytes=max_bytes) as pipeline:
            list(pipeline)
            return [module.allowed for module in inspected(pipeline).tuning.reading(0).modules]

    # Batches of 32 bytes, each queue has a third, whatever the others do with theirs.
    assert allowed(32 * 15, queue_size=9) == [1, 5, 5]
    # Four in each queue leave three to who needs them, beside its own.
    assert allowed(32 * 15, queue_size=4) == [1, 7, 7]
    # Small batches fill each queue, so that nothing is left.
    assert allowed(32 * 15) == [1, 5, 5]
    assert allowed(32 * 3) == [1, 1, 1]
    assert allowed(32 * 6, workers=9) == [2, 2, 2]
    assert allowed(32 * 1000) == [1, 8, 8]


@pytest.mark.usefixtures("eight_cores")
def test_memory_is_no_bound_while_the_size_of_batches_is_unknown():
    gate = Gate()
    with Pipeline([Numbers(100, workers=1), gate], max_bytes=64) as pipeline:
        pipeline.start()
        assert gate.entered.wait(LIMIT)
        assert inspected(pipeline).tuning.reading(0).modules[1].allowed == 8


class Disk(Pass):
    """Waits a little with every batch, as for a disk: so many workers, so many times as fast."""

    def process(self, batch):
        threading.Event().wait(0.005)
        return batch


@pytest.mark.usefixtures("eight_cores")
def test_module_that_limits_gets_more_workers_by_itself():
    disk, fixed = Disk(), Disk(workers=2)
    with Pipeline([Numbers(100_000), disk, fixed]) as pipeline:
        batches = iter(pipeline)
        deadline = time.monotonic() + LIMIT

        def more():
            assert time.monotonic() < deadline
            next(batches)
            return pipeline.stats().modules[1].workers

        while more() < 2:
            pass
        while not any(trial.kept for trial in inspected(pipeline).tuning.tuner.trials):
            more()
        assert pipeline.stats().modules[2].workers == 2
        assert "Disk 1 1 -> 2 (+" in pipeline.stats().tuning
        assert "2 (auto)" in str(pipeline.stats())


@pytest.mark.usefixtures("eight_cores")
def test_fixed_numbers_are_not_even_looked_at():
    with Pipeline([Numbers(100, workers=2), Pass(workers=1), Collect()]) as pipeline:
        pipeline.wait(LIMIT)
        assert inspected(pipeline).tuning.due == math.inf
        stats = pipeline.stats()
    assert [module.tuned for module in stats.modules] == [False, False, False]
    assert (stats.tuning, stats.settled) == ("", True)


def test_one_core_leaves_nothing_to_tune(monkeypatch):
    pretend_cores(monkeypatch, 1)
    with Pipeline([Numbers(100), Pass()]) as pipeline:
        assert numbers_of(pipeline) == list(range(100))
        assert not any(module.tuned for module in pipeline.stats().modules)


@pytest.mark.usefixtures("eight_cores")
def test_figures_that_are_looked_at():
    """What the tuner is told, with and without a sink, counts what was left out too."""
    for end in ([], [Collect()]):
        with Pipeline([Numbers(20, holes=[3], workers=1), Drop(lambda ticket: ticket > 9), *end]) as pipeline:
            if end:
                pipeline.wait(LIMIT)
            else:
                list(pipeline)
            reading = inspected(pipeline).tuning.reading(inspected(pipeline).control.started + 5)
        assert reading.seconds == 5
        assert reading.delivered == 20
        assert reading.cpu > 0
        assert (reading.consumer_waited is None) == bool(end)
        assert [module.workers for module in reading.modules] == [1, 1, 1][: len(reading.modules)]
        assert all(module.busy > 0 for module in reading.modules)
        assert [module.waited_tasks > 0 for module in reading.modules[:2]] == [True, False]


@pytest.mark.usefixtures("eight_cores")
def test_every_kind_of_module_looks_at_the_figures_when_it_is_time(monkeypatch):
    monkeypatch.setattr("highway.engine.workers.LOOK_INTERVAL", -math.inf)
    gate, who = Gate(), set()
    modules = [Numbers(20, workers=1, queue_size=4), Pass(queue_size=4), gate, Collect()]
    with Pipeline(modules) as pipeline:
        assert gate.entered.wait(LIMIT)
        inspected(pipeline).tuning.look = lambda: who.add(threading.current_thread().name)
        gate.gate.set()
        pipeline.wait(LIMIT)
    assert who == {f"highway {name} 0" for name in ("Numbers", "Pass", "Gate", "Collect")}


@pytest.mark.usefixtures("eight_cores")
def test_figures_are_looked_at_by_one_at_a_time_now_and_then_and_not_after_the_end():
    gate, seen = Gate(), []
    with Pipeline([Numbers(2), gate]) as pipeline:
        pipeline.start()
        assert gate.entered.wait(LIMIT)
        eventually(lambda: not inspected(pipeline).runners[0].present)
        tuning = inspected(pipeline).tuning
        tuning.tuner.observe = seen.append
        for _ in range(2):
            tuning.due = 0
            with tuning.lock:
                Task(tuning.look).result()
            tuning.look()
            tuning.look()
        assert len(seen) == 2
        gate.gate.set()
        tuning.due = math.inf
        list(pipeline)
        tuning.due = 0
        tuning.look()
        assert len(seen) == 2


def test_time_without_a_processor_is_read_where_it_is_asked_for():
    gate = Gate()
    with Pipeline([Numbers(100), gate]) as pipeline:
        pipeline.start()
        assert gate.entered.wait(LIMIT)
        tuning = inspected(pipeline).tuning
        tuning.due = math.inf
        assert tuning.reading(0).delayed is None
        tuning.tuner.asks_for_delay = True
        delayed = tuning.reading(0).delayed
        assert (delayed is not None) == os.path.exists("/proc/self/schedstat")
        assert delayed is None or 0 <= delayed < LIMIT
    assert delayed is None or tuning.reading(0).delayed >= delayed


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="the system keeps no schedstat")
def test_a_worker_tells_how_long_its_thread_waited_for_a_processor():
    def told():
        with open(f"/proc/self/task/{threading.get_native_id()}/schedstat") as figures:
            return int(figures.read().split()[1]) / 1e9

    worker = workers.WorkerThread(0)
    worker.thread = threading.get_native_id()
    before = told()
    assert before <= worker.delay() <= told()
    # A thread that has ended keeps its last figure.
    worker.thread = 0
    assert worker.delay() >= before


def test_module_may_forget_to_call_init():
    class Bare(Source):
        def __init__(self):
            pass

        def tasks(self):
            return iter(range(3))

        def load(self, task):
            return Batch({"numbers": np.arange(4 * task, 4 * task + 4)})

    with Pipeline([Bare()]) as pipeline:
        assert numbers_of(pipeline) == [0, 1, 2]


def test_modules_are_called_by_their_class_unless_they_say_otherwise():
    class Renamed(Pass):
        name = "Other"

    assert (Pass.name, Pass().name, Renamed().name) == ("Pass", "Pass", "Other")
    with Pipeline([Numbers(1), Pass(), Renamed(), Pass()]) as pipeline:
        assert [module.name for module in pipeline.stats().modules] == [
            "Numbers",
            "Pass 1",
            "Other",
            "Pass 2",
        ]
        assert repr(pipeline) == "<Pipeline Numbers -> Pass 1 -> Other -> Pass 2, not started>"
        pipeline.start()
        assert repr(pipeline) == "<Pipeline Numbers -> Pass 1 -> Other -> Pass 2, running>"
    assert repr(pipeline) == "<Pipeline Numbers -> Pass 1 -> Other -> Pass 2, stopped>"


# Arguments


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (list, "must be a list that begins with a Source"),
        (lambda: Numbers(1), "must be a list"),
        (lambda: [Pass()], r"modules\[0\] must be a Source, such as ImageFileReader\(\.\.\.\), but is Pass"),
        (
            lambda: [Numbers(1), Numbers(1)],
            r"modules\[1\] must be a Stage or a Sink, but is Numbers, a Source",
        ),
        (
            lambda: [Numbers(1), Collect(), Pass()],
            r"modules\[1\] must be a Stage, but is Collect, a Sink; a Sink is",
        ),
        (lambda: [Numbers(1), FlipX()], r"must be a Module, but is FlipX; transforms go into Augmentations"),
        (lambda: [Numbers(1), [FlipX()]], r"must be a Module, but is list; transforms go into Augmentations"),
        (lambda: [Numbers(1), [Pass()]], r"must be a Module, but is list$"),
        (lambda: [Numbers(1), Pass], r"modules\[1\] must be a Module, but is the class Pass itself; call it"),
        (
            lambda: [Numbers(1), len],
            r"modules\[1\] must be a Module, but is builtin.*; Map\(function\) makes",
        ),
        (
            lambda: [range(9)],
            r"modules\[0\] must be a Module, but is range; DatasetReader\(dataset, batch_size\)",
        ),
        (lambda: [Numbers(1), Module()], r"modules\[1\] must be a Stage or a Sink, but is Module"),
    ],
)
def test_modules_that_do_not_fit_are_refused(modules, message):
    with pytest.raises(ArgumentError, match=message):
        Pipeline(modules())


def test_modules_serve_any_number_of_pipelines():
    """At once, one after the other, and twice in the same one."""
    modules = [Numbers(3), *[Pass()] * 2]
    with Pipeline(modules) as pipeline, Pipeline(modules) as other:
        assert numbers_of([pipeline.dequeue()]) == [0]
        assert numbers_of(other) == [0, 1, 2]
        assert numbers_of(pipeline.forever()) == [1, 2]
    with Pipeline(modules) as pipeline:
        assert numbers_of(pipeline) == [0, 1, 2]
        assert [module.batches for module in pipeline.stats().modules] == [3, 3, 3]


def test_refused_modules_can_be_used_later():
    source = Numbers(1)
    with pytest.raises(ArgumentError):
        Pipeline([source, source])
    with Pipeline([source]) as pipeline:
        assert numbers_of(pipeline) == [0]


@pytest.mark.parametrize("name", ["workers", "queue_size"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, 10**30])
def test_counts_of_a_module_are_checked(name, value):
    with pytest.raises(ArgumentError, match=f"Pass: {name} is {value!r}; expected a whole number"):
        Pass(**{name: value})


def test_a_module_has_at_most_1024_workers():
    with pytest.raises(ArgumentError, match="Pass: workers is 1025; expected a whole number from 1 to 1024"):
        Pass(workers=1025)


def test_a_queue_has_at_most_65536_places():
    message = "Pass: queue_size is 65537; expected a whole number from 1 to 65536"
    with pytest.raises(ArgumentError, match=message):
        Pass(queue_size=65537)


@pytest.mark.parametrize("value", [0, -5, 1.5, 2**62 + 1, 10**30])
def test_max_bytes_is_checked(value):
    with pytest.raises(
        ArgumentError, match=f"Pipeline: max_bytes is {value}; expected a whole number from 1 to {2**62}"
    ):
        Pipeline([Numbers(1)], max_bytes=value)


def test_largest_bounds_work():
    with Pipeline([Numbers(3, queue_size=65536), Pass()], ordered=False, max_bytes=2**62) as pipeline:
        assert sorted(numbers_of(pipeline)) == [0, 1, 2]


def test_counts_may_be_numpy_integers():
    assert Pass(workers=np.int64(3), queue_size=np.uint8(2)).workers == 3


def test_errors_are_highway_errors():
    for error in (
        ArgumentError,
        ContractError,
        EndOfData,
        PipelineStateError,
        UnknownLengthError,
        WaitTimeout,
    ):
        assert issubclass(error, HighwayError)
