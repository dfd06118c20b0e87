"""A simulated network of data machines, workers and a training machine, in which everything breaks.

Time is simulated, so that hours take a moment; whatever happens follows from the seed. The machines are those of
`highway.network.protocol.roles`; the network between them loses what is under way when it is cut, swallows one
direction, sends twice and delays.
"""

from __future__ import annotations

import heapq
import importlib
import math
import random
import sys
from collections import Counter, deque
from importlib.util import find_spec, module_from_spec
from types import ModuleType

import numpy as np
from small_modules import SizedNumbers

from highway.network.protocol.messages import Cursor, Item, Key, Kind

MODULES = tuple(
    f"highway.network.protocol.{name}" for name in ("link", "producer", "consumer", "delivery", "roles")
)


def roles_with(*changes: tuple[str, str, str]) -> ModuleType:
    """The module of the roles, with texts of the protocol's sources changed: (module, text, other text)."""
    if not changes:
        return importlib.import_module(MODULES[-1])
    kept = {name: importlib.import_module(name) for name in MODULES}
    left = list(changes)
    try:
        for name in MODULES:
            spec = find_spec(name)
            text = spec.loader.get_source(name)
            for change in changes:
                if name.endswith("." + change[0]):
                    assert text.count(change[1]) == 1, (
                        f"{change[1]!r} is {text.count(change[1])} times in {name}"
                    )
                    text = text.replace(change[1], change[2])
                    left.remove(change)
            module = module_from_spec(spec)
            sys.modules[name] = module
            exec(compile(text, f"{name} with changes", "exec"), module.__dict__)
    finally:
        sys.modules.update(kept)
    assert not left, f"no module takes {left}"
    return module


class Failed(AssertionError):
    """The promise was broken."""


class Wire:
    """One connection between a consumer above and a producer; a queue for each direction."""

    def __init__(self, sim, above, below):
        self.sim = sim
        # Producer's end is "above" (towards the data), consumer's end is "below".
        self.above, self.below = above, below
        self.epoch = 0
        self.up = True
        # What share of the messages is lost in a direction.
        self.swallows = {}
        self.last = {"down": 0.0, "up": 0.0}

    def send(self, direction, message):
        """From above "down", or from below "up". What is sent while the connection is cut waits at the sender."""
        if not self.up:
            return
        sim = self.sim
        lost = self.swallows.get(direction, sim.losing if sim.now < sim.quiet_from else 0)
        if lost and sim.random.random() < lost:
            return
        copies = 2 if sim.random.random() < sim.doubling else 1
        for _ in range(copies):
            # In order: it is a stream.
            self.last[direction] = when = max(self.last[direction], sim.now + sim.delay())
            sim.at(when, self._arrive, direction, message, self.epoch)

    def _arrive(self, direction, message, epoch):
        if epoch != self.epoch or not self.up:
            return
        if direction == "down":
            self.below.take(self, "above", message)
        else:
            self.above.take(self, "below", message)

    def cut(self, seconds):
        """Lose what is under way, and be away for a time."""
        self.epoch += 1
        self.up = False
        self.sim.at(self.sim.now + seconds, self._back, self.epoch)

    def _back(self, epoch):
        if epoch == self.epoch:
            self.up = True


class Machine:
    """What the three machines share: they may be paused, and answer nothing while they are."""

    def __init__(self, sim, name):
        self.sim, self.name = sim, name
        self.alive, self.paused_until = True, 0.0
        self.backlog = deque()
        self.wires = []
        sim.at(sim.now + sim.random.random() * 0.25, self.beat)

    def beat(self):
        if self.alive:
            self.run(self.role.tick, self.sim.now)
            self.sim.at(self.sim.now + 0.25, self.beat)

    def take(self, wire, side, message):
        if self.alive:
            self.run(self.receive, wire, side, message)

    def run(self, function, *arguments):
        """Do something now, or when the pause is over."""
        if not self.alive:
            return
        if self.sim.now < self.paused_until:
            self.backlog.append((function, arguments))
            return
        function(*arguments)
        self.pump()

    def pause(self, seconds):
        self.paused_until = self.sim.now + seconds
        self.sim.at(self.paused_until, self._resume)

    def _resume(self):
        while self.alive and self.backlog and self.sim.now >= self.paused_until:
            function, arguments = self.backlog.popleft()
            function(*arguments)
            self.pump()

    def send_from(self, end, direction):
        while end.outbox:
            wire, message = end.outbox.popleft()
            if wire in self.wires:
                wire.send(direction, message)

    def send_data(self, producer):
        self.send_from(producer, "down")
        blocked = {wire for wire in self.wires if not wire.up}
        while producer.has_work and (found := producer.pick(blocked)) is not None:
            producer.commit(*found)
            found[0].send("down", found[1])
            self.sim.most_under_way = max(self.sim.most_under_way, len(producer.links[found[0]].in_flight))


class DataMachine(Machine):
    def __init__(self, sim, stream):
        self.stream = stream
        numbering = SizedNumbers(sim.length) if sim.knows_length else None
        self.role = sim.roles.DataMachine(sim.bytes, stream, sim.world, numbering, "data", timing=sim.timing)
        self.making = 0
        super().__init__(sim, f"data {stream}")

    def receive(self, wire, side, message):
        self.role.receive(side == "above", wire, message, self.sim.now)

    def pump(self):
        while self.making < 2 and self.role.producer.unsent < 2:
            wanted = self.role.next()
            if wanted is None:
                break
            if wanted.position >= self.sim.length * self.sim.epochs:
                self.role.give_up(wanted.key)
                self.role.end(self.sim.length * self.sim.epochs)
                continue
            base = self.role.feed.base
            if wanted.key.epoch == base.epoch and wanted.key.seq - base.seq >= self.role.horizon:
                raise Failed(f"{wanted.key} is beyond the horizon, {self.role.horizon} from {base}")
            self.making += 1
            self.sim.at(self.sim.now + self.sim.work(), self.run, self.made, wanted.key)
        self.send_data(self.role.producer)

    def made(self, key):
        self.making -= 1
        kind = Kind.SKIP if self.sim.skipped(key) else Kind.BATCH
        arrays = () if kind is Kind.SKIP else (np.array([key.epoch, key.seq, key.stream]),)
        self.role.made(key, Item(kind, [], arrays))


class Worker(Machine):
    def __init__(self, sim, number):
        self.number = number
        self.role = sim.roles.Worker(sim.bytes, 2 * sim.window + 2, 1 << 20, timing=sim.timing)
        self.busy = 0
        super().__init__(sim, f"worker {number}")

    def receive(self, wire, side, message):
        self.role.receive(side == "above", wire, message, self.sim.now)

    def pump(self):
        role = self.role
        while self.busy < 2 and role.inbox:
            data = role.inbox.popleft()
            self.busy += 1
            self.sim.at(self.sim.now + self.sim.work(), self.run, self.made, data)
        self.send_from(role.consumer, "up")
        self.send_data(role.producer)
        due = role.due()
        if due is not None:
            self.sim.at(max(due, self.sim.now + 1e-3), self.run, role.tick, max(due, self.sim.now + 1e-3))

    def made(self, data):
        self.busy -= 1
        if data.key == self.sim.poison:
            self.sim.crash_worker(self)
            return
        if data.key == self.sim.broken or (self.number == self.sim.sick and self.sim.random.random() < 0.7):
            self.sim.failures[self.number, data.key] += 1
            self.role.failed(data.key, Item(Kind.ERROR, ["MemoryError", self.name], ()), self.sim.now)
            return
        item = data.item._replace(arrays=tuple(array * 10 for array in data.item.arrays))
        self.role.made(data.key, item, self.sim.now)


class Trainer(Machine):
    def __init__(self, sim, cursor, log):
        self.role = sim.roles.Trainer(sim.bytes, cursor, sim.ordered, sim.window, 1 << 20, timing=sim.timing)
        self.log = log
        self.queue = deque()
        self.saved = (cursor, len(log))
        self.busy = False
        super().__init__(sim, "trainer")

    def receive(self, wire, side, message):
        self.role.receive(side == "above", wire, message, self.sim.now)
        if self.role.failure is not None:
            raise Failed(f"{self.role.failure}")

    def pump(self):
        delivery = self.role.delivery
        while delivery.released and len(self.queue) < 2:
            self.queue.append(delivery.released.popleft())
        if self.queue and not self.busy:
            self.busy = True
            self.sim.at(self.sim.now + self.sim.step(), self.run, self.step)
        self.send_from(self.role.consumer, "up")
        if not self.sim.ordered and self.sim.epochs == 1:
            under_way = len(delivery.released) + len(self.queue)
            most = self.sim.window * self.sim.links
            if under_way > most:
                raise Failed(f"{under_way} items wait to be handed out, of {most}")

    def step(self):
        """The user's dequeue()."""
        self.busy = False
        if not self.queue:
            return
        data = self.queue.popleft()
        if self.role.deliver(data.key, self.sim.now):
            self.log.append(data)
        if self.sim.random.random() < 0.2:
            self.saved = (self.role.delivery.cursor, len(self.log))


class Simulation:
    """One run; `run` raises Failed where the promise was broken."""

    def __init__(
        self, seed, roles=None, *, world=None, poisoned=None, losing=0, severed=False, failing=False
    ):
        self.roles = roles or roles_with()
        self.random = random.Random(seed)
        self.now, self.events, self.count = 0.0, [], 0
        draw = self.random
        self.timing = sys.modules["highway.network.protocol.link"].Timing()
        self.world = draw.choice((1, 1, 2)) if world is None else world
        self.length = draw.choice((0, 1, 7, 40)) or draw.randint(1, 60)
        self.knows_length = draw.random() < 0.8
        self.epochs = draw.randint(1, 3) if self.knows_length else 1
        self.window = draw.choice((1, 2, 4, 8))
        self.ordered = draw.random() < 0.4
        self.doubling = draw.choice((0, 0, 0.1))
        self.latency = draw.choice((0.0005, 0.01, 0.3))
        self.working = draw.choice((0.001, 0.05, 0.4))
        self.stepping = draw.choice((0.001, 0.05, 0.4))
        self.skipping = draw.choice((0, 0, 0.2))
        self.poison = None
        if draw.random() < 0.25 if poisoned is None else poisoned:
            self.poison = Key(
                draw.randrange(self.epochs), draw.randrange(self.length), draw.randrange(self.world)
            )
        # A batch that nobody can process, and a worker that cannot process most of them.
        self.broken = self.sick = None
        self.failures = Counter()
        if failing:
            self.sick = 0
            if draw.random() < 0.5:
                self.broken = Key(
                    draw.randrange(self.epochs), draw.randrange(self.length), draw.randrange(self.world)
                )
        # Faults happen until then.
        self.quiet_from = draw.choice((5, 40, 120))
        self.faults = draw.choice((0, 0.1, 0.5, 1.5))
        self.losing = losing
        self.undisturbed = not (self.faults or losing)
        self.most_under_way = self.links = 0
        self.history = []

        self.data = [DataMachine(self, stream) for stream in range(self.world)]
        self.workers = [Worker(self, number) for number in range(draw.randint(1, 4))]
        self.generation = 1
        self.trainer = Trainer(self, Cursor(1), [])
        for worker in self.workers:
            self._connect_worker(worker)
        if severed and len(self.workers) > 1:
            self.at(self.random.uniform(0, 3), self.sever)

    def sever(self):
        """Part a worker from the training machine for good, and not from the data machines."""
        if self.workers:
            for wire in self.random.choice(self.workers).wires:
                if wire.below is self.trainer:
                    wire.epoch, wire.up = -1, False

    def bytes(self, count):
        return self.random.randbytes(count)

    def delay(self):
        return self.latency * self.random.expovariate(1)

    def work(self):
        return self.working * self.random.expovariate(1)

    def step(self):
        return self.stepping * self.random.expovariate(1)

    def skipped(self, key):
        return self.skipping > 0 and random.Random(f"{key}").random() < self.skipping

    def at(self, when, function, *arguments):
        self.count += 1
        heapq.heappush(self.events, (when, self.count, function, arguments))

    def _connect(self, above, below, greeter):
        wire = Wire(self, above, below)
        above.wires.append(wire)
        below.wires.append(wire)
        if greeter == "above":
            above.run(above.role.producer.greet, wire)
        else:
            below.run(below.role.consumer.greet, wire, self.now)

    def _connect_worker(self, worker):
        for machine in self.data:
            self._connect(machine, worker, "below")
        self._connect(worker, self.trainer, "above")
        self.links += 1

    def _drop(self, machine, kept=()):
        """End a machine, and its connections but those at which the other side waits for it to come back."""
        machine.alive = False
        for wire in kept:
            wire.epoch += 1
            wire.up = False
            machine.wires.remove(wire)
        for wire in machine.wires:
            wire.epoch += 1
            wire.up = False
            for other in (wire.above, wire.below):
                if other is not machine and wire in other.wires:
                    other.wires.remove(wire)
                    # A side that binds forgets who is gone; one that connects comes back with the same name.

    def crash_worker(self, worker):
        if not worker.alive:
            return
        # One that binds comes back under its name: the data machine sees the same peer with a new session.
        kept = [wire for wire in worker.wires if wire.below is worker] if self.random.random() < 0.5 else []
        self._drop(worker, kept)
        self.workers.remove(worker)
        self.at(self.now + self.random.uniform(0.1, 20), self.start_worker, kept)

    def start_worker(self, kept):
        worker = Worker(self, len(self.workers))
        self.workers.append(worker)
        kept = [wire for wire in kept if wire.above.alive]
        if not kept:
            self._connect_worker(worker)
            return
        for wire in kept:
            wire.below, wire.up = worker, True
            worker.wires.append(wire)
            wire.above.run(wire.above.role.producer.greet, wire)
        for machine in self.data:
            if machine not in [wire.above for wire in kept]:
                self._connect(machine, worker, "below")
        self._connect(worker, self.trainer, "above")
        self.links += 1

    def crash_data(self):
        stream = self.random.randrange(self.world)
        machine = self.data[stream]
        if machine.alive:
            self._drop(machine)
            self.at(self.now + self.random.uniform(0.1, 20), self.start_data, stream)

    def start_data(self, stream):
        machine = self.data[stream] = DataMachine(self, stream)
        for worker in self.workers:
            self._connect(machine, worker, "below")

    def crash_trainer(self):
        if not self.trainer.alive:
            return
        self._drop(self.trainer)
        self.at(self.now + self.random.uniform(0.1, 20), self.start_trainer)

    def start_trainer(self):
        cursor, length = self.trainer.saved
        self.generation += 1
        self.trainer = Trainer(self, cursor._replace(generation=self.generation), self.trainer.log[:length])
        for worker in self.workers:
            self._connect(worker, self.trainer, "above")

    def fault(self):
        if self.now > self.quiet_from:
            return
        self.at(self.now + self.random.expovariate(self.faults), self.fault)
        machines = [*self.data, *self.workers, self.trainer]
        wires = [wire for machine in machines for wire in machine.wires]
        what = self.random.choice(
            ("cut", "cut", "half", "pause", "crash worker", "crash data", "crash trainer")
        )
        self.history.append((round(self.now, 3), what))
        if what == "cut" and wires:
            self.random.choice(wires).cut(self.random.expovariate(0.5))
        elif what == "half" and wires:
            wire, direction = self.random.choice(wires), self.random.choice(("up", "down"))
            wire.swallows[direction] = self.random.choice((1, 0.2))
            self.at(self.now + self.random.expovariate(0.2), wire.swallows.pop, direction, None)
        elif what == "pause":
            self.random.choice(machines).pause(self.random.choice((0.5, 5, 15)))
        elif what == "crash worker" and self.workers:
            self.crash_worker(self.random.choice(self.workers))
        elif what == "crash data" and self.random.random() < 0.5:
            self.crash_data()
        elif what == "crash trainer" and self.random.random() < 0.5:
            self.crash_trainer()

    def run(self, limit=4000.0):
        """Run to the end of the data.

        Raises
        ------
        Failed
            The end is not reached by the limit; or something was lost, came twice, or was changed.
        """
        if self.faults:
            self.at(self.random.expovariate(self.faults), self.fault)
        while not self.trainer.role.delivery.finished:
            if not self.events or self.now > limit:
                raise Failed(f"stands still at {self.now:.0f} s: {self.trainer.role.delivery.missing()}")
            self.now, _, function, arguments = heapq.heappop(self.events)
            function(*arguments)
        self.check()
        return self

    def check(self):
        log = self.trainer.log
        keys = [data.key for data in log]
        expected = [
            Key(epoch, seq, stream)
            for epoch in range(self.epochs)
            for seq in range(self.length)
            for stream in range(self.world)
            if not self.skipped(Key(epoch, seq, stream))
        ]
        if len(set(keys)) != len(keys):
            raise Failed(f"came twice: {sorted(key for key in set(keys) if keys.count(key) > 1)[:5]}")
        if sorted(keys) != expected:
            raise Failed(f"lost: {sorted(set(expected) - set(keys))[:5]}")
        if self.ordered and keys != expected:
            raise Failed("not in order")
        if [key.epoch for key in keys] != sorted(key.epoch for key in keys):
            raise Failed("epochs are mixed")
        for data in log:
            key = data.key
            if data.item.kind is Kind.ERROR and data.item.meta[0] == "MemoryError":
                failures = sum(count for (_, failed), count in self.failures.items() if failed == key)
                if failures < 2:
                    raise Failed(f"{key} is an error, and failed {failures} times")
                if key != self.broken and len(self.workers) > 1 and self.undisturbed:
                    raise Failed(f"{key} is an error, and only {self.broken} is one")
            elif key == self.broken:
                raise Failed(f"{key} cannot be processed and came all the same")
            elif data.item.kind is Kind.ERROR:
                if key != self.poison or data.item.meta[0] != "PoisonItemError":
                    raise Failed(f"{key} was given up, {self.poison} is the poison")
            elif key == self.poison:
                raise Failed(f"{key} kills every worker and came all the same")
            elif data.item.arrays[0].tolist() != [10 * key.epoch, 10 * key.seq, 10 * key.stream]:
                raise Failed(f"{key} holds {data.item.arrays[0]}")
        sick = sum(count for (number, key), count in self.failures.items() if key != self.broken)
        # Until others have done what it failed at, and once more each time that it comes back.
        most = 2 * self.window + 2 + 3 + (2 * self.window + 2) * math.log2(2 + self.now / 5)
        if len(self.workers) > 1 and self.undisturbed and sick > most * self.world:
            raise Failed(f"the sick worker failed {sick} times, of {most:.0f}")
        if self.most_under_way > 2 * self.window + 2:
            raise Failed(f"{self.most_under_way} items were under way to one worker of {2 * self.window + 2}")
