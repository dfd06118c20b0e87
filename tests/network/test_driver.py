"""The sockets of a machine: what is done for its role, whatever comes, fails, or wakes the thread."""

import math
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import zmq
from concurrency import LIMIT, Task

from highway.network.protocol.link import BYE, NO_LINK
from highway.network.protocol.messages import Bye, Cursor, Data, Item, Key, Kind, Ready, State
from highway.network.protocol.producer import Producer
from highway.network.protocol.wire import decode, encode
from highway.network.zmq import socket_thread as driver
from highway.network.zmq.addresses import parse
from highway.network.zmq.ends import Endpoint, Peer
from highway.network.zmq.security import Security
from highway.network.zmq.socket_thread import SocketThread

OPEN = Security("Test", None, False)
IDENTITY = b"caller"


class Role:
    """One that has nothing to say, and counts."""

    offers = False

    def __init__(self, ticks=1):
        self.enough = ticks
        self.ticks = 0
        self.done = threading.Event()
        self.received = []

    def receive(self, upstream, peer, message, now):
        self.received.append(message)

    def settle(self):
        pass

    def due(self):
        return None

    def tick(self, now):
        self.ticks += 1
        if self.ticks >= self.enough:
            self.done.set()


@pytest.fixture
def address(tmp_path):
    return f"ipc://{tmp_path}/here"


@pytest.fixture
def made(address):
    """Makes a driver of a role that is bound, without its thread; ended with the test."""
    drivers = []

    def make(role, **options):
        endpoint = Endpoint((parse("Test", address, bind=True),), True, OPEN, 4)
        drivers.append(SocketThread("test", role, downstream=endpoint, **options))
        return drivers[-1]

    yield make
    for each in drivers:
        each.stop()
        assert each.join(LIMIT)


@pytest.fixture
def caller(address):
    """A socket that is connected to it."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.routing_id = IDENTITY
        socket.connect(address)
        yield socket


@pytest.fixture
def clock(monkeypatch):
    """The driver's time stands still but for what it is moved."""
    clock = SimpleNamespace(now=100.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(driver, "time", clock)
    return clock


def test_time_passes_for_a_role_that_nobody_speaks_to(made):
    role = Role(3)
    made(role).start()
    assert role.done.wait(LIMIT)


def test_time_passes_for_a_role_that_is_woken_all_the_time(made, clock):
    """Who is dead is found out, and PING is said, also where every wait ends early."""
    role = Role()
    one = made(role)
    one.work({}, math.inf)
    before = role.ticks
    for _ in range(10):
        clock.now += driver.BEAT / 16
        one.work({}, math.inf)
    assert role.ticks == before
    clock.now += driver.BEAT / 2
    one.work({}, math.inf)
    assert role.ticks == before + 1


def sent(caller, *messages):
    for message in messages:
        caller.send_multipart(encode(message))


def arrives(one, role, count):
    """What the role has received, once it is so many messages."""
    waited = threading.Event()
    for _ in range(1000 * LIMIT):
        one.work(dict.fromkeys([end.descriptor for end in one.ends], 1), math.inf)
        if len(role.received) >= count:
            return role.received
        waited.wait(0.001)
    raise AssertionError(f"{len(role.received)} messages came, not {count}")


@pytest.mark.parametrize("turn", [1, 5, 32])
@pytest.mark.parametrize("frames", [1, 48])
def test_every_message_is_read_once_and_in_order(made, caller, monkeypatch, turn, frames):
    monkeypatch.setattr(driver, "TURN", turn)
    monkeypatch.setattr(driver, "FRAMES", frames)
    role = Role()
    one = made(role)
    messages = [Bye(str(number)) for number in range(100)]
    sent(caller, *messages)
    assert arrives(one, role, 100) == messages


def test_goodbye_reads_on_to_the_answer(made, caller, monkeypatch):
    """It lies behind other messages, and no descriptor tells of it any more."""
    monkeypatch.setattr(driver, "TURN", 1)
    monkeypatch.setattr(driver, "BYE_LIMIT", 10 * LIMIT)
    role, producer = Role(), Producer(bytes)
    one = made(role, producer=producer)
    # Somebody who asks for nothing, and is to hear of the end all the same.
    presence = State(NO_LINK, 0, (), ())
    producer.receive(Peer(0, IDENTITY), presence, 0.0)
    sent(caller, *[presence] * 200, Bye(BYE))
    arrives(one, role, 1)
    Task(one._exchange_byes).result()


@pytest.fixture
def asked(made, caller):
    """A driver of a producer that a consumer has asked for items."""
    role, producer = Role(), Producer(bytes)
    one = made(role, producer=producer)
    sent(caller, Bye("who"))
    arrives(one, role, 1)
    producer.receive(Peer(0, IDENTITY), Ready(bytes(16), 8, 1 << 20, Cursor(1), ""), time.monotonic())
    return one


def offered(one, seq, *arrays):
    with one.lock:
        one.producer.offer(Key(0, seq, 0), 1, "", Item(Kind.BATCH, [], arrays))


def came(caller):
    assert caller.poll(1000 * LIMIT)
    message = decode(caller.recv_multipart())
    return message.key.seq if isinstance(message, Data) else message


def test_batch_is_sent_by_who_hands_it_in(asked, caller):
    """Its thread does not run."""
    for seq in range(3):
        offered(asked, seq)
        asked.push()
    assert [came(caller) for _ in range(3)] == [0, 1, 2]
    assert asked.sent_items == 3


def test_batch_is_left_to_the_thread_where_somebody_is_at_the_sockets(asked, caller):
    offered(asked, 0)
    with asked._sockets_lock:
        asked.push()
    assert asked.awake and asked.sent_items == 0
    asked.step()
    assert came(caller) == 0


def test_blocked_peer_is_tried_again(asked, caller, monkeypatch):
    offered(asked, 0)
    with monkeypatch.context() as patch:
        patch.setattr(asked, "_send", lambda peer, message: False)
        asked.push()
    assert asked.awake and asked.sent_items == 0
    while not asked.sent_items:
        asked.step()
    assert came(caller) == 0


def test_who_was_blocked_is_forgotten_where_nothing_is_left_to_be_sent(asked):
    """Else the thread would look after him for ever."""
    asked._blocked["gone"] = 0.0
    asked.step()
    assert not asked._blocked


def test_what_cannot_be_sent_ends_all(asked, caller, monkeypatch):
    """The thread learns of it, and nothing is said behind half a message."""

    class Broken:
        """A socket that fails in the middle."""

        def __init__(self, socket):
            self.socket, self.left = socket, 2

        def __getattr__(self, name):
            return getattr(self.socket, name)

        def send(self, *arguments, **options):
            self.left -= 1
            if self.left < 0:
                raise MemoryError
            return self.socket.send(*arguments, **options)

    offered(asked, 0, np.zeros(3))
    (end,) = asked.ends
    with monkeypatch.context() as patch:
        patch.setattr(end, "socket", Broken(end.socket))
        with pytest.raises(MemoryError):
            asked.push()
    assert isinstance(asked.error, MemoryError) and asked.closing
    asked.start()
    asked.join(LIMIT)
    assert not caller.poll(200)


def test_who_cannot_be_reached_is_forgotten_in_the_end(made, clock):
    """A machine that only receives has no producer that would be told."""
    one = made(Role())
    assert not one._send(Peer(0, b"nobody"), Bye("end"))
    assert one._unreachable
    clock.now += 10 * driver.UNREACHABLE
    one.work({}, math.inf)
    assert not one._unreachable
