"""Orientation: one rule for every format, that of PIL's exif_transpose; boxes and sizes go with the pixels."""

import io
import struct
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import opened
from PIL import Image
from stated_orientations import (
    BYTE,
    CORNER,
    HEIGHT,
    LAYOUTS,
    TEXTS,
    WIDTH,
    chunk,
    corner,
    exif_chunk,
    exif_data,
    exif_segment,
    jpeg_with,
    png_with,
    raw_profile,
    text_chunk,
    tiff_with,
    webp_with,
    xmp_data,
    xmp_segment,
)
from voc_folders import annotation, only_batch, thing, voc_folder

from highway._core.jpeg import codec as jpeg
from highway.errors import DecodeError
from highway.modules import ListReader, VOCReader
from highway.modules.readers.pictures.other_picture import OtherPicture
from highway.transforms import Stretch

# PIL warns of entries with several values, and of data that is cut.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

XMP = b"XML:com.adobe.xmp"
RAW = b"Raw profile type exif"


def turned(orientation):
    """The corner as PIL turns it: what an orientation means."""
    return np.asarray(opened(tiff_with(3, (orientation,))))


def byte_in(exif, directory):
    """What an entry of the type BYTE states, which PIL takes for no number; None where there is no such entry."""
    value = exif.get(0x0112)
    if isinstance(value, bytes) and directory.tagtype[0x0112] == BYTE:
        return value[0] if 1 <= value[0] <= 8 else 1
    return None


def orientation_by_pil(contents):
    """Which of the eight PIL shows; an entry of the type BYTE counts besides."""
    with Image.open(io.BytesIO(contents)) as image:
        image.load()
        exif = image.getexif()
        stated = byte_in(exif, image.tag_v2 if image.format == "TIFF" else exif._info)
    if stated is not None:
        return stated
    shown = np.asarray(opened(contents))
    return next(
        k
        for k in range(1, 9)
        if (expected := turned(k)).shape == shown.shape and np.abs(expected.astype(int) - shown).max() < 40
    )


def read(path, contents, size, **options):
    path.write_bytes(contents)
    reader = ListReader(
        [path],
        None,
        1,
        size,
        boxes=[[CORNER]],
        fit=Stretch(),
        epochs=1,
        exact=True,
        placement=True,
        **options,
    )
    return only_batch(reader)


def assert_shown(path, contents, orientation):
    """Pixels, box and size are those of the upright picture; of the stored one with ``exif=False``."""
    for number, exif in ((orientation, True), (1, False)):
        expected = turned(number)
        batch = read(path, contents, expected.shape[:2], exif=exif)
        assert batch.picture_sizes.tolist() == [list(expected.shape[:2])]
        assert np.abs(batch.images[0].astype(int) - expected).max() < 40
        assert batch.boxes.tolist() == [list(Image.fromarray(expected).getbbox())]


def tiff_by_pil(**options):
    buffer = io.BytesIO()
    corner().save(buffer, "TIFF", **options)
    return buffer.getvalue()


CASES = {
    # Where PIL finds it, and what it finds: contents, orientation.
    "JPEG, EXIF behind the frame": (lambda: jpeg_with(behind_frame=[exif_segment(exif_data())]), 6),
    "JPEG, two, the first counts": (
        lambda: jpeg_with(exif_segment(exif_data(3, (1,))), exif_segment(exif_data())),
        1,
    ),
    "JPEG, two, the first has none": (
        lambda: jpeg_with(exif_segment(exif_data(None)), exif_segment(exif_data())),
        1,
    ),
    "JPEG, two, the first is empty": (lambda: jpeg_with(exif_segment(b""), exif_segment(exif_data())), 6),
    "JPEG, two, the first is damaged": (
        lambda: jpeg_with(exif_segment(b"nothing of TIFF"), exif_segment(exif_data())),
        1,
    ),
    "JPEG, two parts of one": (
        lambda: jpeg_with(exif_segment(exif_data(at=60)[:50]), exif_segment(exif_data(at=60)[50:])),
        6,
    ),
    "JPEG, cut inside the entry": (
        lambda: jpeg_with(exif_segment(exif_data()[:20]), exif_segment(exif_data()[20:])),
        6,
    ),
    "JPEG, XMP": (lambda: jpeg_with(xmp_segment(xmp_data(6))), 6),
    "JPEG, XMP, an element": (lambda: jpeg_with(xmp_segment(xmp_data(8, True))), 8),
    "JPEG, two of XMP, the last counts": (
        lambda: jpeg_with(xmp_segment(xmp_data(3)), xmp_segment(xmp_data(5))),
        5,
    ),
    "JPEG, EXIF before XMP": (
        lambda: jpeg_with(xmp_segment(xmp_data(8)), exif_segment(exif_data(3, (3,)))),
        3,
    ),
    "JPEG, EXIF without it, XMP": (
        lambda: jpeg_with(exif_segment(exif_data(None)), xmp_segment(xmp_data(7))),
        7,
    ),
    "JPEG, EXIF of 1, XMP": (
        lambda: jpeg_with(exif_segment(exif_data(3, (1,))), xmp_segment(xmp_data(7))),
        1,
    ),
    "JPEG, EXIF damaged, XMP": (lambda: jpeg_with(exif_segment(b"nothing"), xmp_segment(xmp_data(7))), 1),
    "JPEG, EXIF cut, XMP": (
        lambda: jpeg_with(exif_segment(exif_data()[:15]), xmp_segment(xmp_data(7))),
        7,
    ),
    "JPEG, XMP of 9": (lambda: jpeg_with(xmp_segment(xmp_data(9))), 1),
    "PNG, eXIf": (lambda: png_with(exif_chunk(exif_data())), 6),
    "PNG, eXIf behind": (lambda: png_with(behind=[exif_chunk(exif_data())]), 6),
    "PNG, eXIf before and behind": (
        lambda: png_with(exif_chunk(exif_data(3, (3,))), behind=[exif_chunk(exif_data(3, (8,)))]),
        8,
    ),
    "PNG, raw profile": (lambda: png_with(text_chunk(b"tEXt", RAW, raw_profile(exif_data()))), 6),
    "PNG, raw profile behind": (
        lambda: png_with(behind=[text_chunk(b"zTXt", RAW, raw_profile(exif_data()))]),
        6,
    ),
    "PNG, raw profile, eXIf counts": (
        lambda: png_with(
            exif_chunk(exif_data(3, (3,))), behind=[text_chunk(b"iTXt", RAW, raw_profile(exif_data()))]
        ),
        3,
    ),
    "PNG, text exif": (lambda: png_with(text_chunk(b"tEXt", b"exif", exif_data())), 6),
    "PNG, raw profile APP1, which PIL does not read": (
        lambda: png_with(text_chunk(b"tEXt", b"Raw profile type APP1", raw_profile(exif_data()))),
        1,
    ),
    "PNG, XMP behind": (lambda: png_with(behind=[text_chunk(b"iTXt", XMP, xmp_data(8))]), 8),
    "PNG, XMP compressed": (lambda: png_with(text_chunk(b"iTXt", XMP, xmp_data(7), True)), 7),
    "PNG, XMP in another kind of text": (lambda: png_with(text_chunk(b"tEXt", XMP, xmp_data(7))), 7),
    "PNG, XMP that is no UTF-8": (lambda: png_with(text_chunk(b"iTXt", XMP, xmp_data(5) + b"\xff")), 5),
    "PNG, two of XMP, one no UTF-8": (
        lambda: png_with(
            text_chunk(b"iTXt", XMP, xmp_data(5)), text_chunk(b"iTXt", XMP, xmp_data(3) + b"\xff")
        ),
        5,
    ),
    "PNG, EXIF without it, XMP behind": (
        lambda: png_with(exif_chunk(exif_data(None)), behind=[text_chunk(b"iTXt", XMP, xmp_data(2))]),
        2,
    ),
    "PNG, behind an IEND": (lambda: png_with(behind=[chunk(b"IEND", b""), exif_chunk(exif_data())]), 1),
    "WebP": (lambda: webp_with(exif_data(4, (8,), ">")), 8),
    "WebP, with a mark": (lambda: webp_with(b"Exif\0\0" + exif_data()), 6),
    "WebP, XMP": (lambda: webp_with(xmp=xmp_data(6)), 6),
    "WebP, both": (lambda: webp_with(exif_data(9, (4,)), xmp_data(6)), 4),
    "TIFF": (lambda: tiff_with(3, (6,), at=200), 6),
    "TIFF, LONG": (lambda: tiff_with(4, (5,), ">"), 5),
    "TIFF, XMP": (lambda: tiff_with(xmp=xmp_data(6)), 6),
    "TIFF, XMP that keeps the sides": (lambda: tiff_with(xmp=xmp_data(3)), 3),
    "TIFF, compressed": (lambda: tiff_by_pil(compression="tiff_lzw", tiffinfo={0x0112: 8}), 8),
    "TIFF, compressed, XMP": (lambda: tiff_by_pil(compression="tiff_lzw", tiffinfo={700: xmp_data(5)}), 5),
    "BigTIFF": (lambda: tiff_by_pil(big_tiff=True, tiffinfo={0x0112: 6}), 6),
    "TIFF, several pages": (
        lambda: tiff_by_pil(save_all=True, append_images=[corner()], tiffinfo={0x0112: 6}),
        6,
    ),
    "TIFF, both": (lambda: tiff_with(3, (2,), xmp=xmp_data(6)), 2),
}


@pytest.mark.parametrize("case", CASES)
def test_where_it_is_found(tmp_path, case):
    make, orientation = CASES[case]
    contents = make()
    assert orientation_by_pil(contents) == orientation
    assert_shown(tmp_path / "a", contents, orientation)


FORMATS = {
    "JPEG": lambda *exif: jpeg_with(exif_segment(exif_data(*exif))),
    "PNG": lambda *exif: png_with(behind=[exif_chunk(exif_data(*exif))]),
    "WebP": lambda *exif: webp_with(exif_data(*exif)),
    "TIFF": tiff_with,
}


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("type_", LAYOUTS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_numbers_of_every_type_count(tmp_path, format_, type_, count):
    """Of several the first; text and untyped bytes do not."""
    for order, value in (("<", 6), (">", 3), ("<", 1), (">", 0), ("<", 9)):
        contents = FORMATS[format_](type_, (value, 8, 8, 8, 8)[:count], order)
        expected = value if 1 <= value <= 8 and type_ not in TEXTS else 1
        assert orientation_by_pil(contents) == expected
        assert_shown(tmp_path / "a", contents, expected)


numbers = st.one_of(st.integers(1, 8), st.integers(0, 100))
entries = st.tuples(
    st.sampled_from([None, *LAYOUTS]),
    st.lists(numbers, min_size=1, max_size=4),
    st.sampled_from("<>"),
    st.integers(8, 40),
)
properties = st.one_of(st.none(), st.builds(xmp_data, st.integers(0, 9), st.booleans()))


@st.composite
def jpegs(draw):
    exifs = [exif_data(*entry) for entry in draw(st.lists(entries, max_size=2))]
    if len(exifs) == 1 and draw(st.booleans()):
        at = draw(st.integers(8, len(exifs[0])))
        exifs = [exifs[0][:at], exifs[0][at:]]
    parts = [exif_segment(exif) for exif in exifs]
    xmps = draw(st.lists(properties, max_size=2))
    for xmp in filter(None, xmps):
        parts.insert(draw(st.integers(0, len(parts))), xmp_segment(xmp))
    split = draw(st.integers(0, len(parts)))
    return jpeg_with(*parts[:split], behind_frame=parts[split:])


@st.composite
def pngs(draw):
    parts = []
    for entry in draw(st.lists(entries, max_size=2)):
        exif = exif_data(*entry)
        kind = draw(st.sampled_from([b"eXIf", b"tEXt", b"zTXt", b"iTXt"]))
        parts.append(exif_chunk(exif) if kind == b"eXIf" else text_chunk(kind, RAW, raw_profile(exif)))
    for xmp in filter(None, draw(st.lists(properties, max_size=2))):
        kind = draw(st.sampled_from([b"tEXt", b"zTXt", b"iTXt"]))
        parts.append(text_chunk(kind, XMP, xmp, draw(st.booleans())))
    parts = draw(st.permutations(parts))
    split = draw(st.integers(0, len(parts)))
    return png_with(*parts[:split], behind=parts[split:])


@st.composite
def webps(draw):
    exif = draw(st.one_of(st.just(b""), entries.map(lambda entry: exif_data(*entry))))
    return webp_with(draw(st.sampled_from([b"", b"Exif\0\0"])) + exif, draw(properties) or b"")


@st.composite
def tiffs(draw):
    return tiff_with(*draw(entries), xmp=draw(properties))


@pytest.mark.parametrize("contents", [jpegs(), pngs(), webps(), tiffs()], ids=["JPEG", "PNG", "WebP", "TIFF"])
def test_as_pil(tmp_path, contents):
    @given(contents)
    @settings(max_examples=60, deadline=None, database=None)
    def run(made):
        assert_shown(tmp_path / "a", made, orientation_by_pil(made))

    run()


# Hostile data


def orientation_of_exif(exif):
    """As `exif_transpose` takes it from PIL's reading of EXIF data; None where there is none, 1 where it raises."""
    read = Image.Exif()
    try:
        read.load(exif)
        stated = byte_in(read, read._info)
    except (SyntaxError, struct.error):
        return 1
    if stated is not None:
        return stated
    return next((k for k in range(2, 9) if k == read[0x0112]), 1) if 0x0112 in read else None


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_damaged_exif_is_read_as_pil_reads_it(data):
    type_ = data.draw(st.sampled_from([*LAYOUTS]))
    others = [(0x010F, 2, 9, b"a camera\0"), (0x011A, 5, 1, bytes([72, 0, 0, 0, 1, 0, 0, 0]))]
    exif = bytearray(exif_data(type_, data.draw(st.lists(numbers, min_size=1, max_size=3)), others=others))
    for at in data.draw(st.lists(st.integers(0, len(exif) - 1), max_size=3)):
        exif[at] = data.draw(st.sampled_from([0, 1, 3, 6, 9, 255]))
    exif = bytes(exif[: data.draw(st.integers(len(exif) // 2, len(exif)))])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        expected = orientation_of_exif(exif)
    # Pillow 13 passes over such an entry, earlier ones end there as Highway does.
    if not any("larger than file" in str(warning.message) for warning in warned):
        assert jpeg.orientation(exif, b"tiff:Orientation>7") == (expected or 7)


def test_damage_that_pil_reads_past():
    cut = exif_data(others=[(0x010F, 2, 50, b"a camera that is cut")])
    assert jpeg.orientation(cut, None) == 1 and jpeg.orientation(cut, xmp_data(7)) == 7
    unknown = exif_data(others=[(0x010F, 99, 1 << 30, b"what")])
    assert jpeg.orientation(unknown, None) == 6
    none = exif_data(others=[(0x010F, 2, 0, b"")])
    assert jpeg.orientation(none, None) == 6
    whole = exif_data(12, (6,))
    for size in range(len(whole)):
        assert jpeg.orientation(whole[:size], None) == 1
    for begin, found in ((b"II\0*", 6), (b"II+\0", 1), (b"IM*\0", 1), (b"MM*\0", 1), (b"XX*\0", 1)):
        assert jpeg.orientation(begin + exif_data()[4:], None) == found
    for begin, found in ((b"MM*\0", 6), (b"MM\0+", 6), (b"II*\0", 1)):
        assert jpeg.orientation(begin + exif_data(order=">")[4:], None) == found


@pytest.mark.parametrize("offset", [0, 1, 7, 9, 1 << 16, (1 << 32) - 1])
def test_directories_anywhere(offset):
    exif = exif_data()
    exif = exif[:4] + struct.pack("<L", offset) + exif[8:]
    assert jpeg.orientation(exif, xmp_data(7)) in (1, 7)


@pytest.mark.parametrize(
    "text, found",
    [
        (b"", 1),
        (b"tiff:Orientation", 1),
        (b"tiff:Orientation=", 1),
        (b'tiff:Orientation="', 1),
        (b'tiff:Orientation="6', 6),
        (b"tiff:Orientation>", 1),
        (b"tiff:Orientation>8", 8),
        (b"tiff:Orientation>0 tiff:Orientation>8", 1),
        (b"tiff:Orientation> 8 tiff:Orientation>3", 3),
        (b"exif:Orientation>8", 1),
        (b"tiff:tiff:Orientation>8", 8),
        (b"OOOOOtiff:OOrientationtiff:Orientation>85", 8),
    ],
)
def test_xmp(text, found):
    assert jpeg.orientation(None, text) == found
    assert jpeg.orientation(b"", text) == found
    assert jpeg.orientation(b"Exif\0\0", text) == found


def test_more_parts_than_are_kept():
    parts = [exif_segment(part) for part in (exif_data(None), *[b"more"] * 100)]
    contents = jpeg_with(*parts, xmp_segment(xmp_data(6)))
    decoder = jpeg.BatchDecoder()
    ((status, height, width),) = decoder.read_contents([contents])
    decoder.close()
    assert (status, height, width) == (jpeg.OK, WIDTH, HEIGHT)


def test_chunks_of_a_png_that_lie():
    """Whatever stands behind the pixels, the header is read as far as it goes."""
    odd = [
        chunk(b"iTXt", XMP),
        chunk(b"iTXt", XMP + b"\0\0"),
        chunk(b"iTXt", XMP + b"\0\0\0"),
        chunk(b"iTXt", XMP + b"\0\1\0\0\0nothing that was compressed"),
        chunk(b"iTXt", XMP + b"\0\1\7\0\0" + xmp_data(3)),
        chunk(b"zTXt", XMP),
        chunk(b"zTXt", XMP + b"\0\0nothing that was compressed"),
        chunk(b"tEXt", XMP),
        chunk(b"tEXt", b""),
        chunk(b"iTXt", XMP + b"\0\0\0\0\0"),
    ]
    contents = png_with(behind=[text_chunk(b"iTXt", XMP, xmp_data(6)), *odd[:5]])
    assert orientation_by_pil(contents) == 6
    assert OtherPicture(contents, gray=False, oriented=True, max_pixels=10**6).orientation == 6
    # Empty text takes the place of text, but only that of iTXt for good.
    for last, found in ((-1, 6), (None, 1)):
        contents = png_with(behind=[text_chunk(b"iTXt", XMP, xmp_data(6)), *odd[:last]])
        assert orientation_by_pil(contents) == found
        assert OtherPicture(contents, gray=False, oriented=True, max_pixels=10**6).orientation == found
    cut = png_with(behind=[struct.pack(">I", 1 << 31) + b"eXIf" + exif_data()])
    picture = OtherPicture(cut, gray=False, oriented=True, max_pixels=10**6)
    assert picture.orientation == 1
    with pytest.raises(DecodeError, match="cannot be decoded"):
        picture.pixels()
    for text in (b"no digits", b"\n\n\nzz", b""):
        contents = png_with(text_chunk(b"tEXt", RAW, text), text_chunk(b"iTXt", XMP, xmp_data(6)))
        assert OtherPicture(contents, gray=False, oriented=True, max_pixels=10**6).orientation == 6


@pytest.mark.parametrize("frames, outside, found", [(1, False, 6), (2, False, 3), (1, True, 3)])
def test_exif_of_a_later_frame_of_a_png(frames, outside, found):
    """What stands behind the beginning of the next frame does not count; PIL has not read it."""
    control = struct.pack(">IIIIIHHBB", 0, WIDTH, HEIGHT, 0, 0, 1, 10, 0, 0)
    contents = png_with(
        chunk(b"acTL", struct.pack(">II", frames, 0)),
        *([] if outside else [chunk(b"fcTL", control)]),
        exif_chunk(exif_data(3, (3,))),
        behind=[
            chunk(b"fcTL", control if outside else struct.pack(">I", 1) + control[4:]),
            exif_chunk(exif_data()),
        ],
    )
    assert orientation_by_pil(contents) == found
    assert OtherPicture(contents, gray=False, oriented=True, max_pixels=10**6).orientation == found


def test_sixteen_bits_are_turned():
    wide = Image.fromarray(np.arange(24 * 36, dtype=np.uint16).reshape(24, 36) * 70)
    exif = Image.Exif()
    exif[0x0112] = 6
    for format_ in ("TIFF", "PNG"):
        buffer = io.BytesIO()
        wide.save(buffer, format_, exif=exif)
        for oriented, back in ((True, 1), (False, 0)):
            picture = OtherPicture(buffer.getvalue(), gray=True, oriented=oriented, max_pixels=10**6)
            stored = np.rot90(picture.pixels()[:, :, 0], back)
            np.testing.assert_array_equal(stored, np.asarray(wide) >> 8)


@pytest.mark.parametrize(
    "ending, contents", [("tif", tiff_with(4, (6,))), ("png", CASES["PNG, eXIf behind"][0]())]
)
def test_voc(tmp_path, ending, contents):
    """<size> is that of the picture as it is stored, or upright; the box is of the one that it says."""
    for number, (size, box) in enumerate((((16, 32), (1, 1, 16, 8)), ((32, 16), (9, 1, 16, 16)))):
        folder = voc_folder(tmp_path / f"{number}", {"a": annotation(thing(box=box), size=size)})
        (folder / "JPEGImages/a.jpg").unlink()
        (folder / f"JPEGImages/a.{ending}").write_bytes(contents)
        batch = only_batch(VOCReader(folder, 1, (32, 16), fit=Stretch(), epochs=1))
        assert batch.boxes.tolist() == [[8, 0, 16, 16]]
        np.testing.assert_array_equal(batch.images[0], turned(6))
    assert corner().size == (WIDTH, HEIGHT)
