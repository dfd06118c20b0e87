"""Devices: which one a loader copies batches to, and how the copies keep their memory."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway.errors import ArgumentError

__all__ = ["Copies", "device_of", "layer_of"]


class Copies:
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


class Cuda:
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


def device_of(torch: Any, device: Any) -> Any:
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


def layer_of(torch: Any, device: Any) -> Any:
    """Return the operations on a CUDA device."""
    return Cuda(torch, torch.device("cuda", torch.cuda.current_device()) if device.index is None else device)
