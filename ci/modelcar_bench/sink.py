"""A registry that keeps nothing large: what a push costs its client when the server costs next to nothing.

`python -m ci.modelcar_bench.sink discard|verify PORT` serves on 127.0.0.1 until it is killed. `verify` hashes every
upload and refuses one of another digest, as real registries do; `discard` believes the digest. Manifests, and blobs of
at most 1 MiB, are kept in memory; of larger blobs only that they are there.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

KEPT_BYTES = 1 << 20
_READ_BYTES = 1 << 20
_UPLOAD = re.compile(r"/v2/(?P<repository>.+)/blobs/uploads/(?P<session>[^/]*)")
_BLOB = re.compile(r"/v2/(?P<repository>.+)/blobs/(?P<digest>sha256:[0-9a-f]{64})")
_MANIFEST = re.compile(r"/v2/(?P<repository>.+)/manifests/(?P<reference>[^/]+)")


@dataclass(slots=True)
class Upload:
    """An upload under way: its hash where uploads are verified, its length, and its bytes while they are few."""

    hash: Any
    size_bytes: int = 0
    kept: bytearray = field(default_factory=bytearray)

    def take(self, data: memoryview) -> None:
        """Take the next bytes."""
        if self.hash is not None:
            self.hash.update(data)
        self.size_bytes += len(data)
        if self.size_bytes <= KEPT_BYTES:
            self.kept += data


class Sink(ThreadingHTTPServer):
    """The registry.

    Args:
        port: of 127.0.0.1 to listen on, 0 for a free one.
        verifies: whether uploads are hashed.
    """

    daemon_threads = True

    def __init__(self, port: int, *, verifies: bool) -> None:
        self.verifies = verifies
        self.lock = Lock()
        self.uploads: dict[str, Upload] = {}
        self.blobs: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        super().__init__(("127.0.0.1", port), Handler)

    def new_upload(self) -> str:
        """Begin an upload and return its name."""
        with self.lock:
            session = f"{len(self.uploads) + 1}"
            self.uploads[session] = Upload(hashlib.sha256() if self.verifies else None)
        return session


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    rbufsize = 0  # bodies are read straight into one buffer; headers are few
    server: Sink

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: a line for each request would be measured too."""

    def do_GET(self) -> None:
        """Answer what was stored."""
        path = urlsplit(self.path).path
        if match := _BLOB.fullmatch(path):
            size_bytes, data = self.server.blobs.get((match["repository"], match["digest"]), (-1, b""))
            self._found(match["digest"], "application/octet-stream", size_bytes, data)
        elif match := _MANIFEST.fullmatch(path):
            kind, data = self.server.manifests.get((match["repository"], match["reference"]), ("", b""))
            self._found(_digest(data), kind, len(data) if data else -1, data)
        else:
            self._answer(HTTPStatus.OK if path == "/v2/" else HTTPStatus.NOT_FOUND)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        """Begin an upload, or take a whole blob."""
        session = self.server.new_upload()
        self._take(session)

    def do_PATCH(self) -> None:
        """Take a part of a blob."""
        match = _UPLOAD.fullmatch(urlsplit(self.path).path)
        self._take(match["session"] if match else "")

    def do_PUT(self) -> None:
        """Take the rest of a blob, or a manifest."""
        match = _MANIFEST.fullmatch(urlsplit(self.path).path)
        if match is None:
            self.do_PATCH()
            return
        data = b"".join(bytes(part) for part in self._body())
        stored = (self.headers.get("Content-Type", ""), data)
        digest = _digest(data)
        for reference in (match["reference"], digest):
            self.server.manifests[match["repository"], reference] = stored
        subject = json.loads(data).get("subject")
        headers = {"OCI-Subject": subject["digest"]} if subject else {}
        self._answer(HTTPStatus.CREATED, {"Docker-Content-Digest": digest, "Location": self.path, **headers})

    def _take(self, session: str) -> None:
        url = urlsplit(self.path)
        upload, match = self.server.uploads.get(session), _UPLOAD.fullmatch(url.path)
        if upload is None or match is None:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        for part in self._body():
            upload.take(part)
        digest = parse_qs(url.query).get("digest", [""])[0]
        if not digest:
            location = f"/v2/{match['repository']}/blobs/uploads/{session}"
            seen = f"0-{max(0, upload.size_bytes - 1)}"
            self._answer(HTTPStatus.ACCEPTED, {"Location": location, "Range": seen, "Docker-Upload-UUID": session})
        elif upload.hash is not None and digest != f"sha256:{upload.hash.hexdigest()}":
            self._answer(HTTPStatus.BAD_REQUEST, {}, b'{"errors":[{"code":"DIGEST_INVALID"}]}')
        else:
            kept = bytes(upload.kept) if upload.size_bytes <= KEPT_BYTES else b""
            self.server.blobs[match["repository"], digest] = (upload.size_bytes, kept)
            self._answer(HTTPStatus.CREATED, {"Docker-Content-Digest": digest, "Location": self.path})

    def _body(self) -> Iterator[memoryview]:
        """The request's body in parts, each valid until the next."""
        buffer = memoryview(bytearray(_READ_BYTES))
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            yield from self._read(int(self.headers.get("Content-Length", 0)), buffer)
            return
        while size_bytes := int(self.rfile.readline().split(b";")[0], 16):
            yield from self._read(size_bytes, buffer)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass

    def _read(self, left: int, buffer: memoryview) -> Iterator[memoryview]:
        while left:
            count = self.connection.recv_into(buffer, min(left, len(buffer)))
            if not count:
                raise ConnectionResetError
            left -= count
            yield buffer[:count]

    def _found(self, digest: str, kind: str, size_bytes: int, data: bytes) -> None:
        if size_bytes < 0:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        headers = {"Docker-Content-Digest": digest, "Content-Type": kind, "Content-Length": str(size_bytes)}
        self._answer(HTTPStatus.OK, headers, data)

    def _answer(self, status: HTTPStatus, headers: dict[str, str] | None = None, data: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


if __name__ == "__main__":
    with Sink(int(sys.argv[2]), verifies=sys.argv[1] == "verify") as sink:
        sink.serve_forever()
