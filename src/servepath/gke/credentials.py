"""Application-default credentials of `google-auth`: the user's own, Workload Identity Federation, or the machine's."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from datetime import UTC
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from anyio import to_thread

from servepath.errors import ClusterError, ServepathError
from servepath.modelcar.registry.retry import RETRIED_STATUS, TryAgainError

if TYPE_CHECKING:
    from servepath.gke.model import GoogleOptions

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
LOGIN = "gcloud auth application-default login"
WHERE = "Google credentials"
LIBRARIES = ("google.auth.transport.requests", "google.cloud.container_v1", "google.cloud.artifactregistry_v1")
_PROVIDER = re.compile(r"projects/(\d+)/locations/([\w-]+)/workloadIdentityPools/([\w-]+)/providers/([\w-]+)")


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and when it expires, in seconds since 1970; it is kept out of `repr`."""

    value: str = field(repr=False)
    expires_at: float


@dataclass(frozen=True, slots=True)
class GoogleCredentials:
    """Credentials that renew themselves.

    Attributes:
        raw: `google.auth.credentials.Credentials`, for Google's clients.
        options: how Google's services are reached.
    """

    raw: Any = field(repr=False)
    options: GoogleOptions

    async def token(self) -> Token:
        """Give a token that holds for some minutes, renewed only where the present one does not.

        Raises:
            ClusterError: Google, or who vouches for the user there, refuses or does not answer.
        """
        try:
            return await self.options.retry.run("renewing the access token", self._attempt)
        except TryAgainError as error:
            raise ClusterError(
                f"no access token in {self.options.retry.attempts} attempts: {error}", where=WHERE, next_command=LOGIN
            ) from error

    async def _attempt(self) -> Token:
        from google.auth import exceptions  # noqa: PLC0415 - an optional dependency

        try:
            await to_thread.run_sync(_renew, self.raw, self.options.timeout_s)
        except exceptions.GoogleAuthError as error:
            raise refusal(error, self.raw) from error
        # Without a zone it is UTC.
        return Token(str(self.raw.token), self.raw.expiry.replace(tzinfo=UTC).timestamp())


async def application_default(options: GoogleOptions) -> GoogleCredentials:
    """Find the credentials where Google documents: `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's, the machine's own.

    Raises:
        ClusterError: the libraries are not installed, there are no credentials, or they are the key of a service
            account, which nothing takes back when it is lost.
    """
    require_libraries()
    from google.auth import exceptions  # noqa: PLC0415 - an optional dependency
    from google.oauth2 import service_account  # noqa: PLC0415

    try:
        raw = await to_thread.run_sync(_find)
    except exceptions.GoogleAuthError as error:
        raise ClusterError(
            str(error).partition("\n")[0],
            where=WHERE,
            expected="application-default credentials, or a file of Workload Identity Federation",
            next_command=LOGIN,
        ) from error
    if isinstance(raw, service_account.Credentials) and not options.allow_key_file:
        raise ClusterError(
            f"the credentials are the key file of {raw.service_account_email}",
            where=WHERE,
            expected="credentials that expire: your own, impersonation, or Workload Identity Federation; or "
            "--allow-key-file",
            next_command=f"{LOGIN} --impersonate-service-account={raw.service_account_email}",
        )
    return GoogleCredentials(raw, options)


def require_libraries() -> None:
    """Refuse early where Google's libraries are absent.

    Raises:
        ClusterError: they are.
    """
    try:
        for name in LIBRARIES:
            import_module(name)
    except ImportError as error:
        raise ClusterError(
            f"Google's libraries are not installed: {error.name}",
            where="GKE",
            expected="the extra `gke`",
            next_command="pip install 'servepath[gke]'",
        ) from None


def refusal(error: Exception, raw: Any) -> ServepathError | TryAgainError:
    """Tell an outage, which is tried again, from a refusal."""
    from google.auth import exceptions  # noqa: PLC0415 - an optional dependency

    if isinstance(error, exceptions.TransportError) or getattr(error, "retryable", False):
        return TryAgainError(_said(error))
    return ClusterError(
        f"no access token: {_said(error)}",
        where=WHERE,
        expected="credentials that still hold, for an audience that their issuer accepts",
        next_command=_next_command(raw),
    )


def member_of(raw: Any) -> str:
    """Give whose credentials they are as IAM names it; a person's do not tell."""
    email = getattr(raw, "service_account_email", None)
    return f"serviceAccount:{email}" if email else "user:EMAIL"


def _find() -> Any:
    from google.auth import credentials, default  # noqa: PLC0415

    # Scopes come later: with them a federated identity asks the Resource Manager for a project that nobody needs here,
    # and without them the library warns of its absence.
    log = logging.getLogger("google.auth._default")
    log.addFilter(_is_not_about_the_project)
    try:
        return credentials.with_scopes_if_required(default()[0], [SCOPE])  # type: ignore[no-untyped-call]
    finally:
        log.removeFilter(_is_not_about_the_project)


def _is_not_about_the_project(record: logging.LogRecord) -> bool:
    return "project ID" not in str(record.msg)


def _renew(raw: Any, timeout_s: float) -> None:
    """Renew unless the token holds for some minutes more."""
    from google.auth import exceptions  # noqa: PLC0415
    from google.auth.credentials import TokenState  # noqa: PLC0415
    from google.auth.transport.requests import Request  # noqa: PLC0415

    send = Request()

    def request(url: str, **arguments: Any) -> Any:
        response = send(url, **{**arguments, "timeout": timeout_s})
        # The library takes any answer of the token service but 200 for a refusal.
        if response.status in RETRIED_STATUS:
            said = f"HTTP {response.status} from {urlsplit(url).netloc}"
            raise exceptions.TransportError(said)  # type: ignore[no-untyped-call]
        return response

    if raw.token_state is not TokenState.FRESH:
        raw.refresh(request)


def _said(error: Exception) -> str:
    """Give the first line of an error, and what the service itself said, which some carry as a second argument."""
    said = str(error.args[0] if error.args else error).partition("\n")[0][:300]
    try:
        detail = json.loads(error.args[1])["error"]["message"]
    except (IndexError, KeyError, TypeError, ValueError):
        return said
    return f"{said}: {str(detail)[:300]}"


def _next_command(raw: Any) -> str:
    """Give the command that shows who vouches for the caller: Google's own login, or an identity pool's provider."""
    provider = _PROVIDER.search(str(getattr(raw, "_audience", "")))
    if provider is None:
        return LOGIN
    project, location, pool, name = provider.groups()
    return (
        f"gcloud iam workload-identity-pools providers describe {name} --workload-identity-pool={pool} "
        f"--location={location} --project={project}"
    )
