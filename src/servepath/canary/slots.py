"""A slot from its making to its end: deployed without a route of KServe's own, drained, and put away."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import anyio
import httpx2
from lightkube.resources.core_v1 import Pod

from servepath.canary.gateway import await_taken
from servepath.canary.state import Phase
from servepath.cluster.client import errors_of, kubernetes
from servepath.cluster.wait import is_true
from servepath.serving.deploy import apply_kserve, delete, delete_one, expect_kserve
from servepath.serving.model import ServingPath
from servepath.serving.readiness import await_rolled_out
from servepath.serving.render import object_name
from servepath.serving.slots import Slot, route_name, slot_name
from servepath.serving.switch import stop

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.serving.model import Endpoint, ServingSpec

CLUSTER_LOCAL = {"networking.kserve.io/visibility": "cluster-local"}
"""KServe then makes no HTTPRoute. Only for a service that is not there yet, or is stopped: KServe copies the labels of
an InferenceService to its pods, so on one that serves this would be a restart (KServe v0.19.0,
pkg/controller/v1beta1/inferenceservice/components/predictor.go:450 and ingress/httproute_reconciler.go:1026)."""

_UNDER_WAY = re.compile(r"^vllm:num_requests_(?:running|waiting)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_ENGINE_PORT = 8080
_POLL_S = 0.5


async def deploy_slot(client: AsyncClient, cluster: Cluster, spec: ServingSpec, slot: Slot, api_key: str) -> None:
    """Deploy a model into a slot and await that its engine is ready. No request can reach it yet.

    Raises:
        UsageError: the spec cannot be.
        ClusterError: with the real cause.
    """
    its = spec.in_slot(slot)
    objects = await apply_kserve(client, cluster, its, api_key, labels=CLUSTER_LOCAL)
    await await_rolled_out(client, expect_kserve(its, objects), api_key)


async def await_left(
    client: AsyncClient, spec: ServingSpec, endpoint: Endpoint, revision: int | None, slot: Slot
) -> None:
    """Await that the gateway leads nobody to a slot any more and that no request is under way there: it may go then.

    Args:
        client: the Kubernetes client.
        spec: the model, under the base name of both slots.
        endpoint: the stable hostname.
        revision: of the route that does not lead there; None where there is no route of ours any more.
        slot: which serves nobody.

    Raises:
        ClusterError: the gateway still leads by another state of the route after a minute.
    """
    await await_taken(endpoint, revision)
    await _await_drained(client, spec, slot)


async def _await_drained(client: AsyncClient, spec: ServingSpec, slot: Slot) -> None:
    """Await that the engine of a slot has no request under way.

    Asked of the engine itself, through the API server. Where it does not tell (it is gone, or nobody may ask it), the
    longest time that the route gives a request is awaited: behind it the gateway has ended every one.
    """
    labels = {"serving.kserve.io/inferenceservice": object_name(spec.in_slot(slot), ServingPath.KSERVE)}
    with anyio.move_on_after(spec.profile.request_timeout_s):
        while True:
            if not await _under_way(client, spec.namespace, labels):
                return
            # An engine tells of no event: it can only be asked again.
            await anyio.sleep(_POLL_S)


async def put_away(cluster: Cluster, spec: ServingSpec, slot: Slot, phase: Phase) -> None:
    """Stop the slot that a promoted canary replaced, or delete the one of a canary that was rolled back.

    Raises:
        ClusterError: the API server refuses, or its pods are still there after three minutes.
    """
    if phase is Phase.PROMOTED:
        await stop(cluster, spec.namespace, slot_name(spec.name, slot), ServingPath.KSERVE)
    else:
        await delete(cluster, spec.namespace, slot_name(spec.name, slot), (ServingPath.KSERVE,))


async def delete_canary(cluster: Cluster, namespace: str, name: str) -> tuple[str, ...]:
    """Delete what canaries left beside the blue slot: the route of the stable hostname, then the green slot.

    Returns:
        What was deleted, such as `HTTPRoute qwen-stable`.

    Raises:
        ClusterError: the API server refuses, or something is still there after three minutes.
    """
    async with kubernetes(cluster) as client:
        route = route_name(name)
        has_route = await delete_one(client, "HTTPRoute", namespace, route)
    green = await delete(cluster, namespace, slot_name(name, Slot.GREEN), (ServingPath.KSERVE,))
    return ((f"HTTPRoute {route}",) if has_route else ()) + green


async def _under_way(client: AsyncClient, namespace: str, labels: dict[str, str]) -> bool:
    """Tell whether a ready pod has, or may have, a request under way."""
    with errors_of(f"pods in {namespace}"):
        pods = [pod.to_dict() async for pod in client.list(Pod, namespace=namespace, labels=dict(labels))]
    ready = [pod["metadata"]["name"] for pod in pods if is_true(pod, "Ready")]
    return any([await _requests_of(client, namespace, name) for name in ready])


async def _requests_of(client: AsyncClient, namespace: str, pod: str) -> bool:
    # lightkube 1.0.1 has no call for a pod's proxy: the request is made as it makes its own.
    http = client._client._client  # noqa: SLF001
    try:
        answer = await http.get(f"/api/v1/namespaces/{namespace}/pods/{pod}:{_ENGINE_PORT}/proxy/metrics")
    except httpx2.HTTPError:
        return True
    counts = [float(value) for value in _UNDER_WAY.findall(answer.text)]
    return not answer.is_success or not counts or sum(counts) > 0
