"""A constant load over real HTTP, and the downtime that its samples tell of."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servepath.lifecycle.load import ConstantLoad, downtime_s
from servepath.serving.model import Endpoint, ServingPath
from tests.unit.served import served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMPLETION = json.dumps({"choices": [{"message": {"role": "assistant", "content": "Yes."}}]}).encode()


@contextmanager
def engine(status: Callable[[], int]) -> Iterator[tuple[Endpoint, list[Any]]]:
    """Serve completions with the status that is asked for at each request; give the endpoint and the headers seen."""
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(dict(self.headers))
            self.send_response(status())
            self.send_header("Content-Length", str(len(COMPLETION)))
            self.end_headers()
            self.wfile.write(COMPLETION)

        def log_message(self, *_: object) -> None: ...

    with served(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield endpoint_at(f"http://127.0.0.1:{server.server_address[1]}"), seen


def endpoint_at(url: str) -> Endpoint:
    return Endpoint(ServingPath.RAW, url, "x.test", "m", "demo", "smol-raw", "sha256:0", "e@sha256:1", 0.0, "secret")


async def loaded(endpoint: Endpoint, *, rate_per_s: float, requests: int, timeout_s: float = 30.0) -> ConstantLoad:
    """Load an endpoint until so many requests have ended."""
    load = ConstantLoad(endpoint, rate_per_s, timeout_s)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(load.run)
            while len(load.samples) < requests:  # noqa: ASYNC110 - the load tells nobody
                await anyio.sleep(0.01)
            load.end()
    return load


@pytest.mark.anyio
async def test_requests_are_sent_at_the_rate_and_answered() -> None:
    with engine(lambda: 200) as (endpoint, seen):
        load = await loaded(endpoint, rate_per_s=50, requests=20)
    sent_s = sorted(sent for sent, _ in load.samples)
    assert all(answered for _, answered in load.samples)
    assert sent_s[19] - sent_s[0] >= 19 / 50 - 0.01, "no request is sent before it is due"
    assert (seen[0]["Host"], seen[0]["Authorization"]) == ("x.test", "Bearer secret")


@pytest.mark.anyio
async def test_a_wrong_status_is_no_answer() -> None:
    answers = iter([200, 200, 503, 503, 503])
    with engine(lambda: next(answers, 200)) as (endpoint, _):
        load = await loaded(endpoint, rate_per_s=50, requests=10)
    assert sum(not answered for _, answered in load.samples) == 3
    assert sum(load.errors.values()) == 3
    assert list(load.errors) == [f"HTTP 503: {COMPLETION.decode()[:100]}"]


@pytest.mark.anyio
async def test_nobody_there_is_no_answer_and_the_load_goes_on() -> None:
    load = await loaded(endpoint_at("http://127.0.0.1:1"), rate_per_s=50, requests=5)
    assert not any(answered for _, answered in load.samples)
    (error,) = load.errors
    assert error.startswith("ConnectError: ")


@pytest.mark.anyio
async def test_an_answer_that_comes_too_late_is_none_and_delays_no_other() -> None:
    def slow() -> int:
        time.sleep(0.5)
        return 200

    with engine(slow) as (endpoint, _):
        load = await loaded(endpoint, rate_per_s=50, requests=5, timeout_s=0.1)
    sent_s = sorted(sent for sent, _ in load.samples)
    assert not any(answered for _, answered in load.samples)
    assert list(load.errors) == ["no answer in 0.1 s"]
    assert sent_s[4] - sent_s[0] < 0.5, "an open loop does not wait for answers"


def test_downtime_lasts_from_a_failed_request_to_the_next_answered_one() -> None:
    samples = ((0.0, True), (1.0, False), (2.0, False), (3.0, True), (4.0, True), (5.0, False), (6.5, True))
    assert downtime_s(samples) == pytest.approx(2.0 + 1.5)


def test_no_failed_request_is_no_downtime() -> None:
    assert downtime_s(()) == 0.0
    assert downtime_s(((0.0, True), (1.0, True))) == 0.0


def test_a_gap_that_does_not_end_lasts_to_the_last_request() -> None:
    assert downtime_s(((0.0, True), (1.0, False), (4.0, False))) == pytest.approx(3.0)


@given(st.lists(st.booleans(), min_size=1, max_size=50))
def test_downtime_is_between_none_and_all_of_the_time(answered: list[bool]) -> None:
    samples = tuple((float(second), one) for second, one in enumerate(answered))
    assert 0.0 <= downtime_s(samples) <= samples[-1][0]
    assert (downtime_s(samples) == 0.0) == all(answered[:-1])
