"""A GKE cluster as a `Cluster`, for one run: what is written for it is gone afterwards."""

from __future__ import annotations

import json
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from servepath.cluster.model import Cluster
from servepath.errors import ServepathError
from servepath.gke.apis import read_cluster, read_repository
from servepath.gke.credentials import application_default
from servepath.gke.model import ArtifactRepository, GkeFacts, GkeTarget, GoogleOptions
from servepath.gke.token_file import keep_fresh, write_private
from servepath.modelcar.registry.credentials import Credentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from servepath.gke.credentials import GoogleCredentials

REGISTRY_USER = "oauth2accesstoken"
"""The user name that Artifact Registry expects with an access token."""
_LASTING = "gke.kubeconfig"


@dataclass(frozen=True, slots=True)
class GkeSession:
    """A GKE cluster while a run lasts.

    Attributes:
        cluster: its three addresses; `gateway_url` is empty until `cluster.connect` has found it.
        facts: what Google says of it.
        google: the credentials, for further questions.
        repository: where images go, None where none was named.
        registry_credentials: for `RegistryOptions.credentials[repository.registry]`; they renew themselves.
    """

    cluster: Cluster
    facts: GkeFacts
    google: GoogleCredentials
    repository: ArtifactRepository | None
    registry_credentials: Credentials


@asynccontextmanager
async def gke_cluster(
    target: GkeTarget,
    repository: str = "",
    *,
    gateway_class: str = "agentgateway",
    options: GoogleOptions | None = None,
) -> AsyncIterator[GkeSession]:
    """Open a GKE cluster for one run.

    A kubeconfig and an access token are written to a folder that only this user can read, renewed for as long as the
    block runs, and deleted after it. No kubeconfig of the user's is read or changed.

    Args:
        target: which cluster.
        repository: `PROJECT/REPOSITORY` of Artifact Registry in the cluster's region; empty asks for none.
        gateway_class: the GatewayClass of the cluster's Gateway.
        options: how Google's services are reached.

    Raises:
        ClusterError: no usable credentials, no such cluster, or Google does not answer.
        RegistryError: the repository cannot take the images.
    """
    google = await application_default(options or GoogleOptions())
    facts = await read_cluster(google, target)
    place = await read_repository(google, target, repository) if repository else None
    with tempfile.TemporaryDirectory(prefix="servepath-gke-") as folder:
        kubeconfig, token_file = Path(folder, "kubeconfig"), Path(folder, "token")
        token = await google.token()
        write_private(token_file, token.value)
        write_private(kubeconfig, json.dumps(_kubeconfig(facts, token_file)))  # JSON is YAML too
        session = GkeSession(
            cluster=Cluster(kubeconfig, place.registry if place else "", "", gateway_class=gateway_class),
            facts=facts,
            google=google,
            repository=place,
            registry_credentials=Credentials(REGISTRY_USER, password_file=token_file),
        )
        failure: Exception | None = None
        has_ended = False
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(keep_fresh, google, token_file, token)
                try:
                    yield session
                except Exception as error:  # noqa: BLE001 - raised below, outside the task group, as itself
                    failure = error
                has_ended = True
                group.cancel_scope.cancel()
        except anyio.get_cancelled_exc_class():
            if not has_ended:  # else it has come to a result, or an error, in spite of the interrupt
                raise
        if failure is not None:
            _point(failure, session)
            raise failure


def lasting(command: str, session: GkeSession) -> str:
    """Give a command that works when the run is over: its kubeconfig is gone then, and gcloud makes another."""
    name = str(session.cluster.kubeconfig)
    if name not in command:
        return command
    target = session.facts.target
    get = f"KUBECONFIG={_LASTING} gcloud container clusters get-credentials {target.name} {target.gcloud}"
    return f"{get} && {command.replace(name, _LASTING)}"


def _point(error: BaseException, session: GkeSession) -> None:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            _point(inner, session)
    elif isinstance(error, ServepathError):
        error.next_command = lasting(error.next_command, session)


def _kubeconfig(facts: GkeFacts, token_file: Path) -> dict[str, Any]:
    name = facts.target.name
    cluster = {"server": facts.server}
    if facts.certificate_authority:
        cluster["certificate-authority-data"] = facts.certificate_authority
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": {"tokenFile": str(token_file)}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
