"""ZMQSink and ZMQSource: continue a pipeline in another process or on another machine."""

from highway.network.sink import ZMQSink
from highway.network.source import ZMQSource

__all__ = ["ZMQSink", "ZMQSource"]
