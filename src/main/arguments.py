"""Arguments that several functions share: type, documentation and unit, written once."""

from typing import Annotated, TypeAlias

import dagger
from dagger import Doc

from main.choices import Compression, Path, Profile

ModelDirectory: TypeAlias = Annotated[
    dagger.Directory, Doc("Model directory: config.json, tokenizer and safetensors weights")
]
PathChoice: TypeAlias = Annotated[Path, Doc("How to serve: `raw|kserve`")]
DeployPathChoice: TypeAlias = Annotated[
    Path, Doc("How to serve: `raw|kserve|llm_d`; llm_d needs two GPUs and its controller, and is counted out without")
]
ProfileChoice: TypeAlias = Annotated[
    Profile, Doc("What one engine may use: `cpu|cpu_small|gpu`; cpu_small is for 2 cores")
]
Reshard: TypeAlias = Annotated[
    str,
    Doc(
        "Cut safetensors weights anew into shards of at most this size, such as `500MB` or `5GB`: pulls run in "
        "parallel. As they are when empty"
    ),
]
CompressionChoice: TypeAlias = Annotated[Compression, Doc("How layers are stored: `none|zstd`")]
Platforms: TypeAlias = Annotated[
    list[str] | None,
    Doc("Platforms of the base, such as `linux/amd64,linux/arm64`: one digest that serves all; linux/amd64 when none"),
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

Steps: TypeAlias = Annotated[
    list[int] | None,
    Doc("The canary's share of the traffic, in percent, rising to 100; `5,25,50,100` when none is named"),
]
HoldS: TypeAlias = Annotated[float, Doc("How long each step is measured, in seconds")]
ClientRatePerS: TypeAlias = Annotated[
    float, Doc("Constant load of clients through the stable hostname, in requests per second")
]
MaxSlowdownPercent: TypeAlias = Annotated[
    float, Doc("A median TTFT or ITL that is slower than this rolls the canary back, in percent")
]

InPlace: TypeAlias = Annotated[
    bool, Doc("Replace what serves, where only one engine can run: clients are interrupted meanwhile")
]
RegistryLogins: TypeAlias = Annotated[
    dagger.Secret | None,
    Doc("Docker's config.json with the logins of the registries involved, such as `file:~/.docker/config.json`"),
]


def modelcar_options(reshard: str, compression: Compression, platforms: list[str] | None) -> list[str]:
    """Give the options of the command line that stand for the form of a modelcar."""
    shards = [f"--reshard={reshard}"] if reshard else []
    return [*shards, f"--compression={compression.value}", *(f"--platform={one}" for one in platforms or [])]


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


def steps_option(steps: list[int] | None) -> list[str]:
    """Give the option of the command line that stands for the steps of a canary; none for the library's own."""
    return [f"--steps={','.join(map(str, steps))}"] if steps else []


def canary_options(
    steps: list[int] | None, hold_s: float, rate_per_s: float, max_slowdown_percent: float, output_tokens: int
) -> list[str]:
    """Give the options of the command line that stand for the plan of a canary."""
    return [
        *steps_option(steps),
        f"--hold={hold_s}",
        f"--rate-per-s={rate_per_s}",
        f"--max-slowdown-percent={max_slowdown_percent}",
        f"--output-tokens={output_tokens}",
    ]
