"""The plot of a canary: its share of the traffic over time, and under it every client request, answered or failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from servepath.report.format import latency
from servepath.report.run_plot import latency_tick
from servepath.report.svg import Axis, log_ticks, nice_ticks, svg, text, x_labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from servepath.canary.model import ClientRequest
    from servepath.serving.slots import Slot

WIDE_PX = 760
_LEFT, _RIGHT = 56, 16
_WEIGHT = (16.0, 116.0)
_LATENCY = (146.0, 286.0)
_FAILED_Y = 308.0
_HEIGHT = 360
_MIN_TTFT_S = 1e-4


def canary_plot(canary: dict[str, Any], requests: Sequence[ClientRequest]) -> Markup | None:
    """Weight, latency and failures over one axis of time; None where nothing was sent."""
    if not requests:
        return None
    end_s = max(canary["duration_s"], *(request.ended_s for request in requests))
    ticks = [tick for tick in nice_ticks(0, end_s, 8) if tick <= end_s]
    x = Axis(0, end_s, _LEFT, WIDE_PX - _RIGHT)
    parts = [
        *_grid(x, ticks),
        *_weights(canary["weights"], x),
        *_latencies(requests, canary["canary_slot"], x),
        *_failures(requests, x),
        x_labels(x, [(tick, f"{tick:g}") for tick in ticks], "seconds since the canary began", _HEIGHT),
    ]
    title = "The canary's share of the traffic, and its clients, over time"
    return svg(title, _in_words(canary), _HEIGHT, parts, WIDE_PX)


def _grid(x: Axis, ticks: Sequence[float]) -> list[str]:
    return [f'<path class="grid" d="M{x.px(tick)} {_WEIGHT[0]}V{_FAILED_Y + 12}"/>' for tick in ticks]


def _weights(weights: Sequence[dict[str, Any]], x: Axis) -> list[str]:
    """The share as a staircase: it changes when the gateway had taken it."""
    y = Axis(0, 100, _WEIGHT[1], _WEIGHT[0])
    path = f"M{x.start_px} {y.px(0)}"
    marks = []
    for change in weights:
        at, then = x.px(change["taken_s"]), change["canary_percent"]
        path += f"H{at}V{y.px(then)}"
        marks.append(text(at + 4, y.px(then) + (14 if then > 50 else -5), f"{then}%", "start", "value"))  # noqa: PLR2004
    path += f"H{x.end_px}"
    lines = [
        f'<path class="grid" d="M{x.start_px} {y.px(value)}H{x.end_px}"/>'
        + text(_LEFT - 6, y.px(value) + 4, f"{value}%", "end")
        for value in (0, 50, 100)
    ]
    return [*lines, f'<path class="line s1 solid" d="{path}"/>', *marks, _title("share of the canary", _WEIGHT[0])]


def _latencies(requests: Sequence[ClientRequest], canary_slot: str, x: Axis) -> list[str]:
    """A dot for each request at its time to first token, in the colour of the slot that answered."""
    seen = [(one, max(one.ttft_s, _MIN_TTFT_S)) for one in requests if one.ttft_s is not None]
    if not seen:
        return []
    values = [value for _, value in seen]
    ticks = log_ticks(min(values), max(values))
    y = Axis(ticks[0], ticks[-1], _LATENCY[1], _LATENCY[0], logarithmic=True)
    lines = [
        f'<path class="grid" d="M{x.start_px} {y.px(tick)}H{x.end_px}"/>'
        + text(_LEFT - 6, y.px(tick) + 4, latency_tick(tick), "end")
        for tick in ticks
    ]
    dots = [
        f'<circle class="dot {_series(one.slot, canary_slot)}" cx="{x.px(one.sent_s)}" cy="{y.px(value)}" r="2.2"/>'
        for one, value in seen
    ]
    return [*lines, *dots, _title("time to first token of each client request", _LATENCY[0])]


def _failures(requests: Sequence[ClientRequest], x: Axis) -> list[str]:
    failed = [one for one in requests if one.error]
    marks = "".join(f"M{x.px(one.sent_s)} {_FAILED_Y - 9}v18" for one in failed)
    words = f"{len(failed)} of {len(requests)} client requests failed"
    return [
        f'<path class="grid" d="M{x.start_px} {_FAILED_Y}H{x.end_px}"/>',
        f'<path class="failed" d="{marks}"/>' if marks else "",
        text(_LEFT - 6, _FAILED_Y + 4, "failed", "end"),
        text(x.end_px, _FAILED_Y - 6, words, "end", "value"),
    ]


def _series(slot: Slot | None, canary_slot: str) -> str:
    if slot is None:
        return "s2"
    return "s1" if slot == canary_slot else "s0"


def _title(words: str, top: float) -> str:
    return text(_LEFT + 6, top - 4, words, "start", "strong")


def _in_words(canary: dict[str, Any]) -> str:
    changes = ", ".join(f"{one['canary_percent']}% from {one['taken_s']:.1f} s" for one in canary["weights"])
    client = canary["client"]
    slots = ", ".join(
        f"{one['slot']} {one['request_count']} requests"
        + (f" with a median time to first token of {latency(one['ttft_p50_s'])}" if one["ttft_p50_s"] else "")
        for one in client["slots"]
    )
    return f"share of the canary: {changes or 'none'}; {slots}; {client['failed_count']} failed"
