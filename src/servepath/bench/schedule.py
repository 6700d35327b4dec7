"""Precomputed schedules: when to send, and which path comes first in which block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from servepath.bench.model import Arrivals, BenchPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

ORDER_STREAM = 1
ARRIVAL_STREAM = 2


def arrival_times_s(plan: BenchPlan, block: int) -> tuple[float, ...]:
    """Intended send times of one block, in seconds from its start, ascending, the first at 0.

    Every path of a block gets the same times. A Poisson schedule has exponential gaps with the mean `1 / rate_per_s`.
    A closed loop has no intended times: its requests may all be sent from 0 on, each as soon as a user is free.
    """
    gap_count = plan.requests_per_block - 1
    mean_gap_s = 1.0 / plan.rate_per_s
    match plan.arrivals:
        case Arrivals.CONSTANT:
            gaps_s = np.full(gap_count, mean_gap_s)
        case Arrivals.POISSON:
            gaps_s = np.random.default_rng([plan.seed, ARRIVAL_STREAM, block]).exponential(mean_gap_s, gap_count)
        case Arrivals.BURST:
            begins_burst = np.arange(1, gap_count + 1) % plan.burst_size == 0
            gaps_s = np.where(begins_burst, plan.burst_size * mean_gap_s, 0.0)
        case Arrivals.CLOSED:
            gaps_s = np.zeros(gap_count)
    return (0.0, *(float(time_s) for time_s in np.cumsum(gaps_s)))


def block_order(names: Sequence[str], plan: BenchPlan) -> tuple[tuple[str, ...], ...]:
    """The order of the paths in each block: random, but balanced over positions.

    Blocks come in groups of `len(names)`; within a group each path takes each position once (a random Latin square
    of rotations), so that a drift of the machine within blocks meets all paths alike.
    """
    rng = np.random.default_rng([plan.seed, ORDER_STREAM])
    orders: list[tuple[str, ...]] = []
    while len(orders) < plan.blocks:
        base = [names[i] for i in rng.permutation(len(names))]
        rotations = [tuple(base[shift:] + base[:shift]) for shift in range(len(base))]
        orders.extend(rotations[i] for i in rng.permutation(len(rotations)))
    return tuple(orders[: plan.blocks])
