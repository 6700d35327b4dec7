"""One connection to a registry: a blocking socket in a worker thread, so that the kernel can send files by itself.

An HTTP library that takes bodies as chunks copies each of them several times; on a plain connection `sendfile` copies
none, and on TLS there is one buffer. The standard library's client does the rest; importing it takes 20 ms of a
command's start, a tenth of what such a library takes.
"""

from __future__ import annotations

import http.client
import json
import select
import socket
import ssl
import threading
from base64 import b64encode
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

import anyio
from anyio import from_thread, to_thread
from msgspec import Struct, field

from servepath.errors import InputError
from servepath.modelcar.content import CHUNK_BYTES
from servepath.modelcar.push.body import BUFFER_BYTES, read_views
from servepath.modelcar.registry.reference import is_loopback
from servepath.modelcar.registry.retry import TryAgainError
from servepath.modelcar.registry.url import Url, parse_url
from servepath.modelcar.store import MAX_MANIFEST_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from email.message import Message

    from servepath.modelcar.push.body import Body

T = TypeVar("T")
ANSWER_BYTES = MAX_MANIFEST_BYTES + 1
"""As much of an answer is kept; none that is of use is longer than a manifest may be."""
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class Request(Struct, frozen=True):
    """A request.

    Attributes:
        method: of HTTP.
        url: where to.
        headers: without those that every request has.
        content: a body in memory.
        body: a body that is read once, in place of `content`; a request with one cannot be sent twice.
        body_bytes: how much of it is sent; None for all of a length that only its end tells.
        on_moved: called in the event loop with the position of the body.
    """

    method: str
    url: Url
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    body: Body | None = None
    body_bytes: int | None = 0
    on_moved: Callable[[int], None] | None = None


class Response(Struct, frozen=True):
    """An answer: where it came from, its status and headers, and its content unless that is read apart."""

    url: Url
    status: int
    reason: str
    headers: Message
    content: bytes = b""

    def json(self) -> Any:
        """Return the content, parsed.

        Raises:
            ValueError: not JSON.
        """
        return json.loads(self.content)


class SocketSink:
    """A socket that bytes go to.

    Args:
        connected: a connected, blocking socket.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._buffer = memoryview(bytearray(BUFFER_BYTES if isinstance(connected, ssl.SSLSocket) else 0))

    def write(self, data: bytes) -> None:
        """Send all of the data."""
        self._socket.sendall(data)

    def write_file(self, file: IO[bytes], offset: int, size_bytes: int) -> int:
        """Send a part of a file: by the kernel alone, or through TLS."""
        if not isinstance(self._socket, ssl.SSLSocket):
            return self._socket.sendfile(file, offset, size_bytes)
        for view in read_views(file, offset, size_bytes, self._buffer):
            self._socket.sendall(view)
        return size_bytes


class ChunkedSink:
    """A socket that bytes of unknown number go to, each write as a chunk of HTTP.

    Args:
        connected: the socket.
    """

    def __init__(self, connected: SocketSink) -> None:
        self._connected = connected

    def write(self, data: bytes) -> None:
        """Send the data as one chunk."""
        self._connected.write(b"%x\r\n" % len(data) + data + b"\r\n")

    def write_file(self, file: IO[bytes], offset: int, size_bytes: int) -> int:
        """Send a part of a file as one chunk."""
        self._connected.write(b"%x\r\n" % size_bytes)
        sent_bytes = self._connected.write_file(file, offset, size_bytes)
        self._connected.write(b"\r\n")
        return sent_bytes

    def end(self) -> None:
        """Say that there is no more."""
        self._connected.write(b"0\r\n\r\n")


class Connection:
    """A connection for requests, one after the other; made with the first.

    Args:
        url: where to; scheme, host and port count.
        tls: how to check certificates; None where the URL is plain HTTP.
        timeout_s: bound of each connect, read and write.

    Raises:
        InputError: the environment names a proxy that cannot be used.
    """

    def __init__(self, url: Url, tls: ssl.SSLContext | None, timeout_s: float) -> None:
        self._proxy = proxy_of(url)
        self._connection = _connection(url, self._proxy, tls, timeout_s)
        self._connection._create_connection = self._connect  # type: ignore[attr-defined] # noqa: SLF001 - as tests of it do
        self._handle: socket.socket | None = None  # the same connection, for breaking it from the event loop
        self._is_broken = False
        self._lock = threading.Lock()  # of these two
        self._answer: http.client.HTTPResponse | None = None
        self._is_spent = False

    async def exchange(self, request: Request) -> Response:
        """Send a request and read the whole answer.

        Raises:
            TryAgainError: the connection failed: not made, broken, or what came was not HTTP.
            InputError: the body cannot be read.
        """
        return await self._breakable(lambda: self._exchange(request))

    async def begin(self, request: Request) -> tuple[Response, AsyncGenerator[bytes, None]]:
        """Send a request and return the answer without its content, and the content in chunks.

        Raises:
            TryAgainError: the connection failed; the chunks raise it too.
        """
        answer = await self._breakable(lambda: self._send(request))

        async def chunks() -> AsyncGenerator[bytes, None]:
            while chunk := await self._breakable(lambda: _read(answer, CHUNK_BYTES)):
                yield chunk

        return _response(answer, request.url), chunks()

    @property
    def is_open(self) -> bool:
        """Whether another request can go over it: the last answer was read, and the other side has not hung up."""
        connected = self._connection.sock
        if connected is None or self._is_spent or (self._answer is not None and not self._answer.isclosed()):
            return False
        waiting = select.poll()  # not `select`, which knows no file descriptor over 1023
        waiting.register(connected, select.POLLIN)
        return not waiting.poll(0)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
        if self._handle is not None:
            self._handle.close()

    async def _breakable(self, work: Callable[[], T]) -> T:
        """Do blocking work in a worker thread, which cannot be cancelled: its connection is broken to wake it."""
        failures: list[Exception] = []
        results: list[T] = []

        async def break_when_cancelled() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                if not (results or failures):
                    self._break()

        async with anyio.create_task_group() as group:
            group.start_soon(break_when_cancelled)
            try:
                results.append(await to_thread.run_sync(work))
            except (OSError, http.client.HTTPException) as error:
                failures.append(TryAgainError(f"{type(error).__name__}: {error}"))
            except Exception as error:  # noqa: BLE001 - raised below, outside the task group, as itself
                failures.append(error)
            group.cancel_scope.cancel()
        if failures:
            raise failures[0]
        return results[0]

    def _connect(self, address: tuple[str, int], timeout_s: float, _source: object) -> socket.socket:
        """Connect as `socket.create_connection` does, by a socket that can be broken while it connects.

        Once broken, it connects no more: neither to the next address nor to one that was looked up meanwhile.
        """
        error: OSError = OSError(f"no address of {address[0]}")
        for family, kind, protocol, _, place in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
            connected = socket.socket(family, kind, protocol)
            connected.settimeout(timeout_s)
            try:
                self._hold(connected)
                connected.connect(place)
                self._refuse_if_broken()
            except OSError as failure:
                error = failure
                connected.close()
            else:
                return connected
        raise error

    def _hold(self, connected: socket.socket) -> None:
        with self._lock:
            self._refuse_if_broken()
            if self._handle is not None:
                self._handle.close()
            self._handle = connected.dup()

    def _break(self) -> None:
        with self._lock:
            self._is_broken = True
            if self._handle is not None:
                shut_down(self._handle)

    def _refuse_if_broken(self) -> None:
        if self._is_broken:
            raise OSError("broken off")

    def _exchange(self, request: Request) -> Response:
        answer = self._send(request)
        return _response(answer, request.url, _read(answer, ANSWER_BYTES))

    def _send(self, request: Request) -> http.client.HTTPResponse:
        connection, body = self._connection, request.body
        connection.putrequest(request.method, self._target(request.url))
        for name, value in self._headers(request).items():
            connection.putheader(name, value)
        connection.endheaders(request.content or None)
        broken: OSError | None = None
        try:
            if body is not None:
                self._move(request, body)
        except OSError as error:
            broken = error  # a registry that refuses may answer and hang up before it has read everything
            self._is_spent = True
        try:
            self._answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise broken or error from error
        return self._answer

    def _move(self, request: Request, body: Body) -> None:
        sink, report = SocketSink(self._connection.sock), _in_event_loop(request.on_moved)
        if request.body_bytes is not None:
            body.move(request.body_bytes, sink, report)
            return
        chunked = ChunkedSink(sink)
        body.move(None, chunked, report)
        chunked.end()

    def _target(self, url: Url) -> str:
        """Return what the request line names: to a proxy that forwards plain HTTP, the whole address."""
        return str(url) if self._is_forwarded(url) else url.target

    def _headers(self, request: Request) -> dict[str, str]:
        headers = {"User-Agent": "servepath", **request.headers}
        if self._proxy is not None and self._is_forwarded(request.url):
            headers |= _proxy_headers(self._proxy)
        if request.body_bytes is None:
            headers["Transfer-Encoding"] = "chunked"
        elif request.method in _WITH_BODY:
            headers["Content-Length"] = str(request.body_bytes if request.body is not None else len(request.content))
        return headers

    def _is_forwarded(self, url: Url) -> bool:
        return self._proxy is not None and url.scheme == "http"


def shut_down(connected: socket.socket) -> None:
    """Break a connection that another thread uses."""
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is broken already


def proxy_of(url: Url) -> Url | None:
    """Return the proxy that the environment names for an address: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY.

    This machine is reached without one: what is sent to it in clear, passwords too, goes nowhere else.

    Raises:
        InputError: it names something else than a proxy that is spoken to in plain HTTP.
    """
    proxies = getproxies()
    variable = url.scheme if proxies.get(url.scheme) else "all"
    proxy = proxies.get(variable, "")
    if not proxy or is_loopback(url.authority) or proxy_bypass(url.authority):
        return None
    with suppress(ValueError):
        parsed = parse_url(proxy if "://" in proxy else f"http://{proxy}")
        if parsed.scheme == "http":
            return parsed
    # without the address: there may be a password in it
    raise InputError("a proxy that is not plain HTTP", where=f"{variable.upper()}_PROXY", expected="http://HOST:PORT")


def _connection(
    url: Url, proxy: Url | None, tls: ssl.SSLContext | None, timeout_s: float
) -> http.client.HTTPConnection:
    through = proxy or url
    if url.scheme != "https":
        return http.client.HTTPConnection(through.host, through.port, timeout=timeout_s)
    connection = http.client.HTTPSConnection(through.host, through.port, timeout=timeout_s, context=tls)
    if proxy is not None:
        connection.set_tunnel(url.host, url.port, headers=_proxy_headers(proxy))
    return connection


def _proxy_headers(proxy: Url) -> dict[str, str]:
    if not proxy.userinfo:
        return {}
    return {"Proxy-Authorization": f"Basic {b64encode(unquote(proxy.userinfo).encode()).decode()}"}


def _read(answer: http.client.HTTPResponse, size_bytes: int) -> bytes:
    """Read up to a number of bytes, fewer only at the answer's end."""
    data = answer.read(size_bytes)
    if answer.length and len(data) < size_bytes:  # `read` with a size does not look
        raise http.client.IncompleteRead(data, answer.length)
    return data


def _response(answer: http.client.HTTPResponse, url: Url, content: bytes = b"") -> Response:
    return Response(url, answer.status, answer.reason, answer.headers, content)


def _in_event_loop(on_moved: Callable[[int], None] | None) -> Callable[[int], None]:
    def report(position: int) -> None:
        if on_moved is not None:
            from_thread.run_sync(on_moved, position)

    return report
