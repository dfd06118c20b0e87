"""The ends of a machine: its endpoints, a socket for each address, and the peers."""

from __future__ import annotations

import math
from typing import NamedTuple

import zmq
from zmq.backend import zmq_poll

from highway.network.zmq.addresses import Address
from highway.network.zmq.security import Security
from highway.network.zmq.sockets import Socket, bind, connect

__all__ = ["End", "Endpoint", "Peer"]


class Peer(NamedTuple):
    """A peer: the number of the local socket and, where that is bound, the routing id."""

    end: int
    id: bytes


class Endpoint(NamedTuple):
    """Addresses and settings of an end: bound to one address, or connected to one or more."""

    addresses: tuple[Address, ...]
    binds: bool
    security: Security
    window: int


class End:
    """One socket, and the state of its use."""

    def __init__(self, number: int, address: Address, endpoint: Endpoint, upstream: bool) -> None:
        self.number = number
        self.address = address
        self.endpoint = endpoint
        self.upstream = upstream
        self.binds = endpoint.binds
        # The peer of a connecting socket; a bound socket gets it with each message.
        self.peer = Peer(number, b"")
        self.socket: Socket | None = None
        # File descriptors of the socket, and of its monitor.
        self.descriptor = self.watch = -1
        # Whether the socket was used since its events were last checked, and whether it may have messages.
        self.used = self.may_have_messages = False
        # Frames received since the socket was last empty, and frames of the longest message.
        self.frames = self.longest = 0
        # Whether a message was only sent in part: the peer would take the next frames for its rest.
        self.partly_sent = False
        # When to recreate the socket, and the last failure.
        self.recreate_at = 0.0
        # When the log last said that nobody answers.
        self.retry_logged_at = -math.inf
        self.failure: str | None = None

    def open(self, context: zmq.Context[zmq.Socket[bytes]]) -> Socket:
        """Create the socket, and bind or connect it."""
        make = bind if self.binds else connect
        self.socket = make(
            context,
            self.address,
            security=self.endpoint.security,
            window=self.endpoint.window,
            receives=self.upstream,
        )
        self.descriptor, self.watch = self.socket.FD, self.socket.watch.socket.FD
        # The descriptor reports nothing until the socket was read once.
        self.may_have_messages, self.used, self.partly_sent, self.frames = True, False, False, 0
        return self.socket

    def is_readable(self) -> bool:
        """Whether there is a message."""
        assert self.socket is not None
        # Not by the option EVENTS: pyzmq looks up the type of an option in Python, which is slow.
        return bool(zmq_poll([(self.socket, zmq.POLLIN)], 0))
