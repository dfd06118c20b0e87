"""Storage outages: failed reads are retried for a limited time.

An unplugged disk, a file server that restarts or a broken network says nothing about a file. So these errors do not
count as bad samples: every failed read is retried, and if the storage does not recover in time, the reader raises
`StorageError`, whatever its policy for bad samples.
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
"""Seconds from the first failure to the last retry: enough for the restart of a server."""

# Seconds between two retries; doubled each time.
_SHORTEST = 0.02
_LONGEST = 1.0

Answer = TypeVar("Answer")


def may_pass(number: int | None) -> bool:
    """Return whether an errno means that the storage failed, rather than the file."""
    return number is not None and jpeg.failure(number) == jpeg.STORAGE


class Outages:
    """Retries the reads of a reader's threads during storage outages.

    One retry covers everything that waits in a thread, so an outage takes the same time for a batch as for a file.
    The first thread that waits logs the start of the outage, the last one its end.

    Parameters
    ----------
    owner : str
        Name of the reader, for errors and the log.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        # Released by `interrupt`. A finalizer may call it in the middle of any code: it must not take a lock, and
        # `threading.Event` has one.
        self._gate = threading.Lock()
        self._gate.acquire()
        # Files that wait in all threads: current and largest number, and the start of the outage.
        self._lock = threading.Lock()
        self._waiting = self._most = 0
        self._since = 0.0

    def interrupt(self) -> None:
        """Wake all waiting threads, now and later: they raise PipelineStateError. Takes no lock."""
        with suppress(RuntimeError):
            self._gate.release()

    def patiently(self, read: Callable[[], Answer]) -> Answer:
        """Return the result of `read`, which is called again while it raises StorageError.

        Raises
        ------
        StorageError
            The storage failed for `LIMIT` seconds.
        PipelineStateError
            `interrupt` was called.
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
        """Retry the rows of a batch for which the storage failed.

        Parameters
        ----------
        failures : mapping of int to HighwayError
            Error of each failed row.
        again : callable
            Reads the given rows, int64 (K,), again, and returns their errors.

        Returns
        -------
        dict of int to HighwayError
            Errors of the rows themselves, without any StorageError.

        Raises
        ------
        StorageError, PipelineStateError
            As for `patiently`.
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
        """Count waiting files, and log the start and end of the outage."""
        with self._lock:
            first = not self._waiting
            self._waiting += files
            self._most = self._waiting if first else max(self._most, self._waiting)
            if first:
                self._since = time.monotonic()
        if first:
            logger.warning(
                "%s; the storage failed: %d file(s) wait; retrying for up to %g s",
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
    """The retries of one thread."""

    def __init__(self, owner: str, gate: threading.Lock) -> None:
        self._owner, self._gate = owner, gate
        self._began = time.monotonic()
        self._tries = 0
        self._delay = _SHORTEST

    def pause(self, error: StorageError, files: int) -> None:
        """Wait until the next retry is due."""
        self._tries += 1
        seconds = time.monotonic() - self._began
        if seconds >= LIMIT:
            others = f", and {files - 1} more file(s) wait" if files > 1 else ""
            raise StorageError(
                f"{error}; the storage failed: {self._tries} tries in {seconds:.1f} s{others}. Check the disk, or the "
                "file server and the network, and start again when they work; no sample was counted as bad"
            ) from error
        if self._gate.acquire(timeout=min(self._delay, LIMIT - seconds)):
            # Pass it on to the other threads.
            with suppress(RuntimeError):
                self._gate.release()
            raise PipelineStateError(f"{self._owner}: the pipeline was stopped while the storage failed")
        self._delay = min(2 * self._delay, _LONGEST)


def _parted(
    failures: Mapping[int, HighwayError],
) -> tuple[dict[int, HighwayError], dict[int, StorageError]]:
    """Split errors into those of the rows themselves and storage failures."""
    away = {row: error for row, error in failures.items() if isinstance(error, StorageError)}
    return {row: error for row, error in failures.items() if row not in away}, away


def ask(owner: str, path: str | bytes, call: Callable[[], Answer]) -> Answer:
    """Return the result of a system call on a file or folder; retries it during storage outages.

    For calls before the pipeline starts: only Ctrl-C can interrupt the wait.

    Parameters
    ----------
    owner, path : str
        Name of the reader and path of the file, for errors.
    call : callable
        The system call; raises OSError; may be called again.

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
