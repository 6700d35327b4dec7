"""The plots of the comparison: how latencies are spread, how they went block by block, and the paired ratios."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from servepath.report.svg import (
    BOTTOM,
    CHAR_PX,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    nice_ticks,
    svg,
    text,
    x_labels,
    y_labels,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

PLOT_HEIGHT = 218
ROW_HEIGHT = 50
MIN_RATIO_SPAN = 0.02
# More steps than this are not seen on a plot that is 300 pixels wide.
MAX_STEPS = 300


@dataclass(frozen=True, slots=True)
class Series:
    """A named list of numbers of one path."""

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RatioRow:
    """One row of the ratio plot; `points` are the ratios of single blocks."""

    label: str
    text: str
    ratio: float
    low: float
    high: float
    points: tuple[float, ...]


def cumulative_plot(title: str, series: Sequence[Series], unit: str) -> Markup:
    """Share of the values at or below x, one step line per series; values are in `unit`."""
    values = [value for one in series for value in one.values]
    ticks = nice_ticks(min(values), max(values))
    x = Axis(ticks[0], ticks[-1], LEFT, WIDTH - RIGHT)
    y = Axis(0, 1, PLOT_HEIGHT - BOTTOM, TOP)
    parts = [y_labels(y, [(share, f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 0.95)])]
    parts += [x_labels(x, [(tick, f"{tick:g}") for tick in ticks], unit, PLOT_HEIGHT)]
    for number, one in enumerate(series):
        steps = _steps(one.values)
        path = f"M{x.px(steps[0][0])} {y.px(0)}" + "".join(f"H{x.px(value)}V{y.px(share)}" for value, share in steps)
        parts.append(f'<path class="line s{number}" d="{path}H{x.px(x.high)}"/>')
    said = "; ".join(
        f"{one.name}: half at or below {np.median(one.values):.3g} {unit}, "
        f"95% at or below {np.percentile(one.values, 95):.3g} {unit}, {len(one.values)} values"
        for one in series
    )
    return svg(title, said, PLOT_HEIGHT, parts)


def _steps(values: Sequence[float]) -> list[tuple[float, float]]:
    """Value and share of the values at or below it, at most `MAX_STEPS` of them, the last included."""
    ordered = sorted(values)
    count = min(len(ordered), MAX_STEPS)
    ranks = sorted({math.ceil(step * len(ordered) / count) for step in range(1, count + 1)})
    return [(ordered[rank - 1], rank / len(ordered)) for rank in ranks]


def block_plot(title: str, series: Sequence[Series], unit: str) -> Markup:
    """One value per block and series, joined over the blocks; a missing block is NaN."""
    values = [value for one in series for value in one.values if not math.isnan(value)]
    ticks = nice_ticks(min(values), max(values))
    blocks = max(len(one.values) for one in series)
    x = Axis(0.5, blocks + 0.5, LEFT + 8, WIDTH - RIGHT)
    y = Axis(ticks[0], ticks[-1], PLOT_HEIGHT - BOTTOM, TOP)
    parts = [y_labels(y, [(tick, f"{tick:g}") for tick in ticks])]
    numbers = [(float(block), str(block)) for block in range(1, blocks + 1)]
    parts.append(x_labels(x, numbers[:: max(1, math.ceil(blocks / 10))], f"block (median, {unit})", PLOT_HEIGHT))
    for number, one in enumerate(series):
        places = [(x.px(block), y.px(value)) for block, value in enumerate(one.values, 1) if not math.isnan(value)]
        parts.append(f'<polyline class="line s{number}" points="{" ".join(f"{a},{b}" for a, b in places)}"/>')
        parts += [f'<circle class="dot s{number}" cx="{a}" cy="{b}" r="3"/>' for a, b in places]
    known = [(one.name, [value for value in one.values if not math.isnan(value)]) for one in series]
    said = "; ".join(f"{name}: {min(seen):.3g} to {max(seen):.3g} {unit}" for name, seen in known if seen)
    return svg(title, said, PLOT_HEIGHT, parts)


def ratio_plot(title: str, rows: Sequence[RatioRow], *, number: int, faster: str, slower: str) -> Markup:
    """Each ratio with its interval against the line of no difference; faint dots are single blocks.

    The axis is chosen for the intervals: a block far outside is drawn at the edge. `number` is the path's colour.
    """
    low = min(1 - MIN_RATIO_SPAN, *(row.low for row in rows))
    high = max(1 + MIN_RATIO_SPAN, *(row.high for row in rows))
    margin = (high - low) / 4
    points = [point for row in rows for point in row.points if low - margin <= point <= high + margin]
    ticks = nice_ticks(min(low, *points, low), max(high, *points, high))
    height = TOP + 16 + ROW_HEIGHT * len(rows) + BOTTOM
    x = Axis(ticks[0], ticks[-1], RIGHT + 8, WIDTH - RIGHT - 8)
    bottom = height - BOTTOM
    one = x.px(1)
    parts = [
        f'<path class="faster" d="M{x.start_px} {TOP + 10}H{one}V{bottom}H{x.start_px}Z"/>',
        *(f'<path class="grid" d="M{x.px(tick)} {TOP + 10}V{bottom}"/>' for tick in ticks),
        f'<path class="even" d="M{one} {TOP + 10}V{bottom}"/>',
        *_side_labels(x, one, faster, slower),
        x_labels(x, [(tick, percent_tick(tick)) for tick in ticks], "", height),
    ]
    for place, row in enumerate(rows):
        parts += _ratio_row(row, x, TOP + 12 + ROW_HEIGHT * place, number)
    return svg(title, "; ".join(f"{row.label}: {row.text}" for row in rows), height, parts)


def percent_tick(ratio: float) -> str:
    """A ratio as a signed whole or half percent, `same` at 1."""
    value = round(100 * (ratio - 1), 6)
    return "same" if value == 0 else f"{value:+g}%".replace("-", "\N{MINUS SIGN}")


def _side_labels(x: Axis, one: float, faster: str, slower: str) -> list[str]:
    """The names of the two sides, each only where it has room."""
    left, right = f"\N{LEFTWARDS ARROW} {faster}", f"{slower} \N{RIGHTWARDS ARROW}"
    labels = []
    if one - x.start_px > len(left) * CHAR_PX + 6:
        labels.append(text(one - 6, TOP + 3, left, "end", "unit"))
    if x.end_px - one > len(right) * CHAR_PX + 6:
        labels.append(text(one + 6, TOP + 3, right, "start", "unit"))
    return labels


def _ratio_row(row: RatioRow, x: Axis, top: float, number: int) -> list[str]:
    middle = top + 36
    low, high = x.px(row.low), x.px(row.high)
    return [
        text(x.start_px + 2, top + 18, row.label, "start", "strong"),
        text(x.end_px - 2, top + 18, row.text, "end", "value"),
        *(f'<circle class="block" cx="{x.px(point)}" cy="{middle}" r="2.5"/>' for point in row.points),
        f'<path class="interval s{number}" d="M{low} {middle}H{high}M{low} {middle - 5}v10M{high} {middle - 5}v10"/>',
        f'<circle class="estimate s{number}" cx="{x.px(row.ratio)}" cy="{middle}" r="5"/>',
    ]
