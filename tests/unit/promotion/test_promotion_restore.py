"""Back to exactly what was there, whatever has been done since, and nothing of anybody else."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servepath.cluster.client import kubernetes
from servepath.errors import ClusterError
from servepath.promotion.inventory import inventory, is_of
from servepath.promotion.restore import NoWaits, restore, take_snapshot
from tests.unit.promotion.examples import NAMESPACE, RELEASE, service

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from tests.unit.promotion.api_server import World

pytestmark = pytest.mark.anyio
NAMES = ("a", "b", "c", "d")
FOREIGN = {
    "others": service("others", labels={"app.kubernetes.io/managed-by": "helm"}),
    "another-release": service("another-release", release="smol-2"),
}


def put(world: World, obj: dict[str, Any]) -> None:
    world.put("services", NAMESPACE, obj)


@given(
    before=st.dictionaries(st.sampled_from(NAMES), st.integers(1, 3)),
    after=st.dictionaries(st.sampled_from(NAMES), st.integers(1, 3)),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_whatever_was_done_is_undone(
    world: World, cluster: Cluster, before: dict[str, int], after: dict[str, int]
) -> None:
    world.objects.clear()
    for obj in FOREIGN.values():
        put(world, obj)
    for name, port in before.items():
        put(world, service(name, port))
    was = world.seen("services")
    async with kubernetes(cluster) as client:
        snapshot = await take_snapshot(client, NAMESPACE, RELEASE)
        for name in NAMES:
            world.objects.pop(("services", NAMESPACE, name), None)
        for name, port in after.items():
            put(world, service(name, port))
        await restore(client, NAMESPACE, RELEASE, snapshot, NoWaits())
        assert world.seen("services") == was
        writes = world.writes
        assert str(await restore(client, NAMESPACE, RELEASE, snapshot, NoWaits())) == "nothing had changed"
        assert world.writes == writes


async def test_it_says_what_it_did(client: AsyncClient, world: World) -> None:
    put(world, service("changed"))
    put(world, service("deleted"))
    snapshot = await take_snapshot(client, NAMESPACE, RELEASE)
    put(world, service("changed", 81))
    put(world, service("made"))
    del world.objects["services", NAMESPACE, "deleted"]
    done = await restore(client, NAMESPACE, RELEASE, snapshot, NoWaits())
    assert done.deleted == ("Service serving/made",)
    assert done.put_back == ("Service serving/changed", "Service serving/deleted")


async def test_a_key_that_was_changed_or_deleted_is_put_back(client: AsyncClient, world: World) -> None:
    secret = service("key") | {"kind": "Secret", "data": {"VLLM_API_KEY": "b3BlbnNlc2FtZQ=="}}
    del secret["spec"]
    world.put("secrets", NAMESPACE, secret)
    was = world.seen("secrets")
    snapshot = await take_snapshot(client, NAMESPACE, RELEASE)
    world.put("secrets", NAMESPACE, secret | {"data": {"VLLM_API_KEY": "b3RoZXI="}})
    await restore(client, NAMESPACE, RELEASE, snapshot, NoWaits())
    assert world.seen("secrets") == was
    world.objects.clear()
    await restore(client, NAMESPACE, RELEASE, snapshot, NoWaits())
    assert world.seen("secrets") == was


async def test_a_kind_that_the_cluster_does_not_serve_has_no_objects(client: AsyncClient, world: World) -> None:
    put(world, service("a"))
    world.unserved |= {"inferenceservices"}
    assert [obj["metadata"]["name"] for obj in await inventory(client, NAMESPACE, RELEASE)] == ["a"]
    world.unserved -= {"inferenceservices"}
    world.fault = lambda _, path: 403 if "inferenceservices" in path else 0
    with pytest.raises(ClusterError, match="Forbidden"):
        await inventory(client, NAMESPACE, RELEASE)


def test_what_a_controller_made_of_another_object_is_not_the_releases_own() -> None:
    made = copy.deepcopy(service("predictor"))
    assert is_of(made, RELEASE)
    made["metadata"]["ownerReferences"] = [{"kind": "InferenceService", "name": "smol-kserve", "controller": True}]
    assert not is_of(made, RELEASE)
