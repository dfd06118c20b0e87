"""RowGroups: decodes row groups once, some time before they are needed, and keeps those that are in use."""

from __future__ import annotations

import itertools
import math
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from highway.arguments.limits import MOST_WORKERS
from highway.errors import (
    DatasetError,
    HighwayError,
    ObjectChangedError,
    PipelineStateError,
    QueueClosed,
    StorageError,
)
from highway.sampling.sampler import Task

__all__ = ["RowGroups"]

Decoded = TypeVar("Decoded")

# A worker that waits for another one looks this often whether the pipeline was stopped, in seconds.
_LOOK = 0.05
# Most tasks that are announced: an endless source may need few row groups again and again.
_MOST_TASKS = 1024
# Decoded row groups without announced use that are kept, for the replacements of bad samples.
_STRAYS = 2


class RowGroups(Generic[Decoded]):
    """The decoded row groups of a run, shared by its workers.

    `announced` passes tasks on and looks ahead: it notes which row groups the next tasks need, as far as all of those
    fit into `most_bytes`. Workers decode announced row groups evenly over the tasks before them, and a row group is
    freed after the last announced task that needs it. Nothing depends on the announcements but the speed.

    Parameters
    ----------
    owner : str
        Name of the reader, for errors.
    nbytes : int64 (G,)
        Bytes of each decoded row group.
    groups_of : callable
        Returns the row groups, int64 (N,), of samples (N,).
    decode : callable
        Decodes a row group; raises HighwayError.
    fetch : callable or None
        Runs once for each announced row group, before `decode`, with the number of the task that needs it first, and
        row groups, int64 (K,); returns at once. StorageErrors of `decode` are then final: they are raised.
    most_bytes : int
        Most bytes of the row groups that are announced or decoded; one more may be decoded for each worker, and always
        as many as one task needs.
    release : callable or None
        Drops what `fetch` got with a number and was not decoded.

    Attributes
    ----------
    decodes : int
        How often a row group was decoded.
    """

    def __init__(
        self,
        owner: str,
        nbytes: NDArray[np.int64],
        groups_of: Callable[[NDArray[np.int64]], NDArray[np.int64]],
        decode: Callable[[int], Decoded],
        fetch: Callable[[int, NDArray[np.int64]], None] | None,
        most_bytes: int,
        release: Callable[[int], None] | None = None,
    ) -> None:
        self._owner = owner
        self._nbytes = nbytes
        self._groups_of = groups_of
        self._decode = decode
        self._fetch = fetch
        self._most_bytes = most_bytes
        self._release = release
        self._changed = threading.Condition()
        # A plain attribute: `interrupt` must not take a lock.
        self._closed = False
        # Row groups of the announced tasks that were not loaded yet, and how many of those tasks need each row group.
        self._tasks: dict[tuple[int, int], list[int]] = {}
        self._uses: Counter[int] = Counter()
        self._bytes = 0
        # Announced row groups to decode, each with the number of the first task that needs it.
        self._due: deque[tuple[int, int]] = deque()
        self._number = itertools.count()
        self._at: dict[tuple[int, int], int] = {}
        self._decoding: set[int] = set()
        self._decoded: OrderedDict[int, Decoded | HighwayError] = OrderedDict()
        self.decodes = 0

    def interrupt(self) -> None:
        """Wake all workers: `take` raises QueueClosed from now on. Takes no lock."""
        self._closed = True

    def announced(self, tasks: Iterable[Task]) -> Iterator[Task]:
        """Yield tasks, and announce those after them; drops what was announced before."""
        self._pass_over(math.inf)
        coming: deque[Task] = deque()
        left = iter(tasks)
        following: Task | None = next(left, None)
        while following is not None or coming:
            # Always the next task, then as many as fit.
            while following is not None and (
                not coming or (len(coming) < _MOST_TASKS and self._fits(following))
            ):
                self._announce(following)
                coming.append(following)
                following = next(left, None)
            task = coming.popleft()
            self._announce(task)
            self._pass_over(self._at.get((task.epoch, task.seq), 0) - MOST_WORKERS)
            yield task

    def begin(self, task: Task) -> None:
        """Decode row groups ahead in the turn of a task: its share of those that are due next.

        Raises
        ------
        QueueClosed, DatasetError, OSError, MemoryError
            As `take`.
        """
        for group in self._share(task):
            self._all([group])

    def finish(self, task: Task) -> None:
        """Note that a task needs its row groups no longer."""
        with self._changed:
            number = self._done((task.epoch, task.seq))
            self._drop()
        if number is not None and self._release is not None:
            self._release(number)

    def _done(self, key: tuple[int, int]) -> int | None:
        """Forget an announced task; returns its number."""
        for group in self._tasks.pop(key, ()):
            self._uses[group] -= 1
            if not self._uses[group]:
                del self._uses[group]
                self._bytes -= int(self._nbytes[group])
        return self._at.pop(key, None)

    def _pass_over(self, before: float) -> None:
        """Forget the tasks with numbers before this one: a data machine may pass over tasks."""
        gone = []
        with self._changed:
            # In the order of their numbers.
            for key, number in [*itertools.takewhile(lambda item: item[1] < before, self._at.items())]:
                self._done(key)
                gone.append(number)
            if gone:
                self._drop()
        if self._release is not None:
            for number in gone:
                self._release(number)

    def take(self, indices: NDArray[np.int64]) -> dict[int, Decoded | HighwayError]:
        """Return the row groups of samples, decoded or with their error; decodes those that are not.

        Raises
        ------
        QueueClosed
            `interrupt` was called.
        DatasetError, OSError, MemoryError
            As `decode` raises.
        """
        return self._all(np.unique(self._groups_of(indices)).tolist())

    def _all(self, needed: list[int]) -> dict[int, Decoded | HighwayError]:
        found: dict[int, Decoded | HighwayError] = {}
        missing = needed
        while missing:
            mine: int | None = None
            with self._changed:
                for group in missing:
                    if group in self._decoded:
                        self._decoded.move_to_end(group)
                        found[group] = self._decoded[group]
                missing = [group for group in missing if group not in found]
                if missing:
                    # What another worker decodes comes last.
                    mine = next((group for group in missing if group not in self._decoding), None)
                    if self._closed:
                        raise QueueClosed(f"{self._owner}: the pipeline was stopped")
                    if mine is None:
                        self._changed.wait(_LOOK)
                        continue
                    self._decoding.add(mine)
            if mine is not None:
                found[mine] = self._decode_one(mine)
                missing = [group for group in missing if group != mine]
        return found

    def _decode_one(self, group: int) -> Decoded | HighwayError:
        made: Decoded | HighwayError | None = None
        try:
            made = self._decode(group)
        except (DatasetError, ObjectChangedError, PipelineStateError):
            raise
        except StorageError as error:
            if self._fetch is not None:
                raise
            # The next call tries again.
            return error
        except HighwayError as error:
            made = error
        finally:
            with self._changed:
                self._decoding.discard(group)
                if made is not None:
                    self.decodes += 1
                    self._decoded[group] = made
                    self._drop()
                self._changed.notify_all()
        return made

    def _drop(self) -> None:
        """Free row groups without announced use, the least recently used first."""
        unused = [group for group in self._decoded if not self._uses[group]]
        for group in unused[: max(0, len(unused) - _STRAYS)]:
            del self._decoded[group]
        held = sum(int(self._nbytes[group]) for group in self._decoded)
        while held > self._most_bytes and len(self._decoded) > 1:
            # More tasks than announced: the oldest goes, and is decoded again where it is needed.
            group, _ = next(iter(self._decoded.items()))
            held -= int(self._nbytes[group])
            del self._decoded[group]

    # Announcements

    def _needed(self, task: Task) -> list[int]:
        found: list[int] = np.unique(self._groups_of(task.numbers)).tolist()
        return found

    def _fits(self, task: Task) -> bool:
        with self._changed:
            more = sum(int(self._nbytes[group]) for group in self._needed(task) if not self._uses[group])
            return self._bytes + more <= self._most_bytes

    def _announce(self, task: Task) -> None:
        key = task.epoch, task.seq
        new = []
        with self._changed:
            if key in self._tasks:
                return
            number = self._at[key] = next(self._number)
            self._tasks[key] = self._needed(task)
            for group in self._tasks[key]:
                if not self._uses[group]:
                    self._bytes += int(self._nbytes[group])
                    if group not in self._decoded:
                        self._due.append((number, group))
                        new.append(group)
                self._uses[group] += 1
        if new and self._fetch is not None:
            self._fetch(number, np.array(new, np.int64))

    def _share(self, task: Task) -> list[int]:
        with self._changed:
            at = self._at.get((task.epoch, task.seq))
            while self._due and (self._due[0][1] in self._decoded or not self._uses[self._due[0][1]]):
                self._due.popleft()
            # What the next task needs, that task decodes.
            if at is None or not self._due or self._due[0][0] <= at + 1:
                return []
            count = -(-len(self._due) // (self._due[0][0] - at))
            return [self._due.popleft()[1] for _ in range(count)]
