"""Messages as frames and back: round trips, real sockets, limits, and whatever a hostile peer may send."""

import contextlib
import gc
import math
import struct
import weakref

import msgpack
import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from highway._core.wire import codec as kernel
from highway._core.wire import packing
from highway.errors import ArgumentError, ContractError, MessageTooLargeError, ProtocolError
from highway.network.protocol.messages import (
    Bye,
    Cursor,
    Data,
    Hello,
    Item,
    Key,
    Kind,
    Ping,
    Progress,
    Query,
    Ready,
    Refusal,
    Report,
    State,
)
from highway.network.protocol.wire import MAX_FRAMES, MAX_LIST, check, decode, encode

# Milliseconds that a socket waits before the test fails.
PATIENCE = 60_000
SESSION, LINK = b"0123456789abcdef", b"ABCDEFGHIJKLMNOP"
DTYPES = [
    "bool",
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64", "complex64", "complex128"),
]


def data(*arrays, meta=(), **changes):
    item = Item(Kind.BATCH, list(meta), list(arrays))
    return Data(SESSION, LINK, 7, Key(3, 9, 1), 2, "of the data", item)._replace(**changes)


def joined(frames):
    """Frames as a peer sees them: bytes of its own, which may be written to."""
    return [bytearray(np.ascontiguousarray(f).tobytes() if isinstance(f, np.ndarray) else f) for f in frames]


def through(message):
    return decode(joined(encode(message)))


def equal(left, right):
    """Whether two values are the same to the bit, types included; a NaN equals itself, a tuple is a list."""
    if isinstance(left, np.ndarray):
        return (
            isinstance(right, np.ndarray)
            and (left.dtype.newbyteorder("="), left.shape) == (right.dtype, right.shape)
            and left.astype(right.dtype).tobytes() == right.tobytes()
        )
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(map(equal, left.values(), right.values()))
    if isinstance(left, float):
        return type(right) is float and struct.pack("d", left) == struct.pack("d", right)
    return type(left) is type(right) and left == right


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from(
        [s * (1 << b) + d for b in (0, 5, 7, 8, 15, 16, 31, 32, 62) for d in (-1, 0, 1) for s in (1, -1)]
    ),
    st.floats(),
    st.text(),
    st.binary(),
)


def values(depth):
    if depth == 0:
        return leaves
    inner = values(depth - 1)
    return leaves | st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5)


@pytest.mark.kernel
@settings(max_examples=300)
@given(values(4))
def test_msgpack_is_what_the_package_writes_and_reads(value):
    packed = packing.pack(value)
    assert packed == msgpack.packb(value)
    assert equal(packing.unpack(packed), value)
    assert equal(msgpack.unpackb(packed), value)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 31, 32, 255, 256, 16384])
def test_every_form_of_lengths(size):
    for value in ("x" * size, b"x" * size, [None] * size, {f"{n:03x}": n for n in range(min(size, 5000))}):
        assert packing.pack(value) == msgpack.packb(value)
        assert packing.unpack(msgpack.packb(value)) == value


LONG_FORMS = {
    b"\xcc\x05": 5,
    b"\xcd\x00\x05": 5,
    b"\xce\x00\x00\x00\x05": 5,
    b"\xcf" + bytes(7) + b"\x05": 5,
    b"\xd0\x05": 5,
    b"\xd1\xff\xff": -1,
    b"\xd2\xff\xff\xff\xff": -1,
    b"\xd3" + b"\xff" * 8: -1,
    b"\xd3\x80" + bytes(7): -(2**63),
    b"\xd9\x01a": "a",
    b"\xda\x00\x01a": "a",
    b"\xdb\x00\x00\x00\x01a": "a",
    b"\xc5\x00\x01a": b"a",
    b"\xc6\x00\x00\x00\x01a": b"a",
    b"\xdc\x00\x01\x01": [1],
    b"\xdd\x00\x00\x00\x01\x01": [1],
    b"\xde\x00\x01\xa1a\x01": {"a": 1},
    b"\xdf\x00\x00\x00\x01\xa1a\x01": {"a": 1},
}


@pytest.mark.parametrize("packed", LONG_FORMS)
def test_longer_forms_are_understood(packed):
    assert equal(packing.unpack(packed), LONG_FORMS[packed])


def nested(depth):
    return [nested(depth - 1)] if depth > 1 else []


MALFORMED = {
    b"": "ends in the middle",
    b"\x92\x01": "ends in the middle",
    b"\xcd\x01": "ends in the middle",
    b"\xa2a": "ends in the middle",
    b"\xcb\x00\x00": "ends in the middle",
    b"\x81\xa1a": "ends in the middle",
    b"\xdc\xff\xff": "ends in the middle",
    b"\xde\x00\x02\xa1a\x01": "ends in the middle",
    b"\x01\x02": "continues after its end, at byte 1",
    b"\xd4\x05a": "extension",
    b"\xd8\x05" + bytes(16): "extension",
    b"\xc7\x01\x05a": "extension",
    b"\xc9\xff\xff\xff\xff\x05": "extension",
    msgpack.packb(msgpack.Timestamp(1)): "timestamp",
    b"\xca" + bytes(4): "float32",
    b"\xc1": "0xC1",
    b"\x81\x01\x01": "key that is no text",
    b"\x81\xc4\x01a\x01": "key that is no text",
    b"\x81\x90\x01": "key that is no text",
    b"\x82\xa1a\x01\xa1a\x02": "key 'a' twice",
    b"\xdb\xff\xff\xff\xff": "ends in the middle",
    b"\xc6\xff\xff\xff\xff": "ends in the middle",
    b"\xdd\xff\xff\xff\xff": "too many items",
    b"\xdf\xff\xff\xff\xff": "too many keys",
    msgpack.packb("a" * 16385): "too long",
    msgpack.packb(nested(9)): "nested deeper than 8",
    b"\x91" * 60_000: "nested deeper than 8",
    b"\x81\xa0" * 30_000: "nested deeper than 8",
    bytes(65537): "65537 bytes; expected 65536 or fewer",
}


@pytest.mark.parametrize("packed", MALFORMED, ids=lambda packed: packed[:8].hex() or "empty")
def test_malformed_msgpack(packed):
    with pytest.raises(ProtocolError, match=MALFORMED[packed]):
        packing.unpack(packed)


def test_depth_of_eight_is_allowed():
    for value in (nested(8), {"a": nested(7)}):
        assert packing.unpack(packing.pack(value)) == value


@given(st.binary(max_size=8))
def test_utf8_is_what_python_takes(text):
    packed = bytes([0xA0 + len(text)]) + text
    try:
        expected = text.decode()
    except UnicodeDecodeError:
        with pytest.raises(ProtocolError, match="UTF-8"):
            packing.unpack(packed)
    else:
        assert packing.unpack(packed) == expected


def test_every_lead_byte_of_utf8():
    """Long forms, surrogates, above U+10FFFF, cut: all pairs of the first two bytes, at three lengths."""
    for length in (1, 2, 3, 4):
        for first in range(0x80, 0x100):
            for second in range(0x7F, 0xC1) if length > 1 else [0]:
                text = bytes([first, second, 0x80, 0xBF][:length])
                try:
                    text.decode()
                    sound = True
                except UnicodeDecodeError:
                    sound = False
                try:
                    packing.unpack(bytes([0xA0 + length]) + text)
                    taken = True
                except ProtocolError:
                    taken = False
                assert taken == sound, text


@settings(max_examples=300)
@given(st.binary(max_size=64))
def test_random_bytes_as_msgpack(packed):
    """What is accepted is what the package reads."""
    try:
        value = packing.unpack(packed)
    except ProtocolError:
        return
    assert equal(msgpack.unpackb(packed), value)


CANNOT_SEND = {
    "set": ({1}, "a set; expected None, bool"),
    "numpy number": (np.int64(3), "a int64; expected"),
    "array": (np.zeros(3), "ndarray; expected .* arrays are sent beside"),
    "large": (2**64, "expected numbers from -2"),
    "very large": (2**100_000, "a number of 100001 bits; expected numbers from -2"),
    "small": (-(2**63) - 1, "expected numbers from -2"),
    "surrogate": ("\ud800", "lone surrogate"),
    "key": ({1: 2}, "keys that are texts"),
    "deep": (nested(9), "nested deeper than 8"),
}


@pytest.mark.parametrize("case", CANNOT_SEND)
def test_what_cannot_be_sent(case):
    value, reason = CANNOT_SEND[case]
    for each in (value, [value]):
        with pytest.raises(ContractError, match=reason):
            packing.pack(each)
    with pytest.raises(ContractError, match=reason):
        encode(data(meta=[value]))


@pytest.mark.parametrize(
    "value, text",
    [
        ("\x1b[2Jé", r"'\x1b[2J\xe9'"),
        (b"x" * 10**8, "b'" + "x" * 98 + "..."),
        ("\u2028" * 101, "'" + r"\u2028" * 16 + r"\u2" + "..."),
        ([0] * 1000, "[" + "0, " * 33 + "..."),
    ],
    ids=["control characters", "bytes", "text", "list"],
)
def test_what_errors_show_of_a_peer(value, text):
    assert kernel.shown(value) == text


def test_list_that_holds_itself():
    loop = []
    loop.append(loop)
    with pytest.raises(ContractError, match="nested deeper"):
        packing.pack(loop)


@pytest.mark.parametrize(
    "value", [["x" * 10_000] * 7, b"x" * 65534, [b"x" * 65000, *range(300, 500)], [1.5] * 8000]
)
def test_header_is_bounded(value):
    with pytest.raises(MessageTooLargeError, match="more than 65536 bytes"):
        packing.pack(value)
    for refuses in (encode, lambda message: check(message.item)):
        with pytest.raises(MessageTooLargeError, match="send what is large as an array"):
            refuses(data(meta=[value]))


def test_checked_item_has_room_for_any_key():
    """Whoever sends it finds nothing wrong with it any more."""
    extreme = {
        "lsn": 2**62,
        "key": Key(2**62, 2**62, MAX_LIST - 1),
        "world": MAX_LIST,
        "fingerprint": "f" * 500,
        "definition": "d" * 300,
    }
    largest = data(meta=[b"x" * 64_500], **extreme)
    check(largest.item)
    assert len(encode(largest)[0]) > 65_000
    with pytest.raises(MessageTooLargeError, match="send large data as an array"):
        check(data(meta=[b"x" * 64_520]).item)


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        ([np.zeros(2, "datetime64[s]")], ContractError),
        ([np.zeros(2, object)], ContractError),
        ([np.zeros(1, np.uint8)] * MAX_FRAMES, MessageTooLargeError),
        ([np.broadcast_to(np.uint8(0), (2**28 + 1,))], MessageTooLargeError),
    ],
)
def test_check_refuses_what_encode_refuses(arrays, error):
    with pytest.raises(error) as refused:
        encode(data(*arrays))
    with pytest.raises(error) as checked:
        check(data(*arrays).item)
    assert str(checked.value) == str(refused.value)


def test_header_of_64_kib_is_allowed():
    assert len(packing.pack(b"x" * 65533)) == 65536
    with pytest.raises(MessageTooLargeError, match="16385 bytes"):
        packing.pack("x" * 16385)


def test_buffers_are_let_go_after_errors():
    """A bytearray that is still looked at cannot grow."""
    for packed in [*MALFORMED, b"HWY\x02\x90", b"HWX\x01\x90"]:
        frame = bytearray(packed)
        for reader in (packing.unpack, packing.unpack_header, kernel.unpack_foreign):
            with contextlib.suppress(ProtocolError):
                reader(frame)
            frame.append(0)


whole = st.integers(0, 2**62)
token = st.binary(min_size=16, max_size=16)
texts = st.text(max_size=50)
lsns = st.sets(st.integers(1, 10_000), max_size=20)


@st.composite
def progress(draw):
    base = draw(st.integers(0, 2**61))
    return Progress(base, tuple(sorted(draw(st.sets(st.integers(base + 1, 2**62), max_size=8)))))


@st.composite
def arrays(draw):
    dtype = np.dtype(draw(st.sampled_from(DTYPES))).newbyteorder(draw(st.sampled_from("<>")))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    size = math.prod(shape) * dtype.itemsize
    array = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), "u1").copy()
    array = (array % 2).astype(bool) if dtype.kind == "b" else array.view(dtype)
    array = array.reshape(shape)
    return draw(st.sampled_from([array, array.T, array[::-1] if array.ndim else array]))


@st.composite
def datas(draw):
    world = draw(st.integers(1, MAX_LIST))
    key = Key(draw(whole), draw(whole), draw(st.integers(0, world - 1)))
    meta = draw(st.lists(values(3), max_size=4))
    item = Item(draw(st.sampled_from(Kind)), meta, draw(st.lists(arrays(), max_size=4)))
    return Data(
        draw(token),
        draw(token),
        draw(st.integers(1, 2**62)),
        key,
        world,
        draw(texts),
        item,
        draw(st.booleans()),
        draw(texts),
    )


@st.composite
def pings(draw):
    high = draw(st.integers(0, 2**62 - 1))
    known = draw(st.booleans())
    session, link = (draw(token), draw(token)) if known else (b"", b"")
    reports = draw(st.lists(st.dictionaries(texts, values(2), max_size=4), max_size=3))
    return Ping(session, link, high, draw(st.integers(1, high + 1)), reports)


@st.composite
def states(draw):
    pending, missing, failed = draw(lsns), draw(lsns), draw(lsns)
    missing -= pending
    failed -= pending | missing
    upto = draw(st.integers(max(pending | missing | failed, default=0), 2**62))
    metas = tuple((lsn, draw(st.lists(texts, max_size=4))) for lsn in failed)
    return State(draw(token), upto, tuple(pending), tuple(missing), metas)


MESSAGES = {
    Ready: st.builds(
        Ready,
        token,
        st.integers(0, MAX_LIST),
        whole,
        st.builds(Cursor, whole, whole, st.lists(progress(), max_size=4).map(tuple), texts, texts, whole),
        texts,
    ),
    Data: datas(),
    Ping: pings(),
    State: states(),
    Bye: st.builds(Bye, texts),
    Refusal: st.builds(Refusal, st.sampled_from(["superseded", "mismatch", "occupied"]), texts, whole),
    Hello: st.builds(Hello, texts, texts, texts),
    Query: st.builds(Query),
    Report: st.builds(Report, st.lists(st.dictionaries(texts, values(2), max_size=4), max_size=3)),
}


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_round_trip(kind):
    @given(MESSAGES[kind])
    def check(message):
        back = through(message)
        assert type(back) is kind
        assert equal(message, back)
        # Tuples and named tuples are what messages.py says.
        for was, found in zip(message, back, strict=True):
            assert type(was) is type(found)
        if kind is Data:
            assert isinstance(back.item.kind, Kind)
        if kind is Ready:
            assert all(type(each) is Progress for each in back.cursor.streams)
            assert all(type(each.beyond) is tuple for each in back.cursor.streams)

    check()


def test_first_byte_begins_no_message_of_msgpack_numpy():
    assert encode(Bye("")) == [b"HWY\x02\x92\x05\xa0"]
    # A small number: neither an array nor a map.
    assert msgpack.unpackb(b"H") == 0x48


def header(*fields):
    return b"HWY\x02" + msgpack.packb(fields)


READY = [1, SESSION, 8, 1 << 20, [1, 0, [[5, [7, 8]]], "f", "o", 9], "0.1"]
DATA = [2, SESSION, LINK, 1, 0, 0, 0, 1, "f", "d", 0, [], False, []]
PING = [3, SESSION, LINK, 5, 2, [{}]]
STATE = [4, LINK, 9, [1, 2], [3], [[4, ["ValueError", "text"]]]]
REFUSAL = [6, "mismatch", "text", 0]


@pytest.mark.parametrize("fields", [READY, DATA, PING, STATE, REFUSAL, [5, "reason"]])
def test_sound_headers(fields):
    assert encode(decode([header(*fields)]))[0] == header(*fields)


def changed(fields, *path_and_value):
    *path, last, value = path_and_value
    copy = msgpack.unpackb(msgpack.packb(fields))
    inner = copy
    for step in path:
        inner = inner[step]
    inner[last] = value
    return copy


BAD_FIELDS = [
    ([], "kind None"),
    ([0], "kind 0"),
    ([7, 1], "kind 7"),
    ([True, 1], "kind True"),
    (["BYE", 1], "kind 'BYE'"),
    ([[], 1], "kind"),
    ([5], "BYE has 0 fields; expected 1"),
    ([5, "a", "b"], "BYE has 2 fields; expected 1"),
    ([2], "DATA has 0 fields; expected 12"),
    (DATA[:-1], "DATA has 11 fields"),
    ([5, b"a"], "reason is b'a'; expected a text"),
    (changed(READY, 1, b"short"), "session"),
    (changed(READY, 1, b""), "session"),
    (changed(READY, 1, "0123456789abcdef"), "session"),
    (changed(READY, 2, -1), "window is -1"),
    (changed(READY, 2, 65537), "window is 65537"),
    (changed(READY, 2, 8.0), "window is 8.0"),
    (changed(READY, 3, True), "window_bytes is True"),
    (changed(READY, 4, {}), "cursor"),
    (changed(READY, 4, [1, 0, []]), "cursor has 3 fields"),
    (changed(READY, 4, 0, 2**62 + 1), "generation"),
    (changed(READY, 4, 1, None), "epoch"),
    (changed(READY, 4, 2, 5), "streams"),
    (changed(READY, 4, 2, [5]), "a stream"),
    (changed(READY, 4, 2, [[5]]), "a stream is"),
    (changed(READY, 4, 2, [[-5, []]]), "base is -5"),
    (changed(READY, 4, 2, [[5, [5]]]), "beyond has 5 after 5"),
    (changed(READY, 4, 2, [[5, [8, 7]]]), "beyond has 7 after 8"),
    (changed(READY, 4, 2, [[5, [8, 8]]]), "beyond has 8 after 8"),
    (changed(READY, 4, 2, [[5, ["8"]]]), "number in beyond"),
    (changed(READY, 4, 2, [[5, [2**63]]]), "number in beyond"),
    (changed(READY, 4, 3, None), "fingerprint"),
    (changed(READY, 4, 4, None), "owner"),
    (changed(READY, 4, 5, -1), "nbytes"),
    (changed(READY, 5, 1), "version"),
    (changed(DATA, 1, b""), "session"),
    (changed(DATA, 2, b"x" * 17), "link"),
    (changed(DATA, 3, 0), "lsn is 0"),
    (changed(DATA, 3, 2**64 - 1), "lsn"),
    (changed(DATA, 4, -1), "epoch is -1"),
    (changed(DATA, 5, 2**62 + 1), "seq"),
    (changed(DATA, 6, 1), "stream is 1; expected a whole number from 0 to 0"),
    (changed(DATA, 7, 0), "world is 0"),
    (changed(DATA, 7, 65537), "world"),
    (changed(DATA, 8, 3), "fingerprint"),
    (changed(DATA, 9, None), "definition"),
    (changed(DATA, 10, 5), "kind is 5"),
    (changed(DATA, 10, False), "kind is False"),
    (changed(DATA, 11, {}), "meta"),
    (changed(DATA, 12, 0), "suspect is 0"),
    (changed(DATA, 12, None), "suspect is None"),
    (changed(DATA, -1, None), "table None"),
    (changed(DATA, -1, [["|u1", 0]]), "0 frames with arrays"),
    (changed(PING, 1, b""), "session is b''"),
    (changed(PING, 2, b""), "link is b''"),
    (changed(PING, 3, -1), "high is -1"),
    (changed(PING, 4, 0), "low is 0"),
    (changed(PING, 4, 7), "low is 7; expected a whole number from 1 to 6"),
    (changed(PING, 5, {}), "reports"),
    (changed(PING, 5, [[]]), "a report is"),
    (changed(STATE, 1, b""), "link"),
    (changed(STATE, 2, -1), "upto"),
    (changed(STATE, 3, [0]), "number in pending is 0"),
    (changed(STATE, 4, [10]), "number in missing is 10; expected a whole number from 1 to 9"),
    (changed(STATE, 4, {"a": 1}), "missing"),
    (changed(STATE, 4, [2]), "a number twice"),
    (changed(STATE, 3, [1, 1]), "a number twice"),
    (changed(STATE, 5, {}), "failed"),
    (changed(STATE, 5, [4]), "a failure"),
    (changed(STATE, 5, [[4]]), "a failure is"),
    (changed(STATE, 5, [[10, []]]), "failed is 10; expected a whole number from 1 to 9"),
    (changed(STATE, 5, [[4, "text"]]), "meta"),
    (changed(STATE, 5, [[3, []]]), "a number twice"),
    (changed(STATE, 5, [[4, []], [4, []]]), "a number twice"),
    (changed(REFUSAL, 1, "other"), "code is 'other'"),
    (changed(REFUSAL, 1, []), "code is"),
    (changed(REFUSAL, 2, b"text"), "text"),
    (changed(REFUSAL, 3, -1), "number is -1"),
]


@pytest.mark.parametrize("fields, reason", BAD_FIELDS, ids=[reason for _, reason in BAD_FIELDS])
def test_bad_fields(fields, reason):
    with pytest.raises(ProtocolError, match=reason.replace("(", r"\(")):
        decode([header(*fields)])


@pytest.mark.parametrize(
    "message",
    [
        Bye(b"bytes"),
        Refusal("other", ""),
        Ready(b"", 8, 0, Cursor(0), ""),
        Ready(SESSION, 8, 0, Cursor(0, 0, (Progress(5, (5,)),)), ""),
        data(lsn=0),
        data(world=1),
        data(suspect=1),
        data(key=Key(np.int64(1), 0, 0)),
        Ping(b"", LINK, 0, 1, []),
        State(LINK, 5, (6,), ()),
    ],
)
def test_sender_finds_what_no_peer_would_take(message):
    with pytest.raises(ArgumentError, match="expected"):
        encode(message)


PREFIXES = {
    b"": "no message of Highway",
    b"HWY": "no message of Highway",
    b"hwy\x01\x90": "begins with b'hwy",
    b"\x91\x01": "expected b'HWY.x02'",
    b"HWY\x00\x90": "version 0 of the wire format, this Highway version 2",
    b"HWY\x03": "version 3 of the wire format, this Highway version 2",
    b"HWY\x02": "ends in the middle",
    b"HWY\x02\x80": "expected an array",
    b"HWY\x02\x90": "kind None",
    b"HWY\x02" + bytes(65533): "65537 bytes",
}


@pytest.mark.parametrize("frame", PREFIXES, ids=lambda frame: frame[:8].hex() or "empty")
def test_prefix(frame):
    with pytest.raises(ProtocolError, match=PREFIXES[frame]):
        decode([frame])


def table(*entries):
    return header(*changed(DATA, -1, list(entries)))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_in_both_byte_orders(name, order):
    native = np.arange(24).astype(name)
    array = native.astype(native.dtype.newbyteorder(order)).reshape(2, 3, 4)
    (frame,) = encode(data(array))[1:]
    assert frame.dtype.str == native.dtype.newbyteorder("<").str
    back = through(data(array)).item.arrays[0]
    assert back.dtype == native.dtype
    assert back.dtype.isnative
    assert np.array_equal(back, native.reshape(2, 3, 4))
    # A peer of the other byte order may send its own.
    received = decode([table([array.dtype.str, 2, 3, 4]), bytearray(array.tobytes())]).item.arrays[0]
    assert received.dtype.isnative
    assert np.array_equal(received, back)
    received[...] = 0


@pytest.mark.parametrize("character", "?bBhHiIlLqQefdFD")
def test_dtypes_that_have_two_names(character):
    array = np.ones(3, character)
    assert equal(array, through(data(array)).item.arrays[0].astype(character))


@pytest.mark.parametrize(
    "array",
    [
        np.array([1, "a"], object),
        np.zeros(2, "f4,i4"),
        np.zeros(2, "V4"),
        np.zeros(2, "U3"),
        np.zeros(2, "S3"),
        np.zeros(2, "M8[s]"),
        np.zeros(2, "m8[s]"),
        np.zeros(2, np.longdouble),
        np.zeros(2, np.clongdouble),
    ],
    ids=lambda array: array.dtype.kind,
)
def test_dtypes_that_do_not_travel(array):
    with pytest.raises(ContractError, match=r"field 1 has dtype .*; expected one of bool, int8"):
        encode(data(np.zeros(1), array))
    with pytest.raises(ProtocolError, match=r"array 0 has dtype .*; expected one of bool, int8"):
        decode([table([array.dtype.str, 2]), bytes(array.nbytes)])


def test_arrays_that_are_none():
    with pytest.raises(ContractError, match="field 0 is a list; expected an ndarray"):
        encode(data([1, 2]))
    with pytest.raises(ContractError, match="field 0 has 33 dimensions"):
        encode(data(np.zeros((1,) * 33)))
    assert through(data(np.zeros((1,) * 32))).item.arrays[0].ndim == 32


@pytest.mark.parametrize(
    "code",
    [
        "f4",
        "float32",
        "=f4",
        "|f4",
        "<f4 ",
        "<F4",
        "",
        "u1",
        "<u1",
        "<f4,<f4",
        "O",
        "|O",
        "|V4",
        "3<f4",
        "\0",
    ],
)
def test_dtype_codes_are_exact(code):
    with pytest.raises(ProtocolError, match="array 0 has dtype"):
        decode([table([code, 1]), bytes(4)])


BAD_TABLES = [
    (["|u1", -1], 0, r"shape \[-1\]"),
    (["|u1", 2.0], 2, "shape"),
    (["|u1", True], 1, "shape"),
    (["|u1", "2"], 2, "shape"),
    (["|u1", None], 0, "shape"),
    (["|u1", [2]], 2, "shape"),
    (["|u1", 2**63], 0, "shape"),
    (["|u1", 2**64 - 1], 0, "shape"),
    (["|u1", 2**32, 2**32], 0, "more than any memory"),
    (["|u1", 2**63 - 1, 2], 0, "more than any memory"),
    (["<f8", 2**61], 0, "more than any memory"),
    (["<f8", 2**60], 0, "more than any memory"),
    (["<f8", 2**59], 8, "8 bytes; expected 4611686018427387904"),
    (["|u1", 0, 2**62, 2**62], 0, "more than any memory"),
    (["|u1", 2**62, 2**62, 0], 0, "more than any memory"),
    (["|u1", *[2] * 33], 0, "33 dimensions"),
    (["|u1", 5], 4, "4 bytes; expected 5"),
    (["|u1", 5], 6, "6 bytes; expected 5"),
    (["<f4", 1], 0, "0 bytes; expected 4"),
    (["<f4"], 0, "0 bytes; expected 4"),
    (["<f4", 0], 1, "1 bytes; expected 0"),
    ([], 0, "described by"),
    ("|u1", 1, "described by"),
    ({"|u1": 1}, 1, "described by"),
    ([1, 2], 2, "described by"),
    ([b"|u1", 2], 2, "described by"),
    ([["|u1"], 2], 2, "described by"),
]


@pytest.mark.parametrize("entry, nbytes, reason", BAD_TABLES, ids=[str(case[0])[:40] for case in BAD_TABLES])
def test_bad_tables(entry, nbytes, reason):
    with pytest.raises(ProtocolError, match=reason):
        decode([table(entry), bytes(nbytes)])


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0, 2), (1, 1), (0, 2**60), (2**31, 0, 2**29)])
def test_no_dimensions_and_nothing_in_them(shape):
    back = decode([table(["<f4", *shape]), bytearray(4 * math.prod(shape))]).item.arrays[0]
    assert (back.shape, back.dtype) == (shape, np.float32)
    if math.prod(shape) or max(shape, default=0) < 10:
        array = np.full(shape, 2.5, "f4")
        assert equal(array, through(data(array)).item.arrays[0])


def test_what_is_sent_is_copied_only_where_it_must():
    array = np.arange(24, dtype="i4").reshape(4, 6)
    for sent, same in ((array, True), (array[1:], True), (array[:, 1:], False), (array.T, False)):
        (frame,) = encode(data(sent))[1:]
        assert np.shares_memory(frame, array) == same
        assert frame.flags.c_contiguous
        assert equal(sent, through(data(sent)).item.arrays[0])
    read_only = array.view()
    read_only.flags.writeable = False
    assert np.shares_memory(encode(data(read_only))[1], array)


class Kept(bytearray):
    """A buffer that says when it dies."""


def test_arrays_lie_over_their_frames_and_keep_them():
    frame = Kept(np.arange(100, dtype="f4").tobytes())
    dies = weakref.ref(frame)
    array = decode([table(["<f4", 10, 10]), frame]).item.arrays[0]
    array[0, 0] = 77
    assert struct.unpack_from("<f", frame) == (77,)
    with pytest.raises(BufferError):
        frame.append(0)
    view = array[2:4, 3]
    del frame, array
    gc.collect()
    assert dies() is not None
    assert view.tolist() == [23, 33]
    del view
    gc.collect()
    assert dies() is None


@pytest.mark.parametrize("offset", [1, 2, 3, 4, 5, 8])
def test_misaligned_frames_are_copied(offset):
    memory = bytearray(offset) + bytearray(np.arange(9, dtype="f8").tobytes())
    array = decode([table(["<f8", 9]), memoryview(memory)[offset:]]).item.arrays[0]
    assert array.flags.aligned
    assert array.flags.writeable
    assert array.tolist() == list(range(9))
    assert np.shares_memory(array, np.frombuffer(memory, "u1")) == (offset == 8)


def test_frames_that_may_not_be_written_to_are_copied():
    frame = np.arange(9, dtype="i4").tobytes()
    array = decode([table(["<i4", 9]), frame]).item.arrays[0]
    array[:] = -1
    assert np.frombuffer(frame, "i4").tolist() == list(range(9))


def test_number_of_frames():
    many = [np.zeros(1, "u1")] * 1024
    frames = encode(data(*many))
    assert len(frames) == MAX_FRAMES
    assert len(decode(frames).item.arrays) == 1024
    with pytest.raises(MessageTooLargeError, match="1025 arrays; expected 1024 or fewer"):
        encode(data(*many, many[0]))
    for count in (0, 1026):
        with pytest.raises(ProtocolError, match=f"{count} frames; expected 1 to 1025"):
            decode((frames * 2)[:count])
    for wrong in (frames[:-1], [*frames[:-1], b"", b""][:MAX_FRAMES], [encode(Bye(""))[0], b""]):
        with pytest.raises(ProtocolError):
            decode(wrong)


def test_bytes_are_bounded():
    message = data(np.zeros(1000, "u1"), np.zeros(3000, "u1"))
    size = len(encode(message)[0]) + 4000
    frames = encode(message, limit=size, frame_limit=3000)
    with pytest.raises(MessageTooLargeError, match=rf"{size} bytes; expected {size - 1} .* smaller batches"):
        encode(message, limit=size - 1)
    with pytest.raises(
        MessageTooLargeError, match=r"field 1 .* 3000 bytes; expected 2999 .* smaller batches"
    ):
        encode(message, frame_limit=2999)
    assert len(decode(frames, limit=size).item.arrays) == 2
    with pytest.raises(ProtocolError, match="with array 1, the message is 1 bytes larger than allowed"):
        decode(frames, limit=size - 1)
    with pytest.raises(ProtocolError, match="with array 0"):
        decode(frames, limit=10)


@pytest.fixture
def pair(tmp_path, request):
    """A DEALER that is connected to a ROUTER, over the transport that the test names."""
    address = {"ipc": f"ipc://{tmp_path}/s", "tcp": "tcp://127.0.0.1:*", "inproc": "inproc://wire"}
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router, context.socket(zmq.DEALER) as dealer:
        for socket in (router, dealer):
            socket.LINGER = 0
            socket.RCVTIMEO = socket.SNDTIMEO = PATIENCE
        router.bind(address[request.param])
        dealer.connect(router.LAST_ENDPOINT)
        yield request.param, dealer, router


@pytest.mark.parametrize("pair", ["ipc", "tcp", "inproc"], indirect=True)
def test_through_sockets(pair):
    transport, dealer, router = pair
    images = np.arange(300_000, dtype="u1").reshape(100, 30, 100)
    labels = np.arange(100)
    text = np.frombuffer(b"q" * 100_000, "u1")
    message = data(images, labels, text, np.zeros((0, 3)), np.array(2.5), images[::2], meta=["a"])
    dealer.send_multipart(encode(message), copy=False)
    frames = router.recv_multipart(copy=False)[1:]
    back = decode(frames)
    assert equal(message, back)
    lies_over = np.shares_memory(back.item.arrays[0], np.frombuffer(frames[1], "u1"))
    # Between threads of a process libzmq hands over the memory itself, which is still the sender's.
    assert lies_over == (transport != "inproc")
    expected = [array.copy() for array in message.item.arrays]
    del frames
    gc.collect()
    for array, was in zip(back.item.arrays, expected, strict=True):
        assert array.flags.writeable
        assert array.flags.aligned
        assert np.array_equal(array, was)
        array[...] = 0
    assert equal(message.item.arrays, expected)


def survives(frames):
    """Decode; what is accepted can be sent, and is then the same."""
    try:
        message = decode(frames)
    except ProtocolError as error:
        reason = str(error)
    else:
        assert equal(message, through(message))
        return
    assert reason.isascii()
    assert len(reason) < 1000


@pytest.mark.kernel
@settings(max_examples=500)
@given(st.lists(st.binary(max_size=64), min_size=1, max_size=3), st.booleans())
def test_random_frames(frames, prefixed):
    survives([b"HWY\x02" * prefixed + frames[0], *frames[1:]])


messages = st.one_of(*MESSAGES.values())


@pytest.mark.kernel
@settings(max_examples=300)
@given(messages, st.data())
def test_damaged_frames(message, choices):
    frames = joined(encode(message))
    for _ in range(choices.draw(st.integers(1, 3))):
        frame = frames[choices.draw(st.integers(0, len(frames) - 1))]
        if not frame:
            continue
        match choices.draw(st.integers(0, 3)):
            case 0:
                del frame[choices.draw(st.integers(0, len(frame) - 1)) :]
            case 1:
                frame[choices.draw(st.integers(0, len(frame) - 1))] ^= 1 << choices.draw(st.integers(0, 7))
            case 2:
                frame[choices.draw(st.integers(0, len(frame) - 1))] = choices.draw(st.integers(0, 255))
            case 3:
                frame += choices.draw(st.binary(max_size=9))
    survives(frames)


@pytest.mark.kernel
@settings(max_examples=500)
@given(messages, st.data())
def test_fields_of_another_kind(message, choices):
    """Sound msgpack, in which a field, at any depth, is something else."""
    head, *frames = joined(encode(message))
    fields = inner = msgpack.unpackb(head[4:])
    while True:
        where = choices.draw(st.integers(0, len(inner) - 1))
        if not isinstance(inner[where], list) or not inner[where] or choices.draw(st.booleans()):
            break
        inner = inner[where]
    inner[where] = choices.draw(values(2))
    survives([header(*fields), *frames])


def test_all_cuts_of_a_header():
    head, *frames = joined(encode(data(np.zeros((2, 3)), meta=[{"a": [1.5, None, b"x", -5]}])))
    for size in range(len(head)):
        with pytest.raises(ProtocolError):
            decode([head[:size], *frames])
