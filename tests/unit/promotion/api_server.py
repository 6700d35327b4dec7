"""A Kubernetes API server in memory: objects with versions, conflicts, label selectors; no controllers, no webhooks.

What it answers is what kube-apiserver answers to the same request (API concepts, "Resource versions"); the cluster
tests ask the real one.
"""

from __future__ import annotations

import copy
import json
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.served import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Json = dict[str, Any]
_PATH = re.compile(
    r"^/(?:api/v1|apis/[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[a-z]+)(?:/(?P<name>[^/]+))?$"
)
TAKEN_AND_UNANSWERED = -599
WATCH_S = 1.0
_REASONS = {404: "NotFound", 409: "Conflict", 403: "Forbidden", 500: "InternalError", 503: "ServiceUnavailable"}


@dataclass(repr=False)
class World:
    """What the API server holds.

    Attributes:
        objects: by plural, namespace and name.
        writes: how many writes it has taken.
        fault: is asked about each request first; a status that it gives is answered instead, a negative one after the
            request has been taken.
        unserved: plurals of kinds that it does not know.
        reconcile: what controllers do after each write of somebody else, None for nothing.
        deleted: what was deleted, and at which version: a watch tells of it.
    """

    objects: dict[tuple[str, str, str], Json] = field(default_factory=dict)
    version: int = 0
    writes: int = 0
    fault: Callable[[str, str], int] | None = None
    unserved: frozenset[str] = frozenset({"selfsubjectreviews"})
    lock: Lock = field(default_factory=Lock)
    address: str = ""
    reconcile: Callable[[World], None] | None = None
    deleted: list[tuple[int, tuple[str, str, str], Json]] = field(default_factory=list)

    def put(self, plural: str, namespace: str, obj: Json) -> Json:
        self.version += 1
        self.writes += 1
        stored = copy.deepcopy(obj)
        stored["metadata"] |= {"namespace": namespace, "resourceVersion": str(self.version)}
        self.objects[plural, namespace, obj["metadata"]["name"]] = stored
        return stored

    def remove(self, plural: str, namespace: str, name: str) -> None:
        self.version += 1
        self.writes += 1
        key = plural, namespace, name
        self.deleted.append((self.version, key, self.objects.pop(key)))

    def since(self, plural: str, namespace: str, version: int) -> list[tuple[str, Json]]:
        """What a watch of a kind tells after a version."""
        changed = [
            ("MODIFIED", obj)
            for (kind, place, _), obj in self.objects.items()
            if (kind, place) == (plural, namespace) and int(obj["metadata"]["resourceVersion"]) > version
        ]
        gone = [("DELETED", obj) for at, key, obj in self.deleted if at > version and key[:2] == (plural, namespace)]
        return changed + gone

    def seen(self, *plurals: str) -> dict[tuple[str, str, str], Json]:
        """Every object of these kinds, without what an API server notes down by itself."""
        kept = {key: copy.deepcopy(obj) for key, obj in self.objects.items() if key[0] in plurals}
        for obj in kept.values():
            del obj["metadata"]["resourceVersion"]
            obj["metadata"].pop("managedFields", None)
        return kept


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        world = self.server.world
        url = urlsplit(self.path)
        with world.lock:
            status = world.fault(self.command, url.path) if world.fault else 0
            if status == HTTPStatus.TOO_MANY_REQUESTS:
                return self.plain(status, "Too many requests, please try again later.")
            if status > 0:
                return self.answer(status, failure(status, "injected"))
            found = _PATH.match(url.path)
            if found is None or found["plural"] in world.unserved:
                return self.plain(404, "404 page not found")
            query = {key: values[0] for key, values in parse_qs(url.query).items()}
            before = world.writes
            answer = self.act(world, found, query, json.loads(body) if body else {})
            if world.reconcile and world.writes > before:
                world.reconcile(world)
            if query.get("watch") != "true":
                return self.answer(-status, failure(-status, "injected")) if status < 0 else self.answer(*answer)
        return self.watch(world, found, query)

    def watch(self, world: World, where: re.Match[str], query: dict[str, str]) -> None:
        """Tell what changes from a version on, until something has, or for a moment."""
        version = int(query.get("resourceVersion") or 0)
        ends_s = time.monotonic() + WATCH_S
        events: list[tuple[str, Json]] = []
        while not events and time.monotonic() < ends_s:
            time.sleep(0.01)
            with world.lock:
                events = [
                    (event, obj)
                    for event, obj in world.since(where["plural"], where["namespace"] or "", version)
                    if is_selected(obj, query)
                ]
                data = b"".join(json.dumps({"type": event, "object": obj}).encode() + b"\n" for event, obj in events)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(data)

    def act(self, world: World, where: re.Match[str], query: dict[str, str], body: Json) -> tuple[int, Json]:
        plural, namespace, name = where["plural"], where["namespace"] or "", where["name"] or ""
        if not name:
            return self.collection(world, plural, namespace, query, body)
        present = world.objects.get((plural, namespace, name))
        applied = self.command == "PATCH" and "apply" in self.headers["Content-Type"]
        if query.get("dryRun"):
            return 200, merged(present or {}, body)
        if present is None:
            return (201, world.put(plural, namespace, body)) if applied else (404, failure(404, name))
        if self.command in {"GET", "DELETE"}:
            return self.read_or_delete(world, (plural, namespace, name))
        version = body["metadata"].get("resourceVersion") if self.command == "PUT" else None
        if version and version != present["metadata"]["resourceVersion"]:
            return 409, failure(409, name)
        return 200, world.put(plural, namespace, merged(present, body) if self.command == "PATCH" else body)

    def read_or_delete(self, world: World, key: tuple[str, str, str]) -> tuple[int, Json]:
        if self.command == "GET":
            return 200, world.objects[key]
        world.remove(*key)
        return 200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}

    def collection(
        self, world: World, plural: str, namespace: str, query: dict[str, str], body: Json
    ) -> tuple[int, Json]:
        if self.command == "POST":
            if (plural, namespace, body["metadata"]["name"]) in world.objects:
                return 409, failure(409, body["metadata"]["name"])
            return 201, world.put(plural, namespace, body)
        items = [
            obj
            for (kind, place, _), obj in world.objects.items()
            if (kind, place) == (plural, namespace) and is_selected(obj, query)
        ]
        return 200, {"kind": "List", "metadata": {"resourceVersion": str(world.version)}, "items": items}

    def plain(self, status: int, text: str) -> None:
        """What an API server says of a kind that it does not know, or where it is busy: no Status, but text."""
        self.reply(status, text.encode(), "text/plain; charset=utf-8")

    def answer(self, status: int, body: Json) -> None:
        self.reply(status, json.dumps(body).encode(), "application/json")

    def reply(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's names


class _Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.world = World(address=f"127.0.0.1:{self.server_port}")


def is_selected(obj: Json, query: dict[str, str]) -> bool:
    """Whether an object has the labels and the name that are asked for."""
    wanted = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
    name = query.get("fieldSelector", "").partition("metadata.name=")[2]
    metadata = obj["metadata"]
    return wanted.items() <= (metadata.get("labels") or {}).items() and name in {"", metadata["name"]}


def failure(status: int, what: str) -> Json:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": status,
        "reason": _REASONS.get(status, "Unknown"),
        "message": f"{_REASONS.get(status)}: {what}",
    }


def merged(present: Json, patch: Json) -> Json:
    """RFC 7396."""
    result = copy.deepcopy(present)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


@contextmanager
def api_server() -> Iterator[World]:
    """Run it on a free loopback port."""
    with served(_Server()) as server:
        yield server.world
