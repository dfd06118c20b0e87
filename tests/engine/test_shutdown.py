"""Stopping from every state, dropping, leaving the interpreter, forking: no thread, no hang."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from functools import partial

import pytest
from concurrency import LIMIT, Task, eventually, pretend_cores, within
from leaks import assert_nothing_left
from small_modules import Call, Collect, Gate, Numbers, Pass, SizedNumbers, numbers_of

from highway.engine import Pipeline, Stage
from highway.engine.inspection import inspected
from highway.errors import EndOfData, PipelineStateError


class Stuck(Stage):
    """Cannot be woken by the pipeline; the test lets its workers go in the end."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def process(self, batch):
        self.entered.set()
        assert self.let_go.wait(LIMIT)
        return batch


def stop_in_time(pipeline):
    with within(2):
        pipeline.stop()


def threads_of(pipeline):
    return [thread for thread, _ in inspected(pipeline).control.threads]


def assert_ended(threads):
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive(), thread.name


# Stopping


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("ordered", [True, False])
def test_stop_while_workers_wait_for_room(workers, ordered):
    modules = [Numbers(10_000, workers=workers), Pass(workers=workers), Pass(workers=workers)]
    pipeline = Pipeline(modules, ordered=ordered)
    pipeline.start()
    threads = threads_of(pipeline)
    eventually(lambda: inspected(pipeline).queue.measures()["reserving"] == workers)
    stop_in_time(pipeline)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_stop_while_workers_wait_for_batches(workers):
    gate = Gate()
    pipeline = Pipeline([Numbers(10), gate, Pass(workers=workers), Collect(workers=workers)])
    threads = threads_of(pipeline)
    assert gate.entered.wait(LIMIT)
    eventually(lambda: inspected(pipeline).runners[-1].input.measures()["getting"] == workers)
    stop_in_time(pipeline)
    assert not any(thread.is_alive() for thread in threads)


def test_stop_wakes_a_module_that_can_be_woken():
    gate = Gate(workers=2)
    pipeline = Pipeline([Numbers(10), gate])
    pipeline.start()
    assert gate.entered.wait(LIMIT)
    stop_in_time(pipeline)


def test_stop_wakes_a_source_that_waits_for_tasks():
    class Waiting(Numbers):
        def __init__(self):
            super().__init__(workers=4)
            self.gate = threading.Event()
            self.entered = threading.Event()

        def tasks(self):
            self.entered.set()
            assert self.gate.wait(LIMIT)
            yield 0

        def interrupt(self):
            self.gate.set()

    source = Waiting()
    pipeline = Pipeline([source])
    pipeline.start()
    assert source.entered.wait(LIMIT)
    stop_in_time(pipeline)


def test_stop_leaves_a_hung_module_behind_and_names_it():
    hung, other = Stuck(workers=2), Stuck()
    pipeline = Pipeline([Numbers(10), hung, Call(lambda batch: batch), other])
    pipeline.start()
    threads = threads_of(pipeline)
    assert hung.entered.wait(LIMIT)
    with pytest.warns(
        RuntimeWarning, match=r"Stuck 1 did not end within 1\.5 s of stop\(\): 2 of its threads"
    ):
        stop_in_time(pipeline)
    with within(1):
        pipeline.stop()
    hung.let_go.set()
    assert_ended(threads)


def test_stop_is_idempotent_and_final():
    pipeline = Pipeline([SizedNumbers(10), Pass()])
    held = pipeline.dequeue()
    for _ in range(3):
        stop_in_time(pipeline)
    for call in (
        pipeline.dequeue,
        lambda: next(iter(pipeline)),
        lambda: next(pipeline.epoch()),
        lambda: pipeline.dequeue(block=False),
    ):
        with pytest.raises(PipelineStateError, match="was stopped; make a new one"):
            call()
    assert len(pipeline) == 10
    assert pipeline.errors == []
    assert pipeline.stats().modules[0].batches >= 1
    assert numbers_of([held]) == [0]


def test_fail_raises_where_batches_are_waited_for():
    gate = Gate()
    pipeline = Pipeline([Numbers(10), gate])
    waiting = Task(pipeline.dequeue)
    assert gate.entered.wait(LIMIT)
    threads = threads_of(pipeline)
    error = ConnectionError("The others are gone.")
    pipeline.fail(error)
    pipeline.fail(ValueError("only the first one counts"))
    with pytest.raises(ConnectionError) as raised:
        waiting.result()
    assert raised.value is error
    assert_ended(threads)
    with pytest.raises(ConnectionError, match="The others are gone"):
        pipeline.dequeue()
    stop_in_time(pipeline)


def test_fail_after_stop_changes_nothing():
    pipeline = Pipeline([SizedNumbers(10), Pass()])
    pipeline.start()
    stop_in_time(pipeline)
    pipeline.fail(ConnectionError("too late"))
    with pytest.raises(PipelineStateError, match="was stopped"):
        pipeline.dequeue()


def test_stop_after_the_end():
    pipeline = Pipeline([Numbers(3)])
    assert numbers_of(pipeline) == [0, 1, 2]
    with pytest.raises(EndOfData):
        pipeline.dequeue()
    stop_in_time(pipeline)
    with pytest.raises(PipelineStateError):
        pipeline.dequeue()


def test_iteration_does_not_end_silently_when_the_pipeline_is_stopped():
    pipeline = Pipeline([Numbers(10)])
    batches = iter(pipeline)
    next(batches)
    pipeline.stop()
    with pytest.raises(PipelineStateError):
        next(batches)


@pytest.mark.parametrize(
    ("modules", "call"),
    [
        (lambda gate: [Numbers(10), gate], lambda pipeline: pipeline.dequeue),
        (lambda gate: [Numbers(10), gate], lambda pipeline: partial(pipeline.dequeue, timeout=LIMIT)),
        (lambda gate: [Numbers(10), gate], lambda pipeline: partial(list, iter(pipeline))),
        (lambda gate: [Numbers(10), gate], lambda pipeline: lambda: list(pipeline.forever())),
        (lambda gate: [SizedNumbers(10), gate], lambda pipeline: partial(list, pipeline.epoch())),
        (lambda gate: [Numbers(10), gate, Collect()], lambda pipeline: pipeline.wait),
    ],
)
def test_stop_from_another_thread_ends_who_waits(modules, call):
    class Silent(Gate):
        def process(self, batch):
            super().process(batch)

    gate = Silent()
    pipeline = Pipeline(modules(gate))
    shared = call(pipeline)
    waiting = [Task(shared) for _ in range(2)]
    eventually(lambda: inspected(pipeline).queue.measures()["getting"] == 2)
    stop_in_time(pipeline)
    for task in waiting:
        with pytest.raises(PipelineStateError, match="was stopped"):
            task.result()


def test_many_threads_may_stop():
    gate = Gate()
    pipeline = Pipeline([Numbers(10), gate, Pass(workers=4)])
    pipeline.start()
    threads = threads_of(pipeline)

    def stop():
        pipeline.stop()
        return any(thread.is_alive() for thread in threads)

    assert [task.result() for task in [Task(stop) for _ in range(5)]] == [False] * 5


def test_module_may_stop_its_own_pipeline():
    ready, returned = threading.Event(), threading.Event()

    def stop(batch):
        assert ready.wait(LIMIT)
        pipeline.stop()
        returned.set()
        return batch

    pipeline = Pipeline([Numbers(10), Call(stop)])
    pipeline.start()
    threads = threads_of(pipeline)
    ready.set()
    with pytest.raises(PipelineStateError):
        list(pipeline)
    assert returned.wait(LIMIT)
    pipeline.stop()
    assert not any(thread.is_alive() for thread in threads)


def test_context_manager_stops_also_after_an_error():
    pipeline = Pipeline([Numbers(10)])
    pipeline.start()
    threads = threads_of(pipeline)
    with pytest.raises(ZeroDivisionError), pipeline:
        _ = 1 / 0
    assert not any(thread.is_alive() for thread in threads)


def test_trouble_while_stopping_is_told():
    class Fragile(Gate):
        def close(self):
            raise OSError("cannot close")

        def interrupt(self):
            super().interrupt()
            raise ValueError("cannot interrupt")

    pipeline = Pipeline([Numbers(10), fragile := Fragile()])
    pipeline.start()
    assert fragile.entered.wait(LIMIT)
    with pytest.warns(RuntimeWarning) as caught:
        pipeline.stop()
    assert sorted(str(warning.message) for warning in caught) == [
        "Pipeline: Fragile.close() raised OSError('cannot close')",
        "Pipeline: Fragile.interrupt() raised ValueError('cannot interrupt')",
    ]


def test_what_a_woken_worker_raises_is_dropped():
    class Woken(Gate):
        def process(self, batch):
            super().process(batch)
            raise ConnectionResetError

    gate = Woken()
    pipeline = Pipeline([Numbers(10), gate])
    pipeline.start()
    assert gate.entered.wait(LIMIT)
    pipeline.stop()
    with pytest.raises(PipelineStateError):
        pipeline.dequeue()


def test_thread_that_cannot_be_started_leaves_none_behind(monkeypatch):
    started = []
    start = threading.Thread.start

    def limited(thread):
        if len(started) == 3:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="can't start"):
        Pipeline([Numbers(10, workers=2), Pass(workers=8)]).start()
    assert len(started) == 3
    assert not any(thread.is_alive() for thread in started)


def test_control_c_while_threads_are_started_leaves_none_behind(monkeypatch):
    started, failures = [], []
    start = threading.Thread.start

    def interrupted(thread):
        started.append(thread)
        start(thread)
        if len(started) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    monkeypatch.setattr(threading, "excepthook", failures.append)
    with pytest.raises(KeyboardInterrupt):
        Pipeline([Numbers(10, workers=2), Pass(workers=8)]).start()
    assert len(started) == 3
    assert not any(thread.is_alive() for thread in started)
    assert failures == []


# Parked workers


def with_parked_workers(modules, most=8):
    """A pipeline of which every tuned module has all its workers but one parked."""
    pipeline = Pipeline(modules)
    pipeline.start()
    inspected(pipeline).tuning.due = float("inf")
    for count in (most, 1):
        inspected(pipeline).tuning.give([count] * len(modules))
    return pipeline


@pytest.fixture
def eight_cores(monkeypatch):
    pretend_cores(monkeypatch, 8)


@pytest.mark.usefixtures("eight_cores")
def test_stop_wakes_parked_workers():
    gate = Gate()
    pipeline = with_parked_workers([Numbers(10_000), Pass(), gate, Pass()], most=4)
    threads = threads_of(pipeline)
    assert len(threads) == 8 + 3 * 4
    assert gate.entered.wait(LIMIT)
    stop_in_time(pipeline)
    assert not any(thread.is_alive() for thread in threads)
    # Nobody comes after the stop.
    inspected(pipeline).tuning.give([8] * 4)
    assert threads_of(pipeline) == []


@pytest.mark.usefixtures("eight_cores")
def test_dropped_pipeline_wakes_parked_workers():
    pipeline = [with_parked_workers([Numbers(10_000), Pass(), Pass()])]
    pipeline[0].dequeue()
    dropped(pipeline)


@pytest.mark.usefixtures("eight_cores")
def test_stop_at_any_moment_while_workers_come_and_go():
    for turn in range(30):
        pipeline = Pipeline([Numbers(10_000), Pass(), Pass()])
        pipeline.start()
        inspected(pipeline).tuning.due = float("inf")
        over = threading.Event()

        def change(pipeline=pipeline, over=over):
            counts = 1
            while not over.is_set():
                counts = 9 - counts
                inspected(pipeline).tuning.give([counts] * 3)

        changing = Task(change)
        for _ in range(turn):
            pipeline.dequeue(timeout=LIMIT)
        stop_in_time(pipeline)
        over.set()
        changing.result()
        assert_ended([thread for thread in threading.enumerate() if thread.name.startswith("highway ")])


# Control-C


def test_control_c_in_dequeue():
    gate = Gate()
    with Pipeline([Numbers(3), gate]) as pipeline:

        def interrupt():
            eventually(lambda: inspected(pipeline).queue.measures()["getting"] == 1)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        for call in (pipeline.dequeue, lambda: list(pipeline), lambda: list(pipeline.epoch())):
            killer = Task(interrupt)
            with pytest.raises(KeyboardInterrupt):
                call()
            killer.result()
        gate.gate.set()
        assert numbers_of(pipeline) == [0, 1, 2]


def test_control_c_in_wait():
    gate = Gate()
    with Pipeline([Numbers(3), gate, Collect()]) as pipeline:

        def interrupt():
            eventually(lambda: inspected(pipeline).queue.measures()["getting"] == 1)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        killer = Task(interrupt)
        with pytest.raises(KeyboardInterrupt):
            pipeline.wait()
        killer.result()
        gate.gate.set()
        pipeline.wait(LIMIT)


# Dropping


def dropped(pipeline, *, collect=False):
    """Assert that the pipeline, handed over in a list, dies with its last reference; so do its threads."""
    watch, threads = weakref.ref(pipeline[0]), threads_of(pipeline[0])
    pipeline.clear()
    if collect:
        gc.collect()
    assert watch() is None
    assert_ended(threads)


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_dropped_pipeline_leaves_no_thread(workers):
    pipeline = [Pipeline([Numbers(10_000, workers=workers), Pass(workers=workers)])]
    pipeline[0].dequeue()
    dropped(pipeline)


def test_dropped_pipeline_whose_workers_wait_for_batches():
    gate = Gate()
    pipeline = [Pipeline([Numbers(10), gate, Pass(), Collect()])]
    assert gate.entered.wait(LIMIT)
    dropped(pipeline)


def test_dropped_in_the_middle_of_iteration():
    batches = iter(Pipeline([Numbers(10_000), Pass()]))
    next(batches)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("highway ")]
    assert threads
    del batches
    assert_ended(threads)


def test_dropped_after_its_end():
    pipeline = [Pipeline([Numbers(3)])]
    list(pipeline[0])
    dropped(pipeline)


def test_dropped_in_a_cycle():
    pipeline = [Pipeline([Numbers(10_000), Pass()])]
    pipeline[0].myself = pipeline[0]
    dropped(pipeline, collect=True)


def test_dropped_after_a_failure_that_holds_frames_which_hold_the_pipeline():
    def fail(batch):
        raise ValueError(batch.seq)

    def run(pipelines):
        pipeline = pipelines[0]
        try:
            while True:
                pipeline.dequeue()
        except ValueError:
            pass

    pipeline = [Pipeline([Numbers(10_000), Call(fail)])]
    run(pipeline)
    assert_ended(threads_of(pipeline[0]))
    dropped(pipeline, collect=True)


def test_collected_by_one_of_its_own_workers():
    """The finalizer runs in the very thread that it ends: it must neither wait for itself nor warn."""
    drop, collected = threading.Event(), threading.Event()

    def collect(batch):
        assert drop.wait(LIMIT)
        gc.collect()
        collected.set()
        return batch

    gc.disable()
    try:
        pipeline = Pipeline([Numbers(10_000), Call(collect)])
        pipeline.start()
        pipeline.myself = pipeline
        watch, threads = weakref.ref(pipeline), threads_of(pipeline)
        del pipeline
        assert watch() is not None
        drop.set()
        assert collected.wait(LIMIT)
        assert watch() is None
        assert_ended(threads)
    finally:
        gc.enable()


def test_dropped_pipeline_with_a_hung_module_warns():
    stuck = Stuck()
    pipeline = [Pipeline([Numbers(10), stuck])]
    pipeline[0].start()
    threads = threads_of(pipeline[0])
    assert stuck.entered.wait(LIMIT)
    with pytest.warns(RuntimeWarning, match="Stuck did not end"):
        pipeline.clear()
    stuck.let_go.set()
    assert_ended(threads)


def test_hundred_pipelines_leave_nothing():
    def once():
        Pipeline([Numbers(1000, workers=2), Pass(), Pass(workers=2)]).dequeue()

    assert_nothing_left(once, times=50, warm=1)


def test_a_pipeline_that_was_stopped_leaves_nothing():
    def once():
        pipeline = Pipeline([Numbers(1000, workers=2), Pass(), Pass(workers=2)])
        pipeline.dequeue()
        pipeline.stop()

    assert_nothing_left(once, times=50, warm=1)


def test_stop_beside_a_thread_that_is_just_starting():
    class Starting(threading.Thread):
        """In the middle of its start: it has an identity and cannot be joined yet."""

        ident = 1

    pipeline = Pipeline([Numbers(1000, workers=1)])
    pipeline.dequeue()
    control = inspected(pipeline).control
    threads = [thread for thread, _ in control.threads]
    starting = Starting(), "Numbers"
    control.threads.insert(0, starting)
    pipeline.stop()
    assert not any(thread.is_alive() for thread in threads)
    # Whoever starts it ends it.
    assert control.threads == [starting]


# Leaving the interpreter


def run(code, *, send=None, limit=LIMIT):
    """Run a script with the small modules; returns the ended process."""
    script = "from small_modules import *\nfrom test_shutdown import *\n" + textwrap.dedent(code)
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-X", "faulthandler", "-c", script],
        cwd=os.getcwd(),
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *filter(None, sys.path)]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if send is not None:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(send)
        process.output, process.errors = process.communicate(timeout=limit)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return process


@pytest.mark.parametrize(
    "code",
    [
        # in a global, its workers waiting for room
        """
        pipeline = Pipeline([Numbers(None or 10_000, workers=4), Pass(workers=2)])
        pipeline.dequeue()
        """,
        # workers waiting for batches, and one of them in a module that can be woken
        """
        gate = Gate()
        pipeline = Pipeline([Numbers(10), gate, Pass(workers=2), Collect()])
        assert gate.entered.wait(60)
        """,
        # at once after the start
        """
        pipeline = Pipeline([Numbers(10_000, workers=8), Pass(workers=8)])
        pipeline.start()
        """,
        # never started
        """
        pipeline = Pipeline([Numbers(10_000, workers=8), Pass(workers=8)])
        """,
        # in a cycle that only the collector of the last moment sees
        """
        pipeline = Pipeline([Numbers(10_000, workers=4)])
        pipeline.start()
        pipeline.myself = pipeline
        gc.disable()
        del pipeline
        """,
        # held by a module that is never unloaded
        """
        import builtins
        builtins.pipeline = Pipeline([Numbers(10_000, workers=4)])
        builtins.batch = builtins.pipeline.dequeue()
        """,
        # after the end of the data
        """
        pipeline = Pipeline([Numbers(3)])
        assert numbers_of(pipeline) == [0, 1, 2]
        """,
        # the last batch is still held, its memory belongs to the pool
        """
        for batch in Pipeline([Numbers(10)]):
            pass
        """,
        # sys.exit in the middle of iteration
        """
        for batch in Pipeline([Numbers(10_000)]):
            sys.exit(0)
        """,
        # most workers parked
        """
        import highway.engine
        for part in (highway.engine.module, highway.engine.run, highway.engine.workers):
            part.usable_cores = lambda: 8
        pipeline = with_parked_workers([Numbers(10_000), Pass(), Pass()])
        pipeline.dequeue()
        """,
        # workers that are always busy
        """
        pipeline = Pipeline([Numbers(10**9, workers=4), Call(lambda batch: None, workers=4)])
        pipeline.start()
        """,
    ],
)
def test_interpreter_ends_without_stop(code):
    process = run(code)
    assert (process.returncode, process.errors) == (0, "")


def test_interpreter_ends_while_another_thread_dequeues():
    process = run(
        """
        gate = Gate()
        pipeline = Pipeline([Numbers(10), gate, Pass()])
        def consume():
            try:
                while True:
                    pipeline.dequeue()
            except PipelineStateError:
                pass
        threading.Thread(target=consume, daemon=True).start()
        eventually(lambda: inspected(pipeline).queue.measures()["getting"] == 1)
        """
    )
    assert (process.returncode, process.errors) == (0, "")


def test_interpreter_ends_with_a_hung_module():
    process = run(
        """
        import time, warnings
        warnings.simplefilter("always")
        class Asleep(Stage):
            def process(self, batch):
                time.sleep(1000)
        pipeline = Pipeline([Numbers(10), Asleep()])
        pipeline.start()
        """
    )
    assert process.returncode == 0
    assert "RuntimeWarning: Pipeline: Asleep did not end within 1.5 s" in process.errors


def test_interpreter_ends_after_an_unhandled_failure():
    process = run(
        """
        def fail(batch):
            raise ValueError("a bad batch")
        for batch in Pipeline([Numbers(10), Call(fail)]):
            pass
        """
    )
    assert process.returncode == 1
    assert "in fail" in process.errors
    assert process.errors.count("ValueError: a bad batch") == 1
    assert "Raised in module Call" in process.errors


def test_control_c_ends_a_script():
    process = run(
        """
        gate = Gate()
        pipeline = Pipeline([Numbers(10), gate])
        pipeline.start()
        assert gate.entered.wait(60)
        print("ready", flush=True)
        pipeline.dequeue()
        """,
        send=signal.SIGINT,
    )
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in process.errors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_forked_child_can_neither_use_nor_hang_on_the_pipeline():
    process = run(
        """
        import time, warnings
        warnings.simplefilter("ignore")
        pipeline = Pipeline([SizedNumbers(10), Pass(workers=2)])
        sink = Pipeline([Numbers(10_000), Gate(), Collect()])
        pipeline.dequeue()
        child = os.fork()
        if child == 0:
            for call in (pipeline.dequeue, pipeline.stats, pipeline.epoch, lambda: iter(pipeline), sink.wait):
                with pytest.raises(PipelineStateError, match="the parent process has started"):
                    call()
            pipeline.stop()
            with Pipeline([Numbers(3), Pass()]) as own:
                assert numbers_of(own) == [0, 1, 2]
            del pipeline
            gc.collect()
            print("child", flush=True)
            sys.exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        assert len(list(pipeline.forever())) == 9
        print("parent")
        """
    )
    assert (process.returncode, process.errors, process.output) == (0, "", "child\nparent\n")
