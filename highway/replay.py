"""Replay: make any batch of a training again, from the definition of its pipeline and the number of the step.

Random numbers depend on seed, epoch, sample and transform alone, and every place in the order of the data is computed
directly, so one batch is made without those before it, in the calling thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from highway.arguments import whole
from highway.arguments.signatures import explained
from highway.batch import Batch
from highway.engine import Module, Pipeline, Sink, Stage
from highway.errors import ArgumentError, ContractError
from highway.modules.readers.ordered import OrderedSource
from highway.sampling.sampler import Task

__all__ = ["batch"]


@explained("replay.batch")
def batch(
    pipeline: Pipeline | Sequence[Module],
    state: Mapping[str, Any] | None = None,
    *,
    step: int | None = None,
    epoch: int | None = None,
    global_step: int | None = None,
    shard: tuple[int, int] | None = None,
) -> Batch:
    """Return the batch that a training received at a step, to the bit.

    Data, seeds and batch size must be those of the training; numbers of workers do not matter. Nothing is changed in
    `pipeline`. Only this batch is made, in the calling thread.

    Parameters
    ----------
    pipeline : Pipeline or sequence of Module
        The pipeline, or modules like those of the training. A sink at the end is left away.
    state : mapping, optional
        A later or earlier `Pipeline.state_dict` of the training: checks that the data is the same, gives the epoch, and
        what was skipped. By default, what `pipeline` skips.
    step : int
        Number of the batch in its epoch, from 0, as ``batch.seq``.
    epoch : int, optional
        By default the epoch of `state`, else 0.
    global_step : int
        Instead of `step` and `epoch`: number of the batch from the start of epoch 0.
    shard : (int, int), optional
        (rank, world); by default that of the reader.

    Returns
    -------
    Batch

    Raises
    ------
    ArgumentError
        `pipeline` does not begin with a reader that orders its samples, draws its seeds anew, or has a stage that
        regroups samples; there is no such step, epoch or rank; or the training received no batch at this step, since it
        was skipped.
    StateMismatchError
        `state` is not valid, or belongs to other data or another order.
    Exception
        Whatever a module raises.

    Examples
    --------
    >>> from highway.modules import Noise
    >>> modules = [Noise(4, (2, 2), size=10, seed=1)]
    >>> with Pipeline(modules) as pipeline:
    ...     seen = [batch.indices.tolist() for batch in pipeline.epoch(5)]
    >>> [batch(modules, epoch=5, step=n).indices.tolist() for n in range(3)] == seen
    True
    """
    with Pipeline(_modules(pipeline)) as copy:
        source = copy.modules[0]
        assert isinstance(source, OrderedSource)
        # From here on it shares nothing that its end could interrupt in a pipeline that runs.
        source.prepare()
        if shard is not None:
            source.take_shard(shard)
        begun = None
        if state is not None:
            begun = source.find(state)
            source.begin_at(begun)
        if step is None and global_step is None:
            raise ArgumentError("replay.batch: step is missing; expected step=, or global_step=")
        if global_step is not None:
            if step is not None or epoch is not None:
                raise ArgumentError(
                    f"replay.batch: global_step={global_step!r} is given with step={step!r} and epoch={epoch!r}; "
                    "expected either a global step alone, or a step and its epoch"
                )
            epoch, step = source.batch_at(whole("replay.batch", "global_step", global_step, 0))
        elif epoch is None:
            epoch = 0 if begun is None else begun.epoch
        made = _made(copy.modules, _task(source, epoch, step))
        if made is None:
            raise ArgumentError(
                f"replay.batch: the training received no batch at step {step} of epoch {epoch}: the step, or all of "
                "its samples, were skipped"
            )
        return made


def _modules(pipeline: object) -> list[Module]:
    """Return copies of the modules that make the batches of a definition."""
    modules: list[Any]
    if isinstance(pipeline, Pipeline):
        modules = list(pipeline.modules)
    elif isinstance(pipeline, (list, tuple)) and pipeline:
        modules = list(pipeline)
    else:
        raise ArgumentError(
            f"replay.batch: pipeline is {pipeline!r}; expected a Pipeline, or a list of modules that begins with a "
            "reader"
        )
    # A DatasetReader of an iterable has no order.
    if not isinstance(modules[0], OrderedSource) or not hasattr(modules[0], "order"):
        raise ArgumentError(
            f"replay.batch: the pipeline begins with {modules[0]!r}; expected a reader, such as ImageFileReader"
        )
    for module in modules:
        # The modules of a pipeline have drawn theirs; what they drew for another run is not known.
        if getattr(module, "seed_drawn", False) and not isinstance(pipeline, Pipeline):
            raise ArgumentError(
                f"replay.batch: {module.name} has seed=None, which draws another seed for each run; expected the seed "
                "of the training, which the logger highway.modules has logged"
            )
    if isinstance(modules[-1], Sink):
        modules.pop()
    for module in modules:
        if isinstance(module, Stage) and module.regroups:
            raise ArgumentError(
                f"replay.batch: {module.name} makes batches of other samples than the reader, so the number of a step "
                "does not say which these are; expected stages that keep the batches: leave it out, and replay the "
                "batch of the reader"
            )
    # Copies: a pipeline notes in a module that it has run it.
    return [module.copied() if isinstance(module, Module) else module for module in modules]


def _task(source: OrderedSource, epoch: int, step: int | None) -> Task:
    last = 2**32 - 1 if source.epochs is None else source.epochs - 1
    epoch = whole("replay.batch", "epoch", epoch, 0, max(last, 0))
    length = source.batches_in(epoch)
    if isinstance(step, int) and step >= length:
        raise ArgumentError(
            f"replay.batch: step is {step}; expected 0 to {length - 1}: epoch {epoch} has {length} batches on each "
            "rank. global_step= counts on over the epochs"
        )
    return source.task_at(epoch, whole("replay.batch", "step", step, 0, length - 1))


def _made(modules: Sequence[Module], task: Task) -> Batch | None:
    """Make the batch of a task; None if it is skipped. The pipeline of the modules interrupts them afterwards."""
    source, *stages = modules
    assert isinstance(source, OrderedSource)
    with ExitStack() as stack:
        for module in modules:
            module.enter(modules, lambda: None)
        for module in modules:
            if not module.left_out:
                module.open()
                stack.callback(module.close)
        made = source.load(task)
        for stage in stages:
            assert isinstance(stage, Stage)
            if made is None:
                break
            if not stage.left_out:
                made = _processed(stage, made)
        return made


def _processed(stage: Stage, given: Batch) -> Batch | None:
    result = stage.process(given)
    if result is not None and not isinstance(result, Batch):
        raise ContractError(
            f"{stage.name}.process returned {type(result).__name__}; it must return a Batch or None"
        )
    if result is not None and result is not given and result.seq is None:
        result.adopt(given)
    return result
