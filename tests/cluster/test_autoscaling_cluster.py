"""The classes of autoscaling on a real API server: what KServe's manager makes of them, and what a stop does to them.

KEDA itself does not run: its kind is known, and nothing acts on the objects.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from lightkube.types import PatchType

from ci.node import keda
from servepath.cluster.objects import KINDS, ensure_namespace, read
from servepath.cluster.wait import conditions, until, until_gone
from servepath.errors import ClusterError
from servepath.serving.autoscaling import FORCE_ACTIVATION, PAUSED_REPLICAS
from servepath.serving.deploy import apply_kserve, delete
from servepath.serving.model import AutoscalerClass, Autoscaling, ServingPath, ServingSpec
from servepath.serving.switch import start, stop
from tests.cluster.session import session
from tests.cluster.unschedulable import DEPLOYMENT, TIMEOUT_S, apply, unschedulable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lightkube import AsyncClient

    from ci.node.control_plane import ControlPlane
    from ci.node.layout import Layout
    from servepath.cluster.model import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

HPA = Autoscaling(AutoscalerClass.HPA, min_replicas=1, max_replicas=3, cpu_percent=70)
KEDA = replace(HPA, autoscaler=AutoscalerClass.KEDA, waiting_per_replica=4)
TO_ZERO = replace(KEDA, min_replicas=0, wake_query="sum(rate(requests_total[1m]))")
CLUSTER_LOCAL = {"networking.kserve.io/visibility": "cluster-local"}


def scaled(autoscaling: Autoscaling) -> ServingSpec:
    spec = unschedulable("scaling")
    return replace(spec, profile=replace(spec.profile, autoscaling=autoscaling))


@pytest.fixture(scope="session")
def keda_known(layout: Layout, plane: ControlPlane, cluster: Cluster) -> None:  # noqa: ARG001 - KServe started before it
    """ScaledObjects are a kind of the API server from now on."""

    async def make() -> None:
        await keda.apply(plane, await keda.prepare(layout.cache))

    anyio.run(make)


async def made(
    client: AsyncClient, kind: str, spec: ServingSpec, name: str, wanted: Callable[[dict[str, Any]], bool] = bool
) -> dict[str, Any]:
    """Await an object of the spec's namespace in a state."""

    def judge(obj: dict[str, Any] | None) -> dict[str, Any] | None:
        return obj if obj is not None and wanted(obj) else None

    return await until(client, kind, spec.namespace, name, judge, timeout_s=TIMEOUT_S, expected="as wanted")


def is_ready(service: dict[str, Any]) -> bool:
    ready = conditions(service).get("Ready")
    return ready is not None and ready.status == "True"


def annotation(obj: dict[str, Any], key: str) -> str | None:
    found: str | None = (obj["metadata"].get("annotations") or {}).get(key)
    return found


# Before any test that makes the kind known.
@pytest.mark.parametrize("path", list(ServingPath))
async def test_without_keda_the_class_is_refused_with_how_to_get_it(cluster: Cluster, path: ServingPath) -> None:
    spec = scaled(KEDA)
    async with session(cluster, spec) as client:
        await ensure_namespace(client, spec.namespace)
        with pytest.raises(ClusterError, match="KEDA is not installed") as caught:
            await apply(client, cluster, spec, path)
        assert caught.value.next_command.startswith("helm install keda")


async def test_kserve_makes_a_horizontal_pod_autoscaler_on_the_cpu(cluster: Cluster) -> None:
    spec = scaled(HPA)
    async with session(cluster, spec) as client:
        await apply_kserve(client, cluster, spec, "key-of-the-test")
        hpa = (await made(client, "HorizontalPodAutoscaler", spec, "smol-kserve-predictor"))["spec"]
        assert (hpa["minReplicas"], hpa["maxReplicas"]) == (1, 3)
        assert hpa["scaleTargetRef"]["name"] == "smol-kserve-predictor"
        [metric] = hpa["metrics"]
        assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}


@pytest.mark.usefixtures("keda_known")
async def test_kserve_makes_a_scaledobject_of_the_queries(cluster: Cluster) -> None:
    spec = scaled(TO_ZERO)
    async with session(cluster, spec) as client:
        await apply_kserve(client, cluster, spec, "key-of-the-test")
        keda_object = (await made(client, "ScaledObject", spec, "smol-kserve-predictor"))["spec"]
        assert (keda_object["minReplicaCount"], keda_object["maxReplicaCount"]) == (0, 3)
        waiting, running, waking = (trigger["metadata"] for trigger in keda_object["triggers"])
        labels = f'{{namespace="{spec.namespace}",pod=~"smol-kserve-predictor-.*"}}'
        assert waiting == {
            "serverAddress": TO_ZERO.prometheus_url,
            "query": f"sum(vllm:num_requests_waiting{labels})",
            "threshold": "4",
        }
        assert running["query"] == f"sum(vllm:num_requests_running{labels})"
        assert waking["query"] == TO_ZERO.wake_query
        # KServe has no field for it: KEDA's five minutes hold, however long an engine takes to start.
        assert "cooldownPeriod" not in keda_object


@pytest.mark.usefixtures("keda_known")
async def test_kserve_leaves_the_scaledobject_of_a_class_that_was_and_a_deploy_takes_it_away(cluster: Cluster) -> None:
    spec = scaled(KEDA)
    name = "smol-kserve-predictor"
    async with session(cluster, spec) as client:
        await apply_kserve(client, cluster, spec, "key-of-the-test")
        await made(client, "ScaledObject", spec, name)
        by_hand = {
            "metadata": {"annotations": {"serving.kserve.io/autoscalerClass": "hpa"}},
            "spec": {"predictor": {"autoScaling": None}},
        }
        await client.patch(
            KINDS["InferenceService"], "smol-kserve", by_hand, namespace=spec.namespace, patch_type=PatchType.MERGE
        )
        await made(client, "HorizontalPodAutoscaler", spec, name)
        assert await read(client, "ScaledObject", name, spec.namespace) is not None
        changed = replace(spec, profile=replace(spec.profile, autoscaling=HPA))
        await apply_kserve(client, cluster, changed, "key-of-the-test")
        await until_gone(client, "ScaledObject", spec.namespace, name, timeout_s=TIMEOUT_S)
        assert await read(client, "HorizontalPodAutoscaler", name, spec.namespace) is not None


@pytest.mark.usefixtures("keda_known")
@pytest.mark.parametrize(("autoscaling", "kind"), [(HPA, "HorizontalPodAutoscaler"), (KEDA, "ScaledObject")])
async def test_raw_has_an_autoscaler_that_an_apply_does_not_fight_and_a_delete_takes_away(
    cluster: Cluster, autoscaling: Autoscaling, kind: str
) -> None:
    spec = scaled(autoscaling)
    async with session(cluster, spec) as client:
        await apply(client, cluster, spec, ServingPath.RAW)
        assert await read(client, kind, "smol-raw", spec.namespace) is not None
        grown = {"spec": {"replicas": 3}}
        await client.patch(KINDS["Deployment"], "smol-raw", grown, namespace=spec.namespace, patch_type=PatchType.MERGE)
        await apply(client, cluster, spec, ServingPath.RAW)
        assert (await made(client, "Deployment", spec, "smol-raw"))["spec"]["replicas"] == 3
        one_engine = replace(spec, profile=replace(spec.profile, autoscaling=Autoscaling()))
        await apply(client, cluster, one_engine, ServingPath.RAW)
        await until_gone(client, kind, spec.namespace, "smol-raw", timeout_s=TIMEOUT_S)
        assert (await made(client, "Deployment", spec, "smol-raw"))["spec"]["replicas"] == 1
        await apply(client, cluster, spec, ServingPath.RAW)
        assert f"{kind} smol-raw" in await delete(cluster, spec.namespace, spec.name, [ServingPath.RAW])


@pytest.mark.usefixtures("keda_known")
async def test_a_stopped_raw_path_is_held_against_keda_until_it_is_started_or_deployed(cluster: Cluster) -> None:
    spec = scaled(KEDA)
    async with session(cluster, spec) as client:
        await apply(client, cluster, spec, ServingPath.RAW)
        await stop(cluster, spec.namespace, spec.name, ServingPath.RAW)
        held = await made(client, "ScaledObject", spec, "smol-raw")
        assert annotation(held, PAUSED_REPLICAS) == "0"
        with pytest.raises(ClusterError, match="awaited the rollout"):
            await start(cluster, spec.namespace, spec.name, ServingPath.RAW, spec.profile)
        assert annotation(await made(client, "ScaledObject", spec, "smol-raw"), PAUSED_REPLICAS) is None
        await stop(cluster, spec.namespace, spec.name, ServingPath.RAW)
        await apply(client, cluster, spec, ServingPath.RAW)
        assert annotation(await made(client, "ScaledObject", spec, "smol-raw"), PAUSED_REPLICAS) is None
        assert (await made(client, "Deployment", spec, "smol-raw"))["spec"]["replicas"] == 1


@pytest.mark.usefixtures("keda_known")
@pytest.mark.parametrize("path", list(ServingPath))
async def test_a_sleeping_path_is_kept_awake_while_it_is_started_and_no_longer(
    cluster: Cluster, path: ServingPath
) -> None:
    spec = scaled(TO_ZERO)
    name = DEPLOYMENT[path]
    async with session(cluster, spec) as client:
        await apply(client, cluster, spec, path)
        await made(client, "ScaledObject", spec, name)
        asleep = {"spec": {"replicas": 0}}
        await made(client, "Deployment", spec, name)
        await client.patch(KINDS["Deployment"], name, asleep, namespace=spec.namespace, patch_type=PatchType.MERGE)
        seen = []

        async def watch() -> None:
            awake = await made(
                client, "ScaledObject", spec, name, lambda obj: annotation(obj, FORCE_ACTIVATION) == "true"
            )
            seen.append(awake)

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            with pytest.raises(ClusterError, match="awaited the rollout"):
                await start(cluster, spec.namespace, spec.name, path, spec.profile)
        assert seen
        assert annotation(await made(client, "ScaledObject", spec, name), FORCE_ACTIVATION) is None


@pytest.fixture
async def sleeping(cluster: Cluster) -> AsyncIterator[tuple[AsyncClient, ServingSpec]]:
    """An InferenceService without an autoscaler and without replicas."""
    spec = unschedulable("sleeping")
    async with session(cluster, spec) as client:
        await apply_kserve(client, cluster, spec, "key-of-the-test")
        none = {"metadata": {"labels": CLUSTER_LOCAL}, "spec": {"predictor": {"minReplicas": 0}}}
        await client.patch(
            KINDS["InferenceService"], "smol-kserve", none, namespace=spec.namespace, patch_type=PatchType.MERGE
        )
        yield client, spec


async def test_no_autoscaler_and_no_replicas_is_ready_with_zero_pods(
    sleeping: tuple[AsyncClient, ServingSpec],
) -> None:
    client, spec = sleeping
    await made(client, "Deployment", spec, "smol-kserve-predictor", lambda obj: obj["spec"]["replicas"] == 0)
    await made(client, "InferenceService", spec, "smol-kserve", is_ready)
    deployment = await made(client, "Deployment", spec, "smol-kserve-predictor")
    assert deployment["status"].get("replicas", 0) == 0
