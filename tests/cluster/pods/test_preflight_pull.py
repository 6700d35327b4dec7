"""A real kubelet asks a registry that answers, one that refuses, and an address where there is none."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from lightkube.resources.core_v1 import Node

from servepath.cluster.client import kubernetes
from servepath.evidence import Verdict
from servepath.promotion.preflight.probe import probe_registry
from tests.unit.gke.google_server import Google, GoogleServer
from tests.unit.served import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lightkube import AsyncClient

    from ci.node.control_plane import ControlPlane
    from servepath.cluster.model import Cluster
    from servepath.evidence import CheckResult

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]


@pytest.fixture
async def namespace(plane: ControlPlane) -> AsyncIterator[str]:
    name = f"pull-{uuid.uuid4().hex[:8]}"
    await plane.kubectl("create", "namespace", name)
    await plane.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    await plane.kubectl("delete", "namespace", name, "--wait=false")


async def asked(client: AsyncClient, namespace: str, repository: str) -> CheckResult:
    nodes = [str(node.metadata.name) async for node in client.list(Node) if node.metadata is not None]
    return await probe_registry(client, namespace, repository, "kubectl", nodes=nodes)


async def test_a_registry_that_the_node_reaches(plane: ControlPlane, serving_cluster: Cluster, namespace: str) -> None:
    async with kubernetes(serving_cluster) as client:
        result = await asked(client, namespace, f"{serving_cluster.registry}/servepath/none")
    assert result.verdict is Verdict.PASS, result.seen
    assert await plane.kubectl("-n", namespace, "get", "pods", "-o", "name") == ""


async def test_a_registry_that_does_not_let_the_node_in(serving_cluster: Cluster, namespace: str) -> None:
    with served(GoogleServer(Google())) as server:
        async with kubernetes(serving_cluster) as client:
            result = await asked(client, namespace, f"{server.address}/servepath/none")
    assert result.verdict is Verdict.FAIL, result.seen
    assert "does not let node" in result.seen


async def test_no_registry_at_all(serving_cluster: Cluster, namespace: str) -> None:
    async with kubernetes(serving_cluster) as client:
        result = await asked(client, namespace, "127.0.0.1:1/servepath/none")
    assert result.verdict is Verdict.FAIL, result.seen
    assert "does not reach it" in result.seen
