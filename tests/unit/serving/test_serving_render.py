"""What is applied: hardened, pinned, the same engine and model on both paths."""

import re
import shutil
from functools import cache, partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from servepath.errors import ClusterError, UsageError
from servepath.manifests import manifests_directory
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.profiles import CPU, GPU, PROFILES, profile_named
from servepath.serving.render import (
    GatewayRef,
    build,
    engine_container,
    host_of,
    render,
    write_overlay,
)
from servepath.serving.stopped import ENGINE_KIND
from tests.unit.serving.conftest import MODEL_DIGEST, make_spec

Objects = dict[str, dict[str, Any]]


@cache
def built_once(spec: ServingSpec, path: ServingPath, gateway: GatewayRef | None) -> tuple[dict[str, Any], ...]:
    return anyio.run(partial(render, spec, path, gateway=gateway))


def rendered(spec: ServingSpec, path: ServingPath, gateway: GatewayRef | None = None) -> Objects:
    return {obj["kind"]: obj for obj in built_once(spec, path, gateway)}


def arguments(objects: Objects, path: ServingPath) -> list[str]:
    kind = "Deployment" if path is ServingPath.RAW else "InferenceService"
    found: list[str] = engine_container(objects[kind], path)["args"]
    return found


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


def test_raw_is_hardened(spec: ServingSpec) -> None:
    deployment = (rendered(spec, ServingPath.RAW))["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    assert deployment["strategy"] == {"type": "Recreate"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for container in (*pod["initContainers"], *pod["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"].keys() >= {"cpu", "memory"}
    startup = pod["containers"][0]["startupProbe"]
    assert (startup["httpGet"]["path"], startup["failureThreshold"], startup["periodSeconds"]) == ("/health", 60, 10)


@pytest.mark.parametrize("path", list(ServingPath))
def test_engine_is_offline_and_ends_in_order(spec: ServingSpec, path: ServingPath) -> None:
    objects = rendered(spec, path)
    if path is ServingPath.RAW:
        pod = objects["Deployment"]["spec"]["template"]["spec"]
    else:
        pod = objects["InferenceService"]["spec"]["predictor"]
    container = pod["containers"][0]
    wanted = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "HOME": "/tmp"}  # noqa: S108
    assert wanted.items() <= environment(container).items()
    drain_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert "--shutdown-timeout=30" in container["args"]
    assert pod["terminationGracePeriodSeconds"] > drain_s + 30
    assert "command" not in container


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_both_paths_have_the_same_engine_and_model(profile: Any) -> None:
    spec = make_spec(profile)
    raw = (rendered(spec, ServingPath.RAW))["Deployment"]
    kserve = (rendered(spec, ServingPath.KSERVE))["InferenceService"]
    raw_engine, kserve_engine = engine_container(raw, ServingPath.RAW), engine_container(kserve, ServingPath.KSERVE)
    assert raw_engine["image"] == kserve_engine["image"] == spec.engine_image
    assert raw_engine["args"] == kserve_engine["args"]
    assert raw_engine["resources"] == kserve_engine["resources"]
    assert environment(raw_engine)["MODELCAR_DIGEST"] == MODEL_DIGEST
    assert environment(kserve_engine)["STORAGE_URI"] == f"oci://{spec.modelcar_reference}"
    init = raw["spec"]["template"]["spec"]["initContainers"][0]
    assert (init["image"], environment(init)["MODELCAR_DIGEST"]) == (spec.modelcar_reference, MODEL_DIGEST)


@pytest.mark.parametrize("path", list(ServingPath))
def test_profile_reaches_the_engine(spec: ServingSpec, path: ServingPath) -> None:
    objects = rendered(spec, path)
    args = arguments(objects, path)
    assert args[0] == "/mnt/models"
    assert {"--max-model-len=2048", "--max-num-seqs=16", "--enforce-eager", "--dtype=float32"} <= set(args)
    assert "--served-model-name=smollm2-135m-instruct" in args
    flags = [argument.partition("=")[0] for argument in args]
    assert len(flags) == len(set(flags)), "a flag is given twice"
    kind = "Deployment" if path is ServingPath.RAW else "InferenceService"
    container = engine_container(objects[kind], path)
    assert environment(container)["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert container["resources"] == {
        "requests": {"cpu": "500m", "memory": "3Gi"},
        "limits": {"cpu": "2", "memory": "6Gi"},
    }


@pytest.mark.parametrize("path", list(ServingPath))
def test_gpu_profile(path: ServingPath) -> None:
    objects = rendered(make_spec(GPU), path)
    args = arguments(objects, path)
    assert "--gpu-memory-utilization=0.6" in args
    assert "--enforce-eager" not in args
    kind = "Deployment" if path is ServingPath.RAW else "InferenceService"
    obj = objects[kind]
    pod = obj["spec"]["template"]["spec"] if path is ServingPath.RAW else obj["spec"]["predictor"]
    container = pod["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert environment(container)["NCCL_CUMEM_ENABLE"] == "0"
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    shm = next(volume for volume in pod["volumes"] if volume["name"] == "shm")
    assert shm["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}


def test_raw_route_lets_only_the_api_and_health_through(spec: ServingSpec) -> None:
    objects = rendered(spec, ServingPath.RAW, GatewayRef("edge", "front"))
    route = objects["HTTPRoute"]["spec"]
    (rule,) = route["rules"]
    assert [match["path"] for match in rule["matches"]] == [
        {"type": "PathPrefix", "value": "/v1"},
        {"type": "Exact", "value": "/health"},
    ]
    assert rule["timeouts"] == {"request": "300s"}
    assert rule["backendRefs"][0]["name"] == objects["Service"]["metadata"]["name"] == "smol-raw"
    assert route["hostnames"] == [host_of(spec, ServingPath.RAW)] == ["smol-raw-demo.servepath.test"]
    assert (route["parentRefs"][0]["namespace"], route["parentRefs"][0]["name"]) == ("edge", "front")


CLOSED = ("/", "/metrics", "/metrics/", "/version", "/docs", "/redoc", "/openapi.json", "/load", "/ping", "/tokenize")
OPEN = ("/v1", "/v1/models", "/v1/chat/completions", "/health")


def test_what_kserves_own_route_leaves_open_is_closed(spec: ServingSpec) -> None:
    route = rendered(spec, ServingPath.KSERVE, GatewayRef("edge", "front"))["HTTPRoute"]["spec"]
    (rule,) = route["rules"]
    pattern = rule["matches"][0]["path"]["value"]
    assert [path for path in (*CLOSED, "/v2/models", "/v", "/vx", "/v1x") if not re.fullmatch(pattern, path)] == []
    assert [path for path in OPEN if re.fullmatch(pattern, path)] == []
    assert len(pattern) > len("^/.*$"), "a gateway takes the longer of two regular expressions"
    assert rule["timeouts"] == {"request": "300s"}, "as every route of the host"
    assert rule["filters"][0]["urlRewrite"]["path"] == {"type": "ReplaceFullPath", "replaceFullPath": "/not-routed"}
    assert rule["backendRefs"][0]["name"] == "smol-kserve-predictor"
    hosts = ["smol-kserve-demo.servepath.test", "smol-kserve-predictor-demo.servepath.test"]
    assert route["hostnames"] == hosts
    assert (route["parentRefs"][0]["namespace"], route["parentRefs"][0]["name"]) == ("edge", "front")


@pytest.mark.parametrize("path", list(ServingPath))
def test_the_engine_is_reached_by_its_gateway_alone_and_reaches_nothing(spec: ServingSpec, path: ServingPath) -> None:
    objects = rendered(spec, path, GatewayRef("edge", "front"))
    policy = objects["NetworkPolicy"]["spec"]
    labels = {"app.kubernetes.io/name": "vllm", "app.kubernetes.io/instance": f"smol-{path}"}
    assert policy["podSelector"]["matchLabels"] == labels
    engine = objects[ENGINE_KIND[path]]
    # KServe gives an InferenceService's labels to its pods.
    pods = engine["spec"]["template"] if path is ServingPath.RAW else engine
    assert labels.items() <= pods["metadata"]["labels"].items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy
    (rule,) = policy["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 8080}]
    beside, envoy = rule["from"]
    assert beside["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "edge"}}
    assert envoy["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "envoy-gateway-system"}}
    for one in (beside, envoy):
        (expression,) = one["podSelector"]["matchExpressions"]
        assert (expression["operator"], expression["values"]) == ("In", ["front"])
        assert "matchLabels" not in one["podSelector"], "kustomize would add the engine's own instance to it"


def test_kserve_service_is_one_that_standard_mode_honours(spec: ServingSpec) -> None:
    service = (rendered(spec, ServingPath.KSERVE))["InferenceService"]
    predictor = service["spec"]["predictor"]
    assert service["metadata"]["annotations"] == {
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": "none",
    }
    assert predictor["containers"][0]["name"] == "kserve-container"
    assert predictor["timeout"] == 300
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (1, 1)
    assert predictor["deploymentStrategy"] == {"type": "Recreate"}
    assert environment(predictor["containers"][0])["USER"] == "vllm"


@pytest.mark.parametrize("path", list(ServingPath))
def test_the_key_is_a_reference_and_no_secret_is_rendered(spec: ServingSpec, path: ServingPath) -> None:
    objects = rendered(spec, path)
    assert "Secret" not in objects
    container = engine_container(objects[ENGINE_KIND[path]], path)
    key = next(variable for variable in container["env"] if variable["name"] == "VLLM_API_KEY")
    assert key["valueFrom"] == {"secretKeyRef": {"name": f"smol-{path}", "key": "VLLM_API_KEY"}}


@pytest.mark.parametrize("path", list(ServingPath))
def test_everything_is_named_placed_and_labelled_as_ours(spec: ServingSpec, path: ServingPath) -> None:
    for obj in built_once(spec, path, None):
        assert obj["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "servepath"
        if obj["kind"] == "Namespace":
            assert obj["metadata"]["name"] == "demo"
        else:
            assert obj["metadata"]["namespace"] == "demo"
            assert obj["metadata"]["name"].removesuffix("-closed") == f"smol-{path.value}"


@pytest.mark.parametrize("field", ["engine_image", "modelcar_reference"])
@pytest.mark.parametrize("reference", ["registry.test/x:latest", "registry.test/x", "registry.test/x@sha256:abc", ""])
@pytest.mark.anyio
async def test_unpinned_is_refused(field: str, reference: str) -> None:
    with pytest.raises(UsageError, match="not pinned by digest"):
        await render(make_spec(changes={field: reference}), ServingPath.RAW)


@pytest.mark.parametrize("change", [{"name": "Smol"}, {"name": "qwen2.5"}, {"name": "x" * 50}, {"namespace": "a_b"}])
@pytest.mark.anyio
async def test_name_that_is_no_dns_label_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="not a DNS label"):
        await render(make_spec(changes=change), ServingPath.KSERVE)


@pytest.mark.anyio
async def test_unpinned_image_in_the_manifests_is_refused(spec: ServingSpec, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    shutil.copytree(manifests_directory(), manifests)
    sidecar = [{"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "x", "image": "x:1"}}]
    kustomization = manifests / "raw/overlays/cpu/kustomization.yaml"
    content = yaml.safe_load(kustomization.read_text())
    content["patches"].append({"patch": yaml.safe_dump(sidecar), "target": {"kind": "Deployment"}})
    kustomization.write_text(yaml.safe_dump(content))
    with pytest.raises(UsageError, match="'x:1' is not pinned"):
        await render(spec, ServingPath.RAW, manifests=manifests)


@pytest.mark.anyio
async def test_the_restricted_component_names_the_model_that_is_served(spec: ServingSpec, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    shutil.copytree(manifests_directory(), manifests)
    overlay = manifests / "kserve/overlays/cpu"
    with (overlay / "kustomization.yaml").open("a") as kustomization:
        kustomization.write("components: [../../components/restricted]\n")
    by_hand = next(obj for obj in await build(overlay) if obj["kind"] == "InferenceService")
    deployed = next(
        obj for obj in await render(spec, ServingPath.KSERVE, manifests=manifests) if obj["kind"] == "InferenceService"
    )
    for service in (by_hand, deployed):
        predictor = service["spec"]["predictor"]
        model = environment(engine_container(service, ServingPath.KSERVE))["STORAGE_URI"].removeprefix("oci://")
        containers = [*predictor["initContainers"], *predictor["containers"]]
        assert [one["name"] for one in containers] == ["modelcar-init", "kserve-container", "modelcar"]
        assert [one["image"] for one in containers if one["name"].startswith("modelcar")] == [model, model]
        for one in containers:
            assert one["securityContext"]["allowPrivilegeEscalation"] is False
            assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.anyio
async def test_canary_percent_in_the_manifests_is_refused(spec: ServingSpec, tmp_path: Path) -> None:
    manifests = tmp_path / "manifests"
    shutil.copytree(manifests_directory(), manifests)
    engine = manifests / "kserve/overlays/cpu/engine.yaml"
    engine.write_text(engine.read_text() + "- {op: add, path: /spec/predictor/canaryTrafficPercent, value: 10}\n")
    with pytest.raises(UsageError, match=r"Standard mode.*ksvc_reconciler.*one HTTPRoute with weights"):
        await render(spec, ServingPath.KSERVE, manifests=manifests)


@pytest.mark.anyio
async def test_overlay_is_plain_kustomize(spec: ServingSpec, tmp_path: Path) -> None:
    overlay = await write_overlay(spec, ServingPath.RAW, tmp_path, GatewayRef(), manifests_directory())
    assert await build(overlay) == await render(spec, ServingPath.RAW, gateway=GatewayRef())


@pytest.mark.anyio
async def test_kustomize_error_names_the_directory(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="kustomize failed"):
        await build(tmp_path)


def test_profiles() -> None:
    assert profile_named("cpu") == CPU
    with pytest.raises(UsageError, match="cpu or cpu-small or gpu"):
        profile_named("tpu")
