from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute
from hypothesis import given, settings
from hypothesis import strategies as st

from servepath.bench.transport import LeanTransport, MalformedResponseError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from anyio.abc import SocketStream

pytestmark = pytest.mark.anyio
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
CHUNKED_BODY = b"5\r\nhello\r\n1;name=value\r\n \r\n6\r\nworld!\r\n0\r\nx-trailer: yes\r\n\r\n"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass(slots=True)
class Server:
    """Answers each request with the next list of pieces; at a `None` it closes the connection."""

    url: str = ""
    connection_count: int = 0
    heads: list[bytes] = field(default_factory=list)


@asynccontextmanager
async def serve(answers: Sequence[Sequence[bytes | None]]) -> AsyncIterator[Server]:
    server = Server()
    waiting = iter(answers)

    async def handle(stream: SocketStream) -> None:
        server.connection_count += 1
        async with stream:
            while True:
                try:
                    server.heads.append(await stream.receive())
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    return
                for piece in next(waiting):
                    if piece is None:
                        return
                    await stream.send(piece)

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener,
        anyio.create_task_group() as group,
    ):
        server.url = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"  # noqa: S610
        group.start_soon(listener.serve, handle)
        yield server
        group.cancel_scope.cancel()


def client_of(server: Server, *, keepalive_expiry_s: float = 4.0) -> httpx.AsyncClient:
    transport = LeanTransport(connect_timeout_s=2, keepalive_expiry_s=keepalive_expiry_s)
    return httpx.AsyncClient(base_url=server.url, transport=transport, trust_env=False)


async def answer_to(*pieces: bytes | None) -> httpx.Response:
    with anyio.fail_after(5):
        async with serve([pieces]) as server, client_of(server) as client:
            return await client.post("/v1/x?a=b", content=b"body")


@settings(deadline=None)
@given(data=st.data())
def test_a_chunked_body_is_the_same_however_it_is_cut(data: st.DataObject) -> None:
    answer = CHUNKED + CHUNKED_BODY
    cuts = sorted(data.draw(st.lists(st.integers(1, len(answer) - 1), max_size=8, unique=True)))
    pieces = [answer[start:end] for start, end in zip([0, *cuts], [*cuts, len(answer)], strict=True)]

    response = anyio.run(answer_to, *pieces)

    assert (response.status_code, response.content) == (200, b"hello world!")


@pytest.mark.parametrize(
    ("pieces", "content"),
    [
        ([OK + b"content-length: 5\r\n\r\nhe", b"llo"], b"hello"),
        ([OK + b"content-length: 0\r\n\r\n"], b""),
        ([OK + b"\r\nhel", b"lo", None], b"hello"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
        ([b"HTTP/1.1 100 Continue\r\n\r\n" + CHUNKED + CHUNKED_BODY], b"hello world!"),
        ([b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy"], b"busy"),
    ],
)
async def test_every_way_to_end_a_body_is_understood(pieces: list[bytes | None], content: bytes) -> None:
    assert (await answer_to(*pieces)).content == content


async def test_a_request_is_sent_whole_with_its_headers() -> None:
    async with serve([[CHUNKED + CHUNKED_BODY]]) as server, client_of(server) as client:
        await client.post("/v1/x?a=b", content=b"body", headers={"Host": "raw.servepath.test"})

    head, _, body = server.heads[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x?a=b HTTP/1.1\r\n")
    assert b"\r\nHost: raw.servepath.test" in head
    assert b"\r\nContent-Length: 4" in head
    assert body == b"body"


@pytest.mark.parametrize(
    ("pieces", "error", "words"),
    [
        ([None], httpx.RemoteProtocolError, "disconnected without sending"),
        ([OK, None], httpx.RemoteProtocolError, "closed the connection"),
        ([CHUNKED + b"5\r\nhel", None], httpx.RemoteProtocolError, "closed the connection"),
        ([CHUNKED + b"5\r\nhello\r\n", None], httpx.RemoteProtocolError, "closed the connection"),
        ([OK + b"content-length: 9\r\n\r\nhe", None], httpx.RemoteProtocolError, "closed the connection"),
        ([CHUNKED + b"-5\r\nhello\r\n"], MalformedResponseError, "size b'-5'"),
        ([CHUNKED + b"\r\nhello\r\n"], MalformedResponseError, "size b''"),
        ([CHUNKED + b"5\r\nhello world"], MalformedResponseError, "does not end"),
        ([CHUNKED + b"5" * 2000], MalformedResponseError, "no size"),
        ([b"SSH-2.0-OpenSSH_9\r\n\r\n"], MalformedResponseError, "begins with"),
        ([OK + b"no colon\r\n\r\n"], MalformedResponseError, "no colon"),
        ([OK + b"content-length: many\r\n\r\n"], MalformedResponseError, "content-length is b'many'"),
        ([OK + b"x: y\r\n" * 20_000], MalformedResponseError, "passes"),
    ],
)
async def test_what_is_no_http_is_refused(
    pieces: list[bytes | None], error: type[httpx.TransportError], words: str
) -> None:
    async with serve([pieces]) as server, client_of(server) as client:
        with anyio.fail_after(5), pytest.raises(error, match=words) as caught:
            await client.post("/v1/x", content=b"body")

    assert type(caught.value) is error


async def test_a_connection_is_used_again_after_a_whole_body() -> None:
    async with serve([[CHUNKED + CHUNKED_BODY]] * 3) as server, client_of(server) as client:
        for _ in range(3):
            await client.post("/", content=b"x")

    assert server.connection_count == 1


@pytest.mark.parametrize(
    "first",
    [
        [OK + b"connection: close\r\ncontent-length: 1\r\n\r\na"],
        [OK + b"content-length: 1\r\n\r\nab"],
        [OK + b"content-length: 1\r\n\r\na", None],
    ],
)
async def test_a_connection_that_cannot_serve_again_is_not_used_again(first: list[bytes | None]) -> None:
    async with serve([first, [CHUNKED + CHUNKED_BODY]]) as server, client_of(server) as client:
        await client.post("/", content=b"x")
        await anyio.wait_all_tasks_blocked()
        response = await client.post("/", content=b"x")

    assert response.content == b"hello world!"
    assert server.connection_count == 2


async def test_an_old_idle_connection_is_not_used_again() -> None:
    async with serve([[CHUNKED + CHUNKED_BODY]] * 2) as server, client_of(server, keepalive_expiry_s=0) as client:
        for _ in range(2):
            await client.post("/", content=b"x")

    assert server.connection_count == 2


async def test_a_body_left_early_closes_its_connection() -> None:
    async with serve([[CHUNKED + b"5\r\nhello\r\n"], [CHUNKED + CHUNKED_BODY]]) as server, client_of(server) as client:
        async with client.stream("POST", "/", content=b"x") as response:
            assert await anext(response.aiter_raw()) == b"hello"
        await client.post("/", content=b"x")

    assert server.connection_count == 2


async def test_each_concurrent_request_has_a_connection() -> None:
    answers = [[CHUNKED + CHUNKED_BODY]] * 20
    async with serve(answers) as server, client_of(server) as client, anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(client.get, "/")

    assert server.connection_count == 20


async def test_no_listener_is_a_connect_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(httpx.ConnectError):
        async with client_of(Server(url)) as client:
            await client.get("/")


async def test_a_connection_that_does_not_open_in_time_is_a_connect_timeout() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        transport = LeanTransport(connect_timeout_s=0.2, keepalive_expiry_s=4)
        with socket.create_connection(address), pytest.raises(httpx.ConnectTimeout, match="within"):
            async with httpx.AsyncClient(transport=transport, trust_env=False) as client:
                await client.get(f"http://127.0.0.1:{address[1]}/")
