"""Batch: fields in order, and the identity of the samples."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from highway.batch import Batch
from highway.errors import ArgumentError, FieldError, HighwayError

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
        ArgumentError, match=r"Batch: fields is a \w+; expected arrays by name, as {'images': images}"
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


def test_size_is_that_of_the_indices_where_a_field_is_ragged():
    ragged = Batch({"boxes": np.zeros((7, 4), np.float32)}, indices=[1, 2, 3])
    assert ragged.size == 3


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
    assert list(batch.replace(boxes=np.zeros((0, 4))).fields) == ["images", "labels", "boxes"]


def test_replace_of_indices_takes_the_keys_along(batch):
    less = batch.replace(images=IMAGES[:1], labels=LABELS[:1], indices=batch.indices[:1], keys=batch.keys[:1])
    assert (less.size, less.keys) == (1, ["a/x.jpg"])
    assert batch.replace(indices=[3]).keys is None


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
    assert (other_size.seq, other_size.applied, other_size.keys) == (3, 4, None)
    assert other_size.indices.tolist() == [3]


@pytest.mark.parametrize(
    "name", ["size", "epoch", "fields", "replace", "_own", "1st", "two words", "class", "", 3]
)
def test_names_that_cannot_be_are_refused(name):
    with pytest.raises(ArgumentError, match="cannot name a field"):
        Batch({name: LABELS})


def test_what_is_no_array_is_refused():
    with pytest.raises(ArgumentError, match="'labels' must be a numpy array, but is list"):
        Batch({"labels": [1, 2]})


def test_counts_that_disagree_are_refused():
    with pytest.raises(ArgumentError, match="1 keys for 2 samples"):
        Batch({"images": IMAGES}, keys=["a"])


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


def test_repr_shows_what_is_in_it(batch):
    assert repr(batch) == "<Batch images=uint8[2, 4, 6, 3], labels=int64[2], epoch=2, seq=3>"
