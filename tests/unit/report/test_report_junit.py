"""`junit.xml` in the hands of what reads it: the rules of Jenkins's schema, and a parser that actions use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from junitparser import Failure, JUnitXml, Skipped

from servepath.report.document import document_of
from servepath.report.junit import junit_xml
from tests.unit.report.example_runs import failed_run, full_run, passed_run, stopped_run

if TYPE_CHECKING:
    from servepath.report.model import Report

RUNS = {"full": full_run(), "passed": passed_run(), "failed": failed_run(), "stopped": stopped_run()}
# Element by element: the attributes it may have, those it must have, and its children in their order.
RULES: dict[str, tuple[set[str], set[str], tuple[str, ...]]] = {
    "testsuites": ({"name", "time", "tests", "failures", "errors", "disabled"}, set(), ("testsuite",)),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id", "package"},
        {"name", "tests"},
        ("properties", "testcase", "system-out", "system-err"),
    ),
    "properties": (set(), set(), ("property",)),
    "property": ({"name", "value"}, {"name", "value"}, ()),
    "testcase": (
        {"name", "classname", "time", "group"},
        {"name", "classname"},
        ("skipped", "error", "failure", "system-out", "system-err"),
    ),
    "failure": ({"message", "type"}, set(), ()),
    "skipped": ({"message", "type"}, set(), ()),
}


def broken_rules(root: ET.Element) -> list[str]:
    wrong = []
    for element in root.iter():
        if element.tag not in RULES:
            wrong.append(f"{element.tag} is no element of it")
            continue
        allowed, needed, children = RULES[element.tag]
        wrong += [f"{element.tag} has {name}" for name in set(element.keys()) - allowed]
        wrong += [f"{element.tag} lacks {name}" for name in needed - set(element.keys())]
        order = [children.index(child.tag) if child.tag in children else -1 for child in element]
        if order != sorted(order) or -1 in order:
            wrong.append(f"{element.tag} has its children in another order")
        for name in ("tests", "failures", "errors", "skipped"):
            if not re.fullmatch(r"\d+", element.get(name, "0")):
                wrong.append(f"{name} is no count")
        if not re.fullmatch(r"\d+(\.\d+)?", element.get("time", "0")):
            wrong.append("time is no number of seconds")
    return wrong


@pytest.mark.parametrize("name", RUNS)
def test_it_keeps_the_rules_of_the_schema(name: str) -> None:
    assert broken_rules(ET.fromstring(junit_xml(document_of(RUNS[name])))) == []  # noqa: S314


@pytest.mark.parametrize(
    "text",
    [
        '<testsuites><testsuite name="a" tests="x"/></testsuites>',
        '<testsuites><testsuite tests="1"/></testsuites>',
        '<testsuites skipped="1"/>',
        '<testsuites><testcase name="a" classname="b"/></testsuites>',
        '<testsuite name="a" tests="1"><testcase name="a" classname="b"/><properties/></testsuite>',
        '<testcase name="a" classname="b" time="soon"/>',
        "<other/>",
    ],
)
def test_a_broken_rule_is_found(text: str) -> None:
    assert broken_rules(ET.fromstring(text))  # noqa: S314


def counts(report: Report) -> tuple[int, int, int]:
    cases = [case for suite in JUnitXml.fromstring(junit_xml(document_of(report)).encode()) for case in suite]
    results = [result for case in cases for result in case.result]
    failures = sum(isinstance(result, Failure) for result in results)
    return len(cases), failures, sum(isinstance(result, Skipped) for result in results)


@pytest.mark.parametrize("name", RUNS)
def test_a_parser_that_actions_use_counts_what_the_file_says(name: str) -> None:
    text = junit_xml(document_of(RUNS[name]))
    tests, failures, skipped = counts(RUNS[name])
    root = JUnitXml.fromstring(text.encode())
    assert (root.tests, root.failures, root.errors) == (tests, failures, 0)
    assert sum(suite.skipped for suite in root) == skipped
    assert bool(failures) == (RUNS[name].verdict == "fail")


def test_every_suite_says_what_ran() -> None:
    for suite in JUnitXml.fromstring(junit_xml(document_of(full_run())).encode()):
        properties = {one.name: one.value for one in suite.properties()}  # type: ignore[no-untyped-call]
        assert properties["command"] == "servepath e2e --source SmolLM2-135M-Instruct"
        assert properties["modelcar"].partition("@")[2].startswith("sha256:")
        assert {"engine.raw", "engine.kserve", "node.cpu", "git_revision"} <= properties.keys()
