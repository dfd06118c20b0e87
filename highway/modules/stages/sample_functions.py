"""Functions of a user that stages call for batches and for their samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from highway.batch import Batch
from highway.errors import ArgumentError
from highway.modules.stages.ragged_rows import sample_of

__all__ = ["function_of", "naming", "samples"]


def function_of(owner: str, function: object) -> Callable[..., Any]:
    """Return a function; raises ArgumentError for what cannot be called."""
    if callable(function) and not isinstance(function, type):
        return function
    raise ArgumentError(f"{owner}: function is {function!r}; expected a function")


def samples(batch: Batch) -> Iterator[dict[str, Any]]:
    """Yield each sample as a dict of its fields and extras: rows of ragged ones, elements of the others.

    Arrays without dimensions, which belong to the whole batch, are left away.
    """
    names = [name for name in (*batch.fields, *batch.extras) if batch[name].ndim]
    for row in range(batch.size):
        yield {name: batch.rows_of(name, row) for name in names}


@contextmanager
def naming(owner: str, batch: Batch, row: int | None = None) -> Iterator[None]:
    """Add to an exception which batch or sample it is about."""
    try:
        yield
    except Exception as error:
        of = f"batch {batch.seq} of epoch {batch.epoch}"
        note = f"In {owner}, {of}." if row is None else f"In {owner}, {sample_of(batch, row)} of {of}."
        if hasattr(error, "add_note"):
            error.add_note(note)
        elif error.__cause__ is None and error.__context__ is None:
            error.__cause__ = RuntimeError(note)
        raise
