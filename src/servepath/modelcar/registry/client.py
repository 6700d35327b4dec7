"""A client of the OCI distribution specification, for one registry.

Facts of the protocol: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md
"""

from __future__ import annotations

import os
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Self, TypeVar

from msgspec.structs import replace

from servepath.errors import InputError, RegistryError
from servepath.modelcar.push.push_cache import PushCache, default_cache
from servepath.modelcar.registry.auth import RegistryAuth
from servepath.modelcar.registry.connection import Request
from servepath.modelcar.registry.credentials import Credentials, docker_config_directory, find_credentials
from servepath.modelcar.registry.http_client import MAX_REDIRECTS, HttpClient, redirected
from servepath.modelcar.registry.reference import HUB_NAMES, address_of, is_hub, is_loopback, name_of
from servepath.modelcar.registry.retry import RETRIED_STATUS, RetryPolicy, TryAgainError
from servepath.modelcar.registry.url import parse_url

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from servepath.modelcar.registry.connection import Response
    from servepath.modelcar.registry.http_client import OpenResponse
    from servepath.modelcar.registry.url import Url

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
    """One registry; an async context manager that owns its connections.

    Attributes:
        host: `host[:port]` as references name it: Docker Hub is `docker.io`, under whatever name it was opened.
        address: `host[:port]` where it answers.
    """

    def __init__(self, host: str, options: RegistryOptions, credentials: Credentials | None) -> None:
        self.host, self.address = name_of(host), address_of(host)
        self.options = options
        self.scheme = "http" if options.allows_plain_http(self.address) else "https"
        try:
            self._root = parse_url(f"{self.scheme}://{self.address}")
        except ValueError as error:
            raise InputError("not a registry", where=host, expected="HOST or HOST:PORT") from error
        self._auth = RegistryAuth(self.address, credentials, allow_plain_http=self.address in options.plain_http)
        self._context: ssl.SSLContext | None = None
        self._http = HttpClient(self._tls, options.timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def url(self, path: str) -> Url:
        """Return the address of a path of this registry."""
        return self._root.join(path)

    async def ping(self) -> None:
        """Check that a registry answers, with these credentials.

        Raises:
            RegistryError: nothing answers, it is no registry, or it refuses.
        """
        self.expect(await self.request("GET", "/v2/"), "ping", {200})

    async def request(
        self, method: str, url: Url | str, *, headers: Mapping[str, str] | None = None, content: bytes = b""
    ) -> Response:
        """Send a request whose body, if any, is in memory; transient failures are tried again.

        Redirects are followed where nothing is changed (`GET`, `HEAD`), to other hosts without the credentials.

        Raises:
            RegistryError: no answer after the last attempt.
        """
        request = Request(method, self.url(url) if isinstance(url, str) else url, headers or {}, content)

        async def attempt() -> Response:
            return self.transient(await self.send(request))

        return await self.retried(f"{method} {self.host}{request.url.path}", attempt)

    async def retried(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Run an attempt under the retry policy; the last failure becomes a RegistryError."""
        try:
            return await self.options.retry.run(what, attempt)
        except TryAgainError as error:
            raise RegistryError(
                f"{what} failed {self.options.retry.attempts} times: {error}",
                where=self.host,
                expected="an answer",
                next_command=f"curl -i {self.scheme}://{self.address}/v2/",
            ) from error

    async def send(self, request: Request) -> Response:
        """Send a request once, with the credentials that are known by now or that a challenge asks for.

        Raises:
            TryAgainError: the connection failed, or it was redirected without end.
            InputError: the body cannot be read.
            RegistryError: a redirect leads to where nothing may be sent.
        """
        for _ in range(MAX_REDIRECTS):
            response = await self._exchange(request)
            following = redirected(request, response)
            if following is None:
                return response
            request = following
        raise TryAgainError(f"more than {MAX_REDIRECTS} redirects")

    @asynccontextmanager
    async def stream(self, path: str, headers: Mapping[str, str]) -> AsyncGenerator[OpenResponse, None]:
        """Open a GET whose content is streamed; storage redirects are followed, without the credentials.

        Raises:
            TryAgainError: the connection failed, before or within the content.
            RegistryError: a redirect leads to where nothing may be sent.
        """
        request, is_answered = Request("GET", self.url(path), headers), False
        for _ in range(MAX_REDIRECTS):
            self._refuse_plain_http(request.url)
            async with self._http.open(self._auth.signed(request)) as opened:
                following = redirected(request, opened.response)
                is_refused = opened.response.status == HTTPStatus.UNAUTHORIZED and not is_answered
                if following is None and not is_refused:
                    yield opened
                    return
            if following is None:
                is_answered = True
                await self._auth.answer(request, opened.response, self._exchange_unsigned)
            request = following or request
        raise TryAgainError(f"more than {MAX_REDIRECTS} redirects")

    async def _exchange(self, request: Request) -> Response:
        response = await self._exchange_unsigned(self._auth.signed(request))
        if await self._auth.answer(request, response, self._exchange_unsigned):
            response = await self._exchange_unsigned(self._auth.signed(request))
        return response

    async def _exchange_unsigned(self, request: Request) -> Response:
        self._refuse_plain_http(request.url)
        return await self._http.exchange(request)

    def _refuse_plain_http(self, url: Url) -> None:
        """Refuse before anything is sent; redirects come here too, also those to other hosts.

        Raises:
            RegistryError: neither TLS nor a host that may be spoken to without it.
        """
        if url.scheme != "https" and not self.options.allows_plain_http(url.authority):
            raise RegistryError(
                "a redirect to plain HTTP",
                where=self.host,
                expected=f"https://…, got {str(replace(url, query=''))[:120]}",
            )

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = ssl.create_default_context()
            if self.options.ca_file is not None:
                self._context.load_verify_locations(self.options.ca_file)
        return self._context

    def transient(self, response: Response) -> Response:
        """Return the response unless its status may be another one next time.

        Raises:
            TryAgainError: such a status.
        """
        if response.status in RETRIED_STATUS:
            raise TryAgainError(describe(response), response.headers.get("Retry-After", ""))
        return response

    def expect(self, response: Response, what: str, statuses: set[int]) -> Response:
        """Return the response if its status is one of those expected.

        Raises:
            RegistryError: another status.
        """
        if response.status in statuses:
            return response
        raise RegistryError(
            f"{what}: {describe(response)}",
            where=f"{self.host}{response.url.path}",
            expected=" or ".join(str(status) for status in sorted(statuses)),
            next_command=self._next_command(response.status),
        )

    def _next_command(self, status: int) -> str:
        return f"docker login {self.host}" if status in {401, 403} else f"curl -i {self.scheme}://{self.address}/v2/"

    def location(self, response: Response) -> Url:
        """Return the upload address that a response names, never downgraded from TLS.

        Raises:
            RegistryError: it names none.
        """
        text = response.headers.get("Location", "")
        if not text:
            raise RegistryError(
                "an upload was accepted without a Location", where=self.host, expected="a Location header"
            )
        try:
            return self.checked(response.url.join(text))
        except ValueError as error:
            raise RegistryError(
                f"an upload was accepted, but its Location is {error}", where=self.host, expected="an address"
            ) from error

    def checked(self, url: Url) -> Url:
        """Return an upload address that may be used, never downgraded from TLS.

        Raises:
            RegistryError: it may not.
        """
        if url.is_at(self.address):
            return replace(url, scheme=self.scheme, authority=self.address)
        if url.scheme != "https" and not self.options.allows_plain_http(url.authority):
            raise RegistryError(
                "the upload address is not HTTPS", where=self.host, expected=f"https://…, got {str(url)[:120]}"
            )
        return url


@asynccontextmanager
async def open_registry(host: str, options: RegistryOptions) -> AsyncGenerator[Registry, None]:
    """Open a client for a registry, with the credentials that the options or Docker's configuration give.

    Args:
        host: `host[:port]`; Docker Hub's under any of its names.
        options: how to talk to it.
    """
    names = HUB_NAMES if is_hub(host) else (host,)
    given = next((options.credentials[name] for name in names if name in options.credentials), None)
    credentials = given or await find_credentials(host, options.docker_config)
    async with Registry(host, options, credentials) as registry:
        yield registry


def describe(response: Response) -> str:
    """Say what a registry answered: the status and its own error messages."""
    text = f"the registry answered {response.status} {response.reason}".rstrip()
    try:
        errors = response.json().get("errors") or []
        messages = [f"{error.get('code', '')} {error.get('message', '')}".strip() for error in errors]
    except (ValueError, AttributeError, TypeError):
        messages = []
    return f"{text} ({'; '.join(messages)[:300]})" if messages else text
