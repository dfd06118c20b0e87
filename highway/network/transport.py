"""Transport: what moves the batches of a source or a sink, one class for each kind of delivery."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar

from highway.batch import Batch
from highway.engine import Failure, Module, Outlet, Source
from highway.errors import PipelineStateError
from highway.network.protocol.messages import Data

__all__ = ["Transport", "TransportSink"]


class Transport:
    """Moves batches over sockets; this base class moves none, and serves a module before its pipeline is made.

    A worker has one transport for both of its modules. Its sink closes it.

    Parameters
    ----------
    name : str
        Name of the module, for errors.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def start(self) -> None:
        """Start the threads."""

    def bound_address(self, upstream: bool) -> str | None:
        """Return the address that the upstream or the downstream end is bound to, or None."""
        return None

    def open(self) -> None:
        """Prepare for the thread that moves the batches, in that thread."""

    def end_tasks(self) -> None:
        """End `tasks` and `tasks_of`, if they wait; does not wait."""

    def interrupt(self) -> None:
        """End everything, whatever waits; does not wait."""

    def close(self) -> None:
        """Close the sockets, and wait for the threads."""

    # For a source

    def tasks(self) -> Iterator[Data]:
        """Yield the received items."""
        raise NotImplementedError

    def delivered(self, ticket: int) -> bool:
        """Note an item as delivered; False to drop it."""
        return True

    def losses(self) -> list[tuple[str, str]]:
        """Return (where, what) of malformed, duplicate and lost messages that were not repaired."""
        return []

    def reports(self) -> list[tuple[float, dict[str, Any]]]:
        """Return (age in seconds, report) of the upstream machines."""
        return []

    def links(self) -> tuple[int | None, int | None]:
        """Return the number of live peers upstream and downstream; None for an end that there is not."""
        return None, None

    def figures(self) -> list[dict[str, Any]]:
        """Return the reports of this machine, and of those that it knows of; this one is the first."""
        return []

    def unfinished(self) -> int:
        """Return the number of batches that are here and not received."""
        return 0

    def length(self, rest_of: int | None) -> int | None:
        """Return the number of batches in an epoch, as the data machines say; None where they do not know.

        Waits a few seconds until they have said so. Of the epoch `rest_of`, what a loaded state counts is left out.
        """
        return None

    def bad_samples(self) -> list[tuple[str, str]]:
        """Return (key, reason) of the bad samples of the data machines, as far as they have told."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Return what was delivered."""
        raise self._has_no_state("save")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        raise self._has_no_state("load")

    def _has_no_state(self, what: str) -> PipelineStateError:
        return PipelineStateError(
            f"{self.name}: there is no state to {what}; only a training machine with delivery='exactly-once' has one"
        )

    def close_source(self) -> None:
        """Close what belongs to the source; by default everything."""
        self.close()

    # For a sink

    def tasks_of(self, source: Source, length: int | None) -> Iterator[Any]:
        """Yield the tasks of the source, in the order in which to make them."""
        return source.tasks()

    def identity(self, ticket: int) -> tuple[int, int]:
        """Return epoch and number of the batch of a task."""
        raise NotImplementedError

    def carry(self, ticket: int, outcome: Batch | Failure | None) -> None:
        """Send the outcome of a task."""
        raise NotImplementedError

    def drain(self) -> None:
        """Wait until everything that was sent has arrived."""


Moved = TypeVar("Moved", bound=Transport)


class TransportSink(Outlet, Generic[Moved]):
    """A sink whose batches a transport moves; `enter` of a subclass makes it."""

    _transport: Moved
    # The module of the pipeline that was made from this one last.
    _latest: TransportSink[Moved] | None = None

    @property
    def transport(self) -> Moved:
        """What moves the batches of the pipeline that was made from it last."""
        return (self._latest or self)._transport

    def for_run(self) -> Module:
        self._latest = run = self.copied()
        run._latest = None
        return run

    def tasks_of(self, source: Source, length: int | None) -> Iterator[Any]:
        return self._transport.tasks_of(source, length)

    def identity(self, ticket: int) -> tuple[int, int]:
        return self._transport.identity(ticket)

    def carry(self, ticket: int, outcome: Batch | Failure | None) -> None:
        self._transport.carry(ticket, outcome)

    def end_tasks(self) -> None:
        self._transport.end_tasks()

    def drain(self) -> None:
        self._transport.drain()

    def open(self) -> None:
        self._transport.open()

    def interrupt(self) -> None:
        self._transport.interrupt()

    def close(self) -> None:
        self._transport.close()
