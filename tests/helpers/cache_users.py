"""Processes that share a cache; run as a program, so that a test forks from a process without threads.

The arguments are what they do (a function below), the folder of the cache, its limit, and numbers for that function.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import signal
import sys
import threading
import warnings

from highway.storage.cache import Cache
from highway.storage.cache.entries import SHARDS
from highway.storage.cache.ledger import Ledger
from highway.storage.cache.room import Room
from highway.storage.objects import Object

KEYS = 60
LARGEST = 150_000


def bytes_of(number):
    """The bytes of an object: their number depends on its own."""
    return random.Random(number).randbytes(1 + number * 7919 % LARGEST)


def key_of(number):
    size = 1 + number * 7919 % LARGEST
    return "s3://bucket", Object(f"pictures/{number}.jpg", size, f"etag{number}"), 0, size


def use(cache, seed, rounds, done=lambda: None):
    """Read and add objects in an own order; wrong bytes end the process with 3."""
    order = random.Random(seed)
    for _ in range(rounds):
        number = order.randrange(KEYS)
        found = cache.get(*key_of(number))
        if found is None:
            cache.put(*key_of(number), bytes_of(number))
        elif found != bytes_of(number):
            os._exit(3)
        done()


def forked(run):
    """A child that runs a function and exits with 0."""
    child = os.fork()
    if not child:
        code = 4
        try:
            run()
            code = 0
        finally:
            os._exit(code)
    return child


def in_folder(folder):
    """(Bytes on the disk, bytes as counted) while nobody changes them; drafts of killed processes are removed."""
    ledger = Ledger(folder, "test")
    room = Room(os.path.join(folder, "entries"), ledger, 60.0)
    with ledger.changing(60.0) as counts:
        counted = counts.total
        return sum(room._scan(shard).cost for shard in range(SHARDS)), counted


def check(folder, limit):
    there, counted = in_folder(folder)
    if not there <= counted <= limit:
        sys.exit(f"on the disk {there}, counted {counted}, allowed {limit}")


def killed(folder, limit, times):
    """One of two users is killed, so many times."""
    Cache(folder, limit, "test")
    survivor = forked(lambda: use(Cache(folder, None, "test"), 1, 40 * times))
    draw = random.Random(2)
    for turn in range(times):
        ours, theirs = os.pipe()

        def victim(turn=turn, theirs=theirs):
            use(Cache(folder, None, "test"), 10 + turn, 10_000, lambda: os.write(theirs, b"."))

        child = forked(victim)
        os.close(theirs)
        # At another place of its work each time.
        for _ in range(draw.randrange(1, 12)):
            os.read(ours, 1)
        for _ in range(draw.randrange(200)):
            pass
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        os.close(ours)
        if status != signal.SIGKILL:
            sys.exit(f"victim {turn} ended with {status}")
        check(folder, limit)
    _, status = os.waitpid(survivor, 0)
    if status:
        sys.exit(f"the survivor ended with {status}")
    check(folder, limit)


def together(folder, limit, users):
    """So many users work at once."""
    Cache(folder, limit, "test")
    ours, theirs = os.pipe()
    children = [
        forked(lambda seed=seed: use(Cache(folder, None, "test"), seed, 60, lambda: os.write(theirs, b".")))
        for seed in range(users)
    ]
    os.close(theirs)
    while os.read(ours, 16):
        check(folder, limit)
    for child in children:
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"a user ended with {status}")
    check(folder, limit)


def full(folder, limit, size):
    """No file of a user may have more than so many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    logging.basicConfig(format="%(message)s")
    cache = Cache(folder, limit, "test")
    use(cache, 1, 50)
    check(folder, limit)


def fork(folder, limit):
    """A process is killed that has the lock and a child, which goes on."""
    cache = Cache(folder, limit, "test")
    told, tell = os.pipe()
    ended, end = os.pipe()

    def parent():
        os.close(end)
        inside = threading.Event()

        def hold():
            with Ledger(folder, "test").changing(10.0):
                inside.set()
                threading.Event().wait(60)

        threading.Thread(target=hold, daemon=True).start()
        inside.wait(60)
        # Python 3.12 warns of forks beside threads, which are what this is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        forked(child)
        threading.Event().wait(60)

    def child():
        os.write(tell, b"x")
        os.read(ended, 1)

    process = forked(parent)
    os.read(told, 1)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    if not cache.put(*key_of(1), bytes_of(1)):
        sys.exit("the child of a killed process keeps its lock")
    os.close(end)


if __name__ == "__main__":
    {"killed": killed, "together": together, "full": full, "fork": fork}[sys.argv[1]](
        sys.argv[2], *map(int, sys.argv[3:])
    )
