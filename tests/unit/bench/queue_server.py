"""A server with a known capacity: requests are served one after the other, each in the same time (D/1).

Run as a process of its own: `python queue_server.py --service-s 0.01`. It writes its port to standard output and ends
when its standard input does. It streams like vLLM and tells its queue as `vllm:num_requests_waiting`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass(slots=True)
class Engine:
    """One server of the queue; `starts_s` holds when each request that has not yet begun will begin."""

    service_s: float
    without_metrics: bool
    free_at_s: float = 0.0
    starts_s: deque[float] = field(default_factory=deque)

    def reserve(self) -> float:
        """When a request that arrives now is served: the queue never loses time to a late wake-up."""
        start_s = max(time.monotonic(), self.free_at_s)
        self.free_at_s = start_s + self.service_s
        self.starts_s.append(start_s)
        return start_s

    def waiting(self) -> int:
        """How many requests wait now."""
        while self.starts_s and self.starts_s[0] <= time.monotonic():
            self.starts_s.popleft()
        return len(self.starts_s)


def chunk(payload: bytes) -> bytes:
    return f"{len(payload):x}\r\n".encode() + payload + b"\r\n"


def event(value: Any) -> bytes:
    return chunk(f"data: {json.dumps(value)}\n\n".encode())


async def until(time_s: float) -> None:
    await asyncio.sleep(max(0.0, time_s - time.monotonic()))


async def complete(writer: asyncio.StreamWriter, engine: Engine, body: dict[str, Any]) -> None:
    start_s = engine.reserve()
    tokens = body["max_tokens"]
    for number in range(tokens):
        await until(start_s + engine.service_s * (number + 1) / tokens)
        content = event({"choices": [{"index": 0, "delta": {"content": f" w{number}"}}]})
        writer.write(content if number else HEAD + content)
    usage = {"prompt_tokens": len(body["messages"][0]["content"].split()), "completion_tokens": tokens}
    writer.write(event({"choices": [], "usage": usage}) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
    await writer.drain()


async def tell_metrics(writer: asyncio.StreamWriter, engine: Engine) -> None:
    text = f'# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{engine="0"}} {engine.waiting():.1f}\n'
    status = "404 Not Found" if engine.without_metrics else "200 OK"
    writer.write(f"HTTP/1.1 {status}\r\ncontent-length: {len(text)}\r\n\r\n{text}".encode())
    await writer.drain()


async def serve(engine: Engine) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode().lower():
                if head.startswith("get "):
                    await tell_metrics(writer, engine)
                    continue
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
                await complete(writer, engine, json.loads(await reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--service-s", type=float, required=True)
    parser.add_argument("--without-metrics", action="store_true")
    given = parser.parse_args()
    asyncio.run(serve(Engine(given.service_s, given.without_metrics)))


if __name__ == "__main__":
    main()
