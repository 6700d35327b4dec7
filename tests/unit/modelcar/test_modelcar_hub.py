"""The Hub source against a local server that speaks the Hub's API and misbehaves."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from servepath.errors import InputError
from servepath.modelcar.hub import HubOptions, download
from servepath.modelcar.retry import RetryPolicy
from servepath.modelcar.source import open_source
from tests.unit.modelcar.helpers import write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio
REPOSITORY = "example/Tiny-Llama"
COMMIT = "c" * 40


@dataclass
class FakeHub:
    """A repository on a Hub of our own; `statuses` are answered first."""

    files: dict[str, bytes]
    endpoint: str = ""
    statuses: list[int] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def running_hub(directory: Path) -> Iterator[FakeHub]:
    hub = FakeHub({path.name: path.read_bytes() for path in directory.iterdir()})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Stay quiet."""

        def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            path = self.path.partition("?")[0]
            if hub.statuses:
                return self.answer(hub.statuses.pop(0), b"{}", {"Retry-After": "0"})
            if path == f"/api/models/{REPOSITORY}/revision/{COMMIT}":
                siblings = [{"rfilename": name} for name in hub.files]
                return self.answer(
                    200, json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode(), {}
                )
            if path.startswith(f"/api/models/{REPOSITORY}/tree/{COMMIT}"):
                tree = [{"type": "file", "path": n, "size": len(d), "oid": _etag(d)} for n, d in hub.files.items()]
                return self.answer(200, json.dumps(tree).encode(), {})
            data = hub.files.get(path.removeprefix(f"/{REPOSITORY}/resolve/{COMMIT}/"))
            if data is None:
                return self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return self.answer(200, data, {"ETag": f'"{_etag(data)}"'})

        do_HEAD = do_GET  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _etag(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def hub(model: Path) -> Iterator[FakeHub]:
    (model / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with running_hub(model) as running:
        yield running


@pytest.fixture
def hub_options(hub: FakeHub, tmp_path: Path) -> HubOptions:
    retry = RetryPolicy(attempts=3, base_s=0.01, longest_s=0.1)
    return HubOptions(cache=tmp_path / "cache", endpoint=hub.endpoint, downloads=1, token="hf_opensesame", retry=retry)


async def test_a_commit_is_downloaded_and_found_again_offline(
    hub: FakeHub, hub_options: HubOptions, tmp_path: Path
) -> None:
    source = await download(f"{REPOSITORY}@{COMMIT}", hub_options)
    assert (source.origin, source.revision, source.name) == (REPOSITORY, COMMIT, "Tiny-Llama")
    plain = open_source(write_model(tmp_path / "plain"))
    assert (source.files, source.parameters, source.licence) == (plain.files, plain.parameters, plain.licence)
    assert not [request for request in hub.requests if "pytorch_model.bin" in request]
    hub.requests.clear()
    offline = HubOptions(cache=hub_options.cache, endpoint=hub.endpoint, offline=True)
    assert (await download(f"{REPOSITORY}@{COMMIT}", offline)).directory == source.directory
    assert hub.requests == []
    assert "opensesame" not in repr(hub_options)


async def test_a_commit_that_is_not_in_the_cache_is_refused_offline(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="offline"):
        await download(f"{REPOSITORY}@{COMMIT}", HubOptions(cache=tmp_path, offline=True))


async def test_a_missing_commit_is_refused(hub_options: HubOptions) -> None:
    with pytest.raises(InputError, match="no such model or commit"):
        await download(f"{REPOSITORY}@{'d' * 40}", hub_options)


async def test_a_hub_that_answers_429_and_503_is_tried_again(hub: FakeHub, hub_options: HubOptions) -> None:
    hub.statuses = [429, 503]
    source = await download(f"{REPOSITORY}@{COMMIT}", hub_options)
    assert source.revision == COMMIT
    assert hub.statuses == []


async def test_a_hub_that_never_answers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # the library's own waits: 24 s
    retry = RetryPolicy(attempts=2, base_s=0.01, longest_s=0.1)
    options = HubOptions(cache=tmp_path, endpoint="http://127.0.0.1:1", retry=retry)
    with pytest.raises(InputError, match="2 times") as caught:
        await download(f"{REPOSITORY}@{COMMIT}", options)
    assert caught.value.where == f"{REPOSITORY}@{COMMIT}"
