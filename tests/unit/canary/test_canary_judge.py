"""What evidence asks for: promote, hold, or roll back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servepath.bench.analysis import analyse
from servepath.bench.model import BenchPlan, ErrorClass, Sample
from servepath.bench.schedule import block_order
from servepath.bench.slo import Slo
from servepath.canary.judge import Verdict, is_hopeless, judge, spent
from servepath.canary.model import CanaryPlan, ClientRequest, Decision
from servepath.canary.pairs import CANARY, NAMES
from servepath.serving.slots import Slot

if TYPE_CHECKING:
    from servepath.bench.model import Comparison

BENCH = BenchPlan(requests_per_block=1, bootstrap_resamples=500)
PLAN = CanaryPlan(max_slowdown_percent=20.0, bench=BENCH)


def sample(path: str, block: int, factor: float, rng: np.random.Generator, *, error: bool = False) -> Sample:
    noise = float(rng.lognormal(0, 0.02))
    times_s = tuple(0.1 * factor * noise + 0.02 * factor * noise * token for token in range(8))
    failed = (ErrorClass.STATUS, "HTTP 500: failed") if error else (None, "")
    return Sample(path, block, 0, 0.0, 0.001, times_s, times_s[-1], 30, 8, *failed)


def measured(slowdown: float = 1.0, *, blocks: int = 20, errors: int = 0, stable_errors: int = 0) -> Comparison:
    rng = np.random.default_rng(5)
    samples = []
    for block in range(blocks):
        samples += [
            sample("stable", block, 1.0, rng, error=block < stable_errors),
            sample("canary", block, slowdown, rng, error=block < errors),
        ]
    order = block_order(NAMES, replace(BENCH, blocks=max(blocks, 6)))[:blocks]
    return analyse(samples, BENCH, order, names=NAMES)


def client(slot: Slot | None, error: str = "") -> ClientRequest:
    return ClientRequest(0.0, 1.0, None if error else 0.1, slot, error)


def decided(comparison: Comparison, *requests: ClientRequest, plan: CanaryPlan = PLAN) -> Verdict:
    return judge(comparison, requests, Slot.GREEN, plan)


def test_a_canary_as_fast_as_the_stable_slot_is_promoted_with_its_numbers() -> None:
    verdict = decided(measured())
    assert verdict.decision is Decision.PROMOTE
    assert [reason.partition(" is ")[0] for reason in verdict.reasons] == ["median TTFT", "median ITL"]


def test_a_canary_that_is_certainly_slower_is_rolled_back() -> None:
    verdict = decided(measured(1.5))
    assert verdict.decision is Decision.ROLL_BACK
    assert "more than 20% slower" in verdict.reasons[0]


def test_a_canary_at_the_allowance_shows_nothing_and_is_rolled_back_in_the_end() -> None:
    verdict = decided(measured(1.2))
    assert verdict.decision is Decision.HOLD
    assert "does not exclude 20% slower" in verdict.reasons[0]
    over = spent(verdict, 2)
    assert over.decision is Decision.ROLL_BACK
    assert over.reasons[0] == "nothing could be shown, also after 2 more holds"
    assert spent(decided(measured()), 2).decision is Decision.PROMOTE


@settings(deadline=None, max_examples=30)
@given(st.floats(0.5, 2.0))
def test_nothing_slower_than_allowed_is_promoted_and_nothing_faster_rolled_back(slowdown: float) -> None:
    decision = decided(measured(slowdown)).decision
    if slowdown > 1.25:
        assert decision is Decision.ROLL_BACK
    if slowdown < 1.15:
        assert decision is Decision.PROMOTE


def test_too_few_blocks_show_nothing() -> None:
    verdict = decided(measured(blocks=4))
    assert verdict.decision is Decision.HOLD
    assert verdict.reasons[0] == "median TTFT has no interval, for too few answers"


def test_one_error_of_the_canary_is_too_many_where_none_is_allowed() -> None:
    verdict = decided(measured(errors=1))
    assert (verdict.decision, verdict.reasons) == (
        Decision.ROLL_BACK,
        ("1 of 20 requests failed: status: HTTP 500: failed",),
    )


def test_a_share_of_errors_can_be_allowed() -> None:
    plan = replace(PLAN, max_error_rate=0.1)
    assert decided(measured(errors=2), plan=plan).decision is Decision.PROMOTE
    verdict = decided(measured(errors=3), plan=plan)
    assert verdict.decision is Decision.ROLL_BACK
    assert "3 of 20 requests failed, 10% are allowed" in verdict.reasons[0]


def test_errors_of_the_stable_slot_are_no_fault_of_the_canary_but_leave_no_baseline() -> None:
    verdict = decided(measured(stable_errors=1))
    assert verdict.decision is Decision.HOLD
    assert "nothing to compare with" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("slot", "decision"), [(Slot.GREEN, Decision.ROLL_BACK), (Slot.BLUE, Decision.PROMOTE), (None, Decision.PROMOTE)]
)
def test_a_clients_error_counts_for_the_slot_that_answered(slot: Slot | None, decision: Decision) -> None:
    good = [client(Slot.GREEN), client(Slot.BLUE)]
    assert decided(measured(), *good, client(slot, "HTTP 500")).decision is decision


def test_a_missed_objective_rolls_back_and_is_told() -> None:
    verdict = decided(measured(), plan=replace(PLAN, slo=Slo(ttft_p95_s=0.05, itl_p95_s=None, e2e_p95_s=None)))
    assert verdict.decision is Decision.ROLL_BACK
    assert verdict.reasons[0].startswith("objective ttft_p95_s is 0.1")
    assert [(one.path, one.met) for one in verdict.slo if one.objective == "ttft_p95_s"] == [(CANARY, False)]


def test_a_late_client_shows_nothing() -> None:
    plan = replace(BENCH, max_lateness_p95_s=0.0005)
    found = measured()
    late = analyse(found.samples, plan, found.order, names=NAMES)
    assert decided(late).decision is Decision.HOLD
    assert "late" in decided(late).reasons[0]


def test_a_hold_ends_early_only_where_no_error_is_allowed() -> None:
    samples = measured(errors=1).samples
    assert is_hopeless(samples, (), Slot.GREEN, PLAN)
    assert is_hopeless((), (client(Slot.GREEN, "HTTP 500"),), Slot.GREEN, PLAN)
    assert not is_hopeless(measured(stable_errors=1).samples, (client(None, "reset"),), Slot.GREEN, PLAN)
    assert not is_hopeless(samples, (), Slot.GREEN, replace(PLAN, max_error_rate=0.5))
