"""Processes: worker processes that read a data set, what they answer, and what happens when one is lost."""

from __future__ import annotations

import atexit
import math
import multiprocessing
import multiprocessing.util
import os
import pickle
import queue
import signal
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from mmap import mmap
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import send_handle
from typing import NamedTuple
from weakref import WeakSet, ref

import numpy as np
from numpy.typing import NDArray

from highway._core.pool import allocates
from highway.batch import empty
from highway.errors import (
    ArgumentError,
    ProcessLostError,
    QueueClosed,
    SampleError,
    SampleTimeoutError,
)
from highway.modules.readers.datasets.collation import Schema
from highway.modules.readers.datasets.making import COLLATING, Answer, Failed, Maker, Request
from highway.modules.readers.datasets.shared import Packed, Placed, Slot, Slots, received, views_of
from highway.modules.readers.datasets.worker import IDLE, ends_of_parent, serve

__all__ = ["START_METHODS", "Processes"]

START_METHODS = ("spawn", "forkserver", "fork")

_GRACE = 0.25
"""Seconds that processes have to end by themselves, at a stop."""
_REAPING = 1.0
"""Seconds to wait for a killed process."""
_START_LIMIT = 300.0
"""Seconds that a process has to import what the data set needs."""
_MOST_LOSSES = 3
"""Times that a request is sent again after a process was lost that had begun no sample of it."""
_UNCOPIED = 1 << 20
"""Bytes of a batch that stays where its process wrote it; a smaller one is copied, which costs less than a map."""


_START = object()


class _Lost(Exception):
    """A process ended, or was ended as it took too long.

    Attributes
    ----------
    row : int
        The row of the request that it was making, `COLLATING`, or `IDLE`.
    error : type of SampleError
    """

    def __init__(self, row: int, error: type[SampleError], text: str) -> None:
        super().__init__(text)
        self.row, self.error = row, error


class _Raised(Exception):
    """The process answered with an exception that ends the pipeline."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


class _RemoteTraceback(Exception):
    """The traceback of an exception in a worker process, as text."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


class Processes:
    """Worker processes. Several threads may use it at once.

    A process belongs to the thread that took it from the free ones.

    Parameters
    ----------
    owner : str
        For errors.
    maker : Maker
    count : int
    start_method : str
    timeout : float or None
        Seconds for a sample.
    """

    def __init__(
        self, owner: str, maker: Maker, count: int, start_method: str, timeout: float | None
    ) -> None:
        self._owner = owner
        self._maker = maker
        self._count = count
        self._start_method = start_method
        self._timeout = timeout
        self._context: BaseContext = multiprocessing.get_context(start_method)
        self._slots = Slots()
        self._given: Packed | Maker | None = None
        # `_START`: one that is still to be started. None: the processes end, and so do those who wait for one.
        self._free: queue.SimpleQueue[_Process | object | None] = queue.SimpleQueue()
        self._all: list[_Process] = []
        self.closing = False
        self._parent = os.getpid()
        _running.add(self)

    def start(self) -> None:
        """Start the processes.

        Raises
        ------
        ArgumentError
            The data set cannot be pickled, or this process may have no processes of its own.
        OSError
            The system cannot start a process.
        """
        if multiprocessing.current_process().daemon:
            raise ArgumentError(
                f"{self._owner}: processes is {self._count} in a process of multiprocessing that is a daemon, which "
                "may have no processes of its own; expected processes=0 there"
            )
        if self._given is None:
            self._given = self._maker if self._start_method == "fork" else self._pickled()
        if self._start_method != "fork":
            # When it begins to run, it unblocks Ctrl-C in this thread, which `_Process` blocks.
            resource_tracker.ensure_running()
        for _ in range(self._count):
            self._free.put(self._new())

    def _pickled(self) -> Packed:
        try:
            return Packed(self._maker)
        except Exception as error:
            raise ArgumentError(
                f"{self._owner}: processes={self._count} needs a dataset and a collate that can be pickled, and "
                f"pickling raised {type(error).__name__}: {error}; expected classes and functions of a module (no "
                "lambda, no open file), or start_method='fork'"
            ) from error

    def _new(self) -> _Process:
        assert self._given is not None
        process = _Process(self._owner, self._context, self._given)
        self._all.append(process)
        if self.closing:
            self._forget(process)
            raise self._ended()
        return process

    def _forget(self, process: _Process) -> None:
        process.end()
        with suppress(ValueError):
            self._all.remove(process)

    def _ended(self) -> QueueClosed:
        return QueueClosed(f"{self._owner}: its worker processes have ended")

    def make(self, request: Request) -> Answer:
        """Make a batch; a sample whose process is lost is a failure, and nothing else is then in the answer.

        Raises
        ------
        ProcessLostError, SampleTimeoutError
            A process was lost, or took too long, but not in a sample.
        QueueClosed
            `interrupt` was called.
        Exception
            What `Maker.plan` raises.
        """
        losses = 0
        while True:
            process = self._take()
            try:
                reply = process.ask(request, self._timeout, self._slots)
            except _Lost as lost:
                self._replace(process)
                if lost.row >= 0:
                    return Answer(
                        {}, {}, {lost.row: Failed(str(lost), lost.error(str(lost)))}, request.schema
                    )
                if lost.row == COLLATING and not request.singly and self._maker.items.batched:
                    # To find out with which sample.
                    request = request._replace(singly=True)
                    continue
                losses += 1
                joining = lost.row == COLLATING
                # What hangs while it joins samples would hang again.
                if losses == _MOST_LOSSES or (joining and lost.error is SampleTimeoutError):
                    doing = "while samples were joined" if joining else "between two samples"
                    raise lost.error(
                        f"{self._owner}: {lost} {doing}; last, of the samples {_few(request.numbers)}"
                    ) from None
                continue
            except _Raised as raised:
                self._put(process)
                raise raised.error from raised.error.__cause__
            except BaseException:
                self._replace(process)
                raise
            self._put(process)
            return reply.answer(self._slots)

    def _take(self) -> _Process:
        process = self._free.get()
        if isinstance(process, _Process):
            return process
        if process is None:
            # For the next one who waits.
            self._free.put(None)
            raise self._ended()
        try:
            return self._new()
        except BaseException:
            self._put(_START)
            raise

    def _put(self, process: object) -> None:
        self._free.put(process)
        if self.closing:
            self._end_free()

    def _replace(self, process: _Process) -> None:
        """Note that another process is to be started instead of a lost one."""
        self._forget(process)
        self._put(_START)

    def interrupt(self) -> None:
        """End all processes. Waits for them, for a little more than a second at most, and takes no lock."""
        self.closing = True
        self._slots.close()
        processes = [*self._all]
        for process in processes:
            process.hang_up()
        deadline = time.monotonic() + _GRACE
        while processes and (left := deadline - time.monotonic()) > 0:
            with suppress(OSError, ValueError):
                wait([process.sentinel for process in processes], left)
            processes = [process for process in processes if process.is_alive()]
        for process in processes:
            process.kill()
        self._end_free()

    def _end_free(self) -> None:
        """End the processes that no thread uses, and wake the threads that wait for one."""
        while True:
            try:
                process = self._free.get_nowait()
            except queue.Empty:
                break
            if isinstance(process, _Process):
                self._forget(process)
        self._free.put(None)


_running: WeakSet[Processes] = WeakSet()
_exiting = False
"""Whether the interpreter ends: `multiprocessing` then joins processes itself, which fails where one was closed."""


def _end_all() -> None:
    """End all processes at the end of the interpreter."""
    global _exiting
    _exiting = True
    for processes in [*_running]:
        if processes._parent == os.getpid():
            processes.interrupt()


# Called before what `multiprocessing.util` has registered, which ends processes too, but not those that replace them.
atexit.register(_end_all)


class _Reply(NamedTuple):
    """The answer of a process, whose arrays are in a slot."""

    placed: list[Placed]
    failures: dict[int, tuple[str, tuple[bytes | None, str] | None]]
    schema: Schema | None
    slot: Slot

    def answer(self, slots: Slots) -> Answer:
        """Return the batch, over the memory of the slot; a small one is copied into memory of the pool."""
        arrays, offsets = {}, {}
        nbytes = sum(place.dtype.itemsize * math.prod(place.shape) for place in self.placed)
        # Memory of an allocator is special, such as page-locked.
        copies = nbytes < _UNCOPIED or allocates() or not slots.may_hand_over
        if self.placed:
            memory = self.slot.memory() if copies else slots.hand_over(self.slot)
        for place in self.placed:
            arrays[place.name], starts = views_of(memory, place)
            if copies:
                out = empty(place.shape, place.dtype)
                np.copyto(out, arrays[place.name])
                arrays[place.name] = out
            if starts is not None:
                offsets[place.name] = starts.copy()
        if copies:
            slots.give(self.slot)
        failures = {
            row: Failed(text, None if packed is None else _unpacked(packed))
            for row, (text, packed) in self.failures.items()
        }
        return Answer(arrays, offsets, failures, self.schema)


class _Process:
    """One worker process; used by one thread at a time."""

    def __init__(self, owner: str, context: BaseContext, given: Packed | Maker) -> None:
        self._owner = owner
        ours, theirs = context.Pipe()
        self._connection: Connection = ours
        ends_of_parent.add(ours)
        self._process: BaseProcess = context.Process(  # type: ignore[attr-defined]
            target=serve, args=(theirs, given), name=f"{owner} worker", daemon=True
        )
        # A new process has the mask of this thread: Ctrl-C is for the parent, also before `serve` runs.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.sentinel = self._process.sentinel
        self._pid = self._process.pid
        self._progress: mmap | None = None
        # The slots that it has, by their numbers.
        self._slots: dict[int, ref[Slot]] = {}

    def ask(self, request: Request, timeout: float | None, slots: Slots) -> _Reply:
        """Send a request and wait for the answer; a slot into which the process may still write is dropped."""
        try:
            if self._progress is None:
                self._await_start()
            slot = slots.take()
            dropped = [number for number, known in self._slots.items() if known() is None]
            for number in dropped:
                del self._slots[number]
            sent = request, slot.number, dropped
            self._connection.send_bytes(pickle.dumps(sent, pickle.HIGHEST_PROTOCOL))
            if slot.number not in self._slots:
                send_handle(self._connection, slot.file, self._pid)
                self._slots[slot.number] = ref(slot)
            self._await(timeout)
            kind, *answer = pickle.loads(self._connection.recv_bytes())
            if kind == "raised":
                slots.give(slot)
                raise _Raised(_unpacked(answer[0]))
            placed, failures, schema = answer
            return _Reply(placed, failures, schema, slot)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise self._lost() from None

    def _await_start(self) -> None:
        deadline = time.monotonic() + _START_LIMIT
        while not self._is_there(1.0):
            if time.monotonic() > deadline:
                raise ProcessLostError(
                    f"{self._owner}: a worker process was not ready after {_START_LIMIT:.0f} s; expected that it "
                    "imports and unpickles the dataset sooner"
                )
        try:
            kind, *answer = pickle.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionResetError):
            self._process.join(_REAPING)
            raise ProcessLostError(
                f"{self._owner}: a worker process {_end_of(self._process.exitcode)} before it was ready; its error is "
                "on stderr. A script that starts processes needs `if __name__ == '__main__':` before its first "
                "statement that does something, since the processes import it"
            ) from None
        if kind == "failed":
            text, trace = answer
            error = ProcessLostError(
                f"{self._owner}: a worker process could not unpickle the dataset: {text}; expected classes and "
                "functions that the process can import: a notebook puts them into a module, or uses start_method='fork'"
            )
            error.__cause__ = _RemoteTraceback(trace)
            raise error
        self._progress = received(self._connection)

    def _await(self, timeout: float | None) -> None:
        """Wait for the answer; raises _Lost where a sample takes longer than `timeout` seconds."""
        row, since = self._row(), time.monotonic()
        while not self._is_there(1.0 if timeout is None else min(1.0, timeout / 4)):
            now, before = time.monotonic(), row
            row = self._row()
            if row != before:
                since = now
            elif timeout is not None and now - since > timeout:
                raise _Lost(
                    row,
                    SampleTimeoutError,
                    f"took longer than timeout={timeout:g} s, so that its process was ended",
                )

    def _is_there(self, seconds: float) -> bool:
        """Whether an answer, or the end of the process, comes within some time."""
        if self._connection in wait([self._connection, self.sentinel], seconds):
            return True
        # Where another process has its end of the connection, its end is not seen there.
        if self._process.is_alive():
            return False
        if self._connection.poll():
            return True
        raise EOFError

    def _row(self) -> int:
        if self._progress is None:
            return IDLE
        row: int = struct.unpack_from("q", self._progress)[0]
        return row

    def _lost(self) -> _Lost:
        self._process.join(_REAPING)
        return _Lost(
            self._row(),
            ProcessLostError,
            f"was being made when its worker process {_end_of(self._process.exitcode)}",
        )

    # The end

    def is_alive(self) -> bool:
        with suppress(ValueError):
            return self._process.is_alive()
        return False

    def hang_up(self) -> None:
        """Close the connection for both sides: the process ends when it waits for a request, and `ask` raises."""
        with suppress(OSError, ValueError), socket.socket(fileno=os.dup(self._connection.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)

    def kill(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            self._process.kill()

    def end(self) -> None:
        """End the process. The connection closes with this object: another thread may be about to hang up."""
        self.hang_up()
        ends_of_parent.discard(self._connection)
        with suppress(ValueError, AssertionError):
            self._process.kill()
            self._process.join(_REAPING)
            if not _exiting:
                self._process.close()


def _end_of(code: int | None) -> str:
    if code is None:
        return "closed its connection"
    if code < 0:
        return f"was killed by {_signal(-code)}"
    return f"ended with exit code {code}"


def _signal(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"


def _unpacked(packed: tuple[bytes | None, str]) -> BaseException:
    """Return the exception of another process, with its traceback as the cause."""
    pickled, trace = packed
    error: BaseException
    try:
        error = pickle.loads(pickled) if pickled is not None else SampleError(trace.splitlines()[-1])
    except Exception:
        # The class exists in the worker process only.
        error = SampleError(trace.splitlines()[-1])
    error.__cause__ = _RemoteTraceback(trace)
    return error


def _few(indices: Sequence[int] | NDArray[np.int64]) -> str:
    shown = ", ".join(str(index) for index in indices[:8])
    return shown + (", ..." if len(indices) > 8 else "")
