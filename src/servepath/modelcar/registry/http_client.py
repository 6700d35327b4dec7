"""HTTP for a registry: connections that are used again, redirects, nothing over plain HTTP that should not be."""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from servepath.modelcar.registry.connection import Connection
from servepath.modelcar.registry.retry import TryAgainError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Callable

    from servepath.modelcar.registry.connection import Request, Response
    from servepath.modelcar.registry.url import Url

MAX_REDIRECTS = 10
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_UNCHANGING = frozenset({"GET", "HEAD"})


class OpenResponse(Struct, frozen=True):
    """An answer whose content is still to be read: `response` without it, and its chunks."""

    response: Response
    chunks: AsyncGenerator[bytes, None]


class HttpClient:
    """Requests, each over a connection of its own while it runs.

    Args:
        tls: gives how to check certificates; called for HTTPS alone.
        timeout_s: bound of each connect, read and write.
    """

    def __init__(self, tls: Callable[[], ssl.SSLContext], timeout_s: float) -> None:
        self._tls = tls
        self._timeout_s = timeout_s
        self._idle: dict[tuple[str, str], list[Connection]] = {}

    async def exchange(self, request: Request) -> Response:
        """Send a request and read the whole answer.

        Raises:
            TryAgainError: the connection failed.
            InputError: the body cannot be read.
        """
        async with self._connection(request.url) as connection:
            return await connection.exchange(request)

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncGenerator[OpenResponse, None]:
        """Send a request and read the answer's content while the context is open.

        Raises:
            TryAgainError: the connection failed; the chunks raise it too.
        """
        async with self._connection(request.url) as connection:
            response, chunks = await connection.begin(request)
            async with aclosing(chunks):
                yield OpenResponse(response, chunks)

    def close(self) -> None:
        """Close the connections."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    @asynccontextmanager
    async def _connection(self, url: Url) -> AsyncGenerator[Connection, None]:
        """Give a connection that is idle and still open, or a new one; it is kept if the work on it succeeds."""
        idle = self._idle.setdefault((url.scheme, url.authority), [])
        connection = _still_open(idle) or Connection(
            url, self._tls() if url.scheme == "https" else None, self._timeout_s
        )
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        if connection.is_open:
            idle.append(connection)
        else:
            connection.close()


def redirected(request: Request, response: Response) -> Request | None:
    """Return the request that a redirect asks for, None where the answer is none or the request changes something.

    Raises:
        TryAgainError: it leads to something else than an address.
    """
    location = response.headers.get("Location", "")
    if response.status not in _REDIRECTS or request.method not in _UNCHANGING or not location:
        return None
    try:
        return replace(request, url=request.url.join(location))
    except ValueError as error:
        raise TryAgainError(f"a redirect leads to {error}") from error


def _still_open(idle: list[Connection]) -> Connection | None:
    while idle:
        connection = idle.pop()
        if connection.is_open:
            return connection
        connection.close()
    return None
