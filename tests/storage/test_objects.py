"""Objects of S3, web servers and fsspec: the same bytes and listings, and typed errors."""

import os
import subprocess
import sys
import textwrap
import time

import fsspec
import numpy as np
import pytest
from object_server import Fault, ObjectServer

from highway.errors import ArgumentError, ObjectChangedError, ReadError, StorageError
from highway.storage import obstore_objects, outages
from highway.storage.many_stores import ManyStores
from highway.storage.objects import UNKNOWN, Object, ObjectTable
from highway.storage.opening import open_store
from highway.storage.ranges import Ranges

# They count requests.
pytestmark = pytest.mark.usefixtures("no_hedges")

OBJECTS = {f"data/a/{number:02}.jpg": os.urandom(100 + number) for number in range(25)} | {
    "data/b/x y+%é.jpg": b"other",
    "data/empty": b"",
}


@pytest.fixture
def server():
    with ObjectServer(OBJECTS, page=7) as running:
        yield running


@pytest.fixture(params=["s3", "http", "memory"])
def store(request, server):
    """A store with the objects; on the web server without a bucket."""
    if request.param == "s3":
        yield open_store("s3://data", "Reader", server.options)
    elif request.param == "http":
        for key, body in OBJECTS.items():
            server.put(key.removeprefix("data/"), body)
            del server.objects[key]
        yield open_store(server.endpoint, "Reader")
    else:
        files = fsspec.filesystem("memory")
        for key, body in OBJECTS.items():
            files.pipe_file(f"/objects/{key}", body)
        yield open_store("memory://objects/data", "Reader")
        files.rm("/objects", recursive=True)


def test_every_store_lists_the_same(store):
    found = {one.name: one.size for one in store.list("")}
    assert found == {key.removeprefix("data/"): len(body) for key, body in OBJECTS.items()}
    assert sorted(one.name for one in store.list("a")) == [f"a/{number:02}.jpg" for number in range(25)]
    assert list(store.list("nothing")) == []


def test_every_store_reads_the_same(store):
    for name in ("a/07.jpg", "b/x y+%é.jpg", "empty"):
        body = OBJECTS[f"data/{name}"]
        found = store.head(name)
        assert found[:2] == (name, len(body))
        assert bytes(store.read(found)) == bytes(store.read(Object(name))) == body
    assert bytes(store.read(store.head("a/07.jpg"), 3, 60)) == OBJECTS["data/a/07.jpg"][3:60]


def test_a_missing_object_is_asked_for_once(store, server):
    with pytest.raises(ReadError, match=r"Reader: .*a/none.jpg cannot be read: "):
        store.head("a/none.jpg")
    with pytest.raises(ReadError, match=r"Reader: .*a/none.jpg cannot be read: "):
        store.read(Object("a/none.jpg", 5))
    assert len(server.requests) <= 2


def test_a_listing_goes_on_where_it_failed(server, monkeypatch):
    monkeypatch.setattr(obstore_objects, "_PAGE", server.page)
    store = open_store("s3://data", "Reader", server.options)
    failing = {2, 3, 5}
    server.fault = lambda request: Fault(status=503) if request.number in failing else None
    assert len(list(store.list(""))) == len(OBJECTS)
    # Four pages, and three tries more.
    assert server.count(lists=True) == 7


@pytest.mark.parametrize("status", [400, 401, 403, 404, 301])
def test_what_lasts_is_not_tried_again(server, status):
    store = open_store("s3://data", "Reader", server.options)
    server.fault = lambda request: Fault(status=status)
    for call in (lambda: store.head("a/01.jpg"), lambda: list(store.list("a"))):
        before = len(server.requests)
        with pytest.raises(ReadError, match=r"s3://data/a.* cannot be read: "):
            call()
        assert len(server.requests) == before + 1


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=429), Fault(reset=True), Fault(cut=10)])
def test_what_passes_is_tried_again_for_a_time(server, monkeypatch, fault):
    store = open_store("s3://data", "Reader", server.options)
    known = store.head("a/01.jpg")
    server.fault = lambda request: fault if request.number < 3 else None
    assert bytes(store.read(known)) == OBJECTS["data/a/01.jpg"]
    monkeypatch.setattr(outages, "LIMIT", 0.2)
    server.fault = lambda request: fault
    with pytest.raises(StorageError, match=r"the storage failed: .* no sample was counted as bad"):
        store.read(known)


@pytest.mark.parametrize("kind", ["s3", "http"])
@pytest.mark.parametrize(
    ("call", "drip"),
    [("head", "head"), ("read", "head"), ("read", "body"), ("list", "head"), ("list", "body")],
)
def test_a_server_that_drips_does_not_hold_up_for_long(server, monkeypatch, kind, drip, call):
    """It is never silent, so that no limit between two bytes helps."""
    monkeypatch.setattr(outages, "LIMIT", 0.0)
    monkeypatch.setattr(obstore_objects, "_PATIENCE", 0.5)
    monkeypatch.setattr(obstore_objects, "_PAGE_SECONDS", 1)
    monkeypatch.setattr(obstore_objects, "_WEB_SECONDS", 1)
    monkeypatch.setitem(obstore_objects._CLIENT, "read_timeout", "1s")
    url = "s3://data" if kind == "s3" else f"{server.endpoint}/data"
    store = open_store(url, "Reader", server.options if kind == "s3" else None)
    known = store.head("a/07.jpg")
    server.fault = lambda request: Fault(drip=drip)
    # In full, the shortest answer takes 5 s.
    began = time.monotonic()
    with pytest.raises(
        StorageError, match=r"Reader: .*data.* cannot be read: (no answer in time|only \d+ of)"
    ):
        {
            "head": lambda: store.head("a/07.jpg"),
            "read": lambda: store.read(known),
            "list": lambda: [*store.list("a")],
        }[call]()
    assert time.monotonic() - began < 20
    # An answer in the usual time.
    server.fault = lambda request: None
    assert bytes(store.read(known)) == OBJECTS["data/a/07.jpg"]


def test_another_object_is_noticed(server):
    store = open_store("s3://data", "Reader", server.options)
    known = store.head("a/01.jpg")
    server.put("data/a/01.jpg", os.urandom(known.size))
    with pytest.raises(ObjectChangedError, match="its etag was"):
        store.read(known, 5, 20)
    with pytest.raises(ObjectChangedError, match=f"it had {known.size - 1} bytes, and has {known.size}"):
        store.read(known._replace(etag="", size=known.size - 1))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"no_such_option": "secret"}, "no_such_option"),
        ({"retry_config": {}}, "Highway itself retries"),
        ({"client_options": {"no_such_option": "secret"}}, "client_options|no_such_option"),
        ({"client_options": "secret"}, "client_options in storage_options is of type str; expected a dict"),
        ({"client_options": {"timeout": "secret"}}, "storage_options of client_options: .*failed to parse"),
    ],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(ArgumentError, match=text) as caught:
        open_store("s3://data", "Reader", options)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "one", "other"),
    [
        ("s3://data", {"endpoint": "http://a"}, {"endpoint": "http://b"}),
        ("az://data", {"account_name": "a"}, {"account_name": "b"}),
        ("memory://data", {"host": "a"}, {"host": "b"}),
        ("memory://data", {"client_kwargs": {"endpoint_url": "a"}}, {"client_kwargs": {"endpoint_url": "b"}}),
    ],
)
def test_stores_of_other_servers_and_accounts_have_another_identity(url, one, other):
    secrets = {
        "s3": {"secret_access_key": "secret1", "access_key_id": "secret2"},
        "az": {"account_key": "c2VjcmV0"},
        "memory": {"password": "secret1", "nested": {"token": "secret2"}},
    }[url.partition(":")[0]]
    made = [open_store(url, "Reader", options) for options in (one, {**one, **secrets}, other)]
    identities = [store.identity for store in made]
    assert identities[1] not in (identities[2], url) and identities[2] != url
    assert not any(value in identities[1] for value in ("secret1", "secret2", "c2VjcmV0"))
    urls = [f"{url}/a"] * 3
    many = [ManyStores("Reader", options) for options in (one, {**one, **secrets}, other)]
    assert [store.identity_of(name) for store, name in zip(many, urls, strict=True)] == identities
    if url != "memory://data":
        assert identities[0] == identities[1]


def test_the_account_may_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "mine")
    assert open_store("az://data", "Reader", {"account_key": "c2VjcmV0"}).identity == "az://data at mine"


@pytest.mark.parametrize("given", ["option", "environment"])
def test_passwords_of_endpoints_are_refused(monkeypatch, given):
    endpoint = "http://user:secret@host"
    if given == "environment":
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ArgumentError, match="the endpoint of s3://data has a user or a password") as caught:
        open_store("s3://data", "Reader", {"endpoint": endpoint} if given == "option" else {})
    assert "secret" not in str(caught.value)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(ArgumentError, match=r"nothing://x cannot be opened with fsspec"):
        open_store("nothing://x", "Reader")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (
            "Error performing PUT http://169.254.169.254/latest/api/token in 1 ms - status code: 403 Forbidden",
            ReadError,
        ),
        ("Error performing PUT http://169.254.169.254/latest/api/token in 5 s - HTTP error", StorageError),
    ],
)
def test_missing_credentials_are_named(server, error, kind):
    store = open_store("s3://data", "Reader", server.options)
    found = store._error(store._obstore.exceptions.GenericError(error), "a")
    assert type(found) is kind
    assert "s3://data/a cannot be read: there are no credentials" in str(found) and "skip_signature" in str(
        found
    )


@pytest.mark.parametrize("options", ["region=eu", [("region", "eu")], 5])
def test_options_that_are_no_mapping(options):
    with pytest.raises(ArgumentError, match=r"Reader: storage_options is of type \w+; expected a mapping"):
        open_store("s3://data", "Reader", options)


def test_servers_without_webdav_cannot_be_listed(server):
    store = open_store(server.endpoint, "Reader")
    for status in (405, 501):
        server.fault = lambda request, status=status: (
            Fault(status=status) if request.method == "PROPFIND" else None
        )
        with pytest.raises(ReadError, match=rf"answered {status}.* WebDAV.* ListReader"):
            list(store.list(""))


def test_tables_of_objects_are_sequences(server):
    names = [b"1.jpg", "é.jpg".encode()]
    table = ObjectTable("a/", names, np.array([5, UNKNOWN]), ['"x"', '"longer"'])
    assert list(table) == table[:] == [Object("a/1.jpg", 5, '"x"'), Object("a/é.jpg", UNKNOWN, '"longer"')]
    assert ObjectTable("", names, np.array([5, 6]))[1] == Object("é.jpg", 6, "")
    ranges = Ranges.of_objects(open_store("s3://data", "Reader", server.options), table)
    assert len(ranges) == 2 and ranges.stop.tolist() == [5, UNKNOWN]
    assert ranges.nbytes(np.array([0, 1, 1]), unknown=100) == 205


FORKED = """
import os, sys
from highway.errors import PipelineStateError
from highway.storage.opening import open_store
endpoint, used = sys.argv[1:]
store = open_store("s3://data", "Reader", {"endpoint": endpoint, "access_key_id": "k", "secret_access_key": "s"})
if used == "used":
    store.head("a/01.jpg")
child = os.fork()
if not child:
    try:
        found = store.head("a/01.jpg").size
    except PipelineStateError as error:
        found = str(error)
    print(found, flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(store.head("a/02.jpg").size)
"""


@pytest.mark.parametrize("used", ["used", "unused"])
def test_a_forked_process_works_or_says_why_not(server, used):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORKED), server.endpoint, used],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    child, parent = done.stdout.splitlines()
    assert parent == "102"
    if used == "used":
        assert "was forked from process" in child and "spawn" in child
    else:
        assert child == "101"
