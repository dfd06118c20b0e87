"""Ask a running chain about its machines, without becoming one of them."""

from __future__ import annotations

import os
import time
from typing import Any

import zmq

from highway.engine.stats import MachineStats
from highway.errors import PeerLostError, ProtocolError
from highway.network.protocol.messages import Query, Report
from highway.network.protocol.wire import decode, encode
from highway.network.reports import machines_of
from highway.network.zmq.addresses import parse
from highway.network.zmq.security import Security
from highway.network.zmq.sockets import Socket, close_context, connect, open_context

__all__ = ["ask"]

OWNER = "status"
# Seconds between two questions, and from the first answer to the last: machines ask those downstream of them, so what
# a later answer has came from further away.
AGAIN = 0.4
GATHERING = 1.5
# Milliseconds between two attempts to send.
ATTEMPT = 50


def ask(
    address: str,
    *,
    secret: bytes | str | os.PathLike[str] | None = None,
    insecure: bool = False,
    timeout: float = 5.0,
) -> tuple[MachineStats, ...]:
    """Return the figures of all machines of a chain: data machines first, the training machine last.

    Nothing of the chain changes: whoever asks is no consumer, and gets no batch.

    Parameters
    ----------
    address : str
        Where a machine of the chain listens: ``tcp://HOST:PORT`` or ``ipc://PATH``.
    secret : bytes, str or path, optional
    insecure : bool
        See `highway.modules.ZMQSink`.
    timeout : float
        Longest wait for the first answer, in seconds.

    Raises
    ------
    PeerLostError
        Nobody answered.
    ArgumentError, AddressError, SecurityError
        The address cannot be used, or needs a secret.
    """
    place = parse(OWNER, address, bind=False)
    security = Security(OWNER, secret, insecure)
    context = open_context()
    try:
        with connect(context, place, security=security, window=8) as socket:
            reports = _gathered(socket, timeout)
            failure = socket.watch.failure
    finally:
        close_context(context)
    if reports is None:
        why = f" ({failure})" if failure else ""
        raise PeerLostError(
            f"{OWNER}: nobody answered at {address} for {timeout:g} s{why}; expected a data machine, a worker or a "
            "training machine that listens there, of a version that knows this question"
        )
    return machines_of((0.0, report) for report in reports)


def _gathered(socket: Socket, timeout: float) -> list[dict[str, Any]] | None:
    """Return the reports of all answers, the newest last; None without an answer."""
    frames = [bytes(frame) for frame in encode(Query())]
    until = time.monotonic() + timeout
    asked_at = -1e9
    reports: list[dict[str, Any]] | None = None
    while (now := time.monotonic()) < until:
        socket.watch.read()
        if now - asked_at >= AGAIN:
            try:
                socket.send_multipart(frames, zmq.NOBLOCK)
                asked_at = now
            except zmq.Again:
                # Not connected yet.
                pass
        if not socket.poll(min(ATTEMPT, int((until - now) * 1000))):
            continue
        try:
            message = decode(socket.recv_multipart(copy=False))
        except ProtocolError:
            # Of a program that is no machine of a chain, or of another version.
            continue
        if isinstance(message, Report):
            if reports is None:
                reports, until = [], time.monotonic() + GATHERING
            reports += message.reports
    return reports
