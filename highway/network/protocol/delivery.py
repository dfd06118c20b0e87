"""State at the two ends of a chain: the position of the data machine, and the deliveries of the training machine.

Both are pure, like the links between them.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple, Protocol

from highway.errors import StateMismatchError
from highway.network.protocol.link import delivered
from highway.network.protocol.messages import Cursor, Data, Key, Kind, Progress

__all__ = ["Delivery", "Feed", "Numbering", "Wanted"]


class Wanted(NamedTuple):
    """The item that a data machine has to produce next.

    Attributes
    ----------
    key : Key
    kind : Kind
        A batch, the end of an epoch, or the end of the data.
    position : int
        Number of the batch, counted from the first of the first epoch.
    """

    key: Key
    kind: Kind
    position: int


class Numbering(Protocol):
    """Numbers the batches of all epochs, as a source that knows its length does: see `highway.engine.Source`."""

    def batches_in(self, epoch: int) -> int: ...
    def number_of(self, epoch: int, seq: int = 0) -> int: ...
    def batch_at(self, number: int) -> tuple[int, int]: ...


class Feed:
    """Yields the items of one stream that a cursor lacks, in order.

    Parameters
    ----------
    stream : int
    numbering : Numbering, optional
        Batches of the epochs. Without it, all batches count as one epoch.

    Attributes
    ----------
    base : Key
        The first item that is not delivered.
    total : int or None
        Number of batches of all epochs; known once the source has ended.
    """

    def __init__(self, stream: int, numbering: Numbering | None) -> None:
        self.stream = stream
        self._numbering = numbering
        self.total: int | None = None
        self._cursor = Cursor(0)
        self._next: Key | None = Key(0, 0, stream)
        self.base = Key(0, 0, stream)

    def counted(self, cursor: Cursor) -> int:
        """Return the least number of batches that the stream must have for a cursor to be valid."""
        progress = cursor.streams[self.stream] if cursor.streams else Progress()
        last = progress.beyond[-1] + 1 if progress.beyond else progress.base
        return last if self._numbering is None else self._numbering.number_of(cursor.epoch, last)

    def halt(self) -> None:
        """Request nothing more until the next `seek`."""
        self._next = None

    def seek(self, cursor: Cursor) -> None:
        """Move, back or forward, to the first item that the cursor lacks."""
        self._take(cursor)
        self._next = self.base

    def update(self, cursor: Cursor) -> None:
        """Update from a newer cursor."""
        self._take(cursor)
        if self._next is not None:
            self._next = max(self._next, self.base)

    def _take(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self.base = Key(cursor.epoch, cursor.streams[self.stream].base if cursor.streams else 0, self.stream)

    def next(self, horizon: int) -> Wanted | None:
        """Return the next item; None where there is none, or none within the horizon.

        Parameters
        ----------
        horizon : int
            Most items in flight, counted from the base, 1 or more.
        """
        while self._next is not None:
            key = self._next
            # Rule 3.
            if self._number(key) - self._number(self.base) >= horizon:
                return None
            wanted = self._at(key)
            if wanted.kind is Kind.END_OF_DATA:
                self._next = None
            elif wanted.kind is Kind.END_OF_EPOCH:
                self._next = Key(key.epoch + 1, 0, self.stream)
            else:
                self._next = Key(key.epoch, key.seq + 1, self.stream)
            if not delivered(self._cursor, key):
                return wanted
        return None

    def _number(self, key: Key) -> int:
        # An epoch of unknown length is the only one; all others have an end, which counts too.
        numbering = self._numbering
        return key.seq if numbering is None else numbering.number_of(key.epoch, key.seq) + key.epoch

    def _at(self, key: Key) -> Wanted:
        numbering = self._numbering
        position = key.seq if numbering is None else numbering.number_of(key.epoch, key.seq)
        if numbering is None and key.epoch:
            return Wanted(key, Kind.END_OF_DATA, position)
        if self.total is not None and position >= self.total:
            ends_epoch = key.seq or numbering is None
            return Wanted(key, Kind.END_OF_EPOCH if ends_epoch else Kind.END_OF_DATA, position)
        if numbering is not None and key.seq == numbering.batches_in(key.epoch):
            return Wanted(key, Kind.END_OF_EPOCH, position)
        return Wanted(key, Kind.BATCH, position)

    def end(self, total: int) -> None:
        """Note that the source ends after `total` batches; the item that discovered the end is requested again."""
        self.total = total
        last = Key(*((0, total) if self._numbering is None else self._numbering.batch_at(total)), self.stream)
        self._next = last if self._next is None else min(self._next, last)

    @property
    def all_requested(self) -> bool:
        """Whether everything up to the end of the data was requested."""
        return self._next is None

    @property
    def finished(self) -> bool:
        """Whether the training machine has everything, by its last cursor."""
        if self.total is None:
            return False
        epoch, seq = (0, 1) if self._numbering is None else self._numbering.batch_at(self.total)
        return self._cursor.epoch >= epoch + bool(seq)


class Delivery:
    """Tracks what a training machine has received and delivered, and releases what is next.

    An item is released once everything before it was released: in an ordered delivery every item with a lower key,
    otherwise only the previous epochs.

    Parameters
    ----------
    cursor : Cursor
        Starting point.
    ordered : bool
        Release in the order of keys.
    streams : int, optional
        Expected number of data machines; not checked by default.

    Attributes
    ----------
    released : deque of Data
        Items ready for delivery, in order.
    finished : bool
        Whether all data was delivered.
    world : int
        Number of streams; 0 while unknown.
    delivered : int
        Items delivered or skipped since this object was made.
    nbytes : int
        Bytes of a batch, on average and about; 0 before the first one.
    remarks : list
        What the ends of epochs carry: the bad samples of the data machines; not checked.
    releases_skipped : bool
        Whether skipped items are released too, for somebody who waits for every item.
    """

    def __init__(self, cursor: Cursor, ordered: bool = False, streams: int | None = None) -> None:
        self.ordered = ordered
        self.streams = streams
        self.generation = cursor.generation
        self.owner = cursor.owner
        self.nbytes, self._average = 0, 0.0
        self.remarks: list[Any] = []
        self.releases_skipped = False
        self.epoch = cursor.epoch
        self.fingerprint = cursor.fingerprint
        self.released: deque[Data] = deque()
        self.finished = False
        self.delivered = 0
        self._base = [progress.base for progress in cursor.streams]
        self._beyond = [set(progress.beyond) for progress in cursor.streams]
        self.world = len(self._base)
        # Items that cannot be released yet, by epoch.
        self._waiting: dict[int, dict[Key, Data]] = {}
        self._out: set[Key] = set()
        # Of the current epoch: how many batches a stream has, where that is known, and which have ended.
        self._totals: dict[int, int] = {}
        self._ended: set[int] = set()
        # In an ordered delivery, the first place that was not released.
        self._place = (0, 0)

    @property
    def cursor(self) -> Cursor:
        """The delivered items."""
        streams = tuple(
            Progress(base, tuple(sorted(beyond)))
            for base, beyond in zip(self._base, self._beyond, strict=True)
        )
        return Cursor(self.generation, self.epoch, streams, self.fingerprint, self.owner, self.nbytes)

    @property
    def outstanding(self) -> int:
        """Number of items that were released but not delivered."""
        return len(self._out)

    def knows(self, key: Key) -> bool:
        """Whether the item is here or was delivered, so that another copy is a duplicate."""
        if key.epoch == self.epoch:
            if self._delivered(key) or self._totals.get(key.stream, -1) == key.seq or key in self._out:
                return True
            if key.seq == 0 and key.stream in self._ended:
                return True
        return key.epoch < self.epoch or key in self._waiting.get(key.epoch, ())

    def _delivered(self, key: Key) -> bool:
        stream = key.stream
        return stream < self.world and (key.seq < self._base[stream] or key.seq in self._beyond[stream])

    def arrive(self, data: Data) -> bool:
        """Add an item that is not known.

        Returns
        -------
        bool
            True to acknowledge the item when it is delivered, False to acknowledge it now.

        Raises
        ------
        StateMismatchError
            Its data differ from the data of the previous items.
        """
        self._check(data)
        self._measure(data.item.nbytes)
        key = data.key
        self._waiting.setdefault(key.epoch, {})[key] = data
        if key.epoch == self.epoch:
            self._release()
        # Rules 11 and 12.
        return key in self._out

    def _measure(self, nbytes: int) -> None:
        if not nbytes:
            return
        self._average += (nbytes - self._average) * (0.1 if self._average else 1.0)
        # In steps: each change is sent to all data machines.
        if not 0.8 * self.nbytes <= self._average <= 1.25 * self.nbytes:
            self.nbytes = max(1, int(self._average))

    def _check(self, data: Data) -> None:
        if self.fingerprint and data.fingerprint != self.fingerprint:
            raise StateMismatchError(
                f"ZMQSource: {_where(data)} comes from other data (fingerprint {data.fingerprint}) than the state or "
                f"the previous batches (fingerprint {self.fingerprint}); every data machine needs the same samples, "
                "seed and batch size for the whole run, and its own stream= if there are several"
            )
        if self.streams not in (None, data.world):
            raise StateMismatchError(
                f"ZMQSource: {_where(data)} comes from a data machine of {data.world}; expected {self.streams} "
                "(streams)"
            )
        if not self.world:
            self.world = data.world
            self._base = [0] * data.world
            self._beyond = [set() for _ in range(data.world)]
        if data.world != self.world or not 0 <= data.key.stream < self.world:
            raise StateMismatchError(
                f"ZMQSource: {_where(data)} comes from a data machine of {data.world}, but the state or the previous "
                f"batches come from {self.world}; every data machine needs stream=(i, {self.world}) of the ZMQSink"
            )
        self.fingerprint = data.fingerprint

    def _release(self) -> None:
        while True:
            waiting = self._waiting.get(self.epoch)
            if waiting:
                self._release_some(waiting)
            if not self._epoch_is_over():
                return
            self._waiting.pop(self.epoch, None)
            self.epoch += 1
            self._base = [0] * self.world
            self._beyond = [set() for _ in range(self.world)]
            self._totals.clear()
            self._place = (0, 0)

    def _release_some(self, waiting: dict[Key, Data]) -> None:
        """Release the items of the current epoch that are next, and note the ends of its streams."""
        for key in [key for key, data in waiting.items() if data.item.kind >= Kind.END_OF_EPOCH]:
            item = waiting.pop(key).item
            self.remarks += item.meta
            if item.kind is Kind.END_OF_DATA:
                self._ended.add(key.stream)
            else:
                self._totals[key.stream] = key.seq
        if self.ordered:
            self._release_in_order(waiting)
        else:
            for data in list(waiting.values()):
                self._release_one(waiting, data)

    def _release_in_order(self, waiting: dict[Key, Data]) -> None:
        while self.world:
            seq, stream = self._place
            key = Key(self.epoch, seq, stream)
            over = stream in self._ended or seq >= self._totals.get(stream, seq + 1)
            if not over and not self._delivered(key) and key not in self._out:
                if key not in waiting:
                    return
                self._release_one(waiting, waiting[key])
            if stream + 1 < self.world:
                self._place = (seq, stream + 1)
            elif len(self._totals.keys() | self._ended) == self.world and seq >= max(
                self._totals.values(), default=0
            ):
                return
            else:
                self._place = (seq + 1, 0)

    def _release_one(self, waiting: dict[Key, Data], data: Data) -> None:
        del waiting[data.key]
        if data.item.kind is Kind.SKIP and not self.releases_skipped:
            self._count(data.key)
        else:
            self._out.add(data.key)
            self.released.append(data)

    def _epoch_is_over(self) -> bool:
        if not self.world or self._out:
            return False
        if len(self._ended) == self.world:
            self.finished = True
            return False
        if self._ended and self._totals:
            stream, other = min(self._ended), min(self._totals)
            raise StateMismatchError(
                f"ZMQSource: the data machine of stream {stream} ends before epoch {self.epoch}, that of stream "
                f"{other} does not; every data machine needs the same epochs="
            )
        return len(self._totals) == self.world and all(
            self._base[stream] >= total for stream, total in self._totals.items()
        )

    def deliver(self, key: Key) -> bool:
        """Count a released item as delivered; False for one that was counted before or not released."""
        if key not in self._out:
            return False
        self._out.discard(key)
        self._count(key)
        # An item that is released but not delivered only delays the end of its epoch.
        if not self._out:
            self._release()
        return True

    def _count(self, key: Key) -> None:
        self.delivered += 1
        beyond, base = self._beyond[key.stream], self._base[key.stream]
        beyond.add(key.seq)
        while base in beyond:
            beyond.discard(base)
            base += 1
        self._base[key.stream] = base

    def missing(self) -> str:
        """Describe the items that the current epoch waits for."""
        if not self.world:
            return f"nothing of epoch {self.epoch} has arrived from any data machine"
        waiting = self._waiting.get(self.epoch, {})
        parts = []
        for stream in range(self.world):
            if stream in self._ended:
                continue
            total = self._totals.get(stream)
            here = {key.seq for key in waiting if key.stream == stream} | self._beyond[stream]
            first = self._base[stream]
            while first in here:
                first += 1
            if total is None:
                parts.append(f"stream {stream}: batch {first} and the following ones")
            elif first < total:
                count = total - self._base[stream] - len([seq for seq in here if seq >= self._base[stream]])
                parts.append(f"stream {stream}: {count} of {total} batches, the first is {first}")
        return f"epoch {self.epoch}: " + ("; ".join(parts) or "nothing")


def _where(data: Data) -> str:
    return f"stream {data.key.stream}, epoch {data.key.epoch}, batch {data.key.seq}"
