"""`servepath report`: what a report says, whether its numbers follow from its samples, and what changed between two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
import typer

from servepath.bench.regression import Gate, Regression, compare_runs, refuse_different, refuse_regression
from servepath.cli.options import AsJson
from servepath.cli.output import console_line
from servepath.cli.results import print_json, print_text
from servepath.cli.running import run
from servepath.errors import CheckFailedError, UsageError
from servepath.report.markdown import markdown_page
from servepath.report.recompute import Recomputed, recompute
from servepath.report.regression import load_run, regression_markdown, regression_values, write_regression
from servepath.report.write import load_report

DEFAULT_GATE = Gate()
MAX_SHOWN = 5
TWO = 2

Reports = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[REPORT] [LATER]", help="A report directory or its report.json; a second one is compared with it."
    ),
]
Threshold = Annotated[
    float, typer.Option(min=0.0, help="With two reports: a smaller slowdown is no regression, in percent.")
]
Anyway = Annotated[
    bool, typer.Option("--anyway", help="With two reports: compare them though they measured different things.")
]
Output = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="With two reports: write regression.json, regression.md and regression.html."),
]


def report_command(
    reports: Reports = None,
    *,
    recomputed: Annotated[
        bool, typer.Option("--recompute", help="Compute every number again from the raw samples first, and compare.")
    ] = False,
    threshold_percent: Threshold = DEFAULT_GATE.threshold_percent,
    anyway: Anyway = False,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Print a report as Markdown; the exit code is 6 unless its verdict is `pass`.

    With two reports print what changed from the first to the second; the exit code is 7 when the whole interval of a
    slowdown lies beyond the threshold, and 3 when the two did not measure the same thing.

    Example: servepath report ./report --recompute

    Example: servepath report ./before ./after --threshold-percent 5
    """
    places = reports or [Path("report")]
    if len(places) > TWO:
        raise UsageError(f"{len(places)} reports", where="servepath report", expected="one, or two to compare")

    async def work() -> Comparison | dict[str, Any]:
        for place in places if recomputed else ():
            folder = place if place.is_dir() else place.parent
            check_numbers(await anyio.to_thread.run_sync(recompute, folder), folder)
        if len(places) == TWO:
            gate = replace(DEFAULT_GATE, threshold_percent=threshold_percent)
            return await anyio.to_thread.run_sync(
                partial(compare, places[0], places[1], gate, anyway=anyway, output=output)
            )
        return await anyio.to_thread.run_sync(load_report, places[0])

    found = run(work)
    if isinstance(found, Comparison):
        _print(found.values, regression_markdown(found.values), as_json=as_json)
        refuse_regression(found.regression)
    else:
        _print(found, markdown_page(found), as_json=as_json)
        if found["verdict"] != "pass":
            raise typer.Exit(CheckFailedError.exit_code)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed between two runs, and the same as JSON values."""

    regression: Regression
    values: dict[str, Any]


def compare(before: Path, after: Path, gate: Gate, *, anyway: bool, output: Path | None) -> Comparison:
    """Compare two reports, and write what came of it where that is wanted.

    Raises:
        InputError: a report is not usable, they did not measure the same, or the output cannot be written.
    """
    first, second = load_run(before), load_run(after)
    if not anyway:
        refuse_different(first, second)
    regression = compare_runs(first, second, gate)
    values = regression_values(regression, first, second)
    if output is not None:
        write_regression(values, output)
    return Comparison(regression, values)


def _print(values: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(values)
    else:
        print_text(text)


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
