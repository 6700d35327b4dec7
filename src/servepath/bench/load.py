"""The load generator: one client per endpoint, requests sent when the schedule says so.

In an open loop a request is sent at its intended time whether or not earlier ones have ended, and its latency counts
from the intended time: a client or server that falls behind cannot hide it (no coordinated omission). A closed loop
keeps a number of users busy, and latency counts from the actual send.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import anyio
import httpx

from servepath.bench.model import Arrivals, BenchPlan, ErrorClass, Sample
from servepath.bench.sse import ContentCounter, StreamFormatError
from servepath.bench.transport import LeanTransport, MalformedResponseError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from servepath.serving.model import Endpoint

CHAT_PATH = "/v1/chat/completions"
# uvicorn, which vLLM runs on, closes an idle connection after 5 s: give ours up earlier, or one is reused as it closes.
KEEPALIVE_EXPIRY_S = 4.0
SHOWN_BYTES = 300
CLOCK_DIGITS = 9


@dataclass(frozen=True, slots=True)
class Slot:
    """A planned request: its place in the design, its intended time after the block's start, and its prompt."""

    path: str
    block: int
    index: int
    intended_s: float
    prompt: str


@dataclass(slots=True)
class _Progress:
    """What a request has given so far, so that a failed one still tells how far it came."""

    sent_s: float
    counter: ContentCounter = field(default_factory=ContentCounter)
    token_times_s: list[float] = field(default_factory=list)


class _RequestFailedError(Exception):
    """A request ended with this class of error."""

    def __init__(self, error: ErrorClass, detail: str) -> None:
        super().__init__(detail)
        self.error = error
        self.detail = detail


def open_client(endpoint: Endpoint, plan: BenchPlan) -> httpx.AsyncClient:
    """A client for one endpoint, an async context manager. Proxy variables of the environment are ignored."""
    return httpx.AsyncClient(
        base_url=endpoint.base_url,
        headers={
            **endpoint.headers(),
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        },
        timeout=httpx.Timeout(None, connect=plan.connect_timeout_s),
        transport=_transport(endpoint.base_url, plan),
        trust_env=False,
    )


def _transport(base_url: str, plan: BenchPlan) -> httpx.AsyncBaseTransport:
    if base_url.startswith("http://"):
        return LeanTransport(connect_timeout_s=plan.connect_timeout_s, keepalive_expiry_s=KEEPALIVE_EXPIRY_S)
    return httpx.AsyncHTTPTransport(
        limits=httpx.Limits(max_connections=None, keepalive_expiry=KEEPALIVE_EXPIRY_S), trust_env=False
    )


def chat_body(model: str, prompt: str, output_tokens: int, seed: int) -> dict[str, Any]:
    """The request: greedy, streamed, with usage, and exactly `output_tokens` long (`ignore_eos` is vLLM's)."""
    return {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": output_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def run_block(
    client: httpx.AsyncClient, model: str, slots: Sequence[Slot], plan: BenchPlan
) -> tuple[Sample, ...]:
    """Sends the slots of one block, waits until all have ended; samples in the order of `slots`.

    An open loop sends each slot at its time. A closed loop has `plan.users` users; each takes the next slot as soon as
    its former request has ended, and the intended time of a sample is when it was sent: a closed loop has no other, so
    its latencies do not hold what a stalled server kept users from sending.
    """
    url = client.base_url.join(CHAT_PATH)
    bodies = [json.dumps(chat_body(model, one.prompt, plan.output_tokens, plan.seed)).encode() for one in slots]
    requests = [client.build_request("POST", url, content=body) for body in bodies]
    samples: dict[int, Sample] = {}
    start_s = anyio.current_time()

    async def at_its_time(position: int, slot: Slot) -> None:
        await anyio.sleep_until(start_s + slot.intended_s)
        samples[position] = await send(client, requests[position], slot, plan, start_s)

    async def as_a_user(waiting: Iterator[tuple[int, Slot]]) -> None:
        for position, slot in waiting:
            now = replace(slot, intended_s=anyio.current_time() - start_s)
            samples[position] = await send(client, requests[position], now, plan, start_s)

    async with anyio.create_task_group() as group:
        if plan.arrivals is Arrivals.CLOSED:
            waiting = iter(enumerate(slots))
            for _ in range(plan.users):
                group.start_soon(as_a_user, waiting)
        else:
            for position, slot in enumerate(slots):
                group.start_soon(at_its_time, position, slot)
    return tuple(samples[position] for position in range(len(slots)))


async def send(
    client: httpx.AsyncClient, request: httpx.Request, slot: Slot, plan: BenchPlan, start_s: float
) -> Sample:
    """One request from now; never raises for what the network or the server does."""
    progress = _Progress(sent_s=anyio.current_time() - start_s)
    error: ErrorClass | None = None
    detail = ""
    try:
        with anyio.fail_after(plan.request_timeout_s):
            await _stream(client, request, progress, start_s)
    except _RequestFailedError as failure:
        error, detail = failure.error, failure.detail
    except (httpx.ConnectError, httpx.ConnectTimeout) as failure:
        error, detail = ErrorClass.CONNECT, _words_of(failure)
    except (TimeoutError, httpx.TimeoutException):
        error, detail = ErrorClass.TIMEOUT, f"no end within {plan.request_timeout_s:g} s"
    except MalformedResponseError as failure:
        error, detail = ErrorClass.MALFORMED, _words_of(failure)
    except httpx.TransportError as failure:
        error, detail = ErrorClass.TRUNCATED, _words_of(failure)
    return Sample(
        path=slot.path,
        block=slot.block,
        index=slot.index,
        intended_s=_in_ns(slot.intended_s),
        sent_s=_in_ns(progress.sent_s),
        token_times_s=tuple(map(_in_ns, progress.token_times_s)),
        end_s=_in_ns(anyio.current_time() - start_s),
        prompt_tokens=progress.counter.prompt_tokens,
        completion_tokens=progress.counter.completion_tokens,
        error=error,
        error_detail=detail,
    )


def _in_ns(seconds: float) -> float:
    """A time to the nanosecond: the clock counts no finer, and a sample is kept in half the bytes."""
    return round(seconds, CLOCK_DIGITS)


async def _stream(client: httpx.AsyncClient, request: httpx.Request, progress: _Progress, start_s: float) -> None:
    response = await client.send(request, stream=True)
    try:
        if response.status_code != httpx.codes.OK:
            shown = (await response.aread())[:SHOWN_BYTES].decode(errors="replace")
            raise _RequestFailedError(ErrorClass.STATUS, f"HTTP {response.status_code}: {shown}")
        content_type = response.headers.get("content-type", "")
        if not content_type.startswith("text/event-stream"):
            raise _RequestFailedError(ErrorClass.MALFORMED, f"content type is {content_type!r}, not text/event-stream")
        try:
            async for received in response.aiter_raw():
                now_s = anyio.current_time() - start_s
                if content_count := progress.counter.feed(received):
                    progress.token_times_s += [now_s] * content_count
        except StreamFormatError as error:
            raise _RequestFailedError(ErrorClass.MALFORMED, error.what) from error
    finally:
        await response.aclose()
    if not progress.counter.done:
        raise _RequestFailedError(ErrorClass.TRUNCATED, "the stream ended without [DONE]")
    if not progress.token_times_s:
        raise _RequestFailedError(ErrorClass.EMPTY, "the stream had no content")


def _words_of(failure: Exception) -> str:
    return f"{type(failure).__name__}: {failure}" if str(failure) else type(failure).__name__
