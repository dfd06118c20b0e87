"""Loader: yields the batches of a pipeline as tensors of torch, on the CPU or on a CUDA device."""

from __future__ import annotations

import copy
import functools
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway._core.pool import allocating
from highway.arguments import flag, whole
from highway.arguments.signatures import explained
from highway.batch import Batch
from highway.engine import Module, Pipeline, Sink
from highway.engine.iteration import EpochIterator, superseded
from highway.engine.stats import PipelineStats
from highway.errors import (
    ArgumentError,
    EndOfData,
    MissingPackageError,
    PipelineStateError,
    QueueClosed,
    WaitTimeout,
)
from highway.modules.stages.augmentations import Augmentations
from highway.modules.stages.pad_boxes import PadBoxes
from highway.transforms.values import Values

__all__ = ["Loader"]

# Batches on the device before the loop needs them; each takes memory there.
MOST_PREFETCH = 1000


class Loader:
    """Yields the batches of a pipeline as tensors: ``for images, labels in loader`` is one epoch.

    On the CPU, a tensor shares the memory of its batch. On a CUDA device, the threads of the pipeline write large
    arrays into page-locked memory, and batches are copied on a stream of their own while the network trains.

    A batch is a tuple of the fields in their order, or a dict. If samples have different numbers of boxes, it is
    ``(images, targets)`` instead, as the detection models of torchvision take them: `targets` is a list with one dict
    for each image, with its rows of the other fields and extras, such as `boxes`, `labels` and `masks`.

    Parameters
    ----------
    pipeline : Pipeline or sequence of Module
        A pipeline that does not end in a sink, or the modules to make one of.
    device : str or torch.device, optional
        "cuda" or "cuda:N"; None and "cpu" are the CPU.
    channels_last : bool
        Return images as (N, C, H, W) whose channels are adjacent in memory, without a copy. If the last transform is a
        `Normalize` with layout "NCHW", it writes (N, H, W, C) instead. By default images have the layout of the batch.
    as_dict : bool
        Return dicts of the fields and extras, or with ragged boxes ``{"images": ..., "targets": ...}``.
    prefetch : int
        Batches to copy to the device ahead, 0 to 1000; has no effect on the CPU.
    normalize : {None, "device"}
        "device": take the `Normalize`, `Rescale` or `ToFloat` at the end of the transforms out of the pipeline, copy
        bytes, and compute it on the device. Values are equal within the rounding of floats.
    bfloat16 : bool, optional
        Whether images of uint16 are the bits of bfloat16. By default they are where the last transform of the pipeline
        writes bfloat16; set it if another machine does.
    tv_tensors : bool
        Return images, boxes and masks as ``torchvision.tv_tensors``; images are then (N, C, H, W), without a copy.

    Raises
    ------
    ArgumentError
        An argument is out of range; there is no such CUDA device; there is nothing to normalize on the device.
    MissingPackageError
        torch is not installed, or, for `tv_tensors`, torchvision.
    PipelineStateError
        The pipeline ends in a sink; or it has started, and `normalize` or `channels_last` would change its modules.

    Attributes
    ----------
    pipeline : Pipeline
        The pipeline that makes the batches: the given one, unless its modules were changed.

    Notes
    -----
    One thread at a time iterates. The pipeline belongs to the loader: `stop` stops it, and batches that you take from
    it directly are missing in the loader. Arrays of strings and other objects become lists.

    Page-locked memory needs a pipeline whose threads have not started, so give the modules or a new pipeline. Copies
    from other memory are correct too, but slower. A batch keeps its page-locked memory until its copy is done.

    A loader pickles as its pipeline: the modules and the position.

    Examples
    --------
    >>> from highway.modules import Noise
    >>> with Loader([Noise(4, (8, 8))]) as loader:  # doctest: +SKIP
    ...     images, labels = next(iter(loader))
    ...     images.shape, images.dtype
    (torch.Size([4, 8, 8, 3]), torch.uint8)
    """

    @explained()
    def __init__(
        self,
        pipeline: Pipeline | Sequence[Module],
        *,
        device: Any = None,
        channels_last: bool = False,
        as_dict: bool = False,
        prefetch: int = 2,
        normalize: str | None = None,
        bfloat16: bool | None = None,
        tv_tensors: bool = False,
    ) -> None:
        torch = _torch()
        place = _device_of(torch, device)
        channels_last = flag("Loader", "channels_last", channels_last)
        as_dict = flag("Loader", "as_dict", as_dict)
        self._prefetch = whole("Loader", "prefetch", prefetch, 0, MOST_PREFETCH)
        if normalize not in (None, "device"):
            raise ArgumentError(f"Loader: normalize is {normalize!r}; expected None or 'device'")
        on_device = normalize == "device"
        bfloat16 = None if bfloat16 is None else flag("Loader", "bfloat16", bfloat16)
        tv = _tv_tensors() if flag("Loader", "tv_tensors", tv_tensors) else None
        # For a pickle.
        self._options = {
            "device": None if place is None else str(place),
            "channels_last": channels_last,
            "as_dict": as_dict,
            "prefetch": self._prefetch,
            "normalize": normalize,
            "bfloat16": bfloat16,
            "tv_tensors": tv is not None,
        }
        self._copies = None if place is None else _Copies(_layer_of(torch, place))
        with self._page_locked():
            self.pipeline, self._given, conversion = _prepared(pipeline, channels_last, on_device)
        self._tensors = _Tensors(
            torch,
            conversion,
            on_device=on_device,
            bfloat16=bfloat16,
            channels_last=channels_last,
            as_dict=as_dict,
            tv=tv,
        )
        # Held while a batch is taken.
        self._turn = threading.Lock()
        # Number of the last iteration; the position after its last batch, where batches are taken ahead.
        self._iteration = 0
        self._position: dict[str, Any] | None = None
        # The epoch that the next iteration begins, if `set_epoch` has chosen it.
        self._wanted: int | None = None

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the next epoch, or the one of `set_epoch`; after `load_state_dict`, over its rest.

        Raises
        ------
        EndOfData
            No epoch remains.
        PipelineStateError
            Another thread iterates at the same time; or another iteration has begun since this one.
        Exception
            As the iteration of `highway.engine.Pipeline`.
        """
        wanted = self._wanted
        return _Epoch(self, iter(self.pipeline) if wanted is None else self.pipeline.epoch(wanted))

    def epoch(self, n: int) -> Iterator[Any]:
        """Iterate over epoch `n` from its start, whatever was iterated before.

        Raises
        ------
        ArgumentError
            `n` is not 0 or more.
        EndOfData
            The source has not so many epochs.
        """
        return _Epoch(self, self.pipeline.epoch(n))

    def set_epoch(self, n: int) -> None:
        """Make `n` the epoch of the next iteration.

        The rest of this epoch, if a state in the middle of it was loaded; otherwise the whole epoch.

        Raises
        ------
        ArgumentError
            `n` is not 0 or more.
        EndOfData
            The source has not so many epochs.
        """
        # Checks it, and begins nothing.
        self.pipeline.epoch(n)
        resumed = self.pipeline._resumed and self.pipeline._next_epoch == n
        self._wanted = None if resumed else n

    def __len__(self) -> int:
        """Number of batches in an epoch.

        Raises
        ------
        UnknownLengthError
            The source does not know it.
        """
        return len(self.pipeline)

    def __bool__(self) -> bool:
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch that the loop has received; batches copied ahead do not count.

        It is a state of the pipeline: `Pipeline.load_state_dict` takes it too.

        Raises
        ------
        PipelineStateError
            The pipeline has no state, see `Pipeline.state_dict`.
        """
        return self.pipeline.state_dict() if self._position is None else copy.deepcopy(self._position)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a position that `state_dict` returned: the next iteration is the rest of its epoch.

        Raises
        ------
        StateMismatchError
            The state is not valid, or belongs to another pipeline. Nothing was loaded.
        """
        with self._page_locked():
            self.pipeline.load_state_dict(state)
        self._iteration += 1
        self._position = self._wanted = None

    def stats(self) -> PipelineStats:
        """Return the statistics of the pipeline; batches that were copied ahead count as returned."""
        return self.pipeline.stats()

    def stop(self) -> None:
        """Stop the pipeline, and wait for copies in progress; tensors stay valid. You may call it again."""
        self.pipeline.stop()
        if self._copies is not None:
            self._copies.finish()

    def as_dataloader(self) -> Any:
        """Return a ``torch.utils.data.DataLoader`` that yields the batches of this loader, for tools that need one.

        It has no worker processes and no batch size of its own. It also has `state_dict`, `load_state_dict` and
        `set_epoch`.
        """
        return _dataloader(self)

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        device = self._options["device"]
        return f"<Loader of {self.pipeline!r}{'' if device is None else f', device={device!r}'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        remake, arguments = self.pipeline.__reduce__()
        # Where batches were taken ahead, the pipeline is further than the loop.
        state = arguments[-1] if self._position is None else self._position
        return _remade, (remake, (list(self._given), *arguments[1:-1], state), self._options, self._wanted)

    def _page_locked(self) -> AbstractContextManager[None]:
        """Return a context in which pipelines make their pools with page-locked memory."""
        return nullcontext() if self._copies is None else allocating(self._copies.layer.allocate)


def _remade(
    remake: Any, arguments: tuple[Any, ...], options: Mapping[str, Any], wanted: int | None
) -> Loader:
    """Make a loader from its pickle."""
    loader = Loader(remake(*arguments), **options)
    loader._wanted = wanted
    return loader


class _Epoch(Iterator[Any]):
    """Yields the batches of one epoch as tensors; ``len()`` is their number."""

    def __init__(self, loader: Loader, batches: EpochIterator) -> None:
        self._loader = loader
        self._batches = batches
        # Number of this iteration, once it has begun.
        self._number: int | None = None
        self._thread: int | None = None
        # Batches that are on the device, or on their way.
        self._ahead: deque[_Sent] = deque()
        self._over = False

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> _Epoch:
        return self

    def __next__(self) -> Any:
        loader, thread = self._loader, threading.get_ident()
        if self._thread not in (None, thread) or not loader._turn.acquire(blocking=False):
            raise PipelineStateError(
                "Loader: two threads iterate at the same time; expected one: take batches in one thread and share them "
                "through a queue.Queue, or give each thread a loader with a shard of its own"
            )
        try:
            self._thread = thread
            if self._number is None:
                self._begin()
            copies = loader._copies
            if copies is None:
                batch = next(self._batches)
                return loader._tensors.finish(loader._tensors.of(batch), _rows_of(batch))
            return self._next_on(copies)
        finally:
            loader._turn.release()

    def _begin(self) -> None:
        loader = self._loader
        with loader._page_locked():
            loader.pipeline.start()
        loader._iteration += 1
        self._number, loader._wanted = loader._iteration, None

    def _next_on(self, copies: _Copies) -> Any:
        """Return the next batch on the device, after beginning the copies of those that are ready."""
        loader = self._loader
        if loader._iteration != self._number:
            self._ahead.clear()
            raise superseded()
        if not self._ahead and not self._over:
            self._send(copies)
        if not self._ahead:
            raise StopIteration
        sent = self._ahead.popleft()
        while not self._over and len(self._ahead) < loader._prefetch and _is_ready(loader.pipeline):
            self._send(copies)
        loader._position = sent.position
        copies.layer.receive(sent.event, [one for one in sent.tensors.values() if not isinstance(one, list)])
        return loader._tensors.finish(sent.tensors, sent.rows)

    def _send(self, copies: _Copies) -> None:
        """Take a batch and begin its copy; sets `_over` where there is none."""
        loader = self._loader
        try:
            batch = next(self._batches)
        except StopIteration:
            self._over = True
            return
        try:
            position = loader.pipeline.state_dict()
        except PipelineStateError:
            # `Loader.state_dict` asks the pipeline again, and raises.
            position = None
        tensors, event = copies.send(loader._tensors.of(batch))
        self._ahead.append(_Sent(tensors, event, _rows_of(batch), position))


class _Sent(NamedTuple):
    """A batch on the device: its tensors, the event of their copy, its rows of boxes, and the position after it."""

    tensors: dict[str, Any]
    event: Any
    rows: _Rows | None
    position: dict[str, Any] | None


def _is_ready(pipeline: Pipeline) -> bool:
    """Whether taking the next batch of a pipeline would not wait."""
    try:
        pipeline._last.peek(block=False)
    except WaitTimeout:
        return False
    except (EndOfData, QueueClosed):
        return True
    return True


# Tensors


class _Tensors:
    """Makes tensors of batches, in the form that the loop receives."""

    def __init__(
        self,
        torch: Any,
        conversion: _Conversion | None,
        *,
        on_device: bool,
        bfloat16: bool | None,
        channels_last: bool,
        as_dict: bool,
        tv: Any,
    ) -> None:
        self._torch = torch
        values = None if conversion is None else conversion.values
        self._layout = None if values is None else values.layout
        self._numbers = _Numbers(torch, values, channels_last) if on_device and values is not None else None
        written = values is not None and values.dtype == "bfloat16" and not on_device
        self._bfloat16 = written if bfloat16 is None else bfloat16
        self._channels_last = channels_last
        self._as_dict = as_dict
        self._tv = tv

    def of(self, batch: Batch) -> dict[str, Any]:
        """Return tensors that share the memory of a batch, and lists instead of arrays of objects."""
        arrays = batch.fields
        if self._as_dict or batch.ragged:
            arrays = {**arrays, **batch.extras}
        return {name: self._tensor(name, array) for name, array in arrays.items()}

    def _tensor(self, name: str, array: NDArray[Any]) -> Any:
        if not (array.flags.carray and array.dtype.isnative) and not _is_taken(array):
            array = np.array(array, array.dtype.newbyteorder("="), order="C")
        if self._bfloat16 and name == "images" and array.dtype == np.uint16:
            return self._torch.from_numpy(array.view(np.int16)).view(self._torch.bfloat16)
        try:
            return self._torch.from_numpy(array)
        except TypeError:
            if array.dtype.kind in "OSU":
                return array.tolist()
            raise ArgumentError(
                f"Loader: field {name!r} is {array.dtype}, and torch has no such type; expected numbers: drop "
                "or convert it in a stage"
            ) from None

    def finish(self, tensors: dict[str, Any], rows: _Rows | None) -> Any:
        """Return what the loop receives; changes the dict `tensors`."""
        images = tensors.get("images")
        if images is not None and images.ndim == 4:
            tensors["images"] = images = self._images(images)
        if rows is not None:
            return self._detection(tensors, rows)
        if self._tv is not None and "masks" in tensors:
            tensors["masks"] = self._tv.Mask(tensors["masks"])
        return tensors if self._as_dict else tuple(tensors.values())

    def _images(self, images: Any) -> Any:
        planar = images.dtype != self._torch.uint8 and (
            images.shape[3] > 4 if self._layout is None else self._layout == "NCHW"
        )
        if self._numbers is not None:
            images, planar = self._numbers.of(images)
        if self._channels_last or self._tv is not None:
            if not planar:
                images = images.permute(0, 3, 1, 2)
            elif self._channels_last and not images.is_contiguous(memory_format=self._torch.channels_last):
                raise ArgumentError(
                    f"Loader: channels_last is True, and images are (N, C, H, W), {tuple(images.shape)}; expected "
                    '(N, H, W, C): use layout="NHWC" where they are normalized'
                )
        return images if self._tv is None else self._tv.Image(images)

    def _detection(self, tensors: dict[str, Any], rows: _Rows) -> Any:
        """Return images and a list of targets."""
        images = tensors.pop("images", None)
        columns = {name: rows.split(name, values) for name, values in tensors.items()}
        targets = [{name: column[i] for name, column in columns.items()} for i in range(rows.count)]
        if self._tv is not None:
            for target in targets:
                if "boxes" in target:
                    target["boxes"] = self._tv.BoundingBoxes(
                        target["boxes"], format="XYXY", canvas_size=tuple(images.shape[-2:])
                    )
                if "masks" in target:
                    target["masks"] = self._tv.Mask(target["masks"])
        if self._as_dict:
            return {"targets": targets} if images is None else {"images": images, "targets": targets}
        return (targets,) if images is None else (images, targets)


def _is_taken(array: NDArray[Any]) -> bool:
    """Whether torch takes the array without a copy."""
    return array.flags.writeable and array.dtype.isnative and min(array.strides, default=0) >= 0


class _Rows:
    """Which rows of the arrays of a batch with boxes belong to which sample."""

    def __init__(self, batch: Batch) -> None:
        assert batch.offsets is not None
        self.count = batch.size
        self._ragged = batch.ragged
        self._offsets = batch.offsets.tolist()

    def split(self, name: str, values: Any) -> Sequence[Any]:
        """Return the rows of each sample: views of a tensor, or parts of a list."""
        if name in self._ragged:
            pairs = zip(self._offsets, self._offsets[1:], strict=False)
            return [values[start:end] for start, end in pairs]
        if isinstance(values, list):
            return values
        return [values] * self.count if values.ndim == 0 else list(values.unbind())


def _rows_of(batch: Batch) -> _Rows | None:
    return _Rows(batch) if batch.ragged else None


class _Numbers:
    """Computes on the device what a Normalize writes on the CPU."""

    def __init__(self, torch: Any, values: Values, channels_last: bool) -> None:
        self._torch = torch
        self._values = values
        self._planar = values.layout == "NCHW" and not channels_last
        self._dtype = getattr(torch, values.dtype)
        self._factors: dict[tuple[int, Any], tuple[Any, Any]] = {}

    def of(self, images: Any) -> tuple[Any, bool]:
        """Return the numbers of uint8 images (N, H, W, C), and whether they are (N, C, H, W)."""
        torch = self._torch
        if images.dtype != torch.uint8:
            raise ArgumentError(
                f"Loader: normalize is 'device', and images are {images.dtype} of shape {tuple(images.shape)}; "
                "expected bytes (N, H, W, C)"
            )
        scale, bias = self._factors_for(images)
        if self._planar:
            images = images.permute(0, 3, 1, 2)
            scale, bias = scale[:, None, None], bias[:, None, None]
        numbers = images.to(torch.float32, memory_format=torch.contiguous_format)
        return numbers.mul_(scale).add_(bias).to(self._dtype), self._planar

    def _factors_for(self, images: Any) -> tuple[Any, Any]:
        """Return scale and bias of each channel, on the device of the images."""
        key = images.shape[3], images.device
        found = self._factors.get(key)
        if found is None:
            scale, bias = self._values.factors(images.shape[3])
            found = tuple(self._torch.tensor(one, device=images.device) for one in (scale, bias))
            self._factors[key] = found
        return found


# Modules that a loader changes


class _Conversion(NamedTuple):
    """The last conversion of bytes to numbers in some modules, and where it is."""

    values: Values
    module: int
    step: int
    # Whether no other transform, and no module that may read images, comes after it.
    is_last: bool


def _conversion_in(modules: Sequence[Any]) -> _Conversion | None:
    for place in range(len(modules) - 1, -1, -1):
        module = modules[place]
        if not isinstance(module, Augmentations):
            continue
        for step in range(len(module.transforms) - 1, -1, -1):
            values = module.transforms[step]
            if isinstance(values, Values):
                is_last = (
                    type(module) is Augmentations
                    and step == len(module.transforms) - 1
                    and all(type(after) is PadBoxes for after in modules[place + 1 :])
                )
                return _Conversion(values, place, step, is_last)
    return None


def _prepared(
    pipeline: Any, channels_last: bool, on_device: bool
) -> tuple[Pipeline, tuple[Module, ...], _Conversion | None]:
    """Return the pipeline to run, the modules as given, and their last conversion to numbers."""
    made = isinstance(pipeline, Pipeline)
    modules = pipeline._given if isinstance(pipeline, Pipeline) else pipeline
    if isinstance(modules, (list, tuple)) and modules and isinstance(modules[-1], Sink):
        raise PipelineStateError(
            f"Loader: the pipeline ends in {modules[-1].name}, which consumes all batches; expected one without a "
            "sink: give the loader the pipeline that receives them"
        )
    found = _conversion_in(modules) if isinstance(modules, (list, tuple)) else None
    if on_device:
        if found is None or not found.is_last:
            raise ArgumentError(
                "Loader: normalize is 'device', and the transforms do not end in a Normalize, Rescale or ToFloat, with "
                "no module but PadBoxes after them; expected one to compute on the device"
            )
        replacement = None
    elif channels_last and found is not None and found.is_last and found.values.layout == "NCHW":
        replacement = copy.copy(found.values)
        replacement.layout = "NHWC"
        found = found._replace(values=replacement)
    else:
        return pipeline if made else Pipeline(pipeline), tuple(modules), found
    if made and pipeline._started:
        raise PipelineStateError(
            f"Loader: {'normalize' if on_device else 'channels_last'} changes the modules of the pipeline, which has "
            "started; expected a pipeline that has not: give the loader its modules"
        )
    changed = _replaced(modules, found, replacement)
    if made:
        remake, (_, *arguments) = pipeline.__reduce__()
        return remake(changed, *arguments), tuple(modules), found
    return Pipeline(changed), tuple(modules), found


def _replaced(modules: Sequence[Module], found: _Conversion, replacement: Values | None) -> list[Module]:
    """Return the modules with another last conversion, or without it."""
    module = modules[found.module]
    assert isinstance(module, Augmentations)
    transforms = [*module.transforms[: found.step], *([] if replacement is None else [replacement])]
    others = list(modules)
    if not transforms:
        del others[found.module]
        return others
    _, (kind, arguments, keywords) = module.__reduce__()
    if arguments:
        arguments = (transforms, *arguments[1:])
    else:
        keywords = {**keywords, "transforms": transforms}
    others[found.module] = kind(*arguments, **keywords)
    return others


# Devices


class _Copies:
    """Copies batches to a device, and keeps their memory on this side until the copies are done."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        # Events, and the tensors whose copies they end, oldest first.
        self._pending: deque[tuple[Any, dict[str, Any]]] = deque()
        weakref.finalize(self, _finish, layer, self._pending).atexit = False

    def send(self, tensors: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """Begin to copy tensors; return those on the device, and the event that ends the copies."""
        while self._pending and self.layer.is_done(self._pending[0][0]):
            self._pending.popleft()
        sent: dict[str, Any] = {}
        with self.layer.copying():
            try:
                for name, tensor in tensors.items():
                    sent[name] = tensor if isinstance(tensor, list) else self.layer.copy(tensor)
            finally:
                # Also of some of the copies, if one fails.
                event = self.layer.record()
                self._pending.append((event, tensors))
        return sent, event

    def finish(self) -> None:
        """Wait until all copies are done."""
        _finish(self.layer, self._pending)


def _finish(layer: Any, pending: deque[tuple[Any, dict[str, Any]]]) -> None:
    while pending:
        layer.wait(pending[0][0])
        pending.popleft()


class _Cuda:
    """All that a loader does with a CUDA device: memory, a stream, events and copies."""

    def __init__(self, torch: Any, device: Any) -> None:
        self._torch = torch
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def allocate(self, nbytes: int) -> NDArray[np.uint8]:
        """Return page-locked memory; see `highway._core.pool.BufferPool`."""
        torch = self._torch
        with torch.cuda.device(self._device):
            memory: NDArray[np.uint8] = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True).numpy()
        return memory

    def copying(self) -> AbstractContextManager[Any]:
        """Return a context in which `copy` and `record` use the stream of the copies."""
        context: AbstractContextManager[Any] = self._torch.cuda.stream(self._stream)
        return context

    def copy(self, tensor: Any) -> Any:
        """Begin to copy a tensor to the device."""
        return tensor.to(self._device, non_blocking=True)

    def record(self) -> Any:
        """Return an event that is done when all copies that have begun are."""
        event = self._torch.cuda.Event()
        event.record(self._stream)
        return event

    def is_done(self, event: Any) -> bool:
        return bool(event.query())

    def wait(self, event: Any) -> None:
        """Wait in this thread until an event is done."""
        event.synchronize()

    def receive(self, event: Any, tensors: Sequence[Any]) -> None:
        """Make the current stream wait for an event, and keep the memory of the tensors as long as it uses them."""
        stream = self._torch.cuda.current_stream(self._device)
        stream.wait_event(event)
        for tensor in tensors:
            tensor.record_stream(stream)


def _device_of(torch: Any, device: Any) -> Any:
    """Return a CUDA device, or None for the CPU."""
    if device is None:
        return None
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ArgumentError(f"Loader: device is {device!r}; expected None, 'cpu', 'cuda' or 'cuda:N'")
    if found.type == "cpu":
        return None
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (found.index or 0) >= count:
        why = "" if torch.version.cuda else f"; torch {torch.__version__} is built without CUDA"
        raise ArgumentError(
            f"Loader: device is {str(found)!r}, and torch finds {count or 'no'} CUDA device{'s' if count > 1 else ''}"
            f"{why}; expected one that is there, or None for the CPU"
        )
    return found


def _layer_of(torch: Any, device: Any) -> Any:
    """Return the operations on a CUDA device."""
    return _Cuda(torch, torch.device("cuda", torch.cuda.current_device()) if device.index is None else device)


# Packages


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError(
            f'highway.torch: torch is not installed: pip install "highway-loader[torch]" ({error})'
        ) from None
    return torch


def _tv_tensors() -> Any:
    try:
        from torchvision import tv_tensors
    except ImportError as error:
        raise MissingPackageError(
            f"Loader: tv_tensors is True, and torchvision is not installed: pip install torchvision ({error})"
        ) from None
    return tv_tensors


# The DataLoader


@functools.cache
def _dataloader_class() -> Any:
    """Return the class of `Loader.as_dataloader`; made late, since its base needs torch."""
    from torch.utils.data import DataLoader, IterableDataset

    class Batches(IterableDataset):  # type: ignore[misc]
        """The batches of a loader as a dataset of torch."""

        def __init__(self, loader: Loader) -> None:
            self.loader = loader

        def __iter__(self) -> Iterator[Any]:
            return iter(self.loader)

        def __len__(self) -> int:
            return len(self.loader)

        def set_epoch(self, n: int) -> None:
            self.loader.set_epoch(n)

        def __reduce__(self) -> tuple[Any, ...]:
            return _batches, (self.loader,)

    class LoaderOfBatches(DataLoader):  # type: ignore[misc]
        """A loader of Highway as a DataLoader of torch."""

        def __init__(self, loader: Loader) -> None:
            super().__init__(Batches(loader), batch_size=None, num_workers=0, collate_fn=_unchanged)

        def state_dict(self) -> dict[str, Any]:
            return self.dataset.loader.state_dict()  # type: ignore[no-any-return]

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            self.dataset.loader.load_state_dict(state)

        def set_epoch(self, n: int) -> None:
            self.dataset.set_epoch(n)

        def __reduce__(self) -> tuple[Any, ...]:
            return _dataloader, (self.dataset.loader,)

    return LoaderOfBatches


def _dataloader(loader: Loader) -> Any:
    return _dataloader_class()(loader)


def _batches(loader: Loader) -> Any:
    return _dataloader(loader).dataset


def _unchanged(batch: Any) -> Any:
    return batch
