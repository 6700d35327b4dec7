"""The Google APIs that are asked: one answer each, failures told apart, outages tried again."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from anyio import to_thread

from servepath.errors import ClusterError, RegistryError, ServepathError
from servepath.gke.credentials import member_of, refusal
from servepath.gke.facts import facts_of
from servepath.gke.model import ArtifactRepository, GkeFacts, GkeTarget, Quota
from servepath.modelcar.registry.retry import RETRIED_STATUS, TryAgainError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from servepath.gke.credentials import GoogleCredentials

T = TypeVar("T")

_NOT_FOUND = 404
_FORBIDDEN = 403
_DOCKER, _STANDARD = "DOCKER", "STANDARD_REPOSITORY"


@dataclass(frozen=True, slots=True)
class _Question:
    """What is asked for: its name, the project that has it, the role that may see it, and what its absence comes to."""

    where: str
    project: str
    role: str
    absent: Callable[[str], ServepathError]


async def read_cluster(google: GoogleCredentials, target: GkeTarget) -> GkeFacts:
    """Ask the Kubernetes Engine API for a cluster.

    Raises:
        ClusterError: there is no such cluster, it does not run, the caller may not see it, or Google does not answer.
    """
    absent = partial(
        ClusterError,
        where=target.resource,
        expected="a cluster of that name in that location",
        next_command=f"gcloud container clusters list --project {target.project}",
    )
    client = _client(google, "container_v1", "ClusterManagerClient", google.options.container)
    call = partial(client.get_cluster, name=target.resource, timeout=google.options.timeout_s, retry=None)
    question = _Question(target.resource, target.project, "roles/container.clusterViewer", absent)
    return facts_of(await _ask(google, call, question), target, google.options.endpoint)


async def read_repository(google: GoogleCredentials, target: GkeTarget, path: str) -> ArtifactRepository:
    """Ask Artifact Registry for a Docker repository in the cluster's region.

    Args:
        google: whose credentials.
        target: the cluster that will pull from it.
        path: `PROJECT/REPOSITORY`, or with `LOCATION-docker.pkg.dev/` before it.

    Raises:
        RegistryError: it is not there, in another region, not of Docker's format, or a proxy of another one.
        ClusterError: Google does not answer, or refuses the credentials.
    """
    project, name = _split(path, target)
    create = (
        f"gcloud artifacts repositories create {name} --repository-format=docker "
        f"--project {project} --location {target.region}"
    )
    where = f"projects/{project}/locations/{target.region}/repositories/{name}"

    absent = partial(
        RegistryError,
        where=where,
        expected=f"a Docker repository in {target.region}, the cluster's region",
        next_command=create,
    )
    client = _client(google, "artifactregistry_v1", "ArtifactRegistryClient", google.options.artifact_registry)
    call = partial(client.get_repository, name=where, timeout=google.options.timeout_s, retry=None)
    answer = await _ask(google, call, _Question(where, project, "roles/artifactregistry.writer", absent))
    if answer.format_.name != _DOCKER or answer.mode.name not in (_STANDARD, "MODE_UNSPECIFIED"):
        raise RegistryError(
            f"it is a {answer.mode.name} of the format {answer.format_.name}",
            where=where,
            expected="a standard repository of the format DOCKER",
            next_command=create.replace(name, f"{name}-docker"),
        )
    address = answer.registry_uri or f"{target.region}-docker.pkg.dev/{project}/{name}"
    registry, _, repository = address.partition("/")
    return ArtifactRepository(registry, repository, target.region)


async def read_quotas(google: GoogleCredentials, target: GkeTarget) -> Mapping[str, Quota]:
    """Ask Compute Engine for the quotas of the cluster's region, by metric, such as `NVIDIA_L4_GPUS`.

    By `google-auth` alone: the library `google-cloud-compute` takes 15 s to import and 35 MB for this one request.

    Raises:
        ClusterError: the caller may not see them, or Google does not answer.
    """
    from google.auth.transport.requests import AuthorizedSession  # noqa: PLC0415 - an optional dependency

    project, region = quote(target.project, safe=""), quote(target.region, safe="")
    where = f"projects/{project}/regions/{region}"
    url = f"{google.options.compute}/compute/v1/{where}?fields=quotas"

    def get() -> Any:
        with AuthorizedSession(google.raw) as session:  # type: ignore[no-untyped-call]
            response = session.get(url, timeout=google.options.timeout_s)
        if not response.ok:
            from google.api_core import exceptions  # noqa: PLC0415 - an optional dependency

            raise exceptions.from_http_response(response)  # type: ignore[no-untyped-call]
        return response.json()

    absent = partial(ClusterError, where=where, next_command=f"gcloud compute regions list --project {project}")
    answer = await _ask(google, get, _Question(where, target.project, "roles/compute.viewer", absent))
    quotas = [Quota(entry["metric"], entry["limit"], entry.get("usage", 0)) for entry in answer.get("quotas", [])]
    return {quota.metric: quota for quota in quotas}


def _split(path: str, target: GkeTarget) -> tuple[str, str]:
    """Give project and name of a repository; its host, where it is named, must be that of the cluster's region."""
    expected = f"{target.region}-docker.pkg.dev"
    host, _, rest = path.partition("/") if path.count("/") > 1 else (expected, "", path)
    project, _, name = rest.partition("/")
    if not (project and name) or "/" in name:
        raise RegistryError(f"{path!r} names no repository", where="Artifact Registry", expected="PROJECT/REPOSITORY")
    if host != expected:
        raise RegistryError(
            f"{host} is not in the cluster's region",
            where=path,
            expected=f"{expected}: a node pulls from its own region faster, and nobody pays for the traffic",
            next_command=f"gcloud artifacts repositories list --project {project} --location {target.region}",
        )
    return project, name


def _client(google: GoogleCredentials, module: str, name: str, endpoint: str) -> Any:
    from importlib import import_module  # noqa: PLC0415

    client = getattr(import_module(f"google.cloud.{module}"), name)
    return client(credentials=google.raw, transport="rest", client_options={"api_endpoint": endpoint})


async def _ask(google: GoogleCredentials, call: Callable[[], Any], question: _Question) -> Any:
    """Call one of Google's clients in a worker thread.

    The token is renewed before: the clients take an outage of who renews it for a refusal.
    """
    from google.api_core import exceptions  # noqa: PLC0415 - an optional dependency
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415
    from requests.exceptions import RequestException  # noqa: PLC0415

    async def attempt() -> Any:
        try:
            return await to_thread.run_sync(call)
        except exceptions.GoogleAPICallError as error:
            said = _said(error)
            if error.code in RETRIED_STATUS:
                raise TryAgainError(f"HTTP {int(error.code)}: {said}") from error
            if error.code == _NOT_FOUND:
                raise question.absent(said) from error
            raise _refused(error, said, question, member_of(google.raw)) from error
        except GoogleAuthError as error:
            raise refusal(error, google.raw) from error
        except RequestException as error:
            raise TryAgainError(f"{type(error).__name__}: {error}"[:300]) from error

    await google.token()
    try:
        return await google.options.retry.run(question.where, attempt)
    except TryAgainError as error:
        raise ClusterError(
            f"Google did not answer in {google.options.retry.attempts} attempts: {error}",
            where=question.where,
            next_command="gcloud info --run-diagnostics",
        ) from error


def _said(error: Any) -> str:
    """Give Google's own words: the library's begin with the method and the address."""
    try:
        said = error.response.json()["error"]["message"]
    except (AttributeError, KeyError, TypeError, ValueError):
        said = error.message or error
    return str(said).partition("\n")[0][:300]


def _refused(error: Any, said: str, question: _Question, member: str) -> ClusterError:
    """Say what a refusal asks for: an API to be enabled, a quota, or a role."""
    refused = partial(ClusterError, said, where=question.where)
    project = question.project
    if error.reason == "SERVICE_DISABLED":
        service = error.metadata.get("service", "container.googleapis.com")
        command = f"gcloud services enable {service} --project {project}"
        return refused(expected="the API enabled in the project", next_command=command)
    if error.reason in ("RATE_LIMIT_EXCEEDED", "USER_PROJECT_DENIED") or "quota" in said.lower():
        command = f"gcloud auth application-default set-quota-project {project}"
        return refused(expected="a project whose quota may be used", next_command=command)
    if error.code == _FORBIDDEN:
        command = f"gcloud projects add-iam-policy-binding {project} --role={question.role} --member={member}"
        return refused(expected=f"the role {question.role}", next_command=command)
    return refused(expected="an answer", next_command="gcloud auth list")
