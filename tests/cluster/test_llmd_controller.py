"""The llm-d path on KServe's own controller of LLMInferenceServices, its webhooks and its presets; no pod ever runs.

No data plane is there either: what a Gateway's would say of a route and a pool is written by the tests.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from lightkube.resources.core_v1 import Namespace

from ci.node import llmisvc
from servepath.cluster.client import kubernetes
from servepath.cluster.objects import read
from servepath.cluster.wait import conditions, until, until_gone
from servepath.errors import ClusterError
from servepath.evidence import Verdict
from servepath.manifests import manifests_directory
from servepath.platform.llmd import check_llmd
from servepath.serving.llmd import deployment_of, llmd_name, llmd_namespace
from servepath.serving.llmd_deploy import apply_llmd, delete_llmd, deploy_llmd
from servepath.serving.model import Profile, ServingSpec
from servepath.serving.profiles import GPU

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from lightkube import AsyncClient

    from ci.node.control_plane import ControlPlane
    from ci.node.layout import Layout
    from ci.node.process import Process
    from servepath.cluster.model import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

TIMEOUT_S = 60
KEY = "key-of-the-test"
MODEL = "127.0.0.1:5000/servepath/model@sha256:" + "a" * 64
ENGINE = "127.0.0.1:5000/servepath/engine@sha256:" + "e" * 64
CPU = Profile("cpu", "9000", "9000", "1Gi", "1Gi", 1, 1024, 3, 60)
NODE = "servepath-gpus"
Json = dict[str, Any]


@pytest.fixture(scope="session")
def llmisvc_running(layout: Layout, plane: ControlPlane, cluster: Cluster) -> Iterator[Process]:  # noqa: ARG001
    """The controller, on a control plane that has KServe's settings."""

    async def begin() -> Process:
        return await llmisvc.start(layout, plane, await llmisvc.prepare(layout.cache))

    started = anyio.run(begin)
    yield started
    anyio.run(started.stop)


class Path:
    """The llm-d path of one spec, in a namespace of its own."""

    def __init__(self, client: AsyncClient, cluster: Cluster, plane: ControlPlane, spec: ServingSpec) -> None:
        self.client, self.cluster, self.plane, self.spec = client, cluster, plane, spec
        self.name, self.namespace = llmd_name(spec.name), llmd_namespace(spec.namespace)

    async def apply(self, **changes: Any) -> None:
        await apply_llmd(self.client, self.cluster, replace(self.spec, **changes), KEY)

    async def made(self, kind: str, name: str, wanted: Callable[[Json], bool] = bool) -> Json:
        """Await an object in a state."""

        def judge(obj: Json | None) -> Json | None:
            return obj if obj is not None and wanted(obj) else None

        return await until(self.client, kind, self.namespace, name, judge, timeout_s=TIMEOUT_S, expected="as wanted")

    async def get(self, *arguments: str) -> Json:
        namespace = f"--namespace={self.namespace}"
        await self.plane.kubectl("wait", namespace, "--for=create", f"--timeout={TIMEOUT_S}s", *arguments)
        found: Json = json.loads(await self.plane.kubectl("get", namespace, "--output=json", *arguments))
        return found

    async def say(self, what: str, status: Json) -> None:
        """Write a status, as the object's own controller would."""
        patch = json.dumps({"status": status})
        await self.plane.kubectl(
            "patch", f"--namespace={self.namespace}", what, "--subresource=status", "--type=merge", f"--patch={patch}"
        )


@pytest.fixture
async def path(cluster: Cluster, plane: ControlPlane, llmisvc_running: Process) -> AsyncIterator[Path]:  # noqa: ARG001
    spec = ServingSpec(f"t{uuid.uuid4().hex[:8]}", "smol", "smollm2", MODEL, ENGINE, CPU)
    async with kubernetes(cluster) as client:
        found = Path(client, cluster, plane, spec)
        try:
            yield found
        finally:
            with anyio.CancelScope(shield=True):
                await delete_llmd(cluster, spec.namespace, spec.name)
                if await read(client, "Namespace", found.namespace) is not None:
                    await client.delete(Namespace, found.namespace)


# Before any test that starts the controller.
async def test_without_the_controller_it_is_refused_before_anything_is_made(cluster: Cluster) -> None:
    spec = ServingSpec("bare", "smol", "smollm2", MODEL, ENGINE, CPU)
    with pytest.raises(ClusterError, match=r"llminferenceservices\.serving\.kserve\.io") as caught:
        await deploy_llmd(cluster, spec, KEY)
    assert caught.value.next_command == "servepath platform --llm-d --apply"
    async with kubernetes(cluster) as client:
        assert await read(client, "Namespace", "bare-llm-d") is None
    assert (await check_llmd(cluster)).verdict is Verdict.FAIL


async def test_the_controller_is_seen(cluster: Cluster, llmisvc_running: Process) -> None:  # noqa: ARG001
    result = await check_llmd(cluster)
    assert (result.verdict, result.seen) == (Verdict.PASS, "4 kinds, 3 presets")


async def test_the_engines_are_the_modelcar_and_our_engine(path: Path) -> None:
    await path.apply()
    deployment = (await path.made("Deployment", deployment_of("smol")))["spec"]
    assert deployment["replicas"] == 2
    pod = deployment["template"]["spec"]
    engine, modelcar = pod["containers"]
    assert (engine["name"], engine["image"]) == ("main", ENGINE)
    assert modelcar["name"] == "modelcar"
    assert modelcar["image"] == pod["initContainers"][0]["image"] == MODEL
    assert pod["shareProcessNamespace"] is True
    assert pod["automountServiceAccountToken"] is False
    assert engine["securityContext"]["runAsUser"] == 1010
    assert engine["command"] == ["vllm", "serve"]
    names = ["--served-model-name", "smollm2", f"publishers/{path.namespace}/models/smollm2"]
    assert engine["args"][4:7] == names
    variables = {one["name"]: one.get("value") for one in engine["env"]}
    assert (variables["HOME"], variables["USER"], variables["HF_HUB_OFFLINE"]) == ("/home", "vllm", "1")
    assert engine["startupProbe"]["httpGet"] == {"path": "/health", "port": 8000, "scheme": "HTTP"}
    digest = deployment["template"]["metadata"]["annotations"]["servepath.dev/modelcar-digest"]
    assert digest == MODEL.partition("@")[2]


async def test_a_pool_and_an_endpoint_picker_stand_before_them(path: Path) -> None:
    await path.apply()
    for group in ("inference.networking.k8s.io", "inference.networking.x-k8s.io"):
        pool = await path.get(f"inferencepools.{group}/{path.name}-inference-pool")
        assert pool["metadata"]["ownerReferences"][0]["kind"] == "LLMInferenceService"
    newer = await path.get(f"inferencepools.inference.networking.k8s.io/{path.name}-inference-pool")
    workload = await path.made("Deployment", deployment_of("smol"))
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert newer["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert newer["spec"]["targetPorts"] == [{"number": 8000}]
    picker = newer["spec"]["endpointPickerRef"]
    assert (picker["name"], picker["port"]["number"]) == (f"{path.name}-epp-service", 9002)
    service = await path.get(f"service/{picker['name']}")
    scheduler = await path.made("Deployment", f"{path.name}-kserve-router-scheduler")
    pods = scheduler["spec"]["template"]
    assert service["spec"]["selector"].items() <= pods["metadata"]["labels"].items()
    main = next(one for one in pods["spec"]["containers"] if one["name"] == "main")
    assert main["command"][:5] == [
        "/app/epp",
        "--pool-name",
        f"{path.name}-inference-pool",
        "--pool-namespace",
        path.namespace,
    ]
    # Its tokenizer takes the tokenizer's files from the same modelcar.
    assert MODEL in {one["image"] for one in pods["spec"]["containers"]}


async def test_the_route_goes_to_the_pool_through_the_gateway_of_the_path(path: Path) -> None:
    await path.apply()
    route = await path.made("HTTPRoute", f"{path.name}-kserve-route")
    [parent] = route["spec"]["parentRefs"]
    assert (parent["namespace"], parent["name"]) == (path.namespace, path.name)
    assert "hostnames" not in route["spec"]
    prefix = f"/{path.namespace}/{path.name}/v1/chat/completions"
    [chat] = [
        rule
        for rule in route["spec"]["rules"]
        if any((match.get("path") or {}).get("value") == prefix for match in rule["matches"])
    ]
    assert chat["backendRefs"][0]["kind"] == "InferencePool"
    assert chat["filters"][0]["urlRewrite"]["path"]["replacePrefixMatch"] == "/v1/chat/completions"
    assert chat["timeouts"] == {"backendRequest": "0s", "request": "0s"}
    headers = [
        match["headers"][0]["value"]
        for rule in route["spec"]["rules"]
        for match in rule["matches"]
        if "headers" in match
    ]
    assert set(headers) == {f"publishers/{path.namespace}/models/smollm2"}


async def test_a_gateway_that_knows_no_older_pools_is_given_the_newer_ones(path: Path) -> None:
    await path.apply()
    name = f"{path.name}-kserve-route"
    await path.made("HTTPRoute", name, lambda route: pool_groups(route) == {"inference.networking.x-k8s.io"})
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": path.namespace, "name": path.name}
    refused = [
        {"type": "Accepted", "status": "True", "reason": "Accepted"},
        {"type": "ResolvedRefs", "status": "False", "reason": "InvalidKind"},
    ]
    said = [{**one, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"} for one in refused]
    parents = [{"parentRef": parent, "controllerName": "example.com/gateway", "conditions": said}]
    await path.say(f"httproute/{name}", {"parents": parents})
    await path.made("HTTPRoute", name, lambda route: pool_groups(route) == {"inference.networking.k8s.io"})


def pool_groups(route: Json) -> set[str]:
    refs = [ref for rule in route["spec"]["rules"] for ref in rule["backendRefs"]]
    return {ref["group"] for ref in refs if ref["kind"] == "InferencePool"}


async def test_applied_again_nothing_changes_and_a_new_model_changes_the_pods(path: Path) -> None:
    await path.apply()
    before = await path.made("Deployment", deployment_of("smol"))
    service = await path.made("LLMInferenceService", path.name)
    await path.apply()
    assert (await path.made("LLMInferenceService", path.name))["metadata"]["generation"] == service["metadata"][
        "generation"
    ]
    newer = MODEL.replace("a" * 64, "b" * 64)
    await path.apply(modelcar_reference=newer)

    def has_newer(deployment: Json) -> bool:
        return newer in {one["image"] for one in deployment["spec"]["template"]["spec"]["containers"]}

    after = await path.made("Deployment", deployment_of("smol"), has_newer)
    assert after["metadata"]["generation"] > before["metadata"]["generation"]


async def test_stopped_it_has_no_engines_and_a_deploy_starts_it(path: Path) -> None:
    await path.apply()
    await path.made("Deployment", deployment_of("smol"))
    what = (f"--namespace={path.namespace}", f"llminferenceservice/{path.name}")
    await path.plane.kubectl("annotate", *what, "serving.kserve.io/stop=true")
    for name in (deployment_of("smol"), f"{path.name}-kserve-router-scheduler"):
        await until_gone(path.client, "Deployment", path.namespace, name, timeout_s=TIMEOUT_S)
    await path.apply()
    assert (await path.made("Deployment", deployment_of("smol")))["spec"]["replicas"] == 2


async def test_a_lora_adapter_as_a_modelcar_is_refused_by_the_controller_too(path: Path) -> None:
    await path.apply()
    adapters = [{"name": "tuned", "uri": f"oci://{MODEL}"}]
    patch = json.dumps({"spec": {"model": {"lora": {"adapters": adapters}}}})
    what = f"llminferenceservice/{path.name}"
    await path.plane.kubectl("patch", f"--namespace={path.namespace}", what, "--type=merge", f"--patch={patch}")

    def refused(service: Json) -> bool:
        found = conditions(service).get("PresetsCombined")
        return found is not None and "oci:// is not supported for LoRA adapters" in found.message

    await path.made("LLMInferenceService", path.name, refused)


async def test_the_real_cause_is_said_when_it_does_not_come_up(path: Path) -> None:
    await path.apply()
    with pytest.raises(ClusterError, match=f"awaited the rollout of Deployment {deployment_of('smol')}") as caught:
        await deploy_llmd(path.cluster, path.spec, KEY)
    assert caught.value.where.startswith("llm-d path")


async def test_a_delete_takes_all_of_it_away_and_a_second_one_finds_nothing(path: Path) -> None:
    await path.apply()
    await path.made("Deployment", deployment_of("smol"))
    deleted = await delete_llmd(path.cluster, path.spec.namespace, path.spec.name)
    assert deleted == tuple(
        f"{kind} {path.name}" for kind in ("LLMInferenceService", "Gateway", "NetworkPolicy", "Secret")
    )
    assert await read(path.client, "Deployment", deployment_of("smol"), path.namespace) is None
    assert await delete_llmd(path.cluster, path.spec.namespace, path.spec.name) == ()


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
async def test_kubectl_applies_every_overlay_as_it_is(
    plane: ControlPlane,
    llmisvc_running: Process,  # noqa: ARG001
    overlay: str,
) -> None:
    directory = str(manifests_directory() / "llm-d" / "overlays" / overlay)
    applied = await plane.kubectl("apply", "-k", directory)
    assert "llminferenceservice.serving.kserve.io/qwen-llm-d" in applied
    await plane.kubectl("delete", "-k", directory, "--wait=true", "--timeout=60s")


@pytest.fixture
async def gpu_path(path: Path) -> AsyncIterator[Path]:
    """The path with the profile for GPUs, on a cluster of one node with two of them."""
    # More cores than the node has: the preflight counts its GPUs, and no pod comes to a node that runs none.
    path.spec = replace(path.spec, profile=replace(GPU, cpu_request="9000", cpu_limit="9000"))
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    await path.plane.kubectl.apply([node])
    try:
        await has_gpus(path, 2)
        yield path
    finally:
        with anyio.CancelScope(shield=True):
            await path.plane.kubectl("delete", f"node/{NODE}")


async def has_gpus(path: Path, count: int) -> None:
    resources = {"nvidia.com/gpu": str(count), "cpu": "64", "memory": "256Gi", "pods": "100"}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = {"type": "Ready", "status": "True", "reason": "Said", "message": "", "lastHeartbeatTime": now}
    patch = json.dumps({"status": {"allocatable": resources, "capacity": resources, "conditions": [ready]}})
    await path.plane.kubectl("patch", f"node/{NODE}", "--subresource=status", "--type=merge", f"--patch={patch}")
    # What the controller of nodes does next, of a node that says it is ready.
    await path.plane.kubectl("patch", f"node/{NODE}", "--type=merge", '--patch={"spec":{"taints":null}}')


async def test_two_gpus_are_needed_and_one_is_refused_before_anything_is_made(gpu_path: Path) -> None:
    await has_gpus(gpu_path, 1)
    with pytest.raises(ClusterError, match=r"needs 2 GPUs \(2 new engines of 1\): servepath-gpus has 1 of 1 free"):
        await gpu_path.apply()
    assert await read(gpu_path.client, "Namespace", gpu_path.namespace) is None
    await has_gpus(gpu_path, 2)
    await gpu_path.apply()
    assert (await gpu_path.made("Deployment", deployment_of("smol")))["spec"]["replicas"] == 2


async def test_gpus_that_others_have_are_not_free(gpu_path: Path) -> None:
    other: Json = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"other-{gpu_path.spec.namespace}", "namespace": "default"},
        "spec": {
            "nodeName": NODE,
            "containers": [{"name": "one", "image": ENGINE, "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
        },
    }
    await gpu_path.plane.kubectl.apply([other])
    try:
        with pytest.raises(ClusterError, match="servepath-gpus has 1 of 2 free"):
            await gpu_path.apply()
    finally:
        await gpu_path.plane.kubectl("delete", "--force", f"pod/{other['metadata']['name']}", "--namespace=default")


async def test_no_node_with_gpus_says_so(path: Path) -> None:
    path.spec = replace(path.spec, profile=GPU)
    with pytest.raises(ClusterError, match="no node has any"):
        await path.apply()
