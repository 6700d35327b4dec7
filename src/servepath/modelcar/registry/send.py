"""Connections for request bodies: a blocking socket in a worker thread, so that the kernel can send files by itself.

An HTTP library that takes bodies as chunks copies each of them several times; on a plain connection `sendfile` copies
none, and on TLS there is one buffer. Everything without a body goes through httpx.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from base64 import b64encode
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote
from urllib.request import getproxies, proxy_bypass

import anyio
import httpx
from anyio import from_thread, to_thread

from servepath.modelcar.push.body import BUFFER_BYTES, read_views

if TYPE_CHECKING:
    from collections.abc import Callable

    from servepath.modelcar.push.body import Body

ANSWER_BYTES = 64 << 10
"""As much of an answer is read; those to uploads are empty or a short error."""


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


class UploadConnection:
    """A connection for the requests of one upload, one after the other.

    Args:
        url: where to; scheme, host and port count.
        tls: how to check certificates; None where the URL is plain HTTP.
        timeout_s: bound of each connect, read and write.
        on_moved: called in the event loop with the position of the body that is sent.
    """

    def __init__(
        self, url: httpx.URL, tls: ssl.SSLContext | None, timeout_s: float, on_moved: Callable[[int], None]
    ) -> None:
        self._on_moved = on_moved
        self._origin = (url.scheme, url.netloc)
        self._proxy = proxy_of(url)
        self._connection = _connection(url, self._proxy, tls, timeout_s)

    async def exchange(self, request: httpx.Request, body: Body, size_bytes: int) -> httpx.Response:
        """Send a request whose body is the next bytes of a body, and return the answer.

        Args:
            request: method, address and headers; its own content is not used.
            body: what to send from.
            size_bytes: how much of it.

        Raises:
            OSError: the connection broke.
            http.client.HTTPException: it answered something else than HTTP.
            InputError: the content cannot be read.
        """
        failures: list[Exception] = []
        responses: list[httpx.Response] = []

        async with anyio.create_task_group() as group:
            group.start_soon(self._break_when_cancelled, responses, failures)
            try:
                responses.append(await to_thread.run_sync(self._exchange, request, body, size_bytes))
            except Exception as error:  # noqa: BLE001 - raised below, outside the task group, as itself
                failures.append(error)
            group.cancel_scope.cancel()
        if failures:
            raise failures[0]
        return responses[0]

    def leads_to(self, url: httpx.URL) -> bool:
        """Tell whether a request to this address can go over this connection."""
        return self._origin == (url.scheme, url.netloc)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    async def _break_when_cancelled(self, responses: list[httpx.Response], failures: list[Exception]) -> None:
        """Wake the worker thread, which cannot be cancelled, by breaking its connection."""
        try:
            await anyio.sleep_forever()
        finally:
            connected = self._connection.sock
            if not responses and not failures and connected is not None:
                shut_down(connected)

    def _exchange(self, request: httpx.Request, body: Body, size_bytes: int) -> httpx.Response:
        connection = self._connection
        connection.putrequest(request.method, self._target(request.url), skip_host=True, skip_accept_encoding=True)
        for name, value in self._headers(request, size_bytes).items():
            connection.putheader(name, value)
        connection.endheaders()
        broken: OSError | None = None
        try:
            body.move(size_bytes, SocketSink(connection.sock), self._report)
        except OSError as error:
            broken = error  # a registry that refuses may answer and hang up before it has read everything
        try:
            answer = connection.getresponse()
            content = answer.read(ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise broken or error from error
        if broken is not None or not answer.isclosed():
            connection.close()
        headers = [(name, value) for name, value in answer.getheaders() if name.lower() != "content-encoding"]
        return httpx.Response(answer.status, headers=headers, content=content, request=request)

    def _report(self, position: int) -> None:
        from_thread.run_sync(self._on_moved, position)

    def _target(self, url: httpx.URL) -> str:
        """Return what the request line names: to a proxy that forwards plain HTTP, the whole address."""
        if self._proxy is not None and url.scheme == "http":
            return str(url)
        return url.raw_path.decode("ascii")

    def _headers(self, request: httpx.Request, size_bytes: int) -> dict[str, str]:
        headers = {name: value for name, value in request.headers.items() if name != "content-length"}
        if self._proxy is not None and request.url.scheme == "http":
            headers |= _proxy_headers(self._proxy)
        return headers | {"Content-Length": str(size_bytes)}


def shut_down(connected: socket.socket) -> None:
    """Break a connection that another thread uses."""
    try:
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # of an SSL socket too: no goodbye
    except OSError:
        return  # it is broken already


def proxy_of(url: httpx.URL) -> httpx.URL | None:
    """Return the proxy that the environment names for an address: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.netloc.decode("ascii")):
        return None
    return httpx.URL(proxy if "://" in proxy else f"http://{proxy}")


def _connection(
    url: httpx.URL, proxy: httpx.URL | None, tls: ssl.SSLContext | None, timeout_s: float
) -> http.client.HTTPConnection:
    through = proxy or url
    port = through.port or (443 if through.scheme == "https" else 80)
    if url.scheme != "https":
        return http.client.HTTPConnection(through.host, port, timeout=timeout_s)
    connection = http.client.HTTPSConnection(through.host, port, timeout=timeout_s, context=tls)
    if proxy is not None:
        connection.set_tunnel(url.host, url.port or 443, headers=_proxy_headers(proxy))
    return connection


def _proxy_headers(proxy: httpx.URL) -> dict[str, str]:
    if not proxy.userinfo:
        return {}
    return {"Proxy-Authorization": f"Basic {b64encode(unquote(proxy.userinfo.decode()).encode()).decode()}"}
