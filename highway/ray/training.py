"""Ray Train: a pipeline that takes rank, world and position from the training, and its state in a checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from highway.arguments import flag
from highway.engine import Module, Pipeline
from highway.errors import ArgumentError, PipelineStateError, StateMismatchError
from highway.ray.library import train

__all__ = ["STATE_FILE", "loader", "save_state"]

STATE_FILE = "highway.json"
"""Name of the file of a checkpoint that has the position in the data."""


def loader(
    modules: Sequence[Module],
    *,
    on: Any = None,
    ordered: bool = True,
    max_bytes: int | None = None,
    resume: bool = True,
) -> Pipeline:
    """Make the pipeline of this rank of a Ray Train training: call it in ``train_loop_per_worker``.

    The reader reads the part of this rank. If Ray Train restarts the training from a checkpoint, also with another
    number of ranks, the pipeline continues from the state that `save_state` has put there.

    Parameters
    ----------
    modules : sequence of Module
        As of `highway.engine.Pipeline`; the same on all ranks.
    on : Workers, optional
        What runs the modules, see `highway.engine.Pipeline`.
    ordered, max_bytes
        As of `highway.engine.Pipeline`.
    resume : bool
        Whether to continue from the checkpoint; False to begin at the first epoch in any case.

    Returns
    -------
    Pipeline
        To iterate over, or for `highway.torch.Loader`. Stop it at the end of the loop.

    Raises
    ------
    MissingPackageError
        Ray Train is not installed.
    PipelineStateError
        This process is no worker of Ray Train.
    ArgumentError
        The reader has a `shard` that is not the rank and world of Ray Train; or see `highway.engine.Pipeline`.
    StateMismatchError
        The checkpoint has no state, or one of other data.
    """
    library = train("highway.ray.loader")
    resume = flag("highway.ray.loader", "resume", resume)
    try:
        context, checkpoint = library.get_context(), library.get_checkpoint()
    except RuntimeError as error:
        raise PipelineStateError(
            f"highway.ray.loader: this process is no worker of Ray Train; expected a call in train_loop_per_worker "
            f"({error})"
        ) from None
    shard = (context.get_world_rank(), context.get_world_size())
    pipeline = Pipeline(_of_rank(modules, shard), ordered=ordered, max_bytes=max_bytes, on=on)
    try:
        if resume and checkpoint is not None:
            pipeline.load_state_dict(_state_in(checkpoint))
    except BaseException:
        pipeline.stop()
        raise
    return pipeline


def save_state(pipeline: Any, directory: str | os.PathLike[str]) -> None:
    """Put the position in the data into the folder of a checkpoint, for `loader`.

    All ranks have the same state after the same step, so one of them may write it, or each of them.

    Parameters
    ----------
    pipeline : Pipeline or highway.torch.Loader
        What has `state_dict`.
    directory : str or path
        The folder that becomes a ``ray.train.Checkpoint``.

    Raises
    ------
    ArgumentError
        `pipeline` has no state.
    PipelineStateError
        See `highway.engine.Pipeline.state_dict`.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from highway.modules import Noise
    >>> with Pipeline([Noise(2, 4, size=10, seed=1)]) as pipeline, tempfile.TemporaryDirectory() as folder:
    ...     batch = pipeline.dequeue()
    ...     save_state(pipeline, folder)
    ...     os.listdir(folder)
    ['highway.json']
    """
    if not hasattr(pipeline, "state_dict"):
        raise ArgumentError(
            f"highway.ray.save_state: pipeline is {pipeline!r}; expected a Pipeline or a highway.torch.Loader"
        )
    target = Path(directory) / STATE_FILE
    # A rank that reads the folder meanwhile sees a whole file.
    unfinished = target.with_name(f"{STATE_FILE}.{os.getpid()}")
    unfinished.write_text(json.dumps(pipeline.state_dict()), encoding="utf-8")
    unfinished.replace(target)


def _state_in(checkpoint: Any) -> Mapping[str, Any]:
    """Return the state in a checkpoint; reads no other file of it, which may be large."""
    path = f"{checkpoint.path}/{STATE_FILE}"
    try:
        with checkpoint.filesystem.open_input_stream(path) as file:
            state = json.loads(file.read())
    except FileNotFoundError:
        raise StateMismatchError(
            f"highway.ray.loader: the checkpoint {checkpoint.path} has no {STATE_FILE}; expected one that "
            "highway.ray.save_state has written: call it before each report, or give resume=False to begin anew"
        ) from None
    except ValueError as error:
        raise StateMismatchError(
            f"highway.ray.loader: {path} is not valid JSON ({error}); expected what highway.ray.save_state has written"
        ) from None
    if not isinstance(state, dict):
        raise StateMismatchError(
            f"highway.ray.loader: {path} holds {state!r:.60}; expected what highway.ray.save_state has written"
        )
    return state


def _of_rank(modules: Sequence[Module], shard: tuple[int, int]) -> list[Module]:
    """Return the modules with a reader that reads the part of this rank."""
    if not isinstance(modules, (list, tuple)) or not modules or not isinstance(modules[0], Module):
        raise ArgumentError(
            f"highway.ray.loader: modules is {modules!r}; expected a list of modules that begins with a reader"
        )
    reader, *others = modules
    arguments, keywords = reader._specification()
    if "shard" not in keywords:
        raise ArgumentError(
            f"highway.ray.loader: the pipeline begins with {reader!r}, which has no shard; expected a reader, such as "
            "ImageFileReader"
        )
    given = keywords["shard"]
    if given not in ("auto", shard, list(shard)):
        raise ArgumentError(
            f"highway.ray.loader: the reader has shard={given!r}, and Ray Train says rank and world {shard}; "
            "expected shard='auto'"
        )
    keywords["shard"] = shard
    return [type(reader)(*arguments, **keywords), *others]
