"""What stands between a push and a real registry in these tests: connections that end at a byte, uploads that stay."""

from __future__ import annotations

import http.client
import re
import socket
import threading
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.served import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SLICE = 64 << 10


@dataclass
class Upload:
    """An upload as the registry behind has it."""

    location: str
    offset: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class KeepingRegistry:
    """A registry that keeps what it received when a request breaks off, as the specification has it.

    It stands before Debian's docker-registry, which checks every digest and does not keep such uploads itself.

    Attributes:
        host: where it is.
        cut_after: break the connection when so many bytes of upload bodies have come in; negative for never.
        on_cut: called instead of breaking the connection.
        received_bytes: bytes of upload bodies that came in, in all.
        spoil: change what is kept of a request that broke off.
        failing: method and path of requests that are answered 500, as a pattern; empty for none.
        requests: method and path of every request.
    """

    host: str = ""
    cut_after: int = -1
    on_cut: Callable[[], None] | None = None
    received_bytes: int = 0
    spoil: bool = False
    failing: str = ""
    uploads: dict[str, Upload] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, method: str, pattern: str) -> int:
        return sum(1 for seen, path in self.requests if seen == method and re.search(pattern, path))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def handle_any(self) -> None:
        self.server.state.requests.append((self.command, self.path))
        if self.server.state.failing and re.search(self.server.state.failing, f"{self.command} {self.path}"):
            self.read_body()
            return self.answer(500, {}, b"{}")
        before, uploads, identity = self.path.partition("/blobs/uploads/")
        if not uploads:
            return self.answer(*self.forward(self.path, self.rfile.read(self.length)))
        if self.command == "POST":
            return self.begin(before)
        return self.go_on(before, urlsplit(identity).path)

    @property
    def length(self) -> int:
        return int(self.headers.get("Content-Length", 0))

    def begin(self, before: str) -> None:
        status, headers, body = self.forward(self.path, b"")
        if status == 202:
            identity = str(len(self.server.state.uploads) + 1)
            self.server.state.uploads[identity] = Upload(headers["Location"])
            headers["Location"] = f"{before}/blobs/uploads/{identity}"
        self.answer(status, headers, body)

    def go_on(self, before: str, identity: str) -> None:
        upload = self.server.state.uploads.get(identity)
        if upload is None:
            self.read_body()
            return self.answer(404, {}, b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}')
        with upload.lock:  # a question about an upload waits for the request that broke off
            return self.serve(upload, f"{before}/blobs/uploads/{identity}")

    def serve(self, upload: Upload, location: str) -> None:
        here = {"Location": location}
        if self.command == "GET":
            return self.answer(204, here | {"Range": f"0-{max(0, upload.offset - 1)}"})
        body, is_whole = self.read_body()
        if body and self.command == "PATCH":
            status, headers, _ = self.forward(upload.location, body if is_whole else self.kept(body))
            upload.location, upload.offset = headers["Location"], upload.offset + len(body)
            if is_whole:
                return self.answer(status, here | {"Range": headers["Range"]})
        if not is_whole:
            self.close_connection = True
            return None
        digest = parse_qs(urlsplit(self.path).query)["digest"][0]
        return self.answer(*self.forward(f"{upload.location}&digest={digest}", body))

    def kept(self, body: bytes) -> bytes:
        return bytes(len(body)) if self.server.state.spoil else body

    def read_body(self) -> tuple[bytes, bool]:
        """Read a body, and say whether it came as a whole."""
        state, body = self.server.state, bytearray()
        while len(body) < self.length:
            left = self.length - len(body)
            limit = state.cut_after - state.received_bytes if state.cut_after >= 0 else left
            data = self.rfile.read(min(_SLICE, left, max(1, limit)))
            body += data
            with state.lock:
                state.received_bytes += len(data)
                is_cut = 0 <= state.cut_after <= state.received_bytes
                state.cut_after = -1 if is_cut else state.cut_after
            if is_cut and state.on_cut is not None:
                state.on_cut()
            elif is_cut:
                break_off(self.connection)
            if not data or (is_cut and state.on_cut is None):
                return bytes(body), False
        return bytes(body), True

    def forward(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {name: value for name, value in self.headers.items() if name in {"Accept", "Content-Type", "Range"}}
        target = urlsplit(path)
        query = f"?{target.query}" if target.query else ""
        with closing(http.client.HTTPConnection(self.server.upstream, timeout=30)) as connection:
            connection.request(self.command, target.path + query, body, headers)
            response = connection.getresponse()
            data = response.read()
        kept = {"Location", "Range", "Content-Type", "Docker-Content-Digest", "Content-Length", "Content-Range"}
        return response.status, {k: v for k, v in response.getheaders() if k in kept}, data

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            if self.command == "HEAD" or name != "Content-Length":
                self.send_header(name, value)
        if self.command != "HEAD" and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.state = KeepingRegistry(f"127.0.0.1:{self.server_port}")

    def handle_error(self, *_: Any) -> None:
        """A connection that was cut on purpose."""


@contextmanager
def keeping_registry(upstream: str) -> Iterator[KeepingRegistry]:
    """Run one on a free loopback port before a docker-registry."""
    with served(_Server(upstream)) as server:
        yield server.state


@dataclass
class Wire:
    """A TCP connection to a registry that ends when so many bytes have gone to it.

    Attributes:
        host: where to connect to.
        cut_after: bytes to the registry, over all connections; negative for never.
        on_cut: called instead of breaking the connection.
        sent_bytes: bytes to the registry so far.
        is_down: whether every connection breaks at once.
    """

    host: str
    cut_after: int = -1
    on_cut: Callable[[], None] | None = None
    sent_bytes: int = 0
    is_down: bool = False


@contextmanager
def wire_to(upstream: str) -> Iterator[Wire]:
    """Run one on a free loopback port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = Wire(f"127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=_accept, args=(listener, upstream, wire), daemon=True)
        thread.start()
        yield wire
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _accept(listener: socket.socket, upstream: str, wire: Wire) -> None:
    host, _, port = upstream.partition(":")
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        if wire.is_down:
            break_off(client)
            continue
        server = socket.create_connection((host, int(port)))
        threading.Thread(target=_carry, args=(client, server, wire), daemon=True).start()
        threading.Thread(target=_carry, args=(server, client, None), daemon=True).start()


def _carry(source: socket.socket, target: socket.socket, wire: Wire | None) -> None:
    with suppress(OSError):
        while data := source.recv(_SLICE):
            if wire is not None and 0 <= wire.cut_after <= wire.sent_bytes + len(data):
                kept = data[: wire.cut_after - wire.sent_bytes]
                wire.cut_after, wire.sent_bytes = -1, wire.sent_bytes + len(kept)
                target.sendall(kept)
                if wire.on_cut is None:
                    break
                wire.on_cut()
                if wire.is_down:
                    break
                continue
            target.sendall(data)
            if wire is not None:
                wire.sent_bytes += len(data)
    break_off(source)
    break_off(target)


def break_off(connected: socket.socket) -> None:
    """End a connection as a broken network does."""
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)
    connected.close()
