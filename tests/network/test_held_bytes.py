"""How much a training machine holds that takes its batches slowly: it is bounded by their bytes."""

import pytest
from concurrency import LIMIT, eventually
from machines import FAST, Machines, noise

from highway.modules import Augmentations
from highway.network import Load, Tasks
from highway.network import exactly_once as exact
from highway.network.protocol import roles
from highway.transforms import ToFloat

LIMIT_BYTES = 1 << 20
SHAPE = (64, 64)
# float32, of 4 pictures; an epoch is about as large as the limit.
BATCH_BYTES = 4 * 64 * 64 * 3 * 4


@pytest.fixture
def machines(monkeypatch):
    monkeypatch.setattr(exact, "TIMING", FAST)
    monkeypatch.setattr(roles, "HORIZON_BYTES", LIMIT_BYTES)
    with Machines() as stack:
        yield stack


def pictures(**arguments):
    return noise(size=20, epochs=40, shape=SHAPE, **arguments)


def held(source):
    """Bytes of the batches at the training machine that were not returned."""
    transport = source.transport
    with transport.driver.lock:
        delivery = transport.role.delivery
        waiting = [data for items in delivery._waiting.values() for data in items.values()]
        return sum(data.item.nbytes for data in [*delivery.released, *waiting])


# As batches, which a worker makes four times as large; and as tasks of some bytes.
MAKERS = {
    "floats": (pictures, lambda: [Augmentations([ToFloat()])]),
    "tasks": (lambda: Tasks(pictures()), lambda: [Load(pictures()), Augmentations([ToFloat()])]),
}


@pytest.mark.parametrize("made", MAKERS)
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("ordered", [True, False])
def test_bytes_at_the_training_machine_are_bounded(machines, made, workers, ordered):
    data, stages = MAKERS[made]
    sink = machines.data(data())
    pipeline, source = machines.trainer(ordered=ordered)
    for _ in range(workers):
        machines.worker(sink, source, *stages())
    most = 0
    role = sink.transport.role
    for _ in range(60):
        assert pipeline.dequeue(timeout=LIMIT).nbytes >= BATCH_BYTES
        most = max(most, held(source))
    # It has learned the size, and nobody takes anything more: whatever may come has come.
    eventually(lambda: role.horizon == max(LIMIT_BYTES // BATCH_BYTES, 2 + 2 * workers))
    eventually(lambda: role.producer.unsent == 0 and not role._making)
    most = max(most, held(source))
    # Those that went out before it had learned; and the few that are always allowed.
    assert most <= max(LIMIT_BYTES, roles.FIRST_HORIZON * BATCH_BYTES)
    assert len(list(pipeline.forever())) == 40 * 5 - 60
