"""Readers with dtype="uint16": all bits of the files, and everything else as with uint8."""

import io
import itertools

import numpy as np
import pytest
import rasters
from concurrency import LIMIT
from pictures import class_folders, jpeg_bytes, photograph
from PIL import Image, ImageOps
from stated_orientations import exif_data

from highway._core.jpeg import codec as jpeg
from highway.engine import Pipeline
from highway.errors import ArgumentError, DecodeError
from highway.modules import (
    Augmentations,
    Encoded,
    ImageFileReader,
    LevelDBImageReader,
    LevelDBSink,
    LevelDBSource,
    ListReader,
    ZMQSink,
    ZMQSource,
)
from highway.modules.readers.pictures.other_picture import OtherPicture
from highway.transforms import CenterFit, FlipX, FlipY, Letterbox, Normalize, RandomResizedCrop, Stretch

HEIGHT, WIDTH = 13, 22


def numbers(samples, seed=0):
    """Numbers of 16 bits, with both ends of the range."""
    found = np.random.default_rng(seed).integers(0, 65536, (HEIGHT, WIDTH, samples), dtype=np.uint16)
    found[0], found[1] = 0, 65535
    return found


def luma(rgb):
    sums = rgb.astype(np.int64) @ np.array([19595, 38470, 7471])
    return ((sums + 0x8000) >> 16).astype(np.uint16)[..., None]


def read(folder, contents, *, size=(HEIGHT, WIDTH), fit=None, **options):
    """The image of one file, uint16 (H, W, C)."""
    path = folder / "file"
    path.write_bytes(contents)
    reader = ListReader([path], [0], 1, size, fit=fit or Stretch(), epochs=1, dtype="uint16", **options)
    with Pipeline([reader]) as pipeline:
        images, _ = pipeline.dequeue()
    assert images.dtype == np.uint16
    return images[0]


def check(folder, contents, rgb, gray=None):
    """The file has these numbers of RGB, and their luma."""
    np.testing.assert_array_equal(read(folder, contents), np.broadcast_to(rgb, (*rgb.shape[:2], 3)))
    found = read(folder, contents, color="gray")
    np.testing.assert_array_equal(found, luma(rgb) if gray is None else gray)


@pytest.mark.parametrize("color", [0, 2, 4, 6])
@pytest.mark.parametrize("interlaced", [False, True])
def test_png(tmp_path, color, interlaced):
    stored = numbers(rasters.PNG_SAMPLES[color], color)
    contents = rasters.png(stored, 16, color, interlaced=interlaced, filters=(4, 0, 3, 1, 2))
    rgb = stored[..., :3] if color in (2, 6) else np.repeat(stored[..., :1], 3, axis=2)
    check(tmp_path, contents, rgb)


@pytest.mark.parametrize("color", [0, 2, 4, 6])
def test_png_with_compressed_metadata(tmp_path, color):
    """Files that Highway's decoder leaves to PIL, which has only 8 bits of color."""
    stored = numbers(rasters.PNG_SAMPLES[color], color)
    text = rasters.zlib.compress(b"\nexif\n      10\n49492a00080000000000\n")
    before = [(b"zTXt", b"Raw profile type exif\0\0" + text)]
    contents = rasters.png(stored, 16, color, before=before)
    decoder = jpeg.BatchDecoder()
    assert decoder.read_contents([contents])[0, 0] != jpeg.OK
    decoder.close()
    rgb = stored[..., :3] if color in (2, 6) else np.repeat(stored[..., :1], 3, axis=2)
    check(tmp_path, contents, rgb)


def test_png_as_pil_writes_it(tmp_path):
    stored = numbers(1)[..., 0]
    file = io.BytesIO()
    Image.fromarray(stored).save(file, "PNG")
    check(tmp_path, file.getvalue(), stored[..., None], stored[..., None])


def test_damaged_png(tmp_path):
    contents = bytearray(rasters.png(numbers(3), 16, 2))
    contents[-30] ^= 0xFF
    with pytest.raises(DecodeError, match=r"file.*damaged"):
        read(tmp_path, bytes(contents))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_pictures(tmp_path, orientation):
    stored = numbers(3)
    exif = [(b"eXIf", exif_data(values=(orientation,)))]
    # PIL turns the two bytes of each number separately.
    low, high = (
        ImageOps.exif_transpose(Image.open(io.BytesIO(rasters.png(half, 8, 2, before=exif))))
        for half in (stored & 255, stored >> 8)
    )
    expected = np.asarray(low).astype(np.uint16) | np.asarray(high).astype(np.uint16) << 8
    png = rasters.png(stored, 16, 2, before=exif)
    np.testing.assert_array_equal(read(tmp_path, png, size=expected.shape[:2]), expected)
    tiff = rasters.tiff(stored, 16, 2, orientation=orientation)
    np.testing.assert_array_equal(read(tmp_path, tiff, size=expected.shape[:2]), expected)
    np.testing.assert_array_equal(read(tmp_path, png, exif=False), stored)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("options", [{}, {"compression": 8}, {"strip_rows": 5, "compression": 8}])
@pytest.mark.parametrize("samples", [1, 3, 4])
def test_tiff(tmp_path, order, options, samples):
    stored = numbers(samples, samples)
    extra = (2,) if samples == 4 else ()
    contents = rasters.tiff(stored, 16, 1 if samples == 1 else 2, order=order, extra=extra, **options)
    check(tmp_path, contents, stored[..., :3], stored if samples == 1 else None)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_tiff_of_differences(tmp_path, big, tile):
    """Tag 317: each number is the difference from its neighbor to the left, in its strip or tile."""
    stored = numbers(3)
    part = stored
    if tile:
        part = np.zeros((16, 32, 3), np.uint16)
        part[:HEIGHT, :WIDTH] = stored
    differences = part.copy()
    differences[:, 1:] -= part[:, :-1]
    if tile:
        differences[:, 16] = part[:, 16]
    contents = rasters.tiff(differences, 16, 2, compression=8, tile=tile, big=big, more=[(317, 3, [2])])
    found = read(tmp_path, contents, size=part.shape[:2])
    np.testing.assert_array_equal(found, part)


def test_tiff_as_pil_and_libtiff_write_it(tmp_path):
    stored = numbers(1)[..., 0]
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        file = io.BytesIO()
        Image.fromarray(stored).save(file, "TIFF", compression=compression)
        check(tmp_path, file.getvalue(), stored[..., None], stored[..., None])


def test_tiff_of_other_kinds(tmp_path):
    stored = numbers(1)
    check(tmp_path, rasters.tiff(stored, 16, 0), 65535 - stored, 65535 - stored)
    twelve = stored >> 4
    scaled = twelve << 4 | twelve >> 8
    assert (scaled.min(), scaled.max()) == (0, 65535)
    check(tmp_path, rasters.tiff(twelve, 12, 1), scaled, scaled)
    colors = numbers(4)
    divided = np.minimum(colors[..., :3].astype(int) * 65535 // np.maximum(colors[..., 3:], 1), 65535)
    check(tmp_path, rasters.tiff(colors, 16, 2, extra=(1,)), divided.astype(np.uint16))
    with pytest.raises(DecodeError, match=r'colors of 16 bits in planes.*dtype="uint8"'):
        read(tmp_path, rasters.tiff(numbers(3), 16, 2, planes=True, compression=8))
    for samples in (1, 2):
        with pytest.raises(
            DecodeError, match=f"is damaged: colors of {samples} numbers .*expected 3 or more"
        ):
            read(tmp_path, rasters.tiff(numbers(3)[..., :samples], 16, 2))


def pgm(values, most, comment=b""):
    head = b"P5\n%s%d %d\n%d\n" % (comment, values.shape[1], values.shape[0], most)
    return head + values[..., 0].astype(">u2" if most > 255 else np.uint8).tobytes()


def test_pgm(tmp_path):
    stored = numbers(1)
    check(tmp_path, pgm(stored, 65535), stored, stored)
    check(tmp_path, pgm(stored, 65535, b"# depth in mm\r\n# 2\n"), stored, stored)
    small = (stored >> 8).astype(np.uint16)
    check(tmp_path, pgm(small, 255), small * 257, small * 257)
    scaled = ((stored % 1001).astype(int) * 65535 + 500) // 1000
    check(tmp_path, pgm(stored % 1001, 1000), scaled, scaled)
    for file, most in ((pgm(small, 255), 255), (pgm(stored, 65535), 65535)):
        ours = OtherPicture(file, gray=True, oriented=True, max_pixels=10**6).pixels()
        theirs = np.asarray(Image.open(io.BytesIO(file)))
        np.testing.assert_array_equal(ours[..., 0], theirs >> 8 if most > 255 else theirs)
    for contents, message in (
        (pgm(stored, 65535)[:-1], "is cut off: 572 bytes of pixels begin at byte 15, the file has 586"),
        (pgm(stored, 1000), "is damaged: a value of 65535 in a PGM of values up to 1000"),
        (pgm(stored, 70000), "up to 70000; expected 1 or more, up to 1 to 65535"),
        (b"P5 0 3 255 ", "3 x 0 pixels"),
        (b"P5 10", "without width, height and largest value"),
    ):
        with pytest.raises(DecodeError, match=message):
            read(tmp_path, contents)


def test_eight_bits_are_widened(tmp_path):
    """JPEG, PNG, WebP, BMP, GIF and TIFF of 8 bits: 257 times what a reader of uint8 gives."""
    picture = photograph(HEIGHT, WIDTH)
    files = [jpeg_bytes(picture), jpeg_bytes(picture, progressive=True)]
    for format_ in ("PNG", "WEBP", "BMP", "GIF", "TIFF"):
        file = io.BytesIO()
        picture.save(file, format_)
        files.append(file.getvalue())
    file = io.BytesIO()
    picture.convert("1").save(file, "PNG")
    files += [file.getvalue(), rasters.png(numbers(1) >> 12, 4, 0)]
    for contents, color in itertools.product(files, ("rgb", "gray")):
        found = read(tmp_path, contents, color=color)
        reader = ListReader(
            [tmp_path / "file"], [0], 1, (HEIGHT, WIDTH), fit=Stretch(), epochs=1, color=color
        )
        with Pipeline([reader]) as pipeline:
            bytes_, _ = pipeline.dequeue()
        np.testing.assert_array_equal(found, bytes_[0].astype(np.uint16) * 257)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of 8 and 16 bits, in every path of decoding."""
    root = class_folders(tmp_path_factory.mktemp("data"), classes=2, each=3, size=(40, 50))
    rng = np.random.default_rng(3)
    for k, (samples, color) in enumerate(((3, 2), (1, 0), (4, 6))):
        stored = rng.integers(0, 65536, (30 + k, 45, samples))
        (root / "class0" / f"deep{k}.png").write_bytes(rasters.png(stored, 16, color))
        tiff = rasters.tiff(stored[..., : 3 if samples > 1 else 1], 16, 2 if samples > 1 else 1)
        (root / "class1" / f"deep{k}.tif").write_bytes(tiff)
    turned = rasters.png(rng.integers(0, 65536, (31, 44, 3)), 16, 2, before=[(b"eXIf", exif_data())])
    (root / "class1" / "turned.png").write_bytes(turned)
    return root


FITS = [
    CenterFit(),
    Stretch(interpolation="box"),
    Letterbox(fill=(100, 200, 255)),
    RandomResizedCrop(),
    CenterFit(interpolation="nearest"),
]


def batches(folder, fit, dtype, *more, shape=(24, 20), **options):
    reader = ImageFileReader(folder, 4, shape, fit=fit, dtype=dtype, epochs=1, seed=5, exact=True, **options)
    with Pipeline([reader, *more]) as pipeline:
        return list(pipeline.forever())


@pytest.mark.parametrize("fit", FITS, ids=repr)
def test_windows_and_order_are_those_of_uint8(folder, fit):
    wide_fit = Letterbox(fill=tuple(257 * k for k in fit.fill)) if isinstance(fit, Letterbox) else fit
    narrow, wide = batches(folder, fit, "uint8"), batches(folder, wide_fit, "uint16", workers=2)
    assert len(narrow) == len(wide) > 2
    for one, other in zip(narrow, wide, strict=True):
        assert other.images.dtype == np.uint16
        assert list(one.keys) == list(other.keys)
        np.testing.assert_array_equal(one.labels, other.labels)
        # uint8 has the upper bits of 16, and the mean of that is half a level lower.
        difference = other.images / 257 - one.images
        assert np.abs(difference).max() < 3
        assert np.abs(difference).mean() < 0.6


@pytest.mark.parametrize("transforms", [[FlipX(), FlipY()], [FlipX(), Normalize()], [FlipY(1.0)]], ids=repr)
@pytest.mark.parametrize("fit", [CenterFit(), Letterbox(fill=1000)], ids=repr)
def test_flips_of_the_reader_are_those_of_augmentations(folder, transforms, fit):
    fused = batches(folder, fit, "uint16", Augmentations(transforms, seed=3))
    augmentations = Augmentations(transforms, seed=3)
    alone = [augmentations.process(batch) for batch in batches(folder, fit, "uint16")]
    for one, other in zip(fused, alone, strict=True):
        np.testing.assert_array_equal(one.images, other.images)


def test_normalized_values_are_those_of_numpy(folder):
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    (plain, *_), (done, *_) = (
        batches(folder, CenterFit(), "uint16", *more) for more in ((), (Augmentations([Normalize()]),))
    )
    scale = (1 / (255 * std) / 257).astype(np.float32)
    expected = plain.images.astype(np.float32) * scale + (-mean / std).astype(np.float32)
    np.testing.assert_array_equal(done.images, expected.transpose(0, 3, 1, 2))


def test_masks_and_bad_files_go_with_the_images(folder, tmp_path):
    stored = numbers(3)
    classes = np.random.default_rng(1).integers(0, 20, (HEIGHT, WIDTH), dtype=np.uint8)
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "masks" / "a").mkdir(parents=True)
    for name in ("first", "second", "third"):
        (tmp_path / "images" / "a" / f"{name}.png").write_bytes(rasters.png(stored, 16, 2))
        Image.fromarray(classes).save(tmp_path / "masks" / "a" / f"{name}.png")
    (tmp_path / "images" / "a" / "second.png").write_bytes(b"no picture")
    reader = ImageFileReader(
        tmp_path / "images",
        3,
        (HEIGHT, WIDTH),
        masks_dir=tmp_path / "masks",
        dtype="uint16",
        on_error="skip",
        epochs=1,
    )
    with Pipeline([reader]) as pipeline:
        batch = pipeline.dequeue()
        assert [name.split("/")[-1] for name, _ in pipeline.modules[0].errors] == ["second.png"]
    assert batch.images.shape == (2, HEIGHT, WIDTH, 3)
    np.testing.assert_array_equal(batch.images[1], stored)
    np.testing.assert_array_equal(batch["masks"][1], classes)
    replaced = ImageFileReader(
        tmp_path / "images", 3, (HEIGHT, WIDTH), dtype="uint16", on_error="replace", epochs=1
    )
    with Pipeline([replaced]) as pipeline:
        assert (pipeline.dequeue().images == stored).all()


def test_states(folder):
    """A state continues with the same bits; the machines of a run need the same dtype."""

    def reader(dtype="uint16"):
        return ImageFileReader(folder, 4, (24, 20), dtype=dtype, epochs=1, seed=5)

    def pipeline():
        return Pipeline([reader()])

    with pipeline() as first:
        first.dequeue()
        state = first.state_dict()
        expected = [batch.images for batch in first.forever()]
    with pipeline() as second:
        second.load_state_dict(state)
        for images, batch in zip(expected, second.forever(), strict=True):
            np.testing.assert_array_equal(images, batch.images)
    assert reader().samples_fingerprint() == reader().samples_fingerprint()
    assert reader().samples_fingerprint() != reader("uint8").samples_fingerprint()


def test_stores_and_sockets_carry_them(folder, tmp_path):
    pytest.importorskip("plyvel")
    expected = batches(folder, CenterFit(), "uint16")
    reader = ImageFileReader(folder, 4, (24, 20), dtype="uint16", epochs=1, seed=5, exact=True)
    with Pipeline([reader, LevelDBSink(tmp_path / "store")]) as pipeline:
        pipeline.wait(LIMIT)
    with Pipeline([LevelDBSource(tmp_path / "store", 4, shuffle=False, epochs=1)]) as pipeline:
        for one, other in zip(expected, pipeline.forever(), strict=True):
            assert other.images.dtype == np.uint16
            np.testing.assert_array_equal(one.images, other.images)
    address = f"ipc://{tmp_path}/socket"
    with Pipeline([ZMQSource(address)]) as pipeline, Pipeline([reader, ZMQSink(address)]) as sender:
        sender.start()
        for one, other in zip(expected, pipeline.forever(), strict=True):
            assert other.images.dtype == np.uint16
            np.testing.assert_array_equal(one.images, other.images)


def test_stores_of_files(folder, tmp_path):
    """Files that were packed as they are keep their bits; JPEGs cannot."""
    pytest.importorskip("plyvel")
    reader = ImageFileReader(folder, 4, (24, 20), dtype="uint16", epochs=1, shuffle=False)
    with pytest.raises(ArgumentError, match=r'dtype="uint16", and JPEG has 8 bits.*original'):
        Encoded(reader, "jpeg:64")
    with Pipeline([Encoded(reader, "original"), LevelDBSink(tmp_path / "store")]) as pipeline:
        pipeline.wait(LIMIT)
    packed = LevelDBImageReader(
        tmp_path / "store", 4, (24, 20), dtype="uint16", epochs=1, shuffle=False, exact=True
    )
    with Pipeline([packed]) as pipeline:
        found = np.concatenate([batch.images for batch in pipeline.forever()])
    files = batches(folder, CenterFit(), "uint16", shuffle=False)
    np.testing.assert_array_equal(found, np.concatenate([batch.images for batch in files]))


def test_arguments(folder):
    with pytest.raises(ArgumentError, match="dtype is 'float32'; expected 'uint8' or 'uint16'"):
        ImageFileReader(folder, 4, 24, dtype="float32")
    with pytest.raises(ArgumentError, match="fill is 300, for images of uint8; expected 0 to 255"):
        ImageFileReader(folder, 4, 24, fit=Letterbox(fill=300))
    assert ImageFileReader(folder, 4, 24, dtype="uint16").out_spec(None)["images"].dtype == np.uint16
