"""Encode messages as frames and decode them: wire format 2.

The first frame is `b"HWY"`, the version of the format, and one msgpack array of at most 64 KiB: the kind of the
message and its fields. Each array of a `Data` message follows in a frame of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import NDArray

from highway._core.wire import codec as wire
from highway._core.wire.codec import (
    Unfit,
    check_data,
    check_list,
    check_numbers,
    check_sizes,
    check_text,
    check_token,
    check_whole,
)
from highway._core.wire.msgpack_numpy import decode_msgpack_numpy, encode_msgpack_numpy
from highway._core.wire.packing import pack_header, unpack_header
from highway.errors import ArgumentError, MessageTooLargeError, ProtocolError
from highway.network.protocol.messages import (
    Bye,
    Cursor,
    Data,
    Hello,
    Item,
    Key,
    Kind,
    Message,
    Ping,
    Progress,
    Query,
    Ready,
    Refusal,
    Report,
    State,
)

if TYPE_CHECKING:
    import zmq
    from typing_extensions import Buffer

__all__ = [
    "MAX_FRAMES",
    "MAX_FRAME_BYTES",
    "MAX_LIST",
    "MAX_MESSAGE_BYTES",
    "check",
    "decode",
    "decode_msgpack_numpy",
    "encode",
    "encode_msgpack_numpy",
]

MAX_FRAMES: int = wire.MAX_FRAMES
"""Most frames of a message, including the header."""
MAX_FRAME_BYTES: int = wire.MAX_FRAME_BYTES
"""Largest frame that the sockets accept."""
MAX_MESSAGE_BYTES = 1 << 30
MAX_KEY_BYTES = 1 << 10
"""Bytes of a header that are reserved for the key, stream and fingerprint of an item."""
MAX_LIST: int = wire.MAX_LIST
"""Most pending and most missing lsns of a `State`; most streams; the largest window."""

_LARGEST: int = wire.LARGEST
_CODES = ("superseded", "mismatch", "occupied")
_KINDS = tuple(Kind)


def encode(
    message: Message, *, limit: int = MAX_MESSAGE_BYTES, frame_limit: int = MAX_FRAME_BYTES
) -> list[bytes | NDArray[Any]]:
    r"""Return the frames of a message, for `Socket.send_multipart`.

    Parameters
    ----------
    message : Message
    limit : int
        Most bytes of all frames together.
    frame_limit : int
        Most bytes of one frame.

    Returns
    -------
    list of bytes or ndarray
        The header, and then the arrays: those of the message where they are C-contiguous and
        little-endian, else copies.

    Raises
    ------
    ArgumentError
        A field is out of the range that peers accept.
    ContractError
        The item has an array of a dtype that cannot be sent, or `meta` has a value that msgpack cannot pack.
    MessageTooLargeError
        The message has more bytes or more arrays than a peer accepts.

    Examples
    --------
    >>> encode(Bye("done"))
    [b'HWY\x02\x92\x05\xa4done']
    """
    form = _FORM_OF[type(message)]
    fields = form.take(message)
    try:
        form.check(fields)
    except Unfit as error:
        raise ArgumentError(f"encode: {form.name}: {error}") from None
    arrays: list[NDArray[Any]] = []
    if isinstance(message, Data):
        table, arrays = wire.describe(message.item.arrays)
        fields.append(table)
    frames: list[bytes | NDArray[Any]] = [pack_header([form.code, *fields]), *arrays]
    check_sizes(frames, limit, frame_limit)
    return frames


def check(item: Item) -> None:
    """Check that an item fits into a message; raises like `encode`, for any key.

    Raises
    ------
    ContractError, MessageTooLargeError
    """
    table, frames = wire.describe(item.arrays)
    header = pack_header([item.meta, table])
    if len(header) > wire.MAX_HEADER_BYTES - MAX_KEY_BYTES:
        raise MessageTooLargeError(
            f"the header of a batch (all but its arrays) has {len(header)} bytes; expected "
            f"{wire.MAX_HEADER_BYTES - MAX_KEY_BYTES} or fewer; send large data as an array"
        )
    check_sizes([header, *frames], MAX_MESSAGE_BYTES - MAX_KEY_BYTES, MAX_FRAME_BYTES)


def decode(frames: Sequence[Buffer | zmq.Frame], *, limit: int = MAX_MESSAGE_BYTES) -> Message:
    """Return the message of untrusted frames from a peer.

    Parameters
    ----------
    frames : sequence of bytes-like
        As `Socket.recv_multipart(copy=False)` returns them.
    limit : int
        Most bytes of all frames.

    Returns
    -------
    Message
        Arrays are writable, aligned and native. They lie over their frames, except where a frame is
        read-only, misaligned, big-endian, or shares its memory with the sender (inproc).

    Raises
    ------
    ProtocolError
        The frames are not a valid message.
    """
    if not 1 <= len(frames) <= MAX_FRAMES:
        raise ProtocolError(f"a message of {len(frames)} frames; expected 1 to {MAX_FRAMES}")
    header: Any
    header, *payload = frames
    fields = unpack_header(header)
    code = fields.pop(0) if fields else None
    form = _FORMS.get(code) if type(code) is int else None
    if form is None:
        raise ProtocolError(f"a message of kind {wire.shown(code)}; expected {min(_FORMS)} to {max(_FORMS)}")
    table = fields.pop() if form.name == "DATA" and fields else []
    if len(fields) != form.width:
        raise ProtocolError(f"{form.name} has {len(fields)} fields; expected {form.width}")
    try:
        form.check(fields)
    except Unfit as error:
        raise ProtocolError(f"{form.name}: {error}") from None
    arrays = wire.arrays_over(table, payload, max(limit - len(header), 0))
    return form.build(fields, arrays)


def _take_ready(message: Ready) -> list[Any]:
    session, window, window_bytes, cursor, version = message
    streams = [[base, list(beyond)] for base, beyond in cursor.streams]
    fields = [cursor.generation, cursor.epoch, streams, cursor.fingerprint, cursor.owner, cursor.nbytes]
    return [session, window, window_bytes, fields, version]


def _check_ready(fields: list[Any]) -> None:
    session, window, window_bytes, cursor, version = fields
    check_token("session", session)
    check_whole("window", window, 0, MAX_LIST)
    check_whole("window_bytes", window_bytes, 0)
    if len(check_list("cursor", cursor)) != 6:
        raise Unfit(f"cursor has {len(cursor)} fields; expected 6")
    generation, epoch, streams, fingerprint, owner, nbytes = cursor
    check_whole("generation", generation, 0)
    check_whole("epoch", epoch, 0)
    for progress in check_list("streams", streams):
        if len(check_list("a stream", progress)) != 2:
            raise Unfit(f"a stream is {wire.shown(progress)}; expected [base, beyond]")
        base, beyond = progress
        check_whole("base", base, 0)
        last = base
        for number in check_numbers("beyond", beyond, 0, _LARGEST):
            if number <= last:
                raise Unfit(
                    f"beyond has {number} after {last}; expected ascending numbers, all greater than the base"
                )
            last = number
    check_text("fingerprint", fingerprint)
    check_text("owner", owner)
    check_whole("nbytes", nbytes, 0)
    check_text("version", version)


def _build_ready(fields: list[Any], arrays: list[NDArray[Any]]) -> Ready:
    session, window, window_bytes, (generation, epoch, streams, *others), version = fields
    progress = tuple(Progress(base, tuple(beyond)) for base, beyond in streams)
    return Ready(session, window, window_bytes, Cursor(generation, epoch, progress, *others), version)


def _take_data(message: Data) -> list[Any]:
    session, link, lsn, key, world, fingerprint, item, suspect, definition = message
    return [session, link, lsn, *key, world, fingerprint, definition, int(item.kind), item.meta, suspect]


def _build_data(fields: list[Any], arrays: list[NDArray[Any]]) -> Data:
    session, link, lsn, epoch, seq, stream, world, fingerprint, definition, kind, meta, suspect = fields
    item = Item(_KINDS[kind], meta, arrays)
    return Data(session, link, lsn, Key(epoch, seq, stream), world, fingerprint, item, suspect, definition)


def _check_ping(fields: list[Any]) -> None:
    session, link, high, low, reports = fields
    if session != b"" or link != b"":
        check_token("session", session)
        check_token("link", link)
    check_whole("high", high, 0, _LARGEST - 1)
    check_whole("low", low, 1, high + 1)
    _check_reports([reports])


def _check_reports(fields: list[Any]) -> None:
    for report in check_list("reports", fields[0]):
        if type(report) is not dict:
            raise Unfit(f"a report is {wire.shown(report)}; expected a map")


def _check_hello(fields: list[Any]) -> None:
    for name, text in zip(Hello._fields, fields, strict=True):
        check_text(name, text)


def _take_state(message: State) -> list[Any]:
    link, upto, pending, missing, failed = message
    return [link, upto, list(pending), list(missing), [list(each) for each in failed]]


def _check_state(fields: list[Any]) -> None:
    link, upto, pending, missing, failed = fields
    check_token("link", link)
    check_whole("upto", upto, 0)
    check_numbers("pending", pending, 1, upto)
    check_numbers("missing", missing, 1, upto)
    for each in check_list("failed", failed):
        if len(check_list("a failure", each)) != 2:
            raise Unfit(f"a failure is {wire.shown(each)}; expected [lsn, meta]")
        check_whole("failed", each[0], 1, upto)
        check_list("meta", each[1])
    if len({*pending, *missing, *(each[0] for each in failed)}) != len(pending) + len(missing) + len(failed):
        raise Unfit("pending, missing and failed have a number twice; expected each once")


def _build_state(fields: list[Any], arrays: list[NDArray[Any]]) -> State:
    link, upto, pending, missing, failed = fields
    return State(link, upto, tuple(pending), tuple(missing), tuple((lsn, meta) for lsn, meta in failed))


def _check_bye(fields: list[Any]) -> None:
    check_text("reason", fields[0])


def _check_refusal(fields: list[Any]) -> None:
    code, text, number = fields
    if code not in _CODES:
        raise Unfit(f"code is {wire.shown(code)}; expected one of {', '.join(_CODES)}")
    check_text("text", text)
    check_whole("number", number, 0)


class _Form(NamedTuple):
    """The wire form of a kind of message.

    Attributes
    ----------
    name, code : str, int
        Its name in errors, and its number on the wire.
    width : int
        Number of its fields.
    take : function
        Returns the fields of a message, as msgpack packs them.
    check : function
        Raises Unfit where a field is invalid; the same for sender and receiver.
    build : function
        Returns the message of checked fields and arrays.
    """

    name: str
    code: int
    width: int
    take: Callable[[Any], list[Any]]
    check: Callable[[list[Any]], None]
    build: Callable[[list[Any], list[NDArray[Any]]], Message]


_FORM_OF: dict[type[Message], _Form] = {
    Ready: _Form("READY", 1, 5, _take_ready, _check_ready, _build_ready),
    # The table of arrays comes after its fields.
    Data: _Form("DATA", 2, 12, _take_data, partial(check_data, kinds=len(_KINDS)), _build_data),
    Ping: _Form("PING", 3, 5, list, _check_ping, lambda fields, arrays: Ping(*fields)),
    State: _Form("STATE", 4, 5, _take_state, _check_state, _build_state),
    Bye: _Form("BYE", 5, 1, list, _check_bye, lambda fields, arrays: Bye(*fields)),
    Refusal: _Form("ERROR", 6, 3, list, _check_refusal, lambda fields, arrays: Refusal(*fields)),
    # About machines, not about batches.
    Hello: _Form("HELLO", 16, 4, list, _check_hello, lambda fields, arrays: Hello(*fields)),
    Query: _Form("QUERY", 17, 0, list, lambda fields: None, lambda fields, arrays: Query()),
    Report: _Form("REPORT", 18, 1, list, _check_reports, lambda fields, arrays: Report(*fields)),
}
_FORMS = {form.code: form for form in _FORM_OF.values()}
