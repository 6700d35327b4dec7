"""What a person sees on standard error: lines, checks, errors; what a command gives is in `results`."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from servepath.cli.results import print_json
from servepath.errors import ServepathError
from servepath.evidence import CheckResult, Verdict
from servepath.redaction import redact
from servepath.report.document import NOT_XML, secrets_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from servepath.report.model import Report

MARKS = {Verdict.PASS: ("ok", "green"), Verdict.FAIL: ("FAIL", "red"), Verdict.SKIP: ("skip", "yellow")}


@cache
def stderr_console() -> Console:
    """Where everything for a person goes; standard output is kept for results.

    There is one: a live display on it keeps what is printed by it, and overwrites what any other console prints.
    """
    return Console(stderr=True)


def console_line(text: str) -> None:
    """One line for a person."""
    stderr_console().print(Text(printable(text)), soft_wrap=True, highlight=False)


def printable(text: str) -> str:
    """Give the text without control characters and halves of surrogate pairs: what an engine said is not trusted."""
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)


def show_checks(results: Sequence[CheckResult], *, as_json: bool) -> None:
    """Print checks, as lines or as JSON."""
    if as_json:
        print_json(results)
    else:
        for result in results:
            stderr_console().print(check_line(result), soft_wrap=True, highlight=False)
    failed = [result for result in results if result.verdict is Verdict.FAIL]
    if failed:
        console_line(f"{len(failed)} of {len(results)} checks failed")


def without_secrets(results: Sequence[CheckResult], secrets: Sequence[str]) -> tuple[CheckResult, ...]:
    """Give the checks with every secret in their texts replaced: an engine may say back what it was sent."""
    return tuple(
        dataclasses.replace(
            result,
            expected=redact(result.expected, secrets),
            seen=redact(result.seen, secrets),
            next_command=redact(result.next_command, secrets),
        )
        for result in results
    )


def check_line(result: CheckResult) -> Text:
    """One check as one line, with what to do next when it failed, or could not be told and there is something to do."""
    mark, style = MARKS[result.verdict]
    line = Text.assemble((f"{mark:>4} ", style), f"{result.subject:<8}{result.name:<34}{result.duration_s:6.2f} s  ")
    line.append(printable(result.seen), style="dim")
    if result.verdict is Verdict.FAIL:
        line.append(f"\n       expected {result.expected}")
    if result.verdict is not Verdict.PASS and result.next_command:
        line.append(f"\n       next: {result.next_command}")
    return line


def print_error(error: ServepathError) -> None:
    """An error as a person reads it: what and where, what was expected, what to type next."""
    console = stderr_console()
    where = f"{error.where}: " if error.where else ""
    message = Text.assemble(("error ", "bold red"), printable(f"{where}{error.what}"))
    if error.expected:
        message.append(f"\n      expected {error.expected}")
    if error.next_command:
        message.append(f"\n      next: {error.next_command}")
    console.print(message, soft_wrap=True, highlight=False)


def print_outcome(report: Report, directory: Path | None) -> None:
    """What a run came to: the error that ended it or what failed, the finding, and where the report is, if anywhere."""
    console = stderr_console()
    secrets = secrets_of(report)
    if report.error is not None:
        said = redact(dataclasses.asdict(report.error), secrets)
        del said["exit_code"]
        print_error(ServepathError(said.pop("what"), **said))
    for check in without_secrets(report.checks, secrets):
        if check.verdict is Verdict.FAIL:
            console.print(check_line(check), soft_wrap=True, highlight=False)
    if report.comparison is not None:
        console_line(report.comparison.headline)
    style = "bold green" if report.verdict is Verdict.PASS else "bold red"
    place = f"  {directory}/report.html" if directory else ""
    console.print(Text.assemble((str(report.verdict), style), place), soft_wrap=True)
