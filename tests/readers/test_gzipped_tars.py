"""TarReader with gzip'ed tars: the samples, the order and the states of the plain ones."""

import errno
import gzip
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest
from object_server import Fault, ObjectServer
from pictures import class_folders
from tars import shards_of_folder

from highway.engine import Pipeline
from highway.errors import ArgumentError, ObjectChangedError, ReadError, TarError, WriteError
from highway.modules import ImageFileReader, TarReader
from highway.storage import unpacked_tars
from highway.storage.cache import Cache, checks, ledger, room, whole_files
from highway.storage.objects import Object
from highway.transforms import RandomResizedCrop

SHAPE = (24, 32)
LIMIT = 200e6


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Four tars of class folders; and beside each the same one compressed."""
    root = class_folders(tmp_path_factory.mktemp("photos"), 4, 10)
    keys = [*ImageFileReader(root, 1, SHAPE).known_keys()]
    paths = shards_of_folder(root, keys, tmp_path_factory.mktemp("tars"), 4)
    for path in paths:
        with open(path, "rb") as file, open(path + ".gz", "wb") as packed:
            packed.write(gzip.compress(file.read()))
    return paths


@pytest.fixture(scope="module")
def packed(tars):
    return [path + ".gz" for path in tars]


@pytest.fixture
def unpackings(monkeypatch):
    """Names of the tars that were unpacked."""
    found = []
    original = unpacked_tars.gunzipped

    def counted(read, size, name, request):
        found.append(name)
        return original(read, size, name, request)

    monkeypatch.setattr(unpacked_tars, "gunzipped", counted)
    return found


def reader(paths, batch_size=7, **options):
    return TarReader(paths, batch_size, SHAPE, **{"fit": RandomResizedCrop(), "epochs": 2, **options})


def batches_of(module):
    with Pipeline([module]) as pipeline:
        return [(batch.keys, batch.images.tobytes(), batch.labels.tobytes()) for batch in pipeline]


@pytest.mark.parametrize(
    "options", [{}, {"shuffle": False}, {"window": 2}, {"shard": (1, 3), "seed": 5, "drop_last": True}]
)
def test_the_same_batches_as_from_plain_tars(tars, packed, options):
    expected = batches_of(reader(tars, **options))
    assert batches_of(reader(packed, **options)) == expected
    assert batches_of(reader([tars[0], packed[1], tars[2], packed[3]], **options)) == expected


def test_tgz_wildcards_and_lists(tars, packed, tmp_path):
    for path in packed:
        os.link(path, tmp_path / os.path.basename(path).replace(".tar.gz", ".TGZ"))
    expected = batches_of(reader(tars))
    assert batches_of(reader(tmp_path / "part-*.TGZ")) == expected
    shards = [{"url": path, "nsamples": 10, "filesize": os.path.getsize(path)} for path in packed]
    listing = tmp_path / "list.json"
    listing.write_text(json.dumps({"wids_version": 1, "shardlist": shards}))
    assert batches_of(reader(listing)) == expected
    shards[1]["filesize"] += 1
    listing.write_text(json.dumps({"wids_version": 1, "shardlist": shards}))
    with pytest.raises(TarError, match=r"part-01\.tar\.gz' has \d+ bytes, and its list says"):
        reader(listing)


def test_a_state_belongs_to_plain_and_compressed_tars(tars, packed):
    with Pipeline([reader(tars)]) as pipeline:
        for _ in range(3):
            pipeline.dequeue()
        state = pipeline.state_dict()
        expected = [pipeline.dequeue().images.tobytes() for _ in range(6)]
    with Pipeline([reader(packed)]) as pipeline:
        pipeline.load_state_dict(state)
        assert [pipeline.dequeue().images.tobytes() for _ in range(6)] == expected


def test_the_index_is_kept_and_made_again(packed, tmp_path, monkeypatch):
    from highway._core.tar import members

    made = []
    original = members.Members
    monkeypatch.setattr(members, "Members", lambda *given: made.append(given) or original(*given))
    expected = batches_of(reader(packed, index_dir=tmp_path))
    assert len(made) == 4
    assert batches_of(reader(packed, index_dir=tmp_path)) == expected
    assert len(made) == 4
    os.utime(packed[0], ns=(1, 1))
    reader(packed, index_dir=tmp_path)
    assert len(made) == 5


def test_a_cache_unpacks_once(tars, packed, tmp_path, unpackings):
    expected = batches_of(reader(tars))
    for _ in range(2):
        assert batches_of(reader(packed, cache=tmp_path / "cache", cache_bytes=LIMIT)) == expected
    assert len(unpackings) == 4
    assert checks.verify(str(tmp_path / "cache"), print) == (4, 0)
    os.utime(packed[1], ns=(2, 2))
    assert batches_of(reader(packed, cache=tmp_path / "cache")) == expected
    assert len(unpackings) == 5


def test_a_damaged_entry_is_found_and_made_again(tars, packed, tmp_path, unpackings):
    cache = tmp_path / "cache"
    expected = batches_of(reader(packed, cache=cache, cache_bytes=LIMIT))
    entries = [path for path in (cache / "entries").rglob("*") if path.is_file()]
    data = bytearray(entries[0].read_bytes())
    data[-1000] ^= 1
    entries[0].write_bytes(data)
    entries[1].write_bytes(b"HWENTRY" + bytes(100))
    bad = []
    assert checks.verify(str(cache), bad.append) == (4, 2)
    assert sorted(bad) == sorted(map(str, entries[:2]))
    entries[2].write_bytes(b"something else")
    assert batches_of(reader(packed, cache=cache)) == expected
    assert len(unpackings) == 7


def test_a_tar_in_use_does_not_leave_and_the_limit_holds(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(whole_files, "_MAKING_ROOM", 0.2)
    cache = tmp_path / "cache"

    def entries():
        return {path for path in (cache / "entries").rglob("*") if path.is_file()}

    def size():
        (text,) = (text for name, text in checks.describe(str(cache)) if name == "size")
        return float(text.split()[0]) * {"kB": 1000, "MB": 1_000_000}[text.split()[1]]

    made = reader(packed, cache=cache, cache_bytes=LIMIT)
    tars_in_it = entries()
    assert len(tars_in_it) == 4
    expected = batches_of(made)
    small = Cache(cache, 1 << 20, "other")
    filler = bytes(100_000)
    for number in range(40):
        small.put("store", Object(f"{number}", len(filler)), 0, len(filler), filler)
    assert tars_in_it < entries() and size() <= 1 << 20
    with pytest.raises(WriteError, match=r"has no room for an unpacked tar.*larger cache_bytes"):
        small.whole_files.kept("new", Object("x", 1), lambda: [bytes(2 << 20)])
    assert tars_in_it <= entries() and size() <= 1 << 20
    assert batches_of(made) == expected
    del made
    for number in range(40, 80):
        small.put("store", Object(f"{number}", len(filler)), 0, len(filler), filler)
    assert not tars_in_it & entries()


def test_pictures_stay_beside_a_large_tar_in_use(tmp_path, monkeypatch):
    cache = Cache(tmp_path / "cache", 4 << 20, "one")
    tar = cache.whole_files.kept("store", Object("tar", 5), lambda: [bytes(1 << 20)] * 3)
    left, number = [], 0
    original = room._has_left

    def counted(path):
        has_left = original(path)
        left.extend([path] * has_left)
        return has_left

    monkeypatch.setattr(room, "_has_left", counted)
    while not left:
        assert cache.put("store", Object(str(number), 3000), 0, 3000, bytes(3000))
        number += 1
    # A sixteenth of the pictures, not of all bytes.
    assert number > 200 and len(left) <= number // 16 + 1
    os.close(tar.file)


def test_a_cache_that_is_not_counted_yet_has_room(tmp_path, monkeypatch):
    cache = Cache(tmp_path / "cache", LIMIT, "one")
    monkeypatch.setattr(ledger, "_boot", lambda: b"another boot ...")

    def some(self, counts, end):
        for _ in range(100):
            if not counts.complete:
                shard = counts.first_unknown()
                counts.set(shard, self._scan(shard).cost)
        return counts.complete

    monkeypatch.setattr(room.Room, "_count", some)
    kept = cache.whole_files.kept("store", Object("x", 5), lambda: [b"abc"])
    assert os.pread(kept.file, 9, kept.start) == b"abc"
    os.close(kept.file)


def test_room_that_others_leave_is_taken(tmp_path):
    cache = Cache(tmp_path / "cache", 3 << 19, "one")
    waits = []
    with ExitStack() as other:
        assert other.enter_context(cache._room.draft(0, 1 << 20)) is not None

        def wait(seconds):
            waits.append(seconds)
            other.close()

        kept = cache.whole_files.kept("store", Object("x", 5), lambda: [b"abc"], wait)
    assert kept.size == 3 and waits[-1] > 0
    os.close(kept.file)


def test_two_at_the_same_time_unpack_once(tmp_path):
    caches = [Cache(tmp_path / "cache", LIMIT, "one") for _ in range(2)]
    begun, calls = threading.Event(), []

    def pieces():
        calls.append(1)
        begun.set()
        yield from (bytes([number]) * 100_000 for number in range(200))

    found = []

    def make(cache):
        found.append(cache.whole_files.kept("store", Object("x", 5), pieces))

    threads = [threading.Thread(target=make, args=(cache,)) for cache in caches]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert len(calls) == 1 and len(found) == 2
    for file, start, size in found:
        assert size == 20_000_000
        assert os.pread(file, 100_000, start + 19_900_000) == bytes([199]) * 100_000
        os.close(file)


_KILLED = """
import sys
from highway.storage.cache import Cache
from highway.storage.objects import Object

def pieces():
    for number in range(10_000):
        yield bytes(1 << 20)
        if number == 30:
            print("under way", flush=True)
            sys.stdin.read()

Cache(sys.argv[1], 64 << 20, "killed").whole_files.kept("store", Object("x", 5), pieces)
"""


def test_what_a_killed_process_unpacked_leaves_its_room(tmp_path):
    cache = tmp_path / "cache"
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, cache], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"under way\n"
        left = [path.stat().st_size for path in (cache / "entries").rglob("*.new")]
        assert len(left) == 1 and left[0] > 30 << 20
        process.kill()
        process.wait(60)
    kept = Cache(cache, 64 << 20, "next").whole_files.kept(
        "store", Object("x", 5), lambda: [b"z" * (1 << 20)] * 60
    )
    assert kept.size == 60 << 20
    os.close(kept.file)
    assert [*(cache / "entries").rglob("*.new")] == []
    assert checks.verify(str(cache), print) == (1, 0)


def test_an_error_ends_the_other_threads(packed, tmp_path):
    cache = Cache(tmp_path / "cache", LIMIT, "other")
    damaged = tmp_path / "a.tgz"
    damaged.write_bytes(b"damaged")
    held, done = threading.Event(), threading.Event()

    def pieces():
        held.set()
        assert done.wait(60)
        yield b"x"

    key = "gunzip file", Object(packed[0], os.path.getsize(packed[0]), str(os.stat(packed[0]).st_mtime_ns))
    thread = threading.Thread(target=lambda: os.close(cache.whole_files.kept(*key, pieces).file))
    thread.start()
    assert held.wait(60)
    begun = time.monotonic()
    # The first tar waits for the other thread, the second one raises.
    unpacking = unpacked_tars.unpacked_tars
    with pytest.raises(TarError, match="not compressed by gzip"):
        unpacking([str(damaged), packed[0]], "Reader", cache=cache)
    assert time.monotonic() - begun < 30
    done.set()
    thread.join(60)


def test_damaged_tars_name_the_shard_and_the_byte(packed, tmp_path):
    with open(packed[2], "rb") as file:
        data = file.read()
    path = tmp_path / "bad.tar.gz"
    path.write_bytes(data[:5000])
    with pytest.raises(TarError, match=r"bad\.tar\.gz' is cut off: it ends after 5000 bytes"):
        reader(path)
    path.write_bytes(data[:-8] + bytes(4) + data[-4:])
    with pytest.raises(TarError, match=r"bad\.tar\.gz' is damaged: its gzip data are wrong at byte \d+"):
        reader(path, cache=tmp_path / "cache", cache_bytes=LIMIT)
    assert checks.verify(str(tmp_path / "cache"), print) == (0, 0)
    path.write_bytes(gzip.compress(b"no tar" * 1000))
    with pytest.raises(TarError, match=r"bad\.tar\.gz' is damaged, or no tar: the header at byte 0"):
        reader(path)
    path.write_bytes(b"")
    with pytest.raises(TarError, match="is empty"):
        reader(path)
    with pytest.raises(ReadError, match=r"gone\.tar\.gz.*No such file"):
        reader(tmp_path / "gone.tar.gz")


def test_other_compressions_are_refused_by_name(tars, packed, tmp_path):
    for ending, tool in (
        (".tar.zst", "unzstd"),
        (".tar.xz", "unxz"),
        (".tar.bz2", "bunzip2"),
        (".tbz2", "bunzip2"),
    ):
        with pytest.raises(
            TarError, match=rf"a{re.escape(ending)}' is compressed .*unpack it once with {tool}"
        ):
            reader(tmp_path / f"a{ending}")
    named = tmp_path / "wrong.tar"
    os.link(packed[0], named)
    with pytest.raises(TarError, match=r"is compressed \(gzip\).*rename it to \.tar\.gz"):
        reader(named)
    twice = tmp_path / "twice.tgz"
    with open(packed[0], "rb") as file:
        twice.write_bytes(gzip.compress(file.read()))
    with pytest.raises(TarError, match=r"twice\.tgz' is compressed \(gzip\).*; unpack it once with gunzip"):
        reader(twice)
    plain = tmp_path / "wrong.tar.gz"
    os.link(tars[0], plain)
    with pytest.raises(TarError, match=r"is not compressed by gzip, as its name says"):
        reader(plain)


def test_a_full_disk(packed, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    Cache(tmp_path / "cache", LIMIT, "first")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(WriteError, match=r"cannot be unpacked into a temporary file in .*set TMPDIR"):
        reader(packed)
    with pytest.raises(WriteError, match=r"No space left.*free some space"):
        reader(packed, cache=tmp_path / "cache", cache_bytes=LIMIT)


def test_descriptors_are_closed(packed, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    made = reader(packed)
    batches_of(made)
    assert len(os.listdir("/proc/self/fd")) > before
    del made
    damaged = tmp_path / "a.tgz"
    damaged.write_bytes(b"damaged")
    with pytest.raises(TarError):
        reader([*packed, damaged])
    cached = reader(packed, cache=tmp_path / "cache", cache_bytes=LIMIT)
    del cached
    assert len(os.listdir("/proc/self/fd")) <= before


@pytest.fixture
def server(tars, packed):
    objects = {}
    for path in (*tars, *packed):
        with open(path, "rb") as file:
            objects[f"data/set/{os.path.basename(path)}"] = file.read()
    with ObjectServer(objects) as running:
        yield running


@pytest.mark.parametrize("cached", [False, True])
def test_tars_in_a_store(server, tmp_path, unpackings, cached):
    options = {"storage_options": server.options, "index_dir": tmp_path / "kept", "prefetch_bytes": 100_000}
    expected = batches_of(reader("s3://data/set/part-{00..03}.tar", **options))
    if cached:
        options |= {"cache": tmp_path / "cache", "cache_bytes": LIMIT}
    for _ in range(2):
        assert batches_of(reader("s3://data/set/part-{00..03}.tar.gz", **options)) == expected
    assert len(unpackings) == (4 if cached else 8)
    with pytest.raises(ArgumentError, match="only plain or only gzip'ed tars at URLs"):
        reader(["s3://data/set/part-00.tar", "s3://data/set/part-01.tar.gz"], **options)


def test_faults_of_a_store(tars, server, tmp_path, monkeypatch):
    monkeypatch.setattr(unpacked_tars, "_REQUEST", 4000)
    given = {"storage_options": server.options, "window": "all"}
    expected = batches_of(reader(tars))
    rng = random.Random(1)
    kinds = [Fault(reset=True), Fault(status=503), Fault(cut=100), Fault(short=10)]
    server.fault = lambda request: (
        rng.choice(kinds) if request.method == "GET" and rng.random() < 0.2 else None
    )
    made = reader("s3://data/set/part-{00..03}.tar.gz", index_dir=tmp_path / "kept", **given)
    server.fault = lambda request: None
    assert batches_of(made) == expected
    # Another object under the same name, in the middle.
    begun = []

    def changing(request):
        if request.method == "GET" and request.range and request.range[0] >= 4000 and not begun:
            begun.append(request)
            server.put("data/set/part-00.tar.gz", server.objects["data/set/part-01.tar.gz"])

    server.fault = changing
    with pytest.raises(ObjectChangedError, match=r"part-00\.tar\.gz changed"):
        reader("s3://data/set/part-00.tar.gz", index_dir=tmp_path / "other", **given)
    assert begun
