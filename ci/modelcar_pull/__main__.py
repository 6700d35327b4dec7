"""`python -m ci.modelcar_pull MODEL`: pull every form of a model, and print the table."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ci.modelcar_pull.experiment import Pull, Rounds, measure, require_programs
from ci.node import images
from ci.node.layout import from_environment
from servepath.cli.output import stderr_console
from servepath.cli.running import run, run_app

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def pull(
    model: Annotated[Path, typer.Argument(help="Model directory, with safetensors weights.")],
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How often each form is pulled.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the order within the rounds.")] = 42,
) -> None:
    """Pull every form of a model with containerd, from docker-registry on the loopback, in rounds."""

    async def work() -> list[Pull]:
        require_programs()
        cache = from_environment().cache
        cache.mkdir(parents=True, exist_ok=True)
        pulls: list[Pull] = []

        def said(one: Pull) -> None:
            pulls.append(one)
            stderr_console().print(f"{one.form}: {one.fetch_s:.2f} + {one.unpack_s:.2f} s", highlight=False)

        with tempfile.TemporaryDirectory(dir=cache, prefix="pull-") as folder:
            scratch = Path(folder)
            images.busybox().write(scratch / "base", "base")
            await measure(model, f"oci:{scratch / 'base'}", scratch, Rounds(rounds, seed), said)
        return pulls

    typer.echo(table(run(work)))


def table(pulls: list[Pull]) -> str:
    """Write the median of each form in Markdown, in order of name."""
    lines = [
        "| form | model layers | size | fetch | unpack | together | disk |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for form in sorted({one.form for one in pulls}):
        of_form = [one for one in pulls if one.form == form]
        fetch_s = statistics.median(one.fetch_s for one in of_form)
        unpack_s = statistics.median(one.unpack_s for one in of_form)
        together_s = statistics.median(one.fetch_s + one.unpack_s for one in of_form)
        first = of_form[0]
        lines.append(
            f"| {form} | {first.layers} | {first.size_bytes / 1e6:.0f} MB | {fetch_s:.1f} s | {unpack_s:.1f} s"
            f" | {together_s:.1f} s | {first.disk_bytes / 1e6:.0f} MB |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    run_app(app)
