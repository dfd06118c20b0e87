"""How the threads of a machine wake each other."""

import threading
import time

import pytest
from concurrency import LIMIT

from highway.network.zmq.socket_thread import Signal


@pytest.fixture
def lock():
    return threading.RLock()


def waits(signal, lock, timeout):
    """Seconds that a wait took; the lock is held before and after it, and let go meanwhile."""
    with lock:
        began = time.monotonic()
        signal.wait(timeout)
        taken = threading.Event()
        other = threading.Thread(target=lambda: taken.set() if lock.acquire(blocking=False) else None)
        other.start()
        other.join(LIMIT)
        assert not taken.is_set()
        return time.monotonic() - began


def test_signal_wakes_who_waits(lock):
    signal = Signal(lock)
    waiting = threading.Event()

    def wake():
        assert waiting.wait(LIMIT)
        # Free as soon as the other one waits.
        with lock:
            signal.notify()

    other = threading.Thread(target=wake)
    other.start()
    with lock:
        waiting.set()
        began = time.monotonic()
        signal.wait(LIMIT)
        assert time.monotonic() - began < LIMIT / 2
    other.join(LIMIT)


def test_signal_that_came_before_is_kept_once(lock):
    signal = Signal(lock)
    signal.notify()
    signal.notify()
    assert waits(signal, lock, LIMIT) < LIMIT / 2
    assert waits(signal, lock, 0.05) >= 0.05


def test_wait_for_a_signal_has_an_end(lock):
    assert waits(Signal(lock), lock, 0.05) >= 0.05
