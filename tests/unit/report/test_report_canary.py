"""A canary in every file of a report: what it says, and what makes it fail."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from servepath.canary.model import Outcome
from servepath.report.answer import one_line, tiles
from servepath.report.canary_plot import canary_plot
from servepath.report.document import document_of
from servepath.report.html import html_page
from servepath.report.junit import junit_xml
from servepath.report.markdown import markdown_page
from servepath.report.model import Report
from servepath.report.recompute import recompute
from servepath.report.samples import kept_samples, pack, unpack
from servepath.report.write import samples_values, write_report
from tests.unit.report.example_canary import example_canary
from tests.unit.report.example_runs import RUN

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

PROMOTED = Report(RUN, canary=example_canary())
ROLLED_BACK = Report(RUN, canary=example_canary(Outcome.ROLLED_BACK))


def document(report: Report) -> dict[str, Any]:
    kept = kept_samples(report)
    return document_of(report) | {"samples": samples_values(kept, pack(kept))}


def test_a_promoted_canary_is_a_pass_and_its_numbers_come_first() -> None:
    assert PROMOTED.failures == ()
    found = document(PROMOTED)
    assert one_line(found).startswith("The canary sha256:222222222222 was promoted (10%, 100%); no client request")
    assert [(tile.value, tile.label) for tile in tiles(found)][:2] == [
        ("0", "client requests failed"),
        ("100%", "of the traffic at most, then promoted"),
    ]


def test_a_canary_that_was_rolled_back_fails_and_says_why() -> None:
    assert ROLLED_BACK.failures == (
        "the canary was rolled back: 2 of 12 requests failed: status: HTTP 500: failed",
        "2 of 100 client requests failed while the canary ran",
    )
    page = markdown_page(document(ROLLED_BACK))
    assert "was rolled back (10%, 0%)" in page
    assert "2 x status: HTTP 500: failed" in page


@pytest.mark.parametrize(("report", "failed"), [(PROMOTED, []), (ROLLED_BACK, ["step 1, 10%", "is promoted"])])
def test_junit_has_a_case_for_each_step_and_for_the_clients(report: Report, failed: list[str]) -> None:
    root = ET.fromstring(junit_xml(document(report)))  # noqa: S314 - our own
    suite = next(one for one in root if one.get("name") == "canary")
    names = [case.get("name") for case in suite.iter("testcase")]
    assert names[-2:] == ["is promoted", "no client request fails"]
    wrong = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    assert wrong == (failed and [*failed, "no client request fails"])


def test_the_plot_shows_each_weight_each_request_and_each_failure() -> None:
    for report, failures in ((PROMOTED, 0), (ROLLED_BACK, 2)):
        canary = report.canary
        assert canary is not None
        plot = canary_plot(document(report)["canary"], canary.requests)
        assert plot is not None
        assert plot.count("<circle") == len(canary.requests) - failures
        assert plot.count("v18") == failures
        assert f"{failures} of 100 client requests failed" in plot
        assert ">10%<" in plot
    assert canary_plot(document(PROMOTED)["canary"], ()) is None


def test_a_canary_that_sent_nothing_still_makes_a_page() -> None:
    canary = replace(example_canary(Outcome.ROLLED_BACK), requests=(), steps=(), weights=(), cause="ImagePullBackOff")
    report = Report(RUN, canary=canary)
    assert "no traffic shifted" in markdown_page(document(report))
    page = html_page(document(report), kept_samples(report))
    assert "ImagePullBackOff" in page
    assert "<svg" not in page


def test_the_numbers_follow_from_the_samples(tmp_path: Path) -> None:
    assert unpack(pack(kept_samples(ROLLED_BACK))) == kept_samples(ROLLED_BACK)
    write_report(ROLLED_BACK, tmp_path)
    again = recompute(tmp_path)
    assert again.differences == ()
    assert again.value_count > 200
