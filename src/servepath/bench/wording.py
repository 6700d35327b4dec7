"""The findings of a comparison in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from servepath.bench.model import MIN_BLOCKS, Statistic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servepath.bench.model import BenchPlan, ClientHealth, PairedRatio
    from servepath.bench.stats import RatioInterval


def verdict_text(interval: RatioInterval, *, baseline: str, path: str) -> str:
    """The finding in words: a ratio with its interval, or what would have been found."""
    if interval.low <= 1.0 <= interval.high:
        detectable = percent_text(interval.detectable_percent)
        return f"no difference found; a difference of {detectable} would have been found"
    ratio, _, rest = ratio_text(interval.ratio, interval.low, interval.high).partition(" ")
    return f"{path} is {ratio} {baseline} {rest}"


def headline(
    ratios: Sequence[PairedRatio], client: ClientHealth, plan: BenchPlan, *, baseline: str, others: Sequence[str]
) -> str:
    """The finding in one line: the medians decide, a difference of 95th percentiles is added as the secondary it is."""
    if not client.kept_schedule:
        return (
            f"not usable: the client sent its requests {client.lateness_p95_s * 1000:.0f} ms late (p95), "
            f"more than the {plan.max_lateness_p95_s * 1000:.0f} ms allowed"
        )
    return "; ".join(_finding([ratio for ratio in ratios if ratio.path == path], path, baseline) for path in others)


def _finding(ratios: Sequence[PairedRatio], path: str, baseline: str) -> str:
    medians = [ratio for ratio in ratios if ratio.statistic is Statistic.MEDIAN]
    tails = [ratio for ratio in ratios if ratio.statistic is Statistic.P95 and ratio.differs]
    tail = f"; of the secondary p95: {_listed(tails)}" if tails else ""
    if not medians:
        return f"no ratio: fewer than {MIN_BLOCKS} blocks have answers of both {path} and {baseline}"
    different = [ratio for ratio in medians if ratio.differs]
    if different:
        same = " or ".join(ratio.metric.upper() for ratio in medians if not ratio.differs)
        rest = f"; no difference found in {same}" if same else ""
        return f"{path} against {baseline}: {_listed(different)}{rest}{tail}"
    detectable = ", ".join(f"{percent_text(ratio.detectable_percent)} in {ratio.metric.upper()}" for ratio in medians)
    return (
        f"no difference found between {path} and {baseline}; a difference of {detectable} would have been found{tail}"
    )


def _listed(ratios: Sequence[PairedRatio]) -> str:
    return ", ".join(f"{ratio.metric.upper()} {ratio_text(ratio.ratio, ratio.low, ratio.high)}" for ratio in ratios)


def ratio_text(ratio: float, low: float, high: float) -> str:
    """A ratio with its interval, such as `1.05x (1.02-1.08)`."""
    digits = _ratio_digits(low, high)
    return f"{ratio:.{digits}f}x ({low:.{digits}f}-{high:.{digits}f})"


def _ratio_digits(low: float, high: float) -> int:
    """Two digits, three when two would hide that the interval excludes 1."""
    nearest = min(abs(math.log(low)), abs(math.log(high)))
    return 2 if nearest >= 0.005 else 3  # noqa: PLR2004  # half of the second digit


def percent_text(value: float) -> str:
    """A percentage, with a decimal below ten."""
    return f"{value:.0f}%" if value >= 10 else f"{value:.1f}%"  # noqa: PLR2004
