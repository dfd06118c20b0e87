"""Readers of URLs with a cache and an index: the samples of a folder, and no request for what is on the local disk."""

import errno
import os
import pickle
from pathlib import Path

import pytest
from cache_users import in_folder
from every_sample import samples
from numbered_photographs import make_photographs
from object_server import ObjectServer, folder_objects
from PIL import Image
from voc_folders import annotation, thing, voc_folder

from highway.cli import main
from highway.engine import Pipeline
from highway.errors import ArgumentError, BucketIndexError, ObjectChangedError
from highway.modules import Encoded, ImageFileReader, ListReader, VOCReader
from highway.storage.cache import Cache
from highway.storage.objects import Object
from highway.transforms import RandomResizedCrop

# They count requests.
pytestmark = pytest.mark.usefixtures("no_hedges")

COUNT = 30
SHAPE = (24, 32)
LIMIT = 20e6
JOB = {"fit": RandomResizedCrop(), "epochs": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs")
    make_photographs(root / "photos", range(COUNT))
    for path in sorted((root / "photos").rglob("*.jpg")):
        mask = (root / "masks" / path.relative_to(root / "photos")).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            Image.new("L", picture.size, int(path.stem)).save(mask)
    voc_folder(
        root / "voc",
        {f"n{number}": annotation(thing("dog" if number % 2 else "cat")) for number in range(12)},
    )
    return root


@pytest.fixture
def server(folder):
    with ObjectServer(folder_objects(folder), page=10) as running:
        yield running


@pytest.fixture
def options(server, tmp_path):
    return {"storage_options": server.options, "cache": tmp_path / "cache", "cache_bytes": LIMIT}


def reader(options, **arguments):
    return ImageFileReader("s3://data/photos", 7, SHAPE, **{**JOB, **options, **arguments})


def entries(folder):
    return sorted(path for path in Path(folder).rglob("*") if len(path.name) == 30)


def test_pictures_and_masks_are_those_of_the_folder_and_come_once(folder, server, options):
    local = ImageFileReader(folder / "photos", 7, SHAPE, masks_dir=folder / "masks", seed=1, **JOB)
    expected = samples(local)
    first = reader(options, masks_dir="s3://data/masks", seed=1)
    assert samples(first) == expected
    assert server.per_key() == {
        key: 1 for key in server.objects if key.startswith(("data/photos/", "data/masks/"))
    }
    assert len(entries(options["cache"])) == 2 * COUNT
    server.requests.clear()
    again = reader(options, masks_dir="s3://data/masks", seed=1)
    assert samples(again) == expected
    # Neither for the listing, nor for any sample; nor for another order.
    other = reader({**options, "cache_bytes": None}, seed=2, shard=(1, 2), drop_last=True)
    assert len(samples(other)) > COUNT / 2
    assert server.requests == []
    assert again.fetched()["requests"] == again.fetched()["fetched"] == 0
    bodies = [body for key, body in server.objects.items() if key.startswith(("data/photos/", "data/masks/"))]
    assert again.fetched()["cached"] == 2 * sum(map(len, bodies))


def test_voc_sets_are_those_of_the_folder(folder, server, options):
    expected = samples(VOCReader(folder / "voc", 5, SHAPE, epochs=2))
    assert samples(VOCReader("s3://data/voc", 5, SHAPE, epochs=2, **options)) == expected
    server.requests.clear()
    again = VOCReader("s3://data/voc", 5, SHAPE, epochs=2, **options)
    assert samples(again) == expected
    # Annotations and lists too.
    assert server.requests == []


def test_lists_of_urls_and_files(folder, server, options):
    names = sorted((folder / "photos").rglob("*.jpg"))
    mixed = [
        path if number % 2 else f"s3://data/{path.relative_to(folder).as_posix()}"
        for number, path in enumerate(names)
    ]
    labels = list(range(COUNT))
    expected = samples(ListReader(names, labels, 7, SHAPE, **JOB))
    expected = [expected[key] for key in sorted(expected, key=lambda key: (key[0], Path(key[1]).name))]
    for _ in range(2):
        found = samples(ListReader(mixed, labels, 7, SHAPE, **JOB, **options))
        assert [found[key] for key in sorted(found, key=lambda key: (key[0], Path(key[1]).name))] == expected
    # What is local is not copied. The others are asked for their etags by each run.
    assert len(entries(options["cache"])) == COUNT // 2
    assert server.count() == COUNT // 2


def test_encoded_reads_through_the_cache(server, options):
    for _ in range(2):
        with Pipeline([Encoded(reader(options, epochs=1, shuffle=False), "original")]) as pipeline:
            found = [bytes(image) for batch in pipeline for image in batch.images]
        bodies = [body for key, body in sorted(server.objects.items()) if key.startswith("data/photos/")]
        assert found == bodies
    assert server.count() == COUNT


def test_a_pickled_reader_uses_the_same_cache(server, options):
    first = reader(options)
    expected = samples(first)
    server.requests.clear()
    other = pickle.loads(pickle.dumps(first))
    assert other == first and samples(other) == expected
    assert server.requests == []


def test_small_cache_keeps_its_limit(folder, server, options):
    expected = samples(ImageFileReader(folder / "photos", 7, SHAPE, **JOB))
    limit = 1 << 20
    small = Cache(options["cache"], limit, "test")
    filler = limit - 20 * 4096
    key = "other", Object("filler", filler), 0, filler
    assert small.put(*key, bytes(filler))
    assert samples(reader({**options, "cache_bytes": limit})) == expected
    assert in_folder(options["cache"])[0] <= limit


def test_full_disk_changes_nothing(folder, server, options, monkeypatch, caplog):
    expected = samples(ImageFileReader(folder / "photos", 7, SHAPE, **JOB))
    through = reader(options)
    replace = os.replace

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    monkeypatch.setattr(os, "replace", lambda *paths: full() if "indexes" in paths[1] else replace(*paths))
    (index,) = Path(options["cache"]).rglob("*.index")
    index.unlink()
    server.requests.clear()
    assert samples(through) == samples(reader(options)) == expected
    monkeypatch.undo()
    assert sum(request.lists for request in server.requests) == -(-COUNT // 10)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    # Each reader says it once; the second one could not keep the listing either.
    assert sum("cannot be written" in text for text in warnings) == len(warnings) == 3
    assert entries(options["cache"]) == []


# Indexes


def test_index_file_is_made_and_used(server, options, tmp_path):
    index = tmp_path / "photos.index"
    plain = {"storage_options": server.options, "index": index}
    first = reader(plain)
    assert index.is_file()
    server.requests.clear()
    server.put("data/photos/class0/new.jpg", server.objects["data/photos/class0/00.jpg"])
    second = reader(plain)
    assert second.size == COUNT and second.fingerprint() == first.fingerprint()
    assert server.requests == []
    words = [f"--storage-option={name}={value}" for name, value in server.options.items()]
    assert main(["index", "s3://data/photos", "-o", str(index), "--refresh", *words]) == 0
    assert reader(plain).size == COUNT + 1


def test_index_of_more_serves_a_folder(server, tmp_path):
    index = tmp_path / "all.index"
    words = [f"--storage-option={name}={value}" for name, value in server.options.items()]
    assert main(["index", "s3://data", "-o", str(index), *words]) == 0
    server.requests.clear()
    found = reader({"storage_options": server.options, "index": index})
    assert found.size == COUNT and found.classes == ["class0", "class1", "class2"]
    voc = VOCReader("s3://data/voc", 5, SHAPE, storage_options=server.options, index=index)
    assert voc.size == 12
    assert not any(request.lists for request in server.requests)


def test_changed_object_is_noticed_until_the_index_is_made_again(server, options):
    samples(reader(options))
    server.put("data/photos/class0/00.jpg", server.objects["data/photos/class1/01.jpg"])
    # The bytes of the listed version are here.
    server.requests.clear()
    samples(reader(options))
    assert server.requests == []
    (entry,) = [
        path for path in entries(options["cache"]) if b"photos/class0/00.jpg" in path.read_bytes()[:200]
    ]
    entry.unlink()
    with pytest.raises(ObjectChangedError, match="after highway index --refresh"):
        samples(reader(options))
    words = [f"--storage-option={name}={value}" for name, value in server.options.items()]
    assert main(["index", "s3://data/photos", "--cache", str(options["cache"]), "--refresh", *words]) == 0
    assert len(samples(reader(options))) == 2 * COUNT


def test_damaged_index_file_is_an_error_and_in_a_cache_it_is_made_again(server, options, tmp_path, caplog):
    reader(options)
    (index,) = Path(options["cache"]).rglob("*.index")
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(BucketIndexError, match="is damaged or cut off"):
        reader({"storage_options": server.options, "index": index})
    server.requests.clear()
    assert reader(options).size == COUNT
    assert "is damaged or cut off" in caplog.text and "the store is listed" in caplog.text
    assert any(request.lists for request in server.requests)
    server.requests.clear()
    assert reader(options).size == COUNT and server.requests == []


def test_arguments_are_checked(folder, server, options, tmp_path):
    with pytest.raises(
        ArgumentError, match="cache_bytes is 5000000 without cache; expected the folder in cache"
    ):
        ImageFileReader(folder / "photos", 7, SHAPE, cache_bytes=5_000_000)
    with pytest.raises(ArgumentError, match="a new one needs a limit"):
        reader({**options, "cache_bytes": None})
    with pytest.raises(ArgumentError, match="cache is 7; expected a path"):
        ImageFileReader(folder / "photos", 7, SHAPE, cache=7, cache_bytes=LIMIT)
    with pytest.raises(ArgumentError, match="index is 7; expected a path"):
        reader(options, index=7)
    (tmp_path / "text").write_text("text")
    with pytest.raises(BucketIndexError, match="is no index of Highway"):
        reader(options, index=tmp_path / "text")
