"""The paired comparison: interleaved blocks over named endpoints, in random order, warm-up thrown away."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from servepath.bench.analysis import analyse
from servepath.bench.growth import MAX_BLOCKS, half_width_percent, reason_to_stop
from servepath.bench.load import Slot, open_client, run_block
from servepath.bench.pairing import values_by_block
from servepath.bench.prompts import calibrate, load_exact_prompts
from servepath.bench.schedule import arrival_times_s, block_order
from servepath.errors import ClusterError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

    from servepath.bench.model import BenchPlan, Comparison, Sample
    from servepath.bench.prompts import PromptMaker
    from servepath.serving.model import Endpoint

MIN_PATHS = 2
WARMUP_BLOCK = -1
WARMUP_PROMPTS = 1 << 32
"""In place of a block's number in the key of a prompt: no block has it."""


@dataclass(frozen=True, slots=True)
class BenchProgress:
    """How far a comparison is, in requests, warm-up included; `step` says what has just ended.

    A run that grows past its fewest blocks has done all of its requests after each of them: no end is known.
    """

    done_requests: int
    total_requests: int
    step: str


@dataclass(frozen=True, slots=True)
class _Path:
    """One endpoint under its name, with its open client and its number in the design."""

    number: int
    name: str
    endpoint: Endpoint
    client: httpx.AsyncClient


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

    async with AsyncExitStack() as stack:
        paths = {
            name: _Path(number, name, endpoint, await stack.enter_async_context(open_client(endpoint, plan)))
            for number, (name, endpoint) in enumerate(endpoints.items())
        }
        prompts = await make_prompts(paths[names[0]], plan)
        for path in paths.values():
            await _warm_up(path, prompts, plan)
            report(f"warm-up of {path.name}", plan.warmup_requests)
        return await _measure(paths, prompts, plan, report)


async def _measure(
    paths: Mapping[str, _Path], prompts: PromptMaker, plan: BenchPlan, report: Callable[[str, int], None]
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
            samples += await _run(paths[name], blocks, arrival_times_s(plan, blocks), prompts, plan)
            report(f"block {blocks + 1}, {name}", plan.requests_per_block)
        elapsed_s += anyio.current_time() - start_s
        blocks += 1
        if blocks >= plan.blocks:
            half_width = await anyio.to_thread.run_sync(half_width_percent, values_by_block(samples), plan, names)
            stopped = reason_to_stop(half_width, plan, blocks=blocks, elapsed_s=elapsed_s)
    return analyse(samples, plan, order[:blocks], names=names, stopped=stopped)


async def make_prompts(path: _Path, plan: BenchPlan) -> PromptMaker:
    """Prompts of exact length when the plan names a tokenizer, calibrated ones otherwise.

    Raises:
        ClusterError: a calibration request failed or gave no usage.
    """
    if plan.tokenizer_path:
        return load_exact_prompts(Path(plan.tokenizer_path), token_count=plan.prompt_tokens, seed=plan.seed)

    async def prompt_tokens_of(prompt: str) -> int:
        slot = Slot(path.name, WARMUP_BLOCK, 0, 0.0, prompt)
        (sample,) = await run_block(path.client, path.endpoint.model, [slot], plan)
        if not sample.prompt_tokens:
            raise ClusterError(
                f"path {path.name} gave no usage: {sample.error_detail or 'the stream has no usage chunk'}",
                where=path.endpoint.base_url,
                expected="a stream with a usage chunk",
                next_command=_logs_command(path.endpoint),
            )
        return sample.prompt_tokens

    return await calibrate(prompt_tokens_of, token_count=plan.prompt_tokens, seed=plan.seed)


async def _warm_up(path: _Path, prompts: PromptMaker, plan: BenchPlan) -> None:
    """Sends the warm-up requests one after the other and throws them away."""
    failures = []
    for index in range(plan.warmup_requests):
        slot = Slot(path.name, WARMUP_BLOCK, index, 0.0, prompts.prompt((path.number, WARMUP_PROMPTS, index)))
        (sample,) = await run_block(path.client, path.endpoint.model, [slot], plan)
        if not sample.ok:
            failures.append(f"{sample.error}: {sample.error_detail}")
    if failures and len(failures) == plan.warmup_requests:
        raise ClusterError(
            f"path {path.name} answered none of its {plan.warmup_requests} warm-up requests ({failures[-1]})",
            where=path.endpoint.base_url,
            expected="streamed chat completions",
            next_command=_logs_command(path.endpoint),
        )


async def _run(
    path: _Path, block: int, times_s: tuple[float, ...], prompts: PromptMaker, plan: BenchPlan
) -> tuple[Sample, ...]:
    slots = [
        Slot(path.name, block, index, intended_s, prompts.prompt((path.number, block, index)))
        for index, intended_s in enumerate(times_s)
    ]
    return await run_block(path.client, path.endpoint.model, slots, plan)


def _logs_command(endpoint: Endpoint) -> str:
    return f"kubectl -n {endpoint.namespace} logs deployment/{endpoint.workload} --tail=50"
