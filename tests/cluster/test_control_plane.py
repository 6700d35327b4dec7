from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from servepath.errors import ClusterError

if TYPE_CHECKING:
    from ci.node.control_plane import ControlPlane
    from ci.node.registry import Registry

pytestmark = [pytest.mark.anyio, pytest.mark.cluster]


async def test_the_api_server_is_of_the_pinned_version(plane: ControlPlane) -> None:
    assert '"gitVersion": "v1.34.4"' in await plane.kubectl("get", "--raw", "/version")


async def test_controllers_act_on_what_is_applied(plane: ControlPlane) -> None:
    await plane.kubectl.apply(
        [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "made-by-test"}}],
    )
    wait = ("wait", "--namespace=made-by-test", "--timeout=30s", "--for=create")
    await plane.kubectl(*wait, "serviceaccount/default")
    await plane.kubectl(*wait, "configmap/kube-root-ca.crt")


async def test_a_refusal_of_the_api_server_is_a_cluster_error(plane: ControlPlane) -> None:
    with pytest.raises(ClusterError, match=r"metadata\.name: Invalid value"):
        await plane.kubectl.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "No Name"}}])


async def test_there_is_no_way_out(image_registry: Registry) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"http://{image_registry.address}/v2/")).status_code == httpx.codes.OK
        with pytest.raises(httpx.ConnectError):
            await client.get("http://192.0.2.1/")
