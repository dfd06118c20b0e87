"""Schedules of shapes: an epoch is, to the bit, that of a reader which always has its shape and batch size."""

import pickle

import numpy as np
import pytest
from concurrency import LIMIT
from pictures import class_folders
from PIL import Image
from tars import shards_of_folder

from highway import replay
from highway.engine import Pipeline
from highway.errors import ArgumentError
from highway.modules import (
    ArrayReader,
    Augmentations,
    Concat,
    Encoded,
    Filter,
    ImageFileReader,
    LevelDBImageReader,
    LevelDBSink,
    ListReader,
    Mix,
    Rebatch,
    TableReader,
    TarReader,
    ZMQSink,
    ZMQSource,
)
from highway.sampling import schedule
from highway.transforms import CenterFit, FlipX, Letterbox, Normalize, RandomCrop, RandomResizedCrop, Stretch

SHAPES = schedule({0: 24, 1: (32, 40), 3: 20})
SIZES = schedule({0: 4, 2: 5})
EPOCHS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = class_folders(tmp_path_factory.mktemp("shapes") / "photos", 3, 4)
    for path in root.glob("*/*.jpg"):
        mask = root.parent / "masks" / path.relative_to(root).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            numbers = np.arange(picture.height * picture.width).reshape(picture.height, picture.width) % 7
        Image.fromarray(numbers.astype(np.uint8)).save(mask)
    return root


@pytest.fixture(scope="module")
def readers(folder, tmp_path_factory):
    """Functions of batch size and shape that make a reader of the same 12 pictures."""
    keys = [*ImageFileReader(folder, 1, 8).known_keys()]
    paths = [folder / key for key in keys]
    tars = shards_of_folder(folder, keys, tmp_path_factory.mktemp("tars"), 3)
    store = tmp_path_factory.mktemp("stores") / "encoded"
    with Pipeline(
        [Encoded(ImageFileReader(folder, 5, SHAPES, epochs=1), "original"), LevelDBSink(store)]
    ) as pipeline:
        pipeline.wait(LIMIT)
    pa = pytest.importorskip("pyarrow")
    contents = [path.read_bytes() for path in paths]
    table = pa.table({"image": contents, "label": [0] * 12})
    pairs = pa.table({"image": contents, "other": contents[::-1], "label": [0] * 12})
    boxes = [np.array([[5, 6, 40, 50], [0, 0, 80, 60]], np.float32)] * 12
    return {
        "crops": lambda *sizes, **more: ImageFileReader(folder, *sizes, fit=RandomResizedCrop(), **more),
        "masks": lambda *sizes, **more: ImageFileReader(
            folder, *sizes, masks_dir=folder.parent / "masks", fit=CenterFit(), **more
        ),
        "boxes": lambda *sizes, **more: ListReader(
            paths, [[1, 2]] * 12, *sizes, boxes=boxes, placement=True, fit=Letterbox(), **more
        ),
        "pairs": lambda *sizes, **more: TableReader(
            pairs, *sizes, image={"images": "image", "right": "other"}, fit=RandomResizedCrop(), **more
        ),
        "gray": lambda *sizes, **more: TarReader(tars, *sizes, color="gray", fit=Stretch(), **more),
        "window": lambda *sizes, **more: TarReader(tars, *sizes, window=2, **more),
        "table": lambda *sizes, **more: TableReader(table, *sizes, **more),
        "store": lambda *sizes, **more: LevelDBImageReader(store, *sizes, **more),
    }


KINDS = ["crops", "masks", "boxes", "pairs", "gray", "window", "table", "store"]


def epoch_of(number, *modules, **options):
    with Pipeline([*modules], **options) as pipeline:
        return [*pipeline.epoch(number)]


def epochs_of(*modules, count=EPOCHS, **options):
    with Pipeline([*modules], **options) as pipeline:
        return [[*pipeline] for _ in range(count)]


def flat(epochs):
    return [batch for epoch in epochs for batch in epoch]


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert (one.epoch, one.seq, one.applied, one.keys) == (
            other.epoch,
            other.seq,
            other.applied,
            other.keys,
        )
        assert one.indices.tolist() == other.indices.tolist()
        names = [*one.fields, *one.extras]
        assert names == [*other.fields, *other.extras]
        for name in names:
            assert one[name].dtype == other[name].dtype and one[name].shape == other[name].shape
            assert one[name].tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_is_that_of_its_shape_and_size(readers, kind):
    make = readers[kind]
    found = epochs_of(make(SIZES, SHAPES, epochs=EPOCHS))
    for epoch, batches in enumerate(found):
        assert_equal(batches, epoch_of(epoch, make(SIZES.at(epoch), SHAPES.at(epoch), epochs=EPOCHS)))
        side = SHAPES.at(epoch)
        assert {batch["images"].shape[1:3] for batch in batches} == {
            side if epoch in (1, 2) else (side, side)
        }
    assert [len(batches) for batches in found] == [3, 3, 3, 3]


def test_windows_lie_at_the_same_places_in_every_shape(folder):
    paths = sorted(folder.glob("*/*.jpg"))
    placements = []
    for shape in (schedule({0: (24, 32), 1: 16}), (48, 64)):
        reader = ListReader(paths, [0] * 12, 12, shape, placement=True, fit=RandomResizedCrop(), epochs=2)
        ((batch,), _) = epochs_of(reader, count=2)
        placements.append(batch["placement"][:, :2])
    np.testing.assert_allclose(2 * placements[0], placements[1])


def steps():
    return Augmentations([FlipX(), RandomCrop((16, 16)), FlipX(), Normalize(layout="NCHW")])


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_the_same_bits_for_any_number_of_threads(readers, workers):
    for stage in (steps, lambda: Augmentations([FlipX(), Normalize()])):
        found = epochs_of(readers["crops"](SIZES, SHAPES, workers=workers), stage())
        for epoch, batches in enumerate(found):
            alone = readers["crops"](SIZES.at(epoch), SHAPES.at(epoch))
            assert_equal(batches, epoch_of(epoch, alone, stage()))


def test_the_same_over_a_network(readers):
    given = readers["crops"](SIZES, SHAPES, epochs=EPOCHS)
    sink = ZMQSink("tcp://127.0.0.1:*")
    with (
        Pipeline([given, sink]) as sending,
        Pipeline([ZMQSource(sink.address), steps()]) as receiving,
    ):
        found = [[*receiving] for _ in range(EPOCHS)]
        sending.wait(LIMIT)
    assert_equal(flat(found), flat(epochs_of(given, steps())))


def test_ranks_have_equally_many_batches_of_one_shape(readers):
    for world in (2, 3, 7):
        ranks = [
            epochs_of(readers["crops"](schedule({0: 2, 2: 1}), SHAPES, shard=(rank, world)))
            for rank in range(world)
        ]
        for epoch, lengths in enumerate(zip(*(map(len, rank) for rank in ranks), strict=True)):
            assert len({*lengths}) == 1
            for step in zip(*(rank[epoch] for rank in ranks), strict=True):
                assert len({batch["images"].shape for batch in step}) == 1
            read = {key for rank in ranks for batch in rank[epoch] for key in batch.keys}
            assert len(read) == 12


def test_small_queues_hold_batches_of_any_size(readers):
    found = epochs_of(readers["crops"](SIZES, SHAPES, queue_size=1), steps(), max_bytes=1)
    assert_equal(flat(found), flat(epochs_of(readers["crops"](SIZES, SHAPES), steps())))


def test_unordered_pipelines_take_schedules_of_shapes_alone(readers):
    found = epochs_of(readers["crops"](4, SHAPES), ordered=False)
    for epoch, batches in enumerate(found):
        batches.sort(key=lambda batch: batch.seq)
        assert_equal(batches, epoch_of(epoch, readers["crops"](4, SHAPES.at(epoch))))
    sizes = schedule({0: 4, 1: 3})
    with pytest.raises(
        ArgumentError, match="ordered is False, and the epochs of ImageFileReader have different"
    ):
        Pipeline([readers["crops"](sizes, 24)], ordered=False)


def test_a_training_resumes_with_another_shape_and_size(readers):
    make = readers["crops"]
    with Pipeline([make(SIZES, SHAPES)]) as pipeline:
        for _ in range(3 + 1):
            last = pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
    assert (state["epoch"], state["position"]) == (1, 4)
    after = make(schedule({0: 4, 1: 3}), schedule({0: 24, 1: 28}))
    with Pipeline([after]) as pipeline:
        pipeline.load_state_dict(state)
        assert len(iter(pipeline)) == 3 and len(pipeline) == 4
        rest = [*pipeline]
        assert len(pipeline) == 4
    assert [batch["images"].shape for batch in rest] == [(3, 28, 28, 3), (3, 28, 28, 3), (2, 28, 28, 3)]
    whole = [index for batch in epoch_of(1, make(12, 24)) for index in batch.indices.tolist()]
    assert last.indices.tolist() + [index for batch in rest for index in batch.indices.tolist()] == whole


def test_replay_makes_a_batch_of_any_epoch_again(readers):
    modules = [readers["crops"](schedule({0: 4, 2: 5, 3: 2}), SHAPES), steps()]
    seen = flat(epochs_of(*modules))
    assert len(seen) == 3 + 3 + 3 + 6
    for number in (0, 5, 8, 9, 14):
        assert_equal([replay.batch(modules, global_step=number)], [seen[number]])
        assert_equal([replay.batch(modules, epoch=seen[number].epoch, step=seen[number].seq)], [seen[number]])
    with pytest.raises(ArgumentError, match=r"step is 4; expected 0 to 2: epoch 2 has 3 batches"):
        replay.batch(modules, epoch=2, step=4)


def test_replacements_of_bad_files_have_the_shape_of_the_epoch(folder, tmp_path):
    root = class_folders(tmp_path / "photos", 2, 6)
    (root / "class0/2.jpg").write_bytes(b"no picture")
    for policy, samples in (("replace", 12), ("skip", 11)):
        reader = ImageFileReader(root, SIZES, SHAPES, on_error=policy, epochs=EPOCHS)
        with Pipeline([reader]) as pipeline:
            for epoch in range(EPOCHS):
                found = [*pipeline]
                side = SHAPES.at(epoch)
                shape = side if isinstance(side, tuple) else (side, side)
                assert {batch["images"].shape[1:3] for batch in found} == {shape}
                assert sum(batch.size for batch in found) == samples
            stats = pipeline.stats().modules[0]
            assert (stats.replaced_samples, stats.skipped_samples) == (
                (4, 0) if policy == "replace" else (0, 4)
            )


def test_mixtures_take_the_schedules_of_their_sources(readers):
    for combined in (Mix, Concat):
        given = combined([readers["crops"](SIZES, SHAPES), readers["crops"](SIZES, SHAPES, seed=2)])
        for epoch, batches in enumerate(epochs_of(given)):
            size, shape = SIZES.at(epoch), SHAPES.at(epoch)
            alone = combined([readers["crops"](size, shape), readers["crops"](size, shape, seed=2)])
            assert_equal(batches, epoch_of(epoch, alone))
    with pytest.raises(
        ArgumentError, match=r"sources\[1\].* has batch_size 4, and sources\[0\] schedule\(.*expected one"
    ):
        Concat([readers["crops"](SIZES, SHAPES), readers["crops"](4, SHAPES)])
    with pytest.raises(
        ArgumentError, match=r"sources\[1\].* has shape schedule.*, and sources\[0\] schedule"
    ):
        Concat([readers["crops"](SIZES, SHAPES), readers["crops"](SIZES, schedule({0: 24, 1: 30}))])


def test_stages_that_regroup_follow_the_epochs(readers):
    def kept(sample):
        return sample["labels"] != 1

    found = epochs_of(readers["crops"](schedule({0: 4, 2: 3}), SHAPES), Filter(kept))
    assert [[batch.size for batch in batches] for batches in found] == [[4, 4]] * 2 + [[3, 3, 2]] * 2
    found = epochs_of(readers["crops"](schedule({0: 4, 2: 3}), SHAPES), Rebatch(5))
    assert [[batch.size for batch in batches] for batches in found] == [[5, 5, 2]] * 4
    for epoch, batches in enumerate(found):
        alone = epoch_of(epoch, readers["crops"](12, SHAPES.at(epoch)))
        assert np.concatenate([batch.images for batch in batches]).tobytes() == alone[0].images.tobytes()


def test_regrouped_states_resume_at_the_sample(readers):
    def modules(sizes):
        return [readers["crops"](sizes, SHAPES), Rebatch(5)]

    whole = epochs_of(*modules(4))
    for sizes in (4, schedule({0: 4, 2: 3}), schedule({0: 6, 1: 5})):
        with Pipeline(modules(SIZES)) as pipeline:
            for _ in range(3 + 1):
                pipeline.dequeue(timeout=LIMIT)
            state = pipeline.state_dict()
        with Pipeline(modules(sizes)) as pipeline:
            pipeline.load_state_dict(state)
            assert [batch.indices.tolist() for batch in pipeline] == [
                batch.indices.tolist() for batch in whole[1][1:]
            ]


def test_what_is_known_before_the_first_batch(readers):
    reader = readers["masks"](SIZES, schedule({0: (24, 32), 5: (24, 48)}))
    with Pipeline([reader]) as pipeline:
        assert pipeline.spec["images"].shape == (None, 24, None, 3)
        assert pipeline.spec["masks"].shape == (None, 24, None)
    assert repr(reader).count("schedule({0: 4, 2: 5}), schedule({0: (24, 32), 5: (24, 48)})") == 1
    assert pickle.loads(pickle.dumps(reader)) == reader
    assert reader.samples_fingerprint() != readers["masks"](SIZES, (24, 32)).samples_fingerprint()
    same = readers["masks"](SIZES, schedule({0: (24, 32), 5: (24, 32)}))
    assert same.samples_fingerprint() == readers["masks"](4, (24, 32)).samples_fingerprint()


def test_bad_shapes_and_steps_are_refused_at_once(readers, folder):
    with pytest.raises(ArgumentError, match="ImageFileReader: shape is 70000"):
        readers["crops"](4, schedule({0: 24, 60: 70000}))
    with pytest.raises(
        ArgumentError, match=r"fit is .*; expected no size, or that of the images, schedule\("
    ):
        ImageFileReader(folder, 4, schedule({0: 24, 60: 32}), fit=CenterFit(24))
    with pytest.raises(ArgumentError, match="RandomCrop"):
        Pipeline([readers["crops"](4, schedule({0: 24, 60: 12})), steps()])
    with pytest.raises(ArgumentError, match=r"batch_size is \(2, 2\); expected a whole number"):
        readers["crops"](schedule({0: 4, 1: (2, 2)}), 24)


def test_an_array_reader_takes_a_schedule():
    values = np.arange(10)
    found = epochs_of(ArrayReader(x=values, batch_size=schedule({0: 4, 1: 10}), shuffle=False), count=2)
    assert [[batch["x"].tolist() for batch in batches] for batches in found] == [
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]],
        [[*range(10)]],
    ]
