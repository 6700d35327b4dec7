"""Both paths on a real API server with KServe's controller and webhooks: what is applied, and what is made of it.

The engines ask for more cores than any node has, so that no pod ever runs: what a kubelet would report is written by
the tests.
"""

from __future__ import annotations

import uuid
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from lightkube.codecs import from_dict
from lightkube.resources.core_v1 import Pod
from lightkube.types import PatchType

from servepath.cluster.diagnostics import collect
from servepath.cluster.facts import node_facts
from servepath.cluster.objects import MANAGED_BY, OWNER, HTTPRoute, apply, read
from servepath.cluster.wait import changes, until, until_gone
from servepath.errors import ClusterError
from servepath.serving.deploy import (
    apply_kserve,
    apply_raw,
    delete,
    deploy_kserve,
    deploy_raw,
    expect_kserve,
)
from servepath.serving.model import Profile, ServingPath, ServingSpec
from servepath.serving.readiness import await_ready, carries
from servepath.serving.render import host_of
from tests.cluster.session import session

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

KEY = "key-of-the-test"
TIMEOUT_S = 60
MODEL = "127.0.0.1:5000/servepath/none@sha256:" + "a" * 64
ENGINE = "127.0.0.1:5000/servepath/none@sha256:" + "b" * 64
HUGE = Profile(
    name="cpu-small",
    cpu_request="9000",
    cpu_limit="9000",
    memory_request="1Gi",
    memory_limit="1Gi",
    kv_cache_gib=1,
    max_model_len=1024,
    startup_timeout_s=TIMEOUT_S,
    request_timeout_s=123,
)


def service_of(applied: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Give the InferenceService of what was applied."""
    (service,) = (obj for obj in applied if obj["kind"] == "InferenceService")
    return service


@pytest.fixture
def spec() -> ServingSpec:
    return ServingSpec(f"serving-{uuid.uuid4().hex[:8]}", "smol", "smol", MODEL, ENGINE, HUGE)


async def pod_of(client: AsyncClient, spec: ServingSpec, labels: dict[str, str]) -> dict[str, Any]:
    with anyio.fail_after(TIMEOUT_S):
        async with aclosing(changes(client, "Pod", spec.namespace, labels=labels)) as events:
            async for _, pod in events:
                return pod
    raise AssertionError("no pod")


async def tell_event(client: AsyncClient, spec: ServingSpec) -> None:
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "told", "namespace": spec.namespace},
        "involvedObject": {"kind": "Pod", "name": "smol", "namespace": spec.namespace},
        "type": "Warning",
        "reason": "Told",
        "message": f"by the test, which quotes {KEY}",
    }
    await client.create(from_dict(event))


async def report(client: AsyncClient, spec: ServingSpec, pod: str, status: dict[str, Any]) -> None:
    """Write a pod's status, as its kubelet would."""
    await client.patch(Pod.Status, pod, {"status": status}, namespace=spec.namespace, patch_type=PatchType.MERGE)


def condition(kind: str, *, reason: str = "") -> dict[str, str]:
    return {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": "2026-01-01T00:00:00Z"}


RUNNING = {
    "phase": "Running",
    "conditions": [condition(kind) for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")],
}


async def test_kserve_makes_the_engine_that_was_asked_for(cluster: Cluster, spec: ServingSpec) -> None:
    async with session(cluster, spec) as client:
        service = service_of(await apply_kserve(client, cluster, spec, KEY))
        asked = service["spec"]["predictor"]["containers"][0]
        deployment = await until(
            client,
            "Deployment",
            spec.namespace,
            "smol-kserve-predictor",
            lambda obj: obj,
            timeout_s=TIMEOUT_S,
            expected="made by KServe",
        )
        assert deployment["spec"]["strategy"] == {"type": "Recreate"}
        made = deployment["spec"]["template"]["spec"]["containers"][0]
        assert (made["args"], made["image"]) == (asked["args"], ENGINE)
        assert made["resources"] == {
            "limits": {"cpu": "9k", "memory": "1Gi"},
            "requests": {"cpu": "9k", "memory": "1Gi"},
        }
        pod = await pod_of(client, spec, {"serving.kserve.io/inferenceservice": "smol-kserve"})
        assert pod["metadata"]["labels"][MANAGED_BY] == OWNER
        assert pod["spec"]["shareProcessNamespace"] is True
        assert [container["image"] for container in pod["spec"]["initContainers"]] == [MODEL]
        by_name = {container["name"]: container for container in pod["spec"]["containers"]}
        assert by_name["modelcar"]["image"] == MODEL
        engine = by_name["kserve-container"]
        assert engine["securityContext"]["runAsUser"] == 1010
        assert engine["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert engine["securityContext"]["readOnlyRootFilesystem"] is True
        assert engine["lifecycle"]["preStop"] == {"sleep": {"seconds": 5}}
        assert pod["spec"].get("automountServiceAccountToken") is False


async def test_kserve_hands_a_new_key_on_to_the_pods_and_until_then_what_runs_is_not_what_was_asked_for(
    cluster: Cluster, spec: ServingSpec
) -> None:
    async with session(cluster, spec) as client:
        asked = [
            expect_kserve(spec, await apply_kserve(client, cluster, spec, key)).annotations
            for key in (KEY, "another-key-of-the-test")
        ]
        assert asked[0].keys() == asked[1].keys() == {"servepath.dev/secret-version"}
        assert asked[0] != asked[1]
        deployment = await until(
            client,
            "Deployment",
            spec.namespace,
            "smol-kserve-predictor",
            lambda obj: obj if obj and carries(obj["spec"]["template"], asked[1]) else None,
            timeout_s=TIMEOUT_S,
            expected="with the new key",
        )
        assert not carries(deployment["spec"]["template"], asked[0])


async def test_kserves_route_has_the_timeout_that_was_asked_for(cluster: Cluster, spec: ServingSpec) -> None:
    async with session(cluster, spec) as client:
        await apply_kserve(client, cluster, spec, KEY)
        pod = await pod_of(client, spec, {"serving.kserve.io/inferenceservice": "smol-kserve"})
        await report(client, spec, pod["metadata"]["name"], RUNNING)
        route = await until(
            client, "HTTPRoute", spec.namespace, "smol-kserve", lambda obj: obj, timeout_s=TIMEOUT_S, expected="made"
        )
        assert [rule["timeouts"] for rule in route["spec"]["rules"]] == [{"request": "123s"}]
        assert host_of(spec, ServingPath.KSERVE) in route["spec"]["hostnames"]
        parent = route["spec"]["parentRefs"][0]
        assert (parent["namespace"], parent["name"]) == (cluster.gateway_namespace, cluster.gateway_name)


async def test_raw_is_taken_as_it_is_and_a_second_time_changes_nothing(cluster: Cluster, spec: ServingSpec) -> None:
    async with session(cluster, spec) as client:
        await apply_raw(client, cluster, spec, KEY)
        first = await read(client, "Deployment", "smol-raw", spec.namespace)
        await apply_raw(client, cluster, spec, KEY)
        second = await read(client, "Deployment", "smol-raw", spec.namespace)
        assert first is not None
        assert second is not None
        assert first["metadata"]["generation"] == second["metadata"]["generation"] == 1
        await apply_raw(client, cluster, spec, "another key")
        third = await read(client, "Deployment", "smol-raw", spec.namespace)
        assert third is not None
        assert third["metadata"]["generation"] == 2, "a new key starts the engine again"
        route = await client.get(HTTPRoute, "smol-raw", namespace=spec.namespace)
        assert route["spec"]["hostnames"] == ["smol-raw-" + spec.namespace + ".servepath.test"]
        pod = await pod_of(client, spec, {"app.kubernetes.io/instance": "smol-raw"})
        engine = pod["spec"]["containers"][0]
        assert engine["volumeMounts"][1]["subPathExpr"] == "models/$(MODELCAR_DIGEST)"
        assert pod["spec"]["securityContext"]["fsGroup"] == 65532


async def test_delete_takes_ours_and_leaves_others(cluster: Cluster, spec: ServingSpec) -> None:
    async with session(cluster, spec) as client:
        await apply_raw(client, cluster, spec, KEY)
        await apply_kserve(client, cluster, spec, KEY)
        theirs: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "theirs", "namespace": spec.namespace},
            "spec": {"ports": [{"port": 80}]},
        }
        await client.create(from_dict(theirs))
        deleted = await delete(cluster, spec.namespace, spec.name)
        assert set(deleted) == {
            "InferenceService smol-kserve",
            "Deployment smol-raw",
            "Service smol-raw",
            "HTTPRoute smol-raw",
            "HTTPRoute smol-kserve-closed",
            "NetworkPolicy smol-raw",
            "NetworkPolicy smol-kserve",
            "PersistentVolumeClaim smol-raw",
            "Secret smol-raw",
            "Secret smol-kserve",
        }
        await until_gone(client, "Deployment", spec.namespace, "smol-kserve-predictor", timeout_s=TIMEOUT_S)
        assert await read(client, "Service", "theirs", spec.namespace) is not None
        assert await delete(cluster, spec.namespace, spec.name) == ()
        with pytest.raises(ClusterError, match="servepath did not make it"):
            await apply(client, theirs)


async def test_unschedulable_is_said_early_on_both_paths(cluster: Cluster, spec: ServingSpec) -> None:
    async with session(cluster, spec) as client:
        service = service_of(await apply_kserve(client, cluster, spec, KEY))
        expected = replace(expect_kserve(spec, (service,)), patience_s=1.0)
        started = anyio.current_time()
        with pytest.raises(ClusterError, match="Unschedulable") as caught:
            await await_ready(client, cluster, expected, "")
        assert anyio.current_time() - started < TIMEOUT_S / 2
        assert "kserve path, Pod" in caught.value.where


@pytest.mark.parametrize(
    ("container", "complaint"),
    [
        (
            {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}}},
            "ImagePullBackOff: manifest unknown",
        ),
        (
            {
                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
                "restartCount": 2,
            },
            "CrashLoopBackOff: OOMKilled, exit code 137, 2 restarts",
        ),
    ],
    ids=["image", "crash"],
)
async def test_what_the_kubelet_reports_ends_the_wait(
    cluster: Cluster, spec: ServingSpec, container: dict[str, Any], complaint: str
) -> None:
    status = {"name": "vllm", "image": ENGINE, "imageID": "", "ready": False, "restartCount": 0, **container}
    async with session(cluster, spec) as client, anyio.create_task_group() as group:

        async def kubelet() -> None:
            pod = await pod_of(client, spec, {"app.kubernetes.io/instance": "smol-raw"})
            await report(client, spec, pod["metadata"]["name"], {"phase": "Pending", "containerStatuses": [status]})

        group.start_soon(kubelet)
        with pytest.raises(ClusterError, match=complaint):
            await deploy_raw(cluster, spec, KEY)


async def test_spent_budget_says_what_was_awaited(cluster: Cluster, spec: ServingSpec) -> None:
    short = replace(spec, profile=replace(HUGE, startup_timeout_s=3))
    async with session(cluster, spec):
        with pytest.raises(
            ClusterError, match=r"no completion in 3 s; awaited the rollout of Deployment smol-kserve-pred"
        ):
            await deploy_kserve(cluster, short, KEY)


async def test_refused_by_the_api_server(cluster: Cluster, spec: ServingSpec) -> None:
    more_than_the_limit = replace(spec, profile=replace(HUGE, cpu_limit="1"))
    async with session(cluster, spec):
        with pytest.raises(ClusterError, match="must be less than or equal to cpu limit"):
            await deploy_raw(cluster, more_than_the_limit, KEY)
        with pytest.raises(ClusterError, match=r"ReconcileFailed.*must be less than or equal to cpu limit"):
            await deploy_kserve(cluster, more_than_the_limit, KEY)


async def test_refused_by_kserves_webhook(cluster: Cluster, spec: ServingSpec) -> None:
    async with session(cluster, spec) as client:
        service = service_of(await apply_kserve(client, cluster, spec, KEY))
        service["spec"]["predictor"]["minReplicas"] = 3
        with pytest.raises(ClusterError, match="refused by a webhook") as caught:
            await apply(client, service)
        assert caught.value.where == f"InferenceService {spec.namespace}/smol-kserve"


async def test_diagnostics_tell_all_but_the_key(cluster: Cluster, spec: ServingSpec, tmp_path: Path) -> None:
    async with session(cluster, spec) as client:
        await apply_raw(client, cluster, spec, KEY)
        await apply_kserve(client, cluster, spec, KEY)
        await pod_of(client, spec, {"app.kubernetes.io/instance": "smol-raw"})
        await pod_of(client, spec, {"serving.kserve.io/inferenceservice": "smol-kserve"})
        await tell_event(client, spec)
        written = await collect(cluster, spec.namespace, tmp_path)
    names = {str(path.relative_to(tmp_path)) for path in written}
    objects = f"objects/{spec.namespace}"
    assert {f"{objects}/pods.yaml", f"{objects}/inferenceservices.yaml", f"{objects}/httproutes.yaml"} <= names
    assert {f"events/{spec.namespace}.txt", f"secrets/{spec.namespace}.txt"} <= names
    texts = [path.read_text() for path in written]
    assert any("Warning Told Pod/smol: by the test, which quotes [redacted]" in text for text in texts)
    assert any("smol-raw: VLLM_API_KEY" in text for text in texts)
    assert not any(KEY in text or "a2V5LW9mLXRoZS10ZXN0" in text for text in texts)


async def test_diagnostics_of_a_cluster_that_is_gone_raise_nothing(cluster: Cluster, tmp_path: Path) -> None:
    gone = replace(cluster, kubeconfig=tmp_path / "nothing")
    (problems,) = await collect(gone, "x", tmp_path)
    assert "not found" in problems.read_text()


async def test_facts(cluster: Cluster) -> None:
    facts = await node_facts(cluster)
    assert facts["nodes"] == 0 or facts["kubelet"].startswith("v1.")
