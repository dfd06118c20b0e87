"""Inspection: the parts of a pipeline that tests of the engine observe; not part of the public interface."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import NamedTuple

from highway._core.queue import BatchQueue
from highway.engine.pipeline import Pipeline
from highway.engine.workers import Control, ModuleRunner, Tuning

__all__ = ["Inspection", "inspected"]


class Inspection(NamedTuple):
    """What a pipeline consists of at the moment.

    Attributes
    ----------
    queue : BatchQueue
        The queue that `Pipeline.dequeue` reads.
    runners : sequence of ModuleRunner
        Those of the modules that run, in their order.
    control : Control
        Threads, memory pool, and their end.
    tuning : Tuning
        Numbers of workers.
    turn : threading.Lock
        Held while threads start, an epoch begins or a state is loaded.
    moves : int
        Changes when the batches made so far are dropped, and when others follow.
    """

    queue: BatchQueue
    runners: Sequence[ModuleRunner]
    control: Control
    tuning: Tuning
    turn: threading.Lock
    moves: int


def inspected(pipeline: Pipeline) -> Inspection:
    """Return the parts of a pipeline; a state that is loaded replaces some of them."""
    return Inspection(
        pipeline._last,
        pipeline._runners,
        pipeline._control,
        pipeline._tuning,
        pipeline._turn,
        pipeline._moves,
    )
