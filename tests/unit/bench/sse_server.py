"""A real HTTP/1.1 server on loopback that streams like vLLM, with set delays and set misbehaviour."""

from __future__ import annotations

import json
import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketAttribute

from servepath.serving.model import Endpoint, ServingPath

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from anyio.abc import SocketStream


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the server does with each completion."""

    ttft_s: float = 0.0
    itl_s: float = 0.0
    status: int = 200
    content_type: str = "text/event-stream; charset=utf-8"
    cut_after_tokens: int | None = None
    drop_connection: bool = False
    reset_after_tokens: int | None = None
    raw_answer: bytes = b""
    without_content: bool = False
    without_usage: bool = False
    raw_event: str = ""
    template_tokens: int = 10


@dataclass(slots=True)
class Recorder:
    """What the server has seen."""

    base_url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def endpoint(self, path: ServingPath = ServingPath.RAW, api_key: str = "") -> Endpoint:
        return Endpoint(
            path=path,
            base_url=self.base_url,
            host=f"{path}.servepath.test",
            model="tiny",
            namespace="models",
            workload=f"tiny-{path}",
            modelcar_digest="sha256:" + "a" * 64,
            engine_image="127.0.0.1:5000/servepath/engine@sha256:" + "b" * 64,
            ready_s=1.0,
            api_key=api_key,
        )

    def prompts(self) -> list[str]:
        return [body["messages"][0]["content"] for body in self.bodies]


@asynccontextmanager
async def serve(behaviour: Behaviour) -> AsyncIterator[Recorder]:
    """Serves until the block ends."""
    recorder = Recorder()
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener,
        anyio.create_task_group() as group,
    ):
        recorder.base_url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"  # noqa: S610

        async def handle(stream: SocketStream) -> None:
            async with stream:
                try:
                    while await _answer(stream, behaviour, recorder):
                        pass
                except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.ClosedResourceError):
                    return

        group.start_soon(listener.serve, handle)
        yield recorder
        group.cancel_scope.cancel()


async def _answer(stream: SocketStream, behaviour: Behaviour, recorder: Recorder) -> bool:
    """Answers one request; False when the connection is to be closed."""
    body = await _read_request(stream, recorder)
    if behaviour.drop_connection:
        return False
    if behaviour.raw_answer:
        await stream.send(behaviour.raw_answer)
        return False
    if behaviour.status != 200:
        payload = json.dumps({"error": {"message": "no"}}).encode()
        head = (
            f"HTTP/1.1 {behaviour.status} X\r\ncontent-type: application/json\r\ncontent-length: {len(payload)}\r\n\r\n"
        )
        await stream.send(head.encode() + payload)
        return True
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {behaviour.content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
    await stream.send(head.encode())
    await _event(stream, {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    await anyio.sleep(behaviour.ttft_s)
    if behaviour.raw_event:
        await _chunk(stream, f"data: {behaviour.raw_event}\n\n".encode())
    if not behaviour.without_content and not await _content(stream, behaviour, body["max_tokens"]):
        return False
    await _event(stream, {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
    if not behaviour.without_usage:
        words = len(body["messages"][0]["content"].split())
        usage = {"prompt_tokens": behaviour.template_tokens + 2 * words, "completion_tokens": body["max_tokens"]}
        await _event(stream, {"choices": [], "usage": usage})
    await _chunk(stream, b"data: [DONE]\n\n")
    await stream.send(b"0\r\n\r\n")
    return True


async def _content(stream: SocketStream, behaviour: Behaviour, token_count: int) -> bool:
    """Streams the content; False when the connection is to be closed amid it."""
    for number in range(token_count):
        if number == behaviour.cut_after_tokens:
            return False
        if number == behaviour.reset_after_tokens:
            _reset_when_closed(stream)
            return False
        if number:
            await anyio.sleep(behaviour.itl_s)
        await _event(stream, {"choices": [{"index": 0, "delta": {"content": f" w{number}"}}]})
    return True


def _reset_when_closed(stream: SocketStream) -> None:
    """Let the kernel answer with RST, as it does for a server that was killed."""
    lingering = struct.pack("ii", 1, 0)
    stream.extra(SocketAttribute.raw_socket).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering)  # noqa: S610


async def _read_request(stream: SocketStream, recorder: Recorder) -> dict[str, Any]:
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive()
    head, _, body = received.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
    while len(body) < int(headers["content-length"]):
        body += await stream.receive()
    parsed: dict[str, Any] = json.loads(body)
    recorder.headers.append(headers)
    recorder.bodies.append(parsed)
    return parsed


async def _event(stream: SocketStream, value: dict[str, Any]) -> None:
    await _chunk(stream, f"data: {json.dumps(value)}\n\n".encode())


async def _chunk(stream: SocketStream, payload: bytes) -> None:
    await stream.send(f"{len(payload):x}\r\n".encode() + payload + b"\r\n")
