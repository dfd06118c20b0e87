"""BatchDecoder.read_ranges: files that are ranges of other files."""

import os
import re

import numpy as np
import pytest
from pictures import jpeg_bytes, photograph

from highway._core.jpeg import codec as jpeg


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """A file of several JPEGs with other bytes between them, and where they lie."""
    path = tmp_path_factory.mktemp("ranges") / "all"
    contents, places = b"before", []
    for number in range(20):
        # Larger than what is read for the header, and smaller.
        picture = jpeg_bytes(photograph(20 + 20 * number, 40 + number, number))
        places.append((len(contents), len(picture)))
        contents += picture + b"\xff\xd8between"
    path.write_bytes(contents)
    starts, sizes = (np.array(column, np.int64) for column in zip(*places, strict=True))
    return os.fsencode(path), starts, sizes, contents


def decoded(decoder, heads):
    count = len(heads)
    windows = np.array([[0, 0, width, height] for _, height, width in heads], float)
    targets = np.array([[0, 0, 12, 10]] * count, np.int32)
    images = np.zeros((count, 10, 12, 3), np.uint8)
    decoder.begin(np.arange(count), windows, targets, np.zeros((count, 2), bool), 2, False, (10, 12, 3))
    assert decoder.finish(np.arange(count), jpeg.Images(images)) == [jpeg.OK] * count
    return images


def test_ranges_are_decoded_as_files_in_memory(joined):
    path, starts, sizes, contents = joined
    decoder = jpeg.BatchDecoder()
    order = np.random.default_rng(0).permutation(len(starts))
    heads = decoder.read_ranges([path] * len(order), starts[order], sizes[order])
    found = decoded(decoder, heads)
    memory = [contents[starts[k] : starts[k] + sizes[k]] for k in order]
    assert np.array_equal(heads, decoder.read_contents(memory))
    assert np.array_equal(found, decoded(decoder, heads))
    assert found.any(axis=(1, 2, 3)).all()
    decoder.close()


def test_whole_files_after_ranges(joined, tmp_path):
    path, starts, sizes, contents = joined
    whole = tmp_path / "one.jpg"
    whole.write_bytes(contents[starts[3] : starts[3] + sizes[3]])
    decoder = jpeg.BatchDecoder()
    one = decoded(decoder, decoder.read_ranges([path], starts[3:4], sizes[3:4]))
    assert np.array_equal(one, decoded(decoder, decoder.read([os.fsencode(whole)])))
    decoder.close()


def test_the_contents_of_a_range(joined):
    path, _, _, _ = joined
    decoder = jpeg.BatchDecoder()
    heads = decoder.read_ranges([path, path], np.array([0, 1]), np.array([6, 3]))
    assert heads[:, 0].tolist() == [jpeg.NOT_JPEG] * 2
    assert [decoder.contents(row) for row in (0, 1)] == [b"before", b"efo"]
    decoder.close()


@pytest.mark.parametrize(
    ("beyond", "size", "text"),
    [
        (0, 1, "is cut off: its file has {end} bytes, expected 1 bytes from {end} on"),
        (-4, 5, "is cut off: its file has {end} bytes, expected 5 bytes"),
        (1 << 40, 1, "is cut off"),
        (2**62, 2**29, "is cut off"),
        (-4, 0, r"is empty \(0 bytes\)"),
        (-4, 2**31, "has 2147483648 bytes, allowed are"),
    ],
)
def test_ranges_outside_of_their_file(joined, beyond, size, text):
    path, starts, sizes, contents = joined
    decoder = jpeg.BatchDecoder()
    begin = np.array([len(contents) + beyond, starts[0]])
    heads = decoder.read_ranges([path, path], begin, np.array([size, sizes[0]]))
    assert heads[:, 0].tolist() == [jpeg.BAD_FILE, jpeg.OK]
    assert re.match(text.format(end=len(contents)), decoder.message(0))
    decoder.close()


def test_a_file_that_is_cut_between_header_and_pixels(joined, tmp_path):
    _, starts, sizes, contents = joined
    path = tmp_path / "cut"
    path.write_bytes(contents)
    decoder = jpeg.BatchDecoder()
    heads = decoder.read_ranges([os.fsencode(path)], starts[-1:], sizes[-1:])
    assert heads[0, 0] == jpeg.OK
    os.truncate(path, int(starts[-1] + sizes[-1]) - 10)
    images = np.zeros((1, 10, 12, 3), np.uint8)
    windows = np.array([[0, 0, heads[0, 2], heads[0, 1]]], float)
    targets = np.array([[0, 0, 12, 10]], np.int32)
    decoder.begin(np.arange(1), windows, targets, np.zeros((1, 2), bool), 2, False, (10, 12, 3))
    assert decoder.finish(np.arange(1), jpeg.Images(images)) == [jpeg.BAD_FILE]
    assert "is cut off" in decoder.message(0)
    decoder.close()


def test_wrong_arguments(joined):
    path, starts, sizes, _ = joined
    decoder = jpeg.BatchDecoder()
    with pytest.raises(ValueError, match="1 paths, 20 starts"):
        decoder.read_ranges([path], starts, sizes)
    for start, size in ((-1, 5), (5, -1)):
        with pytest.raises(ValueError, match="expected 0 or more"):
            decoder.read_ranges([path], np.array([start]), np.array([size]))
    decoder.close()
