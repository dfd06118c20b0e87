"""The encoding of the msgpack-numpy package: against the package, both ways, and what is never accepted."""

import gc
import math
import pickle
import weakref

import msgpack
import msgpack_numpy
import numpy as np
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from highway.errors import ContractError, MessageTooLargeError, ProtocolError
from highway.network.protocol.wire import decode_msgpack_numpy, encode_msgpack_numpy

DTYPES = [
    "bool",
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64", "complex64", "complex128"),
]


def pack(value, **options):
    return msgpack.packb(value, default=msgpack_numpy.encode, **options)


def encoded(*arrays):
    (frame,) = encode_msgpack_numpy(arrays)
    return frame


def check(found, array):
    """Whether the array came through: native, writable and aligned."""
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.dtype.isnative
    assert found.shape == array.shape
    assert found.flags.writeable
    assert found.flags.aligned
    assert found.tobytes() == array.astype(found.dtype).tobytes()
    found[...] = 0


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_both_ways(name, order):
    images = np.arange(60).reshape(3, 4, 5).astype(np.dtype(name).newbyteorder(order))
    labels = np.arange(3).astype(name)
    frame = encoded(images, labels)
    assert frame == pack([images, labels])
    for received, expected in zip(
        msgpack.unpackb(frame, object_hook=msgpack_numpy.decode), [images, labels], strict=True
    ):
        assert received.dtype == expected.dtype
        assert np.array_equal(received, expected)
    for wrap in (bytes, bytearray):
        (none, first), (nothing, second) = decode_msgpack_numpy(wrap(frame))
        assert none is None is nothing
        check(first, images)
        check(second, labels)


@pytest.mark.parametrize(
    "shape", [(), (0,), (1,), (0, 3), (2, 0, 3), (255,), (256,), (65535,), (65536,), (1,) * 32]
)
def test_shapes(shape):
    array = np.arange(math.prod(shape), dtype="u1").reshape(shape)
    assert encoded(array) == pack([array])
    ((_, found),) = decode_msgpack_numpy(encoded(array))
    check(found, array)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 300])
def test_numbers_of_arrays(count):
    arrays = [np.full(2, number, "i4") for number in range(count)]
    assert encoded(*arrays) == pack(arrays)
    found = decode_msgpack_numpy(encoded(*arrays))
    assert [array.tolist() for _, array in found] == [array.tolist() for array in arrays]


def test_arrays_that_are_not_contiguous():
    array = np.arange(24, dtype="i2").reshape(4, 6)
    for each in (array.T, array[::2], array[:, 1:], array[::-1]):
        assert encoded(each) == pack([each])
        ((_, found),) = decode_msgpack_numpy(encoded(each))
        check(found, each)


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.sampled_from(DTYPES), st.sampled_from("<>"), st.lists(st.integers(0, 5), max_size=3)),
        max_size=4,
    ),
    st.booleans(),
)
def test_any_batch(entries, use_bin_type):
    arrays = [
        np.arange(math.prod(shape)).astype(np.dtype(name).newbyteorder(order)).reshape(shape)
        for name, order, shape in entries
    ]
    assert encoded(*arrays) == pack(arrays)
    found = decode_msgpack_numpy(bytearray(pack(arrays, use_bin_type=use_bin_type)))
    for (name, each), array in zip(found, arrays, strict=True):
        assert name is None
        check(each, array)


@pytest.mark.parametrize("use_bin_type", [True, False])
def test_forms_of_a_message(use_bin_type):
    images, labels = np.arange(12.0).reshape(3, 4), np.arange(200, 203).astype("u1")
    for value, names in (
        (images, [None]),
        ([images, labels], [None, None]),
        ((images, labels), [None, None]),
        ({"images": images, "größe": labels}, ["images", "größe"]),
        ({b"images": images, b"nd": labels}, ["images", "nd"]),
        ({"nd": images}, ["nd"]),
        ([], []),
        ({}, []),
    ):
        found = decode_msgpack_numpy(pack(value, use_bin_type=use_bin_type))
        assert [name for name, _ in found] == names
        for (_, array), expected in zip(found, [images, labels], strict=False):
            check(array, images if len(names) == 1 else expected)


def test_floats_of_python_are_no_arrays():
    """Those of numpy with 64 bits are floats of Python too, and the package writes them as such."""
    with pytest.raises(ProtocolError, match="field 0 is no array"):
        decode_msgpack_numpy(pack([np.float64(1)]))


@pytest.mark.parametrize("name", [name for name in DTYPES if name != "float64"])
def test_numpy_scalars(name):
    scalar = np.ones(1, name)[0]
    for use_bin_type in (True, False):
        (_, first), (_, second) = decode_msgpack_numpy(pack([scalar, np.zeros(3)], use_bin_type=use_bin_type))
        check(first, np.asarray(scalar))
        assert second.shape == (3,)


def test_keys_may_be_texts_and_kind_may_be_missing():
    """As older versions of the package, and other languages, write it."""
    value = {"nd": True, "type": "<f4", "shape": [2], "data": np.array([1, 2], "f4").tobytes()}
    for each in (value, {key.encode(): item for key, item in value.items()}, {**value, "kind": ""}):
        ((_, array),) = decode_msgpack_numpy(msgpack.packb(each))
        assert array.tolist() == [1, 2]


def find(frame, array):
    """Offset of the array in the memory of the frame, or None where it is elsewhere."""
    memory = np.frombuffer(frame, "u1")
    return array.ctypes.data - memory.ctypes.data if np.shares_memory(array, memory) else None


class Kept(bytearray):
    """A buffer that says when it dies."""


def test_arrays_lie_over_the_frame_and_keep_it():
    frame = Kept(encoded(np.arange(100, dtype="u1"), np.arange(100, dtype="u1")))
    dies = weakref.ref(frame)
    (_, first), (_, second) = decode_msgpack_numpy(frame)
    assert frame[find(frame, first) :][:100] == frame[find(frame, second) :][:100] == bytes(range(100))
    del frame, first
    gc.collect()
    assert dies() is not None
    assert second.tolist() == list(range(100))
    del second
    gc.collect()
    assert dies() is None


def test_copied_only_where_misaligned_or_read_only():
    frame = encoded(np.arange(100, dtype="f8"))
    over = []
    for offset in range(8):
        memory = bytearray(offset) + bytearray(frame)
        ((_, array),) = decode_msgpack_numpy(memoryview(memory)[offset:])
        check(array.copy(), np.arange(100.0))
        assert array.flags.aligned
        over.append(find(memory, array) is not None)
    assert sum(over) == 1
    ((_, array),) = decode_msgpack_numpy(encoded(np.arange(100, dtype="u1")))
    array[:] = 0


def test_frame_that_its_sender_holds_too():
    """Between threads libzmq hands over the memory itself."""
    frame = encoded(np.arange(100_000, dtype="u1"))
    with zmq.Context() as context, context.socket(zmq.PAIR) as left, context.socket(zmq.PAIR) as right:
        left.SNDTIMEO = right.RCVTIMEO = 20_000
        left.bind("inproc://foreign")
        right.connect("inproc://foreign")
        left.send(frame, copy=False)
        ((_, array),) = decode_msgpack_numpy(right.recv(copy=False))
    check(array, np.arange(100_000, dtype="u1"))
    assert frame == encoded(np.arange(100_000, dtype="u1"))


@pytest.mark.parametrize("dtype", ["O", "f4,i4", "V3", "U2", "S2", "M8[s]", "longdouble"])
def test_what_is_not_sent(dtype):
    with pytest.raises(ContractError, match=r"field 1 has dtype .*; expected one of bool"):
        encode_msgpack_numpy([np.zeros(1), np.zeros(2, dtype)])


@pytest.mark.parametrize(
    "array", [np.array([1, None]), np.zeros(2, "f4,i4"), np.zeros(2, "V3"), np.zeros(2, "U2")]
)
def test_what_the_package_sends_and_highway_refuses(array):
    with pytest.raises(
        ProtocolError, match=r"(field|array) 1 (is structured|has dtype|holds Python objects)"
    ):
        decode_msgpack_numpy(pack([np.zeros(1), array]))


def test_frame_is_bounded():
    array = np.zeros(1000, "u1")
    size = len(encoded(array))
    assert encode_msgpack_numpy([array], frame_limit=size) == [encoded(array)]
    for limit in (size - 1, 1000, 999, 0):
        with pytest.raises(MessageTooLargeError, match=rf"frame of {limit}; use smaller batches"):
            encode_msgpack_numpy([array], frame_limit=limit)
    assert decode_msgpack_numpy(encoded(array), limit=size)
    with pytest.raises(ProtocolError, match=f"{size} bytes; expected {size - 1} or fewer"):
        decode_msgpack_numpy(encoded(array), limit=size - 1)


class Bomb:
    """Unpickled, it ends the test."""

    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


ARRAY = {b"nd": True, b"type": "<f4", b"kind": b"", b"shape": [2], b"data": bytes(8)}
REFUSED = [
    ({**ARRAY, b"kind": b"O", b"data": pickle.dumps(Bomb())}, "never unpickled"),
    ({**ARRAY, b"kind": "O", b"type": "|O"}, "never unpickled"),
    ({**ARRAY, b"type": "|O"}, "dtype '|O'"),
    ({**ARRAY, b"type": b"O"}, "dtype 'O'"),
    ({**ARRAY, b"kind": b"V", b"type": [["a", "<f8"]]}, "structured"),
    ({**ARRAY, b"type": [["a", "<f8"]]}, "structured"),
    ({**ARRAY, b"kind": b"V", b"type": "<f4"}, "structured"),
    ({**ARRAY, b"kind": None}, "structured"),
    ({**ARRAY, b"kind": b"x"}, "structured"),
    ({**ARRAY, b"type": "<f4,<f4", b"shape": [1]}, "dtype '<f4,<f4'"),
    ({**ARRAY, b"type": "float32"}, "dtype 'float32'"),
    ({**ARRAY, b"type": "<f4" + " " * 1000}, "dtype"),
    ({**ARRAY, b"type": b"\xff"}, "dtype"),
    ({**ARRAY, b"type": "<U2", b"shape": [1]}, "dtype"),
    ({**ARRAY, b"type": "<f16"}, "dtype"),
    ({**ARRAY, b"type": 5}, "lacks its dtype"),
    ({**ARRAY, b"data": 5}, "lacks its dtype or its data"),
    ({**ARRAY, b"data": [1.0, 2.0]}, "lacks its dtype or its data"),
    ({**ARRAY, b"data": bytes(7)}, "7 bytes; expected 8"),
    ({**ARRAY, b"data": bytes(9)}, "9 bytes; expected 8"),
    ({**ARRAY, b"shape": [-2]}, "shape"),
    ({**ARRAY, b"shape": [2.0]}, "shape"),
    ({**ARRAY, b"shape": [True, 2]}, "shape"),
    ({**ARRAY, b"shape": ["2"]}, "shape"),
    ({**ARRAY, b"shape": 2}, "lacks its shape"),
    ({**ARRAY, b"shape": [2**62, 2**62]}, "more than any memory"),
    ({**ARRAY, b"shape": [1] * 33}, "33 dimensions"),
    ({**ARRAY, b"nd": False}, "8 bytes; expected 4"),
    ({**ARRAY, b"nd": 1}, "no array"),
    ({b"nd": True}, "lacks its dtype"),
    ({b"nd": True, b"type": "<f4", b"data": b""}, "lacks its shape"),
    ({b"complex": True, b"data": "1j"}, "no array"),
    ({b"\xff": ARRAY}, "named b'.xff'; expected UTF-8"),
    ({"x" * 20_000: ARRAY}, "name of a field has 20000 bytes"),
    ({"images": {"inner": ARRAY}}, "no array"),
    ([ARRAY, 5], "field 1 is no array"),
    ([[ARRAY]], "field 0 is no array"),
    (5, "no array"),
    (None, "no array"),
    ("text", "no array"),
    ([None] * 70_000, "too many items"),
    ([[None] * 60_000] * 2, "too many objects"),
    (msgpack.Timestamp(1), "timestamp"),
    (msgpack.ExtType(5, b"x"), "extension"),
    ({1: ARRAY}, "key that is no text"),
]


@pytest.mark.parametrize(
    "value, reason", REFUSED, ids=[f"{n} {reason[:20]}" for n, (_, reason) in enumerate(REFUSED)]
)
def test_refused(value, reason):
    with pytest.raises(ProtocolError, match=reason.replace("|", r"\|")):
        decode_msgpack_numpy(msgpack.packb(value))


def test_refused_frames_of_the_package_itself():
    frame = pack([np.array([Bomb(), Bomb()], object)])
    with pytest.raises(ProtocolError, match="field 0 holds Python objects, which are never unpickled"):
        decode_msgpack_numpy(frame)


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_random_bytes(frame):
    try:
        decode_msgpack_numpy(frame)
    except ProtocolError as error:
        reason = str(error)
    else:
        return
    assert reason.isascii()


@pytest.mark.kernel
@settings(max_examples=500)
@given(st.data())
def test_damaged_frames(choices):
    arrays = [np.arange(6, dtype="f4").reshape(2, 3), np.zeros(3, ">i2")]
    frame = bytearray(pack({"a": arrays[0], "b": arrays[1]} if choices.draw(st.booleans()) else arrays))
    for _ in range(choices.draw(st.integers(1, 3))):
        where = choices.draw(st.integers(0, len(frame) - 1))
        match choices.draw(st.integers(0, 2)):
            case 0:
                frame[where] ^= 1 << choices.draw(st.integers(0, 7))
            case 1:
                frame[where] = choices.draw(st.integers(0, 255))
            case 2:
                del frame[max(where, 1) :]
    try:
        found = decode_msgpack_numpy(frame)
    except ProtocolError:
        return
    for _, array in found:
        array[...] = 0


def test_all_cuts():
    frame = encoded(np.arange(6, dtype="f4"), np.zeros((), ">i2"))
    for size in range(len(frame)):
        with pytest.raises(ProtocolError):
            decode_msgpack_numpy(frame[:size])
    with pytest.raises(ProtocolError, match="after its end"):
        decode_msgpack_numpy(frame + b"\0")
