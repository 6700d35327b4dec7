"""The stage `gate`: a candidate is checked and measured before any client meets it.

Where what was promoted last serves beside it, both are measured in paired blocks, and the machine is gone from the
ratio. Else the candidate is compared with the samples that the last promotion left in its record.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from servepath.bench.compare import compare
from servepath.bench.regression import Change, Gate, Run, change_of, compare_runs
from servepath.bench.slo import evaluate_path
from servepath.bench.wording import ratio_text
from servepath.checks.context import CheckContext
from servepath.checks.run import smoke
from servepath.cluster.facts import node_facts
from servepath.errors import CheckFailedError, InputError, ServepathError, SloMissedError
from servepath.evidence import CheckResult, Verdict
from servepath.report.document import plain
from servepath.report.format import objective_name, objective_value
from servepath.report.measured import comparison_values
from servepath.report.samples import KeptSamples, pack, unpack
from servepath.serving.model import ServingPath

if TYPE_CHECKING:
    from collections.abc import Callable

    from servepath.bench.compare import BenchProgress
    from servepath.bench.model import Comparison
    from servepath.bench.slo import SloResult
    from servepath.cluster.model import Cluster
    from servepath.promotion.history import Kept
    from servepath.promotion.model import GatePlan
    from servepath.serving.model import Endpoint, ServingSpec

STABLE = "stable"
CANDIDATE = "candidate"
AGAIN = "candidate-again"
"""Alone, the candidate is measured against itself: that must come out as no difference."""
SUBJECT = "gate"
ATTACHED = "gate"
"""The name under which a record keeps what its gate measured."""
_MAX_SAMPLES_BYTES = 400_000


@dataclass(frozen=True, slots=True)
class GateEvidence:
    """What a gate found.

    Attributes:
        checks: the smoke checks, and the comparison with what was promoted last.
        comparison: the measurement, None where the checks failed already or nothing was to be measured.
        slo: the candidate's objectives.
        node: facts of the node, for the next comparison.
    """

    checks: tuple[CheckResult, ...]
    comparison: Comparison | None = None
    slo: tuple[SloResult, ...] = ()
    node: dict[str, Any] | None = None


async def examine(  # noqa: PLR0913, PLR0917 - what, where, against what, and how
    cluster: Cluster,
    spec: ServingSpec,
    candidate: Endpoint,
    stable: Endpoint | None,
    last: Kept | None,
    plan: GatePlan,
    note: Callable[[str], None],
) -> GateEvidence:
    """Check and measure a candidate; what it fails is in the evidence, `refuse_failed` raises it.

    Args:
        cluster: where.
        spec: what the candidate was deployed from, under its own names.
        candidate: its endpoint.
        stable: what serves beside it, None where nothing does.
        last: the record of what was promoted last, None where nothing was.
        plan: what it must show.
        note: is told what is done.

    Raises:
        ClusterError: the API does not answer, or the candidate answers no request at all.
    """
    checks = await smoke(_context(cluster, spec, candidate, plan), lambda result: note(result.name))
    if any(check.verdict is Verdict.FAIL for check in checks) or not plan.measured:
        return GateEvidence(checks)
    endpoints = {STABLE: stable, CANDIDATE: candidate} if stable else {CANDIDATE: candidate, AGAIN: candidate}

    def show(progress: BenchProgress) -> None:
        note(f"{progress.step}, {progress.done_requests} of {progress.total_requests} requests")

    comparison = await compare(endpoints, plan.bench, show)
    summary = next(one for one in comparison.summaries if one.path == CANDIDATE)
    slo = evaluate_path(summary, plan.slo) if plan.slo else ()
    node = await node_facts(cluster)
    if stable:
        judged = judge_pair(comparison, plan)
    else:
        judged = await anyio.to_thread.run_sync(judge_runs, comparison, node, last, plan)
    return GateEvidence((*checks, judged), comparison, slo, node)


def refuse_failed(evidence: GateEvidence, plan: GatePlan) -> None:
    """Let only a candidate pass that failed nothing.

    Raises:
        CheckFailedError: a smoke check failed, or requests did.
        SloMissedError: an objective was missed, or it is slower than what was promoted last.
    """
    failed = [check for check in evidence.checks if check.verdict is Verdict.FAIL]
    smoked = [check for check in failed if check.subject != SUBJECT]
    if smoked:
        more = f" (and {len(smoked) - 1} more)" if len(smoked) > 1 else ""
        raise CheckFailedError(
            f"{smoked[0].name}: {smoked[0].seen}{more}",
            where="smoke checks of the candidate",
            expected=smoked[0].expected,
            next_command=smoked[0].next_command,
        )
    for summary in evidence.comparison.summaries if evidence.comparison else ():
        if summary.path != STABLE and summary.error_rate > plan.bench.max_error_rate:
            raise CheckFailedError(
                f"{summary.error_count} of {summary.request_count} requests failed",
                where="benchmark of the candidate",
                expected=f"at most {plan.bench.max_error_rate:.0%}",
            )
    missed = [
        f"{objective_name(one.objective)} is {objective_value(one.objective, one.seen)}, allowed "
        f"{objective_value(one.objective, one.limit)}"
        for one in evidence.slo
        if not one.met
    ]
    if missed:
        raise SloMissedError("; ".join(missed), where="benchmark of the candidate", expected="every objective met")
    if failed:
        raise SloMissedError(failed[0].seen, where=failed[0].name, expected=failed[0].expected)


def judge_pair(comparison: Comparison, plan: GatePlan) -> CheckResult:
    """Judge a candidate against what serves beside it, by their paired ratios."""
    ratios = [one for one in comparison.ratios if one.path == CANDIDATE]
    if not comparison.client.kept_schedule:
        return _judged(Verdict.FAIL, "the client did not keep its schedule, so nothing is known of the latencies", plan)
    if not ratios:
        return _judged(Verdict.FAIL, "too few answers to compare", plan)
    slower = [one for one in ratios if change_of(one.low, one.high, plan.max_slowdown_percent) is Change.REGRESSED]
    told = slower or ratios
    texts = [f"{one.metric.upper()} {one.statistic} {ratio_text(one.ratio, one.low, one.high)}" for one in told]
    what = "slower than what serves" if slower else "against what serves"
    return _judged(Verdict.FAIL if slower else Verdict.PASS, f"{what}: {'; '.join(texts)}", plan)


def judge_runs(comparison: Comparison, node: dict[str, Any], last: Kept | None, plan: GatePlan) -> CheckResult:
    """Judge a candidate against the samples of the last promotion."""
    try:
        before = _run_of(last)
        after = _run(comparison_values(comparison), node, comparison, "this gate")
        regression = compare_runs(before, after, Gate(threshold_percent=plan.max_slowdown_percent))
    except ServepathError as error:
        return _judged(Verdict.SKIP, f"not compared: {error.what}", plan)
    if regression.differences:
        return _judged(Verdict.SKIP, f"not compared: {'; '.join(regression.differences)}", plan)
    failed = bool(regression.regressed or regression.lost)
    return _judged(Verdict.FAIL if failed else Verdict.PASS, regression.headline, plan)


def kept_evidence(evidence: GateEvidence) -> dict[str, Any]:
    """Give what a record keeps of a gate, so that the next one can compare with it; nothing where that is too much."""
    comparison = evidence.comparison
    if comparison is None:
        return {}
    own = tuple(sample for sample in comparison.samples if sample.path == CANDIDATE)
    packed = pack(KeptSamples(comparison=own))
    if len(packed) > _MAX_SAMPLES_BYTES:
        return {}
    values = _alone(comparison_values(comparison))
    return {"comparison": plain(values), "node": evidence.node or {}, "samples": base64.b64encode(packed).decode()}


def _context(cluster: Cluster, spec: ServingSpec, candidate: Endpoint, plan: GatePlan) -> CheckContext:
    is_raw = candidate.path is ServingPath.RAW
    return CheckContext(
        cluster=cluster,
        spec=spec,
        modelcar_digest=spec.modelcar_reference.partition("@")[2],
        raw=candidate if is_raw else None,
        kserve=None if is_raw else candidate,
        expected_answer=plan.expected_answer,
    )


def _judged(verdict: Verdict, seen: str, plan: GatePlan) -> CheckResult:
    expected = f"no latency longer by {plan.max_slowdown_percent:g}% or more than that of what was promoted last"
    return CheckResult("as_fast_as_what_was_promoted_last", SUBJECT, verdict, expected, seen, 0.0)


def _run_of(last: Kept | None) -> Run:
    """Give the last promotion's measurement.

    Raises:
        InputError: there is none.
    """
    if last is None:
        raise InputError("nothing was promoted before")
    kept = last.attached.get(ATTACHED)
    if not kept:
        raise InputError(f"promotion {last.record.number} kept no samples")
    samples = unpack(base64.b64decode(kept["samples"])).comparison
    document = {"comparison": kept["comparison"], "run": {"node": kept["node"]}}
    return Run(f"promotion {last.record.number}", document, samples)


def _run(values: dict[str, Any], node: dict[str, Any], comparison: Comparison, place: str) -> Run:
    own = tuple(sample for sample in comparison.samples if sample.path == CANDIDATE)
    return Run(place, {"comparison": plain(_alone(values)), "run": {"node": node}}, own)


def _alone(values: dict[str, Any]) -> dict[str, Any]:
    """Give a comparison's values as if the candidate had been measured alone: another was beside it at other times."""
    paths = [one for one in values["paths"] if one["path"] == CANDIDATE]
    return {"baseline": CANDIDATE, "paths": paths, "plan": values["plan"], "client": values["client"]}
