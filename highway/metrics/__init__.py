"""State of a running pipeline over HTTP: health, readiness, and metrics for Prometheus."""

from highway.metrics.server import Server, serve

__all__ = ["Server", "serve"]
