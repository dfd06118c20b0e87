"""Records where they lie: tables of LevelDB in memory, spans of bytes, and whether these are records."""

import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from highway._core.pixels import geometry, values
from highway._core.records import checksum, span_windows, spans
from highway._core.records.spans import Spans
from highway._core.records.tables import Tables
from highway.batch import Batch
from highway.store.records import Schema

# Spans


def test_spans_keep_their_bytes():
    found = Spans([b"abc", None, b"", memoryview(b"xyz")])
    assert len(found) == 4 and found.missing() == [1] and found[1] is None
    views = [found[number] for number in (0, 2, 3)]
    taken = found.take(np.array([3, 3, 0]))
    del found
    assert [bytes(view) for view in views] == [b"abc", b"", b"xyz"]
    assert all(view.readonly for view in views)
    assert [bytes(taken[number]) for number in range(3)] == [b"xyz", b"xyz", b"abc"]


def test_spans_refuse_what_they_cannot_keep():
    with pytest.raises((ValueError, BufferError)):
        Spans([bytearray(3)])
    found = Spans([b"abc", None])
    for number in (0, 2, -1):
        with pytest.raises(ValueError, match="is not free"):
            found.put(number, b"x")
    for number in (2, -1):
        with pytest.raises(IndexError):
            found[number]
        with pytest.raises(IndexError):
            found.take(np.array([number]))


def test_texts_of_spans():
    found = Spans([b"abcdef", b"xy"])
    assert found.texts(np.array([2, 2]), np.array([3, 0])) == [b"cde", b""]
    assert [bytes(part) for part in found.parts(np.array([2, 2]), np.array([3, 0]))] == [b"cde", b""]
    for at, sizes in (
        ([0, 0], [7, 0]),
        ([-1, 0], [1, 0]),
        ([0, 3], [0, 0]),
        ([0], [0]),
        ([2**63 - 1, 0], [2, 0]),
    ):
        for what in (found.texts, found.parts):
            with pytest.raises(ValueError, match=r"spans\."):
                what(np.array(at), np.array(sizes))


def test_rows_of_an_array():
    array = np.arange(12, dtype=np.uint8).reshape(4, 3)
    found = spans.spans_of_rows(array, np.array([3, 0]))
    assert [bytes(found[number]) for number in range(2)] == [b"\x09\x0a\x0b", b"\x00\x01\x02"]
    for row in (4, -1):
        with pytest.raises(ValueError, match=r"spans\.spans_of_rows"):
            spans.spans_of_rows(array, np.array([row]))


@pytest.mark.parametrize("count", [0, 1, 65])
def test_bytes_are_placed_in_their_rows(count):
    rng = np.random.default_rng(count)
    given = [rng.bytes(20) for _ in range(count)]
    at, rows = rng.integers(0, 18, count), rng.permutation(count + 3)[:count]
    out = np.zeros((count + 3, 3), np.uint8)
    spans.copy_rows(Spans(given), at, out, rows)
    for value, begin, row in zip(given, at, rows, strict=True):
        assert out[row].tobytes() == value[begin : begin + 3]
    assert not out[np.setdiff1d(np.arange(count + 3), rows)].any()


def test_bytes_are_placed_only_where_they_fit():
    out = np.zeros((2, 3), np.uint8)
    for value, at, row in (
        *((b"abcdef", at, 0) for at in (4, 7, -1, 2**63 - 1)),
        *((b"abcdef", 0, row) for row in (2, -1, -(2**63))),
        (b"ab", 0, 0),
        (None, 0, 0),
    ):
        with pytest.raises(ValueError, match="expected"):
            spans.copy_rows(Spans([b"xyz", value]), np.array([0, at]), out, np.array([1, row]))
    with pytest.raises(ValueError, match="2 spans"):
        spans.copy_rows(Spans([b"xyz", b"xyz"]), np.array([0]), out, np.array([0, 1]))
    assert not out.any()
    spans.copy_rows(Spans([b"xyz"]), np.array([3]), np.zeros((1, 0), np.uint8), np.array([0]))


PLACES = np.array([[1, 2, 0, 0], [-1, 3, 1, 0], [4, -2, 1, 1]])
FILL = np.array([7, 8, 9], np.uint8)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 9, 11, 3), np.uint8)


def test_windows_of_spans(simd_variant, images):
    expected = np.empty((3, 5, 6, 3), np.uint8)
    geometry.windows(images, PLACES, FILL, expected)
    found = np.empty((4, 5, 6, 3), np.uint8)
    given = Spans([b"  " + image.tobytes() for image in images])
    at, rows = np.full(3, 2), np.array([3, 0, 1])
    span_windows.copy(given, at, (9, 11, 3), PLACES, FILL, found, rows)
    np.testing.assert_array_equal(found[rows], expected)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_numbers_of_windows_of_spans(simd_variant, images, planar, dtype):
    scale, bias = np.array([0.1, 0.2, 0.3], np.float32), np.array([1, 2, 3], np.float32)
    shape = (3, 3, 5, 6) if planar else (3, 5, 6, 3)
    expected, found = np.empty(shape, dtype), np.empty(shape, dtype)
    values.normalize_windows(images, PLACES, FILL, scale, bias, planar, expected)
    given = Spans([image.tobytes() for image in images])
    nothing, rows = np.zeros(3, np.int64), np.arange(3)
    span_windows.normalize(given, nothing, (9, 11, 3), PLACES, FILL, scale, bias, planar, found, rows)
    np.testing.assert_array_equal(found, expected)


def test_windows_that_are_not_there_are_refused(images):
    given = Spans([image.tobytes() for image in images])
    nothing, rows = np.zeros(3, np.int64), np.arange(3)
    out = np.zeros((3, 5, 6, 3), np.uint8)
    for change in (
        {"at": np.array([0, 1, 0])},
        {"at": np.array([0, -1, 0])},
        {"shape": (9, 12, 3)},
        {"shape": (2**40, 2**40, 3)},
        {"shape": (-9, 11, 3)},
        {"shape": (9, 11, 1)},
        {"places": PLACES[:2]},
        {"fill": FILL[:1]},
        {"rows": np.array([0, 1, 3])},
    ):
        arguments = {
            "at": nothing,
            "shape": (9, 11, 3),
            "places": PLACES,
            "fill": FILL,
            "out": out,
            "rows": rows,
        } | change
        with pytest.raises((ValueError, OverflowError)):
            span_windows.copy(given, *arguments.values())
    assert not out.any()


# Records


SCHEMA_BATCH = Batch(
    {
        "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "files": np.array([b"a whole file", b""], object),
        "boxes": np.arange(12, dtype=np.float32).reshape(3, 4),
    },
    keys=["one", "two\udcff"],
    offsets=[0, 2, 3],
    ragged=["boxes"],
)


def test_records_are_what_was_written(simd_variant):
    schema = Schema.of(SCHEMA_BATCH, "test")
    written = schema.records(SCHEMA_BATCH, 40, [0, 1])
    found = schema.check(Spans([*written, None]), np.array([40, 41, 42]))
    assert found.rows.tolist() == [0, 1] and [str(error) for error in found.errors.values()] == ["it is gone"]
    assert found.keys() == SCHEMA_BATCH.keys and found.counts().tolist() == [2, 1]
    np.testing.assert_array_equal(found.view(1, 0)[0], SCHEMA_BATCH["images"][1])
    assert [bytes(file) for file in found.files(1)] == [b"a whole file", b""]
    np.testing.assert_array_equal(found.array(0), SCHEMA_BATCH["images"])
    np.testing.assert_array_equal(found.view(0, 2), SCHEMA_BATCH["boxes"][:2])


def with_checksum(record):
    from highway._core.records.checksum import crc32c

    return record[:4] + crc32c(record[8:], 0).to_bytes(4, "little") + record[8:]


def test_hostile_records_are_refused(simd_variant):
    """With a checksum that is right: nothing is read that is not there, and nothing wrong is found sound."""
    schema = Schema.of(SCHEMA_BATCH, "test")
    (sound,) = schema.records(SCHEMA_BATCH, 0, [0])
    drawn = random.Random(1)
    refused = 0
    for _ in range(3000):
        changed = bytearray(sound)
        kind = drawn.randrange(3)
        if kind == 0:
            del changed[drawn.randrange(8, len(changed)) :]
        elif kind == 1:
            changed += drawn.randbytes(drawn.randrange(1, 40))
        else:
            at = drawn.randrange(8, 32) if drawn.random() < 0.5 else drawn.randrange(8, len(changed))
            changed[at] = drawn.choice((0, 255, 128, drawn.randrange(256)))
        found = schema.check(Spans([with_checksum(bytes(changed))]), np.array([0]))
        refused += bool(found.errors)
        if not found.errors:
            assert len(changed) == len(sound)
            found.keys(), found.files(1), found.array(0), [found.view(0, column) for column in (0, 2)]
    assert refused > 2000
    for bad, message in (
        (b"HWR", "begins with"),
        (sound[:-1] + b"\0", "checksum"),
        (with_checksum(sound[:8] + bytes([9]) + sound[9:]), "number 9"),
        (with_checksum(sound[:36] + b"\xff" + sound[37:]), "columns are not"),
        (with_checksum(sound + b"\0"), "bytes; expected"),
    ):
        (error,) = schema.check(Spans([bad]), np.array([0])).errors.values()
        assert message in str(error)


# Tables

plyvel = pytest.importorskip(
    "plyvel", reason="plyvel is not installed; it has no wheels for Python 3.13 and later"
)


def key(number):
    return struct.pack(">Q", number)


def made(path, contents, **options):
    """A LevelDB whose contents lie in tables."""
    settings = {"create_if_missing": True, "compression": None, "write_buffer_size": 1 << 20} | options
    with plyvel.DB(str(path), **settings) as db:
        for name, value in contents:
            db.put(name, value)
    # What was in the log goes into a table when it is opened.
    with plyvel.DB(str(path), compression=settings["compression"]):
        pass
    return path


def tables_in(path):
    return [os.fsencode(file) for file in path.iterdir() if file.suffix in (".ldb", ".sst")]


@pytest.fixture(scope="module")
def level(tmp_path_factory):
    """Several tables with records of all sizes, some written twice, and what else a store holds."""
    drawn = random.Random(0)
    contents = {key(number): drawn.randbytes(drawn.choice((0, 10, 5000, 60_000))) for number in range(300)}
    order = [(name, b"older") for name in drawn.sample([*contents], 20)]
    order += [(b"\0", b"mark"), *((key(number) + b"i", b"list") for number in range(0, 300, 10))]
    order += contents.items()
    path = made(tmp_path_factory.mktemp("level") / "db", order)
    assert len(tables_in(path)) > 3
    return path, contents


def test_every_record_is_found(level):
    path, contents = level
    tables = Tables(tables_in(path))
    numbers = np.random.default_rng(0).permutation(300)
    found = tables.find(numbers)
    del tables
    assert found.missing() == []
    for place, number in enumerate(numbers.tolist()):
        assert found[place] == contents[key(number)], number


def test_nothing_is_found_where_nothing_is(level):
    path, _ = level
    found = Tables(tables_in(path)).find(np.array([300, 2**62, 2**63 - 1, -1, -(2**63)]))
    assert found.missing() == [0, 1, 2, 3, 4]
    assert Tables([]).find(np.array([0])).missing() == [0]


def test_deleted_records_are_left_to_leveldb(tmp_path):
    path = made(tmp_path / "db", [(key(number), b"x") for number in range(3)])
    with plyvel.DB(str(path)) as db:
        db.delete(key(1))
    with plyvel.DB(str(path), compression=None):
        pass
    assert Tables(tables_in(path)).find(np.arange(3)).missing() == [1]


def test_packed_tables_are_left_to_leveldb(tmp_path):
    contents = [(key(number), bytes(5000)) for number in range(100)]
    path = made(tmp_path / "db", contents, compression="snappy")
    try:
        missing = Tables(tables_in(path)).find(np.arange(100)).missing()
    except ValueError:
        return
    assert missing == [*range(100)]


def test_what_cannot_be_mapped_is_refused(tmp_path):
    for name, contents in (("empty.ldb", b""), ("short.ldb", bytes(47)), ("zeros.ldb", bytes(4096))):
        (tmp_path / name).write_bytes(contents)
    for name in ("empty.ldb", "short.ldb", "zeros.ldb", "gone.ldb"):
        with pytest.raises((OSError, ValueError)):
            Tables([os.fsencode(tmp_path / name)])


def varint(contents, at):
    number = shift = 0
    while True:
        byte = contents[at]
        number, shift, at = number | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return number, at


def index_of(table):
    """Where the index of a table is, and its size."""
    at = len(table) - 48
    for _ in range(2):
        _, at = varint(table, at)
    offset, at = varint(table, at)
    return offset, varint(table, at)[0]


def masked(crc):
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_hostile_indices_lead_nowhere_else(tmp_path, level):
    """With a checksum that is right: whatever an index says, what is found lies inside of the table."""
    path, contents = level
    table = Path(os.fsdecode(min(tables_in(path), key=os.path.getsize))).read_bytes()
    offset, size = index_of(table)
    drawn = random.Random(5)
    opened = 0
    for turn in range(600):
        changed = bytearray(table)
        # At first none: what stands in for LevelDB's checksum is right.
        for _ in range(drawn.choice((1, 1, 3, 30)) if turn else 0):
            end = offset + size - 1
            at = drawn.randrange(offset, end) if drawn.random() < 0.7 else end - drawn.randrange(12)
            changed[at] = drawn.choice((0, 1, 127, 128, 255, drawn.randrange(256)))
        crc = masked(checksum.crc32c(bytes(changed[offset : offset + size + 1]), 0))
        assert turn or changed[offset + size + 1 : offset + size + 5] == crc.to_bytes(4, "little")
        changed[offset + size + 1 : offset + size + 5] = crc.to_bytes(4, "little")
        file = tmp_path / "changed.ldb"
        file.write_bytes(changed)
        try:
            found = Tables([os.fsencode(file)]).find(np.arange(300))
        except ValueError:
            continue
        opened += 1
        for number in set(range(300)) - set(found.missing()):
            assert len(bytes(found[number])) <= len(table)
            assert turn or found[number] in (contents[key(number)], b"older")
    assert opened > 100


def test_damaged_tables_lead_nowhere_else(tmp_path, level):
    """Whatever is flipped or cut, what is found lies inside of the table."""
    path, _ = level
    drawn = random.Random(3)
    files = [file for file in tables_in(path) if os.path.getsize(file) < 200_000] or tables_in(path)[:1]
    contents = [Path(os.fsdecode(file)).read_bytes() for file in files]
    opened = 0
    for _ in range(400):
        changed = bytearray(drawn.choice(contents))
        if drawn.random() < 0.2:
            del changed[drawn.randrange(len(changed)) :]
        else:
            for _ in range(drawn.choice((1, 1, 30))):
                at = drawn.randrange(len(changed)) if drawn.random() < 0.5 else -1 - drawn.randrange(300)
                changed[at] = drawn.choice((0, 255, 127, 128, drawn.randrange(256)))
        file = tmp_path / "changed.ldb"
        file.write_bytes(changed)
        try:
            found = Tables([os.fsencode(file)]).find(np.arange(300))
        except (OSError, ValueError):
            continue
        opened += 1
        for number in range(300):
            if found[number] is not None:
                bytes(found[number])
    assert opened > 20
