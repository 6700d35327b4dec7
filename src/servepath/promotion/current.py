"""What serves a release now, and how the next version can come into its place."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.canary.held import read_route
from servepath.canary.route import read_state
from servepath.canary.slots import CLUSTER_LOCAL
from servepath.cluster.objects import MANAGED_BY, OWNER, is_ours, place, read
from servepath.cluster.wait import is_observed, is_true
from servepath.errors import ClusterError, PromotionRefusedError
from servepath.promotion.record import Strategy
from servepath.serving.find import modelcar_reference
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.readiness import runs
from servepath.serving.render import engine_container
from servepath.serving.slots import Slot, route_name, slot_name
from servepath.serving.stopped import ENGINE_KIND, deployment_name, is_stopped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightkube import AsyncClient

    from servepath.cluster.objects import Json


@dataclass(frozen=True, slots=True)
class Current:
    """What is deployed of a release.

    Attributes:
        engine: the object that carries the engine, None where nothing is deployed.
        slot: which slot of the KServe path is the stable one; blue on the raw path.
        is_serving: whether it answers now, maybe not in all of its replicas.
        has_route: whether the stable hostname's own route is there.
        canary: the canary that is under way, in words; empty for none.
    """

    engine: Json | None
    slot: Slot
    is_serving: bool
    has_route: bool
    canary: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """The labels that the engine's object must keep: another set would start its pods anew."""
        present = (self.engine or {}).get("metadata", {}).get("labels") or {}
        return {name: present[name] for name in CLUSTER_LOCAL if name in present}

    def digest(self, path: ServingPath) -> str:
        """The digest of the model that is deployed, empty for nothing.

        Raises:
            ClusterError: the engine's object was changed by hand.
        """
        if self.engine is None:
            return ""
        with _as_deployed(self.engine):
            return modelcar_reference(self.engine, path).partition("@")[2]

    def strategy(self, path: ServingPath, *, replace: bool) -> Strategy:
        """How the next version comes into its place."""
        if self.engine is None:
            return Strategy.FIRST
        if replace or not self.is_serving or path is not ServingPath.KSERVE:
            return Strategy.REPLACE
        return Strategy.CANARY

    def place_of(self, spec: ServingSpec, strategy: Strategy, path: ServingPath) -> ServingSpec:
        """Give the spec under the names of the slot that the next version goes into."""
        if path is not ServingPath.KSERVE:
            return spec
        return spec.in_slot(self.slot.other if strategy is Strategy.CANARY else self.slot)


async def read_current(client: AsyncClient, spec: ServingSpec, path: ServingPath) -> Current:
    """Read what is deployed of a release.

    Raises:
        ClusterError: the API server refuses, somebody else's object has the name, or ours was changed by hand.
    """
    slot, has_route, canary = Slot.BLUE, False, ""
    if path is ServingPath.KSERVE and (route := await read_route(client, spec.namespace, spec.name)) is not None:
        state, has_route = read_state(route), True
        slot = state.stable
        if state.canary is not None:
            canary = f"a canary to {state.canary.modelcar} is under way, led by {state.canary.holder}"
    name = f"{slot_name(spec.name, slot)}-{path}"
    engine = await read(client, ENGINE_KIND[path], name, spec.namespace)
    if engine is None:
        return Current(None, slot, is_serving=False, has_route=has_route, canary=canary)
    if not is_ours(engine):
        raise ClusterError(
            "servepath did not make it",
            where=place(engine),
            expected=f"the label {MANAGED_BY}={OWNER}, or another --name",
        )
    with _as_deployed(engine):
        is_serving = await _is_serving(client, engine, path)
    return Current(engine, slot, is_serving, has_route, canary)


def refuse_canary(current: Current, spec: ServingSpec) -> None:
    """Refuse to promote while a canary is under way that no promotion leads.

    Raises:
        PromotionRefusedError: one is.
    """
    if current.canary:
        name = route_name(spec.name)
        raise PromotionRefusedError(
            current.canary,
            where=f"HTTPRoute {spec.namespace}/{name}",
            expected="no canary",
            next_command=f"kubectl -n {spec.namespace} describe httproute {name}",
        )


@contextmanager
def _as_deployed(engine: Json) -> Iterator[None]:
    """Refuse an engine's object of servepath's that was changed since."""
    try:
        yield
    except (KeyError, IndexError, TypeError) as error:
        metadata = engine["metadata"]
        kind = str(engine.get("kind", "")).lower()
        raise ClusterError(
            f"somebody changed it by hand: {type(error).__name__} {error}",
            where=place(engine),
            expected="an engine as servepath deploys it",
            next_command=f"kubectl -n {metadata['namespace']} get {kind} {metadata['name']} -o yaml",
        ) from error


async def _is_serving(client: AsyncClient, engine: Json, path: ServingPath) -> bool:
    if is_stopped(engine, path):
        return False
    # Not by its URL: a slot without a route of KServe's own may have none.
    if path is ServingPath.KSERVE and not is_true(engine, "Ready"):
        return False
    namespace = engine["metadata"]["namespace"]
    deployment = await read(client, "Deployment", deployment_name(engine, path), namespace)
    if deployment is None:
        return False
    return _answers(deployment, engine_container(engine, path))


def _answers(deployment: Json, container: Json) -> bool:
    """Tell whether this version serves, and no pod of another is left.

    One replica is enough: while an autoscaler adds one, or a node is drained, clients are served all the same, and are
    not to meet a candidate in its place.
    """
    status = deployment.get("status") or {}
    is_one_version = status.get("updatedReplicas", 0) == status.get("replicas", 0)
    is_available = status.get("availableReplicas", 0) > 0
    is_this = is_observed(deployment) and runs(deployment["spec"]["template"]["spec"], container)
    return is_this and is_one_version and is_available
