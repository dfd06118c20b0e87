"""Place: where the modules of a pipeline run, if not in its own process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from highway.engine.module import Module

__all__ = ["Place"]


@runtime_checkable
class Place(Protocol):
    """What the argument `on` of a `Pipeline` needs: it runs modules elsewhere, and returns what runs here instead."""

    def distribute(self, modules: Sequence[Module]) -> Sequence[Module]:
        """Return the modules that the pipeline runs in its own process; the first one gets batches from elsewhere."""

    def start(self, pipeline: Any) -> None:
        """Start what runs elsewhere. Runs once, when the `Pipeline` is made."""

    def close(self) -> None:
        """End what runs elsewhere. Runs once, when the pipeline is stopped or collected, in any thread."""
