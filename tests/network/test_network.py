"""Pipelines that go on elsewhere, in one process: every batch arrives once, with the bits it would have had at home."""

from __future__ import annotations

import gc
import json
import os
import threading
import time
import weakref
from collections import Counter

import numpy as np
import pytest
import zmq
from concurrency import LIMIT, Task, eventually, within
from machines import (
    FAST,
    PATIENCE,
    Machines,
    assert_once,
    digest,
    flips,
    key_of,
    noise,
    nothing_left,
    told,
    undisturbed,
)
from pictures import class_folders
from small_modules import Call, Drop, Gate, Numbers, Pass, SizedNumbers, rest_of

from highway.batch import Batch
from highway.engine import Pipeline, Source
from highway.engine.inspection import inspected
from highway.errors import (
    AddressError,
    AddressInUseError,
    ArgumentError,
    ContractError,
    EndOfData,
    MessageTooLargeError,
    MissingPackageError,
    PeerLostError,
    PipelineStateError,
    RemoteError,
    SecurityError,
    StateMismatchError,
    StorageError,
    SupersededError,
    UndeliveredError,
    WaitTimeout,
)
from highway.modules import (
    Augmentations,
    Filter,
    ImageFileReader,
    Noise,
    PadRagged,
    Window,
    ZMQSink,
    ZMQSource,
)
from highway.network import exactly_once as exact
from highway.network.protocol.messages import Kind
from highway.network.protocol.roles import Worker
from highway.network.zmq import socket_thread as driver
from highway.transforms import FlipX

# Long, and not about the interpreter.
pytestmark = pytest.mark.once

EPOCHS, BATCHES = 2, 18


@pytest.fixture(autouse=True)
def nothing_is_left():
    with nothing_left():
        yield


@pytest.fixture(autouse=True)
def few_last_words(monkeypatch):
    """Machines of one process end one after the other: who is left need not wait for those that went."""
    monkeypatch.setattr(driver, "BYE_LIMIT", 0.05)


@pytest.fixture
def machines():
    with Machines() as stack:
        yield stack


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(exact, "TIMING", FAST)


@pytest.fixture(scope="module")
def expected():
    return undisturbed()


@pytest.fixture(params=["tcp", "ipc", "inproc"])
def places(request, tmp_path):
    """Two addresses that can be bound."""
    if request.param == "tcp":
        return "tcp://127.0.0.1:*", "tcp://[::1]:*"
    return f"{request.param}://{tmp_path}/above", f"{request.param}://{tmp_path}/below"


# Chains


def test_chain_of_the_readme(machines, places, expected, tmp_path):
    above, below = places
    sink = machines.data(addr=above)
    pipeline, source = machines.trainer(below)
    workers = [machines.worker(sink, source) for _ in range(2)]
    # One that comes when all is over has nobody who tells it.
    eventually(lambda: len(sink.transport.role.producer.links) == 2)
    assert_once(told(pipeline.forever()), expected)
    for worker in workers:
        worker.wait(LIMIT)
    with pytest.raises(EndOfData):
        pipeline.dequeue()
    assert pipeline.errors == []
    machines.close()
    assert os.listdir(tmp_path) == []


def test_worker_is_the_hub(machines, places, expected):
    above, below = places
    source = ZMQSource(above, bind=True)
    sink = ZMQSink(below, bind=True)
    worker = machines.add(source, flips(), sink)
    data = machines.add(noise(), ZMQSink(source.address, bind=False))
    pipeline, _ = machines.trainer(sink.address, bind=False)
    assert_once(told(pipeline.forever()), expected)
    data.wait(LIMIT)
    worker.wait(LIMIT)


def test_nothing_that_has_come_waits_for_the_next_beat(machines, places, monkeypatch):
    """Who sends in a thread of the pipeline may meet what comes just then: it is taken in all the same."""
    monkeypatch.setattr(driver, "BEAT", 10 * LIMIT)
    monkeypatch.setattr(exact, "TIMING", exact.TIMING._replace(repeat=10 * LIMIT, death=100 * LIMIT))
    sink = machines.data(noise(8000, 1, shape=(2, 2)), addr=places[0])
    pipeline, source = machines.trainer(places[1])
    machines.worker(sink, source)
    for _ in range(2000):
        pipeline.dequeue(timeout=LIMIT)


@pytest.mark.parametrize("bound", ["data", "trainer"])
def test_data_machine_and_trainer_alone(machines, places, bound):
    if bound == "data":
        sink = ZMQSink(places[0])
        data = machines.add(noise(), sink)
        pipeline, _ = machines.trainer(sink.address, bind=False)
    else:
        pipeline, source = machines.trainer(places[0])
        data = machines.add(noise(), ZMQSink(source.address, bind=False))
    assert_once(told(pipeline.forever()), undisturbed(noise()))
    data.wait(LIMIT)


def test_several_data_machines_and_several_workers(machines):
    shards = [(0, 2), (1, 2)]
    expected = {}
    for shard in shards:
        expected.update(undisturbed(noise(shard=shard), flips()))
    assert len(expected) == 2 * EPOCHS * 9
    sinks = [machines.data(noise(shard=shard), stream=shard) for shard in shards]
    pipeline, source = machines.trainer(streams=2)
    above = [sink.address for sink in sinks]
    workers = [machines.worker(above, source) for _ in range(3)]
    found = told(pipeline.forever())
    assert_once(found, expected)
    # No epoch begins before the one before is over.
    assert [key[0] for key, _ in found] == sorted(key[0] for key, _ in found)
    for worker in workers:
        worker.wait(LIMIT)


def test_pictures_in_several_shards(machines, tmp_path):
    folder = class_folders(tmp_path / "pictures")

    def reader(shard):
        return ImageFileReader(folder, 2, (24, 32), seed=5, epochs=2, shard=shard, workers=1)

    expected = {}
    for rank in range(2):
        expected.update(undisturbed(reader((rank, 2)), flips()))
    sinks = [machines.data(reader((rank, 2)), stream=(rank, 2)) for rank in range(2)]
    pipeline, source = machines.trainer()
    machines.worker([sink.address for sink in sinks], source)
    found = told(pipeline.forever())
    assert_once(found, expected)


@pytest.mark.parametrize("count", [1, 2])
def test_each_training_machine_has_data_machines_of_its_own(count):
    """`shard` says what is read, `stream` who sends it with whom."""
    for rank in range(2):
        shards = [(rank * count + number, 2 * count) for number in range(count)]
        expected = {}
        for shard in shards:
            expected.update(undisturbed(noise(shard=shard)))
        with Machines() as chain:
            sinks = [
                chain.data(noise(shard=shard), stream=(number, count)) for number, shard in enumerate(shards)
            ]
            pipeline, _ = chain.trainer([sink.address for sink in sinks], bind=False)
            assert_once(told(pipeline.forever()), expected)


def test_parts_of_two_ranks_do_not_mix(machines):
    """Both have the same numbers: half of each would be dropped as duplicates."""
    sinks = [machines.data(noise(shard=(rank, 2))) for rank in range(2)]
    pipeline, _ = machines.trainer([sink.address for sink in sinks], bind=False)
    with pytest.raises(StateMismatchError, match=r"rank [01] of 2\).*(stream=|fingerprint)"):
        list(pipeline.forever())


@pytest.mark.parametrize(
    ("shard", "stream", "message"),
    [
        ((0, 1), (0, 2), r"shard=\(0, 1\); expected shard=\(0, 2\)"),
        ((1, 2), (0, 2), r"shard=\(1, 2\); expected shard=\(0, 2\)"),
        ((1, 4), (0, 2), r"shard=\(r \* 2 \+ 0, w \* 2\)"),
        ((0, 1), 2, r"stream is 2; expected \(i, n\)"),
        ((0, 1), (2, 2), r"stream\[0\] is 2; expected .* 0 to 1"),
    ],
)
@pytest.mark.parametrize("delivery", ["exactly-once", "at-most-once"])
def test_stream_that_is_not_what_is_read(shard, stream, message, delivery):
    with pytest.raises(ArgumentError, match=message), Machines() as machines:
        machines.data(noise(shard=shard), stream=stream, delivery=delivery).wait(LIMIT)


def test_worker_has_no_stream():
    source = ZMQSource("tcp://127.0.0.1:*", bind=True)
    with pytest.raises(ArgumentError, match=r"stream is .* on a worker"):
        Pipeline([source, ZMQSink("tcp://127.0.0.1:*", stream=(0, 2))])


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_order_is_the_same_for_any_number_of_workers(machines, workers, expected):
    sink = machines.data()
    pipeline, source = machines.trainer(ordered=True)
    for _ in range(workers):
        machines.worker(sink, source)
    assert told(pipeline.forever()) == list(expected.items())


def test_order_of_several_data_machines(machines):
    streams = [list(undisturbed(noise(shard=(rank, 2))).items()) for rank in range(2)]
    sinks = [machines.data(noise(shard=(rank, 2)), stream=(rank, 2)) for rank in range(2)]
    pipeline, _ = machines.trainer([sink.address for sink in sinks], bind=False, ordered=True)
    assert told(pipeline.forever()) == [batch for pair in zip(*streams, strict=True) for batch in pair]


def test_epochs(machines, expected):
    sink = machines.data()
    pipeline, source = machines.trainer(ordered=True)
    machines.worker(sink, source)
    found = [told(pipeline.epoch()) for _ in range(EPOCHS)]
    assert [len(epoch) for epoch in found] == [BATCHES] * EPOCHS
    assert [key[0] for epoch in found for key, _ in epoch] == [0] * BATCHES + [1] * BATCHES
    assert_once([batch for epoch in found for batch in epoch], expected)
    for call in (list, lambda pipeline: list(pipeline.epoch()), Pipeline.dequeue):
        with pytest.raises(
            EndOfData, match=f"all batches were delivered, {EPOCHS * BATCHES} of epochs 0 to 1. For"
        ):
            call(pipeline)
    assert pipeline.stats().skipped_batches == 0


def by_epoch(batches):
    """{epoch: its batches} of what `undisturbed` makes."""
    return [{key: sha for key, sha in batches.items() if key[0] == epoch} for epoch in range(EPOCHS)]


def some_of(pipeline, count):
    """The first batches of an iteration that ends with a break."""
    found = []
    for batch in pipeline:
        found += told([batch])
        if len(found) == count:
            break
    return found


@pytest.mark.parametrize("delivery", ["exactly-once", "at-most-once"])
def test_one_for_is_one_epoch(machines, delivery):
    sink = machines.data(delivery=delivery)
    pipeline, _ = machines.trainer(sink.address, bind=False, delivery=delivery)
    for epoch in by_epoch(undisturbed(noise())):
        batches = iter(pipeline)
        assert_once(told(batches), epoch)
        assert batches.epoch == next(iter(epoch))[0]
    for call in (list, lambda pipeline: list(pipeline.forever())):
        with pytest.raises(EndOfData):
            call(pipeline)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("leave", [some_of, lambda pipeline, count: told([pipeline.dequeue(timeout=LIMIT)])])
def test_what_a_break_leaves_of_an_epoch_is_dropped_and_acknowledged(machines, ordered, leave):
    """More than the windows and queues hold; the other machines end as if all had been used."""
    size = 800
    first, second = by_epoch(undisturbed(noise(size), flips()))
    sink = ZMQSink("tcp://127.0.0.1:*")
    data = machines.add(noise(size), sink)
    pipeline, source = machines.trainer(ordered=ordered)
    worker = machines.worker(sink, source)
    begun = leave(pipeline, 3)
    assert {key[0] for key, _ in begun} == {0}
    assert len({key for key, _ in begun} & first.keys()) == len(begun)
    state = pipeline.state_dict()
    assert state["epoch"] == 0 and state["streams"] != [[size // 4, []]]
    assert_once(told(pipeline), second)
    data.wait(LIMIT)
    worker.wait(LIMIT)
    assert pipeline.stats().delivered == len(begun) + len(second)
    with pytest.raises(EndOfData):
        list(pipeline)


def test_a_break_in_the_last_epoch_leaves_nothing_for_the_next_for(machines, expected):
    sink = ZMQSink("tcp://127.0.0.1:*")
    data = machines.add(noise(), sink)
    pipeline, _ = machines.trainer(sink.address, bind=False)
    assert len(told(pipeline)) == BATCHES
    assert len(some_of(pipeline, 2)) == 2
    with pytest.raises(WaitTimeout):
        data.wait(0.2)
    with pytest.raises(EndOfData, match=f"all batches were delivered, {BATCHES + 2} of epochs 0 to 1"):
        list(pipeline)
    data.wait(LIMIT)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_threads_share_epochs_of_few_batches(size):
    """Some of them see the end before another has noted the first batch."""
    for turn in range(10):
        address = f"inproc://few-{size}-{turn}"
        with (
            Pipeline([Noise(1, (2, 2), size=size, epochs=10), ZMQSink(address)]),
            Pipeline([ZMQSource(address)]) as training,
        ):
            for epoch in range(10):
                batches = iter(training)
                threads = [Task(lambda: [batch.epoch for batch in batches]) for _ in range(4)]  # noqa: B023
                assert sorted(each for thread in threads for each in thread.result()) == [epoch] * size


@pytest.mark.parametrize("ordered", [True, False])
def test_threads_share_the_epochs_of_a_training_machine(machines, expected, ordered):
    sink = machines.data()
    pipeline, source = machines.trainer(ordered=ordered)
    machines.worker(sink, source)
    for epoch in by_epoch(expected):
        batches = iter(pipeline)
        threads = [Task(lambda: told(batches)) for _ in range(3)]  # noqa: B023
        assert_once([batch for thread in threads for batch in thread.result()], epoch)


def test_epochs_by_number(machines, expected):
    sink = machines.data(noise(epochs=3))
    pipeline, source = machines.trainer()
    machines.worker(sink, source)
    assert_once(told(pipeline.epoch(1)), by_epoch(expected)[1])
    with pytest.raises(PipelineStateError, match="ZMQSource cannot go back to epoch 0"):
        list(pipeline.epoch(0))
    assert {key[0] for key, _ in told(pipeline)} == {2}


def test_iterations_of_an_unordered_training_machine(machines, expected):
    sink = machines.data()
    source = ZMQSource("tcp://127.0.0.1:*", bind=True)
    pipeline = machines.add(source, Pass(workers=2), ordered=False)
    machines.worker(sink, source)
    with pytest.raises(
        PipelineStateError, match=r"ZMQSource does not know .* cannot tell where an epoch ends"
    ):
        iter(pipeline)
    assert_once(told(pipeline.forever()), expected)


@pytest.mark.parametrize("taken", [1, 7, BATCHES])
def test_state_goes_on_with_the_rest_of_its_epoch_and_then_the_next(machines, expected, taken):
    first, second = by_epoch(expected)
    sink = machines.data()
    with Machines() as earlier:
        pipeline, source = earlier.trainer()
        earlier.worker(sink, source)
        found = told(pipeline.dequeue(timeout=LIMIT) for _ in range(taken))
        state = pipeline.state_dict()
    pipeline, source = machines.trainer()
    pipeline.load_state_dict(state)
    machines.worker(sink, source)
    if taken < BATCHES:
        assert_once(found + told(pipeline), first)
    assert_once(told(pipeline), second)
    with pytest.raises(EndOfData):
        list(pipeline)


def test_source_without_a_length_is_one_epoch(machines):
    sink = machines.data(Numbers(11))
    pipeline, source = machines.trainer()
    machines.worker(sink, source, Pass(workers=2))
    found = list(pipeline)
    assert sorted((batch.epoch, batch.seq) for batch in found) == [(0, seq) for seq in range(11)]
    assert sorted(int(batch.numbers[0]) for batch in found) == list(range(0, 44, 4))


@pytest.mark.parametrize("length", [0, 1])
def test_little_or_nothing(machines, length):
    sink = machines.data(Numbers(length))
    pipeline, source = machines.trainer()
    worker = machines.worker(sink, source, Pass())
    assert len(rest_of(pipeline.forever)) == length
    for call in (list, lambda pipeline: list(pipeline.epoch())):
        with pytest.raises(EndOfData):
            call(pipeline)
    worker.wait(LIMIT)


@pytest.mark.parametrize("ordered", [True, False])
def test_left_out_batches(machines, ordered):
    """By the reader, and by a stage of a worker: nobody waits for them."""
    sink = machines.data(SizedNumbers(10, 2, holes=(0, 4, 13, 19)))
    pipeline, source = machines.trainer(ordered=ordered)
    for _ in range(2):
        machines.worker(sink, source, Drop(lambda number: number in (1, 9, 10)))
    found = [int(batch.numbers[0]) // 4 for batch in pipeline.forever()]
    assert sorted(found) == [2, 3, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18]
    assert pipeline.errors == []
    assert not ordered or found == sorted(found)


# What travels


class Everything(Source):
    """A batch with arrays of every kind."""

    def tasks(self):
        return iter(range(2))

    def load(self, task):
        rng = np.random.default_rng(task)
        kinds = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128"
        fields = {
            kind.replace("bool", "boolean"): rng.integers(0, 2, (3, 2)).astype(kind) for kind in kinds.split()
        }
        fields["boxes"] = rng.random((5, 4), np.float32)
        fields["nothing"] = np.zeros((3, 0, 4), np.float32)
        fields["scalar"] = np.array(3.5)
        fields["strided"] = rng.random((3, 8))[:, ::2]
        fields["fortran"] = np.asfortranarray(rng.random((3, 4)))
        fields["big_endian"] = np.arange(3, dtype=">i4")
        return Batch(
            fields,
            epoch=0,
            seq=task,
            indices=[2**40 + task, 5, 0],
            keys=["a/ä.jpg", os.fsdecode(b"b/\xff.jpg"), ""],
            applied=3,
            extras={"difficult": rng.random(5) < 0.5, "weights": rng.random(3)},
            offsets=[0, 2, 2, 5],
            ragged=("boxes", "difficult"),
        )


@pytest.mark.parametrize("through_worker", [True, False])
def test_everything_travels(machines, through_worker):
    at_home = [Everything().load(task) for task in range(2)]
    if through_worker:
        sink = machines.data(Everything())
        pipeline, source = machines.trainer(ordered=True)
        machines.worker(sink, source, Pass())
    else:
        sink = machines.data(Everything())
        pipeline, source = machines.trainer(sink.address, bind=False, ordered=True)
    for mine, batch in zip(at_home, pipeline, strict=True):
        assert list(batch.fields) == list(mine.fields) and list(batch.extras) == list(mine.extras)
        assert batch.offsets.tolist() == mine.offsets.tolist() and batch.ragged == mine.ragged
        for name, array in (*mine.fields.items(), *mine.extras.items()):
            assert batch[name].dtype == array.dtype.newbyteorder("="), name
            assert batch[name].shape == array.shape
            assert np.array_equal(batch[name], array)
        assert batch.indices.tolist() == mine.indices.tolist()
        assert (batch.epoch, batch.seq, batch.keys, batch.applied) == (0, mine.seq, mine.keys, 3)
        # As at home, they may be written to.
        batch.boxes[:] = 0


class Texts(Numbers):
    """Tokens with weights, and words of other numbers."""

    def load(self, task):
        counts = np.random.default_rng(task).integers(0, 9, 4)
        rows = np.cumsum([0, *counts])
        total = int(rows[-1])
        return Batch(
            {"tokens": np.arange(total) + 100 * task, "words": np.arange(12, dtype=np.uint8)},
            extras={"weights": np.ones((total, 2), np.float32)},
            ragged={"tokens": rows, "weights": rows, "words": [0, 3, 3, 7, 12]},
        )


def test_ragged_fields_of_different_offsets_travel(machines):
    """And the stages for them work on any machine."""

    def stages():
        long = Filter(lambda sample: len(sample["tokens"]) > 2, refill=False)
        return [Window("tokens", 5), PadRagged("words", 8), long]

    def found(batches):
        return [
            (
                *(batch.seq, batch.keys, batch.indices.tolist(), sorted(batch.ragged_with("tokens"))),
                *(batch[name].tolist() for name in (*batch.fields, *batch.extras)),
                batch.offsets_of("tokens").tolist(),
            )
            for batch in batches
        ]

    with Pipeline([Texts(10), *stages()]) as pipeline:
        expected = found(pipeline.forever())
    sink = machines.data(Texts(10))
    pipeline, source = machines.trainer(ordered=True)
    machines.worker(sink, source, *stages())
    assert found(pipeline.forever()) == expected
    assert len(expected) > 5


def test_what_was_applied_counts_on_the_way(machines):
    """Two Augmentations, one on each machine, draw what they draw in one process."""
    expected = undisturbed(noise(), flips(), Augmentations([FlipX()], seed=1))
    sink = ZMQSink("tcp://127.0.0.1:*")
    machines.add(noise(), flips(), sink)
    pipeline, source = machines.trainer()
    machines.worker(sink, source, Augmentations([FlipX()], seed=1))
    assert_once(told(pipeline.forever()), expected)


def test_a_held_batch_never_changes(machines):
    sink = machines.data()
    pipeline, source = machines.trainer()
    machines.worker(sink, source)
    first = pipeline.dequeue(timeout=LIMIT)
    before = digest(first)
    list(pipeline.forever())
    assert digest(first) == before


# Errors


def explode(batch):
    if batch.seq == 3 and batch.epoch == 0:
        raise KeyError("what it was")
    return batch


class Explosive(SizedNumbers):
    def load(self, task):
        if task == 3:
            raise KeyError("what it was")
        return super().load(task)


@pytest.mark.parametrize("where", ["data", "worker"])
def test_error_travels_with_its_traceback(machines, where, caplog):
    sink = machines.data(Explosive(8) if where == "data" else SizedNumbers(8))
    pipeline, source = machines.trainer()
    worker = machines.worker(sink, source, Call(explode if where == "worker" else lambda batch: batch))
    with pytest.raises(RemoteError) as raised:
        list(pipeline)
    text = str(raised.value)
    module, function = ("Explosive", "in load") if where == "data" else ("Call", "in explode")
    assert text.startswith(f"ZMQSource: {module} on ")
    assert f":{os.getpid()} raised KeyError: 'what it was'" in text
    assert "Traceback (most recent call last)" in text and function in text
    with pytest.raises(RemoteError):
        pipeline.dequeue()
    # It is no error of the worker.
    assert not inspected(worker).outcome.failures
    # Where it happened it is told as well.
    told = [record for record in caplog.records if record.name == "highway.network"]
    tries = 1 if where == "data" else 2
    assert [(record.message.split(":")[0], record.exc_info[0]) for record in told] == [
        (module, KeyError)
    ] * tries


@pytest.mark.parametrize("where", ["data", "worker"])
def test_error_can_be_skipped_and_is_listed(machines, where):
    sink = machines.data(Explosive(8, 2) if where == "data" else SizedNumbers(8, 2))
    pipeline, source = machines.trainer(on_error="skip")
    worker = machines.worker(sink, source, Call(explode if where == "worker" else lambda batch: batch))
    found = sorted(int(batch.numbers[0]) // 4 for batch in pipeline.forever())
    assert found == [number for number in range(16) if number != 3]
    ((which, why),) = pipeline.errors
    assert which == "epoch 0, batch 3, stream 0"
    assert "KeyError: 'what it was'" in why
    worker.wait(LIMIT)


@pytest.mark.parametrize("error", [MissingPackageError, StorageError])
def test_machine_that_cannot_work_is_never_skipped(machines, error):
    def fail(batch):
        raise error("nothing of this batch")

    sink = machines.data(SizedNumbers(8, 2))
    pipeline, source = machines.trainer(on_error="skip")
    machines.worker(sink, source, Call(fail))
    with pytest.raises(RemoteError, match=rf"raised {error.__name__}: nothing of this batch"):
        pipeline.dequeue(timeout=LIMIT)


def test_batches_that_another_machine_skips_are_not_said_to_be_none(machines):
    sink = machines.data(Numbers(2))
    pipeline, source = machines.trainer()
    worker = machines.worker(sink, source, Drop(lambda ticket: True))
    with pytest.raises(
        EndOfData, match="no batches arrived: there are none, or the data machine skipped all"
    ):
        list(pipeline)
    worker.wait(LIMIT)
    assert worker.stats().skipped_batches == 2


def times(batch):
    return Batch({"times": np.zeros(4, "datetime64[s]")})


def test_batch_that_a_worker_cannot_send_is_told_to_the_training_machine(machines):
    sink = machines.data(Numbers(2))
    pipeline, source = machines.trainer(on_error="skip")
    worker = machines.worker(sink, source, Call(times))
    with pytest.raises(EndOfData, match="all 2 batches of epoch 0 were skipped"):
        list(pipeline)
    assert len(pipeline.errors) == pipeline.stats().skipped_batches == 2
    assert "ContractError" in pipeline.errors[0][1] and "datetime64" in pipeline.errors[0][1]
    worker.wait(LIMIT)


def test_batch_that_a_data_machine_cannot_send_ends_it(machines):
    sink = ZMQSink("tcp://127.0.0.1:*")
    data = machines.add(Numbers(2), Call(times), sink)
    machines.trainer(sink.address, bind=False)
    with pytest.raises(ContractError, match="datetime64"):
        data.wait(LIMIT)


def test_error_with_bytes_that_are_no_text_travels(machines):
    def fail(batch):
        raise ValueError("file \udcff.jpg")

    sink = machines.data(Numbers(1))
    pipeline, source = machines.trainer()
    machines.worker(sink, source, Call(fail))
    with pytest.raises(RemoteError, match=r"file \\+udcff.jpg"):
        list(pipeline)


def test_message_over_the_limit_is_an_error_at_the_sink(machines):
    sink = ZMQSink("tcp://127.0.0.1:*")
    big = Call(lambda batch: Batch({"big": np.zeros((4, (257 << 20) // 32))}))
    data = machines.add(Numbers(1), big, sink)
    machines.trainer(sink.address, bind=False)
    with pytest.raises(MessageTooLargeError):
        data.wait(LIMIT)


# State


@pytest.mark.parametrize("taken", [0, 1, 7, BATCHES - 1, BATCHES, BATCHES + 5, 2 * BATCHES - 1, 2 * BATCHES])
def test_state_goes_on_with_exactly_the_rest(machines, expected, taken):
    sink = machines.data()
    with Machines() as first:
        pipeline, source = first.trainer()
        for _ in range(2):
            first.worker(sink, source)
        found = told(pipeline.dequeue(timeout=LIMIT) for _ in range(taken))
        text = json.dumps(pipeline.state_dict())
    assert len(text) < 500
    if taken == len(expected):
        # The first one has ended, since all was received.
        sink = machines.data()
    pipeline, source = machines.trainer()
    pipeline.load_state_dict(json.loads(text))
    # Another number of workers.
    machines.worker(sink, source)
    found += told(rest_of(pipeline.forever))
    assert_once(found, expected)


def test_state_counts_what_is_handed_out_and_nothing_more(machines, expected):
    """The queues of the first trainer are full when it ends."""
    sink = machines.data()
    with Machines() as first:
        pipeline, source = first.trainer(window=64)
        first.worker(sink, source)
        found = told([pipeline.dequeue(timeout=LIMIT)])
        eventually(lambda: source.transport.role.delivery.outstanding >= 4)
        state = pipeline.state_dict()
    assert state["streams"] == [[0, [found[0][0][1]]]] or state["streams"] == [[1, []]]
    pipeline, source = machines.trainer()
    pipeline.load_state_dict(state)
    machines.worker(sink, source)
    assert_once(found + told(pipeline.forever()), expected)


@pytest.mark.parametrize(("taken", "epochs"), [(BATCHES + 5, 1), (2 * BATCHES, 1)])
@pytest.mark.parametrize("through_worker", [True, False])
def test_state_of_more_epochs_than_there_are_is_refused(expected, taken, epochs, through_worker):
    """Otherwise the epoch would seem to be over, and its rest be lost."""
    with Machines() as first:
        sink = first.data(noise(epochs=3))
        pipeline, source = first.trainer()
        first.worker(sink, source)
        found = told(pipeline.dequeue(timeout=LIMIT) for _ in range(taken))
        state = pipeline.state_dict()
    with Machines() as second:
        sink = second.data(noise(epochs=epochs))
        if through_worker:
            pipeline, source = second.trainer()
            second.worker(sink, source)
        else:
            pipeline, source = second.trainer(sink.address, bind=False)
        pipeline.load_state_dict(state)
        with pytest.raises(StateMismatchError, match=f"the state counts {taken} batches .* epochs="):
            pipeline.dequeue(timeout=LIMIT)
    with Machines() as third:
        sink = third.data()
        pipeline, source = third.trainer()
        third.worker(sink, source)
        pipeline.load_state_dict(state)
        assert_once(found + told(rest_of(pipeline.forever)), expected)


def test_state_of_all_epochs_is_their_end(machines):
    with Machines() as first:
        sink = first.data(noise(epochs=2))
        pipeline, source = first.trainer()
        first.worker(sink, source)
        for _ in range(BATCHES):
            pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
    assert (state["epoch"], state["streams"][0][0]) in [(1, 0), (0, BATCHES)]
    sink = machines.data(noise(epochs=1))
    pipeline, source = machines.trainer()
    machines.worker(sink, source)
    pipeline.load_state_dict(state)
    for _ in range(2):
        with pytest.raises(EndOfData, match="no batches arrived: there are none"):
            list(pipeline)


def test_new_data_machine_and_new_trainer_go_on_from_the_state(expected):
    state, found = None, []
    for taken in (5, 16, 3, None):
        with Machines() as machines:
            sink = machines.data()
            pipeline, source = machines.trainer()
            machines.worker(sink, source)
            if state is not None:
                pipeline.load_state_dict(state)
            found += told(
                pipeline.forever()
                if taken is None
                else (pipeline.dequeue(timeout=LIMIT) for _ in range(taken))
            )
            state = json.loads(json.dumps(pipeline.state_dict()))
    assert_once(found, expected)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"seed": 4}, "fingerprint"),
        ({"size": 71}, "fingerprint"),
        ({"batch_size": 5}, "fingerprint"),
        ({"shuffle": False}, "fingerprint"),
        ({"shape": (6, 6)}, "fingerprint"),
        ({"shard": (0, 2)}, "rank 0 of 2"),
    ],
)
def test_state_of_other_data_is_refused(machines, other, named):
    with Machines() as first:
        sink = first.data()
        pipeline, _ = first.trainer(sink.address, bind=False)
        pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
    sink = machines.data(noise(**other))
    pipeline, source = machines.trainer()
    pipeline.load_state_dict(state)
    machines.worker(sink, source)
    with pytest.raises(StateMismatchError, match=named):
        pipeline.dequeue(timeout=LIMIT)


def test_state_of_another_list_of_pictures_is_refused(machines, tmp_path):
    folder = class_folders(tmp_path / "pictures")
    with Machines() as first:
        sink = first.data(ImageFileReader(folder, 4, (8, 8), epochs=1))
        pipeline, _ = first.trainer(sink.address, bind=False)
        pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
    (folder / "class0" / "0.jpg").rename(folder / "class0" / "other.jpg")
    sink = machines.data(ImageFileReader(folder, 4, (8, 8), epochs=1))
    pipeline, _ = machines.trainer(sink.address, bind=False)
    pipeline.load_state_dict(state)
    with pytest.raises(StateMismatchError):
        pipeline.dequeue(timeout=LIMIT)


def test_data_machines_that_do_not_belong_together(machines):
    sinks = [machines.data(noise(shard=(rank, 2), seed=rank), stream=(rank, 2)) for rank in range(2)]
    pipeline, _ = machines.trainer([sink.address for sink in sinks], bind=False)
    with pytest.raises(StateMismatchError):
        list(pipeline)


def test_wrong_number_of_streams(machines):
    sink = machines.data()
    pipeline, _ = machines.trainer(sink.address, bind=False, streams=2)
    with pytest.raises(StateMismatchError, match=r"expected 2 \(streams\)"):
        pipeline.dequeue(timeout=LIMIT)


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"version": 2},
        {"version": 1, "generation": -1, "epoch": 0, "streams": [], "fingerprint": ""},
        {"version": 1, "generation": 1, "epoch": 0, "streams": [[3, [2]]], "fingerprint": ""},
        {"version": 1, "generation": 1, "epoch": 0, "streams": [[0, [2, 1]]], "fingerprint": ""},
        {"version": 1, "generation": 1, "epoch": True, "streams": [], "fingerprint": ""},
        {"version": 1, "generation": 1, "epoch": 0, "streams": {}, "fingerprint": ""},
    ],
)
def test_what_is_no_state_is_refused_and_nothing_is_loaded(machines, state):
    sink = machines.data()
    pipeline, _ = machines.trainer(sink.address, bind=False)
    before = pipeline.state_dict()
    with pytest.raises(StateMismatchError):
        pipeline.load_state_dict(state)
    assert pipeline.state_dict() == before
    assert_once(told(pipeline.forever()), undisturbed(noise()))


def test_state_is_loaded_before_the_first_batch_or_not_at_all(machines):
    sink = machines.data()
    pipeline, _ = machines.trainer(sink.address, bind=False)
    state = pipeline.state_dict()
    pipeline.dequeue(timeout=LIMIT)
    with pytest.raises(PipelineStateError):
        pipeline.load_state_dict(state)


def test_state_is_loaded_although_batches_have_come_already(machines, expected):
    sink = machines.data()
    pipeline, source = machines.trainer()
    machines.worker(sink, source)
    with Machines() as first:
        other = first.data()
        earlier, _ = first.trainer(other.address, bind=False)
        for _ in range(6):
            earlier.dequeue(timeout=LIMIT)
        state = earlier.state_dict()
    eventually(lambda: source.transport.role.delivery.outstanding)
    pipeline.load_state_dict(state)
    found = told(pipeline.forever())
    done = set(range(state["streams"][0][0])) | set(state["streams"][0][1])
    rest = {key: sha for key, sha in expected.items() if key[0] > 0 or key[1] not in done}
    assert len(rest) == len(expected) - 6
    assert_once(found, rest)


# Arguments and addresses


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: ZMQSource("tcp://127.0.0.1:1", delivery="maybe"), "delivery is 'maybe'"),
        (lambda: ZMQSink("tcp://127.0.0.1:1", delivery=None), "delivery is None"),
        (lambda: ZMQSource("tcp://127.0.0.1:1", window=0), "window is 0"),
        (lambda: ZMQSink("tcp://127.0.0.1:1", window=4097), "window is 4097"),
        (lambda: ZMQSink(["tcp://127.0.0.1:1"]), "expected one address"),
        (lambda: ZMQSource([]), "expected one address"),
        (lambda: ZMQSource(["tcp://127.0.0.1:1"] * 2), "every address once"),
        (lambda: ZMQSource(["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"], bind=True), "expected one address"),
        (lambda: ZMQSource("http://127.0.0.1:1"), "expected tcp://HOST:PORT"),
        (lambda: ZMQSource("tcp://127.0.0.1"), "no port"),
        (lambda: ZMQSource("tcp://*:1"), "which needs bind=True"),
        (lambda: ZMQSource("tcp://127.0.0.1:1", timeout=-1), "timeout is -1"),
        (lambda: ZMQSource("tcp://127.0.0.1:1", streams=0), "streams is 0"),
        (lambda: ZMQSource("tcp://127.0.0.1:1", on_error="panic"), "on_error is 'panic'"),
        (lambda: ZMQSource("tcp://127.0.0.1:1", ordered=True, delivery="at-most-once"), "ordered is True"),
        (lambda: ZMQSink("tcp://127.0.0.1:1", drain_timeout=-1), "drain_timeout is -1"),
    ],
)
def test_wrong_arguments_are_named(make, named):
    with pytest.raises(ArgumentError, match=named):
        make()


def test_no_secret_beyond_this_machine():
    for make in (lambda: ZMQSink("tcp://*:0"), lambda: ZMQSource("tcp://10.0.0.5:5555")):
        with pytest.raises(SecurityError, match="highway keygen"):
            make()


def test_used_port_is_named_and_nothing_is_left(machines):
    sink = machines.data()
    for module in (ZMQSink(sink.address), ZMQSource(sink.address, bind=True)):
        modules = [module] if isinstance(module, ZMQSource) else [noise(), module]
        with pytest.raises(AddressInUseError, match=sink.address):
            Pipeline(modules)
    for delivery in ("exactly-once", "at-most-once"):
        source = ZMQSource("tcp://127.0.0.1:*", bind=True, delivery=delivery)
        with pytest.raises(AddressInUseError):
            Pipeline([source, flips(), ZMQSink(sink.address, delivery=delivery)])


def test_unknown_host_is_named():
    with pytest.warns(match="secret"):
        source = ZMQSource("tcp://no-such-host.invalid:5555", insecure=True)
    with pytest.raises(AddressError, match=r"no-such-host\.invalid"):
        Pipeline([source])


def test_ends_of_a_worker_need_one_delivery():
    source = ZMQSource("tcp://127.0.0.1:1", delivery="at-most-once")
    with pytest.raises(ArgumentError, match="give both the same delivery"):
        Pipeline([source, flips(), ZMQSink("tcp://127.0.0.1:*")])


def test_only_a_trainer_has_a_state(machines):
    sink = machines.data()
    worker = machines.worker(sink, "tcp://127.0.0.1:9")
    for call in (worker.state_dict, lambda: worker.load_state_dict({})):
        with pytest.raises(PipelineStateError):
            call()


# Who is there


@pytest.mark.parametrize("through", ["data machine", "workers"])
def test_second_trainer_is_refused_by_name_while_the_first_is_alive(
    machines, expected, fast, through, caplog
):
    sink = machines.data()
    if through == "workers":
        (first, source), (second, other) = machines.trainer(), machines.trainer()
        machines.worker(sink, source)
        begun = first.dequeue(timeout=LIMIT)
        machines.worker(sink, other)
    else:
        first, _ = machines.trainer(sink.address, bind=False)
        begun = first.dequeue(timeout=LIMIT)
        second, _ = machines.trainer(sink.address, bind=False)
    refused = rf"refused: the training machine [\w.-]+:{os.getpid()}[/\d]* receives .* end that one"
    with pytest.raises(SupersededError, match=refused):
        second.dequeue(timeout=LIMIT)
    second.stop()
    assert "waits 1.4 s for its end" in caplog.text
    assert_once(told([begun, *first.forever()]), expected if through == "workers" else undisturbed(noise()))


def test_next_trainer_gets_in_when_the_first_has_ended(machines):
    sink = machines.data()
    first, _ = machines.trainer(sink.address, bind=False)
    first.dequeue(timeout=LIMIT)
    second, _ = machines.trainer(sink.address, bind=False)
    with pytest.raises(WaitTimeout):
        second.dequeue(timeout=0.5)
    first.stop()
    # At once, not after the time of a death.
    with within(5):
        begun = second.dequeue(timeout=LIMIT)
    assert_once(told([begun, *second.forever()]), undisturbed(noise()))


def test_nobody_comes():
    with Pipeline([ZMQSource("tcp://127.0.0.1:*", bind=True, timeout=0.5)]) as pipeline:
        began = time.monotonic()
        text = r"nothing arrived for 0\.5 s .* nothing of epoch 0 has arrived"
        with within(2), pytest.raises(PeerLostError, match=text):
            pipeline.dequeue(timeout=LIMIT)
        assert time.monotonic() - began > 0.4


def test_data_machine_does_not_come_back(machines):
    with Machines() as first:
        gate = Gate()
        sink = ZMQSink("tcp://127.0.0.1:*")
        first.add(
            noise(), Call(lambda batch: gate.process(batch) if batch.seq == 5 else batch, workers=1), sink
        )
        pipeline, _ = machines.trainer(sink.address, bind=False, timeout=PATIENCE)
        found = [pipeline.dequeue(timeout=LIMIT) for _ in range(5)]
        assert gate.entered.wait(LIMIT)
        gate.interrupt()
    # The end of the epoch needs no work: it may arrive before the batches that are missing.
    missing = r"(batch \d+ and the following ones|\d+ of 18 batches, the first is \d+)"
    with pytest.raises(PeerLostError, match=f"missing: epoch 0: stream 0: {missing}"):
        found.extend(pipeline.forever())


def test_one_of_two_data_machines_does_not_come(machines):
    sink = machines.data(noise(shard=(0, 2)), stream=(0, 2))
    pipeline, _ = machines.trainer(sink.address, bind=False, timeout=PATIENCE)
    with pytest.raises(PeerLostError, match=r"epoch 0: stream 1: batch 0 and the following ones"):
        list(pipeline)


def test_worker_with_nobody_above_ends(machines, fast):
    with Machines() as first:
        sink = first.data()
        pipeline, source = machines.trainer()
        worker = machines.add(ZMQSource(sink.address, timeout=PATIENCE), ZMQSink(source.address, bind=False))
        pipeline.dequeue(timeout=LIMIT)
    with pytest.raises(PeerLostError, match=f"no data machine was connected for {PATIENCE} s"):
        worker.wait(LIMIT)


def test_consumer_that_pauses_is_waited_for(machines):
    """Its own pause is no loss of a peer."""
    sink = machines.data()
    pipeline, _ = machines.trainer(sink.address, bind=False, timeout=PATIENCE)
    pipeline.dequeue(timeout=LIMIT)
    wait = threading.Event()
    wait.wait(1.2 * PATIENCE)
    assert len(list(pipeline.forever())) == EPOCHS * BATCHES - 1


def test_worker_that_comes_late_gets_work(machines):
    sink = machines.data(noise(400))
    pipeline, source = machines.trainer()
    gate, late = Gate(), Gate()
    machines.worker(sink, source, flips(), gate)
    assert gate.entered.wait(LIMIT)
    late.gate.set()
    machines.worker(sink, source, flips(), late)
    found = told([pipeline.dequeue(timeout=LIMIT)])
    assert late.entered.is_set()
    gate.gate.set()
    assert_once(found + told(pipeline.forever()), undisturbed(noise(400), flips()))


def test_worker_that_is_stopped_leaves_its_batches_to_the_others(machines, expected):
    sink = machines.data()
    pipeline, source = machines.trainer()
    gate = Gate()
    lazy = machines.worker(sink, source, flips(), gate)
    assert gate.entered.wait(LIMIT)
    lazy.stop()
    machines.worker(sink, source)
    assert_once(told(pipeline.forever()), expected)


def test_worker_that_never_reached_a_training_machine_ends_with_the_data(machines, expected):
    sink = machines.data()
    pipeline, source = machines.trainer()
    with Machines() as place:
        _, nobody = place.trainer()
        address = nobody.address
    lost = machines.worker(sink, address)
    eventually(lambda: sink.transport.role.producer.unaware)
    machines.worker(sink, source)
    assert_once(told(pipeline.forever()), expected)
    lost.wait(LIMIT)


def test_end_of_the_data_is_not_lost_with_a_worker(machines, monkeypatch, expected):
    """All batches were handed out, and the worker that dies has the end; the data machine is there still."""
    made, swallowed = Worker.made, []

    def swallow(self, key, item, now):
        if item.kind is Kind.END_OF_DATA and not swallowed:
            swallowed.append(self)
        else:
            made(self, key, item, now)

    monkeypatch.setattr(Worker, "made", swallow)
    sinks = [ZMQSink("tcp://127.0.0.1:*")]
    machines.add(noise(), sinks[0])
    pipeline, source = machines.trainer(timeout=PATIENCE)
    workers = []
    for _ in range(2):
        sinks.append(ZMQSink(source.address, bind=False))
        workers.append(machines.add(ZMQSource(sinks[0].address), flips(), sinks[-1]))
    found = told(pipeline.dequeue(timeout=LIMIT) for _ in expected)
    eventually(lambda: swallowed and sinks[0].transport.role.finished)
    workers[[sink.transport.role for sink in sinks[1:]].index(swallowed[0])].stop()
    with pytest.raises(EndOfData):
        pipeline.dequeue(timeout=LIMIT)
    assert_once(found, expected)


# At most once


def test_at_most_once_loses_nothing_while_nothing_breaks(machines, expected):
    sink = ZMQSink("tcp://127.0.0.1:*", delivery="at-most-once")
    data = machines.add(noise(), sink)
    pipeline, source = machines.trainer(delivery="at-most-once", timeout=PATIENCE)
    worker = machines.add(
        ZMQSource(sink.address, delivery="at-most-once", timeout=None),
        flips(),
        ZMQSink(source.address, bind=False, delivery="at-most-once"),
    )
    found = told(pipeline.dequeue(timeout=LIMIT) for _ in range(EPOCHS * BATCHES))
    assert_once(found, expected)
    for call in (list, lambda pipeline: list(pipeline.epoch()), Pipeline.dequeue):
        with pytest.raises(
            EndOfData, match=f"all batches were delivered, {EPOCHS * BATCHES} of epochs 0 to 1. For"
        ):
            call(pipeline)
    data.wait(LIMIT)
    assert pipeline.errors == []
    assert pipeline.stats().skipped_batches == 0
    worker.drain(LIMIT)


def test_at_most_once_is_done_where_the_training_machine_went_first(machines):
    gone = threading.Event()

    class Held(Source):
        """Ends only when the training machine is gone."""

        def tasks(self):
            yield 0
            assert gone.wait(LIMIT)

        def load(self, task):
            return Batch({"images": np.zeros((1, 4, 4, 3), np.uint8), "labels": np.zeros(1, np.int64)})

    pipeline, source = machines.trainer(delivery="msgpack-numpy")
    data = machines.add(Held(workers=1), ZMQSink(source.address, bind=False, delivery="msgpack-numpy"))
    pipeline.dequeue(timeout=LIMIT)
    pipeline.stop()
    gone.set()
    # Half of what it would wait for somebody to come back.
    with within(15):
        data.wait(LIMIT)


def test_at_most_once_without_anybody_ends_with_an_error(machines):
    pipeline, _ = machines.trainer(delivery="at-most-once", timeout=0.2)
    with pytest.raises(PeerLostError):
        pipeline.dequeue(timeout=LIMIT)


def test_at_most_once_counts_what_is_lost(machines):
    """A worker dies with what it holds."""
    sink = ZMQSink("tcp://127.0.0.1:*", delivery="at-most-once", window=1)
    # So large that the buffers of the system do not hold a whole epoch.
    shape = 120, 120
    machines.add(noise(400, shape=shape), sink)
    pipeline, source = machines.trainer(delivery="at-most-once", timeout=PATIENCE)
    gate = Gate()
    lazy = machines.add(
        ZMQSource(sink.address, delivery="at-most-once", window=1),
        gate,
        ZMQSink(source.address, bind=False, delivery="at-most-once"),
    )
    assert gate.entered.wait(LIMIT)
    lazy.stop()
    machines.add(
        ZMQSource(sink.address, delivery="at-most-once", window=1),
        Pass(),
        ZMQSink(source.address, bind=False, delivery="at-most-once"),
    )
    found = [key_of(batch) for batch in pipeline.forever()]
    everything = set(undisturbed(noise(400, shape=shape)))
    count = Counter(found)
    assert set(count) < everything and max(count.values()) == 1
    lost = len(everything) - len(found)
    assert pipeline.errors[0] == ("batches", f"{lost} of {len(everything)} were lost")
    first = min(seq for epoch, seq, _ in everything - set(found) if epoch == 0)
    assert pipeline.errors[1][0] == "stream 0, epoch 0"
    assert pipeline.errors[1][1].endswith(f"the first is {first}")


def test_state_that_is_loaded_late_keeps_the_order(machines):
    """What came before the state was loaded, and is in the pipeline, is not taken for what comes after it."""
    sink = machines.data(SizedNumbers(40))
    source = ZMQSource(sink.address, ordered=True)
    gate = Gate()
    pipeline = machines.add(source, gate)
    assert gate.entered.wait(LIMIT)
    state = pipeline.state_dict()
    state.update(streams=[[2, []]], fingerprint=SizedNumbers(40).fingerprint())
    pipeline.load_state_dict(state)
    gate.gate.set()
    assert [batch.seq for batch in pipeline.forever()] == list(range(2, 40))


def test_state_can_be_loaded_after_a_batch_that_was_left_out_has_come(machines):
    sink = ZMQSink("tcp://127.0.0.1:*")
    machines.add(SizedNumbers(5), Drop(lambda number: number == 0), sink)
    pipeline, source = machines.trainer(sink.address, bind=False, ordered=True)
    eventually(lambda: source.transport.role.delivery.delivered > 0)
    pipeline.load_state_dict(pipeline.state_dict())
    assert [batch.seq for batch in pipeline.forever()] == [1, 2, 3, 4]


# The end


def stop_in_time(pipeline):
    with within(2):
        pipeline.stop()


def test_stop_while_nobody_is_there():
    for modules in (
        [ZMQSource("tcp://127.0.0.1:*", bind=True)],
        [ZMQSource("tcp://127.0.0.1:9")],
        [noise(), ZMQSink("tcp://127.0.0.1:*")],
        [noise(), ZMQSink("tcp://127.0.0.1:9", bind=False)],
        [ZMQSource("tcp://127.0.0.1:9"), flips(), ZMQSink("tcp://127.0.0.1:9", bind=False)],
        [ZMQSource("tcp://127.0.0.1:*", bind=True), flips(), ZMQSink("tcp://127.0.0.1:*")],
        [noise(), ZMQSink("tcp://127.0.0.1:9", bind=False, delivery="at-most-once")],
        [noise(), ZMQSink("tcp://127.0.0.1:*", delivery="msgpack-numpy")],
        [ZMQSource("tcp://127.0.0.1:*", bind=True, delivery="at-most-once")],
    ):
        stop_in_time(Pipeline(modules))


@pytest.mark.parametrize("order", ["data", "worker", "trainer"])
def test_stop_while_the_windows_are_full(machines, order):
    sink = ZMQSink("tcp://127.0.0.1:*", window=2)
    data = machines.add(noise(epochs=None), sink)
    pipeline, source = machines.trainer(window=2)
    worker = machines.worker(sink, source)
    transport = sink.transport
    eventually(
        lambda: any(len(link.in_flight) == link.window for link in transport.role.producer.links.values())
    )
    stop_in_time({"data": data, "worker": worker, "trainer": pipeline}[order])
    for each in (data, worker, pipeline):
        stop_in_time(each)


def test_stop_wakes_a_dequeue_and_a_wait(machines):
    data = machines.add(noise(), ZMQSink("tcp://127.0.0.1:*"))
    pipeline, _ = machines.trainer()
    waiting = [Task(pipeline.dequeue), Task(data.wait)]
    eventually(lambda: inspected(pipeline).queue.measures()["getting"] == 1)
    eventually(lambda: inspected(data).queue.measures()["getting"] == 1)
    for each in (pipeline, data):
        stop_in_time(each)
    for task in waiting:
        with pytest.raises(PipelineStateError):
            task.result()


def test_dropped_pipelines_end(machines):
    sink = ZMQSink("tcp://127.0.0.1:*")
    source = ZMQSource("tcp://127.0.0.1:*", bind=True)
    pipelines = [Pipeline([noise(epochs=None), sink]), Pipeline([source])]
    pipelines.append(Pipeline([ZMQSource(sink.address), flips(), ZMQSink(source.address, bind=False)]))
    pipelines[1].dequeue(timeout=LIMIT)
    references = [weakref.ref(pipeline) for pipeline in pipelines]
    pipelines.clear()
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


def test_wait_of_a_data_machine_that_nobody_calls(machines):
    data = machines.add(noise(), ZMQSink("tcp://127.0.0.1:*", drain_timeout=0.1))
    with pytest.raises(WaitTimeout):
        data.wait(0.3)


def test_undelivered_batches_are_counted(machines):
    sink = ZMQSink("tcp://127.0.0.1:*", drain_timeout=0.3)
    data = machines.add(SizedNumbers(3), sink)
    with Machines() as first:
        pipeline, _ = first.trainer(sink.address, bind=False, window=1)
        pipeline.dequeue(timeout=LIMIT)
        eventually(lambda: sink.transport.role.feed.all_requested)
    with pytest.raises(UndeliveredError, match=r"\d batches were not received"):
        data.drain(LIMIT)


@pytest.mark.parametrize("which", ["data", "worker"])
def test_drain_finishes_what_was_begun(machines, which):
    sink = ZMQSink("tcp://127.0.0.1:*")
    data = machines.add(noise(epochs=None), sink)
    pipeline, source = machines.trainer(timeout=PATIENCE)
    worker = machines.worker(sink, source)
    found = told([pipeline.dequeue(timeout=LIMIT)])
    drained = Task({"data": data, "worker": worker}[which].drain, LIMIT)

    def take():
        for batch in pipeline.forever():
            found.append((key_of(batch), digest(batch)))

    taken = Task(take)
    drained.result()
    if which == "data":
        with pytest.raises(PeerLostError):
            taken.result()
    else:
        machines.worker(sink, source)
        already = len(found)
        eventually(lambda: len(found) > already + 50 or not taken.is_alive())
        pipeline.stop()
        with pytest.raises(PipelineStateError):
            taken.result()
    keys = [key for key, _ in found]
    assert len(keys) == len(set(keys))
    # Nothing that was begun is missing: no gap before the last.
    if which == "data":
        assert sorted(key[:2] for key in keys) == [divmod(number, BATCHES) for number in range(len(keys))]


def test_a_worker_receives_in_one_thread_of_libzmq_and_sends_in_the_other(machines):
    source = ZMQSource("tcp://127.0.0.1:*", bind=True)
    machines.add(source)
    sink = ZMQSink(source.address, bind=False)
    machines.add(ZMQSource("tcp://127.0.0.1:9", timeout=None), sink)
    above, below = (end.socket.getsockopt(zmq.AFFINITY) for end in sink.transport.driver.ends)
    assert (above, below) == (2, 1)


def test_handing_out_the_last_batch_that_is_held_does_not_wake_the_thread_of_the_sockets(machines):
    """It looks again soon, as one was held."""
    gate = threading.Event()

    def one_alone(batch):
        assert batch.seq == 0 or gate.wait(LIMIT)
        return batch

    sink = ZMQSink("tcp://127.0.0.1:*")
    machines.add(noise(), Call(one_alone), sink)
    source = ZMQSource(sink.address)
    pipeline = machines.add(source)
    driver, wakers = source.transport.driver, []
    wake = driver.wake

    def counted():
        wakers.append(threading.current_thread())
        wake()

    driver.wake = counted
    pipeline.dequeue(timeout=LIMIT)
    gate.set()
    assert threading.current_thread() not in wakers


def test_bytes_under_way_to_a_paused_trainer_are_bounded(machines):
    """A megabyte a batch: windows of two, and the queues of three pipelines."""
    sink = ZMQSink("tcp://127.0.0.1:*", window=2)
    machines.add(noise(4096, None, shape=(128, 1024, 2), batch_size=4), sink)
    source = ZMQSource("tcp://127.0.0.1:*", bind=True, window=2, queue_size=1)
    pipeline = machines.add(source)
    worker_sink = ZMQSink(source.address, bind=False, window=2)
    machines.add(ZMQSource(sink.address, queue_size=1), Pass(workers=1, queue_size=1), worker_sink)
    pipeline.dequeue(timeout=LIMIT)
    transport = sink.transport
    seen = -1

    def settled():
        nonlocal seen
        before, seen = seen, transport.driver.sent_items
        return before == seen

    quiet = threading.Event()
    deadline = time.monotonic() + LIMIT
    while not settled():
        assert time.monotonic() < deadline
        quiet.wait(0.3)
    # 2 in flight to the trainer, 1 + 2 in its queue and in hand, 2 * 2 + 1 to the worker.
    assert len(transport.role.producer) <= 2 * (2 * 2 + 2) + 16
    assert len(worker_sink.transport.role.consumer.held) <= 2 * 2 + 1
    assert len(source.transport.role.consumer.held) <= 2 + 4
    assert seen <= 12


def test_stats_name_the_machines(machines, fast):
    sink = machines.data(noise(epochs=None))
    pipeline, source = machines.trainer()
    machines.worker(sink, source)
    pipeline.dequeue(timeout=LIMIT)

    def roles():
        return [machine.role for machine in pipeline.stats().machines]

    for _ in range(2000):
        pipeline.dequeue(timeout=LIMIT)
        if roles() == ["data", "worker"]:
            break
    assert roles() == ["data", "worker"]


def test_stats_leave_out_machines_that_went(machines, fast):
    sink = machines.data(noise(epochs=None))
    pipeline, source = machines.trainer()
    workers = [machines.worker(sink, source) for _ in range(2)]

    def count():
        pipeline.dequeue(timeout=LIMIT)
        return [machine.role for machine in pipeline.stats().machines].count("worker")

    eventually(lambda: count() == 2)
    workers[0].stop()
    eventually(lambda: count() == 1)
