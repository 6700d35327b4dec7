"""The report as one self-contained HTML page: no script, no font, no picture, no request."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from servepath.bench.analysis import block_medians_s
from servepath.bench.model import Metric, Sample
from servepath.report import format as text
from servepath.report.document import sample_of
from servepath.report.plot import RatioRow, Series, block_plot, cumulative_plot, ratio_plot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

TEMPLATE = "report.html.j2"


def html_page(document: dict[str, Any], samples_document: dict[str, Any]) -> str:
    """The page of a report document and its raw samples."""
    samples = [sample_of(value) for value in samples_document["samples"]]
    return _template().render(
        report=document,
        fmt=text,
        total_s=max((one["start_s"] + one["duration_s"] for one in document["stages"]), default=0.0),
        ratio_plots=ratio_plots(document["comparison"]),
        distribution_plots=distribution_plots(document["comparison"], samples),
        block_plots=block_plots(document["comparison"], samples),
    )


def ratio_plots(comparison: dict[str, Any] | None) -> list[Markup]:
    """One plot per path that was compared with the baseline."""
    if not comparison:
        return []
    plots = []
    for path in dict.fromkeys(ratio["path"] for ratio in comparison["ratios"]):
        rows = [
            RatioRow(
                label=text.METRIC_NAMES[ratio["metric"]],
                text=text.ratio_interval(ratio["ratio"], ratio["ratio_low"], ratio["ratio_high"]),
                ratio=ratio["ratio"],
                low=ratio["ratio_low"],
                high=ratio["ratio_high"],
                points=tuple(ratio["block_ratios"]),
            )
            for ratio in comparison["ratios"]
            if ratio["path"] == path
        ]
        title = f"{path} against {comparison['baseline']}: ratio of medians with its interval"
        plots.append(ratio_plot(title, rows, faster=f"{path} faster", slower=f"{path} slower"))
    return plots


def distribution_plots(comparison: dict[str, Any] | None, samples: Sequence[Sample]) -> list[tuple[str, Markup]]:
    """Metric and plot of the share of requests (or gaps) that took at most x."""
    plots = []
    for metric in Metric:
        series = [
            Series(
                name, tuple(value for one in samples if one.path == name and one.ok for value in one.values_s(metric))
            )
            for name in _names(comparison)
        ]
        if series and all(one.values for one in series):
            scaled, unit = _scaled(series)
            title = f"Share of {text.METRIC_NAMES[metric]} values at or below a time"
            plots.append((str(metric), cumulative_plot(title, scaled, unit)))
    return plots


def block_plots(comparison: dict[str, Any] | None, samples: Sequence[Sample]) -> list[tuple[str, Markup]]:
    """Metric and plot of the median of each block: shows a drift of the machine, and that blocks are paired."""
    plots = []
    blocks = range(comparison["plan"]["blocks"] if comparison else 0)
    for metric in Metric:
        medians = {name: block_medians_s(samples, metric, name) for name in _names(comparison)}
        series = [
            Series(name, tuple(values.get(block, math.nan) for block in blocks)) for name, values in medians.items()
        ]
        if series and all(medians.values()):
            scaled, unit = _scaled(series)
            plots.append((str(metric), block_plot(f"Median {text.METRIC_NAMES[metric]} per block", scaled, unit)))
    return plots


@cache
def _template() -> Template:
    """The compiled template; it never changes while the program runs."""
    environment = Environment(
        loader=PackageLoader("servepath.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE)


def _names(comparison: dict[str, Any] | None) -> list[str]:
    return [path["path"] for path in comparison["paths"]] if comparison else []


def _scaled(series: Sequence[Series]) -> tuple[list[Series], str]:
    """The series in the unit that suits their largest value, and that unit."""
    largest_s = max(value for one in series for value in one.values if not math.isnan(value))
    factor, unit = (1, "s") if largest_s >= text.SECONDS_FROM_S else (1000, "ms")
    return [Series(one.name, tuple(value * factor for value in one.values)) for one in series], unit
