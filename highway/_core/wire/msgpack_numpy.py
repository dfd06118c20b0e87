"""The one-frame encoding of the msgpack-numpy package, for peers without Highway.

Highway never imports the package itself: it passes received data to pickle and to `numpy.dtype`, so that a peer can run
arbitrary code. This module refuses object and structured arrays, and every dtype that Highway does not send. Written
for version 0.4.8 of the package, with msgpack 1.x.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from highway._core.wire import codec as wire
from highway._core.wire.packing import pack
from highway.errors import MessageTooLargeError, ProtocolError

if TYPE_CHECKING:
    import zmq
    from typing_extensions import Buffer

__all__ = ["decode_msgpack_numpy", "encode_msgpack_numpy"]

# A map of five keys, which are bin; the values of the first and the third never change.
_TYPE = b"\x85\xc4\x02nd\xc3\xc4\x04type"
_SHAPE = b"\xc4\x04kind\xc4\x00\xc4\x05shape"
_DATA = b"\xc4\x04data"


def _bin_head(size: int) -> bytes:
    if size < 1 << 8:
        return struct.pack(">BB", 0xC4, size)
    return struct.pack(">BH", 0xC5, size) if size < 1 << 16 else struct.pack(">BI", 0xC6, size)


def encode_msgpack_numpy(
    arrays: Sequence[NDArray[Any]], *, frame_limit: int = wire.MAX_FRAME_BYTES
) -> list[bytes]:
    """Encode a list of arrays as `msgpack.packb(list(arrays), default=msgpack_numpy.encode)` does.

    Parameters
    ----------
    arrays : sequence of ndarray
    frame_limit : int
        Maximum bytes of the frame.

    Returns
    -------
    list of bytes
        One frame.

    Raises
    ------
    ContractError
        A dtype or a number of dimensions that cannot be sent; the error has the index of the field.
    MessageTooLargeError

    Examples
    --------
    >>> frame = encode_msgpack_numpy([np.array([1, 2], "uint8"), np.array(2.5)])[0]
    >>> decode_msgpack_numpy(frame)
    [(None, array([1, 2], dtype=uint8)), (None, array(2.5))]
    """
    nbytes = 0
    pieces: list[Any] = [msgpack.Packer().pack_array_header(len(arrays))]
    for number, array in enumerate(arrays):
        wire.check_array(number, array)
        nbytes += array.nbytes
        if nbytes > frame_limit:
            break
        # Byte order is unchanged; order="C" copies only if necessary, and keeps arrays without dimensions.
        array = np.asarray(array, order="C")
        pieces += [_TYPE, pack(array.dtype.str), _SHAPE, pack(array.shape), _DATA]
        pieces += [_bin_head(array.nbytes), array]
    size = nbytes if nbytes > frame_limit else sum(memoryview(piece).nbytes for piece in pieces)
    if size > frame_limit:
        raise MessageTooLargeError(
            f"a batch of {size} bytes or more does not fit into one frame of {frame_limit}; use smaller batches"
        )
    return [b"".join(pieces)]


def decode_msgpack_numpy(
    frame: Buffer | zmq.Frame, *, limit: int = 1 << 30
) -> list[tuple[str | None, NDArray[Any]]]:
    """Decode the arrays of a frame from a peer with the msgpack-numpy package.

    Parameters
    ----------
    frame : bytes-like
        A list of arrays, one array, or a map of names to arrays. A numpy scalar counts as an array without
        dimensions. Keys and texts may be str as well as bin.
    limit : int
        Maximum bytes of the frame.

    Returns
    -------
    list of (name, ndarray)
        The name is None except in a map. Writable and native; copied only if the frame is read-only or shared with its
        sender (inproc), or the array is misaligned or big-endian.

    Raises
    ------
    ProtocolError
        Any other content, including object and structured arrays.
    """
    memory = memoryview(wire.own(frame))
    size = memory.nbytes
    if size > limit:
        raise ProtocolError(f"the message has {size} bytes; expected {limit} or fewer")
    value = wire.unpack_foreign(memory)
    found: list[tuple[str | None, Any]]
    if isinstance(value, list):
        found = [(None, each) for each in value]
    elif isinstance(value, dict) and not _is_array(value):
        found = [(_name(key), each) for key, each in value.items()]
    else:
        found = [(None, value)]
    described = [_described(number, each) for number, (_, each) in enumerate(found)]
    arrays = wire.arrays_over([table for table, _ in described], [data for _, data in described], limit)
    return [(name, array) for (name, _), array in zip(found, arrays, strict=True)]


def _is_array(value: object) -> bool:
    """Whether a map is an array or a scalar: a map of names may have a field `nd` too."""
    return isinstance(value, dict) and isinstance(value.get(b"nd"), bool)


def _name(key: bytes) -> str:
    if len(key) > wire.MAX_TEXT_BYTES:
        raise ProtocolError(
            f"the name of a field has {len(key)} bytes; expected {wire.MAX_TEXT_BYTES} or fewer"
        )
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise ProtocolError(f"a field is named {wire.shown(key)}; expected UTF-8") from None


def _described(number: int, value: Any) -> tuple[list[Any], memoryview]:
    """Return an entry of the table of arrays, and the data."""
    if not _is_array(value):
        raise ProtocolError(
            f"field {number} is no array in the encoding of msgpack-numpy; expected only those"
        )
    kind = value.get(b"kind", b"")
    if kind == b"O":
        raise ProtocolError(
            f"field {number} holds Python objects, which are never unpickled; expected numbers"
        )
    code, data = value.get(b"type"), value.get(b"data")
    if kind != b"" or isinstance(code, list):
        raise ProtocolError(f"field {number} is structured; expected one of {wire.ALLOWED}")
    if not isinstance(code, memoryview) or not isinstance(data, memoryview):
        raise ProtocolError(f"field {number} lacks its dtype or its data")
    shape = value.get(b"shape") if value[b"nd"] else []
    if not isinstance(shape, list):
        raise ProtocolError(f"field {number} lacks its shape")
    return [bytes(code[:16]).decode("latin-1"), *shape], data
