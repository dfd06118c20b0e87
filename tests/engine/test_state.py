"""The state of a local pipeline: another goes on exactly there, in batches of any size; all else is refused."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections import Counter

import numpy as np
import pytest
from concurrency import LIMIT, Task, eventually
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import class_folders
from small_modules import Call, Collect, Numbers, Pass, rest_of
from voc_folders import annotation, thing, voc_folder

from highway.engine import Pipeline, Source
from highway.engine.inspection import inspected
from highway.errors import DecodeError, EndOfData, PipelineStateError, StateMismatchError
from highway.modules import ArrayReader, Augmentations, ImageFileReader, ListReader, Noise, VOCReader
from highway.sampling.sampler import Position, Sampler
from highway.transforms import FlipX, RandomCrop

SIZE = 11


def noise(size=SIZE, batch_size=3, **options):
    return Noise(batch_size, (2, 2), size=size, **{"epochs": 2, **options})


def identity(batch):
    return batch.epoch, batch.seq, batch.indices.tolist()


def samples(batches):
    return [(batch.epoch, index) for batch in batches for index in batch.indices.tolist()]


def content(batches):
    """(epoch, index) of every sample, with the bytes of its row in every field."""
    return [
        (batch.epoch, index, *(batch.rows_of(name, row).tobytes() for name in batch.fields))
        for batch in batches
        for row, index in enumerate(batch.indices.tolist())
    ]


def state_after(count, make):
    """State of a pipeline that has handed out so many batches, as it comes out of a file; and those batches."""
    with Pipeline(make()) as pipeline:
        before = [pipeline.dequeue(timeout=LIMIT) for _ in range(count)]
        return json.loads(json.dumps(pipeline.state_dict())), before


def resumed(state, modules):
    with Pipeline(modules) as pipeline:
        pipeline.load_state_dict(state)
        return rest_of(pipeline.forever())


# What is left


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_same_pipeline_goes_on_with_the_batches_that_would_have_come(world, drop_last, shuffle):
    for rank in range(world):

        def make(rank=rank):
            return [noise(shard=(rank, world), drop_last=drop_last, shuffle=shuffle)]

        with Pipeline(make()) as pipeline:
            everything = [identity(batch) for batch in pipeline.forever()]
        for count in range(len(everything) + 1):
            state, _ = state_after(count, make)
            assert [identity(batch) for batch in resumed(state, make())] == everything[count:]


@pytest.mark.parametrize("first", [1, 2, 4])
@pytest.mark.parametrize("second", [1, 3, 5, 20])
def test_another_batch_size_gives_the_rest_in_the_same_order(first, second):
    with Pipeline([noise()]) as pipeline:
        everything = samples(pipeline.forever())
    assert len(everything) == 2 * SIZE
    for count in range(2 * -(-SIZE // first) + 1):
        state, before = state_after(count, lambda: [noise(batch_size=first, workers=1)])
        rest = resumed(state, [noise(batch_size=second, workers=3), Pass(workers=2)])
        assert samples(before) + samples(rest) == everything
        # As few batches as that takes, that end where an epoch does.
        left = -(len(before) * first) % SIZE if count < -(-SIZE // first) else 0
        assert all(batch.size == second for batch in rest if batch.seq < -(-SIZE // second) - 1), left


def rest_of_ranks(state, world, **options):
    """What is left, put together from all ranks, batch by batch; and the number of batches of each rank."""
    ranks = [resumed(state, [noise(shard=(rank, world), **options)]) for rank in range(world)]
    numbers = [[(batch.epoch, batch.seq, batch.size) for batch in batches] for batches in ranks]
    assert all(each == numbers[0] for each in numbers)
    together = []
    for batches in zip(*ranks, strict=True):
        rows = zip(*(batch.indices.tolist() for batch in batches), strict=True)
        together += [(batches[0].epoch, index) for index in itertools.chain(*rows)]
    return together


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (3, 2), (2, 3), (1, 3), (3, 3)])
def test_another_world_gives_the_rest_in_the_same_order(before, after):
    with Pipeline([noise(epochs=1)]) as pipeline:
        everything = samples(pipeline.forever())
    for count in range(len(noise(batch_size=2, shard=(0, before)))):
        state, _ = state_after(count, lambda: [noise(batch_size=2, shard=(0, before), epochs=1)])
        others = [
            state_after(count, lambda rank=rank: [noise(batch_size=2, shard=(rank, before), epochs=1)])[0]
            for rank in range(before)
        ]
        assert all(other == state for other in others)
        assert state["position"] == count * 2 * before
        rest = rest_of_ranks(state, after, epochs=1)
        left = SIZE - state["position"]
        assert rest[:left] == everything[state["position"] :]
        # What is missing at the end starts over at the front.
        assert rest[left:] == everything[: -left % after]


@settings(max_examples=300)
@given(
    size=st.integers(1, 40),
    first=st.integers(1, 9),
    second=st.integers(1, 9),
    worlds=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    number=st.integers(0, 60),
)
def test_orders_go_on(size, first, second, worlds, shuffle, drop_last, number):
    """Everything that is handed out from a place on, by the places of the permutation."""
    if drop_last and size // max(worlds) < max(first, second):
        drop_last = False
    options = {"shuffle": shuffle, "drop_last": drop_last, "epochs": 3}
    before = Sampler(size, first, shard=(0, worlds[0]), **options)
    number = min(number, 3 * len(before))
    place = before.place_at(number)
    assert place == (number // len(before), number % len(before) * first * worlds[0])
    assert 0 <= place.position < size
    orders = [Sampler(size, second, shard=(rank, worlds[1]), **options) for rank in range(worlds[1])]
    ranks = [list(order.tasks_after(place)) for order in orders]
    start = orders[0].number_after(place)
    assert {len(tasks) for tasks in ranks} == {3 * len(orders[0]) - start}
    # Numbers of the batches, and places behind each of them.
    for order, tasks in zip(orders, ranks, strict=True):
        assert [task.epoch * len(order) + task.seq for task in tasks] == [*range(start, 3 * len(order))]
        for task in tasks:
            after = order.place_at(task.epoch * len(order) + task.seq + 1, place)
            assert [again.indices.tolist() for again in order.tasks_after(after)] == [
                later.indices.tolist() for later in tasks if (later.epoch, later.seq) > (task.epoch, task.seq)
            ]
    # The samples of each epoch.
    for epoch in range(place.epoch, 3):
        gone = place.position if epoch == place.epoch else 0
        plain = Sampler(size, size, shuffle=shuffle)
        expected = plain.indices(epoch, 0)[gone:].tolist()
        rows = [
            np.concatenate([np.zeros(0, np.int64), *(task.indices for task in tasks if task.epoch == epoch)])
            for tasks in ranks
        ]
        found = np.stack(rows, axis=1).reshape(-1).tolist()
        if drop_last:
            assert found == expected[: len(found)]
            assert len(expected) - len(found) < second * worlds[1]
        else:
            assert found[: len(expected)] == expected
            assert len(found) - len(expected) < worlds[1]


def test_an_epoch_of_which_drop_last_leaves_nothing_is_over():
    state, _ = state_after(7, lambda: [noise(size=10, batch_size=1)])

    def make():
        return [noise(size=10, batch_size=4, drop_last=True)]

    assert (state["epoch"], state["position"]) == (0, 7)
    with Pipeline(make()) as pipeline:
        everything = [identity(batch) for batch in pipeline.forever()]
    with Pipeline(make()) as pipeline:
        pipeline.load_state_dict(state)
        assert [identity(batch) for batch in pipeline.epoch()] == everything[2:]
        assert pipeline.state_dict()["epoch"] == 2


def test_the_end_of_everything():
    state, _ = state_after(8, lambda: [noise()])
    assert (state["epoch"], state["position"]) == (2, 0)
    assert resumed(state, [noise()]) == []
    with Pipeline([noise()]) as pipeline:
        pipeline.load_state_dict(state)
        for call in (list, list, lambda p: list(p.epoch()), lambda p: p.dequeue(timeout=LIMIT)):
            with pytest.raises(EndOfData, match=r"(no batches from epoch 2 on|no epoch 2).*larger epochs="):
                call(pipeline)
        assert pipeline.state_dict() == state
    # A training can be prolonged.
    assert [batch.epoch for batch in resumed(state, [noise(epochs=3)])] == [2] * 4


def test_resumed_again_and_again():
    """With another batch size each time."""
    with Pipeline([noise(size=50)]) as pipeline:
        everything = samples(pipeline.forever())
    found, state = [], None
    for turn in itertools.count():
        with Pipeline([noise(size=50, batch_size=turn % 4 + 2)]) as pipeline:
            if state is not None:
                pipeline.load_state_dict(state)
            taken = rest_of(itertools.islice(pipeline.forever(), 2))
            state = json.loads(json.dumps(pipeline.state_dict()))
        found += samples(taken)
        if not taken:
            break
    assert found == everything


def test_epochs_end_where_they_do():
    state, _ = state_after(2, lambda: [noise()])
    with Pipeline([noise(epochs=3)]) as pipeline:
        pipeline.load_state_dict(state)
        assert len(pipeline) == 4
        epochs = [[identity(batch)[:2] for batch in pipeline.epoch()] for _ in range(3)]
        with pytest.raises(EndOfData, match="10 of epochs 0 to 2"):
            list(pipeline.epoch())
    assert epochs == [[(0, 2), (0, 3)], [(1, n) for n in range(4)], [(2, n) for n in range(4)]]
    state, _ = state_after(4, lambda: [noise()])
    with Pipeline([noise()]) as pipeline:
        pipeline.load_state_dict(state)
        assert [batch.epoch for batch in pipeline.epoch()] == [1] * 4


def test_an_endless_pipeline():
    state, _ = state_after(9, lambda: [noise(epochs=None)])
    assert (state["epoch"], state["position"]) == (2, 3)
    with Pipeline([noise(epochs=None)]) as pipeline, Pipeline([noise(epochs=None)]) as whole:
        pipeline.load_state_dict(state)
        expected = [identity(batch) for batch in itertools.islice(whole.forever(), 30)]
        assert [identity(batch) for batch in itertools.islice(pipeline.forever(), 21)] == expected[9:]


# What counts


def test_what_was_handed_out_counts_and_not_what_was_made():
    with Pipeline([noise(size=100, queue_size=30)]) as pipeline:
        pipeline.start()
        eventually(lambda: pipeline.stats().modules[0].batches >= 30)
        assert pipeline.state_dict()["position"] == 0
        batch = pipeline.dequeue()
        assert pipeline.state_dict()["position"] == 3
        del batch
        assert len(list(itertools.islice(pipeline.forever(), 3))) == 3
        assert pipeline.state_dict()["position"] == 12
    assert pipeline.state_dict()["position"] == 12


def test_batches_that_are_left_out_on_the_way_count():
    class Thin(Pass):
        def process(self, batch):
            return None if batch.seq % 2 else batch

    with Pipeline([noise(size=30), Thin()]) as pipeline:
        assert [pipeline.dequeue(timeout=LIMIT).seq for _ in range(2)] == [0, 2]
        # The hole behind the second counts as soon as it is known.
        assert pipeline.state_dict()["position"] in (9, 12)


def test_the_end_of_an_epoch_counts_though_its_last_batch_was_left_out():
    gate = threading.Event()

    class Late(Pass):
        def process(self, batch):
            if batch.epoch:
                assert gate.wait(LIMIT)
            return None if batch.epoch == 0 and batch.seq == 3 else batch

    with Pipeline([noise(), Late()]) as pipeline:
        assert len(list(pipeline.epoch())) == 3
        state = pipeline.state_dict()
        gate.set()
    assert (state["epoch"], state["position"]) == (1, 0)


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_bad_samples_count(tmp_path, policy):
    folder = class_folders(tmp_path, classes=2, each=8, size=(12, 12))
    for path in [*folder.glob("class0/[0-3].jpg"), folder / "class1" / "5.jpg"]:
        path.write_bytes(b"no picture")

    def make(batch_size=2, **options):
        options = {"on_error": policy, "epochs": 2, "seed": 3, **options}
        return [ImageFileReader(folder, batch_size, (8, 8), **options)]

    with Pipeline(make()) as pipeline:
        everything = list(pipeline.forever())
        assert len(pipeline.errors) == 5
    whole = content(everything)
    for count in range(len(everything) + 1):
        state, before = state_after(count, make)
        for batch_size, workers in ((2, 1), (5, 3)):
            rest = resumed(state, make(batch_size, workers=workers))
            assert content(before) + content(rest) == whole


# Readers


@pytest.fixture
def pictures(tmp_path):
    return class_folders(tmp_path / "pictures", classes=3, each=4, size=(20, 24))


def reader_kinds(pictures, tmp_path):
    paths = sorted(str(path) for path in pictures.rglob("*") if path.is_file())
    voc = voc_folder(tmp_path / "voc", {f"{n:02}": annotation(*[thing()] * (n % 3)) for n in range(12)})
    arrays = np.random.default_rng(1).integers(0, 256, (12, 16, 20, 3), np.uint8)
    return {
        "folder": lambda batch_size, **o: ImageFileReader(pictures, batch_size, (16, 20), **o),
        "list": lambda batch_size, **o: ListReader(paths, range(12), batch_size, (16, 20), **o),
        "voc": lambda batch_size, **o: VOCReader(voc, batch_size, (16, 20), **o),
        "noise": lambda batch_size, **o: Noise(batch_size, (16, 20), size=12, **o),
        "arrays": lambda batch_size, **o: ArrayReader(arrays, range(12), batch_size, **o),
    }


@pytest.mark.parametrize("kind", ["folder", "list", "voc", "noise", "arrays"])
def test_every_reader_goes_on_with_the_same_bits(pictures, tmp_path, kind):
    make = reader_kinds(pictures, tmp_path)[kind]

    def chain(batch_size, **options):
        return [
            make(batch_size, epochs=2, **options),
            Augmentations([FlipX(), RandomCrop((12, 12))], seed=5),
        ]

    with Pipeline(chain(3)) as pipeline:
        everything = content(pipeline.forever())
    for count in (0, 1, 2, 3):
        state, before = state_after(count, lambda: chain(3))
        assert state["kind"] == type(make(3)).__name__
        assert len(json.dumps(state)) < 250
        for batch_size, workers in ((3, 1), (5, 2), (1, 8)):
            rest = resumed(state, chain(batch_size, workers=workers))
            assert content(before) + content(rest) == everything


def test_the_state_takes_no_time(pictures):
    with Pipeline([ImageFileReader(pictures, 2, (8, 8))]) as pipeline:
        pipeline.state_dict()
        spent = []
        for _ in range(20):
            pipeline.dequeue(timeout=LIMIT)
            began = time.thread_time()
            pipeline.state_dict()
            spent.append(time.thread_time() - began)
    assert min(spent) < 0.001


def test_errors_count_from_the_state_on(tmp_path):
    folder = class_folders(tmp_path, classes=1, each=6, size=(12, 12))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    files[0].write_bytes(b"no picture")

    def make():
        return [ImageFileReader(folder, 1, (8, 8), shuffle=False, epochs=1, on_error="skip", max_errors=1)]

    state, _ = state_after(2, make)
    with Pipeline(make()) as pipeline:
        pipeline.start()
        eventually(lambda: pipeline.errors)
        pipeline.load_state_dict(state)
        assert pipeline.errors == []
        assert len(list(pipeline)) == 3
        assert pipeline.stats().delivered == 3
        assert pipeline.stats().modules[0].batches == 3
        assert pipeline.errors == []


def test_a_rest_without_a_good_sample_may_be_read_again(tmp_path):
    """A source that seeks counts from there: the batches before had good samples."""
    folder = class_folders(tmp_path, classes=1, each=4, size=(8, 8))
    for path in sorted(path for path in folder.rglob("*") if path.is_file())[2:]:
        path.write_bytes(b"no picture")
    source = ImageFileReader(folder, 2, (8, 8), shuffle=False, epochs=1, on_error="skip").for_run()
    for _ in range(2):
        assert source.seek(Position(0, 2)) == 1
        source.open()
        assert source.load(source.task_at(0, 1)) is None
        source.close()


def test_a_rest_without_a_good_sample_is_told(tmp_path):
    folder = class_folders(tmp_path, classes=1, each=6, size=(12, 12))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files[4:]:
        path.write_bytes(b"no picture")

    def make():
        return [ImageFileReader(folder, 2, (8, 8), shuffle=False, epochs=1, on_error="skip")]

    state, _ = state_after(2, make)
    state.update(epoch=0, position=4)
    with Pipeline(make()) as pipeline:
        pipeline.load_state_dict(state)
        with pytest.raises(EndOfData, match="all 1 batches of epoch 0 were skipped, see errors and stats"):
            list(pipeline)
        assert len(pipeline.errors) == pipeline.stats().skipped_samples == 2


# Loading


def test_what_was_made_ahead_is_dropped():
    state, _ = state_after(5, lambda: [noise(size=40)])
    alive = threading.active_count()
    with Pipeline([noise(size=40, queue_size=16, workers=3), Pass(workers=2)]) as pipeline:
        pipeline.start()
        eventually(lambda: pipeline.stats().modules[1].batches >= 4)
        before = inspected(pipeline).control
        pipeline.load_state_dict(state)
        assert pipeline.state_dict() == state
        assert before.threads == []
        assert before.pool.stats()["free_bytes"] == 0
        assert pipeline.dequeue(timeout=LIMIT).seq == 5
        assert threading.active_count() <= alive + 5
    assert threading.active_count() == alive


def test_only_what_is_in_the_making_is_waited_for():
    state, _ = state_after(5, lambda: [noise(size=40)])
    gate, begun = threading.Event(), []

    def hold(batch):
        begun.append(batch.seq)
        assert gate.wait(LIMIT)
        return batch

    with Pipeline([noise(size=40, queue_size=8), Call(hold), Pass()]) as pipeline:
        pipeline.start()
        eventually(lambda: begun and pipeline.stats().modules[0].batches >= 8)
        loading = Task(pipeline.load_state_dict, state)
        eventually(lambda: all(runner.dropping for runner in inspected(pipeline).runners))
        gate.set()
        loading.result()
        assert pipeline.dequeue(timeout=LIMIT).seq == 5
    assert begun[:2] == [0, 5]


def test_loaded_at_any_moment(restless):
    state, _ = state_after(3, lambda: [noise(size=40)])
    pause, draw = threading.Event(), random.Random(1)
    for _ in range(60):
        ordered = draw.random() < 0.7
        workers = draw.randint(1, 3)
        modules = [
            noise(size=40, epochs=draw.choice([1, None]), workers=workers),
            Pass(),
            Pass(workers=workers),
        ]
        with Pipeline(modules, ordered=ordered) as pipeline:
            if draw.random() < 0.8:
                pipeline.start()
            pause.wait(draw.random() * 0.003)
            pipeline.load_state_dict(state)
            if ordered:
                assert pipeline.state_dict() == state
            seqs = [pipeline.dequeue(timeout=LIMIT).seq for _ in range(5)]
            assert seqs == [3, 4, 5, 6, 7] if ordered else min(seqs) >= 3


def test_after_everything_was_made_ahead():
    """The threads have ended by then."""
    state, _ = state_after(1, lambda: [noise(epochs=1)])
    with Pipeline([noise(epochs=1, queue_size=16), Pass(queue_size=16)]) as pipeline:
        pipeline.start()
        eventually(lambda: inspected(pipeline).queue.last_total is not None)
        pipeline.load_state_dict(state)
        assert [batch.seq for batch in pipeline] == [1, 2, 3]


def test_loaded_twice_the_last_one_counts():
    first, _ = state_after(1, lambda: [noise()])
    second, _ = state_after(6, lambda: [noise()])
    for states in ((first, second), (second, first)):
        with Pipeline([noise()]) as pipeline:
            for state in states:
                pipeline.load_state_dict(state)
            assert pipeline.state_dict() == states[1]
            assert (
                identity(pipeline.dequeue(timeout=LIMIT))[:2]
                == {6: (1, 2), 1: (0, 1)}[6 if states[1] is second else 1]
            )


def test_modules_are_opened_again_and_closed():
    events = Counter()

    class Counted(Pass):
        def open(self):
            events["open"] += 1

        def close(self):
            events["close"] += 1

        def interrupt(self):
            events["interrupt"] += 1

    state, _ = state_after(3, lambda: [noise()])
    with Pipeline([noise(), Counted(workers=2)]) as pipeline:
        pipeline.start()
        pipeline.load_state_dict(state)
        assert events["close"] == 2
        assert events["interrupt"] == 0
        assert len(list(pipeline.forever())) == 5
    assert events == {"open": 4, "close": 4, "interrupt": 1}


@pytest.mark.parametrize("ordered", [True, False])
def test_loaded_after_batches_were_taken(ordered):
    state, _ = state_after(1, lambda: [noise()])
    for ask in (lambda p: p.dequeue(), lambda p: p.epoch(), lambda p: next(iter(p)), lambda p: list(p)):
        with Pipeline([noise(workers=2), Pass(workers=2)], ordered=ordered) as pipeline:
            ask(pipeline)
            pipeline.load_state_dict(state)
            assert len(iter(pipeline)) == 3
            assert sorted(identity(batch)[:2] for batch in pipeline) == [(0, 1), (0, 2), (0, 3)]
            assert sorted(identity(batch)[:2] for batch in pipeline) == [(1, n) for n in range(4)]
    with Pipeline([noise()]) as pipeline:
        pipeline.stop()
        with pytest.raises(PipelineStateError, match="stopped"):
            pipeline.load_state_dict(state)


def test_an_iterator_ends_when_a_state_is_loaded():
    state, _ = state_after(1, lambda: [noise()])
    with Pipeline([noise()]) as pipeline:
        batches = iter(pipeline)
        next(batches)
        pipeline.load_state_dict(state)
        with pytest.raises(PipelineStateError, match="a state was loaded"):
            next(batches)


def test_a_thread_that_asks_while_a_state_is_loaded_gets_what_comes_after_it():
    state, _ = state_after(2, lambda: [noise()])
    gate, at_it = threading.Event(), threading.Event()

    def hold(batch):
        at_it.set()
        assert gate.wait(LIMIT)
        return batch

    with Pipeline([noise(), Call(hold)]) as pipeline:
        pipeline.start()
        assert at_it.wait(LIMIT)
        loading = Task(pipeline.load_state_dict, state)
        eventually(lambda: inspected(pipeline).turn.locked())
        asking = Task(pipeline.dequeue)
        gate.set()
        loading.result()
        assert identity(asking.result())[:2] == (0, 2)


@pytest.mark.parametrize("move", [Pipeline.load_state_dict, lambda pipeline, state: next(pipeline.epoch(3))])
@pytest.mark.parametrize("iterate", [iter, Pipeline.epoch, Pipeline.forever])
def test_iteration_that_is_asked_for_while_another_thread_goes_on_elsewhere(move, iterate):
    """The data has not ended, although every batch was dropped."""
    armed, held, gate = threading.Event(), threading.Event(), threading.Event()

    class Held(Noise):
        def prepare(self):
            super().prepare()
            if armed.is_set():
                held.set()
                assert gate.wait(LIMIT)

    class Turn:
        """Opens the gate for who waits for it."""

        def __enter__(self):
            gate.set()
            assert turn.acquire(timeout=LIMIT)

        def __exit__(self, *error):
            turn.release()

    with Pipeline([Held(2, (2, 2), size=10)]) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
        armed.set()
        moving = Task(move, pipeline, state)
        assert held.wait(LIMIT)
        run = inspected(pipeline)
        turn, run.turn = run.turn, Turn()
        batches = iterate(pipeline)
        moving.result()
        assert next(batches).size == 2


def test_a_rest_that_is_taken_while_the_state_is_loaded_does_not_come_again():
    with Pipeline([Noise(2, (2, 2), size=6)]) as pipeline:
        list(pipeline)
        state = {**pipeline.state_dict(), "epoch": 0, "position": 4}
        list(pipeline)
        run, asking = inspected(pipeline), []
        begin_at = run.begin_at

        def overtaken(*place):
            begin_at(*place)
            asking.append(Task(pipeline.dequeue))
            eventually(lambda: run.queue.reached > run.first_ticket)

        run.begin_at = overtaken
        pipeline.load_state_dict(state)
        assert identity(asking[0].result())[:2] == (0, 2)
        assert pipeline.resumed_epoch is None
        assert [identity(batch)[:2] for batch in pipeline] == [(1, 0), (1, 1), (1, 2)]


def test_stopped_while_a_state_is_loaded():
    state, _ = state_after(2, lambda: [noise()])
    gate, at_it = threading.Event(), threading.Event()

    class Held(Call):
        def interrupt(self):
            gate.set()

    def hold(batch):
        at_it.set()
        assert gate.wait(LIMIT)
        return batch

    pipeline = Pipeline([noise(), Held(hold)])
    pipeline.start()
    assert at_it.wait(LIMIT)
    loading = Task(pipeline.load_state_dict, state)
    eventually(lambda: inspected(pipeline).turn.locked())
    pipeline.stop()
    with pytest.raises(PipelineStateError, match="stopped"):
        loading.result()
    with pytest.raises(PipelineStateError, match="stopped"):
        pipeline.dequeue(timeout=LIMIT)


def test_stopped_by_the_source_while_a_state_is_loaded():
    """When the threads have ended, and the next are not there."""

    class Stops(Noise):
        stops = False

        def begin_at(self, place):
            if self.stops:
                pipeline.stop()
            return super().begin_at(place)

    with Pipeline([Stops(3, (2, 2), size=SIZE)]) as pipeline:
        pipeline.start()
        state = pipeline.state_dict()
        pipeline.modules[0].stops = True
        for call in (lambda: pipeline.load_state_dict(state), pipeline.dequeue):
            with pytest.raises(PipelineStateError, match="stopped"):
                call()
        assert "stopped" in repr(pipeline)


def test_what_failed_before_is_raised(tmp_path):
    folder = class_folders(tmp_path, classes=1, each=6, size=(12, 12))

    def make():
        return [ImageFileReader(folder, 2, (8, 8), shuffle=False, epochs=1)]

    state, _ = state_after(2, make)
    next(path for path in sorted(folder.rglob("*")) if path.is_file()).write_bytes(b"no picture")
    with Pipeline(make()) as pipeline:
        pipeline.start()
        eventually(lambda: "failed" in repr(pipeline))
        with pytest.raises(DecodeError, match="ImageFileReader"):
            pipeline.load_state_dict(state)
        with pytest.raises(DecodeError, match="ImageFileReader"):
            pipeline.dequeue(timeout=LIMIT)


def test_a_dropped_pipeline_ends_after_loading_too():
    state, _ = state_after(2, lambda: [noise()])
    alive = threading.active_count()
    pipeline = Pipeline([noise(epochs=None)])
    pipeline.load_state_dict(state)
    del pipeline
    eventually(lambda: threading.active_count() == alive)


def test_pipelines_without_a_state():
    state, _ = state_after(1, lambda: [noise()])
    with Pipeline([Numbers(5)]) as pipeline:
        for call in (pipeline.state_dict, lambda: pipeline.load_state_dict(state)):
            with pytest.raises(PipelineStateError, match="Numbers has no state"):
                call()
    with Pipeline([noise(), Collect()]) as pipeline:
        for call in (pipeline.state_dict, lambda: pipeline.load_state_dict(state)):
            with pytest.raises(PipelineStateError, match="ends in Collect"):
                call()


def test_unordered_pipelines_begin_anywhere_but_have_no_place():
    state, _ = state_after(2, lambda: [noise()])
    with Pipeline([noise(workers=3), Pass(workers=2)], ordered=False) as pipeline:
        with pytest.raises(PipelineStateError, match="ordered=True"):
            pipeline.state_dict()
        pipeline.load_state_dict(state)
        epochs = [sorted(identity(batch)[:2] for batch in pipeline.epoch()) for _ in range(2)]
        with pytest.raises(EndOfData):
            list(pipeline.epoch())
    assert epochs == [[(0, 2), (0, 3)], [(1, n) for n in range(4)]]


def test_a_source_of_ones_own():
    class Tenths(Source):
        seekable = True
        first = 0

        def tasks(self):
            return iter(range(self.first, 10))

        def load(self, task):
            return Numbers.load(Numbers(), task)

        def state_at(self, ticket):
            return {"next": ticket}

        def find(self, state):
            return state["next"]

        def begin_at(self, place):
            self.first = place
            return place

    with Pipeline([Tenths()]) as pipeline:
        pipeline.dequeue()
        state = pipeline.state_dict()
    assert state == {"next": 1}
    assert [batch.seq for batch in resumed(state, [Tenths()])] == list(range(1, 10))


# What is refused

STATE = {
    "version": 1,
    "kind": "Noise",
    "size": SIZE,
    "shuffle": True,
    "seed": 0,
    "fingerprint": Pipeline([noise()]).state_dict()["fingerprint"],
    "epoch": 0,
    "position": 3,
}

WRONG = [
    (None, "is of type NoneType"),
    ("{}", "is of type str"),
    ([], "is of type list"),
    ({}, "has no 'version'"),
    ({"version": 1, "generation": 1, "epoch": 0, "streams": [], "fingerprint": ""}, "has no 'kind'"),
    *(({k: v for k, v in STATE.items() if k != name}, f"has no '{name}'") for name in STATE),
    *(({**STATE, name: None}, f"has {name} None") for name in STATE),
    *(({**STATE, name: "x" * 10**6}, f"has {name} 'xxx") for name in STATE),
    *(
        ({**STATE, name: float(STATE[name])}, f"has {name} ")
        for name in ("version", "size", "seed", "epoch", "position")
    ),
    ({**STATE, "version": True}, "has version True; expected 1"),
    ({**STATE, "version": 2}, "has version 2; expected 1; it was made by another version"),
    ({**STATE, "kind": "ImageFileReader"}, "has kind 'ImageFileReader'; expected 'Noise'"),
    ({**STATE, "size": 12}, "has size 12; expected 11, the number of samples here"),
    ({**STATE, "shuffle": False}, "has shuffle False; expected True"),
    ({**STATE, "shuffle": 1}, "has shuffle 1; expected True"),
    ({**STATE, "seed": 1}, "has seed 1; expected 0"),
    ({**STATE, "fingerprint": "0" * 32}, "has fingerprint '0+'; expected .*the samples are not the same"),
    ({**STATE, "epoch": -1}, "has epoch -1; expected a whole number from 0 to 2"),
    ({**STATE, "epoch": 3}, "has epoch 3"),
    ({**STATE, "epoch": False}, "has epoch False"),
    ({**STATE, "position": -1}, "has position -1; expected a whole number from 0 to 10"),
    ({**STATE, "position": SIZE}, "has position 11"),
    ({**STATE, "position": True}, "has position True"),
    ({**STATE, "epoch": 2, "position": 1}, "has position 1; expected a whole number from 0 to 0"),
    ({**STATE, "position": 10**30}, "has position 1000"),
]


@pytest.mark.parametrize(("state", "named"), WRONG, ids=[named[:40] for _, named in WRONG])
def test_what_is_no_state_of_this_is_refused_and_changes_nothing(state, named):
    with Pipeline([noise(), Pass()]) as pipeline:
        runners, before = inspected(pipeline).runners, pipeline.state_dict()
        with pytest.raises(StateMismatchError, match=f"^Noise: the state {named}") as caught:
            pipeline.load_state_dict(state)
        assert len(str(caught.value)) < 300
        assert inspected(pipeline).runners is runners
        assert pipeline.state_dict() == before
        assert [identity(batch)[:2] for batch in pipeline.forever()] == [
            (e, n) for e in range(2) for n in range(4)
        ]


def test_the_state_that_the_others_are_made_of_is_one():
    assert len(resumed(STATE, [noise()])) == 7
    assert len(resumed({**STATE, "epoch": 2, "position": 0, "note": "more"}, [noise()])) == 0


def test_other_samples_are_refused(tmp_path):
    folder = class_folders(tmp_path, classes=2, each=4, size=(8, 8))

    def make(**options):
        return [ImageFileReader(folder, 2, (8, 8), **options)]

    state, _ = state_after(1, make)
    assert resumed(state, make(epochs=1, drop_last=True, shard=(1, 2), labels="one_hot")) != []
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for change, named in (
        (lambda: files[0].rename(files[0].with_name("0-another" + files[0].suffix)), "fingerprint"),
        (lambda: files[1].unlink(), "size 8; expected 7"),
    ):
        change()
        with Pipeline(make()) as pipeline, pytest.raises(StateMismatchError, match=named):
            pipeline.load_state_dict(state)


def test_places_behind_the_end_are_behind_it():
    order = Sampler(10, 4, epochs=2)
    assert order.place_at(6) == Position(2, 0)
    assert list(order.tasks_after(Position(2, 0))) == []
