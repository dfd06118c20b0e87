"""Kernels of ragged rows, against loops in Python."""

import numpy as np
import pytest

from highway._core.ragged import join_rows, number_rows, pad_rows


def given(samples, width, seed=0):
    """Values of 50 rows, and rows of samples anywhere in them."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, 50 * width, np.uint8)
    starts = rng.integers(0, 51, samples)
    counts = rng.integers(0, 51 - starts)
    return values, starts, counts


@pytest.mark.parametrize("width", [1, 2, 3, 8, 24])
@pytest.mark.parametrize("samples", [0, 1, 7])
@pytest.mark.parametrize("more", [0, 1, 5])
def test_rows_are_padded(width, samples, more):
    values, starts, counts = given(samples, width, width + samples)
    values.flags.writeable = False
    length = int(counts.max(initial=0)) + more
    for fill in (np.zeros(width, np.uint8), np.arange(1, width + 1, dtype=np.uint8)):
        out = np.full((samples, length * width), 99, np.uint8)
        pad_rows(values, starts, counts, fill, out)
        for line, start, count in zip(out, starts, counts, strict=True):
            expected = [*values[start * width : (start + count) * width], *np.tile(fill, length - count)]
            assert line.tolist() == expected


@pytest.mark.parametrize("width", [1, 3, 16])
@pytest.mark.parametrize("samples", [0, 1, 7])
def test_rows_are_joined(width, samples):
    values, starts, counts = given(samples, width, width + samples)
    out = np.full(counts.sum() * width, 99, np.uint8)
    join_rows(values, starts, counts, width, out)
    parts = [values[s * width : (s + c) * width] for s, c in zip(starts, counts, strict=True)]
    assert out.tobytes() == b"".join(part.tobytes() for part in parts)


@pytest.mark.parametrize("length", [1, 2, 7, 64])
@pytest.mark.parametrize("lines", [0, 1, 3, 40])
def test_rows_are_numbered(length, lines):
    counts = np.random.default_rng(length).integers(0, 20, 12)
    offsets = np.concatenate(([0], np.cumsum(counts)))
    positions, segments = (np.full((lines, length), 99, np.int32) for _ in range(2))
    number_rows(offsets, positions, segments)
    documents = np.repeat(np.arange(12), counts)[: lines * length]
    expected = []
    before = None
    for at, document in enumerate(documents):
        begins = at % length == 0
        if begins:
            segment = 0
        if begins or document != before:
            segment, place = segment + 1, 0
        expected.append((place, segment))
        place, before = place + 1, document
    expected += [(0, 0)] * (lines * length - len(documents))
    assert list(zip(positions.reshape(-1).tolist(), segments.reshape(-1).tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("starts", "counts", "message"),
    [
        ([0], [4], "sample 0 has 4 rows from 0 on, of 3"),
        ([3], [1], "sample 0 has 1 rows from 3 on, of 3"),
        ([4], [0], "0 rows from 4 on, of 3"),
        ([-1], [1], "from -1 on"),
        ([0], [-1], "-1 rows"),
        ([2], [2**63 - 1], "sample 0 has"),
        ([0, 1], [1], "2 starts, 1 counts"),
    ],
)
def test_rows_outside_of_the_values_are_refused(starts, counts, message):
    values = np.zeros(6, np.uint8)
    starts, counts = np.array(starts), np.array(counts)
    with pytest.raises(ValueError, match=message):
        pad_rows(values, starts, counts, np.zeros(2, np.uint8), np.zeros((len(starts), 20), np.uint8))
    with pytest.raises(ValueError, match=message):
        join_rows(values, starts, counts, 2, np.zeros(20, np.uint8))


def test_outputs_of_other_sizes_are_refused():
    values, one, two = np.zeros(6, np.uint8), np.array([0]), np.array([2])
    for shape in ((1, 5), (2, 4), (1, 2)):
        with pytest.raises(ValueError, match=r"ragged\.pad_rows"):
            pad_rows(values, one, two, np.zeros(2, np.uint8), np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="rows of 0"):
        pad_rows(values, one, two, np.zeros(0, np.uint8), np.zeros((1, 4), np.uint8))
    for size in (0, 3, 5):
        with pytest.raises(ValueError, match=rf"out has {size} bytes"):
            join_rows(values, one, two, 2, np.zeros(size, np.uint8))
    lines = np.zeros((2, 3), np.int32)
    for offsets in ([], [1, 2], [0, 2, 1]):
        with pytest.raises(ValueError, match="offset"):
            number_rows(np.array(offsets, np.int64), lines, lines.copy())
    with pytest.raises(ValueError, match="positions of 2 lines of 3"):
        number_rows(np.array([0, 1]), lines, np.zeros((2, 4), np.int32))
