from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servepath.gke.model import GkeTarget, GoogleOptions
from servepath.modelcar.registry.retry import RetryPolicy
from tests.unit.gke.google_server import (
    CLUSTER,
    PROJECT,
    QUOTAS,
    REGION,
    REPOSITORY,
    Google,
    GoogleServer,
    federated,
)
from tests.unit.served import served

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = RetryPolicy(attempts=3, base_s=0.001)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def target() -> GkeTarget:
    return GkeTarget(PROJECT, REGION, "models")


@pytest.fixture
def google() -> Google:
    """A project with a cluster, a repository and quotas."""
    return Google(
        {
            f"/v1/projects/{PROJECT}/locations/{REGION}/clusters/models": dict(CLUSTER),
            f"/v1/projects/{PROJECT}/locations/{REGION}/repositories/models": dict(REPOSITORY),
            f"/compute/v1/projects/{PROJECT}/regions/{REGION}": QUOTAS,
        }
    )


@pytest.fixture
def base_url(google: Google, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server's address; a workflow's credentials are in place, and nothing else of this machine is looked at."""
    with served(GoogleServer(google)) as server:
        url = f"http://{server.address}"
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(federated(tmp_path, url)))
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("CLOUDSDK_CONFIG", raising=False)
        yield url


@pytest.fixture
def options(base_url: str) -> GoogleOptions:
    return GoogleOptions(container=base_url, artifact_registry=base_url, compute=base_url, retry=QUICK)
