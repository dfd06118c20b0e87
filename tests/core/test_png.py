"""The decoder of PNGs against PIL: every kind of PNG to the bit, and of damaged ones none that PIL refuses."""

import itertools
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import rasters
from decoding import by_other_picture, decode_into, decoded, resident, resized
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import photograph
from repository import ROOT
from stated_orientations import exif_data, xmp_data

from highway._core.jpeg import codec as jpeg
from highway._core.pixels import resample

pytestmark = pytest.mark.skipif(
    jpeg.library_versions()["PNG"] is None, reason="the core was compiled without libdeflate"
)

KINDS = [
    (color, bits)
    for color, all_bits in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items()
    for bits in all_bits
]
EVERY_FILTER = (4, 0, 3, 1, 2, 4, 4, 3, 3, 1, 0, 2)


@pytest.fixture
def decoder():
    decoder = jpeg.BatchDecoder()
    yield decoder
    decoder.close()


def draw_values(seed, height, width, color, bits):
    return np.random.default_rng(seed).integers(0, 1 << bits, (height, width, rasters.PNG_SAMPLES[color]))


def draw_palette(color, count=256):
    return np.random.default_rng(count).integers(0, 256, (count, 3)) if color == 3 else None


def check(decoder, contents, **options):
    """The decoder decodes the file, and gives what PIL gives."""
    found = decoded(decoder, contents, **options)
    assert not isinstance(found, int), decoder.message(0)
    expected = by_other_picture(contents, **options)
    assert expected is not None
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("color", "bits"), KINDS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 40),
    width=st.integers(1, 70),
    interlaced=st.booleans(),
    gray=st.booleans(),
    filters=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    parts=st.integers(1, 5),
    colors=st.integers(1, 256),
)
def test_every_kind_is_what_pil_decodes(
    color, bits, seed, height, width, interlaced, gray, filters, parts, colors
):
    values = draw_values(seed, height, width, color, bits)
    palette = draw_palette(color, min(colors, 1 << bits))
    contents = rasters.png(
        values, bits, color, palette=palette, interlaced=interlaced, filters=filters, parts=parts
    )
    check(jpeg.BatchDecoder(), contents, gray=gray)


@pytest.mark.parametrize(("color", "bits"), KINDS)
def test_every_variant_of_the_kernels_gives_the_same_bits(decoder, simd_variant, color, bits):
    for width in (*range(1, 20), 63, 64, 65, 200):
        values = draw_values(width, 24, width, color, bits)
        contents = rasters.png(values, bits, color, palette=draw_palette(color), filters=EVERY_FILTER)
        check(decoder, contents)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("gray", [False, True])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_windows_are_resampled_as_those_of_other_formats(interlaced, orientation, gray, data):
    values = np.asarray(photograph(37, 53, 4))
    contents = rasters.png(
        values, 8, 2, interlaced=interlaced, filters=EVERY_FILTER, before=[exif_chunk_of(orientation)]
    )
    whole = by_other_picture(contents, gray=gray)
    height, width = whole.shape[:2]
    x0, y0 = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    part = data.draw(st.sampled_from([0.0, 0.25, 0.7]))
    window = (x0 + part, y0 + part / 2, x1 - part / 4, y1)
    size = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    mirrored = data.draw(st.booleans()), data.draw(st.booleans())
    found = decoded(jpeg.BatchDecoder(), contents, gray=gray, window=window, size=size, mirrored=mirrored)
    np.testing.assert_array_equal(found, resized(whole, window, size, mirrored))


def exif_chunk_of(orientation):
    return b"eXIf", exif_data(3, (orientation,))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_numbers_without_a_color_are_what_pil_makes_of_them(decoder, bits):
    values = draw_values(3, 20, 31, 3, bits)
    for count in {1, 1 << bits - 1, (1 << bits) - 1} - {0}:
        contents = rasters.png(values, bits, 3, palette=draw_palette(3, count))
        check(decoder, contents)


SMALL = draw_values(5, 9, 11, 2, 8)
ICC = (b"iCCP", b"profile\0\0" + zlib.compress(b"no profile"))


@pytest.mark.parametrize(
    "chunk",
    [
        (b"tRNS", bytes(6)),
        (b"gAMA", (45455).to_bytes(4, "big")),
        (b"cHRM", bytes(32)),
        (b"sBIT", b"\5\5\5"),
        (b"bKGD", bytes(6)),
        (b"pHYs", bytes(9)),
        (b"tEXt", b"Comment\0" + bytes(100)),
        (b"acTL", bytes([0, 0, 0, 2, 0, 0, 0, 0])),
        (b"prIv", b"?"),
        ICC,
    ],
)
@pytest.mark.parametrize("place", ["before", "behind"])
def test_chunks_beside_the_pixels_change_nothing(decoder, chunk, place):
    check(decoder, rasters.png(SMALL, 8, 2, **{place: [chunk] * 2}))


def test_a_palette_for_quantizing_changes_nothing(decoder):
    check(decoder, rasters.png(SMALL, 8, 2, palette=[[1, 2, 3]]))


STREAM = zlib.compress(rasters.png_lines(SMALL, 8))


@pytest.mark.parametrize(
    ("contents", "taken"),
    {
        "bytes after the stream": (rasters.png(SMALL, 8, 2, data=STREAM + b"more"), True),
        "no compression": (
            rasters.png(SMALL, 8, 2, data=zlib.compress(rasters.png_lines(SMALL, 8), 0)),
            True,
        ),
        "bytes after the end": (rasters.png(SMALL, 8, 2) + b"more", True),
        "a chunk between pixels": (
            rasters.png(SMALL, 8, 2, data=STREAM[:20], behind=[(b"tEXt", b"a\0b"), (b"IDAT", STREAM[20:])]),
            True,
        ),
        "more rows": (
            rasters.png(SMALL, 8, 2, data=zlib.compress(rasters.png_lines(SMALL, 8) + bytes(34))),
            False,
        ),
        "a row less": (
            rasters.png(SMALL, 8, 2, data=zlib.compress(rasters.png_lines(SMALL, 8)[:-34])),
            False,
        ),
        "half a row less": (
            rasters.png(SMALL, 8, 2, data=zlib.compress(rasters.png_lines(SMALL, 8)[:-9])),
            False,
        ),
        "a wrong checksum of the data": (
            rasters.png(SMALL, 8, 2, data=STREAM[:-1] + bytes([STREAM[-1] ^ 1])),
            False,
        ),
        "an unknown filter": (
            rasters.png(SMALL, 8, 2, data=zlib.compress(b"\5" + rasters.png_lines(SMALL, 8)[1:])),
            False,
        ),
        "no palette": (rasters.png(SMALL[:, :, :1], 8, 3), False),
        "half a color": (rasters.png(SMALL[:, :, :1], 8, 3, before=[(b"PLTE", bytes(4))]), False),
        "two palettes": (
            rasters.png(SMALL[:, :, :1], 8, 3, palette=[[1, 2, 3]], before=[(b"PLTE", bytes(3))]),
            False,
        ),
        "a late palette": (rasters.png(SMALL[:, :, :1], 8, 3, behind=[(b"PLTE", bytes(3))]), False),
        "an unknown critical chunk": (rasters.png(SMALL, 8, 2, before=[(b"ABCD", b"")]), False),
        "no pixels": (rasters.png(SMALL, 8, 2, data=b"\0")[:33] + rasters.png_chunk(b"IEND", b""), False),
        "pixels without bytes": (
            rasters.png(SMALL, 8, 2, data=b"\0")[:33]
            + rasters.png_chunk(b"IDAT", b"") * 2
            + rasters.png_chunk(b"IEND", b""),
            False,
        ),
        "no end": (rasters.png(SMALL, 8, 2)[:-12], False),
    }.values(),
)
def test_what_is_taken_and_what_is_left_to_pil(decoder, contents, taken):
    found = decoded(decoder, contents)
    if taken:
        np.testing.assert_array_equal(found, SMALL)
        np.testing.assert_array_equal(found, by_other_picture(contents))
    else:
        assert isinstance(found, int) and found == jpeg.REFUSED
        assert decoder.message(0)


@pytest.mark.parametrize("at", [16, 20, 24, 25, 26, 27, 28, 29])
def test_headers_that_are_not_valid_are_left_to_pil(decoder, at):
    for value in (0, 3, 5, 7, 32, 255):
        contents = bytearray(rasters.png(SMALL, 8, 2))
        contents[at] ^= value or 1
        assert decoded(decoder, bytes(contents)) == jpeg.REFUSED


def test_chunks_that_count_are_checked(decoder):
    contents = rasters.png(SMALL[:, :, :1], 8, 3, palette=draw_palette(3))
    for name, taken in ((b"PLTE", False), (b"IDAT", True)):
        at = contents.index(name) - 4
        end = at + 8 + int.from_bytes(contents[at : at + 4], "big")
        changed = bytearray(contents)
        changed[end] ^= 1
        # PIL does not check those of the pixels, whose stream has its own checksum.
        assert (by_other_picture(bytes(changed)) is not None) == taken
        assert isinstance(decoded(decoder, bytes(changed)), int) != taken


def test_metadata_that_is_compressed_is_left_to_pil(decoder):
    xmp = b"XML:com.adobe.xmp\0"
    for chunk in (
        (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n2\n4d4d\n")),
        (b"iTXt", xmp + b"\1\0\0\0" + zlib.compress(xmp_data(6))),
        (b"zTXt", xmp + b"\0" + zlib.compress(xmp_data(6))),
    ):
        for place in ("before", "behind"):
            contents = rasters.png(SMALL, 8, 2, **{place: [chunk]})
            assert decoded(decoder, contents) == jpeg.NOT_JPEG
            # Without orientation, nobody needs it.
            np.testing.assert_array_equal(decoded(decoder, contents, oriented=False), SMALL)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(("color", "bits"), [(0, 1), (2, 8), (3, 4), (6, 16)])
def test_of_damaged_files_none_is_taken_that_pil_refuses(interlaced, color, bits):
    values = draw_values(8, 7, 9, color, bits)
    whole = rasters.png(
        values,
        bits,
        color,
        palette=draw_palette(color, 1 << bits if bits < 8 else 256),
        interlaced=interlaced,
        filters=EVERY_FILTER,
        parts=2,
        before=[exif_chunk_of(6)],
    )
    cut = [whole[:length] for length in range(len(whole))]
    flipped = [
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
        for at in range(len(whole))
        for bit in (0, 3, 7)
    ]
    decoder = jpeg.BatchDecoder(max_pixels=10_000)
    taken = 0
    for contents in (*cut, *flipped):
        found = decoded(decoder, contents)
        if isinstance(found, int):
            assert found in (jpeg.REFUSED, jpeg.NOT_JPEG, jpeg.BAD_FILE)
        else:
            taken += 1
            np.testing.assert_array_equal(found, by_other_picture(contents))
    # Those whose damage is in a checksum of the pixels, or in the metadata.
    assert 0 < taken < len(flipped) / 3


def test_a_header_alone_costs_no_memory():
    """A size that the data cannot fill is refused before anything is allocated."""
    contents = rasters.png(np.zeros((1, 1, 3), int), 8, 2)
    head = contents[12:16] + (30_000).to_bytes(4, "big") * 2 + contents[24:29]
    contents = contents[:12] + head + zlib.crc32(head).to_bytes(4, "big") + contents[33:]
    decoder = jpeg.BatchDecoder(max_pixels=10**9)
    assert decoded(decoder, contents, window=(0, 0, 1, 1), size=(1, 1)) == jpeg.REFUSED
    assert "too little data" in decoder.message(0)


@pytest.mark.once  # sanitizers keep what was freed
@pytest.mark.parametrize("kind", ["sound", "refused"])
def test_the_memory_of_a_large_picture_is_not_kept(kind):
    """It has 144 MB."""
    side = 12_000
    rows = bytearray((side + 1) * side)
    if kind == "refused":
        # No filter has this number.
        rows[-side - 1] = 9
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = {b"IHDR": head, b"IDAT": zlib.compress(rows, 1), b"IEND": b""}
    contents = b"\x89PNG\r\n\x1a\n" + b"".join(itertools.starmap(rasters.png_chunk, chunks.items()))
    del rows
    decoder = jpeg.BatchDecoder(max_pixels=10**9)
    before = resident()
    found = decoded(decoder, contents, gray=True, window=(0, 0, 8, 8), size=(8, 8))
    assert isinstance(found, int) == (kind == "refused")
    assert resident() - before < 70 << 20
    decoder.close()


def test_the_fuzz_program_finds_nothing():
    answer = subprocess.run(
        [sys.executable, ROOT / "tools" / "fuzz_pictures.py", "--files", "60", "--seed", "3"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "'PNG decoded'" in answer.stdout and "'WEBP refused'" in answer.stdout


def test_max_pixels_is_checked_in_the_header():
    decoder = jpeg.BatchDecoder(max_pixels=98)
    assert decoded(decoder, rasters.png(SMALL, 8, 2)) == jpeg.BAD_FILE
    assert decoder.message(0) == "has 9 x 11 pixels, allowed are 98 in total (max_pixels)"


def bytes_read():
    """Bytes that this process has read so far."""
    with open("/proc/self/io") as file:
        return int(file.readline().split()[1])


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="the system does not count what is read")
def test_a_picture_over_the_limit_is_not_read_to_its_end(tmp_path):
    """Also if its orientation, which may follow the pixels, is wanted: the file is mostly a hole."""
    path = tmp_path / "large.png"
    path.write_bytes(rasters.png(SMALL, 8, 2))
    os.truncate(path, 64 << 20)
    decoder = jpeg.BatchDecoder(max_pixels=98)
    before = bytes_read()
    ((status, *_),) = decoder.read([os.fsencode(path)])
    assert bytes_read() - before < 1 << 20
    assert status == jpeg.BAD_FILE
    assert decoder.message(0) == "has 9 x 11 pixels, allowed are 98 in total (max_pixels)"


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_file_in_memory_that_changes_is_noticed(interlaced, orientation):
    """Another size than its header had when it was read."""
    options = {"interlaced": interlaced, "before": [exif_chunk_of(orientation)]}
    large = rasters.png(draw_values(1, 90, 110, 2, 8), 8, 2, **options)
    small = rasters.png(SMALL, 8, 2, **options)
    contents = bytearray(large)
    decoder = jpeg.BatchDecoder()
    ((status, height, width),) = decoder.read_contents([memoryview(contents)])
    assert status == jpeg.OK
    contents[: len(small)] = small
    out = np.zeros((1, height, width, 3), np.uint8)
    window, target = [(0, 0, width, height)], [(0, 0, width, height)]
    bilinear = resample.FILTERS.index("bilinear")
    (status,) = decode_into(decoder, [0], window, target, bilinear, True, [0], out)
    assert status == jpeg.BAD_FILE
    assert decoder.message(0) == "was changed while it was read"
