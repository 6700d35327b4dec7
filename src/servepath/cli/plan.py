"""The options of a benchmark, as a `BenchPlan`, and of what is measured beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from servepath.bench.capacity import SweepDesign
from servepath.bench.model import Arrivals, BenchPlan
from servepath.errors import UsageError

Blocks: TypeAlias = Annotated[
    int, typer.Option(help="Fewest blocks; in each, every path is loaded once, in random order.")
]
RequestsPerBlock: TypeAlias = Annotated[int, typer.Option(help="Requests that each path gets in one block.")]
RatePerS: TypeAlias = Annotated[float, typer.Option(help="Offered rate within a block, in requests per second.")]
PromptTokens: TypeAlias = Annotated[int, typer.Option(help="Length of each prompt, in tokens.")]
OutputTokens: TypeAlias = Annotated[int, typer.Option(help="Length of each answer, in tokens.")]
Seed: TypeAlias = Annotated[int, typer.Option(help="Seed of prompts, order, arrivals and intervals.")]

PrecisionPercent: TypeAlias = Annotated[
    float, typer.Option(help="Half width of a median's interval at which no further block is taken, in percent.")
]
BudgetS: TypeAlias = Annotated[
    float, typer.Option(help="No block is taken that would end later, in seconds; the fewest blocks are taken anyway.")
]

ArrivalsOption: TypeAlias = Annotated[
    Arrivals, typer.Option("--arrivals", help="How requests are spread; `closed` sends each when an earlier one ended.")
]
Users: TypeAlias = Annotated[int, typer.Option(help="Requests under way at once, with --arrivals closed.")]
BurstSize: TypeAlias = Annotated[int, typer.Option(help="Requests sent at once, with --arrivals burst.")]
Tokenizer: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="The model's tokenizer.json, for prompts of exact length; calibrated by its usage without."),
]

Sweeping: TypeAlias = Annotated[
    bool, typer.Option("--sweep", help="Also look for the highest rate that meets the objectives: 5 minutes at most.")
]
UsdPerHour: TypeAlias = Annotated[
    float | None,
    typer.Option(min=0.0, help="Price of what serves one path, in US dollars per hour: a sweep then states costs."),
]
MeasureLifecycle: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--lifecycle",
        help="Also measure updates under load, stops, starts, the control plane and the model's way in: minutes more.",
    ),
]


def sweep_of(usd_per_hour: float | None, *, wanted: bool) -> SweepDesign | None:
    """Give the sweep that the options describe, None where none is wanted.

    Raises:
        UsageError: a price without a sweep, or none that could be.
    """
    if wanted:
        return SweepDesign(usd_per_hour=usd_per_hour)
    if usd_per_hour is not None:
        raise UsageError("a price alone gives no cost", where="--usd-per-hour", expected="--sweep with it")
    return None


def plan_of(
    blocks: int,
    requests_per_block: int,
    rate_per_s: float,
    prompt_tokens: int,
    output_tokens: int,
    seed: int,
    precision_percent: float,
    budget_s: float,
) -> BenchPlan:
    """Give the plan that the options describe.

    Raises:
        UsageError: it cannot be carried out.
    """
    return BenchPlan(
        blocks=blocks,
        requests_per_block=requests_per_block,
        rate_per_s=rate_per_s,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        seed=seed,
        precision_percent=precision_percent,
        budget_s=budget_s,
    )
