"""Modules are specifications: a Pipeline that cannot start leaves them as they were, and any number uses them."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
from concurrency import LIMIT, Task
from pictures import class_folders
from small_modules import Call, Collect, Numbers, Pass, SizedNumbers, numbers_of

from highway.engine import Module, Pipeline, Sink
from highway.engine.workers import ModuleRunner
from highway.errors import AddressInUseError, ArgumentError, StorageError
from highway.modules import (
    ArrayReader,
    Augmentations,
    ImageFileReader,
    LevelDBSink,
    LevelDBSource,
    Noise,
    ZMQSink,
    ZMQSource,
)
from highway.transforms import FlipX, FlipY, Normalize, RandomCrop


class Fault(Exception):
    """Raised by the modules under test."""


class Faulty(Pass):
    """Raises at `where`, while it is to."""

    def __init__(self, where, **arguments):
        super().__init__(**arguments)
        self.where = where

    def fail(self, where):
        if self.where == where:
            raise Fault(where)

    def follow(self, before):
        super().follow(before)
        self.fail("follow")

    def enter(self, modules, stats):
        self.fail("enter")

    def default_workers(self):
        self.fail("default_workers")
        return 1

    def most_workers(self):
        self.fail("most_workers")
        return 2

    def interrupt(self):
        self.fail("interrupt")

    left_out = property(lambda self: self.fail("left_out"))


PLACES = ["follow", "left_out", "default_workers", "most_workers", "enter"]


def images():
    return np.random.default_rng(1).integers(0, 256, (20, 12, 12, 3), np.uint8)


def pictures(path):
    return ImageFileReader(class_folders(path, classes=2, each=10, size=(12, 12)), 4, (8, 8), epochs=1)


def stored(path):
    pytest.importorskip("plyvel", reason="plyvel is not installed: it has no wheels for this Python")
    with Pipeline([ArrayReader(images(), range(20), 4, epochs=1), LevelDBSink(path)]) as pipeline:
        pipeline.wait(LIMIT)
    return LevelDBSource(path, 4, epochs=1)


SOURCES = {
    "ImageFileReader": pictures,
    "ArrayReader": lambda path: ArrayReader(images(), range(20), 4, epochs=1),
    "LevelDBSource": stored,
    "Noise": lambda path: Noise(4, (8, 8), size=20, epochs=1),
}
ALL = pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)


def content(modules):
    with Pipeline(modules) as pipeline:
        return [(batch.images.dtype, batch.indices.tolist(), batch.images.tobytes()) for batch in pipeline]


def run(modules, **arguments):
    Pipeline(modules, **arguments).start()


def augmentations():
    return Augmentations([FlipX(), FlipY(p=1), Normalize()], seed=3)


@ALL
@pytest.mark.parametrize("where", PLACES)
def test_modules_are_as_they_were(make, where, tmp_path):
    modules = [make(tmp_path / "first"), augmentations(), faulty := Faulty(where)]
    for _ in range(2):
        with pytest.raises(Fault, match=where):
            run(modules)
    # Tried again.
    faulty.where = ""
    found = content(modules)
    assert found == content([make(tmp_path / "again"), augmentations()])
    assert len(found) == 5


@ALL
@pytest.mark.parametrize("where", PLACES)
def test_a_source_keeps_nothing_that_the_augmentations_of_a_failed_pipeline_asked_for(make, where, tmp_path):
    alone = content([make(tmp_path / "alone")])
    source, stage = make(tmp_path / "source"), augmentations()
    with pytest.raises(Fault):
        run([source, stage, Faulty(where)])
    assert content([source]) == alone
    # And these do all of it themselves elsewhere.
    other = content([Noise(4, (8, 8), size=20, epochs=1), stage])
    assert other == content([Noise(4, (8, 8), size=20, epochs=1), augmentations()])


def test_what_another_failed_pipeline_asked_for_is_not_kept_where_nothing_is_taken_over(tmp_path):
    reader = pictures(tmp_path)
    assert reader.fuse([FlipX(p=1)], 0) == 1
    # Three means for a channel: this is to raise where it stands.
    assert ImageFileReader(tmp_path, 4, (8, 8), color="gray").fuse([FlipX(p=1), Normalize()], 0) == 0
    gray = ImageFileReader(tmp_path, 4, (8, 8), color="gray", epochs=1, shuffle=False)
    plain = ImageFileReader(tmp_path, 4, (8, 8), color="gray", epochs=1, shuffle=False)
    assert gray.fuse([FlipX(p=1)], 0) == 1
    assert gray.fuse([FlipX(p=1), Normalize()], 0) == 0
    assert content([gray]) == content([plain])


def fresh():
    return [SizedNumbers(5), Pass(), Pass()]


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_bytes": 0},
        {"max_bytes": "much"},
        {"max_bytes": 2**63},
        {"ordered": np.zeros(2)},
    ],
)
def test_arguments_that_do_not_fit(arguments):
    modules = fresh()
    with pytest.raises((ArgumentError, ValueError)):
        Pipeline(modules, **arguments)
    with Pipeline(modules) as pipeline:
        assert numbers_of(pipeline) == list(range(5))


@pytest.mark.parametrize("length", [-1, "3", None, 2.5])
def test_a_length_that_is_none(length):
    class Odd(Numbers):
        known = length

        def __len__(self):
            return self.known

    modules = [Odd(5), Pass()]
    with pytest.raises((ValueError, TypeError)):
        Pipeline(modules)
    Odd.known = 5
    with Pipeline(modules) as pipeline:
        assert numbers_of(pipeline) == list(range(5))


def test_modules_that_do_not_go_together():
    source, stage, sink = Numbers(5), Pass(), Collect()
    for modules in ([stage], [source, sink, stage], [source, None], [source, source]):
        with pytest.raises(ArgumentError):
            Pipeline(modules)
    with Pipeline([source, stage, sink]) as pipeline:
        pipeline.wait(LIMIT)
    assert numbers_of(sink.batches) == list(range(5))


@ALL
@pytest.mark.parametrize("which", [0, 1, 2])
def test_threads_that_are_not_to_be_had(make, which, monkeypatch, tmp_path):
    """Those that have begun by then end, with what they have opened."""
    source, stage = make(tmp_path / "first"), augmentations()
    source.workers = 2
    modules = [source, stage, Pass(workers=1)]
    start, started = threading.Thread.start, []

    def limited(thread):
        if thread.name.startswith("highway "):
            if len(started) == which:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        for _ in range(2):
            started.clear()
            with pytest.raises(RuntimeError, match="can't start new thread"):
                run(modules)
            assert not any(thread.is_alive() for thread in started)
    assert content(modules) == content([make(tmp_path / "again"), augmentations()])


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("place", ["make_runners", "Tuning", "Control"])
def test_what_the_engine_itself_raises(place, error, monkeypatch):
    modules = fresh()
    with monkeypatch.context() as patch:

        def fail(*arguments):
            raise error

        patch.setattr(f"highway.engine.run.{place}", fail)
        with pytest.raises(error):
            run(modules)
    with Pipeline(modules) as pipeline:
        assert numbers_of(pipeline) == list(range(5))


def test_ctrl_c_while_threads_start(monkeypatch):
    modules = fresh()
    with monkeypatch.context() as patch:
        start = ModuleRunner.start

        def interrupted(self, *arguments):
            start(self, *arguments)
            raise KeyboardInterrupt

        patch.setattr(ModuleRunner, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(modules)
    with Pipeline(modules) as pipeline:
        assert numbers_of(pipeline) == list(range(5))


def test_modules_are_as_they_were_also_where_one_cannot_be_interrupted():
    class Stubborn(Faulty):
        def interrupt(self):
            raise Fault("interrupt")

    modules = [SizedNumbers(5), stubborn := Stubborn("enter")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(Fault, match="enter"):
            run(modules)
    assert "Stubborn.interrupt() raised" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="interrupt"):
            run(modules)
    stubborn.where = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Pipeline(modules) as pipeline:
            assert numbers_of(pipeline) == list(range(5))


def test_an_address_in_use_is_tried_again_with_the_same_modules(tmp_path):
    """The reader was entered, and interrupted, by then."""
    address = f"ipc://{tmp_path}/s"
    other = Pipeline([Noise(4, (8, 8)), ZMQSink(address)])
    reader = pictures(tmp_path / "p")
    modules = [reader, augmentations(), ZMQSink(address)]
    for _ in range(2):
        with pytest.raises(AddressInUseError):
            Pipeline(modules)
    other.stop()
    with Pipeline(modules) as data, Pipeline([ZMQSource(address, ordered=True)]) as training:
        found = [batch.images.tobytes() for batch in training]
        data.wait(LIMIT)
    alone = [each for _, _, each in content([pictures(tmp_path / "q"), augmentations()])]
    assert found == alone


def test_a_reader_that_was_interrupted_waits_for_the_storage_again(tmp_path, monkeypatch):
    reader, faulty = pictures(tmp_path), Faulty("enter")
    with pytest.raises(Fault):
        run([reader, faulty])
    read = ImageFileReader._read_once
    away = [StorageError("ImageFileReader: a.jpg cannot be opened: Stale file handle")]

    def read_later(self, *arguments):
        made, failures = read(self, *arguments)
        if away:
            failures[0] = away.pop()
        return made, failures

    monkeypatch.setattr(ImageFileReader, "_read_once", read_later)
    assert len(content([reader])) == 5
    assert not away


def test_a_sink_of_a_store_is_tried_again(tmp_path):
    pytest.importorskip("plyvel", reason="plyvel is not installed: it has no wheels for this Python")
    source, sink, faulty = (
        Noise(4, (8, 8), size=20, epochs=1),
        LevelDBSink(tmp_path / "s", append=True),
        Faulty("enter"),
    )
    # The sink is entered last: it has the store open where the threads do not start.
    for _ in range(2):
        with pytest.raises(Fault):
            Pipeline([source, faulty, sink])
    faulty.where = ""
    with Pipeline([source, faulty, sink]) as pipeline:
        pipeline.wait(LIMIT)
    assert sink.stored == 20


@ALL
def test_ten_pipelines_of_one_list(make, tmp_path):
    """At once, and one after another."""
    modules = [make(tmp_path / "first"), augmentations()]
    alone = content(modules)
    pipelines = [Pipeline(modules, ordered=ordered) for ordered in (True, False) * 5]
    found = [
        [(batch.images.dtype, batch.indices.tolist(), batch.images.tobytes()) for batch in batches]
        for batches in zip(*pipelines, strict=True)
    ]
    for pipeline in pipelines:
        pipeline.stop()
    assert all(len({each[2] for each in batches[::2]}) == 1 for batches in found)
    assert [batches[0] for batches in found] == alone
    assert content(modules) == alone


@ALL
def test_a_stopped_or_failed_pipeline_leaves_another_alone(make, tmp_path):
    modules = [make(tmp_path / "first"), augmentations()]
    with Pipeline(modules) as pipeline:
        first = pipeline.dequeue(timeout=LIMIT)
        other = Pipeline(modules)
        assert other.dequeue(timeout=LIMIT).indices.tolist() == first.indices.tolist()
        other.stop()
        with Pipeline([*modules, Call(lambda batch: 1 / 0)]) as failing, pytest.raises(ZeroDivisionError):
            failing.dequeue(timeout=LIMIT)
        assert [batch.seq for batch in pipeline.forever()] == [1, 2, 3, 4]


def test_each_pipeline_has_its_own_errors(tmp_path):
    folder = class_folders(tmp_path, classes=1, each=6, size=(12, 12))
    next(path for path in sorted(folder.rglob("*")) if path.is_file()).write_bytes(b"no picture")
    reader = ImageFileReader(folder, 2, (8, 8), shuffle=False, epochs=1, on_error="skip")
    with Pipeline([reader]) as first, Pipeline([reader]) as second:
        assert reader.errors == []
        list(second)
        assert first.errors == []
        assert len(second.errors) == 1
        # The reader tells those of the pipeline that was made from it last.
        assert reader.errors == second.errors


def test_a_user_module_is_shared_and_writes_only_where_all_allow_it():
    class Keep(Numbers):
        hands_over = False

    stage = Pass()
    with Pipeline([Numbers(3), stage]):
        assert stage.input_handed_over
        with Pipeline([Keep(3), stage]):
            assert not stage.input_handed_over


def test_errors_of_modules_that_fail_are_not_hidden_by_those_of_the_repair():
    class Late(Sink):
        def follow(self, before):
            self.late = True
            raise Fault("follow")

    sink = Late()
    with pytest.raises(Fault, match="follow"):
        Pipeline([Numbers(1), sink])
    assert isinstance(sink, Module)


def test_from_another_thread():
    modules = [SizedNumbers(5), faulty := Faulty("enter")]
    for _ in range(3):
        with pytest.raises(Fault):
            Task(run, modules).result()
    faulty.where = ""
    with Pipeline(modules) as pipeline:
        assert numbers_of(pipeline) == list(range(5))


def test_crops_of_a_failed_pipeline_are_not_kept():
    source = ArrayReader(images(), range(20), 4, epochs=1)
    with pytest.raises(Fault):
        run([source, Augmentations([RandomCrop((4, 4))]), Faulty("enter")])
    with Pipeline([source]) as pipeline:
        assert {batch.images.shape for batch in pipeline} == {(4, 12, 12, 3)}
