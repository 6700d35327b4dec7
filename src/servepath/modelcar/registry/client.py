"""A client of the OCI distribution specification, for one registry.

Facts of the protocol: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
"""

from __future__ import annotations

import os
import ssl
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx

from servepath.errors import RegistryError
from servepath.modelcar.push.push_cache import PushCache, default_cache
from servepath.modelcar.registry.auth import STREAMED, RegistryAuth
from servepath.modelcar.registry.credentials import Credentials, docker_config_directory, find_credentials
from servepath.modelcar.registry.reference import is_loopback
from servepath.modelcar.registry.retry import RETRIED_STATUS, RetryPolicy, TryAgainError
from servepath.modelcar.registry.send import UploadConnection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from servepath.modelcar.push.body import Body

T = TypeVar("T")


def plain_http_hosts() -> frozenset[str]:
    """Give the hosts of `SERVEPATH_PLAIN_HTTP`: a mirror in a closed network may have no TLS."""
    return frozenset(filter(None, os.environ.get("SERVEPATH_PLAIN_HTTP", "").split(",")))


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """How registries are talked to.

    Attributes:
        plain_http: `host[:port]` of registries that are spoken to without TLS; loopback ones always are. By default
            those of `SERVEPATH_PLAIN_HTTP`, separated by commas.
        credentials: credentials by `host[:port]`; other hosts' are looked up in `docker_config`.
        docker_config: the directory of Docker's `config.json`.
        timeout_s: bound of each connect, read and write, in seconds.
        retry: bounds of retries.
        uploads: blobs sent at the same time.
        chunk_bytes: the most bytes in one upload request; 0 sends each blob in one request.
        ca_file: PEM certificates to trust besides the system's own.
        cache: what earlier pushes learnt.
    """

    plain_http: frozenset[str] = field(default_factory=plain_http_hosts)
    credentials: Mapping[str, Credentials] = field(default_factory=dict)
    docker_config: Path = field(default_factory=docker_config_directory)
    timeout_s: float = 60.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    uploads: int = 3
    chunk_bytes: int = 0
    ca_file: Path | None = None
    cache: PushCache = field(default_factory=default_cache)

    def allows_plain_http(self, host: str) -> bool:
        """Tell whether this host may be spoken to without TLS."""
        return host in self.plain_http or is_loopback(host)


class Registry:
    """One registry; an async context manager that owns its connections."""

    def __init__(self, host: str, options: RegistryOptions, credentials: Credentials | None) -> None:
        self.host = host
        self.options = options
        self.scheme = "http" if options.allows_plain_http(host) else "https"
        self._auth = RegistryAuth(host, credentials, allow_plain_http=host in options.plain_http)
        self._tls = _tls(options.ca_file) if self.scheme == "https" else None
        self._client = httpx.AsyncClient(
            base_url=f"{self.scheme}://{host}",
            auth=self._auth,
            timeout=options.timeout_s,
            verify=self._tls or False,
            headers={"User-Agent": "servepath", "Accept-Encoding": "identity"},  # a digest is of the bytes as stored
            event_hooks={"request": [self._refuse_plain_http]},
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def _refuse_plain_http(self, request: httpx.Request) -> None:
        """Refuse before anything is sent; redirects come here too, also those to other hosts.

        Raises:
            RegistryError: neither TLS nor a host that may be spoken to without it.
        """
        if request.url.scheme != "https" and not self.options.allows_plain_http(request.url.netloc.decode("ascii")):
            raise RegistryError(
                "a redirect to plain HTTP",
                where=self.host,
                expected=f"https://…, got {str(request.url.copy_with(query=None))[:120]}",
            )

    async def ping(self) -> None:
        """Check that a registry answers, with these credentials.

        Raises:
            RegistryError: nothing answers, it is no registry, or it refuses.
        """
        self.expect(await self.request("GET", "/v2/"), "ping", {200})

    async def request(self, method: str, url: str | httpx.URL, **arguments: Any) -> httpx.Response:
        """Send a request whose body, if any, is in memory; transient failures are tried again.

        Raises:
            RegistryError: no answer after the last attempt.
        """

        async def attempt() -> httpx.Response:
            return self.transient(await self.send(method, url, **arguments))

        return await self.retried(f"{method} {self.host}{httpx.URL(url).path}", attempt)

    async def retried(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Run an attempt under the retry policy; the last failure becomes a RegistryError."""
        try:
            return await self.options.retry.run(what, attempt)
        except TryAgainError as error:
            raise RegistryError(
                f"{what} failed {self.options.retry.attempts} times: {error}",
                where=self.host,
                expected="an answer",
                next_command=f"curl -i {self.scheme}://{self.host}/v2/",
            ) from error

    async def send(self, method: str, url: str | httpx.URL, **arguments: Any) -> httpx.Response:
        """Send a request once.

        Raises:
            TryAgainError: the connection failed.
        """
        try:
            return await self._client.request(method, url, **arguments)
        except httpx.TransportError as error:
            raise TryAgainError(f"{type(error).__name__}: {error}") from error

    def connect_for_upload(self, url: httpx.URL, on_moved: Callable[[int], None]) -> UploadConnection:
        """Return a connection, not yet made, to where an upload goes: this registry, or storage that it named.

        Args:
            url: the upload's address.
            on_moved: called in the event loop with the position of the body that is sent.
        """
        tls = (self._tls or _tls(self.options.ca_file)) if url.scheme == "https" else None
        return UploadConnection(url, tls, self.options.timeout_s, on_moved)

    async def send_body(
        self, connection: UploadConnection, request: httpx.Request, body: Body, size_bytes: int
    ) -> httpx.Response:
        """Send a request once whose body is the next bytes of a body, with the credentials that are known by now.

        Raises:
            OSError: the connection broke.
            http.client.HTTPException: it answered something else than HTTP.
            InputError: the body cannot be read.
        """
        request.headers["User-Agent"] = "servepath"
        request.extensions[STREAMED] = True
        await self._refuse_plain_http(request)
        async with aclosing(self._auth.async_auth_flow(request)) as flow:
            request = await anext(flow)
            response = await connection.exchange(request, body, size_bytes)
            with suppress(StopAsyncIteration):
                await flow.asend(response)  # which forgets a token that was refused
        return response

    @asynccontextmanager
    async def stream(self, url: str, headers: dict[str, str]) -> AsyncGenerator[httpx.Response, None]:
        """Open a GET whose body is streamed; storage redirects are followed, without the credentials."""
        async with self._client.stream("GET", url, headers=headers, follow_redirects=True) as response:
            yield response

    def transient(self, response: httpx.Response) -> httpx.Response:
        """Return the response unless its status may be another one next time.

        Raises:
            TryAgainError: such a status.
        """
        if response.status_code in RETRIED_STATUS:
            raise TryAgainError(describe(response), response.headers.get("Retry-After", ""))
        return response

    def expect(self, response: httpx.Response, what: str, statuses: set[int]) -> httpx.Response:
        """Return the response if its status is one of those expected.

        Raises:
            RegistryError: another status.
        """
        if response.status_code in statuses:
            return response
        raise RegistryError(
            f"{what}: {describe(response)}",
            where=f"{self.host}{response.url.path}",
            expected=" or ".join(str(status) for status in sorted(statuses)),
            next_command=_next_command(self.host, self.scheme, response.status_code),
        )

    def location(self, response: httpx.Response) -> httpx.URL:
        """Return the upload address that a response names, never downgraded from TLS.

        Raises:
            RegistryError: it names none.
        """
        text = response.headers.get("Location", "")
        if not text:
            raise RegistryError(
                "an upload was accepted without a Location", where=self.host, expected="a Location header"
            )
        return self.checked(response.url.join(text))

    def checked(self, url: httpx.URL) -> httpx.URL:
        """Return an upload address that may be used, never downgraded from TLS.

        Raises:
            RegistryError: it may not.
        """
        if url.netloc.decode("ascii") == self.host:
            return url.copy_with(scheme=self.scheme)
        if url.scheme != "https" and not self.options.allows_plain_http(url.netloc.decode("ascii")):
            raise RegistryError(
                "the upload address is not HTTPS", where=self.host, expected=f"https://…, got {str(url)[:120]}"
            )
        return url


@asynccontextmanager
async def open_registry(host: str, options: RegistryOptions) -> AsyncGenerator[Registry, None]:
    """Open a client for a registry, with the credentials that the options or Docker's configuration give.

    Args:
        host: `host[:port]`.
        options: how to talk to it.
    """
    credentials = options.credentials.get(host) or await find_credentials(host, options.docker_config)
    async with Registry(host, options, credentials) as registry:
        yield registry


def describe(response: httpx.Response) -> str:
    """Say what a registry answered: the status and its own error messages."""
    text = f"the registry answered {response.status_code} {response.reason_phrase}".rstrip()
    try:
        errors = response.json().get("errors") or []
        messages = [f"{error.get('code', '')} {error.get('message', '')}".strip() for error in errors]
    except (ValueError, AttributeError, TypeError, httpx.ResponseNotRead):
        messages = []
    return f"{text} ({'; '.join(messages)[:300]})" if messages else text


def _next_command(host: str, scheme: str, status: int) -> str:
    return f"docker login {host}" if status in {401, 403} else f"curl -i {scheme}://{host}/v2/"


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    return context
