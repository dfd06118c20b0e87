"""Plain PUSH and PULL: at-most-once delivery, and exchange with programs without Highway.

Each end has one worker thread, which uses its socket and closes it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import zmq

from highway.batch import Batch
from highway.engine import Failure, Source
from highway.errors import PeerLostError, ProtocolError, StateMismatchError, UndeliveredError
from highway.network.batch_codec import item_of
from highway.network.definitions import Definition
from highway.network.protocol.messages import Data, Item, Key, Kind
from highway.network.protocol.wire import decode, decode_msgpack_numpy, encode, encode_msgpack_numpy
from highway.network.streams import Stream, stream_fingerprint
from highway.network.transport import Transport
from highway.network.zmq.ends import Endpoint
from highway.network.zmq.sockets import Socket, bind, close_context, connect, open_context

__all__ = ["PullTransport", "PushTransport"]

# Longest wait before a worker checks for shutdown, in milliseconds.
POLL = 100
# Longest time to send the last messages after close, in seconds.
LINGER = 0.5
# Names of fields that arrive without names.
NAMES = ("images", "labels")

# Seconds to wait for late batches after the end of the data.
GRACE = 2.0

_SESSION = bytes(16)


class _Pipe(Transport):
    """The sockets of one end, and whether it is shutting down."""

    def __init__(self, name: str, endpoint: Endpoint, delivery: str, kind: int) -> None:
        super().__init__(name)
        self._addresses = endpoint.addresses
        self.foreign = delivery == "msgpack-numpy"
        self.ending = self.closing = False
        # The holder closes the sockets: the worker thread, or `interrupt` if it runs before that thread.
        self._owner = threading.Lock()
        self._owned = False
        self._context = open_context()
        self._sockets: list[Socket] = []
        make = bind if endpoint.binds else connect
        try:
            for address in endpoint.addresses:
                self._sockets.append(
                    make(
                        self._context,
                        address,
                        security=endpoint.security,
                        window=endpoint.window,
                        kind=kind,
                        receives=kind == zmq.PULL,
                    )
                )
        except BaseException:
            self._close()
            raise
        self._bound_address = self._sockets[0].endpoint if endpoint.binds else None

    def bound_address(self, upstream: bool) -> str | None:
        return self._bound_address

    def end_tasks(self) -> None:
        self.ending = True

    def open(self) -> None:
        """Take ownership of the sockets; called by the worker thread."""
        self._owned = self._owner.acquire(blocking=False)

    def interrupt(self) -> None:
        self.closing = True
        if self._owner.acquire(blocking=False):
            self._close()

    def close(self) -> None:
        if self._owned:
            self._close()

    def _close(self) -> None:
        sockets, self._sockets = self._sockets, []
        for socket in sockets:
            socket.close(linger=int(LINGER * 1000))
        close_context(self._context)

    def _failure(self) -> str:
        for socket in self._sockets:
            socket.watch.read()
        found = [socket.watch.failure for socket in self._sockets if socket.watch.failure]
        return f"; the last connection that failed: {found[-1]}" if found else ""


class _Origin(NamedTuple):
    """Where a batch comes from: see `Data`."""

    key: Key
    world: int
    fingerprint: str
    definition: str


class PushTransport(_Pipe):
    """Sends by PUSH: each batch goes to one of the pulling receivers."""

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        delivery: str,
        stream: Stream,
        definition: Definition,
        drain_timeout: float,
    ) -> None:
        super().__init__(name, endpoint, delivery, zmq.PUSH)
        self._stream = stream
        self._definition = definition
        self._drain_timeout = drain_timeout
        self._link = os.urandom(16)
        self._lsn = 0
        self._sent = False
        # For each ticket, and an item that is forwarded unchanged.
        self._origins: dict[int, tuple[_Origin, Item | None]] = {}
        self._source: Source | None = None
        self._end: tuple[_Origin, Item] | None = None

    def tasks_of(self, source: Source, length: int | None) -> Iterator[Any]:
        self._source = source
        if source.follows_delivery:
            for ticket, task in enumerate(source.tasks()):
                ends = task.item.kind is Kind.END_OF_DATA
                definition = f"{task.definition}/{self._definition.digest}"
                origin = _Origin(task.key, task.world, task.fingerprint, definition)
                self._origins[ticket] = origin, task.item if ends else None
                yield task
            return
        stream, world = self._stream
        texts = stream_fingerprint(source, self._stream), self._definition.digest
        count = 0
        for ticket, task in enumerate(source.tasks()):
            if self.ending or self.closing:
                return
            epoch, seq = source.batch_at(ticket) if length else (0, ticket)
            self._origins[ticket] = _Origin(Key(epoch, seq, stream), world, *texts), None
            count = ticket + 1
            yield task
        epoch, seq = source.batch_at(count) if length else (0, 1)
        origin = _Origin(Key(epoch + bool(seq), 0, stream), world, *texts)
        self._end = origin, Item(Kind.END_OF_DATA, [count], ())

    def identity(self, ticket: int) -> tuple[int, int]:
        key = self._origins[ticket][0].key
        return key.epoch, key.seq

    def carry(self, ticket: int, outcome: Batch | Failure | None) -> None:
        origin, passed_on = self._origins.pop(ticket)
        assert self._source is not None
        if self.foreign:
            if isinstance(outcome, Failure):
                # The msgpack-numpy format cannot carry an error.
                raise outcome.error
            if outcome is not None:
                self._send(encode_msgpack_numpy([*outcome.fields.values(), *_offsets(outcome)]))
        else:
            self._send_item(origin, passed_on or item_of(outcome))
        self._source.delivered(ticket)

    def _send_item(self, origin: _Origin, item: Item) -> None:
        self._lsn += 1
        key, world, fingerprint, definition = origin
        data = Data(_SESSION, self._link, self._lsn, key, world, fingerprint, item, definition=definition)
        self._send(encode(data))

    def _send(self, frames: list[Any]) -> None:
        if not self._sockets:
            return
        socket = self._sockets[0]
        while not self.closing:
            try:
                socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
                self._sent = True
                return
            except zmq.Again:
                socket.poll(POLL, zmq.POLLOUT)

    def drain(self) -> None:
        """Send the end of the data, and wait until a receiver has taken the last message, as far as PUSH can tell."""
        if not self._sockets:
            return
        if self._end is not None and not self.foreign:
            self._send_item(*self._end)
        socket = self._sockets[0]
        until = time.monotonic() + self._drain_timeout
        while not self.closing and not socket.poll(POLL, zmq.POLLOUT):
            socket.watch.read()
            if self._sent and not socket.watch.connections:
                # The receivers have disconnected after the end of the data: no receiver is waiting.
                return
            if time.monotonic() > until:
                raise UndeliveredError(
                    f"{self.name}: no receiver took the last batches for {self._drain_timeout:g} s (drain_timeout)"
                    f"{self._failure()}"
                )


class PullTransport(_Pipe):
    """Receives by PULL: yields items in the order of their arrival."""

    def __init__(self, name: str, endpoint: Endpoint, delivery: str, timeout: float | None) -> None:
        super().__init__(name, endpoint, delivery, zmq.PULL)
        self._timeout = timeout
        self._seen: dict[tuple[int, int], set[int]] = {}
        # Batches of each stream that has ended, and number of streams.
        self._totals: dict[int, int] = {}
        self._world = 0
        # How the batches are made that arrive.
        self._definition: str | None = None
        self._duplicates = 0
        self._malformed: list[tuple[str, str]] = []

    def tasks(self) -> Iterator[Data]:
        """Yield the items in the order of their arrival."""
        poller = zmq.Poller()
        if not self._sockets:
            return
        for socket in self._sockets:
            poller.register(socket, zmq.POLLIN)
        last_arrival = time.monotonic()
        number = 0
        while not (self.ending or self.closing):
            ready = dict(poller.poll(POLL))
            if not ready and self._is_over(time.monotonic() - last_arrival):
                return
            if not ready and self._timeout is not None and time.monotonic() - last_arrival > self._timeout:
                raise PeerLostError(
                    f"{self.name}: nothing arrived for {self._timeout:g} s (timeout), at "
                    f"{self._bound_address or ', '.join(map(str, self._addresses))}{self._failure()}"
                )
            for socket in ready:
                data = self._receive(socket, number)
                if data is not None:
                    last_arrival = time.monotonic()
                    number += 1
                    yield data

    def _is_over(self, quiet: float) -> bool:
        """Whether all data machines have ended, and all batches are here or the grace period is over."""
        if not self._world or len(self._totals) < self._world:
            return False
        here = sum(map(len, self._seen.values()))
        grace = GRACE if self._timeout is None else min(GRACE, self._timeout)
        return here >= sum(self._totals.values()) or quiet > grace

    def _receive(self, socket: Socket, number: int) -> Data | None:
        frames = socket.recv_multipart(copy=False)
        try:
            if self.foreign:
                return self._foreign(frames, number)
            message = decode(frames)
        except ProtocolError as error:
            self._malformed.append(("a message", str(error)))
            return None
        if not isinstance(message, Data):
            return None
        key = message.key
        self._world = message.world
        if message.item.kind is Kind.END_OF_DATA:
            self._totals[key.stream] = _total(message.item)
            return message
        if message.item.kind is Kind.BATCH:
            self._definition = self._definition or message.definition
            if message.definition != self._definition:
                raise StateMismatchError(
                    f"{self.name}: batch {key.seq} of epoch {key.epoch}, stream {key.stream}, was made in another way "
                    "than the batches before it; expected the same modules, arguments, data and version of Highway on "
                    "all machines of a kind"
                )
        seen = self._seen.setdefault((key.stream, key.epoch), set())
        if key.seq in seen:
            self._duplicates += 1
        seen.add(key.seq)
        return message

    def _foreign(self, frames: list[zmq.Frame], number: int) -> Data:
        if len(frames) != 1:
            raise ProtocolError(f"a message of {len(frames)} frames; expected one frame of msgpack-numpy")
        found = decode_msgpack_numpy(frames[0])
        names = [
            name or (NAMES[place] if place < len(NAMES) else f"field{place}")
            for place, (name, _) in enumerate(found)
        ]
        # Without a number: the pipeline sets it, and knows that nothing tells the epochs apart.
        meta = [names, 0, None, 0, False, False]
        item = Item(Kind.BATCH, meta, [array for _, array in found])
        return Data(_SESSION, _SESSION, number + 1, Key(0, number, 0), 1, "", item)

    def losses(self) -> list[tuple[str, str]]:
        found = list(self._malformed)
        if self._duplicates:
            found.append(("batches", f"{self._duplicates} arrived twice"))
        lacking = sum(self._totals.values()) - sum(map(len, self._seen.values()))
        if self._is_over(GRACE + 1) and lacking > 0:
            found.append(("batches", f"{lacking} of {sum(self._totals.values())} were lost"))
        for (stream, epoch), seen in sorted(self._seen.items()):
            missing = max(seen) + 1 - len(seen)
            if missing:
                first = next(seq for seq in range(len(seen) + 1) if seq not in seen)
                found.append(
                    (
                        f"stream {stream}, epoch {epoch}",
                        f"{missing} batches are missing, the first is {first}",
                    )
                )
        return found


def _offsets(batch: Batch) -> list[Any]:
    """Return the shared offsets, or those of each ragged field, in the order of the fields."""
    if batch.offsets is not None or not batch.ragged:
        return [] if batch.offsets is None else [batch.offsets]
    return [batch.offsets_of(name) for name in batch.fields if name in batch.ragged]


def _total(item: Item) -> int:
    """Return the number of batches that the END of a stream states."""
    total = item.meta[0] if item.meta else 0
    return total if isinstance(total, int) and total >= 0 else 0
