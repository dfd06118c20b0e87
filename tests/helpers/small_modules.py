"""Small modules for the tests of the engine."""

from __future__ import annotations

import threading

import numpy as np
from concurrency import LIMIT

from highway.batch import Batch, empty
from highway.engine import Sink, Source, Stage
from highway.errors import EndOfData


class Numbers(Source):
    """Batches of four numbers, `length` an epoch; `holes` are the tickets that it leaves out."""

    hands_over = True

    def __init__(self, length=10, epochs=1, holes=(), **arguments):
        super().__init__(**arguments)
        self.length, self.epochs, self.holes = length, epochs, frozenset(holes)

    def tasks(self):
        ticket = 0
        while self.epochs is None or ticket < self.length * self.epochs:
            yield ticket
            ticket += 1

    def load(self, task):
        if task in self.holes:
            return None
        numbers = empty(4, "int64")
        numbers[:] = np.arange(4 * task, 4 * task + 4)
        return Batch({"numbers": numbers})


class SizedNumbers(Numbers):
    def __len__(self):
        return self.length


class NumbersWithEpochs(Numbers):
    """Says which epoch a batch belongs to, but not how long an epoch is."""

    def load(self, task):
        batch = super().load(task)
        if batch is not None:
            batch.epoch, batch.seq = divmod(task, self.length)
        return batch


class Pass(Stage):
    def process(self, batch):
        return batch


class Drop(Stage):
    """Leaves out the batches whose first number says so."""

    def __init__(self, drop, **arguments):
        super().__init__(**arguments)
        self.drop = drop

    def process(self, batch):
        return None if self.drop(int(batch.numbers[0]) // 4) else batch


class Call(Stage):
    """Calls a function with every batch; the result is what it returns."""

    def __init__(self, function, **arguments):
        super().__init__(**arguments)
        self.function = function

    def process(self, batch):
        return self.function(batch)


class Gate(Stage):
    """Stops at every batch until the test opens the gate; `entered` says that a worker stands there."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.entered = threading.Event()
        self.gate = threading.Event()

    def process(self, batch):
        self.entered.set()
        assert self.gate.wait(LIMIT)
        return batch

    def interrupt(self):
        self.gate.set()


class Collect(Sink):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.batches = []

    def consume(self, batch):
        self.batches.append(batch)


def rest_of(batches):
    """The batches that are left, of an iterable or a method that makes one; none where the end is told instead."""
    try:
        return list(batches() if callable(batches) else batches)
    except EndOfData:
        return []


def numbers_of(batches):
    """Ticket of every batch of a Numbers source, by what is in it."""
    found = []
    for batch in batches:
        first = int(batch.numbers[0])
        assert batch.numbers.tolist() == list(range(first, first + 4))
        assert first % 4 == 0
        found.append(first // 4)
    return found
