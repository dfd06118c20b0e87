"""Modules, transforms and pipelines as values: pickles, copies, equality; in other processes, and many at once."""

from __future__ import annotations

import copy
import itertools
import multiprocessing
import pickle
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from concurrency import LIMIT, Task
from pictures import class_folders
from small_modules import Collect, Numbers, Pass, SizedNumbers
from voc_folders import annotation, thing, voc_folder

from highway import modules, transforms
from highway.engine import Pipeline
from highway.engine.inspection import inspected
from highway.errors import PipelineStateError
from highway.modules import (
    ArrayReader,
    Augmentations,
    Encoded,
    Filter,
    ImageFileReader,
    ImageSaver,
    ListReader,
    Map,
    Noise,
    Pack,
    PadBoxes,
    PadRagged,
    Rebatch,
    VOCReader,
    Window,
    ZMQSink,
    ZMQSource,
)
from highway.transforms import (
    Affine,
    AutoContrast,
    CenterCrop,
    CenterFit,
    ColorJitter,
    CutMix,
    Equalize,
    FlipX,
    FlipY,
    Gamma,
    GaussianBlur,
    GaussianNoise,
    Grayscale,
    Invert,
    Lambda,
    Letterbox,
    Mixup,
    Normalize,
    OneOf,
    Pad,
    PadCrop,
    Perspective,
    Posterize,
    RandAugment,
    RandomApply,
    RandomCrop,
    RandomErasing,
    RandomFit,
    RandomResizedCrop,
    Rescale,
    Resize,
    Rotate,
    Sequential,
    Sharpness,
    Shift,
    Slice,
    Solarize,
    SomeOf,
    Stretch,
    ToFloat,
    Transpose,
    TrivialAugmentWide,
    Zoom,
)

SIZE = 12


def darker(images):
    return images // 2


def lighter(images):
    return images // 2 + 128


# Each transform with its arguments, and with others.
TRANSFORMS = {
    "Affine": (lambda: Affine(10, translate=(0.1, 0.2), scale=(0.8, 1.2)), lambda: Affine(11)),
    "AutoContrast": (lambda: AutoContrast(0.7), AutoContrast),
    "CenterCrop": (lambda: CenterCrop((8, 6)), lambda: CenterCrop((6, 8))),
    "CenterFit": (lambda: CenterFit((8, 8)), lambda: CenterFit((8, 8), interpolation="nearest")),
    "ColorJitter": (lambda: ColorJitter(0.2, hue=0.1), lambda: ColorJitter(0.2)),
    "CutMix": (lambda: CutMix(num_classes=10), lambda: CutMix(0.5, num_classes=10)),
    "Equalize": (lambda: Equalize(p=0.9), Equalize),
    "FlipX": (lambda: FlipX(0.3), lambda: FlipX(0.4)),
    "FlipY": (lambda: FlipY(p=0.3), lambda: FlipY(p=0.4)),
    "Gamma": (lambda: Gamma((0.5, 2)), Gamma),
    "GaussianBlur": (lambda: GaussianBlur(3, (0.5, 1)), lambda: GaussianBlur(5)),
    "GaussianNoise": (lambda: GaussianNoise(sigma=0.2), GaussianNoise),
    "Grayscale": (lambda: Grayscale(0.5), Grayscale),
    "Invert": (lambda: Invert(0.2), Invert),
    "Lambda": (lambda: Lambda(darker), lambda: Lambda(lighter)),
    "Letterbox": (lambda: Letterbox((8, 16), fill=(1, 2, 3)), lambda: Letterbox((8, 16))),
    "Mixup": (lambda: Mixup(0.4, num_classes=10), lambda: Mixup(num_classes=10)),
    "Normalize": (lambda: Normalize(np.array([0.1, 0.2, 0.3]), [0.5] * 3), Normalize),
    "OneOf": (lambda: OneOf([FlipX(), Invert()], weights=[1, 2]), lambda: OneOf([FlipX(), Invert()])),
    "Pad": (lambda: Pad(2, fill=9), lambda: Pad(2)),
    "PadCrop": (lambda: PadCrop((8, 8), padding=2), lambda: PadCrop((8, 8))),
    "Perspective": (lambda: Perspective(0.3, p=1.0), Perspective),
    "Posterize": (lambda: Posterize(3), Posterize),
    "RandAugment": (lambda: RandAugment(3, magnitude=5), RandAugment),
    "RandomApply": (lambda: RandomApply([Invert(1.0)], p=0.4), lambda: RandomApply([Invert(1.0)])),
    "RandomCrop": (lambda: RandomCrop((8, 8), padding=1), lambda: RandomCrop((8, 8))),
    "RandomErasing": (lambda: RandomErasing(1.0, value=7), RandomErasing),
    "RandomFit": (lambda: RandomFit((8, 8), min_visible=0.5), lambda: RandomFit((8, 8))),
    "RandomResizedCrop": (
        lambda: RandomResizedCrop((8, 8), scale=(0.2, 0.9)),
        lambda: RandomResizedCrop((8, 8)),
    ),
    "Rescale": (lambda: Rescale(1 / 128, -1.0), lambda: Rescale(1 / 128)),
    "Resize": (lambda: Resize((7, 9)), lambda: Resize((9, 7))),
    "Rotate": (lambda: Rotate(30, fill=5), lambda: Rotate(30)),
    "Sequential": (lambda: Sequential([FlipX(), FlipY()]), lambda: Sequential([FlipY(), FlipX()])),
    "Sharpness": (lambda: Sharpness(3.0), Sharpness),
    "Shift": (lambda: Shift(0.3, 0.0), Shift),
    "Slice": (lambda: Slice(1, 2, 6, 7), lambda: Slice(2, 1, 6, 7)),
    "Solarize": (lambda: Solarize(99), Solarize),
    "SomeOf": (
        lambda: SomeOf([FlipX(), FlipY(), Invert()], n=1),
        lambda: SomeOf([FlipX(), FlipY(), Invert()]),
    ),
    "Stretch": (lambda: Stretch((8, 8)), lambda: Stretch((9, 8))),
    "ToFloat": (lambda: ToFloat(layout="NHWC"), ToFloat),
    "Transpose": (lambda: Transpose(0.9), Transpose),
    "TrivialAugmentWide": (lambda: TrivialAugmentWide(21), TrivialAugmentWide),
    "Zoom": (lambda: Zoom((0.9, 1.1)), Zoom),
}

COPIES = pytest.mark.parametrize(
    "copied",
    [lambda thing: pickle.loads(pickle.dumps(thing)), copy.copy, copy.deepcopy],
    ids=["pickle", "copy", "deepcopy"],
)


def bits(batches):
    """All that batches have, of a source whose batches come in order."""
    return [
        (batch.epoch, batch.seq, batch.indices.tolist(), [(name, rows(batch, name)) for name in batch.fields])
        for batch in batches
    ]


def places(batches):
    return [(batch.epoch, batch.seq) for batch in batches]


def rows(batch, name):
    found = [batch.rows_of(name, row) for row in range(batch.size)]
    return [row if isinstance(row, bytes) else (row.dtype.str, row.shape, row.tobytes()) for row in found]


def noise(**options):
    return Noise(4, (SIZE, SIZE), size=SIZE, **options)


def assert_equal_values(thing, other, different):
    assert type(other) is type(thing)
    assert other == thing
    assert hash(other) == hash(thing)
    assert different != thing
    assert thing != 1
    assert len({thing, other, different}) == 2


# Transforms


def test_every_transform_is_tested():
    # Bases, values, fits of readers only, and wrappers of what other libraries make.
    others = {"Albumentations", "Buckets", "Fit", "Placement", "TorchVision", "Transform", "Views", "Warp"}
    aliases = {name for name in transforms.__all__ if getattr(transforms, name).__name__ != name}
    assert set(TRANSFORMS) == set(transforms.__all__) - others - aliases


@COPIES
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_values(name, copied):
    make, different = TRANSFORMS[name]
    transform = make()
    whole = copied(transform)
    assert repr(whole) == repr(transform)
    assert_equal_values(transform, whole, different())
    assert transform == make()
    found = []
    for each in (transform, whole, make()):
        with Pipeline([noise(), Augmentations([each])]) as pipeline:
            found.append(bits(pipeline))
    assert found[0] == found[1] == found[2]
    # It was used, and is still the same value.
    assert copied(transform) == transform


# Modules


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of pictures, and stores."""
    root = tmp_path_factory.mktemp("specifications")
    class_folders(root / "pictures", classes=3, each=4, size=(20, 24))
    voc_folder(root / "voc", {f"{n:02}": annotation(*[thing()] * (n % 3)) for n in range(SIZE)})
    return root


def arrays():
    return np.random.default_rng(1).integers(0, 256, (SIZE, 16, 20, 3), np.uint8)


def readers(root):
    """Each reader with its arguments, and with others."""
    paths = sorted(str(path) for path in (root / "pictures").rglob("*") if path.is_file())
    return {
        "ArrayReader": lambda **more: ArrayReader(
            arrays(), np.arange(SIZE), 5, fields={"more": np.arange(SIZE)}, **more
        ),
        "ImageFileReader": lambda **more: ImageFileReader(
            root / "pictures", 5, (16, 20), fit=Letterbox(fill=3), **more
        ),
        "ListReader": lambda **more: ListReader(
            paths, list(range(SIZE)), 5, (16, 20), on_error="skip", **more
        ),
        "Noise": lambda **more: Noise(5, (16, 20), size=SIZE, **more),
        "TableReader": lambda **more: modules.TableReader(
            root / "table.parquet", 5, (16, 20), label=None, fields=("number",), window_bytes=20_000, **more
        ),
        "TarReader": lambda **more: modules.TarReader(
            str(root / "shards" / "{0..2}.tar"), 5, (16, 20), window=2, **more
        ),
        "VOCReader": lambda **more: VOCReader(root / "voc", 5, (16, 20), fit=Stretch(), **more),
        "LevelDBSource": lambda **more: modules.LevelDBSource(root / "store", 5, **more),
        "LevelDBImageReader": lambda **more: modules.LevelDBImageReader(
            root / "encoded", 5, (16, 20), **more
        ),
        "Concat": lambda **more: modules.Concat(
            [Noise(5, (16, 20), size=SIZE), Noise(5, (16, 20), size=7, seed=1)], **more
        ),
        "DatasetReader": lambda **more: modules.DatasetReader(
            [{"number": number} for number in range(SIZE)], 5, **more
        ),
        "Mix": lambda **more: modules.Mix(
            [Noise(5, (16, 20), size=SIZE, **more), Noise(5, (16, 20), size=7, seed=1)], weights=[2, 1]
        ),
        "Encoded": lambda **more: Encoded(
            ImageFileReader(root / "pictures", 5, (16, 20), epochs=2, **more), "original"
        ),
    }


READERS = [
    "ArrayReader",
    "Concat",
    "DatasetReader",
    "Encoded",
    "ImageFileReader",
    "LevelDBImageReader",
    "LevelDBSource",
    "ListReader",
    "Mix",
    "Noise",
    "TableReader",
    "TarReader",
    "VOCReader",
]


def reader_of(root, name):
    """The function that makes the reader; makes the store, table or tars that it reads."""
    if name == "TarReader" and not (root / "shards").exists():
        reader = ImageFileReader(root / "pictures", 5, (16, 20), epochs=1, shuffle=False)
        sink = modules.TarSink(root / "shards" / "{0..}.tar", shard_samples=4)
        with Pipeline([Encoded(reader, "original"), sink]) as pipeline:
            pipeline.wait(LIMIT)
    if name == "TableReader" and not (root / "table.parquet").exists():
        paths = sorted(path for path in (root / "pictures").rglob("*") if path.is_file())
        table = pa.table({"image": [path.read_bytes() for path in paths], "number": range(SIZE)})
        pq.write_table(table, root / "table.parquet", row_group_size=4)
    if name.startswith("LevelDB"):
        pytest.importorskip("plyvel", reason="plyvel is not installed: it has no wheels for this Python")
        store = root / ("store" if name == "LevelDBSource" else "encoded")
        if not store.exists():
            reader = ImageFileReader(root / "pictures", 5, (16, 20), epochs=1, shuffle=False)
            source = reader if name == "LevelDBSource" else Encoded(reader, "original")
            with Pipeline([source, modules.LevelDBSink(store)]) as pipeline:
                pipeline.wait(LIMIT)
    return readers(root)[name]


def test_every_module_is_tested():
    assert set(READERS) | {
        "Augmentations",
        "Filter",
        "ImageSaver",
        "LevelDBSink",
        "Load",
        "Map",
        "Pack",
        "PadBoxes",
        "PadRagged",
        "Rebatch",
        "TarSink",
        "Tasks",
        "Window",
        "ZMQSink",
        "ZMQSource",
    } == set(modules.__all__)


@COPIES
@pytest.mark.parametrize("name", READERS)
def test_readers_are_values(name, copied, folders):
    make = reader_of(folders, name)
    for seed in (5, None):
        reader = make(seed=seed)
        whole = copied(reader)
        assert_equal_values(reader, whole, make(seed=6))
        assert seed is None or repr(whole) == repr(reader)
        # Each None draws another seed, which is part of the value.
        assert (make(seed=seed) == reader) == (seed is not None)
        found = []
        for each in (reader, whole, copied(whole)):
            with Pipeline([each]) as pipeline:
                found += [bits(pipeline), bits(pipeline)]
        assert found[0] == found[2] == found[4]
        assert found[1] == found[3] == found[5]
        assert found[0] != found[1]
        # It was run, and is still the same value.
        assert copied(reader) == reader


@COPIES
@pytest.mark.parametrize("workers", [None, 2])
def test_stages_and_sinks_are_values(copied, workers, tmp_path):
    for make, other in (
        (
            lambda: Augmentations([FlipX(), Normalize()], seed=3, workers=workers),
            Augmentations([FlipX()], seed=3),
        ),
        (lambda: PadBoxes(7, truncate=True, workers=workers), PadBoxes(8)),
        (lambda: PadRagged("tokens", 7, truncate=True, workers=workers), PadRagged("tokens", 8)),
        (lambda: Window("tokens", 7, at="end", workers=workers), Window("tokens", 7)),
        (lambda: Pack("tokens", 7, value={"tokens": 1}, workers=workers), Pack("tokens", 7)),
        (lambda: Map(len, workers=workers), Map(max)),
        (lambda: Filter(any, refill=False, workers=workers), Filter(any)),
        (lambda: Rebatch(7, drop_last=True), Rebatch(7)),
        (
            lambda: ImageSaver(tmp_path / "saved", "jpeg", quality=90, workers=workers),
            ImageSaver(tmp_path, "png"),
        ),
        (
            lambda: modules.TarSink(tmp_path / "{00..}.tar", shard_samples=9),
            modules.TarSink(tmp_path / "{00..}.tar"),
        ),
        (lambda: modules.Tasks(noise(seed=3)), modules.Tasks(noise(seed=4))),
        (lambda: modules.Load(noise(seed=3), workers=workers), modules.Load(noise(seed=4))),
        (lambda: ZMQSink("inproc://one", window=3), ZMQSink("inproc://two")),
        (lambda: ZMQSource(["inproc://one", "inproc://two"], ordered=True), ZMQSource("inproc://one")),
    ):
        assert_equal_values(make(), copied(make()), other)
        assert make() == make()
        assert copied(make()).workers == make().workers


@COPIES
def test_sink_of_a_store_is_a_value(copied, tmp_path):
    pytest.importorskip("plyvel", reason="plyvel is not installed: it has no wheels for this Python")
    sink = modules.LevelDBSink(tmp_path / "store", append=True)
    assert_equal_values(sink, copied(sink), modules.LevelDBSink(tmp_path / "store"))


def test_drawn_seed_of_augmentations_is_part_of_the_value():
    stage = Augmentations([RandomCrop((8, 8))], seed=None)
    whole = pickle.loads(pickle.dumps(stage))
    assert whole == stage != Augmentations([RandomCrop((8, 8))], seed=None)
    found = []
    for each in (stage, whole):
        with Pipeline([noise(), each]) as pipeline:
            found.append(bits(pipeline))
    assert found[0] == found[1]


def test_arguments_that_change_later_do_not_change_the_value():
    row = [FlipX()]
    stage = Augmentations(row)
    row.append(FlipY())
    assert stage == Augmentations([FlipX()]) == pickle.loads(pickle.dumps(stage))


def test_one_stage_for_training_and_validation():
    """At once, in pipelines whose sources give images of different shapes."""
    stage = Augmentations([RandomCrop((8, 8)), FlipX(), Normalize()], seed=3)
    chains = [
        lambda stage: [noise(seed=1), stage],
        lambda stage: [Noise(3, (20, 16), size=9, seed=2), stage],
        lambda stage: [ArrayReader(arrays(), np.arange(SIZE), 4), stage],
    ]
    alone = []
    for chain in chains:
        with Pipeline(chain(Augmentations([RandomCrop((8, 8)), FlipX(), Normalize()], seed=3))) as pipeline:
            alone.append([bits(pipeline) for _ in range(3)])
    pipelines = [Pipeline(chain(stage)) for chain in chains]
    try:
        for turn in range(3):
            found = [Task(lambda pipeline=pipeline: bits(pipeline)) for pipeline in pipelines]
            assert [task.result() for task in found] == [each[turn] for each in alone]
    finally:
        for pipeline in pipelines:
            pipeline.stop()


# Pipelines


def chain():
    return [noise(epochs=3, seed=4), Augmentations([RandomCrop((8, 8)), FlipX()], seed=5)]


@COPIES
@pytest.mark.parametrize("taken", range(10))
def test_copy_of_a_pipeline_gives_exactly_the_remaining_batches(copied, taken):
    with Pipeline(chain()) as pipeline:
        before = [pipeline.dequeue(timeout=LIMIT) for _ in range(taken)]
        with copied(pipeline) as other:
            assert repr(other).endswith("not started>")
            remaining = bits(other.forever()) if taken < 9 else []
        # The original goes on too.
        assert remaining == (bits(pipeline.forever()) if taken < 9 else [])
    with Pipeline(chain()) as pipeline:
        assert bits(before) + remaining == bits(pipeline.forever())


@COPIES
def test_copies_of_a_pipeline_by_iteration(copied):
    with Pipeline(chain()) as pipeline:
        with copied(pipeline) as new:
            assert {batch.epoch for batch in new} == {0}
        first = bits(itertools.islice(pipeline, 2))
        with copied(pipeline) as broken:
            rest = bits(broken)
        with Pipeline(chain()) as other:
            assert first + rest == bits(other)
        list(pipeline)
        with copied(pipeline) as ended:
            assert {batch.epoch for batch in ended} == {2}
        next(pipeline.epoch(0))
        pipeline.load_state_dict(pipeline.state_dict())
        with copied(pipeline) as loaded:
            assert places(loaded) == [(0, 1), (0, 2)]
            assert places(loaded) == [(1, 0), (1, 1), (1, 2)]


def test_copy_of_a_copy_that_was_not_used_keeps_the_position():
    with Pipeline(chain()) as pipeline:
        for _ in range(4):
            pipeline.dequeue(timeout=LIMIT)
        copies = [pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(pipeline)))) for _ in range(2)]
        expected = bits(pipeline.forever())
    for each in copies:
        with each:
            assert bits(each.forever()) == expected


def test_copy_keeps_the_arguments_of_the_pipeline():
    pipeline = pickle.loads(pickle.dumps(Pipeline(chain(), ordered=False, max_bytes=12345)))
    run = inspected(pipeline)
    assert (run.ordered, run.max_bytes) == (False, 12345)
    assert pipeline.given == tuple(chain())


def test_copy_of_a_stopped_pipeline_can_run():
    with Pipeline(chain()) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
    with copy.deepcopy(pipeline) as other:
        assert len(list(other)) == 2


def test_pipeline_whose_position_is_unknown_cannot_be_copied():
    for modules_, ordered in (([SizedNumbers(5)], True), (chain(), False)):
        with Pipeline(modules_, ordered=ordered) as pipeline:
            copy.deepcopy(pipeline).stop()
            pipeline.dequeue(timeout=LIMIT)
            with pytest.raises(PipelineStateError):
                copy.deepcopy(pipeline)


@pytest.mark.usefixtures("restless")
def test_ten_pipelines_of_the_same_modules_at_once(folders):
    given = [reader_of(folders, "ImageFileReader")(epochs=2, seed=3), *chain()[1:]]
    with Pipeline(given) as pipeline:
        expected = bits(pipeline.forever())
    pipelines = [Pipeline(given) for _ in range(10)]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("highway ")]
    try:
        tasks = [Task(lambda pipeline=pipeline: bits(pipeline.forever())) for pipeline in pipelines]
        assert [task.result() for task in tasks] == [expected] * 10
    finally:
        for pipeline in pipelines:
            pipeline.stop()


CELL = """
pipeline = Pipeline([reader, stage])
for number, batch in enumerate(pipeline):
    seen.append(batch)
    if number == last:
        {end}
"""


@pytest.mark.parametrize("end", ["break", "raise InterruptedError", "pass"])
def test_cell_of_a_notebook_runs_again(end, folders):
    """The modules are those of an earlier cell; nothing stops the pipeline of the first run."""
    names = {"Pipeline": Pipeline, "last": 1}
    names["reader"] = reader_of(folders, "ImageFileReader")(seed=3)
    names["stage"] = Augmentations([RandomCrop((8, 8)), FlipX()], seed=5)
    cell = compile(CELL.format(end=end), "cell", "exec")
    runs = []
    for _ in range(3):
        names["seen"] = []
        try:
            exec(cell, names)
        except InterruptedError as error:
            # A notebook keeps it, with the frames that hold the pipeline.
            names["_error"] = error
        runs.append(bits(names["seen"]))
        assert names["pipeline"].modules[0] == names["reader"]
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0]) == (len(names["pipeline"]) if end == "pass" else 2)
    names.clear()


def test_module_of_the_user_is_run_as_it_is():
    source, sink = Numbers(5), Collect()
    with Pipeline([source, sink]) as pipeline:
        assert pipeline.modules == (source, sink)
        assert pipeline.modules[1] is sink
        pipeline.wait(LIMIT)
    assert len(sink.batches) == 5


# Other processes


def send_batches(connection, pipeline):
    """Send what a pipeline gives; the entry point of another process."""
    with pipeline:
        connection.send(bits(pipeline.forever()))


@pytest.mark.parametrize("method", sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods())))
@pytest.mark.parametrize("name", ["ArrayReader", "ImageFileReader", "LevelDBSource"])
def test_pipeline_that_another_process_runs(method, name, folders):
    """Made here, and never started here: neither before nor after."""
    given = [reader_of(folders, name)(epochs=2, seed=3), *chain()[1:]]
    with Pipeline(given) as pipeline:
        expected = bits(pipeline.forever())
    pipeline = Pipeline(given)
    context = multiprocessing.get_context(method)
    processes = []
    for _ in range(2):
        mine, theirs = context.Pipe()
        processes.append((context.Process(target=send_batches, args=(theirs, pipeline)), mine))
        processes[-1][0].start()
    try:
        for process, mine in processes:
            assert mine.poll(LIMIT)
            assert mine.recv() == expected
            process.join(LIMIT)
            assert process.exitcode == 0
    finally:
        for process, _ in processes:
            process.kill()
            process.join()
    # It can still be used here.
    with pipeline:
        assert bits(pipeline.forever()) == expected


# Values of users


def test_a_pipeline_that_never_started_interrupts_no_shared_module():
    class Flagged(Pass):
        interrupted = False

        def interrupt(self):
            self.interrupted = True

    stage = Flagged()
    with Pipeline([SizedNumbers(3), stage]) as pipeline:
        assert len(Pipeline([SizedNumbers(3), stage])) == 3
        Pipeline([SizedNumbers(3), stage]).stop()
        assert not stage.interrupted
        assert len(list(pipeline)) == 3
    assert stage.interrupted


class Drawn(Noise):
    """Draws its seed without an argument for it."""

    def __init__(self, batch_size):
        super().__init__(batch_size, (2, 2), size=10, seed=None)


class DrawnByName(Noise):
    def __init__(self, batch_size, seed=None):
        super().__init__(batch_size, (2, 2), size=10, seed=seed)


class WithState(Pass):
    """Says how it is pickled."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def __getstate__(self):
        return {"value": self.value + 1}


@COPIES
def test_classes_of_users_are_copied(copied):
    assert isinstance(copied(Drawn(4)), Drawn)
    for made in (DrawnByName(4), DrawnByName(4, None), DrawnByName(4, seed=7)):
        assert copied(made).seed == made.seed
        assert copied(made) == made
    assert copied(WithState(1)).value == 2


def test_arguments_are_equal_however_they_are_given():
    made = Noise(4, (2, 2), size=10, seed=1)
    for other in (
        Noise(batch_size=4, shape=[2, 2], size=10, seed=1),
        Noise(4, (2, 2), size=10, seed=1, workers=None, shuffle=True),
    ):
        assert other == made
        assert hash(other) == hash(made)
    assert Noise(4, (2, 3), size=10, seed=1) != made
    assert CenterFit() == CenterFit(interpolation="bilinear")
    values = np.array([1.0, np.nan])
    assert ArrayReader(np.zeros((2, 3)), values, 1) == ArrayReader(np.zeros((2, 3)), values.copy(), 1)


def test_a_module_cannot_skip_or_seek_in_its_own_pipeline():
    class Seeks(Pass):
        def process(self, batch):
            for call in (lambda: pipeline.skip(samples=[1]), lambda: next(pipeline.epoch(0))):
                with pytest.raises(PipelineStateError, match="called in a thread of this pipeline"):
                    call()
            return batch

    with Pipeline([Noise(4, (2, 2), size=8, epochs=1), Seeks()]) as pipeline:
        assert len(list(pipeline)) == 2
