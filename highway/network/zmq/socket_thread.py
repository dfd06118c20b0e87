"""The sockets of a machine, and the thread that carries messages between them and the machine's role.

Engine threads talk to the role directly, under the driver's lock. What they hand in they send themselves where nobody
is at the sockets just then, and leave to the thread otherwise. The thread wakes them whenever something has come.

The thread waits for file descriptors, so that the sockets are free meanwhile. libzmq's tell that something has
happened, not that something is there: a socket is read until it is empty, and whoever has used it asks it for news.
"""

from __future__ import annotations

import logging
import math
import select
import socket as plain
import threading
import time
from contextlib import suppress
from typing import Any, Protocol

import zmq

from highway.errors import ArgumentError, MessageTooLargeError, ProtocolError
from highway.network.protocol.consumer import Consumer
from highway.network.protocol.link import TIMING
from highway.network.protocol.messages import Bye, Data, Message, Refusal
from highway.network.protocol.producer import Producer
from highway.network.protocol.wire import decode, encode
from highway.network.zmq.ends import End, Endpoint, Peer
from highway.network.zmq.security import quoted
from highway.network.zmq.sockets import close_context, open_context

__all__ = ["Role", "Signal", "SocketThread"]

# Joined once: that takes longer than sending a frame.
NOBLOCK_MORE = zmq.NOBLOCK | zmq.SNDMORE

logger = logging.getLogger("highway.network")

# Seconds between two ticks of a role at most, whatever happens.
BEAT = 0.25
# Items that wait to be sent, from which on more are asked for.
LOW = 1
# Messages taken from one socket before the others have their turn.
TURN = 32
# Frames that may be received from one socket before it is read until there is nothing.
FRAMES = 48
# Seconds that last words may take, once everything is over.
LAST_WORDS = 0.3
# Seconds before somebody who cannot be reached is tried again, and before a socket is made anew.
AGAIN = 0.05
ANEW = 1.0
# Seconds that a peer may take to connect again, before it counts as dead; PING finds out every second.
UNREACHABLE = 1.5
# Malformed messages, and failed handshakes, that are told in the log; more are only counted.
TOLD = 20


class Role(Protocol):
    """What a driver needs of a machine."""

    def receive(self, upstream: bool, peer: Peer, message: Message, now: float) -> None:
        """Take in a message from upstream (a producer) or from downstream."""

    def tick(self, now: float) -> None:
        """Let time pass."""

    def settle(self) -> None:
        """Have what is said next tell what is so now."""

    def due(self) -> float | None:
        """When to call `tick` at the latest."""

    @property
    def offers(self) -> bool:
        """Whether there may be something for the threads that wait."""


class Signal:
    """Wakes the one thread that waits for it; a `threading.Condition` would cost as much as a message.

    One that comes while nobody waits is kept: who waits looks again, and may do so in vain.

    Parameters
    ----------
    lock : RLock
        Held by the thread that waits, once; let go meanwhile.

    Attributes
    ----------
    awaited : bool
        Whether a thread waits; certain to who holds the lock.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._gate = threading.Lock()
        self._gate.acquire()
        self.awaited = False

    def notify(self) -> None:
        """Wake the thread."""
        if self._gate.locked():
            # Somebody else may have done so in between.
            try:  # noqa: SIM105 – with `suppress` it would cost as much again
                self._gate.release()
            except RuntimeError:
                pass

    def wait(self, timeout: float) -> None:
        """Wait for so many seconds at most."""
        self.awaited = True
        self._lock.release()
        try:
            self._gate.acquire(timeout=timeout)
        finally:
            self._lock.acquire()
            self.awaited = False


class SocketThread:
    """Sockets, their thread, and the lock that guards the role.

    Parameters
    ----------
    name : str
        Of the module; the thread is named after it.
    role : Role
    consumer, producer : optional
        The ends of links of the role: their outboxes are emptied.
    upstream, downstream : Endpoint, optional
        Where producers are, and where consumers are.

    Attributes
    ----------
    lock : RLock
        Guards the role.
    changed : Signal
        There is something to be taken.
    room : Signal
        What was handed in is about to be sent, or done.
    error : BaseException or None
        What ended the thread.
    sent_bytes, sent_items, received_items : int
    malformed : int
        Messages that were dropped.
    """

    def __init__(
        self,
        name: str,
        role: Role,
        *,
        consumer: Consumer | None = None,
        producer: Producer | None = None,
        upstream: Endpoint | None = None,
        downstream: Endpoint | None = None,
    ) -> None:
        self.role = role
        self.consumer = consumer
        self.producer = producer
        # Reentrant: the collector may end a pipeline while it is held.
        self.lock = threading.RLock()
        # Held by who uses the sockets; who holds `lock` does not wait for it.
        self._at_sockets = threading.Lock()
        self.changed = Signal(self.lock)
        self.room = Signal(self.lock)
        self.error: BaseException | None = None
        self.closing = False
        self.sent_bytes = self.sent_items = self.received_items = self.malformed = 0
        self._reason = ""
        self._refused = 0
        self.awake = False
        self._blocked: dict[Peer, float] = {}
        # Since when there is no way to a peer.
        self._unreachable: dict[Peer, float] = {}
        self.ends: list[End] = []
        for endpoint, is_upstream in ((upstream, True), (downstream, False)):
            for address in endpoint.addresses if endpoint else ():
                assert endpoint is not None
                self.ends.append(End(len(self.ends), address, endpoint, is_upstream))
        # When the role's tick was called, and is to be at the latest.
        self._ticked = self._due = 0.0
        self._outboxes = [box.outbox for box in (consumer, producer) if box is not None]
        self._poller = select.poll()
        self._context = open_context()
        self._wake_send, self._wake_recv = plain.socketpair()
        self._ear_number = self._wake_recv.fileno()
        try:
            self._wake_send.setblocking(False)
            self._wake_recv.setblocking(False)
            self._poller.register(self._ear_number, select.POLLIN)
            for end in self.ends:
                self._open(end)
        except BaseException:
            self._close()
            raise
        # Where it is bound, upstream and downstream.
        self.bound_addresses = {
            end.upstream: end.socket.endpoint for end in self.ends if end.socket is not None and end.binds
        }
        self._thread = threading.Thread(target=self._run, name=f"highway {name} wire", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have the thread look at the role now."""
        if not self.awake:
            self.awake = True
            with suppress(OSError):
                self._wake_send.send(b"\0")

    def push(self) -> None:
        """Send what was handed in: here and now, if nobody is at the sockets, or have the thread do so."""
        if not self._at_sockets.acquire(blocking=False):
            self.wake()
            return
        try:
            if self.closing:
                return
            assert self.producer is not None
            self._send_data(self.producer)
            self._ask_for_news()
            # What is blocked is tried again in a while; and a batch that is done already is acknowledged.
            if self._blocked or (self.consumer is not None and self.consumer.outbox):
                self.wake()
        except BaseException as error:
            self.error = self.error or error
            self.stop()
            raise
        finally:
            self._at_sockets.release()

    def stop(self, reason: str = "stopped") -> None:
        """Say BYE and end; does not wait, and takes no lock."""
        self._reason = self._reason or reason
        self.closing = True
        self.awake = False
        self.wake()

    def join(self, timeout: float) -> None:
        """Wait for the thread."""
        if self._thread.ident is not None:
            self._thread.join(timeout)

    @property
    def upstream(self) -> str:
        """Where producers are expected."""
        return self.bound_addresses.get(True) or ", ".join(
            str(end.address) for end in self.ends if end.upstream
        )

    @property
    def failure(self) -> str:
        """The last handshake that failed, as part of a message."""
        found = [end.failure for end in self.ends if end.failure]
        return f"; the last connection that failed: {found[-1]}" if found else ""

    # The thread

    def _run(self) -> None:
        try:
            with self.lock:
                self._greet(self.ends)
            # Sockets have to be read once before anything is told of them.
            self.wake()
            while not self.closing:
                self.step()
            with self._at_sockets:
                self._say_goodbye()
        except BaseException as error:
            self.error = error
            logger.exception("The network thread has ended")
        finally:
            self.closing = True
            with self._at_sockets:
                self._close()
            with self.lock:
                self.changed.notify()
                self.room.notify()

    def _open(self, end: End) -> None:
        end.open(self._context)
        self._poller.register(end.descriptor, select.POLLIN)
        self._poller.register(end.watch, select.POLLIN)

    def _greet(self, ends: list[End]) -> None:
        now = time.monotonic()
        for end in ends:
            if end.binds:
                continue
            if end.upstream:
                assert self.consumer is not None
                self.consumer.greet(end.peer, now)
            else:
                assert self.producer is not None
                self.producer.greet(end.peer)

    def step(self) -> None:
        # When woken already, at once, and with a tick.
        now = until = time.monotonic()
        if not self.awake:
            until = max(now, min(self._due, now + AGAIN) if self._blocked else self._due)
        ready = dict(self._poller.poll(math.ceil((until - now) * 1000)))
        if self._ear_number in ready:
            with suppress(BlockingIOError):
                self._wake_recv.recv(4096)
        self.awake = False
        with self._at_sockets:
            self.work(ready, until)

    def work(self, ready: dict[int, int], until: float) -> None:
        """Receive, tell the role, and send what it says; `until` is when its time is to pass."""
        arrived: list[tuple[End, Peer, Message]] = []
        for end in self.ends:
            if end.socket is None or end.news or end.watch in ready:
                self._look_after(end, time.monotonic())
            if end.socket is not None and (end.news or end.descriptor in ready):
                self._receive(end, arrived)
        now = time.monotonic()
        producer = self.producer
        with self.lock:
            for end, peer, message in arrived:
                if self._unreachable:
                    self._unreachable.pop(peer, None)
                self.role.receive(end.upstream, peer, message, now)
            # Not with a wake on the way: whoever hands something in has it sent, and nothing else has become due.
            if arrived or now >= until or now >= self._ticked + BEAT:
                self._ticked = now
                self.role.tick(now)
            letters = self._letters()
            self._due = self._next_tick(now)
            # Whoever is woken in vain costs as much as a message; and who does not wait looks before it does.
            offers = bool(arrived) and self.changed.awaited and self.role.offers
            if producer is not None and self.room.awaited and producer.unsent <= LOW:
                self.room.notify()
        arrived.clear()
        if letters:
            self._send_letters(letters)
        if self._unreachable:
            self._lose_unreachable(now)
        if producer is not None and (producer.has_work or self._blocked):
            self._send_data(producer)
        self._ask_for_news()
        # Last: whoever wakes up would wait for the interpreter, which this thread still needs.
        if offers:
            self.changed.notify()

    def _next_tick(self, now: float) -> float:
        """When to call the role's tick at the latest."""
        # Others acknowledge, and do not wake us for each.
        held = self.consumer is not None and self.consumer.held
        beat = now + (TIMING.ack_delay if held else BEAT)
        due = self.role.due()
        return beat if due is None or due > beat else due

    def _ask_for_news(self) -> None:
        """Have the thread look at sockets whose descriptors do not tell any more what has come while they were used."""
        for end in self.ends:
            if end.used and end.socket is not None:
                end.used = False
                end.news = end.news or end.is_readable()
            if end.news:
                self.wake()

    def _look_after(self, end: End, now: float) -> None:
        """Read what became of the connections, and make a socket anew that would not connect again."""
        if end.socket is None:
            if now < end.anew:
                return
            try:
                self._open(end)
            except (OSError, zmq.ZMQError) as error:
                end.failure, end.anew = str(error), now + ANEW
                return
            with self.lock:
                self._greet([end])
        assert end.socket is not None
        watch = end.socket.watch
        events = watch.read()
        if any(event.kind == zmq.EVENT_HANDSHAKE_SUCCEEDED for event in events):
            with self.lock:
                self._greet([end])
        if watch.failure not in (None, end.failure):
            end.failure = watch.failure
            self._refused += 1
            if self._refused <= TOLD:
                logger.warning("%s: %s", end.address, end.failure)
        if watch.gave_up:
            self._drop(end)
            end.anew = now + ANEW

    def _drop(self, end: End) -> None:
        if end.socket is not None:
            self._poller.unregister(end.descriptor)
            self._poller.unregister(end.watch)
            end.socket.close()
            end.socket, end.descriptor, end.watch, end.news = None, -1, -1, False

    def _receive(self, end: End, arrived: list[tuple[End, Peer, Message]]) -> None:
        socket = end.socket
        assert socket is not None
        end.news = True
        for turn in range(TURN):
            # libzmq looks for news of its connections with every 100th frame since it found nothing, also within a
            # message; if a connection has ended just then, it aborts the process. So nothing has to be found now and
            # then, which asking does not count as; but it costs as much as a message.
            if turn and end.frames + end.longest < FRAMES and not end.is_readable():
                end.news = False
                return
            peer = end.peer
            try:
                if end.binds:
                    peer = Peer(end.number, socket.recv(zmq.NOBLOCK))
                    frame = socket.recv(copy=False)
                else:
                    frame = socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                end.news, end.frames = False, 0
                return
            frames = [frame]
            # What `recv_multipart` does, without asking the socket for each part.
            while frame.more:
                frame = socket.recv(copy=False)
                frames.append(frame)
            length = len(frames) + end.binds
            end.frames, end.longest = end.frames + length, max(end.longest, length)
            try:
                message = decode(frames)
            except ProtocolError as error:
                self.malformed += 1
                if self.malformed <= TOLD:
                    logger.warning("%s: dropped a message of %s: %s", end.address, quoted(peer.id), error)
                continue
            if isinstance(message, Data):
                self.received_items += 1
            elif isinstance(message, Refusal):
                message = message._replace(text=quoted(message.text))
            arrived.append((end, peer, message))

    def _letters(self) -> list[tuple[Any, Message]]:
        """Everything in the outboxes."""
        letters: list[tuple[Any, Message]] = []
        for outbox in self._outboxes:
            if outbox:
                letters.extend(outbox)
                outbox.clear()
        return letters

    def _send_letters(self, letters: list[tuple[Any, Message]]) -> None:
        # One that cannot be sent is dropped: all of them are repeated.
        for peer, message in letters:
            try:
                self._send(peer, message)
            except (ArgumentError, MessageTooLargeError) as error:
                logger.warning("A %s was not sent: %s", type(message).__name__, error)

    def _send(self, peer: Peer, message: Message) -> bool:
        end = self.ends[peer.end]
        if end.socket is None or end.cut:
            return False
        frames: list[Any] = encode(message)
        if end.binds:
            frames.insert(0, peer.id)
        send, last = end.socket.send, frames.pop()
        end.used = end.cut = True
        try:
            for frame in frames:
                if isinstance(frame, bytes):
                    send(frame, NOBLOCK_MORE)
                else:
                    send(_whole_frame(frame), NOBLOCK_MORE, copy=False)
            send(_whole_frame(last), zmq.NOBLOCK, copy=False)
        except zmq.Again:
            # Only the first frame has to wait for room, or for its peer.
            end.cut = False
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            end.cut = False
            self._unreachable.setdefault(peer, time.monotonic())
            return False
        end.cut = False
        if self._unreachable:
            self._unreachable.pop(peer, None)
        return True

    def _lose_unreachable(self, now: float) -> None:
        """Let what is under way to those go to others whose connections are gone for good."""
        for peer in [peer for peer, since in self._unreachable.items() if now - since > UNREACHABLE]:
            del self._unreachable[peer]
            if self.producer is not None and not self.ends[peer.end].upstream:
                with self.lock:
                    self.producer.lose(peer)

    def _send_data(self, producer: Producer) -> None:
        """Send what waits, as far as there is room."""
        now = time.monotonic()
        to: Any
        with self.lock:
            if self._blocked:
                for peer in [peer for peer, until in self._blocked.items() if until <= now]:
                    del self._blocked[peer]
            found = producer.pick(self._blocked, now)
        for _ in range(TURN):
            if found is None:
                return
            to, data = found
            sent = self._send(to, data)
            with self.lock:
                if sent:
                    self.sent_items += 1
                    self.sent_bytes += producer.commit(to, data)
                    if self.room.awaited and producer.unsent == LOW:
                        self.room.notify()
                else:
                    self._blocked[to] = now + AGAIN
                found = producer.pick(self._blocked, now) if producer.has_work else None
        if found is not None:
            self.wake()

    def _say_goodbye(self) -> None:
        with self.lock:
            # First, since whoever says something after BYE is back.
            self.role.tick(time.monotonic())
            self.role.settle()
            if self.consumer is not None:
                self.consumer.flush()
                self.consumer.bye(self._reason)
            if self.producer is not None:
                self.producer.bye(self._reason)
            letters = self._letters()
        told = {peer for peer, message in letters if self._send(peer, message) and isinstance(message, Bye)}
        # A side that connects loses what it has not read when the connection ends: wait for the answers.
        deadline = time.monotonic() + LAST_WORDS
        arrived: list[tuple[End, Peer, Message]] = []
        while told and (left := deadline - time.monotonic()) > 0:
            for end in self.ends:
                if end.socket is not None:
                    self._receive(end, arrived)
                    end.socket.watch.read()
            told.difference_update(peer for _, peer, message in arrived if isinstance(message, Bye))
            arrived.clear()
            # Descriptors tell nothing of what was left unread.
            wait = 0 if any(end.news for end in self.ends) else math.ceil(left * 1000)
            if told and self._ear_number in dict(self._poller.poll(wait)):
                self._wake_recv.recv(4096)

    def _close(self) -> None:
        for end in self.ends:
            if end.socket is not None:
                end.socket.close(linger=int(LAST_WORDS * 1000))
                end.socket = None
        self._wake_send.close()
        self._wake_recv.close()
        close_context(self._context)


def _whole_frame(part: Any) -> Any:
    """The frame that an array lies over, if it came in one: it goes on without pyzmq's thread that frees arrays."""
    owner = getattr(part, "base", None)
    while owner is not None and not isinstance(owner, zmq.Frame):
        owner = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
    return part if owner is None or len(owner) != part.nbytes else owner
