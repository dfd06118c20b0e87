"""Epochs of different numbers of batches: what an iteration yields, lengths, states, skips, and the network."""

import numpy as np
import pytest
from concurrency import LIMIT
from small_modules import Numbers

from highway import replay
from highway.batch import Batch
from highway.engine import Pipeline, Source
from highway.errors import ArgumentError, EmptyEpochError, EndOfData, StateMismatchError, UnknownLengthError
from highway.modules import ArrayReader, DatasetReader, Rebatch, ZMQSink, ZMQSource
from highway.network.protocol.delivery import Feed
from highway.network.protocol.messages import Cursor, Kind, Progress
from highway.sampling import schedule

VALUES = np.arange(23)
SIZES = schedule({0: 5, 1: 4, 3: 23, 4: 2})
COUNTS = [5, 6, 6, 1, 12, 12]
"""Batches of the first epochs."""
EPOCHS = len(COUNTS)


def reader(batch_size=SIZES, **options):
    return ArrayReader(x=VALUES, **{"batch_size": batch_size, "epochs": EPOCHS, "seed": 7, **options})


def samples(batches):
    return [index for batch in batches for index in batch.indices.tolist()]


@pytest.fixture(scope="module")
def orders():
    """The samples of each epoch, in their order."""
    with Pipeline([reader(23)]) as pipeline:
        return [samples(pipeline) for _ in range(EPOCHS)]


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_a_for_yields_the_batches_of_its_epoch(orders, workers):
    with Pipeline([reader(workers=workers)]) as pipeline:
        for epoch, count in enumerate(COUNTS):
            assert len(pipeline) == len(iter(pipeline)) == pipeline.batches_in(epoch) == count
            found = []
            for batch in pipeline:
                assert len(pipeline) == count
                found.append(batch)
            assert [(batch.epoch, batch.seq) for batch in found] == [(epoch, seq) for seq in range(count)]
            assert samples(found) == orders[epoch]
        # After the last epoch, that of it.
        assert len(pipeline) == COUNTS[-1]
        with pytest.raises(EndOfData, match="all batches were delivered, 42 of epochs 0 to 5"):
            next(iter(pipeline))


def test_len_follows_what_is_used():
    with Pipeline([reader()]) as pipeline:
        for _ in pipeline.epoch(3):
            assert len(pipeline) == COUNTS[3]
        assert len(pipeline) == COUNTS[4]
        for batch in pipeline.epoch(0):
            assert (batch.epoch, len(pipeline)) == (0, COUNTS[0])
            break
        assert len(pipeline) == COUNTS[1]
        state = pipeline.state_dict()
    for begun in (None, 0, 1):
        with Pipeline([reader()]) as pipeline:
            if begun == 0:
                list(pipeline)
            elif begun == 1:
                pipeline.load_state_dict(state)
            # Before each batch, the epoch that it is of.
            for epoch, count in enumerate(COUNTS):
                for _ in range(count):
                    if pipeline.state_dict()["epoch"] != epoch:
                        break
                    assert len(pipeline) == count
                    assert pipeline.dequeue(timeout=LIMIT).epoch == epoch
            with pytest.raises(EndOfData):
                pipeline.dequeue()


def test_any_epoch_is_reached_from_any_other(orders):
    random = np.random.default_rng(1)
    with Pipeline([reader()]) as pipeline:
        for _ in range(30):
            epoch = int(random.integers(EPOCHS))
            iteration = pipeline.epoch(epoch)
            assert len(iteration) == COUNTS[epoch]
            taken = int(random.integers(COUNTS[epoch] + 1))
            found = samples(batch for _, batch in zip(range(taken), iteration, strict=False))
            assert found == orders[epoch][: taken * SIZES.at(epoch)]
        list(pipeline.epoch(0))
        for _ in range(2):
            pipeline.dequeue(timeout=LIMIT)
        # The rest of epoch 1 is dropped.
        assert samples(pipeline) == orders[2]


def test_forever_and_the_end():
    with Pipeline([reader()]) as pipeline:
        assert [(batch.epoch, batch.seq) for batch in pipeline.forever()] == [
            (epoch, seq) for epoch, count in enumerate(COUNTS) for seq in range(count)
        ]


def test_any_place_resumes_with_any_schedule(orders):
    random = np.random.default_rng(2)
    others = [SIZES, 6, schedule({0: 1, 2: 9}), schedule({0: 23, 5: 3})]
    with Pipeline([reader()]) as saving:
        states = [saving.state_dict()]
        for _ in saving.forever():
            states.append(saving.state_dict())
    for _ in range(40):
        number = int(random.integers(sum(COUNTS)))
        sizes = others[int(random.integers(len(others)))]
        with Pipeline([reader(sizes)]) as pipeline:
            pipeline.load_state_dict(states[number])
            epoch, position = states[number]["epoch"], states[number]["position"]
            iteration = iter(pipeline)
            left = len(iteration)
            rest = [*iteration]
            assert len(rest) == left
            assert samples(rest) == orders[epoch][position:]
            if epoch + 1 < EPOCHS:
                assert len(pipeline) == pipeline.batches_in(epoch + 1)
                assert samples(pipeline) == orders[epoch + 1]


def test_steps_are_skipped_in_the_epoch_that_has_them(orders):
    with Pipeline([reader()]) as pipeline:
        pipeline.skip(steps=[4, (1, 5), (4, 11)])
        with pytest.raises(ArgumentError, match="step is 5; expected a whole number from 0 to 4"):
            pipeline.skip(steps=[5])
        with pytest.raises(ArgumentError, match="step is 1; expected a whole number from 0 to 0"):
            pipeline.skip(steps=[(3, 1)])
        found = [[*pipeline] for _ in range(2)]
        with pytest.raises(
            ArgumentError, match="step 5 of epoch 1 was delivered already; expected step 0 of epoch 2"
        ):
            pipeline.skip(steps=[(1, 5)])
        state = pipeline.state_dict()
        found += [[*pipeline] for _ in range(4)]
    assert [len(batches) for batches in found] == [4, 5, 6, 1, 11, 12]
    assert samples(found[1]) == orders[1][:20]
    with Pipeline([reader()]) as pipeline:
        pipeline.load_state_dict(state)
        assert [len([*pipeline]) for _ in range(4)] == [6, 1, 11, 12]
    with (
        Pipeline([reader(5)]) as pipeline,
        pytest.raises(StateMismatchError, match="the state skips steps of"),
    ):
        pipeline.load_state_dict(state)
    assert samples([replay.batch([reader()], state, epoch=3, step=0)]) == orders[3]


def test_an_epoch_whose_only_batch_is_skipped():
    with Pipeline([reader()]) as pipeline:
        pipeline.skip(steps=[(3, 0)])
        for count in COUNTS[:3]:
            assert len([*pipeline]) == count
        with pytest.raises(EmptyEpochError, match="all 1 batches of epoch 3 were skipped"):
            next(iter(pipeline))
        assert len([*pipeline]) == COUNTS[4]


def test_endless_data_go_on_after_epochs_whose_steps_were_skipped():
    """The user wants no batch of them, so that it is no mistake that there is none."""
    with Pipeline([reader(epochs=None)]) as pipeline:
        pipeline.skip(steps=[(epoch, seq) for epoch in (0, 2, 3) for seq in range(COUNTS[epoch])])
        assert [pipeline.dequeue(timeout=LIMIT).epoch for _ in range(7)] == [1] * 6 + [4]
        pipeline.skip(steps=[(5, seq) for seq in range(COUNTS[5] - 1)])
        batches = pipeline.forever()
        found = [(batch.epoch, batch.seq) for batch, _ in zip(batches, range(13), strict=False)]
        assert found[-2:] == [(5, COUNTS[5] - 1), (6, 0)]


def test_the_rest_of_an_epoch_that_was_skipped_leads_to_the_next_one(orders):
    with Pipeline([reader()]) as pipeline:
        pipeline.skip(steps=[(2, 5)])
        for _ in range(sum(COUNTS[:2]) + 5):
            pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
    with Pipeline([reader()]) as pipeline:
        pipeline.load_state_dict(state)
        found = [*pipeline]
        assert [batch.epoch for batch in found] == [3]
        assert samples(found) == orders[3]


def test_the_same_over_the_network(orders):
    for delivery in ("exactly-once", "at-most-once"):
        with (
            Pipeline([reader(), ZMQSink("tcp://127.0.0.1:*", delivery=delivery)]) as sending,
            Pipeline([ZMQSource(sending.modules[-1].address, delivery=delivery)]) as receiving,
        ):
            for epoch, count in enumerate(COUNTS):
                found = [*receiving]
                assert sorted((batch.epoch, batch.seq) for batch in found) == [
                    (epoch, seq) for seq in range(count)
                ]
                assert sorted(samples(found)) == sorted(orders[epoch])
            sending.wait(LIMIT)


def test_a_feed_goes_through_epochs_of_their_lengths():
    feed = Feed(0, reader())
    found = []
    while (wanted := feed.next(1000)) is not None:
        if wanted.kind is Kind.BATCH and wanted.position == sum(COUNTS):
            feed.end(sum(COUNTS))
            continue
        found.append(wanted)
    numbers = [wanted.position for wanted in found if wanted.kind is Kind.BATCH]
    assert numbers == [*range(sum(COUNTS))]
    ends = [(wanted.key.epoch, wanted.key.seq) for wanted in found if wanted.kind is Kind.END_OF_EPOCH]
    assert ends == [*enumerate(COUNTS)]
    feed.seek(Cursor(1, 3, (Progress(1),)))
    assert feed.next(1).kind is Kind.END_OF_EPOCH
    assert feed.counted(Cursor(1, 3, (Progress(1),))) == 18
    feed.update(Cursor(1, EPOCHS, (Progress(0),)))
    assert feed.finished


def test_a_state_of_regrouped_batches_needs_the_ranks_of_its_epoch():
    def modules(sizes, rank=0):
        return [reader(sizes, shard=(rank, 2)), Rebatch(3)]

    with Pipeline(modules(SIZES)) as pipeline:
        first = [batch.indices.tolist() for batch in pipeline]
        next(iter(pipeline))
        state = pipeline.state_dict()
        rest = [batch.indices.tolist() for batch in pipeline.forever()]
    assert len(first) == 4
    with Pipeline(modules(schedule({0: 2, 1: 4, 3: 23, 4: 2}))) as pipeline:
        pipeline.load_state_dict(state)
        assert [batch.indices.tolist() for batch in pipeline.forever()] == rest
    # As many batches in the first epoch, but not in that of the state.
    with (
        Pipeline(modules(schedule({0: 5, 1: 2}))) as pipeline,
        pytest.raises(
            StateMismatchError, match=r"with 3 batches of the reader in an epoch, this pipeline has .* and 6"
        ),
    ):
        pipeline.load_state_dict(state)


@pytest.mark.parametrize("processes", [0, 1])
def test_a_data_set_in_batches_of_all_sizes(processes):
    data = DatasetReader(range(20), schedule({0: 3, 1: 20, 2: 7}), epochs=3, processes=processes)
    with Pipeline([data]) as pipeline:
        for count in (7, 1, 3):
            found = [*pipeline]
            assert len(found) == count
            assert samples(found) == [number for batch in found for number in batch[0].tolist()]
            assert sorted(samples(found)) == [*range(20)]
    with pytest.raises(
        ArgumentError, match=r"DatasetReader: batch_size is schedule\(.*; expected a whole number"
    ):
        DatasetReader(iter(range(20)), schedule({0: 3, 1: 20}), shuffle=False, epochs=1)


class Triangle(Source):
    """A source of one's own: epoch n has n + 1 batches."""

    epochs = 4
    epochs_alike = False

    def __len__(self):
        return 1

    def batches_in(self, epoch):
        return epoch + 1

    def number_of(self, epoch, seq=0):
        return epoch * (epoch + 1) // 2 + seq

    def batch_at(self, number):
        epoch = 0
        while self.number_of(epoch + 1) <= number:
            epoch += 1
        return epoch, number - self.number_of(epoch)

    def tasks(self):
        return iter(range(self.number_of(self.epochs)))

    def load(self, task):
        return Batch({"number": np.array([task])})


def test_a_source_of_ones_own():
    with Pipeline([Triangle()]) as pipeline:
        assert [[batch["number"].tolist() for batch in pipeline] for _ in range(4)] == [
            [[0]],
            [[1], [2]],
            [[3], [4], [5]],
            [[6], [7], [8], [9]],
        ]
    with pytest.raises(
        ArgumentError, match="ordered is False, and the epochs of Triangle have different numbers"
    ):
        Pipeline([Triangle()], ordered=False)


def test_numbers_of_batches_that_nobody_knows():
    with Pipeline([Numbers()]) as pipeline, pytest.raises(UnknownLengthError, match="Numbers does not know"):
        pipeline.batches_in(1)
    with Pipeline([reader()]) as pipeline:
        assert pipeline.batches_in(2**32 - 1) == 12
        for bad in (-1, 2**32, 1.5):
            with pytest.raises(ArgumentError, match=r"Pipeline\.batches_in: epoch is"):
                pipeline.batches_in(bad)
