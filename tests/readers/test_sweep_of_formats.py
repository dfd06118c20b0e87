"""Every kind of PNG, TIFF, BMP, WebP and GIF: the right pixels, or an error that names the reason."""

import io
import warnings

import numpy as np
import pytest
import rasters
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pictures import photograph
from PIL import Image, ImageOps

from highway.errors import DecodeError
from highway.modules.readers.masks import Masks
from highway.modules.readers.pictures.other_picture import OtherPicture

SIDES = st.integers(1, 9)
SEEDS = st.integers(0, 2**32 - 1)


def decoded(contents, gray):
    picture = OtherPicture(contents, gray=gray, oriented=True, max_pixels=10**6)
    array = picture.pixels()
    assert array.shape == (picture.height, picture.width, 1 if gray else 3)
    return array


class OneMask(Masks):
    """A mask that is in memory."""

    def __init__(self, contents):
        super().__init__(0, 10**6, "test", False)
        self._contents = contents

    def contents(self, index):
        return self._contents

    def describe(self, index):
        return "here"


def numbers(contents, height, width):
    """The numbers of a mask for a picture of this size."""
    return OneMask(contents).whole(0, (height, width), 1)


def by_pil(contents, gray):
    """What PIL makes of a file; None where it complains."""
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        try:
            with Image.open(io.BytesIO(contents)) as picture:
                picture = ImageOps.exif_transpose(picture)
                if picture.mode.startswith("I;16"):
                    array = (np.asarray(picture) >> 8).astype(np.uint8)
                    return np.repeat(array[:, :, None], 1 if gray else 3, axis=2)
                if picture.mode == "La":
                    picture = picture.convert("LA")
                if picture.mode in ("I", "F", "LAB"):
                    return None
                # What stands for alpha is dropped with it.
                picture.load()
                picture.info.pop("transparency", None)
                array = np.asarray(picture.convert("L" if gray else "RGB"))
        except (OSError, ValueError, SyntaxError, TypeError, KeyError):
            return None
    return None if complaints else array.reshape(*array.shape[:2], -1)


def colored(array, gray, palette=None):
    """RGB (H, W, 3) or gray (H, W) values, or numbers of colors (H, W), as the wanted array."""
    picture = Image.fromarray(np.ascontiguousarray(array, np.uint8))
    if palette is not None:
        picture.putpalette(np.asarray(palette, np.uint8).tobytes())
    array = np.asarray(picture.convert("L" if gray else "RGB"))
    return array.reshape(*array.shape[:2], -1)


def check(contents, gray, expected, *, read=True):
    """`expected` pixels; an error is allowed only where the kind need not be `read`."""
    found = reason = None
    try:
        found = decoded(contents, gray)
    except DecodeError as error:
        reason = str(error)
    if reason is not None:
        assert not read, reason
        assert "no picture of a known format" not in reason
        return
    np.testing.assert_array_equal(found, expected)


def draw_values(seed, height, width, samples, bits):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 1 << bits, (height, width, samples), np.uint64)
    # The ends of the range are where faults show.
    values[rng.random(values.shape) < 0.2] = (1 << bits) - 1
    values[rng.random(values.shape) < 0.2] = 0
    return values


def eight_bits(values, bits):
    """The stated rule: few bits are spread over 0 to 255, of many the upper 8 are kept."""
    return (values >> bits - 8 if bits > 8 else values * (255 // ((1 << bits) - 1))).astype(np.uint8)


# PNG

KINDS_OF_PNG = [
    *((0, bits) for bits in (1, 2, 4, 8, 16)),
    *((3, bits) for bits in (1, 2, 4, 8)),
    *((color, bits) for color in (2, 4, 6) for bits in (8, 16)),
]


@pytest.mark.parametrize("color, bits", KINDS_OF_PNG)
@given(SEEDS, SIDES, SIDES, st.booleans(), st.booleans(), st.booleans())
@settings(max_examples=25, deadline=None)
def test_png(color, bits, seed, height, width, interlaced, transparent, gray):
    samples = rasters.PNG_SAMPLES[color]
    values = draw_values(seed, height, width, samples, bits)
    palette = draw_values(seed, 1, 1 << bits, 3, 8)[0] if color == 3 else None
    before = []
    if transparent and color in (0, 2, 3):
        size = {0: 2, 2: 6, 3: 1 << bits}[color]
        before.append((b"tRNS", bytes(draw_values(seed, 1, size, 1, 8).ravel().tolist())))
    contents = rasters.png(values, bits, color, palette=palette, interlaced=interlaced, before=before)
    if color == 3:
        right = values[:, :, 0]
    else:
        right = eight_bits(values[:, :, : 3 if color in (2, 6) else 1], bits)
        right = right if right.shape[2] == 3 else right[:, :, 0]
    expected = colored(right, gray, palette)
    check(contents, gray, expected)
    pil = by_pil(contents, gray)
    assert pil is not None
    np.testing.assert_array_equal(pil, expected)
    if color == 3 or (color == 0 and bits in (1, 8)):
        np.testing.assert_array_equal(numbers(contents, height, width), values[:, :, 0])
    else:
        with pytest.raises(DecodeError, match="numbers of classes"):
            numbers(contents, height, width)


def test_png_of_no_kind():
    contents = rasters.png(np.zeros((2, 2, 3), int), 4, 2)
    with pytest.raises(DecodeError, match="PNG of color type 2 with 4 bits"):
        decoded(contents, False)


# TIFF

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
SAMPLES = {RGB: 3, CMYK: 4, YCBCR: 3, 8: 3, 9: 3, 10: 3}
# What is read in both byte orders, in strips and tiles, packed and not.
READ = {
    *((gray, bits) for gray in (WHITE_IS_ZERO, BLACK_IS_ZERO) for bits in (1, 2, 4, 8)),
    *((PALETTE, bits) for bits in (1, 2, 4, 8)),
    *((color, bits) for color in (RGB, CMYK) for bits in (8, 16)),
    (BLACK_IS_ZERO, 16),
}
# What PIL has in little-endian files alone.
LITTLE = {(BLACK_IS_ZERO, 12), (WHITE_IS_ZERO, 16)}


def right_of_tiff(values, bits, photometric):
    if photometric == PALETTE:
        return values[:, :, 0].astype(np.uint8)
    if photometric in (WHITE_IS_ZERO, BLACK_IS_ZERO):
        gray = eight_bits(values[:, :, 0], bits)
        return 255 - gray if photometric == WHITE_IS_ZERO else gray
    if photometric == RGB:
        return eight_bits(values[:, :, :3], bits)
    cmyk = Image.frombytes("CMYK", values.shape[1::-1], eight_bits(values[:, :, :4], bits).tobytes())
    return np.asarray(cmyk.convert("RGB"))


def upright(array, orientation):
    """PIL's exif_transpose, of an array (H, W, C)."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(array if array.shape[2] > 1 else array[:, :, 0])
    picture.info["exif"] = exif.tobytes()
    turned = np.asarray(ImageOps.exif_transpose(picture))
    return turned.reshape(*turned.shape[:2], array.shape[2])


@st.composite
def layouts(draw):
    return {
        "order": draw(st.sampled_from("<>")),
        "big": draw(st.booleans()),
        "planes": draw(st.booleans()),
        "fill_order": draw(st.sampled_from([1, 1, 2])),
        "compression": draw(st.sampled_from([1, 8])),
        "strip_rows": draw(st.sampled_from([None, 1, 2, 3])),
        "tile": draw(st.sampled_from([None, None, (16, 16), (16, 32)])),
        "orientation": draw(st.sampled_from([None, *range(1, 9)])),
    }


EXTRAS = st.sampled_from([(), (), (0,), (2,), (0, 0)])


@pytest.mark.parametrize("photometric, bits", sorted(READ | LITTLE))
@given(SEEDS, SIDES, SIDES, st.sampled_from([None, 1]), layouts(), EXTRAS, st.booleans())
@settings(max_examples=60, deadline=None)
def test_tiff(photometric, bits, seed, height, width, form, layout, extra, gray):
    samples = SAMPLES.get(photometric, 1) + len(extra)
    values = draw_values(seed, height, width, samples, bits)
    palette = draw_values(seed, 1, 1 << bits, 3, 8)[0] if photometric == PALETTE else None
    contents = rasters.tiff(
        values, bits, photometric, palette=palette, sample_format=form, extra=extra, **layout
    )
    # Turned last: Pillow-SIMD rounds the gray of some pixels by where they lie in their row.
    right = upright(
        colored(right_of_tiff(values, bits, photometric), gray, palette), layout["orientation"] or 1
    )
    big_endian = layout["order"] == ">"
    read = not extra and layout["fill_order"] == 1 and not (layout["planes"] and samples > 1)
    read = read and not (big_endian and (layout["big"] or (photometric, bits) in LITTLE))
    check(contents, gray, right, read=read)
    if read and photometric == PALETTE and layout["orientation"] in (None, 1):
        np.testing.assert_array_equal(numbers(contents, height, width), values[:, :, 0])


@given(
    photometric=st.sampled_from([0, 1, 2, 3, 4, 5, 8, 9, 10, 32803, 32844, 34892]),
    bits=st.sampled_from([1, 2, 4, 6, 8, 10, 12, 14, 16, 24, 32, 64]),
    form=st.sampled_from([None, 1, 2, 3, 4, 5, 6]),
    seed=SEEDS,
    layout=layouts(),
    extra=EXTRAS,
)
@settings(max_examples=500, deadline=None)
def test_tiff_of_other_kinds(photometric, bits, form, seed, layout, extra):
    """Neither right nor wrong can be said of them."""
    assume(form in range(2, 7) or (photometric, bits) not in READ | LITTLE)
    values = draw_values(seed, 3, 5, SAMPLES.get(photometric, 1) + len(extra), min(bits, 62))
    contents = rasters.tiff(values, bits, photometric, sample_format=form, extra=extra, **layout)
    with pytest.raises(DecodeError, match=r"\(TIFF, |big-endian BigTIFF"):
        decoded(contents, False)


@pytest.mark.parametrize(
    "photometric, bits, form, what",
    [
        (1, 8, 2, "signed"),
        (1, 16, 2, "signed"),
        (1, 32, 2, "signed"),
        (0, 16, 2, "signed"),
        (2, 8, 2, "signed"),
        (1, 32, 3, "floating point"),
        (1, 16, 3, "floating point"),
        (1, 64, 6, "complex"),
        (1, 32, 1, "32 bits"),
        (1, 14, 1, "14 bits"),
        (0, 12, 1, "12 bits"),
        (2, 12, 1, "12 bits"),
        (8, 8, 1, r"CIE L\*a\*b\*"),
        (9, 8, 1, r"ICC L\*a\*b\*"),
        (10, 8, 1, r"ITU L\*a\*b\*"),
        (4, 1, 1, "transparency mask"),
        (32803, 8, 1, "color filter array"),
    ],
)
@pytest.mark.parametrize("compression", [1, 8])
def test_tiff_errors_say_what_the_file_is(photometric, bits, form, what, compression):
    values = np.zeros((3, 4, SAMPLES.get(photometric, 1)), np.uint64)
    contents = rasters.tiff(values, bits, photometric, sample_format=form, compression=compression)
    with pytest.raises(DecodeError, match=what):
        decoded(contents, False)
    with pytest.raises(DecodeError, match=what):
        numbers(contents, 3, 4)


@given(SEEDS, SIDES, SIDES, st.sampled_from([1, 2]), st.sampled_from("<>"), st.booleans())
@settings(max_examples=60, deadline=None)
def test_tiff_with_alpha(seed, height, width, kind, order, gray):
    """Premultiplied colors (kind 1) become what they were, as PIL does it."""
    for photometric, samples in ((RGB, 4), (BLACK_IS_ZERO, 2), (PALETTE, 2)):
        values = draw_values(seed, height, width, samples, 8)
        palette = draw_values(seed, 1, 256, 3, 8)[0] if photometric == PALETTE else None
        contents = rasters.tiff(values, 8, photometric, extra=(kind,), order=order, palette=palette)
        check(contents, gray, by_pil(contents, gray), read=kind == 2)


@given(SEEDS, SIDES, SIDES, st.sampled_from("<>"), st.booleans())
@settings(max_examples=30, deadline=None)
def test_tiff_of_ycbcr(seed, height, width, order, gray):
    """Within a level of what PIL makes of the same values: libtiff converts them."""
    values = draw_values(seed, height, width, 3, 8)
    options = {"order": order, "more": [(530, 3, [1, 1])]}
    packed = rasters.tiff(values, 8, YCBCR, compression=8, **options)
    picture = Image.frombytes("YCbCr", (width, height), values.astype(np.uint8).tobytes()).convert("RGB")
    difference = decoded(packed, gray).astype(int) - colored(np.asarray(picture), gray)
    assert np.abs(difference).max() <= 2
    with pytest.raises(DecodeError, match="YCbCr without compression"):
        decoded(rasters.tiff(values, 8, YCBCR, **options), gray)


@pytest.mark.parametrize("bits", [1, 8, 16])
def test_tiff_masks_are_the_numbers_that_are_stored(bits):
    values = draw_values(1, 3, 4, 1, bits)
    black, white = (rasters.tiff(values, bits, photometric) for photometric in (BLACK_IS_ZERO, WHITE_IS_ZERO))
    if bits < 16:
        np.testing.assert_array_equal(numbers(black, 3, 4), values[:, :, 0])
    with pytest.raises(DecodeError, match="numbers of classes"):
        numbers(white, 3, 4)


def test_tiff_with_too_few_strips():
    """PIL leaves rows black of which the file has nothing."""
    values = draw_values(1, 6, 4, 1, 8)
    contents = rasters.tiff(values, 8, BLACK_IS_ZERO, strip_rows=2)
    count = contents.index(b"\x11\x01\x04\0\x03\0\0\0") + 4
    with pytest.raises(DecodeError, match="2 strips or tiles of 2 x 4 pixels, expected 3"):
        decoded(contents[:count] + b"\x02" + contents[count + 1 :], False)


# BMP


@given(
    seed=SEEDS,
    height=SIDES,
    width=SIDES,
    bits=st.sampled_from([1, 2, 4, 8]),
    header=st.sampled_from([12, 40, 52, 56, 108, 124]),
    top_down=st.booleans(),
    palette=st.sampled_from(["any", "ramp", "black and white", "gray"]),
    gray=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_bmp_with_a_palette(seed, height, width, bits, header, top_down, palette, gray):
    """Palettes that PIL takes for gray, too: black and white in 8 bits, or the numbers themselves in 4."""
    colors = {
        "any": draw_values(seed, 1, 1 << bits, 3, 8)[0],
        "ramp": np.repeat(np.arange(1 << bits)[:, None], 3, axis=1),
        "black and white": np.array([[0] * 3, [255] * 3]),
        "gray": np.repeat(eight_bits(np.arange(1 << bits), bits)[:, None], 3, axis=1),
    }[palette]
    if header == 12:
        # Whose number of colors is not stored.
        colors = np.resize(colors, (1 << bits, 3))
        top_down = False
    values = draw_values(seed, height, width, 1, bits)[:, :, 0] % len(colors)
    data = rasters.bmp_rows(values, bits, top_down=top_down)
    contents = rasters.bmp(
        data, height, width, bits, palette=colors.tolist(), header=header, top_down=top_down
    )
    check(contents, gray, colored(values, gray, colors))
    np.testing.assert_array_equal(numbers(contents, height, width), values)


MASKS = {
    16: [None, (0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0), (0xF00, 0xF0, 0xF, 0)],
    24: [None, (0xFF0000, 0xFF00, 0xFF, 0)],
    32: [
        None,
        (0xFF0000, 0xFF00, 0xFF, 0),
        (0xFF000000, 0xFF0000, 0xFF00, 0),
        (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
        (0x3FF00000, 0xFFC00, 0x3FF, 0),
    ],
}


@given(
    seed=SEEDS,
    height=SIDES,
    width=SIDES,
    bits=st.sampled_from([16, 24, 32]),
    number=st.integers(0, 4),
    header=st.sampled_from([40, 56, 108, 124]),
    top_down=st.booleans(),
    gray=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_bmp_of_colors(seed, height, width, bits, number, header, top_down, gray):
    masks = MASKS[bits][number % len(MASKS[bits])]
    values = draw_values(seed, height, width, 1, bits)[:, :, 0]
    data = rasters.bmp_rows(values, bits, top_down=top_down)
    contents = rasters.bmp(
        data,
        height,
        width,
        bits,
        compression=0 if masks is None else 3,
        masks=masks,
        header=header,
        top_down=top_down,
    )
    fields = masks or {16: (0x7C00, 0x3E0, 0x1F, 0)}.get(bits, (0xFF0000, 0xFF00, 0xFF, 0))
    right = np.empty((height, width, 3), np.uint8)
    for channel, field in enumerate(fields[:3]):
        low = field & -field
        right[:, :, channel] = (values & field) // low * 255 // (field // low)
    check(contents, gray, colored(right, gray), read=masks in MASKS[bits][:3])


# Runs: an encoder, and a decoder of its own, move by move.


@st.composite
def moves(draw, most):
    """Moves that stay in a picture, and the numbers that they leave in it."""
    height, width = draw(SIDES), draw(st.integers(1, 20))
    canvas = np.zeros((height, width), np.uint8)
    found, x, y = [], 0, 0
    color = st.integers(0, most)
    while y < height:
        kinds = ["end of line"]
        if x < width:
            kinds += ["run", "run"]
            if width - x >= 3:
                kinds += ["pixels", "pixels"]
            kinds.append("delta")
        kind = draw(st.sampled_from(kinds))
        if kind == "run":
            length, pair = draw(st.integers(1, width - x)), (draw(color), draw(color))
            canvas[y, x : x + length] = [pair[k % 2] for k in range(length)] if most == 15 else pair[0]
            found.append(("run", length, pair))
            x += length
        elif kind == "pixels":
            length = draw(st.integers(3, width - x))
            colors = draw(st.lists(color, min_size=length, max_size=length))
            canvas[y, x : x + length] = colors
            found.append(("pixels", colors))
            x += length
        elif kind == "delta":
            right, up = draw(st.integers(0, width - x)), draw(st.integers(0, min(2, height - 1 - y)))
            found.append(("delta", right, up))
            x, y = x + right, y + up
        else:
            found.append(("end of line",))
            x, y = 0, y + 1
    return found, canvas


def runs(found, four_bits):
    data = b""
    for kind, *what in found:
        if kind == "run":
            length, (first, second) = what
            data += bytes([length, first << 4 | second if four_bits else first])
        elif kind == "pixels":
            colors = what[0]
            body = rasters.packed(np.array([colors]), 4 if four_bits else 8)
            data += bytes([0, len(colors)]) + body + bytes(len(body) & 1)
        elif kind == "delta":
            data += bytes([0, 2, *what])
        else:
            data += b"\0\0"
    return data + b"\0\1"


@pytest.mark.parametrize("bits", [4, 8])
@given(st.data(), SEEDS, st.booleans(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_bmp_of_runs(bits, data, seed, ramp, gray):
    found, canvas = data.draw(moves((1 << bits) - 1))
    height, width = canvas.shape
    colors = draw_values(seed, 1, 1 << bits, 3, 8)[0]
    if ramp:
        colors = np.repeat(np.arange(1 << bits)[:, None], 3, axis=1)
    contents = rasters.bmp(
        runs(found, bits == 4),
        height,
        width,
        bits,
        compression={8: 1, 4: 2}[bits],
        palette=colors.tolist(),
    )
    check(contents, gray, colored(canvas[::-1], gray, colors))
    np.testing.assert_array_equal(numbers(contents, height, width), canvas[::-1])


@pytest.mark.parametrize(
    "data, what",
    [
        (b"\x05\x11\x03\x22\0\0\x05\x33\0\1", "run to column 5 of row 1"),
        (b"\0\x06\1\2\3\4\5\6\0\0\x05\1\0\1", "run to column 6 of row 1"),
        (b"\0\2\x01\x05\x01\x01\0\1", "run to column 1 of row 6"),
        (b"\x05\x11\0\0\0\1", "end after row 1 of 2"),
        (b"\x05\x11\0\0\x03\x22", "cut off: its runs end in row 2 of 2"),
        (b"\x05\x11\0\0\0\x05\1\2\3", "cut off: its runs end in row 2 of 2"),
    ],
)
def test_runs_that_leave_the_picture(data, what):
    contents = rasters.bmp(data, 2, 5, 8, compression=1, palette=[[k, k, 0] for k in range(256)])
    for decode in (lambda: decoded(contents, False), lambda: numbers(contents, 2, 5)):
        with pytest.raises(DecodeError, match=what):
            decode()


def test_a_run_of_one_color_is_cut_at_the_end_of_its_row():
    contents = rasters.bmp(
        b"\x09\x07\0\0\x05\x03\0\1", 2, 5, 8, compression=1, palette=[[k, k, 0] for k in range(256)]
    )
    np.testing.assert_array_equal(numbers(contents, 2, 5), [[3] * 5, [7] * 5])


# GIF and WebP


@given(
    seed=SEEDS,
    height=SIDES,
    width=SIDES,
    room=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    at=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    transparent=st.sampled_from([None, 0, 7, 255]),
    disposal=st.integers(0, 3),
    ramp=st.booleans(),
    gray=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_gif(seed, height, width, room, at, transparent, disposal, ramp, gray):
    indices = draw_values(seed, height, width, 1, 8)[:, :, 0]
    palette = draw_values(seed, 1, 256, 3, 8)[0]
    if ramp:
        palette = np.repeat(np.arange(256)[:, None], 3, axis=1)
    screen = height + room[0], width + room[1]
    contents = rasters.gif(indices, palette, screen=screen, at=at, transparent=transparent, disposal=disposal)
    expected = by_pil(contents, gray)
    assert expected is not None
    check(contents, gray, expected)
    if at == room == (0, 0):
        np.testing.assert_array_equal(expected, colored(indices, gray, palette))
        np.testing.assert_array_equal(numbers(contents, height, width), indices)
    else:
        with pytest.raises(DecodeError, match="leaves a part of the picture open"):
            numbers(contents, height, width)


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize("gray", [False, True])
def test_webp(lossless, mode, frames, gray):
    first = photograph(31, 45, 3).convert(mode)
    if mode == "RGBA":
        first.putalpha(Image.linear_gradient("L").resize(first.size))
    file = io.BytesIO()
    others = [Image.new(mode, first.size)] * (frames - 1)
    first.save(file, "WEBP", lossless=lossless, save_all=frames > 1, append_images=others)
    expected = by_pil(file.getvalue(), gray)
    assert expected is not None
    check(file.getvalue(), gray, expected)
