"""HTTP/1.1 without ceremony: the httpx transport of the load generator, for plain `http://`.

httpx's own transport looks at every open connection of the pool for each request and parses each chunk in several
layers: with hundreds of streams that is more time than many servers need to answer. This one keeps idle connections
on a stack, sends a request in one write and cuts the body with `bytes.find`. It knows what a load generator needs of
RFC 9112: requests with a body of known length, responses with chunked, counted or closing bodies, no upgrade and no
proxy.
"""

from __future__ import annotations

import re
import select
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import anyio
import httpx
from anyio.abc import SocketAttribute

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from anyio.abc import SocketStream

RECEIVE_BYTES = 1 << 16
MAX_HEAD_BYTES = 1 << 16
MAX_SIZE_LINE_BYTES = 1 << 10
HEAD_END = b"\r\n\r\n"
HEX_DIGITS = re.compile(rb"[0-9a-fA-F]{1,15}")


class MalformedResponseError(httpx.RemoteProtocolError):
    """The bytes of a response are no HTTP/1.1; a connection that only ended too early is none of these."""


@dataclass(slots=True, eq=False)
class _Connection:
    """An open connection; `received` holds what was read beyond the current message part."""

    stream: SocketStream
    raw_socket: socket.socket
    received: bytes = b""
    idle_since_s: float = 0.0

    async def more(self) -> None:
        """Read what has come, after what is there.

        Raises:
            httpx.RemoteProtocolError: the server has closed the connection.
            httpx.ReadError: it broke.
        """
        data = await self.read()
        if not data:
            raise httpx.RemoteProtocolError("the server closed the connection within a response")
        self.received = self.received + data if self.received else data

    async def read(self) -> bytes:
        """What has come, empty at the end of the connection."""
        try:
            return await self.stream.receive(RECEIVE_BYTES)
        except anyio.EndOfStream:
            return b""
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
            raise httpx.ReadError(str(error.__cause__ or error) or type(error).__name__) from error

    async def write(self, data: bytes) -> None:
        """Send all of it."""
        try:
            await self.stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
            raise httpx.WriteError(str(error.__cause__ or error) or type(error).__name__) from error


class LeanTransport(httpx.AsyncBaseTransport):
    """Connections to any number of `http://` origins, without a limit.

    Args:
        connect_timeout_s: budget to open a connection; no other time is limited here.
        keepalive_expiry_s: an idle connection older than this is closed rather than used again.
    """

    def __init__(self, *, connect_timeout_s: float, keepalive_expiry_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._keepalive_expiry_s = keepalive_expiry_s
        self._idle: dict[tuple[str, int], list[_Connection]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request and read the head of its response.

        Raises:
            httpx.ConnectError: no connection could be opened.
            httpx.ConnectTimeout: none was open in time.
            httpx.TransportError: the connection broke or ended too early.
            MalformedResponseError: the response is no HTTP/1.1.
        """
        origin = (request.url.host, request.url.port or 80)
        idle = self._idle.setdefault(origin, [])
        data = _head_of(request) + await request.aread()
        connection = await self._fresh_of(idle) or await self._connect(origin)
        try:
            await connection.write(data)
            status, headers = await _read_head(connection)
            body = _Body(connection, idle, _framing(request.method, status, headers))
        except BaseException:
            await _close(connection)
            raise
        return httpx.Response(status, headers=headers, stream=body)

    async def aclose(self) -> None:
        """Close the idle connections, all of them also where the caller is cancelled."""
        with anyio.CancelScope(shield=True):
            for idle in self._idle.values():
                while idle:
                    await _close(idle.pop())

    async def _fresh_of(self, idle: list[_Connection]) -> _Connection | None:
        """The idle connection used last, unless it is old or the server has closed it."""
        while idle:
            connection = idle.pop()
            is_young = anyio.current_time() - connection.idle_since_s < self._keepalive_expiry_s
            if is_young and not _is_readable(connection.raw_socket):
                return connection
            await _close(connection)
        return None

    async def _connect(self, origin: tuple[str, int]) -> _Connection:
        host, port = origin
        try:
            with anyio.fail_after(self._connect_timeout_s):
                stream = await anyio.connect_tcp(host, port)
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"no connection within {self._connect_timeout_s:g} s") from error
        except OSError as error:
            raise httpx.ConnectError(str(error)) from error
        return _Connection(stream, stream.extra(SocketAttribute.raw_socket))  # noqa: S610  # no Django


class _Body(httpx.AsyncByteStream):
    """The body of a response; a body read to its end gives its connection back."""

    def __init__(self, connection: _Connection, idle: list[_Connection], framing: _Framing) -> None:
        self._connection = connection
        self._idle = idle
        self._framing = framing
        self._ended = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        if self._framing.chunked:
            return self._chunked()
        return self._until_closed() if self._framing.length is None else self._counted(self._framing.length)

    async def aclose(self) -> None:
        """Keep the connection if the body ended in good order and nothing came after it, else close it."""
        if self._ended and self._framing.keep_alive and not self._connection.received:
            self._connection.idle_since_s = anyio.current_time()
            self._idle.append(self._connection)
        else:
            await _close(self._connection)

    async def _chunked(self) -> AsyncIterator[bytes]:
        """The content as it comes; chunks that came in one read are joined."""
        connection = self._connection
        while True:
            contents, is_last = _take_chunks(connection)
            if contents:
                yield contents[0] if len(contents) == 1 else b"".join(contents)
            if is_last:
                break
            await connection.more()
        await _skip_trailers(connection)
        self._ended = True

    async def _counted(self, length: int) -> AsyncIterator[bytes]:
        connection, missing = self._connection, length
        while missing:
            if not connection.received:
                await connection.more()
            part, connection.received = connection.received[:missing], connection.received[missing:]
            missing -= len(part)
            yield part
        self._ended = True

    async def _until_closed(self) -> AsyncIterator[bytes]:
        part, self._connection.received = self._connection.received, b""
        while part or (part := await self._connection.read()):
            yield part
            part = b""
        self._ended = True


@dataclass(frozen=True, slots=True)
class _Framing:
    """How the end of a body is known: by chunks, by a length, or (neither) by the end of the connection."""

    chunked: bool
    length: int | None
    keep_alive: bool


def _take_chunks(connection: _Connection) -> tuple[list[bytes], bool]:
    """The whole chunks that are there, removed from the connection; and whether the last one, of size 0, follows."""
    received, at = connection.received, 0
    contents: list[bytes] = []
    while (line_end := received.find(b"\r\n", at)) >= 0:
        size = _chunk_size(received[at:line_end])
        content_end = line_end + 2 + size
        if not size or len(received) < content_end + 2:
            connection.received = received[at:]
            return contents, not size
        if received[content_end : content_end + 2] != b"\r\n":
            raise MalformedResponseError("a chunk of the response does not end where its size says")
        contents.append(received[line_end + 2 : content_end])
        at = content_end + 2
    connection.received = received[at:]
    if len(connection.received) > MAX_SIZE_LINE_BYTES:
        raise MalformedResponseError("a chunk of the response has no size")
    return contents, False


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not HEX_DIGITS.fullmatch(digits):
        raise MalformedResponseError(f"a chunk of the response has the size {line[:40]!r}")
    return int(digits, 16)


async def _skip_trailers(connection: _Connection) -> None:
    """Read past the last chunk, its trailer fields, and the empty line that ends them."""
    connection.received = connection.received[connection.received.index(b"\r\n") :]
    while (end := connection.received.find(HEAD_END)) < 0:
        if len(connection.received) > MAX_HEAD_BYTES:
            raise MalformedResponseError("the trailers of the response do not end")
        await connection.more()
    connection.received = connection.received[end + len(HEAD_END) :]


def _head_of(request: httpx.Request) -> bytes:
    lines = [b"%b %b HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
    lines += [b"%b: %b" % field for field in request.headers.raw]
    return b"\r\n".join(lines) + HEAD_END


async def _read_head(connection: _Connection) -> tuple[int, list[tuple[bytes, bytes]]]:
    """Status and header fields; interim responses (1xx) are passed over."""
    while True:
        if not connection.received:
            data = await connection.read()
            if not data:
                raise httpx.RemoteProtocolError("the server disconnected without sending a response")
            connection.received = data
        while (end := connection.received.find(HEAD_END)) < 0:
            if len(connection.received) > MAX_HEAD_BYTES:
                raise MalformedResponseError(f"the head of the response passes {MAX_HEAD_BYTES} bytes")
            await connection.more()
        head, connection.received = connection.received[:end], connection.received[end + len(HEAD_END) :]
        status, headers = _parse_head(head)
        if status >= httpx.codes.OK:
            return status, headers


def _parse_head(head: bytes) -> tuple[int, list[tuple[bytes, bytes]]]:
    status_line, *lines = head.split(b"\r\n")
    version, _, rest = status_line.partition(b" ")
    if not version.startswith(b"HTTP/1.") or not rest[:3].isdigit():
        raise MalformedResponseError(f"the response begins with {status_line[:80]!r}")
    headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name:
            raise MalformedResponseError(f"a header field of the response reads {line[:80]!r}")
        headers.append((name, value.strip()))
    return int(rest[:3]), headers


def _framing(method: str, status: int, headers: list[tuple[bytes, bytes]]) -> _Framing:
    """How the body ends (RFC 9112, section 6.3)."""
    fields = {name.lower(): value.lower() for name, value in headers}
    keep_alive = b"close" not in fields.get(b"connection", b"")
    if method == "HEAD" or status in {httpx.codes.NO_CONTENT, httpx.codes.NOT_MODIFIED}:
        return _Framing(chunked=False, length=0, keep_alive=keep_alive)
    if b"transfer-encoding" in fields:
        chunked = fields[b"transfer-encoding"].endswith(b"chunked")
        return _Framing(chunked=chunked, length=None, keep_alive=keep_alive and chunked)
    if b"content-length" not in fields:
        return _Framing(chunked=False, length=None, keep_alive=False)
    if not fields[b"content-length"].isdigit():
        raise MalformedResponseError(f"content-length is {fields[b'content-length'][:40]!r}")
    return _Framing(chunked=False, length=int(fields[b"content-length"]), keep_alive=keep_alive)


def _is_readable(raw_socket: socket.socket) -> bool:
    """Whether something came on an idle connection: its end, or bytes that belong to no response."""
    poller = select.poll()
    poller.register(raw_socket, select.POLLIN)
    return bool(poller.poll(0))


async def _close(connection: _Connection) -> None:
    await anyio.aclose_forcefully(cast("anyio.abc.AsyncResource", connection.stream))
