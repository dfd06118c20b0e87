"""Token batches: no padded batch has more values than the limit; same groups on all ranks, at any place."""

import pickle
from collections import Counter

import numpy as np
import pytest
from concurrency import LIMIT as LIMIT_OF_WAITS

from highway import replay
from highway.engine import Pipeline
from highway.errors import ArgumentError, EmptyDatasetError, StateMismatchError
from highway.modules import Concat, DatasetReader, Filter, PadRagged, ZMQSink, ZMQSource
from highway.sampling import schedule, tokens

RNG = np.random.default_rng(8)
LENGTHS = np.minimum(np.exp(RNG.normal(3.5, 1.0, 400)).astype(int) + 1, 300)
LIMIT = 600


class Texts:
    """Sample i has its length many values i; samples in `bad` raise."""

    def __init__(self, bad=()):
        self.bad = set(bad)

    def __len__(self):
        return len(LENGTHS)

    def __getitem__(self, index):
        if index in self.bad:
            raise ValueError("bad text")
        return {"tokens": np.full(LENGTHS[index], index, np.int32)}


def reader(limit=LIMIT, *, bad=(), by=None, **options):
    by = tokens(limit, LENGTHS) if by is None else by
    return DatasetReader(Texts(bad), batch_by=by, **{"epochs": 2, "ragged": ["tokens"], **options})


def read(*modules, state=None):
    with Pipeline([*modules]) as pipeline:
        if state is not None:
            pipeline.load_state_dict(state)
        return list(pipeline.forever())


def padded_sizes(found):
    return [len(batch.indices) * LENGTHS[batch.indices].max() for batch in found]


@pytest.mark.parametrize("width", [1.02, 1.12, 2])
@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_no_padded_batch_is_above_the_limit(world, width):
    by = tokens(LIMIT, LENGTHS, width=width)
    ranks = [[*reader(by=by, shard=(rank, world)).order] for rank in range(world)]
    found = Counter()
    for step in zip(*ranks, strict=True):
        assert len({len(task.indices) for task in step}) == 1
        lengths = LENGTHS[np.concatenate([task.indices for task in step])]
        assert len(step[0].indices) * lengths.max() <= LIMIT
        # Whole numbers: the bounds of short ones are a value apart.
        assert lengths.max() <= max(width * lengths.min(), lengths.min())
        if step[0].epoch == 0:
            found.update(index for task in step for index in task.indices.tolist())
    assert set(found) == set(range(len(LENGTHS)))


def test_filters_do_not_join_batches_of_other_lengths():
    found = read(
        reader(), Filter(lambda sample: len(sample["tokens"]) % 3 > 0, refill=False), PadRagged("tokens")
    )
    assert max(batch["tokens"].size for batch in found) <= LIMIT
    with pytest.raises(ArgumentError, match=r"one group each.*refill=False"):
        read(reader(), Filter(lambda sample: True), PadRagged("tokens"))


def test_batches_have_few_values_that_are_padding():
    found = read(reader(epochs=1), PadRagged("tokens"))
    sizes = [batch["tokens"].size for batch in found]
    assert sizes == padded_sizes(found)
    assert max(sizes) <= LIMIT
    assert LENGTHS.sum() > 0.93 * sum(sizes)
    by_number = read(DatasetReader(Texts(), len(LENGTHS) // len(found), epochs=1, ragged=["tokens"]))
    assert sum(sizes) < 0.6 * sum(padded_sizes(by_number))
    # One sample more would be above the limit, except in the last batch of a group.
    full = [
        batch for batch in found if padded_sizes([batch])[0] + LENGTHS[batch.indices].max() > LIMIT / 1.12
    ]
    assert len(found) - len(full) <= np.count_nonzero(reader().order.group_counts)


@pytest.mark.parametrize("seed", range(4))
def test_resuming_with_other_limits_and_worlds(seed):
    rng = np.random.default_rng(seed)
    for _ in range(25):
        limit = int(rng.integers(300, 2000))
        source = reader(limit, seed=seed, epochs=1)
        stop = int(rng.integers(0, len(source)))
        had = [source.order.indices(0, seq) for seq in range(stop)]
        state = source.state_at(stop)
        limit = int(rng.integers(300, 2000))
        rest = reader(limit, seed=seed, epochs=1)
        rest.seek(rest.find(state))
        left = [task.indices for task in rest.tasks()]
        assert sorted(np.concatenate([*had, *left]).tolist()) == list(range(len(LENGTHS)))
        assert max(len(indices) * LENGTHS[indices].max() for indices in left) <= limit
        world = int(rng.choice([2, 3, 7]))
        shards = [reader(limit, seed=seed, epochs=1, shard=(rank, world)) for rank in range(world)]
        tasks = []
        for shard in shards:
            shard.seek(shard.find(state))
            tasks.append([task.indices for task in shard.tasks()])
        every = set()
        for step in zip(*tasks, strict=True):
            assert len({len(indices) for indices in step}) == 1
            every.update(np.concatenate(step).tolist())
        # And those that fill the last places of the ranks.
        assert every >= set(np.concatenate([[], *left]).tolist())
        assert len(every) < sum(map(len, left)) + world * len(source.order.grouping.batch_sizes)


def test_a_pipeline_resumes_where_it_was():
    whole = read(reader())
    for stop in (0, 1, 7, len(whole) // 2, len(whole) - 1):
        with Pipeline([reader()]) as pipeline:
            for _ in range(stop):
                pipeline.dequeue()
            state = pipeline.state_dict()
        rest = read(reader(), state=state)
        assert [batch.indices.tolist() for batch in rest] == [
            batch.indices.tolist() for batch in whole[stop:]
        ]
        assert [batch.seq for batch in rest] == [batch.seq for batch in whole[stop:]]


def test_states_of_other_lengths_are_refused():
    state = reader().state_at(3)
    other = tokens(LIMIT, LENGTHS[::-1])
    with pytest.raises(StateMismatchError, match=r"has groups .* and in what groups"):
        reader(by=other).find(state)
    with pytest.raises(StateMismatchError, match="has groups"):
        DatasetReader(Texts(), 4, epochs=2, ragged=["tokens"]).find(state)
    for done in ([], [1] * len(state["done"]), None):
        with pytest.raises(StateMismatchError, match="has done"):
            reader().find({**state, "done": done})


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_any_number_of_threads(workers):
    one, many = read(reader(epochs=1, workers=1)), read(reader(epochs=1, workers=workers))
    for expected, found in zip(one, many, strict=True):
        assert np.array_equal(expected.indices, found.indices)
        assert np.array_equal(expected["tokens"], found["tokens"])
        assert np.array_equal(expected.offsets_of("tokens"), found.offsets_of("tokens"))


def test_the_same_over_a_network():
    sink = ZMQSink("tcp://127.0.0.1:*")
    with Pipeline([reader(epochs=1), sink]) as sending, Pipeline([ZMQSource(sink.address)]) as receiving:
        found = [*receiving]
        sending.wait(LIMIT_OF_WAITS)
    for expected, batch in zip(read(reader(epochs=1)), found, strict=True):
        assert np.array_equal(expected.indices, batch.indices) and expected.seq == batch.seq
        assert np.array_equal(expected["tokens"], batch["tokens"])


def test_replay_and_skip():
    whole = read(reader())
    length = len(whole) // 2
    again = replay.batch([reader()], epoch=1, step=3)
    assert np.array_equal(again.indices, whole[length + 3].indices)
    assert np.array_equal(again["tokens"], whole[length + 3]["tokens"])
    with Pipeline([reader()]) as pipeline:
        pipeline.dequeue()
        gone = int(whole[4].indices[0])
        pipeline.skip(samples=[gone], steps=[2])
        rest = list(pipeline.forever())
    expected = [batch.indices[batch.indices != gone].tolist() for batch in [*whole[1:2], *whole[3:]]]
    assert [batch.indices.tolist() for batch in rest] == [each for each in expected if each]


def test_replacements_are_not_longer():
    # The longest one is alone in its group.
    bad = [int(np.argmax(LENGTHS)), *range(0, 400, 40)]
    found = read(reader(bad=bad, on_error="replace", epochs=3))
    assert max(padded_sizes(found)) <= LIMIT
    assert not set(np.concatenate([batch.indices for batch in found]).tolist()) & set(bad)
    assert [len(batch.indices) for batch in found] == [len(task.indices) for task in reader(epochs=3).order]


def test_groups_of_bad_samples_alone():
    lengths = LENGTHS.tolist()
    shortest = [index for index, length in enumerate(lengths) if length == min(lengths)]
    with pytest.raises(EmptyDatasetError, match="none is left"):
        read(reader(bad=shortest, on_error="replace", epochs=1))
    found = read(reader(bad=shortest, on_error="skip", epochs=1))
    assert sorted(index for batch in found for index in batch.indices) == [
        index for index in range(len(LENGTHS)) if index not in shortest
    ]


def test_pickling_and_repr():
    source = reader()
    again = pickle.loads(pickle.dumps(source))
    assert repr(again) == repr(source) and "tokens(600, <lengths of 400 samples>, width=1.12)" in repr(source)
    assert again.fingerprint() == source.fingerprint() != reader(700).fingerprint()
    assert again.samples_fingerprint() == source.samples_fingerprint() == reader(700).samples_fingerprint()
    assert tokens(5, [1, 2]) == tokens(5, [1, 2]) != tokens(5, [2, 1])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: tokens(10, [3, 11, 12]), r"lengths\[1\] is 11, as are 1 others .* 0 to the limit, 10"),
        (lambda: tokens(10, [3, -1]), r"lengths\[1\] is -1"),
        (lambda: tokens(10, [3.0]), "expected one whole number for each sample"),
        (lambda: tokens(10, []), "expected one whole number for each sample"),
        (lambda: tokens(10, [[1], [2, 3]]), "expected one whole number for each sample"),
        (lambda: tokens(0, [1]), "limit is 0"),
        (lambda: tokens(10, [1], width=1.0), "width is 1"),
        (lambda: reader(by=tokens(10, [1, 2])), "batch_by has 2 lengths; expected 400"),
        (lambda: reader(by=600), "batch_by is 600; expected what highway.sampling.tokens"),
        (lambda: DatasetReader(Texts()), "batch_size is missing"),
        (lambda: reader(batch_size=schedule({0: 2, 1: 3})), "and batch_by is given too"),
        (
            lambda: DatasetReader(iter([1]), batch_by=tokens(4, [1]), shuffle=False),
            "batch_by .* with an iterable",
        ),
        (lambda: reader(weights=np.ones(400)), "weights is given, and batches have samples of one group"),
        (lambda: reader(max_samples=30), "max_samples is given, and batches have samples of one group"),
        (lambda: Concat([reader(epochs=None)]), r"sources\[0\] has batches of one group each"),
    ],
)
def test_refused(make, text):
    with pytest.raises(ArgumentError, match=text):
        make()


def test_samples_without_values_and_a_sample_of_the_limit():
    lengths = [0, 0, 5, 0, 5]
    samples = [np.zeros(length, np.int32) for length in lengths]
    by = tokens(5, lengths)
    found = read(DatasetReader(samples, batch_by=by, shuffle=False, epochs=1, ragged=["inputs"]))
    assert [batch.indices.tolist() for batch in found] == [[0, 1, 3], [2], [4]]
