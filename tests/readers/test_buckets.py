"""Buckets: batches of one shape each, planned by the sizes of the pictures; boxes and masks follow."""

import pickle
from collections import Counter

import numpy as np
import pytest
from concurrency import LIMIT
from pictures import jpeg_bytes, photograph
from PIL import Image
from tars import members_of, shards_of_folder, write_tar

from highway import replay
from highway.engine import Pipeline
from highway.errors import ArgumentError, DecodeError, StateMismatchError
from highway.modules import (
    Augmentations,
    Encoded,
    ImageFileReader,
    LevelDBImageReader,
    LevelDBSink,
    ListReader,
    Mix,
    TableReader,
    TarReader,
    ZMQSink,
    ZMQSource,
)
from highway.sampling import schedule
from highway.sampling.rng import SampleRandom
from highway.transforms import Buckets, CenterFit, FlipX, Letterbox, Normalize, RandomFit, Resize

SHAPES = [(32, 32), (24, 40), (40, 24), (8, 80)]
# Height, width and EXIF orientation; 6 turns by 90 degrees.
PICTURES = [
    *[(50 + seed, 48, 1) for seed in range(9)],
    *[(40, 66 + seed, 1) for seed in range(8)],
    *[(70, 41 + seed, 1) for seed in range(4)],
    *[(42, 70 + seed, 6) for seed in range(3)],
]
SIZES = np.array([(width, height) if turn == 6 else (height, width) for height, width, turn in PICTURES])
BUCKETS = np.array([0] * 9 + [1] * 8 + [2] * 7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("buckets")
    for number, (height, width, turn) in enumerate(PICTURES):
        path = root / "photos" / "class" / f"{number:03}"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = photograph(height, width, number)
        if number % 4 == 3 and turn == 1:
            picture.save(path.with_suffix(".png"))
        else:
            path.with_suffix(".jpg").write_bytes(jpeg_bytes(picture, orientation=turn))
        mask = root / "masks" / "class" / f"{number:03}.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        rows, columns = np.mgrid[0:height, 0:width]
        Image.fromarray(((rows * 8 // height) * 16 + columns * 8 // width).astype(np.uint8)).save(mask)
    return root


def reader(folder, fit=None, batch_size=4, **options):
    fit = Buckets(SHAPES) if fit is None else fit
    return ImageFileReader(folder / "photos", batch_size, fit=fit, **{"epochs": 2, **options})


def read(*modules, state=None):
    with Pipeline([*modules]) as pipeline:
        if state is not None:
            pipeline.load_state_dict(state)
        return list(pipeline.forever())


def assert_equal(found, expected):
    for one, two in zip(found, expected, strict=True):
        assert np.array_equal(one.indices, two.indices) and one.seq == two.seq
        assert all(np.array_equal(one[name], two[name]) for name in two.fields)


def test_sizes_are_those_of_the_upright_pictures(folder):
    found = reader(folder)
    assert np.array_equal(found.sizes, SIZES)
    assert found.bucket_sizes == {(32, 32): 9, (24, 40): 8, (40, 24): 7, (8, 80): 0}
    stored = reader(folder, exif=False).sizes
    assert np.array_equal(stored, [(height, width) for height, width, _ in PICTURES])


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_all_ranks_have_one_shape_at_each_step(folder, world):
    sizes = [2, 3, 1, 5]
    ranks = [
        read(reader(folder, Buckets(SHAPES, batch_sizes=sizes), sizes=SIZES, shard=(rank, world), epochs=1))
        for rank in range(world)
    ]
    found = Counter()
    for step in zip(*ranks, strict=True):
        (shape,) = {batch["images"].shape for batch in step}
        bucket = SHAPES.index(shape[1:3])
        assert shape[0] <= sizes[bucket]
        for batch in step:
            assert (BUCKETS[batch.indices] == bucket).all()
            found.update(batch.indices.tolist())
    assert set(found) == set(range(len(PICTURES)))


def test_images_are_those_of_the_fit_and_the_shape(folder):
    flips = [Augmentations([FlipX(), Normalize()])]
    for fit in (CenterFit(), RandomFit(), Letterbox(fill=9)):
        found = {}
        for batch in read(reader(folder, Buckets(SHAPES, fit)), *flips):
            found |= {
                (batch.epoch, index): image
                for index, image in zip(batch.indices, batch["images"], strict=True)
            }
        for shape in SHAPES[:3]:
            plain = ImageFileReader(folder / "photos", 4, shape, fit=fit, epochs=2)
            for batch in read(plain, *flips):
                for index, image in zip(batch.indices, batch["images"], strict=True):
                    if SHAPES[BUCKETS[index]] == shape:
                        assert np.array_equal(found.pop((batch.epoch, index)), image)
        assert not found


def test_boxes_and_masks_follow(folder):
    paths = sorted((folder / "photos" / "class").iterdir())
    boxes = [[(4, 6, width - 3, height - 9)] for height, width in SIZES.tolist()]
    source = ListReader(
        paths,
        [[0]] * len(paths),
        4,
        boxes=boxes,
        masks=sorted((folder / "masks" / "class").iterdir()),
        fit=Buckets(SHAPES, RandomFit()),
        epochs=1,
        placement=True,
    )
    for batch in read(source):
        height, width = batch["images"].shape[1:3]
        assert batch["masks"].shape[1:] == (height, width) == SHAPES[BUCKETS[batch.indices[0]]]
        assert batch["boxes"].shape == (len(batch.indices), 4)
        for row, index in enumerate(batch.indices.tolist()):
            if PICTURES[index][2] != 1:
                # Its boxes and mask turn with it: tests/readers/test_orientation.py.
                continue
            (x0, y0), (x_scale, y_scale) = (
                batch.extras["placement"][row, :2, 2],
                np.diag(batch.extras["placement"][row])[:2],
            )
            corners = np.array(boxes[index][0]).reshape(2, 2) * (x_scale, y_scale) + (x0, y0)
            expected = np.clip(corners, 0, (width, height)).reshape(4)
            assert np.allclose(batch["boxes"][row], expected, atol=1e-3)
            # Each pixel of the mask says which eighth of the picture it shows.
            y, x = (np.arange(height) + 0.5 - y0) / y_scale, (np.arange(width) + 0.5 - x0) / x_scale
            eighths = np.floor(y)[:, None] * 8 // SIZES[index][0] * 16 + np.floor(x) * 8 // SIZES[index][1]
            assert (batch["masks"][row] == eighths).all()


@pytest.mark.parametrize("seed", range(4))
def test_resuming_with_other_batch_sizes(folder, seed):
    rng = np.random.default_rng(seed)
    for _ in range(25):
        source = reader(folder, batch_size=int(rng.integers(1, 6)), sizes=SIZES, seed=seed, epochs=1)
        stop = int(rng.integers(0, len(source)))
        had = [source.order.indices(0, seq) for seq in range(stop)]
        rest = reader(folder, batch_size=int(rng.integers(1, 6)), sizes=SIZES, seed=seed, epochs=1)
        rest.seek(rest.find(source.state_at(stop)))
        left = [task.indices for task in rest.tasks()]
        assert sorted(np.concatenate([*had, *left]).tolist()) == list(range(len(PICTURES)))
        assert all(len({*BUCKETS[indices].tolist()}) == 1 for indices in left)


def test_a_pipeline_resumes_replays_and_skips(folder):
    fit = Buckets(SHAPES, RandomFit())
    whole = read(reader(folder, fit))
    with Pipeline([reader(folder, fit)]) as pipeline:
        for _ in range(4):
            pipeline.dequeue()
        state = pipeline.state_dict()
    assert_equal(read(reader(folder, fit), state=state), whole[4:])
    length = len(whole) // 2
    assert_equal([replay.batch([reader(folder, fit)], epoch=1, step=2)], [whole[length + 2]])
    with Pipeline([reader(folder, fit)]) as pipeline:
        pipeline.dequeue()
        pipeline.skip(steps=[1])
        assert_equal(list(pipeline.forever()), whole[2:])
    with pytest.raises(StateMismatchError, match="has groups"):
        reader(folder, Buckets(SHAPES[:2])).find(state)


@pytest.mark.parametrize("workers", [2, 8])
def test_any_number_of_threads_and_a_network(folder, workers):
    fit = Buckets(SHAPES, RandomFit())
    expected = read(reader(folder, fit, workers=1, epochs=1))
    assert_equal(read(reader(folder, fit, workers=workers, epochs=1)), expected)
    sink = ZMQSink("tcp://127.0.0.1:*")
    sending = Pipeline([reader(folder, fit, workers=workers, epochs=1), sink])
    with sending, Pipeline([ZMQSource(sink.address)]) as receiving:
        found = [*receiving]
        sending.wait(LIMIT)
    assert_equal(found, expected)


@pytest.mark.parametrize("on_error", ["skip", "replace", "raise"])
def test_unreadable_pictures_follow_the_policy(folder, tmp_path, on_error):
    place = tmp_path / "photos" / "class"
    place.mkdir(parents=True)
    for path in (folder / "photos" / "class").iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    # One without a header, and one whose header is whole.
    (place / "030.jpg").write_bytes(b"no picture")
    contents = (place / "012.jpg").read_bytes()
    (place / "012.jpg").write_bytes(contents[: 2 * len(contents) // 3])
    source = reader(tmp_path, on_error=on_error, epochs=1)
    assert source.sizes[24].tolist() == [0, 0] and source.sizes[12].tolist() == SIZES[12].tolist()
    assert source.bucket_sizes[32, 32] == 10
    if on_error == "raise":
        with pytest.raises(DecodeError):
            read(source)
        return
    found = Counter(index for batch in read(source) for index in batch.indices.tolist())
    assert not {12, 24} & set(found)
    assert found.total() == (23 if on_error == "skip" else 25)


def test_pickles_do_not_read_the_headers_again(folder, tmp_path):
    source = reader(folder)
    again = pickle.loads(pickle.dumps(source))
    assert again == pickle.loads(pickle.dumps(again)) and repr(again) == repr(source)
    assert np.array_equal(again.sizes, SIZES)
    again = reader(folder, sizes=SIZES)
    assert again.fingerprint() == source.fingerprint()
    assert np.array_equal(reader(folder, sizes=SIZES[::-1]).sizes, SIZES[::-1])


def test_the_spec_and_shapes_before_the_first_batch(folder):
    pipeline = Pipeline([reader(folder)])
    assert pipeline.spec["images"].shape == (None, None, None, 3)
    one_height = Pipeline([reader(folder, Buckets([(8, 9), (8, 12)]))])
    assert one_height.spec["images"].shape == (None, 8, None, 3)


def test_encoded_pictures_have_no_buckets(folder):
    found = read(Encoded(reader(folder, epochs=1), "original"))
    assert sorted(np.concatenate([batch.indices for batch in found]).tolist()) == list(range(len(PICTURES)))


def test_headers_that_are_longer_than_the_first_bytes(tmp_path):
    place = tmp_path / "photos" / "class"
    place.mkdir(parents=True)
    contents = jpeg_bytes(photograph(30, 50), orientation=6)
    segment = b"\xff\xfe" + (60000).to_bytes(2, "big") + bytes(59998)
    (place / "0.jpg").write_bytes(contents[:2] + segment * 3 + contents[2:])
    # The orientation of a PNG may be at its end.
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    Image.fromarray(noise).save(place / "1.png", exif=exif)
    source = reader(tmp_path, on_error="skip", epochs=1)
    assert source.sizes.tolist() == [[50, 30], [300, 200]]
    read(source)


@pytest.mark.parametrize("kind", ["tars", "pairs", "store", "table", "paths"])
def test_sizes_of_pictures_in_tars_stores_and_tables(folder, tmp_path, kind):
    root = folder / "photos"
    large = tmp_path / "photos" / "class"
    large.mkdir(parents=True)
    # Larger than what is read first: of the PNG, all is read.
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise).save(large / "1.png", exif=exif)
    (large / "2.jpg").write_bytes(jpeg_bytes(Image.fromarray(noise), orientation=6, quality=100))
    paths = [*sorted((root / "class").iterdir()), large / "1.png", large / "2.jpg"]
    assert all(path.stat().st_size > 1 << 16 for path in paths[-2:])
    expected = [*SIZES.tolist(), [300, 200], [300, 200]]
    buckets, labels = Buckets(SHAPES), [0] * len(paths)
    listed = ListReader(paths, labels, 4, fit=buckets, sizes=expected, epochs=1)
    if kind == "tars":
        keys = [f"class/{number:03}{path.suffix}" for number, path in enumerate(paths)]
        for key, path in zip(keys, paths, strict=True):
            (tmp_path / "all" / "class").mkdir(parents=True, exist_ok=True)
            (tmp_path / "all" / key).write_bytes(path.read_bytes())
        tars = shards_of_folder(tmp_path / "all", keys, tmp_path / "tars", 3)
        found = TarReader(tars, 4, fit=buckets, epochs=1)
    elif kind == "pairs":
        found = ListReader(paths, labels, 4, fit=buckets, pairs={"other": paths[::-1]}, epochs=1)
    elif kind == "store":
        store = tmp_path / "store"
        source = Encoded(ListReader(paths, labels, 5, 8, shuffle=False, epochs=1), "original")
        with Pipeline([source, LevelDBSink(store)]) as pipeline:
            pipeline.wait(LIMIT)
        found = LevelDBImageReader(store, 4, fit=buckets, epochs=1)
    else:
        pa = pytest.importorskip("pyarrow")
        pictures = [str(path) if kind == "paths" else path.read_bytes() for path in paths]
        table = pa.table({"image": pictures, "label": labels})
        found = TableReader(table, 4, fit=buckets, epochs=1)
    assert found.sizes.tolist() == expected
    for one, two in zip(read(found), read(listed), strict=True):
        assert np.array_equal(one.indices, two.indices) and np.array_equal(one.images, two.images)


def test_bad_samples_of_tars_follow_the_policy(tmp_path):
    picture = jpeg_bytes(photograph(40, 66))
    members = [
        *members_of("0", {"jpg": picture, "cls": b"1"}),
        *members_of("1", {"jpg": picture[:99], "cls": b"1"}),
    ]
    tar = write_tar(tmp_path / "a.tar", members)
    found = TarReader(tar, 4, fit=Buckets(SHAPES), epochs=1, on_error="skip")
    assert found.sizes.tolist() == [[40, 66], [0, 0]]
    assert [batch.indices.tolist() for batch in read(found)] == [[0]]


def test_pictures_in_parquet_files_need_sizes(folder, tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    paths = sorted((folder / "photos" / "class").iterdir())
    table = pa.table({"image": [path.read_bytes() for path in paths], "label": [0] * len(paths)})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=5)

    def make(**options):
        return TableReader(tmp_path / "a.parquet", 4, fit=Buckets(SHAPES), epochs=1, **options)

    with pytest.raises(ArgumentError, match=r"sizes is missing.*in Parquet files are not read"):
        make()
    with pytest.raises(ArgumentError, match=r"fit is Buckets.*Parquet files with larger window_bytes"):
        make(sizes=SIZES, window_bytes=1)
    assert sorted(index for batch in read(make(sizes=SIZES)) for index in batch.indices) == [
        *range(len(paths))
    ]


def test_buckets_are_values():
    buckets = Buckets([(8, 8), (6, 12)], RandomFit(interpolation="box"), [3, 4])
    assert pickle.loads(pickle.dumps(buckets)) == buckets == eval(repr(buckets))
    assert buckets != Buckets([(8, 8), (6, 12)], RandomFit(interpolation="box"))
    assert buckets.deterministic() == Buckets([(8, 8), (6, 12)], CenterFit(interpolation="box"), [3, 4])


def test_a_bucket_is_that_of_the_nearest_ratio_and_area():
    buckets = Buckets([(64, 64), (128, 128), (48, 80), (96, 160)])
    heights, widths = np.array([60, 200, 50, 90, 1]), np.array([60, 190, 90, 150, 500])
    assert buckets.nearest(heights, widths).tolist() == [0, 1, 2, 3, 2]
    # As logarithms: 2 : 3 lies between 1 : 1 and 9 : 4 with sqrt(9 / 4).
    assert Buckets([(40, 40), (40, 90)]).nearest(np.array([100, 100]), np.array([149, 151])).tolist() == [
        0,
        1,
    ]


def test_random_fits_cover_the_output_at_random_places():
    count = 400
    heights, widths = np.full(count, 100), np.full(count, 300)
    placement = RandomFit().place(SampleRandom(0, 0, np.arange(count), 0), heights, widths, (50, 50))
    x0, y0, x1, y1 = placement.windows.T
    assert np.allclose(x1 - x0, 100) and (y0 == 0).all() and (y1 == 100).all()
    assert (np.histogram(x0, 4, (0, 200))[0] > 70).all()
    assert (x0 >= 0).all() and (x1 <= 300).all()
    assert isinstance(RandomFit((5, 6)).deterministic(), CenterFit)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda root: Buckets([]), "number of shapes is 0"),
        (lambda root: Buckets((64, 64)), r"expected a sequence of \(height, width\)"),
        (lambda root: Buckets([(5, 5), (5, 5)]), "expected each shape once"),
        (lambda root: Buckets([(5, 0)]), r"a shape\[1\] is 0"),
        (lambda root: Buckets([(5, 5)], CenterFit(4)), "expected a fit without a size"),
        (lambda root: Buckets([(5, 5)], Resize(4)), "expected a fit without a size"),
        (lambda root: Buckets([(5, 5)], batch_sizes=[1, 2]), "batch_sizes has 2 numbers; expected 1"),
        (lambda root: Buckets([(5, 5)], batch_sizes=[0]), "a batch size is 0"),
        (lambda root: reader(root, shape=8), "shape is 8; expected None with Buckets"),
        (lambda root: reader(root, CenterFit()), "shape is missing; expected"),
        (
            lambda root: reader(root, CenterFit(), shape=8, sizes=SIZES),
            "sizes is given, and fit is no Buckets",
        ),
        (lambda root: reader(root, sizes=SIZES[:3]), r"sizes has shape \(3, 2\)"),
        (lambda root: reader(root, sizes=[[1, 2], [3]]), "expected whole numbers of 0 or more"),
        (
            lambda root: reader(root, Buckets([(5, 5)], batch_sizes=[1]), batch_size=0),
            "batch_size is 0",
        ),
        (lambda root: reader(root, sizes=-SIZES), "whole numbers of 0 or more"),
        (lambda root: reader(root, batch_size=schedule({0: 2, 1: 3})), "with Buckets; expected a number"),
        (lambda root: reader(root, weights=np.ones(len(SIZES))), "weights is given, and batches"),
        (lambda root: Mix([reader(root, epochs=None)]), "has batches of one group each"),
        (
            lambda root: Augmentations([Buckets([(5, 5)])]).process(next(iter(read(reader(root))))),
            "no size for arrays",
        ),
    ],
)
def test_refused(folder, make, text):
    with pytest.raises(ArgumentError, match=text):
        make(folder)


def test_a_bucket_that_drop_last_never_reads_is_named(folder):
    counts = np.bincount(BUCKETS, minlength=len(SHAPES))
    batch_size = int(counts[counts > 0].min()) + 1
    small = counts[(counts > 0) & (counts < batch_size)]
    with pytest.warns(
        UserWarning, match=f"drops all {small.sum()} samples of {len(small)} groups in every epoch"
    ):
        source = reader(folder, batch_size=batch_size, drop_last=True, epochs=1)
    assert sum(batch.size for batch in read(source)) < len(SIZES)
