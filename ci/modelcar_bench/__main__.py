"""`python -m ci.modelcar_bench`: measure, and write the table and the plot."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ci.modelcar_bench import experiment, peers, results, synthetic
from ci.modelcar_bench.experiment import Bench, Registry, Run
from ci.node import images, oci_tools, packages
from ci.node.layout import from_environment
from servepath.cli.output import stderr_console
from servepath.cli.running import run, run_app

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
SHARDS = 4
PAGE, PLOT = "modelcar-bench.md", "modelcar-bench.svg"


@app.command()
def bench(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How often each tool is run.")] = 5,
    blocks: Annotated[
        int, typer.Option(min=1, help="Transformer blocks of the model; 24 make 1 GB.")
    ] = synthetic.LAYERS,
    registry: Annotated[list[Registry] | None, typer.Option(help="Push to these only.")] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where the page and the plot go.")] = Path("docs"),
    seed: Annotated[int, typer.Option(help="Of the order within the rounds.")] = 42,
) -> None:
    """Push one model with servepath, oras, oci-modelcar and olot, in rounds, and compare the processes."""

    async def work() -> None:
        console = stderr_console()
        cache = from_environment().cache
        await packages.install({**packages.NEEDED, **oci_tools.PACKAGES})
        tools = peers.tools(await peers.install(cache))
        runs: list[Run] = []
        loads: list[float] = []

        def said(one: Run) -> None:
            runs.append(one)
            loads.append(os.getloadavg()[0])
            cost = one.cost
            console.print(
                f"{one.number} {one.registry or '-'}: {one.tool}, {one.step}: {cost.wall_s:.2f} s, "
                f"CPU {cost.cpu_s:.2f} s, {cost.memory_bytes / 1e6:.0f} MB, {cost.written_bytes / 1e6:.1f} MB written",
                highlight=False,
            )

        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix="bench-") as folder:
            scratch = Path(folder)
            size_bytes = synthetic.write_model(scratch / "model", blocks)
            synthetic.write_model(scratch / "shards", blocks, shards=SHARDS)
            images.busybox().write(scratch / "base", "base")
            plan = Bench(scratch / "model", scratch / "shards", scratch / "base", scratch, rounds, seed)
            for target in registry or Registry:
                await experiment.measure_pushes(plan, tools, target, said)
            experiment.measure_directories(plan, said)
            machine = f"{experiment.cpu_name()}, {experiment.file_system(scratch)}"
            machine += f", load average {min(loads):.1f} to {max(loads):.1f}"
        output.mkdir(parents=True, exist_ok=True)
        (output / PAGE).write_text(results.markdown(runs, size_bytes, machine, "make bench-modelcar"))
        (output / PLOT).write_text(results.svg(runs))
        console.print(f"{output / PAGE}, {output / PLOT}")

    run(work)


if __name__ == "__main__":
    sys.exit(run_app(app))
