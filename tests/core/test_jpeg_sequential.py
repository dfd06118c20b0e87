"""Our own decoder of sequential JPEGs: to the bit what libjpeg gives, in every variant, and never more lenient."""

import io
import os

import numpy as np
import pytest
from decoding import decode_into
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import jpeg_bytes, photograph, segment
from PIL import Image

from highway._core import simd
from highway._core.jpeg import codec as jpeg
from highway._core.pixels import resample

NEAREST = resample.FILTERS.index("nearest")
SAMPLINGS = ("4:4:4", "4:2:2", "4:2:0", "gray")


@pytest.fixture(params=simd.VARIANTS)
def variant(request):
    before = simd.in_use()
    if simd.use(request.param) != request.param:
        simd.use(before)
        pytest.skip(f"this CPU has no {request.param}")
    yield request.param
    simd.use(before)


@pytest.fixture
def decoder():
    decoder = jpeg.BatchDecoder()
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("sequential") / "picture.jpg"


def encoded(picture, sampling, **options):
    if sampling == "gray":
        return jpeg_bytes(picture.convert("L"), **options)
    return jpeg_bytes(picture, subsampling=sampling, **options)


def noise(height, width, seed=0):
    """What no photograph is like: every coefficient large."""
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.choice([0, 255], (height, width, 3)).astype(np.uint8))


def decode(decoder, place, contents, window=None, channels=3):
    """(status, pixels or message) of a window that is not resampled; whole numbers x0, y0, x1, y1."""
    place.write_bytes(contents)
    ((status, height, width),) = decoder.read([os.fsencode(place)])
    if status != jpeg.OK:
        return status, decoder.message(0)
    x0, y0, x1, y1 = (0, 0, width, height) if window is None else window
    out = np.full((1, y1 - y0, x1 - x0, channels), 77, np.uint8)
    window, target = (x0, y0, x1, y1), (0, 0, x1 - x0, y1 - y0)
    (status,) = decode_into(decoder, [0], [window], [target], NEAREST, True, [0], out)
    return (status, out[0]) if status == jpeg.OK else (status, decoder.message(0))


def pixels(contents):
    with Image.open(io.BytesIO(contents)) as picture:
        return np.asarray(picture.convert("RGB"))


def left_to_libjpeg(contents):
    """The same picture with a byte that libjpeg passes over, and our decoder does not."""
    at = segment(contents, 0xE0) - 2 + int.from_bytes(contents[4:6], "big")
    return contents[:at] + b"\x00" + contents[at:]


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("quality", [1, 25, 75, 92, 100])
def test_pixels_are_those_of_libjpeg(variant, decoder, place, sampling, quality):
    for make in (photograph, noise):
        for height, width in ((1, 1), (5, 6), (8, 8), (16, 16), (17, 33), (31, 30), (61, 103)):
            contents = encoded(make(height, width), sampling, quality=quality)
            status, found = decode(decoder, place, contents)
            assert status == jpeg.OK, found
            np.testing.assert_array_equal(found, pixels(contents), f"{make.__name__} {height} x {width}")


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_photographs_are_decoded_by_it(decoder, place, sampling):
    for options in ({}, {"optimize": True}, {"restart_marker_blocks": 3}, {"quality": 100}):
        assert decode(decoder, place, encoded(photograph(40, 60), sampling, **options))[0] == jpeg.OK
    assert decoder.by_library == 0


def test_other_pictures_are_left_to_libjpeg(decoder, place):
    picture = photograph(40, 60)
    others = {
        "progressive": jpeg_bytes(picture, progressive=True),
        "CMYK": jpeg_bytes(picture.convert("CMYK")),
        "RGB": jpeg_bytes(picture, keep_rgb=True),
        "two columns of color": jpeg_bytes(photograph(9, 4), subsampling="4:2:0"),
        "junk": left_to_libjpeg(jpeg_bytes(picture)),
    }
    for count, (kind, contents) in enumerate(others.items(), start=1):
        status, found = decode(decoder, place, contents)
        assert status == jpeg.OK, (kind, found)
        np.testing.assert_array_equal(found, pixels(contents), kind)
        assert decoder.by_library == count, kind


@settings(max_examples=150)
@given(data=st.data())
def test_windows_are_parts_of_the_whole(place, data):
    sampling = data.draw(st.sampled_from(SAMPLINGS))
    height, width = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 70))
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width))
    options = data.draw(st.sampled_from(({}, {"restart_marker_blocks": 2}, {"restart_marker_rows": 1})))
    contents = encoded(photograph(height, width, data.draw(st.integers(0, 9))), sampling, **options)
    before = simd.in_use()
    try:
        simd.use(data.draw(st.sampled_from(sorted(simd.VARIANTS))))
        decoder = jpeg.BatchDecoder()
        status, found = decode(decoder, place, contents, (x0, y0, x1, y1))
        decoder.close()
    finally:
        simd.use(before)
    assert status == jpeg.OK, found
    np.testing.assert_array_equal(found, pixels(contents)[y0:y1, x0:x1])


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_single_pixels_everywhere(variant, decoder, place, sampling):
    contents = encoded(photograph(19, 37), sampling)
    whole = pixels(contents)
    for y in range(19):
        for x in range(37):
            assert decode(decoder, place, contents, (x, y, x + 1, y + 1))[1].tolist() == [
                [whole[y, x].tolist()]
            ]
    assert decoder.by_library == 0


def test_luma_alone_needs_no_color(variant, decoder, place):
    picture = photograph(33, 47)
    gray = picture.convert("YCbCr").getchannel(0)
    for sampling in ("4:4:4", "4:2:2", "4:2:0"):
        status, found = decode(decoder, place, encoded(picture, sampling, quality=98), channels=1)
        assert status == jpeg.OK
        assert np.abs(found[:, :, 0].astype(int) - np.asarray(gray)).mean() < 1
    assert decoder.by_library == 0


def damaged(contents, rng):
    """The file with some damage behind its first segment, its end still there."""
    changed = bytearray(contents)
    start = segment(contents, 0xE0) - 2 + int.from_bytes(contents[4:6], "big")
    for _ in range(rng.integers(1, 4)):
        kind = rng.integers(0, 5)
        at = int(rng.integers(start, len(changed) - 2))
        if kind == 0:
            changed[at] = rng.integers(0, 256)
        elif kind == 1:
            changed[at] ^= 1 << rng.integers(0, 8)
        elif kind == 2:
            del changed[at : at + int(rng.integers(1, 30))]
        elif kind == 3:
            changed[at:at] = rng.integers(0, 256, rng.integers(1, 10)).astype(np.uint8).tobytes()
        else:
            changed[at : at + 2] = bytes((0xFF, rng.choice([0x00, 0xD0, 0xD3, 0xD9, 0xC4, 0xFF])))
    return bytes(changed) + b"\xff\xd9"


@pytest.mark.parametrize(
    "options",
    [{}, {"restart_marker_blocks": 2}, {"optimize": True}, {"quality": 5}, {"quality": 25}],
    ids=str,
)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_damage_is_judged_as_libjpeg_does(variant, place, sampling, options):
    """What our decoder takes, libjpeg takes too, and both make the same of it."""
    rng = np.random.default_rng(11)
    contents = encoded(photograph(40, 56), sampling, **options)
    ours, library = jpeg.BatchDecoder(), jpeg.BatchDecoder()
    taken = 0
    for _ in range(100):
        broken = damaged(contents, rng)
        left_before = ours.by_library
        found = decode(ours, place, broken)
        expected = decode(library, place, left_to_libjpeg(broken))
        assert found[0] == expected[0], (found, expected)
        if found[0] == jpeg.OK:
            np.testing.assert_array_equal(found[1], expected[1])
            taken += ours.by_library == left_before
            window = (3, 5, 40, 20)
            part = decode(ours, place, broken, window)
            # Nobody looks at what is damaged below a window.
            if part[0] == jpeg.OK:
                np.testing.assert_array_equal(part[1], expected[1][5:20, 3:40])
    assert taken > 5
    # What came before leaves no trace.
    np.testing.assert_array_equal(decode(ours, place, contents)[1], pixels(contents))
    ours.close()
    library.close()


def gray_blocks(dc, step, count=4):
    """A gray JPEG of `count` blocks side by side: the first has this DC value and step, all others are like it."""
    size = abs(dc).bit_length()
    code = f"{size:04b}" + (f"{dc if dc > 0 else dc + (1 << size) - 1:0{size}b}" if size else "") + "0"
    bits = code + "00000" * (count - 1)
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    # DC codes are the sizes 0 to 11 in four bits; the only AC code is the end of the block.
    parts = [
        (0xDB, bytes([0] + [step] * 64)),
        (0xC0, bytes([8, 0, 8, 0, 8 * count, 1, 1, 0x11, 0])),
        (0xC4, bytes([0x00] + [0, 0, 0, 12] + [0] * 12) + bytes(range(12))),
        (0xC4, bytes([0x10] + [1] + [0] * 15) + b"\x00"),
        (0xDA, bytes([1, 1, 0x00, 0, 63, 0])),
    ]
    head = b"".join(
        b"\xff" + bytes([marker]) + (len(body) + 2).to_bytes(2, "big") + body for marker, body in parts
    )
    jfif = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    return b"\xff\xd8" + jfif + head + data + b"\xff\xd9"


@pytest.mark.parametrize("dc", [0, 1, -1, 127, -512, 511, 512, 513, -600, 1023, -2047])
@pytest.mark.parametrize("step", [1, 8, 16, 255])
def test_values_that_no_picture_has(variant, decoder, place, dc, step):
    contents = gray_blocks(dc, step)
    status, found = decode(decoder, place, contents)
    assert status == jpeg.OK, found
    assert decoder.by_library == (abs(dc * step) > 8191)
    library = jpeg.BatchDecoder()
    np.testing.assert_array_equal(found, decode(library, place, left_to_libjpeg(contents))[1])
    library.close()


def test_sides_that_libjpeg_refuses_are_refused(decoder, place):
    contents = encoded(photograph(40, 16), "gray")
    start = segment(contents, 0xC0)
    for height in (65501, 65535):
        tall = bytearray(contents)
        tall[start + 1 : start + 3] = height.to_bytes(2, "big")
        status, message = decode(decoder, place, bytes(tall), (0, 0, 16, 8))
        assert status == jpeg.BAD_FILE and "65500" in message


def test_memory_follows_the_picture_and_not_the_file(decoder, place):
    """Whatever stands behind the pixels is no reason to take memory for it, and none to keep it."""
    import resource

    contents = encoded(photograph(40, 60), "4:2:0")
    place.write_bytes(contents[:-2])
    with place.open("ab") as file:
        file.truncate(200 << 20)
    with place.open("ab") as file:
        file.write(b"\xff\xd9")
    heads = decoder.read([os.fsencode(place)])
    assert heads.tolist() == [[jpeg.OK, 40, 60]]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = np.zeros((1, 40, 60, 3), np.uint8)
    assert decode_into(decoder, [0], [(0, 0, 60, 40)], [(0, 0, 60, 40)], NEAREST, True, [0], out) == [jpeg.OK]
    # In KiB: the file itself, once.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 240 << 10
