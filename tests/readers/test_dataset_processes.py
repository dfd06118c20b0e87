"""DatasetReader in worker processes: the bits of threads; lost and hanging processes; nothing is left."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
import pytest
from concurrency import LIMIT, eventually
from repository import ROOT
from small_datasets import Batched, Drawn, Empty, NotHere, Plain, doubled

import highway
from highway import replay
from highway.engine import Pipeline
from highway.errors import (
    ArgumentError,
    EmptyDatasetError,
    ProcessLostError,
    SampleError,
    SampleTimeoutError,
    TooManyErrors,
)
from highway.modules import Concat, DatasetReader
from highway.modules.readers.datasets.collation import Planned
from highway.modules.readers.datasets.shared import Room, Slot, views_of
from highway.modules.readers.datasets.worker import IDLE


def batches(dataset, batch_size=4, **options):
    with Pipeline(
        [DatasetReader(dataset, batch_size, **{"epochs": 1, "processes": 2, **FORK, **options})]
    ) as pipeline:
        return list(pipeline.forever())


# Of programs: where this process has found the package, and the helpers.
PATHS = os.pathsep.join([str(Path(highway.__file__).parents[1]), str(ROOT / "tests" / "helpers")])


def run_script(folder, text, *arguments):
    """Run a program, which may import the helpers, and return what it wrote."""
    script = folder / "script.py"
    script.write_text(text)
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": PATHS},
        text=True,
        timeout=LIMIT,
    )


# Starts at once; the other ways to start are tested once.
FORK = {"start_method": "fork"}

pytestmark = pytest.mark.filterwarnings(
    # Python 3.12 and later; the processes only run Python that needs none of the locks of other threads.
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning"
)


def workers_of(pipeline):
    """Process ids of the worker processes."""
    return [process._pid for process in pipeline.modules[0]._processes._all]


def is_running(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def same(found, expected, names):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.epoch, one.seq) == (other.epoch, other.seq)
        assert one.indices.tolist() == other.indices.tolist() and one.ragged == other.ragged
        for name in names:
            assert one[name].dtype == other[name].dtype and one[name].shape == other[name].shape
            assert (one[name] == other[name]).all()
        for name in one.ragged:
            assert one.offsets_of(name).tolist() == other.offsets_of(name).tolist()


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_the_bits_of_threads_in_any_number_of_processes(method):
    options = {"epochs": 2, "seed": 4}
    threads = batches(Drawn(), 6, processes=0, **options)
    found = batches(Drawn(), 6, processes=2, start_method=method, **options)
    same(found, threads, ["image", "tokens", "text", "label"])
    assert found[0].ragged == {"tokens", "text"}
    # Draws belong to samples: of any batch, in any process.
    others = batches(Drawn(), 5, processes=3, epochs=2, seed=4, **FORK)
    drawn = [
        {
            (b.epoch, i): draw
            for b in run
            for i, draw in zip(b.indices.tolist(), b.draws.tolist(), strict=True)
        }
        for run in (found, others)
    ]
    assert drawn[0] == drawn[1] and len({tuple(draw) for draw in drawn[0].values()}) == 40


def test_a_mixture_ends_the_processes_of_its_sources():
    def source(processes):
        options = {"processes": processes, "ragged": ["tokens", "text"], **FORK}
        return Concat([DatasetReader(Drawn(), 4, seed=seed, **options) for seed in (4, 5)], epochs=1)

    with Pipeline([source(0)]) as pipeline:
        expected = list(pipeline)
    with Pipeline([source(1)]) as pipeline:
        found = list(pipeline)
        pids = [process._pid for part in pipeline.modules[0].sources for process in part._processes._all]
    same(found, expected, ["image", "tokens", "text", "label"])
    assert len({*pids}) == 2
    eventually(lambda: not any(map(is_running, pids)))


def test_resuming_and_replay():
    def reader(**options):
        return DatasetReader(Drawn(), 3, processes=2, epochs=2, seed=4, **FORK, **options)

    with Pipeline([reader()]) as pipeline:
        whole = list(pipeline.forever())
    with Pipeline([reader()]) as pipeline:
        for _ in range(4):
            pipeline.dequeue()
        state = pipeline.state_dict()
        pipeline.load_state_dict(state)
        same(list(pipeline.forever()), whole[4:], ["image", "draws"])
    with Pipeline([reader()]) as pipeline:
        pipeline.dequeue()
        same([replay.batch(pipeline, epoch=1, step=3)], [whole[10]], ["draws"])
        # The end of the replay does not end the processes of the training.
        same([pipeline.dequeue() for _ in range(len(whole) - 1)], whole[1:], ["draws"])


def test_both_processes_work_and_a_seek_keeps_them():
    with Pipeline([DatasetReader(Plain(200), 4, processes=2, shuffle=False, **FORK)]) as pipeline:
        pids = workers_of_started(pipeline)
        found = {int(pid) for batch in pipeline.epoch(0) for pid in batch.pid}
        assert found <= pids
        assert {int(pid) for batch in pipeline.epoch(3) for pid in batch.pid} <= pids
        assert {*workers_of(pipeline)} == pids and os.getpid() not in pids and len(pids) == 2


def workers_of_started(pipeline):
    pipeline.dequeue()
    return {*workers_of(pipeline)}


def test_a_batch_that_is_held_never_changes_and_batches_grow():
    found = batches(Plain(64, width=3000), 2, shuffle=False)
    for batch in found:
        assert (batch.x == batch.indices[:, None]).all()
    big = batches(Plain(64, width=3000), 32, shuffle=False, processes=1)
    assert [batch.size for batch in big] == [32, 32] and (big[1].x == big[1].indices[:, None]).all()


def test_batches_without_a_byte():
    options = {"ragged": ["x"], "shuffle": False}
    found = batches(Empty(8), **options)
    same(found, batches(Empty(8), processes=0, **options), ["x", "y"])
    assert [(batch.x.shape, batch.y.shape) for batch in found] == [((0, 3), (4, 2, 0))] * 2


def test_memory_of_a_batch_that_could_not_be_written_is_used_by_the_next_one():
    slot = Slot(0)
    room = Room(os.dup(slot.file))

    def of(size):
        return [Planned("x", np.dtype(np.uint8), (size,), None, np.ones(size, np.uint8), None)]

    with pytest.raises(ValueError):
        # Shape and array differ.
        room.write([of(5)[0]._replace(shape=(6,))])
    (placed,) = room.write(of(5))
    assert views_of(slot.memory(), placed)[0].tolist() == [1] * 5
    # Larger than the memory so far.
    (placed,) = room.write(of(200_000))
    assert views_of(slot.memory(), placed)[0].sum() == 200_000


def test_large_batches_are_not_copied_and_never_change_while_they_are_held():
    held = []
    for batch in batches(Plain(16, width=270_000), shuffle=False, epochs=2):
        assert (batch.x == batch.indices[:, None]).all()
        # Whoever gets it may write into it.
        batch.x[0] = -1
        held.append(batch.x)
        assert isinstance(batch.x.base, mmap.mmap)
    assert len(held) == 8
    for number, rows in enumerate(held):
        start = 4 * (number % 4)
        assert (rows[1:] == np.arange(start + 1, start + 4)[:, None]).all() and (rows[0] == -1).all()


def test_batches_that_are_held_use_few_descriptors():
    before = len(os.listdir("/proc/self/fd"))
    held = batches(Plain(100, width=270_000), 1, shuffle=False)
    assert len(held) == 100 and len(os.listdir("/proc/self/fd")) <= before + 64 + 8
    assert all((batch.x == batch.indices[0]).all() for batch in held)


class Lazy(Mapping):
    """Has a value that nobody can read."""

    def __getitem__(self, key):
        return {"x": np.full((30, 20, 3), 7, np.uint8)}[key]

    def __iter__(self):
        return iter(("x", "broken"))

    def __len__(self):
        return 2


def test_values_that_no_field_needs_are_not_read():
    found = batches([Lazy()] * 8, names=["x"])
    assert all((batch.x == 7).all() for batch in found) and len(found) == 2


def test_bad_samples_in_large_batches():
    def made(processes):
        data = Plain(32, {3: "raise", 13: "type", 31: "raise"}, width=2000)
        return batches(data, 8, shuffle=False, processes=processes, on_error="skip")

    same(made(2), made(0), ["x"])


def test_copies_of_a_sample_draw_other_numbers():
    found = batches(Drawn(), 6, repeats=3, seed=4)
    draws = np.concatenate([batch.draws for batch in found])
    assert len({*map(tuple, draws.tolist())}) == len(draws) == 60
    # The first copies are those of a run without copies.
    assert {*map(tuple, np.concatenate([b.draws for b in batches(Drawn(), 6, seed=4)]).tolist())} <= {
        *map(tuple, draws.tolist())
    }


def test_collate_and_getitems_in_processes():
    (batch,) = batches(Plain(5), 5, shuffle=False, collate=doubled)
    assert (batch.x == 2 * batch.indices[:, None]).all()
    (batch,) = batches(Batched(5), 5, shuffle=False, batched=True)
    assert (batch.x == batch.indices[:, None]).all()
    found = batches(Batched(8, {6: "kill"}), 4, shuffle=False, batched=True, on_error="skip")
    assert [batch.indices.tolist() for batch in found] == [[0, 1, 2, 3], [4, 5, 7]]


@pytest.mark.parametrize(
    "act, text, error",
    [
        ("raise", "sample 6 of the dataset raised Unpicklable: no luck at 6", SampleError),
        ("type", "sample 6 of the dataset has a field 'x' that is a str", SampleError),
        (
            "kill",
            "sample 6 of the dataset was being made when its worker process was killed by SIGKILL",
            ProcessLostError,
        ),
        ("exit", "sample 6 of the dataset was being made .* ended with exit code 3", ProcessLostError),
        ("hang", "sample 6 of the dataset took longer than timeout=0.5 s", SampleTimeoutError),
    ],
)
def test_a_bad_sample_is_named_and_the_others_arrive(act, text, error):
    options = {"timeout": 0.5 if act == "hang" else None, "seed": 2}
    dataset = Plain(20, {6: act})
    with pytest.raises(error, match=text):
        batches(dataset, **options)
    found = batches(dataset, on_error="skip", **options)
    assert sorted(np.concatenate([batch.indices for batch in found]).tolist()) == [*range(6), *range(7, 20)]
    replaced = batches(dataset, on_error="replace", **options)
    assert [batch.size for batch in replaced] == [4] * 5
    for batch in (*found, *replaced):
        assert (batch.x == batch.indices[:, None]).all() and 6 not in batch.indices


def test_the_cause_of_an_error_shows_its_traceback_in_the_process():
    with pytest.raises(SampleError) as caught:
        batches(Plain(20, {6: "raise"}))
    cause = caught.value.__cause__
    assert "Unpicklable: no luck at 6" in str(cause) and "small_datasets.py" in str(cause.__cause__)


def test_processes_that_are_killed_from_outside():
    with Pipeline(
        [DatasetReader(Plain(200), 2, processes=2, seed=1, on_error="skip", epochs=1, **FORK)]
    ) as pipeline:
        batch = pipeline.dequeue()
        found = [*batch.indices.tolist()]
        for pid in workers_of(pipeline):
            os.kill(pid, signal.SIGKILL)
        found += [index for batch in pipeline.forever() for index in batch.indices.tolist()]
        # A sample that a killed process was making counts as bad; all others arrive once.
        bad = [int(key) for key, _ in pipeline.errors]
    assert len(bad) <= 2 and sorted([*found, *bad]) == [*range(200)]


def test_a_process_that_is_suspended_between_two_samples():
    options = {"processes": 1, "timeout": 0.5, "on_error": "skip", "shuffle": False, "queue_size": 1}
    with Pipeline([DatasetReader(Plain(200), 2, epochs=1, **options, **FORK)]) as pipeline:
        found = [*pipeline.dequeue().indices.tolist()]
        (process,) = pipeline.modules[0]._processes._all
        eventually(lambda: pipeline.stats().modules[0].batches >= 3 and process._row() == IDLE)
        os.kill(process._pid, signal.SIGSTOP)
        found += [index for batch in pipeline.forever() for index in batch.indices.tolist()]
        bad = [int(key) for key, _ in pipeline.errors]
    # Suspended in a sample after all, it is a bad one.
    assert len(bad) <= 1 and sorted([*found, *bad]) == [*range(200)]


def test_many_lost_processes_are_too_many_errors():
    acts = dict.fromkeys(range(20), "kill")
    with pytest.raises(TooManyErrors):
        batches(Plain(20, {5: "kill", 6: "kill", 7: "kill"}), on_error="skip", max_errors=2, shuffle=False)
    with pytest.raises(EmptyDatasetError):
        batches(Plain(3, acts), on_error="skip")


def test_a_lack_of_memory_raises_under_any_policy():
    with pytest.raises(MemoryError, match="no room"):
        batches(Plain(20, {6: "memory"}), on_error="skip")


def test_data_sets_that_cannot_go_to_processes():
    with pytest.raises(ArgumentError, match="can be pickled, and pickling raised"):
        batches([lambda: 1], start_method="spawn")
    with pytest.raises(
        ProcessLostError, match="could not unpickle the dataset: ValueError: not in this process"
    ):
        batches(NotHere(os.getpid()), start_method="spawn", processes=1)


UNIMPORTABLE = """
import sys
import numpy as np
from highway.engine import Pipeline
from highway.errors import ProcessLostError
from highway.modules import DatasetReader

if __name__ == "__mp_main__":
    raise ImportError("cannot be imported")
if __name__ == "__main__":
    # More than a pipe holds.
    pipeline = Pipeline([DatasetReader([np.zeros(10**5)] * 8, 4, processes=2, start_method=sys.argv[1])])
    try:
        pipeline.dequeue()
    except ProcessLostError as error:
        print(error)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_end_before_they_have_a_large_data_set(method, tmp_path):
    done = run_script(tmp_path, UNIMPORTABLE, method)
    assert "ended with exit code 1 before it was ready" in done.stdout and "cannot be imported" in done.stderr


DAEMON = """
import multiprocessing
from highway.engine import Pipeline
from highway.errors import ArgumentError
from highway.modules import DatasetReader

def inner():
    try:
        Pipeline([DatasetReader([1], 1, processes=1)]).dequeue()
    except ArgumentError as error:
        print(error, flush=True)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=inner, daemon=True)
    process.start()
    process.join()
"""


def test_a_process_that_may_have_none(tmp_path):
    done = run_script(tmp_path, DAEMON)
    assert "processes is 1 in a process of multiprocessing that is a daemon" in done.stdout


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("end", ["stop", "error", "collected", "over"])
def test_nothing_is_left(end):
    gc.collect()
    batches(Plain(8))
    before, known = descriptors(), {*os.listdir("/dev/shm")}
    dataset = Plain(60, {50: "raise"} if end == "error" else ())
    # The error is not among the batches that are read ahead.
    options = {"processes": 2, "shuffle": False, "epochs": 1, "queue_size": 1, **FORK}
    pipeline = Pipeline([DatasetReader(dataset, 4, **options)])
    pipeline.dequeue()
    pids = workers_of(pipeline)
    assert len(pids) == 2 and all(map(is_running, pids))
    if end == "error":
        with pytest.raises(SampleError):
            list(pipeline.forever())
        pipeline.stop()
    elif end == "stop":
        pipeline.stop()
    elif end == "over":
        list(pipeline.forever())
        pipeline.stop()
    del pipeline
    gc.collect()
    eventually(lambda: not any(map(psutil.pid_exists, pids)))
    eventually(lambda: descriptors() <= before)
    assert {*os.listdir("/dev/shm")} <= known


def test_stop_ends_processes_that_hang():
    pipeline = Pipeline([DatasetReader(Plain(20, {9: "hang"}), 4, processes=2, shuffle=False, **FORK)])
    pipeline.dequeue()
    pids = workers_of(pipeline)
    pipeline.stop()
    assert not any(map(psutil.pid_exists, pids))


PARENT = """
import sys, threading
from small_datasets import Plain
from highway.engine import Pipeline
from highway.modules import DatasetReader

if __name__ == "__main__":
    reader = DatasetReader(Plain(100, {11: "hang"}), 4, processes=2, shuffle=False, start_method=sys.argv[1])
    pipeline = Pipeline([reader])
    pipeline.dequeue()
    processes = pipeline.modules[0]._processes._all
    seen = 0
    while seen < 20:
        # Row 3 of its request: one process hangs.
        seen = seen + 1 if any(process._row() == 3 for process in processes) else 0
        threading.Event().wait(0.01)
    print(*(process._pid for process in processes), flush=True)
    threading.Event().wait()
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_the_end_of_the_parent_ends_the_processes(method, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script), method],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": PATHS},
        text=True,
    )
    try:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2 and all(map(is_running, pids))
    finally:
        parent.kill()
        parent.wait(LIMIT)
        parent.stdout.close()
    eventually(lambda: not any(map(is_running, pids)))


UNSTOPPED = """
import sys
from small_datasets import Plain
from highway.engine import Pipeline
from highway.modules import DatasetReader

if __name__ == "__main__":
    reader = DatasetReader(Plain(1000), 4, processes=2, start_method=sys.argv[1], on_error="skip")
    pipeline = Pipeline([reader])
    pipeline.dequeue()
    print(*(process._pid for process in pipeline.modules[0]._processes._all))
"""


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_the_end_of_a_program_that_does_not_stop_its_pipeline_is_quiet(method, tmp_path):
    done = run_script(tmp_path, UNSTOPPED, method)
    assert (done.returncode, done.stderr) == (0, "")
    assert not any(map(is_running, map(int, done.stdout.split())))
