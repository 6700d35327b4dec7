"""Lead a canary from the state that its route says to its end: each turn does what the present state asks for.

So going on with a canary that a killed controller left is no other work than going on with one's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import anyio

from servepath.canary.gateway import await_taken, prove
from servepath.canary.judge import Verdict, is_hopeless, judge, spent
from servepath.canary.model import Decision, StepVerdict, WeightChange
from servepath.canary.pairs import paired_load
from servepath.canary.slots import await_left, deploy_slot, put_away
from servepath.canary.state import Canary, Phase, RouteState, deployed, finished, rolled_back, stepped
from servepath.errors import PromotionRefusedError, ServepathError, first_servepath_error
from servepath.serving.model import ServingPath
from servepath.serving.render import object_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightkube import AsyncClient

    from servepath.bench.model import Comparison, Sample
    from servepath.canary.held import HeldRoute
    from servepath.canary.load import ClientLoad
    from servepath.canary.model import CanaryPlan
    from servepath.canary.stable import Stable
    from servepath.cluster.lease import Holding
    from servepath.cluster.model import Cluster
    from servepath.serving.model import Endpoint, ServingSpec

Gate: TypeAlias = Callable[["Endpoint"], Awaitable[None]]
"""Checks the canary by its slot's endpoint; a ServepathError that it raises rolls the canary back."""

INTERRUPTED = "interrupted"
_PUT_AWAY_S = 90.0
_CAUSE_CHARACTERS = 4000


@dataclass(slots=True)
class Lead:
    """A canary that this controller leads.

    Attributes:
        cluster: where.
        client: its Kubernetes client.
        spec: what the canary is.
        plan: how it is led.
        stable: what served before.
        held: its route.
        holding: the release's Lease.
        load: the clients' load.
        began_s: what the times of the results count from, by anyio's clock.
        progress: is told what is done next.
        gate: asked before any client meets the canary and again behind the last step, None for nothing.
        steps: what each step found.
        weights: the changes of the canary's share.
    """

    cluster: Cluster
    client: AsyncClient
    spec: ServingSpec
    plan: CanaryPlan
    stable: Stable
    held: HeldRoute
    holding: Holding
    load: ClientLoad
    began_s: float
    progress: Callable[[str], None]
    gate: Gate | None = None
    steps: list[StepVerdict] = field(default_factory=list)
    weights: list[WeightChange] = field(default_factory=list)

    async def to_the_end(self) -> Canary:
        """Lead the canary until it is promoted or rolled back and the slot that serves nobody is put away.

        Returns:
            The canary as it was when it was over.

        Raises:
            PromotionRefusedError: another controller took over.
            ClusterError: the API server or the gateway does not follow; the next call goes on from there.
        """
        while not self.canary.is_over:
            try:
                await self._advance()
            except anyio.get_cancelled_exc_class():
                await self._put_away_after_interrupt()
                raise
            except (ServepathError, BaseExceptionGroup) as error:
                found = first_servepath_error(error)
                if found is None or isinstance(found, PromotionRefusedError):
                    raise
                await self._roll_back(str(found))
        return await self._finish()

    async def roll_back(self, cause: str) -> Canary:
        """Take all traffic from the canary and put its slot away; one that was promoted stays so."""
        if not self.canary.is_over:
            await self._roll_back(cause)
        return await self._finish()

    @property
    def canary(self) -> Canary:
        """The canary as it is now."""
        canary = self.held.state.canary
        if canary is None:
            raise RuntimeError("no canary is held")
        return canary

    async def _advance(self) -> None:
        canary, state = self.canary, self.held.state
        match canary.phase:
            case Phase.DEPLOYING:
                self.progress(f"deploy {canary.modelcar} into the slot {canary.slot}")
                await deploy_slot(self.client, self.cluster, self.spec, canary.slot, self.stable.endpoint.api_key)
                await self._move(deployed(state))
            case Phase.PROVING:
                self.progress(f"prove the slot {canary.slot} by its header, without any client")
                await self._prove()
                await self._move(stepped(state))
            case _:
                await self._step()

    async def _prove(self) -> None:
        endpoint = self._endpoint()
        await await_taken(self.stable.endpoint, self.held.state.revision)
        await prove(endpoint)
        if self.gate is not None:
            await self.gate(endpoint)

    def _endpoint(self) -> Endpoint:
        """Give the endpoint of the canary's slot."""
        its = self.spec.in_slot(self.canary.slot)
        return replace(
            self.stable.slot(self.canary.slot),
            workload=f"{object_name(its, ServingPath.KSERVE)}-predictor",
            modelcar_digest=its.modelcar_reference.partition("@")[2],
            engine_image=its.engine_image,
        )

    async def _step(self) -> None:
        """Hold one step until it is decided, and do what was decided."""
        canary, state = self.canary, self.held.state
        if not self.weights or self.weights[-1].canary_percent != state.canary_percent:
            await self._note_taken(self._now())
        self.progress(f"step {canary.step + 1} of {len(canary.steps_percent)}: {state.canary_percent}% to the canary")
        verdict = await self._measure(canary)
        for reason in verdict.reasons:
            self.progress(f"  {reason}")
        if verdict.decision is Decision.ROLL_BACK:
            await self._roll_back("; ".join(verdict.reasons))
            return
        if self.gate is not None and canary.step + 1 == len(canary.steps_percent):
            await self.gate(self._endpoint())
        await self._move(stepped(state))

    async def _measure(self, canary: Canary) -> Verdict:
        began_s = self._now()
        extensions = 0
        comparison: Comparison | None = None
        endpoints = {slot: self.stable.slot(slot) for slot in (canary.slot.other, canary.slot)}
        bench = replace(self.plan.bench, seed=self.plan.bench.seed + canary.step)

        def hopeless(samples: Sequence[Sample]) -> bool:
            return is_hopeless(samples, self.load.since(began_s), canary.slot, self.plan)

        self.load.both = endpoints
        try:
            async with paired_load(endpoints[canary.slot.other], endpoints[canary.slot], bench) as pairs:
                while True:
                    comparison = await pairs.hold(self.plan.hold_s, hopeless)
                    verdict = judge(comparison, self.load.since(began_s), canary.slot, self.plan)
                    if verdict.decision is not Decision.HOLD or extensions == self.plan.max_extensions:
                        break
                    extensions += 1
                    self.progress(f"  held again: {'; '.join(verdict.reasons)}")
            verdict = spent(verdict, extensions)
        except ServepathError as error:
            verdict = Verdict(Decision.ROLL_BACK, (str(error),))
        finally:
            self.load.both = {}
        self.steps.append(
            StepVerdict(
                number=canary.step,
                weight_percent=self.held.state.canary_percent,
                decision=verdict.decision,
                reasons=verdict.reasons,
                extensions=extensions,
                comparison=comparison,
                slo=verdict.slo,
                began_s=began_s,
                ended_s=self._now(),
            )
        )
        return verdict

    async def _move(self, state: RouteState) -> None:
        """Write a state; where it changes the canary's share, await that the gateway has taken it."""
        before = self.held.state.canary_percent
        await self.held.move(state)
        if state.canary_percent != before:
            await self._note_taken(self._now())

    async def _note_taken(self, written_s: float) -> None:
        await await_taken(self.stable.endpoint, self.held.state.revision)
        self.weights.append(WeightChange(written_s, self._now(), self.held.state.canary_percent))

    async def _roll_back(self, cause: str) -> None:
        self.progress(f"roll back: {cause}")
        await self._move(rolled_back(self.held.state, cause[:_CAUSE_CHARACTERS]))

    async def _finish(self) -> Canary:
        """Put away the slot that serves nobody, once nothing is under way in it."""
        canary = self.canary
        leaving = canary.slot.other if canary.phase is Phase.PROMOTED else canary.slot
        self.progress(f"{canary.phase}: put away the slot {leaving}")
        await await_left(self.client, self.spec, self.stable.endpoint, self.held.state.revision, leaving)
        await put_away(self.cluster, self.spec, leaving, canary.phase)
        await self.held.move(finished(self.held.state))
        return canary

    async def _put_away_after_interrupt(self) -> None:
        """Take the traffic from the canary when this controller is interrupted; who took over from it goes on."""
        if self.holding.lost is not None:
            return
        with self.holding.shielded(), anyio.move_on_after(_PUT_AWAY_S) as budget:
            try:
                await self.roll_back(INTERRUPTED)
            except ServepathError as error:
                self.progress(f"not put away, the next call goes on: {error}")
        if budget.cancelled_caught:
            self.progress(f"not put away in {_PUT_AWAY_S:.0f} s, the next call goes on")

    def _now(self) -> float:
        return anyio.current_time() - self.began_s
