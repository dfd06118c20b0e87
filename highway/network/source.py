"""ZMQSource: receives batches from another process or machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from highway._core.installation import version
from highway.arguments import flag, number, whole
from highway.arguments.limits import MOST_WINDOW
from highway.batch import Batch
from highway.engine import Module, Outlet, Source
from highway.engine.stats import MachineStats, PipelineStats
from highway.errors import ArgumentError
from highway.network.batch_codec import is_of_the_machine, remote_error, to_batch, without_remarks
from highway.network.exactly_once import TrainerTransport
from highway.network.protocol.messages import Data, Kind
from highway.network.push_pull import PullTransport
from highway.network.reports import machines_of
from highway.network.saved_state import MOST_STREAMS
from highway.network.transport import Transport
from highway.network.zmq.addresses import parse
from highway.network.zmq.ends import Endpoint
from highway.network.zmq.security import Security

__all__ = ["ZMQSource"]

DeliveryKind: TypeAlias = Literal["exactly-once", "at-most-once", "msgpack-numpy"]

DELIVERIES: tuple[DeliveryKind, ...] = get_args(DeliveryKind)


def delivery_of(owner: str, delivery: DeliveryKind) -> DeliveryKind:
    if delivery not in DELIVERIES:
        expected = ", ".join(map(repr, DELIVERIES))
        raise ArgumentError(f"{owner}: delivery is {delivery!r}; expected one of {expected}")
    return delivery


def endpoint_of(
    owner: str,
    addr: str | Sequence[str],
    bind: bool,
    window: int,
    secret: bytes | str | os.PathLike[str] | None,
    insecure: bool,
) -> Endpoint:
    """Check where a module binds or connects, without opening it."""
    bind = flag(owner, "bind", bind)
    texts = [addr] if isinstance(addr, str) else list(addr)
    if not texts or (bind and len(texts) > 1):
        raise ArgumentError(
            f"{owner}: addr is {addr!r}; expected one address{'' if bind else ', or a list of addresses'}"
        )
    addresses = tuple(parse(owner, text, bind=bind) for text in texts)
    if len(set(addresses)) != len(addresses):
        raise ArgumentError(f"{owner}: addr is {addr!r}; expected every address once")
    security = Security(owner, secret, insecure)
    for address in addresses:
        security.keys_for(str(address), local=address.is_local)
    return Endpoint(addresses, bind, security, window)


class ZMQSource(Source):
    """Receives the batches that a `ZMQSink` sends from another process, on this machine or another.

    A pipeline from a `ZMQSource` to a `ZMQSink` is a worker. Otherwise this is the training machine: it yields every
    batch once in an epoch, also when processes and connections end and come back, or raises an error that lists the
    missing batches.

    Parameters
    ----------
    addr : str or list of str
        ``tcp://HOST:PORT``, ``ipc://PATH`` or ``inproc://NAME``; a list to connect to several sinks.
    bind : bool
        True to listen at the address (any number of sinks connect), False to connect to sinks that listen.
    delivery : {"exactly-once", "at-most-once", "msgpack-numpy"}
        Delivery guarantee; both ends need the same. With "at-most-once", `errors` counts lost and duplicate batches.
        "msgpack-numpy" receives what programs without Highway push: a list of arrays (named images, labels,
        field2, ...) or a map from names to arrays.
    window : int
        Most batches in flight from one peer, 1 to 1024. In a worker, the window of its sink applies.
    ordered : bool
        True to yield batches in the order of epoch, number and data machine, whichever worker is faster. False to
        yield them as they arrive; an epoch still begins only after the end of the previous one.
    timeout : float or None
        Seconds after which `PeerLostError` is raised: without progress on a training machine, without a connected
        data machine on a worker. None waits forever.
    secret, insecure
        See `ZMQSink`.
    streams : int, optional
        Expected number of data machines (see `ZMQSink`); not checked by default.
    on_error : {"raise", "skip"}
        What to do with a batch that another machine could not make: raise the error of that machine, or skip the batch
        and list it in `Pipeline.errors`. A failure of that machine's storage, or a package that is missing there, is
        always raised.

    Raises
    ------
    ArgumentError
        An argument is out of range, or `addr` is not an address.
    SecurityError
        Other machines can reach the address, and there is no secret.

    Notes
    -----
    `Pipeline.dequeue` raises `PeerLostError`, `RemoteError` or `PoisonItemError` (another machine could not make a
    batch), `SupersededError` (a second training machine has begun) and `StateMismatchError` (the data of a data
    machine differ from the data of the state, or of another data machine).

    Attributes
    ----------
    transport : Transport
        What moves the batches of the pipeline that was made from it last; for tests and diagnosis.
    """

    hands_over = True
    follows_delivery = True
    starts_at_once = True

    def __init__(
        self,
        addr: str | Sequence[str],
        bind: bool = False,
        *,
        delivery: DeliveryKind = "exactly-once",
        window: int = 8,
        ordered: bool = False,
        timeout: float | None = 60,
        secret: bytes | str | os.PathLike[str] | None = None,
        insecure: bool = False,
        streams: int | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        queue_size: int = 4,
    ) -> None:
        super().__init__(workers=1, queue_size=queue_size)
        self.delivery = delivery_of(self.name, delivery)
        self.window = whole(self.name, "window", window, 1, MOST_WINDOW)
        self.endpoint = endpoint_of(self.name, addr, bind, self.window, secret, insecure)
        self.ordered = flag(self.name, "ordered", ordered)
        if self.ordered and self.delivery != "exactly-once":
            raise ArgumentError(
                f"{self.name}: ordered is True with delivery={delivery!r}; ordered needs delivery='exactly-once'"
            )
        self.timeout = None if timeout is None else number(self.name, "timeout", timeout, 0)
        self.streams = None if streams is None else whole(self.name, "streams", streams, 1, MOST_STREAMS)
        if on_error not in ("raise", "skip"):
            raise ArgumentError(f"{self.name}: on_error is {on_error!r}; expected 'raise' or 'skip'")
        self.on_error = on_error
        self._errors: list[tuple[str, str]] = []
        self._transport = Transport(self.name)
        self._latest: ZMQSource | None = None

    def __repr__(self) -> str:
        several = [str(address) for address in self.endpoint.addresses]
        return f"ZMQSource({several if len(several) > 1 else self.address!r}, bind={self.endpoint.binds})"

    @property
    def transport(self) -> Transport:
        """What moves the batches of the pipeline that was made from it last."""
        return (self._latest or self)._transport

    @property
    def address(self) -> str:
        """The address; with the actual port once the pipeline is open, where the port was ``*``."""
        return self.transport.bound_address(upstream=True) or ", ".join(map(str, self.endpoint.addresses))

    @property
    def errors(self) -> list[tuple[str, str]]:
        """(batch, reason) for each skipped or lost batch, and (key, reason) for the bad samples of data machines.

        A data machine lists its bad samples at the end of an epoch.
        """
        run = self._latest or self
        return [*run._errors, *run._transport.losses(), *run._transport.bad_samples()]

    def for_run(self) -> Module:
        self._latest = run = self.copied()
        run._latest, run._errors = None, []
        return run

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        if self.delivery != "exactly-once":
            self._transport = PullTransport(self.name, self.endpoint, self.delivery, self.timeout)
        elif not isinstance(modules[-1], Outlet) or getattr(modules[-1], "delivery", "") != "exactly-once":
            self._transport = TrainerTransport(
                self.name, self.endpoint, self.ordered, self.timeout, self.streams, stats, version()
            )
        self._transport.start()

    def tasks(self) -> Iterator[Data]:
        return self._transport.tasks()

    def samples_in(self, task: Data) -> int | None:
        return 0 if task.item.kind is Kind.END_OF_DATA else None

    def load(self, task: Data) -> Batch | None:
        """Return the batch of a message; None for a skipped one, or for an error with ``on_error="skip"``."""
        item, bad = without_remarks(task.item)
        self._errors += [(f"sample {number}", str(error)) for number, error in bad.items()]
        if item.kind is Kind.BATCH:
            return to_batch(item)
        if item.kind is not Kind.ERROR:
            return None
        error = remote_error(item)
        if self.on_error == "raise" or is_of_the_machine(item):
            raise error
        key = task.key
        self._errors.append((f"epoch {key.epoch}, batch {key.seq}, stream {key.stream}", str(error)))
        return None

    def told_length(self, rest_of: int | None) -> int | None:
        return self._transport.length(rest_of)

    def delivered(self, ticket: int) -> bool:
        return self._transport.delivered(ticket)

    def end_tasks(self) -> None:
        self._transport.end_tasks()

    def machines(self) -> tuple[MachineStats, ...]:
        return machines_of(self._transport.reports())

    def state_dict(self) -> dict[str, Any]:
        return self._transport.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._transport.load_state_dict(state)

    def open(self) -> None:
        self._transport.open()

    def interrupt(self) -> None:
        self._transport.interrupt()

    def close(self) -> None:
        self._transport.close_source()
