"""Static SVG plots, small enough to read on a phone, coloured by the page's style sheet so that they follow dark mode.

Series are numbered: the style sheet's `--series-0`, `--series-1`, … are their colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 380
PLOT_HEIGHT = 210
LEFT, RIGHT, TOP, BOTTOM = 40, 14, 12, 34
TICKS_WANTED = 4
ROW_HEIGHT = 58
MIN_RATIO_SPAN = 0.02


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


@dataclass(frozen=True, slots=True)
class _Axis:
    """A linear map from values to pixels."""

    low: float
    high: float
    start_px: float
    end_px: float

    def px(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start_px + share * (self.end_px - self.start_px), 2)


def nice_ticks(low: float, high: float, wanted: int = TICKS_WANTED) -> list[float]:
    """Round numbers that enclose `low` to `high`, about `wanted` steps of 1, 2, 2.5 or 5 times a power of ten."""
    span = max(high - low, abs(high) * 1e-6, 1e-9)
    rough = span / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def cumulative_plot(title: str, series: Sequence[Series], unit: str) -> Markup:
    """Share of the values at or below x, one step line per series; values are in `unit`."""
    values = [value for one in series for value in one.values]
    ticks = nice_ticks(min(values), max(values))
    x = _Axis(ticks[0], ticks[-1], LEFT, WIDTH - RIGHT)
    y = _Axis(0, 1, PLOT_HEIGHT - BOTTOM, TOP)
    parts = [_horizontal_grid(y, [(share, f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 0.95)])]
    parts += [_x_ticks(x, ticks, unit, PLOT_HEIGHT)]
    for number, one in enumerate(series):
        ordered = sorted(one.values)
        path = f"M{x.px(ordered[0])} {y.px(0)}"
        for position, value in enumerate(ordered, start=1):
            path += f"H{x.px(value)}V{y.px(position / len(ordered))}"
        parts.append(f'<path class="line s{number}" d="{path}H{x.px(x.high)}"/>')
    return _svg(title, PLOT_HEIGHT, parts)


def block_plot(title: str, series: Sequence[Series], unit: str) -> Markup:
    """One value per block and series, joined over the blocks; a missing block is NaN."""
    values = [value for one in series for value in one.values if not math.isnan(value)]
    ticks = nice_ticks(min(values), max(values))
    blocks = max(len(one.values) for one in series)
    x = _Axis(0.5, blocks + 0.5, LEFT + 8, WIDTH - RIGHT)
    y = _Axis(ticks[0], ticks[-1], PLOT_HEIGHT - BOTTOM, TOP)
    parts = [_horizontal_grid(y, [(tick, f"{tick:g}") for tick in ticks])]
    every = max(1, math.ceil(blocks / 10))
    parts += [
        _text(x.px(block), PLOT_HEIGHT - BOTTOM + 15, str(block), "middle") for block in range(1, blocks + 1, every)
    ]
    parts.append(_text(WIDTH - RIGHT, PLOT_HEIGHT - 4, f"block (median, {unit})", "end", "unit"))
    for number, one in enumerate(series):
        places = [(x.px(block), y.px(value)) for block, value in enumerate(one.values, 1) if not math.isnan(value)]
        parts.append(f'<polyline class="line s{number}" points="{" ".join(f"{a},{b}" for a, b in places)}"/>')
        parts += [f'<circle class="dot s{number}" cx="{a}" cy="{b}" r="3"/>' for a, b in places]
    return _svg(title, PLOT_HEIGHT, parts)


def ratio_plot(title: str, rows: Sequence[RatioRow], *, faster: str, slower: str) -> Markup:
    """Each ratio with its interval against the line of no difference; faint dots are single blocks."""
    low = min(1 - MIN_RATIO_SPAN, *(min(row.low, row.ratio, *row.points) for row in rows))
    high = max(1 + MIN_RATIO_SPAN, *(max(row.high, row.ratio, *row.points) for row in rows))
    ticks = nice_ticks(low, high)
    height = TOP + 16 + ROW_HEIGHT * len(rows) + BOTTOM
    x = _Axis(ticks[0], ticks[-1], RIGHT + 6, WIDTH - RIGHT - 6)
    bottom = height - BOTTOM
    one = x.px(1)
    parts = [
        f'<path class="faster" d="M{x.start_px} {TOP + 10}H{one}V{bottom}H{x.start_px}Z"/>',
        *(f'<path class="grid" d="M{x.px(tick)} {TOP + 10}V{bottom}"/>' for tick in ticks),
        f'<path class="even" d="M{one} {TOP + 10}V{bottom}"/>',
        *_side_labels(x, one, faster, slower),
    ]
    parts += [_text(x.px(tick), bottom + 15, percent_tick(tick), "middle") for tick in ticks]
    for number, row in enumerate(rows):
        parts += _ratio_row(row, x, TOP + 16 + ROW_HEIGHT * number)
    return _svg(title, height, parts)


def percent_tick(ratio: float) -> str:
    """A ratio as a signed whole or half percent, `same` at 1."""
    value = round(100 * (ratio - 1), 6)
    return "same" if value == 0 else f"{value:+g}%".replace("-", "\N{MINUS SIGN}")


def _side_labels(x: _Axis, one: float, faster: str, slower: str) -> list[str]:
    """The names of the two sides, each only where it has room."""
    room_px = 95
    labels = []
    if one - x.start_px > room_px:
        labels.append(_text(one - 6, TOP + 3, f"\N{LEFTWARDS ARROW} {faster}", "end", "unit"))
    if x.end_px - one > room_px:
        labels.append(_text(one + 6, TOP + 3, f"{slower} \N{RIGHTWARDS ARROW}", "start", "unit"))
    return labels


def _ratio_row(row: RatioRow, x: _Axis, top: float) -> list[str]:
    middle = top + 38
    low, high = x.px(row.low), x.px(row.high)
    return [
        _text(x.start_px + 4, top + 16, row.label, "start", "strong"),
        _text(x.end_px - 4, top + 16, row.text, "end", "value"),
        *(f'<circle class="block" cx="{x.px(point)}" cy="{middle}" r="2.5"/>' for point in row.points),
        f'<path class="interval" d="M{low} {middle}H{high}M{low} {middle - 5}v10M{high} {middle - 5}v10"/>',
        f'<circle class="estimate" cx="{x.px(row.ratio)}" cy="{middle}" r="5"/>',
    ]


def _horizontal_grid(y: _Axis, ticks: Sequence[tuple[float, str]]) -> str:
    return "".join(
        f'<path class="grid" d="M{LEFT} {y.px(value)}H{WIDTH - RIGHT}"/>'
        + _text(LEFT - 6, y.px(value) + 4, label, "end")
        for value, label in ticks
    )


def _x_ticks(x: _Axis, ticks: Sequence[float], unit: str, height: float) -> str:
    bottom = height - BOTTOM
    labels = [_text(x.px(tick), bottom + 15, f"{tick:g}", "middle") for tick in ticks]
    return "".join([*labels, _text(x.end_px, height - 4, unit, "end", "unit")])


def _text(x: float, y: float, text: str, anchor: str, kind: str = "tick") -> str:
    return f'<text class="{kind}" x="{round(x, 2)}" y="{round(y, 2)}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, height: float, parts: Sequence[str]) -> Markup:
    label = escape(title)
    opening = f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{label}"><title>{label}</title>'
    return Markup(opening + "".join(parts) + "</svg>")  # noqa: S704  # every text inside went through escape()
