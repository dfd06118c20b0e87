"""Where a machine meets others: its places, one socket for each address, and who is at the other end."""

from __future__ import annotations

from typing import NamedTuple

import zmq
from zmq.backend import zmq_poll

from highway.network.zmq.addresses import Address
from highway.network.zmq.security import Security
from highway.network.zmq.sockets import Socket, bind, connect

__all__ = ["End", "Endpoint", "Peer"]

# A plain number, as zmq's flags take long to be compared.
READABLE = int(zmq.POLLIN)


class Peer(NamedTuple):
    """Who is at the other end: the number of our socket and, where we are bound, the routing id."""

    end: int
    id: bytes


class Endpoint(NamedTuple):
    """Where an end of the machine is: bound, or connected to one address or more."""

    addresses: tuple[Address, ...]
    binds: bool
    security: Security
    window: int


class End:
    """One socket."""

    def __init__(self, number: int, address: Address, place: Endpoint, above: bool) -> None:
        self.number = number
        self.address = address
        self.place = place
        self.above = above
        self.binds = place.binds
        # Who is there, where we connect; a socket that is bound tells with each message.
        self.peer = Peer(number, b"")
        self.socket: Socket | None = None
        # Descriptors of the socket, and of what tells of its connections.
        self.descriptor = self.watch = -1
        # Whether something was sent since the socket was last asked for news, and whether there are some.
        self.used = self.news = False
        # Frames received since nothing was found, and those of the longest message.
        self.frames = self.longest = 0
        # Whether a message was left half sent: what followed would be taken for its rest.
        self.cut = False
        # When to make the socket anew, and what was last wrong.
        self.anew = 0.0
        self.failure: str | None = None

    def open(self, context: zmq.Context[zmq.Socket[bytes]]) -> Socket:
        """Make the socket, bound or connected."""
        make = bind if self.binds else connect
        self.socket = make(
            context,
            self.address,
            security=self.place.security,
            window=self.place.window,
            receives=self.above,
        )
        self.descriptor, self.watch = int(self.socket.FD), int(self.socket.watch.socket.FD)
        # Nothing is told of what comes before it was read once.
        self.news, self.used, self.cut, self.frames = True, False, False, 0
        return self.socket

    def is_readable(self) -> bool:
        """Whether there is a message."""
        assert self.socket is not None
        # Not by the option EVENTS: pyzmq looks up in Python what kind an option is of.
        return bool(zmq_poll([(self.socket, READABLE)], 0))
