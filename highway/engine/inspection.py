"""Inspection: the parts of a pipeline that tests of the engine observe; not part of the public interface."""

from __future__ import annotations

from highway.engine.pipeline import Pipeline
from highway.engine.run import Run

__all__ = ["inspected"]


def inspected(pipeline: Pipeline) -> Run:
    """Return the queues and threads of a pipeline."""
    return pipeline._run
