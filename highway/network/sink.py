"""ZMQSink: sends batches to another process or machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from highway._core.installation import version
from highway.arguments import number, whole
from highway.arguments.limits import MOST_WINDOW
from highway.engine import Module, Source, Stage
from highway.engine.stats import PipelineStats
from highway.errors import ArgumentError
from highway.network.definitions import definition_of
from highway.network.exactly_once import DataTransport, WorkerTransport
from highway.network.push_pull import PushTransport
from highway.network.source import DeliveryKind, ZMQSource, delivery_of, endpoint_of
from highway.network.streams import WHOLE, check_part, stream_of
from highway.network.tasks import Load
from highway.network.transport import Transport, TransportSink

__all__ = ["ZMQSink"]


class ZMQSink(TransportSink[Transport]):
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
        to programs without Highway: each message over PUSH and PULL is a list of arrays: the fields, and the
        offsets that the ragged ones share, or those of each.
    window : int
        Most batches in flight to a training machine, 1 to 1024; a worker asks for twice as many.
    stream : (int, int)
        (i, n) where n data machines feed one training machine: this is number i of them, from 0. The reader then reads
        part i of n, ``shard=(i, n)``; if the training machine itself is rank r of w, ``shard=(r * n + i, w * n)``.
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

    Attributes
    ----------
    transport : Transport
        What moves the batches of the pipeline that was made from it last; for tests and diagnosis.
    """

    def __init__(
        self,
        addr: str,
        bind: bool = True,
        *,
        delivery: DeliveryKind = "exactly-once",
        window: int = 8,
        stream: tuple[int, int] = (0, 1),
        secret: bytes | str | os.PathLike[str] | None = None,
        insecure: bool = False,
        drain_timeout: float = 30,
    ) -> None:
        super().__init__(workers=1)
        self.delivery = delivery_of(self.name, delivery)
        self.window = whole(self.name, "window", window, 1, MOST_WINDOW)
        self.stream = stream_of(self.name, stream)
        if not isinstance(addr, str):
            raise ArgumentError(f"{self.name}: addr is {addr!r}; expected one address")
        self._endpoint = endpoint_of(self.name, addr, bind, self.window, secret, insecure)
        self._drain_timeout = number(self.name, "drain_timeout", drain_timeout, 0)
        self._transport = Transport(self.name)

    def __repr__(self) -> str:
        return f"ZMQSink({self.address!r}, bind={self._endpoint.binds})"

    @property
    def address(self) -> str:
        """The address; with the actual port once the pipeline is open, where the port was ``*``."""
        return self.transport.bound_address(upstream=False) or str(self._endpoint.addresses[0])

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        source = modules[0]
        assert isinstance(source, Source)
        if not source.follows_delivery:
            check_part(self.name, source, self.stream)
        elif self.stream != WHOLE:
            raise ArgumentError(
                f"{self.name}: stream is {tuple(self.stream)} on a worker; expected it on data machines only: a worker "
                "passes on the batches of all streams"
            )
        if self.delivery == "at-most-once" and getattr(source, "delivery", self.delivery) != self.delivery:
            raise ArgumentError(
                f"{self.name}: delivery is 'at-most-once', but the batches come from a ZMQSource with "
                f"delivery={source.delivery!r}; give both the same delivery"  # type: ignore[attr-defined]
            )
        stages = [module for module in modules if isinstance(module, Stage)]
        definition = definition_of(source, stages)
        if self.delivery != "exactly-once":
            self._transport = PushTransport(
                self.name, self._endpoint, self.delivery, self.stream, definition, self._drain_timeout
            )
        elif isinstance(source, ZMQSource):
            if source.delivery != "exactly-once":
                raise ArgumentError(
                    f"{self.name}: delivery is 'exactly-once', but the batches come from a ZMQSource with "
                    f"delivery={source.delivery!r}, which cannot resend a batch; give both the same delivery"
                )
            self._transport = source._transport = WorkerTransport(
                self.name,
                source.endpoint,
                self._endpoint,
                sum(stage.workers or stage.most_workers() for stage in stages),
                stats,
                source.timeout,
                self._drain_timeout,
                version(),
                definition,
            )
            for stage in stages:
                if isinstance(stage, Load):
                    self._transport.remarks = stage.remarks
                    self._transport.ends_with_upstream = stage.for_rank
        else:
            length = len(source) if hasattr(source, "__len__") else None
            self._transport = DataTransport(
                self.name,
                source,
                definition,
                self.stream,
                length,
                self._endpoint,
                stats,
                self._drain_timeout,
            )
        self._transport.start()
