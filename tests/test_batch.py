"""Batch: fields in order, and the identity of the samples."""

from __future__ import annotations

import copy
import json
import pickle
import weakref
from collections.abc import Mapping

import numpy as np
import pytest

from highway.batch import Batch, concatenated, ragged_groups
from highway.errors import ArgumentError, FieldError, HighwayError, SampleIndexError

IMAGES = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
LABELS = np.array([5, 7])


@pytest.fixture
def batch():
    return Batch(
        {"images": IMAGES, "labels": LABELS},
        epoch=2,
        seq=3,
        indices=[11, 4],
        keys=["a/x.jpg", "b/y.jpg"],
        applied=1,
    )


@pytest.mark.parametrize("fields", [5, [1], np.zeros(3), None, "ab", [("images", np.zeros(1))]])
def test_fields_are_named_arrays(fields):
    with pytest.raises(
        ArgumentError, match=r"Batch: fields is a \w+; expected arrays by name, such as {'images': images}"
    ):
        Batch(fields)


def test_unpacks_in_order(batch):
    images, labels = batch
    assert images is IMAGES
    assert labels is LABELS
    assert len(batch) == 2


def test_fields_by_name(batch):
    assert batch.images is batch["images"] is batch.fields["images"] is IMAGES
    assert list(batch.fields) == ["images", "labels"]


def test_fields_by_position(batch):
    assert batch[0] is batch[-2] is batch[np.int8(0)] is IMAGES
    assert batch[1] is batch[-1] is LABELS
    for position in (2, -3):
        with pytest.raises(FieldError, match=rf"no field {position}; it has 2: images, labels"):
            batch[position]
    for wrong in (1.0, (0, 1), None):
        with pytest.raises(FieldError, match="expected a name, or a position"):
            batch[wrong]
    with pytest.raises(FieldError, match="no field 0; it has 0: none"):
        Batch({})[0]


def test_positions_are_those_of_fields_not_extras():
    more = Batch({"images": IMAGES}, extras={"weights": LABELS})
    assert more["weights"] is LABELS
    with pytest.raises(FieldError, match="it has 1: images"):
        more[1]


def test_as_tuple_and_as_dict(batch):
    images, labels = batch.as_tuple()
    assert (images is IMAGES, labels is LABELS) == (True, True)
    shown = batch.as_dict()
    assert [*shown] == ["images", "labels"]
    assert shown["images"] is IMAGES
    shown.clear()
    assert list(batch.fields) == ["images", "labels"]
    weighted = Batch({"images": IMAGES}, extras={"weights": LABELS})
    assert [id(array) for array in weighted.as_tuple()] == [id(IMAGES)]
    assert list(weighted.as_dict()) == ["images"]


@pytest.mark.parametrize("keys", [["a", "b"], [], None])
def test_dict_of_a_batch_is_its_fields(keys):
    batch = Batch({"images": IMAGES}, keys=keys, extras={"weights": LABELS})
    batch.fields["labels"] = LABELS

    def function(images, labels):
        return images, labels

    for made in (dict(batch), {**batch}, dict(batch, more=None), {**batch, "more": None}):
        assert [*made][:2] == ["images", "labels"]
        assert made["images"] is IMAGES
        assert made["labels"] is LABELS
    assert dict(batch) == batch.as_dict()
    assert [id(array) for array in function(**batch)] == [id(IMAGES), id(LABELS)]
    assert dict(Batch({})) == {}


def test_keys_are_a_list():
    batch = Batch({"labels": LABELS}, keys=("a", "b"))
    assert isinstance(batch.keys, list)
    assert batch.keys == ["a", "b"]
    assert batch.keys is batch.keys
    assert (batch.keys[1], batch.keys[:1], len(batch.keys), repr(batch.keys)) == ("b", ["a"], 2, "['a', 'b']")
    assert json.loads(json.dumps(batch.keys)) == ["a", "b"]
    assert type(pickle.loads(pickle.dumps(batch.keys))) is type(copy.deepcopy(batch.keys)) is list
    batch.keys = ["c", "d"]
    assert batch.keys == ["c", "d"]
    assert [*dict(batch)] == ["labels"]


@pytest.mark.parametrize("keys", [[], None])
def test_keys_are_empty_without_names(keys):
    batch = Batch({"labels": LABELS}, keys=keys)
    assert batch.keys == []
    assert batch.take([1]).keys == batch.replace().keys == []
    batch.adopt(Batch({"labels": LABELS}, keys=["a", "b"]))
    assert batch.keys == ["a", "b"]
    batch.keys = None
    assert batch.keys == []


def test_keys_that_outlive_their_batch_keep_no_array():
    array = np.zeros(2)
    gone = weakref.ref(array)
    batch = Batch({"labels": array}, keys=["a", "b"])
    keys = batch.keys
    dict(batch)
    del batch, array
    assert gone() is None
    assert keys == ["a", "b"]


@pytest.mark.parametrize("name", ["as_tuple", "as_dict"])
def test_no_field_has_the_name_of_a_method(name):
    with pytest.raises(ArgumentError, match="cannot name a field"):
        Batch({name: LABELS})


def test_identity(batch):
    assert (batch.epoch, batch.seq, batch.applied) == (2, 3, 1)
    assert batch.indices.dtype == np.int64
    assert batch.indices.tolist() == [11, 4]
    assert batch.keys == ["a/x.jpg", "b/y.jpg"]


def test_sizes(batch):
    assert batch.size == 2
    assert batch.nbytes == IMAGES.nbytes + LABELS.nbytes
    assert Batch({}).size == Batch({}).nbytes == 0
    assert Batch({"loss": np.array(1.0)}).size == 0


def test_what_has_no_dimensions_is_the_whole_batchs():
    loss = np.array(1.0)
    assert Batch({"loss": loss, "labels": LABELS}, keys=["a", "b"]).size == 2
    assert Batch({"loss": loss}, extras={"labels": LABELS, "scale": loss}).size == 2
    assert Batch({"labels": LABELS}, indices=[3, 4], extras={"loss": loss}).size == 2


def test_indices_follow_from_the_number_where_none_are_given():
    batch = Batch({"images": IMAGES})
    assert batch.indices.tolist() == [0, 1]
    batch.seq = 5
    assert batch.indices.tolist() == [10, 11]
    assert batch.indices is batch.indices


def test_replace_keeps_the_identity(batch):
    flipped = batch.replace(images=IMAGES[:, :, ::-1], applied=2)
    assert list(flipped.fields) == ["images", "labels"]
    assert (flipped.images == IMAGES[:, :, ::-1]).all()
    assert flipped.labels is LABELS
    assert (flipped.epoch, flipped.seq, flipped.applied) == (2, 3, 2)
    assert flipped.indices.tolist() == [11, 4]
    assert flipped.keys == batch.keys
    assert batch.images is IMAGES
    assert batch.applied == 1


def test_replace_adds_fields_at_the_end(batch):
    assert list(batch.replace(masks=IMAGES[..., 0]).fields) == ["images", "labels", "masks"]


def test_replace_of_indices_takes_the_keys_along(batch):
    less = batch.replace(images=IMAGES[:1], labels=LABELS[:1], indices=batch.indices[:1], keys=batch.keys[:1])
    assert (less.size, less.keys) == (1, ["a/x.jpg"])
    assert batch.replace(indices=[3, 4]).keys == []


def test_replace_before_the_batch_has_a_number():
    batch = Batch({"images": IMAGES}).replace(images=IMAGES + 1)
    batch.seq = 4
    assert batch.indices.tolist() == [8, 9]


def test_adopt_takes_what_is_missing(batch):
    made = Batch({"images": IMAGES})
    made.adopt(batch)
    assert (made.epoch, made.seq, made.applied, made.keys) == (2, 3, 1, batch.keys)
    assert made.indices.tolist() == [11, 4]
    other_size = Batch({"images": IMAGES[:1]}, applied=4)
    other_size.adopt(batch)
    assert (other_size.seq, other_size.applied, other_size.keys) == (3, 4, [])
    assert other_size.indices.tolist() == [3]


@pytest.mark.parametrize("name", ["size", "epoch", "fields", "replace", "_own", "1st", "two words", "", 3])
def test_names_that_cannot_be_are_refused(name):
    with pytest.raises(ArgumentError, match="cannot name a field"):
        Batch({name: LABELS})


def test_a_field_may_have_the_name_of_a_keyword():
    batch = Batch({"global": LABELS, "labels": LABELS})
    assert batch["global"] is LABELS
    assert list(batch.take([0]).fields) == ["global", "labels"]


def test_what_is_no_array_is_refused():
    with pytest.raises(ArgumentError, match="'labels' must be a numpy array, but is list"):
        Batch({"labels": [1, 2]})


BOXES = np.zeros((5, 4), np.float32)
THREE = np.zeros(3)


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        (
            {"fields": {"images": IMAGES, "labels": THREE}},
            "field 'labels' has 3 rows, and field 'images' has 2",
        ),
        (
            {"fields": {"labels": THREE, "images": IMAGES}},
            "field 'images' has 2 rows, and field 'labels' has 3",
        ),
        ({"fields": {"loss": np.array(1.0), "a": LABELS, "b": THREE}}, "'b' has 3 rows, and field 'a' has 2"),
        (
            {"fields": {"images": IMAGES[:0], "labels": LABELS}},
            "'labels' has 2 rows, and field 'images' has 0",
        ),
        (
            {"fields": {"images": IMAGES}, "indices": [1]},
            "field 'images' has 2 rows, and there are 1 indices",
        ),
        (
            {"fields": {"images": IMAGES}, "indices": [1, 2, 3]},
            "'images' has 2 rows, and there are 3 indices",
        ),
        ({"fields": {"images": IMAGES}, "indices": []}, "'images' has 2 rows, and there are 0 indices"),
        (
            {"fields": {"images": IMAGES}, "extras": {"weights": THREE}},
            "extra 'weights' has 3 rows, and field",
        ),
        ({"fields": {}, "extras": {"a": LABELS, "b": THREE}}, "extra 'b' has 3 rows, and extra 'a' has 2"),
        ({"fields": {"boxes": BOXES}, "indices": [1, 2]}, "'boxes' has 5 rows, and there are 2 indices"),
        ({"fields": {"images": IMAGES, "boxes": BOXES}}, "'boxes' has 5 rows.*set offsets= and ragged="),
        (
            {"fields": {"images": IMAGES, "boxes": BOXES}, "offsets": [0, 5], "ragged": ["boxes"]},
            "'images' has 2 rows, and the offsets are for 1 samples",
        ),
        (
            {"fields": {"boxes": BOXES}, "indices": [1], "offsets": [0, 2, 5], "ragged": ["boxes"]},
            "3 offsets for 1 samples; expected one more",
        ),
        (
            {"fields": {"boxes": BOXES}, "offsets": [0, 2, 4], "ragged": ["boxes"]},
            r"'boxes' has shape \(5, 4\), and the offsets end with 4",
        ),
        (
            {
                "fields": {"boxes": BOXES},
                "extras": {"hard": THREE},
                "offsets": [0, 5],
                "ragged": ["boxes", "hard"],
            },
            r"'hard' has shape \(3,\), and the offsets end with 5",
        ),
        ({"fields": {"boxes": BOXES}, "ragged": ["boxes"]}, "boxes ragged, but there are no offsets"),
        ({"fields": {"images": IMAGES}, "keys": ["a"]}, "1 keys for 2 samples"),
    ],
)
def test_counts_that_disagree_are_refused(parts, named):
    with pytest.raises(ArgumentError, match=f"^Batch: .*{named}"):
        Batch(**parts)


def test_replace_refuses_counts_that_disagree(batch):
    for changes, named in (
        ({"labels": THREE}, "field 'labels' has 3 rows, and there are 2 indices"),
        ({"weights": THREE}, "field 'weights' has 3 rows"),
        ({"indices": [1]}, "field 'images' has 2 rows, and there are 1 indices"),
        ({"keys": ["a"]}, "1 keys for 2 samples"),
        ({"images": IMAGES[:1], "labels": LABELS[:1]}, "'images' has 1 rows, and there are 2 indices"),
        ({"boxes": BOXES}, "set offsets= and ragged="),
        ({"offsets": [0, 5]}, "2 offsets for 2 samples"),
    ):
        with pytest.raises(ArgumentError, match=named):
            batch.replace(**changes)


def test_there_are_as_many_samples_as_offsets_tell():
    rows = {"boxes": np.zeros((5, 4), np.float32)}
    batch = Batch(rows, keys=["a", "b"], offsets=[0, 2, 5], ragged=("boxes",))
    assert (batch.size, batch.keys) == (2, ["a", "b"])
    with pytest.raises(ArgumentError, match="5 keys for 2 samples"):
        Batch(rows, keys=list("abcde"), offsets=[0, 2, 5], ragged=("boxes",))


@pytest.mark.parametrize("indices", [[[1, 2]], [1.5, 2.0], 3])
def test_indices_are_whole_numbers(indices):
    with pytest.raises(ArgumentError, match="indices must be one whole number a sample"):
        Batch({"images": IMAGES}, indices=indices)


def test_missing_field_says_what_there_is(batch):
    with pytest.raises(FieldError, match=r"^Batch has no field 'boxes'; it has images, labels$"):
        batch["boxes"]
    with pytest.raises(AttributeError, match=r"no attribute 'boxes'; its fields are images, labels$"):
        _ = batch.boxes
    assert not hasattr(batch, "masks")
    assert issubclass(FieldError, HighwayError)
    assert issubclass(FieldError, KeyError)


def test_attributes_cannot_be_misspelt(batch):
    with pytest.raises(AttributeError):
        batch.epochs = 3


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda batch: pickle.loads(pickle.dumps(batch))]
)
def test_copies(batch, duplicate):
    other = duplicate(batch)
    assert (other.images == IMAGES).all()
    assert (other.epoch, other.seq, other.keys, other.applied) == (2, 3, batch.keys, 1)
    assert other.indices.tolist() == [11, 4]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_lost_by_pickling(protocol):
    batch = Batch(
        {"images": IMAGES, "boxes": BOXES},
        epoch=2,
        seq=3,
        indices=[7, 8],
        keys=["a", "b"],
        applied=4,
        extras={"weights": LABELS},
        offsets=[0, 2, 5],
        ragged=["boxes"],
    )
    other = pickle.loads(pickle.dumps(batch, protocol))
    for name in set(Batch.__slots__) - {"__weakref__", "fields", "extras", "offsets", "_indices"}:
        assert getattr(other, name) == getattr(batch, name)
    assert other.keys == ["a", "b"]
    assert [*dict(other)] == ["images", "boxes"]
    assert other.indices.tolist() == [7, 8]
    assert other.offsets.tolist() == [0, 2, 5]
    assert other.boxes_of(1).shape == (3, 4)
    for mine, theirs in ((batch.fields, other.fields), (batch.extras, other.extras)):
        assert list(mine) == list(theirs)
        assert all((mine[name] == theirs[name]).all() for name in mine)


def test_samples_by_number():
    batch = Batch(
        {"labels": LABELS, "boxes": np.arange(20, dtype=np.float32).reshape(5, 4)},
        extras={"placement": np.stack([np.eye(3)] * 2), "picture_sizes": np.full((2, 2), 99)},
        offsets=[0, 2, 5],
        ragged=["boxes"],
    )
    assert (batch.boxes_of(-1) == batch.boxes_of(1)).all()
    assert (batch.boxes_of(-2) == batch.boxes_of(0)).all()
    assert batch.rows_of("labels", -2) == batch.rows_of("labels", np.int64(0)) == 5
    for number in (2, -3, 10**30):
        for call in (
            batch.boxes_of,
            batch.boxes_in_picture,
            lambda i: batch.boxes_in_picture(i, [[0, 0, 1, 1]]),
            lambda i: batch.rows_of("labels", i),
        ):
            with pytest.raises(
                SampleIndexError, match=f"no sample {number}; expected a number from -2 to 1, of 2"
            ):
                call(number)
    # A byte cannot hold how many samples there are.
    many = Batch({"boxes": np.ones((300, 4), np.float32)}, offsets=range(301), ragged=["boxes"])
    assert many.boxes_of(np.uint8(255)).shape == many.boxes_of(np.int8(-1)).shape == (1, 4)
    for wrong in (1.0, "1", None):
        with pytest.raises(TypeError, match="interpreted as an integer"):
            batch.boxes_of(wrong)
    with pytest.raises(IndexError, match="no sample 0; the batch is empty"):
        Batch({"boxes": BOXES[:0]}, offsets=[0], ragged=["boxes"]).boxes_of(0)
    assert issubclass(SampleIndexError, HighwayError)


def test_repr_shows_what_is_in_it(batch):
    assert repr(batch) == "<Batch images=uint8[2, 4, 6, 3], labels=int64[2], epoch=2, seq=3>"


@pytest.fixture
def mixed():
    """Boxes with their labels, and tokens of other numbers."""
    rows = np.array([0, 1, 1, 3])
    return Batch(
        {"boxes": np.arange(12.0).reshape(3, 4), "tokens": np.arange(5)},
        extras={"labels": np.array([7, 8, 9]), "sizes": np.arange(3)},
        ragged={"boxes": rows, "labels": rows, "tokens": [0, 4, 5, 5]},
        indices=[5, 3, 4],
    )


def test_ragged_fields_with_their_own_offsets(mixed):
    assert mixed.offsets is None
    assert mixed.size == 3
    assert mixed.ragged == {"boxes", "labels", "tokens"}
    assert mixed.offsets_of("tokens").tolist() == [0, 4, 5, 5]
    assert mixed.offsets_of("boxes") is mixed.offsets_of("labels")
    assert mixed.ragged_with("labels") == {"boxes", "labels"}
    assert mixed.ragged_with("tokens") == {"tokens"}
    assert ragged_groups(mixed) == [["boxes", "labels"], ["tokens"]]
    assert mixed.rows_of("tokens", 0).tolist() == [0, 1, 2, 3]
    assert mixed.rows_of("labels", -1).tolist() == [8, 9]
    assert mixed.rows_of("sizes", 1) == 1


def test_one_array_of_offsets_for_all_is_that_of_the_batch():
    rows = np.array([0, 1, 3])
    arrays = {"boxes": np.ones((3, 4)), "labels": np.arange(3)}
    for ragged in ({"boxes": rows, "labels": rows}, {"labels": rows}):
        batch = Batch({name: arrays[name] for name in ragged}, ragged=ragged)
        assert batch.offsets is batch.offsets_of("labels")
        assert batch.offsets.tolist() == [0, 1, 3]
    # Equal by chance: where boxes are dropped, the tokens stay.
    batch = Batch(arrays, ragged={"boxes": [0, 1, 3], "labels": [0, 1, 3]})
    assert batch.ragged_with("boxes") == {"boxes"}


def test_samples_of_several_offsets_are_taken(mixed):
    taken = mixed.take([2, 0, 2])
    assert taken.rows_of("labels", 0).tolist() == [8, 9]
    assert taken.rows_of("labels", 1).tolist() == [7]
    assert taken.offsets_of("tokens").tolist() == [0, 0, 4, 4]
    assert taken.ragged_with("boxes") == {"boxes", "labels"}
    assert taken.indices.tolist() == [4, 5, 4]
    assert mixed.take([]).offsets_of("tokens").tolist() == [0]


def test_samples_are_taken_from_the_end_too(mixed):
    last = mixed.take([-1, -3])
    assert last.indices.tolist() == mixed.indices[[2, 0]].tolist()
    assert last.boxes.tolist() == mixed.take([2, 0]).boxes.tolist()
    assert last.tokens.tolist() == mixed.take([2, 0]).tokens.tolist()


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([3], SampleIndexError, "no sample 3; expected numbers from -3 to 2"),
        ([0, -4], SampleIndexError, "no sample -4"),
        ([True, False, True], ArgumentError, r"dtype bool; .*np\.flatnonzero\(mask\)"),
        ([0.5], ArgumentError, "dtype float64; expected whole numbers"),
    ],
)
def test_samples_that_cannot_be_taken(mixed, rows, error, message):
    with pytest.raises(error, match=message):
        mixed.take(rows)


def test_a_mapping_that_makes_its_offsets_anew():
    class Anew(Mapping):
        def __getitem__(self, name):
            return np.array({"a": [0, 1, 3], "b": [0, 2, 3]}[name])

        def __iter__(self):
            return iter(("a", "b"))

        def __len__(self):
            return 2

    batch = Batch({"a": np.arange(3), "b": np.arange(3)}, ragged=Anew())
    assert batch.offsets_of("a").tolist() == [0, 1, 3] and batch.offsets_of("b").tolist() == [0, 2, 3]


def test_replace_with_several_offsets(mixed):
    kept = mixed.replace(tokens=np.arange(10, 15))
    assert kept.rows_of("tokens", 1).tolist() == [14]
    assert kept.ragged_with("boxes") == {"boxes", "labels"}
    padded = mixed.replace(tokens=np.zeros((3, 4)), ragged={"boxes", "labels"})
    assert padded.offsets.tolist() == [0, 1, 1, 3]
    assert padded["tokens"].shape == (3, 4)
    whole = mixed.replace(
        boxes=np.zeros((3, 4)), labels=np.zeros(3), tokens=np.zeros(3), ragged=(), offsets=None
    )
    assert whole.ragged == frozenset() and whole.size == 3
    with pytest.raises(FieldError, match=r"'sizes', of shape \(3,\), is not ragged; expected one of boxes"):
        mixed.replace(ragged=["sizes"])
    with pytest.raises(
        FieldError, match=r"ragged, nor is any other; ragged=\['x'\] of DatasetReader and Map"
    ):
        Batch({"x": np.zeros((2, 3))}).offsets_of("x")


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda batch: pickle.loads(pickle.dumps(batch))]
)
def test_copies_keep_several_offsets(mixed, duplicate):
    copied = duplicate(mixed)
    assert copied.offsets_of("tokens").tolist() == [0, 4, 5, 5]
    assert ragged_groups(copied) == ragged_groups(mixed)


@pytest.mark.parametrize(
    ("ragged", "message"),
    [
        ({"tokens": [0, 5], "more": [0, 1, 5]}, "field 'more' has 3 offsets for 1 samples"),
        (
            {"tokens": [0, 3, 4], "more": [0, 1, 5]},
            r"field 'tokens' has shape \(5,\), and the offsets end with 4",
        ),
        (
            {"tokens": [0, 3, 5], "more": [1, 5]},
            "offsets of 'more' are .*; expected whole numbers that ascend from 0",
        ),
        ({"tokens": [0, 5], "more": [0, 5], "others": [0, 5]}, "no field .others."),
    ],
)
def test_several_offsets_that_disagree_are_refused(ragged, message):
    with pytest.raises(HighwayError, match=message):
        Batch({"tokens": np.arange(5), "more": np.arange(5)}, ragged=ragged)


def test_offsets_are_given_once():
    with pytest.raises(ArgumentError, match=r"ragged is a mapping.*expected one of both"):
        Batch({"tokens": np.arange(5)}, ragged={"tokens": [0, 5]}, offsets=[0, 5])


def test_texts_are_ragged_bytes():
    texts = ["a", "", "größer", "\udcff"]
    values, offsets = concatenated(texts)
    batch = Batch({"text": values, "names": np.array(texts, object)}, ragged={"text": offsets})
    assert values.dtype == np.uint8
    assert [batch.text_of("text", i) for i in range(3)] == texts[:3]
    assert batch.text_of("names", 2) == "größer"
    assert concatenated([b"ab", bytearray(b"c"), memoryview(b"dxe")[::2]])[0].tobytes() == b"abcde"
    with pytest.raises(FieldError, match=r"'text' of sample 3 is not UTF-8: .*rows_of\('text', 3\).tobytes"):
        batch.text_of("text", 3)
    with pytest.raises(FieldError, match=r"'n' is int64 of shape \(4,\); expected ragged uint8"):
        batch.replace(n=np.arange(4)).text_of("n", 0)


def test_samples_are_concatenated():
    values, offsets = concatenated([np.ones((2, 3), np.float32), np.zeros((0, 3), np.float32)])
    assert values.shape == (2, 3) and values.dtype == np.float32
    assert offsets.tolist() == [0, 2, 2]
    assert concatenated([])[1].tolist() == [0]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (["a", np.arange(2)], "sample 1 is int64 of shape .*, sample 0 is uint8"),
        ([np.ones((1, 2)), np.ones((1, 3))], "the same shape but for the first axis"),
        ([5], r"sample 0 is int64 of shape \(\); expected str, bytes, or numbers"),
        ([[None]], "sample 0 is object"),
        ([[[1], [1, 2]]], "sample 0 is no array"),
        (["a", "\ud800"], "sample 1 is no text in UTF-8"),
    ],
)
def test_samples_that_do_not_fit_are_refused(samples, message):
    with pytest.raises(ArgumentError, match=message):
        concatenated(samples)
