"""How a person sees stages: a live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.text import Text

from servepath.cli.output import MARKS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

    from servepath.evidence import StageTiming
    from servepath.stages import StageObserver

NAME_WIDTH = 16


def _line(timing: StageTiming) -> Text:
    mark, style = MARKS[timing.verdict]
    line = Text.assemble((f"{mark:>4} ", style), f"{timing.name:<{NAME_WIDTH}}", f"{timing.duration_s:7.1f} s")
    if timing.detail:
        line.append(f"  {timing.detail}", style="dim")
    return line


class PlainDisplay:
    """One line when a stage begins and one when it ends: what a log wants."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def started(self, name: str) -> None:
        """Print that a stage begins."""
        self._console.print(f"  .. {name}", highlight=False)

    def noted(self, name: str, detail: str) -> None:
        """Nothing: a log shows what a stage came to when it ends."""

    def ended(self, timing: StageTiming) -> None:
        """Print a stage's result and time."""
        self._console.print(_line(timing), soft_wrap=True)


class LiveDisplay:
    """Finished stages scroll up; running ones stay below with their elapsed time."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._running: dict[str, tuple[float, str]] = {}

    def started(self, name: str) -> None:
        """Show a stage as running."""
        self._running[name] = (time.perf_counter(), "")

    def noted(self, name: str, detail: str) -> None:
        """Show what a running stage says of itself."""
        began, _ = self._running[name]
        self._running[name] = (began, detail)

    def ended(self, timing: StageTiming) -> None:
        """Print a stage's result above the running ones."""
        self._running.pop(timing.name, None)
        self._console.print(_line(timing), soft_wrap=True)

    def __rich__(self) -> RenderableType:
        now = time.perf_counter()
        return Group(
            *(
                Text.assemble(
                    ("  .. ", "cyan"),
                    f"{name:<{NAME_WIDTH}}",
                    f"{now - began:7.1f} s  ",
                    (detail, "dim"),
                    overflow="ellipsis",
                )
                for name, (began, detail) in tuple(self._running.items())  # another thread draws
            )
        )


@contextmanager
def show_stages(console: Console) -> Iterator[StageObserver]:
    """A display that fits the console: live on a terminal, plain in a log."""
    if not console.is_terminal:
        yield PlainDisplay(console)
        return
    display = LiveDisplay(console)
    with Live(display, console=console, refresh_per_second=4, transient=True):
        yield display
