"""Machines for the tests of the network: in this process, as processes of their own, and a proxy between them.

Run as a script it is one machine: ``machines.py '{"role": "data", ...}'``. It tells what happens line by line, as
JSON, and does as it is told line by line: nobody has to guess how far it is.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import queue
import random
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import zmq
from concurrency import LIMIT, eventually

from highway.engine import Pipeline, Stage
from highway.modules import Augmentations, Noise, ZMQSink, ZMQSource
from highway.network import exactly_once as exact
from highway.network.protocol.link import Timing
from highway.network.protocol.messages import Cursor, Ready
from highway.network.protocol.wire import encode
from highway.network.zmq import sockets
from highway.transforms import FlipX

# pyzmq keeps a thread and a context of its own from the first large message on; they are none of ours.
zmq.Frame(bytearray(1 << 20), copy=False)

# So that nobody waits for ten seconds for a death; as real as the others otherwise.
FAST = Timing(repeat=0.1, death=1.0, gathering=0.5)

# Seconds after which one who waits for somebody that is gone gives up. Whoever must first hear from another has to be
# that patient, however busy the machine is.
PATIENCE = 5

# What happens to every batch, and by which of them it can be told


def digest(batch):
    """What a batch holds, down to the last bit."""
    found = hashlib.sha256()
    for name, array in batch.fields.items():
        found.update(f"{name} {array.dtype.str} {array.shape};".encode())
        found.update(array.tobytes())
    found.update(f"{batch.epoch} {batch.seq} {batch.applied} {batch.keys};".encode())
    found.update(batch.indices.tobytes())
    return found.hexdigest()


def key_of(batch):
    """Epoch, number, and the first sample: that tells which data machine it comes from."""
    return batch.epoch, batch.seq, int(batch.indices[0])


def told(batches):
    """(key, digest) of every batch, in the order of their coming."""
    return [(key_of(batch), digest(batch)) for batch in batches]


def noise(size=70, epochs=2, seed=3, shape=(6, 5), batch_size=4, **arguments):
    return Noise(batch_size, shape, size=size, epochs=epochs, seed=seed, workers=1, **arguments)


def flips():
    return Augmentations([FlipX()], seed=7, workers=2)


def undisturbed(*modules):
    """What one process makes, without a network."""
    with Pipeline(list(modules) or [noise(), flips()]) as pipeline:
        return dict(told(pipeline.forever()))


def assert_once(found, expected):
    """Every batch arrived once, and is what it should be."""
    count = Counter(key for key, _ in found)
    twice = {key: number for key, number in count.items() if number > 1}
    missing = sorted(expected.keys() - count.keys())
    strange = sorted(count.keys() - expected.keys())
    assert not (twice or missing or strange), f"twice {twice}, missing {missing}, strange {strange}"
    assert [key for key, sha in found if expected[key] != sha] == []


# What may not be left


def open_files():
    """What the descriptors of this process are, but for the list itself."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{number}").partition(":")[0])
    return Counter(found)


def highway_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("highway ")]


@contextlib.contextmanager
def nothing_left():
    """Whatever is begun inside is gone afterwards: threads, descriptors, the context of libzmq."""
    gc.collect()
    gc.freeze()
    before = open_files()
    yield
    gc.collect()
    with contextlib.suppress(AssertionError):
        eventually(
            lambda: not highway_threads() and not sockets.is_context_open() and not open_files() - before
        )
    assert highway_threads() == []
    assert not sockets.is_context_open()
    assert not open_files() - before


# Machines in this process


class Machines(contextlib.ExitStack):
    """Pipelines that are stopped in the end, in the reverse order."""

    def add(self, *modules, **arguments):
        return self.enter_context(Pipeline(list(modules), **arguments))

    def data(self, source=None, addr="tcp://127.0.0.1:*", **arguments):
        sink = ZMQSink(addr, **arguments)
        self.add(noise() if source is None else source, sink)
        return sink

    def worker(self, above, below, *stages):
        """Between a sink and a source, or their addresses, of which it connects to both."""
        source = ZMQSource(above if isinstance(above, (str, list)) else above.address)
        return self.add(source, *(stages or (flips(),)), ZMQSink(address(below), bind=False))

    def trainer(self, addr="tcp://127.0.0.1:*", bind=True, **arguments):
        source = ZMQSource(addr, bind, **arguments)
        pipeline = self.add(source)
        return pipeline, source


def address(module):
    return module if isinstance(module, str) else module.address


# Machines as processes


class Machine:
    """A process with one machine in it; `expect` waits for what it tells."""

    def __init__(self, role, *, wrapper=(), **options):
        self.role = role
        command = [*wrapper, sys.executable, "-W", "error", __file__, json.dumps({"role": role, **options})]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines = []
        self.errors = []
        self._came = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self):
        return self.process.pid

    def _read(self):
        for line in self.process.stdout:
            self._came.put(json.loads(line))
        self._came.put(None)

    def expect(self, what, limit=LIMIT):
        """Wait for a line with this key, and return its value."""
        deadline = time.monotonic() + limit
        while True:
            try:
                line = self._came.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"{self.role} did not tell {what!r} within {limit} s: {self}") from None
            assert line is not None, f"{self.role} ended before it told {what!r}: {self}"
            self.lines.append(line)
            if what in line:
                return line[what]

    @property
    def batches(self):
        """(key, digest) of what a trainer told so far."""
        return [(tuple(line["batch"]), line["sha"]) for line in self.lines if "batch" in line]

    def tell(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def go(self, count):
        """Have a paused trainer take so many batches; wait for them."""
        self.tell(f"go {count}")
        for _ in range(count):
            self.expect("batch")

    def send(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.send(signal.SIGKILL)
        self.wait()

    def wait(self, limit=LIMIT):
        """Exit code."""
        return self.process.wait(limit)

    def finish(self, limit=LIMIT):
        """Wait for a good end."""
        self.expect("end", limit)
        assert self.wait() == 0, str(self)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(LIMIT)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        for reader in self._readers:
            reader.join(LIMIT)
            assert not reader.is_alive()
        self.process.stdout.close()
        self.process.stderr.close()

    def __str__(self):
        return f"exit {self.process.poll()}, told {self.lines[-3:]}, errors:\n{''.join(self.errors)[-4000:]}"


class Processes(contextlib.ExitStack):
    """Machines that are ended and collected."""

    def start(self, role, **options):
        machine = Machine(role, **options)
        self.callback(machine.close)
        return machine


class Abort(Stage):
    """Ends its process at one batch, always; or stops it; or takes more memory than there is."""

    def __init__(self, victim, how="abort"):
        super().__init__(workers=1)
        self.victim, self.how = victim, how

    def process(self, batch):
        if [batch.epoch, batch.seq] == self.victim:
            if self.how == "abort":
                os.abort()
            if self.how == "memory":
                bytearray(1 << 40)
            os.kill(os.getpid(), signal.SIGSTOP)
            # The process stops when its main thread is next given a processor: until then this one must not go on.
            threading.Event().wait()
        return batch


def say(**line):
    # One write, so that a kill leaves a whole line or none.
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main(options):
    """Be a machine."""
    role = options["role"]
    if options.get("fast", True):
        exact.TIMING = FAST
    common = {name: options[name] for name in ("secret", "window") if name in options}
    if role == "stranger":
        _intrude(options["source"])
        return
    if role == "trainer":
        _train(options, common)
        return
    sink = ZMQSink(
        options.get("out", "tcp://127.0.0.1:*"),
        bind=options.get("bind", role == "data"),
        drain_timeout=options.get("drain_timeout", 30),
        **common,
    )
    if role == "data":
        modules = [noise(**{name: _tuple(value) for name, value in options.get("noise", {}).items()}), sink]
    else:
        source = ZMQSource(options["source"], bind=options.get("bind_source", False), **common)
        stages = [flips()]
        if "victim" in options:
            stages.append(Abort(options["victim"], options.get("how", "abort")))
        # All workers have the same stages.
        stages.append(_Report())
        _Report.tells = bool(options.get("gate"))
        modules = [source, *stages, sink]
    pipeline = Pipeline(modules)
    say(ready=os.getpid(), address=sink.address)
    if options.get("leave"):
        # Leave the interpreter while connected, and while somebody holds the pipeline still.
        sys.stdin.readline()
        sys.modules["__main__"].kept = pipeline
        return
    pipeline.wait()
    pipeline.stop()
    say(end=True)


def _intrude(address):
    """Ask for batches without a key; tell whether anything came back."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(address)
        for frame in encode(Ready(os.urandom(16), 8, 1 << 30, Cursor(1), "")):
            dealer.send(frame)
        say(came=dealer.poll(1000))


def _tuple(value):
    return tuple(value) if isinstance(value, list) else value


class _Report(Stage):
    """Tells of every batch that passes, in a process that is to."""

    tells = False

    def process(self, batch):
        if self.tells:
            say(passed=[batch.epoch, batch.seq])
        return batch


def _train(options, common):
    source = ZMQSource(
        options.get("in", "tcp://127.0.0.1:*"),
        bind=options.get("bind", True),
        timeout=options.get("timeout", 30),
        ordered=options.get("ordered", False),
        on_error=options.get("on_error", "raise"),
        **common,
    )
    pipeline = Pipeline([source])
    if options.get("state"):
        pipeline.load_state_dict(options["state"])
    say(ready=os.getpid(), address=source.address)
    if options.get("paused"):
        for line in sys.stdin:
            what, *count = line.split()
            if what == "stop":
                pipeline.stop()
                say(end=True)
                return
            if what == "leave":
                say(leaving=True)
                return
            if what == "fork":
                _fork(pipeline)
                continue
            if what == "run":
                break
            for _ in range(int(*count)):
                _hand_out(pipeline, pipeline.dequeue())
    for batch in pipeline.forever():
        _hand_out(pipeline, batch, options.get("states", True))
    say(errors=pipeline.errors)
    pipeline.stop()
    say(end=True)


def _hand_out(pipeline, batch, states=True):
    line = {"batch": key_of(batch), "sha": digest(batch)}
    if states:
        line["state"] = pipeline.state_dict()
    say(**line)


def _fork(pipeline):
    """A child that does nothing but end, the long way."""
    child = os.fork()
    if child == 0:
        pipeline.stop()
        del pipeline
        gc.collect()
        sys.exit(0)
    say(child=os.waitpid(child, 0)[1])


# Connections that break


class Proxy:
    """Between a machine that connects and one that is bound: breaks connections by a plan, or as it is told.

    Parameters
    ----------
    target : str
        Where the bound machine is.
    seed : int
        Of what happens.
    cut : (int, int), optional
        A connection ends after so many bytes, both ways together, drawn anew for each.
    """

    def __init__(self, target, seed=0, cut=None, most_chunk=1 << 16, delay=0.0):
        self._target = self._place(target)
        self._random = random.Random(seed)
        self._cut = cut
        self._chunk = most_chunk
        self._delay = delay
        self.cuts = self.accepted = 0
        # Which directions pass: "up" is from the machine that connects.
        self.held = set()
        self._do = queue.SimpleQueue()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.setblocking(False)
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._wake_send, self._wake_recv = socket.socketpair()
        self._wake_recv.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._pairs = {}
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()

    @staticmethod
    def _place(address):
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        return host, int(port)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ask("end")
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()

    def _ask(self, what):
        done = threading.Event()
        self._do.put((what, done))
        self._wake_send.send(b"\0")
        assert done.wait(LIMIT)

    def cut_all(self):
        """End all connections, with a reset."""
        self._ask("cut")

    def hold(self, *directions):
        """Swallow nothing, pass nothing: "up", "down", or both; none lets everything pass again."""
        self.held = set(directions)
        self._ask("look")

    @property
    def open(self):
        return len(self._pairs) // 2

    def _run(self):
        selector = self._selector
        selector.register(self._listener, selectors.EVENT_READ)
        selector.register(self._wake_recv, selectors.EVENT_READ)
        going = True
        while going:
            for key, _ in selector.select(1.0):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wake_recv:
                    with contextlib.suppress(BlockingIOError):
                        self._wake_recv.recv(64)
                    while not self._do.empty():
                        what, done = self._do.get()
                        if what in ("cut", "end"):
                            for one in list(self._pairs):
                                self._end(one)
                        going = going and what != "end"
                        self._watch()
                        done.set()
                elif key.fileobj in self._pairs:
                    self._pass(key.fileobj)
        for one in (self._listener, self._wake_send, self._wake_recv, selector):
            one.close()

    def _watch(self):
        for one, pair in self._pairs.items():
            wanted = pair["direction"] not in self.held
            if wanted != pair["watched"]:
                pair["watched"] = wanted
                if wanted:
                    self._selector.register(one, selectors.EVENT_READ)
                else:
                    self._selector.unregister(one)

    def _accept(self):
        with contextlib.suppress(BlockingIOError):
            one, _ = self._listener.accept()
            try:
                other = socket.create_connection(self._target, timeout=LIMIT)
            except OSError:
                one.close()
                return
            self.accepted += 1
            left = [self._random.randint(*self._cut)] if self._cut else [1 << 62]
            for here, there, direction in ((one, other, "up"), (other, one, "down")):
                here.settimeout(0.5)
                self._pairs[here] = {"to": there, "left": left, "direction": direction, "watched": False}
            self._watch()

    def _pass(self, one):
        pair = self._pairs[one]
        try:
            found = one.recv(self._random.randint(1, self._chunk))
            if self._delay:
                threading.Event().wait(self._random.uniform(0, self._delay))
            found = found[: pair["left"][0]]
            pair["left"][0] -= len(found)
            if found:
                pair["to"].sendall(found)
        except OSError:
            found = b""
        if not found or pair["left"][0] <= 0:
            self._end(one)

    def _end(self, one):
        pair = self._pairs.get(one)
        if pair is None:
            return
        self.cuts += 1
        for each in (one, pair["to"]):
            if self._pairs.pop(each)["watched"]:
                self._selector.unregister(each)
            with contextlib.suppress(OSError):
                # A reset: what is under way is lost.
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            each.close()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
