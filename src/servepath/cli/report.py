"""`servepath report`: what a report says, and whether its numbers follow from its samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import anyio
import typer

from servepath.cli.options import AsJson
from servepath.cli.output import console_line, print_json, print_text
from servepath.cli.running import run
from servepath.errors import CheckFailedError
from servepath.report.markdown import markdown_page
from servepath.report.recompute import Recomputed, recompute
from servepath.report.write import load_report

MAX_SHOWN = 5


def report_command(
    directory: Annotated[Path, typer.Argument(help="A report directory, or its report.json.")] = Path("report"),
    *,
    recomputed: Annotated[
        bool, typer.Option("--recompute", help="Compute every number again from the raw samples first, and compare.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print a report as Markdown; the exit code is 6 unless its verdict is `pass`.

    Example: servepath report ./report --recompute
    """

    async def work() -> dict[str, Any]:
        document = await anyio.to_thread.run_sync(load_report, directory)
        if recomputed:
            folder = directory if directory.is_dir() else directory.parent
            check_numbers(await anyio.to_thread.run_sync(recompute, folder), folder)
        return document

    document = run(work)
    if as_json:
        print_json(document)
    else:
        print_text(markdown_page(document))
    if document["verdict"] != "pass":
        raise typer.Exit(CheckFailedError.exit_code)


def check_numbers(again: Recomputed, directory: Path) -> None:
    """Say that the numbers of a report follow from its samples.

    Raises:
        CheckFailedError: one does not; it says which, what is written and what follows from the samples.
    """
    if again.differences:
        shown = [f"{one.where} is {one.written!r}, computed {one.computed!r}" for one in again.differences[:MAX_SHOWN]]
        more = len(again.differences) - len(shown)
        raise CheckFailedError(
            f"{len(again.differences)} of {again.value_count} values do not follow from the samples: "
            + "; ".join(shown)
            + (f"; and {more} more" if more else ""),
            where=str(directory),
            expected="the report and the samples of one run",
            next_command="servepath bench --help",
        )
    console_line(f"recomputed {again.value_count} values from {again.request_count} requests: the same numbers")
