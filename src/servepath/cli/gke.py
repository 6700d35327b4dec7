"""The options that name a GKE cluster, as one value."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from servepath.errors import UsageError
from servepath.gke.connect import gke_cluster
from servepath.gke.model import GkeTarget, GoogleOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from servepath.gke.connect import GkeSession

GkeCluster: TypeAlias = Annotated[
    str,
    typer.Option("--gke", metavar="PROJECT/LOCATION/CLUSTER", help="A GKE cluster, instead of a kubeconfig."),
]
ArtifactRegistry: TypeAlias = Annotated[
    str,
    typer.Option(
        "--artifact-registry",
        metavar="PROJECT/REPOSITORY",
        help="Docker repository of Artifact Registry in the region of the GKE cluster.",
    ),
]
GkeEndpoint: TypeAlias = Annotated[
    str, typer.Option("--gke-endpoint", metavar="ip|dns", help="How its API server is reached; its address when empty.")
]
AllowKeyFile: TypeAlias = Annotated[
    bool, typer.Option("--allow-key-file", help="Accept the key file of a service account as Google credentials.")
]
_PARTS = 3


@dataclass(frozen=True, slots=True)
class GkeConnection:
    """Which GKE cluster is meant, and how Google is asked for it."""

    name: str
    repository: str = ""
    gateway_class: str = "agentgateway"
    endpoint: str = ""
    allow_key_file: bool = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[GkeSession]:
        """Open it for one run.

        Raises:
            UsageError: the name cannot be one.
            ClusterError: no usable credentials, no such cluster, or Google does not answer.
            RegistryError: the repository cannot take images.
        """
        options = GoogleOptions(allow_key_file=self.allow_key_file, endpoint=self.endpoint)
        async with gke_cluster(
            target_of(self.name), self.repository, gateway_class=self.gateway_class, options=options
        ) as session:
            yield session


def target_of(text: str) -> GkeTarget:
    """Read `PROJECT/LOCATION/CLUSTER`.

    Raises:
        UsageError: not of that form.
    """
    parts = text.split("/")
    if len(parts) != _PARTS:
        raise UsageError(
            f"{text!r} names no GKE cluster",
            where="--gke",
            expected="PROJECT/LOCATION/CLUSTER, such as acme-models/europe-west4/models",
            next_command="gcloud container clusters list",
        )
    return GkeTarget(*parts)
