"""The stage `deploy`: the candidate's engine runs, and no client is led to it yet where that can be had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from servepath.canary.gateway import prove
from servepath.canary.slots import deploy_slot
from servepath.canary.stable import find_stable
from servepath.errors import UsageError
from servepath.promotion.record import Strategy
from servepath.serving.deploy import apply_kserve, deploy_kserve, deploy_raw, expect_kserve
from servepath.serving.find import api_key_of
from servepath.serving.model import ServingPath
from servepath.serving.readiness import await_ready, await_rolled_out

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from servepath.promotion.current import Current
    from servepath.promotion.model import PromotionRequest
    from servepath.serving.model import Endpoint


async def deploy(
    client: AsyncClient, request: PromotionRequest, current: Current, strategy: Strategy
) -> Endpoint | None:
    """Deploy what is promoted and await that it is ready.

    Returns:
        Its endpoint; None for a canary, which the gateway does not lead to before it is one.

    Raises:
        UsageError: the spec cannot be, or a first engine has no key.
        ClusterError: with the real cause.
    """
    cluster, spec = request.cluster, request.spec
    key = await _key(client, request, current)
    if strategy is Strategy.CANARY:
        await deploy_slot(client, cluster, spec, current.slot.other, key)
        return None
    if request.path is not ServingPath.KSERVE:
        return await deploy_raw(cluster, spec, key)
    if strategy is Strategy.FIRST:
        return await deploy_kserve(cluster, spec, key)
    return await _replace(client, request, current, key)


async def _replace(client: AsyncClient, request: PromotionRequest, current: Current, key: str) -> Endpoint:
    """Put the candidate into the slot of what is there; the names and the routes stay."""
    cluster, spec = request.cluster, request.spec
    its = current.place_of(spec, Strategy.REPLACE, request.path)
    objects = await apply_kserve(client, cluster, its, key, labels=current.labels)
    expected = expect_kserve(its, objects)
    if current.labels:  # KServe makes no route of its own: the stable hostname's leads there
        await await_rolled_out(client, expected, key)
    else:
        await await_ready(client, cluster, expected, key)
    stable = await find_stable(client, cluster, spec.namespace, spec.name, spec.profile)
    await prove(stable.endpoint)
    return stable.endpoint


async def _key(client: AsyncClient, request: PromotionRequest, current: Current) -> str:
    """Give the key that clients have, or that of the first engine."""
    if current.engine is not None:
        return await api_key_of(client, current.engine, request.path)
    if not request.api_key:
        raise UsageError("a first engine needs a key", where="api_key", expected="SERVEPATH_API_KEY, or a new one")
    return request.api_key
