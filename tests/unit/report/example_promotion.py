"""A promotion with everything that a report can tell of one."""

from __future__ import annotations

from servepath.evidence import CheckResult, Verdict
from servepath.promotion.copying import Copied, CopyPlan
from servepath.promotion.evidence import Evidence
from servepath.promotion.model import Action, Plan, PlannedChange, PlannedCost
from servepath.promotion.record import Record, Stage, State, Strategy
from servepath.promotion.restore import Restored
from servepath.promotion.transaction import Recovered
from servepath.serving.model import ServingPath, ServingSpec
from servepath.serving.profiles import GPU

_DIGEST = "sha256:" + "4f9c" * 16
_SOURCE = f"127.0.0.1:5000/servepath/smollm2@{_DIGEST}"
_SPEC = ServingSpec(
    "servepath", "smollm2", "smollm2", f"registry.example/models/smollm2@{_DIGEST}", "registry.example/e@sha256:0", GPU
)


def example_promotion() -> Evidence:
    """One that was rolled back at its gate, after a killed one had been undone."""
    record = Record(
        number=7,
        spec=_SPEC,
        path=ServingPath.KSERVE,
        source=_SOURCE,
        who="alice@example.com (alice@laptop)",
        started_at="2026-01-02T03:04:05+00:00",
        strategy=Strategy.CANARY,
        stage=Stage.GATE,
        state=State.ROLLED_BACK,
        ended_at="2026-01-02T03:09:05+00:00",
        result="gate: TTFT p95 is 312 ms, allowed 250 ms",
        replaces=5,
        report_digest="sha256:" + "ab" * 32,
    )
    killed = Record(6, _SPEC, ServingPath.KSERVE, _SOURCE, "bob", "2026-01-02T02:00:00+00:00", stage=Stage.SHIFT)
    return Evidence(
        plan=Plan(
            spec=_SPEC,
            path=ServingPath.KSERVE,
            strategy=Strategy.CANARY,
            serving="sha256:0 (promotion 5)",
            copy=CopyPlan(_SOURCE, _SPEC.modelcar_reference, 274_000_000, 3_500_000, 2, ("sha256-4f9c.sig",)),
            changes=(
                PlannedChange("Secret servepath/smollm2-green-kserve", Action.KEEP),
                PlannedChange("InferenceService servepath/smollm2-green-kserve", Action.CHANGE, "-a: 1\n+a: 2"),
            ),
            steps=("copy it", "deploy into the slot green, beside what serves"),
            cost=PlannedCost(1.5, 3.0, 1.5),
            may_be_lost=("requests, where only one engine can run",),
            missing=(CheckResult("quota", "cluster", Verdict.FAIL, "1 GPU", "none", 0.0, "ask for one"),),
            unfinished=(6,),
        ),
        recovered=(Recovered(killed, "undone, 2 deleted"),),
        record=record,
        copied=Copied(_SPEC.modelcar_reference, 3_500_000, ("sha256:1", "sha256:2"), ("sha256-4f9c.sig",), ()),
        restored=Restored(
            ("InferenceService servepath/smollm2-green-kserve",), ("HTTPRoute servepath/smollm2-stable",)
        ),
    )
