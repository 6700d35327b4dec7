"""The plots of the page, drawn from the document and the raw samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servepath.bench.model import Metric, Sample
from servepath.bench.pairing import values_by_block
from servepath.bench.stats import percentile
from servepath.report import format as text
from servepath.report.plot import RatioRow, Series, block_plot, cumulative_plot, ratio_plot
from servepath.report.run_plot import RatePoint, RateSeries, availability_strip, rate_plot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from markupsafe import Markup

    from servepath.report.samples import RolloutSamples


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot under a short name with what it means."""

    name: str
    meaning: str
    plot: Markup


def ratio_plots(comparison: dict[str, Any] | None) -> list[Markup]:
    """One plot per path that was compared with the baseline."""
    if not comparison:
        return []
    plots = []
    numbers = {name: number for number, name in enumerate(_names(comparison))}
    for path in dict.fromkeys(ratio["path"] for ratio in comparison["ratios"]):
        rows = [_ratio_row(ratio) for ratio in comparison["ratios"] if ratio["path"] == path]
        title = f"{path} against {comparison['baseline']}: each ratio with its interval"
        plots.append(ratio_plot(title, rows, number=numbers[path] % 4, faster="faster", slower=f"{path} slower"))
    return plots


def distribution_figures(comparison: dict[str, Any] | None, samples: Sequence[Sample]) -> list[Figure]:
    """For each metric the share of requests (or gaps) that took at most x."""
    figures = []
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
            figures.append(_figure(metric, text.METRIC_MEANINGS[metric], cumulative_plot(title, scaled, unit)))
    return figures


def block_figures(comparison: dict[str, Any] | None, samples: Sequence[Sample]) -> list[Figure]:
    """For each metric the median of each block: shows a drift of the machine, and that blocks are paired."""
    figures = []
    values = values_by_block(samples)
    blocks = range(max((sample.block for sample in samples), default=-1) + 1)
    for metric in Metric:
        series = [
            Series(name, tuple(_median(values.get((name, metric, block), ())) for block in blocks))
            for name in _names(comparison)
        ]
        if series and all(any(not math.isnan(value) for value in one.values) for one in series):
            scaled, unit = _scaled(series)
            plot = block_plot(f"Median {text.METRIC_NAMES[metric]} per block", scaled, unit)
            figures.append(_figure(metric, "median of each block", plot))
    return figures


def sweep_figures(sweep: dict[str, Any] | None) -> list[Figure]:
    """For each metric the 95th percentile over the offered rate, with the line of its objective."""
    if not sweep:
        return []
    figures = []
    for metric, name in text.METRIC_NAMES.items():
        series = [
            RateSeries(path, tuple(_sweep_points(sweep["points"], path, metric)))
            for path in dict.fromkeys(point["path"] for point in sweep["points"])
        ]
        if any(one.points for one in series):
            title = f"95th percentile of {name} over the offered rate"
            plot = rate_plot(title, series, "offered requests/s", sweep["slo"][f"{metric}_p95_s"])
            figures.append(_figure(metric, f"{text.METRIC_MEANINGS[metric]}, 95th percentile", plot))
    return figures


def instrument_figure(instrument: dict[str, Any] | None) -> Figure | None:
    """What the client adds, over the number of streams at once."""
    if not instrument or not instrument["points"]:
        return None
    points = instrument["points"]
    series = [
        RateSeries(name, tuple(RatePoint(one["streams"], one[f"{metric}_overhead_p95_s"], met=True) for one in points))
        for metric, name in text.METRIC_NAMES.items()
    ]
    plot = rate_plot("What the client adds to a latency, 95th percentile", series, "streams at once")
    return Figure("Added by the client", "95th percentile", plot)


def rollout_figures(lifecycle: dict[str, Any] | None, rollouts: Sequence[RolloutSamples]) -> list[Figure]:
    """Each rollout's requests over time, answered and failed."""
    if not lifecycle:
        return []
    figures = []
    for rollout, samples in zip(lifecycle["rollouts"], rollouts, strict=True):
        down = f"{text.duration(rollout['downtime_s'])} without an answer" if rollout["failed_count"] else "no downtime"
        said = f"{rollout['failed_count']} of {rollout['request_count']} requests failed, {down}"
        if samples:
            title = f"Requests to {rollout['path']} while it was updated"
            figures.append(
                Figure(f"{rollout['path']}, {rollout['strategy']}", said, availability_strip(title, samples, said))
            )
    return figures


def _ratio_row(ratio: dict[str, Any]) -> RatioRow:
    interval = text.percent_interval(ratio["ratio_low"], ratio["ratio_high"])
    return RatioRow(
        label=f"{text.METRIC_NAMES[ratio['metric']]} {ratio['statistic']}",
        text=f"{text.percent(ratio['ratio'])} ({interval})",
        ratio=ratio["ratio"],
        low=ratio["ratio_low"],
        high=ratio["ratio_high"],
        points=tuple(ratio["block_ratios"]),
    )


def _sweep_points(points: Iterable[dict[str, Any]], path: str, metric: str) -> Iterable[RatePoint]:
    for point in sorted(points, key=lambda one: float(one["rate_per_s"])):
        seen = point["summary"]["latency"].get(metric)
        if point["path"] == path and seen:
            yield RatePoint(point["rate_per_s"], seen["p95_s"], point["meets_slo"])


def _median(values: Sequence[float]) -> float:
    return percentile(values, 50) if values else math.nan


def _figure(metric: str, meaning: str, plot: Markup) -> Figure:
    return Figure(text.METRIC_NAMES[metric], meaning, plot)


def _names(comparison: dict[str, Any] | None) -> list[str]:
    return [path["path"] for path in comparison["paths"]] if comparison else []


def _scaled(series: Sequence[Series]) -> tuple[list[Series], str]:
    """The series in the unit that suits their largest value, and that unit."""
    largest_s = max(value for one in series for value in one.values if not math.isnan(value))
    factor, unit = (1, "s") if largest_s >= text.SECONDS_FROM_S else (1000, "ms")
    return [Series(one.name, tuple(value * factor for value in one.values)) for one in series], unit
