"""A path past its gateway: the Service in front of its engine, where that is reachable from here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
from lightkube.resources.core_v1 import Pod

from servepath.cluster.client import errors_of, kubernetes
from servepath.cluster.objects import read
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from servepath.cluster.model import Cluster
    from servepath.cluster.objects import Json
    from servepath.serving.model import Endpoint

_CONNECT_TIMEOUT_S = 3.0
_NO_ADDRESS = "None"


async def direct_endpoint(cluster: Cluster, endpoint: Endpoint) -> Endpoint:
    """Give a path's endpoint at its Service's address, so that what the gateway costs can be told apart.

    A Service without an address of its own (KServe makes such where its configuration says `serviceClusterIPNone`)
    gives its pod's address. No name is used: outside of a cluster nobody resolves its names.

    Args:
        cluster: where.
        endpoint: the path, through its gateway.

    Raises:
        ClusterError: the Service is not there, or no connection to it can be made from here, as on most clusters from
            outside.
    """
    async with kubernetes(cluster) as client:
        service = await read(client, "Service", endpoint.workload, endpoint.namespace)
        if service is None:
            raise ClusterError("not there", where=f"Service {endpoint.namespace}/{endpoint.workload}")
        address, port = await _address(client, endpoint, service)
    host = f"[{address}]" if ":" in address else address
    base_url = f"http://{host}:{port}"
    await _answers(base_url, f"Service {endpoint.namespace}/{endpoint.workload} at {address}:{port}")
    return replace(endpoint, base_url=base_url, host="")


async def _answers(base_url: str, where: str) -> None:
    """See that it is the engine that answers there: a proxy on the way out may take any connection."""
    expected = "a machine whose routes lead to the cluster's Services, such as a node"
    try:
        async with httpx.AsyncClient(timeout=_CONNECT_TIMEOUT_S, trust_env=False) as client:
            response = await client.get(f"{base_url}/health")
    except httpx.HTTPError as error:
        raise ClusterError("no connection can be made from here", where=where, expected=expected) from error
    if response.status_code != httpx.codes.OK:
        raise ClusterError(f"/health answers {response.status_code} from here", where=where, expected=expected)


async def _address(client: AsyncClient, endpoint: Endpoint, service: Json) -> tuple[str, int]:
    spec = service["spec"]
    port = spec["ports"][0]
    if spec.get("clusterIP") not in (None, "", _NO_ADDRESS):
        return str(spec["clusterIP"]), int(port["port"])
    with errors_of(f"pods in {endpoint.namespace}"):
        listed = client.list(Pod, namespace=endpoint.namespace, labels=dict(spec.get("selector") or {}))
        pods = [pod.to_dict() async for pod in listed]
    for pod in pods:
        if address := (pod.get("status") or {}).get("podIP"):
            return str(address), int(port.get("targetPort") or port["port"])
    raise ClusterError("it has no pod with an address", where=f"Service {endpoint.namespace}/{endpoint.workload}")
