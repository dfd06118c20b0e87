"""highway.torch: tensors share the memory of batches, or are copied to a device; here a device in the CPU's memory."""

import contextlib
import ctypes
import gc
import pickle
import threading
from collections import deque

import numpy as np
import pytest
from small_modules import Call

from highway.batch import Batch
from highway.engine import Pipeline, Source
from highway.errors import (
    ArgumentError,
    EndOfData,
)
from highway.modules import ArrayReader, Augmentations
from highway.transforms import FlipX, Normalize, RandomErasing, Rescale, ToFloat

torch = pytest.importorskip("torch", reason="torch is not installed")

import highway.torch as highway_torch  # noqa: E402
from highway.torch import Loader  # noqa: E402

pytestmark = pytest.mark.frameworks

COUNT = 22
# Batches of four such images have more than 256 KiB: blocks that an allocator makes.
SHAPE = (160, 144, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE), dtype=np.uint8)


def reader(batch_size=4, **options):
    return ArrayReader(IMAGES, np.arange(COUNT), batch_size, **options)


class Device:
    """A device in the memory of the CPU: copies happen when `run` is called, and read the memory as it is then."""

    def __init__(self, *_):
        self.blocks = []
        self.waiting = deque()
        self.begun = self.done = 0
        self.within = False
        self.from_pages = self.received = 0
        # Whether the loop waits for copies; otherwise it receives garbage until `run`.
        self.prompt = False
        self.lock = threading.Lock()

    def allocate(self, nbytes):
        memory = np.empty(nbytes + 64, np.uint8)
        start = -memory.ctypes.data % 64
        with self.lock:
            self.blocks.append(memory)
        return memory[start : start + nbytes]

    def is_locked(self, tensor):
        return any(
            block.ctypes.data <= tensor.data_ptr() < block.ctypes.data + block.nbytes for block in self.blocks
        )

    @contextlib.contextmanager
    def copying(self):
        self.within = True
        yield
        self.within = False

    def copy(self, tensor):
        assert self.within
        if not self.is_locked(tensor):
            return tensor.clone()
        self.from_pages += 1
        # Garbage until it is copied.
        target = torch.full_like(tensor, 99)
        self.waiting.append((target, tensor.data_ptr()))
        self.begun += 1
        return target

    def record(self):
        assert self.within
        return self.begun

    def is_done(self, event):
        return self.done >= event

    def wait(self, event):
        self.run(max(0, event - self.done))

    def receive(self, event, tensors):
        assert event <= self.begun
        assert all(isinstance(tensor, torch.Tensor) for tensor in tensors)
        self.received += 1
        if self.prompt:
            self.wait(event)

    def run(self, copies=None):
        for _ in range(len(self.waiting) if copies is None else copies):
            target, address = self.waiting.popleft()
            ctypes.memmove(target.data_ptr(), address, target.nbytes)
            self.done += 1


@pytest.fixture
def device(monkeypatch):
    """Loaders with device="cuda" use this one."""
    made = Device()
    monkeypatch.setattr(highway_torch, "_device_of", lambda torch, device: device)
    monkeypatch.setattr(highway_torch, "_layer_of", lambda torch, device: made)
    return made


class Given(Source):
    """The same fields in every batch."""

    epochs = 1

    def __init__(self, fields):
        super().__init__()
        self.fields = fields

    def __len__(self):
        return 1

    def tasks(self):
        return iter(range(1))

    def load(self, task):
        return Batch(self.fields)


def batches_of(*modules, **options):
    with Pipeline(list(modules), **options) as pipeline:
        return [batch.take(range(batch.size)) for batch in pipeline]


def equal(tensors, batches):
    assert len(tensors) == len(batches)
    for found, batch in zip(tensors, batches, strict=True):
        assert len(found) == len(batch.fields)
        for tensor, array in zip(found, batch, strict=True):
            assert np.array_equal(tensor.numpy(), array)
    return True


def test_one_for_is_one_epoch():
    with Loader([reader(epochs=3)]) as loader:
        assert len(loader) == 6
        epochs = [list(loader) for _ in range(3)]
        assert all(type(batch) is tuple for batch in epochs[0])
        assert equal(epochs[0], batches_of(reader()))
        assert not torch.equal(epochs[0][0][1], epochs[1][0][1])
        for epoch in epochs:
            assert sorted(torch.cat([labels for _, labels in epoch]).tolist()) == list(range(COUNT))
        with pytest.raises(EndOfData, match="18 of epochs 0 to 2"):
            list(loader)


def test_tensors_share_the_memory_of_the_batch():
    addresses = []

    def note(batch):
        addresses.append([array.ctypes.data for array in batch])
        return batch

    with Loader([reader(workers=1), Call(note, workers=1)]) as loader:
        found = [[tensor.data_ptr() for tensor in batch] for batch in loader]
    assert found == addresses[: len(found)]


def test_tensor_keeps_its_memory():
    """As long as a view of it lives, however many batches come after it."""
    with Loader([reader(shuffle=False)]) as loader:
        held = next(iter(loader))[0][1:3]
        for _ in range(5):
            list(loader)
        gc.collect()
    assert np.array_equal(held.numpy(), IMAGES[1:3])


def test_dict():
    def more(batch):
        return Batch(batch.fields, extras={"more": np.arange(batch.size)}, indices=batch.indices)

    with Loader([reader(shuffle=False), Call(more)], as_dict=True) as loader:
        first = next(iter(loader))
    assert list(first) == ["images", "labels", "more"]
    assert first["labels"].dtype == torch.int64
    assert first["more"].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "int64", "uint16", "float16", "float64", "complex64", ">f4"]
)
def test_types(dtype):
    array = np.arange(6).astype(dtype).reshape(2, 3)
    with Loader([Given({"field": array})]) as loader:
        ((field,),) = loader
    assert str(field.dtype) == f"torch.{array.dtype.name}"
    assert np.array_equal(field.numpy(), array)


def test_arrays_that_torch_does_not_take_are_copied():
    frozen = np.arange(6).reshape(2, 3)
    frozen.setflags(write=False)
    fields = {
        "frozen": frozen,
        "turned": np.arange(6)[::-1],
        "names": np.array(["a", "bc"]),
        "one": np.array(3),
    }
    fields = {name: array[:2] if array.ndim else array for name, array in fields.items()}
    with Loader([Given(fields)], as_dict=True) as loader:
        (found,) = loader
    assert found["frozen"].tolist() == frozen.tolist()
    assert found["turned"].tolist() == [5, 4]
    assert found["names"] == ["a", "bc"]
    assert found["one"].item() == 3


def test_type_that_torch_does_not_have():
    source = Given({"field": np.zeros(2, "datetime64[s]")})
    with Loader([source]) as loader, pytest.raises(ArgumentError, match="'field' is datetime64"):
        list(loader)


# bfloat16


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("conversion", [Normalize, lambda **options: Rescale(1.7, -33, **options), ToFloat])
def test_bfloat16_is_the_rounded_float32(conversion, layout):
    """Also compared with torch, which rounds to nearest even too."""
    with Loader([reader(shuffle=False), Augmentations([conversion(layout=layout)])]) as loader:
        wide = next(iter(loader))[0]
    chain = [reader(shuffle=False), Augmentations([conversion(layout=layout, dtype="bfloat16")])]
    with Loader(chain) as loader:
        short = next(iter(loader))[0]
    assert short.dtype == torch.bfloat16
    assert torch.equal(short, wide.to(torch.bfloat16))
    (first, *_) = batches_of(*chain)
    assert first.images.dtype == np.uint16
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    assert np.array_equal(first.images.view(ml_dtypes.bfloat16), wide.numpy().astype(ml_dtypes.bfloat16))


def test_bfloat16_of_another_machine_is_named():
    """uint16 is bfloat16 only where the pipeline writes it, or the user says so."""
    deep = ArrayReader(np.full((4, 8, 8, 3), 0x3FC0, np.uint16), None, 4)
    with Loader([deep]) as loader:
        assert next(iter(loader))[0].dtype == torch.uint16
    with Loader([deep], bfloat16=True) as loader:
        images = next(iter(loader))[0]
    assert images.dtype == torch.bfloat16
    assert (images == 1.5).all()


# Layout


@pytest.mark.parametrize(
    "transforms", [[], [Normalize(layout="NHWC")], [Normalize()], [FlipX(), Normalize(dtype="float16")]]
)
def test_channels_last(transforms):
    modules = [reader(shuffle=False), *([Augmentations(transforms)] if transforms else [])]
    with Loader(modules) as loader:
        expected = next(iter(loader))[0]
    if expected.shape[3] == 3:
        expected = expected.permute(0, 3, 1, 2)
    with Loader(Pipeline(modules), channels_last=True) as loader:
        found = next(iter(loader))[0]
        assert type(pickle.loads(pickle.dumps(loader))) is Loader
    assert torch.equal(found, expected)
    assert found.shape == (4, 3, *SHAPE[:2])
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("transforms", [[FlipX(0)], [Normalize(layout="NHWC", dtype="bfloat16")]])
def test_channels_last_costs_nothing(transforms):
    addresses = []

    def note(batch):
        addresses.append(batch.images.ctypes.data)
        return batch

    with Loader([reader(), Augmentations(transforms), Call(note, workers=1)], channels_last=True) as loader:
        assert next(iter(loader))[0].data_ptr() == addresses[0]


def test_channels_last_of_planes():
    """Where the loader cannot change who writes them, it would be a copy."""
    with (
        Loader([reader(), Augmentations([Normalize(), RandomErasing()])], channels_last=True) as loader,
        pytest.raises(ArgumentError, match=r"images are \(N, C, H, W\), \(4, 3, 160, 144\).*layout=\"NHWC\""),
    ):
        next(iter(loader))


# Normalize on the device

CONVERSIONS = {
    "normalize": Normalize(),
    "NHWC": Normalize(layout="NHWC"),
    "half": Normalize(0.4, 0.2, dtype="float16"),
    "bfloat16": Normalize(dtype="bfloat16"),
    "rescale": Rescale(2 / 255, -1),
    "to float": ToFloat(layout="NHWC"),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", CONVERSIONS)
@pytest.mark.parametrize("where", [None, "cuda"])
def test_normalize_on_the_device(device, name, channels_last, where):
    device.prompt = True
    modules = [reader(), Augmentations([FlipX(), CONVERSIONS[name]], seed=3)]
    with Loader(modules, channels_last=channels_last) as loader:
        expected = list(loader)
    with Loader(modules, channels_last=channels_last, normalize="device", device=where) as loader:
        assert [type(step) for step in loader.pipeline.modules[-1].transforms] == [FlipX]
        found = list(loader)
    assert (device.from_pages > 0) == (where is not None)
    tolerance = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
    for (images, labels), (like, others) in zip(found, expected, strict=True):
        assert images.dtype == like.dtype
        assert images.shape == like.shape
        assert images.stride() == like.stride()
        assert torch.allclose(
            images.float(), like.float(), atol=tolerance[like.dtype], rtol=tolerance[like.dtype]
        )
        assert torch.equal(labels, others)
