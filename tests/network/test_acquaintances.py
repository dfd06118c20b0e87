"""What machines know of each other: names in the log, the length and the bad samples of a data machine, status."""

import logging
import os
import re
import socket

import pytest
from concurrency import LIMIT, eventually
from machines import FAST, Machines, noise
from pictures import class_folders
from small_modules import Numbers

from highway.engine.stats import MachineStats
from highway.errors import PeerLostError, SecurityError, UnknownLengthError
from highway.modules import ImageFileReader
from highway.network import exactly_once as exact
from highway.network.batch_codec import bad_samples_in, bad_samples_item
from highway.network.protocol.messages import Hello, Kind
from highway.network.protocol.wire import check
from highway.network.reports import MOST_BYTES, fitting, machines_of
from highway.network.status import ask
from highway.network.zmq.acquaintances import Acquaintances
from highway.network.zmq.ends import Peer

NAME = rf"[\w.-]+:{os.getpid()}[/\d]*"


@pytest.fixture
def machines():
    with Machines() as stack:
        yield stack


@pytest.fixture
def lines(caplog):
    """The lines of the log, without those of other loggers."""
    caplog.set_level(logging.INFO, "highway.network")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "highway.network"]


def whether(pattern, lines):
    return lambda: any(re.search(pattern, line) for line in lines())


# The log


def test_log_names_who_joins_and_leaves_with_role_address_and_version(machines, lines):
    sink = machines.data()
    pipeline, source = machines.trainer()
    worker = machines.worker(sink, source)
    pipeline.dequeue(timeout=LIMIT)
    for role in ("worker", "data machine"):
        joined = rf"^tcp://127\.0\.0\.1:\d+: {role} {NAME} \(from 127\.0\.0\.1, Highway [\w.+]+\) joined$"
        eventually(whether(joined, lines))
    worker.stop()
    eventually(whether(rf": worker {NAME} \(.*\) left: stopped$", lines))
    joined = [line for line in lines() if line.endswith("joined")]
    assert len(joined) == len(set(joined))


def test_log_names_a_peer_that_falls_silent(machines, lines, monkeypatch):
    monkeypatch.setattr(exact, "TIMING", FAST)
    sink = machines.data()
    pipeline, _ = machines.trainer(sink.address, bind=False)
    pipeline.dequeue(timeout=LIMIT)
    role = sink.transport.role
    with sink.transport.driver.lock:
        # It hears nothing any more.
        monkeypatch.setattr(role.producer, "receive", lambda peer, message, now: None)
    eventually(whether(rf"training machine {NAME} \(.*\) was lost: it is silent", lines))


def test_handshake_that_fails_names_the_address_of_the_peer(machines, lines):
    sink = machines.data(secret=b"s" * 32)
    machines.trainer(sink.address, bind=False, secret=b"t" * 32, timeout=None)
    expected = (
        rf"^tcp://127\.0\.0\.1:\*: handshake at {sink.address} from 127\.0\.0\.1 failed: .*different secrets"
    )
    eventually(whether(expected, lines))


def test_address_that_does_not_answer_is_in_the_log(machines, lines):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    machines.trainer(f"tcp://127.0.0.1:{port}", bind=False, timeout=None)
    eventually(whether(rf"^tcp://127\.0\.0\.1:{port}: no connection yet; tries again", lines))


def test_names_of_peers_are_escaped_and_bounded():
    known, peer = Acquaintances(Hello("me", "worker", "1")), Peer(0, b"x")
    known.meet(peer, Hello("evil\n\x1b[31m" + "x" * 5000, "worker", "2"))
    shown = known.describe(peer)
    assert "\n" not in shown and "\x1b" not in shown and len(shown) < 500
    for number in range(5000):
        known.meet(Peer(0, str(number).encode()), Hello("a", "worker", "1"))
    assert len(known._names) <= 2048


# What the training machine learns


@pytest.mark.parametrize("world", [1, 2])
def test_length_of_a_chain_is_that_of_its_data_machines(machines, world):
    sinks = [machines.data(noise(shard=(rank, world)), stream=(rank, world)) for rank in range(world)]
    pipeline, source = machines.trainer()
    machines.worker([sink.address for sink in sinks], source)
    length = sum(len(noise(shard=(rank, world))) for rank in range(world))
    assert len(pipeline) == length
    iteration = iter(pipeline)
    assert len(iteration) == length
    assert sum(1 for _ in iteration) == length


def test_length_of_the_rest_after_a_state(machines):
    sink = machines.data()
    first, _ = machines.trainer(sink.address, bind=False)
    for _ in range(5):
        first.dequeue(timeout=LIMIT)
    state = first.state_dict()
    first.stop()
    second, _ = machines.trainer(sink.address, bind=False)
    second.load_state_dict(state)
    iteration = iter(second)
    assert (len(second), len(iteration)) == (len(noise()), len(noise()) - 5)
    assert sum(1 for _ in iteration) == len(noise()) - 5


def test_length_that_no_data_machine_knows_is_an_error(machines):
    sink = machines.data(Numbers(3))
    pipeline, _ = machines.trainer(sink.address, bind=False)
    with pytest.raises(UnknownLengthError):
        len(pipeline)


@pytest.mark.parametrize("through_a_worker", [False, True])
def test_skipped_files_of_a_data_machine_are_errors_of_the_training_machine(
    machines, tmp_path, through_a_worker
):
    folder = class_folders(tmp_path / "photos", classes=2, each=5)
    for name in ("class0/bad.jpg", "class1/worse.jpg"):
        (folder / name).write_bytes(b"no picture")
    reader = ImageFileReader(folder, 4, (8, 8), epochs=2, on_error="skip")
    sink = machines.data(reader)
    if through_a_worker:
        pipeline, source = machines.trainer()
        machines.worker(sink, source)
    else:
        pipeline, _ = machines.trainer(sink.address, bind=False)
    assert sum(batch.size for batch in pipeline.forever()) == 2 * 10
    assert sorted(pipeline.errors) == sorted(reader.errors)
    assert len(reader.errors) == 2


def test_bad_samples_fit_into_a_message_and_the_rest_comes_later():
    errors = [(f"{number}/é\udcff" * 100, "reason" * 500) for number in range(100)]
    item, count = bad_samples_item(Kind.END_OF_EPOCH, errors)
    assert 0 < count < 100
    check(item)
    found = bad_samples_in(item.meta)
    assert len(found) == count and found[0][1].startswith("reasonreason")
    assert bad_samples_in([["a", "b"], ["a"], 5, ["a", 1], "ab"]) == [("a", "b")]


def test_reports_of_many_machines_fit_into_a_message():
    reports = [{"name": "n" * 200, "role": "worker", "limiter": "x" * 200}] * 300
    assert 0 < len(fitting(reports)) < MOST_BYTES / 400


def test_machines_of_equal_names_are_kept_apart():
    report = {"name": "web:1", "role": "worker", "rate": 1.0}
    found = machines_of(
        [(0.0, {**report, "id": "aa"}), (0.0, {**report, "id": "bb"}), (1.0, {**report, "id": "aa"})]
    )
    assert [machine.name for machine in found] == ["web:1~aa", "web:1~bb"]
    (alone,) = machines_of([(0.0, {**report, "id": "aa"})])
    assert alone.name == "web:1"


# highway status


@pytest.mark.parametrize("at", ["data", "trainer"])
def test_status_has_every_machine_and_changes_nothing(machines, at):
    sink = machines.data()
    pipeline, source = machines.trainer()
    machines.worker(sink, source)
    batch = pipeline.dequeue(timeout=LIMIT)
    assert batch.size
    peers = sink.transport.links(), source.transport.links()

    def complete():
        return [machine.role for machine in ask(sink.address if at == "data" else source.address)] == [
            "data",
            "worker",
            "trainer",
        ]

    eventually(complete)
    found = ask(source.address)
    assert all(isinstance(machine, MachineStats) and machine.version for machine in found)
    assert found[-1].verdict
    assert (sink.transport.links(), source.transport.links()) == peers
    # The one that asks got nothing that the training machine should have.
    assert 1 + sum(1 for _ in pipeline.forever()) == 2 * len(noise())


def test_status_needs_the_secret(machines):
    secret = b"s" * 32
    sink = machines.data(addr="tcp://*:*", secret=secret)
    address = sink.address.replace("0.0.0.0", "127.0.0.1")
    (found,) = ask(address, secret=secret)
    assert found.role == "data"
    with pytest.raises(PeerLostError, match=r"nobody answered .* for 1 s \(handshake"):
        ask(address, secret=b"t" * 32, timeout=1)
    with pytest.raises(SecurityError):
        ask("tcp://10.1.2.3:5555")


def test_status_where_nobody_is_ends_in_time():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(PeerLostError, match="nobody answered"):
        ask(f"tcp://127.0.0.1:{port}", timeout=0.3)
