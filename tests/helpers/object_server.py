"""An HTTP server on loopback with the read requests of S3 and WebDAV, which injects faults and counts requests.

As a program, ``python object_server.py FOLDER --latency 0.03``, it serves the files of a folder as the bucket "data",
prints its address, and ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

# Requests to this machine are not for proxies.
for _name in ("NO_PROXY", "no_proxy"):
    os.environ[_name] = ",".join(filter(None, (os.environ.get(_name), "127.0.0.1")))

LIMIT = 60.0
BUCKET = "data"
_MODIFIED = "2026-01-02T03:04:05.000Z"
_HTTP_DATE = "Fri, 02 Jan 2026 03:04:05 GMT"
_REASONS = {200: "OK", 206: "Partial Content", 207: "Multi-Status", 304: "Not Modified", 403: "Forbidden"}


@dataclass(frozen=True)
class Request:
    """A request: `key` is the unquoted path without its leading slash, `range` is [start, stop)."""

    number: int
    method: str
    key: str
    query: dict[str, str] = field(default_factory=dict)
    range: tuple[int, int | None] | None = None

    @property
    def lists(self) -> bool:
        return self.method == "PROPFIND" or "list-type" in self.query


@dataclass(frozen=True)
class Fault:
    """What the server does instead of answering properly.

    Attributes
    ----------
    delay : float
        Seconds before it answers, or `HANG`: it never does.
    reset : bool
        Resets the connection instead of answering.
    status : int
        Answers with this status and no object.
    cut : int
        Resets the connection after so many bytes of the body.
    short : int
        States and sends so many bytes fewer than were asked for.
    body : bytes
        Answers as if this was the object.
    drip : str
        Sends the first byte at once, and then one more every 50 ms: of the "body", or of the "head" before it.
    """

    delay: float = 0.0
    reset: bool = False
    status: int | None = None
    cut: int | None = None
    short: int = 0
    body: bytes | None = None
    drip: str = ""


_DRIP_SECONDS = 0.05
HANG = -1.0


def etag_of(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


class ObjectServer:
    """Serves objects from memory; a context manager, which starts and ends its thread.

    Parameters
    ----------
    objects : mapping of str to bytes
        By "BUCKET/KEY".
    latency : float
        Seconds before every answer.
    page : int
        Most objects on a page of a listing.

    Attributes
    ----------
    fault : callable
        Returns the fault of a request, or None; runs in the thread of the server.
    away : bool
        Resets every connection while it is set.
    requests : list of Request
    accepted : int
        Number of connections so far.
    """

    def __init__(self, objects: Mapping[str, bytes], *, latency: float = 0.0, page: int = 1000) -> None:
        self.objects = dict(objects)
        self.latency, self.page = latency, page
        self.etags = {key: etag_of(body) for key, body in self.objects.items()}
        self.fault: Callable[[Request], Fault | None] = lambda request: None
        self.away = False
        self.requests: list[Request] = []
        self.accepted = 0
        self.open_connections: set[_Connection] = set()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="object server", daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> ObjectServer:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._socket.getsockname()[1]
        self._thread.start()
        assert self._ready.wait(LIMIT)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LIMIT)
        assert not self._thread.is_alive()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> dict[str, object]:
        """`storage_options` for ``s3://``."""
        return {
            "endpoint": self.endpoint,
            "access_key_id": "key",
            "secret_access_key": "secret",
            "region": "us-east-1",
        }

    def put(self, key: str, body: bytes) -> None:
        self.objects[key], self.etags[key] = body, etag_of(body)

    def count(self, method: str = "GET", *, lists: bool = False) -> int:
        """Number of requests so far of this method, for objects or for listings."""
        return sum(one.method == method and one.lists == lists for one in list(self.requests))

    def per_key(self) -> Counter[str]:
        """Number of GET requests of each object."""
        return Counter(one.key for one in list(self.requests) if one.method == "GET" and not one.lists)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(
            self.loop.create_server(lambda: _Connection(self), sock=self._socket)
        )
        self._ready.set()
        try:
            self.loop.run_forever()
        finally:
            # First no more of them, and then the server: asyncio loses connections, without closing their sockets, that
            # are being accepted when their server is closed.
            self.loop.remove_reader(self._socket)
            self.loop.run_until_complete(self._closed())
            server.close()
            self.loop.close()

    async def _closed(self) -> None:
        """Close all connections, also those that are being accepted."""
        accepting = asyncio.all_tasks() - {asyncio.current_task()}
        if accepting:
            await asyncio.wait(accepting, timeout=LIMIT)
        await asyncio.sleep(0)
        while self.open_connections:
            for connection in list(self.open_connections):
                connection.transport.abort()
            await asyncio.sleep(0)

    # Answers

    def answer(self, request: Request, fault: Fault) -> tuple[int, dict[str, str], bytes]:
        if fault.status is not None:
            return fault.status, {}, b"<Error><Code>Injected</Code></Error>"
        if request.method == "PROPFIND":
            inside = f"{request.key.strip('/')}/".lstrip("/")
            if not any(key.startswith(inside) for key in self.objects):
                return 404, {}, b""
            return 207, {"Content-Type": "application/xml"}, self._webdav(request.key)
        if "list-type" in request.query:
            return 200, {"Content-Type": "application/xml"}, self._listing(request)
        whole = self.objects.get(request.key) if fault.body is None else fault.body
        if whole is None:
            return 404, {}, b"<Error><Code>NoSuchKey</Code></Error>"
        etag = self.etags[request.key] if fault.body is None else etag_of(whole)
        headers = {"ETag": etag, "Last-Modified": _HTTP_DATE, "Accept-Ranges": "bytes"}
        if request.range is None:
            return 200, headers, whole
        start, stop = request.range[0], min(request.range[1] or len(whole), len(whole))
        if start >= len(whole):
            return 416, {"Content-Range": f"bytes */{len(whole)}"}, b""
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(whole)}"
        return 206, headers, whole[start:stop]

    def _listing(self, request: Request) -> bytes:
        bucket = request.key.strip("/")
        query = request.query
        prefix, after = query.get("prefix", ""), query.get("start-after", "")
        after = max(after, query.get("continuation-token", ""))
        keys = sorted(key.removeprefix(f"{bucket}/") for key in self.objects if key.startswith(f"{bucket}/"))
        keys = [key for key in keys if key.startswith(prefix) and key > after]
        page = keys[: self.page]
        more = len(keys) > len(page)
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{_MODIFIED}</LastModified>"
            f"<ETag>{escape(self.etags[f'{bucket}/{key}'])}</ETag>"
            f"<Size>{len(self.objects[f'{bucket}/{key}'])}</Size></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return (
            f"<ListBucketResult><Name>{bucket}</Name><KeyCount>{len(page)}</KeyCount>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}</ListBucketResult>"
        ).encode()

    def _webdav(self, folder: str) -> bytes:
        inside = folder.strip("/") + "/" if folder.strip("/") else ""
        entries = "".join(
            f"<D:response><D:href>/{escape(key)}</D:href><D:propstat><D:prop><D:getetag>{escape(self.etags[key])}"
            f"</D:getetag><D:getlastmodified>{_HTTP_DATE}</D:getlastmodified><D:getcontentlength>{len(body)}"
            "</D:getcontentlength><D:resourcetype/></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
            "</D:response>"
            for key, body in sorted(self.objects.items())
            if key.startswith(inside)
        )
        return f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{entries}</D:multistatus>'.encode()


class _Connection(asyncio.Protocol):
    """One connection; answers its requests one after the other."""

    transport: asyncio.Transport

    def __init__(self, server: ObjectServer) -> None:
        self._server = server
        self._received = bytearray()
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._server.accepted += 1
        self._server.open_connections.add(self)
        if self._server.away:
            self._reset()

    def connection_lost(self, error: Exception | None) -> None:
        self._server.open_connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._next()

    def _next(self) -> None:
        end = self._received.find(b"\r\n\r\n")
        if self._busy or end < 0:
            return
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = end + 4 + int(headers.get("content-length", 0))
        if len(self._received) < length:
            return
        del self._received[:length]
        method, target, _ = first.split(" ")
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        asked = headers.get("range")
        extent = None
        if asked is not None:
            start, _, last = asked.removeprefix("bytes=").partition("-")
            extent = int(start), int(last) + 1 if last else None
        key = unquote(parts.path.lstrip("/"))
        request = Request(len(self._server.requests), method, key, query, extent)
        self._server.requests.append(request)
        fault = self._server.fault(request) or Fault()
        if fault.reset or self._server.away:
            self._reset()
            return
        if fault.delay == HANG:
            self._busy = True
            return
        delay = self._server.latency + fault.delay
        if delay:
            self._busy = True
            self._server.loop.call_later(delay, self._answer, request, fault)
        else:
            self._answer(request, fault)

    def _answer(self, request: Request, fault: Fault) -> None:
        self._busy = False
        if self._server.away:
            self._reset()
            return
        status, headers, body = self._server.answer(request, fault)
        if fault.short and request.method == "GET":
            body = body[: -fault.short]
        headers["Content-Length"] = str(len(body))
        head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in headers.items()
        )
        sent = b"" if request.method == "HEAD" else body if fault.cut is None else body[: fault.cut]
        answer = head.encode("latin-1") + b"\r\n" + sent
        if fault.drip:
            self._busy = True
            at = len(answer) - len(sent) if fault.drip == "body" else 0
            self.transport.write(answer[:at])
            self._drip(answer[at:])
            return
        self.transport.write(answer)
        if fault.cut is not None:
            self.transport.close()
            return
        self._next()

    def _drip(self, rest: bytes) -> None:
        if rest and not self.transport.is_closing():
            self.transport.write(rest[:1])
            self._server.loop.call_later(_DRIP_SECONDS, self._drip, rest[1:])

    def _reset(self) -> None:
        # With this option, closing sends RST.
        raw = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.transport.abort()


def folder_objects(root: Path, bucket: str = BUCKET) -> dict[str, bytes]:
    """The files of a folder as objects of a bucket."""
    return {
        f"{bucket}/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.0, metavar="SECONDS", help="before every answer")
    given = parser.parse_args()
    with ObjectServer(folder_objects(given.folder), latency=given.latency) as running:
        print(running.endpoint, flush=True)
        sys.stdin.read()
