"""ZMQSink and ZMQSource: continue a pipeline in another process; Remote: run its modules there."""

from highway.network.remote import Remote, worker_pipeline
from highway.network.sink import ZMQSink
from highway.network.source import ZMQSource
from highway.network.tasks import Load, Tasks

__all__ = ["Load", "Remote", "Tasks", "ZMQSink", "ZMQSource", "worker_pipeline"]
