"""A proxy in front of a registry that injects faults: refusals, broken connections, changed bytes."""

from __future__ import annotations

import base64
import http.client
import json
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.served import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "date", "server"}


@dataclass
class Rule:
    """What to do with the next `times` requests of a method and path.

    Attributes:
        status: answer this, with `headers` and `body`, without asking the registry.
        drop_after_bytes: read so much of the request, then close the connection without an answer.
        cut_after_bytes: send so much of the registry's answer, then close the connection.
        stall_s: say nothing for so many seconds, then close the connection.
        change: what to make of the answer's body.
        change_headers: what to make of the answer's headers.
        forget_token: from here on the token that was given out is no longer valid.
    """

    method: str
    path: str
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"errors":[{"code":"TEST","message":"injected"}]}'
    drop_after_bytes: int = -1
    cut_after_bytes: int = -1
    stall_s: float = 0
    forget_token: bool = False
    change: Callable[[bytes], bytes] | None = None
    change_headers: Callable[[dict[str, str]], dict[str, str]] | None = None


@dataclass
class Faults:
    """The proxy's address, its rules, and what it has seen."""

    host: str = ""
    rules: list[Rule] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    token: str = ""
    basic: str = ""
    refresh: str = ""
    challenge: str = ""
    without_ranges: bool = False
    sent_bytes: int = 0
    token_requests: list[str] = field(default_factory=list)

    def count(self, method: str, pattern: str) -> int:
        return sum(1 for seen, path, _ in self.seen if seen == method and re.search(pattern, path))

    def take(self, method: str, path: str) -> Rule | None:
        for rule in self.rules:
            if rule.times > 0 and re.fullmatch(rule.method, method) and re.search(rule.path, path):
                rule.times -= 1
                return rule
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.command != "HEAD" or "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.server.faults.sent_bytes += len(body)
            self.wfile.write(body)

    def body(self, limit: int = -1) -> bytes:
        length = int(self.headers.get("Content-Length", 0))
        return self.rfile.read(length if limit < 0 else min(limit, length))

    def handle_any(self) -> None:
        self.server.faults.seen.append((self.command, self.path, dict(self.headers)))
        if self.path.startswith("/token"):
            return self.token()
        if self.server.faults.token and self.expires():
            self.server.faults.token += "-next"
        if self.server.faults.token and not self.is_allowed():
            self.body()
            scope = f"repository:x:{'pull' if self.is_reading() else 'pull,push'}"
            realm = f'Bearer realm="http://{self.server.faults.host}/token",service="test",scope="{scope}"'
            realm = self.server.faults.challenge or realm
            return self.answer(401, {"WWW-Authenticate": realm}, b'{"errors":[{"code":"UNAUTHORIZED"}]}')
        rule = self.server.faults.take(self.command, self.path)
        if rule is not None and rule.stall_s:
            time.sleep(rule.stall_s)
            self.close_connection = True
            return None
        if rule is not None and rule.drop_after_bytes >= 0:
            self.body(rule.drop_after_bytes)
            self.close_connection = True
            return None
        if rule is not None and rule.status:
            self.body()
            return self.answer(rule.status, rule.headers, rule.body)
        return self.forward(rule)

    def is_reading(self) -> bool:
        return self.command in {"GET", "HEAD"}

    def is_allowed(self) -> bool:
        token, _, action = self.headers.get("Authorization", "").removeprefix("Bearer ").rpartition(".")
        return token == self.server.faults.token and (action == "push" or self.is_reading())

    def expires(self) -> bool:
        rules = self.server.faults.rules
        due = [r for r in rules if r.forget_token and r.method == self.command and re.search(r.path, self.path)]
        for rule in due:
            rules.remove(rule)
        return bool(due)

    def token(self) -> None:
        self.server.faults.token_requests.append(self.path)
        rule = self.server.faults.take(self.command, self.path)
        if rule is not None:
            return self.answer(rule.status, rule.headers)
        form = parse_qs(self.body().decode())
        if self.server.faults.refresh and form.get("refresh_token") != [self.server.faults.refresh]:
            return self.answer(401, {})
        expected = "Basic " + base64.b64encode(self.server.faults.basic.encode()).decode()
        if self.server.faults.basic and self.headers.get("Authorization") != expected:
            return self.answer(401, {})
        asked = form.get("scope") or parse_qs(urlsplit(self.path).query).get("scope", [])
        action = "push" if any("push" in scope for scope in asked) else "pull"
        return self.answer(200, {}, json.dumps({"token": f"{self.server.faults.token}.{action}"}).encode())

    def forward(self, rule: Rule | None) -> None:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in {"connection", "authorization"}}
        if self.server.faults.without_ranges:
            headers.pop("Range", None)
        connection.request(self.command, self.path, self.body(), headers)
        response = connection.getresponse()
        body = response.read()
        answered = {k: v for k, v in response.getheaders() if k.lower() not in _HOP_BY_HOP}
        if self.command == "HEAD" and (length := response.getheader("Content-Length")):
            answered["Content-Length"] = length
        connection.close()
        if rule is not None and rule.change:
            body = rule.change(body)
        if rule is not None and rule.change_headers:
            answered = rule.change_headers(answered)
        if rule is not None and rule.cut_after_bytes >= 0:
            return self.cut(
                response.status, answered | {"Content-Length": str(len(body))}, body[: rule.cut_after_bytes]
            )
        return self.answer(response.status, answered, body)

    def cut(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.faults = Faults(f"127.0.0.1:{self.server_port}")


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[Faults]:
    """Run the proxy on a free loopback port; `upstream` is a registry's `host:port`, or empty for none."""
    with served(_Server(upstream)) as server:
        yield server.faults
