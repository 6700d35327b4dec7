from __future__ import annotations

from dataclasses import replace

import pytest

from servepath.report.answer import facts, one_line, tiles
from servepath.report.document import document_of
from servepath.report.model import Report
from tests.unit.report.example_runs import RUN, failed_run, full_run, passed_run, stopped_run

FULL = full_run()
SWEEP_ONLY = Report(RUN, sweep=FULL.sweep)
LIFECYCLE_ONLY = Report(RUN, lifecycle=FULL.lifecycle)


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (passed_run(1.0), "No difference found between kserve and raw; 8.5% in a median would have been found"),
        (passed_run(1.3), "kserve against raw: TTFT +29.3%, ITL +32.3%, E2E +30.8%"),
        (FULL, "kserve against raw: TTFT +4.6%, ITL +3.2%, E2E +3.7%"),
        (failed_run(), "Check missing-key-is-401 of raw failed"),
        (
            stopped_run(),
            (
                "The run stopped: deployment smollm2-kserve is not ready after 300 s: "
                "container kserve-container was OOMKilled"
            ),
        ),
        (replace(passed_run(), comparison=None), "Everything that was checked holds"),
    ],
)
def test_the_answer_in_one_line(report: Report, line: str) -> None:
    assert one_line(document_of(report)) == line


def test_the_answer_of_one_kind_of_measurement_alone() -> None:
    assert one_line(document_of(SWEEP_ONLY)) == (
        "raw meets its objectives up to 6 requests/s; kserve meets its objectives up to 6 requests/s"
    )
    assert one_line(document_of(LIFECYCLE_ONLY)) == (
        "An update of raw (Recreate) fails 216 of 450 requests; an update of kserve (RollingUpdate) fails no request"
    )


@pytest.mark.parametrize(
    ("report", "values"),
    [
        (FULL, ["+4.6%", "+3.2%", "+3.7%"]),
        (SWEEP_ONLY, ["6/s", "6/s"]),
        (LIFECYCLE_ONLY, ["43.2 s", "0 s"]),
        (replace(passed_run(), comparison=None), ["2 min 21 s", "2 min 43 s"]),
        (Report(RUN), []),
    ],
)
def test_the_numbers_to_see_first(report: Report, values: list[str]) -> None:
    assert [tile.value for tile in tiles(document_of(report))] == values


def test_the_facts_at_a_glance() -> None:
    assert facts(document_of(FULL)) == [
        "17 of 17 checks passed, 1 skipped",
        "4 min 41 s in all",
        "0 of 240 requests failed",
        "the canary sha256:222222222222 was promoted (10%, 100%); no client request failed of 100",
        "raw meets its objectives up to 6 requests/s",
        "kserve meets its objectives up to 6 requests/s",
        "the client itself adds 0.31 ms to TTFT",
    ]
    assert facts(document_of(Report(RUN))) == []
