from __future__ import annotations

import json
import re
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from servepath.bench.analysis import analyse
from servepath.errors import CheckFailedError, InputError
from servepath.evidence import CheckResult, RunInfo, StageTiming, Verdict
from servepath.redaction import REDACTED
from servepath.report.document import document_of
from servepath.report.junit import junit_xml
from servepath.report.markdown import markdown_page
from servepath.report.markdown_text import cell, code
from servepath.report.model import Report, report_error
from servepath.report.recompute import recompute
from servepath.report.samples import KeptSamples
from servepath.report.write import load_report, load_samples, write_atomic, write_report
from tests.unit.report.example_runs import (
    API_KEY,
    RUN,
    comparison,
    failed_run,
    full_run,
    passed_run,
    stopped_run,
)

if TYPE_CHECKING:
    from pathlib import Path

RUNS = {
    "full": full_run(),
    "passed": passed_run(),
    "slower": passed_run(1.08),
    "failed": failed_run(),
    "stopped": stopped_run(),
}
FILES = ("junit.xml", "report.html", "report.json", "report.md", "samples.json.zst")
SCHEMA: dict[str, Any] = json.loads(files("servepath.report").joinpath("schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture(params=RUNS, scope="module")
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    directory = tmp_path_factory.mktemp(request.param)
    write_report(RUNS[request.param], directory)
    return RUNS[request.param], directory


def text_of(directory: Path, name: str) -> str:
    content = (directory / name).read_bytes()
    return (zstandard.ZstdDecompressor().decompress(content) if name.endswith(".zst") else content).decode()


def test_every_run_writes_every_file_and_nothing_else(written: tuple[Report, Path]) -> None:
    _, directory = written
    assert sorted(path.name for path in directory.iterdir()) == list(FILES)


def test_the_json_is_what_the_shipped_schema_says(written: tuple[Report, Path]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(load_report(written[1]))


def test_the_key_is_in_no_file_not_even_escaped(written: tuple[Report, Path]) -> None:
    forms = {API_KEY, json.dumps(API_KEY)[1:-1], escape(API_KEY), API_KEY[:18], API_KEY[-10:]}
    for name in FILES:
        text = text_of(written[1], name)
        assert not [form for form in forms if form in text], name


def test_a_key_inside_other_text_is_replaced_in_report_and_samples(tmp_path: Path) -> None:
    write_report(failed_run(), tmp_path)
    assert f"Bearer {REDACTED}" in text_of(tmp_path, "report.json")
    assert f"the key {REDACTED}" in text_of(tmp_path, "samples.json.zst")


class PageReader(HTMLParser):
    """Collects everything in a page that could make a browser ask for something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [f"{tag} {name}={value}" for name, value in attrs if name in REFERENCE_ATTRIBUTES]


REFERENCE_ATTRIBUTES = {"src", "href", "srcset", "data", "action", "background", "poster", "xlink:href", "onload"}


def test_the_page_asks_for_nothing_and_runs_nothing(written: tuple[Report, Path]) -> None:
    report, directory = written
    page = text_of(directory, "report.html")
    reader = PageReader()
    reader.feed(page)
    reader.close()

    assert all(one.startswith("a href=diagnostics/") for one in reader.references)
    assert len(reader.references) == len(report.quotes)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(reader.tags)
    assert "url(" not in page
    assert "@import" not in page
    assert "default-src 'none'" in page


def test_the_page_shows_the_plots_of_a_comparison_and_none_without(written: tuple[Report, Path]) -> None:
    report, directory = written
    page = text_of(directory, "report.html")
    ET.fromstring("<all>" + "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL)) + "</all>")  # noqa: S314
    assert page.count("<svg") == (14 if report.sweep else 7 if report.comparison else 0)
    assert page.count('class="bar pass"') + page.count('class="bar fail"') == len(report.stages)
    assert "nan" not in re.sub(r"[a-z]*nan[a-z]+|[a-z]+nan", "", page.lower())


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    write_report(failed_run(), tmp_path)
    assert "<script" not in text_of(tmp_path, "report.html")
    markdown = text_of(tmp_path, "report.md")
    (row,) = [line for line in markdown.splitlines() if "alert(1)" in line]
    assert "<script" not in row
    assert len(re.findall(r"(?<!\\)\|", row)) == 6


def test_junit_parses_and_fails_exactly_where_something_failed(written: tuple[Report, Path]) -> None:
    report, directory = written
    root = ET.parse(directory / "junit.xml").getroot()  # noqa: S314
    failed = {
        (case.get("classname"), case.get("name")) for case in root.iter("testcase") if case.find("failure") is not None
    }
    expected = {(f"checks.{one.subject}", one.name) for one in report.checks if one.verdict is Verdict.FAIL}
    expected |= {("stages", stage.name) for stage in report.stages if stage.verdict is Verdict.FAIL}
    expected |= {(f"benchmark.{one.path}", one.objective) for one in report.slo if not one.met}
    if report.error:
        expected.add(("run", "comes to its end"))
    if report.comparison:
        expected |= {(f"benchmark.{one.path}", "requests succeed") for one in report.comparison.summaries if one.errors}

    assert failed == expected
    assert bool(failed) == (report.verdict is Verdict.FAIL)
    assert root.get("failures") == str(len(failed))
    assert root.get("tests") == str(len(list(root.iter("testcase"))))
    assert sum(int(suite.get("tests", "0")) for suite in root) == len(list(root.iter("testcase")))


def test_markdown_fits_a_step_summary_and_says_what_matters(tmp_path: Path) -> None:
    long = replace(RUNS["passed"].checks[0], seen="x" * 100_000)
    many = replace(RUNS["passed"], checks=(long,) * 200)
    write_report(many, tmp_path)
    assert (tmp_path / "report.md").stat().st_size < 1 << 20
    page = markdown_page(document_of(stopped_run()))
    assert page.startswith("## ❌ servepath: fail")
    assert "`kubectl -n servepath logs deployment/smollm2-kserve -c kserve-container --tail=50`" in page


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("full", "pass"), ("passed", "pass"), ("slower", "pass"), ("failed", "fail"), ("stopped", "fail")],
)
def test_the_verdict_of_each_run(name: str, verdict: str) -> None:
    document = document_of(RUNS[name])
    assert document["verdict"] == verdict
    assert bool(document["failures"]) == (verdict == "fail")


def test_one_failed_check_among_many_fails_the_run() -> None:
    report = passed_run()
    for position, check in enumerate(report.checks):
        broken = list(report.checks)
        broken[position] = replace(check, verdict=Verdict.FAIL)
        assert replace(report, checks=tuple(broken)).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    "report",
    [
        Report(RUN),
        Report(RUN, checks=(CheckResult("a", "raw", Verdict.SKIP, "x", "not here", 0.0),)),
        Report(RUN, stages=(StageTiming("bench", 0, 1, Verdict.FAIL),), comparison=comparison()),
        Report(RUN, comparison=comparison(failing="kserve")),
        replace(passed_run(), error=report_error(KeyboardInterrupt())),
    ],
    ids=["nothing", "all-skipped", "stage-failed", "requests-failed", "interrupted"],
)
def test_what_is_no_pass(report: Report) -> None:
    assert report.verdict is Verdict.FAIL
    assert report.failures


def test_errors_keep_their_class_and_code() -> None:
    known = report_error(CheckFailedError("no", where="here", expected="yes", next_command="look"))
    assert (known.what, known.where, known.expected, known.next_command, known.exit_code) == (
        "no",
        "here",
        "yes",
        "look",
        6,
    )
    assert (
        report_error(ZeroDivisionError("division by zero")).what
        == "internal error, ZeroDivisionError: division by zero"
    )
    assert report_error(KeyboardInterrupt()).exit_code == 130
    nested = BaseExceptionGroup("", [KeyError("x"), BaseExceptionGroup("", [InputError("bad")])])
    assert (report_error(nested).what, report_error(nested).exit_code) == ("bad", 3)
    assert report_error(BaseExceptionGroup("", [KeyboardInterrupt()])).exit_code == 130


def test_a_second_run_replaces_the_first_and_leaves_no_samples_of_it(tmp_path: Path) -> None:
    write_report(passed_run(), tmp_path)
    write_report(stopped_run(), tmp_path)
    assert load_report(tmp_path)["verdict"] == "fail"
    assert load_samples(tmp_path) == KeptSamples()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_atomic(target, b"old")
    with pytest.raises(TypeError):
        write_atomic(target, "no bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_directory_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(passed_run(), tmp_path / "file")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": "other/v9"}'])
def test_what_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(InputError, match="report"):
        load_report(tmp_path)
    with pytest.raises(InputError, match="report"):
        load_report(tmp_path / "nothing-here")


@pytest.mark.parametrize("content", [b"", b"not zstd", zstandard.ZstdCompressor().compress(b'{"schema": "x"}')])
def test_samples_that_cannot_be_read_are_refused(tmp_path: Path, content: bytes) -> None:
    write_report(passed_run(), tmp_path)
    (tmp_path / "samples.json.zst").write_bytes(content)
    with pytest.raises(InputError, match=r"samples\.json\.zst"):
        recompute(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec=None), max_size=80), verdict=st.sampled_from(list(Verdict)))
def test_any_text_in_a_check_gives_files_that_parse(tmp_path: Path, text: str, verdict: Verdict) -> None:
    run = RunInfo("unknown", "", "2026-01-02T03:04:05Z", text, {text: text})
    check = CheckResult(text, "raw", verdict, text, text, 0.0, text)
    write_report(Report(run, checks=(check,), stages=(StageTiming(text, 0, 1, verdict, text),)), tmp_path)

    VALIDATOR.validate(load_report(tmp_path))
    ET.parse(tmp_path / "junit.xml")  # noqa: S314
    reader = PageReader()
    reader.feed(text_of(tmp_path, "report.html"))
    assert "script" not in reader.tags
    assert reader.references == []


@given(st.text(max_size=1000))
def test_a_markdown_cell_is_one_line_without_a_bare_pipe(text: str) -> None:
    assert len(cell(text).splitlines()) <= 1
    assert not re.search(r"(?<!\\)(\\\\)*\|", cell(text))
    assert len(code(text).splitlines()) <= 1


def test_a_client_that_was_late_is_said_in_every_file(tmp_path: Path) -> None:
    measured = comparison()
    samples = tuple(replace(sample, sent_s=sample.sent_s + 0.2) for sample in measured.samples)
    names = [summary.path for summary in measured.summaries]
    late = analyse(samples, measured.plan, measured.order, names=names)
    write_report(replace(RUNS["passed"], comparison=late), tmp_path)

    assert load_report(tmp_path)["comparison"]["client"]["kept_schedule"] is False
    assert "do not use these numbers" in text_of(tmp_path, "report.html")
    for name in ("junit.xml", "report.md", "report.html"):
        assert "ot usable: the client sent its requests" in text_of(tmp_path, name)


def test_junit_of_a_passed_run_has_no_failure() -> None:
    assert "<failure" not in junit_xml(document_of(passed_run()))
