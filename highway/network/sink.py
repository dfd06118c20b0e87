"""ZMQSink: where batches leave for another process or machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from highway.arguments import number, whole
from highway.arguments.limits import MOST_WINDOW
from highway.batch import Batch
from highway.engine import Failure, Module, Outlet, Source, Stage
from highway.engine.stats import PipelineStats
from highway.errors import ArgumentError
from highway.network.exactly_once import DataWay, WorkerWay
from highway.network.push_pull import PushWay
from highway.network.source import DELIVERIES, ZMQSource, delivery_of, place_of, version

__all__ = ["ZMQSink"]


class ZMQSink(Outlet):
    """Sends every batch on to a `ZMQSource` in another process, on this machine or another.

    In a pipeline that begins with a reader this is a data machine: it makes the batches that the training machine
    lacks, keeps each until it was handed out there, and makes again what was lost. Behind a `ZMQSource` it is a
    worker: what it holds is done above only when it is done below, so it may be killed at any time.

    Parameters
    ----------
    addr : str
        ``tcp://HOST:PORT``, ``ipc://PATH`` or ``inproc://NAME``.
    bind : bool
        Listen at the address (any number of sources connect), or connect to a source that listens.
    delivery : {"exactly-once", "at-most-once", "msgpack-numpy"}
        What is promised; both ends need the same. "at-most-once" repairs no loss; "msgpack-numpy" speaks to programs
        without Highway, a list of arrays a message over PUSH and PULL: the fields, and the offsets of ragged ones.
    window : int
        Batches that may be under way to a training machine, 1 to 1024; a worker asks for twice as many.
    secret : bytes, str or path, optional
        32 bytes, or the file that `highway keygen` made; by default the file that HIGHWAY_SECRET_FILE names. Needed
        wherever another machine can reach the address.
    insecure : bool
        Do without, on a network where everyone is trusted.
    drain_timeout : float
        Seconds to wait, when the pipeline drains, for someone to receive what is left, from when nobody is there.

    Raises
    ------
    ArgumentError
        An argument is out of range, or is no address.
    SecurityError
        The address can be reached by others, and there is no secret.
    AddressInUseError, AddressError
        The address cannot be used; raised by the Pipeline, which opens it.

    Notes
    -----
    An exception in a module of this pipeline does not end it: it travels in place of its batch, and is raised on
    the training machine. `Pipeline.wait` returns when everything was handed out there; it raises `UndeliveredError`
    where something is left and nobody came for it.
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
        """Where it is; with the port that was free, once the pipeline has opened a port that was left open."""
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
                    f"delivery={source.delivery!r}, which cannot be asked again; give both the same delivery"
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
