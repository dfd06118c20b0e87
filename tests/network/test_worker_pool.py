"""One worker for many ranks: each has its own stream, batches and end, and none holds up another."""

from __future__ import annotations

import pickle

import pytest
from concurrency import LIMIT, Task, eventually
from machines import FAST, Proxy, digest, nothing_left
from pictures import class_folders
from rank_pools import Gate, Ranks, arrays, local, photographs, told

from highway.engine import Pipeline
from highway.errors import (
    ArgumentError,
    PeerLostError,
    PipelineStateError,
    RemoteError,
    SecurityError,
    TooManyErrors,
)
from highway.network import Remote, worker_pipeline, worker_pool
from highway.network import exactly_once as exact
from highway.network.definitions import Definition
from highway.network.pool import PoolSink, PoolSource, PoolTransport
from highway.network.protocol.messages import Data, Item, Key, Kind


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return class_folders(tmp_path_factory.mktemp("photographs"), each=8)


@pytest.mark.parametrize(("world", "workers"), [(2, 1), (4, 2)])
def test_the_batches_of_local_ranks(folder, world, workers):
    def make(shard):
        return photographs(folder, shard)

    with nothing_left(), Ranks(make, world) as ranks:
        pools = [ranks.pool() for _ in range(workers)]
        tasks = [Task(lambda one: told(one.forever()), pipeline) for pipeline in ranks.pipelines]
        for rank, task in enumerate(tasks):
            assert task.result() == local(make((rank, world)))
        ranks.stop()
        for pool in pools:
            pool.wait(LIMIT)
            assert pool.ranks == ()


@pytest.fixture
def gate():
    Gate.opened.clear()
    yield Gate.opened
    Gate.opened.set()


@pytest.fixture
def fast(monkeypatch):
    """Deaths are noticed after a second."""
    monkeypatch.setattr(exact, "TIMING", FAST)


def test_a_slow_rank_holds_up_nobody(gate):
    def make(shard):
        return arrays(shard, gated=True)

    with nothing_left(), Ranks(make, window=1) as ranks, Proxy(ranks.remotes[0].addresses[1]) as proxy:
        slow, other = ranks.pipelines
        pool = ranks.pool(
            [(ranks.remotes[0].addresses[0], proxy.address), ranks.remotes[1].addresses], window=2
        )
        transport = pool.pipeline.modules[-1].transport
        held = transport._served[0].transport.role
        eventually(lambda: held.producer.links and len(transport._begun) > 8)
        # From here on the rank sends tasks, and takes no batch.
        proxy.hold("up", "down")
        gate.set()
        expected = local(make((1, 2)))
        assert told(other.forever()) == expected
        assert held.producer.links, "the rank counts as dead; it should be slow"
        assert held.producer.unsent >= 4
        proxy.hold()
        assert told(slow.forever()) == local(make((0, 2)))


class Waiting:
    """A rank with so many tasks."""

    def __init__(self, count):
        self.tasks = [
            Data(b"", b"", 0, Key(0, seq, 0), 1, "", Item(Kind.BATCH, [], ())) for seq in range(count)
        ]

    def take(self):
        return (self.tasks.pop(0), b"") if self.tasks else None


def test_turns():
    transport = PoolTransport("PoolSink", 1, lambda: None, Definition("", ""), None, 0.0, False)
    many, few, late = Waiting(6), Waiting(2), Waiting(2)
    transport._served = (many, few)
    order = [transport._pick().rank for _ in range(5)]
    assert order == [many, few, many, few, many]
    transport._served = (many, few, late)
    assert [transport._pick().rank for _ in range(5)] == [late, many, late, many, many]
    assert transport._pick() is None


def test_one_rank_stops_early_and_another_joins(folder):
    def make(shard):
        return photographs(folder, shard)

    with nothing_left(), Ranks(make, 2) as ranks:
        pool = ranks.pool()
        ranks.pipelines[0].dequeue()
        ranks.pipelines[0].stop()
        eventually(lambda: pool.ranks == (ranks.remotes[1].addresses,))
        third = ranks.rank(make((0, 2)))
        pool.join(*ranks.remotes[2].addresses)
        assert told(third.forever()) == local(make((0, 2)))
        assert told(ranks.pipelines[1].forever()) == local(make((1, 2)))
        ranks.stop()
        pool.wait(LIMIT)
        with pytest.raises(PipelineStateError, match="the pool has ended"):
            pool.join("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556")


def test_a_rank_leaves_for_another_pool(folder):
    def make(shard):
        return photographs(folder, shard)

    with nothing_left(), Ranks(make) as ranks:
        pool = ranks.pool()
        leaving, staying = (remote.addresses for remote in ranks.remotes)
        found = [digest(ranks.pipelines[0].dequeue())]
        pool.leave(*leaving)
        eventually(lambda: pool.ranks == (staying,))
        ranks.pool([leaving])
        assert [*found, *told(ranks.pipelines[0].forever())] == local(make((0, 2)))
        assert told(ranks.pipelines[1].forever()) == local(make((1, 2)))
        with pytest.raises(ArgumentError, match="is not served"):
            pool.leave(*leaving)


def test_a_rank_has_workers_of_both_kinds(gate):
    def make(shard):
        return arrays(shard, gated=True)

    with nothing_left(), Ranks(make) as ranks:
        pool = ranks.pool(window=1)
        begun = pool.pipeline.modules[-1].transport._begun
        alone = ranks.enter_context(worker_pipeline(make((0, 2)), *ranks.remotes[0].addresses))
        source = alone.modules[0].transport
        first = ranks.remotes[0].addresses
        # The window of the pool leaves tasks for the other worker.
        eventually(lambda: any(one.rank.addresses == first for one in begun.values()))
        eventually(source.unfinished)
        gate.set()
        for rank, pipeline in enumerate(ranks.pipelines):
            assert told(pipeline.forever()) == local(make((rank, 2)))


def test_a_lasting_pool_waits_for_ranks():
    with nothing_left(), worker_pool(arrays(), lasting=True) as pool:
        for _ in range(2):
            with Pipeline(arrays(), on=(remote := Remote())) as pipeline:
                pool.join(*remote.addresses)
                assert told(pipeline.forever()) == local(arrays())
            eventually(lambda: not pool.ranks)
        pool.drain(LIMIT)


def test_another_definition_is_refused_for_its_rank_alone():
    with nothing_left(), Ranks(arrays) as ranks:
        other = ranks.rank(arrays(size=396))
        ranks.pool()
        with pytest.raises(RemoteError, match="another definition"):
            other.dequeue()
        for rank, pipeline in enumerate(ranks.pipelines[:2]):
            assert told(pipeline.forever()) == local(arrays((rank, 2)))


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_bad_samples_are_known_to_their_rank(tmp_path, on_error):
    root = class_folders(tmp_path, each=8)
    for path in sorted(root.rglob("*.jpg"))[::5]:
        path.write_bytes(path.read_bytes()[:200])

    def make(shard):
        return photographs(root, shard, on_error=on_error)

    with nothing_left(), Ranks(make) as ranks:
        ranks.pool()
        # One after the other: the pool knows bad samples before the second rank meets them.
        for rank, pipeline in enumerate(ranks.pipelines):
            with Pipeline(make((rank, 2))) as one:
                expected, errors = told(one.forever()), one.errors
            assert told(pipeline.forever()) == expected
            assert sorted(pipeline.errors) == sorted(errors) and errors
            assert pipeline.stats().skipped_samples == one.stats().skipped_samples


def test_ranks_count_their_own_bad_samples(tmp_path):
    root = class_folders(tmp_path, each=8)
    for path in sorted(root.rglob("*.jpg"))[:8]:
        path.write_bytes(path.read_bytes()[:200])

    def make(shard):
        # Both have four bad samples, of eight.
        return photographs(root, shard, on_error="skip", max_errors=4, shuffle=False, epochs=1)

    with nothing_left(), Ranks(make) as ranks:
        ranks.pool()
        for rank, pipeline in enumerate(ranks.pipelines):
            assert told(pipeline.forever()) == local(make((rank, 2)))
            assert len(pipeline.errors) == 4
        limited = ranks.rank(
            photographs(root, (0, 2), on_error="skip", max_errors=3, shuffle=False, epochs=1)
        )
        ranks.pool([ranks.remotes[2].addresses])
        with pytest.raises(TooManyErrors, match="4 of 24 files are bad, more than max_errors=3"):
            told(limited.forever())


def test_draining_finishes_what_was_begun(gate):
    def make(shard):
        return arrays(shard, gated=True)

    with nothing_left(), Ranks(make) as ranks:
        pool = ranks.pool()
        transport = pool.pipeline.modules[-1].transport
        eventually(lambda: len(transport._begun) >= 8)
        draining = Task(pool.drain, LIMIT)
        eventually(lambda: transport._ending)
        gate.set()
        draining.result()
        assert transport.unfinished() == 0 and not pool.ranks
        ranks.pool()
        for rank, pipeline in enumerate(ranks.pipelines):
            assert told(pipeline.forever()) == local(make((rank, 2)))


def test_a_rank_that_never_comes_is_lost(fast):
    nobody = "tcp://127.0.0.1:9", "tcp://127.0.0.1:9"
    with nothing_left(), Ranks(arrays) as ranks:
        pool = ranks.pool([*(remote.addresses for remote in ranks.remotes), nobody], timeout=0.2)
        eventually(lambda: nobody not in pool.ranks)
        for rank, pipeline in enumerate(ranks.pipelines):
            assert told(pipeline.forever()) == local(arrays((rank, 2)))
        ranks.stop()
        with pytest.raises(PeerLostError, match=r"127\.0\.0\.1:9.*was not connected for 0\.2 s"):
            pool.wait(LIMIT)


def test_refused_arguments():
    pair = "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556"
    for ranks, match in (([], "lasting=True"), (["tcp://x:1"], "a pair"), ([(3, 4)], "a pair")):
        with pytest.raises(ArgumentError, match=match):
            worker_pool(arrays(), ranks)
    with nothing_left(), pytest.raises(ArgumentError, match="is served already"):
        worker_pool(arrays(), [pair, pair])
    with pytest.raises(SecurityError, match="secret"):
        worker_pool(arrays(), [("tcp://10.0.0.1:5555", pair[1])])


def test_specifications():
    pair = ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556")
    for module in (PoolSource(), PoolSink([pair], window=3), PoolSink(lasting=True)):
        assert pickle.loads(pickle.dumps(module)) == module
    assert PoolSink([pair], window=3) != PoolSink([pair])
    assert repr(PoolSink([pair])) == f"PoolSink([{pair!r}])"
