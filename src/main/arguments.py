"""Arguments that several functions share: type, documentation and unit, written once."""

from typing import Annotated, TypeAlias

import dagger
from dagger import Doc

from main.choices import Path, Profile

ModelDirectory: TypeAlias = Annotated[
    dagger.Directory, Doc("Model directory: config.json, tokenizer and safetensors weights")
]
PathChoice: TypeAlias = Annotated[Path, Doc("How to serve: `raw|kserve`")]
ProfileChoice: TypeAlias = Annotated[
    Profile, Doc("What one engine may use: `cpu|cpu_small|gpu`; cpu_small is for 2 cores")
]
GatewayClass: TypeAlias = Annotated[str, Doc("GatewayClass that routes to both paths")]
ExpectedAnswer: TypeAlias = Annotated[
    str, Doc('Word that the answer to "The capital of France is" must hold; empty for a model that cannot know it')
]

Blocks: TypeAlias = Annotated[int, Doc("Blocks of requests; in each, every path is loaded once, in random order")]
RequestsPerBlock: TypeAlias = Annotated[int, Doc("Requests that each path gets in one block")]
RatePerS: TypeAlias = Annotated[float, Doc("Offered rate within a block, in requests per second")]
PromptTokens: TypeAlias = Annotated[int, Doc("Length of each prompt, in tokens")]
OutputTokens: TypeAlias = Annotated[int, Doc("Length of each answer, in tokens")]


def bench_options(
    blocks: int, requests_per_block: int, rate_per_s: float, prompt_tokens: int, output_tokens: int
) -> list[str]:
    """Give the options of the command line that stand for the plan of a benchmark."""
    return [
        f"--blocks={blocks}",
        f"--requests-per-block={requests_per_block}",
        f"--rate-per-s={rate_per_s}",
        f"--prompt-tokens={prompt_tokens}",
        f"--output-tokens={output_tokens}",
    ]
