"""Rows of ragged arrays, padded or joined by the compiled kernels, and what the stages for them check."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway._core.ragged import join_rows, pad_rows
from highway.arguments import whole
from highway.batch import Batch, empty, is_field_name
from highway.errors import ArgumentError, FieldError
from highway.sampling.identity import numbers_of

__all__ = [
    "checked_value",
    "choice",
    "field_name",
    "joined",
    "length_of",
    "padded",
    "refuse_names",
    "sample_of",
    "value_of",
]

# Values of one sample; the places of values within it are int32.
MOST_LENGTH = 2**31 - 1


def padded(
    values: NDArray[Any], starts: NDArray[np.int64], counts: NDArray[np.int64], length: int, value: Any
) -> NDArray[Any]:
    """Return `length` rows for each sample: ``counts[i]`` of `values` from ``starts[i]`` on, then `value`.

    Parameters
    ----------
    values : array (M, ...)
    starts, counts : int64 (N,)
    length : int
    value : number
        Of the dtype of `values`.

    Returns
    -------
    array (N, length, ...)
    """
    shape = values.shape[1:]
    out = empty((len(starts), length, *shape), values.dtype)
    if out.size:
        fill = np.full(shape, value, values.dtype).reshape(-1).view(np.uint8)
        lines = out.reshape(-1).view(np.uint8).reshape(len(starts), length * len(fill))
        pad_rows(_bytes(values), np.ascontiguousarray(starts), np.ascontiguousarray(counts), fill, lines)
    return out


def joined(values: NDArray[Any], starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[Any]:
    """Return ``counts[i]`` rows of `values` from ``starts[i]`` on, for one sample after the other."""
    total = int(counts.sum())
    if values.dtype.hasobject:
        # Objects are references, which NumPy counts.
        places = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(total)
        return values[places]
    out = empty((total, *values.shape[1:]), values.dtype)
    if out.size:
        width = out.nbytes // len(out)
        join_rows(_bytes(values), np.ascontiguousarray(starts), counts, width, out.reshape(-1).view(np.uint8))
    return out


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def field_name(owner: str, field: object) -> str:
    """Return the name of a field; raises ArgumentError for what cannot be one."""
    if not isinstance(field, str) or not is_field_name(field):
        raise ArgumentError(
            f"{owner}: field is {field!r}; expected the name of a ragged field, such as 'tokens'"
        )
    return field


def length_of(owner: str, argument: str, length: object) -> int:
    """Return a number of rows, 1 to 2**31 - 1."""
    return whole(owner, argument, length, 1, MOST_LENGTH)


def choice(owner: str, argument: str, value: object, allowed: Sequence[str]) -> str:
    """Return one of the allowed words."""
    if isinstance(value, str) and value in allowed:
        return value
    expected = ", ".join(map(repr, allowed))
    raise ArgumentError(f"{owner}: {argument} is {value!r}; expected one of {expected}")


def value_of(owner: str, argument: str, value: object) -> Any:
    """Return a number that pads; raises ArgumentError for anything else."""
    if isinstance(value, (Number, np.bool_)):
        return value
    raise ArgumentError(f"{owner}: {argument} is {value!r}; expected a number")


def checked_value(owner: str, name: str, value: Any, dtype: np.dtype[Any]) -> Any:
    """Return a number as the dtype of a field has it; raises ArgumentError where it would be another number."""
    if dtype.kind not in "biufc":
        raise FieldError(f"{owner}: field {name!r} is {dtype}; expected numbers")
    found, same = None, False
    if dtype.kind == "c" or not np.iscomplexobj(value):
        with np.errstate(all="ignore"), suppress(OverflowError, TypeError, ValueError):
            found = np.array(value).astype(dtype)
            # A Python number: NumPy would compare in the dtype. Fractions may be rounded, whole numbers not.
            rounds = dtype.kind in "fc" and bool(value != value or np.isfinite(found))
            same = rounds or bool(found.item() == value)
    if not same:
        raise ArgumentError(
            f"{owner}: value is {value!r}, and field {name!r} is {dtype}; expected a number that {dtype} has"
        )
    return found


def refuse_names(owner: str, batch: Batch, *names: str) -> None:
    """Raise ArgumentError if a batch already has a field that a stage adds."""
    for name in names:
        if name in batch:
            raise ArgumentError(
                f"{owner}: {batch!r} has {name} already, which {owner} adds; expected no such field or extra: "
                "rename it"
            )


def sample_of(batch: Batch, row: int) -> str:
    """Return how errors name a sample of a batch."""
    index = int(numbers_of(batch.indices[row]))
    return f"sample {index} ({batch.keys[row]!r})" if batch.keys else f"sample {index}"
