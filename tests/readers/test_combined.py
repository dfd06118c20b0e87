"""Mix and Concat: their batches are made of what each source makes alone, whatever the pipeline does with them."""

import json
import pickle

import numpy as np
import pytest
from concurrency import LIMIT, eventually
from object_server import ObjectServer, folder_objects
from pictures import class_folders
from tars import shards_of_folder
from voc_folders import annotation, thing, voc_folder

from highway import replay
from highway.engine import Pipeline
from highway.errors import ArgumentError, ContractError, DecodeError, EmptyDatasetError, StateMismatchError
from highway.modules import (
    ArrayReader,
    Augmentations,
    Concat,
    DatasetReader,
    ImageFileReader,
    LevelDBSink,
    LevelDBSource,
    ListReader,
    Mix,
    Noise,
    TarReader,
    VOCReader,
    ZMQSink,
    ZMQSource,
)
from highway.modules.readers.ordered import OrderedSource
from highway.transforms import FlipX, RandomResizedCrop

SHAPE = (24, 32)
CLASSES = ["class0", "class1", "class2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("photos"), 3, 4)


def values(begin, size, batch_size=5, **options):
    numbers = np.arange(begin, begin + size)
    return ArrayReader(numbers[:, None].astype(np.float32), numbers, batch_size, **options)


def three(batch_size=5):
    return [
        values(0, 31, batch_size),
        values(100, 12, batch_size, seed=1),
        values(200, 7, batch_size, repeats=2),
    ]


def mixed(batch_size=5, **options):
    return Mix(three(batch_size), **{"weights": (3, 1, 1), "epochs": 2, **options})


def concatenated(batch_size=5, **options):
    return Concat(three(batch_size), **{"epochs": 2, **options})


BOTH = {
    "mix": mixed,
    "batch": lambda *given, **options: mixed(*given, exact="batch", **options),
    "concat": concatenated,
}


def batches(*modules):
    with Pipeline(list(modules)) as pipeline:
        return [batch for _ in range(modules[0].epochs) for batch in pipeline]


def contents(found):
    return {
        (batch.epoch, index): tuple(batch.rows_of(name, row).tobytes() for name in batch.fields)
        for batch in found
        for row, index in enumerate(batch.indices.tolist())
    }


@pytest.mark.parametrize("name", BOTH)
def test_every_row_is_that_of_its_source(name):
    firsts = {0: 0, 1: 100, 2: 200}
    source = BOTH[name]()
    count = 0
    for batch in batches(source):
        numbers = batch.indices % 2**32
        members = source.order.members_of(numbers)
        expected = numbers - source.order.firsts[members] + np.array([firsts[one] for one in members])
        assert batch.labels.tolist() == batch.images[:, 0].tolist() == expected.tolist()
        count += batch.size
    assert count == 2 * source.order.size
    assert len(source) == -(-source.order.size // 5)


def test_sources_of_several_kinds(folder, tmp_path_factory):
    """Files, tars and a list; drawn, flipped and one of them with copies."""
    keys = [*ImageFileReader(folder, 1, SHAPE).known_keys()]
    tars = shards_of_folder(folder, keys, tmp_path_factory.mktemp("tars"), 3)
    drawn = {"fit": RandomResizedCrop()}
    sources = [
        ImageFileReader(folder, 4, SHAPE, seed=3, repeats=2, **drawn),
        TarReader(tars, 4, SHAPE, label="cls", seed=4, window=2, **drawn),
        ListReader([folder / key for key in keys], [int(key[5]) for key in keys], 4, SHAPE, seed=5, **drawn),
    ]
    stage = Augmentations([FlipX()])
    alone = contents(batches(ImageFileReader(folder, 4, SHAPE, seed=3, repeats=2, epochs=1, **drawn)))
    for make in (Concat, Mix):
        found = batches(make(sources, epochs=2))
        for batch in found:
            for index, key in zip(batch.indices.tolist(), batch.keys, strict=True):
                assert keys[index % 2**32 % 12].removesuffix(".jpg").endswith(key.removesuffix(".jpg")[-8:])
        assert contents(found).items() >= contents(batches(make(sources, epochs=1, workers=1))).items()
        # What the first source draws alone, it draws here in the same epoch.
        same = {place: value for place, value in contents(found).items() if place in alone}
        assert same
        assert all(alone[place] == value for place, value in same.items())
        assert len(contents(batches(make(sources, epochs=1, workers=3), stage))) == make(sources).order.size


def test_ragged_fields(tmp_path):
    names = [f"{index:02}" for index in range(6)]
    boxes = {
        name: annotation(*[thing(box=(1 + n, 1, 40, 40)) for n in range(int(name) % 3)]) for name in names
    }
    root = voc_folder(tmp_path, boxes, train=names)
    first, second = (
        VOCReader(root, 3, SHAPE, subset=part, classes=["dog"]) for part in ([0, 1, 2], [5, 3, 4])
    )
    expected = contents(batches(VOCReader(root, 3, SHAPE, classes=["dog"], epochs=1)))
    for source in (Mix([first, second], epochs=1), Concat([first, second], epochs=1, seed=2)):
        for batch in batches(source):
            assert {"labels", "boxes", "difficult", "truncated"} <= batch.ragged
            assert batch.offsets is not None
            for row, index in enumerate(batch.indices.tolist()):
                values = tuple(batch.rows_of(name, row).tobytes() for name in batch.fields)
                assert values == expected[0, index % 6]


@pytest.mark.parametrize("name", BOTH)
def test_states_resume_with_other_batches_and_worlds(name):
    whole = contents(batches(BOTH[name](workers=1)))
    with Pipeline([BOTH[name]()]) as pipeline:
        before = [pipeline.dequeue(timeout=LIMIT) for _ in range(len(BOTH[name]()) + 2)]
        state = json.loads(json.dumps(pipeline.state_dict()))
    for batch_size, world in ((5, 1), (10, 1), (5, 3)):
        rest = {}
        for rank in range(world):
            with Pipeline([BOTH[name](batch_size, shard=(rank, world))]) as pipeline:
                pipeline.load_state_dict(state)
                rest |= contents(pipeline)
        assert {**contents(before), **rest} == whole


def test_states_of_other_mixtures_are_refused():
    with Pipeline([mixed()]) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
    others = [
        (mixed(weights=(2, 1, 1)), r"weights \[3, 1, 1\]; expected \[2, 1, 1\]"),
        (mixed(stop=40), f"stop {state['stop']}; expected 40"),
        (mixed(exact="batch", stop=50), "stop "),
        (Mix([*three()[:2], values(200, 8)], weights=(3, 1, 1), stop=state["stop"]), "size 50; expected 51"),
        (
            Mix([*three()[:2], values(200, 7, repeats=2, seed=1)], weights=(3, 1, 1), stop=state["stop"]),
            "fingerprint",
        ),
        (concatenated(), "kind 'Mix'; expected 'Concat'"),
    ]
    for other, named in others:
        with Pipeline([other]) as pipeline, pytest.raises(StateMismatchError, match=named):
            pipeline.load_state_dict(state)


@pytest.mark.parametrize("processes", [0, 1])
def test_data_sets_in_python(processes):
    """They start what they need, such as processes, with the pipeline of the mixture."""
    samples = [{"x": np.float32(number), "labels": number} for number in range(20)]
    python = DatasetReader(samples[:15], 5, seed=1, processes=processes)
    arrays = ArrayReader({"x": np.arange(15, 20, dtype=np.float32), "labels": np.arange(15, 20)}, 5)
    found = batches(Mix([python, arrays], weights=(3, 1), stop="all", epochs=1))
    assert sorted(np.concatenate([batch.labels for batch in found])) == list(range(20))
    assert all((batch.x == batch.labels).all() for batch in found)
    again = replay.batch([Mix([python, arrays], weights=(3, 1), stop="all", epochs=1)], epoch=0, step=1)
    assert (again.x == found[1].x).all()


@pytest.mark.parametrize("name", BOTH)
def test_replay_makes_any_batch_again(name):
    modules = [BOTH[name](), Augmentations([])]
    seen = batches(*modules)
    for made in (seen[1], seen[-1]):
        again = replay.batch(modules, epoch=made.epoch, step=made.seq)
        assert contents([again]) == contents([made])
    # The sources stay those of the user.
    assert all(source.within is None for source in modules[0].sources)
    assert contents(batches(*modules)) == contents(seen)


@pytest.mark.parametrize("name", BOTH)
def test_skipped_samples(name):
    with Pipeline([BOTH[name]()]) as pipeline:
        pipeline.skip(samples=[0, 31, 49])
        found = [batch for _ in range(2) for batch in pipeline]
    assert not {0, 31, 49} & {index % 2**32 for _, index in contents(found)}
    assert {1, 32, 48} <= {index % 2**32 for _, index in contents(found)}


def damaged(tmp_path):
    root = class_folders(tmp_path / "photos", 3, 4)
    for name in ("class0/1.jpg", "class1/2.jpg"):
        (root / name).write_bytes(b"no picture")
    return root


def test_bad_samples_of_a_source(folder, tmp_path):
    root = damaged(tmp_path)
    good = ImageFileReader(folder, 4, SHAPE)
    for policy, size in (("skip", 22), ("replace", 24)):
        source = Concat([good, ImageFileReader(root, 4, SHAPE, on_error=policy)], epochs=1)
        with Pipeline([source]) as pipeline:
            found = list(pipeline)
            assert sorted(key for key, _ in pipeline.errors) == ["class0/1.jpg", "class1/2.jpg"]
            assert [module.replaced_samples for module in pipeline.stats().modules][:1] == [
                24 - 22 if size == 24 else 0
            ]
        assert sum(batch.size for batch in found) == size
        keys = [*good.known_keys()]
        for batch in found:
            for index, key in zip(batch.indices.tolist(), batch.keys, strict=True):
                assert keys[index % 12] == key
    with (
        Pipeline([Concat([good, ImageFileReader(root, 4, SHAPE)], epochs=1)]) as pipeline,
        pytest.raises(DecodeError, match=r"ImageFileReader: .*class"),
    ):
        list(pipeline)


def test_replacements_of_a_source_are_not_skipped(tmp_path):
    root = damaged(tmp_path)
    source = Mix([values_of_pictures(), ImageFileReader(root, 4, SHAPE, on_error="replace")], epochs=2)
    first = source.order.firsts[1]
    keys = [*source.sources[1].known_keys()]
    kept = {keys.index("class0/1.jpg"), keys.index("class1/2.jpg"), keys.index("class2/0.jpg")}
    with Pipeline([source]) as pipeline:
        pipeline.skip(samples=[int(first) + number for number in range(12) if number not in kept])
        found = [batch for _ in range(2) for batch in pipeline]
    seen = {index % 2**32 - first for _, index in contents(found) if index % 2**32 >= first}
    assert seen == {keys.index("class2/0.jpg")}


def values_of_pictures():
    return Noise(4, SHAPE, size=9, classes=3)


def test_all_samples_of_a_source_are_bad(tmp_path):
    root = class_folders(tmp_path / "photos", 1, 2)
    for file in root.rglob("*.jpg"):
        file.write_bytes(b"no picture")
    source = Mix([values_of_pictures(), ImageFileReader(root, 4, SHAPE, on_error="skip")], stop=100)
    with Pipeline([source]) as pipeline, pytest.raises(EmptyDatasetError, match="none of the files"):
        list(pipeline)


def test_sources_in_an_object_store(folder):
    """They fetch ahead what the next batches of the mixture need."""
    with ObjectServer(folder_objects(folder)) as server:
        there = ImageFileReader("s3://data", 4, SHAPE, storage_options=server.options)
        here = ImageFileReader(folder, 4, SHAPE, seed=1)
        listing = server.count()
        with Pipeline([Concat([here, there], epochs=2, workers=1, queue_size=1)]) as pipeline:
            found = [pipeline.dequeue(timeout=LIMIT)]
            # Few batches are made ahead; all 12 pictures are there.
            eventually(lambda: server.count() - listing >= 12)
            found += [pipeline.dequeue(timeout=LIMIT) for _ in range(11)]
        local = Concat([here, ImageFileReader(folder, 4, SHAPE)], epochs=2)
        assert contents(found) == contents(batches(local))
        assert max(server.per_key().values()) <= 2


def test_each_source_sees_its_own_part_of_the_tasks():
    seen = {}

    class Seeing(Noise):
        def announced(self, tasks):
            for task in tasks:
                seen.setdefault(self.order.data_size, []).append(task)
                yield task

    for make in (Concat, Mix):
        seen.clear()
        batches(make([Seeing(4, (2, 2), size=size) for size in (9, 5, 7)], epochs=2))
        order = make([Noise(4, (2, 2), size=size) for size in (9, 5, 7)], epochs=2).order
        for number, size in enumerate((9, 5, 7)):
            expected = [task.indices[order.members_of(task.numbers) == number] for task in order.tasks()]
            parts = [(indices - order.firsts[number]).tolist() for indices in expected]
            assert [task.indices.tolist() for task in seen[size]] == parts


def test_stores_and_copies_of_a_mixture(tmp_path):
    source = pickle.loads(pickle.dumps(mixed(epochs=1)))
    assert source == mixed(epochs=1)
    with Pipeline([source, LevelDBSink(tmp_path / "s")]) as pipeline:
        pipeline.wait()
    address = "inproc://mixture"
    with Pipeline([mixed(), ZMQSink(address)]), Pipeline([ZMQSource(address)]) as training:
        assert contents([batch for _ in range(2) for batch in training]) == contents(batches(mixed()))
    stored = batches(LevelDBSource(tmp_path / "s", 4, shuffle=False, epochs=1))
    expected = batches(mixed(epochs=1))
    assert np.concatenate([batch.labels for batch in stored]).tolist() == (
        np.concatenate([batch.labels for batch in expected]).tolist()
    )


@pytest.mark.parametrize("make", [Concat, Mix])
def test_mixtures_of_data_sets_in_python(make):
    numbers = [{"x": np.full(3, number, np.float32), "number": number} for number in range(20)]
    sources = [DatasetReader(numbers[:12], 4), DatasetReader(numbers[12:], 4, seed=2)]
    found = batches(make(sources, stop="all", epochs=1) if make is Mix else make(sources, epochs=1))
    for batch in found:
        assert batch["number"].tolist() == (batch.indices % 2**32).tolist()
    assert {number for batch in found for number in batch["number"].tolist()} == {*range(20)}
    made = replay.batch([make(sources, epochs=1)], step=1)
    assert contents([made]).items() <= contents(found).items()
    assert make(sources).default_workers() == sources[0].default_workers()


def test_iterables_have_no_order():
    with pytest.raises(
        ArgumentError, match=r"sources\[1\] is a DatasetReader of an iterable, .* __getitem__"
    ):
        Concat([values(0, 5, 4), DatasetReader({1, 2}, 4, shuffle=False)])


def test_tickets_are_those_of_the_outermost_mixture():
    """By which sources in a store fetch ahead; they grow with the order."""
    inner = Concat([values(0, 6), values(50, 4)], seed=3)
    with Pipeline([Mix([inner, values(100, 10)], stop="all", epochs=3)]) as pipeline:
        list(pipeline)
        outer = pipeline.modules[0]
        source = outer.sources[0].sources[0]
        assert [source.ticket_of(task) for task in outer.order.tasks()] == [*range(12)]


def test_mixtures_of_mixtures():
    inner = Concat([values(0, 6), values(50, 4)], seed=3)
    outer = Mix([inner, values(100, 10)], weights=(1, 1), stop="all", epochs=3)
    for epoch in range(3):
        found = [batch for batch in batches(outer) if batch.epoch == epoch]
        labels = np.concatenate([batch.labels for batch in found]).tolist()
        assert sorted(labels) == [*range(6), *range(50, 54), *range(100, 110)]
        assert len(contents(found)) == 20


def test_known_keys_and_labels(folder):
    one = ImageFileReader(folder, 4, SHAPE)
    both = Concat([one, one])
    assert both.known_keys() == [*one.known_keys()] * 2
    assert both.known_labels().tolist() == one.known_labels().tolist() * 2
    assert both.classes == CLASSES
    assert both.out_spec(None) == one.out_spec(None)
    assert both.image_shape == (*SHAPE, 3)
    assert Concat([values(0, 3), values(0, 3)]).known_keys() is None


@pytest.mark.parametrize(
    ("sources", "named"),
    [
        ([], r"sources is \[\]; expected a list of one reader or more"),
        ("ab", "sources is 'ab'"),
        ([FlipX()], "expected a list of one reader or more"),
        (
            [values(0, 5, 4), values(0, 5, 6)],
            r"sources\[1\], ArrayReader, has batch_size 6, and sources\[0\] 4",
        ),
        ([values(0, 5, epochs=1)], r"has epochs=1; give epochs to \w+ instead"),
        ([values(0, 5, shard=(0, 2))], r"has shard=\(0, 2\); give shard to"),
        ([values(0, 5, drop_last=True)], "has drop_last=True; give drop_last to"),
        ([values(0, 5, workers=1)], "has workers=1; give workers to"),
        (
            [Noise(5, (2, 2)), Noise(5, (2, 3))],
            r"has images of uint8 and shape \(N, 2, 3, 3\), and sources\[0\] .* the same",
        ),
        (
            [Noise(5, (1, 1)), values(0, 5)],
            r"sources\[1\], ArrayReader, has images of float32 and shape \(N, 1\), and",
        ),
    ],
)
@pytest.mark.parametrize("make", [Concat, Mix])
def test_sources_that_are_not_alike(make, sources, named):
    with pytest.raises(ArgumentError, match=f"{make.__name__}: .*{named}"):
        make(sources)


def test_classes_that_differ(folder, tmp_path):
    other = class_folders(tmp_path / "other", 2, 2)
    with pytest.raises(
        ArgumentError, match=r"has the classes 'class0', 'class1', and .* the same in the same order"
    ):
        Concat([ImageFileReader(folder, 4, SHAPE), ImageFileReader(other, 4, SHAPE)])


class Sometimes(OrderedSource):
    """Does not say what fields it has."""

    def __init__(self, name):
        super().__init__()
        self.field = name
        self.order = values(0, 8, 4).order

    def contents(self):
        return (b"Sometimes",)

    def load(self, task):
        made = values(0, 8, 4).load(task)
        return None if made is None else type(made)({self.field: made.images}, indices=made.indices)


def test_fields_that_differ_in_a_batch():
    with (
        Pipeline([Concat([Sometimes("a"), Sometimes("b")])]) as pipeline,
        pytest.raises(ContractError, match=r"Concat: the sources made .* expected the same fields"),
    ):
        list(pipeline)
