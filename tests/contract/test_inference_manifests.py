"""What only names tie together: pool, picker, engines, route, listener and policy. The API server checks none of it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.contract.kubernetes_schemas import LOCK, ROOT
from tests.contract.test_manifests import built

Json = dict[str, Any]

INFERENCE = ROOT / "manifests" / "inference" / "overlays"
PLATFORM = ROOT / "manifests" / "platform" / "agentgateway"
MODEL_HEADER = "X-Gateway-Base-Model-Name"


def of_kind(objects: list[Json], kind: str) -> dict[str, Json]:
    return {obj["metadata"]["name"]: obj for obj in objects if obj["kind"] == kind}


def matches(selector: Json, labels: Json) -> bool:
    return selector.items() <= labels.items()


def only(found: list[Json]) -> Json:
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("overlay", ["one", "split"])
def test_each_pool_has_a_picker_of_its_own(overlay: str) -> None:
    objects = built(INFERENCE / overlay)
    services, deployments = of_kind(objects, "Service"), of_kind(objects, "Deployment")
    served = set()
    for name, pool in of_kind(objects, "InferencePool").items():
        reference = pool["spec"]["endpointPickerRef"]
        service = services[reference["name"]]
        assert reference["port"]["number"] in [port["port"] for port in service["spec"]["ports"]]
        picker = only(
            [
                one
                for one in deployments.values()
                if matches(service["spec"]["selector"], one["spec"]["template"]["metadata"]["labels"])
            ]
        )
        pod = picker["spec"]["template"]["spec"]
        assert {"name": "POOL", "value": name} in pod["containers"][0]["env"]
        assert pod["containers"][0]["image"] == LOCK["images"]["endpoint-picker"]["image"]
        assert pod["volumes"][0]["configMap"]["name"] in of_kind(objects, "ConfigMap")
        served.add(picker["metadata"]["name"])
    assert served == set(deployments)


@pytest.mark.parametrize("overlay", ["one", "split"])
def test_a_picker_may_read_what_it_watches(overlay: str) -> None:
    objects = built(INFERENCE / overlay)
    accounts = {
        one["spec"]["template"]["spec"]["serviceAccountName"] for one in of_kind(objects, "Deployment").values()
    }
    bound = {
        subject["name"]: binding["roleRef"]["name"]
        for binding in of_kind(objects, "RoleBinding").values()
        for subject in binding["subjects"]
    }
    assert accounts == set(bound)
    assert set(bound.values()) == set(of_kind(objects, "Role"))


def test_the_split_sends_nine_of_ten_to_the_first_pool() -> None:
    objects = built(INFERENCE / "split")
    rule = only(only(list(of_kind(objects, "HTTPRoute").values()))["spec"]["rules"])
    weights = {reference["name"]: reference["weight"] for reference in rule["backendRefs"]}
    assert weights == {"qwen": 90, "qwen-next": 10}
    assert set(weights) == set(of_kind(objects, "InferencePool"))
    selectors = [pool["spec"]["selector"]["matchLabels"] for pool in of_kind(objects, "InferencePool").values()]
    assert selectors[0] != selectors[1]


@pytest.mark.parametrize("overlay", ["one", "split"])
def test_interactive_goes_before_batch_in_each_pool(overlay: str) -> None:
    objects = built(INFERENCE / overlay)
    priorities: dict[str, dict[str, int]] = {}
    for name, objective in of_kind(objects, "InferenceObjective").items():
        spec = objective["spec"]
        priorities.setdefault(spec["poolRef"]["name"], {})[name.partition("-")[0]] = spec["priority"]
    assert set(priorities) == set(of_kind(objects, "InferencePool"))
    for of_pool in priorities.values():
        assert of_pool["interactive"] > 0 > of_pool["batch"]
    settings = of_kind(objects, "ConfigMap")["qwen-picker"]["data"]["picker.yaml"]
    config = yaml.safe_load(settings)
    # Without the gate a priority decides only what is refused, not what goes first.
    assert "flowControl" in config["featureGates"]
    bands = {band["priority"] for band in config["flowControl"]["priorityBands"]}
    assert bands == set(priorities["qwen"].values())


@pytest.mark.parametrize(("device", "replicas"), [("cpu", 2), ("gpu", 2), ("sim", 3)])
def test_the_pool_finds_the_replicas(device: str, replicas: int) -> None:
    pool = of_kind(built(INFERENCE / "one"), "InferencePool")["qwen"]
    objects = built(INFERENCE / f"replicas-{device}")
    engine = of_kind(objects, "Deployment")["qwen-raw"]
    template = engine["spec"]["template"]
    assert matches(pool["spec"]["selector"]["matchLabels"], template["metadata"]["labels"])
    ports = [port["containerPort"] for port in template["spec"]["containers"][0]["ports"]]
    assert [port["number"] for port in pool["spec"]["targetPorts"]] == ports
    assert engine["spec"]["replicas"] == replicas


def test_the_simulator_serves_the_model_that_is_routed() -> None:
    engine = of_kind(built(INFERENCE / "replicas-sim"), "Deployment")["qwen-raw"]["spec"]["template"]["spec"]
    assert engine["containers"][0]["image"] == LOCK["images"]["llm-d-inference-sim"]["image"]
    (header,) = of_kind(built(INFERENCE / "one"), "HTTPRoute")["qwen"]["spec"]["rules"][0]["matches"][0]["headers"]
    assert f"--model={header['value']}" in engine["containers"][0]["args"]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_each_replica_has_a_volume_of_its_own(device: str) -> None:
    objects = built(INFERENCE / f"replicas-{device}")
    assert of_kind(objects, "PersistentVolumeClaim") == {}
    volumes = {
        one["name"]: one for one in of_kind(objects, "Deployment")["qwen-raw"]["spec"]["template"]["spec"]["volumes"]
    }
    assert set(volumes["hf"]) == {"name", "ephemeral"}


def test_the_route_is_behind_the_listener_that_names_the_model() -> None:
    platform = built(PLATFORM)
    gateway = of_kind(platform, "Gateway")["kserve-ingress-gateway"]
    listeners = {listener["name"]: listener for listener in gateway["spec"]["listeners"]}
    policy = of_kind(platform, "AgentgatewayPolicy")["model-from-body"]
    target = only(policy["spec"]["targetRefs"])
    assert (target["kind"], target["name"]) == ("Gateway", gateway["metadata"]["name"])
    # A policy names objects of its own namespace alone.
    assert policy["metadata"]["namespace"] == gateway["metadata"]["namespace"]
    assert policy["spec"]["traffic"]["phase"] == "PreRouting"
    named = {one["name"] for one in policy["spec"]["traffic"]["transformation"]["request"]["set"]}
    route = of_kind(built(INFERENCE / "one"), "HTTPRoute")["qwen"]
    parent = only(route["spec"]["parentRefs"])
    assert parent["sectionName"] == target["sectionName"]
    assert route["spec"]["hostnames"] == [listeners[target["sectionName"]]["hostname"]]
    for rule in route["spec"]["rules"]:
        for match in rule["matches"]:
            assert [header["name"] for header in match["headers"]] == [MODEL_HEADER]
    assert named == {MODEL_HEADER}


def test_the_data_plane_s_parameters_are_those_that_the_gateway_names() -> None:
    platform = built(PLATFORM)
    gateway = of_kind(platform, "Gateway")["kserve-ingress-gateway"]
    parameters = of_kind(platform, "AgentgatewayParameters")
    reference = gateway["spec"]["infrastructure"]["parametersRef"]
    assert reference["name"] in parameters
    assert parameters[reference["name"]]["metadata"]["namespace"] == gateway["metadata"]["namespace"]


@pytest.mark.parametrize("overlay", ["one", "split"])
def test_engines_let_their_picker_in_and_a_picker_the_gateway(overlay: str) -> None:
    objects = built(INFERENCE / overlay)
    pods = {name: one["spec"]["template"]["metadata"]["labels"] for name, one in of_kind(objects, "Deployment").items()}
    policies = list(of_kind(objects, "NetworkPolicy").values())
    for pool in of_kind(objects, "InferencePool").values():
        engines = pool["spec"]["selector"]["matchLabels"]
        picker = pods[pool["spec"]["endpointPickerRef"]["name"]]
        to_engines = only([one for one in policies if one["spec"]["podSelector"]["matchLabels"] == engines])
        assert matches(only(only(to_engines["spec"]["ingress"])["from"])["podSelector"]["matchLabels"], picker)
        to_picker = only([one for one in policies if matches(one["spec"]["podSelector"]["matchLabels"], picker)])
        source = only(only(to_picker["spec"]["ingress"])["from"])
        # agentgateway labels its pods so: controller/pkg/helm of v1.2.1.
        assert source["podSelector"]["matchLabels"] == {
            "gateway.networking.k8s.io/gateway-name": "kserve-ingress-gateway"
        }
        assert source["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "kserve"}
