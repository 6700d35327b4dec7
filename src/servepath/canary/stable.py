"""What serves now: the stable slot with its model, its hostname and its key, read from the cluster's own objects."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from servepath.canary.held import read_route
from servepath.canary.route import read_hostnames, read_state
from servepath.errors import ClusterError
from servepath.serving.find import api_key_of, model_name, modelcar_reference
from servepath.serving.model import Endpoint, ServingPath, ServingSpec
from servepath.serving.readiness import host_when_ready
from servepath.serving.render import engine_container
from servepath.serving.slots import Slot, slot_name
from servepath.serving.stopped import deployment_name
from servepath.serving.switch import our_engine

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from servepath.canary.state import RouteState
    from servepath.cluster.model import Cluster
    from servepath.serving.model import Profile

_PATH = ServingPath.KSERVE


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
    slot = state.stable if state else Slot.BLUE
    engine = await our_engine(client, namespace, slot_name(name, slot), _PATH)
    host = read_hostnames(route)[0] if route is not None else host_when_ready(engine)
    if host is None:
        service = engine["metadata"]["name"]
        raise ClusterError(
            "not ready",
            where=f"InferenceService {namespace}/{service}",
            next_command=f"kubectl -n {namespace} describe inferenceservice {service}",
        )
    container = engine_container(engine, _PATH)
    spec = ServingSpec(
        namespace=namespace,
        name=name,
        served_model_name=model_name(container, engine),
        modelcar_reference=modelcar_reference(engine, _PATH),
        engine_image=container["image"],
        profile=profile,
        domain=host.partition(".")[2],
    )
    endpoint = Endpoint(
        path=_PATH,
        base_url=cluster.gateway_url,
        host=host,
        model=spec.served_model_name,
        namespace=namespace,
        workload=deployment_name(engine, _PATH),
        modelcar_digest=spec.modelcar_reference.partition("@")[2],
        engine_image=spec.engine_image,
        ready_s=0.0,
        api_key=await api_key_of(client, engine, _PATH),
    )
    return Stable(spec, endpoint, state)
