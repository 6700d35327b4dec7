"""Run one command's work: signals end it in good order, errors become one message and an exit code."""

from __future__ import annotations

import signal
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn, TypeVar

import anyio
import typer

from servepath.errors import ServepathError, first_servepath_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import ModuleType

T = TypeVar("T")

INTERRUPTED_EXIT_CODE = 130
"""What a shell gives for a command ended by Ctrl-C (128 + SIGINT)."""


class InterruptedByUserError(Exception):
    """A signal came, and the work has been put away."""


async def _until_signal(work: Callable[[], Awaitable[T]]) -> T:
    """Run `work`; the first signal to end cancels it, so that it tears down and still writes its report."""
    results: list[T] = []
    async with anyio.create_task_group() as group:

        async def watch() -> None:
            with anyio.open_signal_receiver(*_signals_to_end()) as signals:
                async for _ in signals:
                    _output().console_line("interrupted: putting away what was started")
                    group.cancel_scope.cancel()

        group.start_soon(watch)
        results.append(await work())
        group.cancel_scope.cancel()
    if not results:
        raise InterruptedByUserError
    return results[0]


def _signals_to_end() -> tuple[signal.Signals, ...]:
    """Name the signals; that of a terminal that was closed not under `nohup`, which has it ignored."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *(() if is_ignored else (signal.SIGHUP,)))


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Run a command's work to its end and give its result.

    Raises:
        typer.Exit: after an error of servepath (its class's code) or a signal (130); the message has been printed.
    """
    try:
        return anyio.run(_until_signal, work)
    except InterruptedByUserError:
        raise typer.Exit(INTERRUPTED_EXIT_CODE) from None
    except (ServepathError, OSError, BaseExceptionGroup) as error:
        found = first_servepath_error(error)
        if found is None:
            raise
        _output().print_error(found)
        raise typer.Exit(found.exit_code) from None


def run_app(app: typer.Typer) -> NoReturn:
    """Run a command line; an error of servepath becomes one message and the exit code of its class."""
    try:
        app()
    except ServepathError as error:
        _output().print_error(error)
        sys.exit(error.exit_code)
    sys.exit(0)


def _output() -> ModuleType:
    """Import what prints for a person when there is something to say: rich is a fifth of a short command's time."""
    return import_module("servepath.cli.output")
