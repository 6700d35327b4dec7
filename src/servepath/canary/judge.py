"""What the evidence of a step asks for: promote, hold, or roll back. Pure: it measures nothing and waits for nothing.

Promoting needs proof and rolling back needs proof; whatever lies between is held again, and is rolled back when the
plan's extensions are spent. A canary must pass every step, so the chance that one which is slower than allowed passes
them all is no larger than that of passing one: no correction for the number of steps is needed. A canary that is as
fast as the stable slot is rolled back for its speed only where a whole interval lies above the allowance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.bench.model import Metric, Statistic
from servepath.bench.slo import evaluate_path
from servepath.bench.wording import percent_text
from servepath.canary.model import Decision
from servepath.canary.pairs import CANARY, STABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servepath.bench.model import Comparison, PairedRatio, PathSummary, Sample
    from servepath.bench.slo import SloResult
    from servepath.canary.model import CanaryPlan, ClientRequest
    from servepath.serving.slots import Slot

DECIDING = (Metric.TTFT, Metric.ITL)
"""The latencies whose medians decide; the tails and the whole answer are told beside them."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision, why, and the objectives that were looked at."""

    decision: Decision
    reasons: tuple[str, ...]
    slo: tuple[SloResult, ...] = ()


def judge(comparison: Comparison, requests: Sequence[ClientRequest], slot: Slot, plan: CanaryPlan) -> Verdict:
    """Decide on the evidence of one step.

    Args:
        comparison: the paired measurement.
        requests: the requests of the step beside the pairs: the clients', and those that balance them.
        slot: where the canary is.
        plan: what is allowed.
    """
    stable, canary = (_summary(comparison, name) for name in (STABLE, CANARY))
    slo = evaluate_path(canary, plan.slo) if plan.slo else ()
    medians = {ratio.metric: ratio for ratio in comparison.ratios if ratio.statistic is Statistic.MEDIAN}
    deciding = [(metric, medians.get(metric)) for metric in DECIDING]
    limit = 1 + plan.max_slowdown_percent / 100
    bad = [
        *_too_many_errors(canary.error_count, canary.request_count, plan, _examples(comparison.samples)),
        *_client_errors(requests, slot, plan),
        *(_missed(one) for one in slo if not one.met),
        *(_too_slow(ratio, plan) for _, ratio in deciding if ratio and ratio.low > limit),
    ]
    if bad:
        return Verdict(Decision.ROLL_BACK, tuple(bad), slo)
    unclear = [
        *_instrument(comparison),
        *_stable_errors(stable),
        *(_unproven(ratio, metric, plan) for metric, ratio in deciding if ratio is None or ratio.high > limit),
    ]
    if unclear:
        return Verdict(Decision.HOLD, tuple(unclear), slo)
    return Verdict(Decision.PROMOTE, tuple(_in_words(ratio) for _, ratio in deciding if ratio), slo)


def is_hopeless(samples: Sequence[Sample], requests: Sequence[ClientRequest], slot: Slot, plan: CanaryPlan) -> bool:
    """Tell whether a canary has failed so often that no answer in the rest of a hold could make up for it.

    Where no failure is allowed, the first one decides; else a whole hold is awaited, as a share of few is no share.
    """
    if plan.max_error_rate > 0:
        return False
    return any(not one.ok for one in samples if one.path == CANARY) or bool(_client_errors(requests, slot, plan))


def spent(verdict: Verdict, extensions: int) -> Verdict:
    """Give what a step that was held as often as is allowed comes to: without proof nothing is promoted."""
    if verdict.decision is not Decision.HOLD:
        return verdict
    held = f"nothing could be shown, also after {extensions} more holds"
    return Verdict(Decision.ROLL_BACK, (held, *verdict.reasons), verdict.slo)


def _summary(comparison: Comparison, name: str) -> PathSummary:
    return next(one for one in comparison.summaries if one.path == name)


def _too_many_errors(failed: int, sent: int, plan: CanaryPlan, example: str) -> list[str]:
    if not failed or failed / sent <= plan.max_error_rate:
        return []
    allowed = f", {100 * plan.max_error_rate:g}% are allowed" if plan.max_error_rate else ""
    return [f"{failed} of {sent} requests failed{allowed}: {example}"]


def _client_errors(requests: Sequence[ClientRequest], slot: Slot, plan: CanaryPlan) -> list[str]:
    """Judge the clients' requests that the canary answered; one that nobody answered is nobody's."""
    its = [request for request in requests if request.slot is slot]
    failed = [request for request in its if request.error]
    found = _too_many_errors(len(failed), len(its), plan, failed[0].error if failed else "")
    return [f"beside the pairs, {one}" for one in found]


def _missed(one: SloResult) -> str:
    seen = "nothing" if one.seen is None else f"{one.seen:.4g}"
    return f"objective {one.objective} is {seen}, allowed {one.limit:g}"


def _instrument(comparison: Comparison) -> list[str]:
    if comparison.client.kept_schedule:
        return []
    return [f"the client sent its requests {1000 * comparison.client.lateness_p95_s:.0f} ms late (p95)"]


def _stable_errors(stable: PathSummary) -> list[str]:
    if not stable.error_count:
        return []
    return [
        f"{stable.error_count} of {stable.request_count} requests of the stable slot failed: nothing to compare with"
    ]


def _too_slow(ratio: PairedRatio, plan: CanaryPlan) -> str:
    return f"{_in_words(ratio)}, more than {percent_text(plan.max_slowdown_percent)} slower"


def _unproven(ratio: PairedRatio | None, metric: Metric, plan: CanaryPlan) -> str:
    if ratio is None:
        return f"median {metric.upper()} has no interval, for too few answers"
    return f"{_in_words(ratio)}, which does not exclude {percent_text(plan.max_slowdown_percent)} slower"


def _in_words(ratio: PairedRatio) -> str:
    """Say a ratio with its interval, such as `median TTFT is 103% (98% to 108%) of the stable one's`."""
    low, middle, high = (f"{100 * value:.0f}%" for value in (ratio.low, ratio.ratio, ratio.high))
    return f"median {ratio.metric.upper()} is {middle} ({low} to {high}) of the stable one's"


def _examples(samples: Sequence[Sample]) -> str:
    """Give the first failure of the canary in words."""
    return next((f"{one.error}: {one.error_detail}" for one in samples if one.path == CANARY and not one.ok), "")
