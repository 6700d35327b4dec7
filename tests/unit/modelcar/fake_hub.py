"""A Hub of our own: a local server that speaks the Hub's API, keeps big files on another host, and misbehaves."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.unit.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REPOSITORY = "example/Tiny-Llama"
COMMIT = "c" * 40


@dataclass
class Fault:
    """What to do with the next request whose path holds `path`: a status, or only the first bytes of the file."""

    path: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut_after_bytes: int = -1
    method: str = "GET"
    body: bytes | None = None


@dataclass
class Seen:
    """One request: to which of the two hosts, its method, path and headers."""

    host: str
    method: str
    path: str
    headers: dict[str, str]


@dataclass
class FakeHub:
    """One repository at one commit.

    Attributes:
        files: content by path.
        big: paths that are kept on the other host, as the Hub keeps LFS files.
        lies: content that is sent instead, by path.
        token: the token without which everything is refused; empty for a public repository.
        gated: say that the model's terms were not accepted.
    """

    files: dict[str, bytes]
    big: frozenset[str] = frozenset()
    lies: dict[str, bytes] = field(default_factory=dict)
    token: str = ""
    gated: bool = False
    endpoint: str = ""
    storage: str = ""
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)

    def take(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.method == method and fault.path in path:
                self.faults.remove(fault)
                return fault
        return None

    def etag(self, name: str) -> str:
        """What the Hub names a file by: SHA-256 of a big one, git's blob digest of a small one."""
        data = self.files[name]
        if name in self.big:
            return hashlib.sha256(data).hexdigest()
        return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()

    def tree(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        for name, data in self.files.items():
            entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": "0" * 40}
            if name in self.big:
                entry["lfs"] = {"oid": self.etag(name), "size": len(data), "pointerSize": 134}
            else:
                entry["oid"] = self.etag(name)
            entries.append(entry)
        return entries


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def answer(self, status: int, body: bytes, headers: dict[str, str], cut: int = -1) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if cut < 0 else body[:cut])
        if cut >= 0:
            self.close_connection = True

    def do_GET(self) -> None:
        hub, path = self.server.hub, self.path.partition("?")[0]
        host = f"{self.server.server_address[0]!s}:{self.server.server_port}"
        hub.seen.append(Seen(host, self.command, path, dict(self.headers)))
        fault = hub.take(self.command, path)
        if fault is not None and fault.status:
            return self.answer(fault.status, b"{}" if fault.body is None else fault.body, fault.headers)
        cut = -1 if fault is None else fault.cut_after_bytes
        if self.server.is_storage:
            return self.send_file(path.removeprefix("/"), cut)
        return self.answer_as_hub(path, cut)

    do_HEAD = do_GET  # noqa: N815

    def answer_as_hub(self, path: str, cut: int) -> None:
        hub = self.server.hub
        if hub.gated:
            return self.answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.answer(401, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "not found"})
        if path.startswith(f"/api/models/{REPOSITORY}/tree/{COMMIT}"):
            return self.answer(200, json.dumps(hub.tree()).encode(), {"Content-Type": "application/json"})
        name = path.removeprefix(f"/{REPOSITORY}/resolve/{COMMIT}/")
        if name not in hub.files:
            return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if name in hub.big:
            size = str(len(hub.files[name]))
            linked = {"X-Linked-Etag": f'"{hub.etag(name)}"', "X-Linked-Size": size}
            return self.answer(302, b"", {"Location": f"{hub.storage}/{name}", **linked})
        return self.send_file(name, cut)

    def send_file(self, name: str, cut: int) -> None:
        hub = self.server.hub
        data = hub.lies.get(name, hub.files[name])
        asked = self.headers.get("Range", "")
        if not asked:
            return self.answer(200, data, {"ETag": f'"{hub.etag(name)}"', "Accept-Ranges": "bytes"}, cut)
        start = int(asked.removeprefix("bytes=").partition("-")[0])
        content_range = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.answer(206, data[start:], {"ETag": f'"{hub.etag(name)}"', "Content-Range": content_range}, cut)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: str, hub: FakeHub, *, is_storage: bool) -> None:
        super().__init__((address, 0), _Handler)
        self.hub, self.is_storage = hub, is_storage


@contextmanager
def running_hub(directory: Path) -> Iterator[FakeHub]:
    """Serve a directory's files; what ends in `.safetensors` is kept on another host."""
    files = {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }
    hub = FakeHub(files, frozenset(name for name in files if name.endswith(".safetensors")))
    servers = [_Server("127.0.0.1", hub, is_storage=False), _Server("127.0.0.2", hub, is_storage=True)]
    hub.endpoint, hub.storage = (f"http://{server.server_address[0]!s}:{server.server_port}" for server in servers)
    with served(servers[0]), served(servers[1]):
        yield hub
