"""The protocol in a network that breaks: everything arrives once; and without any one of its rules it does not."""

import os
import re

import pytest
from simulation import Failed, Simulation, roles_with

from highway.network.protocol.messages import Cursor, Data, Item, Key, Kind, Progress, Ready
from highway.network.protocol.roles import Trainer, Worker

# Long, and not about the interpreter.
pytestmark = pytest.mark.once

# Another range finds what these do not: HIGHWAY_SIMULATION_SEEDS="1000:6000".
SEEDS = os.environ.get("HIGHWAY_SIMULATION_SEEDS") or "0:400"
if not re.fullmatch("[0-9]+:[0-9]+", SEEDS):
    raise pytest.UsageError(f"HIGHWAY_SIMULATION_SEEDS is {SEEDS!r}; expected FIRST:LAST, as 1000:6000")
FIRST, LAST = map(int, SEEDS.split(":"))
# Seeds within which a broken rule is found.
ENOUGH = 1500

# What breaks each rule: module, text, and what it becomes.
BROKEN = {
    "1, a new session requeues": (
        "producer",
        "if out is None or out.session != message.session:",
        "if out is None:",
    ),
    "2, window": ("producer", "return len(self.in_flight) < self.window and", "return"),
    "3, horizon": ("delivery", "if self._number(key) - self._number(self.base) >= horizon:", "if False:"),
    "4, missing is requeued": ("producer", "            if lsn in missing:", "            if False:"),
    "5, the silent are dead": ("producer", "if now - out.heard > self._timing.death]:", "if False]:"),
    "6, a new generation seeks": ("producer", "CursorNews(cursor, True)", "CursorNews(cursor, False)"),
    "6, a worker begins a new session": (
        "roles",
        "self.consumer.reset(cursor)\n            elif",
        "pass\n            elif",
    ),
    "7, poison": ("producer", "if entry.deaths >= self._timing.deaths:", "if False:"),
    "7, suspects travel alone": (
        "producer",
        "if entry.deaths >= self._timing.suspect:\n            heapq",
        "if False:\n            heapq",
    ),
    "7, one suspect at a time": ("consumer", "if self._suspect in self.held:", "if False:"),
    "9, gaps are missing": ("consumer", "incoming.missing.update(range(incoming.upto + 1, lsn))", "pass"),
    "9, a ping tells of gaps": (
        "consumer",
        "incoming.missing.update(range(max(incoming.upto + 1, message.low), message.high + 1))",
        "pass",
    ),
    "10, a worker acknowledges what was acknowledged": (
        "roles",
        "        world, fingerprint, definition = self._origins[key]\n",
        "        world, fingerprint, definition = self._origins[key]\n        self.consumer.done(key, now)\n",
    ),
    "11, what was delivered is a duplicate": ("consumer", "elif self.knows(key):", "elif False:"),
    "11, acknowledged when handed out": (
        "delivery",
        "return key in self._out\n\n    def _measure",
        "return False\n\n    def _measure",
    ),
    "13, nobody downstream gives back": ("roles", "now - self._served > self._death", "False"),
    "12, acknowledged where it has to wait": (
        "delivery",
        "return key in self._out\n\n    def _measure",
        "return True\n\n    def _measure",
    ),
    "15, another one tries": ("producer", "FAILURES = 2", "FAILURES = 1"),
    "15, the second failure counts": ("producer", "FAILURES = 2", "FAILURES = 10**9"),
    "15, one that has not failed": ("producer", "tried = {*avoided, *entry.failures}", "tried = {*avoided}"),
    "15, a failed item is no done one": ("producer", "elif lsn in failed:", "elif False:"),
    "15, failures are told again": (
        "consumer",
        "incoming.failed[lsn] = incoming.failed.pop(lsn)",
        "del incoming.failed[lsn]",
    ),
    "16, the sick are benched": ("producer", "self._benched.add(failer)", "pass"),
}


@pytest.mark.parametrize("start", range(FIRST, LAST, 50))
def test_everything_arrives_once(start):
    for seed in range(start, min(start + 50, LAST)):
        simulation = Simulation(seed)
        try:
            simulation.run()
        except Failed as error:
            pytest.fail(f"seed {seed}: {error}; faults: {simulation.history}")


def test_connections_that_lose_messages():
    for seed in range(60):
        Simulation(seed, losing=0.05, poisoned=False).run()


def test_worker_that_is_parted_from_the_training_machine_for_good():
    for seed in range(60):
        Simulation(seed, severed=True, poisoned=False).run()


def test_two_data_machines_and_a_poison():
    for seed in range(60):
        Simulation(seed, world=2, poisoned=True).run()


@pytest.mark.parametrize("losing", [0, 0.05])
def test_sick_worker_and_a_batch_that_nobody_can_process(losing):
    for seed in range(60):
        Simulation(seed, failing=True, poisoned=False, losing=losing).run()


@pytest.mark.parametrize("rule", BROKEN)
def test_without_the_rule_it_does_not(rule):
    roles = roles_with(BROKEN[rule])
    # What is rare otherwise: two data machines and an item that kills workers; connections that lose a message.
    special = {"world": 2, "poisoned": True} if "one suspect" in rule else {}
    if rule.startswith("9"):
        special = {"losing": 0.05}
    if rule.startswith("13"):
        special = {"severed": True}
    if rule.startswith(("15", "16")):
        special = {"failing": True, "poisoned": False, "losing": 0.05 if "told" in rule else 0}
    for seed in range(ENOUGH):
        try:
            Simulation(seed, roles, **special).run()
        except Failed:
            return
    pytest.fail(f"{ENOUGH} seeds pass without rule {rule}")


# The horizon of a data machine moves with the cursor: small steps are told before the next second, or it waits.


def told(outbox):
    return [message.cursor.streams[0].base for _, message in outbox if isinstance(message, Ready)]


def hand_out(trainer, seq, now):
    key = Key(0, seq, 0)
    item = Item(Kind.BATCH, [], ())
    data = Data(trainer.consumer.session, bytes(16), seq + 1, key, 1, "data", item)
    trainer.receive(True, "above", data, now)
    trainer.deliver(key, now)
    trainer.tick(now)


def test_trainer_tells_a_cursor_that_moved_by_a_window():
    trainer = Trainer(os.urandom, Cursor(1), False, 8, 1 << 30)
    for seq in range(33):
        hand_out(trainer, seq, 0.001 * seq)
    assert told(trainer.consumer.outbox) == [1, 9, 17, 25, 33]


def test_trainer_tells_a_cursor_that_moved_a_little_after_fifty_milliseconds():
    trainer = Trainer(os.urandom, Cursor(1), False, 8, 1 << 30)
    trainer.tick(0.0)
    hand_out(trainer, 0, 0.0)
    hand_out(trainer, 1, 0.02)
    trainer.consumer.outbox.clear()
    assert trainer.due() <= 0.05
    trainer.tick(0.049)
    assert told(trainer.consumer.outbox) == []
    trainer.tick(0.051)
    assert told(trainer.consumer.outbox) == [2]
    assert trainer.due() is None


def worker_told(worker, bases, seconds):
    for number, base in enumerate(bases):
        cursor = Cursor(1, 0, (Progress(base),), "data")
        worker.receive(False, "below", Ready(bytes(16), 8, 1 << 30, cursor, ""), seconds * number)
        worker.tick(seconds * number)
    return told(worker.consumer.outbox)


def test_worker_tells_a_cursor_that_moved_by_a_window():
    worker = Worker(os.urandom, 16, 1 << 30)
    worker.consumer.greet("above", 0.0)
    assert worker_told(worker, range(0, 65, 4), 0.001)[1:] == [0, 16, 32, 48, 64]


def test_worker_tells_a_cursor_that_moved_a_little_after_fifty_milliseconds():
    worker = Worker(os.urandom, 16, 1 << 30)
    worker.consumer.greet("above", 0.0)
    assert {*range(2, 9, 2)} <= {*worker_told(worker, range(0, 10, 2), 0.06)}
    assert worker.consumer.due() is None
