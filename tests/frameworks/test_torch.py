"""highway.torch: tensors share the memory of batches, or are copied to a device; here a device in the CPU's memory."""

import contextlib
import copy
import ctypes
import doctest
import gc
import importlib
import json
import os
import pickle
import re
import subprocess
import sys
import threading
import weakref
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import rasters
from concurrency import LIMIT, Task, eventually
from documents import Document
from pictures import class_folders, jpeg_bytes, photograph
from repository import ROOT
from small_modules import Call, Collect, Gate, NumbersWithEpochs, SizedNumbers
from voc_folders import annotation, thing, voc_folder

from highway.batch import Batch
from highway.engine import Pipeline, Source
from highway.errors import (
    ArgumentError,
    EndOfData,
    PipelineStateError,
    StateMismatchError,
    UnknownLengthError,
)
from highway.modules import ArrayReader, Augmentations, ListReader, PadBoxes
from highway.sampling import schedule
from highway.transforms import FlipX, Normalize, RandomErasing, Rescale, ToFloat

torch = pytest.importorskip("torch", reason="torch is not installed")

import highway  # noqa: E402
from highway.torch import Loader  # noqa: E402

pytestmark = pytest.mark.frameworks

COUNT = 24
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


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    paths = [folder / f"{number}.jpg" for number in range(6)]
    for number, path in enumerate(paths):
        path.write_bytes(jpeg_bytes(photograph(60, 80, seed=number)))
    return paths


@pytest.fixture
def device(monkeypatch):
    """Loaders with device="cuda" use this one."""
    made = Device()
    monkeypatch.setattr("highway.torch.loader.device_of", lambda torch, device: device)
    monkeypatch.setattr("highway.torch.loader.layer_of", lambda torch, device: made)
    return made


class Given(Source):
    """A batch, or the fields of one."""

    epochs = 1

    def __init__(self, given):
        super().__init__()
        self.given_batch = given

    def __len__(self):
        return 1

    def tasks(self):
        return iter(range(1))

    def load(self, task):
        given = self.given_batch
        return given if isinstance(given, Batch) else Batch(given)


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


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_bfloat16_of_pictures(photographs, layout):
    """Normalized while they are decoded."""

    def images(dtype):
        chain = [FlipX(), Normalize(layout=layout, dtype=dtype)]
        with Loader([ListReader(photographs, None, 3, (40, 50)), Augmentations(chain)]) as loader:
            return torch.cat([images for (images,) in loader])

    short = images("bfloat16")
    assert short.shape == ((6, 3, 40, 50) if layout == "NCHW" else (6, 40, 50, 3))
    assert torch.equal(short, images("float32").to(torch.bfloat16))


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


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """PNGs of 16 bits."""
    folder = tmp_path_factory.mktemp("deep")
    for number in range(6):
        values = np.random.default_rng(number).integers(0, 65536, (40, 50, 3))
        values[0], values[1] = 0, 65535
        (folder / f"{number}.png").write_bytes(rasters.png(values, 16, 2))
    return sorted(folder.iterdir())


def test_pictures_of_sixteen_bits(deep):
    modules = [ListReader(deep, None, 3, (40, 50), dtype="uint16", shuffle=False, epochs=1)]
    with Loader(modules) as loader, Pipeline(modules) as pipeline:
        for (images,), batch in zip(loader, pipeline.forever(), strict=True):
            assert images.dtype == torch.uint16
            assert images.shape == (3, 40, 50, 3)
            assert np.array_equal(images.numpy(), batch.images)
            assert batch.images.max() == 65535


@pytest.mark.parametrize("name", CONVERSIONS)
@pytest.mark.parametrize("where", [None, "cuda"])
def test_normalize_sixteen_bits_on_the_device(device, deep, name, where):
    device.prompt = True
    modules = [ListReader(deep, None, 3, (40, 50), dtype="uint16"), Augmentations([CONVERSIONS[name]])]
    with Loader(modules) as loader:
        expected = [images for (images,) in loader]
    with Loader(modules, normalize="device", device=where) as loader:
        found = [images for (images,) in loader]
    tolerance = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[expected[0].dtype]
    for images, like in zip(found, expected, strict=True):
        assert images.dtype == like.dtype
        assert torch.allclose(images.float(), like.float(), atol=tolerance, rtol=tolerance)


def test_normalize_on_the_device_changes_no_random_choice(photographs):
    """Nor do boxes after it."""
    boxes = [np.array([[1, 1, 9, 9]] * (number % 3), np.float32).reshape(-1, 4) for number in range(COUNT)]
    labels = [[7] * len(rows) for rows in boxes]

    def modules(folder):
        return [
            ListReader(folder, labels[: len(folder)], 3, (40, 50), boxes=boxes[: len(folder)]),
            Augmentations([FlipX(), Normalize()], seed=None),
            PadBoxes(2),
        ]

    chain = modules(photographs)
    with Loader(chain) as loader, Loader(chain, normalize="device", device="cpu") as other:
        for one, two in zip(loader, other, strict=True):
            assert torch.allclose(one[0], two[0], atol=1e-6)
            assert all(torch.equal(left, right) for left, right in zip(one[1:], two[1:], strict=True))


@pytest.mark.parametrize(
    "modules",
    [
        [reader()],
        [reader(), Augmentations([FlipX()])],
        [reader(), Augmentations([Normalize(), RandomErasing()])],
        [reader(), Augmentations([Normalize()]), Call(lambda batch: batch)],
    ],
)
def test_nothing_to_normalize_on_the_device(modules):
    with pytest.raises(
        ArgumentError, match="normalize is 'device', and the transforms do not end in a Normalize"
    ):
        Loader(modules, normalize="device")


def test_normalize_on_the_device_alone():
    with Loader([reader(shuffle=False), Augmentations([ToFloat()])], normalize="device") as loader:
        assert len(loader.pipeline.modules) == 1
        assert torch.allclose(next(iter(loader))[0], torch.from_numpy(IMAGES[:4]).permute(0, 3, 1, 2) / 255)


def test_started_pipeline_keeps_its_modules():
    with Pipeline([reader(), Augmentations([Normalize()])]) as pipeline:
        pipeline.start()
        with pytest.raises(PipelineStateError, match=r"normalize changes the modules .* has started"):
            Loader(pipeline, normalize="device")
        with pytest.raises(PipelineStateError, match="channels_last changes the modules"):
            Loader(pipeline, channels_last=True)


# Copies


@pytest.mark.parametrize("prefetch", [0, 1, 3])
def test_copies(device, prefetch):
    """Of page-locked memory, which no other batch gets before its copy is done: here, all are done after the epochs."""
    with Loader([reader(workers=2)], device="cuda", prefetch=prefetch) as loader:
        found = list(loader) + list(loader)
        assert device.from_pages == len(found) == device.received == 12
        assert device.done == 0
        assert all(torch.all(images == 99) for images, _ in found)
        device.run()
    with Pipeline([reader()]) as pipeline:
        expected = list(pipeline) + list(pipeline)
        equal(found, expected)


def test_page_locked_memory_in_every_run(device):
    """After a state was loaded, too; and in a pipeline that has not started."""
    device.prompt = True
    with Loader(Pipeline([reader()]), device="cuda") as loader:
        list(loader)
        assert device.from_pages == 6
        loader.load_state_dict(loader.state_dict())
        list(loader.epoch(4))
        assert device.from_pages == 12


def test_memory_is_used_again_after_its_copy(device):
    """And only then: with every copy done at once, few blocks serve many batches."""
    device.prompt = True
    with Loader([reader(workers=1)], device="cuda", prefetch=1) as loader:
        for _ in range(10):
            assert len(list(loader)) == 6
    assert device.from_pages == 60
    assert len(device.blocks) < 20


def test_batches_are_copied_ahead(device):
    with Loader([reader(workers=1)], device="cuda", prefetch=2) as loader:
        epoch = iter(loader)
        next(epoch)
        eventually(lambda: loader.stats().modules[0].batches >= 5)
        next(epoch)
        assert device.begun == 4
        assert len(list(epoch)) == 4
        assert device.begun == 6


def test_batches_ahead_are_dropped_after_a_break(device):
    with Loader([reader(workers=1)], device="cuda", prefetch=5) as loader:
        for _ in loader:
            eventually(lambda: loader.stats().modules[0].batches >= 5)
            if device.begun > 2:
                break
        targets = [weakref.ref(target) for target, _ in device.waiting]
        device.run()
        del _
        gc.collect()
        assert not any(target() is not None for target in targets)


def test_loop_does_not_wait_for_batches_ahead(device):
    """Where only one is ready, it is returned at once."""
    ready = threading.Semaphore(1)

    def wait(batch):
        assert ready.acquire(timeout=LIMIT)
        return batch

    with Loader([reader(), Call(wait, workers=1)], device="cuda", prefetch=4) as loader:
        epoch = iter(loader)
        for _ in range(6):
            next(epoch)
            ready.release()
        with pytest.raises(StopIteration):
            next(epoch)
        ready.release()


def test_failed_copy_keeps_the_memory(device):
    """As the copies that began before it are in progress."""
    copies = []

    def copy(tensor):
        copies.append(tensor.shape)
        if len(copies) == 2:
            raise RuntimeError("out of memory")
        return Device.copy(device, tensor)

    device.copy = copy
    with Loader([reader(workers=1)], device="cuda") as loader:
        with pytest.raises(RuntimeError, match="out of memory"):
            list(loader)
        assert (device.begun, device.done) == (1, 0)
    assert device.done == 1


def test_loader_that_is_dropped_waits_for_its_copies(device):
    pipeline = Pipeline([reader()])
    with pipeline:
        list(Loader(pipeline, device="cuda"))
        gc.collect()
        assert device.done == device.begun == 6


def test_pipeline_that_has_started_is_copied_too(device):
    """From memory that is not page-locked."""
    device.prompt = True
    with Pipeline([reader()]) as pipeline, Pipeline([reader()]) as other:
        pipeline.start()
        assert equal(list(Loader(pipeline, device="cuda")), list(other))
    assert device.from_pages == 0


# Boxes


@pytest.fixture(scope="module")
def boxed(photographs):
    boxes = [[[10, 5, 30, 25]] * number for number in (2, 0, 1, 3, 0, 1)]
    labels = [[number] * len(rows) for number, rows in enumerate(boxes)]
    return ListReader(photographs, labels, 3, (60, 80), boxes=boxes, shuffle=False, placement=True)


@pytest.mark.parametrize("where", [None, "cuda"])
def test_boxes_are_targets_of_each_image(device, boxed, where):
    device.prompt = True
    with Loader([boxed, Augmentations([ToFloat()])], device=where) as loader:
        (images, targets), (_, others) = loader
    assert images.shape == (3, 3, 60, 80)
    assert [target["labels"].tolist() for target in targets + others] == [[0, 0], [], [2], [3, 3, 3], [], [5]]
    assert [target["boxes"].shape for target in targets] == [(2, 4), (0, 4), (1, 4)]
    assert targets[2]["boxes"].tolist() == [[10, 5, 30, 25]]
    assert targets[0]["boxes"].dtype == torch.float32
    assert targets[0]["labels"].dtype == torch.int64
    assert targets[0]["placement"].shape == (3, 3)
    assert targets[1]["picture_sizes"].tolist() == [60, 80]


def test_boxes_in_a_dict(boxed):
    with Loader([boxed], as_dict=True) as loader:
        first = next(iter(loader))
    assert list(first) == ["images", "targets"]
    assert len(first["targets"]) == 3


def test_fields_of_different_offsets_in_targets():
    class Texts(Source):
        def tasks(self):
            return iter(range(1))

        def load(self, task):
            fields = {"tokens": np.arange(5), "audio": np.ones((4, 2), np.float32)}
            return Batch(fields, ragged={"tokens": [0, 3, 5], "audio": [0, 0, 4]})

    with Loader([Texts()]) as loader:
        ((targets,),) = loader
    assert [target["tokens"].tolist() for target in targets] == [[0, 1, 2], [3, 4]]
    assert [tuple(target["audio"].shape) for target in targets] == [(0, 2), (4, 2)]


def test_targets_share_the_memory_of_the_batch(boxed):
    addresses = []

    def note(batch):
        addresses.append(batch.boxes.ctypes.data)
        return batch

    with Loader([boxed, Call(note, workers=1)]) as loader:
        _, targets = next(iter(loader))
    assert [target["boxes"].data_ptr() - addresses[0] for target in (targets[0], targets[2])] == [0, 2 * 16]


def test_masks_of_boxes():
    """Of shape (n, H, W) for each image where a box has a mask, (H, W) where an image has one."""
    fields = {"boxes": np.zeros((3, 4), np.float32), "masks": np.zeros((3, 5, 6), np.uint8)}
    ragged = Batch(fields, offsets=[0, 1, 3], ragged=("boxes", "masks"))
    plain = Batch({**fields, "masks": np.zeros((2, 5, 6), np.uint8)}, offsets=[0, 1, 3], ragged=("boxes",))
    names = Batch({**fields, "names": np.array(["a", "b"])}, offsets=[0, 1, 3], ragged=("boxes", "masks"))
    shapes = []
    for batch in (ragged, plain, names):
        with Loader([Given(batch)]) as loader:
            ((targets,),) = loader
        shapes.append([tuple(target["masks"].shape) for target in targets])
    assert shapes == [[(1, 5, 6), (2, 5, 6)], [(5, 6), (5, 6)], [(1, 5, 6), (2, 5, 6)]]
    assert [target["names"] for target in targets] == ["a", "b"]


def test_tv_tensors(boxed):
    tv_tensors = pytest.importorskip("torchvision.tv_tensors", reason="torchvision is not installed")
    with Loader([boxed], tv_tensors=True) as loader:
        images, targets = next(iter(loader))
    assert type(images) is tv_tensors.Image
    assert images.shape == (3, 3, 60, 80)
    assert type(targets[0]["boxes"]) is tv_tensors.BoundingBoxes
    assert targets[0]["boxes"].format == tv_tensors.BoundingBoxFormat.XYXY
    assert targets[0]["boxes"].canvas_size == (60, 80)
    mask = np.zeros((4, 6, 7), np.uint8)
    with Loader(
        [Given({"images": np.zeros((4, 6, 7, 3), np.uint8), "masks": mask})], tv_tensors=True
    ) as loader:
        ((_, masks),) = loader
    assert type(masks) is tv_tensors.Mask


# Positions


def labels_of(loader):
    return [labels.tolist() for _, labels in loader]


@pytest.mark.parametrize("where", [None, "cuda"])
def test_state_is_the_position_of_the_loop(device, where):
    """Not of what was copied ahead."""
    device.prompt = True
    with Loader([reader(seed=5)], device=where) as loader:
        whole = [labels_of(loader) for _ in range(3)]
    with Loader([reader(seed=5)], device=where, prefetch=4) as loader:
        for count, _ in enumerate(loader):
            if count == 2:
                break
        state = loader.state_dict()
        copied = pickle.loads(pickle.dumps(loader))
        assert labels_of(loader) == whole[1]
        loader.load_state_dict(state)
        assert labels_of(loader) == whole[0][3:]
        assert labels_of(loader) == whole[1]
        end = loader.state_dict()
    with copied, copy.deepcopy(copied) as again:
        assert labels_of(copied) == labels_of(again) == whole[0][3:]
    with Loader([reader(seed=5)], device=where) as other:
        other.load_state_dict(end)
        assert labels_of(other) == whole[2]
    with Pipeline([reader(seed=5)]) as pipeline:
        pipeline.load_state_dict(state)
        assert [batch.labels.tolist() for batch in pipeline] == whole[0][3:]


@pytest.mark.parametrize("where", [None, "cuda"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_commit_counts_what_the_loop_has_received(device, where, wrapped):
    """And nothing that was copied ahead."""
    device.prompt = True
    with Loader([reader(seed=5)], device=where) as loader:
        whole = labels_of(loader)
    with Loader([reader(seed=5)], device=where, prefetch=4) as loader:
        given = loader.as_dataloader() if wrapped else loader
        for count, _ in enumerate(given):
            if count == 1:
                given.commit()
            if count == 3:
                break
        state = given.state_dict()
        copied = pickle.loads(pickle.dumps(loader))
        given.load_state_dict(state)
        assert given.state_dict() == state
        assert labels_of(loader) == whole[2:]
        assert given.state_dict() == state
    with copied:
        assert labels_of(copied) == whole[2:]


@pytest.mark.parametrize("where", [None, "cuda"])
def test_set_epoch(device, where):
    device.prompt = True
    with Loader([reader(epochs=5)], device=where) as loader:
        epochs = [labels_of(loader) for _ in range(3)]
        loader.set_epoch(1)
        assert len(iter(loader)) == 6
        assert labels_of(loader) == epochs[1]
        assert labels_of(loader) == epochs[2]
        assert labels_of(loader.epoch(0)) == epochs[0]
        with pytest.raises(EndOfData, match="there is no epoch 5"):
            loader.set_epoch(5)
        with pytest.raises(EndOfData, match="there is no epoch 7"):
            loader.epoch(7)
        with pytest.raises(ArgumentError, match="n is -1"):
            loader.set_epoch(-1)
        loader.set_epoch(2)
        copied = pickle.loads(pickle.dumps(loader))
    with copied:
        assert labels_of(copied) == epochs[2]


@pytest.mark.parametrize("where", [None, "cuda"])
def test_len_is_that_of_the_epoch(device, where):
    device.prompt = True
    counts = [6, 3, 12, 12]
    with Loader([reader(schedule({0: 4, 1: 8, 2: 2}), epochs=4)], device=where) as loader:
        for count in counts:
            assert len(loader) == count
            assert [len(loader) for _ in loader] == [count] * count
        loader.set_epoch(1)
        assert len(loader) == len(iter(loader)) == 3
        assert [len(loader) for _ in loader] == [3] * 3
        data = loader.as_dataloader()
        for epoch, count in enumerate(counts):
            data.set_epoch(epoch)
            assert len(data) == len(list(data)) == count


def test_set_epoch_keeps_the_place_in_a_resumed_epoch():
    """As trainers set the epoch after they have loaded a state."""
    with Loader([reader()]) as loader:
        epochs = [labels_of(loader) for _ in range(3)]
        loader.set_epoch(1)
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
    with Loader([reader()]) as loader:
        loader.load_state_dict(state)
        loader.set_epoch(1)
        assert labels_of(loader) == epochs[1][1:]
        loader.load_state_dict(state)
        loader.set_epoch(2)
        assert labels_of(loader) == epochs[2]


@pytest.mark.parametrize("where", [None, "cuda"])
def test_an_iteration_ends_the_one_before(device, where):
    device.prompt = True
    with Loader([reader(workers=1)], device=where) as loader:
        first = iter(loader)
        next(first)
        next(iter(loader))
        with pytest.raises(PipelineStateError, match="another iteration"):
            next(first)
        second = iter(loader)
        next(second)
        loader.load_state_dict(loader.state_dict())
        with pytest.raises(PipelineStateError, match="a state was loaded"):
            next(second)


def test_source_without_a_length(device):
    device.prompt = True
    for where in (None, "cuda"):
        with Loader([NumbersWithEpochs(3, epochs=2)], device=where) as loader:
            assert [numbers[0].item() for (numbers,) in loader] == [0, 4, 8]
            assert [numbers[0].item() for (numbers,) in loader] == [12, 16, 20]
            with pytest.raises(UnknownLengthError):
                len(loader)
            with pytest.raises(PipelineStateError, match="no state"):
                loader.state_dict()
            assert loader


# Wrong use


def test_two_threads():
    gate = Gate(workers=1)
    with Loader([SizedNumbers(4, epochs=None), gate]) as loader:
        epoch = iter(loader)
        task = Task(next, epoch)
        assert gate.entered.wait(LIMIT)
        for other in (epoch, iter(loader)):
            with pytest.raises(PipelineStateError, match="two threads iterate at the same time"):
                next(other)
        gate.gate.set()
        assert task.result()[0].tolist() == [0, 1, 2, 3]
        with pytest.raises(PipelineStateError, match=r"give each thread a loader"):
            next(epoch)


def test_state_of_another_pipeline():
    with Loader([reader(seed=1)]) as loader, Loader([reader(seed=2)]) as other:
        list(loader)
        with pytest.raises(StateMismatchError, match="seed"):
            other.load_state_dict(loader.state_dict())


def test_pipeline_that_ends_in_a_sink():
    collect = Collect()
    with pytest.raises(PipelineStateError, match="ends in Collect, which consumes all batches"):
        Loader([SizedNumbers(3), collect])
    # It was never started.
    assert not collect.batches
    with Pipeline([SizedNumbers(3), collect]) as pipeline, pytest.raises(PipelineStateError, match="Collect"):
        Loader(pipeline)


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a CUDA device")
def test_cuda_without_a_device():
    for device in ("cuda", "cuda:1", torch.device("cuda", 0)):
        with pytest.raises(ArgumentError, match=r"device is 'cuda.*torch finds no CUDA device"):
            Loader([SizedNumbers()], device=device)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"device": "meta"}, "device is 'meta'; expected None, 'cpu', 'cuda' or 'cuda:N'"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"device": 1.5}, "device is 1.5"),
        ({"channels_last": 1}, "channels_last"),
        ({"as_dict": "yes"}, "as_dict"),
        ({"prefetch": -1}, "prefetch is -1; expected a whole number from 0 to 1000"),
        ({"normalize": "cpu"}, "normalize is 'cpu'; expected None or 'device'"),
        ({"bfloat16": "images"}, "bfloat16"),
        ({"batch_size": 3}, "unknown argument 'batch_size'"),
    ],
)
def test_wrong_arguments_are_named(options, named):
    with pytest.raises(ArgumentError, match=named):
        Loader([SizedNumbers()], **options)


def test_wrong_modules():
    for wrong in (3, [], "photos"):
        with pytest.raises(ArgumentError, match="modules must be a list"):
            Loader(wrong)


def test_error_of_a_module_reaches_the_loop(device):
    def fail(batch):
        raise ValueError("no such batch")

    for where in (None, "cuda"):
        with (
            Loader([reader(), Call(fail)], device=where) as loader,
            pytest.raises(ValueError, match="no such batch"),
        ):
            list(loader)


def test_stop():
    loader = Loader([reader()])
    epoch = iter(loader)
    images, _ = next(epoch)
    loader.stop()
    loader.stop()
    assert images.shape == (4, *SHAPE)
    with pytest.raises(PipelineStateError, match="stopped"):
        next(epoch)
    assert loader.stats().modules[0].batches >= 1
    assert repr(loader).startswith("<Loader of <Pipeline ArrayReader")


def run(*command, folder=None):
    """Run Python in a process that imports the same highway from any folder; return what it prints."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(highway.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        stdin=subprocess.DEVNULL,
    )
    assert not done.returncode, done.stderr
    return done.stdout.strip()


def test_torch_is_imported_when_a_loader_is_made():
    assert run("-c", "import sys, highway.torch; print('torch' in sys.modules)") == "False"


def test_missing_packages_are_named():
    program = """
import sys
from highway.errors import MissingPackageError
from highway.modules import Noise
from highway.torch import Loader
sys.modules[{missing!r}] = None
try:
    Loader([Noise(4, (8, 8))], tv_tensors={tv})
except MissingPackageError as error:
    print(error)
"""
    assert "pip install torch (" in run("-c", program.format(missing="torch", tv=False))
    assert "pip install torchvision" in run("-c", program.format(missing="torchvision", tv=True))


# The DataLoader of torch


def test_as_dataloader():
    with Loader([reader(seed=5)]) as loader:
        data = loader.as_dataloader()
        assert isinstance(data, torch.utils.data.DataLoader)
        assert len(data) == len(loader) == 6
        assert (data.batch_size, data.num_workers) == (None, 0)
        epochs = [labels_of(data) for _ in range(2)]
        for count, (images, _) in enumerate(data):
            assert images.shape == (4, *SHAPE)
            if count == 1:
                break
        state = data.state_dict()
        copied = pickle.loads(pickle.dumps(data))
        with pickle.loads(pickle.dumps(data)).dataset.loader as loader_of_copy:
            rest = labels_of(loader_of_copy)
        data.set_epoch(0)
        assert labels_of(data) == epochs[0]
        data.dataset.set_epoch(1)
        assert labels_of(data) == epochs[1]
        data.load_state_dict(state)
        assert labels_of(data) == rest == labels_of(copied)
        assert len(rest) == 4
        copied.dataset.loader.stop()
        assert len(pickle.loads(pickle.dumps(data.dataset))) == 6


# Documents and the benchmark

PROGRAM = re.compile(r"# (\w+\.py)\n")
DOCUMENT = Document("docs/torch.md")


def test_example_of_the_docstring():
    """Elsewhere it is skipped: torch may be missing."""
    text = Loader.__doc__.replace("# doctest: +SKIP", "")
    example = doctest.DocTestParser().get_doctest(text, {"Loader": Loader}, "Loader", None, None)
    found = doctest.DocTestRunner().run(example)
    assert (found.attempted, found.failed) == (2, 0)


def test_every_program_of_the_page_runs():
    assert [PROGRAM.match(text)[1] for text in DOCUMENT.blocks("python")] == [
        "train.py",
        "detect.py",
        "dataloader.py",
    ]


@pytest.mark.parametrize("text", DOCUMENT.blocks("python"), ids=lambda text: PROGRAM.match(text)[1])
def test_program_of_the_page(tmp_path, text):
    class_folders(tmp_path / "demo-output" / "photos", classes=4, each=9)
    things = thing("dog", (11, 11, 40, 50)), thing("cat", (41, 21, 70, 40))
    voc = voc_folder(
        tmp_path / "VOCdevkit" / "VOC2012", {f"{number:03}": annotation(*things) for number in range(6)}
    )
    (voc / "ImageSets" / "Main" / "train.txt").write_text("000\n001\n", encoding="utf-8")
    run("-c", text, folder=tmp_path)


def test_benchmark_compares_every_batch(device, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    torch_loader = importlib.import_module("torch_loader")
    device.prompt = True
    wrong = torch_loader.wrong_batches("cuda", IMAGES, 4, 2)
    assert device.from_pages >= 4 * 12
    assert wrong == dict.fromkeys(torch_loader.CHAINS, 0)
    device.prompt = False
    assert set(torch_loader.wrong_batches("cuda", IMAGES, 4, 1).values()) == {6}


def test_benchmark_measures(tmp_path):
    script, figures = ROOT / "benchmarks" / "torch_loader.py", tmp_path / "found.json"
    shown = run(script, "--count", 5, "--rounds", 1, "--images", 64, "--step-ms", 1, "--json", figures)
    assert "tensors have the addresses of the arrays: yes" in shown
    assert set(json.loads(figures.read_text())["microseconds"]) > {"arrays", "tensors"}
