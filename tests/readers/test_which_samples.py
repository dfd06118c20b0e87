"""Every reader takes the options that say which samples come: from reading to states, skips, replay and stores."""

import itertools
import json
import math
from collections import Counter

import numpy as np
import pytest
from concurrency import LIMIT
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import class_folders
from tars import shards_of_folder
from voc_folders import annotation, thing, voc_folder

from highway import replay
from highway.engine import Pipeline
from highway.errors import ArgumentError, EmptyDatasetError, StateMismatchError
from highway.modules import (
    ArrayReader,
    Augmentations,
    Encoded,
    ImageFileReader,
    ImageSaver,
    LevelDBImageReader,
    LevelDBSink,
    LevelDBSource,
    ListReader,
    Noise,
    TableReader,
    TarReader,
    TarSink,
    VOCReader,
    ZMQSink,
    ZMQSource,
)
from highway.transforms import FlipX, RandomCrop, RandomResizedCrop

SHAPE = (24, 32)
VALUES = np.arange(30)


def arrays(batch_size=4, **options):
    return ArrayReader(VALUES[:, None].astype(np.float32), VALUES % 3, batch_size, **{"epochs": 2, **options})


def batches(*modules):
    with Pipeline(list(modules)) as pipeline:
        return [batch for _ in range(modules[0].epochs) for batch in pipeline]


def identities(found):
    return [(batch.epoch, index) for batch in found for index in batch.indices.tolist()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("photos"), 3, 4)


@pytest.fixture(scope="module")
def readers(folder, tmp_path_factory):
    """Functions that make a reader of the same 12 pictures, whose keys end alike."""
    keys = [*ImageFileReader(folder, 1, SHAPE).known_keys()]
    tars = shards_of_folder(folder, keys, tmp_path_factory.mktemp("tars"), 3)
    store = tmp_path_factory.mktemp("stores") / "encoded"
    arrays_store = store.with_name("arrays")
    whole = ImageFileReader(folder, 5, SHAPE, epochs=1, shuffle=False)
    with Pipeline([Encoded(whole, "original"), LevelDBSink(store)]) as pipeline:
        pipeline.wait()
    with Pipeline([whole, LevelDBSink(arrays_store)]) as pipeline:
        pipeline.wait()
    table = {
        "image": [(folder / key).read_bytes() for key in keys],
        "label": [key.split("/")[0] for key in keys],
        "key": keys,
    }
    pa = pytest.importorskip("pyarrow")
    parquet = store.with_name("table.parquet")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(table), parquet, row_group_size=2)
    return {
        "files": lambda **options: ImageFileReader(folder, 5, SHAPE, **options),
        "list": lambda **options: ListReader(
            [folder / key for key in keys], [int(key[5]) for key in keys], 5, SHAPE, **options
        ),
        "tar": lambda **options: TarReader(tars, 5, SHAPE, **options),
        "windowed tar": lambda **options: TarReader(tars, 5, SHAPE, window=2, **options),
        "table": lambda **options: TableReader(str(parquet), 5, SHAPE, key="key", window_bytes=1, **options),
        "encoded store": lambda **options: LevelDBImageReader(store, 5, SHAPE, **options),
        "store": lambda **options: LevelDBSource(arrays_store, 5, **options),
    }


KINDS = ["files", "list", "tar", "windowed tar", "table", "encoded store", "store"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_reader_reads_the_chosen_samples(readers, kind):
    """As many as the plan says, with the key and the pixels of the sample."""
    make = readers[kind]
    whole = batches(make(epochs=1, shuffle=False))
    key_of = dict(enumerate(key for batch in whole for key in batch.keys))
    image_of = dict(enumerate(image.tobytes() for batch in whole for image in batch.images))
    options = {"subset": [1, 2, 5, 7, 11], "split": ("train", 0.8), "repeats": 3, "max_samples": 10}
    found = batches(make(epochs=2, seed=5, **options))
    assert [batch.size for batch in found] == [5, 5, 5, 5]
    assert len(set(identities(found))) == 20
    for batch in found:
        for index, key, image in zip(batch.indices.tolist(), batch.keys, batch.images, strict=True):
            number, copy = index % 2**32, index // 2**32
            assert number in options["subset"]
            assert copy in range(3)
            assert key == key_of[number]
            assert image.tobytes() == image_of[number]
    assert max(Counter(index % 2**32 for _, index in identities(found[:2])).values()) == 3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "windowed tar"])
def test_every_reader_draws_by_weights(readers, kind):
    weights = np.array([0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 0])
    found = batches(readers[kind](epochs=3, weights=weights))
    numbers = [index % 2**32 for _, index in identities(found)]
    assert set(numbers) == {2, 6}
    assert [batch.size for batch in found] == [5, 5, 2] * 3
    assert len(set(identities(found))) == 36


@pytest.mark.parametrize("kind", ["files", "list", "table"])
def test_readers_with_labels_stratify_and_balance(readers, kind):
    found = batches(readers[kind](epochs=1, split=("train", 0.75), stratify=True))
    assert Counter(np.concatenate([batch.labels for batch in found]).tolist()) == {0: 3, 1: 3, 2: 3}
    chosen = readers[kind](epochs=1, subset=lambda key, label: label == 2 and not key.endswith("0.jpg"))
    assert sorted(index for _, index in identities(batches(chosen))) == [9, 10, 11]
    assert readers[kind](weights="balanced").order.count == 12


@pytest.mark.parametrize(
    "labels",
    [[0, 1, None, 1, 0, None], ["a", "b", None, "b", "a", None], [0.0, 1.0, math.nan, 1, 0, math.nan]],
)
def test_rows_without_a_label_belong_to_no_class(folder, labels):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install pyarrow")
    pictures = [path.read_bytes() for path in sorted(folder.glob("*/*.jpg"))[:6]]
    table = pa.table({"image": pictures, "label": labels})
    with pytest.raises(ArgumentError, match=r"needs a label for each sample, and 2 have none, .* sample 2 "):
        TableReader(table, 2, SHAPE, weights="balanced", on_error="skip")
    found = batches(TableReader(table, 2, SHAPE, weights="balanced", subset=[0, 1, 3, 4], epochs=1))
    assert {index % 2**32 for _, index in identities(found)} <= {0, 1, 3, 4}


@pytest.mark.parametrize("kind", ["tar", "encoded store", "store"])
def test_readers_without_known_labels_say_so(readers, kind):
    with pytest.raises(ArgumentError, match="weights='balanced' needs one label for each sample, which"):
        readers[kind](weights="balanced")


def test_windows_and_weights(readers):
    with pytest.raises(ArgumentError, match="TarReader: window is 2 with weights; expected window=None"):
        readers["windowed tar"](weights=[1] * 12)


def test_voc_splits_its_annotations(tmp_path):
    names = [f"{index:02}" for index in range(10)]
    root = voc_folder(tmp_path, {name: annotation(thing()) for name in names}, train=names[:4])
    keys = {}
    for part in ("train", "validation"):
        reader = VOCReader(root, 3, SHAPE, split=(part, 0.7), epochs=1)
        assert f"split=('{part}', 0.7)" in repr(reader)
        keys[part] = {key for batch in batches(reader) for key in batch.keys}
    assert [len(part) for part in keys.values()] == [7, 3]
    assert len(keys["train"] | keys["validation"]) == 10
    assert VOCReader(root, 3, SHAPE, split="train", subset=[0, 1]).order.count == 2
    with pytest.raises(ArgumentError, match="VOCReader: weights='balanced' needs one label for each sample"):
        VOCReader(root, 3, SHAPE, weights="balanced")


def test_copies_are_augmented_differently(readers):
    """In the reader, in stages after it, and fused into either."""
    pictures = readers["files"](epochs=1, repeats=4, subset=[3], fit=RandomResizedCrop())
    (batch,) = batches(pictures)
    assert len({image.tobytes() for image in batch.images}) == 4
    rows = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    for stage in (Augmentations([RandomCrop((8, 8))]), Augmentations([RandomCrop((8, 8)), FlipX()])):
        (batch,) = batches(ArrayReader(rows, [0], 8, repeats=8, epochs=1), stage)
        assert len({image.tobytes() for image in batch.images}) > 4


def test_the_first_copy_is_augmented_as_without_repeats(readers):
    once, thrice = (
        {
            index: image
            for batch in batches(readers["files"](epochs=1, repeats=count, fit=RandomResizedCrop()))
            for index, image in zip(batch.indices.tolist(), batch.images, strict=True)
        }
        for count in (1, 3)
    )
    assert len(thrice) == 3 * len(once)
    assert all(np.array_equal(thrice[index], image) for index, image in once.items())


CHOICES = {
    "subset": {"subset": [*range(0, 30, 2)]},
    "split": {"split": ("train", 0.6)},
    "stratified": {"split": ("train", 0.6), "stratify": True},
    "weights": {"weights": "balanced"},
    "weights by epoch": {"weights": lambda epoch: VALUES + epoch},
    "repeats": {"repeats": 3},
    "most": {"max_samples": 17},
}


def state_after(count, reader):
    with Pipeline([reader]) as pipeline:
        for _ in range(count):
            pipeline.dequeue(timeout=LIMIT)
        return json.loads(json.dumps(pipeline.state_dict()))


@pytest.mark.parametrize("name", CHOICES)
def test_states_resume_with_other_batches_and_worlds(name):
    whole = identities(batches(arrays(1, **CHOICES[name])))
    state = state_after(2, arrays(4, **CHOICES[name]))
    assert state["size"] == 30
    for batch_size, world in ((4, 1), (5, 1), (3, 2)):
        rest = []
        for rank in range(world):
            with Pipeline([arrays(batch_size, shard=(rank, world), **CHOICES[name])]) as pipeline:
                pipeline.load_state_dict(state)
                rest += identities(pipeline)
        first = [identity for identity in whole if identity[0] == 0]
        assert set(rest) == set(first[8:]) | set(first[: len(rest) - len(first[8:])])
        assert len(rest) - len(first[8:]) < world


@pytest.mark.parametrize(("saved", "loading"), [*itertools.permutations([*CHOICES, "nothing"], 2)])
def test_states_of_other_choices_are_refused(saved, loading):
    if {saved, loading} == {"weights by epoch", "weights"}:
        names = ["weights"]
    else:
        names = ["subset", "split", "repeats", "max_samples", "weights"]
    state = state_after(1, arrays(**CHOICES.get(saved, {})))
    with (
        Pipeline([arrays(**CHOICES.get(loading, {}))]) as pipeline,
        pytest.raises(
            StateMismatchError, match=f"ArrayReader: the state has ({'|'.join(names)}) .*; expected .*"
        ),
    ):
        pipeline.load_state_dict(state)


def test_defaults_leave_states_and_fingerprints_as_they_were():
    reader = arrays(seed=4)
    state = state_after(3, reader)
    assert [*state] == ["version", "kind", "size", "shuffle", "seed", "fingerprint", "epoch", "position"]
    # From the version before these options.
    assert reader.fingerprint() == "ac37c490506df0fb058750b15db59ebe"
    assert reader.samples_fingerprint() == "c8fb91727b7a983490b2c3079691fac7"
    assert Noise(4, (2, 2), size=10, subset=range(10), seed=1).samples_fingerprint() != (
        Noise(4, (2, 2), size=10, seed=1).samples_fingerprint()
    )


def test_weights_of_an_epoch_are_compared_in_that_epoch():
    def weights(epoch):
        return VALUES + epoch

    state = state_after(8 + 3, arrays(weights=weights))
    assert state["epoch"] == 1
    with Pipeline([arrays(weights=lambda epoch: VALUES + 1)]) as pipeline:
        pipeline.load_state_dict(state)
    with (
        Pipeline([arrays(weights=lambda epoch: VALUES)]) as pipeline,
        pytest.raises(StateMismatchError, match="the state has weights"),
    ):
        pipeline.load_state_dict(state)


def test_the_end_of_the_last_epoch_has_a_state():
    def weights(epoch):
        assert epoch < 2
        return VALUES

    with Pipeline([arrays(weights=weights)]) as pipeline:
        for _ in range(2):
            list(pipeline)
        state = pipeline.state_dict()
    assert (state["epoch"], state["position"]) == (2, 0)
    with Pipeline([arrays(weights=weights)]) as pipeline:
        pipeline.load_state_dict(state)


@pytest.mark.parametrize("name", CHOICES)
def test_replay_makes_any_batch_again(name):
    modules = [arrays(**CHOICES[name]), Augmentations([])]
    seen = batches(*modules)
    state = state_after(3, arrays(**CHOICES[name]))
    for made in (seen[0], seen[-1]):
        again = replay.batch(modules, state, epoch=made.epoch, step=made.seq)
        assert again.indices.tolist() == made.indices.tolist()
        assert np.array_equal(again.images, made.images)


def test_a_skipped_sample_is_skipped_in_all_copies():
    reader = arrays(6, repeats=3, shuffle=False, epochs=1)
    with Pipeline([reader]) as pipeline:
        first = pipeline.dequeue(timeout=LIMIT)
        # The second copy of sample 4, as a batch has it, and a number.
        pipeline.skip(samples=[4 + 2**32, 7])
        rest = [pipeline.dequeue(timeout=LIMIT).indices % 2**32 for _ in range(14)]
        state = pipeline.state_dict()
    assert first.indices.tolist() == [0, 2**32, 2**33, 1, 1 + 2**32, 1 + 2**33]
    numbers = np.concatenate(rest).tolist()
    assert numbers == [number for number in range(2, 30) for _ in range(3) if number not in (4, 7)]
    assert state["skips"]["samples"] == [[0, 6, 4, 4], [0, 6, 7, 7]]
    with (
        pytest.raises(ArgumentError, match="sample is 30; expected a whole number from 0 to 29"),
        Pipeline([arrays(subset=[3, 4])]) as pipeline,
    ):
        pipeline.skip(samples=[30])


def damaged(folder, tmp_path, *names):
    root = class_folders(tmp_path / "photos", 2, 6)
    for name in names:
        (root / name).write_bytes(b"no picture")
    return root


def test_replacements_come_from_the_chosen_samples(folder, tmp_path):
    root = damaged(folder, tmp_path, "class0/1.jpg", "class1/2.jpg")
    keys = [*ImageFileReader(root, 1, SHAPE).known_keys()]
    chosen = [keys.index(key) for key in ("class0/1.jpg", "class0/3.jpg", "class1/0.jpg", "class1/2.jpg")]
    reader = ImageFileReader(
        root, 4, SHAPE, subset=chosen, repeats=2, epochs=3, on_error="replace", max_errors=0.5
    )
    with Pipeline([reader]) as pipeline:
        found = [batch for _ in range(3) for batch in pipeline]
        assert len(pipeline.errors) == 2
    assert [batch.size for batch in found] == [4] * 6
    assert {key for batch in found for key in batch.keys} == {"class0/3.jpg", "class1/0.jpg"}
    assert {index // 2**32 for _, index in identities(found)} == {0, 1}
    for batch in found:
        assert [keys[number] for number in batch.indices % 2**32] == list(batch.keys)


def test_replacements_have_a_weight(folder, tmp_path):
    root = damaged(folder, tmp_path, "class0/1.jpg")
    keys = [*ImageFileReader(root, 1, SHAPE).known_keys()]
    weights = [float(key in ("class0/1.jpg", "class0/3.jpg", "class1/0.jpg")) for key in keys]
    reader = ImageFileReader(root, 4, SHAPE, weights=weights, epochs=4, on_error="replace")
    with Pipeline([reader]) as pipeline:
        found = [key for _ in range(4) for batch in pipeline for key in batch.keys]
    assert {*found} == {"class0/3.jpg", "class1/0.jpg"} and len(found) == 48
    weights = [float(key == "class0/1.jpg") for key in keys]
    for policy in ("skip", "replace"):
        reader = ImageFileReader(root, 4, SHAPE, weights=weights, on_error=policy)
        with Pipeline([reader]) as pipeline, pytest.raises(EmptyDatasetError, match="none of the files"):
            pipeline.dequeue(timeout=LIMIT)


def test_all_chosen_samples_are_bad(folder, tmp_path):
    root = damaged(folder, tmp_path, "class0/1.jpg", "class1/2.jpg")
    keys = [*ImageFileReader(root, 1, SHAPE).known_keys()]
    chosen = [keys.index("class0/1.jpg"), keys.index("class1/2.jpg")]
    for shuffle in (False, True):
        reader = ImageFileReader(
            root, 1, SHAPE, subset=chosen, repeats=3, max_samples=5, shuffle=shuffle, on_error="skip"
        )
        with Pipeline([reader]) as pipeline, pytest.raises(EmptyDatasetError, match="2 of 2 files"):
            pipeline.dequeue(timeout=LIMIT)


def test_stores_keep_every_copy(tmp_path):
    with Pipeline(
        [arrays(7, repeats=2, subset=range(10), epochs=1), LevelDBSink(tmp_path / "s")]
    ) as pipeline:
        pipeline.wait()
    found = batches(LevelDBSource(tmp_path / "s", 5, epochs=1, shuffle=False))
    stored = Counter(int(image[0]) for batch in found for image in batch.images)
    assert stored == dict.fromkeys(range(10), 2)


def test_files_and_tars_keep_every_copy(folder, tmp_path):
    def reader():
        return ImageFileReader(folder, 5, SHAPE, subset=[3, 7], repeats=3, epochs=2)

    batches(reader(), ImageSaver(tmp_path / "files"))
    found = {path.relative_to(tmp_path / "files").as_posix() for path in (tmp_path / "files").rglob("*.png")}
    assert found == {
        f"class{number}/3{copy}{epoch}.png"
        for number in (0, 1)
        for copy in ("", "-c1", "-c2")
        for epoch in ("", "-e1")
    }
    tar = tmp_path / "out-{0000..}.tar"
    for append in (False, True):
        packed = ImageFileReader(folder, 5, SHAPE, subset=[3, 7], repeats=3, epochs=1)
        with Pipeline([Encoded(packed, "original"), TarSink(tar, append=append)]) as pipeline:
            pipeline.wait()
    assert TarReader(sorted(map(str, tmp_path.glob("*.tar"))), 5, SHAPE).size == 6


@pytest.mark.parametrize("name", ["weights", "repeats"])
def test_other_machines_get_the_same_copies(name):
    reader, stage = arrays(**CHOICES[name]), Augmentations([])
    address = f"inproc://{name}"
    with (
        Pipeline([reader, ZMQSink(address)]),
        Pipeline([ZMQSource(address), stage]) as training,
    ):
        found = [batch for _ in range(2) for batch in training]
    assert identities(found) == identities(batches(reader, stage))


def test_packing_follows_the_choice_of_its_reader(folder, tmp_path):
    reader = ImageFileReader(folder, 5, SHAPE, split=("validation", 0.75), stratify=True, epochs=1)
    with Pipeline([Encoded(reader, "original"), LevelDBSink(tmp_path / "s")]) as pipeline:
        pipeline.wait()
    packed = {
        key for batch in batches(LevelDBImageReader(tmp_path / "s", 5, SHAPE, epochs=1)) for key in batch.keys
    }
    assert packed == {key for batch in batches(reader) for key in batch.keys}
    assert len(packed) == 3


@pytest.mark.parametrize("subset", [None, [9, 2, 6, 1]])
def test_packing_draws_as_its_reader(readers, subset):
    """Also where the reader would have windows without the weights."""
    weights = np.arange(12) % 4
    found, packed = (readers["table"](epochs=2, subset=subset, weights=weights, seed=4) for _ in range(2))
    encoded = Encoded(packed, "original")
    assert encoded.order.window is None
    assert identities(batches(encoded)) == identities(batches(found))


@given(world=st.sampled_from([1, 2, 3, 7]), workers=st.sampled_from([1, 2, 8]))
@settings(max_examples=8, deadline=None)
def test_any_number_of_threads_and_ranks_gives_the_same_bits(world, workers):
    options = {"split": ("train", 0.8), "weights": lambda epoch: VALUES + 1, "repeats": 2, "epochs": 1}
    stage = Augmentations([FlipX()])
    images = np.arange(30 * 4 * 4 * 3, dtype=np.uint8).reshape(30, 4, 4, 3)

    def found(world, workers):
        rows = {}
        for rank in range(world):
            reader = ArrayReader(images, VALUES, 3, shard=(rank, world), workers=workers, **options)
            for batch in batches(reader, stage):
                rows |= zip(batch.indices.tolist(), map(bytes, batch.images), strict=True)
        return rows

    assert found(world, workers) == found(1, 1)
