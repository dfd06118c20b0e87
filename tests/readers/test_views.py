"""Views of readers: several images of each picture as fields, each with random numbers and transforms of its own."""

import copy
import pickle

import numpy as np
import pytest
from pictures import class_folders, jpeg_bytes, photograph
from PIL import Image
from tars import shards_of_folder

from highway import replay
from highway.batch import Batch
from highway.engine import Pipeline
from highway.errors import ArgumentError, ContractError, DecodeError, FieldError
from highway.modules import (
    Augmentations,
    Concat,
    Encoded,
    ImageFileReader,
    ImageSaver,
    LevelDBImageReader,
    LevelDBSink,
    LevelDBSource,
    ListReader,
    TarReader,
    ZMQSink,
    ZMQSource,
)
from highway.torch.conversion import prepared
from highway.transforms import (
    Buckets,
    CenterFit,
    ColorJitter,
    Fit,
    FlipX,
    FlipY,
    Letterbox,
    Mixup,
    Normalize,
    RandomCrop,
    RandomResizedCrop,
    Resize,
    Rotate,
    Stretch,
    ToFloat,
    Views,
)

SMALL = RandomResizedCrop(scale=(0.05, 0.32))
DINO = {"global": (2, RandomResizedCrop(scale=(0.32, 1.0)), 32), "local": (8, SMALL, (12, 16))}


class AtPosition(RandomResizedCrop):
    """Draws as the view with this position."""

    def __init__(self, position):
        super().__init__()
        self.position = position

    def place(self, rng, heights, widths, size):
        return super().place(rng.at(self.position), heights, widths, size)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of several formats and orientations."""
    root = class_folders(tmp_path_factory.mktemp("photos"), classes=2, each=4)
    for orientation in (3, 6):
        picture = photograph(50 + orientation, 70, orientation)
        (root / "class0" / f"turned{orientation}.jpg").write_bytes(
            jpeg_bytes(picture, orientation=orientation)
        )
    photograph(90, 70, 3).save(root / "class1" / "a.png")
    photograph(60, 64, 5).save(root / "class1" / "b.webp")
    photograph(40, 90, 4).convert("L").save(root / "class1" / "c.bmp")
    Image.fromarray(np.arange(70 * 50, dtype=np.uint16).reshape(70, 50) * 18).save(
        root / "class0" / "deep.png"
    )
    return root


def reader(folder, views=DINO, batch_size=4, **options):
    return ImageFileReader(folder, batch_size, fit=Views(views), **{"epochs": 1, **options})


def batches(*modules, epochs=1):
    with Pipeline(list(modules)) as pipeline:
        return [batch for _ in range(epochs) for batch in pipeline]


def by_sample(found, *names):
    """The arrays of every sample by epoch and key."""
    return {
        (batch.epoch, key): [batch[name][row] for name in names or batch.fields]
        for batch in found
        for row, key in enumerate(batch.keys)
    }


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, arrays in found.items():
        for mine, theirs in zip(arrays, expected[key], strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(("color", "channels"), [("rgb", 3), ("gray", 1)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_fields(folder, color, channels, dtype):
    made = reader(folder, {**DINO, "one": (CenterFit(), (8, 9))}, color=color, dtype=dtype)
    spec = made.out_spec(None)
    assert [*spec] == ["global", "local", "one", "labels"]
    for batch in batches(made):
        assert [*batch.fields] == [*spec]
        assert batch["global"].shape == (batch.size, 2, 32, 32, channels)
        assert batch.local.shape == (batch.size, 8, 12, 16, channels)
        assert batch.one.shape == (batch.size, 8, 9, channels)
        assert batch.applied == 11
        for name, field in spec.items():
            assert (field.dtype, field.shape[1:]) == (batch[name].dtype, batch[name].shape[1:])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_view_is_what_its_fit_alone_makes(folder, dtype):
    fits = {
        "middle": CenterFit(),
        "letters": Letterbox(fill=9, interpolation="bicubic"),
        "all": Stretch(interpolation="nearest"),
        "random": AtPosition(3),
    }
    sizes = {"middle": (24, 32), "letters": (20, 20), "all": (9, 40), "random": (17, 5)}
    views = {name: (fit, sizes[name]) for name, fit in fits.items()}
    views["random"] = (2, RandomResizedCrop(), sizes["random"])
    found = batches(reader(folder, views, exact=True, dtype=dtype))
    for name, fit in fits.items():
        alone = batches(ImageFileReader(folder, 3, sizes[name], fit=fit, epochs=1, exact=True, dtype=dtype))
        mine = by_sample(found, name, "labels")
        if name == "random":
            mine = {key: [views_[0], label] for key, (views_, label) in mine.items()}
        assert_equal(mine, by_sample(alone, "images", "labels"))


def test_views_at_reduced_scales_look_as_those_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "large.jpg").write_bytes(jpeg_bytes(photograph(900, 1200, 1)))
    (batch,) = batches(reader(tmp_path, {"whole": (Stretch(), 48), "part": (CenterFit(), (300, 400))}, 1))
    for name, fit in (("whole", Stretch()), ("part", CenterFit())):
        (alone,) = batches(ImageFileReader(tmp_path, 1, batch[name].shape[1:3], fit=fit, epochs=1))
        assert np.abs(batch[name].astype(int) - alone.images).mean() < 3


def test_every_view_has_its_own_window(folder):
    for batch in batches(reader(folder, {"first": (2, SMALL, 16), "others": (8, SMALL, 16)})):
        for views in np.concatenate([batch.first, batch.others], axis=1):
            assert len({view.tobytes() for view in views}) == 10


def test_epochs_and_seeds_change_the_windows(folder):
    first, second = (by_sample(batches(reader(folder, seed=seed)), "local") for seed in (0, 1))
    with Pipeline([reader(folder, epochs=2)]) as pipeline:
        both = by_sample([batch for _ in range(2) for batch in pipeline], "local")
    for key, (views,) in first.items():
        assert not np.array_equal(views, second[key][0])
        assert not np.array_equal(views, both[1, key[1]][0])
        np.testing.assert_array_equal(views, both[key][0])


def test_any_number_of_threads_and_samples_in_a_batch_gives_the_same_bits(folder):
    expected = by_sample(batches(reader(folder, workers=1)))
    for workers, batch_size in ((2, 4), (8, 1), (8, 13)):
        assert_equal(by_sample(batches(reader(folder, batch_size=batch_size, workers=workers))), expected)


def chain(folder, batch_size=3):
    transforms = Augmentations([FlipX(), ColorJitter(0.4), Normalize()], field="global")
    return [
        reader(folder, batch_size=batch_size, epochs=2),
        transforms,
        Augmentations([FlipY()], field="local"),
    ]


def test_resuming_and_replay(folder):
    whole = batches(*chain(folder), epochs=2)
    with Pipeline(chain(folder)) as pipeline:
        for _ in range(2):
            pipeline.dequeue()
        state = pipeline.state_dict()
    with Pipeline(chain(folder, 4)) as pipeline:
        pipeline.load_state_dict(state)
        rest = by_sample([batch for _ in range(2) for batch in pipeline])
    seen = {(batch.epoch, key) for batch in whole[:2] for key in batch.keys}
    assert_equal(rest, {key: arrays for key, arrays in by_sample(whole).items() if key not in seen})
    again = replay.batch(chain(folder), state, epoch=1, step=1)
    assert_equal(
        by_sample([again]), by_sample([batch for batch in whole if (batch.epoch, batch.seq) == (1, 1)])
    )


@pytest.mark.parametrize("policy", ["raise", "skip", "replace"])
def test_bad_samples(folder, tmp_path, policy):
    good = by_sample(batches(reader(folder)))
    for path in folder.glob("*/*"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.relative_to(folder)).write_bytes(path.read_bytes())
    for name in ("class0/0.jpg", "class1/a.png", "class1/c.bmp"):
        contents = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(contents[: len(contents) // 2])
    made = reader(tmp_path, on_error=policy)
    if policy == "raise":
        with pytest.raises(DecodeError, match="class"):
            batches(made)
        return
    found = batches(made)
    assert sum(batch.size for batch in found) == (len(good) if policy == "replace" else len(good) - 3)
    for key, arrays in by_sample(found).items():
        for mine, theirs in zip(arrays, good[key], strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_other_readers(folder, tmp_path):
    expected = by_sample(batches(reader(folder, shuffle=False)))
    keys = [*reader(folder).known_keys()]
    labels = [int(key[5]) for key in keys]
    found = batches(ListReader(keys, labels, 4, root=folder, fit=Views(DINO), epochs=1, shuffle=False))
    assert_equal(by_sample(found), expected)
    tars = shards_of_folder(folder, keys, tmp_path, 2)
    found = batches(TarReader(tars, 4, fit=Views(DINO), label="cls", epochs=1, shuffle=False))
    assert [batch["local"].shape for batch in found] == [
        batch.local.shape for batch in batches(reader(folder, shuffle=False))
    ]


def test_stores(folder, tmp_path):
    expected = by_sample(batches(reader(folder, shuffle=False)))
    with Pipeline([reader(folder, shuffle=False), LevelDBSink(tmp_path / "views")]) as pipeline:
        pipeline.wait()
    stored = batches(LevelDBSource(tmp_path / "views", 5, shuffle=False, epochs=1))
    assert_equal(by_sample(stored), expected)
    source = ImageFileReader(folder, 4, 8, shuffle=False, epochs=1)
    with Pipeline([Encoded(source, "original"), LevelDBSink(tmp_path / "files")]) as pipeline:
        pipeline.wait()
    found = batches(LevelDBImageReader(tmp_path / "files", 4, fit=Views(DINO), shuffle=False, epochs=1))
    assert_equal(by_sample(found), expected)
    with pytest.raises(ArgumentError, match="LevelDBImageReader: shape is missing"):
        LevelDBImageReader(tmp_path / "files", 4)


def test_several_readers_as_one(folder):
    sources = [reader(folder, epochs=None, seed=seed) for seed in (0, 3)]
    found = batches(Concat(sources, epochs=1, shuffle=False))
    alone = [by_sample(batches(reader(folder, seed=seed))) for seed in (0, 3)]
    samples = [
        [batch[name][row] for name in ("global", "local", "labels")]
        for batch in found
        for row in range(batch.size)
    ]
    assert len(samples) == 2 * len(alone[0])
    for sample in samples:
        assert any(all(map(np.array_equal, sample, one)) for known in alone for one in known.values())


def test_over_the_network(folder):
    address = "inproc://views"
    with (
        Pipeline([reader(folder, workers=1), ZMQSink(address)]),
        Pipeline([ZMQSource(address), Augmentations([FlipX(), ToFloat()], field="global")]) as training,
    ):
        found = list(training)
    here = batches(reader(folder), Augmentations([FlipX(), ToFloat()], field="global"))
    assert [*found[0].fields] == ["global", "local", "labels"]
    assert_equal(by_sample(found), by_sample(here))


# Transforms of a field


STEPS = [FlipX(), Rotate(20), RandomCrop((20, 24)), ColorJitter(0.4, 0.3), Normalize()]


def test_a_field_with_one_view_is_transformed_as_images(folder):
    fit, size = RandomResizedCrop(), (32, 40)
    found = batches(reader(folder, {"one": (fit, size)}), Augmentations(STEPS, seed=7, field="one"))
    alone = batches(ImageFileReader(folder, 4, size, fit=fit, epochs=1), Augmentations(STEPS, seed=7))
    assert [batch.applied for batch in found] == [batch.applied for batch in alone]
    assert_equal(by_sample(found, "one", "labels"), by_sample(alone, "images", "labels"))


def test_every_view_draws_its_own_transforms(folder):
    same = batches(reader(folder, {"views": (6, CenterFit(), 16)}))
    found = batches(reader(folder, {"views": (6, CenterFit(), 16)}), Augmentations([FlipX()], field="views"))
    flipped = 0
    for before, after in zip(same, found, strict=True):
        for plain, views in zip(before.views, after.views, strict=True):
            kinds = [np.array_equal(view, one[:, ::-1]) for view, one in zip(views, plain, strict=True)]
            for mirrored, view, one in zip(kinds, views, plain, strict=True):
                np.testing.assert_array_equal(view, one[:, ::-1] if mirrored else one)
            flipped += sum(kinds)
            assert sum(kinds) < 6 or len(found) > 1
    assert 0.3 < flipped / (6 * sum(batch.size for batch in found)) < 0.7
    # The first view draws as the sample itself.
    for before, after in zip(same, found, strict=True):
        first = before.replace(images=before.views[:, 0].copy())
        np.testing.assert_array_equal(Augmentations([FlipX()]).process(first).images, after.views[:, 0])


def test_layouts_splitting_and_specs(folder):
    def made(*stages):
        pipeline = Pipeline([reader(folder), *stages])
        with pipeline:
            return by_sample(pipeline)

    together = made(Augmentations([FlipX(), RandomCrop((20, 24)), ToFloat()], field="global"))
    split = made(
        Augmentations([FlipX()], field="global"),
        Augmentations([RandomCrop((20, 24)), ToFloat("NHWC")], field="global"),
    )
    for key, (views, *_) in together.items():
        assert views.shape == (2, 3, 20, 24)
        np.testing.assert_array_equal(views, split[key][0].transpose(0, 3, 1, 2))
    spec = Augmentations([RandomCrop((20, 24)), ToFloat()], field="global").out_spec(
        reader(folder).out_spec(None)
    )
    assert (spec["global"].dtype, spec["global"].shape) == (np.float32, (None, 2, 3, 20, 24))
    assert spec["local"].shape == (None, 8, 12, 16, 3)


def test_fields_with_different_transforms(folder):
    stages = [Augmentations([Rotate(30)], field="a"), Augmentations([ToFloat()], field="b")]
    found = batches(reader(folder, {"a": (CenterFit(), 24), "b": (CenterFit(), 24)}), *stages)
    plain = batches(reader(folder, {"a": (CenterFit(), 24), "b": (CenterFit(), 24)}))
    for batch, before in zip(found, plain, strict=True):
        assert not np.array_equal(batch.a, before.a)
        np.testing.assert_array_equal(batch.b, ToFloat().apply_images(before.b, None))


def test_shapes_of_images_pass_transforms_of_another_field(folder):
    """What does not fit one of the shapes is refused before the first batch, as without them."""
    source = ImageFileReader(folder, 4, epochs=1, fit=Buckets([(16, 16), (16, 32)]))
    with pytest.raises(ArgumentError, match="RandomCrop"):
        Pipeline([source, Augmentations([ToFloat()], field="x"), Augmentations([RandomCrop((16, 20))])])


@pytest.mark.parametrize("on_device", [False, True])
def test_loaders_of_torch_change_only_the_conversion_of_images(folder, on_device):
    of_field = Augmentations([Normalize()], field="global")
    pipeline = Pipeline([reader(folder), of_field])
    if on_device:
        with pytest.raises(ArgumentError, match="normalize is 'device', and the transforms do not end in"):
            prepared(pipeline, False, True)
    else:
        assert prepared(pipeline, True, False)[0] is pipeline
    of_images = Augmentations([ToFloat()])
    source = ImageFileReader(folder, 4, 16, epochs=1)
    (_, values) = prepared([source, of_field, of_images], not on_device, on_device)[1:]
    assert isinstance(values, ToFloat)
    (made, _, values) = prepared([source, of_images, of_field], True, False)
    assert isinstance(values, ToFloat)
    assert [*map(repr, made.given)] == [*map(repr, (source, of_images, of_field))]


def test_transforms_that_do_not_find_their_images(folder):
    with pytest.raises(
        FieldError, match=r"needs the field 'images'; the batch has global, local, labels; .*field='x'"
    ):
        batches(reader(folder), Augmentations([FlipX()]))
    with pytest.raises(
        FieldError, match=r"field is 'other'; expected a field of the batch.*global, local, labels"
    ):
        batches(reader(folder), Augmentations([FlipX()], field="other"))
    labels = Batch({"labels": np.zeros(3, np.int64)}, seq=0)
    with pytest.raises(ContractError, match=r"field 'labels' is int64 of shape \(3,\)"):
        Augmentations([FlipX()], field="labels").process(labels)


@pytest.mark.parametrize(
    ("transforms", "options", "message"),
    [
        ([Mixup(num_classes=3)], {}, "field is 'global', and Mixup.* mixes samples"),
        ([ToFloat(field="x")], {}, "field is 'global', and ToFloat.* names a field too"),
        ([ToFloat(dtype="bfloat16")], {}, "field is 'global', and ToFloat.* returns the bits of bfloat16"),
        ([], {"fields": {"x": None}}, "field is 'global' and fields is"),
        ([], {"field": "boxes"}, "field is 'boxes'; expected the name"),
        ([], {"field": "images"}, "field is 'images'; expected the name .*leave field= out"),
        ([], {"field": "two words"}, "field is 'two words'; expected the name"),
    ],
)
def test_wrong_arguments_of_augmentations(transforms, options, message):
    with pytest.raises(ArgumentError, match=f"^Augmentations: {message}"):
        Augmentations(transforms, **{"field": "global", **options})


# Arguments


@pytest.mark.parametrize(
    ("views", "message"),
    [
        ({}, "views is {}"),
        ([("a", CenterFit(), 3)], "views is "),
        ({"images": (CenterFit(), 3)}, "'images' cannot name a field of views"),
        ({"labels": (CenterFit(), 3)}, "'labels' cannot name"),
        ({"size": (CenterFit(), 3)}, "'size' cannot name"),
        ({"a b": (CenterFit(), 3)}, "'a b' cannot name"),
        ({"a": CenterFit()}, r"views\['a'\] is CenterFit"),
        ({"a": (CenterFit(),)}, r"views\['a'\] is "),
        ({"a": (0, CenterFit(), 3)}, "the number of views of 'a' is 0"),
        ({"a": (True, CenterFit(), 3)}, "the number of views of 'a' is True"),
        ({"a": (CenterFit(), 0)}, "the size of 'a' is 0"),
        ({"a": (Resize(3), 3)}, "the fit of 'a' is Resize"),
        ({"a": (Buckets([(3, 3), (3, 6)]), 3)}, "the fit of 'a' is Buckets"),
        ({"a": (FlipX(), 3)}, "the fit of 'a' is FlipX"),
        ({"a": (CenterFit(4), 3)}, r"the fit of 'a' is CenterFit\(\(4, 4\).*\(3, 3\)"),
        (
            {"a": (40, CenterFit(), 3), "b": (25, CenterFit(), 3)},
            "65 views of each picture; expected at most 64",
        ),
    ],
)
def test_wrong_views(views, message):
    with pytest.raises(ArgumentError, match=f"^Views: {message}"):
        Views(views)


def test_what_does_not_go_with_views(folder, tmp_path):
    with pytest.raises(ArgumentError, match=r"^ImageFileReader: shape is 3; expected None with Views"):
        ImageFileReader(folder, 4, 3, fit=Views(DINO))
    with pytest.raises(ArgumentError, match=r"^ImageFileReader: shape is missing; expected"):
        ImageFileReader(folder, 4)
    with pytest.raises(ArgumentError, match=r"^ImageFileReader: fit is 3; expected .*or Views"):
        ImageFileReader(folder, 4, 3, fit=3)
    for field in ("local", "global"):
        with pytest.raises(ArgumentError, match=f"'{field}' has the images of a view; expected"):
            Pipeline(
                [
                    reader(folder),
                    Augmentations([FlipX()], field="local"),
                    Augmentations([ToFloat(field=field)]),
                ]
            )
    with pytest.raises(ArgumentError, match=r"^Augmentations: field is \['local'\]"):
        Augmentations([FlipX()], field=["local"])
    keys = [*reader(folder).known_keys()]
    numbers, none = [0] * len(keys), [np.zeros(0, np.int64)] * len(keys)
    for labels, options, found in (
        (none, {"boxes": [np.zeros((0, 4))] * len(keys)}, "boxes"),
        (numbers, {"placement": True}, "the extra placement"),
        (numbers, {"pairs": {"second": keys}}, "'second'"),
        (numbers, {"masks": keys}, "masks"),
    ):
        with pytest.raises(
            ArgumentError, match=f"the samples have {found}, which would need one set for each view"
        ):
            ListReader(keys, labels, 4, root=folder, fit=Views(DINO), **options)
    with pytest.raises(ArgumentError, match=r"^Letterbox: fill is 300, for images of uint8"):
        reader(folder, {"a": (Letterbox(fill=300), 9)})
    with pytest.raises(FieldError, match="images"):
        batches(reader(folder), ImageSaver(tmp_path / "saved"))
    with pytest.raises(FieldError, match="images"):
        batches(reader(folder))[0].sheet()


def test_columns_with_the_name_of_a_view(folder, tmp_path):
    keys = [*reader(folder).known_keys()]
    tars = shards_of_folder(folder, keys, tmp_path, 1)
    with pytest.raises(ArgumentError, match="the samples have a field 'local' too"):
        TarReader(tars, 4, fit=Views(DINO), fields={"local": "cls"})


def test_a_fit_of_your_own_that_reaches_out_is_named(folder):
    class Outside(Fit):
        def place(self, rng, heights, widths, size):
            placement = CenterFit().place(rng, heights, widths, size)
            return placement._replace(windows=placement.windows + 1)

    with pytest.raises(ContractError, match=r"^Outside: place returned window"):
        batches(reader(folder, {"a": (CenterFit(), 8), "b": (Outside(), 8)}))


def test_views_are_values():
    views = Views(DINO)
    for other in (
        pickle.loads(pickle.dumps(views)),
        copy.deepcopy(views),
        Views(dict(DINO)),
        eval(repr(views)),
    ):
        assert other == views
        assert hash(other) == hash(views)
        assert repr(other) == repr(views)
    assert views != Views({"global": DINO["global"]})
    assert views != Views(dict(reversed(DINO.items())))
    assert [*views] == ["global", "local"]


def test_readers_and_states_know_their_views(folder):
    made = reader(folder)
    assert "None, fit=Views({'global': (2, RandomResizedCrop(" in repr(made)
    assert pickle.loads(pickle.dumps(made)) == made
    assert made.shape is None
    fingerprints = {
        reader(folder, views).samples_fingerprint() for views in (DINO, {"global": DINO["global"]})
    }
    assert len(fingerprints) == 2
