"""Readers of URLs: the same samples as from a folder, each once, whatever the server does."""

import copy
import gc
import json
import os
import pickle
import random
import threading
import time

import fsspec
import numpy as np
import pytest
from concurrency import Task, eventually
from every_sample import samples
from numbered_photographs import make_photographs
from object_server import HANG, Fault, ObjectServer, folder_objects
from PIL import Image
from voc_folders import annotation, thing, voc_folder

from highway import replay
from highway.cli import main
from highway.engine import Pipeline
from highway.errors import (
    ArgumentError,
    DatasetError,
    EmptyDatasetError,
    ObjectChangedError,
    PipelineStateError,
    ReadError,
    StorageError,
    TooManyErrors,
)
from highway.modules import Augmentations, Encoded, ImageFileReader, LevelDBImageReader, ListReader, VOCReader
from highway.modules.readers import read_ahead
from highway.storage import outages, requests
from highway.transforms import FlipX, Normalize, RandomResizedCrop

# They count requests.
pytestmark = pytest.mark.usefixtures("no_hedges")

COUNT = 40
SHAPE = (24, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photographs in class folders, with a PNG, masks beside them, and files that are skipped."""
    root = tmp_path_factory.mktemp("photographs")
    make_photographs(root / "photos", range(COUNT))
    with Image.open(root / "photos/class0/00.jpg") as picture:
        picture.save(root / "photos/class0/more é+%.png")
    (root / "photos/class1/deep").mkdir()
    os.replace(root / "photos/class1/01.jpg", root / "photos/class1/deep/01.jpg")
    (root / "photos/notes.txt").write_text("nothing")
    (root / "photos/.hidden").mkdir()
    (root / "photos/.hidden/1.jpg").write_bytes(b"x")
    for path in sorted((root / "photos").rglob("class*/**/*.*")):
        mask = (root / "masks" / path.relative_to(root / "photos")).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            pixels = np.random.default_rng(len(path.name)).integers(0, 9, picture.size[::-1])
        Image.fromarray(pixels.astype(np.uint8)).save(mask)
    voc_folder(
        root / "voc",
        {f"n{number}": annotation(thing("dog" if number % 2 else "cat")) for number in range(12)},
    )
    (root / "voc/SegmentationClass").mkdir()
    for number in range(12):
        pixels = np.full((60, 80), number, np.uint8)
        Image.fromarray(pixels).save(root / f"voc/SegmentationClass/n{number}.png")
    return root


@pytest.fixture
def server(folder):
    with ObjectServer(folder_objects(folder), page=10) as running:
        yield running


@pytest.fixture(params=["s3", "memory", "webdav"])
def place(request, server, folder):
    """URL of the folder, and the options of readers for it."""
    if request.param == "s3":
        yield "s3://data", {"storage_options": server.options}
    elif request.param == "webdav":
        yield f"{server.endpoint}/data", {}
    else:
        files = fsspec.filesystem("memory")
        for key, body in folder_objects(folder).items():
            files.pipe_file(f"/{key}", body)
        yield "memory://data", {}
        files.rm("/data", recursive=True)


JOB = {"fit": RandomResizedCrop(), "epochs": 2, "seed": 5}


def test_class_folders_are_the_same(folder, place):
    root, options = place
    local = ImageFileReader(folder / "photos", 7, SHAPE, **JOB)
    remote = ImageFileReader(f"{root}/photos", 7, SHAPE, **JOB, **options)
    assert remote.classes == local.classes == ["class0", "class1", "class2"]
    assert remote.fingerprint() == local.fingerprint()
    assert str(remote.skipped) == str(local.skipped)
    assert list(remote.known_keys()) == list(local.known_keys())
    stages = Augmentations([FlipX(), Normalize()])
    assert samples(remote, stages) == samples(local, stages)
    assert remote.fetched()["requests"] > 0 and local.fetched() is None


def test_masks_are_the_same(folder, place):
    root, options = place
    local = ImageFileReader(folder / "photos", 7, SHAPE, masks_dir=folder / "masks", **JOB)
    expected = samples(local)
    for data_dir, masks_dir in [
        (f"{root}/photos", f"{root}/masks"),
        (f"{root}/photos/", folder / "masks"),
        (folder / "photos", f"{root}/masks"),
    ]:
        reader = ImageFileReader(data_dir, 7, SHAPE, masks_dir=masks_dir, **JOB, **options)
        assert samples(reader) == expected
        eventually(lambda reader=reader: reader.fetched()["held"] == 0)


@pytest.mark.parametrize("arguments", [{}, {"masks": True}, {"split": None, "masks": "SegmentationClass/"}])
def test_voc_sets_are_the_same(folder, place, arguments):
    root, options = place
    local = VOCReader(folder / "voc", 5, SHAPE, **arguments, epochs=2, seed=5)
    remote = VOCReader(f"{root}/voc", 5, SHAPE, **arguments, epochs=2, seed=5, **options)
    assert remote.classes == local.classes and remote.class_counts().tolist() == [6, 6]
    assert remote.fingerprint() == local.fingerprint()
    assert samples(remote) == samples(local)


def test_lists_are_the_same(folder, server):
    names = [str(path) for path in sorted((folder / "photos").rglob("class*/**/*.*"))]
    labels, masks = (
        list(range(len(names))),
        [
            str((folder / "masks" / os.path.relpath(name, folder / "photos")).with_suffix(".png"))
            for name in names
        ],
    )

    def by_place(reader):
        return {key[-9:]: values for (_, key), values in samples(reader).items()}

    expected = by_place(ListReader(names, labels, 7, SHAPE, masks=masks, epochs=1, seed=5))

    def urls(paths, root):
        quoted = [os.path.relpath(path, folder) for path in paths]
        if root.startswith("http"):
            quoted = [path.replace("%", "%25").replace(" ", "%20") for path in quoted]
        return [f"{root}/{path}" for path in quoted]

    mixed = [
        one if number % 3 else other
        for number, (one, other) in enumerate(zip(names, urls(names, "s3://data"), strict=True))
    ]
    for paths, of_masks in [
        (urls(names, f"{server.endpoint}/data"), masks),
        (urls(names, "s3://data"), urls(masks, "s3://data")),
        (mixed, masks),
        (names, urls(masks, "s3://data")),
    ]:
        reader = ListReader(
            paths,
            labels,
            7,
            SHAPE,
            masks=of_masks,
            epochs=1,
            seed=5,
            storage_options=server.options if "s3://" in str(paths + of_masks) else None,
        )
        found = by_place(reader)
        if paths[0].startswith("http"):
            found = {key.replace("%20", " ").replace("%25", "%")[-9:]: value for key, value in found.items()}
        assert [*found.values()] == [*expected.values()]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_each_sample_comes_once(server, world):
    seen = []
    lengths = set()
    for rank in range(world):
        reader = ImageFileReader(
            "s3://data/photos", 4, SHAPE, epochs=1, shard=(rank, world), storage_options=server.options
        )
        with Pipeline([reader]) as pipeline:
            keys = [key for batch in pipeline for key in batch.keys]
        lengths.add(len(keys))
        seen += keys
    # Every rank has as many; those that come twice make up for what the world does not divide.
    assert len(lengths) == 1
    assert set(seen) == set(reader.known_keys())
    assert len(seen) - len(set(seen)) == -reader.size % world


def test_it_resumes_anywhere(server, folder):
    def reader(root, size, shard):
        return ImageFileReader(
            root,
            size,
            SHAPE,
            fit=RandomResizedCrop(),
            epochs=2,
            seed=9,
            shard=shard,
            storage_options=server.options,
        )

    expected = samples(reader(folder / "photos", 5, (0, 1)))
    choose = random.Random(4)
    for _ in range(12):
        world, size = choose.choice([1, 2, 3]), choose.randint(1, 9)
        steps = choose.randint(1, 2 * (len(expected) // 2) // (size * world) - 1)
        begun, states = {}, []
        for rank in range(world):
            with Pipeline([reader("s3://data/photos", size, (rank, world))]) as pipeline:
                for _ in range(steps):
                    batch = pipeline.dequeue(timeout=60)
                    begun |= {
                        (batch.epoch, key): image.tobytes()
                        for key, image in zip(batch.keys, batch.images, strict=True)
                    }
                states.append(json.loads(json.dumps(pipeline.state_dict())))
        assert all(state == states[0] for state in states)
        other, other_size = choose.choice([1, 2, 3]), choose.randint(1, 9)
        rest = {}
        for rank in range(other):
            with Pipeline([reader("s3://data/photos", other_size, (rank, other))]) as pipeline:
                pipeline.load_state_dict(states[0])
                while True:
                    try:
                        batch = pipeline.dequeue(timeout=60)
                    except EOFError:
                        break
                    rest |= {
                        (batch.epoch, key): image.tobytes()
                        for key, image in zip(batch.keys, batch.images, strict=True)
                    }
        assert {key: values["images"] for key, values in expected.items()} == begun | rest


def test_a_copy_and_a_pickle_read_the_same(server):
    reader = ImageFileReader("s3://data/photos", 7, SHAPE, epochs=1, storage_options=server.options)
    expected = samples(reader)
    for other in (pickle.loads(pickle.dumps(reader)), copy.copy(reader), reader):
        assert other == reader
        assert samples(other) == expected


def test_a_batch_is_made_again(server):
    reader = ImageFileReader("s3://data/photos", 7, SHAPE, epochs=1, storage_options=server.options)
    with Pipeline([reader]) as pipeline:
        batches = list(pipeline)
    again = replay.batch([reader], step=3)
    assert again.keys == batches[3].keys and (again.images == batches[3].images).all()


def test_pictures_are_fetched_once_an_epoch_and_within_the_memory(server):
    reader = ImageFileReader(
        "s3://data/photos", 4, SHAPE, epochs=2, storage_options=server.options, prefetch_bytes=20_000
    )
    with Pipeline([reader]) as pipeline:
        assert sum(batch.size for batch in pipeline) == COUNT + 1
        assert sum(batch.size for batch in pipeline) == COUNT + 1
    # Once where the end of an epoch and the beginning of the next one need it at the same time.
    counts = server.per_key()
    assert set(counts.values()) <= {1, 2} and len(counts) == COUNT + 1 and sum(counts.values()) > 1.5 * COUNT
    largest = max(len(body) for key, body in server.objects.items() if key.startswith("data/photos"))
    assert reader.fetched()["most_held"] <= max(20_000, largest)


@pytest.mark.parametrize("what", ["originals", "jpeg:16"])
def test_urls_are_packed(server, folder, tmp_path, what):
    encoding = "original" if what == "originals" else what

    def pictures(root, to, **options):
        reader = VOCReader(root, 4, SHAPE, masks=True, epochs=1, shuffle=False, **options)
        with Pipeline([Encoded(reader, encoding)]) as pipeline:
            return [
                (batch.keys, list(batch.images), list(batch["masks"]), batch.boxes.tolist())
                for batch in pipeline
            ]

    local = pictures(folder / "voc", tmp_path / "local")
    assert pictures("s3://data/voc", tmp_path / "remote", storage_options=server.options) == local


def test_the_command_packs_urls(server, monkeypatch, tmp_path, capsys):
    """Keys and endpoints come from the environment, as for other programs."""
    names = {"endpoint": "AWS_ENDPOINT_URL", "region": "AWS_REGION"}
    for name, value in server.options.items():
        monkeypatch.setenv(names.get(name, f"AWS_{name.upper()}"), value)
    assert main(["pack", "s3://data/photos", str(tmp_path / "store")]) == 0
    assert main(["info", "s3://data/photos"]) == 0
    said = capsys.readouterr().out
    assert f"{COUNT + 1} " in said and "class2" in said
    packed = samples(LevelDBImageReader(tmp_path / "store", 7, SHAPE, epochs=1, shuffle=False))
    expected = samples(ImageFileReader("s3://data/photos", 7, SHAPE, epochs=1, shuffle=False))
    assert packed == expected
    assert main(["info", "s3://data/voc"]) == 0
    assert "Pascal VOC" in capsys.readouterr().out


# Faults


def read_all(server, **options):
    reader = ImageFileReader(
        "s3://data/photos", 4, SHAPE, epochs=1, storage_options=server.options, **options
    )
    with Pipeline([reader]) as pipeline:
        keys = [key for batch in pipeline for key in batch.keys]
        return keys, dict(pipeline.errors), reader


def missing(request):
    return Fault(status=404) if request.key == "data/photos/class2/05.jpg" else None


@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
def test_a_missing_object_is_a_bad_sample(server, policy):
    server.fault = missing
    if policy == "raise":
        with pytest.raises(
            ReadError, match=r"ImageFileReader: s3://data/photos/class2/05.jpg cannot be read: .* 404"
        ):
            read_all(server, on_error=policy)
        return
    keys, errors, _ = read_all(server, on_error=policy)
    assert [*errors] == ["class2/05.jpg"] and "404" in errors["class2/05.jpg"]
    assert len(keys) == (COUNT if policy == "skip" else COUNT + 1)
    assert server.per_key()["data/photos/class2/05.jpg"] == 1
    with pytest.raises(TooManyErrors):
        read_all(server, on_error=policy, max_errors=0)


@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
@pytest.mark.parametrize("kind", ["changed", "away", "refused"])
def test_what_is_no_bad_sample_raises_under_any_policy(server, monkeypatch, policy, kind):
    monkeypatch.setattr(outages, "LIMIT", 0.3)
    faults = {"changed": Fault(body=b"another"), "away": Fault(reset=True), "refused": Fault(status=503)}
    server.fault = lambda request: faults[kind] if request.key.endswith("05.jpg") else None
    expected = ObjectChangedError if kind == "changed" else StorageError
    with pytest.raises(expected, match=r"s3://data/photos/class2/05.jpg"):
        read_all(server, on_error=policy)


@pytest.mark.parametrize(
    "fault",
    [Fault(status=503), Fault(status=429), Fault(reset=True), Fault(cut=100), Fault(delay=0.3)],
    ids=str,
)
def test_nothing_is_lost_to_what_passes(server, monkeypatch, fault):
    monkeypatch.setattr(requests, "_SHORTEST", 0.001)
    chance = random.Random(1)
    server.fault = lambda request: fault if not request.lists and chance.random() < 0.3 else None
    keys, errors, reader = read_all(server, on_error="skip")
    assert sorted(keys) == sorted(reader.known_keys()) and not errors
    assert server.count() < 4 * len(keys)


def test_masks_that_are_missing_make_bad_samples(server):
    server.objects.pop("data/masks/class2/05.png")
    reader = ImageFileReader(
        "s3://data/photos",
        4,
        SHAPE,
        masks_dir="s3://data/masks",
        epochs=1,
        on_error="skip",
        storage_options=server.options,
    )
    with Pipeline([reader]) as pipeline:
        assert sum(batch.size for batch in pipeline) == COUNT
        ((key, reason),) = pipeline.errors
    assert key == "class2/05.jpg"
    assert "mask s3://data/masks/class2/05.png cannot be read: the server answered 404" in reason


def test_stop_does_not_wait_for_a_request(server):
    server.fault = lambda request: None if request.lists else Fault(delay=HANG)
    options = server.options | {"client_options": {"read_timeout": "2s"}}
    reader = ImageFileReader("s3://data/photos", 4, SHAPE, storage_options=options)
    pipeline = Pipeline([reader])
    waiting = Task(pipeline.dequeue)
    eventually(lambda: server.count() > 0)
    began = time.monotonic()
    pipeline.stop()
    assert time.monotonic() - began < 2
    with pytest.raises(PipelineStateError):
        waiting.result()
    eventually(lambda: not server.open_connections)


def test_no_thread_is_left_at_the_end_of_the_data(server):
    reader = ImageFileReader("s3://data/photos", 4, SHAPE, epochs=1, storage_options=server.options)
    pipeline = Pipeline([reader])
    assert sum(batch.size for batch in pipeline) == COUNT + 1
    eventually(lambda: not any(thread.name.startswith("highway fetcher") for thread in threading.enumerate()))
    pipeline.stop()


def test_a_dropped_pipeline_ends_its_threads(server):
    reader = ImageFileReader("s3://data/photos", 4, SHAPE, storage_options=server.options)
    pipeline = Pipeline([reader])
    pipeline.dequeue(timeout=60)
    del pipeline
    gc.collect()
    eventually(lambda: not any(thread.name.startswith("highway ") for thread in threading.enumerate()))


def test_tasks_that_are_not_made_keep_no_memory(server, monkeypatch):
    """A data machine takes up tasks from another place when a training machine connects, and passes over some."""
    monkeypatch.setattr(read_ahead, "MOST_WORKERS", 1)
    reader = ImageFileReader("s3://data/photos", 4, SHAPE, epochs=1, storage_options=server.options).for_run()
    reader.enter([reader], lambda: None)
    reader.open()
    try:
        tasks = reader.tasks_from(0)
        next(tasks)
        eventually(lambda: len(server.per_key()) == COUNT + 1)
        everything = reader.fetched()["most_held"]
        eventually(lambda: reader.fetched()["held"] == everything)
        for _ in range(len(reader) - 2):
            next(tasks)
        eventually(lambda: reader.fetched()["held"] < everything / 2)
        tasks = reader.tasks_from(len(reader) - 1)
        assert reader.load(next(tasks)).size == 1
        eventually(lambda: reader.fetched()["held"] == 0)
    finally:
        reader.interrupt()
        reader.close()


# Listings


def test_empty_folders_and_lists_are_refused(server):
    options = {"storage_options": server.options}
    with pytest.raises(EmptyDatasetError, match="s3://data/nothing/' does not exist"):
        ImageFileReader("s3://data/nothing", 4, SHAPE, **options)
    with pytest.raises(EmptyDatasetError, match=r"no class folders .* ListReader"):
        ImageFileReader("s3://data/photos/class0", 4, SHAPE, **options)
    with pytest.raises(DatasetError, match="masks_dir is 's3://data/nothing/'"):
        ImageFileReader("s3://data/photos", 4, SHAPE, masks_dir="s3://data/nothing", **options)
    with pytest.raises(DatasetError, match="JPEGImages"):
        VOCReader("s3://data/photos", 4, SHAPE, **options)
    with pytest.raises(ArgumentError, match="is not inside of"):
        VOCReader("s3://data/voc", 4, SHAPE, images="/elsewhere", **options)
    with pytest.raises(ArgumentError, match="root is a local folder"):
        VOCReader("/data", 4, SHAPE, images="s3://data/voc/JPEGImages", **options)
    server.put("other/masks/class0/00.png", b"")
    with pytest.raises(ArgumentError, match="expected the same store"):
        ImageFileReader("s3://data/photos", 4, SHAPE, masks_dir="s3://other/masks", **options)
    server.fault = lambda request: Fault(status=403)
    with pytest.raises(DatasetError, match="answered 403"):
        ImageFileReader("s3://data/photos", 4, SHAPE, **options)


def test_folders_that_are_objects_are_folders(server):
    """Some programs create folders as empty objects."""
    server.put("data/photos/class0", b"")
    server.put("data/photos/class1/deep", b"")
    reader = ImageFileReader("s3://data/photos", 4, SHAPE, storage_options=server.options)
    assert reader.size == COUNT + 1
    assert "class0" not in str(reader.skipped)


@pytest.mark.parametrize("value", [0, -1, 1.5, "1"])
def test_prefetch_bytes_are_checked(folder, value):
    with pytest.raises(ArgumentError, match="prefetch_bytes is"):
        ImageFileReader(folder / "photos", 4, SHAPE, prefetch_bytes=value)
