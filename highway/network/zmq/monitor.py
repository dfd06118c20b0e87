"""Monitor the connections of a socket: opened, closed, and why a handshake failed."""

from __future__ import annotations

import errno
import os
import secrets
import socket as plain
import struct
from typing import NamedTuple

import zmq

from highway.network.zmq.security import quoted

__all__ = ["Event", "Monitor"]


class Event(NamedTuple):
    """An event of a connection.

    Attributes
    ----------
    kind : int
        zmq.EVENT_CONNECTED, EVENT_ACCEPTED, EVENT_ACCEPT_FAILED, EVENT_DISCONNECTED, EVENT_CONNECT_RETRIED,
        EVENT_HANDSHAKE_SUCCEEDED, or
        EVENT_HANDSHAKE_FAILED_NO_DETAIL, _PROTOCOL or _AUTH.
    endpoint : str
        Endpoint of the connection, escaped.
    text : str
        Description of the event.
    """

    kind: int
    endpoint: str
    text: str


_FAILURES = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH,
)
_TEXTS: dict[int, str] = {
    zmq.EVENT_CONNECTED: "connected",
    zmq.EVENT_ACCEPTED: "accepted",
    zmq.EVENT_ACCEPT_FAILED: "cannot accept",
    zmq.EVENT_DISCONNECTED: "disconnected",
    zmq.EVENT_CONNECT_RETRIED: "tries again",
    zmq.EVENT_HANDSHAKE_SUCCEEDED: "handshake succeeded",
}
_WATCHED = sum(_TEXTS) | sum(_FAILURES)
_NO_AUTHENTICATOR = "the authenticator of this process has ended, so every connection is refused"


class Monitor:
    """Reads the connection events of a socket without blocking; made by `bind` and `connect`.

    Attributes
    ----------
    socket : zmq.Socket
        Poll it for POLLIN to wait for events.
    connections : int
        Number of open connections at the last `read`, including those in their handshake.
    failure : str or None
        The last failed handshake, as a sentence without its full stop.
    gave_up : bool
        Whether libzmq has stopped reconnecting because the other end is incompatible; a new socket connects again.
    """

    def __init__(self, socket: zmq.Socket[bytes], *, connects: bool) -> None:
        self._watched = socket
        self._connects = connects
        self._open: set[int] = set()
        # Addresses of the accepted connections, by their file descriptors.
        self._peers: dict[int, str] = {}
        self.failure: str | None = None
        self.gave_up = False
        name = f"inproc://highway-monitor-{secrets.token_hex(8)}"
        socket.monitor(name, _WATCHED)
        self.socket = socket.context.socket(zmq.PAIR)
        self.socket.linger = 0
        # No limit: libzmq's thread blocks on a full queue, so unknown peers could stop the data of all others.
        self.socket.rcvhwm = 0
        self.socket.connect(name)

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._open)

    def read(self) -> list[Event]:
        """Return the events since the last call, oldest first."""
        events: list[Event] = []
        raw: list[tuple[int, int, str]] = []
        while True:
            try:
                head, endpoint = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            kind, value = struct.unpack("=HI", head)
            if kind in _TEXTS or kind in _FAILURES:
                raw.append((kind, value, quoted(endpoint)))
        for number, (kind, value, endpoint) in enumerate(raw):
            later = raw[number + 1 :]
            if kind == zmq.EVENT_ACCEPTED and (zmq.EVENT_DISCONNECTED, value) not in [
                each[:2] for each in later
            ]:
                # While the connection is open, its descriptor is not one of another connection.
                self._peers[value] = _peer_of(value)
            if kind in _FAILURES and not self._connects:
                # The connection that failed is the next one that ends: one thread serves all of them.
                gone = next((each[1] for each in later if each[0] == zmq.EVENT_DISCONNECTED), -1)
                endpoint = f"{endpoint} from {self._peers.get(gone, '') or 'an unknown address'}"
            elif kind == zmq.EVENT_DISCONNECTED:
                self._peers.pop(value, None)
            events.append(self._event(kind, value, endpoint))
        return events

    def close(self) -> None:
        """Stop watching. Idempotent."""
        if not self.socket.closed:
            self._watched.monitor(None, 0)
            self.socket.close()

    def _event(self, kind: int, value: int, endpoint: str) -> Event:
        if kind in (zmq.EVENT_CONNECTED, zmq.EVENT_ACCEPTED):
            self._open.add(value)
        elif kind == zmq.EVENT_DISCONNECTED:
            self._open.discard(value)
        if kind not in _FAILURES:
            why = f": {os.strerror(value)}" if kind == zmq.EVENT_ACCEPT_FAILED else ""
            return Event(kind, endpoint, f"{_TEXTS[kind]}{why}")
        text = _why(kind, value)
        if kind != zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self.gave_up = self._connects
        # libzmq reports the same failed handshake again without its cause.
        if self.failure is None or _NO_AUTHENTICATOR not in self.failure:
            self.failure = f"handshake at {endpoint} failed: {text}"
        return Event(kind, endpoint, text)


def _peer_of(descriptor: int) -> str:
    """Return the address at the other end of a connection of libzmq; empty where it is not known."""
    try:
        with plain.socket(fileno=os.dup(descriptor)) as connection:
            name = connection.getpeername()
    except OSError:
        return ""
    # Without the port, which is another one at every attempt.
    return str(name[0]) if isinstance(name, tuple) else "this machine"


def _why(kind: int, value: int) -> str:
    if kind == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
        return f"the key was refused (status {value})"
    if kind == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        if value == errno.EFAULT:
            return _NO_AUTHENTICATOR
        # The value is whatever errno was last.
        return "it ended before it was complete (another secret, no Highway at the other end, or it took too long)"
    if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
        return "one end has a secret, and the other has none"
    if value == zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC:
        return "the two ends have different secrets"
    return f"the other end does not speak ZMTP as expected (protocol error {value:#x})"
