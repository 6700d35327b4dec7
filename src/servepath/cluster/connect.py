"""A kubeconfig and a registry -> a `Cluster`, with the gateway's address read from the Gateway's own status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servepath.cluster.client import kubernetes
from servepath.cluster.model import Cluster
from servepath.cluster.wait import conditions, until
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from servepath.cluster.objects import Json


async def connect(  # noqa: PLR0913
    kubeconfig: Path,
    registry: str,
    gateway_class: str = "agentgateway",
    *,
    context: str = "",
    gateway_namespace: str = "kserve",
    gateway_name: str = "kserve-ingress-gateway",
    gateway_url: str = "",
    timeout_s: float = 60.0,
) -> Cluster:
    """Find the gateway of a cluster that exists.

    Args:
        kubeconfig: a kubeconfig file; the user's current context is not changed.
        registry: `host[:port]` that both servepath and the nodes reach.
        gateway_class: the GatewayClass that the Gateway must have.
        context: a context of the kubeconfig, empty for its current one.
        gateway_namespace: namespace of the Gateway.
        gateway_name: name of the Gateway.
        gateway_url: base URL to use instead of the Gateway's address, such as a port-forward's.
        timeout_s: how long the Gateway may take to get an address, in seconds.

    Raises:
        ClusterError: there is no such Gateway, it has another class, or it has no address.
    """
    found = Cluster(
        kubeconfig=kubeconfig,
        registry=registry,
        gateway_url=gateway_url.rstrip("/"),
        gateway_class=gateway_class,
        gateway_namespace=gateway_namespace,
        gateway_name=gateway_name,
        context=context,
    )

    def address(gateway: Json | None) -> str | None:
        if gateway is None:
            return None
        _check_class(gateway, gateway_class)
        return gateway_url.rstrip("/") or url_of(gateway)

    async with kubernetes(found) as client:
        url = await until(
            client,
            "Gateway",
            gateway_namespace,
            gateway_name,
            address,
            timeout_s=timeout_s,
            expected=f"a Gateway of class {gateway_class} with an address in its status (or --gateway-url)",
        )
    return Cluster(
        kubeconfig=kubeconfig,
        registry=registry,
        gateway_url=url,
        gateway_class=gateway_class,
        gateway_namespace=gateway_namespace,
        gateway_name=gateway_name,
        context=context,
    )


def url_of(gateway: Mapping[str, Any]) -> str | None:
    """Give the base URL of a Gateway: its first address and its first HTTP listener; None before it is programmed."""
    programmed = conditions(gateway).get("Programmed")
    addresses = (gateway.get("status") or {}).get("addresses") or []
    if programmed is None or programmed.status != "True" or not addresses:
        return None
    for listener in gateway["spec"]["listeners"]:
        if listener.get("protocol") == "HTTP":
            address = addresses[0]["value"]
            host = f"[{address}]" if ":" in address else address
            return f"http://{host}:{listener['port']}"
    raise ClusterError(
        "the Gateway has no HTTP listener",
        where=f"Gateway {gateway['metadata'].get('namespace')}/{gateway['metadata'].get('name')}",
        expected="a listener with protocol HTTP",
    )


def _check_class(gateway: Mapping[str, Any], gateway_class: str) -> None:
    actual = gateway["spec"]["gatewayClassName"]
    if actual != gateway_class:
        metadata = gateway["metadata"]
        raise ClusterError(
            f"the Gateway is of class {actual!r}",
            where=f"Gateway {metadata.get('namespace')}/{metadata.get('name')}",
            expected=f"class {gateway_class!r}, or --gateway-class={actual}",
        )
