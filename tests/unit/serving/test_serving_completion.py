"""Readiness is one real completion: what is asked again, and what is final, over real HTTP."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio
import pytest

from servepath.errors import ClusterError
from servepath.serving.completion import Attempt
from tests.unit.served import served

pytestmark = pytest.mark.anyio
Answer = tuple[int, str]
COMPLETION = json.dumps({"choices": [{"message": {"role": "assistant", "content": "Yes."}}]})


@contextmanager
def engine(answers: list[Answer]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serve the answers one after another, the last one for ever; give the URL and the requests seen."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"path": self.path, "headers": dict(self.headers), "body": body})
            status, text = answers[min(len(seen), len(answers)) - 1]
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    with served(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen


async def test_asks_until_the_engine_answers() -> None:
    answers = [(404, ""), (503, "no healthy upstream"), (200, "not json"), (200, "{}"), (200, COMPLETION)]
    with engine(answers) as (url, seen):
        attempt = Attempt(url, "x.test", "m", "secret", 5)
        assert await attempt.succeed() == "Yes."
    assert len(seen) == 5
    assert seen[0]["path"] == "/v1/chat/completions"
    assert seen[0]["headers"]["Host"] == "x.test"
    assert seen[0]["headers"]["Authorization"] == "Bearer secret"
    assert seen[0]["body"]["model"] == "m"


@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_what_no_later_request_would_mend_is_final(status: int) -> None:
    with engine([(status, '{"error":"no"}')]) as (url, seen), pytest.raises(ClusterError, match=f"HTTP {status}"):
        await Attempt(url, "x.test", "m", "", 5).succeed()
    assert len(seen) == 1
    assert "Authorization" not in seen[0]["headers"]


async def test_last_answer_is_kept_for_the_error_of_a_spent_budget() -> None:
    with engine([(503, "no healthy upstream")]) as (url, _):
        attempt = Attempt(url, "x.test", "m", "", 5)
        async with anyio.create_task_group() as group:
            group.start_soon(attempt.succeed)
            with anyio.fail_after(10):
                while not attempt.last.startswith("HTTP"):  # noqa: ASYNC110 - it is what a spent budget reads
                    await anyio.sleep(0.01)
            group.cancel_scope.cancel()
    assert attempt.last == "HTTP 503: no healthy upstream"


async def test_a_single_token_that_is_no_text_is_an_answer() -> None:
    empty = json.dumps({"choices": [{"message": {"role": "assistant", "content": ""}}]})
    nothing = json.dumps({"choices": [{"message": {"role": "assistant", "content": None}}]})
    with engine([(200, nothing), (200, empty)]) as (url, seen):
        assert await Attempt(url, "x.test", "m", "", 5).succeed() == ""
    assert len(seen) == 2
    assert seen[0]["body"]["max_tokens"] == 1


async def test_gateway_that_is_not_there() -> None:
    attempt = Attempt("http://127.0.0.1:1", "x.test", "m", "", 5)
    with anyio.move_on_after(0.5):
        await attempt.succeed()
    assert attempt.last.startswith("ConnectError")
