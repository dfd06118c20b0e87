"""A PIL that lacks a part: nothing is wrong with the pictures then."""

import io
import sys

import numpy as np
import PIL
import pytest
from PIL import Image

from highway._core.jpeg import codec as jpeg
from highway.engine import Pipeline
from highway.errors import EmptyDatasetError, MissingPackageError
from highway.modules import ImageFileReader, ListReader
from highway.modules.readers.pictures.missing_parts import missing_part


def encoded(format, mode="RGB", **options):
    file = io.BytesIO()
    Image.new(mode, (12, 10)).save(file, format, **options)
    return file.getvalue()


class Core:
    """PIL's core as it is where a library was left out when it was built."""

    def __init__(self, core, missing):
        self._core, self._missing = core, missing

    def __getattr__(self, name):
        if name == self._missing:
            raise AttributeError(name)
        return getattr(self._core, name)


@pytest.fixture
def lacking(monkeypatch):
    """Takes a part of PIL away."""
    # Plugins know the core as it was.
    Image.init()

    def lack(part):
        if part == "_webp":
            monkeypatch.setitem(sys.modules, "PIL._webp", None)
            monkeypatch.delattr(PIL, "_webp", raising=False)
        elif part == "_imagingcms":
            monkeypatch.setitem(sys.modules, "PIL._imagingcms", None)
            monkeypatch.delitem(sys.modules, "PIL.ImageCms", raising=False)
            monkeypatch.delattr(PIL, "ImageCms", raising=False)
        else:
            monkeypatch.setattr(Image, "core", Core(Image.core, part))

    return lack


VERSIONS = jpeg.library_versions()
LEFT_TO_PIL = [
    ("libtiff_decoder", "a.tif", encoded("TIFF", compression="tiff_lzw"), "decoder libtiff not available")
]
if VERSIONS["PNG"] is None:
    LEFT_TO_PIL.append(("zip_decoder", "a.png", encoded("PNG"), "decoder zip not available"))
if VERSIONS["WebP"] is None:
    LEFT_TO_PIL.append(("_webp", "a.webp", encoded("WEBP"), "_webp"))


@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
@pytest.mark.parametrize(("part", "name", "contents", "told"), LEFT_TO_PIL)
def test_a_missing_part_is_an_error_under_any_policy(tmp_path, lacking, policy, part, name, contents, told):
    (tmp_path / "class").mkdir()
    path = tmp_path / "class" / name
    path.write_bytes(contents)
    lacking(part)
    with Pipeline([ImageFileReader(tmp_path, 1, (8, 8), epochs=1, on_error=policy)]) as pipeline:
        with pytest.raises(MissingPackageError) as caught:
            pipeline.dequeue()
        assert pipeline.errors == []
    assert str(caught.value).startswith("ImageFileReader: PIL is installed without a part")
    assert told in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.skipif(None in VERSIONS.values(), reason="the core was compiled without libdeflate or libwebp")
@pytest.mark.parametrize(
    ("part", "format_", "what"), [("zip_decoder", "PNG", "IEND"), ("_webp", "WEBP", "cut off")]
)
def test_sound_pictures_need_no_part_of_pil(tmp_path, lacking, part, format_, what):
    (tmp_path / "class").mkdir()
    contents = encoded(format_)
    (tmp_path / "class" / f"sound.{format_}").write_bytes(contents)
    (tmp_path / "class" / f"cut.{format_}").write_bytes(contents[:-12])
    lacking(part)
    with Pipeline([ImageFileReader(tmp_path, 2, (8, 8), epochs=1, on_error="skip")]) as pipeline:
        (batch,) = pipeline
        ((key, error),) = pipeline.errors
    assert (batch.keys, key) == ([f"class/sound.{format_}"], f"class/cut.{format_}")
    assert what in error and "PIL, which may read it, is not installed or lacks a part" in error


def test_a_module_that_is_missed_when_it_is_used(tmp_path, lacking):
    """PIL's color management is imported when a picture in Lab needs it, and says what is missing even later."""
    lacking("_imagingcms")
    from PIL import ImageCms

    with pytest.raises(ImportError) as caught:
        ImageCms.createProfile("sRGB")
    assert "_imagingcms" in str(missing_part(caught.value))


def test_a_libtiff_that_lacks_a_compression_says_so():
    said = ["something else", "LZMA compression support is not configured"]
    assert missing_part(OSError("decoder error -2"), said) == said[1]
    assert missing_part(OSError("decoder error -2"), said[:1]) is None


@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_masks_too(tmp_path, lacking, policy):
    (tmp_path / "a.bmp").write_bytes(encoded("BMP"))
    (tmp_path / "m.png").write_bytes(encoded("PNG", "L"))
    reader = ListReader(
        [tmp_path / "a.bmp"], None, 1, (8, 8), masks=[tmp_path / "m.png"], epochs=1, on_error=policy
    )
    lacking("zip_decoder")
    with Pipeline([reader]) as pipeline:
        with pytest.raises(MissingPackageError, match=r"ListReader: PIL .*decoder zip .*mask .*m\.png"):
            pipeline.dequeue()
        assert pipeline.errors == []


def test_what_pictures_are_to_blame_for_stays_theirs(tmp_path):
    """Errors of the same classes that are about the file."""
    for error in (
        OSError("image file is truncated (3 bytes not processed)"),
        OSError("decoder error -2"),
        KeyError("PNG"),
        KeyError(259),
        KeyError("transparency"),
        ValueError("decoder zip not available"),
    ):
        assert missing_part(error) is None
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "a.png").write_bytes(encoded("PNG")[:45])
    with (
        Pipeline([ImageFileReader(tmp_path, 1, (8, 8), epochs=1, on_error="skip")]) as pipeline,
        pytest.raises(EmptyDatasetError),
    ):
        pipeline.dequeue()
    assert np.shape(pipeline.errors) == (1, 2)
