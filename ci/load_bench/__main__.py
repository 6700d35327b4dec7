"""`python -m ci.load_bench`: install GuideLLM, and measure both load generators."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ci.load_bench import guidellm
from ci.load_bench.experiment import Bench, Run, measure
from ci.load_bench.guidellm import Shape
from ci.load_bench.table import table
from ci.node.layout import from_environment
from ci.node.tiny_model import write_tiny_model
from servepath.bench.paced_server import Pace
from servepath.cli.output import stderr_console
from servepath.cli.running import run, run_app

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def install() -> None:
    """Install GuideLLM in an environment of its own, unless it is there."""
    stderr_console().print(str(run(lambda: guidellm.install(from_environment().cache))), highlight=False)


@app.command()
def compare(  # noqa: PLR0913  # one parameter per option
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How often each client is run.")] = 5,
    users: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 64,
    requests: Annotated[int, typer.Option(min=2, help="Requests of each run.")] = 1200,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 64,
    output_tokens: Annotated[int, typer.Option(min=2, help="Tokens of an answer.")] = 32,
    first_token_ms: Annotated[float, typer.Option(min=0, help="From a request to its first token.")] = 100.0,
    gap_ms: Annotated[float, typer.Option(min=0, help="From one token to the next.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of the order within the rounds.")] = 42,
) -> None:
    """Run servepath and GuideLLM on one server, in rounds, and print what they cost."""

    async def work() -> str:
        cache = from_environment().cache
        python = await guidellm.install(cache)
        with tempfile.TemporaryDirectory() as folder:
            write_tiny_model(Path(folder) / "model")
            bench = Bench(
                pace=Pace(first_token_ms / 1000, gap_ms / 1000),
                shape=Shape(users, requests, prompt_tokens, output_tokens),
                rounds=rounds,
                seed=seed,
                python=python,
                model=Path(folder) / "model",
                work=Path(folder),
            )
            return table(bench, await measure(bench, _say))

    sys.stdout.write(run(work) + "\n")


def _say(one: Run) -> None:
    stderr_console().print(
        f"round {one.round_number}, {one.client}: {one.loading_s:.1f} of {one.wall_s:.1f} s under load, "
        f"CPU {one.loading_cpu_s:.1f} of {one.cpu_s:.1f} s",
        highlight=False,
    )


if __name__ == "__main__":
    run_app(app)
