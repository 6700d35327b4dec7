"""`servepath.platform` on a real API server with KServe, and the platform's values on KServe's real chart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import yaml

from ci.node import kserve, programs
from ci.node.kubernetes import HELM
from servepath.evidence import Verdict
from servepath.platform import checking

if TYPE_CHECKING:
    from ci.node.control_plane import ControlPlane
    from ci.node.layout import Layout
    from servepath.cluster.model import Cluster
    from servepath.evidence import CheckResult

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"
VALUES = MANIFESTS / "platform" / "kserve" / "values.yaml"
VALIDATOR = "validatingwebhookconfiguration/inferenceservice.serving.kserve.io"


async def results(cluster: Cluster) -> dict[str, CheckResult]:
    return {result.name: result for result in await checking.check(cluster)}


async def test_kserve_passes(cluster: Cluster) -> None:
    found = await results(cluster)
    passed = {name for name, result in found.items() if result.verdict is Verdict.PASS}
    assert passed >= {
        "gateway_api_is_served",
        "kserve_is_served",
        "kserve_mode_is_standard",
        "kserve_routes_with_the_gateway_api",
        "kserve_runs_modelcars",
        "kserve_webhooks_answer",
    }
    assert "v1.5.1" in found["gateway_api_is_served"].seen


async def test_a_missing_gateway_is_named(cluster: Cluster) -> None:
    found = await results(replace(cluster, gateway_class="absent", gateway_name="absent"))
    failed = [name for name, result in found.items() if result.verdict is Verdict.FAIL]
    assert failed == ["kserve_routes_with_the_gateway_api", "gateway_class_is_accepted", "gateway_is_programmed"]
    assert found["gateway_class_is_accepted"].seen == "no such GatewayClass"
    assert found["gateway_is_programmed"].seen == "no such Gateway"
    assert "describe gateway absent" in found["gateway_is_programmed"].next_command


async def test_other_settings_fail_their_checks(plane: ControlPlane, cluster: Cluster) -> None:
    where = ("--namespace=kserve", "configmap/inferenceservice-config")
    before = json.loads(await plane.kubectl("get", *where, "--output=json"))["data"]
    data = {
        "deploy": json.dumps({"defaultDeploymentMode": "Knative"}),
        "ingress": json.dumps({"enableGatewayApi": False}),
        "storageInitializer": json.dumps({"enableModelcar": False}),
    }
    await plane.kubectl("patch", *where, "--type=merge", f"--patch={json.dumps({'data': data})}")
    try:
        found = await results(cluster)
    finally:
        await plane.kubectl("patch", *where, "--type=merge", f"--patch={json.dumps({'data': before})}")
    failed = {name for name, result in found.items() if result.verdict is Verdict.FAIL}
    assert failed >= {"kserve_mode_is_standard", "kserve_routes_with_the_gateway_api", "kserve_runs_modelcars"}
    assert found["kserve_mode_is_standard"].seen == "defaultDeploymentMode: Knative"


async def test_a_missing_webhook_is_seen(plane: ControlPlane, cluster: Cluster) -> None:
    before = json.loads(await plane.kubectl("get", VALIDATOR, "--output=json"))
    await plane.kubectl("delete", VALIDATOR)
    try:
        with anyio.fail_after(30):
            while (result := (await results(cluster))["kserve_webhooks_answer"]).verdict is Verdict.PASS:
                pass  # the API server lets go of a webhook a moment after it is deleted
    finally:
        metadata = {"name": before["metadata"]["name"]}
        await plane.kubectl.apply([{**before, "metadata": metadata}])
        with anyio.fail_after(30):
            while (await results(cluster))["kserve_webhooks_answer"].verdict is Verdict.FAIL:
                pass
    assert "no webhook is configured" in result.seen


async def test_a_webhook_that_nobody_answers_is_seen(plane: ControlPlane, cluster: Cluster) -> None:
    before = json.loads(await plane.kubectl("get", VALIDATOR, "--output=json"))
    url = before["webhooks"][0]["clientConfig"]["url"]
    patch = [{"op": "replace", "path": "/webhooks/0/clientConfig/url", "value": url.replace("9443", "9")}]
    back = [{**patch[0], "value": url}]
    await plane.kubectl("patch", VALIDATOR, "--type=json", f"--patch={json.dumps(patch)}")
    try:
        with anyio.fail_after(30):
            while (result := (await results(cluster))["kserve_webhooks_answer"]).verdict is Verdict.PASS:
                pass
    finally:
        await plane.kubectl("patch", VALIDATOR, "--type=json", f"--patch={json.dumps(back)}")
        with anyio.fail_after(30):
            while (await results(cluster))["kserve_webhooks_answer"].verdict is Verdict.FAIL:
                pass
    assert "failed calling webhook" in result.seen


def keys_of(values: dict[str, Any], prefix: str = "") -> list[str]:
    return [
        found
        for key, value in values.items()
        for found in (keys_of(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"])
    ]


async def test_our_values_are_values_of_kserves_chart(layout: Layout) -> None:
    chart = await kserve.keep_chart(layout.cache)
    known = keys_of(yaml.safe_load((chart / "values.yaml").read_text()))
    assert [key for key in keys_of(yaml.safe_load(VALUES.read_text())) if key not in known] == []
    assert "kserve.gateway.disableIstioVirtualHost" not in known


@pytest.fixture
def helm(layout: Layout) -> str:
    return str(programs.target(HELM, layout.cache) / HELM.name)


async def test_the_node_has_the_settings_that_the_chart_makes_of_our_values(layout: Layout, helm: str) -> None:
    chart = await kserve.keep_chart(layout.cache)
    command = [helm, "template", "kserve-resources", str(chart), f"--values={VALUES}", "--namespace=kserve"]
    rendered = list(yaml.safe_load_all((await anyio.run_process(command)).stdout))
    name = "inferenceservice-config"
    (config,) = (obj for obj in rendered if obj and obj["kind"] == "ConfigMap" and obj["metadata"]["name"] == name)
    files = await kserve.prepare(layout.cache)
    ours = kserve.configured(json.loads(files.objects.read_text()), kserve.read_settings(VALUES))
    for key in ("deploy", "storageInitializer"):
        assert json.loads(ours["data"][key]) == json.loads(config["data"][key]), key
    chart_ingress, our_ingress = json.loads(config["data"]["ingress"]), json.loads(ours["data"]["ingress"])
    assert {key: chart_ingress[key] for key in our_ingress} == our_ingress
