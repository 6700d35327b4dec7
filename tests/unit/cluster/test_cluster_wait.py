"""A state is awaited through what API servers and what stands before them do now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from servepath.cluster import wait
from servepath.cluster.client import kubernetes
from servepath.cluster.wait import until
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from servepath.cluster.model import Cluster
    from servepath.cluster.objects import Json
    from tests.unit.promotion.api_server import World

pytestmark = pytest.mark.anyio

AWAITED = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "awaited"}}


async def until_it_is_there(cluster: Cluster) -> str:
    def name_of(obj: Json | None) -> str | None:
        return None if obj is None else str(obj["metadata"]["name"])

    async with kubernetes(cluster) as client:
        return await until(client, "ConfigMap", "demo", "awaited", name_of, timeout_s=20, expected="there")


def refuse_the_watch(world: World, status: int) -> None:
    """Answer the list, then this status to the watch that follows; what is awaited comes in between."""
    asked = 0

    def fault(*_: str) -> int:
        nonlocal asked
        asked += 1
        if asked != 2:
            return 0
        world.put("configmaps", "demo", AWAITED)
        return status

    world.fault = fault


@pytest.mark.parametrize("status", [410, 429, 500, 502, 503, 504])
async def test_a_watch_that_a_busy_api_server_refuses_is_begun_again(
    cluster: Cluster, world: World, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "_RETRY_DELAY_S", 0.01)
    refuse_the_watch(world, status)
    assert await until_it_is_there(cluster) == "awaited"


async def test_a_watch_ends_before_what_stands_between_forgets_it(
    cluster: Cluster, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[httpx2.URL] = []

    send = httpx2.AsyncClient.send

    async def noting(self: httpx2.AsyncClient, request: httpx2.Request, **how: Any) -> httpx2.Response:
        asked.append(request.url)
        if len(asked) == 3:
            world.put("configmaps", "demo", AWAITED)
        return await send(self, request, **how)

    monkeypatch.setattr(httpx2.AsyncClient, "send", noting)
    assert await until_it_is_there(cluster) == "awaited"
    watches = [url.params for url in asked if url.params.get("watch") == "true"]
    assert watches
    assert all(0 < int(watch["timeoutSeconds"]) < 600 for watch in watches)


async def test_a_watch_that_may_not_be_is_not_begun_again(cluster: Cluster, world: World) -> None:
    refuse_the_watch(world, 403)
    with pytest.raises(ClusterError, match="HTTP 403"):
        await until_it_is_there(cluster)
