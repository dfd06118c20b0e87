"""What a test finds left over after doing the same many times: memory, threads, descriptors."""

from __future__ import annotations

import gc
import os
import threading
import tracemalloc
from collections.abc import Callable


def assert_nothing_left(once: Callable[[], object], *, times: int, warm: int, bytes_each: int = 100) -> None:
    """Call `once` many times; at most as many threads and descriptors, and no memory, are there afterwards.

    A leak grows in every round. What is kept for reuse may grow in any one of them, such as the frames that Python 3.10
    keeps of code that runs in several threads at once.

    Parameters
    ----------
    once : callable
        It is called `warm` times, and in four rounds of `times`.
    times, warm : int
    bytes_each : int
        How many bytes of Python's memory the round that grows least may grow for each call.
    """

    def calls(count: int) -> None:
        for _ in range(count):
            once()
        gc.collect()

    calls(20)
    threads, descriptors = threading.active_count(), len(os.listdir("/dev/fd"))
    tracemalloc.start()
    try:
        calls(warm)
        grown = []
        for _ in range(4):
            before = tracemalloc.get_traced_memory()[0]
            calls(times)
            grown.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    assert threading.active_count() <= threads
    assert len(os.listdir("/dev/fd")) == descriptors
    assert min(grown) < times * bytes_each, f"{grown} bytes grown in rounds of {times}"
