"""The same photographs wherever they lie: equal bits, each once an epoch, resumed anywhere, through an outage."""

import csv
import json
import os
import random
import time

import pytest
from concurrency import Task, eventually
from object_server import ObjectServer, folder_objects
from pictures import class_folders
from tars import shards_of_folder

from highway.engine import Pipeline
from highway.modules import Augmentations, ImageFileReader, ListReader, TableReader, TarReader
from highway.storage import requests
from highway.transforms import FlipX, RandomResizedCrop

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("obstore", reason="obstore is not installed")

SHAPE = (24, 32)
COUNT = 25
EPOCHS = 2
KINDS = ["folder", "tar", "tar over HTTP", "S3", "S3 and cache", "Parquet", "CSV"]
REMOTE = ["tar over HTTP", "S3", "Parquet over S3"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folders, tars, a table and a manifest of the same photographs."""
    root = tmp_path_factory.mktemp("everywhere")
    photos = class_folders(root / "photos", 5, COUNT // 5)
    keys = [*ImageFileReader(photos, 1, SHAPE).known_keys()]
    shards_of_folder(photos, keys, root / "tars", 4)
    classes = [key.split("/")[0] for key in keys]
    table = pa.table({"image": [(photos / key).read_bytes() for key in keys], "label": classes, "key": keys})
    pq.write_table(table, root / "table.parquet", row_group_size=4)
    with open(root / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "class"), *zip(keys, classes, strict=True)])
    return root


@pytest.fixture(scope="module")
def server(root):
    with ObjectServer(folder_objects(root)) as running:
        yield running


@pytest.fixture
def make(root, server, tmp_path):
    """Make a reader of a kind."""
    away = {"storage_options": server.options}
    http = {"storage_options": {"client_options": {"allow_http": True}}, "index_dir": tmp_path / "indexes"}
    kinds = {
        "folder": (ImageFileReader, root / "photos", {}),
        "tar": (TarReader, root / "tars" / "part-{00..03}.tar", {"index_dir": tmp_path / "indexes"}),
        "tar over HTTP": (TarReader, f"{server.endpoint}/data/tars/part-{{00..03}}.tar", http),
        "S3": (ImageFileReader, "s3://data/photos", away),
        "S3 and cache": (
            ImageFileReader,
            "s3://data/photos",
            {**away, "cache": tmp_path / "cache", "cache_bytes": 20e6},
        ),
        "Parquet": (TableReader, root / "table.parquet", {"key": "key"}),
        "Parquet over S3": (TableReader, "s3://data/table.parquet", {**away, "key": "key"}),
        "CSV": (ListReader.from_csv, root / "list.csv", {"root": root / "photos"}),
    }

    def reader(kind, batch_size, **options):
        of_kind, path, more = kinds[kind]
        given = {"fit": RandomResizedCrop(), "seed": 7, "epochs": EPOCHS}
        return of_kind(path, batch_size, SHAPE, **{**more, **given, **options})

    return reader


def steps_of(reader, state=None):
    """Samples of each batch, by epoch and key without its ending, and the state after it."""
    with Pipeline([reader, Augmentations([FlipX()])]) as pipeline:
        if state is not None:
            pipeline.load_state_dict(json.loads(state))
        while True:
            try:
                batch = pipeline.dequeue(timeout=60)
            except EOFError:
                return
            keys = [os.path.splitext(key)[0] for key in batch.keys]
            bits = zip(batch.images, batch.labels, strict=True)
            yield (
                {
                    (batch.epoch, key): (image.tobytes(), int(label))
                    for key, (image, label) in zip(keys, bits, strict=True)
                },
                pipeline.state_dict(),
            )


def all_of(reader):
    found = {}
    for samples, _ in steps_of(reader):
        assert not samples.keys() & found.keys()
        found |= samples
    return found


@pytest.fixture(scope="module")
def expected(root):
    reader = ImageFileReader(root / "photos", 4, SHAPE, fit=RandomResizedCrop(), seed=7, epochs=EPOCHS)
    found = all_of(reader)
    assert len(found) == EPOCHS * COUNT and len({*found.values()}) > COUNT
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_are_equal(make, server, expected, kind):
    assert all_of(make(kind, 4)) == expected
    assert all_of(make(kind, 7, seed=8)) != expected
    before = server.count()
    # A second run: of indexes and of what a cache has.
    assert all_of(make(kind, 7)) == expected
    assert (server.count() > before) == (kind in ("tar over HTTP", "S3"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_each_sample_comes_once_an_epoch(make, expected, kind, world):
    ranks = [
        [[*samples] for samples, _ in steps_of(make(kind, 3, shard=(rank, world)))] for rank in range(world)
    ]
    # Every rank has as many batches, of as many samples.
    assert len({tuple(map(len, batches)) for batches in ranks}) == 1
    found = [sample for batches in ranks for samples in batches for sample in samples]
    assert {*found} == expected.keys()
    # Some come twice only to make up for what the world does not divide.
    assert len(found) - len(expected) == EPOCHS * (-COUNT % world)


@pytest.mark.parametrize("kind", KINDS)
def test_it_resumes_anywhere_in_other_batches_and_another_world(make, expected, kind):
    draw = random.Random(KINDS.index(kind))
    places = []
    for batch_size, world in ((1, 1), (4, 1), (3, 2), (2, 3)):
        ranks = [steps_of(make(kind, batch_size, shard=(rank, world))) for rank in range(world)]
        begun = {}
        for steps in zip(*ranks, strict=True):
            begun = begun | {key: bits for samples, _ in steps for key, bits in samples.items()}
            states = [json.dumps(state) for _, state in steps]
            assert len({*states}) == 1
            if len(begun) < len(expected):
                places.append((batch_size, world, begun, states[0]))
    for batch_size, world, begun, state in draw.sample(places, 50):
        other_size = draw.choice([size for size in range(1, 10) if size != batch_size])
        other = draw.choice([size for size in (1, 2, 3) if size != world])
        rest = {}
        for rank in range(other):
            for samples, _ in steps_of(make(kind, other_size, shard=(rank, other)), state):
                rest |= samples
        assert begun | rest == expected
        # What was delivered does not come again, but for what makes up for the world.
        assert len(begun.keys() & rest.keys()) <= EPOCHS * (world + other)


def test_an_outage_of_ten_seconds_loses_nothing(make, server, expected, monkeypatch):
    """Of all remote kinds at once; few requests are made meanwhile."""
    monkeypatch.setattr(requests, "_FIRST_HEDGES", 0)
    monkeypatch.setattr(requests, "_HEDGES", 0.0)
    # Little is fetched ahead, and so all of them are in the middle of their data.
    options = {kind: {"prefetch_bytes": 15_000, "workers": 1, "queue_size": 1} for kind in REMOTE}
    options["tar over HTTP"]["window"] = None
    options["Parquet over S3"]["window_bytes"] = 15_000
    runs = {kind: steps_of(make(kind, 2, **options[kind])) for kind in REMOTE}
    found = {kind: next(run)[0] for kind, run in runs.items()}
    server.away = True
    tasks = {kind: Task(lambda run=run: [samples for samples, _ in run]) for kind, run in runs.items()}
    try:
        before = len(server.requests) + server.accepted
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 10)
        made = len(server.requests) + server.accepted - before
        # What was under way, half as many, and then one every two seconds.
        assert all(task.is_alive() for task in tasks.values())
    finally:
        server.away = False
    for kind, task in tasks.items():
        for samples in task.result():
            found[kind] |= samples
        assert found[kind] == expected
    assert made < 3 * 60, made


def test_the_cache_is_enough_without_the_server(make, root, expected):
    with ObjectServer(folder_objects(root)) as server:
        options = {"storage_options": server.options}
        assert all_of(make("S3 and cache", 4, **options)) == expected
        server.away = True
        assert all_of(make("S3 and cache", 5, **options)) == expected
