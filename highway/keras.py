"""Highway for Keras 3: a pipeline as a ``keras.utils.PyDataset``, for the backends JAX, PyTorch and TensorFlow."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from highway.batch import Batch
from highway.engine import Pipeline
from highway.engine.iteration import EpochIterator
from highway.errors import ArgumentError, EndOfData, MissingPackageError, PipelineStateError

try:
    from keras.callbacks import Callback
    from keras.utils import PyDataset
except ImportError as error:
    if error.name not in ("keras", "keras.callbacks", "keras.utils"):
        raise MissingPackageError(
            f"highway.keras: Keras cannot be imported: {error}. Install its backend, or set KERAS_BACKEND to one that "
            "is installed: jax, torch or tensorflow"
        ) from error
    Callback = PyDataset = None

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
    A batch raises `PipelineStateError` if the epoch has fewer batches than its length: all samples of a batch were
    skipped. It raises `EndOfData` if the source has no further epoch.

    After a pass that ended early, the next one is the next epoch; but the same epoch again if it had 4 batches or
    fewer, like those that build the model. With `callback`, only a pass without training comes again in ``fit``, also
    if those batches are the whole epoch. With ``steps_per_epoch``, the epochs of Keras continue in one pass.
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
            raise MissingPackageError("highway.keras: Keras is not installed: pip install keras")
        # One worker, which is the thread of Keras that trains: Highway has its own threads.
        super().__init__(workers=1, use_multiprocessing=False)
        if not isinstance(pipeline, Pipeline):
            raise ArgumentError(f"Dataset: pipeline is {pipeline!r}; expected a Pipeline")
        self.pipeline = pipeline
        # Raises where the source does not know it.
        len(pipeline)
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
        self._kept: list[tuple[Batch, dict[str, Any] | None]] = []
        self._begins = True
        # The position where the pass began; with `callback`, also those of batches that the model has not trained with
        # yet, the oldest first, and of the last one that it has. None where the pipeline has no state.
        self._tracks = False
        self._start: dict[str, Any] | None = None
        self._positions: deque[dict[str, Any] | None] = deque()
        self._position: dict[str, Any] | None = None
        # Whether the model has trained with a batch of the pass; whether its batches come again although it is over.
        self._trained = self._again = False

    @property
    def num_batches(self) -> int:
        """Number of batches of the next pass."""
        # Keras asks for it when a pass begins, and at no other time between two batches; it does not ask where
        # steps_per_epoch continues a pass.
        self._begins = True
        return len(self)

    def __len__(self) -> int:
        """Number of batches of the next pass: of an epoch, or of the rest of one after `load_state_dict`."""
        epoch = self._epoch
        if epoch is not None and self._comes_again(epoch):
            return len(epoch)
        try:
            return len(iter(self.pipeline))
        except (EndOfData, PipelineStateError):
            # Keras asks for it also after the last epoch, and after the pipeline was stopped.
            return len(self.pipeline)

    def callback(self) -> Any:
        """Return a ``keras.callbacks.Callback`` for ``fit``, which tells the dataset when the model has trained.

        `state_dict` needs it. Put it before callbacks that call `state_dict`.
        """
        self._tracks = True
        return _Progress(self)

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the data after the batch that the model has trained with last.

        It is a state of the pipeline, which does not know which batches are still on their way to the model.

        Raises
        ------
        PipelineStateError
            The pipeline has no state, see `Pipeline.state_dict`; or ``fit`` does not have the `callback`.
        """
        if not self._tracks:
            raise PipelineStateError(
                "Dataset.state_dict: the dataset does not know which batches the model has trained with; give fit "
                "callbacks=[data.callback(), ...]"
            )
        with self._lock:
            found = self._position
            if found is None and self._epoch is not None and self._comes_again(self._epoch):
                # What was requested has only built the model.
                found = self._start
            return self.pipeline.state_dict() if found is None else copy.deepcopy(found)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a position that `state_dict` returned: the next pass is the rest of its epoch.

        Keras reads the length of an epoch once per ``fit``: train for the rest with a ``fit`` for one epoch, which has
        the `callback`.

        Raises
        ------
        StateMismatchError
            The state is not valid, or belongs to another pipeline. Nothing was loaded.
        """
        with self._lock:
            self.pipeline.load_state_dict(state)
            self._epoch = self._position = self._start = None
            self._forget()

    def _begin_training(self) -> None:
        """Begin a ``fit``: batches that were requested before have built the model."""
        with self._lock:
            self._again = bool(self._kept) and not self._trained
            self._positions.clear()

    def _train(self, batches: int) -> None:
        """Count batches that the model has trained with."""
        with self._lock:
            self._trained = True
            # Keras counts steps_per_execution steps as one, also where an epoch has fewer left.
            for _ in range(min(batches, len(self._positions))):
                self._position = self._positions.popleft()

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
        with self._lock:
            length = len(self) if self._begins or self._epoch is None else len(self._epoch)
            if not 0 <= index < length:
                raise IndexError(f"Dataset: there is no batch {index}; expected 0 to {length - 1}")
            batch = self._next(self._current_epoch())
        _refuse_ragged(name for part in self._parts for name in _listed(part) if name in batch.ragged)
        return tuple(
            batch[part] if isinstance(part, str) else {name: batch[name] for name in part}
            for part in self._parts
        )

    def _next(self, epoch: EpochIterator) -> Batch:
        kept, requested, length = self._kept, self._requested, len(epoch)
        if requested < len(kept):
            batch, position = kept[requested]
        else:
            found = next(epoch, None)
            if found is None:
                raise PipelineStateError(
                    f"Dataset: the epoch ended after {requested} batches; expected {length}, the same in every epoch: "
                    "use on_error='replace' in the reader"
                )
            # A kept batch may come again with `callback`.
            keeps = requested == len(kept)
            batch, position = found, self._found_position() if keeps or self._tracks else None
            if keeps:
                kept.append((batch, position))
        if self._tracks:
            self._positions.append(position)
        self._requested = requested + 1
        if self._requested > _MOST_KEPT:
            kept.clear()
        return batch

    def _found_position(self) -> dict[str, Any] | None:
        try:
            return self.pipeline.state_dict()
        except PipelineStateError:
            # `state_dict` asks the pipeline again, and raises.
            return None

    def _current_epoch(self) -> EpochIterator:
        """Return the epoch of the pass; begins a pass where Keras does, or the last one is over."""
        epoch = self._epoch
        if epoch is None or self._begins or self._requested == len(epoch):
            if epoch is None or not self._comes_again(epoch):
                self._start = self._found_position()
                self._epoch = epoch = iter(self.pipeline)
                self._forget()
            if self._tracks and self._position is None:
                self._position = self._start
            self._begins, self._again, self._requested = False, False, 0
            self._positions.clear()
        return epoch

    def _comes_again(self, epoch: EpochIterator) -> bool:
        """Whether the next pass begins at the start of the same epoch, of which only kept batches were requested."""
        over = self._requested == len(epoch)
        return bool(self._kept) and not self._trained and (self._again or not over)

    def _forget(self) -> None:
        self._begins, self._trained, self._again, self._requested = True, False, False, 0
        self._kept.clear()
        self._positions.clear()


if Callback is not None:

    class _Progress(Callback):  # type: ignore[misc]
        """Tells a dataset which batches a model has trained with."""

        def __init__(self, dataset: Dataset) -> None:
            super().__init__()
            self._dataset = dataset
            # The last batch of the epoch of Keras.
            self._last = -1

        def on_train_begin(self, logs: Any = None) -> None:
            self._dataset._begin_training()

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._last = -1

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self._dataset._train(batch - self._last)
            self._last = batch


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
            "PadBoxes(most) or PadRagged(field) at the end of the pipeline"
        )
