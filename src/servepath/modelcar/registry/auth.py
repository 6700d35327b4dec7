"""Registry authentication: basic, and bearer tokens of the distribution specification's token service."""

from __future__ import annotations

import re
from base64 import b64encode
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from msgspec.structs import replace

from servepath.errors import RegistryError
from servepath.modelcar.registry.connection import Request
from servepath.modelcar.registry.reference import is_loopback, name_of
from servepath.modelcar.registry.retry import RETRIED_STATUS, TryAgainError
from servepath.modelcar.registry.url import parse_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from servepath.modelcar.registry.connection import Response
    from servepath.modelcar.registry.credentials import Credentials
    from servepath.modelcar.registry.url import Url

_CHALLENGE = re.compile(r'([a-zA-Z_]+)=(?:"([^"]*)"|([^\s",]+))')
_TOKEN = re.compile(r"[!-~]+")
_FORM = "application/x-www-form-urlencoded"


class TokenDeniedError(RegistryError):
    """A token service gives no token for what was asked."""


class RegistryAuth:
    """Answers a registry's challenge; credentials go to that registry and to its token service only.

    Args:
        host: the registry's `host[:port]`; requests to any other host go out untouched.
        credentials: None for anonymous access.
        allow_plain_http: whether credentials may travel over plain HTTP to a host that is not loopback.
    """

    def __init__(self, host: str, credentials: Credentials | None, *, allow_plain_http: bool) -> None:
        self._host = host
        self._credentials = credentials
        self._allow_plain_http = allow_plain_http
        self._headers: dict[str, str] = {}
        self._asked: dict[str, tuple[str, ...]] = {}  # scopes: a token for reading alone must not replace one for both

    def signed(self, request: Request) -> Request:
        """Return the request with what was learnt before."""
        header = self._headers.get(_repository(request.url)) if request.url.is_at(self._host) else None
        return replace(request, headers={**request.headers, "Authorization": header}) if header else request

    async def answer(
        self, request: Request, refusal: Response, exchange: Callable[[Request], Awaitable[Response]]
    ) -> bool:
        """Answer a challenge; tell whether the request may be sent again now.

        Args:
            request: what was refused, as it was before it was signed.
            refusal: the answer.
            exchange: sends a request to a token service.

        Raises:
            RegistryError: the token service gives no token, or is none.
            TryAgainError: it may give one later.
        """
        if refusal.status != HTTPStatus.UNAUTHORIZED or not request.url.is_at(self._host):
            return False
        scope = _repository(request.url)
        self._headers.pop(scope, None)
        if request.body is not None:
            return False  # it cannot be sent twice: the caller starts anew
        challenge = refusal.headers.get("WWW-Authenticate", "")
        if challenge.lower().startswith("basic") and self._basic():
            self._headers[scope] = self._basic()
        elif challenge.lower().startswith("bearer"):
            parameters = {name.lower(): quoted or bare for name, quoted, bare in _CHALLENGE.findall(challenge)}
            self._headers[scope] = f"Bearer {self._token(await exchange(self._token_request(parameters, request.url)))}"
        return scope in self._headers

    def _basic(self) -> str:
        if self._credentials is None or not self._credentials.username:
            return ""
        pair = f"{self._credentials.username}:{self._credentials.present_password()}"
        return f"Basic {b64encode(pair.encode()).decode()}"

    def _token_request(self, challenge: dict[str, str], url: Url) -> Request:
        realm = self._realm(challenge.get("realm", ""))
        scopes = self._scopes(challenge.get("scope", ""), url)
        service = challenge.get("service", "")
        if self._credentials is not None and self._credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self._credentials.identity_token,
                "client_id": "servepath",
                "service": service,
                "scope": " ".join(scopes),
            }
            return Request("POST", realm, {"Content-Type": _FORM}, urlencode(form).encode())
        query = urlencode([("service", service), *(("scope", scope) for scope in scopes)])
        headers = {"Authorization": self._basic()} if self._basic() else {}
        return Request("GET", replace(realm, query=f"{realm.query}&{query}" if realm.query else query), headers)

    def _scopes(self, challenged: str, url: Url) -> tuple[str, ...]:
        """Return what a token is needed for now, and then all that was asked for before in this repository."""
        mounted_from, repository = url.parameter("from"), _repository(url)
        mounting = [f"repository:{mounted_from}:pull"] if mounted_from else []
        scopes = tuple(dict.fromkeys([*challenged.split(), *mounting, *self._asked.get(repository, ())]))
        self._asked[repository] = scopes
        return scopes

    def _realm(self, text: str) -> Url:
        """Return the token service's address if credentials may be sent there."""
        with suppress(ValueError):
            realm = parse_url(text)
            if realm.scheme == "https" or self._allow_plain_http or is_loopback(realm.authority):
                return realm
        raise RegistryError(
            "the registry names a token service that is not HTTPS",
            where=name_of(self._host),
            expected=f"https://…, got {text[:120]!r}",
        )

    def _token(self, response: Response) -> str:
        if response.status in RETRIED_STATUS:
            raise TryAgainError(
                f"the token service answered {response.status}", response.headers.get("Retry-After", "")
            )
        try:
            answer = response.json() if response.status == HTTPStatus.OK else {}
        except (ValueError, RecursionError):
            answer = {}
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        if not (isinstance(token, str) and _TOKEN.fullmatch(token)):
            raise TokenDeniedError(
                f"the token service answered {response.status} without a token",
                where=str(replace(response.url, query="")),
                expected="credentials with the right to this repository",
                next_command=f"docker login {name_of(self._host)}",
            )
        return token


def _repository(url: Url) -> str:
    """Return the part of the path that a token's scope belongs to."""
    return re.split(r"/(?:blobs|manifests|tags|referrers)/", url.path, maxsplit=1)[0]
