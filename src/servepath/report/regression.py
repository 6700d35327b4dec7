"""The comparison of two runs as a document, as Markdown and as a page."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from servepath.bench.regression import Run
from servepath.report import format as text
from servepath.report.document import plain
from servepath.report.html import render
from servepath.report.markdown_text import cell, table
from servepath.report.plot import RatioRow, ratio_plot
from servepath.report.write import json_bytes, load_report, load_samples, write_files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from markupsafe import Markup

    from servepath.bench.regression import Regression

REGRESSION_SCHEMA = "servepath-regression/v1"
CHANGES = {
    "regressed": "slower",
    "improved": "faster",
    "same": "no slowdown",
    "inconclusive": "too uncertain to tell",
}


def load_run(path: Path) -> Run:
    """A report with the samples of its comparison.

    Args:
        path: a report directory, or its `report.json` with the samples beside it.

    Raises:
        InputError: it is not there, or it is no report.
    """
    folder = path if path.is_dir() else path.parent
    return Run(str(path), load_report(path), load_samples(folder).comparison)


def regression_values(regression: Regression, before: Run, after: Run) -> dict[str, Any]:
    """The comparison of two runs as plain JSON values: every number with its unit in its key or beside it."""
    values: dict[str, Any] = plain(
        {
            "schema": REGRESSION_SCHEMA,
            "verdict": "fail" if regression.regressed or regression.lost else "pass",
            "headline": regression.headline,
            "gate": asdict(regression.gate),
            "before": _run_values(before),
            "after": _run_values(after),
            "differences": regression.differences,
            "lost": regression.lost,
            "findings": [
                {
                    **{key: value for key, value in asdict(one).items() if key not in {"low", "high"}},
                    "unit": "1" if " / " in one.subject else "s",
                    "ratio_low": one.low,
                    "ratio_high": one.high,
                }
                for one in regression.findings
            ],
        }
    )
    return values


def one_line(values: dict[str, Any]) -> str:
    """The outcome in one line, however much became slower."""
    slower = [one for one in values["findings"] if one["change"] == "regressed"]
    if not slower:
        return str(values["headline"])
    worst = max(slower, key=lambda one: float(one["ratio"]))
    what = f"{worst['subject']} {text.METRIC_NAMES[worst['metric']]} {worst['statistic']}"
    if len(slower) == 1:
        return f"Slower: {what} by {text.percent(worst['ratio'])}"
    count = f"{len(slower)} of {len(values['findings'])} latencies are slower"
    return f"{count}, the most {what} by {text.percent(worst['ratio'])}"


def regression_markdown(values: dict[str, Any]) -> str:
    """The comparison of two runs for a step summary."""
    mark = "\N{CROSS MARK}" if values["verdict"] == "fail" else "\N{WHITE HEAVY CHECK MARK}"
    rows = [
        [
            one["subject"],
            f"{text.METRIC_NAMES[one['metric']]} {one['statistic']}",
            *(_value(one, key) for key in ("before", "after")),
            text.percent(one["ratio"]),
            text.percent_interval(one["ratio_low"], one["ratio_high"]),
            CHANGES[one["change"]],
        ]
        for one in values["findings"]
    ]
    head = ["", "latency", "before", "after", "change", "interval", "found"]
    gate = values["gate"]
    note = (
        f"A regression is a slowdown whose whole interval lies beyond {gate['threshold_percent']:g}%; the "
        f"intervals hold jointly with {gate['confidence']:.0%} confidence."
    )
    parts = [
        f"## {mark} {cell(one_line(values))}",
        table(head, rows),
        "\n".join(f"- not alike: {cell(one)}" for one in values["differences"]),
        note,
        table(
            ["", "report", "started", "revision", "requests"],
            [
                [
                    name,
                    values[name]["place"],
                    values[name]["started_at"],
                    values[name]["git_revision"],
                    str(values[name]["request_count"]),
                ]
                for name in ("before", "after")
            ],
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def regression_page(values: dict[str, Any]) -> str:
    """The comparison of two runs as one self-contained page."""
    return render(
        "regression.html.j2",
        values=values,
        answer=one_line(values),
        fmt=text,
        plots=list(_plots(values["findings"])),
        changes=CHANGES,
    )


def write_regression(values: dict[str, Any], directory: Path) -> None:
    """Writes `regression.json`, `regression.md` and `regression.html`.

    Raises:
        InputError: the directory cannot be written.
    """
    files = {
        "regression.json": lambda: json_bytes(values),
        "regression.md": lambda: regression_markdown(values).encode(),
        "regression.html": lambda: regression_page(values).encode(),
    }
    write_files("comparison", directory, files)


def _run_values(run: Run) -> dict[str, Any]:
    info = run.document["run"]
    return {
        "place": run.place,
        "started_at": info["started_at"],
        "git_revision": info["git_revision"],
        "request_count": len(run.samples),
    }


def _value(finding: dict[str, Any], key: str) -> str:
    return text.latency(finding[key]) if finding["unit"] == "s" else f"{finding[key]:.3f}\N{MULTIPLICATION SIGN}"


def _plots(findings: list[dict[str, Any]]) -> Iterable[Markup]:
    for number, subject in enumerate(dict.fromkeys(one["subject"] for one in findings)):
        rows = [
            RatioRow(
                label=f"{text.METRIC_NAMES[one['metric']]} {one['statistic']}",
                text=f"{text.percent(one['ratio'])} ({text.percent_interval(one['ratio_low'], one['ratio_high'])})",
                ratio=one["ratio"],
                low=one["ratio_low"],
                high=one["ratio_high"],
                points=(),
            )
            for one in findings
            if one["subject"] == subject
        ]
        title = f"{subject}: the second run against the first"
        yield ratio_plot(title, rows, number=number % 4, faster="faster", slower="slower")
