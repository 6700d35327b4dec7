"""Latencies of a machine as bad as real ones: it drifts, remembers, stalls now and then, and slows down for a while.

Values are drawn at once for a whole run and given as the analysis takes them, so that thousands of runs take seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from servepath.bench.model import BenchPlan, Metric
from servepath.bench.schedule import block_order

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from servepath.bench.pairing import ValuesByBlock

GAPS = 8


@dataclass(frozen=True, slots=True)
class Machine:
    """How a machine disturbs what runs on it; shares are of 1, times are loads of one path in one block.

    Attributes:
        drift: standard deviation of its speed over a run.
        memory: correlation of its speed between one load and the next.
        load_noise: scale of what a single load meets, with the heavy tails of Student's t with 3 degrees.
        slow_share: share of loads that meet another tenant and are slower by a tenth to several times.
        request_noise: standard deviation of one request's latency.
        stall_share: share of requests that stall, by a Pareto distribution without a third moment.
    """

    drift: float = 0.1
    memory: float = 0.8
    load_noise: float = 0.01
    slow_share: float = 0.05
    request_noise: float = 0.08
    stall_share: float = 0.02


BUSY = Machine()
QUIET = Machine(drift=0.03, load_noise=0.003, slow_share=0.01, request_noise=0.03, stall_share=0.005)


def draw(
    plan: BenchPlan, names: Sequence[str], seed: int, *, machine: Machine = BUSY, slowdown: Mapping[str, float] = {}
) -> ValuesByBlock:
    """The latencies of one run in the plan's order of paths, each path slower by its factor."""
    rng = np.random.default_rng([seed, plan.blocks, len(names)])
    speed = dict(
        zip(
            ((name, block) for block, order in enumerate(block_order(names, plan)) for name in order),
            np.exp(_load_levels(rng, plan.blocks * len(names), machine)),
            strict=True,
        )
    )
    values: dict[tuple[str, Metric, int], list[float]] = {}
    for (name, block), factor in speed.items():
        factor_now = float(factor) * slowdown.get(name, 1.0)
        ttft_s = 0.2 * factor_now * _requests(rng, (plan.requests_per_block,), machine)
        itl_s = 0.05 * factor_now * _requests(rng, (plan.requests_per_block, GAPS), machine)
        values[name, Metric.TTFT, block] = ttft_s.tolist()
        values[name, Metric.ITL, block] = itl_s.ravel().tolist()
        values[name, Metric.E2E, block] = (ttft_s + itl_s.sum(axis=1)).tolist()
    return values


def _load_levels(rng: np.random.Generator, count: int, machine: Machine) -> NDArray[np.float64]:
    """The logarithm of how slow the machine is at each load, in the order of time."""
    steps = rng.normal(0, machine.drift * math.sqrt(1 - machine.memory**2), count)
    levels = np.empty(count)
    level = rng.normal(0, machine.drift)
    for position, step in enumerate(steps):
        level = machine.memory * level + step
        levels[position] = level
    trend = np.linspace(0, rng.normal(0, machine.drift), count)
    tenant = np.where(rng.random(count) < machine.slow_share, np.log1p(0.1 + 0.3 * rng.pareto(2, count)), 0.0)
    return levels + trend + machine.load_noise * rng.standard_t(3, count) + tenant


def _requests(rng: np.random.Generator, shape: tuple[int, ...], machine: Machine) -> NDArray[np.float64]:
    stalls = np.where(rng.random(shape) < machine.stall_share, 1 + rng.pareto(2.5, shape), 1.0)
    return np.exp(rng.normal(0, machine.request_noise, shape)) * stalls
