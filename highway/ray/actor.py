"""What runs on the nodes: a process that is one worker of a pipeline, as an actor of Ray."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import threading
from dataclasses import dataclass
from typing import Any

from highway.engine.cores import SHARE
from highway.network import worker_pipeline

__all__ = ["Place", "WorkerActor"]

# Seconds without the process of the training, after which a worker gives up.
LIFETIME = 60.0
# Seconds that a worker that has given up waits for its owner, before it ends its process.
FAREWELL = 30.0

logger = logging.getLogger("highway.ray")


@dataclass(frozen=True)
class Place:
    """Where an actor runs."""

    host: str
    node: str
    process: int


class WorkerActor:
    """One worker of a pipeline. It works from its construction on, so that Ray restarts it without a call.

    Parameters
    ----------
    definition : bytes
        Pickle of the modules of the pipeline.
    tasks, batches : str
        Addresses of the training process.
    cores : float
        Cores that it uses.
    options : dict
        Further arguments of `highway.network.worker_pipeline`.
    """

    def __init__(
        self, definition: bytes, tasks: str, batches: str, cores: float, options: dict[str, Any]
    ) -> None:
        # Ray counts cores and does not limit a process to them.
        os.environ[SHARE] = f"{max(cores, 0.01):g}"
        modules = pickle.loads(definition)
        self._pipeline = worker_pipeline(modules, tasks, batches, timeout=LIFETIME, **options)
        self._failure = ""
        self._ended = threading.Event()
        # Set while its owner is there, and will end this process.
        self._owned = threading.Event()
        threading.Thread(target=self._live, name="highway lifetime", daemon=True).start()

    def _live(self) -> None:
        try:
            self._pipeline.wait()
        except Exception as error:
            # Every error goes to the owner.
            self._failure = f"{type(error).__name__}: {error}"
            logger.warning("The worker has ended: %s", self._failure)
        self._ended.set()
        if not self._owned.wait(FAREWELL):
            # Ray ends the actors of a driver that is gone; this is for one that it does not know to be gone.
            os._exit(1)

    def where(self) -> Place:
        """Return where it runs, once it has begun to work."""
        import ray

        return Place(socket.gethostname(), ray.get_runtime_context().get_node_id(), os.getpid())

    def run(self) -> str:
        """Wait for the end of the worker, and return its failure; empty if the training has ended."""
        self._ended.wait()
        self._owned.set()
        return self._failure

    def drain(self, seconds: float) -> None:
        """Take no further tasks, and return when the training process has all batches that were begun."""
        self._owned.set()
        self._pipeline.drain(seconds)

    def stop(self) -> None:
        """Stop at once: what it holds is made again elsewhere."""
        self._owned.set()
        self._pipeline.stop()
