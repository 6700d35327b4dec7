"""`servepath report`: what a report says, and whether its numbers follow from its samples."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer

from servepath.cli.options import AsJson
from servepath.cli.output import console_line, print_json, print_text
from servepath.cli.running import run
from servepath.errors import CheckFailedError
from servepath.report.document import comparison_document
from servepath.report.markdown import markdown_page
from servepath.report.write import load_report, recompute


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
            await anyio.to_thread.run_sync(partial(_check_numbers, document, folder))
        return document

    document = run(work)
    if as_json:
        print_json(document)
    else:
        print_text(markdown_page(document))
    if document["verdict"] != "pass":
        raise typer.Exit(CheckFailedError.exit_code)


def _check_numbers(document: dict[str, Any], directory: Path) -> None:
    """Compute the comparison again from the samples.

    Raises:
        InputError: the samples are not usable.
        CheckFailedError: a number of the report does not follow from them.
    """
    again = recompute(directory)
    if again is None:
        console_line("no comparison in this report: nothing to recompute")
        return
    if comparison_document(again) != document["comparison"]:
        raise CheckFailedError(
            "the numbers of the comparison do not follow from the samples",
            where=str(directory),
            expected="the report and the samples of one run",
            next_command="servepath bench --help",
        )
    console_line(f"recomputed from {len(again.samples)} samples: the same numbers")
