"""Windows of arrays: time series and patches of volumes, in memory."""

import itertools

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from highway.engine import Pipeline
from highway.errors import ArgumentError, EmptyDatasetError
from highway.modules import ArrayReader

STEPS = 50


def series(dtype=np.float32, shape=(STEPS, 3)):
    return np.random.default_rng(1).integers(0, 100, shape).astype(dtype)


def rows_by_index(reader, name):
    with Pipeline([reader]) as pipeline:
        found = {}
        for batch in pipeline:
            assert batch[name].flags.c_contiguous
            found.update(zip(batch.indices.tolist(), batch[name], strict=True))
    return found


@pytest.mark.parametrize("window", [1, 2, 7, 50])
@pytest.mark.parametrize("stride", [1, 3, 7, 100])
@pytest.mark.parametrize("shape", [(STEPS,), (STEPS, 3), (STEPS, 2, 3), (STEPS, 0)])
def test_windows_of_a_time_series(window, stride, shape):
    x = series(shape=shape)
    reader = ArrayReader(x=x, batch_size=4, window=window, stride=stride, epochs=1)
    found = rows_by_index(reader, "x")
    starts = range(0, STEPS - window + 1, stride)
    assert sorted(found) == list(range(len(starts)))
    for i, start in enumerate(starts):
        assert found[i].shape == (window, *shape[1:])
        assert (found[i] == x[start : start + window]).all()
    assert reader.out_spec(None)["x"].shape == (None, window, *shape[1:])


@pytest.mark.parametrize(
    "change", [lambda x: x[::-1], lambda x: x[:, ::-1], np.asfortranarray, lambda x: x[::2]]
)
def test_series_that_do_not_lie_in_one_piece(change):
    x = change(series())
    found = rows_by_index(ArrayReader(x=x, batch_size=4, window=5, stride=2, epochs=1), "x")
    assert len(found) == (len(x) - 5) // 2 + 1
    for i, window in found.items():
        assert (window == x[2 * i : 2 * i + 5]).all()


def test_all_arrays_are_cut_or_some():
    x, y = series(), np.arange(STEPS)
    for batch in Pipeline([ArrayReader(x=x, y=y, batch_size=4, window=8, epochs=1)]):
        assert batch.y.tolist() == [list(range(i, i + 8)) for i in batch.indices.tolist()]
    following = x[8:, 0]
    reader = ArrayReader({"x": x[:-1], "next": following}, 4, window=8, windowed=("x",), epochs=1)
    for batch in Pipeline([reader]):
        assert batch["next"].tolist() == [x[i + 8, 0] for i in batch.indices.tolist()]
        assert batch.x.shape == (batch.size, 8, 3)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("window", "stride"),
    [((3, 4, 5), 1), ((3, 4, 5), (2, 3, 4)), ((6, 7, 8), 2), ((2, 3), (4, 1)), ((1, 1, 1), 3)],
)
def test_patches_of_a_volume_in_c_order(window, stride, order):
    volume = np.asarray(series(np.int16, (6, 7, 8)), order=order)
    reader = ArrayReader(v=volume, batch_size=5, window=window, stride=stride, epochs=1)
    found = rows_by_index(reader, "v")
    steps = (stride,) * len(window) if isinstance(stride, int) else stride
    axes = tuple(range(len(window)))
    patches = sliding_window_view(volume, window, axes)[tuple(slice(None, None, step) for step in steps)]
    places = list(itertools.product(*(range(count) for count in patches.shape[: len(window)])))
    assert sorted(found) == list(range(len(places)))
    for i, place in enumerate(places):
        corner = [at * step for at, step in zip(place, steps, strict=True)]
        part = tuple(slice(at, at + side) for at, side in zip(corner, window, strict=True))
        assert (found[i] == volume[part]).all()


def test_patches_of_an_image_and_its_mask_lie_at_the_same_place():
    volume = series(np.float32, (9, 10, 11))
    reader = ArrayReader(v=volume, mask=volume > 50, batch_size=4, window=(3, 3, 3), stride=3, epochs=1)
    for batch in Pipeline([reader]):
        assert (batch.mask == (batch.v > 50)).all()


def test_windows_of_videos_have_a_layout():
    video = series(np.uint8, (20, 3, 4, 5))
    for batch in Pipeline([ArrayReader(video, None, 4, window=6, stride=2, layout="NCHW", epochs=1)]):
        for index, clip in zip(batch.indices.tolist(), batch.images, strict=True):
            assert (clip == video[2 * index : 2 * index + 6].transpose(0, 2, 3, 1)).all()


def test_windows_are_part_of_the_state():
    known = ArrayReader(x=series(), batch_size=4, window=5).fingerprint()
    assert ArrayReader(x=series() + 1, batch_size=4, window=5).fingerprint() == known
    for options in ({"window": 6}, {"window": 5, "stride": 2}, {"window": (5, 1)}, {}):
        assert ArrayReader(x=series(), batch_size=4, **options).fingerprint() != known


def test_keys_name_windows():
    keys = [str(i) for i in range(STEPS - 4)]
    for batch in Pipeline([ArrayReader(x=series(), batch_size=4, window=5, keys=keys, epochs=1)]):
        assert batch.keys == [str(i) for i in batch.indices]
    with pytest.raises(ArgumentError, match="keys is a list with 50 names; expected 46, one for each sample"):
        ArrayReader(x=series(), batch_size=4, window=5, keys=["a"] * STEPS)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"window": 0}, "window is 0"),
        ({"window": 2.5}, "window is"),
        ({"window": ()}, r"window is \(\)"),
        ({"window": 5, "stride": 0}, "stride is 0"),
        ({"window": 5, "stride": -1}, "stride is -1"),
        ({"window": 5, "stride": (1,)}, r"stride is \(1,\) for window 5"),
        ({"window": (5, 2), "stride": (1, 1, 1)}, r"stride is \(1, 1, 1\) for window \(5, 2\)"),
        ({"window": STEPS + 1}, r"x has shape \(50, 3\), shorter than a window of 51"),
        ({"window": (5, 4)}, r"x has shape \(50, 3\), shorter than a window of 5 x 4"),
        ({"window": (5, 1, 1)}, r"x has shape \(50, 3\), for windows of 5 x 1 x 1; expected 3 dimensions"),
        ({"stride": 2}, "stride is 2, but there is no window"),
        ({"windowed": ["x"]}, r"windowed is \['x'\], but there is no window"),
        ({"window": 5, "windowed": ["z"]}, r"windowed is \['z'\]; expected a list of names of arrays: x"),
        ({"window": 5, "windowed": "x"}, "windowed is 'x'; expected a list of names"),
        ({"window": 5, "y": np.zeros(49)}, "y has 49 rows, x 50; expected as many, or, not in windowed, 46"),
        ({"window": 5, "windowed": ["x"], "y": np.zeros(50)}, "y has 50 rows, and x 46 windows of 5"),
        (
            {"window": (5, 2), "y": np.zeros((50, 9))},
            r"y has shape \(50, 9\), x \(50, 3\); expected the same first 2",
        ),
    ],
)
def test_wrong_windows(options, named):
    with pytest.raises(ArgumentError, match=f"^ArrayReader: .*{named}"):
        ArrayReader(x=series(), batch_size=4, **options)


def test_no_rows():
    with pytest.raises(EmptyDatasetError, match=r"^ArrayReader: x has no rows"):
        ArrayReader(x=series(shape=(0, 3)), batch_size=4, window=5)
