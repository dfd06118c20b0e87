"""Indexes of buckets: what a listing found, in one file, or a typed error."""

import json
import os
import random
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from object_server import Fault, ObjectServer

from highway._core.records.checksum import crc32c
from highway.errors import BucketIndexError, ReadError, WriteError
from highway.storage.bucket_index import BucketIndex, indexed, path_in_cache
from highway.storage.object_store import ObjectStore
from highway.storage.objects import Object
from highway.storage.opening import open_store

URL = "s3://data"


def objects(count):
    draw = random.Random(count)
    return [
        Object(
            f"train/c{number % 7}/{draw.randrange(10**9)}-{number}.jpg",
            draw.randrange(2**40),
            f'"{number:x}"',
        )
        for number in range(count)
    ]


def by_name(found):
    return sorted(found, key=lambda each: each.name.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_all_objects_come_back_sorted(tmp_path, count):
    path = str(tmp_path / "folder" / "index")
    made = BucketIndex.of(URL, "train", objects(count))
    made.save(path, "Reader")
    index = BucketIndex.load(path, "Reader")
    expected = by_name(objects(count))
    for each in (made, index):
        assert len(each) == count
        assert list(each) == expected
        assert each[:] == expected and each[-3:] == expected[-3:]
        assert [each[number] for number in range(-count, count)] == expected + expected
        for number in (count, -count - 1):
            with pytest.raises(IndexError):
                each[number]
    assert (index.url, index.prefix, index.made) == (made.url, made.prefix, made.made)
    assert index.sizes.dtype == np.int64


def test_any_name_but_one_with_a_zero_byte(tmp_path):
    path = str(tmp_path / "index")
    odd = [Object("", 0), Object("\udcff/\n", 1, "é"), Object("z" * 5000, 2**62, ""), Object("ü", -1)]
    BucketIndex.of(URL, "", odd).save(path, "Reader")
    assert list(BucketIndex.load(path, "Reader")) == by_name(odd)
    assert list(BucketIndex.of(URL, "", [Object("", 3)])) == [Object("", 3)]
    with pytest.raises(BucketIndexError, match="no zero byte"):
        BucketIndex.of(URL, "", [Object("a\0b", 1)])


def test_objects_of_a_folder():
    names = ["a", "a-b/x", "a/", "a/x", "a/y/z", "a0", "b/x"]
    index = BucketIndex.of(URL, "", [Object(name, 1) for name in names])
    assert [index[number].name for number in index.within("a")] == ["a/", "a/x", "a/y/z"]
    assert [index[number].name for number in index.within("/a/y/")] == ["a/y/z"]
    assert index.within("") == range(7) and not index.within("c") and not index.within("a/x")


@pytest.mark.parametrize(
    ("url", "prefix", "covered"),
    [
        ("s3://data", "train", True),
        ("s3://data", "train/a/b/", True),
        ("s3://data", "", False),
        ("s3://data", "training", False),
        ("s3://data2", "train", False),
    ],
)
def test_what_an_index_covers(url, prefix, covered):
    assert BucketIndex.of(URL, "train", []).covers(url, prefix) == covered
    assert BucketIndex.of(URL, "", []).covers(url, prefix) == (url == URL)


def test_hundred_thousand_objects_take_few_bytes(tmp_path):
    path = tmp_path / "index"
    draw = random.Random(1)
    found = [
        Object(
            f"imagenet/train/n{number // 1300:08}/n{number // 1300:08}_{number}.JPEG",
            10**5,
            f"{draw.randrange(2**128):032x}",
        )
        for number in range(100_000)
    ]
    BucketIndex.of(URL, "", found).save(str(path), "Reader")
    assert path.stat().st_size < 100_000 * 30
    index = BucketIndex.load(str(path), "Reader")
    assert len(index) == 100_000 and index[77_777] == by_name(found)[77_777]


# Files that are no index


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "index"
    BucketIndex.of(URL, "train", objects(50)).save(str(path), "Reader")
    return path


def test_file_cut_off_anywhere_is_refused(file):
    whole = file.read_bytes()
    for size in [*range(40), *range(40, len(whole), 37), len(whole) - 1]:
        file.write_bytes(whole[:size])
        with pytest.raises(
            BucketIndexError, match=f"Reader: {file} is (no index of Highway|damaged or cut off)"
        ):
            BucketIndex.load(str(file), "Reader")


def test_any_flipped_bit_is_found(file):
    whole = file.read_bytes()
    for place in [*range(40), *range(40, len(whole), 29)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises(BucketIndexError):
            BucketIndex.load(str(file), "Reader")


@pytest.mark.parametrize("contents", [b"", b"HWINDEX", b"{}" * 100, bytes(1000), os.urandom(1000)])
def test_garbage_is_refused(file, contents):
    file.write_bytes(contents)
    with pytest.raises(
        BucketIndexError, match="is no index of Highway; expected one that highway index wrote"
    ):
        BucketIndex.load(str(file), "Reader")


def test_newer_version_is_refused(file):
    whole = file.read_bytes()
    file.write_bytes(whole[:7] + b"\x02" + whole[8:])
    with pytest.raises(BucketIndexError, match="has version 2 of its format; this Highway knows version 1"):
        BucketIndex.load(str(file), "Reader")


@pytest.mark.parametrize(
    "change",
    [
        {"objects": 49},
        {"objects": -1},
        {"names": [10, 10]},
        {"sizes": [5, 1 << 40]},
        {"names": [10, -1]},
        {"names": [10, "x"]},
        {"more": 1},
        {"made": 1e300},
        {"made": "today"},
        {"url": None},
        {"prefix": 7},
        {"etags": None},
    ],
)
def test_wrong_descriptions_with_right_checksums_are_refused(file, change):
    whole = file.read_bytes()
    (length,) = struct.unpack_from("<I", whole, 12)
    described = json.dumps(json.loads(whole[16 : 16 + length]) | change).encode()
    rest = struct.pack("<I", len(described)) + described + whole[16 + length :]
    file.write_bytes(whole[:8] + struct.pack("<I", crc32c(rest, 0)) + rest)
    with pytest.raises(BucketIndexError, match="is no valid index"):
        BucketIndex.load(str(file), "Reader")


@pytest.mark.parametrize(
    ("objects", "names", "sizes"),
    [(1, 1 << 30, 8), (1 << 27, 1 << 28, 1 << 30), (50, 1000, 1 << 30), (1 << 20, 1 << 21, 1 << 23)],
)
def test_no_more_is_asked_for_than_a_file_of_its_size_may_hold(file, objects, names, sizes):
    """All of it is there: zeros, of which a thousand take a byte."""
    blocks = [zlib.compress(bytes(size), 9) for size in (min(names, 1 << 24), 3, min(sizes, 1 << 24))]
    lengths = [[len(block), size] for block, size in zip(blocks, (names, 3, sizes), strict=True)]
    whole = file.read_bytes()
    (length,) = struct.unpack_from("<I", whole, 12)
    described = json.loads(whole[16 : 16 + length]) | dict(
        zip(("names", "etags", "sizes"), lengths, strict=True), objects=objects
    )
    described = json.dumps(described).encode()
    rest = b"".join([struct.pack("<I", len(described)), described, *blocks])
    file.write_bytes(whole[:8] + struct.pack("<I", crc32c(rest, 0)) + rest)
    tracemalloc.start()
    try:
        with pytest.raises(BucketIndexError, match=r"do not fit in \d+ bytes|have \d+ bytes of sizes"):
            BucketIndex.load(str(file), "Reader")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_what_hardly_takes_any_bytes_is_read_back(tmp_path):
    path = str(tmp_path / "index")
    found = [Object("a" * 4000 + f"/{number:04}", 7) for number in range(3000)]
    BucketIndex.of(URL, "", found).save(path, "Reader")
    assert list(BucketIndex.load(path, "Reader")) == found


def test_no_more_is_decompressed_than_described(file):
    whole = file.read_bytes()
    (length,) = struct.unpack_from("<I", whole, 12)
    described = json.loads(whole[16 : 16 + length])
    bomb = zlib.compress(bytes(50 << 20), 9)
    described["names"][0] = len(bomb)
    described = json.dumps(described).encode()
    rest = struct.pack("<I", len(described)) + described + bomb + whole[16 + length :]
    file.write_bytes(whole[:8] + struct.pack("<I", crc32c(rest, 0)) + rest)
    with pytest.raises(BucketIndexError, match=r"a block has .* bytes; expected"):
        BucketIndex.load(str(file), "Reader")


def test_files_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(ReadError, match=r"Reader: the index .*absent cannot be read: No such file"):
        BucketIndex.load(str(tmp_path / "absent"), "Reader")
    with pytest.raises(ReadError, match="is no regular file"):
        BucketIndex.load(str(tmp_path), "Reader")
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"Reader: .* cannot be written"):
        BucketIndex.of(URL, "", []).save(str(tmp_path / "file" / "index"), "Reader")


# Listings


@pytest.fixture
def server():
    pytest.importorskip("obstore")
    bodies = {f"data/{each.name}": b"x" * (1 + number) for number, each in enumerate(objects(30))}
    with ObjectServer(bodies | {"data/other/a.jpg": b"y"}, page=7) as running:
        yield running


def test_bucket_is_listed_once(server, tmp_path):
    store = open_store(URL, "Reader", server.options)
    path = path_in_cache(str(tmp_path), store, "train/")
    assert path == path_in_cache(str(tmp_path), store, "train") != path_in_cache(str(tmp_path), store, "")
    first = indexed(store, "train/", path)
    assert len(first) == 30 and list(first) == by_name(store.list("train"))
    before = len(server.requests)
    server.put("data/train/new.jpg", b"new")
    assert list(indexed(store, "train", path)) == list(first)
    assert len(server.requests) == before
    again = indexed(store, "train", path, refresh=True)
    assert len(again) == 31 and len(indexed(store, "train", path)) == 31
    assert [path] == [os.path.join(folder, name) for folder, _, names in os.walk(tmp_path) for name in names]


def test_a_million_objects_are_listed_once(tmp_path):
    class Store(ObjectStore):
        pages_given = 0

        def pages(self, prefix, after):
            for page in range(1000):
                self.pages_given += 1
                yield [
                    Object(
                        f"train/n{page:04}/{page:04}_{number:03}.jpg",
                        1000 + number,
                        f"{page * 1000 + number:032x}",
                    )
                    for number in range(1000)
                ]

    path = tmp_path / "index"
    store = Store(URL, "Reader")
    assert len(indexed(store, "train", str(path))) == 1_000_000
    assert path.stat().st_size < 30e6
    again = indexed(store, "train", str(path))
    assert store.pages_given == 1000
    assert again[123_456] == Object("train/n0123/0123_456.jpg", 1456, f"{123_456:032x}")
    numbers = again.within("train/n0500")
    assert (numbers[0], len(numbers)) == (500_000, 1000)
    # As bytes: not a million objects of Python.
    assert len(again._names.text) + len(again._etags.text) + again.sizes.nbytes < 80e6


def test_index_of_another_bucket_is_refused(server, tmp_path):
    store = open_store(URL, "Reader", server.options)
    path = str(tmp_path / "index")
    indexed(store, "train/c1", path)
    with pytest.raises(
        BucketIndexError,
        match=r"Reader: .* is the index of s3://data/train/c1; expected one of s3://data/train",
    ):
        indexed(store, "train", path)
    assert len(indexed(store, "train/c1/deeper", path).within("train/c1/deeper")) == 0


def test_failed_listing_leaves_the_index(server, tmp_path):
    store = open_store(URL, "Reader", server.options)
    path = str(tmp_path / "index")
    indexed(store, "train", path)
    server.fault = lambda request: Fault(status=403) if "continuation-token" in request.query else None
    with pytest.raises(ReadError):
        indexed(store, "train", path, refresh=True)
    assert len(BucketIndex.load(path, "Reader")) == 30
    assert os.listdir(tmp_path) == ["index"]
