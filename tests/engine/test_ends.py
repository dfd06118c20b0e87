"""The end of the data, and batches that are skipped: nobody gets nothing without a word."""

from __future__ import annotations

import threading
from contextlib import suppress

import numpy as np
import pytest
from concurrency import LIMIT, Task, eventually
from pictures import class_folders
from small_modules import Call, Collect, Drop, Numbers, NumbersWithEpochs, Pass, SizedNumbers, numbers_of

from highway.batch import Batch
from highway.engine import Pipeline, Sink
from highway.engine.inspection import inspected
from highway.errors import (
    ArgumentError,
    ContractError,
    EmptyDatasetError,
    EmptyEpochError,
    EndOfData,
    HighwayError,
    PipelineStateError,
    TooManyErrors,
)
from highway.modules import (
    ArrayReader,
    Augmentations,
    ImageFileReader,
    LevelDBSink,
    LevelDBSource,
    ListReader,
    Noise,
    PadBoxes,
)
from highway.transforms import FlipX

ORDER = pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])

AGAIN = {
    "for": list,
    "forever": lambda pipeline: list(pipeline.forever()),
    "epoch": lambda pipeline: list(pipeline.epoch()),
    "dequeue": lambda pipeline: pipeline.dequeue(timeout=LIMIT),
}
CALLS = pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)


def everything(pipeline):
    return list(pipeline.forever())


def dequeue_all(pipeline):
    with suppress(EndOfData):
        while True:
            pipeline.dequeue(timeout=LIMIT)


def dequeue_exactly(pipeline):
    for _ in range(6):
        pipeline.dequeue(timeout=LIMIT)


def epoch_by_epoch(pipeline):
    for _ in range(2):
        assert len(list(pipeline.epoch())) == 3


# After the end


@CALLS
@ORDER
@pytest.mark.parametrize("take", [everything, dequeue_all, epoch_by_epoch])
def test_a_finished_pipeline_raises(take, again, ordered):
    with Pipeline([SizedNumbers(3, epochs=2), Pass(workers=2)], ordered=ordered) as pipeline:
        take(pipeline)
        for _ in range(2):
            with pytest.raises(EndOfData, match="all batches were delivered, 6 of epochs 0 to 1") as caught:
                again(pipeline)
        for word in ("epochs=None", "larger epochs=", "epoch(n)"):
            assert word in str(caught.value)


@pytest.mark.parametrize("again", [list, lambda pipeline: list(pipeline.epoch())], ids=["for", "epoch"])
@pytest.mark.parametrize("source", [Numbers, NumbersWithEpochs, SizedNumbers])
def test_so_does_one_whose_batches_were_all_dequeued(source, again):
    """Also where nobody knows yet that these were all."""
    with Pipeline([source(3, epochs=2)]) as pipeline:
        dequeue_exactly(pipeline)
        for _ in range(2):
            with pytest.raises(EndOfData, match=r"all batches were delivered, 6 of |there is no epoch 2"):
                again(pipeline)


@ORDER
@pytest.mark.parametrize("end", [everything, dequeue_all])
def test_the_call_itself_raises_once_somebody_has_seen_the_end(end, ordered):
    for source in (Numbers(3), NumbersWithEpochs(3, epochs=2), SizedNumbers(3, epochs=2, holes=[5])):
        with Pipeline([source, Pass()], ordered=ordered) as pipeline:
            end(pipeline)
            for call in (iter, Pipeline.epoch):
                if call is iter or ordered or isinstance(source, SizedNumbers):
                    with pytest.raises(EndOfData, match="all batches were delivered"):
                        call(pipeline)


def test_an_epoch_that_was_begun_is_not_begun_again():
    with Pipeline([SizedNumbers(3)]) as pipeline:
        pipeline.dequeue(timeout=LIMIT)
        with pytest.raises(EndOfData, match="there is no epoch 1"):
            list(pipeline)
        assert numbers_of(pipeline.forever()) == [1, 2]
        with pytest.raises(EndOfData):
            list(pipeline)
    with Pipeline([SizedNumbers(3)]) as pipeline:
        for batch in pipeline:
            if batch.seq == 2:
                break
        with pytest.raises(EndOfData):
            list(pipeline)


def test_who_shares_an_iterator_whose_rest_others_took_just_ends():
    with Pipeline([SizedNumbers(3)]) as pipeline:
        shared = iter(pipeline)
        assert numbers_of(shared) == [0, 1, 2]
        assert list(shared) == []
        with pytest.raises(EndOfData):
            iter(pipeline)


@pytest.mark.parametrize("kept", [0, 1])
def test_batches_that_the_source_takes_back_do_not_count(kept):
    class Careful(NumbersWithEpochs):
        follows_delivery = True

        def delivered(self, ticket):
            return ticket < kept

    for take in (list, lambda pipeline: list(pipeline.epoch())):
        with Pipeline([Careful(3)]) as pipeline:
            if kept:
                assert len(take(pipeline)) == kept
            for _ in range(2):
                with pytest.raises(
                    EndOfData, match=f"all batches were delivered, {kept}" if kept else "no batches"
                ):
                    take(pipeline)


def test_a_thread_that_waits_while_the_data_ends():
    gate = threading.Event()

    def hold(batch):
        assert gate.wait(LIMIT)

    with Pipeline([SizedNumbers(1), Call(hold)]) as pipeline:
        waiting = Task(list, pipeline)
        eventually(lambda: inspected(pipeline).queue.measures()["getting"])
        gate.set()
        with pytest.raises(EmptyEpochError, match="all 1 batches of epoch 0 were skipped"):
            waiting.result()


@CALLS
@pytest.mark.parametrize("finished", [True, False])
def test_a_stopped_pipeline_says_that_it_was_stopped(again, finished):
    pipeline = Pipeline([SizedNumbers(3)])
    if finished:
        list(pipeline)
    else:
        pipeline.start()
    pipeline.stop()
    with pytest.raises(PipelineStateError, match="was stopped; make a new one"):
        again(pipeline)


def test_waiting_for_a_sink_twice_is_no_error():
    for source in (Numbers(3), Numbers(0), Numbers(3, holes=range(3))):
        with Pipeline([source, Collect()]) as pipeline:
            for _ in range(3):
                pipeline.wait(LIMIT)


# Every source


def written(path, **options):
    pytest.importorskip("plyvel", reason="plyvel is not installed: it has no wheels for this Python")
    with Pipeline([Noise(4, (4, 4), size=6, epochs=1), LevelDBSink(path)]) as pipeline:
        pipeline.wait(LIMIT)
    return LevelDBSource(path, 4, **options)


def pictures(path, **options):
    return ImageFileReader(class_folders(path, classes=1, each=6, size=(8, 8)), 4, (8, 8), **options)


def listed(path, **options):
    folder = class_folders(path, classes=1, each=6, size=(8, 8))
    files = sorted(str(each) for each in folder.rglob("*") if each.is_file())
    return ListReader(files, range(6), 4, (8, 8), **options)


SOURCES = {
    "ImageFileReader": pictures,
    "ListReader": listed,
    "Noise": lambda path, **options: Noise(4, (4, 4), size=6, **options),
    "ArrayReader": lambda path, **options: ArrayReader(np.zeros((6, 2)), range(6), 4, **options),
    "LevelDBSource": written,
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_every_source_tells_its_end(make, tmp_path):
    with Pipeline([make(tmp_path, epochs=2)]) as pipeline:
        state = pipeline.state_dict()
        assert len(everything(pipeline)) == 4
        for again in AGAIN.values():
            with pytest.raises(EndOfData, match="all batches were delivered, 4 of epochs 0 to 1"):
                again(pipeline)
        end = pipeline.state_dict()
    with Pipeline([make(tmp_path / "again", epochs=2)]) as pipeline:
        pipeline.load_state_dict({**state, "fingerprint": pipeline.state_dict()["fingerprint"]})
        assert len(everything(pipeline)) == 4
    with Pipeline([make(tmp_path / "end", epochs=2)]) as pipeline:
        pipeline.load_state_dict({**end, "fingerprint": pipeline.state_dict()["fingerprint"]})
        for again in AGAIN.values():
            with pytest.raises(EndOfData, match=r"there are no batches from epoch 2 on|there is no epoch 2"):
                again(pipeline)


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_no_epochs_are_told(make, tmp_path):
    with Pipeline([make(tmp_path, epochs=0)]) as pipeline:
        for again in AGAIN.values():
            with pytest.raises(EndOfData, match=r"there are no batches from epoch 0 on|there is no epoch 0"):
                again(pipeline)


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_epochs_without_a_batch_are_refused(make, tmp_path):
    for rank, world in ((0, 2), (1, 7)):
        with pytest.raises(ArgumentError, match="drop_last leaves nothing of size 6"):
            make(tmp_path / str(world), drop_last=True, shard=(rank, world))


# Skipped


def test_data_of_which_everything_is_skipped():
    for source, named in (
        (Numbers(50, holes=range(50)), "all 50 batches of epoch 0 were skipped"),
        (SizedNumbers(5, epochs=2, holes=range(10)), "all 10 batches of epochs 0 to 1 were skipped"),
        (Numbers(0), "there are no batches"),
    ):
        with Pipeline([source, Pass()]) as pipeline:
            for again in (everything, AGAIN["dequeue"]):
                with pytest.raises(EndOfData, match=named):
                    again(pipeline)


@ORDER
def test_an_epoch_of_which_everything_is_skipped_is_told_and_the_next_goes_on(ordered):
    drop = Drop(lambda ticket: 3 <= ticket < 6)
    with Pipeline([SizedNumbers(3, epochs=3), drop], ordered=ordered) as pipeline:
        assert sorted(numbers_of(pipeline.epoch())) == [0, 1, 2]
        with pytest.raises(EmptyEpochError, match=r"^Pipeline: all 3 batches of epoch 1 were skipped"):
            list(pipeline.epoch())
        assert sorted(numbers_of(pipeline.epoch())) == [6, 7, 8]
        assert pipeline.stats().skipped_batches == 3
        with pytest.raises(EndOfData, match="3 more were skipped"):
            list(pipeline.epoch())
    assert issubclass(EmptyEpochError, HighwayError)


@ORDER
@pytest.mark.parametrize("ended", [False, True])
def test_the_last_epoch_may_be_the_one(ordered, ended):
    """Whether or not the threads have reached the end of the data before it begins."""
    with Pipeline([SizedNumbers(3, epochs=2, holes=[3, 4, 5])], ordered=ordered) as pipeline:
        assert sorted(numbers_of(pipeline.epoch())) == [0, 1, 2]
        if ended:
            eventually(lambda: inspected(pipeline).queue.last_total is not None)
        with pytest.raises(EmptyEpochError, match="epoch 1"):
            list(pipeline.epoch())
        with pytest.raises(EndOfData):
            list(pipeline.epoch())
    with Pipeline([SizedNumbers(3, epochs=2, holes=[3, 4, 5])], ordered=ordered) as pipeline:
        assert len(everything(pipeline)) == 3
        with pytest.raises(EndOfData):
            list(pipeline.epoch())


def broken_pictures(path, bad, **options):
    folder = class_folders(path, classes=1, each=6, size=(8, 8))
    for file in sorted(each for each in folder.rglob("*") if each.is_file())[-bad:]:
        file.write_bytes(b"no picture")
    return ImageFileReader(folder, 2, (8, 8), shuffle=False, **options)


@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_a_folder_of_nothing_but_bad_samples(tmp_path, policy):
    with Pipeline([broken_pictures(tmp_path, 6, epochs=1, on_error=policy)]) as pipeline:
        for _ in range(2):
            with pytest.raises(EmptyDatasetError, match="none of the files that were tried"):
                list(pipeline)


def test_too_many_errors_in_the_very_last_batch(tmp_path):
    reader = broken_pictures(tmp_path, 2, epochs=1, on_error="skip", max_errors=1, workers=1, queue_size=9)
    with Pipeline([reader]) as pipeline:
        for _ in range(2):
            with pytest.raises(TooManyErrors, match="2 of 6 files are bad"):
                list(pipeline)


def test_a_sink_that_fails_at_the_very_last_batch():
    class Last(Sink):
        def consume(self, batch):
            if batch.seq == 4:
                raise OSError("full")

    with Pipeline([Numbers(5), Last()]) as pipeline:
        for _ in range(2):
            with pytest.raises(OSError, match="full"):
                pipeline.wait(LIMIT)


def test_a_worker_that_cannot_close_after_the_last_batch():
    class Closes(Pass):
        def close(self):
            raise OSError("not flushed")

    with Pipeline([Numbers(2), Closes()]) as pipeline, pytest.raises(OSError, match="not flushed"):
        list(pipeline)
    with Pipeline([Numbers(2), Pass(), Collect()]) as pipeline:
        pipeline.wait(LIMIT)
        assert pipeline.stats().skipped_batches == 0


# Counts of what stages return


def test_a_stage_that_changes_the_number_of_samples_names_them():
    def halve(batch):
        return Batch({"numbers": batch.numbers[::2]})

    with (
        Pipeline([SizedNumbers(3), Call(halve)]) as pipeline,
        pytest.raises(
            ContractError,
            match=r"^Call.process returned 2 samples for a batch of 4, without their indices.*take\(",
        ),
    ):
        list(pipeline)
    for keep in (
        lambda batch: batch.take([0, 2]),
        lambda batch: batch.replace(numbers=batch.numbers[::2], indices=batch.indices[::2]),
        lambda batch: Batch({"numbers": batch.numbers[::2]}, indices=batch.indices[::2]),
    ):
        with Pipeline([SizedNumbers(3), Call(keep)]) as pipeline:
            assert [batch.indices.tolist() for batch in pipeline] == [[0, 2], [4, 6], [8, 10]]
            assert pipeline.stats().modules[1].skipped_samples == 6


def test_a_stage_that_cuts_the_batch_itself():
    def cut(batch):
        batch.fields["numbers"] = batch.numbers[:3]
        return batch

    message = r"Call.process returned 3 samples for a batch of 4"
    with Pipeline([SizedNumbers(3), Call(cut)]) as pipeline, pytest.raises(ContractError, match=message):
        list(pipeline)


def test_a_module_that_makes_the_counts_of_a_batch_disagree():
    def cut(batch):
        batch.fields["labels"] = np.zeros(3)
        return batch

    disagreement = "returned an invalid batch: .*'labels' has 3 rows, and field 'numbers' has 4"

    class Cuts(Numbers):
        def load(self, task):
            return cut(super().load(task))

    for modules, where in (([Numbers(3), Call(cut)], "Call.process"), ([Cuts(3)], "Cuts.load")):
        with Pipeline(modules) as pipeline, pytest.raises(ContractError, match=f"^{where} {disagreement}"):
            list(pipeline)
    more = Call(lambda batch: batch.replace(labels=np.zeros(3)))
    message = "'labels' has 3 rows, and field 'numbers' has 4"
    with Pipeline([SizedNumbers(2), more]) as pipeline, pytest.raises(ArgumentError, match=message):
        list(pipeline)


@pytest.mark.parametrize("value", [[1, 2, 3, 4], None, np.float64(1)], ids=repr)
@pytest.mark.parametrize("name", ["numbers", "more"])
def test_a_module_that_writes_what_is_no_array(name, value):
    def spoil(batch):
        batch.fields[name] = value
        return batch

    message = f"^Call.process returned an invalid batch: .*{name!r} must be a numpy array, but is"
    with Pipeline([Numbers(3), Call(spoil)]) as pipeline, pytest.raises(ContractError, match=message):
        list(pipeline)


def test_a_fresh_batch_may_have_its_own_number():
    def renumber(batch):
        return Batch({"numbers": batch.numbers[:1]}, epoch=batch.epoch, seq=batch.seq)

    with (
        Pipeline([SizedNumbers(3), Call(renumber)]) as pipeline,
        pytest.raises(ContractError, match="1 samples"),
    ):
        list(pipeline)


def test_counts_are_not_overwritten():
    ragged = {"offsets": [0, 1, 3], "ragged": ["boxes"]}
    boxes = np.ones((3, 4), np.float32)
    for batch in (
        Batch({"boxes": boxes, "counts": np.zeros(2)}, **ragged),
        Batch({"boxes": boxes}, extras={"counts": np.zeros(2)}, **ragged),
    ):
        with pytest.raises(ArgumentError, match="has counts already"):
            PadBoxes(3).process(batch)


def test_augmentations_pass_the_counts_on():
    with Pipeline([Noise(4, (4, 4), size=10, epochs=1), Augmentations([FlipX()])]) as pipeline:
        assert [batch.size for batch in pipeline] == [4, 4, 2]
        assert pipeline.stats().skipped_samples == 0
