"""TarReader with tars in a store: the same bits, few requests, and typed errors whatever the server does."""

import gzip
import io
import json
import os
import random
import re

import numpy as np
import pytest
from object_server import Fault, ObjectServer
from pictures import class_folders, jpeg_bytes, photograph
from PIL import Image
from tars import shards_of_folder, write_tar

from highway.engine import Pipeline
from highway.errors import (
    ArgumentError,
    DecodeError,
    EmptyDatasetError,
    ObjectChangedError,
    ReadError,
    StateMismatchError,
    StorageError,
    TarError,
)
from highway.modules import Concat, ImageFileReader, Mix, TarReader
from highway.modules.readers import tar_samples
from highway.storage import outages, remote_tar_index
from highway.transforms import RandomResizedCrop

# They count requests.
pytestmark = pytest.mark.usefixtures("no_hedges")

SHAPE = (24, 32)
COUNT = 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("photos"), 4, COUNT // 4)


@pytest.fixture(scope="module")
def tars(folder, tmp_path_factory):
    keys = [*ImageFileReader(folder, 1, SHAPE).known_keys()]
    return shards_of_folder(folder, keys, tmp_path_factory.mktemp("tars"), 4)


@pytest.fixture
def server(tars):
    objects = {}
    for path in tars:
        with open(path, "rb") as file:
            objects[f"data/set/{os.path.basename(path)}"] = file.read()
    with ObjectServer(objects) as running:
        yield running


@pytest.fixture
def make(server, tmp_path):
    def reader(paths="s3://data/set/part-{00..03}.tar", batch_size=4, **options):
        return TarReader(
            paths,
            batch_size,
            SHAPE,
            **{"storage_options": server.options, "index_dir": tmp_path / "kept", "epochs": 1, **options},
        )

    return reader


def samples_of(reader, epochs=1):
    found = {}
    with Pipeline([reader]) as pipeline:
        for _ in range(epochs):
            for batch in pipeline:
                for row, key in enumerate(batch.keys):
                    sample = batch.epoch, key.removesuffix(".jpg")
                    assert sample not in found
                    found[sample] = [array[row].tobytes() for array in batch.fields.values()]
    return found


@pytest.mark.parametrize("window", [None, "all", 2])
def test_bits_are_those_of_the_folder(folder, make, window):
    options = {"fit": RandomResizedCrop(), "epochs": 2}
    expected = samples_of(ImageFileReader(folder, 4, SHAPE, **options), 2)
    assert samples_of(make(window=window, **options), 2) == expected
    assert samples_of(make(window=window, prefetch_bytes=400_000, batch_size=7, **options), 2) == expected


def test_over_http(folder, server, make, tmp_path):
    urls = [f"{server.endpoint}/data/set/part-{number:02}.tar" for number in range(4)]
    found = samples_of(make(urls, storage_options={"client_options": {"allow_http": True}}, shuffle=False))
    assert found == samples_of(ImageFileReader(folder, 4, SHAPE, epochs=1, shuffle=False))


def test_names_by_wildcards(make):
    assert make("s3://data/set/part-*.tar").paths == [
        f"s3://data/set/part-{number:02}.tar" for number in range(4)
    ]
    assert make("s3://data/**/*-0[12].tar").paths == [
        "s3://data/set/part-01.tar",
        "s3://data/set/part-02.tar",
    ]
    with pytest.raises(EmptyDatasetError, match="no file has such a name"):
        make("s3://data/set/x-*.tar")


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_every_sample_once_an_epoch(make, world):
    ranks = []
    for rank in range(world):
        # Small enough for several windows.
        with Pipeline([make(shard=(rank, world), prefetch_bytes=40_000, batch_size=3)]) as pipeline:
            ranks.append([index for batch in pipeline for index in batch.indices.tolist()])
    found = [index for rank in ranks for index in rank]
    assert set(found) == set(range(COUNT)) and len(found) - COUNT < world
    assert len({len(rank) for rank in ranks}) == 1


def test_resuming_in_other_batches_and_another_world(make):
    rng = random.Random(3)
    options = {"prefetch_bytes": 40_000, "epochs": 2}
    expected = samples_of(make(**options))
    for _ in range(8):
        batch_size, world = rng.randrange(1, 8), rng.choice([1, 2, 3])
        with Pipeline([make(batch_size=batch_size, **options)]) as pipeline:
            found = {}
            for _ in range(rng.randrange(1, COUNT // batch_size)):
                batch = pipeline.dequeue()
                found |= {(batch.epoch, key): None for key in batch.keys}
            state = json.loads(json.dumps(pipeline.state_dict()))
        for rank in range(world):
            with Pipeline([make(batch_size=5, shard=(rank, world), **options)]) as pipeline:
                pipeline.load_state_dict(state)
                for batch in pipeline:
                    found |= {(batch.epoch, key): None for key in batch.keys}
        assert found.keys() == expected.keys()


def test_a_state_belongs_to_its_runs(make, tars):
    def state(reader, loaded=None):
        with Pipeline([reader]) as pipeline:
            if loaded is not None:
                pipeline.load_state_dict(loaded)
            pipeline.dequeue()
            return pipeline.state_dict()

    # As many runs in a window, of other sizes.
    one, other = make(prefetch_bytes=40_000), make(prefetch_bytes=80_000)
    assert one.order.window == other.order.window == 8
    assert [*one.order.indices(0, 0)] != [*other.order.indices(0, 0)]
    saved = state(one)
    with pytest.raises(StateMismatchError, match="fingerprint"):
        state(other, saved)
    # Eight runs are no eight tars.
    with pytest.raises(StateMismatchError, match="fingerprint"):
        state(TarReader(tars, 4, SHAPE, window=8, epochs=1), saved)
    # Without shuffling there are neither: a copy of the tars goes on.
    saved = state(make(shuffle=False))
    assert "window" not in saved
    assert state(TarReader(tars, 4, SHAPE, shuffle=False, epochs=1), saved)["position"] == 8


def test_a_window_is_read_in_large_ranges(server, make):
    reader = make()
    server.requests.clear()
    assert len(samples_of(reader)) == COUNT
    # Each tar is one range, since all of them are smaller than a run.
    assert server.count() - reader.fetched()["hedged"] == 4
    reader = make(window="all", fields={"again": ("cls", "int32")})
    server.requests.clear()
    assert len(samples_of(reader)) == COUNT
    assert server.count() - reader.fetched()["hedged"] <= COUNT


@pytest.mark.parametrize("window", [None, "all", 2])
def test_later_epochs_and_runs_come_from_the_cache(folder, server, make, tmp_path, window):
    options = {"fit": RandomResizedCrop(), "epochs": 2}
    expected = samples_of(ImageFileReader(folder, 4, SHAPE, **options), 2)
    kept = {"cache": tmp_path / "cache", "cache_bytes": 20e6}
    first = make(window=window, **options, **kept)
    server.requests.clear()
    assert samples_of(first, 2) == expected
    assert 0 < server.count() <= 2 * COUNT
    # Another order and world: the indexes are asked for, and nothing of the tars.
    again = make(window=window, prefetch_bytes=400_000, batch_size=7, **options, **kept)
    server.requests.clear()
    assert samples_of(again, 2) == expected
    assert server.requests == []
    assert again.fetched()["cached"] > 0 and again.fetched()["fetched"] == 0


def test_memory_is_bounded(make):
    reader = make(prefetch_bytes=60_000)
    assert len(samples_of(reader)) == COUNT
    measures = reader.fetched()
    assert 0 < measures["most_held"] <= 60_000
    assert measures["held"] == 0


def test_bad_samples_and_replacements(server, make, tmp_path):
    picture = jpeg_bytes(photograph(30, 40))
    members = [
        ("a.jpg", picture),
        ("a.cls", b"0"),
        ("b.jpg", picture[:-300]),
        ("b.cls", b"1"),
        ("c.jpg", picture),
    ]
    members += [
        ("d.jpg", picture),
        ("d.cls", b"x"),
        ("e.jpg", b""),
        ("e.cls", b"4"),
        ("f.jpg", picture),
        ("f.cls", b"5"),
    ]
    server.put("data/bad.tar", write_tar(tmp_path / "bad.tar", members).read_bytes())
    reader = make("s3://data/bad.tar", 6, on_error="skip", shuffle=False)
    with Pipeline([reader]) as pipeline:
        assert pipeline.dequeue().labels.tolist() == [0, 5]
    assert [key for key, _ in sorted(reader.errors)] == ["b", "c", "d", "e"]
    assert all("s3://data/bad.tar" in text for _, text in reader.errors)
    with Pipeline([make("s3://data/bad.tar", 6, on_error="replace")]) as pipeline:
        batch = pipeline.dequeue()
    assert batch.size == 6 and set(batch.labels.tolist()) == {0, 5}


def test_boxes_masks_and_json(server, make, tmp_path):
    png = io.BytesIO()
    Image.fromarray(np.full((30, 40), 3, np.uint8)).save(png, "PNG")
    picture = jpeg_bytes(photograph(30, 40))
    members = []
    for number in range(6):
        text = json.dumps(
            {"boxes": [[0, 0, 20, 15]] * number, "ids": list(range(number)), "name": f"n{number}"}
        )
        members += [
            (f"{number}.jpg", picture),
            (f"{number}.json", text.encode()),
            (f"{number}.mask.png", png.getvalue()),
        ]
    path = write_tar(tmp_path / "boxes.tar", members)
    server.put("data/boxes.tar", path.read_bytes())
    options = {
        "label": "json:ids",
        "boxes": "json:boxes",
        "masks": "mask.png",
        "fields": {"name": "json:name"},
        "shuffle": False,
    }
    with Pipeline([TarReader(path, 6, SHAPE, **options)]) as pipeline:
        expected = pipeline.dequeue()
    with Pipeline([make("s3://data/boxes.tar", 6, **options)]) as pipeline:
        found = pipeline.dequeue()
    assert list(found.fields) == ["images", "labels", "boxes", "masks", "name"]
    for name, array in expected.fields.items():
        assert np.array_equal(found[name], array)
    assert found.offsets.tolist() == expected.offsets.tolist()


# Indexes


def test_indexes_are_kept(server, make, tmp_path):
    make()
    made = server.count()
    assert len(os.listdir(tmp_path / "kept")) == 4
    server.requests.clear()
    make()
    # The fields of the first sample, and no headers.
    assert server.count() == 1 < made


def test_an_index_of_another_object_is_made_again(server, make, tmp_path):
    make()
    picture = jpeg_bytes(photograph(30, 40))
    other = write_tar(tmp_path / "o.tar", [("other.jpg", picture), ("other.cls", b"3")])
    server.put("data/set/part-00.tar", other.read_bytes())
    reader = make()
    assert list(reader.known_keys())[:2] == ["other", "class1/0"]


def test_a_published_index_is_used_if_it_is_that_of_the_tar(server, make, tars, monkeypatch, tmp_path):
    for path in tars:
        TarReader(path, 1, SHAPE)
        with open(path + ".index", "rb") as file:
            server.put(f"data/set/{os.path.basename(path)}.index", file.read())
    made = []
    original = remote_tar_index._made
    monkeypatch.setattr(
        remote_tar_index, "_made", lambda *given: made.append(given[1].name) or original(*given)
    )
    expected = list(make().known_keys())
    assert made == [] and len(expected) == COUNT
    # That of another tar, of one with another size, and something else.
    server.objects["data/set/part-00.tar.index"] = server.objects["data/set/part-01.tar.index"]
    server.objects["data/set/part-02.tar.index"] = b"no index"
    assert list(make(index_dir=tmp_path / "other").known_keys()) == expected
    assert sorted(made) == ["s3://data/set/part-00.tar", "s3://data/set/part-02.tar"]


@pytest.fixture
def many(server, tmp_path):
    """20 tars with their published indexes, among other objects."""
    picture = jpeg_bytes(photograph(30, 40))
    for number in range(20):
        members = [(f"{number}.jpg", picture), (f"{number}.cls", b"%d" % number)]
        path = write_tar(tmp_path / f"t-{number:02}.tar", members)
        TarReader(path, 1, SHAPE)
        for ending in ("", ".index"):
            server.put(
                f"data/many/t-{number:02}.tar{ending}", (tmp_path / f"t-{number:02}.tar{ending}").read_bytes()
            )
        server.put(f"data/many/t-{number:02}/note.txt", b"a note")
    server.put("data/many/a.txt", b"before")
    server.put("data/many/z.txt", b"after")
    server.requests.clear()
    return "s3://data/many/t-{00..19}.tar"


def test_many_tars_are_listed_instead_of_asked_for_one_by_one(server, make, many, tmp_path):
    assert sorted(make(many).known_keys(), key=int) == [str(number) for number in range(20)]
    assert server.count(lists=True) == 1 and server.count("HEAD") == 0
    # Of each tar its index and its last header; and the fields of the first sample.
    assert server.count() == 41
    assert len(os.listdir(tmp_path / "kept")) == 1
    server.requests.clear()
    make(many)
    assert (server.count(lists=True), server.count("HEAD"), server.count()) == (1, 0, 1)
    # The index of an object that the listing states as another one is made again.
    server.objects["data/many/t-03.tar"] = server.objects["data/many/t-04.tar"]
    server.etags["data/many/t-03.tar"] = server.etags["data/many/t-04.tar"]
    assert sorted(make(many).known_keys(), key=int)[3:5] == ["4", "4"]


@pytest.mark.parametrize("why", ["no listing", "many others", "few tars"])
def test_tars_that_no_listing_states_are_asked_for(server, make, many, why):
    expected = 20
    if why == "no listing":
        server.fault = lambda request: Fault(status=403) if request.lists else None
    elif why == "many others":
        for number in range(5000):
            server.put(f"data/many/t-05.tar.{number:04}", b"")
    else:
        many, expected = "s3://data/many/t-{00..06}.tar", 7
    assert len(list(make(many).known_keys())) == expected
    assert server.count("HEAD") > 0
    # A listing does not go on through thousands of other objects.
    assert server.count(lists=True) <= 2


def pictures_of(numbers):
    """Members with one length: pictures of one color, padded behind their end."""
    pictures = {number: jpeg_bytes(Image.new("RGB", (32, 24), (25 * number,) * 3)) for number in numbers}
    longest = max(map(len, pictures.values()))
    return [
        (f"{number:04}.{ending}", contents)
        for number in numbers
        for ending, contents in (
            ("jpg", pictures[number].ljust(longest + 20, b"\0")),
            ("cls", b"%d" % (number % 10)),
        )
    ]


@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
@pytest.mark.parametrize("kept", ["published", "kept"])
def test_an_index_of_other_samples_in_the_same_places_mixes_nothing(server, make, tmp_path, policy, kept):
    """The sizes and the last members of both tars are equal, and so are all places."""
    for name, numbers in (("one", [0, 1, 2, 3, 4, 5, 9]), ("two", [0, 1, 7, 3, 8, 6, 9])):
        write_tar(tmp_path / f"{name}.tar", pictures_of(numbers))
    TarReader(tmp_path / "one.tar", 1, SHAPE)
    one, two = ((tmp_path / f"{name}.tar").read_bytes() for name in ("one", "two"))
    assert len(one) == len(two)
    server.put("data/x.tar", one)
    server.put("data/x.tar.index", (tmp_path / "one.tar.index").read_bytes())
    read = {"on_error": policy, "shuffle": False, "batch_size": 1, "label": "cls"}
    expected = samples_of(make("s3://data/x.tar", **read))
    assert len(expected) == 7
    if kept == "published":
        server.put("data/x.tar", two)
    else:
        # A server that does not tell: it has no etags.
        server.objects["data/x.tar"] = two
    delivered = []
    with (
        Pipeline([make("s3://data/x.tar", **read)]) as pipeline,
        pytest.raises(
            ObjectChangedError, match=r"x\.tar is that of another tar: '000[245]\.\w+' is not at byte"
        ),
    ):
        delivered.extend(batch.keys[0] for batch in pipeline)
    assert {*delivered} <= {"0000", "0001"}
    # The types of the fields are those of the first sample.
    write_tar(tmp_path / "y.tar", pictures_of([7, 1, 2, 3, 4, 5, 9]))
    server.put("data/y.tar", (tmp_path / "y.tar").read_bytes())
    server.put("data/y.tar.index", (tmp_path / "one.tar.index").read_bytes())
    with pytest.raises(
        ObjectChangedError, match=r"y\.tar is that of another tar: '0000\.cls' is not at byte"
    ):
        make("s3://data/y.tar", **read)
    # Without the wrong index, all is right.
    del server.objects["data/x.tar.index"]
    right = samples_of(make("s3://data/x.tar", index_dir=tmp_path / "other", **read))
    local = samples_of(TarReader(tmp_path / "two.tar", 1, SHAPE, epochs=1, shuffle=False, label="cls"))
    assert right == local and len(local) == 7


def test_sources_of_a_mixture_tell_their_figures(make, server):
    halves = [make(f"s3://data/set/part-{numbers}.tar", epochs=None) for numbers in ("{00..01}", "{02..03}")]
    assert [half.fetched() for half in halves] == [None, None]
    for source in (Concat(halves, epochs=1), Mix([Concat([halves[0]]), halves[1]], epochs=1)):
        before = server.count()
        assert len(samples_of(source)) == COUNT
        figures = [half.fetched() for half in halves]
        assert sum(one["requests"] for one in figures) == server.count() - before
        assert all(one["fetched"] > 0 for one in figures)
    (sample,) = (name for name in server.objects if name.endswith("part-00.tar"))
    contents = bytearray(server.objects[sample])
    at = contents.find(b"\xff\xd8\xff")
    contents[at : at + 3] = b"bad"
    server.objects[sample] = bytes(contents)
    halves[0] = make("s3://data/set/part-{00..01}.tar", epochs=None, on_error="skip")
    assert len(samples_of(Concat(halves, epochs=1))) == COUNT - 1
    assert len(halves[0].errors) == 1 and halves[1].errors == []


def test_a_label_has_a_largest_size(make, monkeypatch):
    make()
    monkeypatch.setattr(tar_samples, "LARGEST_FILE", 0)
    with pytest.raises(DecodeError, match=r"\.cls' of 's3://.* has 1 bytes; allowed are 0"):
        make()


def test_the_window_of_the_order_is_shown(make):
    assert re.search(r", window=\d+", repr(make()))
    for options in ({"weights": [1] * COUNT}, {"shuffle": False}, {"window": "all"}):
        assert "window" not in repr(make(**options))


def test_large_members_are_not_read_for_an_index(server, make, tmp_path):
    big = jpeg_bytes(photograph(30, 40)) + bytes(300_000)
    members = [
        (f"{number:02}.{ending}", big if ending == "jpg" else b"1")
        for number in range(20)
        for ending in ("jpg", "cls")
    ]
    server.put("data/big.tar", write_tar(tmp_path / "big.tar", members).read_bytes())
    server.requests.clear()
    make("s3://data/big.tar")
    read = sum(
        (request.range[1] or 0) - request.range[0] for request in server.requests if request.range is not None
    )
    assert read < 20 * 10_000


@pytest.mark.parametrize("cut", [700, 5000, 20_000])
def test_a_tar_that_is_cut(server, make, cut):
    server.put("data/set/part-01.tar", server.objects["data/set/part-01.tar"][:cut])
    with pytest.raises(TarError, match=r"'s3://data/set/part-01.tar' is cut off"):
        make()


def test_missing_and_wrong_tars(server, make, tmp_path, tars):
    with pytest.raises(ReadError, match=r"s3://data/set/part-04\.tar"):
        make("s3://data/set/part-{03..04}.tar")
    with pytest.raises(ArgumentError, match="expected only local files, or only URLs"):
        make(["s3://data/set/part-00.tar", tars[0]])
    with pytest.raises(ArgumentError, match="expected at least twice as many bytes"):
        make(window=2, prefetch_bytes=1000)
    server.put("data/a.tar", gzip.compress(server.objects["data/set/part-00.tar"]))
    with pytest.raises(TarError, match=r"is compressed \(gzip\).*rename it to \.tar\.gz"):
        make("s3://data/a.tar")


def test_a_list_of_shards(server, make):
    names = [f"part-{number:02}.tar" for number in range(4)]
    shards = [{"url": name, "filesize": len(server.objects[f"data/set/{name}"])} for name in names]
    server.put("data/set/all.json", json.dumps({"wids_version": 1, "shardlist": shards}).encode())
    reader = make("s3://data/set/all.json")
    assert reader.paths == [f"s3://data/set/{name}" for name in names]
    assert len(samples_of(reader)) == COUNT


# Faults


@pytest.mark.parametrize(
    "fault",
    [Fault(reset=True), Fault(status=503), Fault(status=429), Fault(cut=100), Fault(short=10)],
    ids=["reset", "503", "429", "cut", "short"],
)
def test_transient_faults_lose_nothing(folder, server, make, fault):
    rng = random.Random(0)
    server.fault = lambda request: fault if request.method == "GET" and rng.random() < 0.3 else None
    found = samples_of(make(prefetch_bytes=40_000))
    assert found == samples_of(ImageFileReader(folder, 4, SHAPE, epochs=1))


def test_another_object_in_the_middle(server, make):
    reader = make(prefetch_bytes=20_000, shuffle=False, on_error="skip")
    with Pipeline([reader]) as pipeline:
        pipeline.dequeue()
        for number in range(4):
            key = f"data/set/part-{number:02}.tar"
            server.put(key, server.objects[key][:-1] + b"\1")
        with pytest.raises(ObjectChangedError):
            [pipeline.dequeue() for _ in range(COUNT)]


def test_a_server_that_is_gone(server, make, monkeypatch):
    monkeypatch.setattr(outages, "LIMIT", 0.5)
    reader = make(prefetch_bytes=20_000, on_error="skip")
    server.away = True
    with Pipeline([reader]) as pipeline, pytest.raises(StorageError):
        pipeline.dequeue()
