"""What is applied for the llm-d path, what it is refused for, and how many GPUs it must find free."""

from dataclasses import replace
from functools import cache
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from servepath.errors import UsageError
from servepath.serving.causes import cause_in_llminferenceservice
from servepath.serving.llmd import KIND, container_of, pods_of, render_llmd, url_path
from servepath.serving.llmd_deploy import expect_llmd
from servepath.serving.llmd_preflight import Room, new_engines, rooms
from servepath.serving.model import AutoscalerClass, Autoscaling, Profile, ServingSpec
from servepath.serving.profiles import CPU, CPU_SMALL, GPU
from servepath.serving.refusals import refuse_unsupported
from tests.unit.serving.conftest import ENGINE_DIGEST, MODEL_DIGEST, make_spec


@cache
def built(profile: Profile, gateway_class: str = "agentgateway") -> dict[str, dict[str, Any]]:
    return {obj["kind"]: obj for obj in anyio.run(render_llmd, make_spec(profile), gateway_class)}


def test_it_lives_in_a_namespace_and_behind_a_gateway_of_its_own() -> None:
    objects = built(CPU, "another")
    assert set(objects) == {"Namespace", "Gateway", "NetworkPolicy", KIND}
    assert objects["Namespace"]["metadata"]["name"] == "demo-llm-d"
    for kind in ("Gateway", "NetworkPolicy", KIND):
        metadata = objects[kind]["metadata"]
        assert (metadata["name"], metadata["namespace"]) == ("smol-llm-d", "demo-llm-d")
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "servepath"
    gateway = objects["Gateway"]["spec"]
    assert gateway["gatewayClassName"] == "another"
    assert gateway["listeners"][0]["allowedRoutes"] == {"namespaces": {"from": "Same"}}
    assert objects[KIND]["spec"]["router"]["gateway"]["refs"] == [{"namespace": "demo-llm-d", "name": "smol-llm-d"}]
    assert url_path(make_spec()) == "/demo-llm-d/smol-llm-d"


def test_it_takes_the_modelcar_by_its_digest_and_the_same_engine() -> None:
    service = built(CPU)[KIND]["spec"]
    assert service["model"]["uri"] == f"oci://127.0.0.1:5000/servepath/smol@{MODEL_DIGEST}"
    container = container_of(built(CPU)[KIND])
    assert container["image"] == f"127.0.0.1:5000/servepath/engine@{ENGINE_DIGEST}"
    assert "--max-model-len=4096" in container["args"]
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "10Gi"}
    secret = next(one for one in container["env"] if one["name"] == "VLLM_API_KEY")["valueFrom"]["secretKeyRef"]
    assert secret == {"name": "smol-llm-d", "key": "VLLM_API_KEY"}


def test_two_engines_of_one_gpu_each() -> None:
    service = built(GPU)[KIND]
    assert service["spec"]["replicas"] == 2
    assert container_of(service)["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_only_its_own_engines_are_closed_to_all_but_their_namespace() -> None:
    policy = built(CPU)["NetworkPolicy"]["spec"]
    selected = {one["key"]: one["values"][0] for one in policy["podSelector"]["matchExpressions"]}
    assert selected.items() <= pods_of("smol").items()
    assert policy["ingress"][0]["from"] == [{"podSelector": {}}]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        (make_spec(CPU, {"name": "n" * 33}), "too long"),
        (make_spec(CPU, {"namespace": "n" * 58, "name": "a"}), "too long|DNS label"),
        (make_spec(CPU, {"modelcar_reference": "host/model:latest"}), "not pinned"),
        (make_spec(replace(CPU, autoscaling=Autoscaling(AutoscalerClass.KEDA, 1, 2))), "not autoscaled"),
        (make_spec(CPU_SMALL), "no overlay is named 'cpu-small'"),
    ],
)
def test_what_cannot_be_is_refused(spec: ServingSpec, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        anyio.run(render_llmd, spec, "agentgateway")


def test_what_is_awaited_has_the_arguments_that_the_controller_fills_in() -> None:
    spec = make_spec(CPU)
    service = {**built(CPU)[KIND]}
    service["spec"] = {**service["spec"], "annotations": {"servepath.dev/secret-version": "7"}}
    expected = expect_llmd(spec, (service,))
    assert "{{" not in " ".join(expected.container["args"])
    assert "publishers/demo-llm-d/models/smollm2-135m-instruct" in expected.container["args"]
    assert expected.annotations == {"servepath.dev/secret-version": "7"}
    assert expected.deployment == "smol-llm-d-kserve"


def llmd(**spec: Any) -> dict[str, Any]:
    return {"kind": KIND, "metadata": {"name": "smol"}, "spec": spec}


@pytest.mark.parametrize(
    ("spec", "complaint"),
    [
        ({"model": {"lora": {"adapters": [{"name": "a", "uri": f"oci://host/a@{MODEL_DIGEST}"}]}}}, "LoRA adapter"),
        ({"model": {"uri": "oci://host/model:latest"}}, "not pinned"),
        ({"storageInitializer": {"enabled": False}}, "no model is attached"),
    ],
)
def test_what_v0_19_does_not_do_with_a_modelcar_is_refused(spec: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        refuse_unsupported([llmd(**spec)])


def test_an_adapter_from_elsewhere_is_let_through() -> None:
    refuse_unsupported([llmd(model={"lora": {"adapters": [{"name": "a", "uri": "hf://someone/adapter"}]}})])


@pytest.mark.parametrize(
    ("reason", "message", "may_pass"),
    [
        ("ConfigNotFound", "LLMInferenceServiceConfig not found", True),
        ("CombineBaseError", "failed to enumerate LoRA adapters", True),
        ("HTTPRouteReconcileError", "admission webhook denied the request", False),
    ],
)
def test_why_it_cannot_be_reconciled(reason: str, message: str, *, may_pass: bool) -> None:
    condition = {"type": "Any", "status": "False", "reason": reason, "message": message}
    cause = cause_in_llminferenceservice({"status": {"conditions": [condition]}})
    assert cause is not None
    assert (cause.reason, cause.may_pass) == (reason, may_pass)


@pytest.mark.parametrize("reason", ["Progressing", "MinimumReplicasUnavailable", "Stopped"])
def test_what_only_takes_time_is_no_cause(reason: str) -> None:
    condition = {"type": "Ready", "status": "False", "reason": reason}
    assert cause_in_llminferenceservice({"status": {"conditions": [condition]}}) is None


SERVICE = built(GPU)[KIND]


def changed(**spec: Any) -> dict[str, Any]:
    return {**SERVICE, "spec": {**SERVICE["spec"], **spec}}


@pytest.mark.parametrize(
    ("live", "same_key", "expected"),
    [
        (None, False, 2),
        (SERVICE, True, 0),
        (SERVICE, False, 1),
        (changed(model={"uri": "oci://another"}), True, 1),
        (changed(replicas=1), True, 1),
        (changed(replicas=5), True, 0),
    ],
)
def test_an_update_needs_one_gpu_beside_those_in_use(
    live: dict[str, Any] | None, *, same_key: bool, expected: int
) -> None:
    assert new_engines(SERVICE, live, same_key=same_key) == expected


FOR_GPUS = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def node(name: str, gpus: int, *taints: dict[str, str]) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"taints": list(taints)},
        "status": {"allocatable": {"cpu": "8", "nvidia.com/gpu": str(gpus)}},
    }


def pod(where: str, *gpus: int, phase: str = "Running") -> dict[str, Any]:
    containers = [{"resources": {"limits": {"nvidia.com/gpu": str(count)}}} for count in gpus]
    return {"spec": {"nodeName": where, "containers": containers}, "status": {"phase": phase}}


def test_gpus_of_pods_that_ended_and_of_nodes_without_any_are_told_apart() -> None:
    pods = [pod("one", 1, 2), pod("one", 1, phase="Succeeded"), pod("", 1), pod("elsewhere", 1)]
    assert rooms([node("one", 4), node("none", 0)], pods, [FOR_GPUS]) == (Room("one", 4, 1),)


@pytest.mark.parametrize(
    ("taint", "is_open"),
    [
        ({"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}, True),
        ({"key": "nvidia.com/gpu", "effect": "NoExecute"}, False),
        ({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}, False),
        ({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}, False),
        ({"key": "cloud.google.com/gke-spot", "value": "true", "effect": "PreferNoSchedule"}, True),
    ],
)
def test_a_node_that_takes_no_such_pod_is_not_counted(taint: dict[str, str], *, is_open: bool) -> None:
    assert bool(rooms([node("one", 4, taint)], [], SERVICE["spec"]["template"]["tolerations"])) is is_open


@pytest.mark.parametrize(
    ("toleration", "is_open"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "team", "value": "red"}, True),
        ({"key": "team", "operator": "Equal", "value": "red", "effect": "NoSchedule"}, True),
        ({"key": "team", "value": "blue"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_tolerations_are_read_as_kubernetes_reads_them(toleration: dict[str, str], *, is_open: bool) -> None:
    taint = {"key": "team", "value": "red", "effect": "NoSchedule"}
    assert bool(rooms([node("one", 4, taint)], [], [toleration])) is is_open


@given(st.integers(0, 16), st.lists(st.integers(0, 4), max_size=6))
def test_no_node_has_more_free_than_it_has(total: int, used: list[int]) -> None:
    for room in rooms([node("one", total)], [pod("one", count) for count in used], []):
        assert 0 <= room.free <= room.total
        assert room.free == max(0, total - sum(used))
