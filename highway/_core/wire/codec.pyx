"""Checks frames of msgpack, and decodes arrays over their received frames.

C code checks a whole buffer before any object is built, and the table of arrays before numpy uses a frame. For any
message of a peer, the only error is `ProtocolError`. The msgpack package packs and unpacks headers (`packing.py`).
"""

import numpy as np

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t, uintptr_t
from libc.string cimport memcmp

from highway.errors import ContractError, MessageTooLargeError, ProtocolError


cdef extern from "msgpack.h" nogil:
    enum: HW_MSGPACK_DEPTH
    enum:
        HW_MSGPACK_OK
        HW_MSGPACK_KEY
        HW_MSGPACK_DEEP
        HW_MSGPACK_LONG_STR
    enum:
        HW_MSGPACK_NIL
        HW_MSGPACK_BOOL
        HW_MSGPACK_INT
        HW_MSGPACK_UINT
        HW_MSGPACK_FLOAT
        HW_MSGPACK_STR
        HW_MSGPACK_BIN
        HW_MSGPACK_ARRAY

    ctypedef struct hw_msgpack_token:
        int kind
        int64_t negative
        uint64_t natural
        double real
        size_t length
        const uint8_t *data

    ctypedef struct hw_msgpack_limits:
        size_t array, map, str, bin
        size_t objects
        int raw

    int hw_msgpack_next(const uint8_t **at, const uint8_t *end, hw_msgpack_token *token)
    int hw_msgpack_check(const uint8_t *bytes, size_t size, const hw_msgpack_limits *limits, size_t *where)


cdef extern from "Python.h":
    size_t PY_SSIZE_T_MAX
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1


cdef enum:
    HEADER = 1 << 16
    PREFIX_BYTES = 4
    TEXT = 1 << 14
    DIMENSIONS = 32
    ZMQ_SHARED = 3
    SHOWN = 100  # maximum characters of a peer's data in an error
    LIST = 1 << 16
    FRAMES = 1025

MAGIC = b"HWY"
VERSION = 2
MAX_HEADER_BYTES = HEADER
MAX_TEXT_BYTES = TEXT
MAX_DEPTH = HW_MSGPACK_DEPTH

# In the order of enum hw_msgpack_status.
REASONS = (
    "",
    "ends in the middle of an object",
    "continues after its end",
    "has an extension or a timestamp, and neither is allowed",
    "has a float32, and floats have 64 bits",
    "has the byte 0xC1, which begins nothing",
    "has a map with a key that is no text",
    "has a text that is not UTF-8",
    f"is nested deeper than {HW_MSGPACK_DEPTH}",
    "has an array with too many items",
    "has a map with too many keys",
    "has a text that is too long",
    "has bytes that are too many",
    "has too many objects",
)

# Limits of a header. Its size bounds the rest; a text has its own limit.
cdef hw_msgpack_limits STRICT
STRICT.array = STRICT.map = STRICT.bin = STRICT.objects = HEADER
STRICT.str = TEXT
STRICT.raw = False

# Limits of a whole message of the msgpack-numpy package: the data of its arrays are texts of any size.
cdef hw_msgpack_limits FOREIGN
FOREIGN.array = FOREIGN.map = FOREIGN.objects = HEADER
FOREIGN.str = FOREIGN.bin = <size_t> -1
FOREIGN.raw = True

# The only dtypes that travel, by their characters in numpy: some sizes have two. No longdouble, whose size
# depends on the machine, and nothing that holds pointers.
ALLOWED = "bool, int8 to int64, uint8 to uint64, float16, float32, float64, complex64 and complex128"
CHARACTERS = "?bBhHiIlLqQefdFD"
# As sent: dtype to (code, dtype on the wire).
SENT = {}
# As received: code to (dtype of the frame, dtype of the array).
RECEIVED = {}


def fill_tables():
    for character in CHARACTERS:
        native = np.dtype(character)
        little, big = native.newbyteorder("<"), native.newbyteorder(">")
        for each in (little, big):
            SENT[each] = (little.str, little)
            # One object for both where they are equal: `is` tells them apart.
            RECEIVED.setdefault(each.str, (native if each == native else each, native))


fill_tables()


def shown(value):
    """Return a peer's data for an error message: ASCII, cut to `SHOWN` characters."""
    if isinstance(value, (str, bytes)) and len(value) > SHOWN:
        return ascii(value[:SHOWN])[:SHOWN] + "..."
    if isinstance(value, int) and value.bit_length() > SHOWN:
        return f"a number of {value.bit_length()} bits"
    text = ascii(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


# Fields of a message. Types are exact: True is not a number.

MAX_LIST = LIST
LARGEST = 1 << 62
MAX_FRAMES = FRAMES
MAX_FRAME_BYTES = 256 << 20


class Unfit(Exception):
    """A field is invalid: a mistake of the caller when sending, of the peer when receiving."""


def check_whole(str name, value, lowest, highest=LARGEST):
    """Raise `Unfit` unless a value is an int within limits."""
    if type(value) is not int or not lowest <= value <= highest:
        raise Unfit(f"{name} is {shown(value)}; expected a whole number from {lowest} to {highest}")


def check_text(str name, value):
    """Raise `Unfit` unless a value is a str; msgpack limits its length in bytes."""
    if type(value) is not str:
        raise Unfit(f"{name} is {shown(value)}; expected a text")


def check_token(str name, value):
    """Raise `Unfit` unless a value is 16 bytes."""
    if type(value) is not bytes or len(value) != 16:
        raise Unfit(f"{name} is {shown(value)}; expected 16 bytes")


def check_list(str name, value):
    """Return the value; raise `Unfit` unless it is a list within the length limit."""
    if type(value) is not list or len(value) > LIST:
        raise Unfit(f"{name} is {shown(value)}; expected a list of {LIST} or fewer")
    return value


def check_numbers(str name, value, lowest, highest):
    """Return the value; raise `Unfit` unless it is a list of int within the limits of value and length."""
    for number in check_list(name, value):
        check_whole(f"a number in {name}", number, lowest, highest)
    return value


def check_data(list fields not None, int kinds):
    """Raise `Unfit` unless the fields are those of a DATA message, whose item is one of so many kinds."""
    session, link, lsn, epoch, seq, stream, world, fingerprint, definition, kind, meta, suspect = fields
    check_token("session", session)
    check_token("link", link)
    check_whole("lsn", lsn, 1)
    check_whole("epoch", epoch, 0)
    check_whole("seq", seq, 0)
    check_whole("world", world, 1, LIST)
    check_whole("stream", stream, 0, world - 1)
    check_text("fingerprint", fingerprint)
    check_text("definition", definition)
    check_whole("kind", kind, 0, kinds - 1)
    check_list("meta", meta)
    if type(suspect) is not bool:
        raise Unfit(f"suspect is {shown(suspect)}; expected True or False")


PREFIX = MAGIC + bytes([VERSION])


def check_packed(bytes packed not None):
    """Raise `ContractError` or `MessageTooLargeError` if a peer would refuse a packed value."""
    check_sent(packed, 0)


def check_header(bytes header not None):
    """Raise as `check_packed` does, for a value after `PREFIX`."""
    check_sent(header, PREFIX_BYTES)


cdef int check_sent(bytes packed, Py_ssize_t skipped) except -1:
    cdef const uint8_t *memory = <const uint8_t *> PyBytes_AS_STRING(packed) + skipped
    cdef size_t size = PyBytes_GET_SIZE(packed) - skipped, where = 0
    cdef const uint8_t *at
    cdef hw_msgpack_token token
    cdef int status
    if size + skipped > HEADER:
        raise MessageTooLargeError(
            f"what a message says beside its arrays is more than {HEADER} bytes; expected that much or less, "
            "send what is large as an array"
        )
    status = hw_msgpack_check(memory, size, &STRICT, &where)
    if status == HW_MSGPACK_OK:
        return 0
    if status == HW_MSGPACK_LONG_STR:
        at = memory + where
        hw_msgpack_next(&at, memory + size, &token)
        raise MessageTooLargeError(
            f"cannot send a text of {token.length} bytes; expected {TEXT} or fewer, send it as an array of bytes"
        )
    if status == HW_MSGPACK_DEEP:
        raise ContractError(
            f"cannot send what is nested deeper than {HW_MSGPACK_DEPTH}, with the lists of the message itself"
        )
    if status == HW_MSGPACK_KEY:
        raise ContractError("cannot send a dict with other keys; expected keys that are texts")
    raise ContractError(f"cannot send a message that {REASONS[status]}")


def checked_value(frame):
    """Return a copy of the msgpack in a frame of one value.

    Raises
    ------
    ProtocolError
        The frame is not msgpack, is damaged, or exceeds a limit.
    """
    return read(frame, 0)


def checked_header(frame):
    """Return a copy of the msgpack after the prefix of a header.

    Raises
    ------
    ProtocolError
        As `checked_value` does; or the frame is not a header, or has another version.
    """
    return read(frame, PREFIX_BYTES)


cdef bytes read(frame, Py_ssize_t skipped):
    cdef Py_buffer view
    cdef bytes packed
    PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
    try:
        if view.len > HEADER:
            raise ProtocolError(f"the first frame has {view.len} bytes; expected {HEADER} or fewer")
        if skipped:
            check_prefix(<const uint8_t *> view.buf, view.len)
        # A copy, so that nobody changes it after the check.
        packed = PyBytes_FromStringAndSize(<const char *> view.buf + skipped, view.len - skipped)
    finally:
        PyBuffer_Release(&view)
    check_received(<const uint8_t *> PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed), &STRICT)
    return packed


cdef int check_received(const uint8_t *memory, size_t size, const hw_msgpack_limits *limits) except -1:
    cdef size_t where = 0
    cdef int status = hw_msgpack_check(memory, size, limits, &where)
    if status != HW_MSGPACK_OK:
        raise ProtocolError(f"the message {REASONS[status]}, at byte {where} of {size} bytes of msgpack")
    return 0


cdef int check_prefix(const uint8_t *memory, Py_ssize_t size) except -1:
    if size < PREFIX_BYTES or memcmp(memory, PyBytes_AS_STRING(MAGIC), PREFIX_BYTES - 1):
        begin = PyBytes_FromStringAndSize(<const char *> memory, min(size, <Py_ssize_t> 8))
        raise ProtocolError(
            f"no message of Highway: it begins with {shown(begin)}; expected {PREFIX!r}, is the peer something "
            "else?"
        )
    if memory[PREFIX_BYTES - 1] != PREFIX[PREFIX_BYTES - 1]:
        raise ProtocolError(
            f"the peer speaks version {memory[PREFIX_BYTES - 1]} of the wire format, this Highway version {VERSION}; "
            "install the same version of Highway on both machines"
        )
    return 0


cdef object build(const uint8_t **at, const uint8_t *begin, const uint8_t *end, view):
    """Return the object at `at[0]` of a checked buffer; texts and bytes are parts of its view, and keys are bytes."""
    cdef hw_msgpack_token token
    cdef size_t _i, start
    cdef list items
    cdef dict pairs
    # It cannot fail in a checked buffer; if the memory changes meanwhile, reads still stay inside it.
    if hw_msgpack_next(at, end, &token) != HW_MSGPACK_OK:
        raise ProtocolError("the message changed while it was read")
    if token.kind == HW_MSGPACK_UINT:
        return token.natural
    if token.kind == HW_MSGPACK_STR or token.kind == HW_MSGPACK_BIN:
        start = token.data - begin
        return view[start:start + token.length]
    if token.kind == HW_MSGPACK_ARRAY:
        items = []
        for _i in range(token.length):
            items.append(build(at, begin, end, view))
        return items
    if token.kind == HW_MSGPACK_NIL:
        return None
    if token.kind == HW_MSGPACK_BOOL:
        return token.natural != 0
    if token.kind == HW_MSGPACK_INT:
        return token.negative
    if token.kind == HW_MSGPACK_FLOAT:
        return token.real
    pairs = {}
    for _i in range(token.length):
        key = bytes(build(at, begin, end, view))
        if key in pairs:
            raise ProtocolError(f"the message has a map with the key {shown(key)} twice")
        pairs[key] = build(at, begin, end, view)
    return pairs


def unpack_foreign(frame):
    """Return a value packed by the msgpack package; texts may have any size and are not decoded.

    Parameters
    ----------
    frame : bytes-like

    Returns
    -------
    object
        Every str and bin is a memoryview over the frame, and every key of a dict is bytes.

    Raises
    ------
    ProtocolError
        The frame is not msgpack, is damaged, has an extension, is nested too deep, or has too many objects.
    """
    cdef Py_buffer view
    cdef const uint8_t *begin
    cdef const uint8_t *at
    PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
    try:
        begin = at = <const uint8_t *> view.buf
        check_received(begin, view.len, &FOREIGN)
        return build(&at, begin, begin + view.len, memoryview(frame).cast("B"))
    finally:
        PyBuffer_Release(&view)


def own(frame):
    """Return a received frame, copied if it shares memory with its sender.

    Threads of a process share memory (inproc) if the sender did not copy: writing would change its array.
    """
    # bytes have no properties; a zmq.Frame says whether it is shared.
    get = getattr(frame, "get", None)
    return bytearray(frame) if get is not None and get(ZMQ_SHARED) else frame


def check_array(Py_ssize_t number, array):
    """Return the code of the dtype of an array to send.

    Parameters
    ----------
    number : int
        Index of the field in the batch, for the error.
    array : ndarray

    Raises
    ------
    ContractError
        It is not an array, or its dtype or number of dimensions cannot be sent.
    """
    return sendable(number, array)[0]


cdef tuple sendable(Py_ssize_t number, array):
    if not isinstance(array, np.ndarray):
        raise ContractError(f"field {number} is a {type(array).__name__}; expected an ndarray")
    found = SENT.get(array.dtype)
    if found is None:
        raise ContractError(f"field {number} has dtype {array.dtype}; expected one of {ALLOWED}")
    if array.ndim > DIMENSIONS:
        raise ContractError(f"field {number} has {array.ndim} dimensions; expected {DIMENSIONS} or fewer")
    return found


def describe(arrays):
    """Return the header entries of arrays, and the frames that carry them.

    Parameters
    ----------
    arrays : sequence of ndarray

    Returns
    -------
    table : list of list
        For each array the code of its dtype and its shape: `["<f4", 2, 3]`.
    frames : list of ndarray
        C-contiguous and little-endian: the arrays themselves if they already are, otherwise copies.

    Raises
    ------
    ContractError
        As `check_array` does.
    MessageTooLargeError
        Too many arrays for a message.
    """
    cdef list table = [], frames = []
    if len(arrays) >= FRAMES:
        raise MessageTooLargeError(
            f"a batch has {len(arrays)} arrays; expected {FRAMES - 1} or fewer, join some of them"
        )
    for number, array in enumerate(arrays):
        code, dtype = sendable(number, array)
        if (array.dtype is not dtype and array.dtype != dtype) or not array.flags.c_contiguous:
            array = np.array(array, dtype, order="C")
        table.append([code, *array.shape])
        frames.append(array)
    return table, frames


def check_sizes(list frames not None, size_t limit, size_t frame_limit):
    """Raise `MessageTooLargeError` if a frame, or all frames together, exceed the limits of a peer."""
    cdef size_t size, total = 0
    cdef Py_ssize_t number
    for number in range(len(frames)):
        frame = frames[number]
        size = PyBytes_GET_SIZE(frame) if isinstance(frame, bytes) else frame.nbytes
        total += size
        if size > frame_limit:
            what = f"field {number - 1}" if number else "the header"
            raise MessageTooLargeError(
                f"{what} of a batch has {size} bytes; expected {frame_limit} or fewer, use smaller batches"
            )
    if total > limit:
        raise MessageTooLargeError(
            f"a batch has {total} bytes; expected {limit} or fewer in one message, use smaller batches"
        )


cdef size_t product(Py_ssize_t number, list entry, size_t itemsize) except? 0:
    """Return the bytes of an array; raise ProtocolError for an invalid shape or a size that numpy cannot hold."""
    cdef size_t most = PY_SSIZE_T_MAX, nbytes = itemsize
    cdef bint empty = False
    cdef Py_ssize_t i
    cdef long long extent
    cdef int overflow = 0
    for i in range(1, len(entry)):
        extent = -1
        if type(entry[i]) is int:
            extent = PyLong_AsLongLongAndOverflow(entry[i], &overflow)
        if extent < 0 or overflow:
            raise ProtocolError(
                f"array {number} has shape {shown(entry[1:])}; expected whole numbers from 0 to 2**63 - 1"
            )
        if extent == 0:
            empty = True
        elif <size_t> extent > most // nbytes:
            raise ProtocolError(f"array {number} has shape {shown(entry[1:])}, more than any memory holds")
        else:
            nbytes *= <size_t> extent
    return 0 if empty else nbytes


cdef class Plan:
    """A checked frame, and how to make its array."""

    cdef object frame
    cdef object dtype
    cdef object native
    cdef tuple shape
    cdef bint empty
    cdef bint copied


cdef Plan checked(Py_ssize_t number, entry, frame, size_t *left):
    cdef Py_buffer view
    cdef Plan plan
    cdef size_t nbytes, size
    if type(entry) is not list or not entry or type(entry[0]) is not str:
        raise ProtocolError(f"array {number} is described by {shown(entry)}; expected a dtype and its shape")
    found = RECEIVED.get(entry[0])
    if found is None:
        raise ProtocolError(f"array {number} has dtype {shown(entry[0])}; expected one of {ALLOWED}")
    if len(entry) - 1 > DIMENSIONS:
        raise ProtocolError(f"array {number} has {len(entry) - 1} dimensions; expected {DIMENSIONS} or fewer")
    plan = Plan()
    plan.frame = frame = own(frame)
    plan.dtype, plan.native = found
    plan.shape = tuple(entry[1:])
    nbytes = product(number, entry, plan.dtype.itemsize)
    PyObject_GetBuffer(frame, &view, PyBUF_SIMPLE)
    size = view.len
    # Read-only memory has another owner.
    plan.copied = (
        view.readonly or plan.dtype is not plan.native or <uintptr_t> view.buf % <size_t> plan.native.alignment
    )
    PyBuffer_Release(&view)
    if size != nbytes:
        raise ProtocolError(
            f"array {number} has {size} bytes; expected {nbytes} for dtype {entry[0]} and shape {shown(entry[1:])}"
        )
    if size > left[0]:
        raise ProtocolError(f"with array {number}, the message is {size - left[0]} bytes larger than allowed")
    left[0] -= size
    plan.empty = size == 0
    return plan


def arrays_over(table, frames, size_t limit):
    """Writable, aligned arrays of native byte order over the frames that carry them.

    Parameters
    ----------
    table : list of list
        As `describe` returns it; its contents are not trusted. Codes of big-endian dtypes are valid too.
    frames : sequence of bytes-like
        One for each array. A frame that is writable, aligned, native and not shared with its sender is not copied, and
        lives as long as the array over it.
    limit : int
        Maximum bytes of all frames.

    Returns
    -------
    list of ndarray

    Raises
    ------
    ProtocolError
        The table is invalid, or does not describe the frames.
    """
    cdef list plans = [], arrays = []
    cdef Plan plan
    cdef size_t left = limit
    if type(table) is not list or len(table) != len(frames):
        raise ProtocolError(f"{len(frames)} frames with arrays came with the table {shown(table)}; expected one each")
    for number, entry in enumerate(table):
        plans.append(checked(number, entry, frames[number], &left))
    for plan in plans:
        if plan.empty:
            arrays.append(np.empty(plan.shape, plan.native))
            continue
        # frombuffer holds the buffer as long as the array lives; ndarray(buffer=...) would release it.
        array = np.frombuffer(plan.frame, plan.dtype).reshape(plan.shape)
        arrays.append(array.astype(plan.native) if plan.copied else array)
    return arrays
