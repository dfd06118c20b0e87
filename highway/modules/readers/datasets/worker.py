"""What a worker process does: answers requests for batches until its parent is gone."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from mmap import mmap
from multiprocessing.connection import Connection, wait
from multiprocessing.process import parent_process
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any
from weakref import WeakSet

import numpy as np

from highway.modules.readers.datasets.making import Maker
from highway.modules.readers.datasets.shared import Packed, Room, file_in_memory

__all__ = ["IDLE", "PROGRESS_BYTES", "ends_of_parent", "serve"]

IDLE = -1
"""Progress between two requests."""

PROGRESS_BYTES = 4096

ends_of_parent: WeakSet[Connection] = WeakSet()
"""The parent's ends of the connections: a forked process closes them, so that its siblings see when one closes."""


def serve(connection: Connection, given: Packed | Maker) -> None:
    """Answer the requests that arrive, until the connection ends.

    Parameters
    ----------
    connection : Connection
    given : Packed or Maker
        Pickled, unless this process was forked.
    """
    # Ctrl-C is for the parent, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for end in [*ends_of_parent]:
        with suppress(OSError):
            end.close()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    parent = os.getppid()
    try:
        try:
            maker: Maker = given.value() if isinstance(given, Packed) else given
            del given
            torch = sys.modules.get("torch")
            if torch is not None:
                # Processes run in parallel; the threads of a forked torch would hang.
                torch.set_num_threads(1)
        except BaseException as error:
            connection.send_bytes(pickle.dumps(("failed", _text(error), _trace(error))))
            return
        file = file_in_memory(PROGRESS_BYTES)
        progress = np.frombuffer(mmap(file, PROGRESS_BYTES), np.int64)
        progress[0] = IDLE
        rooms: dict[int, Room] = {}
        connection.send_bytes(pickle.dumps(("ready",)))
        send_handle(connection, file, parent)
        os.close(file)
        while True:
            request, number, dropped = pickle.loads(connection.recv_bytes())
            for unused in dropped:
                del rooms[unused]
            if number not in rooms:
                rooms[number] = Room(recv_handle(connection))
            answer = _answer(maker, request, rooms[number], lambda row: progress.__setitem__(0, row))
            progress[0] = IDLE
            connection.send_bytes(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # The parent needs it no longer.
        return


def _answer(maker: Maker, request: Any, room: Room, mark: Callable[[int], None]) -> bytes:
    """Return the answer to a request."""
    try:
        plan = maker.plan(request, mark, room.rows_for)
        placed = room.write(plan.arrays)
        failures = {row: (failed.text, _packed(failed.cause)) for row, failed in plan.failures.items()}
        return pickle.dumps(("made", placed, failures, plan.schema))
    except BaseException as error:
        return pickle.dumps(("raised", _packed(error)))


def _packed(error: BaseException | None) -> tuple[bytes | None, str] | None:
    """Return an exception as bytes, if it can be pickled, and its traceback as text."""
    if error is None:
        return None
    try:
        packed: bytes | None = pickle.dumps(error)
        pickle.loads(packed)  # type: ignore[arg-type]
    except Exception:
        # An exception of the user may need other arguments than it has kept.
        packed = None
    return packed, _trace(error)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))


def _end_with_parent() -> None:
    """End this process when its parent ends, also while the data set works."""
    parent = parent_process()
    assert parent is not None and parent.pid is not None
    ends: list[Any] = [parent.sentinel]
    try:
        # The pipe of the sentinel stays open while another process that the parent forked has it.
        ends.append(os.pidfd_open(parent.pid))
    except ProcessLookupError:
        os._exit(1)
    except (AttributeError, OSError):
        # A kernel, or its sandbox, without it.
        pass
    wait(ends)
    os._exit(1)
