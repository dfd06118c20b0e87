"""Packs and unpacks headers with the msgpack package, within the limits for data of untrusted peers.

Compiled code checks every packed value: a received one before it is unpacked, and one to send after it is packed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import msgpack

from highway._core.wire.codec import (
    MAX_DEPTH,
    PREFIX,
    check_header,
    check_packed,
    checked_header,
    checked_value,
    shown,
)
from highway.errors import ContractError, ProtocolError

if TYPE_CHECKING:
    import zmq
    from typing_extensions import Buffer

__all__ = ["pack", "pack_header", "unpack", "unpack_header"]


def pack(value: object) -> bytes:
    """Return a value as msgpack.

    Parameters
    ----------
    value : None, bool, int, float, str, bytes, or lists, tuples and dicts of them
        Keys of dicts are str. A tuple is sent as a list.

    Returns
    -------
    bytes
        The shortest form.

    Raises
    ------
    ContractError
        Something else, a number outside of -2**63..2**64-1, a lone surrogate, or nested deeper than 8.
    MessageTooLargeError
        More than `MAX_HEADER_BYTES`, or a text of more than `MAX_TEXT_BYTES`.
    """
    packed = _packed(value)
    check_packed(packed)
    return packed


def pack_header(fields: list[Any]) -> bytes:
    """Return frame 0 of a message: `MAGIC`, `VERSION` and the fields as msgpack; raises as `pack` does."""
    header = PREFIX + _packed(fields)
    check_header(header)
    return header


def _packed(value: object) -> bytes:
    try:
        # A Packer for each value: a shared one is not safe if another thread uses it while `_refuse` runs. By default
        # its buffer has 256 KiB.
        return msgpack.Packer(default=_refuse, buf_size=1024).pack(value)  # type: ignore[no-any-return]
    except UnicodeEncodeError as error:
        raise ContractError(
            f"cannot send the text {shown(error.object)}: it has a lone surrogate; expected text that UTF-8 can encode"
        ) from None
    except ValueError as error:
        # The package has a higher limit of its own, which a list that holds itself exceeds too.
        raise ContractError(
            f"cannot send what is nested deeper than {MAX_DEPTH}: {shown(value)} ({error})"
        ) from None


def _refuse(value: object) -> NoReturn:
    """Raise for a value that msgpack cannot pack."""
    if isinstance(value, int):
        raise ContractError(f"cannot send {shown(value)}; expected numbers from -2**63 to 2**64 - 1")
    raise ContractError(
        f"cannot send {shown(value)}, a {type(value).__name__}; expected None, bool, int, float, str, bytes, "
        "or lists and dicts of them; arrays are sent beside them"
    )


def unpack(frame: Buffer | zmq.Frame) -> Any:
    """Return the value of a frame of `pack`; tuples become lists.

    Parameters
    ----------
    frame : bytes-like

    Raises
    ------
    ProtocolError
        The frame is not msgpack, is damaged, or exceeds a limit.
    """
    return msgpack.unpackb(checked_value(frame), object_pairs_hook=_map_of)


def unpack_header(frame: Buffer | zmq.Frame) -> list[Any]:
    """Return the fields of a frame of `pack_header`.

    Parameters
    ----------
    frame : bytes-like

    Returns
    -------
    list

    Raises
    ------
    ProtocolError
        The frame is not a header, has another version, is damaged, or exceeds a limit.
    """
    fields = msgpack.unpackb(checked_header(frame), object_pairs_hook=_map_of)
    if not isinstance(fields, list):
        raise ProtocolError(f"a message is {shown(fields)}; expected an array of fields")
    return fields


def _map_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ProtocolError(f"the message has a map with the key {shown(twice)} twice")
    return found
