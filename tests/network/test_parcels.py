"""Batches as items for the way and back: every part of one travels, and what a hostile peer makes up is refused."""

import numpy as np
import pytest

from highway.batch import Batch
from highway.errors import ProtocolError
from highway.network.batch_codec import item_of, to_batch
from highway.network.protocol.messages import Item, Kind


def plain(batch):
    """As many of everything, and no offsets."""
    fields = {name: array[: batch.size] for name, array in batch.fields.items()}
    return without(
        Batch(fields, indices=batch.indices, keys=batch.keys, seq=3), extras={}, offsets=None, ragged=()
    )


def detection():
    return Batch(
        {
            "images": np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3),
            "labels": np.array([5, 6, 7]),
            "boxes": np.arange(12, dtype=np.float32).reshape(3, 4),
        },
        epoch=2,
        seq=3,
        indices=[8, 9],
        keys=["a", "b"],
        applied=1,
        extras={"difficult": np.array([True, False, True]), "weights": np.array([0.5, 1.5])},
        offsets=[0, 1, 3],
        ragged=("labels", "boxes", "difficult"),
    )


def without(batch, **changes):
    parts = {
        name: getattr(batch, name)
        for name in ("epoch", "seq", "indices", "keys", "extras", "offsets", "ragged")
    }
    return Batch(batch.fields, **{**parts, **changes})


@pytest.mark.parametrize(
    "batch",
    [
        detection(),
        without(detection(), keys=None),
        without(detection(), extras={}, ragged=("labels", "boxes")),
        plain(detection()),
    ],
)
def test_there_and_back(batch):
    found = to_batch(item_of(batch))
    for name in ("epoch", "seq", "keys", "applied", "ragged"):
        assert getattr(found, name) == getattr(batch, name)
    assert found.indices.tolist() == batch.indices.tolist()
    assert (found.offsets is None) == (batch.offsets is None)
    if batch.offsets is not None:
        assert found.offsets.tolist() == batch.offsets.tolist()
    for kind in ("fields", "extras"):
        mine, theirs = getattr(batch, kind), getattr(found, kind)
        assert list(mine) == list(theirs)
        for name, array in mine.items():
            assert array.dtype == theirs[name].dtype
            np.testing.assert_array_equal(array, theirs[name])


def test_a_batch_without_boxes_is_described_as_before():
    """So that it travels between versions."""
    assert len(item_of(plain(detection())).meta) == 6


NAMES, EPOCH, SEQ, APPLIED, INDICES, KEYS, EXTRAS, OFFSETS, RAGGED = range(9)


@pytest.mark.parametrize(
    "place, value",
    [
        (NAMES, None),
        (NAMES, "abc"),
        (NAMES, [1, 2, 3]),
        (NAMES, ["images", "images", "boxes"]),
        (NAMES, ["images", "labels", "difficult"]),
        (NAMES, ["images", "labels", "_boxes"]),
        (NAMES, ["images", "labels", "offsets"]),
        (NAMES, ["images", "labels"]),
        (EPOCH, True),
        (EPOCH, -1),
        (EPOCH, [0]),
        (SEQ, False),
        (SEQ, 2**63),
        (APPLIED, None),
        (APPLIED, 1.0),
        (INDICES, False),
        (KEYS, None),
        (EXTRAS, None),
        (EXTRAS, 5),
        (EXTRAS, ["difficult"]),
        (EXTRAS, ["difficult", "difficult"]),
        (EXTRAS, ["difficult", b"weights"]),
        (EXTRAS, ["difficult", "weights", "more"]),
        (OFFSETS, False),
        (OFFSETS, None),
        (RAGGED, None),
        (RAGGED, 1),
        (RAGGED, [[]]),
        (RAGGED, [["boxes"]]),
        (RAGGED, ["nothing"]),
        (RAGGED, ["images"]),
        (RAGGED, ["weights"]),
        (RAGGED, ["boxes", "difficult"]),
    ],
)
def test_hostile_descriptions_are_refused(place, value):
    item = item_of(detection())
    item.meta[place] = value
    with pytest.raises(ProtocolError):
        to_batch(item)


@pytest.mark.parametrize(
    "offsets",
    [
        np.array([0, 1, 4]),
        np.array([0, 2, 1]),
        np.array([1, 2, 3]),
        np.array([0, 3]),
        np.array([0, 1, 2, 3]),
        np.array([0, -1, 3]),
        np.array([], np.int64),
        np.array([[0, 1, 3]]),
        np.array(3),
        np.array([0, 1, 3], np.float64),
        np.array([0, 1, 2**64 - 1], np.uint64),
    ],
)
def test_hostile_offsets_are_refused(offsets):
    item = item_of(detection())
    arrays = [*item.arrays[:-1], offsets]
    assert item.arrays[-1].tolist() == [0, 1, 3]
    with pytest.raises(ProtocolError):
        to_batch(Item(Kind.BATCH, item.meta, arrays))


@pytest.mark.parametrize("length", [0, 5, 7, 8, 10])
def test_descriptions_of_another_length_are_refused(length):
    item = item_of(detection())
    meta = [*item.meta, None][:length]
    with pytest.raises(ProtocolError):
        to_batch(Item(Kind.BATCH, meta, item.arrays))


def tokens():
    batch = detection()
    rows = batch.offsets
    return batch.replace(
        tokens=np.arange(7), ragged={**dict.fromkeys(batch.ragged, rows), "tokens": [0, 7, 7]}
    )


def test_several_offsets_travel():
    item = item_of(tokens())
    assert len(item.meta) == 10, "a peer that knows nine parts must refuse it"
    found = to_batch(item)
    assert found.offsets is None
    assert found.ragged_with("boxes") == {"labels", "boxes", "difficult"}
    assert found.offsets_of("boxes").tolist() == [0, 1, 3]
    assert found.offsets_of("tokens").tolist() == [0, 7, 7]
    assert found.difficult.tolist() == [True, False, True]


def test_a_batch_with_shared_offsets_is_described_as_before():
    item = item_of(detection())
    assert item.meta == [
        *(["images", "labels", "boxes"], 2, 3, 1, True, True),
        *(["difficult", "weights"], True, ["boxes", "difficult", "labels"]),
    ]
    assert item.arrays[-1].tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    "groups",
    [
        [],
        [["tokens"]],
        [["boxes", "difficult", "labels", "tokens"]],
        [["boxes", "difficult", "labels"], ["tokens"], []],
        [["boxes", "difficult", "labels"], ["tokens", "tokens"]],
        [["boxes", "difficult", "labels"], ["images"]],
        [["boxes", "difficult", "labels"], [5]],
        [["boxes", "difficult"], ["labels", "tokens"]],
        ["boxes", "tokens"],
        {"boxes": 1},
        5,
    ],
)
def test_hostile_groups_of_ragged_fields_are_refused(groups):
    item = item_of(tokens())
    item.meta[9] = groups
    with pytest.raises(ProtocolError):
        to_batch(item)
