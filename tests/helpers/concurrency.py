"""Threads and limits for the tests: every wait ends, and one that reaches its limit is a failure."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

# Seconds after which something that should have happened counts as never happening.
LIMIT = 60

# Seconds between two ticks of `within`.
TICK = 0.01


class Task(threading.Thread):
    """Runs a function in a thread; `result` waits for it and returns or raises what it did."""

    def __init__(self, function, *arguments):
        super().__init__(daemon=True)
        self._function, self._arguments = function, arguments
        self._value = self._error = None
        self.start()

    def run(self):
        try:
            self._value = self._function(*self._arguments)
        except BaseException as error:
            self._error = error

    def result(self):
        self.join(LIMIT)
        assert not self.is_alive(), f"{self._function} did not end within {LIMIT} s"
        if self._error is not None:
            raise self._error
        return self._value


def eventually(condition):
    """Wait until `condition()` holds."""
    deadline = time.monotonic() + LIMIT
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {LIMIT} s"
        pause.wait(0.001)


def pretend_cores(monkeypatch, count):
    """Let pipelines believe that the process may use so many processors."""
    for part in ("module", "run", "workers"):
        monkeypatch.setattr(f"highway.engine.{part}.usable_cores", lambda: count)


@contextmanager
def within(seconds):
    """Fail where the body takes longer than that, on a clock that a busy machine slows down as it does the body.

    The clock is a thread that sleeps again and again, and counts how often it woke: never too early, and too late
    where others have the processors.
    """
    ended, ticks = threading.Event(), []

    def tick():
        while not ended.wait(TICK):
            ticks.append(None)

    clock = threading.Thread(target=tick, daemon=True)
    clock.start()
    try:
        yield
    finally:
        taken = len(ticks) * TICK
        ended.set()
        clock.join(LIMIT)
    assert taken < seconds, f"took {taken:.2f} s or more; expected less than {seconds} s"
