"""seed=None: one is drawn, once, and told; where others need the same it is refused."""

import json
import logging
import pickle

import numpy as np
import pytest
from concurrency import LIMIT
from pictures import class_folders
from small_modules import Numbers
from voc_folders import annotation, thing, voc_folder

from highway.engine import Pipeline
from highway.errors import ArgumentError, StateMismatchError
from highway.modules import ArrayReader, Augmentations, ImageFileReader, ListReader, Noise, VOCReader, ZMQSink
from highway.sampling.sampler import Sampler
from highway.transforms import FlipX


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("seeds")
    photos = class_folders(root / "photos", classes=2, each=4, size=(12, 12))
    voc = voc_folder(root / "voc", {f"{number}": annotation(thing()) for number in range(4)})
    return photos, voc


READERS = {
    "ImageFileReader": lambda places, **more: ImageFileReader(places[0], 2, (8, 8), **more),
    "ListReader": lambda places, **more: ListReader(sorted(places[0].rglob("*.*")), None, 2, (8, 8), **more),
    "VOCReader": lambda places, **more: VOCReader(places[1], 2, (8, 8), **more),
    "ArrayReader": lambda places, **more: ArrayReader(np.zeros((9, 4, 4, 3), np.uint8), None, 2, **more),
    "Noise": lambda places, **more: Noise(2, 8, **more),
}


@pytest.mark.parametrize("name", READERS)
def test_reader_draws_one_and_tells_it(places, caplog, name):
    make = READERS[name]
    with caplog.at_level(logging.INFO, "highway.modules"):
        reader = make(places, seed=None)
    (record,) = [record for record in caplog.records if ": seed=None, " in record.getMessage()]
    assert record.name == "highway.modules"
    assert record.getMessage() == f"{name}: seed=None, drawn: seed={reader.seed}"
    assert 0 <= reader.seed < 2**64 and type(reader.seed) is int
    assert f", seed={reader.seed}" in repr(reader)
    # Once: it stays, also where it is sent.
    assert reader.seed == reader.order.seed == pickle.loads(pickle.dumps(reader.order)).seed
    assert make(places, seed=None).seed != reader.seed
    assert make(places, seed=np.uint8(7)).seed == 7 and make(places).seed == 0
    assert ", seed=" not in repr(make(places))


def test_run_can_be_repeated_and_gone_on_with():
    first = Noise(4, 4, size=32, epochs=1, seed=None)
    with Pipeline([first]) as pipeline:
        begun = [pipeline.dequeue(timeout=LIMIT) for _ in range(3)]
        state = json.loads(json.dumps(pipeline.state_dict()))
        rest = [batch.indices.tolist() for batch in pipeline.forever()]
    assert state["seed"] == first.seed
    with Pipeline([Noise(4, 4, size=32, epochs=1, seed=first.seed)]) as pipeline:
        again = list(pipeline)
    assert [batch.indices.tolist() for batch in again] == [batch.indices.tolist() for batch in begun] + rest
    assert all(np.array_equal(one.images, other.images) for one, other in zip(begun, again, strict=False))
    with Pipeline([Noise(4, 4, size=32, epochs=1, seed=state["seed"])]) as pipeline:
        pipeline.load_state_dict(state)
        assert [batch.indices.tolist() for batch in pipeline] == rest
    with (
        Pipeline([Noise(4, 4, size=32, epochs=1, seed=None)]) as pipeline,
        pytest.raises(StateMismatchError, match="has seed"),
    ):
        pipeline.load_state_dict(state)


def test_augmentations_draw_one_of_their_own(caplog):
    with caplog.at_level(logging.INFO, "highway.modules"):
        stage = Augmentations([FlipX()], seed=None)
    assert caplog.records[0].getMessage() == f"Augmentations: seed=None, drawn: seed={stage.seed}"
    assert repr(stage).endswith(f"seed={stage.seed})")
    assert Augmentations([FlipX()], seed=None).seed != stage.seed
    with Pipeline([Noise(2, 4, epochs=1), stage]) as pipeline:
        assert len(list(pipeline)) == 512


@pytest.mark.parametrize("name", READERS)
def test_ranks_need_the_same(places, name):
    text = rf"^{name}: seed is None, and each of the 2 ranks would draw another.*expected one number"
    with pytest.raises(ArgumentError, match=text):
        READERS[name](places, seed=None, shard=(0, 2))
    assert READERS[name](places, seed=3, shard=(0, 2)).seed == 3


@pytest.mark.parametrize(
    "make, text",
    [
        (
            lambda: [Noise(2, 4, shard=(1, 2)), Augmentations([FlipX()], seed=None)],
            "Augmentations: seed is None, and each of the 2 ranks would draw another",
        ),
        (
            lambda: [Noise(2, 4, seed=None), ZMQSink("inproc://seeds")],
            "Noise: seed is None, and lost batches of",
        ),
        (
            lambda: [Numbers(3), Augmentations([FlipX()], seed=None), ZMQSink("inproc://seeds")],
            "Augmentations: seed is None, and lost batches of ZMQSink may be made again",
        ),
    ],
)
def test_what_others_may_make_again_needs_a_number(make, text):
    with pytest.raises(ArgumentError, match=text):
        Pipeline(make())


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "1", True, [1]])
def test_other_seeds_are_refused(seed):
    with pytest.raises(ArgumentError, match=r"Augmentations: seed is .*; expected a whole number from 0 to"):
        Augmentations([], seed=seed)
    with pytest.raises(ArgumentError, match="Sampler: seed is "):
        Sampler(3, 1, seed=seed)
