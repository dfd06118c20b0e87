"""Batches as arrays of JAX, on devices and meshes; a Batch is a pytree."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

# Read when JAX makes its devices, with its first array.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
jax = pytest.importorskip("jax", reason="JAX is not installed: pip install jax")
import jax.numpy as jnp  # noqa: E402
from framework_programs import programs, run  # noqa: E402
from jax.sharding import NamedSharding, PartitionSpec  # noqa: E402
from pictures import class_folders  # noqa: E402

from highway.batch import Batch  # noqa: E402
from highway.engine import Pipeline, Source, Stage  # noqa: E402
from highway.errors import ArgumentError, EndOfData, PipelineStateError  # noqa: E402
from highway.jax import batches  # noqa: E402
from highway.modules import ArrayReader, Augmentations, Noise, PadBoxes  # noqa: E402
from highway.transforms import FlipX, Normalize  # noqa: E402

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 6, 8, 3), np.uint8)
LABELS = np.arange(20)


def reader(batch_size=4, **options):
    return ArrayReader(IMAGES, LABELS, batch_size, keys=[f"k{number}" for number in LABELS], **options)


@pytest.fixture(scope="module")
def mesh():
    assert len(jax.devices()) == 4
    return jax.make_mesh((4,), ("data",))


def sharding(mesh, *names):
    return NamedSharding(mesh, PartitionSpec(*names))


def test_an_iteration_is_one_epoch_of_the_pipeline():
    with Pipeline([reader(epochs=3)]) as pipeline, Pipeline([reader(epochs=3)]) as expected:
        for number in range(3):
            found = batches(pipeline)
            assert len(found) == 5
            for batch, wanted in zip(found, expected, strict=True):
                images, labels = batch
                assert isinstance(images, jax.Array)
                assert images.dtype == np.uint8
                assert np.array_equal(images, wanted.images)
                assert np.array_equal(labels, wanted.labels)
                assert (batch.epoch, batch.seq, batch.keys) == (number, wanted.seq, wanted.keys)
                assert np.array_equal(batch.indices, wanted.indices)
        with pytest.raises(EndOfData):
            batches(pipeline)


@pytest.mark.parametrize("source", [reader(epochs=1), Noise(16, (224, 224), size=64, epochs=1)], ids=repr)
def test_arrays_on_the_cpu_share_the_memory_of_the_batch(source):
    with Pipeline([source, Augmentations([FlipX(), Normalize()])]) as pipeline:
        given = []

        class Noted(list):
            def __iter__(self):
                for batch in pipeline:
                    given.append(batch.images.ctypes.data)
                    yield batch

        found = batches(pipeline)
        found._epoch = iter(Noted())
        taken = [batch.images for batch in found]
        assert [images.unsafe_buffer_pointer() for images in taken] == given


def test_held_arrays_do_not_change():
    with Pipeline([Noise(4, (16, 16), size=400, epochs=1)]) as pipeline:
        held = [(batch.images, np.array(batch.images)) for batch in batches(pipeline)]
    assert len(held) == 100
    for images, copy in held:
        assert np.array_equal(images, copy)


class One(Source):
    """One batch of a given array."""

    def __init__(self, array):
        super().__init__()
        self.array = array

    def tasks(self):
        return iter(range(1))

    def load(self, task):
        return Batch({"numbers": self.array})


READ_ONLY = np.arange(6, dtype=np.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    "array",
    [
        READ_ONLY,
        np.ones((4, 2), jnp.bfloat16),
        np.ones((4, 3), bool),
        np.ones((0, 3)),
        np.ones((4, 6))[:, ::2],
    ],
    ids=["read-only", "bfloat16", "bool", "empty", "strided"],
)
def test_arrays_of_every_kind(mesh, array):
    with Pipeline([One(array)]) as pipeline:
        ((numbers,),) = batches(pipeline)
    assert np.array_equal(numbers, array)
    with Pipeline([One(array)]) as pipeline:
        ((numbers,),) = batches(pipeline, sharding(mesh))
    assert numbers.dtype == (np.float32 if array.dtype == np.float64 else array.dtype)
    assert np.array_equal(numbers, array)


@pytest.mark.parametrize("place", [None, "device", "mesh"])
@pytest.mark.parametrize(
    "array", [np.array([b"a", b"b"], object), np.zeros(2, [("a", int)]), np.array(["a", "b"])]
)
def test_arrays_without_numbers_are_refused(mesh, array, place):
    places = {"device": jax.devices()[1], "mesh": sharding(mesh)}
    with Pipeline([One(array)]) as pipeline:
        found = batches(pipeline, places.get(place))
        with pytest.raises(ArgumentError, match=r"field 'numbers' is .*; expected numbers"):
            next(found)


@pytest.mark.parametrize("prefetch", [0, 1, 3, 64])
def test_batches_go_to_the_devices_of_a_mesh(mesh, prefetch):
    wanted = sharding(mesh, "data")
    with Pipeline([reader()]) as pipeline, Pipeline([reader(epochs=1)]) as expected:
        for batch, plain in zip(batches(pipeline, wanted, prefetch), expected, strict=True):
            assert batch.images.sharding == wanted
            assert batch.images.addressable_shards[0].data.shape == (1, 6, 8, 3)
            assert np.array_equal(batch.images, plain.images)
            assert np.array_equal(batch.labels, plain.labels)


def test_a_partition_spec_is_cut_for_arrays_with_fewer_dimensions():
    mesh = jax.make_mesh((2, 2), ("data", "width"))
    with Pipeline([reader(epochs=1)]) as pipeline:
        batch = next(batches(pipeline, sharding(mesh, "data", None, "width")))
    assert {shard.data.shape for shard in batch.images.addressable_shards} == {(2, 6, 4, 3)}
    assert {shard.data.shape for shard in batch.labels.addressable_shards} == {(2,)}


def test_a_device():
    device = jax.devices()[2]
    with Pipeline([reader(epochs=1)]) as pipeline:
        found = list(batches(pipeline, device))
    assert [batch.images.devices() for batch in found] == [{device}] * 5


@pytest.mark.parametrize(("batch_size", "drop_last"), [(6, False), (3, True)])
def test_a_sharding_that_does_not_divide_the_batch_is_refused_before_the_first(mesh, batch_size, drop_last):
    stages = [Augmentations([FlipX()])]
    with Pipeline([reader(batch_size, drop_last=drop_last), *stages]) as pipeline:
        with pytest.raises(
            ArgumentError, match=rf"a batch has {batch_size} samples, .* does not divide evenly"
        ):
            batches(pipeline, sharding(mesh, "data"))
        assert "not started" in repr(pipeline)


def test_batches_of_two_sizes_that_it_divides(mesh):
    with Pipeline([reader(8)]) as pipeline:
        assert [batch.size for batch in batches(pipeline, sharding(mesh, "data"))] == [8, 8, 4]


def test_a_last_batch_that_does_not_divide_is_refused_before_the_first(mesh):
    whole = ArrayReader(IMAGES[:18], LABELS[:18], 4)
    with Pipeline([whole]) as pipeline, pytest.raises(ArgumentError, match=r"has 2 samples.*drop_last=True"):
        batches(pipeline, sharding(mesh, "data"))
    with Pipeline([ArrayReader(IMAGES[:18], LABELS[:18], 4, drop_last=True)]) as pipeline:
        assert len(list(batches(pipeline, sharding(mesh, "data")))) == 4


def test_a_batch_of_a_stage_that_does_not_divide_is_refused_when_it_comes(mesh):
    class Half(Stage):
        def process(self, batch):
            return batch.take(range(2))

    with Pipeline([reader(), Half()]) as pipeline:
        found = batches(pipeline, sharding(mesh, "data"))
        with pytest.raises(ArgumentError, match=r"field 'images' has 2 samples, .* does not divide evenly"):
            next(found)


def test_another_axis_that_does_not_divide_is_refused(mesh):
    with Pipeline([reader()]) as pipeline:
        found = batches(pipeline, sharding(mesh, None, "data"))
        with pytest.raises(ArgumentError, match=r"field 'images' of shape \(4, 6, 8, 3\) cannot be placed"):
            next(found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sharding": "data"}, r"sharding is 'data'; expected a jax.sharding.Sharding or a jax.Device"),
        ({"prefetch": -1}, r"prefetch is -1"),
        ({"prefetch": 1.5}, r"prefetch is 1.5"),
        ({"pipeline": [Noise(4, 8)]}, r"pipeline is \[Noise.*\]; expected a Pipeline"),
    ],
)
def test_wrong_arguments(arguments, message):
    with Pipeline([reader()]) as pipeline, pytest.raises(ArgumentError, match=message):
        batches(**{"pipeline": pipeline, **arguments})


def boxes(tasks=3):
    class Boxes(Source):
        def __len__(self):
            return tasks

        def tasks(self):
            return iter(range(tasks))

        def load(self, task):
            fields = {"images": IMAGES[:2], "boxes": np.ones((3, 4), np.float32)}
            return Batch(fields, offsets=[0, 1, 3], ragged=["boxes"])

    return Boxes()


def test_ragged_batches(mesh):
    with Pipeline([boxes()]) as pipeline:
        for batch in batches(pipeline):
            assert isinstance(batch.boxes, jax.Array)
            assert np.array_equal(batch.boxes_of(1), np.ones((2, 4)))
    two = jax.make_mesh((2,), ("data",))
    with Pipeline([boxes()]) as pipeline:
        found = batches(pipeline, sharding(two, "data"))
        with pytest.raises(ArgumentError, match=r"boxes have a different number of rows .* PadBoxes"):
            next(found)
    with Pipeline([boxes(), PadBoxes(4)]) as pipeline:
        for batch in batches(pipeline, sharding(two, "data")):
            assert batch.boxes.shape == (2, 4, 4)


def test_state_is_that_of_the_batches_that_were_yielded(mesh):
    with Pipeline([reader()]) as pipeline:
        found = batches(pipeline, sharding(mesh, "data"), prefetch=2)
        expected = [np.array(batch.labels) for batch in (next(found), next(found), *found)]
    for prefetch in (0, 2):
        with Pipeline([reader()]) as pipeline, Pipeline([reader()]) as resumed:
            found = batches(pipeline, sharding(mesh, "data"), prefetch)
            next(found)
            next(found)
            resumed.load_state_dict(found.state_dict())
            rest = batches(resumed)
            assert len(rest) == 3
            assert np.array_equal([batch.labels for batch in rest], expected[2:])


def test_pipelines_without_a_state(mesh):
    with Pipeline([reader()], ordered=False) as pipeline:
        found = batches(pipeline, sharding(mesh, "data"))
        assert len(list(found)) == 5
        with pytest.raises(PipelineStateError):
            found.state_dict()


# Batch as a pytree


@pytest.fixture
def batch():
    extras = {"weights": np.ones(2, np.float32)}
    identity = {"epoch": 2, "seq": 3, "indices": [5, 1], "keys": ["a", "b"], "applied": 4}
    fields = {"images": IMAGES[:2], "labels": LABELS[:2], "boxes": np.ones((3, 4), np.float32)}
    return Batch(fields, extras=extras, offsets=[0, 1, 3], ragged=["boxes"], **identity)


def test_tree_map_keeps_names_and_identity(batch):
    mapped = jax.tree.map(lambda array: array * 2, batch)
    assert isinstance(mapped, Batch)
    assert list(mapped.fields) == ["images", "labels", "boxes"]
    assert np.array_equal(mapped.labels, batch.labels * 2)
    assert np.array_equal(mapped.weights, [2, 2])
    assert (mapped.epoch, mapped.seq, mapped.keys, mapped.applied) == (2, 3, ["a", "b"], 4)
    assert mapped.indices.tolist() == [5, 1]
    assert mapped.ragged == {"boxes"}
    assert isinstance(mapped.images, np.ndarray)


def test_leaves_have_paths(batch):
    leaves, structure = jax.tree_util.tree_flatten_with_path(batch)
    assert [jax.tree_util.keystr(path) for path, _ in leaves] == [
        *(".images", ".labels", ".boxes", ".weights", ".offsets")
    ]
    again = jax.tree.unflatten(structure, [leaf for _, leaf in leaves])
    assert again.images is batch.images


def test_different_offsets_are_leaves(batch):
    rows = batch.offsets
    batch = batch.replace(tokens=np.arange(4), ragged={"boxes": rows, "tokens": [0, 0, 4]})
    leaves, structure = jax.tree_util.tree_flatten_with_path(batch)
    paths = [jax.tree_util.keystr(path) for path, _ in leaves]
    assert paths[-2:] == [".offsets_of_boxes", ".offsets_of_tokens"]
    again = jax.tree.unflatten(structure, [leaf for _, leaf in leaves])
    assert again.offsets_of("tokens").tolist() == [0, 0, 4]
    assert jax.tree.map(lambda array: array * 2, batch).offsets_of("boxes").tolist() == [0, 2, 6]


def test_what_is_no_array_can_take_the_place_of_one(batch):
    shapes = jax.tree.map(lambda array: array.shape, batch)
    assert shapes.labels == (2,)
    assert "labels=(2,)" in repr(shapes)
    assert jax.tree.map(lambda array: None, batch).labels is None


def test_two_batches_with_the_same_names_map_together(batch):
    other = batch.replace(labels=np.array([10, 20]))
    other.epoch, other.keys = 7, None
    both = jax.tree.map(np.add, batch, other)
    assert both.labels.tolist() == [10, 21]
    assert both.epoch == 2


def test_a_function_is_compiled_once_for_all_batches():
    traced = []

    @jax.jit
    def step(batch):
        traced.append(batch)
        images, labels = batch
        return jax.tree.map(jnp.sum, {"images": images.astype(jnp.float32), "labels": labels})

    with Pipeline([reader(epochs=2)]) as pipeline:
        for _ in range(2):
            for batch in batches(pipeline):
                assert step(batch)["labels"] == np.asarray(batch.labels).sum()
    assert len(traced) == 1
    step(Batch({"images": IMAGES[:4], "labels": LABELS[:4]}, keys=list("abcd"), epoch=5))
    assert len(traced) == 1
    step(Batch({"images": IMAGES[:4], "numbers": LABELS[:4]}))
    assert len(traced) == 2


def test_a_batch_has_no_identity_inside_of_compiled_functions(batch):
    told = []

    @jax.jit
    def step(batch):
        told.append((batch.epoch, batch.seq, batch.keys))
        return jax.tree.map(lambda array: array + 1, batch)

    for epoch in (2, 3):
        batch.epoch = epoch
        result = step(batch)
        assert np.array_equal(result.labels, batch.labels + 1)
        assert (result.epoch, result.seq, result.keys) == (0, None, [])
    assert told == [(0, None, [])]


def test_gradients_of_a_batch():
    batch = Batch({"images": np.ones((2, 3), np.float32)}, keys=["a", "b"])
    gradients = jax.grad(lambda batch: (batch.images**2).sum())(batch)
    assert np.array_equal(gradients.images, np.full((2, 3), 2))


def test_a_training_loop(mesh):
    """Linear regression on the mean of the images, over two epochs, data-parallel."""
    replicated = sharding(mesh)

    @jax.jit
    def step(weights, batch):
        def loss(weights):
            predicted = batch.images.astype(jnp.float32).mean((1, 2)) / 255 @ weights
            return ((predicted - batch.labels / 20) ** 2).mean()

        value, gradient = jax.value_and_grad(loss)(weights)
        return weights - 0.1 * gradient, value

    weights = jax.device_put(jnp.zeros(3), replicated)
    seen = []
    with Pipeline([reader(epochs=2)]) as pipeline:
        for _ in range(2):
            for batch in batches(pipeline, sharding(mesh, "data")):
                weights, value = step(weights, batch)
                seen += batch.keys
    assert sorted(seen[:20]) == sorted(seen[20:]) == sorted(f"k{number}" for number in LABELS)
    assert np.isfinite(value)


@pytest.mark.parametrize("name", ["train_jax.py", "train_on_a_mesh.py"])
def test_programs_of_the_document(tmp_path, name):
    class_folders(tmp_path / "demo-output" / "photos", classes=4, each=20)
    shown = programs("docs/jax.md")
    assert list(shown) == ["train_jax.py", "train_on_a_mesh.py", "resume_jax.py"]
    output = run("-W", "error", "-c", shown[name], folder=tmp_path)
    losses = [float(line.split()[-1]) for line in output.splitlines()]
    assert len(losses) == (2 if name == "train_jax.py" else 0)
    assert np.isfinite(losses).all()


PROCESS = """
import sys
import jax
jax.distributed.initialize("{address}", 2, int(sys.argv[1]))
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from highway.engine import Pipeline
from highway.jax import batches
from highway.modules import ArrayReader

sharding = NamedSharding(jax.make_mesh((jax.device_count(),), ("data",)), PartitionSpec("data"))
images = np.zeros((16, 2, 2, 3), np.uint8)
reader = ArrayReader(images, np.arange(16), 4, shard=(jax.process_index(), 2))
with Pipeline([reader]) as pipeline:
    for batch in batches(pipeline, sharding):
        assert batch.labels.shape == (8,), batch.labels.shape
        local = np.concatenate([shard.data for shard in batch.labels.addressable_shards])
        assert sorted(local.tolist()) == sorted(batch.indices.tolist())
        print(*local.tolist())
"""


def test_each_process_has_its_part_of_the_global_array(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    program = PROCESS.format(address=address)
    with ThreadPoolExecutor(2) as pool:
        outputs = list(pool.map(lambda rank: run("-c", program, str(rank)), range(2)))
    ranks = [[int(label) for label in output.split()] for output in outputs]
    assert [len(labels) for labels in ranks] == [8, 8]
    assert sorted(ranks[0] + ranks[1]) == list(range(16))
