"""The manifests work without servepath: `kubectl apply -k` of every overlay, on a real API server with KServe."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from servepath.errors import ClusterError
from servepath.manifests import manifests_directory

if TYPE_CHECKING:
    from pathlib import Path

    from ci.node.control_plane import ControlPlane
    from servepath.cluster.model import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

OVERLAYS = [(path, overlay) for path in ("raw", "kserve") for overlay in ("cpu", "cpu-small", "gpu")]


@pytest.mark.parametrize(("path", "overlay"), OVERLAYS)
async def test_kubectl_applies_every_overlay_as_it_is(
    plane: ControlPlane,
    cluster: Cluster,  # noqa: ARG001 - KServe's kinds and webhooks must be there
    path: str,
    overlay: str,
) -> None:
    directory = str(manifests_directory() / path / "overlays" / overlay)
    applied = await plane.kubectl("apply", "-k", directory)
    assert ("deployment.apps/" if path == "raw" else "inferenceservice.serving.kserve.io/") in applied
    assert "unchanged" in await plane.kubectl("apply", "-k", directory)
    await plane.kubectl("delete", "-k", directory, "--wait=true", "--timeout=60s")


async def test_an_overlay_that_the_api_server_refuses_is_seen(
    plane: ControlPlane,
    cluster: Cluster,  # noqa: ARG001 - KServe's kinds and webhooks must be there
    tmp_path: Path,
) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [deployment.yaml]\n")
    (tmp_path / "deployment.yaml").write_text("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {}\n")
    with pytest.raises(ClusterError, match="invalid"):
        await plane.kubectl("apply", "-k", str(tmp_path))
