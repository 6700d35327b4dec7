"""What a gate lets through: the paired ratio beside what serves, or the samples of the last promotion."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from servepath.bench.analysis import analyse
from servepath.bench.model import BenchPlan
from servepath.bench.schedule import block_order
from servepath.bench.slo import Slo, evaluate_path
from servepath.errors import CheckFailedError, SloMissedError
from servepath.evidence import CheckResult, Verdict
from servepath.promotion.gate import (
    AGAIN,
    ATTACHED,
    CANDIDATE,
    STABLE,
    GateEvidence,
    judge_pair,
    judge_runs,
    kept_evidence,
    refuse_failed,
)
from servepath.promotion.history import Kept
from servepath.promotion.model import GatePlan
from servepath.promotion.record import State
from tests.unit.promotion.examples import record
from tests.unit.report.example_runs import drawn_samples

if TYPE_CHECKING:
    from servepath.bench.model import Comparison, Sample

BENCH = BenchPlan(blocks=12, requests_per_block=4, bootstrap_resamples=2000)
PLAN = GatePlan(BENCH)
NODE = {"cpu_model": "x", "cpus": "4", "gpus": "1", "architecture": "amd64"}
PASSED = CheckResult("health", "kserve", Verdict.PASS, "200", "200", 0.0)


def beside(slowdown: float, failing: str = "") -> Comparison:
    """A candidate that is so much slower than what serves beside it."""
    names = {"raw": STABLE, "kserve": CANDIDATE}
    drawn = drawn_samples(BENCH, slowdown=slowdown, failing=failing)
    return of(tuple(replace(one, path=names[one.path]) for one in drawn), (STABLE, CANDIDATE))


def alone(slowdown: float) -> Comparison:
    """A candidate against itself, that is so much slower than one with a slowdown of 1."""
    drawn = [one for one in drawn_samples(BENCH, slowdown=slowdown) if one.path == "kserve"]
    samples = tuple(replace(one, path=name) for name in (CANDIDATE, AGAIN) for one in drawn)
    return of(samples, (CANDIDATE, AGAIN))


def of(samples: tuple[Sample, ...], names: tuple[str, str]) -> Comparison:
    return analyse(samples, BENCH, block_order(names, BENCH), names=names, stopped="")


def last(comparison: Comparison | None) -> Kept:
    """The record of a promotion whose gate measured that, as it is read back from the cluster."""
    evidence = GateEvidence((PASSED,), comparison, (), NODE)
    attached = {ATTACHED: json.loads(json.dumps(kept_evidence(evidence)))} if comparison else {}
    return Kept(record(4, State.SUCCEEDED), "1", attached)


def test_beside_what_serves_the_paired_ratio_decides() -> None:
    assert judge_pair(beside(1.0), PLAN).verdict is Verdict.PASS
    slower = judge_pair(beside(1.3), PLAN)
    assert slower.verdict is Verdict.FAIL
    assert slower.seen.startswith("slower than what serves: TTFT median")
    assert judge_pair(beside(1.3), replace(PLAN, max_slowdown_percent=60.0)).verdict is Verdict.PASS
    assert judge_pair(beside(0.8), PLAN).verdict is Verdict.PASS


def test_a_client_that_was_late_or_too_few_answers_prove_nothing() -> None:
    good = beside(1.0)
    late = replace(good, client=replace(good.client, kept_schedule=False))
    assert "did not keep its schedule" in judge_pair(late, PLAN).seen
    assert judge_pair(late, PLAN).verdict is Verdict.FAIL
    assert judge_pair(replace(good, ratios=()), PLAN).verdict is Verdict.FAIL


def test_alone_it_is_compared_with_the_samples_of_the_last_promotion() -> None:
    before = last(alone(1.0))
    assert judge_runs(alone(1.0), NODE, before, PLAN).verdict is Verdict.PASS
    slower = judge_runs(alone(1.4), NODE, before, PLAN)
    assert slower.verdict is Verdict.FAIL
    assert "candidate TTFT median is slower" in slower.seen
    assert judge_runs(alone(1.4), NODE, last(beside(1.4)), PLAN).verdict is Verdict.PASS, "the last one was as slow"


def test_what_cannot_be_compared_is_skipped_with_the_reason() -> None:
    for node, before, reason in (
        (NODE, None, "nothing was promoted before"),
        (NODE, last(None), "promotion 4 kept no samples"),
        (NODE | {"gpus": "8"}, last(alone(1.0)), "node's gpus is 1, then 8"),
    ):
        judged = judge_runs(alone(1.0), node, before, PLAN)
        assert (judged.verdict, judged.seen) == (Verdict.SKIP, f"not compared: {reason}")


def test_what_a_record_keeps_is_the_candidate_alone_and_not_too_much() -> None:
    kept = kept_evidence(GateEvidence((PASSED,), beside(1.0), (), NODE))
    assert [one["path"] for one in kept["comparison"]["paths"]] == [CANDIDATE]
    assert len(json.dumps(kept)) < 100_000
    assert kept_evidence(GateEvidence((PASSED,))) == {}


def test_whatever_failed_is_refused_by_the_error_of_its_class() -> None:
    good = beside(1.0)
    summary = next(one for one in good.summaries if one.path == CANDIDATE)
    refuse_failed(GateEvidence((PASSED, judge_pair(good, PLAN)), good, evaluate_path(summary, Slo(9, 9, 99))), PLAN)
    broken = replace(PASSED, verdict=Verdict.FAIL, seen="500", next_command="kubectl logs")
    with pytest.raises(CheckFailedError, match=r"health: 500 \(and 1 more\)"):
        refuse_failed(GateEvidence((broken, broken)), PLAN)
    with pytest.raises(CheckFailedError, match="requests failed"):
        refuse_failed(GateEvidence((PASSED,), beside(1.0, failing="kserve")), PLAN)
    refuse_failed(GateEvidence((PASSED,), beside(1.0, failing="raw")), PLAN)
    with pytest.raises(SloMissedError, match=r"TTFT p95 is .*, allowed 10"):
        refuse_failed(GateEvidence((PASSED,), good, evaluate_path(summary, Slo(0.01, 9, 99))), PLAN)
    with pytest.raises(SloMissedError, match="slower than what serves"):
        refuse_failed(GateEvidence((PASSED, judge_pair(beside(1.3), PLAN)), beside(1.3)), PLAN)
