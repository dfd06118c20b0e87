"""Machines that make batches in another way, or speak another wire format, are found and named."""

import pytest
import zmq
from concurrency import LIMIT, eventually
from machines import Machines, assert_once, flips, noise, told, undisturbed
from pictures import class_folders

from highway.errors import PeerLostError, StateMismatchError
from highway.modules import Augmentations, ImageFileReader, Map, ZMQSink, ZMQSource
from highway.network import definitions
from highway.network.definitions import definition_of
from highway.transforms import FlipX, Letterbox, Stretch


@pytest.fixture
def machines():
    with Machines() as stack:
        yield stack


def unchanged(batch):
    return batch


def all_of(source):
    """The number of batches; both workers take part, since each gets at most one at a time."""
    return sum(1 for _ in source.forever())


# Other than `flips()` in one thing
OTHERS = {
    "transform": lambda: [Augmentations([FlipX(1.0)], seed=7)],
    "seed": lambda: [Augmentations([FlipX()], seed=8)],
    "another stage": lambda: [flips(), Map(unchanged)],
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("delivery", ["exactly-once", "at-most-once"])
def test_workers_that_differ_are_named(machines, other, delivery):
    given = {"delivery": delivery}
    sink = machines.data(noise(epochs=50), window=1, **given)
    pipeline, source = machines.trainer(**given)
    for stages in ([flips()], OTHERS[other]()):
        above = ZMQSource(sink.address, window=1, **given)
        machines.add(above, *stages, ZMQSink(source.address, bind=False, **given))
    with pytest.raises(
        StateMismatchError, match="was made in another way than the batches before it"
    ) as caught:
        all_of(pipeline)
    if delivery == "exactly-once":
        for stages in ([flips()], OTHERS[other]()):
            assert f"with [{', '.join(map(repr, stages))}]" in str(caught.value)


def test_version_of_a_worker(machines, monkeypatch):
    sink = machines.data(noise(epochs=50), window=1)
    pipeline, source = machines.trainer()
    machines.worker(sink, source)
    monkeypatch.setattr(definitions, "version", lambda: "0.0.0")
    machines.worker(sink, source)
    with pytest.raises(StateMismatchError, match="the same modules, arguments, data and version of Highway"):
        all_of(pipeline)


def test_data_machines_that_fit_in_different_ways(machines, tmp_path):
    folder = class_folders(tmp_path / "pictures")
    sinks = [
        machines.data(
            ImageFileReader(folder, 2, (24, 32), seed=5, epochs=2, shard=(rank, 2), fit=fit),
            stream=(rank, 2),
        )
        for rank, fit in enumerate([Letterbox(), Stretch()])
    ]
    pipeline, source = machines.trainer()
    machines.worker([sink.address for sink in sinks], source)
    with pytest.raises(StateMismatchError, match="the data machines behind worker"):
        all_of(pipeline)


def test_what_only_changes_the_speed_is_no_difference(machines):
    sink = machines.data(noise(), window=1)
    pipeline, source = machines.trainer()
    for workers in (1, 2):
        machines.worker(sink, source, Augmentations([FlipX()], seed=7, workers=workers, queue_size=workers))
    assert_once(told(pipeline.forever()), undisturbed())


def test_state_goes_on_with_other_transforms(machines):
    """A state is of the data; what is done with them may change between two runs, as in one process."""
    with Machines() as first:
        sink = first.data(noise())
        pipeline, source = first.trainer()
        first.worker(sink, source)
        pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
    sink = machines.data(noise())
    pipeline, source = machines.trainer()
    machines.worker(sink, source, Augmentations([FlipX(1.0)], seed=1))
    pipeline.load_state_dict(state)
    assert all_of(pipeline) == len(undisturbed()) - 1


def test_digest_is_the_same_in_every_process():
    """Functions and objects have addresses in their reprs, which differ."""
    one, other = ([Map(function)] for function in (unchanged, lambda batch: batch))
    source = ZMQSource("tcp://127.0.0.1:1")
    assert definition_of(source, one).digest != definition_of(source, other).digest
    objects = [[Map(type("Function", (), {"__call__": unchanged})())] for _ in range(2)]
    assert definition_of(source, objects[0]).digest == definition_of(source, objects[1]).digest


def test_trainer_names_a_peer_of_another_wire_format(machines):
    pipeline, source = machines.trainer(timeout=2)
    driver = source.transport.driver
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        dealer.connect(source.address)
        dealer.send(b"HWY\x01\x90")
        eventually(lambda: driver.malformed)
        with pytest.raises(
            PeerLostError, match=r"a peer from 127\.0\.0\.1 .* speaks version 1 of the wire format"
        ):
            pipeline.dequeue(timeout=LIMIT)
