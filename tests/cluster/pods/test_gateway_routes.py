"""The Gateway API data plane, end to end: pods, Envoy in front of them, and an InferenceService with a modelcar."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest

from ci.node import images
from servepath.cluster.model import Cluster
from servepath.evidence import Verdict
from servepath.platform import checking

if TYPE_CHECKING:
    from ci.node.control_plane import ControlPlane
    from ci.node.envoy_gateway import Gateway
    from ci.node.kserve import KServe
    from ci.node.registry import Registry

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

NAMESPACE = "routes"
# Two events, a second apart: a gateway that buffers gives both at the end.
STREAM = """#!/bin/sh
printf 'Content-Type: text/event-stream\\r\\n\\r\\n'
printf 'data: first\\n\\n'
sleep 1
printf 'data: second\\n\\n'
"""
# The modelcar's link appears a moment after the engine has started, as for a real one.
SCRIPT = """
until test -e /mnt/models/config.json; do sleep 0.1; done
mkdir /scratch/www
ln -s /mnt/models /scratch/www/model
cp -r /site/cgi-bin /scratch/www/
exec busybox httpd -f -p 8000 -h /scratch/www
"""


@pytest.fixture(scope="module")
def served(plane: ControlPlane, gateway: Gateway, image_registry: Registry) -> str:
    """An InferenceService `web` that is Ready; gives the Gateway's URL."""

    async def serve() -> str:
        base = await images.push(images.busybox(), image_registry.address, "servepath/busybox")
        model = images.build({"models/config.json": b"{}", "bin/busybox": _busybox(), **_links()}, command=("sh",))
        modelcar = await images.push(model, image_registry.address, "servepath/test-model")
        await plane.kubectl.apply(objects(base, f"oci://{modelcar}"))
        await plane.kubectl("wait", f"--namespace={NAMESPACE}", "--for=condition=Ready", "--timeout=120s", "isvc/web")
        return gateway.url

    return anyio.run(serve)


def _busybox() -> bytes:
    with open("/bin/busybox", "rb") as file:  # noqa: PTH123 - one line
        return file.read()


def _links() -> dict[str, bytes | images.Link]:
    return {f"bin/{applet}": images.Link("busybox") for applet in ("sh", "ln", "sleep", "ls", "test")}


def objects(engine: str, model: str) -> list[dict[str, Any]]:
    container = {
        "name": "kserve-container",
        "image": engine,
        "command": ["sh", "-ec", SCRIPT],
        "env": [{"name": "STORAGE_URI", "value": model}],
        "ports": [{"containerPort": 8000, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}},
        "volumeMounts": [{"name": "site", "mountPath": "/site/cgi-bin"}, {"name": "scratch", "mountPath": "/scratch"}],
    }
    site = {"name": "site", "configMap": {"name": "site", "defaultMode": 0o755}}
    predictor = {
        "timeout": 123,
        "minReplicas": 1,
        "maxReplicas": 1,
        "containers": [container],
        "volumes": [site, {"name": "scratch", "emptyDir": {}}],
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "site", "namespace": NAMESPACE},
            "data": {"stream": STREAM},
        },
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "web", "namespace": NAMESPACE},
            "spec": {"predictor": predictor},
        },
    ]


def host(name: str, domain: str) -> dict[str, str]:
    return {"Host": f"{name}-{NAMESPACE}.{domain}"}


async def test_the_platform_is_what_both_paths_need(plane: ControlPlane, gateway: Gateway) -> None:
    cluster = Cluster(plane.kubeconfig, "127.0.0.1:5000", gateway.url, gateway_class=gateway.gateway_class)
    results = await checking.check(cluster)
    assert [(result.name, result.seen) for result in results if result.verdict is not Verdict.PASS] == []


async def test_a_request_reaches_the_model_by_its_host(served: str, kserve_running: KServe) -> None:
    async with httpx.AsyncClient(base_url=served, trust_env=False) as client:
        answer = await client.get("/model/config.json", headers=host("web", kserve_running.domain))
    assert (answer.status_code, answer.text) == (200, "{}")


async def test_another_host_is_not_found(served: str, kserve_running: KServe) -> None:
    async with httpx.AsyncClient(base_url=served, trust_env=False) as client:
        for headers in (host("other", kserve_running.domain), host("web", "example.com"), {}):
            assert (await client.get("/model/config.json", headers=headers)).status_code == 404


async def test_events_are_not_held_back(served: str, kserve_running: KServe) -> None:
    start = time.monotonic()
    async with (
        httpx.AsyncClient(base_url=served, trust_env=False) as client,
        client.stream("GET", "/cgi-bin/stream", headers=host("web", kserve_running.domain)) as answer,
    ):
        assert answer.status_code == 200
        arrivals = [(time.monotonic() - start, line) async for line in answer.aiter_lines() if line]
    assert [line for _, line in arrivals] == ["data: first", "data: second"]
    first, second = (seconds for seconds, _ in arrivals)
    assert second - first > 0.8


async def test_the_routes_timeout_is_the_predictors(served: str, plane: ControlPlane) -> None:
    assert served
    routes = await plane.kubectl("get", f"--namespace={NAMESPACE}", "httproutes", "--output=json")
    timeouts = {
        route["metadata"]["name"]: {rule.get("timeouts", {}).get("request") for rule in route["spec"]["rules"]}
        for route in json.loads(routes)["items"]
    }
    assert timeouts == {"web": {"123s"}, "web-predictor": {"123s"}}
