"""Programs without Highway: the msgpack-numpy package over plain PUSH and PULL, both ways."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
import zmq
from concurrency import LIMIT, eventually
from machines import Machines, noise, nothing_left
from small_modules import Call, Numbers

from highway.batch import Batch
from highway.engine import Pipeline
from highway.errors import PeerLostError, ProtocolError
from highway.modules import ZMQSink, ZMQSource

msgpack_numpy = pytest.importorskip("msgpack_numpy", reason="the package msgpack-numpy is not installed")

FOREIGN = {"delivery": "msgpack-numpy"}


@pytest.fixture(autouse=True)
def nothing_is_left():
    with nothing_left():
        yield


@pytest.fixture
def machines():
    with Machines() as stack:
        yield stack


@pytest.fixture
def foreign():
    """Makes sockets of a program that knows nothing of Highway."""
    with zmq.Context() as context:
        made = []

        def make(kind, address, bind=False):
            socket = context.socket(kind)
            made.append(socket)
            socket.linger = 0
            socket.rcvtimeo = socket.sndtimeo = LIMIT * 1000
            if bind:
                socket.bind(address)
            else:
                socket.connect(address)
            return socket

        yield make
        for socket in made:
            socket.close()


def packed(thing):
    return msgpack.packb(thing, default=msgpack_numpy.encode)


def unpacked(message):
    return msgpack.unpackb(message, object_hook=msgpack_numpy.decode)


@pytest.mark.parametrize("binds", [True, False])
def test_batches_go_out(machines, foreign, binds):
    with Pipeline([noise()]) as pipeline:
        at_home = list(pipeline.forever())
    if binds:
        sink = ZMQSink("tcp://127.0.0.1:*", **FOREIGN)
        data = machines.add(noise(), sink)
        pull = foreign(zmq.PULL, sink.address)
    else:
        pull = foreign(zmq.PULL, "tcp://127.0.0.1:*", bind=True)
        address = pull.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        data = machines.add(noise(), ZMQSink(address, bind=False, **FOREIGN))
    for batch in at_home:
        images, labels = unpacked(pull.recv())
        for mine, theirs in ((batch.images, images), (batch.labels, labels)):
            assert theirs.dtype == mine.dtype
            assert np.array_equal(theirs, mine)
    data.wait(LIMIT)


def test_offsets_go_out_last(machines, foreign):
    """Without them, nobody could tell whose boxes are whose."""

    def boxes(batch):
        return Batch({"boxes": np.ones((3, 4))}, indices=[0, 1], offsets=[0, 2, 3], ragged=["boxes"])

    sink = ZMQSink("tcp://127.0.0.1:*", **FOREIGN)
    data = machines.add(Numbers(1), Call(boxes), sink)
    rows, offsets = unpacked(foreign(zmq.PULL, sink.address).recv())
    assert rows.shape == (3, 4) and offsets.tolist() == [0, 2, 3]
    data.wait(LIMIT)


def test_offsets_of_each_field_go_out_last(machines, foreign):
    def texts(batch):
        fields = {"tokens": np.arange(5), "labels": np.arange(2), "audio": np.ones((4, 2))}
        return Batch(fields, indices=[0, 1], ragged={"audio": [0, 4, 4], "tokens": [0, 2, 5]})

    sink = ZMQSink("tcp://127.0.0.1:*", **FOREIGN)
    data = machines.add(Numbers(1), Call(texts), sink)
    *_, of_tokens, of_audio = found = unpacked(foreign(zmq.PULL, sink.address).recv())
    assert len(found) == 5
    assert of_tokens.tolist() == [0, 2, 5] and of_audio.tolist() == [0, 4, 4]
    data.wait(LIMIT)


@pytest.mark.parametrize("binds", [True, False])
def test_batches_come_in(machines, foreign, binds):
    rng = np.random.default_rng(0)
    sent = [
        [rng.integers(0, 255, (4, 3, 5), np.uint8), rng.random(4), rng.integers(0, 9, 4)] for _ in range(20)
    ]
    if binds:
        source = ZMQSource("tcp://127.0.0.1:*", bind=True, **FOREIGN)
        pipeline = machines.add(source)
        push = foreign(zmq.PUSH, source.address)
    else:
        push = foreign(zmq.PUSH, "tcp://127.0.0.1:*", bind=True)
        address = push.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        pipeline = machines.add(ZMQSource(address, **FOREIGN))
    for arrays in sent:
        push.send(packed(arrays))
    for number, arrays in enumerate(sent):
        batch = pipeline.dequeue(timeout=LIMIT)
        assert list(batch.fields) == ["images", "labels", "field2"]
        assert (batch.epoch, batch.seq) == (0, number)
        for mine, theirs in zip(arrays, batch, strict=True):
            assert mine.dtype == theirs.dtype
            assert np.array_equal(mine, theirs)
        batch.images[:] = 0


def test_names_come_in(machines, foreign):
    source = ZMQSource("tcp://127.0.0.1:*", bind=True, **FOREIGN)
    pipeline = machines.add(source)
    foreign(zmq.PUSH, source.address).send(packed({"boxes": np.eye(3), "masks": np.zeros((3, 2), bool)}))
    batch = pipeline.dequeue(timeout=LIMIT)
    assert list(batch.fields) == ["boxes", "masks"]
    foreign(zmq.PUSH, source.address).send(packed([np.zeros((2, 2)), np.zeros(3)]))
    with pytest.raises(ProtocolError, match="field 'labels' has 3 rows, and field 'images' has 2"):
        pipeline.dequeue(timeout=LIMIT)


def test_worker_between_foreigners(machines, foreign):
    push = foreign(zmq.PUSH, "tcp://127.0.0.1:*", bind=True)
    pull = foreign(zmq.PULL, "tcp://127.0.0.1:*", bind=True)
    above, below = (each.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode() for each in (push, pull))
    double = Call(lambda batch: batch.replace(images=batch.images * 2))
    machines.add(ZMQSource(above, **FOREIGN), double, ZMQSink(below, bind=False, **FOREIGN))
    for number in range(10):
        push.send(packed([np.full((2, 2), number), np.zeros(2)]))
    for number in range(10):
        assert unpacked(pull.recv())[0].tolist() == [[2 * number] * 2] * 2


class Thing:
    """What is asked to be made when it is unpickled."""

    made = False

    def __reduce__(self):
        return Thing._make, ()

    @staticmethod
    def _make():
        Thing.made = True
        return Thing()


@pytest.mark.parametrize(
    "hostile",
    [
        np.array([Thing()], dtype=object),
        np.zeros(2, [("a", "i4"), ("b", "O")]),
        np.zeros(2, "S3"),
        np.zeros(2, "V8"),
    ],
)
def test_hostile_arrays_are_refused_and_listed(machines, foreign, hostile):
    source = ZMQSource("tcp://127.0.0.1:*", bind=True, timeout=LIMIT, **FOREIGN)
    pipeline = machines.add(source)
    push = foreign(zmq.PUSH, source.address)
    push.send(packed([hostile]))
    push.send(b"\xc1 no message")
    push.send_multipart([packed([np.zeros(2)]), packed([np.zeros(2)])])
    push.send(packed([np.arange(3)]))
    batch = pipeline.dequeue(timeout=LIMIT)
    assert batch.images.tolist() == [0, 1, 2]
    eventually(lambda: len(pipeline.errors) == 3)
    assert not Thing.made


def test_batches_without_epochs_are_one_epoch(machines):
    """A for after a break goes on: nothing says where an epoch ends."""
    with Pipeline([noise()]) as pipeline:
        at_home = [batch.images.tolist() for batch in pipeline.forever()]
    sink = ZMQSink("tcp://127.0.0.1:*", **FOREIGN)
    machines.add(noise(), sink)
    pipeline, _ = machines.trainer(sink.address, bind=False, **FOREIGN)
    found = []
    for upto in (3, 7, len(at_home)):
        for batch in pipeline:
            found.append(batch.images.tolist())
            if len(found) == upto:
                break
    assert found == at_home


def test_error_ends_the_sink_since_foreigners_cannot_be_told(machines, foreign):
    sink = ZMQSink("tcp://127.0.0.1:*", **FOREIGN)

    def explode(batch):
        raise KeyError("what it was")

    data = machines.add(Numbers(3), Call(explode), sink)
    with pytest.raises(KeyError):
        data.wait(LIMIT)


def test_nobody_sends(machines):
    pipeline = machines.add(ZMQSource("tcp://127.0.0.1:*", bind=True, timeout=0.2, **FOREIGN))
    with pytest.raises(PeerLostError):
        pipeline.dequeue(timeout=LIMIT)
