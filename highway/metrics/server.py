"""A small HTTP server beside a pipeline: /healthz, /readyz and /metrics."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from highway.arguments import whole
from highway.engine import Pipeline
from highway.errors import AddressError, AddressInUseError, ArgumentError, MissingPackageError
from highway.metrics import state

__all__ = ["Server", "serve"]

OWNER = "metrics.serve"
# Seconds that a client may be silent within a request.
SILENCE = 10.0
TEXT = "text/plain; charset=utf-8"

Answer = tuple[int, str, bytes]


def serve(pipeline: Pipeline, port: int, *, host: str = "127.0.0.1") -> Server:
    """Serve the state of a pipeline over HTTP, in a thread, until the server is closed.

    ``/healthz`` answers 200, or 503 once a module has raised an error. ``/readyz`` answers 200 while the pipeline runs
    and at least one machine is connected at each end that leads to other machines, else 503. ``/metrics`` has the
    figures of the pipeline in the format of Prometheus. Every answer but 200 says why.

    Parameters
    ----------
    pipeline : Pipeline
        Also one that is not started, or does not use other machines.
    port : int
        0 to 65535; 0 for a free port, which `Server.port` has.
    host : str
        Address to listen at. Nothing is encrypted and nobody is asked for a secret: by default only this machine can
        connect; ``"0.0.0.0"`` is for every IPv4 address of it.

    Returns
    -------
    Server
        A context manager, which closes it.

    Raises
    ------
    MissingPackageError
        prometheus-client is not installed.
    ArgumentError
        `pipeline` is no Pipeline, or `port` is out of range.
    AddressInUseError, AddressError
        The address is in use, or is none of this machine.
    """
    if not isinstance(pipeline, Pipeline):
        raise ArgumentError(f"{OWNER}: pipeline is {pipeline!r}; expected a Pipeline")
    return Server(_metrics_of(pipeline), pipeline, host, whole(OWNER, "port", port, 0, 65535))


def _metrics_of(pipeline: Pipeline) -> Callable[[str], Answer]:
    """Return a function that makes the answer to /metrics from the header ``Accept``."""
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder
    except ImportError as error:
        raise MissingPackageError(
            f"{OWNER}: metrics need prometheus-client, which cannot be imported ({error}): "
            "pip install highway-loader[metrics]"
        ) from None
    from highway.metrics.collector import PipelineCollector

    registry = CollectorRegistry(auto_describe=False)
    collector: Any = PipelineCollector(pipeline)
    registry.register(collector)

    def answer(accept: str) -> Answer:
        encode, kind = choose_encoder(accept)
        return 200, kind, encode(registry)

    return answer


class Server:
    """An HTTP server of a pipeline, made by `serve`; a context manager.

    Attributes
    ----------
    host : str
    port : int
        With the actual port, also where 0 was asked for.
    """

    def __init__(self, metrics: Callable[[str], Answer], pipeline: Pipeline, host: str, port: int) -> None:
        self._metrics = metrics
        self._pipeline = pipeline
        try:
            self._http = _listening(host, port, self._answer)
        except OSError as error:
            where = f"{OWNER}: {host}:{port}"
            if error.errno == errno.EADDRINUSE:
                raise AddressInUseError(
                    f"{where} is in use; choose another port, or 0 for a free one"
                ) from None
            reason = error.strerror or os.strerror(error.errno or 0)
            raise AddressError(
                f"{where} cannot be used: {reason}; expected an address of this machine"
            ) from None
        self.host, self.port = host, int(self._http.server_address[1])
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.1,), name=f"highway metrics {self.port}", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """``http://HOST:PORT``."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def close(self) -> None:
        """Stop serving. Idempotent."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Server({self.address!r})"

    def _answer(self, path: str, accept: str) -> Answer:
        if path == "/metrics":
            return self._metrics(accept)
        if path == "/healthz":
            return _verdict(state.failure(self._pipeline))
        if path == "/readyz":
            return _verdict(state.failure(self._pipeline) or state.missing(self._pipeline))
        return 404, TEXT, b"expected /healthz, /readyz or /metrics\n"


def _verdict(trouble: str | None) -> Answer:
    if trouble is None:
        return 200, TEXT, b"ok\n"
    return 503, TEXT, f"{trouble}\n".encode("utf-8", "backslashreplace")


def _listening(host: str, port: int, answer: Callable[[str, str], Answer]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        timeout = SILENCE

        def do_GET(self) -> None:
            status, kind, body = answer(self.path.partition("?")[0], self.headers.get("Accept", ""))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: probes come every few seconds."""

    class HTTPServer(ThreadingHTTPServer):
        address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        daemon_threads = True
        # Many probes may come at once; one that nobody reads must not keep `close` waiting.
        block_on_close = False
        allow_reuse_port = False

    return HTTPServer((host, port), Handler)
