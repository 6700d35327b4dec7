"""A gateway with two slots behind it on loopback, as the weighted route makes one: real HTTP, no Kubernetes."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketAttribute
from anyio.streams.buffered import BufferedByteReceiveStream

from servepath.canary.route import REVISION_HEADER
from servepath.serving.model import Endpoint, ServingPath
from servepath.serving.slots import SLOT_HEADER, Slot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anyio.abc import SocketStream

MAX_HEAD_BYTES = 65536


@dataclass(slots=True)
class Engine:
    """What one slot does with a completion, and how many it was asked for."""

    ttft_s: float = 0.002
    itl_s: float = 0.001
    status: int = 200
    model: str = "tiny"
    asked: int = 0


@dataclass(slots=True)
class SplitGateway:
    """The route's weights and revision, which a test changes as it likes."""

    base_url: str = ""
    revision: int = 1
    weights: dict[Slot, int] = field(default_factory=lambda: {Slot.BLUE: 100, Slot.GREEN: 0})
    engines: dict[Slot, Engine] = field(default_factory=lambda: {slot: Engine() for slot in Slot})
    names_slots: bool = True
    unready: int = 0
    missing: set[Slot] = field(default_factory=set)
    follow: Callable[[], None] | None = None
    _sent: dict[Slot, int] = field(default_factory=lambda: dict.fromkeys(Slot, 0))

    def endpoint(self, slot: Slot | None = None) -> Endpoint:
        return Endpoint(
            path=ServingPath.KSERVE,
            base_url=self.base_url,
            host="tiny.servepath.test",
            model="tiny",
            namespace="models",
            workload="tiny-kserve-predictor",
            modelcar_digest="sha256:" + "a" * 64,
            engine_image="registry/engine@sha256:" + "b" * 64,
            ready_s=0.0,
            slot=slot,
        )

    def choose(self, header: str | None) -> Slot:
        """The slot of the header, else that which is furthest behind its share."""
        if header and (self.names_slots and self.weights.get(Slot(header)) is not None):
            return Slot(header)
        count = sum(self._sent.values()) + 1
        chosen = max(self.weights, key=lambda slot: self.weights[slot] * count / 100 - self._sent[slot])
        self._sent[chosen] += 1
        return chosen


@asynccontextmanager
async def split_gateway() -> AsyncIterator[SplitGateway]:
    """Serve until the block ends."""
    gateway = SplitGateway()
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener,
        anyio.create_task_group() as group,
    ):
        gateway.base_url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"  # noqa: S610

        async def handle(stream: SocketStream) -> None:
            async with stream:
                try:
                    buffered = BufferedByteReceiveStream(stream)
                    while await _answer(stream, buffered, gateway):
                        pass
                except (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead):
                    pass

        group.start_soon(listener.serve, handle)
        yield gateway
        group.cancel_scope.cancel()


async def _answer(stream: SocketStream, buffered: BufferedByteReceiveStream, gateway: SplitGateway) -> bool:
    head = (await buffered.receive_until(b"\r\n\r\n", MAX_HEAD_BYTES)).decode()
    request_line, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await buffered.receive_exactly(int(headers.get("content-length", 0)))
    if gateway.follow is not None:
        gateway.follow()
    slot = gateway.choose(headers.get(SLOT_HEADER))
    named = f"{SLOT_HEADER}: {slot}\r\n" if gateway.names_slots else ""
    named += f"{REVISION_HEADER}: {gateway.revision}\r\n" if gateway.revision else ""
    engine = gateway.engines[slot]
    if slot in gateway.missing:
        await _whole(stream, 503, {"error": "no backend"}, named)
    elif gateway.unready:
        gateway.unready -= 1
        await _whole(stream, 503, {"error": "no healthy upstream"}, named)
    elif request_line.startswith("GET"):
        await _whole(stream, 200, {"data": [{"id": engine.model}]}, named)
    else:
        engine.asked += 1
        await _complete(stream, json.loads(body), engine, named)
    return True


async def _complete(stream: SocketStream, asked: dict[str, Any], engine: Engine, named: str) -> None:
    if engine.status != 200:
        await _whole(stream, engine.status, {"error": "failed, as asked"}, named)
    elif not asked.get("stream"):
        await _whole(stream, 200, {"choices": [{"message": {"content": "yes"}}]}, named)
    else:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{named}Transfer-Encoding: chunked\r\n\r\n"
        await stream.send(head.encode())
        await anyio.sleep(engine.ttft_s)
        for _ in range(asked["max_tokens"]):
            await _event(stream, {"choices": [{"delta": {"content": "word "}}]})
            await anyio.sleep(engine.itl_s)
        usage = {"prompt_tokens": len(str(asked["messages"])), "completion_tokens": asked["max_tokens"]}
        await _event(stream, {"choices": [], "usage": usage})
        await _chunk(stream, b"data: [DONE]\n\n")
        await stream.send(b"0\r\n\r\n")


async def _event(stream: SocketStream, value: dict[str, Any]) -> None:
    await _chunk(stream, f"data: {json.dumps(value)}\n\n".encode())


async def _chunk(stream: SocketStream, content: bytes) -> None:
    await stream.send(b"%x\r\n%b\r\n" % (len(content), content))


async def _whole(stream: SocketStream, status: int, value: dict[str, Any], named: str) -> None:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 {status} Reason\r\nContent-Type: application/json\r\n{named}Content-Length: {len(body)}\r\n\r\n"
    await stream.send(head.encode() + body)
