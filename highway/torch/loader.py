"""Loader: yields the batches of a pipeline as tensors of torch, on the CPU or on a CUDA device."""

from __future__ import annotations

import copy
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, NamedTuple

from highway._core.pool import allocating
from highway.arguments import flag, whole
from highway.arguments.signatures import explained
from highway.engine import Module, Pipeline
from highway.engine.iteration import EpochIterator, superseded
from highway.engine.stats import PipelineStats
from highway.errors import ArgumentError, MissingPackageError, PipelineStateError
from highway.torch.conversion import prepared
from highway.torch.dataloader import dataloader
from highway.torch.device import Copies, device_of, layer_of
from highway.torch.tensors import Rows, Tensors, rows_of

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
        place = device_of(torch, device)
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
        self._copies = None if place is None else Copies(layer_of(torch, place))
        with self._page_locked():
            self.pipeline, self._given, values = prepared(pipeline, channels_last, on_device)
        self._tensors = Tensors(
            torch,
            values,
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
        # The state of the last `commit`.
        self._committed: dict[str, Any] | None = None
        # The epoch that the next iteration begins, if `set_epoch` has chosen it.
        self._wanted: int | None = None
        # The latest iteration that has begun, as long as it is in use.
        self._latest: weakref.ref[_Epoch] | None = None

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
        self._wanted = None if self.pipeline.resumed_epoch == n else n

    def __len__(self) -> int:
        """Number of batches in an epoch: the one of `set_epoch`, or that is iterated over, or else the next one.

        Epochs differ only where `batch_size` is a schedule; ``pipeline.batches_in(n)`` is the number of epoch n.

        Raises
        ------
        UnknownLengthError
            The source does not know it.
        """
        epoch, latest = self._wanted, None if self._latest is None else self._latest()
        if epoch is None and latest is not None and latest.running:
            epoch = latest.epoch
        return len(self.pipeline) if epoch is None else self.pipeline.batches_in(epoch)

    def __bool__(self) -> bool:
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch that the loop has received; batches copied ahead do not count.

        It is a state of the pipeline: `Pipeline.load_state_dict` takes it too. Once `commit` was called, it is the
        position of the last call instead.

        Raises
        ------
        PipelineStateError
            The pipeline has no state, see `Pipeline.state_dict`.
        """
        return copy.deepcopy(self._reached() if self._committed is None else self._committed)

    def commit(self) -> None:
        """Count the batches that the loop has received as consumed; see `highway.engine.Pipeline.commit`.

        Batches copied ahead do not count: call this one, not that of the pipeline.

        Raises
        ------
        PipelineStateError
            See `state_dict`.
        """
        self._committed = copy.deepcopy(self._reached())

    def _reached(self) -> dict[str, Any]:
        """Return the position after the last batch that the loop has received."""
        return self.pipeline.state_dict() if self._position is None else self._position

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
        if self._committed is not None:
            self.commit()

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

        It has no worker processes and no batch size of its own. It also has `state_dict`, `load_state_dict`,
        `commit` and `set_epoch`.
        """
        return dataloader(self)

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
        state = self._committed or self._position or arguments[-1]
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
        self._over = self._ended = False

    @property
    def epoch(self) -> int | None:
        """Number of the epoch, once it is known."""
        return self._batches.epoch

    @property
    def running(self) -> bool:
        """Whether batches remain for the loop, or its last one is in use."""
        return not self._ended and self._number == self._loader._iteration

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
                return loader._tensors.made(next(self._batches))
            return self._next_on(copies)
        except StopIteration:
            self._ended = True
            raise
        finally:
            loader._turn.release()

    def _begin(self) -> None:
        loader = self._loader
        with loader._page_locked():
            loader.pipeline.start()
        loader._iteration += 1
        self._number, loader._wanted = loader._iteration, None
        loader._latest = weakref.ref(self)

    def _next_on(self, copies: Copies) -> Any:
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
        while not self._over and len(self._ahead) < loader._prefetch and loader.pipeline.ready():
            self._send(copies)
        loader._position = sent.position
        copies.layer.receive(sent.event, [one for one in sent.tensors.values() if not isinstance(one, list)])
        return loader._tensors.finish(sent.tensors, sent.rows)

    def _send(self, copies: Copies) -> None:
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
        self._ahead.append(_Sent(tensors, event, rows_of(batch), position))


class _Sent(NamedTuple):
    """A batch on the device: its tensors, the event of their copy, its rows of boxes, and the position after it."""

    tensors: dict[str, Any]
    event: Any
    rows: Rows | None
    position: dict[str, Any] | None


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError(
            f"highway.torch: torch is not installed: pip install torch ({error})"
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
