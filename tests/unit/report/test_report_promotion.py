"""A promotion in the report's files: the plan, the record, and what was put back."""

from __future__ import annotations

from dataclasses import replace

from servepath.report.document import document_of
from servepath.report.html import html_page
from servepath.report.markdown import markdown_page
from servepath.report.model import Report
from servepath.report.promotion import plan_markdown
from servepath.report.samples import kept_samples, pack
from servepath.report.write import samples_values
from tests.unit.report.example_promotion import example_promotion
from tests.unit.report.example_runs import RUN


def test_the_plan_says_all_that_a_person_decides_on() -> None:
    values = document_of(Report(RUN, promotion=example_promotion()))["promotion"]["plan"]
    text = plan_markdown(values)
    for said in (
        "registry.example/models/smollm2@sha256:4f9c",
        "sending 3.3 MiB of 261.3 MiB, with 2 referrers and sha256-4f9c.sig",
        "now $1.50, while it is promoted $3.00, afterwards $1.50",
        "requests, where only one engine can run",
        "finish or undo promotion 6",
        "-a: 1\n+a: 2",
        "`ask for one`",
        "sha256:0 (promotion 5)",
    ):
        assert said in text, said
    nothing = plan_markdown(values | {"may_be_lost": [], "cost": None, "serving": "", "unfinished": []})
    assert "| may be lost | nothing |" in nothing
    assert "$" not in nothing


def test_every_file_tells_what_became_of_it() -> None:
    report = Report(RUN, promotion=example_promotion())
    kept = kept_samples(report)
    document = document_of(report) | {"samples": samples_values(kept, pack(kept))}
    for page in (markdown_page(document), html_page(document, kept)):
        for said in (
            "rolled-back",
            "alice@example.com (alice@laptop)",
            "promotion 6, killed at shift: undone, 2 deleted",
        ):
            assert said in page, said
    assert "HTTPRoute servepath/smollm2-stable" in html_page(document, kept)


def test_one_that_was_refused_has_a_plan_and_no_record() -> None:
    refused = example_promotion()
    refused.record = refused.restored = refused.copied = None
    refused.recovered = ()
    values = document_of(replace(Report(RUN), promotion=refused))["promotion"]
    assert (values["record"], values["copied"], values["restored"]) == (None, None, None)
    assert values["plan"]["strategy"] == "canary"
