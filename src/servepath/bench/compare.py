"""The paired comparison: interleaved blocks over named endpoints, in random order, warm-up thrown away."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anyio

from servepath.bench.analysis import analyse
from servepath.bench.growth import MAX_BLOCKS, half_width_percent, reason_to_stop
from servepath.bench.pairing import values_by_block
from servepath.bench.paths import load_path, make_prompts, open_paths, warm_up
from servepath.bench.schedule import arrival_times_s, block_order
from servepath.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from servepath.bench.model import BenchPlan, Comparison, Sample
    from servepath.bench.paths import OpenPath
    from servepath.bench.prompts import PromptMaker
    from servepath.serving.model import Endpoint

MIN_PATHS = 2


@dataclass(frozen=True, slots=True)
class BenchProgress:
    """How far a comparison is, in requests, warm-up included; `step` says what has just ended.

    A run that grows past its fewest blocks has done all of its requests after each of them: no end is known.
    """

    done_requests: int
    total_requests: int
    step: str


async def compare(
    endpoints: Mapping[str, Endpoint], plan: BenchPlan, progress: Callable[[BenchProgress], None] | None = None
) -> Comparison:
    """Measures the endpoints in paired blocks, until the plan's precision or its time is reached.

    Args:
        endpoints: by name; the first is the baseline. The same endpoint under two names makes an A/A run.
        plan: the design.
        progress: called after the warm-up of each path and after each path of each block, outside of measured time.

    Raises:
        UsageError: fewer than two endpoints.
        ClusterError: an endpoint answered none of its warm-up requests.
    """
    if len(endpoints) < MIN_PATHS:
        raise UsageError(f"{len(endpoints)} endpoints", where="comparison", expected="two or more")
    names = tuple(endpoints)
    total = len(names) * (plan.warmup_requests + plan.blocks * plan.requests_per_block)
    done = 0

    def report(step: str, requests: int) -> None:
        nonlocal done
        done += requests
        if progress:
            progress(BenchProgress(done, max(done, total), step))

    async with open_paths(endpoints, plan) as paths:
        prompts = await make_prompts(paths[names[0]], plan)
        for path in paths.values():
            await warm_up(path, prompts, plan)
            report(f"warm-up of {path.name}", plan.warmup_requests)
        return await _measure(paths, prompts, plan, report)


async def _measure(
    paths: Mapping[str, OpenPath], prompts: PromptMaker, plan: BenchPlan, report: Callable[[str, int], None]
) -> Comparison:
    """Take blocks until there is a reason to stop; looks at the samples between blocks, outside of measured time."""
    names = tuple(paths)
    order = block_order(names, replace(plan, blocks=max(plan.blocks, MAX_BLOCKS)))
    samples: list[Sample] = []
    stopped = ""
    blocks = 0
    elapsed_s = 0.0
    while not stopped:
        start_s = anyio.current_time()
        for name in order[blocks]:
            samples += await load_path(paths[name], blocks, arrival_times_s(plan, blocks), prompts, plan)
            report(f"block {blocks + 1}, {name}", plan.requests_per_block)
        elapsed_s += anyio.current_time() - start_s
        blocks += 1
        if blocks >= plan.blocks:
            half_width = await anyio.to_thread.run_sync(half_width_percent, values_by_block(samples), plan, names)
            stopped = reason_to_stop(half_width, plan, blocks=blocks, elapsed_s=elapsed_s)
    return analyse(samples, plan, order[:blocks], names=names, stopped=stopped)
