"""What a command prints: a person's lines, or a machine's JSON on standard output."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.text import Text

from servepath.errors import CheckFailedError, ServepathError
from servepath.evidence import CheckResult, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from servepath.report.model import Report

MARKS = {Verdict.PASS: ("ok", "green"), Verdict.FAIL: ("FAIL", "red"), Verdict.SKIP: ("skip", "yellow")}


def stderr_console() -> Console:
    """Where everything for a person goes; standard output is kept for results."""
    return Console(stderr=True)


def plain(value: Any) -> Any:
    """A value as JSON can hold it: dataclasses as objects, without the fields that are never shown (`repr=False`)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    return value


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(plain(value), indent=2) + "\n")


def print_text(text: str) -> None:
    """A result that is text already, on standard output."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")


def print_fields(title: str, fields: dict[str, Any]) -> None:
    """A result for a person: a title and aligned names and values, on standard output."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(Text(title, style="bold"))
    width = max(len(name) for name in fields)
    for name, value in fields.items():
        console.print(Text(f"  {name:<{width}}  {value}"))


def console_line(text: str) -> None:
    """One line for a person."""
    stderr_console().print(Text(text), soft_wrap=True, highlight=False)


def show_checks(results: Sequence[CheckResult], *, as_json: bool) -> None:
    """Print checks, as lines or as JSON.

    Raises:
        typer.Exit: a check failed; the code is that of `CheckFailedError`.
    """
    if as_json:
        print_json(results)
    else:
        for result in results:
            stderr_console().print(check_line(result), soft_wrap=True, highlight=False)
    failed = [result for result in results if result.verdict is Verdict.FAIL]
    if failed:
        console_line(f"{len(failed)} of {len(results)} checks failed")
        raise typer.Exit(CheckFailedError.exit_code)


def check_line(result: CheckResult) -> Text:
    """One check as one line, with what to do next when it failed."""
    mark, style = MARKS[result.verdict]
    line = Text.assemble((f"{mark:>4} ", style), f"{result.subject:<8}{result.name:<34}{result.duration_s:6.2f} s  ")
    line.append(result.seen, style="dim")
    if result.verdict is Verdict.FAIL:
        line.append(f"\n       expected {result.expected}")
        if result.next_command:
            line.append(f"\n       next: {result.next_command}")
    return line


def print_error(error: ServepathError) -> None:
    """An error as a person reads it: what and where, what was expected, what to type next."""
    console = stderr_console()
    message = Text.assemble(("error ", "bold red"), f"{error.where}: {error.what}" if error.where else error.what)
    if error.expected:
        message.append(f"\n      expected {error.expected}")
    if error.next_command:
        message.append(f"\n      next: {error.next_command}")
    console.print(message, soft_wrap=True, highlight=False)


def print_outcome(report: Report, directory: Path) -> None:
    """What a run came to: the error that ended it or what failed, the finding, and where the report is."""
    console = stderr_console()
    if report.error is not None:
        error = report.error
        print_error(
            ServepathError(error.what, where=error.where, expected=error.expected, next_command=error.next_command)
        )
    for check in report.checks:
        if check.verdict is Verdict.FAIL:
            console.print(check_line(check), soft_wrap=True, highlight=False)
    if report.comparison is not None:
        console_line(report.comparison.headline)
    style = "bold green" if report.verdict is Verdict.PASS else "bold red"
    console.print(Text.assemble((str(report.verdict), style), f"  {directory}/report.html"), soft_wrap=True)
