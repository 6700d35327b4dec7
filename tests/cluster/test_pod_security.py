"""Pod Security on the real API server's own admission: what is `restricted`, and exactly what of KServe's is not."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from lightkube.codecs import from_dict
from lightkube.resources.core_v1 import Namespace, Pod
from lightkube.types import PatchType

from servepath.checks.modelcar_checks import judge_modelcar_form
from servepath.cluster.client import errors_of
from servepath.cluster.objects import apply as apply_object
from servepath.cluster.objects import ensure_namespace
from servepath.cluster.wait import until
from servepath.errors import ClusterError
from servepath.manifests import manifests_directory
from servepath.serving.model import ServingPath
from servepath.serving.render import GatewayRef, build, write_overlay
from tests.cluster.session import session
from tests.cluster.unschedulable import DEPLOYMENT, IMAGE, TIMEOUT_S, apply, unschedulable

if TYPE_CHECKING:
    from pathlib import Path

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.serving.model import ServingSpec

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

# The whole of it, as docs/governance.md lists it: KServe v0.19.0's webhook has no setting for either.
KSERVES_EXCEPTIONS = {
    "allowPrivilegeEscalation != false": {"modelcar-init", "modelcar"},
    "unrestricted capabilities": {"modelcar-init", "modelcar"},
}
LABELS = {
    ServingPath.RAW: {"app.kubernetes.io/instance": "smol-raw"},
    ServingPath.KSERVE: {"serving.kserve.io/inferenceservice": "smol-kserve"},
}


async def enforce(client: AsyncClient, spec: ServingSpec, level: str) -> None:
    await ensure_namespace(client, spec.namespace)
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}}
    await client.patch(Namespace, spec.namespace, labels, patch_type=PatchType.MERGE)


async def replica(client: AsyncClient, spec: ServingSpec, path: ServingPath) -> dict[str, Any] | str:
    """Give the path's pod, or why the API server would not have it."""

    def outcome(deployment: dict[str, Any] | None) -> str | None:
        status = (deployment or {}).get("status") or {}
        for condition in status.get("conditions") or []:
            if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
                return str(condition["message"])
        return "" if status.get("unavailableReplicas") and status.get("replicas") else None

    name = DEPLOYMENT[path]
    refused = await until(
        client, "Deployment", spec.namespace, name, outcome, timeout_s=TIMEOUT_S, expected="a pod, or none"
    )
    if refused:
        return refused
    found = [pod.to_dict() async for pod in client.list(Pod, namespace=spec.namespace, labels=dict(LABELS[path]))]
    return found[0]


def violations(refusal: str) -> dict[str, set[str]]:
    """Read the admission's message: what is violated, and by which containers (by the pod itself: none)."""
    listed = refusal.partition('"restricted:latest": ')[2]
    parts = re.findall(r"([^,()][^()]*?) \((pod|containers?) ?([^()]*?) must (?:not )?set", listed)
    return {what.strip(", "): set(re.findall(r'"([^"]+)"', who)) for what, _, who in parts}


async def test_raw_is_restricted(cluster: Cluster) -> None:
    spec = unschedulable("pss")
    async with session(cluster, spec) as client:
        await enforce(client, spec, "restricted")
        await apply(client, cluster, spec, ServingPath.RAW)
        pod = await replica(client, spec, ServingPath.RAW)
    assert isinstance(pod, dict), pod


async def test_kserves_modelcar_is_not_in_exactly_these_points(cluster: Cluster) -> None:
    spec = unschedulable("pss")
    async with session(cluster, spec) as client:
        await enforce(client, spec, "restricted")
        await apply(client, cluster, spec, ServingPath.KSERVE)
        refusal = await replica(client, spec, ServingPath.KSERVE)
    assert isinstance(refusal, str), "KServe's pods are restricted by now: enforce it, and take the exceptions away"
    assert violations(refusal) == KSERVES_EXCEPTIONS, refusal


async def test_namespaces_made_here_admit_both_paths_and_no_privileged_pod(cluster: Cluster) -> None:
    spec = unschedulable("pss")
    privileged = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "privileged", "namespace": spec.namespace},
        "spec": {"containers": [{"name": "x", "image": IMAGE, "securityContext": {"privileged": True}}]},
    }
    async with session(cluster, spec) as client:
        for path in ServingPath:
            await apply(client, cluster, spec, path)
            assert isinstance(await replica(client, spec, path), dict)
        refused = pytest.raises(ClusterError, match='violates PodSecurity "baseline:latest": privileged')
        with refused, errors_of("Pod privileged"):
            await client.create(from_dict(privileged))


async def test_with_its_component_the_kserve_path_is_restricted_and_still_a_modelcar(
    cluster: Cluster, tmp_path: Path
) -> None:
    spec = unschedulable("pss")
    manifests = tmp_path / "manifests"
    shutil.copytree(manifests_directory(), manifests)
    overlay = manifests / "kserve/overlays/cpu-small/kustomization.yaml"
    overlay.write_text(overlay.read_text() + "components: [../../components/restricted]\n")
    async with session(cluster, spec) as client:
        await enforce(client, spec, "restricted")
        rendered = await write_overlay(spec, ServingPath.KSERVE, tmp_path / "out", GatewayRef(), manifests)
        for obj in await build(rendered):
            if obj["kind"] != "Namespace":
                await apply_object(client, obj)
        pod = await replica(client, spec, ServingPath.KSERVE)
    assert isinstance(pod, dict), pod
    assert judge_modelcar_form(pod) == []
    names = [one["name"] for one in (*pod["spec"]["initContainers"], *pod["spec"]["containers"])]
    assert names == ["modelcar-init", "kserve-container", "modelcar"], "KServe adds none beside them"
    assert {one["image"] for one in pod["spec"]["initContainers"]} == {spec.modelcar_reference}
