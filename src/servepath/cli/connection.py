"""The options that name a cluster, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.cluster.connect import connect
from servepath.cluster.model import Cluster

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a cluster is said to be."""

    kubeconfig: Path
    registry: str
    gateway_class: str
    gateway_url: str
    context: str

    async def open(self) -> Cluster:
        """Find the gateway.

        Raises:
            ClusterError: the API does not answer, or the Gateway is not there.
        """
        return await connect(
            self.kubeconfig,
            self.registry,
            self.gateway_class,
            gateway_url=self.gateway_url,
            context=self.context,
        )

    def without_gateway(self) -> Cluster:
        """Give the cluster whose gateway need not be there yet."""
        return Cluster(
            kubeconfig=self.kubeconfig,
            registry=self.registry,
            gateway_url=self.gateway_url,
            gateway_class=self.gateway_class,
            context=self.context,
        )
