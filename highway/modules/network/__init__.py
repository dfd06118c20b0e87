"""ZMQSink and ZMQSource: pipelines that go on in another process, or on another machine."""

from highway.modules.network.sink import ZMQSink
from highway.modules.network.source import ZMQSource

__all__ = ["ZMQSink", "ZMQSource"]
