"""PadRagged: a stage that pads a ragged field to the same number of rows for every sample."""

from __future__ import annotations

from typing import Any

import numpy as np

from highway.arguments import flag
from highway.batch import Batch
from highway.engine import Module, Stage
from highway.engine.spec import FieldSpec, Spec, array_spec
from highway.errors import ArgumentError
from highway.modules.stages.ragged_rows import (
    checked_value,
    field_name,
    length_of,
    padded,
    refuse_names,
    sample_of,
    value_of,
)

__all__ = ["PadRagged"]


class PadRagged(Stage):
    """Pads a ragged field, such as tokens, text or audio, to the same length for every sample.

    The array (M, ...) becomes (N, L, ...), and ``<field>_lengths``, int64 (N,), is added: the number of rows of each
    sample that are not padding. Other ragged fields stay as they are, also those that share their offsets. It is one
    copy, without the GIL.

    Parameters
    ----------
    field : str
        A ragged field or extra.
    to : int, optional
        L, 1 to 2**31 - 1. By default the largest number of rows of a sample in the batch.
    multiple_of : int, optional
        Round L up to a multiple of this, 1 to 2**31 - 1: fewer different shapes, for compiled models. Not with `to`.
    value : number
        What the padding consists of; the dtype of the field must have it.
    truncate : bool
        Drop the last rows of samples that have more than `to`; by default these samples raise.
    workers : int, optional
        Number of threads; by default set automatically, up to one for each core that the process may use.
    queue_size : int, optional
        Most batches that may wait after this module; by default 4, or more of small ones.

    Raises
    ------
    ArgumentError
        An argument is out of range. While the pipeline runs: a sample has more rows than `to`, the field cannot have
        `value`, or the batch already has ``<field>_lengths``.
    FieldError
        While the pipeline runs: the batch has no such field, it is not ragged, or has no numbers.

    Examples
    --------
    >>> batch = Batch({"tokens": np.array([5, 6, 7])}, ragged={"tokens": [0, 1, 3]})
    >>> tokens, lengths = PadRagged("tokens", multiple_of=4, value=-1).process(batch)
    >>> tokens.tolist(), lengths.tolist()
    ([[5, -1, -1, -1], [6, 7, -1, -1]], [1, 2])
    """

    def __init__(
        self,
        field: str,
        to: int | None = None,
        *,
        multiple_of: int | None = None,
        value: float = 0,
        truncate: bool = False,
        workers: int | None = None,
        queue_size: int | None = None,
    ) -> None:
        super().__init__(workers=workers, queue_size=queue_size)
        self.field = field_name(self.name, field)
        self.to = None if to is None else length_of(self.name, "to", to)
        self.multiple_of = None if multiple_of is None else length_of(self.name, "multiple_of", multiple_of)
        if to is not None and multiple_of is not None:
            raise ArgumentError(
                f"{self.name}: to is {to} and multiple_of is {multiple_of}; expected one of both"
            )
        self.value = value_of(self.name, "value", value)
        self.truncate = flag(self.name, "truncate", truncate)
        if self.truncate and to is None:
            raise ArgumentError(f"{self.name}: truncate is True without to; expected to=, the length to keep")

    def __repr__(self) -> str:
        return f"PadRagged({self.field!r}, {self.to}, multiple_of={self.multiple_of}, value={self.value})"

    @property
    def hands_over(self) -> bool:  # type: ignore[override]
        """Whether the next module may write into the arrays; some pass through, so the input decides."""
        return self.input_handed_over

    def for_run(self) -> Module:
        return self.copied()

    def out_spec(self, before: Spec | None) -> Spec | None:
        if before is None:
            return None
        found = dict(before)
        given = found.get(self.field)
        if given is None:
            return found
        shape = None if given.shape is None else (None, self.to, *given.shape[1:])
        found[self.field] = FieldSpec(given.dtype, shape)
        return {**found, f"{self.field}_lengths": array_spec(np.int64)}

    def process(self, batch: Batch) -> Batch:
        """Pad the field of a batch; see the class for what raises."""
        name, lengths = self.field, f"{self.field}_lengths"
        offsets = batch.offsets_of(name)
        refuse_names(self.name, batch, lengths)
        values = batch[name]
        value = checked_value(self.name, name, self.value, values.dtype)
        counts = np.diff(offsets)
        longest = int(counts.max(initial=0))
        length = self.to
        if length is None:
            length = -(-longest // (self.multiple_of or 1)) * (self.multiple_of or 1)
        elif longest > length:
            if not self.truncate:
                row = int(np.argmax(counts))
                raise ArgumentError(
                    f"PadRagged: {name} of {sample_of(batch, row)} has {longest} rows, to is {length}; expected no "
                    "more: use a larger one, or truncate=True"
                )
            counts = np.minimum(counts, length)
        changed: dict[str, Any] = {name: padded(values, offsets[:-1], counts, length, value)}
        ragged = {other: batch.offsets_of(other) for other in batch.ragged if other != name}
        result = batch.replace(**changed, ragged=ragged)
        # Beside the field: an extra stays out of unpacking.
        (result.fields if name in batch.fields else result.extras)[lengths] = counts
        return result
