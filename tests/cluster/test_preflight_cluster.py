"""Preflight on a real API server: each thing is shown missing, fixed by the very command that is told, and then there.

There is no kubelet: nodes are objects that a test makes, with what a kubelet would report of them.
"""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest
import yaml
from lightkube.codecs import from_dict
from lightkube.resources.core_v1 import Node
from lightkube.types import PatchType

from ci.node import gateway_api
from servepath.cluster.client import kubernetes
from servepath.errors import PromotionRefusedError
from servepath.evidence import CheckResult, Verdict
from servepath.promotion.model import PromotionRequest
from servepath.promotion.plan import make_plan
from servepath.promotion.preflight.results import missing_of
from servepath.promotion.preflight.run import preflight
from servepath.serving.deploy import apply_kserve, apply_raw, delete
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.profiles import GKE
from tests.cluster.unschedulable import IMAGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from ci.node.control_plane import ControlPlane
    from ci.node.layout import Layout
    from servepath.cluster.model import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 30
GIB = 2**30
CLASS = "preflight"
RAW = (ServingPath.RAW,)


@pytest.fixture
async def spec(plane: ControlPlane) -> AsyncIterator[ServingSpec]:
    """A model on a GPU, in a namespace of its own that exists."""
    namespace = f"preflight-{uuid.uuid4().hex[:8]}"
    await plane.kubectl("create", "namespace", namespace)
    yield ServingSpec(namespace, "smol", "smol", IMAGE, IMAGE, GKE)
    await plane.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
async def limited(plane: ControlPlane, cluster: Cluster, spec: ServingSpec, tmp_path: Path) -> AsyncIterator[Cluster]:
    """The cluster as a ServiceAccount sees it that may do nothing."""
    await plane.kubectl("-n", spec.namespace, "create", "serviceaccount", "promoter")
    token = await plane.kubectl("-n", spec.namespace, "create", "token", "promoter", "--duration=10m")
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": token.strip()}
    path = tmp_path / "limited.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    yield replace(cluster, kubeconfig=path)
    for kind, name in (
        ("rolebinding", "servepath-promoter-platform"),
        ("clusterrolebinding", "servepath-promoter-cluster"),
    ):
        await plane.kubectl("-n", "kserve", "delete", kind, name, "--ignore-not-found")
    await plane.kubectl("delete", "-k", str(ROOT / "manifests/promotion/access"), "--ignore-not-found")


async def fix(command: str, cluster: Cluster, plane: ControlPlane) -> None:
    """Run a command that preflight told, as an administrator."""
    line = command.replace(str(cluster.kubeconfig), str(plane.kubeconfig))
    done = await anyio.run_process(["bash", "-ec", line], check=False, cwd=ROOT)
    assert done.returncode == 0, f"{line}: {done.stderr.decode()}"


async def looked(
    cluster: Cluster,
    spec: ServingSpec,
    settled: Callable[[dict[str, CheckResult]], bool],
    image_bytes: int = 0,
) -> dict[str, CheckResult]:
    """Look until the API server and its controllers have taken in what was changed."""
    with anyio.move_on_after(TIMEOUT_S):
        while True:
            results = {one.name: one for one in await preflight(cluster, spec, RAW, image_bytes=image_bytes)}
            if settled(results):
                return results
            await anyio.sleep(0.2)
    pytest.fail("\n".join(f"{one.name}: {one.seen}" for one in missing_of(tuple(results.values()))))


def is_(verdict: Verdict, name: str) -> Callable[[dict[str, CheckResult]], bool]:
    return lambda results: results[name].verdict is verdict


def access(results: Iterable[CheckResult]) -> list[CheckResult]:
    return [one for one in results if one.name.startswith("may_use_")]


async def test_rights_are_missing_until_the_roles_are_bound(
    plane: ControlPlane, limited: Cluster, spec: ServingSpec
) -> None:
    denied = access(missing_of(await preflight(limited, spec)))
    by_name = {one.name: one for one in denied}
    place = spec.namespace.replace("-", "_")
    assert by_name[f"may_use_deployments_apps_in_{place}"].seen == "no get, list, watch, create, update, patch, delete"
    assert by_name["may_use_configmaps_in_kserve"].seen == "no get"
    assert by_name["may_use_nodes_in_cluster"].seen == "no list"
    assert len(denied) > 15
    commands = {one.next_command for one in denied}
    assert len(commands) == 3, "one binding for each scope"
    assert all(f"--serviceaccount={spec.namespace}:promoter" in command for command in commands)
    for command in sorted(commands):
        await fix(command, limited, plane)
    allowed = await looked(limited, spec, lambda results: not access(missing_of(tuple(results.values()))))
    assert len(access(allowed.values())) >= len(denied)


async def test_the_roles_are_enough_to_deploy_and_delete(
    plane: ControlPlane, limited: Cluster, spec: ServingSpec
) -> None:
    for command in sorted({one.next_command for one in access(missing_of(await preflight(limited, spec)))}):
        await fix(command, limited, plane)
    await looked(limited, spec, lambda results: not access(missing_of(tuple(results.values()))))
    async with kubernetes(limited) as client:
        await apply_raw(client, limited, spec, "key-of-the-test")
        await apply_kserve(client, limited, spec, "key-of-the-test")
        deleted = await delete(limited, spec.namespace, spec.name)
    assert {"Deployment smol-raw", "InferenceService smol-kserve", "PersistentVolumeClaim smol-kserve"} <= set(deleted)


@asynccontextmanager
async def gpu_node(cluster: Cluster, *, disk: str) -> AsyncIterator[str]:
    """A node with one GPU, as its kubelet would report it."""
    name = f"gpu-{uuid.uuid4().hex[:6]}"
    now = "2026-01-01T00:00:00Z"
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now}
    amounts = {"cpu": "8", "memory": "32Gi", "pods": "110", "nvidia.com/gpu": "1", "ephemeral-storage": disk}
    status: dict[str, Any] = {"conditions": [ready], "capacity": amounts, "allocatable": amounts}
    taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    async with kubernetes(cluster) as client:
        await client.create(from_dict({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}))
        try:
            await client.patch(Node.Status, name, {"status": status}, patch_type=PatchType.MERGE)
            await client.patch(Node, name, {"spec": {"taints": [taint]}}, patch_type=PatchType.MERGE)
            yield name
        finally:
            with anyio.CancelScope(shield=True):
                await client.delete(Node, name)


async def test_a_plan_that_may_not_read_tells_all_that_is_missing(limited: Cluster, spec: ServingSpec) -> None:
    request = PromotionRequest(
        cluster=limited,
        source=IMAGE,
        repository="servepath/none",
        namespace=spec.namespace,
        name=spec.name,
        served_model_name=spec.served_model_name,
        engine_image=IMAGE,
        profile=GKE,
        preflight=lambda asked: preflight(limited, asked),
    )
    async with kubernetes(limited) as client:
        with pytest.raises(PromotionRefusedError, match="things are missing; nothing was changed") as caught:
            await make_plan(client, request)
    assert "may_use_configmaps_in_kserve" in str(caught.value)
    assert "manifests/promotion/access" in str(caught.value)


@asynccontextmanager
async def taken_away(
    plane: ControlPlane, kind: str, deleted: str, crds_of: Layout | None = None
) -> AsyncIterator[None]:
    """Nothing of a kind, or not even its CRD; afterwards all is there again."""
    kept = yaml.safe_load(await plane.kubectl("get", kind, "-o", "yaml"))["items"]
    what = deleted.split("/") if "/" in deleted else (kind, deleted)
    await plane.kubectl("delete", *what)
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            if crds_of is not None:
                await gateway_api.apply(plane, await gateway_api.prepare(crds_of.cache))
            for one in kept:
                one["metadata"] = {
                    key: one["metadata"][key] for key in ("name", "annotations") if key in one["metadata"]
                }
            if kept:
                await plane.kubectl.apply(kept)


async def test_a_gpu_and_its_disk(plane: ControlPlane, cluster: Cluster, spec: ServingSpec) -> None:
    results = {one.name: one for one in await preflight(cluster, spec, RAW, image_bytes=20 * GIB)}
    missing = results["node_for_smol_raw"]
    assert missing.verdict is Verdict.FAIL
    assert "1 nvidia.com/gpu" in missing.expected
    assert results["disk_for_the_images"].verdict is Verdict.SKIP
    await fix(missing.next_command, cluster, plane)
    async with gpu_node(cluster, disk="10Gi") as node:
        results = await looked(cluster, spec, is_(Verdict.PASS, "node_for_smol_raw"), 20 * GIB)
        assert results["node_for_smol_raw"].seen == f"node {node}"
        small = results["disk_for_the_images"]
        assert (small.verdict, small.seen) == (Verdict.FAIL, f"10.0 GiB on {node}")
        await fix(small.next_command, cluster, plane)
        both = {one.name: one for one in await preflight(cluster, spec)}
        assert {both["node_for_smol_raw"].verdict, both["node_for_smol_kserve"].verdict} == {Verdict.PASS, Verdict.FAIL}
    async with gpu_node(cluster, disk="40Gi"):
        await looked(cluster, spec, is_(Verdict.PASS, "disk_for_the_images"), 20 * GIB)


async def test_a_quota_of_the_namespace(plane: ControlPlane, cluster: Cluster, spec: ServingSpec) -> None:
    hard = "--hard=requests.nvidia.com/gpu=0,persistentvolumeclaims=0"
    await plane.kubectl("-n", spec.namespace, "create", "quota", "team", hard)
    short = await looked(
        cluster, spec, lambda results: "quota_team" in results and bool(results["quota_team"].next_command)
    )
    assert short["quota_team"].verdict is Verdict.FAIL
    assert "requests.nvidia.com/gpu: 0 are allowed, 1 are needed" in short["quota_team"].seen
    await fix(short["quota_team"].next_command, cluster, plane)
    await looked(cluster, spec, is_(Verdict.PASS, "quota_team"))


async def test_a_default_storage_class(plane: ControlPlane, cluster: Cluster, spec: ServingSpec) -> None:
    async with taken_away(plane, "storageclasses", "--all"):
        results = await looked(cluster, spec, is_(Verdict.FAIL, "default_storage_class"))
        assert results["default_storage_class"].seen == "there is no StorageClass"
        metadata = {"name": CLASS}
        made = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": metadata, "provisioner": "none"}
        await plane.kubectl.apply([made])
        results = await looked(cluster, spec, lambda found: CLASS in found["default_storage_class"].next_command)
        await fix(results["default_storage_class"].next_command, cluster, plane)
        await looked(cluster, spec, is_(Verdict.PASS, "default_storage_class"))
        await plane.kubectl("delete", "storageclass", CLASS)
    assert "default_storage_class" not in {one.name for one in await preflight(cluster, spec, ())}


async def test_a_kind_that_is_not_served(
    plane: ControlPlane, cluster: Cluster, spec: ServingSpec, layout: Layout
) -> None:
    name = "gatewayclasses.gateway.networking.k8s.io"
    async with taken_away(plane, "gatewayclasses", f"crd/{name}", layout):
        results = await looked(cluster, spec, is_(Verdict.FAIL, "gateway_api_is_served"))
        assert f"{name} is absent" in results["gateway_api_is_served"].seen
        install = (
            f"servepath platform --kubeconfig {cluster.kubeconfig} --gateway-class {cluster.gateway_class} --apply"
        )
        assert results["gateway_api_is_served"].next_command == install
        assert results["kserve_is_served"].verdict is Verdict.PASS
    await looked(cluster, spec, is_(Verdict.PASS, "gateway_api_is_served"))


async def test_what_is_there_is_told_too(cluster: Cluster, spec: ServingSpec) -> None:
    results = {one.name: one for one in await preflight(cluster, spec)}
    assert results["kubernetes_version"].seen.startswith("v1.")
    assert results["kserve_webhooks_answer"].verdict is Verdict.PASS
    assert results["registry_for_the_nodes"].verdict is Verdict.SKIP
    assert all(one.next_command for one in missing_of(tuple(results.values())))
    assert all(one.duration_s > 0 for one in results.values())


async def test_nothing_is_left_behind(plane: ControlPlane, cluster: Cluster, spec: ServingSpec) -> None:
    everything = (
        "get",
        "all,configmaps,secrets,pvc,inferenceservices,httproutes,leases",
        "-n",
        spec.namespace,
        "-o",
        "name",
    )
    before = await plane.kubectl(*everything)
    await preflight(cluster, spec)
    assert await plane.kubectl(*everything) == before
