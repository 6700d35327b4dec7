"""An example canary: promoted, or rolled back. Drawn, not measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from servepath.bench.analysis import analyse
from servepath.bench.model import ErrorClass, Sample
from servepath.bench.schedule import block_order
from servepath.bench.slo import Slo, evaluate_path
from servepath.canary.model import (
    CanaryPlan,
    CanaryResult,
    ClientRequest,
    Decision,
    Outcome,
    StepVerdict,
    WeightChange,
)
from servepath.serving.slots import Slot


def example_canary(outcome: Outcome = Outcome.PROMOTED) -> CanaryResult:
    """A canary whose clients lost nothing; rolled back, it answered two of them with an error."""
    plan = CanaryPlan(steps_percent=(10, 100), hold_s=10.0, slo=Slo())
    bad = outcome is Outcome.ROLLED_BACK
    rng = np.random.default_rng(3)
    requests = []
    for number in range(100):
        sent_s = 0.5 * number
        share = 0.0 if sent_s < 15 else 0.1 if sent_s < 28 else 0.0 if bad else 1.0
        slot = Slot.GREEN if number % 10 < 10 * share else Slot.BLUE
        failed = bad and slot is Slot.GREEN and number in (30, 40)
        ttft_s = None if failed else round(0.05 * float(rng.lognormal(0, 0.2)), 9)
        requests.append(ClientRequest(sent_s, sent_s + 0.2, ttft_s, slot, "status: HTTP 500: failed" if failed else ""))
    return CanaryResult(
        id="a1b2c3d4e5f6",
        outcome=outcome,
        cause="2 of 12 requests failed: status: HTTP 500: failed" if bad else "",
        plan=plan,
        host="model-kserve-servepath.servepath.test",
        stable_digest="sha256:" + "1" * 64,
        canary_digest="sha256:" + "2" * 64,
        canary_slot=Slot.GREEN,
        steps=tuple(_example_step(number, plan, bad=bad) for number in range(1 if bad else 2)),
        weights=(WeightChange(14.8, 15.0, 10), WeightChange(27.8, 28.0, 0 if bad else 100)),
        requests=tuple(requests),
        resumed=False,
        duration_s=51.5,
    )


def _example_step(number: int, plan: CanaryPlan, *, bad: bool) -> StepVerdict:
    bench = replace(plan.bench, blocks=8)
    names = ("stable", "canary")
    order = block_order(names, bench)
    rng = np.random.default_rng(number)
    samples = []
    for block in range(bench.blocks):
        for path in names:
            first_s = 0.05 * float(rng.lognormal(0, 0.05))
            times_s = tuple(round(first_s + 0.01 * token, 9) for token in range(bench.output_tokens))
            failed = bad and path == "canary" and block == 7
            error, detail = (ErrorClass.STATUS, "HTTP 500: failed") if failed else (None, "")
            samples.append(Sample(path, block, 0, 0.0, 0.001, times_s, times_s[-1] + 0.001, 40, 16, error, detail))
    comparison = analyse(samples, bench, order, names=names, stopped="the step was held for its time")
    slo = evaluate_path(comparison.summaries[1], Slo())
    began_s = 15.0 + 13.0 * number
    return StepVerdict(
        number=number,
        weight_percent=plan.steps_percent[number],
        decision=Decision.ROLL_BACK if bad else Decision.PROMOTE,
        reasons=("1 of 8 requests failed: status: HTTP 500: failed",) if bad else ("median TTFT is 101% of stable",),
        extensions=number,
        comparison=comparison,
        slo=slo,
        began_s=began_s,
        ended_s=began_s + 12.5,
    )
