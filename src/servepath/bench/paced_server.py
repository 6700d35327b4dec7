"""A server of known timing: it streams chat completions on a fixed schedule and says when it sent each chunk.

It is what a load generator is measured against. It answers with precomputed bytes, in a process of its own, so that it
is far faster than any engine; times are of CLOCK_MONOTONIC, which processes of one machine share. Run it with
`python -m servepath.bench.paced_server --first-token-s 0.02 --gap-s 0.01`; it writes its port to standard output and
ends when its standard input does.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import selectors
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL = "paced"
CHAT_PATH = "/v1/chat/completions"
TIMINGS_PATH = "/timings"
BACKLOG = 4096
RECEIVE_BYTES = 1 << 16
DEFAULT_OUTPUT_TOKENS = 16
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Pace:
    """When the chunks of each answer are sent.

    Attributes:
        first_token_s: from the end of the request to the first content chunk.
        gap_s: from one content chunk to the next; 0 sends them one after the other.
        tokens_per_chunk: tokens that a content chunk stands for; the last one may stand for fewer.
    """

    first_token_s: float
    gap_s: float
    tokens_per_chunk: int = 1


@dataclass(slots=True)
class Timing:
    """What was done for one request, in seconds of CLOCK_MONOTONIC; each time is taken just before the bytes are sent.

    Attributes:
        prompt: the user's message, by which a client finds its request again.
        received_s: when the whole request was there.
        chunk_times_s: when each content chunk was sent.
        end_s: when the end of the stream was sent.
    """

    prompt: str
    received_s: float
    chunk_times_s: list[float] = field(default_factory=list)
    end_s: float = 0.0


@dataclass(slots=True)
class _Connection:
    """One client connection: what is still unread, unsent, and to be streamed."""

    peer: socket.socket
    received: bytearray = field(default_factory=bytearray)
    unsent: bytearray = field(default_factory=bytearray)
    closed: bool = False


@dataclass(slots=True)
class _Answer:
    """A stream under way."""

    connection: _Connection
    timing: Timing
    chunk_count: int
    tail: bytes


class PacedServer:
    """Serves on a free loopback port; one thread, readiness by epoll, due chunks from a heap."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self._listener.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._due: list[tuple[float, int, _Answer]] = []
        self._order = 0
        self._timings: list[Timing] = []
        self._head, self._content, self._last_content = (
            _role_event(),
            _content_event("null"),
            _content_event('"length"'),
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._listener.getsockname()[1])

    def serve(self, until: int) -> None:
        """Serve until the file descriptor `until` is readable."""
        self._selector.register(until, selectors.EVENT_READ)
        while True:
            wait_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            for key, _ in self._selector.select(wait_s):
                if key.fileobj == until:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._ready(key.data)
            self._send_due()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except BlockingIOError:
                return
            peer.setblocking(False)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(peer, selectors.EVENT_READ, _Connection(peer))

    def _ready(self, connection: _Connection) -> None:
        if connection.unsent:
            self._send(connection, b"")
        try:
            received = connection.peer.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._close(connection)
            return
        connection.received += received
        while request := _take_request(connection.received):
            self._answer(connection, *request)

    def _answer(self, connection: _Connection, path: str, body: bytes) -> None:
        received_s = time.monotonic()
        if path == CHAT_PATH:
            self._start_stream(connection, json.loads(body), received_s)
        elif path == TIMINGS_PATH:
            timings, self._timings = self._timings, []
            self._send(connection, _json_response([asdict(timing) for timing in timings]))
        else:
            models = [{"id": MODEL, "object": "model", "created": 0, "owned_by": "servepath"}]
            self._send(connection, _json_response({"object": "list", "data": models}))

    def _start_stream(self, connection: _Connection, body: dict[str, Any], received_s: float) -> None:
        tokens = int(body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_OUTPUT_TOKENS)
        content = body["messages"][-1]["content"]
        prompt = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        timing = Timing(prompt, received_s)
        self._timings.append(timing)
        chunk_count = -(-tokens // self._pace.tokens_per_chunk)
        answer = _Answer(connection, timing, chunk_count, _tail(len(prompt.split()), tokens))
        self._send(connection, self._head)
        self._plan(received_s + self._pace.first_token_s, answer)

    def _plan(self, due_s: float, answer: _Answer) -> None:
        self._order += 1
        heapq.heappush(self._due, (due_s, self._order, answer))

    def _send_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            due_s, _, answer = heapq.heappop(self._due)
            if answer.connection.closed:
                continue
            times_s = answer.timing.chunk_times_s
            is_last = len(times_s) + 1 == answer.chunk_count
            times_s.append(time.monotonic())
            self._send(answer.connection, self._last_content if is_last else self._content)
            if is_last:
                answer.timing.end_s = time.monotonic()
                self._send(answer.connection, answer.tail)
            else:
                self._plan(due_s + self._pace.gap_s, answer)

    def _send(self, connection: _Connection, data: bytes) -> None:
        """Send now what can be sent now; the rest goes when the client reads."""
        connection.unsent += data
        try:
            sent = connection.peer.send(connection.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        del connection.unsent[:sent]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.unsent else 0)
        if self._selector.get_key(connection.peer).events != events:
            self._selector.modify(connection.peer, events, connection)

    def _close(self, connection: _Connection) -> None:
        if not connection.closed:
            connection.closed = True
            self._selector.unregister(connection.peer)
            connection.peer.close()


def _take_request(received: bytearray) -> tuple[str, bytes] | None:
    """The path and body of the first whole request of the buffer, removed from it."""
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    first_line, *lines = received[:head_end].decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(":", 1) for line in lines)
    body_end = head_end + 4 + int(headers.get("content-length", "0"))
    if len(received) < body_end:
        return None
    body = bytes(received[head_end + 4 : body_end])
    del received[:body_end]
    return first_line.split(" ")[1].partition("?")[0], body


def _json_response(value: Any) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


def _http_chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _event(rest: str) -> bytes:
    """An event in the bytes of vLLM 0.23.0."""
    start = f'{{"id":"chatcmpl-0","object":"chat.completion.chunk","created":1700000000,"model":"{MODEL}",'
    return b"data: " + (start + rest + "}").encode() + b"\n\n"


def _role_event() -> bytes:
    delta = '{"role":"assistant","content":""}'
    event = _event(f'"choices":[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":null}}]')
    return STREAM_HEAD + _http_chunk(event)


def _content_event(finish_reason: str) -> bytes:
    choice = (
        f'{{"index":0,"delta":{{"content":" mill"}},"logprobs":null,"finish_reason":{finish_reason},"token_ids":null}}'
    )
    return _http_chunk(_event(f'"choices":[{choice}]'))


def _tail(prompt_tokens: int, completion_tokens: int) -> bytes:
    """The usage event, `[DONE]` and the end of the body."""
    usage = (
        f'{{"prompt_tokens":{prompt_tokens},"total_tokens":{prompt_tokens + completion_tokens},'
        f'"completion_tokens":{completion_tokens}}}'
    )
    usage_event = _event(f'"choices":[],"usage":{usage}')
    return _http_chunk(usage_event) + _http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve as the command line says, until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first-token-s", type=float, default=0.02)
    parser.add_argument("--gap-s", type=float, default=0.01)
    parser.add_argument("--tokens-per-chunk", type=int, default=1)
    options = parser.parse_args(arguments)
    server = PacedServer(Pace(options.first_token_s, options.gap_s, options.tokens_per_chunk))
    os.write(sys.stdout.fileno(), f"{server.port}\n".encode())
    server.serve(until=sys.stdin.fileno())


if __name__ == "__main__":
    main()
