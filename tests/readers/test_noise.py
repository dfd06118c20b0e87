"""Noise: a data set out of nothing that behaves like one."""

import numpy as np
import pytest

from highway._core import philox
from highway.engine import Pipeline
from highway.errors import ArgumentError
from highway.modules import Noise


def samples(**arguments):
    """Index -> (image, label) of all epochs, and the batches."""
    found = {}
    with Pipeline(
        [Noise(**{"batch_size": 8, "shape": (5, 7), "size": 50, "epochs": 1, **arguments})]
    ) as pipeline:
        batches = list(pipeline.forever())
    for batch in batches:
        for index, image, label in zip(batch.indices.tolist(), batch.images, batch.labels, strict=True):
            found[index] = (image.tobytes(), int(label))
    return found, batches


def test_batches():
    found, batches = samples()
    assert sorted(found) == list(range(50))
    assert [batch.size for batch in batches] == [8] * 6 + [2]
    first = batches[0]
    assert (first.images.dtype, first.images.shape) == (np.uint8, (8, 5, 7, 3))
    assert (first.labels.dtype, first.labels.shape) == (np.int64, (8,))
    assert [(batch.epoch, batch.seq, batch.applied) for batch in batches] == [(0, seq, 1) for seq in range(7)]
    assert first.images.flags.writeable


def test_indices_are_those_of_the_data_where_the_last_batch_is_smaller():
    _, batches = samples(size=10, batch_size=4, shuffle=False)
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_sample_is_the_same_wherever_it_comes():
    found, _ = samples()
    for other in (
        {"workers": 1},
        {"workers": 8},
        {"batch_size": 50},
        {"shuffle": False},
        {"size": 60},
    ):
        again, _ = samples(**other)
        assert all(again[index] == found[index] for index in range(50))
    share, _ = samples(shard=(1, 3))
    assert all(found[index] == value for index, value in share.items())
    two, batches = samples(epochs=2)
    assert two == found
    assert {batch.epoch for batch in batches} == {0, 1}
    assert all(samples(seed=1)[0][index] != found[index] for index in range(50))


def test_images_are_noise():
    _, batches = samples(size=200, shape=(32, 32, 4), batch_size=200)
    (batch,) = batches
    assert batch.images.shape == (200, 32, 32, 4)
    counts = np.bincount(batch.images.reshape(-1), minlength=256)
    expected = batch.images.size / 256
    # 255 degrees of freedom: above 360 is a 1 in 50 000 event.
    assert ((counts - expected) ** 2 / expected).sum() < 360
    assert len({image.tobytes() for image in batch.images}) == 200


def test_images_are_the_bytes_of_philox():
    _, batches = samples(seed=6, shuffle=False, batch_size=50)
    out = np.empty((50, 5 * 7 * 3), np.uint8)
    philox.noise(6, 0, 0, np.arange(50, dtype=np.uint32), out)
    assert np.array_equal(batches[0].images.reshape(50, -1), out)


def test_labels_are_all_classes():
    _, batches = samples(size=1000, shape=(1, 1), classes=7, batch_size=1000)
    counts = np.bincount(batches[0].labels, minlength=7)
    assert len(counts) == 7
    # 6 degrees of freedom: above 34 is a 1 in 100 000 event.
    assert ((counts - 1000 / 7) ** 2 / (1000 / 7)).sum() < 34
    assert set(samples(classes=1)[1][0].labels.tolist()) == {0}


def test_labels_do_not_follow_from_the_images():
    found, _ = samples(size=2000, shape=(1, 1, 1), batch_size=500)
    pixels = np.array([image[0] for image, _ in found.values()]) / 255
    labels = np.array([label for _, label in found.values()])
    assert abs(np.corrcoef(pixels, labels)[0, 1]) < 0.1


def test_length_and_end():
    assert len(Noise(8, (5, 7), size=50)) == 7
    assert len(Noise(8, (5, 7), size=50, drop_last=True)) == 6
    assert len(Noise(8, (5, 7), size=50, shard=(0, 2))) == 4
    with Pipeline([Noise(8, (5, 7), size=20)]) as pipeline:
        epochs = [pipeline.dequeue(timeout=60).epoch for _ in range(7)]
    assert epochs == [0, 0, 0, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"shape": "5"}, "Noise: shape is '5'; expected a whole number or"),
        ({"shape": (1, 2, 3, 4)}, "expected a whole number, .height, width. or .height, width, channels."),
        ({"shape": (5,)}, r"Noise: shape is \(5,\)"),
        ({"shape": (5, 0)}, r"Noise: shape\[1\] is 0"),
        ({"shape": (5, 7, 0)}, r"Noise: shape\[2\] is 0"),
        ({"shape": (65536, 65536, 8)}, "fewer than 2.*35 values"),
        ({"classes": 0}, "Noise: classes is 0"),
        ({"batch_size": 0}, "Noise: batch_size is 0"),
        ({"size": 0}, "Noise: size is 0"),
        ({"seed": -1}, "Noise: seed is -1"),
        ({"shard": (2, 2)}, "Noise: .*rank.* is 2"),
        ({"epochs": -1}, "Noise: epochs is -1"),
        ({"workers": 0}, "workers"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(ArgumentError, match=named):
        Noise(**{"batch_size": 2, "shape": (5, 7), **arguments})


def test_repr():
    assert repr(Noise(2, (5, 7), size=9)) == "Noise(2, (5, 7, 3), classes=10, size=9)"


def test_a_data_machine_knows_its_part_and_finds_any_place():
    noise = Noise(2, (2, 2), size=12, epochs=2, shard=(1, 3))
    assert noise.shard == (1, 3)
    tasks = [(task.epoch, task.seq, task.indices.tolist()) for task in noise.tasks()]
    for start in range(len(tasks) + 2):
        found = [(task.epoch, task.seq, task.indices.tolist()) for task in noise.tasks_from(start)]
        assert found == tasks[start:]


def test_other_noise_has_another_fingerprint():
    kinds = [Noise(2, (2, 2)), Noise(2, (2, 3)), Noise(2, (2, 2), classes=11), Noise(2, (2, 2), seed=1)]
    assert len({noise.fingerprint() for noise in kinds}) == len(kinds)
    assert Noise(2, (2, 2)).fingerprint() == kinds[0].fingerprint()
