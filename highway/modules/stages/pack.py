"""Pack: a stage that concatenates documents and cuts them into rows of equal length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from highway._core.ragged import number_rows
from highway.batch import Batch, empty
from highway.engine import Stage
from highway.engine.spec import FieldSpec, Spec
from highway.errors import ArgumentError, FieldError
from highway.modules.stages.ragged_rows import (
    checked_value,
    choice,
    field_name,
    length_of,
    padded,
    refuse_names,
    value_of,
)

__all__ = ["Pack"]


class Pack(Stage):
    """Concatenates the documents of a batch, and cuts them into rows of `length` tokens.

    The ragged array (M, ...) becomes (R, length, ...), where R is M / length, rounded up. All fields that share its
    offsets are packed alike, such as the labels of tokens. Two fields, int32 (R, length), say which document a token
    belongs to:

    - ``positions``: its place in the part of its document that is in this row, from 0;
    - ``segments``: number of that part in the row, from 1.

    Both are 0 in the padding, which only the last row of a batch has. A document that does not fit into its row
    continues in the next one, as another segment.

    Each batch is packed for itself: a row depends on the documents of its batch and on nothing else. So packing has no
    state: batches are packed by several threads at once, and resuming, replaying and sending them to other machines is
    as exact as without it. Large batches lose less to padding, half a row each on average; `Rebatch` after Pack makes
    batches with equally many rows.

    The rows are the samples of the new batch: its `indices` and `keys` are those of the document that a row begins
    with. Rows that begin with the same document have the same index, and draw the same random numbers: put random
    transforms before Pack.

    Parameters
    ----------
    field : str
        A ragged field.
    length : int
        Tokens in a row, 1 to 2**31 - 1.
    remainder : {"pad", "drop"}
        What becomes of tokens that do not fill a row: padded, or dropped from the end of the batch.
    value : number or mapping of str to number
        What the padding of `field` consists of; that of the fields packed with it is 0. A mapping has the number of
        each of the packed fields, 0 for those that it omits. The dtype of a field must have it.
    drop : sequence of str
        Fields and extras to drop, which have one value for a document: rows have parts of several ones.
    workers : int, optional
        Number of threads; by default set automatically, up to one for each core that the process may use.
    queue_size : int, optional
        Most batches that may wait after this module; by default 4, or more of small ones.

    Raises
    ------
    ArgumentError
        An argument is out of range. While the pipeline runs: a field cannot have its `value`, or the batch already has
        ``positions`` or ``segments``.
    FieldError
        While the pipeline runs: the batch has no such field, or it is not ragged; it has other fields that do not share
        the offsets and are not in `drop`; or `value` has a field that is not packed.

    Examples
    --------
    >>> batch = Batch({"tokens": np.arange(1, 8)}, ragged={"tokens": [0, 2, 7]})
    >>> tokens, positions, segments = Pack("tokens", 4).process(batch)
    >>> tokens.tolist()
    [[1, 2, 3, 4], [5, 6, 7, 0]]
    >>> positions.tolist()
    [[0, 1, 0, 1], [0, 1, 2, 0]]
    >>> segments.tolist()
    [[1, 1, 2, 2], [1, 1, 1, 0]]
    """

    hands_over = True

    def __init__(
        self,
        field: str,
        length: int,
        *,
        remainder: str = "pad",
        value: float | Mapping[str, float] = 0,
        drop: Sequence[str] = (),
        workers: int | None = None,
        queue_size: int | None = None,
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        self.field = field_name(self.name, field)
        self.length = length_of(self.name, "length", length)
        self.remainder = choice(self.name, "remainder", remainder, ("pad", "drop"))
        if isinstance(value, Mapping):
            self.value: Any = {
                field_name(self.name, name): value_of(self.name, f"value[{name!r}]", given)
                for name, given in value.items()
            }
        else:
            self.value = value_of(self.name, "value", value)
        if isinstance(drop, str) or not isinstance(drop, Sequence):
            raise ArgumentError(f"{self.name}: drop is {drop!r}; expected a list of names of fields")
        self.drop = tuple(field_name(self.name, name) for name in drop)

    def __repr__(self) -> str:
        return f"Pack({self.field!r}, {self.length}, remainder={self.remainder!r}, value={self.value})"

    def out_spec(self, before: Spec | None) -> Spec | None:
        if before is None or self.field not in before:
            return None
        found: Spec = {}
        for name, given in before.items():
            if name not in self.drop:
                shape = None if given.shape is None else (None, self.length, *given.shape[1:])
                found[name] = FieldSpec(given.dtype, shape)
        numbers = FieldSpec(np.dtype(np.int32), (None, self.length))
        return {**found, "positions": numbers, "segments": numbers}

    def process(self, batch: Batch) -> Batch | None:
        """Pack the documents of a batch; None where they do not fill a row, or have no tokens.

        See the class for what raises.
        """
        offsets, length = batch.offsets_of(self.field), self.length
        packed = batch.ragged_with(self.field)
        refuse_names(self.name, batch, "positions", "segments")
        unknown = sorted(self.value.keys() - packed) if isinstance(self.value, dict) else []
        if unknown:
            raise FieldError(
                f"Pack: value has {', '.join(unknown)}, and {', '.join(sorted(packed))} are packed; expected only these"
            )
        others = [
            name
            for name in (*batch.fields, *batch.extras)
            if name not in packed and name not in self.drop and batch[name].ndim
        ]
        if others:
            raise FieldError(
                f"Pack: {', '.join(others)} have other rows than {self.field}; expected only fields that share its "
                f"offsets, since a row has parts of several documents: drop={others!r} drops them"
            )
        total = int(offsets[-1])
        rows = total // length if self.remainder == "drop" else -(-total // length)
        if not rows:
            return None
        positions, segments = (empty((rows, length), np.int32) for _ in range(2))
        number_rows(offsets, positions, segments)
        first = np.searchsorted(offsets, np.arange(rows) * length, side="right") - 1
        made = {
            # An array of the whole batch may be kept by the module before.
            name: self._cut(name, array, rows) if name in packed else array.copy()
            for name, array in {**batch.fields, **batch.extras}.items()
            if name not in self.drop
        }
        return Batch(
            {
                **{name: array for name, array in made.items() if name in batch.fields},
                "positions": positions,
                "segments": segments,
            },
            epoch=batch.epoch,
            seq=batch.seq,
            indices=batch.indices[first],
            keys=[batch.keys[row] for row in first.tolist()] if batch.keys else None,
            applied=batch.applied,
            extras={name: array for name, array in made.items() if name in batch.extras},
        )

    def _cut(self, name: str, values: NDArray[Any], rows: int) -> NDArray[Any]:
        """Return the values in rows of equal length."""
        value = self.value.get(name, 0) if isinstance(self.value, dict) else self.value
        if not isinstance(self.value, dict) and name != self.field:
            value = 0
        value = checked_value(self.name, name, value, values.dtype)
        starts = np.arange(rows, dtype=np.int64) * self.length
        counts = np.minimum(len(values) - starts, self.length)
        return padded(values, starts, counts, self.length, value)
