"""OrderedSource: samples that a Sampler brings into batches; it can go on at any place of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from highway.engine import Module, Source
from highway.engine.stats import PipelineStats
from highway.errors import StateMismatchError
from highway.sampling.sampler import FRONT, Position, Sampler, Task, digest

__all__ = ["OrderedSource"]

VERSION = 1


class OrderedSource(Source):
    """A source of samples that an `Sampler` brings into batches; base of the readers.

    Where a pipeline is in the data is told by a small token, which another one goes on from: with another batch size,
    number of threads, or `shard` of another world too.

    A subclass sets `order` when it is made, defines `contents` and `load`, and overrides `forget` if it keeps count of
    what it has loaded.

    Attributes
    ----------
    order : Sampler
    """

    seekable = True

    order: Sampler
    _begun = FRONT
    # Rarely taken: by who replaces bad samples.
    _counting: ClassVar[threading.Lock] = threading.Lock()

    def contents(self) -> Iterable[bytes | Iterable[bytes]]:
        """What tells the data from others, not its order or its batches; for `digest`."""
        raise NotImplementedError(f"{self.name} must define contents()")

    def forget(self, start: int) -> None:
        """Count anew what is loaded, from batch number `start` on. Called while there are no workers."""

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        # A pipeline that could not be started may have loaded something.
        self._forget(self.order.number_after(self._begun))

    def _forget(self, start: int) -> None:
        self.replaced = 0
        self.forget(start)

    def count_replaced(self, samples: int) -> None:
        """Count so many samples that are in the places of bad ones."""
        with self._counting:
            self.replaced += samples

    def samples_in(self, task: Task) -> int:
        return len(task.indices)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.order)

    @property
    def shard(self) -> tuple[int, int]:
        return self.order.rank, self.order.world

    @property
    def seed(self) -> int:
        """The seed of the order, and of whatever else the source draws: the one that was given, or drawn for None."""
        return self.order.seed

    @property
    def seed_drawn(self) -> bool:  # type: ignore[override]
        return self.order.seed_drawn

    def _drawn(self) -> str:
        """What a repr says of a seed that the user did not give."""
        return f", seed={self.seed}" if self.seed_drawn else ""

    def fingerprint(self) -> str:
        return self.order.fingerprint(*self.contents())

    def making(self) -> Sequence[object]:
        """What decides, beside the data, how a sample comes out: values whose repr tells them from others."""
        return ()

    def samples_fingerprint(self) -> str:
        order = self.order
        made = (order.size, order.shuffle, order.seed, *self.making())
        return digest(repr(made).encode("utf-8", "surrogateescape"), *self.contents())

    def tasks(self) -> Iterator[Task]:
        """One task for each batch, in order."""
        return self.order.tasks_after(self._begun)

    def tasks_from(self, start: int) -> Iterator[Task]:
        return self.order.tasks(start)

    # Places

    @cached_property
    def _digest(self) -> str:
        # Once: a list of a million names takes most of a second.
        return digest(*self.contents())

    def state_at(self, ticket: int) -> dict[str, Any]:
        """Where to go on when all batches below number `ticket` were handed out.

        Returns
        -------
        dict
            "version", "kind" (name of the source), "size" (number of samples), "shuffle", "seed", "fingerprint" (of the
            list of samples), "epoch", and "position": how many places of that epoch's order are behind, on all ranks
            together.
        """
        epoch, position = self.order.place_at(ticket, self._begun)
        return {**self._identity(), "epoch": epoch, "position": position}

    def _identity(self) -> dict[str, Any]:
        order = self.order
        return {
            "version": VERSION,
            "kind": self.name,
            "size": order.size,
            "shuffle": order.shuffle,
            "seed": order.seed,
            "fingerprint": self._digest,
        }

    def find(self, state: Mapping[str, Any]) -> Position:
        """The place that a state tells of.

        Raises
        ------
        StateMismatchError
            It is no state, or one of other samples or another order.
        """
        if not isinstance(state, Mapping):
            raise self._mismatch(f"is of type {type(state).__name__}", "what state_dict() gave")
        mine = self._identity()
        for name in (*mine, "epoch", "position"):
            if name not in state:
                raise self._mismatch(f"has no {name!r}", "what state_dict() gave")
        for name, expected in mine.items():
            found = state[name]
            if type(found) is not type(expected) or found != expected:
                raise self._mismatch(f"has {name} {_shown(found)}", repr(expected) + _HINTS.get(name, ""))
        last = 2**32 - 1 if self.order.epochs is None else self.order.epochs
        epoch = self._whole(state, "epoch", last)
        # Behind the last epoch there is nothing.
        position = self._whole(state, "position", 0 if epoch == self.order.epochs else self.order.size - 1)
        return Position(epoch, position)

    def begin_at(self, place: Position) -> int:
        start = self.order.number_after(place)
        self._begun = place
        self._forget(start)
        return start

    def _whole(self, state: Mapping[str, Any], name: str, highest: int) -> int:
        value = state[name]
        if type(value) is int and 0 <= value <= highest:
            return value
        raise self._mismatch(f"has {name} {_shown(value)}", f"a whole number from 0 to {highest}")

    def _mismatch(self, found: str, expected: str) -> StateMismatchError:
        return StateMismatchError(f"{self.name}: the state {found}; expected {expected}")


_HINTS = {
    "version": "; it was made by another version of Highway",
    "kind": "; it is of another kind of source",
    "size": ", the number of samples here",
    "fingerprint": "; the samples are others, or in another order",
}


def _shown(value: object) -> str:
    """A value that may be anything, on a line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
