"""The canary as one call: from a model that serves to the next one, or back to exactly what was there."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from uuid import uuid4

import anyio

from servepath.canary.gateway import await_taken, prove
from servepath.canary.held import HeldRoute, create_route, now
from servepath.canary.lead import Lead
from servepath.canary.load import ClientLoad
from servepath.canary.model import CanaryPlan, CanaryResult, Outcome
from servepath.canary.stable import Stable, find_stable
from servepath.canary.state import Canary, Phase, RouteState, begun
from servepath.cluster.client import kubernetes
from servepath.cluster.lease import CANARY, hold, new_holder
from servepath.errors import UsageError, first_servepath_error
from servepath.serving.render import GatewayRef, check_spec
from servepath.serving.scalers import refuse_scaled
from servepath.serving.slots import Slot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from lightkube import AsyncClient

    from servepath.canary.lead import Gate
    from servepath.cluster.lease import Holding
    from servepath.cluster.model import Cluster
    from servepath.serving.model import Profile, ServingSpec

SUPERSEDED = "another model was asked for before it came to its end"
ASKED_FOR = "asked for"


async def run_canary(  # noqa: PLR0913 - what is led, how, and three that a promotion gives
    cluster: Cluster,
    spec: ServingSpec,
    plan: CanaryPlan | None = None,
    *,
    holding: Holding | None = None,
    gate: Gate | None = None,
    progress: Callable[[str], None] | None = None,
) -> CanaryResult:
    """Lead a model to all of the traffic of a stable hostname, step by step, or roll it back by itself.

    The stable slot must serve, as `servepath deploy --path kserve` leaves it: the first call takes its hostname over
    without touching it. The model is deployed into the other slot, proved by the slot's header, and given its share of
    the traffic step by step; each step is held while a constant load of clients and the paired measurement run.
    Promoted, the canary is the stable slot as it is, and the one before is stopped. Rolled back, the stable slot serves
    as before, it was never touched, and the canary's slot is deleted.

    The release's Lease is held all the while, so that no promotion and no other canary writes the same slot. All state
    is on the HTTPRoute `<name>-stable`. A call finds there what a killed one left: with the same model it goes on from
    there, with another one it first rolls back what is under way. Cancelled, it rolls back.

    Args:
        cluster: where.
        spec: what the canary is to serve: name, namespace and profile of the stable one, with another modelcar.
        plan: steps, holds and what is allowed.
        holding: the release's Lease, where the caller holds it already, as a promotion does.
        gate: called with the endpoint of the canary's slot before any client meets it, and again behind the last step;
            a ServepathError that it raises rolls the canary back.
        progress: is told what is done next, in words.

    Returns:
        How it ended, promoted or rolled back, with all evidence. A canary that is rolled back raises nothing.

    Raises:
        UsageError: the spec cannot be, or is not of the model that is served under the name.
        PromotionRefusedError: another canary or a promotion is under way, or what serves scales by itself; nothing was
            changed.
        ClusterError: the stable slot does not serve, the cluster does not follow, or the Lease was lost; the next call
            goes on.
    """
    plan = plan or CanaryPlan()
    check_spec(spec.in_slot(Slot.GREEN))
    began_s = anyio.current_time()
    async with _as_itself(), kubernetes(cluster) as client, AsyncExitStack() as stack:
        if holding is None:
            lease = hold(client, spec.namespace, spec.name, new_holder(CANARY), plan.lease)
            holding = await stack.enter_async_context(lease)
        stable = await find_stable(client, cluster, spec.namespace, spec.name, spec.profile)
        _check_same_model(stable, spec)
        await refuse_scaled(client, spec.namespace, stable.endpoint.workload, spec.profile.autoscaling.autoscaler)
        # A canary that is under way may have a share of the hostname itself.
        await prove(stable.endpoint if stable.state is None else stable.slot(stable.state.stable))
        calling = _Call(cluster, client, spec, plan, stable, holding, began_s, progress or _quiet, gate)
        async with calling.client_load() as load:
            lead, resumed = await calling.take(load)
            over = await lead.to_the_end()
    return calling.result(lead, over, resumed=resumed)


async def find_target(
    cluster: Cluster, namespace: str, name: str, profile: Profile, to: str
) -> tuple[Stable, ServingSpec]:
    """Find what serves, and say what a canary to another modelcar would.

    Args:
        cluster: where.
        namespace: the namespace of the slots.
        name: the base name that the stable slot was deployed under first.
        profile: resources and engine settings.
        to: a digest of the repository that the stable modelcar is in, or a whole reference by digest.

    Raises:
        ClusterError: nothing serves under the name.
    """
    async with kubernetes(cluster) as client:
        stable = await find_stable(client, cluster, namespace, name, profile)
    repository = stable.spec.modelcar_reference.partition("@")[0]
    reference = to if "@" in to else f"{repository}@{to}"
    return stable, replace(stable.spec, modelcar_reference=reference)


async def adopt(cluster: Cluster, namespace: str, name: str, profile: Profile) -> Stable:
    """Put the route of the stable hostname in front of what serves, if it is not there yet. Nothing is restarted.

    The hostname is the one that KServe's own route has had all along; by the Gateway API the exact paths of the new
    route go before KServe's regular expression, so clients stay as they are. It takes no Lease: what is there stays as
    it is.

    Raises:
        ClusterError: nothing serves under the name, or the gateway does not take the route.
    """
    async with kubernetes(cluster) as client:
        stable = await find_stable(client, cluster, namespace, name, profile)
        return await _adopted(client, cluster, stable)


async def roll_back(
    cluster: Cluster, namespace: str, name: str, profile: Profile, *, progress: Callable[[str], None] | None = None
) -> CanaryResult | None:
    """Roll back the canary that is under way: one that still lives loses its Lease at once, and cannot write any more.

    Returns:
        How it ended (one that was promoted already stays so), None where none is under way.

    Raises:
        PromotionRefusedError: a promotion leads it, which puts everything back itself when it is interrupted.
        ClusterError: nothing serves under the name, or the cluster does not follow; the next call goes on.
    """
    plan = CanaryPlan()
    began_s = anyio.current_time()
    async with _as_itself(), kubernetes(cluster) as client:
        stable = await find_stable(client, cluster, namespace, name, profile)
        if stable.state is None or stable.state.canary is None:
            return None
        async with hold(client, namespace, name, new_holder(CANARY), plan.lease, at_once_from=CANARY) as holding:
            calling = _Call(cluster, client, stable.spec, plan, stable, holding, began_s, progress or _quiet, None)
            held = calling.held(stable.state)
            if not await held.take_over(holding.holder):
                return None
            lead = calling.lead(held, ClientLoad(stable.endpoint, plan.client, began_s))
            over = await lead.roll_back(ASKED_FOR)
    return calling.result(lead, over, resumed=True)


@dataclass(frozen=True, slots=True)
class _Call:
    """One call: what it was given, and what it found."""

    cluster: Cluster
    client: AsyncClient
    spec: ServingSpec
    plan: CanaryPlan
    stable: Stable
    holding: Holding
    began_s: float
    progress: Callable[[str], None]
    gate: Gate | None

    @asynccontextmanager
    async def client_load(self) -> AsyncIterator[ClientLoad]:
        """Send the clients' load while the block runs."""
        load = ClientLoad(self.stable.endpoint, self.plan.client, self.began_s)
        async with anyio.create_task_group() as group:
            group.start_soon(load.run)
            yield load
            load.end()

    async def take(self, load: ClientLoad) -> tuple[Lead, bool]:
        """Hold the route with the canary that was asked for: one that was left, or a new one.

        Returns:
            Who leads it, and whether an earlier call had begun it.
        """
        state = self.stable.state or (await _adopted(self.client, self.cluster, self.stable)).state
        held = self.held(state or RouteState(Slot.BLUE))
        if not await held.take_over(self.holding.holder):
            return await self._begin(held, load), False
        lead = self.lead(held, load)
        canary = lead.canary
        if canary.modelcar == self.spec.modelcar_reference:
            self.progress(f"go on with the canary {canary.id}, which was left {canary.phase}")
            return lead, True
        await lead.roll_back(SUPERSEDED)
        return await self._begin(held, load), False

    def held(self, state: RouteState) -> HeldRoute:
        """Give the route as this call holds it."""
        return HeldRoute(self.client, self.spec, _gateway_of(self.cluster), state)

    def lead(self, held: HeldRoute, load: ClientLoad) -> Lead:
        """Give who leads the canary that is held, by the steps that it was begun with."""
        canary = held.state.canary
        steps = canary.steps_percent if canary else self.plan.steps_percent
        return Lead(
            cluster=self.cluster,
            client=self.client,
            spec=self.spec,
            plan=replace(self.plan, steps_percent=steps),
            stable=self.stable,
            held=held,
            holding=self.holding,
            load=load,
            began_s=self.began_s,
            progress=self.progress,
            gate=self.gate,
        )

    def result(self, lead: Lead, over: Canary, *, resumed: bool) -> CanaryResult:
        """Put together what came of it."""
        return CanaryResult(
            id=over.id,
            outcome=Outcome.PROMOTED if over.phase is Phase.PROMOTED else Outcome.ROLLED_BACK,
            cause=over.cause,
            plan=lead.plan,
            host=self.stable.endpoint.host,
            stable_digest=over.replaced.partition("@")[2],
            canary_digest=over.modelcar.partition("@")[2],
            canary_slot=over.slot,
            steps=tuple(lead.steps),
            weights=tuple(lead.weights),
            requests=lead.load.requests,
            resumed=resumed,
            duration_s=anyio.current_time() - self.began_s,
        )

    async def _begin(self, held: HeldRoute, load: ClientLoad) -> Lead:
        canary = Canary(
            id=uuid4().hex[:12],
            slot=held.state.stable.other,
            modelcar=self.spec.modelcar_reference,
            steps_percent=self.plan.steps_percent,
            started=now(),
            holder=self.holding.holder,
            replaced=self.stable.spec.modelcar_reference,
        )
        await held.move(begun(held.state, canary))
        return self.lead(held, load)


@asynccontextmanager
async def _as_itself() -> AsyncIterator[None]:
    """Raise the error that ended the block as itself, out of the groups that task groups make."""
    try:
        yield
    except BaseExceptionGroup as errors:
        found = first_servepath_error(errors)
        if found is None:
            raise
        raise found from None


async def _adopted(client: AsyncClient, cluster: Cluster, stable: Stable) -> Stable:
    if stable.state is not None:
        return stable
    state = await create_route(client, stable.spec, _gateway_of(cluster), (stable.endpoint.host,))
    await await_taken(stable.endpoint, state.revision)
    return replace(stable, state=state)


def _gateway_of(cluster: Cluster) -> GatewayRef:
    return GatewayRef(cluster.gateway_namespace, cluster.gateway_name)


def _check_same_model(stable: Stable, spec: ServingSpec) -> None:
    """Refuse to put another model behind a name that clients ask for.

    Raises:
        UsageError: the spec has another served model name.
    """
    if spec.served_model_name != stable.spec.served_model_name:
        raise UsageError(
            f"the stable slot serves {stable.spec.served_model_name!r}, the canary would serve "
            f"{spec.served_model_name!r}",
            where="canary",
            expected="the same served model name: clients ask for it",
        )


def _quiet(what: str) -> None:
    """Say nothing."""
    del what
