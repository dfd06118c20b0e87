"""The sockets of a machine, and the thread that moves messages between them and the machine's role.

Engine threads call the role directly, under the lock of the socket thread. They send a finished batch themselves if the
sockets are free, and leave it to the thread otherwise. The thread wakes them when items arrive.

The thread polls file descriptors, so the sockets are free while it waits. A descriptor of libzmq reports a change, not
a waiting message: every reader reads a socket until it is empty, and checks it again after every other use.
"""

from __future__ import annotations

import logging
import math
import select
import socket as plain
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import zmq

from highway.errors import ArgumentError, MessageTooLargeError, ProtocolError
from highway.network.protocol.consumer import Consumer
from highway.network.protocol.link import TIMING
from highway.network.protocol.messages import (
    Bye,
    Data,
    Hello,
    Message,
    Ping,
    Query,
    Ready,
    Refusal,
    Report,
    State,
)
from highway.network.protocol.producer import Producer
from highway.network.protocol.wire import decode, encode
from highway.network.zmq.acquaintances import Acquaintances
from highway.network.zmq.ends import End, Endpoint, Peer
from highway.network.zmq.security import quoted
from highway.network.zmq.sockets import close_context, open_context

__all__ = ["Role", "Signal", "SocketThread"]

# Joined once: joining the flags takes 0.35 µs, as long as sending a small frame.
NOBLOCK_MORE = zmq.NOBLOCK | zmq.SNDMORE

logger = logging.getLogger("highway.network")

# Longest time between two ticks of a role, in seconds.
BEAT = 0.25
# Seconds without a new item after which the thread ticks only when something is due.
DOZE = 0.05
# Number of unsent items at which `room` is signaled.
LOW = 1
# Most messages to move in one turn of a socket, or of a producer.
TURN = 32
# Most frames to receive from a socket before it is read until it is empty.
FRAMES = 48
# Longest time for the exchange of BYEs at the end, in seconds.
BYE_LIMIT = 0.3
# Seconds until a retry to a blocked peer, and until a socket is recreated.
RETRY = 0.05
RECREATE = 1.0
# Seconds that a peer may take to reconnect before it counts as dead; a PING detects it every second.
UNREACHABLE = 1.5
# Seconds between two lines in the log about an address that does not answer.
RETRY_LOGGED = 30.0
# Most malformed messages, and most failed handshakes, in the log; further ones are only counted.
MOST_LOGGED = 20


class Role(Protocol):
    """The role of a machine, as its socket thread uses it."""

    def receive(self, upstream: bool, peer: Peer, message: Message, now: float) -> None:
        """Process a message from upstream (from a producer) or from downstream."""

    def tick(self, now: float) -> None:
        """Advance the time."""

    def settle(self) -> None:
        """Bring the next messages up to date."""

    def due(self) -> float | None:
        """Return the latest time for the next `tick`; None where nothing is due."""

    @property
    def offers(self) -> bool:
        """Whether there may be work for waiting threads."""


class Signal:
    """Wakes the one thread that waits for it; a `threading.Condition` would cost as much as a message.

    A notification without a waiting thread is kept and ends the next wait at once, perhaps without a reason.

    Parameters
    ----------
    lock : RLock
        The waiting thread holds it once; it is released during the wait.

    Attributes
    ----------
    awaited : bool
        Whether a thread waits; reliable while you hold the lock.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._gate = threading.Lock()
        self._gate.acquire()
        self.awaited = False

    def notify(self) -> None:
        """Wake the thread."""
        if self._gate.locked():
            # Another thread may have released it in between.
            try:  # noqa: SIM105 – `suppress` would double the cost
                self._gate.release()
            except RuntimeError:
                pass

    def wait(self, timeout: float) -> None:
        """Wait for `timeout` seconds at most."""
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
        Name of the module, for the name of the thread.
    role : Role
    consumer, producer : optional
        The link ends of the role; the thread sends the messages in their outboxes.
    upstream, downstream : Endpoint, optional
        The end towards producers, and the end towards consumers.
    hello : Hello, optional
        What peers learn about this machine; without it, they learn its address only.

    Attributes
    ----------
    lock : RLock
        Guards the role.
    changed : Signal
        Items arrived, or the state of the role changed.
    room : Signal
        The producer has room for more items, or an item is done.
    error : BaseException or None
        The error that ended the thread.
    closing : bool
        Whether the thread ends or has ended.
    ends : list of End
        The sockets, upstream ones first.
    bound_addresses : dict of bool to str
        The address of the upstream (True) and of the downstream (False) end, if it is bound.
    awake : bool
        Whether the thread was woken and has not run since.
    sent_bytes, sent_items, received_items : int
    malformed : int
        Number of dropped messages.
    acquaintances : Acquaintances
        Who the peers are.
    status : callable
        Returns the reports that answer a `Query`.
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
        hello: Hello | None = None,
    ) -> None:
        self.role = role
        self.consumer = consumer
        self.producer = producer
        # Reentrant: the garbage collector may end a pipeline in a thread that holds it.
        self.lock = threading.RLock()
        # Guards the sockets. A thread that holds `lock` never waits for it.
        self._sockets_lock = threading.Lock()
        self.changed = Signal(self.lock)
        self.room = Signal(self.lock)
        self.error: BaseException | None = None
        self.closing = self._closed = False
        self.sent_bytes = self.sent_items = self.received_items = self.malformed = 0
        self._reason = ""
        # The failed handshakes that the log has.
        self._refused: set[str] = set()
        self.awake = False
        self.acquaintances = Acquaintances(hello)
        self.status: Callable[[], list[dict[str, Any]]] = list
        # Who asked for a report and has no answer yet.
        self._asking: list[Peer] = []
        self._blocked: dict[Peer, float] = {}
        # Peers without a connection, and since when.
        self._unreachable: dict[Peer, float] = {}
        self.ends: list[End] = []
        for endpoint, is_upstream in ((upstream, True), (downstream, False)):
            for address in endpoint.addresses if endpoint else ():
                assert endpoint is not None
                self.ends.append(End(len(self.ends), address, endpoint, is_upstream))
        # Time of the last tick of the role, and latest time for the next one.
        self._ticked = self._due = 0.0
        # Number of items at the last tick, when the last one came, and whether that is long ago.
        self._seen_items, self._item_at, self._dozing = 0, 0.0, True
        self._outboxes = [box.outbox for box in (consumer, producer) if box is not None]
        self._poller = select.poll()
        self._context = open_context()
        self._wake_send, self._wake_recv = plain.socketpair()
        self._wake_descriptor = self._wake_recv.fileno()
        try:
            self._wake_send.setblocking(False)
            self._wake_recv.setblocking(False)
            self._poller.register(self._wake_descriptor, select.POLLIN)
            for end in self.ends:
                self._open(end)
        except BaseException:
            self._close()
            raise
        self.bound_addresses = {
            end.upstream: end.socket.endpoint for end in self.ends if end.socket is not None and end.binds
        }
        self._thread = threading.Thread(target=self._run, name=f"highway {name} wire", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Make the thread check the role now."""
        if not self.awake:
            self.awake = True
            with suppress(OSError):
                self._wake_send.send(b"\0")

    def push(self) -> None:
        """Send the offered items in this thread if the sockets are free; wake the socket thread otherwise."""
        if not self._sockets_lock.acquire(blocking=False):
            self.wake()
            return
        try:
            if self.closing:
                return
            assert self.producer is not None
            self._send_data(self.producer)
            self._check_used_sockets()
            # The thread retries blocked peers, and acknowledges batches that are done already.
            if self._blocked or (self.consumer is not None and (self.consumer.outbox or self.oversleeps)):
                self.wake()
        except BaseException as error:
            self.error = self.error or error
            self.stop()
            raise
        finally:
            self._sockets_lock.release()

    def stop(self, reason: str = "stopped") -> None:
        """Make the thread send BYE and end; does not wait, and takes no lock."""
        self._reason = self._reason or reason
        self.closing = True
        self.awake = False
        self.wake()

    def join(self, timeout: float) -> bool:
        """Wait until the thread has ended, and return whether it has; one that never started is closed here."""
        if self._thread.ident is None:
            self._close()
        else:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def upstream_addresses(self) -> str:
        """The upstream addresses, for errors."""
        return self.bound_addresses.get(True) or ", ".join(
            str(end.address) for end in self.ends if end.upstream
        )

    @property
    def failure(self) -> str:
        """The last failed handshake, or invalid message, as part of an error message."""
        found = [end.failure for end in self.ends if end.failure]
        return f"; the last connection that failed: {found[-1]}" if found else ""

    # The thread

    def _run(self) -> None:
        try:
            with self.lock:
                self._greet(self.ends)
            # A descriptor reports nothing until its socket was read once.
            self.wake()
            while not self.closing:
                self.step()
            with self._sockets_lock:
                self._exchange_byes()
        except BaseException as error:
            self.error = error
            logger.exception("The network thread has ended")
        finally:
            self.closing = True
            with self._sockets_lock:
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
            self.acquaintances.reconnected(end.peer)
            if end.upstream:
                assert self.consumer is not None
                self.consumer.greet(end.peer, now)
            else:
                assert self.producer is not None
                self.producer.greet(end.peer)

    def step(self) -> None:
        """Wait for messages, for a wake-up, or until a tick is due, and process what arrived."""
        # Without a wait, and with a tick, if it was woken already.
        now = until = time.monotonic()
        if not self.awake:
            until = max(now, min(self._due, now + RETRY) if self._blocked else self._due)
        ready = dict(self._poller.poll(math.ceil((until - now) * 1000)))
        if self._wake_descriptor in ready:
            with suppress(BlockingIOError):
                self._wake_recv.recv(4096)
        self.awake = False
        with self._sockets_lock:
            self.work(ready, until)

    def work(self, ready: dict[int, int], until: float) -> None:
        """Receive messages, pass them to the role, and send its messages; a tick is due at `until`."""
        arrived: list[tuple[End, Peer, Message]] = []
        for end in self.ends:
            if end.socket is None or end.may_have_messages or end.watch in ready:
                self._check_connections(end, time.monotonic())
            if end.socket is not None and (end.may_have_messages or end.descriptor in ready):
                self._receive(end, arrived)
        now = time.monotonic()
        producer = self.producer
        with self.lock:
            for end, peer, message in arrived:
                if self._unreachable:
                    self._unreachable.pop(peer, None)
                if isinstance(message, (Hello, Query, Report)):
                    self._about_machines(peer, message, now)
                else:
                    self.role.receive(end.upstream, peer, message, now)
            # No tick after a mere wake-up: the wake-up only means that items were offered.
            if arrived or now >= until or now >= self._ticked + BEAT:
                self._ticked = now
                self.role.tick(now)
            messages = self._messages()
            self._due = self._next_tick(now)
            # Only if a thread waits: waking one without need costs as much as a message.
            offers = bool(arrived) and self.changed.awaited and self.role.offers
            if producer is not None and self.room.awaited and producer.unsent <= LOW:
                self.room.notify()
        arrived.clear()
        self._log_changes()
        if messages:
            self._send_messages(messages)
        if self._asking:
            self._answer(now)
        if self._unreachable:
            self._lose_unreachable(now)
        if producer is not None and (producer.has_work or self._blocked):
            self._send_data(producer)
        self._check_used_sockets()
        # Last: the woken thread needs the GIL, which this thread holds until here.
        if offers:
            self.changed.notify()

    def _about_machines(self, peer: Peer, message: Hello | Query | Report, now: float) -> None:
        if isinstance(message, Hello):
            text = self.acquaintances.meet(peer, message)
            if text is not None:
                logger.info("%s: %s", self._shown(peer), text)
        elif isinstance(message, Query):
            self._asking.append(peer)
        elif self.producer is not None and peer in self.producer.links:
            self.acquaintances.report(peer, message.reports, now)

    def _answer(self, now: float) -> None:
        """Answer those who asked for a report, and ask the consumers for theirs, which the next answer has."""
        # Outside the lock: the figures of a pipeline may need locks of engine threads.
        report = Report(self.status())
        with self.lock:
            consumers = [] if self.producer is None else list(self.producer.links)
        messages: list[tuple[Any, Message]] = [(peer, report) for peer in dict.fromkeys(self._asking)]
        self._asking.clear()
        if self.acquaintances.may_ask(now):
            messages += [(peer, Query()) for peer in consumers]
        self._send_messages(messages)

    def _log_changes(self) -> None:
        """Log the peers that joined, left or died."""
        for box in (self.consumer, self.producer):
            while box is not None and box.changes:
                change = box.changes.popleft()
                if change.what == "benched":
                    logger.warning(
                        "%s: %s %s",
                        self._shown(change.peer),
                        self.acquaintances.describe(change.peer),
                        change.why,
                    )
                    continue
                text = self.acquaintances.changed(change)
                if text is not None:
                    logger.info("%s: %s", self._shown(change.peer), text)

    def _shown(self, peer: Any) -> str:
        """Return the address of the end that a peer is at, for the log."""
        end = self.ends[peer.end]
        return self.bound_addresses.get(end.upstream) or str(end.address)

    def _next_tick(self, now: float) -> float:
        """Return the latest time for the next tick of the role."""
        if self._seen_items != self.received_items:
            self._seen_items, self._item_at = self.received_items, now
        # While items come, engine threads acknowledge them without waking this thread each time.
        self._dozing = now - self._item_at > DOZE
        held = self.consumer is not None and self.consumer.held
        beat = now + (TIMING.ack_delay if held and not self._dozing else BEAT)
        due = self.role.due()
        return beat if due is None or due > beat else due

    @property
    def oversleeps(self) -> bool:
        """Whether something is due before the next tick; for whoever changes the role, with `lock` held."""
        if not self._dozing:
            return False
        due = self.role.due()
        return due is not None and due < self._due

    def _check_used_sockets(self) -> None:
        """Check the sockets that were used: their descriptors do not report what arrived meanwhile."""
        for end in self.ends:
            if end.used and end.socket is not None:
                end.used = False
                end.may_have_messages = end.may_have_messages or end.is_readable()
            if end.may_have_messages:
                self.wake()

    def _check_connections(self, end: End, now: float) -> None:
        """Read the connection events of a socket, and recreate one that libzmq would not reconnect."""
        if end.socket is None:
            if now < end.recreate_at:
                return
            try:
                self._open(end)
            except (OSError, zmq.ZMQError) as error:
                if end.failure != str(error):
                    logger.warning("%s: %s; tries again every %g s", end.address, error, RECREATE)
                end.failure, end.recreate_at = str(error), now + RECREATE
                return
            with self.lock:
                self._greet([end])
        assert end.socket is not None
        watch = end.socket.watch
        events = watch.read()
        if any(event.kind == zmq.EVENT_HANDSHAKE_SUCCEEDED for event in events):
            end.retry_logged_at = -math.inf
            with self.lock:
                self._greet([end])
        elif any(event.kind == zmq.EVENT_CONNECT_RETRIED for event in events):
            self._log_retry(end, now)
        failure = watch.failure
        if failure is not None and failure != end.failure:
            end.failure = failure
            if failure not in self._refused and len(self._refused) < MOST_LOGGED:
                self._refused.add(failure)
                logger.warning("%s: %s", end.address, failure)
        if watch.gave_up:
            self._drop(end)
            end.recreate_at = now + RECREATE

    def _log_retry(self, end: End, now: float) -> None:
        if now - end.retry_logged_at >= RETRY_LOGGED:
            end.retry_logged_at = now
            logger.info(
                "%s: no connection yet; tries again (does it listen, and is the name right?)", end.address
            )

    def _drop(self, end: End) -> None:
        if end.socket is not None:
            self._poller.unregister(end.descriptor)
            self._poller.unregister(end.watch)
            end.socket.close()
            end.socket, end.descriptor, end.watch, end.may_have_messages = None, -1, -1, False

    def _receive(self, end: End, arrived: list[tuple[End, Peer, Message]]) -> None:
        socket = end.socket
        assert socket is not None
        end.may_have_messages = True
        for turn in range(TURN):
            # libzmq processes connection events at every 100th frame since the socket was last empty, also within a
            # message, and aborts the process if a connection ended at that moment. So `recv` must find the socket
            # empty once in FRAMES frames; that costs as much as a message. Polling is cheaper, but does not count.
            if turn and end.frames + end.longest < FRAMES and not end.is_readable():
                end.may_have_messages = False
                return
            peer = end.peer
            try:
                if end.binds:
                    peer = Peer(end.number, socket.recv(zmq.NOBLOCK))
                    frame = socket.recv(copy=False)
                else:
                    frame = socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                end.may_have_messages, end.frames = False, 0
                return
            frames = [frame]
            # Like `recv_multipart`, without a query of the socket for each part.
            while frame.more:
                frame = socket.recv(copy=False)
                frames.append(frame)
            length = len(frames) + end.binds
            end.frames, end.longest = end.frames + length, max(end.longest, length)
            try:
                message = decode(frames)
            except ProtocolError as error:
                self.malformed += 1
                self.acquaintances.seen(peer, frame)
                text = f"a message of {self.acquaintances.describe(peer)} was dropped: {error}"
                # Who waits for this peer in vain learns why.
                end.failure = text
                if self.malformed <= MOST_LOGGED:
                    logger.warning("%s: %s", end.address, text)
                continue
            if isinstance(message, Data):
                self.received_items += 1
            elif isinstance(message, Refusal):
                message = message._replace(text=quoted(message.text))
            elif isinstance(message, (Hello, Ready, Ping)):
                self.acquaintances.seen(peer, frame)
            arrived.append((end, peer, message))

    def _messages(self) -> list[tuple[Any, Message]]:
        """Empty the outboxes, and return their messages."""
        messages: list[tuple[Any, Message]] = []
        for outbox in self._outboxes:
            if outbox:
                messages.extend(outbox)
                outbox.clear()
        return messages

    def _send_messages(self, messages: list[tuple[Any, Message]]) -> None:
        # Drops a message that cannot be sent: control messages are repeated.
        for peer, message in messages:
            try:
                if isinstance(message, (Ready, Ping, State)):
                    self._introduce(peer)
                self._send(peer, message)
            except (ArgumentError, MessageTooLargeError) as error:
                logger.warning("A %s was not sent: %s", type(message).__name__, error)

    def _introduce(self, peer: Peer) -> None:
        known = self.acquaintances
        if known.hello is not None and not known.knows_us(peer) and self._send(peer, known.hello):
            known.introduced(peer)

    def _send(self, peer: Peer, message: Message) -> bool:
        end = self.ends[peer.end]
        if end.socket is None or end.partly_sent:
            return False
        frames: list[Any] = encode(message)
        if end.binds:
            frames.insert(0, peer.id)
        send, last = end.socket.send, frames.pop()
        end.used = end.partly_sent = True
        try:
            for frame in frames:
                if isinstance(frame, bytes):
                    send(frame, NOBLOCK_MORE)
                else:
                    send(_whole_frame(frame), NOBLOCK_MORE, copy=False)
            send(_whole_frame(last), zmq.NOBLOCK, copy=False)
        except zmq.Again:
            # Only the first frame may find no room or no peer.
            end.partly_sent = False
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            end.partly_sent = False
            self._unreachable.setdefault(peer, time.monotonic())
            return False
        end.partly_sent = False
        if self._unreachable:
            self._unreachable.pop(peer, None)
        return True

    def _lose_unreachable(self, now: float) -> None:
        """Declare peers dead whose connection did not come back; their items go to other peers."""
        for peer in [peer for peer, since in self._unreachable.items() if now - since > UNREACHABLE]:
            del self._unreachable[peer]
            if self.producer is not None and not self.ends[peer.end].upstream:
                with self.lock:
                    self.producer.lose(peer)
            elif self.consumer is not None and self.ends[peer.end].upstream:
                with self.lock:
                    self.consumer.lose(peer)

    def _send_data(self, producer: Producer) -> None:
        """Send the waiting items, as far as there is room."""
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
            self._introduce(to)
            sent = self._send(to, data)
            with self.lock:
                if sent:
                    self.sent_items += 1
                    self.sent_bytes += producer.commit(to, data)
                    if self.room.awaited and producer.unsent == LOW:
                        self.room.notify()
                else:
                    self._blocked[to] = now + RETRY
                found = producer.pick(self._blocked, now) if producer.has_work else None
        if found is not None:
            self.wake()

    def _exchange_byes(self) -> None:
        with self.lock:
            # First, since a message after a BYE would announce this machine again.
            self.role.tick(time.monotonic())
            self.role.settle()
            if self.consumer is not None:
                self.consumer.flush()
                self.consumer.bye(self._reason)
            if self.producer is not None:
                self.producer.bye(self._reason)
            messages = self._messages()
        asked = {peer for peer, message in messages if self._send(peer, message) and isinstance(message, Bye)}
        # A connecting socket drops unread messages when its connection ends: wait for the answers.
        deadline = time.monotonic() + BYE_LIMIT
        arrived: list[tuple[End, Peer, Message]] = []
        while asked and (left := deadline - time.monotonic()) > 0:
            for end in self.ends:
                if end.socket is not None:
                    self._receive(end, arrived)
                    end.socket.watch.read()
            asked.difference_update(peer for _, peer, message in arrived if isinstance(message, Bye))
            arrived.clear()
            # Descriptors do not report messages that were left unread.
            wait = 0 if any(end.may_have_messages for end in self.ends) else math.ceil(left * 1000)
            if asked and self._wake_descriptor in dict(self._poller.poll(wait)):
                self._wake_recv.recv(4096)

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        for end in self.ends:
            if end.socket is not None:
                end.socket.close(linger=int(BYE_LIMIT * 1000))
                end.socket = None
        self._wake_send.close()
        self._wake_recv.close()
        close_context(self._context)


def _whole_frame(part: Any) -> Any:
    """Return the received frame that an array lies over, else the array: pyzmq forwards a frame with less work."""
    owner = getattr(part, "base", None)
    while owner is not None and not isinstance(owner, zmq.Frame):
        owner = owner.obj if isinstance(owner, memoryview) else getattr(owner, "base", None)
    return part if owner is None or len(owner) != part.nbytes else owner
