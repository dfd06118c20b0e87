"""A Pipeline that cannot be made leaves its modules as they were: they may be tried again, or used elsewhere."""

from __future__ import annotations

import threading
import warnings

import numpy as np
import pytest
from concurrency import LIMIT, Task
from pictures import class_folders
from small_modules import Collect, Numbers, Pass, SizedNumbers, numbers_of

from highway.engine import Module, Pipeline, Sink, Stage
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


def attributes(modules):
    return [dict(vars(module)) for module in modules]


def augmentations():
    return Augmentations([FlipX(), FlipY(p=1), Normalize()], seed=3)


@ALL
@pytest.mark.parametrize("where", PLACES)
def test_modules_are_as_they_were(make, where, tmp_path):
    modules = [make(tmp_path / "first"), augmentations(), faulty := Faulty(where)]
    before = attributes(modules)
    for _ in range(2):
        with pytest.raises(Fault, match=where):
            Pipeline(modules)
        assert attributes(modules) == before
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
        Pipeline([source, stage, Faulty(where)])
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
    before = attributes(modules)
    with pytest.raises((ArgumentError, ValueError)):
        Pipeline(modules, **arguments)
    assert attributes(modules) == before
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
    for modules in ([stage], [source, sink, stage], [source, stage, stage], [source, None], [source, source]):
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
    before = attributes(modules)
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
                Pipeline(modules)
            assert not any(thread.is_alive() for thread in started)
            unlike = [
                name
                for module, earlier in zip(modules, before, strict=True)
                for name in {*earlier, *vars(module)}
                if vars(module).get(name) is not earlier.get(name)
            ]
            assert unlike == []
    assert content(modules) == content([make(tmp_path / "again"), augmentations()])


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
@pytest.mark.parametrize("place", ["make_runners", "Tuning", "Control"])
def test_what_the_engine_itself_raises(place, error, monkeypatch):
    modules = fresh()
    with monkeypatch.context() as patch:

        def fail(*arguments):
            raise error

        patch.setattr(f"highway.engine.pipeline.{place}", fail)
        with pytest.raises(error):
            Pipeline(modules)
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
            Pipeline(modules)
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
            Pipeline(modules)
    assert "Stubborn.interrupt() raised" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(RuntimeWarning, match="interrupt"):
            Pipeline(modules)
    stubborn.where = ""
    assert not any(module._taken for module in modules)


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
        Pipeline([reader, faulty])
    read, away = (
        reader._read_once,
        [StorageError("ImageFileReader: a.jpg cannot be opened: Stale file handle")],
    )

    def read_later(*arguments):
        made, failures = read(*arguments)
        if away:
            failures[0] = away.pop()
        return made, failures

    monkeypatch.setattr(reader, "_read_once", read_later)
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


def test_modules_of_a_pipeline_that_was_made_stay_used():
    """Also after its end."""
    modules = fresh()
    with Pipeline(modules) as pipeline:
        list(pipeline)
    with pytest.raises(ArgumentError, match=r"modules\[0\] \(SizedNumbers\) is used twice"):
        Pipeline(modules)


def test_modules_of_a_pipeline_that_is_being_made_are_used():
    """Not only once it is there."""
    inside = []

    class Nested(Stage):
        def enter(self, modules, stats):
            with pytest.raises(ArgumentError, match="used twice") as caught:
                Pipeline([modules[0]])
            inside.append(caught.value)

        def process(self, batch):
            return batch

    with Pipeline([Numbers(5), Nested(), Pass()]) as pipeline:
        assert numbers_of(pipeline) == list(range(5))
    assert len(inside) == 1


def test_errors_of_modules_that_fail_are_not_hidden_by_those_of_the_repair():
    class Late(Sink):
        def follow(self, before):
            self.late = True
            raise Fault("follow")

    sink = Late()
    with pytest.raises(Fault, match="follow"):
        Pipeline([Numbers(1), sink])
    assert "late" not in vars(sink)
    assert isinstance(sink, Module)


def test_from_another_thread():
    modules = [SizedNumbers(5), faulty := Faulty("enter")]
    for _ in range(3):
        with pytest.raises(Fault):
            Task(Pipeline, modules).result()
    faulty.where = ""
    with Pipeline(modules) as pipeline:
        assert numbers_of(pipeline) == list(range(5))


def test_crops_of_a_failed_pipeline_are_not_kept():
    source = ArrayReader(images(), range(20), 4, epochs=1)
    with pytest.raises(Fault):
        Pipeline([source, Augmentations([RandomCrop((4, 4))]), Faulty("enter")])
    with Pipeline([source]) as pipeline:
        assert {batch.images.shape for batch in pipeline} == {(4, 12, 12, 3)}
