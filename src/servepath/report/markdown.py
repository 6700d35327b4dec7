"""The report as Markdown that fits a GitHub step summary (at most 1 MiB, no HTML needed)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servepath.report import answer
from servepath.report.canary import canary_markdown
from servepath.report.format import (
    METRIC_NAMES,
    duration,
    fact,
    fact_name,
    latency,
    measured,
    objective_name,
    objective_value,
    percent,
    percent_interval,
    short_digest,
    size,
)
from servepath.report.markdown_text import cell, code, code_block, table
from servepath.report.promotion import promotion_markdown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# GitHub takes a step summary of at most 1 MiB.
MAX_PAGE_BYTES = 1_000_000
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
        promotion_markdown(document["promotion"]) if document.get("promotion") else "",
        canary_markdown(document["canary"]) if document["canary"] else "",
        _sweep(document["sweep"]) if document["sweep"] else "",
        _lifecycle(document["lifecycle"]) if document["lifecycle"] else "",
        _instrument(document["instrument"]) if document["instrument"] else "",
        _checks(document["checks"]),
        _stages(document["stages"]),
        _what_ran(document),
    ]
    return "\n\n".join(_that_fit([part for part in parts if part])) + "\n"


def _that_fit(parts: Sequence[str]) -> Iterable[str]:
    """The parts in their order, as many as a step summary can hold, and a word about the others."""
    room = MAX_PAGE_BYTES
    for part in parts:
        room -= len(part.encode()) + 2
        if room < 0:
            yield "The rest is in `report.html`: a step summary holds no more."
            return
        yield part


def _title(document: dict[str, Any]) -> str:
    line = "" if document["failures"] else f"\n\n**{cell(answer.one_line(document))}**"
    glance = " · ".join(cell(fact) for fact in answer.facts(document))
    return f"## {MARKS[document['verdict']]} servepath: {document['verdict']}{line}" + (
        f"\n\n{glance}" if glance else ""
    )


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
    rows = []
    for path in comparison["paths"]:
        for metric, name in METRIC_NAMES.items():
            seen = path["latency"].get(metric)
            if seen:
                percentiles = [latency(seen[key]) for key in ("p50_s", "p95_s", "p99_s")]
                rows.append([path["path"], name, *percentiles, str(seen["sample_count"])])
    ratios = [
        [
            f"{one['path']} against {one['baseline']}",
            f"{METRIC_NAMES[one['metric']]} {one['statistic']}",
            percent(one["ratio"]),
            percent_interval(one["ratio_low"], one["ratio_high"]),
            "a difference" if one["differs"] else f"none found; {one['detectable_percent']:.1f}% would have been",
            str(one["block_count"]),
        ]
        for one in comparison["ratios"]
    ]
    throughput = [
        [
            path["path"],
            f"{path['output_tokens_per_s']:.1f}",
            f"{path['completed_requests_per_s']:.2f}",
            f"{path['error_count']} of {path['request_count']}",
            ", ".join(f"{count} {name}" for name, count in path["errors"].items()),
        ]
        for path in comparison["paths"]
    ]
    plan = comparison["plan"]
    note = (
        f"{cell(comparison['headline'])}. {len(comparison['order'])} randomised blocks of "
        f"{plan['requests_per_block']} requests per path, "
        f"{plan['output_tokens']} output tokens, offered rate {plan['rate_per_s']:g}/s, latency from the intended "
        f"send time; all intervals, of medians and of p95, hold jointly with {plan['confidence']:.0%} confidence. "
        f"{cell(comparison['stopped'])}"
    )
    parts = [
        "### The paths side by side",
        table(["comparison", "latency", "difference", "interval", "found", "blocks"], ratios) if ratios else "",
        table(["path", "latency", "p50", "p95", "p99", "samples"], rows),
        table(["path", "output tokens/s", "requests/s", "failed requests", ""], throughput),
        note.strip(),
    ]
    return "\n\n".join(part for part in parts if part)


def _sweep(sweep: dict[str, Any]) -> str:
    knees = [
        [
            one["path"],
            "none" if one["rate_per_s"] is None else f"{one['rate_per_s']:.3g}/s",
            "not reached" if one["next_rate_per_s"] is None else f"{one['next_rate_per_s']:.3g}/s",
            f"{one['goodput_requests_per_s']:.2f}",
            f"{one['output_tokens_per_s']:.1f}",
            f"{one['cost']['usd_per_1k_requests']:.3g}" if one["cost"] else "no price",
            f"{one['cost']['usd_per_1m_output_tokens']:.3g}" if one["cost"] else "no price",
            str(one["request_count"]),
        ]
        for one in sweep["knees"]
    ]
    head = ["path", "highest rate", "first miss", "good requests/s", "tokens/s", "$ per 1k requests", "$ per 1M tokens"]
    title = "### How far each path goes within its objectives"
    return "\n\n".join([title, table([*head, "requests"], knees), cell(sweep["stopped"])]).strip()


def _lifecycle(lifecycle: dict[str, Any]) -> str:
    rows = [
        [one["name"].replace("_", " "), one["subject"], measured(one["value"], one["unit"]), str(one["sample_count"])]
        for one in lifecycle["measurements"]
    ]
    rollouts = [
        [
            one["path"],
            one["strategy"],
            f"{one['failed_count']} of {one['request_count']}",
            duration(one["downtime_s"]),
            duration(one["duration_s"]),
        ]
        for one in lifecycle["rollouts"]
    ]
    parts = [
        "### What KServe gives, and what it takes",
        table(["", "of", "median", "samples"], rows) if rows else "",
        table(["update under load", "strategy", "failed requests", "downtime", "took"], rollouts) if rollouts else "",
        "\n".join(f"- not measured: {cell(one)}" for one in lifecycle["skipped"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _instrument(instrument: dict[str, Any]) -> str:
    rows = [
        [
            str(one["streams"]),
            *(latency(one[key]) for key in ("ttft_overhead_p50_s", "ttft_overhead_p95_s", "itl_overhead_p95_s")),
            f"{one['cpu_share']:.0%}",
            f"{one['tokens_per_s']:.0f}",
            str(one["request_count"]),
        ]
        for one in instrument["points"]
    ]
    head = ["streams at once", "TTFT p50", "TTFT p95", "ITL p95", "CPU", "tokens/s", "requests"]
    return "### What the client itself adds\n\n" + table(head, rows)


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
