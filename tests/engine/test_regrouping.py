"""Stages that make more or fewer batches: which samples, in which batches, and where a state continues."""

import json
import random

import numpy as np
import pytest
from concurrency import LIMIT, Task, eventually, pretend_cores
from small_modules import Call, Collect, Numbers, NumbersWithEpochs, SizedNumbers

from highway import replay
from highway.batch import Batch
from highway.engine import Pipeline, Source
from highway.engine.regrouping import Place, Regrouper, joined, part
from highway.engine.workers import ModuleRunner, RegroupRunner
from highway.errors import (
    ArgumentError,
    ContractError,
    EmptyDatasetError,
    EmptyEpochError,
    EndOfData,
    PipelineStateError,
    StateMismatchError,
    UnknownLengthError,
)
from highway.modules import Augmentations, Filter, LevelDBSink, Noise, Rebatch, ZMQSink, ZMQSource
from highway.transforms import FlipX


def reader(batch_size=4, **more):
    options = {"size": 50, "epochs": 3, "seed": 1, **more}
    return Noise(batch_size, (2, 2), **options)


def kept(sample):
    return sample["labels"] % 3 != 0


STAGES = {
    "larger": lambda: [Rebatch(7)],
    "smaller": lambda: [Rebatch(3)],
    "equal": lambda: [Rebatch(4)],
    "of epochs": lambda: [Rebatch(1000)],
    "drop_last": lambda: [Rebatch(7, drop_last=True)],
    "filter": lambda: [Filter(kept)],
    "several": lambda: [Filter(kept, batch_size=3), Augmentations([FlipX()]), Rebatch(5), Rebatch(2)],
}


def told(batches):
    return [(batch.epoch, batch.seq, batch.indices.tolist(), batch.images.tobytes()) for batch in batches]


def everything(stages, batch_size=4, **more):
    with Pipeline([reader(batch_size, **more), *stages]) as pipeline:
        return told(pipeline.forever())


@pytest.mark.parametrize("kind", STAGES)
def test_every_sample_comes_once_and_in_order(kind):
    found = everything(STAGES[kind]())
    alone = everything([])
    sizes = {
        "larger": 7,
        "smaller": 3,
        "equal": 4,
        "of epochs": 50,
        "drop_last": 7,
        "filter": 4,
        "several": 2,
    }
    for epoch in range(3):
        expected = [index for e, _, indices, _ in alone for index in indices if e == epoch]
        if kind in ("filter", "several"):
            with Pipeline([reader()]) as pipeline:
                by_index = {
                    int(i): int(label)
                    for batch in pipeline.forever()
                    for i, label in zip(batch.indices, batch.labels, strict=True)
                }
            expected = [index for index in expected if by_index[index] % 3]
        mine = [(seq, indices) for e, seq, indices, _ in found if e == epoch]
        assert [seq for seq, _ in mine] == [*range(len(mine))]
        counts = [len(indices) for _, indices in mine]
        assert counts[:-1] == [sizes[kind]] * (len(counts) - 1) and counts[-1] <= sizes[kind]
        joined_indices = [index for _, indices in mine for index in indices]
        if kind == "drop_last":
            assert counts[-1] == 7
            expected = expected[: 50 // 7 * 7]
        assert joined_indices == expected


@pytest.mark.parametrize("kind", STAGES)
def test_a_state_continues_at_the_sample(kind):
    expected = everything(STAGES[kind]())
    places = random.Random(kind).sample(range(len(expected) + 1), min(8, len(expected) + 1))
    for place in {0, 1, *places, len(expected)} & {*range(len(expected) + 1)}:
        with Pipeline([reader(), *STAGES[kind]()]) as pipeline:
            for _ in range(place):
                pipeline.dequeue(timeout=LIMIT)
            state = json.loads(json.dumps(pipeline.state_dict()))
        for batch_size in (4, 5, 50):
            with Pipeline([reader(batch_size), *STAGES[kind]()]) as pipeline:
                pipeline.load_state_dict(state)
                assert json.loads(json.dumps(pipeline.state_dict()))["regrouped"] == state["regrouped"]
                try:
                    rest = told(pipeline.forever())
                except EndOfData:
                    rest = []
            if kind == "filter" and batch_size != 4:
                # Its batches are as large as those of the reader.
                flat = [index for _, _, indices, _ in rest for index in indices]
                assert flat == [index for _, _, indices, _ in expected[place:] for index in indices]
            else:
                assert rest == expected[place:]


def test_a_running_pipeline_goes_back():
    with Pipeline([reader(), Rebatch(7)]) as pipeline:
        first = told([pipeline.dequeue(timeout=LIMIT) for _ in range(3)])
        state = pipeline.state_dict()
        second = told([pipeline.dequeue(timeout=LIMIT) for _ in range(9)])
        pipeline.load_state_dict(state)
        assert told([pipeline.dequeue(timeout=LIMIT) for _ in range(9)]) == second
        assert told(pipeline.epoch(0))[:3] == first
        assert told(pipeline) == [entry for entry in everything([Rebatch(7)]) if entry[0] == 1]


def test_epochs_and_breaks():
    expected = everything([Rebatch(7)])
    with Pipeline([reader(), Rebatch(7)]) as pipeline:
        for epoch in (2, 0, 1):
            assert told(pipeline.epoch(epoch)) == [entry for entry in expected if entry[0] == epoch]
        with pytest.raises(EndOfData, match="there is no epoch 3"):
            next(pipeline.epoch(3))
    with Pipeline([reader(), Rebatch(7)]) as pipeline:
        for epoch in range(3):
            for number, batch in enumerate(pipeline):
                assert batch.epoch == epoch
                if number == 2:
                    break


def test_the_rest_of_an_epoch_after_a_state():
    expected = everything([Rebatch(7)])
    with Pipeline([reader(), Rebatch(7)]) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
    with Pipeline([reader(), Rebatch(7)]) as pipeline:
        pipeline.load_state_dict(state)
        assert told(pipeline) == [entry for entry in expected[1:] if entry[0] == 0]
        assert told(pipeline) == [entry for entry in expected if entry[0] == 1]


def test_an_epoch_without_samples():
    with Pipeline(
        [reader(), Filter(lambda batch: np.full(batch.size, batch.epoch != 1), per_sample=False)]
    ) as pipeline:
        assert {batch.epoch for batch in pipeline.forever()} == {0, 2}
        with pytest.raises(EmptyEpochError, match="no sample of epoch 1 remains"):
            next(pipeline.epoch(1))
    with (
        Pipeline([reader(epochs=1), Filter(lambda sample: False)]) as pipeline,
        pytest.raises(EndOfData, match="all 13 batches of epoch 0 were skipped"),
    ):
        pipeline.dequeue(timeout=LIMIT)


def test_the_end_of_an_epoch_does_not_wait_for_samples_of_another():
    """All batches of the endless epochs after it are dropped."""
    first = Filter(lambda batch: np.full(batch.size, batch.epoch == 0), per_sample=False)
    with Pipeline([reader(epochs=None), first]) as pipeline:
        sizes = [pipeline.dequeue(timeout=LIMIT).size for _ in range(13)]
    assert sizes == [4] * 12 + [2]


def test_states_of_before():
    """Without a stage that regroups, a state is where a batch begins."""
    with Pipeline([reader()]) as pipeline:
        for _ in range(2):
            pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
    with Pipeline([reader(), Rebatch(7)]) as pipeline:
        pipeline.load_state_dict(state)
        whole = [index for entry in everything([]) if entry[0] == 0 for index in entry[2]]
        assert pipeline.dequeue(timeout=LIMIT).indices.tolist() == whole[8:15]
        regrouped = pipeline.state_dict()
    with Pipeline([reader()]) as pipeline, pytest.raises(StateMismatchError):
        pipeline.load_state_dict(regrouped)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regrouped": []}, "is of 0 stages that regroup samples; expected 1"),
        ({"regrouped": 5}, "is of 5 stages"),
        ({"regrouped": [[1, 2]]}, r"has \[1, 2\] for a stage"),
        ({"regrouped": [[1, 2, -1]]}, r"has \[1, 2, -1\] for a stage"),
        ({"source": {}}, "version"),
        ({"source": 5}, "type int"),
    ],
)
def test_states_that_are_not_valid(change, message):
    with Pipeline([reader(), Rebatch(7)]) as pipeline:
        state = {**pipeline.state_dict(), **change}
        with pytest.raises(StateMismatchError, match=message):
            pipeline.load_state_dict(state)
        assert pipeline.dequeue(timeout=LIMIT).size == 7


def test_a_state_belongs_to_its_rank():
    with Pipeline([reader(shard=(0, 2)), Rebatch(3)]) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
        pipeline.load_state_dict(state)
    for other in (reader(shard=(1, 2)), reader(), reader(shard=(0, 3)), reader(5, shard=(0, 2))):
        with (
            Pipeline([other, Rebatch(3)]) as pipeline,
            pytest.raises(StateMismatchError, match="rank and world"),
        ):
            pipeline.load_state_dict(state)


def test_the_number_of_batches_is_unknown():
    with Pipeline([reader(), Rebatch(7)]) as pipeline:
        for length in (lambda: len(pipeline), lambda: len(iter(pipeline))):
            with pytest.raises(
                UnknownLengthError, match="known only at its end, since Rebatch makes batches"
            ):
                length()
    with Pipeline([reader(), Filter(kept, refill=False)]) as pipeline:
        assert len(pipeline) == 13 == len(list(pipeline))


@pytest.mark.parametrize(
    ("modules", "ordered", "message"),
    [
        (lambda: [reader(), Rebatch(7)], False, "Rebatch: .*expected ordered=True"),
        (lambda: [reader(), Filter(kept)], False, "Filter: .*refill=False"),
        (lambda: [ZMQSource("tcp://127.0.0.1:5555"), Rebatch(7)], True, "ZMQSource counts the batches"),
        (
            lambda: [reader(), Rebatch(7), ZMQSink("tcp://127.0.0.1:*")],
            True,
            "ZMQSink makes lost batches again",
        ),
        (
            lambda: [reader(), Rebatch(7), LevelDBSink("nowhere")],
            True,
            "LevelDBSink makes lost batches again",
        ),
    ],
)
def test_pipelines_that_need_the_batches_of_the_source(modules, ordered, message):
    with pytest.raises(ArgumentError, match=message):
        Pipeline(modules(), ordered=ordered)


def test_steps_of_the_reader_are_not_those_of_the_training():
    with Pipeline([reader(), Rebatch(7)]) as pipeline:
        with pytest.raises(PipelineStateError, match="expected no Rebatch"):
            pipeline.skip(steps=[3])
        with pytest.raises(ArgumentError, match="Rebatch makes batches of other samples than the reader"):
            replay.batch(pipeline, step=0)


def test_sources_without_epochs_or_states():
    for source in (Numbers(), SizedNumbers(epochs=2), NumbersWithEpochs(epochs=2, holes=[3, 4])):
        with Pipeline([source, Rebatch(6)]) as pipeline:
            found = list(pipeline.forever())
        tickets = [ticket for ticket in range(10 * source.epochs) if ticket not in source.holes]
        numbers = [number for ticket in tickets for number in range(4 * ticket, 4 * ticket + 4)]
        assert np.concatenate([batch.numbers for batch in found]).tolist() == numbers
        epochs = 1 if type(source) is Numbers else 2
        for epoch in range(epochs):
            numbers = [batch.seq for batch in found if batch.epoch == epoch]
            assert numbers == [*range(len(numbers))] and numbers
        with Pipeline([source, Rebatch(6)]) as pipeline:
            pipeline.dequeue(timeout=LIMIT)
            with pytest.raises(PipelineStateError, match="has no state to save"):
                pipeline.state_dict()


def test_a_sink_gets_them_too():
    sink = Collect()
    with Pipeline([Numbers(), Rebatch(7), sink]) as pipeline:
        pipeline.wait(LIMIT)
    assert [batch.size for batch in sink.batches] == [7, 7, 7, 7, 7, 5]


def test_errors_of_a_stage_before_and_after():
    def failing(batch):
        if 20 in batch.numbers:
            raise KeyError("twenty")
        return batch

    for modules in ([Call(failing), Rebatch(7)], [Rebatch(7), Call(failing)]):
        with Pipeline([Numbers(), *modules]) as pipeline, pytest.raises(KeyError, match="twenty"):
            list(pipeline)


def test_places_are_dropped_when_their_batches_are_taken(monkeypatch):
    monkeypatch.setattr("highway.engine.workers.MOST_PLACES", 8)
    with Pipeline(
        [reader(size=400, epochs=1, queue_size=4), Rebatch(3, queue_size=4), Rebatch(2, queue_size=4)]
    ) as pipeline:
        for _ in pipeline:
            state = pipeline.state_dict()
        runners = pipeline._run._regroupers
        assert all(len(runner.places) < 40 for runner in runners)
        assert state["regrouped"] == [[0, 0, 134], [0, 0, 200]]


def test_places_are_dropped_before_a_sink(monkeypatch):
    monkeypatch.setattr("highway.engine.workers.MOST_PLACES", 8)
    with Pipeline([reader(size=400, epochs=1), Rebatch(1, queue_size=4), Collect()]) as pipeline:
        pipeline.wait(LIMIT)
        assert all(len(runner.places) < 40 for runner in pipeline._run._regroupers)


def test_places_are_looked_through_rarely(monkeypatch):
    """Where many are needed, since a later stage joins many batches, not for each of them."""
    monkeypatch.setattr("highway.engine.workers.MOST_PLACES", 8)
    looks = []
    needed = RegroupRunner.needed
    monkeypatch.setattr(RegroupRunner, "needed", lambda runner: (looks.append(runner), needed(runner))[1])
    with Pipeline([reader(size=2000, epochs=1), Rebatch(1), Rebatch(2000)]) as pipeline:
        assert pipeline.dequeue(timeout=LIMIT).size == 2000
    assert 0 < len(looks) < 40


def test_states_while_an_epoch_begins(monkeypatch):
    """Each part of the move leaves a position, for the thread that asks in between."""
    states = []
    rewind = ModuleRunner.rewind

    def asked(runner, start):
        states.append(pipeline.state_dict())
        rewind(runner, start)
        states.append(pipeline.state_dict())

    monkeypatch.setattr(ModuleRunner, "rewind", asked)
    with Pipeline([reader(), Rebatch(7), Rebatch(3)]) as pipeline:
        for epoch in (2, 0, 1):
            assert next(pipeline.epoch(epoch)).epoch == epoch
        assert len(states) == 18
        for state in states:
            pipeline.load_state_dict(state)


# Batches of batches


def texts(seq=0, **more):
    rows = np.array([0, 1, 1, 4])
    batch = Batch(
        {"tokens": np.arange(4) + 10 * seq, "words": np.arange(6), "names": np.array(["a" * (seq + 1)] * 3)},
        seq=seq,
        indices=np.arange(3) + 3 * seq,
        keys=["x", "y", "z"],
        extras={"weights": np.ones((4, 2)), "files": np.array([b"a\0", b"", b"b"], object)},
        ragged={"tokens": rows, "weights": rows, "words": [0, 2, 4, 6]},
    )
    return batch.replace(**more) if more else batch


def test_parts_are_views():
    batch = texts()
    found = part(batch, 1, 3)
    assert np.shares_memory(found.tokens, batch.tokens)
    assert found.rows_of("tokens", 1).tolist() == [1, 2, 3] and len(found.rows_of("tokens", 0)) == 0
    assert found.ragged_with("tokens") == {"tokens", "weights"}
    assert found.offsets_of("words").tolist() == [0, 2, 4]
    assert found.keys == ["y", "z"] and found.indices.tolist() == [1, 2]
    with pytest.raises(ContractError, match="'loss' has no dimensions"):
        part(batch.replace(loss=np.array(0.5)), 0, 1)


def test_batches_are_joined():
    found = joined("Rebatch", [part(texts(0), 2, 3), texts(1)])
    assert found.tokens.tolist() == [1, 2, 3, 10, 11, 12, 13]
    assert found.offsets_of("tokens").tolist() == [0, 3, 4, 4, 7]
    assert found.ragged_with("weights") == {"tokens", "weights"}
    assert found.names.tolist() == ["a", "aa", "aa", "aa"]
    assert found.files.tolist() == [b"b", b"a\0", b"", b"b"]
    assert found.indices.tolist() == [2, 3, 4, 5] and found.keys == ["z", "x", "y", "z"]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (texts(1, more=np.zeros(3)), "more is missing and float64, samples of shape"),
        (texts(1, words=np.arange(6.0)), "words is int64, ragged with words, rows of shape .* and float64"),
        (
            texts(1, weights=np.ones((4, 3))),
            r"weights is an extra float64.*rows of shape \(2,\) and .* \(3,\)",
        ),
        (texts(1, applied=4), "applied is 0 and 4"),
    ],
)
def test_batches_that_do_not_fit_together(other, message):
    with pytest.raises(
        ContractError, match=f"Rebatch: batches 0 and 1 of epoch 0 have different fields: {message}"
    ):
        joined("Rebatch", [texts(0), other])


def test_fields_of_whole_batches_are_not_joined():
    with pytest.raises(ContractError, match="'loss' has no dimensions"):
        joined("Rebatch", [texts(0, loss=np.array(0.5)), texts(1, loss=np.array(0.5))])


def test_places_after_batches():
    regrouper = Regrouper("Rebatch", lambda epoch: 2, False, Place(5, 1, 0, 4))
    found = [(made.indices.tolist(), made.seq, place) for made, place in regrouper.add(5, texts(0))]
    assert found == [([1, 2], 4, Place(6, 0, 0, 5))]
    found = [(made.indices.tolist(), place) for made, place in regrouper.add(6, texts(1))]
    assert found == [([3, 4], Place(6, 2, 0, 6))]
    assert [(made.indices.tolist(), place) for made, place in regrouper.rest()] == [([5], Place(7, 0, 0, 7))]
    assert list(regrouper.rest()) == []


class Own(Call):
    """A stage of a user that regroups."""

    regroups = True

    def __init__(self, size, **arguments):
        super().__init__(lambda batch: batch, **arguments)
        self.batch_size = size


def test_a_stage_of_ones_own_has_one_worker(monkeypatch):
    pretend_cores(monkeypatch, 8)
    with Pipeline([Numbers(), Own(7)]) as pipeline:
        assert [batch.size for batch in pipeline] == [7, 7, 7, 7, 7, 5]
        runner = pipeline._run.runners[1]
        assert runner.most == 1 and not runner.tuned
    with pytest.raises(ArgumentError, match=r"Own: workers is 3, .*expected 1"):
        Pipeline([Numbers(), Own(7, workers=3)])
    for size in (None, 0):
        with (
            Pipeline([Numbers(), Own(size)]) as pipeline,
            pytest.raises(ContractError, match=rf"Own\.batch_size is {size}, and regroups is True"),
        ):
            pipeline.dequeue(timeout=LIMIT)


class Texts(Source):
    def tasks(self):
        return iter(range(5))

    def load(self, task):
        return texts(task)


def test_ragged_fields_are_regrouped():
    with Pipeline([Texts(), Rebatch(4)]) as pipeline:
        found = list(pipeline)
    assert [batch.size for batch in found] == [4, 4, 4, 3]
    assert np.concatenate([batch.tokens for batch in found]).tolist() == [
        *(number + 10 * seq for seq in range(5) for number in range(4))
    ]
    assert all(batch.ragged_with("tokens") == {"tokens", "weights"} for batch in found)


def test_states_while_other_threads_take_batches(monkeypatch):
    """The place of a batch is never dropped between two looks at the next one."""
    monkeypatch.setattr("highway.engine.workers.MOST_PLACES", 1)
    with Pipeline([reader(size=3000, epochs=1), Rebatch(3), Rebatch(2)]) as pipeline:
        counts = [Task(lambda: sum(1 for _ in pipeline.forever())) for _ in range(2)]
        while any(count.is_alive() for count in counts):
            state = pipeline.state_dict()
            assert all(type(number) is int for place in state["regrouped"] for number in place)
        assert sum(count.result() for count in counts) == 1500


# Endless data of which nothing remains


@pytest.mark.parametrize(
    "stages",
    [
        [Filter(lambda sample: False)],
        [Rebatch(1000, drop_last=True)],
        [Rebatch(7), Filter(lambda sample: False)],
        [Filter(lambda sample: False, refill=False), Rebatch(3)],
    ],
)
@pytest.mark.parametrize("how", ["dequeue", "iteration", "forever"])
def test_endless_data_of_which_no_batch_remains(stages, how):
    calls = {
        "dequeue": Pipeline.dequeue,
        "iteration": list,
        "forever": lambda running: list(running.forever()),
    }
    match = r"(Filter|Rebatch): no batch of epoch \d+ remains"
    with Pipeline([reader(epochs=None), *stages]) as pipeline, pytest.raises(EmptyDatasetError, match=match):
        calls[how](pipeline)


def test_what_comes_before_an_epoch_without_samples_is_delivered():
    first = Filter(lambda batch: np.full(batch.size, batch.epoch == 0), per_sample=False)
    with Pipeline([reader(epochs=None), first]) as pipeline:
        for number in range(13):
            assert pipeline.dequeue(timeout=LIMIT).seq == number
        with pytest.raises(EmptyDatasetError, match="no batch of epoch"):
            pipeline.dequeue(timeout=LIMIT)


def test_some_epochs_may_be_empty_if_others_come():
    """Only a whole epoch that somebody waits for ends a pipeline; finite data end by themselves."""
    some = Filter(lambda batch: np.full(batch.size, batch.epoch == 4), per_sample=False)
    with Pipeline([reader(epochs=5), some]) as pipeline:
        assert {batch.epoch for batch in pipeline.forever()} == {4}


@pytest.mark.parametrize("size", [3, 4, 50])
@pytest.mark.parametrize("sink", [(), (Collect(),)])
def test_a_stage_after_it_that_drops_all_ends_endless_data(size, sink):
    """Epochs of fewer batches than wait between the modules, and of more."""
    first = Filter(lambda batch: np.full(batch.size, batch.epoch == 0), per_sample=False, refill=False)
    with Pipeline([reader(epochs=None), Rebatch(size), first, *sink]) as pipeline:
        for number in range(0 if sink else -(-50 // size)):
            assert pipeline.dequeue(timeout=LIMIT).seq == number
        with pytest.raises(EmptyDatasetError, match="Rebatch: no batch of epoch"):
            pipeline.wait(LIMIT) if sink else pipeline.dequeue(timeout=LIMIT)


def test_a_stage_after_it_may_drop_some_of_each_epoch():
    def one(batch):
        return np.full(batch.size, batch.seq == 4)

    stages = [Rebatch(10), Filter(one, per_sample=False, refill=False)]
    with Pipeline([reader(epochs=None), *stages]) as pipeline:
        assert [pipeline.dequeue(timeout=LIMIT).epoch for _ in range(100)] == [*range(100)]


def test_batches_that_are_all_skipped_do_not_keep_an_endless_pipeline_busy():
    def odd(batch):
        return np.full(batch.size, batch.epoch % 2 == 1)

    stage = Filter(odd, per_sample=False, refill=False)
    with Pipeline([reader(epochs=None), stage]) as pipeline:
        for epoch in range(3):
            if epoch % 2 == 0:
                with pytest.raises(EmptyEpochError, match=f"all 13 batches of epoch {epoch} were skipped"):
                    pipeline.dequeue(timeout=LIMIT)
            else:
                assert {pipeline.dequeue(timeout=LIMIT).epoch for _ in range(13)} == {epoch}
    nothing = [reader(epochs=None), Call(lambda batch: None)]
    with Pipeline(nothing) as pipeline:
        pipeline.start()
        for epoch in range(3):
            # Else who asks would do so for ever.
            eventually(pipeline.ready)
            with pytest.raises(EmptyEpochError, match=f"of epoch {epoch} were"):
                pipeline.dequeue(block=False)
    with Pipeline(nothing) as pipeline, pytest.raises(EmptyEpochError, match="epochs=None"):
        next(pipeline.forever())
    match = "Collect: no batch of epoch 0 remains"
    with Pipeline([*nothing, Collect()]) as pipeline, pytest.raises(EmptyDatasetError, match=match):
        pipeline.wait(LIMIT)
