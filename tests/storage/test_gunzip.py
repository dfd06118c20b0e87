"""gunzipped: the contents of gzip files, in bounded memory, and the byte at which they are damaged."""

import gzip
import random
import re
import tracemalloc

import pytest

from highway.errors import TarError
from highway.storage.gunzip import PIECE, gunzipped

RNG = random.Random(0)
CONTENTS = RNG.randbytes(300_000) + b"x" * 3_000_000 + RNG.randbytes(1000)


def contents_of(file, request=PIECE):
    pieces = list(gunzipped(lambda at, size: file[at : at + size], len(file), "a", request))
    assert all(len(piece) <= PIECE for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize("request_bytes", [1000, 4096, PIECE])
def test_contents(request_bytes):
    assert contents_of(gzip.compress(CONTENTS), request_bytes) == CONTENTS
    assert contents_of(gzip.compress(b""), request_bytes) == b""
    members = b"".join(gzip.compress(CONTENTS[at : at + 700_000]) for at in range(0, len(CONTENTS), 700_000))
    assert contents_of(members, request_bytes) == CONTENTS
    assert contents_of(members + bytes(5000), request_bytes) == CONTENTS


def test_every_cut_and_every_damaged_byte_raises():
    short = RNG.randbytes(300) + b"y" * 300
    file = gzip.compress(short, mtime=0)
    for end in range(len(file)):
        with pytest.raises(TarError, match=r"a is cut off: it ends after \d+ bytes|a is empty"):
            contents_of(file[:end], 64)
    silent = {4, 5, 6, 7, 8, 9}  # time, and kind of compression and system, of the header (RFC 1952)
    for at in set(range(len(file))) - silent:
        bad = bytearray(file)
        bad[at] ^= 0x10
        if at == 3:
            # The flags: the contents are a text, which changes nothing.
            bad[at] ^= 0x11
            assert contents_of(bytes(bad), 64) == short
            continue
        with pytest.raises(TarError, match=r"at byte \d+ |is cut off|not compressed by gzip") as error:
            contents_of(bytes(bad), 64)
        place = re.search(r"wrong at byte (\d+) ", str(error.value))
        assert place is None or int(place[1]) >= at


def test_the_byte_is_the_first_that_cannot_be_right():
    file = bytearray(gzip.compress(CONTENTS))
    file[-8] ^= 1
    with pytest.raises(TarError, match=rf"wrong at byte {len(file) - 5} \(incorrect data check\)"):
        contents_of(bytes(file))
    with pytest.raises(TarError, match=rf"has more at byte {len(file)}, after its gzip data"):
        contents_of(gzip.compress(CONTENTS) + b"more")
    with pytest.raises(
        TarError, match=r"is not compressed by gzip, as its name says: it begins with b'plai'"
    ):
        contents_of(b"plain")


def test_memory_is_bounded():
    file = gzip.compress(bytes(1 << 26))
    total = 0
    tracemalloc.start()
    try:
        for piece in gunzipped(lambda at, size: file[at : at + size], len(file), "a"):
            total += len(piece)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 1 << 26
    assert most < 6 * PIECE
