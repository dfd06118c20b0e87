"""Committed steps: what a failed rank had goes to the others, in any world."""

import json
import os
import pickle
import signal
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest
from concurrency import LIMIT
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import Machines, noise
from pictures import class_folders

import highway
from highway.engine import Pipeline
from highway.errors import PipelineStateError
from highway.modules import Augmentations, ImageFileReader, Noise, Rebatch, ZMQSink
from highway.network import Remote, worker_pipeline
from highway.transforms import FlipX

SIZE, EPOCHS = 101, 2


def reader(shard=(0, 1), batch_size=3, **arguments):
    return Noise(batch_size, 4, size=SIZE, epochs=EPOCHS, seed=5, shard=shard, workers=1, **arguments)


def samples(batch):
    return [(batch.epoch, index) for index in batch.indices.tolist()]


def test_state_is_of_the_last_commit():
    with Pipeline([reader()]) as pipeline:
        pipeline.dequeue()
        assert pipeline.state_dict()["position"] == 3
        pipeline.commit()
        pipeline.dequeue()
        state = pipeline.state_dict()
        assert state["position"] == 3
        # It is the user's.
        state["position"] = 0
        assert pipeline.state_dict()["position"] == 3
        with pickle.loads(pickle.dumps(pipeline)) as copy:
            assert copy.dequeue().seq == 1
        pipeline.commit()
        assert pipeline.state_dict()["position"] == 6
    assert pipeline.state_dict()["position"] == 6


def test_state_of_a_regrouping_stage_is_of_the_last_commit():
    with Pipeline([reader(), Rebatch(5)]) as pipeline:
        first = pipeline.dequeue()
        pipeline.commit()
        second = pipeline.dequeue()
        state = pipeline.state_dict()
    with Pipeline([reader(), Rebatch(5)]) as pipeline:
        pipeline.load_state_dict(state)
        assert samples(pipeline.dequeue()) == samples(second) != samples(first)


def test_loaded_state_is_committed():
    with Pipeline([reader()]) as pipeline:
        pipeline.dequeue()
        state = pipeline.state_dict()
        for _ in range(4):
            pipeline.dequeue()
        pipeline.commit()
        pipeline.load_state_dict(state)
        assert pipeline.state_dict() == state
        assert pipeline.dequeue().seq == 1
        assert pipeline.state_dict() == state


def test_commit_at_the_end_of_an_epoch_and_in_the_next():
    with Pipeline([reader(batch_size=SIZE)]) as pipeline:
        for _ in pipeline:
            pass
        pipeline.commit()
        for _ in pipeline:
            assert samples_left(pipeline.state_dict()) == [(1, index) for index in range(SIZE)]
        pipeline.commit()
        assert samples_left(pipeline.state_dict()) == []


def samples_left(state):
    with Pipeline([reader()]) as pipeline:
        pipeline.load_state_dict(state)
        return sorted(sample for batch in _all(pipeline) for sample in samples(batch))


def _all(pipeline):
    try:
        yield from pipeline.forever()
    except highway.errors.EndOfData:
        return


def test_skipped_samples_are_in_a_state_that_was_committed_before():
    with Pipeline([reader()]) as pipeline:
        pipeline.dequeue()
        pipeline.commit()
        left = samples_left(pipeline.state_dict())
        dropped = left[-1][1]
        pipeline.skip(samples=[dropped])
        assert pipeline.state_dict()["position"] == 3
        assert samples_left(pipeline.state_dict()) == [each for each in left if each[1] != dropped]


def test_commit_needs_a_state():
    with Pipeline([reader()], ordered=False) as pipeline:
        pipeline.dequeue()
        with pytest.raises(PipelineStateError, match=r"Pipeline\.commit: an unordered pipeline"):
            pipeline.commit()
    with Machines() as machines:
        pipeline = machines.add(reader(), ZMQSink("tcp://127.0.0.1:*"))
        with pytest.raises(PipelineStateError, match=r"Pipeline\.commit\(\): .* sink"):
            pipeline.commit()


def test_training_machine_of_a_chain_commits():
    with Machines() as first:
        sink = first.data(noise())
        pipeline, _ = first.trainer(sink.address, bind=False)
        found = samples(pipeline.dequeue(timeout=LIMIT))
        pipeline.commit()
        pipeline.dequeue(timeout=LIMIT)
        state = pipeline.state_dict()
    with Machines() as second:
        sink = second.data(noise())
        pipeline, _ = second.trainer(sink.address, bind=False)
        pipeline.load_state_dict(state)
        found += [sample for batch in pipeline.forever() for sample in samples(batch)]
    with Pipeline([noise()]) as pipeline:
        assert Counter(found) == Counter(sample for batch in pipeline.forever() for sample in samples(batch))


# Elastic: the ranks take a step together, and commit it; or one fails, and the others begin again with what is left.


class Training:
    """Steps of a number of ranks, which commit together; the samples of all committed steps."""

    def __init__(self, make):
        self.make = make
        self.state = None
        self.committed = []
        self.over = False

    def run(self, world, batch_size, steps, lost):
        """Take and commit steps with a world, then one more that fails after `lost` ranks have taken their batches."""
        with ExitStack() as stack:
            ranks = [stack.enter_context(self.make((rank, world), batch_size)) for rank in range(world)]
            for rank in ranks:
                if self.state is not None:
                    rank.load_state_dict(self.state)
                    # From the start, so that nothing counts that is not committed.
                    rank.commit()
            for _ in range(steps):
                try:
                    taken = [sample for rank in ranks for sample in samples(rank.dequeue(timeout=LIMIT))]
                except highway.errors.EndOfData:
                    self.over = True
                    return
                for rank in ranks:
                    rank.commit()
                states = [rank.state_dict() for rank in ranks]
                assert states == states[:1] * world
                self.state = states[0]
                self.committed += taken
            for rank in ranks[:lost]:
                try:
                    rank.dequeue(timeout=LIMIT)
                except highway.errors.EndOfData:
                    return
            if self.state is not None:
                assert ranks[0].state_dict() == self.state

    def check(self, size, worlds):
        found = Counter(self.committed)
        assert sorted(found) == [(epoch, index) for epoch in range(EPOCHS) for index in range(size)]
        # At the end of an epoch, up to world - 1 samples repeat, so that all ranks have equally many.
        twice = Counter(epoch for (epoch, _), count in found.items() for _ in range(count - 1))
        assert max(twice.values(), default=0) < max(worlds)


PHASES = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(0, 6), st.integers(0, 4)), max_size=6
)


@settings(max_examples=25, deadline=None)
@given(PHASES, st.tuples(st.integers(1, 3), st.integers(1, 9)))
def test_every_sample_is_in_one_committed_step(phases, last):
    training = Training(lambda shard, batch_size: Pipeline([reader(shard, batch_size)]))
    worlds = [last[0]]
    for world, batch_size, steps, lost in phases:
        worlds.append(world)
        training.run(world, batch_size, steps, lost)
    if not training.over:
        training.run(*last, 10**6, 0)
    training.check(SIZE, worlds)


def elastic(make, size):
    """World 2, 1, 3, in the middle of epochs."""
    training = Training(make)
    for world, batch_size, steps, lost in ((2, 4, 3, 1), (1, 4, 5, 1), (3, 5, 2, 3), (2, 3, 10**6, 0)):
        training.run(world, batch_size, steps, lost)
    training.check(size, [3])


def test_pictures_with_transforms(tmp_path):
    folder = class_folders(tmp_path / "pictures")
    size = ImageFileReader(folder, 1, (8, 8), seed=1).size

    def make(shard, batch_size):
        pictures = ImageFileReader(folder, batch_size, (8, 8), seed=1, epochs=EPOCHS, shard=shard, workers=2)
        return Pipeline([pictures, Augmentations([FlipX()])])

    elastic(make, size)


def test_workers_elsewhere():
    with ExitStack() as workers:

        def make(shard, batch_size):
            remote = Remote()
            pipeline = Pipeline([reader(shard, batch_size)], on=remote)
            workers.enter_context(worker_pipeline([reader()], *remote.addresses))
            return pipeline

        elastic(make, SIZE)


# Ranks as processes


class Rank:
    def __init__(self, *arguments):
        script = Path(__file__).parents[1] / "helpers" / "elastic_rank.py"
        environment = {**os.environ, "PYTHONPATH": str(Path(highway.__file__).parents[1])}
        self.process = subprocess.Popen(
            [sys.executable, script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def tell(self, what):
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()

    def answer(self):
        return json.loads(self.process.stdout.readline())

    def close(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait(LIMIT)
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.mark.machines
def test_killed_ranks_leave_their_samples_to_the_others():
    state, committed = None, []
    for world, batch_size, steps in ((2, 4, 4), (1, 4, 6), (3, 5, 3), (1, 7, 10**6)):
        ranks = [Rank(rank, world, batch_size, json.dumps(state)) for rank in range(world)]
        try:
            for step in range(steps + 1):
                for rank in ranks:
                    rank.tell("take")
                if step == steps:
                    # In the middle of a step: one has its batch, none has committed it.
                    ranks[-1].answer()
                    break
                lines = [rank.process.stdout.readline() for rank in ranks]
                if "" in lines:
                    # The data have ended.
                    assert lines == [""]
                    assert Counter(committed) == Counter(
                        (epoch, index) for epoch in range(EPOCHS) for index in range(SIZE)
                    )
                    return
                for rank in ranks:
                    rank.tell("commit")
                (state,) = {json.dumps(rank.answer()): 0 for rank in ranks}
                state = json.loads(state)
                for epoch, indices in map(json.loads, lines):
                    committed += [(epoch, index) for index in indices]
        finally:
            for rank in ranks:
                rank.close()
    pytest.fail("the data did not end")
