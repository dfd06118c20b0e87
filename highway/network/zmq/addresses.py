"""Addresses: which are valid, and which other machines can reach."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from typing import NamedTuple

from highway.errors import ArgumentError
from highway.network.zmq.security import quoted

__all__ = ["Address", "ip_of", "parse"]

# Longest path that fits into sockaddr_un, in bytes, without the final zero byte.
_PATH_ROOM = 107

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
# Such as 127.1 or 0x7f000001: resolvers read them as IPv4 addresses, Highway would read them as names.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")
_ZONE = re.compile(r"[A-Za-z0-9_.-]+")


class Address(NamedTuple):
    """A parsed address that a socket is bound or connected to; made by `parse`.

    Attributes
    ----------
    scheme : str
        "tcp", "ipc" or "inproc".
    name : str
        The host without brackets, or "*" for every address of this machine; the path of ipc; the name of inproc.
    port : int
        Port of tcp, 0 for any free one; 0 for ipc and inproc.
    """

    scheme: str
    name: str
    port: int = 0

    def __str__(self) -> str:
        return self.endpoint

    @property
    def endpoint(self) -> str:
        """The address in the format of libzmq."""
        if self.scheme != "tcp":
            return f"{self.scheme}://{self.name}"
        # A resolver must not map localhost to another machine.
        name = "127.0.0.1" if self.name == "localhost" else self.name
        return f"tcp://{f'[{name}]' if ':' in name else name}:{self.port or '*'}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it; names other than localhost count as remote, without a lookup."""
        if self.scheme != "tcp" or self.name == "localhost":
            return True
        ip = ip_of(self.name)
        if isinstance(ip, ipaddress.IPv6Address):
            return (ip.ipv4_mapped or ip).is_loopback
        return ip is not None and ip.is_loopback

    @property
    def is_ipv6(self) -> bool:
        """Whether the host is given by an IPv6 address."""
        return self.scheme == "tcp" and ":" in self.name


def parse(owner: str, text: str, *, bind: bool, name: str = "addr") -> Address:
    """Check an address.

    Parameters
    ----------
    owner, name : str
        The module with the argument, and the name of the argument, for errors.
    text : str
        tcp://HOST:PORT, ipc://PATH, ipc://@NAME (abstract: without a file) or inproc://NAME (in this process).
        HOST is a name or an address, IPv6 in brackets.
    bind : bool
        Whether a socket will bind to it: then HOST may be * or 0.0.0.0 or [::] (every address of this machine), and
        PORT may be 0 or * (any free port).

    Raises
    ------
    ArgumentError
        The address is invalid.
    """

    def wrong(what: str) -> ArgumentError:
        return ArgumentError(f"{owner}: {name} is {text!r}: {what}")

    if not isinstance(text, str):
        raise wrong("expected text, such as 'tcp://10.0.0.5:5555'")
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("tcp", "ipc", "inproc"):
        raise wrong("expected tcp://HOST:PORT, ipc://PATH or inproc://NAME")
    if scheme == "tcp":
        host, port = _host_and_port(rest, bind, wrong)
        return Address(scheme, host, port)
    if "\0" in rest:
        raise wrong("it has a zero byte")
    if scheme == "ipc":
        rest = os.path.expanduser(rest)
    try:
        length = len(rest.encode())
    except UnicodeEncodeError:
        raise wrong("it cannot be written in UTF-8") from None
    if rest in ("", "@"):
        raise wrong(f"expected {scheme}://{'PATH' if scheme == 'ipc' else 'NAME'}")
    if scheme == "ipc" and rest == "*":
        raise wrong("expected ipc://PATH; for a name without a file: ipc://@NAME")
    if length > _PATH_ROOM:
        raise wrong(f"{length} bytes after the //; expected at most {_PATH_ROOM}")
    return Address(scheme, rest)


def _host_and_port(rest: str, bind: bool, wrong: Callable[[str], ArgumentError]) -> tuple[str, int]:
    if rest.startswith("["):
        host, bracket, after = rest[1:].partition("]")
        colon, port = after[:1], after[1:]
        if not bracket or ":" not in host:
            raise wrong("expected an IPv6 address in brackets: tcp://[::1]:5555")
    else:
        host, colon, port = rest.rpartition(":")
        if ":" in host:
            raise wrong("expected the IPv6 address in brackets: tcp://[::1]:5555")
    if colon != ":" or not port:
        raise wrong("it has no port; expected tcp://HOST:PORT, such as tcp://10.0.0.5:5555")
    if not host:
        raise wrong(f"it has no host; expected tcp://HOST:{port}{f' or tcp://*:{port}' if bind else ''}")
    return _checked_host(host, bind, wrong), _checked_port(port, bind, wrong)


def _checked_host(host: str, bind: bool, wrong: Callable[[str], ArgumentError]) -> str:
    ip = ip_of(host)
    if host == "*" or (ip is not None and ip.is_unspecified):
        if not bind:
            raise wrong(f"{host} means every address of this machine, which needs bind=True; expected a host")
        return host
    if ip is not None:
        if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id and not _ZONE.fullmatch(ip.scope_id):
            raise wrong(f"{ip.scope_id!r} is not a name of a network interface")
        return str(ip)
    if ":" in host or _NUMERIC.fullmatch(host):
        raise wrong(f"{host!r} is not an IP address")
    if not _NAME.fullmatch(host):
        raise wrong(f"{host!r} is not a host name; expected letters, digits, '-' and '.'")
    return "localhost" if host.lower() in ("localhost", "localhost.") else host


def _checked_port(port: str, bind: bool, wrong: Callable[[str], ArgumentError]) -> int:
    if bind and port == "*":
        return 0
    # The length first: int() has a limit of its own.
    if port.isascii() and port.isdigit() and len(port) <= 5 and (0 if bind else 1) <= int(port) <= 65535:
        return int(port)
    raise wrong(
        f"{quoted(port)!r} is not a port; expected 1 to 65535{', or * for a free one' if bind else ''}"
    )


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an IP address; return None for other texts."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
