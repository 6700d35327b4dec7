"""The stage `shift`: clients are led to the candidate, all at once or step by step behind its gate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from servepath.canary.gateway import await_taken, prove
from servepath.canary.held import HeldRoute, now
from servepath.canary.model import FULL_PERCENT, Outcome
from servepath.canary.run import adopt, run_canary
from servepath.canary.slots import await_left, put_away
from servepath.canary.state import Canary, Phase, RouteState, begun, deployed, finished, stepped
from servepath.errors import CheckFailedError
from servepath.serving.model import ServingPath
from servepath.serving.render import GatewayRef, object_name
from servepath.serving.slots import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightkube import AsyncClient

    from servepath.canary.lead import Gate
    from servepath.canary.model import CanaryPlan, CanaryResult
    from servepath.canary.stable import Stable
    from servepath.cluster.lease import Holding
    from servepath.promotion.current import Current
    from servepath.promotion.model import PromotionRequest
    from servepath.serving.model import Endpoint, ServingSpec


async def shift_at_once(request: PromotionRequest, current: Current) -> str:
    """Lead the stable hostname to a candidate that has its place already.

    Returns:
        What was done, in words.

    Raises:
        ClusterError: the gateway does not take the route.
    """
    if request.path is not ServingPath.KSERVE:
        return "the hostname leads to it already"
    if current.has_route:
        return "the stable hostname leads to its slot already"
    stable = await adopt(request.cluster, request.namespace, request.name, request.profile)
    return f"{stable.endpoint.host} leads to it"


async def shift_by_canary(
    request: PromotionRequest, holding: Holding, plan: CanaryPlan, gate: Gate, note: Callable[[str], None]
) -> CanaryResult:
    """Lead clients to a canary step by step.

    Args:
        request: what is promoted.
        holding: the promotion's Lease.
        plan: the steps.
        gate: is asked before any client meets it, and again behind the last step.
        note: is told what is done.

    Raises:
        CanaryRolledBackError: the canary was rolled back; it says why.
        PromotionRefusedError: somebody else changed the route.
        ClusterError: the cluster does not follow.
    """
    result = await run_canary(request.cluster, request.spec, plan, holding=holding, gate=gate, progress=note)
    if result.outcome is not Outcome.PROMOTED:
        raise CanaryRolledBackError(result)
    return result


async def switch(
    client: AsyncClient, request: PromotionRequest, holding: Holding, gate: Gate, note: Callable[[str], None]
) -> None:
    """Lead all clients to a candidate at once: for going back to what served before, measured by nothing but its gate.

    Raises:
        PromotionRefusedError: somebody else changed the route.
        ClusterError: the candidate does not answer, or the cluster does not follow.
    """
    spec = request.spec
    stable = await adopt(request.cluster, request.namespace, request.name, request.profile)
    state = stable.state or RouteState(Slot.BLUE)
    canary = Canary(
        id=uuid4().hex[:12],
        slot=state.stable.other,
        modelcar=spec.modelcar_reference,
        steps_percent=(FULL_PERCENT,),
        started=now(),
        holder=holding.holder,
        replaced=stable.spec.modelcar_reference,
    )
    gateway = GatewayRef(request.cluster.gateway_namespace, request.cluster.gateway_name)
    held = HeldRoute(client, spec, gateway, state)
    await held.move(begun(state, canary))
    await held.move(deployed(held.state))
    await await_taken(stable.endpoint, held.state.revision)
    candidate = endpoint_of(spec, canary.slot, stable)
    await prove(candidate)
    await gate(candidate)
    for _ in range(2):  # all of the traffic, and the new stable slot
        await held.move(stepped(held.state))
        await await_taken(stable.endpoint, held.state.revision)
    note(f"put away the slot {state.stable}")
    await await_left(client, spec, stable.endpoint, held.state.revision, state.stable)
    await put_away(request.cluster, spec, state.stable, Phase.PROMOTED)
    await held.move(finished(held.state))


def endpoint_of(spec: ServingSpec, slot: Slot, stable: Stable) -> Endpoint:
    """Give the endpoint of what was deployed into a slot beside the stable one."""
    its = spec.in_slot(slot)
    return replace(
        stable.slot(slot),
        workload=f"{object_name(its, ServingPath.KSERVE)}-predictor",
        modelcar_digest=its.modelcar_reference.partition("@")[2],
        engine_image=its.engine_image,
    )


class CanaryRolledBackError(CheckFailedError):
    """A canary was rolled back.

    Attributes:
        result: all its evidence.
    """

    def __init__(self, result: CanaryResult) -> None:
        super().__init__(result.cause, where=f"canary {result.id}", expected="a canary that is promoted")
        self.result = result
