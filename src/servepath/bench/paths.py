"""The endpoints of a benchmark under their names: opened, given prompts, warmed up and loaded."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from servepath.bench.load import Slot, open_client, run_block
from servepath.bench.prompts import calibrate, load_exact_prompts
from servepath.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    import httpx

    from servepath.bench.model import BenchPlan, Sample
    from servepath.bench.prompts import PromptMaker
    from servepath.serving.model import Endpoint

WARMUP_BLOCK = -1
WARMUP_PROMPTS = 1 << 32
"""In place of a block's number in the key of a prompt: no block has it."""


@dataclass(frozen=True, slots=True)
class OpenPath:
    """One endpoint under its name, with its open client and its number in the design."""

    number: int
    name: str
    endpoint: Endpoint
    client: httpx.AsyncClient


@asynccontextmanager
async def open_paths(endpoints: Mapping[str, Endpoint], plan: BenchPlan) -> AsyncIterator[dict[str, OpenPath]]:
    """The endpoints with a client each, by name, in their order."""
    async with AsyncExitStack() as stack:
        yield {
            name: OpenPath(number, name, endpoint, await stack.enter_async_context(open_client(endpoint, plan)))
            for number, (name, endpoint) in enumerate(endpoints.items())
        }


async def make_prompts(path: OpenPath, plan: BenchPlan) -> PromptMaker:
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


async def warm_up(path: OpenPath, prompts: PromptMaker, plan: BenchPlan) -> None:
    """Sends the warm-up requests one after the other and throws them away.

    Raises:
        ClusterError: the path answered none of them.
    """
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


async def load_path(
    path: OpenPath, block: int, times_s: Sequence[float], prompts: PromptMaker, plan: BenchPlan
) -> tuple[Sample, ...]:
    """Load a path with one block of requests at these times, each with a prompt of its own."""
    slots = [
        Slot(path.name, block, index, intended_s, prompts.prompt((path.number, block, index)))
        for index, intended_s in enumerate(times_s)
    ]
    return await run_block(path.client, path.endpoint.model, slots, plan)


def _logs_command(endpoint: Endpoint) -> str:
    return f"kubectl -n {endpoint.namespace} logs deployment/{endpoint.workload} --tail=50"
