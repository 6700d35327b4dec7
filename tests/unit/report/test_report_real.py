"""A report of what was measured, not drawn: the load generator against a server of known pace on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from servepath.bench.capacity import SweepDesign
from servepath.bench.compare import compare
from servepath.bench.instrument import StreamLoad, endpoint_of, measure_instrument, paced_server
from servepath.bench.model import BenchPlan
from servepath.bench.paced_server import Pace
from servepath.bench.slo import Slo, evaluate
from servepath.bench.sweep import sweep
from servepath.report.model import Report
from servepath.report.recompute import recompute
from servepath.report.write import load_report, load_samples, write_report
from tests.unit.report.example_runs import RUN
from tests.unit.report.test_report_schema import VALIDATOR, numbers_of

if TYPE_CHECKING:
    from pathlib import Path

# How late a busy machine makes the client is not looked at here.
PLAN = BenchPlan(
    blocks=6,
    requests_per_block=4,
    rate_per_s=40.0,
    output_tokens=6,
    warmup_requests=1,
    budget_s=0.0,
    max_lateness_p95_s=10.0,
    bootstrap_resamples=200,
)
SLO = Slo(ttft_p95_s=5.0, itl_p95_s=5.0, e2e_p95_s=5.0)


async def measured() -> Report:
    async with paced_server(Pace(0.005, 0.002)) as url:
        endpoints = {"raw": endpoint_of(url), "kserve": endpoint_of(url)}
        comparison = await compare(endpoints, PLAN)
        design = SweepDesign(rates_per_s=(20.0, 40.0), load_s=0.5, budget_s=60.0, usd_per_hour=1.0)
        swept = await sweep(endpoints, PLAN, SLO, design)
    instrument = await measure_instrument([StreamLoad(streams=2, gap_s=0.01, output_tokens=4, measured_s=0.3)])
    slo = evaluate(comparison, SLO)
    return Report(RUN, comparison=comparison, slo=slo, sweep=swept, instrument=instrument)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    directory = tmp_path_factory.mktemp("real")
    report = anyio.run(measured)
    write_report(report, directory)
    return report, directory


def test_it_is_what_the_schema_says_with_a_unit_for_every_number(written: tuple[Report, Path]) -> None:
    document: dict[str, Any] = load_report(written[1])
    VALIDATOR.validate(document)
    assert all(leaf.schema["x-unit"] and leaf.schema["x-samples"] for leaf in numbers_of(document))
    assert document["instrument"]["points"][0]["request_count"] > 0


def test_its_samples_come_back_to_the_nanosecond_and_give_the_same_numbers(written: tuple[Report, Path]) -> None:
    report, directory = written
    assert report.comparison
    assert report.sweep
    kept = load_samples(directory)
    assert kept.comparison == report.comparison.samples
    assert kept.sweep == report.sweep.samples
    again = recompute(directory)
    assert again.differences == ()
    paced = sum(len(one.e2e_s) for one in kept.instrument)
    assert again.request_count == len(kept.comparison) + len(kept.sweep) + paced > 100
