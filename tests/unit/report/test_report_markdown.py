"""`report.md` as GitHub renders it: parsed by a parser of its dialect."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from servepath.evidence import CheckResult, Verdict
from servepath.report.document import document_of
from servepath.report.markdown import markdown_page
from servepath.report.model import Quote, Report
from tests.unit.report.example_runs import RUN, failed_run, full_run, passed_run, stopped_run

RUNS = {"full": full_run(), "passed": passed_run(), "failed": failed_run(), "stopped": stopped_run()}
GFM = MarkdownIt("gfm-like", {"linkify": False})
MIB = 1 << 20


def tables(page: str) -> list[list[list[str]]]:
    """Every table as rows of cells."""
    found: list[list[list[str]]] = []
    for token, following in zip(tokens := GFM.parse(page), [*tokens[1:], None], strict=True):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in {"th_open", "td_open"}:
            assert following is not None
            found[-1][-1].append(following.content)
    return found


def rules(page: str) -> int:
    """How many tables the page was meant to have."""
    return len(re.findall(r"^\| ---", page, re.MULTILINE))


def kinds(page: str) -> list[str]:
    return [token.type for token in GFM.parse(page)]


@pytest.mark.parametrize("name", RUNS)
def test_it_renders_as_headings_tables_and_nothing_raw(name: str) -> None:
    document = document_of(RUNS[name])
    page = markdown_page(document)
    assert not {"html_block", "html_inline"} & {
        token.type for outer in GFM.parse(page) for token in (outer, *(outer.children or ()))
    }
    found = tables(page)
    assert rules(page) == len(found)
    for table in found:
        assert len({len(row) for row in table}) == 1
    rows = [row for table in found for row in table]
    for check in document["checks"]:
        assert any(check["name"] in row and check["subject"] in row for row in rows)


def test_the_numbers_are_where_they_are_looked_for() -> None:
    found = tables(markdown_page(document_of(full_run())))
    heads = [table[0] for table in found]
    assert heads[0] == ["comparison", "latency", "difference", "interval", "found", "blocks"]
    assert ["path", "latency", "p50", "p95", "p99", "samples"] in heads
    assert any("highest rate" in head for head in heads)
    assert any("downtime" in head for head in heads)
    assert ["share", "decision", "held", "failed client requests", "why"] in heads
    assert any("streams at once" in head for head in heads)


def test_a_broken_table_would_be_found() -> None:
    page = markdown_page(document_of(passed_run()))
    broken = page.replace("| --- | --- |", "| --- |", 1)
    assert rules(broken) != len(tables(broken))


def test_a_huge_report_still_fits_a_step_summary() -> None:
    check = CheckResult("name", "raw", Verdict.FAIL, "x" * 5000, "y" * 5000, 0.1, "z" * 5000)
    quote = Quote("diagnostics/logs/a.log", "a", ("w" * 5000,) * 40, 40)
    page = markdown_page(document_of(replace(passed_run(), checks=(check,) * 2000, quotes=(quote,) * 8)))
    assert len(page.encode()) < MIB
    assert "The rest is in `report.html`" in page
    assert page.startswith("## ❌ servepath: fail")


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_any_text_stays_in_its_place(text: str) -> None:
    check = CheckResult(text, "raw", Verdict.FAIL, text, text, 0.1, text)
    quote = Quote("diagnostics/a.log", text, (text, text), 2)
    plain = replace(check, name="x", expected="x", seen="x", next_command="x")
    shape = kinds(markdown_page(document_of(report_with(plain, replace(quote, about="x", lines=("x", "x"))))))
    assert kinds(markdown_page(document_of(report_with(check, quote)))) == shape


def report_with(check: CheckResult, quote: Quote) -> Any:
    return Report(RUN, checks=(check,), quotes=(quote,))
