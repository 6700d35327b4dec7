"""The steps of a promotion: what each stage does, and what it leaves as evidence."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from servepath.canary.stable import find_stable
from servepath.errors import ClusterError
from servepath.modelcar.push.transfers import Transfers
from servepath.promotion.copying import copy_modelcar
from servepath.promotion.deploying import deploy
from servepath.promotion.gate import ATTACHED, examine, kept_evidence, refuse_failed
from servepath.promotion.history import last_succeeded
from servepath.promotion.record import Stage, Strategy
from servepath.promotion.shift import CanaryRolledBackError, shift_at_once, shift_by_canary, switch
from servepath.promotion.verify import refuse_unverified, verify_promotion

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lightkube import AsyncClient

    from servepath.cluster.lease import Holding
    from servepath.modelcar.model import Progress
    from servepath.promotion.current import Current
    from servepath.promotion.evidence import Evidence
    from servepath.promotion.history import Kept
    from servepath.promotion.model import PromotionRequest
    from servepath.promotion.transaction import Transaction
    from servepath.serving.model import Endpoint
    from servepath.stages import StageNote, Stages


@dataclass(slots=True)
class Steps:
    """What is done in each stage of one promotion.

    Attributes:
        client: the Kubernetes client.
        request: what is promoted.
        stages: the clock of the run.
        evidence: is filled as the promotion goes on.
        holding: the release's Lease.
        transaction: writes down how far it is.
        current: what served when it began.
        history: the records of its release.
    """

    client: AsyncClient
    request: PromotionRequest
    stages: Stages
    evidence: Evidence
    holding: Holding
    transaction: Transaction
    current: Current
    history: tuple[Kept, ...]

    @property
    def strategy(self) -> Strategy:
        """How it comes into the place of what serves."""
        return self.transaction.record.strategy

    def by_stage(self) -> dict[Stage, Callable[[], Awaitable[None]]]:
        """Give what is done in each stage."""
        gate = self._gate_and_canary if self.strategy is Strategy.CANARY else self._gate_alone
        return {
            Stage.COPY: self._copy,
            Stage.DEPLOY: self._deploy,
            Stage.GATE: gate,
            Stage.SHIFT: self._shift,
            Stage.VERIFY: self._verify,
        }

    async def _copy(self) -> None:
        transfers = Transfers()

        def show(progress: Progress) -> None:
            transfers.update(progress)
            note(str(transfers))

        request = self.request
        with self.stages.stage(Stage.COPY) as note:
            copied = await copy_modelcar(
                request.source, request.cluster.registry, request.repository, request.registries, show
            )
            self.evidence.copied = copied
            note(f"{copied.reference}: {copied.sent_bytes / 1e6:.1f} MB sent, {len(copied.referrers)} referrers")

    async def _deploy(self) -> None:
        with self.stages.stage(Stage.DEPLOY) as note:
            self.evidence.endpoint = await deploy(self.client, self.request, self.current, self.strategy)
            slot = self.current.slot.other if self.strategy is Strategy.CANARY else self.current.slot
            note(f"{self.strategy}, slot {slot}")

    async def _gate_alone(self) -> None:
        if self.evidence.endpoint is None:  # pragma: no cover - deploy gave it
            raise ClusterError("the candidate has no endpoint", where=self.request.name)
        await self._gate(self.evidence.endpoint, None)

    async def _gate(self, candidate: Endpoint, stable: Endpoint | None) -> None:
        request = self.request
        spec = self.current.place_of(request.spec, self.strategy, request.path)
        with self.stages.stage(Stage.GATE) as note:
            evidence = await examine(
                request.cluster, spec, candidate, stable, last_succeeded(self.history), request.gate, note
            )
            self.evidence.gate = evidence
            refuse_failed(evidence, request.gate)
            if kept := kept_evidence(evidence):
                await self.transaction.keep(**{ATTACHED: kept})
            note(evidence.checks[-1].seen)

    async def _gate_and_canary(self) -> None:
        """Let the canary's leader ask the gate before any client meets it; from there on it shifts."""
        request = self.request
        stable = await find_stable(self.client, request.cluster, request.namespace, request.name, request.profile)
        failed: list[Exception] = []
        with ExitStack() as shifting:
            notes: list[StageNote] = []

            async def gate(endpoint: Endpoint) -> None:
                if notes:  # behind the last step: `verify` looks again
                    return
                try:
                    await self._gate(endpoint, stable.slot(self.current.slot))
                except Exception as error:
                    failed.append(error)
                    raise
                self.evidence.endpoint = replace(endpoint, slot=None)
                await self.transaction.advance(Stage.SHIFT)
                notes.append(shifting.enter_context(self.stages.stage(Stage.SHIFT)))

            def tell(what: str) -> None:
                if notes:
                    notes[-1](what)

            if request.canary is None:
                await switch(self.client, request, self.holding, gate, tell)
                return
            try:
                self.evidence.canary = await shift_by_canary(request, self.holding, request.canary, gate, tell)
            except CanaryRolledBackError as error:
                self.evidence.canary = error.result
                raise (failed[0] if failed else error) from error

    async def _shift(self) -> None:
        with self.stages.stage(Stage.SHIFT) as note:
            note(await shift_at_once(self.request, self.current))

    async def _verify(self) -> None:
        request = self.request
        with self.stages.stage(Stage.VERIFY) as note:
            self.evidence.verified = await verify_promotion(
                self.client, request.cluster, request.spec, request.path, request.registries
            )
            refuse_unverified(self.evidence.verified)
            note(self.evidence.verified[0].seen)
