"""The report as JUnit XML: one test case per check, stage, objective and path, and one for the run itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, SubElement, tostring  # writing only

from servepath.report.format import objective_value

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class _Case:
    """One test case; `failure` and `skipped` are empty when they do not apply."""

    classname: str
    name: str
    time_s: float
    failure: str = ""
    skipped: str = ""
    detail: str = ""


def junit_xml(document: dict[str, Any]) -> str:
    """The XML text, with its declaration."""
    properties = dict(_properties(document))
    suites = {
        "run": list(_run_cases(document)),
        "stages": list(_stage_cases(document)),
        "checks": list(_check_cases(document)),
        "benchmark": list(_benchmark_cases(document)),
        "canary": list(_canary_cases(document["canary"])) if document["canary"] else [],
    }
    cases = [case for group in suites.values() for case in group]
    root = Element("testsuites", {"name": "servepath", **_counts(cases)})
    for name, group in suites.items():
        if group:
            attributes = {"name": name, "timestamp": document["run"]["started_at"], "skipped": _skipped(group)}
            suite = SubElement(root, "testsuite", {**attributes, **_counts(group)})
            listed = SubElement(suite, "properties")
            for key, value in properties.items():
                SubElement(listed, "property", name=key, value=value)
            for case in group:
                _add(suite, case)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + tostring(root, encoding="unicode") + "\n"


def _run_cases(document: dict[str, Any]) -> Iterable[_Case]:
    error = document["error"]
    duration_s = max((stage["start_s"] + stage["duration_s"] for stage in document["stages"]), default=0.0)
    detail = _lines({key: error[key] for key in ("where", "expected", "next_command")}) if error else ""
    if error:
        detail = "\n\n".join([detail, *(_quoted(quote) for quote in document["diagnostics"])])
    yield _Case("run", "comes to its end", duration_s, failure=error["what"] if error else "", detail=detail)


def _stage_cases(document: dict[str, Any]) -> Iterable[_Case]:
    for stage in document["stages"]:
        detail = stage["detail"]
        yield _Case(
            "stages",
            stage["name"],
            stage["duration_s"],
            failure=(detail or "the stage failed") if stage["verdict"] == "fail" else "",
            skipped=(detail or "skipped") if stage["verdict"] == "skip" else "",
        )


def _check_cases(document: dict[str, Any]) -> Iterable[_Case]:
    for check in document["checks"]:
        failed = check["verdict"] == "fail"
        yield _Case(
            f"checks.{check['subject']}",
            check["name"],
            check["duration_s"],
            failure=f"expected {check['expected']}; seen {check['seen']}" if failed else "",
            skipped=check["seen"] or "skipped" if check["verdict"] == "skip" else "",
            detail=_lines({key: check[key] for key in ("expected", "seen", "next_command")}) if failed else "",
        )


def _benchmark_cases(document: dict[str, Any]) -> Iterable[_Case]:
    comparison = document["comparison"]
    if comparison:
        allowed = comparison["plan"]["max_error_rate"]
        for path in comparison["paths"]:
            errors = ", ".join(f"{count} {name}" for name, count in path["errors"].items())
            failure = f"{path['error_count']} of {path['request_count']} requests failed: {errors}"
            missed = path["error_rate"] > allowed
            yield _Case(
                f"benchmark.{path['path']}", "requests succeed", path["loaded_s"], failure=failure if missed else ""
            )
        late = "" if comparison["client"]["kept_schedule"] else comparison["headline"]
        yield _Case("benchmark.client", "keeps its schedule", 0.0, skipped=late)
    for one in document["slo"]:
        seen, limit = (objective_value(one["objective"], one[key]) for key in ("seen", "limit"))
        failure = f"seen {seen}, allowed {limit}"
        yield _Case(f"benchmark.{one['path']}", one["objective"], 0.0, failure="" if one["met"] else failure)


def _canary_cases(canary: dict[str, Any]) -> Iterable[_Case]:
    for step in canary["steps"]:
        seconds = step["ended_s"] - step["began_s"]
        failure = "; ".join(step["reasons"]) if step["decision"] != "promote" else ""
        yield _Case("canary", f"step {step['number'] + 1}, {step['weight_percent']}%", seconds, failure=failure)
    yield _Case("canary", "is promoted", canary["duration_s"], failure=canary["cause"])
    client = canary["client"]
    failed = f"{client['failed_count']} of {client['request_count']} requests failed" if client["failed_count"] else ""
    detail = _lines({str(one["failed_count"]): one["error"] for one in client["errors"]})
    yield _Case("canary", "no client request fails", canary["duration_s"], failure=failed, detail=detail)


def _counts(cases: list[_Case]) -> dict[str, str]:
    return {
        "tests": str(len(cases)),
        "failures": str(sum(bool(case.failure) for case in cases)),
        "errors": "0",
        "time": f"{sum(case.time_s for case in cases):.3f}",
    }


def _skipped(cases: list[_Case]) -> str:
    return str(sum(bool(case.skipped) for case in cases))


def _properties(document: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """What ran, as the properties of every suite."""
    run, modelcar = document["run"], document["modelcar"]
    yield "command", run["command"]
    yield "git_revision", run["git_revision"]
    yield "lock_digest", run["lock_digest"]
    if modelcar:
        yield "modelcar", modelcar["reference"]
    yield from ((f"engine.{one['path']}", one["engine_image"]) for one in document["deployments"])
    yield from ((f"node.{key}", str(value)) for key, value in run["node"].items())


def _add(suite: Element, case: _Case) -> None:
    element = SubElement(suite, "testcase", classname=case.classname, name=case.name, time=f"{case.time_s:.3f}")
    if case.failure:
        SubElement(element, "failure", message=case.failure, type="failure").text = case.detail
    elif case.skipped:
        SubElement(element, "skipped", message=case.skipped)


def _quoted(quote: dict[str, Any]) -> str:
    return "\n".join([f"{quote['about']} ({quote['file']}):", *quote["lines"]])


def _lines(values: dict[str, str]) -> str:
    return "\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in values.items() if value)
