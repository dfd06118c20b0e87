"""ZMQSink and ZMQSource: continue a pipeline in another process; Remote: run its modules there."""

from highway.network.pool import WorkerPool, worker_pool
from highway.network.remote import Remote, worker_pipeline
from highway.network.sink import ZMQSink
from highway.network.source import ZMQSource
from highway.network.tasks import Load, Tasks

__all__ = ["Load", "Remote", "Tasks", "WorkerPool", "ZMQSink", "ZMQSource", "worker_pipeline", "worker_pool"]
