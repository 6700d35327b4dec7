"""Two models behind one gateway, kept apart: by hostname, by key, and by NetworkPolicies that kube-router enforces."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
import httpx
import pytest
from lightkube.resources.networking_v1 import NetworkPolicy

from ci.node import images, worker
from servepath.checks.context import CheckContext, Tools
from servepath.checks.kubernetes import read_pod
from servepath.checks.network_checks import network_policy_is_enforced, network_policy_isolates_the_engine
from servepath.evidence import Verdict
from servepath.serving.completion import first_token_body
from servepath.serving.deploy import deploy_kserve, deploy_raw
from servepath.serving.model import ServingSpec, request_headers
from tests.cluster.enforcing import kube_router
from tests.cluster.session import session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from lightkube import AsyncClient

    from ci.node.control_plane import ControlPlane
    from ci.node.layout import Layout
    from ci.node.registry import Registry
    from servepath.cluster.model import Cluster
    from servepath.serving.model import Endpoint
    from tests.cluster.pods.conftest import Standin

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

KEYS = ("key-of-the-first", "key-of-the-second")
OPEN_PATHS = ("/metrics", "/version", "/docs", "/ping", "/")
ELSEWHERE = "elsewhere"
ENFORCED_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Models:
    """Two models that are served, the first raw and the second by KServe, and a client of their cluster."""

    first: Endpoint
    second: Endpoint
    spec: ServingSpec
    client: AsyncClient


@asynccontextmanager
async def two_models(cluster: Cluster, standin: Standin, namespace: str) -> AsyncIterator[Models]:
    first = ServingSpec(namespace, "first", "first", standin.modelcars[0], standin.engine, standin.profile)
    second = replace(first, name="second", served_model_name="second", modelcar_reference=standin.modelcars[1])
    found: dict[str, Endpoint] = {}

    async def raw() -> None:
        found["first"] = await deploy_raw(cluster, first, KEYS[0])

    async def kserve() -> None:
        found["second"] = await deploy_kserve(cluster, second, KEYS[1])

    async with session(cluster, second), session(cluster, first) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(raw)
            group.start_soon(kserve)
        yield Models(found["first"], found["second"], second, client)


async def chat(http: httpx.AsyncClient, host: str, key: str, model: str) -> int:
    headers, body = request_headers(host, key), first_token_body(model)
    return (await http.post("/v1/chat/completions", headers=headers, json=body)).status_code


async def test_two_models_share_a_gateway_and_nothing_else(serving_cluster: Cluster, standin: Standin) -> None:
    async with (
        two_models(serving_cluster, standin, "two-models") as models,
        httpx.AsyncClient(base_url=serving_cluster.gateway_url, trust_env=False) as http,
    ):
        for own, other in ((models.first, models.second), (models.second, models.first)):
            assert await chat(http, own.host, own.api_key, own.model) == HTTPStatus.OK
            assert await chat(http, own.host, other.api_key, own.model) == HTTPStatus.UNAUTHORIZED
            assert await chat(http, own.host, "", own.model) == HTTPStatus.UNAUTHORIZED
            # The hostname alone chooses the engine: it does not know the other's model.
            assert await chat(http, own.host, own.api_key, other.model) == HTTPStatus.NOT_FOUND
        # KServe gives its engine a second hostname.
        predictor = models.second.host.replace("second-kserve-", "second-kserve-predictor-")
        assert await chat(http, predictor, models.second.api_key, "second") == HTTPStatus.OK
        for host in (models.first.host, models.second.host, predictor):
            for path in OPEN_PATHS:
                answer = await http.get(path, headers={"Host": host})
                assert (host, path, answer.status_code) == (host, path, HTTPStatus.NOT_FOUND)
            assert (await http.get("/health", headers={"Host": host})).status_code == HTTPStatus.OK


@asynccontextmanager
async def somebody(plane: ControlPlane, image_registry: Registry) -> AsyncIterator[None]:
    """A pod of somebody else's, in a namespace of theirs."""
    image = await images.push(images.busybox(), image_registry.address, "servepath/busybox")
    container = {"name": "sh", "image": image, "command": ["sleep", "infinity"]}
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}
    await plane.kubectl.apply(
        [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ELSEWHERE}},
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "them", "namespace": ELSEWHERE}, "spec": pod},
        ]
    )
    try:
        await plane.kubectl("wait", f"-n={ELSEWHERE}", "--for=condition=Ready", "--timeout=60s", "pod/them")
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await plane.kubectl("delete", "namespace", ELSEWHERE)


async def connects(plane: ControlPlane, pod: tuple[str, str, str], address: str, port: int) -> bool:
    """Whether a connection is made from a container of a pod: (namespace, pod, container)."""
    namespace, name, container = pod
    script = f"nc -w 3 {address} {port} < /dev/null > /dev/null 2>&1 && echo open || echo closed"
    said = await plane.kubectl("exec", f"-n={namespace}", name, f"-c={container}", "--", "sh", "-c", script)
    return said.strip() == "open"


async def probes(plane: ControlPlane, pods: list[str]) -> dict[str, int]:
    """How often the kubelet has probed these pods, by result."""
    metrics = await plane.kubectl("get", "--raw", f"/api/v1/nodes/{worker.NODE_NAME}/proxy/metrics/probes")
    counted: Counter[str] = Counter()
    for line in metrics.splitlines():
        if line.startswith("prober_probe_total{") and any(f'pod="{pod}"' in line for pod in pods):
            counted[line.partition('result="')[2].partition('"')[0]] += int(float(line.rpartition(" ")[2]))
    return counted


async def test_an_enforcer_keeps_everybody_but_the_gateway_out_and_the_engines_in(
    serving_cluster: Cluster, standin: Standin, layout: Layout, plane: ControlPlane, image_registry: Registry
) -> None:
    them = (ELSEWHERE, "them", "sh")
    async with (
        two_models(serving_cluster, standin, "isolated") as models,
        somebody(plane, image_registry),
        httpx.AsyncClient(base_url=serving_cluster.gateway_url, trust_env=False) as http,
    ):
        context = CheckContext(serving_cluster, models.spec, models.second.modelcar_digest, kserve=models.second)
        tools = Tools(context, models.client, http)
        engines = [await read_pod(tools, endpoint) for endpoint in (models.first, models.second)]
        addresses = [pod["status"]["podIP"] for pod in engines]
        inside = ("isolated", engines[1]["metadata"]["name"], "modelcar")
        service = (await plane.kubectl("get", "service", "kubernetes", "-o=jsonpath={.spec.clusterIP}")).strip()
        assert (await network_policy_isolates_the_engine(tools, models.first)).verdict is Verdict.PASS

        # Nobody enforces anything: the policies are there, and everything passes.
        assert [await connects(plane, them, address, 8080) for address in addresses] == [True, True]
        assert await connects(plane, inside, addresses[0], 8080)
        found = await network_policy_is_enforced(tools, models.second)
        assert (found.verdict, "nothing in this cluster enforces" in found.seen) == (Verdict.SKIP, True)

        async with kube_router(layout, plane):
            with anyio.fail_after(ENFORCED_WITHIN_S):
                while any([await connects(plane, them, address, 8080) for address in addresses]):
                    pass
            assert await connects(plane, them, service, 443), "their own connections are nobody's to stop"
            assert not await connects(plane, inside, addresses[0], 8080), "one engine reaches the other"
            assert not await connects(plane, inside, service, 443), "an engine reaches the API server"
            assert await connects(plane, inside, "127.0.0.1", 8080)
            found = await network_policy_is_enforced(tools, models.second)
            assert found.verdict is Verdict.PASS, found.seen
            for endpoint in (models.first, models.second):
                assert await chat(http, endpoint.host, endpoint.api_key, endpoint.model) == HTTPStatus.OK

            # No policy stops the kubelet's probes.
            names = [pod["metadata"]["name"] for pod in engines]
            before = await probes(plane, names)
            with anyio.fail_after(ENFORCED_WITHIN_S):
                while (now := await probes(plane, names))["successful"] < before["successful"] + 6:
                    pass
            assert now.get("failed", 0) == before.get("failed", 0)

            # It was this policy that kept them out.
            await models.client.delete(NetworkPolicy, "first-raw", namespace="isolated")
            with anyio.fail_after(ENFORCED_WITHIN_S):
                while not await connects(plane, them, addresses[0], 8080):
                    pass
            assert not await connects(plane, them, addresses[1], 8080)
