"""The sweep to the knee: open-loop load at rising rates, until every path misses an objective.

At each step every path that is still looked at is loaded once, in random order, at its own next rate; while the rates
rise these are the same. The paths share the machine's state at each step, as the blocks of a comparison do.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import anyio
import numpy as np

from servepath.bench.capacity import Load, Sweep, SweepDesign
from servepath.bench.engine_metrics import watching
from servepath.bench.knee import analyse_sweep, bracket, gave_up, next_rate_per_s, point_of
from servepath.bench.model import Arrivals
from servepath.bench.paths import load_path, make_prompts, open_paths, warm_up
from servepath.bench.schedule import arrival_times_s
from servepath.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

    from servepath.bench.capacity import SweepPoint
    from servepath.bench.model import BenchPlan, Sample
    from servepath.bench.paths import OpenPath
    from servepath.bench.prompts import PromptMaker
    from servepath.bench.slo import Slo
    from servepath.serving.model import Endpoint

ORDER_STREAM = 4
FIRST_BLOCK = 1 << 20
"""Numbers of blocks that no comparison has: the same seed gives other prompts, and no answer comes out of a cache."""


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """What the latest load showed, and how much of the sweep's time is spent, in seconds."""

    point: SweepPoint
    elapsed_s: float
    budget_s: float


@dataclass(slots=True)
class _Running:
    """A sweep under way."""

    plan: BenchPlan
    design: SweepDesign
    slo: Slo
    points: dict[str, list[SweepPoint]]
    engines: dict[str, httpx.AsyncClient] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    loads: list[Load] = field(default_factory=list)

    def wanted(self) -> dict[str, float]:
        """The next rate of each path whose knee is not yet known."""
        rates = {path: next_rate_per_s(points, self.design) for path, points in self.points.items()}
        return {path: rate for path, rate in rates.items() if rate is not None}

    def expected_s(self, wanted: Mapping[str, float]) -> float:
        """How long the next step takes at least: the time in which its requests are sent."""
        return sum(request_count(rate, self.design) / rate for rate in wanted.values())


async def sweep(  # noqa: PLR0913  # what, how, and two ways to watch it
    endpoints: Mapping[str, Endpoint],
    plan: BenchPlan,
    slo: Slo,
    design: SweepDesign | None = None,
    progress: Callable[[SweepProgress], None] | None = None,
    *,
    engines: Mapping[str, Endpoint] | None = None,
) -> Sweep:
    """Looks for the highest rate at which each endpoint meets the objectives.

    Args:
        endpoints: by name, one or more.
        plan: shape, arrivals and seed of the requests; its blocks, rate and budget are not used.
        slo: the objectives.
        design: the rates and times; by default rates double from 0.25 requests per second within 5 minutes.
        progress: called after each load, outside of measured time.
        engines: where the engine's own metrics are read, by the names of the endpoints: a gateway may hide `/metrics`.
            An endpoint without one here is asked itself.

    Raises:
        UsageError: no endpoint, no objective, or a closed loop, which offers no rate.
        ClusterError: an endpoint answered none of its warm-up requests.
    """
    if not endpoints:
        raise UsageError("no endpoint", where="sweep", expected="one or more")
    if all(bound is None for bound in (slo.ttft_p95_s, slo.itl_p95_s, slo.e2e_p95_s, slo.error_rate)):
        raise UsageError("no objective", where="sweep", expected="at least one bound that a rate can miss")
    if plan.arrivals is Arrivals.CLOSED:
        raise UsageError("a closed loop offers no rate", where="sweep", expected="constant, poisson or burst arrivals")
    running = _Running(plan, design or SweepDesign(), slo, {name: [] for name in endpoints})
    async with open_paths(endpoints, plan) as paths, open_paths({**endpoints, **(engines or {})}, plan) as watched:
        prompts = await make_prompts(next(iter(paths.values())), plan)
        for path in paths.values():
            await warm_up(path, prompts, plan)
        running.engines = {name: path.client for name, path in watched.items()}
        stopped = await _search(running, paths, prompts, progress)
    return analyse_sweep(running.samples, running.loads, slo, plan, running.design, stopped=stopped)


async def _search(
    running: _Running,
    paths: Mapping[str, OpenPath],
    prompts: PromptMaker,
    progress: Callable[[SweepProgress], None] | None,
) -> str:
    """Load the paths until their knees are known or the time is spent; give the reason in words."""
    design = running.design
    start_s = anyio.current_time()
    rng = np.random.default_rng([running.plan.seed, ORDER_STREAM])
    step = 0
    while wanted := running.wanted():
        if anyio.current_time() - start_s + running.expected_s(wanted) > design.budget_s:
            return f"no further rate of {' and '.join(wanted)} fits into the time of {design.budget_s:g} s"
        names = list(wanted)
        for name in (names[position] for position in rng.permutation(len(names))):
            point = await _load(running, paths[name], wanted[name], step, prompts)
            if progress:
                progress(SweepProgress(point, anyio.current_time() - start_s, design.budget_s))
        step += 1
    return "; ".join(_ending(path, points) for path, points in running.points.items())


def _ending(path: str, points: list[SweepPoint]) -> str:
    """Why no further rate was tried on a path, in words."""
    latest = points[-1]
    if gave_up(points):
        return (
            f"{path}: the client sent its requests {latest.client.lateness_p95_s * 1000:.0f} ms late (p95) at "
            f"{latest.rate_per_s:g} requests per second and cannot measure that"
        )
    met, missed = bracket(points)
    if missed is None:
        return f"{path}: every rate was met"
    return f"{path}: the knee is known" if met is not None else f"{path}: no rate was met"


async def _load(running: _Running, path: OpenPath, rate_per_s: float, step: int, prompts: PromptMaker) -> SweepPoint:
    """Load one path at one rate; its arrivals are those of every path at this step and rate."""
    block = FIRST_BLOCK + len(running.loads)
    plan = replace(running.plan, rate_per_s=rate_per_s, requests_per_block=request_count(rate_per_s, running.design))
    times_s = arrival_times_s(plan, FIRST_BLOCK + step)
    async with watching(running.engines[path.name], times_s[-1]) as waiting:
        samples = await load_path(path, block, times_s, prompts, plan)
    load = Load(path.name, rate_per_s, block, tuple(waiting) or None)
    point = point_of(load, samples, running.slo, plan)
    running.samples += samples
    running.loads.append(load)
    running.points[path.name].append(point)
    return point


def request_count(rate_per_s: float, design: SweepDesign) -> int:
    """Requests of a load: as many as the rate gives in its time, and enough for a 95th percentile."""
    return max(design.min_requests, round(rate_per_s * design.load_s))
