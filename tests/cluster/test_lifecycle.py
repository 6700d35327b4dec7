"""What a lifecycle measurement does to both paths, on a real API server with KServe's controller; no pod ever runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from servepath.cluster.objects import read
from servepath.cluster.wait import until
from servepath.errors import ClusterError
from servepath.lifecycle import rollout
from servepath.lifecycle.footprint import kubelet_footprint
from servepath.lifecycle.rollout import RECREATE, ROLLING_UPDATE, STAMP
from servepath.lifecycle.staging import pull_times_s, staging_time_s
from servepath.serving.deploy import apply_kserve
from servepath.serving.direct import direct_endpoint
from servepath.serving.model import Endpoint, ServingPath, ServingSpec
from servepath.serving.switch import our_engine
from tests.cluster.session import session
from tests.cluster.unschedulable import DEPLOYMENT, IMAGE, TIMEOUT_S, apply, unschedulable

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.anyio]


@pytest.fixture
def spec() -> ServingSpec:
    return unschedulable("lifecycle")


def endpoint_of(cluster: Cluster, spec: ServingSpec, path: ServingPath) -> Endpoint:
    return Endpoint(
        path, cluster.gateway_url, "x.test", "smol", spec.namespace, DEPLOYMENT[path], "sha256:0", IMAGE, 0.0
    )


async def deployment(client: AsyncClient, spec: ServingSpec, path: ServingPath, **wanted: str) -> dict[str, Any]:
    """Await the path's Deployment, with these annotations of its pods."""

    def found(obj: dict[str, Any] | None) -> dict[str, Any] | None:
        if obj is None:
            return None
        annotations = obj["spec"]["template"]["metadata"].get("annotations") or {}
        return obj if wanted.items() <= annotations.items() else None

    return await until(
        client, "Deployment", spec.namespace, DEPLOYMENT[path], found, timeout_s=TIMEOUT_S, expected="there"
    )


@pytest.mark.parametrize("path", list(ServingPath))
async def test_the_strategy_is_set_for_an_update_and_put_back(
    cluster: Cluster, spec: ServingSpec, path: ServingPath
) -> None:
    async with session(cluster, spec) as client:
        await apply(client, cluster, spec, path)
        before = await deployment(client, spec, path)
        assert before["spec"]["strategy"]["type"] == RECREATE
        async with rollout._strategy(client, spec, path, ROLLING_UPDATE):
            during = await deployment(client, spec, path)
            assert during["spec"]["strategy"] == {
                "type": ROLLING_UPDATE,
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            }
            assert during["spec"]["template"] == before["spec"]["template"], "the strategy alone starts no pod anew"
        after = await deployment(client, spec, path)
        assert after["spec"]["strategy"] == {"type": RECREATE}


@pytest.mark.parametrize("path", list(ServingPath))
async def test_an_update_reaches_the_pods_and_says_what_it_waited_for(
    cluster: Cluster, spec: ServingSpec, path: ServingPath
) -> None:
    async with session(cluster, spec) as client:
        await apply(client, cluster, spec, path)
        before = await deployment(client, spec, path)
        engine = await our_engine(client, spec.namespace, spec.name, path)
        with pytest.raises(ClusterError, match=f"awaited the rollout of Deployment {DEPLOYMENT[path]}"):
            await rollout._update(client, cluster, spec, engine, endpoint_of(cluster, spec, path))
        after = await deployment(client, spec, path)
        changed = after["spec"]["template"]["metadata"]["annotations"].keys()
        assert changed - (before["spec"]["template"]["metadata"].get("annotations") or {}).keys() == {STAMP}
        assert after["spec"]["template"]["spec"] == before["spec"]["template"]["spec"]


@pytest.mark.parametrize("path", list(ServingPath))
async def test_a_service_that_cannot_be_reached_says_where_it_is(
    cluster: Cluster, spec: ServingSpec, path: ServingPath
) -> None:
    with pytest.raises(ClusterError, match="not there"):
        await direct_endpoint(cluster, endpoint_of(cluster, spec, path))
    async with session(cluster, spec) as client:
        await apply(client, cluster, spec, path)
        await deployment(client, spec, path)
        service = await until(
            client, "Service", spec.namespace, DEPLOYMENT[path], lambda obj: obj, timeout_s=TIMEOUT_S, expected="there"
        )
        with pytest.raises(ClusterError, match="no connection can be made from here") as caught:
            await direct_endpoint(cluster, endpoint_of(cluster, spec, path))
        assert service["spec"]["clusterIP"] in caught.value.where


async def test_no_pull_and_no_node_are_no_numbers(cluster: Cluster, spec: ServingSpec) -> None:
    async with session(cluster, spec) as client:
        await apply(client, cluster, spec, ServingPath.RAW)
        assert await pull_times_s(client, spec.namespace, IMAGE, {"smol-raw"}) == ()
        assert await kubelet_footprint(cluster) == {}


async def test_a_copy_needs_the_raw_paths_claim_to_be_like(cluster: Cluster, spec: ServingSpec) -> None:
    async with session(cluster, spec) as client:
        await apply_kserve(client, cluster, spec, "key-of-the-test")
        with pytest.raises(ClusterError, match="not deployed") as caught:
            await staging_time_s(cluster, spec)
        assert "smol-raw" in caught.value.where
        assert await read(client, "Pod", "smol-staging", spec.namespace) is None
