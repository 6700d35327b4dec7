"""What serves now: the stable slot with its model, its hostname and its key, read from the cluster's own objects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from servepath.canary.held import read_route
from servepath.canary.route import read_state
from servepath.serving.find import find_with
from servepath.serving.model import Endpoint, ServingPath, ServingSpec

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from servepath.canary.state import RouteState
    from servepath.cluster.model import Cluster
    from servepath.serving.model import Profile
    from servepath.serving.slots import Slot


@dataclass(frozen=True, slots=True)
class Stable:
    """What serves whoever no canary does.

    Attributes:
        spec: what is served, under the base name of both slots.
        endpoint: the stable hostname.
        state: what the route says, None before the first canary.
    """

    spec: ServingSpec
    endpoint: Endpoint
    state: RouteState | None

    def slot(self, slot: Slot) -> Endpoint:
        """Give the endpoint of one slot: the stable hostname with the slot's header."""
        return replace(self.endpoint, slot=slot)


async def find_stable(client: AsyncClient, cluster: Cluster, namespace: str, name: str, profile: Profile) -> Stable:
    """Find the stable slot: the one that the route names, or blue, that `servepath deploy` made.

    Args:
        client: the Kubernetes client.
        cluster: where.
        namespace: the namespace of the slots.
        name: the base name that blue was deployed under.
        profile: what it was deployed with: the cluster does not know its name.

    Raises:
        ClusterError: it is not deployed, not ready, or not as servepath deploys it.
    """
    route = await read_route(client, namespace, name)
    state = read_state(route) if route is not None else None
    spec, endpoint = await find_with(client, cluster, namespace, name, ServingPath.KSERVE, profile)
    return Stable(spec, endpoint, state)
