"""Registry authentication: basic, and bearer tokens of the distribution specification's token service."""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING

import httpx

from servepath.errors import RegistryError
from servepath.modelcar.registry.reference import is_loopback
from servepath.modelcar.registry.retry import RETRIED_STATUS, TryAgainError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from servepath.modelcar.registry.credentials import Credentials

STREAMED = "servepath_streamed"
"""Request extension: the body is a stream that cannot be sent twice, so a 401 goes to the caller, which starts anew."""
_CHALLENGE = re.compile(r'([a-zA-Z_]+)=(?:"([^"]*)"|([^\s",]+))')
_TOKEN = re.compile(r"[!-~]+")
_UNAUTHORIZED = 401
_OK = 200


class RegistryAuth(httpx.Auth):
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

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Send the request, with what was learnt before; on a challenge get a token and send it again."""
        if _netloc(request.url) != self._host:
            yield request
            return
        scope = _repository(request.url)
        if header := self._headers.get(scope):
            request.headers["Authorization"] = header
        response = yield request
        if response.status_code != _UNAUTHORIZED:
            return
        self._headers.pop(scope, None)
        if request.extensions.get(STREAMED):
            return
        challenge = response.headers.get("WWW-Authenticate", "")
        if challenge.lower().startswith("basic") and self._basic():
            header = self._basic()
        elif challenge.lower().startswith("bearer"):
            parameters = {name.lower(): quoted or bare for name, quoted, bare in _CHALLENGE.findall(challenge)}
            token_response = yield self._token_request(parameters, request.url)
            await token_response.aread()
            header = f"Bearer {self._token(token_response)}"
        else:
            return
        self._headers[scope] = request.headers["Authorization"] = header
        yield request

    def _basic(self) -> str:
        if self._credentials is None or not self._credentials.username:
            return ""
        pair = f"{self._credentials.username}:{self._credentials.present_password()}"
        return f"Basic {b64encode(pair.encode()).decode()}"

    def _token_request(self, challenge: dict[str, str], url: httpx.URL) -> httpx.Request:
        realm = self._realm(challenge.get("realm", ""))
        scopes = [scope for scope in [challenge.get("scope", "")] if scope]
        if mounted_from := url.params.get("from"):
            scopes.append(f"repository:{mounted_from}:pull")
        service = challenge.get("service", "")
        if self._credentials is not None and self._credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self._credentials.identity_token,
                "client_id": "servepath",
                "service": service,
                "scope": " ".join(scopes),
            }
            return httpx.Request("POST", realm, data=form)
        query = httpx.QueryParams([("service", service), *(("scope", scope) for scope in scopes)])
        headers = {"Authorization": self._basic()} if self._basic() else {}
        return httpx.Request("GET", realm.copy_merge_params(query), headers=headers)

    def _realm(self, text: str) -> httpx.URL:
        """Return the token service's address if credentials may be sent there."""
        try:
            realm = httpx.URL(text)
        except httpx.InvalidURL:
            realm = httpx.URL("")
        is_safe = realm.scheme == "https" or (
            realm.scheme == "http" and (self._allow_plain_http or is_loopback(realm.netloc.decode("ascii")))
        )
        if not (is_safe and realm.host):
            raise RegistryError(
                "the registry names a token service that is not HTTPS",
                where=self._host,
                expected=f"https://…, got {text[:120]!r}",
            )
        return realm

    def _token(self, response: httpx.Response) -> str:
        if response.status_code in RETRIED_STATUS:
            raise TryAgainError(
                f"the token service answered {response.status_code}", response.headers.get("Retry-After", "")
            )
        try:
            answer = response.json() if response.status_code == _OK else {}
        except (ValueError, RecursionError):
            answer = {}
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        if not (isinstance(token, str) and _TOKEN.fullmatch(token)):
            raise RegistryError(
                f"the token service answered {response.status_code} without a token",
                where=str(response.url.copy_with(query=None)),
                expected="credentials with the right to this repository",
                next_command=f"docker login {self._host}",
            )
        return token


def _netloc(url: httpx.URL) -> str:
    return url.netloc.decode("ascii")


def _repository(url: httpx.URL) -> str:
    """Return the part of the path that a token's scope belongs to."""
    return re.split(r"/(?:blobs|manifests|tags|referrers)/", url.path, maxsplit=1)[0]
