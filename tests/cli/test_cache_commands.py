"""highway index and highway cache: what they print, and what they leave."""

import os
import re
from pathlib import Path

import pytest
from commands import run
from object_server import Fault, ObjectServer

from highway.storage.bucket_index import BucketIndex
from highway.storage.cache import Cache
from highway.storage.objects import Object

LIMIT = 1 << 20


@pytest.fixture
def cache(tmp_path):
    """A cache with three entries."""
    made = Cache(tmp_path / "cache", LIMIT, "Reader")
    for name in "abc":
        assert made.put("s3://bucket", Object(name, 5000), 0, 5000, name.encode() * 5000)
    return made


def entries(cache):
    return sorted(path for path in Path(cache.directory).rglob("*") if len(path.name) == 30)


# highway cache


def test_info(capsys, cache):
    os.utime(entries(cache)[0], (1, 1))
    index = Path(cache.directory, "indexes", "0123.index")
    BucketIndex.of("s3://bucket", "", []).save(str(index), "test")
    code, output, errors = run(capsys, "cache", "info", cache.directory)
    assert (code, errors) == (0, "")
    facts = dict(re.split(" {2,}", line, maxsplit=1) for line in output.splitlines())
    assert facts.pop("least recent use").endswith(" days ago")
    assert re.fullmatch(r"\d+ seconds ago", facts.pop("last use"))
    assert facts == {
        "kind": "a cache",
        "entries": "3",
        "size": "24.6 kB",
        "limit": "1.0 MB (2.3% in use)",
        "indexes": f"1, {index.stat().st_size} bytes",
    }


def test_verify(capsys, cache):
    assert run(capsys, "cache", "verify", cache.directory) == (
        0,
        f"{cache.directory}: 3 entries, none of them damaged\n",
        "",
    )
    damaged, misplaced, sound = entries(cache)
    contents = bytearray(damaged.read_bytes())
    contents[-1] ^= 1
    damaged.write_bytes(contents)
    # A sound entry in a place where another one belongs.
    moved = misplaced.with_name("0" * 30)
    misplaced.rename(moved)
    code, output, errors = run(capsys, "cache", "verify", cache.directory)
    assert (code, errors) == (1, "")
    *bad, last = output.splitlines()
    assert sorted(bad) == sorted(f"{path} was damaged, and is removed" for path in (damaged, moved))
    assert last == f"{cache.directory}: 3 entries, 2 of them damaged"
    assert entries(cache) == [sound]
    assert run(capsys, "cache", "verify", cache.directory)[0] == 0


def test_clear(capsys, cache):
    index = Path(cache.directory, "indexes", "0123.index")
    BucketIndex.of("s3://bucket", "", []).save(str(index), "test")
    strange = Path(cache.directory, "notes.txt")
    strange.touch()
    code, output, errors = run(capsys, "cache", "clear", cache.directory)
    assert (code, output, errors) == (0, f"{cache.directory}: removed 3 entries, 24,576 bytes\n", "")
    assert sorted(os.listdir(cache.directory)) == ["cache.state", "notes.txt"]
    # Those who use it go on.
    assert cache.put("s3://bucket", Object("a", 3), 0, 3, b"abc")
    assert cache.get("s3://bucket", Object("a", 3), 0, 3) == b"abc"
    assert Cache(cache.directory, None, "Reader").max_bytes == LIMIT


@pytest.mark.parametrize("command", ["info", "verify", "clear"])
def test_other_folders_are_left_alone(capsys, tmp_path, command):
    (tmp_path / "entries").mkdir()
    for folder, said in (
        (tmp_path, "is no cache of Highway: it has no file cache.state"),
        (tmp_path / "absent", "does not exist; expected the folder of a cache"),
    ):
        code, output, errors = run(capsys, "cache", command, folder)
        assert (code, output) == (1, "")
        assert errors == f"highway: '{folder}' {said}\n"
    assert os.listdir(tmp_path) == ["entries"]


# highway index


@pytest.fixture
def server():
    pytest.importorskip("obstore")
    with ObjectServer({f"data/train/{number}.jpg": bytes(10) for number in range(12)}) as running:
        yield running


def options(server):
    return [f"--storage-option={name}={value}" for name, value in server.options.items()]


@pytest.mark.parametrize("place", ["output", "cache"])
def test_index_is_written_once(capsys, tmp_path, server, place):
    where = ["-o", tmp_path / "train.index"] if place == "output" else ["--cache", tmp_path]
    words = ["index", "s3://data/train/", *where, *options(server)]
    code, output, errors = run(capsys, *words)
    (path,) = tmp_path.rglob("*.index")
    assert (code, errors) == (0, "")
    assert re.fullmatch(rf"{path}: 12 objects, 120 bytes, listed in \d+\.\d s\n", output)
    before = len(server.requests)
    code, output, errors = run(capsys, *words)
    assert (code, errors) == (0, "")
    assert re.fullmatch(
        rf"{path}: 12 objects, 120 bytes, of \d{{4}}-\d\d-\d\d \d\d:\d\d \(--refresh lists again\)\n", output
    )
    assert len(server.requests) == before
    server.put("data/train/new.jpg", bytes(5))
    code, output, errors = run(capsys, *words, "--refresh")
    assert (code, errors) == (0, "") and f"{path}: 13 objects, 125 bytes, listed in" in output


def test_index_of_a_bucket_that_is_not_there(capsys, tmp_path, server):
    server.fault = lambda request: Fault(status=404)
    code, output, errors = run(capsys, "index", "s3://data/train", "-o", tmp_path / "index", *options(server))
    assert (code, output) == (1, "")
    assert errors.startswith("highway: index: s3://data/train") and errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_index_needs_a_url(capsys, tmp_path):
    code, output, errors = run(capsys, "index", tmp_path, "-o", tmp_path / "index")
    assert (code, output) == (1, "")
    assert (
        f"URL is '{tmp_path}'; expected one of a bucket or a folder in it, such as s3://BUCKET/FOLDER"
        in errors
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["index", "s3://data"], "one of the arguments -o/--output --cache is required"),
        (["index", "s3://data", "-o", "a", "--cache", "b"], "not allowed with argument"),
        (["index", "s3://data", "-o", "a", "--storage-option", "region"], "'region' is not NAME=VALUE"),
        (["cache", "info"], "the following arguments are required: DIR"),
        (["cache", "verfy", "a"], "did you mean verify?"),
    ],
)
def test_wrong_usage(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        run(capsys, *words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_an_index_of_nothing_is_refused(capsys, tmp_path):
    code, _, errors = run(capsys, "index", "memory://nothing-here", "-o", str(tmp_path / "one.index"))
    assert code == 1 and "'memory://nothing-here' has no objects; check the bucket and the folder" in errors
    assert not (tmp_path / "one.index").exists()
