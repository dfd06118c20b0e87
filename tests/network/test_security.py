"""Who gets in and who does not: secrets, keys, the authenticator, and what strangers can disturb."""

import ast
import base64
import contextlib
import hashlib
import logging
import os
import pickle
import shlex
import socket as plain
import stat
import threading
import traceback
import warnings

import pytest
import zmq
from concurrency import LIMIT, eventually
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from highway.cli import main
from highway.errors import (
    ArgumentError,
    HighwayError,
    InsecureWarning,
    SecurityError,
)
from highway.network.zmq import security, sockets
from highway.network.zmq.addresses import parse
from highway.network.zmq.security import (
    Authenticator,
    Keys,
    Security,
    check_admission,
    find_keys,
    new_secret_file,
    quoted,
    read_secret_file,
)
from highway.network.zmq.sockets import bind, close_context, connect, open_context

# Text that no other message has, so that a leak of it is found.
SECRET = hashlib.blake2b(b"secret of the tests", digest_size=32).digest()
OTHER = hashlib.blake2b(b"another secret", digest_size=32).digest()
FORMS = {
    "bytes": SECRET,
    "bytearray": bytearray(SECRET),
    "hex": SECRET.hex(),
    "upper case": SECRET.hex().upper() + "\n",
    "base64": base64.b64encode(SECRET).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(SECRET).decode().rstrip("="),
}


@pytest.fixture(autouse=True)
def no_secret_in_the_environment(monkeypatch):
    monkeypatch.delenv("HIGHWAY_SECRET_FILE", raising=False)


@pytest.fixture
def context():
    context = open_context()
    yield context
    close_context(context)


def guarded(secret=SECRET):
    return Security("Test", secret)


def unguarded():
    return Security("Test")


def hub_at(context, text="tcp://127.0.0.1:*", use=None, **options):
    return bind(context, parse("Hub", text, bind=True), security=use or guarded(), window=8, **options)


def peer_of(context, hub, use=None, **options):
    address = parse("Peer", where(hub), bind=False)
    return connect(context, address, security=use or guarded(), window=8, **options)


def where(hub):
    return hub.getsockopt(zmq.LAST_ENDPOINT).decode()


def outcome(socket):
    """Wait for the end of the next handshake: its text."""
    while True:
        assert socket.watch.socket.poll(LIMIT * 1000), "no handshake ended"
        for event in socket.watch.read():
            if event.kind & security.HANDSHAKES:
                return event.text


def talk(hub, peer):
    peer.send(b"there")
    assert hub.poll(LIMIT * 1000)
    name, message = hub.recv_multipart()
    hub.send_multipart([name, b"and back"])
    assert peer.poll(LIMIT * 1000)
    assert (message, peer.recv()) == (b"there", b"and back")


# Where the secret comes from


def secret_file(folder, content=None, mode=0o600):
    path = folder / "the secret"
    path.write_bytes((SECRET.hex() + "\n").encode() if content is None else content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_secret_means_the_same(tmp_path, form):
    value = FORMS[form]
    expected = Keys(SECRET).fingerprint
    assert find_keys("M", value).fingerprint == expected
    content = value.encode() if isinstance(value, str) else bytes(value)
    assert find_keys("M", secret_file(tmp_path, content)).fingerprint == expected


def test_base64_may_have_every_character():
    for sign in (0xFB, 0xFF):
        value = bytes([sign]) * 32
        for text in (base64.b64encode(value), base64.urlsafe_b64encode(value)):
            assert find_keys("M", text.decode()).fingerprint == Keys(value).fingerprint


def test_environment_names_a_file(tmp_path, monkeypatch):
    assert find_keys("M") is None
    monkeypatch.setenv("HIGHWAY_SECRET_FILE", str(secret_file(tmp_path)))
    assert find_keys("M").fingerprint == Keys(SECRET).fingerprint
    assert find_keys("M", OTHER).fingerprint == Keys(OTHER).fingerprint
    monkeypatch.setenv("HIGHWAY_SECRET_FILE", str(tmp_path / "none"))
    with pytest.raises(SecurityError, match="HIGHWAY_SECRET_FILE names it"):
        find_keys("M")
    monkeypatch.setenv("HIGHWAY_SECRET_FILE", "")
    assert find_keys("M") is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (SECRET[:31], "31 bytes"),
        (SECRET + b"x", "33 bytes"),
        (b"", "0 bytes"),
        (SECRET.hex()[:-1], "a text of 63 characters"),
        (SECRET.hex()[:-1] + "g", "a text of 64 characters"),
        ("/path/as/text", "a text of 13 characters"),
        ("", "a text of 0 characters"),
        (12345, "of type int"),
        ([SECRET], "of type list"),
    ],
)
def test_what_is_no_secret_is_refused_without_being_shown(value, found):
    with pytest.raises(ArgumentError, match=f"^M: secret is {found}; expected 32 bytes") as refused:
        find_keys("M", value)
    assert str(value) == "" or str(value) not in str(refused.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644])
def test_secret_that_others_can_get_at_is_refused_with_the_command(tmp_path, mode):
    path = secret_file(tmp_path, mode=mode)
    with pytest.raises(SecurityError, match=f"mode {mode:04o}") as refused:
        read_secret_file(path)
    assert isinstance(refused.value, PermissionError)
    assert str(refused.value).endswith(f": chmod 600 {shlex.quote(str(path))}")
    assert os.system(str(refused.value).rpartition(": ")[2]) == 0
    read_secret_file(path)


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_secret_of_this_user_alone_is_taken(tmp_path, mode):
    assert read_secret_file(secret_file(tmp_path, mode=mode)).fingerprint == Keys(SECRET).fingerprint


def test_secret_of_another_user_is_refused(tmp_path, monkeypatch):
    path = secret_file(tmp_path)
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SecurityError, match="belongs to user"):
        read_secret_file(path)


@pytest.mark.parametrize(
    "content", [b"", b"\n", SECRET[:31], SECRET.hex().encode() * 2, b"\xff" * 100, b"0" * 10_000]
)
def test_file_without_a_secret_is_refused(tmp_path, content):
    with pytest.raises(SecurityError, match="has no secret in it"):
        read_secret_file(secret_file(tmp_path, content))


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, reason in (
        ("pipe", "not a regular file"),
        (".", "not a regular file"),
        ("none", "No such file"),
        ("\0", "path"),
    ):
        with pytest.raises(SecurityError, match=rf"{reason}.*highway keygen"):
            read_secret_file(f"{tmp_path}/{name}")


# Keys


def test_derivation_of_the_keys_stays_as_it_is():
    """Two versions of Highway that derive different keys cannot talk: computed here a second time."""
    keys = Keys(SECRET)
    server = hashlib.blake2b(b"", key=SECRET, digest_size=32, person=b"highway server").digest()
    client = hashlib.blake2b(b"", key=SECRET, digest_size=32, person=b"highway client").digest()
    assert keys.domain == b"highway " + zmq.curve_public(z85.encode(server))
    assert keys.admitted == z85.decode(zmq.curve_public(z85.encode(client)))
    assert keys.admitted.hex() == "57dcde9e0cfa85884b895c4a9ad10427a9428cf62b4909af1069139453bd0c73"
    assert keys.fingerprint != Keys(OTHER).fingerprint


# What is asked of whom


def test_local_addresses_need_no_secret_and_others_do(recwarn):
    use = unguarded()
    assert use.keys_for("tcp://127.0.0.1:5", local=True) is None
    with pytest.raises(SecurityError) as refused:
        use.keys_for("tcp://10.0.0.5:5555", local=False)
    assert str(refused.value).startswith("Test: tcp://10.0.0.5:5555 can be reached from other machines")
    for hint in ("highway keygen FILE", "HIGHWAY_SECRET_FILE", "insecure=True"):
        assert hint in str(refused.value)
    assert not recwarn.list


def test_insecure_is_warned_of_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HIGHWAY_SECRET_FILE", str(secret_file(tmp_path)))
    use = Security("Test", insecure=True)
    assert use.keys_for("tcp://127.0.0.1:5", local=True) is None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            assert use.keys_for("tcp://10.0.0.5:5555", local=False) is None
    assert [warning.category for warning in caught] == [InsecureWarning]
    assert str(caught[0].message).startswith("Test: tcp://10.0.0.5:5555 is used without a secret")


def test_secret_is_used_at_local_addresses_too():
    use = guarded()
    for local in (True, False):
        assert use.keys_for("tcp://127.0.0.1:5", local=local).fingerprint == Keys(SECRET).fingerprint


@pytest.mark.parametrize(
    "options", [{"secret": SECRET, "insecure": True}, {"insecure": 1}, {"insecure": None}]
)
def test_contradictions_are_refused(options):
    with pytest.raises(ArgumentError, match="insecure is"):
        Security("Test", **options)


def test_nothing_is_bound_or_connected_beyond_this_machine_without_a_secret(context):
    with pytest.raises(SecurityError, match=r"tcp://\*:5"):
        hub_at(context, "tcp://*:5", unguarded())
    with pytest.raises(SecurityError, match="host"):
        connect(context, parse("P", "tcp://host:5", bind=False), security=unguarded(), window=8)


# Who gets in


PLACES = ["tcp://127.0.0.1:*", "ipc://{}/hub.sock", "ipc://@highway-test-security"]


@pytest.mark.parametrize("place", PLACES)
def test_right_secret_talks(context, tmp_path, place):
    with hub_at(context, place.format(tmp_path)) as hub, peer_of(context, hub) as peer:
        assert hub.getsockopt(zmq.MECHANISM) == peer.getsockopt(zmq.MECHANISM) == zmq.CURVE
        talk(hub, peer)
        assert outcome(hub) == outcome(peer) == "handshake succeeded"


def test_everywhere_on_this_machine_with_a_secret(context):
    with hub_at(context, "tcp://*:*") as hub:
        port = where(hub).rpartition(":")[2]
        address = parse("Peer", f"tcp://127.0.0.1:{port}", bind=False)
        with connect(context, address, security=guarded(), window=8) as peer:
            talk(hub, peer)


def test_inproc_talks_with_a_secret_and_without(context):
    with hub_at(context, "inproc://hub") as hub, peer_of(context, hub, unguarded()) as peer:
        talk(hub, peer)
        # Nor is there anything to ask an authenticator for.
        assert hub.getsockopt(zmq.MECHANISM) == zmq.NULL
        assert "highway zap" not in {thread.name for thread in threading.enumerate()}


def test_push_and_pull_with_a_secret(context):
    with hub_at(context, kind=zmq.PUSH) as push, peer_of(context, push, kind=zmq.PULL) as pull:
        assert push.poll(LIMIT * 1000, zmq.POLLOUT)
        push.send(b"batch")
        assert pull.poll(LIMIT * 1000) and pull.recv() == b"batch"
    with (
        hub_at(context, kind=zmq.PUSH) as push,
        peer_of(context, push, guarded(OTHER), kind=zmq.PULL) as pull,
    ):
        outcome(pull)
        assert not push.poll(0, zmq.POLLOUT)


class Random:
    """Knows the hub's public key, and shows a key of its own."""

    owner = "Stranger"

    def keys_for(self, endpoint, *, local):
        return self

    def identify(self, socket):
        Keys(SECRET).identify_as_stranger(socket)


STRANGERS = {
    "another secret": (lambda: guarded(OTHER), "different secrets", False),
    "no secret": (unguarded, "one end has a secret, and the other has none", True),
    "random key": (Random, "the key was refused (status 400)", True),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("stranger", STRANGERS)
def test_strangers_get_nothing(context, tmp_path, stranger, place):
    use, reason, final = STRANGERS[stranger]
    with hub_at(context, place.format(tmp_path)) as hub, peer_of(context, hub) as friend:
        talk(hub, friend)
        assert outcome(hub) == "handshake succeeded"
        with peer_of(context, hub, use()) as peer:
            eventually(lambda: hub.watch.read() and reason in (hub.watch.failure or ""))
            # What the stranger sees of it comes on its own way.
            eventually(lambda: peer.watch.read() or peer.watch.failure)
            assert hub.watch.failure.startswith("handshake at ")
            eventually(lambda: not final or peer.watch.read() or peer.watch.gave_up)
            assert not peer.poll(0, zmq.POLLOUT)
            assert not hub.poll(0)
        talk(hub, friend)


def test_who_has_a_secret_talks_to_no_hub_without(context):
    with hub_at(context, use=unguarded()) as hub, peer_of(context, hub) as peer:
        eventually(lambda: peer.watch.read() and peer.watch.gave_up)
        assert "one end has a secret, and the other has none" in peer.watch.failure
        assert not peer.poll(0, zmq.POLLOUT)
        # Whoever has none on both ends is not asked by the authenticator, which is there by now or not.
        with (
            hub_at(context) as other,
            peer_of(context, other) as friend,
            peer_of(context, hub, unguarded()) as same,
        ):
            talk(other, friend)
            talk(hub, same)


def test_two_secrets_in_one_process_do_not_mix(context):
    with hub_at(context) as first, hub_at(context, use=guarded(OTHER)) as second:
        with peer_of(context, first) as peer, peer_of(context, second, guarded(OTHER)) as other:
            talk(first, peer)
            talk(second, other)
        with peer_of(context, second) as wrong:
            eventually(lambda: second.watch.read() and "different secrets" in (second.watch.failure or ""))
            assert not wrong.poll(0, zmq.POLLOUT)


# The authenticator


@pytest.fixture
def quiet_death(monkeypatch):
    """A thread may die here of an AssertionError."""
    monkeypatch.setattr(threading, "excepthook", lambda details: None)


def kill(context, monkeypatch):
    """End the authenticator of a context by an error."""

    def die(self, request):
        raise AssertionError("killed by the test")

    monkeypatch.setattr(Authenticator, "answer", die)
    monkeypatch.setattr(security, "SELF_TEST_LIMIT", 0.2)
    with pytest.raises(SecurityError):
        check_admission(context, Keys(SECRET))
    assert context.authenticator.join(LIMIT)


def test_dead_authenticator_lets_nobody_in(context, monkeypatch, quiet_death):
    # libzmq does not always hang up on whom it refuses for this reason; the time for the handshake ends it.
    monkeypatch.setattr(sockets, "HANDSHAKE", 200)
    with hub_at(context) as hub, peer_of(context, hub) as friend:
        talk(hub, friend)
        assert outcome(hub) == "handshake succeeded"
        with monkeypatch.context() as patched:
            kill(context, patched)
        for use in (guarded(), Random()):
            with peer_of(context, hub, use) as peer:
                # The same failure is often told twice, the second time without its cause.
                while "the authenticator of this process has ended" not in outcome(hub):
                    pass
                eventually(lambda peer=peer: peer.watch.read() and peer.watch.failure)
                assert not peer.poll(0, zmq.POLLOUT)
            assert "the authenticator of this process has ended" in hub.watch.failure
        assert not hub.poll(0)
        # Who was let in before stays.
        talk(hub, friend)
        monkeypatch.setattr(security, "SELF_TEST_LIMIT", 0.5)
        with pytest.raises(
            SecurityError, match=r"Self-test of the authenticator: the right key (is refused|gets no answer)"
        ):
            hub_at(context)


def test_that_the_authenticator_is_dead_is_told_until_the_end(context):
    with hub_at(context, "inproc://hub") as hub:
        for number in (14, 11):
            hub.watch._event(int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL), number, "tcp://hub")
        assert "the authenticator of this process has ended" in hub.watch.failure


def test_authenticator_that_lets_everyone_in_is_found(context, monkeypatch):
    monkeypatch.setattr(Authenticator, "is_admitted", lambda *_: True)
    with pytest.raises(SecurityError, match="the right key is admitted, the stranger key is admitted"):
        hub_at(context)


def test_authenticator_that_lets_nobody_in_is_found(context, monkeypatch):
    monkeypatch.setattr(Authenticator, "is_admitted", lambda *_: False)
    with pytest.raises(SecurityError, match="the right key is refused, the stranger key is refused"):
        hub_at(context)


def test_authenticator_that_does_not_answer_is_found(context, monkeypatch):
    asked, go_on = threading.Event(), threading.Event()

    def wait(self, *_):
        asked.set()
        assert go_on.wait(LIMIT)
        return False

    monkeypatch.setattr(Authenticator, "is_admitted", wait)
    monkeypatch.setattr(security, "SELF_TEST_LIMIT", 0.2)
    with pytest.raises(SecurityError, match="the right key gets no answer"):
        hub_at(context)
    assert asked.is_set()
    go_on.set()


def test_socket_without_a_guard_is_found(context, monkeypatch):
    """The self-test goes through the same function as the socket itself."""
    monkeypatch.setattr(Keys, "guard", lambda self, socket: None)
    with pytest.raises(SecurityError, match="Self-test"):
        hub_at(context)


def test_authenticator_asks_for_all_of_it(context):
    with hub_at(context):
        keys = Keys(SECRET)
        answer = context.authenticator.answer
        asked = [b"1.0", b"7", keys.domain, b"127.0.0.1", b"", b"CURVE", keys.admitted]
        assert answer(asked) == [b"1.0", b"7", b"200", b"OK", b"", b""]
        for place, value in (
            (2, b""),
            (2, Keys(OTHER).domain),
            (5, b"NULL"),
            (5, b"PLAIN"),
            (6, b""),
            (6, bytes(32)),
        ):
            wrong = [*asked[:place], value, *asked[place + 1 :]]
            assert answer(wrong)[:3] == [b"1.0", b"7", b"400"]
        assert answer(asked[:6])[2] == b"400"
        assert answer([*asked, keys.admitted])[2] == b"400"


# What strangers can disturb

GREETINGS = {
    "silence": b"",
    "HTTP": b"GET / HTTP/1.1\r\nHost: highway\r\n\r\n",
    "TLS": bytes.fromhex("16030100f8010000f40303") + bytes(240),
    "zeros": bytes(4096),
    "noise": hashlib.shake_128(b"noise").digest(4096),
    "half a greeting": b"\xff" + bytes(8) + b"\x7f\x03",
    "a greeting, then noise": (b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE").ljust(64, b"\0") + b"\xff" * 4096,
    "a greeting, then a huge command": (b"\xff" + bytes(8) + b"\x7f\x03\x01CURVE").ljust(64, b"\0")
    + b"\x06\x7f"
    + b"\xff" * 200,
}


@pytest.mark.parametrize("greeting", GREETINGS)
def test_who_speaks_something_else_disturbs_nobody_and_is_hung_up_on(context, monkeypatch, greeting):
    monkeypatch.setattr(sockets, "HANDSHAKE", 200)
    with hub_at(context) as hub, peer_of(context, hub) as friend:
        talk(hub, friend)
        port = int(where(hub).rpartition(":")[2])
        with contextlib.ExitStack() as stack:
            callers = [
                stack.enter_context(plain.create_connection(("127.0.0.1", port), LIMIT)) for _ in range(20)
            ]
            for caller in callers:
                # It may have hung up on us already.
                with contextlib.suppress(ConnectionError):
                    caller.sendall(GREETINGS[greeting])
            talk(hub, friend)
            for caller in callers:
                with contextlib.suppress(ConnectionError):
                    while caller.recv(4096):
                        pass
            talk(hub, friend)
        # A port scanner.
        for _ in range(20):
            plain.create_connection(("127.0.0.1", port), LIMIT).close()
        talk(hub, friend)
        eventually(lambda: hub.watch.read() and hub.watch.connections == 1)
        assert not hub.poll(0)


def test_monitor_that_nobody_reads_stops_nobody(context):
    """Libzmq's thread would wait for room: 3 events a caller, and room for some thousand if there is a limit."""
    with hub_at(context) as hub, peer_of(context, hub) as friend:
        talk(hub, friend)
        port = int(where(hub).rpartition(":")[2])
        for _ in range(1500):
            with plain.create_connection(("127.0.0.1", port), LIMIT) as caller:
                # Nothing is what a greeting begins with: it hangs up, so no connection piles up.
                caller.sendall(bytes(64))
        talk(hub, friend)
        eventually(lambda: hub.watch.read() and hub.watch.connections == 1)


# What is left


def open_files():
    return sorted(os.listdir("/proc/self/fd"))


def test_no_file_and_no_thread_is_left(tmp_path, monkeypatch):
    # What pyzmq itself keeps is there by now.
    use_everything(tmp_path)
    files, threads = len(open_files()), set(threading.enumerate())
    for _ in range(5):
        use_everything(tmp_path)
        assert len(open_files()) == files
        assert set(threading.enumerate()) == threads
    assert list(tmp_path.iterdir()) == []


def test_context_waits_for_the_end_of_the_authenticator(monkeypatch):
    serve, ended = Authenticator._serve, []

    def slowly(self):
        serve(self)
        threading.Event().wait(0.1)
        ended.append(True)

    monkeypatch.setattr(Authenticator, "_serve", slowly)
    context = open_context()
    hub_at(context).close()
    close_context(context)
    assert ended == [True]


def use_everything(folder):
    context = open_context()
    for place in (*PLACES, "inproc://hub"):
        with hub_at(context, place.format(folder)) as hub, peer_of(context, hub) as peer:
            talk(hub, peer)
            assert "highway zap" in {thread.name for thread in threading.enumerate()}
            with contextlib.suppress(HighwayError), plain.create_server(("127.0.0.1", 0)) as used:
                hub_at(context, f"tcp://127.0.0.1:{used.getsockname()[1]}")
            with contextlib.suppress(HighwayError):
                hub_at(context, f"ipc://{folder}/a/b/c")
    close_context(context)


def forms_of(value):
    return [
        value,
        value.hex().encode(),
        value.hex().upper().encode(),
        base64.b64encode(value),
        repr(value).encode(),
    ]


def test_secrets_are_never_shown(context, tmp_path, monkeypatch, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    private = [
        hashlib.blake2b(key=SECRET, digest_size=32, person=person).digest()
        for person in (b"highway server", b"highway client")
    ]
    forbidden = [form for value in (SECRET, *private) for form in forms_of(value)]
    forbidden += [z85.encode(value) for value in private]
    # A secret with a slip of the pen is one too.
    forbidden += [SECRET.hex()[:40].encode(), SECRET[:31]]
    seen = []

    def fails(function, *arguments, **options):
        with pytest.raises((HighwayError, TypeError)) as failure:
            function(*arguments, **options)
        # Whole chain, as a user would see it.
        seen.append("".join(traceback.format_exception(failure.value)) + repr(failure.value))

    keys = Keys(SECRET)
    seen += [repr(keys), str(keys), f"{keys}", repr(guarded()), repr(vars(guarded())), repr([keys])]
    fails(pickle.dumps, keys)
    fails(find_keys, "M", SECRET.hex() + "0")
    fails(find_keys, "M", SECRET.hex()[:-2] + "zz")
    fails(find_keys, "M", SECRET + b"0")
    fails(find_keys, "M", [SECRET])
    fails(Keys, SECRET[:31])
    fails(Security, "M", SECRET, insecure=True)
    fails(read_secret_file, secret_file(tmp_path, mode=0o640))
    fails(read_secret_file, secret_file(tmp_path, SECRET.hex().encode() + b"0"))
    fails(new_secret_file, secret_file(tmp_path))
    with hub_at(context) as hub, peer_of(context, hub) as peer, peer_of(context, hub, Random()) as stranger:
        talk(hub, peer)
        eventually(lambda: stranger.watch.read() and stranger.watch.gave_up)
        eventually(lambda: hub.watch.read() or hub.watch.failure)
        seen += [repr(hub), repr(peer), hub.watch.failure, stranger.watch.failure]
        monkeypatch.setattr(Authenticator, "is_admitted", lambda *_: True)
        fails(hub_at, context)
        fails(hub_at, context, where(hub))
    out, err = capfd.readouterr()
    everything = "\n".join([*seen, caplog.text, out, err]).encode("utf-8", "surrogateescape")
    assert b"fingerprint" in everything
    assert [form for form in forbidden if form in everything] == []


# highway keygen


def run(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_keygen_writes_a_secret_for_this_user_alone(capsys, tmp_path, mask):
    path = tmp_path / "a secret"
    before = os.umask(mask)
    try:
        code, out, err = run(capsys, "keygen", path)
    finally:
        os.umask(before)
    assert (code, err) == (0, "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    assert len(bytes.fromhex(text.strip())) == 32 and text.endswith("\n") and len(text) == 65
    assert text.strip() not in out
    keys = find_keys("M", path)
    assert keys.fingerprint in out
    assert f"scp -p {shlex.quote(str(path))}" in out
    assert f"export HIGHWAY_SECRET_FILE={shlex.quote(str(path))}" in out


def test_keygen_never_writes_the_same_secret_twice(capsys, tmp_path):
    texts = set()
    for number in range(10):
        run(capsys, "keygen", tmp_path / str(number))
        texts.add((tmp_path / str(number)).read_text())
    assert len(texts) == 10


def test_keygen_overwrites_nothing(capsys, tmp_path):
    path = tmp_path / "secret"
    path.write_text("precious")
    (tmp_path / "link").symlink_to("nowhere")
    for name in (path, tmp_path / "link", tmp_path):
        code, out, err = run(capsys, "keygen", name)
        assert (code, out) == (1, "")
        assert "exists, and a secret is never overwritten" in err
    assert path.read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_keygen_leaves_nothing_behind_when_it_fails(capsys, tmp_path, monkeypatch):
    code, _, err = run(capsys, "keygen", tmp_path / "none" / "secret")
    assert code == 1 and "No such file or directory" in err

    def full(file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run(capsys, "keygen", tmp_path / "secret")
    assert code == 1 and "No space left on device" in err
    assert list(tmp_path.iterdir()) == []


# What strangers say


@given(st.text(max_size=3000) | st.binary(max_size=3000) | st.text("\x1b\\ä€\n", min_size=300, max_size=2000))
def test_quoted_text_is_short_and_harmless(text):
    shown = quoted(text)
    assert len(shown.encode()) <= 1024
    assert shown.isprintable()
    if isinstance(text, str) and not shown.endswith("..."):
        # Nothing was lost: it can be read back.
        assert ast.literal_eval("'" + shown.replace("'", "\\'") + "'") == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ä €", "plain ä €"),
        ("a\nb\r\t\0", r"a\nb\r\t\x00"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\u202eevil\u2028", r"\u202eevil\u2028"),
        ("back\\slash", r"back\\slash"),
        (b"\xff\xfe ok", r"\xff\xfe ok"),
        ("\ud800", r"\ud800"),
        ("x" * 1024, "x" * 1024),
        ("x" * 1025, "x" * 1021 + "..."),
        (b"\0" * 5000, r"\x00" * 255 + "..."),
        ("€" * 342, "€" * 340 + "..."),
    ],
)
def test_quoted(text, shown):
    assert quoted(text) == shown
