"""One process of a chain over ZMQ: source, worker or sink, with Highway, bare pyzmq or msgpack-numpy.

Started by `benchmarks/transport.py`. Prints "ready" when it is; a sink prints its results as one line of JSON, and
the others end when their standard input does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

HIGHWATER = 16


def until_told(work: Any) -> None:
    """Run `work` in a thread until standard input ends, and with it the process."""
    if work is not None:
        threading.Thread(target=work, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    if work is not None:
        os._exit(0)


def arrays_of(nbytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of the given total size as float32 (3, h, w, 3), and their labels."""
    if nbytes == 3 * 320 * 240 * 3 * 4:
        return np.random.default_rng(0).random((3, 320, 240, 3), np.float32), np.arange(3)
    # Written once: untouched zeros would all be one page, which stays in the cache.
    return np.ones((3, nbytes // 36, 1, 3), np.float32), np.arange(3)


def for_ever(receive: Any, work: float, pause: float) -> None:
    """Take batches until standard input ends: for `work` seconds at full speed, then none for `pause` seconds."""

    def take() -> None:
        while True:
            until = time.monotonic() + work
            while time.monotonic() < until:
                receive()
            time.sleep(pause)

    until_told(take)


def measured(receive: Any, warm_up: int, count: int) -> None:
    """Take batches and print bytes a second, the longest wait, and the delay where the labels are times."""
    print("ready", flush=True)
    for _ in range(warm_up):
        receive()
    delays = []
    nbytes = 0
    longest = 0.0
    began, cpu = time.perf_counter(), time.process_time()
    last = began
    for _ in range(count):
        images, labels = receive()
        now = time.perf_counter()
        longest = max(longest, now - last)
        last = now
        nbytes += images.nbytes
        if labels.dtype == np.float64:
            delays.append(time.monotonic() - labels[0])
    seconds = time.perf_counter() - began
    print(
        json.dumps(
            {
                "rate": nbytes / seconds,
                "seconds": seconds,
                "longest": longest,
                "batches": count / seconds,
                "cpu": (time.process_time() - cpu) / count,
                "used": time.process_time(),
                "delay": float(np.median(delays)) if delays else None,
            }
        ),
        flush=True,
    )


# Highway


def highway(options: argparse.Namespace) -> None:
    from highway.batch import Batch
    from highway.engine import Pipeline, Source
    from highway.modules import ZMQSink, ZMQSource

    class Same(Source):
        """Yields the same arrays endlessly; with a pace, the labels are the time."""

        def tasks(self) -> Iterator[int]:
            while True:
                if options.pace:
                    time.sleep(options.pace)
                yield 0

        def load(self, task: int) -> Batch:
            images, labels = arrays
            return Batch(
                {
                    "images": images,
                    "labels": np.full(len(images), time.monotonic()) if options.pace else labels,
                }
            )

    arrays = arrays_of(options.nbytes)
    secret = {} if options.secret is None else {"secret": Path(options.secret)}
    if options.role == "source":
        pipeline = Pipeline([Same(workers=1), ZMQSink(options.to, bind=True, **secret)])
        until_told(None)
    elif options.role == "worker":
        source = ZMQSource(options.origin, timeout=None, **secret)
        pipeline = Pipeline([source, ZMQSink(options.to, bind=False, **secret)])
        until_told(None)
    else:
        pipeline = Pipeline([ZMQSource(options.origin, bind=options.bind, **secret)])
        if options.pause:
            for_ever(pipeline.dequeue, 10 * options.pause, options.pause)
        measured(pipeline.dequeue, options.warm_up, options.count)
    pipeline.stop()


# The same frames over bare pyzmq


def guard(socket: Any, options: argparse.Namespace, server: bool) -> None:
    """Set up CURVE with the secret as the key of all, without authentication."""
    if options.secret is None:
        return
    import zmq
    from zmq.utils import z85

    private = z85.encode(bytes.fromhex(Path(options.secret).read_text().strip()))
    public = zmq.curve_public(private)
    socket.curve_secretkey, socket.curve_publickey = private, public
    if server:
        socket.curve_server = True
    else:
        socket.curve_serverkey = public


def bare(options: argparse.Namespace) -> None:
    import zmq

    from highway.network.protocol.messages import Data, Item, Key, Kind
    from highway.network.protocol.wire import encode

    context = zmq.Context()

    def socket(kind: int, address: str, binds: bool) -> Any:
        made = context.socket(kind)
        made.hwm = HIGHWATER
        guard(made, options, binds)
        (made.bind if binds else made.connect)(address)
        return made

    if options.role == "source":
        push = socket(zmq.PUSH, options.to, True)
        item = Item(Kind.BATCH, [["images", "labels"], 0, 0, 0, False, False], arrays_of(options.nbytes))
        frames = encode(Data(bytes(16), bytes(16), 1, Key(0, 0, 0), 1, "", item))

        def send() -> None:
            while True:
                push.send_multipart(frames, copy=False)

        until_told(send)
    elif options.role == "worker":
        pull, push = socket(zmq.PULL, options.origin, False), socket(zmq.PUSH, options.to, False)

        def relay() -> None:
            while True:
                push.send_multipart(pull.recv_multipart(copy=False), copy=False)

        until_told(relay)
    else:
        pull = socket(zmq.PULL, options.origin, options.bind)

        def receive() -> tuple[Any, Any]:
            frames = pull.recv_multipart(copy=False)
            return np.frombuffer(frames[1], np.float32), np.frombuffer(frames[2], np.int64)

        measured(receive, options.warm_up, options.count)
    context.destroy(linger=0)


# As the first Highway: one message of msgpack-numpy per batch


def packed(options: argparse.Namespace) -> None:
    import msgpack
    import msgpack_numpy
    import zmq

    context = zmq.Context()
    if options.role == "source":
        push = context.socket(zmq.PUSH)
        push.hwm = HIGHWATER
        push.bind(options.to)
        arrays = list(arrays_of(options.nbytes))

        def send() -> None:
            while True:
                push.send(msgpack.packb(arrays, default=msgpack_numpy.encode))

        until_told(send)
    elif options.role == "worker":
        pull, push = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        pull.hwm = push.hwm = HIGHWATER
        pull.connect(options.origin)
        push.connect(options.to)

        def relay() -> None:
            while True:
                batch = msgpack.unpackb(pull.recv(), object_hook=msgpack_numpy.decode)
                push.send(msgpack.packb(batch, default=msgpack_numpy.encode))

        until_told(relay)
    else:
        pull = context.socket(zmq.PULL)
        pull.hwm = HIGHWATER
        (pull.bind if options.bind else pull.connect)(options.origin)
        measured(
            lambda: msgpack.unpackb(pull.recv(), object_hook=msgpack_numpy.decode),
            options.warm_up,
            options.count,
        )
    context.destroy(linger=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("who", choices=("highway", "bare", "packed"))
    parser.add_argument("role", choices=("source", "worker", "sink"))
    parser.add_argument("--from", dest="origin")
    parser.add_argument("--to")
    parser.add_argument("--bind", action="store_true", help="sink that others connect to")
    parser.add_argument("--secret", help="file with a secret")
    parser.add_argument("--nbytes", type=int, default=3 * 320 * 240 * 3 * 4)
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between two batches of a source")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a sink pauses, repeatedly")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--warm-up", type=int, default=100)
    options = parser.parse_args()
    {"highway": highway, "bare": bare, "packed": packed}[options.who](options)


if __name__ == "__main__":
    main()
