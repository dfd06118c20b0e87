"""gather: scattered rows and windows of arrays against NumPy; what it refuses."""

import itertools

import numpy as np
import pytest

from highway._core.records.gather import gather, gather_planar

ONE = np.zeros(1, np.int64)


def bytes_of(count, size):
    return np.random.default_rng(count * 1000 + size).integers(0, 256, (count, size)).astype(np.uint8)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 8, 9, 16, 17, 63, 64, 65, 256, 1025, 5000])
@pytest.mark.parametrize("count", [0, 1, 5, 100])
def test_rows(size, count):
    rows = bytes_of(37, size)
    firsts = np.random.default_rng(size).integers(0, 37, count)
    out = np.zeros((count, size), np.uint8)
    gather(rows, firsts, ONE, 1, out)
    assert (out == rows[firsts]).all()


@pytest.mark.parametrize("step", [2, 3, -1, -2])
def test_rows_that_are_apart(step):
    rows = bytes_of(60, 12)[::step]
    firsts = np.random.default_rng(1).integers(0, len(rows) - 4, 50)
    for run in (1, 4):
        out = np.zeros((50, run * 12), np.uint8)
        gather(rows, firsts, ONE, run, out)
        expected = rows[firsts[:, None] + np.arange(run)].reshape(50, -1)
        assert (out == expected).all()


def test_one_row_that_stands_for_all():
    rows = np.broadcast_to(bytes_of(1, 9), (20, 9))
    out = np.zeros((20, 9), np.uint8)
    gather(rows, np.arange(20), ONE, 1, out)
    assert (out == rows).all()


def test_runs_after_each_first_row():
    rows = bytes_of(100, 6)
    firsts, parts = np.array([0, 3, 50, 73]), np.array([20, 0, 7])
    out = np.zeros((4, 3 * 5 * 6), np.uint8)
    gather(rows, firsts, parts, 5, out)
    at = firsts[:, None, None] + parts[:, None] + np.arange(5)
    assert (out == rows[at].reshape(4, -1)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_planes_become_channels(dtype, channels):
    images = np.random.default_rng(channels).integers(0, 250, (9, channels, 35)).astype(dtype)
    indices = np.array([8, 0, 3, 3])
    out = np.zeros((4, 35, channels), dtype)
    gather_planar(images, indices, out)
    assert (out == images[indices].transpose(0, 2, 1)).all()


def test_arrays_without_bytes():
    gather(np.zeros((3, 0), np.uint8), np.array([2]), ONE, 1, np.zeros((1, 0), np.uint8))
    gather_planar(np.zeros((3, 0, 4), np.uint8), np.array([2]), np.zeros((1, 4, 0), np.uint8))
    gather_planar(np.zeros((3, 2, 4), np.uint8), np.zeros(0, np.int64), np.zeros((0, 4, 2), np.uint8))


@pytest.mark.parametrize(
    ("firsts", "parts", "run", "shape"),
    [
        ([10], [0], 1, (1, 6)),
        ([-1], [0], 1, (1, 6)),
        ([2**62], [0], 1, (1, 6)),
        ([8], [0], 3, (1, 18)),
        ([7], [0, 3], 1, (1, 12)),
        ([3], [-1], 1, (1, 6)),
        ([0], [2**62], 1, (1, 6)),
        ([0], [0], 11, (1, 66)),
        ([0], [0], 0, (1, 0)),
        ([0], [0], -1, (1, 6)),
        ([0], [], 1, (1, 0)),
        ([0, 1], [0], 1, (1, 6)),
        ([0], [0], 1, (1, 5)),
        ([0], [0], 2, (1, 6)),
        ([0], [0], 2, (1, 13)),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_copied(firsts, parts, run, shape):
    out = np.full(shape, 77, np.uint8)
    with pytest.raises(ValueError, match=r"^gather\.gather"):
        gather(bytes_of(10, 6), np.array(firsts, np.int64), np.array(parts, np.int64), run, out)
    assert (out == 77).all()


def test_bytes_of_a_row_that_are_apart_are_refused():
    with pytest.raises(ValueError, match="adjacent"):
        gather(bytes_of(10, 6)[:, ::2], ONE, ONE, 1, np.zeros((1, 3), np.uint8))


def test_planes_that_do_not_fit_are_refused():
    images = np.zeros((4, 3, 10), np.uint8)
    for index, shape in itertools.product((4, -1), [(1, 10, 3)]):
        with pytest.raises(ValueError, match="gather_planar: rows"):
            gather_planar(images, np.array([index]), np.zeros(shape, np.uint8))
    for shape in ((2, 10, 3), (1, 3, 10), (1, 10, 4)):
        with pytest.raises(ValueError, match="gather_planar: out"):
            gather_planar(images, np.array([0]), np.zeros(shape, np.uint8))
