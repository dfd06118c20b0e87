"""TableReader and manifests at URLs: the same samples as from local files, whatever the server does."""

import random
import threading

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from concurrency import LIMIT
from object_server import Fault, ObjectServer, folder_objects
from pictures import class_folders

from highway.engine import Pipeline
from highway.errors import DecodeError, ObjectChangedError, ReadError, StorageError
from highway.modules import ListReader, TableReader
from highway.storage import outages, requests
from highway.storage.object_store import ObjectStore
from highway.transforms import RandomResizedCrop

# They count requests.
pytestmark = pytest.mark.usefixtures("no_hedges")

ROWS = 30
GROUP = 4
WINDOW = 20_000
DRAWN = {"fit": RandomResizedCrop(), "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("tables")
    class_folders(root / "photos", classes=3, each=ROWS // 3)
    keys = sorted(path.relative_to(root).as_posix() for path in root.glob("photos/*/*.jpg"))
    table = pa.table(
        {
            "image": [{"bytes": (root / key).read_bytes(), "path": key} for key in keys],
            "label": [key.split("/")[1] for key in keys],
            "key": keys,
        }
    )
    for number in range(2):
        part = table[number * ROWS // 2 : (number + 1) * ROWS // 2]
        pq.write_table(part, root / f"part-{number}.parquet", row_group_size=GROUP)
    pq.write_table(table.set_column(0, "image", [keys]), root / "paths.parquet")
    (root / "list.csv").write_text("path,class\n" + "".join(f"{key},{key.split('/')[1]}\n" for key in keys))
    return root


@pytest.fixture
def server(folder):
    with ObjectServer(folder_objects(folder)) as running:
        yield running


def read(reader):
    found = {}
    with Pipeline([reader]) as pipeline:
        for batch in pipeline:
            for row, key in enumerate(batch.keys):
                assert key not in found
                found[key] = batch.indices[row], batch.images[row].tobytes(), batch.labels[row]
    return found


def reader_of(files, **options):
    given = {"key": "key", "window_bytes": WINDOW, "epochs": 1, **DRAWN}
    return TableReader(files, 4, (24, 32), **{**given, **options})


@pytest.fixture(scope="module")
def expected(folder):
    return read(reader_of(folder / "part-*.parquet"))


@pytest.mark.parametrize("pattern", ["part-*.parquet", "part-{0..1}.parquet"])
@pytest.mark.parametrize("scheme", ["s3", "http"])
def test_the_same_as_from_local_files(server, expected, scheme, pattern):
    where, options = {
        "s3": ("s3://data", {"storage_options": server.options}),
        "http": (f"{server.endpoint}/data", {}),
    }[scheme]
    reader = reader_of(f"{where}/{pattern}", **options)
    assert reader.order.window in (1, 2)
    found = read(reader)
    assert list(found.items()) == list(expected.items())
    assert reader.fetched()["fetched"] > 0 and reader.fetched()["held"] == 0


def test_many_files_are_opened_together(server, folder, monkeypatch):
    """Not one after the other: each takes several requests."""
    contents = (folder / "part-0.parquet").read_bytes()
    for number in range(20):
        server.put(f"data/many/{number:02}.parquet", contents)
    read = ObjectStore.read
    lock, enough, active = threading.Lock(), threading.Event(), 0

    def waiting(*arguments):
        nonlocal active
        with lock:
            active += 1
            if active == 10:
                enough.set()
        try:
            assert enough.wait(LIMIT)
            return read(*arguments)
        finally:
            with lock:
                active -= 1

    monkeypatch.setattr(ObjectStore, "read", waiting)
    opened = reader_of("s3://data/many/*.parquet", storage_options=server.options, key=None)
    assert opened.order.size == 20 * (ROWS // 2)
    # The first error counts.
    for number in (3, 11):
        server.put(f"data/many/{number:02}.parquet", contents[:-100])
    with pytest.raises(DecodeError, match=r"many/03\.parquet' is damaged"):
        reader_of("s3://data/many/*.parquet", storage_options=server.options, key=None)
    assert not any(thread.name.startswith("highway-parquet") for thread in threading.enumerate())


def test_row_groups_are_fetched_once_an_epoch(server, folder):
    reader = reader_of("s3://data/part-*.parquet", storage_options=server.options, epochs=2)
    before = server.count()
    with Pipeline([reader]) as pipeline:
        for _ in pipeline.forever():
            pass
    # Neighbors are joined, and some are still there in the second epoch.
    groups = 2 * pq.ParquetFile(folder / "part-0.parquet").num_row_groups
    assert 0 < server.count() - before <= 2 * groups
    assert reader.latest.samples.decodes <= 2 * groups


def test_later_epochs_and_runs_come_from_the_cache(server, expected, tmp_path):
    options = {"storage_options": server.options, "cache": tmp_path / "cache"}
    first = reader_of("s3://data/part-*.parquet", cache_bytes=20e6, epochs=2, **options)
    with Pipeline([first]) as pipeline:
        for _ in pipeline.forever():
            pass
    assert first.fetched()["fetched"] > 0
    # Each row group once: the second epoch is from the cache, or still in memory.
    assert first.fetched()["requests"] <= len(first.latest.samples._nbytes)
    again = reader_of("s3://data/part-*.parquet", **options)
    server.requests.clear()
    assert list(read(again).items()) == list(expected.items())
    assert server.requests == []
    assert again.fetched()["cached"] > 0 and again.fetched()["requests"] == 0


def test_paths_in_a_table_use_the_cache(server, expected, tmp_path):
    options = {"storage_options": server.options, "cache": tmp_path / "cache", "cache_bytes": 20e6}
    assert read(reader_of("s3://data/paths.parquet", **options)) == expected
    again = reader_of("s3://data/paths.parquet", **options)
    server.requests.clear()
    assert read(again) == expected
    # Objects whose sizes nobody lists are asked for their etags.
    assert server.count() == 0


@pytest.mark.parametrize("world", [1, 3])
def test_every_sample_once(server, expected, world):
    found = []
    for rank in range(world):
        options = {"storage_options": server.options, "shard": (rank, world)}
        found += read(reader_of("s3://data/part-*.parquet", **options))
    assert {*found} == {*expected} and len(found) - ROWS < world


def test_paths_of_objects(server, folder, expected):
    options = {"storage_options": server.options, "label": "label"}
    for reader in (
        reader_of("s3://data/paths.parquet", **options),
        reader_of(folder / "paths.parquet", root="s3://data", **options),
    ):
        assert read(reader) == expected
        assert reader.fetched()["requests"] > 0


def test_manifests(server, folder, expected):
    options = {"storage_options": server.options, "epochs": 1, **DRAWN}
    for path, root in (("s3://data/list.csv", None), (folder / "list.csv", "s3://data")):
        assert read(ListReader.from_csv(path, 4, (24, 32), root=root, **options)) == expected


@pytest.mark.parametrize(
    "fault",
    [Fault(status=503), Fault(reset=True), Fault(cut=100), Fault(short=1)],
    ids=["503", "reset", "cut", "short"],
)
def test_nothing_is_lost_to_what_passes(server, expected, monkeypatch, fault):
    monkeypatch.setattr(requests, "_SHORTEST", 0.001)
    chance = random.Random(1)
    server.fault = lambda request: fault if not request.lists and chance.random() < 0.3 else None
    reader = reader_of("s3://data/part-*.parquet", storage_options=server.options, on_error="skip")
    assert read(reader) == expected and reader.errors == []
    assert server.count() < 200


def test_a_server_that_stays_away(server, monkeypatch):
    reader = reader_of("s3://data/part-*.parquet", storage_options=server.options, on_error="skip")
    monkeypatch.setattr(outages, "LIMIT", 0.5)
    server.away = True
    with Pipeline([reader]) as pipeline, pytest.raises(StorageError, match=r"^TableReader: s3://data/part"):
        pipeline.dequeue()
    assert server.count() < 100


def test_an_object_that_changes(server, folder):
    reader = reader_of("s3://data/part-*.parquet", storage_options=server.options, on_error="skip")
    for number in range(2):
        body = bytearray((folder / f"part-{number}.parquet").read_bytes())
        body[2000] ^= 1
        server.put(f"data/part-{number}.parquet", bytes(body))
    with Pipeline([reader]) as pipeline, pytest.raises(ObjectChangedError, match=r"part-\d\.parquet changed"):
        list(pipeline)


def test_missing_and_damaged_objects(server):
    with pytest.raises(ReadError, match=r"^TableReader: s3://data/part-2\.parquet cannot be read"):
        reader_of("s3://data/part-{0..2}.parquet", storage_options=server.options)
    server.put("data/bad.parquet", b"PAR1" + bytes(100))
    with pytest.raises(DecodeError, match=r"^TableReader: 's3://data/bad\.parquet' is damaged"):
        reader_of("s3://data/bad.parquet", storage_options=server.options)


def test_stopping_while_it_waits(server):
    reader = reader_of("s3://data/part-*.parquet", storage_options=server.options)
    server.fault = lambda request: Fault(delay=30.0)
    with Pipeline([reader]) as pipeline, pytest.raises(TimeoutError):
        pipeline.dequeue(timeout=0.3)


def test_row_groups_are_kept_in_the_cache(server, expected, tmp_path):
    def reader():
        return reader_of(
            "s3://data/part-*.parquet",
            storage_options=server.options,
            cache=tmp_path / "cache",
            cache_bytes=20e6,
        )

    first = reader()
    assert read(first) == expected
    assert first.fetched()["fetched"] > 0
    again = reader()
    assert read(again) == expected
    assert again.fetched()["fetched"] == 0 and again.fetched()["cached"] > 0
