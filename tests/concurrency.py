"""Threads and limits for the tests: every wait ends, and one that reaches its limit is a failure."""

from __future__ import annotations

import threading
import time

# Seconds after which something that should have happened counts as never happening.
LIMIT = 20


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
    for part in ("module", "stations", "engine"):
        monkeypatch.setattr(f"highway.{part}.usable_cores", lambda: count)
