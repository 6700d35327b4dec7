"""When a comparison has enough blocks: at the wanted precision, or when its time is spent.

The rule looks at the width of the intervals only, never at the ratios: whether a difference is in sight has no part in
when the run ends, so looking again and again makes no false difference. (Stopping when a difference is "significant"
would: its chance of a false one grows with each look.) What remains is that a run is likelier to end when its blocks
happened to agree; the simulation in the tests shows that this costs less than the Bonferroni margin gives.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from servepath.bench.model import Statistic
from servepath.bench.pairing import paired_ratios
from servepath.bench.wording import percent_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servepath.bench.model import BenchPlan
    from servepath.bench.pairing import ValuesByBlock

MAX_BLOCKS = 1_000


def half_width_percent(values: ValuesByBlock, plan: BenchPlan, names: Sequence[str]) -> float:
    """The half width of the widest interval of a median, in percent of its ratio; infinite when there is none."""
    ratios = paired_ratios(values, plan, Statistic.MEDIAN, names=names)
    return max((100 * (ratio.high / ratio.ratio - 1) for ratio in ratios), default=math.inf)


def reason_to_stop(half_width: float, plan: BenchPlan, *, blocks: int, elapsed_s: float) -> str:
    """Why no further block is taken, in words; empty to take one.

    Args:
        half_width: of the widest interval, in percent.
        plan: the design.
        blocks: blocks that are done.
        elapsed_s: how long they took, in seconds; the next one is taken to need as long as their mean.
    """
    if blocks < plan.blocks:
        return ""
    known = f"{blocks} blocks: medians known to ±{percent_text(half_width)}"
    if not math.isfinite(half_width):
        known = f"{blocks} blocks: no interval of the medians"
    if half_width <= plan.precision_percent:
        return f"{known}, ±{plan.precision_percent:g}% was wanted"
    if elapsed_s * (blocks + 1) / blocks > plan.budget_s:
        return f"{known}, no further block fits into the time of {plan.budget_s:g} s"
    if blocks >= MAX_BLOCKS:
        return f"{known}, {MAX_BLOCKS} blocks are the most"
    return ""
