"""SampleMemory: a fetcher makes the process grow by its window and little more."""

import os
import subprocess
import sys

import numpy as np
import pytest
from object_server import ObjectServer

from highway.storage.sample_memory import SampleMemory

MIB = 1 << 20


def asked_for(memory, nbytes, *, noted=0):
    """Ask for ranges of so many bytes until there is no room; return their number."""
    count = 0
    while memory.may_connect() and memory.has_room(nbytes, noted):
        memory.begin(nbytes)
        count += 1
    return count


@pytest.mark.parametrize("nbytes", [5000, 110_000, 600_000])
@pytest.mark.parametrize("window", [4 * MIB, 64 * MIB, 256 * MIB])
def test_bytes_and_connections_fit_into_the_window(window, nbytes):
    memory = SampleMemory(window)
    connections = asked_for(memory, nbytes)
    assert connections >= 1
    for _ in range(connections):
        memory.end()
    # Held samples fill what the connections leave.
    while memory.has_room(nbytes, 0):
        memory.begin(nbytes)
        memory.end()
    assert 0.65 * window - nbytes < memory.used == memory.most_used < 0.95 * window


def test_large_samples_allow_fewer_connections():
    small, large = (SampleMemory(64 * MIB) for _ in range(2))
    for memory, nbytes in ((small, 10_000), (large, 400_000)):
        for _ in range(500):
            memory.begin(nbytes)
            memory.end()
            memory.use(-nbytes)
    assert asked_for(small, 10_000) > 3 * asked_for(large, 400_000) > 8


def test_one_range_always_has_room():
    memory = SampleMemory(1)
    assert memory.may_connect() and memory.has_room(10 * MIB, 1 << 20)
    memory.begin(10 * MIB)
    assert not memory.has_room(1, 0)
    memory.end()
    memory.use(-10 * MIB)
    assert memory.has_room(10 * MIB, 0) and memory.used == 0 and memory.most_used == 10 * MIB


def test_notes_leave_room_for_samples():
    memory = SampleMemory(4 * MIB)
    few = asked_for(memory, 1000)
    assert few >= 8
    for _ in range(few):
        memory.end()
    assert memory.has_room(MIB, noted=10**6)
    assert memory.has_room(5 * MIB // 2, noted=0) and not memory.has_room(5 * MIB // 2, noted=10**6)


GROWTH = """
import sys
import threading

import numpy as np

from highway.storage.fetching import Fetcher
from highway.storage.opening import open_store
from highway.storage.ranges import Ranges

def most():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

endpoint, window, batch = sys.argv[1], int(sys.argv[2]), 50
store = open_store(
    "s3://data", "Reader",
    {"endpoint": endpoint, "access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1"},
)
ranges = Ranges.of_objects(store, list(store.list("")))
warm = Fetcher("Reader", ranges, max_bytes=1 << 20)
warm.take(0, np.arange(2))
warm.close()
before = most()
fetcher = Fetcher("Reader", ranges, max_bytes=window)
batches = np.arange(len(ranges)).reshape(-1, batch)
for ticket, indices in enumerate(batches):
    fetcher.announce(ticket, indices)
pause = threading.Event()
for ticket, indices in enumerate(batches):
    if ticket == len(batches) // 4:
        # What is not taken fills the window.
        while fetcher.measures()["held"] < window // 2:
            pause.wait(0.01)
    contents, errors = fetcher.take(ticket, indices)
    assert not errors and all(map(len, contents))
    del contents
print(most() - before)
fetcher.close()
"""


@pytest.mark.skipif(
    not os.path.exists("/proc/self/status"), reason="needs the peak that Linux states in /proc"
)
@pytest.mark.parametrize(
    ("nbytes", "count", "window"),
    [(20_000, 2400, 24 * MIB), (20_000, 800, 4 * MIB), (110_000, 800, 48 * MIB)],
)
def test_the_process_grows_by_the_window(nbytes, count, window):
    body = np.random.default_rng(0).bytes(nbytes)
    with ObjectServer({f"data/{number:05}": body for number in range(count)}, latency=0.02) as server:
        found = subprocess.run(
            [sys.executable, "-c", GROWTH, server.endpoint, str(window)],
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
        )
    grown = int(found.stdout)
    # With the batch that is taken, and what malloc keeps.
    assert grown < window + 4 * MIB, f"{grown / MIB:.1f} MiB"
