"""The plots of a sweep, of the instrument and of a rollout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from servepath.report.format import latency
from servepath.report.svg import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    log_ticks,
    nice_ticks,
    svg,
    text,
    x_labels,
    y_labels,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

RATE_HEIGHT = 236
STRIP_HEIGHT = 100
# Past the knee a latency grows without bound; on a linear axis everything before it would be one flat line.
LOG_FROM_RATIO = 12
MIN_LATENCY_S = 1e-6


@dataclass(frozen=True, slots=True)
class RatePoint:
    """A latency at an offered rate (or number of streams), and whether everything wanted of that point was met."""

    at: float
    value_s: float
    met: bool


@dataclass(frozen=True, slots=True)
class RateSeries:
    """The points of one path."""

    name: str
    points: tuple[RatePoint, ...]


def rate_plot(title: str, series: Sequence[RateSeries], x_name: str, limit_s: float | None = None) -> Markup:
    """Latency over rate, one line per series: full dots met the objectives, hollow ones did not.

    Args:
        title: what is shown.
        series: at least one, with at least one point in all.
        x_name: the name of the horizontal axis.
        limit_s: where the line of the objective is, None for no line.
    """
    seen = [max(point.value_s, MIN_LATENCY_S) for one in series for point in one.points]
    values = seen if limit_s is None else [*seen, limit_s * 1.15]
    y, ticks = _latency_axis(min(values), max(values))
    rates = sorted({point.at for one in series for point in one.points})
    x, x_ticks = _rate_axis(rates)
    parts = [y_labels(y, [(tick, latency_tick(tick)) for tick in ticks])]
    parts.append(x_labels(x, [(tick, f"{tick:g}") for tick in x_ticks], x_name, RATE_HEIGHT))
    if limit_s is not None:
        parts.append(f'<path class="above" d="M{LEFT} {TOP}H{WIDTH - RIGHT}V{y.px(limit_s)}H{LEFT}Z"/>')
    for number, one in enumerate(series):
        places = [(x.px(point.at), y.px(max(point.value_s, MIN_LATENCY_S)), point.met) for point in one.points]
        parts.append(f'<polyline class="line s{number}" points="{" ".join(f"{a},{b}" for a, b, _ in places)}"/>')
        parts += [
            f'<circle class="{"dot" if met else "hollow"} s{number}" cx="{a}" cy="{b}" r="4"/>' for a, b, met in places
        ]
    if limit_s is not None:
        parts += _limit_line(y.px(limit_s), f"objective {latency(limit_s)}")
    return svg(title, _in_words(series, x_name, limit_s), RATE_HEIGHT, parts)


def latency_tick(seconds: float) -> str:
    """A round latency as short as it can be, such as `20 ms`, `1.5 s`, `50 µs`."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1:
            return f"{round(seconds * factor, 6):g} {unit}"
    return "0"


def availability_strip(title: str, samples: Sequence[tuple[float, bool]], said: str) -> Markup:
    """Every request of a rollout over time: answered ones above the middle line, failed ones below it."""
    ticks = nice_ticks(0, max(time_s for time_s, _ in samples))
    x = Axis(ticks[0], ticks[-1], LEFT + 12, WIDTH - RIGHT)
    middle = TOP + 22
    answered = "".join(f"M{x.px(time_s)} {middle - 2}v-16" for time_s, ok in samples if ok)
    failed = "".join(f"M{x.px(time_s)} {middle + 2}v16" for time_s, ok in samples if not ok)
    parts = [
        text(0, middle - 6, "answered", "start"),
        text(0, middle + 15, "failed", "start"),
        f'<path class="grid" d="M{x.start_px} {middle}H{x.end_px}"/>',
        f'<path class="answered" d="{answered}"/>' if answered else "",
        f'<path class="failed" d="{failed}"/>' if failed else "",
        x_labels(x, [(tick, f"{tick:g}") for tick in ticks], "seconds since the update began", STRIP_HEIGHT),
    ]
    return svg(title, said, STRIP_HEIGHT, parts)


def _latency_axis(low_s: float, high_s: float) -> tuple[Axis, list[float]]:
    bottom, top = RATE_HEIGHT - BOTTOM, TOP
    if high_s / low_s > LOG_FROM_RATIO:
        ticks = log_ticks(low_s, high_s)
        return Axis(ticks[0], ticks[-1], bottom, top, logarithmic=True), ticks
    ticks = nice_ticks(0, high_s)
    return Axis(ticks[0], ticks[-1], bottom, top), ticks


def _rate_axis(rates: Sequence[float]) -> tuple[Axis, list[float]]:
    start, end = LEFT + 6, WIDTH - RIGHT - 4
    if len(rates) > 1 and rates[-1] / rates[0] > LOG_FROM_RATIO:
        ticks = log_ticks(rates[0], rates[-1])
        return Axis(rates[0], rates[-1], start, end, logarithmic=True), [
            tick for tick in ticks if rates[0] <= tick <= rates[-1]
        ]
    ticks = [tick for tick in nice_ticks(0, rates[-1]) if tick <= rates[-1]]
    return Axis(0, rates[-1], start, end), ticks


def _limit_line(y_px: float, words: str) -> list[str]:
    """The objective's line, its words above it, or below where there is no room above."""
    below = y_px < TOP + 20
    return [
        f'<path class="limit" d="M{LEFT} {y_px}H{WIDTH - RIGHT}"/>',
        text(LEFT + 6, y_px + (15 if below else -6), words, "start", "limit-label"),
    ]


def _in_words(series: Sequence[RateSeries], x_name: str, limit_s: float | None) -> str:
    parts = [
        f"{one.name}: "
        + ", ".join(f"{latency(at.value_s)} at {at.at:.3g}{'' if at.met else ' (missed)'}" for at in one.points)
        for one in series
    ]
    limit = [] if limit_s is None else [f"objective {latency(limit_s)}"]
    return "; ".join([f"over {x_name}", *parts, *limit])
