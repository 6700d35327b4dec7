"""The load generator as a program: a closed loop on one server, what it saw as JSON. GuideLLM's counterpart.

`python -m ci.load_bench.ours BASE_URL USERS REQUESTS PROMPT_TOKENS OUTPUT_TOKENS TOKENIZER_JSON RESULT`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from ci.load_bench.guidellm import Shape
from servepath.bench.instrument import endpoint_of
from servepath.bench.load import Slot, open_client, run_block
from servepath.bench.model import Arrivals, BenchPlan, Metric
from servepath.bench.paced_server import MODEL
from servepath.bench.prompts import load_exact_prompts

if TYPE_CHECKING:
    from servepath.bench.model import Sample

PATH = "ours"


async def measure(base_url: str, shape: Shape, tokenizer_json: Path) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Run the load; samples and their prompts."""
    plan = BenchPlan(
        arrivals=Arrivals.CLOSED,
        users=shape.users,
        requests_per_block=shape.requests,
        prompt_tokens=shape.prompt_tokens,
        output_tokens=shape.output_tokens,
    )
    prompts = load_exact_prompts(tokenizer_json, token_count=shape.prompt_tokens, seed=plan.seed)
    slots = [Slot(PATH, 0, index, 0.0, prompts.prompt((0, index))) for index in range(shape.requests)]
    async with open_client(endpoint_of(base_url), plan) as client:
        return await run_block(client, MODEL, slots, plan), tuple(slot.prompt for slot in slots)


def main() -> None:
    """Do what the command line says."""
    base_url, users, requests, prompt_tokens, output_tokens, tokenizer_json, result = sys.argv[1:]
    shape = Shape(int(users), int(requests), int(prompt_tokens), int(output_tokens))
    samples, prompts = anyio.run(measure, base_url, shape, Path(tokenizer_json))
    seen = [
        {
            "prompt": prompt,
            "ok": sample.ok,
            "ttft_s": sample.values_s(Metric.TTFT)[:1],
            "e2e_s": sample.values_s(Metric.E2E)[0],
        }
        for sample, prompt in zip(samples, prompts, strict=True)
    ]
    Path(result).write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
