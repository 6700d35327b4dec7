"""The report as Markdown that fits a GitHub step summary (at most 1 MiB, no HTML needed)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servepath.report.format import (
    METRIC_NAMES,
    duration,
    fact,
    fact_name,
    latency,
    objective_name,
    objective_value,
    ratio_interval,
    short_digest,
    size,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_CELL_CHARS = 300
MARKS = {
    "pass": "\N{WHITE HEAVY CHECK MARK}",
    "fail": "\N{CROSS MARK}",
    "skip": "\N{BLACK RIGHT-POINTING DOUBLE TRIANGLE}",
}


def markdown_page(document: dict[str, Any]) -> str:
    """The whole page: verdict, why, comparison, checks, stages, what ran."""
    parts = [
        _title(document),
        _failures(document),
        _diagnostics(document["diagnostics"]),
        _comparison(document["comparison"]) if document["comparison"] else "",
        _slo(document["slo"]),
        _checks(document["checks"]),
        _stages(document["stages"]),
        _what_ran(document),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(document: dict[str, Any]) -> str:
    comparison = document["comparison"]
    line = f"\n\n**{cell(comparison['headline'])}**" if comparison else ""
    return f"## {MARKS[document['verdict']]} servepath: {document['verdict']}{line}"


def _failures(document: dict[str, Any]) -> str:
    lines = [f"- {cell(reason)}" for reason in document["failures"]]
    error = document["error"]
    if error:
        lines += [
            f"  - {label}: {code(error[key])}"
            for key, label in (("where", "where"), ("expected", "expected"), ("next_command", "next"))
            if error[key]
        ]
    return "\n".join(lines)


def _diagnostics(quotes: Sequence[dict[str, Any]]) -> str:
    parts = [f"{cell(one['about'])} ({code(one['file'])}):\n\n{code_block(one['lines'])}" for one in quotes]
    return "\n\n".join(["### What the cluster said", *parts]) if parts else ""


def _comparison(comparison: dict[str, Any]) -> str:
    baseline = comparison["baseline"]
    rows = []
    for path in comparison["paths"]:
        for metric, name in METRIC_NAMES.items():
            seen = path["latency"].get(metric)
            if seen:
                ratio = next(
                    (r for r in comparison["ratios"] if (r["path"], r["metric"]) == (path["path"], metric)), None
                )
                against = ratio_interval(ratio["ratio"], ratio["ratio_low"], ratio["ratio_high"]) if ratio else ""
                percentiles = [latency(seen[key]) for key in ("p50_s", "p95_s", "p99_s")]
                rows.append([path["path"], name, *percentiles, str(seen["sample_count"]), against])
    throughput = [
        [
            path["path"],
            f"{path['output_tokens_per_s']:.1f}",
            f"{path['completed_requests_per_s']:.2f}",
            f"{path['error_count']} of {path['request_count']}",
        ]
        for path in comparison["paths"]
    ]
    plan = comparison["plan"]
    note = (
        f"{plan['blocks']} randomised blocks of {plan['requests_per_block']} requests per path, "
        f"{plan['output_tokens']} output tokens, offered rate {plan['rate_per_s']:g}/s, latency from the intended "
        f"send time; intervals hold jointly with {plan['confidence']:.0%} confidence."
    )
    return "\n\n".join(
        (
            "### Latency",
            table(["path", "metric", "p50", "p95", "p99", "samples", f"median against {baseline}"], rows),
            table(["path", "output tokens/s", "good requests/s", "failed requests"], throughput),
            note,
        )
    )


def _slo(objectives: Sequence[dict[str, Any]]) -> str:
    if not objectives:
        return ""
    rows = [
        [
            MARKS["pass" if one["met"] else "fail"],
            one["path"],
            objective_name(one["objective"]),
            objective_value(one["objective"], one["limit"]),
            objective_value(one["objective"], one["seen"]),
        ]
        for one in objectives
    ]
    return "### Objectives\n\n" + table(["", "path", "objective", "limit", "seen"], rows)


def _checks(checks: Sequence[dict[str, Any]]) -> str:
    if not checks:
        return ""
    passed = sum(check["verdict"] == "pass" for check in checks)
    skipped = sum(check["verdict"] == "skip" for check in checks)
    title = f"### Checks: {passed} of {len(checks) - skipped} passed" + (f", {skipped} skipped" if skipped else "")
    rows = [
        [MARKS[check["verdict"]], check["subject"], check["name"], check["seen"], duration(check["duration_s"])]
        for check in sorted(checks, key=lambda check: str(check["verdict"]))
    ]
    commands = [
        f"- {cell(one['name'])} ({one['subject']}): expected {cell(one['expected'])}; next: {code(one['next_command'])}"
        for one in checks
        if one["verdict"] == "fail"
    ]
    parts = [title, table(["", "subject", "check", "seen", "time"], rows)]
    return "\n\n".join([*parts, *(["\n".join(commands)] if commands else [])])


def _stages(stages: Sequence[dict[str, Any]]) -> str:
    if not stages:
        return ""
    rows = [[MARKS[one["verdict"]], one["name"], duration(one["duration_s"]), one["detail"]] for one in stages]
    total = duration(max(one["start_s"] + one["duration_s"] for one in stages))
    return f"### Stages: {total}\n\n" + table(["", "stage", "time", ""], rows)


def _what_ran(document: dict[str, Any]) -> str:
    run, modelcar, cluster = document["run"], document["modelcar"], document["cluster"]
    rows = [["command", run["command"]], ["started", run["started_at"]], ["servepath", run["git_revision"]]]
    if modelcar:
        rows.append(["model", f"{modelcar['model']['name']}, {size(modelcar['size_bytes'])}, {modelcar['digest']}"])
    if cluster:
        rows.append(["gateway", f"{cluster['gateway_class']} at {cluster['gateway_url']}"])
    rows += [
        [
            f"path {one['path']}",
            f"{one['workload']} on {short_digest(one['engine_image'])}, ready in {one['ready_s']:.0f} s",
        ]
        for one in document["deployments"]
    ]
    rows += [[fact_name(key), fact(key, value)] for key, value in run["node"].items()]
    return "### What ran\n\n" + table(["", ""], rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells are escaped and cut."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell(value) for value in line) + " |" for line in lines)


def cell(text: str) -> str:
    """Text that stays in its cell: one line, no pipe, no HTML, at most `MAX_CELL_CHARS` characters."""
    one_line = " ".join(str(text).split())
    cut = one_line if len(one_line) <= MAX_CELL_CHARS else one_line[:MAX_CELL_CHARS] + "…"
    return cut.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def code_block(lines: Sequence[str]) -> str:
    """Lines as a block of code, its fence longer than any run of backticks in them."""
    fence = "```"
    while any(fence in line for line in lines):
        fence += "`"
    return "\n".join([fence, *(" ".join(line.split()) for line in lines), fence])


def code(text: str) -> str:
    """Text as inline code, on one line, with a fence longer than any run of backticks in it."""
    one_line = " ".join(str(text).split())
    fence = "`"
    while fence in one_line:
        fence += "`"
    pad = " " if "`" in one_line else ""
    return f"{fence}{pad}{one_line}{pad}{fence}"
