"""Stop and start of both paths on a real API server with KServe's controller; no pod ever runs there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from lightkube.codecs import from_dict
from lightkube.resources.core_v1 import Pod

from servepath.cluster.objects import ensure_namespace, read
from servepath.cluster.wait import until
from servepath.errors import ClusterError
from servepath.serving.find import find
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.switch import start, stop, until_no_pods
from tests.cluster.session import session
from tests.cluster.unschedulable import DEPLOYMENT, IMAGE, TIMEOUT_S, apply, unschedulable

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]

LABELS = {
    ServingPath.RAW: {"app.kubernetes.io/instance": "smol-raw"},
    ServingPath.KSERVE: {"serving.kserve.io/inferenceservice": "smol-kserve"},
}


@pytest.fixture
def spec() -> ServingSpec:
    return unschedulable("switch")


async def deployed(client: AsyncClient, spec: ServingSpec, path: ServingPath) -> dict[str, Any]:
    """Await the path's Deployment with its one pod."""

    def with_a_pod(obj: dict[str, Any] | None) -> dict[str, Any] | None:
        return obj if obj is not None and (obj.get("status") or {}).get("replicas") == 1 else None

    return await until(
        client, "Deployment", spec.namespace, DEPLOYMENT[path], with_a_pod, timeout_s=TIMEOUT_S, expected="one pod"
    )


async def pods(client: AsyncClient, spec: ServingSpec, path: ServingPath) -> list[str]:
    listed = client.list(Pod, namespace=spec.namespace, labels=dict(LABELS[path]))
    return [str(pod.metadata.name) async for pod in listed if pod.metadata]


@pytest.mark.parametrize("path", list(ServingPath))
async def test_stop_leaves_no_pod_and_a_second_stop_changes_nothing(
    cluster: Cluster, spec: ServingSpec, path: ServingPath
) -> None:
    async with session(cluster, spec) as client:
        await apply(client, cluster, spec, path)
        await deployed(client, spec, path)
        assert await pods(client, spec, path)
        first = await stop(cluster, spec.namespace, spec.name, path)
        assert (first.path, first.changed) == (path, True)
        assert await pods(client, spec, path) == []
        second = await stop(cluster, spec.namespace, spec.name, path)
        assert second.changed is False
        with pytest.raises(ClusterError, match="stopped") as caught:
            await find(cluster, spec.namespace, spec.name, path, spec.profile)
        assert caught.value.next_command.startswith(f"servepath start --path {path}")


@pytest.mark.parametrize("path", list(ServingPath))
async def test_start_brings_the_pod_back_and_says_what_it_waited_for(
    cluster: Cluster, spec: ServingSpec, path: ServingPath
) -> None:
    async with session(cluster, spec) as client:
        await apply(client, cluster, spec, path)
        await deployed(client, spec, path)
        await stop(cluster, spec.namespace, spec.name, path)
        with pytest.raises(ClusterError, match=f"awaited the rollout of Deployment {DEPLOYMENT[path]}"):
            await start(cluster, spec.namespace, spec.name, path, spec.profile)
        assert (await deployed(client, spec, path))["spec"]["replicas"] == 1


@pytest.mark.parametrize("path", list(ServingPath))
async def test_a_deploy_starts_what_was_stopped(cluster: Cluster, spec: ServingSpec, path: ServingPath) -> None:
    async with session(cluster, spec) as client:
        await apply(client, cluster, spec, path)
        await deployed(client, spec, path)
        await stop(cluster, spec.namespace, spec.name, path)
        await apply(client, cluster, spec, path)
        assert (await deployed(client, spec, path))["spec"]["replicas"] == 1


@pytest.mark.parametrize("path", list(ServingPath))
async def test_what_is_not_deployed_says_so(cluster: Cluster, spec: ServingSpec, path: ServingPath) -> None:
    with pytest.raises(ClusterError, match="not deployed"):
        await stop(cluster, spec.namespace, spec.name, path)


async def test_what_is_not_ours_is_left_alone(cluster: Cluster, spec: ServingSpec) -> None:
    template = {"metadata": {"labels": {"app": "theirs"}}, "spec": {"containers": [{"name": "web", "image": IMAGE}]}}
    theirs: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "smol-raw", "namespace": spec.namespace},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "theirs"}}, "template": template},
    }
    async with session(cluster, spec) as client:
        await ensure_namespace(client, spec.namespace)
        await client.create(from_dict(theirs))
        with pytest.raises(ClusterError, match="servepath did not make it"):
            await stop(cluster, spec.namespace, spec.name, ServingPath.RAW)
        kept = await read(client, "Deployment", "smol-raw", spec.namespace)
        assert kept is not None
        assert kept["spec"]["replicas"] == 1


async def test_pods_that_stay_are_named(cluster: Cluster, spec: ServingSpec) -> None:
    async with session(cluster, spec) as client:
        await apply(client, cluster, spec, ServingPath.RAW)
        await deployed(client, spec, ServingPath.RAW)
        with pytest.raises(ClusterError, match=r"still there after 1 s: smol-raw-"):
            await until_no_pods(client, spec.namespace, LABELS[ServingPath.RAW], timeout_s=1)
