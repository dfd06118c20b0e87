"""The decoder of WebPs against PIL: every kind to the bit, and of damaged ones none that PIL refuses."""

import io

import numpy as np
import pytest
from decoding import by_other_picture, decoded, resident, resized
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import photograph
from PIL import Image
from stated_orientations import exif_data, xmp_data

from highway._core.jpeg import codec as jpeg

pytestmark = pytest.mark.skipif(
    jpeg.library_versions()["WebP"] is None, reason="the core was compiled without libwebp"
)

WRITTEN = {
    "lossless": {"lossless": True},
    "lossy": {"quality": 80},
    "coarse": {"quality": 1, "method": 0},
    "fine": {"quality": 100, "method": 6},
    "lossy alpha": {"quality": 60, "alpha_quality": 10},
    "exact": {"lossless": True, "exact": True},
}


def webp(picture, **options):
    file = io.BytesIO()
    picture.save(file, "WEBP", **options)
    return file.getvalue()


def with_alpha(picture):
    alpha = np.random.default_rng(1).integers(0, 256, picture.size[::-1]).astype(np.uint8)
    picture = picture.copy()
    picture.putalpha(Image.fromarray(alpha))
    return picture


@pytest.fixture
def decoder():
    decoder = jpeg.BatchDecoder()
    yield decoder
    decoder.close()


def check(decoder, contents, **options):
    """The decoder decodes the file, and gives what PIL gives."""
    found = decoded(decoder, contents, **options)
    assert not isinstance(found, int), decoder.message(0)
    expected = by_other_picture(contents, **options)
    assert expected is not None
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("gray", [False, True])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("written", WRITTEN)
def test_every_kind_is_what_pil_decodes(decoder, written, alpha, gray):
    for height, width in ((1, 1), (2, 3), (7, 1), (16, 16), (17, 33), (31, 45), (64, 50), (3, 130)):
        picture = photograph(height, width, 3)
        contents = webp(with_alpha(picture) if alpha else picture, **WRITTEN[written])
        check(decoder, contents, gray=gray)


@pytest.mark.parametrize("lossless", [False, True])
def test_of_an_animation_the_first_frame_counts(decoder, lossless):
    first, others = photograph(31, 45, 3), [photograph(31, 45, 4), Image.new("RGB", (45, 31), "red")]
    check(decoder, webp(first, save_all=True, append_images=others, lossless=lossless))
    check(decoder, webp(with_alpha(first), save_all=True, append_images=others, lossless=lossless))


def animation(canvas, at, frame):
    """An animation with one frame, at (x, y) of a canvas of (width, height)."""
    inside = webp(frame, lossless=True)[12:]

    def number(value, size=3):
        return value.to_bytes(size, "little")

    def chunk(name, data):
        return name + number(len(data), 4) + data + bytes(len(data) & 1)

    place = b"".join(
        number(value) for value in (at[0] // 2, at[1] // 2, frame.width - 1, frame.height - 1, 9)
    )
    body = chunk(b"VP8X", bytes([2, 0, 0, 0]) + number(canvas[0] - 1) + number(canvas[1] - 1))
    body += chunk(b"ANIM", b"\xff\xff\xff\xff\0\0") + chunk(b"ANMF", place + b"\2" + inside)
    return b"RIFF" + number(4 + len(body), 4) + b"WEBP" + body


def test_around_a_frame_that_does_not_cover_the_canvas_is_black(decoder):
    contents = animation((40, 30), (4, 6), photograph(11, 17, 3))
    # What an earlier picture left in the memory of the decoder is not shown.
    check(decoder, webp(photograph(60, 60), lossless=True))
    check(decoder, contents)
    expected = np.zeros((30, 40, 3), np.uint8)
    expected[6:17, 4:21] = photograph(11, 17, 3)
    np.testing.assert_array_equal(decoded(decoder, contents), expected)


def test_a_frame_beyond_the_canvas_is_left_to_pil(decoder):
    contents = animation((20, 30), (4, 6), photograph(11, 17, 3))
    assert decoded(decoder, contents) == jpeg.REFUSED
    assert by_other_picture(contents) is None


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("gray", [False, True])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_windows_are_resampled_as_those_of_other_formats(lossless, orientation, gray, data):
    contents = webp(photograph(37, 53, 4), lossless=lossless, exif=exif_data(3, (orientation,)))
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


KINDS_OF_WINDOWS = {
    "lossy": webp(photograph(37, 53, 4), quality=70),
    "lossless": webp(photograph(37, 53, 4), lossless=True),
    "alpha": webp(with_alpha(photograph(37, 53, 4)), quality=70),
    "animation": webp(photograph(37, 53, 4), save_all=True, append_images=[Image.new("RGB", (53, 37))]),
}


@pytest.mark.parametrize("kind", KINDS_OF_WINDOWS)
def test_a_window_has_the_pixels_of_the_whole(decoder, kind):
    """Colors at its borders are made from neighbors outside of it."""
    contents = KINDS_OF_WINDOWS[kind]
    whole = by_other_picture(contents)
    rng = np.random.default_rng(7)
    for _ in range(400):
        y0, x0 = (int(rng.integers(0, side)) for side in whole.shape[:2])
        y1, x1 = (
            int(rng.integers(low + 1, side + 1)) for low, side in zip((y0, x0), whole.shape, strict=False)
        )
        found = decoded(decoder, contents, window=(x0, y0, x1, y1), size=(y1 - y0, x1 - x0))
        np.testing.assert_array_equal(found, whole[y0:y1, x0:x1])


@pytest.mark.parametrize("metadata", [{"exif": exif_data()}, {"xmp": xmp_data(6)}])
def test_orientation_stands_behind_the_pixels(decoder, metadata):
    contents = webp(photograph(20, 31, 4), **metadata)
    check(decoder, contents)
    check(decoder, contents, oriented=False)
    assert decoded(decoder, contents).shape == (31, 20, 3)


@pytest.mark.parametrize("written", ["lossless", "lossy", "lossy alpha"])
def test_of_damaged_files_none_is_taken_that_pil_refuses(written):
    picture = photograph(9, 13, 5)
    whole = webp(with_alpha(picture) if "alpha" in written else picture, exif=exif_data(), **WRITTEN[written])
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
    assert taken
    assert all(isinstance(decoded(decoder, contents), int) for contents in cut)


def test_max_pixels_is_checked_in_the_header():
    decoder = jpeg.BatchDecoder(max_pixels=98)
    assert decoded(decoder, webp(photograph(9, 11))) == jpeg.BAD_FILE
    assert decoder.message(0) == "has 9 x 11 pixels, allowed are 98 in total (max_pixels)"


@pytest.mark.once  # sanitizers keep what was freed
def test_the_memory_of_a_large_picture_is_not_kept():
    """It has 108 MB."""
    contents = webp(Image.new("RGB", (6000, 6000), (1, 2, 3)), lossless=True, method=0)
    decoder = jpeg.BatchDecoder(max_pixels=10**9)
    before = resident()
    assert decoded(decoder, contents, size=(8, 8)).tolist() == [[[1, 2, 3]] * 8] * 8
    assert resident() - before < 70 << 20
    decoder.close()
