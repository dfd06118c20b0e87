"""ZMQSink: sends batches to another process or machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from highway._core.installation import version
from highway.arguments import number, whole
from highway.arguments.limits import MOST_WINDOW
from highway.batch import Batch
from highway.engine import Failure, Module, Outlet, Source, Stage
from highway.engine.stats import PipelineStats
from highway.errors import ArgumentError
from highway.network.exactly_once import DataWay, WorkerWay
from highway.network.push_pull import PushWay
from highway.network.source import DELIVERIES, ZMQSource, delivery_of, place_of

__all__ = ["ZMQSink"]


class ZMQSink(Outlet):
    """Sends every batch to a `ZMQSource` in another process, on this machine or another.

    A pipeline that begins with a reader and ends in a `ZMQSink` is a data machine: it makes the batches that the
    training machine lacks, keeps each until the training machine has returned it, and makes lost batches again. A
    pipeline from a `ZMQSource` to a `ZMQSink` is a worker: it acknowledges a batch upstream only when the batch is
    acknowledged downstream, so you can kill it at any time.

    Parameters
    ----------
    addr : str
        ``tcp://HOST:PORT``, ``ipc://PATH`` or ``inproc://NAME``.
    bind : bool
        True to listen at the address (any number of sources connect), False to connect to a source that listens.
    delivery : {"exactly-once", "at-most-once", "msgpack-numpy"}
        Delivery guarantee; both ends need the same. "at-most-once" does not resend lost batches. "msgpack-numpy" sends
        to programs without Highway: each message over PUSH and PULL is a list of arrays, the fields and the offsets
        of ragged ones.
    window : int
        Most batches in flight to a training machine, 1 to 1024; a worker asks for twice as many.
    secret : bytes, str or path, optional
        32 bytes, or the file that `highway keygen` wrote; by default the file that HIGHWAY_SECRET_FILE names. Needed
        where another machine can reach the address.
    insecure : bool
        True to send without a secret, on a network where you trust everyone.
    drain_timeout : float
        Seconds that a draining pipeline waits for a receiver of the remaining batches, from when none is connected.

    Raises
    ------
    ArgumentError
        An argument is out of range, or `addr` is not an address.
    SecurityError
        Other machines can reach the address, and there is no secret.
    AddressInUseError, AddressError
        The address cannot be used; raised by the Pipeline, which opens it.

    Notes
    -----
    An exception in a module of this pipeline does not end the pipeline: it travels in place of its batch, and is
    raised on the training machine. `Pipeline.wait` returns when the training machine has returned every batch. It
    raises `UndeliveredError` when batches remain and no receiver connected.
    """

    def __init__(
        self,
        addr: str,
        bind: bool = True,
        *,
        delivery: str = DELIVERIES[0],
        window: int = 8,
        secret: bytes | str | os.PathLike[str] | None = None,
        insecure: bool = False,
        drain_timeout: float = 30,
    ) -> None:
        super().__init__(workers=1)
        self.delivery = delivery_of(self.name, delivery)
        self.window = whole(self.name, "window", window, 1, MOST_WINDOW)
        if not isinstance(addr, str):
            raise ArgumentError(f"{self.name}: addr is {addr!r}; expected one address")
        self._place = place_of(self.name, addr, bind, self.window, secret, insecure)
        self._drain_timeout = number(self.name, "drain_timeout", drain_timeout, 0)
        self._way: DataWay | WorkerWay | PushWay | None = None

    def __repr__(self) -> str:
        return f"ZMQSink({self.address!r}, bind={self._place.binds})"

    @property
    def address(self) -> str:
        """The address; with the actual port once the pipeline is open, where the port was ``*``."""
        endpoint = None if self._way is None else self._way.endpoint(above=False)
        return endpoint or str(self._place.addresses[0])

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        source = modules[0]
        assert isinstance(source, Source)
        if self.delivery == "at-most-once" and getattr(source, "delivery", self.delivery) != self.delivery:
            raise ArgumentError(
                f"{self.name}: delivery is 'at-most-once', but the batches come from a ZMQSource with "
                f"delivery={source.delivery!r}; give both the same delivery"  # type: ignore[attr-defined]
            )
        if self.delivery != "exactly-once":
            self._way = PushWay(self.name, self._place, self.delivery, self._drain_timeout)
            return
        if isinstance(source, ZMQSource):
            if source.delivery != "exactly-once":
                raise ArgumentError(
                    f"{self.name}: delivery is 'exactly-once', but the batches come from a ZMQSource with "
                    f"delivery={source.delivery!r}, which cannot resend a batch; give both the same delivery"
                )
            stages = [module for module in modules if isinstance(module, Stage)]
            self._way = WorkerWay(
                self.name,
                source.place,
                self._place,
                sum(stage.workers or stage.most_workers() for stage in stages),
                stats,
                source.timeout,
                self._drain_timeout,
                version(),
            )
            source.leave_to(self._way)
        else:
            length = len(source) if hasattr(source, "__len__") else None
            self._way = DataWay(self.name, source, length, self._place, stats, self._drain_timeout)
        self._way.driver.start()

    @property
    def _open_way(self) -> DataWay | WorkerWay | PushWay:
        assert self._way is not None
        return self._way

    def tasks_of(self, source: Source, length: int | None) -> Iterator[Any]:
        way = self._open_way
        return way.tasks() if isinstance(way, WorkerWay) else way.tasks_of(source, length)

    def identity(self, ticket: int) -> tuple[int, int]:
        assert self._way is not None
        return self._way.identity(ticket)

    def carry(self, ticket: int, outcome: Batch | Failure | None) -> None:
        assert self._way is not None
        self._way.carry(ticket, outcome)

    def end_tasks(self) -> None:
        self._open_way.end_tasks()

    def drain(self) -> None:
        self._open_way.drain()

    def open(self) -> None:
        if isinstance(self._way, PushWay):
            self._way.open()

    def interrupt(self) -> None:
        if self._way is not None:
            self._way.interrupt()

    def close(self) -> None:
        self._open_way.close()
