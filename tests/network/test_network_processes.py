"""The machines of a chain as processes that are killed, stopped, and started again: every batch arrives once."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import threading
import time

import pytest
from concurrency import LIMIT, within
from machines import PATIENCE, Processes, assert_once, flips, noise, nothing_left, undisturbed

# Long, and not about the interpreter.
pytestmark = pytest.mark.once

# Enough work that something is under way whenever somebody dies.
LONG = {"size": 600, "epochs": 2, "shape": [24, 24]}


@pytest.fixture(autouse=True)
def nothing_is_left():
    with nothing_left():
        yield


@pytest.fixture
def processes():
    with Processes() as stack:
        yield stack


@pytest.fixture(scope="module")
def long():
    return undisturbed(noise(600, 2, shape=(24, 24)), flips())


@pytest.fixture(scope="module")
def short():
    return undisturbed()


class Chain:
    """A data machine and a trainer; workers come and go."""

    def __init__(self, processes, data=None, trainer=None, **noise_options):
        self.processes = processes
        self.data = processes.start("data", noise=noise_options, **(data or {}))
        self.trainer = processes.start("trainer", **(trainer or {}))
        self.above = self.data.expect("address")
        self.below = self.trainer.expect("address")

    def worker(self, **options):
        return self.processes.start("worker", source=self.above, out=self.below, **options)

    def the_rest(self, expected, limit=LIMIT):
        """Let the trainer run to its end."""
        self.trainer.finish(limit)
        assert_once(self.trainer.batches, expected)


def test_three_scripts(processes, short):
    chain = Chain(processes, data={"fast": False}, trainer={"fast": False})
    worker = chain.worker(fast=False)
    chain.the_rest(short)
    for machine in (chain.data, worker):
        machine.finish()


def free_ports(count):
    """Ports that nobody uses now."""
    import socket

    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in found]


@pytest.mark.parametrize("order", ["data worker trainer", "worker trainer data", "trainer worker data"])
def test_roles_start_in_every_order(processes, short, order):
    above, below = (f"tcp://127.0.0.1:{port}" for port in free_ports(2))
    options = {
        "data": {"out": above},
        "worker": {"source": above, "out": below},
        "trainer": {"in": below},
    }
    machines = {}
    for role in order.split():
        machines[role] = processes.start(role, **options[role])
        machines[role].expect("ready")
    machines["trainer"].finish()
    assert_once(machines["trainer"].batches, short)
    machines["data"].finish()
    machines["worker"].finish()


# Workers


def test_worker_is_killed_every_second_for_half_a_minute(processes):
    """Two work at a time; the older one falls."""
    options = {"size": 24000, "epochs": 1, "shape": [24, 24]}
    expected = undisturbed(noise(24000, 1, shape=(24, 24)), flips())
    chain = Chain(processes, trainer={"paused": True, "states": False}, **options)
    workers = [chain.worker(), chain.worker()]
    taken = 0
    for killed in range(30):
        # About a second of work, then the next one falls.
        second = time.monotonic() + 1
        while time.monotonic() < second and taken < 5800 and taken * 30 <= 5800 * (killed + 1):
            chain.trainer.go(20)
            taken += 20
        threading.Event().wait(max(0.0, second - time.monotonic()))
        victim = workers.pop(0)
        victim.kill()
        victim.close()
        workers.append(chain.worker())
    chain.trainer.tell("run")
    chain.the_rest(expected, 60)
    chain.data.finish()


def test_stopped_worker_goes_on_after_its_death(processes, long):
    """A false death costs duplicates."""
    chain = Chain(processes, **LONG)
    lazy = chain.worker(gate=True)
    lazy.expect("passed")
    lazy.send(signal.SIGSTOP)
    chain.worker()
    # Without the other one its batches could not come.
    chain.trainer.finish(LIMIT)
    lazy.send(signal.SIGCONT)
    assert_once(chain.trainer.batches, long)
    chain.data.finish()


def test_stopped_worker_comes_back_into_the_run(processes, long):
    chain = Chain(processes, trainer={"paused": True}, **LONG)
    lazy, other = chain.worker(gate=True), chain.worker(gate=True)
    lazy.expect("passed")
    other.expect("passed")
    chain.trainer.go(5)
    lazy.send(signal.SIGSTOP)
    # More than the windows hold, so that what it has is given to the other one: it is dead.
    chain.trainer.go(150)
    lazy.lines.clear()
    lazy.send(signal.SIGCONT)
    chain.trainer.tell("run")
    chain.the_rest(long)
    chain.data.finish()
    other.finish()
    lazy.finish()
    assert sum("passed" in line for line in lazy.lines) > 50


def test_stopped_with_the_real_timer(processes, short):
    chain = Chain(processes, data={"fast": False}, trainer={"fast": False, "timeout": 60})
    lazy = chain.worker(fast=False, gate=True)
    lazy.expect("passed")
    lazy.send(signal.SIGSTOP)
    chain.worker(fast=False)
    chain.the_rest(short, 40)
    chain.data.finish()


def test_killed_worker_is_missed_before_the_timer(processes, short):
    """Its connection is gone, and does not come back."""
    chain = Chain(processes, data={"fast": False}, trainer={"fast": False, "timeout": 60})
    victim = chain.worker(fast=False, gate=True)
    victim.expect("passed")
    victim.kill()
    chain.worker(fast=False)
    chain.the_rest(short, 8)
    chain.data.finish()


@pytest.mark.parametrize("how", ["abort", "memory", "hang"])
def test_batch_that_kills_every_worker(processes, short, how):
    """Only that batch is lost, and named; or, where a worker survives it, told with its error."""
    victim = [0, 7]
    chain = Chain(processes, trainer={"on_error": "skip", "timeout": 60})
    machines = [chain.worker(victim=victim, how=how) for _ in range(2)]
    stop = threading.Event()

    def supervise():
        # As a supervisor would: whoever dies is started again, whoever hangs is killed.
        while not stop.is_set():
            for place, machine in enumerate(machines):
                state = _state(machine.pid)
                if state in "TZX" and not stop.is_set():
                    if state == "T" and time.monotonic() < hung.setdefault(
                        machine.pid, time.monotonic() + 1.5
                    ):
                        continue
                    machine.close()
                    machines[place] = chain.worker(victim=victim, how=how)
            stop.wait(0.02)

    hung = {}
    supervisor = threading.Thread(target=supervise, daemon=True)
    supervisor.start()
    try:
        chain.trainer.expect("errors", 60)
    finally:
        stop.set()
        supervisor.join(LIMIT)
    ((which, why),) = chain.trainer.lines[-1]["errors"]
    assert which == "epoch 0, batch 7, stream 0"
    if how == "memory":
        assert "MemoryError" in why
    else:
        assert "batch 7 of epoch 0 (stream 0) was given up: the machine that held it died 5 times" in why
    rest = {key: sha for key, sha in short.items() if key[:2] != (0, 7)}
    assert_once(chain.trainer.batches, rest)


def _state(pid):
    """R, S, T (stopped), Z (ended, not collected) ..."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]
    return "X"


def test_all_workers_gone_for_a_while(processes, long):
    chain = Chain(processes, trainer={"paused": True}, **LONG)
    workers = [chain.worker() for _ in range(2)]
    chain.trainer.go(20)
    for worker in workers:
        worker.kill()
    chain.trainer.tell("run")
    # They are away for longer than the death timer.
    pause = threading.Event()
    pause.wait(1.5)
    chain.worker()
    chain.the_rest(long)
    chain.data.finish()


def test_workers_added(processes, long):
    chain = Chain(processes, trainer={"paused": True}, **LONG)
    first = chain.worker()
    chain.trainer.go(10)
    second, third = (chain.worker(gate=True) for _ in range(2))
    for worker in (second, third):
        worker.expect("passed")
    chain.trainer.tell("run")
    chain.the_rest(long)
    for worker in (first, second, third):
        worker.finish()
    for worker in (second, third):
        assert sum("passed" in line for line in worker.lines) > 10


# Data machine


def test_data_machine_is_killed_and_comes_back(processes, long):
    above = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    chain = Chain(processes, data={"out": above}, trainer={"paused": True}, **LONG)
    chain.worker()
    for _ in range(3):
        chain.trainer.go(40)
        chain.data.kill()
        chain.data = processes.start("data", out=above, noise=LONG)
    chain.trainer.tell("run")
    chain.the_rest(long)
    chain.data.finish()


# Trainer


@pytest.mark.parametrize("how", ["killed", "leaves", "stopped"])
def test_trainer_goes_on_from_its_state(processes, long, how):
    """Killed in the middle of an epoch; the state is what it told with the last batch."""
    below = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    chain = Chain(processes, trainer={"in": below, "paused": True}, **LONG)
    workers = [chain.worker() for _ in range(2)]
    found = []
    for count in (37, 100):
        chain.trainer.go(count)
        found += chain.trainer.batches
        state = chain.trainer.lines[-1]["state"]
        if how == "killed":
            chain.trainer.kill()
        else:
            chain.trainer.tell("stop" if how == "stopped" else "leave")
            assert chain.trainer.wait() == 0, str(chain.trainer)
        chain.trainer.close()
        assert len(json.dumps(state)) < 1000
        chain.trainer = processes.start("trainer", state=state, paused=True, **{"in": below})
        chain.trainer.expect("ready")
    chain.trainer.tell("run")
    chain.trainer.finish()
    assert_once(found + chain.trainer.batches, long)
    for machine in (chain.data, *workers):
        machine.finish()


def test_trainer_elsewhere_gets_in_after_the_first_was_killed(processes, long):
    """It has workers of its own, and those of the dead one still ask for batches."""
    chain = Chain(processes, trainer={"paused": True}, **LONG)
    chain.worker()
    chain.trainer.go(20)
    saved, state = chain.trainer.batches, chain.trainer.lines[-1]["state"]
    chain.trainer.kill()
    trainer = processes.start("trainer", state=state)
    processes.start("worker", source=chain.above, out=trainer.expect("address"))
    trainer.finish()
    assert_once(saved + trainer.batches, long)


def test_trainer_goes_on_from_an_older_state(processes, long):
    """What was handed out after the state was saved comes again."""
    chain = Chain(processes, trainer={"paused": True}, **LONG)
    chain.worker()
    chain.trainer.go(50)
    state = chain.trainer.lines[-1]["state"]
    saved = chain.trainer.batches
    chain.trainer.go(50)
    chain.trainer.kill()
    trainer = processes.start("trainer", state=state, **{"in": chain.below})
    trainer.finish()
    assert_once(saved + trainer.batches, long)
    chain.data.finish()


# The interpreter


@pytest.mark.parametrize("role", ["data", "worker", "trainer"])
def test_leaving_the_interpreter_while_connected(processes, short, role):
    leaves = {"leave": True}
    chain = Chain(processes, data=leaves if role == "data" else None, trainer={"paused": True}, **LONG)
    worker = chain.worker(**(leaves if role == "worker" else {}))
    chain.trainer.go(3)
    machine = {"data": chain.data, "worker": worker, "trainer": chain.trainer}[role]
    with within(5):
        machine.tell("leave")
        assert machine.wait() == 0, str(machine)
    assert machine.errors == []


def test_forked_child_disturbs_nobody(processes, long):
    chain = Chain(processes, trainer={"paused": True}, **LONG)
    chain.worker()
    chain.trainer.go(10)
    for _ in range(3):
        chain.trainer.tell("fork")
        assert chain.trainer.expect("child") == 0, str(chain.trainer)
        chain.trainer.go(10)
    chain.trainer.tell("run")
    chain.the_rest(long)


# Hosts of their own


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT)


@pytest.fixture
def hosts():
    """Three network namespaces; the second is joined to both others."""
    names = [f"highway{os.getpid()}{role}" for role in "dwt"]
    try:
        run("ip", "netns", "add", names[0])
        run("ip", "netns", "exec", names[0], "true")
    except (OSError, subprocess.CalledProcessError) as error:
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            run("ip", "netns", "del", names[0])
        pytest.skip(f"network namespaces cannot be made here: {getattr(error, 'stderr', '') or error}")
    try:
        for name in names[1:]:
            run("ip", "netns", "add", name)
        for place, (one, other) in enumerate([(names[0], names[1]), (names[1], names[2])]):
            run(
                "ip",
                "-n",
                one,
                "link",
                "add",
                f"to{place}",
                "type",
                "veth",
                "peer",
                f"from{place}",
                "netns",
                other,
            )
            for name, device, number in ((one, f"to{place}", 1), (other, f"from{place}", 2)):
                run("ip", "-n", name, "addr", "add", f"10.77.{place}.{number}/24", "dev", device)
                run("ip", "-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            with contextlib.suppress(subprocess.CalledProcessError):
                run("ip", "netns", "del", name)


def test_three_hosts(processes, hosts, long):
    data, worker, trainer = (("ip", "netns", "exec", name) for name in hosts)
    key, other_key = ({"secret": secrets.token_hex(32)} for _ in range(2))
    above, below = "tcp://10.77.0.1:5555", "tcp://10.77.1.2:5556"
    machines = [
        processes.start("data", wrapper=data, out=above, noise=LONG, **key),
        processes.start("worker", wrapper=worker, source=above, out=below, **key),
        processes.start("trainer", wrapper=trainer, paused=True, **{"in": below}, **key),
    ]
    machines[2].go(30)
    # Others on the network get nothing, of either hub.
    for hub in (above, below):
        stranger = processes.start("stranger", wrapper=worker, source=hub)
        assert stranger.expect("came") == 0
        assert stranger.wait() == 0
    thief = processes.start(
        "trainer", wrapper=worker, bind=False, timeout=PATIENCE, **{"in": above}, **other_key
    )
    assert thief.wait() == 1
    assert thief.batches == []
    assert "PeerLostError" in str(thief)
    assert "the last connection that failed: handshake" in str(thief)
    # The cable is pulled, for longer than the death timer, and plugged in again.
    run("ip", "-n", hosts[1], "link", "set", "from0", "down")
    machines[2].tell("run")
    pause = threading.Event()
    pause.wait(1.5)
    run("ip", "-n", hosts[1], "link", "set", "from0", "up")
    machines[2].finish(40)
    assert_once(machines[2].batches, long)
    for machine in machines[:2]:
        machine.finish()
