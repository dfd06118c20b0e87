"""Addresses: what is allowed, and who can reach them."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable
from typing import NamedTuple

from highway.errors import ArgumentError
from highway.network.zmq.security import quoted

__all__ = ["Address", "ip_of", "parse"]

# Bytes of a path that fit into sockaddr_un, of which one ends it.
_PATH_ROOM = 107

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?")
# Such as 127.1 or 0x7f000001: resolvers take them for IPv4 addresses, and we would take them for names.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)\.?")
_ZONE = re.compile(r"[A-Za-z0-9_.-]+")


class Address(NamedTuple):
    """Where a socket is bound or connected to, as `parse` found it.

    Attributes
    ----------
    scheme : str
        "tcp", "ipc" or "inproc".
    name : str
        Of the host, without brackets, or "*" for every address of this machine; the path; the name.
    port : int
        0 except for tcp; and there when any free one will do.
    """

    scheme: str
    name: str
    port: int = 0

    def __str__(self) -> str:
        return self.endpoint

    @property
    def endpoint(self) -> str:
        """As libzmq takes it."""
        if self.scheme != "tcp":
            return f"{self.scheme}://{self.name}"
        # No resolver may say that localhost is somebody else.
        name = "127.0.0.1" if self.name == "localhost" else self.name
        return f"tcp://{f'[{name}]' if ':' in name else name}:{self.port or '*'}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it; no name but localhost is looked up, or counts."""
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
        What has the argument, and what it is called: the error says both.
    text : str
        tcp://HOST:PORT, ipc://PATH, ipc://@NAME (abstract: without a file) or inproc://NAME (in this process).
        HOST is a name or an address, IPv6 in brackets.
    bind : bool
        Whether it is to be bound: then HOST may be * or 0.0.0.0 or [::] (everywhere on this machine), and PORT
        0 or * (a free one).

    Raises
    ------
    ArgumentError
        It is something else.
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
            raise wrong("an IPv6 address goes in brackets: tcp://[::1]:5555")
    if colon != ":" or not port:
        raise wrong("it has no port; expected tcp://HOST:PORT, such as tcp://10.0.0.5:5555")
    if not host:
        raise wrong(f"it has no host; expected tcp://HOST:{port}{f' or tcp://*:{port}' if bind else ''}")
    return _checked_host(host, bind, wrong), _checked_port(port, bind, wrong)


def _checked_host(host: str, bind: bool, wrong: Callable[[str], ArgumentError]) -> str:
    ip = ip_of(host)
    if host == "*" or (ip is not None and ip.is_unspecified):
        if not bind:
            raise wrong(
                f"{host} means every address of this machine, which is for bind=True; expected a host"
            )
        return host
    if ip is not None:
        if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id and not _ZONE.fullmatch(ip.scope_id):
            raise wrong(f"{ip.scope_id!r} is no name of a network interface")
        return str(ip)
    if ":" in host or _NUMERIC.fullmatch(host):
        raise wrong(f"{host!r} is no IP address")
    if not _NAME.fullmatch(host):
        raise wrong(f"{host!r} is no name of a host: letters, digits, '-' and '.'")
    return "localhost" if host.lower() in ("localhost", "localhost.") else host


def _checked_port(port: str, bind: bool, wrong: Callable[[str], ArgumentError]) -> int:
    if bind and port == "*":
        return 0
    # The length first: int() has a limit of its own.
    if port.isascii() and port.isdigit() and len(port) <= 5 and (0 if bind else 1) <= int(port) <= 65535:
        return int(port)
    raise wrong(f"{quoted(port)!r} is no port; expected 1 to 65535{', or * for a free one' if bind else ''}")


def ip_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that a text is, if it is one."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
