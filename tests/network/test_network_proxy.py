"""Connections that break, strangers that knock, and messages that are none: every batch arrives once all the same."""

from __future__ import annotations

import contextlib
import logging
import resource
import secrets
import socket
import ssl
import threading

import msgpack
import pytest
import zmq
from concurrency import LIMIT, Task, eventually
from machines import (
    FAST,
    PATIENCE,
    Machines,
    Proxy,
    assert_once,
    flips,
    noise,
    nothing_left,
    told,
    undisturbed,
)

from highway.errors import PeerLostError, ProtocolError, SecurityError
from highway.modules import ZMQSink, ZMQSource
from highway.network import exactly_once as exact
from highway.network.protocol.messages import Bye, Cursor, Data, Item, Key, Kind, Ping, Ready, Refusal, State
from highway.network.protocol.wire import encode
from highway.network.zmq import socket_thread as driver
from highway.network.zmq import sockets

# Long, and not about the interpreter.
pytestmark = pytest.mark.once

SHAPE = (48, 48)


@pytest.fixture(autouse=True)
def nothing_is_left():
    with nothing_left():
        yield


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(exact, "TIMING", FAST)
    # Machines end one after the other: who is left need not wait for those that went.
    monkeypatch.setattr(driver, "BYE_LIMIT", 0.05)


@pytest.fixture
def machines():
    with Machines() as stack:
        yield stack


def data():
    return noise(300, 2, shape=SHAPE)


@pytest.fixture(scope="module")
def expected():
    return undisturbed(data(), flips())


@contextlib.contextmanager
def broken_chain(machines, workers=2, **how):
    """Two workers between proxies; gives the trainer's pipeline and the proxies."""
    sink = machines.data(data())
    pipeline, source = machines.trainer()
    with Proxy(sink.address, seed=1, **how) as above, Proxy(source.address, seed=2, **how) as below:
        for _ in range(workers):
            machines.worker(above.address, below.address)
        yield pipeline, above, below
        machines.close()


# Connections


def test_cut_at_random_bytes(machines, expected):
    # A batch has 28 KB.
    with broken_chain(machines, cut=(1_000, 400_000)) as (pipeline, above, below):
        assert_once(told(pipeline.forever()), expected)
        assert above.cuts > 3 and below.cuts > 3


def test_small_pieces_and_delays(machines, expected):
    with broken_chain(machines, most_chunk=8000, delay=0.0005) as (pipeline, _, _):
        assert_once(told(pipeline.forever()), expected)


@pytest.mark.parametrize("which", ["above", "below"])
def test_all_connections_cut_again_and_again(machines, expected, which):
    with broken_chain(machines) as (pipeline, above, below):
        proxy = above if which == "above" else below
        found = []
        for batch in pipeline.forever():
            found += told([batch])
            if len(found) % 25 == 0 and len(found) < 125:
                proxy.cut_all()
        assert_once(found, expected)
        assert proxy.cuts >= 4


@pytest.mark.parametrize("which", ["above", "below"])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_half_open(machines, expected, which, direction):
    """One direction stands still for longer than the death timer, then passes what it held."""
    with broken_chain(machines) as (pipeline, above, below):
        proxy = above if which == "above" else below
        found = told([pipeline.dequeue(timeout=LIMIT) for _ in range(20)])
        proxy.hold(direction)
        rest = Task(lambda: told(pipeline.forever()))
        threading.Event().wait(1.4 * FAST.death)
        proxy.hold()
        assert_once(found + rest.result(), expected)


def test_one_way_is_closed_for_good(machines, expected, monkeypatch):
    """It is libzmq that ends the connection: the hub hears no heartbeat. Then the other worker takes over."""
    monkeypatch.setattr(sockets, "HEARTBEAT", 300)
    monkeypatch.setattr(sockets, "HEARTBEAT_LIMIT", 1500)
    sink = machines.data(data())
    pipeline, source = machines.trainer()
    with Proxy(source.address) as below:
        machines.worker(sink, below.address)
        found = told([pipeline.dequeue(timeout=LIMIT) for _ in range(10)])
        below.hold("up")
        machines.worker(sink, source)
        assert_once(found + told(pipeline.forever()), expected)
        machines.close()


def test_trainer_and_data_machine_through_a_proxy(machines):
    sink = machines.data(data())
    with Proxy(sink.address, seed=4, cut=(50_000, 500_000)) as proxy:
        pipeline, _ = machines.trainer(proxy.address, bind=False, ordered=True)
        assert told(pipeline.forever()) == list(undisturbed(data()).items())
        assert proxy.cuts > 3
        machines.close()


def test_nothing_passes_and_the_error_says_so(machines):
    sink = machines.data(data())
    with Proxy(sink.address) as proxy:
        pipeline, _ = machines.trainer(proxy.address, bind=False, timeout=PATIENCE)
        pipeline.dequeue(timeout=LIMIT)
        proxy.hold("up", "down")
        with pytest.raises(PeerLostError, match="missing: epoch 0: stream 0: batch"):
            list(pipeline)
        machines.close()


# Strangers


def place_of(address):
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def tls_hello():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="example.org")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


GREETINGS = {
    "silence": b"",
    "scan": None,
    "http": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "tls": tls_hello(),
    "noise": bytes(range(256)) * 16,
    "half a greeting": b"\xff" + bytes(8) + b"\x7f\x03",
    "zmtp and nothing": b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + b"\x00" + bytes(31),
}


@pytest.mark.parametrize("greeting", GREETINGS)
def test_strangers_at_both_hubs(machines, expected, greeting):
    sink = machines.data(data())
    pipeline, source = machines.trainer()
    machines.worker(sink, source)
    found = told([pipeline.dequeue(timeout=LIMIT)])
    with contextlib.ExitStack() as stack:
        for hub in (sink, source):
            for _ in range(10):
                stranger = stack.enter_context(socket.create_connection(place_of(hub.address), LIMIT))
                if GREETINGS[greeting] is None:
                    stranger.close()
                else:
                    stranger.sendall(GREETINGS[greeting])
        assert_once(found + told(pipeline.forever()), expected)


def test_a_thousand_connections(machines, expected):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4000:
        pytest.skip(f"this process may have {hard} descriptors; the test needs 4000")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4000), hard))
    try:
        sink = machines.data(data())
        pipeline, source = machines.trainer()
        machines.worker(sink, source)
        found = told([pipeline.dequeue(timeout=LIMIT)])
        with contextlib.ExitStack() as stack:
            for number in range(1100):
                stranger = socket.create_connection(place_of(source.address), LIMIT)
                stack.enter_context(stranger)
                if number % 100 == 0:
                    found += told([pipeline.dequeue(timeout=LIMIT)])
            # A worker finds its way in among them.
            machines.worker(sink, source)
            assert_once(found + told(pipeline.forever()), expected)
        machines.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Messages that are none

NO_ID = bytes(16)
ITEM = Item(Kind.BATCH, [["x"], 0, 0, 0, False, False], ())


def frames_of(*values):
    return [b"HWY\x02" + msgpack.packb(list(values))]


def hostile():
    """(name, frames) of messages that are malformed, or well formed and senseless."""
    good = [bytes(frame) for frame in encode(Ready(NO_ID, 8, 1 << 20, Cursor(1), ""))]
    yield "empty", [b""]
    yield "nothing", []
    yield "text", [b"hello"]
    yield "magic", [b"HWX\x01" + good[0][4:]]
    yield "version", [b"HWY\x03" + good[0][4:]]
    yield "cut", [good[0][:-3]]
    yield "trailing", [good[0] + b"\0"]
    yield "extra frame", [*good, b"more"]
    yield "many frames", [*good, *[b""] * 1100]
    yield "deep", [b"HWY\x02" + b"\x91" * 500 + b"\xc0"]
    yield "ext", [b"HWY\x02" + b"\xd4\x01\x00"]
    yield "huge array", [b"HWY\x02" + b"\xdd\xff\xff\xff\xff"]
    yield "huge bytes", [b"HWY\x02" + b"\xc6\xff\xff\xff\xff"]
    yield "map", frames_of({"a": 1})
    yield "large header", [b"HWY\x02" + bytes(1 << 17)]
    yield "ones", [b"\xff" * 4096]
    for number in range(8):
        yield f"kind {number} without fields", frames_of(number)
        yield f"kind {number} with wrong fields", frames_of(number, *[-1] * 8)
    for message in (
        State(NO_ID, 2**40, (1, 2), (3,)),
        Ping(NO_ID, NO_ID, 2**40, 1, [{"name": "x", "role": "y", "rate": 1e308}]),
        Data(NO_ID, NO_ID, 2**40, Key(0, 0, 0), 1, "", ITEM),
        Data(NO_ID, NO_ID, 1, Key(2**40, 2**40, 3), 5, "other", ITEM),
        Ready(NO_ID, 1, 1, Cursor(0), "0"),
        Bye("end"),
        Bye("bye"),
        Refusal("superseded", "no", 1),
    ):
        yield f"stray {type(message).__name__}", [bytes(frame) for frame in encode(message)]


def test_hostile_messages_to_both_hubs(machines, expected, caplog):
    caplog.set_level(logging.CRITICAL, "highway")
    sink = machines.data(data())
    pipeline, source = machines.trainer()
    machines.worker(sink, source)
    found = told([pipeline.dequeue(timeout=LIMIT)])
    drivers = [sink.transport.driver, source.transport.driver]
    before = [driver.malformed for driver in drivers]
    messages = [frames for _, frames in hostile()]
    with zmq.Context() as context:
        for hub, driver, count in zip((sink, source), drivers, before, strict=True):
            with context.socket(zmq.DEALER) as dealer:
                dealer.linger = 0
                dealer.sndtimeo = LIMIT * 1000
                dealer.connect(hub.address)
                for _ in range(3):
                    for frames in messages:
                        dealer.send_multipart(frames or [b""])
                # Closed before, it would drop what is not sent yet. Some are answered long before the last is read.
                eventually(lambda d=driver, b=count: d.malformed - b >= 3 * 30)
        assert_once(found + told(pipeline.forever()), expected)
    assert all(driver.error is None for driver in drivers)


def test_batch_that_is_none_is_a_protocol_error(machines):
    """Well formed as a message; what it says of its arrays is not so."""
    pipeline, source = machines.trainer()
    session = None
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.rcvtimeo = dealer.sndtimeo = LIMIT * 1000
        dealer.connect(source.address)
        from highway.network.protocol.wire import decode

        while session is None:
            dealer.send_multipart(list(encode(Ping(NO_ID, NO_ID, 0, 1, []))))
            answer = decode(dealer.recv_multipart(copy=False))
            session = answer.session if isinstance(answer, Ready) else None
        item = Item(Kind.BATCH, ["no", "fields"], ())
        dealer.send_multipart(list(encode(Data(session, b"1" * 16, 1, Key(0, 0, 0), 1, "", item))))
        with pytest.raises(ProtocolError, match="does not describe a batch"):
            pipeline.dequeue(timeout=LIMIT)


# Secrets


def test_secret_beyond_loopback(machines, expected):
    secret = secrets.token_bytes(32)
    sink = machines.data(data(), "tcp://*:*", secret=secret)
    port = sink.address.rpartition(":")[2]
    pipeline, source = machines.trainer("tcp://127.3.2.1:*", secret=secret)
    machines.add(
        ZMQSource(f"tcp://127.0.0.9:{port}", secret=secret),
        flips(),
        ZMQSink(source.address, False, secret=secret),
    )
    assert_once(told(pipeline.forever()), expected)


@pytest.mark.parametrize("other", ["another", "none"])
def test_wrong_secret_gets_nothing_and_is_named(machines, expected, other):
    secret = secrets.token_bytes(32)
    sink = machines.data(data(), secret=secret)
    keys = {"secret": secrets.token_bytes(32)} if other == "another" else {}
    stranger, _ = machines.trainer(sink.address, bind=False, timeout=PATIENCE, **keys)
    with pytest.raises(PeerLostError, match="the last connection that failed: handshake at"):
        stranger.dequeue(timeout=LIMIT)
    # The right one gets everything.
    pipeline, _ = machines.trainer(sink.address, bind=False, secret=secret)
    assert_once(told(pipeline.forever()), undisturbed(data()))


def test_no_secret_beyond_loopback():
    with pytest.raises(SecurityError):
        ZMQSource("tcp://0.0.0.0:5555", bind=True)
