"""The whole job on a real API server and a real registry, up to where it is stopped: what it reports and leaves."""

from __future__ import annotations

import json
import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from lightkube.codecs import from_dict
from lightkube.resources.core_v1 import Namespace
from lightkube.types import PatchType

from ci.node.tiny_model import write_tiny_model
from servepath import e2e
from servepath.cluster.client import kubernetes
from servepath.cluster.objects import KINDS, read
from servepath.serving.profiles import CPU_SMALL
from servepath.stages import Stages
from tests.unit.modelcar.helpers import write_base
from tests.unit.report.example_runs import RUN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from lightkube import AsyncClient

    from ci.node.registry import Registry
    from servepath.cluster.model import Cluster
    from servepath.evidence import StageTiming

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

ENGINE = "127.0.0.1:5000/servepath/none@sha256:" + "b" * 64
CLASS = "nobodys-class"
GATEWAY = "kserve-ingress-gateway"
TRUE = {"status": "True", "reason": "Told", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}


class Told:
    """An observer that remembers which stages began."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def started(self, name: str) -> None:
        self.stages.append(name)

    def noted(self, name: str, detail: str) -> None: ...
    def ended(self, timing: StageTiming) -> None: ...


@pytest.fixture
def request_(cluster: Cluster, image_registry: Registry, tmp_path: Path) -> e2e.E2eRequest:
    write_tiny_model(tmp_path / "model")
    return e2e.E2eRequest(
        kubeconfig=cluster.kubeconfig,
        registry=image_registry.address,
        base_image=anyio.run(write_base, tmp_path / "base"),
        engine_image=ENGINE,
        profile=CPU_SMALL,
        report_directory=tmp_path / "report",
        model_directory=tmp_path / "model",
        namespace=f"e2e-{uuid.uuid4().hex[:8]}",
        gateway_class=CLASS,
        gateway_url="http://127.0.0.1:1",
    )


@asynccontextmanager
async def nobodys_gateway(cluster: Cluster, *, is_programmed: bool) -> AsyncIterator[AsyncClient]:
    """A client, and a Gateway whose controller is this test."""
    api = {"apiVersion": "gateway.networking.k8s.io/v1"}
    gateway_class = {
        **api,
        "kind": "GatewayClass",
        "metadata": {"name": CLASS},
        "spec": {"controllerName": "servepath.dev/none"},
    }
    listener = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
    gateway = {
        **api,
        "kind": "Gateway",
        "metadata": {"name": GATEWAY, "namespace": "kserve"},
        "spec": {"gatewayClassName": CLASS, "listeners": [listener]},
    }
    async with kubernetes(cluster) as client:
        await client.create(from_dict(gateway_class))
        await client.create(from_dict(gateway))
        try:
            if is_programmed:
                told = {"conditions": [{"type": "Accepted", **TRUE}]}
                await patch_status(client, "GatewayClass", CLASS, None, told)
                told = {
                    "conditions": [{"type": kind, **TRUE} for kind in ("Accepted", "Programmed")],
                    "addresses": [{"type": "IPAddress", "value": "127.0.0.1"}],
                }
                await patch_status(client, "Gateway", GATEWAY, "kserve", told)
            yield client
        finally:
            with anyio.CancelScope(shield=True):
                await client.delete(KINDS["Gateway"], GATEWAY, namespace="kserve")
                await client.delete(KINDS["GatewayClass"], CLASS)


async def patch_status(
    client: AsyncClient, kind: str, name: str, namespace: str | None, status: dict[str, Any]
) -> None:
    resource: Any = KINDS[kind].Status
    where: dict[str, Any] = {"namespace": namespace} if namespace else {}
    await client.patch(resource, name, {"status": status}, patch_type=PatchType.MERGE, **where)


def document_of(request: e2e.E2eRequest) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((request.report_directory / "report.json").read_text())
    return document


async def test_a_platform_that_is_not_ready_is_exit_code_6_and_nothing_is_deployed(
    cluster: Cluster, request_: e2e.E2eRequest
) -> None:
    async with nobodys_gateway(cluster, is_programmed=False) as client:
        report = await e2e.run(request_, RUN, Stages(Told(), 0.0))
        assert await read(client, "Namespace", request_.namespace) is None
    assert e2e.exit_code_of(report) == 6
    document = document_of(request_)
    assert document["error"]["exit_code"] == 6
    assert "gateway_class_is_accepted" in document["error"]["what"]
    assert CLASS in document["error"]["next_command"]
    verdicts = {check["name"]: check["verdict"] for check in document["checks"]}
    assert verdicts["kserve_is_served"] == "pass"
    assert verdicts["gateway_is_programmed"] == "fail"


async def test_a_run_that_is_interrupted_while_it_deploys_deletes_what_it_deployed(
    cluster: Cluster, request_: e2e.E2eRequest
) -> None:
    told = Told()
    mine = [("Deployment", "model-raw"), ("InferenceService", "model-kserve"), ("Secret", "model-raw")]
    async with nobodys_gateway(cluster, is_programmed=True) as client:
        async with anyio.create_task_group() as group:

            async def interrupt() -> None:
                with anyio.fail_after(60):
                    for kind, name in mine:
                        while await read(client, kind, name, request_.namespace) is None:  # noqa: ASYNC110
                            await anyio.sleep(0.1)
                group.cancel_scope.cancel()

            group.start_soon(interrupt)
            await e2e.run(request_, RUN, Stages(told, 0.0))
        assert group.cancel_scope.cancelled_caught
        for kind, name in mine:
            assert await read(client, kind, name, request_.namespace) is None, kind
        await client.delete(Namespace, request_.namespace)
    assert {"deploy raw", "deploy kserve"} <= set(told.stages)
    document = document_of(request_)
    assert document["error"]["exit_code"] == 130
    assert document["cluster"]["gateway_class"] == CLASS
    stages = {stage["name"]: stage["verdict"] for stage in document["stages"]}
    assert stages["platform"] == stages["delete"] == "pass"
    objects = request_.report_directory / e2e.DIAGNOSTICS / "objects" / request_.namespace
    assert "model-raw" in (objects / "deployments.yaml").read_text()
