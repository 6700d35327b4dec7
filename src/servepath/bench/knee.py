"""From the raw samples of a sweep to its points and knees, and which rate is to be tried next.

Nothing here measures: the same samples give the same knees, at any later time.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING

from servepath.bench.analysis import client_health, summarise
from servepath.bench.capacity import Knee, Sweep, SweepPoint
from servepath.bench.cost import cost_of
from servepath.bench.slo import evaluate_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from servepath.bench.capacity import Load, SweepDesign
    from servepath.bench.model import BenchPlan, Sample
    from servepath.bench.slo import Slo

LOADS_OF_A_MISS = 2
"""A rate is missed when this many loads missed it: a single miss may be the machine's hiccup."""

LATE_LOADS = 3
"""After this many loads in a row at which the client was late no further one is tried."""

MIN_READINGS = 4
"""Fewer looks at the engine's queue do not show that it never emptied."""

MAX_DOUBLINGS = 24


def analyse_sweep(  # noqa: PLR0913  # the six things that a sweep is made of
    samples: Sequence[Sample],
    loads: Iterable[Load],
    slo: Slo,
    plan: BenchPlan,
    design: SweepDesign,
    *,
    stopped: str = "",
) -> Sweep:
    """The sweep that these samples give.

    Args:
        samples: every request, warm-up excluded.
        loads: what was done, in its order.
        slo: the objectives.
        plan: the requests' shape.
        design: the rates and times that were asked for.
        stopped: why no further rate was tried, in words.
    """
    by_block: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_block[sample.block].append(sample)
    points = tuple(point_of(load, by_block[load.block], slo, plan) for load in loads)
    return Sweep(
        slo=slo,
        points=points,
        knees=tuple(knee_of(path, points, design.usd_per_hour) for path in dict.fromkeys(one.path for one in points)),
        samples=tuple(samples),
        stopped=stopped,
        plan=plan,
        design=design,
    )


def point_of(load: Load, samples: Sequence[Sample], slo: Slo, plan: BenchPlan) -> SweepPoint:
    """What one load showed."""
    summary = summarise(load.path, samples, slo)
    return SweepPoint(
        path=load.path,
        rate_per_s=load.rate_per_s,
        summary=summary,
        slo=evaluate_path(summary, slo),
        client=client_health(samples, plan),
        waiting_max=max(load.waiting) if load.waiting else None,
        saturated=is_saturated(load.waiting),
        block=load.block,
        waiting=load.waiting,
    )


def is_saturated(waiting: Sequence[float] | None) -> bool:
    """Whether requests waited at every look of the second half of the load, so that the queue never emptied again."""
    if waiting is None or len(waiting) < MIN_READINGS:
        return False
    return min(waiting[len(waiting) // 2 :]) >= 1


def knee_of(path: str, points: Sequence[SweepPoint], usd_per_hour: float | None) -> Knee:
    """The knee of one path."""
    own = [point for point in points if point.path == path]
    rate_per_s, next_rate_per_s = bracket(own)
    best = next((point for point in reversed(own) if point.rate_per_s == rate_per_s and point.meets_slo), None)
    goodput = best.summary.goodput_requests_per_s or 0.0 if best else 0.0
    output_tokens = best.summary.output_tokens_per_s if best else 0.0
    return Knee(
        path=path,
        rate_per_s=rate_per_s,
        next_rate_per_s=next_rate_per_s,
        goodput_requests_per_s=goodput,
        output_tokens_per_s=output_tokens,
        cost=cost_of(usd_per_hour, goodput_requests_per_s=goodput, output_tokens_per_s=output_tokens)
        if usd_per_hour
        else None,
    )


def bracket(points: Sequence[SweepPoint]) -> tuple[float | None, float | None]:
    """The highest rate that met every objective below the lowest that missed one, and that lowest; None for neither.

    A rate that one load met counts as met: what only one of two loads missed is the machine's, not the rate's. A load
    whose client did not keep its schedule shows nothing.
    """
    usable = _usable(points)
    met = {point.rate_per_s for point in usable if point.meets_slo}
    missed = {point.rate_per_s for point in usable} - met
    lowest_missed = min(missed, default=None)
    below = [rate for rate in met if lowest_missed is None or rate < lowest_missed]
    return max(below, default=None), lowest_missed


def gave_up(points: Sequence[SweepPoint]) -> bool:
    """Whether the client could not keep its schedule several times in a row: it cannot measure such rates."""
    latest = points[-LATE_LOADS:]
    return len(latest) == LATE_LOADS and not _usable(latest)


def next_rate_per_s(points: Sequence[SweepPoint], design: SweepDesign) -> float | None:
    """The rate to try next on the path that these points are of, None when its knee is known well enough.

    A rate that has been missed once is tried again, and so is one at which the client was late; then the rates rise to
    the first miss, and the middle between met and missed (of their logarithms) is tried until they are close.
    """
    if gave_up(points):
        return None
    usable = _usable(points)
    met, missed = bracket(usable)
    if missed is None:
        return _rising(len({point.rate_per_s for point in usable}), design)
    if sum(point.rate_per_s == missed for point in usable) < LOADS_OF_A_MISS:
        return missed
    if met is None or missed <= met * (1 + design.precision_percent / 100):
        return None
    return math.sqrt(met * missed)


def _usable(points: Sequence[SweepPoint]) -> list[SweepPoint]:
    return [point for point in points if point.client.kept_schedule]


def _rising(position: int, design: SweepDesign) -> float | None:
    if design.rates_per_s:
        return design.rates_per_s[position] if position < len(design.rates_per_s) else None
    return design.start_rate_per_s * 2.0**position if position < MAX_DOUBLINGS else None
