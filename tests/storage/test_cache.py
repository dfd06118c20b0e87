"""The cache on the local disk: right bytes or none, a limit that holds, and a place that many processes share."""

import errno
import fcntl
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import cache_users
import pytest
from cache_users import bytes_of, in_folder, key_of

from highway.errors import ArgumentError, StoreError, WriteError
from highway.storage.access import cache_at
from highway.storage.cache import Cache, checks, ledger, room
from highway.storage.cache.entries import SHARDS, cost_of, path_of
from highway.storage.cache.entries import key_of as packed
from highway.storage.cache.ledger import Ledger
from highway.storage.objects import Object

LIMIT = 1 << 20
# Nine entries of this many bytes take less than the limit, ten take more.
PART = 110_000


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache", LIMIT, "Reader")


def key(name, size=PART, etag="e"):
    return "s3://bucket", Object(name, size, etag), 0, size


def path(cache, key):
    return Path(path_of(os.path.join(cache.directory, "entries"), packed(*key))[1])


def contents(name, size=PART):
    return (name.encode() * size)[:size]


def fill(cache, names):
    """Add entries, each used one second after the one before, an hour ago."""
    for number, name in enumerate(names):
        assert cache.put(*key(name), contents(name))
        os.utime(path(cache, key(name)), (1e9 + number, 1e9 + number))


def test_a_url_is_no_folder():
    with pytest.raises(
        ArgumentError, match="Reader: cache is 'memory://c'; expected a folder of this machine"
    ):
        cache_at("Reader", "memory://c", LIMIT)


# Bytes


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 300_001])
def test_what_was_added_is_found(cache, size):
    assert cache.get(*key("a", size)) is None and not cache.has(*key("a", size))
    assert cache.put(*key("a", size), contents("ab", size))
    assert cache.get(*key("a", size)) == contents("ab", size)
    assert cache.has(*key("a", size))
    # From any kind of buffer, and a second time.
    assert cache.put(*key("b", size), memoryview(bytearray(contents("b", size))))
    assert cache.put(*key("b", size), contents("b", size))
    assert cache.get(*key("b", size)) == contents("b", size)
    there, counted = in_folder(cache.directory)
    assert there == counted


@pytest.mark.parametrize(
    "other",
    [
        ("s3://bucket2", Object("a", 10, "e"), 2, 6),
        ("s3://bucket", Object("b", 10, "e"), 2, 6),
        ("s3://bucket", Object("a", 10, "f"), 2, 6),
        ("s3://bucket", Object("a", 11, "e"), 2, 6),
        ("s3://bucket", Object("a", 10, "e"), 1, 5),
        ("s3://bucket", Object("a", 10, "e"), 2, 7),
        # The same characters, divided in another way.
        ("s3://bucke", Object("ta", 10, "e"), 2, 6),
        ("s3://bucket", Object("ae", 10, ""), 2, 6),
    ],
)
def test_another_object_version_or_range_is_another_entry(cache, other):
    assert cache.put("s3://bucket", Object("a", 10, "e"), 2, 6, b"1234")
    assert not cache.has(*other) and cache.get(*other) is None


def test_names_need_not_be_valid_text(cache):
    odd = key("a\udcff\n\0b", 3)
    assert cache.put(*odd, b"odd")
    assert cache.get(*odd) == b"odd"


def test_wrong_number_of_bytes_is_refused(cache):
    with pytest.raises(ValueError, match="10 bytes, not 3"):
        cache.put(*key("a", 10), b"abc")


def test_an_entry_in_the_place_of_another_is_not_taken_for_it(cache, caplog):
    fill(cache, "ab")
    os.replace(path(cache, key("a")), path(cache, key("b")))
    assert cache.get(*key("b")) is None
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("place", [0, 7, 8, 11, 12, 13, 15, 16, 40, 5000, -1])
@pytest.mark.parametrize("bit", [0, 7])
def test_flipped_bit_is_found_and_the_entry_is_dropped(cache, caplog, place, bit):
    fill(cache, "ab")
    file = path(cache, key("a"))
    damaged = bytearray(file.read_bytes())
    damaged[place] ^= 1 << bit
    file.write_bytes(damaged)
    assert cache.get(*key("a")) is None
    assert cache.get(*key("b")) == contents("b")
    assert not file.exists()
    assert [record.getMessage() for record in caplog.records] == [
        f"Reader: cache: {file} is damaged; such entries are fetched again (highway cache verify {cache.directory} "
        "finds all of them)"
    ]
    there, counted = in_folder(cache.directory)
    assert there == counted
    assert cache.put(*key("a"), contents("a")) and cache.get(*key("a")) == contents("a")


@pytest.mark.parametrize("more", [-1, 1, -PART, 1 << 40])
def test_shorter_and_longer_files_are_found(cache, more):
    fill(cache, "a")
    file = path(cache, key("a"))
    os.truncate(file, file.stat().st_size + more)
    assert cache.get(*key("a")) is None
    assert not file.exists()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda place: os.symlink("/dev/null", place), errno.ELOOP),
        (os.mkdir, errno.EISDIR),
        (os.mkfifo, errno.ESPIPE),
    ],
    ids=["open", "read", "pipe"],
)
def test_unreadable_entry_is_a_miss_with_one_warning(cache, caplog, make, reason):
    fill(cache, "ab")
    for name in "ab":
        path(cache, key(name)).unlink()
        make(path(cache, key(name)))
    assert [cache.get(*key(name)) for name in "ab"] == [None, None]
    (record,) = caplog.records
    assert f"{path(cache, key('a'))} cannot be read: {os.strerror(reason)}" in record.getMessage()


def test_many_entries_with_one_call(cache, caplog):
    """Each has its own place, also beside missing and damaged ones."""
    sizes = {"a": 5000, "b": 0, "c": 7000, "d": 3000, "e": 1}
    for name, size in sizes.items():
        if name != "c":
            assert cache.put(*key(name, size), contents(name, size))
    damaged = path(cache, key("d", 3000))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    into = memoryview(bytearray(b"." * 16_000))
    places = [key(name, size) for name, size in sizes.items()]
    assert cache.read(places, [10_000, 16_000, 0, 7000, 15_999], into) == [True, True, False, False, True]
    assert into[10_000:15_000] == contents("a", 5000) and into[15_999:] == b"e"
    assert into[15_000:15_999] == b"." * 999
    assert not damaged.exists()
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == [
        f"Reader: cache: {damaged} is damaged"
    ]
    with pytest.raises(ValueError, match="place 0 is 15000 to 20000; expected one within 16000 bytes"):
        cache.read(places[:1], [15_000], into)


# The limit


def test_least_recently_used_entries_leave_first(cache):
    names = "abcdefghi"
    fill(cache, names)
    assert cache.get(*key("a")) is not None
    assert cache.put(*key("new"), contents("new"))
    assert [name for name in names if not cache.has(*key(name))] == ["b"]
    # As many as need to.
    assert cache.put(*key("large", 3 * PART), contents("large", 3 * PART))
    assert [name for name in names if not cache.has(*key(name))] == ["b", "c", "d", "e"]
    there, counted = in_folder(cache.directory)
    assert there == counted <= LIMIT


def test_use_is_noted_once_a_minute(cache):
    fill(cache, "a")
    file = path(cache, key("a"))
    cache.get(*key("a"))
    noted = file.stat().st_mtime_ns
    assert noted > 1e18
    cache.get(*key("a"))
    assert file.stat().st_mtime_ns == noted
    # A clock that was put back does not keep an entry forever.
    os.utime(file, (4e9, 4e9))
    cache.get(*key("a"))
    assert file.stat().st_mtime < 4e9


def test_entry_that_exceeds_the_limit_is_not_added(cache):
    fill(cache, "abc")
    assert not cache.put(*key("large", LIMIT), bytes(LIMIT))
    assert all(cache.has(*key(name)) for name in "abc")
    assert cache.put(*key("d"), contents("d"))


def test_large_caches_evict_from_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_SAMPLE", 40)
    cache = Cache(tmp_path, LIMIT, "Reader")
    for number in range(1000):
        assert cache.put(*key(f"{number}", 1000), bytes(1000))
    there, counted = in_folder(cache.directory)
    assert LIMIT * 0.9 < there == counted <= LIMIT
    left = [number for number in range(1000) if cache.has(*key(f"{number}", 1000))]
    # 256 entries fit in: the newest ones would begin at 744.
    assert sorted(left)[len(left) // 2] > 700


def test_new_limit_holds_for_all(tmp_path):
    first = Cache(tmp_path, 2 * LIMIT, "Reader")
    fill(first, "abcdefghijklm")
    second = Cache(tmp_path, LIMIT, "Reader")
    assert in_folder(tmp_path)[0] <= LIMIT
    assert first.put(*key("new"), contents("new"))
    assert in_folder(tmp_path)[0] <= LIMIT
    assert second.max_bytes == Cache(tmp_path, None, "Reader").max_bytes == LIMIT


@pytest.mark.parametrize("limit", [0, -1, 1000, float("inf"), float("nan"), "100 GB", True, 2**63])
def test_limits_that_are_none(tmp_path, limit):
    with pytest.raises(ArgumentError, match="Reader: cache_bytes is"):
        Cache(tmp_path, limit, "Reader")
    assert not list(tmp_path.iterdir())


def test_new_cache_needs_a_limit(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ArgumentError, match="is no cache yet, and a new one needs a limit"):
            Cache(folder, None, "Reader")
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"Reader: cache='.*file/cache' cannot be written: Not a directory"):
        Cache(tmp_path / "file" / "cache", LIMIT, "Reader")


# The ledger


def changed(cache, change):
    file = Path(cache.directory, ledger.NAME)
    file.write_bytes(change(file.read_bytes()))


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file[:100],
        lambda file: b"",
        lambda file: file + b"x",
        lambda file: b"\0" * len(file),
        lambda file: file[:-1] + bytes([file[-1] ^ 1]),
    ],
)
def test_damaged_ledger_is_counted_again(cache, change):
    fill(cache, "abcdefghi")
    before = in_folder(cache.directory)
    changed(cache, change)
    again = Cache(cache.directory, LIMIT, "Reader")
    assert in_folder(cache.directory) == before
    assert again.put(*key("new"), contents("new"))
    assert again.get(*key("b")) == contents("b")
    there, counted = in_folder(cache.directory)
    assert there == counted <= LIMIT


def test_ledger_damaged_while_in_use(cache):
    fill(cache, "abc")
    changed(cache, lambda file: file[:-1] + bytes([file[-1] ^ 1]))
    assert cache.put(*key("d"), contents("d"))
    there, counted = in_folder(cache.directory)
    assert there == counted
    assert Cache(cache.directory, None, "Reader").max_bytes == LIMIT


def test_all_is_counted_again_after_a_boot(cache, monkeypatch):
    fill(cache, "abc")
    os.unlink(path(cache, key("a")))
    there, counted = in_folder(cache.directory)
    assert there < counted
    monkeypatch.setattr(ledger, "_boot", lambda: b"another boot ...")
    assert cache.put(*key("d"), contents("d"))
    there, counted = in_folder(cache.directory)
    assert there == counted


def test_counting_may_take_several_calls(cache, monkeypatch):
    fill(cache, "abc")
    monkeypatch.setattr(ledger, "_boot", lambda: b"another boot ...")
    monkeypatch.setattr(room, "_BUDGET", 0.0)
    looked = []
    monkeypatch.setattr(room.Room, "_scan", lambda self, shard: looked.append(shard) or room.Shard([], 0))
    # Time is up before the first one: nothing is added before all is counted.
    assert not cache.put(*key("d"), contents("d")) and not looked
    monkeypatch.setattr(room, "_BUDGET", 60.0)
    assert cache.put(*key("d"), contents("d"))
    assert looked == [*range(SHARDS)]


def test_newer_format_is_refused(cache):
    changed(cache, lambda file: file[:7] + b"\x02" + file[8:])
    with pytest.raises(StoreError, match=r"has version 02 of its format; this Highway knows version 01"):
        Cache(cache.directory, LIMIT, "Reader")


def test_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.raises(ArgumentError, match=r"has no locks \(flock: No locks available\).*on a local disk"):
        Cache(tmp_path, LIMIT, "Reader")


def test_locked_cache_is_passed_by(cache, monkeypatch):
    fill(cache, "a")
    monkeypatch.setattr(cache._room, "_patience", 0.01)
    with Ledger(cache.directory, "other").changing(1.0):
        assert not cache.put(*key("b"), contents("b"))
        assert cache.get(*key("a")) == contents("a")
    cache._paused_until = 0.0
    assert cache.put(*key("b"), contents("b"))


def test_a_lock_that_is_not_free_delays_one_sample_only(cache, monkeypatch, caplog):
    """The process that has it may be stopped: others do not wait for it again and again."""
    fill(cache, "a")
    monkeypatch.setattr(cache._room, "_patience", 0.01)
    path(cache, key("a")).write_bytes(b"damaged")
    with Ledger(cache.directory, "other").changing(1.0):
        waits = []
        real = Ledger._lock
        monkeypatch.setattr(Ledger, "_lock", lambda *given: waits.append(given) or real(*given))
        assert not any(cache.put(*key(name), contents(name)) for name in "bcd")
        assert cache.get(*key("a")) is None
    assert len(waits) == 1
    assert sum("is locked by another process since 0.01 s" in text for text in caplog.messages) == 1
    # After a time it tries again.
    monkeypatch.setattr(cache, "_paused_until", 0.0)
    assert cache.put(*key("b"), contents("b"))


def test_links_and_pipes_in_the_folder_are_not_followed(cache, tmp_path, caplog):
    fill(cache, "abc")
    other = tmp_path / "other"
    other.write_bytes(bytes(10_000))
    for name, make in (("a", os.mkfifo), ("b", lambda place: os.symlink(other, place))):
        path(cache, key(name)).unlink()
        make(path(cache, key(name)))
        assert cache.get(*key(name)) is None
    os.truncate(path(cache, key("c")), 1 << 40)
    found = []
    assert checks.verify(cache.directory, found.append) == (3, 3)
    assert sorted(found) == sorted(str(path(cache, key(name))) for name in "abc")
    file = Path(cache.directory, ledger.NAME)
    file.unlink()
    file.symlink_to(other)
    with pytest.raises(WriteError, match="cannot be written"):
        Cache(cache.directory, LIMIT, "Reader")
    assert not cache.put(*key("d"), contents("d"))
    assert other.read_bytes() == bytes(10_000)


def test_drafts_of_killed_processes_are_removed(cache):
    fill(cache, "a")
    shard = path(cache, key("a")).parent
    left = shard / "1a000.0123456789abcdef.new"
    left.write_bytes(bytes(100))
    strange = shard / "notes.txt"
    strange.write_bytes(bytes(100))
    with cache._room.draft(int(shard.name, 16), cost_of(PART)) as draft:
        there, counted = in_folder(cache.directory)
        assert Path(draft.path).exists() and not left.exists() and strange.exists()
        assert there == counted
        os.unlink(path(cache, key("a")))
        cache._room.keep(draft, path(cache, key("a")))


def test_what_is_being_written_is_not_cleared(cache):
    fill(cache, "ab")
    shard = int(path(cache, key("c")).parent.name, 16)
    with cache._room.draft(shard, 8192) as draft:
        assert checks.clear(cache.directory)[0] == 2
        assert Path(draft.path).exists()
        assert in_folder(cache.directory) == (8192, 8192)
        cache._room.keep(draft, path(cache, key("c")))


# Faults of the disk


def test_full_disk_ends_caching_with_one_warning(cache, monkeypatch, caplog):
    fill(cache, "ab")
    write = os.write

    def full(file, data):
        if len(data) > 1000:
            write(file, data[:500])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data)

    monkeypatch.setattr(os, "write", full)
    assert [cache.put(*key(name), contents(name)) for name in "cde"] == [False] * 3
    monkeypatch.undo()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "Reader: the cache" in caplog.text and "No space left on device" in caplog.text
    assert [cache.get(*key(name)) for name in "abc"] == [contents("a"), contents("b"), None]
    there, counted = in_folder(cache.directory)
    assert there == counted
    # The next one tries again.
    assert Cache(cache.directory, None, "Reader").put(*key("c"), contents("c"))


@pytest.mark.parametrize("call", ["open", "rename", "pwrite"])
def test_no_failing_call_breaks_the_cache(cache, monkeypatch, call):
    fill(cache, "ab")
    real = getattr(os, call)

    def failing(target, *rest, **options):
        if call != "open" or str(target).endswith(".new"):
            raise OSError(errno.EIO, "Input/output error")
        return real(target, *rest, **options)

    monkeypatch.setattr(os, call, failing)
    assert not cache.put(*key("c"), contents("c"))
    monkeypatch.undo()
    again = Cache(cache.directory, LIMIT, "Reader")
    assert [again.get(*key(name)) for name in "abc"] == [contents("a"), contents("b"), None]
    there, counted = in_folder(cache.directory)
    assert there <= counted <= LIMIT


def users(what, folder, *numbers):
    return subprocess.run(
        [sys.executable, "-W", "error", cache_users.__file__, what, folder, *map(str, numbers)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )


def test_real_limit_of_files_ends_caching_with_one_warning(tmp_path):
    done = users("full", tmp_path, 4 * LIMIT, 70_000)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\n") == 1 and "File too large" in done.stderr


def test_full_file_system(tmp_path):
    """A real one, where that is permitted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        done = users("full", tmp_path, 4 * LIMIT, 1 << 30)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("\n") == 1 and "No space left on device" in done.stderr
    finally:
        subprocess.run(["umount", tmp_path], check=True, timeout=60)


# Many users


def test_limit_holds_with_four_processes(tmp_path):
    done = users("together", tmp_path, 2 * LIMIT, 4)
    assert done.returncode == 0, done.stderr


def test_killed_processes_leave_right_bytes_within_the_limit(tmp_path):
    done = users("killed", tmp_path, 2 * LIMIT, 50)
    assert done.returncode == 0, done.stderr
    cache = Cache(tmp_path, None, "Reader")
    for number in range(cache_users.KEYS):
        assert cache.get(*key_of(number)) in (None, bytes_of(number))
    with Ledger(tmp_path, "test").changing(1.0) as counts:
        assert counts.total <= 2 * LIMIT
    assert not list(Path(tmp_path).rglob("*.new"))


def test_child_of_a_killed_process_keeps_no_lock(tmp_path):
    done = users("fork", tmp_path, 2 * LIMIT)
    assert done.returncode == 0, done.stderr


def test_threads(cache, restless):
    wrong = []

    def work(seed):
        try:
            for step in range(30):
                name = f"{(seed * 7 + step * 5) % 12}"
                if cache.get(*key(name)) not in (None, contents(name)):
                    wrong.append(name)
                if not cache.put(*key(name), contents(name)):
                    wrong.append(f"no room for {name}")
        except BaseException as error:
            wrong.append(error)
            raise

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong and not any(thread.is_alive() for thread in threads)
    there, counted = in_folder(cache.directory)
    assert there == counted <= LIMIT
