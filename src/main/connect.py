"""How the module comes to a cluster: its addresses, and the container beside it."""

from dataclasses import dataclass

import dagger

from main.cluster import Cluster
from main.workbench import KUBECONFIG


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a cluster is: what every command of servepath takes as options.

    Attributes:
        registry: `host[:port]` from which the nodes pull.
        gateway_url: base URL of the gateway.
        gateway_class: its GatewayClass.
    """

    registry: str
    gateway_url: str
    gateway_class: str


def connect(
    tools: dagger.Container,
    kubeconfig: dagger.Secret,
    addresses: Addresses,
    mirror: str,
    services: list[dagger.Service],
) -> Cluster:
    """Give a cluster, and the container beside it the means to reach it."""
    return Cluster(
        registry=addresses.registry,
        gateway_url=addresses.gateway_url,
        kubeconfig=kubeconfig,
        tools=tools.with_mounted_secret(KUBECONFIG, kubeconfig).with_env_variable("KUBECONFIG", KUBECONFIG),
        arguments=[
            f"--kubeconfig={KUBECONFIG}",
            f"--registry={addresses.registry}",
            f"--gateway-url={addresses.gateway_url}",
            f"--gateway-class={addresses.gateway_class}",
        ],
        mirror=mirror,
        services=services,
    )


async def stop(services: list[dagger.Service]) -> None:
    """Stop the services behind a cluster: its node first, then the registry that the node pulls from."""
    for service in services:
        await service.stop()
