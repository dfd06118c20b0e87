"""Addresses: which are allowed, which are local, and what binding and connecting to them does."""

import multiprocessing
import os
import platform
import socket as plain
import stat
import subprocess
import sys
import threading

import pytest
import zmq
from concurrency import LIMIT, Task, eventually
from hypothesis import given
from hypothesis import strategies as st

from highway.errors import (
    AddressError,
    AddressInUseError,
    ArgumentError,
    PipelineStateError,
    SecurityError,
)
from highway.network.zmq import sockets
from highway.network.zmq.addresses import Address, parse
from highway.network.zmq.security import Security
from highway.network.zmq.sockets import bind, close_context, connect, open_context

PLAIN = Security("Test")


@pytest.fixture(autouse=True)
def no_secret_in_the_environment(monkeypatch):
    monkeypatch.delenv("HIGHWAY_SECRET_FILE", raising=False)


@pytest.fixture
def context():
    context = open_context()
    yield context
    close_context(context)


def bound(context, text, **options):
    return bind(context, parse("Sink", text, bind=True), security=PLAIN, window=8, **options)


def connected(context, text, **options):
    return connect(context, parse("Source", text, bind=False), security=PLAIN, window=8, **options)


def where(socket):
    return socket.getsockopt(zmq.LAST_ENDPOINT).decode()


def talk(hub, peer):
    """A message each way."""
    peer.send(b"there")
    assert hub.poll(LIMIT * 1000)
    name, message = hub.recv_multipart()
    hub.send_multipart([name, b"and back"])
    assert peer.poll(LIMIT * 1000)
    assert (message, peer.recv()) == (b"there", b"and back")


# What is allowed


@pytest.mark.parametrize(
    ("text", "address", "endpoint", "local"),
    [
        ("tcp://127.0.0.1:5555", ("tcp", "127.0.0.1", 5555), "tcp://127.0.0.1:5555", True),
        ("tcp://127.8.9.1:1", ("tcp", "127.8.9.1", 1), "tcp://127.8.9.1:1", True),
        ("tcp://localhost:65535", ("tcp", "localhost", 65535), "tcp://127.0.0.1:65535", True),
        ("tcp://LocalHost.:5", ("tcp", "localhost", 5), "tcp://127.0.0.1:5", True),
        ("tcp://[::1]:5555", ("tcp", "::1", 5555), "tcp://[::1]:5555", True),
        ("tcp://[0:0:0:0:0:0:0:1]:5", ("tcp", "::1", 5), "tcp://[::1]:5", True),
        ("tcp://[::ffff:127.0.0.1]:5", None, None, True),
        ("tcp://[fe80::1%eth0]:5", ("tcp", "fe80::1%eth0", 5), "tcp://[fe80::1%eth0]:5", False),
        ("tcp://[::ffff:10.0.0.1]:5", None, None, False),
        ("tcp://10.0.0.5:0080", ("tcp", "10.0.0.5", 80), "tcp://10.0.0.5:80", False),
        ("tcp://node-1.cluster_a.example:5", ("tcp", "node-1.cluster_a.example", 5), None, False),
        ("tcp://localhost.example:5", ("tcp", "localhost.example", 5), None, False),
        ("tcp://loopback:5", ("tcp", "loopback", 5), None, False),
        ("ipc:///tmp/a b.sock", ("ipc", "/tmp/a b.sock", 0), "ipc:///tmp/a b.sock", True),
        ("ipc://relative.sock", ("ipc", "relative.sock", 0), "ipc://relative.sock", True),
        ("ipc://@name", ("ipc", "@name", 0), "ipc://@name", True),
        ("inproc://name", ("inproc", "name", 0), "inproc://name", True),
    ],
)
@pytest.mark.parametrize("binds", [True, False])
def test_what_is_allowed(text, address, endpoint, local, binds):
    found = parse("Sink", text, bind=binds)
    assert address is None or found == address
    assert found.is_local is local
    assert str(found) == found.endpoint
    # How a mapped address is written depends on the version of Python.
    assert address is None or found.endpoint == (endpoint or text)


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("tcp://*:5555", "tcp://*:5555"),
        ("tcp://0.0.0.0:5555", "tcp://0.0.0.0:5555"),
        ("tcp://[::]:5555", "tcp://[::]:5555"),
        ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*"),
        ("tcp://127.0.0.1:0", "tcp://127.0.0.1:*"),
    ],
)
def test_what_only_binding_allows(text, endpoint):
    found = parse("Sink", text, bind=True)
    assert found.endpoint == endpoint
    assert found.is_local == ("127" in text)
    with pytest.raises(ArgumentError, match=r"Source: addr is 'tcp://"):
        parse("Source", text, bind=False)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected tcp://HOST:PORT, ipc://PATH or inproc://NAME"),
        ("10.0.0.5:5555", "expected tcp://HOST:PORT"),
        ("udp://10.0.0.5:5555", "expected tcp://HOST:PORT"),
        ("TCP://10.0.0.5:5555", "expected tcp://HOST:PORT"),
        (None, "expected text"),
        (b"tcp://10.0.0.5:5555", "expected text"),
        ("tcp://", "it has no port"),
        ("tcp://10.0.0.5", "it has no port"),
        ("tcp://10.0.0.5:", "it has no port"),
        ("tcp://:5555", "it has no host"),
        ("tcp://10.0.0.5:65536", "not a port; expected 1 to 65535"),
        ("tcp://10.0.0.5:-1", "not a port"),
        ("tcp://10.0.0.5:+1", "not a port"),
        ("tcp://10.0.0.5:5555/x", "not a port"),
        ("tcp://10.0.0.5:!", "not a port"),
        ("tcp://10.0.0.5:²", "not a port"),
        ("tcp://10.0.0.5:" + 5000 * "1", "not a port"),
        ("tcp://::1:5555", "brackets"),
        ("tcp://[::1]", "it has no port"),
        ("tcp://[::1]5555", "it has no port"),
        ("tcp://[::1:5555", "brackets"),
        ("tcp://[10.0.0.5]:5555", "brackets"),
        ("tcp://[::g]:5555", "'::g' is not an IP address"),
        ("tcp://[::1%a;b]:5555", "not a name of a network interface"),
        ("tcp://127.1:5555", "'127.1' is not an IP address"),
        ("tcp://2130706433:5555", "not an IP address"),
        ("tcp://0x7f.1:5555", "not an IP address"),
        ("tcp://256.0.0.1:5555", "not an IP address"),
        ("tcp://127.0.0.1;10.0.0.5:5555", "not an IP address"),
        ("tcp://eth0;node:5555", "not a host name"),
        ("tcp://a b:5555", "not a host name"),
        ("tcp://-a:5555", "not a host name"),
        ("tcp://" + 254 * "a" + ":5555", "not a host name"),
        ("tcp://nöde:5555", "not a host name"),
        ("ipc://", "expected ipc://PATH"),
        ("ipc://@", "expected ipc://PATH"),
        ("ipc://*", "expected ipc://PATH"),
        ("ipc://a\0b", "zero byte"),
        ("ipc://" + 108 * "a", "108 bytes after the //; expected at most 107"),
        ("ipc://" + 54 * "ä", "108 bytes"),
        ("ipc://\udcff", "UTF-8"),
        ("inproc://", "expected inproc://NAME"),
    ],
)
def test_what_is_not_allowed_is_named(text, reason):
    for binds in (True, False):
        with pytest.raises(ArgumentError) as refused:
            parse("Sink", text, bind=binds)
        assert str(refused.value).startswith(f"Sink: addr is {text!r}: ")
        assert reason in str(refused.value)


PARTS = st.sampled_from(
    ["tcp://", "ipc://", "inproc://", "127.0.0.1", "::1", "[", "]", ":", "*", "0", "@", ";", "%", "."]
)


@given(st.lists(PARTS | st.text(max_size=4), max_size=8).map("".join), st.booleans())
def test_any_text_is_an_address_or_an_argument_error(text, binds):
    try:
        address = parse("Sink", text, bind=binds)
    except ArgumentError:
        return
    # What we make of it means the same to us, and has nothing in it that libzmq takes apart.
    assert parse("Sink", address.endpoint, bind=binds).endpoint == address.endpoint
    assert address.scheme != "tcp" or not set(address.endpoint) & set(";\0 ")


@given(st.ip_addresses())
def test_every_ip_address_is_local_exactly_if_it_is_loopback(ip):
    text = f"[{ip}]" if ip.version == 6 else str(ip)
    address = parse("Sink", f"tcp://{text}:5", bind=True)
    inner = getattr(ip, "ipv4_mapped", None) or ip
    assert address.is_local == inner.is_loopback


# tcp


@pytest.mark.parametrize(
    "text", ["tcp://127.0.0.1:*", "tcp://localhost:0", "ipc://@highway-test-pair", "inproc://pair"]
)
def test_both_ends_of_a_free_port_or_name_meet(context, text):
    text = text.replace("test", f"test-{os.getpid()}")
    with bound(context, text) as hub, connected(context, where(hub)) as peer:
        talk(hub, peer)


def test_ipv6(context):
    try:
        with plain.socket(plain.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with bound(context, "tcp://[::1]:*") as hub, connected(context, where(hub)) as peer:
        assert where(hub).startswith("tcp://[::1]:")
        talk(hub, peer)


def test_used_port_is_named(context):
    with plain.create_server(("127.0.0.1", 0)) as other:
        text = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(AddressInUseError, match=f"Test: {text} is in use") as refused:
            bound(context, text)
    assert isinstance(refused.value, OSError)


@pytest.mark.parametrize("text", ["inproc://twice", "ipc://@highway-test-twice"])
def test_used_name_is_named(context, text):
    with bound(context, text), pytest.raises(AddressInUseError, match="in use"):
        bound(context, text)


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_only_own_addresses_can_be_bound(context, host):
    with (
        pytest.warns(UserWarning, match="without a secret"),
        pytest.raises(AddressError, match=rf"tcp://{host}:5 cannot be bound.*tcp://\*:5 for all"),
    ):
        bind(
            context, parse("S", f"tcp://{host}:5", bind=True), security=Security("S", insecure=True), window=8
        )


def fail_to_find(number):
    def getaddrinfo(*_, **__):
        raise plain.gaierror(number, "told by the test")

    return getaddrinfo


@pytest.mark.filterwarnings("ignore::highway.errors.InsecureWarning")
def test_unknown_host_is_named_and_an_unknown_one_for_now_is_logged(context, monkeypatch, caplog):
    address = parse("Source", "tcp://no-such-host.invalid:5", bind=False)
    security = Security("Source", insecure=True)
    monkeypatch.setattr(plain, "getaddrinfo", fail_to_find(plain.EAI_NONAME))
    with pytest.raises(AddressError, match=r"no host 'no-such-host\.invalid'"):
        connect(context, address, security=security, window=8)
    monkeypatch.setattr(plain, "getaddrinfo", fail_to_find(plain.EAI_AGAIN))
    connect(context, address, security=security, window=8).close()
    assert "the name server does not answer for host 'no-such-host.invalid'" in caplog.text


@pytest.mark.filterwarnings("ignore::highway.errors.InsecureWarning")
def test_host_with_nothing_but_ipv6_is_called_by_ipv6(context, monkeypatch):
    security = Security("Source", insecure=True)
    for family, ipv6 in ((plain.AF_INET6, 1), (plain.AF_INET, 0)):
        monkeypatch.setattr(plain, "getaddrinfo", lambda *_, family=family, **__: [(family, 0, 0, "", ())])
        with connect(
            context, parse("S", "tcp://host.invalid:5", bind=False), security=security, window=8
        ) as peer:
            assert peer.getsockopt(zmq.IPV6) == ipv6


def test_local_addresses_are_never_looked_up(context, monkeypatch):
    monkeypatch.setattr(plain, "getaddrinfo", fail_to_find(plain.EAI_NONAME))
    for text in ("tcp://localhost:5", "tcp://127.0.0.1:5", "tcp://[::1]:5", "ipc://@x", "inproc://x"):
        connected(context, text).close()


# ipc


def test_socket_file_is_ours_alone_and_goes_with_the_socket(context, tmp_path):
    before = os.umask(0)
    try:
        hub = bound(context, f"ipc://{tmp_path}/made/hub.sock")
    finally:
        os.umask(before)
    path = tmp_path / "made" / "hub.sock"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_ISSOCK(path.stat().st_mode) and stat.S_IMODE(path.stat().st_mode) == 0o600
    with connected(context, f"ipc://{path}") as peer:
        talk(hub, peer)
    hub.close()
    assert not path.exists()
    hub.close()


def test_relative_path_is_removed_after_a_change_of_folder(context, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with bound(context, "ipc://hub.sock"):
        assert (tmp_path / "hub.sock").exists()
        monkeypatch.chdir("/")
    assert not (tmp_path / "hub.sock").exists()


def test_live_listener_is_not_robbed(context, tmp_path):
    text = f"ipc://{tmp_path}/hub.sock"
    with bound(context, text) as hub:
        with pytest.raises(AddressInUseError, match="another socket is bound to it"):
            bound(context, text)
        with connected(context, text) as peer:
            talk(hub, peer)


def test_listener_that_accepts_nobody_any_more_is_alive(context, tmp_path):
    path = str(tmp_path / "hub.sock")
    with plain.socket(plain.AF_UNIX) as busy, plain.socket(plain.AF_UNIX) as first:
        busy.bind(path)
        busy.listen(0)
        first.connect(path)
        with pytest.raises(AddressInUseError, match="another socket is bound to it"):
            bound(context, f"ipc://{path}")
    assert os.path.exists(path)


def stale(path):
    with plain.socket(plain.AF_UNIX) as gone:
        gone.bind(str(path))


def test_socket_of_a_dead_process_is_replaced(context, tmp_path):
    stale(tmp_path / "hub.sock")
    text = f"ipc://{tmp_path}/hub.sock"
    with bound(context, text) as hub, connected(context, text) as peer:
        talk(hub, peer)


def test_of_many_that_replace_a_dead_socket_one_wins(context, tmp_path):
    path = tmp_path / "hub.sock"
    for _ in range(20):
        stale(path)
        barrier = threading.Barrier(4)

        def try_to_bind(barrier=barrier):
            barrier.wait(LIMIT)
            try:
                return bound(context, f"ipc://{path}")
            except AddressInUseError:
                return None

        hubs = [task.result() for task in [Task(try_to_bind) for _ in range(4)]]
        [hub] = [hub for hub in hubs if hub is not None]
        hub.close()


def test_file_that_is_no_socket_is_left_alone(context, tmp_path):
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(AddressInUseError, match="not a socket"):
        bound(context, f"ipc://{path}")
    assert path.read_text() == "data"


def test_path_that_was_taken_over_is_left_alone(context, tmp_path):
    path = tmp_path / "hub.sock"
    with bound(context, f"ipc://{path}"):
        path.unlink()
        stale(path)
    assert path.exists()


@pytest.mark.parametrize(("mode", "refused"), [(0o777, True), (0o770, True), (0o1777, False), (0o755, False)])
def test_folder_that_others_can_write_to_is_refused(context, tmp_path, mode, refused):
    folder = tmp_path / "shared folder"
    folder.mkdir()
    folder.chmod(mode)
    if refused:
        with pytest.raises(SecurityError, match=f"mode {mode:04o}.*chmod go-w '{folder}'"):
            bound(context, f"ipc://{folder}/hub.sock")
        assert list(folder.iterdir()) == []
    else:
        bound(context, f"ipc://{folder}/hub.sock").close()


def test_folder_of_somebody_else_is_refused(context, tmp_path, monkeypatch):
    folder = tmp_path / "theirs"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SecurityError, match="belongs to user"):
        bound(context, f"ipc://{folder}/hub.sock")


def test_folder_without_a_parent_is_named(context, tmp_path):
    with pytest.raises(AddressError, match="mkdir -p"):
        bound(context, f"ipc://{tmp_path}/a/b/hub.sock")


def test_folder_that_stays_locked_is_named(context, tmp_path, monkeypatch):
    monkeypatch.setattr(sockets, "FOLDER_LIMIT", 0.05)
    with sockets._locked(sockets._folder(str(tmp_path))), pytest.raises(AddressInUseError, match="locked"):
        bound(context, f"ipc://{tmp_path}/hub.sock")


# Options


def test_options_of_a_hub(context):
    with bound(context, "tcp://127.0.0.1:*") as hub:
        assert_common_options(hub)
        with pytest.raises(zmq.ZMQError) as unknown:
            hub.send_multipart([b"nobody", b""])
        assert unknown.value.errno == zmq.EHOSTUNREACH


def test_options_of_who_connects(context):
    with connected(context, "tcp://127.0.0.1:5") as peer:
        assert_common_options(peer)
        assert peer.getsockopt(zmq.IMMEDIATE) == 1
        assert peer.getsockopt(zmq.RECONNECT_IVL) == 100
        assert peer.getsockopt(zmq.RECONNECT_IVL_MAX) == 5000


def assert_common_options(socket):
    assert socket.getsockopt(zmq.SNDHWM) == socket.getsockopt(zmq.RCVHWM) == 2 * 8 + 16
    assert socket.getsockopt(zmq.LINGER) == 0
    assert socket.getsockopt(zmq.MAXMSGSIZE) == 256 * 1024 * 1024
    assert socket.getsockopt(zmq.HANDSHAKE_IVL) == 5000
    assert socket.getsockopt(zmq.HEARTBEAT_IVL) == 5000
    assert socket.getsockopt(zmq.HEARTBEAT_TIMEOUT) == 60_000


def test_routing_ids_are_random_and_none_begins_with_zero(context, monkeypatch):
    monkeypatch.setattr(sockets.secrets, "randbelow", lambda limit: 0)
    ids = []
    for _ in range(20):
        with connected(context, "inproc://x") as peer:
            ids.append(peer.getsockopt(zmq.ROUTING_ID))
    assert {len(name) for name in ids} == {16}
    assert {name[0] for name in ids} == {1}
    assert len(set(ids)) == 20


def test_peer_that_comes_back_takes_its_name_over(context):
    with bound(context, "inproc://hub") as hub, zmq_socket(context) as first, zmq_socket(context) as second:
        for peer in (first, second):
            peer.setsockopt(zmq.ROUTING_ID, b"same")
            peer.connect("inproc://hub")
            talk(hub, peer)
        hub.send_multipart([b"same", b"for the second"])
        assert second.poll(LIMIT * 1000) and second.recv() == b"for the second"
        assert not first.poll(0)


def zmq_socket(context):
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    return socket


@pytest.mark.parametrize("binds", [zmq.PUSH, zmq.PULL])
def test_push_and_pull(context, binds):
    other = zmq.PULL if binds == zmq.PUSH else zmq.PUSH
    with (
        bound(context, "tcp://127.0.0.1:*", kind=binds) as hub,
        connected(context, where(hub), kind=other) as peer,
    ):
        push, pull = (hub, peer) if binds == zmq.PUSH else (peer, hub)
        assert push.poll(LIMIT * 1000, zmq.POLLOUT)
        push.send(b"batch")
        assert pull.poll(LIMIT * 1000) and pull.recv() == b"batch"
        assert_common_options(hub)


@pytest.mark.parametrize("window", [0, -1, 1.5, True, None])
def test_window_is_checked(context, window):
    with pytest.raises(ArgumentError, match="window is"):
        bind(context, Address("inproc", "x"), security=PLAIN, window=window)


# Monitor


def test_monitor_counts_connections(context):
    with bound(context, "tcp://127.0.0.1:*") as hub:
        peers = [connected(context, where(hub)) for _ in range(3)]
        for peer in peers:
            talk(hub, peer)
        hub.watch.read()
        assert hub.watch.connections == 3
        peers.pop().close()
        eventually(lambda: hub.watch.read() and hub.watch.connections == 2)
        for peer in peers:
            talk(hub, peer)
            assert [event.text for event in peer.watch.read()] == ["connected", "handshake succeeded"]
            assert peer.watch.connections == 1
            assert peer.watch.failure is None and not peer.watch.gave_up
            peer.close()


def test_peer_tells_when_the_hub_goes_and_comes_back(context, tmp_path):
    text = f"ipc://{tmp_path}/hub.sock"
    with connected(context, text) as peer:
        with bound(context, text) as hub:
            talk(hub, peer)
        seen = []
        eventually(lambda: seen.extend(peer.watch.read()) or "disconnected" in [event.text for event in seen])
        assert peer.watch.connections == 0
        with bound(context, text) as hub:
            # What is sent before may go the way of the connection that has ended.
            again = []
            eventually(
                lambda: (
                    again.extend(peer.watch.read())
                    or "handshake succeeded" in [event.text for event in again]
                )
            )
            talk(hub, peer)


# The context


def test_context_is_shared_in_the_process_and_is_nobody_else_s():
    first, second = open_context(), open_context()
    try:
        assert first is second
        assert first is not zmq.Context.instance()
    finally:
        close_context(first)
        assert not second.closed
        close_context(second)
        zmq.Context.instance().term()
    assert first.closed
    with pytest.raises(PipelineStateError, match="closed"):
        close_context(first)
    with pytest.raises(PipelineStateError, match="closed"):
        bound(first, "inproc://x")


def test_context_is_not_closed_under_a_socket():
    context = open_context()
    hub = bound(context, "inproc://x")
    with pytest.raises(PipelineStateError, match=r"still open: .*ROUTER"):
        close_context(context)
    hub.close()
    close_context(context)
    assert context.closed


FAULTS_OF_FRAMES = """
import resource
import numpy as np
from highway.network.zmq.sockets import close_context, open_context

context = open_context()
def faults():
    # Three of 3 MB at once, as frames under way: the end of the heap is free again and again.
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        frames = [np.ones(3 << 20, np.uint8) for _ in range(3)]
        del frames
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
close_context(context)
"""


@pytest.mark.once
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc of glibc")
def test_memory_of_frames_is_not_mapped_anew_for_each():
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))
    }
    answer = subprocess.run(
        [sys.executable, "-c", FAULTS_OF_FRAMES],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environment,
    )
    # Each frame has 768 pages.
    assert int(answer.stdout) < 768, answer.stdout


def test_other_contexts_are_refused():
    with zmq.Context() as context, pytest.raises(ArgumentError, match="open_context"):
        bound(context, "inproc://x")


def use_in_child(context, hub, path, answers):
    hub.close()
    close_context(context)
    try:
        bound(context, "inproc://x")
    except PipelineStateError as error:
        answers.send(str(error))
    fresh = open_context()
    with bound(fresh, "tcp://127.0.0.1:*") as ours, connected(fresh, where(ours)) as peer:
        talk(ours, peer)
    close_context(fresh)
    answers.send((fresh is not context, os.path.exists(path)))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_child_has_a_context_of_its_own_and_leaves_the_parent_s_alone(context, tmp_path):
    path = str(tmp_path / "hub.sock")
    ours, theirs = multiprocessing.Pipe()
    with bound(context, f"ipc://{path}") as hub:
        child = multiprocessing.get_context("fork").Process(
            target=use_in_child, args=(context, hub, path, theirs)
        )
        child.start()
        child.join(LIMIT)
        assert child.exitcode == 0
        assert "before a fork" in ours.recv()
        assert ours.recv() == (True, True)
        with connected(context, f"ipc://{path}") as peer:
            talk(hub, peer)
    ours.close()
    theirs.close()
