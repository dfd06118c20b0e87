"""Creates sockets with their options, access control and monitors, in the context of this process.

A hub (`bind`) needs one file descriptor for each peer and a few more: raise `ulimit -n` for many peers. The limit of
libzmq (MAX_SOCKETS, 1023) counts sockets, not peers; each of these sockets takes three, two of them for its monitor.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import secrets
import shlex
import socket as plain
import stat
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import zmq

from highway.arguments import whole
from highway.errors import (
    AddressError,
    AddressInUseError,
    ArgumentError,
    PipelineStateError,
    SecurityError,
)
from highway.network.protocol.wire import MAX_FRAME_BYTES
from highway.network.zmq.addresses import Address, ip_of
from highway.network.zmq.monitor import Monitor
from highway.network.zmq.security import Authenticator, Keys, Security, check_admission
from highway.storage.locks import flock

__all__ = [
    "Socket",
    "bind",
    "close_context",
    "connect",
    "open_context",
]

logger = logging.getLogger("highway.network")

# Threads of libzmq: one for the sockets that receive batches, one for the sockets that send them.
IO_THREADS = 2
# Milliseconds.
HANDSHAKE = 5_000
HEARTBEAT = 5_000
# The largest frame takes this long on a slow link, and blocks the heartbeats meanwhile.
HEARTBEAT_LIMIT = 60_000
RECONNECT = 100
RECONNECT_LIMIT = 5_000

# Largest block, in bytes, whose release changes the thresholds of glibc's malloc: 32 MiB with its header.
LARGEST_BLOCK = (32 << 20) - 8192

# Longest wait for another process that binds in the same folder, in seconds.
FOLDER_LIMIT = 2.0


# The context


class _Context(zmq.Context[zmq.Socket[bytes]]):
    """The context of a process, with its users, its authenticator and its sockets."""

    process = 0
    users = 0
    authenticator: Authenticator | None = None
    opened: weakref.WeakSet[Socket]


# Reentrant: the garbage collector may end a pipeline in a thread that holds it.
_lock = threading.RLock()
_shared: _Context | None = None
# Contexts of the parent processes, kept alive: libzmq must not touch them after a fork, not even to terminate them.
_inherited: list[_Context] = []


def open_context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return the context of this process, which the first call creates; never the user's `zmq.Context.instance()`.

    All pipelines of a process share it, so that inproc addresses connect. Each call needs a `close_context`. A forked
    child gets a context of its own, and cannot use the sockets of its parent.
    """
    global _shared
    with _lock:
        if _shared is None:
            context = _Context(IO_THREADS)
            context.process = os.getpid()
            context.opened = weakref.WeakSet()
            _keep_freed_memory()
            _shared = context
        _shared.users += 1
        return _shared


def is_context_open() -> bool:
    """Return whether this process has a context, which somebody has opened and nobody has closed since."""
    return _shared is not None


def close_context(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """Release a context; the last release ends its threads. In a forked child nothing happens.

    Raises
    ------
    PipelineStateError
        This is the last release, and a socket is still open: termination would wait for it forever.
    """
    global _shared
    ours = _ours(context)
    if ours.process != os.getpid():
        return
    with _lock:
        if ours.users == 0:
            raise PipelineStateError(
                "close_context: the context is closed; expected one call for each open_context"
            )
        if ours.users > 1:
            ours.users -= 1
            return
        left = [repr(socket) for socket in ours.opened if not socket.closed]
        if left:
            raise PipelineStateError(f"close_context: still open: {', '.join(left)}; close the sockets first")
        ours.users = 0
        _shared = None
    ours.term()
    if ours.authenticator is not None:
        ours.authenticator.join()


def _keep_freed_memory() -> None:
    """Make malloc keep the memory of a frame for the next one.

    glibc returns memory to the kernel when the free end of a heap exceeds twice the largest block that was ever freed.
    With blocks as large as frames this happens all the time, and the kernel clears and maps every page of the next
    frame. Freeing one large untouched block raises the threshold to 64 MB. Thresholds that the user has set stay.
    """
    np.empty(LARGEST_BLOCK, np.uint8)


def _ours(context: zmq.Context[zmq.Socket[bytes]]) -> _Context:
    if not isinstance(context, _Context):
        raise ArgumentError(f"context is {context!r}; expected what open_context() returned")
    return context


def _forget_in_child() -> None:
    global _lock, _shared
    _lock = threading.RLock()
    if _shared is not None:
        _inherited.append(_shared)
        _shared = None


os.register_at_fork(after_in_child=_forget_in_child)


# Sockets


class Socket(zmq.Socket[bytes]):
    """A socket with a monitor of its connections; removes the file of its ipc address.

    Attributes
    ----------
    watch : Monitor
        Read it regularly: it keeps all events until then.
    """

    watch: Monitor

    @property
    def endpoint(self) -> str:
        """The address that it is bound to, with the actual port."""
        return bytes(self.getsockopt(zmq.LAST_ENDPOINT) or b"").rstrip(b"\0").decode()

    _file: tuple[str, int, int] | None = None

    def close(self, linger: int | None = None) -> None:
        """Close it, and remove the file of an ipc address. Idempotent; in a forked child nothing happens."""
        if not self.closed and _is_current(self.context):
            if self._file is not None:
                # Before the socket closes: nobody else can have bound to the path yet.
                path, *identity = self._file
                with contextlib.suppress(OSError):
                    status = os.lstat(path)
                    if [status.st_dev, status.st_ino] == identity:
                        os.unlink(path)
            if "watch" in self.__dict__:
                self.watch.close()
        super().close(linger)


def bind(
    context: zmq.Context[zmq.Socket[bytes]],
    address: Address,
    *,
    security: Security,
    window: int,
    kind: int = zmq.ROUTER,
    receives: bool = False,
) -> Socket:
    """Return a bound socket that admits only holders of the secret; its `endpoint` has the actual port.

    Parameters
    ----------
    context : zmq.Context
        From `open_context`.
    address : Address
        From `parse`. A missing folder of an ipc path is created; the file of the socket gets mode 0600, and is removed
        when the socket is closed.
    security : Security
    window : int
        Most items in flight to a peer.
    kind : int
        zmq.ROUTER, zmq.PUSH or zmq.PULL.
    receives : bool
        Whether the socket receives batches: sockets that receive and sockets that send use different threads of libzmq.

    Raises
    ------
    SecurityError
        A secret is missing, the authenticator does not work, or other users can write to the folder of the path.
    AddressInUseError
        Another socket is bound there, or the path is a file that is not a socket.
    AddressError
        The address cannot be bound for another reason.
    """
    ours, keys = _prepared(context, address, security)
    if keys is not None:
        _admit(ours, keys)
    with _closed_on_error(_new_socket(ours, kind, window, connects=False, receives=receives)) as socket:
        if kind == zmq.ROUTER:
            socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        if address.is_ipv6:
            socket.setsockopt(zmq.IPV6, 1)
        if keys is not None:
            keys.guard(socket)
        try:
            if address.scheme == "ipc":
                _bind_ipc(socket, address.name)
            else:
                socket.bind(address.endpoint)
        except zmq.ZMQError as error:
            raise _address_error(security.owner, address, error.errno or 0) from None
        except OSError as error:
            if isinstance(error, (AddressError, SecurityError)):
                raise
            raise _address_error(security.owner, address, error.errno or 0) from None
        return socket


def connect(
    context: zmq.Context[zmq.Socket[bytes]],
    address: Address,
    *,
    security: Security,
    window: int,
    kind: int = zmq.DEALER,
    receives: bool = False,
) -> Socket:
    """Return a socket that connects, and reconnects unless `watch.gave_up` is set.

    A DEALER has a random routing id that it keeps over reconnects.

    Parameters
    ----------
    context, address, security, window, receives
        See `bind`.
    kind : int
        zmq.DEALER, zmq.PUSH or zmq.PULL.

    Raises
    ------
    SecurityError
        A secret is missing.
    AddressError
        No host has this name.
    """
    ours, keys = _prepared(context, address, security)
    ipv6 = address.is_ipv6 or _has_only_ipv6(security.owner, address)
    with _closed_on_error(_new_socket(ours, kind, window, connects=True, receives=receives)) as socket:
        if kind == zmq.DEALER:
            # libzmq reserves ids that begin with a zero byte.
            socket.setsockopt(zmq.ROUTING_ID, bytes([1 + secrets.randbelow(255)]) + secrets.token_bytes(15))
        if kind != zmq.PULL:
            # Queues nothing for a hub that is not connected; but received and unread messages are dropped when the
            # connection ends.
            socket.setsockopt(zmq.IMMEDIATE, 1)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_LIMIT)
        if ipv6:
            socket.setsockopt(zmq.IPV6, 1)
        if keys is not None:
            keys.identify(socket)
        try:
            socket.connect(address.endpoint)
        except zmq.ZMQError as error:
            raise _address_error(security.owner, address, error.errno or 0) from None
        return socket


def _prepared(
    context: zmq.Context[zmq.Socket[bytes]], address: Address, security: Security
) -> tuple[_Context, Keys | None]:
    """Return the checked context and the keys to use."""
    ours = _ours(context)
    if not _is_current(ours):
        raise PipelineStateError(
            f"{security.owner}: the context is closed, or from before a fork; expected a new open_context()"
        )
    keys = security.keys_for(address.endpoint, local=address.is_local)
    # libzmq cannot encrypt inproc.
    return ours, None if address.scheme == "inproc" else keys


def _is_current(context: zmq.Context[Any]) -> bool:
    return isinstance(context, _Context) and context.process == os.getpid() and not context.closed


def _admit(context: _Context, keys: Keys) -> None:
    with _lock:
        if context.authenticator is None:
            context.authenticator = Authenticator(context)
    context.authenticator.admit(keys)
    check_admission(context, keys)


def _new_socket(context: _Context, kind: int, window: int, *, connects: bool, receives: bool) -> Socket:
    highest = 2 * whole("Socket", "window", window, 1, 1 << 20) + 16
    socket = Socket(context, kind)
    with _closed_on_error(socket):
        context.opened.add(socket)
        for option, value in (
            # One thread for all connections of a socket: two would report their events in any order.
            (zmq.AFFINITY, 1 << receives),
            (zmq.SNDHWM, highest),
            (zmq.RCVHWM, highest),
            (zmq.LINGER, 0),
            # A larger frame ends the connection.
            (zmq.MAXMSGSIZE, MAX_FRAME_BYTES),
            (zmq.HANDSHAKE_IVL, HANDSHAKE),
            (zmq.HEARTBEAT_IVL, HEARTBEAT),
            (zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_LIMIT),
        ):
            socket.setsockopt(option, value)
        # Before the first event.
        socket.watch = Monitor(socket, connects=connects)
    return socket


@contextlib.contextmanager
def _closed_on_error(socket: Socket) -> Iterator[Socket]:
    try:
        yield socket
    except BaseException:
        socket.close()
        raise


def _address_error(owner: str, address: Address, number: int) -> AddressError:
    where = f"{owner}: {address}"
    if number == errno.EADDRINUSE:
        return AddressInUseError(
            f"{where} is in use: another socket is bound to it; close that one, or use another address"
        )
    if number in (errno.ENODEV, errno.EADDRNOTAVAIL, errno.EINVAL) and address.scheme == "tcp":
        return AddressError(
            f"{where} cannot be bound: {address.name!r} is no address of this machine; expected one of its own, "
            f"the name of an interface, or tcp://*:{address.port or '*'} for all"
        )
    return AddressError(f"{where} cannot be used: {os.strerror(number)}")


def _has_only_ipv6(owner: str, address: Address) -> bool:
    """Whether a host has only IPv6 addresses; raises AddressError for an unknown host."""
    if address.scheme != "tcp" or address.name == "localhost" or ip_of(address.name) is not None:
        return False
    try:
        found = plain.getaddrinfo(address.name, address.port, type=plain.SOCK_STREAM)
    except plain.gaierror as error:
        if error.errno == plain.EAI_AGAIN:
            # libzmq asks again at every connect.
            logger.warning(
                "%s: the name server does not answer for host %r; tries again", address, address.name
            )
            return False
        raise AddressError(
            f"{owner}: {address}: there is no host {address.name!r} ({error.strerror}); check the name"
        ) from None
    except UnicodeError:
        # A label of the name is empty or too long.
        raise AddressError(f"{owner}: {address}: {address.name!r} can be no host; check the name") from None
    return all(family != plain.AF_INET for family, *_ in found)


# ipc: Highway binds the path itself, because libzmq would silently replace the socket of another process.


def _bind_ipc(socket: Socket, name: str) -> None:
    if name.startswith("@"):
        with _listening(socket, "\0" + name[1:]) as listener:
            _hand_over(socket, listener, name)
        return
    # The process may change its working directory before the socket is closed.
    path = os.path.abspath(name)
    above = os.path.dirname(path)
    with _locked(_folder(above), above):
        _clear(name)
        with _listening(socket, name) as listener:
            status = os.stat(name)
            socket._file = (path, status.st_dev, status.st_ino)
            _hand_over(socket, listener, name)


@contextlib.contextmanager
def _listening(socket: Socket, path: str) -> Iterator[plain.socket]:
    with plain.socket(plain.AF_UNIX, plain.SOCK_STREAM) as listener:
        # Before `bind` creates the file, so that it never has another mode.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(path)
        listener.listen(int(socket.getsockopt(zmq.BACKLOG)))
        listener.setblocking(False)
        yield listener


def _hand_over(socket: Socket, listener: plain.socket, name: str) -> None:
    socket.setsockopt(zmq.USE_FD, listener.fileno())
    socket.bind(f"ipc://{name}")
    # libzmq owns the descriptor now.
    listener.detach()


def _folder(path: str) -> int:
    """Open the folder of a socket, and create it if it is missing."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise AddressError(
            f"Folder {path!r}, for the socket, cannot be made, since the one above it is missing: "
            f"mkdir -p {shlex.quote(os.path.dirname(path))}"
        ) from None
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(folder)
        if status.st_uid not in (os.geteuid(), 0):
            raise SecurityError(
                f"Folder {path!r} belongs to user {status.st_uid}, who could replace the socket in it; expected one "
                f"of this user ({os.geteuid()}) or of root"
            )
        if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
            raise SecurityError(
                f"Folder {path!r} has mode {stat.S_IMODE(status.st_mode):04o}, so others could replace the socket in "
                f"it: chmod go-w {shlex.quote(path)}"
            )
    except BaseException:
        os.close(folder)
        raise
    return folder


@contextlib.contextmanager
def _locked(folder: int, path: str = "folder of the socket") -> Iterator[None]:
    """Lock a folder against other processes of Highway: two could find, and remove, the same dead socket."""
    try:
        deadline = time.monotonic() + FOLDER_LIMIT
        while True:
            try:
                flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB, path, logger, "ipc")
                break
            except BlockingIOError:
                # Anyone can lock /tmp, so the wait has a limit.
                if time.monotonic() > deadline:
                    raise AddressInUseError(
                        f"Another process has locked the folder of the socket for {FOLDER_LIMIT:.0f} s; "
                        "take a folder of your own"
                    ) from None
                time.sleep(0.01)
        yield
    finally:
        os.close(folder)


def _clear(path: str) -> None:
    """Remove the file of a dead socket; raises AddressInUseError for a live one and for any other file."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise AddressInUseError(f"ipc://{path} exists and is not a socket; use another path")
    with plain.socket(plain.AF_UNIX, plain.SOCK_STREAM) as caller:
        # A full backlog must not block; it shows a live socket too.
        caller.setblocking(False)
        try:
            caller.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EINPROGRESS):
                raise
    raise AddressInUseError(
        f"ipc://{path} is in use: another socket is bound to it; close that one, or use another path"
    )
