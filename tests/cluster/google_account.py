"""A local Google in front of a real API server: the tokens that it hands out are a ServiceAccount's."""

from __future__ import annotations

import base64
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from servepath.gke.model import GkeTarget, GoogleOptions
from tests.unit.gke.google_server import CLUSTER, PROJECT, QUOTAS, REGION, REPOSITORY, Google, GoogleServer, federated
from tests.unit.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from ci.node.control_plane import ControlPlane

TARGET = GkeTarget(PROJECT, REGION, "models")
CACHED_S = 10
"""How long the API server still takes a token that it took once (k8s.io/apiserver, authentication.token cache)."""


class Account:
    """A ServiceAccount whose tokens each hang on a Secret: what deletes the Secret takes the token back."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.name = f"google-{uuid.uuid4().hex[:6]}"
        self.subject = f"--serviceaccount=default:{self.name}"

    async def create(self) -> None:
        await self.plane.kubectl("create", "serviceaccount", self.name)

    async def token(self, secret: str) -> str:
        await self.plane.kubectl("create", "secret", "generic", f"{self.name}-{secret}")
        bound = ("--bound-object-kind=Secret", f"--bound-object-name={self.name}-{secret}")
        return (await self.plane.kubectl("create", "token", self.name, *bound)).strip()

    async def take_back(self, secret: str) -> None:
        await self.plane.kubectl("delete", "secret", f"{self.name}-{secret}")

    async def delete(self) -> None:
        await self.plane.kubectl("delete", "serviceaccount", self.name)


def google_of(plane: ControlPlane, registry: str) -> Google:
    """A project whose cluster is this API server, and whose repository is in this registry."""
    ca = base64.b64encode(plane.authority.pair.certificate.read_bytes()).decode()
    cluster = {**CLUSTER, "endpoint": "127.0.0.1:6443", "masterAuth": {"clusterCaCertificate": ca}}
    return Google(
        {
            f"/v1/projects/{PROJECT}/locations/{REGION}/clusters/models": cluster,
            f"/v1/projects/{PROJECT}/locations/{REGION}/repositories/models": {
                **REPOSITORY,
                "registryUri": f"{registry}/{PROJECT}/models",
            },
            f"/compute/v1/projects/{PROJECT}/regions/{REGION}": QUOTAS,
        }
    )


@contextmanager
def asked(google: Google, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleOptions]:
    """Google's libraries pointed at it, with a workflow's credentials."""
    with served(GoogleServer(google)) as server:
        url = f"http://{server.address}"
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(federated(folder, url, impersonates=False)))
        yield GoogleOptions(container=url, artifact_registry=url, compute=url, look_every_s=0.2)
