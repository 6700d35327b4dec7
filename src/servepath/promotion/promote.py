"""A promotion from its plan to its end: plan, copy, deploy, gate, shift, verify, or back to exactly what was there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import anyio

from servepath.cluster.client import kubernetes
from servepath.cluster.lease import PROMOTION, LeaseLostError, hold, new_holder
from servepath.cluster.objects import ensure_namespace
from servepath.errors import ClusterError, PromotionRolledBackError, first_servepath_error
from servepath.evidence import Verdict
from servepath.promotion.before import Before
from servepath.promotion.current import read_current, refuse_canary
from servepath.promotion.history import last_succeeded, read_history
from servepath.promotion.plan import make_plan
from servepath.promotion.preflight.results import refuse_missing
from servepath.promotion.proof import Wanted, refuse_unproven
from servepath.promotion.record import Record, Stage, Strategy
from servepath.promotion.restore import take_snapshot
from servepath.promotion.signature import require_signature
from servepath.promotion.steps import Steps
from servepath.promotion.transaction import Recovered, Transaction, begin, now, recover
from servepath.promotion.verify import verify_promotion
from servepath.promotion.waits import ClusterWaits
from servepath.promotion.who import who
from servepath.serving.model import ServingPath
from servepath.serving.slots import slot_name
from servepath.serving.switch import stop

if TYPE_CHECKING:
    from lightkube import AsyncClient

    from servepath.cluster.lease import Holding
    from servepath.cluster.model import Cluster
    from servepath.modelcar.registry.client import RegistryOptions
    from servepath.promotion.evidence import Evidence
    from servepath.promotion.history import Kept
    from servepath.promotion.model import Plan, PromotionRequest
    from servepath.stages import Stages

_GOES_ON = "the next promotion or rollback goes on with putting it back"


async def plan_promotion(request: PromotionRequest, stages: Stages, evidence: Evidence) -> Plan:
    """Say what a promotion would do; nothing is changed.

    Raises:
        PromotionRefusedError: it would be refused; the plan is in the evidence all the same.
        UsageError, InputError, RegistryError, ClusterError: it cannot be planned.
    """
    refuse_unvouched(request)
    async with kubernetes(request.cluster) as client:
        with stages.stage(Stage.PLAN) as note:
            plan = evidence.plan = await make_plan(client, request)
            await refuse(request, plan)
            note(in_words(plan))
    return plan


async def promote(request: PromotionRequest, stages: Stages, evidence: Evidence) -> Record:
    """Promote a digest, or put everything back to exactly what it was.

    Args:
        request: what, and where to.
        stages: the clock of the run.
        evidence: is filled as the promotion goes on, so that one that ends by an error leaves what it learnt.

    Returns:
        The record, as it lies in the cluster.

    Raises:
        PromotionRefusedError: nothing was changed.
        PromotionRolledBackError: it failed, and what was there before serves again.
        ClusterError: the Lease was lost, or what was there could not be put back; the next promotion goes on.
    """
    refuse_unvouched(request)
    async with kubernetes(request.cluster) as client:
        return await _promote(client, request, stages, evidence)


async def _promote(client: AsyncClient, request: PromotionRequest, stages: Stages, evidence: Evidence) -> Record:
    """Plan first, so that what is refused has changed nothing; then hold the Lease for all that is changed."""
    spec = request.spec
    with stages.stage(Stage.PLAN) as note:
        evidence.plan = await make_plan(client, request)
        await refuse(request, evidence.plan)
        note(in_words(evidence.plan))
    await ensure_namespace(client, spec.namespace)
    async with hold(client, spec.namespace, spec.name, new_holder(PROMOTION), request.lease) as holding:
        job = _Job(client, request, stages, evidence, holding)
        await job.recover()
        return await job.promote()


async def recover_release(
    cluster: Cluster, namespace: str, release: str, registries: RegistryOptions, *, apply: bool
) -> tuple[Recovered, ...]:
    """Finish or undo the promotions of a release that were killed, and do nothing else.

    Args:
        cluster: where.
        namespace: the release's namespace.
        release: its base name.
        registries: how registries are talked to.
        apply: do it; else only what would be done is told.

    Raises:
        PromotionRefusedError: another promotion is under way.
        ClusterError: the API server refuses, or what served before does not serve again.
    """
    async with kubernetes(cluster) as client:
        if not apply:
            return tuple(
                Recovered(kept.record, f"to {kept.record.remedy}, which --apply does")
                for kept in await read_history(client, namespace, release)
                if not kept.record.is_over
            )
        async with hold(client, namespace, release, new_holder(PROMOTION)):
            is_done = partial(_is_done, client, cluster, registries)
            return await recover(client, namespace, release, is_done, partial(ClusterWaits, client, cluster))


async def _is_done(client: AsyncClient, cluster: Cluster, registries: RegistryOptions, record: Record) -> bool:
    checks = await verify_promotion(client, cluster, record.spec, record.path, registries)
    return all(check.verdict is not Verdict.FAIL for check in checks)


def refuse_unvouched(request: PromotionRequest) -> None:
    """Refuse what its report does not vouch for, before anybody is asked anything.

    Raises:
        PromotionRefusedError: it did not pass, or it tested something else.
    """
    if request.proof is not None:
        wanted = Wanted(
            request.digest,
            request.path,
            request.engine_image,
            request.lock,
            request.lock_digest,
            request.manifests_digest,
        )
        refuse_unproven(request.proof, wanted)


async def refuse(request: PromotionRequest, plan: Plan) -> None:
    """Refuse what may not be promoted, before anything is changed.

    Raises:
        PromotionRefusedError: it is not signed, or the cluster lacks something.
    """
    if request.signature is not None:
        await require_signature(request.source, request.signature, request.registries)
    refuse_missing(plan.missing)


def in_words(plan: Plan) -> str:
    """Say in one line what a plan comes to."""
    changed = sum(change.action != "keep" for change in plan.changes)
    sent = plan.copy.missing_bytes / 1e6
    return f"{plan.strategy}: {sent:.1f} MB to copy, {changed} of {len(plan.changes)} objects made or changed"


class _Job:
    """One promotion that holds the Lease."""

    def __init__(
        self, client: AsyncClient, request: PromotionRequest, stages: Stages, evidence: Evidence, holding: Holding
    ) -> None:
        self._client, self._request = client, request
        self._stages, self._evidence, self._holding = stages, evidence, holding
        self._waits = partial(ClusterWaits, client, request.cluster)

    async def recover(self) -> None:
        """Finish or undo what a killed promotion left."""
        spec = self._request.spec
        is_done = partial(_is_done, self._client, self._request.cluster, self._request.registries)
        with self._stages.stage("recover") as note:
            self._evidence.recovered = await recover(self._client, spec.namespace, spec.name, is_done, self._waits)
            note("; ".join(map(str, self._evidence.recovered)) or "nothing was left by an earlier promotion")

    async def promote(self) -> Record:
        """Carry the promotion out, or undo it."""
        request, spec = self._request, self._request.spec
        history = await read_history(self._client, spec.namespace, spec.name)
        current = await read_current(self._client, spec, request.path)
        refuse_canary(current, spec)
        strategy = current.strategy(request.path, replace=request.replace)
        before = Before(await take_snapshot(self._client, spec.namespace, spec.name), current.is_serving)
        record = await self._new_record(history, strategy)
        transaction = await begin(self._client, record, before, self._waits)
        steps = Steps(self._client, request, self._stages, self._evidence, self._holding, transaction, current, history)
        try:
            await transaction.run(steps.by_stage())
            with anyio.CancelScope(shield=True):  # an interrupt in the middle would leave open whether it succeeded
                await transaction.succeed("promoted")
        except BaseException as error:
            if self._holding.lost is None and not transaction.record.is_over:
                await self._undo_while_held(transaction, error)
            raise
        finally:
            self._evidence.record = transaction.record
        if request.stop_after:
            await self._stop()
        return transaction.record

    async def _undo_while_held(self, transaction: Transaction, error: BaseException) -> None:
        """Put everything back, whatever interrupts; but stop where the Lease is lost, and let that say who goes on."""
        try:
            with self._holding.shielded():
                await self._undo(transaction, error)
        finally:
            if (lost := self._holding.lost) is not None and not transaction.record.is_over:
                spec = transaction.record.spec
                self._holding.lost = LeaseLostError(
                    f"{lost.what}; promotion {transaction.record.number} was being undone, and stopped",
                    where=lost.where,
                    expected=_GOES_ON,
                    next_command=f"servepath rollback --namespace {spec.namespace} --name {spec.name} --apply",
                )

    async def _undo(self, transaction: Transaction, error: BaseException) -> None:
        """Put everything back, and say so in the place of the error.

        Raises:
            PromotionRolledBackError: it is put back; the cause was an error of servepath.
            ClusterError: it could not be put back.
        """
        known = first_servepath_error(error)
        stage, cause = transaction.record.stage, str(known or error) or type(error).__name__
        if isinstance(error, anyio.get_cancelled_exc_class()):
            cause = "interrupted"
        try:
            with self._stages.stage("roll back") as note:
                restored = self._evidence.restored = await transaction.undo(f"{stage}: {cause}")
                note(str(restored))
        except Exception as failed:  # noqa: BLE001 - whatever it was, the record says that it is to be gone on with
            raise self._not_put_back(transaction.record, cause, failed) from error
        if known is not None:
            raise PromotionRolledBackError(
                f"{stage} failed: {known.what}",
                where=known.where,
                expected=known.expected,
                next_command=known.next_command,
            ) from error

    def _not_put_back(self, record: Record, cause: str, failed: Exception) -> ClusterError:
        found = first_servepath_error(failed)
        spec = record.spec
        return ClusterError(
            f"{record.stage} failed ({cause}), and what was there before could not be put back: {found or failed}",
            where=f"promotion {record.number} of {spec.namespace}/{spec.name}",
            expected=_GOES_ON,
            next_command=f"servepath rollback --namespace {spec.namespace} --name {spec.name} --apply",
        )

    async def _new_record(self, history: tuple[Kept, ...], strategy: Strategy) -> Record:
        request = self._request
        last = last_succeeded(history)
        return Record(
            number=max((kept.record.number for kept in history), default=0) + 1,
            spec=request.spec,
            path=request.path,
            source=request.source,
            who=await who(self._client),
            started_at=now(),
            strategy=strategy,
            replaces=last.record.number if last else 0,
            back_to=request.back_to,
            report_digest=request.proof.digest if request.proof else "",
            lock_digest=request.lock_digest,
            manifests_digest=request.manifests_digest,
            git_revision=request.git_revision,
        )

    async def _stop(self) -> None:
        """Stop what was promoted: its objects stay, and nothing runs that costs money."""
        request = self._request
        with self._stages.stage("stop") as note:
            current = await read_current(self._client, request.spec, request.path)
            name = slot_name(request.name, current.slot) if request.path is ServingPath.KSERVE else request.name
            stopped = await stop(request.cluster, request.namespace, name, request.path)
            note(f"no pod runs any more, after {stopped.duration_s:.0f} s")
