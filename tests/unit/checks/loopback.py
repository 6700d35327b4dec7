"""A small real HTTP/1.1 server on loopback: one answer function, one connection for each request."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

MAX_HEAD_BYTES = 65536
SHORT_FRAME_BYTES = 126
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes = b""
    content_type: str = "application/json"
    frames: tuple[bytes, ...] = ()


Answer: TypeAlias = Callable[[Request], Response]


def json_response(status: int, value: Any) -> Response:
    return Response(status, json.dumps(value).encode())


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """Serve `answer` on a free port; gives the base URL."""

    async def handle(stream: SocketStream) -> None:
        async with stream:
            request = await _read(stream)
            response = answer(request)
            if response.frames:
                await _upgrade(stream, request, response.frames)
                return
            head = (
                f"HTTP/1.1 {response.status} Reason\r\nContent-Type: {response.content_type}\r\n"
                f"Content-Length: {len(response.body)}\r\nConnection: close\r\n\r\n"
            )
            await stream.send(head.encode() + response.body)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra_attributes[SocketAttribute.local_port]()
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        yield f"http://127.0.0.1:{port}"
        group.cancel_scope.cancel()


async def _upgrade(stream: SocketStream, request: Request, frames: tuple[bytes, ...]) -> None:
    """Become a WebSocket (RFC 6455), send binary frames as `exec` does, and read on until the client leaves."""
    key = request.headers["sec-websocket-key"].encode() + WEBSOCKET_GUID
    accept = base64.b64encode(hashlib.sha1(key, usedforsecurity=False).digest())
    head = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept.decode()}\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    )
    await stream.send(head.encode())
    for frame in frames:
        short = len(frame) < SHORT_FRAME_BYTES
        length = bytes([len(frame)]) if short else b"\x7e" + len(frame).to_bytes(2, "big")
        await stream.send(b"\x82" + length + frame)
    async for _ in stream:
        await stream.send(b"\x88\x02\x03\xe8")
        return


async def _read(stream: SocketStream) -> Request:
    buffered = BufferedByteReceiveStream(stream)
    head = (await buffered.receive_until(b"\r\n\r\n", MAX_HEAD_BYTES)).decode()
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ")
    path, _, query = target.partition("?")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await buffered.receive_exactly(int(headers["content-length"])) if "content-length" in headers else b""
    return Request(method, path, query, headers, body)
