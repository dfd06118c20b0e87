"""Storage that fails for a while: what cannot be read now is tried again, for a time.

A disk that is unplugged, a server of files that restarts or a network that is down says nothing about a file. So these
errors make no sample a bad one: everything that failed is read again, and where the storage does not come back in time
the reader ends with a `StorageError`, whatever its policy for bad samples.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from highway._core.jpeg import codec as jpeg
from highway.errors import HighwayError, PipelineStateError, StorageError

__all__ = ["LIMIT", "Outages", "ask", "may_pass"]

logger = logging.getLogger("highway.modules")

LIMIT = 30.0
"""Seconds from the first failure to the last try: a server that restarts is back by then."""

# Seconds between two tries: twice as long each time.
_SHORTEST = 0.02
_LONGEST = 1.0

Answer = TypeVar("Answer")


def may_pass(number: int | None) -> bool:
    """Whether an error of the system, an errno, says that the storage failed, and nothing about the file."""
    return number is not None and jpeg.failure(number) == jpeg.STORAGE


class Outages:
    """What the threads of a reader do while the storage fails.

    A try is one for everything that waits in a thread, so that an outage lasts as long for a batch as for a file.
    The first thread that waits logs a warning, and the last one that the storage is back.

    Parameters
    ----------
    owner : str
        Who reads, for errors and the log.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        # Free once it is over. A finalizer may set that, in a thread that is in the middle of anything: it may not
        # take a lock, and `threading.Event` has one.
        self._gate = threading.Lock()
        self._gate.acquire()
        # Of the files that wait in all threads: how many there are, and were at most; and since when.
        self._lock = threading.Lock()
        self._waiting = self._most = 0
        self._since = 0.0

    def interrupt(self) -> None:
        """Wake the threads that wait, now and from now on: they raise PipelineStateError. Takes no lock."""
        with suppress(RuntimeError):
            self._gate.release()

    def patiently(self, read: Callable[[], Answer]) -> Answer:
        """What `read` returns, called again while it raises StorageError.

        Raises
        ------
        StorageError
            It did so for `LIMIT` seconds.
        PipelineStateError
            Somebody called `interrupt`.
        """
        try:
            return read()
        except StorageError as error:
            failed = error
        with self._outage(1, failed) as wait:
            while True:
                wait.pause(failed, 1)
                try:
                    return read()
                except StorageError as error:
                    failed = error

    def retried(
        self,
        failures: Mapping[int, HighwayError],
        again: Callable[[NDArray[np.int64]], Mapping[int, HighwayError]],
    ) -> dict[int, HighwayError]:
        """Read again the rows of a batch that the storage failed at.

        Parameters
        ----------
        failures : mapping of int to HighwayError
            What went wrong with a row.
        again : callable
            Reads the rows that it is given, int64 (K,), once more, and returns what went wrong with them.

        Returns
        -------
        dict of int to HighwayError
            `failures` without any StorageError: what is wrong with rows themselves.

        Raises
        ------
        StorageError, PipelineStateError
            As `patiently`.
        """
        wrong, away = _parted(failures)
        if not away:
            return wrong
        with self._outage(len(away), next(iter(away.values()))) as wait:
            while away:
                wait.pause(next(iter(away.values())), len(away))
                found, away = _parted(again(np.array(sorted(away), np.int64)))
                wrong |= found
        return wrong

    @contextmanager
    def _outage(self, files: int, error: StorageError) -> Iterator[_Wait]:
        """Count files that wait, and log the begin and the end of the outage."""
        with self._lock:
            first = not self._waiting
            self._waiting += files
            self._most = self._waiting if first else max(self._most, self._waiting)
            if first:
                self._since = time.monotonic()
        if first:
            logger.warning(
                "%s; the storage failed: %d file(s) wait, and are tried again for up to %g s",
                error,
                files,
                LIMIT,
            )
        back = False
        try:
            yield _Wait(self._owner, self._gate)
            back = True
        finally:
            with self._lock:
                self._waiting -= files
                last, most, seconds = not self._waiting, self._most, time.monotonic() - self._since
            if back and last:
                logger.warning(
                    "%s: the storage is back after %.1f s; %d file(s) waited", self._owner, seconds, most
                )


class _Wait:
    """The tries of one thread."""

    def __init__(self, owner: str, gate: threading.Lock) -> None:
        self._owner, self._gate = owner, gate
        self._began = time.monotonic()
        self._tries = 0
        self._delay = _SHORTEST

    def pause(self, error: StorageError, files: int) -> None:
        """Wait until it is time for the next try."""
        self._tries += 1
        seconds = time.monotonic() - self._began
        if seconds >= LIMIT:
            others = f", and {files - 1} more file(s) wait" if files > 1 else ""
            raise StorageError(
                f"{error}; the storage failed: {self._tries} tries in {seconds:.1f} s{others}. Check the disk, or the "
                "server and the network that the files come over, and begin again when they work; no sample was "
                "counted as a bad one for this"
            ) from error
        if self._gate.acquire(timeout=min(self._delay, LIMIT - seconds)):
            # For the others.
            with suppress(RuntimeError):
                self._gate.release()
            raise PipelineStateError(f"{self._owner}: the pipeline was stopped while the storage failed")
        self._delay = min(2 * self._delay, _LONGEST)


def _parted(
    failures: Mapping[int, HighwayError],
) -> tuple[dict[int, HighwayError], dict[int, StorageError]]:
    """What is wrong with rows themselves, and what may pass."""
    away = {row: error for row, error in failures.items() if isinstance(error, StorageError)}
    return {row: error for row, error in failures.items() if row not in away}, away


def ask(owner: str, path: str | bytes, call: Callable[[], Answer]) -> Answer:
    """What the system answers about a file or folder, asked again while the storage fails.

    For what is done before there is a pipeline: nobody but Ctrl-C can end the wait.

    Parameters
    ----------
    owner, path : str
        Who asks for what, for errors.
    call : callable
        Raises OSError; may be called again.

    Raises
    ------
    StorageError
        The storage failed for `LIMIT` seconds.
    OSError
        Any other error.
    """

    def once() -> Answer:
        try:
            return call()
        except OSError as error:
            if may_pass(error.errno):
                raise StorageError(
                    f"{owner}: {os.fsdecode(path)} cannot be read: {os.strerror(error.errno or 0)}"
                ) from error
            raise

    return Outages(owner).patiently(once)
