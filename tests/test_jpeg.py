"""The decoding kernel against Pillow: every kind of JPEG, every window, and damage."""

import io
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from decoding import decode_into
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import jpeg_bytes, jpeg_kinds, opened, photograph, segment, with_size
from PIL import Image

from highway._core.jpeg import codec as jpeg
from highway._core.pixels import resample

KINDS = jpeg_kinds()
BILINEAR = resample.FILTERS.index("bilinear")


@pytest.fixture
def decoder():
    decoder = jpeg.BatchDecoder()
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    for name, contents in KINDS.items():
        (folder / name).write_bytes(contents)
    return folder


def decode(decoder, path, window=None, size=None, *, channels=3, filter_=BILINEAR, exact=True, oriented=True):
    """One window of one file, or the reason why not."""
    ((status, height, width),) = decoder.read([os.fsencode(path)], oriented)
    if status != jpeg.OK:
        return status, decoder.message(0)
    window = (0, 0, width, height) if window is None else window
    size = (height, width) if size is None else size
    out = np.full((1, *size, channels), 77, np.uint8)
    target = (0, 0, size[1], size[0])
    (status,) = decode_into(decoder, [0], [window], [target], filter_, exact, [0], out)
    return (status, out[0]) if status == jpeg.OK else (status, decoder.message(0))


def reference(contents, window=None, size=None, mode="RGB"):
    picture = opened(contents).convert(mode)
    if window is not None:
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=tuple(window))
    array = np.asarray(picture).astype(int)
    return array if mode == "RGB" else array[:, :, None]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_what_pillow_decodes(decoder, folder, kind):
    status, image = decode(decoder, folder / kind)
    assert status == jpeg.OK, image
    np.testing.assert_array_equal(image, reference(KINDS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_in_grey(decoder, folder, kind):
    status, image = decode(decoder, folder / kind, channels=1)
    assert status == jpeg.OK, image
    # Pillow converts the decoded RGB, which was rounded and clipped; the file has the luma itself.
    assert np.abs(image - reference(KINDS[kind], mode="L")).mean() <= 1


@st.composite
def windows(draw):
    """A kind, and a window of its upright picture."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    height, width = (128, 96) if kind in ("EXIF 5", "EXIF 6", "EXIF 7", "EXIF 8") else (96, 128)
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    part = draw(st.sampled_from([0.0, 0.125, 0.5]))
    return kind, (x0 + part, y0 + part, x1 - part / 2, y1)


@settings(max_examples=500)
@given(windows(), st.integers(1, 70), st.integers(1, 70))
def test_every_window_is_what_pillow_resizes(folder, kind_and_window, height, width):
    kind, window = kind_and_window
    status, image = decode(jpeg.BatchDecoder(), folder / kind, window, (height, width))
    assert status == jpeg.OK, image
    difference = np.abs(image - reference(KINDS[kind], window, (height, width)))
    assert difference.max() <= 2
    assert difference.mean() <= 1


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_sizes_from_1_to_17(decoder, tmp_path, subsampling, progressive):
    for height in range(1, 18):
        for width in range(1, 18):
            contents = jpeg_bytes(
                photograph(height, width, 3), subsampling=subsampling, progressive=progressive
            )
            (tmp_path / "small.jpg").write_bytes(contents)
            status, image = decode(decoder, tmp_path / "small.jpg")
            assert status == jpeg.OK, image
            np.testing.assert_array_equal(image, reference(contents))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("divisor", [2, 3.9, 4, 7.9, 8, 16, 20])
def test_scaled_decoding_stays_close(decoder, tmp_path, subsampling, divisor):
    contents = jpeg_bytes(photograph(480, 640, 5), subsampling=subsampling)
    (tmp_path / "large.jpg").write_bytes(contents)
    window = (13, 7, 633, 475)
    size = int(468 / divisor), int(620 / divisor)
    _, scaled = decode(decoder, tmp_path / "large.jpg", window, size, exact=False)
    _, exact = decode(decoder, tmp_path / "large.jpg", window, size, exact=True)
    expected = reference(contents, window, size)
    assert np.abs(scaled - expected).mean() <= 3
    assert np.abs(exact - expected).mean() <= 1
    assert (scaled != exact).any() == (divisor >= 4), "decoded at another scale than documented"


def test_orientation_can_be_ignored(decoder, folder):
    _, image = decode(decoder, folder / "EXIF 6", oriented=False)
    np.testing.assert_array_equal(image, np.asarray(Image.open(io.BytesIO(KINDS["EXIF 6"]))))


def test_orientations(decoder, folder):
    paths = [os.fsencode(folder / f"EXIF {number}") for number in range(1, 9)]
    decoder.read([*paths, b"/nowhere"])
    assert decoder.orientations().tolist() == [*range(1, 9), 1]
    decoder.read(paths, False)
    assert decoder.orientations().tolist() == [1] * 8
    decoder.read([])
    assert decoder.orientations().dtype == np.int64 and not len(decoder.orientations())


def test_big_endian_exif(decoder, tmp_path):
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01" + entry + b"\x00\x00\x00\x00"
    plain = jpeg_bytes(photograph(20, 30))
    contents = plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:]
    (tmp_path / "big.jpg").write_bytes(contents)
    status, image = decode(decoder, tmp_path / "big.jpg")
    assert status == jpeg.OK and image.shape == (30, 20, 3)
    np.testing.assert_array_equal(image, reference(contents))


def test_damaged_exif_is_no_orientation(decoder, tmp_path):
    whole = KINDS["EXIF 6"]
    start = segment(whole, 0xE1)
    for at in range(start + 6, start + 30):
        for value in (0x00, 0xFF):
            (tmp_path / "odd.jpg").write_bytes(whole[:at] + bytes([value]) + whole[at + 1 :])
            status, image = decode(decoder, tmp_path / "odd.jpg")
            assert status == jpeg.OK and image.shape in ((96, 128, 3), (128, 96, 3))


@pytest.mark.parametrize("kind", ["baseline", "progressive", "restart markers", "CMYK", "gray"])
def test_cut_at_any_byte_is_an_error(decoder, tmp_path, kind):
    contents = KINDS[kind]
    path = tmp_path / "cut.jpg"
    for length in range(1, len(contents), 7):
        path.write_bytes(contents[:length])
        for exact in (False, True):
            status, message = decode(decoder, path, (0, 0, 128, 40), (10, 32), exact=exact)
            assert status in (jpeg.BAD_FILE, jpeg.NOT_JPEG), (
                f"{length} of {len(contents)} bytes were taken for a picture"
            )
            assert message
    path.write_bytes(contents)
    assert decode(decoder, path)[0] == jpeg.OK  # a decoder that met damage still works


@pytest.mark.parametrize("kind", ["baseline", "progressive", "restart markers", "4:2:0", "CMYK"])
def test_garbage_inside_never_shows_unwritten_pixels(decoder, tmp_path, kind):
    """Flipped bytes either give an error or a picture that does not depend on what was in memory before."""
    rng = np.random.default_rng(0)
    path = tmp_path / "garbage.jpg"
    results = set()
    for _ in range(300):
        contents = bytearray(KINDS[kind])
        for at in rng.integers(2, len(contents), rng.integers(1, 6)):
            contents[at] = rng.integers(0, 256)
        path.write_bytes(contents)
        ((status, height, width),) = decoder.read([os.fsencode(path)])
        results.add(status)
        if status != jpeg.OK:
            continue
        pair = []
        for before in (0, 255):
            out = np.full((1, 20, 30, 3), before, np.uint8)
            window = (width * 0.1, height * 0.2, width * 0.9, height)
            (status,) = decode_into(decoder, [0], [window], [(0, 0, 30, 20)], BILINEAR, True, [0], out)
            pair.append((status, out))
            if status != jpeg.OK:
                decoder.read([os.fsencode(path)])  # a sample that failed has to be read again
        assert pair[0][0] == pair[1][0]
        if pair[0][0] == jpeg.OK:
            np.testing.assert_array_equal(pair[0][1], pair[1][1])
        results.add(pair[0][0])
    assert results >= {jpeg.OK, jpeg.BAD_FILE}


def test_huge_header_is_refused_before_memory_is_taken(decoder, tmp_path):
    import resource

    contents = with_size(jpeg_bytes(photograph(32, 32)), 65500, 65500)
    assert len(contents) < 2048
    (tmp_path / "bomb.jpg").write_bytes(contents)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status, message = decode(decoder, tmp_path / "bomb.jpg", (0, 0, 10, 10), (10, 10))
    assert status == jpeg.BAD_FILE
    assert "65500 x 65500" in message and "allowed" in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10_000  # KiB


def test_wrong_size_within_the_limit_is_an_error(decoder, tmp_path):
    (tmp_path / "tall.jpg").write_bytes(with_size(jpeg_bytes(photograph(32, 32)), 3200, 32))
    status, message = decode(decoder, tmp_path / "tall.jpg")
    assert status == jpeg.BAD_FILE and "cannot be decoded" in message


def progressive(scans):
    """A progressive 8 x 8 gray picture of nothing but zeros, with these (Ss, Se, Ah, Al) as its scans."""

    def part(marker, payload):
        return bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + bytes(payload)

    code_of_one_bit = [1] + [0] * 15 + [0]  # for the symbol 0: no difference, or the end of the block
    contents = b"\xff\xd8" + part(0xDB, [0] + [1] * 64) + part(0xC2, [8, 0, 8, 0, 8, 1, 1, 0x11, 0])
    contents += part(0xC4, [0x00, *code_of_one_bit]) + part(0xC4, [0x10, *code_of_one_bit])
    for first, last, high, low in scans:
        contents += part(0xDA, [1, 1, 0x00, first, last, high << 4 | low]) + b"\x7f"
    return contents + b"\xff\xd9"


def test_progressive_bomb_is_refused(decoder, tmp_path):
    """Every scan is a valid one; there are just very many, and each could cost a pass over the picture."""
    few = [(0, 0, 0, 0), *((k, k, 0, 0) for k in range(1, 64))]
    (tmp_path / "few.jpg").write_bytes(progressive(few))
    status, image = decode(decoder, tmp_path / "few.jpg")
    assert status == jpeg.OK, image
    assert np.all(image == 128)

    many = [(0, 0, 0, 0), *((k, k, high, low) for k in range(1, 64) for high, low in ((0, 1), (1, 0)))]
    (tmp_path / "many.jpg").write_bytes(progressive(many))
    status, message = decode(decoder, tmp_path / "many.jpg")
    assert status == jpeg.BAD_FILE
    assert "more than 100 scans" in message


def test_missing_scans_are_an_error(decoder, tmp_path):
    """Cut between two scans and closed with an end marker, as some tools leave them."""
    contents = jpeg_bytes(photograph(40, 50), progressive=True)
    starts = [i for i in range(len(contents) - 1) if contents[i : i + 2] == b"\xff\xda"]
    # Where the tables of a scan begin: the end marker goes there.
    tables = [contents.rindex(b"\xff\xc4", 0, start) for start in starts]
    assert len(starts) == 10
    path = tmp_path / "cut.jpg"
    for start in tables[1:]:
        path.write_bytes(contents[:start] + b"\xff\xd9")
        status, message = decode(decoder, path)
        assert status == jpeg.BAD_FILE
        assert "scans are missing" in message
    path.write_bytes(contents)
    assert decode(decoder, path)[0] == jpeg.OK


def test_baseline_with_zeros_for_the_spectral_range(decoder, tmp_path):
    """Some encoders write them; every decoder ignores them."""
    contents = bytearray(KINDS["baseline"])
    start = segment(contents, 0xDA)
    contents[start + 7 : start + 10] = b"\x00\x00\x00"
    (tmp_path / "zeros.jpg").write_bytes(contents)
    status, image = decode(decoder, tmp_path / "zeros.jpg")
    assert status == jpeg.OK, image
    np.testing.assert_array_equal(image, reference(KINDS["baseline"]))


def test_no_handle_left_is_not_the_file_s_fault(folder):
    """In a process of its own, which may open nothing more."""
    script = (
        "import os, resource, sys\n"
        "from highway._core.jpeg import codec as jpeg\n"
        "decoder = jpeg.BatchDecoder()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n"
        "found = decoder.read([os.fsencode(sys.argv[1])]).tolist()\n"
        "print(found == [[jpeg.NO_HANDLE, 0, 0]], decoder.message(0))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(folder / "baseline")], capture_output=True, text=True
    )
    assert answer.stdout.startswith("True cannot be opened: Too many open files"), answer.stderr


def test_what_is_no_regular_file(decoder, tmp_path):
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nothing")
    expected = {
        "fifo.jpg": (jpeg.NO_FILE, "FIFO"),
        "folder.jpg": (jpeg.NO_FILE, "directory"),
        "empty.jpg": (jpeg.BAD_FILE, "empty"),
        "dangling.jpg": (jpeg.NO_FILE, "No such file"),
        "missing.jpg": (jpeg.NO_FILE, "No such file"),
    }
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
        expected["socket.jpg"] = (jpeg.NO_FILE, "No such device")
        found = decoder.read([os.fsencode(tmp_path / name) for name in expected])
        for i, (name, (status, text)) in enumerate(expected.items()):
            assert found[i].tolist() == [status, 0, 0], name
            assert text in decoder.message(i), name


def test_other_formats_are_left_to_others(decoder, tmp_path):
    (tmp_path / "png.jpg").write_bytes(b"\x89PNG....")
    (tmp_path / "text.jpg").write_text("no picture")
    found = decoder.read([os.fsencode(tmp_path / name) for name in ("png.jpg", "text.jpg")])
    assert found.tolist() == [[jpeg.NOT_JPEG, 0, 0]] * 2
    assert decoder.contents(0) == b"\x89PNG...."
    assert decoder.contents(1) == b"no picture"


def test_limits_are_arguments(tmp_path, folder):
    small = jpeg.BatchDecoder(max_bytes=100)
    ((status, _, _),) = small.read([os.fsencode(folder / "baseline")])
    assert status == jpeg.BAD_FILE and "allowed are 100" in small.message(0)
    narrow = jpeg.BatchDecoder(max_pixels=96 * 128 - 1)
    ((status, _, _),) = narrow.read([os.fsencode(folder / "baseline")])
    assert status == jpeg.BAD_FILE and "96 x 128" in narrow.message(0)


def test_a_batch_lands_in_its_slots(decoder, folder):
    names = ["baseline", "gray", "EXIF 8", "progressive"]
    found = decoder.read([os.fsencode(folder / name) for name in names])
    windows_ = np.array([[0, 0, w, h] for _, h, w in found], float)
    targets = np.array([[2, 1, 22, 18]] * 4, np.int32)
    slots = np.array([5, 0, 3, 2])
    out = np.full((6, 20, 24, 3), 9, np.uint8)
    assert decode_into(decoder, np.arange(4), windows_, targets, BILINEAR, True, slots, out) == [jpeg.OK] * 4
    for i, name in enumerate(names):
        expected = np.full((20, 24, 3), 9)
        expected[1:18, 2:22] = reference(KINDS[name], windows_[i], (17, 20))
        assert np.abs(out[slots[i]] - expected).max() <= 2
    assert np.all(out[[1, 4]] == 9)


def test_what_is_refused(decoder, folder):
    decoder.read([os.fsencode(folder / "baseline"), b"/nothing"])
    good = {
        "samples": np.array([0]),
        "windows": np.array([[0.0, 0, 128, 96]]),
        "targets": np.array([[0, 0, 8, 8]], np.int32),
        "filter_": 2,
        "exact": False,
        "slots": np.array([0]),
        "out": np.zeros((1, 8, 8, 3), np.uint8),
    }
    assert decode_into(decoder, **good) == [jpeg.OK]
    for name, value, message in [
        ("samples", np.array([1]), "sample 1"),
        ("samples", np.array([2]), "sample 2"),
        ("samples", np.array([-1]), "sample -1"),
        ("samples", np.array([0, 0]), "must be equal"),
        ("out", np.zeros((1, 70000, 1, 3), np.uint8), "expected 1 to 65536"),
        ("slots", np.array([1]), "slot 1"),
        ("slots", np.array([-1]), "slot -1"),
        ("windows", np.array([[0.0, 0, 129, 96]]), "not inside"),
        ("windows", np.array([[0.0, 0, np.nan, 96]]), "not inside"),
        ("windows", np.array([[0.0, 0, 128]]), "rectangles"),
        ("targets", np.array([[0, 0, 9, 8]], np.int32), "not inside"),
        ("filter_", 9, "filter 9"),
        ("out", np.zeros((1, 8, 8, 4), np.uint8), "4 channels"),
        ("out", np.zeros((8, 8, 3), np.uint8), "unpack"),
        ("mirrored", np.zeros((2, 2), bool), "must be equal"),
        ("mirrored", np.zeros((1, 1), bool), "1 mirrors"),
    ]:
        with pytest.raises(ValueError, match=message):
            decode_into(decoder, **{**good, name: value})


def test_a_sample_is_decoded_once(decoder, folder):
    decoder.read([os.fsencode(folder / "baseline")])
    out = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="sample 0 comes twice"):
        decode_into(decoder, [0, 0], [(0, 0, 9, 9)] * 2, [(0, 0, 8, 8)] * 2, 2, False, [0, 1], out)


def test_closed(folder):
    decoder = jpeg.BatchDecoder()
    decoder.read([os.fsencode(folder / "baseline")])
    decoder.close()
    decoder.close()
    for call in (
        lambda: decoder.read([]),
        lambda: decoder.contents(0),
        lambda: decoder.message(0),
        lambda: decoder.status(0),
        lambda: decoder.orientations(),
        lambda: decoder.leave(),
        lambda: decoder.by_library,
        lambda: decode_into(
            decoder, [0], [(0, 0, 1, 1)], [(0, 0, 1, 1)], 2, False, [0], np.zeros((1, 1, 1, 3), np.uint8)
        ),
        lambda: decoder.finish(np.zeros(1, np.int64), jpeg.Images(np.zeros((1, 1, 1, 3), np.uint8))),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()
