"""The parts that static SVG plots are made of, coloured by the page's style sheet so that they follow dark mode.

Series are numbered: the style sheet's `--series-0`, `--series-1`, … are their colours. A plot is as wide as a phone, so
that its text is still read there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = 360
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 14, 42
TICKS_WANTED = 4
# Of a digit or an average letter of the page's sans-serif at the style sheet's 12.5 px.
CHAR_PX = 7.0
LABEL_GAP_PX = 8.0


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear or logarithmic map from values to pixels; a value outside is drawn at the end it is beyond."""

    low: float
    high: float
    start_px: float
    end_px: float
    logarithmic: bool = False

    def px(self, value: float) -> float:
        """Where a value is."""
        inside = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(inside / self.low) / math.log(self.high / self.low)
        else:
            share = (inside - self.low) / (self.high - self.low)
        return round(self.start_px + share * (self.end_px - self.start_px), 2)


def nice_ticks(low: float, high: float, wanted: int = TICKS_WANTED) -> list[float]:
    """Round numbers that enclose `low` to `high`, about `wanted` steps of 1, 2, 2.5 or 5 times a power of ten."""
    span = max(high - low, abs(high) * 1e-6, 1e-9)
    rough = span / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Numbers 1, 2 or 5 times a power of ten that enclose two positive values; only powers over three decades."""
    factors = (1, 2, 5) if high / low < 1000 else (1,)  # noqa: PLR2004  # three decades
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    marks = [float(f"{factor}e{power}") for power in range(first, last + 1) for factor in factors]
    start = max(index for index, mark in enumerate(marks) if mark <= low * (1 + 1e-9))
    end = min((index for index, mark in enumerate(marks) if mark >= high * (1 - 1e-9)), default=len(marks) - 1)
    return marks[start : max(end, start + 1) + 1]


def y_labels(y: Axis, ticks: Sequence[tuple[float, str]]) -> str:
    """Horizontal grid lines with their labels at the left."""
    return "".join(
        f'<path class="grid" d="M{LEFT} {y.px(value)}H{WIDTH - RIGHT}"/>'
        + text(LEFT - 6, y.px(value) + 4, label, "end")
        for value, label in ticks
    )


def x_labels(x: Axis, ticks: Sequence[tuple[float, str]], name: str, height: float) -> str:
    """Labels below the plot, those left out that would touch the one before, and the axis's name below them."""
    baseline = height - BOTTOM + 20
    labels = []
    free_from = -math.inf
    for value, label in ticks:
        half = len(label) * CHAR_PX / 2
        center = min(max(x.px(value), half), max(WIDTH, x.end_px + RIGHT) - half)
        if center - half >= free_from:
            labels.append(text(center, baseline, label, "middle"))
            free_from = center + half + LABEL_GAP_PX
    return "".join([*labels, text(x.end_px, height - 4, name, "end", "unit")])


def text(x: float, y: float, words: str, anchor: str, kind: str = "tick") -> str:
    """One text; `kind` is its class in the style sheet."""
    return f'<text class="{kind}" x="{round(x, 2)}" y="{round(y, 2)}" text-anchor="{anchor}">{escape(words)}</text>'


def svg(title: str, description: str, height: float, parts: Sequence[str], width: float = WIDTH) -> Markup:
    """A plot with its name, and what it shows in words for those who do not see it."""
    opening = (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>"
    )
    return Markup(opening + "".join(parts) + "</svg>")  # noqa: S704  # every text inside went through escape()
