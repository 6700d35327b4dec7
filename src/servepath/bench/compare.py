"""The paired comparison: interleaved blocks over named endpoints, in random order, warm-up thrown away."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from servepath.bench.analysis import analyse
from servepath.bench.load import Slot, open_client, run_block
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


@dataclass(frozen=True, slots=True)
class BenchProgress:
    """How far a comparison is, in requests, warm-up included; `step` says what has just ended."""

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
    """Measures the endpoints in paired blocks.

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
    order = block_order(names, plan)
    total = len(names) * (plan.warmup_requests + plan.blocks * plan.requests_per_block)
    samples: list[Sample] = []
    done = 0

    def report(step: str, requests: int) -> None:
        nonlocal done
        done += requests
        if progress:
            progress(BenchProgress(done, total, step))

    async with AsyncExitStack() as stack:
        paths = {
            name: _Path(number, name, endpoint, await stack.enter_async_context(open_client(endpoint, plan)))
            for number, (name, endpoint) in enumerate(endpoints.items())
        }
        prompts = await make_prompts(paths[names[0]], plan)
        for path in paths.values():
            await _warm_up(path, prompts, plan)
            report(f"warm-up of {path.name}", plan.warmup_requests)
        for block, names_in_order in enumerate(order):
            for name in names_in_order:
                samples += await _run(paths[name], block, arrival_times_s(plan, block), prompts, plan)
                report(f"block {block + 1} of {plan.blocks}, {name}", plan.requests_per_block)
    return analyse(samples, plan, order, names=names)


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
        slot = Slot(path.name, WARMUP_BLOCK, index, 0.0, prompts.prompt((path.number, plan.blocks, index)))
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
