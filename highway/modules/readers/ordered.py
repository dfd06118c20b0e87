"""OrderedSource: a source whose samples a Sampler orders; it can resume at any position."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from highway.engine import Module, Source
from highway.engine.stats import PipelineStats
from highway.errors import StateMismatchError
from highway.modules.readers.options import SourceOptions
from highway.sampling.sampler import FRONT, Position, Sampler, Task, digest

__all__ = ["OrderedSource"]

VERSION = 1


class OrderedSource(Source):
    """A source whose samples a `Sampler` orders and batches; base of the readers.

    A small state describes the position of a pipeline in the data. Another pipeline can resume from it, also with
    another batch size, number of threads, or `shard` of another world.

    A subclass sets `order` in `__init__`, defines `contents` and `load`, and overrides `separate`, `prepare` and
    `forget` for what belongs to a run.

    Attributes
    ----------
    order : Sampler
    latest : OrderedSource
        What the pipeline runs that was made from it last; itself before.
    """

    seekable = True

    order: Sampler
    _latest: OrderedSource | None = None
    _begun = FRONT
    # Rarely acquired: only when bad samples are replaced.
    _counting: ClassVar[threading.Lock] = threading.Lock()

    def _ordered(self, size: int, batch_size: int, options: SourceOptions) -> Sampler:
        """Return the sampler of `size` samples with these options."""
        return Sampler(
            size,
            batch_size,
            shuffle=options["shuffle"],
            seed=options["seed"],
            epochs=options["epochs"],
            shard=options["shard"],
            drop_last=options["drop_last"],
            owner=self.name,
        )

    def contents(self) -> Iterable[bytes | Iterable[bytes]]:
        """Parts that identify the data, for `digest`; without its order and batches."""
        raise NotImplementedError(f"{self.name} must define contents()")

    def for_run(self) -> Module:
        self._latest = run = self.copied()
        run._latest = None
        run.separate()
        return run

    @property
    def latest(self) -> OrderedSource:
        return self if self._latest is None else self._latest

    def separate(self) -> None:
        """Replace what the copy for a run must not share with its specification."""

    def prepare(self) -> None:
        """Prepare for new workers. Runs while there are none."""

    def forget(self, start: int) -> None:
        """Reset the counts of loaded samples, to begin at batch number `start`. Runs while there are no workers."""

    def reorder(self, order: Sampler) -> None:
        """Take an order with another rank and world. Runs before there are workers."""
        self.order = order

    def enter(self, modules: Sequence[Module], stats: Callable[[], PipelineStats | None]) -> None:
        # The launcher may have begun since the source was made, or this is another process.
        order = self.order.current()
        if order is not self.order:
            self.reorder(order)
        self.begin_at(self._begun)

    def count_replaced(self, samples: int) -> None:
        """Add to the number of replaced samples."""
        with self._counting:
            self.replaced += samples

    def samples_in(self, task: Task) -> int:
        return len(task.indices)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return len(self.order)

    @property
    def epochs(self) -> int | None:  # type: ignore[override]
        return self.order.epochs

    @property
    def shard(self) -> tuple[int, int]:
        return self.order.rank, self.order.world

    @property
    def seed(self) -> int:
        """Seed of the order and of all other random numbers of the source: as given, or drawn for None."""
        return self.order.seed

    @property
    def seed_drawn(self) -> bool:  # type: ignore[override]
        return self.order.seed_drawn

    def _drawn(self) -> str:
        """Text for the repr: the seed, if the user did not give it."""
        return f", seed={self.seed}" if self.seed_drawn else ""

    def fingerprint(self) -> str:
        return self.order.fingerprint(*self.contents())

    def making(self) -> Sequence[object]:
        """Values that determine, besides the data, how a sample is made; their repr identifies them."""
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

    # State

    @cached_property
    def _digest(self) -> str:
        # Cached: a million names take most of a second.
        return digest(*self.contents())

    def state_at(self, ticket: int) -> dict[str, Any]:
        """State to resume from after all batches before number `ticket` were delivered.

        Returns
        -------
        dict
            "version", "kind" (name of the source), "size" (number of samples), "shuffle", "seed", "fingerprint" (of the
            list of samples), "epoch", and "position": number of places of that epoch's order that all ranks together
            have delivered.
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
        """Position of a state.

        Raises
        ------
        StateMismatchError
            It is not a state, or a state of other samples or another order.
        """
        if not isinstance(state, Mapping):
            raise self._mismatch(f"is of type {type(state).__name__}", "the result of state_dict()")
        mine = self._identity()
        for name in (*mine, "epoch", "position"):
            if name not in state:
                raise self._mismatch(f"has no {name!r}", "the result of state_dict()")
        for name, expected in mine.items():
            found = state[name]
            if type(found) is not type(expected) or found != expected:
                raise self._mismatch(f"has {name} {_shown(found)}", repr(expected) + _HINTS.get(name, ""))
        last = 2**32 - 1 if self.order.epochs is None else self.order.epochs
        epoch = self._whole(state, "epoch", last)
        # After the last epoch only position 0 is valid.
        position = self._whole(state, "position", 0 if epoch == self.order.epochs else self.order.size - 1)
        return Position(epoch, position)

    def front(self, epoch: int) -> Position:
        return Position(epoch, 0)

    def begin_at(self, place: Position) -> int:
        start = self.seek(place)
        self.replaced = 0
        self.forget(start)
        return start

    def seek(self, place: Position) -> int:
        self._begun = place
        self.prepare()
        return self.order.number_after(place)

    def _whole(self, state: Mapping[str, Any], name: str, highest: int) -> int:
        value = state[name]
        if type(value) is int and 0 <= value <= highest:
            return value
        raise self._mismatch(f"has {name} {_shown(value)}", f"a whole number from 0 to {highest}")

    def _mismatch(self, found: str, expected: str) -> StateMismatchError:
        return StateMismatchError(f"{self.name}: the state {found}; expected {expected}")


_HINTS = {
    "version": "; it was made by another version of Highway",
    "kind": "; it is from another kind of source",
    "size": ", the number of samples here",
    "fingerprint": "; the samples are not the same, or in another order",
}


def _shown(value: object) -> str:
    """Repr of any value, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
