"""Batches of a training made again, and samples and steps that it skips."""

import copy
import json
import pickle
import random
from collections import Counter

import numpy as np
import pytest
from commands import run
from concurrency import LIMIT
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import class_folders
from PIL import Image
from small_modules import Call, Collect, Numbers, Pass

from highway import replay
from highway.cli import main
from highway.engine import Pipeline
from highway.errors import (
    ArgumentError,
    ContractError,
    DecodeError,
    EmptyEpochError,
    PipelineStateError,
    SignatureError,
    StateMismatchError,
)
from highway.modules import ArrayReader, Augmentations, ImageFileReader, LevelDBImageReader, Noise
from highway.sampling.sampler import Position, Sampler
from highway.sampling.skips import MOST_INTERVALS, Intervals, Skips
from highway.transforms import ColorJitter, FlipX, Mixup, Normalize, RandomResizedCrop

SIZE = 23


@pytest.fixture
def photos(tmp_path):
    return class_folders(tmp_path / "photos", classes=3, each=9)


def noise(batch_size=3, size=SIZE, **options):
    return Noise(batch_size, (2, 2), size=size, **{"seed": 5, "epochs": 3, **options})


def augmented(folder, batch_size=4, **options):
    reader = ImageFileReader(
        folder, batch_size, (40, 48), fit=RandomResizedCrop(), **{"seed": 7, "epochs": 3, **options}
    )
    colors = ColorJitter(0.4, 0.4, 0.4, 0.1)
    return [reader, Augmentations([FlipX(), colors, Normalize(), Mixup(num_classes=3)], seed=9)]


def content(batch):
    """Everything of a batch, to the bit."""
    arrays = {name: (array.dtype.str, array.shape, array.tobytes()) for name, array in batch.fields.items()}
    return batch.epoch, batch.seq, batch.indices.tolist(), batch.keys, batch.applied, arrays


def seen_by(modules):
    """What a training of all epochs sees, by epoch and step."""
    with Pipeline(modules) as pipeline:
        return {(batch.epoch, batch.seq): content(batch) for batch in pipeline.forever()}


def identities(batches):
    return [(batch.epoch, batch.seq, batch.indices.tolist()) for batch in batches]


def state_in(path, state):
    path.write_text(json.dumps(state))
    return json.loads(path.read_text())


# Batches made again


def test_random_steps_of_two_ranks_and_three_epochs_have_the_bits_of_the_run(photos):
    ranks = [seen_by(augmented(photos, shard=(rank, 2))) for rank in range(2)]
    with Pipeline(augmented(photos, shard=(1, 2))) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
        state = json.loads(json.dumps(pipeline.state_dict()))
    assert [len(each) for each in ranks] == [12, 12]
    chosen = random.Random(3).choices([*ranks[0]], k=20)
    for number, (epoch, step) in enumerate(chosen):
        rank = number % 2
        # A definition of one rank, with other workers, gives the batches of both.
        modules = augmented(photos, shard=(0, 2), workers=1 + number % 3)
        expected = ranks[rank][epoch, step]
        found = replay.batch(modules, state, epoch=epoch, step=step, shard=(rank, 2))
        assert content(found) == expected
        again = replay.batch(modules, global_step=4 * epoch + step, shard=(rank, 2))
        assert content(again) == expected
    assert ranks[0] != ranks[1]


def test_modules_can_be_used_again_and_nothing_runs_afterwards(photos):
    modules = augmented(photos)
    first = content(replay.batch(modules, step=2))
    assert content(replay.batch(modules, step=2)) == first
    assert seen_by(modules)[0, 2] == first


def test_state_gives_the_epoch(photos):
    modules = augmented(photos)
    with Pipeline(modules) as pipeline:
        seen = [content(batch) for batch in pipeline.epoch(1)][:3]
        list(pipeline)
        state = pipeline.state_dict()
    assert state["epoch"] == 3
    with pytest.raises(ArgumentError, match="epoch is 3; expected a whole number from 0 to 2"):
        replay.batch(modules, state, step=0)
    assert content(replay.batch(modules, {**state, "epoch": 1}, step=2)) == seen[2]


@pytest.mark.parametrize("taken", [1, 2, 4])
def test_batches_after_a_change_of_batch_size(taken):
    with Pipeline([noise(5)]) as pipeline:
        for _ in range(taken):
            pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
    with Pipeline([noise(3)]) as pipeline:
        pipeline.load_state_dict(state)
        batches = list(pipeline)
        # Any state of that epoch will do.
        pipeline.load_state_dict(state)
        pipeline.dequeue(timeout=LIMIT)
        later = pipeline.state_dict()
    for batch in batches:
        for each in (state, later) if later["epoch"] == 0 else (state,):
            assert content(replay.batch([noise(3)], each, step=batch.seq)) == content(batch)


def test_batches_before_a_change_of_batch_size_cannot_be_made_in_the_new_one():
    with Pipeline([noise(5)]) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
    with pytest.raises(
        ArgumentError, match="batch 0 of epoch 0 had another batch_size or world than 3 and 1"
    ):
        replay.batch([noise(3)], state, step=0)
    assert replay.batch([noise(3)], state, step=1).indices.size == 3


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_bad_files_are_skipped_and_replaced_as_in_the_run(photos, on_error):
    for name in ("class0/0.jpg", "class1/3.jpg", "class2/8.jpg", "class2/7.jpg"):
        (photos / name).write_bytes(b"not a picture")
    seen = seen_by(augmented(photos, on_error=on_error))
    sizes = {len(indices) for _, _, indices, *_ in seen.values()}
    assert (sizes > {3, 4}) if on_error == "skip" else (sizes == {3, 4})
    for epoch, step in seen:
        assert (
            content(replay.batch(augmented(photos, on_error=on_error), epoch=epoch, step=step))
            == seen[epoch, step]
        )


def test_step_of_which_all_samples_were_bad(photos):
    modules = augmented(photos, batch_size=1, on_error="skip", shuffle=False)
    (photos / "class0/3.jpg").write_bytes(b"not a picture")
    with pytest.raises(ArgumentError, match="received no batch at step 3 of epoch 1"):
        replay.batch(modules, epoch=1, step=3)
    assert replay.batch(modules, epoch=1, step=4).keys == ["class0/4.jpg"]
    with pytest.raises(DecodeError):
        replay.batch(augmented(photos, batch_size=1, shuffle=False), step=3)


def test_pipeline_is_replayed_while_it_runs(photos):
    with Pipeline(augmented(photos)) as pipeline:
        for batch in pipeline:
            assert content(replay.batch(pipeline, step=batch.seq)) == content(batch)
        assert len([*pipeline]) == len(pipeline)


def test_replay_changes_nothing_in_a_pipeline_that_runs(photos):
    modules = augmented(photos, on_error="skip", shuffle=False, epochs=1)
    expected = seen_by(modules)
    (photos / "class2/8.jpg").write_bytes(b"not a picture")
    with Pipeline(modules) as pipeline:
        found = [content(pipeline.dequeue(timeout=LIMIT)) for _ in range(2)]
        assert replay.batch(pipeline, step=6).size == 2
        # It fails before it has begun.
        for arguments in ({"step": 99}, {"step": 0, "shard": 3}, {"step": 0, "state": {}}):
            with pytest.raises((ArgumentError, StateMismatchError)):
                replay.batch(pipeline, **arguments)
        assert replay.batch(modules, step=6).size == 2
        found += [content(pipeline.dequeue(timeout=LIMIT)) for _ in range(4)]
        assert found == [expected[0, step] for step in range(6)]
        assert pipeline.dequeue(timeout=LIMIT).size == 2
        assert (
            [key for key, _ in pipeline.errors] == [key for key, _ in modules[0].errors] == ["class2/8.jpg"]
        )
        assert pipeline.stats().skipped_samples == 1


def test_stages_of_the_user_and_sinks():
    doubled = Call(lambda batch: type(batch)({"images": batch.images // 2}))
    sink = Collect()
    found = replay.batch([noise(), doubled, sink], epoch=1, step=7)
    assert (found.epoch, found.seq, found.size) == (1, 7, 2)
    assert np.array_equal(found.images, replay.batch([noise()], epoch=1, step=7).images // 2)
    assert sink.batches == []
    with pytest.raises(ArgumentError, match="received no batch at step 0 of epoch 0"):
        replay.batch([noise(), Call(lambda batch: None)], step=0)
    with pytest.raises(ContractError, match=r"Call\.process returned int"):
        replay.batch([noise(), Call(lambda batch: 3)], step=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": 8}, "step is 8; expected 0 to 7: epoch 0 has 8 batches"),
        ({"step": -1}, "step is -1; expected a whole number from 0 to 7"),
        ({"step": 1.0}, "step is 1.0"),
        ({}, "step is missing"),
        ({"epoch": 1}, "step is missing"),
        ({"step": 0, "epoch": 3}, "epoch is 3; expected a whole number from 0 to 2"),
        ({"global_step": 24}, "epoch is 3"),
        ({"global_step": 3, "step": 3}, "global_step=3 is given with step=3"),
        ({"global_step": 3, "epoch": 0}, "global_step=3 is given with"),
        ({"step": 0, "shard": (2, 2)}, r"shard\[0\] \(rank\) is 2; expected a whole number from 0 to 1"),
        ({"step": 0, "shard": 2}, "shard is 2"),
    ],
)
def test_steps_and_ranks_that_are_not_there(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        replay.batch([noise()], **arguments)


@pytest.mark.parametrize(
    "definition", [None, [], {}, "pipeline", noise(), [FlipX()], [Numbers()], [Pass(), noise()], Numbers]
)
def test_definitions_that_are_no_pipeline(definition):
    with pytest.raises(ArgumentError, match=r"expected a Pipeline, or a list|expected a reader"):
        replay.batch(definition, step=0)


def test_drawn_seeds_are_refused_where_they_are_not_those_of_the_run():
    modules = [noise(seed=None)]
    with pytest.raises(ArgumentError, match="Noise has seed=None"):
        replay.batch(modules, step=0)
    with pytest.raises(ArgumentError, match="Augmentations has seed=None"):
        replay.batch([noise(), Augmentations([FlipX()], seed=None)], step=0)
    with Pipeline(modules) as pipeline:
        assert content(pipeline.dequeue(timeout=LIMIT)) == content(replay.batch(pipeline, step=0))


def test_misspelt_argument():
    with pytest.raises(SignatureError, match=r"replay\.batch: unknown argument 'stepp': did you mean 'step'"):
        replay.batch([noise()], stepp=1)


@pytest.mark.parametrize("change", [{"size": 24}, {"seed": 6}, {"shuffle": False}])
def test_state_of_other_data(change):
    with Pipeline([noise()]) as pipeline:
        state = pipeline.state_dict()
    with pytest.raises(StateMismatchError):
        replay.batch([noise(**change)], state, step=0)
    for wrong in ([], {"epoch": 0}, 3):
        with pytest.raises(StateMismatchError):
            replay.batch([noise()], wrong, step=0)


# Skipped samples


def test_state_without_skips_is_as_before():
    with Pipeline([noise()]) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
        pipeline.skip()
        pipeline.skip(samples=[], steps=[])
        assert pipeline.state_dict() == state
    assert [*state] == ["version", "kind", "size", "shuffle", "seed", "fingerprint", "epoch", "position"]


def test_samples_are_dropped_from_their_batches_and_nothing_else_changes(photos):
    plain = seen_by([augmented(photos)[0]])
    keys = ["class0/4.jpg", "class2/1.jpg"]
    with Pipeline([augmented(photos)[0]]) as pipeline:
        pipeline.skip(samples=[keys[0], 19])
        assert len(pipeline) == 7
        found = [batch for _ in range(3) for batch in pipeline]
    assert [(batch.epoch, batch.seq) for batch in found] == [*plain]
    for batch in found:
        *_, names, _, arrays = plain[batch.epoch, batch.seq]
        rows = [row for row, key in enumerate(names) if key not in keys]
        assert batch.keys == [names[row] for row in rows]
        pixels = np.frombuffer(arrays["images"][2], np.uint8).reshape(arrays["images"][1])
        assert np.array_equal(batch.images, pixels[rows])
    assert Counter(key for batch in found for key in batch.keys)[keys[0]] == 0
    assert sum(batch.size for batch in found) == 3 * 25


def test_skips_apply_from_the_next_batch_on_and_the_iteration_goes_on():
    expected = identities(Pipeline([noise()]).forever())
    victim = expected[3][2][1]
    with Pipeline([noise(), Pass(workers=3)]) as pipeline:
        found = []
        for batch in pipeline:
            found.append(batch)
            if batch.seq == 2:
                pipeline.skip(samples=[victim, expected[1][2][0]])
        found += [*pipeline, *pipeline]
        assert pipeline.stats().delivered == 24
        state = pipeline.state_dict()
    gone = {victim, expected[1][2][0]}
    assert identities(found) == expected[:3] + [
        (epoch, seq, [index for index in indices if index not in gone])
        for epoch, seq, indices in expected[3:]
    ]
    # A state taken later knows which batches had them.
    for batch in found:
        assert content(replay.batch([noise()], state, epoch=batch.epoch, step=batch.seq)) == content(batch)


@pytest.mark.parametrize("second", [1, 3, 5, 30])
def test_samples_stay_skipped_in_batches_of_another_size_and_world(second):
    with Pipeline([noise()]) as pipeline:
        first = [pipeline.dequeue(timeout=LIMIT) for _ in range(2)]
        pipeline.skip(samples=[4, 11, 12])
        state = json.loads(json.dumps(pipeline.state_dict()))
    with Pipeline([noise(second)]) as pipeline:
        pipeline.load_state_dict(state)
        rest = [batch for batch in pipeline.forever() if batch.epoch == 0]
        assert pipeline.state_dict()["skips"]["samples"] == state["skips"]["samples"]
    found = [index for batch in first + rest for index in batch.indices.tolist()]
    before = {index for batch in first for index in batch.indices.tolist()}
    assert sorted(found) == sorted({*range(SIZE)} - ({4, 11, 12} - before))
    ranks = []
    for rank in range(2):
        with Pipeline([noise(second, shard=(rank, 2))]) as pipeline:
            pipeline.load_state_dict(state)
            ranks.append([*pipeline])
    assert [batch.seq for batch in ranks[0]] == [batch.seq for batch in ranks[1]]
    assert not {4, 11, 12} & {index for batch in ranks[0] + ranks[1] for index in batch.indices.tolist()}


@settings(max_examples=150)
@given(
    size=st.integers(1, 30),
    batch_size=st.integers(1, 5),
    world=st.integers(1, 4),
    taken=st.integers(0, 20),
    samples=st.sets(st.integers(0, 29), max_size=25),
    steps=st.sets(st.tuples(st.integers(0, 1), st.integers(0, 4)), max_size=4),
)
def test_all_ranks_have_the_same_batches(size, batch_size, world, taken, samples, steps):
    orders = [Sampler(size, batch_size, epochs=2, shard=(rank, world)) for rank in range(world)]
    place = orders[0].place_at(min(taken, 2 * len(orders[0])))
    skips = Skips().added(place, [index for index in samples if index < size], steps)
    ranks = [[*order.skipping(skips).tasks_after(place)] for order in orders]
    kept = [[(task.epoch, task.seq) for task in tasks if len(task.indices)] for tasks in ranks]
    assert all(each == kept[0] for each in kept)
    assert not {*kept[0]} & steps
    for order, tasks in zip(orders, ranks, strict=True):
        for task, plain in zip(tasks, order.tasks_after(place), strict=True):
            left = [index for index in plain.indices.tolist() if index not in samples]
            assert task.indices.tolist() in (left, [])
            if left and not len(task.indices) and (task.epoch, task.seq) not in steps:
                # On another rank nothing was left.
                others = [other.task_at(task.epoch, task.seq, place).indices.tolist() for other in orders]
                assert any(samples.issuperset(other) for other in others)


def test_replacements_of_bad_files_are_not_skipped_samples(photos):
    bad = [f"class{label}/{number}.jpg" for label in range(3) for number in range(0, 9, 2)]
    for name in bad:
        (photos / name).write_bytes(b"not a picture")
    skipped = [f"class{label}/{number}.jpg" for label in range(2) for number in range(1, 9, 2)]
    with Pipeline(augmented(photos, on_error="replace")) as pipeline:
        pipeline.skip(samples=skipped)
        keys = Counter(key for batch in pipeline.forever() for key in batch.keys)
        state = pipeline.state_dict()
    assert {*keys} == {f"class2/{number}.jpg" for number in range(1, 9, 2)}
    assert keys.total() == 3 * (27 - len(skipped))
    assert replay.batch(augmented(photos, on_error="replace"), state, epoch=0, step=0).size > 0


def test_batches_of_which_all_samples_are_skipped(tmp_path, photos):
    pytest.importorskip("plyvel")
    assert main(["pack", str(photos), str(tmp_path / "store")]) == 0
    readers = [
        ArrayReader(np.zeros((12, 2, 2, 3), np.uint8), range(12), 3, shuffle=False, epochs=2),
        noise(shuffle=False, epochs=2, size=12),
        ImageFileReader(photos, 9, (8, 8), shuffle=False, epochs=2),
        LevelDBImageReader(tmp_path / "store", 9, (8, 8), shuffle=False, epochs=2),
    ]
    for reader in readers:
        with Pipeline([reader]) as pipeline:
            size = reader.order.batch_size
            pipeline.skip(samples=range(size, 2 * size))
            batches = list(pipeline)
            found = [batch.seq for batch in batches]
            assert content(replay.batch(pipeline, epoch=0, step=0)) == content(batches[0])
            assert content(replay.batch([reader], epoch=0, step=2)) == content(batches[1])
            assert found == [seq for seq in range(len(pipeline)) if seq != 1]
            assert pipeline.stats().modules[0].skipped_samples == 0
            with pytest.raises(ArgumentError, match="received no batch at step 1 of epoch 0"):
                replay.batch(pipeline, epoch=0, step=1)
            pipeline.skip(samples=range(reader.order.size))
            with pytest.raises(EmptyEpochError):
                list(pipeline)


def test_skipped_samples_after_going_back_to_an_epoch():
    with Pipeline([noise(shuffle=False)]) as pipeline:
        list(pipeline)
        pipeline.skip(samples=[1])
        assert next(iter(pipeline)).indices.tolist() == [0, 2]
        # They were not skipped in epoch 0.
        assert next(pipeline.epoch(0)).indices.tolist() == [0, 1, 2]
        pipeline.epoch(0)
        pipeline.skip(samples=[4])
        assert next(pipeline.forever()).indices.tolist() == [3, 5]


# Skipped steps


def test_skipped_steps_are_delivered_on_no_rank():
    for rank in range(2):
        plain = identities(Pipeline([noise(shard=(rank, 2))]).forever())
        with Pipeline([noise(shard=(rank, 2))]) as pipeline:
            found = [pipeline.dequeue(timeout=LIMIT)]
            # A number alone is a step of the current epoch.
            pipeline.skip(steps=[2, (1, 0), (2, np.int64(3))])
            assert pipeline.state_dict()["skips"]["steps"] == [[0, 2, 2], [1, 0, 0], [2, 3, 3]]
            found += pipeline.forever()
            state = pipeline.state_dict()
        assert identities(found) == [each for each in plain if each[:2] not in ((0, 2), (1, 0), (2, 3))]
        with pytest.raises(ArgumentError, match="received no batch at step 0 of epoch 1"):
            replay.batch([noise(shard=(rank, 2))], state, epoch=1, step=0)


def test_skips_survive_state_pickle_and_copy():
    with Pipeline([noise()]) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
        pipeline.skip(samples=[3, 4, 5, 9], steps=[4])
        others = [pickle.loads(pickle.dumps(pipeline)), copy.deepcopy(pipeline), Pipeline([noise()])]
        state = json.loads(json.dumps(pipeline.state_dict()))
        others[2].load_state_dict(state)
        expected = identities(pipeline.forever())
    assert state["skips"] == {
        "version": 1,
        "samples": [[0, 3, 3, 5], [0, 3, 9, 9]],
        "steps": [[0, 4, 4]],
        "batch_size": 3,
        "world": 1,
    }
    for other in others:
        with other:
            assert identities(other.forever()) == expected


def test_skips_before_the_first_batch_and_after_loading():
    plain = identities(Pipeline([noise()]).forever())
    with Pipeline([noise()]) as pipeline:
        for _ in range(9):
            pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
    for start in (False, True):
        with Pipeline([noise()]) as pipeline:
            pipeline.load_state_dict(state)
            if start:
                pipeline.start()
            pipeline.skip(steps=[2])
            assert len(iter(pipeline)) == 7
            assert identities(pipeline) == [each for each in plain[9:16] if each[1] != 2]
            # A state without skips takes them back.
            pipeline.load_state_dict(state)
            assert identities(pipeline) == plain[9:16]


def test_specifications_and_other_pipelines_are_not_changed():
    modules = [noise()]
    with Pipeline(modules) as first, Pipeline(modules) as second:
        first.skip(steps=[0])
        assert next(iter(first)).seq == 1
        assert next(iter(second)).seq == 0
    assert seen_by(modules)[0, 0]


def test_states_with_skipped_steps_need_the_same_batches():
    with Pipeline([noise()]) as pipeline:
        pipeline.skip(steps=[(2, 5)])
        state = pipeline.state_dict()
    for other in (noise(4), noise(shard=(0, 2))):
        with (
            Pipeline([other]) as pipeline,
            pytest.raises(StateMismatchError, match="skips steps of batch_size=3"),
        ):
            pipeline.load_state_dict(state)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"samples": [[0, 0, 5, 4]]},
        {"samples": [[0, 0, 5, SIZE]]},
        {"samples": [[0, 0, 5]]},
        {"samples": [[0, 0, True, 5]]},
        {"samples": [[0, 0, 5, 5]] * (MOST_INTERVALS + 1)},
        {"samples": None},
        {"steps": [[0, 0, 8]]},
        {"steps": [[-1, 0, 0]]},
        {"steps": "000"},
        None,
    ],
)
def test_damaged_skips_of_a_state(change):
    with Pipeline([noise()]) as pipeline:
        pipeline.skip(samples=[5])
        state = pipeline.state_dict()
        state["skips"] = [] if change is None else {**state["skips"], **change}
        with pytest.raises(StateMismatchError, match="skip"):
            pipeline.load_state_dict(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": [SIZE]}, "sample is 23; expected a whole number from 0 to 22"),
        ({"samples": ["a"]}, "sample is 'a'; expected indices"),
        ({"samples": 3}, r"samples is 3; expected a list, such as \[3\]"),
        ({"samples": "a.jpg"}, "samples is 'a.jpg'; expected a list"),
        ({"samples": [1.5]}, "sample is 1.5"),
        ({"steps": [8]}, "step is 8; expected a whole number from 0 to 7"),
        ({"steps": [(3, 0)]}, "epoch of a step is 3"),
        ({"steps": [(0, 1, 2)]}, "step is "),
        ({"steps": [0]}, "step 0 of epoch 0 was delivered already; expected step 1 of epoch 0"),
        ({"steps": 4}, "steps is 4; expected a list"),
    ],
)
def test_samples_and_steps_that_cannot_be_skipped(arguments, message):
    with Pipeline([noise()]) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
        before = pipeline.state_dict()
        with pytest.raises(ArgumentError, match=message):
            pipeline.skip(**arguments)
        assert pipeline.state_dict() == before


def test_unknown_key_and_too_many_intervals(photos):
    with (
        Pipeline(augmented(photos)) as pipeline,
        pytest.raises(ArgumentError, match=r"no sample with the key 'class9/0\.jpg'"),
    ):
        pipeline.skip(samples=["class0/0.jpg", "class9/0.jpg"])
    with Pipeline([noise(size=3 * MOST_INTERVALS)]) as pipeline:
        pipeline.skip(samples=range(0, 2 * MOST_INTERVALS, 2))
        with pytest.raises(ArgumentError, match=f"are {MOST_INTERVALS + 1} intervals"):
            pipeline.skip(steps=[7])
        assert len(json.dumps(pipeline.state_dict())) < 32 * MOST_INTERVALS


def test_pipelines_that_cannot_skip():
    with (
        Pipeline([noise()], ordered=False) as pipeline,
        pytest.raises(PipelineStateError, match="ordered=True"),
    ):
        pipeline.skip(samples=[0])
    with Pipeline([Numbers()]) as pipeline, pytest.raises(PipelineStateError, match="Numbers"):
        pipeline.skip(samples=[0])
    with (
        Pipeline([noise(), Collect()]) as pipeline,
        pytest.raises(PipelineStateError, match="ends in Collect"),
    ):
        pipeline.skip(samples=[0])
    with Pipeline([noise()]) as pipeline:
        pipeline.stop()
        with pytest.raises(PipelineStateError, match="stopped"):
            pipeline.skip(samples=[0])


def test_sets_of_numbers():
    found = Intervals([(7, 9), (0, 2), (3, 3), (8, 11)])
    assert (found.pairs, found.count) == (((0, 3), (7, 11)), 9)
    numbers = np.arange(-2, 14)
    assert numbers[found.hold(numbers)].tolist() == [0, 1, 2, 3, 7, 8, 9, 10, 11]
    later = Skips().added(Position(1, 0), [5]).added(Position(0, 4), [2])
    at = [later.samples_at(Position(*place)) for place in ((0, 3), (0, 4), (0, 9), (1, 0), (2, 0))]
    assert [None if each is None else each.pairs for each in at] == [
        None,
        *[((2, 2),)] * 2,
        *[((2, 2), (5, 5))] * 2,
    ]


# The command

DEFINITION = """
from highway.engine import Pipeline
from highway.modules import Augmentations, ImageFileReader
from highway.transforms import FlipX, Normalize, RandomResizedCrop


def modules():
    reader = ImageFileReader("photos", 4, (40, 48), fit=RandomResizedCrop(), seed=7, epochs=3)
    return [reader, Augmentations([FlipX(), Normalize()], seed=9)]


train = modules()
pipeline = Pipeline(train)
number = 3


def failing():
    return 1 / 0


def wrong():
    return [FlipX]


def drawn():
    return [ImageFileReader("photos", 4, (40, 48), seed=None)]
"""


@pytest.fixture
def training(photos, tmp_path, monkeypatch):
    """The definition of a training, a state of it, and what it saw, by epoch and step."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(DEFINITION)
    shown = {}
    exec(DEFINITION, shown)
    seen = {}
    with Pipeline(shown["train"]) as pipeline:
        for batch in pipeline.epoch(1):
            seen[batch.epoch, batch.seq] = batch.keys
            if batch.seq == 1:
                pipeline.skip(steps=[6], samples=["class0/4.jpg"])
        (tmp_path / "state.json").write_text(json.dumps(pipeline.state_dict()))
    return seen


@pytest.mark.parametrize("name", ["train", "pipeline", "modules"])
def test_command_prints_and_draws(capsys, training, name):
    arguments = ("state.json", "--pipeline", f"train.py:{name}", "--epoch", "1", "--step")
    code, output, errors = run(capsys, "replay", *arguments, 3, "-o", "sheet.png")
    assert (code, errors) == (0, "")
    first, *rows, last = output.splitlines()
    assert first == f"Step 3 of epoch 1, rank 0 of 1: {len(training[1, 3])} samples"
    assert [row.split("\t") for row in rows] == [[key.split("/")[0], key] for key in training[1, 3]]
    assert last.startswith("sheet.png: ")
    with Image.open("sheet.png") as sheet:
        # Normalize was undone.
        assert sheet.width > 100 and len(sheet.getcolors(1 << 20)) > 1000


def test_command_undoes_the_normalization_of_the_images_alone(capsys, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    definition = """
from highway.modules import Augmentations, ListReader
from highway.transforms import Normalize

keys = [f"class0/{number}.jpg" for number in range(4)]
reader = ListReader(keys, [0] * 4, 4, 40, root="photos", pairs={"second": keys}, epochs=1)
plain = [reader, Augmentations([Normalize()])]
both = [*plain, Augmentations([Normalize(0.1, 0.9)], field="second")]
"""
    (tmp_path / "train.py").write_text(definition)
    for name in ("plain", "both"):
        arguments = ("--pipeline", f"train.py:{name}", "--epoch", 0, "--step", 0, "-o", f"{name}.png")
        code, _, errors = run(capsys, "replay", *arguments)
        assert (code, errors) == (0, "")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "both.png").read_bytes()


def test_command_without_state_and_of_other_ranks(capsys, training):
    code, output, _ = run(capsys, "replay", "--pipeline", "train.py:train", "--global-step", 8)
    assert (code, output.splitlines()[0]) == (0, "Step 1 of epoch 1, rank 0 of 1: 4 samples")
    assert [row.split("\t")[1] for row in output.splitlines()[1:]] == training[1, 1]
    ranks = []
    for rank in range(2):
        _, output, _ = run(
            capsys, "replay", "--pipeline", "train.py:train", "--step", 0, "--shard", f"{rank}/2"
        )
        assert f"rank {rank} of 2" in output
        ranks += [row.split("\t")[1] for row in output.splitlines()[1:]]
    assert len({*ranks}) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pipeline", "train.py:train", "--step", "7"], "step is 7; expected 0 to 6"),
        (
            ["state.json", "--pipeline", "train.py:train", "--epoch", "1", "--step", "6"],
            "received no batch at step 6",
        ),
        (["--pipeline", "train.py:number", "--step", "1"], "number is of type int; expected a Pipeline"),
        (["--pipeline", "train.py:wrong", "--step", "1"], "wrong() is a list of the class FlipX itself"),
        (["--pipeline", "train.py:FlipX", "--step", "1"], "FlipX is the class FlipX itself"),
        (["--pipeline", "train.py:failing", "--step", "1"], "failing() raised ZeroDivisionError"),
        (["--pipeline", "train.py:drawn", "--step", "1"], "ImageFileReader has seed=None"),
        (["--pipeline", "train.py:trian", "--step", "1"], "has no 'trian'; found train, pipeline"),
        (["--pipeline", "none.py:train", "--step", "1"], "none.py: there is no such file"),
        (["train.py", "--pipeline", "train.py:train", "--step", "1"], "train.py: the file is not JSON"),
        (["none.json", "--pipeline", "train.py:train", "--step", "1"], "none.json"),
        (["other.json", "--pipeline", "train.py:train", "--step", "1"], "has seed 8; expected 7"),
    ],
)
def test_command_with_wrong_arguments(capsys, training, tmp_path, arguments, message):
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps({**state, "seed": 8}))
    code, output, errors = run(capsys, "replay", *arguments)
    assert (code, output) == (1, "")
    assert message in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--step", "1"],
        ["--pipeline", "train.py:train"],
        ["--pipeline", "train.py", "--step", "1"],
        ["--pipeline", "train.py:train", "--step", "1", "--global-step", "1"],
        ["--pipeline", "train.py:train", "--step", "1", "--shard", "2/2"],
        ["--pipeline", "train.py:train", "--step", "x"],
    ],
)
def test_command_that_is_not_understood(arguments):
    with pytest.raises(SystemExit) as end:
        main(["replay", *arguments])
    assert end.value.code == 2
