from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from servepath.bench.model import BenchPlan
from servepath.bench.regression import Gate
from servepath.cli.app import app
from servepath.cli.report import compare
from servepath.report.write import write_report
from tests.unit.report.example_runs import comparison, passed_run

if TYPE_CHECKING:
    from pathlib import Path

PLAN = BenchPlan(blocks=16, requests_per_block=3, bootstrap_resamples=200)
RUNNER = CliRunner()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("reports")
    plans = {"before": (1.0, PLAN), "again": (1.0, replace(PLAN, seed=7)), "slower": (1.25, replace(PLAN, seed=8))}
    plans["other"] = (1.0, replace(PLAN, output_tokens=8))
    for name, (slowdown, plan) in plans.items():
        write_report(replace(passed_run(), comparison=comparison(slowdown, plan=plan)), root / name)
    return {name: root / name for name in plans}


def report(*arguments: Path | str) -> Any:
    return RUNNER.invoke(app, ["report", *map(str, arguments)])


def test_a_run_against_one_like_it_passes(reports: dict[str, Path]) -> None:
    done = report(reports["before"], reports["again"] / "report.json", "--threshold-percent", "15")
    assert done.exit_code == 0, done.output
    assert "no regression" in done.stdout
    assert "| kserve / raw | TTFT median |" in done.stdout


def test_a_slower_run_ends_with_the_code_of_a_missed_objective(reports: dict[str, Path], tmp_path: Path) -> None:
    done = report(
        reports["before"], reports["slower"], "--threshold-percent", "10", "--output", tmp_path / "out", "--json"
    )
    assert done.exit_code == 7 or getattr(done.exception, "exit_code", None) == 7
    values = json.loads(done.stdout)
    assert values["verdict"] == "fail"
    assert "kserve / raw E2E median is slower" in values["headline"]
    written = tmp_path / "out"
    assert json.loads((written / "regression.json").read_text()) == values
    assert "slower" in (written / "regression.md").read_text()
    page = (written / "regression.html").read_text()
    assert page.count("<svg") == 3
    assert "latencies are slower, the most kserve" in page
    assert "src=" not in page


def test_a_threshold_above_the_slowdown_lets_it_pass(reports: dict[str, Path]) -> None:
    assert report(reports["before"], reports["slower"], "--threshold-percent", "60").exit_code == 0


def test_runs_that_did_not_measure_the_same_are_refused_unless_told(reports: dict[str, Path]) -> None:
    refused = report(reports["before"], reports["other"])
    assert refused.exit_code == 3
    assert "output_tokens" in refused.stderr
    assert "not alike" in report(reports["before"], reports["other"], "--anyway", "--threshold-percent", "60").stdout


def test_a_run_is_recomputed_before_it_is_compared(reports: dict[str, Path], tmp_path: Path) -> None:
    assert report(reports["before"], reports["again"], "--recompute", "--threshold-percent", "60").exit_code == 0
    write_report(passed_run(), tmp_path)
    document = json.loads((tmp_path / "report.json").read_text())
    document["comparison"]["paths"][0]["latency"]["e2e"]["p95_s"] *= 1.01
    (tmp_path / "report.json").write_text(json.dumps(document))
    done = report(reports["before"], tmp_path, "--recompute")
    assert done.exit_code == 6
    assert "comparison.paths[0].latency.e2e.p95_s" in done.stderr


def test_three_reports_and_none_are_refused(reports: dict[str, Path], tmp_path: Path) -> None:
    assert getattr(report(*[reports["before"]] * 3).exception, "exit_code", None) == 2
    assert report(reports["before"], tmp_path / "nothing").exit_code == 3


def test_every_number_of_the_comparison_has_its_unit(reports: dict[str, Path]) -> None:
    values = compare(reports["before"], reports["slower"], Gate(), anyway=False, output=None).values
    for finding in values["findings"]:
        assert finding["unit"] == ("1" if "/" in finding["subject"] else "s")
        assert finding["ratio_low"] <= finding["ratio"] <= finding["ratio_high"]
