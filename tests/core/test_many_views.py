"""Several views of a picture, decoded once: each has the bits of a decoder that makes this view alone."""

import io

import numpy as np
import pytest
import rasters
from decoding import decode_into, resident
from pictures import jpeg_bytes, jpeg_kinds, photograph

from highway._core.jpeg import codec as jpeg
from highway._core.pixels import resample

BILINEAR = resample.FILTERS.index("bilinear")


def saved(picture, name, **options):
    buffer = io.BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


def files():
    picture = photograph(96, 128, 1)
    found = {name: contents for name, contents in jpeg_kinds().items() if "EXIF" not in name}
    found |= {f"EXIF {number}": jpeg_bytes(picture, orientation=number) for number in (3, 5, 6, 8)}
    found["WebP"] = saved(picture, "WEBP")
    found["WebP turned"] = saved(
        picture, "WEBP", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"
    )
    values = np.random.default_rng(0).integers(0, 256, (96, 128, 3))
    found["PNG"] = saved(picture, "PNG")
    found["PNG interlaced"] = rasters.png(values, 8, 2, interlaced=True)
    found["PNG of 16 bits"] = rasters.png(values * 257, 16, 2)
    known = jpeg.library_versions()
    return {name: file for name, file in found.items() if known.get(name.split()[0], "JPEG") is not None}


FILES = files()


@pytest.fixture
def decoder():
    decoder = jpeg.BatchDecoder()
    yield decoder
    decoder.close()


def drawn_views(seed, height, width, count, smooth=False):
    """Windows, targets, mirrors, filters and sizes of views of one picture."""
    rng = np.random.default_rng(seed)
    views = []
    for _ in range(count):
        (y0, y1), (x0, x1) = (np.sort(rng.choice(side, 2, replace=False)) for side in (height, width))
        size = tuple(rng.integers(2, 40, 2).tolist())
        top, left = rng.integers(0, size[0]), rng.integers(0, size[1])
        target = (0, 0, size[1], size[0]) if rng.random() < 0.7 else (left, top, size[1], size[0])
        filter_ = BILINEAR if smooth else int(rng.integers(len(resample.FILTERS)))
        views.append(((x0, y0, x1 + 0.5, y1 + 0.5), target, rng.random((1, 2)) < 0.5, filter_, size))
    return views


def alone(contents, view, exact, channels=3, dtype=np.uint8):
    """One view by a decoder of its own, and its status."""
    size = view[-1]
    decoder = jpeg.BatchDecoder()
    decoder.read_contents([contents])
    out = np.full((1, *size, channels), 7, dtype)
    (status,) = decode_views(decoder, [view], exact, [out])
    decoder.close()
    return out[0], status


def decode_views(decoder, views, exact, outs):
    """Statuses of the picture that was read, after all its views are made."""
    decoder.begin_views(
        np.array([0]),
        [
            (
                np.array([window], float),
                np.array([target], np.int32),
                mirrored,
                filter_,
                (*size, out.shape[3]),
            )
            for (window, target, mirrored, filter_, size), out in zip(views, outs, strict=True)
        ],
        exact,
        0,
        outs[0].dtype == np.uint16,
    )
    return decoder.finish_views(np.array([0]), [jpeg.Images(out) for out in outs])


@pytest.mark.parametrize("name", FILES)
def test_every_view_is_as_alone(simd_variant, decoder, name):
    contents = FILES[name]
    for seed, (channels, dtype) in enumerate(((3, np.uint8), (1, np.uint8), (3, np.uint16))):
        ((status, height, width),) = decoder.read_contents([contents])
        assert status == jpeg.OK
        views = drawn_views(seed, height, width, 9)
        outs = [np.full((1, *size, channels), 7, dtype) for *_, size in views]
        assert decode_views(decoder, views, True, outs) == [jpeg.OK]
        for view, out in zip(views, outs, strict=True):
            expected, status = alone(contents, view, True, channels, dtype)
            assert status == jpeg.OK
            np.testing.assert_array_equal(out[0], expected)


def test_decoded_once_at_the_scale_that_the_most_demanding_view_needs(decoder):
    contents = jpeg_bytes(photograph(512, 512, 3), subsampling="4:2:0")
    whole, full = (0, 0, 512, 512), (0, 0, 32, 32)
    no = np.zeros((1, 2), bool)
    coarse = (whole, full, no, BILINEAR, (32, 32))
    half = (whole, (0, 0, 100, 100), no, BILINEAR, (100, 100))
    fine = ((9, 30, 90, 120), full, no, BILINEAR, (32, 32))
    for views, libraries, same in (
        ([coarse, half], 1, half),
        ([coarse, fine], 0, fine),
        ([coarse] * 10, 1, coarse),
    ):
        decoder.read_contents([contents])
        before = decoder.by_library
        outs = [np.empty((1, *size, 3), np.uint8) for *_, size in views]
        assert decode_views(decoder, views, False, outs) == [jpeg.OK]
        # Highway's own decoder, which does not reduce, makes the other.
        assert decoder.by_library - before == libraries
        for view, out in zip(views, outs, strict=True):
            expected = alone(contents, view, False)[0]
            if view is same:
                np.testing.assert_array_equal(out[0], expected)
            assert np.abs(out[0].astype(int) - expected).mean() < 3


def test_views_of_one_array_touch_nothing_else(decoder):
    names = ["baseline", "EXIF 6", "progressive"]
    heads = decoder.read_contents([FILES[name] for name in names])
    rows, slots = np.array([2, 0, 1]), np.array([4, 1, 2])
    windows = np.array([[0, 0, w, h] for _, h, w in heads[rows]], float)
    targets = np.tile(np.array([0, 0, 12, 9], np.int32), (3, 1))
    out = np.full((5, 4, 9, 12, 3), 77, np.uint8)
    other = np.full((5, 9, 12, 3), 77, np.uint8)
    mirrors = [np.zeros((3, 2), bool), np.ones((3, 2), bool), np.zeros((3, 2), bool)]
    views = [(windows, targets, mirrored, BILINEAR, (9, 12, 3)) for mirrored in mirrors]
    assert decoder.begin_views(rows, views, True)
    images = [jpeg.Images(part) for part in (out[:, 1], out[:, 2], other)]
    assert decoder.finish_views(slots, images) == [jpeg.OK] * 3
    assert np.all(out[:, [0, 3]] == 77)
    assert np.all(out[[0, 3]] == 77)
    assert np.all(other[[0, 3]] == 77)
    np.testing.assert_array_equal(out[slots, 1], other[slots])
    np.testing.assert_array_equal(out[slots, 2], other[slots][:, ::-1, ::-1])
    for row, slot in zip(rows, slots, strict=True):
        single = jpeg.BatchDecoder()
        single.read_contents([FILES[names[row]]])
        expected = np.empty((1, 9, 12, 3), np.uint8)
        place = int(np.flatnonzero(rows == row)[0])
        decode_into(single, [0], windows[[place]], targets[:1], BILINEAR, True, [0], expected)
        single.close()
        np.testing.assert_array_equal(other[slot], expected[0])


@pytest.mark.parametrize("normalized", [False, True])
def test_pictures_decoded_before_their_images_exist(normalized):
    crew = jpeg.Crew()
    decoders = [jpeg.BatchDecoder(crew) for _ in range(4)]
    decoder = decoders[0]
    contents = [FILES["baseline"], FILES["gray"], FILES["EXIF 8"]]
    heads = decoder.read_contents(contents)
    windows = np.array([[0, 0, w, h] for _, h, w in heads], float)
    factors = [np.full(3, 0.5, np.float32), np.ones(3, np.float32)] if normalized else []

    def made(ahead):
        decoder.read_contents(contents)
        sizes, outs = ((9, 12), (20, 7)), []
        views = []
        for k, (height, width) in enumerate(sizes):
            targets = np.tile(np.array([1, 2, width, height], np.int32), (3, 1))
            views.append((windows, targets, np.full((3, 2), k == 1), BILINEAR, (height, width, 3)))
            outs.append(np.full((3, height, width, 3), 5, np.float32 if normalized else np.uint8))
        # So large that the crew shares the batch.
        decoder.begin_views(np.arange(3), views, True, 1 << 40)
        while ahead and decoder.ahead():
            pass
        assert (
            decoder.finish_views(np.arange(3), [jpeg.Images(out, *factors) for out in outs]) == [jpeg.OK] * 3
        )
        return outs

    for mine, theirs in zip(made(True), made(False), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for one in decoders:
        one.close()


@pytest.mark.parametrize("name", ["baseline", "progressive", "PNG", "WebP"])
def test_a_file_that_is_cut_off_has_the_status_that_it_has_alone(name):
    if name not in FILES:
        pytest.skip(f"the core was compiled without {name}")
    contents, views = FILES[name], drawn_views(5, 96, 128, 4)
    for cut in np.linspace(len(contents) // 3, len(contents) - 1, 8).astype(int).tolist():
        part = contents[:cut]
        decoder = jpeg.BatchDecoder()
        ((status, *_),) = decoder.read_contents([part])
        if status == jpeg.OK:
            outs = [np.zeros((1, *size, 3), np.uint8) for *_, size in views]
            (status,) = decode_views(decoder, views, True, outs)
            assert status == alone(part, max(views, key=lambda view: view[0][3]), True)[1] != jpeg.OK
        decoder.close()


def test_no_picture_is_held_as_a_whole(decoder):
    rows = np.tile(np.arange(6000, dtype=np.uint8)[:, None], (6000, 1, 3))
    contents = jpeg.encode(rows, 80)
    del rows
    decoder.read_contents([contents])
    # An output row needs some hundred rows of the picture.
    views = [
        (*view[:1], (0, 0, 96, 96), *view[2:4], (96, 96))
        for view in drawn_views(1, 6000, 6000, 10, smooth=True)
    ]
    outs = [np.zeros((1, *size, 3), np.uint8) for *_, size in views]
    before = resident()
    assert decode_views(decoder, views, True, outs) == [jpeg.OK]
    # The whole picture has 108 MB.
    assert resident() - before < 12 << 20


def test_what_is_refused(decoder):
    decoder.read_contents([FILES["baseline"]])
    sample, window, target = np.array([0]), np.array([[0.0, 0, 128, 96]]), np.array([[0, 0, 8, 8]], np.int32)
    view = (window, target, np.zeros((1, 2), bool), BILINEAR, (8, 8, 3))
    for views, message in (
        ([], "0 views; expected 1 to 64"),
        ([view] * 65, "65 views"),
        ([view, (*view[:4], (8, 8, 1))], "views of 3 and 1 channels"),
        ([view, (window + 1, *view[1:])], "not inside"),
        ([view, (window[:0], *view[1:])], "must be equal"),
    ):
        with pytest.raises(ValueError, match=message):
            decoder.begin_views(sample, views, False)
    images = np.zeros((1, 8, 8, 3), np.uint8)
    decoder.begin_views(sample, [view, view], False)
    with pytest.raises(ValueError, match="images of 1 views; expected 2"):
        decoder.finish_views(sample, [jpeg.Images(images)])
    for wrong in (images[:, :, ::2], images[:, ::-1], images.transpose(0, 2, 1, 3)):
        with pytest.raises(ValueError, match="not C-contiguous"):
            jpeg.Images(wrong)
    for wrong in (
        np.zeros((3, 8, 8, 3), np.uint8)[::-1],
        np.lib.stride_tricks.as_strided(images, (2, 8, 8, 3), (64, 24, 3, 1)),
    ):
        with pytest.raises(ValueError, match="the images begin every"):
            jpeg.Images(wrong)
