"""What a pipeline says about itself: which role it has, whether it works, and whether its peers are connected."""

from __future__ import annotations

from highway.engine import Pipeline
from highway.engine.inspection import inspected
from highway.modules import ZMQSink, ZMQSource
from highway.network.pool import PoolSink, PoolSource
from highway.network.remote import RemoteReader
from highway.network.transport import Transport

__all__ = ["failure", "missing", "role", "transport_of"]


def transport_of(pipeline: Pipeline) -> Transport | None:
    """Return what moves the batches from or to other machines; None where nothing does."""
    for module in (pipeline.modules[-1], pipeline.modules[0]):
        if isinstance(module, (ZMQSink, ZMQSource, PoolSink, RemoteReader)):
            return module.transport
    return None


def role(pipeline: Pipeline) -> str:
    """Return "data", "worker", "trainer", or "local" for a pipeline without other machines."""
    receives = isinstance(pipeline.modules[0], (ZMQSource, PoolSource, RemoteReader))
    sends = isinstance(pipeline.modules[-1], (ZMQSink, PoolSink))
    if sends:
        return "worker" if receives else "data"
    return "trainer" if receives else "local"


def failure(pipeline: Pipeline) -> str | None:
    """Return the error that ended the pipeline, in one line; None where there was none."""
    failures = inspected(pipeline).outcome.failures
    if not failures:
        return None
    error, _ = failures[0]
    return " ".join(f"{type(error).__name__}: {error}".split())


def missing(pipeline: Pipeline) -> str | None:
    """Return which machine is not connected, in words; None where all are, and the pipeline runs."""
    if not pipeline.started:
        return "the pipeline has not started"
    transport = transport_of(pipeline)
    upstream, downstream = (None, None) if transport is None else transport.links()
    if upstream == 0:
        return "no machine is connected upstream"
    return "no machine is connected downstream" if downstream == 0 else None
