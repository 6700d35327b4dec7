from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest

from servepath.bench.model import BenchPlan, Metric, Sample, Statistic
from servepath.bench.regression import (
    Change,
    Gate,
    Regression,
    Run,
    change_of,
    compare_runs,
    refuse_different,
    refuse_regression,
    what_differs,
)
from servepath.errors import InputError, SloMissedError
from servepath.report.document import document_of
from tests.unit.bench.noise import BUSY, GAPS, QUIET, Machine, draw
from tests.unit.report.example_runs import passed_run

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("raw", "kserve")
PLAN = BenchPlan(blocks=24, requests_per_block=2, bootstrap_resamples=100, output_tokens=GAPS + 1)
GATE = Gate(resamples=300)


def samples_of(plan: BenchPlan, seed: int, machine: Machine, slowdown: Mapping[str, float]) -> tuple[Sample, ...]:
    values = draw(plan, NAMES, seed, machine=machine, slowdown=slowdown)
    samples = []
    for block in range(plan.blocks):
        for name in NAMES:
            gaps_s = values[name, Metric.ITL, block]
            for index, first_s in enumerate(values[name, Metric.TTFT, block]):
                times_s = [first_s]
                for gap_s in gaps_s[index * GAPS : (index + 1) * GAPS]:
                    times_s.append(times_s[-1] + gap_s)
                samples.append(Sample(name, block, index, 0.0, 0.0, tuple(times_s), times_s[-1], 32, GAPS + 1))
    return tuple(samples)


def document(plan: BenchPlan = PLAN, *, model: str = "a", kept_schedule: bool = True) -> dict[str, Any]:
    return {
        "run": {"node": {"cpu_model": "EPYC", "cpus": "2", "kernel": "6.1"}},
        "deployments": [
            {"path": name, "modelcar_digest": f"sha256:{model}", "engine_image": f"host-of-{name}/engine@sha256:e"}
            for name in NAMES
        ],
        "comparison": {
            "baseline": "raw",
            "plan": asdict(plan),
            "paths": [{"path": name} for name in NAMES],
            "client": {"kept_schedule": kept_schedule},
        },
    }


def run(seed: int, slowdown: Mapping[str, float] = {}, *, plan: BenchPlan = PLAN, machine: Machine = QUIET) -> Run:
    return Run(f"report-{seed}", document(plan), samples_of(plan, seed, machine, slowdown))


def test_the_same_software_on_a_drifting_machine_seldom_regresses() -> None:
    alarms = sum(
        bool(compare_runs(run(seed, machine=BUSY), run(seed + 10_000, machine=BUSY), GATE).regressed)
        for seed in range(100)
    )
    assert alarms <= 5


def test_a_slower_path_is_found_and_named() -> None:
    found = [compare_runs(run(seed), run(seed + 10_000, {"kserve": 1.3}), GATE) for seed in range(20)]
    caught = [one for one in found if any(finding.subject == "kserve / raw" for finding in one.regressed)]

    assert len(caught) >= 18
    assert "kserve / raw" in caught[0].headline
    assert all(finding.subject != "raw" for one in found for finding in one.regressed)


def test_a_slower_engine_is_found_although_no_path_lost_against_the_other() -> None:
    both = {"raw": 1.4, "kserve": 1.4}
    found = [compare_runs(run(seed), run(seed + 10_000, both), GATE) for seed in range(20)]

    assert sum(any(finding.subject == "raw" for finding in one.regressed) for one in found) >= 16
    assert not [finding for one in found for finding in one.regressed if "/" in finding.subject]


def test_a_faster_path_is_an_improvement_and_no_regression() -> None:
    result = compare_runs(run(1), run(10_001, {"kserve": 0.5}), GATE)

    assert any(finding.change is Change.IMPROVED for finding in result.findings)
    assert not result.regressed
    refuse_regression(result)


def test_a_run_against_itself_is_the_same_everywhere() -> None:
    result = compare_runs(run(3), run(3), GATE)

    assert {(finding.ratio, finding.low <= 1 <= finding.high) for finding in result.findings} == {(1.0, True)}
    subjects = {finding.subject for finding in result.findings if finding.statistic is Statistic.MEDIAN}
    assert subjects == {"raw", "kserve", "kserve / raw"}
    assert result.differences == ()
    assert result.lost == ()


@pytest.mark.parametrize(
    ("low", "high", "change"),
    [
        (1.06, 1.20, Change.REGRESSED),
        (1.01, 1.20, Change.INCONCLUSIVE),
        (0.90, 1.20, Change.INCONCLUSIVE),
        (0.98, 1.04, Change.SAME),
        (1.01, 1.04, Change.SAME),
        (0.80, 0.99, Change.SAME),
        (0.80, 0.95, Change.IMPROVED),
    ],
)
def test_threshold_and_interval_decide_together(low: float, high: float, change: Change) -> None:
    assert change_of(low, high, threshold_percent=5) is change


def test_a_regression_ends_with_the_exit_code_of_a_missed_objective() -> None:
    result = compare_runs(run(1), run(10_001, {"kserve": 2.0}), GATE)

    with pytest.raises(SloMissedError, match=r"kserve .* median is slower") as caught:
        refuse_regression(result)
    assert caught.value.exit_code == 7


def test_runs_of_other_models_or_loads_are_refused_with_a_list_of_what_differs() -> None:
    before, after = run(1), run(1)
    other = replace(after, document=document(replace(PLAN, prompt_tokens=64, seed=7, blocks=30), model="b"))

    refuse_different(before, after)
    with pytest.raises(InputError, match="did not measure the same") as caught:
        refuse_different(before, other)
    assert what_differs(before.document, other.document) == (
        "model of raw is sha256:a, then sha256:b",
        "model of kserve is sha256:a, then sha256:b",
        "prompt_tokens is 32, then 64",
    )
    assert "prompt_tokens is 32, then 64" in caught.value.what
    assert compare_runs(before, other, GATE).differences == what_differs(before.document, other.document)


def test_the_registry_that_an_image_came_from_is_no_difference() -> None:
    before, after = document(), document()
    after["deployments"][0]["engine_image"] = "elsewhere/engine@sha256:e"
    assert what_differs(before, after) == ()


def test_a_path_that_answers_no_more_is_not_passed_over() -> None:
    before, after = run(1), run(2)
    silent = replace(after, samples=tuple(sample for sample in after.samples if sample.path == "raw"))
    result = compare_runs(before, silent, GATE)

    assert "kserve E2E" in result.lost
    with pytest.raises(SloMissedError, match="not measured any more: kserve TTFT"):
        refuse_regression(result)


@pytest.mark.parametrize(
    ("broken", "said"), [({"comparison": None}, "no comparison"), (document(kept_schedule=False), "its schedule")]
)
def test_a_run_that_measured_nothing_usable_is_refused(broken: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        compare_runs(run(1), Run("broken", broken, ()), GATE)


def test_the_documents_of_real_reports_are_read() -> None:
    report = passed_run()
    assert report.comparison
    here = Run("a", document_of(report), report.comparison.samples)
    result: Regression = compare_runs(here, here, GATE)

    refuse_different(here, here)
    assert result.headline.startswith("no regression")
    assert {finding.subject for finding in result.findings} == {
        *(one.path for one in report.comparison.summaries),
        *(f"{one.path} / {one.baseline}" for one in report.comparison.ratios),
    }
