"""Highway for Keras 3: a pipeline as a ``keras.utils.PyDataset``, for the backends JAX, PyTorch and TensorFlow."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from highway.batch import Batch
from highway.engine import Pipeline
from highway.engine.iteration import EpochIterator
from highway.errors import ArgumentError, MissingPackageError, PipelineStateError

try:
    from keras.utils import PyDataset
except ImportError as error:
    if error.name not in ("keras", "keras.utils"):
        raise MissingPackageError(
            f"highway.keras: Keras cannot be imported: {error}. Install its backend, or set KERAS_BACKEND to one that "
            "is installed: jax, torch or tensorflow"
        ) from error
    PyDataset = None

__all__ = ["Dataset"]

# Before it trains, Keras requests one batch to build the model, or two with TensorFlow to learn their shapes. As many
# are kept for the next pass, until a pass requests more.
_MOST_KEPT = 4

Names = str | Sequence[str]


class Dataset(PyDataset if PyDataset is not None else object):  # type: ignore[misc]
    """A pipeline as a dataset for ``fit``, ``evaluate`` and ``predict`` of Keras.

    Every pass of Keras over the data is the next epoch of the pipeline, each batch once and in the order of the
    pipeline, whichever index Keras requests: the pipeline shuffles, so ``shuffle`` of ``fit`` changes nothing. Batches
    that Keras requests to build the model come again in the first epoch.

    Parameters
    ----------
    pipeline : Pipeline
        Its source knows the number of batches in an epoch.
    x, y, sample_weight : str, sequence of str, or None
        Fields for the model: a name stands for an array, and a sequence of names for a dict of arrays. By default
        images and labels.

    Raises
    ------
    ArgumentError
        An argument is not of its type, or a field is ragged. With a batch: a field is ragged.
    UnknownLengthError
        The source does not know the number of batches in an epoch.
    MissingPackageError
        Keras is not installed.

    Notes
    -----
    A batch raises `PipelineStateError` if the epoch has fewer batches than ``len(pipeline)``: all samples of a batch
    were skipped, or a state in the middle of an epoch was loaded. It raises `EndOfData` if the source has no further
    epoch.

    After a pass that ended early, the next one is the next epoch; but the same epoch again if it had 4 batches or
    fewer, like those that build the model. With ``steps_per_epoch``, the epochs of Keras continue in one pass.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        x: Names = "images",
        y: Names | None = "labels",
        sample_weight: Names | None = None,
    ) -> None:
        if PyDataset is None:
            raise MissingPackageError(
                'highway.keras: Keras is not installed: pip install "highway-loader[keras]"'
            )
        # One worker, which is the thread of Keras that trains: Highway has its own threads.
        super().__init__(workers=1, use_multiprocessing=False)
        if not isinstance(pipeline, Pipeline):
            raise ArgumentError(f"Dataset: pipeline is {pipeline!r}; expected a Pipeline")
        self.pipeline = pipeline
        self._length = len(pipeline)
        parts = {"x": x, "y": y, "sample_weight": sample_weight}
        if y is None and sample_weight is not None:
            raise ArgumentError(f"Dataset: sample_weight is {sample_weight!r} and y is None; expected both")
        self._parts = [_names(name, part) for name, part in parts.items() if part is not None or name == "x"]
        spec = pipeline.spec or {}
        _refuse_ragged(
            name for part in self._parts for name in _listed(part) if name in spec and spec[name].ragged
        )
        self._lock = threading.Lock()
        # A pass: its epoch, how many batches it has requested, and the first of them for the next pass.
        self._epoch: EpochIterator | None = None
        self._requested = 0
        self._kept: list[Batch] = []
        self._begins = True

    @property
    def num_batches(self) -> int:
        """Number of batches in an epoch."""
        # Keras asks for it when a pass begins, and at no other time between two batches; it does not ask where
        # steps_per_epoch continues a pass.
        self._begins = True
        return self._length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        """Return the next batch of the pass, as x, (x, y) or (x, y, sample_weight).

        Parameters
        ----------
        index : int
            Not used, except that it is within the length.

        Raises
        ------
        IndexError
            The index is out of range.
        """
        if not 0 <= index < self._length:
            raise IndexError(f"Dataset: there is no batch {index}; expected 0 to {self._length - 1}")
        with self._lock:
            batch = self._next()
        _refuse_ragged(name for part in self._parts for name in _listed(part) if name in batch.ragged)
        return tuple(
            batch[part] if isinstance(part, str) else {name: batch[name] for name in part}
            for part in self._parts
        )

    def _next(self) -> Batch:
        if self._begins or self._requested == self._length:
            self._begins = False
            self._begin()
        kept, requested = self._kept, self._requested
        if requested < len(kept):
            batch = kept[requested]
        else:
            assert self._epoch is not None
            found = next(self._epoch, None)
            if found is None:
                raise PipelineStateError(
                    f"Dataset: the epoch ended after {requested} batches; expected {self._length}, the same in every "
                    "epoch: use on_error='replace' in the reader, and load only states of the end of an epoch"
                )
            batch = found
            if requested == len(kept):
                kept.append(batch)
        self._requested = requested + 1
        if self._requested > _MOST_KEPT or self._requested == self._length:
            kept.clear()
        return batch

    def _begin(self) -> None:
        """Begin a pass: again at the front of an epoch of which only kept batches were requested, or the next epoch."""
        if self._epoch is None or not self._kept:
            self._epoch = iter(self.pipeline)
            self._kept = []
        self._requested = 0


def _names(argument: str, names: object) -> str | tuple[str, ...]:
    if isinstance(names, str):
        return names
    if isinstance(names, Sequence) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    raise ArgumentError(f"Dataset: {argument} is {names!r}; expected the name of a field, or several")


def _listed(part: str | tuple[str, ...]) -> tuple[str, ...]:
    return (part,) if isinstance(part, str) else part


def _refuse_ragged(names: Any) -> None:
    ragged = ", ".join(names)
    if ragged:
        raise ArgumentError(
            f"Dataset: {ragged}: samples have different numbers of rows, which Keras cannot batch; put "
            "PadBoxes(most) at the end of the pipeline"
        )
