"""Schedules: values that change at the start of certain epochs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, TypeAlias, TypeVar

from highway.arguments import whole
from highway.errors import ArgumentError

__all__ = ["BatchSize", "Schedule", "Shape", "constant", "schedule", "scheduled"]

Value = TypeVar("Value")
Other = TypeVar("Other")

LAST_EPOCH = 2**32 - 1


@dataclass(frozen=True, repr=False)
class Schedule(Generic[Value]):
    """A value for each epoch; `schedule` makes it.

    Immutable. Two schedules are equal if they have the same value in every epoch.

    Attributes
    ----------
    epochs : tuple of int
        Epochs at whose start the value changes, ascending; the first is 0.
    stages : tuple
        The value from each of these epochs on.
    """

    epochs: tuple[int, ...]
    stages: tuple[Value, ...]

    def at(self, epoch: int) -> Value:
        """Return the value in an epoch, 0 or more."""
        return self.stages[bisect_right(self.epochs, epoch) - 1]

    @property
    def values(self) -> Mapping[int, Value]:
        """The value from each epoch on at whose start it changes."""
        return MappingProxyType(dict(zip(self.epochs, self.stages, strict=True)))

    @property
    def constant(self) -> bool:
        """Whether all epochs have the same value."""
        return len(self.stages) == 1

    @property
    def plain(self) -> Value | Schedule[Value]:
        """The value, if it is the same in every epoch; else the schedule."""
        return self.stages[0] if self.constant else self

    def map(self, function: Callable[[Value], Other]) -> Schedule[Other]:
        """Return the schedule of what a function makes of each value."""
        return _merged({epoch: function(value) for epoch, value in self.values.items()})

    def by_epoch(self, function: Callable[[int], Other]) -> Schedule[Other]:
        """Return the schedule of what a function makes of each epoch where the value changes."""
        return _merged({epoch: function(epoch) for epoch in self.epochs})

    def __repr__(self) -> str:
        return f"schedule({dict(self.values)!r})"


BatchSize: TypeAlias = int | Schedule[int]
"""The argument `batch_size` of a source."""

Shape: TypeAlias = int | tuple[int, int] | Schedule[Any]
"""The argument `shape` of a reader of pictures."""


def schedule(values: Mapping[int, Any]) -> Schedule[Any]:
    """Return a schedule: a value that changes at the start of certain epochs.

    For `batch_size` of the readers, and for `shape` of those that read pictures.

    Parameters
    ----------
    values : mapping of int to int or (int, int)
        The value from each of these epochs on. Epochs are counted from 0, and are at most 2**32 - 1; there is a value
        for epoch 0.

    Returns
    -------
    Schedule

    Raises
    ------
    ArgumentError
        There is no value for epoch 0; a key is not an epoch, or a value neither a whole number nor a pair of them.

    Examples
    --------
    >>> sizes = schedule({0: 128, 30: (160, 192), 60: 224})
    >>> [sizes.at(epoch) for epoch in (0, 29, 30, 59, 60, 1000)]
    [128, 128, (160, 192), (160, 192), 224, 224]
    """
    given: object = values
    if not isinstance(given, Mapping):
        raise ArgumentError(
            f"schedule: values is {given!r}; expected a dict of epochs and the value from each of them on, such as "
            "{0: 32, 30: 64}"
        )
    checked = {whole("schedule", "epoch", epoch, 0, LAST_EPOCH): value for epoch, value in given.items()}
    if 0 not in checked:
        found = f"the first epoch is {min(checked)}" if checked else "values is empty"
        raise ArgumentError(
            f"schedule: {found}; expected a value for epoch 0, with which the training begins"
        )
    return _merged({epoch: _value(epoch, checked[epoch]) for epoch in sorted(checked)})


def constant(value: Value) -> Schedule[Value]:
    """Return the schedule that has the same value in every epoch."""
    return Schedule((0,), (value,))


def scheduled(given: Any, check: Callable[[Any], Value]) -> Schedule[Value]:
    """Return an argument that is a value or a schedule of values, each as `check` returns it."""
    return given.map(check) if isinstance(given, Schedule) else constant(check(given))


def _merged(values: Mapping[int, Value]) -> Schedule[Value]:
    """Return the schedule of values by ascending epochs, without the epochs where nothing changes."""
    epochs: list[int] = []
    stages: list[Value] = []
    for epoch, value in values.items():
        if not stages or value != stages[-1]:
            epochs.append(epoch)
            stages.append(value)
    return Schedule(tuple(epochs), tuple(stages))


def _value(epoch: int, value: object) -> int | tuple[int, ...]:
    name = f"value of epoch {epoch}"
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ArgumentError(f"schedule: {name} is {value!r}; expected a whole number, or a pair of them")
        return tuple(whole("schedule", name, one, 1) for one in value)
    return whole("schedule", name, value, 1)
