"""Highway for JAX: batches of ``jax.Array``, on devices and meshes; a `Batch` is a pytree.

Importing this module registers `Batch` with JAX: ``jax.tree.map`` maps over its arrays, and functions under
``jax.jit`` take and return batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from highway.arguments import whole
from highway.batch import Batch, assembled, ragged_groups
from highway.engine import Pipeline
from highway.errors import ArgumentError, MissingPackageError, PipelineStateError
from highway.modules import Augmentations, ImageSaver, PadBoxes
from highway.sampling.sampler import Sampler

try:
    import jax
except ImportError as error:
    if error.name != "jax":
        # It is there, and does not work.
        raise
    jax = None

__all__ = ["DeviceBatches", "batches"]

# Stages that return as many samples as they get.
_KEEP_SAMPLES = (Augmentations, ImageSaver, PadBoxes)


def batches(pipeline: Pipeline, sharding: Any = None, prefetch: int = 2) -> DeviceBatches:
    """Iterate over the next epoch of a pipeline, with arrays of JAX.

    Parameters
    ----------
    pipeline : Pipeline
        What ``for batch in pipeline`` yields, also after `load_state_dict`, is what this yields.
    sharding : jax.sharding.Sharding or jax.Device, optional
        Where the arrays go; by default to the default device. With a ``NamedSharding``, the batch of each process is
        its part of the global array (``jax.make_array_from_process_local_data``); an array with fewer dimensions than
        the partition spec follows its first entries.
    prefetch : int
        Batches that are copied to the devices ahead of the one that you have, 0 to 64. On the CPU without a `sharding`
        nothing is copied, and nothing is taken ahead.

    Returns
    -------
    DeviceBatches
        An iterator of `Batch`, whose fields, extras and offsets are ``jax.Array``; epoch, indices and keys are as in
        the pipeline.

    Raises
    ------
    ArgumentError
        An argument is not of its type or out of range; `sharding` does not divide the batches. With a batch: it has
        ragged fields and a `sharding` with several devices, or a field without numbers.
    MissingPackageError
        JAX is not installed.
    EndOfData
        The pipeline has no further epoch.

    Notes
    -----
    Without 64-bit mode (``jax_enable_x64``), JAX makes int32 and float32 of int64 and float64.

    On the CPU without a `sharding`, an array shares the memory of the batch of the pipeline, unless its dtype changes
    or its memory is not aligned to 64 bytes, as that of batches of Highway's modules is.
    """
    _require_jax()
    if not isinstance(pipeline, Pipeline):
        raise ArgumentError(f"highway.jax.batches: pipeline is {pipeline!r}; expected a Pipeline")
    prefetch = whole("highway.jax.batches", "prefetch", prefetch, 0, 64)
    if sharding is None and jax.default_backend() == "cpu":
        # An array of JAX never changes, and neither does a batch of a pipeline.
        return DeviceBatches(pipeline, lambda name, array: jax.device_put(array, may_alias=True), 0)
    if sharding is None or isinstance(sharding, (jax.Device, jax.sharding.SingleDeviceSharding)):
        return DeviceBatches(pipeline, lambda name, array: jax.device_put(array, sharding), prefetch)
    if not isinstance(sharding, jax.sharding.Sharding):
        raise ArgumentError(
            f"highway.jax.batches: sharding is {sharding!r}; expected a jax.sharding.Sharding or a jax.Device"
        )
    placing = _Placing(sharding)
    for size in _sizes(pipeline):
        placing.check_divides("a batch", size)
    return DeviceBatches(pipeline, placing, prefetch)


class DeviceBatches(Iterator[Batch]):
    """Yields one epoch of batches of ``jax.Array``; `batches` makes it. ``len()`` is the number of batches."""

    def __init__(self, pipeline: Pipeline, place: Callable[[str, NDArray[Any]], Any], prefetch: int) -> None:
        self._pipeline = pipeline
        self._epoch = iter(pipeline)
        self._place = place
        self._prefetch = prefetch
        self._ahead: deque[tuple[Batch, dict[str, Any] | None]] = deque()
        self._over = False
        # After the batch that was yielded last, if the pipeline is ahead of it.
        self._state: dict[str, Any] | None = None

    def __iter__(self) -> DeviceBatches:
        return self

    def __len__(self) -> int:
        return len(self._epoch)

    def __next__(self) -> Batch:
        while not self._over and len(self._ahead) <= self._prefetch:
            batch = next(self._epoch, None)
            if batch is None:
                self._over = True
            else:
                self._ahead.append((self._placed(batch), self._position()))
        if not self._ahead:
            raise StopIteration
        batch, self._state = self._ahead.popleft()
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the batch that was yielded last: `Pipeline.state_dict` without those ahead.

        Raises
        ------
        PipelineStateError
            As `Pipeline.state_dict`.
        """
        return self._pipeline.state_dict() if self._state is None else self._state

    def _position(self) -> dict[str, Any] | None:
        if not self._prefetch:
            return None
        try:
            return self._pipeline.state_dict()
        except PipelineStateError:
            return None

    def _placed(self, batch: Batch) -> Batch:
        if batch.ragged and isinstance(self._place, _Placing):
            raise ArgumentError(
                f"highway.jax.batches: {', '.join(sorted(batch.ragged))} have a different number of rows for each "
                "sample, which cannot be divided among devices; put PadBoxes(most) or PadRagged(field) at "
                "the end of the pipeline"
            )
        arrays, structure = _flatten(batch)
        return _unflatten(structure, map(self._put, structure.names, arrays))

    def _put(self, name: str, array: NDArray[Any]) -> Any:
        try:
            return self._place(name, array)
        except TypeError as error:
            raise ArgumentError(
                f"highway.jax.batches: field {name!r} is {array.dtype}; expected numbers, of a type that JAX has"
            ) from error


class _Placing:
    """Puts arrays on the devices of a sharding, each process its own part."""

    def __init__(self, sharding: Any) -> None:
        self._sharding = sharding
        self._of_rank: dict[int, Any] = {}

    def __call__(self, name: str, array: NDArray[Any]) -> Any:
        if array.ndim:
            self.check_divides(f"field {name!r}", len(array))
        try:
            return jax.make_array_from_process_local_data(self._for(array.ndim), array)
        except ValueError as error:
            raise ArgumentError(
                f"highway.jax.batches: field {name!r} of shape {array.shape} cannot be placed by "
                f"sharding={self._sharding}: {error}"
            ) from error

    def check_divides(self, what: str, rows: int) -> None:
        """Raise ArgumentError if the sharding does not divide so many samples of this process."""
        try:
            self._for(1).shard_shape((rows * jax.process_count(),))
        except ValueError:
            raise ArgumentError(
                f"highway.jax.batches: {what} has {rows} samples, which sharding={self._sharding} does not divide "
                "evenly among its devices; use another batch_size, and drop_last=True if only the last batch of an "
                "epoch is smaller"
            ) from None

    def _for(self, ndim: int) -> Any:
        """Return the sharding for arrays with so many dimensions."""
        if ndim not in self._of_rank:
            found = self._sharding
            if isinstance(found, jax.sharding.NamedSharding) and len(found.spec) > ndim:
                spec = jax.sharding.PartitionSpec(*found.spec[:ndim])
                found = jax.sharding.NamedSharding(found.mesh, spec, memory_kind=found.memory_kind)
            self._of_rank[ndim] = found
        return self._of_rank[ndim]


def _sizes(pipeline: Pipeline) -> list[int]:
    """Numbers of samples of the full batches and of the last one in all epochs, where they are known before."""
    source, *stages = pipeline.modules
    order = getattr(source, "order", None)
    if not isinstance(order, Sampler) or not all(isinstance(stage, _KEEP_SAMPLES) for stage in stages):
        return []
    return sorted(order.batch_counts(), reverse=True)


def _require_jax() -> None:
    if jax is None:
        raise MissingPackageError("highway.jax: JAX is not installed: pip install jax")


# Batch as a pytree


class _Identity(NamedTuple):
    """What a batch says of its samples."""

    epoch: int = 0
    seq: int | None = None
    indices: NDArray[np.int64] | None = None
    keys: Sequence[str] = ()
    applied: int = 0


@dataclass(frozen=True)
class _Structure:
    """What is not an array in a batch.

    The identity does not count for equality: functions under ``jax.jit`` are compiled once for all batches with the
    same names.
    """

    fields: tuple[str, ...]
    extras: tuple[str, ...]
    ragged: frozenset[str]
    has_offsets: bool
    # Names that share their offsets, where the ragged arrays have different ones.
    groups: tuple[tuple[str, ...], ...]
    identity: _Identity = field(compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the arrays."""
        apart = (f"offsets_of_{group[0]}" for group in self.groups)
        return (*self.fields, *self.extras, *(("offsets",) if self.has_offsets else ()), *apart)


def _flatten(batch: Batch) -> tuple[list[Any], _Structure]:
    arrays: list[Any] = [*batch.fields.values(), *batch.extras.values()]
    if batch.offsets is not None:
        arrays.append(batch.offsets)
    groups: tuple[tuple[str, ...], ...] = ()
    if batch._apart:
        groups = tuple(map(tuple, ragged_groups(batch)))
        arrays += [batch.offsets_of(group[0]) for group in groups]
    identity = _Identity(batch.epoch, batch.seq, batch._indices, batch.keys, batch.applied)
    names = tuple(batch.fields), tuple(batch.extras)
    return arrays, _Structure(*names, batch.ragged, batch.offsets is not None, groups, identity)


def _flatten_with_keys(batch: Batch) -> tuple[list[tuple[Any, Any]], _Structure]:
    arrays, structure = _flatten(batch)
    keys = map(jax.tree_util.GetAttrKey, structure.names)
    return list(zip(keys, arrays, strict=True)), structure


def _unflatten(structure: _Structure, children: Iterable[Any]) -> Batch:
    arrays = list(children)
    first = len(structure.fields)
    rest = first + len(structure.extras)
    identity = structure.identity
    if any(isinstance(array, jax.core.Tracer) for array in arrays):
        # Compiled functions run for batches of other samples too.
        identity = _Identity()
    return assembled(
        dict(zip(structure.fields, arrays[:first], strict=True)),
        dict(zip(structure.extras, arrays[first:rest], strict=True)),
        arrays[rest] if structure.has_offsets else None,
        structure.ragged,
        apart={
            name: array
            for group, array in zip(structure.groups, arrays[rest:], strict=False)
            for name in group
        },
        **identity._asdict(),
    )


if jax is not None:
    jax.tree_util.register_pytree_with_keys(Batch, _flatten_with_keys, _unflatten, _flatten)
